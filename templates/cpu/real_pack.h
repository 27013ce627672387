/* tw_pack_x of the templates that multiply floats: rows of x as f32, or as bf16 where the product
 * takes pairs of those; padded with zeros along K. */
#ifndef TW_TEMPLATES_CPU_REAL_PACK_H
#define TW_TEMPLATES_CPU_REAL_PACK_H

#include "templates/cpu/gemm.h"

/* Rows as long as those of f32, in either form. */
void tw_real_geometry(const tw_problem *problem, tw_geometry *out);
/* form: TW_F32 or TW_BF16, the dtype of packed x, to which it is rounded (f32 to bf16: half to
 * even, subnormals to 0).  xq_stride: of packed rows, in bytes.  order: where each of four
 * consecutive k goes among the four, such that going twice leads back; NULL: they stay. */
void tw_real_emit_pack(tw_ir *g, const tw_problem *problem, tw_dtype form, int64_t xq_stride,
                       const int order[4]);

#endif
