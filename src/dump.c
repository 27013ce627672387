/* Introspection: which kernel a linear runs for some M, and what it looks like. */
#include <stdio.h>
#include <string.h>

#include "codegen/cpu/compile.h"
#include "src/base/status.h"
#include "src/check.h"
#include "src/core/act.h"
#include "src/linear.h"

static tw_status check_asked(const tw_linear *linear, int64_t M) {
    if (!linear) return tw_fail(TW_INVALID, "linear: NULL, must be given");
    return M < 1 ? tw_fail(TW_INVALID, "M: %lld, must be positive", (long long)M) : TW_OK;
}

tw_status tw_linear_plan(tw_linear *linear, int64_t M, tw_plan_info *out) {
    tw_plan_info info = TW_PLAN_INFO_INIT;
    TW_TRY(check_asked(linear, M));
    tw_binding *b = tw_linear_bound(linear, tw_bucket_index(M));
    if (!b) TW_TRY(tw_linear_bind_now(linear, tw_bucket_index(M), &b));
    tw_origin origin = b->impl ? TW_ORIGIN_REGISTERED : b->plan->decision.origin;
    snprintf(info.origin, sizeof info.origin, "%s", tw_origin_text(origin));
    if (b->impl) {
        snprintf(info.kernel, sizeof info.kernel, "%s", b->impl->name);
        if (b->contest) info.median_ns = b->contest->median_ns;
        return tw_struct_write("out", &info, sizeof info, out);
    }
    const tw_decision *d = &b->plan->decision;
    tw_str config = {0};
    tw_config_text(&d->config, &config);
    tw_status status = tw_str_ok(&config);
    snprintf(info.kernel, sizeof info.kernel, "%s", d->tmpl ? d->tmpl->name : "reference");
    snprintf(info.config, sizeof info.config, "%s", tw_str_text(&config));
    info.median_ns = d->median_ns;
    tw_str_free(&config);
    return status == TW_OK ? tw_struct_write("out", &info, sizeof info, out) : status;
}

/* ---- dumps ---- */

typedef struct dump_call {
    tw_linear *linear;
    tw_problem problem, kernel_problem; /* of the bucket */
    const tw_binding *binding;
    const tw_decision *decision; /* NULL for a registered implementation */
    tw_str *out;
} dump_call;

static tw_status add_key_line(tw_status made, tw_key *key, tw_str *out) {
    if (made != TW_OK) return made;
    tw_str_add(out, "%s\n", tw_str_text(&key->text));
    tw_key_free(key);
    return TW_OK;
}

/* The decision's key, and the machine code's where there is any. */
static tw_status dump_key(const dump_call *d) {
    const tw_target *target = &d->linear->context->target;
    const tw_problem *p = &d->kernel_problem;
    tw_key key;
    TW_TRY(add_key_line(tw_choice_key(p, tw_bucket_index(p->M), target, &key), &key, d->out));
    if (!d->decision || !d->decision->tmpl) return TW_OK;
    const tw_template *t = d->decision->tmpl;
    return add_key_line(tw_binary_key(p, t->name, t->version, &d->decision->config, target,
                                      tw_cpu_compiler(), &key),
                        &key, d->out);
}

/* How an implementation of priority 0 did beside a kernel of ours. */
static void add_contest(const tw_binding *b, tw_str *out) {
    const tw_contest *c = b->contest;
    if (c->won) {
        tw_str_add(out, "measured %.3f us, spread %.3f us, error %.2e; faster than %s\n",
                   c->median_ns / 1e3, c->spread_ns / 1e3, c->error, b->plan->decision.tmpl->name);
        return;
    }
    tw_str_add(out, "beside   %s version %u: ", b->rival->row.name, b->rival->row.version);
    if (c->median_ns > 0) tw_str_add(out, "%.3f us, ", c->median_ns / 1e3);
    tw_str_add(out, "%s\n", c->decided ? "not used" : "not measured yet");
}

static tw_status dump_explain(const dump_call *d) {
    const tw_binding *b = d->binding;
    if (b->impl) {
        const tw_linear_impl *row = &b->impl->row;
        tw_str_add(d->out, "kernel   %s version %u, registered with priority %d\n", row->name,
                   row->version, row->priority);
        if (b->contest) add_contest(b, d->out);
        return TW_OK;
    }
    if (b->contest) add_contest(b, d->out);
    if (d->binding->plan->reason[0]) tw_str_add(d->out, "reason   %s\n", d->binding->plan->reason);
    tw_plan_request request = tw_plan_ask(d->linear->context, &d->problem);
    request.layout = d->linear->layout;
    return tw_plan_explain(d->linear->context, &request, d->decision, d->out);
}

static tw_status dump_code(const dump_call *d, tw_dump what) {
    static const tw_code_kind kinds[] = {
        [TW_DUMP_IR] = TW_CODE_IR, [TW_DUMP_ASM] = TW_CODE_ASM, [TW_DUMP_TRACE] = TW_CODE_TRACE};
    tw_context *c = d->linear->context;
    if (!d->decision || !d->decision->tmpl)
        return tw_fail(TW_UNSUPPORTED, "what: %d, but %s has no generated code", (int)what,
                       d->decision ? "the reference" : d->binding->impl->name);
    const tw_template *t = d->decision->tmpl;
    if (what == TW_DUMP_OBJECT)
        return tw_plan_object(c, c->mode, t, &d->problem, &d->decision->config, d->out);
    if (c->mode == TW_MODE_CACHED_ONLY && what != TW_DUMP_TRACE)
        return tw_fail(TW_UNSUPPORTED, "what: %d, needs the compiler, and CACHED_ONLY uses none",
                       (int)what);
    return tw_template_compile(t, &d->kernel_problem, &d->decision->config, &c->target, kinds[what],
                               d->out);
}

static tw_status dump(const dump_call *d, tw_dump what) {
    if (what == TW_DUMP_KEY) return dump_key(d);
    return what == TW_DUMP_EXPLAIN ? dump_explain(d) : dump_code(d, what);
}

tw_status tw_linear_dump(tw_linear *linear, int64_t M, tw_dump what, char *buf, size_t size,
                         size_t *needed) {
    if ((unsigned)what < TW_DUMP_KEY || (unsigned)what > TW_DUMP_EXPLAIN)
        return tw_fail(TW_INVALID, "what: %d, is no dump", (int)what);
    if (!needed || (size && !buf))
        return tw_fail(TW_INVALID, "%s: NULL, must be given", needed ? "buf" : "needed");
    TW_TRY(check_asked(linear, M));
    tw_binding *b = tw_linear_bound(linear, tw_bucket_index(M));
    if (!b) TW_TRY(tw_linear_bind_now(linear, tw_bucket_index(M), &b));
    tw_str text = {0};
    dump_call d = {.linear = linear,
                   .problem = linear->problem,
                   .binding = b,
                   .decision = b->impl ? NULL : &b->plan->decision,
                   .out = &text};
    d.problem.M = tw_bucket_rows(tw_bucket_index(M));
    d.kernel_problem = tw_kernel_problem(&d.problem);
    tw_status status = dump(&d, what);
    if (status == TW_OK) status = tw_str_ok(&text);
    if (status == TW_OK) {
        if (size) memcpy(buf, tw_str_text(&text), text.size < size ? text.size : size);
        if (text.size < size) buf[text.size] = 0;
        *needed = text.size;
    }
    tw_str_free(&text);
    return status;
}
