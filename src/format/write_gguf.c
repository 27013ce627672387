/* GGUF, version 3: the source's own keys, tensor infos, data.  Integer weights go into the block
 * type that has exactly their codes, scales and zeros; what none has is refused, not rounded.
 * The format: docs/gguf.md and the block structs of ggml-common.h (ggml). */
#include <stdlib.h>

#include "src/core/dtype.h"
#include "src/format/blocks.h"
#include "src/format/model_write_impl.h"

enum { BLOCK = 32, ALIGNMENT = 32, MOST_BYTES = 34, MOST_NAME = 63, MOST_DIMS = 4 };
enum { TYPE_U32 = 4, TYPE_STRING = 8 }; /* of a key's value */

/* The types that are written, as the scheme fields that they hold.  Codes: counted from 0, of this
 * many bits; signed ones are stored plus `middle`. */
static const struct target {
    const char *name;
    int bits, middle;
    bool zeros;
} targets[] = {
    {"Q4_0", 4, 8, false}, {"Q5_0", 5, 16, false}, {"Q8_0", 8, 0, false},
    {"Q4_1", 4, 0, true},  {"Q5_1", 5, 0, true},
};

static bool holds(const struct target *t, const tw_scheme *s) {
    int32_t low = t->zeros ? 0 : -(1 << (t->bits - 1)), high = low + (1 << t->bits) - 1;
    return t->zeros == (s->zero_mode == TW_ZERO_VALUE) && tw_dtype_min(s->weight) >= low &&
           tw_dtype_max(s->weight) <= high;
}

/* NULL with *why set where no type holds the tensor. */
static const struct target *target_of(const tw_planned_tensor *t, const char **why) {
    const tw_scheme *s = &t->scheme;
    int64_t K = t->ndim ? t->shape[t->ndim - 1] : 1;
    *why = NULL;
    if (!tw_dtype_is_int(s->weight))
        *why = "its exact types are of integers";
    else if (t->ordered)
        *why = "it has no order of columns";
    else if (s->scale != TW_F16)
        *why = "its scales are f16";
    else if (s->zero_mode == TW_ZERO_CODE)
        *why = "it has no zeros that are codes";
    else if (K % BLOCK || s->group_k % BLOCK)
        *why = "its blocks are of 32 columns, which must divide K and the group";
    else if (s->act_quant && s->act_quant != TW_ACTQ_I8)
        *why = "it says nothing of x, which its readers quantize by i8g32";
    if (*why) return NULL;
    for (size_t i = 0; i < TW_COUNT(targets); i++)
        if (holds(&targets[i], s)) return &targets[i];
    *why = "none of its types has such codes";
    return NULL;
}

/* The element type of a planned tensor that was checked. */
static const tw_source_type *type_of(const tw_planned_tensor *t, uint32_t *id) {
    static const char *const plain[] = {[TW_F32] = "F32", [TW_F16] = "F16", [TW_BF16] = "BF16"};
    const char *why;
    if (t->type) return tw_ggml_type_named(t->type, id);
    if (tw_scheme_plain(&t->scheme)) return tw_ggml_type_named(plain[t->scheme.weight], id);
    const struct target *target = target_of(t, &why);
    return target ? tw_ggml_type_named(target->name, id) : NULL;
}

static tw_status check(const tw_planned_tensor *t) {
    const char *why;
    uint32_t id;
    uint64_t bytes;
    tw_shown name = tw_show(t->name, strlen(t->name));
    if (strlen(t->name) > MOST_NAME)
        return tw_fail(TW_UNSUPPORTED, "tensor '%s': a name of %zu bytes, GGUF allows %d",
                       name.text, strlen(t->name), MOST_NAME);
    if (t->ndim > MOST_DIMS)
        return tw_fail(TW_UNSUPPORTED, "tensor '%s': %d dimensions, GGUF allows %d", name.text,
                       t->ndim, MOST_DIMS);
    if (!t->type && !tw_scheme_plain(&t->scheme) && !target_of(t, &why))
        return tw_form_refuse("GGUF", t, why);
    const tw_source_type *type = type_of(t, &id);
    if (!type)
        return tw_fail(TW_UNSUPPORTED, "tensor '%s': GGUF has no element type %s", name.text,
                       t->type);
    if (t->ndim && t->shape[t->ndim - 1] % type->block)
        return tw_fail(TW_INVALID, "tensor '%s': rows of %lld, %s has blocks of %u", name.text,
                       (long long)t->shape[t->ndim - 1], type->name, type->block);
    if (tw_type_bytes(type, t->ndim, t->shape, &bytes)) return TW_OK;
    return tw_fail(TW_INVALID, "tensor '%s': shape out of range", name.text);
}

