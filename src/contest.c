/* Remembered, else measured, else left open. */
#include "src/contest.h"

#include <stdio.h>
#include <string.h>

#include "codegen/cpu/compile.h"
#include "src/base/status.h"
#include "src/linear.h"

/* What the cache has for a kernel where an implementation won; its name is then the config. */
static const char *winner(void) { return tw_origin_text(TW_ORIGIN_REGISTERED); }

tw_status tw_impl_run(const tw_impl *impl, const tw_problem *problem, const tw_canonical *w,
                      const tw_tensor *x, const tw_tensor *y) {
    tw_tensors t;
    tw_tensors_describe(problem, &t);
    /* The call's tensors are constant, but tw_tensor serves y as well. */
    t.weight.data = (void *)(uintptr_t)w->weight;
    t.scales.data = (void *)(uintptr_t)w->scales;
    t.zeros.data = (void *)(uintptr_t)w->zeros;
    tw_tensor bias = TW_TENSOR_1D((void *)(uintptr_t)w->bias, problem->bias, problem->N);
    tw_linear_call call = {.struct_size = sizeof call,
                           .M = x->shape[0],
                           .N = problem->N,
                           .K = problem->K,
                           .scheme = &problem->scheme,
                           .x = x,
                           .weight = &t.weight,
                           .scales = w->scales ? &t.scales : NULL,
                           .zeros = w->zeros ? &t.zeros : NULL,
                           .bias = w->bias ? &bias : NULL,
                           .y = y,
                           .act = problem->act,
                           .lut = w->lut,
                           .act_scale = w->act_scale};
    tw_status status = impl->row.run(impl->row.user, &call);
    if (status == TW_OK) return TW_OK;
    return tw_fail(status, "implementation %s: run() returned %s", impl->name,
                   tw_status_name(status));
}

typedef struct contest_call {
    tw_context *context;
    const tw_problem *problem; /* the layer's, of the bucket */
    const tw_plan *plan;
    tw_impl *impl;
    tw_mode mode;
    double budget_s;
    tw_key key;
} contest_call;

/* ---- remembered ---- */

static bool recall(const contest_call *c, tw_contest *out) {
    tw_choice choice;
    if (!tw_cache_get_choice(c->context->cache, &c->key, &choice) &&
        !tw_cache_get_choice(c->context->system_cache, &c->key, &choice))
        return false;
    *out = (tw_contest){.decided = true, .won = strcmp(choice.kernel, winner()) == 0};
    if (!out->won) return true;
    out->median_ns = choice.median_ns;
    out->spread_ns = choice.spread_ns;
    out->error = choice.error;
    return true;
}

static tw_status remember(const contest_call *c, const tw_contest *contest) {
    const tw_decision *d = &c->plan->decision;
    tw_choice choice = {.kernel_version = d->tmpl->version,
                        .median_ns = d->median_ns,
                        .spread_ns = d->spread_ns,
                        .error = d->error};
    tw_str config = {0};
    if (contest->won) {
        choice.kernel_version = c->impl->row.version;
        choice.median_ns = contest->median_ns;
        choice.spread_ns = contest->spread_ns;
        choice.error = contest->error;
        tw_str_add(&config, "%s", c->impl->name);
    } else {
        tw_config_text(&d->config, &config);
    }
    snprintf(choice.kernel, sizeof choice.kernel, "%s", contest->won ? winner() : d->tmpl->name);
    snprintf(choice.config, sizeof choice.config, "%s", tw_str_text(&config));
    tw_status status = tw_str_ok(&config);
    if (status == TW_OK) status = tw_choice_store(c->context, &c->key, &choice);
    tw_str_free(&config);
    return status;
}

/* ---- measured ---- */

static tw_status build_kernel(void *user, const tw_template *tmpl, const tw_problem *problem,
                              const tw_config *config, tw_str *out) {
    const contest_call *c = user;
    return tw_plan_object(c->context, c->mode, tmpl, problem, config, out);
}

/* Entered for each run, so that unregistering stays possible between two. */
static tw_status run_rival(void *user, const tw_problem *p, const tw_canonical *w, const void *x,
                           int64_t x_stride, void *y, int64_t y_stride, int64_t M) {
    const contest_call *c = user;
    tw_tensor x_rows = TW_TENSOR_2D((void *)(uintptr_t)x, p->x, M, p->K);
    tw_tensor y_rows = TW_TENSOR_2D(y, p->y, M, p->N);
    x_rows.stride[0] = x_stride, x_rows.stride[1] = 1;
    y_rows.stride[0] = y_stride, y_rows.stride[1] = 1;
    if (!tw_impl_enter(c->impl))
        return tw_fail(TW_BUSY, "implementation %s: unregistered meanwhile", c->impl->name);
    tw_status status = tw_impl_run(c->impl, p, w, &x_rows, &y_rows);
    tw_impl_leave(c->impl);
    return status;
}

