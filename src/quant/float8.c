/* See float8.h. */
#include "src/quant/float8.h"

#include <math.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/check.h"
#include "src/quant/run.h"

static tw_status check(const tw_float8 *f) {
    tw_status st = tw_check_x(f->N, f->K, f->x);
    if (st == TW_OK) st = tw_check_group(f->group_n, f->group_k);
    if (st != TW_OK) return st;
    if (f->code != TW_E4M3 && f->code != TW_E5M2)
        return tw_fail(TW_INVALID, "codes: dtype %s, expected e4m3 or e5m2",
                       tw_dtype_name(f->code));
    return TW_OK;
}

static const void *x_at(const tw_float8 *f, const void *x, int64_t n, int64_t k) {
    return (const char *)x + (size_t)(n * f->K + k) * ((size_t)tw_dtype_bits(f->x) / 8);
}

/* Of columns [k0, k1) of row n, at least *amax. */
static tw_status find_amax(const tw_float8 *f, const void *x, int64_t n, int64_t k0, int64_t k1,
                           float *amax) {
    float least = -*amax, most = *amax;
    if (f->x != TW_F16 && tw_run_range(x_at(f, x, n, k0), f->x, k1 - k0, &least, &most)) {
        *amax = fmaxf(-least, most);
        return TW_OK;
    }
    for (int64_t k = k0; k < k1; k++) {
        float v = tw_float_get(x, f->x, n * f->K + k);
        if (!isfinite(v))
            return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                           (long long)n, (long long)k);
        *amax = fmaxf(*amax, fabsf(v));
    }
    return TW_OK;
}

tw_status tw_float8_choose(const tw_float8 *f, const void *x, float *scales) {
    TW_TRY(check(f));
    int64_t groups_k = tw_ceil_div(f->K, f->group_k);
    int64_t groups = tw_ceil_div(f->N, f->group_n) * groups_k;
    for (int64_t i = 0; i < groups; i++) scales[i] = 0;
    for (int64_t n = 0; n < f->N; n++)
        for (int64_t k = 0, g = 0; k < f->K; k += f->group_k, g++)
            TW_TRY(find_amax(f, x, n, k, tw_min(f->K, k + f->group_k),
                             &scales[n / f->group_n * groups_k + g]));
    for (int64_t i = 0; i < groups; i++)
        scales[i] = tw_float_round(f->x, scales[i] / tw_float_max(f->code));
    return TW_OK;
}

/* Columns [k0, k1) of row n.  The cast clamps, rounds and keeps NaN. */
static tw_status quantize_span(const tw_float8 *f, const void *x, float scale, int64_t n,
                               int64_t k0, int64_t k1, uint8_t *codes) {
    if (f->x != TW_F16 &&
        tw_run_cast(x_at(f, x, n, k0), f->x, k1 - k0, scale, true, f->code, codes + n * f->K + k0))
        return TW_OK;
    for (int64_t k = k0; k < k1; k++) {
        float v = tw_float_get(x, f->x, n * f->K + k);
        if (isnan(v))
            return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be a number", (double)v,
                           (long long)n, (long long)k);
        tw_float_set(codes, f->code, n * f->K + k, v / scale);
    }
    return TW_OK;
}

tw_status tw_float8_quantize(const tw_float8 *f, const void *x, const float *scales, void *codes) {
    TW_TRY(check(f));
    int64_t groups_k = tw_ceil_div(f->K, f->group_k);
    for (int64_t n = 0; n < f->N; n++)
        for (int64_t k = 0, g = 0; k < f->K; k += f->group_k, g++)
            TW_TRY(quantize_span(f, x, scales[n / f->group_n * groups_k + g], n, k,
                                 tw_min(f->K, k + f->group_k), codes));
    return TW_OK;
}
