/* The walk: loops over tiles, units, folds and bodies.  Counts that are constant cost no loop. */
#include "templates/cpu/gemm.h"

#include <assert.h>
#include <stddef.h>

#include "src/core/dtype.h"
#include "src/core/kernel_args.h"
#include "templates/cpu/convert.h"

static int64_t clamp(int64_t v, int64_t lo, int64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* Of several planes, all of a body's where they fit beside a row's accumulators, what is unpacked
 * of them, x and masks.  Of five bits they only just do, and a vector or two of what else there is
 * goes to the stack: better than touches (i5: 1.2x for two threads). */
static int held_vectors(const tw_gemm *t) {
    const tw_panel *p = &t->panel;
    int rows = (int)(t->body_k / p->chunk_k * p->chunk_bytes / TW_PANEL_ROW_BYTES);
    int vectors = rows * t->nv, registers = tw_target_isa(t->g->target)->vector_registers;
    if (!t->config->in_order || p->planes < 2 || t->rows > 1 || t->ahead_units) return 0;
    return vectors <= TW_HELD && vectors + 2 * t->nv + 4 <= registers ? vectors : 0;
}

void tw_gemm_init(tw_gemm *t, tw_ir *g, const tw_problem *problem, const tw_config *config,
                  const tw_gemm_ops *ops, int64_t body_want, int64_t fold_k, bool sums) {
    t->g = g;
    t->problem = problem;
    t->config = config;
    t->ops = ops;
    tw_panel_init(problem, &t->panel);
    t->lanes = tw_target_lanes(g->target);
    t->rows = config->micro_m;
    t->streams = (int)tw_max(config->streams, 1);
    t->nv = config->micro_n / t->lanes * t->streams;
    t->body_k = clamp(body_want, t->panel.chunk_k, t->panel.quantum_k);
    t->fold_k = tw_min(fold_k, t->panel.unit_k);
    t->ahead_units = config->ahead / t->panel.unit_k;
    t->strip_k = 4;
    t->strip_sums = sums && t->ahead_units && t->fold_k == t->panel.unit_k;
    t->acc_rows = t->rows + (sums && !t->strip_sums);
    /* Totals stay in registers while they and the accumulators fit, beside the weights where a
     * group is one body: slots are cheap, spills in the loop are not. */
    int vectors = t->acc_rows * t->nv, totals = t->rows * t->nv,
        beside = t->panel.unit_k <= t->body_k ? t->nv + 4 : 0;
    bool fit = vectors + totals + beside <= tw_target_isa(g->target)->vector_registers;
    t->carried = fit ? totals : 0;
    /* Beside the accumulators: dwords, their unpacked codes, x, and what unpacking takes. */
    int unpacking = t->nv * (t->panel.planes + 1) + 4;
    t->holds = vectors + unpacking <= tw_target_isa(g->target)->vector_registers;
    t->held = held_vectors(t);
}

int64_t tw_gemm_folds(const tw_panel *panel, int64_t fold_k) {
    if (panel->unit_groups > 1) return panel->units * panel->unit_groups;
    return panel->units * tw_ceil_div(panel->unit_k, tw_min(fold_k, panel->unit_k));
}

/* ---- the walk over K of one tile ---- */

static void enter_body(tw_gemm *t, tw_val codes, tw_val x) {
    tw_gemm_in_streams(t, codes, t->codes);
    t->x = x;
    for (int plane = 0; plane < TW_PANEL_PLANES; plane++)
        for (int v = 0; v < t->nv; v++) t->loaded[plane][v].offset = -1;
}

static void enter_fold(tw_gemm *t, tw_val x, tw_val bodies, tw_val *acc) {
    t->x = x;
    t->bodies = bodies;
    t->ops->init(t, acc);
}

/* Bytes of codes from one body to the next: in the panel, and where they are read. */
static int64_t panel_step(const tw_gemm *t) {
    return t->body_k / t->panel.chunk_k * t->panel.chunk_bytes;
}
static int64_t codes_step(const tw_gemm *t) {
    return t->ahead_units ? tw_gemm_strip_at(t, 0, t->body_k) : panel_step(t);
}

/* Bodies of one fold: acc from init through steps; bodies is a value because the last unit may be
 * short. */
static void emit_bodies(tw_gemm *t, tw_val *acc, tw_val codes, tw_val x, tw_val bodies,
                        int64_t constant_bodies) {
    tw_ir *g = t->g;
    int count = t->acc_rows * t->nv;
    if (constant_bodies == 1) {
        enter_body(t, codes, x);
        tw_gemm_begin_body(t);
        t->ops->steps(t, acc, 0, t->body_k);
        tw_gemm_end_body(t);
        return;
    }
    /* The counter runs in bytes of x, so that the loop keeps one register for it and one for w. */
    tw_val carried[TW_ACCUMULATORS + 1];
    for (int i = 0; i < count; i++) carried[i] = acc[i];
    carried[count] = tw_k64(g, 0);
    tw_loop loop;
    int64_t x_step = t->body_k * t->x_bytes;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), tw_mul(g, bodies, tw_k64(g, x_step)), x_step,
                           carried, count + 1);
    enter_body(t, tw_offset(g, codes, loop.carried[count]), tw_offset(g, x, loop.i));
    tw_gemm_begin_body(t);
    for (int i = 0; i < count; i++) acc[i] = loop.carried[i];
    t->ops->steps(t, acc, 0, t->body_k);
    tw_gemm_end_body(t);
    for (int i = 0; i < count; i++) carried[i] = acc[i];
    carried[count] = tw_add(g, loop.carried[count], tw_k64(g, codes_step(t)));
    tw_loop_end(g, &loop, carried);
    for (int i = 0; i < count; i++) acc[i] = loop.carried[i];
}