/* What there is to say of how it went, with the problem before it. */
static void tell(const contest_call *c, tw_log_level level, const char *what) {
    if (!tw_log_wants(&c->context->log, level)) return;
    tw_str text = {0};
    tw_problem_text(c->problem, &text);
    tw_log_line(&c->context->log, level, "contest: %s: %s", tw_str_text(&text), what);
    tw_str_free(&text);
}

/* Whatever is wrong with the implementation is no failure of the layer, which has a kernel. */
static tw_status measure(contest_call *c, tw_contest *out) {
    tw_context *context = c->context;
    const tw_decision *d = &c->plan->decision;
    tw_tune_request request = {.problem = c->problem,
                               .target = &context->target,
                               .threads = context->threads,
                               .log = &context->log,
                               .budget_s = c->budget_s};
    tw_tune_hooks hooks = {.user = c, .build = build_kernel};
    tw_rival rival = {.run = run_rival, .user = c};
    tw_rival_result result;
    tw_status status = tw_tune_rival(&request, &hooks, d->tmpl, &d->config, &rival, &result);
    if (status == TW_MEMORY && rival.failure != TW_MEMORY) return status;
    if (status == TW_OK && result.late) {
        *out = (tw_contest){.decided = false};
        tell(c, TW_LOG_WARN, "the budget is too short to compare it, so the kernel runs");
        return TW_OK;
    }
    *out = (tw_contest){.decided = true};
    char what[512];
    if (status != TW_OK) {
        snprintf(what, sizeof what, "%s is not used: %s", c->impl->name, tw_error_message());
        tell(c, TW_LOG_WARN, what);
        return TW_OK;
    }
    snprintf(what, sizeof what, "%s %.2f us, %s %.2f us", c->impl->name, result.median_ns / 1e3,
             d->tmpl->name, result.kernel_ns / 1e3);
    tell(c, TW_LOG_INFO, what);
    out->won = result.faster;
    out->median_ns = result.median_ns;
    out->spread_ns = result.spread_ns;
    out->error = result.error;
    return remember(c, out);
}

/* ---- shared ---- */

/* What a kernel that was tuned just now was remembered to lose or win against is another one. */
static tw_status make_contest(void *arg, void **value) {
    contest_call *c = arg;
    bool tunes = tw_mode_tunes(c->mode);
    bool fresh = tunes && c->plan->decision.origin == TW_ORIGIN_TUNED;
    tw_contest *contest = tw_alloc(&c->context->allocator, sizeof *contest);
    if (!contest) return tw_fail(TW_MEMORY, "out of memory for a plan");
    tw_status status = TW_OK;
    if ((fresh || !recall(c, contest)) && tunes) status = measure(c, contest);
    if (status == TW_OK)
        *value = contest;
    else
        tw_free(&c->context->allocator, contest, sizeof *contest);
    return status;
}

/* As with plans: who may not measure takes what was measured for somebody else. */
tw_status tw_contest_hold(tw_context *context, const tw_problem *problem, const tw_plan *plan,
                          tw_impl *impl, tw_mode mode, double budget_s, tw_contest **out) {
    contest_call c = {context, problem, plan, impl, mode, budget_s, {{0}, {0}}};
    TW_TRY(tw_impl_key(problem, tw_bucket_index(problem->M), &context->target, impl->name,
                       impl->row.version, &c.key));
    char shared[TW_DIGEST_TEXT + 1];
    memcpy(shared, c.key.digest, TW_DIGEST_TEXT);
    shared[TW_DIGEST_TEXT] = 1;
    void *contest = NULL;
    tw_status status = TW_OK;
    if (!tw_mode_tunes(mode)) {
        contest = tw_flights_find(&context->contests, shared, sizeof shared);
        shared[TW_DIGEST_TEXT] = 0;
    }
    if (!contest)
        status =
            tw_flights_get(&context->contests, shared, sizeof shared, make_contest, &c, &contest);
    tw_key_free(&c.key);
    if (status != TW_OK) return status;
    *out = contest;
    if (tw_mode_tunes(mode) && !(*out)->decided) tw_flights_forget(&context->contests, contest);
    return TW_OK;
}

void tw_contest_release(tw_context *context, tw_contest *contest) {
    if (contest) tw_flights_release(&context->contests, contest);
}

void tw_contest_destroy(tw_context *context, tw_contest *contest) {
    tw_free(&context->allocator, contest, sizeof *contest);
}
