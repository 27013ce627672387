/* cpu.bf16_gemm: bf16 x times weights that bf16 holds exactly, by the dot product of bf16 pairs
 * with f32 sums. Half or twice the rate of f32 FMA, depending on the processor: the tuner decides.
 *
 * Codes minus zeros come as exact f32 columns; those have at most 8 significant bits, so their
 * upper halves are the bf16, and two columns make a vector of pairs by one shift and one OR. */
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/dequant.h"
#include "templates/cpu/real_pack.h"

typedef struct bf16_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_dequant dequant;
} bf16_gemm;

static void begin(tw_gemm *t) { tw_dequant_begin(&((bf16_gemm *)t)->dequant, t); }

static void init(tw_gemm *t, tw_val *acc) {
    for (int i = 0; i < t->rows * t->nv; i++) acc[i] = tw_const_f32(t->g, t->lanes, 0);
    tw_dequant_group(&((bf16_gemm *)t)->dequant, t);
}

/* Columns k and k + 1 as bf16 pairs in i32 lanes. */
static tw_val pair_of_columns(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    if (tw_scheme_plain(&t->problem->scheme))
        return tw_gemm_load_codes(t, v, tw_i32(t->lanes),
                                  k / t->panel.chunk_k * t->panel.chunk_bytes);
    tw_dequant *dequant = &((bf16_gemm *)t)->dequant;
    tw_val low = tw_bitcast(g, tw_dequant_column(dequant, t, v, k), tw_i32(t->lanes));
    tw_val high = tw_bitcast(g, tw_dequant_column(dequant, t, v, k + 1), tw_i32(t->lanes));
    return tw_or(g, tw_lshr(g, low, 16), high);
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    tw_ir *g = t->g;
    for (int64_t k = k0; k < k1; k += 2) {
        if (k > k0) tw_cut(g);
        tw_val w[TW_TILE];
        for (int v = 0; v < t->nv; v++) w[v] = pair_of_columns(t, v, k);
        for (int row = 0; row < t->rows; row++) {
            int64_t at = row * t->geometry.xq_stride + k * t->x_bytes;
            tw_val x = tw_broadcast(g, tw_i32(t->lanes), tw_at(g, t->x, at));
            for (int v = 0; v < t->nv; v++) {
                tw_val *a = &acc[row * t->nv + v], args[] = {*a, x, w[v]};
                *a = tw_intrinsic(g, "llvm.x86.avx512bf16.dpbf16ps.512", a->ty, args, 3);
            }
        }
    }
}

/* ---- the row of templates.def ---- */

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {begin, init, steps, tw_dequant_fold, NULL};
    bf16_gemm self = {0};
    tw_gemm_init(&self.t, g, problem, config, &ops, 8, TW_DEQUANT_FOLD);
    tw_real_geometry(problem, &self.t.geometry);
    self.t.x_bytes = 2;
    tw_real_emit_pack(g, problem, TW_BF16);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    if (target->isa != TW_ISA_avx512bf16) return "bf16_gemm needs the target's bf16 dot product.";
    if (problem->x != TW_BF16) return "bf16_gemm multiplies bf16 activations only.";
    if (s->act_quant != TW_ACTQ_NONE)
        return "bf16_gemm multiplies unquantized activations only (a=none).";
    if (tw_scheme_plain(s) && s->weight != TW_BF16)
        return "bf16_gemm takes plain weights of bf16 only.";
    if (s->zero_mode == TW_ZERO_VALUE)
        return "bf16_gemm cannot hold weights with value zeros in bf16.";
    /* u8 zeros reach 255: from a negative code the difference has nine bits. */
    if (tw_dtype_is_signed(s->weight) && s->zero_mode == TW_ZERO_CODE)
        return "bf16_gemm cannot hold signed codes minus code zeros in bf16.";
    return tw_layout_panel64.reject(problem);
}

static void inner_loop(const tw_target *target, const tw_problem *problem, tw_inner_loop *loop) {
    (void)target;
    bool plain = tw_scheme_plain(&problem->scheme);
    /* Rated as two f32 FMA, which is what it is on half of the processors: the guess stays with
     * f32, and the tuner finds out. */
    *loop = (tw_inner_loop){.x_loads = 1,
                            .step_k = 2,
                            .product = 2,
                            .multiply = 2,
                            .unpack = plain ? 0 : 7,
                            .latency = 6,
                            .temporaries = 3,
                            .fold = 1,
                            .fold_load = 4,
                            .fold_k =
                                tw_min(TW_DEQUANT_FOLD, tw_group_k(&problem->scheme, problem->K))};
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
                                           1,
                                           &tw_layout_panel64,
                                           tw_gemm_space,
                                           TW_GEMM_AXES,
                                           reject_problem,
                                           tw_gemm_reject,
                                           guess,
                                           cost,
                                           tw_real_geometry,
                                           tw_dequant_chain,
                                           emit};
