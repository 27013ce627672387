/* See codebook.h. */
#include "src/quant/codebook.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/check.h"

enum { BINS = 1 << 16, ROUNDS = 200, CHECK_EVERY = 10 };
static const float LEAST_SCALE = 1e-9f;

/* What fell between two neighbouring multiples of 2 / BINS. */
typedef struct bin {
    double sum, count;
} bin;

static int64_t groups_of(const tw_blocks *b) {
    return tw_ceil_div(b->N, b->group_n) * tw_ceil_div(b->K, b->group_k);
}

static int64_t group_at(const tw_blocks *b, int64_t n, int64_t k) {
    return n / b->group_n * tw_ceil_div(b->K, b->group_k) + k / b->group_k;
}

static tw_status choose_scales(const tw_blocks *b, const void *x, float *scales) {
    for (int64_t i = 0; i < groups_of(b); i++) scales[i] = LEAST_SCALE;
    for (int64_t n = 0; n < b->N; n++)
        for (int64_t k = 0; k < b->K; k++) {
            float v = tw_float_get(x, b->x, n * b->K + k);
            float *scale = &scales[group_at(b, n, k)];
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
            *scale = fmaxf(*scale, fabsf(v));
        }
    return TW_OK;
}

static float scaled_at(const tw_blocks *b, const void *x, const float *scales, int64_t n,
                       int64_t k) {
    return tw_float_get(x, b->x, n * b->K + k) / scales[group_at(b, n, k)];
}

/* Only bins that hold something, in order. */
static int fill_bins(const tw_blocks *b, const void *x, const float *scales, bin *bins) {
    int used = 0;
    memset(bins, 0, BINS * sizeof *bins);
    for (int64_t n = 0; n < b->N; n++)
        for (int64_t k = 0; k < b->K; k++) {
            double v = (double)scaled_at(b, x, scales, n, k);
            int64_t i = (int64_t)((v + 1) / 2 * BINS);
            bins[tw_min(i, BINS - 1)].sum += v;
            bins[tw_min(i, BINS - 1)].count++;
        }
    for (int i = 0; i < BINS; i++)
        if (bins[i].count > 0) bins[used++] = bins[i];
    return used;
}

static double mean_of(const bin *b) { return b->sum / b->count; }

/* Each as far as can be from those before it. */
static void start(const bin *bins, int used, double first, double *centres) {
    centres[0] = first;
    for (int c = 1; c < TW_LUT4_SIZE; c++) {
        double farthest = -1;
        for (int i = 0; i < used; i++) {
            double v = mean_of(&bins[i]), nearest = INFINITY;
            for (int j = 0; j < c; j++) nearest = fmin(nearest, fabs(v - centres[j]));
            if (nearest > farthest) farthest = nearest, centres[c] = v;
        }
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Centres ascend, so clusters are runs of bins. */
static void move(const bin *bins, int used, double *centres) {
    double sums[TW_LUT4_SIZE] = {0}, counts[TW_LUT4_SIZE] = {0};
    for (int i = 0, c = 0; i < used; i++) {
        double v = mean_of(&bins[i]);
        while (c + 1 < TW_LUT4_SIZE && fabs(centres[c + 1] - v) <= fabs(centres[c] - v)) c++;
        sums[c] += bins[i].sum;
        counts[c] += bins[i].count;
    }
    for (int c = 0; c < TW_LUT4_SIZE; c++)
        if (counts[c] > 0) centres[c] = sums[c] / counts[c];
}

static void find_centres(const bin *bins, int used, double first, double *centres) {
    const double relative = 1e-6, absolute = 1e-8;
    double before[TW_LUT4_SIZE];
    start(bins, used, first, centres);
    for (int round = 1; round <= ROUNDS; round++) {
        qsort(centres, TW_LUT4_SIZE, sizeof *centres, ascending);
        memcpy(before, centres, sizeof before);
        move(bins, used, centres);
        bool moved = false;
        for (int c = 0; c < TW_LUT4_SIZE; c++)
            moved = moved || fabs(centres[c] - before[c]) > absolute + relative * fabs(before[c]);
        if (!moved && round % CHECK_EVERY == 0) break;
    }
    qsort(centres, TW_LUT4_SIZE, sizeof *centres, ascending);
}

static int nearest(const double *centres, double v) {
    int best = 0;
    for (int c = 1; c < TW_LUT4_SIZE; c++)
        if (fabs(centres[c] - v) < fabs(centres[best] - v)) best = c;
    return best;
}

tw_status tw_codebook_quantize(const tw_blocks *b, const void *x, void *scales, void *codes,
                               float *lut) {
    TW_TRY(tw_check_x(b->N, b->K, b->x));
    TW_TRY(tw_check_group(b->group_n, b->group_k));
    size_t row_bytes = tw_dtype_row_bytes(TW_LUT4, b->K), count = (size_t)groups_of(b);
    float *wide = calloc(count, sizeof *wide);
    bin *bins = malloc(BINS * sizeof *bins);
    double centres[TW_LUT4_SIZE];
    tw_status status =
        wide && bins ? choose_scales(b, x, wide)
                     : tw_fail(TW_MEMORY, "out of memory for %zu scales of a codebook", count);
    if (status == TW_OK) {
        int used = fill_bins(b, x, wide, bins);
        find_centres(bins, used, (double)scaled_at(b, x, wide, 0, 0), centres);
        memset(codes, 0, (size_t)b->N * row_bytes);
        for (int c = 0; c < TW_LUT4_SIZE; c++) lut[c] = tw_float_round(b->x, (float)centres[c]);
        for (int64_t i = 0; i < (int64_t)count; i++) tw_float_set(scales, b->scale, i, wide[i]);
        for (int64_t n = 0; n < b->N; n++)
            for (int64_t k = 0; k < b->K; k++)
                tw_code_set((uint8_t *)codes + (size_t)n * row_bytes, TW_LUT4, k,
                            nearest(centres, (double)scaled_at(b, x, wide, n, k)));
    }
    free(wide);
    free(bins);
    return status;
}
