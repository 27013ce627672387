/* What attention.c and attention_few.c ask of a FLASH_ATTN_EXT node. */
#ifndef TILEWRIGHT_HOSTS_GGML_ATTENTION_NODE_H
#define TILEWRIGHT_HOSTS_GGML_ATTENTION_NODE_H

#include <math.h>

#include "hosts/ggml/attention.h"
#include "hosts/ggml/backend.h"

/* Below any score, above minus infinity. */
#define TWG_NOTHING (-1e30f)
#define TWG_LOG2_E 1.44269504f

static inline int64_t twg_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t twg_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Row `token` of head `head` of sequence i3: q's, or the destination's, whose heads come first. */
static inline const float *twg_query(const struct ggml_tensor *q, int64_t token, int64_t head,
                                     int64_t i3) {
    return (const float *)((const char *)q->data + (size_t)token * q->nb[1] +
                           (size_t)head * q->nb[2] + (size_t)i3 * q->nb[3]);
}
static inline float *twg_result(const struct ggml_tensor *y, int64_t token, int64_t head,
                                int64_t i3) {
    return (float *)((char *)y->data + (size_t)head * y->nb[1] + (size_t)token * y->nb[2] +
                     (size_t)i3 * y->nb[3]);
}

/* Keys or values of a key head; of_queries: sequences of the queries, which share them. */
static inline const char *twg_keys(const struct ggml_tensor *of, int64_t first, int64_t key_head,
                                   int64_t i3, int64_t of_queries) {
    return (const char *)of->data + (size_t)first * of->nb[1] + (size_t)key_head * of->nb[2] +
           (size_t)(i3 / (of_queries / of->ne[3])) * of->nb[3];
}

static inline const uint16_t *twg_mask(const struct ggml_tensor *mask, int64_t token, int64_t key,
                                       int64_t i3) {
    return (const uint16_t *)((const char *)mask->data + (size_t)token * mask->nb[1] +
                              (size_t)(i3 % mask->ne[3]) * mask->nb[3]) +
           key;
}

/* Of `keys` keys from `key` on those up to the last that one of some tokens may see, by the mask;
 * *open: whether all of these see all of them as they are. */
int64_t twg_visible(const twg_attention_kernel *kernel, const struct ggml_tensor *mask,
                    int64_t first_token, int64_t last_token, int64_t i3, int64_t key, int64_t keys,
                    bool *open);

/* What a query's values are multiplied by in the end.  A head's sink is one more score, of no
 * value. */
static inline float twg_last_factor(const struct ggml_tensor *sinks, int64_t head, float most,
                                    float sum) {
    float factor = 1;
    if (sinks) {
        float sink = ((const float *)sinks->data)[head] * TWG_LOG2_E,
              higher = sink > most ? sink : most;
        factor = exp2f(most - higher);
        sum = sum * factor + exp2f(sink - higher);
    }
    return sum == 0 ? 0 : factor / sum; /* NaN stays NaN */
}

/* attention_few.c: the same contracts as in backend.h, of few queries. */
bool twg_few_takes(const struct ggml_tensor *node);
size_t twg_few_scratch(const struct ggml_tensor *node);
void twg_few_run(const struct ggml_tensor *node, int ith, int nth, twg_attention *operation);

#endif
