/* What comes before the search: the space, what earlier runs know of it, data to compute on, and
 * how long the guess takes, which tells how long everything takes. */
#include <math.h>
#include <stdlib.h>

#include "autotune/guess.h"
#include "autotune/rank.h"
#include "autotune/search.h"
#include "src/base/status.h"

/* Shares of the budget: what more probes may take, and when weights are cold enough. */
static const double ORACLE_SHARE = 0.05, COPIES_SHARE = 0.2;
enum { MOST_ROWS = 4 };

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
    int truths = tw_truths_needed(s->env, r->target, r->problem, r->layout, s->truths);
    s->effort = tw_effort_of(r->target, r->problem, &guess, truths);
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

/* Whether so much more fits into the budget. */
static bool fits(const tw_search *s, double ns) {
    return s->request->decide_anyway || (double)tw_env_now(s->env) + ns < (double)s->end_ns;
}

static tw_status make_workload(tw_search *s, bool *ready) {
    const tw_tune_request *r = s->request;
    const tw_effort *e = &s->effort;
    const tw_layout *layout = s->space.points[s->guess].tmpl->layout;
    int64_t budget_ns = s->end_ns - s->start_ns;
    s->parts = tw_parts_all(s->env, r->threads);
    s->parts.stop = tw_search_asked;
    s->parts.arg = s;
    if (!r->decide_anyway) s->parts.deadline_ns = s->end_ns;
    TW_TRY(tw_workload_open(s->env, r->problem, r->target, TW_WEIGHTS_AUTO, &s->workload));
    s->ahead_ns = e->pack_ns + e->oracle_ns + tw_effort_search(e, 0);
    *ready = tw_workload_fill(s->workload, &s->parts);
    if (!*ready) return TW_OK;
    s->ahead_ns = e->oracle_ns + tw_effort_search(e, 0);
    int64_t extras_ns = s->start_ns + (int64_t)(COPIES_SHARE * (double)budget_ns);
    return tw_workload_pack_by(s->workload, &s->parts, extras_ns, layout, ready);
}

/* More probes than the least where the oracle answers quickly. */
static tw_status ask_oracle(tw_search *s, bool *ready) {
    const tw_problem *problem = s->request->problem;
    int64_t start = tw_env_now(s->env);
    double share = ORACLE_SHARE * (double)(s->end_ns - s->start_ns);
    s->ahead_ns = tw_effort_search(&s->effort, 0);
    for (s->rows = TW_LEAST_ROWS;; s->rows = MOST_ROWS) {
        for (int math = 0; math < TW_FPMATHS && *ready; math++) {
            tw_problem truth = *problem;
            truth.scheme.fpmath = (tw_fpmath)math;
            if (s->truths[math])
                TW_TRY(tw_workload_ask(s->workload, &s->parts, &truth, s->rows, ready));
        }
        if (!*ready || s->rows == MOST_ROWS) return TW_OK;
        double used = (double)(tw_env_now(s->env) - start);
        if (used * MOST_ROWS / TW_LEAST_ROWS > share) return TW_OK;
    }
}

/* The guess alone, or the best by the model that builds, unless an earlier run did it. */
static tw_status time_guess(tw_search *s, bool *ready) {
    for (int i = -1, tries = 0; i < s->space.count && tries < TW_LEAST_WAVE && !s->launch_timed;
         i++) {
        int id = i < 0 ? s->guess : i;
        tw_entry *e = &s->entries[id];
        if (e->state == TW_ENTRY_FAILED || (i >= 0 && s->taken[id])) continue;
        if (e->state == TW_ENTRY_TIMED) {
            s->effort.launch_ns = e->median_ns;
            s->launch_timed = true;
            return TW_OK;
        }
        *ready = fits(s, s->effort.build_ns + s->effort.launch_ns);
        if (!*ready) return TW_OK;
        int64_t start = tw_env_now(s->env);
        s->taken[id] = true;
        TW_TRY(tw_search_load(s, &id, 1, INT64_MAX));
        s->effort.build_ns = (double)(tw_env_now(s->env) - start);
        TW_TRY(tw_search_wave(s, &id, 1, 1, s->parts.deadline_ns));
        if (e->here) s->effort.launch_ns = e->median_ns;
        tries++;
    }
    return TW_OK;
}

tw_status tw_search_set_up(tw_search *s, bool *ready) {
    *ready = true;
    TW_TRY(fill_space(s));
    if (s->hooks->source) s->hooks->source(s->hooks->user, take_known, s);
    TW_TRY(make_workload(s, ready));
    if (*ready) TW_TRY(ask_oracle(s, ready));
    if (!*ready) return TW_OK;
    s->ready = true;
    s->ready_ns = tw_env_now(s->env);
    TW_TRY(time_guess(s, ready));
    if (!*ready) return TW_OK;
    /* Verifying gets what it takes by estimate, and half as much again where there is time. */
    double verify = tw_effort_verify(&s->effort), left = (double)(s->end_ns - tw_env_now(s->env));
    double search = tw_effort_search(&s->effort, s->entries[s->guess].here);
    double spare = fmax(left - search, 0) / 4;
    s->measure_until_ns = s->end_ns - (int64_t)(verify + fmin(verify / 2, spare));
    *ready = fits(s, search);
    return TW_OK;
}
