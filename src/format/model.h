/* src/format: files in, canonical tensors out.  Knows formats and architectures, never kernels.
 * This file: one view of every kind of model file: its tensors, its linear layers, their data.
 *
 *     tw_model *model;
 *     TW_TRY(tw_model_open("model.gguf", logger, &model));
 *     for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
 *         const tw_model_tensor *t = tw_model_tensor_at(model, i);
 *         ...
 *     }
 *     tw_model_close(model);
 */
#ifndef TW_FORMAT_MODEL_H
#define TW_FORMAT_MODEL_H

#include "src/base/log.h"
#include "src/core/problem.h"
#include "src/core/reference.h"

enum { TW_MODEL_DIMS = 8 }; /* tensors of more dimensions are refused */

typedef enum tw_model_kind {
    TW_MODEL_ANY = 0,     /* told by the content */
    TW_MODEL_GGUF,        /* versions 2 and 3; split files by their first */
    TW_MODEL_SAFETENSORS, /* a file, a folder, or an index of shards */
    TW_MODEL_CONFIG,      /* Hugging Face config.json alone: linears, no tensors */
    TW_MODEL_PROBLEMS,    /* text, one problem a line, # comments: linears, no tensors */
} tw_model_kind;

/* An open file or set of files, mapped and wholly checked.  As with any mapped file, whoever
 * shortens it while it is open breaks the mapping.  [shared] */
typedef struct tw_model tw_model;

/* Opens a .gguf, a .safetensors file, a folder of them, an index of shards, a config.json or a text
 * of problems.  The kind is told by the content; the name decides nothing but the words of an
 * error. logger may be NULL.  Errors: IO (cannot be read), FORMAT (breaks its format: the sentence
 * names the file, the field and the rule), UNSUPPORTED (well-formed, but of a version or
 * architecture that is not known here), MEMORY. */
tw_status tw_model_open(const char *path, const tw_logger *logger, tw_model **out);

/* The same from memory, which must outlive the model.  `label` stands for the file in messages.
 * A kind other than ANY is taken at its word.  Nothing else is read: no shards, no config.json. */
tw_status tw_model_open_bytes(const void *bytes, size_t size, tw_model_kind kind, const char *label,
                              tw_model **out);
/* The same of a safetensors file and the config.json that would lie beside it. */
tw_status tw_model_open_bytes_with_config(const void *bytes, size_t size, const void *config,
                                          size_t config_size, const char *label, tw_model **out);
/* Everything that the model handed out becomes invalid.  NULL is allowed. */
void tw_model_close(tw_model *model);

tw_model_kind tw_model_kind_of(const tw_model *model);
/* "gguf", "safetensors", "config", "problems". */
const char *tw_model_kind_name(tw_model_kind kind);
/* As the file names it: "llama", "bert"; "" where it does not. */
const char *tw_model_architecture(const tw_model *model);

/* ---- tensors -------------------------------------------------------------------------------- */

typedef struct tw_model_tensor {
    const char *name;             /* valid UTF-8 */
    int32_t ndim;                 /* 0: a scalar */
    int64_t shape[TW_MODEL_DIMS]; /* outermost first, so a linear weight is [N,K]; may hold zeros */
    const char *type;             /* the element type in its format's words: "Q4_1", "BF16" */
    tw_scheme scheme; /* what type means; weight is TW_NONE where tw_model_read() refuses it */
    uint64_t bytes;   /* of data in the file */
    bool is_linear;   /* see tw_model_linears() */
    bool ordered;     /* its canonical form has an order of columns */
} tw_model_tensor;

int32_t tw_model_tensor_count(const tw_model *model);
/* NULL outside [0, count). */
const tw_model_tensor *tw_model_tensor_at(const tw_model *model, int32_t index);
/* -1 for a name that no tensor has. */
int32_t tw_model_find(const tw_model *model, const char *name);
/* The file that holds the tensor, as messages name it; NULL outside [0, count). */
const char *tw_model_file_of(const tw_model *model, int32_t index);
/* The tensor's bytes as they lie in the file, in its own element type; NULL outside [0, count), and
 * where the file keeps it in several tensors. */
const void *tw_model_data(const tw_model *model, int32_t index);

/* Whoever reads large tensors once may give the file's pages back, after use. */
void tw_model_release(const tw_model *model, int32_t index);
/* Whether one of the model's files is this one, as stat() names it. */
bool tw_model_reads(const tw_model *model, uint64_t device, uint64_t inode);
/* The config.json beside a safetensors checkpoint, as JSON text of *size bytes; NULL without. */
const char *tw_model_config(const tw_model *model, size_t *size);
/* Why weights are listed as they lie in the file, in a quantization that is not known here: a
 * sentence that names it.  NULL where all is understood. */
const char *tw_model_unread(const tw_model *model);

