/* compressed-tensors (vLLM's llm-compressor): NAME.weight or NAME.weight_packed with
 * NAME.weight_scale, and zero points, a global scale or activation order where there are some.
 * Formats: compressed_tensors/compressors of that project.  Packed integers are streams of bits
 * along K of code + 2^(bits-1); those of three bits were ten to a word in its first versions. */
#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"
#include "src/format/targets.h"

enum { WEIGHT, SCALES, ZEROS, G_IDX, GLOBAL };
enum { PACKED, TEN_A_WORD, BYTES, NIBBLES };

/* One of config_groups. */
typedef struct settings {
    const json_t *weights, *activations;
    int64_t bits, group_n, group_k;    /* 0: all of the dimension */
    bool is_float, symmetric, ordered; /* ordered: weight_g_idx must be there */
} settings;

/* ---- the configuration ---- */

static void free_targets(void *targets) { tw_targets_free(targets); }

/* NULL for a module that is left as it is.  Where there is one group, it is that of all that is
 * quantized: names in the file need not be those of the modules. */
static tw_status find_group(tw_compose *c, const char *stem, const json_t **out) {
    const json_t *groups = json_object_get(c->config, "config_groups");
    bool ignored;
    if (!c->shared) {
        tw_targets *targets;
        TW_TRY(tw_targets_make(c->config, c->label, &targets));
        c->shared = targets;
        c->free_shared = free_targets;
    }
    TW_TRY(tw_targets_find(c->shared, stem, tw_module_class(stem), out, &ignored));
    if (ignored) return TW_OK;
    if (!*out && json_object_size(groups) == 1)
        *out = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)groups));
    if (json_is_object(*out)) return TW_OK;
    return tw_fail(TW_UNSUPPORTED,
                   "%s: quantization_config: config_groups: none has a target that matches '%s', "
                   "of class %s",
                   c->label, tw_show(stem, strlen(stem)).text, tw_module_class(stem));
}

static tw_status read_block(const tw_compose *c, settings *s) {
    const json_t *block = json_object_get(s->weights, "block_structure");
    const json_t *n = json_array_get(block, 0), *k = json_array_get(block, 1);
    s->group_n = json_integer_value(n);
    s->group_k = json_integer_value(k);
    if (s->group_n >= 1 && s->group_k >= 1 && s->group_n <= TW_MAX_DIM && s->group_k <= TW_MAX_DIM)
        return TW_OK;
    return tw_fail(TW_FORMAT, "%s: quantization_config: block_structure: expected two sizes",
                   c->label);
}

static tw_status read_settings(const tw_compose *c, const json_t *group, settings *s) {
    const char *strategy, *type, *order;
    *s = (settings){.weights = json_object_get(group, "weights"),
                    .activations = json_object_get(group, "input_activations")};
    if (!json_is_object(s->weights))
        return tw_fail(TW_UNSUPPORTED, "%s: quantization_config: weights: none", c->label);
    TW_TRY(tw_json_int(s->weights, "num_bits", 1, 8, -1, c->label, &s->bits));
    TW_TRY(tw_json_text(s->weights, "type", "int", c->label, &type));
    TW_TRY(tw_json_text(s->weights, "strategy", "tensor", c->label, &strategy));
    TW_TRY(tw_json_bool(s->weights, "symmetric", true, c->label, &s->symmetric));
    TW_TRY(tw_json_text(s->weights, "actorder", "", c->label, &order));
    s->ordered = !strcmp(order, "group");
    s->is_float = !strcmp(type, "float");
    if (!s->is_float && strcmp(type, "int") != 0)
        return tw_fail(TW_UNSUPPORTED, "%s: quantization_config: type: '%s', expected int or float",
                       c->label, tw_show(type, strlen(type)).text);
    s->group_n = strcmp(strategy, "tensor") != 0;
    if (!strcmp(strategy, "tensor") || !strcmp(strategy, "channel")) return TW_OK;
    if (!strcmp(strategy, "block")) return read_block(c, s);
    if (!strcmp(strategy, "group") || !strcmp(strategy, "tensor_group"))
        return tw_json_int(s->weights, "group_size", 1, TW_MAX_DIM, -1, c->label, &s->group_k);
    return tw_fail(TW_UNSUPPORTED, "%s: quantization_config: strategy: '%s' is not read", c->label,
                   tw_show(strategy, strlen(strategy)).text);
}

