/* cpu.amx_gemm: int_gemm's product by a matrix unit (AMX): x quantized to 8 bits as there, sums
 * exact in i32, 16 rows by 16 columns by 64 of K at once.
 *
 *   for stretch of K: codes of its columns into the strip, as bytes
 *     for tile of rows: products of the stretch or of each group, from the unit to memory;
 *                       then by vectors, a few rows at a time, what int_gemm does at a group's end
 *
 * The strip is as the unit wants its second operand: four consecutive k of 16 columns a line.  What
 * ends a stretch's products depends on the scales: see tw_amx_form. */
#include "templates/cpu/amx_gemm.h"

#include "src/core/dtype.h"
#include "templates/cpu/amx_unit.h"

/* Rows that vectors end at a time: their totals and sums stay in registers. */
enum { END_ROWS = 8 };

typedef struct amx_gemm {
    tw_int_gemm i; /* first: hooks get a pointer to it */
    tw_amx_unit unit;
    tw_amx_form form;
    int64_t planes;  /* of the strip: with scaled codes, their low bytes and then their high ones */
    tw_val products; /* a tile's, [group of the stretch, or plane][row][vector] */
    tw_val scales[TW_AMX_VECTORS]; /* of the unit that is unpacked, twice in a lane */
    tw_val pairs;                  /* where the zeros of the run are kept */
} amx_gemm;

static amx_gemm *of(tw_gemm *t) { return (amx_gemm *)t; }

static const char *dot_of(bool negatives) {
    return negatives ? "llvm.x86.tdpbssd" : "llvm.x86.tdpbsud";
}

/* Whether a run has value zeros, to be multiplied by sums of x. */
static bool has_pairs(const tw_gemm *t) {
    return t->strip_scaled && t->problem->scheme.zero_mode == TW_ZERO_VALUE;
}

static void begin(tw_gemm *t) {
    amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_amx_begin(t, &self->unit);
    int64_t tiles = self->form == TW_AMX_GROUPS ? t->ahead_units : self->planes;
    int64_t bytes = tiles * self->unit.rows * t->nv * t->lanes * 4;
    if (self->form != TW_AMX_CHANNEL) self->products = tw_local(g, tw_i8((int)bytes));
    if (has_pairs(t))
        self->pairs = tw_local(g, tw_i8((int)tw_gemm_pair_at(t, 0, t->panel.run_units)));
    tw_int_begin(t);
}

static void end(tw_gemm *t) { tw_amx_end(t, &of(t)->unit); }

/* ---- unpacking ---- */

/* Codes as their values, but for code zeros. */
static tw_val as_values(tw_gemm *t, tw_val four) {
    tw_ty bytes = tw_i8(4 * t->lanes);
    if (!of(t)->i.negatives) return four;
    tw_val zero = tw_const_int(t->g, bytes, tw_int_constant_zero(t->problem));
    return tw_bitcast(t->g, tw_sub(t->g, tw_bitcast(t->g, four, bytes), zero), four.ty);
}

static void begin_unpacking(tw_gemm *t) {
    for (int v = 0; v < t->nv && t->strip_scaled; v++) {
        tw_val scale = tw_gemm_scale_words(t, v);
        of(t)->scales[v] = tw_or(t->g, scale, tw_shl(t->g, scale, 16));
    }
}

/* Codes times the codes of their scales are 16 bits: their low bytes, and their high ones. */
static void stash_scaled(tw_gemm *t, int v, tw_val four, tw_val at) {
    tw_ir *g = t->g;
    tw_ty words = tw_i16(2 * t->lanes);
    tw_val low = tw_const_int(g, words, 255), high = tw_const_int(g, words, 0xff00), parts[2];
    tw_val scale = tw_bitcast(g, of(t)->scales[v], words);
    tw_val zero = tw_const_int(g, words, tw_int_constant_zero(t->problem));
    four = tw_bitcast(g, four, words);
    for (int odd = 0; odd < 2; odd++) {
        parts[odd] = odd ? tw_lshr(g, four, 8) : tw_and(g, four, low);
        if (tw_int_constant_zero(t->problem)) parts[odd] = tw_sub(g, parts[odd], zero);
        parts[odd] = tw_mul(g, parts[odd], scale);
    }
    tw_val lows = tw_or(g, tw_and(g, parts[0], low), tw_shl(g, parts[1], 8));
    tw_val highs = tw_or(g, tw_lshr(g, parts[0], 8), tw_and(g, parts[1], high));
    tw_store(g, lows, at, t->lanes * 4);
    tw_store(g, highs, tw_at(g, at, tw_gemm_strip_at(t, 0, TW_FACTOR_K)), t->lanes * 4);
}

