/* tilewright plan: what would run for a problem, where that comes from, and why nothing else
 * does. */
#include <string.h>

#include "src/core/act.h"
#include "src/core/key.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/subject.h"

/* Every other kernel with the sentence in which it declines, or what speaks against it. */
static json_t *others(const tw_context *context, const tw_problem *problem,
                      const tw_decision *decision) {
    json_t *list = json_array();
    for (int i = 0; tw_template_row(i); i++) {
        const tw_template *t = tw_template_row(i);
        if (t == decision->tmpl) continue;
        const char *why = subject_declines(context, t, problem);
        json_t *row =
            json_pack("{s:s,s:b,s:s?}", "kernel", t->name, "takes_it", !why, "reason", why);
        if (!why) {
            tw_config config = {0};
            tw_problem bucket = tw_kernel_problem(problem); /* what guesses and costs are for */
            bucket.M = tw_bucket_rows(tw_bucket_index(problem->M));
            t->guess(&context->target, &bucket, &config);
            json_object_set_new(row, "estimated_ns",
                                json_real(t->cost(&context->target, &bucket, &config)));
        }
        json_array_append_new(list, row);
    }
    return list;
}

static tw_status print_json(const cli_args *args, tw_context *context,
                            const tw_plan_request *request, const tw_decision *d) {
    tw_str text = {0}, config = {0}, first = {0};
    tw_key key;
    tw_problem kernel = tw_kernel_problem(request->problem);
    tw_problem_text(request->problem, &text);
    tw_act_explain(&request->problem->scheme, &first);
    if (d->tmpl) tw_config_text(&d->config, &config);
    tw_status status = tw_choice_key(&kernel, tw_bucket_index(kernel.M), &context->target, &key);
    if (status == TW_OK) {
        out_json(json_pack(
            "{s:s,s:s,s:s?,s:s,s:i,s:s?,s:s,s:s,s:f,s:s,s:s,s:o}", "problem", tw_str_text(&text),
            "device", args->words[0], "first", first.size ? tw_str_text(&first) : NULL, "kernel",
            d->tmpl ? d->tmpl->name : "reference", "version", d->tmpl ? (int)d->tmpl->version : 0,
            "layout", d->tmpl ? d->tmpl->layout->name : NULL, "config", tw_str_text(&config),
            "origin", tw_origin_text(d->origin), "median_ns", d->median_ns, "key",
            tw_str_text(&key.text), "digest", key.digest, "others",
            others(context, request->problem, d)));
        tw_key_free(&key);
    }
    tw_str_free(&text);
    tw_str_free(&config);
    tw_str_free(&first);
    return status;
}

static tw_status print_text(const cli_args *args, tw_context *context,
                            const tw_plan_request *request, const tw_decision *decision) {
    tw_str text = {0};
    (void)args;
    tw_status status = tw_plan_explain(context, request, decision, &text);
    if (status == TW_OK) out_bytes(tw_str_text(&text), strlen(tw_str_text(&text)));
    tw_str_free(&text);
    return status;
}

static int run(const cli_args *args) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE, .foreign = true};
    tw_problem problem;
    tw_context *context;
    tw_config config;
    int code = input_problem(args->words[1], true, &problem);
    if (!code) code = input_context(args->words[0], args, TW_MODE_DEFAULT, &setup, &context);
    if (code) return code;

    tw_plan_request request = tw_plan_ask(context, &problem);
    tw_decision decision;
    code = input_forced(args, &request, &config);
    if (!code) {
        tw_status status = subject_decide(context, &request, &decision);
        if (status == TW_OK)
            status = (args->json ? print_json : print_text)(args, context, &request, &decision);
        if (status != TW_OK) code = cli_failed();
    }
    tw_context_destroy(context);
    return code;
}

static const cli_option options[] = {
    CLI_ROW_KERNEL, CLI_ROW_CONFIG, CLI_ROW_PLAN_THREADS, CLI_ROW_JSON, CLI_ROW_HELP,
};

const cli_command cmd_plan = {
    .name = "plan",
    .words = "DEV PROBLEM",
    .summary = "What would run for a problem, and why the other kernels would not",
    .about = "Nothing is measured or stored.  DEV may be a target that this CPU cannot run.",
    .examples = "  tilewright plan cpu M=16,N=4096,K=4096,w=u4,g=32,s=f16,z=value,a=i8g32\n"
                "  tilewright plan cpu:avx512vnni M=1,N=4096,K=4096,w=i8,a=i8 --json\n"
                "  tilewright plan cpu M=1,N=64,K=64,w=u4,g=32 --kernel cpu.dq_gemm",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
