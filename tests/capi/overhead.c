/* What forward() costs beyond the generated functions that it ends in: a benchmark, run by hand.
 *
 *     build/tests/capi/overhead
 *
 * Rounds alternate; the least of each counts, since everything else only adds. */
#include <stdio.h>
#include <stdlib.h>

#include "src/base/alloc.h"
#include "src/base/clock.h"
#include "src/linear.h"

enum { N = 64, K = 64, CALLS = 2000, ROUNDS = 200 };

static float weights[N * K], input[K], output[N];

typedef struct bench {
    tw_linear *linear;
    const tw_plan *plan;
    tw_tensor x, y;
    void *scratch;
} bench;

static void by_forward(const bench *b) {
    for (int i = 0; i < CALLS; i++) tw_linear_forward(b->linear, &b->x, &b->y);
}

static void by_kernel(const bench *b) {
    const tw_kernel *kernel = &b->plan->kernel;
    tw_kernel_args args = {.x = input,
                           .x_stride = sizeof input,
                           .xq = b->scratch,
                           .xmeta = (char *)b->scratch + kernel->xq_stride,
                           .w = b->linear->packed,
                           .y = output,
                           .y_stride = sizeof output,
                           .M = 1};
    for (int i = 0; i < CALLS; i++) {
        kernel->pack_x(&args, 0, 1);
        kernel->matmul(&args, 0, 1, 0, N);
    }
}

/* Nanoseconds a call, the least of all rounds. */
static void measure(const bench *b, double *forward, double *kernel) {
    for (int r = 0; r < ROUNDS; r++) {
        int64_t t0 = tw_now_ns();
        by_forward(b);
        int64_t t1 = tw_now_ns();
        by_kernel(b);
        int64_t t2 = tw_now_ns();
        double f = (double)(t1 - t0) / CALLS, k = (double)(t2 - t1) / CALLS;
        if (!r || f < *forward) *forward = f;
        if (!r || k < *kernel) *kernel = k;
    }
}

static int run(const char *scheme) {
    bench b = {.x = TW_TENSOR_2D(input, TW_F32, 1, K), .y = TW_TENSOR_2D(output, TW_F32, 1, N)};
    tw_tensor w = TW_TENSOR_2D(weights, TW_F32, N, K);
    tw_options options = TW_OPTIONS_INIT;
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    tw_context *context = NULL;
    tw_binding *binding;
    double forward = 0, kernel = 0;
    options.cache_path = "";
    desc.N = N, desc.K = K;
    tw_status status = tw_scheme_parse(scheme, &desc.scheme);
    if (status == TW_OK) status = tw_context_create(&options, &context);
    if (status == TW_OK) status = tw_linear_create_from_float(context, &desc, &w, NULL, &b.linear);
    if (status == TW_OK) status = tw_linear_prepare(b.linear, (int64_t[]){1}, 1, 1);
    if (status == TW_OK) status = tw_linear_bind_now(b.linear, 0, &binding);
    if (status == TW_OK) b.plan = binding->plan;
    if (status != TW_OK || !b.plan->decision.tmpl) {
        printf("%s: %s\n", scheme, status == TW_OK ? b.plan->reason : tw_error_message());
        return 1;
    }
    b.scratch = tw_alloc(&tw_allocator_default, b.plan->scratch_bytes);
    measure(&b, &forward, &kernel);
    printf("%-28s %-14s forward %7.1f ns, kernel alone %7.1f ns, overhead %6.1f ns\n", scheme,
           b.plan->decision.tmpl->name, forward, kernel, forward - kernel);
    tw_free(&tw_allocator_default, b.scratch, b.plan->scratch_bytes);
    tw_linear_destroy(b.linear);
    tw_context_destroy(context);
    return 0;
}

int main(void) {
    for (int i = 0; i < N * K; i++) weights[i] = (float)(i % 13) - 6;
    for (int k = 0; k < K; k++) input[k] = (float)(k % 7) - 3;
    return run("w=u4,g=32,s=f16,z=code,a=i8") || run("w=i8,g=channel,s=f32,a=i8") || run("w=f32");
}
