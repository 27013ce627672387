/* Blocks of a file format's element types, wherever they lie in memory, as canonical rows. */
#ifndef TW_FORMAT_BLOCKS_H
#define TW_FORMAT_BLOCKS_H

#include "src/core/problem.h"

/* An element type of a file format: `block` elements in `bytes` bytes. */
typedef struct tw_source_type {
    const char *name;
    uint32_t block, bytes;
    tw_scheme scheme; /* weight TW_NONE: tensors are listed, their data is refused */
    /* One block into its codes (one a byte, low bits) and the scales and zeros of its groups, which
     * are written in the scheme's dtypes.  NULL for plain floats, which are copied. */
    void (*decode)(const uint8_t *block, uint8_t *codes, void *scales, void *zeros);
    const float *lut; /* of w=lut4, else NULL */
} tw_source_type;

/* GGUF's, by the number that files have for it (ggml's enum ggml_type).  NULL for an id that no
 * type has, or none any more (4, 5, 31..33, 36..38 were removed). */
const tw_source_type *tw_ggml_type(uint32_t id);
/* The same by name, "Q4_1"; *id is set. */
const tw_source_type *tw_ggml_type_named(const char *name, uint32_t *id);

/* `count` blocks, one after another, of a type that has a scheme: whole rows of a matrix, or one
 * run of all its rows, since rows are whole blocks and blocks fill whole bytes and groups.  wide: a
 * byte for each code.  scales and zeros may be NULL where the scheme has none. */
void tw_blocks_decode(const tw_source_type *type, const void *blocks, uint64_t count, bool wide,
                      void *weight, void *scales, void *zeros);

#endif
