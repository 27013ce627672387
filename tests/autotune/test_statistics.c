/* Medians and quantiles of what is known by hand. */
#include "autotune/statistics.h"

#include "tests/base/cmocka_all.h"

static void test_median_of_odd_even_and_one(void **state) {
    (void)state;
    double odd[] = {5, 1, 4}, even[] = {8, 2, 1, 4}, one[] = {7};
    assert_true(tw_median(odd, 3) == 4);
    assert_true(tw_median(even, 4) == 3);
    assert_true(tw_median(one, 1) == 7);
}

static void test_quantiles_lie_between_the_nearest(void **state) {
    (void)state;
    double values[] = {50, 20, 10, 40, 30};
    tw_sort(values, 5);
    for (int i = 0; i < 5; i++) assert_true(values[i] == 10 * (i + 1));
    assert_true(tw_quantile(values, 5, 0) == 10);
    assert_true(tw_quantile(values, 5, 1) == 50);
    assert_true(tw_quantile(values, 5, 0.25) == 20);
    assert_true(tw_quantile(values, 5, 0.125) == 15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median_of_odd_even_and_one),
        cmocka_unit_test(test_quantiles_lie_between_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
