/* A problem instantiated with generated data, ready to be timed and checked; and interleaved timing. */
#ifndef TW_AUTOTUNE_MEASURE_H
#define TW_AUTOTUNE_MEASURE_H

#include "src/backend/backend.h"
#include "templates/template.h"

/* Deterministic data of one problem: canonical weights, x, y, bias, and packed copies of the weights in one
 * layout; enough copies to exceed the last-level cache when the weights are to be cold. */
typedef struct tw_workload tw_workload;
typedef enum tw_weights_state { TW_WEIGHTS_AUTO, TW_WEIGHTS_COLD, TW_WEIGHTS_HOT } tw_weights_state;

tw_status tw_workload_create(const tw_problem *problem, const tw_layout *layout, const tw_target *target,
                             tw_weights_state state, tw_workload **out);
void tw_workload_destroy(tw_workload *workload);

/* A compiled config, loaded. */
typedef struct tw_candidate {
    const tw_template *tmpl;
    tw_kernel kernel;
    tw_image *image;
} tw_candidate;
tw_status tw_candidate_load(const tw_template *tmpl, const tw_problem *problem, const tw_config *config,
                            const void *object, size_t size, tw_candidate *out);
void tw_candidate_unload(tw_candidate *candidate);

typedef struct tw_timing {
    double median_ns, min_ns, p90_ns, spread_ns; /* spread: half the interquartile range */
    int samples;
} tw_timing;

/* Times the candidates in turn (round robin), quantizing x included; stops at the deadline (tw_now_ns) or
 * when the best is settled.  timings: one per candidate. */
tw_status tw_measure(tw_workload *workload, tw_threads *threads, const tw_candidate *candidates, int count,
                     int64_t deadline_ns, tw_timing *timings);

/* Runs a candidate and compares with the oracle, all N on at most `rows` rows of M (first and last among
 * them; 0: all): the tolerances of DESIGN 5.  *error: the largest nmse of a row.  VERIFY names the element. */
tw_status tw_verify(tw_workload *workload, tw_threads *threads, const tw_candidate *candidate, int rows,
                    double *error);

#endif
