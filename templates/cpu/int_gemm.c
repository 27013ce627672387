/* cpu.int_gemm: x quantized to 8 bits inside forward, integer products and sums, one scaling a
 * group.
 *
 *   y = sx * sum_groups s * (sum_k qx * qw - zero * sum_k qx)
 *
 * With one group along K it is (sx * sum) * s, in that order, as torchao has it: bit for bit.
 *
 * Accumulators start at -zero * sum(qx), so code zeros cost nothing at a group's end.  Value zeros
 * cancel against s * sum: the two are added as if exactly, and rounded once. */
#include "templates/cpu/int_gemm.h"

#include <assert.h>

#include "src/core/act.h"
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"

typedef struct int_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_int_form form;
    tw_int_meta meta;
    tw_dot dot;
    int flush;             /* vpmaddubsw results that fit one i16 */
    int byte_sums;         /* codes whose sum fits a byte */
    bool shifts;           /* x lies there less TW_INT_SHIFT: the sums of codes make up for it */
    bool words_hold_sums;  /* zero and group sum fit i16: vpmaddwd multiplies them */
    bool words_hold_codes; /* so does a fold's sum of codes */
    bool scales_last;      /* one fold under one scale of x: totals are its sums until the end */
    tw_val wide;           /* groups of the run at hand, a bit each; none where it never is */
    tw_val mask;           /* of one plane's codes in each byte, where a register is left for it */
} int_gemm;

static const tw_scheme *scheme(const tw_gemm *t) { return &t->problem->scheme; }

/* ---- vocabulary of integer products ---- */

static tw_val madd_words(tw_gemm *t, tw_val a, tw_val b) {
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

static tw_val madd_bytes(tw_gemm *t, tw_val codes, tw_val x) {
    tw_ir *g = t->g;
    tw_ty bytes = tw_i8(4 * t->lanes);
    tw_val args[] = {tw_bitcast(g, codes, bytes), tw_bitcast(g, x, bytes)};
    const char *name =
        t->lanes == 16 ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw";
    return tw_intrinsic(g, name, tw_i16(2 * t->lanes), args, 2);
}

tw_val tw_int_dpbusd(tw_ir *g, tw_val sum, tw_val a, tw_val b) {
    tw_val args[] = {sum, a, b};
    const char *name =
        sum.ty.lanes == 16 ? "llvm.x86.avx512.vpdpbusd.512" : "llvm.x86.avx512.vpdpbusd.256";
    return tw_intrinsic(g, name, sum.ty, args, 3);
}

static tw_val dpwssd(tw_gemm *t, tw_val acc, tw_val a, tw_val b) {
    tw_val args[] = {acc, a, b};
    const char *name =
        t->lanes == 16 ? "llvm.x86.avx512.vpdpwssd.512" : "llvm.x86.avx512.vpdpwssd.256";
    return tw_intrinsic(t->g, name, tw_i32(t->lanes), args, 3);
}

/* Four unsigned by four signed bytes a lane, in plain arithmetic. */
static tw_val dot_generic(tw_gemm *t, tw_val codes, tw_val x) {
    tw_ir *g = t->g;
    tw_val sum = {0};
    for (int byte = 0; byte < 4; byte++) {
        tw_val q = tw_and(g, tw_lshr(g, codes, 8 * byte), tw_const_int(g, codes.ty, 255));
        tw_val product = tw_mul(g, q, tw_ashr(g, tw_shl(g, x, 24 - 8 * byte), 24));
        sum = byte ? tw_add(g, sum, product) : product;
    }
    return sum;
}

/* ---- hooks ---- */

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

static bool few_registers(const tw_gemm *t) {
    return tw_target_isa(t->g->target)->vector_registers < 32;
}

static void begin(tw_gemm *t) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0];
    if (t->panel.planes > 1 || bits == 8 || few_registers(t)) return;
    tw_ty ty = tw_i32(t->lanes);
    tw_val slot = tw_local(g, ty);
    tw_store(g, tw_const_int(g, ty, (int64_t)((1 << bits) - 1) * 0x01010101), slot, t->lanes * 4);
    ((int_gemm *)t)->mask = tw_load(g, ty, slot, t->lanes * 4);
}

