/* The loops of run.c for one set of instructions; included once for each.
 *
 * RUN(name)      the name of this set's function
 * RUN_TARGET     its attributes
 * RUN_WIDTH      values in a vector
 * RUN_MAX, _MIN  of two vectors: the second where the first is NaN
 * RUN_BYTES      the low bytes of a vector of words, into memory
 * RUN_QUICK      codes of bounded f32 values, as many of the first ones as it takes; gives how
 *                many */

#define FLOATS RUN(floats)
#define INTS RUN(ints)
#define WORDS RUN(words)
#define HALVES RUN(halves)
#define VECTOR(type, name)                                                                         \
    typedef type name                                                                              \
        __attribute__((vector_size(RUN_WIDTH * sizeof(type)), aligned(sizeof(type)), may_alias))
VECTOR(float, FLOATS);
VECTOR(int32_t, INTS);
VECTOR(uint32_t, WORDS);
VECTOR(uint16_t, HALVES);
#undef VECTOR

RUN_TARGET static inline FLOATS RUN(load)(const void *x, bool narrow, int64_t i) {
    if (!narrow) return *(const FLOATS *)((const float *)x + i);
    HALVES half = *(const HALVES *)((const uint16_t *)x + i);
    return (FLOATS)(__builtin_convertvector(half, WORDS) << 16);
}

