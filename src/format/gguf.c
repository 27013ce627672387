/* GGUF, versions 2 and 3, of either byte order: header, key-value pairs, tensor infos, padding,
 * data.  The format: docs/gguf.md of ggml.  What a damaged file may look like is decided as ggml's
 * own reader (gguf.cpp) decides it: tensor data lies packed in the order of the infos, each tensor
 * padded to the alignment, so offsets that wrap, overlap, leave holes or are unaligned are refused;
 * at most four dimensions; no arrays of arrays; names under 64 bytes. */
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/format/blocks.h"
#include "src/format/model_impl.h"

enum { GGUF_DIMS = 4, GGUF_NAME = 63, GGUF_ALIGNMENT = 32 };
/* The least bytes of a key-value pair (an empty key and a byte) and of a tensor info. */
enum { LEAST_KV = 8 + 4 + 1, LEAST_INFO = 8 + 4 + 4 + 8 };

typedef enum value_type {
    V_U8,
    V_I8,
    V_U16,
    V_I16,
    V_U32,
    V_I32,
    V_F32,
    V_BOOL,
    V_STRING,
    V_ARRAY,
    V_U64,
    V_I64,
    V_F64,
    V_COUNT
} value_type;

static const uint8_t value_bytes[V_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

typedef struct span {
    const uint8_t *bytes;
    uint64_t size;
} span;

/* Reads one file front to back; `where` says in which part, for messages. */
typedef struct cursor {
    const uint8_t *bytes;
    uint64_t size, at;
    const char *label, *where;
    int32_t file;
    bool swapped; /* a big-endian file */
} cursor;

/* What the key-value pairs say that matters here. */
typedef struct facts {
    uint64_t kv_count, tensor_count;
    uint32_t alignment;
    span architecture;
    uint64_t split_no, split_count;
    int64_t split_tensors; /* of all parts; -1: not said */
} facts;

static tw_status take(cursor *c, uint64_t size, const uint8_t **out) {
    if (size > c->size - c->at)
        return tw_fail(TW_FORMAT, "%s: %s: %llu bytes at %llu, but the file ends at %llu", c->label,
                       c->where, (unsigned long long)size, (unsigned long long)c->at,
                       (unsigned long long)c->size);
    *out = c->bytes + c->at;
    c->at += size;
    return TW_OK;
}

static uint16_t u16_at(const cursor *c, const uint8_t *p) {
    return c->swapped ? __builtin_bswap16(tw_load_u16(p)) : tw_load_u16(p);
}
static uint32_t u32_at(const cursor *c, const uint8_t *p) {
    return c->swapped ? __builtin_bswap32(tw_load_u32(p)) : tw_load_u32(p);
}
static uint64_t u64_at(const cursor *c, const uint8_t *p) {
    return c->swapped ? __builtin_bswap64(tw_load_u64(p)) : tw_load_u64(p);
}

static tw_status take_u32(cursor *c, uint32_t *out) {
    const uint8_t *p = NULL;
    TW_TRY(take(c, 4, &p));
    *out = u32_at(c, p);
    return TW_OK;
}

static tw_status take_u64(cursor *c, uint64_t *out) {
    const uint8_t *p = NULL;
    TW_TRY(take(c, 8, &p));
    *out = u64_at(c, p);
    return TW_OK;
}

static tw_status take_string(cursor *c, span *out) {
    TW_TRY(take_u64(c, &out->size));
    return take(c, out->size, &out->bytes);
}

static bool is(span s, const char *text) {
    return s.size == strlen(text) && !memcmp(s.bytes, text, s.size);
}

static tw_status take_array(cursor *c, span key) {
    uint32_t type;
    uint64_t count;
    const uint8_t *skipped;
    TW_TRY(take_u32(c, &type));
    TW_TRY(take_u64(c, &count));
    if (type >= V_COUNT || type == V_ARRAY)
        return tw_fail(TW_FORMAT, "%s: key '%s': array of type %u", c->label,
                       tw_show(key.bytes, key.size).text, type);
    if (type == V_STRING) {
        span element;
        /* Each element takes at least its length field, so the file's end bounds the loop. */
        for (uint64_t i = 0; i < count; i++) TW_TRY(take_string(c, &element));
        return TW_OK;
    }
    if (count > c->size / value_bytes[type])
        return tw_fail(TW_FORMAT, "%s: key '%s': array of %llu elements in a file of %llu bytes",
                       c->label, tw_show(key.bytes, key.size).text, (unsigned long long)count,
                       (unsigned long long)c->size);
    return take(c, count * value_bytes[type], &skipped);
}

/* One key's value, when it is a fact that matters. */
static tw_status note(const cursor *c, span key, uint32_t type, span value, facts *f) {
    if (is(key, "general.alignment")) {
        if (type != V_U32)
            return tw_fail(TW_FORMAT, "%s: general.alignment: value type %u, expected u32",
                           c->label, type);
        f->alignment = u32_at(c, value.bytes);
        if (!f->alignment || (f->alignment & (f->alignment - 1)))
            return tw_fail(TW_FORMAT, "%s: general.alignment: %u, expected a power of two",
                           c->label, f->alignment);
    } else if (is(key, "general.architecture") && type == V_STRING) {
        f->architecture = value;
    } else if (is(key, "split.no") && type == V_U16) {
        f->split_no = u16_at(c, value.bytes);
    } else if (is(key, "split.count") && type == V_U16) {
        f->split_count = u16_at(c, value.bytes);
    } else if (is(key, "split.tensors.count") && type == V_I32) {
        f->split_tensors = (int32_t)u32_at(c, value.bytes);
    }
    return TW_OK;
}

static int compare_spans(const void *a, const void *b) {
    const span *x = a, *y = b;
    int order = memcmp(x->bytes, y->bytes, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static tw_status read_kv(cursor *c, facts *f, span *key) {
    uint32_t type;
    TW_TRY(take_string(c, key));
    if (!key->size) return tw_fail(TW_FORMAT, "%s: key-value pairs: an empty key", c->label);
    TW_TRY(take_u32(c, &type));
    if (type >= V_COUNT)
        return tw_fail(TW_FORMAT, "%s: key '%s': value type %u, expected 0..%d", c->label,
                       tw_show(key->bytes, key->size).text, type, V_COUNT - 1);
    if (type == V_ARRAY) return take_array(c, *key);
    span value = {.size = value_bytes[type]};
    if (type == V_STRING)
        TW_TRY(take_string(c, &value));
    else
        TW_TRY(take(c, value.size, &value.bytes));
    return note(c, *key, type, value, f);
}

static tw_status read_kvs(cursor *c, facts *f) {
    span *keys = NULL;
    int32_t count = 0, capacity = 0;
    tw_status status = TW_OK;
    c->where = "key-value pairs";
    for (uint64_t i = 0; i < f->kv_count && !status; i++) {
        status = tw_grow(&keys, count, &capacity, sizeof *keys);
        if (!status) status = read_kv(c, f, &keys[count]);
        count++;
    }
    if (!status && count) {
        qsort(keys, (size_t)count, sizeof *keys, compare_spans);
        for (int32_t i = 1; i < count && !status; i++)
            if (!compare_spans(&keys[i - 1], &keys[i]))
                status = tw_fail(TW_FORMAT, "%s: key '%s' appears twice", c->label,
                                 tw_show(keys[i].bytes, keys[i].size).text);
    }
    free(keys);
    return status;
}

static tw_status read_header(cursor *c, facts *f) {
    const uint8_t *magic = NULL;
    uint32_t version;
    c->where = "header";
    TW_TRY(take(c, 4, &magic));
    if (memcmp(magic, "GGUF", 4))
        return tw_fail(TW_FORMAT, "%s: magic '%s', expected 'GGUF'", c->label,
                       tw_show(magic, 4).text);
    TW_TRY(take_u32(c, &version));
    /* A version is a small number: one that is not has its bytes the other way round. */
    if (version && !(version & 0xffff)) {
        c->swapped = true;
        version = __builtin_bswap32(version);
    }
    if (version != 2 && version != 3)
        return tw_fail(TW_UNSUPPORTED, "%s: GGUF version %u, supported are 2 and 3", c->label,
                       version);
    TW_TRY(take_u64(c, &f->tensor_count));
    TW_TRY(take_u64(c, &f->kv_count));
    uint64_t left = c->size - c->at;
    if (f->tensor_count > left / LEAST_INFO || f->kv_count > left / LEAST_KV)
        return tw_fail(TW_FORMAT, "%s: header: %llu tensors and %llu keys in a file of %llu bytes",
                       c->label, (unsigned long long)f->tensor_count,
                       (unsigned long long)f->kv_count, (unsigned long long)c->size);
    return TW_OK;
}

/* A tensor info before its place in the file is known. */
typedef struct info {
    span name;
    const tw_source_type *type;
    int32_t ndim;
    int64_t shape[GGUF_DIMS]; /* outermost first: the file has them the other way round */
    uint64_t offset, bytes;
} info;

/* Names go into JSON and C strings: UTF-8 without a NUL. */
static tw_status check_text(const char *label, const char *what, span name) {
    json_t *text = json_stringn((const char *)name.bytes, name.size);
    json_decref(text);
    if (text && !memchr(name.bytes, 0, name.size)) return TW_OK;
    return tw_fail(TW_FORMAT, "%s: %s '%s': not UTF-8 text", label, what,
                   tw_show(name.bytes, name.size).text);
}

static tw_status check_name(const cursor *c, span name) {
    tw_shown shown = tw_show(name.bytes, name.size);
    if (name.size > GGUF_NAME)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': a name of %llu bytes, at most %d", c->label,
                       shown.text, (unsigned long long)name.size, GGUF_NAME);
    return check_text(c->label, "tensor", name);
}

static tw_status read_info(cursor *c, info *t) {
    uint32_t ndim, type;
    TW_TRY(take_string(c, &t->name));
    TW_TRY(check_name(c, t->name));
    tw_shown name = tw_show(t->name.bytes, t->name.size);
    TW_TRY(take_u32(c, &ndim));
    if (ndim > GGUF_DIMS)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': %u dimensions, at most %d", c->label, name.text,
                       ndim, GGUF_DIMS);
    t->ndim = (int32_t)ndim;
    for (int32_t i = t->ndim - 1; i >= 0; i--) {
        uint64_t size;
        TW_TRY(take_u64(c, &size));
        if (size > INT64_MAX)
            return tw_fail(TW_FORMAT, "%s: tensor '%s': a dimension of %llu", c->label, name.text,
                           (unsigned long long)size);
        t->shape[i] = (int64_t)size;
    }
    TW_TRY(take_u32(c, &type));
    TW_TRY(take_u64(c, &t->offset));
    t->type = tw_ggml_type(type);
    if (!t->type)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': element type %u is none of GGUF's", c->label,
                       name.text, type);
    int64_t row = t->ndim ? t->shape[t->ndim - 1] : 1;
    if (row % t->type->block)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': rows of %lld, expected a multiple of %u for %s",
                       c->label, name.text, (long long)row, t->type->block, t->type->name);
    if (!tw_type_bytes(t->type, t->ndim, t->shape, &t->bytes))
        return tw_fail(TW_FORMAT, "%s: tensor '%s': its size overflows 64 bits", c->label,
                       name.text);
    return TW_OK;
}

