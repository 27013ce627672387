/* Long work in many parts: shared by threads, broken off where a deadline or the user says so. */
#ifndef TW_AUTOTUNE_PARTS_H
#define TW_AUTOTUNE_PARTS_H

#include "autotune/env.h"

typedef struct tw_parts {
    const tw_tune_env *env;
    tw_threads *threads;     /* NULL: the calling thread alone */
    int64_t deadline_ns;     /* INT64_MAX: none */
    bool (*stop)(void *arg); /* NULL: never; asked on the calling thread */
    void *arg;
    double missing_ns; /* set where work was broken off: what was left of it, as far as known */
} tw_parts;

/* Without a deadline. */
static inline tw_parts tw_parts_all(const tw_tune_env *env, tw_threads *threads) {
    return (tw_parts){.env = env, .threads = threads, .deadline_ns = INT64_MAX};
}

/* task(arg, i) for each i below count.  False: broken off, as soon as the first parts show that the
 * last ones would be late. */
bool tw_parts_run(tw_parts *parts, void (*task)(void *arg, size_t i), void *arg, size_t count);

#endif
