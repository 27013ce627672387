/* Conversions by instruction where the target has them, by arithmetic elsewhere. */
#include "templates/cpu/convert.h"

#include <assert.h>

static tw_val k32(tw_ir *g, int lanes, int64_t v) { return tw_const_int(g, tw_i32(lanes), v); }

/* f16 bits (in i32 lanes) to f32 by arithmetic: where there is no F16C, LLVM would call a library.
 */
static tw_val half_to_f32(tw_ir *g, tw_val bits) {
    int n = bits.ty.lanes;
    tw_val magnitude = tw_and(g, bits, k32(g, n, 0x7fff));
    tw_val sign = tw_shl(g, tw_and(g, bits, k32(g, n, 0x8000)), 16);
    /* Exponents differ by 112; the multiplication also normalises subnormals, exactly. */
    tw_val scaled = tw_fmul(g, tw_bitcast(g, tw_shl(g, magnitude, 13), tw_f32(n)),
                            tw_const_f32(g, n, 0x1p112f));
    tw_val finite = tw_bitcast(g, scaled, tw_i32(n));
    tw_val special = tw_or(g, tw_shl(g, magnitude, 13), k32(g, n, 0x7f800000));
    tw_val is_special = tw_compare(g, TW_IR_SGT, magnitude, k32(g, n, 0x7bff));
    return tw_bitcast(g, tw_or(g, sign, tw_select(g, is_special, special, finite)), tw_f32(n));
}

static tw_val f32_to_half(tw_ir *g, tw_val v) {
    int n = v.ty.lanes;
    tw_val bits = tw_bitcast(g, v, tw_i32(n));
    tw_val magnitude = tw_and(g, bits, k32(g, n, 0x7fffffff));
    tw_val sign = tw_and(g, tw_lshr(g, bits, 16), k32(g, n, 0x8000));
    /* Normal: rebias the exponent, round half to even at bit 13; too large becomes infinity by
     * itself. */
    tw_val odd = tw_and(g, tw_lshr(g, magnitude, 13), k32(g, n, 1));
    tw_val rounded = tw_add(g, tw_add(g, magnitude, k32(g, n, (int64_t)0xc8000fff)), odd);
    tw_val normal = tw_lshr(g, rounded, 13);
    /* Subnormal: 0.5f has the last place that f16's subnormals have, so one addition rounds. */
    tw_val shifted = tw_fadd(g, tw_bitcast(g, magnitude, tw_f32(n)), tw_const_f32(g, n, 0.5f));
    tw_val subnormal = tw_sub(g, tw_bitcast(g, shifted, tw_i32(n)), k32(g, n, 0x3f000000));
    tw_val small = tw_compare(g, TW_IR_SLT, magnitude, k32(g, n, 0x38800000));
    tw_val finite = tw_select(g, small, subnormal, normal);
    tw_val infinite = tw_compare(g, TW_IR_SGT, magnitude, k32(g, n, 0x477fffff));
    tw_val result = tw_select(g, infinite, k32(g, n, 0x7c00), finite);
    tw_val nan = tw_compare(g, TW_IR_SGT, magnitude, k32(g, n, 0x7f800000));
    return tw_or(g, sign, tw_select(g, nan, k32(g, n, 0x7e00), result));
}

static tw_val f32_to_bf16(tw_ir *g, tw_val v) {
    int n = v.ty.lanes;
    tw_val bits = tw_bitcast(g, v, tw_i32(n));
    tw_val odd = tw_and(g, tw_lshr(g, bits, 16), k32(g, n, 1));
    tw_val rounded = tw_lshr(g, tw_add(g, tw_add(g, bits, k32(g, n, 0x7fff)), odd), 16);
    tw_val quiet = tw_or(g, tw_lshr(g, bits, 16), k32(g, n, 0x40));
    tw_val nan =
        tw_compare(g, TW_IR_SGT, tw_and(g, bits, k32(g, n, 0x7fffffff)), k32(g, n, 0x7f800000));
    return tw_select(g, nan, quiet, rounded);
}

tw_val tw_load_f32(tw_ir *g, tw_dtype from, tw_val pointer, int lanes, int align) {
    if (from == TW_F32) return tw_load(g, tw_f32(lanes), pointer, align);
    if (from == TW_F16 && g->target->isa != TW_ISA_portable)
        return tw_cast(g, TW_IR_FPEXT, tw_load(g, tw_ty_of(TW_TY_F16, lanes), pointer, align),
                       tw_f32(lanes));
    tw_val bits = tw_cast(g, TW_IR_ZEXT, tw_load(g, tw_i16(lanes), pointer, align), tw_i32(lanes));
    if (from == TW_F16) return half_to_f32(g, bits);
    assert(from == TW_BF16);
    return tw_bitcast(g, tw_shl(g, bits, 16), tw_f32(lanes));
}

void tw_store_f32(tw_ir *g, tw_dtype to, tw_val value, tw_val pointer, int align) {
    int lanes = value.ty.lanes;
    if (to == TW_F32) {
        tw_store(g, value, pointer, align);
    } else if (to == TW_F16 && g->target->isa != TW_ISA_portable) {
        tw_store(g, tw_cast(g, TW_IR_FPTRUNC, value, tw_ty_of(TW_TY_F16, lanes)), pointer, align);
    } else {
        tw_val bits = to == TW_F16 ? f32_to_half(g, value) : f32_to_bf16(g, value);
        tw_store(g, tw_cast(g, TW_IR_TRUNC, bits, tw_i16(lanes)), pointer, align);
    }
}

tw_val tw_round_to_bf16(tw_ir *g, tw_val value) {
    return tw_bitcast(g, tw_shl(g, f32_to_bf16(g, value), 16), tw_f32(value.ty.lanes));
}

tw_val tw_broadcast(tw_ir *g, tw_ty vector, tw_val pointer) {
    tw_ty scalar = tw_ty_of((tw_ty_kind)vector.kind, 0);
    return tw_splat(g, tw_load(g, scalar, pointer, tw_ty_bits(scalar) / 8), vector.lanes);
}

tw_val tw_reduce(tw_ir *g, tw_binop op, tw_val vector) {
    int n = vector.ty.lanes, mask[64];
    /* Halves meet as narrower vectors, which are cheaper to take apart. */
    for (; n > 4; n /= 2) {
        for (int i = 0; i < n; i++) mask[i] = i;
        tw_val low = tw_shuffle(g, vector, vector, mask, n / 2);
        vector = tw_binary(g, op, low, tw_shuffle(g, vector, vector, mask + n / 2, n / 2));
    }
    /* Each round combines every lane with the one half the distance away: all become equal. */
    for (int distance = n / 2; distance; distance /= 2) {
        for (int i = 0; i < n; i++) mask[i] = i ^ distance;
        vector = tw_binary(g, op, vector, tw_shuffle(g, vector, vector, mask, n));
    }
    return vector;
}
