/* Where the codes of scales are multiplied before their factors: by int_gemm with groups' sums of
 * products, in 16 bits where x allows, else in 32, and y is the same to the last bit, or on
 * vpmaddubsw with sums of pairs of products, which always are words; by amx_gemm with the codes of
 * the weights. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "templates/cpu/int_gemm.h"
#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"

enum { ROWS = 9, COLUMNS = 40, DATA = 3 };

static const char *const schemes[] = {
    "w=i6,g=16",        "w=i3,g=16",         "w=u2,g=16,z=value", "w=u4,g=32,z=value", "w=i5,g=32",
    "w=i4,g=64",        "w=i3,g=128",        "w=i8,g=16",         "w=u8,g=32",         "w=i7,g=64",
    "w=i6,g=16,z=code", "w=u5,g=32,z=value", "w=i4,g=16,z=value",
};
/* Guesses, and what unpacks ahead with tiles that are not guessed. */
static const char *const configs[] = {NULL,
                                      "mm4 mn16 bm8 bn64 ua256",
                                      "mm4 mn32 bm4 bn32",
                                      "mm2 mn16 bm8 bn64 ua256 gp1",
                                      "mm3 mn64 bm9 bn64 ua512 gp1",
                                      "mm16 mn32 bm16 bn32 ua256"};

static tw_problem problem_of_k(const char *scheme, int k) {
    char text[256];
    snprintf(text, sizeof text, "M=%d,N=%d,K=%d,s=f16i8,a=i8g256,%s", ROWS, COLUMNS, k, scheme);
    return problem_of(text);
}
static tw_problem problem_with(const char *scheme) { return problem_of_k(scheme, 512); }

static bool config_for(const tw_template *tmpl, const tw_problem *p, const tw_target *target,
                       const char *text, tw_config *out) {
    if (!text)
        tmpl->guess(target, p, out);
    else
        assert_int_equal(tw_config_parse(text, out), TW_OK);
    return !tmpl->reject(target, p, out);
}

/* Each config that the problem takes, on each target: by this CPU, or the machine if it cannot. */
typedef void each_kernel(const compiled *c, void *arg);
static void for_configs(const tw_template *tmpl, tw_isa isa, const tw_problem *p, each_kernel *body,
                        void *arg) {
    tw_target target = target_of(isa);
    runner how = tw_cpu_can_run(isa) ? RUN_NATIVE : RUN_MACHINE;
    if (tmpl->reject_problem(&target, p)) return;
    for (size_t i = 0; i < TW_COUNT(configs); i++) {
        tw_config config;
        compiled c;
        if (!config_for(tmpl, p, &target, configs[i], &config)) continue;
        assert_int_equal(compiled_init(&c, tmpl, p, &config, &target, how), TW_OK);
        body(&c, arg);
        compiled_free(&c);
    }
}

static void for_kernels(const tw_problem *p, each_kernel *body, void *arg) {
    for (int isa = 0; isa < TW_ISA_COUNT; isa++)
        for_configs(tw_template_find("cpu.int_gemm"), (tw_isa)isa, p, body, arg);
    for_configs(tw_template_find("cpu.amx_gemm"), TW_ISA_avx512amx, p, body, arg);
}

static void compare(const compiled *c, void *arg) {
    const layer *layers = arg;
    for (int i = 0; i < DATA; i++) {
        run_options options = {.M = ROWS};
        if (run_layer(c, &layers[i], &layers[i], &options) == TW_OK) continue;
        run_report(c, ROWS);
        fail();
    }
}

/* x whose sums are words, x whose sums are far from it, and rows of either. */
static void test_sums(void **state) {
    (void)state;
    static const layer_data data[DATA] = {LAYER_PEAKS, LAYER_EXTREME, LAYER_RANDOM};
    for (size_t s = 0; s < TW_COUNT(schemes); s++) {
        tw_problem p = problem_with(schemes[s]);
        layer layers[DATA];
        for (int i = 0; i < DATA; i++) layer_init(&layers[i], &p, data[i], 4 + s);
        for_kernels(&p, compare, layers);
        for (int i = 0; i < DATA; i++) layer_free(&layers[i]);
    }
}

