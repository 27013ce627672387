/* Linears of a config.json alone, and what a config must not say. */
#include "tests/format/format_test.h"

/* Configs as their models have them, by the fields that count. */
static const char smollm2[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":576,"
    "\"intermediate_size\":1536,\"num_attention_heads\":9,\"num_key_value_heads\":3,"
    "\"num_hidden_layers\":30,\"vocab_size\":49152,\"tie_word_embeddings\":true,"
    "\"torch_dtype\":\"bfloat16\"}";
static const char qwen2[] =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"hidden_size\":3584,"
    "\"intermediate_size\":18944,\"num_attention_heads\":28,\"num_key_value_heads\":4,"
    "\"num_hidden_layers\":28,\"vocab_size\":152064,\"torch_dtype\":\"bfloat16\"}";
static const char gemma[] =
    "{\"architectures\":[\"GemmaForCausalLM\"],\"model_type\":\"gemma\",\"hidden_size\":3072,"
    "\"intermediate_size\":24576,\"num_attention_heads\":16,\"num_key_value_heads\":16,"
    "\"head_dim\":256,\"num_hidden_layers\":28,\"vocab_size\":256000,\"dtype\":\"float16\"}";
static const char bert[] =
    "{\"architectures\":[\"BertModel\"],\"model_type\":\"bert\",\"hidden_size\":384,"
    "\"intermediate_size\":1536,\"num_attention_heads\":12,\"num_hidden_layers\":6,"
    "\"vocab_size\":30522}";
static const char bert_mlm[] =
    "{\"architectures\":[\"BertForMaskedLM\"],\"model_type\":\"bert\",\"hidden_size\":768,"
    "\"intermediate_size\":3072,\"num_attention_heads\":12,\"num_hidden_layers\":12,"
    "\"vocab_size\":30522,\"torch_dtype\":null}";

static void llama_like(void **state) {
    (void)state;
    tw_model *model = opened_text(TW_MODEL_ANY, smollm2);
    assert_int_equal(tw_model_kind_of(model), TW_MODEL_CONFIG);
    assert_string_equal(tw_model_architecture(model), "llama");
    assert_int_equal(tw_model_tensor_count(model), 0);
    assert_linears(model, (const char *const[]){
                              "60 x N=576,K=576,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                              "60 x N=192,K=576,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                              "60 x N=1536,K=576,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                              "30 x N=576,K=1536,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                              "1 x N=49152,K=576,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                              NULL});
    tw_model_linears linears = linears_of(model);
    assert_string_equal(find_linear(&linears, 49152, 576)->names[0], "model.embed_tokens.weight");
    const tw_model_linear *down = find_linear(&linears, 576, 1536);
    assert_int_equal(down->name_count, 30);
    assert_string_equal(down->names[29], "model.layers.29.mlp.down_proj.weight");
    assert_int_equal(down->tensor, -1);
    tw_model_linears_free(&linears);
    tw_model_close(model);

    /* An own output layer, and biases on q, k and v alone. */
    model = opened_text(TW_MODEL_CONFIG, qwen2);
    assert_linears(
        model, (const char *const[]){
                   "28 x N=3584,K=3584,x=f32,w=bf16,a=none,y=f32,bias=bf16,act=none BF16",
                   "56 x N=512,K=3584,x=f32,w=bf16,a=none,y=f32,bias=bf16,act=none BF16",
                   "28 x N=3584,K=3584,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                   "56 x N=18944,K=3584,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                   "28 x N=3584,K=18944,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16",
                   "1 x N=152064,K=3584,x=f32,w=bf16,a=none,y=f32,bias=none,act=none BF16", NULL});
    linears = linears_of(model);
    assert_string_equal(find_linear(&linears, 152064, 3584)->names[0], "lm_head.weight");
    tw_model_linears_free(&linears);
    tw_model_close(model);

    /* Heads wider than hidden_size / heads; tied without saying so. */
    model = opened_text(TW_MODEL_CONFIG, gemma);
    assert_linears(model, (const char *const[]){
                              "84 x N=4096,K=3072,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16",
                              "28 x N=3072,K=4096,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16",
                              "56 x N=24576,K=3072,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16",
                              "28 x N=3072,K=24576,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16",
                              "1 x N=256000,K=3072,x=f32,w=f16,a=none,y=f32,bias=none,act=none F16",
                              NULL});
    linears = linears_of(model);
    assert_string_equal(find_linear(&linears, 256000, 3072)->names[0], "model.embed_tokens.weight");
    tw_model_linears_free(&linears);
    tw_model_close(model);
}

static void bert_like(void **state) {
    (void)state;
    tw_model *model = opened_text(TW_MODEL_ANY, bert);
    assert_linears(model,
                   (const char *const[]){
                       "25 x N=384,K=384,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "6 x N=1536,K=384,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "6 x N=384,K=1536,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32", NULL});
    tw_model_close(model);
    model = opened_text(TW_MODEL_ANY, bert_mlm);
    assert_linears(model,
                   (const char *const[]){
                       "49 x N=768,K=768,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "12 x N=3072,K=768,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "12 x N=768,K=3072,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "1 x N=30522,K=768,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32", NULL});
    tw_model_close(model);
}

/* A small valid config with one member changed, or taken away when value is NULL. */
static void edited(char *out, size_t size, const char *member, const char *value) {
    static const char *const members[][2] = {
        {"model_type", "\"llama\""},  {"hidden_size", "64"},        {"intermediate_size", "128"},
        {"num_attention_heads", "4"}, {"num_key_value_heads", "2"}, {"num_hidden_layers", "2"},
        {"vocab_size", "100"},        {"head_dim", "16"},
    };
    bool known = false;
    tw_str text = {0};
    for (size_t i = 0; i < TW_COUNT(members); i++) {
        bool same = !strcmp(members[i][0], member);
        known = known || same;
        if (same && !value) continue;
        tw_str_add(&text, "%s\"%s\":%s", text.size ? "," : "{", members[i][0],
                   same ? value : members[i][1]);
    }
    if (!known) tw_str_add(&text, ",\"%s\":%s", member, value);
    tw_str_add(&text, "}");
    assert_true(text.size < size);
    strcpy(out, tw_str_text(&text));
    tw_str_free(&text);
}

static void bad_members(void **state) {
    (void)state;
    static const struct {
        const char *member, *value, *words;
        tw_status status;
    } cases[] = {
        {"model_type", NULL, "no model_type", TW_FORMAT},
        {"model_type", "7", "model_type: expected a string", TW_FORMAT},
        {"model_type", "\"mamba\"", "'mamba': unknown architecture", TW_UNSUPPORTED},
        {"hidden_size", NULL, "no hidden_size", TW_FORMAT},
        {"hidden_size", "\"64\"", "hidden_size: expected an integer", TW_FORMAT},
        {"hidden_size", "64.0", "hidden_size: expected an integer", TW_FORMAT},
        {"hidden_size", "0", "hidden_size: 0, expected 1..2147483647", TW_FORMAT},
        {"hidden_size", "-64", "hidden_size: -64", TW_FORMAT},
        {"hidden_size", "4294967360", "hidden_size: 4294967360", TW_FORMAT},
        {"intermediate_size", "null", "no intermediate_size", TW_FORMAT},
        {"num_hidden_layers", "1000000000", "num_hidden_layers: 1000000000", TW_FORMAT},
        {"num_attention_heads", "0", "num_attention_heads: 0", TW_FORMAT},
        {"num_key_value_heads", "true", "num_key_value_heads: expected an integer", TW_FORMAT},
        {"num_key_value_heads", "3",
         "num_attention_heads: 4, not a multiple of num_key_value_heads 3", TW_FORMAT},
        {"num_key_value_heads", "8", "not a multiple of num_key_value_heads 8", TW_FORMAT},
        {"head_dim", "65537", "head_dim: 65537", TW_FORMAT},
        {"tie_word_embeddings", "1", "tie_word_embeddings: expected true or false", TW_FORMAT},
        {"attention_bias", "\"no\"", "attention_bias: expected true or false", TW_FORMAT},
        {"torch_dtype", "\"int8\"", "dtype: 'int8'", TW_UNSUPPORTED},
        {"torch_dtype", "32", "torch_dtype: expected a string", TW_FORMAT},
        {"architectures", "[\"LlamaForTokenClassification\"]", "'LlamaForTokenClassification'",
         TW_UNSUPPORTED},
    };
    char text[1024];
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        edited(text, sizeof text, cases[i].member, cases[i].value);
        refused_text(TW_MODEL_CONFIG, text, cases[i].status, cases[i].words);
    }
    edited(text, sizeof text, "head_dim", "null");
    tw_model_close(opened_text(TW_MODEL_CONFIG, text));
    edited(text, sizeof text, "num_attention_heads", "65536");
    char *heads = strstr(text, "\"head_dim\":16");
    memcpy(heads, "\"head_dim\":65536}", 18);
    refused_text(TW_MODEL_CONFIG, text, TW_FORMAT, "head_dim: 65536, too large");
    edited(text, sizeof text, "num_attention_heads", "3");
    heads = strstr(text, ",\"head_dim\":16");
    strcpy(heads, "}");
    refused_text(TW_MODEL_CONFIG, text, TW_FORMAT, "hidden_size: 64, not a multiple of 3 heads");
    refused_text(TW_MODEL_CONFIG, "[]", TW_FORMAT, "not an object");
    refused_text(TW_MODEL_CONFIG, "{", TW_FORMAT, "line 1");
    refused_text(TW_MODEL_CONFIG, "{\"a\":1,\"a\":2}", TW_FORMAT, "duplicate");
}

/* What a config says in passing changes exactly what it is about. */
static void optional_members(void **state) {
    (void)state;
    char text[1024];
    edited(text, sizeof text, "attention_bias", "true");
    tw_model *model = opened_text(TW_MODEL_CONFIG, text);
    assert_linears(model,
                   (const char *const[]){
                       "4 x N=64,K=64,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "4 x N=32,K=64,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                       "4 x N=128,K=64,x=f32,w=f32,a=none,y=f32,bias=none,act=none F32",
                       "2 x N=64,K=128,x=f32,w=f32,a=none,y=f32,bias=none,act=none F32",
                       "1 x N=100,K=64,x=f32,w=f32,a=none,y=f32,bias=none,act=none F32", NULL});
    tw_model_close(model);
    /* Without grouped heads there are as many for keys. */
    edited(text, sizeof text, "num_key_value_heads", NULL);
    model = opened_text(TW_MODEL_CONFIG, text);
    tw_model_linears linears = linears_of(model);
    assert_int_equal(find_linear(&linears, 64, 64)->count, 8);
    tw_model_linears_free(&linears);
    tw_model_close(model);
    /* A bare model has no output layer. */
    edited(text, sizeof text, "architectures", "[\"LlamaModel\"]");
    model = opened_text(TW_MODEL_CONFIG, text);
    linears = linears_of(model);
    assert_null(find_linear(&linears, 100, 64));
    assert_string_equal(find_linear(&linears, 64, 128)->names[0], "layers.0.mlp.down_proj.weight");
    tw_model_linears_free(&linears);
    tw_model_close(model);
    /* A quantized checkpoint's weights are not plain. */
    edited(text, sizeof text, "quantization_config", "{\"quant_method\":\"awq\"}");
    model = opened_text(TW_MODEL_CONFIG, text);
    assert_int_equal(tw_model_linears_get(model, &linears), TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "awq"));
    tw_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_like),
        cmocka_unit_test(bert_like),
        cmocka_unit_test(bad_members),
        cmocka_unit_test(optional_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