void tw_gemm_load_slots(tw_gemm *t, tw_val slots, tw_val *out) {
    int align = t->lanes * 4;
    for (int i = 0; i < t->rows * t->nv; i++)
        out[i] = tw_load(t->g, tw_f32(t->lanes), tw_at(t->g, slots, (int64_t)i * align), align);
}

void tw_gemm_store_slots(tw_gemm *t, tw_val slots, const tw_val *values) {
    int align = t->lanes * 4;
    for (int i = 0; i < t->rows * t->nv; i++)
        tw_store(t->g, values[i], tw_at(t->g, slots, (int64_t)i * align), align);
}

static void zero_all(tw_gemm *t, tw_val *out) {
    for (int i = 0; i < t->rows * t->nv; i++) out[i] = tw_const_f32(t->g, t->lanes, 0);
}

/* Totals live in registers (carried) or, when tiles are large, in slots, which only fold() and
 * turn() then touch: those from slots, and back. */
static tw_val *begin_totals(tw_gemm *t, tw_val *total, tw_val *loaded) {
    if (t->carried) return total;
    tw_gemm_load_slots(t, t->scaled_units ? t->sums : t->tile, loaded);
    return loaded;
}
static void end_totals(tw_gemm *t, const tw_val *total) {
    if (!t->carried) tw_gemm_store_slots(t, t->scaled_units ? t->sums : t->tile, total);
}

static void fold_totals(tw_gemm *t, const tw_val *acc, tw_val *total) {
    tw_val loaded[TW_TILE] = {{0}}, *at_hand = begin_totals(t, total, loaded);
    t->ops->fold(t, acc, at_hand);
    end_totals(t, at_hand);
}

static void turn_totals(tw_gemm *t, tw_val *acc, tw_val *total) {
    tw_val loaded[TW_TILE] = {{0}}, *at_hand = begin_totals(t, total, loaded);
    t->ops->turn(t, acc, at_hand);
    end_totals(t, at_hand);
}

