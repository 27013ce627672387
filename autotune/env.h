/* autotune: which config of which template is fastest here, found by measuring.
 * Knows problems, templates and the backend; what it learns goes to hooks, never to a cache.
 * This file: what the tuner takes from the world, so that tests can put their own there. */
#ifndef TW_AUTOTUNE_ENV_H
#define TW_AUTOTUNE_ENV_H

#include "autotune/measure.h"
#include "autotune/tune.h"

typedef struct tw_tune_env {
    void *user;
    int64_t (*now)(void *user); /* monotonic nanoseconds; every deadline counts in it */
    /* The i-th template, NULL past the end. */
    const tw_template *(*row)(void *user, int i);
    /* As tw_candidate_load; called by several threads at once. */
    tw_status (*load)(void *user, const tw_template *tmpl, const tw_problem *problem,
                      const tw_config *config, const void *object, size_t size, tw_candidate *out);
} tw_tune_env;

/* The real clock, templates.def, real machine code. */
extern const tw_tune_env tw_tune_env_real;

/* As tw_tune. */
tw_status tw_tune_in(const tw_tune_env *env, const tw_tune_request *request,
                     const tw_tune_hooks *hooks, tw_tune_result *out);

/* As tw_tune_rival. */
tw_status tw_tune_rival_in(const tw_tune_env *env, const tw_tune_request *request,
                           const tw_tune_hooks *hooks, const tw_template *tmpl,
                           const tw_config *config, tw_rival *rival, tw_rival_result *out);

static inline int64_t tw_env_now(const tw_tune_env *env) { return env->now(env->user); }

#endif
