/* A kernel under test: one config of one template, built, loaded and with generated data of its
 * problem. */
#ifndef TW_TOOLS_SUBJECT_H
#define TW_TOOLS_SUBJECT_H

#include "autotune/measure.h"
#include "src/plan.h"

/* Rows of M that a check compares with the oracle unless all are asked for. */
enum { SUBJECT_ROWS = 8 };

/* What a layer would run: of what no kernel takes, unless one is asked for, the reference, and then
 * decision->tmpl is NULL. */
tw_status subject_decide(tw_context *context, const tw_plan_request *request,
                         tw_decision *decision);

/* Builds (binary cache first) and loads one config. */
tw_status subject_load(tw_context *context, const tw_template *tmpl, const tw_problem *problem,
                       const tw_config *config, tw_candidate *out);

/* NULL: the kernel takes the problem; else why not, as a sentence. */
const char *subject_declines(const tw_context *context, const tw_template *tmpl,
                             const tw_problem *problem);

/* The problem without the fields that are at their default: as short as it can be typed. */
void subject_text(const tw_problem *problem, tw_str *out);

#endif
