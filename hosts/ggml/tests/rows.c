/* What a graph's GET_ROWS does not take of a product, of the attention before it and of its queries
 * is left out, and what it takes is right; where somebody else reads the rest, that is there. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/tests/test.h"

enum { D = 64, HEADS = 4, KEY_HEADS = 2, TOKENS = 40, WIDTH = D * HEADS, OUT = 70, MOST_IDS = 4 };

/* Who else reads the product, or why it is not known which rows are taken; STREAMS: each token has
 * a sequence of its own, so that attention has no range of them. */
typedef enum reader {
    NOBODY,
    HOST,
    NODE,
    VIEW,
    COMPUTED_IDS,
    WRITTEN_IDS,
    STREAMS,
    ALL,
    ALL_STREAMS
} reader;

typedef struct layer {
    reader reader;
    struct ggml_context *context, *weights_context;
    ggml_backend_buffer_t buffer, weights_buffer;
    struct ggml_cgraph *graph;
    struct ggml_tensor *wq, *wo, *x, *positions, *k, *v, *mask, *ids, *given; /* leaves */
    struct ggml_tensor *q, *attended, *y, *taken;
    struct ggml_tensor *beside; /* q's sister, which all read, as keys are */
} layer;

static const float untouched = 12345;

/* As llama.cpp has the end of its last layer's attention. */
static layer layer_of(int count, reader reader) {
    layer l = {.reader = reader, .context = tensors(), .weights_context = tensors()};
    struct ggml_context *c = l.context;
    bool streams = reader == STREAMS || reader == ALL_STREAMS;
    int sequences = streams ? TOKENS : 1, each = TOKENS / sequences;
    l.wq = ggml_new_tensor_2d(l.weights_context, GGML_TYPE_F32, WIDTH, WIDTH);
    l.wo = ggml_new_tensor_2d(l.weights_context, GGML_TYPE_F32, WIDTH, OUT);
    l.weights_buffer = alloc_weights(l.weights_context);
    l.x = ggml_new_tensor_2d(c, GGML_TYPE_F32, WIDTH, TOKENS);
    l.positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, TOKENS);
    l.k = ggml_new_tensor_4d(c, GGML_TYPE_F16, D, TOKENS, KEY_HEADS, sequences);
    l.v = ggml_new_tensor_4d(c, GGML_TYPE_F16, D, TOKENS, KEY_HEADS, sequences);
    l.mask = ggml_new_tensor_4d(c, GGML_TYPE_F16, TOKENS, each, 1, sequences);
    l.ids = ggml_new_tensor_1d(c, GGML_TYPE_I32, count);
    l.given = ggml_new_tensor_1d(c, GGML_TYPE_I32, count);
    l.q = ggml_mul_mat(c, l.wq, l.x);
    l.beside = ggml_mul_mat(c, l.wo, l.x);
    struct ggml_tensor *turned =
        ggml_rope(c, ggml_reshape_3d(c, l.q, D, HEADS, TOKENS), l.positions, D, 0);
    struct ggml_tensor *view = ggml_view_4d(c, turned, D, HEADS, each, sequences, turned->nb[1],
                                            turned->nb[2], turned->nb[2] * (size_t)each, 0);
    l.attended =
        ggml_flash_attn_ext(c, ggml_permute(c, view, 0, 2, 1, 3), l.k, l.v, l.mask, 0.125f, 0, 0);
    l.y = ggml_mul_mat(c, l.wo, ggml_reshape_2d(c, l.attended, WIDTH, TOKENS));
    l.graph = ggml_new_graph(c);
    ggml_build_forward_expand(l.graph, l.q);
    ggml_build_forward_expand(l.graph, l.beside);
    if (reader == WRITTEN_IDS) ggml_build_forward_expand(l.graph, ggml_cpy(c, l.given, l.ids));
    if (reader == HOST) ggml_set_output(l.y);
    if (reader == ALL || reader == ALL_STREAMS)
        l.taken = l.y;
    else
        l.taken = ggml_get_rows(c, l.y, reader == COMPUTED_IDS ? ggml_dup(c, l.ids) : l.ids);
    ggml_build_forward_expand(l.graph, l.taken);
    if (reader == NODE) ggml_build_forward_expand(l.graph, ggml_scale(c, l.y, 2));
    if (reader == VIEW)
        ggml_build_forward_expand(l.graph, ggml_scale(c, ggml_view_tensor(c, l.y), 2));
    l.buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    return l;
}

static void set_floats(struct ggml_tensor *t, unsigned seed) {
    size_t count = (size_t)ggml_nelements(t);
    float *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(seed >> 8) / (1 << 23) - 1;
    }
    void *raw = malloc(ggml_nbytes(t));
    ggml_quantize_chunk(t->type, values, raw, 0, (int64_t)count / t->ne[0], t->ne[0], NULL);
    ggml_backend_tensor_set(t, raw, 0, ggml_nbytes(t));
    free(values), free(raw);
}

static void fill(struct ggml_tensor *t) {
    for (size_t i = 0; i < ggml_nbytes(t); i += sizeof untouched)
        ggml_backend_tensor_set(t, &untouched, i, sizeof untouched);
}

