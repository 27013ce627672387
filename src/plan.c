/* The flow of plan.h: decide, then build, then share. */
#include "src/plan.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "codegen/cpu/compile.h"
#include "src/base/status.h"
#include "src/build.h"
#include "src/core/act.h"
#include "src/event.h"

const char *tw_origin_text(tw_origin origin) {
    static const char *const texts[] = {
#define TW_ROW(name, text) text,
        TW_ORIGINS(TW_ROW)
#undef TW_ROW
    };
    return texts[origin];
}

tw_plan_request tw_plan_ask(const tw_context *context, const tw_problem *problem) {
    return (tw_plan_request){
        .problem = problem, .mode = context->mode, .budget_s = context->budget_s};
}

/* Of a bucket, as kernels have it: what rounds x beforehand shares plans with plain f32 x. */
static tw_problem bucket_problem(const tw_problem *problem) {
    tw_problem p = tw_kernel_problem(problem);
    p.M = tw_bucket_rows(tw_bucket_index(p.M));
    return p;
}

/* ---- deciding ---- */

typedef struct decide_call {
    tw_context *context;
    const tw_plan_request *request;
    tw_problem problem; /* of the bucket */
    tw_key key;
} decide_call;

/* Why a choice of the cache cannot be used any more; NULL when it can. */
static const char *stale(const decide_call *d, const tw_choice *choice, tw_decision *out) {
    const tw_template *t = tw_template_find(choice->kernel);
    if (!t) return "there is no such kernel any more";
    if (t->version != choice->kernel_version) return "it is of another version of the kernel";
    if (d->request->layout && t->layout != d->request->layout)
        return "it needs another layout than these weights have";
    if (tw_config_parse(choice->config, &out->config) != TW_OK) return tw_error_message();
    const tw_target *target = &d->context->target;
    const char *why = t->reject_problem(target, &d->problem);
    if (!why) why = t->reject(target, &d->problem, &out->config);
    out->tmpl = t;
    return why;
}

static bool usable_choice(const decide_call *d, tw_cache *cache, tw_decision *out) {
    tw_choice choice;
    tw_decision found = {.origin = TW_ORIGIN_CACHE};
    if (!tw_cache_get_choice(cache, &d->key, &choice)) return false;
    const char *why = stale(d, &choice, &found);
    if (why) {
        tw_log_line(&d->context->log, TW_LOG_DEBUG, "choice of %s %s passed over: %s: %s",
                    choice.kernel, choice.config, why, tw_str_text(&d->key.text));
        return false;
    }
    found.median_ns = choice.median_ns;
    found.spread_ns = choice.spread_ns;
    found.error = choice.error;
    *out = found;
    return true;
}

/* The user's file wins; one that an upgrade made stale is no reason to do without the system's. */
static bool decide_from_cache(const decide_call *d, tw_decision *out) {
    tw_context *c = d->context;
    bool hit = usable_choice(d, c->cache, out) || usable_choice(d, c->system_cache, out);
    tw_count(hit ? &c->counters.choice_hits : &c->counters.choice_misses);
    return hit;
}

static tw_status decide_by_guess(const decide_call *d, tw_decision *out) {
    tw_context *c = d->context;
    tw_str why = {0};
    bool listen = tw_log_wants(&c->log, TW_LOG_DEBUG);
    *out = (tw_decision){.origin = TW_ORIGIN_GUESS};
    tw_status status = tw_guess(&c->target, &d->problem, d->request->layout, &out->tmpl,
                                &out->config, listen ? &why : NULL);
    for (const char *line = tw_str_text(&why); *line; line += strcspn(line, "\n") + 1)
        tw_log_line(&c->log, TW_LOG_DEBUG, "%.*s", (int)strcspn(line, "\n"), line);
    tw_str_free(&why);
    return status;
}

/* CACHED_ONLY without a choice: the guess will do when its code is there; nothing compiles. */
static tw_status decide_cached_only(const decide_call *d, tw_decision *out) {
    TW_TRY(decide_by_guess(d, out));
    if (tw_object_cached(d->context, out->tmpl, &d->problem, &out->config)) return TW_OK;
    return tw_fail(TW_MISS, "the cache has no kernel for %s", tw_str_text(&d->key.text));
}

