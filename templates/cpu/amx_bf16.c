/* cpu.amx_bf16: x and weights rounded to bf16, multiplied by the matrix unit, which adds them up in
 * f32: 16 rows by 16 columns by 32 of K at once.  Where a problem allows that rounding (fpmath), or
 * both are bf16 already.
 *
 * Weights are made as docs/numerics.md defines them, scale and zero included, before they are
 * rounded: nothing is left to do at a group's end, so that groups of 32 cost no more than one. */
#include "src/core/dtype.h"
#include "templates/cpu/amx_unit.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/dequant.h"
#include "templates/cpu/real_pack.h"

enum { PAIR = 2, WEIGHT_BYTES = 2, BODY_K = 16, STEP_K = TW_TILE_BYTES / WEIGHT_BYTES };

typedef struct amx_bf16 {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_amx_unit unit;
    tw_dequant dequant;
    tw_val scale[TW_AMX_VECTORS]; /* of the group that is unpacked; none: weights have theirs */
} amx_bf16;

static amx_bf16 *of(tw_gemm *t) { return (amx_bf16 *)t; }

static void begin(tw_gemm *t) {
    tw_amx_begin(t, &of(t)->unit);
    tw_dequant_begin(&of(t)->dequant, t);
}

static void end(tw_gemm *t) { tw_amx_end(t, &of(t)->unit); }

/* ---- unpacking ---- */

static void begin_unpacking(tw_gemm *t) {
    const tw_scheme *s = &t->problem->scheme;
    bool scaled = tw_scheme_plain(s) || s->zero_mode == TW_ZERO_VALUE;
    tw_dequant_group(&of(t)->dequant, t);
    for (int v = 0; v < t->nv && !scaled; v++) of(t)->scale[v] = tw_gemm_scale(t, v);
}

/* Plain bf16 weights of two columns, a pair in each lane. */
static tw_val stored_pair(tw_gemm *t, int v, int64_t k) {
    int64_t offset = k / t->panel.chunk_k * t->panel.chunk_bytes;
    return tw_gemm_load_codes(t, v, tw_i32(t->lanes), offset);
}

static tw_val weights(tw_gemm *t, int v, int64_t k) {
    tw_val w = tw_dequant_column(&of(t)->dequant, t, v, k), scale = of(t)->scale[v];
    return scale.p ? tw_fmul(t->g, w, scale) : w;
}

/* Columns k and k + 1: rounded side by side, then brought together. */
static tw_val rounded_pair(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    int words = PAIR * t->lanes, mask[64];
    tw_val args[] = {weights(t, v, k + 1), weights(t, v, k)};
    tw_val halves = tw_intrinsic(g, "llvm.x86.avx512bf16.cvtne2ps2bf16.512",
                                 tw_ty_of(TW_TY_BF16, words), args, 2);
    for (int i = 0; i < words; i++) mask[i] = i / 2 + i % 2 * t->lanes;
    halves = tw_bitcast(g, halves, tw_i16(words));
    return tw_bitcast(g, tw_shuffle(g, halves, halves, mask, words), tw_i32(t->lanes));
}

static void unpack_body(tw_gemm *t, tw_val strip) {
    bool stored = t->problem->scheme.weight == TW_BF16;
    for (int64_t k = 0; k < t->body_k; k += PAIR)
        for (int v = 0; v < t->nv; v++) {
            tw_val pair = stored ? stored_pair(t, v, k) : rounded_pair(t, v, k);
            tw_store(t->g, pair, tw_at(t->g, strip, tw_gemm_strip_at(t, v, k)), t->lanes * 4);
        }
}

static void unpack_stretch(tw_gemm *t) {
    const tw_amx_stretch *s = &of(t)->unit.stretch;
    if (tw_amx_by_bodies(t))
        tw_amx_unpack_bodies(t, s);
    else
        tw_gemm_unpack_units(t, s->first, s->end);
}

/* ---- a tile ---- */