/* The run's zeros, once for all rows. */
static void keep_pairs(tw_gemm *t) {
    t->pairs = (tw_val){0};
    for (int u = 0; u < t->panel.run_units; u += 2)
        for (int v = 0; v < t->nv; v++)
            tw_store(t->g, tw_gemm_zero_pairs(t, v, u),
                     tw_at(t->g, of(t)->pairs, tw_gemm_pair_at(t, v, u)), t->lanes * 4);
    t->pairs = of(t)->pairs;
}

static void stash(tw_gemm *t, int v, tw_val four, tw_val at) {
    if (t->strip_scaled)
        stash_scaled(t, v, four, at);
    else
        tw_store(t->g, as_values(t, four), at, t->lanes * 4);
}

static tw_val add_codes(tw_gemm *t, tw_val sum, tw_val four) {
    tw_val ones = tw_const_int(t->g, sum.ty, 0x01010101);
    return of(t)->i.negatives ? tw_int_dpbusd(t->g, sum, ones, as_values(t, four))
                              : tw_int_dpbusd(t->g, sum, four, ones);
}

/* ---- what ends them ---- */

/* Rows [r, r + END_ROWS) of the tile: products at `from`, totals at `to`. */
typedef void rows_body(tw_gemm *t, tw_val from, tw_val to);
static void for_rows(tw_gemm *t, tw_val from, rows_body *body) {
    tw_ir *g = t->g;
    tw_loop loop;
    tw_val meta = t->tile_meta;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), tw_k64(g, of(t)->unit.rows), END_ROWS, NULL, 0);
    tw_val at = tw_mul(g, loop.i, tw_k64(g, (int64_t)t->nv * t->lanes * 4));
    t->tile_meta = tw_offset(g, meta, tw_mul(g, loop.i, tw_k64(g, t->geometry.xmeta_stride)));
    body(t, tw_offset(g, from, at), tw_offset(g, t->tile, at));
    tw_loop_end(g, &loop, NULL);
    t->tile_meta = meta;
}

static void load_products(tw_gemm *t, tw_val from, tw_val *out) {
    tw_gemm_load_slots(t, from, out);
    for (int i = 0; i < t->rows * t->nv; i++) out[i] = tw_bitcast(t->g, out[i], tw_i32(t->lanes));
}

static void clear_rows(tw_gemm *t, tw_val from, tw_val to) {
    (void)from;
    tw_val zero[TW_TILE];
    for (int i = 0; i < t->rows * t->nv; i++) zero[i] = tw_const_f32(t->g, t->lanes, 0);
    tw_gemm_store_slots(t, to, zero);
}

/* Products of a tile, in bytes. */
static int64_t tile_bytes(const tw_gemm *t) {
    return (int64_t)of((tw_gemm *)t)->unit.rows * t->nv * t->lanes * 4;
}

/* Group `unit` of the stretch; where its products are, of those that begin at `from`. */
static tw_val enter_group(tw_gemm *t, tw_val unit, tw_val from) {
    tw_ir *g = t->g;
    tw_val inside = tw_sub(g, unit, of(t)->unit.stretch.first);
    t->unit_strip = tw_gemm_strip_unit(t, inside);
    t->meta = tw_gemm_unit_meta(t, unit);
    return tw_offset(g, from, tw_mul(g, inside, tw_k64(g, tile_bytes(t))));
}

