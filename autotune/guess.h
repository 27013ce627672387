/* tw_guess among any set of templates. */
#ifndef TW_AUTOTUNE_GUESS_H
#define TW_AUTOTUNE_GUESS_H

#include "autotune/env.h"
#include "autotune/space.h"

/* NULL: the template takes the problem, over `layout` unless that is NULL; else why not. */
const char *tw_template_declines(const tw_template *tmpl, const tw_target *target,
                                 const tw_problem *problem, const tw_layout *layout);

/* As tw_guess. */
tw_status tw_guess_in(const tw_tune_env *env, const tw_target *target, const tw_problem *problem,
                      const tw_layout *layout, tw_point *out, tw_str *why);

/* Which exact results the templates that take the problem are held to, by their way to multiply
 * (tw_template_truth); how many. */
int tw_truths_needed(const tw_tune_env *env, const tw_target *target, const tw_problem *problem,
                     const tw_layout *layout, bool needed[TW_FPMATHS]);

#endif
