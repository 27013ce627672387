/* Opening: which format is it, which files belong to it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/format/json.h"

tw_status tw_model_add_bytes(tw_model *model, const void *bytes, size_t size, const char *label,
                             int32_t *file) {
    TW_TRY(tw_grow(&model->files, model->file_count, &model->file_capacity, sizeof *model->files));
    tw_model_file entry = {.bytes = bytes, .size = size};
    TW_TRY(tw_model_keep(model, label, strlen(label), &entry.label));
    model->files[model->file_count] = entry;
    *file = model->file_count++;
    return TW_OK;
}

/* Leaves the descriptor to the caller, who closes it either way. */
static tw_status map(tw_model *model, int fd, const char *path, int32_t *file) {
    struct stat st;
    if (fstat(fd, &st)) return tw_fail(TW_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return tw_fail(TW_IO, "%s: not a regular file", path);
    if (st.st_size == 0) return tw_fail(TW_FORMAT, "%s: the file is empty", path);
    if ((uint64_t)st.st_size > SIZE_MAX)
        return tw_fail(TW_IO, "%s: %lld bytes do not fit the address space", path,
                       (long long)st.st_size);
    TW_TRY(tw_model_add_bytes(model, NULL, 0, path, file));
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) return tw_fail(TW_IO, "%s: mmap: %s", path, strerror(errno));
    tw_model_file *entry = &model->files[*file];
    entry->bytes = bytes;
    entry->size = (size_t)st.st_size;
    entry->mapped = true;
    return TW_OK;
}

tw_status tw_model_map(tw_model *model, const char *path, int32_t *file) {
    /* O_NONBLOCK: opening a pipe must not wait for its writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return tw_fail(TW_IO, "%s: %s", path, strerror(errno));
    tw_status status = map(model, fd, path, file);
    close(fd);
    return status;
}

/* The kind by content.  The name decides only which reader gets to say what is wrong with a file
 * that looks like nothing. */
static tw_model_kind detect(const tw_model_file *file) {
    enum { SAFETENSORS_HEADER = 100000000 }; /* the format's own limit */
    const uint8_t *bytes = file->bytes;
    size_t size = file->size, i = 0;
    if (size >= 4 && !memcmp(bytes, "GGUF", 4)) return TW_MODEL_GGUF;
    /* A header length: eight bytes that no text begins with. */
    if (size >= 8 && tw_load_u64(bytes) <= SAFETENSORS_HEADER) return TW_MODEL_SAFETENSORS;
    if (tw_ends_with(file->label, ".gguf")) return TW_MODEL_GGUF;
    if (tw_ends_with(file->label, ".safetensors")) return TW_MODEL_SAFETENSORS;
    while (i < size && strchr(" \t\r\n", bytes[i]) && bytes[i]) i++;
    if (i < size && bytes[i] == '{') return TW_MODEL_CONFIG;
    return memchr(bytes, 0, size) ? TW_MODEL_ANY : TW_MODEL_PROBLEMS;
}

static tw_status read_as(tw_model *model, tw_model_kind kind, int32_t file) {
    model->kind = kind;
    switch (kind) {
    case TW_MODEL_GGUF: return tw_gguf_read(model, file);
    case TW_MODEL_SAFETENSORS: return tw_safetensors_read(model, file);
    case TW_MODEL_CONFIG: return tw_hf_config_read(model, file);
    case TW_MODEL_PROBLEMS: return tw_problems_read(model, file);
    case TW_MODEL_ANY: break;
    }
    return tw_fail(TW_FORMAT,
                   "%s: neither GGUF nor safetensors nor a config.json nor a text of problems",
                   model->files[file].label);
}

/* What follows once all files are read. */
static tw_status finish(tw_model *model) {
    TW_TRY(tw_model_index(model, model->files[0].label));
    TW_TRY(tw_compose_model(model));
    return tw_model_classify(model);
}

/* An index of shards is an object with a weight_map; a config has none. */
static bool is_index(const tw_model_file *file) {
    json_t *root;
    if (tw_json_object(file->bytes, file->size, file->label, &root)) return false;
    bool found = json_object_get(root, "weight_map");
    json_decref(root);
    return found;
}

static tw_status open_path(tw_model *model, const char *path) {
    struct stat st;
    int32_t file;
    if (!stat(path, &st) && S_ISDIR(st.st_mode)) {
        TW_TRY(tw_safetensors_open_folder(model, path));
        return finish(model);
    }
    TW_TRY(tw_model_map(model, path, &file));
    tw_model_kind kind = detect(&model->files[file]);
    if (kind == TW_MODEL_CONFIG && is_index(&model->files[file])) {
        model->kind = kind = TW_MODEL_SAFETENSORS;
        TW_TRY(tw_safetensors_read_index(model, file));
    } else {
        TW_TRY(read_as(model, kind, file));
    }
    if (kind == TW_MODEL_SAFETENSORS) TW_TRY(tw_safetensors_read_config(model, path));
    return finish(model);
}

static tw_status open_bytes(tw_model *model, const void *bytes, size_t size, tw_model_kind kind,
                            const char *label) {
    int32_t file;
    if (!size) return tw_fail(TW_FORMAT, "%s: the file is empty", label);
    TW_TRY(tw_model_add_bytes(model, bytes, size, label, &file));
    TW_TRY(read_as(model, kind ? kind : detect(&model->files[file]), file));
    return finish(model);
}

static tw_status open_pair(tw_model *model, const void *bytes, size_t size, const void *config,
                           size_t config_size, const char *label) {
    int32_t file;
    model->kind = TW_MODEL_SAFETENSORS;
    TW_TRY(tw_model_add_bytes(model, bytes, size, label, &file));
    TW_TRY(tw_safetensors_read(model, file));
    TW_TRY(tw_model_add_bytes(model, config, config_size, "config.json", &file));
    TW_TRY(tw_hf_config_read(model, file));
    return finish(model);
}

/* The only place where a model is made: whatever fails, it is closed here. */
static tw_status conclude(tw_model *model, tw_status status, tw_model **out) {
    if (status) {
        tw_model_close(model);
        return status;
    }
    model->logger = NULL;
    *out = model;
    return TW_OK;
}

tw_status tw_model_open(const char *path, const tw_logger *logger, tw_model **out) {
    tw_model *model = calloc(1, sizeof *model);
    if (!model) return tw_fail(TW_MEMORY, "out of memory for a model");
    model->logger = logger;
    return conclude(model, open_path(model, path), out);
}

tw_status tw_model_open_bytes(const void *bytes, size_t size, tw_model_kind kind, const char *label,
                              tw_model **out) {
    tw_model *model = calloc(1, sizeof *model);
    if (!model) return tw_fail(TW_MEMORY, "out of memory for a model");
    return conclude(model, open_bytes(model, bytes, size, kind, label), out);
}

tw_status tw_model_open_bytes_with_config(const void *bytes, size_t size, const void *config,
                                          size_t config_size, const char *label, tw_model **out) {
    tw_model *model = calloc(1, sizeof *model);
    if (!model) return tw_fail(TW_MEMORY, "out of memory for a model");
    tw_status status = open_pair(model, bytes, size, config, config_size, label);
    return conclude(model, status, out);
}
