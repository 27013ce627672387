/* Small floats: every code comes back, ties go to even, and what is refused.  That they are
 * torchao's in every bit, `tilewright verify --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/floatx.h"
#include "tests/base/cmocka_all.h"

static const tw_floatx formats[] = {{2, 1}, {2, 3}, {3, 2}, {2, 2}, {3, 1}};
static const float largest[] = {6, 7.5F, 28, 7, 24};

/* Magnitudes grow with the codes, so a tie lies between two neighbours: to the even one. */
static void test_codes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        tw_floatx f = formats[i];
        int half = 1 << (f.ebits + f.mbits);
        assert_true(tw_floatx_max(f) == largest[i]);
        for (int code = 0; code < 2 * half; code++) {
            float v = tw_floatx_get(f, code);
            assert_int_equal(tw_floatx_code(f, v), code);
            if (code % half == half - 1) continue;
            float next = tw_floatx_get(f, code + 1), middle = (v + next) / 2;
            assert_int_equal(tw_floatx_code(f, middle), code % 2 ? code + 1 : code);
            assert_int_equal(tw_floatx_code(f, nextafterf(middle, next)), code + 1);
            assert_int_equal(tw_floatx_code(f, nextafterf(middle, v)), code);
        }
        assert_int_equal(tw_floatx_code(f, 1e30F), half - 1);
        assert_int_equal(tw_floatx_code(f, -INFINITY), 2 * half - 1);
    }
}

/* The types that have a dtype agree with it. */
static void test_dtypes(void **state) {
    (void)state;
    static const tw_dtype dtypes[] = {TW_E2M1, TW_E2M3, TW_E3M2};
    for (size_t i = 0; i < 3; i++)
        for (int code = 0; code < 2 << (formats[i].ebits + formats[i].mbits); code++) {
            uint8_t byte = (uint8_t)code;
            assert_true(tw_floatx_get(formats[i], code) == tw_float_get(&byte, dtypes[i], 0));
        }
}

static void test_rows(void **state) {
    (void)state;
    const tw_floatx f = {2, 1};
    const float x[6] = {12, -6, 1, 0, 0, 0};
    float scales[2];
    uint8_t codes[6];
    assert_int_equal(tw_floatx_choose(f, 2, 3, TW_F32, x, scales), TW_OK);
    assert_true(scales[0] == 2 && scales[1] == 1e-12F / 6);
    assert_int_equal(tw_floatx_quantize(f, 2, 3, TW_F32, x, scales, codes), TW_OK);
    assert_int_equal(codes[0], 7);  /* 6 */
    assert_int_equal(codes[1], 13); /* -3 */
    assert_int_equal(codes[2], 1);  /* 0.5 */
    assert_int_equal(codes[3], 0);
    assert_int_equal(tw_floatx_quantize(f, 2, 3, TW_F32, x, NULL, codes), TW_OK);
    assert_int_equal(codes[2], 2); /* 1 */
}

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

static void test_refuses(void **state) {
    (void)state;
    const tw_floatx f = {2, 1}, wide = {5, 2};
    float x[2] = {0, NAN}, scales[2];
    uint8_t codes[2];
    check_fails(tw_floatx_choose(wide, 1, 1, TW_F32, x, scales), "format: e5m2");
    check_fails(tw_floatx_choose(f, 0, 1, TW_F32, x, scales), "x: shape [0,1]");
    check_fails(tw_floatx_choose(f, 1, 1, TW_I8, x, scales), "x: dtype i8");
    check_fails(tw_floatx_quantize(f, 1, 2, TW_F32, x, NULL, codes), "x: nan at [0,1]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
