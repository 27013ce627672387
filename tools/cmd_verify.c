/* tilewright verify: every kernel that takes a problem against the oracle. */
#include <string.h>

#include "autotune/workload.h"
#include "src/base/status.h"
#include "src/check.h"
#include "src/core/act.h"
#include "tools/commands.h"
#include "tools/fixtures/fixtures.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/subject.h"

/* Generated data leaves no defect unseen; a model's own weights are what users run. */
typedef enum weights { WEIGHTS_GENERATED, WEIGHTS_MODEL } weights;
static const char *const weights_text[] = {"generated", "model"};

typedef struct verification {
    tw_model *model; /* NULL for a PROBLEM */
    weights weights; /* of the workload in work */
    tw_context *context;
    const cli_args *args;
    tw_plan_request forced;
    int checks, failures;
} verification;

static void print(verification *v, const input_item *item, const tw_template *tmpl,
                  const tw_config *config, tw_status status, double error) {
    tw_str text = {0};
    const char *why = status == TW_OK ? NULL : tw_error_message();
    tw_config_text(config, &text);
    if (v->args->json)
        out_json(json_pack("{s:s,s:s,s:s,s:i,s:s,s:b,s:s,s:s,s:f,s:s?}", "problem", item->text,
                           "device", v->args->words[0], "kernel", tmpl->name, "version",
                           (int)tmpl->version, "config", tw_str_text(&text), "ok", !why, "weights",
                           weights_text[v->weights], "rows", v->args->full ? "all" : "sample",
                           "nmse", why ? -1.0 : error, "error", why));
    else if (why)
        out_line("FAILED  %s  %s %s (%s weights)\n        %s", item->text, tmpl->name,
                 tw_str_text(&text), weights_text[v->weights], why);
    else
        out_line("ok      %s  %s %s  nmse %.2g%s", item->text, tmpl->name, tw_str_text(&text),
                 error, v->weights == WEIGHTS_MODEL ? ", the model's weights" : "");
    tw_str_free(&text);
}

/* One kernel at --config or its guess. */
static void verify_kernel(verification *v, const input_item *item, const tw_template *tmpl,
                          tw_workload *workload) {
    const tw_problem *problem = &item->problem, kernel = tw_kernel_problem(problem);
    tw_config config = {0};
    double error = 0;
    if (v->forced.config)
        config = *v->forced.config;
    else
        tmpl->guess(&v->context->target, &kernel, &config);

    tw_candidate candidate;
    tw_status status = subject_load(v->context, tmpl, problem, &config, &candidate);
    if (status == TW_OK) {
        int rows = v->args->full ? 0 : SUBJECT_ROWS;
        status = tw_verify(workload, v->context->threads, &candidate, rows, &error);
        tw_candidate_unload(&candidate);
    }
    v->checks++;
    v->failures += status != TW_OK;
    print(v, item, tmpl, &config, status, error);
}

/* NaN and infinities make every comparison fail, and no kernel is to blame. */
static tw_status check_weights(const tw_problem *p, const tw_data *data) {
    const tw_scheme *s = &p->scheme;
    int64_t rows = tw_scale_rows(s, p->N), groups = tw_groups(s, p->K);
    if (tw_scheme_plain(s)) return tw_check_finite("weight", data->weight, s->weight, p->N, p->K);
    TW_TRY(tw_check_finite("scales", data->scales, s->scale, rows, groups));
    if (s->zero_mode != TW_ZERO_VALUE) return TW_OK;
    return tw_check_finite("zeros", data->zeros, s->scale, rows, groups);
}

/* Canonical tensors into those of the workload, which has not packed them yet.  Of a tensor that
 * stacks several layers the first one's rows. */
static tw_status take_weights(tw_workload *workload, const tw_model *model, int32_t tensor) {
    tw_data *data = &workload->data;
    tw_canonical_tensor t;
    TW_TRY(tw_model_read(model, tensor, &t));
    bool fits = t.weight_bytes >= data->weight_bytes && t.scale_bytes >= data->scale_bytes &&
                t.zero_bytes >= data->zero_bytes;
    if (fits) {
        memcpy(data->weight, t.weight, data->weight_bytes);
        if (data->scale_bytes) memcpy(data->scales, t.scales, data->scale_bytes);
        if (data->zero_bytes) memcpy(data->zeros, t.zeros, data->zero_bytes);
        if (data->lut) memcpy(data->lut, t.lut, TW_LUT4_SIZE * sizeof *t.lut);
    }
    tw_canonical_tensor_free(&t);
    if (!fits) return tw_fail(TW_INTERNAL, "tensor %d: smaller than its problem", tensor);
    tw_status status = check_weights(&workload->problem, data);
    if (status == TW_OK) return TW_OK;
    return tw_fail_within(status, "%s: tensor '%s'", tw_model_file_of(model, tensor),
                          tw_model_tensor_at(model, tensor)->name);
}