/* A unit that is one chunk with several groups in it: everything static. */
static void emit_chunk_groups(tw_gemm *t, tw_val unit, tw_val x, tw_val *total) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    tw_val meta = t->meta;
    for (int64_t sub = 0; sub < p->unit_groups; sub++) {
        tw_val acc[TW_ACCUMULATORS];
        t->sub_group = (int)sub;
        tw_gemm_in_streams(t, tw_at(g, unit, sub * TW_PANEL_ROWS * tw_dtype_bits(p->scale) / 8),
                           t->header);
        t->meta = tw_add(g, meta, tw_k64(g, sub * 4));
        enter_body(t, tw_gemm_at_column(t, tw_at(g, unit, p->header_bytes), 4), x);
        if (!sub) tw_gemm_begin_body(t);
        t->ops->init(t, acc);
        t->ops->steps(t, acc, sub * p->group_k, (sub + 1) * p->group_k);
        if (sub + 1 == p->unit_groups) tw_gemm_end_body(t);
        fold_totals(t, acc, total);
    }
    t->meta = tw_add(g, meta, tw_k64(g, p->unit_groups * 4));
}

/* The tile's codes of a unit in the panel. */
tw_val tw_gemm_unit_codes(tw_gemm *t, tw_val unit) {
    const tw_panel *p = &t->panel;
    int64_t column_bytes = p->planes ? 4 : p->chunk_bytes / TW_PANEL_ROWS;
    return tw_gemm_at_column(t, tw_at(t->g, unit, p->header_bytes), column_bytes);
}

/* One unit that is one group: its folds, each a run of bodies. */
static void emit_unit(tw_gemm *t, tw_val unit, tw_val x, tw_val bodies, int64_t constant_bodies,
                      tw_val *total) {
    tw_ir *g = t->g;
    int count = t->carried;
    t->sub_group = 0;
    tw_gemm_in_streams(t, unit, t->header);
    tw_val codes = t->ahead_units ? t->unit_strip : tw_gemm_unit_codes(t, unit);
    int64_t fold_bodies = t->fold_k / t->body_k;
    tw_val acc[TW_ACCUMULATORS];
    if (t->panel.unit_k <= t->fold_k) {
        enter_fold(t, x, bodies, acc);
        emit_bodies(t, acc, codes, x, bodies, constant_bodies);
        fold_totals(t, acc, total);
        t->meta = tw_add(g, t->meta, tw_k64(g, 4));
        return;
    }
    tw_val carried[TW_TILE + 1];
    for (int i = 0; i < count; i++) carried[i] = total[i];
    carried[count] = t->meta;
    tw_loop loop;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), bodies, fold_bodies, carried, count + 1);
    for (int i = 0; i < count; i++) total[i] = loop.carried[i];
    t->meta = loop.carried[count];
    tw_val left = tw_sub(g, bodies, loop.i), whole = tw_k64(g, fold_bodies);
    tw_val here = tw_select(g, tw_compare(g, TW_IR_SLT, left, whole), left, whole);
    tw_val fold_x = tw_offset(g, x, tw_mul(g, loop.i, tw_k64(g, t->body_k * t->x_bytes)));
    enter_fold(t, fold_x, here, acc);
    emit_bodies(t, acc, tw_offset(g, codes, tw_mul(g, loop.i, tw_k64(g, codes_step(t)))), fold_x,
                here, 0);
    fold_totals(t, acc, total);
    for (int i = 0; i < count; i++) carried[i] = total[i];
    carried[count] = tw_add(g, t->meta, tw_k64(g, 4));
    tw_loop_end(g, &loop, carried);
    for (int i = 0; i < count; i++) total[i] = loop.carried[i];
    t->meta = loop.carried[count];
}

static int64_t unit_bodies(const tw_gemm *t) { return t->panel.unit_k / t->body_k; }