/* ---- header ---- */

/* The keys that are copied: first counted, then put. */
typedef struct keys {
    tw_output *out; /* NULL: only count */
    uint64_t count;
    bool architecture, version;
} keys;

static bool key_is(const char *key, uint64_t size, const char *text) {
    return size == strlen(text) && !memcmp(key, text, size);
}

/* Those that describe the old file: its parts, its alignment, its mix of types. */
static tw_status copy_pair(void *user, const char *key, uint64_t key_size, const uint8_t *pair,
                           uint64_t size) {
    keys *k = user;
    if ((key_size >= 6 && !memcmp(key, "split.", 6)) ||
        key_is(key, key_size, "general.alignment") || key_is(key, key_size, "general.file_type"))
        return TW_OK;
    k->count++;
    k->architecture = k->architecture || key_is(key, key_size, "general.architecture");
    k->version = k->version || key_is(key, key_size, "general.quantization_version");
    return k->out ? tw_output_put(k->out, pair, size) : TW_OK;
}

static tw_status put_u32(tw_output *out, uint32_t value) {
    return tw_output_put(out, &value, sizeof value);
}
static tw_status put_u64(tw_output *out, uint64_t value) {
    return tw_output_put(out, &value, sizeof value);
}
static tw_status put_text(tw_output *out, const char *text) {
    TW_TRY(put_u64(out, strlen(text)));
    return tw_output_put(out, text, strlen(text));
}

static tw_status put_keys(tw_model_writer *w, const tw_model *source) {
    keys k = {0};
    const char *architecture = source ? tw_model_architecture(source) : "";
    bool gguf = source && source->kind == TW_MODEL_GGUF;
    if (gguf) TW_TRY(tw_gguf_each_pair(source, copy_pair, &k));
    bool add_architecture = !k.architecture && *architecture, add_version = !k.version;
    TW_TRY(put_u64(&w->output, k.count + add_architecture + add_version));
    if (add_architecture) {
        TW_TRY(put_text(&w->output, "general.architecture"));
        TW_TRY(put_u32(&w->output, TYPE_STRING));
        TW_TRY(put_text(&w->output, architecture));
    }
    if (add_version) { /* GGML_QNT_VERSION of ggml.h */
        TW_TRY(put_text(&w->output, "general.quantization_version"));
        TW_TRY(put_u32(&w->output, TYPE_U32));
        TW_TRY(put_u32(&w->output, 2));
    }
    k.out = &w->output;
    return gguf ? tw_gguf_each_pair(source, copy_pair, &k) : TW_OK;
}

