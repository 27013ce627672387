/* GPTQ: codes as a stream of bits along K, zeros as one along N; columns in the order of their
 * groups (desc_act) by g_idx.  w = (q - zero) * scale.  Layout: QuantLinear.pack of AutoGPTQ and
 * GPTQModel; a checkpoint of format v1 stores each zero less 1. */
#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"

enum { WEIGHT, ZEROS, SCALES, G_IDX };
enum { V1, V2 };

typedef struct settings {
    int64_t bits, group;
    int version;
    bool ordered; /* desc_act: g_idx must be there */
} settings;

static tw_status read_settings(const tw_compose *c, settings *out) {
    const char *format;
    bool marlin;
    const json_t *dynamic = json_object_get(c->config, "dynamic");
    TW_TRY(tw_json_int(c->config, "bits", 2, 8, -1, c->label, &out->bits));
    TW_TRY(tw_compose_group(c, c->config, &out->group));
    TW_TRY(tw_json_text(c->config, "format", "gptq", c->label, &format));
    TW_TRY(tw_json_text(c->config, "checkpoint_format", format, c->label, &format));
    TW_TRY(tw_json_bool(c->config, "is_marlin_format", false, c->label, &marlin));
    if (out->bits > 4 && out->bits != 8)
        return tw_fail(TW_UNSUPPORTED, "%s: quantization_config: bits: %d, GPTQ has 2, 3, 4 and 8",
                       c->label, (int)out->bits);
    if (marlin || (strcmp(format, "gptq") != 0 && strcmp(format, "gptq_v2") != 0))
        return tw_fail(TW_UNSUPPORTED,
                       "%s: quantization_config: checkpoint_format: '%s', expected gptq or gptq_v2",
                       c->label, marlin ? "marlin" : tw_show(format, strlen(format)).text);
    if (json_is_object(dynamic) && json_object_size(dynamic))
        return tw_fail(TW_UNSUPPORTED,
                       "%s: quantization_config: dynamic: rules of single layers are not read",
                       c->label);
    TW_TRY(tw_json_bool(c->config, "desc_act", false, c->label, &out->ordered));
    out->version = strcmp(format, "gptq") ? V2 : V1;
    return TW_OK;
}

static uint32_t stored_zero(const tw_composite *self, int64_t n, int64_t g) {
    const tw_tensor_entry *zeros = &self->part[ZEROS];
    const uint8_t *row = zeros->data + g * zeros->info.shape[1] * 4;
    return tw_stream_get(row, 4, n, self->bits);
}

/* As AutoGPTQ reads v1: within the bits, so that a 0 that was stored as all ones comes back. */
static uint8_t zero_of(const tw_composite *self, int64_t n, int64_t g) {
    uint32_t mask = (1u << self->bits) - 1;
    return (uint8_t)((stored_zero(self, n, g) + (self->kind == V1)) & mask);
}

static int zero_as_int(const tw_composite *self, int64_t n, int64_t g) {
    return zero_of(self, n, g);
}

static void codes_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    const uint8_t *column = self->part[WEIGHT].data + n * 4;
    for (int64_t k = 0; k < self->K; k++)
        codes[k] = (uint8_t)tw_stream_get(column, self->N * 4, k, self->bits);
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    if (out->scheme.weight == TW_F32)
        return tw_compose_f32(self, codes_of_row, zero_as_int, &self->part[G_IDX],
                              &self->part[SCALES], 1, self->N, out);
    int64_t groups = tw_groups(&out->scheme, self->K);
    if (self->part[G_IDX].type) {
        TW_TRY(tw_canonical_tensor_add_order(out));
        tw_groups_sort(&self->part[G_IDX], self->K, groups, out->order);
    }
    tw_compose_scales(self, &self->part[SCALES], true, self->N, out);
    for (int64_t n = 0; out->zeros && n < self->N; n++)
        for (int64_t g = 0; g < groups; g++)
            ((uint8_t *)out->zeros)[n * groups + g] = zero_of(self, n, g);
    return tw_compose_rows(self, codes_of_row, out);
}

