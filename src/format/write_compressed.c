/* compressed-tensors, pack-quantized: integers of 2 to 8 bits as streams of 32-bit words, scales,
 * zero points and activation order, as compressed_tensors.c reads them. */
#include <jansson.h>
#include <stdlib.h>

#include "src/core/dtype.h"
#include "src/format/model_write_impl.h"

static const char weight[] = ".weight";

static const char *reason(const tw_planned_tensor *t) {
    const tw_scheme *s = &t->scheme;
    int bits = tw_dtype_bits(s->weight);
    bool is_signed = tw_dtype_is_signed(s->weight);
    if (!tw_dtype_is_int(s->weight) || bits < 2) return "it packs integers of 2 to 8 bits";
    if (t->ndim != 2 || !t->shape[0] || !t->shape[1]) return "it packs matrices";
    if (!tw_dtype_is_real(s->scale)) return "its scales are f32, f16 or bf16";
    if (s->zero_mode == TW_ZERO_VALUE) return "its zeros are codes";
    if (is_signed == (s->zero_mode == TW_ZERO_CODE))
        return "it has signed codes without zeros and unsigned ones with them";
    if (s->group_n != 1) return "its scales are for a channel or a group";
    if (t->ordered && !s->group_k) return "it orders columns by their groups";
    if (s->act_quant && s->act_quant != TW_ACTQ_I8_FULL && s->act_quant != TW_ACTQ_I8Z)
        return "of quantized x it has a=i8full and a=i8z";
    return NULL;
}

static tw_status check(const tw_planned_tensor *t) {
    if (t->type && !tw_safetensors_type_named(t->type))
        return tw_fail(TW_UNSUPPORTED, "tensor '%s': safetensors has no element type %s",
                       tw_show(t->name, strlen(t->name)).text, t->type);
    if (t->type || tw_scheme_plain(&t->scheme)) return TW_OK;
    const char *why = reason(t);
    if (why) return tw_form_refuse("compressed-tensors", t, why);
    if (tw_ends_with(t->name, weight)) return TW_OK;
    return tw_fail(TW_UNSUPPORTED, "tensor '%s': compressed-tensors packs what is named *%s",
                   tw_show(t->name, strlen(t->name)).text, weight);
}

static size_t stem_of(const tw_planned_tensor *t) { return strlen(t->name) - strlen(weight); }
static int64_t words_of(int64_t count, int bits) { return tw_ceil_div(count * bits, 32); }

static tw_status parts_of(const tw_planned_tensor *t, tw_file_parts *out) {
    const tw_scheme *s = &t->scheme;
    int64_t N = t->shape[0], K = t->shape[1], groups = tw_groups(s, K);
    int bits = tw_dtype_bits(s->weight);
    size_t stem = stem_of(t);
    TW_TRY(
        tw_parts_add(out, t, stem, ".weight_packed", "I32", 2, (int64_t[]){N, words_of(K, bits)}));
    TW_TRY(tw_parts_add(out, t, stem, ".weight_scale", tw_safetensors_type(s->scale), 2,
                        (int64_t[]){N, groups}));
    TW_TRY(tw_parts_add(out, t, stem, ".weight_shape", "I64", 1, (int64_t[]){2}));
    if (s->zero_mode)
        TW_TRY(tw_parts_add(out, t, stem, ".weight_zero_point", "I32", 2,
                            (int64_t[]){words_of(N, bits), groups}));
    return t->ordered ? tw_parts_add(out, t, stem, ".weight_g_idx", "I32", 1, &K) : TW_OK;
}

static tw_status create(tw_model_writer *w, const tw_sink *sink, const tw_model *source) {
    (void)source;
    return tw_write_safetensors(w, sink, parts_of, NULL, 0);
}

/* ---- data ---- */

/* Code i of a stream whose words are `stride` apart. */
static void stream_set(uint32_t *words, int64_t stride, int64_t i, int bits, uint32_t code) {
    int64_t at = i * bits, word = at / 32;
    int shift = (int)(at % 32);
    words[word * stride] |= code << shift;
    if (shift + bits > 32) words[(word + 1) * stride] |= code >> (32 - shift);
}

static tw_status put_codes(tw_model_writer *w, const tw_canonical_tensor *c) {
    tw_dtype d = c->scheme.weight;
    int bits = tw_dtype_bits(d);
    size_t row = tw_dtype_row_bytes(d, c->K), words = (size_t)words_of(c->K, bits);
    uint32_t *packed = malloc(words * sizeof *packed);
    uint8_t *codes = malloc((size_t)c->K);
    tw_status status = packed && codes ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a row");
    for (int64_t n = 0; n < c->N && !status; n++) {
        tw_codes_get((const char *)c->weight + (size_t)n * row, d, 0, c->K, codes);
        memset(packed, 0, words * sizeof *packed);
        /* Columns go back to the model's order. */
        for (int64_t k = 0; k < c->K; k++)
            stream_set(packed, 1, c->order ? c->order[k] : k, bits, codes[k]);
        status = tw_safetensors_append(w->file, packed, words * sizeof *packed);
    }
    free(codes);
    free(packed);
    return status;
}

