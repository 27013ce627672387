/* SWIGLU of two tensors, y = a / (1 + e^-a) * b: in ggml's own graph a barrier between a layer's
 * widest products. */
#include "hosts/ggml/attention.h"
#include "hosts/ggml/backend.h"

enum { WIDTH = 16 };
typedef float floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

bool twg_glu_takes(const struct ggml_tensor *node) {
    if (node->op != GGML_OP_GLU || ggml_get_glu_op(node) != GGML_GLU_OP_SWIGLU ||
        !(node->flags & GGML_TENSOR_FLAG_COMPUTE) || !node->src[1] || !ggml_is_contiguous(node) ||
        node->type != GGML_TYPE_F32)
        return false;
    for (int s = 0; s < 2; s++) {
        const struct ggml_tensor *from = node->src[s];
        if (from->type != GGML_TYPE_F32 || !ggml_is_contiguous(from) ||
            !ggml_are_same_shape(from, node) || !twg_in_step(from, node))
            return false;
    }
    return true;
}

/* n: a multiple of WIDTH.  The relative error is below 2^-20. */
TWG_CLONES static void whole_vectors(const float *a, const float *b, int64_t n, float *y) {
    const floats zero = {0}, magic = zero + 0x1.8p23f, most = zero + 127;
    for (int64_t i = 0; i < n; i += WIDTH) {
        floats from = *(const floats *)(a + i), x = from * -1.44269504f;
        ints much = x > most, little = x < -126.0f; /* of which 2^x is infinity, or 0 */
        x = (floats)((ints)x & ~much);
        floats whole = x + magic, f = x - (whole - magic), p = TWG_EXP2(f);
        ints bits = ((ints)p + ((ints)whole << 23)) & ~little;
        floats power = (floats)((bits & ~much) | (much & 0x7f800000));
        *(floats *)(y + i) = from / (1 + power) * *(const floats *)(b + i);
    }
}

static void swiglu(const float *a, const float *b, int64_t n, float *y) {
    float last[3][WIDTH] = {{0}};
    int64_t whole = n / WIDTH * WIDTH;
    size_t rest = (size_t)(n - whole) * sizeof *y;
    whole_vectors(a, b, whole, y);
    if (!rest) return;
    memcpy(last[0], a + whole, rest);
    memcpy(last[1], b + whole, rest);
    whole_vectors(last[0], last[1], WIDTH, last[2]);
    memcpy(y + whole, last[2], rest);
}

void twg_glu_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    const struct ggml_tensor *y = user;
    int64_t pieces = (ggml_nelements(y) + WIDTH - 1) / WIDTH,
            first = twg_share(pieces, ith, nth) * WIDTH,
            end = twg_share(pieces, ith + 1, nth) * WIDTH;
    if (end > ggml_nelements(y)) end = ggml_nelements(y);
    (void)node;
    swiglu((const float *)y->src[0]->data + first, (const float *)y->src[1]->data + first,
           end - first, (float *)y->data + first);
}