static void emit_tile(tw_gemm *t) {
    const tw_amx_unit *unit = &of(t)->unit;
    const tw_amx_stretch *s = &unit->stretch;
    tw_ir *g = t->g;
    tw_if last;
    tw_val each = tw_k64(g, WEIGHT_BYTES * (tw_amx_by_bodies(t) ? t->body_k : t->panel.unit_k));
    tw_val from = tw_mul(g, s->first, each), to = tw_mul(g, s->end, each);
    /* The last group may be short. */
    tw_val all = tw_k64(g, WEIGHT_BYTES * t->panel.padded_k);
    to = tw_select(g, tw_compare(g, TW_IR_SLT, to, all), to, all);
    tw_amx_add_stretch(t, unit, tw_offset(g, t->tile_x, from), tw_sub(g, to, from));
    tw_if_begin(g, &last, s->is_last);
    tw_gemm_store_tile(t);
    tw_if_end(g, &last);
}

static void column(tw_gemm *t, tw_val m0) { tw_amx_column(t, &of(t)->unit, m0); }

/* ---- problems and configs ---- */

static const tw_axis space[] = {
    {TW_TUNABLE_micro_m, {16, 32}, 2},
    {TW_TUNABLE_micro_n, {16, 32}, 2},
    {TW_TUNABLE_block_m, {16, 32, 64, 128, 256, 512}, 6},
    {TW_TUNABLE_block_n, {32, 64, 128, 256, 512}, 5},
    {TW_TUNABLE_prefetch, {0, 16, 64}, 3},
    {TW_TUNABLE_ahead, {128, 256, 288, 384, 512, 576, 640, 1024}, 8},
};

/* A strip's weights, of the stack that tw_linear_forward promises. */
_Static_assert(TW_STRIP_BYTES == 20480 * WEIGHT_BYTES, "as the sentences below say");
_Static_assert(TW_STRIP_BYTES == 1280 * TW_AMX_COLUMNS * WEIGHT_BYTES,
               "as the sentences below say");

/* Columns of K that the unit takes at once, 32 or 16; 0: neither fits. */
static int64_t step_k(const tw_panel *p) {
    for (int64_t step = STEP_K; step >= STEP_K / 2; step /= 2) {
        bool groups = p->units == 1 || p->unit_k % step == 0 || step % p->unit_k == 0;
        if (p->padded_k % step == 0 && groups) return step;
    }
    return 0;
}

/* Columns of K that a stretch is a multiple of. */
static int64_t ahead_step(const tw_panel *p) {
    return p->units == 1 ? STEP_K : tw_max(step_k(p), p->unit_k);
}

static const char *reject_problem(const tw_target *target, const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    bool exact = problem->x == TW_BF16 && s->weight == TW_BF16;
    if (!tw_target_has(target, TW_EXTRA_AMX)) return "amx_bf16 needs the target's AMX.";
    if (s->fpmath != TW_FPMATH_BF16 && !exact)
        return "amx_bf16 rounds x and weights to bf16, which fpmath=bf16 allows.";
    const char *why = tw_layout_panel64.reject(problem);
    if (why) return why;
    tw_panel p;
    tw_panel_init(problem, &p);
    if (p.unit_groups > 1 || !step_k(&p))
        return "amx_bf16 takes 16 columns of K at once: groups that are a multiple of 16 or divide "
               "it, of at least a chunk of panel64, and with its padding K is one.";
    if (ahead_step(&p) * TW_AMX_COLUMNS * WEIGHT_BYTES > TW_STRIP_BYTES)
        return "amx_bf16 unpacks whole groups along K, of at most 1280.";
    return NULL;
}

static const char *reject(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    tw_config rest = *c;
    tw_problem rows = *problem;
    tw_panel panel;
    tw_panel_init(problem, &panel);
    rest.ahead = 0;
    /* A tile of 16 rows serves fewer. */
    if (problem->M) rows.M = tw_max(problem->M, TW_TILE_ROWS);
    if (c->ahead <= 0 || c->ahead % ahead_step(&panel))
        return "ahead must be a multiple of the group along K, of 32 for one group.";
    if (c->ahead >= problem->K + ahead_step(&panel))
        return "ahead exceeds the columns of K there are.";
    if ((int64_t)c->ahead * c->micro_n * WEIGHT_BYTES > TW_STRIP_BYTES)
        return "ahead times micro_n must be at most 20480 weights.";
    const char *why = tw_amx_reject_tile(c, c->ahead >= panel.padded_k);
    return why ? why : tw_gemm_reject(target, &rows, &rest);
}