static void init(tw_gemm *t, tw_val *acc) {
    int_gemm *self = (int_gemm *)t;
    tw_ty ty = tw_i32(t->lanes);
    tw_val zeros[TW_TILE];
    if (scheme(t)->zero_mode == TW_ZERO_CODE)
        for (int v = 0; v < t->nv; v++) zeros[v] = zeros_of(t, v);
    for (int row = 0; row < t->rows; row++) {
        int64_t array = self->meta.sum >= 0 ? self->meta.sum : self->meta.fixed;
        tw_val start = array >= 0 ? meta_broadcast(t, ty, row, array) : tw_const_int(t->g, ty, 0);
        for (int v = 0; v < t->nv; v++) {
            tw_val *a = &acc[row * t->nv + v];
            if (scheme(t)->zero_mode != TW_ZERO_CODE)
                *a = start;
            else
                *a = self->words_hold_sums ? madd_words(t, zeros[v], start)
                                           : tw_mul(t->g, zeros[v], start);
        }
    }
    for (int i = t->rows * t->nv; i < t->acc_rows * t->nv; i++) acc[i] = tw_const_int(t->g, ty, 0);
}

/* Bits [from, from + count) of each byte, at `to`.  The bit matrix is one instruction for two, but
 * on some processors of the dot product's units, where shifts have others: the tuner decides. */
static tw_val move_bits(tw_gemm *t, tw_val dword, int from, int to, int count) {
    tw_ir *g = t->g;
    if (from != to && t->config->bit_matrix) {
        /* One product with a bit matrix, whose byte 7 - i chooses the bits that make bit i. */
        uint64_t matrix = 0;
        for (int i = 0; i < count; i++) matrix |= UINT64_C(1) << (from + i + 8 * (7 - to - i));
        tw_ty bytes = tw_i8(4 * t->lanes), quads = tw_ty_of(TW_TY_I64, t->lanes / 2);
        tw_val constant = tw_const_int(g, quads, (int64_t)matrix);
        tw_val args[] = {tw_bitcast(g, dword, bytes), tw_bitcast(g, constant, bytes),
                         tw_const_int(g, tw_i8(0), 0)};
        tw_val moved = tw_intrinsic(g, "llvm.x86.vgf2p8affineqb.512", bytes, args, 3);
        return tw_bitcast(g, moved, dword.ty);
    }
    tw_val moved = from >= to ? tw_lshr(g, dword, from - to) : tw_shl(g, dword, to - from);
    const int_gemm *self = (const int_gemm *)t;
    if (self->mask.p) return tw_and(g, moved, self->mask);
    int64_t mask = (int64_t)(((1 << count) - 1) << to) * 0x01010101;
    return tw_and(g, moved, tw_const_int(g, moved.ty, mask));
}

/* The codes of four consecutive k, a byte each, from all planes. */
static tw_val unpack(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    tw_val codes = {0};
    for (int i = 0; i < p->planes; i++) {
        int bits = p->plane_bits[i], from = (int)(k % p->chunk_k / 4 % (8 / bits)) * bits,
            to = p->plane_shift[i];
        tw_val dword = tw_gemm_dwords(t, v, i, k);
        if (bits == 8) return dword;
        tw_val moved = move_bits(t, dword, from, to, bits);
        codes = i ? tw_or(g, codes, moved) : moved;
    }
    return codes;
}

static tw_val step_codes(tw_gemm *t, int v, int64_t k) {
    return t->ahead_units ? tw_gemm_unpacked(t, v, k) : unpack(t, v, k);
}

static tw_val x_dword(tw_gemm *t, int row, int64_t k, int64_t dword) {
    int64_t at = row * t->geometry.xq_stride + k * t->x_bytes + dword * 4;
    return tw_broadcast(t->g, tw_i32(t->lanes), tw_at(t->g, t->x, at));
}

static void steps_words(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    tw_ir *g = t->g;
    for (int64_t k = k0; k < k1; k += 4) {
        tw_val even[TW_TILE], odd[TW_TILE];
        for (int v = 0; v < t->nv; v++) {
            tw_val codes = step_codes(t, v, k), mask = tw_const_int(g, codes.ty, 0x00ff00ff);
            even[v] = tw_and(g, codes, mask);
            odd[v] = tw_and(g, tw_lshr(g, codes, 8), mask);
        }
        for (int row = 0; row < t->rows; row++) {
            tw_val x02 = x_dword(t, row, k, 0), x13 = x_dword(t, row, k, 1);
            for (int v = 0; v < t->nv; v++) {
                tw_val *a = &acc[row * t->nv + v];
                *a = tw_add(g, *a, madd_words(t, even[v], x02));
                *a = tw_add(g, *a, madd_words(t, odd[v], x13));
            }
        }
    }
}

