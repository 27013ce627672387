/* Affine primitives: groups that do not divide, rounding by dtype, and what is refused.  That they
 * are torchao's in every bit, `tilewright verify --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/affine.h"
#include "src/quant/run.h"
#include "tests/base/cmocka_all.h"

static const tw_affine base = {.N = 3,
                               .K = 5,
                               .group_n = 2,
                               .group_k = 4,
                               .x = TW_F32,
                               .scale = TW_F32,
                               .code = TW_U4,
                               .qmin = 0,
                               .qmax = 15};
static const float x[15] = {0, 1.5F, 3, -1.5F, 8, 6, 0, 0, 0, -2, 1, 2, 3, 4, -15};

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

/* Four groups: 2x4, 2x1, 1x4, 1x1. */
static void test_short_groups(void **state) {
    (void)state;
    float scales[4], back[15];
    int32_t zeros[4];
    uint8_t codes[9];
    assert_int_equal(tw_affine_choose(&base, TW_MAPPING_ASYMMETRIC, true, 0, x, scales, zeros),
                     TW_OK);
    const float expected[4] = {7.5F / 15, 10.0F / 15, 4.0F / 15, 1};
    for (int i = 0; i < 4; i++) assert_true(scales[i] == expected[i]);
    const int32_t zero[4] = {3, 3, 0, 15};
    assert_memory_equal(zeros, zero, sizeof zero);
    assert_int_equal(tw_affine_quantize(&base, x, scales, zeros, codes), TW_OK);
    assert_int_equal(codes[0], 3 | 6 << 4);
    assert_int_equal(codes[2], 15); /* 8 in a group of its own; the pad nibble is 0 */
    assert_int_equal(codes[8], 0);  /* -15 = (0 - 15) * 1 */
    assert_int_equal(tw_affine_dequantize(&base, codes, scales, zeros, back), TW_OK);
    assert_true(back[0] == 0 && back[1] == 1.5F && back[2] == 3 && back[3] == -1.5F);
    assert_true(back[14] == -15);
}

static void test_symmetric(void **state) {
    (void)state;
    tw_affine a = base;
    float scales[4];
    int32_t zeros[4];
    a.code = TW_I4, a.qmin = -8, a.qmax = 7;
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_SYMMETRIC, true, 0, x, scales, zeros), TW_OK);
    assert_true(scales[0] == 6 / 7.5F && zeros[0] == 0);
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_SYMMETRIC_NO_CLIP, true, 0, x, scales, zeros),
                     TW_OK);
    assert_true(scales[0] == 6.0F / 7 && scales[3] == 15.0F / 8);
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_SYMMETRIC, true, 3.0, x, scales, zeros),
                     TW_OK);
    assert_true(scales[2] == 3); /* eps */
    a = base;
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_SYMMETRIC, true, 0, x, scales, zeros), TW_OK);
    assert_int_equal(zeros[0], 8);
}

/* 1 / s is rounded to bf16 before the product, and that to bf16 before it is rounded to a code. */
static void test_rounding_by_dtype(void **state) {
    (void)state;
    tw_affine a = {.N = 1,
                   .K = 1,
                   .group_n = 1,
                   .group_k = 1,
                   .x = TW_BF16,
                   .scale = TW_BF16,
                   .code = TW_I8,
                   .qmin = -128,
                   .qmax = 127};
    uint16_t value, scale;
    int8_t code;
    int32_t zero = 0;
    tw_float_set(&value, TW_BF16, 0, 10.0625F);
    tw_float_set(&scale, TW_BF16, 0, 0.1F);
    assert_int_equal(tw_affine_quantize(&a, &value, &scale, &zero, &code), TW_OK);
    assert_int_equal(code, 100); /* 10.0625 * 10 = 100.625, in bf16 100.5, to even 100 */
    float wide = tw_float_get(&scale, TW_BF16, 0);
    a.scale = TW_F32;
    assert_int_equal(tw_affine_quantize(&a, &value, &wide, &zero, &code), TW_OK);
    assert_int_equal(code, 101); /* 100.5215... in f32 */
}

static void test_degenerate(void **state) {
    (void)state;
    tw_affine a = base;
    float zero_scales[4] = {0};
    int32_t zeros[4] = {5, 5, 5, 5};
    uint8_t codes[9];
    assert_int_equal(tw_affine_quantize(&a, x, zero_scales, zeros, codes), TW_OK);
    assert_int_equal(codes[0], 0 | 15 << 4); /* 0 * inf is NaN, 1.5 * inf above all codes */
    float same[15] = {0}, scales[4];
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_ASYMMETRIC, true, 0, same, scales, zeros),
                     TW_OK);
    assert_true(scales[0] == 0x1p-126F && zeros[0] == 0);
}

