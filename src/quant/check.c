/* See check.h. */
#include "src/quant/check.h"

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

tw_status tw_check_x(int64_t N, int64_t K, tw_dtype dtype) {
    if (N < 1 || N > TW_MAX_DIM || K < 1 || K > TW_MAX_DIM)
        return tw_fail(TW_INVALID, "x: shape [%lld,%lld], both must be from 1 to %d", (long long)N,
                       (long long)K, TW_MAX_DIM);
    if (!tw_dtype_is_real(dtype))
        return tw_fail(TW_INVALID, "x: dtype %s, expected f32, f16 or bf16", tw_dtype_name(dtype));
    return TW_OK;
}

tw_status tw_check_group(int64_t group_n, int64_t group_k) {
    if (group_n < 1 || group_k < 1)
        return tw_fail(TW_INVALID, "group: %lldx%lld, both must be at least 1", (long long)group_n,
                       (long long)group_k);
    return TW_OK;
}
