/* Problems and configs of amx_gemm: which are possible, the guess among them, and the model of
 * their time. */
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "templates/cpu/amx_gemm.h"

const tw_axis tw_amx_space[TW_AMX_AXES] = {
    {TW_TUNABLE_micro_m, {16, 32}, 2},
    {TW_TUNABLE_micro_n, {16, 32}, 2},
    {TW_TUNABLE_block_m, {16, 32, 64, 128, 256, 512}, 6},
    {TW_TUNABLE_block_n, {32, 64, 128, 256, 512}, 5},
    {TW_TUNABLE_prefetch, {0, 16, 64}, 3},
    {TW_TUNABLE_bit_matrix, {0, 1}, 2},
    {TW_TUNABLE_ahead, {128, 256, 512, 576, 768, 1024}, 6},
};

/* Bytes for a column of N that stay from a stretch's start to its end: codes of `ahead` columns of
 * K; for each group of unit_k what it has beside them, at most, and a tile's products.  Two KiB
 * more are a run's zeros and sums, and tables. */
static int64_t column_bytes(tw_amx_form form, int64_t unit_k, int64_t ahead, int64_t rows) {
    switch (form) {
    case TW_AMX_CHANNEL: return ahead;
    case TW_AMX_SCALED: return 2 * (ahead + 4 * rows);
    default: return ahead + ahead / unit_k * (12 + 4 * rows);
    }
}

/* ---- problems ---- */

/* Whether each group of weights along K is whole and has a scale of x, or all have one. */
static bool whole_groups(const tw_scheme *s, const tw_panel *p, int64_t K) {
    return p->units > 1 && p->unit_groups == 1 && K % p->unit_k == 0 &&
           (!s->act_group || tw_act_group(s, K) == p->unit_k);
}

tw_amx_form tw_amx_form_of(const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    int64_t K = problem->K;
    tw_panel p;
    tw_panel_init(problem, &p);
    bool one = p.units == 1 && p.unit_groups == 1 && p.groups == 1 && !tw_panel_has_factors(&p);
    if (one && !s->act_group && s->zero_mode == TW_ZERO_NONE && s->act_quant != TW_ACTQ_I8Z)
        return K % TW_TILE_BYTES == 0 && K <= tw_int_fold_k(problem) ? TW_AMX_CHANNEL : TW_AMX_NONE;
    if (tw_int_late_factors(problem))
        return K % TW_FACTOR_K == 0 && s->zero_mode != TW_ZERO_CODE ? TW_AMX_SCALED : TW_AMX_NONE;
    bool fits = p.unit_k == TW_TILE_BYTES / 2 || p.unit_k % TW_TILE_BYTES == 0;
    int64_t least = column_bytes(TW_AMX_GROUPS, p.unit_k, p.unit_k, TW_TILE_ROWS);
    fits &= least * TW_AMX_COLUMNS <= TW_AHEAD_BYTES;
    if (whole_groups(s, &p, K) && fits && p.unit_k <= tw_int_fold_k(problem)) return TW_AMX_GROUPS;
    return TW_AMX_NONE;
}

const char *tw_amx_reject_problem(const tw_target *target, const tw_problem *problem) {
    if (!tw_target_has(target, TW_EXTRA_AMX)) return "amx_gemm needs the target's AMX.";
    if (tw_int_reject_problem(target, problem))
        return "amx_gemm takes quantized activations and integer weights as int_gemm does.";
    if (tw_amx_form_of(problem) == TW_AMX_NONE)
        return "amx_gemm takes groups of 32 or a multiple of 64 up to 1920 that divide K and whose "
               "x "
               "has a scale each or one for all; f16i8 scales under one scale of x for 256; or "
               "one group along a K that 64 divides, without zeros.";
    return NULL;
}

/* ---- configs ---- */

/* A task's totals, and a strip's codes: of the stack that tw_linear_forward promises. */
_Static_assert(TW_AHEAD_BYTES == 32768, "as the sentences below say");

/* Columns of K that a stretch is a multiple of. */
static int64_t ahead_step(const tw_problem *problem) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    switch (tw_amx_form_of(problem)) {
    case TW_AMX_CHANNEL: return TW_TILE_BYTES;
    case TW_AMX_SCALED: return TW_FACTOR_K;
    default: return panel.unit_k;
    }
}

static const char *reject_ahead(const tw_problem *problem, const tw_config *c) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    int64_t step = ahead_step(problem);
    tw_amx_form form = tw_amx_form_of(problem);
    if (c->ahead <= 0 || c->ahead % step)
        return "ahead must be a multiple of the group along K, of 256 for f16i8 scales, of 64 for "
               "one group.";
    if (form == TW_AMX_SCALED && c->ahead != TW_FACTOR_K)
        return "ahead must be the 256 columns of K that share factors.";
    if (c->ahead >= problem->K + step) return "ahead exceeds the columns of K there are.";
    if (column_bytes(form, panel.unit_k, c->ahead, c->micro_m) * c->micro_n > TW_AHEAD_BYTES)
        return "ahead's codes, scales, zeros and products must take at most 32768 bytes.";
    return NULL;
}

