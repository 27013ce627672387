/* What a bucket of a linear runs: a registered implementation above priority 0, a kernel of
 * ours, a registered implementation at 0 or below, the reference. */
#include <math.h>
#include <stdint.h>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/linear.h"

typedef struct bind_call {
    tw_linear *linear;
    tw_problem problem; /* of the bucket */
    tw_mode mode;
    double budget_s;
    tw_impl *impl;
    tw_plan *plan;
    bool owned; /* the plan's reference is this call's */
} bind_call;

/* The plan that this bucket had before, unless it is a guess and now is the time to tune. */
static tw_plan *known_plan(tw_linear *l, int bucket, tw_mode mode) {
    pthread_mutex_lock(&l->lock);
    tw_binding *b = l->all;
    while (b && (b->bucket != bucket || !b->plan)) b = b->next;
    tw_plan *plan = b ? b->plan : NULL;
    pthread_mutex_unlock(&l->lock);
    return plan && tw_mode_tunes(mode) && plan->decision.origin == TW_ORIGIN_GUESS ? NULL : plan;
}

static tw_binding *find_binding(tw_linear *l, int bucket, const tw_impl *impl,
                                const tw_plan *plan) {
    tw_binding *b = l->all;
    while (b && (b->bucket != bucket || b->impl != impl || b->plan != plan)) b = b->next;
    return b;
}

/* Makes the answer what the bucket runs; a new binding takes the plan's reference over. */
static tw_status publish(bind_call *call, unsigned generation, tw_binding **out) {
    tw_linear *l = call->linear;
    int bucket = tw_bucket_index(call->problem.M);
    pthread_mutex_lock(&l->lock);
    tw_binding *b = find_binding(l, bucket, call->impl, call->plan);
    if (!b && (b = tw_alloc(&l->context->allocator, sizeof *b))) {
        *b = (tw_binding){.next = l->all,
                          .bucket = bucket,
                          .impl = call->impl,
                          .plan = call->plan,
                          .owns_plan = call->owned};
        call->owned = false;
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

static void warn_reference(tw_linear *l, const tw_plan *plan) {
    if (!plan->reason[0] || atomic_exchange(&l->warned, true)) return;
    tw_log_line(&l->context->log, TW_LOG_WARN, "a linear runs the slow reference: %s",
                plan->reason);
}

static tw_status choose_plan(bind_call *b) {
    b->plan = known_plan(b->linear, tw_bucket_index(b->problem.M), b->mode);
    if (b->plan) return TW_OK;
    tw_plan_request request = {.problem = &b->problem,
                               .mode = b->mode,
                               .layout = b->linear->layout,
                               .budget_s = b->budget_s};
    TW_TRY(tw_plan_make(b->linear->context, &request, &b->plan));
    b->owned = true;
    return TW_OK;
}

static tw_status choose(bind_call *b) {
    tw_context *c = b->linear->context;
    bool oracle = b->mode == TW_MODE_REFERENCE;
    if (!oracle)
        TW_TRY(tw_registry_choose(&c->registry, &b->problem, &c->target, 1, INT32_MAX, &b->impl));
    if (b->impl) return TW_OK;
    TW_TRY(choose_plan(b));
    if (b->plan->decision.tmpl || oracle) return TW_OK;
    TW_TRY(tw_registry_choose(&c->registry, &b->problem, &c->target, INT32_MIN, 0, &b->impl));
    if (!b->impl) warn_reference(b->linear, b->plan);
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
    tw_status status = choose(&b);
    if (status == TW_OK) status = publish(&b, generation, out);
    if (b.owned) tw_plan_release(linear->context, b.plan);
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
    if (count < 0 || (count && !M))
        return tw_fail(TW_INVALID, "M: %d values at %p, must be given", count, (const void *)M);
    if (max_concurrent < 0 || max_concurrent > MOST_CONCURRENT)
        return tw_fail(TW_INVALID, "max_concurrent: %d, must be from 0 to %d", max_concurrent,
                       MOST_CONCURRENT);
    for (int32_t i = 0; i < count; i++)
        if (M[i] < 1)
            return tw_fail(TW_INVALID, "M[%d]: %lld, must be positive", i, (long long)M[i]);
    return TW_OK;
}

/* Whether prepare() would have to tune a bucket, as far as can be told without asking. */
static bool undecided(tw_linear *l, int bucket, tw_mode mode) {
    tw_binding *b = tw_linear_bound(l, bucket);
    return !b || (tw_mode_tunes(mode) && b->plan && b->plan->decision.origin == TW_ORIGIN_GUESS);
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
        left += wanted[bucket] && undecided(linear, bucket, c->mode);

    int64_t start = tw_now_ns();
    for (int bucket = 0; bucket < TW_BUCKETS; bucket++) {
        if (!wanted[bucket]) continue;
        tw_binding *binding = tw_linear_bound(linear, bucket);
        if (undecided(linear, bucket, c->mode)) {
            /* What one bucket does not use is the next ones'. */
            double spent = (double)(tw_now_ns() - start) / 1e9;
            double share = fmax((c->budget_s - spent) / (left > 1 ? left-- : 1), 1e-3);
            TW_TRY(tw_linear_bind(linear, bucket, c->mode, share, &binding));
        }
        const tw_plan *plan = binding->impl ? NULL : binding->plan;
        const tw_tensors *unpacked;
        if (!plan || !plan->decision.tmpl) {
            TW_TRY(tw_linear_canonical(linear, &unpacked));
            continue;
        }
        TW_TRY(tw_scratch_reserve(&c->scratch, plan->scratch_bytes,
                                  max_concurrent ? max_concurrent : 1));
        TW_TRY(tw_threads_start(c->threads));
    }
    return TW_OK;
}