static void test_refuses(void **state) {
    (void)state;
    tw_affine a = base;
    float scales[4] = {1, 1, 1, 1}, bad[15] = {0};
    int32_t zeros[4] = {0};
    uint8_t codes[9];
    a.qmax = 16;
    check_fails(tw_affine_choose(&a, TW_MAPPING_ASYMMETRIC, true, 0, x, scales, zeros),
                "qmin, qmax: 0 to 16, expected a range within u4's 0 to 15");
    a = base, a.group_k = 0;
    check_fails(tw_affine_quantize(&a, x, scales, zeros, codes), "group: 2x0");
    a = base, a.N = 0;
    check_fails(tw_affine_dequantize(&a, codes, scales, zeros, bad), "x: shape [0,5]");
    a = base, a.x = TW_I8;
    check_fails(tw_affine_quantize(&a, x, scales, zeros, codes), "x: dtype i8");
    a = base, a.scale = TW_E8M0;
    check_fails(tw_affine_quantize(&a, x, scales, zeros, codes), "scales: dtype e8m0");
    a = base, a.code = TW_F16;
    check_fails(tw_affine_quantize(&a, x, scales, zeros, codes), "codes: dtype f16");
    check_fails(tw_affine_choose(&base, TW_MAPPING_SYMMETRIC_NO_CLIP, true, 0, x, scales, zeros),
                "without clipping neither may be 0");
    bad[7] = NAN;
    check_fails(tw_affine_choose(&base, TW_MAPPING_ASYMMETRIC, true, 0, bad, scales, zeros),
                "x: nan at [1,2], must be finite");
    check_fails(tw_affine_quantize(&base, bad, scales, zeros, codes), "x: nan at [1,2]");
}

static tw_affine group_of_four(tw_dtype code, int32_t qmin, int32_t qmax) {
    return (tw_affine){.N = 1,
                       .K = 4,
                       .group_n = 1,
                       .group_k = 4,
                       .x = TW_F32,
                       .scale = TW_F32,
                       .code = code,
                       .qmin = qmin,
                       .qmax = qmax};
}

/* Without 0 in the range: a group from 1 to 2.5 by steps of 0.1. */
static void test_any_range(void **state) {
    (void)state;
    tw_affine a = group_of_four(TW_U4, 0, 15);
    const float some[4] = {1, 1.5F, 2, 2.5F};
    float scale, value, back[4];
    int32_t zero;
    uint8_t codes[2];
    assert_int_equal(tw_affine_choose(&a, TW_MAPPING_ASYMMETRIC, false, 0, some, &scale, &zero),
                     TW_OK);
    assert_true(scale == 1.5F / 15 && zero == 0); /* -10 is no code */
    check_fails(tw_affine_choose(&a, TW_MAPPING_SYMMETRIC, false, 0, some, &scale, &zero),
                "preserve_zero: false");
    assert_int_equal(tw_affine_choose_values(&a, 0, some, &scale, &value), TW_OK);
    assert_true(scale == 1.5F / 15 && fabsf(value - 1.8F) < 1e-6F); /* 1 + 8 * 0.1 */
    assert_int_equal(tw_affine_quantize_values(&a, some, &scale, &value, codes), TW_OK);
    assert_int_equal(codes[0], 0 | 5 << 4);
    assert_int_equal(codes[1], 10 | 15 << 4);
    assert_int_equal(tw_affine_dequantize_values(&a, codes, &scale, &value, back), TW_OK);
    for (int i = 0; i < 4; i++) assert_true(fabsf(back[i] - some[i]) < 1e-6F);
}

static void test_fake_quantize(void **state) {
    (void)state;
    tw_affine a = group_of_four(TW_I4, -8, 7);
    const float some[4] = {0.4F, -8, 7.5F, -9}, scale = 1, gradient[4] = {1, 2, 3, 4};
    const int32_t zero = 0;
    float y[4], back[4];
    uint8_t mask[4];
    assert_int_equal(tw_affine_fake_quantize(&a, some, &scale, &zero, y, mask), TW_OK);
    const float expected[4] = {0, -8, 7, -8}, passed[4] = {1, 2, 0, 0};
    const uint8_t inside[4] = {1, 1, 0, 0}; /* 7.5 to even is 8 */
    for (int i = 0; i < 4; i++) assert_true(y[i] == expected[i]);
    assert_memory_equal(mask, inside, sizeof mask);
    assert_int_equal(tw_affine_fake_quantize_backward(&a, gradient, mask, back), TW_OK);
    for (int i = 0; i < 4; i++) assert_true(back[i] == passed[i]);
}

/* All steps at once give what the steps give one by one, on every set of instructions; for rows of
 * any length, groups of all sizes, values that are alike, tiny or 0. */
