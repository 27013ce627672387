/* Building and naming what is tested. */
#include "tools/subject.h"

#include "src/core/act.h"

tw_status subject_decide(tw_context *context, const tw_plan_request *request,
                         tw_decision *decision) {
    tw_status status = tw_plan_decide(context, request, decision);
    if (status != TW_UNSUPPORTED || request->tmpl) return status;
    *decision = (tw_decision){.origin = TW_ORIGIN_REFERENCE};
    return TW_OK;
}

tw_status subject_load(tw_context *context, const tw_template *tmpl, const tw_problem *problem,
                       const tw_config *config, tw_candidate *out) {
    tw_str object = {0};
    tw_status status = tw_plan_object(context, context->mode, tmpl, problem, config, &object);
    if (status == TW_OK)
        status = tw_candidate_load(tmpl, problem, config, object.text, object.size, out);
    tw_str_free(&object);
    return status;
}

const char *subject_declines(const tw_context *context, const tw_template *tmpl,
                             const tw_problem *problem) {
    tw_problem kernel = tw_kernel_problem(problem);
    const char *why = tmpl->layout->reject(&kernel);
    return why ? why : tmpl->reject_problem(&context->target, &kernel);
}

void subject_text(const tw_problem *p, tw_str *out) {
    if (p->M) tw_str_add(out, "M=%lld,", (long long)p->M);
    tw_str_add(out, "N=%lld,K=%lld,", (long long)p->N, (long long)p->K);
    if (p->x != TW_F32) tw_str_add(out, "x=%s,", tw_dtype_name(p->x));
    tw_str scheme = {0};
    tw_scheme_text(&p->scheme, &scheme);
    /* Plain weights have no other a than none. */
    if (tw_scheme_plain(&p->scheme))
        tw_str_add(out, "w=%s", tw_dtype_name(p->scheme.weight));
    else
        tw_str_add(out, "%s", tw_str_text(&scheme));
    tw_str_free(&scheme);
    if (p->y != p->x) tw_str_add(out, ",y=%s", tw_dtype_name(p->y));
    if (p->bias) tw_str_add(out, ",bias=%s", tw_dtype_name(p->bias));
    if (p->act) tw_str_add(out, ",act=%s", tw_act_name(p->act));
}
