/* What counts as a linear layer, over small files made here; texts of problems. */
#include <unistd.h>

#include "tests/format/format_test.h"

/* ---- a GGUF file from a list of tensors, all F32 and zero ---- */

typedef struct made {
    const char *name;
    uint32_t ndim;
    uint64_t shape[3]; /* outermost first */
} made;

static void add_u32(tw_str *s, uint32_t v) { tw_str_add_bytes(s, &v, sizeof v); }
static void add_u64(tw_str *s, uint64_t v) { tw_str_add_bytes(s, &v, sizeof v); }
static void add_text(tw_str *s, const char *text) {
    add_u64(s, strlen(text));
    tw_str_add_bytes(s, text, strlen(text));
}

static void pad(tw_str *s) {
    while (s->size % 32) tw_str_add_bytes(s, "", 1);
}

static tw_model *made_gguf(tw_str *file, const char *architecture, const made *tensors, int count) {
    static const char zeros[4096];
    uint64_t offset = 0;
    tw_str_add_bytes(file, "GGUF", 4);
    add_u32(file, 3);
    add_u64(file, (uint64_t)count);
    add_u64(file, 1);
    add_text(file, "general.architecture");
    add_u32(file, 8);
    add_text(file, architecture);
    for (int i = 0; i < count; i++) {
        uint64_t bytes = 4;
        add_text(file, tensors[i].name);
        add_u32(file, tensors[i].ndim);
        for (uint32_t d = tensors[i].ndim; d-- > 0; bytes *= tensors[i].shape[d])
            add_u64(file, tensors[i].shape[d]);
        add_u32(file, 0);
        add_u64(file, offset);
        offset += (bytes + 31) / 32 * 32;
    }
    pad(file);
    assert_true(offset <= sizeof zeros);
    tw_str_add_bytes(file, zeros, offset);
    tw_model *model = NULL;
    if (tw_model_open_bytes(file->text, file->size, TW_MODEL_ANY, "memory", &model))
        fail_msg("%s", tw_error_message());
    return model;
}

/* Names of the linears, in order, each with its count. */
static void assert_gguf(const char *architecture, const made *tensors, int count,
                        const char *expected) {
    tw_str file = {0}, names = {0};
    tw_model *model = made_gguf(&file, architecture, tensors, count);
    tw_model_linears linears = linears_of(model);
    for (int32_t i = 0; i < linears.count; i++) {
        const tw_model_linear *l = &linears.items[i];
        tw_str_add(&names, "%lldx", (long long)l->count);
        for (int32_t k = 0; k < l->name_count; k++) {
            tw_str_add(&names, "%s ", l->names[k]);
            assert_true(tw_model_tensor_at(model, tw_model_find(model, l->names[k]))->is_linear);
        }
        assert_string_equal(tw_model_tensor_at(model, l->tensor)->name, l->names[0]);
    }
    assert_string_equal(tw_str_text(&names), expected);
    tw_model_linears_free(&linears);
    tw_model_close(model);
    tw_str_free(&names);
    tw_str_free(&file);
}

static const made decoder[] = {
    {"token_embd.weight", 2, {10, 4}},  {"output_norm.weight", 1, {4}},
    {"blk.0.attn_q.weight", 2, {4, 4}}, {"blk.0.attn_norm.weight", 2, {4, 4}},
    {"blk.0.ffn_up.weight", 2, {8, 4}}, {"blk.1.ffn_up.weight", 2, {8, 4}},
    {"rope_freqs.weight", 1, {4}},
};

static void tied_output(void **state) {
    (void)state;
    assert_gguf("llama", decoder, TW_COUNT(decoder),
                "1xblk.0.attn_q.weight 2xblk.0.ffn_up.weight blk.1.ffn_up.weight "
                "1xtoken_embd.weight ");
    /* The same tensors as an encoder's: its embedding is only looked up. */
    assert_gguf("bert", decoder, TW_COUNT(decoder),
                "1xblk.0.attn_q.weight 2xblk.0.ffn_up.weight blk.1.ffn_up.weight ");
    /* With an output layer of its own, too. */
    made untied[TW_COUNT(decoder) + 1];
    memcpy(untied, decoder, sizeof decoder);
    untied[TW_COUNT(decoder)] = (made){"output.weight", 2, {10, 4}};
    assert_gguf("llama", untied, TW_COUNT(untied),
                "1xblk.0.attn_q.weight 2xblk.0.ffn_up.weight blk.1.ffn_up.weight "
                "1xoutput.weight ");
}

