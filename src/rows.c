/* See rows.h. */
#include "src/rows.h"

#include <stdatomic.h>
#include <string.h>

#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/quantize.h"

/* Read twice, for its range and for its codes: the second time from L2. */
enum { BLOCK_BYTES = 1 << 18 };

typedef struct blocks {
    tw_rows_task *task;
    void *user;
    int64_t N, rows;             /* of a block */
    atomic_int_least64_t failed; /* the first row of a block that failed; N: none did */
} blocks;

static void run_block(void *arg, size_t i) {
    blocks *b = arg;
    int64_t first = (int64_t)i * b->rows;
    if (atomic_load_explicit(&b->failed, memory_order_relaxed) < first) return;
    if (b->task(b->user, first, tw_min(b->rows, b->N - first)) == TW_OK) return;
    int64_t least = atomic_load(&b->failed);
    while (first < least && !atomic_compare_exchange_weak(&b->failed, &least, first)) continue;
}

tw_status tw_rows_run(tw_threads *threads, int64_t N, int64_t apart, size_t row_bytes,
                      tw_rows_task *task, void *user) {
    int64_t many = BLOCK_BYTES / (int64_t)row_bytes / apart;
    blocks b = {.task = task, .user = user, .N = N, .rows = apart * tw_max(many, 1)};
    atomic_init(&b.failed, N);
    tw_threads_run(threads, run_block, &b, (size_t)tw_ceil_div(N, b.rows));
    int64_t failed = atomic_load(&b.failed);
    return failed < N ? task(user, failed, tw_min(b.rows, N - failed)) : TW_OK;
}

tw_row_offsets tw_rows_before(const tw_scheme *scheme, int64_t N, int64_t K, int64_t n) {
    size_t groups = tw_scheme_plain(scheme)
                        ? 0
                        : (size_t)(n / tw_group_n(scheme, N)) * (size_t)tw_groups(scheme, K);
    return (tw_row_offsets){.codes = (size_t)n * tw_dtype_row_bytes(scheme->weight, K),
                            .scales = groups * (size_t)tw_dtype_bits(scheme->scale) / 8,
                            .zeros = groups * (size_t)tw_dtype_bits(tw_zero_dtype(scheme)) / 8};
}

typedef struct matrix {
    const tw_recipe *recipe; /* or */
    const tw_scheme *scheme;
    int64_t N, K, w_stride;
    const char *w;
    char *codes, *scales, *zeros;
    float *lut;
} matrix;

static tw_status recipe_rows(void *user, int64_t first, int64_t count) {
    const matrix *m = user;
    tw_row_offsets at = tw_rows_before(&m->recipe->scheme, m->N, m->K, first);
    size_t row = tw_dtype_row_bytes(m->recipe->x, m->K);
    float lut[TW_LUT4_SIZE]; /* the same for all blocks, or there is one */
    TW_TRY(tw_recipe_quantize(m->recipe, count, m->K, m->w + (size_t)first * row,
                              m->codes + at.codes, m->scales + at.scales,
                              m->zeros ? m->zeros + at.zeros : NULL, lut));
    if (m->lut && !first && m->recipe->scheme.weight == TW_LUT4) memcpy(m->lut, lut, sizeof lut);
    return TW_OK;
}

tw_status tw_rows_recipe(tw_threads *threads, const tw_recipe *recipe, int64_t N, int64_t K,
                         const void *w, void *codes, void *scales, void *zeros, float *lut) {
    TW_TRY(tw_recipe_check(recipe, N, K));
    matrix m = {.recipe = recipe,
                .N = N,
                .K = K,
                .w = w,
                .codes = codes,
                .scales = scales,
                .zeros = zeros,
                .lut = lut};
    tw_status status = tw_rows_run(threads, N, tw_recipe_rows(recipe, N),
                                   tw_dtype_row_bytes(recipe->x, K), recipe_rows, &m);
    /* As a whole, so that the sentence has the matrix's own rows. */
    return status ? tw_recipe_quantize(recipe, N, K, w, codes, scales, zeros, lut) : TW_OK;
}

static tw_status minmax_rows(void *user, int64_t first, int64_t count) {
    const matrix *m = user;
    tw_row_offsets at = tw_rows_before(m->scheme, m->N, m->K, first);
    return tw_quantize_minmax(m->scheme, count, m->K, (const float *)m->w + first * m->w_stride,
                              m->w_stride, m->codes + at.codes,
                              m->scales ? m->scales + at.scales : NULL,
                              m->zeros ? m->zeros + at.zeros : NULL);
}

tw_status tw_rows_minmax(tw_threads *threads, const tw_scheme *scheme, int64_t N, int64_t K,
                         const float *w, int64_t w_stride, void *codes, void *scales, void *zeros) {
    matrix m = {.scheme = scheme,
                .N = N,
                .K = K,
                .w_stride = w_stride,
                .w = (const char *)w,
                .codes = codes,
                .scales = scales,
                .zeros = zeros};
    int64_t apart = tw_scheme_plain(scheme) ? 1 : tw_group_n(scheme, N);
    tw_status status = tw_rows_run(threads, N, apart, (size_t)K * sizeof *w, minmax_rows, &m);
    return status ? tw_quantize_minmax(scheme, N, K, w, w_stride, codes, scales, zeros) : TW_OK;
}
