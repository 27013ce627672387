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

#include <string.h>

#include "src/core/dtype.h"

/* Rows that vectors end at a time: their totals and sums stay in registers. */
enum { END_ROWS = 8 };
/* Registers of the unit: of products, [rows / 16][vector]; of x; of codes. */
enum { TILE_C = 0, TILE_X = 4, TILE_W = 6, TILES = 8 };

/* Units, or bodies of the only one, [first, end) of count. */
typedef struct stretch {
    tw_val first, end;
    tw_val is_first, is_last;
} stretch;

typedef struct amx_gemm {
    tw_int_gemm i; /* first: hooks get a pointer to it */
    tw_amx_form form;
    int tile_rows;
    int64_t tile_k;  /* of K at once: 64, or a group that is shorter */
    int64_t planes;  /* of the strip: with scaled codes, their low bytes and then their high ones */
    stretch s;       /* at hand */
    tw_val host;     /* how the unit was configured before */
    tw_val products; /* a tile's, [group of the stretch, or plane][row][vector] */
    tw_val scales[TW_AMX_VECTORS]; /* of the unit that is unpacked, twice in a lane */
    tw_val pairs;                  /* where the zeros of the run are kept */
} amx_gemm;

static amx_gemm *of(tw_gemm *t) { return (amx_gemm *)t; }

/* Whether a run has value zeros, to be multiplied by sums of x. */
static bool has_pairs(const tw_gemm *t) {
    return t->strip_scaled && t->problem->scheme.zero_mode == TW_ZERO_VALUE;
}

/* ---- the unit's instructions ---- */

static const tw_ty nothing = {TW_TY_VOID, 0};

static tw_val tile(tw_gemm *t, int number) { return tw_const_int(t->g, tw_i8(0), number); }

/* Rows of the tile are `stride` bytes apart. */
static void load_tile(tw_gemm *t, int number, tw_val from, int64_t stride) {
    tw_val args[] = {tile(t, number), from, tw_k64(t->g, stride)};
    tw_intrinsic(t->g, "llvm.x86.tileloadd64", nothing, args, 3);
}

static void store_tile(tw_gemm *t, int number, tw_val to, int64_t stride) {
    tw_val args[] = {tile(t, number), to, tw_k64(t->g, stride)};
    tw_intrinsic(t->g, "llvm.x86.tilestored64", nothing, args, 3);
}

static void zero_tile(tw_gemm *t, int number) {
    tw_val args[] = {tile(t, number)};
    tw_intrinsic(t->g, "llvm.x86.tilezero", nothing, args, 1);
}

static void dot_tiles(tw_gemm *t, bool negatives, int c, int x, int w) {
    const char *name = negatives ? "llvm.x86.tdpbssd" : "llvm.x86.tdpbsud";
    tw_val args[] = {tile(t, c), tile(t, x), tile(t, w)};
    tw_intrinsic(t->g, name, nothing, args, 3);
}

/* Shapes of the tiles, by the table that ldtilecfg reads: bytes of a row from 16 on, rows from 48
 * on. */
static void begin(tw_gemm *t) {
    amx_gemm *self = of(t);
    tw_ir *g = t->g;
    uint8_t table[64] = {1};
    for (int i = 0; i < TILES; i++) {
        bool x = i >= TILE_X && i < TILE_W, w = i >= TILE_W;
        table[16 + 2 * i] = (uint8_t)(x ? self->tile_k : 64);
        table[48 + i] = (uint8_t)(w ? self->tile_k / 4 : TW_AMX_ROWS);
    }
    tw_val config = tw_local(g, tw_i8(sizeof table));
    for (size_t at = 0; at < sizeof table; at += 8) {
        int64_t eight;
        memcpy(&eight, table + at, 8);
        tw_store(g, tw_k64(g, eight), tw_at(g, config, (int64_t)at), 8);
    }
    self->host = tw_local(g, tw_i8(sizeof table));
    tw_intrinsic(g, "llvm.x86.sttilecfg", nothing, &self->host, 1);
    tw_intrinsic(g, "llvm.x86.ldtilecfg", nothing, &config, 1);
    int64_t tiles = self->form == TW_AMX_GROUPS ? t->ahead_units : self->planes;
    int64_t bytes = tiles * self->tile_rows * t->nv * t->lanes * 4;
    if (self->form != TW_AMX_CHANNEL) self->products = tw_local(g, tw_i8((int)bytes));
    if (has_pairs(t))
        self->pairs = tw_local(g, tw_i8((int)tw_gemm_pair_at(t, 0, t->panel.run_units)));
    tw_int_begin(t);
}

