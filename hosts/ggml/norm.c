/* RMS_NORM and the MUL by its weights behind it, which ggml's CPU backend also does at once, but
 * with a sum of doubles, one number at a time: 6 % of a small model's prompt.  With them the ADD
 * before it, of what a layer adds to its input: each operation is a barrier of all threads. */
#include <math.h>

#include "hosts/ggml/backend.h"

enum { WIDTH = 16 };
typedef float floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

/* y = x / sqrt(mean of x^2 + eps) * weights; y may be x. */
TWG_CLONES static void norm_row(const float *x, const float *weights, float eps, int64_t n,
                                float *y) {
    floats sums[2] = {{0}, {0}};
    float total = 0;
    int64_t i = 0;
    for (; i + 2L * WIDTH <= n; i += 2L * WIDTH) {
        floats a = *(const floats *)(x + i), b = *(const floats *)(x + i + WIDTH);
        sums[0] += a * a;
        sums[1] += b * b;
    }
    sums[0] += sums[1];
    for (int lane = 0; lane < WIDTH; lane++) total += sums[0][lane];
    for (; i < n; i++) total += x[i] * x[i];
    const float scale = 1.0f / sqrtf(total / (float)n + eps);
    for (i = 0; i + WIDTH <= n; i += WIDTH)
        *(floats *)(y + i) = *(const floats *)(x + i) * scale * *(const floats *)(weights + i);
    for (; i < n; i++) y[i] = x[i] * scale * weights[i];
}

static const struct ggml_tensor *weights_of(const struct ggml_tensor *norm,
                                            const struct ggml_tensor *mul) {
    return mul->src[0] == norm ? mul->src[1] : mul->src[0];
}

bool twg_norm_takes(const struct ggml_cgraph *graph, int i) {
    static const enum ggml_op both[] = {GGML_OP_RMS_NORM, GGML_OP_MUL};
    if (i + 1 >= graph->n_nodes || graph->nodes[i]->op != GGML_OP_RMS_NORM ||
        !ggml_can_fuse(graph, i, both, 2))
        return false;
    const struct ggml_tensor *norm = graph->nodes[i], *mul = graph->nodes[i + 1], *x = norm->src[0],
                             *weights = weights_of(norm, mul);
    return norm->flags & GGML_TENSOR_FLAG_COMPUTE && mul->flags & GGML_TENSOR_FLAG_COMPUTE &&
           twg_plain_rows(x) && twg_plain_rows(mul) && twg_plain_rows(weights) && weights != norm &&
           weights->ne[0] == x->ne[0] && ggml_nrows(weights) == 1 && ggml_are_same_shape(x, mul) &&
           !twg_overlap(x, mul);
}

/* The ADD before a norm that makes its x, row by row of the same rows; NULL: there is none. */
static const struct ggml_tensor *add_of(const struct ggml_cgraph *graph, int i) {
    const struct ggml_tensor *x = graph->nodes[i]->src[0], *y = graph->nodes[i + 1];
    if (!i || x != graph->nodes[i - 1] || x->op != GGML_OP_ADD ||
        !(x->flags & GGML_TENSOR_FLAG_COMPUTE))
        return NULL;
    for (int s = 0; s < 2; s++) {
        const struct ggml_tensor *from = x->src[s];
        if (!twg_plain_rows(from) || !ggml_are_same_shape(from, x) || !twg_in_step(from, x) ||
            !twg_in_step(from, y))
            return NULL;
    }
    return x;
}

twg_norm twg_norm_of(const struct ggml_cgraph *graph, int i) {
    const struct ggml_tensor *norm = graph->nodes[i], *mul = graph->nodes[i + 1];
    twg_norm made = {
        .weights = weights_of(norm, mul), .x = norm->src[0], .y = mul, .add = add_of(graph, i)};
    memcpy(&made.eps, norm->op_params, sizeof made.eps);
    return made;
}

static float *row_of(const struct ggml_tensor *t, int64_t row) {
    int64_t i1 = row % t->ne[1], i2 = row / t->ne[1] % t->ne[2], i3 = row / (t->ne[1] * t->ne[2]);
    return (float *)(void *)((char *)t->data + (size_t)i1 * t->nb[1] + (size_t)i2 * t->nb[2] +
                             (size_t)i3 * t->nb[3]);
}

TWG_CLONES static void add_row(const float *a, const float *b, int64_t n, float *sum) {
    int64_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        *(floats *)(sum + i) = *(const floats *)(a + i) + *(const floats *)(b + i);
    for (; i < n; i++) sum[i] = a[i] + b[i];
}

void twg_norm_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    const twg_norm *norm = user;
    const struct ggml_tensor *x = norm->x;
    int64_t rows = ggml_nrows(x), end = twg_share(rows, ith + 1, nth);
    (void)node;
    for (int64_t row = twg_share(rows, ith, nth); row < end; row++) {
        float *from = row_of(x, row);
        if (norm->add)
            add_row(row_of(norm->add->src[0], row), row_of(norm->add->src[1], row), x->ne[0], from);
        norm_row(from, norm->weights->data, norm->eps, x->ne[0], row_of(norm->y, row));
    }
}
