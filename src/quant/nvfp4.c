/* See nvfp4.h. */
#include "src/quant/nvfp4.h"

#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/run.h"

/* The largest magnitude of elements [first, first + count). */
static tw_status find_amax(tw_dtype dtype, const void *x, int64_t first, int64_t count,
                           float *out) {
    float least = 0, most = 0;
    const char *from = (const char *)x + (size_t)first * ((size_t)tw_dtype_bits(dtype) / 8);
    *out = 0;
    if (tw_run_range(from, dtype, count, &least, &most)) {
        *out = fmaxf(-least, most);
        return TW_OK;
    }
    for (int64_t i = first; i < first + count; i++) {
        float v = fabsf(tw_float_get(x, dtype, i));
        if (!isfinite(v))
            return tw_fail(TW_INVALID, "x: %g at element %lld, must be finite", (double)v,
                           (long long)i);
        *out = fmaxf(*out, v);
    }
    return TW_OK;
}

static tw_status check_dtype(tw_dtype dtype) {
    if (dtype == TW_F32 || dtype == TW_BF16) return TW_OK;
    return tw_fail(TW_INVALID, "x: dtype %s, expected f32 or bf16", tw_dtype_name(dtype));
}

tw_status tw_nvfp4_tensor_scale(int64_t count, tw_dtype x_dtype, const void *x, float *out) {
    float amax;
    TW_TRY(check_dtype(x_dtype));
    TW_TRY(find_amax(x_dtype, x, 0, count, &amax));
    *out = tw_nvfp4_second(amax);
    return TW_OK;
}

tw_status tw_nvfp4_quantize(int64_t N, int64_t K, tw_dtype x_dtype, const void *x,
                            float tensor_scale, void *scales, void *codes) {
    TW_TRY(check_dtype(x_dtype));
    if (N < 1 || N > TW_MAX_DIM || K < 1 || K > TW_MAX_DIM || K % TW_NVFP4_GROUP)
        return tw_fail(TW_INVALID, "x: shape [%lld,%lld], K must be a multiple of %d", (long long)N,
                       (long long)K, TW_NVFP4_GROUP);
    if (!(tensor_scale >= 0 && isfinite(tensor_scale)))
        return tw_fail(TW_INVALID, "tensor_scale: %g, must be finite and not negative",
                       (double)tensor_scale);
    memset(codes, 0, (size_t)(N * K) / 2);
    for (int64_t group = 0; group < N * K / TW_NVFP4_GROUP; group++) {
        float amax;
        TW_TRY(find_amax(x_dtype, x, group * TW_NVFP4_GROUP, TW_NVFP4_GROUP, &amax));
        float scale = tw_nvfp4_scale(amax, tensor_scale);
        float factor = tw_nvfp4_factor(scale, tensor_scale);
        tw_float_set(scales, TW_E4M3, group, scale);
        int64_t first = group * TW_NVFP4_GROUP;
        uint8_t bytes[TW_NVFP4_GROUP];
        const char *from = (const char *)x + (size_t)first * ((size_t)tw_dtype_bits(x_dtype) / 8);
        if (tw_run_cast(from, x_dtype, TW_NVFP4_GROUP, factor, false, TW_E2M1, bytes))
            tw_codes_set(codes, TW_E2M1, first, TW_NVFP4_GROUP, bytes);
        else /* a product of 0 and infinity is NaN, whose code is 0 */
            for (int64_t i = first; i < first + TW_NVFP4_GROUP; i++)
                tw_float_set(codes, TW_E2M1, i, tw_float_get(x, x_dtype, i) * factor);
    }
    return TW_OK;
}
