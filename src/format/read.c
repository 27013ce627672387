/* A tensor's data in canonical form. */
#include <stdlib.h>

#include "src/base/alloc.h"
#include "src/core/dtype.h"
#include "src/format/blocks.h"
#include "src/format/compose.h"

static size_t lut_bytes(void) { return TW_LUT4_SIZE * sizeof(float); }

static void *room(int64_t rows, tw_dtype dtype, int64_t columns, size_t *bytes, bool *ok) {
    if (dtype == TW_NONE) return NULL;
    *bytes = (size_t)rows * tw_dtype_row_bytes(dtype, columns);
    void *p = tw_alloc(&tw_allocator_default, *bytes);
    *ok = *ok && p;
    return p;
}

static tw_status allocate(tw_canonical_tensor *t) {
    const tw_scheme *s = &t->scheme;
    bool ok = true;
    int64_t rows = t->N ? tw_scale_rows(s, t->N) : 0, groups = t->K ? tw_groups(s, t->K) : 0;
    t->weight = room(t->N, s->weight, t->K, &t->weight_bytes, &ok);
    t->scales = room(rows, s->scale, groups, &t->scale_bytes, &ok);
    t->zeros = room(rows, tw_zero_dtype(s), groups, &t->zero_bytes, &ok);
    return ok ? TW_OK
              : tw_fail(TW_MEMORY, "out of memory for a tensor of %zu bytes", t->weight_bytes);
}

/* What was allocated by the scheme. */
static tw_status fill(const tw_tensor_entry *entry, tw_canonical_tensor *t) {
    if (entry->composite) return tw_composite_read(entry->composite, t);
    if (entry->type->lut) {
        TW_TRY(tw_canonical_tensor_add_lut(t));
        memcpy(t->lut, entry->type->lut, lut_bytes());
    }
    if (entry->type->decode)
        tw_blocks_decode(entry->type, entry->data, entry->info.bytes / entry->type->bytes, false,
                         t->weight, t->scales, t->zeros);
    else if (t->weight_bytes)
        memcpy(t->weight, entry->data, t->weight_bytes);
    return TW_OK;
}

static tw_status find(const tw_model *model, int32_t index, tw_tensor_entry *out) {
    if (index < 0 || index >= model->tensor_count)
        return tw_fail(TW_INVALID, "tensor: index %d, expected 0..%d", index,
                       model->tensor_count - 1);
    *out = model->tensors[index];
    if (out->type->scheme.weight) return TW_OK;
    return tw_fail(TW_UNSUPPORTED, "%s: data of type %s cannot be read by this version",
                   tw_show(out->info.name, strlen(out->info.name)).text, out->type->name);
}

static tw_status read_entry(const tw_tensor_entry *entry, int64_t N, int64_t K,
                            tw_canonical_tensor *out) {
    tw_canonical_tensor t = {.scheme = entry->type->scheme, .N = N, .K = K};
    tw_status status = allocate(&t);
    if (status == TW_OK) status = fill(entry, &t);
    if (status) {
        tw_canonical_tensor_free(&t);
        return status;
    }
    *out = t;
    return TW_OK;
}

tw_status tw_model_read(const tw_model *model, int32_t index, tw_canonical_tensor *out) {
    tw_tensor_entry entry;
    int64_t N, K;
    TW_TRY(find(model, index, &entry));
    tw_fold_shape(&entry.info, &N, &K);
    return read_entry(&entry, N, K, out);
}

tw_status tw_model_read_rows(const tw_model *model, int32_t index, int64_t first, int64_t count,
                             tw_canonical_tensor *out) {
    tw_tensor_entry entry;
    int64_t N, K;
    TW_TRY(find(model, index, &entry));
    tw_fold_shape(&entry.info, &N, &K);
    if (!entry.data || first < 0 || count < 1 || first > N - count)
        return tw_fail(TW_INVALID, "rows: %lld from %lld, of %lld that lie in one piece",
                       (long long)count, (long long)first, (long long)(entry.data ? N : 0));
    uint64_t row = entry.info.bytes / (uint64_t)N;
    entry.data += (uint64_t)first * row;
    entry.info.bytes = (uint64_t)count * row;
    return read_entry(&entry, count, K, out);
}

static size_t order_bytes(const tw_canonical_tensor *t) { return (size_t)t->K * sizeof(int32_t); }

tw_status tw_canonical_tensor_add_lut(tw_canonical_tensor *t) {
    t->lut = tw_alloc(&tw_allocator_default, lut_bytes());
    return t->lut ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a look-up table");
}

tw_status tw_canonical_tensor_add_order(tw_canonical_tensor *t) {
    t->order = tw_alloc(&tw_allocator_default, order_bytes(t));
    return t->order
               ? TW_OK
               : tw_fail(TW_MEMORY, "out of memory for an order of %lld columns", (long long)t->K);
}

void tw_canonical_tensor_row(const tw_canonical_tensor *t, int64_t n, float *out) {
    tw_problem problem = tw_canonical_problem(t);
    tw_canonical view = tw_canonical_view(t);
    if (!t->order) {
        tw_dequantize_row(&problem, &view, n, out);
        return;
    }
    for (int64_t k = 0; k < t->K; k++) out[t->order[k]] = tw_dequantize_one(&problem, &view, n, k);
}

void tw_canonical_tensor_free(tw_canonical_tensor *t) {
    tw_free(&tw_allocator_default, t->weight, t->weight_bytes);
    tw_free(&tw_allocator_default, t->scales, t->scale_bytes);
    tw_free(&tw_allocator_default, t->zeros, t->zero_bytes);
    if (t->lut) tw_free(&tw_allocator_default, t->lut, lut_bytes());
    if (t->order) tw_free(&tw_allocator_default, t->order, order_bytes(t));
    *t = (tw_canonical_tensor){0};
}
