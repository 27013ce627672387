/* What the tests of src/format share: test data, opening what must open, refusing what must not. */
#ifndef TW_TESTS_FORMAT_TEST_H
#define TW_TESTS_FORMAT_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/status.h"
#include "src/format/model.h"
#include "tests/base/cmocka_all.h"

#define DATA(name) TW_TEST_DATA "/" name

static inline tw_model *opened(const char *path) {
    tw_model *model = NULL;
    if (tw_model_open(path, NULL, &model)) fail_msg("%s", tw_error_message());
    return model;
}

/* The sentence names the file and is one line; the handle stays untouched. */
static inline tw_status refused(const char *path) {
    tw_model *model = (tw_model *)&model;
    tw_status status = tw_model_open(path, NULL, &model);
    if (!status) fail_msg("%s: opened, but it must be refused", path);
    assert_ptr_equal(model, &model);
    if (!strstr(tw_error_message(), path) || strchr(tw_error_message(), '\n'))
        fail_msg("%s: its error is '%s'", path, tw_error_message());
    return status;
}

/* The same from text that lies in memory. */
static inline tw_model *opened_text(tw_model_kind kind, const char *text) {
    tw_model *model = NULL;
    if (tw_model_open_bytes(text, strlen(text), kind, "memory", &model))
        fail_msg("%s", tw_error_message());
    return model;
}

static inline void refused_text(tw_model_kind kind, const char *text, tw_status expected,
                                const char *words) {
    tw_model *model = NULL;
    tw_status status = tw_model_open_bytes(text, strlen(text), kind, "memory", &model);
    if (status != expected || !strstr(tw_error_message(), words))
        fail_msg("%s: %s '%s', expected %s and '%s'", text, tw_status_name(status),
                 status ? tw_error_message() : "", tw_status_name(expected), words);
}

/* All values of a tensor as f32, N*K of them; the caller frees. */
static inline float *dequantized(const tw_model *model, int32_t index, size_t *count) {
    tw_canonical_tensor t;
    if (tw_model_read(model, index, &t)) fail_msg("%s", tw_error_message());
    tw_problem problem = tw_canonical_problem(&t);
    tw_canonical view = tw_canonical_view(&t);
    *count = (size_t)(t.N * t.K);
    float *values = malloc(*count * sizeof *values + 1);
    assert_non_null(values);
    for (int64_t n = 0; n < t.N; n++) tw_dequantize_row(&problem, &view, n, values + n * t.K);
    tw_canonical_tensor_free(&t);
    return values;
}

static inline FILE *open_file(const char *path, const char *mode) {
    FILE *file = fopen(path, mode);
    if (!file) {
        fail_msg("%s: cannot be opened", path);
        abort();
    }
    return file;
}

/* Bytes of a file, at most `room`. */
static inline size_t load(const char *path, void *bytes, size_t room) {
    FILE *file = open_file(path, "rb");
    size_t size = fread(bytes, 1, room, file);
    assert_true(size < room);
    fclose(file);
    return size;
}

static inline void save(const char *folder, const char *name, const void *bytes, size_t size) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = open_file(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* The record of a shape, NULL when there is none. */
static inline const tw_model_linear *find_linear(const tw_model_linears *l, int64_t N, int64_t K) {
    for (int32_t i = 0; i < l->count; i++)
        if (l->items[i].problem.N == N && l->items[i].problem.K == K) return &l->items[i];
    return NULL;
}

static inline tw_model_linears linears_of(const tw_model *model) {
    tw_model_linears linears = {0};
    if (tw_model_linears_get(model, &linears)) fail_msg("%s", tw_error_message());
    return linears;
}

/* "N=..,K=..,w=..": count of such linears, as one text a record, for comparing whole lists. */
static inline void assert_linears(const tw_model *model, const char *const *expected) {
    tw_model_linears linears = linears_of(model);
    int32_t i = 0;
    for (; expected[i] && i < linears.count; i++) {
        tw_str text = {0};
        tw_str_add(&text, "%lld x ", (long long)linears.items[i].count);
        tw_problem_text(&linears.items[i].problem, &text);
        tw_str_add(&text, " %s", linears.items[i].type);
        assert_string_equal(tw_str_text(&text), expected[i]);
        tw_str_free(&text);
    }
    assert_null(expected[i]);
    assert_int_equal(i, linears.count);
    tw_model_linears_free(&linears);
}

/* Runs check(path, must) over a manifest's files; paths in it begin at the test data. */
typedef void check_file(const char *path, const char *must);
int each_of_manifest(const char *manifest, check_file *check);
/* must: reject, accept or either; whatever opens is read through. */
void check_opening(const char *path, const char *must);

#endif