/* Dynamic codes of 8 bits a token; what else there may be is left to the floats of x. */
static tw_act_quant act_quant_of(const settings *s) {
    const json_t *a = s->activations;
    const char *type = json_string_value(json_object_get(a, "type"));
    const char *strategy = json_string_value(json_object_get(a, "strategy"));
    bool eight = json_integer_value(json_object_get(a, "num_bits")) == 8;
    bool dynamic = json_is_true(json_object_get(a, "dynamic"));
    if (s->is_float || !type || strcmp(type, "int") != 0 || !eight || !dynamic || !strategy ||
        strcmp(strategy, "token") != 0)
        return TW_ACTQ_NONE;
    return json_is_false(json_object_get(a, "symmetric")) ? TW_ACTQ_I8Z : TW_ACTQ_I8_FULL;
}

/* ---- reading ---- */

static uint32_t packed_code(const tw_composite *self, int64_t n, int64_t k) {
    const tw_tensor_entry *t = &self->part[WEIGHT];
    const uint8_t *row = t->data + n * t->info.shape[1] * 4;
    if (self->kind == PACKED) return tw_stream_get(row, 4, k, self->bits);
    return tw_load_u32(row + k / 10 * 4) >> 3 * (k % 10) & 7;
}

static void codes_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    const tw_tensor_entry *t = &self->part[WEIGHT];
    bool integer = !strcmp(t->info.type, "I8");
    for (int64_t k = 0; k < self->K; k++) {
        if (self->kind == NIBBLES)
            codes[k] = t->data[n * t->info.shape[1] + k / 2] >> 4 * (k % 2) & 15;
        else if (self->kind == BYTES) /* of integers counted from -128 */
            codes[k] = t->data[n * self->K + k] ^ (integer ? 0x80 : 0);
        else
            codes[k] = (uint8_t)packed_code(self, n, k);
    }
}

static uint8_t zero_of(const tw_composite *self, int64_t groups, int64_t n, int64_t g) {
    const tw_tensor_entry *t = &self->part[ZEROS];
    if (!strcmp(t->info.type, "I32"))
        return (uint8_t)tw_stream_get(t->data + g * 4, groups * 4, n, self->bits);
    return (uint8_t)(t->data[n * groups + g] + (1 << (self->bits - 1)));
}

static void read_zeros(const tw_composite *self, tw_canonical_tensor *out) {
    int64_t groups = tw_groups(&out->scheme, self->K), rows = tw_scale_rows(&out->scheme, self->N);
    for (int64_t n = 0; n < rows; n++)
        for (int64_t g = 0; g < groups; g++)
            ((uint8_t *)out->zeros)[n * groups + g] = zero_of(self, groups, n, g);
}

static int zero_as_int(const tw_composite *self, int64_t n, int64_t g) {
    if (!self->part[ZEROS].type) return 1 << (self->bits - 1);
    return zero_of(self, self->part[SCALES].info.shape[1], n, g);
}

/* NVFP4: scales of scales become f32, divided once as the writer does. */
static void read_two_levels(const tw_composite *self, tw_canonical_tensor *out) {
    float global = tw_float_get(self->part[GLOBAL].data, TW_F32, 0), *scales = out->scales;
    int64_t count = (int64_t)out->scale_bytes / (int64_t)sizeof *scales;
    for (int64_t i = 0; i < count; i++)
        scales[i] = tw_float_get(self->part[SCALES].data, TW_E4M3, i) / global;
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    if (out->scheme.weight == TW_F32)
        return tw_compose_f32(self, codes_of_row, zero_as_int, &self->part[G_IDX],
                              &self->part[SCALES], self->part[SCALES].info.shape[1], 1, out);
    int64_t groups = tw_groups(&out->scheme, self->K);
    if (self->part[G_IDX].type) {
        TW_TRY(tw_canonical_tensor_add_order(out));
        tw_groups_sort(&self->part[G_IDX], self->K, groups, out->order);
    }
    if (self->part[GLOBAL].type)
        read_two_levels(self, out);
    else
        tw_compose_scales(self, &self->part[SCALES], false, groups, out);
    if (out->zeros) read_zeros(self, out);
    return tw_compose_rows(self, codes_of_row, out);
}

/* ---- opening ---- */

