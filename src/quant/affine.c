/* See affine.h.  torch computes f16 and bf16 operations in f32 and rounds each result. */
#include "src/quant/affine.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/check.h"
#include "src/quant/run.h"

/* The dtype of an operation on two tensors. */
static tw_dtype promoted(tw_dtype a, tw_dtype b) { return a == b ? a : TW_F32; }

static float smallest_normal(tw_dtype dtype) { return dtype == TW_F16 ? 0x1p-14f : FLT_MIN; }

tw_status tw_affine_check(const tw_affine *a) {
    tw_status st = tw_check_x(a->N, a->K, a->x);
    if (st == TW_OK) st = tw_check_group(a->group_n, a->group_k);
    if (st != TW_OK) return st;
    if (!tw_dtype_is_real(a->scale))
        return tw_fail(TW_INVALID, "scales: dtype %s, expected f32, f16 or bf16",
                       tw_dtype_name(a->scale));
    if (!tw_dtype_is_int(a->code))
        return tw_fail(TW_INVALID, "codes: dtype %s, expected an integer dtype",
                       tw_dtype_name(a->code));
    if (a->qmin >= a->qmax || a->qmin < tw_dtype_min(a->code) || a->qmax > tw_dtype_max(a->code))
        return tw_fail(TW_INVALID, "qmin, qmax: %d to %d, expected a range within %s's %d to %d",
                       a->qmin, a->qmax, tw_dtype_name(a->code), tw_dtype_min(a->code),
                       tw_dtype_max(a->code));
    return TW_OK;
}

static int64_t groups_k(const tw_affine *a) { return tw_ceil_div(a->K, a->group_k); }

/* The group of an element. */
static int64_t group_of(const tw_affine *a, int64_t n, int64_t k) {
    return n / a->group_n * groups_k(a) + k / a->group_k;
}

/* ---- scales and zeros ---- */

static const void *x_at(const tw_affine *a, const void *x, int64_t n, int64_t k) {
    return (const char *)x + (size_t)(n * a->K + k) * ((size_t)tw_dtype_bits(a->x) / 8);
}

static tw_status find_range(const tw_affine *a, const void *x, int64_t n0, int64_t k0, float *min,
                            float *max) {
    *min = INFINITY;
    *max = -INFINITY;
    bool finite = a->x != TW_F16;
    for (int64_t n = n0; finite && n < tw_min(a->N, n0 + a->group_n); n++)
        finite = tw_run_range(x_at(a, x, n, k0), a->x, tw_min(a->group_k, a->K - k0), min, max);
    if (finite) return TW_OK;
    for (int64_t n = n0; n < tw_min(a->N, n0 + a->group_n); n++)
        for (int64_t k = k0; k < tw_min(a->K, k0 + a->group_k); k++) {
            float v = tw_float_get(x, a->x, n * a->K + k);
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
            *min = fminf(*min, v);
            *max = fmaxf(*max, v);
        }
    return TW_OK;
}

static float choose_scale(const tw_affine *a, tw_mapping mapping, float min, float max) {
    float codes = (float)(a->qmax - a->qmin);
    switch (mapping) {
    case TW_MAPPING_SYMMETRIC: return tw_float_round(a->x, fmaxf(-min, max) / (codes / 2));
    case TW_MAPPING_SYMMETRIC_NO_CLIP: {
        float below = tw_float_round(a->x, min / (float)a->qmin);
        float above = tw_float_round(a->x, max / (float)a->qmax);
        return below > above ? below : above;
    }
    default: return tw_float_round(a->x, tw_float_round(a->x, max - min) / codes);
    }
}

static int32_t choose_zero(const tw_affine *a, tw_mapping mapping, float min, float scale) {
    if (mapping != TW_MAPPING_ASYMMETRIC) return (a->qmax + a->qmin + 1) / 2;
    float steps = rintf(tw_float_round(a->x, min / scale));
    float zero = tw_float_round(a->x, (float)a->qmin - steps);
    return (int32_t)fminf(fmaxf(zero, (float)a->qmin), (float)a->qmax);
}

static float least_scale(const tw_affine *a, double eps) {
    return eps > 0 ? tw_float_round(a->x, (float)eps) : smallest_normal(a->x);
}

static tw_status check_mapping(const tw_affine *a, tw_mapping mapping) {
    TW_TRY(tw_affine_check(a));
    if (mapping == TW_MAPPING_SYMMETRIC_NO_CLIP && (!a->qmin || !a->qmax))
        return tw_fail(TW_INVALID, "qmin, qmax: %d to %d, without clipping neither may be 0",
                       a->qmin, a->qmax);
    return TW_OK;
}

