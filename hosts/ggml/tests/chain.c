/* A small language model by us beside ggml's CPU backend: for few tokens its operations are chains,
 * for many they are not, and its memory is shared out by ggml's allocator. */
#include <ggml-alloc.h>
#include <ggml-impl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "hosts/ggml/tests/test.h"

enum {
    LAYERS = 4, /* of 8 operations that are ours, and one that is not in some */
    D = 16,
    HEADS = 6,
    KEY_HEADS = 3,
    WIDTH = D * HEADS,
    KEYS_WIDTH = D * KEY_HEADS,
    HIDDEN = 160,
    CONTEXT = 96,
    BEFORE = 20, /* tokens that are in the caches already */
    MATRICES = 7
};

typedef struct model {
    struct ggml_context *weights_context, *others_context, *context;
    ggml_backend_buffer_t weights_buffer, others_buffer;
    ggml_gallocr_t allocator;
    struct ggml_tensor *w[LAYERS][MATRICES], *norms[LAYERS][2], *k[LAYERS], *v[LAYERS];
    struct ggml_tensor *x, *positions, *places, *mask, *y;
    struct ggml_cgraph *graph;
} model;

static void set_random(struct ggml_tensor *t, unsigned seed, float most) {
    size_t count = (size_t)ggml_nelements(t);
    float *values = malloc(count * sizeof *values);
    void *raw = malloc(ggml_nbytes(t));
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = ((float)(seed >> 8) / (1 << 23) - 1) * most;
    }
    ggml_quantize_chunk(t->type, values, raw, 0, (int64_t)count / t->ne[0], t->ne[0], NULL);
    ggml_backend_tensor_set(t, raw, 0, ggml_nbytes(t));
    free(values), free(raw);
}

static void make_weights(model *m, ggml_backend_t with) {
    static const int64_t shapes[MATRICES][2] = {
        {WIDTH, WIDTH},  {WIDTH, KEYS_WIDTH}, {WIDTH, KEYS_WIDTH}, {WIDTH, WIDTH},
        {WIDTH, HIDDEN}, {WIDTH, HIDDEN},     {HIDDEN, WIDTH}};
    m->weights_context = tensors();
    m->others_context = tensors();
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < MATRICES; i++)
            m->w[l][i] =
                ggml_new_tensor_2d(m->weights_context, GGML_TYPE_F32, shapes[i][0], shapes[i][1]);
        for (int i = 0; i < 2; i++)
            m->norms[l][i] = ggml_new_tensor_1d(m->others_context, GGML_TYPE_F32, WIDTH);
        m->k[l] = ggml_new_tensor_2d(m->others_context, GGML_TYPE_F16, KEYS_WIDTH, CONTEXT);
        m->v[l] = ggml_new_tensor_2d(m->others_context, GGML_TYPE_F16, KEYS_WIDTH, CONTEXT);
    }
    m->weights_buffer = ggml_backend_alloc_ctx_tensors(m->weights_context, with);
    ggml_backend_buffer_set_usage(m->weights_buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    m->others_buffer = ggml_backend_alloc_ctx_tensors(m->others_context, with);
    unsigned seed = 1;
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < MATRICES; i++) set_random(m->w[l][i], seed++, 0.2f);
        for (int i = 0; i < 2; i++) set_random(m->norms[l][i], seed++, 2);
        set_random(m->k[l], seed++, 1), set_random(m->v[l], seed++, 1);
    }
}

static struct ggml_tensor *norm(struct ggml_context *c, struct ggml_tensor *x,
                                struct ggml_tensor *weights) {
    return ggml_mul(c, ggml_rms_norm(c, x, 1e-5f), weights);
}

static struct ggml_tensor *cached(struct ggml_context *c, struct ggml_tensor *cache) {
    struct ggml_tensor *view =
        ggml_view_3d(c, cache, D, KEY_HEADS, CONTEXT, ggml_row_size(cache->type, D),
                     ggml_row_size(cache->type, KEYS_WIDTH), 0);
    return ggml_permute(c, view, 0, 2, 1, 3);
}

static struct ggml_tensor *layer(model *m, int l, struct ggml_tensor *x, int tokens) {
    struct ggml_context *c = m->context;
    struct ggml_tensor *const *w = m->w[l], *in = norm(c, x, m->norms[l][0]),
                              *q = ggml_mul_mat(c, w[0], in), *k = ggml_mul_mat(c, w[1], in),
                              *v = ggml_mul_mat(c, w[2], in);
    q = ggml_rope(c, ggml_reshape_3d(c, q, D, HEADS, tokens), m->positions, D, 0);
    k = ggml_rope(c, ggml_reshape_3d(c, k, D, KEY_HEADS, tokens), m->positions, D, 0);
    ggml_build_forward_expand(m->graph, q);
    ggml_build_forward_expand(m->graph, v);
    ggml_build_forward_expand(m->graph, k);
    k = ggml_reshape_2d(c, k, KEYS_WIDTH, tokens);
    ggml_build_forward_expand(m->graph, ggml_set_rows(c, m->k[l], k, m->places));
    ggml_build_forward_expand(m->graph, ggml_set_rows(c, m->v[l], v, m->places));
    struct ggml_tensor *attended =
        ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), cached(c, m->k[l]),
                            cached(c, m->v[l]), m->mask, 0.25f, 0, 0);
    x = ggml_add(c, ggml_mul_mat(c, w[3], ggml_reshape_2d(c, attended, WIDTH, tokens)), x);
    in = norm(c, x, m->norms[l][1]);
    struct ggml_tensor *gate = ggml_mul_mat(c, w[4], in), *up = ggml_mul_mat(c, w[5], in);
    return ggml_add(c, ggml_mul_mat(c, w[6], ggml_swiglu_split(c, gate, up)), x);
}

