/* See blocks.h. */
#include "src/format/blocks.h"

#include <string.h>

#include "src/core/dtype.h"

enum { MOST_ELEMENTS = 256 }; /* of one block of any source type */

/* Codes of one byte each into `bits` each, lowest first; bits * count is whole bytes. */
static void pack(const uint8_t *codes, uint32_t count, int bits, uint8_t *out) {
    uint32_t pending = 0;
    int filled = 0;
    for (uint32_t i = 0; i < count; i++) {
        pending |= (uint32_t)(codes[i] & ((1 << bits) - 1)) << filled;
        for (filled += bits; filled >= 8; filled -= 8, pending >>= 8) *out++ = (uint8_t)pending;
    }
}

void tw_blocks_decode(const tw_source_type *type, const void *blocks, uint64_t count, void *weight,
                      void *scales, void *zeros) {
    const tw_scheme *s = &type->scheme;
    if (!type->decode) {
        memcpy(weight, blocks, count * type->bytes);
        return;
    }
    int bits = tw_dtype_bits(s->weight);
    size_t groups = type->block / (size_t)s->group_k;
    size_t code_bytes = (size_t)type->block * (size_t)bits / 8;
    size_t scale_bytes = groups * (size_t)tw_dtype_bits(s->scale) / 8;
    size_t zero_bytes = groups * (size_t)tw_dtype_bits(tw_zero_dtype(s)) / 8;
    const uint8_t *data = blocks;
    uint8_t codes[MOST_ELEMENTS], *to = weight, *scale = scales, *zero = zeros;
    for (uint64_t i = 0; i < count; i++) {
        type->decode(data + i * type->bytes, codes, scale, zero);
        pack(codes, type->block, bits, to);
        to += code_bytes;
        scale += scale_bytes;
        if (zero) zero += zero_bytes;
    }
}
