/* Data, packed copies and buffers of one problem. */
#include "autotune/workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/tune.h"
#include "src/base/alloc.h"
#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/core/dtype.h"

static int64_t real_now(void *user) {
    (void)user;
    return tw_now_ns();
}
static const tw_template *real_row(void *user, int i) {
    (void)user;
    return tw_template_row(i);
}
static tw_status real_load(void *user, const tw_template *tmpl, const tw_problem *problem,
                           const tw_config *config, const void *object, size_t size,
                           tw_candidate *out) {
    (void)user;
    return tw_candidate_load(tmpl, problem, config, object, size, out);
}
const tw_tune_env tw_tune_env_real = {NULL, real_now, real_row, real_load};

static void *reserve(size_t size) { return tw_alloc_untouched(&tw_allocator_default, size); }
static void release(void *p, size_t size) { tw_free(&tw_allocator_default, p, size); }
static tw_status no_memory(size_t size) {
    return tw_fail(TW_MEMORY, "workload: %zu bytes, out of memory", size);
}

/* ---- creation ---- */

/* Up to so many rows, reading the weights takes a part of the time that can be seen (a core does
 * some 20 operations in the time of a byte from memory, and a weight of half a byte has 2 M), and
 * between two calls of one layer a model reads all its others. */
enum { COLD_ROWS = 64 };
enum { UNKNOWN_LLC = 32 << 20, MAX_COLD = 1 << 30 };

/* Eight times the last-level cache: one that resists streaming keeps a part of what it is rotated
 * over, more of it for some orders of reading than for others.  Of twice its size Zen 5 reads up to
 * 45 % faster than memory, of eight times at memory's rate in every order. */
int64_t tw_cold_bytes(const tw_problem *p, const tw_target *target, tw_weights_state state) {
    bool cold = state == TW_WEIGHTS_COLD || (state == TW_WEIGHTS_AUTO && p->M <= COLD_ROWS);
    if (!cold) return 0;
    int64_t llc = target->l3_bytes ? target->l3_bytes : tw_max(target->l2_bytes, UNKNOWN_LLC);
    return tw_min(8 * llc, MAX_COLD);
}

/* Kernels read bias as f32, a whole panel of 64. */
static tw_status widen_bias(tw_workload *w) {
    const tw_problem *p = &w->problem;
    if (!p->bias) return TW_OK;
    w->bias_bytes = (size_t)tw_round_up(p->N, 64) * sizeof *w->bias;
    w->bias = tw_alloc(&tw_allocator_default, w->bias_bytes);
    if (!w->bias) return no_memory(w->bias_bytes);
    for (int64_t n = 0; n < p->N; n++) w->bias[n] = tw_float_get(w->data.bias, p->bias, n);
    return TW_OK;
}

static tw_status reserve_all(tw_workload *w) {
    const tw_problem *p = &w->problem;
    TW_TRY(tw_data_reserve(p, &w->data));
    TW_TRY(widen_bias(w));
    w->x_bytes = (size_t)(p->M * (p->K + TW_ROW_GAP) * tw_x_size(w));
    w->y_bytes = (size_t)((p->M + 1) * (p->N + TW_ROW_GAP) * tw_y_size(w));
    w->x = reserve(w->x_bytes);
    w->y = reserve(w->y_bytes);
    return w->x && w->y ? TW_OK : no_memory(w->x_bytes + w->y_bytes);
}

tw_status tw_workload_open(const tw_tune_env *env, const tw_problem *problem,
                           const tw_target *target, tw_weights_state state, tw_workload **out) {
    TW_TRY(tw_problem_check(problem));
    if (problem->M < 1)
        return tw_fail(TW_INVALID, "M: %lld, expected at least 1", (long long)problem->M);
    tw_workload *w = calloc(1, sizeof *w);
    if (!w) return no_memory(sizeof *w);
    w->problem = *problem;
    w->env = env;
    w->cold_bytes = tw_cold_bytes(problem, target, state);
    tw_status status = reserve_all(w);
    if (status == TW_OK)
        *out = w;
    else
        tw_workload_destroy(w);
    return status;
}

