/* Hugging Face's config.json: a checkpoint's architecture, and, of a config alone, its linears. */
#include <stdio.h>
#include <stdlib.h>

#include "src/format/json.h"

typedef enum family { LLAMA, BERT, ROBERTA } family;
typedef enum tying { UNTIED, TIED } tying;
typedef enum bias_rule { BIAS_NEVER, BIAS_BY_CONFIG, BIAS_QKV, BIAS_ALWAYS } bias_rule;

typedef struct arch_row {
    const char *model_type;
    family family;
    tying tying;
    int64_t head_dim;
    bias_rule bias;
} arch_row;

#define TW_HF_ARCH(...) {__VA_ARGS__},
static const arch_row archs[] = {
#include "src/format/hf_archs.def"
};
#undef TW_HF_ARCH

/* What a module's N and K are. */
typedef enum dim { HIDDEN, INTERMEDIATE, QUERY, KEY, VOCAB, DIMS } dim;
/* What decides about a module's bias. */
typedef enum part { PART_QKV, PART_ATTENTION_OUT, PART_MLP, PART_HEAD, PARTS } part;

typedef struct module {
    const char *name; /* within its layer or model */
    dim N, K;
    part part;
} module;

static const module llama_layer[] = {
    {"self_attn.q_proj", QUERY, HIDDEN, PART_QKV},
    {"self_attn.k_proj", KEY, HIDDEN, PART_QKV},
    {"self_attn.v_proj", KEY, HIDDEN, PART_QKV},
    {"self_attn.o_proj", HIDDEN, QUERY, PART_ATTENTION_OUT},
    {"mlp.gate_proj", INTERMEDIATE, HIDDEN, PART_MLP},
    {"mlp.up_proj", INTERMEDIATE, HIDDEN, PART_MLP},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE, PART_MLP},
    {NULL, 0, 0, 0},
};
static const module bert_layer[] = {
    {"attention.self.query", HIDDEN, HIDDEN, PART_QKV},
    {"attention.self.key", HIDDEN, HIDDEN, PART_QKV},
    {"attention.self.value", HIDDEN, HIDDEN, PART_QKV},
    {"attention.output.dense", HIDDEN, HIDDEN, PART_ATTENTION_OUT},
    {"intermediate.dense", INTERMEDIATE, HIDDEN, PART_MLP},
    {"output.dense", HIDDEN, INTERMEDIATE, PART_MLP},
    {NULL, 0, 0, 0},
};
static const module none[] = {{NULL, 0, 0, 0}};
static const module pooler[] = {{"pooler.dense", HIDDEN, HIDDEN, PART_HEAD}, {NULL, 0, 0, 0}};
static const module lm_head[] = {{"lm_head", VOCAB, HIDDEN, PART_HEAD}, {NULL, 0, 0, 0}};
static const module tied_head[] = {{"model.embed_tokens", VOCAB, HIDDEN, PART_HEAD},
                                   {NULL, 0, 0, 0}};
static const module bert_mlm[] = {
    {"cls.predictions.transform.dense", HIDDEN, HIDDEN, PART_HEAD},
    {"cls.predictions.decoder", VOCAB, HIDDEN, PART_HEAD},
    {NULL, 0, 0, 0},
};
static const module roberta_mlm[] = {
    {"lm_head.dense", HIDDEN, HIDDEN, PART_HEAD},
    {"lm_head.decoder", VOCAB, HIDDEN, PART_HEAD},
    {NULL, 0, 0, 0},
};

/* What a class of transformers adds to the layers of its family. */
typedef struct class_row {
    family family;
    const char *suffix; /* of the class's name */
    const char *prefix; /* of its layers */
    const module *layer, *head;
    const module *tied; /* head, when the embedding is the output layer */
} class_row;

static const class_row classes[] = {
    {LLAMA, "ForCausalLM", "model.layers", llama_layer, lm_head, tied_head},
    {LLAMA, "Model", "layers", llama_layer, none, none},
    {BERT, "Model", "encoder.layer", bert_layer, pooler, pooler},
    {BERT, "ForMaskedLM", "bert.encoder.layer", bert_layer, bert_mlm, bert_mlm},
    {ROBERTA, "Model", "encoder.layer", bert_layer, pooler, pooler},
    {ROBERTA, "ForMaskedLM", "roberta.encoder.layer", bert_layer, roberta_mlm, roberta_mlm},
};

/* A config while it is read. */
typedef struct config {
    tw_model *model;
    const json_t *root;
    const char *label;
    const char *model_type, *class_name; /* "" where the config does not say */
    const arch_row *arch;                /* NULL: unknown */
    bool tied;
    int64_t dims[DIMS], layers;
    bool bias[PARTS];
    tw_dtype dtype;
    const char *type; /* dtype, as safetensors spells it */
} config;

