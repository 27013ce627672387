/* Threads of this run's own take the next job each: compiling is no work for the host's
 * parallel-for, whose tasks may not wait for one another. */
#include "autotune/build.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { MAX_WORKERS = 64 };

typedef struct build {
    const tw_tune_env *env;
    const tw_tune_hooks *hooks;
    const tw_problem *problem;
    tw_build_job *jobs;
    int count;
    int64_t deadline_ns;
    atomic_int next;
    atomic_bool stopped;
} build;

static tw_status build_one(const build *b, tw_build_job *job) {
    const tw_point *p = job->point;
    tw_str object = {0};
    tw_status status = b->hooks->build(b->hooks->user, p->tmpl, b->problem, &p->config, &object);
    if (status == TW_OK)
        status = b->env->load(b->env->user, p->tmpl, b->problem, &p->config, object.text,
                              object.size, &job->candidate);
    tw_str_free(&object);
    return status;
}

/* False when there is nothing left to do. */
static bool work(build *b) {
    if (b->stopped || tw_env_now(b->env) >= b->deadline_ns) return false;
    int i = atomic_fetch_add(&b->next, 1);
    if (i >= b->count) return false;
    tw_build_job *job = &b->jobs[i];
    job->status = build_one(b, job);
    if (job->status != TW_OK) snprintf(job->why, sizeof job->why, "%s", tw_error_message());
    job->done = true;
    return true;
}

static void *worker(void *arg) {
    while (work(arg)) {
    }
    return NULL;
}

void tw_build(const tw_tune_env *env, const tw_tune_request *request, const tw_tune_hooks *hooks,
              tw_build_job *jobs, int count, int64_t deadline_ns, bool (*stop)(void *arg),
              void *arg) {
    build b = {env, hooks, request->problem, jobs, count, deadline_ns, 0, false};
    pthread_t threads[MAX_WORKERS];
    int wanted = (int)tw_min(tw_min(request->target->threads, count) - 1, MAX_WORKERS), started = 0;
    /* Where no thread can be had, this one does all of it. */
    while (started < wanted && !pthread_create(&threads[started], NULL, worker, &b)) started++;
    while (work(&b))
        if (stop(arg)) b.stopped = true;
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
}
