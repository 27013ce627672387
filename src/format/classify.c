/* Which tensors are linear layers: by the names that formats' writers give, and by architecture. */
#include <fnmatch.h>
#include <stdio.h>

#include "src/core/dtype.h"
#include "src/format/model_impl.h"

/* A tensor's name is PREFIX.STEM.weight; these patterns are for the stem. */
typedef struct name_facts {
    const char *const *not_linear; /* two-dimensional, but looked up, convolved or mixed in */
    const char *const *embedding;  /* the token embedding that an output layer may share */
    const char *const *output;     /* the output layer */
    const char *const *experts;    /* three-dimensional, one [N,K] an expert */
} name_facts;

/* The rows of LLM_TENSOR_INFOS (llama-arch.cpp) whose operation is not MUL_MAT and whose tensor may
 * have two dimensions. */
static const name_facts gguf_names = {
    .not_linear = (const char *const[]){"*_embd", "token_types", "*rel_b", "*norm*", "*conv*",
                                        "time_mix_lerp_*", "channel_mix_lerp_*", "time_mix_first",
                                        "time_mix_decay", "time_mix_r_k", "embed_tokens", "*_ape",
                                        "*_tid2eid", "masked_embd_*", "altup_correct_scale", NULL},
    .embedding = (const char *const[]){"token_embd", NULL},
    .output = (const char *const[]){"output", NULL},
    .experts = (const char *const[]){"*_exps", "*_chexps", NULL},
};

/* Names of torch.nn.Embedding members in transformers' models; convolutions and norms too. */
static const name_facts hf_names = {
    .not_linear =
        (const char *const[]){"*embeddings", "*embedding", "embed_tokens*", "embed_positions*",
                              "embed_in", "tok_embeddings", "wte", "wpe", "shared",
                              "relative_attention_bias", "*[Nn]orm*", "*conv*", NULL},
    .embedding = (const char *const[]){"embed_tokens", "word_embeddings", "tok_embeddings", "wte",
                                       "embed_in", "shared", NULL},
    .output = (const char *const[]){"lm_head", "embed_out", "output_layer", "decoder", NULL},
    .experts = (const char *const[]){NULL},
};

enum { STEM = 64 };

/* False for a name that is not *.weight. */
static bool stem_of(const char *name, char stem[STEM]) {
    static const char suffix[] = ".weight";
    size_t size = strlen(name), tail = sizeof suffix - 1;
    if (size <= tail || strcmp(name + size - tail, suffix)) return false;
    size_t end = size - tail, begin = end;
    while (begin && name[begin - 1] != '.') begin--;
    if (end - begin >= STEM) return false;
    memcpy(stem, name + begin, end - begin);
    stem[end - begin] = 0;
    return true;
}

static bool matches(const char *const *patterns, const char *stem) {
    for (; *patterns; patterns++)
        if (!fnmatch(*patterns, stem, 0)) return true;
    return false;
}

const char *tw_module_class(const char *module) {
    const char *dot = strrchr(module, '.');
    return matches(hf_names.not_linear, dot ? dot + 1 : module) ? "Embedding" : "Linear";
}

/* Whole numbers are indices and masks; IQ4_XS and the like begin with an I too. */
static bool holds_weights(const tw_source_type *type) {
    const char *name = type->name;
    bool whole = (name[0] == 'I' || name[0] == 'U') && name[1] >= '0' && name[1] <= '9';
    return !whole && strcmp(name, "BOOL");
}

/* The dtype of NAME.bias beside NAME.weight, if it is one of N floats. */
static tw_dtype bias_of(const tw_model *model, const char *name, int64_t N) {
    char bias[512];
    int stem = (int)(strlen(name) - strlen("weight"));
    int n = snprintf(bias, sizeof bias, "%.*sbias", stem, name);
    if (n < 0 || n >= (int)sizeof bias) return TW_NONE;
    const tw_model_tensor *t = tw_model_tensor_at(model, tw_model_find(model, bias));
    bool fits = t && t->ndim == 1 && t->shape[0] == N && tw_dtype_is_real(t->scheme.weight);
    return fits ? t->scheme.weight : TW_NONE;
}

static tw_status add(tw_model *model, int32_t index) {
    tw_tensor_entry *entry = &model->tensors[index];
    const tw_model_tensor *t = &entry->info;
    int64_t N = t->shape[t->ndim - 2], K = t->shape[t->ndim - 1];
    int64_t count = t->ndim == 3 ? t->shape[0] : 1;
    if (!N || !K || !count) return TW_OK;
    entry->info.is_linear = true;
    tw_linear_entry linear = {
        .problem = {.N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = t->scheme},
        .type = t->type,
        .name = t->name,
        .count = count,
        .tensor = index};
    linear.problem.bias = bias_of(model, t->name, N);
    return tw_model_add_linear(model, &linear);
}

/* GPTQ and AWQ keep integers in NAME.qweight, compressed-tensors in NAME.weight_packed. */
static tw_status refuse_packed(tw_model *model, const char *name) {
    const char *stem = strrchr(name, '.');
    if (!stem || (strcmp(stem, ".qweight") && strcmp(stem, ".weight_packed"))) return TW_OK;
    if (model->refusal) return TW_OK;
    char text[200];
    int n =
        snprintf(text, sizeof text, "%s: a packed quantized weight, which this version cannot read",
                 tw_show(name, strlen(name)).text);
    TW_TRY(tw_model_keep(model, text, (size_t)n, &model->refusal));
    model->unread = model->refusal;
    return TW_OK;
}

static tw_status take_declared(tw_model *model) {
    for (int32_t i = 0; i < model->tensor_count; i++)
        if (model->tensors[i].declared_linear) TW_TRY(add(model, i));
    return TW_OK;
}

tw_status tw_model_classify(tw_model *model) {
    if (model->declares_linears) return take_declared(model);
    const name_facts *facts = model->kind == TW_MODEL_GGUF ? &gguf_names : &hf_names;
    int32_t tied = -1;
    bool has_output = false;
    for (int32_t i = 0; i < model->tensor_count; i++) {
        const tw_tensor_entry *entry = &model->tensors[i];
        const tw_model_tensor *t = &entry->info;
        char stem[STEM];
        TW_TRY(refuse_packed(model, t->name));
        bool named = stem_of(t->name, stem);
        /* Experts' parameters, which are kept in several tensors, need not be *.weight. */
        if (entry->composite && !named) TW_TRY(add(model, i));
        if (!named || (!entry->composite && !holds_weights(entry->type))) continue;
        if (matches(facts->output, stem)) has_output = true;
        if (tied < 0 && t->ndim == 2 && matches(facts->embedding, stem)) tied = i;
        bool linear = t->ndim == 2 && !matches(facts->not_linear, stem);
        bool stack = t->ndim == 3 && (entry->composite || matches(facts->experts, stem));
        if (linear || stack) TW_TRY(add(model, i));
    }
    return model->ties_output && !has_output && tied >= 0 ? add(model, tied) : TW_OK;
}