static void data_task(void *arg, size_t i) {
    const tw_workload *w = arg;
    tw_data_fill(&w->problem, &w->data, i);
}

/* Memory that is touched, or filled with copies of its first bytes, by the span. */
typedef struct spans {
    char *to;
    size_t size, stride; /* stride: of one copy; 0: zeros */
    size_t first;        /* where the first span begins */
} spans;
enum { SPAN_BYTES = 4 << 20 };

static void span_task(void *arg, size_t i) {
    const spans *s = arg;
    size_t at = s->first + i * SPAN_BYTES, rest = s->size - at;
    size_t end = at + (rest < SPAN_BYTES ? rest : SPAN_BYTES);
    if (!s->stride) memset(s->to + at, 0, end - at);
    for (size_t run; s->stride && at < end; at += run) {
        size_t from = at % s->stride, left = s->stride - from;
        run = left < end - at ? left : end - at;
        memcpy(s->to + at, s->to + from, run);
    }
}

static bool run_spans(tw_parts *parts, spans *s) {
    size_t count = (s->size - s->first + SPAN_BYTES - 1) / SPAN_BYTES;
    return tw_parts_run(parts, span_task, s, count);
}

bool tw_workload_fill(tw_workload *w, tw_parts *parts) {
    /* x and y belong to this: a kernel that first met their pages would be timed doing so. */
    return tw_parts_run(parts, data_task, w, tw_data_parts(&w->problem)) &&
           run_spans(parts, &(spans){w->x, w->x_bytes, 0, 0}) &&
           run_spans(parts, &(spans){w->y, w->y_bytes, 0, 0});
}

tw_status tw_workload_create_in(const tw_tune_env *env, const tw_problem *problem,
                                const tw_layout *layout, const tw_target *target,
                                tw_weights_state state, tw_workload **out) {
    tw_packed *unused;
    tw_workload *w = NULL;
    TW_TRY(tw_workload_open(env, problem, target, state, &w));
    tw_parts parts = tw_parts_all(env, NULL);
    tw_workload_fill(w, &parts);
    tw_status status = layout ? tw_workload_pack(w, layout, &unused) : TW_OK;
    if (status == TW_OK)
        *out = w;
    else
        tw_workload_destroy(w);
    return status;
}

tw_status tw_workload_create(const tw_problem *problem, const tw_layout *layout,
                             const tw_target *target, tw_weights_state state, tw_workload **out) {
    return tw_workload_create_in(&tw_tune_env_real, problem, layout, target, state, out);
}

void tw_workload_destroy(tw_workload *w) {
    if (!w) return;
    tw_data_free(&w->data);
    release(w->bias, w->bias_bytes);
    release(w->x, w->x_bytes);
    release(w->y, w->y_bytes);
    release(w->scratch, w->scratch_bytes);
    release(w->rounded, w->rounded_bytes);
    for (int i = 0; i < w->layouts; i++) release(w->packed[i].copies, w->packed[i].bytes);
    for (int math = 0; math < TW_FPMATHS; math++)
        for (int i = 0; i < TW_PROBES; i++) tw_oracle_free(&w->oracle[math][i]);
    free(w);
}

/* ---- weights, x, scratch ---- */

/* A copy of the canonical tensors is weight, scales, zeros, each from a multiple of 64 bytes. */
static size_t scales_at(const tw_data *d) {
    return (size_t)tw_round_up((int64_t)d->weight_bytes, 64);
}
static size_t zeros_at(const tw_data *d) {
    return scales_at(d) + (size_t)tw_round_up((int64_t)d->scale_bytes, 64);
}
static size_t canonical_bytes(const tw_data *d) { return zeros_at(d) + d->zero_bytes; }

