/* What surrounds the products of a group: first values of accumulators, and scaling at its end. */
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/int_gemm.h"

static const tw_scheme *scheme(const tw_gemm *t) { return &t->problem->scheme; }

/* ---- vocabulary of integer products ---- */

tw_val tw_int_madd_words(tw_gemm *t, tw_val a, tw_val b) {
    tw_ir *g = t->g;
    tw_ty words = tw_i16(2 * t->lanes);
    if (tw_target_isa(g->target)->dot == TW_DOT_GENERIC) {
        /* Low and high words of each dword, sign-extended in place. */
        tw_val al = tw_ashr(g, tw_shl(g, a, 16), 16), bl = tw_ashr(g, tw_shl(g, b, 16), 16);
        return tw_add(g, tw_mul(g, al, bl), tw_mul(g, tw_ashr(g, a, 16), tw_ashr(g, b, 16)));
    }
    tw_val args[] = {tw_bitcast(g, a, words), tw_bitcast(g, b, words)};
    const char *name = t->lanes == 16 ? "llvm.x86.avx512.pmaddw.d.512" : "llvm.x86.avx2.pmadd.wd";
    return tw_intrinsic(g, name, tw_i32(t->lanes), args, 2);
}

tw_val tw_int_dpbusd(tw_ir *g, tw_val sum, tw_val a, tw_val b) {
    tw_val args[] = {sum, a, b};
    const char *name =
        sum.ty.lanes == 16 ? "llvm.x86.avx512.vpdpbusd.512" : "llvm.x86.avx512.vpdpbusd.256";
    return tw_intrinsic(g, name, sum.ty, args, 3);
}

tw_val tw_int_dpwssd(tw_gemm *t, tw_val acc, tw_val a, tw_val b) {
    tw_val args[] = {acc, a, b};
    const char *name =
        t->lanes == 16 ? "llvm.x86.avx512.vpdpwssd.512" : "llvm.x86.avx512.vpdpwssd.256";
    return tw_intrinsic(t->g, name, tw_i32(t->lanes), args, 3);
}

/* ---- a group begins ---- */

static tw_val meta_broadcast(tw_gemm *t, tw_ty ty, int row, int64_t array) {
    tw_val at =
        tw_offset(t->g, tw_at(t->g, t->tile_meta, row * t->geometry.xmeta_stride + array), t->meta);
    return tw_broadcast(t->g, ty, at);
}

/* Code zeros of a vector in i32 lanes, the constant one included. */
static tw_val zeros_of(tw_gemm *t, int v) {
    tw_val z = tw_gemm_code_zero(t, v);
    int32_t constant = tw_int_constant_zero(t->problem);
    return constant ? tw_add(t->g, z, tw_const_int(t->g, z.ty, constant)) : z;
}

/* Accumulators from the first one on. */
static void zero_from(tw_gemm *t, int first, tw_val *acc) {
    for (int i = first; i < t->acc_rows * t->nv; i++)
        acc[i] = tw_const_int(t->g, tw_i32(t->lanes), 0);
}

void tw_int_init(tw_gemm *t, tw_val *acc) {
    tw_int_gemm *self = (tw_int_gemm *)t;
    tw_ty ty = tw_i32(t->lanes);
    tw_val zeros[TW_TILE];
    if (t->word_pairs) {
        zero_from(t, 0, acc);
        return;
    }
    if (scheme(t)->zero_mode == TW_ZERO_CODE)
        for (int v = 0; v < t->nv; v++) zeros[v] = zeros_of(t, v);
    for (int row = 0; row < t->rows; row++) {
        int64_t array = tw_int_starts(&self->meta);
        tw_val start = array >= 0 ? meta_broadcast(t, ty, row, array)
                                  : tw_const_int(t->g, ty, t->group_pairs ? TW_WORD_BIAS : 0);
        for (int v = 0; v < t->nv; v++) {
            tw_val *a = &acc[row * t->nv + v];
            if (scheme(t)->zero_mode != TW_ZERO_CODE)
                *a = start;
            else
                *a = self->words_hold_sums ? tw_int_madd_words(t, zeros[v], start)
                                           : tw_mul(t->g, zeros[v], start);
        }
    }
    zero_from(t, t->rows * t->nv, acc);
}

/* The constant zero's part of a group's sums of word pairs. */
tw_val tw_int_word_start(tw_gemm *t, int row) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    int64_t array = tw_int_starts(&self->meta);
    if (array < 0) return (tw_val){0};
    return tw_bitcast(t->g, meta_broadcast(t, tw_i32(t->lanes), row, array), tw_i16(2 * t->lanes));
}

/* ---- a group ends ---- */

