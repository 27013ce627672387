/* From totals to y.  Nothing outside [m1, N] is written: rows past the end are not visited, and the
 * last columns, whose number is known when the code is made, go out in pieces of falling powers of
 * two. */
#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/gemm.h"

/* Columns [0, count) of one stream's part of a row of the tile. */
static void store_row(tw_gemm *t, const tw_val *row, tw_val at, int count) {
    tw_ir *g = t->g;
    int64_t size = tw_dtype_bits(t->problem->y) / 8;
    for (int v = 0; v * t->lanes < count; v++) {
        int left = count - v * t->lanes, done = 0;
        if (left >= t->lanes) {
            tw_store_f32(g, t->problem->y, row[v], tw_at(g, at, tw_gemm_vector_at(t, v, size)),
                         (int)size);
            continue;
        }
        for (int piece = t->lanes / 2; piece; piece /= 2) {
            if (!(left & piece)) continue;
            int mask[64];
            for (int i = 0; i < piece; i++) mask[i] = done + i;
            tw_val part = tw_shuffle(g, row[v], row[v], mask, piece);
            tw_store_f32(g, t->problem->y, part, tw_at(g, at, (v * t->lanes + done) * size),
                         (int)size);
            done += piece;
        }
    }
}

/* One stream's part of a row, which has a tail only where there is no other stream. */
static void store_stream(tw_gemm *t, const tw_val *row, tw_val at) {
    tw_ir *g = t->g;
    int tail = (int)(t->problem->N % t->config->micro_n);
    if (!tail) {
        store_row(t, row, at, t->config->micro_n);
        return;
    }
    tw_if whole;
    tw_val end = tw_add(g, t->n, tw_k64(g, t->config->micro_n));
    tw_if_begin(g, &whole, tw_compare(g, TW_IR_SLT, end, tw_k64(g, t->problem->N + 1)));
    store_row(t, row, at, t->config->micro_n);
    tw_if_else(g, &whole);
    store_row(t, row, at, tail);
    tw_if_end(g, &whole);
}

/* The first column of a stream. */
static tw_val column_of(tw_gemm *t, int stream) {
    return stream ? tw_add(t->g, t->n, t->apart_n[stream]) : t->n;
}

/* One row of the tile: totals through finish, bias and activation into y's row m. */
static void emit_row(tw_gemm *t, tw_val row, tw_val *total) {
    tw_ir *g = t->g;
    int64_t size = tw_dtype_bits(t->problem->y) / 8;
    if (t->ops->finish) t->ops->finish(t, row, total);
    for (int v = 0; v < t->nv; v++) {
        if (t->problem->bias) {
            tw_val n = column_of(t, tw_gemm_stream(t, v));
            tw_val at = tw_offset(g, t->bias, tw_mul(g, n, tw_k64(g, 4)));
            total[v] =
                tw_fadd(g, total[v],
                        tw_load(g, tw_f32(t->lanes), tw_at(g, at, tw_gemm_vector_at(t, v, 4)), 4));
        }
        total[v] = tw_emit_act(g, t->problem->act, total[v]);
    }
    tw_val m = tw_add(g, t->m, row);
    for (int stream = 0, v = 0; stream < t->streams; stream++, v += t->nv / t->streams) {
        tw_val n = tw_mul(g, column_of(t, stream), tw_k64(g, size));
        tw_val at = tw_offset(g, t->y, tw_add(g, tw_mul(g, m, t->y_stride), n));
        store_stream(t, total + v, at);
    }
}

void tw_gemm_store_row(tw_gemm *t, tw_val *total) { emit_row(t, tw_k64(t->g, 0), total); }

void tw_gemm_store_tile(tw_gemm *t) {
    tw_ir *g = t->g;
    tw_val left = tw_sub(g, t->m1, t->m), whole = tw_k64(g, t->rows);
    tw_val total[TW_TILE] = {0};
    tw_val rows = tw_select(g, tw_compare(g, TW_IR_SLT, left, whole), left, whole);
    tw_loop loop;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), rows, 1, NULL, 0);
    int bytes = t->lanes * 4;
    tw_val from = tw_offset(g, t->tile, tw_mul(g, loop.i, tw_k64(g, (int64_t)t->nv * bytes)));
    for (int v = 0; v < t->nv; v++)
        total[v] = tw_load(g, tw_f32(t->lanes), tw_at(g, from, (int64_t)v * bytes), bytes);
    emit_row(t, loop.i, total);
    tw_loop_end(g, &loop, NULL);
}
