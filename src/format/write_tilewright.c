/* Our own form, version 1: canonical tensors as they are, and their schemes in the metadata.
 * docs/format.md describes it; tilewright.c reads it. */
#include <jansson.h>
#include <stdlib.h>

#include "src/core/dtype.h"
#include "src/format/model_write_impl.h"
#include "src/format/tilewright.h"

static tw_status check(const tw_planned_tensor *t) {
    int64_t N, K;
    if (!t->type && !tw_scheme_plain(&t->scheme) && tw_planned_fold(t, &N, &K) && (!N || !t->ndim))
        return tw_form_refuse("tilewright", t, "it is empty");
    if (!t->type || tw_safetensors_type_named(t->type)) return TW_OK;
    return tw_fail(TW_UNSUPPORTED, "tensor '%s': safetensors has no element type %s",
                   tw_show(t->name, strlen(t->name)).text, t->type);
}

static tw_status parts_of(const tw_planned_tensor *t, tw_file_parts *out) {
    const tw_scheme *s = &t->scheme;
    int64_t N, K;
    size_t stem = strlen(t->name);
    tw_planned_fold(t, &N, &K);
    int64_t rows = N ? tw_scale_rows(s, N) : 0, groups = K ? tw_groups(s, K) : 0;
    const int64_t codes[] = {N, (int64_t)tw_dtype_row_bytes(s->weight, K)},
                  scales[] = {rows, groups};
    TW_TRY(tw_parts_add(out, t, stem, TW_OWN_CODES, "U8", 2, codes));
    TW_TRY(tw_parts_add(out, t, stem, TW_OWN_SCALES, tw_safetensors_type(s->scale), 2, scales));
    if (s->zero_mode) {
        bool code = s->zero_mode == TW_ZERO_CODE;
        TW_TRY(tw_parts_add(out, t, stem, TW_OWN_ZEROS, code ? "U8" : tw_safetensors_type(s->scale),
                            2, scales));
    }
    if (s->weight == TW_LUT4)
        TW_TRY(tw_parts_add(out, t, stem, TW_OWN_LUT, "F32", 1, (int64_t[]){TW_LUT4_SIZE}));
    if (t->ordered) TW_TRY(tw_parts_add(out, t, stem, TW_OWN_ORDER, "I32", 1, &K));
    return TW_OK;
}

static json_t *entry_of(const tw_planned_tensor *t) {
    json_t *entry = json_object();
    if (!t->type && !tw_scheme_plain(&t->scheme)) {
        tw_str text = {0};
        json_t *shape = json_array();
        for (int32_t d = 0; d < t->ndim; d++)
            json_array_append_new(shape, json_integer(t->shape[d]));
        tw_scheme_text(&t->scheme, &text);
        json_object_set_new(entry, "scheme", json_string(tw_str_text(&text)));
        json_object_set_new(entry, "shape", shape);
        tw_str_free(&text);
    }
    if (t->linear) json_object_set_new(entry, "linear", json_true());
    return entry;
}

/* {"NAME": {"scheme": "w=u4,...", "shape": [N,K], "linear": true}}, without those of which there
 * is nothing to say. */
static json_t *table_of(const tw_model_writer *w) {
    json_t *all = json_object();
    for (int32_t i = 0; i < w->count; i++) {
        json_t *entry = entry_of(&w->plan[i]);
        if (json_object_size(entry))
            json_object_set_new(all, w->plan[i].name, entry);
        else
            json_decref(entry);
    }
    return all;
}

/* Texts of a source that is safetensors, but not those of the form and of torch's loader. */
static int32_t texts_of(const tw_model *source, tw_model_text *out) {
    int32_t count = 0;
    for (int32_t i = 0; source && i < tw_model_metadata_count(source); i++) {
        const tw_model_text *text = tw_model_metadata_at(source, i);
        if (strncmp(text->key, TW_OWN_PREFIX, strlen(TW_OWN_PREFIX)) != 0 &&
            strcmp(text->key, "format") != 0)
            out[count++] = *text;
    }
    return count;
}

static tw_status create(tw_model_writer *w, const tw_sink *sink, const tw_model *source) {
    size_t room = source ? (size_t)tw_model_metadata_count(source) : 0;
    tw_model_text *texts = calloc(room + 3, sizeof *texts);
    json_t *table = table_of(w);
    char *text = table ? json_dumps(table, JSON_COMPACT) : NULL;
    tw_status status = texts && text ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a header");
    if (!status) {
        int32_t count = texts_of(source, texts);
        const char *architecture = source ? tw_model_architecture(source) : "";
        texts[count++] = (tw_model_text){TW_OWN_VERSION, TW_OWN_NUMBER};
        texts[count++] = (tw_model_text){TW_OWN_TENSORS, text};
        if (*architecture) texts[count++] = (tw_model_text){TW_OWN_ARCHITECTURE, architecture};
        status = tw_write_safetensors(w, sink, parts_of, texts, count);
    }
    free(text);
    json_decref(table);
    free(texts);
    return status;
}

static tw_status add(tw_model_writer *w, const tw_planned_tensor *t, const tw_canonical_tensor *c) {
    (void)t;
    TW_TRY(tw_safetensors_append(w->file, c->weight, c->weight_bytes));
    if (c->scales) TW_TRY(tw_safetensors_append(w->file, c->scales, c->scale_bytes));
    if (c->zeros) TW_TRY(tw_safetensors_append(w->file, c->zeros, c->zero_bytes));
    if (c->lut) TW_TRY(tw_safetensors_append(w->file, c->lut, TW_LUT4_SIZE * sizeof *c->lut));
    if (c->order) TW_TRY(tw_safetensors_append(w->file, c->order, (size_t)c->K * sizeof *c->order));
    return TW_OK;
}

const tw_form_row tw_form_tilewright = {"tilewright", check, create, add, tw_write_through};
