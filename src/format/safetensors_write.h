/* One safetensors file, a piece at a time, to wherever the caller keeps it. */
#ifndef TW_FORMAT_SAFETENSORS_WRITE_H
#define TW_FORMAT_SAFETENSORS_WRITE_H

#include "src/format/model.h"
#include "src/format/sink.h"

typedef struct tw_safetensors_writer tw_safetensors_writer; /* [owned] */

typedef struct tw_safetensors_tensor {
    const char *name, *type; /* an element type of the format: "F32", "U8" */
    int32_t ndim;
    int64_t shape[TW_MODEL_DIMS];
} tw_safetensors_tensor;

/* Bytes of a tensor's data; false for a type that the format has not, or a shape out of range. */
bool tw_safetensors_bytes(const tw_safetensors_tensor *tensor, uint64_t *out);

/* The header stands first, so all tensors are named here; their data follows in that order.
 * texts: of __metadata__, where "format": "pt", which torch's loader looks for, stands besides.
 * Errors: INVALID (a name twice or not UTF-8, a type or a shape that the format has not), MEMORY,
 * and the sink's. */
tw_status tw_safetensors_create(const tw_sink *sink, const tw_safetensors_tensor *tensors,
                                int32_t count, const tw_model_text *texts, int32_t text_count,
                                tw_safetensors_writer **out);
/* Appends data; its ends need not be ends of tensors.  Errors: INVALID (more than the tensors
 * hold), the sink's.  After an error only discard() makes sense. */
tw_status tw_safetensors_append(tw_safetensors_writer *writer, const void *bytes, size_t size);
/* Gives the sink what is left.  INVALID when data is missing.  The writer is gone either way. */
tw_status tw_safetensors_finish(tw_safetensors_writer *writer);
/* NULL is allowed. */
void tw_safetensors_discard(tw_safetensors_writer *writer);

#endif
