/* The public face of src/quant/affine.h: what a caller hands in is checked and completed here. */
#include "src/quant/affine.h"

#include <stdlib.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/core/dtype.h"
#include "src/quant/check.h"

static tw_status need(const char *name, const void *p) {
    return p ? TW_OK : tw_fail(TW_INVALID, "%s: NULL, must be given", name);
}

/* The caller's struct, *full, and what the primitives take of it. */
static tw_status read_desc(const tw_affine_desc *given, tw_affine_desc *full, tw_affine *out) {
    TW_TRY(tw_struct_read("desc", given, sizeof *full, full));
    const tw_affine_desc *d = full;
    tw_dtype x = d->x ? d->x : TW_F32;
    bool whole = !d->qmin && !d->qmax;
    if ((unsigned)d->zero_mode > TW_ZERO_VALUE)
        return tw_fail(TW_INVALID, "desc: zero_mode: %d, expected 0 to 2", (int)d->zero_mode);
    if ((unsigned)d->mapping > TW_MAPPING_ASYMMETRIC)
        return tw_fail(TW_INVALID, "desc: mapping: %d, expected 0 to 2", (int)d->mapping);
    if (!(d->eps >= 0 && d->eps <= 1))
        return tw_fail(TW_INVALID, "desc: eps: %g, expected 0 to 1", d->eps);
    if (!tw_dtype_is_int(d->code))
        return tw_fail(TW_INVALID, "desc: code: %s, expected an integer dtype",
                       tw_dtype_name(d->code));
    TW_TRY(tw_check_x(d->N, d->K, x));
    if (d->group_n < 0 || d->group_k < 0)
        return tw_fail(TW_INVALID, "desc: %s: %lld, must be 0 or more",
                       d->group_n < 0 ? "group_n" : "group_k",
                       (long long)(d->group_n < 0 ? d->group_n : d->group_k));
    if (d->keep_range && (d->zero_mode != TW_ZERO_CODE || d->mapping != TW_MAPPING_ASYMMETRIC))
        return tw_fail(TW_INVALID,
                       "desc: keep_range: %d, only CODE zeros of an asymmetric mapping "
                       "have it",
                       d->keep_range);
    *out = (tw_affine){.N = d->N,
                       .K = d->K,
                       .group_n = d->group_n ? d->group_n : d->N,
                       .group_k = d->group_k ? d->group_k : d->K,
                       .x = x,
                       .scale = d->scale ? d->scale : x,
                       .code = d->code,
                       .qmin = whole ? tw_dtype_min(d->code) : d->qmin,
                       .qmax = whole ? tw_dtype_max(d->code) : d->qmax};
    return tw_affine_check(out);
}

/* zeros are there where the mode has some, and CODE's within the codes' range. */
static tw_status check_zeros(const tw_affine_desc *d, const tw_affine *a, const void *zeros,
                             bool read) {
    if (d->zero_mode == TW_ZERO_NONE)
        return zeros ? tw_fail(TW_INVALID, "zeros: given, but desc's zero_mode is none") : TW_OK;
    TW_TRY(need("zeros", zeros));
    if (!read || d->zero_mode != TW_ZERO_CODE) return TW_OK;
    int64_t count = tw_ceil_div(a->N, a->group_n) * tw_ceil_div(a->K, a->group_k);
    for (int64_t i = 0; i < count; i++) {
        int32_t zero = ((const int32_t *)zeros)[i];
        if (zero < a->qmin || zero > a->qmax)
            return tw_fail(TW_INVALID, "zeros[%lld]: %d, must be from %d to %d", (long long)i, zero,
                           a->qmin, a->qmax);
    }
    return TW_OK;
}

