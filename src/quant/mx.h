/* OCP microscaling (MX) formats, bit for bit torchao's (0.18): groups of 32 along K share a power
 * of two.  OCP Microscaling Formats (MX) Specification 1.0, section 6.3, is TW_MX_FLOOR; the other
 * rules are torchao's (torchao/prototype/mx_formats/mx_tensor.py). */
#ifndef TW_QUANT_MX_H
#define TW_QUANT_MX_H

#include "src/core/act.h"

/* x is [N,K] of f32 or bf16, K a multiple of 32; code is e4m3, e5m2, e3m2, e2m3 or e2m1.
 * scales: e8m0 [N, K / 32], 255 (NaN) for a group with a NaN or, but for RCEIL, an infinity.
 * codes: canonical rows, q = x / s, clamped, half to even.
 * Errors: INVALID (N, K or a dtype). */
tw_status tw_mx_quantize(tw_mx_rule rule, tw_dtype code, int64_t N, int64_t K, tw_dtype x_dtype,
                         const void *x, uint8_t *scales, void *codes);

#endif
