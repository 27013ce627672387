/* A problem: what to compute.  Its text form is the field=value list of CLI, logs, keys and
 * tests. */
#ifndef TW_CORE_PROBLEM_H
#define TW_CORE_PROBLEM_H

#include "src/base/base.h"
#include "src/base/str.h"

typedef struct tw_problem {
    int64_t M, N, K; /* M 0: not given */
    tw_dtype x, y, bias;
    tw_scheme scheme;
    tw_act act;
} tw_problem;

/* Largest M, N, K and group: sizes in bytes of any tensor then fit an int64_t with room to
 * spare. */
enum { TW_MAX_DIM = 1 << 28 };

/* Any order in; unknown, repeated or bad fields fail with a sentence that points at the field.
 * M is required only when need_M. */
tw_status tw_problem_parse(const char *text, bool need_M, tw_problem *out);
/* This order and every field out, but for fpmath=strict:
 * M=16,N=4096,K=4096,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none (M is left out
 * when 0; plain weights have no g, s, z). */
void tw_problem_text(const tw_problem *problem, tw_str *out);
/* The fields w, g, s, z, a alone, and fpmath where it is not strict.  A block is written NxK, 0 for
 * a dimension that it covers whole. */
void tw_scheme_text(const tw_scheme *scheme, tw_str *out);
/* Every rule that the fields must keep among themselves. */
tw_status tw_problem_check(const tw_problem *problem);
tw_status tw_scheme_check(const tw_scheme *scheme);

const char *tw_act_name(tw_act act);
enum { TW_FPMATHS = TW_FPMATH_BF16 + 1 }; /* values of tw_fpmath */

/* ---- granularity arithmetic: here and nowhere else ---- */

static inline bool tw_scheme_plain(const tw_scheme *s) { return s->scale == TW_NONE; }
/* Of integer codes: whether one times its scale may have to be rounded to f32. */
bool tw_scheme_products_round(const tw_scheme *s);
/* Weights of K (of N) under one scale; K (N) when it covers the whole dimension. */
static inline int64_t tw_group_k(const tw_scheme *s, int64_t K) {
    return s->group_k ? tw_min(s->group_k, K) : K;
}
static inline int64_t tw_group_n(const tw_scheme *s, int64_t N) {
    return s->group_n ? tw_min(s->group_n, N) : N;
}
/* Shape of the scales: [scale_rows, groups]. */
static inline int64_t tw_groups(const tw_scheme *s, int64_t K) {
    return tw_ceil_div(K, tw_group_k(s, K));
}
static inline int64_t tw_scale_rows(const tw_scheme *s, int64_t N) {
    return tw_ceil_div(N, tw_group_n(s, N));
}
/* Activation group along K; K when per token. */
static inline int64_t tw_act_group(const tw_scheme *s, int64_t K) {
    return s->act_group ? tw_min(s->act_group, K) : K;
}
/* Dtype of the zeros, TW_NONE without. */
static inline tw_dtype tw_zero_dtype(const tw_scheme *s) {
    return s->zero_mode == TW_ZERO_CODE    ? TW_U8
           : s->zero_mode == TW_ZERO_VALUE ? s->scale
                                           : TW_NONE;
}
/* Bytes of one layer's weights, scales and zeros, as packed as a format has them (of f16i8 a byte
 * each and their factors once): what weight_gbps counts. */
int64_t tw_problem_weight_bytes(const tw_problem *problem);

/* Values of a table of w=lut4. */
enum { TW_LUT4_SIZE = 16 };

/* Whether order is a permutation of 0..K-1.  seen: K zeros, to work with. */
tw_status tw_order_check(const int32_t *order, int64_t K, uint8_t *seen);

/* ---- M buckets ---- */

enum { TW_BUCKETS = 14, TW_MAX_BUCKET = 8192 };
/* Index of the smallest bucket 1, 2, 4 ... 8192 that holds M (the last one beyond). */
int tw_bucket_index(int64_t M);
static inline int64_t tw_bucket_rows(int index) { return (int64_t)1 << index; }

#endif
