/* f32 vectors from and to memory of any float dtype, on every target. */
#ifndef TW_TEMPLATES_CPU_CONVERT_H
#define TW_TEMPLATES_CPU_CONVERT_H

#include "codegen/cpu/ir.h"

/* lanes 0: a scalar.  f32, f16 and bf16. */
tw_val tw_load_f32(tw_ir *g, tw_dtype from, tw_val pointer, int lanes, int align);
/* Rounds half to even; NaN stays NaN. */
void tw_store_f32(tw_ir *g, tw_dtype to, tw_val value, tw_val pointer, int align);
/* f32 with the nearest bf16's value, half to even; NaN stays NaN. */
tw_val tw_round_to_bf16(tw_ir *g, tw_val value);
/* One element from memory in every lane. */
tw_val tw_broadcast(tw_ir *g, tw_ty vector, tw_val pointer);
/* op over all lanes; the result is in every lane of a vector of at most four.  The lanes must be a
 * power of two. */
tw_val tw_reduce(tw_ir *g, tw_binop op, tw_val vector);

#endif
