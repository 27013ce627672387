/* Adjacent f32 values under one scale, in loops that compilers vectorize: the same bits as
 * affine.c's element by element, for the runs that they take. */
#ifndef TILEWRIGHT_QUANT_RUN_H
#define TILEWRIGHT_QUANT_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "tilewright/tilewright.h"

/* Least and largest value, which start at *min and *max; false if one is not finite. */
bool tw_run_range(const float *x, int64_t count, float *min, float *max);

/* clamp(round(x * inverse) + zero, qmin, qmax) as codes of `dtype` from `codes` on, pad bits 0.
 * False, with nothing promised of `codes`, if an x is NaN or the dtype has neither 4 nor 8 bits.
 * `inverse` must be finite. */
bool tw_run_codes(const float *x, int64_t count, float inverse, int32_t zero, int32_t qmin,
                  int32_t qmax, tw_dtype dtype, uint8_t *codes);

#endif
