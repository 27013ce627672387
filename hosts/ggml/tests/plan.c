/* What is planned for a graph is kept for as long as ggml gives it the same number: whatever else
 * has changed in between must show in what is computed. */
#include <ggml-impl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "hosts/ggml/tests/test.h"

enum { K = 64, N = 48, TOKENS = 5 };

/* y = w * x, and maybe some row of it. */
typedef struct layer {
    struct ggml_context *context, *weights_context;
    ggml_backend_buffer_t buffer, weights;
    struct ggml_tensor *w, *x, *ids, *y, *taken;
    struct ggml_cgraph *graph;
} layer;

static layer layer_of(bool takes) {
    layer l = {.context = tensors(), .weights_context = tensors()};
    l.w = ggml_new_tensor_2d(l.weights_context, GGML_TYPE_F32, K, N);
    l.weights = alloc_weights(l.weights_context);
    l.x = ggml_new_tensor_2d(l.context, GGML_TYPE_F32, K, TOKENS);
    l.ids = ggml_new_tensor_1d(l.context, GGML_TYPE_I32, 1);
    l.y = ggml_mul_mat(l.context, l.w, l.x);
    l.taken = takes ? ggml_get_rows(l.context, l.y, l.ids) : l.y;
    l.graph = ggml_new_graph(l.context);
    ggml_build_forward_expand(l.graph, l.taken);
    l.buffer = ggml_backend_alloc_ctx_tensors(l.context, backend);
    l.graph->uid = ggml_graph_next_uid();
    return l;
}

static void release(layer *l) {
    ggml_backend_buffer_free(l->buffer);
    ggml_backend_buffer_free(l->weights);
    ggml_free(l->context);
    ggml_free(l->weights_context);
}

static void set(struct ggml_tensor *t, const void *values) {
    ggml_backend_tensor_set(t, values, 0, ggml_nbytes(t));
}

/* Of row `id`, which is the one that is taken if one is. */
static double error_of(layer *l, const float *w, const float *x, int32_t id) {
    float got[N];
    size_t from = l->taken == l->y ? (size_t)id * sizeof got : 0;
    double error = 0, signal = 0;
    if (ggml_backend_graph_compute(backend, l->graph) != GGML_STATUS_SUCCESS) return INFINITY;
    ggml_backend_tensor_get(l->taken, got, from, sizeof got);
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int k = 0; k < K; k++) sum += (double)w[n * K + k] * (double)x[id * K + k];
        error += (sum - got[n]) * (sum - got[n]);
        signal += sum * sum;
    }
    return error / signal;
}

static void case_of(const char *what, bool takes) {
    layer l = layer_of(takes), other = layer_of(takes);
    float *a = numbers(K * N), *b = numbers(K * N), *x = numbers(K * TOKENS),
          *z = numbers(K * TOKENS);
    const int32_t last = TOKENS - 1, first = 0;
    ggml_backend_set_n_threads_t set_n_threads =
        (ggml_backend_set_n_threads_t)ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(ggml_backend_get_device(backend)),
            "ggml_backend_set_n_threads");
    printf("%s:\n", what);
    set(l.w, a), set(l.x, x), set(l.ids, &last);
    set(other.w, b), set(other.x, z), set(other.ids, &first);
    error_of(&l, a, x, last); /* which makes layers of what nobody has multiplied by */
    check("  once", error_of(&l, a, x, last));
    check("  again", error_of(&l, a, x, last));
    set(l.x, z);
    check("  of another x", error_of(&l, a, z, last));
    set(l.ids, &first);
    check("  of other rows", error_of(&l, a, z, first));
    ggml_backend_tensor_memset(l.w, 0, 0, ggml_nbytes(l.w));
    set(other.w, a); /* maybe where the first ones' layers were */
    set(l.w, b);
    check("  of other weights", error_of(&l, b, z, first));
    check("  of another graph", error_of(&other, a, z, first));
    set(l.x, x);
    check("  of the first again", error_of(&l, b, x, first));
    set_n_threads(backend, 3);
    check("  by other threads", error_of(&l, b, x, first));
    set_n_threads(backend, GGML_DEFAULT_N_THREADS);
    release(&other);
    check("  after a buffer went", error_of(&l, b, x, first));
    release(&l);
    free(a), free(b), free(x), free(z);
}

void plans(void) {
    case_of("a plan", false);
    case_of("a plan of rows that are taken", true);
}
