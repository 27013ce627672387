/* NF4 and ternary weights, by values worked out here. */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/table.h"
#include "tests/base/cmocka_all.h"

enum { K = 20 };

/* Values that the table has, times a scale, come back; so do the neighbours of half ways. */
static void test_nf4(void **state) {
    (void)state;
    tw_blocks b = {1, K, 1, 16, TW_F32, TW_F32};
    float x[K] = {0}, scales[2];
    uint8_t codes[K / 2];
    for (int i = 0; i < 16; i++) x[i] = 4 * tw_nf4_values[i];
    assert_int_equal(tw_table_quantize(&b, tw_nf4_values, x, scales, codes), TW_OK);
    assert_true(scales[0] == 4 && scales[1] == 0);
    for (int i = 0; i < 16; i++) assert_int_equal(tw_code_get(codes, TW_LUT4, i), i);
    for (int i = 16; i < K; i++) assert_int_equal(tw_code_get(codes, TW_LUT4, i), 7);
    for (int i = 1; i < 15; i++) {
        float middle = 2 * (tw_nf4_values[i] + tw_nf4_values[i + 1]);
        x[i] = middle + (i % 2 ? 1e-3f : -1e-3f);
    }
    assert_int_equal(tw_table_quantize(&b, tw_nf4_values, x, scales, codes), TW_OK);
    for (int i = 1; i < 15; i++) assert_int_equal(tw_code_get(codes, TW_LUT4, i), i + i % 2);
}

static void test_ternary(void **state) {
    (void)state;
    tw_blocks b = {2, 4, 2, 4, TW_F32, TW_F32};
    const float x[8] = {-3, 0.4f, 0.6f, 0, 1, -1, 1.5f, -0.5f}; /* mean 1 */
    const int expected[8] = {-1, 0, 1, 0, 1, -1, 1, 0};         /* -0.5 goes to the even 0 */
    const float nothing[8] = {0};
    float scale;
    uint8_t codes[2];
    assert_int_equal(tw_ternary_quantize(&b, x, &scale, codes), TW_OK);
    assert_true(fabsf(scale - 1) < 1e-6f);
    for (int i = 0; i < 8; i++)
        assert_int_equal(tw_code_get(codes + i / 4, TW_I2, i % 4), expected[i]);
    assert_int_equal(tw_ternary_quantize(&b, nothing, &scale, codes), TW_OK);
    assert_true(scale == 1e-5f && !codes[0] && !codes[1]);
}

static void test_refuses(void **state) {
    (void)state;
    tw_blocks b = {1, 4, 1, 4, TW_F32, TW_F32};
    float x[4] = {0, 1, NAN, 0}, scale;
    uint8_t codes[4];
    assert_int_equal(tw_table_quantize(&b, tw_nf4_values, x, &scale, codes), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "at [0,2]"));
    x[2] = INFINITY;
    assert_int_equal(tw_ternary_quantize(&b, x, &scale, codes), TW_INVALID);
    b.group_k = 0;
    assert_int_equal(tw_table_quantize(&b, tw_nf4_values, x, &scale, codes), TW_INVALID);
    b = (tw_blocks){1, 4, 1, 4, TW_U8, TW_F32};
    assert_int_equal(tw_ternary_quantize(&b, x, &scale, codes), TW_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4),
        cmocka_unit_test(test_ternary),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
