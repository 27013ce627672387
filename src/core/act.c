/* See act.h. */
#include "src/core/act.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"

#define MX(name_, code_, rule_)                                                                    \
    {.name = name_, .kind = TW_ACT_KIND_MX, .code = code_, .rule = rule_, .group = TW_MX_GROUP}
#define NVFP4(...)                                                                                 \
    {.kind = TW_ACT_KIND_NVFP4, .code = TW_E2M1, .group = TW_NVFP4_GROUP, __VA_ARGS__}

static const tw_act_row rows[] = {
    [TW_ACTQ_NONE] = {.name = "none"},
    [TW_ACTQ_I8] = {.name = "i8", .kind = TW_ACT_KIND_CODES, .code = TW_I8, .grouped = true},
    [TW_ACTQ_I8Z] = {.name = "i8z", .kind = TW_ACT_KIND_CODES, .code = TW_U8},
    [TW_ACTQ_I8_FULL] = {.name = "i8full", .kind = TW_ACT_KIND_CODES, .code = TW_I8},
    [TW_ACTQ_I8_STATIC] = {.name = "i8s", .kind = TW_ACT_KIND_INT8, .code = TW_I8, .given = true},
    [TW_ACTQ_E4M3] = {.name = "e4m3", .kind = TW_ACT_KIND_FLOAT8, .code = TW_E4M3, .grouped = true},
    [TW_ACTQ_E4M3_STATIC] = {.name = "e4m3s",
                             .kind = TW_ACT_KIND_FLOAT8,
                             .code = TW_E4M3,
                             .given = true},
    [TW_ACTQ_MXFP8] = MX("mxfp8", TW_E4M3, TW_MX_RCEIL),
    [TW_ACTQ_MXFP8_FLOOR] = MX("mxfp8floor", TW_E4M3, TW_MX_FLOOR),
    [TW_ACTQ_MXFP8_CEIL] = MX("mxfp8ceil", TW_E4M3, TW_MX_CEIL),
    [TW_ACTQ_MXFP8_EVEN] = MX("mxfp8even", TW_E4M3, TW_MX_EVEN),
    [TW_ACTQ_MXFP4] = MX("mxfp4", TW_E2M1, TW_MX_RCEIL),
    [TW_ACTQ_MXFP4_FLOOR] = MX("mxfp4floor", TW_E2M1, TW_MX_FLOOR),
    [TW_ACTQ_MXFP4_CEIL] = MX("mxfp4ceil", TW_E2M1, TW_MX_CEIL),
    [TW_ACTQ_MXFP4_EVEN] = MX("mxfp4even", TW_E2M1, TW_MX_EVEN),
    [TW_ACTQ_NVFP4] = NVFP4(.name = "nvfp4"),
    [TW_ACTQ_NVFP4_TOKEN] = NVFP4(.name = "nvfp4t", .token = true),
    [TW_ACTQ_NVFP4_STATIC] = NVFP4(.name = "nvfp4s", .given = true),
};

const tw_act_row *tw_act_get(tw_act_quant quant) {
    return (size_t)quant < TW_COUNT(rows) ? &rows[quant] : NULL;
}

bool tw_act_rounds(const tw_scheme *s) { return rows[s->act_quant].kind > TW_ACT_KIND_CODES; }
bool tw_act_given(const tw_scheme *s) { return rows[s->act_quant].given; }

tw_problem tw_kernel_problem(const tw_problem *problem) {
    tw_problem p = *problem;
    if (!tw_act_rounds(&p.scheme)) return p;
    p.x = TW_F32;
    p.scheme.act_quant = TW_ACTQ_NONE;
    p.scheme.act_group = 0;
    return p;
}

void tw_act_explain(const tw_scheme *s, tw_str *out) {
    const tw_act_row *row = &rows[s->act_quant];
    if (!tw_act_rounds(s)) return;
    int group = row->group ? row->group : s->act_group;
    tw_str_add(out, "x is rounded to %s, ", tw_dtype_name(row->code));
    if (row->given && !group)
        tw_str_add(out, "a scale that is given, ");
    else if (group)
        tw_str_add(out, "a scale each %d of K%s, ", group,
                   row->token   ? " and one a token"
                   : row->given ? " and one that is given"
                                : "");
    else
        tw_str_add(out, "a scale a token, ");
    tw_str_add(out, "before it comes to the kernel, which multiplies f32");
}

tw_status tw_act_check_scale(const tw_scheme *s, float scale) {
    const tw_act_row *row = &rows[s->act_quant];
    if (!row->given && scale == 0) return TW_OK;
    if (!row->given)
        return tw_fail(TW_INVALID, "act_scale: %g, but a=%s has no static scale; must be 0",
                       (double)scale, row->name);
    if (scale > 0 && isfinite(scale) && isfinite(1.0f / scale)) return TW_OK;
    return tw_fail(TW_INVALID,
                   "act_scale: %g, a=%s needs a positive finite scale, and a finite reciprocal",
                   (double)scale, row->name);
}

