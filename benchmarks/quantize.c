/* How long quantizing 4096 x 4096 f32 weights by a recipe takes, through the public interface.
 *
 *     quantize RECIPE [THREADS]      THREADS: of the context, all CPUs without
 *
 * Prints one JSON object: the median and least time of several rounds, and the bytes that are read
 * and written. */
#define _DEFAULT_SOURCE /* madvise */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tilewright/quant.h>
#include <time.h>

enum { N = 4096, K = 4096, MOST_ROUNDS = 21 };

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* Canonical bytes of the scheme's tensors: at most what these hold.  In huge pages where the system
 * has them, as the memory is that bench's limit reads. */
enum { HUGE_PAGE = 1 << 21 };
static _Alignas(HUGE_PAGE) unsigned char codes[N * K];
static _Alignas(HUGE_PAGE) float w[N * K];
static float scales[N * K / 16], zeros[N * K / 16], lut[16];

static int64_t bytes_of(const tw_scheme *s) {
    int64_t groups = s->group_k ? (K + s->group_k - 1) / s->group_k : 1;
    int64_t rows = s->group_n ? (N + s->group_n - 1) / s->group_n : 1;
    int64_t zero_bits = s->zero_mode == TW_ZERO_CODE    ? 8
                        : s->zero_mode == TW_ZERO_VALUE ? tw_dtype_bits(s->scale)
                                                        : 0;
    return (int64_t)sizeof w + (int64_t)N * K * tw_dtype_bits(s->weight) / 8 +
           rows * groups * (tw_dtype_bits(s->scale) + zero_bits) / 8;
}

/* Rounds until two seconds are spent, three at least; the first one only touches the memory. */
static tw_status measure(tw_context *context, const char *recipe, const tw_scheme *scheme) {
    double times[MOST_ROUNDS], spent = 0;
    int rounds = -1;
    tw_tensor weight = TW_TENSOR_2D(w, TW_F32, N, K);
    while (rounds < 3 || (rounds < MOST_ROUNDS && spent < 2e9)) {
        double start = now_ns();
        tw_status status = tw_quantize_weight(context, recipe, &weight, codes, scales,
                                              scheme->zero_mode ? (void *)zeros : NULL,
                                              scheme->weight == TW_LUT4 ? lut : NULL);
        if (status != TW_OK) return status;
        double ns = now_ns() - start;
        if (rounds >= 0) times[rounds] = ns;
        spent += ns;
        rounds++;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare);
    printf(
        "{\"recipe\":\"%s\",\"rounds\":%d,\"median_ns\":%.0f,\"least_ns\":%.0f,\"bytes\":%lld}\n",
        recipe, rounds, times[rounds / 2], times[0], (long long)bytes_of(scheme));
    return TW_OK;
}

int main(int argc, char **argv) {
    const char *recipe = argc > 1 ? argv[1] : "uintx_weight_only,w=u4,g=128";
    tw_options options = TW_OPTIONS_INIT;
    tw_context *context = NULL;
    tw_scheme scheme;
    unsigned state = 1;
    options.cache_path = "";
    options.threads = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 0;
    madvise(w, sizeof w, MADV_HUGEPAGE);
    madvise(codes, sizeof codes, MADV_HUGEPAGE);
    for (size_t i = 0; i < sizeof w / sizeof *w; i++) {
        state = state * 1664525 + 1013904223;
        w[i] = (float)(state >> 8) / 0x1p23F - 1;
    }
    tw_status status = tw_context_create(&options, &context);
    if (status == TW_OK) status = tw_recipe_scheme(recipe, TW_F32, &scheme);
    if (status == TW_OK) status = measure(context, recipe, &scheme);
    if (status != TW_OK) fprintf(stderr, "quantize: %s\n", tw_error_message());
    tw_context_destroy(context);
    return status != TW_OK;
}
