/* cpu.dq_gemm: weights become f32 in registers, products and sums in f32: weight-only quantization, and
 * plain f32, f16, bf16 weights.
 *
 *   y = sum_folds s * (sum_k x * (q - zero))     value zeros add zero * sum_k x
 *
 * Codes turn into floats by OR-ing them into the mantissa of a power of two; one subtraction of that power
 * plus the zero is then exact, and takes the zero off before the product, where it cannot cancel against
 * large sums. */
#include <assert.h>
#include <stddef.h>

#include "src/core/dtype.h"
#include "src/core/kernel_args.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/gemm.h"

enum { FOLD_K = 256, META_TOTAL = 0 };

enum {
    HALF = 16,
    PLACES = 16
}; /* bits of a dword that are read without a shift; bit places in it */

typedef struct dq_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    /* What turns mantissa bits into q - zero, per place of the code and vector: in a register where it is a
     * constant, else in a stack slot, which the subtraction reads as its memory operand. */
    tw_val offset[PLACES][TW_TILE];
} dq_gemm;

static bool plain(const tw_problem *p) { return tw_scheme_plain(&p->scheme); }
static int32_t constant_zero(const tw_problem *p) { return -tw_dtype_min(p->scheme.weight); }
static bool has_code_zeros(const tw_problem *p) { return p->scheme.zero_mode == TW_ZERO_CODE; }

/* Codes of one plane stay at their place: OR-ed into the mantissa of 2^(23 - place), a code at bit `place`
 * counts in ones.  Planes that have to be put together first meet at place 0. */
static int places_step(const tw_gemm *t) {
    return t->panel.planes == 1 ? t->panel.plane_bits[0] : HALF;
}

/* Stack slots belong to the function's entry. */
static void begin(tw_gemm *t) {
    dq_gemm *self = (dq_gemm *)t;
    if (plain(t->problem) || !has_code_zeros(t->problem)) return;
    for (int place = 0; place < HALF; place += places_step(t))
        for (int v = 0; v < t->nv; v++) self->offset[place][v] = tw_local(t->g, tw_f32(t->lanes));
}

static void init(tw_gemm *t, tw_val *acc) {
    dq_gemm *self = (dq_gemm *)t;
    tw_ir *g = t->g;
    for (int i = 0; i < t->rows * t->nv; i++) acc[i] = tw_const_f32(g, t->lanes, 0);
    if (plain(t->problem)) return;
    for (int v = 0; v < t->nv; v++) {
        tw_val zero = {0};
        if (has_code_zeros(t->problem))
            zero = tw_cast(g, TW_IR_SITOFP, tw_gemm_code_zero(t, v), tw_f32(t->lanes));
        for (int place = 0; place < HALF; place += places_step(t)) {
            float magic = (float)(1 << (23 - place)) + (float)constant_zero(t->problem);
            tw_val offset = tw_const_f32(g, t->lanes, magic);
            if (zero.p)
                tw_store(g, tw_fadd(g, zero, offset), self->offset[place][v], t->lanes * 4);
            else
                self->offset[place][v] = offset;
        }
    }
}

static tw_val to_float(tw_gemm *t, int v, tw_val bits, int place) {
    dq_gemm *self = (dq_gemm *)t;
    tw_ir *g = t->g;
    int64_t magic = (int64_t)(127 + 23 - place) << 23;
    tw_val f = tw_bitcast(g, tw_or(g, bits, tw_const_int(g, bits.ty, magic)), tw_f32(t->lanes));
    tw_val offset = self->offset[place][v];
    if (offset.ty.kind == TW_TY_PTR) offset = tw_load(g, f.ty, offset, t->lanes * 4);
    return tw_fsub(g, f, offset);
}

/* The codes at column k of the body as q - zero, where they are one plane. */
static tw_val column_of_plane(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0];
    /* The byte of k within its dword, and the step's place in that byte. */
    int from = (int)(k % 4) * 8 + (int)(k % t->panel.chunk_k / 4 % (8 / bits)) * bits;
    tw_val dword = tw_gemm_dwords(t, v, 0, k);
    if (from >= HALF) dword = tw_lshr(g, dword, HALF);
    int place = from % HALF;
    return to_float(
        t, v, tw_and(g, dword, tw_const_int(g, dword.ty, (int64_t)((1 << bits) - 1) << place)),
        place);
}

