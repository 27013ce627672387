/* quant.h - choosing the parameters of quantization, quantizing, and named recipes.
 *
 * The primitives give torchao's results (0.18.0) in every bit: scales, zeros, codes and floats.
 * torch computes f16 and bf16 operations in f32 and rounds each result, and so does this, which
 * makes the dtypes of x and of the scales part of a result.  Conventions as in tilewright.h, but
 * output arrays may be partly written where a function fails.
 */
#ifndef TILEWRIGHT_QUANT_H
#define TILEWRIGHT_QUANT_H

#include <tilewright/tilewright.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- affine quantization: q = round(x / s) + zero -------------------------------------------- */

/* How the scale of a group follows from its least and largest x. */
typedef enum tw_mapping {
    TW_MAPPING_SYMMETRIC = 0,     /* s = max(-min, max) / ((qmax - qmin) / 2) */
    TW_MAPPING_SYMMETRIC_NO_CLIP, /* s = max(min / qmin, max / qmax): no code is clamped */
    TW_MAPPING_ASYMMETRIC,        /* s = (max - min) / (qmax - qmin) */
} tw_mapping;

/* What the functions below share.  All arrays are contiguous, the caller's, and aligned to their
 * elements:
 *   x       [N,K] of desc.x
 *   codes   [N,K] of desc.code, packed as tw_tensor's are: N rows of ceil(K * bits / 8) bytes
 *   scales  [ceil(N / group_n), ceil(K / group_k)] of desc.scale
 *   zeros   the same shape; CODE: int32_t within qmin..qmax; VALUE: of desc.scale; NONE: NULL
 * Per tensor is a group of {0,0}, per channel and per token {1,0}, per group {1,G}, per block both.
 */
typedef struct tw_affine_desc {
    size_t struct_size;
    int64_t N, K;             /* from 1 to 2^28 */
    int64_t group_n, group_k; /* extents that share one scale; 0: the whole dimension */
    tw_dtype x;               /* f32, f16 or bf16; TW_NONE: f32 */
    tw_dtype scale;           /* f32, f16 or bf16; TW_NONE: as x */
    tw_dtype code;            /* i1..i8, u1..u8 */
    int32_t qmin, qmax;       /* codes in use; both 0: all that the dtype has */
    tw_zero_mode zero_mode;   /* torch's ZeroPointDomain: CODE is INT, VALUE is FLOAT
                               *   NONE   x = q * s
                               *   CODE   x = (q - zero) * s
                               *   VALUE  x = (q - mid) * s + zero, mid = (qmax + qmin + 1) / 2 */
    tw_mapping mapping;       /* for choosing; VALUE has its own and ignores it */
    int32_t keep_range; /* for choosing, CODE and asymmetric: 0: min <= 0 <= max, so that 0 has
                               * a code (torch's preserve_zero); 1: the least and largest x */
    double eps;         /* the least scale; 0: the smallest normal number of x's dtype */
} tw_affine_desc;
#define TW_AFFINE_DESC_INIT                                                                        \
    {sizeof(tw_affine_desc), 0, 0,  0, 0, TW_NONE, TW_NONE, TW_NONE, 0, 0, TW_ZERO_NONE,           \
     TW_MAPPING_SYMMETRIC,   0, 0.0}

/* Scales and zeros of x's groups.  The scale is at least eps and is cast to its dtype last; zeros
 * come from the scale before its cast.
 *   NONE   a symmetric mapping with signed codes, of which the zero is 0
 *   CODE   symmetric: zero = (qmax + qmin + 1) / 2, truncated
 *          asymmetric: zero = clamp(qmin - round(min / s), qmin, qmax)
 *   VALUE  s = (max - min) / (qmax - qmin), zero = min + s * mid   (tinygemm's)
 * Errors: INVALID names what is NULL or breaks the above: a field of desc, NaN or infinity in x.
 * Source: torchao's choose_qparams_affine; Jacob et al., arXiv:1712.05877. */
TW_API tw_status tw_choose_qparams(const tw_affine_desc *desc, const void *x, void *scales,
                                   void *zeros);