static tw_status decide_forced(const decide_call *d, tw_decision *out) {
    const tw_plan_request *r = d->request;
    const tw_target *target = &d->context->target;
    tw_decision forced = {.tmpl = r->tmpl, .origin = TW_ORIGIN_FORCED};
    const char *why = r->tmpl->reject_problem(target, &d->problem);
    if (!why && r->config) {
        forced.config = *r->config;
        why = r->tmpl->reject(target, &d->problem, r->config);
    } else if (!why) {
        r->tmpl->guess(target, &d->problem, &forced.config);
    }
    if (why) return tw_fail(TW_UNSUPPORTED, "%s: %s", r->tmpl->name, why);
    *out = forced;
    return TW_OK;
}

/* ---- tuning: the cache behind the tuner's hooks ---- */

static tw_status store_trial(void *user, const tw_tune_trial *t) {
    decide_call *d = user;
    tw_str device = {0}, config = {0};
    tw_cache_trial row = {.kernel_version = t->tmpl->version,
                          .failed = t->failure != NULL,
                          .median_ns = t->median_ns,
                          .spread_ns = t->spread_ns};
    tw_device_text(&d->context->target, &device);
    tw_config_text(&t->config, &config);
    snprintf(row.kernel, sizeof row.kernel, "%s", t->tmpl->name);
    snprintf(row.config, sizeof row.config, "%s", tw_str_text(&config));
    snprintf(row.reason, sizeof row.reason, "%s", t->failure ? t->failure : "");
    tw_status status = tw_str_ok(&device);
    if (status == TW_OK) status = tw_str_ok(&config);
    if (status == TW_OK)
        status = tw_cache_put_trial(d->context->cache, &d->key, tw_str_text(&device), &row);
    tw_str_free(&device);
    tw_str_free(&config);
    return status;
}

typedef struct replay {
    void (*each)(void *arg, const tw_tune_trial *trial);
    void *arg;
} replay;

/* Rows of other kernel versions say nothing about this one. */
static void replay_trial(void *user, const tw_cache_trial *row) {
    replay *r = user;
    tw_tune_trial t = {.tmpl = tw_template_find(row->kernel),
                       .median_ns = row->median_ns,
                       .spread_ns = row->spread_ns,
                       .failure = row->failed ? row->reason : NULL};
    if (t.tmpl && t.tmpl->version == row->kernel_version &&
        tw_config_parse(row->config, &t.config) == TW_OK)
        r->each(r->arg, &t);
}

static void replay_trials(void *user, void (*each)(void *arg, const tw_tune_trial *trial),
                          void *arg) {
    decide_call *d = user;
    tw_cache_trials(d->context->cache, &d->key, replay_trial, &(replay){each, arg});
}

static tw_status build_candidate(void *user, const tw_template *tmpl, const tw_problem *problem,
                                 const tw_config *config, tw_str *out) {
    decide_call *d = user;
    return tw_plan_object(d->context, d->request->mode, tmpl, problem, config, out);
}

static int report_progress(void *user, int done, int total) {
    decide_call *d = user;
    return d->request->progress ? d->request->progress(d->request->user, done, total) : 0;
}

tw_status tw_choice_store(tw_context *context, const tw_key *key, const tw_choice *choice) {
    tw_str device = {0};
    tw_device_text(&context->target, &device);
    tw_status status = tw_str_ok(&device);
    if (status == TW_OK)
        status = tw_cache_put_choice(context->cache, key, tw_str_text(&device), choice);
    tw_str_free(&device);
    return status;
}

static tw_status store_choice(const decide_call *d, const tw_decision *decision) {
    tw_str config = {0};
    tw_choice choice = {.kernel_version = decision->tmpl->version,
                        .median_ns = decision->median_ns,
                        .spread_ns = decision->spread_ns,
                        .error = decision->error};
    tw_config_text(&decision->config, &config);
    snprintf(choice.kernel, sizeof choice.kernel, "%s", decision->tmpl->name);
    snprintf(choice.config, sizeof choice.config, "%s", tw_str_text(&config));
    tw_status status = tw_str_ok(&config);
    if (status == TW_OK) status = tw_choice_store(d->context, &d->key, &choice);
    tw_str_free(&config);
    return status;
}