static tw_status bad(const tw_compose *c, const tw_tensor_entry *t, const char *why) {
    return tw_fail(TW_FORMAT, "%s: tensor '%s': %s", c->label,
                   tw_show(t->info.name, strlen(t->info.name)).text, why);
}

/* NAME.weight_shape is [2] of I64: N, K of what is packed. */
static tw_status read_packed_shape(tw_compose *c, const tw_marker *m, tw_composite *out) {
    tw_tensor_entry shape, *w = &out->part[WEIGHT];
    TW_TRY(tw_compose_need(c, m, ".weight_shape", &shape));
    TW_TRY(tw_compose_check(c, &shape, "I64 I32", 1, (int64_t[]){2}));
    bool wide = !strcmp(shape.info.type, "I64");
    out->N = wide ? (int64_t)tw_load_u64(shape.data) : tw_i32_at(&shape, 0);
    out->K = wide ? (int64_t)tw_load_u64(shape.data + 8) : tw_i32_at(&shape, 1);
    if (out->N < 1 || out->N > TW_MAX_DIM || out->K < 1 || out->K > TW_MAX_DIM)
        return bad(c, &shape, "no shape of a matrix");
    TW_TRY(tw_compose_check(c, w, "I32", 2, (int64_t[]){out->N, -1}));
    int64_t words = w->info.shape[1];
    if (words == tw_ceil_div(out->K * out->bits, 32)) return TW_OK;
    out->kind = TEN_A_WORD;
    if (out->bits == 3 && words == tw_ceil_div(out->K, 10)) return TW_OK;
    return bad(c, w, "its width is not what weight_shape's K takes");
}

static tw_status find_weight(tw_compose *c, const tw_marker *m, const settings *s,
                             tw_composite *out) {
    tw_tensor_entry *w = &out->part[WEIGHT];
    out->bits = (int)s->bits;
    TW_TRY(tw_compose_take(c, m, ".weight_packed", w));
    out->kind = s->is_float ? NIBBLES : PACKED;
    if (w->type && !s->is_float) return read_packed_shape(c, m, out);
    if (w->type) {
        if (s->bits != 4) return bad(c, w, "packed floats are of 4 bits only");
        TW_TRY(tw_compose_check(c, w, "U8", 2, (int64_t[]){-1, -1}));
        out->N = w->info.shape[0];
        out->K = w->info.shape[1] * 2;
    } else {
        out->kind = BYTES;
        TW_TRY(tw_compose_need(c, m, ".weight", w));
        TW_TRY(tw_compose_check(c, w, s->is_float ? "F8_E4M3" : "I8", 2, (int64_t[]){-1, -1}));
        if (s->bits != 8) return bad(c, w, "codes that are not packed are of 8 bits only");
        out->N = w->info.shape[0];
        out->K = w->info.shape[1];
    }
    return TW_OK;
}

static tw_status check_scales(const tw_compose *c, const tw_composite *made) {
    const tw_scheme *s = &made->type.scheme;
    const tw_tensor_entry *t = &made->part[SCALES];
    int64_t rows = tw_scale_rows(s, made->N), groups = tw_groups(s, made->K);
    const char *types = made->part[GLOBAL].type ? "F8_E4M3"
                        : s->scale == TW_E8M0   ? "U8 F8_E8M0"
                                                : "F16 BF16 F32";
    /* One of all may be a vector of one, or a number. */
    if (rows * groups == 1 && t->info.ndim < 2)
        return tw_compose_check(c, t, types, t->info.ndim, (int64_t[]){1});
    return tw_compose_check(c, t, types, 2, (int64_t[]){rows, groups});
}

static tw_status check_zeros(const tw_compose *c, const tw_composite *made) {
    const tw_scheme *s = &made->type.scheme;
    const tw_tensor_entry *t = &made->part[ZEROS];
    int64_t rows = tw_scale_rows(s, made->N), groups = tw_groups(s, made->K);
    if (!strcmp(t->info.type, "I32"))
        return tw_compose_check(c, t, "I32", 2,
                                (int64_t[]){tw_ceil_div(rows * made->bits, 32), groups});
    if (rows * groups == 1 && t->info.ndim < 2)
        return tw_compose_check(c, t, "I8", t->info.ndim, (int64_t[]){1});
    return tw_compose_check(c, t, "I8", 2, (int64_t[]){rows, groups});
}