/* NONE, CODE  q = clamp(round(x * (1 / s)) + zero, qmin, qmax)
 * VALUE       q = clamp(round((x - (zero - s * mid)) / s), qmin, qmax)
 * round is half to even; pad bits of codes become 0.
 * Errors: INVALID (NULL; a field of desc; NaN in x).  Source: torchao's quantize_affine. */
TW_API tw_status tw_quantize_affine(const tw_affine_desc *desc, const void *x, const void *scales,
                                    const void *zeros, void *codes);

/* x as zero_mode says, in desc.x.
 * Errors: INVALID (NULL; a field of desc).  Source: torchao's dequantize_affine. */
TW_API tw_status tw_dequantize_affine(const tw_affine_desc *desc, const void *codes,
                                      const void *scales, const void *zeros, void *x);

/* y [N,K] of desc.x: what dequantizing the codes of x gives.  mask [N,K], a byte an element: 1
 * where the code was within qmin..qmax before it was clamped, else 0.  NONE and CODE only.
 * Errors: INVALID (NULL; a field of desc; NaN in x), UNSUPPORTED (VALUE).
 * Source: torchao's fake_quantize_affine_cachemask, whose mask is 1 everywhere in 0.18.0. */
TW_API tw_status tw_fake_quantize(const tw_affine_desc *desc, const void *x, const void *scales,
                                  const void *zeros, void *y, uint8_t *mask);

/* The straight-through estimator: the gradient of y where the mask is 1, else 0; both [N,K] of
 * desc.x.
 * Errors: INVALID (NULL; a field of desc).
 * Source: Bengio, Leonard and Courville, arXiv:1308.3432. */
TW_API tw_status tw_fake_quantize_backward(const tw_affine_desc *desc, const void *y_gradient,
                                           const uint8_t *mask, void *x_gradient);

/* ---- observers: ranges of what passes by, for static scales ---------------------------------- */

typedef enum tw_observer_kind {
    TW_OBSERVER_MIN_MAX = 0, /* the least and the largest of all batches */
    TW_OBSERVER_AVERAGE, /* the first batch's, then moved by `rate` of the way to each other's */
    TW_OBSERVER_MSE,     /* of the last batch: that +-amax * i / steps, i = 1..steps, which the
                            codes of x lie nearest to, by mean square */
} tw_observer_kind;

typedef struct tw_observer_desc {
    size_t struct_size;
    tw_observer_kind kind;
    tw_mapping mapping;
    tw_dtype x;         /* of all batches: f32, f16 or bf16; TW_NONE: f32 */
    tw_dtype code;      /* i1..i8, u1..u8 */
    int32_t qmin, qmax; /* codes in use; both 0: all that the dtype has */
    double eps;         /* the least scale; 0: the smallest normal number of x's dtype */
    int64_t channels;   /* a range for each row of x, of which there are so many; 0: one for all */
    double rate;        /* AVERAGE: above 0, at most 1; 0: torch's 0.01 */
    int32_t steps;      /* MSE: at least 1; 0: torchao's 100 */
} tw_observer_desc;
#define TW_OBSERVER_DESC_INIT                                                                      \
    {sizeof(tw_observer_desc),                                                                     \
     TW_OBSERVER_MIN_MAX,                                                                          \
     TW_MAPPING_SYMMETRIC,                                                                         \
     TW_NONE,                                                                                      \
     TW_I8,                                                                                        \
     0,                                                                                            \
     0,                                                                                            \
     0.0,                                                                                          \
     0,                                                                                            \
     0.0,                                                                                          \
     0}

/* Not to be used by two threads at once. */
typedef struct tw_observer tw_observer;

/* Errors: INVALID (an argument is NULL; a field of desc), MEMORY. */
TW_API tw_status tw_observer_create(const tw_observer_desc *desc, tw_observer **out);
/* NULL is allowed. */
TW_API void tw_observer_destroy(tw_observer *observer);
/* Takes in a batch x [N,K] of desc.x, contiguous, the caller's; an empty one is no batch.
 * Errors: INVALID (NULL; N not the channels; NaN or infinity in x), MEMORY; the observer is as it
 * was.  Source: torchao's observers; AVERAGE torch's MovingAverageMinMaxObserver. */
TW_API tw_status tw_observer_see(tw_observer *observer, int64_t N, int64_t K, const void *x);
/* [channels] (or one) scales of f32, f16 or bf16, and zeros, as tw_choose_qparams has them of the
 * range with 0 in it: a scale of a symmetric i8 is what act_scale of a=i8s takes.
 * Errors: INVALID (NULL; scale; nothing seen). */
