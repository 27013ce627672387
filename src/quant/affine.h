/* Affine quantization primitives, bit for bit torchao's (0.18): q = round(x / s) + zero, per group.
 * Formulas: torchao/quantization/quant_primitives.py.  Every operation is rounded in the dtype in
 * which torch computes it, so the dtypes of x and of the scales are part of the result. */
#ifndef TW_QUANT_AFFINE_H
#define TW_QUANT_AFFINE_H

#include "src/base/base.h"
#include "tilewright/quant.h"

/* What the functions below share.  x is [N,K], rows one after another; codes are canonical
 * rows of N; scales and zeros are [ceil(N / group_n), ceil(K / group_k)], the last group of a row
 * or column may be short. */
typedef struct tw_affine {
    int64_t N, K;
    int64_t group_n, group_k; /* extents that share one scale, at least 1 */
    tw_dtype x, scale;        /* f32, f16 or bf16 */
    tw_dtype code;            /* i1..i8, u1..u8 */
    int32_t qmin, qmax;       /* within the code's range */
    bool fitted; /* the scales are what choosing gave for the same x, with 0 in its range, or a
                    little more or less: less need be checked */
} tw_affine;

/* Errors: INVALID names the field that breaks the above. */
tw_status tw_affine_check(const tw_affine *a);

/* Scales and zeros of x's groups.  preserve_zero: with min <= 0 <= max, so that 0 has a code; else,
 * asymmetric only, by the least and the largest x themselves.  The scale is at least eps (0: the
 * smallest normal number of x's dtype), and is cast last; asymmetric zeros are clamp(qmin -
 * round(min / s), qmin, qmax), symmetric ones (qmax + qmin + 1) / 2, truncated.
 * Errors: INVALID (a field of a; NaN or infinity in x; qmax 0 or qmin 0 without clipping; a
 * symmetric mapping that does not preserve zero). */
tw_status tw_affine_choose(const tw_affine *a, tw_mapping mapping, bool preserve_zero, double eps,
                           const void *x, void *scales, int32_t *zeros);
/* Scales, zeros (with 0 in the range) and codes at once: choosing, then quantizing. */
tw_status tw_affine_fit(const tw_affine *a, tw_mapping mapping, double eps, const void *x,
                        void *scales, int32_t *zeros, void *codes);
/* The same from a range for each group, where 0 is made to lie within it: what an observer saw.
 * Errors: INVALID (a field of a; NaN or infinity in min or max; min above max). */
tw_status tw_affine_choose_range(const tw_affine *a, tw_mapping mapping, double eps,
                                 const float *min, const float *max, void *scales, int32_t *zeros);
/* q = clamp(round(x * (1 / s)) + zero, qmin, qmax), half to even; products in the promoted dtype of
 * x and scale.  zeros NULL: 0.  Where 1 / s is infinite, of s 0 or,
 * in f16, below 2^-16, x becomes qmin or qmax, and x of 0 code 0, which is what torch's cast of NaN
 * gives.  Pad bits of
 * codes become 0.
 * Errors: INVALID (a field of a; NaN in x). */
tw_status tw_affine_quantize(const tw_affine *a, const void *x, const void *scales,
                             const int32_t *zeros, void *codes);
/* x = (q - zero) * s: the difference in x's dtype, the product in the promoted one.
 * Errors: INVALID (a field of a). */
tw_status tw_affine_dequantize(const tw_affine *a, const void *codes, const void *scales,
                               const int32_t *zeros, void *x);

/* What dequantizing the codes of x gives, y, in x's dtype; mask [N,K], a byte an element: 1 where
 * the code was within [qmin, qmax] before it was clamped, else 0.  Errors: as quantizing. */
tw_status tw_affine_fake_quantize(const tw_affine *a, const void *x, const void *scales,
                                  const int32_t *zeros, void *y, uint8_t *mask);
/* The straight-through estimator (Bengio, Leonard, Courville: arXiv:1308.3432): the gradient of y
 * where the mask is 1, else 0; both in x's dtype. */
tw_status tw_affine_fake_quantize_backward(const tw_affine *a, const void *y_gradient,
                                           const uint8_t *mask, void *x_gradient);

/* ---- zeros that are values: x = (q - mid) * s + zero, mid = (qmax + qmin + 1) / 2 ---------------
 * As tinygemm's int4 kernels have them; zeros in the scales' dtype, [ceil(N / group_n),
 * ceil(K / group_k)].  Errors: as above. */

/* s = (max - min) / (qmax - qmin), at least eps; zero = min + s * mid. */
tw_status tw_affine_choose_values(const tw_affine *a, double eps, const void *x, void *scales,
                                  void *zeros);
/* q = clamp(round((x - (zero - s * mid)) / s), qmin, qmax) */
tw_status tw_affine_quantize_values(const tw_affine *a, const void *x, const void *scales,
                                    const void *zeros, void *codes);
tw_status tw_affine_dequantize_values(const tw_affine *a, const void *codes, const void *scales,
                                      const void *zeros, void *x);

#endif
