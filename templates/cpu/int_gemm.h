/* What the kernels of integer products share: int_gemm.c (by dot products), amx_gemm.c (by tiles of
 * a matrix unit), int_fold.c (what surrounds a group's products), int_form.c (what follows from a
 * problem), int_pack.c (the quantization of x); and int_config.c, the choice of int_gemm's configs.
 */
#ifndef TW_TEMPLATES_CPU_INT_GEMM_H
#define TW_TEMPLATES_CPU_INT_GEMM_H

#include "templates/cpu/gemm.h"

/* How integer products are formed; decides the form of packed x. */
typedef enum tw_int_form {
    TW_INT_BYTES, /* x as i8, four k a dword: vpdpbusd, vpmaddubsw, or plain arithmetic */
    TW_INT_WORDS, /* x as i16, per four k: k, k+2, k+1, k+3: vpmaddwd, where bytes would saturate or
                     not fit */
} tw_int_form;

/* Bytes of x with a zero point (a=i8z) are its codes less this, so that they are signed. */
enum { TW_INT_SHIFT = 128 };

/* What a kernel multiplies: codes as they are stored, unsigned, so that sums of x make up for the
 * constant zero; or the weights' values, but for code zeros. */
typedef enum tw_int_weights { TW_INT_CODES, TW_INT_VALUES } tw_int_weights;

/* A meta row: token scale (f32), where x is shifted TW_INT_SHIFT less its zero point (i32, at
 * TW_INT_SHIFT_AT), unused bytes up to 16, then arrays of one entry a fold:
 *   i32 sum    of what init() needs: the codes' negated sum, times the constant zero where zeros
 *              are none
 *   i32 fixed  likewise for the constant zero, where zeros are values and the weights signed
 *              (either as two i16 where tw_int_scales_words: of columns 0 and 1 of each four, and
 *              of 2 and 3; with group pairs TW_WORD_BIAS higher)
 *   f32 scale  with an activation group: that of x
 *   f32 total  with value zeros: the codes' sum
 *   i16 half   with value zeros whose factors come late: the same */
typedef struct tw_int_meta {
    tw_int_weights weights;
    int64_t entries, sum, fixed, scale, total, half, stride; /* byte offsets; -1: not there */
} tw_int_meta;

/* The array of what groups' sums begin at; -1: they begin at 0. */
static inline int64_t tw_int_starts(const tw_int_meta *m) {
    return m->sum >= 0 ? m->sum : m->fixed;
}

/* With late factors a run of entries has one scale, its first.  The second is an i32: of each group
 * of the run a bit, whether its sum of products may not be a word (tw_int_word_limit). */
enum { TW_INT_SHIFT_AT = 4, TW_INT_WIDE_AT = 4 };

/* Most units of a run whose zeros are multiplied at once: all of them are in the code. */
enum { TW_INT_LATE_UNITS = 16 };

typedef struct tw_int_gemm {
    tw_gemm t; /* first: hooks get a pointer to it */
    tw_int_form form;
    tw_int_meta meta;
    tw_dot dot;
    int flush;             /* vpmaddubsw results that fit one i16 */
    int byte_sums;         /* codes whose sum fits a byte */
    bool shifts;           /* x lies there less TW_INT_SHIFT: the sums of codes make up for it */
    bool words_hold_sums;  /* zero and group sum fit i16: vpmaddwd multiplies them */
    bool words_hold_codes; /* so does a fold's sum of codes */
    bool negatives;        /* codes that are multiplied are signed; else unsigned as packed */
    bool scales_last;      /* one fold under one scale of x: totals are its sums until the end */
    tw_val wide;           /* groups of the run at hand, a bit each; none where it never is */
    tw_val mask;           /* of one plane's codes in each byte, where a register is left for it */
} tw_int_gemm;

tw_int_form tw_int_form_of(const tw_target *target, const tw_problem *problem);
/* Whether packed x is shifted. */
bool tw_int_shifts(const tw_target *target, const tw_problem *problem);
/* Largest magnitude of a code of x, without its zero point. */
int tw_int_largest_x(const tw_problem *problem);
/* Columns of K whose sum of products is exact: in 32 bits, and with value zeros as an f32 too.  A
 * power of two, at least 256; groups that are longer take several folds. */
