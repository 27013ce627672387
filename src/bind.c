/* What a bucket of a linear runs: a registered implementation above priority 0; the faster of a
 * kernel of ours and an implementation at 0; where we have no kernel, an implementation at 0 or
 * below; the reference. */
#include <math.h>
#include <stdint.h>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/linear.h"

typedef struct bind_call {
    tw_linear *linear;
    tw_problem problem; /* of the bucket */
    tw_mode mode;
    double budget_s;
    tw_impl *impl;
    tw_plan *plan;
    bool owned; /* the plan's reference is this call's */
    tw_impl *rival;
    tw_contest *contest; /* its reference is this call's, until publish() takes it over */
} bind_call;

/* Of a bucket's budget, for comparing the tuned kernel with an implementation. */
static const double CONTEST_SHARE = 0.2;

/* A plan that tuning may make better. */
static bool is_open(const tw_plan *plan) {
    return plan->decision.open || plan->decision.origin == TW_ORIGIN_GUESS;
}

/* The plan that this bucket had before, unless now is the time to tune it. */
static tw_plan *known_plan(tw_linear *l, int bucket, tw_mode mode) {
    pthread_mutex_lock(&l->lock);
    tw_binding *b = l->all;
    while (b && (b->bucket != bucket || !b->plan)) b = b->next;
    tw_plan *plan = b ? b->plan : NULL;
    pthread_mutex_unlock(&l->lock);
    return plan && tw_mode_tunes(mode) && is_open(plan) ? NULL : plan;
}

static bool same_answer(const tw_binding *b, const bind_call *call) {
    return b->impl == call->impl && b->plan == call->plan && b->rival == call->rival &&
           b->contest == call->contest;
}

/* Makes the answer what the bucket runs; a new binding takes the references over. */
static tw_status publish(bind_call *call, unsigned generation, tw_binding **out) {
    tw_linear *l = call->linear;
    int bucket = tw_bucket_index(call->problem.M);
    pthread_mutex_lock(&l->lock);
    tw_binding *b = l->all;
    while (b && (b->bucket != bucket || !same_answer(b, call))) b = b->next;
    if (!b && (b = tw_alloc(&l->context->allocator, sizeof *b))) {
        *b = (tw_binding){.next = l->all,
                          .bucket = bucket,
                          .impl = call->impl,
                          .plan = call->plan,
                          .owns_plan = call->owned,
                          .rival = call->rival,
                          .contest = call->contest};
        call->owned = false;
        call->contest = NULL;
        l->all = b;
    }
    if (b) {
        atomic_store_explicit(&b->generation, generation, memory_order_relaxed);
        atomic_store_explicit(&l->bindings[bucket], b, memory_order_release);
    }
    pthread_mutex_unlock(&l->lock);
    if (!b) return tw_fail(TW_MEMORY, "out of memory for a plan");
    *out = b;
    return TW_OK;
}

static void warn_reference(tw_linear *l, const char *reason) {
    if (!*reason || atomic_exchange(&l->warned, true)) return;
    tw_log_line(&l->context->log, TW_LOG_WARN, "a linear runs the slow reference: %s", reason);
}

static tw_status choose_plan(bind_call *b) {
    b->plan = known_plan(b->linear, tw_bucket_index(b->problem.M), b->mode);
    if (b->plan) return TW_OK;
    tw_plan_request request = {.problem = &b->problem,
                               .mode = b->mode,
                               .layout = b->linear->layout,
                               .budget_s = b->budget_s * (b->rival ? 1 - CONTEST_SHARE : 1)};
    TW_TRY(tw_plan_make(b->linear->context, &request, &b->plan));
    b->owned = true;
    return TW_OK;
}

static tw_status choose_registered(bind_call *b, int32_t least, int32_t most, tw_impl **out) {
    tw_context *c = b->linear->context;
    if (b->mode == TW_MODE_REFERENCE) return TW_OK;
    return tw_registry_choose(&c->registry, &b->problem, &c->target, least, most, out);
}

static tw_status choose(bind_call *b) {
    TW_TRY(choose_registered(b, 1, INT32_MAX, &b->impl));
    if (b->impl) return TW_OK;
    TW_TRY(choose_registered(b, 0, 0, &b->rival));
    TW_TRY(choose_plan(b));
    /* What was not tuned is nothing to win against, until it is. */
    bool waits = tw_mode_tunes(b->mode) && is_open(b->plan);
    if (b->plan->decision.tmpl && b->rival && !waits) {
        TW_TRY(tw_contest_hold(b->linear->context, &b->problem, b->plan, b->rival, b->mode,
                               b->budget_s * CONTEST_SHARE, &b->contest));
        if (b->contest->won) b->impl = b->rival;
    }
    if (b->plan->decision.tmpl || b->mode == TW_MODE_REFERENCE) return TW_OK;
    b->impl = b->rival;
    b->rival = NULL;
    if (!b->impl) TW_TRY(choose_registered(b, INT32_MIN, -1, &b->impl));
    if (b->impl) return TW_OK;
    if (b->mode == TW_MODE_CACHED_ONLY)
        return tw_fail(TW_UNSUPPORTED, "%s CACHED_ONLY does not run the reference.",
                       b->plan->reason);
    warn_reference(b->linear, b->plan->reason);
    return TW_OK;
}

/* Tuning found that no kernel is right: none may run as a guess later. */
static tw_status choose_reference(bind_call *b) {
    warn_reference(b->linear, tw_error_message());
    tw_plan_request request = {.problem = &b->problem, .mode = TW_MODE_REFERENCE};
    b->impl = b->rival = NULL;
    TW_TRY(tw_plan_make(b->linear->context, &request, &b->plan));
    b->owned = true;
    return TW_OK;
}

