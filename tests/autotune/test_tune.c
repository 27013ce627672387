/* The whole run, on a clock that only kernels and builds move. */
#include <math.h>
#include <string.h>

#include "autotune/search.h"
#include "tests/autotune/fake.h"

static tw_target target;
static tw_problem problem;
static tw_tune_request request;
static tw_tune_result result;

static int set_up(void **state) {
    (void)state;
    fake_reset();
    target = fake_target();
    problem = fake_problem("M=16,N=8,K=32,w=i8,y=f32");
    request =
        (tw_tune_request){.problem = &problem, .target = &target, .log = &fake_log, .budget_s = 1};
    result = (tw_tune_result){0};
    return 0;
}
static tw_status tune(void) { return tw_tune_in(&fake_env, &request, &fake_hooks, &result); }
static bool is(const char *text) {
    tw_config c = fake_config(text);
    return !memcmp(&result.config, &c, sizeof c);
}

/* A smooth landscape with its least at mm6 mn32 bm32, some 8 % a step. */
static double landscape(const tw_template *tmpl, const tw_config *c) {
    if (tmpl == &fake_b) return 500000;
    double m = log2(c->micro_m / 6.0), n = log2(c->micro_n / 32.0);
    double b = c->block_m ? log2(c->block_m / 32.0) : 3;
    return 100000 * (1 + 0.2 * m * m + 0.1 * n * n + 0.1 * b * b);
}
static double flat(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl, (void)c;
    return 100000;
}
/* A model that prefers small tiles: the reverse of what is true. */
static double bad_model(const tw_template *tmpl, const tw_config *c) {
    return tmpl == &fake_b ? 1 : 10 + c->micro_m * c->micro_n;
}

static void test_best_is_found_with_a_bad_model(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.cost = bad_model;
    assert_int_equal(tune(), TW_OK);
    assert_ptr_equal(result.tmpl, &fake_a);
    assert_true(is("mm6 mn32 bm32"));
    assert_true(result.median_ns == 100000 && result.guess_ns == 500000);
    assert_int_equal(result.legal, 110 + 2);
    assert_true(result.measured < result.legal);
    assert_true(result.decided && !result.stopped && result.least_s == 0);
    assert_true(result.error < 1e-10);
}

static void test_noise_costs_little(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.cost = bad_model;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        set_up(NULL);
        the_fake.time_ns = landscape;
        the_fake.cost = bad_model;
        the_fake.noise = 0.05;
        the_fake.seed = seed << 32;
        assert_int_equal(tune(), TW_OK);
        assert_true(landscape(result.tmpl, &result.config) < 100000 * 1.05);
        assert_true(fabs(result.median_ns / landscape(result.tmpl, &result.config) - 1) < 0.05);
    }
}

/* A third of all launches takes two to nine times as long: the quiet ones still tell. */
static void test_a_busy_machine_costs_little(void **state) {
    (void)state;
    double worst = 0, sum = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        set_up(NULL);
        the_fake.time_ns = landscape;
        the_fake.cost = bad_model;
        the_fake.noise = 0.02;
        the_fake.busy = 0.33;
        the_fake.seed = seed << 32;
        assert_int_equal(tune(), TW_OK);
        double time = landscape(result.tmpl, &result.config);
        worst = fmax(worst, time);
        sum += time / 20;
    }
    assert_true(sum < 100000 * 1.03 && worst < 100000 * 1.2);
}

static void test_same_world_same_run(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.noise = 0.1;
    assert_int_equal(tune(), TW_OK);
    int count = the_fake.trial_count, launches = the_fake.launches;
    double sum = 0;
    for (int i = 0; i < count; i++) sum += the_fake.trials[i].median_ns * (i + 1);
    set_up(NULL);
    the_fake.time_ns = landscape;
    the_fake.noise = 0.1;
    assert_int_equal(tune(), TW_OK);
    assert_int_equal(the_fake.trial_count, count);
    assert_int_equal(the_fake.launches, launches);
    for (int i = 0; i < count; i++) sum -= the_fake.trials[i].median_ns * (i + 1);
    assert_true(sum == 0);
}

