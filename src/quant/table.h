/* Weights of few values that scales stretch: sixteen by a table, such as NF4's, and BitNet's
 * three. */
#ifndef TW_QUANT_TABLE_H
#define TW_QUANT_TABLE_H

#include "src/base/base.h"

/* x is [N,K], rows one after another; scales [ceil(N / group_n), ceil(K / group_k)]; codes are
 * canonical rows. */
typedef struct tw_blocks {
    int64_t N, K;
    int64_t group_n, group_k; /* extents that share one scale, at least 1 */
    tw_dtype x, scale;        /* f32, f16 or bf16 */
} tw_blocks;

/* NF4, the quantiles of a normal distribution scaled to [-1, 1], 0 among them; ascending.
 * Source: QLoRA (Dettmers et al., arXiv:2305.14314), appendix E. */
extern const float tw_nf4_values[16];

/* s = amax of the group / the largest of the table's sixteen by magnitude; q = the table's value
 * nearest to x / s in f32, the first of those as near; in a group of zeros the one nearest to 0.
 * Errors: INVALID (a field of b; NaN or infinity in x or in the table; a table of zeros). */
tw_status tw_table_quantize(const tw_blocks *b, const float *table, const void *x, void *scales,
                            void *codes);
/* s = mean of |x|, added in double, at least 1e-5; q = round(x / s) within -1..1, half to even, as
 * i2.  Errors: as above.
 * Source: BitNet b1.58 (Ma et al., arXiv:2402.17764), of whole tensors; torchao's
 * quantize_bitnet_weight, which bounds only the divisor, where s is below 1e-5. */
tw_status tw_ternary_quantize(const tw_blocks *b, const void *x, void *scales, void *codes);

#endif
