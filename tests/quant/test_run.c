/* Vectorized runs against the formulas element by element: tails, roundings, what is refused. */
#include <math.h>
#include <string.h>

#include "src/core/dtype.h"
#include "src/quant/run.h"
#include "tests/base/cmocka_all.h"

enum { MOST = 600 };

/* Ties, both zeros, tiny, huge and infinite values among ordinary ones. */
static void fill(float *x) {
    static const float special[] = {0,         -0.0F,   0.5F,     -0.5F, 1.5F,   2.5F, -2.5F,
                                    0x1p-149F, 0x1p22F, -0x1p23F, 1e38F, -1e38F, 7.5F, 1048576.5F};
    uint32_t seed = 1;
    for (int i = 0; i < MOST; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = i % 3 ? (float)(seed >> 8) / 0x1p20F - 8 : special[i / 3 % 14];
    }
}

static void check_codes(const float *x, int64_t count, tw_dtype dtype, float inverse,
                        int32_t zero) {
    uint8_t codes[MOST + 1], expected[MOST + 1] = {0};
    int32_t least = tw_dtype_min(dtype), most = tw_dtype_max(dtype);
    memset(codes, 0xA5, sizeof codes);
    assert_true(tw_run_codes(x, count, inverse, zero, least, most, dtype, codes));
    for (int64_t k = 0; k < count; k++) {
        float code = rintf(x[k] * inverse) + (float)zero;
        tw_code_set(expected, dtype, k, (int32_t)fminf(fmaxf(code, (float)least), (float)most));
    }
    size_t bytes = tw_dtype_row_bytes(dtype, count);
    assert_memory_equal(codes, expected, bytes);
    assert_int_equal(codes[bytes], 0xA5); /* nothing behind them is written */
}

static void test_codes(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 15, 16, 17, 127, 128, 255, 256, 257, 513, MOST};
    static const tw_dtype dtypes[] = {TW_U4, TW_I4, TW_U8, TW_I8};
    static const float inverses[] = {0, 1, 0.3F, 1e-30F, 0x1p126F};
    float x[MOST];
    fill(x);
    for (size_t c = 0; c < 12; c++)
        for (size_t d = 0; d < 4; d++)
            for (size_t i = 0; i < 5; i++)
                for (int zero = tw_dtype_min(dtypes[d]); zero <= tw_dtype_max(dtypes[d]); zero += 5)
                    check_codes(x, counts[c], dtypes[d], inverses[i], zero);
}

static void test_range(void **state) {
    (void)state;
    float x[MOST];
    fill(x);
    for (int count = 1; count <= 100; count++) {
        float min = INFINITY, max = -INFINITY, least = INFINITY, most = -INFINITY;
        assert_true(tw_run_range(x, count, &min, &max));
        for (int i = 0; i < count; i++) least = fminf(least, x[i]), most = fmaxf(most, x[i]);
        assert_true(min == least && max == most);
    }
}

/* Wherever it stands. */
static void test_refuses(void **state) {
    (void)state;
    uint8_t codes[MOST];
    for (int at = 0; at < 40; at++) {
        float x[40] = {0}, min = INFINITY, max = -INFINITY;
        x[at] = NAN;
        assert_false(tw_run_codes(x, 40, 1, 0, 0, 15, TW_U4, codes));
        assert_false(tw_run_range(x, 40, &min, &max));
        x[at] = -INFINITY, min = INFINITY, max = -INFINITY;
        assert_false(tw_run_range(x, 40, &min, &max));
    }
    const float one = 1;
    assert_false(tw_run_codes(&one, 1, 1, 0, 0, 7, TW_U3, codes));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
