/* NVFP4, bit for bit torchao's (0.18): groups of 16 along K of e2m1 codes share an e4m3 scale, and
 * all of them, if wanted, one of f32.  Formulas: nvfp4_quantize of
 * torchao/prototype/mx_formats/nvfp4_tensor.py. */
#ifndef TW_QUANT_NVFP4_H
#define TW_QUANT_NVFP4_H

#include "src/core/act.h"

/* The second level's scale: amax of all of x [count] / (448 * 6).
 * Errors: INVALID (a dtype other than f32 and bf16; NaN or infinity in x). */
tw_status tw_nvfp4_tensor_scale(int64_t count, tw_dtype x_dtype, const void *x, float *out);
/* x is [N,K] of f32 or bf16, K a multiple of 16; scales: e4m3 [N, K / 16], at least 2^-6; codes:
 * canonical rows of e2m1.  In f32, amax of the group:
 *   tensor_scale 0 (one level)  s = e4m3(clamp(amax / 6, 2^-6, 448)), q = x * (1 / s)
 *   else t                      s = e4m3(clamp(amax / 6 / t, 2^-6, 448)), q = x * ((1 / t) / s)
 * q clamped to 6, half to even.  x = q * s, or q * s * t.
 * Errors: INVALID (N, K, a dtype, a tensor_scale below 0 or not finite; NaN or infinity in x). */
tw_status tw_nvfp4_quantize(int64_t N, int64_t K, tw_dtype x_dtype, const void *x,
                            float tensor_scale, void *scales, void *codes);

#endif
