/* The arithmetic of attention, heads and SWIGLU, for the instructions of the machine at hand. */
#ifndef TILEWRIGHT_HOSTS_GGML_ATTENTION_H
#define TILEWRIGHT_HOSTS_GGML_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Queries and keys of a tile, at most.  A matrix [..][TWG_QUERIES] has its queries side by side, in
 * the lanes of vectors. */
enum { TWG_QUERIES = 64, TWG_KEYS = 64, TWG_MOST_HEAD = 1024 };

/* Queries against some keys and their values, scores in units of log2. */
typedef struct twg_attention_tile {
    int64_t keys, dk, dv; /* dk, dv: multiples of the kernel's */
    float *k;             /* [TWG_KEYS][dk] */
    float *v;             /* [TWG_KEYS][dv]; what is behind `keys` counts nothing, if finite */
    float *turned;        /* [dv][TWG_KEYS], what the kernel makes of v */
    const float *mask;    /* [keys][TWG_QUERIES], is added to scores; NULL: 0 */
    float *q;             /* [dk][TWG_QUERIES], scaled */
    float *scores;        /* [TWG_KEYS][TWG_QUERIES], scratch */
    /* What has come of earlier keys: the largest score, or one that none is much larger than
     * (finite, and below any for none), the sum of 2^(score - that), and the values' sum, each
     * times that: [dv][TWG_QUERIES]. */
    float *most, *sum, *out;
} twg_attention_tile;

/* How many numbers of a SWIGLU go together. */
enum { TWG_GLU = 16 };

/* Most queries, and keys, of a step of few; what numbers of a key or a value are a multiple of. */
enum { TWG_FEW = 4, TWG_FEW_KEYS = 32, TWG_FEW_MULTIPLE = 16 };

/* Few queries against some keys, as they lie in memory, and their values; scores as above. */
typedef struct twg_attention_few {
    int64_t queries, keys, dk, dv; /* dk, dv: multiples of TWG_FEW_MULTIPLE */
    const uint16_t *k, *v;         /* f16: a key, and a value, in each row */
    size_t k_step, v_step;         /* bytes from one row to the next */
    const float *mask; /* [queries][TWG_FEW_KEYS], of scores that are no logarithms to base 2 yet;
                        * behind `keys` anything; NULL: 0 */
    const float *q;    /* [queries][dk], scaled */
    float *most, *sum; /* [queries], as above */
    float *out;        /* [queries][dv] */
} twg_attention_few;

typedef struct twg_attention_kernel {
    int multiple; /* of what dk and dv must be; `few` takes those of TWG_FEW_MULTIPLE */
    bool rounds;  /* steps round values, what these are weighted with, and maybe queries to bf16 */
    /* Before steps, queries, and keys with their values, that are new: to the kernel's own form, in
     * their place.  NULL: it has none. */
    void (*queries)(const twg_attention_tile *tile);
    void (*keys)(const twg_attention_tile *tile);
    void (*step)(const twg_attention_tile *tile);
    void (*few)(const twg_attention_few *few);
    void (*halves)(const uint16_t *f16, float *f32, int64_t count);
    void (*to_halves)(const float *f32, uint16_t *f16, int64_t count); /* to the nearest */
    /* Of up to TWG_KEYS keys those up to the last that one of some tokens may see, by their rows of
     * a mask, `step` bytes apart; *open: whether all of these see all of them as they are. */
    int64_t (*visible)(const uint16_t *mask, size_t step, int64_t tokens, int64_t keys, bool *open);
    /* to [d][TWG_QUERIES] = rows[query][d] * factor, for d below length, a multiple of 4 */
    void (*turn)(const float *const *rows, int64_t queries, int64_t length, float factor,
                 float *to);
    /* rows[query][d] = from [d][TWG_QUERIES] * factors[query] */
    void (*turn_back)(const float *from, int64_t queries, int64_t length, const float *factors,
                      float *const *rows);
    /* y = a / (1 + e^-a) * b, relative error below 2^-17.9 (2^-20 for |a| < 8); count: a multiple
     * of TWG_GLU.  y may be a or b. */
    void (*swiglu)(const float *a, const float *b, int64_t count, float *y);
} twg_attention_kernel;

/* The best for this machine, the next best..; NULL: there are no more. */
const twg_attention_kernel *twg_attention_kernel_at(int n);

#endif
