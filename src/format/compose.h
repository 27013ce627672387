/* Checkpoints that keep a quantized weight in several tensors: NAME.qweight, NAME.scales and so on
 * become one tensor NAME.weight in canonical form.
 *
 * A form is a row of compose.c and a function that, for each tensor that marks a weight, finds the
 * others, checks their shapes against one another, and says what scheme they make.  Which form a
 * checkpoint has is told by config.json's quantization_config, or by its own __metadata__. */
#ifndef TW_FORMAT_COMPOSE_H
#define TW_FORMAT_COMPOSE_H

#include <jansson.h>

#include "src/format/model_impl.h"

enum { TW_PARTS = 5 };

/* A tensor made of others.  What each part is, and what `bits` and `kind` mean, is its form's. */
struct tw_composite {
    tw_source_type type;
    /* Fills what is allocated by the scheme, and zeroed; the order too, where it is a part. */
    tw_status (*read)(const tw_composite *self, tw_canonical_tensor *out);
    tw_tensor_entry part[TW_PARTS]; /* type NULL: not there */
    const char *name;               /* the model's */
    int64_t N, K;
    int bits, kind;
    bool ordered; /* read() gives an order of columns */
};

/* read(), and that scales and value zeros are finite.  Errors: MEMORY, FORMAT. */
tw_status tw_composite_read(const tw_composite *self, tw_canonical_tensor *out);

typedef struct tw_compose {
    tw_model *model;
    /* The checkpoint's quantization_config; or what the form's begin() gave. */
    const json_t *config;
    const char *label; /* of the file, for messages */
    char *used;        /* tensors that are parts of others, by index */
    /* What a form made for all of its weights, and how it goes; NULL: nothing. */
    void *shared;
    void (*free_shared)(void *shared);
} tw_compose;

/* One weight's marker: the model's tensor `index`, whose name is `stem` and the form's suffix. */
typedef struct tw_marker {
    const char *stem;
    int32_t index;
} tw_marker;

/* STEM + suffix; *out has type NULL where there is none.  Its tensor is then no longer listed. */
tw_status tw_compose_take(tw_compose *c, const tw_marker *marker, const char *suffix,
                          tw_tensor_entry *out);
/* The same, but it must be there. */
tw_status tw_compose_need(tw_compose *c, const tw_marker *marker, const char *suffix,
                          tw_tensor_entry *out);
/* Its element type is one of `types` ("F16 BF16 F32"), and its shape is as given; a -1 is any, but
 * not 0: dimensions of a part that is not empty are no more than the file's bytes. */
tw_status tw_compose_check(const tw_compose *c, const tw_tensor_entry *part, const char *types,
                           int32_t ndim, const int64_t *shape);
/* Replaces the marker's tensor with STEM + suffix of this shape; `made` is copied. */
tw_status tw_compose_add(tw_compose *c, const tw_marker *marker, const char *suffix, int32_t ndim,
                         const int64_t *shape, const tw_composite *made);

/* f32, f16, bf16, e4m3 or e8m0 by the element type's name; TW_NONE for others. */
tw_dtype tw_compose_dtype(const tw_tensor_entry *part);

/* ---- what several forms do alike ---- */

/* `bits` bits at position i of a stream of little-endian 32-bit words, `stride` bytes from one to
 * the next. */
uint32_t tw_stream_get(const uint8_t *words, int64_t stride, int64_t i, int bits);

/* Groups of columns by g_idx, an I32 [K] part.  *in_order: k / group for all k.  *sorted: sorting
 * columns by group, stably, gives groups of `group` columns, the last apart.  Errors: FORMAT (a
 * group outside of 0..groups-1). */
tw_status tw_groups_look(const tw_compose *c, const tw_tensor_entry *g_idx, int64_t K,
                         int64_t group, bool *in_order, bool *sorted);
/* Groups of other sizes, which no scheme has: their weights become f32.  Warns of it. */
void tw_groups_become_f32(const tw_compose *c, tw_composite *made);
/* order[k]: the columns sorted by group, stably. */
void tw_groups_sort(const tw_tensor_entry *g_idx, int64_t K, int64_t groups, int32_t *order);
static inline int32_t tw_i32_at(const tw_tensor_entry *part, int64_t i) {
    return (int32_t)tw_load_u32(part->data + 4 * i);
}

/* Codes of one row, counted from the dtype's smallest, into the canonical tensor. */
typedef void tw_codes_of_row(const tw_composite *self, int64_t n, uint8_t *codes);
/* All rows, with columns in out->order where there is one.  Errors: MEMORY. */
tw_status tw_compose_rows(const tw_composite *self, tw_codes_of_row *codes_of_row,
                          tw_canonical_tensor *out);
/* A zero as codes_of_row counts codes. */
typedef int tw_zero_of(const tw_composite *self, int64_t n, int64_t g);
/* Integer codes as f32, column k of group g_idx[k]; the scale of n and g is element
 * n * n_stride + g * g_stride.  Errors: MEMORY, FORMAT (a scale that is not finite). */
tw_status tw_compose_f32(const tw_composite *self, tw_codes_of_row *codes_of_row,
                         tw_zero_of *zero_of, const tw_tensor_entry *g_idx,
                         const tw_tensor_entry *scales, int64_t n_stride, int64_t g_stride,
                         tw_canonical_tensor *out);
/* Scales [N,G] of whole bytes from [N,G] or, transposed, [G,N]; rows of the source have `columns`
 * elements. */
void tw_compose_scales(const tw_composite *self, const tw_tensor_entry *part, bool transposed,
                       int64_t columns, tw_canonical_tensor *out);

/* group_size of a config: 0 for -1 and absent ones, which is all of K. */
tw_status tw_compose_group(const tw_compose *c, const json_t *config, int64_t *out);

/* The forms: of each weight that a marker stands for. */
tw_status tw_compose_own(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_gptq(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_awq(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_compressed(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_fp8(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_mxfp4(tw_compose *c, const tw_marker *marker);
tw_status tw_compose_torchao(tw_compose *c, const tw_marker *marker);
/* Parts whose codes are missing are an error. */
tw_status tw_compose_torchao_rest(tw_compose *c, const tw_marker *marker);

/* Whether __metadata__ describes tensors in torchao's way. */
bool tw_torchao_told(const tw_model *model);
/* What it says of each, by name; gives plain tensors their names.  *out is the caller's. */
tw_status tw_torchao_begin(tw_model *model, const char *label, json_t **out);
/* The same of our own form.  Errors: FORMAT, UNSUPPORTED (another version). */
bool tw_own_told(const tw_model *model);
tw_status tw_own_begin(tw_model *model, const char *label, json_t **out);

#endif
