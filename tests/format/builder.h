/* Safetensors files made in memory, tensor by tensor, and what must be read of them. */
#ifndef TW_TESTS_FORMAT_BUILDER_H
#define TW_TESTS_FORMAT_BUILDER_H

#include <jansson.h>

#include "tests/format/format_test.h"

typedef struct builder {
    json_t *header, *metadata, *names;
    uint8_t data[1024];
    size_t size;
} builder;

static inline builder begin(void) {
    builder b = {.header = json_object(), .metadata = json_object(), .names = json_array()};
    assert_true(b.header && b.metadata && b.names);
    return b;
}

/* A tensor of `size` bytes; its shape as JSON. */
static inline void put(builder *b, const char *name, const char *dtype, const char *shape,
                       const void *data, size_t size) {
    json_t *record =
        json_pack("{s:s,s:o,s:[i,i]}", "dtype", dtype, "shape", json_loads(shape, 0, NULL),
                  "data_offsets", (int)b->size, (int)(b->size + size));
    assert_non_null(record);
    assert_true(b->size + size <= sizeof b->data);
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    json_object_set_new(b->header, name, record);
}

/* The file's bytes, at most `room`; the builder is no more. */
static inline size_t build(builder *b, uint8_t *bytes, size_t room) {
    if (json_object_size(b->metadata)) json_object_set(b->header, "__metadata__", b->metadata);
    char *text = json_dumps(b->header, 0);
    uint64_t length = strlen(text);
    assert_true(8 + length + b->size <= room);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, text, length);
    memcpy(bytes + 8 + length, b->data, b->size);
    free(text);
    json_decref(b->header);
    json_decref(b->metadata);
    json_decref(b->names);
    return 8 + length + b->size;
}

static inline void assert_values(const tw_model *model, const char *name, tw_dtype weight,
                                 int64_t N, int64_t K, const float *expected) {
    tw_canonical_tensor t;
    if (tw_model_read(model, tw_model_find(model, name), &t)) fail_msg("%s", tw_error_message());
    assert_int_equal(t.scheme.weight, weight);
    assert_int_equal(t.N, N);
    assert_int_equal(t.K, K);
    for (int64_t n = 0; n < N; n++) {
        float row[16];
        tw_canonical_tensor_row(&t, n, row);
        for (int64_t k = 0; k < K; k++)
            if (row[k] != expected[n * K + k])
                fail_msg("%s: [%d,%d] is %g, expected %g", name, (int)n, (int)k, (double)row[k],
                         (double)expected[n * K + k]);
    }
    tw_canonical_tensor_free(&t);
}

#endif
