/* Successive halving (Jamieson, Talwalkar: Non-stochastic Best Arm Identification and
 * Hyperparameter Optimization, AISTATS 2016): all get a few samples, the better half gets twice as
 * many, and so on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "autotune/search.h"
#include "src/base/status.h"

/* So far behind after the first samples, no noise explains it. */
static const double HOPELESS = 1.5;

static const tw_point *point_of(const tw_search *s, int id) { return &s->space.points[id]; }

bool tw_search_stop(tw_search *s) {
    const tw_tune_hooks *h = s->hooks;
    int total = s->planned > s->done ? s->planned : s->done;
    if (h->progress && h->progress(h->user, s->done, total)) s->result.stopped = true;
    return s->result.stopped;
}
bool tw_search_asked(void *arg) { return tw_search_stop(arg); }

/* ---- what becomes known ---- */

static tw_status tell_sink(const tw_search *s, int id, const char *failure) {
    const tw_entry *e = &s->entries[id];
    const tw_point *p = point_of(s, id);
    tw_str text = {0};
    tw_config_text(&p->config, &text);
    if (failure)
        tw_log_line(s->request->log, TW_LOG_DEBUG, "tune: %s %s: %s", p->tmpl->name,
                    tw_str_text(&text), failure);
    else
        tw_log_line(s->request->log, TW_LOG_DEBUG, "tune: %s %s: %.0f ns, spread %.0f",
                    p->tmpl->name, tw_str_text(&text), e->median_ns, e->spread_ns);
    tw_str_free(&text);
    tw_tune_trial trial = {p->tmpl, p->config, failure ? 0 : e->median_ns,
                           failure ? 0 : e->spread_ns, failure};
    return s->hooks->sink ? s->hooks->sink(s->hooks->user, &trial) : TW_OK;
}

tw_status tw_search_fail(tw_search *s, int id, const char *stage, const char *why) {
    tw_entry *e = &s->entries[id];
    char failure[400];
    snprintf(failure, sizeof failure, "%s: %s", stage, why);
    if (e->state == TW_ENTRY_NEW) s->done++;
    e->state = TW_ENTRY_FAILED;
    s->result.failed++;
    tw_candidate_unload(&e->candidate);
    return tell_sink(s, id, failure);
}

static tw_status record(tw_search *s, int id, const tw_series *series) {
    if (!series->count) return TW_OK;
    tw_entry *e = &s->entries[id];
    tw_timing timing = tw_series_timing(series);
    e->median_ns = timing.median_ns;
    e->spread_ns = timing.spread_ns;
    e->level_ns = tw_series_level(series);
    if (e->state == TW_ENTRY_NEW) {
        e->state = TW_ENTRY_TIMED;
        s->done++;
        s->result.measured++;
    }
    e->here = true;
    return tell_sink(s, id, NULL);
}

/* ---- building ---- */

/* The config does not build, whatever the machine; any other failure is the machine's. */
static bool is_of_config(tw_status status) {
    return status == TW_COMPILE || status == TW_FORMAT || status == TW_INTERNAL;
}

static tw_status take_failure(tw_search *s, int id, const tw_build_job *job) {
    if (!is_of_config(job->status)) return tw_fail(job->status, "%s", job->why);
    tw_log_line(s->request->log, TW_LOG_WARN, "tune: %s does not build: %s", job->point->tmpl->name,
                job->why);
    return tw_search_fail(s, id, "compile", job->why);
}

tw_status tw_search_load(tw_search *s, const int *ids, int count, int64_t deadline_ns) {
    tw_build_job jobs[TW_MAX_WAVE];
    int which[TW_MAX_WAVE], wanted = 0;
    for (int i = 0; i < count; i++)
        if (!s->entries[ids[i]].candidate.tmpl) {
            which[wanted] = ids[i];
            jobs[wanted++] = (tw_build_job){.point = point_of(s, ids[i])};
        }
    tw_build(s->env, s->request, s->hooks, jobs, wanted, deadline_ns, tw_search_asked, s);
    /* First, since those that were built have to be unloaded however this ends. */
    for (int i = 0; i < wanted; i++)
        if (jobs[i].done) s->entries[which[i]].candidate = jobs[i].candidate;
    for (int i = 0; i < wanted; i++)
        if (jobs[i].status != TW_OK) TW_TRY(take_failure(s, which[i], &jobs[i]));
    return TW_OK;
}

/* ---- timing ---- */

typedef struct wave {
    int ids[TW_MAX_WAVE];
    tw_series *series; /* one an id, owned */
    double level[TW_MAX_WAVE];
    int order[TW_MAX_WAVE]; /* positions of those still in it, best first once sorted */
    int count, alive;
} wave;

/* Those that are loaded, each with an empty series. */
static tw_status start(tw_search *s, const int *ids, int count, int64_t deadline_ns, wave *w) {
    *w = (wave){0};
    TW_TRY(tw_search_load(s, ids, count, deadline_ns));
    w->series = malloc((size_t)count * sizeof *w->series + 1);
    if (!w->series) return tw_fail(TW_MEMORY, "tune: samples of %d configs, out of memory", count);
    tw_status status = TW_OK;
    for (int i = 0; i < count && status == TW_OK; i++) {
        tw_entry *e = &s->entries[ids[i]];
        if (!e->candidate.tmpl) continue;
        status = tw_series_start(s->workload, &e->candidate, &w->series[w->count]);
        w->order[w->alive++] = w->count;
        w->ids[w->count++] = ids[i];
    }
    if (status != TW_OK) free(w->series);
    return status;
}