/* As many groups, the last of them short. */
static void test_short_last_group(void **state) {
    (void)state;
    for (size_t s = 0; s < TW_COUNT(schemes); s++) {
        tw_problem p = problem_of_k(schemes[s], 500);
        layer layers[DATA];
        for (int i = 0; i < DATA; i++) layer_init(&layers[i], &p, LAYER_RANDOM, s);
        for_kernels(&p, compare, layers);
        for (int i = 0; i < DATA; i++) layer_free(&layers[i]);
    }
}

/* Row 2 of the second layer is loud where that of the first is not. */
static void compare_rows(const compiled *c, void *arg) {
    const layer *layers = arg;
    float y[2][ROWS * COLUMNS];
    for (int i = 0; i < 2; i++) {
        run_options options = {.M = ROWS, .y = y[i]};
        assert_int_equal(run_layer(c, &layers[i], &layers[i], &options), TW_OK);
    }
    for (int64_t m = 0; m < ROWS; m++) {
        int differs = memcmp(y[0] + m * COLUMNS, y[1] + m * COLUMNS, sizeof(float[COLUMNS]));
        assert_int_equal(differs != 0, m == 2);
    }
}

static void test_rows_are_their_own(void **state) {
    (void)state;
    for (size_t s = 0; s < TW_COUNT(schemes); s++) {
        tw_problem p = problem_with(schemes[s]);
        layer layers[2];
        layer_init(&layers[0], &p, LAYER_PEAKS, 9);
        layer_copy(&layers[1], &layers[0]);
        for (int64_t k = 300; k < 420; k++) tw_float_set(layers[1].x, p.x, 2 * p.K + k, 1);
        for_kernels(&p, compare_rows, layers);
        for (int i = 0; i < 2; i++) layer_free(&layers[i]);
    }
}

/* Which groups can be wide at all. */
static void test_limits(void **state) {
    (void)state;
    static const struct {
        const char *scheme;
        int64_t limit;
        bool may_be_wide;
        int pairs; /* results of vpmaddubsw that are summed up before scales' codes; 0: never */
    } cases[] = {{"w=i6,g=16", 32767 / 32, true, 4},
                 {"w=i3,g=16", 0, false, 0},
                 {"w=u2,g=16,z=value", 32767 / 3, false, 4},
                 {"w=u4,g=32,z=value", 32767 / 15, true, 8},
                 {"w=u4,g=16,z=value", 32767 / 15, false, 4},
                 {"w=i3,g=128", 32767 / 4, true, 0},
                 {"w=i5,g=32", 32767 / 16, true, 8},
                 {"w=i6,g=32", 0, false, 0},
                 {"w=i7,g=16", 0, false, 0},
                 {"w=i8,g=32", 0, false, 0},
                 {"w=u5,g=32,z=value", 0, false, 4},
                 {"w=u4,g=32,z=code", 0, false, 0},
                 {"w=u8,g=32,z=value", 0, false, 0}};
    tw_target vnni = target_of(TW_ISA_avx512vnni), plain = target_of(TW_ISA_avx2);
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_problem p = problem_with(cases[i].scheme);
        assert_int_equal(tw_int_word_limit(&vnni, &p), cases[i].limit);
        assert_int_equal(tw_int_may_be_wide(&vnni, &p), cases[i].may_be_wide);
        assert_int_equal(tw_int_word_limit(&plain, &p), 0);
        assert_int_equal(tw_int_scales_words(&plain, &p), cases[i].pairs > 0);
        assert_false(tw_int_scales_words(&vnni, &p));
        if (cases[i].pairs) assert_int_equal(tw_int_flush(&plain, &p, 1), cases[i].pairs);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_short_last_group),
        cmocka_unit_test(test_rows_are_their_own),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
