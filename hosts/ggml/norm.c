/* RMS_NORM and the MUL by its weights behind it, which ggml's CPU backend also does at once, but
 * with a sum of doubles, one number at a time: 6 % of a small model's prompt. */
#include <math.h>

#include "hosts/ggml/backend.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum { WIDTH = 16 };
typedef float floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

/* y = x / sqrt(mean of x^2 + eps) * weights; y may be x. */
CLONES static void norm_row(const float *x, const float *weights, float eps, int64_t n, float *y) {
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

static bool plain_rows(const struct ggml_tensor *t) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float);
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
           plain_rows(x) && plain_rows(mul) && plain_rows(weights) && weights != norm &&
           weights->ne[0] == x->ne[0] && ggml_nrows(weights) == 1 && ggml_are_same_shape(x, mul) &&
           !twg_overlap(x, mul);
}

twg_norm twg_norm_of(const struct ggml_tensor *norm, const struct ggml_tensor *mul) {
    twg_norm made = {.weights = weights_of(norm, mul), .y = mul};
    memcpy(&made.eps, norm->op_params, sizeof made.eps);
    return made;
}

void twg_norm_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    const twg_norm *norm = user;
    const struct ggml_tensor *x = node->src[0], *y = norm->y;
    int64_t rows = ggml_nrows(x), first = rows * ith / nth, end = rows * (ith + 1) / nth;
    for (int64_t row = first; row < end; row++) {
        int64_t i1 = row % x->ne[1], i2 = row / x->ne[1] % x->ne[2],
                i3 = row / (x->ne[1] * x->ne[2]);
        size_t from = (size_t)i1 * x->nb[1] + (size_t)i2 * x->nb[2] + (size_t)i3 * x->nb[3];
        size_t to = (size_t)i1 * y->nb[1] + (size_t)i2 * y->nb[2] + (size_t)i3 * y->nb[3];
        norm_row((const float *)(const void *)((const char *)x->data + from), norm->weights->data,
                 norm->eps, x->ne[0], (float *)(void *)((char *)y->data + to));
    }
}