/* Two units whose sums are scaled at once. */
static void emit_unit_pair(tw_gemm *t, tw_val x, tw_val *total) {
    tw_ir *g = t->g;
    int64_t bodies = unit_bodies(t);
    tw_val acc[TW_ACCUMULATORS], second_x = tw_at(g, x, t->panel.unit_k * t->x_bytes);
    tw_val second = tw_at(g, t->unit_strip, tw_gemm_strip_stride(t));
    enter_fold(t, x, tw_k64(g, bodies), acc);
    emit_bodies(t, acc, t->unit_strip, x, t->bodies, bodies);
    t->meta = tw_add(g, t->meta, tw_k64(g, 4));
    turn_totals(t, acc, total);
    emit_bodies(t, acc, second, second_x, t->bodies, bodies);
    fold_totals(t, acc, total);
    t->meta = tw_add(g, t->meta, tw_k64(g, 4));
}

/* Of a power of two. */
static int log2_of(int64_t n) { return n > 1 ? 1 + log2_of(n / 2) : 0; }

/* The run of unit i: its factors, of each stream. */
void tw_gemm_enter_run(tw_gemm *t, tw_val i) {
    tw_ir *g = t->g;
    tw_val run = tw_lshr(g, i, log2_of(t->panel.run_units)); /* a power of two */
    t->run = tw_offset(g, t->panel_w, tw_mul(g, run, tw_k64(g, t->panel.run_stride)));
    tw_gemm_in_streams(t, t->run, t->factors);
}

/* Unit i in the panel; its run's factors, of each stream. */
static tw_val enter_unit(tw_gemm *t, tw_val i) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    tw_val from = t->panel_w, inside = i;
    if (tw_panel_has_factors(p)) {
        tw_gemm_enter_run(t, i);
        from = tw_at(g, t->run, p->factor_bytes);
        inside = tw_and(g, i, tw_k64(g, p->run_units - 1));
        tw_gemm_begin_factors(t, inside);
    }
    if (t->group_pairs && t->unpacking) {
        tw_val first = tw_and(g, inside, tw_k64(g, p->run_units - 2));
        t->pair = tw_offset(g, from, tw_mul(g, first, tw_k64(g, p->unit_stride)));
    }
    tw_val unit = tw_offset(g, from, tw_mul(g, inside, tw_k64(g, p->unit_stride)));
    tw_gemm_begin_header(t, unit);
    return unit;
}

/* Unit i of the stretch in the strip. */
tw_val tw_gemm_strip_unit(tw_gemm *t, tw_val i) {
    return tw_offset(t->g, t->strip, tw_mul(t->g, i, tw_k64(t->g, tw_gemm_strip_stride(t))));
}

static int64_t last_bodies(const tw_gemm *t) {
    return t->panel.last_chunks * t->panel.chunk_k / t->body_k;
}

/* Bodies of unit i, of several: the last may be short. */
static tw_val bodies_of(tw_gemm *t, tw_val i) {
    tw_ir *g = t->g;
    if (unit_bodies(t) == last_bodies(t)) return tw_k64(g, unit_bodies(t));
    tw_val is_last = tw_compare(g, TW_IR_EQ, i, tw_k64(g, t->panel.units - 1));
    return tw_select(g, is_last, tw_k64(g, last_bodies(t)), tw_k64(g, unit_bodies(t)));
}

/* Of the first fold of unit i. */
tw_val tw_gemm_unit_meta(tw_gemm *t, tw_val i) {
    int64_t folds = tw_gemm_folds(&t->panel, t->fold_k) / t->panel.units;
    return tw_mul(t->g, i, tw_k64(t->g, 4 * folds));
}

/* Some units of the tile.  stretch: the first, and the end, of those whose codes are in the strip;
 * NULL: none are.  some: the same of those to walk through; NULL: all. */
