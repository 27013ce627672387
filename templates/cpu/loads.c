/* Loads of scales, zeros and codes: of the group, run and body at hand, and of the strip. */
#include <string.h>

#include "src/core/dtype.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/gemm.h"

int64_t tw_gemm_strip_at(const tw_gemm *t, int v, int64_t k) {
    return (k / t->strip_k * t->nv + v) * t->lanes * 4;
}

void tw_gemm_in_streams(tw_gemm *t, tw_val first, tw_val *each) {
    each[0] = first;
    for (int s = 1; s < t->streams; s++) each[s] = tw_offset(t->g, first, t->apart_w[s]);
}

tw_val tw_gemm_at_column(tw_gemm *t, tw_val row, int64_t size) {
    if (t->config->micro_n == TW_PANEL_ROWS) return row;
    return tw_offset(t->g, row, tw_mul(t->g, t->column, tw_k64(t->g, size)));
}

/* Whether the loads at hand prefetch: those of the strip need not. */
static bool prefetches(const tw_gemm *t) {
    return t->config->prefetch && (!t->ahead_units || t->unpacking);
}

/* Rows of the panel from `at` in each stream, of `row_bytes` bytes, the tile's columns first. */
static tw_lines lines_of(tw_gemm *t, const tw_val *at, int64_t rows, int64_t row_bytes) {
    int64_t width = row_bytes / TW_PANEL_ROWS * t->config->micro_n;
    tw_lines l = {.row_bytes = row_bytes, .in_row = tw_ceil_div(width, 64)};
    l.in_stream = rows * l.in_row;
    for (int s = 0; s < t->streams; s++) l.at[s] = at[s];
    l.count = t->streams * l.in_stream;
    return l;
}

/* Line i of them, or what lies `ahead` bytes behind it. */
static tw_val line_at(tw_gemm *t, const tw_lines *l, int64_t i, int64_t ahead) {
    int64_t inside = i % l->in_stream;
    int64_t offset = inside / l->in_row * l->row_bytes + inside % l->in_row * 64;
    return tw_at(t->g, l->at[i / l->in_stream], ahead + offset);
}

static void touch_lines(tw_gemm *t, const tw_lines *l) {
    for (int64_t i = 0; i < l->count && t->config->in_order; i++)
        tw_touch(t->g, line_at(t, l, i, 0));
}

/* What lies `prefetch` lines behind the next of them. */
static void prefetch_next(tw_gemm *t, tw_lines *l) {
    tw_prefetch(t->g, line_at(t, l, l->next++, (int64_t)t->config->prefetch * 64));
}

static void prefetch_rest(tw_gemm *t, tw_lines *l) {
    while (l->next < l->count) prefetch_next(t, l);
}

static void begin_lines(tw_gemm *t, tw_lines *l) {
    touch_lines(t, l);
    prefetch_rest(t, l);
}

/* Those of one array of the header, at `base` of it. */
static void begin_array(tw_gemm *t, tw_val unit, int64_t base, tw_dtype dtype) {
    tw_val each[TW_STREAMS];
    if (dtype == TW_NONE) return;
    int64_t size = tw_dtype_bits(dtype) / 8;
    tw_gemm_in_streams(t, tw_gemm_at_column(t, tw_at(t->g, unit, base), size), each);
    tw_lines lines = lines_of(t, each, t->panel.unit_groups, size * TW_PANEL_ROWS);
    begin_lines(t, &lines);
}

void tw_gemm_begin_header(tw_gemm *t, tw_val unit) {
    const tw_panel *p = &t->panel;
    if (!prefetches(t)) return;
    begin_array(t, unit, 0, p->scale);
    begin_array(t, unit, p->scale_bytes, p->zero);
}

