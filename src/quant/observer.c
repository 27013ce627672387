/* See observer.h. */
#include "src/quant/observer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

static int64_t ranges_of(const tw_observer *o) { return o->channels ? o->channels : 1; }

static tw_status check(const tw_observer *o) {
    if (o->channels < 0)
        return tw_fail(TW_INVALID, "channels: %lld, must not be negative", (long long)o->channels);
    if (o->kind == TW_OBSERVER_AVERAGE && !(o->rate > 0 && o->rate <= 1))
        return tw_fail(TW_INVALID, "rate: %g, must be above 0 and at most 1", o->rate);
    if (o->kind == TW_OBSERVER_MSE && o->steps < 1)
        return tw_fail(TW_INVALID, "steps: %d, must be at least 1", o->steps);
    return TW_OK;
}

/* How a batch is quantized: a group is all of it, or a row. */
static tw_affine affine_of(const tw_observer *o, int64_t N, int64_t K) {
    return (tw_affine){.N = N,
                       .K = K,
                       .group_n = o->channels ? 1 : N,
                       .group_k = K,
                       .x = o->x,
                       .scale = TW_F32,
                       .code = o->code,
                       .qmin = o->qmin,
                       .qmax = o->qmax};
}

/* Range i of a batch. */
static tw_status find_range(const tw_observer *o, int64_t N, int64_t K, const void *x, int64_t i,
                            float *min, float *max) {
    int64_t first = o->channels ? i * K : 0, count = o->channels ? K : N * K;
    *min = INFINITY;
    *max = -INFINITY;
    for (int64_t at = first; at < first + count; at++) {
        float v = tw_float_get(x, o->x, at);
        if (!isfinite(v))
            return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                           (long long)(at / K), (long long)(at % K));
        *min = fminf(*min, v);
        *max = fmaxf(*max, v);
    }
    return TW_OK;
}

/* ---- MSE ------------------------------------------------------------------------------------- */

/* Room for a search; one allocation. */
typedef struct search {
    const tw_observer *o;
    tw_affine a;
    const void *x;
    const float *amax;             /* of each range */
    float *below, *above, *scales; /* of each range */
    float *loss;                   /* the least so far */
    int32_t *zeros;
    void *y; /* x's codes, dequantized */
    uint8_t *mask;
} search;

/* The mean square of y - x over range i, each operation in x's dtype, the sum in double. */
static float loss_of(const search *s, int64_t i) {
    int64_t count = s->o->channels ? s->a.K : s->a.N * s->a.K;
    double sum = 0;
    for (int64_t at = i * count; at < (i + 1) * count; at++) {
        float d = tw_float_get(s->y, s->o->x, at) - tw_float_get(s->x, s->o->x, at);
        d = tw_float_round(s->o->x, d);
        sum += (double)tw_float_round(s->o->x, d * d);
    }
    return tw_float_round(s->o->x, (float)(sum / (double)count));
}

static tw_status try_step(search *s, int step, float *min, float *max) {
    const tw_observer *o = s->o;
    for (int64_t i = 0; i < ranges_of(o); i++) {
        float part = tw_float_round(o->x, s->amax[i] / (float)o->steps);
        s->above[i] = tw_float_round(o->x, part * (float)step);
        s->below[i] = -s->above[i];
    }
    TW_TRY(
        tw_affine_choose_range(&s->a, o->mapping, o->eps, s->below, s->above, s->scales, s->zeros));
    TW_TRY(tw_affine_fake_quantize(&s->a, s->x, s->scales, s->zeros, s->y, s->mask));
    for (int64_t i = 0; i < ranges_of(o); i++) {
        float loss = loss_of(s, i);
        if (!(loss < s->loss[i])) continue;
        s->loss[i] = loss;
        min[i] = s->below[i];
        max[i] = s->above[i];
    }
    return TW_OK;
}

