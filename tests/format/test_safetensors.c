/* safetensors: files, folders, shards, values, and what must be refused. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/format/format_test.h"

static void refusals(void **state) {
    (void)state;
    int count = each_of_manifest(DATA("safetensors_broken/manifest.json"), check_opening);
    count += each_of_manifest(DATA("safetensors_broken/index/manifest.json"), check_opening);
    assert_int_equal(count, 57 + 8);
}

/* The reason counts, too: these might fail for another one. */
static void reasons(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {DATA("safetensors_broken/offsets_three.safetensors"), "expected two whole numbers"},
        {DATA("safetensors_broken/offsets_one.safetensors"), "expected two whole numbers"},
        {DATA("safetensors_broken/shape_overflow_to_32.safetensors"), "in 64 bits"},
        {DATA("safetensors_broken/header_len_max.safetensors"), "a header of 18446744073709551615"},
        {DATA("safetensors_broken/index/path_escape"), "'../missing_shard/"},
        {DATA("safetensors_broken/index/path_absolute"), "'/etc/hostname': expected the name"},
        {DATA("safetensors_broken/index/tensor_not_in_shard"), "tensor 'b' is not in its shard"},
        {DATA("safetensors_broken/index/missing_shard"), "No such file"},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        refused(cases[i][0]);
        if (!strstr(tw_error_message(), cases[i][1]))
            fail_msg("'%s' lacks '%s'", tw_error_message(), cases[i][1]);
    }
}

static void escaped_names(void **state) {
    (void)state;
    tw_model *model = opened(DATA("safetensors_broken/name_escapes.safetensors"));
    assert_true(tw_model_find(model, "a\xc3\xa9\"\\/\n\x01") >= 0);
    assert_true(tw_model_find(model, "\xf0\x9f\x98\x80") >= 0);
    tw_model_close(model);
}

static void scalars_and_empty_tensors(void **state) {
    (void)state;
    size_t count;
    tw_model *model = opened(DATA("safetensors_broken/shape_scalar_f32.safetensors"));
    free(dequantized(model, 0, &count));
    assert_int_equal(count, 1);
    tw_model_close(model);
    model = opened(DATA("safetensors_broken/shape_zero.safetensors"));
    free(dequantized(model, tw_model_find(model, "a"), &count));
    assert_int_equal(count, 0);
    tw_model_close(model);
}

