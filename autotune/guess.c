/* Which template and config, without measuring. */
#include "autotune/guess.h"

#include <string.h>

#include "autotune/tune.h"
#include "src/base/status.h"

const char *tw_template_declines(const tw_template *tmpl, const tw_target *target,
                                 const tw_problem *problem, const tw_layout *layout) {
    if (layout && tmpl->layout != layout) return "the weights are packed in another layout";
    const char *why = tmpl->layout->reject(problem);
    return why ? why : tmpl->reject_problem(target, problem);
}

int tw_truths_needed(const tw_tune_env *env, const tw_target *target, const tw_problem *problem,
                     const tw_layout *layout, bool needed[TW_FPMATHS]) {
    const tw_template *tmpl;
    int count = 0;
    for (int math = 0; math < TW_FPMATHS; math++) needed[math] = false;
    for (int i = 0; (tmpl = env->row(env->user, i)); i++)
        if (!tw_template_declines(tmpl, target, problem, layout))
            needed[tw_template_truth(tmpl, problem).scheme.fpmath] = true;
    for (int math = 0; math < TW_FPMATHS; math++) count += needed[math];
    return count;
}

/* Lines of `why` for templates that would take the problem but are slower by the model. */
static void add_slower(const tw_tune_env *env, const tw_target *target, const tw_problem *problem,
                       const tw_layout *layout, const tw_point *best, tw_str *why) {
    const tw_template *tmpl;
    for (int i = 0; (tmpl = env->row(env->user, i)); i++) {
        if (tmpl == best->tmpl || tw_template_declines(tmpl, target, problem, layout)) continue;
        tw_config config = {0};
        tmpl->guess(target, problem, &config);
        tw_str_add(why, "%s: estimated at %.2f times the cost of %s\n", tmpl->name,
                   tmpl->cost(target, problem, &config) / best->cost, best->tmpl->name);
    }
}

/* One sentence of all the lines. */
static tw_status fail_declined(const char *problem, const tw_target *target, const char *lines) {
    tw_str reasons = {0};
    for (const char *line = lines; *line; line += strcspn(line, "\n") + 1)
        tw_str_add(&reasons, " %.*s", (int)strcspn(line, "\n"), line);
    tw_fail(TW_UNSUPPORTED, "problem: %s, no kernel takes it on %s:%s", problem,
            tw_target_isa(target)->name, tw_str_text(&reasons));
    tw_str_free(&reasons);
    return TW_UNSUPPORTED;
}

tw_status tw_guess_in(const tw_tune_env *env, const tw_target *target, const tw_problem *problem,
                      const tw_layout *layout, tw_point *out, tw_str *why) {
    tw_point best = {0};
    tw_str declined = {0};
    const tw_template *tmpl;
    for (int i = 0; (tmpl = env->row(env->user, i)); i++) {
        const char *reason = tw_template_declines(tmpl, target, problem, layout);
        if (reason) {
            tw_str_add(&declined, "%s: %s\n", tmpl->name, reason);
            continue;
        }
        tw_point point = {tmpl, {0}, 0};
        tmpl->guess(target, problem, &point.config);
        point.cost = tmpl->cost(target, problem, &point.config);
        if (!best.tmpl || point.cost < best.cost) best = point;
    }

    tw_status status = tw_str_ok(&declined);
    if (status == TW_OK && why) {
        tw_str_add_bytes(why, tw_str_text(&declined), declined.size);
        if (best.tmpl) add_slower(env, target, problem, layout, &best, why);
    }
    if (status == TW_OK && !best.tmpl) {
        tw_str text = {0};
        tw_problem_text(problem, &text);
        status = fail_declined(tw_str_text(&text), target, tw_str_text(&declined));
        tw_str_free(&text);
    }
    tw_str_free(&declined);
    if (status == TW_OK) *out = best;
    return status;
}

tw_status tw_guess(const tw_target *target, const tw_problem *problem, const tw_layout *layout,
                   const tw_template **tmpl, tw_config *config, tw_str *why) {
    tw_point point;
    TW_TRY(tw_guess_in(&tw_tune_env_real, target, problem, layout, &point, why));
    *tmpl = point.tmpl;
    *config = point.config;
    return TW_OK;
}
