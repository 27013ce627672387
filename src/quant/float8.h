/* Scaled float8 codes, bit for bit torchao's (0.18): q = x / s, per group.
 * Formulas: _choose_scale_float8 and _quantize_affine_float8 of
 * torchao/quantization/quant_primitives.py. */
#ifndef TW_QUANT_FLOAT8_H
#define TW_QUANT_FLOAT8_H

#include "src/base/base.h"

/* x is [N,K], rows one after another; codes are bytes [N,K]; scales are f32
 * [ceil(N / group_n), ceil(K / group_k)]. */
typedef struct tw_float8 {
    int64_t N, K;
    int64_t group_n, group_k; /* extents that share one scale, at least 1 */
    tw_dtype x;               /* f32, f16 or bf16 */
    tw_dtype code;            /* e4m3, e5m2 */
} tw_float8;

/* s = amax / (largest finite code), in x's dtype, then f32: 0 for a group of zeros.
 * Errors: INVALID (a field of f; NaN or infinity in x). */
tw_status tw_float8_choose(const tw_float8 *f, const void *x, float *scales);
/* q = x / s in f32, clamped to the finite codes, half to even; a group whose s is 0 becomes NaN
 * where x is 0, as in torch.  Errors: INVALID (a field of f; NaN in x). */
tw_status tw_float8_quantize(const tw_float8 *f, const void *x, const float *scales, void *codes);

#endif