/* ---- scales ---- */

enum { BIAS = 127, MANTISSA = 23, NAN_SCALE = 255 };

static uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* floor(log2(v)) of a normal number, from its bits as torchao does: -127 for what is smaller. */
static int exponent_of(uint32_t bits) { return (int)(bits >> MANTISSA & 0xff) - BIAS; }

/* The logarithm is rounded to f32 first, as torch has it: a quotient that is a few units in the
 * last place above a power of two counts as that. */
static uint8_t scale_by_quotient(float amax, float largest) {
    float quotient = amax * (1.0f / largest);
    if (!isfinite(quotient)) return NAN_SCALE;
    if (quotient == 0) return 0;
    float exponent = ceilf((float)log2((double)quotient));
    return (uint8_t)(tw_min(tw_max((int)exponent, -BIAS), BIAS) + BIAS);
}

uint8_t tw_mx_scale(tw_mx_rule rule, tw_dtype code, float amax) {
    const tw_dtype_info *info = tw_dtype_get(code);
    float largest = tw_float_max(code);
    if (isnan(amax)) return NAN_SCALE;
    if (rule == TW_MX_RCEIL) return scale_by_quotient(amax, largest);
    uint32_t bits = bits_of(amax);
    if (rule == TW_MX_EVEN) bits += 1U << (MANTISSA - info->mantissa_bits - 1);
    int exponent = exponent_of(bits);
    if (rule == TW_MX_CEIL) exponent += (bits & ((1U << MANTISSA) - 1)) != 0;
    exponent -= exponent_of(bits_of(largest));
    return (uint8_t)(tw_min(tw_max(exponent, -BIAS), BIAS + 1) + BIAS);
}

/* The reciprocal, which is exact, as are products with it but for their own rounding.  torchao
 * divides by no subnormal: 2^-127 becomes 2^-126, and with RCEIL 1. */
float tw_mx_factor(tw_mx_rule rule, uint8_t scale) {
    if (scale == NAN_SCALE && rule != TW_MX_RCEIL) return 0; /* its bits are those of infinity */
    if (!scale && rule == TW_MX_RCEIL) return 1;
    return ldexpf(1, BIAS - (scale ? scale : 1));
}

/* The smallest normal and the largest number of e4m3, and the largest of e2m1. */
static const float LEAST_SCALE = 0x1p-6f, MOST_SCALE = 448, MOST_CODE = 6;

float tw_nvfp4_second(float amax) { return amax / (MOST_SCALE * MOST_CODE); }

float tw_nvfp4_scale(float amax, float second) {
    float wanted = amax / MOST_CODE;
    if (second > 0) wanted /= second;
    return tw_float_round(TW_E4M3, fminf(fmaxf(wanted, LEAST_SCALE), MOST_SCALE));
}

float tw_nvfp4_factor(float scale, float second) {
    return second > 0 ? 1.0f / second / scale : 1.0f / scale;
}

/* ---- values ---- */

static void widen(tw_dtype dtype, const void *from, int64_t first, int64_t count, float *out) {
    const uint16_t *halves = (const uint16_t *)from + (dtype == TW_F32 ? 0 : first);
    if (dtype == TW_F32) {
        memmove(out, (const float *)from + first, (size_t)count * sizeof *out);
    } else if (dtype == TW_BF16) {
        for (int64_t i = 0; i < count; i++) out[i] = float_of((uint32_t)halves[i] << 16);
    } else {
        /* The exponent moves by 112, and subnormals become normal; infinity and NaN keep the top
         * one. */
        for (int64_t i = 0; i < count; i++) {
            uint32_t sign = (uint32_t)(halves[i] & 0x8000) << 16, rest = halves[i] & 0x7fff;
            uint32_t value = bits_of(float_of(rest << 13) * 0x1p112f);
            out[i] = float_of(sign | (rest < 0x7c00 ? value : 0x7f800000 | rest << 13));
        }
    }
}

