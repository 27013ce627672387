/* Which forms there are, and the tensor list before and after: see compose.h. */
#include "src/format/compose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "src/core/dtype.h"
#include "src/format/json.h"
#include "src/format/tilewright.h"

/* quant_method of config.json; the suffix of the tensor that marks a weight.  Rows of one method
 * are run in their order. */
static const struct form {
    const char *method, *suffix;
    tw_status (*compose)(tw_compose *c, const tw_marker *marker);
} forms[] = {
    {"tilewright", TW_OWN_CODES, tw_compose_own},
    {"gptq", ".qweight", tw_compose_gptq},
    {"awq", ".qweight", tw_compose_awq},
    {"compressed-tensors", ".weight_scale", tw_compose_compressed},
    {"fp8", ".weight_scale_inv", tw_compose_fp8},
    {"mxfp4", "_blocks", tw_compose_mxfp4},
    {"torchao", "_qdata", tw_compose_torchao},
    {"torchao", ":qdata", tw_compose_torchao},
    {"torchao", "_scale", tw_compose_torchao_rest},
    {"torchao", ":scale", tw_compose_torchao_rest},
};

/* Methods whose files describe their tensors themselves, in __metadata__: whether this one does,
 * even without a config.json; and what is then read in place of the quantization_config. */
static const struct teller {
    const char *method;
    bool (*told)(const tw_model *model);
    tw_status (*begin)(tw_model *model, const char *label, json_t **out);
    bool first; /* whatever the config.json beside it says */
} tellers[] = {
    {"tilewright", tw_own_told, tw_own_begin, true},
    {"torchao", tw_torchao_told, tw_torchao_begin, false},
};

/* ---- parts ---- */

static bool full_name(char *out, size_t size, const char *stem, const char *suffix) {
    int n = snprintf(out, size, "%s%s", stem, suffix);
    return n >= 0 && (size_t)n < size;
}

tw_status tw_compose_take(tw_compose *c, const tw_marker *marker, const char *suffix,
                          tw_tensor_entry *out) {
    char name[1024];
    *out = (tw_tensor_entry){0};
    if (!full_name(name, sizeof name, marker->stem, suffix)) return TW_OK;
    int32_t at = tw_model_find(c->model, name);
    if (at < 0) return TW_OK;
    *out = c->model->tensors[at];
    c->used[at] = 1;
    return TW_OK;
}

tw_status tw_compose_need(tw_compose *c, const tw_marker *marker, const char *suffix,
                          tw_tensor_entry *out) {
    TW_TRY(tw_compose_take(c, marker, suffix, out));
    if (out->type) return TW_OK;
    return tw_fail(TW_FORMAT, "%s: tensor '%s%s': missing, its layer has other parts", c->label,
                   tw_show(marker->stem, strlen(marker->stem)).text, suffix);
}

static void shape_text(int32_t ndim, const int64_t *shape, char *out, size_t size) {
    size_t at = (size_t)snprintf(out, size, "[");
    for (int32_t i = 0; i < ndim && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, shape[i] < 0 ? "%s*" : "%s%lld", i ? "," : "",
                               (long long)shape[i]);
    if (at < size) snprintf(out + at, size - at, "]");
}

/* Whether the word is one of the list, which blanks part. */
static bool is_listed(const char *word, const char *list) {
    size_t size = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += size)
        if ((at == list || at[-1] == ' ') && (!at[size] || at[size] == ' ')) return true;
    return false;
}

tw_status tw_compose_check(const tw_compose *c, const tw_tensor_entry *part, const char *types,
                           int32_t ndim, const int64_t *shape) {
    const tw_model_tensor *t = &part->info;
    bool same = is_listed(t->type, types) && t->ndim == ndim && t->bytes;
    for (int32_t i = 0; same && i < ndim; i++) same = shape[i] < 0 || t->shape[i] == shape[i];
    if (same) return TW_OK;
    char got[200], want[200];
    shape_text(t->ndim, t->shape, got, sizeof got);
    shape_text(ndim, shape, want, sizeof want);
    return tw_fail(TW_FORMAT, "%s: tensor '%s': %s %s, expected %s %s", c->label,
                   tw_show(t->name, strlen(t->name)).text, t->type, got, types, want);
}

