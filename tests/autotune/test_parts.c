/* Work in parts on a clock that only the parts move. */
#include <string.h>

#include "autotune/parts.h"
#include "tests/autotune/fake.h"

enum { PARTS = 100, PART_NS = 1000 };

static int runs[PARTS], stop_asked, stop_at;

static void task(void *arg, size_t i) {
    (void)arg;
    runs[i]++;
    the_fake.now += PART_NS;
}
static bool stop(void *arg) {
    (void)arg;
    return stop_asked++ == stop_at;
}
static int done(void) {
    int count = 0;
    for (int i = 0; i < PARTS; i++) {
        /* Each once, and none before another one. */
        assert_true(runs[i] == 0 || (runs[i] == 1 && (!i || runs[i - 1] == 1)));
        count += runs[i];
    }
    return count;
}
static int set_up(void **state) {
    (void)state;
    fake_reset();
    memset(runs, 0, sizeof runs);
    stop_asked = 0;
    return 0;
}

static void test_without_a_deadline_all_are_done(void **state) {
    (void)state;
    tw_parts p = tw_parts_all(&fake_env, NULL);
    assert_true(tw_parts_run(&p, task, NULL, PARTS));
    assert_int_equal(done(), PARTS);
    assert_true(tw_parts_run(&p, task, NULL, 0));
}

static void test_a_deadline_that_is_late_enough(void **state) {
    (void)state;
    tw_parts p = tw_parts_all(&fake_env, NULL);
    p.deadline_ns = PARTS * PART_NS + 1;
    assert_true(tw_parts_run(&p, task, NULL, PARTS));
    assert_int_equal(done(), PARTS);
}

/* What would be late is not waited for. */
static void test_a_deadline_that_is_too_early(void **state) {
    (void)state;
    tw_parts p = tw_parts_all(&fake_env, NULL);
    p.deadline_ns = PARTS * PART_NS / 2;
    assert_false(tw_parts_run(&p, task, NULL, PARTS));
    assert_true(done() >= PARTS / 10 && done() < PARTS / 5);
    assert_true((int)p.missing_ns == (PARTS - done()) * PART_NS);
}

static void test_a_deadline_that_is_over(void **state) {
    (void)state;
    tw_parts p = tw_parts_all(&fake_env, NULL);
    p.deadline_ns = 0;
    assert_false(tw_parts_run(&p, task, NULL, PARTS));
    assert_int_equal(done(), 0);
}

static void test_stop(void **state) {
    (void)state;
    tw_parts p = tw_parts_all(&fake_env, NULL);
    p.stop = stop;
    stop_at = 3;
    assert_false(tw_parts_run(&p, task, NULL, PARTS));
    assert_int_equal(stop_asked, 4);
    assert_true(done() > 0 && done() < PARTS / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_without_a_deadline_all_are_done, set_up),
        cmocka_unit_test_setup(test_a_deadline_that_is_late_enough, set_up),
        cmocka_unit_test_setup(test_a_deadline_that_is_too_early, set_up),
        cmocka_unit_test_setup(test_a_deadline_that_is_over, set_up),
        cmocka_unit_test_setup(test_stop, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