/* Bits of an integer's largest magnitude. */
static int bits_of(int64_t most) {
    int bits = 0;
    while (most >> bits) bits++;
    return bits;
}

/* Whether zero * sum fits the 24 bits of an f32.  Of f32 zeros it may not, but there q * scale as
 * it is defined rounds as much, which the oracle's bound knows. */
static bool products_fit(const tw_gemm *t) {
    const tw_scheme *s = scheme(t);
    int64_t run = tw_min(t->panel.group_k, t->fold_k);
    int64_t sum = run * tw_int_largest_x(t->problem);
    return s->scale == TW_F32 || tw_dtype_get(s->scale)->mantissa_bits + 1 + bits_of(sum) <= 24;
}

/* scale * sum + zero * x_sum, of f32: both products whole, so that what cancels leaves no error.
 * fits: zero * x_sum is exact. */
static tw_val with_value_zero(tw_gemm *t, tw_val sum, tw_val scale, tw_val zero, tw_val x_sum,
                              bool fits) {
    tw_ir *g = t->g;
    if (g->target->isa == TW_ISA_portable) { /* it has no fused multiply-add */
        tw_ty f64 = tw_f64(t->lanes);
        tw_val a =
            tw_fmul(g, tw_cast(g, TW_IR_FPEXT, sum, f64), tw_cast(g, TW_IR_FPEXT, scale, f64));
        tw_val b =
            tw_fmul(g, tw_cast(g, TW_IR_FPEXT, zero, f64), tw_cast(g, TW_IR_FPEXT, x_sum, f64));
        return tw_cast(g, TW_IR_FPTRUNC, tw_fadd(g, a, b), scale.ty);
    }
    tw_val product = tw_fmul(g, zero, x_sum);
    tw_val y = tw_fma(g, sum, scale, product);
    if (fits) return y;
    tw_val lost = tw_fma(g, zero, x_sum, tw_unary(g, TW_IR_FNEG, product));
    return tw_fadd(g, y, lost);
}

/* What the token's zero point is below TW_INT_SHIFT, in all lanes. */
static tw_val shift_of(tw_gemm *t, int row) {
    tw_val at = tw_at(t->g, t->tile_meta, row * t->geometry.xmeta_stride + TW_INT_SHIFT_AT);
    return tw_broadcast(t->g, tw_i32(t->lanes), at);
}

/* products, and what x with the zero point taken off adds to those of x as it lies there. */
static tw_val add_shifted(tw_gemm *t, tw_val products, tw_val codes, tw_val shift) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    if (!self->words_hold_codes) return tw_add(t->g, products, tw_mul(t->g, codes, shift));
    if (self->dot == TW_DOT_DPBUSD) return tw_int_dpwssd(t, products, codes, shift);
    return tw_add(t->g, products, tw_int_madd_words(t, codes, shift));
}

/* Which groups of the run at hand have sums that may not be words, a bit each, of any row. */
void tw_int_begin_run(tw_gemm *t) {
    tw_int_gemm *self = (tw_int_gemm *)t;
    tw_ir *g = t->g;
    if (!t->word_sums || !tw_int_may_be_wide(g->target, t->problem)) return;
    self->wide = tw_const_int(g, tw_i32(0), 0);
    for (int row = 0; row < t->rows; row++) {
        int64_t at = row * t->geometry.xmeta_stride + self->meta.scale + TW_INT_WIDE_AT;
        tw_val mask = tw_load(g, tw_i32(0), tw_offset(g, tw_at(g, t->tile_meta, at), t->meta), 4);
        self->wide = tw_or(g, self->wide, mask);
    }
}

/* Whether the group at hand, or one of the two, may have a sum that is no word. */
static tw_val is_wide(tw_gemm *t) {
    tw_ir *g = t->g;
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_val unit = tw_and(g, t->unit, tw_k64(g, t->panel.run_units - 1));
    tw_val low = tw_binary(g, TW_IR_LSHR, self->wide, tw_cast(g, TW_IR_TRUNC, unit, tw_i32(0)));
    tw_val mask = tw_const_int(g, low.ty, t->group_pairs ? 3 : 1);
    return tw_compare(g, TW_IR_SGT, tw_and(g, low, mask), tw_const_int(g, low.ty, 0));
}

/* Products that are scaled already. */
static void fold_pairs(tw_gemm *t, const tw_val *acc, tw_val *total) {
    for (int i = 0; i < t->rows * t->nv; i++) {
        tw_val sum = tw_add(t->g, tw_bitcast(t->g, total[i], tw_i32(t->lanes)), acc[i]);
        total[i] = tw_bitcast(t->g, sum, tw_f32(t->lanes));
    }
}

/* totals, and sums that are no words times codes of scales: those in the high words, or in the low
 * ones. */