static tw_status decide_by_tuning(decide_call *d, tw_decision *out) {
    tw_context *c = d->context;
    const tw_plan_request *r = d->request;
    if (c->foreign)
        return tw_fail(TW_UNSUPPORTED, "tuning measures, and %s may not run on this CPU",
                       tw_target_isa(&c->target)->name);
    /* Without a compiler every config would fail, and failures are remembered. */
    TW_TRY(tw_cpu_compiler_open());
    tw_tune_request request = {.problem = &d->problem,
                               .target = &c->target,
                               .threads = c->threads,
                               .log = &c->log,
                               .layout = r->layout,
                               .budget_s = r->budget_s > 0 ? r->budget_s : c->budget_s,
                               .exhaustive = r->mode == TW_MODE_MAX_AUTOTUNE,
                               .decide_anyway = r->decide_anyway};
    tw_tune_hooks hooks = {.user = d,
                           .sink = store_trial,
                           .source = replay_trials,
                           .build = build_candidate,
                           .progress = r->progress ? report_progress : NULL};
    tw_tune_result result = {0};
    int64_t start = tw_event_begin(c);
    tw_status status = tw_tune(&request, &hooks, &result);
    tw_event_end(c, &(tw_event){.name = "tune",
                                .start_ns = start,
                                .problem = &d->problem,
                                .kernel = status == TW_OK ? result.tmpl->name : NULL,
                                .config = status == TW_OK ? &result.config : NULL,
                                .status = status});
    if (status != TW_OK) return status;
    tw_count(&c->counters.tunings);
    if (r->result) *r->result = result;
    *out = (tw_decision){.tmpl = result.tmpl,
                         .config = result.config,
                         .origin = result.median_ns > 0 ? TW_ORIGIN_TUNED : TW_ORIGIN_GUESS,
                         .median_ns = result.median_ns,
                         .spread_ns = result.spread_ns,
                         .error = result.error,
                         .open = !result.decided};
    /* What too little time or a user broke off is not decided: the next run goes on from the
     * measurements. */
    if (result.disturbed && !r->result)
        tw_log_line(&c->log, TW_LOG_WARN,
                    "tune: other work disturbed the measurements, %.2f us say little; tune again "
                    "on a quiet machine: %s",
                    result.median_ns / 1e3, tw_str_text(&d->key.text));
    if (result.decided) return store_choice(d, out);
    if (!r->result)
        tw_log_line(&c->log, TW_LOG_WARN,
                    "tune: a share of %.3g s of the budget is too short, about %.3g s are needed; "
                    "going on with %s: %s",
                    request.budget_s, result.least_s, tw_origin_text(out->origin),
                    tw_str_text(&d->key.text));
    return TW_OK;
}

static tw_status decide(decide_call *d, tw_decision *out) {
    const tw_plan_request *r = d->request;
    if (r->mode == TW_MODE_REFERENCE) {
        *out = (tw_decision){.origin = TW_ORIGIN_REFERENCE};
        return TW_OK;
    }
    if (r->tmpl) return decide_forced(d, out);
    if (!(r->again && tw_mode_tunes(r->mode)) && decide_from_cache(d, out)) return TW_OK;
    if (tw_mode_tunes(r->mode)) return decide_by_tuning(d, out);
    if (r->mode == TW_MODE_CACHED_ONLY) return decide_cached_only(d, out);
    return decide_by_guess(d, out);
}

tw_status tw_plan_decide(tw_context *context, const tw_plan_request *request, tw_decision *out) {
    decide_call d = {context, request, bucket_problem(request->problem), {{0}, {0}}};
    if (request->result) *request->result = (tw_tune_result){0};
    TW_TRY(tw_choice_key(&d.problem, tw_bucket_index(d.problem.M), &context->target, &d.key));
    tw_decision decision;
    tw_status status = decide(&d, &decision);
    if (status == TW_OK) *out = decision;
    tw_key_free(&d.key);
    return status;
}

/* ---- making ---- */

typedef struct make_call {
    tw_context *context;
    const tw_plan_request *request;
} make_call;

static tw_status load_plan(tw_context *c, tw_mode mode, tw_plan *plan) {
    const tw_template *tmpl = plan->decision.tmpl;
    if (c->foreign)
        return tw_fail(TW_UNSUPPORTED, "%s may not run on this CPU",
                       tw_target_isa(&c->target)->name);
    TW_TRY(tw_code_load(c, mode, tmpl, &plan->problem, &plan->decision.config, &plan->code));
    const tw_code *code = plan->code;
    tw_geometry geometry;
    tmpl->geometry(&plan->problem, &geometry);
    plan->kernel = (tw_kernel){.pack_x = code->pack_x,
                               .matmul = code->matmul,
                               .config = plan->decision.config,
                               .N = plan->problem.N,
                               .K = plan->problem.K,
                               .xq_stride = geometry.xq_stride,
                               .xmeta_stride = geometry.xmeta_stride};
    plan->scratch_bytes = tw_launch_scratch(&plan->kernel, plan->problem.M);
    return TW_OK;
}

