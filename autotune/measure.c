/* Interleaved timing: candidates take turns, so that a drift of the clock or a busy neighbour meets
 * all of them alike, and medians with confidence intervals say when enough is known. */
#include "autotune/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/series.h"
#include "autotune/statistics.h"
#include "src/base/status.h"

/* A sample lasts at least so long, or reading the clock is a part of it. */
static const double SAMPLE_NS = 20000;
/* A launch this long warms itself up. */
static const double LONG_NS = 2000000;
enum { MAX_CALLS = 64, MIN_SAMPLES = 5 };
static const double INDIFFERENCE = 0.01;

/* ---- series ---- */

tw_status tw_series_start(tw_workload *w, const tw_candidate *candidate, tw_series *out) {
    TW_TRY(tw_workload_pack(w, tw_candidate_layout(candidate), &out->packed));
    TW_TRY(tw_workload_reserve(w, candidate));
    TW_TRY(tw_workload_fill_timing(w));
    out->candidate = candidate;
    out->calls = out->count = 0;
    return TW_OK;
}

static double timed(tw_workload *w, tw_threads *threads, tw_series *s, int calls) {
    const tw_problem *p = &w->problem;
    int64_t start = tw_env_now(w->env);
    for (int i = 0; i < calls; i++)
        tw_workload_launch(w, threads, s->candidate, s->packed, p->M, p->K, p->N);
    return (double)(tw_env_now(w->env) - start) / calls;
}

static void keep(tw_series *s, double ns) {
    if (s->count < TW_MAX_SAMPLES) s->ns[s->count++] = ns;
}

void tw_series_sample(tw_workload *w, tw_threads *threads, tw_series *s) {
    if (!s->calls) {
        double first = timed(w, threads, s, 1);
        s->calls = (int)fmin(fmax(ceil(SAMPLE_NS / fmax(first, 1)), 1), MAX_CALLS);
        if (first >= LONG_NS) {
            keep(s, first);
            return;
        }
    }
    /* Short kernels would be timed while their code is still on its way into the cache. */
    if (s->calls > 1) timed(w, threads, s, 1);
    keep(s, timed(w, threads, s, s->calls));
}

/* One sample of each, in turn, beginning with another one each round.  False: the deadline came
 * first. */
static bool sample_round(tw_workload *w, tw_threads *threads, tw_series *series, int count,
                         int round, int64_t deadline_ns) {
    for (int i = 0; i < count; i++) {
        if (tw_env_now(w->env) >= deadline_ns) return false;
        tw_series_sample(w, threads, &series[(i + round) % count]);
    }
    return true;
}

/* ---- statistics ---- */

tw_timing tw_series_timing(const tw_series *series) {
    double sorted[TW_MAX_SAMPLES];
    int n = series->count;
    if (!n) return (tw_timing){0};
    memcpy(sorted, series->ns, (size_t)n * sizeof *sorted);
    tw_sort(sorted, n);
    return (tw_timing){
        .median_ns = tw_quantile(sorted, n, 0.5),
        .min_ns = sorted[0],
        .p90_ns = tw_quantile(sorted, n, 0.9),
        .spread_ns = (tw_quantile(sorted, n, 0.75) - tw_quantile(sorted, n, 0.25)) / 2,
        .samples = n,
    };
}

double tw_series_level(const tw_series *series) {
    double sorted[TW_MAX_SAMPLES];
    memcpy(sorted, series->ns, (size_t)series->count * sizeof *sorted);
    tw_sort(sorted, series->count);
    return tw_quantile(sorted, series->count, 0.25);
}

double tw_timing_interval(const tw_timing *timing) {
    if (timing->samples < MIN_SAMPLES) return INFINITY;
    return 1.58 * 2 * timing->spread_ns / sqrt(timing->samples);
}

bool tw_timing_settled(const tw_timing *timings, int count) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (timings[i].samples && (best < 0 || timings[i].median_ns < timings[best].median_ns))
            best = i;
    if (best < 0) return false;
    double least = timings[best].median_ns, interval = tw_timing_interval(&timings[best]);
    if (interval > INDIFFERENCE * least) return false;
    for (int i = 0; i < count; i++) {
        if (i == best || !timings[i].samples) continue;
        double own = tw_timing_interval(&timings[i]), apart = timings[i].median_ns - least;
        bool worse = apart > interval + own;
        bool alike = apart + own <= INDIFFERENCE * least;
        if (!worse && !alike) return false;
    }
    return true;
}

/* ---- tw_measure ---- */

static void summarize(const tw_series *series, int count, tw_timing *timings) {
    for (int i = 0; i < count; i++) timings[i] = tw_series_timing(&series[i]);
}

static tw_status measure(tw_workload *w, tw_threads *threads, const tw_candidate *candidates,
                         int count, int64_t deadline_ns, tw_series *series, tw_timing *timings) {
    for (int i = 0; i < count; i++) TW_TRY(tw_series_start(w, &candidates[i], &series[i]));
    /* Each is timed once even past the deadline: there must be an answer. */
    sample_round(w, threads, series, count, 0, INT64_MAX);
    for (int round = 1; round < TW_MAX_SAMPLES; round++) {
        summarize(series, count, timings);
        if (tw_timing_settled(timings, count)) break;
        if (!sample_round(w, threads, series, count, round, deadline_ns)) break;
    }
    summarize(series, count, timings);
    return TW_OK;
}

tw_status tw_measure(tw_workload *w, tw_threads *threads, const tw_candidate *candidates, int count,
                     int64_t deadline_ns, tw_timing *timings) {
    if (count < 1) return tw_fail(TW_INVALID, "candidates: %d, expected at least 1", count);
    tw_series *series = calloc((size_t)count, sizeof *series);
    if (!series) return tw_fail(TW_MEMORY, "measure: %d candidates, out of memory", count);
    tw_status status = measure(w, threads, candidates, count, deadline_ns, series, timings);
    free(series);
    return status;
}
