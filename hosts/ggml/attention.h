/* The arithmetic of attention.c, for the instructions of the machine at hand. */
#ifndef TILEWRIGHT_HOSTS_GGML_ATTENTION_H
#define TILEWRIGHT_HOSTS_GGML_ATTENTION_H

#include <stdint.h>

/* Queries and keys of a tile, at most.  A matrix [..][TWG_QUERIES] has its queries side by side, in
 * the lanes of vectors. */
enum { TWG_QUERIES = 64, TWG_KEYS = 64 };

/* Queries against some keys and their values, scores in units of log2. */
typedef struct twg_attention_tile {
    int64_t keys, dk, dv; /* dk, dv: multiples of 4 */
    const float *k;       /* [TWG_KEYS][dk] */
    const float *v;       /* [keys][dv] */
    const float *mask;    /* [keys][TWG_QUERIES], is added to scores; NULL: 0 */
    const float *q;       /* [dk][TWG_QUERIES], scaled */
    float *scores;        /* [TWG_KEYS][TWG_QUERIES], scratch */
    /* What has come of earlier keys: the largest score (finite, and below any for none), the sum
     * of 2^(score - largest), and the values' sum, each times that: [dv][TWG_QUERIES]. */
    float *most, *sum, *out;
} twg_attention_tile;

typedef struct twg_attention_kernel {
    void (*step)(const twg_attention_tile *tile);
    void (*halves)(const uint16_t *f16, float *f32, int64_t count);
    /* to [d][TWG_QUERIES] = rows[query][d] * factor, for d below length, a multiple of 4 */
    void (*turn)(const float *const *rows, int64_t queries, int64_t length, float factor,
                 float *to);
    /* rows[query][d] = from [d][TWG_QUERIES] * factors[query] */
    void (*turn_back)(const float *from, int64_t queries, int64_t length, const float *factors,
                      float *const *rows);
} twg_attention_kernel;

/* The best for this machine, the next best..; NULL: there are no more. */
const twg_attention_kernel *twg_attention_kernel_at(int n);

#endif