static void test_every_measurement_reaches_the_sink(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.cost = bad_model;
    assert_int_equal(tune(), TW_OK);
    int different = 0;
    for (int i = 0; i < the_fake.trial_count; i++) {
        const tw_tune_trial *t = &the_fake.trials[i];
        assert_null(t->failure);
        assert_true(fabs(t->median_ns - landscape(t->tmpl, &t->config)) < 1);
        bool first = true;
        for (int j = 0; j < i; j++)
            first = first && (the_fake.trials[j].tmpl != t->tmpl ||
                              memcmp(&the_fake.trials[j].config, &t->config, sizeof t->config));
        different += first;
    }
    assert_int_equal(different, result.measured);
    double median;
    assert_true(fake_trials_of(&fake_b, "mm1", &median) > 0); /* the guess */
    assert_true(fake_trials_of(&fake_a, "mm6 mn32 bm32", &median) > 0);
    assert_true(median == result.median_ns);
    assert_true(the_fake.last_done == the_fake.last_total);
    assert_int_equal(the_fake.last_done, result.measured);
}

static void test_exhaustive_measures_everything(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    request.exhaustive = true;
    assert_int_equal(tune(), TW_OK);
    assert_int_equal(result.measured, result.legal);
    assert_true(is("mm6 mn32 bm32"));
}

/* ---- failures ---- */

static const char *no_even_tiles(const tw_template *tmpl, const tw_config *c) {
    return tmpl == &fake_b || c->micro_m % 2 == 0 ? "odd tiles only" : NULL;
}

static void test_failed_builds_are_told_and_passed_over(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.cost = bad_model; /* the guess is fake.b's */
    the_fake.build_failure = no_even_tiles;
    assert_int_equal(tune(), TW_OK);
    assert_true(is("mm3 mn32 bm32"));
    assert_true(result.failed > 1 && result.guess_ns == 0);
    assert_int_equal(the_fake.failure_count, result.failed);
    for (int i = 0; i < the_fake.failure_count; i++)
        assert_string_equal(the_fake.failures[i], "compile: odd tiles only");
    assert_non_null(strstr(the_fake.log, "does not build: odd tiles only"));
}

static const char *nothing_builds(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl, (void)c;
    return "out of order";
}

static void test_nothing_builds(void **state) {
    (void)state;
    the_fake.build_failure = nothing_builds;
    result.legal = -1;
    assert_int_equal(tune(), TW_VERIFY);
    assert_non_null(strstr(tw_error_message(), "none verified"));
    assert_int_equal(result.legal, -1);
}

static const char *only_the_guess(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl;
    return c->block_m == 48 ? NULL : "out of order";
}

/* A full disk, a machine out of memory: whatever is built next fails as well, and no config is to
 * blame. */
static void test_what_the_machine_lacks_ends_the_run(void **state) {
    (void)state;
    static const tw_status lacks[] = {TW_CACHE, TW_MEMORY, TW_IO, TW_UNSUPPORTED};
    for (size_t i = 0; i < TW_COUNT(lacks); i++)
        for (int guess_builds = 0; guess_builds < 2; guess_builds++) {
            set_up(NULL);
            the_fake.time_ns = landscape;
            the_fake.build_failure = guess_builds ? only_the_guess : nothing_builds;
            the_fake.build_status = lacks[i];
            assert_int_equal(tune(), lacks[i]);
            assert_string_equal(tw_error_message(), "out of order");
            assert_int_equal(the_fake.failure_count, 0);
            assert_string_equal(the_fake.log, "");
        }
}

static void test_a_sink_that_fails_ends_the_run(void **state) {
    (void)state;
    for (int room = 1; room < 40; room += 6) {
        set_up(NULL);
        the_fake.time_ns = landscape;
        the_fake.sink_room = room;
        assert_int_equal(tune(), TW_CACHE);
        assert_string_equal(tw_error_message(), "sink: full");
        assert_int_equal(the_fake.trial_count, room);
    }
}

static fake_defect fast_are_wrong(const tw_template *tmpl, const tw_config *c) {
    return tmpl == &fake_a && landscape(tmpl, c) < 115000 ? FAKE_LAST_K : FAKE_CORRECT;
}

static void test_fast_but_wrong_is_no_winner(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.cost = bad_model;
    the_fake.defect = fast_are_wrong;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.median_ns >= 115000 && result.median_ns < 130000);
    assert_true(result.failed > 0);
    assert_int_equal(the_fake.failure_count, result.failed);
    for (int i = 0; i < the_fake.failure_count; i++)
        assert_memory_equal(the_fake.failures[i], "verify: ", 8);
    /* Loud: an error line (level 1) that names kernel, config and element. */
    assert_non_null(strstr(the_fake.log, "1 "));
    assert_non_null(strstr(the_fake.log, "computes wrong results"));
    assert_non_null(strstr(the_fake.log, "fake.a mm"));
}

