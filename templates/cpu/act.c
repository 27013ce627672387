/* Activations as vector arithmetic; relative error a few 1e-7, gelus' below 0 up to 4e-6 (at -5;
 * 1.5e-6 to -4), and behind that an absolute 1e-11.  The polynomials are minimax fits made for this
 * file: 2^r on [-0.5, 0.5], and the logarithm to base 2 of the normal distribution's lower tail on
 * [0, 7], weighted by what compare.c allows. */
#include "src/core/dtype.h"
#include "templates/cpu/gemm.h"

static tw_val constant(tw_val like, tw_ir *g, float v) { return tw_const_f32(g, like.ty.lanes, v); }

/* Highest power first. */
static tw_val polynomial(tw_ir *g, tw_val x, const float *coefficients, int count) {
    tw_val sum = constant(x, g, coefficients[0]);
    for (int i = 1; i < count; i++) sum = tw_fma(g, sum, x, constant(x, g, coefficients[i]));
    return sum;
}

/* Added to a number, its nearest integer is in the sum's low bits: 1.5 * 2^23. */
static tw_val magic(tw_val like, tw_ir *g) { return constant(like, g, 12582912.0f); }

/* 2^(n + r), r in [-0.5, 0.5]; shifted: n + magic.  The result is a normal number, or NaN. */
static tw_val emit_power(tw_ir *g, tw_val shifted, tw_val r) {
    static const float exp2_fit[] = {0.00132764871f, 0.0096755404f, 0.0555071323f,
                                     0.240221198f,   0.693146967f,  1.00000007f};
    tw_val power = polynomial(g, r, exp2_fit, (int)TW_COUNT(exp2_fit));
    tw_ty ints = tw_i32(r.ty.lanes);
    tw_val exponent = tw_shl(g, tw_bitcast(g, shifted, ints), 23);
    return tw_bitcast(g, tw_add(g, tw_bitcast(g, power, ints), exponent), r.ty);
}

/* exp(v), v clamped to where the result is a normal number; NaN stays NaN. */
static tw_val emit_exp(tw_ir *g, tw_val v) {
    /* The limit is the first operand: minps and maxps give the second where the two do not compare.
     */
    v = tw_binary(g, TW_IR_FMIN, constant(v, g, 88.0f), v);
    v = tw_binary(g, TW_IR_FMAX, constant(v, g, -87.0f), v);
    tw_val shifted = tw_fma(g, v, constant(v, g, 1.44269504f), magic(v, g));
    tw_val n = tw_fsub(g, shifted, magic(v, g));
    /* v - n * ln 2 in two parts, then back to powers of two. */
    tw_val r = tw_fma(g, n, constant(v, g, -0.693145752f), v);
    r = tw_fma(g, n, constant(v, g, -1.42860677e-6f), r);
    return emit_power(g, shifted, tw_fmul(g, r, constant(v, g, 1.44269504f)));
}

/* v / (1 + exp(-u)) */
static tw_val over_logistic(tw_ir *g, tw_val v, tw_val u) {
    tw_val e = emit_exp(g, tw_unary(g, TW_IR_FNEG, u));
    return tw_binary(g, TW_IR_FDIV, v, tw_fadd(g, constant(v, g, 1.0f), e));
}

/* v * P(normal variable < v) = max(v, 0) - |v| * tail(|v|).  The tail is 2^(a polynomial of |v|)
 * down to -7, where the product is 9e-12, and stays there. */
static tw_val emit_gelu(tw_ir *g, tw_val v) {
    static const float tail_fit[] = {
        1.07824911e-07f, -2.69384643e-06f, 2.62810445e-05f, -9.69534758e-05f, -0.000408958237f,
        0.00750070635f,  -0.0528708067f,   -0.459050471f,   -1.15113146f,     -0.999999059f};
    tw_val a = tw_unary(g, TW_IR_FABS, v);
    a = tw_binary(g, TW_IR_FMIN, constant(v, g, 7.0f), a);
    tw_val log = polynomial(g, a, tail_fit, (int)TW_COUNT(tail_fit));
    tw_val shifted = tw_fadd(g, log, magic(v, g));
    tw_val n = tw_fsub(g, shifted, magic(v, g));
    tw_val tail = emit_power(g, shifted, tw_fsub(g, log, n));
    /* v * 0 is 0, or NaN, beside which an infinite v stays: -inf as well, lest it look like 0. */
    tw_val above = tw_binary(g, TW_IR_FMAX, tw_fmul(g, v, constant(v, g, 0.0f)), v);
    return tw_fma(g, tw_unary(g, TW_IR_FNEG, a), tail, above);
}

tw_val tw_emit_act(tw_ir *g, tw_act act, tw_val v) {
    switch (act) {
    case TW_ACT_NONE: return v;
    case TW_ACT_RELU: return tw_binary(g, TW_IR_FMAX, constant(v, g, 0.0f), v);
    case TW_ACT_SILU: return over_logistic(g, v, v);
    case TW_ACT_GELU: return emit_gelu(g, v);
    case TW_ACT_GELU_TANH: {
        /* tanh(u) = 2 / (1 + exp(-2u)) - 1, u = sqrt(2/pi) * (v + 0.044715 v^3) */
        tw_val cubic = tw_fma(g, tw_fmul(g, v, v), constant(v, g, 0.044715f), constant(v, g, 1.0f));
        return over_logistic(g, v, tw_fmul(g, tw_fmul(g, v, cubic), constant(v, g, 1.59576912f)));
    }
    }
    return v;
}
