/* Nothing here allocates, so it can run where memory is short: sums live in tiles on the stack. */
#include "src/core/reference.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "src/core/act.h"
#include "src/core/dtype.h"

/* COLUMNS chains of additions run side by side, each in its order of k: one alone waits for itself
 * most of the time. */
enum { TILE_M = 8, TILE_N = 64, CHUNK_K = 128, COLUMNS = 8 };

/* ---- weights ---- */

/* `count` values of q from k on, less the zero code. */
static void quantized_span(tw_dtype dtype, const float *lut, const char *row, int32_t zero,
                           int64_t k, int64_t count, float *out) {
    uint8_t codes[CHUNK_K];
    bool is_int = tw_dtype_is_int(dtype);
    const float *table = is_int ? NULL : dtype == TW_LUT4 ? lut : tw_float_table(dtype);
    int32_t base = is_int ? tw_dtype_min(dtype) - zero : 0;
    for (int64_t i = 0, part; i < count; i += part) {
        part = tw_min(CHUNK_K, count - i);
        tw_codes_get(row, dtype, k + i, part, codes);
        for (int64_t j = 0; table && j < part; j++) out[i + j] = table[codes[j]];
        for (int64_t j = 0; !table && j < part; j++) out[i + j] = (float)(codes[j] + base);
    }
}

/* w[n, k0..k1) in f32.  src/core/meson.build turns contraction off for the whole library. */
static void dequantize_span(const tw_problem *p, const tw_canonical *w, int64_t n, int64_t k0,
                            int64_t k1, float *out) {
    const tw_scheme *s = &p->scheme;
    const char *row = (const char *)w->weight + n * (int64_t)tw_dtype_row_bytes(s->weight, p->K);
    if (tw_scheme_plain(s)) {
        if (s->weight == TW_F32)
            memcpy(out, (const float *)row + k0, (size_t)(k1 - k0) * sizeof *out);
        else
            for (int64_t k = k0; k < k1; k++) out[k - k0] = tw_float_get(row, s->weight, k);
        return;
    }
    int64_t group_k = tw_group_k(s, p->K);
    int64_t scale_row = n / tw_group_n(s, p->N) * tw_groups(s, p->K);
    for (int64_t k = k0, count; k < k1; k += count) {
        count = tw_min(k1, (k / group_k + 1) * group_k) - k;
        int64_t at = scale_row + k / group_k;
        int32_t code = s->zero_mode == TW_ZERO_CODE ? ((const uint8_t *)w->zeros)[at] : 0;
        float scale = tw_float_get(w->scales, s->scale, at), *to = out + (k - k0);
        quantized_span(s->weight, w->lut, row, code, k, count, to);
        for (int64_t i = 0; i < count; i++) to[i] *= scale;
        /* Without a zero nothing is added: -0 stays -0. */
        if (s->zero_mode != TW_ZERO_VALUE) continue;
        float zero = tw_float_get(w->zeros, s->scale, at);
        for (int64_t i = 0; i < count; i++) to[i] += zero;
    }
}

float tw_dequantize_one(const tw_problem *p, const tw_canonical *w, int64_t n, int64_t k) {
    float value;
    dequantize_span(p, w, n, k, k + 1, &value);
    return value;
}

void tw_dequantize_row(const tw_problem *p, const tw_canonical *w, int64_t n, float *out) {
    dequantize_span(p, w, n, 0, p->K, out);
}

/* ---- activations ---- */

/* Codes are what multiplying by inverse gives, rounded; first to the operations' dtype. */
typedef struct act_params {
    float scale, inverse;
    int32_t zero, least, most;
    tw_dtype product;
} act_params;

static act_params choose_symmetric(float amax, bool full, tw_dtype dtype) {
    float scale = full ? tw_float_round(dtype, amax / 127.5f) : amax / 127.0f;
    return (act_params){scale, 1.0f / scale, 0, full ? -128 : -127, 127, TW_F32};
}

