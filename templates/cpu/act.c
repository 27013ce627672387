/* Activations as vector arithmetic; relative error a few 1e-7.
 * The polynomials are Chebyshev fits made for this file: 2^r on [-0.5, 0.5], and exp(a^2) * erfc(a)
 * as a polynomial of 1 / (1 + 0.3 a) for a in [0, 10.2]. */
#include "src/core/dtype.h"
#include "templates/cpu/gemm.h"

static tw_val constant(tw_val like, tw_ir *g, float v) { return tw_const_f32(g, like.ty.lanes, v); }

/* Highest power first. */
static tw_val polynomial(tw_ir *g, tw_val x, const float *coefficients, int count) {
    tw_val sum = constant(x, g, coefficients[0]);
    for (int i = 1; i < count; i++) sum = tw_fma(g, sum, x, constant(x, g, coefficients[i]));
    return sum;
}

/* exp(v), v clamped to where the result is a normal number; NaN stays NaN. */
static tw_val emit_exp(tw_ir *g, tw_val v) {
    static const float exp2_fit[] = {0.000154614446986f,
                                     0.00134004281776f,
                                     0.00961805667852f,
                                     0.0555032722667f,
                                     0.240226509223f,
                                     0.693147206703f,
                                     1.0f};
    /* The limit is the first operand: minps and maxps give the second where the two do not compare.
     */
    v = tw_binary(g, TW_IR_FMIN, constant(v, g, 88.0f), v);
    v = tw_binary(g, TW_IR_FMAX, constant(v, g, -87.0f), v);
    tw_val magic =
        constant(v, g, 12582912.0f); /* 1.5 * 2^23: the sum's low bits are the rounded integer */
    tw_val shifted = tw_fma(g, v, constant(v, g, 1.44269504f), magic);
    tw_val n = tw_fsub(g, shifted, magic);
    /* v - n * ln 2 in two parts, then back to powers of two. */
    tw_val r = tw_fma(g, n, constant(v, g, -0.693145752f), v);
    r = tw_fma(g, n, constant(v, g, -1.42860677e-6f), r);
    tw_val power = polynomial(g, tw_fmul(g, r, constant(v, g, 1.44269504f)), exp2_fit,
                              (int)TW_COUNT(exp2_fit));
    tw_ty ints = tw_i32(v.ty.lanes);
    tw_val exponent = tw_shl(g, tw_bitcast(g, shifted, ints), 23);
    return tw_bitcast(g, tw_add(g, tw_bitcast(g, power, ints), exponent), v.ty);
}

/* v / (1 + exp(-u)) */
static tw_val over_logistic(tw_ir *g, tw_val v, tw_val u) {
    tw_val e = emit_exp(g, tw_unary(g, TW_IR_FNEG, u));
    return tw_binary(g, TW_IR_FDIV, v, tw_fadd(g, constant(v, g, 1.0f), e));
}

/* v * P(normal variable < v), whose lower tail is exp(-v^2/2) * erfcx(|v| / sqrt 2) / 2. */
static tw_val emit_gelu(tw_ir *g, tw_val v) {
    static const float erfcx_fit[] = {
        -0.119849580963f, 0.432398332095f, -0.385452094733f, 0.375625167071f, 0.0515188238959f,
        0.134450297899f,  0.17702460655f,  0.164338000851f,  0.169989879273f, -4.34398774278e-5f};
    tw_val a = tw_fmul(g, tw_unary(g, TW_IR_FABS, v), constant(v, g, 0.707106781f));
    a = tw_binary(g, TW_IR_FMIN, constant(v, g, 10.0f), a);
    tw_val one = constant(v, g, 1.0f);
    tw_val t = tw_binary(g, TW_IR_FDIV, one, tw_fma(g, a, constant(v, g, 0.3f), one));
    tw_val square = tw_unary(g, TW_IR_FNEG, tw_fmul(g, a, a));
    tw_val tail =
        tw_fmul(g, polynomial(g, t, erfcx_fit, (int)TW_COUNT(erfcx_fit)), emit_exp(g, square));
    tail = tw_fmul(g, tail, constant(v, g, 0.5f));
    tw_val positive = tw_compare(g, TW_IR_OGT, v, constant(v, g, 0.0f));
    return tw_fmul(g, v, tw_select(g, positive, tw_fsub(g, one, tail), tail));
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
