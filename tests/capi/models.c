/* See models.h. */
#include "tests/capi/models.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/core/dtype.h"
#include "tests/core/random.h"

char models_folder[64], models_source[96], models_output[96];

int models_setup(void **state) {
    strcpy(models_folder, "quantize-model-XXXXXX");
    if (!mkdtemp(models_folder)) return -1;
    snprintf(models_source, sizeof models_source, "%s/in.safetensors", models_folder);
    snprintf(models_output, sizeof models_output, "%s/out.safetensors", models_folder);
    (void)state;
    return 0;
}

/* Fails when anything but what the test made is left. */
int models_teardown(void **state) {
    (void)state;
    char path[128];
    unlink(models_source);
    unlink(models_output);
    snprintf(path, sizeof path, "%s/out.gguf", models_folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out/model.safetensors", models_folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out/config.json", models_folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out", models_folder);
    rmdir(path);
    return rmdir(models_folder);
}

/* ---- a source -------------------------------------------------------------------------------- */

tw_status models_write(void *user, const void *bytes, size_t size) {
    assert_int_equal(fwrite(bytes, 1, size, user), size);
    return TW_OK;
}

static size_t values_of(const tw_safetensors_tensor *t) {
    size_t count = 1;
    for (int32_t i = 0; i < t->ndim; i++) count *= (size_t)t->shape[i];
    return count;
}

static void fill(const tw_safetensors_tensor *t, void *data, uint64_t seed) {
    tw_dtype dtype = !strcmp(t->type, "F16") ? TW_F16 : !strcmp(t->type, "BF16") ? TW_BF16 : TW_F32;
    for (size_t i = 0; i < values_of(t); i++)
        tw_float_set(data, dtype, (int64_t)i, random_unit(&seed));
}

void models_make(const tw_safetensors_tensor *tensors, int32_t count) {
    FILE *file = fopen(models_source, "wb");
    const tw_sink sink = {models_write, file};
    tw_safetensors_writer *w = NULL;
    assert_non_null(file);
    check_ok(tw_safetensors_create(&sink, tensors, count, NULL, 0, &w));
    for (int32_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        assert_true(tw_safetensors_bytes(&tensors[i], &bytes));
        void *data = calloc(1, bytes + 1);
        if (*tensors[i].type != 'I') fill(&tensors[i], data, (uint64_t)i + 1);
        check_ok(tw_safetensors_append(w, data, bytes));
        free(data);
    }
    check_ok(tw_safetensors_finish(w));
    assert_int_equal(fclose(file), 0);
}

const tw_safetensors_tensor models_small[MODELS_SMALL] = {
    {"model.embed_tokens.weight", "BF16", 2, {40, 64}},
    {"model.layers.0.q_proj.weight", "F32", 2, {24, 64}},
    {"model.layers.0.q_proj.bias", "F32", 1, {24}},
    {"model.layers.0.k_proj.weight", "BF16", 2, {16, 64}},
    {"model.layers.1.q_proj.weight", "F16", 2, {24, 64}},
    {"model.norm.weight", "F32", 1, {64}},
    {"lm_head.weight", "F32", 2, {40, 64}},
    {"position_ids", "I64", 2, {1, 8}},
};

/* ---- what is reported ------------------------------------------------------------------------ */

static void on_row(void *user, const tw_quantize_row *row) {
    seen *s = user;
    assert_true(s->count < MODELS_ROWS);
    snprintf(s->rows[s->count].name, 64, "%s", row->tensor);
    snprintf(s->rows[s->count].rule, 64, "%s", row->rule ? row->rule : "");
    snprintf(s->rows[s->count].recipe, 64, "%s", row->recipe ? row->recipe : "");
    snprintf(s->rows[s->count].reason, MODELS_WORDS, "%s", row->reason ? row->reason : "");
    snprintf(s->rows[s->count].to, 64, "%s", row->to);
    s->rows[s->count].bytes = row->bytes;
    s->rows[s->count++].outcome = row->outcome;
    assert_int_equal(row->struct_size, sizeof *row);
}

static int32_t on_progress(void *user, double share, const char *tensor) {
    seen *s = user;
    assert_true(share >= 0 && share <= 1);
    assert_non_null(tensor);
    return (s->stop_at && ++s->calls >= s->stop_at) || (s->stop_at_end && share >= 1);
}

int32_t models_filter(void *user, const char *tensor, int64_t N, int64_t K) {
    const seen *s = user;
    assert_true(N > 0 && K == 64);
    return strcmp(tensor, s->filtered) != 0;
}

tw_quantize_options models_options(seen *s, const char *recipe) {
    tw_quantize_options o = TW_QUANTIZE_OPTIONS_INIT;
    o.recipe = recipe;
    o.report = on_row;
    o.progress = on_progress;
    o.user = s;
    return o;
}

void models_expect(const seen *s, const char *name, tw_quantize_outcome outcome, const char *rule,
                   const char *reason) {
    for (int i = 0; i < s->count; i++) {
        if (strcmp(s->rows[i].name, name) != 0) continue;
        assert_int_equal(s->rows[i].outcome, outcome);
        assert_string_equal(s->rows[i].rule, rule);
        if (!strstr(s->rows[i].reason, reason))
            fail_msg("%s: '%s', expected '%s'", name, s->rows[i].reason, reason);
        return;
    }
    fail_msg("%s: not reported", name);
}

tw_model *models_open(const char *path) {
    tw_model *model = NULL;
    check_ok(tw_model_open(path, NULL, &model));
    return model;
}

int models_files(void) {
    DIR *dir = opendir(models_folder);
    int count = 0;
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}