static act_params choose_asymmetric(float least, float most, tw_dtype dtype) {
    float scale = tw_float_round(dtype, tw_float_round(dtype, most - least) / 255.0f);
    float zero = rintf(tw_float_round(dtype, -least / scale));
    float inverse = tw_float_round(dtype, 1.0f / scale);
    return (act_params){scale, inverse, zero < 255 ? (int32_t)zero : 255, 0, 255, dtype};
}

/* Scale and zero point of x[k0..k1), values of `x` that lie there as `stored`.  inverse 0 makes
 * every code the zero point. */
static act_params act_choose(tw_act_quant quant, tw_dtype x, const void *data, tw_dtype stored,
                             int64_t k0, int64_t k1) {
    float least = 0, most = 0;
    bool finite = true;
    for (int64_t k = k0; k < k1; k++) {
        float v = tw_float_get(data, stored, k);
        finite = finite && isfinite(v);
        least = v < least ? v : least;
        most = v > most ? v : most;
    }
    if (!finite) return (act_params){.scale = NAN};
    tw_dtype dtype = x == TW_BF16 ? TW_BF16 : TW_F32;
    act_params a = quant == TW_ACTQ_I8Z
                       ? choose_asymmetric(least, most, dtype)
                       : choose_symmetric(fmaxf(-least, most), quant == TW_ACTQ_I8_FULL, dtype);
    if (!isfinite(a.scale)) return (act_params){.scale = NAN};
    return isfinite(a.inverse) ? a : (act_params){0};
}

/* A finite v only where inverse is not 0, so the product is at most a little over 255. */
static int32_t act_code(const act_params *a, float v) {
    if (a->inverse == 0) return 0;
    int32_t code = (int32_t)rintf(tw_float_round(a->product, v * a->inverse)) + a->zero;
    return code < a->least ? a->least : code > a->most ? a->most : code;
}

void tw_quantize_token(const tw_scheme *s, tw_dtype x_dtype, int64_t K, const float *x,
                       int16_t *codes, float *scales, int32_t *zeros) {
    int64_t group = tw_act_group(s, K);
    for (int64_t k0 = 0, g = 0; k0 < K; k0 += group, g++) {
        int64_t k1 = tw_min(K, k0 + group);
        act_params a = act_choose(s->act_quant, x_dtype, x, TW_F32, k0, k1);
        scales[g] = a.scale;
        zeros[g] = a.zero;
        for (int64_t k = k0; k < k1; k++) codes[k] = (int16_t)act_code(&a, x[k]);
    }
}

/* ---- the product ---- */

float tw_factor(tw_fpmath fpmath, float v) {
    if (fpmath == TW_FPMATH_STRICT) return v;
    return fabsf(v) < FLT_MIN ? copysignf(0, v) : tw_float_round(TW_BF16, v);
}

/* Rows of x of any real dtype. */
typedef struct rows {
    const void *at[TILE_M];
    tw_dtype dtype;
    int count;
} rows;

/* Some columns of some stretch of K, side by side: weights, and what their magnitudes count. */
typedef struct columns {
    double w[CHUNK_K][COLUMNS], size[CHUNK_K][COLUMNS];
} columns;

/* Whether a magnitude counts products beside weights: see reference.h. */
static bool counts_products(const tw_scheme *s) {
    return s->fpmath == TW_FPMATH_STRICT && s->zero_mode == TW_ZERO_VALUE &&
           tw_scheme_products_round(s) && s->act_quant && !tw_act_rounds(s);
}