static fake_defect all_wrong(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl, (void)c;
    return FAKE_ONE_K;
}

static void test_all_wrong_is_an_error(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.defect = all_wrong;
    assert_int_equal(tune(), TW_VERIFY);
    assert_null(result.tmpl);
}

static void test_nobody_takes_it(void **state) {
    (void)state;
    the_fake.declines_a = "it is Monday.";
    the_fake.declines_b = "it is Sunday.";
    assert_int_equal(tune(), TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "it is Sunday."));
    assert_int_equal(the_fake.launches, 0);
}

static double b_is_fastest(const tw_template *tmpl, const tw_config *c) {
    return tmpl == &fake_b ? 1000 : landscape(tmpl, c);
}

static void test_layout_restricts_the_space(void **state) {
    (void)state;
    the_fake.time_ns = b_is_fastest;
    request.layout = &fake_layout;
    assert_int_equal(tune(), TW_OK);
    assert_ptr_equal(result.tmpl, &fake_a);
    assert_int_equal(result.legal, 110);
    request.layout = NULL;
    assert_int_equal(tune(), TW_OK);
    assert_ptr_equal(result.tmpl, &fake_b);
}

/* ---- time ---- */

static double slowness;
static double slow_landscape(const tw_template *tmpl, const tw_config *c) {
    return slowness * landscape(tmpl, c);
}

static double slow_model(const tw_template *tmpl, const tw_config *c) {
    return 2 * slow_landscape(tmpl, c);
}

static void test_budget_is_kept(void **state) {
    (void)state;
    static const double slow[] = {0.01, 1, 30, 200, 3000};
    static const double budgets[] = {0.5, 3, 30};
    for (size_t i = 0; i < TW_COUNT(slow); i++)
        for (size_t j = 0; j < TW_COUNT(budgets); j++)
            for (int exhaustive = 0; exhaustive < 2; exhaustive++) {
                set_up(NULL);
                slowness = slow[i];
                the_fake.time_ns = slow_landscape;
                the_fake.cost = slow_model;
                the_fake.noise = 0.1;
                the_fake.build_ns = 5e6;
                request.budget_s = budgets[j];
                request.exhaustive = exhaustive;
                assert_int_equal(tune(), TW_OK);
                if ((double)the_fake.now >= 1.1e9 * budgets[j])
                    fail_msg("%.3f s of %.1f, slowness %g, exhaustive %d",
                             (double)the_fake.now / 1e9, budgets[j], slow[i], exhaustive);
                /* 0.3 s and more a launch: four of them are either in time or not begun. */
                if (budgets[j] != 3) assert_int_equal(result.decided, slow[i] < 3000 || j);
                assert_int_equal(result.decided, !(result.least_s > 0));
                assert_true(result.decided ? result.measured >= TW_LEAST_WAVE
                                           : result.least_s > budgets[j]);
            }
}

/* The guess and nothing else was timed: it is no choice, but known from then on. */
static void test_a_guess_is_no_decision(void **state) {
    (void)state;
    slowness = 1000; /* 0.1 s and more a launch */
    the_fake.time_ns = the_fake.cost = slow_landscape;
    request.layout = &fake_layout;
    request.budget_s = 0.25;
    assert_int_equal(tune(), TW_OK);
    assert_false(result.decided || result.stopped);
    assert_int_equal(result.measured, 1);
    assert_true(result.median_ns == 0 && result.guess_ns == 0);
    assert_true(is("mm4 mn16 bm48") && result.tmpl == &fake_a);
    assert_true(result.least_s > 0.5 && result.least_s < 1.2);
    assert_true(the_fake.now < 275000000);
    assert_true(fake_trials_of(&fake_a, "mm4 mn16 bm48", NULL) > 0);

    /* Going on from there, and with as much time as it said. */
    tw_tune_trial known = the_fake.trials[0];
    double least_s = result.least_s;
    set_up(NULL);
    the_fake.time_ns = the_fake.cost = slow_landscape;
    the_fake.known = &known;
    the_fake.known_count = 1;
    request.layout = &fake_layout;
    request.budget_s = least_s;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.decided && result.known == 1 && result.median_ns > 0);
    assert_true((double)the_fake.now < 1.1e9 * least_s);
}

