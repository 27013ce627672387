/* tilewright bench: how fast a plan runs, as a share of what this machine can do at this moment. */
#include <math.h>
#include <stdlib.h>

#include "autotune/limits.h"
#include "autotune/workload.h"
#include "src/base/clock.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/subject.h"

/* A share above this cannot be: a limit was measured too low. */
static const double MOST_SHARE = 1.02;
enum { DEFAULT_ROUNDS = 3, MAX_ROUNDS = 1000, ROUND_NS = 200000000 };

typedef struct bench {
    tw_context *context;
    const cli_args *args;
    tw_limits *limits;
    int rounds, failures, shown;
    out_table table;
} bench;

typedef struct bench_row {
    const input_item *item;
    tw_decision decision;
    tw_timing timing; /* of the round reported; least and samples of all */
    double nmse, limit_gops, limit_gbps, share;
    bool cold;
    const char *wrong; /* what verification said; NULL when it agrees */
} bench_row;

static double better(double a, double b) { return a > b ? a : b; }

typedef struct limits {
    double gops, gbps;
} limits;

static tw_status measure_limits(bench *b, const tw_problem *problem, const tw_packed *packed,
                                limits *out) {
    TW_TRY(tw_limits_gops(b->limits, problem, &out->gops));
    return tw_limits_gbps(b->limits, packed->copies, packed->stride, packed->count, &out->gbps);
}

typedef struct bench_round {
    tw_timing timing;
    limits limits;
    double share;
} bench_round;

static int by_share(const void *left, const void *right) {
    double a = ((const bench_round *)left)->share, b = ((const bench_round *)right)->share;
    return (a > b) - (a < b);
}

/* One round; *last is what the limits were before it, and then after it.  Its limits are the better
 * of both. */
static tw_status measure_round(bench *b, tw_workload *workload, const tw_candidate *candidate,
                               limits *last, bench_round *out) {
    const tw_problem *p = &workload->problem;
    limits after;
    TW_TRY(tw_measure(workload, b->context->threads, candidate, 1, tw_now_ns() + ROUND_NS,
                      &out->timing));
    TW_TRY(measure_limits(b, p, &workload->packed[0], &after));
    out->limits = (limits){better(last->gops, after.gops), better(last->gbps, after.gbps)};
    out->share = tw_limits_floor_ns(p, out->limits.gops, out->limits.gbps) / out->timing.median_ns;
    *last = after;
    return TW_OK;
}

/* Limits, kernel, limits, kernel, limits: what drifts drifts for both.  What is reported is the
 * round with the median share (of two the lower): a time and the limits of the same moment. */
static tw_status measure_rounds(bench *b, tw_workload *workload, const tw_candidate *candidate,
                                bench_row *row) {
    bench_round rounds[MAX_ROUNDS];
    limits last;
    const tw_packed *packed = &workload->packed[0];
    row->cold = packed->count > 1 || workload->cold_bytes;
    TW_TRY(measure_limits(b, &row->item->problem, packed, &last));
    for (int i = 0; i < b->rounds; i++)
        TW_TRY(measure_round(b, workload, candidate, &last, &rounds[i]));
    double least = INFINITY;
    int samples = 0;
    for (int i = 0; i < b->rounds; i++) {
        least = fmin(least, rounds[i].timing.min_ns);
        samples += rounds[i].timing.samples;
    }
    qsort(rounds, (size_t)b->rounds, sizeof *rounds, by_share);
    const bench_round *middle = &rounds[(b->rounds - 1) / 2];
    row->timing = middle->timing;
    row->timing.min_ns = least;
    row->timing.samples = samples;
    row->limit_gops = middle->limits.gops;
    row->limit_gbps = middle->limits.gbps;
    row->share = middle->share;
    return TW_OK;
}

/* ---- the reference, where no kernel takes the problem ---- */

static tw_status run_reference(void *user, const tw_problem *problem, const tw_canonical *w,
                               const void *x, int64_t x_stride, void *y, int64_t y_stride,
                               int64_t M) {
    (void)user;
    tw_problem truth = tw_template_truth(NULL, problem);
    tw_reference_linear(&truth, w, x, x_stride, y, y_stride, M);
    return TW_OK;
}

