/* The reader of our own safetensors form (docs/format.md): __metadata__ says which tensors are
 * linear layers and what scheme each quantized one has; its parts lie beside one another. */
#include "src/format/tilewright.h"

#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"

enum { CODES, SCALES, ZEROS, LUT, ORDER };

static const char *text_of(const tw_model *model, const char *key) {
    for (int32_t i = 0; i < model->metadata_count; i++)
        if (!strcmp(model->metadata[i].key, key)) return model->metadata[i].value;
    return NULL;
}

static tw_status bad_entry(const char *label, const char *name, const char *what) {
    return tw_fail(TW_FORMAT, "%s: " TW_OWN_TENSORS ": '%s': %s", label,
                   tw_show(name, strlen(name)).text, what);
}

/* What is said of a tensor whose parts are not there would go unnoticed. */
static tw_status check_entries(tw_model *model, const char *label, json_t *config) {
    const char *name;
    json_t *entry;
    json_object_foreach(config, name, entry) {
        tw_str whole = {0};
        bool scheme = json_object_get(entry, "scheme"), linear;
        TW_TRY(tw_json_bool(entry, "linear", false, label, &linear));
        tw_str_add(&whole, "%s%s", name, scheme ? TW_OWN_CODES : "");
        int32_t at = tw_model_find(model, tw_str_text(&whole));
        tw_str_free(&whole);
        if (at < 0) return bad_entry(label, name, "there is no such tensor");
        int32_t ndim = model->tensors[at].info.ndim;
        if (linear && !scheme && ndim != 2 && ndim != 3)
            return bad_entry(label, name, "linear, but no matrix");
        model->tensors[at].declared_linear = linear;
    }
    return TW_OK;
}

bool tw_own_told(const tw_model *model) { return text_of(model, TW_OWN_VERSION); }

tw_status tw_own_begin(tw_model *model, const char *label, json_t **out) {
    const char *version = text_of(model, TW_OWN_VERSION);
    const char *tensors = text_of(model, TW_OWN_TENSORS);
    const char *architecture = text_of(model, TW_OWN_ARCHITECTURE);
    *out = NULL;
    if (strcmp(version, TW_OWN_NUMBER) != 0)
        return tw_fail(TW_UNSUPPORTED,
                       "%s: " TW_OWN_VERSION ": '%s', this version reads " TW_OWN_NUMBER, label,
                       tw_show(version, strlen(version)).text);
    if (!tensors)
        return tw_fail(TW_FORMAT, "%s: " TW_OWN_VERSION ", but no " TW_OWN_TENSORS, label);
    if (architecture && !model->architecture) model->architecture = architecture;
    model->declares_linears = true;
    json_t *config;
    TW_TRY(tw_json_object(tensors, strlen(tensors), label, &config));
    tw_status status = check_entries(model, label, config);
    if (status)
        json_decref(config);
    else
        *out = config;
    return status;
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    const struct {
        void *to;
        size_t bytes;
    } whole[] = {{out->weight, out->weight_bytes},
                 {out->scales, out->scale_bytes},
                 {out->zeros, out->zero_bytes}};
    for (size_t i = 0; i < TW_COUNT(whole); i++)
        if (whole[i].bytes) memcpy(whole[i].to, self->part[i].data, whole[i].bytes);
    if (self->part[LUT].type) {
        TW_TRY(tw_canonical_tensor_add_lut(out));
        memcpy(out->lut, self->part[LUT].data, self->part[LUT].info.bytes);
    }
    if (self->part[ORDER].type) {
        TW_TRY(tw_canonical_tensor_add_order(out));
        memcpy(out->order, self->part[ORDER].data, self->part[ORDER].info.bytes);
    }
    return TW_OK;
}

static tw_status read_shape(const tw_compose *c, const char *name, const json_t *entry,
                            tw_model_tensor *out) {
    const json_t *shape = json_object_get(entry, "shape"), *value;
    size_t i;
    int64_t count = 1;
    if (!json_is_array(shape) || json_array_size(shape) < 1 ||
        json_array_size(shape) > TW_MODEL_DIMS)
        return bad_entry(c->label, name, "shape: expected 1 to 8 sizes");
    json_array_foreach(shape, i, value) {
        out->shape[i] = json_integer_value(value);
        if (out->shape[i] < 1 || __builtin_mul_overflow(count, out->shape[i], &count) ||
            count > INT64_MAX / 64)
            return bad_entry(c->label, name, "shape: expected sizes of at least 1 within 58 bits");
    }
    out->ndim = (int32_t)json_array_size(shape);
    out->bytes = 1;
    return TW_OK;
}

