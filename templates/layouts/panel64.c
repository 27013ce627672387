/* Packing and unpacking of panel64; the arithmetic of its geometry is in tw_panel_init alone. */
#include "templates/layouts/panel64.h"

#include <string.h>

#include "src/core/dtype.h"

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

/* Planes of an integer width: its set bits, widest first. */
static void set_planes(tw_panel *p, int bits) {
    for (int width = 8, shift = 0; width; width /= 2)
        if (bits & width) {
            p->plane_bits[p->planes] = width;
            p->plane_shift[p->planes++] = shift;
            shift += width;
        }
    /* The narrowest plane fills a dword with 32 / width codes. */
    p->chunk_k = 32 / p->plane_bits[p->planes - 1];
}

static void set_chunk(tw_panel *p, tw_dtype weight) {
    if (!tw_dtype_is_real(weight))
        set_planes(p, tw_dtype_bits(weight));
    else
        p->chunk_k = weight == TW_BF16 ? 2 : 1;
    p->chunk_bytes = p->chunk_k * tw_dtype_bits(weight) * TW_PANEL_ROWS / 8;
}

static tw_dtype stored_scale(tw_dtype scale) {
    return scale == TW_NONE || tw_dtype_is_real(scale) ? scale : TW_F32;
}

void tw_panel_init(const tw_problem *problem, tw_panel *p) {
    const tw_scheme *s = &problem->scheme;
    *p = (tw_panel){0};
    set_chunk(p, s->weight);
    p->group_k = tw_group_k(s, problem->K);
    p->groups = tw_groups(s, problem->K);
    p->unit_k = p->group_k;
    p->unit_groups = 1;
    if (p->groups == 1)
        p->unit_k =
            tw_round_up(problem->K, tw_dtype_is_real(s->weight) ? p->chunk_k : TW_PANEL_QUANTUM);
    else if (p->group_k < p->chunk_k) {
        p->unit_k = p->chunk_k;
        p->unit_groups = p->chunk_k / p->group_k;
    }
    p->units = tw_ceil_div(problem->K, p->unit_k);
    p->quantum_k = tw_max(p->chunk_k, gcd(p->unit_k, TW_PANEL_QUANTUM));
    p->unit_chunks = p->unit_k / p->chunk_k;
    int64_t last_k = tw_round_up(problem->K - (p->units - 1) * p->unit_k, p->quantum_k);
    p->last_chunks = last_k / p->chunk_k;
    p->scale = stored_scale(s->scale);
    p->zero = s->zero_mode == TW_ZERO_VALUE ? p->scale : tw_zero_dtype(s);
    p->scale_bytes = p->unit_groups * TW_PANEL_ROWS * tw_dtype_bits(p->scale) / 8;
    p->header_bytes = p->scale_bytes + p->unit_groups * TW_PANEL_ROWS * tw_dtype_bits(p->zero) / 8;
    p->unit_stride = p->header_bytes + p->unit_chunks * p->chunk_bytes;
    p->panel_stride =
        (p->units - 1) * p->unit_stride + p->header_bytes + p->last_chunks * p->chunk_bytes;
    p->panels = tw_ceil_div(problem->N, TW_PANEL_ROWS);
    p->padded_k = (p->units - 1) * p->unit_k + last_k;
}

static const char *reject(const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    if (tw_scheme_plain(s)) return NULL;
    tw_panel p = {0};
    set_chunk(&p, s->weight);
    int64_t g = tw_group_k(s, problem->K);
    if (tw_groups(s, problem->K) > 1 && g % p.chunk_k && p.chunk_k % g)
        return "panel64 needs a group along K that divides its chunk of K or is a multiple of it.";
    return NULL;
}

static size_t bytes(const tw_problem *problem) {
    tw_panel p;
    tw_panel_init(problem, &p);
    return (size_t)(p.panel_stride * p.panels);
}