static tw_status read_identity(config *c) {
    const json_t *names = json_object_get(c->root, "architectures");
    const char *class_name = json_string_value(json_array_get(names, 0));
    TW_TRY(tw_json_text(c->root, "model_type", "", c->label, &c->model_type));
    c->class_name = class_name ? class_name : "";
    for (size_t i = 0; i < TW_COUNT(archs); i++)
        if (!strcmp(archs[i].model_type, c->model_type)) c->arch = &archs[i];
    /* PretrainedConfig's own default is true; a class that differs says so in its saved configs. */
    bool tied = c->arch ? c->arch->tying == TIED : true;
    TW_TRY(tw_json_bool(c->root, "tie_word_embeddings", tied, c->label, &c->tied));
    return tw_model_keep(c->model, c->model_type, strlen(c->model_type), &c->model->architecture);
}

static tw_status refuse(config *c, const char *why, const char *what) {
    tw_shown shown = tw_show(what, strlen(what));
    char text[300];
    int n = snprintf(text, sizeof text, "config.json: %s '%s'%s", why, shown.text,
                     ", whose linears this version cannot tell");
    return tw_model_keep(c->model, text, (size_t)n, &c->model->refusal);
}

/* Of tensors compose.c makes what it can; a config alone does not say what its linears are. */
static tw_status keep_quantization(config *c, const json_t *quantization) {
    const char *method;
    TW_TRY(tw_json_text(quantization, "quant_method", "unnamed", c->label, &method));
    if (c->model->kind == TW_MODEL_CONFIG)
        return refuse(c, "quantization_config: quant_method", method);
    char *text = json_dumps(quantization, JSON_COMPACT);
    if (!text) return tw_fail(TW_MEMORY, "%s: out of memory", c->label);
    tw_status status = tw_model_keep(c->model, text, strlen(text), &c->model->quantization);
    free(text);
    return status;
}

/* Checkpoints whose tensors are no plain [N,K] weights. */
static tw_status read_obstacles(config *c) {
    /* Conv1D of transformers keeps its weight [K,N]. */
    static const char *const transposed[] = {"gpt2", "openai-gpt", "imagegpt",
                                             "decision_transformer"};
    const json_t *quantization = json_object_get(c->root, "quantization_config");
    for (size_t i = 0; i < TW_COUNT(transposed); i++)
        if (!strcmp(c->model_type, transposed[i]))
            return refuse(c, "weights stored [K,N]: model_type", c->model_type);
    return json_is_object(quantization) ? keep_quantization(c, quantization) : TW_OK;
}

/* A class that computes logits over the vocabulary. */
static bool has_output_layer(const char *class_name) {
    return tw_ends_with(class_name, "ForCausalLM") || tw_ends_with(class_name, "LMHeadModel") ||
           tw_ends_with(class_name, "ForConditionalGeneration") ||
           tw_ends_with(class_name, "ForMaskedLM");
}

static tw_status read_dtype(config *c) {
    static const struct {
        const char *name, *type;
        tw_dtype dtype;
    } rows[] = {
        {"float32", "F32", TW_F32}, {"float16", "F16", TW_F16}, {"bfloat16", "BF16", TW_BF16}};
    const char *name;
    /* "dtype" since transformers 4.56, "torch_dtype" before. */
    TW_TRY(tw_json_text(c->root, "torch_dtype", "float32", c->label, &name));
    TW_TRY(tw_json_text(c->root, "dtype", name, c->label, &name));
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        if (!strcmp(rows[i].name, name)) {
            c->type = rows[i].type;
            c->dtype = rows[i].dtype;
        }
    if (!c->type)
        return tw_fail(TW_UNSUPPORTED, "%s: dtype: '%s', expected float32, float16 or bfloat16",
                       c->label, tw_show(name, strlen(name)).text);
    return TW_OK;
}

static tw_status read_dims(config *c) {
    enum { MOST_SIZE = INT32_MAX, MOST_LAYERS = 10000, MOST_HEADS = 65536 };
    int64_t heads, key_heads, head_dim, *dims = c->dims;
    const char *l = c->label;
    TW_TRY(tw_json_int(c->root, "hidden_size", 1, MOST_SIZE, -1, l, &dims[HIDDEN]));
    TW_TRY(tw_json_int(c->root, "intermediate_size", 1, MOST_SIZE, -1, l, &dims[INTERMEDIATE]));
    TW_TRY(tw_json_int(c->root, "vocab_size", 1, MOST_SIZE, -1, l, &dims[VOCAB]));
    TW_TRY(tw_json_int(c->root, "num_hidden_layers", 1, MOST_LAYERS, -1, l, &c->layers));
    TW_TRY(tw_json_int(c->root, "num_attention_heads", 1, MOST_HEADS, -1, l, &heads));
    TW_TRY(tw_json_int(c->root, "num_key_value_heads", 1, MOST_HEADS, heads, l, &key_heads));
    TW_TRY(tw_json_int(c->root, "head_dim", 1, MOST_HEADS, c->arch->head_dim, l, &head_dim));
    if (!head_dim) {
        if (dims[HIDDEN] % heads)
            return tw_fail(TW_FORMAT, "%s: hidden_size: %lld, not a multiple of %lld heads", l,
                           (long long)dims[HIDDEN], (long long)heads);
        head_dim = dims[HIDDEN] / heads;
    }
    /* Each key head serves as many query heads as any other. */
    if (heads % key_heads)
        return tw_fail(TW_FORMAT,
                       "%s: num_attention_heads: %lld, not a multiple of num_key_value_heads %lld",
                       l, (long long)heads, (long long)key_heads);
    dims[QUERY] = heads * head_dim;
    dims[KEY] = key_heads * head_dim;
    if (dims[QUERY] > MOST_SIZE || dims[KEY] > MOST_SIZE)
        return tw_fail(TW_FORMAT, "%s: head_dim: %lld, too large for %lld heads", l,
                       (long long)head_dim, (long long)heads);
    return TW_OK;
}