tw_dtype tw_compose_dtype(const tw_tensor_entry *part) {
    return tw_safetensors_dtype(part->info.type);
}

tw_status tw_compose_group(const tw_compose *c, const json_t *config, int64_t *out) {
    const json_t *value = json_object_get(config, "group_size");
    *out = 0;
    if (json_is_integer(value) && json_integer_value(value) == -1) return TW_OK;
    return tw_json_int(config, "group_size", 1, TW_MAX_DIM, 0, c->label, out);
}

/* ---- streams and orders ---- */

uint32_t tw_stream_get(const uint8_t *words, int64_t stride, int64_t i, int bits) {
    int64_t at = i * bits, word = at / 32;
    int shift = (int)(at % 32);
    uint64_t pair = tw_load_u32(words + word * stride);
    if (shift + bits > 32) pair |= (uint64_t)tw_load_u32(words + (word + 1) * stride) << 32;
    return (uint32_t)(pair >> shift) & ((1u << bits) - 1);
}

tw_status tw_groups_look(const tw_compose *c, const tw_tensor_entry *g_idx, int64_t K,
                         int64_t group, bool *in_order, bool *sorted) {
    int64_t groups = tw_ceil_div(K, group);
    int64_t *counts = calloc((size_t)groups, sizeof *counts);
    if (!counts)
        return tw_fail(TW_MEMORY, "%s: out of memory for %lld groups", c->label, (long long)groups);
    tw_status status = TW_OK;
    *in_order = *sorted = true;
    for (int64_t k = 0; k < K && status == TW_OK; k++) {
        int32_t g = tw_i32_at(g_idx, k);
        if (g < 0 || g >= groups)
            status = tw_fail(TW_FORMAT, "%s: tensor '%s': column %lld is of group %d of %lld",
                             c->label, tw_show(g_idx->info.name, strlen(g_idx->info.name)).text,
                             (long long)k, g, (long long)groups);
        else
            counts[g]++;
        *in_order = *in_order && g == k / group;
    }
    for (int64_t g = 0; g < groups; g++)
        *sorted = *sorted && counts[g] == tw_min(group, K - g * group);
    free(counts);
    return status;
}

void tw_groups_become_f32(const tw_compose *c, tw_composite *made) {
    made->type.scheme = (tw_scheme){.weight = TW_F32};
    tw_log_line(c->model->logger, TW_LOG_WARN,
                "%s: tensor '%s': the groups of its columns differ in size: read as f32", c->label,
                tw_show(made->part[0].info.name, strlen(made->part[0].info.name)).text);
}

void tw_groups_sort(const tw_tensor_entry *g_idx, int64_t K, int64_t groups, int32_t *order) {
    int64_t at = 0;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t k = 0; k < K; k++)
            if (tw_i32_at(g_idx, k) == g) order[at++] = (int32_t)k;
}

static tw_status not_finite(const tw_composite *self, const char *what, int64_t n, int64_t g) {
    return tw_fail(TW_FORMAT, "tensor '%s': %s of row %lld, group %lld: must be finite",
                   tw_show(self->name, strlen(self->name)).text, what, (long long)n, (long long)g);
}

static tw_status check_finite(const tw_composite *self, const char *what, const void *data,
                              const tw_scheme *s) {
    int64_t rows = tw_scale_rows(s, self->N), groups = tw_groups(s, self->K);
    for (int64_t i = 0; i < rows * groups; i++)
        if (!isfinite(tw_float_get(data, s->scale, i)))
            return not_finite(self, what, i / groups, i % groups);
    return TW_OK;
}

tw_status tw_composite_read(const tw_composite *self, tw_canonical_tensor *out) {
    const tw_scheme *s = &out->scheme;
    TW_TRY(self->read(self, out));
    if (s->scale) TW_TRY(check_finite(self, "scale", out->scales, s));
    return s->zero_mode == TW_ZERO_VALUE ? check_finite(self, "zero", out->zeros, s) : TW_OK;
}