/* Where unit u of panel n/64 begins, in a packed matrix. */
static uint8_t *unit_at(const tw_panel *p, uint8_t *packed, int64_t n, int64_t u) {
    return packed + n / TW_PANEL_ROWS * p->panel_stride + u * p->unit_stride;
}

/* Code of step t and byte b of a dword of plane i: 4 * t + b. */
static void pack_dword(const tw_panel *p, int i, const uint8_t *codes, uint8_t *dword) {
    int bits = p->plane_bits[i];
    unsigned mask = (1u << bits) - 1;
    for (int b = 0; b < 4; b++) {
        unsigned byte = 0;
        for (int t = 0; t < 8 / bits; t++)
            byte |= ((unsigned)codes[4 * t + b] >> p->plane_shift[i] & mask) << t * bits;
        dword[b] = (uint8_t)byte;
    }
}

static void unpack_dword(const tw_panel *p, int i, uint8_t *codes, const uint8_t *dword) {
    int bits = p->plane_bits[i];
    unsigned mask = (1u << bits) - 1;
    for (int b = 0; b < 4; b++)
        for (int t = 0; t < 8 / bits; t++) {
            uint8_t *code = &codes[4 * t + b];
            *code = (uint8_t)(*code | ((unsigned)dword[b] >> t * bits & mask) << p->plane_shift[i]);
        }
}

/* Moves one row between its canonical codes and its dwords, a chunk at a time.  K beyond the row
 * packs as 0. */
static void move_row(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n,
                     uint8_t *row, bool to_packed) {
    tw_dtype d = problem->scheme.weight;
    for (int64_t u = 0; u < p->units; u++) {
        uint8_t *dword = unit_at(p, packed, n, u) + p->header_bytes + n % TW_PANEL_ROWS * 4;
        int64_t chunks = u + 1 == p->units ? p->last_chunks : p->unit_chunks;
        const ptrdiff_t dwords =
            (ptrdiff_t)TW_PANEL_ROWS * 4; /* from one of this row to its next */
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            int64_t k = u * p->unit_k + chunk * p->chunk_k,
                    count = tw_min(p->chunk_k, problem->K - k);
            uint8_t codes[32] = {0};
            if (to_packed && count > 0) tw_codes_get(row, d, k, count, codes);
            for (int i = 0; i < p->planes; i++)
                for (int64_t at = 0; at < p->chunk_k;
                     at += 32 / p->plane_bits[i], dword += dwords) {
                    if (to_packed)
                        pack_dword(p, i, codes + at, dword);
                    else
                        unpack_dword(p, i, codes + at, dword);
                }
            if (!to_packed && count > 0) tw_codes_set(row, d, k, count, codes);
        }
    }
}

static void move_codes(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                       int64_t n1, uint8_t *weight, bool to_packed) {
    size_t row_bytes = tw_dtype_row_bytes(problem->scheme.weight, problem->K);
    for (int64_t n = n0; n < n1; n++)
        move_row(problem, p, packed, n, weight + (size_t)n * row_bytes, to_packed);
}

/* Plain floats: f32 and f16 as [K][64], bf16 as [K/2][64][2]. */
static uint8_t *plain_at(const tw_panel *p, uint8_t *packed, tw_dtype d, int64_t n, int64_t k) {
    int64_t size = tw_dtype_bits(d) / 8, row = n % TW_PANEL_ROWS;
    uint8_t *panel = packed + n / TW_PANEL_ROWS * p->panel_stride;
    return panel + k / p->chunk_k * p->chunk_bytes + row * p->chunk_k * size +
           k % p->chunk_k * size;
}

static void copy_plain(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                       int64_t n1, uint8_t *weight, bool to_packed) {
    tw_dtype d = problem->scheme.weight;
    size_t size = (size_t)tw_dtype_bits(d) / 8;
    for (int64_t n = n0; n < n1; n++)
        for (int64_t k = 0; k < problem->K; k++) {
            uint8_t *inside = plain_at(p, packed, d, n, k),
                    *outside = weight + (size_t)(n * problem->K + k) * size;
            memcpy(to_packed ? inside : outside, to_packed ? outside : inside, size);
        }
}