/* Sums of vpmaddubsw stay in i16 while they fit; one vpmaddwd by ones widens them. */
static void flush(tw_gemm *t, tw_val *acc, tw_val *partial) {
    tw_val ones = tw_const_int(t->g, tw_i32(t->lanes), 0x00010001);
    for (int i = 0; i < t->rows * t->nv; i++) {
        tw_val wide = madd_words(t, tw_bitcast(t->g, partial[i], tw_i32(t->lanes)), ones);
        acc[i] = tw_add(t->g, acc[i], wide);
        partial[i].p = NULL;
    }
}

/* Sums of codes stay in bytes while they fit, too. */
static void add_codes(tw_gemm *t, const tw_val *codes, tw_val *bytes) {
    tw_ty ty = tw_i8(4 * t->lanes);
    for (int v = 0; v < t->nv; v++) {
        tw_val step = tw_bitcast(t->g, codes[v], ty);
        bytes[v] = bytes[v].p ? tw_add(t->g, bytes[v], step) : step;
    }
}

/* Four codes a lane, or sums of them that fit a byte. */
static tw_val sum_codes(tw_gemm *t, tw_val sum, tw_val four) {
    const int_gemm *self = (const int_gemm *)t;
    tw_ir *g = t->g;
    tw_val ones = tw_const_int(g, sum.ty, 0x01010101), pairs = tw_const_int(g, sum.ty, 0x00010001);
    if (self->dot == TW_DOT_DPBUSD) return tw_int_dpbusd(t->g, sum, four, ones);
    if (self->dot == TW_DOT_GENERIC) return tw_add(g, sum, dot_generic(t, four, ones));
    tw_val two = tw_bitcast(g, madd_bytes(t, four, ones), sum.ty);
    return tw_add(g, sum, madd_words(t, two, pairs));
}

static void flush_codes(tw_gemm *t, tw_val *acc, tw_val *bytes) {
    for (int v = 0; v < t->nv; v++) {
        tw_val *sum = &acc[t->rows * t->nv + v];
        *sum = sum_codes(t, *sum, tw_bitcast(t->g, bytes[v], sum->ty));
        bytes[v].p = NULL;
    }
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    int_gemm *self = (int_gemm *)t;
    if (self->form == TW_INT_WORDS) {
        steps_words(t, acc, k0, k1);
        return;
    }
    tw_val partial[TW_TILE] = {0}, bytes[TW_TILE] = {0};
    int pending = 0, summed = 0;
    for (int64_t k = k0; k < k1; k += 4) {
        /* In one block the packed codes stay in registers from step to step; with few of those,
         * accumulators then move to the stack, at two thirds of the speed. */
        if (k > k0 && (self->dot != TW_DOT_DPBUSD || few_registers(t))) tw_cut(t->g);
        tw_val codes[TW_TILE] = {{0}};
        for (int row = 0; row < t->rows; row++) {
            tw_val x = x_dword(t, row, k, 0);
            for (int v = 0; v < t->nv; v++) {
                int i = row * t->nv + v;
                /* Unpacked where first used: with one row, one vector at a time is alive. */
                if (!row) codes[v] = step_codes(t, v, k);
                if (self->dot == TW_DOT_DPBUSD) {
                    acc[i] = tw_int_dpbusd(t->g, acc[i], codes[v], x);
                } else if (self->dot == TW_DOT_GENERIC) {
                    acc[i] = tw_add(t->g, acc[i], dot_generic(t, codes[v], x));
                } else {
                    tw_val pairs = madd_bytes(t, codes[v], x);
                    partial[i] = partial[i].p ? tw_add(t->g, partial[i], pairs) : pairs;
                }
            }
        }
        if (self->dot == TW_DOT_MADDUBS && (++pending == self->flush || k + 4 >= k1)) {
            flush(t, acc, partial);
            pending = 0;
        }
        if (t->acc_rows == t->rows) continue;
        add_codes(t, codes, bytes);
        if (++summed == self->byte_sums || k + 4 >= k1) {
            flush_codes(t, acc, bytes);
            summed = 0;
        }
    }
}

/* Bits of an integer's largest magnitude. */
static int bits_of(int64_t most) {
    int bits = 0;
    while (most >> bits) bits++;
    return bits;
}

/* Whether zero * sum fits the 24 bits of an f32.  Of f32 zeros it may not, but there q * scale as
 * it is defined rounds as much, which the oracle's bound knows; f16i8's products are exact. */
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
    const int_gemm *self = (const int_gemm *)t;
    if (!self->words_hold_codes) return tw_add(t->g, products, tw_mul(t->g, codes, shift));
    if (self->dot == TW_DOT_DPBUSD) return dpwssd(t, products, codes, shift);
    return tw_add(t->g, products, madd_words(t, codes, shift));
}

