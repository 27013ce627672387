/* Writing f32 tensors as one safetensors file, a piece at a time.
 *
 * The data goes to a temporary file beside the target, which takes the target's name only once
 * everything is on disk: what has the name is whole.  A process that is killed leaves at most a
 * TARGET.tmp-PID-N behind. */
#ifndef TW_FORMAT_SAFETENSORS_WRITE_H
#define TW_FORMAT_SAFETENSORS_WRITE_H

#include "src/format/model.h"

typedef struct tw_safetensors_writer tw_safetensors_writer; /* [owned] */

typedef struct tw_safetensors_tensor {
    const char *name;
    int32_t ndim;
    int64_t shape[TW_MODEL_DIMS];
} tw_safetensors_tensor;

/* The header stands first, so all tensors are named here; their data follows in that order.
 * Errors: INVALID (a name twice or not UTF-8, a shape out of range), IO, MEMORY. */
tw_status tw_safetensors_create(const char *path, const tw_safetensors_tensor *tensors,
                                int32_t count, tw_safetensors_writer **out);
/* Appends values; their ends need not be ends of tensors.  Errors: INVALID (more than the
 * tensors hold), IO (a full disk).  After an error only discard() makes sense. */
tw_status tw_safetensors_append(tw_safetensors_writer *writer, const float *values, size_t count);
/* Gives the file its name.  INVALID when values are missing.  The writer is gone either way, and on
 * failure so is the temporary file: a file that had the name before is then still what it was. */
tw_status tw_safetensors_finish(tw_safetensors_writer *writer);
/* Removes the temporary file.  NULL is allowed. */
void tw_safetensors_discard(tw_safetensors_writer *writer);

#endif