static void test_a_decision_at_any_cost(void **state) {
    (void)state;
    slowness = 1000;
    the_fake.time_ns = slow_landscape;
    the_fake.pack_ns = 1e9;
    request.budget_s = 0.001;
    request.decide_anyway = true;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.decided && result.median_ns > 0);
    assert_true(result.measured >= TW_LEAST_WAVE && result.measured < 10);
}

/* All there are will do, if that is less. */
static void test_few_configs_are_a_decision(void **state) {
    (void)state;
    the_fake.time_ns = flat;
    request.layout = &fake_other_layout;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.decided && result.measured == 2 && result.legal == 2);
}

/* Weights that take too long to pack: broken off when that is clear. */
static void test_set_up_is_part_of_the_budget(void **state) {
    (void)state;
    problem = fake_problem("M=16,N=2000000,K=32,w=i8,y=f32"); /* some 60 parts */
    the_fake.time_ns = landscape;
    the_fake.pack_ns = 1e8;
    request.budget_s = 2;
    assert_int_equal(tune(), TW_OK);
    assert_false(result.decided || result.stopped);
    assert_int_equal(the_fake.launches, 0);
    assert_int_equal(the_fake.builds, 0);
    assert_true(result.least_s > 5 && result.least_s < 8);
    assert_true(the_fake.now < 1000000000);
}

static void test_easy_problems_end_early(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    request.budget_s = 1000;
    assert_int_equal(tune(), TW_OK);
    assert_true(the_fake.now < 2000000000);
}

static void test_large_problems_are_searched_with_few_launches(void **state) {
    (void)state;
    slowness = 600; /* 60 ms and more a launch */
    the_fake.time_ns = slow_landscape;
    the_fake.build_ns = 5e6;
    request.budget_s = 10;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.measured > 30);
    assert_true(result.median_ns < 1.1 * 600 * 100000);
    assert_true(the_fake.now < 11000000000);
}

/* ---- breaking off and going on ---- */

static void test_stopped_gives_the_best_so_far(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.stop_after = 150;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.stopped && !result.decided);
    assert_int_equal(the_fake.progress_calls, 150);
    assert_true(result.measured > 0 && result.measured < 60);
    assert_true(result.median_ns > 0);
    int launches = the_fake.launches;
    set_up(NULL);
    the_fake.time_ns = landscape;
    assert_int_equal(tune(), TW_OK);
    assert_true(the_fake.launches > launches);
}

static void test_stopped_at_once_gives_the_guess(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    the_fake.stop_after = 1;
    the_fake.cost = bad_model;
    assert_int_equal(tune(), TW_OK);
    assert_true(result.stopped);
    assert_ptr_equal(result.tmpl, &fake_b);
    assert_true(result.median_ns == 0 && result.measured == 0);
    assert_int_equal(the_fake.trial_count, 0);
}

static void test_known_trials_are_not_measured_again(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    assert_int_equal(tune(), TW_OK);
    static tw_tune_trial known[8192];
    int count = the_fake.trial_count, measured = result.measured;
    memcpy(known, the_fake.trials, (size_t)count * sizeof *known);

    set_up(NULL);
    the_fake.time_ns = landscape;
    the_fake.known = known;
    the_fake.known_count = count;
    assert_int_equal(tune(), TW_OK);
    assert_int_equal(result.known, measured);
    assert_true(is("mm6 mn32 bm32"));
    /* Of the known ones only the best few and the guess were timed, beside the new. */
    int again = 0;
    for (int i = 0; i < count; i++) {
        bool first = true;
        for (int j = 0; j < i; j++)
            first = first && (known[j].tmpl != known[i].tmpl ||
                              memcmp(&known[j].config, &known[i].config, sizeof known[i].config));
        tw_str text = {0};
        tw_config_text(&known[i].config, &text);
        again += first && fake_trials_of(known[i].tmpl, tw_str_text(&text), NULL) > 0;
        tw_str_free(&text);
    }
    assert_true(again >= 2 && again <= TW_LEADERS + 1);
}

static void test_known_figures_are_not_trusted_blindly(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    /* Measured on a quieter day: it looks twice as fast as anything is. */
    tw_tune_trial known[] = {{&fake_a, fake_config("mm1 mn8 bm64"), 50000, 10, NULL}};
    the_fake.known = known;
    the_fake.known_count = 1;
    assert_int_equal(tune(), TW_OK);
    assert_true(is("mm6 mn32 bm32"));
    double median;
    assert_true(fake_trials_of(&fake_a, "mm1 mn8 bm64", &median) > 0);
    assert_true(fabs(median - landscape(&fake_a, &known[0].config)) < 1);
}