/* Whether one stretch is all of K. */
static bool is_whole(const tw_problem *problem, const tw_config *c) {
    return tw_amx_form_of(problem) == TW_AMX_CHANNEL && c->ahead >= problem->K;
}

const char *tw_amx_reject(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    tw_config rest = *c;
    tw_problem rows = *problem;
    rest.bit_matrix = rest.ahead = 0;
    /* A tile of 16 rows serves fewer. */
    if (problem->M) rows.M = tw_max(problem->M, TW_TILE_ROWS);
    if (c->bit_matrix < 0 || c->bit_matrix > 1) return "bit_matrix must be 0 or 1.";
    if (c->bit_matrix && tw_dtype_bits(problem->scheme.weight) == 8)
        return "bit_matrix unpacks codes, and those of 8 bits are not packed.";
    const char *why = reject_ahead(problem, c);
    if (!why) why = tw_amx_reject_tile(c, is_whole(problem, c));
    return why ? why : tw_gemm_reject(target, &rows, &rest);
}

/* Cycles of a tile's products and of what ends them.  The unit takes one register of x by one of
 * codes in 16, and loads beside that; vectors take their results from memory. */
static double tile_cycles(const tw_problem *problem, const tw_config *c) {
    double tiles = c->micro_m / 16.0 * (c->micro_n / 16.0), k = (double)problem->K;
    /* Fewer registers side by side: each load serves fewer products. */
    double product = c->micro_m * c->micro_n == 1024  ? 18
                     : c->micro_m * c->micro_n == 512 ? 24
                                                      : 34;
    tw_panel panel;
    tw_panel_init(problem, &panel);
    int value_zero = problem->scheme.zero_mode == TW_ZERO_VALUE;
    switch (tw_amx_form_of(problem)) {
    case TW_AMX_CHANNEL: return tiles * (k / 64 * product + k / (double)c->ahead * 40 + 40);
    case TW_AMX_SCALED: return tiles * k / 256 * (8 * product + 80 + value_zero * 120);
    default:
        return tiles * k / (double)panel.unit_k *
               ((double)tw_ceil_div(panel.unit_k, 64) * product + 45 + value_zero * 20);
    }
}

double tw_amx_cost(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    int64_t rows = tw_max(1, problem->M);
    double columns = (double)tw_ceil_div(problem->N, c->micro_n);
    double tiles = (double)tw_ceil_div(rows, c->micro_m), vectors = c->micro_n / 16.0;
    int bits = tw_dtype_bits(problem->scheme.weight);
    double unpack = bits == 8 ? 1 : bits & (bits - 1) ? 4 : 1.5;
    if (tw_amx_form_of(problem) == TW_AMX_SCALED) unpack += 8;
    double passes = (double)tw_ceil_div(rows, c->block_m);
    double unpacking = passes * columns * vectors * (double)problem->K / 4 * (unpack + 1.5) / 2;
    double store = 4 * c->micro_m * vectors;
    double cycles = columns * tiles * (tile_cycles(problem, c) + store) + unpacking;
    return tw_gemm_task_cost(target, problem, c, cycles / 3); /* 3 GHz */
}

void tw_amx_guess(const tw_target *target, const tw_problem *problem, tw_config *config) {
    /* So that strip, products and x stay in the L1 cache: of one group along K, whose products are
     * loaded and stored once a stretch and whose x passes by, 1024 (a sixteenth over 512). */
    enum { AHEAD = 256, AHEAD_CHANNEL = 1024, AHEAD_GROUPS = 4, BLOCK_ROWS = 256 };
    int64_t step = ahead_step(problem);
    tw_amx_form form = tw_amx_form_of(problem);
    int64_t most = form == TW_AMX_CHANNEL  ? tw_amx_even(problem->K, AHEAD_CHANNEL, step)
                   : form == TW_AMX_GROUPS ? tw_min(AHEAD, AHEAD_GROUPS * step)
                                           : AHEAD;
    double best = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            tw_config c = {.micro_m = tw_amx_space[0].values[i],
                           .micro_n = tw_amx_space[1].values[j],
                           .prefetch = 16};
            c.ahead = (int32_t)tw_max(step, tw_min(most, problem->K) / step * step);
            tw_gemm_set_blocks(target, problem,
                               (int64_t)BLOCK_ROWS * (is_whole(problem, &c) ? 2 : 1), &c);
            if (tw_amx_reject(target, problem, &c)) continue;
            double cost = tw_amx_cost(target, problem, &c);
            if (best > 0 && cost >= best) continue;
            best = cost;
            *config = c;
        }
}
