/* SWIGLU against the formula in double. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "hosts/ggml/attention.h"
#include "hosts/ggml/tests/test.h"

/* Numbers up to `most`; apart: y has memory of its own. */
static void swiglu(const char *what, int64_t n, int64_t rows, float most, bool apart) {
    size_t count = (size_t)(n * rows);
    struct ggml_context *context = tensors();
    struct ggml_tensor *a = ggml_new_tensor_2d(context, GGML_TYPE_F32, n, rows),
                       *b = ggml_new_tensor_2d(context, GGML_TYPE_F32, n, rows),
                       *y = ggml_swiglu_split(context, a, b);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    if (!apart) y->data = a->data;
    float *of = numbers(count), *by = numbers(count), *got = numbers(count);
    for (size_t i = 0; i < count; i++) of[i] *= most;
    ggml_backend_tensor_set(a, of, 0, count * sizeof *of);
    ggml_backend_tensor_set(b, by, 0, count * sizeof *by);
    bool done = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
    ggml_backend_tensor_get(y, got, 0, count * sizeof *got);
    double worst = 0; /* each by itself: little ones do not hide behind large ones */
    for (size_t i = 0; i < count; i++) {
        double right = (double)of[i] / (1 + exp(-(double)of[i])) * (double)by[i],
               off = fabs((double)got[i] - right) / (fabs(right) + 1e-30);
        if (!(off <= worst)) worst = off;
    }
    check(what, done ? worst * worst : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    free(of), free(by), free(got);
}

/* By each kernel there is; the backend takes the first. */
static void kernel(int n) {
    enum { COUNT = 5 * TWG_GLU };
    float *of = numbers(COUNT), *by = numbers(COUNT), got[COUNT];
    double worst = 0;
    for (int i = 0; i < COUNT; i++) of[i] *= 8;
    twg_attention_kernel_at(n)->swiglu(of, by, COUNT, got);
    for (int i = 0; i < COUNT; i++) {
        double right = (double)of[i] / (1 + exp(-(double)of[i])) * (double)by[i],
               off = fabs((double)got[i] - right) / fabs(right);
        if (!(off <= worst)) worst = off;
    }
    check("swiglu kernel", worst < 0x1p-20 ? 0 : worst);
    free(of), free(by);
}

static void not_a_number(void) {
    const float of[] = {NAN, 1, INFINITY, -200, -3e38f, -INFINITY}, by[] = {1, NAN, 2, 1, 1, 1};
    float got[6] = {0};
    struct ggml_context *context = tensors();
    struct ggml_tensor *a = ggml_new_tensor_1d(context, GGML_TYPE_F32, 6),
                       *b = ggml_new_tensor_1d(context, GGML_TYPE_F32, 6),
                       *y = ggml_swiglu_split(context, a, b);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    ggml_backend_tensor_set(a, of, 0, sizeof of);
    ggml_backend_tensor_set(b, by, 0, sizeof by);
    bool done = compute_twice(graph);
    ggml_backend_tensor_get(y, got, 0, sizeof got);
    check("swiglu, no numbers and none that counts",
          done && isnan(got[0]) && isnan(got[1]) && isinf(got[2]) && fabsf(got[3]) < 1e-30f &&
                  got[4] == 0 && isnan(got[5])
              ? 0
              : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
}

void glus(void) {
    for (int n = 0; twg_attention_kernel_at(n); n++) kernel(n);
    swiglu("swiglu", 576, 3, 1, true);
    swiglu("swiglu, large numbers", 1536, 1, 60, true);
    swiglu("swiglu, in its place", 100, 7, 4, false);
    swiglu("swiglu, of all threads", 4096, 3, 4, true);
    swiglu("swiglu, of a prompt", 1536, 50, 4, true);
    for (int n = 1; n < 18; n += 7) swiglu("swiglu, few", n, 1, 4, true);
    not_a_number();
}