static tw_status put_info(tw_model_writer *w, const tw_planned_tensor *t, uint64_t *offset) {
    uint32_t id = 0;
    uint64_t bytes = 0;
    const tw_source_type *type = type_of(t, &id);
    if (!type || !tw_type_bytes(type, t->ndim, t->shape, &bytes) || bytes > INT64_MAX - *offset)
        return tw_fail(TW_INVALID, "tensor '%s': shape out of range",
                       tw_show(t->name, strlen(t->name)).text);
    TW_TRY(put_text(&w->output, t->name));
    TW_TRY(put_u32(&w->output, (uint32_t)t->ndim));
    for (int32_t i = t->ndim - 1; i >= 0; i--) TW_TRY(put_u64(&w->output, (uint64_t)t->shape[i]));
    TW_TRY(put_u32(&w->output, id));
    TW_TRY(put_u64(&w->output, *offset));
    *offset = (*offset + bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return TW_OK;
}

static int compare_names(const void *a, const void *b) {
    const tw_planned_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static tw_status check_names(const tw_model_writer *w) {
    const tw_planned_tensor **sorted = calloc((size_t)w->count + 1, sizeof *sorted);
    if (!sorted) return tw_fail(TW_MEMORY, "out of memory for a header");
    for (int32_t i = 0; i < w->count; i++) sorted[i] = &w->plan[i];
    qsort(sorted, (size_t)w->count, sizeof *sorted, compare_names);
    tw_status status = TW_OK;
    for (int32_t i = 1; i < w->count && !status; i++)
        if (!compare_names(&sorted[i - 1], &sorted[i]))
            status = tw_fail(TW_INVALID, "tensor '%s': its name is taken",
                             tw_show(sorted[i]->name, strlen(sorted[i]->name)).text);
    free(sorted);
    return status;
}

static tw_status create(tw_model_writer *w, const tw_sink *sink, const tw_model *source) {
    uint64_t offset = 0;
    TW_TRY(check_names(w));
    TW_TRY(tw_output_open(sink, &w->output));
    w->alignment = ALIGNMENT;
    TW_TRY(tw_output_put(&w->output, "GGUF", 4));
    TW_TRY(put_u32(&w->output, 3));
    TW_TRY(put_u64(&w->output, (uint64_t)w->count));
    TW_TRY(put_keys(w, source));
    for (int32_t i = 0; i < w->count; i++) TW_TRY(put_info(w, &w->plan[i], &offset));
    return tw_output_align(&w->output, ALIGNMENT);
}

/* ---- data ---- */

/* 32 codes, as they are stored, into a block behind its scale and zero. */
static size_t encode(const struct target *t, const uint8_t *codes, uint16_t scale, uint16_t zero,
                     uint8_t *block) {
    size_t at = sizeof scale;
    memcpy(block, &scale, sizeof scale);
    if (t->zeros) {
        memcpy(block + at, &zero, sizeof zero);
        at += sizeof zero;
    }
    if (t->bits == 8) {
        memcpy(block + at, codes, BLOCK);
        return at + BLOCK;
    }
    if (t->bits == 5) {
        uint32_t high = 0;
        for (int i = 0; i < BLOCK; i++) high |= (uint32_t)(codes[i] >> 4 & 1) << i;
        memcpy(block + at, &high, sizeof high);
        at += sizeof high;
    }
    for (int i = 0; i < BLOCK / 2; i++)
        block[at + (size_t)i] = (uint8_t)((codes[i] & 15) | (codes[i + BLOCK / 2] & 15) << 4);
    return at + BLOCK / 2;
}

static tw_status put_row(tw_model_writer *w, const struct target *t, const tw_canonical_tensor *c,
                         int64_t n) {
    const tw_scheme *s = &c->scheme;
    const char *row = (const char *)c->weight + n * (ptrdiff_t)tw_dtype_row_bytes(s->weight, c->K);
    int64_t groups = tw_groups(s, c->K), first = n / tw_group_n(s, c->N) * groups;
    int32_t shift = tw_dtype_min(s->weight) + t->middle;
    for (int64_t k = 0; k < c->K; k += BLOCK) {
        uint8_t codes[BLOCK], block[MOST_BYTES];
        uint16_t scale, zero = 0;
        int64_t at = first + k / tw_group_k(s, c->K);
        memcpy(&scale, (const uint16_t *)c->scales + at, sizeof scale);
        if (c->zeros) memcpy(&zero, (const uint16_t *)c->zeros + at, sizeof zero);
        tw_codes_get(row, s->weight, k, BLOCK, codes);
        for (int i = 0; i < BLOCK; i++) codes[i] = (uint8_t)(codes[i] + shift);
        TW_TRY(tw_output_put(&w->output, block, encode(t, codes, scale, zero, block)));
    }
    return TW_OK;
}

static tw_status add(tw_model_writer *w, const tw_planned_tensor *t, const tw_canonical_tensor *c) {
    const char *why;
    if (tw_scheme_plain(&t->scheme)) {
        TW_TRY(tw_output_put(&w->output, c->weight, c->weight_bytes));
    } else {
        const struct target *target = target_of(t, &why);
        for (int64_t n = 0; n < c->N; n++) TW_TRY(put_row(w, target, c, n));
    }
    return tw_output_align(&w->output, w->alignment);
}

static tw_status add_data(tw_model_writer *w, const tw_planned_tensor *t, const void *data,
                          size_t size) {
    uint32_t id;
    uint64_t expected;
    const tw_source_type *type = type_of(t, &id);
    if (!type || !tw_type_bytes(type, t->ndim, t->shape, &expected) || expected != size)
        return tw_fail(TW_INVALID, "tensor '%s': %zu bytes, not what its shape takes",
                       tw_show(t->name, strlen(t->name)).text, size);
    TW_TRY(tw_output_put(&w->output, data, size));
    return tw_output_align(&w->output, w->alignment);
}

const tw_form_row tw_form_gguf = {"gguf", check, create, add, add_data};
