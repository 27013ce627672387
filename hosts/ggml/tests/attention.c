/* Attention of many tokens, and of few, against straight loops.  Its error tells who computed it:
 * ggml's kernel for so few tokens rounds queries to f16, or to eight bits. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/attention.h"
#include "hosts/ggml/tests/test.h"

typedef enum masking { NOT, CAUSAL, CLOSED, ADDED, STEEP, WINDOW, FIRST, NOTHING } masking;

typedef struct shape {
    const char *what;
    int64_t dk, dv, heads, key_heads, tokens, keys, sequences;
    enum ggml_type type;
    masking mask;
    bool sinks;
} shape;

bool attention_rounds(void) {
    const char *strict = getenv("TW_GGML_STRICT");
    return twg_attention_kernel_at(0)->rounds && !(strict && *strict && strcmp(strict, "0") != 0);
}

/* A tensor of a graph and its values, as f32. */
typedef struct data {
    struct ggml_tensor *tensor;
    float *values;
    int64_t count;
} data;

static data data_of(struct ggml_context *context, enum ggml_type type, int64_t a, int64_t b,
                    int64_t c, int64_t d) {
    struct ggml_tensor *t = ggml_new_tensor_4d(context, type, a, b, c, d);
    return (data){t, numbers((size_t)(a * b * c * d)), a * b * c * d};
}

/* Into the tensor, and back as the type rounds them. */
static void set(data *d) {
    const struct ggml_tensor *t = d->tensor;
    void *raw = malloc(ggml_nbytes(t));
    ggml_quantize_chunk(t->type, d->values, raw, 0, d->count / t->ne[0], t->ne[0], NULL);
    ggml_backend_tensor_set(d->tensor, raw, 0, ggml_nbytes(t));
    if (t->type == GGML_TYPE_F32)
        memcpy(d->values, raw, ggml_nbytes(t));
    else
        ggml_get_type_traits(t->type)->to_float(raw, d->values, d->count);
    free(raw);
}

/* CLOSED: a token sees nothing, and one tile of keys is nobody's; ADDED: a number each; STEEP: the
 * earlier, the more; WINDOW, FIRST: what is seen is somewhere in the middle, or just the first. */
static void set_mask(const shape *s, data *mask) {
    for (int64_t i = 0; i < mask->count; i++) {
        int64_t key = i % s->keys, token = i / s->keys % s->tokens, last = s->keys - s->tokens;
        bool closed = s->mask == CAUSAL   ? key > token + last
                      : s->mask == CLOSED ? token == 3 || key / 64 == 1 || key % 7 == token % 7
                      : s->mask == WINDOW ? key < s->keys / 2 || key > s->keys / 2 + 90 + token
                      : s->mask == FIRST  ? key > 0
                                          : s->mask == NOTHING;
        mask->values[i] = closed             ? -INFINITY
                          : s->mask == ADDED ? mask->values[i] * 4
                          : s->mask == STEEP ? -(float)key
                                             : 0;
    }
    set(mask);
}

/* Of one token's head; k, v: its key head's. */
static void attend(const shape *s, const float *q, const float *k, const float *v,
                   const float *mask, const float *sink, int64_t step, double *y) {
    double *score = malloc(sizeof *score * (size_t)s->keys), most = sink ? *sink : -INFINITY, sum;
    for (int64_t key = 0; key < s->keys; key++) {
        score[key] = 0;
        for (int64_t d = 0; d < s->dk; d++) score[key] += (double)q[d] * k[key * step * s->dk + d];
        score[key] = score[key] / sqrt((double)s->dk) + (mask ? mask[key] : 0);
        most = fmax(most, score[key]);
    }
    sum = sink ? exp(*sink - most) : 0;
    for (int64_t d = 0; d < s->dv; d++) y[d] = 0;
    for (int64_t key = 0; key < s->keys; key++) {
        double weight = score[key] == -INFINITY ? 0 : exp(score[key] - most);
        sum += weight;
        for (int64_t d = 0; d < s->dv; d++) y[d] += weight * v[key * step * s->dv + d];
    }
    for (int64_t d = 0; d < s->dv; d++) y[d] = sum > 0 ? y[d] / sum : 0;
    free(score);
}

