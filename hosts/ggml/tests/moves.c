/* Two products of one x, the second in the place that the first one had: done together, and the
 * second one's result where nobody sees it; or where it belongs, if somebody reads it there. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/tests/test.h"

enum { K = 64, TOKENS = 3, FAR = 30 };

/* Who reads the second: a node, through a view; through a chain of views of which there are many;
 * a node, but the last of the graph; besides, the host, a view that has no source, a node far away;
 * nobody; nobody but through a view that is a result; or a node, but it is large. */
typedef enum reader {
    NEAR,
    MANY_VIEWS,
    THE_LAST,
    HOST,
    HIDDEN_VIEW,
    FAR_AWAY,
    NOBODY,
    ONLY_A_VIEW,
    OF_LARGE
} reader;

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

/* A view of a view of .. v. */
static struct ggml_tensor *views_of(struct ggml_context *context, struct ggml_tensor *v,
                                    int count) {
    int64_t each = v->ne[0] / 4;
    while (count--) v = ggml_reshape_3d(context, v, each, 4, TOKENS);
    return v;
}

static void beside(const char *what, reader reader) {
    int64_t N = reader == OF_LARGE ? 8192 : 48;
    bool moves = reader == NEAR, read = reader != NOBODY && reader != ONLY_A_VIEW;
    struct ggml_context *context = tensors(), *weights_context = tensors();
    struct ggml_tensor *wq = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N),
                       *wv = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, TOKENS),
                       *q = ggml_mul_mat(context, wq, x), *rotated = ggml_scale(context, q, 2),
                       *v = ggml_mul_mat(context, wv, x),
                       *view = views_of(context, v, reader == MANY_VIEWS ? 6 : 1),
                       *result = ggml_scale(context, view, 3), *other = rotated;
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, rotated);
    ggml_build_forward_expand(graph, v);
    if (reader == HOST) ggml_set_output(v);
    if (reader == ONLY_A_VIEW) ggml_build_forward_expand(graph, view);
    if (read) ggml_build_forward_expand(graph, result);
    for (int i = 0; i < FAR && reader == FAR_AWAY; i++) other = ggml_scale(context, other, 1);
    if (reader == FAR_AWAY) other = ggml_add(context, other, v);
    if (reader == HIDDEN_VIEW) other = ggml_scale(context, ggml_view_tensor(context, v), 5);
    ggml_build_forward_expand(graph, other);
    struct ggml_tensor *last = ggml_scale(context, x, 1);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    for (struct ggml_tensor *t = view; t != x; t = t == v ? x : t->src[0]) t->data = q->data;
    if (reader == HIDDEN_VIEW) other->src[0]->data = q->data;
    if (reader != THE_LAST) ggml_build_forward_expand(graph, last);
    float *a = numbers((size_t)(K * N)), *b = numbers((size_t)(K * N) + 7),
          *given = numbers(K * TOKENS);
    double *queries = malloc((size_t)(N * TOKENS) * sizeof *queries),
           *values = malloc((size_t)(N * TOKENS) * sizeof *values);
    set(wq, a), set(wv, b + 7), set(x, given);
    product(a, given, N, queries), product(b + 7, given, N, values);
    double error = INFINITY;
    if (compute_twice(graph)) {
        error = fmax(error_of(rotated, queries, 2), error_of(v, moves ? queries : values, 1));
        if (read) error = fmax(error, error_of(result, values, 3));
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

/* Of some tokens, 40 KB each, in one place: more than there is room for at a time. */
static void many(void) {
    enum { MANY = 30, N = 3400 };
    struct ggml_context *context = tensors(), *weights_context = tensors();
    struct ggml_tensor *w = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *x[MANY], *q[MANY], *rotated[MANY], *v[MANY], *sum[MANY];
    struct ggml_cgraph *graph = ggml_new_graph(context);
    for (int i = 0; i < MANY; i++) {
        x[i] = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, TOKENS);
        q[i] = ggml_mul_mat(context, w, x[i]);
        rotated[i] = ggml_scale(context, q[i], 2);
        v[i] = ggml_mul_mat(context, w, x[i]);
        ggml_build_forward_expand(graph, rotated[i]);
        ggml_build_forward_expand(graph, v[i]);
        /* Two of them are alive at a time. */
        if (i % 2) sum[i - 1] = ggml_add(context, rotated[i - 1], v[i - 1]);
        if (i % 2) sum[i] = ggml_add(context, rotated[i], v[i]);
        if (i % 2) ggml_build_forward_expand(graph, sum[i - 1]);
        if (i % 2) ggml_build_forward_expand(graph, sum[i]);
    }
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    for (int i = 0; i < MANY; i++) v[i]->data = q[i]->data;
    float *a = numbers(K * N), *given = numbers(K * TOKENS + MANY);
    double *truth = malloc(sizeof *truth * N * TOKENS), error = 0;
    set(w, a);
    for (int i = 0; i < MANY; i++) set(x[i], given + i);
    if (!compute_twice(graph)) error = INFINITY;
    for (int i = 0; i < MANY; i++) {
        product(a, given + i, N, truth);
        error = fmax(error, error_of(sum[i], truth, 3));
    }
    check("beside queries, many values", error);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(context);
    ggml_free(weights_context);
    free(a), free(given), free(truth);
}

/* Between two products of it x becomes another. */
static void changed(void) {
    enum { N = 48 };
    struct ggml_context *context = tensors(), *weights_context = tensors();
    struct ggml_tensor *w = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, N);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, TOKENS),
                       *first = ggml_mul_mat(context, w, x),
                       *doubled = ggml_scale_inplace(context, x, 2),
                       *second = ggml_mul_mat(context, w, x),
                       *halved = ggml_scale_inplace(context, x, 0.5f);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, first);
    ggml_build_forward_expand(graph, doubled);
    ggml_build_forward_expand(graph, second);
    ggml_build_forward_expand(graph, halved);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    float *a = numbers(K * N), *given = numbers(K * TOKENS);
    double truth[N * TOKENS];
    set(w, a), set(x, given);
    product(a, given, N, truth);
    check("beside queries, of another x by then",
          compute_twice(graph) ? fmax(error_of(first, truth, 1), error_of(second, truth, 2))
                               : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(context);
    ggml_free(weights_context);
    free(a), free(given);
}

void moves(void) {
    beside("beside queries, values that nobody sees", NEAR);
    beside("beside queries, many views", MANY_VIEWS);
    beside("beside queries, the graph's last node reads them", THE_LAST);
    beside("beside queries, the host reads them", HOST);
    beside("beside queries, a view of no source", HIDDEN_VIEW);
    beside("beside queries, a node far away", FAR_AWAY);
    beside("beside queries, a result", NOBODY);
    beside("beside queries, a view is a result", ONLY_A_VIEW);
    beside("beside queries, large", OF_LARGE);
    many();
    changed();
}
