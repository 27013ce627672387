/* What the kernels of the matrix unit (AMX) share: its instructions, and the walk over a task's
 * column of tiles.  A register of the unit holds 16 rows of 64 bytes, and
 *
 *   C[m][n] += sum over k of X[m][k] * W[k][n]    16 rows m, 16 columns n, 64 bytes of k
 *
 * with four bytes of consecutive k of each n side by side in W: four codes, or two bf16.  Codes are
 * unpacked ahead, a stretch of K at a time, into the strip, whose lines are rows of W:
 *
 *   for stretch of K: unpack its columns into the strip
 *     for tile of rows: the kernel's part of the stretch */
#ifndef TW_TEMPLATES_CPU_AMX_UNIT_H
#define TW_TEMPLATES_CPU_AMX_UNIT_H

#include "codegen/cpu/tiles.h"
#include "templates/cpu/gemm.h"

/* Of a register of products: columns of N; and most vectors of N side by side. */
enum { TW_AMX_COLUMNS = 16, TW_AMX_VECTORS = 2 };

/* Units of the panel, or bodies of the only one, [first, end) of a stretch. */
typedef struct tw_amx_stretch {
    tw_val first, end;
    tw_val is_first, is_last;
} tw_amx_stretch;

typedef struct tw_amx_unit {
    const char *dot; /* the intrinsic that multiplies */
    int rows;        /* of a tile: 16 or 32 */
    int64_t bytes;   /* of a row of X: 64, or a group that is shorter */
    int64_t step;    /* units or bodies of a stretch */
    bool x_once;     /* x is read once a stretch: not to take the strip's place in the L1 cache */
    bool whole;      /* a stretch is all of K: totals do not wait for the next one */
    tw_val host;     /* how the unit was configured before */
    tw_amx_stretch stretch;
    void (*unpack)(tw_gemm *t);   /* the stretch at hand into the strip */
    void (*multiply)(tw_gemm *t); /* it by the tile of rows at hand, whose totals are at t->tile */
} tw_amx_unit;

/* What tiles of a config the unit takes; NULL: this one.  whole: a stretch is all of K. */
const char *tw_amx_reject_tile(const tw_config *c, bool whole);
/* Columns of K of a stretch: as few as there can be of at most `most`, of equal length. */
int64_t tw_amx_even(int64_t K, int64_t most, int64_t step);

/* The function's start, and end, which leaves the unit as it was. */
void tw_amx_begin(tw_gemm *t, tw_amx_unit *unit);
void tw_amx_end(tw_gemm *t, tw_amx_unit *unit);

/* All registers of a tile's products, which are, or come to be, at `at`, [row][vector]. */
void tw_amx_zero_products(tw_gemm *t, const tw_amx_unit *unit);
void tw_amx_load_products(tw_gemm *t, const tw_amx_unit *unit, tw_val at);
void tw_amx_store_products(tw_gemm *t, const tw_amx_unit *unit, tw_val at);
/* Adds the products of `bytes` of K, of packed x at `x` by lines of the strip at `w`.  known: the
 * same where it is known here, else 0; few are unrolled. */
void tw_amx_multiply(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val w, tw_val bytes,
                     int64_t known);

/* Adds those of the stretch at hand to the sums at t->tile. */
void tw_amx_add_stretch(tw_gemm *t, const tw_amx_unit *unit, tw_val x, tw_val bytes);

/* Whether there is one group along K, so that a stretch is of its bodies. */
bool tw_amx_by_bodies(const tw_gemm *t);
/* Bodies of the stretch at hand into the strip, where there is one group. */
void tw_amx_unpack_bodies(tw_gemm *t, const tw_amx_stretch *stretch);
/* Hook `column` of tw_gemm_ops. */
void tw_amx_column(tw_gemm *t, tw_amx_unit *unit, tw_val m0);

#endif