static void emit_some_units(tw_gemm *t, const tw_val *stretch, const tw_val *some, tw_val *total) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    int count = t->carried;
    t->meta = tw_k64(g, 0);
    t->unit_strip = t->strip;
    if (p->units == 1 && p->unit_groups == 1) {
        tw_val unit = tw_at(g, t->panel_w, p->factor_bytes);
        tw_gemm_in_streams(t, t->panel_w, t->factors);
        if (tw_panel_has_factors(p)) tw_gemm_begin_factors(t, tw_k64(g, 0));
        tw_gemm_begin_header(t, unit);
        emit_unit(t, unit, t->tile_x, tw_k64(g, last_bodies(t)), last_bodies(t), total);
        return;
    }
    if (some) t->meta = tw_gemm_unit_meta(t, some[0]);
    tw_val carried[TW_TILE + 1];
    for (int i = 0; i < count; i++) carried[i] = total[i];
    carried[count] = t->meta;
    tw_loop loop;
    tw_val end = some ? some[1] : tw_k64(g, p->units);
    tw_val first = some ? some[0] : tw_k64(g, 0);
    tw_loop_begin_nonempty(g, &loop, first, end, t->group_pairs ? 2 : 1, carried, count + 1);
    for (int i = 0; i < count; i++) total[i] = loop.carried[i];
    t->meta = loop.carried[count];
    t->unit = loop.i;
    tw_val unit = enter_unit(t, loop.i);
    tw_val x = tw_offset(g, t->tile_x, tw_mul(g, loop.i, tw_k64(g, p->unit_k * t->x_bytes)));
    if (stretch) t->unit_strip = tw_gemm_strip_unit(t, tw_sub(g, loop.i, stretch[0]));
    if (t->group_pairs)
        emit_unit_pair(t, x, total);
    else if (p->unit_groups > 1)
        emit_chunk_groups(t, unit, x, total);
    else
        emit_unit(t, unit, x, bodies_of(t, loop.i),
                  unit_bodies(t) == last_bodies(t) ? unit_bodies(t) : 0, total);
    for (int i = 0; i < count; i++) carried[i] = total[i];
    carried[count] = t->meta;
    tw_loop_end(g, &loop, carried);
    for (int i = 0; i < count; i++) total[i] = loop.carried[i];
}

static tw_val least(tw_gemm *t, tw_val a, tw_val b) {
    return tw_select(t->g, tw_compare(t->g, TW_IR_SLT, a, b), a, b);
}

/* All units of the tile, or of the stretch, in runs that have one scale of x; totals are in their
 * slots. */
static void emit_scaled_units(tw_gemm *t, const tw_val *stretch) {
    tw_ir *g = t->g;
    tw_val sum[TW_TILE] = {{0}}, total[TW_TILE] = {{0}}, run = tw_k64(g, t->scaled_units);
    tw_val first = stretch ? stretch[0] : tw_k64(g, 0);
    tw_val end = stretch ? stretch[1] : tw_k64(g, t->panel.units);
    int log = log2_of(t->scaled_units);
    tw_loop loop;
    tw_val r0 = tw_lshr(g, first, log);
    tw_val r1 = tw_lshr(g, tw_add(g, end, tw_k64(g, t->scaled_units - 1)), log);
    tw_loop_begin_nonempty(g, &loop, r0, r1, 1, NULL, 0);
    tw_val begin = tw_mul(g, loop.i, run), stop = least(t, tw_add(g, begin, run), end);
    if (stretch) begin = tw_select(g, tw_compare(g, TW_IR_SLT, begin, first), first, begin);
    const tw_val some[] = {begin, stop};
    zero_all(t, sum);
    if (!t->carried) tw_gemm_store_slots(t, t->sums, sum);
    t->meta = tw_gemm_unit_meta(t, begin);
    if (t->ops->begin_run) t->ops->begin_run(t);
    emit_some_units(t, stretch, some, sum);
    if (!t->carried) tw_gemm_load_slots(t, t->sums, sum);
    tw_gemm_load_slots(t, t->tile, total);
    t->meta = tw_gemm_unit_meta(t, begin); /* the last fold may be of groups past K */
    if (t->late_factors) tw_gemm_enter_run(t, begin);
    t->ops->scale_sums(t, sum, total);
    tw_gemm_store_slots(t, t->tile, total);
    tw_loop_end(g, &loop, NULL);
}

