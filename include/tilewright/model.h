/* model.h - models in the form that files have them: layers of GGUF's blocks, and quantizing a
 * whole model, a checkpoint in and one file out.
 *
 * Conventions as in tilewright.h.  Texts that callbacks receive live until the callback returns.
 */
#ifndef TILEWRIGHT_MODEL_H
#define TILEWRIGHT_MODEL_H

#include <tilewright/quant.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- layers of GGUF's blocks ----------------------------------------------------------------- */

/* What a GGUF's element type means: its scheme, which quantizes x as ggml does (a=i8g32, or i8g256
 * of K-quants) where kernels multiply its codes by such, and lets products be of bf16 (fpmath)
 * where ggml has at most 8 bits of x: all types but F32 and F16.
 *   type         the number that files have, ggml's enum ggml_type: 2 is Q4_0
 *   block_bytes  of `block` elements, along a row; each may be NULL
 * Errors: INVALID (scheme is NULL, no type has the number), UNSUPPORTED (a type that layers cannot
 * be made of). */
TW_API tw_status tw_gguf_type(uint32_t type, tw_scheme *scheme, int64_t *block,
                              int64_t *block_bytes);

/* Creates a layer of a matrix [N,K] as a GGUF file holds it, which is read once, from several
 * threads, and may lie anywhere: a mapped file needs no copy.  The layer's weights are ggml's own
 * in every bit of their dequantization.
 *   desc       scheme all zero: the type's own; or that with other act_quant, act_group and
 *              fpmath.  lut is the type's and must be NULL
 *   blocks     N rows of K / block blocks
 *   row_bytes  from row to row; 0: one after another
 *   bias, *out as tw_linear_create
 * Errors: INVALID names the argument (K no multiple of the type's block; NaN or infinite scales,
 * with their place), otherwise as tw_gguf_type and tw_linear_create.  MEMORY. */
TW_API tw_status tw_linear_create_gguf(tw_context *context, const tw_linear_desc *desc,
                                       uint32_t type, const void *blocks, size_t row_bytes,
                                       const tw_tensor *bias, tw_linear **out);

/* ---- whole models ---------------------------------------------------------------------------- */

typedef enum tw_form {
    TW_FORM_BY_NAME = 0, /* GGUF for OUT.gguf, TILEWRIGHT for OUT.safetensors */
    TW_FORM_TILEWRIGHT,  /* safetensors with canonical tensors (docs/format.md): any scheme */
    TW_FORM_GGUF,        /* what Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 hold exactly; a GGUF's own keys,
                           * tokenizer and all, go along */
    TW_FORM_COMPRESSED,  /* compressed-tensors, pack-quantized: OUT is a folder, which receives
                           * model.safetensors and config.json */
} tw_form;

typedef enum tw_quantize_outcome {
    TW_OUTCOME_QUANTIZED = 0,
    TW_OUTCOME_SHORT_GROUP, /* quantized; the last group of each row is short */
    TW_OUTCOME_KEPT,        /* its values as they were */
} tw_quantize_outcome;

/* What becomes of a tensor. */
typedef struct tw_quantize_row {
    size_t struct_size;
    const char *tensor;
    int32_t ndim;
    int64_t shape[8];
    int32_t is_linear; /* the weights of a linear layer */
    tw_quantize_outcome outcome;
    const char *from;   /* element type in the words of its format: "BF16", "Q4_K" */
    const char *to;     /* fields of the scheme, "w=u4,g=128,..."; or the element type it keeps */
    const char *recipe; /* NULL: kept */
    const char *rule;   /* pattern of the rule that decided, "default"; NULL: none did */
    const char *reason; /* KEPT: why; SHORT_GROUP: of how many columns */
    uint64_t source_bytes, bytes; /* of its data */
} tw_quantize_row;

/* pattern: a tensor's name ("model.layers.0.mlp.up_proj.weight"), its module's (without
 * ".weight"), or "re:" and a regular expression (PCRE2, which has Python's syntax) that must match
 * one of the two as a whole.  recipe: as tw_linear_create_from_recipe's; "none" or NULL: kept. */
typedef struct tw_quantize_rule {
    const char *pattern, *recipe;
} tw_quantize_rule;

typedef struct tw_quantize_options {
    size_t struct_size;
    /* For linear layers that no rule names: a recipe; "none" or NULL: kept. */
    const char *recipe;
    /* For any matrix.  torchao's order of precedence: the exact name of the tensor, the exact name
     * of its module, the first expression that matches the tensor, the first that matches the
     * module, then the default above. */
    const tw_quantize_rule *rules;
    int32_t rule_count;
    tw_form form;
    int32_t strict;    /* 1: a matrix that should be quantized and cannot be is an error */
    int32_t overwrite; /* 1: OUT may be there; a folder never may */
    int32_t dry_run;   /* 1: only decide and report; nothing is written */
    int32_t threads;   /* 0: $TW_THREADS, else all CPUs of the process */
    /* May be NULL.  After the rules, for each tensor that they would quantize; 0: kept. */
    int32_t (*filter)(void *user, const char *tensor, int64_t N, int64_t K);
    /* May be NULL.  One call for each tensor, in the file's order, before anything is written. */
    void (*report)(void *user, const tw_quantize_row *row);
    /* May be NULL.  share: of the work, 0 to 1; tensor: what is worked on.  Nonzero cancels. */
    int32_t (*progress)(void *user, double share, const char *tensor);
    void *user; /* for all three */
} tw_quantize_options;
#define TW_QUANTIZE_OPTIONS_INIT                                                                   \
    {sizeof(tw_quantize_options),                                                                  \
     NULL,                                                                                         \
     NULL,                                                                                         \
     0,                                                                                            \
     TW_FORM_BY_NAME,                                                                              \
     0,                                                                                            \
     0,                                                                                            \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     NULL,                                                                                         \
     NULL,                                                                                         \
     NULL}

/* Quantizes the checkpoint at `in` (as `tilewright --help` says of MODEL: a GGUF, a safetensors
 * file, folder or index, quantized or not) into `out`.  Quantized tensors are dequantized first,
 * exactly as their format defines; weights that the file holds once, such as tied embeddings, are
 * quantized once.  What is kept goes through in every bit: in its own element type where the form
 * has that, else by its scheme, else as f32 of the same values.
 *
 * Memory: less than twice the largest tensor, which counts as f32 where a recipe that needs all of
 * it at once (a scale for the whole tensor, HQQ, codebooks, two levels of NVFP4) gets a tensor that
 * is not plain.  `out` appears whole or not at all: it is written
 * under another name (NAME.PID-N.part) beside it, which an error removes.  Callbacks run on the
 * calling thread.
 *
 * Errors: INVALID names the argument, the option, the rule or the tensor (a recipe that is not
 * known; a rule whose exact name no tensor has; NaN or infinity in weights to be quantized; strict:
 * the tensor and why; nothing would be quantized); IO (cannot be read or written; `out` is there);
 * FORMAT, UNSUPPORTED (of `in`; a tensor that neither can be read nor goes through as it is);
 * CANCELLED (by progress); MEMORY.
 * Source: torchao's quantize_ and FqnToConfig. */
TW_API tw_status tw_quantize_model(const char *in, const char *out,
                                   const tw_quantize_options *options);

#ifdef __cplusplus
}
#endif

#endif /* TILEWRIGHT_MODEL_H */
