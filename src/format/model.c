/* The open model: what the readers fill and everybody else looks at. */
#include "src/format/model.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/format/model_impl.h"

tw_status tw_grow(void *array, int32_t count, int32_t *capacity, size_t element) {
    if (count < *capacity) return TW_OK;
    if (count >= INT32_MAX / 2) return tw_fail(TW_FORMAT, "more than %d entries", count);
    int32_t wanted = *capacity ? *capacity * 2 : 64;
    void *old;
    memcpy(&old, array, sizeof old);
    void *grown = reallocarray(old, (size_t)wanted, element);
    if (!grown) return tw_fail(TW_MEMORY, "out of memory for a list of %d entries", wanted);
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return TW_OK;
}

tw_status tw_model_keep(tw_model *model, const char *text, size_t size, const char **out) {
    TW_TRY(tw_grow(&model->strings, model->string_count, &model->string_capacity, sizeof(char *)));
    char *copy = malloc(size + 1);
    if (!copy) return tw_fail(TW_MEMORY, "out of memory for a name of %zu bytes", size);
    if (size) memcpy(copy, text, size);
    copy[size] = 0;
    model->strings[model->string_count++] = copy;
    *out = copy;
    return TW_OK;
}

bool tw_type_bytes(const tw_source_type *type, int32_t ndim, const int64_t *shape, uint64_t *out) {
    int64_t count = 1, blocks, bytes;
    bool empty = false;
    /* Zeros are left out of the product, so that they cannot hide an overflow. */
    for (int32_t i = 0; i < ndim; i++) {
        if (shape[i] == 0)
            empty = true;
        else if (__builtin_mul_overflow(count, shape[i], &count))
            return false;
    }
    if (empty) count = 0;
    if (count % type->block) return false;
    blocks = count / type->block;
    if (__builtin_mul_overflow(blocks, (int64_t)type->bytes, &bytes)) return false;
    *out = (uint64_t)bytes;
    return true;
}

tw_status tw_model_add_tensor(tw_model *model, const char *name, size_t name_size,
                              const tw_source_type *type, int32_t ndim, const int64_t *shape,
                              const uint8_t *data, int32_t file) {
    TW_TRY(tw_grow(&model->tensors, model->tensor_count, &model->tensor_capacity,
                   sizeof *model->tensors));
    tw_tensor_entry entry = {.type = type, .data = data, .file = file};
    entry.info.ndim = ndim;
    for (int32_t i = 0; i < ndim; i++) entry.info.shape[i] = shape[i];
    entry.info.type = type->name;
    entry.info.scheme = type->scheme;
    if (!tw_type_bytes(type, ndim, shape, &entry.info.bytes))
        return tw_fail(TW_INTERNAL, "tensor: its shape was not checked");
    TW_TRY(tw_model_keep(model, name, name_size, &entry.info.name));
    model->tensors[model->tensor_count++] = entry;
    return TW_OK;
}

tw_status tw_model_add_linear(tw_model *model, const tw_linear_entry *entry) {
    TW_TRY(tw_grow(&model->linears, model->linear_count, &model->linear_capacity,
                   sizeof *model->linears));
    model->linears[model->linear_count++] = *entry;
    return TW_OK;
}

static int compare_names(const void *a, const void *b) {
    const tw_tensor_entry *const *x = a, *const *y = b;
    return strcmp((*x)->info.name, (*y)->info.name);
}

tw_status tw_model_index(tw_model *model, const char *label) {
    int32_t count = model->tensor_count;
    free(model->by_name);
    model->by_name = calloc((size_t)count + 1, sizeof *model->by_name);
    if (!model->by_name) return tw_fail(TW_MEMORY, "out of memory for %d tensors", count);
    for (int32_t i = 0; i < count; i++) model->by_name[i] = &model->tensors[i];
    qsort(model->by_name, (size_t)count, sizeof *model->by_name, compare_names);
    for (int32_t i = 1; i < count; i++) {
        const char *name = model->by_name[i]->info.name;
        if (!strcmp(name, model->by_name[i - 1]->info.name))
            return tw_fail(TW_FORMAT, "%s: two tensors are named '%s'", label,
                           tw_show(name, strlen(name)).text);
    }
    return TW_OK;
}

tw_shown tw_show(const void *text, size_t size) {
    tw_shown shown;
    size_t used = 0;
    for (size_t i = 0; i < size;) {
        char next[5];
        i += tw_printable((const char *)text + i, size - i, next);
        bool fits = used + strlen(next) <= TW_MOST_SHOWN;
        strcpy(shown.text + used, fits ? next : "...");
        if (!fits) return shown;
        used += strlen(next);
    }
    shown.text[used] = 0;
    return shown;
}

