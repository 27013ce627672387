/* tilewright demo: the main job on shapes that everybody knows: tune them, then start warm. */
#include <stdlib.h>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "tools/commands.h"
#include "tools/out.h"
#include "tools/tuning.h"

/* SmolLM2-135M and Llama-3.2-1B as GGUF Q4_1 stores them.  Output layers at M=1 only: of a prompt
 * one row of logits is wanted. */
#define SCHEME ",w=u4,g=32,s=f16,z=value,a=i8g32"
static const char *const problems[] = {
    "M=1,N=576,K=576" SCHEME,    "M=512,N=576,K=576" SCHEME,   "M=1,N=192,K=576" SCHEME,
    "M=512,N=192,K=576" SCHEME,  "M=1,N=1536,K=576" SCHEME,    "M=512,N=1536,K=576" SCHEME,
    "M=1,N=576,K=1536" SCHEME,   "M=512,N=576,K=1536" SCHEME,  "M=1,N=49152,K=576" SCHEME,
    "M=1,N=2048,K=2048" SCHEME,  "M=512,N=2048,K=2048" SCHEME, "M=1,N=512,K=2048" SCHEME,
    "M=512,N=512,K=2048" SCHEME, "M=1,N=8192,K=2048" SCHEME,   "M=512,N=8192,K=2048" SCHEME,
    "M=1,N=2048,K=8192" SCHEME,  "M=512,N=2048,K=8192" SCHEME, "M=1,N=128256,K=2048" SCHEME,
};

static const double DEFAULT_BUDGET_S = 30;

static int tune(const cli_args *args, const input *in) {
    static const tw_context_setup setup = {.access = TW_CACHE_WRITE};
    tw_context *context;
    tuning t;
    int code = input_context("cpu", args, TW_MODE_TUNE, &setup, &context);
    if (code) return code;
    double budget_s = args->budget_s > 0 ? args->budget_s : DEFAULT_BUDGET_S;
    if (!args->json)
        out_line(
            "Linear layers of SmolLM2-135M and Llama-3.2-1B in 4 bits, generated weights: tuning "
            "for %.0f s\non %s, target %s, %d threads.",
            budget_s, context->target.model, tw_target_isa(&context->target)->name,
            context->target.threads);
    code = tuning_run(context, in, args, budget_s, TUNING_ALL, &t);
    if (t.decided) tuning_table(&t);
    if (t.stopped)
        out_error("stopped; every measurement is kept: tilewright demo goes on from here");
    if (t.overrun)
        out_note("too busy or too slow a machine for %.0f s: what was left got the least of tuning",
                 budget_s);
    tuning_free(&t);
    tw_context_destroy(context);
    return code;
}

/* Plans from the cache alone.  The plans stay until all are there, as a process would keep them. */
static tw_status start_warm(tw_context *context, const input *in, tw_plan **plans) {
    for (int i = 0; i < in->count; i++) {
        tw_plan_request request = tw_plan_ask(context, &in->items[i].problem);
        TW_TRY(tw_plan_make(context, &request, &plans[i]));
    }
    return TW_OK;
}

static void report(const cli_args *args, const tw_stats *s, int count, double ns) {
    if (args->json) {
        out_json(json_pack("{s:i,s:f,s:I,s:I,s:I,s:b}", "kernels", count, "ready_ns", ns,
                           "choice_hits", s->choice_hits, "binary_hits", s->binary_hits, "compiles",
                           s->compiles, "llvm_opened", (int)s->compiler_opened));
        return;
    }
    out_line(
        "A second process: %d plans ready in %s, opening the cache included.  Decided from the "
        "cache: %lld,\nmachine code from the cache: %lld, compiled: %lld, LLVM opened: %s.",
        count, out_ns(ns).text, (long long)s->choice_hits, (long long)s->binary_hits,
        (long long)s->compiles, s->compiler_opened ? "yes" : "never");
}

static int warm(const cli_args *args, const input *in) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE};
    tw_plan **plans = (tw_plan **)calloc((size_t)in->count, sizeof *plans);
    tw_stats stats = TW_STATS_INIT;
    tw_context *context;
    int64_t start = tw_now_ns();
    int code = input_context("cpu", args, TW_MODE_CACHED_ONLY, &setup, &context);
    if (code) {
        free((void *)plans);
        return code;
    }
    tw_status status = plans ? start_warm(context, in, plans)
                             : tw_fail(TW_MEMORY, "plans: out of memory for %d", in->count);
    double ns = (double)(tw_now_ns() - start);
    if (status == TW_OK) status = tw_context_stats(context, &stats);
    if (status != TW_OK) {
        code = cli_failed();
    } else {
        report(args, &stats, in->count, ns);
        /* Warm means this and nothing less. */
        if (stats.compiles || stats.compiler_opened || stats.choice_hits < in->count) {
            out_error("demo: this start was not warm; tilewright demo fills the cache");
            code = CLI_FAILED;
        }
    }
    for (int i = 0; plans && i < in->count; i++) tw_plan_release(context, plans[i]);
    free((void *)plans);
    tw_context_destroy(context);
    return code;
}

static int run(const cli_args *args) {
    input in;
    int code = args->word_count
                   ? input_open(args->words[0], args, INPUT_BUCKETS, &in)
                   : input_texts(problems, (int)TW_COUNT(problems), INPUT_BUCKETS, &in);
    if (code) return code;
    code = (args->warm ? warm : tune)(args, &in);
    input_close(&in);
    return code;
}

static const cli_option options[] = {
    CLI_ROW_M,
    CLI_ROW_SCHEME,
    CLI_ROW("--budget", SECONDS, budget_s, "T",
            "time for tuning (30s); each problem gets at least what decides it"),
    CLI_ROW("--warm", FLAG, warm, "", "start from the cache alone, and prove it"),
    CLI_ROW_THREADS,
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_demo = {
    .name = "demo",
    .words = "[MODEL|PROBLEM|@FILE]",
    .summary = "The main job on well-known shapes: tune, then start warm",
    .about = "Without an argument: linear layers of SmolLM2-135M and Llama-3.2-1B.  Doing it again "
             "does\n"
             "only what is left to do.",
    .examples = "  tilewright demo && tilewright demo --warm\n"
                "  TW_CACHE=demo.db tilewright demo --budget 10s\n"
                "  tilewright demo model.gguf --warm",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
