/* Every sentence names the argument, its value and the rule. */
#include "src/check.h"

#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/base/str.h"
#include "src/core/dtype.h"

static tw_status struct_size(const char *name, const void *given, size_t *size) {
    if (!given) return tw_fail(TW_INVALID, "%s: NULL, must be given", name);
    memcpy(size, given, sizeof *size);
    if (*size < sizeof *size)
        return tw_fail(TW_INVALID, "%s: struct_size %zu, the _INIT macro sets it", name, *size);
    return TW_OK;
}

tw_status tw_struct_read(const char *name, const void *given, size_t size, void *out) {
    size_t theirs = 0;
    TW_TRY(struct_size(name, given, &theirs));
    for (size_t i = size; i < theirs; i++)
        if (((const char *)given)[i])
            return tw_fail(TW_INVALID,
                           "%s: struct_size %zu, and a field beyond the %zu bytes that this "
                           "version knows is set",
                           name, theirs, size);
    memset(out, 0, size);
    memcpy(out, given, theirs < size ? theirs : size);
    return TW_OK;
}

tw_status tw_struct_write(const char *name, const void *full, size_t size, void *given) {
    size_t theirs = 0;
    TW_TRY(struct_size(name, given, &theirs));
    size_t count = theirs < size ? theirs : size;
    memcpy((char *)given + sizeof theirs, (const char *)full + sizeof theirs,
           count - sizeof theirs);
    return TW_OK;
}

/* "[4096,31]" */
static void shape_text(int ndim, const int64_t *shape, tw_str *out) {
    for (int i = 0; i < ndim && i < 4; i++)
        tw_str_add(out, "%s%lld", i ? "," : "[", (long long)shape[i]);
    tw_str_add(out, "%s", ndim > 0 ? "]" : "[]");
}

static tw_status fail_missing(const char *name, tw_dtype dtype, int ndim, const int64_t *shape) {
    tw_str want = {0};
    shape_text(ndim, shape, &want);
    tw_fail(TW_INVALID, "%s: NULL, expected %s of %s", name, tw_str_text(&want),
            tw_dtype_name(dtype));
    tw_str_free(&want);
    return TW_INVALID;
}

static tw_status fail_shape(const char *name, const tw_tensor *t, int ndim, const int64_t *shape) {
    tw_str got = {0}, want = {0};
    shape_text(t->ndim, t->shape, &got);
    shape_text(ndim, shape, &want);
    tw_fail(TW_INVALID, "%s: %d dimensions of shape %s, expected %s", name, t->ndim,
            tw_str_text(&got), tw_str_text(&want));
    tw_str_free(&got);
    tw_str_free(&want);
    return TW_INVALID;
}

bool tw_tensor_contiguous(const tw_tensor *t) {
    int64_t expected = 1;
    bool zero = true, dense = true;
    for (int i = t->ndim - 1; i >= 0; i--) {
        zero = zero && !t->stride[i];
        dense = dense && (t->stride[i] == expected || t->shape[i] == 1);
        expected *= t->shape[i];
    }
    return zero || dense;
}

int64_t tw_tensor_stride(const tw_tensor *t, int dim) {
    bool zero = true;
    int64_t product = 1;
    for (int i = 0; i < t->ndim; i++) zero = zero && !t->stride[i];
    for (int i = dim + 1; i < t->ndim; i++) product *= t->shape[i];
    return zero ? product : t->stride[dim];
}

static tw_status check_address(const char *name, const tw_tensor *t) {
    uintptr_t align = (uintptr_t)tw_dtype_bits(t->dtype) / 8;
    if (!t->data) return tw_fail(TW_INVALID, "%s: data is NULL", name);
    if (align > 1 && (uintptr_t)t->data % align)
        return tw_fail(TW_INVALID, "%s: data %p, must be aligned to %d bytes for %s", name, t->data,
                       (int)align, tw_dtype_name(t->dtype));
    return TW_OK;
}

static tw_status check_strides(const char *name, const tw_tensor *t) {
    if (tw_tensor_contiguous(t)) return TW_OK;
    if (tw_dtype_bits(t->dtype) % 8)
        return tw_fail(TW_INVALID, "%s: strides [%lld,%lld], %s must be contiguous", name,
                       (long long)t->stride[0], (long long)t->stride[1], tw_dtype_name(t->dtype));
    int64_t last = 0;
    for (int i = 0; i < t->ndim; i++) {
        int64_t span;
        if (t->stride[i] < 1 || __builtin_mul_overflow(t->stride[i], t->shape[i] * 4, &span) ||
            __builtin_add_overflow(last, span, &last))
            return tw_fail(TW_INVALID,
                           "%s: stride[%d] %lld, must be positive and stay in memory (all 0: "
                           "contiguous)",
                           name, i, (long long)t->stride[i]);
    }
    return TW_OK;
}

tw_status tw_check_tensor(const char *name, const tw_tensor *t, tw_dtype dtype, int ndim,
                          const int64_t *shape) {
    if (!t) return fail_missing(name, dtype, ndim, shape);
    if (t->dtype != dtype)
        return tw_fail(TW_INVALID, "%s: dtype %s, expected %s", name, tw_dtype_name(t->dtype),
                       tw_dtype_name(dtype));
    bool same = t->ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t->shape[i] == shape[i];
    if (!same) return fail_shape(name, t, ndim, shape);
    TW_TRY(check_address(name, t));
    return check_strides(name, t);
}