/* Without zeros: those that a symmetric mapping chooses are the 0 that signed codes have. */
static tw_status choose_scales(const tw_affine_desc *d, const tw_affine *a, const void *x,
                               void *scales) {
    if (d->mapping == TW_MAPPING_ASYMMETRIC)
        return tw_fail(TW_INVALID, "desc: mapping: asymmetric, needs zeros");
    if ((a->qmax + a->qmin + 1) / 2)
        return tw_fail(TW_INVALID, "desc: qmin, qmax: %d to %d, centred on %d, which needs zeros",
                       a->qmin, a->qmax, (a->qmax + a->qmin + 1) / 2);
    int64_t count = tw_ceil_div(a->N, a->group_n) * tw_ceil_div(a->K, a->group_k);
    int32_t *zeros = malloc((size_t)count * sizeof *zeros);
    if (!zeros) return tw_fail(TW_MEMORY, "out of memory for %lld zeros", (long long)count);
    tw_status status = tw_affine_choose(a, d->mapping, true, d->eps, x, scales, zeros);
    free(zeros);
    return status;
}

tw_status tw_choose_qparams(const tw_affine_desc *desc, const void *x, void *scales, void *zeros) {
    tw_affine_desc d;
    tw_affine a;
    TW_TRY(read_desc(desc, &d, &a));
    TW_TRY(need("x", x));
    TW_TRY(need("scales", scales));
    TW_TRY(check_zeros(&d, &a, zeros, false));
    switch (d.zero_mode) {
    case TW_ZERO_VALUE: return tw_affine_choose_values(&a, d.eps, x, scales, zeros);
    case TW_ZERO_NONE: return choose_scales(&d, &a, x, scales);
    default: return tw_affine_choose(&a, d.mapping, !d.keep_range, d.eps, x, scales, zeros);
    }
}

tw_status tw_quantize_affine(const tw_affine_desc *desc, const void *x, const void *scales,
                             const void *zeros, void *codes) {
    tw_affine_desc d;
    tw_affine a;
    TW_TRY(read_desc(desc, &d, &a));
    TW_TRY(need("x", x));
    TW_TRY(need("scales", scales));
    TW_TRY(need("codes", codes));
    TW_TRY(check_zeros(&d, &a, zeros, true));
    return d.zero_mode == TW_ZERO_VALUE ? tw_affine_quantize_values(&a, x, scales, zeros, codes)
                                        : tw_affine_quantize(&a, x, scales, zeros, codes);
}

tw_status tw_dequantize_affine(const tw_affine_desc *desc, const void *codes, const void *scales,
                               const void *zeros, void *x) {
    tw_affine_desc d;
    tw_affine a;
    TW_TRY(read_desc(desc, &d, &a));
    TW_TRY(need("codes", codes));
    TW_TRY(need("scales", scales));
    TW_TRY(need("x", x));
    TW_TRY(check_zeros(&d, &a, zeros, true));
    return d.zero_mode == TW_ZERO_VALUE ? tw_affine_dequantize_values(&a, codes, scales, zeros, x)
                                        : tw_affine_dequantize(&a, codes, scales, zeros, x);
}

tw_status tw_fake_quantize(const tw_affine_desc *desc, const void *x, const void *scales,
                           const void *zeros, void *y, uint8_t *mask) {
    tw_affine_desc d;
    tw_affine a;
    TW_TRY(read_desc(desc, &d, &a));
    if (d.zero_mode == TW_ZERO_VALUE)
        return tw_fail(TW_UNSUPPORTED,
                       "desc: zero_mode: value, fake-quantizing takes none or code");
    TW_TRY(need("x", x));
    TW_TRY(need("scales", scales));
    TW_TRY(need("y", y));
    TW_TRY(need("mask", mask));
    TW_TRY(check_zeros(&d, &a, zeros, true));
    return tw_affine_fake_quantize(&a, x, scales, zeros, y, mask);
}

tw_status tw_fake_quantize_backward(const tw_affine_desc *desc, const void *y_gradient,
                                    const uint8_t *mask, void *x_gradient) {
    tw_affine_desc d;
    tw_affine a;
    TW_TRY(read_desc(desc, &d, &a));
    TW_TRY(need("y_gradient", y_gradient));
    TW_TRY(need("mask", mask));
    TW_TRY(need("x_gradient", x_gradient));
    return tw_affine_fake_quantize_backward(&a, y_gradient, mask, x_gradient);
}
