/* See floatx.h. */
#include "src/quant/floatx.h"

#include <math.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/check.h"
#include "src/quant/run.h"

static int bias_of(tw_floatx f) { return (1 << (f.ebits - 1)) - 1; }

float tw_floatx_get(tw_floatx f, int code) {
    int mantissa = code & ((1 << f.mbits) - 1), exponent = code >> f.mbits & ((1 << f.ebits) - 1);
    int whole = exponent ? mantissa + (1 << f.mbits) : mantissa;
    float v = ldexpf((float)whole, (exponent ? exponent : 1) - bias_of(f) - f.mbits);
    return code >> (f.ebits + f.mbits) & 1 ? -v : v;
}

float tw_floatx_max(tw_floatx f) { return tw_floatx_get(f, (1 << (f.ebits + f.mbits)) - 1); }

int tw_floatx_code(tw_floatx f, float v) {
    int sign = signbit(v) ? 1 << (f.ebits + f.mbits) : 0, exponent;
    float magnitude = fminf(fabsf(v), tw_floatx_max(f));
    (void)frexpf(magnitude, &exponent); /* magnitude < 2^exponent */
    int least = 1 - bias_of(f);         /* exponent of the smallest normal */
    if (magnitude == 0 || exponent - 1 < least) exponent = least + 1;
    /* In units of the last place; where rounding reaches the next power of two, the codes go on. */
    int units = (int)rintf(ldexpf(magnitude, f.mbits - (exponent - 1)));
    return sign | (units + ((exponent - 1 - least) << f.mbits));
}

static tw_status check(tw_floatx f, int64_t N, int64_t K, tw_dtype x_dtype, const void *x) {
    if (f.ebits < 1 || f.ebits > 4 || f.mbits < 1 || f.mbits > 3)
        return tw_fail(TW_INVALID, "format: e%dm%d, expected e1..e4 and m1..m3", f.ebits, f.mbits);
    tw_status st = tw_check_x(N, K, x_dtype);
    if (st != TW_OK) return st;
    float least = 0, most = 0;
    if (x_dtype != TW_F16 && tw_run_range(x, x_dtype, N * K, &least, &most)) return TW_OK;
    for (int64_t i = 0; i < N * K; i++) {
        float v = tw_float_get(x, x_dtype, i);
        if (!isfinite(v))
            return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                           (long long)(i / K), (long long)(i % K));
    }
    return TW_OK;
}

static const void *row_of(tw_dtype x_dtype, const void *x, int64_t n, int64_t K) {
    return (const char *)x + (size_t)n * tw_dtype_row_bytes(x_dtype, K);
}

/* The dtype of the format; TW_NONE: it has none. */
static tw_dtype dtype_of(tw_floatx f) {
    static const tw_dtype dtypes[] = {TW_E3M2, TW_E2M3, TW_E2M1};
    for (size_t i = 0; i < TW_COUNT(dtypes); i++) {
        const tw_dtype_info *t = tw_dtype_get(dtypes[i]);
        if (t->exponent_bits == f.ebits && t->mantissa_bits == f.mbits) return dtypes[i];
    }
    return TW_NONE;
}

tw_status tw_floatx_choose(tw_floatx f, int64_t N, int64_t K, tw_dtype x_dtype, const void *x,
                           void *scales) {
    TW_TRY(check(f, N, K, x_dtype, x));
    for (int64_t n = 0; n < N; n++) {
        float amax = tw_float_round(x_dtype, 1e-12F);
        float least = -amax, most = amax;
        if (x_dtype != TW_F16 && tw_run_range(row_of(x_dtype, x, n, K), x_dtype, K, &least, &most))
            amax = fmaxf(-least, most);
        else
            for (int64_t k = 0; k < K; k++)
                amax = fmaxf(amax, fabsf(tw_float_get(x, x_dtype, n * K + k)));
        tw_float_set(scales, x_dtype, n, amax / tw_floatx_max(f));
    }
    return TW_OK;
}

tw_status tw_floatx_quantize(tw_floatx f, int64_t N, int64_t K, tw_dtype x_dtype, const void *x,
                             const void *scales, uint8_t *codes) {
    TW_TRY(check(f, N, K, x_dtype, x));
    tw_dtype code = x_dtype == TW_F16 ? TW_NONE : dtype_of(f);
    for (int64_t n = 0; n < N; n++) {
        float scale = scales ? tw_float_get(scales, x_dtype, n) : 1;
        if (code &&
            tw_run_cast(row_of(x_dtype, x, n, K), x_dtype, K, scale, true, code, codes + n * K))
            continue;
        for (int64_t k = 0; k < K; k++) {
            float v = tw_float_get(x, x_dtype, n * K + k);
            /* In f16 the scale of a row of zeros is 0, and so are its codes. */
            codes[n * K + k] = (uint8_t)tw_floatx_code(f, v == 0 ? v : v / scale);
        }
    }
    return TW_OK;
}
