/* Enumeration, neighbours, ranking, picking, and the guess. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/guess.h"
#include "autotune/rank.h"
#include "tests/autotune/fake.h"

static tw_target target;
static tw_problem problem;

static int set_up(void **state) {
    (void)state;
    fake_reset();
    target = fake_target();
    problem = fake_problem("M=16,N=8,K=32,w=i8");
    return 0;
}

static tw_space space_of(const tw_template *tmpl) {
    tw_space s = {0};
    assert_int_equal(tw_space_add(&s, tmpl, &target, &problem), TW_OK);
    return s;
}
static int find(const tw_space *s, const tw_template *tmpl, const char *text) {
    tw_config c = fake_config(text);
    return tw_space_find(s, tmpl, &c);
}

static void test_space_is_every_legal_combination_once_and_the_guess(void **state) {
    (void)state;
    tw_space s = space_of(&fake_a);
    /* 6 x 4 tiles, of which 6x64 and 8x64 are above 256, times 4 and the guess's block_m. */
    assert_int_equal(s.count, (24 - 2) * (4 + 1));
    assert_true(find(&s, &fake_a, "mm4 mn16 bm48") >= 0);
    assert_true(find(&s, &fake_a, "mm8 mn32 bm64") >= 0);
    assert_true(find(&s, &fake_a, "mm1 mn8") >= 0);
    assert_int_equal(find(&s, &fake_a, "mm8 mn64 bm16"), -1);
    assert_int_equal(find(&s, &fake_b, "mm1 mn8"), -1);
    for (int i = 0; i < s.count; i++)
        assert_int_equal(tw_space_find(&s, &fake_a, &s.points[i].config), i);
    tw_space_free(&s);
    assert_null(s.points);
}

static void test_guess_on_the_axes_is_not_added_twice(void **state) {
    (void)state;
    tw_space s = space_of(&fake_b);
    assert_int_equal(s.count, 2);
    tw_space_free(&s);
}

static bool among(const tw_space *s, const int *ids, int count, const char *text) {
    int wanted = find(s, &fake_a, text);
    assert_true(wanted >= 0);
    for (int i = 0; i < count; i++)
        if (ids[i] == wanted) return true;
    return false;
}

static void test_neighbours_are_one_step_along_one_axis(void **state) {
    (void)state;
    tw_space s = space_of(&fake_a);
    int ids[TW_MAX_NEIGHBOURS];
    int count = tw_space_neighbours(&s, find(&s, &fake_a, "mm4 mn32 bm16"), ids);
    assert_int_equal(count, 6);
    const char *const expected[] = {"mm3 mn32 bm16", "mm6 mn32 bm16", "mm4 mn16 bm16",
                                    "mm4 mn64 bm16", "mm4 mn32",      "mm4 mn32 bm32"};
    for (size_t i = 0; i < TW_COUNT(expected); i++) assert_true(among(&s, ids, count, expected[i]));
    tw_space_free(&s);
}

static void test_neighbours_at_corners_and_off_the_axes(void **state) {
    (void)state;
    tw_space s = space_of(&fake_a);
    int ids[TW_MAX_NEIGHBOURS];
    assert_int_equal(tw_space_neighbours(&s, find(&s, &fake_a, "mm1 mn8"), ids), 3);
    /* mm8 mn64 is illegal, and there is nothing behind it. */
    int count = tw_space_neighbours(&s, find(&s, &fake_a, "mm8 mn32 bm64"), ids);
    assert_int_equal(count, 3);
    assert_true(among(&s, ids, count, "mm6 mn32 bm64"));
    /* The guess lies off an axis and has neighbours on all of them. */
    count = tw_space_neighbours(&s, find(&s, &fake_a, "mm4 mn16 bm48"), ids);
    assert_int_equal(count, 6);
    assert_true(among(&s, ids, count, "mm4 mn16 bm32"));
    assert_true(among(&s, ids, count, "mm4 mn16 bm64"));
    assert_true(among(&s, ids, count, "mm3 mn16 bm48"));
    tw_space_free(&s);
}

static double cost_by_tile(const tw_template *tmpl, const tw_config *c) {
    if (tmpl == &fake_b) return 1000;
    if (c->micro_m == 8) return NAN;
    return 512 - c->micro_m * c->micro_n;
}