static void fit_both(const tw_affine *a, tw_mapping mapping, const float *x) {
    enum { MOST = 4096 };
    float scales[MOST], expected_scales[MOST];
    int32_t zeros[MOST], expected_zeros[MOST];
    uint8_t codes[MOST], expected[MOST];
    int64_t groups = a->N * tw_ceil_div(a->K, a->group_k);
    memset(codes, 0xA5, sizeof codes);
    memset(expected, 0xA5, sizeof expected);
    assert_int_equal(tw_affine_choose(a, mapping, true, 1e-6, x, expected_scales, expected_zeros),
                     TW_OK);
    assert_int_equal(tw_affine_quantize(a, x, expected_scales, expected_zeros, expected), TW_OK);
    assert_int_equal(tw_affine_fit(a, mapping, 1e-6, x, scales, zeros, codes), TW_OK);
    assert_memory_equal(scales, expected_scales, (size_t)groups * sizeof *scales);
    assert_memory_equal(zeros, expected_zeros, (size_t)groups * sizeof *zeros);
    assert_memory_equal(codes, expected, sizeof codes);
}

/* Zeros that are not there leave a zero its sign. */
static void test_minus_zero(void **state) {
    (void)state;
    const tw_affine a = {.N = 1,
                         .K = 1,
                         .group_n = 1,
                         .group_k = 1,
                         .x = TW_F32,
                         .scale = TW_F32,
                         .code = TW_I8,
                         .qmin = -128,
                         .qmax = 127};
    const float v = -0.1F, scale = 1;
    float y;
    uint8_t mask;
    assert_int_equal(tw_affine_fake_quantize(&a, &v, &scale, NULL, &y, &mask), TW_OK);
    assert_true(y == 0 && signbit(y) && mask == 1);
    assert_int_equal(tw_affine_fake_quantize(&a, &v, &scale, (const int32_t[]){0}, &y, &mask),
                     TW_OK);
    assert_true(y == 0 && !signbit(y));
}

static void test_fit(void **state) {
    (void)state;
    static const char *const isas[] = {"plain", "avx2", "avx512"};
    static const tw_dtype dtypes[] = {TW_U4, TW_I4, TW_U8, TW_I8, TW_U3, TW_I2, TW_U1};
    static const int groups[] = {8, 16, 24, 32, 64, 128, 300, 1000};
    static const int columns[] = {1, 7, 31, 64, 127, 300, 1000};
    static float x[2 * 1000];
    uint32_t seed = 1;
    for (int i = 0; i < 2000; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = i / 40 % 5 == 1 ? 0 : i / 40 % 5 == 2 ? 3 : (float)(seed >> 8) / 0x1p23F - 1;
        if (i / 40 % 5 == 3) x[i] *= 1e-30F;
        if (i / 40 % 5 == 4) x[i] = fabsf(x[i]) * (i / 200 % 2 ? -100 : 100);
    }
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (size_t d = 0; d < TW_COUNT(dtypes); d++)
            for (size_t g = 0; g < TW_COUNT(groups); g++)
                for (size_t k = 0; k < TW_COUNT(columns); k++) {
                    tw_affine a = {.N = 2,
                                   .K = columns[k],
                                   .group_n = 1,
                                   .group_k = groups[g],
                                   .x = TW_F32,
                                   .scale = TW_F32,
                                   .code = dtypes[d],
                                   .qmin = tw_dtype_min(dtypes[d]),
                                   .qmax = tw_dtype_max(dtypes[d])};
                    fit_both(&a, TW_MAPPING_ASYMMETRIC, x);
                    if (tw_dtype_is_signed(dtypes[d])) fit_both(&a, TW_MAPPING_SYMMETRIC, x);
                }
        tw_affine a = {.N = 2,
                       .K = 1000,
                       .group_n = 1,
                       .group_k = 128,
                       .x = TW_F32,
                       .scale = TW_F32,
                       .code = TW_U4,
                       .qmax = 15};
        float scales[16], kept = x[1777];
        int32_t zeros[16];
        uint8_t codes[1000];
        x[1777] = isa ? NAN : -INFINITY;
        assert_int_equal(tw_affine_fit(&a, TW_MAPPING_ASYMMETRIC, 0, x, scales, zeros, codes),
                         TW_INVALID);
        assert_non_null(strstr(tw_error_message(), "[1,777]"));
        x[1777] = kept;
    }
    tw_run_force(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_groups),
        cmocka_unit_test(test_symmetric),
        cmocka_unit_test(test_rounding_by_dtype),
        cmocka_unit_test(test_degenerate),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_any_range),
        cmocka_unit_test(test_fake_quantize),
        cmocka_unit_test(test_minus_zero),
        cmocka_unit_test(test_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
