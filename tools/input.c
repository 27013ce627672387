/* Words of the command line into devices, problems and contexts. */
#include "tools/input.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/backend/backend.h"
#include "src/base/options.h"
#include "src/base/status.h"
#include "tools/out.h"

/* INVALID is a word that breaks its rule, anything else went wrong with a good one. */
static int exit_code(const char *what, tw_status status) {
    return status == TW_INVALID ? cli_bad(what) : cli_failed();
}

int input_problem(const char *word, bool need_m, tw_problem *out) {
    tw_status status = tw_problem_parse(word, need_m, out);
    return status == TW_OK ? CLI_OK : exit_code("PROBLEM", status);
}

/* Plans and code can be made for any machine.  What runs with more threads than CPUs takes turns:
 * the program crawls, and no figure means anything. */
static int check_threads(const cli_args *args, bool runs) {
    tw_target all;
    if (tw_cpu_describe("cpu", 0, &all) != TW_OK) return cli_failed();
    long long threads = args->threads ? args->threads : tw_option_int(TW_OPT_TW_THREADS);
    if (threads <= (runs ? all.threads : TW_MAX_THREADS)) return CLI_OK;
    if (runs)
        out_error("%s: %lld, expected at most the %d CPU%s of this process",
                  args->threads ? "--threads" : "TW_THREADS", threads, all.threads,
                  all.threads == 1 ? "" : "s");
    else
        out_error("--threads: %lld, expected at most %d", (long long)args->threads, TW_MAX_THREADS);
    return CLI_USAGE;
}

int input_target(const char *word, const cli_args *args, tw_target *out) {
    int code = check_threads(args, false);
    if (code) return code;
    int32_t threads = (int32_t)(args->threads ? args->threads : tw_option_int(TW_OPT_TW_THREADS));
    tw_status status = tw_cpu_detect(word, threads, out);
    return status == TW_OK ? CLI_OK : exit_code("DEV", status);
}

int input_context(const char *word, const cli_args *args, tw_mode mode,
                  const tw_context_setup *setup, tw_context **out) {
    tw_target target;
    int code = check_threads(args, !setup->foreign);
    if (code) return code;
    /* Told apart from other failures: a word that names no device is a usage error. */
    if (tw_cpu_describe(word, 1, &target) != TW_OK) return cli_bad("DEV");
    tw_options options = TW_OPTIONS_INIT;
    options.device = word;
    options.mode = mode;
    options.threads = (int32_t)args->threads;
    return tw_context_open(&options, setup, out) == TW_OK ? CLI_OK : cli_failed();
}

static int bad_kernel(const char *name) {
    tw_str names = {0};
    for (int i = 0; tw_template_row(i); i++)
        tw_str_add(&names, "%s%s", i ? ", " : "", tw_template_row(i)->name);
    out_error("--kernel: \"%s\", expected one of %s", name, tw_str_text(&names));
    tw_str_free(&names);
    return CLI_USAGE;
}

int input_forced(const cli_args *args, tw_plan_request *request, tw_config *config) {
    if (args->config && !args->kernel) {
        out_error("--config: \"%s\", needs --kernel: a config belongs to one", args->config);
        return CLI_USAGE;
    }
    if (!args->kernel) return CLI_OK;
    request->tmpl = tw_template_find(args->kernel);
    if (!request->tmpl) return bad_kernel(args->kernel);
    if (!args->config) return CLI_OK;
    request->config = config;
    tw_status status = tw_config_parse(args->config, config);
    return status == TW_OK ? CLI_OK : exit_code("--config", status);
}

/* ---- problems -------------------------------------------------------------------------------- */