/* A copy with the bytes of each element the other way round, for as long as the model. */
static tw_status swap(tw_model *model, const cursor *c, const info *t, const uint8_t **data) {
    const char *copy;
    uint32_t width = t->type->bytes;
    if (t->type->block > 1)
        return tw_fail(TW_UNSUPPORTED, "%s: tensor '%s': blocks of %s in a big-endian file",
                       c->label, tw_show(t->name.bytes, t->name.size).text, t->type->name);
    TW_TRY(tw_model_keep(model, (const char *)*data, t->bytes, &copy));
    uint8_t *bytes = (uint8_t *)(uintptr_t)copy;
    *data = bytes;
    for (uint64_t i = 0; i < t->bytes; i += width)
        for (uint32_t j = 0; j < width / 2; j++) {
            uint8_t byte = bytes[i + j];
            bytes[i + j] = bytes[i + width - 1 - j];
            bytes[i + width - 1 - j] = byte;
        }
    return TW_OK;
}

/* Places the tensors: `data` is the aligned start of the data, which may lie at the file's end. */
static tw_status place(tw_model *model, const cursor *c, const facts *f, const info *infos,
                       int32_t count) {
    uint64_t align = f->alignment, data = c->at;
    if (count) {
        data = (c->at + align - 1) / align * align;
        if (data > c->size)
            return tw_fail(TW_FORMAT, "%s: tensor data begins at %llu, but the file ends at %llu",
                           c->label, (unsigned long long)data, (unsigned long long)c->size);
    }
    uint64_t room = c->size - data, expected = 0;
    for (int32_t i = 0; i < count; i++) {
        const info *t = &infos[i];
        tw_shown name = tw_show(t->name.bytes, t->name.size);
        if (t->offset != expected)
            return tw_fail(TW_FORMAT, "%s: tensor '%s': offset %llu, expected %llu", c->label,
                           name.text, (unsigned long long)t->offset, (unsigned long long)expected);
        /* Compared without adding: bytes may be near 2^63. */
        if (expected > room || t->bytes > room - expected)
            return tw_fail(TW_FORMAT, "%s: tensor '%s': %llu bytes at %llu, but the data has %llu",
                           c->label, name.text, (unsigned long long)t->bytes,
                           (unsigned long long)expected, (unsigned long long)room);
        const uint8_t *bytes = c->bytes + data + expected;
        if (c->swapped) TW_TRY(swap(model, c, t, &bytes));
        TW_TRY(tw_model_add_tensor(model, (const char *)t->name.bytes, t->name.size, t->type,
                                   t->ndim, t->shape, bytes, c->file));
        expected = (expected + t->bytes + align - 1) / align * align;
    }
    return TW_OK;
}