static void log_plan(const tw_context *c, const tw_plan *plan) {
    if (!tw_log_wants(&c->log, TW_LOG_INFO)) return;
    const tw_decision *d = &plan->decision;
    tw_str line = {0};
    tw_problem_text(&plan->problem, &line);
    tw_str_add(&line, ": %s ", d->tmpl ? d->tmpl->name : "reference");
    tw_config_text(&d->config, &line);
    tw_str_add(&line, " (%s", tw_origin_text(d->origin));
    if (d->median_ns > 0) tw_str_add(&line, ", %.2f us as tuned", d->median_ns / 1e3);
    tw_log_line(&c->log, TW_LOG_INFO, "plan: %s)", tw_str_text(&line));
    tw_str_free(&line);
}

static tw_status make_plan(void *arg, void **value) {
    const make_call *m = arg;
    tw_context *c = m->context;
    tw_mode mode = m->request->mode;
    tw_plan *plan = tw_alloc(&c->allocator, sizeof *plan);
    if (!plan) return tw_fail(TW_MEMORY, "out of memory for a plan");
    plan->problem = bucket_problem(m->request->problem);
    tw_status status = tw_plan_decide(c, m->request, &plan->decision);
    if (status == TW_OK && plan->decision.tmpl) status = load_plan(c, mode, plan);
    /* Nothing can be compiled for this problem here: the layer runs, slowly, and its owner is
     * told. */
    if (status == TW_UNSUPPORTED && !m->request->tmpl) {
        snprintf(plan->reason, sizeof plan->reason, "%s", tw_error_message());
        plan->decision = (tw_decision){.origin = TW_ORIGIN_REFERENCE};
        status = TW_OK;
    }
    if (status != TW_OK) {
        tw_free(&c->allocator, plan, sizeof *plan);
        return status;
    }
    if (plan->decision.origin == TW_ORIGIN_GUESS) tw_count(&c->counters.guesses);
    if (!plan->decision.tmpl) tw_count(&c->counters.references);
    log_plan(c, plan);
    *value = plan;
    return TW_OK;
}

/* What makes two requests the same: compared as bytes, so it is cleared first, padding too. */
typedef struct sharing_key {
    int64_t M, N, K;
    const void *layout, *tmpl;
    int32_t x, y, bias, act;
    int32_t scheme[8];
    int32_t kind; /* a mode; the tuning ones are alike */
    tw_config config;
    uint32_t has_config, again;
} sharing_key;

_Static_assert(sizeof(tw_scheme) == sizeof(int32_t[8]), "a scheme is eight integers");
static void key_of(const tw_plan_request *r, tw_mode kind, sharing_key *key) {
    tw_problem p = bucket_problem(r->problem);
    memset(key, 0, sizeof *key);
    key->M = p.M, key->N = p.N, key->K = p.K;
    key->layout = r->layout, key->tmpl = r->tmpl;
    key->x = (int32_t)p.x, key->y = (int32_t)p.y, key->bias = (int32_t)p.bias;
    key->act = (int32_t)p.act;
    memcpy(key->scheme, &p.scheme, sizeof key->scheme);
    key->kind = (int32_t)(tw_mode_tunes(kind) ? TW_MODE_TUNE : kind);
    key->has_config = r->tmpl && r->config;
    if (key->has_config) key->config = *r->config;
}

/* A tuned plan and a guess of one problem are two; who may not tune takes what was tuned for
 * somebody else. */
tw_status tw_plan_make(tw_context *context, const tw_plan_request *request, tw_plan **out) {
    void *plan = NULL;
    make_call call = {context, request};
    sharing_key key, tuned;
    key_of(request, request->mode, &key);
    key_of(request, TW_MODE_TUNE, &tuned);
    if (request->again) key.again = atomic_fetch_add(&context->asked_again, 1) + 1;
    if (request->mode == TW_MODE_DEFAULT && !request->tmpl)
        plan = tw_flights_find(&context->plans, &tuned, sizeof tuned);
    if (!plan) TW_TRY(tw_flights_get(&context->plans, &key, sizeof key, make_plan, &call, &plan));
    *out = plan;
    if ((*out)->decision.open) tw_flights_forget(&context->plans, plan);
    return TW_OK;
}

void tw_plan_release(tw_context *context, tw_plan *plan) {
    if (plan) tw_flights_release(&context->plans, plan);
}

void tw_plan_destroy(tw_context *context, tw_plan *plan) {
    if (plan->code) tw_flights_release(&context->kernels, plan->code);
    tw_free(&context->allocator, plan, sizeof *plan);
}
