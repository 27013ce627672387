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
    if (scale == TW_F16I8) return TW_I8;
    return scale == TW_NONE || tw_dtype_is_real(scale) ? scale : TW_F32;
}

/* Runs of units, and the panel they make. */
static void set_runs(const tw_scheme *s, int64_t last_k, tw_panel *p) {
    bool factors = s->scale == TW_F16I8, values = s->zero_mode == TW_ZERO_VALUE;
    p->run_units = factors ? tw_max(1, TW_FACTOR_K / p->unit_k) : p->units;
    p->factor_bytes = factors ? TW_PANEL_FACTORS * (values ? 2 : 1) : 0;
    p->run_stride = p->factor_bytes + p->run_units * p->unit_stride;
    p->panel_stride =
        tw_panel_unit_at(p, p->units - 1) + p->header_bytes + last_k / p->chunk_k * p->chunk_bytes;
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
    set_runs(s, last_k, p);
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
    return packed + n / TW_PANEL_ROWS * p->panel_stride + tw_panel_unit_at(p, u);
}

/* ---- codes ---- */

static uint32_t load_word(const uint8_t *from) {
    uint32_t word;
    return memcpy(&word, from, sizeof word), word;
}

/* Between codes, one a byte, and one dword of a plane: code 4 * t + b is at step t of byte b.  Four
 * codes move as one word, since a plane's bits never leave the byte of their code. */
static inline void move_dword(int bits, int shift, uint8_t *codes, uint8_t *dword, bool to_packed) {
    uint32_t mask = ((1u << bits) - 1) * 0x01010101u, word = to_packed ? 0 : load_word(dword);
    for (int t = 0; t < 8 / bits; t++) {
        uint8_t *at = codes + 4 * (ptrdiff_t)t;
        uint32_t four = load_word(at);
        if (to_packed) {
            word |= (four >> shift & mask) << t * bits;
        } else {
            four |= (word >> t * bits & mask) << shift;
            memcpy(at, &four, sizeof four);
        }
    }
    if (to_packed) memcpy(dword, &word, sizeof word);
}

/* Some chunks of a row, as far apart as `stride`; dword is where the plane has its first. */
typedef struct run {
    const tw_panel *panel;
    int shift;
    int64_t chunks;
    uint8_t *codes, *dword;
    ptrdiff_t stride;
} run;

/* single: the plane is the only one, a chunk one dword of it, and chunks are adjacent. */
static inline void move_run(int bits, bool single, const run *r, bool to_packed) {
    const ptrdiff_t next = TW_PANEL_ROW_BYTES; /* from one dword of a row to its next */
    const int64_t chunk_k = single ? 32 / bits : r->panel->chunk_k;
    const ptrdiff_t stride = single ? next : r->stride;
    uint8_t *codes = r->codes, *chunk = r->dword;
    for (int64_t i = r->chunks; i; i--, chunk += stride) {
        uint8_t *dword = chunk;
        for (int64_t at = 0; at < chunk_k; at += 32 / bits, dword += next)
            move_dword(bits, r->shift, codes + at, dword, to_packed);
        codes += chunk_k;
    }
}

/* The width as a constant, which the loops above are made for. */
static void move_plane(int bits, const run *r, bool to_packed) {
    bool single = r->panel->planes == 1 && r->stride == r->panel->chunk_bytes;
    if (!to_packed) {
        move_run(bits, false, r, false);
    } else if (single) {
        if (bits == 8) move_run(8, true, r, true);
        if (bits == 4) move_run(4, true, r, true);
        if (bits == 2) move_run(2, true, r, true);
        if (bits == 1) move_run(1, true, r, true);
    } else {
        if (bits == 8) move_run(8, false, r, true);
        if (bits == 4) move_run(4, false, r, true);
        if (bits == 2) move_run(2, false, r, true);
        if (bits == 1) move_run(1, false, r, true);
    }
}

