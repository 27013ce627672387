/* The search space of the panel64 kernels, and a model of their time: it ranks configs for the
 * tuner and makes the untuned guess.  A template describes its inner loop by the vector
 * instructions it needs. */
#ifndef TW_TEMPLATES_CPU_COST_H
#define TW_TEMPLATES_CPU_COST_H

#include "templates/template.h"

/* Counts are vector instructions, per step of step_k columns of K. */
typedef struct tw_inner_loop {
    int step_k;
    double product;   /* per accumulator: all instructions */
    double multiply;  /* of these, on the multipliers, of which cores have two */
    double unpack;    /* per vector of weights */
    int x_loads;      /* broadcast loads per row of x */
    bool embeds;      /* a product that alone uses a broadcast takes it from memory, for nothing */
    double latency;   /* cycles from one step of an accumulator to its next */
    int temporaries;  /* registers beside accumulators and weights */
    double fold;      /* per accumulator at a fold's end */
    double fold_load; /* per vector of weights at a fold's end */
    int64_t fold_k;
} tw_inner_loop;

/* Of integer products three axes more: how codes are unpacked, when, and how sums are scaled. */
enum { TW_GEMM_AXES = 7, TW_INT_AXES = TW_GEMM_AXES + 3 };
extern const tw_axis tw_gemm_space[TW_INT_AXES];

/* Estimated nanoseconds on one thread. */
double tw_gemm_cost(const tw_target *target, const tw_problem *problem, const tw_config *config,
                    const tw_inner_loop *loop);
/* The same of a kernel whose tiles take `compute` nanoseconds: with weights from memory, threads
 * that wait, and tasks. */
double tw_gemm_task_cost(const tw_target *target, const tw_problem *problem,
                         const tw_config *config, double compute);
/* Sets block_m, of at most most_rows, and block_n. */
void tw_gemm_set_blocks(const tw_target *target, const tw_problem *problem, int64_t most_rows,
                        tw_config *config);
/* The tile of least cost, with blocks that keep all threads busy. */
void tw_gemm_guess(const tw_target *target, const tw_problem *problem, const tw_inner_loop *loop,
                   tw_config *config);
/* Rules of tile, blocks, streams and prefetch that hold for every kernel over panel64. */
const char *tw_gemm_reject(const tw_target *target, const tw_problem *problem,
                           const tw_config *config);

#endif