static tw_status put_zeros(tw_model_writer *w, const tw_canonical_tensor *c) {
    int64_t groups = tw_groups(&c->scheme, c->K);
    int bits = tw_dtype_bits(c->scheme.weight);
    size_t words = (size_t)(words_of(c->N, bits) * groups);
    uint32_t *packed = calloc(words, sizeof *packed);
    if (!packed) return tw_fail(TW_MEMORY, "out of memory for zero points");
    tw_status status = TW_OK;
    for (int64_t n = 0; n < c->N && !status; n++)
        for (int64_t g = 0; g < groups && !status; g++) {
            uint8_t zero = ((const uint8_t *)c->zeros)[n * groups + g];
            if (zero >> bits)
                status = tw_fail(TW_UNSUPPORTED, "zeros[%lld,%lld]: %d, is no code of %d bits",
                                 (long long)n, (long long)g, zero, bits);
            stream_set(packed + g, groups, n, bits, zero);
        }
    if (!status) status = tw_safetensors_append(w->file, packed, words * sizeof *packed);
    free(packed);
    return status;
}

static tw_status put_order(tw_model_writer *w, const tw_canonical_tensor *c) {
    int32_t *groups = malloc((size_t)c->K * sizeof *groups);
    if (!groups) return tw_fail(TW_MEMORY, "out of memory for an order");
    for (int64_t k = 0; k < c->K; k++)
        groups[c->order[k]] = (int32_t)(k / tw_group_k(&c->scheme, c->K));
    tw_status status = tw_safetensors_append(w->file, groups, (size_t)c->K * sizeof *groups);
    free(groups);
    return status;
}

static tw_status add(tw_model_writer *w, const tw_planned_tensor *t, const tw_canonical_tensor *c) {
    const int64_t shape[2] = {c->N, c->K};
    (void)t;
    if (tw_scheme_plain(&c->scheme))
        return tw_safetensors_append(w->file, c->weight, c->weight_bytes);
    TW_TRY(put_codes(w, c));
    TW_TRY(tw_safetensors_append(w->file, c->scales, c->scale_bytes));
    TW_TRY(tw_safetensors_append(w->file, shape, sizeof shape));
    if (c->zeros) TW_TRY(put_zeros(w, c));
    return c->order ? put_order(w, c) : TW_OK;
}

const tw_form_row tw_form_compressed = {"compressed-tensors", check, create, add, tw_write_through};

/* ---- the configuration ---- */

static json_t *weights_of(const tw_planned_tensor *t) {
    const tw_scheme *s = &t->scheme;
    json_t *weights = json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", tw_dtype_bits(s->weight),
                                "type", "int", "symmetric", s->zero_mode == TW_ZERO_NONE,
                                "strategy", s->group_k ? "group" : "channel", "dynamic", false);
    if (s->group_k) json_object_set_new(weights, "group_size", json_integer(s->group_k));
    if (t->ordered) json_object_set_new(weights, "actorder", json_string("group"));
    return weights;
}

static json_t *activations_of(const tw_scheme *s) {
    if (!s->act_quant) return json_null();
    return json_pack("{s:i, s:s, s:b, s:s, s:b}", "num_bits", 8, "type", "int", "symmetric",
                     s->act_quant == TW_ACTQ_I8_FULL, "strategy", "token", "dynamic", true);
}

/* The group of config_groups that describes the tensor; made where there is none yet. */
static json_t *group_of(json_t *groups, const tw_planned_tensor *t) {
    json_t *weights = weights_of(t), *inputs = activations_of(&t->scheme), *group;
    const char *key;
    char name[32];
    json_object_foreach(groups, key, group) {
        if (!json_equal(json_object_get(group, "weights"), weights) ||
            !json_equal(json_object_get(group, "input_activations"), inputs))
            continue;
        json_decref(weights);
        json_decref(inputs);
        return group;
    }
    snprintf(name, sizeof name, "group_%zu", json_object_size(groups));
    group =
        json_pack("{s:[], s:o, s:o, s:n, s:s}", "targets", "weights", weights, "input_activations",
                  inputs, "output_activations", "format", "pack-quantized");
    json_object_set_new(groups, name, group);
    return group;
}

tw_status tw_compressed_config(const tw_planned_tensor *plan, int32_t count, char **out) {
    json_t *groups = json_object(), *ignored = json_array();
    for (int32_t i = 0; i < count; i++) {
        const tw_planned_tensor *t = &plan[i];
        bool packed = !t->type && !tw_scheme_plain(&t->scheme);
        if (!packed && !(t->linear && tw_ends_with(t->name, weight))) continue;
        json_t *module = json_stringn(t->name, stem_of(t));
        json_array_append_new(packed ? json_object_get(group_of(groups, t), "targets") : ignored,
                              module);
    }
    json_t *config =
        json_pack("{s:s, s:s, s:s, s:o, s:o, s:n}", "quant_method", "compressed-tensors", "format",
                  "pack-quantized", "quantization_status", "compressed", "config_groups", groups,
                  "ignore", ignored, "kv_cache_scheme");
    *out = config ? json_dumps(config, JSON_INDENT(2)) : NULL;
    json_decref(config);
    return *out ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a quantization_config");
}
