/* Cutting canonical tensors: see tw_slice. */
#include <string.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

/* Half-open ranges of rows and columns. */
typedef struct range {
    int64_t from, to;
} range;

static tw_status check_range(const char *name, range r, int64_t size) {
    if (r.from >= 0 && r.from < r.to && r.to <= size) return TW_OK;
    return tw_fail(TW_INVALID, "%s: [%lld,%lld), must be within [0,%lld) and not empty", name,
                   (long long)r.from, (long long)r.to, (long long)size);
}

/* A range that takes parts of what shares a scale would have had another. */
static tw_status check_boundaries(const char *name, range r, int64_t size, int64_t group,
                                  const char *what) {
    if (r.from % group == 0 && (r.to % group == 0 || r.to == size)) return TW_OK;
    return tw_fail(TW_INVALID, "%s: [%lld,%lld), scales belong to %s of %lld, which it cuts", name,
                   (long long)r.from, (long long)r.to, what, (long long)group);
}

/* Rows and columns of a tensor of elements of any width. */
static void cut(const tw_tensor *from, range rows, range columns, void *to) {
    tw_dtype d = from->dtype;
    size_t bits = (size_t)tw_dtype_bits(d), in_row = tw_dtype_row_bytes(d, from->shape[1]);
    int64_t count = columns.to - columns.from;
    size_t out_row = tw_dtype_row_bytes(d, count);
    for (int64_t n = rows.from; n < rows.to; n++) {
        const char *source = (const char *)from->data + (size_t)n * in_row;
        char *target = (char *)to + (size_t)(n - rows.from) * out_row;
        if ((size_t)columns.from * bits % 8 == 0 && (size_t)count * bits % 8 == 0) {
            memcpy(target, source + (size_t)columns.from * bits / 8, out_row);
            continue;
        }
        uint8_t codes[256];
        memset(target, 0, out_row);
        for (int64_t k = 0, some; k < count; k += some) {
            some = tw_min((int64_t)sizeof codes, count - k);
            tw_codes_get(source, d, columns.from + k, some, codes);
            tw_codes_set(target, d, k, some, codes);
        }
    }
}

static tw_status slice(const char *name, const tw_tensor *in, tw_tensor *out, tw_dtype dtype,
                       const int64_t shape[2], range rows, range columns) {
    if (dtype == TW_NONE) {
        if (in) return tw_fail(TW_INVALID, "%s: given, but the scheme has none", name);
        if (out) *out = (tw_tensor){.data = out->data};
        return TW_OK;
    }
    TW_TRY(tw_check_tensor(name, in, dtype, 2, shape));
    if (!tw_tensor_contiguous(in))
        return tw_fail(TW_INVALID, "%s: strides [%lld,%lld], must be contiguous", name,
                       (long long)in->stride[0], (long long)in->stride[1]);
    if (!out) return TW_OK;
    void *data = out->data;
    *out = (tw_tensor)TW_TENSOR_2D(data, dtype, rows.to - rows.from, columns.to - columns.from);
    if (data) cut(in, rows, columns, data);
    return TW_OK;
}

tw_status tw_slice(const tw_scheme *scheme, int64_t N, int64_t K, const tw_canonical_views *in,
                   int64_t n0, int64_t n1, int64_t k0, int64_t k1, const tw_canonical_views *out) {
    if (!scheme) return tw_fail(TW_INVALID, "scheme: NULL, must be given");
    if (!in) return tw_fail(TW_INVALID, "in: NULL, must be given");
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    tw_problem p = {.N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = *scheme};
    TW_TRY(tw_problem_check(&p));
    range rows = {n0, n1}, columns = {k0, k1};
    TW_TRY(check_range("rows", rows, N));
    TW_TRY(check_range("columns", columns, K));
    range scale_rows = {0, 0}, groups = {0, 0};
    if (!tw_scheme_plain(scheme)) {
        int64_t group_n = tw_group_n(scheme, N), group_k = tw_group_k(scheme, K);
        TW_TRY(check_boundaries("rows", rows, N, group_n, "blocks of rows"));
        TW_TRY(check_boundaries("columns", columns, K, group_k, "groups of columns"));
        if (scheme->scale == TW_F16I8 && k0 % TW_FACTOR_K)
            return tw_fail(TW_INVALID, "columns: [%lld,%lld), factors of f16i8 begin each %d",
                           (long long)k0, (long long)k1, TW_FACTOR_K);
        scale_rows = (range){n0 / group_n, tw_ceil_div(n1, group_n)};
        groups = (range){k0 / group_k, tw_ceil_div(k1, group_k)};
    }
    const int64_t shape[] = {N, K};
    const int64_t scales[] = {tw_scale_rows(scheme, N), tw_groups(scheme, K)};
    tw_dtype zero = tw_zero_dtype(scheme);
    TW_TRY(slice("weight", in->weight, out->weight, scheme->weight, shape, rows, columns));
    TW_TRY(slice("scales", in->scales, out->scales, scheme->scale, scales, scale_rows, groups));
    return slice("zeros", in->zeros, out->zeros, zero, scales, scale_rows, groups);
}
