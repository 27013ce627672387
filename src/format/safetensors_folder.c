/* A checkpoint of several safetensors files: a folder, or the index that says which tensor lies in
 * which shard (transformers' model.safetensors.index.json); and the config.json beside it. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "src/base/str.h"
#include "src/format/json.h"

#define TW_INDEX "model.safetensors.index.json"

static tw_status join(const char *folder, size_t folder_size, const char *name,
                      char path[PATH_MAX]) {
    int n = snprintf(path, PATH_MAX, "%.*s/%s", (int)folder_size, folder, name);
    if (n < 0 || n >= PATH_MAX)
        return tw_fail(TW_IO, "%s: the path is longer than %d bytes", name, PATH_MAX);
    return TW_OK;
}

static bool exists(const char *path) {
    struct stat st;
    return !stat(path, &st);
}

/* An index may name files of its own folder only: a path that leads elsewhere reads what its
 * author should not choose. */
static tw_status check_shard(const char *label, const json_t *value, const char **out) {
    const char *name = json_is_string(value) ? json_string_value(value) : NULL;
    if (!name) return tw_fail(TW_FORMAT, "%s: weight_map: expected file names", label);
    if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
        return tw_fail(TW_FORMAT,
                       "%s: weight_map: '%s': expected the name of a file in this folder", label,
                       tw_show(name, strlen(name)).text);
    *out = name;
    return TW_OK;
}

/* Reads each shard once; shards maps their names to numbers of files. */
static tw_status read_shards(tw_model *model, const char *label, size_t folder, json_t *map,
                             json_t *shards) {
    const char *key, *name = NULL;
    json_t *value;
    json_object_foreach(map, key, value) {
        char path[PATH_MAX];
        int32_t file;
        TW_TRY(check_shard(label, value, &name));
        if (json_object_get(shards, name)) continue;
        TW_TRY(join(label, folder, name, path));
        TW_TRY(tw_model_map(model, path, &file));
        TW_TRY(tw_safetensors_read(model, file));
        if (json_object_set_new(shards, name, json_integer(file)))
            return tw_fail(TW_MEMORY, "%s: out of memory for its shards", label);
    }
    return TW_OK;
}

/* Keeps the tensors that the index lists, as transformers does, and misses none of them. */
static tw_status select_listed(tw_model *model, const char *label, json_t *map, json_t *shards) {
    int32_t kept = 0;
    for (int32_t i = 0; i < model->tensor_count; i++) {
        const tw_tensor_entry *t = &model->tensors[i];
        const char *shard = json_string_value(json_object_get(map, t->info.name));
        if (shard && json_integer_value(json_object_get(shards, shard)) == t->file) {
            /* Marked by removal: what is left in the end was found nowhere. */
            json_object_del(map, t->info.name);
            model->tensors[kept++] = *t;
        }
    }
    if (kept < model->tensor_count)
        tw_log_line(model->logger, TW_LOG_WARN,
                    "%s: %d tensors of the shards are not in the index and are left out", label,
                    model->tensor_count - kept);
    model->tensor_count = kept;
    const char *missing = json_object_iter_key(json_object_iter(map));
    if (missing)
        return tw_fail(TW_FORMAT, "%s: weight_map: tensor '%s' is not in its shard", label,
                       tw_show(missing, strlen(missing)).text);
    return TW_OK;
}

tw_status tw_safetensors_read_index(tw_model *model, int32_t file) {
    const char *label = model->files[file].label, *slash = strrchr(label, '/');
    json_t *root, *map, *shards;
    char here[PATH_MAX];
    /* A bare file name lies in the working folder. */
    if (!slash) {
        TW_TRY(join(".", 1, label, here));
        label = here;
        slash = strrchr(here, '/');
    }
    TW_TRY(tw_json_object(model->files[file].bytes, model->files[file].size, label, &root));
    map = json_object_get(root, "weight_map");
    shards = json_object();
    tw_status status;
    if (!json_is_object(map))
        status = tw_fail(TW_FORMAT, "%s: no weight_map", label);
    else if (!shards)
        status = tw_fail(TW_MEMORY, "%s: out of memory for its shards", label);
    else
        status = read_shards(model, label, (size_t)(slash - label), map, shards);
    if (!status) status = select_listed(model, label, map, shards);
    json_decref(shards);
    json_decref(root);
    return status;
}

/* The folder's only *.safetensors file; found is empty when there is none. */
static tw_status find_only(const char *folder, char found[NAME_MAX + 1]) {
    DIR *dir = opendir(folder);
    tw_status status = TW_OK;
    found[0] = 0;
    if (!dir) return tw_fail(TW_IO, "%s: cannot be listed", folder);
    for (struct dirent *entry; !status && (entry = readdir(dir));) {
        if (!tw_ends_with(entry->d_name, ".safetensors")) continue;
        if (found[0])
            status = tw_fail(TW_FORMAT, "%s: several safetensors files, but no " TW_INDEX, folder);
        else
            snprintf(found, NAME_MAX + 1, "%s", entry->d_name);
    }
    closedir(dir);
    return status;
}

static tw_status map_in(tw_model *model, const char *folder, const char *name, int32_t *file) {
    char path[PATH_MAX];
    TW_TRY(join(folder, strlen(folder), name, path));
    return tw_model_map(model, path, file);
}

static bool exists_in(const char *folder, const char *name) {
    char path[PATH_MAX];
    return !join(folder, strlen(folder), name, path) && exists(path);
}

tw_status tw_safetensors_open_folder(tw_model *model, const char *folder) {
    char found[NAME_MAX + 1];
    int32_t file;
    model->kind = TW_MODEL_SAFETENSORS;
    if (exists_in(folder, TW_INDEX)) {
        TW_TRY(map_in(model, folder, TW_INDEX, &file));
        TW_TRY(tw_safetensors_read_index(model, file));
        return tw_safetensors_read_config(model, model->files[file].label);
    }
    if (exists_in(folder, "model.safetensors"))
        strcpy(found, "model.safetensors");
    else
        TW_TRY(find_only(folder, found));
    if (found[0]) {
        TW_TRY(map_in(model, folder, found, &file));
        TW_TRY(tw_safetensors_read(model, file));
        return tw_safetensors_read_config(model, model->files[file].label);
    }
    if (!exists_in(folder, "config.json"))
        return tw_fail(TW_IO, "%s: a folder without a safetensors file or a config.json", folder);
    model->kind = TW_MODEL_CONFIG;
    TW_TRY(map_in(model, folder, "config.json", &file));
    return tw_hf_config_read(model, file);
}

tw_status tw_safetensors_read_config(tw_model *model, const char *path) {
    const char *slash = strrchr(path, '/');
    char config[PATH_MAX];
    int32_t file;
    TW_TRY(join(slash ? path : ".", slash ? (size_t)(slash - path) : 1, "config.json", config));
    if (!exists(config)) return TW_OK;
    TW_TRY(tw_model_map(model, config, &file));
    return tw_hf_config_read(model, file);
}
