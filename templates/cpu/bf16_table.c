/* See bf16_table.h. */
#include "templates/cpu/bf16_table.h"

#include <string.h>

#include "src/core/dtype.h"
#include "templates/cpu/convert.h"

enum { ENTRIES = 32, MOST_BITS = 4, MOST_ZERO = 16 };

const int tw_bf16_table_order[4] = {0, 2, 1, 3};

static bool has_zeros(const tw_gemm *t) { return t->problem->scheme.zero_mode == TW_ZERO_CODE; }

bool tw_bf16_table_serves(const tw_problem *problem) {
    tw_panel panel;
    if (!tw_dtype_is_int(problem->scheme.weight)) return false;
    tw_panel_init(problem, &panel);
    return panel.planes == 1 && panel.plane_bits[0] <= MOST_BITS && panel.unit_groups == 1;
}

/* Of integers that bf16 holds exactly. */
static int64_t bf16_bits(int value) {
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits >> 16;
}

void tw_bf16_table_begin(tw_bf16_table *self, tw_gemm *t) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0], smallest = tw_dtype_min(t->problem->scheme.weight);
    tw_ty words = tw_i16(ENTRIES);
    int64_t values[ENTRIES];
    for (int i = 0; i < ENTRIES; i++) {
        int difference = i < ENTRIES / 2 ? i : i - ENTRIES; /* of five bits */
        values[i] = bf16_bits(has_zeros(t) ? difference : (i & ((1 << bits) - 1)) + smallest);
    }
    /* By way of the stack: a constant would be loaded again in every step. */
    tw_val slot = tw_local(g, words);
    tw_store(g, tw_const_lanes(g, words, values), slot, ENTRIES * 2);
    self->table = tw_load(g, words, slot, ENTRIES * 2);
    for (int v = 0; v < t->nv && has_zeros(t); v++) self->words[v] = tw_local(g, words);
}

tw_val tw_bf16_dot(tw_gemm *t, tw_val acc, tw_val x, tw_val w) {
    tw_val args[] = {acc, x, w};
    return tw_intrinsic(t->g, "llvm.x86.avx512bf16.dpbf16ps.512", acc.ty, args, 3);
}

static tw_val most(tw_gemm *t, tw_val zero) {
    return tw_binary(t->g, TW_IR_SMIN, zero, tw_const_int(t->g, zero.ty, MOST_ZERO));
}

/* Adds x times what the zeros have beyond MOST_ZERO: `any` of them does. */
static void add_excess(tw_gemm *t, tw_val any, tw_val *acc) {
    tw_ir *g = t->g;
    int count = t->rows * t->nv;
    tw_val bytes = tw_mul(g, t->bodies, tw_k64(g, t->body_k * t->x_bytes));
    tw_loop loop;
    tw_loop_begin(g, &loop, tw_k64(g, 0), tw_select(g, any, bytes, tw_k64(g, 0)), 4, acc, count);
    tw_val x = tw_offset(g, t->x, loop.i), excess[TW_TILE];
    for (int v = 0; v < t->nv; v++) {
        tw_val zero = tw_gemm_code_zero(t, v);
        tw_val f = tw_cast(g, TW_IR_SITOFP, tw_sub(g, most(t, zero), zero), tw_f32(t->lanes));
        tw_val bits = tw_bitcast(g, f, tw_i32(t->lanes));
        excess[v] = tw_or(g, bits, tw_lshr(g, bits, 16));
    }
    for (int row = 0; row < t->rows; row++) {
        tw_val pair = tw_broadcast(g, tw_i32(t->lanes), tw_at(g, x, row * t->geometry.xq_stride));
        for (int v = 0; v < t->nv; v++) {
            int i = row * t->nv + v;
            acc[i] = tw_bf16_dot(t, loop.carried[i], pair, excess[v]);
        }
    }
    tw_loop_end(g, &loop, acc);
    for (int i = 0; i < count; i++) acc[i] = loop.carried[i];
}

void tw_bf16_table_group(tw_bf16_table *self, tw_gemm *t, tw_val *acc) {
    tw_ir *g = t->g;
    for (int i = 0; i < t->rows * t->nv; i++) acc[i] = tw_const_f32(g, t->lanes, 0);
    if (!has_zeros(t)) return;
    tw_val largest = {0};
    for (int v = 0; v < t->nv; v++) {
        tw_val zero = tw_gemm_code_zero(t, v), word = most(t, zero);
        largest = v ? tw_binary(g, TW_IR_SMAX, largest, zero) : zero;
        tw_store(g, tw_or(g, word, tw_shl(g, word, 16)), self->words[v], t->lanes * 4);
    }
    tw_val scalar = tw_extract(g, tw_reduce(g, TW_IR_SMAX, largest), 0);
    add_excess(t, tw_compare(g, TW_IR_SGT, scalar, tw_const_int(g, scalar.ty, MOST_ZERO)), acc);
}

tw_val tw_bf16_table_pair(tw_bf16_table *self, tw_gemm *t, int v, int64_t k, int i) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0];
    int from = (int)(k % t->panel.chunk_k / 4) * bits + 8 * i;
    tw_ty words = tw_i16(2 * t->lanes);
    tw_val index = tw_bitcast(g, tw_lshr(g, tw_gemm_dwords(t, v, 0, k), from), words);
    if (has_zeros(t)) {
        index = tw_and(g, index, tw_const_int(g, words, (1 << bits) - 1));
        index = tw_sub(g, index, tw_load(g, words, self->words[v], t->lanes * 4));
    }
    tw_val args[] = {self->table, index};
    tw_val pair = tw_intrinsic(g, "llvm.x86.avx512.permvar.hi.512", words, args, 2);
    return tw_bitcast(g, pair, tw_i32(t->lanes));
}
