/* The run: rank all legal configs by the model -> build and time the best few against each other ->
 * follow the neighbours of the best -> time the last few until the answer is settled -> verify. */
#include "autotune/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/guess.h"
#include "autotune/rank.h"
#include "autotune/search.h"
#include "src/base/status.h"

/* Shares of the budget: what may be spent on the oracle, until when the first wave and the search
 * last, and how long the final takes at most. */
static const double ORACLE_SHARE = 0.05, WAVE_SHARE = 0.5, SEARCH_SHARE = 0.85, FINAL_SHARE = 0.1;
/* Differences that are not worth telling apart. */
static const double ALIKE = 0.01;
enum { LEAST_WAVE = 4, MOST_WAVE = 32, LEAST_ROWS = 2, MOST_ROWS = 4, PATIENCE = 2 };

/* ---- set-up ---- */

static tw_status fill_space(tw_search *s) {
    const tw_tune_request *r = s->request;
    const tw_template *tmpl;
    tw_point guess;
    TW_TRY(tw_guess_in(s->env, r->target, r->problem, r->layout, &guess, NULL));
    for (int i = 0; (tmpl = s->env->row(s->env->user, i)); i++)
        if (!tw_template_declines(tmpl, r->target, r->problem, r->layout))
            TW_TRY(tw_space_add(&s->space, tmpl, r->target, r->problem));
    TW_TRY(tw_rank(&s->space, r->target, r->problem));
    s->guess = tw_space_find(&s->space, guess.tmpl, &guess.config);
    s->result.legal = s->space.count;
    s->entries = calloc((size_t)s->space.count, sizeof *s->entries);
    s->taken = calloc((size_t)s->space.count, sizeof *s->taken);
    if (!s->entries || !s->taken)
        return tw_fail(TW_MEMORY, "tune: %d configs, out of memory", s->space.count);
    return TW_OK;
}

/* One trial of an earlier run; points that the space no longer has do not count. */
static void take_known(void *arg, const tw_tune_trial *trial) {
    tw_search *s = arg;
    int id = tw_space_find(&s->space, trial->tmpl, &trial->config);
    if (id < 0) return;
    tw_entry *e = &s->entries[id];
    if (e->state == TW_ENTRY_NEW) s->result.known++, s->done++;
    s->taken[id] = true;
    /* A failure is for ever; of several timings the last one counts. */
    if (trial->failure || e->state == TW_ENTRY_FAILED) {
        e->state = TW_ENTRY_FAILED;
        return;
    }
    e->state = TW_ENTRY_TIMED;
    e->median_ns = trial->median_ns;
    e->spread_ns = trial->spread_ns;
}

/* As many different rows of x as the oracle can answer in its share of the budget. */
static tw_status ask_oracle(tw_search *s) {
    int64_t start = tw_env_now(s->env);
    double share = ORACLE_SHARE * (double)(s->end_ns - s->start_ns);
    for (s->rows = 0; s->rows < MOST_ROWS; s->rows++) {
        double used = (double)(tw_env_now(s->env) - start);
        if (s->rows >= LEAST_ROWS && used * (s->rows + 1) / s->rows > share) break;
        tw_oracle *unused;
        TW_TRY(tw_workload_oracle(s->workload, s->request->threads, s->rows, &unused));
    }
    return TW_OK;
}

static int64_t until(const tw_search *s, double share) {
    return s->start_ns + (int64_t)(share * (double)(s->measure_until_ns - s->start_ns));
}

/* What a verification takes: launches, and comparing what they wrote. */
static double verify_ns(const tw_search *s) {
    const tw_problem *p = s->request->problem;
    double launches = (double)tw_verify_launches(p, s->rows);
    double elements = fmin((double)p->M * (double)p->N, 4 << 20);
    return launches * s->launch_ns + 10 * elements;
}

