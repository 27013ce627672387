/* attention_loops.h for the sets of instructions that there are. */
#include "hosts/ggml/attention.h"

#include <math.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Counts up to a constant, without a loop: or sums would not stay in registers. */
#define EACH(i, count) _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++)

/* What is left of turn and of turn_back from `query` on. */
static void turn_rest(const float *const *rows, int64_t query, int64_t queries, int64_t length,
                      float factor, float *to) {
    for (; query < queries; query++)
        for (int64_t d = 0; d < length; d++) to[d * TWG_QUERIES + query] = rows[query][d] * factor;
}

static void turn_back_rest(const float *from, int64_t query, int64_t queries, int64_t length,
                           const float *factors, float *const *rows) {
    for (; query < queries; query++)
        for (int64_t d = 0; d < length; d++)
            rows[query][d] = from[d * TWG_QUERIES + query] * factors[query];
}

#define SET(name) avx512_##name
#define SET_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")))
#define SET_WIDTH 16
#define SET_VECTORS 4
#define SET_MAX(a, b) ((avx512_floats)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define SET_MIN(a, b) ((avx512_floats)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define SET_SUM(v) _mm512_reduce_add_ps((__m512)(v))
#define SET_MOST(v) _mm512_reduce_max_ps((__m512)(v))
#define SET_HALVES(at) ((avx512_floats)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(at))))
#define SET_PUT_HALVES(at, v)                                                                      \
    _mm256_storeu_si256((void *)(at), _mm512_cvtps_ph((__m512)(v), _MM_FROUND_TO_NEAREST_INT))
#define SET_LOW(a, b) ((avx512_floats)_mm512_unpacklo_ps((__m512)(a), (__m512)(b)))
#define SET_HIGH(a, b) ((avx512_floats)_mm512_unpackhi_ps((__m512)(a), (__m512)(b)))
#define SET_LOW_PAIRS(a, b) ((avx512_floats)_mm512_unpacklo_pd((__m512d)(a), (__m512d)(b)))
#define SET_HIGH_PAIRS(a, b) ((avx512_floats)_mm512_unpackhi_pd((__m512d)(a), (__m512d)(b)))
#define SET_FOURS(at)                                                                              \
    ((avx512_floats)_mm512_insertf32x4(                                                            \
        _mm512_insertf32x4(_mm512_insertf32x4(_mm512_castps128_ps512(_mm_loadu_ps(at(0))),         \
                                              _mm_loadu_ps(at(1)), 1),                             \
                           _mm_loadu_ps(at(2)), 2),                                                \
        _mm_loadu_ps(at(3)), 3))
#define SET_PUT_FOURS(at, v)                                                                       \
    (_mm_storeu_ps(at(0), _mm512_castps512_ps128((__m512)(v))),                                    \
     _mm_storeu_ps(at(1), _mm512_extractf32x4_ps((__m512)(v), 1)),                                 \
     _mm_storeu_ps(at(2), _mm512_extractf32x4_ps((__m512)(v), 2)),                                 \
     _mm_storeu_ps(at(3), _mm512_extractf32x4_ps((__m512)(v), 3)))
#include "hosts/ggml/attention_loops.h"

#include "hosts/ggml/attention_bf16.h"

#include "hosts/ggml/attention_amx.h"

__attribute__((target("avx2"))) static inline float sum_of_eight(__m256 v) {
    __m128 four = _mm256_castps256_ps128(v) + _mm256_extractf128_ps(v, 1);
    four += _mm_movehl_ps(four, four);
    return four[0] + four[1];
}

__attribute__((target("avx2"))) static inline float most_of_eight(__m256 v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return four[0] > four[1] ? four[0] : four[1];
}

#define SET(name) avx2_##name
#define SET_TARGET __attribute__((target("avx2,fma,f16c")))
#define SET_WIDTH 8
#define SET_VECTORS 2
#define SET_MAX(a, b) ((avx2_floats)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define SET_MIN(a, b) ((avx2_floats)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define SET_SUM(v) sum_of_eight((__m256)(v))
#define SET_MOST(v) most_of_eight((__m256)(v))
#define SET_HALVES(at) ((avx2_floats)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(at))))
#define SET_PUT_HALVES(at, v)                                                                      \
    _mm_storeu_si128((void *)(at), _mm256_cvtps_ph((__m256)(v), _MM_FROUND_TO_NEAREST_INT))
#define SET_LOW(a, b) ((avx2_floats)_mm256_unpacklo_ps((__m256)(a), (__m256)(b)))
#define SET_HIGH(a, b) ((avx2_floats)_mm256_unpackhi_ps((__m256)(a), (__m256)(b)))
#define SET_LOW_PAIRS(a, b) ((avx2_floats)_mm256_unpacklo_pd((__m256d)(a), (__m256d)(b)))
#define SET_HIGH_PAIRS(a, b) ((avx2_floats)_mm256_unpackhi_pd((__m256d)(a), (__m256d)(b)))
#define SET_FOURS(at)                                                                              \
    ((avx2_floats)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at(0))),                \
                                       _mm_loadu_ps(at(1)), 1))
#define SET_PUT_FOURS(at, v)                                                                       \
    (_mm_storeu_ps(at(0), _mm256_castps256_ps128((__m256)(v))),                                    \
     _mm_storeu_ps(at(1), _mm256_extractf128_ps((__m256)(v), 1)))
#include "hosts/ggml/attention_loops.h"

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

static bool has_bf16(void) { return __builtin_cpu_supports("avx512bf16") && has_avx512(); }

/* Whether there is a matrix unit, and the process has leave to use it, which Tilewright's context
 * asks for: it may come later, so that a refusal is no answer for ever. */
static bool has_amx(void) {
    enum { GET_PERMISSION = 0x1022, TILE_DATA = 18 }; /* asm/prctl.h of Linux 5.16 and later */
    static atomic_bool permitted;
    unsigned long components = 0;
    if (!__builtin_cpu_supports("amx-bf16") || !has_bf16()) return false;
    if (!permitted && !syscall(SYS_arch_prctl, GET_PERMISSION, &components))
        permitted = components >> TILE_DATA & 1;
    return permitted;
}

/* All but steps of many queries. */
#define OTHERS(set)                                                                                \
    .few = set##_few, .halves = set##_convert, .to_halves = set##_convert_back,                    \
    .visible = set##_visible, .turn = set##_turn, .turn_back = set##_turn_back,                    \
    .swiglu = set##_swiglu

const twg_attention_kernel *twg_attention_kernel_at(int n) {
    static const twg_attention_kernel amx = {.multiple = AMX_K,
                                             .rounds = true,
                                             .queries = amx_queries,
                                             .keys = amx_keys,
                                             .step = amx_step,
                                             OTHERS(avx512)},
                                      bf16 = {.multiple = BF16_MULTIPLE,
                                              .rounds = true,
                                              .keys = bf16_keys,
                                              .step = bf16_step,
                                              OTHERS(avx512)},
                                      avx512 = {.multiple = 4, .step = avx512_step, OTHERS(avx512)},
                                      avx2 = {.multiple = 4, .step = avx2_step, OTHERS(avx2)};
    const twg_attention_kernel *all[5];
    int count = 0;
    if (has_amx()) all[count++] = &amx;
    if (has_bf16()) all[count++] = &bf16;
    if (has_avx512()) all[count++] = &avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        all[count++] = &avx2;
    all[count] = NULL;
    return all[n < count ? n : count];
}
#else
const twg_attention_kernel *twg_attention_kernel_at(int n) {
    (void)n;
    return NULL;
}
#endif
