/* Observers by numbers that can be followed by hand, and what is refused.  That they are torchao's
 * in every bit, `tilewright verify --fixtures` shows (tests/cli/test_fixtures.py). */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/observer.h"
#include "tests/base/cmocka_all.h"

typedef struct observed {
    tw_observer o;
    float min[2], max[2], scales[2];
    int32_t zeros[2];
} observed;

static void begin(observed *t, tw_observer_kind kind, int64_t channels) {
    *t = (observed){.o = {.kind = kind,
                          .mapping = TW_MAPPING_ASYMMETRIC,
                          .x = TW_F32,
                          .code = TW_U8,
                          .qmin = 0,
                          .qmax = 255,
                          .channels = channels,
                          .rate = 0.5,
                          .steps = 100}};
    t->o.min = t->min;
    t->o.max = t->max;
}

static const float first[4] = {-1, 2, 3, 4}, second[4] = {-3, 0, 1, 8};

static void test_min_max(void **state) {
    (void)state;
    observed t;
    begin(&t, TW_OBSERVER_MIN_MAX, 0);
    assert_int_equal(tw_observer_see(&t.o, 2, 2, first), TW_OK);
    assert_int_equal(tw_observer_see(&t.o, 1, 4, second), TW_OK);
    assert_int_equal(tw_observer_see(&t.o, 0, 4, second), TW_OK); /* no batch */
    assert_int_equal(t.o.seen, 2);
    assert_true(t.min[0] == -3 && t.max[0] == 8);
    assert_int_equal(tw_observer_choose(&t.o, TW_F32, t.scales, t.zeros), TW_OK);
    assert_true(t.scales[0] == 11.0F / 255);
    assert_int_equal(t.zeros[0], 70); /* 3 / (11 / 255) = 69.5, to even */
}

static void test_channels(void **state) {
    (void)state;
    observed t;
    begin(&t, TW_OBSERVER_MIN_MAX, 2);
    assert_int_equal(tw_observer_see(&t.o, 2, 2, first), TW_OK);
    assert_int_equal(tw_observer_see(&t.o, 2, 2, second), TW_OK);
    assert_true(t.min[0] == -3 && t.max[0] == 2 && t.min[1] == 1 && t.max[1] == 8);
    assert_int_equal(tw_observer_choose(&t.o, TW_F32, t.scales, t.zeros), TW_OK);
    assert_true(t.scales[1] == 8.0F / 255); /* 0 belongs to the range */
    assert_int_equal(t.zeros[1], 0);
}

static void test_average(void **state) {
    (void)state;
    observed t;
    begin(&t, TW_OBSERVER_AVERAGE, 0);
    assert_int_equal(tw_observer_see(&t.o, 1, 4, first), TW_OK);
    assert_true(t.min[0] == -1 && t.max[0] == 4);
    assert_int_equal(tw_observer_see(&t.o, 1, 4, second), TW_OK);
    assert_true(t.min[0] == -2 && t.max[0] == 6);
}

/* One outlier among many: the range that serves the many is far narrower. */
static void test_mse(void **state) {
    (void)state;
    enum { COUNT = 4096 };
    static float x[COUNT];
    observed t;
    begin(&t, TW_OBSERVER_MSE, 0);
    t.o.code = TW_I4;
    t.o.qmin = -8;
    t.o.qmax = 7;
    t.o.mapping = TW_MAPPING_SYMMETRIC;
    for (int i = 0; i < COUNT; i++) x[i] = (float)(i % 255 - 127) / 127;
    x[100] = 4;
    assert_int_equal(tw_observer_see(&t.o, 1, COUNT, x), TW_OK);
    assert_true(t.max[0] >= 0.9F && t.max[0] <= 2 && t.min[0] == -t.max[0]);
    /* Of two batches the last one counts. */
    assert_int_equal(tw_observer_see(&t.o, 1, 4, first), TW_OK);
    assert_true(t.max[0] > 2);
}

static void check_fails(tw_status status, const char *sentence) {
    assert_int_equal(status, TW_INVALID);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s", tw_error_message());
}

static void test_refuses(void **state) {
    (void)state;
    observed t;
    begin(&t, TW_OBSERVER_MIN_MAX, 2);
    check_fails(tw_observer_choose(&t.o, TW_F32, t.scales, t.zeros), "no batch seen");
    check_fails(tw_observer_see(&t.o, 1, 4, first), "expected 2 rows");
    check_fails(tw_observer_see(&t.o, -1, 4, first), "x: shape [-1,4]");
    assert_int_equal(tw_observer_see(&t.o, 2, 2, first), TW_OK);
    check_fails(tw_observer_see(&t.o, 2, 2, (const float[4]){0, 9, INFINITY, 0}),
                "x: inf at [1,0]");
    assert_true(t.max[0] == 2 && t.o.seen == 1);
    t.o.qmax = 256;
    check_fails(tw_observer_choose(&t.o, TW_F32, t.scales, t.zeros), "qmin, qmax: 0 to 256");
    begin(&t, TW_OBSERVER_AVERAGE, 0);
    t.o.rate = 0;
    check_fails(tw_observer_see(&t.o, 1, 4, first), "rate: 0, must be above 0");
    begin(&t, TW_OBSERVER_MSE, 0);
    t.o.steps = 0;
    check_fails(tw_observer_see(&t.o, 1, 4, first), "steps: 0, must be at least 1");
    begin(&t, TW_OBSERVER_MIN_MAX, -1);
    check_fails(tw_observer_see(&t.o, 1, 4, first), "channels: -1");
    begin(&t, TW_OBSERVER_MIN_MAX, 0);
    t.o.x = TW_U8;
    check_fails(tw_observer_see(&t.o, 1, 4, first), "x: dtype u8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_min_max), cmocka_unit_test(test_channels),
        cmocka_unit_test(test_average), cmocka_unit_test(test_mse),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
