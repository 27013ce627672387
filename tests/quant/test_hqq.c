/* HQQ: short groups, constant rows, and what is refused.  That it is torchao's, `tilewright verify
 * --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/hqq.h"
#include "tests/base/cmocka_all.h"

enum { N = 3, K = 10, GROUP = 4, GROUPS = 3 };

/* Values whose first range holds them exactly: step 1/4 from -1. */
static void fill(float *x) {
    for (int i = 0; i < N * K; i++) x[i] = (float)(i * 7 % 16) / 4 - 1;
}

static float value_of(const uint8_t *codes, const float *scales, const float *zeros, int n, int k) {
    int at = n * GROUPS + k / GROUP;
    size_t row = tw_dtype_row_bytes(TW_U4, K) * (size_t)n;
    return ((float)tw_code_get(codes + row, TW_U4, k) - zeros[at]) * scales[at];
}

static void test_short_groups(void **state) {
    (void)state;
    float x[N * K], scales[N * GROUPS], zeros[N * GROUPS];
    uint8_t codes[N * K];
    fill(x);
    assert_int_equal(tw_hqq_quantize(4, N, K, GROUP, TW_F32, x, scales, zeros, codes), TW_OK);
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            float step = scales[n * GROUPS + k / GROUP];
            assert_true(fabsf(value_of(codes, scales, zeros, n, k) - x[n * K + k]) <= step);
        }
    /* The last group of a row sees its two columns alone. */
    float range = fmaxf(x[8], x[9]) - fminf(x[8], x[9]);
    assert_true(fabsf(scales[2] - range / 15) <= 1e-6F * range);
}

static void test_constant_rows(void **state) {
    (void)state;
    float x[K], scales[GROUPS], zeros[GROUPS];
    uint8_t codes[K];
    for (int k = 0; k < K; k++) x[k] = 0;
    assert_int_equal(tw_hqq_quantize(4, 1, K, GROUP, TW_F32, x, scales, zeros, codes), TW_OK);
    for (int k = 0; k < K; k++) assert_true(value_of(codes, scales, zeros, 0, k) == 0);
    assert_true(scales[0] == 1 / 2e4F);
}

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

static void test_refuses(void **state) {
    (void)state;
    float x[N * K], s[N * GROUPS], z[N * GROUPS];
    uint8_t q[N * K];
    fill(x);
    check_fails(tw_hqq_quantize(0, N, K, GROUP, TW_F32, x, s, z, q), "bits: 0, must be");
    check_fails(tw_hqq_quantize(9, N, K, GROUP, TW_F32, x, s, z, q), "bits: 9, must be");
    check_fails(tw_hqq_quantize(4, 0, K, GROUP, TW_F32, x, s, z, q), "x: shape [0,10]");
    check_fails(tw_hqq_quantize(4, N, K, 0, TW_F32, x, s, z, q), "group: 1x0");
    check_fails(tw_hqq_quantize(4, N, K, GROUP, TW_U4, x, s, z, q), "x: dtype u4");
    x[13] = NAN;
    check_fails(tw_hqq_quantize(4, N, K, GROUP, TW_F32, x, s, z, q), "x: nan at [1,3]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_groups),
        cmocka_unit_test(test_constant_rows),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
