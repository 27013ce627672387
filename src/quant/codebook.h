/* Codebooks: sixteen values that are chosen for one weight matrix, by k-means. */
#ifndef TW_QUANT_CODEBOOK_H
#define TW_QUANT_CODEBOOK_H

#include "src/core/problem.h"
#include "src/quant/table.h"

/* s = max(amax of the group, 1e-9) in f32; lut: the centres of the clusters of all x / s,
 * ascending, rounded to x's dtype; q = the centre nearest to x / s, the lower of two as near,
 * before rounding; w = lut[q] * s.  Clusters are found by Lloyd's algorithm over a histogram of
 * 2^16 bins, each with the mean of what fell into it: from centres that are each as far as can be
 * from those before it, the first being the first x, at most 200 times, until in a tenth round none
 * moves by more than 1e-6 of itself.  A cluster that is empty keeps its centre.
 * codes: canonical rows of lut4; scales of b->scale; lut: TW_LUT4_SIZE values.
 * Errors: INVALID (a field of b; NaN or infinity in x), MEMORY.
 * Source: Lloyd, Least squares quantization in PCM (1982); torchao's choose_qparams_codebook with
 * blocks of one weight, whose scale is the largest x, 1e-9 where none is positive. */
tw_status tw_codebook_quantize(const tw_blocks *b, const void *x, void *scales, void *codes,
                               float *lut);

#endif
