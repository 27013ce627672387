/* Adjacent values under one scale, in loops that compilers vectorize, compiled for several widths
 * of vectors: the same bits as affine.c's element by element, for the runs that they take. */
#ifndef TW_QUANT_RUN_H
#define TW_QUANT_RUN_H

#include "src/base/base.h"

/* Least and largest value of `count` f32 or bf16 ones, which start at *min and *max; false if one
 * is not finite. */
bool tw_run_range(const void *x, tw_dtype dtype, int64_t count, float *min, float *max);

/* How the codes of a run come of its values. */
typedef struct tw_run {
    tw_dtype x;    /* f32 or bf16 */
    bool rounds;   /* of bf16: each operation's result, to bf16 */
    tw_dtype code; /* of the dtype's own range, or of a narrower one */
    int32_t qmin, qmax;
    bool divide;        /* round((x - least) / scale), else round(x * scale) + zero */
    float scale, least; /* scale must be finite, and not 0 where it divides */
    int32_t zero;
    bool bounded; /* the caller knows: no x is NaN, and |x * scale| is below 2^15 */
} tw_run;

/* Codes of `count` values from `codes` on, which is whole bytes: pad bits become 0.  False, with
 * nothing promised of `codes`, if an x is NaN. */
bool tw_run_codes(const tw_run *run, const void *x, int64_t count, uint8_t *codes);

/* Min-max quantization of f32 values with scales of f32, all steps of a row at once. */
typedef struct tw_run_fit {
    int64_t group; /* values under one scale; whole bytes of codes */
    tw_dtype code;
    int32_t qmin, qmax;
    bool symmetric; /* s = max(-min, max) / ((qmax - qmin) / 2) and zero = (qmax + qmin + 1) / 2,
                     * else s = (max - min) / (qmax - qmin) and zero = clamp(qmin - round(min / s));
                     * min <= 0 <= max */
    float eps;      /* the least scale, a normal number */
} tw_run_fit;

/* A row of `count` values, the last group of which may be short.  False, with nothing promised of
 * the outputs, if an x is not finite. */
bool tw_run_fit_row(const tw_run_fit *fit, const float *x, int64_t count, float *scales,
                    int32_t *zeros, uint8_t *codes);

/* Codes of a float dtype of up to 8 bits (not e8m0), a byte each, of f32 or bf16 values divided or
 * multiplied by `by`: what tw_float_set() stores.  False, with nothing promised of the codes, if
 * one would be of NaN. */
bool tw_run_cast(const void *x, tw_dtype dtype, int64_t count, float by, bool divide, tw_dtype code,
                 uint8_t *codes);

/* For each f32 or bf16 value the place in the table of 16 of what is nearest to x / scale, the
 * first of those as near, a byte each.  False if a quotient is NaN. */
bool tw_run_table(const void *x, tw_dtype dtype, int64_t count, float scale, const float *table,
                  uint8_t *codes);

/* For tests, while nothing else runs: "avx512", "avx2", "plain"; NULL: the best again.  False where
 * this CPU lacks it. */
bool tw_run_force(const char *isa);

#endif