/* The slow way that says what is wrong with rows that were not accepted. */
static tw_status fail_rows(const char *name, const tw_tensor *t, tw_dtype dtype, int64_t columns) {
    if (t->dtype != dtype)
        return tw_fail(TW_INVALID, "%s: dtype %s, expected %s", name, tw_dtype_name(t->dtype),
                       tw_dtype_name(dtype));
    if (t->ndim != 2 || t->shape[0] < 0 || t->shape[1] != columns) {
        tw_str got = {0};
        shape_text(t->ndim, t->shape, &got);
        tw_fail(TW_INVALID, "%s: %d dimensions of shape %s, expected [M,%lld] with M >= 0", name,
                t->ndim, tw_str_text(&got), (long long)columns);
        tw_str_free(&got);
        return TW_INVALID;
    }
    if ((t->stride[0] || t->stride[1]) && t->stride[1] != 1)
        return tw_fail(TW_INVALID, "%s: stride[1] %lld, must be 1 (or all strides 0: contiguous)",
                       name, (long long)t->stride[1]);
    if (t->shape[0] > 1 && t->stride[1] && t->stride[0] < columns)
        return tw_fail(TW_INVALID, "%s: stride[0] %lld, must be at least the %lld columns of a row",
                       name, (long long)t->stride[0], (long long)columns);
    if (t->shape[0]) TW_TRY(check_address(name, t));
    return tw_fail(TW_INVALID, "%s: %lld rows with stride[0] %lld, more than memory holds", name,
                   (long long)t->shape[0], (long long)t->stride[0]);
}

tw_status tw_check_rows(const char *name, const tw_tensor *t, tw_dtype dtype, int64_t columns,
                        int64_t *stride, int64_t *bytes) {
    if (!t) return tw_fail(TW_INVALID, "%s: NULL, must be given", name);
    int64_t rows = t->shape[0], width = dtype == TW_F32 ? 4 : 2, row = columns * width;
    bool dense = !(t->stride[0] | t->stride[1]);
    bool ok = t->dtype == dtype && t->ndim == 2 && rows >= 0 && t->shape[1] == columns &&
              (dense || t->stride[1] == 1) && (dense || rows <= 1 || t->stride[0] >= columns) &&
              (!rows || (t->data && (uintptr_t)t->data % (uintptr_t)width == 0));
    /* A single row has no next one: whatever stride[0] says is not looked at. */
    *stride = dense || rows <= 1 ? row : 0;
    ok = ok && (*stride || !__builtin_mul_overflow(t->stride[0], width, stride));
    ok = ok && !__builtin_mul_overflow(rows ? rows - 1 : 0, *stride, bytes) &&
         !__builtin_add_overflow(*bytes, rows ? row : 0, bytes);
    return ok ? TW_OK : fail_rows(name, t, dtype, columns);
}

tw_status tw_check_factors(const char *name, const void *data, int64_t rows, int64_t columns,
                           int64_t apart) {
    const tw_pair *row = data;
    for (int64_t n = 0; n < rows; n++, row += columns)
        for (int64_t j = 0; j < columns; j++) {
            const tw_pair *first = &row[j - j % apart];
            if (row[j].rest)
                return tw_fail(TW_INVALID, "%s: top byte of [%lld,%lld] is 0x%02x, must be 0", name,
                               (long long)n, (long long)j, row[j].rest);
            if (row[j].factor != first->factor)
                return tw_fail(TW_INVALID,
                               "%s: factor 0x%04x at [%lld,%lld], expected 0x%04x: one for each "
                               "%lld groups",
                               name, row[j].factor, (long long)n, (long long)j, first->factor,
                               (long long)apart);
        }
    return TW_OK;
}

/* Whether none of the elements has the exponent of infinity and NaN: one pass without branches. */
static bool all_finite(const void *data, tw_dtype dtype, int64_t count) {
    bool found = false;
    if (dtype == TW_F32) {
        const uint32_t *bits = data;
        for (int64_t i = 0; i < count; i++) found |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    } else if (dtype == TW_F16 || dtype == TW_BF16) {
        uint16_t mask = dtype == TW_F16 ? 0x7c00 : 0x7f80;
        const uint16_t *bits = data;
        for (int64_t i = 0; i < count; i++) found |= (bits[i] & mask) == mask;
    } else if (dtype == TW_F16I8) {
        const uint32_t *bits = data;
        for (int64_t i = 0; i < count; i++) found |= (bits[i] & 0x7c00) == 0x7c00;
    } else {
        return false;
    }
    return !found;
}

tw_status tw_check_finite(const char *name, const void *data, tw_dtype dtype, int64_t rows,
                          int64_t columns) {
    if (all_finite(data, dtype, rows * columns)) return TW_OK;
    for (int64_t i = 0; i < rows * columns; i++) {
        float value = tw_float_get(data, dtype, i);
        if (!isfinite(value))
            return tw_fail(TW_INVALID, "%s: %s at [%lld,%lld], must be finite", name,
                           isnan(value) ? "NaN" : "infinity", (long long)(i / columns),
                           (long long)(i % columns));
    }
    return TW_OK;
}

tw_status tw_check_padding(const char *name, const void *data, tw_dtype dtype, int64_t rows,
                           int64_t columns) {
    int used = (int)(columns * tw_dtype_bits(dtype) % 8);
    size_t row_bytes = tw_dtype_row_bytes(dtype, columns);
    for (int64_t n = 0; used && n < rows; n++) {
        unsigned last = ((const uint8_t *)data)[((size_t)n + 1) * row_bytes - 1];
        if (last >> used)
            return tw_fail(TW_INVALID,
                           "%s: last byte of row %lld is 0x%02x, its pad bits must be 0", name,
                           (long long)n, last);
    }
    return TW_OK;
}