/* Texts that a safetensors file says of itself (__metadata__), in the file's order. */
typedef struct tw_model_text {
    const char *key, *value;
} tw_model_text;
int32_t tw_model_metadata_count(const tw_model *model);
/* NULL outside [0, count). */
const tw_model_text *tw_model_metadata_at(const tw_model *model, int32_t index);

/* ---- linear layers -------------------------------------------------------------------------- */

typedef struct tw_model_linear {
    tw_problem problem; /* N, K, scheme; bias as the model has it; x, y f32, no act, and M 0, unless
                           a text of problems says otherwise */
    const char *type;   /* as tw_model_tensor; for a text of problems the weights' dtype */
    const char **names; /* of the tensors, or "FILE:LINE" for a text of problems */
    int32_t name_count;
    int64_t count;  /* linears like this: more than name_count where one tensor stacks experts */
    int32_t tensor; /* index of the first one's tensor, -1 without data */
} tw_model_linear;

typedef struct tw_model_linears {
    tw_model_linear *items; /* one for each problem and type, in the order of their first tensors */
    int32_t count;
    const char **names; /* what the items' names point into */
} tw_model_linears;

/* Every linear layer, deduplicated and counted.  What is one is decided by facts of the format:
 *   GGUF         a 2-D tensor named *.weight that llama.cpp multiplies by (its LLM_TENSOR_INFOS has
 *                MUL_MAT for it: no embedding, norm, convolution or mixing vector), and each
 *                expert of a 3-D *_exps.weight (MUL_MAT_ID).
 *   safetensors  a 2-D float tensor named *.weight that is no embedding, norm or convolution; and
 *                what a checkpoint of GPTQ, AWQ, compressed-tensors, torchao, or transformers'
 *                fp8 or mxfp4 keeps in several tensors, which is listed as the one weight it is.
 *   config.json  what the architecture's modules are; an unknown architecture is an error.
 * An embedding is a table look-up and no linear, except where it is the output layer too: in a
 * generative architecture without an output tensor (GGUF: no output.weight and an
 * architecture that is no encoder; Hugging Face: no lm_head and tie_word_embeddings, by the config
 * or by its architecture's default).  The tied embedding then has is_linear set and is counted
 * once. A scheme whose weight is TW_NONE marks a type that is listed but not readable. Quantized
 * GGUF types carry ggml's own activation quantization: i8g32, or i8g256 for K-quants. Errors:
 * UNSUPPORTED (the checkpoint's own quantization, or an architecture that stores [K,N]). */
tw_status tw_model_linears_get(const tw_model *model, tw_model_linears *out);
void tw_model_linears_free(tw_model_linears *linears);

/* ---- data ----------------------------------------------------------------------------------- */

/* One tensor in canonical form.  Leading dimensions fold into N: [E,N,K] is E*N rows, a
 * vector one row, a scalar 1 x 1, whatever is empty 0 x 0.  Dequantized as reference.h does, the
 * values equal the source format's own in every bit. */
typedef struct tw_canonical_tensor {
    tw_scheme scheme;
    int64_t N, K;
    void *weight, *scales, *zeros; /* owned, aligned to 64 bytes; NULL where the scheme has none */
    size_t weight_bytes, scale_bytes, zero_bytes;
    float *lut;     /* owned; the TW_LUT4_SIZE values of w=lut4, else NULL */
    int32_t *order; /* owned; K numbers: column k is the model's column order[k]; NULL: k */
} tw_canonical_tensor;

/* Errors: INVALID (no such tensor), UNSUPPORTED (a type that cannot be read yet), MEMORY. */
tw_status tw_model_read(const tw_model *model, int32_t index, tw_canonical_tensor *out);
/* Only rows [first, first + count), which become all of *out; not where several tensors of the file
 * make one, which tw_model_data() tells.  Errors: as tw_model_read(); INVALID (not such rows). */
tw_status tw_model_read_rows(const tw_model *model, int32_t index, int64_t first, int64_t count,
                             tw_canonical_tensor *out);
/* Room for lut and order, to be filled in.  Errors: MEMORY. */
tw_status tw_canonical_tensor_add_lut(tw_canonical_tensor *tensor);
tw_status tw_canonical_tensor_add_order(tw_canonical_tensor *tensor);
/* Row n in f32, K values in the model's order of columns. */
void tw_canonical_tensor_row(const tw_canonical_tensor *tensor, int64_t n, float *out);
void tw_canonical_tensor_free(tw_canonical_tensor *tensor);

/* The tensor as tw_dequantize_row() and the oracle take it. */
static inline tw_canonical tw_canonical_view(const tw_canonical_tensor *t) {
    return (tw_canonical){
        .weight = t->weight, .scales = t->scales, .zeros = t->zeros, .lut = t->lut};
}
static inline tw_problem tw_canonical_problem(const tw_canonical_tensor *t) {
    return (tw_problem){.N = t->N, .K = t->K, .x = TW_F32, .y = TW_F32, .scheme = t->scheme};
}

#endif