static void copy_canonical(const tw_data *d, char *copy) {
    memcpy(copy, d->weight, d->weight_bytes);
    if (d->scales) memcpy(copy + scales_at(d), d->scales, d->scale_bytes);
    if (d->zeros) memcpy(copy + zeros_at(d), d->zeros, d->zero_bytes);
}

static tw_packed *find_packed(tw_workload *w, const tw_layout *layout) {
    for (int i = 0; i < w->layouts; i++)
        if (w->packed[i].layout == layout) return &w->packed[i];
    return NULL;
}

static tw_status reserve_packed(tw_workload *w, const tw_layout *layout, tw_packed *out) {
    if (w->layouts == TW_MAX_LAYOUTS)
        return tw_fail(TW_INTERNAL, "layout: %s, a workload holds %d layouts at most",
                       layout ? layout->name : "canonical", TW_MAX_LAYOUTS);
    const char *why = layout ? layout->reject(&w->problem) : NULL;
    if (why) return tw_fail(TW_UNSUPPORTED, "layout: %s, %s", layout->name, why);
    size_t bytes = layout ? layout->bytes(&w->problem) : canonical_bytes(&w->data);
    tw_packed p = {.layout = layout, .stride = (size_t)tw_round_up((int64_t)bytes, 64)};
    int64_t copies = tw_ceil_div(w->cold_bytes, tw_max((int64_t)p.stride, 1));
    p.bytes = p.stride * (size_t)tw_max(copies, 1);
    p.copies = reserve(p.bytes);
    *out = p;
    return p.copies ? TW_OK : no_memory(p.bytes);
}

typedef struct pack_job {
    const tw_workload *w;
    tw_packed *packed;
    int64_t rows; /* of a part */
} pack_job;

static void pack_task(void *arg, size_t i) {
    const pack_job *job = arg;
    const tw_problem *p = &job->w->problem;
    tw_canonical canonical = tw_data_canonical(&job->w->data);
    int64_t n0 = (int64_t)i * job->rows, n1 = tw_min(n0 + job->rows, p->N);
    job->packed->layout->pack(p, &canonical, false, n0, n1, job->packed->copies);
}

static bool pack_first(tw_workload *w, tw_parts *parts, tw_packed *p) {
    enum { WEIGHTS = 1 << 20 };
    int64_t rows = tw_round_up(tw_ceil_div(WEIGHTS, w->problem.K), TW_PACK_ROWS);
    pack_job job = {w, p, rows};
    if (p->layout)
        return tw_parts_run(parts, pack_task, &job, (size_t)tw_ceil_div(w->problem.N, rows));
    copy_canonical(&w->data, p->copies);
    return true;
}

/* Without a quarter of them weights would still be warm; more make them colder. */
static bool make_copies(tw_workload *w, tw_parts *parts, int64_t extras_ns, tw_packed *p) {
    enum { STEP = 64 << 20 };
    size_t end = p->bytes, quarter = (size_t)w->cold_bytes / 4 + p->stride - 1;
    size_t least = quarter / p->stride * p->stride;
    tw_parts extras = *parts;
    extras.deadline_ns = tw_min(extras_ns, parts->deadline_ns);
    spans s = {p->copies, least < p->stride ? p->stride : least, p->stride, p->stride};
    if (!run_spans(parts, &s)) return false;
    /* Step by step, since it does not matter how many of these are in time. */
    while (s.size < end) {
        s.first = s.size;
        s.size = end - s.first < STEP ? end : s.first + STEP;
        if (run_spans(&extras, &s)) continue;
        s.size = s.first;
        break;
    }
    p->count = (int64_t)(s.size / p->stride);
    return true;
}

tw_status tw_workload_pack_by(tw_workload *w, tw_parts *parts, int64_t extras_ns,
                              const tw_layout *layout, bool *made) {
    tw_packed p;
    *made = true;
    if (find_packed(w, layout)) return TW_OK;
    TW_TRY(reserve_packed(w, layout, &p));
    *made = pack_first(w, parts, &p) && make_copies(w, parts, extras_ns, &p);
    if (*made)
        w->packed[w->layouts++] = p;
    else
        release(p.copies, p.bytes);
    return TW_OK;
}