/* Of the group `at`. */
static void choose_group(const tw_affine *a, tw_mapping mapping, double eps, float min, float max,
                         int64_t at, void *scales, int32_t *zeros) {
    float scale = fmaxf(choose_scale(a, mapping, min, max), least_scale(a, eps));
    zeros[at] = choose_zero(a, mapping, min, scale);
    tw_float_set(scales, a->scale, at, scale);
}

tw_status tw_affine_choose(const tw_affine *a, tw_mapping mapping, bool preserve_zero, double eps,
                           const void *x, void *scales, int32_t *zeros) {
    TW_TRY(check_mapping(a, mapping));
    if (mapping != TW_MAPPING_ASYMMETRIC && !preserve_zero)
        return tw_fail(TW_INVALID, "preserve_zero: false, a symmetric mapping always does");
    for (int64_t n = 0, at = 0; n < a->N; n += a->group_n)
        for (int64_t k = 0; k < a->K; k += a->group_k, at++) {
            float min, max;
            TW_TRY(find_range(a, x, n, k, &min, &max));
            if (preserve_zero) min = fminf(min, 0), max = fmaxf(max, 0);
            choose_group(a, mapping, eps, min, max, at, scales, zeros);
        }
    return TW_OK;
}

tw_status tw_affine_choose_range(const tw_affine *a, tw_mapping mapping, double eps,
                                 const float *min, const float *max, void *scales, int32_t *zeros) {
    TW_TRY(check_mapping(a, mapping));
    for (int64_t at = 0; at < tw_ceil_div(a->N, a->group_n) * groups_k(a); at++) {
        if (!isfinite(min[at]) || !isfinite(max[at]) || min[at] > max[at])
            return tw_fail(TW_INVALID, "range %lld: %g to %g, expected finite and ascending",
                           (long long)at, (double)min[at], (double)max[at]);
        choose_group(a, mapping, eps, fminf(min[at], 0), fmaxf(max[at], 0), at, scales, zeros);
    }
    return TW_OK;
}

/* The code that a value zero stands for. */
static float middle(const tw_affine *a) { return (float)(a->qmax + a->qmin + 1) / 2; }

tw_status tw_affine_choose_values(const tw_affine *a, double eps, const void *x, void *scales,
                                  void *zeros) {
    TW_TRY(tw_affine_check(a));
    for (int64_t n = 0, at = 0; n < a->N; n += a->group_n)
        for (int64_t k = 0; k < a->K; k += a->group_k, at++) {
            float min, max;
            TW_TRY(find_range(a, x, n, k, &min, &max));
            float scale = choose_scale(a, TW_MAPPING_ASYMMETRIC, min, max);
            scale = fmaxf(scale, least_scale(a, eps));
            float zero = tw_float_round(a->x, min + tw_float_round(a->x, scale * middle(a)));
            tw_float_set(scales, a->scale, at, scale);
            tw_float_set(zeros, a->scale, at, zero);
        }
    return TW_OK;
}

/* ---- codes ---- */

/* The code before it is clamped: a whole number, or NaN, or infinite where the scale is 0. */
static float steps_of(const tw_affine *a, float x, float scale, const int32_t *zero) {
    tw_dtype both = promoted(a->x, a->scale);
    float steps = rintf(tw_float_round(both, x * tw_float_round(a->scale, 1.0f / scale)));
    /* Without a zero nothing is added: -0 stays. */
    return zero ? tw_float_round(both, steps + (float)*zero) : steps;
}

/* NaN is 0 times an infinite reciprocal, of a scale that is 0 or, in f16, tiny. */
static float within(const tw_affine *a, float code) {
    if (isnan(code)) return 0;
    return fminf(fmaxf(code, (float)a->qmin), (float)a->qmax);
}

static int32_t clamped(const tw_affine *a, float code) { return (int32_t)within(a, code); }

static tw_status get_x(const tw_affine *a, const void *x, int64_t n, int64_t k, float *out) {
    *out = tw_float_get(x, a->x, n * a->K + k);
    if (!isnan(*out)) return TW_OK;
    return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be a number", (double)*out, (long long)n,
                   (long long)k);
}

static uint8_t *row_of(const tw_affine *a, void *codes, int64_t n) {
    return (uint8_t *)codes + n * (int64_t)tw_dtype_row_bytes(a->code, a->K);
}