static void no_linears(void **state) {
    (void)state;
    static const made tensors[] = {
        {"position_embd.weight", 2, {4, 4}},
        {"token_types.weight", 2, {2, 4}},
        {"blk.0.ssm_conv1d.weight", 2, {4, 4}},
        {"blk.0.shortconv.conv.weight", 2, {4, 4}},
        {"enc.blk.0.attn_rel_b.weight", 2, {4, 4}},
        {"blk.0.time_mix_first.weight", 2, {4, 4}},
        {"blk.0.attn_q_norm.weight", 2, {4, 4}},
        {"blk.0.ssm_a", 2, {4, 4}},
        {"blk.0.attn_q.bias", 2, {4, 4}},
        {"blk.0.empty.weight", 2, {0, 4}},
        {"conv1d.weight", 3, {2, 2, 4}},
        {"weight", 2, {4, 4}},
    };
    assert_gguf("t5encoder", tensors, TW_COUNT(tensors), "");
}

/* A stack of experts is as many linears, under one name. */
static void experts(void **state) {
    (void)state;
    static const made tensors[] = {
        {"blk.0.ffn_gate_inp.weight", 2, {3, 4}},
        {"blk.0.ffn_up_exps.weight", 3, {3, 8, 4}},
        {"blk.0.ffn_gate_exps.weight", 3, {3, 8, 4}},
        {"blk.0.other.weight", 3, {3, 8, 4}},
    };
    assert_gguf("qwen3moe", tensors, TW_COUNT(tensors),
                "1xblk.0.ffn_gate_inp.weight "
                "6xblk.0.ffn_up_exps.weight blk.0.ffn_gate_exps.weight ");
}

static void bias_makes_another_problem(void **state) {
    (void)state;
    static const made tensors[] = {
        {"blk.0.a.weight", 2, {8, 4}}, {"blk.0.a.bias", 1, {8}}, {"blk.0.b.weight", 2, {8, 4}},
        {"blk.0.c.weight", 2, {8, 4}}, {"blk.0.c.bias", 1, {4}},
    };
    tw_str file = {0};
    tw_model *model = made_gguf(&file, "llama", tensors, TW_COUNT(tensors));
    assert_linears(model, (const char *const[]){
                              "1 x N=8,K=4,x=f32,w=f32,a=none,y=f32,bias=f32,act=none F32",
                              "2 x N=8,K=4,x=f32,w=f32,a=none,y=f32,bias=none,act=none F32", NULL});
    tw_model_close(model);
    tw_str_free(&file);
}

/* ---- safetensors with a config.json beside it ---- */

/* A checkpoint of [2,2] F16 tensors named as given, with this config. */
static void assert_checkpoint(const char *config, const char *const *names, const char *expected) {
    char folder[] = "format-linears-XXXXXX", path[64];
    tw_str header = {0}, file = {0}, found = {0};
    static const char zeros[256];
    size_t count = 0;
    for (; names[count]; count++)
        tw_str_add(&header,
                   "%s\"%s\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[%zu,%zu]}",
                   count ? "," : "{", names[count], count * 8, count * 8 + 8);
    tw_str_add(&header, "}");
    add_u64(&file, header.size);
    tw_str_add_bytes(&file, header.text, header.size);
    tw_str_add_bytes(&file, zeros, count * 8);
    assert_non_null(mkdtemp(folder));
    save(folder, "model.safetensors", file.text, file.size);
    save(folder, "config.json", config, strlen(config));
    tw_model *model = opened(folder);
    tw_model_linears linears;
    if (tw_model_linears_get(model, &linears)) {
        tw_str_add(&found, "%s", tw_error_message());
    } else {
        for (int32_t i = 0; i < linears.count; i++)
            for (int32_t k = 0; k < linears.items[i].name_count; k++)
                tw_str_add(&found, "%s ", linears.items[i].names[k]);
        tw_model_linears_free(&linears);
    }
    assert_string_equal(tw_str_text(&found), expected);
    tw_model_close(model);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    rmdir(folder);
    tw_str_free(&header);
    tw_str_free(&file);
    tw_str_free(&found);
}