static void add_wide(tw_gemm *t, const tw_val *acc, bool high, const tw_val *total, tw_val *out) {
    tw_ir *g = t->g;
    tw_val scale[TW_TILE] = {{0}};
    for (int v = 0; v < t->nv; v++) {
        tw_val words = tw_gemm_scale_words(t, v);
        scale[v] = tw_ashr(g, high ? words : tw_shl(g, words, 16), 16);
    }
    for (int i = 0; i < t->rows * t->nv; i++) {
        tw_val sum = acc[i];
        if (t->group_pairs) sum = tw_sub(g, sum, tw_const_int(g, sum.ty, TW_WORD_BIAS));
        out[i] = tw_add(g, total[i], tw_mul(g, sum, scale[i % t->nv]));
    }
}

static void cast_all(tw_gemm *t, tw_val *values, tw_ty ty) {
    for (int i = 0; i < t->rows * t->nv; i++) values[i] = tw_bitcast(t->g, values[i], ty);
}

/* Of a pair: the first unit's sums go up, and the second's begin below them.  Where one may be no
 * word, those are scaled by themselves. */
void tw_int_turn(tw_gemm *t, tw_val *acc, tw_val *total) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_ir *g = t->g;
    int count = t->rows * t->nv;
    tw_val start[TW_ACCUMULATORS] = {{0}}, both[TW_ACCUMULATORS], wide_both[TW_ACCUMULATORS];
    tw_int_init(t, start);
    cast_all(t, total, tw_i32(t->lanes));
    tw_if wide;
    if (self->wide.p) {
        tw_if_begin(g, &wide, is_wide(t));
        for (int i = 0; i < count; i++) wide_both[i] = start[i];
        add_wide(t, acc, true, total, wide_both + count);
        tw_if_else(g, &wide);
    }
    for (int i = 0; i < count; i++) {
        both[i] = tw_add(g, tw_shl(g, acc[i], 16), start[i]);
        both[count + i] = total[i];
    }
    if (self->wide.p) tw_if_merge(g, &wide, wide_both, both, 2 * count);
    for (int i = 0; i < count; i++) acc[i] = both[i], total[i] = both[count + i];
    cast_all(t, total, tw_f32(t->lanes));
}

/* Products times codes of scales, in i32.  Both ways are exact: a row's y does not depend on its
 * neighbours. */
static void fold_words(tw_gemm *t, const tw_val *acc, tw_val *total) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_ir *g = t->g;
    int count = t->rows * t->nv;
    tw_val scale[TW_TILE] = {{0}}, wide_sums[TW_TILE] = {{0}};
    cast_all(t, total, tw_i32(t->lanes));
    tw_if wide;
    if (self->wide.p) {
        tw_if_begin(g, &wide, is_wide(t));
        add_wide(t, acc, false, total, wide_sums);
        tw_if_else(g, &wide);
    }
    for (int v = 0; v < t->nv; v++) scale[v] = tw_gemm_scale_words(t, v);
    for (int i = 0; i < count; i++) {
        tw_val words = acc[i];
        if (t->group_pairs) {
            tw_val bias = tw_const_int(g, words.ty, TW_WORD_BIAS * 0x10001L);
            words = tw_binary(g, TW_IR_XOR, words, bias);
        }
        total[i] = tw_int_dpwssd(t, total[i], words, scale[i % t->nv]);
    }
    if (self->wide.p) tw_if_merge(g, &wide, wide_sums, total, count);
    cast_all(t, total, tw_f32(t->lanes));
}

/* Of the group at hand.  As one of two words it is multiplied by both of another's: the high one
 * must be 0. */
static tw_val sum_of_codes(tw_gemm *t, int v, const tw_val *acc) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_val sum = t->strip_sums ? tw_gemm_code_sum(t, v) : acc[t->rows * t->nv + v];
    if (!self->negatives || !self->words_hold_codes) return sum;
    return tw_and(t->g, sum, tw_const_int(t->g, sum.ty, 0xffff));
}