/* The largest magnitude of values [k0, k1); infinite where one is not finite. */
static float find_amax(const tw_act_token *t, int64_t k0, int64_t k1) {
    int32_t most = 0;
    const float *x = t->x;
    for (int64_t k = k0; k < k1; k++) {
        float v = t->stored == TW_F32 ? x[k] : tw_float_get(t->x, t->stored, k);
        int32_t bits = (int32_t)(bits_of(v) & 0x7fffffff);
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000 ? float_of((uint32_t)most) : INFINITY;
}

void tw_act_begin(tw_act_token *t, const tw_scheme *s, tw_dtype dtype, tw_dtype stored, int64_t K,
                  float act_scale, const void *x) {
    const tw_act_row *row = &rows[s->act_quant];
    *t = (tw_act_token){.row = row,
                        .x = x,
                        .stored = stored,
                        .dtype = dtype,
                        .K = K,
                        .group = row->group ? row->group : tw_act_group(s, K),
                        .given = row->given ? act_scale : 0,
                        .chosen = -1};
    if (row->token) t->given = tw_nvfp4_second(find_amax(t, 0, K));
}

static void choose(tw_act_token *t, int64_t group) {
    const tw_act_row *row = t->row;
    int64_t k0 = group * t->group;
    float amax = find_amax(t, k0, tw_min(t->K, k0 + t->group));
    t->chosen = group;
    t->divides = t->zero = false;
    t->bad = !isfinite(amax) || !isfinite(t->given);
    if (t->bad) return;
    if (row->kind == TW_ACT_KIND_FLOAT8) {
        t->scale = row->given ? t->given : tw_float_round(t->dtype, amax / tw_float_max(row->code));
        t->by = t->scale;
        t->divides = true;
        t->zero = t->scale == 0;
    } else if (row->kind == TW_ACT_KIND_MX) {
        uint8_t scale = tw_mx_scale(row->rule, row->code, amax);
        t->scale = tw_float_get(&scale, TW_E8M0, 0);
        t->by = tw_mx_factor(row->rule, scale);
    } else if (row->kind == TW_ACT_KIND_NVFP4) {
        float scale = tw_nvfp4_scale(amax, t->given);
        t->scale = t->given > 0 ? t->given * scale : scale;
        t->by = tw_nvfp4_factor(scale, t->given);
        t->zero = !isfinite(t->by);
    } else {
        t->scale = t->given;
        t->by = 1.0f / t->given;
    }
}

/* The values of a code: all multiples of 2^(e - mantissa), e their exponent, at least this one. */
typedef struct grid {
    float least, most;
    uint32_t least_exponent, shift; /* as a float's bits; of the exponent, to what rounds there */
} grid;

static grid grid_of(tw_dtype code) {
    /* 2^7 and up to 7 bits after it: whole numbers. */
    if (code == TW_I8) return (grid){-128, 127, (7 + BIAS) << MANTISSA, (MANTISSA - 7) << MANTISSA};
    const tw_dtype_info *info = tw_dtype_get(code);
    int least = 2 - (1 << (info->exponent_bits - 1));
    return (grid){-tw_float_max(code), tw_float_max(code), (uint32_t)(least + BIAS) << MANTISSA,
                  (uint32_t)(MANTISSA - info->mantissa_bits) << MANTISSA};
}

/* Half to even, by adding and taking off a number so large that what is left of v then is whole
 * steps: 1.5 times a power of two, so that the sum's exponent is its own. */
static float nearest(grid g, float v) {
    v = v < g.least ? g.least : v;
    v = v > g.most ? g.most : v;
    uint32_t exponent = bits_of(v) & 0x7f800000;
    exponent = exponent < g.least_exponent ? g.least_exponent : exponent;
    float large = 1.5f * float_of(exponent + g.shift);
    return v + large - large;
}

static void round_values(const tw_act_token *t, int64_t count, const float *x, float *out) {
    grid g = grid_of(t->row->code);
    float by = t->by, scale = t->scale;
    if (t->bad || t->zero) {
        for (int64_t i = 0; i < count; i++) out[i] = t->bad ? NAN : 0;
    } else if (t->divides) {
        for (int64_t i = 0; i < count; i++) out[i] = nearest(g, x[i] / by) * scale;
    } else {
        for (int64_t i = 0; i < count; i++) out[i] = nearest(g, x[i] * by) * scale;
    }
}

void tw_act_span(tw_act_token *t, int64_t k0, int64_t k1, float *out) {
    for (int64_t k = k0, count; k < k1; k += count) {
        int64_t group = k / t->group;
        if (group != t->chosen) choose(t, group);
        count = tw_min(k1, (group + 1) * t->group) - k;
        float *to = out + (k - k0);
        const float *from = to;
        if (t->stored == TW_F32)
            from = (const float *)t->x + k;
        else
            widen(t->stored, t->x, k, count, to);
        round_values(t, count, from, to);
    }
}

void tw_act_round(const tw_scheme *s, tw_dtype dtype, int64_t K, float act_scale, const void *x,
                  float *out) {
    tw_act_token token;
    widen(dtype, x, 0, K, out);
    /* In place: a group is looked at before it is written. */
    tw_act_begin(&token, s, dtype, TW_F32, K, act_scale, out);
    tw_act_span(&token, 0, K, out);
}
