/* cpu.bf16_gemm: bf16 x times weights that bf16 holds exactly, by the dot product of bf16 pairs
 * with f32 sums. Half or twice the rate of f32 FMA, depending on the processor: the tuner decides.
 *
 * Narrow codes become pairs by a table (bf16_table.h).  Wider ones minus their zeros come as exact
 * f32 columns; those have at most 8 significant bits, so their upper halves are the bf16, and two
 * columns make a vector of pairs by one shift and one OR. */
#include "src/core/dtype.h"
#include "templates/cpu/bf16_table.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/dequant.h"
#include "templates/cpu/real_pack.h"

typedef struct bf16_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_dequant dequant;
    tw_bf16_table table;
    bool looks_up; /* codes by the table */
} bf16_gemm;

static void begin(tw_gemm *t) {
    bf16_gemm *self = (bf16_gemm *)t;
    if (self->looks_up)
        tw_bf16_table_begin(&self->table, t);
    else
        tw_dequant_begin(&self->dequant, t);
}

static void init(tw_gemm *t, tw_val *acc) {
    bf16_gemm *self = (bf16_gemm *)t;
    if (self->looks_up) {
        tw_bf16_table_group(&self->table, t, acc);
        return;
    }
    for (int i = 0; i < t->rows * t->nv; i++) acc[i] = tw_const_f32(t->g, t->lanes, 0);
    tw_dequant_group(&self->dequant, t);
}

/* The pair of the two columns of packed x from k, in i32 lanes. */
static tw_val pair_of_columns(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    bf16_gemm *self = (bf16_gemm *)t;
    if (tw_scheme_plain(&t->problem->scheme))
        return tw_gemm_load_codes(t, v, tw_i32(t->lanes),
                                  k / t->panel.chunk_k * t->panel.chunk_bytes);
    if (self->looks_up) return tw_bf16_table_pair(&self->table, t, v, k / 4 * 4, (int)(k % 4 / 2));
    tw_dequant *dequant = &self->dequant;
    tw_val low = tw_bitcast(g, tw_dequant_column(dequant, t, v, k), tw_i32(t->lanes));
    tw_val high = tw_bitcast(g, tw_dequant_column(dequant, t, v, k + 1), tw_i32(t->lanes));
    return tw_or(g, tw_lshr(g, low, 16), high);
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    tw_ir *g = t->g;
    for (int64_t k = k0; k < k1; k += 2) {
        if (k > k0) tw_cut(g);
        tw_val w[TW_TILE];
        for (int row = 0; row < t->rows; row++) {
            int64_t at = row * t->geometry.xq_stride + k * t->x_bytes;
            tw_val x = tw_broadcast(g, tw_i32(t->lanes), tw_at(g, t->x, at));
            for (int v = 0; v < t->nv; v++) {
                /* Unpacked where first used: with one row, one vector at a time is alive. */
                if (!row) w[v] = pair_of_columns(t, v, k);
                tw_val *a = &acc[row * t->nv + v];
                *a = tw_bf16_dot(t, *a, x, w[v]);
            }
        }
    }
}

/* ---- the row of templates.def ---- */

/* Zeros too large for the table add each column once more: half as many between two folds. */
static bool adds_twice(const tw_problem *problem) {
    return tw_bf16_table_serves(problem) && problem->scheme.zero_mode == TW_ZERO_CODE;
}

static int64_t fold_k(const tw_problem *problem) {
    return adds_twice(problem) ? TW_DEQUANT_FOLD / 2 : TW_DEQUANT_FOLD;
}

static int64_t chain(const tw_problem *problem) {
    return tw_dequant_chain_of(problem, fold_k(problem), adds_twice(problem) ? 2 : 1);
}

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {
        .begin = begin, .init = init, .steps = steps, .fold = tw_dequant_fold};
    bf16_gemm self = {.looks_up = tw_bf16_table_serves(problem)};
    tw_gemm_init(&self.t, g, problem, config, &ops, 8, fold_k(problem), false);
    tw_real_geometry(problem, &self.t.geometry);
    self.t.x_bytes = 2;
    tw_real_emit_pack(g, problem, TW_BF16, self.t.geometry.xq_stride,
                      self.looks_up ? tw_bf16_table_order : NULL);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    if (!tw_target_has(target, TW_EXTRA_BF16))
        return "bf16_gemm needs the target's bf16 dot product.";
    if (problem->x != TW_BF16) return "bf16_gemm multiplies bf16 activations only.";
    if (s->act_quant != TW_ACTQ_NONE)
        return "bf16_gemm multiplies unquantized activations only (a=none).";
    if (tw_scheme_plain(s) && s->weight != TW_BF16)
        return "bf16_gemm takes plain weights of bf16 only.";
    if (tw_float_codes_serve(problem))
        return "bf16_gemm takes no codes of narrow floats or tables.";
    if (s->zero_mode == TW_ZERO_VALUE)
        return "bf16_gemm cannot hold weights with value zeros in bf16.";
    /* u8 zeros reach 255: from a negative code the difference has nine bits. */
    if (tw_dtype_is_signed(s->weight) && s->zero_mode == TW_ZERO_CODE)
        return "bf16_gemm cannot hold signed codes minus code zeros in bf16.";
    return tw_layout_panel64.reject(problem);
}

static void inner_loop(const tw_target *target, const tw_problem *problem, tw_inner_loop *loop) {
    (void)target;
    double unpack = 7;
    if (tw_scheme_plain(&problem->scheme))
        unpack = 0;
    else if (tw_bf16_table_serves(problem))
        unpack = problem->scheme.zero_mode == TW_ZERO_CODE ? 4 : 2;
    /* Rated as two f32 FMA, which is what it is on half of the processors: the guess stays with
     * f32, and the tuner finds out. */
    *loop = (tw_inner_loop){.x_loads = 1,
                            .step_k = 2,
                            .product = 2,
                            .multiply = 2,
                            .unpack = unpack,
                            .latency = 6,
                            .temporaries = 3,
                            .fold = 1,
                            .fold_load = 4,
                            .fold_k =
                                tw_min(fold_k(problem), tw_group_k(&problem->scheme, problem->K))};
}

static double cost(const tw_target *target, const tw_problem *problem, const tw_config *config) {
    tw_inner_loop loop;
    inner_loop(target, problem, &loop);
    return tw_gemm_cost(target, problem, config, &loop);
}

static void guess(const tw_target *target, const tw_problem *problem, tw_config *config) {
    tw_inner_loop loop;
    inner_loop(target, problem, &loop);
    tw_gemm_guess(target, problem, &loop, config);
}

const tw_template tw_template_bf16_gemm = {"cpu.bf16_gemm",
                                           9,
                                           &tw_layout_panel64,
                                           tw_gemm_space,
                                           TW_GEMM_AXES,
                                           reject_problem,
                                           tw_gemm_reject,
                                           guess,
                                           cost,
                                           tw_real_geometry,
                                           chain,
                                           emit,
                                           TW_FPMATH_STRICT};