/* Chunks [first, first + count) of a row, counted through its units, whose codes lie in `codes`. */
static void move_chunks(const tw_panel *p, uint8_t *packed, int64_t n, int64_t first, int64_t count,
                        uint8_t *codes, bool to_packed) {
    int64_t u = tw_min(first / p->unit_chunks, p->units - 1), inside = first - u * p->unit_chunks;
    const int64_t ahead = p->header_bytes + n % TW_PANEL_ROWS * 4;
    int64_t plane[TW_PANEL_PLANES] = {0}; /* from a chunk to this plane's dwords in it */
    for (int i = 1; i < p->planes; i++)
        plane[i] = plane[i - 1] + p->chunk_k * p->plane_bits[i - 1] / 32 * TW_PANEL_ROW_BYTES;
    /* Units of one chunk, as Q6_K's, go by the run. */
    const bool small = p->unit_chunks == 1;
    for (int64_t some; count; count -= some, codes += some * p->chunk_k, inside = 0) {
        uint8_t *chunk = unit_at(p, packed, n, u) + ahead + inside * p->chunk_bytes;
        some = small               ? tw_min(count, p->run_units - u % p->run_units)
               : u + 1 == p->units ? count
                                   : tw_min(count, p->unit_chunks - inside);
        for (int i = 0; i < p->planes; i++) {
            run r = {p,     p->plane_shift[i], some,
                     codes, chunk + plane[i],  small ? p->unit_stride : p->chunk_bytes};
            move_plane(p->plane_bits[i], &r, to_packed);
        }
        u += small ? some : 1;
    }
}

/* Moves one row between its canonical codes and its dwords.  K beyond the row packs as 0. */
typedef enum direction { UNPACK, PACK, PACK_WIDE } direction;
static void move_row(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n,
                     uint8_t *row, direction way) {
    enum { SOME = 2048 }; /* codes at a time: a multiple of any chunk */
    tw_dtype d = problem->scheme.weight;
    uint8_t codes[SOME];
    int64_t chunks = (p->units - 1) * p->unit_chunks + p->last_chunks, some;
    for (int64_t chunk = 0; chunk < chunks; chunk += some) {
        some = tw_min(SOME / p->chunk_k, chunks - chunk);
        int64_t k = chunk * p->chunk_k, whole = some * p->chunk_k,
                count = tw_max(tw_min(whole, problem->K - k), 0);
        if (way == PACK) tw_codes_get(row, d, k, count, codes);
        if (way == PACK_WIDE) tw_codes_widened(row + k, d, count, codes);
        /* Codes are unpacked plane by plane into zeros. */
        int64_t zeros = way == UNPACK ? 0 : count;
        memset(codes + zeros, 0, (size_t)(whole - zeros));
        move_chunks(p, packed, n, chunk, some, codes, way != UNPACK);
        if (way == UNPACK) tw_codes_set(row, d, k, count, codes);
    }
}

static void move_codes(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                       int64_t n1, uint8_t *weight, direction way) {
    size_t row_bytes =
        tw_dtype_row_bytes(way == PACK_WIDE ? TW_U8 : problem->scheme.weight, problem->K);
    for (int64_t n = n0; n < n1; n++)
        move_row(problem, p, packed, n, weight + (size_t)n * row_bytes, way);
}

/* ---- plain floats: f32 and f16 as [K][64], bf16 as [K/2][64][2] ---- */

/* `count` elements of `size` bytes, one after another on one side, a row of the panel apart on the
 * other. */
static inline void move_elements(size_t size, int64_t count, uint8_t *panel, uint8_t *row,
                                 bool to_packed) {
    for (int64_t i = 0; i < count; i++, panel += TW_PANEL_ROWS * size, row += size)
        memcpy(to_packed ? panel : row, to_packed ? row : panel, size);
}

