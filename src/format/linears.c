/* The linears of a model, deduplicated and counted. */
#include <stdlib.h>

#include "src/format/model_impl.h"

/* What makes two linears one record, in an order of no meaning. */
enum { KEY_FIELDS = 15 };

static void key_of(const tw_linear_entry *e, int64_t key[KEY_FIELDS]) {
    const tw_problem *p = &e->problem;
    const tw_scheme *s = &p->scheme;
    const int64_t fields[KEY_FIELDS] = {p->N,         p->K,         p->M,       p->x,
                                        p->y,         p->bias,      p->act,     s->weight,
                                        s->scale,     s->zero_mode, s->group_n, s->group_k,
                                        s->act_quant, s->act_group, s->fpmath};
    memcpy(key, fields, sizeof fields);
}

static int compare_keys(const tw_linear_entry *a, const tw_linear_entry *b) {
    int64_t x[KEY_FIELDS], y[KEY_FIELDS];
    key_of(a, x);
    key_of(b, y);
    for (int i = 0; i < KEY_FIELDS; i++)
        if (x[i] != y[i]) return x[i] < y[i] ? -1 : 1;
    return strcmp(a->type, b->type);
}

/* Alike ones side by side, each run in the order of the model. */
static int compare_entries(const void *a, const void *b) {
    const tw_linear_entry *const *x = a, *const *y = b;
    int order = compare_keys(*x, *y);
    return order ? order : (*x > *y) - (*x < *y);
}

static int compare_first(const void *a, const void *b) {
    const tw_linear_entry *const *const *x = a, *const *const *y = b;
    return (**x > **y) - (**x < **y);
}

/* sorted: all entries by key.  runs: where each run of alike ones begins. */
static void fill(const tw_linear_entry **sorted, int32_t count, const tw_linear_entry ***runs,
                 tw_model_linears *out) {
    const char **name = out->names;
    for (int32_t i = 0; i < out->count; i++) {
        const tw_linear_entry **run = runs[i], *first = *run;
        tw_model_linear *item = &out->items[i];
        *item = (tw_model_linear){
            .problem = first->problem, .type = first->type, .names = name, .tensor = first->tensor};
        for (; run < sorted + count && !compare_keys(*run, first); run++) {
            *name++ = (*run)->name;
            item->name_count++;
            item->count += (*run)->count;
        }
    }
}

tw_status tw_model_linears_get(const tw_model *model, tw_model_linears *out) {
    if (model->refusal) return tw_fail(TW_UNSUPPORTED, "%s", model->refusal);
    int32_t count = model->linear_count, runs_count = 0;
    size_t room = (size_t)count + 1;
    tw_model_linears list = {calloc(room, sizeof *list.items), 0, calloc(room, sizeof *list.names)};
    const tw_linear_entry **sorted = calloc(room, sizeof *sorted);
    const tw_linear_entry ***runs = calloc(room, sizeof *runs);
    tw_status status = TW_OK;
    if (list.items && list.names && sorted && runs) {
        for (int32_t i = 0; i < count; i++) sorted[i] = &model->linears[i];
        qsort(sorted, (size_t)count, sizeof *sorted, compare_entries);
        for (int32_t i = 0; i < count; i++)
            if (!i || compare_keys(sorted[i - 1], sorted[i])) runs[runs_count++] = &sorted[i];
        qsort(runs, (size_t)runs_count, sizeof *runs, compare_first);
        list.count = runs_count;
        fill(sorted, count, runs, &list);
        *out = list;
    } else {
        tw_model_linears_free(&list);
        status = tw_fail(TW_MEMORY, "out of memory for %d linears", count);
    }
    free(sorted);
    free(runs);
    return status;
}

void tw_model_linears_free(tw_model_linears *linears) {
    free(linears->items);
    free(linears->names);
    *linears = (tw_model_linears){0};
}
