/* Parallel-for: the host's hook, or a pthreadpool of our own.  pthreadpool serializes calls from
 * several host threads by its own mutex, so concurrent forwards take turns and never wait for each
 * other's tasks; a task never calls back into the pool. */
#include <pthreadpool.h>
#include <stdlib.h>

#include "src/backend/backend.h"
#include "src/base/status.h"

/* ThreadSanitizer does not see the fences of a library that is built without it.  These calls say
 * what pthreadpool guarantees: tasks see what the caller wrote, and the caller what tasks wrote. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1 /* as gcc says it */
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
static void published(void *job) { __tsan_release(job); }
static void received(void *job) { __tsan_acquire(job); }
#else
static void published(void *job) { (void)job; }
static void received(void *job) { (void)job; }
#endif

struct tw_threads {
    tw_parallel hook;   /* run == NULL: the pool */
    pthreadpool_t pool; /* owned */
    int32_t count;
};

tw_status tw_threads_create(const tw_parallel *hook, int32_t threads, tw_threads **out) {
    bool hooked = hook && hook->run;
    int32_t count = hooked ? hook->threads : threads;
    if (count < 1)
        return tw_fail(TW_INVALID, "threads: %d, expected at least 1%s", count,
                       hooked ? " (parallel.threads)" : "");
    *out = NULL;
    if (count == 1) return TW_OK;
    tw_threads *t = calloc(1, sizeof *t);
    if (!t) return tw_fail(TW_MEMORY, "threads: out of memory");
    t->count = count;
    if (hooked)
        t->hook = *hook;
    else
        t->pool = pthreadpool_create((size_t)count);
    if (!hooked && !t->pool) {
        free(t);
        return tw_fail(TW_MEMORY, "threads: a pool of %d could not be started", count);
    }
    *out = t;
    return TW_OK;
}

void tw_threads_destroy(tw_threads *threads) {
    if (!threads) return;
    if (threads->pool) pthreadpool_destroy(threads->pool);
    free(threads);
}

int32_t tw_threads_count(const tw_threads *threads) { return threads ? threads->count : 1; }

typedef struct pool_job {
    void (*task)(void *arg, size_t i);
    void *arg;
} pool_job;

static void pool_task(void *arg, size_t i) {
    pool_job *job = arg;
    received(job);
    job->task(job->arg, i);
    published(job);
}

void tw_threads_run(tw_threads *threads, void (*task)(void *arg, size_t i), void *arg,
                    size_t count) {
    if (!threads || count <= 1) {
        for (size_t i = 0; i < count; i++) task(arg, i);
    } else if (threads->hook.run) {
        threads->hook.run(threads->hook.user, task, arg, count);
    } else {
        pool_job job = {task, arg};
        published(&job);
        pthreadpool_parallelize_1d(threads->pool, pool_task, &job, count, 0);
        received(&job);
    }
}
