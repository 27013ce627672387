/* safetensors: a header length, a JSON header, the data.  The format and its rules: README.md of
 * huggingface/safetensors.  As in its own reader, the tensors must tile the data without a hole. */
#include <stdlib.h>

#include "src/format/json.h"

enum { LENGTH_BYTES = 8, MOST_HEADER = 100000000 };

#define TW_FLOAT(dtype) {.weight = dtype}
#define TW_LATER {.weight = TW_NONE}
/* Every element type of the format (enum Dtype of safetensors' tensor.rs). */
static const tw_source_type types[] = {
    {"F32", 1, 4, TW_FLOAT(TW_F32), NULL, NULL},   {"F16", 1, 2, TW_FLOAT(TW_F16), NULL, NULL},
    {"BF16", 1, 2, TW_FLOAT(TW_BF16), NULL, NULL}, {"F64", 1, 8, TW_LATER, NULL, NULL},
    {"F8_E4M3", 1, 1, TW_LATER, NULL, NULL},       {"F8_E5M2", 1, 1, TW_LATER, NULL, NULL},
    {"F8_E8M0", 1, 1, TW_LATER, NULL, NULL},       {"F8_E4M3FNUZ", 1, 1, TW_LATER, NULL, NULL},
    {"F8_E5M2FNUZ", 1, 1, TW_LATER, NULL, NULL},   {"F6_E2M3", 4, 3, TW_LATER, NULL, NULL},
    {"F6_E3M2", 4, 3, TW_LATER, NULL, NULL},       {"F4", 2, 1, TW_LATER, NULL, NULL},
    {"I64", 1, 8, TW_LATER, NULL, NULL},           {"I32", 1, 4, TW_LATER, NULL, NULL},
    {"I16", 1, 2, TW_LATER, NULL, NULL},           {"I8", 1, 1, TW_LATER, NULL, NULL},
    {"U64", 1, 8, TW_LATER, NULL, NULL},           {"U32", 1, 4, TW_LATER, NULL, NULL},
    {"U16", 1, 2, TW_LATER, NULL, NULL},           {"U8", 1, 1, TW_LATER, NULL, NULL},
    {"BOOL", 1, 1, TW_LATER, NULL, NULL},          {"C64", 1, 8, TW_LATER, NULL, NULL},
};
#undef TW_FLOAT
#undef TW_LATER

const tw_source_type *tw_safetensors_type_named(const char *name) {
    for (size_t i = 0; i < TW_COUNT(types); i++)
        if (!strcmp(types[i].name, name)) return &types[i];
    return NULL;
}

/* The types that scales have, too; the format has no pairs, and those of ours are whole words. */
static const struct {
    const char *name;
    tw_dtype dtype;
} floats[] = {{"F32", TW_F32},      {"F16", TW_F16},      {"BF16", TW_BF16},
              {"F8_E4M3", TW_E4M3}, {"F8_E8M0", TW_E8M0}, {"U32", TW_F16I8}};

const char *tw_safetensors_type(tw_dtype dtype) {
    for (size_t i = 0; i < TW_COUNT(floats); i++)
        if (floats[i].dtype == dtype) return floats[i].name;
    return NULL;
}

tw_dtype tw_safetensors_dtype(const char *name) {
    for (size_t i = 0; i < TW_COUNT(floats); i++)
        if (!strcmp(floats[i].name, name)) return floats[i].dtype;
    return TW_NONE;
}

/* A tensor as the header describes it. */
typedef struct record {
    const char *name; /* the JSON's */
    const tw_source_type *type;
    int32_t ndim;
    int64_t shape[TW_MODEL_DIMS];
    uint64_t begin, end; /* in the data */
} record;

/* A whole number that is not negative, within 63 bits; jansson refuses greater ones itself. */
static bool natural(const json_t *value, int64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (int64_t)json_integer_value(value);
    return true;
}

static tw_status read_type(const char *label, const char *name, const json_t *value, record *r) {
    const char *text = json_is_string(value) ? json_string_value(value) : NULL;
    if (!text) return tw_fail(TW_FORMAT, "%s: tensor '%s': dtype: expected a string", label, name);
    r->type = tw_safetensors_type_named(text);
    if (!r->type)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': dtype: '%s' is none of the format's", label,
                       name, tw_show(text, strlen(text)).text);
    return TW_OK;
}

static tw_status read_shape(const char *label, const char *name, const json_t *value, record *r) {
    if (!json_is_array(value) || json_array_size(value) > TW_MODEL_DIMS)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': shape: expected at most %d sizes", label, name,
                       TW_MODEL_DIMS);
    r->ndim = (int32_t)json_array_size(value);
    for (int32_t i = 0; i < r->ndim; i++)
        if (!natural(json_array_get(value, (size_t)i), &r->shape[i]))
            return tw_fail(TW_FORMAT, "%s: tensor '%s': shape: expected whole numbers", label,
                           name);
    return TW_OK;
}

