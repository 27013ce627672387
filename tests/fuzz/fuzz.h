/* What the fuzz targets share.  Each is one file with one LLVMFuzzerTestOneInput; run.sh builds
 * them with libFuzzer, corpus_main.c runs the same function over the corpus as a plain test. */
#ifndef TW_TESTS_FUZZ_H
#define TW_TESTS_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/format/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for every input: the fuzzer reports a trap as a crash. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) __builtin_trap();                                                        \
    } while (0)

/* A failure comes with one line that says something. */
static inline void must_explain(tw_status status) {
    const char *sentence = tw_error_message();
    MUST(status != TW_INTERNAL && *sentence && !strchr(sentence, '\n'));
}

/* Every row of one tensor: canonical form, then floats. */
static inline void read_tensor(const tw_model *model, int32_t index) {
    tw_canonical_tensor t;
    tw_status status = tw_model_read(model, index, &t);
    if (status) {
        must_explain(status);
        return;
    }
    float *row = malloc((size_t)t.K * sizeof *row + 1);
    MUST(row && tw_scheme_check(&t.scheme) == TW_OK);
    for (int64_t n = 0; t.K && n < t.N; n++) tw_canonical_tensor_row(&t, n, row);
    free(row);
    tw_canonical_tensor_free(&t);
}

static inline void read_linears(const tw_model *model) {
    tw_model_linears linears;
    tw_status status = tw_model_linears_get(model, &linears);
    if (status) {
        must_explain(status);
        return;
    }
    for (int32_t i = 0; i < linears.count; i++) {
        const tw_model_linear *l = &linears.items[i];
        MUST(l->problem.N > 0 && l->problem.K > 0);
        MUST(l->name_count > 0 && l->count >= l->name_count && l->names[0]);
        MUST(l->tensor < tw_model_tensor_count(model));
    }
    tw_model_linears_free(&linears);
}

/* Looks at all that is in a model of a file of so many bytes, and closes it. */
static inline void read_model(tw_model *model, size_t size) {
    for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
        const tw_model_tensor *t = tw_model_tensor_at(model, i);
        MUST(t->bytes <= size);
        MUST(tw_model_find(model, t->name) == i);
        read_tensor(model, i);
    }
    read_linears(model);
    tw_model_close(model);
}

/* The bytes as a file of this kind. */
static inline void open_and_read(const uint8_t *data, size_t size, tw_model_kind kind) {
    tw_model *model;
    tw_status status = tw_model_open_bytes(data, size, kind, "fuzz", &model);
    if (status) {
        must_explain(status);
        return;
    }
    read_model(model, size);
}

#endif
