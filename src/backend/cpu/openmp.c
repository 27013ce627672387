/* A parallel-for hook over the host's OpenMP: one pool of threads for both, so that none of theirs
 * waits, spinning, on a core that one of the other's needs. */
#include <stdatomic.h>
#include <string.h>

#include "src/base/status.h"

typedef struct team_job {
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t count;
    atomic_size_t next;
} team_job;

/* Each thread of the team takes the next task until none is left; a team of one does them all. */
static void team_member(void *data) {
    team_job *job = data;
    for (size_t i; (i = atomic_fetch_add(&job->next, 1)) < job->count;) job->task(job->arg, i);
}

/* 0 threads: as many as the host has set for the calling thread.  Always that many, even for fewer
 * tasks: a team of another size would end threads and start them again. */
static void team_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    tw_gomp_parallel gomp_parallel;
    memcpy(&gomp_parallel, &user, sizeof gomp_parallel);
    team_job job = {task, arg, count, 0};
    gomp_parallel(team_member, &job, 0, 0);
}

tw_status tw_parallel_openmp(tw_gomp_parallel gomp_parallel, int32_t threads, tw_parallel *out) {
    if (!gomp_parallel) return tw_fail(TW_INVALID, "gomp_parallel: NULL, must be given");
    if (threads < 1) return tw_fail(TW_INVALID, "threads: %d, expected at least 1", threads);
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    *out = (tw_parallel){team_run, NULL, threads};
    memcpy(&out->user, &gomp_parallel, sizeof out->user);
    return TW_OK;
}
