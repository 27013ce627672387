/* cpu.dq_gemm: weights become f32 in registers, products and sums in f32: weight-only quantization,
 * codes of any kind, and plain f32, f16, bf16 weights.
 *
 *   y = sum_folds s * (sum_k x * (q - zero))     value zeros: sum_k x * (q * s + zero) */
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/dequant.h"
#include "templates/cpu/real_pack.h"

typedef struct dq_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_dequant dequant;
} dq_gemm;

static void begin(tw_gemm *t) { tw_dequant_begin(&((dq_gemm *)t)->dequant, t); }

static void init(tw_gemm *t, tw_val *acc) {
    for (int i = 0; i < t->rows * t->nv; i++) acc[i] = tw_const_f32(t->g, t->lanes, 0);
    tw_dequant_group(&((dq_gemm *)t)->dequant, t);
}

static void steps(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1) {
    dq_gemm *self = (dq_gemm *)t;
    tw_ir *g = t->g;
    for (int64_t k = k0; k < k1; k++) {
        if (k > k0) tw_cut(g);
        tw_val w[TW_TILE];
        for (int row = 0; row < t->rows; row++) {
            tw_val x = tw_broadcast(g, tw_f32(t->lanes),
                                    tw_at(g, t->x, row * t->geometry.xq_stride + k * 4));
            for (int v = 0; v < t->nv; v++) {
                tw_val *a = &acc[row * t->nv + v];
                /* Unpacked where first used: with one row, one vector at a time is alive. */
                if (!row) w[v] = tw_dequant_column(&self->dequant, t, v, k);
                *a = tw_fma(g, x, w[v], *a);
            }
        }
    }
}

/* ---- the row of templates.def ---- */

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {
        .begin = begin, .init = init, .steps = steps, .fold = tw_dequant_fold};
    dq_gemm self = {0};
    tw_gemm_init(&self.t, g, problem, config, &ops, tw_scheme_plain(&problem->scheme) ? 4 : 8,
                 TW_DEQUANT_FOLD, false);
    tw_real_geometry(problem, &self.t.geometry);
    self.t.x_bytes = 4;
    tw_real_emit_pack(g, problem, TW_F32, self.t.geometry.xq_stride, NULL);
    tw_gemm_emit(&self.t);
    return TW_OK;
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    (void)target;
    if (problem->scheme.act_quant != TW_ACTQ_NONE)
        return "dq_gemm multiplies unquantized activations only (a=none).";
    return tw_layout_panel64.reject(problem);
}

/* AND, OR and subtraction a column of codes, and a shift for half of them; AVX-512 does AND and OR
 * at once. */
static void inner_loop(const tw_target *target, const tw_problem *problem, tw_inner_loop *loop) {
    int bits = tw_dtype_bits(problem->scheme.weight);
    bool wide = tw_target_isa(target)->vector_bytes == 64, single = !(bits & (bits - 1));
    double unpack = (single ? 2.5 : 6) + (wide ? 0 : 1);
    if (problem->scheme.zero_mode == TW_ZERO_VALUE) unpack += 2;
    if (tw_float_codes_serve(problem))
        unpack = bits == 4 ? (wide ? 1.5 : 5) : bits == 8 ? (wide ? 6 : 8) : 8;
    if (tw_scheme_plain(&problem->scheme)) unpack = bits == 32 ? 0 : 1;
    /* A table of two vectors stays in registers. */
    bool two_tables = tw_float_codes_serve(problem) && bits == 4 && !wide;
    bool fused = target->isa != TW_ISA_portable;
    *loop = (tw_inner_loop){.x_loads = 1,
                            .embeds = wide,
                            .step_k = 1,
                            .product = fused ? 1 : 2,
                            .multiply = 1,
                            .unpack = unpack,
                            .latency = 4,
                            .temporaries = unpack > 1 ? wide         ? 2
                                                        : two_tables ? 9
                                                                     : 6
                                                      : 1,
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

const tw_template tw_template_dq_gemm = {"cpu.dq_gemm",
                                         9,
                                         &tw_layout_panel64,
                                         tw_gemm_space,
                                         TW_GEMM_AXES,
                                         reject_problem,
                                         tw_gemm_reject,
                                         guess,
                                         cost,
                                         tw_real_geometry,
                                         tw_dequant_chain,
                                         emit,
                                         TW_FPMATH_STRICT};
