/* cpu.int_gemm: x quantized to 8 bits inside forward, integer products and sums, one scaling a
 * group.
 *
 *   y = sx * sum_groups s * (sum_k qx * qw - zero * sum_k qx)
 *
 * With one group along K it is (sx * sum) * s, in that order, as torchao has it: bit for bit.
 *
 * Accumulators (of word pairs their partial sums) start at -zero * sum(qx), so code zeros cost
 * nothing at a group's end.  Value zeros cancel against s * sum: the two are added as if exactly,
 * and rounded once. */
#include "templates/cpu/int_gemm.h"

#include <assert.h>

#include "src/core/act.h"
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"

/* ---- vocabulary of integer products ---- */

static tw_val madd_bytes(tw_gemm *t, tw_val codes, tw_val x) {
    tw_ir *g = t->g;
    tw_ty bytes = tw_i8(4 * t->lanes);
    tw_val args[] = {tw_bitcast(g, codes, bytes), tw_bitcast(g, x, bytes)};
    const char *name =
        t->lanes == 16 ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw";
    return tw_intrinsic(g, name, tw_i16(2 * t->lanes), args, 2);
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

static bool few_registers(const tw_gemm *t) {
    return tw_target_isa(t->g->target)->vector_registers < 32;
}

void tw_int_begin(tw_gemm *t) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0];
    if (t->panel.planes > 1 || bits == 8 || few_registers(t)) return;
    tw_ty ty = tw_i32(t->lanes);
    tw_val slot = tw_local(g, ty);
    tw_store(g, tw_const_int(g, ty, (int64_t)((1 << bits) - 1) * 0x01010101), slot, t->lanes * 4);
    ((tw_int_gemm *)t)->mask = tw_load(g, ty, slot, t->lanes * 4);
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
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    if (self->mask.p) return tw_and(g, moved, self->mask);
    int64_t mask = (int64_t)(((1 << count) - 1) << to) * 0x01010101;
    return tw_and(g, moved, tw_const_int(g, moved.ty, mask));
}

/* The codes of four consecutive k, a byte each, from all planes. */
tw_val tw_int_unpack(tw_gemm *t, int v, int64_t k) {
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
    return t->ahead_units ? tw_gemm_unpacked(t, v, k) : tw_int_unpack(t, v, k);
}

static tw_val x_dword(tw_gemm *t, int row, int64_t k, int64_t dword) {
    int64_t at = row * t->geometry.xq_stride + k * t->x_bytes + dword * 4;
    return tw_broadcast(t->g, tw_i32(t->lanes), tw_at(t->g, t->x, at));
}

/* Of four codes a lane the even ones, or the odd ones, as words. */
static tw_val words_of(tw_gemm *t, tw_val codes, bool odd) {
    tw_ir *g = t->g;
    if (!odd) return tw_and(g, codes, tw_const_int(g, codes.ty, 0x00ff00ff));
    tw_val words = tw_bitcast(g, codes, tw_i16(2 * t->lanes));
    return tw_bitcast(g, tw_lshr(g, words, 8), codes.ty);
}

/* The strip has words: even ones, then odd ones. */
static void stash_words(tw_gemm *t, int v, tw_val four, tw_val at) {
    (void)v;
    int64_t odd = tw_gemm_strip_at(t, 0, 2);
    for (int i = 0; i < 2; i++)
        tw_store(t->g, words_of(t, four, i), tw_at(t->g, at, i * odd), t->lanes * 4);
}

static void steps_words(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    for (int64_t k = k0; k < k1; k += 4) {
        tw_val words[2][TW_TILE];
        for (int v = 0; v < t->nv && !t->ahead_units; v++) {
            tw_val codes = tw_int_unpack(t, v, k);
            for (int odd = 0; odd < 2; odd++) words[odd][v] = words_of(t, codes, odd);
        }
        for (int odd = 0; odd < 2; odd++)
            for (int row = 0; row < t->rows; row++) {
                tw_val x = x_dword(t, row, k, odd);
                for (int v = 0; v < t->nv; v++) {
                    tw_val *w = &words[odd][v], *a = &acc[row * t->nv + v];
                    if (!row && t->ahead_units) *w = tw_gemm_unpacked(t, v, k + 2L * odd);
                    *a = tw_add(t->g, *a, tw_int_madd_words(t, *w, x));
                }
            }
    }
}

