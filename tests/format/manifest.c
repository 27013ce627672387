/* Damaged and odd files: each is treated as its manifest says. */
#include <jansson.h>

#include "tests/format/format_test.h"

int each_of_manifest(const char *manifest, check_file *check) {
    json_error_t error;
    json_t *root = json_load_file(manifest, 0, &error), *files, *file;
    size_t i;
    if (!root) fail_msg("%s: %s", manifest, error.text);
    files = json_object_get(root, "files");
    int count = (int)json_array_size(files);
    json_array_foreach(files, i, file) {
        char path[512];
        const char *name = json_string_value(json_object_get(file, "path"));
        snprintf(path, sizeof path, "%s/%s", TW_TEST_DATA, name);
        check(path, json_string_value(json_object_get(file, "must")));
    }
    json_decref(root);
    return count;
}

/* Reads all that can be read, so that a wrong bound shows under the sanitizers. */
static void read_through(const char *path) {
    tw_model *model = opened(path);
    for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
        const tw_model_tensor *t = tw_model_tensor_at(model, i);
        assert_int_equal(tw_model_find(model, t->name), i);
        if (!t->scheme.weight) continue;
        size_t count;
        free(dequantized(model, i, &count));
    }
    tw_model_linears linears = linears_of(model);
    tw_model_linears_free(&linears);
    tw_model_close(model);
}

void check_opening(const char *path, const char *must) {
    tw_model *model;
    if (!strcmp(must, "reject")) {
        refused(path);
    } else if (!strcmp(must, "accept")) {
        read_through(path);
    } else {
        assert_string_equal(must, "either");
        if (tw_model_open(path, NULL, &model)) return;
        tw_model_close(model);
        read_through(path);
    }
}