static tw_status read_tensors(tw_model *model, cursor *c, const facts *f) {
    info *infos = NULL;
    int32_t count = 0, capacity = 0;
    tw_status status = TW_OK;
    c->where = "tensor infos";
    for (uint64_t i = 0; i < f->tensor_count && !status; i++) {
        status = tw_grow(&infos, count, &capacity, sizeof *infos);
        if (!status) status = read_info(c, &infos[count]);
        count++;
    }
    if (!status) status = place(model, c, f, infos, count);
    free(infos);
    return status;
}

/* Architectures that end in embeddings, not in an output layer: llm_arch names (llama-arch.cpp). */
static const char *const encoders[] = {
    "bert",         "modern-bert",  "nomic-bert",       "nomic-bert-moe",  "neo-bert",
    "jina-bert-v2", "jina-bert-v3", "eurobert",         "gemma-embedding", "llama-embed",
    "t5encoder",    "clip",         "wavtokenizer-dec",
};

static tw_status read_file(tw_model *model, int32_t index, facts *f) {
    const tw_model_file *file = &model->files[index];
    cursor c = {.bytes = file->bytes, .size = file->size, .label = file->label, .file = index};
    *f = (facts){.alignment = GGUF_ALIGNMENT, .split_tensors = -1};
    TW_TRY(read_header(&c, f));
    TW_TRY(read_kvs(&c, f));
    return read_tensors(model, &c, f);
}