/* Whether each zero is the middle code, which signed codes need no zero for; and whether a stored
 * one of v1 may have been a borrow. */
static void look_at_zeros(const tw_composite *self, int64_t groups, bool *middle, bool *ambiguous) {
    *middle = true;
    *ambiguous = false;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t n = 0; n < self->N; n++) {
            *middle = *middle && zero_of(self, n, g) == 1 << (self->bits - 1);
            *ambiguous = *ambiguous || (self->kind == V1 && !zero_of(self, n, g));
        }
}

static tw_status find_parts(tw_compose *c, const tw_marker *m, const settings *s,
                            tw_composite *out) {
    tw_tensor_entry *part = out->part;
    TW_TRY(tw_compose_need(c, m, ".qweight", &part[WEIGHT]));
    TW_TRY(tw_compose_need(c, m, ".qzeros", &part[ZEROS]));
    TW_TRY(tw_compose_need(c, m, ".scales", &part[SCALES]));
    TW_TRY((s->ordered ? tw_compose_need : tw_compose_take)(c, m, ".g_idx", &part[G_IDX]));
    TW_TRY(tw_compose_check(c, &part[WEIGHT], "I32", 2, (int64_t[]){-1, -1}));
    int64_t bits = part[WEIGHT].info.shape[0] * 32;
    out->N = part[WEIGHT].info.shape[1];
    out->K = bits / s->bits;
    out->bits = (int)s->bits;
    out->kind = s->version;
    int64_t words = tw_ceil_div(out->N * s->bits, 32), groups;
    if (out->K % 32)
        return tw_fail(TW_FORMAT, "%s: tensor '%s': [%lld,%lld], expected K * %d / 32 rows",
                       c->label, tw_show(m->stem, strlen(m->stem)).text,
                       (long long)part[WEIGHT].info.shape[0], (long long)out->N, out->bits);
    groups = tw_ceil_div(out->K, s->group ? s->group : out->K);
    TW_TRY(tw_compose_check(c, &part[ZEROS], "I32", 2, (int64_t[]){groups, words}));
    TW_TRY(tw_compose_check(c, &part[SCALES], "F16 BF16 F32", 2, (int64_t[]){groups, out->N}));
    if (!part[G_IDX].type) return TW_OK;
    return tw_compose_check(c, &part[G_IDX], "I32", 1, (int64_t[]){out->K});
}

tw_status tw_compose_gptq(tw_compose *c, const tw_marker *m) {
    tw_composite made = {.read = read, .type = {.name = "GPTQ", .block = 1}};
    tw_scheme *s = &made.type.scheme;
    settings set;
    bool middle, ambiguous, in_order = true, sorted = true;
    TW_TRY(read_settings(c, &set));
    TW_TRY(find_parts(c, m, &set, &made));
    int64_t group = set.group ? tw_min(set.group, made.K) : made.K;
    if (made.part[G_IDX].type)
        TW_TRY(tw_groups_look(c, &made.part[G_IDX], made.K, group, &in_order, &sorted));
    if (in_order) made.part[G_IDX].type = NULL;
    look_at_zeros(&made, tw_ceil_div(made.K, group), &middle, &ambiguous);
    if (ambiguous)
        tw_log_line(c->model->logger, TW_LOG_WARN,
                    "%s: %s: a zero of 0 in GPTQ's format v1, which writers store in different "
                    "ways: its group's weights are uncertain",
                    c->label, tw_show(m->stem, strlen(m->stem)).text);
    s->weight = (tw_dtype)((middle ? TW_I1 : TW_U1) + set.bits - 1);
    s->scale = tw_compose_dtype(&made.part[SCALES]);
    s->zero_mode = middle ? TW_ZERO_NONE : TW_ZERO_CODE;
    s->group_n = 1;
    s->group_k = group < made.K ? (int32_t)group : 0;
    if (!sorted) tw_groups_become_f32(c, &made);
    made.ordered = made.part[G_IDX].type && sorted;
    return tw_compose_add(c, m, ".weight", 2, (int64_t[]){made.N, made.K}, &made);
}
