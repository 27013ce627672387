/* A recipe: a scheme and how its parameters are chosen from float weights.  Names are a table on
 * top, recipe.def. */
#ifndef TW_QUANT_RECIPE_H
#define TW_QUANT_RECIPE_H

#include "src/quant/affine.h"
#include "src/quant/mx.h"

typedef enum tw_method {
    TW_METHOD_AFFINE,   /* affine.h, zeros that are codes */
    TW_METHOD_TINYGEMM, /* affine.h, zeros that are values */
    TW_METHOD_HQQ,      /* hqq.h */
    TW_METHOD_FLOAT8,   /* float8.h */
    TW_METHOD_FLOATX,   /* floatx.h */
    TW_METHOD_MX,       /* mx.h */
    TW_METHOD_NVFP4,    /* nvfp4.h */
    TW_METHOD_NF4,      /* table.h */
    TW_METHOD_TERNARY,  /* table.h */
    TW_METHOD_CODEBOOK, /* codebook.h */
} tw_method;

typedef struct tw_recipe {
    tw_scheme scheme; /* of the layer that comes of it */
    tw_method method;
    tw_dtype x;    /* of the float weights: f32, f16 or bf16 */
    tw_dtype code; /* that the method makes; asymmetric i4 becomes w=u4,z=code */
    tw_mapping mapping;
    double eps;
    tw_mx_rule rule;
    int levels;       /* NVFP4: of scales, 1 or 2 */
    const float *lut; /* of w=lut4 where it is the same for all weights: static; else NULL */
} tw_recipe;

/* One row of recipe.def; texts are static. */
typedef struct tw_recipe_row {
    const char *name;
    tw_method method;
    const char *open, *fixed; /* field=value lists */
    const char *source;
} tw_recipe_row;
/* NULL past the end. */
const tw_recipe_row *tw_recipe_at(int i);

/* "intx_weight_only,w=i4,g=32,mapping=asymmetric": a row's name, and values for fields that it
 * leaves open:
 *   w, g, s, a  as in a problem's text; s=x: the dtype of the float weights
 *   a=mx, a=nvfp4 (of rows): mxfp8 or mxfp4 by w and the rule; nvfp4 or nvfp4t by the levels
 *   mapping  symmetric, symmetric_no_clipping_err, asymmetric
 *   rule     floor, rceil, ceil, even          levels  1, 2
 * Errors: INVALID names the field; UNSUPPORTED (a float code that schemes do not have). */
tw_status tw_recipe_parse(const char *text, tw_dtype x, tw_recipe *out);

/* Whether the method takes weights of this shape and of the recipe's x.  Errors: INVALID. */
tw_status tw_recipe_check(const tw_recipe *recipe, int64_t N, int64_t K);
/* The least number of rows that can be quantized without the others, to the same bits; its
 * multiples can, too.  N: all only together. */
int64_t tw_recipe_rows(const tw_recipe *recipe, int64_t N);

/* Quantizes w [N,K] of dtype x, contiguous, into the scheme's canonical tensors, as
 * tw_linear_create takes them; room for these is the caller's.  A group of zeros has codes 0, in
 * float8 too, where torchao's are NaN.  lut: TW_LUT4_SIZE values of w=lut4; NULL for others.
 * Errors: INVALID (N, K, what the method refuses; NaN or infinity in w; a scale or zero that
 * overflows its dtype), MEMORY. */
tw_status tw_recipe_quantize(const tw_recipe *recipe, int64_t N, int64_t K, const void *w,
                             void *codes, void *scales, void *zeros, float *lut);

#endif