static const uint8_t *const_row_of(const tw_affine *a, const void *codes, int64_t n) {
    return (const uint8_t *)codes + n * (int64_t)tw_dtype_row_bytes(a->code, a->K);
}

/* Columns [k0, k1) of a row, all of one group, by the vectorized loops; false if they cannot. */
static bool quantize_run(const tw_affine *a, const void *x, const void *scales,
                         const int32_t *zeros, int64_t n, int64_t k0, int64_t k1, void *codes) {
    int64_t group = group_of(a, n, k0), bit = k0 * tw_dtype_bits(a->code);
    if (a->x == TW_F16 || bit % 8) return false;
    float inverse = 1.0F / tw_float_get(scales, a->scale, group);
    tw_run run = {.x = a->x,
                  .rounds = a->x == TW_BF16 && a->scale == TW_BF16,
                  .code = a->code,
                  .qmin = a->qmin,
                  .qmax = a->qmax,
                  .scale = tw_float_round(a->scale, inverse),
                  .zero = zeros ? zeros[group] : 0,
                  .bounded = a->fitted};
    /* Far zeros would leave the range in which the loops round. */
    if (!isfinite(run.scale) || run.zero < a->qmin || run.zero > a->qmax) return false;
    return tw_run_codes(&run, x_at(a, x, n, k0), k1 - k0, row_of(a, codes, n) + bit / 8);
}

static tw_status quantize_each(const tw_affine *a, const void *x, const void *scales,
                               const int32_t *zeros, int64_t n, int64_t k0, int64_t k1,
                               void *codes) {
    int64_t group = group_of(a, n, k0);
    float v, scale = tw_float_get(scales, a->scale, group);
    for (int64_t k = k0; k < k1; k++) {
        TW_TRY(get_x(a, x, n, k, &v));
        float code = steps_of(a, v, scale, zeros ? &zeros[group] : NULL);
        tw_code_set(row_of(a, codes, n), a->code, k, clamped(a, code));
    }
    return TW_OK;
}

tw_status tw_affine_quantize(const tw_affine *a, const void *x, const void *scales,
                             const int32_t *zeros, void *codes) {
    TW_TRY(tw_affine_check(a));
    memset(codes, 0, (size_t)a->N * tw_dtype_row_bytes(a->code, a->K));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k += a->group_k) {
            int64_t end = tw_min(a->K, k + a->group_k);
            if (!quantize_run(a, x, scales, zeros, n, k, end, codes))
                TW_TRY(quantize_each(a, x, scales, zeros, n, k, end, codes));
        }
    return TW_OK;
}

/* All rows by the loops that do all steps; false if they cannot. */
static bool fit_rows(const tw_affine *a, tw_mapping mapping, double eps, const float *x,
                     float *scales, int32_t *zeros, void *codes) {
    tw_run_fit fit = {.group = a->group_k,
                      .code = a->code,
                      .qmin = a->qmin,
                      .qmax = a->qmax,
                      .symmetric = mapping == TW_MAPPING_SYMMETRIC,
                      .eps = least_scale(a, eps)};
    int64_t groups = groups_k(a);
    bool whole = a->group_k * tw_dtype_bits(a->code) % 8 == 0 || a->group_k >= a->K;
    if (mapping == TW_MAPPING_SYMMETRIC_NO_CLIP || a->x != TW_F32 || a->scale != TW_F32 ||
        a->group_n != 1 || !whole || fit.eps < FLT_MIN)
        return false;
    for (int64_t n = 0; n < a->N; n++)
        if (!tw_run_fit_row(&fit, x + n * a->K, a->K, scales + n * groups, zeros + n * groups,
                            row_of(a, codes, n)))
            return false;
    return true;
}

tw_status tw_affine_fit(const tw_affine *a, tw_mapping mapping, double eps, const void *x,
                        void *scales, int32_t *zeros, void *codes) {
    tw_affine fitted = *a;
    TW_TRY(check_mapping(a, mapping));
    if (fit_rows(a, mapping, eps, x, scales, zeros, codes)) return TW_OK;
    fitted.fitted = a->qmin <= 0 && a->qmax >= 0;
    TW_TRY(tw_affine_choose(a, mapping, true, eps, x, scales, zeros));
    return tw_affine_quantize(&fitted, x, scales, zeros, codes);
}

/* (code - zero) * scale, stored as element [n,k] of x. */
static void put_value(const tw_affine *a, void *x, int64_t n, int64_t k, float code, int32_t zero,
                      float scale) {
    float steps =
        tw_float_round(a->x, tw_float_round(a->x, code) - tw_float_round(a->x, (float)zero));
    tw_float_set(x, a->x, n * a->K + k, tw_float_round(promoted(a->x, a->scale), steps * scale));
}

