/* Workloads, samples, their statistics, and the order in which candidates take turns. */
#include <math.h>
#include <string.h>

#include "tests/autotune/fake.h"

static tw_target target;
static tw_problem problem;
static tw_workload *workload;

static int set_up(void **state) {
    (void)state;
    fake_reset();
    target = fake_target();
    problem = fake_problem("M=16,N=8,K=32,w=i8,y=f32");
    workload = NULL;
    return 0;
}
static int tear_down(void **state) {
    (void)state;
    tw_workload_destroy(workload);
    return 0;
}
static void make(tw_weights_state weights) {
    assert_int_equal(tw_workload_create_in(&fake_env, &problem, NULL, &target, weights, &workload),
                     TW_OK);
}

/* ---- statistics ---- */

static void test_timing_of_known_samples(void **state) {
    (void)state;
    tw_series s = {.count = 5, .ns = {50, 10, 40, 20, 30}};
    tw_timing t = tw_series_timing(&s);
    assert_int_equal(t.samples, 5);
    assert_true(t.median_ns == 30 && t.min_ns == 10 && t.spread_ns == 10);
    assert_true(fabs(t.p90_ns - 46) < 1e-9);
    assert_true(tw_series_level(&s) == 20);
    assert_true(fabs(tw_timing_interval(&t) - 1.58 * 20 / sqrt(5)) < 1e-9);
    /* An even count takes the middle between two. */
    s = (tw_series){.count = 2, .ns = {10, 20}};
    t = tw_series_timing(&s);
    assert_true(t.median_ns == 15 && t.spread_ns == 2.5);
    assert_true(isinf(tw_timing_interval(&t)));
    s.count = 0;
    assert_int_equal(tw_series_timing(&s).samples, 0);
}

static tw_timing timing(double median, double spread, int samples) {
    return (tw_timing){.median_ns = median, .spread_ns = spread, .samples = samples};
}

static void test_settled_when_more_samples_would_change_nothing(void **state) {
    (void)state;
    tw_timing alone[] = {timing(1000, 1, 16)};
    assert_true(tw_timing_settled(alone, 1));
    alone[0].samples = 4; /* too few to know a spread */
    assert_false(tw_timing_settled(alone, 1));
    alone[0] = timing(1000, 100, 16); /* known to 8 % */
    assert_false(tw_timing_settled(alone, 1));

    tw_timing apart[] = {timing(1100, 5, 16), timing(1000, 5, 16)};
    assert_true(tw_timing_settled(apart, 2));
    apart[0].spread_ns = 500; /* that one may be anywhere */
    assert_false(tw_timing_settled(apart, 2));

    tw_timing alike[] = {timing(1000, 1, 64), timing(1003, 1, 64)};
    assert_true(tw_timing_settled(alike, 2));
    tw_timing unclear[] = {timing(1000, 10, 16), timing(1012, 10, 16)};
    assert_false(tw_timing_settled(unclear, 2));

    /* What was never sampled is not waited for; nothing at all is no answer. */
    tw_timing none[] = {timing(0, 0, 0), timing(1000, 1, 16)};
    assert_true(tw_timing_settled(none, 2));
    assert_false(tw_timing_settled(none, 1));
}

/* ---- workload ---- */

static void test_cold_weights_rotate_over_more_than_the_cache(void **state) {
    (void)state;
    make(TW_WEIGHTS_COLD);
    tw_packed *p;
    assert_int_equal(tw_workload_pack(workload, &fake_layout, &p), TW_OK);
    assert_true((int64_t)p->stride * p->count >= 8 * target.l3_bytes);
    for (int64_t i = 1; i < p->count; i++)
        assert_memory_equal(p->copies, p->copies + (size_t)i * p->stride, p->stride);
    /* Packed once. */
    tw_packed *again;
    assert_int_equal(tw_workload_pack(workload, &fake_layout, &again), TW_OK);
    assert_ptr_equal(p, again);

    tw_candidate c = fake_candidate(&fake_a, &problem, "mm1 mn8");
    tw_timing t;
    assert_int_equal(tw_measure(workload, NULL, &c, 1, INT64_MAX, &t), TW_OK);
    assert_true(the_fake.launches > 4);
    for (int i = 1; i < (int)tw_min(the_fake.launches, p->count); i++)
        assert_ptr_equal(the_fake.weights[i], (const char *)the_fake.weights[i - 1] + p->stride);
}

static void test_hot_weights_stay_where_they_are(void **state) {
    (void)state;
    make(TW_WEIGHTS_HOT);
    tw_candidate c = fake_candidate(&fake_a, &problem, "mm1 mn8");
    tw_timing t;
    assert_int_equal(tw_measure(workload, NULL, &c, 1, INT64_MAX, &t), TW_OK);
    for (int i = 1; i < the_fake.launches && i < 4096; i++)
        assert_ptr_equal(the_fake.weights[i], the_fake.weights[0]);
}

static int64_t copies_at(int64_t M) {
    problem.M = M;
    make(TW_WEIGHTS_AUTO);
    tw_packed *p;
    assert_int_equal(tw_workload_pack(workload, &fake_layout, &p), TW_OK);
    int64_t count = p->count;
    tw_workload_destroy(workload);
    workload = NULL;
    return count;
}

