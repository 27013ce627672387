/* What a tuned choice is worth: beside the guess, the reference, and what the machine can do. */
#ifndef TW_TOOLS_RATING_H
#define TW_TOOLS_RATING_H

#include "autotune/limits.h"
#include "src/plan.h"

/* 0 where not known. */
typedef struct rating {
    double guess_ns, reference_ns;
    double gops, limit_gops, limit_gbps;
    double share; /* of what the limits allow */
} rating;

typedef struct rater {
    const tw_context *context;
    tw_limits *limits;
    double cold_gbps; /* the best so far */
    int count;        /* of ratings */
    int64_t spent_ns; /* by them */
} rater;

tw_status rater_init(const tw_context *context, rater *out);
void rater_free(rater *r);
/* What measuring takes the next time, as far as can be known. */
double rater_expects_ns(const rater *r);
/* out->guess_ns: as timed, or 0, and then as an earlier run did.  measure: the reference and the
 * limits, too, which takes a moment. */
tw_status rater_rate(rater *r, const tw_problem *problem, double median_ns, bool measure,
                     rating *out);

#endif
