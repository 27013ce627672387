/* Layers of GGUF's blocks, as a file or a ggml program has them in memory. */
#include <tilewright/model.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/core/dtype.h"
#include "src/format/blocks.h"
#include "src/linear.h"

static tw_status find_type(uint32_t id, const tw_source_type **out) {
    const tw_source_type *type = tw_ggml_type(id);
    if (!type) return tw_fail(TW_INVALID, "type: %u, GGUF has no element type of this number", id);
    if (!type->scheme.weight)
        return tw_fail(TW_UNSUPPORTED, "type: %s, layers cannot be made of its blocks", type->name);
    *out = type;
    return TW_OK;
}

tw_status tw_gguf_type(uint32_t id, tw_scheme *scheme, int64_t *block, int64_t *block_bytes) {
    const tw_source_type *type = NULL;
    if (!scheme) return tw_fail(TW_INVALID, "scheme: NULL, must be given");
    TW_TRY(find_type(id, &type));
    *scheme = type->scheme;
    if (block) *block = type->block;
    if (block_bytes) *block_bytes = type->bytes;
    return TW_OK;
}

/* The type's scheme into desc, unless that has it but for the activations. */
static tw_status settle_scheme(const tw_source_type *type, tw_linear_desc *d) {
    const tw_scheme *s = &type->scheme, *given = &d->scheme;
    if (d->lut) return tw_fail(TW_INVALID, "desc: lut: given, %s has its own", type->name);
    d->lut = type->lut;
    if (!given->weight && !given->act_quant) {
        if (given->scale || given->zero_mode || given->group_n || given->group_k ||
            given->act_group || given->fpmath)
            return tw_fail(TW_INVALID,
                           "desc: scheme: other fields without weight, must be all zero");
        d->scheme = *s;
        return TW_OK;
    }
    bool equal = given->weight == s->weight && given->scale == s->scale &&
                 given->zero_mode == s->zero_mode && given->group_n == s->group_n &&
                 given->group_k == s->group_k;
    return equal ? TW_OK
                 : tw_fail(TW_INVALID,
                           "desc: scheme: not that of %s, which tw_gguf_type() tells; only "
                           "act_quant, act_group and fpmath may differ",
                           type->name);
}

typedef struct matrix {
    const tw_source_type *type;
    const tw_problem *problem;
    const char *blocks;
    size_t row_bytes;
} matrix;

static tw_status read_rows(const void *source, int64_t first, int64_t count, bool wide,
                           const tw_tensors *into) {
    const matrix *m = source;
    tw_problem part = *m->problem;
    part.N = count;
    size_t codes = tw_dtype_row_bytes(wide ? TW_U8 : part.scheme.weight, part.K);
    size_t groups = tw_scheme_plain(&part.scheme) ? 0 : (size_t)tw_groups(&part.scheme, part.K);
    size_t scales = groups * (size_t)tw_dtype_bits(part.scheme.scale) / 8;
    size_t zeros = groups * (size_t)tw_dtype_bits(tw_zero_dtype(&part.scheme)) / 8;
    for (size_t n = 0; n < (size_t)count; n++)
        tw_blocks_decode(m->type, m->blocks + ((size_t)first + n) * m->row_bytes,
                         (uint64_t)(part.K / m->type->block), wide,
                         (char *)into->weight.data + n * codes,
                         scales ? (char *)into->scales.data + n * scales : NULL,
                         zeros ? (char *)into->zeros.data + n * zeros : NULL);
    tw_canonical w = {into->weight.data, into->scales.data, into->zeros.data, NULL, NULL, 0};
    tw_status status = tw_check_canonical(&part, &w); /* whole bytes: no pad bits */
    part.N = 1;
    for (size_t n = 0; status && n < (size_t)count; n++) {
        w.scales = (char *)into->scales.data + n * scales;
        w.zeros = zeros ? (char *)into->zeros.data + n * zeros : NULL;
        if (tw_check_canonical(&part, &w))
            return tw_fail(TW_INVALID, "blocks: row %lld: %s", (long long)first + (long long)n,
                           tw_error_message());
    }
    return status;
}

tw_status tw_linear_create_gguf(tw_context *context, const tw_linear_desc *desc, uint32_t type,
                                const void *blocks, size_t row_bytes, const tw_tensor *bias,
                                tw_linear **out) {
    tw_linear_desc d;
    tw_layer from;
    matrix m = {.blocks = blocks};
    TW_TRY(tw_struct_read("desc", desc, sizeof d, &d));
    d.struct_size = sizeof d;
    TW_TRY(find_type(type, &m.type));
    TW_TRY(settle_scheme(m.type, &d));
    TW_TRY(tw_linear_begin(context, &d, bias, out, &from));
    if (!blocks) return tw_fail(TW_INVALID, "blocks: NULL, must be given");
    if (d.K % m.type->block)
        return tw_fail(TW_INVALID,
                       "desc: K: %lld, must be a multiple of the %u elements of a %s "
                       "block",
                       (long long)d.K, m.type->block, m.type->name);
    size_t dense = (size_t)(d.K / m.type->block) * m.type->bytes;
    if (row_bytes && row_bytes < dense)
        return tw_fail(TW_INVALID, "row_bytes: %zu, a row of %lld %s takes %zu", row_bytes,
                       (long long)d.K, m.type->name, dense);
    m.problem = &from.problem;
    m.row_bytes = row_bytes ? row_bytes : dense;
    from.read = read_rows;
    from.source = &m;
    return tw_linear_build(context, &from, out);
}
