/* See run.h.  The loops stand once, in run_loops.h, and are compiled for each set of
 * instructions. */
#include "src/quant/run.h"

#include <math.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "src/core/dtype.h"

/* Codes before they are packed; groups of a row that are looked at together, a multiple of every
 * vector's width; values in a cache line.  ROOM: for a vector, or 8 codes, behind the last one. */
enum { BLOCK = 256, ROOM = BLOCK + 16, GROUPS = 16, LINE = 16 };

/* Memory works while codes are made: asks for what lies so many bytes on, whether that is the
 * array's or not.  FAR: in time for the ranges of the next groups. */
enum { FAR = 12288 };
static inline __attribute__((always_inline)) void ahead(const float *x, int64_t bytes) {
    __builtin_prefetch((const void *)((uintptr_t)x + (uintptr_t)bytes), 0, 2);
}

/* Of `bits` each into whole bytes; 8 more than count can be read, and are 0. */
static inline __attribute__((always_inline)) void pack(const uint8_t *codes, int64_t count,
                                                       int bits, uint8_t *out) {
    int64_t bytes = (count * bits + 7) / 8;
    if (bits == 8) {
        memcpy(out, codes, (size_t)bytes);
    } else if (bits == 4) {
        for (int64_t j = 0; j < bytes; j++)
            out[j] = (uint8_t)((codes[2 * j] & 15) | codes[2 * j + 1] << 4);
    } else {
        for (int64_t at = 0, i = 0; at < bytes; at += bits, i += 8) {
            uint64_t eight = 0;
            for (int j = 0; j < 8; j++)
                eight |= (uint64_t)(codes[i + j] & ((1 << bits) - 1)) << bits * j;
            for (int b = 0; b < bits && at + b < bytes; b++)
                out[at + b] = (uint8_t)(eight >> 8 * b);
        }
    }
}

/* What encoding a narrow float takes: bits that go, and what they are then less; the place of the
 * sign; the first f32 bits that are normal; what makes subnormal codes of smaller ones; the largest
 * finite code. */
typedef struct cast {
    int shift, top;
    uint32_t offset, least_normal, most;
    float unit;
} cast;

typedef struct code {
    bool (*range_f32)(const void *x, int64_t count, float *min, float *max);
    bool (*range_bf16)(const void *x, int64_t count, float *min, float *max);
    bool (*codes)(const tw_run *run, const void *x, int64_t count, uint8_t *codes);
    bool (*fit)(const tw_run_fit *fit, const float *x, int64_t count, float *scales, int32_t *zeros,
                uint8_t *codes);
    bool (*cast)(const cast *c, const void *x, bool narrow, bool divide, int64_t count, float by,
                 uint8_t *codes);
    bool (*table)(const void *x, bool narrow, int64_t count, float scale, const float *table,
                  uint8_t *codes);
} code;

#ifdef __x86_64__
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
AVX512 static inline __m128i avx512_codes16(const tw_run *r, const float *x) {
    const __m512i zero = _mm512_set1_epi32(r->zero), least = _mm512_set1_epi32(r->qmin),
                  most = _mm512_set1_epi32(r->qmax);
    __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(r->scale)));
    v = _mm512_min_epi32(_mm512_max_epi32(_mm512_add_epi32(v, zero), least), most);
    return _mm512_cvtepi32_epi8(v);
}

AVX512 static inline int64_t avx512_quick(const tw_run *r, const float *x, int64_t count,
                                          uint8_t *out) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm_storeu_si128((__m128i *)(out + i), avx512_codes16(r, x + i));
    return i;
}

/* Bytes a, b become a + 16 b. */
AVX512 static inline int64_t avx512_nibbles(const tw_run *r, const float *x, int64_t count,
                                            uint8_t *out) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m128i low = _mm_and_si128(avx512_codes16(r, x + i), _mm_set1_epi8(15));
        __m128i pairs = _mm_maddubs_epi16(low, _mm_set1_epi16(0x1001));
        _mm_storel_epi64((__m128i *)(out + i / 2), _mm_packus_epi16(pairs, pairs));
    }
    return i;
}

#define RUN(name) avx512_##name
#define RUN_TARGET AVX512
#define RUN_WIDTH 16
#define RUN_MAX(a, b) ((avx512_floats)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define RUN_MIN(a, b) ((avx512_floats)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define RUN_BYTES(out, v) _mm_storeu_si128((__m128i *)(out), _mm512_cvtepi32_epi8((__m512i)(v)))
#define RUN_QUICK avx512_quick
#define RUN_NIBBLES avx512_nibbles
#define RUN_LEAST(v) _mm512_reduce_min_ps((__m512)(v))
#include "src/quant/run_loops.h"

__attribute__((target("avx2"))) static inline void avx2_bytes(uint8_t *out, __m256i v) {
    __m256i low = _mm256_and_si256(v, _mm256_set1_epi32(255));
    __m128i pairs = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(pairs, pairs));
}

__attribute__((target("avx2"))) static inline float avx2_smallest(__m256 v) {
    __m128 four = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_min_ss(two, _mm_shuffle_ps(two, two, 1)));
}

/* Codes of 32 values, in 16 bits from the conversion on: twice the values in a vector.  In bytes,
 * in the order in which packing halves of vectors leaves them: dwords 0, 2, 4, 6, 1, 3, 5, 7. */
