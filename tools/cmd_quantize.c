/* tilewright quantize: a model's linear layers by a recipe and rules, into one file. */
#include <ctype.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <tilewright/model.h>

#include "src/base/clock.h"
#include "src/base/status.h"
#include "tools/commands.h"
#include "tools/interrupt.h"
#include "tools/out.h"

/* ---- rules ----------------------------------------------------------------------------------- */

typedef struct rule_list {
    char *text; /* what the rules point into */
    tw_quantize_rule *rules;
    int32_t count;
} rule_list;

static char *trimmed(char *text) {
    while (isspace((unsigned char)*text)) text++;
    size_t size = strlen(text);
    while (size && isspace((unsigned char)text[size - 1])) text[--size] = 0;
    return text;
}

/* "PATTERN RECIPE": the recipe is the last word. */
static bool read_rule(char *text, tw_quantize_rule *out) {
    char *recipe = text + strlen(text);
    while (recipe > text && !isspace((unsigned char)recipe[-1])) recipe--;
    if (recipe == text) return false;
    recipe[-1] = 0;
    *out = (tw_quantize_rule){trimmed(text), recipe};
    return *out->pattern;
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    tw_str text = {0};
    char piece[4096];
    if (!file) return NULL;
    while (!feof(file) && !ferror(file))
        tw_str_add_bytes(&text, piece, fread(piece, 1, sizeof piece, file));
    bool good = !ferror(file) && strlen(tw_str_text(&text)) == text.size; /* no NUL */
    char *copy = good ? strdup(tw_str_text(&text)) : NULL;
    fclose(file);
    tw_str_free(&text);
    return copy;
}

/* Rules by ';' or, from @FILE, one a line; # begins a comment there. */
static int read_rules(const char *given, rule_list *out) {
    bool file = *given == '@';
    out->text = file ? read_file(given + 1) : strdup(given);
    if (!out->text) {
        out_error("--filter: %s: cannot be read as text", given + file);
        return CLI_FAILED;
    }
    out->rules = calloc(strlen(out->text) + 1, sizeof *out->rules);
    if (!out->rules) return CLI_FAILED;
    char *rest = out->text, *line;
    while ((line = strsep(&rest, file ? "\n" : ";"))) {
        line = trimmed(line);
        if (!*line || (file && *line == '#')) continue;
        if (!read_rule(line, &out->rules[out->count++])) {
            out_error("--filter: \"%s\", expected PATTERN RECIPE", line);
            return CLI_USAGE;
        }
    }
    if (out->count) return CLI_OK;
    out_error("--filter: \"%s\", has no rule: expected PATTERN RECIPE", given);
    return CLI_USAGE;
}

/* ---- the report ------------------------------------------------------------------------------ */

/* Tensors of which the same is to be said. */
typedef struct group {
    tw_str key; /* cells of the table, by tabs */
    int64_t count;
    char *first;
} group;

typedef struct job {
    const cli_args *args;
    group *groups;
    int32_t group_count, tensors, quantized, short_groups, kept_linears;
    uint64_t source_bytes, bytes;
    double began;
} job;

static void shape_text(const tw_quantize_row *row, tw_str *out) {
    for (int32_t i = 0; i < row->ndim; i++)
        tw_str_add(out, "%s%lld", i ? " x " : "", (long long)row->shape[i]);
    if (!row->ndim) tw_str_add(out, "scalar");
}

static const char *outcome_text(const tw_quantize_row *row) {
    switch (row->outcome) {
    case TW_OUTCOME_QUANTIZED: return "quantized";
    case TW_OUTCOME_SHORT_GROUP: return "short last group";
    default: return "kept";
    }
}

static void print_json(const tw_quantize_row *row) {
    json_t *shape = json_array();
    for (int32_t i = 0; i < row->ndim; i++)
        json_array_append_new(shape, json_integer(row->shape[i]));
    out_json(json_pack("{s:o,s:o,s:b,s:s,s:s,s:s,s:s?,s:s?,s:o,s:I,s:I}", "tensor",
                       out_json_text(row->tensor), "shape", shape, "linear", row->is_linear,
                       "outcome", outcome_text(row), "from", row->from, "to", row->to, "recipe",
                       row->recipe, "rule", row->rule, "reason",
                       row->reason ? out_json_text(row->reason) : json_null(), "source_bytes",
                       (json_int_t)row->source_bytes, "bytes", (json_int_t)row->bytes));
}

static void add_to_groups(job *j, const tw_quantize_row *row) {
    tw_str key = {0};
    shape_text(row, &key);
    /* A reason may name its tensor: told apart by that, each would be a group. */
    tw_str_add(&key, "\t%s\t%s\t%s%s%s", row->from, row->to, outcome_text(row),
               row->reason ? ": " : "", row->reason ? out_name(row->reason).text : "");
    for (int32_t i = 0; i < j->group_count; i++)
        if (!strcmp(tw_str_text(&j->groups[i].key), tw_str_text(&key))) {
            j->groups[i].count++;
            tw_str_free(&key);
            return;
        }
    group *grown = realloc(j->groups, (size_t)(j->group_count + 1) * sizeof *grown);
    if (!grown) {
        tw_str_free(&key);
        return;
    }
    j->groups = grown;
    j->groups[j->group_count++] = (group){key, 1, strdup(row->tensor)};
}