static tw_status read_bias(config *c) {
    bool attention = false, mlp = false, always = c->arch->bias == BIAS_ALWAYS;
    if (c->arch->bias == BIAS_BY_CONFIG) {
        TW_TRY(tw_json_bool(c->root, "attention_bias", false, c->label, &attention));
        TW_TRY(tw_json_bool(c->root, "mlp_bias", false, c->label, &mlp));
    }
    c->bias[PART_QKV] = attention || always || c->arch->bias == BIAS_QKV;
    c->bias[PART_ATTENTION_OUT] = attention || always;
    c->bias[PART_MLP] = mlp || always;
    c->bias[PART_HEAD] = always;
    return TW_OK;
}

/* The modules of one layer, or of none when layer is below 0. */
static tw_status add_modules(config *c, const module *m, const char *prefix, int64_t layer) {
    for (; m->name; m++) {
        char name[128];
        int n = layer < 0 ? snprintf(name, sizeof name, "%s.weight", m->name)
                          : snprintf(name, sizeof name, "%s.%lld.%s.weight", prefix,
                                     (long long)layer, m->name);
        tw_linear_entry entry = {.type = c->type, .count = 1, .tensor = -1};
        entry.problem = (tw_problem){.N = c->dims[m->N],
                                     .K = c->dims[m->K],
                                     .x = TW_F32,
                                     .y = TW_F32,
                                     .bias = c->bias[m->part] ? c->dtype : TW_NONE,
                                     .scheme.weight = c->dtype};
        TW_TRY(tw_model_keep(c->model, name, (size_t)n, &entry.name));
        TW_TRY(tw_model_add_linear(c->model, &entry));
    }
    return TW_OK;
}

static tw_status find_class(const config *c, const class_row **out) {
    /* Without a class, what most configs of the architecture are for: its first row. */
    for (size_t i = 0; i < TW_COUNT(classes); i++)
        if (classes[i].family == c->arch->family &&
            (!*c->class_name || tw_ends_with(c->class_name, classes[i].suffix))) {
            *out = &classes[i];
            return TW_OK;
        }
    return tw_fail(TW_UNSUPPORTED, "%s: architectures: '%s' of model_type '%s': not known here",
                   c->label, tw_show(c->class_name, strlen(c->class_name)).text,
                   c->arch->model_type);
}

static tw_status derive(config *c) {
    const class_row *row = NULL;
    bool cross;
    if (!*c->model_type) return tw_fail(TW_FORMAT, "%s: no model_type", c->label);
    if (!c->arch)
        return tw_fail(TW_UNSUPPORTED, "%s: model_type: '%s': unknown architecture", c->label,
                       tw_show(c->model_type, strlen(c->model_type)).text);
    TW_TRY(find_class(c, &row));
    TW_TRY(tw_json_bool(c->root, "add_cross_attention", false, c->label, &cross));
    if (cross)
        return tw_fail(TW_UNSUPPORTED, "%s: add_cross_attention: true, expected false", c->label);
    TW_TRY(read_dtype(c));
    TW_TRY(read_dims(c));
    TW_TRY(read_bias(c));
    for (int64_t i = 0; i < c->layers; i++) TW_TRY(add_modules(c, row->layer, row->prefix, i));
    return add_modules(c, c->tied ? row->tied : row->head, "", -1);
}

static tw_status read_config(config *c) {
    TW_TRY(read_identity(c));
    TW_TRY(read_obstacles(c));
    c->model->ties_output = c->tied && has_output_layer(c->class_name);
    if (c->model->kind != TW_MODEL_CONFIG || c->model->refusal) return TW_OK;
    return derive(c);
}

tw_status tw_hf_config_read(tw_model *model, int32_t file) {
    const tw_model_file *f = &model->files[file];
    json_t *root;
    TW_TRY(tw_json_object(f->bytes, f->size, f->label, &root));
    config c = {.model = model, .root = root, .label = f->label};
    model->config_file = file + 1;
    tw_status status = read_config(&c);
    json_decref(root);
    return status;
}