tw_status tw_linear_bind(tw_linear *linear, int bucket, tw_mode mode, double budget_s,
                         tw_binding **out) {
    bind_call b = {
        .linear = linear, .problem = linear->problem, .mode = mode, .budget_s = budget_s};
    b.problem.M = tw_bucket_rows(bucket);
    /* Read before the registry is: a change in between makes the next forward come here again. */
    unsigned generation =
        atomic_load_explicit(&linear->context->registry.generation, memory_order_acquire);
    tw_status chosen = choose(&b), status = chosen;
    if (chosen == TW_VERIFY) status = choose_reference(&b);
    if (status == TW_OK) status = publish(&b, generation, out);
    if (status == TW_OK) status = chosen;
    if (b.owned) tw_plan_release(linear->context, b.plan);
    tw_contest_release(linear->context, b.contest);
    return status;
}

tw_status tw_linear_bind_now(tw_linear *linear, int bucket, tw_binding **out) {
    tw_mode mode = linear->context->mode;
    return tw_linear_bind(linear, bucket, tw_mode_tunes(mode) ? TW_MODE_DEFAULT : mode, 0, out);
}

/* ---- prepare ---- */

/* Nobody runs more; a wild number would take all memory. */
enum { MOST_CONCURRENT = 1024 };

static tw_status check_rows_of(const int64_t *M, int32_t count, int32_t max_concurrent) {
    if (count < 0) return tw_fail(TW_INVALID, "count: %d, must be 0 or more", count);
    if (count && !M) return tw_fail(TW_INVALID, "M: NULL, must hold the %d values", count);
    if (max_concurrent < 0 || max_concurrent > MOST_CONCURRENT)
        return tw_fail(TW_INVALID, "max_concurrent: %d, must be from 0 to %d", max_concurrent,
                       MOST_CONCURRENT);
    for (int32_t i = 0; i < count; i++)
        if (M[i] < 1)
            return tw_fail(TW_INVALID, "M[%d]: %lld, must be positive", i, (long long)M[i]);
    return TW_OK;
}

/* Whether prepare() would have to tune a bucket that runs b (NULL: nothing yet), as far as can be
 * told without asking. */
static bool undecided(const tw_binding *b, tw_mode mode) {
    if (!b || !tw_mode_tunes(mode)) return !b;
    return (b->plan && is_open(b->plan)) || (b->contest && !b->contest->decided);
}

/* Of what is left of the budget, the share of one of `buckets` that wait: what tuning it takes at
 * least, as far as there is so much, and an equal part where that is more.  The small M come first,
 * so that little time decides some. */
static double share_of(const tw_linear *l, int bucket, int buckets, double left_s) {
    const double margin = 2; /* needs are estimates */
    tw_problem p = tw_kernel_problem(&l->problem);
    p.M = tw_bucket_rows(bucket);
    double need_s = margin * tw_tune_least_s(&l->context->target, &p);
    return fmax(fmin(fmax(left_s / buckets, need_s), left_s), 1e-3);
}

/* What forwards of a bucket need beside its binding. */
static tw_status make_ready(tw_linear *l, int bucket, const tw_binding *binding, int32_t forwards) {
    tw_context *c = l->context;
    const tw_plan *plan = binding->impl ? NULL : binding->plan;
    size_t gather = tw_linear_gather_bytes(l, bucket), scratch = 0, rounded = 0;
    if (plan && plan->decision.tmpl) {
        scratch = plan->scratch_bytes;
        rounded = tw_launch_rounded_bytes(&l->problem, tw_bucket_rows(bucket));
        TW_TRY(tw_threads_start(c->threads));
    } else {
        const tw_tensors *unpacked;
        TW_TRY(tw_linear_canonical(l, &unpacked));
    }
    /* A forward holds a block for each. */
    int32_t blocks = forwards * tw_max((gather > 0) + (scratch > 0) + (rounded > 0), 1);
    size_t most = scratch > gather ? scratch : gather;
    return tw_scratch_reserve(&c->scratch, most > rounded ? most : rounded, blocks);
}

tw_status tw_linear_prepare(tw_linear *linear, const int64_t *M, int32_t count,
                            int32_t max_concurrent) {
    if (!linear) return tw_fail(TW_INVALID, "linear: NULL, must be given");
    TW_TRY(check_rows_of(M, count, max_concurrent));
    tw_context *c = linear->context;
    bool wanted[TW_BUCKETS] = {false};
    int left = 0;
    for (int32_t i = 0; i < count; i++) wanted[tw_bucket_index(M[i])] = true;
    for (int bucket = 0; bucket < TW_BUCKETS; bucket++)
        left += wanted[bucket] && undecided(tw_linear_bound(linear, bucket), c->mode);

    int64_t start = tw_now_ns();
    for (int bucket = 0; bucket < TW_BUCKETS; bucket++) {
        if (!wanted[bucket]) continue;
        /* Read once: others publish theirs, and the registry changes, at any moment. */
        tw_binding *binding = tw_linear_bound(linear, bucket);
        if (undecided(binding, c->mode)) {
            /* What one bucket does not use is the next ones'. */
            double left_s = c->budget_s - (double)(tw_now_ns() - start) / 1e9;
            double share = tw_mode_tunes(c->mode) ? share_of(linear, bucket, left, left_s) : 0;
            left -= left > 1;
            TW_TRY(tw_linear_bind(linear, bucket, c->mode, share, &binding));
        }
        TW_TRY(make_ready(linear, bucket, binding, max_concurrent ? max_concurrent : 1));
    }
    return TW_OK;
}