/* What the next sample takes; of the first one, no more is known than of the guess. */
static double next_sample_ns(const tw_search *s, const tw_series *series) {
    return series->count ? series->ns[series->count - 1] * series->calls : s->effort.launch_ns;
}

/* One sample of each that is still in; false when the run ends. */
static bool sample_round(tw_search *s, wave *w, int round, int64_t deadline_ns) {
    for (int i = 0; i < w->alive; i++) {
        tw_series *series = &w->series[w->order[(i + round) % w->alive]];
        double left = (double)deadline_ns - (double)tw_env_now(s->env);
        if (tw_search_stop(s) || next_sample_ns(s, series) >= left) return false;
        tw_series_sample(s->workload, s->request->threads, series);
    }
    return true;
}

/* Best first; what was never sampled goes last. */
static void sort(wave *w) {
    for (int i = 0; i < w->alive; i++) {
        const tw_series *series = &w->series[w->order[i]];
        w->level[w->order[i]] = series->count ? tw_series_level(series) : 1e300;
    }
    for (int i = 1; i < w->alive; i++)
        for (int j = i; j && w->level[w->order[j]] < w->level[w->order[j - 1]]; j--) {
            int swap = w->order[j];
            w->order[j] = w->order[j - 1];
            w->order[j - 1] = swap;
        }
}

/* Takes those behind position `alive` out. */
static tw_status cut(tw_search *s, wave *w, int alive) {
    for (int i = alive; i < w->alive; i++) {
        int id = w->ids[w->order[i]];
        TW_TRY(record(s, id, &w->series[w->order[i]]));
        tw_candidate_unload(&s->entries[id].candidate);
    }
    if (alive < w->alive) w->alive = alive;
    return TW_OK;
}

static tw_status halve(tw_search *s, wave *w, int keep) {
    int alive = (int)tw_max(w->alive / 2, keep);
    double limit = w->level[w->order[0]] * HOPELESS;
    while (alive > 1 && alive <= w->alive && w->level[w->order[alive - 1]] > limit) alive--;
    return cut(s, w, alive);
}

/* The leaders are those that are left. */
static tw_status finish(tw_search *s, wave *w, int keep) {
    int leaders = 0, beside = 0;
    for (int i = 0; i < w->count; i++) beside += w->series[i].count > 0;
    s->beside = (int)tw_max(s->beside, beside);
    sort(w);
    TW_TRY(cut(s, w, keep));
    for (int i = 0; i < w->alive; i++) {
        int id = w->ids[w->order[i]];
        TW_TRY(record(s, id, &w->series[w->order[i]]));
        if (w->series[w->order[i]].count && leaders < (int)TW_COUNT(s->leaders))
            s->leaders[leaders++] = id;
    }
    /* A wave that ended before its first sample leaves the leaders of the one before. */
    if (leaders) s->leader_count = leaders;
    return TW_OK;
}

/* How many samples a first look takes when one takes so long. */
static int look_samples(double look_ns, double sample_ns) {
    if (sample_ns >= TW_LONG_NS) return 1;
    return (int)fmin(fmax(look_ns / fmax(sample_ns, 1), TW_LEAST_LOOKS), TW_MOST_LOOKS);
}

static tw_status halving(tw_search *s, wave *w, int keep, int64_t deadline_ns) {
    int round = 0;
    bool going = w->alive > 0, is_long = s->effort.launch_ns >= TW_LONG_NS;
    int samples = look_samples(TW_LOOK_NS, s->effort.launch_ns);
    if (going && !s->launch_timed) {
        /* The first sample of all tells how many there are: many, since it may be a disturbed one
         * and all else is planned by what they say. */
        going = sample_round(s, w, round++, deadline_ns);
        if (going) samples = look_samples(TW_MOST_LOOKS * TW_LOOK_NS, w->series[0].ns[0]);
        s->launch_timed = going;
    }
    for (int until = samples; going; until = round + samples) {
        while (round < until && going) going = sample_round(s, w, round++, deadline_ns);
        sort(w);
        if (w->alive <= keep) break;
        if (going) TW_TRY(halve(s, w, keep));
        if (!is_long) samples *= 2;
    }
    return finish(s, w, keep);
}

tw_status tw_search_wave(tw_search *s, const int *ids, int count, int keep, int64_t deadline_ns) {
    wave w;
    TW_TRY(start(s, ids, count, deadline_ns, &w));
    tw_status status = halving(s, &w, keep, deadline_ns);
    free(w.series);
    return status;
}

tw_status tw_search_final(tw_search *s, const int *ids, int count, int64_t deadline_ns) {
    wave w;
    tw_timing timings[TW_MAX_WAVE];
    TW_TRY(start(s, ids, count, deadline_ns, &w));
    for (int round = 0; round < TW_MAX_SAMPLES && w.alive; round++) {
        if (!sample_round(s, &w, round, deadline_ns)) break;
        for (int i = 0; i < w.count; i++) timings[i] = tw_series_timing(&w.series[i]);
        if (tw_timing_settled(timings, w.count)) break;
    }
    tw_status status = finish(s, &w, w.alive);
    free(w.series);
    return status;
}