/* A host may have configured the unit once for all (ggml does); the empty table that it has
 * otherwise gives it back, without which a thread costs more to switch. */
static void end(tw_gemm *t) { tw_intrinsic(t->g, "llvm.x86.ldtilecfg", nothing, &of(t)->host, 1); }

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

/* ---- products ---- */

/* For each of the unit's registers of products: its place among a tile's vectors. */
typedef void product_body(tw_gemm *t, int number, tw_val at, int64_t stride);
static void for_products(tw_gemm *t, tw_val at, product_body *body) {
    int64_t stride = (int64_t)t->nv * t->lanes * 4;
    for (int row = 0; row < of(t)->tile_rows; row += TW_AMX_ROWS)
        for (int v = 0; v < t->nv; v++)
            body(t, TILE_C + row / TW_AMX_ROWS * 2 + v,
                 tw_at(t->g, at, row * stride + (int64_t)v * t->lanes * 4), stride);
}

static void begin_with_zero(tw_gemm *t, int number, tw_val at, int64_t stride) {
    (void)at, (void)stride;
    zero_tile(t, number);
}

/* One step of K.  Loads lie between the products that do not wait for them. */
static void multiply_step(tw_gemm *t, bool negatives, tw_val x, tw_val w) {
    const amx_gemm *self = of(t);
    int64_t w_stride = tw_gemm_strip_at(t, 0, 4), x_stride = t->geometry.xq_stride;
    for (int row = 0; row < self->tile_rows; row += TW_AMX_ROWS) {
        int i = row / TW_AMX_ROWS;
        load_tile(t, TILE_X + i, tw_at(t->g, x, row * x_stride), x_stride);
        for (int v = 0; v < t->nv; v++) {
            if (!i) load_tile(t, TILE_W + v, tw_at(t->g, w, tw_gemm_strip_at(t, v, 0)), w_stride);
            dot_tiles(t, negatives, TILE_C + 2 * i + v, TILE_X + i, TILE_W + v);
        }
    }
}

/* Adds the products of `length` columns of K.  known: the same where it is known here, else 0; few
 * are unrolled. */
static void multiply(tw_gemm *t, bool negatives, tw_val x, tw_val w, tw_val length, int64_t known) {
    enum { UNROLLED = 4 };
    tw_ir *g = t->g;
    int64_t step = of(t)->tile_k;
    if (known && known <= UNROLLED * step) {
        for (int64_t k = 0; k < known; k += step)
            multiply_step(t, negatives, tw_at(g, x, k), tw_at(g, w, tw_gemm_strip_at(t, 0, k)));
        return;
    }
    tw_loop loop;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), length, step, NULL, 0);
    tw_val at = tw_mul(g, loop.i, tw_k64(g, tw_gemm_strip_at(t, 0, 4) / 4));
    multiply_step(t, negatives, tw_offset(g, x, loop.i), tw_offset(g, w, at));
    tw_loop_end(g, &loop, NULL);
}

/* ---- what ends them ---- */

