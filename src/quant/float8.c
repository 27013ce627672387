/* See float8.h. */
#include "src/quant/float8.h"

#include <math.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/check.h"

static tw_status check(const tw_float8 *f) {
    tw_status st = tw_check_x(f->N, f->K, f->x);
    if (st == TW_OK) st = tw_check_group(f->group_n, f->group_k);
    if (st != TW_OK) return st;
    if (f->code != TW_E4M3 && f->code != TW_E5M2)
        return tw_fail(TW_INVALID, "codes: dtype %s, expected e4m3 or e5m2",
                       tw_dtype_name(f->code));
    return TW_OK;
}

tw_status tw_float8_choose(const tw_float8 *f, const void *x, float *scales) {
    TW_TRY(check(f));
    int64_t groups_k = tw_ceil_div(f->K, f->group_k);
    for (int64_t i = 0; i < tw_ceil_div(f->N, f->group_n) * groups_k; i++) scales[i] = 0;
    for (int64_t n = 0; n < f->N; n++)
        for (int64_t k = 0; k < f->K; k++) {
            float v = tw_float_get(x, f->x, n * f->K + k);
            float *amax = &scales[n / f->group_n * groups_k + k / f->group_k];
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
            *amax = fmaxf(*amax, fabsf(v));
        }
    for (int64_t i = 0; i < tw_ceil_div(f->N, f->group_n) * groups_k; i++)
        scales[i] = tw_float_round(f->x, scales[i] / tw_float_max(f->code));
    return TW_OK;
}

tw_status tw_float8_quantize(const tw_float8 *f, const void *x, const float *scales, void *codes) {
    TW_TRY(check(f));
    int64_t groups_k = tw_ceil_div(f->K, f->group_k);
    for (int64_t n = 0; n < f->N; n++)
        for (int64_t k = 0; k < f->K; k++) {
            float v = tw_float_get(x, f->x, n * f->K + k);
            if (isnan(v))
                return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be a number", (double)v,
                               (long long)n, (long long)k);
            /* The cast clamps, rounds and keeps NaN. */
            tw_float_set(codes, f->code, n * f->K + k,
                         v / scales[n / f->group_n * groups_k + k / f->group_k]);
        }
    return TW_OK;
}
