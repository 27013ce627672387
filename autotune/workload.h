/* What tw_workload is made of: shared by measuring and verifying. */
#ifndef TW_AUTOTUNE_WORKLOAD_H
#define TW_AUTOTUNE_WORKLOAD_H

#include "autotune/data.h"
#include "autotune/env.h"
#include "autotune/parts.h"

enum {
    TW_MAX_LAYOUTS = 8,
    TW_PROBES = 8, /* rows of x whose exact results are kept */
    /* Elements between rows of x and y while verifying: rows then begin anywhere, and what lies
     * between may neither be used nor written. */
    TW_ROW_GAP = 3,
};

/* The weights in one layout, as many times as it takes to be cold. */
typedef struct tw_packed {
    const tw_layout *layout; /* NULL: the canonical tensors, each from a multiple of 64 bytes */
    char *copies;
    size_t bytes, stride; /* of the memory; from one copy to the next */
    int64_t count, next;
} tw_packed;

/* A probe row and what the oracle says of it. */
typedef struct tw_oracle {
    float *x;                     /* K */
    double *expected, *magnitude; /* N */
    bool known;
} tw_oracle;

struct tw_workload {
    tw_problem problem; /* M at least 1 */
    const tw_tune_env *env;
    tw_data data;
    float *bias; /* f32, as kernels want it; NULL without */
    size_t bias_bytes;
    int64_t cold_bytes; /* of packed copies at least; 0: one copy */
    tw_packed packed[TW_MAX_LAYOUTS];
    int layouts;
    char *x, *y; /* M rows with gaps, one row more of y */
    size_t x_bytes, y_bytes;
    bool timing; /* x holds what is timed */
    void *scratch;
    size_t scratch_bytes;
    float *rounded; /* x, where it is rounded before kernels see it */
    size_t rounded_bytes;
    tw_oracle oracle[TW_FPMATHS][TW_PROBES]; /* of each way to multiply, for those that use it */
};

/* What copies of the weights add up to at least, to be cold; 0: they are to be hot. */
int64_t tw_cold_bytes(const tw_problem *problem, const tw_target *target, tw_weights_state state);

/* As tw_workload_create, in an environment that outlives the workload. */
tw_status tw_workload_create_in(const tw_tune_env *env, const tw_problem *problem,
                                const tw_layout *layout, const tw_target *target,
                                tw_weights_state state, tw_workload **out);

/* The same step by step, each with a deadline: memory alone; then the data. */
tw_status tw_workload_open(const tw_tune_env *env, const tw_problem *problem,
                           const tw_target *target, tw_weights_state state, tw_workload **out);
/* False: broken off, and the workload is good for nothing but tw_workload_destroy. */
bool tw_workload_fill(tw_workload *w, tw_parts *parts);

/* The weights in a layout (NULL: canonical), packed on first use.  Errors: MEMORY. */
tw_status tw_workload_pack(tw_workload *w, const tw_layout *layout, tw_packed **out);
/* The same with a deadline; *made is false where that broke it off.  Copies beyond a quarter of
 * what is cold are made until extras_ns. */
tw_status tw_workload_pack_by(tw_workload *w, tw_parts *parts, int64_t extras_ns,
                              const tw_layout *layout, bool *made);
/* What a candidate reads. */
static inline const tw_layout *tw_candidate_layout(const tw_candidate *candidate) {
    return candidate->rival ? NULL : candidate->tmpl->layout;
}
/* L of docs/numerics.md; of a rival, whose way of adding nobody knows, the longest there can be. */
static inline int64_t tw_candidate_chain(const tw_candidate *candidate, const tw_problem *problem) {
    return candidate->rival ? problem->K : candidate->tmpl->chain(problem);
}
/* What it is held to: see tw_template_truth. */
static inline tw_problem tw_candidate_truth(const tw_candidate *candidate,
                                            const tw_problem *problem) {
    return tw_template_truth(candidate->rival ? NULL : candidate->tmpl, problem);
}
/* Scratch for a candidate's launches.  Errors: MEMORY. */
tw_status tw_workload_reserve(tw_workload *w, const tw_candidate *candidate);
/* Contiguous random x, for timing. */
tw_status tw_workload_fill_timing(tw_workload *w);

/* Bytes of one element. */
static inline int64_t tw_x_size(const tw_workload *w) { return tw_dtype_bits(w->problem.x) / 8; }
static inline int64_t tw_y_size(const tw_workload *w) { return tw_dtype_bits(w->problem.y) / 8; }

/* Launches M rows; strides count elements.  tw_workload_pack and _reserve come first. */
void tw_workload_launch(tw_workload *w, tw_threads *threads, const tw_candidate *candidate,
                        tw_packed *packed, int64_t M, int64_t x_stride, int64_t y_stride);

/* oracle.c */

/* The first `count` probes, TW_PROBES at most, and the exact results of `truth`, the problem with
 * one way to multiply: those that are not known yet are worked out, all at once.  *made: false
 * where the deadline broke it off. */
tw_status tw_workload_ask(tw_workload *w, tw_parts *parts, const tw_problem *truth, int count,
                          bool *made);
/* Room for the oracle's answer. */
tw_status tw_oracle_create(const tw_problem *problem, tw_oracle *out);
void tw_oracle_free(tw_oracle *oracle);
/* The answers for the x in each of `count`, 1 to TW_PROBES; false: broken off. */
bool tw_oracle_solve(const tw_workload *w, tw_parts *parts, const tw_problem *truth,
                     tw_oracle *const *oracles, int count);

/* Launches of M rows that tw_verify with `rows` different rows amounts to. */
double tw_verify_launches(const tw_problem *problem, int64_t rows);

#endif