/* Which groups of the run at hand have sums that may not be words, a bit each, of any row. */
static void begin_run(tw_gemm *t) {
    int_gemm *self = (int_gemm *)t;
    tw_ir *g = t->g;
    if (!t->word_sums || !tw_int_may_be_wide(g->target, t->problem)) return;
    self->wide = tw_const_int(g, tw_i32(0), 0);
    for (int row = 0; row < t->rows; row++) {
        int64_t at = row * t->geometry.xmeta_stride + self->meta.scale + TW_INT_WIDE_AT;
        tw_val mask = tw_load(g, tw_i32(0), tw_offset(g, tw_at(g, t->tile_meta, at), t->meta), 4);
        self->wide = tw_or(g, self->wide, mask);
    }
}

/* Whether the group at hand may have a sum that is no word. */
static tw_val is_wide(tw_gemm *t) {
    tw_ir *g = t->g;
    const int_gemm *self = (const int_gemm *)t;
    tw_val unit = tw_and(g, t->unit, tw_k64(g, t->panel.run_units - 1));
    tw_val low = tw_binary(g, TW_IR_LSHR, self->wide, tw_cast(g, TW_IR_TRUNC, unit, tw_i32(0)));
    tw_val one = tw_const_int(g, low.ty, 1);
    return tw_compare(g, TW_IR_EQ, tw_and(g, low, one), one);
}

/* Products times codes of scales, in i32.  Both ways are exact: a row's y does not depend on its
 * neighbours. */
static void fold_words(tw_gemm *t, const tw_val *acc, tw_val *total) {
    const int_gemm *self = (const int_gemm *)t;
    tw_ir *g = t->g;
    tw_ty i32 = tw_i32(t->lanes);
    int count = t->rows * t->nv;
    tw_val scale[TW_TILE] = {{0}}, sums[TW_TILE] = {{0}}, wide_sums[TW_TILE] = {{0}};
    for (int v = 0; v < t->nv; v++) scale[v] = tw_gemm_scale_words(t, v);
    for (int i = 0; i < count; i++) total[i] = tw_bitcast(g, total[i], i32);
    tw_if wide;
    if (self->wide.p) {
        tw_if_begin(g, &wide, is_wide(t));
        for (int i = 0; i < count; i++) {
            tw_val s = tw_ashr(g, tw_shl(g, scale[i % t->nv], 16), 16);
            wide_sums[i] = tw_add(g, total[i], tw_mul(g, acc[i], s));
        }
        tw_if_else(g, &wide);
    }
    for (int i = 0; i < count; i++) sums[i] = dpwssd(t, total[i], acc[i], scale[i % t->nv]);
    if (self->wide.p) tw_if_merge(g, &wide, wide_sums, sums, count);
    for (int i = 0; i < count; i++) total[i] = tw_bitcast(g, sums[i], tw_f32(t->lanes));
}

static void fold(tw_gemm *t, const tw_val *acc, tw_val *total) {
    int_gemm *self = (int_gemm *)t;
    if (t->word_sums) {
        fold_words(t, acc, total);
        return;
    }
    tw_ir *g = t->g;
    tw_ty f32 = tw_f32(t->lanes);
    tw_val scale[TW_TILE] = {{0}}, zero[TW_TILE] = {{0}}, codes[TW_TILE] = {{0}};
    for (int v = 0; v < t->nv && self->shifts; v++)
        codes[v] = t->strip_sums ? tw_gemm_code_sum(t, v) : acc[t->rows * t->nv + v];
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
    const int_gemm *self = (const int_gemm *)t;
    tw_ir *g = t->g;
    tw_val sum = tw_const_int(g, tw_i32(t->lanes), 0);
    tw_val at = tw_at(g, t->tile_meta, row * t->geometry.xmeta_stride + self->meta.half);
    at = tw_offset(g, at, tw_lshr(g, t->meta, 1)); /* t->meta counts entries of four bytes */
    for (int u = 0; u < t->panel.run_units; u += 2) {
        tw_val x = tw_broadcast(g, sum.ty, tw_at(g, at, (int64_t)u * 2));
        sum = self->dot == TW_DOT_DPBUSD ? dpwssd(t, sum, pairs[u / 2], x)
                                         : tw_add(g, sum, madd_words(t, pairs[u / 2], x));
    }
    return tw_cast(g, TW_IR_SITOFP, sum, tw_f32(t->lanes));
}