static void checkpoints(void **state) {
    (void)state;
    static const char *const llama[] = {"model.embed_tokens.weight", "model.layers.0.q_proj.weight",
                                        "model.norm.weight", NULL};
    static const char *const bert[] = {"embeddings.word_embeddings.weight",
                                       "embeddings.position_embeddings.weight",
                                       "embeddings.token_type_embeddings.weight",
                                       "encoder.layer.0.attention.self.query.weight",
                                       "pooler.dense.weight",
                                       NULL};
    static const char *const gpt2[] = {"wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", NULL};
    /* Tied because the config says so, or because its architecture is without saying. */
    assert_checkpoint("{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],"
                      "\"tie_word_embeddings\":true}",
                      llama, "model.layers.0.q_proj.weight model.embed_tokens.weight ");
    assert_checkpoint("{\"model_type\":\"gemma\",\"architectures\":[\"GemmaForCausalLM\"]}", llama,
                      "model.layers.0.q_proj.weight model.embed_tokens.weight ");
    assert_checkpoint("{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"]}", llama,
                      "model.layers.0.q_proj.weight ");
    assert_checkpoint("{\"model_type\":\"gemma\",\"architectures\":[\"GemmaModel\"]}", llama,
                      "model.layers.0.q_proj.weight ");
    /* An architecture that is not in the table: transformers' own default. */
    assert_checkpoint("{\"model_type\":\"novel\",\"architectures\":[\"NovelForCausalLM\"]}", llama,
                      "model.layers.0.q_proj.weight model.embed_tokens.weight ");
    assert_checkpoint("{\"model_type\":\"bert\",\"architectures\":[\"BertModel\"]}", bert,
                      "encoder.layer.0.attention.self.query.weight pooler.dense.weight ");
    assert_checkpoint("{\"model_type\":\"bert\",\"architectures\":[\"BertForMaskedLM\"]}", bert,
                      "encoder.layer.0.attention.self.query.weight pooler.dense.weight "
                      "embeddings.word_embeddings.weight ");
    assert_checkpoint("{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"]}", gpt2,
                      "config.json: weights stored [K,N]: model_type 'gpt2', whose linears this "
                      "version cannot tell");
}

/* ---- texts of problems ---- */

static void problems(void **state) {
    (void)state;
    tw_model *model =
        opened_text(TW_MODEL_ANY, "# two alike and one other\n"
                                  "N=16,K=64,w=u4,g=32,s=f16,z=value,a=i8g32\n"
                                  "\n"
                                  "  M=3,N=8,K=8,w=f16,bias=f32,act=relu  # with M\r\n"
                                  "K=64,N=16,w=u4,g=32,s=f16,z=value,a=i8g32");
    assert_int_equal(tw_model_kind_of(model), TW_MODEL_PROBLEMS);
    assert_linears(
        model,
        (const char *const[]){
            "2 x N=16,K=64,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none u4",
            "1 x M=3,N=8,K=8,x=f32,w=f16,a=none,y=f32,bias=f32,act=relu f16", NULL});
    tw_model_linears linears = linears_of(model);
    assert_string_equal(linears.items[0].names[0], "memory:2");
    assert_string_equal(linears.items[0].names[1], "memory:5");
    assert_string_equal(linears.items[1].names[0], "memory:4");
    tw_model_linears_free(&linears);
    tw_model_close(model);

    refused_text(TW_MODEL_ANY, "N=16,K=64,w=f32\nN=16,K=64,w=f33\n", TW_INVALID, "memory:2: ");
    refused_text(TW_MODEL_ANY, "# nothing\n\n", TW_FORMAT, "no problem");
    char line[2000];
    memset(line, 'N', sizeof line);
    line[sizeof line - 1] = 0;
    refused_text(TW_MODEL_ANY, line, TW_FORMAT, "memory:1: expected a problem text");
    tw_model *none;
    assert_int_equal(tw_model_open_bytes("N=1,K\0=1,w=f32", 14, TW_MODEL_PROBLEMS, "memory", &none),
                     TW_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tied_output), cmocka_unit_test(no_linears),
        cmocka_unit_test(experts),     cmocka_unit_test(bias_makes_another_problem),
        cmocka_unit_test(checkpoints), cmocka_unit_test(problems),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