int64_t tw_int_fold_k(const tw_problem *problem);
void tw_int_meta_init(const tw_problem *problem, tw_int_weights weights, tw_int_meta *out);
/* The zero that storing codes as unsigned adds: 0 for unsigned weights. */
int32_t tw_int_constant_zero(const tw_problem *problem);
/* Whether the factors of f16i8 are applied once to each run of the panel: it has one scale of x, is
 * whole, and where value zeros cancel its sums are not far over what f32 holds exactly. */
bool tw_int_late_factors(const tw_problem *problem);
/* With late factors: the largest sum of magnitudes of x in a group whose products certainly sum up
 * to an i16; 0 where the target has no use for that, or most x exceeds it. */
int64_t tw_int_word_limit(const tw_target *target, const tw_problem *problem);
/* Whether the limit is one that a group of x can exceed. */
bool tw_int_may_be_wide(const tw_target *target, const tw_problem *problem);
/* With late factors on vpmaddubsw: sums of its results are i16s to the end, and what widens them
 * multiplies them by the codes of scales.  A group's sum begins at what its constant zero adds. */
bool tw_int_scales_words(const tw_target *target, const tw_problem *problem);
/* Results of vpmaddubsw that an i16 holds and that are summed up before it is widened: 8 at most,
 * or, but for word pairs, half of that where few rows share the unpacking and memory is the limit
 * anyway (half the code to compile). */
int tw_int_flush(const tw_target *target, const tw_problem *problem, int micro_m);
/* Where the target has it: sum of i32 lanes plus a * b of four bytes each, unsigned by signed. */
tw_val tw_int_dpbusd(tw_ir *g, tw_val sum, tw_val a, tw_val b);
/* Emits tw_pack_x.  bias: added to what groups' sums begin at, where that is in the meta row. */
void tw_int_emit_pack(tw_ir *g, const tw_problem *problem, tw_int_weights weights, int32_t bias);
int64_t tw_int_xq_stride(const tw_problem *problem);

/* Fills everything that does not depend on emitted values but `flush`. */
void tw_int_gemm_init(tw_int_gemm *self, tw_ir *g, const tw_problem *problem,
                      const tw_config *config, const tw_gemm_ops *ops, int64_t body_want,
                      tw_int_weights weights);
/* As in templates/template.h. */
void tw_int_geometry_of(const tw_problem *problem, tw_int_weights weights, tw_geometry *out);
int64_t tw_int_chain(const tw_problem *problem);
const char *tw_int_reject_problem(const tw_target *target, const tw_problem *problem);

/* Hooks of tw_gemm_ops. */
void tw_int_begin(tw_gemm *t);
void tw_int_init(tw_gemm *t, tw_val *acc);
tw_val tw_int_word_start(tw_gemm *t, int row); /* with word pairs; none: zero */
tw_val tw_int_unpack(tw_gemm *t, int v, int64_t k);
void tw_int_fold(tw_gemm *t, const tw_val *acc, tw_val *total);
void tw_int_turn(tw_gemm *t, tw_val *acc, tw_val *total);
void tw_int_begin_run(tw_gemm *t);
void tw_int_scale_sums(tw_gemm *t, const tw_val *sum, tw_val *total);
void tw_int_finish(tw_gemm *t, tw_val row, tw_val *total);

/* Sums of products of i16 pairs, added to acc where there is one. */
tw_val tw_int_madd_words(tw_gemm *t, tw_val a, tw_val b);
tw_val tw_int_dpwssd(tw_gemm *t, tw_val acc, tw_val a, tw_val b);

/* int_config.c: as in templates/template.h. */
double tw_int_cost(const tw_target *target, const tw_problem *problem, const tw_config *config);
const char *tw_int_reject(const tw_target *target, const tw_problem *problem, const tw_config *c);
void tw_int_guess(const tw_target *target, const tw_problem *problem, tw_config *config);

#endif
