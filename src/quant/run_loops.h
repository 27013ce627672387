/* The loops of run.c for one set of instructions; included once for each.
 *
 * RUN(name)      the name of this set's function
 * RUN_TARGET     its attributes
 * RUN_WIDTH      values in a vector
 * RUN_MAX, _MIN  of two vectors: the second where the first is NaN
 * RUN_LEAST      optional: of the values of one vector, none of them NaN
 * RUN_BYTES      optional: the low bytes of a vector of words, into memory
 * RUN_QUICK      codes of bounded f32 values, as many of the first ones as it takes; gives how
 *                many
 * RUN_NIBBLES    the same, two codes in a byte */

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

RUN_TARGET static inline float RUN(least)(FLOATS v) {
#ifdef RUN_LEAST
    return RUN_LEAST(v);
#else
    float least = v[0];
    for (int j = 1; j < RUN_WIDTH; j++) least = v[j] < least ? v[j] : least;
    return least;
#endif
}

RUN_TARGET static inline void RUN(store)(uint8_t *out, WORDS v) {
#ifdef RUN_BYTES
    RUN_BYTES(out, v);
#else
    for (int j = 0; j < RUN_WIDTH; j++) out[j] = (uint8_t)v[j];
#endif
}

/* Whether all are numbers and 0. */
RUN_TARGET static inline bool RUN(all_zero)(FLOATS v) {
    int32_t any = 0;
    for (int j = 0; j < RUN_WIDTH; j++) any |= !(v[j] == 0);
    return !any;
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
    *min = RUN(least)(RUN_MIN(least[0], least[1]));
    *max = -RUN(least)(-RUN_MAX(most[0], most[1]));
    return RUN(all_zero)(nothing[0] + nothing[1]);
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
        RUN(store)(out + i, RUN(round)(r, v, rounds, divide));
    }
    int32_t any = 0;
    for (int j = 0; j < RUN_WIDTH; j++) any |= nan[j];
    return !any;
}

RUN_TARGET static bool RUN(codes)(const tw_run *r, const void *x, int64_t count, uint8_t *codes) {
    int bits = tw_dtype_bits(r->code);
    bool narrow = r->x == TW_BF16;
    for (int64_t i = 0; i < count; i += BLOCK) {
        uint8_t block[ROOM] __attribute__((aligned(64)));
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
        if (n % 8) memset(block + n, 0, 8);
        pack(block, n, bits, codes + i * bits / 8);
    }
    return true;
}

/* ---- whole rows ---- */

/* Ranges of up to GROUPS groups, from 0 on; false if a value is not finite. */
RUN_TARGET static inline bool RUN(ranges)(const tw_run_fit *f, const float *x, int64_t count,
                                          float *min, float *max) {
    const FLOATS none = {0};
    const int64_t width = RUN_WIDTH;
    FLOATS nothing = none;
    for (int64_t k = 0, g = 0; k < count; k += f->group, g++) {
        int64_t end = k + f->group < count ? k + f->group : count, i = k;
        FLOATS least[2] = {none, none}, most[2] = {none, none};
        for (; i + 2 * width <= end; i += 2 * width)
            for (int64_t j = 0; j < 2; j++) {
                FLOATS v = RUN(load)(x, false, i + j * width);
                if (j * width % LINE == 0) ahead(x + i + j * width, FAR);
                least[j] = RUN_MIN(v, least[j]);
                most[j] = RUN_MAX(v, most[j]);
                nothing += v * 0;
            }
        for (; i < end; i += width) {
            FLOATS v = i + width <= end ? RUN(load)(x, false, i) : RUN(load_tail)(x, false, i, end);
            least[0] = RUN_MIN(v, least[0]);
            most[0] = RUN_MAX(v, most[0]);
            nothing += v * 0;
        }
        min[g] = RUN(least)(RUN_MIN(least[0], least[1]));
        max[g] = -RUN(least)(-RUN_MAX(most[0], most[1]));
    }
    return RUN(all_zero)(nothing);
}

