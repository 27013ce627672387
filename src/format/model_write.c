/* The plan is kept to here; what a tensor looks like in a file is its form's. */
#include "src/format/model_write.h"

#include <stdlib.h>

#include "src/core/dtype.h"
#include "src/format/model_write_impl.h"

static const tw_form_row *const forms[] = {
    [TW_FORM_TILEWRIGHT] = &tw_form_tilewright,
    [TW_FORM_GGUF] = &tw_form_gguf,
    [TW_FORM_COMPRESSED] = &tw_form_compressed,
};

const char *tw_form_name(tw_form form) {
    return (size_t)form < TW_COUNT(forms) && forms[form] ? forms[form]->name : NULL;
}

static tw_shown shown(const tw_planned_tensor *t) { return tw_show(t->name, strlen(t->name)); }

tw_status tw_form_refuse(const char *form, const tw_planned_tensor *t, const char *why) {
    tw_str scheme = {0};
    tw_scheme_text(&t->scheme, &scheme);
    tw_fail(TW_UNSUPPORTED, "tensor '%s': %s cannot hold %s: %s", shown(t).text, form,
            tw_str_text(&scheme), why);
    tw_str_free(&scheme);
    return TW_UNSUPPORTED;
}

bool tw_planned_fold(const tw_planned_tensor *tensor, int64_t *N, int64_t *K) {
    const tw_planned_tensor *t = tensor;
    bool empty = false;
    *N = 1;
    *K = t->ndim ? t->shape[t->ndim - 1] : 1;
    for (int32_t i = 0; i < t->ndim; i++) {
        empty = empty || !t->shape[i];
        if (t->shape[i] < 0 ||
            (i + 1 < t->ndim && t->shape[i] && __builtin_mul_overflow(*N, t->shape[i], N)))
            return false;
    }
    if (empty) *N = *K = 0;
    return *K <= INT64_MAX / 64 / tw_max(*N, 1);
}

static tw_status check_planned(tw_form form, const tw_planned_tensor *t) {
    int64_t N, K;
    if ((size_t)form >= TW_COUNT(forms)) return tw_fail(TW_INVALID, "form: %d, is none", (int)form);
    if (t->ndim < 0 || t->ndim > TW_MODEL_DIMS || !tw_planned_fold(t, &N, &K))
        return tw_fail(TW_INVALID, "tensor '%s': shape out of range", shown(t).text);
    if (t->type) return TW_OK;
    tw_status status = tw_scheme_check(&t->scheme);
    if (status) return tw_fail_within(status, "tensor '%s'", shown(t).text);
    if (t->ordered && tw_scheme_plain(&t->scheme))
        return tw_fail(TW_INVALID, "tensor '%s': plain weights have no order", shown(t).text);
    return TW_OK;
}

tw_status tw_form_check(tw_form form, const tw_planned_tensor *tensor) {
    TW_TRY(check_planned(form, tensor));
    return forms[form]->check(tensor);
}

tw_status tw_model_writer_create(tw_form form, const tw_sink *sink, const tw_planned_tensor *plan,
                                 int32_t count, const tw_model *source, tw_model_writer **out) {
    for (int32_t i = 0; i < count; i++) TW_TRY(tw_form_check(form, &plan[i]));
    tw_model_writer *w = calloc(1, sizeof *w);
    if (!w) return tw_fail(TW_MEMORY, "out of memory for a writer");
    w->form = forms[form];
    w->plan = plan;
    w->count = count;
    tw_status status = w->form->create(w, sink, source);
    if (status) {
        tw_model_writer_discard(w);
        return status;
    }
    *out = w;
    return TW_OK;
}

/* The tensor that is due; NULL with the error set. */
static const tw_planned_tensor *due(tw_model_writer *w) {
    if (w->next < w->count) return &w->plan[w->next];
    tw_fail(TW_INVALID, "tensor: all %d of the plan were given", w->count);
    return NULL;
}

static bool same_scheme(const tw_scheme *a, const tw_scheme *b) {
    return a->weight == b->weight && a->scale == b->scale && a->zero_mode == b->zero_mode &&
           a->group_n == b->group_n && a->group_k == b->group_k;
}

tw_status tw_model_writer_add(tw_model_writer *writer, const tw_canonical_tensor *tensor) {
    const tw_planned_tensor *t = due(writer);
    int64_t N, K;
    if (!t) return TW_INVALID;
    tw_planned_fold(t, &N, &K);
    if (t->type || !same_scheme(&t->scheme, &tensor->scheme) || t->ordered != !!tensor->order)
        return tw_fail(TW_INVALID, "tensor '%s': not of the scheme that was planned",
                       shown(t).text);
    if (N != tensor->N || K != tensor->K)
        return tw_fail(TW_INVALID, "tensor '%s': %lld x %lld, planned were %lld x %lld",
                       shown(t).text, (long long)tensor->N, (long long)tensor->K, (long long)N,
                       (long long)K);
    writer->next++;
    return writer->form->add(writer, t, tensor);
}