/* The guess alone, or the best by the model that builds: it tells how long everything takes. */
static tw_status time_guess(tw_search *s) {
    for (int i = -1, tries = 0; i < s->space.count && tries < LEAST_WAVE && !s->leader_count; i++) {
        int id = i < 0 ? s->guess : i;
        if (s->entries[id].state == TW_ENTRY_FAILED || (i >= 0 && s->taken[id])) continue;
        int64_t start = tw_env_now(s->env);
        s->taken[id] = true;
        TW_TRY(tw_search_load(s, &id, 1, INT64_MAX));
        s->build_ns = (double)(tw_env_now(s->env) - start);
        TW_TRY(tw_search_wave(s, &id, 1, 1, INT64_MAX));
        s->launch_ns = s->entries[id].median_ns;
        tries++;
    }
    double reserve = fmin(1.5 * verify_ns(s), 0.4 * (double)(s->end_ns - s->start_ns));
    s->measure_until_ns = s->end_ns - (int64_t)reserve;
    return TW_OK;
}

/* ---- verification ---- */

/* True when the entry, loaded, computes what it should; VERIFY is no error of the run. */
static tw_status verified(tw_search *s, int id, bool *yes) {
    tw_entry *e = &s->entries[id];
    *yes = e->state == TW_ENTRY_VERIFIED;
    if (*yes || e->state == TW_ENTRY_FAILED) return TW_OK;
    if (!e->candidate.tmpl) TW_TRY(tw_search_load(s, &id, 1, INT64_MAX));
    if (!e->candidate.tmpl) return TW_OK;
    tw_status status =
        tw_verify(s->workload, s->request->threads, &e->candidate, s->rows, &e->error);
    if (status == TW_OK) {
        e->state = TW_ENTRY_VERIFIED;
        *yes = true;
        return TW_OK;
    }
    if (status != TW_VERIFY) return status;
    tw_str text = {0};
    tw_config_text(&s->space.points[id].config, &text);
    tw_log_line(s->request->log, TW_LOG_ERROR, "tune: %s %s computes wrong results: %s",
                s->space.points[id].tmpl->name, tw_str_text(&text), tw_error_message());
    tw_str_free(&text);
    char why[320];
    snprintf(why, sizeof why, "%s", tw_error_message());
    return tw_search_fail(s, id, "verify", why);
}

/* The fastest without a failure, of those timed here or of those known; -1 when there is none. */
static int fastest(const tw_search *s, bool here) {
    int best = -1;
    for (int i = 0; i < s->space.count; i++) {
        const tw_entry *e = &s->entries[i];
        bool good = e->state == TW_ENTRY_TIMED || e->state == TW_ENTRY_VERIFIED;
        if (good && e->here == here && (best < 0 || e->median_ns < s->entries[best].median_ns))
            best = i;
    }
    return best;
}

/* Who is next when all leaders turned out wrong, or the run was stopped before there was one. */
static int next_best(const tw_search *s) {
    int best = fastest(s, true);
    if (best >= 0 || !s->result.stopped) return best;
    best = fastest(s, false);
    return best < 0 && s->entries[s->guess].state != TW_ENTRY_FAILED ? s->guess : best;
}

/* Sees to it that the first leader computes what it should: drops those that do not, then takes the
 * next best.  None is left when nothing that was timed does, or when time is out. */
static tw_status verify_leader(tw_search *s) {
    for (;;) {
        int id = s->leader_count ? s->leaders[0] : next_best(s);
        if (id < 0) return TW_OK;
        bool yes;
        TW_TRY(verified(s, id, &yes));
        if (yes) {
            s->leaders[0] = id;
            s->leader_count = (int)tw_max(s->leader_count, 1);
            return TW_OK;
        }
        if (s->leader_count) s->leader_count--;
        memmove(s->leaders, s->leaders + 1, (size_t)s->leader_count * sizeof *s->leaders);
        if (tw_env_now(s->env) >= s->end_ns) return TW_OK;
    }
}

/* ---- the search ---- */

static bool out_of_time(const tw_search *s, double share) {
    return s->result.stopped || tw_env_now(s->env) >= until(s, share);
}

/* Configs that a wave ending at `share` has time for. */
static int wave_room(const tw_search *s, double share) {
    double window = (double)(until(s, share) - tw_env_now(s->env));
    double sample = fmax(s->launch_ns, 20000);
    double each = s->build_ns / s->request->target->threads + (sample >= 5e6 ? 2 : 12) * sample;
    double room = window / fmax(each, 1);
    return (int)fmin(fmax(room, LEAST_WAVE), MOST_WAVE);
}

