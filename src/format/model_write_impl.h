/* What the writers of this folder share. */
#ifndef TW_FORMAT_MODEL_WRITE_IMPL_H
#define TW_FORMAT_MODEL_WRITE_IMPL_H

#include "src/format/model_impl.h"
#include "src/format/model_write.h"
#include "src/format/safetensors_write.h"

struct tw_model_writer {
    const struct tw_form_row *form;
    const tw_planned_tensor *plan;
    int32_t count, next;
    tw_safetensors_writer *file; /* of forms that are safetensors */
    tw_output output;            /* of the others */
    uint64_t alignment;          /* of each tensor's data there */
};

/* A form: how a tensor is checked and announced, and how one goes out. */
typedef struct tw_form_row {
    const char *name;
    tw_status (*check)(const tw_planned_tensor *t);
    tw_status (*create)(tw_model_writer *w, const tw_sink *sink, const tw_model *source);
    tw_status (*add)(tw_model_writer *w, const tw_planned_tensor *t,
                     const tw_canonical_tensor *tensor);
    tw_status (*add_data)(tw_model_writer *w, const tw_planned_tensor *t, const void *data,
                          size_t size);
} tw_form_row;

extern const tw_form_row tw_form_tilewright, tw_form_gguf, tw_form_compressed;

/* "tensor 'NAME': FORM cannot hold SCHEME: why". */
tw_status tw_form_refuse(const char *form, const tw_planned_tensor *t, const char *why);

/* ---- forms that are safetensors ---- */

/* The tensors that a file of one planned tensor holds. */
enum { TW_WRITE_PARTS = 5, TW_WRITE_NAME = 1024 };
typedef struct tw_file_parts {
    tw_safetensors_tensor part[TW_WRITE_PARTS];
    char names[TW_WRITE_PARTS][TW_WRITE_NAME];
    int32_t count;
} tw_file_parts;

/* STEM (of `stem` bytes of t's name) + suffix.  Errors: INVALID (too long). */
tw_status tw_parts_add(tw_file_parts *parts, const tw_planned_tensor *t, size_t stem,
                       const char *suffix, const char *type, int32_t ndim, const int64_t *shape);
/* Opens w->file with the parts of all planned tensors. */
tw_status tw_write_safetensors(tw_model_writer *w, const tw_sink *sink,
                               tw_status (*parts_of)(const tw_planned_tensor *t,
                                                     tw_file_parts *out),
                               const tw_model_text *texts, int32_t text_count);
tw_status tw_write_through(tw_model_writer *w, const tw_planned_tensor *t, const void *data,
                           size_t size);

#endif
