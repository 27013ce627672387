/* tilewright shapes: the linear layers of a model, deduplicated and counted. */
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"

static void print_json(const tw_model_linear *linear, const char *scheme, bool names) {
    const tw_problem *p = &linear->problem;
    /* null: what the model leaves open, and what cannot be read. */
    const char *readable = p->scheme.weight == TW_NONE ? NULL : scheme;
    json_t *record = json_pack(
        "{s:o,s:I,s:I,s:s,s:s?,s:s,s:I,s:o}", "M", p->M ? json_integer(p->M) : json_null(), "K",
        p->K, "N", p->N, "dtype", linear->type, "scheme", readable, "bias", tw_dtype_name(p->bias),
        "count", linear->count, "name", out_json_text(linear->names[0]));
    if (names) {
        json_t *list = json_array();
        for (int32_t i = 0; i < linear->name_count; i++)
            json_array_append_new(list, out_json_text(linear->names[i]));
        json_object_set_new(record, "names", list);
    }
    out_json(record);
}

static void print_row(out_table *table, const tw_model_linear *linear, const char *scheme) {
    const tw_problem *p = &linear->problem;
    char m[24] = "M";
    if (p->M) snprintf(m, sizeof m, "%lld", (long long)p->M);
    out_table_row(table, "(%s, %lld, %lld)\t%lld\t%s\t%s\t%s\t%s", m, (long long)p->K,
                  (long long)p->N, (long long)linear->count, linear->type,
                  p->scheme.weight == TW_NONE ? "cannot be read yet" : scheme,
                  tw_dtype_name(p->bias), out_name(linear->names[0]).text);
}

static void print(const tw_model *model, const tw_model_linears *linears, const cli_args *args) {
    out_table table;
    int64_t count = 0;
    if (!args->json)
        out_table_begin(&table, "lrllll", "(M, K, N)\tcount\tdtype\tscheme\tbias\tfirst of them");
    for (int32_t i = 0; i < linears->count; i++) {
        const tw_model_linear *linear = &linears->items[i];
        tw_str scheme = {0};
        tw_scheme_text(&linear->problem.scheme, &scheme);
        count += linear->count;
        if (args->json)
            print_json(linear, tw_str_text(&scheme), args->names);
        else
            print_row(&table, linear, tw_str_text(&scheme));
        for (int32_t n = 1; args->names && !args->json && n < linear->name_count; n++)
            out_table_row(&table, "\t\t\t\t\t%s", out_name(linear->names[n]).text);
        tw_str_free(&scheme);
    }
    if (args->json) return;
    out_table_end(&table);
    const char *architecture = tw_model_architecture(model);
    out_line("%d different, %lld linear layers in all (%s%s%s)", linears->count, (long long)count,
             tw_model_kind_name(tw_model_kind_of(model)), *architecture ? ", " : "",
             out_name(architecture).text);
}

static int run(const cli_args *args) {
    tw_model *model;
    tw_model_linears linears;
    if (tw_model_open(args->words[0], NULL, &model) != TW_OK) return cli_failed();
    tw_status status = tw_model_linears_get(model, &linears);
    if (status == TW_OK) {
        print(model, &linears, args);
        tw_model_linears_free(&linears);
    }
    tw_model_close(model);
    return status == TW_OK ? CLI_OK : cli_failed();
}

static const cli_option options[] = {
    CLI_ROW("--names", FLAG, names, "", "every tensor's name, not only the first"),
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_shapes = {
    .name = "shapes",
    .words = "MODEL",
    .summary = "Every linear layer of a model as (M, K, N), deduplicated and counted",
    .about = "M stands for the rows of x, which the model does not decide.  A config.json alone is "
             "enough.",
    .examples = "  tilewright shapes SmolLM2-135M-Instruct-Q4_1.gguf\n"
                "  tilewright shapes all-MiniLM-L6-v2/ --names\n"
                "  tilewright shapes config.json --json",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
