/* What the object loader's test loads: compiled several ways by tests/backend/meson.build, never
 * linked.  Like generated code it calls nothing from outside and exports global functions. */
#if defined(SAMPLE_UNDEFINED)
int elsewhere(int);
int tw_sum(int n);
int tw_sum(int n) { return elsewhere(n); }
#elif defined(SAMPLE_DATA)
int kept = 7;
int tw_sum(int n);
int tw_sum(int n) { return kept += n; }
#elif defined(SAMPLE_BSS)
static int kept[64];
int tw_sum(int n);
int tw_sum(int n) { return kept[n & 63]++; }
#else
int tw_sum(int n);
int tw_choose(int i);
int tw_both(int n);

static const int primes[8] __attribute__((used)) = {2, 3, 5, 7, 11, 13, 17, 19};

#if defined(SAMPLE_POINTER)
/* A constant that is a 64-bit address: C would put it where it can be written. */
__asm__(".pushsection .rodata.pointer, \"a\"\n"
        ".balign 8\n"
        "primes_address: .quad primes\n"
        ".popsection");
extern const int *const primes_address __attribute__((visibility("hidden")));
#else
#define primes_address primes
#endif

/* The sum of the first n primes. */
__attribute__((noinline)) int tw_sum(int n) {
    int sum = 0;
    for (int i = 0; i < n && i < 8; i++) sum += primes_address[i];
    return sum;
}

/* A second constant section. */
__attribute__((noinline)) int tw_choose(int i) { return "tilewright"[i % 10]; }

/* Calls from one section into another. */
int tw_both(int n) { return tw_sum(n) * 1000 + tw_choose(n); }
#endif