static tw_status check_order(const tw_compose *c, tw_composite *made) {
    tw_tensor_entry *t = &made->part[G_IDX];
    bool in_order, sorted;
    if (!t->type) return TW_OK;
    TW_TRY(tw_compose_check(c, t, "I32", 1, (int64_t[]){made->K}));
    int64_t group = tw_group_k(&made->type.scheme, made->K);
    TW_TRY(tw_groups_look(c, t, made->K, group, &in_order, &sorted));
    if (in_order) t->type = NULL;
    if (sorted) return TW_OK;
    if (!tw_dtype_is_int(made->type.scheme.weight) || made->type.scheme.group_n != 1)
        return tw_fail(TW_UNSUPPORTED, "%s: tensor '%s': groups that are not of %lld columns each",
                       c->label, tw_show(t->info.name, strlen(t->info.name)).text,
                       (long long)group);
    tw_groups_become_f32(c, made);
    return TW_OK;
}

/* What is known of x is not used: activations are quantized as they come, or not at all. */
static tw_status drop_inputs(tw_compose *c, const tw_marker *m) {
    static const char *const names[] = {".input_scale", ".input_zero_point", ".input_global_scale"};
    tw_tensor_entry unused;
    for (size_t i = 0; i < TW_COUNT(names); i++) TW_TRY(tw_compose_take(c, m, names[i], &unused));
    return TW_OK;
}

static tw_dtype weight_dtype(const settings *s) {
    if (s->is_float) return s->bits == 4 ? TW_E2M1 : TW_E4M3;
    return (tw_dtype)((s->symmetric ? TW_I1 : TW_U1) + s->bits - 1);
}

static const char *type_name(const settings *s, const tw_composite *made) {
    bool mx = made->type.scheme.scale == TW_E8M0;
    if (!s->is_float) return made->kind == BYTES ? "CT-int" : "CT-packed";
    return s->bits == 8 ? mx ? "MXFP8" : "F8_E4M3" : mx ? "MXFP4" : "NVFP4";
}

tw_status tw_compose_compressed(tw_compose *c, const tw_marker *m) {
    tw_composite made = {.read = read, .type.block = 1};
    tw_scheme *s = &made.type.scheme;
    settings set;
    const json_t *group;
    TW_TRY(find_group(c, m->stem, &group));
    if (!group) return TW_OK;
    TW_TRY(read_settings(c, group, &set));
    TW_TRY(tw_compose_need(c, m, ".weight_scale", &made.part[SCALES]));
    TW_TRY(find_weight(c, m, &set, &made));
    TW_TRY(tw_compose_take(c, m, ".weight_zero_point", &made.part[ZEROS]));
    TW_TRY((set.ordered ? tw_compose_need : tw_compose_take)(c, m, ".weight_g_idx",
                                                             &made.part[G_IDX]));
    TW_TRY(tw_compose_take(c, m, ".weight_global_scale", &made.part[GLOBAL]));
    TW_TRY(drop_inputs(c, m));
    if (set.symmetric) made.part[ZEROS].type = NULL;
    if (!set.symmetric && (set.is_float || !made.part[ZEROS].type))
        return bad(c, &made.part[SCALES], "asymmetric weights without zero points");
    bool bytes = !strcmp(made.part[SCALES].info.type, "U8");
    s->weight = weight_dtype(&set);
    s->scale = made.part[GLOBAL].type ? TW_F32
               : bytes                ? TW_E8M0
                                      : tw_compose_dtype(&made.part[SCALES]);
    s->zero_mode = set.symmetric ? TW_ZERO_NONE : TW_ZERO_CODE;
    s->group_n = (int32_t)set.group_n;
    s->group_k = set.group_k < made.K || set.group_n > 1 ? (int32_t)set.group_k : 0;
    s->act_quant = act_quant_of(&set);
    made.type.name = type_name(&set, &made);
    if (made.part[GLOBAL].type)
        TW_TRY(tw_compose_check(c, &made.part[GLOBAL], "F32", 1, (int64_t[]){1}));
    TW_TRY(check_scales(c, &made));
    if (made.part[ZEROS].type) TW_TRY(check_zeros(c, &made));
    TW_TRY(check_order(c, &made));
    made.ordered = made.part[G_IDX].type && s->weight != TW_F32;
    return tw_compose_add(c, m, ".weight", 2, (int64_t[]){made.N, made.K}, &made);
}
