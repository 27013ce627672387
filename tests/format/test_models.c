/* Real models, where tools/fetch_models.sh has put them: their linears, and their values by digest.
 * Without them the tests skip and say so; with TW_REQUIRE_MODELS=1 they fail. */
#include <sodium.h>
#include <unistd.h>

#include "tests/format/format_test.h"

#define SMOLLM2 TW_MODELS "/SmolLM2-135M-Instruct.Q4_1.gguf"
#define MINILM TW_MODELS "/all-MiniLM-L6-v2"

static void need(const char *path) {
    const char *required = getenv("TW_REQUIRE_MODELS");
    if (!access(path, R_OK)) return;
    if (required && !strcmp(required, "1"))
        fail_msg("%s is missing and TW_REQUIRE_MODELS=1: run tools/fetch_models.sh", path);
    print_message("%s is missing: run tools/fetch_models.sh to test it\n", path);
    skip();
}

/* SHA-256 over the f32 values of the tensors that `wanted` takes, in the model's order. */
static int digest_of(const tw_model *model, bool wanted(const tw_model_tensor *), char hex[65]) {
    crypto_hash_sha256_state hash;
    unsigned char digest[crypto_hash_sha256_BYTES];
    int count = 0;
    crypto_hash_sha256_init(&hash);
    for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
        size_t values_count;
        if (!wanted(tw_model_tensor_at(model, i))) continue;
        float *values = dequantized(model, i, &values_count);
        crypto_hash_sha256_update(&hash, (const unsigned char *)values,
                                  values_count * sizeof *values);
        free(values);
        count++;
    }
    crypto_hash_sha256_final(&hash, digest);
    sodium_bin2hex(hex, 65, digest, sizeof digest);
    return count;
}

static bool first_and_last_layer(const tw_model_tensor *t) {
    return !strncmp(t->name, "blk.0.", 6) || !strncmp(t->name, "blk.29.", 7) ||
           !strcmp(t->name, "token_embd.weight") || !strcmp(t->name, "output_norm.weight");
}

static void smollm2(void **state) {
    (void)state;
    char hex[65];
    need(SMOLLM2);
    tw_model *model = opened(SMOLLM2);
    assert_int_equal(tw_model_tensor_count(model), 272);
    assert_string_equal(tw_model_architecture(model), "llama");
    assert_linears(model, (const char *const[]){"30 x "
                                                "N=576,K=1536,x=f32,w=u4,g=32,s=f16,z=value,a="
                                                "i8g32,fpmath=bf16,y=f32,bias=none,act=none Q4_1",
                                                "60 x "
                                                "N=1536,K=576,x=f32,w=u4,g=32,s=f16,z=value,a="
                                                "i8g32,fpmath=bf16,y=f32,bias=none,act=none Q4_1",
                                                "60 x "
                                                "N=192,K=576,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,"
                                                "fpmath=bf16,y=f32,bias=none,act=none Q4_1",
                                                "60 x "
                                                "N=576,K=576,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,"
                                                "fpmath=bf16,y=f32,bias=none,act=none Q4_1",
                                                "1 x "
                                                "N=49152,K=576,x=f32,w=i8,g=32,s=f16,z=none,a="
                                                "i8g32,fpmath=bf16,y=f32,bias=none,act=none Q8_0",
                                                NULL});
    /* The digest of what gguf 0.19.0 (PyPI) dequantizes the same tensors to. */
    assert_int_equal(digest_of(model, first_and_last_layer, hex), 20);
    assert_string_equal(hex, "682e6237aee0c86ff1368cd14dc31dfe8a40909d73ca9ee6d7ac2580e99d5e25");
    tw_model_close(model);
}

static void minilm(void **state) {
    (void)state;
    static const char *const linears[] = {
        "25 x N=384,K=384,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
        "6 x N=1536,K=384,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
        "6 x N=384,K=1536,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32", NULL};
    need(MINILM "/model.safetensors");
    need(MINILM "/config.json");
    /* The folder, its file and its config alone tell the same linears. */
    static const char *const paths[] = {MINILM, MINILM "/model.safetensors", MINILM "/config.json"};
    for (size_t i = 0; i < TW_COUNT(paths); i++) {
        tw_model *model = opened(paths[i]);
        assert_string_equal(tw_model_architecture(model), "bert");
        assert_int_equal(tw_model_tensor_count(model), i < 2 ? 104 : 0);
        assert_linears(model, linears);
        tw_model_close(model);
    }
}

/* Names in a config's linears are names of tensors of the checkpoint. */
static void config_names_tensors(void **state) {
    (void)state;
    need(MINILM "/model.safetensors");
    tw_model *tensors = opened(MINILM), *config = opened(MINILM "/config.json");
    tw_model_linears linears = linears_of(config);
    int count = 0;
    for (int32_t i = 0; i < linears.count; i++)
        for (int32_t k = 0; k < linears.items[i].name_count; k++, count++) {
            const char *name = linears.items[i].names[k];
            const tw_model_tensor *t = tw_model_tensor_at(tensors, tw_model_find(tensors, name));
            if (!t) fail_msg("no tensor %s", name);
            assert_int_equal(t->shape[0], linears.items[i].problem.N);
            assert_int_equal(t->shape[1], linears.items[i].problem.K);
        }
    assert_int_equal(count, 37);
    tw_model_linears_free(&linears);
    tw_model_close(config);
    tw_model_close(tensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smollm2),
        cmocka_unit_test(minilm),
        cmocka_unit_test(config_names_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
