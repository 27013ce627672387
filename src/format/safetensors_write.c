/* Header by jansson, data through one buffer. */
#include "src/format/safetensors_write.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/format/model_impl.h"

enum { HEADER_ALIGN = 8, MOST_HEADER = 100000000 };

struct tw_safetensors_writer {
    tw_output output;
    uint64_t expected, given; /* bytes of data */
};

bool tw_safetensors_bytes(const tw_safetensors_tensor *tensor, uint64_t *out) {
    const tw_source_type *type = tw_safetensors_type_named(tensor->type);
    if (!type || tensor->ndim < 0 || tensor->ndim > TW_MODEL_DIMS) return false;
    for (int32_t i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] < 0) return false;
    return tw_type_bytes(type, tensor->ndim, tensor->shape, out);
}

/* Adds one tensor that begins at `at`. */
static tw_status describe(json_t *header, const tw_safetensors_tensor *t, uint64_t *at) {
    uint64_t bytes, end;
    tw_shown name = tw_show(t->name, strlen(t->name));
    if (!tw_safetensors_type_named(t->type))
        return tw_fail(TW_INVALID, "tensor '%s': safetensors has no element type %s", name.text,
                       tw_show(t->type, strlen(t->type)).text);
    if (!tw_safetensors_bytes(t, &bytes) || __builtin_add_overflow(*at, bytes, &end) ||
        end > INT64_MAX)
        return tw_fail(TW_INVALID, "tensor '%s': shape out of range", name.text);
    if (json_object_get(header, t->name) || !strcmp(t->name, "__metadata__"))
        return tw_fail(TW_INVALID, "tensor '%s': its name is taken", name.text);
    json_t *shape = json_array();
    for (int32_t i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->type, "shape", shape,
                              "data_offsets", (json_int_t)*at, (json_int_t)end);
    /* Fails for a name that is not UTF-8, too. */
    if (json_object_set_new(header, t->name, entry))
        return tw_fail(TW_INVALID, "tensor '%s': its name is not UTF-8", name.text);
    *at = end;
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
    if (!status) status = tw_output_put(&w->output, &whole, sizeof whole);
    if (!status) status = tw_output_put(&w->output, text, size);
    if (!status) status = tw_output_put(&w->output, "       ", whole - size);
    free(text);
    return status;
}

static tw_status put_texts(json_t *header, const tw_model_text *texts, int32_t count) {
    json_t *metadata = json_object_get(header, "__metadata__");
    if (!metadata) return tw_fail(TW_MEMORY, "out of memory for a header");
    for (int32_t i = 0; i < count; i++)
        if (json_object_set_new(metadata, texts[i].key, json_string(texts[i].value)))
            return tw_fail(TW_INVALID, "__metadata__: '%s': not UTF-8",
                           tw_show(texts[i].key, strlen(texts[i].key)).text);
    return TW_OK;
}

tw_status tw_safetensors_create(const tw_sink *sink, const tw_safetensors_tensor *tensors,
                                int32_t count, const tw_model_text *texts, int32_t text_count,
                                tw_safetensors_writer **out) {
    tw_safetensors_writer *w = calloc(1, sizeof *w);
    if (!w) return tw_fail(TW_MEMORY, "out of memory for a writer");
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    tw_status status = tw_output_open(sink, &w->output);
    if (!status) status = put_texts(header, texts, text_count);
    for (int32_t i = 0; i < count && !status; i++)
        status = describe(header, &tensors[i], &w->expected);
    if (!status) status = put_header(w, header);
    json_decref(header);
    if (status) {
        tw_safetensors_discard(w);
        return status;
    }
    *out = w;
    return TW_OK;
}

tw_status tw_safetensors_append(tw_safetensors_writer *writer, const void *bytes, size_t size) {
    uint64_t missing = writer->expected - writer->given;
    if (size > missing)
        return tw_fail(TW_INVALID, "data: %zu bytes, but the tensors lack only %llu", size,
                       (unsigned long long)missing);
    writer->given += size;
    return tw_output_put(&writer->output, bytes, size);
}

tw_status tw_safetensors_finish(tw_safetensors_writer *writer) {
    tw_safetensors_writer *w = writer;
    tw_status status = w->given == w->expected
                           ? tw_output_flush(&w->output)
                           : tw_fail(TW_INVALID, "data: %llu bytes given, expected %llu",
                                     (unsigned long long)w->given, (unsigned long long)w->expected);
    tw_safetensors_discard(w);
    return status;
}

void tw_safetensors_discard(tw_safetensors_writer *writer) {
    if (writer) tw_output_close(&writer->output);
    free(writer);
}
