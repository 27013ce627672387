/* attention_loops.h for the sets of instructions that there are. */
#include "hosts/ggml/attention.h"

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Blocks of four by four; the last queries one by one. */
static void turn(const float *const *rows, int64_t queries, int64_t length, float factor,
                 float *to) {
    const __m128 by = _mm_set1_ps(factor);
    int64_t query = 0;
    for (; query + 4 <= queries; query += 4)
        for (int64_t d = 0; d < length; d += 4) {
            __m128 a = _mm_loadu_ps(rows[query] + d) * by,
                   b = _mm_loadu_ps(rows[query + 1] + d) * by,
                   c = _mm_loadu_ps(rows[query + 2] + d) * by,
                   e = _mm_loadu_ps(rows[query + 3] + d) * by;
            float *at = to + d * TWG_QUERIES + query;
            _MM_TRANSPOSE4_PS(a, b, c, e);
            _mm_storeu_ps(at, a);
            _mm_storeu_ps(at + TWG_QUERIES, b);
            _mm_storeu_ps(at + (ptrdiff_t)2 * TWG_QUERIES, c);
            _mm_storeu_ps(at + (ptrdiff_t)3 * TWG_QUERIES, e);
        }
    for (; query < queries; query++)
        for (int64_t d = 0; d < length; d++) to[d * TWG_QUERIES + query] = rows[query][d] * factor;
}

static void turn_back(const float *from, int64_t queries, int64_t length, const float *factors,
                      float *const *rows) {
    int64_t query = 0;
    for (; query + 4 <= queries; query += 4)
        for (int64_t d = 0; d < length; d += 4) {
            const __m128 by = _mm_loadu_ps(factors + query);
            const float *at = from + d * TWG_QUERIES + query;
            __m128 a = _mm_loadu_ps(at) * by, b = _mm_loadu_ps(at + TWG_QUERIES) * by,
                   c = _mm_loadu_ps(at + (ptrdiff_t)2 * TWG_QUERIES) * by,
                   e = _mm_loadu_ps(at + (ptrdiff_t)3 * TWG_QUERIES) * by;
            _MM_TRANSPOSE4_PS(a, b, c, e);
            _mm_storeu_ps(rows[query] + d, a);
            _mm_storeu_ps(rows[query + 1] + d, b);
            _mm_storeu_ps(rows[query + 2] + d, c);
            _mm_storeu_ps(rows[query + 3] + d, e);
        }
    for (; query < queries; query++)
        for (int64_t d = 0; d < length; d++)
            rows[query][d] = from[d * TWG_QUERIES + query] * factors[query];
}

#define SET(name) avx512_##name
#define SET_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")))
#define SET_WIDTH 16
#define SET_VECTORS 4
#define SET_MAX(a, b) ((avx512_floats)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define SET_SUM(v) _mm512_reduce_add_ps((__m512)(v))
#define SET_MOST(v) _mm512_reduce_max_ps((__m512)(v))
#define SET_HALVES(at) ((avx512_floats)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(at))))
#include "hosts/ggml/attention_loops.h"

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
#define SET_SUM(v) sum_of_eight((__m256)(v))
#define SET_MOST(v) most_of_eight((__m256)(v))
#define SET_HALVES(at) ((avx2_floats)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(at))))
#include "hosts/ggml/attention_loops.h"

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

/* Whether there is a matrix unit, and the process has leave to use it, which Tilewright's context
 * asks for: it may come later, so that a refusal is no answer for ever. */
static bool has_amx(void) {
    enum { GET_PERMISSION = 0x1022, TILE_DATA = 18 }; /* asm/prctl.h of Linux 5.16 and later */
    static atomic_bool permitted;
    unsigned long components = 0;
    if (!__builtin_cpu_supports("amx-bf16") || !__builtin_cpu_supports("avx512bf16") ||
        !has_avx512())
        return false;
    if (!permitted && !syscall(SYS_arch_prctl, GET_PERMISSION, &components))
        permitted = components >> TILE_DATA & 1;
    return permitted;
}

const twg_attention_kernel *twg_attention_kernel_at(int n) {
    static const twg_attention_kernel amx = {AMX_K,      amx_queries,    amx_keys, amx_step,
                                             avx512_few, avx512_convert, turn,     turn_back},
                                      avx512 = {4,          NULL,           NULL, avx512_step,
                                                avx512_few, avx512_convert, turn, turn_back},
                                      avx2 = {4,        NULL,         NULL, avx2_step,
                                              avx2_few, avx2_convert, turn, turn_back};
    const twg_attention_kernel *all[4];
    int count = 0;
    if (has_amx()) all[count++] = &amx;
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
