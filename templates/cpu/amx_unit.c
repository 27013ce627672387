/* The matrix unit: see amx_unit.h. */
#include "templates/cpu/amx_unit.h"

#include "src/core/dtype.h"

/* Registers: of products, [rows / 16][vector]; of x; of weights. */
enum { TILE_C = 0, TILE_X = 4, TILE_W = 6 };

/* ---- instructions ---- */

static const tw_ty nothing = {TW_TY_VOID, 0};
static const char *const load = "llvm.x86.tileloadd64";

static tw_val tile(tw_gemm *t, int number) { return tw_const_int(t->g, tw_i8(0), number); }

/* Rows of the tile are `stride` bytes apart. */
static void move_tile(tw_gemm *t, const char *name, int number, tw_val at, int64_t stride) {
    tw_val args[] = {tile(t, number), at, tw_k64(t->g, stride)};
    tw_intrinsic(t->g, name, nothing, args, 3);
}

void tw_amx_begin(tw_gemm *t, tw_amx_unit *unit) {
    tw_tile_shape shapes[TW_TILES];
    for (int i = 0; i < TW_TILES; i++) {
        bool x = i >= TILE_X && i < TILE_W, w = i >= TILE_W;
        shapes[i].bytes = (uint8_t)(x ? unit->bytes : TW_TILE_BYTES);
        shapes[i].rows = (uint8_t)(w ? unit->bytes / 4 : TW_TILE_ROWS);
    }
    unit->host = tw_tiles_begin(t->g, shapes);
}

void tw_amx_end(tw_gemm *t, tw_amx_unit *unit) { tw_tiles_end(t->g, unit->host); }

/* ---- products ---- */

static int64_t row_bytes(const tw_gemm *t) { return (int64_t)t->nv * t->lanes * 4; }

void tw_amx_zero_products(tw_gemm *t, const tw_amx_unit *unit) {
    for (int i = 0; i < unit->rows / TW_TILE_ROWS; i++)
        for (int v = 0; v < t->nv; v++) {
            tw_val number = tile(t, TILE_C + 2 * i + v);
            tw_intrinsic(t->g, "llvm.x86.tilezero", nothing, &number, 1);
        }
}

static void move_products(tw_gemm *t, const tw_amx_unit *unit, const char *name, tw_val at) {
    for (int i = 0; i < unit->rows / TW_TILE_ROWS; i++)
        for (int v = 0; v < t->nv; v++) {
            int64_t place = (int64_t)i * TW_TILE_ROWS * row_bytes(t) + (int64_t)v * t->lanes * 4;
            move_tile(t, name, TILE_C + 2 * i + v, tw_at(t->g, at, place), row_bytes(t));
        }
}

void tw_amx_load_products(tw_gemm *t, const tw_amx_unit *unit, tw_val at) {
    move_products(t, unit, load, at);
}

void tw_amx_store_products(tw_gemm *t, const tw_amx_unit *unit, tw_val at) {
    move_products(t, unit, "llvm.x86.tilestored64", at);
}

/* One step of K.  All loads come first, which is a tenth faster while a neighbour has the core's
 * other thread, and the same without. */
static void multiply_step(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val w) {
    const char *load_x = unit->x_once ? "llvm.x86.tileloaddt164" : load;
    int64_t x_stride = t->geometry.xq_stride;
    int count = unit->rows / TW_TILE_ROWS;
    for (int i = 0; i < count; i++)
        move_tile(t, load_x, TILE_X + i, tw_at(t->g, x, (int64_t)i * TW_TILE_ROWS * x_stride),
                  x_stride);
    for (int v = 0; v < t->nv; v++)
        move_tile(t, load, TILE_W + v, tw_at(t->g, w, (int64_t)v * t->lanes * 4), row_bytes(t));
    for (int i = 0; i < count; i++)
        for (int v = 0; v < t->nv; v++) {
            tw_val args[] = {tile(t, TILE_C + 2 * i + v), tile(t, TILE_X + i), tile(t, TILE_W + v)};
            tw_intrinsic(t->g, unit->dot, nothing, args, 3);
        }
}

/* Bytes of the strip for a byte of x. */
static int64_t strip_line(const tw_gemm *t) { return row_bytes(t) / 4; }

/* Prefetches the tile's columns of `rows` rows of y from `at` on, but for the end of one that does
 * not begin with a line; the row behind them. */
static tw_val prefetch_rows(tw_gemm *t, tw_val at, int rows) {
    int64_t bytes = (int64_t)t->nv * t->lanes * tw_dtype_bits(t->problem->y) / 8;
    for (int row = 0; row < rows; row++) {
        for (int64_t b = 0; b < bytes; b += 64) tw_prefetch_to_write(t->g, tw_at(t->g, at, b));
        at = tw_offset(t->g, at, t->y_stride);
    }
    return at;
}

/* The tile's first in y. */
static tw_val y_of_tile(tw_gemm *t) {
    tw_ir *g = t->g;
    tw_val column = tw_mul(g, t->n, tw_k64(g, tw_dtype_bits(t->problem->y) / 8));
    return tw_offset(g, t->y, tw_add(g, tw_mul(g, t->m, t->y_stride), column));
}

