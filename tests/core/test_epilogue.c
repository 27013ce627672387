/* The activation functions of the epilogue. */
#include <float.h>
#include <math.h>

#include "src/core/reference.h"
#include "tests/base/cmocka_all.h"

/* Against the same functions in long double; the formulas lose a few units in the last place. */
static void test_act_functions(void **state) {
    (void)state;
    for (int i = -480; i <= 480; i++) {
        double v = i / 16.0;
        long double x = v, cube = x + 0.044715L * x * x * x,
                    root_2_over_pi = 0.797884560802865355879892L;
        long double gelu = x * erfcl(-x * 0.707106781186547524400844L) / 2;
        long double silu = x / (1 + expl(-x));
        long double gelu_tanh = x / (1 + expl(-2 * root_2_over_pi * cube));
        assert_true(tw_act_apply(TW_ACT_NONE, v) == v);
        assert_true(tw_act_apply(TW_ACT_RELU, v) == (v > 0 ? v : 0));
        assert_true(fabsl((long double)tw_act_apply(TW_ACT_GELU, v) - gelu) <=
                    fabsl(gelu) * (8 + 2 * v * v) * DBL_EPSILON);
        assert_true(fabsl((long double)tw_act_apply(TW_ACT_SILU, v) - silu) <=
                    fabsl(silu) * 4 * DBL_EPSILON);
        assert_true(fabsl((long double)tw_act_apply(TW_ACT_GELU_TANH, v) - gelu_tanh) <=
                    fabsl(gelu_tanh) * (8 + 4 * fabsl(cube)) * DBL_EPSILON + DBL_MIN);
    }
    /* Abramowitz and Stegun, table 26.1: the normal distribution at 1. */
    assert_true(fabs(tw_act_apply(TW_ACT_GELU, 1) - 0.841344746068543) < 1e-14);
    assert_true(tw_act_apply(TW_ACT_SILU, -1000) == 0 && tw_act_apply(TW_ACT_GELU, -50) == 0);
    for (int act = TW_ACT_NONE; act <= TW_ACT_SILU; act++) {
        assert_true(isnan(tw_act_apply((tw_act)act, NAN)));
        assert_true(tw_act_apply((tw_act)act, INFINITY) == (double)INFINITY);
        /* As kernels have it, which bound the exponential. */
        assert_true(tw_act_apply((tw_act)act, -INFINITY) ==
                    (act == TW_ACT_RELU ? 0 : -(double)INFINITY));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_act_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
