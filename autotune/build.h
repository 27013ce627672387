/* Building and loading several configs at once. */
#ifndef TW_AUTOTUNE_BUILD_H
#define TW_AUTOTUNE_BUILD_H

#include "autotune/env.h"
#include "autotune/space.h"
#include "autotune/tune.h"

typedef struct tw_build_job {
    const tw_point *point;
    tw_candidate candidate; /* loaded where status is TW_OK */
    bool done;              /* false: the deadline or a stop came first */
    tw_status status;
    char why[320]; /* the sentence of a failure: it would stay behind on the thread that built */
} tw_build_job;

/* Runs the jobs on request->target->threads threads, this one among them, until the deadline.
 * `stop` is called on this thread between jobs and ends the run by returning true. */
void tw_build(const tw_tune_env *env, const tw_tune_request *request, const tw_tune_hooks *hooks,
              tw_build_job *jobs, int count, int64_t deadline_ns, bool (*stop)(void *arg),
              void *arg);

#endif
