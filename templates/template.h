/* templates: kernel families, a row of templates.def each: tests, benchmarks, CLI and the tuner
 * read that row. A template says which problems it takes (and why not), spans a space of configs,
 * guesses a good one without measuring, and emits the code. */
#ifndef TW_TEMPLATES_TEMPLATE_H
#define TW_TEMPLATES_TEMPLATE_H

#include "codegen/cpu/compile.h"
#include "src/core/config.h"
#include "src/core/problem.h"
#include "src/core/target.h"
#include "templates/layouts/layout.h"

enum { TW_SPACE_VALUES = 16 };
/* One axis of the search space: a tunable and the values worth trying. */
typedef struct tw_axis {
    int tunable; /* TW_TUNABLE_micro_m ... */
    int32_t values[TW_SPACE_VALUES];
    int count;
} tw_axis;

/* Strides of the packed activations that the kernel's two functions agree on, in bytes. */
typedef struct tw_geometry {
    int64_t xq_stride, xmeta_stride;
} tw_geometry;

typedef struct tw_template {
    const char *name; /* "cpu.int_gemm" */
    uint32_t version; /* bump when generated code changes on purpose */
    const tw_layout *layout;
    const tw_axis *space;
    int axes;
    /* NULL: takes the problem on this target; else why not, as a complete sentence.  M is not
     * looked at. */
    const char *(*reject_problem)(const tw_target *target, const tw_problem *problem);
    /* The same for one config of a problem it takes; problem->M is the bucket's size here. */
    const char *(*reject)(const tw_target *target, const tw_problem *problem,
                          const tw_config *config);
    /* A legal config, good without measuring. */
    void (*guess)(const tw_target *target, const tw_problem *problem, tw_config *config);
    /* Estimated nanoseconds on one thread: only its order matters. */
    double (*cost)(const tw_target *target, const tw_problem *problem, const tw_config *config);
    void (*geometry)(const tw_problem *problem, tw_geometry *out);
    /* L of docs/numerics.md: the longest chain of f32 additions into one element of y. */
    int64_t (*chain)(const tw_problem *problem);
    /* Emits tw_pack_x and tw_matmul (src/core/kernel_args.h).  Never depends on problem->M. */
    tw_status (*emit)(tw_ir *g, const tw_problem *problem, const tw_config *config);
    /* How it multiplies: strictly, or rounded to bf16 (of a strict problem it takes those that need
     * no rounding). */
    tw_fpmath fpmath;
} tw_template;

/* The problem whose exact result, by the oracle, a kernel is held to where it takes this one: with
 * its own way to multiply.  tmpl NULL: of whoever is no template. */
tw_problem tw_template_truth(const tw_template *tmpl, const tw_problem *problem);

/* The i-th row, NULL past the end. */
const tw_template *tw_template_row(int i);
const tw_template *tw_template_find(const char *name);

/* Compiles one config: key, banner and all.  Same arguments, same bytes. */
tw_status tw_template_compile(const tw_template *tmpl, const tw_problem *problem,
                              const tw_config *config, const tw_target *target, tw_code_kind kind,
                              tw_str *out);

#endif
