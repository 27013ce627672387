/* RMS norm, the product by its weights and the sum before it, against the formula in double. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "hosts/ggml/tests/test.h"

static const float eps = 0.1f; /* so much that it shows */

/* Of rows that begin `stride` numbers apart the norm's sum of squared errors over the signal's. */
static double error_of(const float *x, int64_t stride, const float *weights, int64_t n,
                       int64_t rows, const float *y) {
    double error = 0, signal = 0;
    for (int64_t row = 0; row < rows; row++) {
        const float *from = x + row * stride;
        double sum = 0;
        for (int64_t i = 0; i < n; i++) sum += (double)from[i] * (double)from[i];
        for (int64_t i = 0; i < n; i++) {
            double right =
                       (double)from[i] * (double)weights[i] / sqrt(sum / (double)n + (double)eps),
                   off = (double)y[row * n + i] - right;
            error += off * off;
            signal += right * right;
        }
    }
    return error / signal;
}

/* apart: between rows of x there is something else. */
static void norm(const char *what, int64_t n, int64_t rows, int64_t heads, bool apart) {
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
    bool done = compute_twice(graph);
    ggml_backend_tensor_get(y, got, 0, count * sizeof(float));
    check(what, done ? error_of(a, stride, w, n, rows * heads, got) : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(a), free(w), free(got);
}

/* Where the result lies: by itself, or where an allocator may put it once the sum is there. */
typedef enum place { APART, ON_A, BEHIND_A_ROW_OF_B, BEFORE_A_ROW_OF_B, LATE } place;

/* A sum that is read by others, too; broadcast: b is one row; LATE: something else comes first. */
static void sum(const char *what, int64_t n, int64_t rows, place place, bool broadcast) {
    size_t count = (size_t)(n * rows);
    struct ggml_context *context = tensors();
    struct ggml_tensor *a = ggml_new_tensor_2d(context, GGML_TYPE_F32, n, rows),
                       *room = ggml_new_tensor_2d(context, GGML_TYPE_F32, n, rows + 2),
                       *weights = ggml_new_tensor_1d(context, GGML_TYPE_F32, n),
                       *b = ggml_view_2d(context, room, n, broadcast ? 1 : rows, room->nb[1],
                                         room->nb[1]),
                       *x = ggml_add(context, a, b),
                       *y = ggml_mul(context, ggml_rms_norm(context, x, eps), weights),
                       *twice = ggml_scale(context, x, 2);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    if (place == LATE) ggml_build_forward_expand(graph, twice);
    ggml_build_forward_expand(graph, y);
    ggml_build_forward_expand(graph, twice);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    float *given = numbers(count), *other = numbers(count), *w = numbers((size_t)n),
          *got = numbers(count), *doubled = numbers(count);
    if (place == ON_A) y->data = a->data;
    if (place == BEHIND_A_ROW_OF_B) y->data = (char *)b->data + room->nb[1];
    if (place == BEFORE_A_ROW_OF_B) y->data = room->data;
    ggml_backend_tensor_set(a, given, 0, count * sizeof(float));
    ggml_backend_tensor_set(b, other, 0, ggml_nbytes(b));
    ggml_backend_tensor_set(weights, w, 0, (size_t)n * sizeof(float));
    bool right = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS &&
                 x->op == GGML_OP_ADD && y->op == GGML_OP_MUL && y->src[0]->op == GGML_OP_RMS_NORM;
    ggml_backend_tensor_get(y, got, 0, count * sizeof(float));
    ggml_backend_tensor_get(twice, doubled, 0, count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        given[i] += other[broadcast ? i % (size_t)n : i];
        right = right && doubled[i] == 2 * given[i];
    }
    check(what, right ? error_of(given, n, w, n, rows, got) : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(given), free(other), free(w), free(got), free(doubled);
}

void norms(void) {
    norm("norm, a token", 576, 1, 1, false);
    norm("norm, fewer rows than threads, a rest of a vector", 45, 2, 1, false);
    norm("norm, heads whose rows lie apart", 64, 33, 3, true);
    norm("norm, long rows", 4096, 70, 1, false);
    sum("norm of a sum, a token", 576, 1, APART, false);
    sum("norm of a sum, a rest of a vector", 45, 33, APART, false);
    sum("norm of a sum, of one row with all", 45, 33, APART, true);
    sum("norm of a sum, in a source's place", 64, 33, ON_A, false);
    sum("norm of a sum, behind another node", 64, 33, LATE, false);
    sum("norm of a sum, behind a row of a source", 64, 33, BEHIND_A_ROW_OF_B, false);
    sum("norm of a sum, before a row of a source", 64, 33, BEFORE_A_ROW_OF_B, false);
}