static model model_of(ggml_backend_t with, int tokens) {
    model m = {.context = tensors()};
    struct ggml_context *c = m.context;
    make_weights(&m, with);
    m.x = ggml_new_tensor_2d(c, GGML_TYPE_F32, WIDTH, tokens);
    m.positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, tokens);
    m.places = ggml_new_tensor_1d(c, GGML_TYPE_I64, tokens);
    m.mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, CONTEXT, tokens);
    struct ggml_tensor *const inputs[] = {m.x, m.positions, m.places, m.mask};
    for (int i = 0; i < 4; i++) ggml_set_input(inputs[i]);
    m.graph = ggml_new_graph(c);
    m.y = m.x;
    for (int l = 0; l < LAYERS; l++) {
        m.y = layer(&m, l, m.y, tokens);
        if (l % 2) m.y = ggml_scale(c, m.y, 0.5f);
    }
    ggml_set_output(m.y);
    ggml_build_forward_expand(m.graph, m.y);
    m.allocator = ggml_gallocr_new(ggml_backend_get_default_buffer_type(with));
    GGML_ASSERT(ggml_gallocr_alloc_graph(m.allocator, m.graph));
    return m;
}

static void release(model *m) {
    ggml_gallocr_free(m->allocator);
    ggml_backend_buffer_free(m->others_buffer);
    ggml_backend_buffer_free(m->weights_buffer);
    ggml_free(m->context);
    ggml_free(m->others_context);
    ggml_free(m->weights_context);
}

/* Tokens behind those before; times: as often, of tokens one behind the other. */
static void compute(model *m, ggml_backend_t with, int tokens, int times, float *y) {
    m->graph->uid = ggml_graph_next_uid();
    for (int t = 0; t < times; t++, y += WIDTH * tokens) {
        int first = BEFORE + t * tokens;
        int32_t positions[CONTEXT];
        int64_t places[CONTEXT];
        ggml_fp16_t mask[CONTEXT * CONTEXT];
        for (int i = 0; i < tokens; i++) {
            positions[i] = first + i;
            places[i] = first + i;
            for (int key = 0; key < CONTEXT; key++)
                mask[i * CONTEXT + key] = ggml_fp32_to_fp16(key <= first + i ? 0 : -INFINITY);
        }
        set_random(m->x, 99 + (unsigned)t, 1);
        ggml_backend_tensor_set(m->positions, positions, 0, ggml_nbytes(m->positions));
        ggml_backend_tensor_set(m->places, places, 0, ggml_nbytes(m->places));
        ggml_backend_tensor_set(m->mask, mask, 0, ggml_nbytes(m->mask));
        if (ggml_backend_graph_compute(with, m->graph) != GGML_STATUS_SUCCESS) y[0] = NAN;
        ggml_backend_tensor_get(m->y, y, 0, ggml_nbytes(m->y));
    }
}

static void case_of(const char *what, int tokens, int times) {
    ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, NULL);
    model ours = model_of(backend, tokens), theirs = model_of(cpu, tokens);
    size_t count = (size_t)(WIDTH * tokens * times);
    float *got = malloc(count * sizeof *got), *truth = malloc(count * sizeof *truth);
    double error = 0, signal = 0;
    compute(&ours, backend, tokens, times, got);
    compute(&theirs, cpu, tokens, times, truth);
    for (size_t i = 0; i < count; i++) {
        double off = (double)got[i] - (double)truth[i];
        error += off * off;
        signal += (double)truth[i] * (double)truth[i];
    }
    /* ggml rounds what it multiplies by to f16 in its attention. */
    double most = tokens > 8 && attention_rounds() ? 1e-4 : 1e-5;
    check(what, error / signal < most ? 0 : error / signal);
    release(&ours), release(&theirs);
    ggml_backend_free(cpu);
    free(got), free(truth);
}

/* Operations of no numbers before a product: ggml looks at the first of a chain only. */
static void behind_empty(const char *what, bool normed) {
    enum { N = 5 };
    struct ggml_context *c = tensors(), *weights_context = tensors();
    struct ggml_tensor *w = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, D, N);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *none = ggml_new_tensor_2d(c, GGML_TYPE_F32, D, 0),
                       *by = ggml_new_tensor_1d(c, GGML_TYPE_F32, D),
                       *x = ggml_new_tensor_1d(c, GGML_TYPE_F32, D), *y = ggml_mul_mat(c, w, x);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, normed ? norm(c, none, by) : ggml_swiglu_split(c, none, none));
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    set_random(w, 1, 1), set_random(x, 2, 1);
    float of[N * D], in[D], out[N], error = 0;
    ggml_backend_tensor_get(x, in, 0, sizeof in);
    bool done = compute_twice(graph);
    ggml_backend_tensor_get(y, out, 0, sizeof out);
    for (unsigned i = 0, seed = 1; i < N * D; i++) {
        seed = seed * 1664525u + 1013904223u;
        of[i] = (float)(seed >> 8) / (1 << 23) - 1;
    }
    for (int n = 0; n < N; n++) {
        float sum = 0;
        for (int k = 0; k < D; k++) sum += of[n * D + k] * in[k];
        error = fmaxf(error, fabsf(sum - out[n]));
    }
    check(what, done ? (double)(error * error) : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(c);
    ggml_free(weights_context);
}

void chains(void) {
    behind_empty("behind a norm of nothing", true);
    behind_empty("behind a SWIGLU of nothing", false);
    case_of("a model, one token at a time", 1, 8);
    case_of("a model, eight tokens", 8, 2);
    case_of("a model, nine tokens", 9, 2);
    case_of("a model, a prompt", 40, 1);
}