void tw_fold_shape(const tw_model_tensor *tensor, int64_t *N, int64_t *K) {
    *N = 1;
    *K = tensor->ndim ? tensor->shape[tensor->ndim - 1] : 1;
    for (int32_t i = 0; i + 1 < tensor->ndim; i++) *N *= tensor->shape[i];
    /* [0, 2^50] and [2^50, 0] are empty alike: nobody shall make a row or a loop of them. */
    if (!tensor->bytes) *N = *K = 0;
}

void tw_model_release(const tw_model *model, int32_t index) {
    const tw_tensor_entry *entry = &model->tensors[index];
    const tw_model_file *file = &model->files[entry->file];
    const uint8_t *begin = file->bytes, *end = file->bytes + file->size;
    if (!file->mapped) return;
    /* Of a composite all of its file, as its parts may lie anywhere.  What is needed again is read
     * again. */
    if (entry->data) {
        /* A big-endian tensor is a copy, which is no file's. */
        if (entry->data < begin || entry->data >= end) return;
        begin = entry->data - (uintptr_t)entry->data % (uintptr_t)sysconf(_SC_PAGESIZE);
        end = entry->data + entry->info.bytes;
    }
    madvise((void *)(uintptr_t)begin, (size_t)(end - begin), MADV_DONTNEED);
}

const char *tw_model_config(const tw_model *model, size_t *size) {
    if (!model->config_file) return NULL;
    const tw_model_file *file = &model->files[model->config_file - 1];
    *size = file->size;
    return (const char *)file->bytes;
}

bool tw_model_reads(const tw_model *model, uint64_t device, uint64_t inode) {
    for (int32_t i = 0; i < model->file_count; i++) {
        struct stat st;
        if (!stat(model->files[i].label, &st) && st.st_dev == device && st.st_ino == inode)
            return true;
    }
    return false;
}

void tw_model_close(tw_model *model) {
    if (!model) return;
    for (int32_t i = 0; i < model->file_count; i++) {
        const tw_model_file *file = &model->files[i];
        if (file->mapped) munmap((void *)(uintptr_t)file->bytes, file->size);
    }
    for (int32_t i = 0; i < model->string_count; i++) free(model->strings[i]);
    for (int32_t i = 0; i < model->composite_count; i++) free(model->composites[i]);
    free(model->composites);
    free(model->files);
    free(model->tensors);
    free(model->linears);
    free(model->metadata);
    free(model->strings);
    free(model->by_name);
    free(model);
}

tw_model_kind tw_model_kind_of(const tw_model *model) { return model->kind; }

const char *tw_model_kind_name(tw_model_kind kind) {
    static const char *const names[] = {"any", "gguf", "safetensors", "config", "problems"};
    return (unsigned)kind < TW_COUNT(names) ? names[kind] : "?";
}

const char *tw_model_architecture(const tw_model *model) {
    return model->architecture ? model->architecture : "";
}

int32_t tw_model_tensor_count(const tw_model *model) { return model->tensor_count; }

const tw_model_tensor *tw_model_tensor_at(const tw_model *model, int32_t index) {
    return index >= 0 && index < model->tensor_count ? &model->tensors[index].info : NULL;
}

const char *tw_model_file_of(const tw_model *model, int32_t index) {
    if (index < 0 || index >= model->tensor_count) return NULL;
    return model->files[model->tensors[index].file].label;
}

const void *tw_model_data(const tw_model *model, int32_t index) {
    return index >= 0 && index < model->tensor_count ? model->tensors[index].data : NULL;
}

const char *tw_model_unread(const tw_model *model) { return model->unread; }

int32_t tw_model_metadata_count(const tw_model *model) { return model->metadata_count; }

const tw_model_text *tw_model_metadata_at(const tw_model *model, int32_t index) {
    return index >= 0 && index < model->metadata_count ? &model->metadata[index] : NULL;
}

int32_t tw_model_find(const tw_model *model, const char *name) {
    tw_tensor_entry wanted = {.info.name = name};
    const tw_tensor_entry *key = &wanted, **found;
    if (!model->tensor_count) return -1;
    found = bsearch(&key, model->by_name, (size_t)model->tensor_count, sizeof *model->by_name,
                    compare_names);
    return found ? (int32_t)(*found - model->tensors) : -1;
}
