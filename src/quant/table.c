/* See table.h. */
#include "src/quant/table.h"

#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/check.h"
#include "src/quant/run.h"

const float tw_nf4_values[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static int table_code(const float *table, float v, float scale) {
    float x = scale == 0 ? 0 : v / scale, nearest = fabsf(table[0] - x);
    int best = 0;
    for (int i = 1; i < 16; i++) {
        float distance = fabsf(table[i] - x);
        best = distance < nearest ? i : best;
        nearest = distance < nearest ? distance : nearest;
    }
    return best;
}

static int ternary_code(const float *table, float v, float scale) {
    (void)table;
    return (int)fminf(fmaxf(rintf(v / scale), -1), 1);
}

static float table_scale(float largest, double sum, float amax, int64_t count) {
    (void)sum, (void)count;
    return amax / largest;
}

static float ternary_scale(float largest, double sum, float amax, int64_t count) {
    (void)largest, (void)amax;
    return fmaxf((float)(sum / (double)count), 1e-5f);
}

/* How a kind of codes follows from a group's sum of |x|, its largest, its count. */
typedef struct kind {
    tw_dtype code;
    const float *table; /* and its largest magnitude */
    float largest;
    float (*scale)(float largest, double sum, float amax, int64_t count);
    int (*encode)(const float *table, float v, float scale);
} kind;

/* Codes of columns [k0, k1) by the vectorized loop, as many of the first ones as it can: gives the
 * column behind them. */
static int64_t table_run(const tw_blocks *b, const kind *by, int64_t n, int64_t k0, int64_t k1,
                         const void *x, float scale, uint8_t *row) {
    enum { PART = 256 };
    size_t each = (size_t)tw_dtype_bits(b->x) / 8;
    if (!by->table || b->x == TW_F16 || scale == 0) return k0;
    for (int64_t k = k0, count; k < k1; k += count) {
        uint8_t bytes[PART];
        count = tw_min(PART, k1 - k);
        if (!tw_run_table((const char *)x + (size_t)(n * b->K + k) * each, b->x, count, scale,
                          by->table, bytes))
            return k;
        tw_codes_set(row, by->code, k, count, bytes);
    }
    return k1;
}

static tw_status quantize_group(const tw_blocks *b, const kind *by, int64_t n0, int64_t k0,
                                const void *x, float *scale, void *codes) {
    int64_t n1 = tw_min(b->N, n0 + b->group_n), k1 = tw_min(b->K, k0 + b->group_k);
    size_t row_bytes = tw_dtype_row_bytes(by->code, b->K);
    double sum = 0;
    float amax = 0;
    for (int64_t n = n0; n < n1; n++)
        for (int64_t k = k0; k < k1; k++) {
            float v = tw_float_get(x, b->x, n * b->K + k);
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "x: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
            sum += fabs((double)v);
            amax = fmaxf(amax, fabsf(v));
        }
    *scale = by->scale(by->largest, sum, amax, (n1 - n0) * (k1 - k0));
    for (int64_t n = n0; n < n1; n++) {
        uint8_t *row = (uint8_t *)codes + (size_t)n * row_bytes;
        int64_t k = table_run(b, by, n, k0, k1, x, *scale, row);
        for (; k < k1; k++)
            tw_code_set(row, by->code, k,
                        by->encode(by->table, tw_float_get(x, b->x, n * b->K + k), *scale));
    }
    return TW_OK;
}

static tw_status quantize(const tw_blocks *b, const kind *by, const void *x, void *scales,
                          void *codes) {
    TW_TRY(tw_check_x(b->N, b->K, b->x));
    TW_TRY(tw_check_group(b->group_n, b->group_k));
    memset(codes, 0, (size_t)b->N * tw_dtype_row_bytes(by->code, b->K));
    for (int64_t n = 0, at = 0; n < b->N; n += b->group_n)
        for (int64_t k = 0; k < b->K; k += b->group_k, at++) {
            float scale = 0;
            TW_TRY(quantize_group(b, by, n, k, x, &scale, codes));
            tw_float_set(scales, b->scale, at, scale);
        }
    return TW_OK;
}

tw_status tw_table_quantize(const tw_blocks *b, const float *table, const void *x, void *scales,
                            void *codes) {
    kind by = {TW_LUT4, table, 0, table_scale, table_code};
    for (int i = 0; i < 16; i++) {
        if (!isfinite(table[i]))
            return tw_fail(TW_INVALID, "table: %g at %d, must be finite", (double)table[i], i);
        by.largest = fmaxf(by.largest, fabsf(table[i]));
    }
    if (by.largest == 0) return tw_fail(TW_INVALID, "table: all 0, one must not be");
    return quantize(b, &by, x, scales, codes);
}

tw_status tw_ternary_quantize(const tw_blocks *b, const void *x, void *scales, void *codes) {
    static const kind ternary = {TW_I2, NULL, 0, ternary_scale, ternary_code};
    return quantize(b, &ternary, x, scales, codes);
}