/* Half to even, for what is finite and stays so. */
RUN_TARGET static inline FLOATS RUN(round_bf16)(FLOATS v) {
    WORDS bits = (WORDS)v;
    return (FLOATS)((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

/* The last values, filled up with the first of them. */
RUN_TARGET static inline FLOATS RUN(load_tail)(const void *x, bool narrow, int64_t i,
                                               int64_t count) {
    char tail[RUN_WIDTH * sizeof(float)];
    size_t each = narrow ? sizeof(uint16_t) : sizeof(float);
    for (int64_t j = 0; j < RUN_WIDTH; j++)
        memcpy(tail + (size_t)j * each,
               (const char *)x + (size_t)(i + j < count ? i + j : i) * each, each);
    return RUN(load)(tail, narrow, 0);
}

RUN_TARGET static inline bool RUN(range)(const void *x, bool narrow, int64_t count, float *min,
                                         float *max) {
    const FLOATS none = {0};
    FLOATS least[2] = {*min - none, *min - none}, most[2] = {*max - none, *max - none};
    FLOATS nothing[2] = {none, none}; /* NaN from an infinity or a NaN on */
    const int64_t width = RUN_WIDTH;
    int64_t i = 0;
    for (; i + 2 * width <= count; i += 2 * width)
        for (int64_t j = 0; j < 2; j++) {
            FLOATS v = RUN(load)(x, narrow, i + j * width);
            least[j] = RUN_MIN(v, least[j]);
            most[j] = RUN_MAX(v, most[j]);
            nothing[j] += v * 0;
        }
    for (; i < count; i += RUN_WIDTH) {
        FLOATS v =
            i + RUN_WIDTH <= count ? RUN(load)(x, narrow, i) : RUN(load_tail)(x, narrow, i, count);
        least[0] = RUN_MIN(v, least[0]);
        most[0] = RUN_MAX(v, most[0]);
        nothing[0] += v * 0;
    }
    float all[3][RUN_WIDTH];
    *(FLOATS *)all[0] = RUN_MIN(least[0], least[1]);
    *(FLOATS *)all[1] = RUN_MAX(most[0], most[1]);
    *(FLOATS *)all[2] = nothing[0] + nothing[1];
    for (int half = RUN_WIDTH / 2; half; half /= 2)
        for (int j = 0; j < half; j++) {
            all[0][j] = all[0][j + half] < all[0][j] ? all[0][j + half] : all[0][j];
            all[1][j] = all[1][j + half] > all[1][j] ? all[1][j + half] : all[1][j];
            all[2][j] += all[2][j + half];
        }
    *min = all[0][0];
    *max = all[1][0];
    return all[2][0] == 0;
}

RUN_TARGET static bool RUN(range_f32)(const void *x, int64_t count, float *min, float *max) {
    return RUN(range)(x, false, count, min, max);
}

RUN_TARGET static bool RUN(range_bf16)(const void *x, int64_t count, float *min, float *max) {
    return RUN(range)(x, true, count, min, max);
}

/* Codes of one vector.  Adding and subtracting 1.5 * 2^23 rounds to even what lies within 2^22;
 * codes end far below the bound that steps are held to first.  Added once more, it leaves a whole
 * number's two's complement in the low bits. */
RUN_TARGET static inline WORDS RUN(round)(const tw_run *r, FLOATS v, bool rounds, bool divide) {
    const FLOATS none = {0}, bound = 0x1p20F - none;
    const float rounder = 0x1.8p23F;
    if (divide) {
        v = v - r->least;
        v = (rounds ? RUN(round_bf16)(v) : v) / r->scale;
    } else {
        v = v * r->scale;
    }
    /* Infinities end at the bound. */
    v = RUN_MIN(RUN_MAX(v, -bound), bound);
    v = (rounds ? RUN(round_bf16)(v) : v) + rounder - rounder;
    if (!divide) {
        v = v + (float)r->zero;
        v = rounds ? RUN(round_bf16)(v) : v;
    }
    v = RUN_MIN(RUN_MAX(v, (float)r->qmin - none), (float)r->qmax - none) + rounder;
    return (WORDS)v;
}

RUN_TARGET static inline bool RUN(round_block)(const tw_run *r, const void *x, bool narrow,
                                               bool rounds, bool divide, int64_t first,
                                               int64_t count, uint8_t *out) {
    INTS nan = {0};
    int64_t i =
        r->bounded && !narrow && !divide ? RUN_QUICK(r, (const float *)x + first, count, out) : 0;
    for (; i < count; i += RUN_WIDTH) {
        FLOATS v = i + RUN_WIDTH <= count ? RUN(load)(x, narrow, first + i)
                                          : RUN(load_tail)(x, narrow, first + i, first + count);
        nan |= ~((v > 0) | (v <= 0));
        RUN_BYTES(out + i, RUN(round)(r, v, rounds, divide));
    }
    int32_t any = 0;
    for (int j = 0; j < RUN_WIDTH; j++) any |= nan[j];
    return !any;
}

RUN_TARGET static bool RUN(codes)(const tw_run *r, const void *x, int64_t count, uint8_t *codes) {
    int bits = tw_dtype_bits(r->code);
    bool narrow = r->x == TW_BF16;
    for (int64_t i = 0; i < count; i += BLOCK) {
        uint8_t block[BLOCK + RUN_WIDTH] __attribute__((aligned(64)));
        int64_t n = count - i < BLOCK ? count - i : BLOCK;
        bool good;
        if (r->rounds)
            good = r->divide ? RUN(round_block)(r, x, true, true, true, i, n, block)
                             : RUN(round_block)(r, x, true, true, false, i, n, block);
        else if (narrow)
            good = RUN(round_block)(r, x, true, false, r->divide, i, n, block);
        else
            good = r->divide ? RUN(round_block)(r, x, false, false, true, i, n, block)
                             : RUN(round_block)(r, x, false, false, false, i, n, block);
        if (!good) return false;
        memset(block + n, 0, 8);
        pack(block, n, bits, codes + i * bits / 8);
    }
    return true;
}

static const code RUN(code) = {RUN(range_f32), RUN(range_bf16), RUN(codes)};

#undef FLOATS
#undef INTS
#undef WORDS
#undef HALVES
#undef RUN
#undef RUN_TARGET
#undef RUN_WIDTH
#undef RUN_MAX
#undef RUN_MIN
#undef RUN_BYTES
#undef RUN_QUICK
