/* The oracle: straight loops, dequantization in f32 (multiply then add, never contracted), products
 * and sums in double.  Also what runs where nothing can be compiled. */
#ifndef TW_CORE_REFERENCE_H
#define TW_CORE_REFERENCE_H

#include "src/core/problem.h"

/* A layer in canonical form; scales, zeros, bias and lut may be NULL as the problem says. */
typedef struct tw_canonical {
    const void *weight, *scales, *zeros, *bias;
    const float *lut; /* the TW_LUT4_SIZE values that codes of w=lut4 stand for */
    float act_scale;  /* of x, where it is static; else 0 */
} tw_canonical;

/* w[n,k] in f32. */
float tw_dequantize_one(const tw_problem *p, const tw_canonical *w, int64_t n, int64_t k);
/* Row n, K values. */
void tw_dequantize_row(const tw_problem *p, const tw_canonical *w, int64_t n, float *out);

/* Quantizes one row of K values of x, each activation group by itself, in f32:
 *   i8      s = amax / 127; code = round_half_even(x * (1 / s)) within +-127; zero 0
 *   i8z     s = (max - min) / 255 with min <= 0 <= max;
 *           zero = round_half_even(-min / s) within 0..255;
 *           code = round_half_even(x * (1 / s)) + zero within 0..255
 *   i8full  s = amax / 127.5; code = round_half_even(x * (1 / s)) within -128..127; zero 0
 * Where x_dtype is bf16, each operation of i8z and the scale of i8full are rounded to bf16, as
 * torchao has them.  f16 is as f32: its reciprocals would overflow.
 * Where 1 / s is not finite (all x 0, or below about 2^-121) s, zero and codes are 0.  Where an x
 * or s is not finite s is NaN, zero and codes are 0, so that y becomes NaN.
 * x = (code - zero) * scale; scales, zeros: one per activation group.  Not for schemes that round x
 * beforehand: act.h has those. */
void tw_quantize_token(const tw_scheme *s, tw_dtype x_dtype, int64_t K, const float *x,
                       int16_t *codes, float *scales, int32_t *zeros);

/* v as a factor of a product: itself, or rounded to bf16, half to even, and 0 where it is
 * subnormal, as units that multiply bf16 take it. */
float tw_factor(tw_fpmath fpmath, float v);

/* y[m,n] in double before rounding to y's dtype, for one row of x (K floats, already in f32):
 * out[n] for n in [n0, n1), and, where magnitude is not NULL, sum over k of |x| * |w| beside it.
 * With fpmath=bf16 the factors are x and w of that kind, and what act_quant says is left undone.
 *
 * Value zeros with scales of many bits are the exception (f32; f16i8 of codes of 7 or 8 bits): w =
 * q * s + z rounds q * s, by up to 2^-24 of it, so that w can be 0 where the products of a sum of
 * codes, s * sum(x q) + z * sum(x), are not.
 * Where x is quantized, and kernels sum codes, |w| + |q * s| / 2 is counted there. */
void tw_reference_row(const tw_problem *p, const tw_canonical *w, const float *x, int64_t n0,
                      int64_t n1, double *out, double *magnitude);

/* The same for M rows of x, of each a pointer: weights are dequantized once for up to 8 of them. */
void tw_reference_rows(const tw_problem *p, const tw_canonical *w, int64_t M, const float *const *x,
                       int64_t n0, int64_t n1, double *const *out, double *const *magnitude);

/* The whole layer: x and y with row strides in elements, dtypes as the problem says. */
void tw_reference_linear(const tw_problem *p, const tw_canonical *w, const void *x,
                         int64_t x_stride, void *y, int64_t y_stride, int64_t M);

double tw_act_apply(tw_act act, double v);

#endif
