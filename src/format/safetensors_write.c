/* Header by jansson, data through one buffer. */
#include "src/format/safetensors_write.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/format/model_impl.h"

enum { BUFFER = 1 << 20, HEADER_ALIGN = 8, MOST_HEADER = 100000000 };

struct tw_safetensors_writer {
    tw_safetensors_sink sink;
    uint64_t expected, given; /* bytes of data */
    size_t filled;
    uint8_t buffer[BUFFER];
};

static tw_status put(tw_safetensors_writer *w, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    while (size) {
        size_t n = BUFFER - w->filled < size ? BUFFER - w->filled : size;
        memcpy(w->buffer + w->filled, at, n);
        w->filled += n;
        at += n;
        size -= n;
        if (w->filled < BUFFER) continue;
        TW_TRY(w->sink.write(w->sink.user, w->buffer, BUFFER));
        w->filled = 0;
    }
    return TW_OK;
}

static bool size_of(const tw_safetensors_tensor *t, int64_t *bytes) {
    if (t->ndim < 0 || t->ndim > TW_MODEL_DIMS) return false;
    *bytes = sizeof(float);
    for (int32_t i = 0; i < t->ndim; i++)
        if (t->shape[i] < 0 || __builtin_mul_overflow(*bytes, t->shape[i], bytes)) return false;
    return true;
}

/* Adds one tensor that begins at `at`. */
static tw_status describe(json_t *header, const tw_safetensors_tensor *t, int64_t at,
                          int64_t *end) {
    int64_t bytes;
    tw_shown name = tw_show(t->name, strlen(t->name));
    if (!size_of(t, &bytes) || __builtin_add_overflow(at, bytes, end))
        return tw_fail(TW_INVALID, "tensor '%s': shape out of range", name.text);
    if (json_object_get(header, t->name) || !strcmp(t->name, "__metadata__"))
        return tw_fail(TW_INVALID, "tensor '%s': its name is taken", name.text);
    json_t *shape = json_array();
    for (int32_t i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F32", "shape", shape, "data_offsets",
                              (json_int_t)at, (json_int_t)*end);
    /* Fails for a name that is not UTF-8, too. */
    if (json_object_set_new(header, t->name, entry))
        return tw_fail(TW_INVALID, "tensor '%s': its name is not UTF-8", name.text);
    return TW_OK;
}

/* Length, JSON, and spaces up to the alignment of the data. */
static tw_status put_header(tw_safetensors_writer *w, json_t *header) {
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text) return tw_fail(TW_MEMORY, "out of memory for a header");
    uint64_t size = strlen(text), whole = (size + HEADER_ALIGN - 1) / HEADER_ALIGN * HEADER_ALIGN;
    tw_status status = TW_OK;
    if (whole > MOST_HEADER)
        status = tw_fail(TW_INVALID, "tensors: a header of %llu bytes, the format allows %d",
                         (unsigned long long)whole, MOST_HEADER);
    if (!status) status = put(w, &whole, sizeof whole);
    if (!status) status = put(w, text, size);
    if (!status) status = put(w, "       ", whole - size);
    free(text);
    return status;
}

static tw_status put_tensors(tw_safetensors_writer *w, const tw_safetensors_tensor *tensors,
                             int32_t count) {
    /* What torch's loader looks for. */
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    tw_status status = header ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a header");
    int64_t at = 0;
    for (int32_t i = 0; i < count && !status; i++) status = describe(header, &tensors[i], at, &at);
    if (!status) status = put_header(w, header);
    w->expected = (uint64_t)at;
    json_decref(header);
    return status;
}

tw_status tw_safetensors_create(const tw_safetensors_sink *sink,
                                const tw_safetensors_tensor *tensors, int32_t count,
                                tw_safetensors_writer **out) {
    tw_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w) return tw_fail(TW_MEMORY, "out of memory for a writer");
    w->sink = *sink;
    tw_status status = put_tensors(w, tensors, count);
    if (status) {
        tw_safetensors_discard(w);
        return status;
    }
    *out = w;
    return TW_OK;
}

tw_status tw_safetensors_append(tw_safetensors_writer *writer, const float *values, size_t count) {
    if (count > (writer->expected - writer->given) / sizeof(float))
        return tw_fail(TW_INVALID, "values: %zu, but the tensors lack only %llu", count,
                       (unsigned long long)((writer->expected - writer->given) / sizeof(float)));
    writer->given += count * sizeof(float);
    return put(writer, values, count * sizeof(float));
}

tw_status tw_safetensors_finish(tw_safetensors_writer *writer) {
    tw_safetensors_writer *w = writer;
    tw_status status = w->given == w->expected
                           ? w->sink.write(w->sink.user, w->buffer, w->filled)
                           : tw_fail(TW_INVALID, "values: %llu bytes given, expected %llu",
                                     (unsigned long long)w->given, (unsigned long long)w->expected);
    tw_safetensors_discard(w);
    return status;
}

void tw_safetensors_discard(tw_safetensors_writer *writer) { free(writer); }
