/* Activation quantization: what each a= is called, and x rounded to the codes of those that no
 * kernel takes as codes. */
#ifndef TW_CORE_ACT_H
#define TW_CORE_ACT_H

#include "src/core/problem.h"

/* How the exponent e of an MX group's scale 2^e follows from amax and the element type's largest
 * value; FLOOR is of the OCP Microscaling Formats (MX) Specification 1.0, section 6.3, the others
 * are torchao's. */
typedef enum tw_mx_rule {
    TW_MX_FLOOR, /* floor(log2(amax)) - emax: values above the largest are clamped */
    TW_MX_RCEIL, /* ceil(log2(amax * (1 / largest))): nothing is clamped */
    TW_MX_CEIL,  /* ceil(log2(amax)) - emax */
    TW_MX_EVEN,  /* as FLOOR of amax rounded to the element's mantissa */
} tw_mx_rule;

enum { TW_MX_GROUP = 32, TW_NVFP4_GROUP = 16 };

typedef enum tw_act_kind {
    TW_ACT_KIND_NONE,
    TW_ACT_KIND_CODES, /* kernels quantize x themselves and multiply the codes */
    /* x is rounded before it comes to a kernel, which multiplies f32: */
    TW_ACT_KIND_INT8,
    TW_ACT_KIND_FLOAT8,
    TW_ACT_KIND_MX,
    TW_ACT_KIND_NVFP4,
} tw_act_kind;

typedef struct tw_act_row {
    const char *name; /* in a problem's text */
    tw_act_kind kind;
    tw_dtype code;
    tw_mx_rule rule;
    int group;    /* of K, always; 0: the token, or act_group of K where that may be */
    bool grouped; /* act_group may be given */
    bool given;   /* has a static scale, act_scale of the layer */
    bool token;   /* NVFP4: a second scale, of the token */
} tw_act_row;

/* NULL past the end: rows stand in the order of tw_act_quant. */
const tw_act_row *tw_act_get(tw_act_quant quant);

/* Whether x is rounded before it comes to a kernel. */
bool tw_act_rounds(const tw_scheme *scheme);
/* Whether the layer has a static scale. */
bool tw_act_given(const tw_scheme *scheme);
/* What a kernel of such a layer computes, to which x comes rounded: a=none, x=f32.  Any other
 * problem is its kernels' own. */
tw_problem tw_kernel_problem(const tw_problem *problem);
/* "x is rounded to e4m3 (a scale a token) before the kernel, which takes f32"; a static text, NULL
 * where it is not. */
void tw_act_explain(const tw_scheme *scheme, tw_str *out);
/* A static scale that divides and multiplies: positive and finite, and so is its reciprocal. */
tw_status tw_act_check_scale(const tw_scheme *scheme, float act_scale);

/* ---- scales that weights and activations choose alike ---- */

/* The e8m0 code of a group's scale, and what its values are multiplied by before they are rounded;
 * 255, the NaN, where amax is none or, but for RCEIL, infinite. */
uint8_t tw_mx_scale(tw_mx_rule rule, tw_dtype code, float amax);
float tw_mx_factor(tw_mx_rule rule, uint8_t scale);
/* An e4m3 number; second: the scale of the second level, 0 without one. */
float tw_nvfp4_scale(float amax, float second);
float tw_nvfp4_factor(float scale, float second);
/* The second level's scale of values up to amax. */
float tw_nvfp4_second(float amax);

/* ---- rounding x ---- */

/* One row of x on its way. */
typedef struct tw_act_token {
    const tw_act_row *row;
    const void *x;
    tw_dtype stored, dtype; /* what x lies there as; what it is */
    int64_t K, group;
    float given;             /* the static scale; NVFP4's second one; 0: none */
    int64_t chosen;          /* the group that the rest belongs to, -1: none */
    float scale, by;         /* x = code * scale; code = x / by, or x * by */
    bool divides, zero, bad; /* all 0; not finite */
} tw_act_token;

/* A row of K values of dtype, which lie at x as `stored`, for a scheme that rounds. */
void tw_act_begin(tw_act_token *token, const tw_scheme *scheme, tw_dtype dtype, tw_dtype stored,
                  int64_t K, float act_scale, const void *x);
/* Values [k0, k1) of it, each the f32 product of its code and its scale.  In f32, amax of a group:
 *   i8s     code = round_half_even(x * (1 / act_scale)) within -128..127
 *   e4m3    s = amax / 448, rounded to dtype; code = e4m3(x / s), saturating; s 0: all 0
 *   e4m3s   s = act_scale
 *   mxfp8, mxfp4    s = 2^e by the rule, code = e4m3 or e2m1 of x / s, saturating
 *   nvfp4   s = e4m3(clamp(amax / 6, 2^-6, 448)), code = e2m1(x * (1 / s)), saturating
 *   nvfp4t, nvfp4s  s = t * u, u = e4m3(clamp(amax / 6 / t, 2^-6, 448)), code = e2m1(x * (1 / t /
 *           u)); t = amax of the token / 2688, or act_scale
 * What shares an amax with an x that is not finite becomes NaN; static: what is in its row. */
void tw_act_span(tw_act_token *token, int64_t k0, int64_t k1, float *out);
/* The whole row, which lies at x as dtype. */
void tw_act_round(const tw_scheme *scheme, tw_dtype dtype, int64_t K, float act_scale,
                  const void *x, float *out);

#endif