/* One tensor of each float type, in two shards, against the values before they were saved. */
static void shards(void **state) {
    (void)state;
    tw_model *model = opened(DATA("sharded/plain_f16_bf16_f32"));
    tw_model *expected = opened(DATA("sharded/plain_f16_bf16_f32/expected.safetensors"));
    assert_int_equal(tw_model_tensor_count(model), 5);
    assert_string_equal(tw_model_architecture(model), "llama");
    for (int32_t i = 0; i < 5; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(model, i);
        size_t count, wanted_count;
        float *values = dequantized(model, i, &count);
        float *wanted = dequantized(expected, tw_model_find(expected, t->name), &wanted_count);
        assert_int_equal(count, wanted_count);
        assert_memory_equal(values, wanted, count * sizeof(float));
        free(values);
        free(wanted);
    }
    assert_linears(model,
                   (const char *const[]){
                       "1 x N=32,K=96,x=f32,w=f32,a=none,y=f32,bias=none,act=none F32",
                       "1 x N=24,K=32,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                       "1 x N=32,K=64,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16", NULL});
    tw_model_close(expected);
    tw_model_close(model);
    /* The index itself names the same model. */
    model = opened(DATA("sharded/plain_f16_bf16_f32/model.safetensors.index.json"));
    assert_int_equal(tw_model_tensor_count(model), 5);
    tw_model_close(model);
}

/* A quantized checkpoint of another library is listed, but its linears are not guessed at. */
static void quantized_checkpoints(void **state) {
    (void)state;
    /* One layer's parts lie in different shards: together they are two weights and their biases. */
    tw_model *model = opened(DATA("sharded/gptq_2_shards"));
    assert_int_equal(tw_model_tensor_count(model), 6);
    tw_model_close(model);
}

/* Removes what the tests below put into a folder of their own. */
static void empty(const char *folder) {
    static const char *const names[] = {"a.safetensors", "b.safetensors", "config.json",
                                        "model.safetensors.index.json"};
    char path[160];
    for (size_t i = 0; i < TW_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
}

/* Tensors that an index does not list are left out, and the log says so. */
static void note_line(void *user, tw_log_level level, const char *line) {
    assert_int_equal(level, TW_LOG_WARN);
    assert_non_null(strstr(line, ": 1 tensors"));
    ++*(int *)user;
}

static void unlisted_tensors(void **state) {
    (void)state;
    static const char index[] = "{\"weight_map\":{\"b\":\"a.safetensors\"}}";
    char bytes[1024];
    int lines = 0;
    tw_logger logger = {{note_line, &lines}, TW_LOG_WARN};
    char folder[] = "format-folder-XXXXXX";
    tw_model *model;
    size_t size = load(DATA("safetensors_broken/order_swapped.safetensors"), bytes, sizeof bytes);
    assert_non_null(mkdtemp(folder));
    save(folder, "a.safetensors", bytes, size);
    save(folder, "model.safetensors.index.json", index, sizeof index - 1);
    assert_int_equal(tw_model_open(folder, &logger, &model), TW_OK);
    assert_int_equal(lines, 1);
    assert_int_equal(tw_model_tensor_count(model), 1);
    assert_string_equal(tw_model_tensor_at(model, 0)->name, "b");
    tw_model_close(model);
    /* A name that two shards have is the one of the shard that the index says. */
    static const char chosen[] =
        "{\"weight_map\":{\"a\":\"a.safetensors\",\"b\":\"b.safetensors\"}}";
    float *values;
    size_t count;
    save(folder, "model.safetensors.index.json", chosen, sizeof chosen - 1);
    memset(bytes + size - 32, 0, 32);
    save(folder, "b.safetensors", bytes, size);
    model = opened(folder);
    assert_int_equal(tw_model_tensor_count(model), 2);
    values = dequantized(model, tw_model_find(model, "b"), &count);
    for (size_t i = 0; i < count; i++) assert_true(values[i] == 0);
    free(values);
    tw_model_close(model);
    empty(folder);
    assert_int_equal(rmdir(folder), 0);
}

static void folders(void **state) {
    (void)state;
    static const char file[] = "\x02\0\0\0\0\0\0\0{}";
    static const char config[] =
        "{\"model_type\":\"bert\",\"hidden_size\":8,\"intermediate_size\":16,\"vocab_size\":9,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"architectures\":[\"BertModel\"]}";
    char folder[] = "format-folder-XXXXXX";
    tw_model *model;
    assert_non_null(mkdtemp(folder));
    assert_int_equal(refused(folder), TW_IO);
    save(folder, "config.json", config, sizeof config - 1);
    model = opened(folder);
    assert_int_equal(tw_model_kind_of(model), TW_MODEL_CONFIG);
    tw_model_close(model);
    /* One file of any name is the model, and the config then says only what it is. */
    save(folder, "a.safetensors", file, 10);
    model = opened(folder);
    assert_int_equal(tw_model_kind_of(model), TW_MODEL_SAFETENSORS);
    assert_string_equal(tw_model_architecture(model), "bert");
    assert_linears(model, (const char *const[]){NULL});
    tw_model_close(model);
    save(folder, "b.safetensors", file, 10);
    assert_int_equal(refused(folder), TW_FORMAT);
    assert_non_null(strstr(tw_error_message(), "index.json"));
    empty(folder);
    /* A config that is not JSON is no reason to guess. */
    save(folder, "a.safetensors", file, 10);
    save(folder, "config.json", "{", 1);
    assert_int_equal(refused(folder), TW_FORMAT);
    empty(folder);
    assert_int_equal(rmdir(folder), 0);
}

/* A file of nothing but these bytes is of no kind. */
static void unknown_content(void **state) {
    (void)state;
    static const char bytes[] = "\x7f"
                                "ELF\0\1\2\3\4\5\6\7";
    tw_model *model;
    assert_int_equal(tw_model_open_bytes(bytes, sizeof bytes, TW_MODEL_ANY, "memory", &model),
                     TW_FORMAT);
    assert_string_equal(tw_error_message(),
                        "memory: neither GGUF nor safetensors nor a config.json "
                        "nor a text of problems");
    assert_int_equal(tw_model_open_bytes("", 0, TW_MODEL_ANY, "memory", &model), TW_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),
        cmocka_unit_test(reasons),
        cmocka_unit_test(escaped_names),
        cmocka_unit_test(scalars_and_empty_tensors),
        cmocka_unit_test(shards),
        cmocka_unit_test(unlisted_tensors),
        cmocka_unit_test(quantized_checkpoints),
        cmocka_unit_test(folders),
        cmocka_unit_test(unknown_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
