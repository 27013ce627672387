/* MX and NVFP4 by numbers that can be followed by hand, and what is refused.  That they are
 * torchao's in every bit, `tilewright verify --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/mx.h"
#include "src/quant/nvfp4.h"
#include "tests/base/cmocka_all.h"

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

/* The scale's exponent, and the first code's value times it, for a group that begins with amax. */
static float first_of(tw_mx_rule rule, tw_dtype code, float amax, int *exponent) {
    float x[TW_MX_GROUP] = {amax, 0.25F};
    uint8_t scale, codes[TW_MX_GROUP];
    assert_int_equal(tw_mx_quantize(rule, code, 1, TW_MX_GROUP, TW_F32, x, &scale, codes), TW_OK);
    *exponent = scale - 127;
    return ldexpf(tw_float_get(codes, code, 0), *exponent);
}

/* 7 lies between e2m1's 6 and 8, which needs the next power of two. */
static void test_rules(void **state) {
    (void)state;
    int exponent;
    assert_true(first_of(TW_MX_FLOOR, TW_E2M1, 7, &exponent) == 6 && exponent == 0);
    assert_true(first_of(TW_MX_RCEIL, TW_E2M1, 7, &exponent) == 8 && exponent == 1);
    assert_true(first_of(TW_MX_CEIL, TW_E2M1, 7, &exponent) == 8 && exponent == 1);
    assert_true(first_of(TW_MX_EVEN, TW_E2M1, 7, &exponent) == 8 && exponent == 1);
    assert_true(first_of(TW_MX_EVEN, TW_E2M1, 6.9F, &exponent) == 6 && exponent == 0);
    assert_true(first_of(TW_MX_CEIL, TW_E2M1, 4, &exponent) == 4 && exponent == 0);
    assert_true(first_of(TW_MX_CEIL, TW_E2M1, 5, &exponent) == 4 && exponent == 1); /* 2.5 to 2 */
    assert_true(first_of(TW_MX_RCEIL, TW_E2M1, 6, &exponent) == 6 && exponent == 0);
    assert_true(first_of(TW_MX_FLOOR, TW_E4M3, 448, &exponent) == 448 && exponent == 0);
    assert_true(first_of(TW_MX_FLOOR, TW_E3M2, 28, &exponent) == 28 && exponent == 0);
    assert_true(first_of(TW_MX_FLOOR, TW_E2M3, 7.5F, &exponent) == 7.5F && exponent == 0);
    assert_true(first_of(TW_MX_FLOOR, TW_E5M2, 0, &exponent) == 0 && exponent == -17);
}

static void test_zeros(void **state) {
    (void)state;
    for (int rule = TW_MX_FLOOR; rule <= TW_MX_EVEN; rule++) {
        const float x[TW_MX_GROUP] = {0};
        uint8_t scale, codes[TW_MX_GROUP];
        assert_int_equal(
            tw_mx_quantize((tw_mx_rule)rule, TW_E4M3, 1, TW_MX_GROUP, TW_F32, x, &scale, codes),
            TW_OK);
        assert_int_equal(scale, 0);
        for (int i = 0; i < TW_MX_GROUP; i++) assert_int_equal(codes[i], 0);
    }
}

static void test_nan(void **state) {
    (void)state;
    for (int rule = TW_MX_FLOOR; rule <= TW_MX_EVEN; rule++) {
        float x[2 * TW_MX_GROUP] = {1, NAN, 2};
        uint8_t scales[2], codes[2 * TW_MX_GROUP];
        assert_int_equal(
            tw_mx_quantize((tw_mx_rule)rule, TW_E4M3, 2, TW_MX_GROUP, TW_F32, x, scales, codes),
            TW_OK);
        assert_int_equal(scales[0], 255);
        assert_true(scales[1] < 255);
    }
}

static void test_nvfp4(void **state) {
    (void)state;
    float x[2 * TW_NVFP4_GROUP] = {6, -3, 0.5F, 1}, tensor_scale;
    uint8_t scales[2], codes[TW_NVFP4_GROUP];
    x[TW_NVFP4_GROUP] = 48;
    assert_int_equal(tw_nvfp4_quantize(1, 32, TW_F32, x, 0, scales, codes), TW_OK);
    assert_true(tw_float_get(scales, TW_E4M3, 0) == 1 && tw_float_get(scales, TW_E4M3, 1) == 8);
    assert_int_equal(codes[0], 7 | 13 << 4); /* 6, -3 */
    assert_int_equal(codes[1], 1 | 2 << 4);  /* 0.5, 1 */
    assert_int_equal(codes[8], 7);
    assert_int_equal(tw_nvfp4_tensor_scale(32, TW_F32, x, &tensor_scale), TW_OK);
    assert_true(tensor_scale == 48.0F / 2688);
    assert_int_equal(tw_nvfp4_quantize(1, 32, TW_F32, x, tensor_scale, scales, codes), TW_OK);
    assert_true(tw_float_get(scales, TW_E4M3, 1) == 448 && codes[8] == 7);
}

static void test_refuses(void **state) {
    (void)state;
    float x[32] = {0}, scale;
    uint8_t scales[2], codes[32];
    check_fails(tw_mx_quantize(TW_MX_FLOOR, TW_E8M0, 1, 32, TW_F32, x, scales, codes),
                "codes: dtype e8m0");
    check_fails(tw_mx_quantize(TW_MX_FLOOR, TW_E4M3, 1, 32, TW_F16, x, scales, codes),
                "x: dtype f16");
    check_fails(tw_mx_quantize(TW_MX_FLOOR, TW_E4M3, 1, 33, TW_F32, x, scales, codes),
                "x: shape [1,33], K must be a multiple of 32");
    check_fails(tw_nvfp4_quantize(1, 24, TW_F32, x, 0, scales, codes),
                "x: shape [1,24], K must be a multiple of 16");
    check_fails(tw_nvfp4_quantize(1, 32, TW_F32, x, -1, scales, codes), "tensor_scale: -1");
    check_fails(tw_nvfp4_quantize(1, 32, TW_F16, x, 0, scales, codes), "x: dtype f16");
    x[20] = INFINITY;
    check_fails(tw_nvfp4_quantize(1, 32, TW_F32, x, 0, scales, codes), "x: inf at element 20");
    check_fails(tw_nvfp4_tensor_scale(32, TW_F32, x, &scale), "x: inf at element 20");
}

/* RCEIL as torch computes it: the logarithm is an f32, and under a scale of 2^-127 codes are of x
 * itself. */
static void test_rceil_like_torch(void **state) {
    (void)state;
    float x[TW_MX_GROUP] = {0};
    uint8_t scale, codes[TW_MX_GROUP];
    x[3] = 0x1.c00002p+28F;
    assert_int_equal(tw_mx_quantize(TW_MX_RCEIL, TW_E4M3, 1, TW_MX_GROUP, TW_F32, x, &scale, codes),
                     TW_OK);
    assert_int_equal(scale, 147);
    x[3] = 0x1.c1p+28F;
    assert_int_equal(tw_mx_quantize(TW_MX_RCEIL, TW_E4M3, 1, TW_MX_GROUP, TW_F32, x, &scale, codes),
                     TW_OK);
    assert_int_equal(scale, 148);
    x[3] = -0x1p-120F;
    assert_int_equal(tw_mx_quantize(TW_MX_RCEIL, TW_E4M3, 1, TW_MX_GROUP, TW_F32, x, &scale, codes),
                     TW_OK);
    assert_int_equal(scale, 0);
    assert_int_equal(codes[3], 0x80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rceil_like_torch),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_nvfp4),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