/* Scales and zeros, several groups at a time; arrays end in whole vectors. */
RUN_TARGET static inline void RUN(choose)(const tw_run_fit *f, int64_t groups, const float *min,
                                          const float *max, float *scales, float *zeros) {
    const FLOATS none = {0}, low = (float)f->qmin - none, high = (float)f->qmax - none;
    const float codes = (float)(f->qmax - f->qmin), rounder = 0x1.8p23F;
    const int32_t centre = (f->qmax + f->qmin + 1) / 2; /* truncated */
    const FLOATS middle = (float)centre - none;
    for (int64_t g = 0; g < groups; g += RUN_WIDTH) {
        FLOATS least = *(const FLOATS *)(min + g), most = *(const FLOATS *)(max + g);
        FLOATS scale = f->symmetric ? RUN_MAX(-least, most) / (codes / 2) : (most - least) / codes;
        scale = RUN_MAX(scale, f->eps - none);
        FLOATS zero = low - (least / scale + rounder - rounder);
        *(FLOATS *)(scales + g) = scale;
        *(FLOATS *)(zeros + g) = f->symmetric ? middle : RUN_MIN(RUN_MAX(zero, low), high);
    }
}

/* Codes of one group. */
RUN_TARGET static inline void RUN(fit_group)(const tw_run *r, const float *x, int64_t count,
                                             int bits, uint8_t *codes) {
    int64_t i = bits == 4 ? RUN_NIBBLES(r, x, count, codes) : 0;
    while (i < count) {
        uint8_t block[ROOM] __attribute__((aligned(64)));
        int64_t n = count - i < BLOCK ? count - i : BLOCK;
        int64_t j = RUN_QUICK(r, x + i, n, block);
        for (; j < n; j += RUN_WIDTH) {
            FLOATS v = j + RUN_WIDTH <= n ? RUN(load)(x, false, i + j)
                                          : RUN(load_tail)(x, false, i + j, i + n);
            RUN(store)(block + j, RUN(round)(r, v, false, false));
        }
        if (n % 8) memset(block + n, 0, 8);
        pack(block, n, bits, codes + i * bits / 8);
        i += n;
    }
}

RUN_TARGET static inline bool RUN(fit_bits)(const tw_run_fit *f, const float *x, int64_t count,
                                            int bits, float *scales, int32_t *zeros,
                                            uint8_t *codes) {
    int64_t span = GROUPS * f->group;
    tw_run run = {.x = TW_F32, .code = f->code, .qmin = f->qmin, .qmax = f->qmax, .bounded = true};
    for (int64_t k = 0; k < count; k += span) {
        float min[GROUPS], max[GROUPS], scale[GROUPS], zero[GROUPS];
        int64_t all = span < count - k ? span : count - k, groups = (all + f->group - 1) / f->group;
        if (!RUN(ranges)(f, x + k, all, min, max)) return false;
        for (int64_t g = groups; g % RUN_WIDTH; g++) min[g] = max[g] = 0;
        RUN(choose)(f, groups, min, max, scale, zero);
        for (int64_t g = 0, at = k; g < groups; g++, at += f->group) {
            int64_t n = f->group < k + all - at ? f->group : k + all - at;
            run.scale = 1.0F / scale[g];
            run.zero = (int32_t)zero[g];
            for (int64_t i = 0; i < n; i += LINE) ahead(x + at + i, span * (int64_t)sizeof *x);
            RUN(fit_group)(&run, x + at, n, bits, codes + at * bits / 8);
            *scales++ = scale[g];
            *zeros++ = run.zero;
        }
    }
    return true;
}

RUN_TARGET static bool RUN(fit)(const tw_run_fit *f, const float *x, int64_t count, float *scales,
                                int32_t *zeros, uint8_t *codes) {
    int bits = tw_dtype_bits(f->code);
    if (bits == 4) return RUN(fit_bits)(f, x, count, 4, scales, zeros, codes);
    if (bits == 8) return RUN(fit_bits)(f, x, count, 8, scales, zeros, codes);
    return RUN(fit_bits)(f, x, count, bits, scales, zeros, codes);
}

/* ---- narrow floats ---- */

/* As encode_f32() of src/core/dtype.c: normal codes by rounding bits, subnormal ones by an addition
 * that leaves no more. */