static bool compute(layer *l, const int32_t *ids, int count) {
    int32_t positions[TOKENS];
    ggml_fp16_t mask[TOKENS * TOKENS];
    for (int i = 0; i < TOKENS; i++) positions[i] = i;
    for (int i = 0; i < TOKENS * TOKENS; i++)
        mask[i] = ggml_fp32_to_fp16(i % TOKENS > i / TOKENS ? -INFINITY : 0);
    set_floats(l->wq, 1), set_floats(l->wo, 2), set_floats(l->x, 3);
    set_floats(l->k, 4), set_floats(l->v, 5);
    ggml_backend_tensor_set(l->positions, positions, 0, sizeof positions);
    ggml_backend_tensor_set(l->mask, mask, 0, sizeof mask);
    ggml_backend_tensor_set(l->given, ids, 0, (size_t)count * sizeof *ids);
    if (l->reader != WRITTEN_IDS)
        ggml_backend_tensor_set(l->ids, ids, 0, (size_t)count * sizeof *ids);
    else
        ggml_backend_tensor_memset(l->ids, 0, 0, (size_t)count * sizeof *ids);
    fill(l->q), fill(l->beside), fill(l->attended), fill(l->y);
    return compute_twice(l->graph);
}

static void release(layer *l) {
    ggml_backend_buffer_free(l->buffer);
    ggml_backend_buffer_free(l->weights_buffer);
    ggml_free(l->context);
    ggml_free(l->weights_context);
}

/* Whether of a tensor's tokens all in [first, end), and no others, are computed. */
static bool only(const struct ggml_tensor *t, int first, int end) {
    float *values = malloc(ggml_nbytes(t));
    size_t each = ggml_nbytes(t) / sizeof *values / TOKENS;
    bool right = true;
    ggml_backend_tensor_get(t, values, 0, ggml_nbytes(t));
    for (size_t i = 0; i < each * TOKENS; i++) {
        int token = (int)(i / each);
        right = right && (values[i] != untouched) == (token >= first && token < end);
    }
    free(values);
    return right;
}

/* Of a reader's layer without GET_ROWS. */
static float truth[TOKENS][OUT];

static void find_truth(reader reader) {
    const int32_t any = 0;
    layer l = layer_of(1, reader);
    bool right = compute(&l, &any, 1) && only(l.q, 0, TOKENS) && only(l.attended, 0, TOKENS) &&
                 only(l.y, 0, TOKENS);
    ggml_backend_tensor_get(l.y, truth, 0, sizeof truth);
    check("rows, all of them", right ? 0 : INFINITY);
    release(&l);
}

/* ids: as many as are not negative; of y and of attention those in [first, end) are to be computed.
 */
static void rows(const char *what, const int32_t ids[MOST_IDS], reader reader, int first, int end) {
    int count = 0;
    while (count < MOST_IDS && ids[count] >= 0) count++;
    layer l = layer_of(count, reader);
    int from = reader == STREAMS ? 0 : first, to = reader == STREAMS ? TOKENS : end;
    bool right = compute(&l, ids, count) && only(l.q, from, to) && only(l.attended, from, to) &&
                 only(l.y, first, end) && only(l.beside, 0, TOKENS);
    float got[MOST_IDS][OUT];
    double error = 0, signal = 1e-30;
    ggml_backend_tensor_get(l.taken, got, 0, ggml_nbytes(l.taken));
    for (int i = 0; i < count; i++)
        for (int n = 0; n < OUT; n++) {
            double is = (double)truth[ids[i]][n], off = (double)got[i][n] - is;
            error += off * off;
            signal += is * is;
        }
    /* Attention of one row, which is taken alone, may be more exact than of all. */
    check_rounded(what, right ? error / signal : INFINITY, attention_rounds());
    release(&l);
}

/* Of x [D, HEADS, TOKENS] the product is of several matrices, whose rows are heads. */
static void rows_of_matrices(void) {
    struct ggml_context *context = tensors(), *weights_context = tensors();
    struct ggml_tensor *w = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, D, OUT);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *x = ggml_new_tensor_3d(context, GGML_TYPE_F32, D, HEADS, TOKENS),
                       *ids = ggml_new_tensor_1d(context, GGML_TYPE_I32, 1),
                       *y = ggml_mul_mat(context, w, x),
                       *flat = ggml_reshape_2d(context, y, (int64_t)OUT * HEADS, TOKENS);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, ggml_get_rows(context, flat, ids));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    const int32_t id = 7;
    set_floats(w, 1), set_floats(x, 2), fill(y);
    ggml_backend_tensor_set(ids, &id, 0, sizeof id);
    bool right = compute_twice(graph);
    check("rows, of several matrices", right && only(y, 0, TOKENS) ? 0 : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(context);
    ggml_free(weights_context);
}

void rows_read(void) {
    const int32_t last[MOST_IDS] = {TOKENS - 1, -1}, some[MOST_IDS] = {9, 4, 9, 7},
                  most[MOST_IDS] = {38, 1, -1}, none[MOST_IDS] = {-1};
    find_truth(ALL);
    rows("rows, the last one", last, NOBODY, TOKENS - 1, TOKENS);
    rows("rows, some between, one twice", some, NOBODY, 4, 10);
    rows("rows, enough for tiles of queries", most, NOBODY, 1, 39);
    rows("rows, none", none, NOBODY, 0, 0);
    rows("rows, the host reads others", last, HOST, 0, TOKENS);
    rows("rows, a node reads others", last, NODE, 0, TOKENS);
    rows("rows, a view of no source reads others", last, VIEW, 0, TOKENS);
    rows("rows, the graph computes which", last, COMPUTED_IDS, 0, TOKENS);
    rows("rows, the graph writes which", last, WRITTEN_IDS, 0, TOKENS);
    rows_of_matrices();
    find_truth(ALL_STREAMS);
    rows("rows, tokens of a sequence each", some, STREAMS, 4, 10);
}
