/* See blocks.h. */
#include "src/format/blocks.h"

#include <string.h>

#include "src/core/dtype.h"

enum { MOST_ELEMENTS = 256 }; /* of one block of any source type */

void tw_blocks_decode(const tw_source_type *type, const void *blocks, uint64_t count, bool wide,
                      void *weight, void *scales, void *zeros) {
    const tw_scheme *s = &type->scheme;
    if (!type->decode) {
        memcpy(weight, blocks, count * type->bytes);
        return;
    }
    int bits = wide ? 8 : tw_dtype_bits(s->weight);
    size_t groups = type->block / (size_t)s->group_k;
    size_t code_bytes = (size_t)type->block * (size_t)bits / 8;
    size_t scale_bytes = groups * (size_t)tw_dtype_bits(s->scale) / 8;
    size_t zero_bytes = groups * (size_t)tw_dtype_bits(tw_zero_dtype(s)) / 8;
    const uint8_t *data = blocks;
    uint8_t codes[MOST_ELEMENTS], *to = weight, *scale = scales, *zero = zeros;
    for (uint64_t i = 0; i < count; i++) {
        type->decode(data + i * type->bytes, wide ? to : codes, scale, zero);
        if (!wide) tw_bits_pack(codes, type->block, bits, to);
        to += code_bytes;
        scale += scale_bytes;
        if (zero) zero += zero_bytes;
    }
}
