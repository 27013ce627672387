/* The writer: what it writes reads back, and what is wrong is refused. */
#include <unistd.h>

#include "src/format/safetensors_write.h"
#include "tests/format/format_test.h"

static char folder[64], target[128];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "format-write-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(target, sizeof target, "%s/out.safetensors", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(target);
    return rmdir(folder);
}

static const tw_safetensors_tensor tensors[] = {
    {"matrix", "F32", 2, {3, 5}},
    {"empty", "F32", 2, {0, 4}},
    {"scalar", "F32", 0, {0}},
    {"name \"with\" \xc3\xa9 and \n", "F32", 1, {2}},
};
enum { VALUES = 15 + 1 + 2 };

/* A file that is full after so many bytes. */
typedef struct disk {
    FILE *file;
    size_t room;
} disk;

static tw_status write_disk(void *user, const void *bytes, size_t size) {
    disk *d = user;
    if (size > d->room) return tw_fail(TW_IO, "the disk is full");
    d->room -= size;
    assert_int_equal(fwrite(bytes, 1, size, d->file), size);
    return TW_OK;
}

static tw_status create(disk *d, size_t room, const tw_safetensors_tensor *list, int32_t count,
                        tw_safetensors_writer **out) {
    const tw_sink sink = {write_disk, d};
    const tw_model_text text = {"who", "me \xc3\xa9"};
    *d = (disk){open_file(target, "wb"), room};
    tw_status status = tw_safetensors_create(&sink, list, count, &text, 1, out);
    if (status) fclose(d->file);
    return status;
}

static tw_safetensors_writer *created(disk *d) {
    tw_safetensors_writer *w = NULL;
    if (create(d, SIZE_MAX, tensors, TW_COUNT(tensors), &w)) fail_msg("%s", tw_error_message());
    return w;
}

static void round_trip(void **state) {
    (void)state;
    float values[VALUES];
    for (int i = 0; i < VALUES; i++) values[i] = (float)i / 7;
    disk d;
    tw_safetensors_writer *w = created(&d);
    /* In pieces that end anywhere. */
    for (int i = 0; i < VALUES; i += 4)
        assert_int_equal(
            tw_safetensors_append(w, values + i,
                                  sizeof(float) * (size_t)(VALUES - i < 4 ? VALUES - i : 4)),
            TW_OK);
    assert_int_equal(tw_safetensors_finish(w), TW_OK);
    assert_int_equal(fclose(d.file), 0);

    tw_model *model = opened(target);
    const float *at = values;
    assert_int_equal(tw_model_tensor_count(model), TW_COUNT(tensors));
    assert_int_equal(tw_model_metadata_count(model), 2);
    assert_string_equal(tw_model_metadata_at(model, 0)->value, "pt");
    assert_string_equal(tw_model_metadata_at(model, 1)->value, "me \xc3\xa9");
    for (size_t i = 0; i < TW_COUNT(tensors); i++) {
        int32_t index = tw_model_find(model, tensors[i].name);
        const tw_model_tensor *t = tw_model_tensor_at(model, index);
        assert_non_null(t);
        assert_string_equal(t->type, "F32");
        assert_int_equal(t->ndim, tensors[i].ndim);
        assert_memory_equal(t->shape, tensors[i].shape, sizeof(int64_t) * (size_t)t->ndim);
        size_t count;
        float *read = dequantized(model, index, &count);
        assert_memory_equal(read, at, count * sizeof(float));
        at += count;
        free(read);
    }
    tw_model_close(model);
}