tw_status tw_model_writer_add_data(tw_model_writer *writer, const void *data, size_t size) {
    const tw_planned_tensor *t = due(writer);
    if (!t) return TW_INVALID;
    if (!t->type)
        return tw_fail(TW_INVALID, "tensor '%s': planned by a scheme, not by an element type",
                       shown(t).text);
    writer->next++;
    return writer->form->add_data(writer, t, data, size);
}

tw_status tw_model_writer_finish(tw_model_writer *writer) {
    tw_model_writer *w = writer;
    tw_status status = TW_OK;
    if (w->next < w->count)
        status = tw_fail(TW_INVALID, "tensor '%s': was planned, but not given",
                         shown(&w->plan[w->next]).text);
    else if (w->file)
        status = tw_safetensors_finish(w->file);
    else
        status = tw_output_flush(&w->output);
    if (w->next == w->count) w->file = NULL;
    tw_model_writer_discard(w);
    return status;
}

void tw_model_writer_discard(tw_model_writer *writer) {
    if (!writer) return;
    tw_safetensors_discard(writer->file);
    tw_output_close(&writer->output);
    free(writer);
}

/* ---- forms that are safetensors ---- */

tw_status tw_parts_add(tw_file_parts *parts, const tw_planned_tensor *t, size_t stem,
                       const char *suffix, const char *type, int32_t ndim, const int64_t *shape) {
    tw_safetensors_tensor *part = &parts->part[parts->count];
    char *name = parts->names[parts->count++];
    size_t size = strlen(suffix);
    if (stem + size >= TW_WRITE_NAME)
        return tw_fail(TW_INVALID, "tensor '%s': a name of %zu bytes, at most %zu", shown(t).text,
                       strlen(t->name), TW_WRITE_NAME - size - 1);
    memcpy(name, t->name, stem);
    memcpy(name + stem, suffix, size + 1);
    *part = (tw_safetensors_tensor){.name = name, .type = type, .ndim = ndim};
    for (int32_t i = 0; i < ndim; i++) part->shape[i] = shape[i];
    return TW_OK;
}

static tw_status collect(tw_model_writer *w,
                         tw_status (*parts_of)(const tw_planned_tensor *t, tw_file_parts *out),
                         tw_file_parts *parts, tw_safetensors_tensor *list, int32_t *count) {
    for (int32_t i = 0; i < w->count; i++) {
        const tw_planned_tensor *t = &w->plan[i];
        parts[i].count = 0;
        if (t->type)
            TW_TRY(tw_parts_add(&parts[i], t, strlen(t->name), "", t->type, t->ndim, t->shape));
        else if (tw_scheme_plain(&t->scheme))
            TW_TRY(tw_parts_add(&parts[i], t, strlen(t->name), "",
                                tw_safetensors_type(t->scheme.weight), t->ndim, t->shape));
        else
            TW_TRY(parts_of(t, &parts[i]));
        for (int32_t j = 0; j < parts[i].count; j++) list[(*count)++] = parts[i].part[j];
    }
    return TW_OK;
}

tw_status tw_write_safetensors(tw_model_writer *w, const tw_sink *sink,
                               tw_status (*parts_of)(const tw_planned_tensor *t,
                                                     tw_file_parts *out),
                               const tw_model_text *texts, int32_t text_count) {
    size_t room = (size_t)w->count + 1;
    tw_file_parts *parts = calloc(room, sizeof *parts);
    tw_safetensors_tensor *list = calloc(room * TW_WRITE_PARTS, sizeof *list);
    int32_t count = 0;
    tw_status status = parts && list ? collect(w, parts_of, parts, list, &count)
                                     : tw_fail(TW_MEMORY, "out of memory for a header");
    if (!status) status = tw_safetensors_create(sink, list, count, texts, text_count, &w->file);
    free(list);
    free(parts);
    return status;
}

tw_status tw_write_through(tw_model_writer *w, const tw_planned_tensor *t, const void *data,
                           size_t size) {
    tw_safetensors_tensor file = {.type = t->type, .ndim = t->ndim};
    uint64_t expected;
    memcpy(file.shape, t->shape, sizeof file.shape);
    if (!tw_safetensors_bytes(&file, &expected) || expected != size)
        return tw_fail(TW_INVALID, "tensor '%s': %zu bytes, not what its shape takes",
                       shown(t).text, size);
    return tw_safetensors_append(w->file, data, size);
}