tw_status tw_affine_dequantize(const tw_affine *a, const void *codes, const void *scales,
                               const int32_t *zeros, void *x) {
    TW_TRY(tw_affine_check(a));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k++) {
            int64_t group = group_of(a, n, k);
            put_value(a, x, n, k, (float)tw_code_get(const_row_of(a, codes, n), a->code, k),
                      zeros ? zeros[group] : 0, tw_float_get(scales, a->scale, group));
        }
    return TW_OK;
}

tw_status tw_affine_fake_quantize(const tw_affine *a, const void *x, const void *scales,
                                  const int32_t *zeros, void *y, uint8_t *mask) {
    TW_TRY(tw_affine_check(a));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k++) {
            int64_t group = group_of(a, n, k);
            int32_t zero = zeros ? zeros[group] : 0;
            float v, scale = tw_float_get(scales, a->scale, group);
            TW_TRY(get_x(a, x, n, k, &v));
            float code = steps_of(a, v, scale, zeros ? &zero : NULL);
            mask[n * a->K + k] = code >= (float)a->qmin && code <= (float)a->qmax;
            put_value(a, y, n, k, within(a, code), zero, scale);
        }
    return TW_OK;
}

tw_status tw_affine_fake_quantize_backward(const tw_affine *a, const void *y_gradient,
                                           const uint8_t *mask, void *x_gradient) {
    TW_TRY(tw_affine_check(a));
    for (int64_t i = 0; i < a->N * a->K; i++)
        tw_float_set(x_gradient, a->x, i, mask[i] ? tw_float_get(y_gradient, a->x, i) : 0);
    return TW_OK;
}

/* ---- zeros that are values ---- */

/* As quantize_run(). */
static bool quantize_values_run(const tw_affine *a, const void *x, float scale, float least,
                                int64_t n, int64_t k0, int64_t k1, void *codes) {
    int64_t bit = k0 * tw_dtype_bits(a->code);
    tw_run run = {.x = a->x,
                  .rounds = a->x == TW_BF16 && a->scale == TW_BF16,
                  .code = a->code,
                  .qmin = a->qmin,
                  .qmax = a->qmax,
                  .divide = true,
                  .scale = scale,
                  .least = least};
    if (a->x == TW_F16 || bit % 8 || scale == 0 || !isfinite(scale) || !isfinite(least))
        return false;
    return tw_run_codes(&run, x_at(a, x, n, k0), k1 - k0, row_of(a, codes, n) + bit / 8);
}

tw_status tw_affine_quantize_values(const tw_affine *a, const void *x, const void *scales,
                                    const void *zeros, void *codes) {
    TW_TRY(tw_affine_check(a));
    tw_dtype both = promoted(a->x, a->scale);
    memset(codes, 0, (size_t)a->N * tw_dtype_row_bytes(a->code, a->K));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k0 = 0; k0 < a->K; k0 += a->group_k) {
            int64_t group = group_of(a, n, k0), k1 = tw_min(a->K, k0 + a->group_k);
            float v, scale = tw_float_get(scales, a->scale, group);
            float zero = tw_float_get(zeros, a->scale, group);
            float least =
                tw_float_round(a->scale, zero - tw_float_round(a->scale, scale * middle(a)));
            if (quantize_values_run(a, x, scale, least, n, k0, k1, codes)) continue;
            for (int64_t k = k0; k < k1; k++) {
                TW_TRY(get_x(a, x, n, k, &v));
                float code = rintf(tw_float_round(both, tw_float_round(both, v - least) / scale));
                tw_code_set(row_of(a, codes, n), a->code, k, clamped(a, code));
            }
        }
    return TW_OK;
}

tw_status tw_affine_dequantize_values(const tw_affine *a, const void *codes, const void *scales,
                                      const void *zeros, void *x) {
    TW_TRY(tw_affine_check(a));
    for (int64_t n = 0; n < a->N; n++)
        for (int64_t k = 0; k < a->K; k++) {
            int64_t group = group_of(a, n, k);
            float code = (float)tw_code_get(const_row_of(a, codes, n), a->code, k);
            float steps = tw_float_round(a->x, code - middle(a));
            float v = tw_float_round(a->x, steps * tw_float_get(scales, a->scale, group));
            tw_float_set(x, a->x, n * a->K + k, v + tw_float_get(zeros, a->scale, group));
        }
    return TW_OK;
}