/* The model's parts are named PREFIX-00001-of-00003.gguf and so on, as gguf-split names them. `own`
 * is the part that was opened, whichever it is; only the first one's keys describe the model. */
static tw_status read_parts(tw_model *model, facts *own) {
    char path[PATH_MAX], suffix[48];
    const char *label = model->files[0].label;
    size_t size = strlen(label);
    uint64_t own_no = own->split_no;
    if (own_no >= own->split_count)
        return tw_fail(TW_FORMAT, "%s: says to be part %llu of %llu", label,
                       (unsigned long long)own_no + 1, (unsigned long long)own->split_count);
    int n = snprintf(suffix, sizeof suffix, "-%05llu-of-%05llu.gguf",
                     (unsigned long long)own_no + 1, (unsigned long long)own->split_count);
    if (size < (size_t)n || size >= sizeof path || strcmp(label + size - n, suffix))
        return tw_fail(TW_FORMAT, "%s: part %llu of a split model must be named PREFIX%s", label,
                       (unsigned long long)own_no + 1, suffix);
    for (uint64_t i = 0; i < own->split_count; i++) {
        int32_t file;
        facts f;
        if (i == own_no) continue;
        snprintf(path, sizeof path, "%.*s-%05llu-of-%05llu.gguf", (int)(size - (size_t)n), label,
                 (unsigned long long)i + 1, (unsigned long long)own->split_count);
        TW_TRY(tw_model_map(model, path, &file));
        TW_TRY(read_file(model, file, &f));
        if (f.split_no != i || f.split_count != own->split_count)
            return tw_fail(TW_FORMAT, "%s: says to be part %llu of %llu", path,
                           (unsigned long long)f.split_no + 1, (unsigned long long)f.split_count);
        if (i) continue;
        *own = f;
        model->described_by = file;
    }
    if (own->split_tensors >= 0 && own->split_tensors != model->tensor_count)
        return tw_fail(TW_FORMAT, "%s: split.tensors.count: %lld, but the parts hold %d", label,
                       (long long)own->split_tensors, model->tensor_count);
    return TW_OK;
}

tw_status tw_gguf_read(tw_model *model, int32_t file) {
    facts f;
    TW_TRY(read_file(model, file, &f));
    if (f.split_count > 1 && model->files[file].mapped) TW_TRY(read_parts(model, &f));
    if (f.architecture.bytes) {
        TW_TRY(check_text(model->files[file].label, "general.architecture", f.architecture));
        TW_TRY(tw_model_keep(model, (const char *)f.architecture.bytes, f.architecture.size,
                             &model->architecture));
        model->ties_output = true;
        for (size_t i = 0; i < TW_COUNT(encoders); i++)
            if (!strcmp(model->architecture, encoders[i])) model->ties_output = false;
    }
    return TW_OK;
}

tw_status tw_gguf_each_pair(const tw_model *model, tw_gguf_pair *each, void *user) {
    const tw_model_file *file = &model->files[model->described_by];
    cursor c = {.bytes = file->bytes, .size = file->size, .label = file->label};
    facts f = {.split_tensors = -1};
    TW_TRY(read_header(&c, &f));
    if (c.swapped)
        return tw_fail(TW_UNSUPPORTED, "%s: a big-endian file, whose keys cannot be copied",
                       c.label);
    c.where = "key-value pairs";
    for (uint64_t i = 0; i < f.kv_count; i++) {
        uint64_t begin = c.at;
        span key;
        TW_TRY(read_kv(&c, &f, &key));
        TW_TRY(each(user, (const char *)key.bytes, key.size, c.bytes + begin, c.at - begin));
    }
    return TW_OK;
}
