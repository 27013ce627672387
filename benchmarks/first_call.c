/* How long a new kernel takes from nothing to its first result, through the public interface: once
 * from the start of the process, and once more, another kernel, with the compiler open.  Making the
 * layers (packing) is not counted.
 *
 *     first_call START_NS      START_NS: CLOCK_MONOTONIC when the process was started
 *
 * Prints one JSON object. */
#include <stdio.h>
#include <stdlib.h>
#include <tilewright/tilewright.h>
#include <time.h>

enum { K = 4096 };
static float x[K], y[K];

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Makes a layer of N rows; its first forward is what *call_ns counts. */
static tw_status first_call(tw_context *context, int64_t N, double *make_ns, double *call_ns) {
    int64_t groups = K / 128;
    unsigned char *codes = malloc((size_t)(N * K / 2)), *zeros = malloc((size_t)(N * groups));
    unsigned short *scales = malloc((size_t)(N * groups) * sizeof *scales);
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    tw_linear *linear = NULL;
    tw_tensor w = TW_TENSOR_2D(codes, TW_U4, N, K), s = TW_TENSOR_2D(scales, TW_F16, N, groups);
    tw_tensor z = TW_TENSOR_2D(zeros, TW_U8, N, groups);
    tw_tensor in = TW_TENSOR_2D(x, TW_F32, 1, K), out = TW_TENSOR_2D(y, TW_F32, 1, N);
    tw_status status = codes && scales && zeros ? TW_OK : TW_MEMORY;
    if (status == TW_OK) status = tw_scheme_parse("w=u4,g=128,s=f16,z=code,a=i8", &desc.scheme);
    if (status == TW_OK) {
        for (int64_t i = 0; i < N * K / 2; i++) codes[i] = (unsigned char)(i * 7);
        for (int64_t i = 0; i < N * groups; i++) zeros[i] = 8, scales[i] = 0x2c00; /* 1/16 */
        desc.N = N, desc.K = K;
        double start = now_ns();
        status = tw_linear_create(context, &desc, &w, &s, &z, NULL, &linear);
        *make_ns = now_ns() - start;
        start = now_ns();
        if (status == TW_OK) status = tw_linear_forward(linear, &in, &out);
        *call_ns = now_ns() - start;
    }
    tw_linear_destroy(linear);
    free(codes);
    free(scales);
    free(zeros);
    return status;
}

int main(int argc, char **argv) {
    double main_ns = now_ns(), start_ns = argc > 1 ? strtod(argv[1], NULL) : main_ns;
    double context_ns, make_ns, first_ns, second_ns;
    tw_options options = TW_OPTIONS_INIT;
    tw_context *context = NULL;
    options.cache_path = ""; /* a new kernel, every time */
    options.threads = 1;
    for (int i = 0; i < K; i++) x[i] = (float)(i % 7 - 3);
    tw_status status = tw_context_create(&options, &context);
    context_ns = now_ns() - main_ns;
    if (status == TW_OK) status = first_call(context, K, &make_ns, &first_ns);
    if (status == TW_OK) status = first_call(context, K - 256, &make_ns, &second_ns);
    if (status != TW_OK)
        fprintf(stderr, "first_call: %s\n", tw_error_message());
    else
        printf("{\"from_start_ns\":%.0f,\"compiler_open_ns\":%.0f}\n",
               main_ns - start_ns + context_ns + first_ns, second_ns);
    tw_context_destroy(context);
    return status != TW_OK;
}