/* Tensors as llama.cpp has them: [numbers, heads, tokens or keys, sequences], heads permuted. */
static void attention(const shape *s) {
    struct ggml_context *context = tensors();
    data q = data_of(context, GGML_TYPE_F32, s->dk, s->heads, s->tokens, s->sequences),
         k = data_of(context, s->type, s->dk, s->key_heads, s->keys, s->sequences),
         v = data_of(context, s->type, s->dv, s->key_heads, s->keys, s->sequences),
         mask = data_of(context, GGML_TYPE_F16, s->keys, s->tokens, 1, s->sequences),
         sinks = data_of(context, GGML_TYPE_F32, s->heads, 1, 1, 1);
    struct ggml_tensor *y = ggml_flash_attn_ext(
        context, ggml_permute(context, q.tensor, 0, 2, 1, 3),
        ggml_permute(context, k.tensor, 0, 2, 1, 3), ggml_permute(context, v.tensor, 0, 2, 1, 3),
        s->mask ? mask.tensor : NULL, 1 / sqrtf((float)s->dk), 0, 0);
    if (s->sinks) ggml_flash_attn_ext_add_sinks(y, sinks.tensor);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    set(&q), set(&k), set(&v), set(&sinks), set_mask(s, &mask);
    bool ran = compute_twice(graph) && y->op == GGML_OP_FLASH_ATTN_EXT;
    float *out = malloc(ggml_nbytes(y));
    ggml_backend_tensor_get(y, out, 0, ggml_nbytes(y));
    double error = 0, signal = 1e-30, *truth = malloc(sizeof *truth * (size_t)s->dv);
    for (int64_t i = 0; i < s->sequences * s->tokens * s->heads; i++) {
        int64_t head = i % s->heads, token = i / s->heads % s->tokens,
                sequence = i / s->heads / s->tokens, key_head = head * s->key_heads / s->heads,
                first = sequence * s->keys * s->key_heads + key_head;
        attend(s, q.values + i * s->dk, k.values + first * s->dk, v.values + first * s->dv,
               s->mask ? mask.values + (sequence * s->tokens + token) * s->keys : NULL,
               s->sinks ? sinks.values + head : NULL, s->key_heads, truth);
        for (int64_t d = 0; d < s->dv; d++) {
            error += (truth[d] - out[i * s->dv + d]) * (truth[d] - out[i * s->dv + d]);
            signal += truth[d] * truth[d];
        }
    }
    bool few = s->tokens == 1 || s->tokens * s->heads / s->key_heads < 32;
    check_rounded(s->what, ran ? error / signal : INFINITY, !few && attention_rounds());
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(q.values), free(k.values), free(v.values), free(mask.values), free(sinks.values);
    free(out), free(truth);
}