tw_status tw_workload_pack(tw_workload *w, const tw_layout *layout, tw_packed **out) {
    bool made;
    tw_parts parts = tw_parts_all(w->env, NULL);
    TW_TRY(tw_workload_pack_by(w, &parts, INT64_MAX, layout, &made));
    *out = find_packed(w, layout);
    return TW_OK;
}

tw_status tw_workload_reserve(tw_workload *w, const tw_candidate *candidate) {
    if (candidate->rival) return TW_OK; /* brings its own */
    size_t rounded = tw_launch_rounded_bytes(&w->problem, w->problem.M);
    if (rounded && !w->rounded) {
        w->rounded = tw_alloc(&tw_allocator_default, rounded);
        if (!w->rounded) return no_memory(rounded);
        w->rounded_bytes = rounded;
    }
    size_t bytes = tw_launch_scratch(&candidate->kernel, w->problem.M);
    if (w->scratch && bytes <= w->scratch_bytes) return TW_OK;
    release(w->scratch, w->scratch_bytes);
    w->scratch = tw_alloc(&tw_allocator_default, bytes);
    w->scratch_bytes = w->scratch ? bytes : 0;
    return w->scratch ? TW_OK : no_memory(bytes);
}

tw_status tw_workload_fill_timing(tw_workload *w) {
    enum { ROWS = 8 };
    if (w->timing) return TW_OK;
    const tw_problem *p = &w->problem;
    float *row = malloc((size_t)p->K * sizeof *row);
    if (!row) return no_memory((size_t)p->K * sizeof *row);
    size_t bytes = (size_t)(p->K * tw_x_size(w));
    for (int64_t m = 0; m < p->M; m++) {
        char *to = w->x + (size_t)m * bytes;
        if (m >= ROWS) {
            memcpy(to, w->x + (size_t)(m % ROWS) * bytes, bytes);
            continue;
        }
        tw_data_plain(p, m, row);
        for (int64_t k = 0; k < p->K; k++) tw_float_set(to, p->x, k, row[k]);
    }
    free(row);
    w->timing = true;
    return TW_OK;
}

static void run_rival(tw_workload *w, tw_rival *rival, const char *copy, int64_t M,
                      int64_t x_stride, int64_t y_stride) {
    const tw_data *d = &w->data;
    tw_canonical canonical = {.weight = copy,
                              .scales = d->scales ? copy + scales_at(d) : NULL,
                              .zeros = d->zeros ? copy + zeros_at(d) : NULL,
                              .bias = d->bias,
                              .lut = d->lut,
                              .act_scale = d->act_scale};
    tw_status status =
        rival->run(rival->user, &w->problem, &canonical, w->x, x_stride, w->y, y_stride, M);
    if (status == TW_OK || rival->failure != TW_OK) return;
    rival->failure = status;
    snprintf(rival->why, sizeof rival->why, "%s", tw_error_message());
}

void tw_workload_launch(tw_workload *w, tw_threads *threads, const tw_candidate *candidate,
                        tw_packed *packed, int64_t M, int64_t x_stride, int64_t y_stride) {
    char *weights = packed->copies + packed->stride * (size_t)packed->next;
    packed->next = (packed->next + 1) % packed->count;
    if (candidate->rival) {
        run_rival(w, candidate->rival, weights, M, x_stride, y_stride);
        return;
    }
    tw_kernel_args args = {
        .x = w->x,
        .x_stride = x_stride * tw_x_size(w),
        .w = weights,
        .bias = w->bias,
        .lut = w->data.lut,
        .y = w->y,
        .y_stride = y_stride * tw_y_size(w),
        .M = M,
    };
    if (w->rounded)
        tw_launch_rounded(&candidate->kernel, threads, &w->problem, w->data.act_scale, &args,
                          w->rounded, w->scratch);
    else
        tw_launch(&candidate->kernel, threads, &args, w->scratch);
}
