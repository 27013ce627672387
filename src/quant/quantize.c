/* One group at a time: range, scale, zero, then codes under what was stored of them. */
#include "src/quant/quantize.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/run.h"

/* What every group of one matrix shares. */
typedef struct job {
    const tw_scheme *scheme;
    int64_t N, K;
    const float *w;
    int64_t w_stride;
    void *codes, *scales, *zeros;
    bool is_int;
    float least_code, most_code; /* range of the weight dtype */
} job;

/* The weights under one scale, and where that scale goes. */
typedef struct group {
    int64_t n0, n1, k0, k1, at;
    float least, most; /* of its weights */
} group;

static uint8_t *code_row(const job *j, int64_t n) {
    return (uint8_t *)j->codes + n * (int64_t)tw_dtype_row_bytes(j->scheme->weight, j->K);
}

static const float *w_at(const job *j, int64_t n, int64_t k) { return j->w + n * j->w_stride + k; }

/* The first weight that is not finite, or, where `negative`, below 0. */
static tw_status point_at(const job *j, const group *g, bool negative) {
    for (int64_t n = g->n0; n < g->n1; n++)
        for (int64_t k = g->k0; k < g->k1; k++) {
            float v = *w_at(j, n, k);
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "weight: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
            if (negative && v < 0)
                return tw_fail(
                    TW_INVALID, "weight: %g at [%lld,%lld], must not be negative for w=%s,z=none",
                    (double)v, (long long)n, (long long)k, tw_dtype_name(j->scheme->weight));
        }
    return tw_fail(TW_INTERNAL, "weight: its range was wrong");
}

static tw_status find_range(const job *j, group *g) {
    g->least = INFINITY;
    g->most = -INFINITY;
    for (int64_t n = g->n0; n < g->n1; n++)
        if (!tw_run_range(w_at(j, n, g->k0), TW_F32, g->k1 - g->k0, &g->least, &g->most))
            return point_at(j, g, false);
    return TW_OK;
}

/* Stores a scale or a value zero and gives back what was stored. */
static tw_status store(const job *j, const group *g, const char *what, void *out, float value,
                       float *stored) {
    tw_dtype dtype = j->scheme->scale;
    /* Not by the stored value: narrow types saturate, which would clip the weights in silence. */
    if (!(fabsf(value) <= tw_float_max(dtype)))
        return tw_fail(TW_INVALID,
                       "weight: the group of [%lld,%lld] has %s %g, above %s's largest value %g",
                       (long long)g->n0, (long long)g->k0, what, (double)value,
                       tw_dtype_name(dtype), (double)tw_float_max(dtype));
    tw_float_set(out, dtype, g->at, value);
    *stored = tw_float_get(out, dtype, g->at);
    return TW_OK;
}

/* The scale before it is stored. */
static tw_status choose_scale(const job *j, const group *g, float *scale) {
    tw_zero_mode mode = j->scheme->zero_mode;
    float codes = j->most_code - j->least_code, amax = fmaxf(fabsf(g->least), fabsf(g->most));
    bool is_unsigned = j->is_int && j->least_code == 0;
    if (mode == TW_ZERO_NONE && is_unsigned && g->least < 0) return point_at(j, g, true);
    /* Half the codes lie on either side of 0, save for unsigned ones. */
    float chosen = amax / (is_unsigned ? codes : codes / 2);
    if (mode == TW_ZERO_CODE) chosen = (fmaxf(g->most, 0) - fminf(g->least, 0)) / codes;
    if (mode == TW_ZERO_VALUE) chosen = (g->most - g->least) / codes;
    *scale = fmaxf(chosen, FLT_MIN);
    return TW_OK;
}

static int32_t clamp_code(const job *j, float code) {
    return (int32_t)fminf(fmaxf(code, j->least_code), j->most_code);
}

/* Columns [k0, k1) of row n by the vectorized loops; false if they cannot. */
static bool put_run(const job *j, const group *g, int64_t n, float scale, int32_t zero_code,
                    float zero) {
    tw_dtype dtype = j->scheme->weight;
    int64_t bit = g->k0 * tw_dtype_bits(dtype);
    bool divide = j->scheme->zero_mode == TW_ZERO_VALUE;
    tw_run run = {.x = TW_F32,
                  .code = dtype,
                  .qmin = (int32_t)j->least_code,
                  .qmax = (int32_t)j->most_code,
                  .divide = divide,
                  .scale = divide ? scale : 1.0F / scale,
                  .least = zero,
                  .zero = zero_code,
                  .bounded = true};
    if (!j->is_int || bit % 8 || !isfinite(run.scale)) return false;
    return tw_run_codes(&run, w_at(j, n, g->k0), g->k1 - g->k0, code_row(j, n) + bit / 8);
}