/* What is not finite in a query shows in its results, and in no other's. */
static void not_finite(const char *what, int64_t tokens, int64_t which, float number) {
    enum { D = 64, MOST = 40 };
    struct ggml_context *context = tensors();
    data q = data_of(context, GGML_TYPE_F32, D, tokens, 1, 1),
         k = data_of(context, GGML_TYPE_F16, D, tokens, 1, 1),
         v = data_of(context, GGML_TYPE_F16, D, tokens, 1, 1);
    struct ggml_tensor *y =
        ggml_flash_attn_ext(context, q.tensor, k.tensor, v.tensor, NULL, 0.125f, 0, 0);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    q.values[which * D] = number;
    for (int64_t key = 0; key < tokens; key++) k.values[key * D] = -1.001f;
    set(&q), set(&k), set(&v);
    bool right = compute_twice(graph);
    float out[MOST * D];
    ggml_backend_tensor_get(y, out, 0, ggml_nbytes(y));
    for (int i = 0; i < tokens * D; i++) right = right && isnan(out[i]) == (i / D == which);
    check(what, right ? 0 : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(q.values), free(k.values), free(v.values);
}

static float *copy(const float *from, int64_t count) {
    float *to = numbers((size_t)count);
    return memcpy(to, from, (size_t)count * sizeof *to);
}

/* A tile after another by each kernel there is, against the same loops. */
static void kernel(int n, int64_t keys, bool masked) {
    enum { QUERIES = TWG_QUERIES, STEPS = 2, MOST_DV = 64 };
    const twg_attention_kernel *kernel = twg_attention_kernel_at(n);
    const int64_t DK = kernel->multiple * (kernel->multiple > 4 ? 3 : 9),
                  DV = kernel->multiple * (kernel->multiple > 4 ? 2 : 11);
    float *q = numbers((size_t)(DK * QUERIES)), *k = numbers((size_t)(STEPS * TWG_KEYS * DK)),
          *v = numbers((size_t)(STEPS * TWG_KEYS * DV)),
          *mask = numbers((size_t)STEPS * TWG_KEYS * QUERIES),
          *scores = numbers((size_t)TWG_KEYS * QUERIES), *out = numbers((size_t)(DV * QUERIES)),
          *turned = numbers((size_t)(DV * TWG_KEYS)), *own_q = copy(q, DK * QUERIES),
          *own_k = copy(k, STEPS * TWG_KEYS * DK), *own_v = copy(v, STEPS * TWG_KEYS * DV),
          most[QUERIES], sum[QUERIES];
    memset(out, 0, sizeof *out * (size_t)(DV * QUERIES));
    memset(sum, 0, sizeof sum);
    for (int i = 0; i < QUERIES; i++) most[i] = -1e30f;
    /* Keys have much in common, as a bias gives them; of some queries the later ones are more. */
    for (int64_t i = 0; i < STEPS * TWG_KEYS; i++) k[i * DK] = own_k[i * DK] += 100;
    for (int64_t i = TWG_KEYS * QUERIES; i < (int64_t)STEPS * TWG_KEYS * QUERIES; i++)
        mask[i] += i % 3 ? 0 : 30;
    for (int step = 0; step < STEPS; step++) {
        const twg_attention_tile tile = {keys,
                                         DK,
                                         DV,
                                         own_k + step * TWG_KEYS * DK,
                                         own_v + step * TWG_KEYS * DV,
                                         turned,
                                         masked ? mask + (ptrdiff_t)step * TWG_KEYS * QUERIES
                                                : NULL,
                                         own_q,
                                         scores,
                                         most,
                                         sum,
                                         out};
        /* Who has a form of values of its own sees to what is behind the last one. */
        for (int64_t i = keys * DV; kernel->keys && i < TWG_KEYS * DV; i++) tile.v[i] = NAN;
        if (!step && kernel->queries) kernel->queries(&tile);
        if (kernel->keys) kernel->keys(&tile);
        kernel->step(&tile);
    }
    double error = 0, signal = 0;
    for (int i = 0; i < QUERIES; i++) {
        double total = 0, y[MOST_DV] = {0};
        for (int step = 0; step < STEPS; step++)
            for (int64_t j = 0; j < keys; j++) {
                int64_t key = step * TWG_KEYS + j;
                double score = masked ? mask[key * QUERIES + i] : 0;
                for (int d = 0; d < DK; d++) score += (double)q[d * QUERIES + i] * k[key * DK + d];
                total += exp2(score);
                for (int d = 0; d < DV; d++) y[d] += exp2(score) * v[key * DV + d];
            }
        for (int d = 0; d < DV; d++) {
            double got = out[d * QUERIES + i] / sum[i];
            error += (y[d] / total - got) * (y[d] / total - got);
            signal += y[d] / total * y[d] / total;
        }
    }
    char what[64];
    snprintf(what, sizeof what, "attention kernel %d, %d keys%s", n, (int)keys,
             masked ? ", masked" : "");
    check_rounded(what, error / signal, kernel->rounds);
    free(q), free(k), free(v), free(mask), free(scores), free(out);
    free(turned), free(own_q), free(own_k), free(own_v);
}

/* The same of few queries, whose keys and values are f16 and lie apart. */
static void few(int n, int queries, int64_t keys, bool masked) {
    enum { DK = 64, DV = 96, APART = 8, STEPS = 3 };
    const twg_attention_kernel *kernel = twg_attention_kernel_at(n);
    int64_t all = STEPS * TWG_FEW_KEYS;
    float *q = numbers((size_t)DK * TWG_FEW), *k = numbers((size_t)(all * (DK + APART))),
          *v = numbers((size_t)(all * (DV + APART))), *mask = numbers((size_t)all * TWG_FEW),
          out[TWG_FEW * DV] = {0}, most[TWG_FEW], sum[TWG_FEW] = {0};
    ggml_fp16_t *k16 = malloc(sizeof *k16 * (size_t)(all * (DK + APART))),
                *v16 = malloc(sizeof *v16 * (size_t)(all * (DV + APART)));
    ggml_fp32_to_fp16_row(k, k16, all * (DK + APART)),
        ggml_fp16_to_fp32_row(k16, k, all * (DK + APART));
    ggml_fp32_to_fp16_row(v, v16, all * (DV + APART)),
        ggml_fp16_to_fp32_row(v16, v, all * (DV + APART));
    for (int i = 0; i < TWG_FEW; i++) most[i] = -1e30f;
    for (int64_t i = 0; i < all * TWG_FEW; i++)
        if (i % TWG_FEW_KEYS >= keys) mask[i] = NAN; /* nobody has written there */
    for (int step = 0; step < STEPS; step++)
        kernel->few(&(twg_attention_few){
            .queries = queries,
            .keys = keys,
            .dk = DK,
            .dv = DV,
            .k = k16 + (ptrdiff_t)step * TWG_FEW_KEYS * (DK + APART),
            .v = v16 + (ptrdiff_t)step * TWG_FEW_KEYS * (DV + APART),
            .k_step = sizeof *k16 * (DK + APART),
            .v_step = sizeof *v16 * (DV + APART),
            .mask = masked ? mask + (ptrdiff_t)step * TWG_FEW_KEYS * TWG_FEW : NULL,
            .q = q,
            .most = most,
            .sum = sum,
            .out = out});
    double error = 0, signal = 0;
    for (int i = 0; i < queries; i++) {
        double total = 0, y[DV] = {0};
        for (int step = 0; step < STEPS; step++)
            for (int64_t j = 0; j < keys; j++) {
                int64_t key = (int64_t)step * TWG_FEW_KEYS + j;
                double score = masked ? mask[(step * TWG_FEW + i) * TWG_FEW_KEYS + j] / log(2) : 0;
                for (int d = 0; d < DK; d++)
                    score += (double)q[i * DK + d] * k[key * (DK + APART) + d];
                total += exp2(score);
                for (int d = 0; d < DV; d++) y[d] += exp2(score) * v[key * (DV + APART) + d];
            }
        for (int d = 0; d < DV; d++) {
            double got = out[i * DV + d] / sum[i];
            error += (y[d] / total - got) * (y[d] / total - got);
            signal += y[d] / total * y[d] / total;
        }
    }
    char what[64];
    snprintf(what, sizeof what, "attention kernel %d, %d queries, %d keys%s", n, queries, (int)keys,
             masked ? ", masked" : "");
    check(what, error / signal);
    free(q), free(k), free(v), free(mask), free(k16), free(v16);
}

/* Keys that the mask closes may hold anything. */
static void behind_the_mask(int64_t tokens) {
    enum { D = 64, KEYS = 40, CLOSED_KEY = 17, MOST = 8 };
    struct ggml_context *context = tensors();
    data q = data_of(context, GGML_TYPE_F32, D, tokens, 1, 1),
         k = data_of(context, GGML_TYPE_F16, D, KEYS, 1, 1),
         v = data_of(context, GGML_TYPE_F16, D, KEYS, 1, 1),
         mask = data_of(context, GGML_TYPE_F16, KEYS, tokens, 1, 1);
    struct ggml_tensor *y =
        ggml_flash_attn_ext(context, q.tensor, k.tensor, v.tensor, mask.tensor, 0.125f, 0, 0);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    for (int64_t i = 0; i < mask.count; i++)
        mask.values[i] = i % KEYS == CLOSED_KEY ? -INFINITY : 0;
    k.values[CLOSED_KEY * D] = v.values[CLOSED_KEY * D] = INFINITY;
    v.values[CLOSED_KEY * D + 1] = NAN;
    set(&q), set(&k), set(&v), set(&mask);
    bool right = compute_twice(graph);
    float out[MOST * D];
    ggml_backend_tensor_get(y, out, 0, ggml_nbytes(y));
    for (int i = 0; i < tokens * D; i++) right = right && isfinite(out[i]);
    check("attention, what is not finite behind the mask", right ? 0 : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(q.values), free(k.values), free(v.values), free(mask.values);
}

static unsigned next(unsigned *seed) { return (*seed = *seed * 1664525u + 1013904223u) >> 16; }

/* What a kernel sees of masks, against a straight loop; rows have something behind their end. */
static void masks(int n) {
    static const uint16_t bits[] = {0xfc00, 0xfc00, 0xfc00, 0, 0, 0x8000, 0xbc00, 0x7e00};
    enum { TOKENS = 6, ROW = TWG_KEYS + 5, TIMES = 2000 };
    const twg_attention_kernel *kernel = twg_attention_kernel_at(n);
    uint16_t mask[TOKENS * ROW];
    unsigned seed = 1;
    bool right = true;
    for (int i = 0; i < TIMES; i++) {
        int keys = 1 + (int)(next(&seed) % TWG_KEYS), tokens = 1 + (int)(next(&seed) % TOKENS);
        /* Of some a token adds nothing, from some key on nobody sees any. */
        int kinds = next(&seed) % 2 ? 8 : 6, end = (int)(next(&seed) % (unsigned)(keys + 1));
        int64_t expected = 0;
        bool plain = true, open;
        for (int at = 0; at < tokens * ROW; at++)
            mask[at] = at % ROW >= keys  ? 0xbc00
                       : at % ROW >= end ? 0xfc00
                                         : bits[3 * (unsigned)(kinds == 6) +
                                                next(&seed) % (unsigned)(kinds == 6 ? 3 : 8)];
        for (int at = 0; at < tokens * ROW; at++)
            if (at % ROW < keys && mask[at] != 0xfc00 && at % ROW >= expected)
                expected = at % ROW + 1;
        for (int at = 0; at < tokens * ROW; at++)
            if (at % ROW < expected && mask[at] & 0x7fff) plain = false;
        int64_t seen = kernel->visible(mask, ROW * sizeof *mask, tokens, keys, &open);
        right = right && seen == expected && open == plain;
    }
    check("attention kernel, masks", right ? 0 : INFINITY);
}

/* Rows side by side and back, any number of queries; and f16, as ggml rounds to it. */
static void turns(int n) {
    enum { LENGTH = 12, MARK = 77 };
    const twg_attention_kernel *kernel = twg_attention_kernel_at(n);
    float *from = numbers(TWG_QUERIES * LENGTH), factors[TWG_QUERIES], to[LENGTH * TWG_QUERIES],
          back[TWG_QUERIES * LENGTH], *rows[TWG_QUERIES];
    uint16_t half[TWG_QUERIES * LENGTH];
    bool right = true;
    for (int queries = 1; queries <= TWG_QUERIES; queries++) {
        const float *given[TWG_QUERIES];
        for (int i = 0; i < TWG_QUERIES * LENGTH; i++) to[i] = back[i] = MARK;
        for (int i = 0; i < queries; i++)
            given[i] = from + (ptrdiff_t)i * LENGTH, rows[i] = back + (ptrdiff_t)i * LENGTH,
            factors[i] = (float)(i + 1);
        kernel->turn(given, queries, LENGTH, 0.5f, to);
        kernel->turn_back(to, queries, LENGTH, factors, rows);
        for (int i = 0; i < TWG_QUERIES; i++)
            for (int d = 0; d < LENGTH; d++) {
                float turned = i < queries ? from[i * LENGTH + d] * 0.5f : MARK;
                right = right && to[d * TWG_QUERIES + i] == turned &&
                        back[i * LENGTH + d] == (i < queries ? turned * factors[i] : MARK);
            }
    }
    for (int count = TWG_QUERIES * LENGTH - 20; count < TWG_QUERIES * LENGTH; count++) {
        half[count] = MARK;
        kernel->to_halves(from, half, count);
        for (int i = 0; i < count; i++) right = right && half[i] == ggml_fp32_to_fp16(from[i]);
        right = right && half[count] == MARK;
    }
    check("attention kernel, rows turned and rounded", right ? 0 : INFINITY);
    free(from);
}

void attentions(void) {
    for (int n = 0; twg_attention_kernel_at(n); n++) {
        masks(n);
        turns(n);
        for (int masked = 0; masked < 2; masked++) {
            kernel(n, TWG_KEYS, masked);
            kernel(n, 13, masked);
            for (int queries = 1; queries <= TWG_FEW; queries++)
                few(n, queries, queries == 2 ? 7 : TWG_FEW_KEYS, masked);
        }
    }
    static const shape shapes[] = {
        {"attention", 64, 64, 4, 4, 63, 64, 1, GGML_TYPE_F16, NOT, false},
        {"attention, heads that share keys, rest of a tile", 64, 64, 6, 2, 45, 77, 1, GGML_TYPE_F16,
         CAUSAL, false},
        {"attention, some see nothing", 40, 40, 4, 2, 40, 200, 1, GGML_TYPE_F16, CLOSED, false},
        {"attention, a mask that adds, two sequences", 80, 80, 3, 3, 33, 129, 2, GGML_TYPE_F16,
         ADDED, false},
        {"attention, sinks", 64, 64, 8, 2, 17, 65, 1, GGML_TYPE_F16, CAUSAL, true},
        {"attention, values shorter than keys", 192, 128, 4, 4, 50, 100, 1, GGML_TYPE_F16, CAUSAL,
         false},
        {"attention, f32 keys", 64, 64, 2, 2, 40, 70, 1, GGML_TYPE_F32, CAUSAL, false},
        {"attention, q8_0 keys", 64, 64, 2, 2, 40, 70, 1, GGML_TYPE_Q8_0, CAUSAL, false},
        {"attention, a token", 64, 64, 9, 3, 1, 256, 1, GGML_TYPE_F16, CAUSAL, false},
        {"attention, a token, no mask", 128, 128, 8, 2, 1, 77, 1, GGML_TYPE_F16, NOT, false},
        {"attention, a token, sinks", 64, 64, 4, 4, 1, 65, 1, GGML_TYPE_F16, CAUSAL, true},
        {"attention, a token, one key head", 64, 64, 40, 1, 1, 600, 1, GGML_TYPE_F16, CAUSAL,
         false},
        {"attention, a token, fewer heads than threads", 64, 64, 1, 1, 1, 70, 1, GGML_TYPE_F16, NOT,
         false},
        {"attention, a token behind many", 64, 64, 9, 3, 1, 700, 1, GGML_TYPE_F16, CAUSAL, false},
        {"attention, a token behind many, no mask", 80, 96, 8, 8, 1, 999, 1, GGML_TYPE_F16, NOT,
         false},
        {"attention, a token behind many, sinks", 64, 64, 12, 2, 1, 700, 1, GGML_TYPE_F16, ADDED,
         true},
        {"attention, a token to which early ones count most", 64, 64, 9, 3, 1, 700, 1,
         GGML_TYPE_F16, STEEP, false},
        {"attention, a token and a window", 64, 64, 9, 3, 1, 700, 1, GGML_TYPE_F16, WINDOW, false},
        {"attention, a token that sees the first", 64, 64, 9, 3, 1, 700, 1, GGML_TYPE_F16, FIRST,
         false},
        {"attention, seven tokens behind many", 80, 64, 6, 2, 7, 800, 1, GGML_TYPE_F16, CLOSED,
         false},
        {"attention, seven tokens and a window", 80, 64, 6, 2, 7, 1500, 1, GGML_TYPE_F16, WINDOW,
         true},
        {"attention, two of three sequences behind many", 64, 64, 8, 2, 2, 700, 3, GGML_TYPE_F16,
         CAUSAL, false},
        {"attention, seven tokens", 80, 64, 6, 2, 7, 200, 1, GGML_TYPE_F16, CLOSED, false},
        {"attention, two tokens of three sequences", 192, 128, 8, 2, 2, 100, 3, GGML_TYPE_F16,
         ADDED, false},
        {"attention, long", 128, 128, 2, 1, 300, 900, 1, GGML_TYPE_F16, CAUSAL, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) attention(&shapes[i]);
    attention(&(shape){"attention, a token that sees nothing", 64, 64, 9, 3, 1, 700, 1,
                       GGML_TYPE_F16, NOTHING, false});
    not_finite("attention, a query that is not a number", 40, 7, NAN);
    not_finite("attention, a query that is infinite", 40, 7, INFINITY);
    not_finite("attention, one of few that is not a number", 6, 2, NAN);
    behind_the_mask(1);
    behind_the_mask(6);
    /* ggml takes 0 for as many threads as its pool has. */
    ggml_backend_set_n_threads_t set_n_threads =
        (ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(ggml_backend_get_device(backend)),
            "ggml_backend_set_n_threads");
    set_n_threads(backend, 0);
    attention(&(shape){"attention, no number of threads", 64, 64, 2, 2, 70, 70, 1, GGML_TYPE_F16,
                       CAUSAL, false});
    set_n_threads(backend, GGML_DEFAULT_N_THREADS);
}