void tw_gemm_begin_body(tw_gemm *t) {
    const tw_panel *p = &t->panel;
    if (!prefetches(t)) return;
    int64_t row_bytes = p->planes ? TW_PANEL_ROW_BYTES : p->chunk_bytes;
    int64_t rows = t->body_k / p->chunk_k * p->chunk_bytes / row_bytes;
    t->ahead_lines = lines_of(t, t->codes, rows, row_bytes);
    /* Codes of one plane are read in order by themselves. */
    if (p->planes > 1 && !t->held) touch_lines(t, &t->ahead_lines);
    for (int i = 0; i < t->held; i++)
        t->body[i] = tw_gemm_load_codes(t, i % t->nv, tw_i32(t->lanes),
                                        (int64_t)(i / t->nv) * TW_PANEL_ROW_BYTES);
}

void tw_gemm_end_body(tw_gemm *t) { prefetch_rest(t, &t->ahead_lines); }

void tw_gemm_begin_factors(tw_gemm *t, tw_val inside) {
    tw_if first;
    tw_val each[TW_STREAMS];
    if (!prefetches(t)) return;
    tw_if_begin(t->g, &first, tw_compare(t->g, TW_IR_EQ, inside, tw_k64(t->g, 0)));
    for (int s = 0; s < t->streams; s++) each[s] = tw_gemm_at_column(t, t->factors[s], 2);
    tw_lines lines = lines_of(t, each, t->panel.factor_bytes / TW_PANEL_FACTORS, TW_PANEL_FACTORS);
    begin_lines(t, &lines);
    tw_if_end(t->g, &first);
}

/* Where a group has vector v of its scales or zeros. */
static tw_val header_at(tw_gemm *t, int64_t base, tw_dtype dtype, int v) {
    int64_t size = tw_dtype_bits(dtype) / 8;
    tw_val row = tw_gemm_at_column(t, t->header[tw_gemm_stream(t, v)], size);
    return tw_at(t->g, row, base + tw_gemm_vector_at(t, v, size));
}

/* i8 codes at `base` in the header, in i32 lanes. */
static tw_val header_codes(tw_gemm *t, int64_t base, int v) {
    tw_val codes = tw_load(t->g, tw_i8(t->lanes), header_at(t, base, TW_I8, v), t->lanes);
    return tw_cast(t->g, TW_IR_SEXT, codes, tw_i32(t->lanes));
}

tw_val tw_gemm_factor(tw_gemm *t, int v, int64_t base) {
    tw_val run = tw_gemm_at_column(t, t->factors[tw_gemm_stream(t, v)], 2);
    tw_val at = tw_at(t->g, run, base + tw_gemm_vector_at(t, v, 2));
    return tw_load_f32(t->g, TW_F16, at, t->lanes, t->lanes * 2);
}

/* Of `stored` elements, at `base` in the header; with factors, those at `factors` in their run. */
static tw_val header_value(tw_gemm *t, int64_t base, tw_dtype stored, int v, int64_t factors) {
    tw_ir *g = t->g;
    if (!tw_panel_has_factors(&t->panel))
        return tw_load_f32(g, stored, header_at(t, base, stored, v), t->lanes,
                           t->lanes * tw_dtype_bits(stored) / 8);
    tw_val codes = tw_cast(g, TW_IR_SITOFP, header_codes(t, base, v), tw_f32(t->lanes));
    return t->late_factors ? codes : tw_fmul(g, codes, tw_gemm_factor(t, v, factors));
}

/* ---- the strip: what a unit has behind its codes, ready to use ---- */

typedef enum strip_value { STRIP_SCALE, STRIP_ZERO, STRIP_SUM, STRIP_VALUES } strip_value;

static bool strip_has(const tw_gemm *t, int value) {
    if (t->strip_bare) return false;
    switch (value) {
    case STRIP_SCALE: return t->panel.scale != TW_NONE && !t->strip_scaled;
    case STRIP_ZERO:
        return t->panel.zero == TW_U8 || (t->panel.zero != TW_NONE && !t->late_factors);
    default: return t->strip_sums;
    }
}

/* In bytes from the unit's first codes. */
static int64_t strip_value_at(const tw_gemm *t, int value, int v) {
    int64_t vectors = v;
    for (int i = 0; i < value; i++) vectors += strip_has(t, i) ? t->nv : 0;
    return tw_gemm_strip_at(t, 0, t->panel.unit_k) + vectors * t->lanes * 4;
}