/* y_rows: of y, whose lines are prefetched in each step. */
static void multiply_loop(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val w, tw_val bytes,
                          int y_rows) {
    tw_ir *g = t->g;
    tw_val y = {0};
    tw_loop loop;
    if (y_rows) y = y_of_tile(t);
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), bytes, unit->bytes, &y, y_rows ? 1 : 0);
    multiply_step(t, unit, tw_offset(g, x, loop.i),
                  tw_offset(g, w, tw_mul(g, loop.i, tw_k64(g, strip_line(t)))));
    if (y_rows) y = prefetch_rows(t, loop.carried[0], y_rows);
    tw_loop_end(g, &loop, &y);
}

void tw_amx_multiply(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val w, tw_val bytes,
                     int64_t known) {
    enum { UNROLLED = 4 };
    if (!known || known > UNROLLED * unit->bytes) {
        multiply_loop(t, unit, x, w, bytes, 0);
        return;
    }
    for (int64_t k = 0; k < known; k += unit->bytes)
        multiply_step(t, unit, tw_at(t->g, x, k), tw_at(t->g, w, k * strip_line(t)));
}

/* Rows of y that come in a step where all of K is one stretch: their lines are in no cache nearby,
 * and storing a tile would wait for all of them (8 % of SmolLM2's layers). */
static int rows_a_step(const tw_gemm *t, const tw_amx_unit *unit) {
    int64_t steps = t->panel.padded_k * t->x_bytes / unit->bytes;
    return unit->whole ? (int)tw_ceil_div(unit->rows, tw_max(steps, 1)) : 0;
}

void tw_amx_add_stretch(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val bytes) {
    tw_if first;
    tw_if_begin(t->g, &first, unit->stretch.is_first);
    tw_amx_zero_products(t, unit);
    tw_if_else(t->g, &first);
    tw_amx_load_products(t, unit, t->tile);
    tw_if_end(t->g, &first);
    multiply_loop(t, unit, x, t->strip, bytes, rows_a_step(t, unit));
    tw_amx_store_products(t, unit, t->tile);
}

/* ---- configs ---- */

const char *tw_amx_reject_tile(const tw_config *c, bool whole) {
    if (c->micro_m != TW_TILE_ROWS && c->micro_m != 2 * TW_TILE_ROWS)
        return "micro_m must be 16 or 32.";
    if (c->micro_n != TW_AMX_COLUMNS && c->micro_n != 2 * TW_AMX_COLUMNS)
        return "micro_n must be 16 or 32.";
    if (c->streams) return "a kernel of the matrix unit reads one stream.";
    if (!whole && (int64_t)c->block_m * c->micro_n * 4 > TW_AHEAD_BYTES)
        return "block_m times micro_n must be at most 8192 totals, which wait for the next stretch "
               "of K.";
    return NULL;
}

int64_t tw_amx_even(int64_t K, int64_t most, int64_t step) {
    int64_t longest = tw_max(1, most / step) * step;
    return tw_round_up(tw_ceil_div(K, tw_ceil_div(K, longest)), step);
}

/* ---- a column of tiles ---- */

bool tw_amx_by_bodies(const tw_gemm *t) { return t->panel.units == 1; }

void tw_amx_unpack_bodies(tw_gemm *t, const tw_amx_stretch *stretch) {
    tw_ir *g = t->g;
    tw_val before = tw_mul(g, stretch->first, tw_k64(g, -tw_gemm_strip_at(t, 0, t->body_k)));
    t->unpacking = true;
    tw_val unit = tw_at(g, t->panel_w, t->panel.factor_bytes);
    tw_gemm_in_streams(t, t->panel_w, t->factors);
    tw_gemm_in_streams(t, unit, t->header);
    if (t->ops->begin_unpacking) t->ops->begin_unpacking(t);
    tw_gemm_unpack_bodies(t, tw_gemm_unit_codes(t, unit), tw_offset(g, t->strip, before),
                          stretch->first, stretch->end, NULL);
    t->unpacking = false;
}

void tw_amx_column(tw_gemm *t, tw_amx_unit *unit, tw_val m0) {
    tw_ir *g = t->g;
    tw_val slots = t->tile;
    tw_loop over_k, over_m;
    tw_amx_stretch *s = &unit->stretch;
    int64_t all = tw_amx_by_bodies(t) ? t->panel.padded_k / t->body_k : t->panel.units;
    tw_val count = tw_k64(g, all);
    tw_loop_begin_nonempty(g, &over_k, tw_k64(g, 0), count, unit->step, NULL, 0);
    tw_val next = tw_add(g, over_k.i, tw_k64(g, unit->step));
    s->first = over_k.i;
    s->end = tw_select(g, tw_compare(g, TW_IR_SLT, next, count), next, count);
    s->is_first = tw_compare(g, TW_IR_EQ, s->first, tw_k64(g, 0));
    s->is_last = tw_compare(g, TW_IR_EQ, s->end, count);
    unit->unpack(t);
    tw_loop_begin(g, &over_m, m0, t->m1, unit->rows, NULL, 0);
    tw_gemm_enter_tile(t, over_m.i);
    if (!unit->whole)
        t->tile = tw_offset(g, slots, tw_mul(g, tw_sub(g, t->m, m0), tw_k64(g, row_bytes(t))));
    unit->multiply(t);
    tw_loop_end(g, &over_m, NULL);
    tw_loop_end(g, &over_k, NULL);
    t->tile = slots;
}
