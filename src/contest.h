/* A contest: whether a registered implementation of priority 0 runs instead of a kernel of ours.
 * It is decided by measuring both, in the tuning modes, once for everybody in a context who asks
 * for the same; and remembered in the cache under a key with its name and version, beside the
 * choices, which stay what they are without it. */
#ifndef TW_SRC_CONTEST_H
#define TW_SRC_CONTEST_H

#include "src/plan.h"

typedef struct tw_contest {
    bool decided; /* false: nobody has measured yet, or had the time, so the kernel runs */
    bool won;     /* by the implementation */
    double median_ns, spread_ns, error; /* the implementation's; 0 where it could not be measured */
} tw_contest;

/* For a layer's problem of a bucket and the kernel of its plan, which is not the reference; where x
 * is rounded before the kernel, that is part of its time.  budget_s: what measuring may take.  An
 * implementation that fails, or is faster but wrong, loses, with a warning that no later run is
 * spared.  Shared and constant; release it when done.  Errors: MEMORY. */
tw_status tw_contest_hold(tw_context *context, const tw_problem *problem, const tw_plan *plan,
                          tw_impl *impl, tw_mode mode, double budget_s, tw_contest **out);
/* NULL is allowed. */
void tw_contest_release(tw_context *context, tw_contest *contest);

/* For the table of the context alone: the last user is gone. */
void tw_contest_destroy(tw_context *context, tw_contest *contest);

/* Calls an implementation that the caller has entered.  x and y with strides filled in; bias as the
 * problem says, NULL without.  Errors: run's, with a sentence that names the implementation. */
tw_status tw_impl_run(const tw_impl *impl, const tw_problem *problem, const tw_canonical *w,
                      const tw_tensor *x, const tw_tensor *y);

#endif