static void copy_plain(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                       int64_t n1, uint8_t *weight, bool to_packed) {
    enum { SOME = 64 }; /* of K at a time, so that a row's lines serve all of the panel's rows */
    int64_t size = tw_dtype_bits(problem->scheme.weight) / 8, unit = size * p->chunk_k,
            units = problem->K / p->chunk_k, rest = problem->K % p->chunk_k * size;
    for (int64_t panel = n0; panel < n1; panel += TW_PANEL_ROWS)
        for (int64_t u = 0; u <= units; u += SOME)
            for (int64_t n = panel; n < tw_min(panel + TW_PANEL_ROWS, n1); n++) {
                uint8_t *inside = packed + n / TW_PANEL_ROWS * p->panel_stride +
                                  u * p->chunk_bytes + n % TW_PANEL_ROWS * unit,
                        *outside = weight + n * problem->K * size + u * unit;
                int64_t some = tw_min(SOME, units - u);
                if (unit == 2)
                    move_elements(2, some, inside, outside, to_packed);
                else
                    move_elements(4, some, inside, outside, to_packed);
                if (u + SOME <= units) continue;
                inside += some * p->chunk_bytes;
                outside += some * unit;
                memcpy(to_packed ? inside : outside, to_packed ? outside : inside, (size_t)rest);
            }
}

/* ---- scales and zeros ---- */

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

/* An array of the headers, scales or zeros: of elements `is` in the canonical tensor. */
typedef struct header {
    tw_dtype is, stored;
    int64_t offset;  /* in a unit */
    int64_t factors; /* in a run */
} header;

static header scales_of(const tw_problem *problem, const tw_panel *p) {
    return (header){problem->scheme.scale, p->scale, 0, 0};
}

static header zeros_of(const tw_problem *problem, const tw_panel *p) {
    tw_dtype is = p->zero == TW_U8 ? TW_U8 : problem->scheme.scale;
    return (header){is, p->zero, p->scale_bytes, TW_PANEL_FACTORS};
}

/* f16i8 of rows [n0, n1) of one panel: factors to where the run has this array's, codes to the
 * units.  Unit by unit, so that rows fill lines: a row by itself would come back to each of them
 * (loading a K-quant model takes a third less). */
static void load_pairs(const tw_panel *p, uint8_t *panel, int64_t n0, int64_t n1, int64_t group_n,
                       const tw_pair *from, header h) {
    const tw_pair *rows[TW_PANEL_ROWS] = {NULL};
    const int64_t first = n0 % TW_PANEL_ROWS, end = first + n1 - n0;
    for (int64_t row = first; row < end; row++)
        rows[row] = from + (n0 + row - first) / group_n * p->groups;
    for (int64_t j = 0, u = 0; j < p->groups; u++) {
        if (u % p->run_units == 0)
            for (int64_t row = first; row < end; row++)
                memcpy(panel + u / p->run_units * p->run_stride + h.factors + row * 2,
                       &rows[row][j].factor, 2);
        uint8_t *codes = panel + tw_panel_unit_at(p, u) + h.offset;
        for (int64_t i = 0; i < p->unit_groups && j < p->groups; i++, j++, codes += TW_PANEL_ROWS)
            for (int64_t row = first; row < end; row++) codes[row] = (uint8_t)rows[row][j].code;
    }
}

/* Those of one value each. */
static void load_values(const tw_panel *p, uint8_t *packed, int64_t n0, int64_t n1, int64_t group_n,
                        const void *from, header h) {
    size_t size = (size_t)tw_dtype_bits(h.stored) / 8;
    for (int64_t n = n0; n < n1; n++) {
        int64_t index = n / group_n * p->groups, row = n % TW_PANEL_ROWS, inside = 0;
        uint8_t *unit = unit_at(p, packed, n, 0) + h.offset;
        for (int64_t j = 0, u = 0; j < p->groups; j++, index++) {
            int64_t slot = inside * TW_PANEL_ROWS + row;
            if (h.is != h.stored)
                tw_float_set(unit, h.stored, slot, tw_float_get(from, h.is, index));
            else if (size == 2)
                memcpy(unit + slot * 2, (const uint8_t *)from + index * 2, 2);
            else if (size == 4)
                memcpy(unit + slot * 4, (const uint8_t *)from + index * 4, 4);
            else
                unit[slot] = ((const uint8_t *)from)[index];
            if (++inside < p->unit_groups) continue;
            inside = 0;
            unit = unit_at(p, packed, n, ++u) + h.offset;
        }
    }
}

