/* See hqq.h. */
#include "src/quant/hqq.h"

#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/check.h"

/* The constants of the paper's solver. */
enum { STEPS = 20 };
static const double BETA = 10, KAPPA = 1.01, NORM = 0.7;

typedef struct task {
    int64_t N, K, group;
    tw_dtype dtype;
    const void *x;
    float largest; /* code */
    float *scales, *zeros;
} task;

static float code_of(const task *t, float w, float scale, float zero) {
    return fminf(fmaxf(rintf(w * scale + zero), 0), t->largest);
}

/* First scale and zero of a group: codes as w * scale + zero. */
static tw_status start_group(const task *t, int64_t n, int64_t k0, float *scale, float *zero) {
    float min = INFINITY, max = -INFINITY;
    for (int64_t k = k0; k < tw_min(t->K, k0 + t->group); k++) {
        float w = tw_float_get(t->x, t->dtype, n * t->K + k);
        if (!isfinite(w))
            return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)w,
                           (long long)n, (long long)k);
        min = fminf(min, w);
        max = fmaxf(max, w);
    }
    *scale = fminf(t->largest / (max - min), 2e4F);
    *zero = -min * *scale;
    if (t->largest == 15) *zero = rintf(*zero);
    return TW_OK;
}

/* One step of a group's zero; the sum of |w - its value before|. */
static double step_group(const task *t, int64_t n, int64_t k0, double beta, float scale,
                         float *zero) {
    int64_t end = tw_min(t->K, k0 + t->group);
    float inverse_beta = (float)(1 / beta), power = (float)(NORM - 1);
    double sum = 0, error = 0;
    for (int64_t k = k0; k < end; k++) {
        float w = tw_float_get(t->x, t->dtype, n * t->K + k);
        float code = code_of(t, w, scale, *zero);
        float difference = w - (code - *zero) / scale, size = fabsf(difference);
        /* Of 0 the power is infinite, and the shrunk size 0. */
        float shrunk = fmaxf(size - inverse_beta * powf(size, power), 0);
        float e = copysignf(shrunk, difference);
        sum += (double)(code - (w - e) * scale);
        error += (double)size;
    }
    *zero = (float)(sum / (double)(end - k0));
    return error;
}

static void improve(const task *t) {
    double beta = BETA, best = 1e4;
    for (int i = 0; i < STEPS; i++, beta *= KAPPA) {
        double error = 0;
        for (int64_t n = 0, at = 0; n < t->N; n++)
            for (int64_t k = 0; k < t->K; k += t->group, at++)
                error += step_group(t, n, k, beta, t->scales[at], &t->zeros[at]);
        error /= (double)t->N * (double)t->K;
        if (!(error < best)) return;
        best = error;
    }
}

tw_status tw_hqq_quantize(int bits, int64_t N, int64_t K, int64_t group, tw_dtype x_dtype,
                          const void *x, float *scales, float *zeros, void *codes) {
    if (bits < 1 || bits > 8) return tw_fail(TW_INVALID, "bits: %d, must be from 1 to 8", bits);
    TW_TRY(tw_check_x(N, K, x_dtype));
    TW_TRY(tw_check_group(1, group));
    task t = {N, K, group, x_dtype, x, (float)((1 << bits) - 1), scales, zeros};
    tw_dtype code = (tw_dtype)(TW_U1 + bits - 1);
    size_t row_bytes = tw_dtype_row_bytes(code, K);
    for (int64_t n = 0, at = 0; n < N; n++)
        for (int64_t k = 0; k < K; k += group, at++)
            TW_TRY(start_group(&t, n, k, &scales[at], &zeros[at]));
    improve(&t);
    memset(codes, 0, (size_t)N * row_bytes);
    int64_t groups = tw_ceil_div(K, group);
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            int64_t at = n * groups + k / group;
            float w = tw_float_get(x, x_dtype, n * K + k);
            tw_code_set((char *)codes + (size_t)n * row_bytes, code, k,
                        (int32_t)code_of(&t, w, scales[at], zeros[at]));
        }
    for (int64_t at = 0; at < N * groups; at++) scales[at] = 1 / scales[at];
    return TW_OK;
}