/* The unit takes a register of x by one of weights in 16 cycles, and loads beside that: with fewer
 * registers side by side each load serves fewer products. */
static double cost(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    int64_t rows = tw_max(1, problem->M), outputs = (int64_t)c->micro_m * c->micro_n;
    double k = (double)problem->K, vectors = c->micro_n / 16.0, tiles = (double)outputs / 256;
    double product = outputs == 1024 ? 18 : outputs == 512 ? 24 : 34;
    double each =
        tiles * (k / STEP_K * product + k / (double)c->ahead * 40 + 40) + 4 * c->micro_m * vectors;
    double columns = (double)tw_ceil_div(problem->N, c->micro_n);
    double passes = (double)tw_ceil_div(rows, c->block_m);
    int bits = tw_dtype_bits(problem->scheme.weight);
    double unpack = bits & (bits - 1) ? 9
                    : bits == 16      ? 3
                                      : 6; /* instructions a vector of weights */
    double unpacking = passes * columns * vectors * k * unpack / 2;
    double cycles = columns * (double)tw_ceil_div(rows, c->micro_m) * each + unpacking;
    return tw_gemm_task_cost(target, problem, c, cycles / 3); /* 3 GHz */
}

static void guess(const tw_target *target, const tw_problem *problem, tw_config *config) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    double best = 0;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            tw_config c = {
                .micro_m = space[0].values[i], .micro_n = space[1].values[j], .prefetch = 16};
            int64_t most = TW_STRIP_BYTES / (c.micro_n * WEIGHT_BYTES);
            c.ahead = (int32_t)tw_amx_even(panel.padded_k, most, ahead_step(&panel));
            tw_gemm_set_blocks(target, problem, c.ahead < panel.padded_k ? 256 : 512, &c);
            if (reject(target, problem, &c)) continue;
            double estimate = cost(target, problem, &c);
            if (best > 0 && estimate >= best) continue;
            best = estimate;
            *config = c;
        }
}

/* ---- the row of templates.def ---- */

static void geometry(const tw_problem *problem, tw_geometry *out) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    out->xq_stride = (tw_ceil_div(panel.padded_k * WEIGHT_BYTES, 64) | 1) * 64;
    out->xmeta_stride = 64; /* no use for it */
}

/* In a product of the unit two sums, each of half of K's pairs, and both into the total. */
static int64_t chain(const tw_problem *problem) {
    tw_panel p;
    tw_panel_init(problem, &p);
    int64_t step = step_k(&p);
    return p.padded_k / step + step / PAIR + 2;
}

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {.begin = begin,
                                    .end = end,
                                    .column = column,
                                    .begin_unpacking = begin_unpacking,
                                    .unpack_body = unpack_body};
    amx_bf16 self = {0};
    tw_gemm *t = &self.t;
    tw_gemm_init(t, g, problem, config, &ops, BODY_K, TW_DEQUANT_FOLD, false);
    geometry(problem, &t->geometry);
    t->x_bytes = WEIGHT_BYTES;
    t->strip_k = PAIR;
    t->strip_bare = t->holds = true;
    t->carried = 0;
    t->strip_bytes = tw_gemm_strip_at(t, 0, config->ahead);
    bool bodies = tw_amx_by_bodies(t);
    self.unit = (tw_amx_unit){.dot = "llvm.x86.tdpbf16ps",
                              .rows = config->micro_m,
                              .bytes = step_k(&t->panel) * WEIGHT_BYTES,
                              .x_once = true,
                              .whole = config->ahead >= t->panel.padded_k,
                              .step = config->ahead / (bodies ? t->body_k : t->panel.unit_k),
                              .unpack = unpack_stretch,
                              .multiply = emit_tile};
    tw_real_emit_pack(g, problem, TW_BF16, t->geometry.xq_stride, NULL);
    tw_gemm_emit(t);
    return TW_OK;
}

const tw_template tw_template_amx_bf16 = {
    "cpu.amx_bf16", 5,    &tw_layout_panel64, space, 6,    reject_problem, reject,
    guess,          cost, geometry,           chain, emit, TW_FPMATH_BF16};