static tw_status add_item(input *in, const tw_problem *asked, const input_item *source) {
    tw_str text = {0};
    tw_problem problem = *asked;
    if (in->rows == INPUT_BUCKETS) problem.M = tw_bucket_rows(tw_bucket_index(problem.M));
    tw_problem_text(&problem, &text);
    TW_TRY(tw_str_ok(&text));
    for (int i = 0; i < in->count; i++)
        if (!strcmp(in->items[i].text, text.text)) {
            in->items[i].count += source->count;
            tw_str_free(&text);
            return TW_OK;
        }
    input_item *items = realloc(in->items, (size_t)(in->count + 1) * sizeof *items);
    if (!items) {
        tw_str_free(&text);
        return tw_fail(TW_MEMORY, "problems: out of memory after %d", in->count);
    }
    in->items = items;
    items[in->count++] =
        (input_item){problem, text.text, source->name, source->count, source->tensor};
    return TW_OK;
}

/* A problem that no file asks for. */
static const input_item typed = {.name = "", .count = 1, .tensor = -1};

/* The problem at its own M, or at each of --m. */
static tw_status add_problem(input *in, const tw_problem *problem, const cli_args *args,
                             const input_item *source) {
    static const cli_sizes standard = {{1, 16, 512}, 3};
    const cli_sizes *m = args->m.count ? &args->m : &standard;
    tw_problem p = *problem;
    if (args->scheme) TW_TRY(tw_scheme_parse(args->scheme, &p.scheme));
    if (p.M) return add_item(in, &p, source);
    for (int i = 0; i < m->count; i++) {
        p.M = m->at[i];
        TW_TRY(tw_problem_check(&p));
        TW_TRY(add_item(in, &p, source));
    }
    return TW_OK;
}

static tw_status add_model(const char *path, const cli_args *args, input *in) {
    TW_TRY(tw_model_open(path, NULL, &in->model));
    TW_TRY(tw_model_linears_get(in->model, &in->linears));
    for (int32_t i = 0; i < in->linears.count; i++) {
        const tw_model_linear *linear = &in->linears.items[i];
        if (linear->problem.scheme.weight == TW_NONE && !args->scheme) {
            out_note("left out: %lld of %s %s cannot be read yet; --scheme gives them another type",
                     (long long)linear->count, linear->type, linear->names[0]);
            continue;
        }
        input_item source = {.name = linear->names[0],
                             .count = linear->count,
                             .tensor = args->scheme ? -1 : linear->tensor};
        tw_status status = add_problem(in, &linear->problem, args, &source);
        if (status != TW_OK) return tw_fail_within(status, "%s: %s", path, linear->names[0]);
    }
    if (!in->count) return tw_fail(TW_FORMAT, "%s: holds no linear layer that can be read", path);
    return TW_OK;
}

/* Whether the word names a file: a file that is there, or text that is no problem. */
static bool is_file(const char *word) {
    return *word == '@' || !strchr(word, '=') || !access(word, F_OK);
}

int input_open(const char *word, const cli_args *args, input_rows rows, input *out) {
    tw_scheme scheme;
    tw_problem problem;
    *out = (input){.rows = rows};
    if (args->scheme && tw_scheme_parse(args->scheme, &scheme) != TW_OK) return cli_bad("--scheme");
    if (!strcmp(word, "@")) {
        out_error("@FILE: \"@\", expected the name of a file after the @");
        return CLI_USAGE;
    }
    bool file = is_file(word);
    if (!file && tw_problem_parse(word, false, &problem) != TW_OK) return cli_bad("PROBLEM");
    tw_status status = file ? add_model(*word == '@' ? word + 1 : word, args, out)
                            : add_problem(out, &problem, args, &typed);
    if (status == TW_OK) return CLI_OK;
    int code = file ? cli_failed() : exit_code("PROBLEM", status);
    input_close(out);
    return code;
}

int input_texts(const char *const *texts, int count, input_rows rows, input *out) {
    *out = (input){.rows = rows};
    for (int i = 0; i < count; i++) {
        tw_problem problem;
        tw_status status = tw_problem_parse(texts[i], true, &problem);
        if (status == TW_OK) status = add_item(out, &problem, &typed);
        if (status == TW_OK) continue;
        input_close(out);
        return cli_failed();
    }
    return CLI_OK;
}

void input_close(input *in) {
    for (int i = 0; i < in->count; i++) free(in->items[i].text);
    free(in->items);
    tw_model_linears_free(&in->linears);
    tw_model_close(in->model);
    *in = (input){0};
}