static tw_status read_record(const char *label, const char *key, const json_t *value, record *r) {
    tw_shown name = tw_show(key, strlen(key));
    const json_t *offsets = json_object_get(value, "data_offsets");
    int64_t begin, end;
    uint64_t bytes;
    *r = (record){.name = key};
    if (!json_is_object(value))
        return tw_fail(TW_FORMAT, "%s: tensor '%s': expected an object", label, name.text);
    TW_TRY(read_type(label, name.text, json_object_get(value, "dtype"), r));
    TW_TRY(read_shape(label, name.text, json_object_get(value, "shape"), r));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !natural(json_array_get(offsets, 0), &begin) || !natural(json_array_get(offsets, 1), &end))
        return tw_fail(TW_FORMAT, "%s: tensor '%s': data_offsets: expected two whole numbers",
                       label, name.text);
    if (!tw_type_bytes(r->type, r->ndim, r->shape, &bytes))
        return tw_fail(TW_FORMAT,
                       "%s: tensor '%s': its shape is no whole number of bytes in 64 bits", label,
                       name.text);
    if (end < begin || (uint64_t)(end - begin) != bytes)
        return tw_fail(TW_FORMAT,
                       "%s: tensor '%s': data_offsets: %lld to %lld, expected %llu bytes", label,
                       name.text, (long long)begin, (long long)end, (unsigned long long)bytes);
    r->begin = (uint64_t)begin;
    r->end = (uint64_t)end;
    return TW_OK;
}

/* The format wants strings, and a file with anything else is no safetensors file. */
static tw_status take_metadata(tw_model *model, const char *label, json_t *metadata) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return tw_fail(TW_FORMAT, "%s: __metadata__: expected an object", label);
    json_object_foreach(metadata, key, value) {
        tw_model_text text;
        if (!json_is_string(value))
            return tw_fail(TW_FORMAT, "%s: __metadata__: '%s': expected a string", label,
                           tw_show(key, strlen(key)).text);
        TW_TRY(tw_grow(&model->metadata, model->metadata_count, &model->metadata_capacity,
                       sizeof *model->metadata));
        TW_TRY(tw_model_keep(model, key, strlen(key), &text.key));
        TW_TRY(
            tw_model_keep(model, json_string_value(value), json_string_length(value), &text.value));
        model->metadata[model->metadata_count++] = text;
    }
    return TW_OK;
}

static int compare_records(const void *a, const void *b) {
    const record *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* records: room for one a member of the header. */
static tw_status place(tw_model *model, int32_t file, const uint8_t *data, uint64_t size,
                       json_t *header, record *records) {
    const char *label = model->files[file].label, *key;
    json_t *value;
    size_t count = 0;
    uint64_t at = 0;
    json_object_foreach(header, key, value) {
        if (!strcmp(key, "__metadata__"))
            TW_TRY(take_metadata(model, label, value));
        else
            TW_TRY(read_record(label, key, value, &records[count++]));
    }
    qsort(records, count, sizeof *records, compare_records);
    for (size_t i = 0; i < count; i++) {
        const record *r = &records[i];
        if (r->begin != at || r->end > size)
            return tw_fail(TW_FORMAT,
                           "%s: tensor '%s': data_offsets: %llu to %llu, expected to begin at %llu "
                           "and to end within %llu",
                           label, tw_show(r->name, strlen(r->name)).text,
                           (unsigned long long)r->begin, (unsigned long long)r->end,
                           (unsigned long long)at, (unsigned long long)size);
        TW_TRY(tw_model_add_tensor(model, r->name, strlen(r->name), r->type, r->ndim, r->shape,
                                   data + at, file));
        at = r->end;
    }
    if (at != size)
        return tw_fail(TW_FORMAT, "%s: %llu bytes of data, but the tensors end at %llu", label,
                       (unsigned long long)size, (unsigned long long)at);
    return TW_OK;
}

tw_status tw_safetensors_read(tw_model *model, int32_t file) {
    const tw_model_file *f = &model->files[file];
    const char *label = f->label;
    if (f->size < LENGTH_BYTES)
        return tw_fail(TW_FORMAT, "%s: %zu bytes, too short for a safetensors header", label,
                       f->size);
    uint64_t length = tw_load_u64(f->bytes), room = f->size - LENGTH_BYTES;
    if (length > MOST_HEADER || length > room)
        return tw_fail(TW_FORMAT, "%s: a header of %llu bytes, at most %llu", label,
                       (unsigned long long)length,
                       (unsigned long long)(room < MOST_HEADER ? room : MOST_HEADER));
    const uint8_t *data = f->bytes + LENGTH_BYTES + length;
    json_t *header;
    TW_TRY(tw_json_object(f->bytes + LENGTH_BYTES, (size_t)length, label, &header));
    record *records = calloc(json_object_size(header) + 1, sizeof *records);
    tw_status status = records ? place(model, file, data, room - length, header, records)
                               : tw_fail(TW_MEMORY, "%s: out of memory for its header", label);
    free(records);
    json_decref(header);
    return status;
}
