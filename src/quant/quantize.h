/* src/quant: from float weights to codes, scales and zeros, over base and core only.
 * This file: each group by its own minimum and maximum. */
#ifndef TW_QUANT_QUANTIZE_H
#define TW_QUANT_QUANTIZE_H

#include "src/base/base.h"

/* Quantizes w [N,K] (f32, rows w_stride elements apart) into canonical codes, scales and zeros:
 *   integers, z=none    i: s = amax / ((qmax - qmin) / 2); u: s = amax / qmax, negative weights are
 *                       refused; q = round(w * (1 / s))
 *   integers, z=code    s = (max - min) / (qmax - qmin) with min <= 0 <= max,
 *                       zero = -round(min / s), q = round(w * (1 / s)) + zero; unsigned only
 *   integers, z=value   s = (max - min) / (qmax - qmin), zero = min - qmin * s,
 *                       q = round((w - zero) / s)
 *   float codes, z=none s = amax / (largest finite code), q = round(w / s)
 *   plain floats        a conversion; scales and zeros are not touched
 * All in f32, rounding half to even, codes and zeros clamped to the dtype's range.  s is at least
 * the smallest normal f32 and is rounded to the scale dtype before it is used, zeros likewise, so
 * that codes are the nearest ones under what is stored; where the stored s is 0 the codes are 0.
 * zeros: u8 for z=code, the scales' dtype for z=value, else NULL.
 * Errors: INVALID names the position of a weight that is NaN, infinite, or that the scheme cannot
 * hold, or the group whose scale or zero overflows; UNSUPPORTED for the combinations above that are
 * missing.  On failure the outputs' content is undefined. */
tw_status tw_quantize_minmax(const tw_scheme *scheme, int64_t N, int64_t K, const float *w,
                             int64_t w_stride, void *codes, void *scales, void *zeros);

#endif
