/* Codebooks by k-means: what has sixteen values comes back, centres are where they have to be, and
 * data of any shape is nearer to its own centres than to a table for normal data. */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/codebook.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/random.h"

enum { N = 24, K = 100 };

typedef struct result {
    float scales[N * K], lut[TW_LUT4_SIZE];
    uint8_t codes[N * K];
} result;

static const tw_blocks rows = {N, K, 1, K, TW_F32, TW_F32};

static void quantize(const tw_blocks *b, const void *x, result *out) {
    if (tw_codebook_quantize(b, x, out->scales, out->codes, out->lut) != TW_OK)
        fail_msg("%s", tw_error_message());
    for (int c = 1; c < TW_LUT4_SIZE; c++) assert_true(out->lut[c - 1] <= out->lut[c]);
}

static int code_at(const result *r, int n, int k) {
    return tw_code_get(r->codes + (size_t)n * tw_dtype_row_bytes(TW_LUT4, K), TW_LUT4, k);
}

static float weight_at(const result *r, int n, int k) {
    return r->lut[code_at(r, n, k)] * r->scales[n];
}

static void test_few_values(void **state) {
    (void)state;
    static const float values[] = {-1, -0.75f, -0.3f, -0.25f, -0.2f, -0.125f, -0.01f, 0,
                                   1,  0.05f,  0.1f,  0.2f,   0.3f,  0.55f,   0.7f,   0.9f};
    float x[N * K];
    result r;
    for (int distinct = 1; distinct <= 16; distinct++) {
        for (int i = 0; i < N * K; i++) {
            int power = i / K % 7 - 3;
            int at = i * 7 % distinct;
            x[i] = ldexpf(i % K == 3 ? values[0] : values[at], power);
        }
        quantize(&rows, x, &r);
        for (int i = 0; i < N * K; i++) {
            float is = weight_at(&r, i / K, i % K);
            if (fabsf(is - x[i]) > 1e-6f * fabsf(x[i]))
                fail_msg("%d values: %g, expected %g", distinct, (double)is, (double)x[i]);
        }
    }
}

/* Zeros, and rows of them among others. */
static void test_zeros(void **state) {
    (void)state;
    float x[N * K] = {0};
    result r;
    quantize(&rows, x, &r);
    for (int i = 0; i < N * K; i++) assert_true(weight_at(&r, i / K, i % K) == 0);
    uint64_t seed = 3;
    for (int i = 5 * K; i < N * K; i++) x[i] = random_unit(&seed);
    quantize(&rows, x, &r);
    for (int i = 0; i < 5 * K; i++) assert_true(fabsf(weight_at(&r, i / K, i % K)) < 1e-9f);
}

/* Every value has the nearest centre's code, and every centre is the mean of its values, to a bin's
 * width. */
static void test_centres(void **state) {
    (void)state;
    static float x[N * K];
    result r;
    uint64_t seed = 9;
    double sums[TW_LUT4_SIZE] = {0}, counts[TW_LUT4_SIZE] = {0};
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) x[n * K + k] = powf(random_unit(&seed), 3) * (float)(1 + n);
    quantize(&rows, x, &r);
    for (int i = 0; i < N * K; i++) {
        float v = x[i] / r.scales[i / K];
        int code = code_at(&r, i / K, i % K);
        for (int c = 0; c < TW_LUT4_SIZE; c++)
            assert_true(fabsf(r.lut[code] - v) <= fabsf(r.lut[c] - v) + 1e-6f);
        sums[code] += (double)v;
        counts[code]++;
    }
    for (int c = 0; c < TW_LUT4_SIZE; c++) {
        assert_true(counts[c] > 0);
        assert_true(fabs(sums[c] / counts[c] - (double)r.lut[c]) < 1e-3);
    }
}

static double error_of(const float *x, const uint8_t *codes, const float *scales,
                       const float *lut) {
    double errors = 0;
    size_t row = tw_dtype_row_bytes(TW_LUT4, K);
    for (int i = 0; i < N * K; i++) {
        int code = tw_code_get(codes + (size_t)(i / K) * row, TW_LUT4, i % K);
        double d = (double)(lut[code] * scales[i / K]) - (double)x[i];
        errors += d * d;
    }
    return errors;
}

static void test_beats_a_fixed_table(void **state) {
    (void)state;
    static float x[N * K], scales[N];
    static uint8_t codes[N * K];
    result r;
    for (int kind = 0; kind < 3; kind++) {
        uint64_t seed = 1 + (uint64_t)kind;
        for (int i = 0; i < N * K; i++) {
            float v = random_unit(&seed);
            x[i] = kind == 0   ? v
                   : kind == 1 ? v * v * v
                               : v + random_unit(&seed) + random_unit(&seed);
        }
        quantize(&rows, x, &r);
        assert_int_equal(tw_table_quantize(&rows, tw_nf4_values, x, scales, codes), TW_OK);
        double own = error_of(x, r.codes, r.scales, r.lut),
               fixed = error_of(x, codes, scales, tw_nf4_values);
        if (!(own < fixed)) fail_msg("kind %d: %g, by NF4 %g", kind, own, fixed);
    }
}

/* Groups, blocks and dtypes: w comes near x whatever they are. */
static void test_blocks(void **state) {
    (void)state;
    static const tw_blocks all[] = {{N, K, 1, 32, TW_BF16, TW_BF16},
                                    {N, K, 5, 30, TW_F16, TW_F16},
                                    {N, K, N, K, TW_F32, TW_BF16}};
    for (size_t i = 0; i < TW_COUNT(all); i++) {
        const tw_blocks *b = &all[i];
        float x[N * K];
        result r;
        uint64_t seed = i + 1;
        double errors = 0, energy = 0;
        for (int j = 0; j < N * K; j++) tw_float_set(x, b->x, j, random_unit(&seed));
        quantize(b, x, &r);
        for (int c = 0; c < TW_LUT4_SIZE; c++)
            assert_true(tw_float_round(b->x, r.lut[c]) == r.lut[c]);
        for (int j = 0; j < N * K; j++) {
            int n = j / K, k = j % K;
            int64_t at = n / b->group_n * tw_ceil_div(K, b->group_k) + k / b->group_k;
            double v = (double)tw_float_get(x, b->x, j);
            double d =
                (double)(r.lut[code_at(&r, n, k)] * tw_float_get(r.scales, b->scale, at)) - v;
            errors += d * d;
            energy += v * v;
        }
        assert_true(errors < energy / 100);
    }
}

static void test_refuses(void **state) {
    (void)state;
    float x[N * K] = {[130] = NAN};
    result r;
    assert_int_equal(tw_codebook_quantize(&rows, x, r.scales, r.codes, r.lut), TW_INVALID);
    assert_string_equal(tw_error_message(), "x: nan at [1,30], must be finite");
    tw_blocks b = rows;
    b.group_k = 0;
    assert_int_equal(tw_codebook_quantize(&b, x, r.scales, r.codes, r.lut), TW_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_values), cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_centres),    cmocka_unit_test(test_beats_a_fixed_table),
        cmocka_unit_test(test_blocks),     cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
