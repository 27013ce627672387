/* One config of one row of templates.def: compiled, loaded, launched between guard pages, compared
 * with the oracle. */
#ifndef TW_TESTS_KERNELS_RUN_H
#define TW_TESTS_KERNELS_RUN_H

#include "src/backend/backend.h"
#include "templates/template.h"
#include "tests/kernels/layer.h"
#include "tests/kernels/machine.h"

typedef enum runner {
    RUN_NATIVE,  /* LLVM's code, on this CPU */
    RUN_MACHINE, /* the vocabulary itself, for any target */
    RUN_NOTHING, /* LLVM's code, loaded and not run, for any target */
} runner;

typedef struct compiled {
    const tw_template *tmpl;
    tw_problem problem; /* M does not matter */
    tw_target target;
    tw_config config;
    tw_kernel kernel;
    tw_image *image;  /* owned; NULL when the machine runs it */
    machine *machine; /* owned; NULL when the CPU runs it */
} compiled;

/* A target by name, for two threads, whether this CPU can run it or not. */
tw_target target_of(tw_isa isa);

tw_status compiled_init(compiled *c, const tw_template *tmpl, const tw_problem *problem,
                        const tw_config *config, const tw_target *target, runner how);
void compiled_free(compiled *c);

typedef struct run_options {
    int64_t M;                       /* rows of the layer, from its first */
    bool at_end;                     /* which side of each buffer the guard page touches */
    tw_threads *threads;             /* may be NULL */
    bool exact;                      /* every element equal, not merely close */
    int64_t lost_rows, lost_columns; /* mutants of the call: what it leaves out at the end */
    float *y;                        /* not NULL: [M][N] of what came out, which is not compared */
} run_options;

/* Runs the kernel on `fed` and compares with what the oracle made of `truth` (the same layer, but
 * for tests that expect failure).  Strided x with NaN outside its rows, strided y whose other bytes
 * must stay, x, w, bias and lut read-only, scratch full of NaN.
 * Errors: VERIFY, with the place. */
tw_status run_layer(const compiled *c, const layer *truth, const layer *fed,
                    const run_options *options);

/* The line that runs the same again, and the sentence of the failure, to stderr. */
void run_report(const compiled *c, int64_t M);

#endif