/* Rows [n0, n1) into their places. */
static void load_header(const tw_problem *problem, const tw_panel *p, uint8_t *packed, int64_t n0,
                        int64_t n1, const void *from, header h) {
    int64_t group_n = tw_group_n(&problem->scheme, problem->N);
    if (h.is != TW_F16I8) {
        load_values(p, packed, n0, n1, group_n, from, h);
        return;
    }
    for (int64_t n = n0, end; n < n1; n = end) {
        int64_t panel = n / TW_PANEL_ROWS;
        end = tw_min(n1, (panel + 1) * TW_PANEL_ROWS);
        load_pairs(p, packed + panel * p->panel_stride, n, end, group_n, from, h);
    }
}

/* The other way, all rows. */
static void store_header(const tw_problem *problem, const tw_panel *p, uint8_t *packed, void *to,
                         header h) {
    int64_t group_n = tw_group_n(&problem->scheme, problem->N);
    for (int64_t n = 0; n < problem->N; n++)
        for (int64_t j = 0; j < p->groups; j++) {
            int64_t u = j / p->unit_groups, row = n % TW_PANEL_ROWS;
            uint8_t *unit = unit_at(p, packed, n, u) + h.offset;
            int64_t slot = j % p->unit_groups * TW_PANEL_ROWS + row;
            int64_t index = n / group_n * p->groups + j;
            if (h.is == TW_U8) {
                ((uint8_t *)to)[index] = unit[slot];
            } else if (h.is == TW_F16I8) {
                tw_pair *pair = (tw_pair *)to + index;
                *pair = (tw_pair){.code = (int8_t)unit[slot]};
                memcpy(&pair->factor,
                       packed + n / TW_PANEL_ROWS * p->panel_stride +
                           u / p->run_units * p->run_stride + h.factors + row * 2,
                       sizeof pair->factor);
            } else {
                store_scale(to, h.is, index, tw_float_get(unit, h.stored, slot));
            }
        }
}

_Static_assert(TW_PACK_ROWS % TW_PANEL_ROWS == 0, "parts of the packing are whole panels");
static void pack(const tw_problem *problem, const tw_canonical *canonical, bool wide, int64_t n0,
                 int64_t n1, void *packed) {
    tw_panel p;
    tw_panel_init(problem, &p);
    int64_t first = n0 / TW_PANEL_ROWS, count = tw_ceil_div(n1, TW_PANEL_ROWS) - first;
    /* What pads rows and panels is 0. */
    if ((n1 - n0) % TW_PANEL_ROWS || p.padded_k != problem->K)
        memset((char *)packed + first * p.panel_stride, 0, (size_t)(count * p.panel_stride));
    if (tw_scheme_plain(&problem->scheme)) {
        copy_plain(problem, &p, packed, n0, n1, (uint8_t *)canonical->weight, true);
        return;
    }
    move_codes(problem, &p, packed, n0, n1, (uint8_t *)canonical->weight, wide ? PACK_WIDE : PACK);
    load_header(problem, &p, packed, n0, n1, canonical->scales, scales_of(problem, &p));
    if (p.zero) load_header(problem, &p, packed, n0, n1, canonical->zeros, zeros_of(problem, &p));
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
        move_codes(problem, &p, (uint8_t *)packed, 0, problem->N, weight, UNPACK);
    }
    if (scales) store_header(problem, &p, (uint8_t *)packed, scales, scales_of(problem, &p));
    if (zeros && p.zero) store_header(problem, &p, (uint8_t *)packed, zeros, zeros_of(problem, &p));
}

const tw_layout tw_layout_panel64 = {"panel64", 1, reject, bytes, pack, unpack};
