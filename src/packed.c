/* A packed layer as one blob of bytes: a header, then lut, order, bias and weights, each from a
 * multiple of 64 bytes.  Layers that have no layout are kept in canonical form. */
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "src/linear.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blobs are little-endian");

enum { VERSION = 1, ALIGN = 64, PROBLEM_BYTES = 256 };
static const char MAGIC[8] = {'T', 'W', 'P', 'A', 'C', 'K', 'E', 'D'};
static const char CANONICAL[] = "canonical"; /* in place of a layout's name */

/* Part of the format: sizes and places never change within a version. */
typedef struct header {
    char magic[8];
    uint32_t version, layout_version;
    uint64_t bytes; /* of the whole blob */
    char layout[32], target[32];
    char problem[PROBLEM_BYTES];
    uint32_t has_lut, has_order;
    uint8_t content[TW_DIGEST_BYTES]; /* of all after the header */
    uint8_t digest[TW_DIGEST_BYTES];  /* of the header, while this is 0 */
    float act_scale;
    uint8_t reserved[28];
} header;
_Static_assert(sizeof(header) == 448 && sizeof(header) % ALIGN == 0, "version 1");

/* Where things lie, from the blob's start; 0: not there. */
typedef struct sections {
    size_t lut, order, bias, weight, scales, zeros, end;
} sections;

static size_t place(size_t *end, size_t bytes) {
    size_t at = *end;
    *end += (size_t)tw_round_up((int64_t)bytes, ALIGN);
    return bytes ? at : 0;
}

/* layout NULL: canonical. */
static void find_sections(const tw_problem *p, const tw_layout *layout, bool lut, bool order,
                          sections *out) {
    tw_tensors t;
    tw_tensors_describe(p, &t);
    size_t end = sizeof(header);
    out->lut = place(&end, lut ? TW_LUT4_SIZE * sizeof(float) : 0);
    out->order = place(&end, order ? (size_t)p->K * sizeof(int32_t) : 0);
    out->bias = place(&end, (size_t)p->N * (size_t)tw_dtype_bits(p->bias) / 8);
    out->weight = place(&end, layout ? layout->bytes(p) : tw_tensor_bytes(&t.weight));
    out->scales = layout ? 0 : place(&end, tw_tensor_bytes(&t.scales));
    out->zeros = layout ? 0 : place(&end, tw_tensor_bytes(&t.zeros));
    out->end = end;
}

/* ---- out ---- */

static tw_status write_header(const tw_linear *l, const sections *at, char *blob) {
    const tw_layout *layout = l->layout;
    header h = {.version = VERSION,
                .layout_version = layout ? layout->version : 0,
                .bytes = at->end,
                .has_lut = l->lut != NULL,
                .has_order = l->order != NULL,
                .act_scale = l->act_scale};
    tw_str problem = {0};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    strncpy(h.layout, layout ? layout->name : CANONICAL, sizeof h.layout - 1);
    strncpy(h.target, tw_target_isa(&l->context->target)->name, sizeof h.target - 1);
    tw_problem_text(&l->problem, &problem);
    tw_status status = tw_str_ok(&problem);
    if (status == TW_OK && problem.size >= sizeof h.problem)
        status = tw_fail(TW_INTERNAL, "a problem's text of %zu bytes", problem.size);
    if (status == TW_OK) {
        memcpy(h.problem, tw_str_text(&problem), problem.size);
        tw_sha256(blob + sizeof h, at->end - sizeof h, h.content);
        tw_sha256(&h, sizeof h, h.digest);
        memcpy(blob, &h, sizeof h);
    }
    tw_str_free(&problem);
    return status;
}

static void copy(char *blob, size_t at, const void *from, size_t bytes) {
    if (at) memcpy(blob + at, from, bytes);
}

static tw_status write_blob(const tw_linear *l, const sections *at, char *blob) {
    const tw_tensors *t = atomic_load_explicit(&l->canonical, memory_order_acquire);
    memset(blob, 0, at->end);
    copy(blob, at->lut, l->lut, TW_LUT4_SIZE * sizeof *l->lut);
    copy(blob, at->order, l->order, (size_t)l->problem.K * sizeof *l->order);
    copy(blob, at->bias, l->bias, l->bias_bytes);
    if (l->layout) {
        copy(blob, at->weight, l->packed, l->packed_bytes);
    } else {
        copy(blob, at->weight, t->weight.data, tw_tensor_bytes(&t->weight));
        copy(blob, at->scales, t->scales.data, tw_tensor_bytes(&t->scales));
        copy(blob, at->zeros, t->zeros.data, tw_tensor_bytes(&t->zeros));
    }
    return write_header(l, at, blob);
}

tw_status tw_linear_pack(const tw_linear *linear, void *blob, size_t *size) {
    if (!linear) return tw_fail(TW_INVALID, "linear: NULL, must be given");
    if (!size) return tw_fail(TW_INVALID, "size: NULL, must be given");
    sections at;
    find_sections(&linear->problem, linear->layout, linear->lut, linear->order, &at);
    if (blob && *size < at.end)
        return tw_fail(TW_INVALID, "size: %zu, the layer takes %zu bytes", *size, at.end);
    if (blob) TW_TRY(write_blob(linear, &at, blob));
    *size = at.end;
    return TW_OK;
}

/* ---- in ---- */