static void on_row(void *user, const tw_quantize_row *row) {
    job *j = user;
    bool quantized = row->outcome != TW_OUTCOME_KEPT;
    j->tensors++;
    j->quantized += quantized;
    j->short_groups += row->outcome == TW_OUTCOME_SHORT_GROUP;
    j->kept_linears += row->is_linear && !quantized;
    j->source_bytes += row->source_bytes;
    j->bytes += row->bytes;
    if (j->args->json)
        print_json(row);
    else
        add_to_groups(j, row);
}

static void print_groups(const job *j) {
    out_table table;
    out_table_begin(&table, "rlllll", "count\tshape\tfrom\tto\twhat\tfirst of them");
    for (int32_t i = 0; i < j->group_count; i++) {
        const group *g = &j->groups[i];
        out_table_row(&table, "%lld\t%s\t%s", (long long)g->count, tw_str_text(&g->key),
                      g->first ? out_name(g->first).text : "");
    }
    out_table_end(&table);
}

static void free_groups(job *j) {
    for (int32_t i = 0; i < j->group_count; i++) {
        tw_str_free(&j->groups[i].key);
        free(j->groups[i].first);
    }
    free(j->groups);
}

static void print_summary(const job *j) {
    char kept[64] = "";
    if (j->kept_linears) snprintf(kept, sizeof kept, ", %d linear layers kept", j->kept_linears);
    out_line("%s%s: %d of %d tensors quantized (%d with a short last group)%s, %.1f MB -> %.1f MB",
             j->args->words[1], j->args->dry_run ? ", not written" : "", j->quantized, j->tensors,
             j->short_groups, kept, (double)j->source_bytes / 1e6, (double)j->bytes / 1e6);
}

/* ---- the run --------------------------------------------------------------------------------- */

static int32_t on_progress(void *user, double share, const char *tensor) {
    const job *j = user;
    double spent = (double)tw_now_ns() * 1e-9 - j->began;
    out_progress(share, share > 0.02 ? spent * (1 - share) / share : -1, tensor);
    return interrupt_number();
}

static int quantize(const cli_args *args, const rule_list *rules) {
    job j = {.args = args, .began = (double)tw_now_ns() * 1e-9};
    tw_quantize_options o = TW_QUANTIZE_OPTIONS_INIT;
    o.recipe = args->config;
    o.rules = rules->rules;
    o.rule_count = rules->count;
    o.form = (tw_form)args->form; /* both count from 1 in the same order */
    o.strict = args->strict;
    o.overwrite = args->force;
    o.dry_run = args->dry_run;
    o.threads = (int32_t)args->threads;
    o.report = on_row;
    o.progress = on_progress;
    o.user = &j;
    interrupt_catch();
    tw_status status = tw_quantize_model(args->words[0], args->words[1], &o);
    int number = interrupt_number();
    interrupt_release();
    out_progress_clear();
    if (!status && !args->json) {
        print_groups(&j);
        print_summary(&j);
    }
    free_groups(&j);
    int code = status ? cli_failed() : CLI_OK;
    /* Ends as the signal would have ended it, so that a shell's loop ends with it. */
    if (number) raise(number);
    return code;
}

static int run(const cli_args *args) {
    rule_list rules = {0};
    if (!args->config && !args->filter) {
        out_error("quantize: --config or --filter is missing; tilewright list recipes has what "
                  "they take");
        return CLI_USAGE;
    }
    int code = args->filter ? read_rules(args->filter, &rules) : CLI_OK;
    if (!code) code = quantize(args, &rules);
    free(rules.rules);
    free(rules.text);
    return code;
}

static const cli_option options[] = {
    CLI_ROW("--config", TEXT, config, "SPEC",
            "recipe for linear layers, \"int4_weight_only,g=64\"; none: kept"),
    CLI_ROW("--filter", TEXT, filter, "RULES",
            "\"PATTERN SPEC; ...\" for other tensors, or @FILE with one a line"),
    CLI_ROW("--form", CHOICE, form, "tilewright|gguf|compressed-tensors",
            "of OUT (by its name: .safetensors, .gguf)"),
    CLI_ROW("--strict", FLAG, strict, "", "a layer that cannot be quantized is an error"),
    CLI_ROW_THREADS,
    CLI_ROW("--dry-run", FLAG, dry_run, "", "only report what would be done"),
    CLI_ROW("--force", FLAG, force, "", "replace OUT if it is there"),
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_quantize = {
    .name = "quantize",
    .words = "MODEL OUT",
    .summary = "A model's linear layers quantized by a recipe and rules, into one file",
    .about =
        "PATTERN is a tensor's name, its module's (without .weight), or re:EXPRESSION, which must\n"
        "match one of them as a whole.  Exact names come first, then expressions in order, then\n"
        "--config.  `tilewright list recipes` has the recipes; \"none\" keeps a tensor.\n"
        "OUT is written whole or not at all; with --form compressed-tensors it is a new folder.",
    .examples =
        "  tilewright quantize model/ model-int4.safetensors --config int4_weight_only,g=32\n"
        "  tilewright quantize model.gguf model-q8.gguf --config intx_weight_only,w=i8,g=32,s=f16\n"
        "  tilewright quantize model/ out/ --form compressed-tensors --config "
        "intx_weight_only,w=i4,g=32 \\\n"
        "      --filter 're:.*down_proj int8_weight_only; lm_head none'",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
