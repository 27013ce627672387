/* A model out, a tensor at a time: the header stands first in every form, so all tensors are
 * announced, and then given in that order.  Memory holds one tensor.
 *
 *     TW_TRY(tw_model_writer_create(TW_FORM_TILEWRIGHT, &sink, plan, count, model, &writer));
 *     for (...) status = tw_model_writer_add(writer, &tensor);
 *     status = tw_model_writer_finish(writer);
 */
#ifndef TW_FORMAT_MODEL_WRITE_H
#define TW_FORMAT_MODEL_WRITE_H

#include <tilewright/model.h>

#include "src/format/model.h"
#include "src/format/sink.h"

/* "tilewright", "gguf", "compressed-tensors"; NULL for BY_NAME and past the last. */
const char *tw_form_name(tw_form form);

/* A tensor that will come. */
typedef struct tw_planned_tensor {
    const char *name;
    int32_t ndim;
    int64_t shape[TW_MODEL_DIMS];
    tw_scheme scheme; /* of the canonical tensor; its N and K fold the shape as model.h says */
    bool ordered;     /* it has an order of columns */
    bool linear;      /* the weights of a linear layer: two dimensions, or three for experts */
    const char *type; /* not NULL: its data goes through as it is, in this element type of the form,
                         and the scheme means nothing */
} tw_planned_tensor;

/* N and K of its canonical form; false where its codes would leave 64 bits. */
bool tw_planned_fold(const tw_planned_tensor *tensor, int64_t *N, int64_t *K);

typedef struct tw_model_writer tw_model_writer; /* [owned] */

/* Whether the form can hold the tensor, and the header's part of it; for the plan's maker to ask
 * before.  Errors: UNSUPPORTED says what the form lacks; INVALID. */
tw_status tw_form_check(tw_form form, const tw_planned_tensor *tensor);

/* source: whose texts describe the model: GGUF's keys for GGUF, safetensors' metadata for
 * safetensors, the architecture for both; NULL: none.  plan, names and source must live as long as
 * the writer.  Errors: as tw_form_check(); a name twice or not UTF-8; the sink's; MEMORY. */
tw_status tw_model_writer_create(tw_form form, const tw_sink *sink, const tw_planned_tensor *plan,
                                 int32_t count, const tw_model *source, tw_model_writer **out);
/* The next tensor of the plan.  Errors: INVALID (another scheme or shape than planned, or none is
 * left), the sink's.  After an error only discard() makes sense. */
tw_status tw_model_writer_add(tw_model_writer *writer, const tw_canonical_tensor *tensor);
/* The same for one of plan.type: `size` bytes.  */
tw_status tw_model_writer_add_data(tw_model_writer *writer, const void *data, size_t size);
/* Gives the sink what is left.  INVALID when tensors are missing.  The writer is gone either
 * way. */
tw_status tw_model_writer_finish(tw_model_writer *writer);
/* NULL is allowed. */
void tw_model_writer_discard(tw_model_writer *writer);

/* The quantization_config that belongs into the config.json beside what COMPRESSED wrote, as JSON.
 * out: for free().  Errors: MEMORY. */
tw_status tw_compressed_config(const tw_planned_tensor *plan, int32_t count, char **out);

#endif