/* Columns n0..n1, k0..k1; what was in the others stays. */
static void dequantize_columns(const tw_problem *p, const tw_canonical *w, int64_t n0, int64_t n1,
                               int64_t k0, int64_t k1, columns *out) {
    tw_problem without_zeros = *p;
    float span[CHUNK_K] = {0};
    without_zeros.scheme.zero_mode = TW_ZERO_NONE;
    for (int64_t n = n0; n < n1; n++) {
        dequantize_span(p, w, n, k0, k1, span);
        for (int64_t k = 0; k < k1 - k0; k++) {
            double factor = (double)tw_factor(p->scheme.fpmath, span[k]);
            out->w[k][n - n0] = factor;
            out->size[k][n - n0] = fabs(factor);
        }
        if (!counts_products(&p->scheme)) continue;
        dequantize_span(&without_zeros, w, n, k0, k1, span);
        for (int64_t k = 0; k < k1 - k0; k++) out->size[k][n - n0] += fabs((double)span[k]) / 2;
    }
}

static void add_products(const double *x, const columns *c, int64_t count, double *sum,
                         double *magnitude) {
    for (int64_t k = 0; k < count; k++)
        for (int j = 0; j < COLUMNS; j++) {
            sum[j] += x[k] * c->w[k][j];
            magnitude[j] += fabs(x[k]) * c->size[k][j];
        }
}

/* Rows of x on their way into the product: codes with a scale each, or rounded, or as they are. */
typedef struct feed {
    const tw_problem *p;
    const rows *x;
    act_params act[TILE_M];
    tw_act_token token[TILE_M];
} feed;

static void feed_begin(feed *f, const tw_problem *p, const tw_canonical *w, const rows *x) {
    f->p = p;
    f->x = x;
    for (int m = 0; m < x->count && tw_act_rounds(&p->scheme); m++)
        tw_act_begin(&f->token[m], &p->scheme, p->x, x->dtype, p->K, w->act_scale, x->at[m]);
}

/* How far from k0 on values may be asked for at once. */
static int64_t feed_end(const feed *f, int64_t k0) {
    int64_t K = f->p->K, group = tw_act_group(&f->p->scheme, K);
    int64_t end = tw_act_rounds(&f->p->scheme) ? K : tw_min(K, (k0 / group + 1) * group);
    return tw_min(k0 + CHUNK_K, end);
}

/* Row m's values k0..k1, in double. */
static void feed_values(feed *f, int m, int64_t k0, int64_t k1, double *out) {
    const tw_scheme *s = &f->p->scheme;
    const void *row = f->x->at[m];
    int64_t group = tw_act_group(s, f->p->K);
    float rounded[CHUNK_K];
    if (tw_act_rounds(s)) {
        tw_act_span(&f->token[m], k0, k1, rounded);
        for (int64_t k = k0; k < k1; k++)
            out[k - k0] = (double)tw_factor(s->fpmath, rounded[k - k0]);
        return;
    }
    bool codes = s->act_quant && s->fpmath == TW_FPMATH_STRICT;
    if (codes && k0 % group == 0)
        f->act[m] =
            act_choose(s->act_quant, f->p->x, row, f->x->dtype, k0, tw_min(f->p->K, k0 + group));
    const act_params *a = &f->act[m];
    for (int64_t k = k0; k < k1; k++) {
        float v = tw_float_get(row, f->x->dtype, k);
        out[k - k0] = codes ? (double)(act_code(a, v) - a->zero) * (double)a->scale
                            : (double)tw_factor(s->fpmath, v);
    }
}

/* sum[m][n - n0] over all of K for at most TILE_M rows and TILE_N columns; the tile's other columns
 * mean nothing. */
static void multiply_tile(const tw_problem *p, const tw_canonical *w, const rows *x, int64_t n0,
                          int64_t n1, double sum[TILE_M][TILE_N],
                          double magnitude[TILE_M][TILE_N]) {
    double xs[TILE_M][CHUNK_K];
    columns some = {0};
    feed f;
    feed_begin(&f, p, w, x);
    for (int m = 0; m < x->count; m++)
        for (int n = 0; n < TILE_N; n++) sum[m][n] = magnitude[m][n] = 0;

    for (int64_t k0 = 0, k1; k0 < p->K; k0 = k1) {
        k1 = feed_end(&f, k0);
        for (int m = 0; m < x->count; m++) feed_values(&f, m, k0, k1, xs[m]);
        for (int64_t n = n0; n < n1; n += COLUMNS) {
            dequantize_columns(p, w, n, tw_min(n1, n + COLUMNS), k0, k1, &some);
            for (int m = 0; m < x->count; m++)
                add_products(xs[m], &some, k1 - k0, &sum[m][n - n0], &magnitude[m][n - n0]);
        }
    }
}