static void scale_sums(tw_gemm *t, const tw_val *sum, tw_val *total) {
    const int_gemm *self = (const int_gemm *)t;
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

/* Units under one scale of x, where that are several and a power of two. */
static int64_t scaled_units(const tw_gemm *t) {
    int64_t group = tw_act_group(scheme(t), t->problem->K), units = group / t->panel.unit_k;
    bool shared = scheme(t)->act_group && t->panel.units > 1 && group % t->panel.unit_k == 0;
    return shared && units > 1 && !(units & (units - 1)) ? units : 0;
}

static void finish(tw_gemm *t, tw_val row, tw_val *total) {
    int_gemm *self = (int_gemm *)t;
    if (self->meta.scale >= 0) return;
    tw_val at =
        tw_offset(t->g, t->tile_meta, tw_mul(t->g, row, tw_k64(t->g, t->geometry.xmeta_stride)));
    tw_val scale = tw_broadcast(t->g, tw_f32(t->lanes), at);
    for (int v = 0; v < t->nv; v++) {
        total[v] = tw_fmul(t->g, total[v], scale);
        if (self->scales_last) total[v] = tw_fmul(t->g, total[v], tw_gemm_only_scale(t, v));
    }
}

/* ---- the row of templates.def ---- */

static void geometry(const tw_problem *problem, tw_geometry *out) {
    tw_int_meta meta;
    tw_int_meta_init(problem, &meta);
    *out = (tw_geometry){tw_int_xq_stride(problem), meta.stride};
}

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {begin, init,      steps,      unpack, sum_codes,
                                    fold,  begin_run, scale_sums, finish};
    int_gemm self = {.dot = tw_target_isa(g->target)->dot,
                     .form = tw_int_form_of(g->target, problem)};
    tw_int_meta_init(problem, &self.meta);
    self.flush = self.form == TW_INT_BYTES && self.dot == TW_DOT_MADDUBS
                     ? tw_int_flush(problem, config->micro_m)
                     : 1;
    int64_t body_want = self.dot == TW_DOT_MADDUBS ? 4 * self.flush : 8;
    self.shifts = tw_int_shifts(g->target, problem);
    tw_gemm_init(&self.t, g, problem, config, &ops, body_want, tw_int_fold_k(problem), self.shifts);
    geometry(problem, &self.t.geometry);
    self.t.scaled_units = scaled_units(&self.t);
    self.t.late_factors = tw_int_late_factors(problem);
    assert(!self.t.late_factors || self.t.scaled_units == self.t.panel.run_units);
    self.t.word_sums = tw_int_word_limit(g->target, problem) > 0;
    self.scales_last = self.meta.entries == 1 && !problem->scheme.act_group &&
                       problem->scheme.zero_mode != TW_ZERO_VALUE;
    self.t.x_bytes = self.form == TW_INT_WORDS ? 2 : 1;
    int64_t largest_sum = tw_min(self.t.panel.group_k, self.t.fold_k) * tw_int_largest_x(problem);
    self.words_hold_sums = largest_sum <= 32767;
    int64_t largest_code = (1 << tw_dtype_bits(problem->scheme.weight)) - 1;
    self.byte_sums = (int)(255 / largest_code);
    self.words_hold_codes = tw_min(self.t.panel.group_k, self.t.fold_k) * largest_code <= 32767;
    tw_int_emit_pack(g, problem);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    (void)target;
    const tw_scheme *s = &problem->scheme;
    if (s->act_quant == TW_ACTQ_NONE || tw_act_rounds(s))
        return "int_gemm multiplies quantized activations only (a=i8, i8gG, i8z, i8full).";
    if (!tw_dtype_is_int(s->weight)) return "int_gemm takes integer weights only.";
    const char *why = tw_layout_panel64.reject(problem);
    if (why) return why;
    if (tw_act_group(s, problem->K) < problem->K && s->act_group % tw_group_k(s, problem->K))
        return "int_gemm needs the activation group to be a multiple of the weights' group.";
    if (tw_groups(s, problem->K) > 1 && tw_group_k(s, problem->K) % 4)
        return "int_gemm multiplies four columns of K at once: groups must be multiples of 4.";
    return NULL;
}

static int64_t chain(const tw_problem *problem) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* What scale_sums adds to a run's sum, where it has factors to apply. */
    int late = tw_int_late_factors(problem) ? 4 : 0;
    return tw_gemm_folds(&panel, tw_int_fold_k(problem)) + 4 + late;
}

const tw_template tw_template_int_gemm = {
    "cpu.int_gemm", 11,           &tw_layout_panel64, tw_gemm_space, TW_INT_AXES, reject_problem,
    tw_int_reject,  tw_int_guess, tw_int_cost,        geometry,      chain,       emit};
