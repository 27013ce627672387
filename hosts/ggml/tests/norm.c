/* RMS norm and the product by its weights, against the formula in double. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "hosts/ggml/tests/test.h"

/* apart: between rows of x there is something else. */
static void norm(const char *what, int64_t n, int64_t rows, int64_t heads, bool apart) {
    const float eps = 0.1f; /* so much that it shows */
    int64_t stride = apart ? n + 3 : n;
    size_t count = (size_t)(n * rows * heads), all = (size_t)(stride * rows * heads);
    struct ggml_context *context = tensors();
    struct ggml_tensor *x = ggml_new_tensor_3d(context, GGML_TYPE_F32, stride, rows, heads),
                       *weights = ggml_new_tensor_1d(context, GGML_TYPE_F32, n),
                       *part = ggml_view_3d(context, x, n, rows, heads, x->nb[1], x->nb[2], 0),
                       *y = ggml_mul(context, ggml_rms_norm(context, part, eps), weights);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    float *a = numbers(all), *w = numbers((size_t)n), *got = numbers(count);
    ggml_backend_tensor_set(x, a, 0, all * sizeof(float));
    ggml_backend_tensor_set(weights, w, 0, (size_t)n * sizeof(float));
    bool done = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
    ggml_backend_tensor_get(y, got, 0, count * sizeof(float));
    double error = done ? 0 : INFINITY, signal = 0;
    for (int64_t row = 0; row < rows * heads; row++) {
        const float *from = a + row * stride;
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)from[i] * (double)from[i];
        for (int64_t i = 0; i < n; i++) {
            double right = (double)from[i] * (double)w[i] / sqrt(sum / (double)n + (double)eps),
                   off = (double)got[row * n + i] - right;
            error += off * off;
            signal += right * right;
        }
    }
    check(what, error / signal);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(a), free(w), free(got);
}

void norms(void) {
    norm("norm, a token", 576, 1, 1, false);
    norm("norm, fewer rows than threads, a rest of a vector", 45, 2, 1, false);
    norm("norm, heads whose rows lie apart", 64, 33, 3, true);
    norm("norm, long rows", 4096, 70, 1, false);
}