tw_status tw_compose_rows(const tw_composite *self, tw_codes_of_row *codes_of_row,
                          tw_canonical_tensor *out) {
    int64_t K = out->K;
    tw_dtype d = out->scheme.weight;
    size_t row = tw_dtype_row_bytes(d, K);
    uint8_t *codes = calloc(2 * (size_t)K, 1), *sorted = codes + K;
    if (!codes) return tw_fail(TW_MEMORY, "out of memory for a row of %lld codes", (long long)K);
    for (int64_t n = 0; n < out->N; n++) {
        codes_of_row(self, n, codes);
        for (int64_t k = 0; out->order && k < K; k++) sorted[k] = codes[out->order[k]];
        tw_codes_set((char *)out->weight + (size_t)n * row, d, 0, K, out->order ? sorted : codes);
    }
    free(codes);
    return TW_OK;
}

tw_status tw_compose_f32(const tw_composite *self, tw_codes_of_row *codes_of_row,
                         tw_zero_of *zero_of, const tw_tensor_entry *g_idx,
                         const tw_tensor_entry *scales, int64_t n_stride, int64_t g_stride,
                         tw_canonical_tensor *out) {
    tw_dtype d = tw_compose_dtype(scales);
    uint8_t *codes = calloc((size_t)out->K, 1);
    if (!codes)
        return tw_fail(TW_MEMORY, "out of memory for a row of %lld codes", (long long)out->K);
    tw_status status = TW_OK;
    for (int64_t n = 0; n < out->N && status == TW_OK; n++) {
        float *row = (float *)out->weight + n * out->K;
        codes_of_row(self, n, codes);
        for (int64_t k = 0; k < out->K && status == TW_OK; k++) {
            int64_t g = tw_i32_at(g_idx, k);
            float scale = tw_float_get(scales->data, d, n * n_stride + g * g_stride);
            row[k] = (float)(codes[k] - zero_of(self, n, g)) * scale;
            if (!isfinite(scale)) status = not_finite(self, "scale", n, g);
        }
    }
    free(codes);
    return status;
}

void tw_compose_scales(const tw_composite *self, const tw_tensor_entry *part, bool transposed,
                       int64_t columns, tw_canonical_tensor *out) {
    const tw_scheme *s = &out->scheme;
    int64_t rows = tw_scale_rows(s, self->N), groups = tw_groups(s, self->K);
    size_t width = (size_t)tw_dtype_bits(s->scale) / 8;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t from = transposed ? g * columns + n : n * columns + g;
            memcpy((char *)out->scales + (size_t)(n * groups + g) * width,
                   part->data + (size_t)from * width, width);
        }
}

/* ---- the list of tensors ---- */

tw_status tw_compose_add(tw_compose *c, const tw_marker *marker, const char *suffix, int32_t ndim,
                         const int64_t *shape, const tw_composite *made) {
    tw_model *m = c->model;
    char name[1024];
    if (!full_name(name, sizeof name, marker->stem, suffix))
        return tw_fail(TW_FORMAT, "%s: tensor '%s': its name is too long", c->label,
                       tw_show(marker->stem, strlen(marker->stem)).text);
    TW_TRY(
        tw_grow(&m->composites, m->composite_count, &m->composite_capacity, sizeof *m->composites));
    tw_composite *kept = malloc(sizeof *kept);
    if (!kept) return tw_fail(TW_MEMORY, "%s: out of memory for '%s'", c->label, name);
    *kept = *made;
    m->composites[m->composite_count++] = kept;
    /* Other tensors' entries may still be asked for by the old name: it goes at the end. */
    tw_tensor_entry *entry = &m->tensors[marker->index];
    tw_tensor_entry old = *entry;
    entry->composite = kept;
    entry->type = &kept->type;
    entry->data = NULL;
    entry->info = (tw_model_tensor){.name = old.info.name,
                                    .ndim = ndim,
                                    .type = kept->type.name,
                                    .scheme = kept->type.scheme,
                                    .ordered = kept->ordered};
    for (int32_t i = 0; i < ndim; i++) entry->info.shape[i] = shape[i];
    for (int i = 0; i < TW_PARTS; i++)
        if (kept->part[i].type) entry->info.bytes += kept->part[i].info.bytes;
    c->used[marker->index] = 0;
    return tw_model_keep(m, name, strlen(name), &kept->name);
}