static void test_rank_orders_by_cost_then_nearness_to_the_guess(void **state) {
    (void)state;
    the_fake.cost = cost_by_tile;
    tw_space s = space_of(&fake_a);
    assert_int_equal(tw_rank(&s, &target, &problem), TW_OK);
    for (int i = 1; i < s.count; i++)
        assert_true(!(s.points[i].cost < s.points[i - 1].cost) || isnan(s.points[i - 1].cost));
    assert_int_equal(s.points[0].config.micro_m * s.points[0].config.micro_n, 256);
    assert_true(isnan(s.points[s.count - 1].cost));
    /* Of the five with 4 x 16 the guess itself comes first. */
    int at = find(&s, &fake_a, "mm4 mn16 bm48");
    assert_true(at < find(&s, &fake_a, "mm4 mn16"));
    assert_true(at < find(&s, &fake_a, "mm4 mn16 bm64"));
    tw_space_free(&s);
}

static tw_space ranked_both(void) {
    tw_space s = space_of(&fake_a);
    assert_int_equal(tw_space_add(&s, &fake_b, &target, &problem), TW_OK);
    assert_int_equal(tw_rank(&s, &target, &problem), TW_OK);
    return s;
}

static void test_pick_gives_each_template_a_share(void **state) {
    (void)state;
    the_fake.cost = cost_by_tile;
    tw_space s = ranked_both();
    bool taken[128] = {false};
    int ids[128], count = 0, rest = 0;
    assert_int_equal(tw_rank_pick(&s, taken, 6, ids, &count), TW_OK);
    assert_int_equal(count, 6);
    assert_int_equal(ids[0], 0); /* the best by the model comes first, then the other's best */
    assert_ptr_not_equal(s.points[ids[0]].tmpl, s.points[ids[1]].tmpl);
    int of_b = 0;
    for (int i = 0; i < count; i++) {
        assert_true(taken[ids[i]]);
        of_b += s.points[ids[i]].tmpl == &fake_b;
    }
    assert_int_equal(of_b, 2);
    /* In the end everything is picked, and once. */
    assert_int_equal(tw_rank_pick(&s, taken, 128, ids, &rest), TW_OK);
    assert_int_equal(rest, s.count - count);
    for (int i = 0; i < s.count; i++) assert_true(taken[i]);
    assert_int_equal(tw_rank_pick(&s, taken, 128, ids, &rest), TW_OK);
    assert_int_equal(rest, 0);
    tw_space_free(&s);
}

/* block_m makes hardly a difference, micro_m some. */
static double cost_by_rows(const tw_template *tmpl, const tw_config *c) {
    if (tmpl == &fake_b) return 1000;
    return 100 + 0.5 * c->micro_m + 0.2 * c->micro_n / 8 + 0.001 * c->block_m;
}

static void test_pick_spreads_over_the_space(void **state) {
    (void)state;
    the_fake.cost = cost_by_rows;
    tw_space s = space_of(&fake_a);
    assert_int_equal(tw_rank(&s, &target, &problem), TW_OK);
    /* By cost alone the first five are one tile with different blocks. */
    for (int i = 0; i < 5; i++) assert_int_equal(s.points[i].config.micro_m, 1);
    bool taken[128] = {false}, seen_m[16] = {false}, seen_n[128] = {false};
    int ids[16], count, tiles_m = 0, tiles_n = 0;
    assert_int_equal(tw_rank_pick(&s, taken, 8, ids, &count), TW_OK);
    for (int i = 0; i < count; i++) {
        const tw_config *c = &s.points[ids[i]].config;
        tiles_m += !seen_m[c->micro_m];
        tiles_n += !seen_n[c->micro_n];
        seen_m[c->micro_m] = seen_n[c->micro_n] = true;
    }
    assert_true(tiles_m >= 3 && tiles_n >= 3);
    tw_space_free(&s);
}

static double b_is_cheaper(const tw_template *tmpl, const tw_config *c) {
    (void)c;
    return tmpl == &fake_b ? 10 : 25;
}

static void test_guess_is_the_cheapest_and_says_why(void **state) {
    (void)state;
    the_fake.cost = b_is_cheaper;
    tw_point p;
    tw_str why = {0};
    assert_int_equal(tw_guess_in(&fake_env, &target, &problem, NULL, &p, &why), TW_OK);
    assert_ptr_equal(p.tmpl, &fake_b);
    assert_int_equal(p.config.micro_m, 1);
    assert_string_equal(tw_str_text(&why), "fake.a: estimated at 2.50 times the cost of fake.b\n");
    tw_str_free(&why);

    the_fake.declines_b = "it is Sunday.";
    assert_int_equal(tw_guess_in(&fake_env, &target, &problem, NULL, &p, &why), TW_OK);
    assert_ptr_equal(p.tmpl, &fake_a);
    assert_string_equal(tw_str_text(&why), "fake.b: it is Sunday.\n");
    tw_str_free(&why);
}