static void put_codes(const job *j, const group *g, float scale, int32_t zero_code, float zero) {
    tw_dtype dtype = j->scheme->weight;
    if (scale == 0) return; /* underflowed when stored: the codes are 0 already */
    float inverse = 1.0f / scale;
    for (int64_t n = g->n0; n < g->n1; n++) {
        if (put_run(j, g, n, scale, zero_code, zero)) continue;
        for (int64_t k = g->k0; k < g->k1; k++) {
            float v = *w_at(j, n, k);
            if (!j->is_int) /* the cast rounds and saturates */
                tw_float_set(code_row(j, n), dtype, k, v / scale);
            else if (j->scheme->zero_mode == TW_ZERO_VALUE)
                tw_code_set(code_row(j, n), dtype, k, clamp_code(j, rintf((v - zero) / scale)));
            else
                tw_code_set(code_row(j, n), dtype, k,
                            clamp_code(j, rintf(v * inverse) + (float)zero_code));
        }
    }
}

static tw_status quantize_group(const job *j, group *g) {
    float scale = 0, zero = 0;
    int32_t zero_code = 0;
    TW_TRY(find_range(j, g));
    TW_TRY(choose_scale(j, g, &scale));
    TW_TRY(store(j, g, "scale", j->scales, scale, &scale));
    if (j->scheme->zero_mode == TW_ZERO_CODE) {
        /* A group that does not reach below 0 is clamped to zero 0. */
        if (scale != 0) zero_code = clamp_code(j, -rintf(g->least / scale));
        ((uint8_t *)j->zeros)[g->at] = (uint8_t)zero_code;
    } else if (j->scheme->zero_mode == TW_ZERO_VALUE) {
        TW_TRY(store(j, g, "zero", j->zeros, g->least - j->least_code * scale, &zero));
    }
    put_codes(j, g, scale, zero_code, zero);
    return TW_OK;
}

static tw_status convert_plain(const job *j) {
    tw_dtype dtype = j->scheme->weight;
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < j->K; k++) {
            float v = j->w[n * j->w_stride + k];
            tw_float_set(code_row(j, n), dtype, k, v);
            if (!isfinite(tw_float_get(code_row(j, n), dtype, k)))
                return tw_fail(TW_INVALID, "weight: %g at [%lld,%lld], must be finite in %s",
                               (double)v, (long long)n, (long long)k, tw_dtype_name(dtype));
        }
    return TW_OK;
}

static tw_status check_supported(const tw_scheme *s) {
    TW_TRY(tw_scheme_check(s));
    if (s->weight == TW_LUT4)
        return tw_fail(TW_UNSUPPORTED, "w: lut4, a range of weights chooses no table");
    if (s->scale == TW_F16I8)
        return tw_fail(TW_UNSUPPORTED, "s: f16i8, whoever has factors gives them; quantize to f16");
    if (s->zero_mode == TW_ZERO_CODE && tw_dtype_is_signed(s->weight))
        return tw_fail(TW_UNSUPPORTED,
                       "z: code, zeros are u8 codes and cannot centre w=%s; use unsigned weights",
                       tw_dtype_name(s->weight));
    if (s->zero_mode && !tw_dtype_is_int(s->weight))
        return tw_fail(TW_UNSUPPORTED, "z: value, w=%s is quantized with z=none only",
                       tw_dtype_name(s->weight));
    return TW_OK;
}

tw_status tw_quantize_minmax(const tw_scheme *scheme, int64_t N, int64_t K, const float *w,
                             int64_t w_stride, void *codes, void *scales, void *zeros) {
    TW_TRY(check_supported(scheme));
    if (N < 1 || N > TW_MAX_DIM || K < 1 || K > TW_MAX_DIM)
        return tw_fail(TW_INVALID, "weight: shape [%lld,%lld], both must be from 1 to %d",
                       (long long)N, (long long)K, TW_MAX_DIM);
    if (w_stride < K)
        return tw_fail(TW_INVALID, "weight: row stride %lld, must be at least K=%lld",
                       (long long)w_stride, (long long)K);
    job j = {scheme, N, K, w, w_stride, codes, scales, zeros, tw_dtype_is_int(scheme->weight),
             0,      0};
    memset(codes, 0, (size_t)N * tw_dtype_row_bytes(scheme->weight, K));
    if (tw_scheme_plain(scheme)) return convert_plain(&j);
    j.least_code = j.is_int ? (float)tw_dtype_min(scheme->weight) : -tw_float_max(scheme->weight);
    j.most_code = j.is_int ? (float)tw_dtype_max(scheme->weight) : tw_float_max(scheme->weight);

    int64_t group_n = tw_group_n(scheme, N), group_k = tw_group_k(scheme, K), at = 0;
    for (int64_t n = 0; n < N; n += group_n)
        for (int64_t k = 0; k < K; k += group_k) {
            group g = {
                .n0 = n, .n1 = tw_min(N, n + group_n), .k0 = k, .k1 = tw_min(K, k + group_k)};
            g.at = at++;
            TW_TRY(quantize_group(&j, &g));
        }
    return TW_OK;
}