static tw_val column_of_planes(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    tw_val q = {0};
    for (int i = 0; i < p->planes; i++) {
        int bits = p->plane_bits[i];
        int from = (int)(k % 4) * 8 + (int)(k % p->chunk_k / 4 % (8 / bits)) * bits,
            to = p->plane_shift[i];
        tw_val dword = tw_gemm_dwords(t, v, i, k);
        tw_val moved = from >= to ? tw_lshr(g, dword, from - to) : tw_shl(g, dword, to - from);
        moved = tw_and(g, moved, tw_const_int(g, moved.ty, (int64_t)((1 << bits) - 1) << to));
        q = i ? tw_or(g, q, moved) : moved;
    }
    return to_float(t, v, q, 0);
}

static tw_val column_of_codes(tw_gemm *t, int v, int64_t k) {
    return t->panel.planes == 1 ? column_of_plane(t, v, k) : column_of_planes(t, v, k);
}

static tw_val column_of_floats(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    int64_t offset = k / p->chunk_k * p->chunk_bytes;
    switch (t->problem->scheme.weight) {
    case TW_BF16: {
        tw_val pair = tw_gemm_load_codes(t, v, tw_i32(t->lanes), offset);
        tw_val bits = k % 2 ? tw_and(g, pair, tw_const_int(g, pair.ty, (int64_t)0xffff0000))
                            : tw_shl(g, pair, 16);
        return tw_bitcast(g, bits, tw_f32(t->lanes));
    }
    case TW_F16:
        return tw_load_f32(g, TW_F16, tw_at(g, t->codes, offset + v * t->lanes * 2L), t->lanes,
                           t->lanes * 2);
    default: return tw_gemm_load_codes(t, v, tw_f32(t->lanes), offset);
    }
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    tw_ir *g = t->g;
    for (int64_t k = k0; k < k1; k++) {
        if (k > k0) tw_cut(g);
        tw_val w[TW_TILE];
        for (int v = 0; v < t->nv; v++)
            w[v] = plain(t->problem) ? column_of_floats(t, v, k) : column_of_codes(t, v, k);
        for (int row = 0; row < t->rows; row++) {
            tw_val x = tw_broadcast(g, tw_f32(t->lanes),
                                    tw_at(g, t->x, row * t->geometry.xq_stride + k * 4));
            for (int v = 0; v < t->nv; v++) {
                tw_val *a = &acc[row * t->nv + v];
                *a = tw_fma(g, x, w[v], *a);
            }
        }
    }
}

static void fold(tw_gemm *t, const tw_val *acc, tw_val *total) {
    tw_ir *g = t->g;
    bool values = t->problem->scheme.zero_mode == TW_ZERO_VALUE;
    tw_val scale[TW_TILE], zero[TW_TILE];
    for (int v = 0; v < t->nv && !plain(t->problem); v++) {
        scale[v] = tw_gemm_scale(t, v);
        if (values) zero[v] = tw_gemm_value_zero(t, v);
    }
    for (int row = 0; row < t->rows; row++) {
        tw_val x_total = {0};
        if (values) {
            tw_val at = tw_offset(
                g, tw_at(g, t->tile_meta, row * t->geometry.xmeta_stride + META_TOTAL), t->meta);
            x_total = tw_broadcast(g, tw_f32(t->lanes), at);
        }
        for (int v = 0; v < t->nv; v++) {
            int i = row * t->nv + v;
            total[i] = plain(t->problem) ? tw_fadd(g, acc[i], total[i])
                                         : tw_fma(g, acc[i], scale[v], total[i]);
            if (values) total[i] = tw_fma(g, zero[v], x_total, total[i]);
        }
    }
}

/* ---- x to f32 rows, padded with zeros, and its sum per fold ---- */

static int64_t fold_k(const tw_panel *p) {
    return tw_min(FOLD_K, p->unit_groups > 1 ? p->group_k : p->unit_k);
}

static void geometry(const tw_problem *problem, tw_geometry *out) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* An odd number of cache lines, so that rows do not share a set of the L1 cache. */
    out->xq_stride = (tw_ceil_div(panel.padded_k * 4, 64) | 1) * 64;
    bool values = problem->scheme.zero_mode == TW_ZERO_VALUE;
    out->xmeta_stride = values ? tw_round_up(tw_gemm_folds(&panel, FOLD_K) * 4, 64) : 64;
}

typedef struct pack {
    tw_ir *g;
    const tw_problem *problem;
    tw_panel panel;
    tw_val x, xq, xmeta;
} pack;

