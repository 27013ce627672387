/* SWIGLU of two tensors, y = a / (1 + e^-a) * b: in ggml's own graph a barrier between a layer's
 * widest products. */
#include "hosts/ggml/attention.h"
#include "hosts/ggml/backend.h"

bool twg_glu_takes(const struct ggml_tensor *node) {
    if (node->op != GGML_OP_GLU || ggml_get_glu_op(node) != GGML_GLU_OP_SWIGLU ||
        !(node->flags & GGML_TENSOR_FLAG_COMPUTE) || !node->src[1] || !ggml_is_contiguous(node) ||
        node->type != GGML_TYPE_F32 || !twg_attention_kernel_at(0))
        return false;
    for (int s = 0; s < 2; s++) {
        const struct ggml_tensor *from = node->src[s];
        if (from->type != GGML_TYPE_F32 || !ggml_is_contiguous(from) ||
            !ggml_are_same_shape(from, node) || !twg_in_step(from, node))
            return false;
    }
    return true;
}

static void swiglu(const float *a, const float *b, int64_t n, float *y) {
    const twg_attention_kernel *kernel = twg_attention_kernel_at(0);
    float last[3][TWG_GLU] = {{0}};
    int64_t whole = n / TWG_GLU * TWG_GLU;
    size_t rest = (size_t)(n - whole) * sizeof *y;
    kernel->swiglu(a, b, whole, y);
    if (!rest) return;
    memcpy(last[0], a + whole, rest);
    memcpy(last[1], b + whole, rest);
    kernel->swiglu(last[0], last[1], TWG_GLU, last[2]);
    memcpy(y + whole, last[2], rest);
}

void twg_glu_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    const struct ggml_tensor *y = user;
    int64_t pieces = (ggml_nelements(y) + TWG_GLU - 1) / TWG_GLU,
            first = twg_share(pieces, ith, nth) * TWG_GLU,
            end = twg_share(pieces, ith + 1, nth) * TWG_GLU;
    if (end > ggml_nelements(y)) end = ggml_nelements(y);
    (void)node;
    if (first >= end) return;
    swiglu((const float *)y->src[0]->data + first, (const float *)y->src[1]->data + first,
           end - first, (float *)y->data + first);
}
