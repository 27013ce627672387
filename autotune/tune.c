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

/* Shares of the budget: until when the first wave and the search last, and how long the final takes
 * at most. */
static const double WAVE_SHARE = 0.5, SEARCH_SHARE = 0.85, FINAL_SHARE = 0.1;
/* Differences that are not worth telling apart. */
static const double ALIKE = 0.01;
enum { MOST_WAVE = 32, PATIENCE = 2 };

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

static int64_t until(const tw_search *s, double share) {
    return s->start_ns + (int64_t)(share * (double)(s->measure_until_ns - s->start_ns));
}

static bool out_of_time(const tw_search *s, double share) {
    return s->result.stopped || tw_env_now(s->env) >= until(s, share);
}

/* Configs that a wave ending at `share` has time for. */
static int wave_room(const tw_search *s, double share) {
    const tw_effort *e = &s->effort;
    double window = (double)(until(s, share) - tw_env_now(s->env));
    double sample = fmax(e->launch_ns, 20000);
    double each = e->build_ns / e->threads + (sample >= TW_LONG_NS ? 2 : 12) * sample;
    return (int)fmax(fmin(window / fmax(each, 1), MOST_WAVE), 0);
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

/* Into its place among the leaders: it was timed a moment before them. */
static void lead_too(tw_search *s, int id) {
    int at = 0;
    while (at < s->leader_count && s->entries[s->leaders[at]].level_ns <= s->entries[id].level_ns)
        at++;
    if (at == (int)TW_COUNT(s->leaders)) return;
    if (s->leader_count < (int)TW_COUNT(s->leaders)) s->leader_count++;
    memmove(s->leaders + at + 1, s->leaders + at,
            (size_t)(s->leader_count - at - 1) * sizeof *s->leaders);
    s->leaders[at] = id;
}

/* The model's best, with what earlier runs and the guess have to be compared with.  Where time is
 * short, only as many as a decision needs, the guess as it was just timed among them. */
static tw_status first_wave(tw_search *s) {
    int ids[TW_MAX_WAVE], known[TW_LEADERS], count = 0, fresh = wave_room(s, WAVE_SHARE);
    bool hasty = fresh < TW_LEAST_WAVE, timed = hasty && s->entries[s->guess].here;
    int64_t deadline_ns = !hasty                      ? until(s, WAVE_SHARE)
                          : s->request->decide_anyway ? INT64_MAX
                                                      : s->measure_until_ns;
    s->beside = 0;
    if (s->entries[s->guess].state != TW_ENTRY_FAILED && !timed) ids[count++] = s->guess;
    int known_count = best_known(s, TW_LEADERS, known);
    for (int i = 0; i < known_count; i++)
        if (!listed(ids, count, known[i])) ids[count++] = known[i];
    if (hasty) fresh = (int)tw_max(TW_LEAST_WAVE - timed - count, 0);
    TW_TRY(tw_rank_pick(&s->space, s->taken, fresh, ids + count, &fresh));
    s->planned = s->request->exhaustive ? s->space.count : s->done + fresh + TW_MAX_NEIGHBOURS;
    TW_TRY(tw_search_wave(s, ids, count + fresh, TW_LEADERS, deadline_ns));
    if (timed) lead_too(s, s->guess);
    s->beside += timed;
    return TW_OK;
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
        if (tw_effort_verify(&s->effort) * 20 < (double)(s->end_ns - tw_env_now(s->env)))
            TW_TRY(verify_leader(s));
        int ids[TW_MAX_WAVE], best = s->leader_count ? s->leaders[0] : -1;
        int count = s->leader_count;
        memcpy(ids, s->leaders, (size_t)count * sizeof *ids);
        int room = (int)tw_max(wave_room(s, SEARCH_SHARE), TW_LEAST_WAVE);
        int fresh = fresh_neighbours(s, room, ids + count);
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
        int room = (int)tw_max(wave_room(s, SEARCH_SHARE), TW_LEAST_WAVE);
        TW_TRY(tw_rank_pick(&s->space, s->taken, room, ids + count, &fresh));
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

/* Whether enough were compared for a decision. */
static bool enough(const tw_search *s) {
    int usable = 0;
    for (int i = 0; i < s->space.count; i++) usable += s->entries[i].state != TW_ENTRY_FAILED;
    return s->beside >= tw_min(usable, TW_LEAST_WAVE);
}

/* What a run that decides takes. */
static double least_s(const tw_search *s) {
    double spent = (double)((s->ready ? s->ready_ns : tw_env_now(s->env)) - s->start_ns);
    double ahead = s->ready ? tw_effort_search(&s->effort, 0) : s->parts.missing_ns + s->ahead_ns;
    /* A run that is given this should not be told to take a little more. */
    const double margin = 1.15;
    return margin * (spent + ahead) / 1e9;
}

/* Samples that lie far apart, a choice that fell behind the guess, or one that takes many times
 * what the model knows: no quiet machine does that. */
static bool disturbed(const tw_search *s, const tw_entry *e) {
    const double apart = 1.5, behind = 1.1, beyond = 30;
    const tw_entry *guess = &s->entries[s->guess];
    if (!e->here) return false;
    bool worse =
        guess->here && guess->state != TW_ENTRY_FAILED && e->median_ns > behind * guess->median_ns;
    double model_ns = s->space.points[s->leaders[0]].cost / s->request->target->threads;
    return worse || e->median_ns > apart * e->level_ns || e->level_ns > beyond * model_ns;
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
    s->result.decided = enough(s) && !s->result.stopped;
    s->result.least_s = enough(s) || s->result.stopped ? 0 : least_s(s);
    s->result.tmpl = p->tmpl;
    s->result.config = p->config;
    s->result.median_ns = e->median_ns;
    s->result.spread_ns = e->spread_ns;
    s->result.error = e->error;
    s->result.disturbed = disturbed(s, e);
    s->result.guess_ns = guess->here && guess->state != TW_ENTRY_FAILED ? guess->median_ns : 0;
    return TW_OK;
}

static tw_status search(tw_search *s) {
    TW_TRY(first_wave(s));
    TW_TRY(climb(s));
    if (s->request->exhaustive) TW_TRY(the_rest(s));
    return s->result.stopped ? TW_OK : run_final(s);
}

static tw_status run(tw_search *s) {
    bool ready;
    TW_TRY(tw_search_set_up(s, &ready));
    if (ready) TW_TRY(search(s));
    /* Of what is too little for a decision nothing has to be right but the guess, which nobody
     * verifies elsewhere either. */
    const tw_point *guess = &s->space.points[s->guess];
    bool guessable = s->entries[s->guess].state != TW_ENTRY_FAILED;
    if (!s->ready || (!enough(s) && !s->result.stopped && guessable)) {
        s->result.tmpl = guess->tmpl;
        s->result.config = guess->config;
        s->result.least_s = s->result.stopped ? 0 : least_s(s);
        return TW_OK;
    }
    TW_TRY(decide(s));
    /* The bar is full; it is too late to stop. */
    if (s->hooks->progress && s->result.decided)
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