/* Rows [r, r + END_ROWS) of the tile: products at `from`, totals at `to`. */
typedef void rows_body(tw_gemm *t, tw_val from, tw_val to);
static void for_rows(tw_gemm *t, tw_val from, rows_body *body) {
    tw_ir *g = t->g;
    tw_loop loop;
    tw_val meta = t->tile_meta;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), tw_k64(g, of(t)->tile_rows), END_ROWS, NULL, 0);
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
    return (int64_t)of((tw_gemm *)t)->tile_rows * t->nv * t->lanes * 4;
}

/* Group `unit` of the stretch; where its products are, of those that begin at `from`. */
static tw_val enter_group(tw_gemm *t, tw_val unit, tw_val from) {
    tw_ir *g = t->g;
    tw_val inside = tw_sub(g, unit, of(t)->s.first);
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
    tw_loop_begin_nonempty(t->g, &units, of(t)->s.first, of(t)->s.end, 1, total, count);
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
    tw_loop_begin_nonempty(g, &units, self->s.first, self->s.end, 1, NULL, 0);
    tw_val to = enter_group(t, units.i, self->products);
    tw_val length = tw_k64(g, t->panel.unit_k);
    tw_val x = tw_offset(g, t->tile_x, tw_mul(g, units.i, length));
    for_products(t, to, begin_with_zero);
    multiply(t, self->i.negatives, x, t->unit_strip, length, t->panel.unit_k);
    for_products(t, to, store_tile);
    tw_loop_end(g, &units, NULL);
    for_rows(t, self->products, fold_rows);
}

/* The high bytes are signed. */
static void tile_of_run(tw_gemm *t) {
    const amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_val x = tw_offset(g, t->tile_x, tw_mul(g, self->s.first, tw_k64(g, t->panel.unit_k)));
    for (int plane = 0; plane < self->planes; plane++) {
        tw_val to = tw_at(g, self->products, plane * tile_bytes(t));
        tw_val w = tw_at(g, t->strip, plane * tw_gemm_strip_at(t, 0, TW_FACTOR_K));
        for_products(t, to, begin_with_zero);
        multiply(t, plane == 1, x, w, tw_k64(g, TW_FACTOR_K), TW_FACTOR_K);
        for_products(t, to, store_tile);
    }
    t->meta = tw_gemm_unit_meta(t, self->s.first);
    for_rows(t, self->products, scale_rows);
}

static void tile_of_channel(tw_gemm *t) {
    const stretch *s = &of(t)->s;
    tw_ir *g = t->g;
    tw_if first;
    tw_val body = tw_k64(g, t->body_k);
    tw_val x = tw_offset(g, t->tile_x, tw_mul(g, s->first, body));
    tw_if_begin(g, &first, s->is_first);
    for_products(t, t->tile, begin_with_zero);
    tw_if_else(g, &first);
    for_products(t, t->tile, load_tile);
    tw_if_end(g, &first);
    multiply(t, of(t)->i.negatives, x, t->strip, tw_mul(g, tw_sub(g, s->end, s->first), body), 0);
    for_products(t, t->tile, store_tile);
}

static void emit_tile(tw_gemm *t) {
    const amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_if first, last;
    if (self->form == TW_AMX_CHANNEL) {
        tile_of_channel(t);
    } else {
        tw_if_begin(g, &first, self->s.is_first);
        for_rows(t, self->products, clear_rows);
        tw_if_end(g, &first);
        (self->form == TW_AMX_SCALED ? tile_of_run : tile_of_groups)(t);
    }
    tw_if_begin(g, &last, self->s.is_last);
    if (self->form == TW_AMX_CHANNEL) for_rows(t, t->tile, convert_rows);
    t->rows = self->tile_rows;
    tw_gemm_store_tile(t);
    t->rows = END_ROWS;
    tw_if_end(g, &last);
}

