/* f32 tensors as one safetensors file, a piece at a time, to wherever the caller keeps it. */
#ifndef TW_FORMAT_SAFETENSORS_WRITE_H
#define TW_FORMAT_SAFETENSORS_WRITE_H

#include "src/format/model.h"

typedef struct tw_safetensors_writer tw_safetensors_writer; /* [owned] */

typedef struct tw_safetensors_tensor {
    const char *name;
    int32_t ndim;
    int64_t shape[TW_MODEL_DIMS];
} tw_safetensors_tensor;

/* Takes the file's bytes, front to back. */
typedef struct tw_safetensors_sink {
    tw_status (*write)(void *user, const void *bytes, size_t size);
    void *user;
} tw_safetensors_sink;

/* The header stands first, so all tensors are named here; their data follows in that order.
 * Errors: INVALID (a name twice or not UTF-8, a shape out of range), MEMORY, and the sink's. */
tw_status tw_safetensors_create(const tw_safetensors_sink *sink,
                                const tw_safetensors_tensor *tensors, int32_t count,
                                tw_safetensors_writer **out);
/* Appends values; their ends need not be ends of tensors.  Errors: INVALID (more than the
 * tensors hold), the sink's.  After an error only discard() makes sense. */
tw_status tw_safetensors_append(tw_safetensors_writer *writer, const float *values, size_t count);
/* Gives the sink what is left.  INVALID when values are missing.  The writer is gone either way. */
tw_status tw_safetensors_finish(tw_safetensors_writer *writer);
/* NULL is allowed. */
void tw_safetensors_discard(tw_safetensors_writer *writer);

#endif
