/* Where tuning finds that no kernel is right, none is run as a guess afterwards.  The tuner is this
 * file's: the linker puts __wrap_tw_tune in its place. */
#include <stdlib.h>
#include <string.h>

#include "autotune/tune.h"
#include "src/base/status.h"
#include "tests/capi/fixture.h"

tw_status __wrap_tw_tune(const tw_tune_request *request, const tw_tune_hooks *hooks,
                         tw_tune_result *out);
tw_status __wrap_tw_tune(const tw_tune_request *request, const tw_tune_hooks *hooks,
                         tw_tune_result *out) {
    (void)request, (void)hooks, (void)out;
    return tw_fail(TW_VERIFY, "problem: 3 configs failed, none verified");
}

static void the_reference_runs(void **state) {
    fixture *f = *state;
    f->options.mode = TW_MODE_TUNE;
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, "N=96,K=128,w=u4,g=32,s=f16,z=code,a=i8", 3);
    tw_linear *linear = make_linear(&l, context);
    static const int64_t M[] = {16, 2};
    check_fails(tw_linear_prepare(linear, M, 1, 1), TW_VERIFY, "none verified");
    assert_int_equal(f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(f->last[TW_LOG_WARN], "runs the slow reference"));
    assert_non_null(strstr(f->last[TW_LOG_WARN], "none verified"));
    check_plan(linear, 16, "reference", "reference");
    check_forward(&l, linear, 16);
    /* Nothing is known of other buckets. */
    check_plan(linear, 2, "cpu.int_gemm", "guess");
    check_fails(tw_linear_prepare(linear, M + 1, 1, 1), TW_VERIFY, "none verified");
    check_plan(linear, 2, "reference", "reference");
    assert_int_equal(f->lines[TW_LOG_WARN], 1);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(the_reference_runs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