/* More than the buffer, so that data reaches the file before the end. */
static void large(void **state) {
    (void)state;
    enum { N = 700001 };
    const tw_safetensors_tensor tensor = {"x", "F32", 1, {N}};
    float *values = malloc(N * sizeof *values), *read;
    for (int i = 0; i < N; i++) values[i] = (float)i;
    tw_safetensors_writer *w;
    disk d;
    assert_int_equal(create(&d, SIZE_MAX, &tensor, 1, &w), TW_OK);
    assert_int_equal(tw_safetensors_append(w, values, N * sizeof *values), TW_OK);
    assert_int_equal(tw_safetensors_finish(w), TW_OK);
    assert_int_equal(fclose(d.file), 0);
    tw_model *model = opened(target);
    size_t count;
    read = dequantized(model, 0, &count);
    assert_int_equal(count, N);
    assert_memory_equal(read, values, N * sizeof *values);
    free(read);
    free(values);
    tw_model_close(model);
}

static void too_few_and_too_many(void **state) {
    (void)state;
    const float values[VALUES + 1] = {0};
    disk d;
    tw_safetensors_writer *w = created(&d);
    assert_int_equal(tw_safetensors_append(w, values, (VALUES - 1) * sizeof *values), TW_OK);
    assert_int_equal(tw_safetensors_finish(w), TW_INVALID);
    fclose(d.file);

    w = created(&d);
    assert_int_equal(tw_safetensors_append(w, values, (VALUES + 1) * sizeof *values), TW_INVALID);
    tw_safetensors_discard(w);
    tw_safetensors_discard(NULL);
    fclose(d.file);
}

static void bad_arguments(void **state) {
    (void)state;
    static const struct {
        tw_safetensors_tensor tensors[2];
        const char *words;
    } cases[] = {
        {{{"a", "F32", 1, {1}}, {"a", "F32", 1, {1}}}, "its name is taken"},
        {{{"a", "F32", 1, {1}}, {"__metadata__", "F32", 1, {1}}}, "its name is taken"},
        {{{"a", "F32", 1, {1}}, {"\xff", "F32", 1, {1}}}, "UTF-8"},
        {{{"a", "F32", 1, {1}}, {"b", "F32", 1, {-1}}}, "shape out of range"},
        {{{"a", "F32", 1, {1}}, {"b", "F32", 2, {INT64_MAX / 8, 8}}}, "shape out of range"},
        {{{"a", "F32", 1, {INT64_MAX / 4}}, {"b", "F32", 1, {INT64_MAX / 4}}},
         "shape out of range"},
        {{{"a", "F32", 1, {1}}, {"b", "F32", TW_MODEL_DIMS + 1, {1}}}, "shape out of range"},
        {{{"a", "F32", 1, {1}}, {"b", "F4", 1, {3}}}, "shape out of range"},
        {{{"a", "F32", 1, {1}}, {"b", "Q4_0", 1, {32}}}, "no element type Q4_0"},
    };
    tw_safetensors_writer *w;
    disk d;
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        assert_int_equal(create(&d, SIZE_MAX, cases[i].tensors, 2, &w), TW_INVALID);
        if (!strstr(tw_error_message(), cases[i].words)) fail_msg("%s", tw_error_message());
    }
}

/* At the header, in the middle, at the very end. */
static void full_disk(void **state) {
    (void)state;
    enum { N = 1 << 20, END = N * 4 + 8 };
    static const size_t rooms[] = {0, 2 << 20, END};
    const tw_safetensors_tensor tensor = {"x", "F32", 1, {N}};
    float *values = calloc(N, sizeof *values);
    for (size_t i = 0; i < TW_COUNT(rooms); i++) {
        tw_safetensors_writer *w;
        disk d;
        assert_int_equal(create(&d, rooms[i], &tensor, 1, &w), TW_OK);
        tw_status status = tw_safetensors_append(w, values, N * sizeof *values);
        if (!status)
            status = tw_safetensors_finish(w);
        else
            tw_safetensors_discard(w);
        assert_int_equal(status, TW_IO);
        assert_string_equal(tw_error_message(), "the disk is full");
        fclose(d.file);
    }
    free(values);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(round_trip),    IN_FOLDER(large),     IN_FOLDER(too_few_and_too_many),
        IN_FOLDER(bad_arguments), IN_FOLDER(full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