/* From the batch's own min and max to those of the best step. */
static tw_status search_range(const tw_observer *o, int64_t N, int64_t K, const void *x, float *min,
                              float *max) {
    size_t ranges = (size_t)ranges_of(o), count = (size_t)(N * K);
    float *room = malloc((6 * ranges + count) * sizeof *room + count);
    if (!room) return tw_fail(TW_MEMORY, "out of memory for %zu elements of x", count);
    search s = {.o = o, .a = affine_of(o, N, K), .x = x};
    float *amax = room;
    s.below = room + ranges;
    s.above = room + 2 * ranges;
    s.scales = room + 3 * ranges;
    s.loss = room + 4 * ranges;
    s.zeros = (int32_t *)(void *)(room + 5 * ranges);
    s.y = room + 6 * ranges;
    s.mask = (uint8_t *)(room + 6 * ranges + count);
    s.amax = amax;
    for (size_t i = 0; i < ranges; i++) {
        amax[i] = fmaxf(fabsf(min[i]), max[i]);
        s.loss[i] = 1e9F;
    }
    tw_status status = TW_OK;
    for (int step = 1; step <= o->steps && status == TW_OK; step++)
        status = try_step(&s, step, min, max);
    free(room);
    return status;
}

/* ---- batches --------------------------------------------------------------------------------- */

static void merge(tw_observer *o, const float *min, const float *max) {
    for (int64_t i = 0; i < ranges_of(o); i++) {
        float below = min[i], above = max[i];
        if (o->seen && o->kind == TW_OBSERVER_MIN_MAX) {
            below = fminf(o->min[i], below);
            above = fmaxf(o->max[i], above);
        } else if (o->seen && o->kind == TW_OBSERVER_AVERAGE) {
            float rate = (float)o->rate;
            below = tw_float_round(o->x, o->min[i] + rate * (below - o->min[i]));
            above = tw_float_round(o->x, o->max[i] + rate * (above - o->max[i]));
        }
        o->min[i] = below;
        o->max[i] = above;
    }
    o->seen++;
}

tw_status tw_observer_see(tw_observer *observer, int64_t N, int64_t K, const void *x) {
    tw_observer *o = observer;
    if (!o) return tw_fail(TW_INVALID, "observer: NULL, must be given");
    if (!x && N && K) return tw_fail(TW_INVALID, "x: NULL, must be given");
    TW_TRY(check(o));
    if (!tw_dtype_is_real(o->x))
        return tw_fail(TW_INVALID, "x: dtype %s, expected f32, f16 or bf16", tw_dtype_name(o->x));
    if (N < 0 || K < 0 || N > TW_MAX_DIM || K > TW_MAX_DIM)
        return tw_fail(TW_INVALID, "x: shape [%lld,%lld], both must be from 0 to %d", (long long)N,
                       (long long)K, TW_MAX_DIM);
    if (o->channels && N != o->channels)
        return tw_fail(TW_INVALID, "x: shape [%lld,%lld], expected %lld rows", (long long)N,
                       (long long)K, (long long)o->channels);
    if (!N || !K) return TW_OK;
    float *min = malloc(2 * (size_t)ranges_of(o) * sizeof *min), *max = min + ranges_of(o);
    if (!min) return tw_fail(TW_MEMORY, "out of memory for %lld ranges", (long long)ranges_of(o));
    tw_status status = TW_OK;
    for (int64_t i = 0; i < ranges_of(o) && status == TW_OK; i++)
        status = find_range(o, N, K, x, i, &min[i], &max[i]);
    if (status == TW_OK && o->kind == TW_OBSERVER_MSE) status = search_range(o, N, K, x, min, max);
    if (status == TW_OK) merge(o, min, max);
    free(min);
    return status;
}

static tw_status check_seen(const tw_observer *o) {
    if (!o) return tw_fail(TW_INVALID, "observer: NULL, must be given");
    TW_TRY(check(o));
    return o->seen ? TW_OK : tw_fail(TW_INVALID, "observer: no batch seen");
}

tw_status tw_observer_range(const tw_observer *observer, float *min, float *max) {
    TW_TRY(check_seen(observer));
    if (!min || !max) return tw_fail(TW_INVALID, "min, max: NULL, must be given");
    size_t bytes = (size_t)ranges_of(observer) * sizeof *min;
    memcpy(min, observer->min, bytes);
    memcpy(max, observer->max, bytes);
    return TW_OK;
}

tw_status tw_observer_choose(const tw_observer *observer, tw_dtype scale, void *scales,
                             int32_t *zeros) {
    const tw_observer *o = observer;
    TW_TRY(check_seen(o));
    if (!scales || !zeros) return tw_fail(TW_INVALID, "scales, zeros: NULL, must be given");
    tw_affine a = affine_of(o, ranges_of(o), 1);
    a.group_n = 1;
    a.scale = scale;
    return tw_affine_choose_range(&a, o->mapping, o->eps, o->min, o->max, scales, zeros);
}