/* Sums of vpmaddubsw stay in i16 while they fit; one vpmaddwd by ones widens them, or by codes of
 * scales. */
static void flush(tw_gemm *t, tw_val *acc, tw_val *partial) {
    tw_val by[TW_TILE] = {{0}}, ones = tw_const_int(t->g, tw_i32(t->lanes), 0x00010001);
    for (int v = 0; v < t->nv; v++) by[v] = t->word_pairs ? tw_gemm_scale_words(t, v) : ones;
    for (int i = 0; i < t->rows * t->nv; i++) {
        tw_val sum = tw_bitcast(t->g, partial[i], tw_i32(t->lanes));
        tw_val wide = tw_int_madd_words(t, sum, by[i % t->nv]);
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
    const tw_int_gemm *self = (const tw_int_gemm *)t;
    tw_ir *g = t->g;
    tw_val ones = tw_const_int(g, sum.ty, 0x01010101), pairs = tw_const_int(g, sum.ty, 0x00010001);
    if (self->dot == TW_DOT_DPBUSD) return tw_int_dpbusd(t->g, sum, four, ones);
    if (self->dot == TW_DOT_GENERIC) return tw_add(g, sum, dot_generic(t, four, ones));
    tw_val two = tw_bitcast(g, madd_bytes(t, four, ones), sum.ty);
    return tw_add(g, sum, tw_int_madd_words(t, two, pairs));
}

static void flush_codes(tw_gemm *t, tw_val *acc, tw_val *bytes) {
    for (int v = 0; v < t->nv; v++) {
        tw_val *sum = &acc[t->rows * t->nv + v];
        *sum = sum_codes(t, *sum, tw_bitcast(t->g, bytes[v], sum->ty));
        bytes[v].p = NULL;
    }
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    tw_int_gemm *self = (tw_int_gemm *)t;
    tw_val partial[TW_TILE] = {0}, bytes[TW_TILE] = {0};
    int pending = 0, summed = 0;
    for (int i = 0; i < t->rows * t->nv && t->word_pairs; i++)
        partial[i] = i % t->nv ? partial[i - 1] : tw_int_word_start(t, i / t->nv);
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

/* ---- the row of templates.def ---- */

static void geometry(const tw_problem *problem, tw_geometry *out) {
    tw_int_geometry_of(problem, TW_INT_CODES, out);
}

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    tw_gemm_ops ops = {.begin = tw_int_begin,
                       .init = tw_int_init,
                       .steps = steps,
                       .unpack = tw_int_unpack,
                       .add_codes = sum_codes,
                       .fold = tw_int_fold,
                       .turn = tw_int_turn,
                       .begin_run = tw_int_begin_run,
                       .scale_sums = tw_int_scale_sums,
                       .finish = tw_int_finish};
    tw_int_gemm self = {.flush = 1};
    bool maddubs = tw_target_isa(g->target)->dot == TW_DOT_MADDUBS;
    bool bytes = tw_int_form_of(g->target, problem) == TW_INT_BYTES;
    if (!bytes) ops.steps = steps_words, ops.stash = stash_words;
    if (maddubs && bytes) self.flush = tw_int_flush(g->target, problem, config->micro_m);
    int64_t body = !maddubs ? 8 : bytes ? 4 * self.flush : config->ahead ? 32 : 4;
    tw_int_gemm_init(&self, g, problem, config, &ops, body, TW_INT_CODES);
    tw_int_emit_pack(g, problem, TW_INT_CODES, config->group_pairs ? TW_WORD_BIAS : 0);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

const char *tw_int_reject_problem(const tw_target *target, const tw_problem *problem) {
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

const tw_template tw_template_int_gemm = {"cpu.int_gemm",  18,           &tw_layout_panel64,
                                          tw_gemm_space,   TW_INT_AXES,  tw_int_reject_problem,
                                          tw_int_reject,   tw_int_guess, tw_int_cost,
                                          geometry,        tw_int_chain, emit,
                                          TW_FPMATH_STRICT};