static const char *kernel_name(const bench_row *row) {
    return row->decision.tmpl ? row->decision.tmpl->name : "reference";
}

/* The reference needs no building, and no checking: it is what kernels are checked against. */
static tw_status load(bench *b, const bench_row *row, tw_rival *reference, tw_candidate *out) {
    const tw_decision *d = &row->decision;
    if (d->tmpl) return subject_load(b->context, d->tmpl, &row->item->problem, &d->config, out);
    out_note("%s: no kernel takes it, so a layer runs the reference, on one thread; tilewright "
             "plan says why",
             row->item->text);
    *reference = (tw_rival){.run = run_reference};
    *out = (tw_candidate){.rival = reference};
    return TW_OK;
}

static tw_status measure(bench *b, const tw_plan_request *forced, bench_row *row) {
    static const tw_weights_state states[] = {TW_WEIGHTS_AUTO, TW_WEIGHTS_COLD, TW_WEIGHTS_HOT};
    tw_plan_request request = tw_plan_ask(b->context, &row->item->problem);
    request.tmpl = forced->tmpl;
    request.config = forced->config;
    TW_TRY(subject_decide(b->context, &request, &row->decision));
    tw_rival reference;
    tw_candidate candidate;
    tw_workload *workload;
    tw_packed *packed;
    const tw_template *tmpl = row->decision.tmpl;
    TW_TRY(load(b, row, &reference, &candidate));
    tw_status status = tw_workload_create(&row->item->problem, NULL, &b->context->target,
                                          states[b->args->weights], &workload);
    if (status == TW_OK) {
        status = tw_workload_pack(workload, tw_candidate_layout(&candidate), &packed);
        if (status == TW_OK) status = measure_rounds(b, workload, &candidate, row);
        if (status == TW_OK && tmpl &&
            tw_verify(workload, b->context->threads, &candidate, SUBJECT_ROWS, &row->nmse) != TW_OK)
            row->wrong = tw_error_message();
        tw_workload_destroy(workload);
    }
    tw_candidate_unload(&candidate);
    return status;
}

static void print(bench *b, const bench_row *row) {
    const tw_problem *p = &row->item->problem;
    double ns = row->timing.median_ns;
    double gops = 2.0 * (double)p->M * (double)p->N * (double)p->K / ns;
    double gbps = (double)tw_problem_weight_bytes(p) / ns;
    tw_str config = {0}, text = {0};
    if (row->decision.tmpl) tw_config_text(&row->decision.config, &config);
    subject_text(p, &text);
    if (b->args->json)
        out_json(json_pack("{s:s,s:I,s:s,s:s,s:i,s:s,s:s,s:s,s:s,s:f,s:f,s:f,s:i,s:f,s:f,s:f,s:f,s:"
                           "f,s:s,s:f,s:s?}",
                           "problem", row->item->text, "count", row->item->count, "device",
                           b->args->words[0], "target", tw_target_isa(&b->context->target)->name,
                           "threads", b->context->target.threads, "weights",
                           row->cold ? "cold" : "hot", "kernel", kernel_name(row), "config",
                           tw_str_text(&config), "origin", tw_origin_text(row->decision.origin),
                           "median_ns", ns, "min_ns", row->timing.min_ns, "p90_ns",
                           row->timing.p90_ns, "samples", row->timing.samples, "gops", gops,
                           "weight_gbps", gbps, "nmse", row->nmse, "limit_gops", row->limit_gops,
                           "limit_gbps", row->limit_gbps, "limit", tw_limits_class(b->limits, p),
                           "fraction_of_limit", row->share, "wrong", row->wrong));
    else
        out_table_row(&b->table, "%s\t%s %s\t%s\t%s\t%s\t%.4g\t%.3g\t%.2g\t%.4g\t%.3g\t%.1f %%",
                      tw_str_text(&text), kernel_name(row), tw_str_text(&config),
                      tw_origin_text(row->decision.origin), row->cold ? "cold" : "hot",
                      out_ns(ns).text, gops, gbps, row->nmse, row->limit_gops, row->limit_gbps,
                      row->share * 100);
    b->shown++;
    tw_str_free(&config);
    tw_str_free(&text);
}