/* Scales that panel64 keeps as f32 (e8m0, e4m3) go back to the code that has that value. */
static void store_scale(void *scales, tw_dtype d, int64_t i, float value) {
    if (tw_dtype_is_real(d)) {
        tw_float_set(scales, d, i, value);
        return;
    }
    for (int code = 0; code < 256; code++) {
        uint8_t byte = (uint8_t)code;
        float got = tw_float_get(&byte, d, 0);
        if (!memcmp(&got, &value, sizeof got)) {
            ((uint8_t *)scales)[i] = byte;
            return;
        }
    }
}

/* Calls for every (row, group) of the panels: index into the canonical scales, slot into the
 * header. */
static void copy_header(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                        int64_t n1, const tw_canonical *from, void *scales, void *zeros) {
    const tw_scheme *s = &problem->scheme;
    int64_t group_n = tw_group_n(s, problem->N);
    for (int64_t n = n0; n < n1; n++)
        for (int64_t j = 0; j < p->groups; j++) {
            uint8_t *unit = unit_at(p, packed, n, j / p->unit_groups);
            int64_t slot = j % p->unit_groups * TW_PANEL_ROWS + n % TW_PANEL_ROWS;
            int64_t index = n / group_n * p->groups + j;
            uint8_t *zero = unit + p->scale_bytes;
            if (from) {
                tw_float_set(unit, p->scale, slot, tw_float_get(from->scales, s->scale, index));
                if (p->zero == TW_U8)
                    zero[slot] = ((const uint8_t *)from->zeros)[index];
                else if (p->zero)
                    tw_float_set(zero, p->zero, slot, tw_float_get(from->zeros, s->scale, index));
                continue;
            }
            if (scales) store_scale(scales, s->scale, index, tw_float_get(unit, p->scale, slot));
            if (!zeros) continue;
            if (p->zero == TW_U8)
                ((uint8_t *)zeros)[index] = zero[slot];
            else if (p->zero)
                store_scale(zeros, s->scale, index, tw_float_get(zero, p->zero, slot));
        }
}

_Static_assert(TW_PACK_ROWS % TW_PANEL_ROWS == 0, "parts of the packing are whole panels");
static void pack(const tw_problem *problem, const tw_canonical *canonical, int64_t n0, int64_t n1,
                 void *packed) {
    tw_panel p;
    tw_panel_init(problem, &p);
    int64_t first = n0 / TW_PANEL_ROWS, count = tw_ceil_div(n1, TW_PANEL_ROWS) - first;
    /* What pads rows and panels is 0. */
    memset((char *)packed + first * p.panel_stride, 0, (size_t)(count * p.panel_stride));
    if (tw_scheme_plain(&problem->scheme)) {
        copy_plain(problem, &p, packed, n0, n1, (uint8_t *)canonical->weight, true);
        return;
    }
    move_codes(problem, &p, packed, n0, n1, (uint8_t *)canonical->weight, true);
    copy_header(problem, &p, packed, n0, n1, canonical, NULL, NULL);
}

static void unpack(const tw_problem *problem, const void *packed, void *weight, void *scales,
                   void *zeros) {
    tw_panel p;
    tw_panel_init(problem, &p);
    if (tw_scheme_plain(&problem->scheme)) {
        if (weight) copy_plain(problem, &p, (uint8_t *)packed, 0, problem->N, weight, false);
        return;
    }
    if (weight) {
        memset(weight, 0,
               tw_dtype_row_bytes(problem->scheme.weight, problem->K) * (size_t)problem->N);
        move_codes(problem, &p, (uint8_t *)packed, 0, problem->N, weight, false);
    }
    if (scales || zeros)
        copy_header(problem, &p, (uint8_t *)packed, 0, problem->N, NULL, scales, zeros);
}

const tw_layout tw_layout_panel64 = {"panel64", 1, reject, bytes, pack, unpack};
