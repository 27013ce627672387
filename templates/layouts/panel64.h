/* panel64: 64 rows of w side by side, K in chunks; one stream a panel, scales ahead of what they
 * scale.
 *
 *   panel = 64 rows of N: units along K
 *   unit  = scales [groups in it][64], zeros [groups in it][64], then chunks
 *   chunk = chunk_k columns of K: dwords [chunk_bytes / 256][64 rows][4 bytes]
 *
 * Scales and value zeros of f16i8 are a byte each in their unit, and each run of units that 256
 * columns of K make begins with their factors: f16 [64] of the scales, then of the zeros.
 *
 * A unit is one group, or, where a chunk holds several groups, one chunk.  Integer codes are stored
 * as code - smallest code, so always unsigned; codes of narrow floats and of tables as they are.
 * Widths that are no power of two are sums of planes (5 = 4 + 1: the low four bits, then the high
 * one).  A plane of p bits packs 8/p steps into a dword: step t of dword i holds, at bits
 * [t*p, t*p+p) of each of its four bytes, the codes k of 4 * (i * 8/p + t) + byte.  So one shift
 * and mask give a vector of rows with four consecutive k in each 32-bit lane: what vpdpbusd,
 * vpmaddubsw and friends multiply with four broadcast bytes of x.
 */
#ifndef TW_TEMPLATES_LAYOUTS_PANEL64_H
#define TW_TEMPLATES_LAYOUTS_PANEL64_H

#include "templates/layouts/layout.h"

enum { TW_PANEL_ROWS = 64, TW_PANEL_PLANES = 3, TW_PANEL_QUANTUM = 32 };
/* Bytes of the factors of one array, scales or zeros, in a run. */
enum { TW_PANEL_FACTORS = TW_PANEL_ROWS * 2 };
/* Of a plane: a dword of each row of weights. */
enum { TW_PANEL_ROW_BYTES = TW_PANEL_ROWS * 4 };

typedef struct tw_panel {
    int planes, plane_bits[TW_PANEL_PLANES], plane_shift[TW_PANEL_PLANES];
    int64_t chunk_k, chunk_bytes;
    int64_t group_k, groups; /* of the scheme; K and 1 when it covers the dimension */
    int64_t unit_k, unit_groups, units;
    int64_t unit_chunks, last_chunks; /* the last unit may be short: a multiple of the quantum */
    int64_t quantum_k;                /* divides every unit: what a loop body may consume at once */
    tw_dtype scale;                   /* as stored: f32, f16, bf16, i8 with factors; TW_NONE */
    tw_dtype zero;                    /* u8, or as the scale; TW_NONE */
    int64_t scale_bytes, header_bytes; /* of one unit: scales; scales and zeros */
    int64_t run_units;                 /* units that have their factors together; or all */
    int64_t factor_bytes;              /* of one run: 0 without factors */
    int64_t unit_stride, run_stride, panel_stride, panels;
    int64_t padded_k; /* what a kernel walks through: K and the zero codes after it */
} tw_panel;

/* Requires that panel64 does not reject the problem. */
void tw_panel_init(const tw_problem *problem, tw_panel *p);

static inline bool tw_panel_has_factors(const tw_panel *p) { return p->factor_bytes > 0; }
/* From a panel to its unit u. */
static inline int64_t tw_panel_unit_at(const tw_panel *p, int64_t u) {
    if (!tw_panel_has_factors(p)) return u * p->unit_stride; /* packing asks for each group */
    return u / p->run_units * p->run_stride + p->factor_bytes + u % p->run_units * p->unit_stride;
}

extern const tw_layout tw_layout_panel64;

#endif
