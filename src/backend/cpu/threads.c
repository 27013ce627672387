/* Parallel-for: the host's hook, or a pthreadpool of our own.  pthreadpool serializes calls from
 * several host threads by its own mutex, so concurrent forwards take turns and never wait for each
 * other's tasks; a task never calls back into the pool. */
#include <pthread.h>
#include <pthreadpool.h>
#include <stdatomic.h>
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
    tw_parallel hook;            /* run == NULL: the pool */
    _Atomic(pthreadpool_t) pool; /* owned; NULL until started */
    pthread_mutex_t starting;
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
    if (hooked) t->hook = *hook;
    pthread_mutex_init(&t->starting, NULL);
    *out = t;
    return TW_OK;
}

void tw_threads_destroy(tw_threads *threads) {
    if (!threads) return;
    pthreadpool_t pool = atomic_load(&threads->pool);
    if (pool) pthreadpool_destroy(pool);
    pthread_mutex_destroy(&threads->starting);
    free(threads);
}

int32_t tw_threads_count(const tw_threads *threads) { return threads ? threads->count : 1; }

/* NULL when it cannot be started. */
static pthreadpool_t started(tw_threads *threads) {
    pthreadpool_t pool = atomic_load_explicit(&threads->pool, memory_order_acquire);
    if (pool) return pool;
    pthread_mutex_lock(&threads->starting);
    pool = atomic_load(&threads->pool);
    if (!pool && (pool = pthreadpool_create((size_t)threads->count)))
        atomic_store_explicit(&threads->pool, pool, memory_order_release);
    pthread_mutex_unlock(&threads->starting);
    return pool;
}

tw_status tw_threads_start(tw_threads *threads) {
    if (!threads || threads->hook.run || started(threads)) return TW_OK;
    return tw_fail(TW_MEMORY, "threads: a pool of %d could not be started", threads->count);
}

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
    if (threads && threads->hook.run && count > 1) {
        threads->hook.run(threads->hook.user, task, arg, count);
        return;
    }
    pthreadpool_t pool = threads && count > 1 ? started(threads) : NULL;
    if (!pool) {
        for (size_t i = 0; i < count; i++) task(arg, i);
        return;
    }
    pool_job job = {task, arg};
    published(&job);
    pthreadpool_parallelize_1d(pool, pool_task, &job, count, 0);
    received(&job);
}