/* All units of the tile, or of the stretch, into totals in slots. */
static void emit_units(tw_gemm *t, const tw_val *stretch) {
    tw_val total[TW_TILE] = {{0}};
    if (t->scaled_units) {
        emit_scaled_units(t, stretch);
        return;
    }
    if (t->carried) tw_gemm_load_slots(t, t->tile, total);
    emit_some_units(t, stretch, stretch, total);
    if (t->carried) tw_gemm_store_slots(t, t->tile, total);
}

void tw_gemm_enter_tile(tw_gemm *t, tw_val m) {
    tw_ir *g = t->g;
    t->m = m;
    t->tile_x = tw_offset(g, t->xq, tw_mul(g, m, tw_k64(g, t->geometry.xq_stride)));
    t->tile_meta = tw_offset(g, t->xmeta, tw_mul(g, m, tw_k64(g, t->geometry.xmeta_stride)));
}

static void emit_tile(tw_gemm *t, tw_val m) {
    tw_val total[TW_TILE] = {{0}};
    bool slots = t->scaled_units || !t->carried;
    zero_all(t, total);
    if (slots) tw_gemm_store_slots(t, t->tile, total);
    tw_gemm_enter_tile(t, m);
    if (slots)
        emit_units(t, NULL);
    else
        emit_some_units(t, NULL, NULL, total);
    if (t->rows == 1) {
        if (slots) tw_gemm_load_slots(t, t->tile, total);
        tw_gemm_store_row(t, total);
        return;
    }
    if (!slots) tw_gemm_store_slots(t, t->tile, total);
    tw_gemm_store_tile(t);
}

/* ---- a column of tiles whose codes are unpacked ahead ---- */

/* Codes of one body into a unit of the strip, and added to sums. */
static void unpack_body(tw_gemm *t, tw_val codes, tw_val to, tw_val *sums) {
    tw_ir *g = t->g;
    enter_body(t, codes, t->tile_x);
    tw_gemm_begin_body(t);
    if (t->ops->unpack_body) {
        t->ops->unpack_body(t, to);
        tw_gemm_end_body(t);
        return;
    }
    for (int64_t k = 0; k < t->body_k; k += 4)
        for (int v = 0; v < t->nv; v++) {
            tw_val four = t->ops->unpack(t, v, k), at = tw_at(g, to, tw_gemm_strip_at(t, v, k));
            if (t->ops->stash)
                t->ops->stash(t, v, four, at);
            else
                tw_store(g, four, at, t->lanes * 4);
            if (t->strip_sums) sums[v] = t->ops->add_codes(t, sums[v], four);
        }
    tw_gemm_end_body(t);
}

void tw_gemm_unpack_bodies(tw_gemm *t, tw_val codes, tw_val strip, tw_val first, tw_val end,
                           tw_val *sums) {
    tw_ir *g = t->g;
    tw_loop bodies;
    int count = t->strip_sums ? t->nv : 0;
    tw_loop_begin_nonempty(g, &bodies, first, end, 1, sums, count);
    for (int v = 0; v < count; v++) sums[v] = bodies.carried[v];
    unpack_body(
        t, tw_offset(g, codes, tw_mul(g, bodies.i, tw_k64(g, panel_step(t)))),
        tw_offset(g, strip, tw_mul(g, bodies.i, tw_k64(g, tw_gemm_strip_at(t, 0, t->body_k)))),
        sums);
    tw_loop_end(g, &bodies, sums);
    for (int v = 0; v < count; v++) sums[v] = bodies.carried[v];
}