void tw_int_fold(tw_gemm *t, const tw_val *acc, tw_val *total) {
    tw_int_gemm *self = (tw_int_gemm *)t;
    if (t->word_sums) {
        (t->word_pairs ? fold_pairs : fold_words)(t, acc, total);
        return;
    }
    tw_ir *g = t->g;
    tw_ty f32 = tw_f32(t->lanes);
    tw_val scale[TW_TILE] = {{0}}, zero[TW_TILE] = {{0}}, codes[TW_TILE] = {{0}};
    for (int v = 0; v < t->nv && self->shifts; v++) codes[v] = sum_of_codes(t, v, acc);
    for (int v = 0; v < t->nv && !self->scales_last; v++) scale[v] = tw_gemm_scale(t, v);
    if (self->meta.total >= 0)
        for (int v = 0; v < t->nv; v++) zero[v] = tw_gemm_value_zero(t, v);
    for (int row = 0; row < t->rows; row++) {
        tw_val x_scale = {0}, x_total = {0}, shift = {0};
        if (self->shifts) shift = shift_of(t, row);
        if (self->meta.scale >= 0 && !t->scaled_units)
            x_scale = meta_broadcast(t, f32, row, self->meta.scale);
        if (self->meta.total >= 0) x_total = meta_broadcast(t, f32, row, self->meta.total);
        for (int v = 0; v < t->nv; v++) {
            tw_val *y = &total[row * t->nv + v];
            tw_val products = acc[row * t->nv + v];
            if (shift.p) products = add_shifted(t, products, codes[v], shift);
            if (x_total.p) {
                tw_val sum = tw_cast(g, TW_IR_SITOFP, products, f32);
                tw_val part = with_value_zero(t, sum, scale[v], zero[v], x_total, products_fit(t));
                *y = x_scale.p ? tw_fma(g, part, x_scale, *y) : tw_fadd(g, part, *y);
                continue;
            }
            if (self->scales_last) {
                *y = tw_cast(g, TW_IR_SITOFP, products, f32);
                continue;
            }
            tw_val both = x_scale.p ? tw_fmul(g, scale[v], x_scale) : scale[v];
            *y = tw_fma(g, tw_cast(g, TW_IR_SITOFP, products, f32), both, *y);
        }
    }
}

/* zero * sum of x over the groups of the run at hand, as an exact integer. */
static tw_val run_zero(tw_gemm *t, const tw_val *pairs, int row) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_ir *g = t->g;
    tw_val sum = tw_const_int(g, tw_i32(t->lanes), 0);
    tw_val at = tw_at(g, t->tile_meta, row * t->geometry.xmeta_stride + self->meta.half);
    at = tw_offset(g, at, tw_lshr(g, t->meta, 1)); /* t->meta counts entries of four bytes */
    for (int u = 0; u < t->panel.run_units; u += 2) {
        tw_val x = tw_broadcast(g, sum.ty, tw_at(g, at, (int64_t)u * 2));
        sum = self->dot == TW_DOT_DPBUSD ? tw_int_dpwssd(t, sum, pairs[u / 2], x)
                                         : tw_add(g, sum, tw_int_madd_words(t, pairs[u / 2], x));
    }
    return tw_cast(g, TW_IR_SITOFP, sum, tw_f32(t->lanes));
}

void tw_int_scale_sums(tw_gemm *t, const tw_val *sum, tw_val *total) {
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_val factor[TW_TILE] = {{0}}, zero_factor[TW_TILE] = {{0}};
    tw_val pairs[TW_TILE][TW_INT_LATE_UNITS / 2] = {{{0}}};
    for (int v = 0; v < t->nv && t->late_factors; v++) {
        factor[v] = tw_gemm_factor(t, v, 0);
        if (self->meta.half < 0) continue;
        zero_factor[v] = tw_gemm_factor(t, v, TW_PANEL_FACTORS);
        for (int u = 0; u < t->panel.run_units; u += 2)
            pairs[v][u / 2] = tw_gemm_zero_pairs(t, v, u);
    }
    for (int row = 0; row < t->rows; row++) {
        tw_val x_scale = meta_broadcast(t, sum[0].ty, row, self->meta.scale);
        for (int v = 0; v < t->nv; v++) {
            int i = row * t->nv + v;
            tw_val part = sum[i], scale = x_scale;
            if (t->word_sums)
                part =
                    tw_cast(t->g, TW_IR_SITOFP, tw_bitcast(t->g, part, tw_i32(t->lanes)), part.ty);
            if (self->meta.half >= 0)
                part = with_value_zero(t, part, factor[v], zero_factor[v],
                                       run_zero(t, pairs[v], row), false);
            else if (t->late_factors)
                scale = tw_fmul(t->g, scale, factor[v]);
            total[i] = tw_fma(t->g, part, scale, total[i]);
        }
    }
}

void tw_int_finish(tw_gemm *t, tw_val row, tw_val *total) {
    tw_int_gemm *self = (tw_int_gemm *)t;
    if (self->meta.scale >= 0) return;
    tw_val at =
        tw_offset(t->g, t->tile_meta, tw_mul(t->g, row, tw_k64(t->g, t->geometry.xmeta_stride)));
    tw_val scale = tw_broadcast(t->g, tw_f32(t->lanes), at);
    for (int v = 0; v < t->nv; v++) {
        total[v] = tw_fmul(t->g, total[v], scale);
        if (self->scales_last) total[v] = tw_fmul(t->g, total[v], tw_gemm_only_scale(t, v));
    }
}
