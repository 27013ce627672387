/* tw_pack_x of the templates that multiply floats: rows of x as f32, or as they are where x is bf16
 * and the product takes pairs of bf16; padded with zeros along K. */
#ifndef TW_TEMPLATES_CPU_REAL_PACK_H
#define TW_TEMPLATES_CPU_REAL_PACK_H

#include "templates/cpu/gemm.h"

/* The strides are those of f32 in either form. */
void tw_real_geometry(const tw_problem *problem, tw_geometry *out);
/* form: TW_F32 or TW_BF16, the dtype of packed x.  order: where each of four consecutive k goes
 * among the four, such that going twice leads back; NULL: they stay. */
void tw_real_emit_pack(tw_ir *g, const tw_problem *problem, tw_dtype form, const int order[4]);

#endif