/* Copies `length` elements from column `from` as f32 and returns their sum in one lane. */
static tw_val copy_run(pack *s, tw_val from, int64_t length) {
    tw_ir *g = s->g;
    int lanes = tw_target_lanes(g->target);
    int64_t size = tw_dtype_bits(s->problem->x) / 8, whole = length / lanes * lanes;
    tw_val sum = tw_const_f32(g, lanes, 0);
    if (whole) {
        tw_loop loop;
        tw_loop_begin_nonempty(g, &loop, from, tw_add(g, from, tw_k64(g, whole)), lanes, &sum, 1);
        tw_val at = tw_offset(g, s->x, tw_mul(g, loop.i, tw_k64(g, size)));
        tw_val x = tw_load_f32(g, s->problem->x, at, lanes, (int)size);
        tw_store(g, x, tw_offset(g, s->xq, tw_mul(g, loop.i, tw_k64(g, 4))), 4);
        tw_val next = tw_fadd(g, loop.carried[0], x);
        tw_loop_end(g, &loop, &next);
        sum = loop.carried[0];
    }
    const int first[] = {0};
    sum = tw_reduce(g, TW_IR_FADD, sum);
    sum = tw_shuffle(g, sum, sum, first, 1);
    for (int64_t i = whole; i < length; i++) {
        tw_val k = tw_add(g, from, tw_k64(g, i));
        tw_val x = tw_load_f32(g, s->problem->x, tw_offset(g, s->x, tw_mul(g, k, tw_k64(g, size))),
                               1, (int)size);
        tw_store(g, x, tw_offset(g, s->xq, tw_mul(g, k, tw_k64(g, 4))), 4);
        sum = tw_fadd(g, sum, x);
    }
    return sum;
}

/* Runs of one fold each: whole groups cut into folds, then what is left. */
static void copy_folds(pack *s) {
    tw_ir *g = s->g;
    int64_t K = s->problem->K, fold = fold_k(&s->panel),
            group = s->panel.groups > 1 ? s->panel.group_k : K;
    int64_t entry = 0;
    for (int64_t from = 0; from < K;) {
        /* Many equal folds in a row make a loop; a group's last fold may be shorter. */
        int64_t here = tw_min(fold, tw_min(group - from % group, K - from));
        int64_t repeat = here == fold && group % fold == 0 ? (K - from) / fold : 1;
        tw_loop loop;
        tw_val carried[] = {tw_k64(g, entry * 4)};
        tw_loop_begin_nonempty(g, &loop, tw_k64(g, from), tw_k64(g, from + repeat * here), here,
                               carried, 1);
        tw_val sum = copy_run(s, loop.i, here);
        tw_store(g, sum, tw_offset(g, tw_at(g, s->xmeta, META_TOTAL), loop.carried[0]), 4);
        carried[0] = tw_add(g, loop.carried[0], tw_k64(g, 4));
        tw_loop_end(g, &loop, carried);
        from += repeat * here;
        entry += repeat;
    }
    for (; entry < tw_gemm_folds(&s->panel, FOLD_K); entry++)
        tw_store(g, tw_const_f32(g, 1, 0), tw_at(g, s->xmeta, META_TOTAL + entry * 4), 4);
}

static void emit_pack(tw_ir *g, const tw_problem *problem) {
    pack s = {.g = g, .problem = problem};
    tw_panel_init(problem, &s.panel);
    tw_geometry geo;
    geometry(problem, &geo);
    static const tw_ty params[] = {{TW_TY_PTR, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}};
    tw_val a[3];
    tw_function_begin(g, "tw_pack_x", params, a, 3);
    tw_val x = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, x)), 8);
    tw_val x_stride = tw_load(g, tw_i64(), tw_at(g, a[0], offsetof(tw_kernel_args, x_stride)), 8);
    tw_val xq = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xq)), 8);
    tw_val xmeta = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xmeta)), 8);
    tw_loop rows;
    tw_loop_begin(g, &rows, a[1], a[2], 1, NULL, 0);
    s.x = tw_offset(g, x, tw_mul(g, rows.i, x_stride));
    s.xq = tw_offset(g, xq, tw_mul(g, rows.i, tw_k64(g, geo.xq_stride)));
    s.xmeta = tw_offset(g, xmeta, tw_mul(g, rows.i, tw_k64(g, geo.xmeta_stride)));
    if (problem->scheme.zero_mode == TW_ZERO_VALUE)
        copy_folds(&s);
    else
        copy_run(&s, tw_k64(g, 0), problem->K);
    for (int64_t k = problem->K; k < s.panel.padded_k; k++)
        tw_store(g, tw_const_f32(g, 1, 0), tw_at(g, s.xq, k * 4), 4);
    tw_loop_end(g, &rows, NULL);
    tw_function_end(g);
}