/* All groups' of the stretch: totals stay in registers. */
static void fold_rows(tw_gemm *t, tw_val from, tw_val to) {
    tw_val acc[TW_ACCUMULATORS] = {{0}}, start[TW_ACCUMULATORS] = {{0}}, total[TW_TILE] = {{0}};
    int count = t->rows * t->nv;
    tw_loop units;
    tw_gemm_load_slots(t, to, total);
    tw_loop_begin_nonempty(t->g, &units, of(t)->unit.stretch.first, of(t)->unit.stretch.end, 1,
                           total, count);
    load_products(t, enter_group(t, units.i, from), acc);
    if (t->problem->scheme.zero_mode == TW_ZERO_CODE) {
        tw_int_init(t, start);
        for (int i = 0; i < count; i++) acc[i] = tw_add(t->g, acc[i], start[i]);
    }
    for (int i = 0; i < count; i++) total[i] = units.carried[i];
    tw_int_fold(t, acc, total);
    tw_loop_end(t->g, &units, total);
    tw_gemm_store_slots(t, to, units.carried);
}

/* A run's, of scaled codes. */
static void scale_rows(tw_gemm *t, tw_val from, tw_val to) {
    tw_ir *g = t->g;
    tw_val low[TW_TILE] = {{0}}, high[TW_TILE] = {{0}}, total[TW_TILE] = {{0}};
    load_products(t, from, low);
    load_products(t, tw_at(g, from, tile_bytes(t)), high);
    for (int i = 0; i < t->rows * t->nv; i++)
        low[i] =
            tw_cast(g, TW_IR_SITOFP, tw_add(g, low[i], tw_shl(g, high[i], 8)), tw_f32(t->lanes));
    tw_gemm_load_slots(t, to, total);
    tw_int_scale_sums(t, low, total);
    tw_gemm_store_slots(t, to, total);
}

/* All of K's, where totals are the products until then. */
static void convert_rows(tw_gemm *t, tw_val from, tw_val to) {
    (void)from;
    tw_val acc[TW_ACCUMULATORS] = {{0}}, total[TW_TILE] = {{0}};
    load_products(t, to, acc);
    tw_int_fold(t, acc, total);
    tw_gemm_store_slots(t, to, total);
}

/* ---- a column of tiles ---- */

static void tile_of_groups(tw_gemm *t) {
    amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_loop units;
    tw_loop_begin_nonempty(g, &units, self->unit.stretch.first, self->unit.stretch.end, 1, NULL, 0);
    tw_val to = enter_group(t, units.i, self->products);
    tw_val length = tw_k64(g, t->panel.unit_k);
    tw_val x = tw_offset(g, t->tile_x, tw_mul(g, units.i, length));
    tw_amx_zero_products(t, &self->unit);
    tw_amx_multiply(t, &self->unit, x, t->unit_strip, length, t->panel.unit_k);
    tw_amx_store_products(t, &self->unit, to);
    tw_loop_end(g, &units, NULL);
    for_rows(t, self->products, fold_rows);
}

/* The high bytes are signed. */
static void tile_of_run(tw_gemm *t) {
    amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_val x =
        tw_offset(g, t->tile_x, tw_mul(g, self->unit.stretch.first, tw_k64(g, t->panel.unit_k)));
    for (int plane = 0; plane < self->planes; plane++) {
        tw_val to = tw_at(g, self->products, plane * tile_bytes(t));
        tw_val w = tw_at(g, t->strip, plane * tw_gemm_strip_at(t, 0, TW_FACTOR_K));
        self->unit.dot = dot_of(plane == 1);
        tw_amx_zero_products(t, &self->unit);
        tw_amx_multiply(t, &self->unit, x, w, tw_k64(g, TW_FACTOR_K), TW_FACTOR_K);
        tw_amx_store_products(t, &self->unit, to);
    }
    t->meta = tw_gemm_unit_meta(t, self->unit.stretch.first);
    for_rows(t, self->products, scale_rows);
}

static void tile_of_channel(tw_gemm *t) {
    const tw_amx_unit *unit = &of(t)->unit;
    const tw_amx_stretch *s = &unit->stretch;
    tw_val body = tw_k64(t->g, t->body_k);
    tw_val x = tw_offset(t->g, t->tile_x, tw_mul(t->g, s->first, body));
    tw_amx_add_stretch(t, unit, x, tw_mul(t->g, tw_sub(t->g, s->end, s->first), body));
}