void tw_gemm_unpack_units(tw_gemm *t, tw_val first, tw_val end) {
    tw_ir *g = t->g;
    tw_loop units;
    tw_val sums[TW_TILE] = {{0}};
    tw_loop_begin_nonempty(g, &units, first, end, 1, NULL, 0);
    t->unpacking = true;
    tw_val unit = enter_unit(t, units.i), codes = tw_gemm_unit_codes(t, unit);
    tw_gemm_in_streams(t, unit, t->header);
    if (t->ops->begin_unpacking) t->ops->begin_unpacking(t);
    tw_val strip = tw_gemm_strip_unit(t, tw_sub(g, units.i, first));
    for (int v = 0; t->strip_sums && v < t->nv; v++) sums[v] = tw_const_int(g, tw_i32(t->lanes), 0);
    tw_gemm_unpack_bodies(t, codes, strip, tw_k64(g, 0), bodies_of(t, units.i), sums);
    tw_gemm_fill_strip(t, strip, sums);
    tw_loop_end(g, &units, NULL);
    t->unpacking = false;
}

/* The next tile of the column, and the slots in which its totals wait. */
static void begin_tile(tw_gemm *t, tw_loop *over_m, tw_val m0, tw_val slots) {
    tw_ir *g = t->g;
    tw_loop_begin(g, over_m, m0, t->m1, t->rows, NULL, 0);
    tw_gemm_enter_tile(t, over_m->i);
    int64_t row_bytes = (int64_t)t->nv * t->lanes * 4;
    t->tile = tw_offset(g, slots, tw_mul(g, tw_sub(g, t->m, m0), tw_k64(g, row_bytes)));
}

/* The tile at `row` of its task prefetches a part of the stretch that begins with unit i, whole
 * rows of the panel, as many lines for each row of the tile as a task of 128 needs.  (What is left,
 * of fewer rows, is prefetched as it is unpacked, which waits for memory: together 8 %, i6 on Zen
 * 4.)  Behind the panel's last stretch comes the next panel's first: of narrower tiles too early.
 */
static void prefetch_stretch(tw_gemm *t, tw_val i, tw_val row) {
    enum { TASK_ROWS = 128 };
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    if (!t->config->prefetch) return;
    int64_t unit_bytes = p->run_stride / p->run_units;
    int64_t row_bytes = tw_ceil_div(t->ahead_units * unit_bytes, 64L * TASK_ROWS) * 64;
    tw_val at = tw_offset(g, t->panel_w, tw_mul(g, i, tw_k64(g, unit_bytes)));
    at = tw_offset(g, at, tw_mul(g, row, tw_k64(g, row_bytes)));
    for (int64_t b = 0; b < t->rows * row_bytes; b += 64) tw_prefetch(g, tw_at(g, at, b));
}

static void emit_column_ahead(tw_gemm *t, tw_val m0) {
    tw_ir *g = t->g;
    tw_val slots = t->tile, total[TW_TILE] = {{0}};
    tw_loop over_m, over_k;
    tw_if first, last;
    tw_val units = tw_k64(g, t->panel.units);
    tw_loop_begin_nonempty(g, &over_k, tw_k64(g, 0), units, t->ahead_units, NULL, 0);
    tw_val next = tw_add(g, over_k.i, tw_k64(g, t->ahead_units));
    tw_val end = tw_select(g, tw_compare(g, TW_IR_SLT, next, units), next, units);
    tw_val stretch[] = {over_k.i, end};
    tw_gemm_unpack_units(t, over_k.i, end);
    begin_tile(t, &over_m, m0, slots);
    prefetch_stretch(t, end, tw_sub(g, over_m.i, m0));
    tw_if_begin(g, &first, tw_compare(g, TW_IR_EQ, over_k.i, tw_k64(g, 0)));
    zero_all(t, total);
    tw_gemm_store_slots(t, t->tile, total);
    tw_if_end(g, &first);
    emit_units(t, stretch);
    /* Here y's lines come while the next tile is computed. */
    tw_if_begin(g, &last, tw_compare(g, TW_IR_EQ, end, units));
    tw_gemm_store_tile(t);
    tw_if_end(g, &last);
    tw_loop_end(g, &over_m, NULL);
    tw_loop_end(g, &over_k, NULL);
    t->tile = slots;
}