static void test_weights_are_cold_for_few_rows(void **state) {
    (void)state;
    assert_true(copies_at(1) > 1);
    assert_true(copies_at(64) > 1);
    assert_int_equal(copies_at(128), 1);
}

static void test_bad_workloads_are_refused(void **state) {
    (void)state;
    problem.M = 0;
    assert_int_equal(tw_workload_create(&problem, NULL, &target, TW_WEIGHTS_AUTO, &workload),
                     TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "M: 0"));
    problem.M = 1;
    problem.K = 0;
    assert_int_equal(tw_workload_create(&problem, NULL, &target, TW_WEIGHTS_AUTO, &workload),
                     TW_INVALID);
    assert_null(workload);
    tw_workload_destroy(NULL);
}

/* ---- turns ---- */

static double time_by_m(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl;
    return 1e6 * c->micro_m;
}

static void test_candidates_take_turns_and_the_first_changes(void **state) {
    (void)state;
    the_fake.time_ns = time_by_m;
    make(TW_WEIGHTS_HOT);
    tw_candidate c[] = {fake_candidate(&fake_a, &problem, "mm3 mn8"),
                        fake_candidate(&fake_a, &problem, "mm4 mn8"),
                        fake_candidate(&fake_a, &problem, "mm6 mn8")};
    tw_timing t[3];
    assert_int_equal(tw_measure(workload, NULL, c, 3, INT64_MAX, t), TW_OK);
    /* Without noise five samples of each are enough, and such long ones need no warm-up. */
    assert_int_equal(the_fake.launches, 15);
    for (int round = 0; round < 5; round++)
        for (int i = 0; i < 3; i++)
            assert_int_equal(the_fake.slots[3 * round + i], (i + round) % 3);
    assert_true(t[0].median_ns == 3e6 && t[1].median_ns == 4e6 && t[2].median_ns == 6e6);
}

static double short_time(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl, (void)c;
    return 1500;
}

static void test_short_kernels_are_timed_several_launches_at_once(void **state) {
    (void)state;
    the_fake.time_ns = short_time;
    make(TW_WEIGHTS_HOT);
    tw_candidate c = fake_candidate(&fake_a, &problem, "mm1 mn8");
    tw_timing t;
    assert_int_equal(tw_measure(workload, NULL, &c, 1, INT64_MAX, &t), TW_OK);
    assert_true(t.median_ns == 1500 && t.samples == 5);
    /* ceil(20000 / 1500) launches and one before them, five times, and one that told. */
    assert_int_equal(the_fake.launches, 1 + 5 * (1 + 14));
}

static void test_deadline_is_kept_but_everybody_is_timed(void **state) {
    (void)state;
    the_fake.time_ns = time_by_m;
    the_fake.noise = 0.5; /* never settled */
    make(TW_WEIGHTS_HOT);
    tw_candidate c[] = {fake_candidate(&fake_a, &problem, "mm3 mn8"),
                        fake_candidate(&fake_a, &problem, "mm4 mn8")};
    tw_timing t[2];
    assert_int_equal(tw_measure(workload, NULL, c, 2, 0, t), TW_OK);
    assert_int_equal(the_fake.launches, 2);
    assert_true(t[0].samples == 1 && t[1].samples == 1);
    int64_t deadline = the_fake.now + 100000000;
    assert_int_equal(tw_measure(workload, NULL, c, 2, deadline, t), TW_OK);
    assert_true(the_fake.now >= deadline && the_fake.now < deadline + 6000000);
    assert_int_equal(tw_measure(workload, NULL, c, 0, deadline, t), TW_INVALID);
}

static void test_noise_is_averaged_out(void **state) {
    (void)state;
    the_fake.time_ns = time_by_m;
    the_fake.noise = 0.05;
    make(TW_WEIGHTS_HOT);
    tw_candidate c[] = {fake_candidate(&fake_a, &problem, "mm3 mn8"),
                        fake_candidate(&fake_a, &problem, "mm4 mn8")};
    tw_timing t[2];
    assert_int_equal(tw_measure(workload, NULL, c, 2, INT64_MAX, t), TW_OK);
    assert_true(fabs(t[0].median_ns / 3e6 - 1) < 0.02);
    assert_true(t[0].samples > 20 && t[0].samples < TW_MAX_SAMPLES);
    assert_true(t[0].spread_ns > 0.01 * 3e6 && t[0].spread_ns < 0.04 * 3e6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timing_of_known_samples),
        cmocka_unit_test(test_settled_when_more_samples_would_change_nothing),
        cmocka_unit_test_setup_teardown(test_cold_weights_rotate_over_more_than_the_cache, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_hot_weights_stay_where_they_are, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_weights_are_cold_for_few_rows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_workloads_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_candidates_take_turns_and_the_first_changes, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_short_kernels_are_timed_several_launches_at_once,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_deadline_is_kept_but_everybody_is_timed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_noise_is_averaged_out, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