static void emit_tile(tw_gemm *t) {
    const amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_if first, last;
    if (self->form == TW_AMX_CHANNEL) {
        tile_of_channel(t);
    } else {
        tw_if_begin(g, &first, self->unit.stretch.is_first);
        for_rows(t, self->products, clear_rows);
        tw_if_end(g, &first);
        (self->form == TW_AMX_SCALED ? tile_of_run : tile_of_groups)(t);
    }
    tw_if_begin(g, &last, self->unit.stretch.is_last);
    if (self->form == TW_AMX_CHANNEL) for_rows(t, t->tile, convert_rows);
    t->rows = self->unit.rows;
    tw_gemm_store_tile(t);
    t->rows = END_ROWS;
    tw_if_end(g, &last);
}

static void unpack_stretch(tw_gemm *t) {
    const tw_amx_stretch *s = &of(t)->unit.stretch;
    if (of(t)->form == TW_AMX_CHANNEL) {
        tw_amx_unpack_bodies(t, s);
        return;
    }
    tw_gemm_unpack_units(t, s->first, s->end);
    if (t->strip_scaled) tw_gemm_enter_run(t, s->first);
    if (has_pairs(t)) keep_pairs(t);
}

static void column(tw_gemm *t, tw_val m0) { tw_amx_column(t, &of(t)->unit, m0); }

/* ---- the row of templates.def ---- */

static void geometry(const tw_problem *problem, tw_geometry *out) {
    tw_int_geometry_of(problem, TW_INT_VALUES, out);
}

static tw_status emit(tw_ir *g, const tw_problem *problem, const tw_config *config) {
    static const tw_gemm_ops ops = {.begin = begin,
                                    .end = end,
                                    .column = column,
                                    .unpack = tw_int_unpack,
                                    .begin_unpacking = begin_unpacking,
                                    .stash = stash,
                                    .add_codes = add_codes,
                                    .finish = tw_int_finish};
    amx_gemm self = {.form = tw_amx_form_of(problem), .planes = 1};
    tw_gemm *t = &self.i.t;
    tw_int_gemm_init(&self.i, g, problem, config, &ops, TW_TILE_BYTES, TW_INT_VALUES);
    bool channel = self.form == TW_AMX_CHANNEL, groups = self.form == TW_AMX_GROUPS;
    bool code_zeros = problem->scheme.zero_mode == TW_ZERO_CODE;
    self.i.negatives = tw_int_constant_zero(problem) != 0 && !code_zeros;
    self.unit =
        (tw_amx_unit){.dot = dot_of(self.i.negatives),
                      .rows = config->micro_m,
                      .bytes = groups ? tw_min(TW_TILE_BYTES, t->panel.unit_k) : TW_TILE_BYTES,
                      .x_once = channel,
                      .whole = channel && config->ahead >= problem->K,
                      .step = channel ? config->ahead / t->body_k : t->ahead_units,
                      .unpack = unpack_stretch,
                      .multiply = emit_tile};
    t->rows = t->acc_rows = END_ROWS;
    t->holds = true; /* codes are unpacked where nothing else is in registers */
    t->carried = 0;
    t->word_sums = false;
    if (channel) t->strip_bytes = tw_gemm_strip_at(t, 0, config->ahead);
    if (self.form == TW_AMX_SCALED) {
        t->strip_scaled = true;
        self.planes = 2;
        t->strip_bytes = 2 * tw_gemm_strip_at(t, 0, TW_FACTOR_K);
    }
    tw_int_emit_pack(g, problem, TW_INT_VALUES, 0);
    tw_gemm_emit(t);
    return TW_OK;
}

const tw_template tw_template_amx_gemm = {"cpu.amx_gemm",     6,
                                          &tw_layout_panel64, tw_amx_space,
                                          TW_AMX_AXES,        tw_amx_reject_problem,
                                          tw_amx_reject,      tw_amx_guess,
                                          tw_amx_cost,        geometry,
                                          tw_int_chain,       emit,
                                          TW_FPMATH_STRICT};