TW_API tw_status tw_observer_choose(const tw_observer *observer, tw_dtype scale, void *scales,
                                    int32_t *zeros);
/* [channels] (or one) least and largest values: max(-min, max) / 448 is the act_scale of a=e4m3s.
 * Errors: INVALID (NULL; nothing seen). */
TW_API tw_status tw_observer_range(const tw_observer *observer, float *min, float *max);

/* ---- recipes: a scheme and how its parameters are chosen, by name ---------------------------- */

/* Name of recipe i, counted from 0; NULL past the end.  The text is static. */
TW_API const char *tw_recipe_name(int32_t i);

/* The scheme of the layer that a recipe makes of float weights of dtype weight (f32, f16, bf16).
 * recipe: a name, and values for what it leaves open, "int4_weight_only,g=32":
 *   w, g, s, a  as in a problem's text; s=x: the weights' own dtype
 *   mapping  symmetric, symmetric_no_clipping_err, asymmetric
 *   rule     MX: floor, rceil, ceil, even        levels  NVFP4, of scales: 1, 2
 * Errors: INVALID (an argument is NULL; names the field), UNSUPPORTED. */
TW_API tw_status tw_recipe_scheme(const char *recipe, tw_dtype weight, tw_scheme *out);

/* Quantizes float weights [N,K] (f32, f16 or bf16, contiguous) by a recipe, on the context's
 * threads.  codes, scales, zeros: the caller's memory for the canonical tensors of the recipe's
 * scheme, as tw_linear_create takes them; zeros is NULL where the scheme has none, lut (16 values)
 * where w is not lut4.
 * Errors: as tw_linear_create_from_recipe of recipe and weight; what is NULL.  Then the outputs'
 * content is undefined. */
TW_API tw_status tw_quantize_weight(tw_context *context, const char *recipe,
                                    const tw_tensor *weight, void *codes, void *scales, void *zeros,
                                    float *lut);

/* Codes of w=lut4 for a table of the caller's: s = amax of the group / the table's largest
 * magnitude, rounded to its dtype, q = the table's value nearest to w / s, the first of those as
 * near.
 *   weight  [N,K] f32, f16 or bf16, contiguous         table  16 finite values, not all 0
 *   group   columns under one scale; 0: all of K       scale  dtype of scales: f32, f16 or bf16
 *   codes   [N, ceil(K / 2)] bytes, canonical          scales [N, ceil(K / group)]
 * Errors: INVALID (NULL; a tensor or a field that breaks the above; NaN or infinity in weight; a
 * scale that overflows its dtype). */
TW_API tw_status tw_quantize_table(const tw_tensor *weight, const float *table, int64_t group,
                                   tw_dtype scale, void *codes, void *scales);

/* The values [N,K] in f32 that canonical tensors of a scheme stand for, each operation rounded once
 * in f32 (docs/numerics.md).  zeros and lut as above.
 * Errors: INVALID (NULL; the scheme, N, K as a layer's). */
TW_API tw_status tw_dequantize_weight(const tw_scheme *scheme, int64_t N, int64_t K,
                                      const void *codes, const void *scales, const void *zeros,
                                      const float *lut, float *out);

/* Quantizes float weights [N,K] (f32, f16 or bf16, contiguous) by a recipe and creates the layer;
 * desc's scheme and lut are the recipe's, so they must be zero; act_scale is given where the
 * recipe's activations are static (a=i8s, e4m3s, nvfp4s); bias and *out as tw_linear_create.
 * A group of zeros has codes of 0.
 * Errors: INVALID names the tensor or field (NaN or infinity in the weights; a scale or zero that
 * overflows its dtype; MX and NVFP4: K no multiple of their group, f16 weights), otherwise as
 * tw_linear_create.  MEMORY. */
TW_API tw_status tw_linear_create_from_recipe(tw_context *context, const tw_linear_desc *desc,
                                              const char *recipe, const tw_tensor *weight,
                                              const tw_tensor *bias, tw_linear **out);

#ifdef __cplusplus
}
#endif

#endif /* TILEWRIGHT_QUANT_H */
