/* dlpack.h - tensors of other frameworks as tw_tensor, without a copy.
 *
 * An adapter in this header alone, over your own dlpack.h, of any version: include that first.
 *
 *     #include <dlpack/dlpack.h>
 *     #include <tilewright/dlpack.h>
 *
 * Nothing of DLPack is declared here.  Source of codes and packing: DLPack 1.1, dlpack.h
 * (github.com/dmlc/dlpack), whose numbers are its ABI and stand here as such, since older versions
 * do not name all of them.
 */
#ifndef TILEWRIGHT_DLPACK_H
#define TILEWRIGHT_DLPACK_H

#include <tilewright/tilewright.h>

#ifdef __cplusplus
#define TW_DLPACK_BYTES_(data) static_cast<char *>(data)
extern "C" {
#else
#define TW_DLPACK_BYTES_(data) ((char *)(data))
#endif

/* The dtype with DLPack's code and bits; TW_NONE where there is none.  float8_e4m3fn is e4m3,
 * float8_e8m0fnu e8m0; e4m3 and e5m2 of other kinds (fnuz, b11) have other values. */
static inline tw_dtype tw_dtype_from_dlpack(unsigned code, unsigned bits) {
    static const struct {
        unsigned code, bits;
        tw_dtype dtype;
    } rows[] = {
        /* kDLInt, kDLUInt: of 8 bits, and below with 1.1's packing */
        {0, 1, TW_I1},    {0, 2, TW_I2},   {0, 3, TW_I3}, {0, 4, TW_I4}, {0, 5, TW_I5},
        {0, 6, TW_I6},    {0, 7, TW_I7},   {0, 8, TW_I8}, {1, 1, TW_U1}, {1, 2, TW_U2},
        {1, 3, TW_U3},    {1, 4, TW_U4},   {1, 5, TW_U5}, {1, 6, TW_U6}, {1, 7, TW_U7},
        {1, 8, TW_U8},    {2, 32, TW_F32}, /* kDLFloat */
        {2, 16, TW_F16},                   /* kDLFloat */
        {4, 16, TW_BF16},                  /* kDLBfloat */
        {10, 8, TW_E4M3},                  /* kDLFloat8_e4m3fn */
        {12, 8, TW_E5M2},                  /* kDLFloat8_e5m2 */
        {14, 8, TW_E8M0},                  /* kDLFloat8_e8m0fnu */
        {15, 6, TW_E2M3},                  /* kDLFloat6_e2m3fn */
        {16, 6, TW_E3M2},                  /* kDLFloat6_e3m2fn */
        {17, 4, TW_E2M1},                  /* kDLFloat4_e2m1fn */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].code == code && rows[i].bits == bits) return rows[i].dtype;
    return TW_NONE;
}

/* Whether shape and strides are a tw_tensor's.  *contiguous: all strides are those of adjacent
 * rows; a dimension of one element may have any. */
static inline tw_status tw_dlpack_check_(const DLTensor *in, int32_t bits, int *contiguous,
                                         const char **why) {
    int64_t count = 1, last = in->shape[in->ndim - 1];
    int gaps = 0, bad_stride = 0;
    for (int32_t i = in->ndim - 1; i >= 0; i--) {
        int64_t n = in->shape[i];
        if (n < 0) return *why = "shape: negative", TW_INVALID;
        if (n > 0 && count > INT64_MAX / 64 / n) return *why = "shape: too large", TW_INVALID;
        if (in->strides && n > 1 && in->strides[i] != count) gaps = 1;
        if (in->strides && n > 1 && in->strides[i] <= 0) bad_stride = 1;
        count *= n;
    }
    *contiguous = !gaps || !count;
    if (!count) return TW_OK;
    if (bad_stride) return *why = "strides: not positive, copy the tensor first", TW_UNSUPPORTED;
    if (bits % 8 == 0) return TW_OK;
    if (gaps) return *why = "strides: elements below a byte must be contiguous", TW_UNSUPPORTED;
    /* DLPack packs on through all rows, and in a tw_tensor each row starts at a byte. */
    if (last * bits % 8 && count > last)
        return *why = "shape: rows of elements below a byte must end at a byte", TW_UNSUPPORTED;
    return TW_OK;
}

/* *out views the data of `in`, which must live as long; shape and strides are copied, and ownership
 * (DLManagedTensor) stays with the caller, who also refuses DLPack's flag for padded elements below
 * a byte.
 *   device       CPU memory, pinned or not
 *   dtype        lanes 1; tw_dtype_from_dlpack has the rest
 *   ndim         1 to 4
 *   strides      NULL, or positive; of a contiguous tensor they come out as zeros
 *   byte_offset  is added to data
 * Errors: INVALID (an argument or in->shape is NULL, a bad shape), UNSUPPORTED (device, dtype,
 * ndim, strides, rows that begin within a byte).  *out is untouched then, and *why, unless `why` is
 * NULL, is a static text that names the field and the rule; tw_error_message(), which is the
 * library's, knows nothing of it.  Thread rule: any thread. */
static inline tw_status tw_tensor_from_dlpack(const DLTensor *in, tw_tensor *out,
                                              const char **why) {
    const int64_t cpu = 1, cuda_host = 3, rocm_host = 11; /* of DLDeviceType */
    const char *unheard;
    if (!why) why = &unheard;
    if (!in || !out) return *why = "in, out: NULL, must be given", TW_INVALID;
    int64_t device = in->device.device_type;
    if (device != cpu && device != cuda_host && device != rocm_host)
        return *why = "device: not CPU memory", TW_UNSUPPORTED;
    tw_dtype dtype = tw_dtype_from_dlpack(in->dtype.code, in->dtype.bits);
    if (in->dtype.lanes != 1) return *why = "dtype: lanes must be 1", TW_UNSUPPORTED;
    if (dtype == TW_NONE) return *why = "dtype: none of Tilewright's", TW_UNSUPPORTED;
    if (in->ndim < 1 || in->ndim > 4) return *why = "ndim: must be 1 to 4", TW_UNSUPPORTED;
    if (!in->shape) return *why = "shape: NULL, must be given", TW_INVALID;
    int contiguous = 1;
    tw_status status = tw_dlpack_check_(in, tw_dtype_bits(dtype), &contiguous, why);
    if (status != TW_OK) return status;

    tw_tensor t = TW_TENSOR_1D(NULL, dtype, 0);
    if (in->data) t.data = TW_DLPACK_BYTES_(in->data) + in->byte_offset;
    t.ndim = in->ndim;
    int64_t adjacent = 1;
    for (int32_t i = in->ndim - 1; i >= 0; i--) {
        t.shape[i] = in->shape[i];
        if (!contiguous) t.stride[i] = in->shape[i] > 1 ? in->strides[i] : adjacent;
        adjacent *= in->shape[i];
    }
    *out = t;
    return TW_OK;
}

#ifdef __cplusplus
}
#endif
#endif