int64_t tw_gemm_strip_stride(const tw_gemm *t) { return strip_value_at(t, STRIP_VALUES, 0); }

/* Whether values come from there. */
static bool in_strip(const tw_gemm *t) { return t->ahead_units && !t->unpacking; }

static tw_val load_strip(tw_gemm *t, strip_value value, int v, tw_ty ty) {
    return tw_load(t->g, ty, tw_at(t->g, t->unit_strip, strip_value_at(t, value, v)), t->lanes * 4);
}

static tw_val header_value_of(tw_gemm *t, int value, int v, const tw_val *sums) {
    switch (value) {
    case STRIP_SCALE: return t->word_sums ? tw_gemm_scale_words(t, v) : tw_gemm_scale(t, v);
    case STRIP_ZERO:
        return t->panel.zero == TW_U8 ? tw_gemm_code_zero(t, v) : tw_gemm_value_zero(t, v);
    default: return sums[v];
    }
}

void tw_gemm_fill_strip(tw_gemm *t, tw_val strip, const tw_val *sums) {
    for (int value = 0; value < STRIP_VALUES; value++)
        for (int v = 0; v < t->nv && strip_has(t, value); v++)
            tw_store(t->g, header_value_of(t, value, v, sums),
                     tw_at(t->g, strip, strip_value_at(t, value, v)), t->lanes * 4);
}

static tw_val header_scale(tw_gemm *t, int v) { return header_value(t, 0, t->panel.scale, v, 0); }

tw_val tw_gemm_scale(tw_gemm *t, int v) {
    return in_strip(t) ? load_strip(t, STRIP_SCALE, v, tw_f32(t->lanes)) : header_scale(t, v);
}

/* Of two units from `first` on, codes at `base` of their headers, as words: those of unit `low` of
 * the two in the low half of each lane, of the other in the high one. */
static tw_val two_codes(tw_gemm *t, tw_val first, int64_t base, int v, int low) {
    tw_ir *g = t->g;
    tw_val codes[2], header[TW_STREAMS];
    memcpy(header, t->header, sizeof header);
    for (int i = 0; i < 2; i++) {
        tw_gemm_in_streams(t, tw_at(g, first, i * t->panel.unit_stride), t->header);
        codes[i] = header_codes(t, base, v);
    }
    memcpy(t->header, header, sizeof header);
    return tw_or(g, tw_and(g, codes[low], tw_const_int(g, codes[low].ty, 0xffff)),
                 tw_shl(g, codes[!low], 16));
}

tw_val tw_gemm_scale_words(tw_gemm *t, int v) {
    if (in_strip(t)) return load_strip(t, STRIP_SCALE, v, tw_i32(t->lanes));
    if (t->group_pairs) return two_codes(t, t->pair, 0, v, 1);
    tw_val codes = header_codes(t, 0, v);
    if (!t->word_pairs) return tw_and(t->g, codes, tw_const_int(t->g, codes.ty, 0xffff));
    int low[2 * TW_TILE];
    for (int i = 0; i < 2 * t->lanes; i++) low[i] = i / 2 * 2;
    tw_val words = tw_bitcast(t->g, codes, tw_i16(2 * t->lanes));
    return tw_bitcast(t->g, tw_shuffle(t->g, words, words, low, 2 * t->lanes), codes.ty);
}

tw_val tw_gemm_code_sum(tw_gemm *t, int v) { return load_strip(t, STRIP_SUM, v, tw_i32(t->lanes)); }

tw_val tw_gemm_only_scale(tw_gemm *t, int v) {
    tw_gemm_in_streams(t, t->panel_w, t->factors);
    tw_gemm_in_streams(t, tw_at(t->g, t->panel_w, t->panel.factor_bytes), t->header);
    return header_scale(t, v);
}

