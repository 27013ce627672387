/* GGUF's element types. */
#ifndef TW_FORMAT_GGML_TYPES_H
#define TW_FORMAT_GGML_TYPES_H

#include "src/format/model_impl.h"

/* NULL for an id that no type has, or none any more (4, 5, 31..33, 36..38 were removed). */
const tw_source_type *tw_ggml_type(uint32_t id);
/* The same by name, "Q4_1"; *id is set. */
const tw_source_type *tw_ggml_type_named(const char *name, uint32_t *id);

#endif