static void test_guess_keeps_to_a_layout(void **state) {
    (void)state;
    the_fake.cost = b_is_cheaper;
    tw_point p;
    tw_str why = {0};
    assert_int_equal(tw_guess_in(&fake_env, &target, &problem, &fake_layout, &p, &why), TW_OK);
    assert_ptr_equal(p.tmpl, &fake_a);
    assert_non_null(strstr(tw_str_text(&why), "fake.b: the weights are packed in another layout"));
    tw_str_free(&why);
}

static void test_no_guess_names_every_reason(void **state) {
    (void)state;
    the_fake.declines_a = "it is Monday.";
    the_fake.declines_b = "it is Sunday.";
    tw_point p = {.cost = 7};
    assert_int_equal(tw_guess_in(&fake_env, &target, &problem, NULL, &p, NULL), TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "fake.a: it is Monday."));
    assert_non_null(strstr(tw_error_message(), "fake.b: it is Sunday."));
    assert_non_null(strstr(tw_error_message(), "N=8,K=32"));
    assert_true(p.cost == 7);
}

/* The real templates. */
static void test_guess_among_the_real_templates_is_legal(void **state) {
    (void)state;
    static const char *const texts[] = {
        "M=1,N=576,K=576,w=u4,g=32,s=f16,z=value,a=i8g32", "M=512,N=192,K=576,w=i8,a=i8",
        "M=16,N=64,K=100,x=bf16,w=u3,g=32,z=code", "M=3,N=5,K=7,w=f16"};
    for (int isa = 0; isa < TW_ISA_COUNT; isa++)
        for (size_t i = 0; i < TW_COUNT(texts); i++) {
            target.isa = (tw_isa)isa;
            problem = fake_problem(texts[i]);
            const tw_template *tmpl;
            tw_config config;
            assert_int_equal(tw_guess(&target, &problem, NULL, &tmpl, &config, NULL), TW_OK);
            assert_null(tmpl->reject(&target, &problem, &config));
        }
}

