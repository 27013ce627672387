/* Small floats of any split into exponent and mantissa bits (fp4, fp5, fp6), bit for bit torchao's
 * (0.18): no infinities, no NaN, subnormals, saturating.  torchao/prototype/custom_fp_utils.py. */
#ifndef TW_QUANT_FLOATX_H
#define TW_QUANT_FLOATX_H

#include "src/base/base.h"

/* 1 sign bit, 1 to 4 bits of exponent with bias 2^(ebits - 1) - 1, 1 to 3 of mantissa. */
typedef struct tw_floatx {
    int ebits, mbits;
} tw_floatx;

/* Largest value. */
float tw_floatx_max(tw_floatx format);
/* The value of a code's 1 + ebits + mbits low bits, exactly. */
float tw_floatx_get(tw_floatx format, int code);
/* The nearest code, half to even; the largest one's for what is beyond it; v must be a number. */
int tw_floatx_code(tw_floatx format, float v);

/* One scale for each row of x [N,K], in x's dtype (f32, f16, bf16): amax, at least 1e-12, over the
 * largest value.  Errors: INVALID (the format, N, K or a dtype; NaN or infinity in x). */
tw_status tw_floatx_choose(tw_floatx format, int64_t N, int64_t K, tw_dtype x_dtype, const void *x,
                           void *scales);
/* Codes of x / s, a byte each; the quotient in f32.  scales NULL: of x itself.
 * Errors: as above. */
tw_status tw_floatx_quantize(tw_floatx format, int64_t N, int64_t K, tw_dtype x_dtype,
                             const void *x, const void *scales, uint8_t *codes);

#endif
