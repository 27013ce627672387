/* autotune: space -> rank -> build -> measure -> verify.  Knows no cache: it gets a sink for what it
 * measures and a source for what was measured before. */
#ifndef TW_AUTOTUNE_TUNE_H
#define TW_AUTOTUNE_TUNE_H

#include "src/backend/backend.h"
#include "src/base/log.h"
#include "templates/template.h"

/* One measured (or failed) config. */
typedef struct tw_tune_trial {
    const tw_template *tmpl;
    tw_config config;
    double median_ns, spread_ns; /* 0 when failed */
    const char *failure;         /* NULL, or why: "verify: ...", "compile: ..." */
} tw_tune_trial;

typedef struct tw_tune_hooks {
    void *user;
    /* Stores one measurement as it is made.  May be NULL. */
    void (*sink)(void *user, const tw_tune_trial *trial);
    /* Calls each(arg, trial) for what is already known of this problem.  May be NULL. */
    void (*source)(void *user, void (*each)(void *arg, const tw_tune_trial *trial), void *arg);
    /* The object of one config (binary cache first, then the compiler); out is filled with object bytes. */
    tw_status (*build)(void *user, const tw_template *tmpl, const tw_problem *problem, const tw_config *config, tw_str *out);
    /* Progress: done of total configs of this problem; returns nonzero to stop early (Ctrl-C).  May be NULL. */
    int (*progress)(void *user, int done, int total);
} tw_tune_hooks;

typedef struct tw_tune_request {
    const tw_problem *problem; /* M is the bucket's size */
    const tw_target *target;
    tw_threads *threads;
    const tw_logger *log;
    const tw_layout *layout; /* NULL: any; else only templates over this layout */
    double budget_s;         /* kept within 10 % */
    bool exhaustive;         /* every legal config, budget permitting */
} tw_tune_request;

typedef struct tw_tune_result {
    const tw_template *tmpl;
    tw_config config;
    double median_ns, spread_ns, error;
    int measured, known, failed, legal; /* configs */
    bool stopped;                       /* progress asked for it */
} tw_tune_result;

/* The best verified config.  Errors: UNSUPPORTED when no template takes the problem, VERIFY when every
 * candidate disagreed with the oracle. */
tw_status tw_tune(const tw_tune_request *request, const tw_tune_hooks *hooks, tw_tune_result *out);

/* The guess: the accepting template with the least estimated cost, with its guessed config.
 * why (may be NULL) collects a line per template that declined. */
tw_status tw_guess(const tw_target *target, const tw_problem *problem, const tw_layout *layout,
                   const tw_template **tmpl, tw_config *config, tw_str *why);

#endif
