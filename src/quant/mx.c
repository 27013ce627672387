/* See mx.h. */
#include "src/quant/mx.h"

#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/run.h"

/* Of one group; a NaN stays. */
static float amax_of(tw_dtype dtype, const void *x) {
    float least = 0, most = 0, amax = 0;
    if (tw_run_range(x, dtype, TW_MX_GROUP, &least, &most)) return fmaxf(-least, most);
    for (int i = 0; i < TW_MX_GROUP; i++) {
        float v = fabsf(tw_float_get(x, dtype, i));
        if (!(v <= amax) && !isnan(amax)) amax = v;
    }
    return amax;
}

tw_status tw_mx_quantize(tw_mx_rule rule, tw_dtype code, int64_t N, int64_t K, tw_dtype x_dtype,
                         const void *x, uint8_t *scales, void *codes) {
    bool known =
        code == TW_E4M3 || code == TW_E5M2 || code == TW_E3M2 || code == TW_E2M3 || code == TW_E2M1;
    if (!known)
        return tw_fail(TW_INVALID, "codes: dtype %s, expected e4m3, e5m2, e3m2, e2m3 or e2m1",
                       tw_dtype_name(code));
    if (x_dtype != TW_F32 && x_dtype != TW_BF16)
        return tw_fail(TW_INVALID, "x: dtype %s, expected f32 or bf16", tw_dtype_name(x_dtype));
    if (N < 1 || N > TW_MAX_DIM || K < 1 || K > TW_MAX_DIM || K % TW_MX_GROUP)
        return tw_fail(TW_INVALID, "x: shape [%lld,%lld], K must be a multiple of %d", (long long)N,
                       (long long)K, TW_MX_GROUP);
    size_t row_bytes = tw_dtype_row_bytes(code, K), each = (size_t)tw_dtype_bits(x_dtype) / 8;
    memset(codes, 0, (size_t)N * row_bytes);
    for (int64_t n = 0; n < N; n++)
        for (int64_t group = 0; group < K / TW_MX_GROUP; group++) {
            const char *from = (const char *)x + (size_t)(n * K + group * TW_MX_GROUP) * each;
            float amax = amax_of(x_dtype, from);
            uint8_t scale = tw_mx_scale(rule, code, amax), bytes[TW_MX_GROUP] = {0};
            float factor = tw_mx_factor(rule, scale);
            scales[n * (K / TW_MX_GROUP) + group] = scale;
            if (!tw_run_cast(from, x_dtype, TW_MX_GROUP, factor, false, code, bytes))
                for (int i = 0; i < TW_MX_GROUP; i++) {
                    bytes[i] = 0;
                    tw_float_set(&bytes[i], code, 0, tw_float_get(from, x_dtype, i) * factor);
                }
            tw_codes_set((uint8_t *)codes + (size_t)n * row_bytes, code, group * TW_MX_GROUP,
                         TW_MX_GROUP, bytes);
        }
    return TW_OK;
}
