/* Weights of one column of K as f32 vectors, and the end of a group, for the templates that
 * multiply floats.
 *
 * Codes turn into floats by OR-ing them into the mantissa of a power of two; one subtraction of
 * that power plus the zero is then exact, and takes the zero off before the product, where it
 * cannot cancel against large sums.  Codes of one plane stay at their bit place: in the mantissa of
 * 2^(23 - place), a code at bit `place` counts in ones, so one shift serves the upper half of a
 * dword and none the lower.
 *
 * With value zeros the weight itself is made, q * s + z rounded as docs/numerics.md defines it:
 * scaled sums of codes plus zero * sum(x) would leave small weights to differences of large sums.
 */
#ifndef TW_TEMPLATES_CPU_DEQUANT_H
#define TW_TEMPLATES_CPU_DEQUANT_H

#include "templates/cpu/float_codes.h"

enum {
    TW_DEQUANT_HALF = 16,  /* bits of a dword that are read without a shift */
    TW_DEQUANT_FOLD = 256, /* the longest chain of f32 sums before it is folded into the total */
};

typedef struct tw_dequant {
    /* What turns mantissa bits into q - zero, per place of the code and vector: a constant, or,
     * with code zeros, a stack slot, which the subtraction reads as its memory operand. */
    tw_val offset[TW_DEQUANT_HALF][TW_TILE];
    tw_val scale[TW_TILE], zero[TW_TILE]; /* with value zeros: stack slots of the group's */
    tw_float_codes floats;                /* of codes that are no integers */
} tw_dequant;

/* At the function's start, and at the start of each group. */
void tw_dequant_begin(tw_dequant *self, tw_gemm *t);
void tw_dequant_group(tw_dequant *self, tw_gemm *t);
/* Vector v of column k of the body in f32: q - zero, exactly, or a float code's value; with value
 * zeros and plain weights, w. */
tw_val tw_dequant_column(tw_dequant *self, tw_gemm *t, int v, int64_t k);
/* total += scale * acc, or acc where it is sums of weights already. */
void tw_dequant_fold(tw_gemm *t, const tw_val *acc, tw_val *total);
/* L of docs/numerics.md for folds every fold_k columns, with so many additions a column. */
int64_t tw_dequant_chain_of(const tw_problem *problem, int64_t fold_k, int64_t additions);
int64_t tw_dequant_chain(const tw_problem *problem);

#endif