/* Each part in the type and the shape that the scheme makes it. */
static tw_status take_parts(tw_compose *c, const tw_marker *m, tw_composite *made) {
    const tw_scheme *s = &made->type.scheme;
    int64_t N = made->N, K = made->K;
    const int64_t groups[] = {tw_scale_rows(s, N), tw_groups(s, K)};
    const char *scale = tw_safetensors_type(s->scale);
    const struct {
        int part;
        bool has;
        const char *suffix, *type;
        int32_t ndim;
        const int64_t *shape;
    } rows[] = {
        {CODES, true, TW_OWN_CODES, "U8", 2,
         (int64_t[]){N, (int64_t)tw_dtype_row_bytes(s->weight, K)}},
        {SCALES, true, TW_OWN_SCALES, scale, 2, groups},
        {ZEROS, s->zero_mode, TW_OWN_ZEROS, s->zero_mode == TW_ZERO_CODE ? "U8" : scale, 2, groups},
        {LUT, s->weight == TW_LUT4, TW_OWN_LUT, "F32", 1, (int64_t[]){TW_LUT4_SIZE}},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        if (!rows[i].has) continue;
        TW_TRY(tw_compose_need(c, m, rows[i].suffix, &made->part[rows[i].part]));
        TW_TRY(tw_compose_check(c, &made->part[rows[i].part], rows[i].type, rows[i].ndim,
                                rows[i].shape));
    }
    TW_TRY(tw_compose_take(c, m, TW_OWN_ORDER, &made->part[ORDER]));
    return made->part[ORDER].type ? tw_compose_check(c, &made->part[ORDER], "I32", 1, &K) : TW_OK;
}

static tw_status check_order(const tw_compose *c, const tw_marker *m, const tw_composite *made) {
    if (!made->part[ORDER].type) return TW_OK;
    int32_t *order = malloc(made->part[ORDER].info.bytes);
    uint8_t *seen = calloc((size_t)made->K, 1);
    tw_status status = order && seen ? TW_OK : tw_fail(TW_MEMORY, "%s: out of memory", c->label);
    if (!status) {
        memcpy(order, made->part[ORDER].data, made->part[ORDER].info.bytes);
        status = tw_order_check(order, made->K, seen);
        if (status)
            status = tw_fail_within(TW_FORMAT, "%s: tensor '%s'", c->label,
                                    tw_show(m->stem, strlen(m->stem)).text);
    }
    free(order);
    free(seen);
    return status;
}

tw_status tw_compose_own(tw_compose *c, const tw_marker *marker) {
    const json_t *entry = json_object_get(c->config, marker->stem);
    const char *scheme;
    tw_composite made = {.read = read, .type = {.name = "TW", .block = 1}};
    tw_model_tensor shape = {0};
    if (!json_object_get(entry, "scheme")) return TW_OK; /* a tensor that only is named so */
    TW_TRY(tw_json_text(entry, "scheme", "", c->label, &scheme));
    tw_status status = tw_scheme_parse(scheme, &made.type.scheme);
    if (status || tw_scheme_plain(&made.type.scheme)) {
        if (!status)
            return bad_entry(c->label, marker->stem, "scheme: plain weights have no codes");
        return tw_fail_within(TW_FORMAT, "%s: " TW_OWN_TENSORS ": '%s': scheme", c->label,
                              tw_show(marker->stem, strlen(marker->stem)).text);
    }
    TW_TRY(read_shape(c, marker->stem, entry, &shape));
    tw_fold_shape(&shape, &made.N, &made.K);
    bool linear = c->model->tensors[marker->index].declared_linear;
    if (linear && shape.ndim != 2 && shape.ndim != 3)
        return bad_entry(c->label, marker->stem, "linear, but no matrix");
    TW_TRY(take_parts(c, marker, &made));
    TW_TRY(check_order(c, marker, &made));
    made.ordered = made.part[ORDER].type;
    TW_TRY(tw_compose_add(c, marker, "", shape.ndim, shape.shape, &made));
    c->model->tensors[marker->index].declared_linear = linear;
    return TW_OK;
}
