/* src/quant: what every quantizer asks of its arguments; INVALID names the one that is wrong. */
#ifndef TW_QUANT_CHECK_H
#define TW_QUANT_CHECK_H

#include "src/base/base.h"

/* x [N,K] of f32, f16 or bf16. */
tw_status tw_check_x(int64_t N, int64_t K, tw_dtype dtype);
/* Groups of group_n rows by group_k columns. */
tw_status tw_check_group(int64_t group_n, int64_t group_k);

#endif
