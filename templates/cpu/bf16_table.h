/* Codes of up to four bits as pairs of bf16, by a look-up in a table that one register holds: a
 * shift and vpermw make a pair where unpacking by arithmetic takes seven instructions.
 *
 * A dword of panel64 has four consecutive k in its bytes, so its 16-bit halves hold k and k + 2,
 * or, eight bits further, k + 1 and k + 3: packed x comes in that order.  The look-up reads five
 * bits of each half.  Without code zeros the table repeats itself, and what else is in those bits
 * does not matter.  With them it is indexed by code - zero, which fits while zeros are at most 16,
 * as those of quantizers are; what a larger zero has beyond that is multiplied with x by itself, in
 * a loop over the group's x that runs only where such a zero is. */
#ifndef TW_TEMPLATES_CPU_BF16_TABLE_H
#define TW_TEMPLATES_CPU_BF16_TABLE_H

#include "templates/cpu/gemm.h"

typedef struct tw_bf16_table {
    tw_val table;          /* in a register */
    tw_val words[TW_TILE]; /* with code zeros, stack slots: those of the group, at most 16, twice in
                             * each lane */
} tw_bf16_table;

/* Where each of four consecutive k of packed x goes among the four. */
extern const int tw_bf16_table_order[4];

bool tw_bf16_table_serves(const tw_problem *problem);
/* At the function's start. */
void tw_bf16_table_begin(tw_bf16_table *self, tw_gemm *t);
/* Start of a group: its zeros, and first values of the accumulators. */
void tw_bf16_table_group(tw_bf16_table *self, tw_gemm *t, tw_val *acc);
/* Pair i (0, 1) of the four columns from k, relative to the body, of vector v, in i32 lanes. */
tw_val tw_bf16_table_pair(tw_bf16_table *self, tw_gemm *t, int v, int64_t k, int i);
/* acc + both products of each lane of two pairs. */
tw_val tw_bf16_dot(tw_gemm *t, tw_val acc, tw_val x, tw_val w);

#endif
