/* Something that is no kernel of ours beside a tuned one, on the fake clock. */
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "tests/autotune/fake.h"

/* A rival that takes a chosen time and computes by the oracle, or not quite. */
typedef struct rival_state {
    int64_t time_ns;
    bool wrong, ignores_stride;
    int fails_at; /* the call that fails; 0: none */
    int runs, weights_seen;
    const void *weights[4096]; /* different ones */
} rival_state;

static tw_target target;
static tw_problem problem;
static tw_tune_request request;
static tw_rival_result result;
static rival_state state;
static tw_rival rival;

static void see_weights(const void *weight) {
    for (int i = 0; i < state.weights_seen; i++)
        if (state.weights[i] == weight) return;
    if (state.weights_seen < (int)TW_COUNT(state.weights))
        state.weights[state.weights_seen++] = weight;
}

static tw_status run(void *user, const tw_problem *p, const tw_canonical *w, const void *x,
                     int64_t x_stride, void *y, int64_t y_stride, int64_t M) {
    assert_ptr_equal(user, &state);
    assert_memory_equal(p, &problem, sizeof problem);
    assert_true(M <= problem.M && x_stride >= p->K && y_stride >= p->N);
    see_weights(w->weight);
    the_fake.now += state.time_ns;
    if (++state.runs == state.fails_at) return tw_fail(TW_DEVICE, "run %d failed", state.runs);
    /* Contiguous y is timed, and nobody looks at it. */
    if (y_stride == p->N) return TW_OK;
    tw_reference_linear(p, w, x, state.ignores_stride ? p->K : x_stride, y, y_stride, M);
    if (state.wrong) tw_double_set(y, p->y, (M - 1) * y_stride, 3);
    return TW_OK;
}

static double kernel_time(const tw_template *tmpl, const tw_config *config) {
    (void)tmpl, (void)config;
    return 100000;
}

static void begin(const char *text, int64_t time_ns) {
    fake_reset();
    target = fake_target();
    problem = fake_problem(text);
    request =
        (tw_tune_request){.problem = &problem, .target = &target, .log = &fake_log, .budget_s = 1};
    result = (tw_rival_result){.error = -1};
    state = (rival_state){.time_ns = time_ns};
    rival = (tw_rival){.run = run, .user = &state};
    the_fake.time_ns = kernel_time;
}

static tw_status compete(void) {
    tw_config config = fake_config("mm4 mn16");
    return tw_tune_rival_in(&fake_env, &request, &fake_hooks, &fake_a, &config, &rival, &result);
}

static const char *const problems[] = {
    "M=16,N=8,K=32,w=i8,y=f32",
    "M=1,N=9,K=70,w=u4,g=32,s=f16,z=code,bias=f32,act=relu",
    "M=37,N=12,K=64,w=u4,g=32,s=f16,z=value,a=i8g32,y=f16",
    "M=3,N=5,K=33,x=bf16,w=f16",
};

/* A budget that was over before the first sample: nothing is compared with nothing. */
static void test_no_time(void **unused) {
    (void)unused;
    begin(problems[0], 30000000);
    request.budget_s = 1e-6;
    assert_int_equal(compete(), TW_OK);
    assert_false(result.faster);
    assert_true(result.median_ns > result.kernel_ns && result.kernel_ns > 0);
}

static void test_faster_and_right_wins(void **unused) {
    (void)unused;
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        begin(problems[i], 80000);
        assert_int_equal(compete(), TW_OK);
        assert_true(result.faster);
        assert_true(result.median_ns == 80000 && result.kernel_ns == 100000);
        assert_true(result.error >= 0 && result.error < 1e-10);
        assert_int_equal(the_fake.builds, 1);
    }
}

static void test_slower_or_alike_loses(void **unused) {
    static const int64_t times[] = {99500, 100000, 120000, 1000000000};
    (void)unused;
    for (size_t i = 0; i < TW_COUNT(times); i++) {
        begin(problems[0], times[i]);
        assert_int_equal(compete(), TW_OK);
        assert_false(result.faster);
        assert_true(result.median_ns == (double)times[i]);
    }
    /* One that takes the whole budget at once runs untimed, then once more, and no further. */
    assert_int_equal(state.runs, 2);
}

static void test_faster_but_wrong(void **unused) {
    (void)unused;
    begin(problems[0], 1000);
    state.wrong = true;
    assert_int_equal(compete(), TW_VERIFY);
    assert_true(result.error == -1);
    begin(problems[0], 1000);
    state.ignores_stride = true;
    assert_int_equal(compete(), TW_VERIFY);
}

/* Its failure is told, and not what it left unwritten. */
static void test_run_fails(void **unused) {
    static const int calls[] = {1, 2, 40};
    (void)unused;
    for (size_t i = 0; i < TW_COUNT(calls); i++) {
        begin(problems[0], 1000);
        state.fails_at = calls[i];
        assert_int_equal(compete(), TW_DEVICE);
        assert_non_null(strstr(tw_error_message(), "failed"));
        assert_true(result.error == -1);
    }
}

static const char *no_build(const tw_template *tmpl, const tw_config *config) {
    (void)tmpl, (void)config;
    return "no compiler";
}

static void test_kernel_cannot_be_built(void **unused) {
    (void)unused;
    begin(problems[0], 1000);
    the_fake.build_failure = no_build;
    assert_int_equal(compete(), TW_COMPILE);
    assert_int_equal(state.runs, 0);
}

/* Cold weights are cold for both. */
static void test_reads_other_weights_each_time(void **unused) {
    (void)unused;
    begin("M=1,N=64,K=4096,w=u4,g=32,s=f16,z=value", 80000);
    assert_int_equal(compete(), TW_OK);
    assert_true(result.faster);
    assert_in_range(state.weights_seen, 2, state.runs);
    begin("M=128,N=64,K=64,w=u4,g=32,s=f16,z=value", 80000);
    assert_int_equal(compete(), TW_OK);
    assert_int_equal(state.weights_seen, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faster_and_right_wins),
        cmocka_unit_test(test_no_time),
        cmocka_unit_test(test_slower_or_alike_loses),
        cmocka_unit_test(test_faster_but_wrong),
        cmocka_unit_test(test_run_fails),
        cmocka_unit_test(test_kernel_cannot_be_built),
        cmocka_unit_test(test_reads_other_weights_each_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
