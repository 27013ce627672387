/* tilewright tune: measures what is best for each problem and stores it. */
#include "tools/commands.h"
#include "tools/out.h"
#include "tools/tuning.h"

static const double DEFAULT_BUDGET_S = 30;

static int run(const cli_args *args) {
    /* What exists to write fails when it cannot. */
    static const tw_context_setup setup = {.access = TW_CACHE_WRITE};
    tw_context *context;
    tuning t;
    input in;
    int code = input_open(args->words[1], args, INPUT_BUCKETS, &in);
    if (code) return code;
    code = input_context(args->words[0], args, TW_MODE_TUNE, &setup, &context);
    if (!code) {
        code =
            tuning_run(context, &in, args, args->budget_s > 0 ? args->budget_s : DEFAULT_BUDGET_S,
                       TUNING_IN_TIME, &t);
        if (t.decided) tuning_table(&t);
        int left = in.count - t.decided - t.failed;
        double least_s = 0;
        const tuning_row *over = t.stopped || !t.overrun ? NULL : tuning_too_short(&t, &least_s);
        if (t.disturbed)
            out_error("%d of %d problems were tuned while other work ran on the machine: their "
                      "times say little; with --again, on a quiet machine, they are tuned anew",
                      t.disturbed, in.count);
        if (over)
            out_error("%d of %d problems left: a budget of %s is too short for %s: at least about "
                      "%s",
                      left, in.count, out_ns(t.budget_s * 1e9).text, over->item->text,
                      out_ns(least_s * 1e9).text);
        else if (t.stopped || t.overrun)
            out_error("%s with %d of %d problems left; every measurement is kept: the same command "
                      "goes on from here",
                      t.stopped ? "stopped" : "out of time", left, in.count);
        tuning_free(&t);
        tw_context_destroy(context);
    }
    input_close(&in);
    return code;
}

static const cli_option options[] = {
    CLI_ROW_M,
    CLI_ROW_SCHEME,
    CLI_ROW("--budget", SECONDS, budget_s, "T", "time for the whole run: 30s, 500ms, 2m (30s)"),
    CLI_ROW("--again", FLAG, again, "",
            "also what is decided already; its measurements still count"),
    CLI_ROW("--exhaustive", FLAG, exhaustive, "",
            "every legal config, budget permitting; implies --again"),
    CLI_ROW_THREADS,
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_tune = {
    .name = "tune",
    .words = "DEV MODEL|PROBLEM|@FILE",
    .summary = "Measures what is best for each problem and stores it in the cache",
    .about =
        "Every measurement is stored as it is made: after Ctrl-C or kill the same command goes on\n"
        "where it was.  M is rounded up to its bucket (1, 2, 4 ... 8192).  The budget is shared "
        "over\n"
        "the problems by their size; where it may be too short for all, the lightest come first "
        "and\n"
        "the rest is left to the next run.  Exit code 0 when every problem is decided.",
    .examples =
        "  tilewright tune cpu model.gguf\n"
        "  tilewright tune cpu model.gguf --m 1,512 --budget 2m\n"
        "  tilewright tune cpu:avx2 M=512,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8 --budget 5s\n"
        "  tilewright tune cpu @problems.txt --threads 1 --json",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