/* Of columns [n0, n1), a multiple of streams of panels, each stream walks an equal part: where the
 * first one's ends.  A core reads more from memory in several places that are megabytes apart. */
static tw_val begin_streams(tw_gemm *t, tw_val n0, tw_val n1) {
    tw_ir *g = t->g;
    int shift = t->streams == 4 ? 2 : 1;
    tw_val part = tw_lshr(g, tw_sub(g, n1, n0), shift), panels = tw_lshr(g, part, 6);
    tw_val bytes = tw_mul(g, panels, tw_k64(g, t->panel.panel_stride));
    for (int s = 1; s < t->streams; s++) {
        t->apart_n[s] = tw_mul(g, part, tw_k64(g, s));
        t->apart_w[s] = tw_mul(g, bytes, tw_k64(g, s));
    }
    return tw_add(g, n0, part);
}

#define FIELD(t, args, ty, field)                                                                  \
    tw_load((t)->g, ty, tw_at((t)->g, args, offsetof(tw_kernel_args, field)), 8)

void tw_gemm_emit(tw_gemm *t) {
    tw_ir *g = t->g;
    static const tw_ty params[] = {
        {TW_TY_PTR, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}};
    tw_val a[5];
    tw_function_begin(g, "tw_matmul", params, a, 5);
    t->args = a[0];
    t->w = FIELD(t, a[0], tw_ptr(), w);
    t->xq = FIELD(t, a[0], tw_ptr(), xq);
    t->xmeta = FIELD(t, a[0], tw_ptr(), xmeta);
    t->y = FIELD(t, a[0], tw_ptr(), y);
    t->y_stride = FIELD(t, a[0], tw_i64(), y_stride);
    if (t->problem->bias) t->bias = FIELD(t, a[0], tw_ptr(), bias);
    t->m1 = a[2];
    if (t->config->ahead) {
        int64_t bytes = t->strip_bytes ? t->strip_bytes : t->ahead_units * tw_gemm_strip_stride(t);
        assert(bytes <= TW_STRIP_BYTES);
        int64_t totals = t->ops->column ? TW_AHEAD_BYTES : tw_gemm_totals_bytes(t->config, bytes);
        t->tile = tw_local(g, tw_f32((int)(totals / 4)));
        t->strip = tw_local(g, tw_i8((int)bytes));
    } else if (t->rows > 1 || !t->carried || t->scaled_units) {
        t->tile = tw_local(g, tw_f32(t->rows * t->nv * t->lanes));
    }
    if (t->scaled_units && !t->carried) t->sums = tw_local(g, tw_f32(t->rows * t->nv * t->lanes));
    if (t->ops->begin) t->ops->begin(t);
    tw_loop over_n, over_m;
    tw_val end = t->streams > 1 ? begin_streams(t, a[3], a[4]) : a[4];
    tw_loop_begin(g, &over_n, a[3], end, t->config->micro_n, NULL, 0);
    t->n = over_n.i;
    t->column = tw_and(g, t->n, tw_k64(g, TW_PANEL_ROWS - 1));
    tw_val panel = tw_binary(g, TW_IR_LSHR, t->n, tw_k64(g, 6));
    t->panel_w = tw_offset(g, t->w, tw_mul(g, panel, tw_k64(g, t->panel.panel_stride)));
    if (t->ops->column) {
        t->ops->column(t, a[1]);
    } else if (t->ahead_units) {
        emit_column_ahead(t, a[1]);
    } else {
        tw_loop_begin(g, &over_m, a[1], a[2], t->config->micro_m, NULL, 0);
        emit_tile(t, over_m.i);
        tw_loop_end(g, &over_m, NULL);
    }
    tw_loop_end(g, &over_n, NULL);
    if (t->ops->end) t->ops->end(t);
    tw_function_end(g);
}
