/* Scaled float8: groups that do not divide, and what is refused.  That it is torchao's in every
 * bit, `tilewright verify --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/float8.h"
#include "tests/base/cmocka_all.h"

static const tw_float8 base = {
    .N = 2, .K = 3, .group_n = 1, .group_k = 2, .x = TW_F32, .code = TW_E4M3};
static const float x[6] = {448, -224, 7, 0, 0, -1};

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

static void test_short_groups(void **state) {
    (void)state;
    float scales[4];
    uint8_t codes[6];
    assert_int_equal(tw_float8_choose(&base, x, scales), TW_OK);
    const float expected[4] = {1, 7.0F / 448, 0, 1.0F / 448};
    for (int i = 0; i < 4; i++) assert_true(scales[i] == expected[i]);
    assert_int_equal(tw_float8_quantize(&base, x, scales, codes), TW_OK);
    assert_true(tw_float_get(codes, TW_E4M3, 0) == 448);
    assert_true(tw_float_get(codes, TW_E4M3, 1) == -224);
    assert_true(tw_float_get(codes, TW_E4M3, 2) == 448);
    assert_true(isnan(tw_float_get(codes, TW_E4M3, 3))); /* 0 / 0 */
    assert_true(tw_float_get(codes, TW_E4M3, 5) == -448);
}

static void test_clamps(void **state) {
    (void)state;
    tw_float8 f = base;
    const float small[4] = {0.5F, 0.5F, 1, 1};
    uint8_t codes[6];
    f.code = TW_E5M2;
    assert_int_equal(
        tw_float8_quantize(&f, (const float[6]){1e9F, -1e9F, 3, 1, 1, 1}, small, codes), TW_OK);
    assert_true(tw_float_get(codes, TW_E5M2, 0) == 57344);
    assert_true(tw_float_get(codes, TW_E5M2, 1) == -57344);
    assert_true(tw_float_get(codes, TW_E5M2, 2) == 6);
}

static void test_refuses(void **state) {
    (void)state;
    tw_float8 f = base;
    float scales[4] = {1, 1, 1, 1}, bad[6] = {0};
    uint8_t codes[6];
    f.code = TW_E2M1;
    check_fails(tw_float8_choose(&f, x, scales), "codes: dtype e2m1, expected e4m3 or e5m2");
    f = base, f.group_n = 0;
    check_fails(tw_float8_quantize(&f, x, scales, codes), "group: 0x2");
    f = base, f.K = 0;
    check_fails(tw_float8_choose(&f, x, scales), "x: shape [2,0]");
    f = base, f.x = TW_U8;
    check_fails(tw_float8_choose(&f, x, scales), "x: dtype u8");
    bad[4] = INFINITY;
    check_fails(tw_float8_choose(&base, bad, scales), "x: inf at [1,1], must be finite");
    bad[4] = NAN;
    check_fails(tw_float8_quantize(&base, bad, scales, codes), "x: nan at [1,1]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_groups),
        cmocka_unit_test(test_clamps),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
