__attribute__((noinline)) static __m512i r0(const char*b,size_t t){return run(b,t,8388608,1,4096,0,0,3,4);}
__attribute__((noinline)) static __m512i r1(const char*b,size_t t){return run(b,t,2195456,2,4096,0,4096,3,4);}
__attribute__((noinline)) static __m512i r2(const char*b,size_t t){return run(b,t,2195456,4,4096,0,4096,3,4);}
__attribute__((noinline)) static __m512i r3(const char*b,size_t t){return run(b,t,137216,2,4096,0,4096,3,4);}
__attribute__((noinline)) static __m512i r4(const char*b,size_t t){return run(b,t,137216,4,4096,0,4096,3,4);}
__attribute__((noinline)) static __m512i r5(const char*b,size_t t){return run(b,t,8388608,1,4096,4,4096,3,4);}
__attribute__((noinline)) static __m512i r6(const char*b,size_t t){return run(b,t,8388608,1,4096,64,4096,3,4);}
static rf*fs[]={r0,r1,r2,r3,r4,r5,r6};
static const char*names[]={"P 8388608 S 1 U 4096 n 0 D 0 h 3 V 4","P 2195456 S 2 U 4096 n 0 D 4096 h 3 V 4","P 2195456 S 4 U 4096 n 0 D 4096 h 3 V 4","P 137216 S 2 U 4096 n 0 D 4096 h 3 V 4","P 137216 S 4 U 4096 n 0 D 4096 h 3 V 4","P 8388608 S 1 U 4096 n 4 D 4096 h 3 V 4","P 8388608 S 1 U 4096 n 64 D 4096 h 3 V 4"};
static double did[]={67108864,70254592,70254592,71077888,70803456,67108864,67108864};