/* What is left to be listed, under its own name. */
static tw_status conclude(tw_compose *c) {
    tw_model *m = c->model;
    int32_t kept = 0;
    for (int32_t i = 0; i < m->tensor_count; i++) {
        if (c->used[i]) continue;
        tw_tensor_entry *entry = &m->tensors[kept++];
        *entry = m->tensors[i];
        if (entry->composite) entry->info.name = entry->composite->name;
    }
    m->tensor_count = kept;
    return tw_model_index(m, c->label);
}

static tw_status compose_all(tw_compose *c, const struct form *form) {
    tw_model *m = c->model;
    for (int32_t i = 0; i < m->tensor_count; i++) {
        const char *name = m->tensors[i].info.name;
        bool done = m->tensors[i].composite || c->used[i];
        if (!tw_ends_with(name, form->suffix) || done) continue;
        char *stem = strndup(name, strlen(name) - strlen(form->suffix));
        if (!stem) return tw_fail(TW_MEMORY, "%s: out of memory for a name", c->label);
        tw_marker marker = {stem, i};
        tw_status status = form->compose(c, &marker);
        free(stem);
        TW_TRY(status);
    }
    return TW_OK;
}

/* All rows of a method, from its first. */
static tw_status compose_rows(tw_compose *c, const struct form *form) {
    const char *method = form->method;
    for (; form < forms + TW_COUNT(forms); form++)
        if (!strcmp(form->method, method)) TW_TRY(compose_all(c, form));
    return conclude(c);
}

static tw_status refuse(tw_model *m, const char *method) {
    char text[400];
    size_t at = (size_t)snprintf(text, sizeof text,
                                 "config.json: quantization_config: quant_method '%s', which this "
                                 "version cannot read; it reads ",
                                 tw_show(method, strlen(method)).text);
    /* No config.json names the first row's. */
    for (size_t i = 1; i < TW_COUNT(forms) && at < sizeof text; i++)
        if (strcmp(forms[i].method, forms[i - 1].method) != 0)
            at += (size_t)snprintf(text + at, sizeof text - at, i > 1 ? ", %s" : "%s",
                                   forms[i].method);
    TW_TRY(tw_model_keep(m, text, strlen(text), &m->unread));
    m->refusal = m->unread;
    return TW_OK;
}

static tw_status compose(tw_compose *c, const struct form *form, const json_t *config) {
    json_t *own = NULL;
    for (size_t i = 0; i < TW_COUNT(tellers); i++)
        if (!strcmp(tellers[i].method, form->method))
            TW_TRY(tellers[i].begin(c->model, c->label, &own));
    c->config = own ? own : config;
    c->used = calloc((size_t)c->model->tensor_count + 1, 1);
    tw_status status = c->used ? compose_rows(c, form)
                               : tw_fail(TW_MEMORY, "%s: out of memory for its tensors", c->label);
    if (c->shared) c->free_shared(c->shared);
    free(c->used);
    json_decref(own);
    return status;
}

tw_status tw_compose_model(tw_model *model) {
    if (model->kind != TW_MODEL_SAFETENSORS) return TW_OK;
    tw_compose c = {.model = model, .label = model->files[0].label};
    json_t *config = NULL;
    const char *method = NULL, *text = model->quantization;
    tw_status status = TW_OK;
    for (size_t t = 0; !method && t < TW_COUNT(tellers); t++)
        if ((tellers[t].first || !text) && tellers[t].told(model)) method = tellers[t].method;
    if (method) text = NULL;
    if (text) TW_TRY(tw_json_object(text, strlen(text), c.label, &config));
    if (text)
        status = tw_json_text(config, "quant_method", "unnamed", "config.json: quantization_config",
                              &method);
    size_t i = 0;
    while (method && i < TW_COUNT(forms) && strcmp(forms[i].method, method) != 0) i++;
    if (status == TW_OK && method)
        status = i < TW_COUNT(forms) ? compose(&c, &forms[i], config) : refuse(model, method);
    json_decref(config);
    return status;
}
