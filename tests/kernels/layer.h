/* tests/kernels: every row of templates.def against the oracle, on every target that this CPU runs.
 * This file: one layer's generated data in canonical form, x, and what the oracle makes of them. */
#ifndef TW_TESTS_KERNELS_LAYER_H
#define TW_TESTS_KERNELS_LAYER_H

#include "src/core/problem.h"
#include "src/core/reference.h"

typedef enum layer_data {
    /* Codes with many extremes, scales that differ by group (zero and negative ones too), zeros off
     * the middle, rows of x of eight kinds: loud, quiet, outliers, all zero, ... */
    LAYER_RANDOM,
    /* Integers and powers of two throughout, so that every sum in f32 is exact; for a=i8, i8z
     * and i8full the scale of x comes out as 1.  K up to 200. */
    LAYER_EXACT,
    /* The same with the largest codes, in one row of four the least, against the largest x: where
     * narrow sums saturate or wrap. */
    LAYER_EXTREME,
    /* Most codes are their group's zero: z = -c * scale as the scale's dtype has it, one code in
     * eight beside c.  What is left of the products is small beside them. */
    LAYER_CANCEL,
    /* LAYER_RANDOM, but x has two loud elements in sixteen: magnitudes in a group add up to little,
     * as most models' do. */
    LAYER_PEAKS,
    /* x is the K x K unit matrix: M becomes K. */
    LAYER_IDENTITY,
} layer_data;

typedef struct layer {
    tw_problem problem; /* M: rows of x */
    void *weight, *scales, *zeros, *bias, *x;
    float lut[TW_LUT4_SIZE];
    float *bias_f32; /* as kernels want it: round_up(N, 64) entries */
    float *x_f32;    /* [M][K] */
    /* [M][N], as tw_reference_row gives them, for each way to multiply that the problem allows */
    double *expected[TW_FPMATHS], *magnitude[TW_FPMATHS];
} layer;

void layer_init(layer *l, const tw_problem *problem, layer_data data, uint64_t seed);
/* Another of the same data, without the oracle's: for a test that changes something in it. */
void layer_copy(layer *to, const layer *from);
void layer_free(layer *l);

static inline tw_canonical layer_canonical(const layer *l) {
    return (tw_canonical){l->weight, l->scales, l->zeros, l->bias, l->lut, 0};
}
/* Scales (and zeros) of one layer. */
static inline int64_t layer_scales(const layer *l) {
    const tw_problem *p = &l->problem;
    return tw_scale_rows(&p->scheme, p->N) * tw_groups(&p->scheme, p->K);
}
/* The tests' way to write a problem; fails the process on text that is none. */
tw_problem problem_of(const char *text);

#endif