/* Entries without a failure that were timed in earlier runs, best first. */
static int best_known(const tw_search *s, int room, int *out) {
    int count = 0;
    for (int i = 0; i < s->space.count; i++) {
        const tw_entry *e = &s->entries[i];
        if (e->state != TW_ENTRY_TIMED || e->here) continue;
        int at = count < room ? count++ : room;
        for (; at && s->entries[out[at - 1]].median_ns > e->median_ns; at--)
            if (at < room) out[at] = out[at - 1];
        if (at < room) out[at] = i;
    }
    return count;
}

static bool listed(const int *ids, int count, int id) {
    for (int i = 0; i < count; i++)
        if (ids[i] == id) return true;
    return false;
}

/* The model's best, with what earlier runs and the guess have to be compared with. */
static tw_status first_wave(tw_search *s) {
    int ids[TW_MAX_WAVE], known[TW_LEADERS], count = 0;
    if (s->entries[s->guess].state != TW_ENTRY_FAILED) ids[count++] = s->guess;
    int known_count = best_known(s, TW_LEADERS, known);
    for (int i = 0; i < known_count; i++)
        if (!listed(ids, count, known[i])) ids[count++] = known[i];
    int fresh;
    TW_TRY(tw_rank_pick(&s->space, s->taken, wave_room(s, WAVE_SHARE), ids + count, &fresh));
    s->planned = s->request->exhaustive ? s->space.count : s->done + fresh + TW_MAX_NEIGHBOURS;
    return tw_search_wave(s, ids, count + fresh, TW_LEADERS, until(s, WAVE_SHARE));
}

/* New neighbours of the leaders, the best one's first. */
static int fresh_neighbours(tw_search *s, int room, int *ids) {
    int count = 0, next[TW_MAX_NEIGHBOURS];
    for (int i = 0; i < s->leader_count; i++) {
        int n = tw_space_neighbours(&s->space, s->leaders[i], next);
        for (int j = 0; j < n && count < room; j++) {
            if (s->taken[next[j]]) continue;
            s->taken[next[j]] = true;
            ids[count++] = next[j];
        }
    }
    return count;
}

/* Steps from the best to better neighbours, until some steps in a row gained nothing. */
static tw_status climb(tw_search *s) {
    for (int idle = 0; idle < PATIENCE && s->leader_count && !out_of_time(s, SEARCH_SHARE);) {
        /* The neighbours of a wrong kernel are no goal; but on large problems verifying is for the
         * end. */
        if (verify_ns(s) * 20 < (double)(s->end_ns - tw_env_now(s->env))) TW_TRY(verify_leader(s));
        int ids[TW_MAX_WAVE], best = s->leader_count ? s->leaders[0] : -1;
        int count = s->leader_count;
        memcpy(ids, s->leaders, (size_t)count * sizeof *ids);
        int fresh = fresh_neighbours(s, wave_room(s, SEARCH_SHARE), ids + count);
        if (!fresh) break;
        s->planned = (int)tw_max(s->planned, s->done + fresh);
        TW_TRY(tw_search_wave(s, ids, count + fresh, TW_LEADERS, until(s, SEARCH_SHARE)));
        const tw_entry *now = &s->entries[s->leaders[0]], *before = &s->entries[best];
        bool gained = s->leaders[0] != best && now->level_ns < before->level_ns * (1 - ALIKE);
        idle = gained ? 0 : idle + 1;
    }
    return TW_OK;
}

/* Exhaustive: wave after wave of all the rest, each against the leaders. */
static tw_status the_rest(tw_search *s) {
    while (!out_of_time(s, SEARCH_SHARE)) {
        int ids[TW_MAX_WAVE], count = s->leader_count;
        memcpy(ids, s->leaders, (size_t)count * sizeof *ids);
        int fresh;
        TW_TRY(tw_rank_pick(&s->space, s->taken, wave_room(s, SEARCH_SHARE), ids + count, &fresh));
        if (!fresh) break;
        TW_TRY(tw_search_wave(s, ids, count + fresh, TW_LEADERS, until(s, SEARCH_SHARE)));
        TW_TRY(verify_leader(s));
    }
    return TW_OK;
}

