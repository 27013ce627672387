/* A problem instantiated with generated data, ready to be timed and checked; and interleaved
 * timing. */
#ifndef TW_AUTOTUNE_MEASURE_H
#define TW_AUTOTUNE_MEASURE_H

#include "src/backend/backend.h"
#include "src/core/reference.h"
#include "templates/template.h"

/* Deterministic data of one problem: canonical weights, x, y, bias, and packed copies of the
 * weights in each layout that is used; enough copies to exceed the last-level cache when the
 * weights are to be cold.  [owned] */
typedef struct tw_workload tw_workload;
/* AUTO: cold where reading the weights is a visible part of the time, which is up to 64 rows. */
typedef enum tw_weights_state { TW_WEIGHTS_AUTO, TW_WEIGHTS_COLD, TW_WEIGHTS_HOT } tw_weights_state;

/* problem: M at least 1.  layout: packed at once (NULL: none); others are when a candidate first
 * needs them.
 * Errors: INVALID, UNSUPPORTED (the layout cannot hold the weights), MEMORY. */
tw_status tw_workload_create(const tw_problem *problem, const tw_layout *layout,
                             const tw_target *target, tw_weights_state state, tw_workload **out);
void tw_workload_destroy(tw_workload *workload);

/* What computes the problem but is no kernel of ours. */
typedef struct tw_rival {
    /* As tw_reference_linear, on the calling thread. */
    tw_status (*run)(void *user, const tw_problem *problem, const tw_canonical *w, const void *x,
                     int64_t x_stride, void *y, int64_t y_stride, int64_t M);
    void *user;
    tw_status failure; /* the first of run(), with its sentence */
    char why[320];
} tw_rival;

/* A compiled config, loaded; or a rival, and then nothing else is set. */
typedef struct tw_candidate {
    const tw_template *tmpl;
    tw_kernel kernel;
    tw_image *image;
    tw_rival *rival;
} tw_candidate;
/* Errors: FORMAT, MEMORY, UNSUPPORTED, as tw_image_load. */
tw_status tw_candidate_load(const tw_template *tmpl, const tw_problem *problem,
                            const tw_config *config, const void *object, size_t size,
                            tw_candidate *out);
void tw_candidate_unload(tw_candidate *candidate);

typedef struct tw_timing {
    double median_ns, min_ns, p90_ns, spread_ns; /* spread: half the interquartile range */
    int samples;
} tw_timing;

/* Times the candidates in turn (round robin), quantizing x included; stops at the deadline
 * (tw_now_ns) or when more samples would change nothing, but not before each was timed once.
 * timings: one per candidate.  Errors: MEMORY. */
tw_status tw_measure(tw_workload *workload, tw_threads *threads, const tw_candidate *candidates,
                     int count, int64_t deadline_ns, tw_timing *timings);

/* Runs a candidate and compares with the oracle by the tolerances of docs/numerics.md.  x consists
 * of copies of `rows` different rows (1 to 8) of random and edge values, and all of y is compared
 * (with very many elements: the first row, the last, and others all over); rows 0: every row of x
 * is different and every element compared, which is slow.  Then fewer rows than the kernel was
 * tuned for, and where it must be exact, rows of the identity matrix.  Writing outside y is found.
 * *error: the largest nmse of a row.  Errors: VERIFY names the element; MEMORY. */
tw_status tw_verify(tw_workload *workload, tw_threads *threads, const tw_candidate *candidate,
                    int rows, double *error);

#endif
