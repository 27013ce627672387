/* What the readers of this folder share: the open model and how a reader fills it. */
#ifndef TW_FORMAT_MODEL_IMPL_H
#define TW_FORMAT_MODEL_IMPL_H

#include <string.h>

#include "src/base/status.h"
#include "src/format/blocks.h"
#include "src/format/model.h"

/* Files are read as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the readers assume a little-endian host");

static inline uint16_t tw_load_u16(const void *p) {
    uint16_t v;
    return memcpy(&v, p, sizeof v), v;
}
static inline uint32_t tw_load_u32(const void *p) {
    uint32_t v;
    return memcpy(&v, p, sizeof v), v;
}
static inline uint64_t tw_load_u64(const void *p) {
    uint64_t v;
    return memcpy(&v, p, sizeof v), v;
}

typedef struct tw_model_file {
    const uint8_t *bytes;
    size_t size;
    bool mapped;
    const char *label; /* for messages */
} tw_model_file;

typedef struct tw_composite tw_composite; /* compose.h */

typedef struct tw_tensor_entry {
    tw_model_tensor info;
    const tw_source_type *type;
    const uint8_t *data;           /* info.bytes of it lie within the file; NULL for a composite */
    const tw_composite *composite; /* made of several of the file's tensors; else NULL */
    int32_t file;
    bool declared_linear; /* where the model declares its linears */
} tw_tensor_entry;

/* One linear, or `count` alike ones under one name. */
typedef struct tw_linear_entry {
    tw_problem problem;
    const char *type, *name;
    int64_t count;
    int32_t tensor;
} tw_linear_entry;

struct tw_model {
    tw_model_kind kind;
    int32_t described_by;     /* GGUF: the file whose keys describe the model */
    const tw_logger *logger;  /* only while opening */
    const char *architecture; /* as the file names it; NULL: unknown */
    /* Without a tensor for the output layer the token embedding is one. */
    bool ties_output;
    bool declares_linears;    /* says of each tensor whether it is one: names decide nothing */
    int32_t config_file;      /* 1 + that of the config.json; 0: none */
    const char *quantization; /* JSON: config.json's quantization_config; NULL without */
    const char *refusal;      /* why the linears cannot be told, else NULL */
    const char *unread;       /* why quantized weights are left as they lie, else NULL */
    tw_model_file *files;
    tw_tensor_entry *tensors;
    tw_linear_entry *linears;
    tw_model_text *metadata;
    tw_composite **composites;
    char **strings;                  /* owned text behind the pointers above */
    const tw_tensor_entry **by_name; /* sorted, once all tensors are in */
    int32_t file_count, file_capacity, tensor_count, tensor_capacity, linear_count, linear_capacity,
        metadata_count, metadata_capacity, composite_count, composite_capacity, string_count,
        string_capacity;
};

/* ---- filling a model (model.c, files.c) ---- */

/* Makes room for one more element; grows geometrically, so never by a count that a file claims. */
tw_status tw_grow(void *array, int32_t count, int32_t *capacity, size_t element);
/* A copy that lives as long as the model. */
tw_status tw_model_keep(tw_model *model, const char *text, size_t size, const char **out);
tw_status tw_model_add_bytes(tw_model *model, const void *bytes, size_t size, const char *label,
                             int32_t *file);
/* Maps a regular, non-empty file. */
tw_status tw_model_map(tw_model *model, const char *path, int32_t *file);
/* Copies name; data must hold info.bytes (tw_type_bytes() of its shape). */
tw_status tw_model_add_tensor(tw_model *model, const char *name, size_t name_size,
                              const tw_source_type *type, int32_t ndim, const int64_t *shape,
                              const uint8_t *data, int32_t file);
tw_status tw_model_add_linear(tw_model *model, const tw_linear_entry *entry);
/* Bytes of a tensor; false when the element count or the bytes leave int64 or do not make whole
 * blocks.  Negative dimensions must have been refused. */
bool tw_type_bytes(const tw_source_type *type, int32_t ndim, const int64_t *shape, uint64_t *out);
/* N and K of model.h's canonical tensor. */
void tw_fold_shape(const tw_model_tensor *tensor, int64_t *N, int64_t *K);
/* Sorts tensors by name and refuses two of one name. */
tw_status tw_model_index(tw_model *model, const char *label);
/* Makes one tensor of those that a quantized checkpoint keeps a weight in (compose.c). */
tw_status tw_compose_model(tw_model *model);
/* "Embedding" or "Linear": what a module of this name is, which has a weight of two dimensions. */
const char *tw_module_class(const char *module);
/* Decides is_linear for every tensor and collects the linears (classify.c). */
tw_status tw_model_classify(tw_model *model);

/* The beginning of a hostile text, printable, for messages. */
enum { TW_MOST_SHOWN = 64 };
typedef struct tw_shown {
    char text[TW_MOST_SHOWN + 4];
} tw_shown;
tw_shown tw_show(const void *text, size_t size);

static inline bool tw_ends_with(const char *text, const char *suffix) {
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && !strcmp(text + n - m, suffix);
}

/* ---- the readers: each takes a file of the model and checks it whole ---- */

/* A split model's other parts are opened too, unless the file is borrowed memory. */
tw_status tw_gguf_read(tw_model *model, int32_t file);
/* One key-value pair of a GGUF file: its key, and the whole of it as it lies there. */
typedef tw_status tw_gguf_pair(void *user, const char *key, uint64_t key_size, const uint8_t *pair,
                               uint64_t size);
/* All of an open GGUF model.  Errors: UNSUPPORTED (a big-endian file), each()'s. */
tw_status tw_gguf_each_pair(const tw_model *model, tw_gguf_pair *each, void *user);
/* An element type of safetensors; NULL for a name that none has. */
const tw_source_type *tw_safetensors_type_named(const char *name);
/* What f32, f16, bf16, e4m3 and e8m0 are called there, and back; NULL, TW_NONE for others. */
const char *tw_safetensors_type(tw_dtype dtype);
tw_dtype tw_safetensors_dtype(const char *name);
/* A safetensors file; an index with its shards; a folder of either, or with a config.json alone. */
tw_status tw_safetensors_read(tw_model *model, int32_t file);
tw_status tw_safetensors_read_index(tw_model *model, int32_t file);
tw_status tw_safetensors_open_folder(tw_model *model, const char *folder);
/* The config.json in the folder of this file, if there is one. */
tw_status tw_safetensors_read_config(tw_model *model, const char *path);
/* Facts for a checkpoint's tensors, or, when the model's kind is CONFIG, its linears. */
tw_status tw_hf_config_read(tw_model *model, int32_t file);
tw_status tw_problems_read(tw_model *model, int32_t file);

#endif