/* ---- the decision ---- */

static tw_status run_final(tw_search *s) {
    int ids[TW_LEADERS + 1], count = s->leader_count;
    memcpy(ids, s->leaders, (size_t)count * sizeof *ids);
    if (!listed(ids, count, s->guess) && s->entries[s->guess].state != TW_ENTRY_FAILED)
        ids[count++] = s->guess;
    int64_t limit = tw_env_now(s->env) + (int64_t)(FINAL_SHARE * (double)(s->end_ns - s->start_ns));
    return tw_search_final(s, ids, count, tw_min(limit, s->measure_until_ns));
}

/* The leader, or one that is as fast and ranks better by the model, the guess before all: so that
 * runs agree where times do not tell. */
static void settle_ties(tw_search *s) {
    if (!s->leader_count) return;
    int best = 0;
    double limit = s->entries[s->leaders[0]].level_ns * (1 + ALIKE);
    for (int i = 1; i < s->leader_count; i++) {
        int id = s->leaders[i], now = s->leaders[best];
        if (s->entries[id].level_ns > limit || now == s->guess) continue;
        if (id == s->guess || id < now) best = i;
    }
    int chosen = s->leaders[best];
    memmove(s->leaders + 1, s->leaders, (size_t)best * sizeof *s->leaders);
    s->leaders[0] = chosen;
}

static tw_status decide(tw_search *s) {
    settle_ties(s);
    TW_TRY(verify_leader(s));
    if (!s->leader_count) {
        bool late = tw_env_now(s->env) >= s->end_ns;
        return tw_fail(TW_VERIFY, "problem: %d configs failed, none verified%s", s->result.failed,
                       late ? " within the budget" : "");
    }
    const tw_entry *e = &s->entries[s->leaders[0]], *guess = &s->entries[s->guess];
    const tw_point *p = &s->space.points[s->leaders[0]];
    s->result.tmpl = p->tmpl;
    s->result.config = p->config;
    s->result.median_ns = e->median_ns;
    s->result.spread_ns = e->spread_ns;
    s->result.error = e->error;
    s->result.guess_ns = guess->here && guess->state != TW_ENTRY_FAILED ? guess->median_ns : 0;
    return TW_OK;
}

static tw_status run(tw_search *s) {
    const tw_tune_request *r = s->request;
    TW_TRY(fill_space(s));
    if (s->hooks->source) s->hooks->source(s->hooks->user, take_known, s);
    TW_TRY(tw_workload_create_in(s->env, r->problem, r->layout, r->target, TW_WEIGHTS_AUTO,
                                 &s->workload));
    TW_TRY(ask_oracle(s));
    TW_TRY(time_guess(s));
    TW_TRY(first_wave(s));
    TW_TRY(climb(s));
    if (r->exhaustive) TW_TRY(the_rest(s));
    if (!s->result.stopped) TW_TRY(run_final(s));
    TW_TRY(decide(s));
    /* The bar is full; it is too late to stop. */
    if (s->hooks->progress && !s->result.stopped)
        s->hooks->progress(s->hooks->user, s->done, s->done);
    return TW_OK;
}

tw_status tw_tune_in(const tw_tune_env *env, const tw_tune_request *request,
                     const tw_tune_hooks *hooks, tw_tune_result *out) {
    tw_search s = {.env = env, .request = request, .hooks = hooks, .start_ns = tw_env_now(env)};
    s.end_ns = s.start_ns + (int64_t)(request->budget_s * 1e9);
    s.measure_until_ns = s.end_ns;
    tw_status status = run(&s);
    for (int i = 0; s.entries && i < s.space.count; i++)
        if (s.entries[i].candidate.tmpl) tw_candidate_unload(&s.entries[i].candidate);
    tw_workload_destroy(s.workload);
    tw_space_free(&s.space);
    free(s.entries);
    free(s.taken);
    if (status == TW_OK) *out = s.result;
    return status;
}

tw_status tw_tune(const tw_tune_request *request, const tw_tune_hooks *hooks, tw_tune_result *out) {
    return tw_tune_in(&tw_tune_env_real, request, hooks, out);
}
