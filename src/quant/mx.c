/* See mx.h. */
#include "src/quant/mx.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

enum { BIAS = 127, MANTISSA = 23, NAN_SCALE = 255 };

static uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* floor(log2(v)) of a normal number, from its bits as torchao does: -127 for what is smaller. */
static int exponent_of(uint32_t bits) { return (int)(bits >> MANTISSA & 0xff) - BIAS; }

static uint8_t scale_by_quotient(float amax, float largest) {
    uint32_t bits = bits_of(amax * (1.0f / largest));
    uint32_t exponent = bits >> MANTISSA & 0xff, mantissa = bits & ((1U << MANTISSA) - 1);
    if (exponent == 0xff) return NAN_SCALE;
    /* Up where a bit is left over; a subnormal quotient only above 2^-127. */
    bool up = exponent ? mantissa != 0 : mantissa > 1U << (MANTISSA - 1);
    return (uint8_t)(exponent + up);
}

static uint8_t choose_scale(tw_mx_rule rule, const tw_dtype_info *code, float amax) {
    float largest = tw_float_max(code->dtype);
    if (isnan(amax)) return NAN_SCALE;
    if (rule == TW_MX_RCEIL) return scale_by_quotient(amax, largest);
    uint32_t bits = bits_of(amax);
    if (rule == TW_MX_EVEN) bits += 1U << (MANTISSA - code->mantissa_bits - 1);
    int exponent = exponent_of(bits);
    if (rule == TW_MX_CEIL) exponent += (bits & ((1U << MANTISSA) - 1)) != 0;
    exponent -= exponent_of(bits_of(largest));
    return (uint8_t)(tw_min(tw_max(exponent, -BIAS), BIAS + 1) + BIAS);
}

/* What torchao divides by: no subnormal, so 2^-127 becomes 2^-126. */
static float divisor(uint8_t scale) {
    return fmaxf(float_of((uint32_t)scale << MANTISSA), FLT_MIN);
}

static float scaled(tw_mx_rule rule, float v, uint8_t scale) {
    if (rule != TW_MX_RCEIL) return v / divisor(scale);
    /* By the reciprocal, a power of two itself. */
    return v * (scale ? ldexpf(1, BIAS - scale) : 0x1p127f);
}

tw_status tw_mx_quantize(tw_mx_rule rule, tw_dtype code, int64_t N, int64_t K, tw_dtype x_dtype,
                         const void *x, uint8_t *scales, void *codes) {
    const tw_dtype_info *info = tw_dtype_get(code);
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
    size_t row_bytes = tw_dtype_row_bytes(code, K);
    memset(codes, 0, (size_t)N * row_bytes);
    for (int64_t n = 0; n < N; n++)
        for (int64_t group = 0; group < K / TW_MX_GROUP; group++) {
            float values[TW_MX_GROUP], amax = 0;
            for (int i = 0; i < TW_MX_GROUP; i++) {
                values[i] = tw_float_get(x, x_dtype, n * K + group * TW_MX_GROUP + i);
                /* A NaN stays. */
                if (!(fabsf(values[i]) <= amax) && !isnan(amax)) amax = fabsf(values[i]);
            }
            uint8_t scale = choose_scale(rule, info, amax);
            scales[n * (K / TW_MX_GROUP) + group] = scale;
            for (int i = 0; i < TW_MX_GROUP; i++)
                tw_float_set((uint8_t *)codes + (size_t)n * row_bytes, code,
                             group * TW_MX_GROUP + i, scaled(rule, values[i], scale));
        }
    return TW_OK;
}
