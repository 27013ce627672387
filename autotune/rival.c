/* A tuned kernel against something that is no kernel of ours: two candidates of one measurement. */
#include "autotune/workload.h"
#include "src/base/status.h"

/* What is as fast is no reason to leave a kernel of our own, so that runs agree where times do not
 * tell. */
static const double ALIKE = 0.01;
/* One row of random values and one of edge values. */
enum { ORACLE_ROWS = 2 };

static tw_status check_ran(const tw_rival *rival) {
    return rival->failure == TW_OK ? TW_OK : tw_fail(rival->failure, "%s", rival->why);
}

/* One run that is not timed: what a rival sets up on its first one was done for the kernel long
 * before, by compiling and packing. */
static tw_status warm_up(tw_workload *w, const tw_candidate *candidate) {
    const tw_problem *p = &w->problem;
    tw_packed *packed;
    TW_TRY(tw_workload_pack(w, NULL, &packed));
    TW_TRY(tw_workload_fill_timing(w));
    tw_workload_launch(w, NULL, candidate, packed, p->M, p->K, p->N);
    return check_ran(candidate->rival);
}

static tw_status compete(tw_workload *w, const tw_tune_request *request,
                         const tw_candidate candidates[2], int64_t deadline_ns,
                         tw_rival_result *out) {
    tw_timing timings[2];
    const tw_rival *rival = candidates[1].rival;
    TW_TRY(warm_up(w, &candidates[1]));
    TW_TRY(tw_measure(w, request->threads, candidates, 2, deadline_ns, timings));
    TW_TRY(check_ran(rival));
    tw_rival_result result = {.faster = timings[1].median_ns < timings[0].median_ns * (1 - ALIKE),
                              .median_ns = timings[1].median_ns,
                              .spread_ns = timings[1].spread_ns,
                              .kernel_ns = timings[0].median_ns};
    if (result.faster) {
        tw_status status =
            tw_verify(w, request->threads, &candidates[1], ORACLE_ROWS, &result.error);
        /* Why it ran into an error says more than what it then left unwritten. */
        TW_TRY(check_ran(rival));
        TW_TRY(status);
    }
    *out = result;
    return TW_OK;
}

static tw_status load(const tw_tune_env *env, const tw_tune_request *request,
                      const tw_tune_hooks *hooks, const tw_template *tmpl, const tw_config *config,
                      tw_candidate *out) {
    tw_str object = {0};
    tw_status status = hooks->build(hooks->user, tmpl, request->problem, config, &object);
    if (status == TW_OK)
        status =
            env->load(env->user, tmpl, request->problem, config, object.text, object.size, out);
    tw_str_free(&object);
    return status;
}

/* Data and packed weights, by all threads; *ready is false where the deadline comes first. */
static tw_status set_up(const tw_tune_env *env, const tw_tune_request *request,
                        const tw_layout *layout, int64_t deadline_ns, tw_workload **out,
                        bool *ready) {
    tw_parts parts = tw_parts_all(env, request->threads);
    parts.deadline_ns = deadline_ns;
    TW_TRY(tw_workload_open(env, request->problem, request->target, TW_WEIGHTS_AUTO, out));
    *ready = tw_workload_fill(*out, &parts);
    if (*ready) TW_TRY(tw_workload_pack_by(*out, &parts, tw_env_now(env), layout, ready));
    /* The rival's weights are canonical. */
    if (*ready) TW_TRY(tw_workload_pack_by(*out, &parts, tw_env_now(env), NULL, ready));
    return TW_OK;
}

tw_status tw_tune_rival_in(const tw_tune_env *env, const tw_tune_request *request,
                           const tw_tune_hooks *hooks, const tw_template *tmpl,
                           const tw_config *config, tw_rival *rival, tw_rival_result *out) {
    int64_t deadline_ns = tw_env_now(env) + (int64_t)(request->budget_s * 1e9);
    tw_candidate candidates[2] = {{0}, {.rival = rival}};
    tw_workload *workload = NULL;
    rival->failure = TW_OK;
    bool ready = false;
    TW_TRY(load(env, request, hooks, tmpl, config, &candidates[0]));
    tw_status status = set_up(env, request, tmpl->layout, deadline_ns, &workload, &ready);
    if (status == TW_OK && ready)
        status = compete(workload, request, candidates, deadline_ns, out);
    else if (status == TW_OK)
        *out = (tw_rival_result){.late = true};
    tw_workload_destroy(workload);
    tw_candidate_unload(&candidates[0]);
    return status;
}

tw_status tw_tune_rival(const tw_tune_request *request, const tw_tune_hooks *hooks,
                        const tw_template *tmpl, const tw_config *config, tw_rival *rival,
                        tw_rival_result *out) {
    return tw_tune_rival_in(&tw_tune_env_real, request, hooks, tmpl, config, rival, out);
}