/* Before anything of the header is believed. */
static tw_status check_header(const void *blob, size_t size, header *h) {
    uint8_t digest[TW_DIGEST_BYTES], content[TW_DIGEST_BYTES], told[TW_DIGEST_BYTES];
    if (size < sizeof *h || memcmp(blob, MAGIC, sizeof MAGIC) != 0)
        return tw_fail(TW_FORMAT, "blob: %zu bytes, no packed layer", size);
    memcpy(h, blob, sizeof *h);
    if (h->version != VERSION)
        return tw_fail(TW_UNSUPPORTED, "blob: version %u, this library reads version %d",
                       h->version, VERSION);
    memcpy(told, h->digest, sizeof told);
    memset(h->digest, 0, sizeof h->digest);
    tw_sha256(h, sizeof *h, digest);
    if (memcmp(digest, told, sizeof digest) != 0)
        return tw_fail(TW_FORMAT, "blob: damaged, its header has another digest");
    if (h->bytes != size)
        return tw_fail(TW_FORMAT, "blob: %zu bytes, its header says %llu", size,
                       (unsigned long long)h->bytes);
    tw_sha256((const char *)blob + sizeof *h, size - sizeof *h, content);
    if (memcmp(content, h->content, sizeof content) != 0)
        return tw_fail(TW_FORMAT, "blob: damaged, its content has another digest");
    h->layout[sizeof h->layout - 1] = h->target[sizeof h->target - 1] = 0;
    h->problem[sizeof h->problem - 1] = 0;
    return TW_OK;
}

/* *out NULL: canonical. */
static tw_status find_layout(const tw_context *c, const header *h, const tw_problem *p,
                             const tw_layout **out) {
    const char *target = tw_target_isa(&c->target)->name;
    *out = NULL;
    if (strcmp(h->target, target) != 0)
        return tw_fail(TW_UNSUPPORTED, "blob: packed for %s, the context's target is %s", h->target,
                       target);
    if (!strcmp(h->layout, CANONICAL)) return TW_OK;
    for (int i = 0; (*out = tw_layout_row(i)); i++)
        if (!strcmp((*out)->name, h->layout)) break;
    if (!*out)
        return tw_fail(TW_UNSUPPORTED, "blob: layout %s, this library has none of the name",
                       h->layout);
    if ((*out)->version != h->layout_version)
        return tw_fail(TW_UNSUPPORTED, "blob: version %u of layout %s, this library has version %u",
                       h->layout_version, h->layout, (*out)->version);
    return tw_layout_serves(c, *out, p)
               ? TW_OK
               : tw_fail(TW_UNSUPPORTED, "blob: no kernel takes %s over layout %s", h->problem,
                         h->layout);
}

/* Digests tell of damage, not of malice: sizes come from the problem, and the order is checked. */
static tw_status read_blob(tw_context *c, const header *h, const char *blob, tw_linear **out) {
    tw_layer from = {0};
    tw_problem *p = &from.problem;
    sections at;
    TW_TRY(tw_problem_parse(h->problem, false, p));
    TW_TRY(tw_problem_check(p));
    TW_TRY(find_layout(c, h, p, &from.layout));
    from.act_scale = h->act_scale;
    TW_TRY(tw_act_check_scale(&p->scheme, h->act_scale));
    if ((p->scheme.weight == TW_LUT4) != (h->has_lut != 0))
        return tw_fail(TW_FORMAT, "blob: w=%s %s a table", tw_dtype_name(p->scheme.weight),
                       h->has_lut ? "with" : "without");
    find_sections(p, from.layout, h->has_lut, h->has_order, &at);
    if (at.end != h->bytes)
        return tw_fail(TW_FORMAT, "blob: %llu bytes, %s takes %zu", (unsigned long long)h->bytes,
                       h->problem, at.end);
    tw_tensor bias = TW_TENSOR_1D((void *)(uintptr_t)(blob + at.bias), p->bias, p->N);
    tw_canonical w = {.weight = blob + at.weight,
                      .scales = at.scales ? blob + at.scales : NULL,
                      .zeros = at.zeros ? blob + at.zeros : NULL};
    if (p->bias) from.bias = &bias;
    if (at.lut) from.lut = (const float *)(const void *)(blob + at.lut);
    if (at.order) from.order = (const int32_t *)(const void *)(blob + at.order);
    if (from.layout)
        from.packed = blob + at.weight;
    else
        from.weights = &w;
    TW_TRY(tw_check_order(c, from.order, p->K));
    return tw_linear_build(c, &from, out);
}

tw_status tw_linear_create_packed(tw_context *context, const void *blob, size_t size,
                                  tw_linear **out) {
    header h;
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    if (!blob) return tw_fail(TW_INVALID, "blob: NULL, must be given");
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    TW_TRY(check_header(blob, size, &h));
    /* Sections are read as what they hold: their addresses have to be aligned. */
    if ((uintptr_t)blob % ALIGN == 0) return read_blob(context, &h, blob, out);
    char *copied = tw_alloc_untouched(&context->allocator, size);
    if (!copied) return tw_fail(TW_MEMORY, "out of memory for a blob of %zu bytes", size);
    memcpy(copied, blob, size);
    tw_status status = read_blob(context, &h, copied, out);
    tw_free(&context->allocator, copied, size);
    return status;
}