double tw_act_apply(tw_act act, double v) {
    const double root_half = 0.70710678118654752440, root_2_over_pi = 0.79788456080286535588;
    /* As kernels have it, whose exponential is bounded; the formulas would divide by infinity. */
    if (isinf(v) && act != TW_ACT_RELU) return v;
    switch (act) {
    case TW_ACT_NONE: return v;
    case TW_ACT_RELU: return v < 0 ? 0 : v; /* NaN stays */
    case TW_ACT_GELU: return 0.5 * v * erfc(-v * root_half);
    case TW_ACT_GELU_TANH: /* v * (1 + tanh(u)) / 2, whose lower tail would be lost in the sum */
        return v / (1 + exp(-2 * root_2_over_pi * (v + 0.044715 * v * v * v)));
    case TW_ACT_SILU: return v / (1 + exp(-v));
    }
    return NAN;
}

static double finish(const tw_problem *p, const tw_canonical *w, int64_t n, double sum) {
    double bias = p->bias ? (double)tw_float_get(w->bias, p->bias, n) : 0;
    return tw_act_apply(p->act, p->bias ? sum + bias : sum);
}

void tw_reference_rows(const tw_problem *p, const tw_canonical *w, int64_t M, const float *const *x,
                       int64_t n0, int64_t n1, double *const *out, double *const *magnitude) {
    double sum[TILE_M][TILE_N], size[TILE_M][TILE_N];
    for (int64_t m = 0; m < M; m += TILE_M) {
        rows some = {.dtype = TW_F32, .count = (int)tw_min(TILE_M, M - m)};
        for (int i = 0; i < some.count; i++) some.at[i] = x[m + i];
        for (int64_t n = n0; n < n1; n += TILE_N) {
            int64_t end = tw_min(n1, n + TILE_N);
            multiply_tile(p, w, &some, n, end, sum, size);
            for (int i = 0; i < some.count; i++)
                for (int64_t j = n; j < end; j++) {
                    out[m + i][j - n0] = finish(p, w, j, sum[i][j - n]);
                    if (magnitude) magnitude[m + i][j - n0] = size[i][j - n];
                }
        }
    }
}

void tw_reference_row(const tw_problem *p, const tw_canonical *w, const float *x, int64_t n0,
                      int64_t n1, double *out, double *magnitude) {
    tw_reference_rows(p, w, 1, &x, n0, n1, &out, magnitude ? &magnitude : NULL);
}

void tw_reference_linear(const tw_problem *p, const tw_canonical *w, const void *x,
                         int64_t x_stride, void *y, int64_t y_stride, int64_t M) {
    double sum[TILE_M][TILE_N], size[TILE_M][TILE_N];
    int64_t stride_bytes = x_stride * tw_dtype_bits(p->x) / 8, y_bytes = tw_dtype_bits(p->y) / 8;
    for (int64_t m = 0; m < M; m += TILE_M) {
        rows some = {.dtype = p->x, .count = (int)tw_min(TILE_M, M - m)};
        for (int i = 0; i < some.count; i++) some.at[i] = (const char *)x + (m + i) * stride_bytes;
        for (int64_t n = 0; n < p->N; n += TILE_N) {
            int64_t end = tw_min(p->N, n + TILE_N);
            multiply_tile(p, w, &some, n, end, sum, size);
            for (int i = 0; i < some.count; i++)
                for (int64_t j = n; j < end; j++)
                    tw_double_set((char *)y + (m + i) * y_stride * y_bytes, p->y, j,
                                  finish(p, w, j, sum[i][j - n]));
        }
    }
}