__attribute__((target("avx2"))) static inline __m256i avx2_codes32(const tw_run *r, const float *x,
                                                                   int low) {
    const __m256 scale = _mm256_set1_ps(r->scale);
    const __m256i zero = _mm256_set1_epi16((short)r->zero),
                  least = _mm256_set1_epi16((short)r->qmin),
                  most = _mm256_set1_epi16((short)r->qmax), mask = _mm256_set1_epi16((short)low);
    __m256i v[4], pair[2];
    for (ptrdiff_t j = 0; j < 4; j++)
        v[j] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * j), scale));
    for (size_t j = 0; j < 2; j++) {
        pair[j] = _mm256_adds_epi16(_mm256_packs_epi32(v[2 * j], v[2 * j + 1]), zero);
        pair[j] = _mm256_min_epi16(_mm256_max_epi16(pair[j], least), most);
        pair[j] = _mm256_and_si256(pair[j], mask);
    }
    return _mm256_packus_epi16(pair[0], pair[1]);
}

__attribute__((target("avx2"))) static inline int64_t avx2_quick(const tw_run *r, const float *x,
                                                                 int64_t count, uint8_t *out) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t i = 0;
    for (; i + 32 <= count; i += 32)
        _mm256_storeu_si256((__m256i *)(out + i),
                            _mm256_permutevar8x32_epi32(avx2_codes32(r, x + i, 255), order));
    return i;
}

__attribute__((target("avx2"))) static inline int64_t avx2_nibbles(const tw_run *r, const float *x,
                                                                   int64_t count, uint8_t *out) {
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        /* Bytes a, b become a + 16 b; what was a dword of codes is then 16 bits. */
        __m256i pairs = _mm256_maddubs_epi16(avx2_codes32(r, x + i, 15), _mm256_set1_epi16(0x1001));
        __m256i packed = _mm256_packus_epi16(pairs, pairs);
        _mm_storeu_si128((__m128i *)(out + i / 2),
                         _mm_unpacklo_epi16(_mm256_castsi256_si128(packed),
                                            _mm256_extracti128_si256(packed, 1)));
    }
    return i;
}

#define RUN(name) avx2_##name
#define RUN_TARGET __attribute__((target("avx2")))
#define RUN_WIDTH 8
#define RUN_MAX(a, b) ((avx2_floats)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define RUN_MIN(a, b) ((avx2_floats)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define RUN_BYTES(out, v) avx2_bytes(out, (__m256i)(v))
#define RUN_QUICK avx2_quick
#define RUN_NIBBLES avx2_nibbles
#define RUN_LEAST(v) avx2_smallest((__m256)(v))
#include "src/quant/run_loops.h"
#endif

static inline int64_t plain_quick(const tw_run *r, const float *x, int64_t count, uint8_t *out) {
    (void)r, (void)x, (void)count, (void)out;
    return 0;
}

/* One where the comparison holds, the other elsewhere. */
#define SELECT(type, mask, a, b) ((type)(((mask) & (plain_ints)(a)) | (~(mask) & (plain_ints)(b))))
#define RUN(name) plain_##name
#define RUN_TARGET
#define RUN_WIDTH 4
#define RUN_MAX(a, b) SELECT(plain_floats, (a) > (b), a, b)
#define RUN_MIN(a, b) SELECT(plain_floats, (a) < (b), a, b)
#define RUN_QUICK plain_quick
#define RUN_NIBBLES plain_quick
#include "src/quant/run_loops.h"

static const struct {
    const char *isa;
    const code *code;
} sets[] = {
#ifdef __x86_64__
    {"avx512", &avx512_code},
    {"avx2", &avx2_code},
#endif
    {"plain", &plain_code},
};

static bool runs_here(const code *set) {
#ifdef __x86_64__
    if (set == &avx512_code)
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
    if (set == &avx2_code) return __builtin_cpu_supports("avx2");
#endif
    return set == &plain_code;
}

static const code *forced;

static const code *best(void) {
    size_t i = 0;
    if (forced) return forced;
    while (!runs_here(sets[i].code)) i++;
    return sets[i].code;
}

bool tw_run_force(const char *isa) {
    forced = NULL;
    for (size_t i = 0; isa && i < TW_COUNT(sets); i++)
        if (!strcmp(sets[i].isa, isa) && runs_here(sets[i].code)) forced = sets[i].code;
    return !isa || forced;
}

bool tw_run_range(const void *x, tw_dtype dtype, int64_t count, float *min, float *max) {
    const code *set = best();
    return (dtype == TW_BF16 ? set->range_bf16 : set->range_f32)(x, count, min, max);
}

bool tw_run_codes(const tw_run *run, const void *x, int64_t count, uint8_t *codes) {
    return best()->codes(run, x, count, codes);
}

bool tw_run_fit_row(const tw_run_fit *fit, const float *x, int64_t count, float *scales,
                    int32_t *zeros, uint8_t *codes) {
    return best()->fit(fit, x, count, scales, zeros, codes);
}

bool tw_run_cast(const void *x, tw_dtype dtype, int64_t count, float by, bool divide, tw_dtype code,
                 uint8_t *codes) {
    const tw_dtype_info *t = tw_dtype_get(code);
    int m = t->mantissa_bits, bias = (1 << (t->exponent_bits - 1)) - 1;
    uint8_t most = 0;
    tw_float_set(&most, code, 0, tw_float_max(code));
    const cast c = {.shift = 23 - m,
                    .top = t->bits - 1,
                    .offset = (uint32_t)(127 - bias) << m,
                    .least_normal = (uint32_t)(128 - bias) << 23,
                    .most = most,
                    .unit = ldexpf(1, bias - 1 + m)};
    return best()->cast(&c, x, dtype == TW_BF16, divide, count, by, codes);
}

bool tw_run_table(const void *x, tw_dtype dtype, int64_t count, float scale, const float *table,
                  uint8_t *codes) {
    return best()->table(x, dtype == TW_BF16, count, scale, table, codes);
}