RUN_TARGET static inline WORDS RUN(encode)(const cast *c, FLOATS v) {
    const WORDS none = {0};
    WORDS bits = (WORDS)v, size = bits & 0x7fffffff, sign = bits >> 31 << c->top;
    WORDS normal = size + ((1u << (c->shift - 1)) - 1) + (size >> c->shift & 1);
    normal = (normal >> c->shift) - c->offset;
    WORDS tiny = (WORDS)((FLOATS)size * c->unit + 0x1p23F) - 0x4b000000;
    WORDS is_tiny = (WORDS)((INTS)size < (INTS)(c->least_normal + none));
    WORDS code = (is_tiny & tiny) | (~is_tiny & normal);
    WORDS fits = (WORDS)((INTS)code < (INTS)(c->most + none));
    return sign | (fits & code) | (~fits & (c->most + none));
}

RUN_TARGET static inline bool RUN(cast_loop)(const cast *c, const void *x, bool narrow, bool divide,
                                             int64_t count, float by, uint8_t *codes) {
    INTS nan = {0};
    for (int64_t i = 0; i < count; i += RUN_WIDTH) {
        uint8_t last[RUN_WIDTH];
        bool whole = i + RUN_WIDTH <= count;
        FLOATS v = whole ? RUN(load)(x, narrow, i) : RUN(load_tail)(x, narrow, i, count);
        v = divide ? v / by : v * by;
        nan |= ~((v > 0) | (v <= 0));
        RUN(store)(whole ? codes + i : last, RUN(encode)(c, v));
        if (!whole) memcpy(codes + i, last, (size_t)(count - i));
    }
    int32_t any = 0;
    for (int j = 0; j < RUN_WIDTH; j++) any |= nan[j];
    return !any;
}

RUN_TARGET static bool RUN(cast)(const cast *c, const void *x, bool narrow, bool divide,
                                 int64_t count, float by, uint8_t *codes) {
    if (narrow) return RUN(cast_loop)(c, x, true, divide, count, by, codes);
    return divide ? RUN(cast_loop)(c, x, false, true, count, by, codes)
                  : RUN(cast_loop)(c, x, false, false, count, by, codes);
}

/* ---- tables ---- */

RUN_TARGET static inline FLOATS RUN(magnitude)(FLOATS v) { return (FLOATS)((WORDS)v & 0x7fffffff); }

RUN_TARGET static bool RUN(table)(const void *x, bool narrow, int64_t count, float scale,
                                  const float *table, uint8_t *codes) {
    const WORDS none = {0};
    INTS nan = {0};
    for (int64_t i = 0; i < count; i += RUN_WIDTH) {
        uint8_t last[RUN_WIDTH];
        bool whole = i + RUN_WIDTH <= count;
        FLOATS v = whole ? RUN(load)(x, narrow, i) : RUN(load_tail)(x, narrow, i, count);
        v = v / scale;
        nan |= ~((v > 0) | (v <= 0));
        FLOATS nearest = RUN(magnitude)(table[0] - v);
        WORDS best = none;
        for (uint32_t j = 1; j < 16; j++) {
            FLOATS distance = RUN(magnitude)(table[j] - v);
            WORDS nearer = (WORDS)(distance < nearest);
            best = (nearer & (j + none)) | (~nearer & best);
            nearest = RUN_MIN(distance, nearest);
        }
        RUN(store)(whole ? codes + i : last, best);
        if (!whole) memcpy(codes + i, last, (size_t)(count - i));
    }
    int32_t any = 0;
    for (int j = 0; j < RUN_WIDTH; j++) any |= nan[j];
    return !any;
}

static const code RUN(code) = {RUN(range_f32), RUN(range_bf16), RUN(codes),
                               RUN(fit),       RUN(cast),       RUN(table)};

#undef FLOATS
#undef INTS
#undef WORDS
#undef HALVES
#undef RUN
#undef RUN_TARGET
#undef RUN_WIDTH
#undef RUN_MAX
#undef RUN_MIN
#undef RUN_LEAST
#undef RUN_BYTES
#undef RUN_QUICK
#undef RUN_NIBBLES
