/* Two products of one x, the second in the place that the first one had: done together, and the
 * second one's result where nobody sees it; or where it belongs, if somebody reads it there. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/tests/test.h"

enum { K = 64, TOKENS = 3, FAR = 30 };

/* Who reads the second: a node, through a view; besides, the host, a view that has no source, a
 * node far away; nobody; nobody but through a view that is a result; or a node, but it is large. */
typedef enum reader { NEAR, HOST, HIDDEN_VIEW, FAR_AWAY, NOBODY, ONLY_A_VIEW, OF_LARGE } reader;

static void set(struct ggml_tensor *t, const float *values) {
    ggml_backend_tensor_set(t, values, 0, ggml_nbytes(t));
}

static void product(const float *w, const float *x, int64_t N, double *y) {
    for (int64_t i = 0; i < N * TOKENS; i++) {
        y[i] = 0;
        for (int k = 0; k < K; k++) y[i] += (double)w[i % N * K + k] * (double)x[i / N * K + k];
    }
}

/* Squared, over the signal's. */
static double error_of(const struct ggml_tensor *t, const double *truth, double factor) {
    float *got = malloc(ggml_nbytes(t));
    double error = 0, signal = 0;
    ggml_backend_tensor_get(t, got, 0, ggml_nbytes(t));
    for (int64_t i = 0; i < ggml_nelements(t); i++) {
        double right = truth[i] * factor, off = (double)got[i] - right;
        error += off * off;
        signal += right * right;
    }
    free(got);
    return error / signal;
}

static void beside(const char *what, reader reader) {
    int64_t N = reader == OF_LARGE ? 8192 : 48;
    bool moves = reader == NEAR;
    struct ggml_context *context = tensors(), *weights_context = tensors();
    struct ggml_tensor *wq = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N),
                       *wv = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N);
    ggml_backend_buffer_t weights = ggml_backend_alloc_ctx_tensors(weights_context, backend);
    ggml_backend_buffer_set_usage(weights, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, TOKENS),
                       *q = ggml_mul_mat(context, wq, x), *rotated = ggml_scale(context, q, 2),
                       *v = ggml_mul_mat(context, wv, x),
                       *view = ggml_reshape_3d(context, v, N / 4, 4, TOKENS),
                       *result = ggml_scale(context, view, 3), *other = rotated;
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, rotated);
    ggml_build_forward_expand(graph, v);
    if (reader == HOST) ggml_set_output(v);
    if (reader == ONLY_A_VIEW) ggml_build_forward_expand(graph, view);
    if (reader != NOBODY && reader != ONLY_A_VIEW) ggml_build_forward_expand(graph, result);
    for (int i = 0; i < FAR && reader == FAR_AWAY; i++) other = ggml_scale(context, other, 1);
    if (reader == FAR_AWAY) other = ggml_add(context, other, v);
    if (reader == HIDDEN_VIEW) other = ggml_scale(context, ggml_view_tensor(context, v), 5);
    ggml_build_forward_expand(graph, other);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    v->data = view->data = q->data;
    if (reader == HIDDEN_VIEW) other->src[0]->data = q->data;
    float *a = numbers((size_t)(K * N)), *b = numbers((size_t)(K * N) + 7),
          *given = numbers(K * TOKENS);
    double *queries = malloc((size_t)(N * TOKENS) * sizeof *queries),
           *values = malloc((size_t)(N * TOKENS) * sizeof *values);
    set(wq, a), set(wv, b + 7), set(x, given);
    product(a, given, N, queries), product(b + 7, given, N, values);
    double error = INFINITY;
    if (ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS) {
        error = fmax(error_of(rotated, queries, 2), error_of(v, moves ? queries : values, 1));
        if (reader != NOBODY && reader != ONLY_A_VIEW)
            error = fmax(error, error_of(result, values, 3));
        if (reader == HIDDEN_VIEW) error = fmax(error, error_of(other, values, 5));
        for (int64_t i = 0; i < N * TOKENS; i++) queries[i] = 2 * queries[i] + values[i];
        if (reader == FAR_AWAY) error = fmax(error, error_of(other, queries, 1));
    }
    check(what, v->data == q->data && view->data == q->data ? error : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(context);
    ggml_free(weights_context);
    free(a), free(b), free(given), free(queries), free(values);
}

void moves(void) {
    beside("beside queries, values that nobody sees", NEAR);
    beside("beside queries, the host reads them", HOST);
    beside("beside queries, a view of no source", HIDDEN_VIEW);
    beside("beside queries, a node far away", FAR_AWAY);
    beside("beside queries, a result", NOBODY);
    beside("beside queries, a view is a result", ONLY_A_VIEW);
    beside("beside queries, large", OF_LARGE);
}