/* From a group's scales to its zeros: all scales of the unit lie before all its zeros. */
static int64_t zeros_base(const tw_gemm *t, int64_t sub) {
    const tw_panel *p = &t->panel;
    int64_t zero_group = TW_PANEL_ROWS * tw_dtype_bits(p->zero) / 8;
    int64_t scale_group = TW_PANEL_ROWS * tw_dtype_bits(p->scale) / 8;
    return p->scale_bytes + sub * (zero_group - scale_group);
}

tw_val tw_gemm_value_zero(tw_gemm *t, int v) {
    if (in_strip(t)) return load_strip(t, STRIP_ZERO, v, tw_f32(t->lanes));
    return header_value(t, zeros_base(t, t->sub_group), t->panel.zero, v, TW_PANEL_FACTORS);
}

int64_t tw_gemm_pair_at(const tw_gemm *t, int v, int64_t u) {
    return (u / 2 * t->nv + v) * t->lanes * 4;
}

tw_val tw_gemm_zero_pairs(tw_gemm *t, int v, int64_t u) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    if (t->pairs.p)
        return tw_load(g, tw_i32(t->lanes), tw_at(g, t->pairs, tw_gemm_pair_at(t, v, u)),
                       t->lanes * 4);
    tw_val first = tw_at(g, t->run, p->factor_bytes + u * p->unit_stride);
    return two_codes(t, first, zeros_base(t, 0), v, 0);
}

tw_val tw_gemm_code_zero(tw_gemm *t, int v) {
    if (in_strip(t)) return load_strip(t, STRIP_ZERO, v, tw_i32(t->lanes));
    tw_val at = header_at(t, zeros_base(t, t->sub_group), TW_U8, v);
    return tw_cast(t->g, TW_IR_ZEXT, tw_load(t->g, tw_i8(t->lanes), at, t->lanes),
                   tw_i32(t->lanes));
}

tw_val tw_gemm_codes_at(tw_gemm *t, int v, int64_t bytes, int64_t offset) {
    return tw_at(t->g, t->codes[tw_gemm_stream(t, v)],
                 offset + tw_gemm_vector_at(t, v, bytes / t->lanes));
}

tw_val tw_gemm_codes_ahead(tw_gemm *t, int v, int64_t bytes, int64_t offset) {
    /* A line for a line. */
    if (v * bytes % 64 == 0 && t->ahead_lines.next < t->ahead_lines.count)
        prefetch_next(t, &t->ahead_lines);
    return tw_gemm_codes_at(t, v, bytes, offset);
}

tw_val tw_gemm_load_codes(tw_gemm *t, int v, tw_ty ty, int64_t offset) {
    int64_t bytes = tw_ty_bits(ty) / 8;
    return tw_load(t->g, ty, tw_gemm_codes_ahead(t, v, bytes, offset), (int)bytes);
}

tw_val tw_gemm_dwords(tw_gemm *t, int v, int plane, int64_t k) {
    const tw_panel *p = &t->panel;
    int64_t offset = k / p->chunk_k * p->chunk_bytes;
    for (int i = 0; i < plane; i++) offset += p->chunk_k * p->plane_bits[i] * TW_PANEL_ROWS / 8;
    offset += k % p->chunk_k / 4 / (8 / p->plane_bits[plane]) * TW_PANEL_ROW_BYTES;
    int64_t bytes = (int64_t)t->lanes * 4;
    if (t->held) return t->body[offset / TW_PANEL_ROW_BYTES * t->nv + v];
    bool first = t->loaded[plane][v].offset != offset;
    if (first || !t->holds) {
        tw_val at = first ? tw_gemm_codes_ahead(t, v, bytes, offset)
                          : tw_gemm_codes_at(t, v, bytes, offset);
        t->loaded[plane][v].value = tw_load(t->g, tw_i32(t->lanes), at, (int)bytes);
        t->loaded[plane][v].offset = offset;
    }
    return t->loaded[plane][v].value;
}

tw_val tw_gemm_unpacked(tw_gemm *t, int v, int64_t k) {
    tw_val at = tw_at(t->g, t->codes[0], tw_gemm_strip_at(t, v, k));
    return tw_load(t->g, tw_i32(t->lanes), at, t->lanes * 4);
}
