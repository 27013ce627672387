/* tilewright dequantize: a checkpoint's tensors as plain f32, in a safetensors file. */
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/status.h"
#include "src/format/safetensors_write.h"
#include "tools/commands.h"
#include "tools/input.h"
#include "tools/out.h"
#include "tools/outfile.h"

typedef struct job {
    tw_model *model;
    int32_t *chosen; /* indices of tensors */
    int32_t count;
    int64_t values;
} job;

/* The readable tensors whose names match.  A model whose weights are not understood is no model in
 * f32: only who names tensors gets what is left of it. */
static tw_status choose(job *j, const cli_args *args, const regex_t *pattern) {
    int32_t all = tw_model_tensor_count(j->model), unreadable = 0;
    const char *unread = tw_model_unread(j->model);
    if (unread && !pattern) return tw_fail(TW_UNSUPPORTED, "%s: %s", args->words[0], unread);
    if (!all) return tw_fail(TW_INVALID, "%s: holds no tensors", args->words[0]);
    j->chosen = calloc((size_t)all + 1, sizeof *j->chosen);
    if (!j->chosen) return tw_fail(TW_MEMORY, "tensors: out of memory");
    for (int32_t i = 0; i < all; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(j->model, i);
        if (pattern && regexec(pattern, t->name, 0, NULL, 0)) continue;
        if (t->scheme.weight == TW_NONE) {
            out_note("left out: %s is %s, which cannot be read", t->name, t->type);
            unreadable++;
            continue;
        }
        j->chosen[j->count++] = i;
    }
    if (j->count) return TW_OK;
    if (unreadable)
        return tw_fail(TW_UNSUPPORTED, "none of the %d tensors can be read", unreadable);
    return tw_fail(TW_INVALID, "no tensor of %d has a name that --tensor \"%s\" matches", all,
                   args->tensor);
}

static tw_status write_some(void *user, const void *bytes, size_t size) {
    return tw_file_write(user, bytes, size);
}

static tw_status start(const job *j, tw_file *file, tw_safetensors_writer **out) {
    const tw_sink sink = {write_some, file};
    tw_safetensors_tensor *list = calloc((size_t)j->count, sizeof *list);
    if (!list) return tw_fail(TW_MEMORY, "tensors: out of memory");
    for (int32_t i = 0; i < j->count; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(j->model, j->chosen[i]);
        list[i].name = t->name;
        list[i].type = "F32";
        list[i].ndim = t->ndim;
        memcpy(list[i].shape, t->shape, sizeof list[i].shape);
    }
    tw_status status = tw_safetensors_create(&sink, list, j->count, NULL, 0, out);
    free(list);
    return status;
}

/* Row by row: memory for one tensor's codes and one row of values. */
static tw_status append(job *j, int32_t index, tw_safetensors_writer *writer) {
    tw_canonical_tensor tensor;
    TW_TRY(tw_model_read(j->model, index, &tensor));
    float *row = malloc((size_t)tw_max(tensor.K, 1) * sizeof *row);
    tw_status status = row ? TW_OK : tw_fail(TW_MEMORY, "row: out of memory");
    for (int64_t n = 0; n < tensor.N && status == TW_OK; n++) {
        tw_canonical_tensor_row(&tensor, n, row);
        status = tw_safetensors_append(writer, row, (size_t)tensor.K * sizeof *row);
    }
    j->values += tensor.N * tensor.K;
    free(row);
    tw_canonical_tensor_free(&tensor);
    return status;
}

static tw_status write_tensors(job *j, tw_file *file) {
    tw_safetensors_writer *writer;
    TW_TRY(start(j, file, &writer));
    for (int32_t i = 0; i < j->count; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(j->model, j->chosen[i]);
        out_progress((double)i / j->count, -1, t->name);
        tw_status status = append(j, j->chosen[i], writer);
        if (status != TW_OK) {
            tw_safetensors_discard(writer);
            return tw_fail_within(status, "%s", t->name);
        }
    }
    return tw_safetensors_finish(writer);
}

static tw_status write_all(job *j, const cli_args *args) {
    tw_file file;
    TW_TRY(outfile_open(args->words[1], TW_FILE_REGULAR, &file));
    tw_status status = write_tensors(j, &file);
    if (status == TW_OK) return outfile_finish(&file);
    outfile_discard(&file);
    return status;
}

static void report(const job *j, const cli_args *args) {
    for (int32_t i = 0; args->json && i < j->count; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(j->model, j->chosen[i]);
        json_t *shape = json_array();
        for (int32_t d = 0; d < t->ndim; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        out_json(json_pack("{s:o,s:s,s:o}", "tensor", out_json_text(t->name), "from", t->type,
                           "shape", shape));
    }
    if (!args->json)
        out_line("%s: %d tensors, %lld values in f32", args->words[1], j->count,
                 (long long)j->values);
}

static int compile_pattern(const char *text, regex_t *out) {
    char why[128];
    int error = regcomp(out, text, REG_EXTENDED | REG_NOSUB);
    if (!error) return CLI_OK;
    regerror(error, out, why, sizeof why);
    out_error("--tensor: \"%s\", %s", text, why);
    return CLI_USAGE;
}

static int run(const cli_args *args) {
    regex_t pattern;
    job j = {0};
    int code = args->tensor ? compile_pattern(args->tensor, &pattern) : CLI_OK;
    if (code) return code;
    tw_status status = tw_file_check(args->words[1], TW_FILE_REGULAR);
    if (status == TW_OK && !args->force && !access(args->words[1], F_OK))
        status = tw_fail(TW_IO, "%s: is there already; --force replaces it", args->words[1]);
    if (status == TW_OK) status = tw_model_open(args->words[0], NULL, &j.model);
    if (status == TW_OK) {
        status = choose(&j, args, args->tensor ? &pattern : NULL);
        if (status == TW_OK) status = write_all(&j, args);
        if (status == TW_OK) report(&j, args);
    }
    /* Names and shapes in the report belong to the model. */
    tw_model_close(j.model);
    free(j.chosen);
    if (args->tensor) regfree(&pattern);
    return status == TW_OK ? CLI_OK : cli_failed();
}

static const cli_option options[] = {
    CLI_ROW("--tensor", TEXT, tensor, "RE",
            "only names in which this extended regular expression matches"),
    CLI_ROW("--force", FLAG, force, "", "replace OUT.safetensors if it is there"),
    CLI_ROW_JSON,
    CLI_ROW_HELP,
};

const cli_command cmd_dequantize = {
    .name = "dequantize",
    .words = "MODEL OUT.safetensors",
    .summary = "A checkpoint's tensors as plain f32, exactly as the format defines them",
    .about = "OUT is written whole or not at all; a symbolic link stays one.  A checkpoint in a\n"
             "quantization that is not known is an error, unless --tensor names what to take.",
    .examples = "  tilewright dequantize model.gguf model-f32.safetensors\n"
                "  tilewright dequantize model.gguf out.safetensors --tensor '^blk\\.0\\.' --force",
    .options = options,
    .option_count = TW_COUNT(options),
    .run = run,
};