/* ---- the row of templates.def ---- */

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {begin, init, steps, fold, NULL};
    dq_gemm self = {0};
    tw_gemm_init(&self.t, g, problem, config, &ops, plain(problem) ? 4 : 8, FOLD_K);
    geometry(problem, &self.t.geometry);
    self.t.x_bytes = 4;
    emit_pack(g, problem);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    (void)target;
    if (problem->scheme.act_quant != TW_ACTQ_NONE)
        return "dq_gemm multiplies unquantized activations only (a=none).";
    return tw_layout_panel64.reject(problem);
}

static const char *reject(const tw_target *target, const tw_problem *problem,
                          const tw_config *config) {
    return tw_gemm_reject(target, problem, config);
}

static double cost(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    int lanes = tw_target_lanes(target), nv = c->micro_n / lanes;
    const tw_isa_info *isa = tw_target_isa(target);
    double unpack = plain(problem) ? 1 : tw_dtype_bits(problem->scheme.weight) == 4 ? 3 : 5;
    double registers = c->micro_m * nv + nv + 1;
    double spill = registers > isa->vector_registers ? 3 * (registers - isa->vector_registers) : 0;
    double step = c->micro_m * nv * 1.0 + nv * unpack * 0.5 + c->micro_m * 0.25 + spill;
    /* Fewer than eight chains leave the multipliers idle while sums are under way. */
    double chains = c->micro_m * nv;
    if (chains < 8) step *= 8 / chains;
    double group_end = (c->micro_m * nv * 3 + nv * 3) /
                       (double)tw_min(FOLD_K, tw_group_k(&problem->scheme, problem->K));
    double tiles =
        (double)(tw_ceil_div(problem->M, c->micro_m) * tw_ceil_div(problem->N, c->micro_n));
    double compute = tiles * (double)problem->K * (step + group_end) / 2.0 * 0.3;
    double stream = (double)tw_problem_weight_bytes(problem) * 0.05 *
                    (c->micro_n < 64 && problem->M < 8 ? 1.2 : 1);
    return compute > stream ? compute + 0.1 * stream : stream + 0.1 * compute;
}

static void guess(const tw_target *target, const tw_problem *problem, tw_config *c) {
    bool wide = tw_target_isa(target)->vector_registers >= 32;
    *c = (tw_config){
        .micro_m = wide ? 12 : 6, .micro_n = wide ? 32 : 16, .block_m = 120, .block_n = 128};
    if (tw_target_isa(target)->vector_bytes == 16) c->micro_m = 4, c->micro_n = 8;
    if (problem->M < c->micro_m)
        c->micro_m = (int32_t)tw_max(problem->M, 1), c->micro_n = wide ? 64 : 32;
    if (problem->M <= 2) c->micro_n = 64;
    if (problem->M <= 8) c->prefetch = 32, c->block_n = 64;
    c->block_m = (int32_t)tw_round_up(tw_min(c->block_m, tw_max(problem->M, 1)), c->micro_m);
}

static int64_t chain(const tw_problem *problem) {
    tw_panel p;
    tw_panel_init(problem, &p);
    bool values = problem->scheme.zero_mode == TW_ZERO_VALUE;
    return fold_k(&p) + tw_gemm_folds(&p, FOLD_K) * (values ? 2 : 1) + 2;
}

static const tw_axis space[] = {
    {TW_TUNABLE_micro_m, {1, 2, 3, 4, 5, 6, 8, 12}, 8},
    {TW_TUNABLE_micro_n, {4, 8, 16, 32, 64}, 5},
    {TW_TUNABLE_block_m, {1, 2, 4, 8, 16, 32, 60, 64, 120, 128, 240, 256}, 12},
    {TW_TUNABLE_block_n, {64, 128, 256, 512}, 4},
    {TW_TUNABLE_prefetch, {0, 16, 32, 64, 128}, 5},
};

const tw_template tw_template_dq_gemm = {"cpu.dq_gemm",
                                         1,
                                         &tw_layout_panel64,
                                         space,
                                         TW_COUNT(space),
                                         reject_problem,
                                         reject,
                                         guess,
                                         cost,
                                         geometry,
                                         chain,
                                         emit};
