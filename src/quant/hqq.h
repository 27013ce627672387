/* Half-quadratic quantization: zeros moved so that the error's 0.7-norm gets smaller, as torchao
 * (0.18) does it (torchao/quantization/quant_primitives.py, f32; Badri and Shaji, "HQQ", 2023). */
#ifndef TW_QUANT_HQQ_H
#define TW_QUANT_HQQ_H

#include "src/base/base.h"

/* x [N,K] of f32, f16 or bf16; bits 1 to 8.  Codes are canonical rows of u<bits>; scales and zeros
 * [N, ceil(K / group)], with w = (q - zero) * scale.  At most 20 steps; they end where the mean
 * error of all of x no longer falls, so a part of x may come out otherwise than the whole.
 * Errors: INVALID (bits, N, K, group, the dtype; NaN or infinity in x), MEMORY. */
tw_status tw_hqq_quantize(int bits, int64_t N, int64_t K, int64_t group, tw_dtype x_dtype,
                          const void *x, float *scales, float *zeros, void *codes);

#endif
