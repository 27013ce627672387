/* What callers hand in, checked: structs by their size, tensors by dtype, shape, strides,
 * address. */
#ifndef TW_SRC_CHECK_H
#define TW_SRC_CHECK_H

#include "src/base/base.h"

/* Copies a caller's struct of `size` bytes as this library knows it: what an older caller's
 * struct lacks becomes zero, a newer caller's fields must be zero. Errors: INVALID. */
tw_status tw_struct_read(const char *name, const void *given, size_t size, void *out);
/* The other way round, as much as the caller's struct_size covers.  Errors: INVALID. */
tw_status tw_struct_write(const char *name, const void *full, size_t size, void *given);

/* A tensor that is read: dtype and shape as given, with data, aligned; sub-byte codes contiguous.
 * Errors: INVALID. */
tw_status tw_check_tensor(const char *name, const tw_tensor *t, tw_dtype dtype, int ndim,
                          const int64_t *shape);
bool tw_tensor_contiguous(const tw_tensor *t);
/* Elements from one index of a dimension to the next. */
int64_t tw_tensor_stride(const tw_tensor *t, int dim);

/* Rows of x or y: two-dimensional, `columns` wide, stride[1] 1. *stride receives the bytes from
 * row to row, *bytes what the tensor spans. Errors: INVALID. */
tw_status tw_check_rows(const char *name, const tw_tensor *t, tw_dtype dtype, int64_t columns,
                        int64_t *stride, int64_t *bytes);

/* Elements of f16i8: their factors are equal in each `apart` columns. */
tw_status tw_check_factors(const char *name, const void *data, int64_t rows, int64_t columns,
                           int64_t apart);
/* Canonical values that a kernel could not digest: NaN, infinities, codes in pad bits. */
tw_status tw_check_finite(const char *name, const void *data, tw_dtype dtype, int64_t rows,
                          int64_t columns);
tw_status tw_check_padding(const char *name, const void *data, tw_dtype dtype, int64_t rows,
                           int64_t columns);

#endif