static void unpack_stretch(tw_gemm *t) {
    tw_ir *g = t->g;
    const stretch *s = &of(t)->s;
    if (of(t)->form != TW_AMX_CHANNEL) {
        tw_gemm_unpack_units(t, s->first, s->end);
        if (t->strip_scaled) tw_gemm_enter_run(t, s->first);
        if (has_pairs(t)) keep_pairs(t);
        return;
    }
    tw_val before = tw_mul(g, s->first, tw_k64(g, -tw_gemm_strip_at(t, 0, t->body_k)));
    t->unpacking = true;
    tw_gemm_in_streams(t, t->panel_w, t->header);
    tw_gemm_unpack_bodies(t, tw_gemm_unit_codes(t, t->panel_w), tw_offset(g, t->strip, before),
                          s->first, s->end, NULL);
    t->unpacking = false;
}

static void column(tw_gemm *t, tw_val m0) {
    amx_gemm *self = of(t);
    tw_ir *g = t->g;
    tw_val slots = t->tile;
    tw_loop over_k, over_m;
    bool channel = self->form == TW_AMX_CHANNEL;
    int64_t step = channel ? t->config->ahead / t->body_k : t->ahead_units;
    tw_val count = tw_k64(g, channel ? t->problem->K / t->body_k : t->panel.units);
    tw_loop_begin_nonempty(g, &over_k, tw_k64(g, 0), count, step, NULL, 0);
    tw_val next = tw_add(g, over_k.i, tw_k64(g, step));
    stretch *s = &self->s;
    s->first = over_k.i;
    s->end = tw_select(g, tw_compare(g, TW_IR_SLT, next, count), next, count);
    s->is_first = tw_compare(g, TW_IR_EQ, s->first, tw_k64(g, 0));
    s->is_last = tw_compare(g, TW_IR_EQ, s->end, count);
    unpack_stretch(t);
    tw_loop_begin(g, &over_m, m0, t->m1, self->tile_rows, NULL, 0);
    tw_gemm_enter_tile(t, over_m.i);
    int64_t row_bytes = (int64_t)t->nv * t->lanes * 4;
    t->tile = tw_offset(g, slots, tw_mul(g, tw_sub(g, t->m, m0), tw_k64(g, row_bytes)));
    emit_tile(t);
    tw_loop_end(g, &over_m, NULL);
    tw_loop_end(g, &over_k, NULL);
    t->tile = slots;
}

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
    amx_gemm self = {.form = tw_amx_form_of(problem), .tile_rows = config->micro_m, .planes = 1};
    tw_gemm *t = &self.i.t;
    tw_int_gemm_init(&self.i, g, problem, config, &ops, TW_AMX_K, TW_INT_VALUES);
    self.tile_k = tw_min(TW_AMX_K, self.form == TW_AMX_GROUPS ? t->panel.unit_k : TW_AMX_K);
    bool code_zeros = problem->scheme.zero_mode == TW_ZERO_CODE;
    self.i.negatives = tw_int_constant_zero(problem) != 0 && !code_zeros;
    t->rows = t->acc_rows = END_ROWS;
    t->holds = true; /* codes are unpacked where nothing else is in registers */
    t->carried = 0;
    t->word_sums = false;
    if (self.form == TW_AMX_CHANNEL) t->strip_bytes = tw_gemm_strip_at(t, 0, config->ahead);
    if (self.form == TW_AMX_SCALED) {
        t->strip_scaled = true;
        self.planes = 2;
        t->strip_bytes = 2 * tw_gemm_strip_at(t, 0, TW_FACTOR_K);
    }
    tw_int_emit_pack(g, problem, TW_INT_VALUES);
    tw_gemm_emit(t);
    return TW_OK;
}

const tw_template tw_template_amx_gemm = {"cpu.amx_gemm",     1,
                                          &tw_layout_panel64, tw_amx_space,
                                          TW_AMX_AXES,        tw_amx_reject_problem,
                                          tw_amx_reject,      tw_amx_guess,
                                          tw_amx_cost,        geometry,
                                          tw_int_chain,       emit};