static void test_guess_unpacks_once_where_that_takes_the_products_ports(void **state) {
    (void)state;
    static const struct {
        const char *model, *problem;
        tw_isa isa;
        int32_t ahead;
        bool pairs; /* and whether sums of two groups are scaled at once */
    } cases[] = {
        {"Intel Xeon", "M=512,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 256, false},
        {"Intel Xeon", "M=512,N=512,K=768,w=u4,g=96,s=f16,a=i8", TW_ISA_avx512vnni, 192, false},
        {"Intel Xeon", "M=16,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 0, false},
        {"Intel Xeon", "M=512,N=512,K=512,w=i8,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 0, false},
        {"AMD EPYC", "M=512,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 0, false},
        {"AMD EPYC", "M=512,N=512,K=512,w=u5,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 256, false},
        {"", "M=512,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 0, false},
        {"AMD EPYC", "M=512,N=512,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx512vnni, 256, true},
        {"Intel Xeon", "M=512,N=512,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx512vnni, 256,
         false},
        {"AMD EPYC", "M=512,N=512,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx2, 256, false},
        {"AMD EPYC", "M=512,N=512,K=512,w=i8,g=32,s=f16,a=i8g32", TW_ISA_avx2, 256, false},
        {"Intel Xeon", "M=512,N=512,K=512,w=i8,g=32,s=f16,a=i8g32", TW_ISA_avx2, 256, false},
    };
    const tw_template *int_gemm = tw_template_find("cpu.int_gemm");
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_target machine = {.isa = cases[i].isa, .l2_bytes = 1 << 20, .threads = 1};
        tw_problem p = fake_problem(cases[i].problem);
        tw_config config;
        snprintf(machine.model, sizeof machine.model, "%s", cases[i].model);
        int_gemm->guess(&machine, &p, &config);
        assert_int_equal(config.ahead, cases[i].ahead);
        assert_int_equal(config.prefetch > 0, cases[i].ahead > 0);
        assert_int_equal(config.group_pairs, cases[i].pairs);
    }
}

/* Few rows of bytes are multiplied as they lie. */
static void test_guess_unpacks_words_of_16_rows(void **state) {
    (void)state;
    tw_target machine = {.isa = TW_ISA_avx2, .l2_bytes = 1 << 20, .threads = 1};
    for (int64_t rows = 1; rows <= 64; rows *= 2) {
        tw_problem p = fake_problem("M=1,N=512,K=512,w=i8,g=32,s=f16,a=i8g32");
        tw_config config;
        p.M = rows;
        tw_template_find("cpu.int_gemm")->guess(&machine, &p, &config);
        assert_int_equal(config.ahead, rows < 16 ? 0 : 256);
    }
}

/* As few blocks of rows as their totals have place, and alike. */
static void test_blocks_that_unpack_once(void **state) {
    (void)state;
    static const struct {
        const char *model;
        int32_t threads, rows, block;
    } cases[] = {
        {"AMD EPYC", 1, 512, 171},   {"AMD EPYC", 1, 190, 192}, {"AMD EPYC", 1, 1024, 171},
        {"AMD EPYC", 1, 100, 102},   {"AMD EPYC", 8, 512, 171}, {"AMD EPYC", 16, 512, 120},
        {"Intel Xeon", 1, 512, 120},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_target machine = {
            .isa = TW_ISA_avx512vnni, .l2_bytes = 1 << 20, .threads = cases[i].threads};
        tw_problem p = fake_problem("M=1,N=2048,K=2048,w=i6,g=16,s=f16i8,a=i8g256");
        tw_config config;
        p.M = cases[i].rows;
        snprintf(machine.model, sizeof machine.model, "%s", cases[i].model);
        tw_template_find("cpu.int_gemm")->guess(&machine, &p, &config);
        assert_int_equal(config.block_m, cases[i].block);
    }
}

/* Of the stack that tw_linear_forward promises: codes, scales, zeros and sums of codes. */
static void test_what_is_unpacked_fits_its_place(void **state) {
    (void)state;
    static const struct {
        const char *problem, *config;
        bool fits;
    } cases[] = {
        {"M=512,N=64,K=1024,w=u4,g=32,s=f16,a=i8", "mm6 mn32 bm120 bn64 ua1024", true},
        {"M=512,N=64,K=1024,w=u4,g=16,s=f16,a=i8", "mm6 mn32 bm120 bn64 ua1024", true},
        {"M=512,N=64,K=1024,w=u4,g=16,s=f16,z=code,a=i8", "mm6 mn32 bm120 bn64 ua1024", false},
        {"M=512,N=64,K=1024,w=u4,g=16,s=f16,a=i8z", "mm6 mn32 bm120 bn64 ua1024", false},
        {"M=512,N=64,K=1024,w=u4,g=16,s=f16,z=value,a=i8z", "mm6 mn32 bm120 bn64 ua512", true},
    };
    const tw_template *int_gemm = tw_template_find("cpu.int_gemm");
    tw_target machine = {.isa = TW_ISA_avx512vnni, .threads = 1};
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_problem p = fake_problem(cases[i].problem);
        tw_config c = fake_config(cases[i].config);
        const char *why = int_gemm->reject(&machine, &p, &c);
        if (cases[i].fits) assert_null(why);
        if (!cases[i].fits)
            assert_string_equal(why, "ahead's codes, scales and zeros must take at "
                                     "most 40960 bytes.");
    }
}

static void test_few_rows_prefetch_as_far_as_the_cores_like(void **state) {
    (void)state;
    static const struct {
        const char *model, *problem;
        tw_isa isa;
        int32_t lines;
    } cases[] = {
        {"Intel Xeon", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 64},
        {"AMD EPYC", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 8},
        {"", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 32},
        {"Intel Xeon", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx2, 64},
        {"AMD EPYC", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx2, 8},
        {"AMD EPYC", "M=1,N=512,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx2, 8},
        {"AMD EPYC", "M=4,N=512,K=512,w=i6,g=16,s=f16i8,a=i8g256", TW_ISA_avx512vnni, 8},
        {"AMD EPYC", "M=8,N=512,K=512,w=u4,g=32,s=f16i8,a=i8g256", TW_ISA_avx512vnni, 0},
        {"", "M=1,N=512,K=512,w=u4,g=32,s=f16,a=i8g32", TW_ISA_avx2, 16},
        {"Intel Xeon", "M=1,N=512,K=512,w=f16", TW_ISA_avx512vnni, 64},
        {"Intel Xeon", "M=1,N=512,K=512,w=f16", TW_ISA_avx2, 0},
        {"AMD EPYC", "M=1,N=512,K=512,w=f16", TW_ISA_avx512vnni, 0},
        {"AMD EPYC", "M=1,N=32768,K=512,w=f16", TW_ISA_avx512vnni, 0},
        {"AMD EPYC", "M=1,N=32768,K=512,w=i8,g=32,s=f16,a=i8g32", TW_ISA_avx512vnni, 8},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_target machine = {.isa = cases[i].isa, .l2_bytes = 1 << 20, .threads = 1};
        tw_problem p = fake_problem(cases[i].problem);
        const tw_template *tmpl;
        tw_config config;
        snprintf(machine.model, sizeof machine.model, "%s", cases[i].model);
        assert_int_equal(tw_guess(&machine, &p, NULL, &tmpl, &config, NULL), TW_OK);
        assert_int_equal(config.prefetch, cases[i].lines);
        assert_int_equal(config.in_order, cases[i].lines && strstr(cases[i].model, "AMD"));
    }
}

/* Nine panels, of whose rows eight threads do not read parts. */
static void test_one_row_reads_whole_panels(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 8; threads *= 2) {
        tw_target machine = {.isa = TW_ISA_avx512vnni, .l2_bytes = 1 << 20, .threads = threads};
        tw_problem p = fake_problem("M=1,N=576,K=1536,w=f16");
        const tw_template *tmpl;
        tw_config config;
        assert_int_equal(tw_guess(&machine, &p, NULL, &tmpl, &config, NULL), TW_OK);
        assert_int_equal(config.micro_n, 64);
    }
}

/* On AMD's cores rows that are read once or twice, and tiles of few rows, take whole panels, where
 * memory sees its lines in order. */
static void test_few_rows_take_whole_panels_on_amd(void **state) {
    (void)state;
    static const struct {
        const char *problem;
        int32_t rows, ahead;
        bool in_order;
    } cases[] = {
        {"M=4,N=8192,K=2048,w=i6,g=16,s=f16i8,a=i8g256", 4, 0, true},
        {"M=8,N=8192,K=2048,w=i6,g=16,s=f16i8,a=i8g256", 4, 0, true},
        {"M=8,N=8192,K=2048,w=i4,g=32,s=f16,a=i8g32", 4, 0, false},
        {"M=16,N=8192,K=2048,w=i4,g=32,s=f16,a=i8g32", 4, 0, false},
        {"M=16,N=8192,K=2048,w=i6,g=16,s=f16i8,a=i8g256", 3, 256, false},
        {"M=512,N=8192,K=2048,w=i6,g=16,s=f16i8,a=i8g256", 3, 256, false},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_target machine = {
            .isa = TW_ISA_avx512vnni, .l2_bytes = 1 << 20, .threads = 2, .model = "AMD EPYC"};
        tw_problem p = fake_problem(cases[i].problem);
        const tw_template *tmpl;
        tw_config config;
        assert_int_equal(tw_guess(&machine, &p, NULL, &tmpl, &config, NULL), TW_OK);
        assert_int_equal(config.micro_m, cases[i].rows);
        assert_int_equal(config.micro_n, 64);
        assert_int_equal(config.ahead, cases[i].ahead);
        assert_int_equal(config.in_order, cases[i].in_order);
        assert_int_equal(config.streams, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_space_is_every_legal_combination_once_and_the_guess, set_up),
        cmocka_unit_test_setup(test_guess_on_the_axes_is_not_added_twice, set_up),
        cmocka_unit_test_setup(test_neighbours_are_one_step_along_one_axis, set_up),
        cmocka_unit_test_setup(test_neighbours_at_corners_and_off_the_axes, set_up),
        cmocka_unit_test_setup(test_rank_orders_by_cost_then_nearness_to_the_guess, set_up),
        cmocka_unit_test_setup(test_pick_gives_each_template_a_share, set_up),
        cmocka_unit_test_setup(test_pick_spreads_over_the_space, set_up),
        cmocka_unit_test_setup(test_guess_is_the_cheapest_and_says_why, set_up),
        cmocka_unit_test_setup(test_guess_keeps_to_a_layout, set_up),
        cmocka_unit_test_setup(test_no_guess_names_every_reason, set_up),
        cmocka_unit_test_setup(test_guess_among_the_real_templates_is_legal, set_up),
        cmocka_unit_test(test_guess_unpacks_once_where_that_takes_the_products_ports),
        cmocka_unit_test(test_guess_unpacks_words_of_16_rows),
        cmocka_unit_test(test_blocks_that_unpack_once),
        cmocka_unit_test(test_what_is_unpacked_fits_its_place),
        cmocka_unit_test(test_few_rows_prefetch_as_far_as_the_cores_like),
        cmocka_unit_test(test_one_row_reads_whole_panels),
        cmocka_unit_test(test_few_rows_take_whole_panels_on_amd),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
