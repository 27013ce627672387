/* autotune: space -> rank -> build -> measure -> verify.  Knows no cache: it gets a sink for what
 * it measures and a source for what was measured before. */
#ifndef TW_AUTOTUNE_TUNE_H
#define TW_AUTOTUNE_TUNE_H

#include "autotune/measure.h"
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
    /* Stores one measurement as it is made; a config may come again, with a better or a later
     * figure, or with a failure: the last one counts.  On the calling thread.  What it fails with
     * ends the run.  May be NULL. */
    tw_status (*sink)(void *user, const tw_tune_trial *trial);
    /* Calls each(arg, trial) for what is already known of this problem, in the order it was stored.
     * May be NULL. */
    void (*source)(void *user, void (*each)(void *arg, const tw_tune_trial *trial), void *arg);
    /* The object of one config (binary cache first, then the compiler); out is filled with object
     * bytes.  COMPILE, FORMAT and INTERNAL are failures of that config; anything else is no fault
     * of it and ends the run.  Called by several threads at once. */
    tw_status (*build)(void *user, const tw_template *tmpl, const tw_problem *problem,
                       const tw_config *config, tw_str *out);
    /* Progress: done of about total configs of this problem; returns nonzero to stop early
     * (Ctrl-C).  Called on the calling thread before every sample, so it has to be quick.  May be
     * NULL. */
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
    bool decide_anyway;      /* the least that a decision takes is done whatever the budget */
} tw_tune_request;

typedef struct tw_tune_result {
    const tw_template *tmpl;
    tw_config config;
    double median_ns, spread_ns, error;
    double
        guess_ns; /* the guess, timed beside it; 0 when it failed or the run was stopped before */
    int measured, known; /* configs timed here; timed or failed in earlier runs */
    int failed, legal;   /* configs that failed here; in the search space */
    bool stopped; /* progress asked for it: this is the best so far, and no decision to be kept */
    /* False: too few configs were timed side by side, and there are more of them.  What is above is
     * the guess then, or the best so far where the guess failed or the run was stopped. */
    bool decided;
    /* Something else ran on the machine meanwhile: the times are no good, nor, perhaps, the choice.
     */
    bool disturbed;
    double least_s; /* what a run that decides takes, about; 0 where this one did, or was stopped */
} tw_tune_result;

/* The best verified config, a decision where so many were compared that it is worth keeping.
 * Stopped before anything was timed it is the guess with median_ns 0.
 * Errors: UNSUPPORTED when no template takes the problem, VERIFY when every config that was timed
 * failed, MEMORY; what the sink fails with, and what a build fails with through no fault of its
 * config. */
tw_status tw_tune(const tw_tune_request *request, const tw_tune_hooks *hooks, tw_tune_result *out);

/* Seconds that a decision takes at least, by sizes alone, on a machine of today; 0 when no template
 * takes the problem. */
double tw_tune_least_s(const tw_target *target, const tw_problem *problem);

/* How something that is no kernel of ours does beside the tuned one. */
typedef struct tw_rival_result {
    bool faster; /* and right; only what is clearly faster is looked at that closely */
    bool late;   /* the data alone took the budget: nothing was compared */
    double median_ns, spread_ns, error;
    double kernel_ns; /* the tuned kernel, timed beside it */
} tw_rival_result;

/* Times a rival and a tuned kernel in turn, on the same data, within request->budget_s, and where
 * the rival is faster by more than 1 % verifies it as kernels are.  Of the hooks `build` is called.
 * Errors: VERIFY when it is faster, but wrong; what its run() failed with; what building the kernel
 * fails with; MEMORY. */
tw_status tw_tune_rival(const tw_tune_request *request, const tw_tune_hooks *hooks,
                        const tw_template *tmpl, const tw_config *config, tw_rival *rival,
                        tw_rival_result *out);

/* The guess: the accepting template with the least estimated cost, with its guessed config.
 * why (may be NULL) collects a line "kernel: reason" for each other template.
 * Errors: UNSUPPORTED, with all reasons, when none takes the problem. */
tw_status tw_guess(const tw_target *target, const tw_problem *problem, const tw_layout *layout,
                   const tw_template **tmpl, tw_config *config, tw_str *why);

#endif