static void test_known_failures_are_not_tried_again(void **state) {
    (void)state;
    the_fake.time_ns = landscape;
    tw_tune_trial known[] = {
        {&fake_a, fake_config("mm6 mn32 bm32"), 100000, 10, NULL},
        {&fake_a, fake_config("mm6 mn32 bm32"), 0, 0, "verify: wrong"},
        {&fake_a, fake_config("mm5 mn5"), 1, 1, NULL}, /* not in the space any more */
    };
    the_fake.known = known;
    the_fake.known_count = 3;
    request.exhaustive = true;
    assert_int_equal(tune(), TW_OK);
    assert_false(is("mm6 mn32 bm32"));
    assert_int_equal(fake_trials_of(&fake_a, "mm6 mn32 bm32", NULL), 0);
    assert_int_equal(result.known, 1);
    assert_int_equal(result.measured, result.legal - 1);
}

/* ---- ties ---- */

static void test_ties_go_to_the_guess(void **state) {
    (void)state;
    the_fake.time_ns = flat;
    the_fake.cost = bad_model;
    the_fake.noise = 0.004;
    for (uint64_t seed = 0; seed < 5; seed++) {
        the_fake.seed = seed << 32;
        assert_int_equal(tune(), TW_OK);
        assert_ptr_equal(result.tmpl, &fake_b);
        assert_true(is("mm1"));
    }
}

static void test_builds_run_on_several_threads(void **state) {
    (void)state;
    target.threads = 4;
    the_fake.time_ns = landscape;
    the_fake.build_failure = no_even_tiles;
    assert_int_equal(tune(), TW_OK);
    assert_true(is("mm3 mn32 bm32"));
    assert_true(the_fake.failure_count > 1);
    for (int i = 0; i < the_fake.failure_count; i++)
        assert_string_equal(the_fake.failures[i], "compile: odd tiles only");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_best_is_found_with_a_bad_model, set_up),
        cmocka_unit_test_setup(test_noise_costs_little, set_up),
        cmocka_unit_test_setup(test_a_busy_machine_costs_little, set_up),
        cmocka_unit_test_setup(test_same_world_same_run, set_up),
        cmocka_unit_test_setup(test_every_measurement_reaches_the_sink, set_up),
        cmocka_unit_test_setup(test_exhaustive_measures_everything, set_up),
        cmocka_unit_test_setup(test_failed_builds_are_told_and_passed_over, set_up),
        cmocka_unit_test_setup(test_nothing_builds, set_up),
        cmocka_unit_test_setup(test_what_the_machine_lacks_ends_the_run, set_up),
        cmocka_unit_test_setup(test_a_sink_that_fails_ends_the_run, set_up),
        cmocka_unit_test_setup(test_fast_but_wrong_is_no_winner, set_up),
        cmocka_unit_test_setup(test_all_wrong_is_an_error, set_up),
        cmocka_unit_test_setup(test_nobody_takes_it, set_up),
        cmocka_unit_test_setup(test_layout_restricts_the_space, set_up),
        cmocka_unit_test_setup(test_budget_is_kept, set_up),
        cmocka_unit_test_setup(test_a_guess_is_no_decision, set_up),
        cmocka_unit_test_setup(test_a_decision_at_any_cost, set_up),
        cmocka_unit_test_setup(test_few_configs_are_a_decision, set_up),
        cmocka_unit_test_setup(test_set_up_is_part_of_the_budget, set_up),
        cmocka_unit_test_setup(test_easy_problems_end_early, set_up),
        cmocka_unit_test_setup(test_large_problems_are_searched_with_few_launches, set_up),
        cmocka_unit_test_setup(test_stopped_gives_the_best_so_far, set_up),
        cmocka_unit_test_setup(test_stopped_at_once_gives_the_guess, set_up),
        cmocka_unit_test_setup(test_known_trials_are_not_measured_again, set_up),
        cmocka_unit_test_setup(test_known_figures_are_not_trusted_blindly, set_up),
        cmocka_unit_test_setup(test_known_failures_are_not_tried_again, set_up),
        cmocka_unit_test_setup(test_ties_go_to_the_guess, set_up),
        cmocka_unit_test_setup(test_builds_run_on_several_threads, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