static void bench_item(bench *b, const tw_plan_request *forced, const input_item *item) {
    bench_row row = {.item = item};
    tw_status status = measure(b, forced, &row);
    if (status != TW_OK) {
        out_error("%s: %s", item->text, tw_error_message());
        b->failures++;
        return;
    }
    print(b, &row);
    if (row.wrong) {
        out_error("%s: the result is wrong, the time means nothing: %s", item->text, row.wrong);
        b->failures++;
    }
    if (row.share > MOST_SHARE) {
        out_error(
            "%s: %.3f of the limit: this bench is wrong, not the kernel fast; the limits were "
            "disturbed, run it again",
            item->text, row.share);
        b->failures++;
    }
}

static int run_items(bench *b, const tw_plan_request *forced, const input *in) {
    if (tw_limits_create(&b->context->target, b->context->threads, &b->limits) != TW_OK)
        return cli_failed();
    if (!b->args->json)
        out_table_begin(
            &b->table, "llllrrrrrrr",
            "problem\tkernel and config\torigin\tweights\tmedian\tGOPS\tGB/s\tnmse\tlimit "
            "GOPS\tlimit GB/s\tof limit");
    for (int i = 0; i < in->count; i++) {
        out_progress((double)i / in->count, -1, in->items[i].text);
        bench_item(b, forced, &in->items[i]);
    }
    if (!b->args->json && b->shown) out_table_end(&b->table);
    tw_str_free(&b->table.cells);
    tw_limits_destroy(b->limits);
    return b->failures ? CLI_FAILED : CLI_OK;
}

static int run(const cli_args *args) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE};
    bench b = {.args = args, .rounds = args->repeat ? (int)args->repeat : DEFAULT_ROUNDS};
    tw_plan_request forced = {0};
    tw_config config;
    input in;
    if (args->repeat > MAX_ROUNDS) {
        out_error("--repeat: %lld, at most %d", (long long)args->repeat, MAX_ROUNDS);
        return CLI_USAGE;
    }
    int code = input_forced(args, &forced, &config);
    if (!code) code = input_open(args->words[1], args, INPUT_ROWS, &in);
    if (code) return code;
    code = input_context(args->words[0], args, TW_MODE_DEFAULT, &setup, &b.context);
    if (!code) {
        code = run_items(&b, &forced, &in);
        tw_context_destroy(b.context);
    }
    input_close(&in);
    return code;
}

static const cli_option options[] = {
    CLI_ROW_M,
    CLI_ROW_SCHEME,
    CLI_ROW("--weights", CHOICE, weights, "cold|hot",
            "from memory, or from the caches (cold up to 64 rows)"),
    CLI_ROW("--repeat", COUNT, repeat, "N", "rounds of limits and kernel, one after the other (3)"),
    CLI_ROW_KERNEL,
    CLI_ROW_CONFIG,
    CLI_ROW_THREADS,
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_bench = {
    .name = "bench",
    .words = "DEV MODEL|PROBLEM|@FILE",
    .summary = "How fast it runs, as a share of the machine's limits measured in the same run",
    .about = "Runs what a plan gives: the tuned choice where the cache has one, else the guess,\n"
             "or the reference where no kernel takes the problem.\n"
             "Quantizing x is part of the time.  limit GOPS is the best rate of the operation's "
             "class on\n"
             "the target in force, limit GB/s the best of several read loops over weights of that "
             "size;\n"
             "of limit is the time that the limits allow over the median.  GB/s counts the bytes "
             "of the\n"
             "weights in canonical form.",
    .examples =
        "  tilewright bench cpu M=512,N=4096,K=4096,w=i4,g=128,s=f16,a=i8 --threads 1\n"
        "  tilewright bench cpu model.gguf --m 1 --weights cold --json\n"
        "  tilewright bench cpu:avx2 M=64,N=4096,K=4096,w=u4,g=32,a=i8 --kernel cpu.int_gemm",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