/* Every kernel that takes the problem, on one set of weights.  why: what the last one said. */
static tw_status verify_kernels(verification *v, const input_item *item, const char **why) {
    tw_workload *workload;
    TW_TRY(
        tw_workload_create(&item->problem, NULL, &v->context->target, TW_WEIGHTS_HOT, &workload));
    tw_status status = TW_OK;
    if (v->weights == WEIGHTS_MODEL) status = take_weights(workload, v->model, item->tensor);
    for (int i = 0; tw_template_row(i) && status == TW_OK; i++) {
        const tw_template *tmpl = tw_template_row(i);
        if (v->forced.tmpl && v->forced.tmpl != tmpl) continue;
        *why = subject_declines(v->context, tmpl, &item->problem);
        if (!*why) verify_kernel(v, item, tmpl, workload);
    }
    tw_workload_destroy(workload);
    return status;
}

/* No kernel was asked for and none takes it: there is nothing that could be wrong. */
static void print_none(const verification *v, const input_item *item) {
    static const char note[] = "no kernel takes it, so a layer runs the reference, which kernels "
                               "are checked against; tilewright plan says why";
    if (v->args->json)
        out_json(json_pack("{s:s,s:s,s:n,s:n,s:s}", "problem", item->text, "device",
                           v->args->words[0], "kernel", "ok", "note", note));
    else
        out_note("%s: %s", item->text, note);
}

static void verify_item(verification *v, const input_item *item) {
    const char *why = "";
    int before = v->checks;
    weights last = v->model && item->tensor >= 0 ? WEIGHTS_MODEL : WEIGHTS_GENERATED;
    for (v->weights = WEIGHTS_GENERATED; v->weights <= last; v->weights++)
        if (verify_kernels(v, item, &why) != TW_OK) {
            cli_failed();
            v->failures++;
            return;
        }
    if (v->checks > before) return;
    if (!v->forced.tmpl) {
        print_none(v, item);
        return;
    }
    v->failures++;
    out_error("%s: %s declines: %s", item->text, v->forced.tmpl->name, why);
}

static int run(const cli_args *args) {
    static const tw_context_setup setup = {.access = TW_CACHE_USE};
    verification v = {.args = args};
    tw_config config;
    input in;
    if (args->fixtures) {
        if (!args->word_count) return fixtures_verify(args->fixtures, args->json);
        out_error("verify: \"%s\", --fixtures takes no device and no problem", args->words[0]);
        return CLI_USAGE;
    }
    if (args->word_count < 2) {
        out_error("verify: %s is missing (or --fixtures DIR)",
                  args->word_count ? "MODEL|PROBLEM|@FILE" : "DEV");
        return CLI_USAGE;
    }
    int code = input_forced(args, &v.forced, &config);
    if (!code) code = input_open(args->words[1], args, INPUT_ROWS, &in);
    if (code) return code;
    code = input_context(args->words[0], args, TW_MODE_DEFAULT, &setup, &v.context);
    if (!code) {
        v.model = in.model;
        for (int i = 0; i < in.count; i++) {
            out_progress((double)i / in.count, -1, in.items[i].text);
            verify_item(&v, &in.items[i]);
        }
        if (!args->json)
            out_line("%d problem%s, %d check%s, %d failure%s", in.count, in.count == 1 ? "" : "s",
                     v.checks, v.checks == 1 ? "" : "s", v.failures, v.failures == 1 ? "" : "s");
        if (v.failures) code = CLI_FAILED;
        tw_context_destroy(v.context);
    }
    input_close(&in);
    return code;
}

static const cli_option options[] = {
    CLI_ROW_M,
    CLI_ROW_SCHEME,
    CLI_ROW("--kernel", TEXT, kernel, "K", "this kernel alone"),
    CLI_ROW("--config", TEXT, config, "C", "at this config instead of the kernel's guess"),
    CLI_ROW("--full", FLAG, full, "", "all rows of M, not 8 of them, first and last included"),
    CLI_ROW("--fixtures", NAME, fixtures, "DIR",
            "instead: recorded cases of other projects' quantization, every bit of them"),
    CLI_ROW_THREADS,
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_verify = {
    .name = "verify",
    .words = "[DEV] [MODEL|PROBLEM|@FILE]",
    .summary = "Every kernel that takes a problem, checked against the oracle",
    .about =
        "The oracle dequantizes in f32 and adds in double, on the same codes.  Data is generated "
        "to\n"
        "leave no defect unseen: edge values, zeros off the middle, scales that differ by group.\n"
        "Then, where a model holds them, its own weights, which must be finite.\n"
        "nmse is the largest of a row.  Exit code 1 when any kernel disagrees; what no kernel "
        "takes\n"
        "is named and counts as nothing checked.",
    .examples = "  tilewright verify cpu M=7,N=100,K=1000,w=u4,g=128,s=f16,z=code,a=i8\n"
                "  tilewright verify cpu:avx2 model.gguf --m 1,33\n"
                "  tilewright verify cpu M=512,N=576,K=576,w=i8,a=i8 --kernel cpu.int_gemm --full\n"
                "  tilewright verify --fixtures tests/data/torchao",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
