/* Where f32 rounds nothing, kernels must be exact: integer sums, the largest codes against the
 * largest x, and the unit matrix, which gives back the dequantized weights.  Sums that cancel, or
 * are too long for 32 bits, lose nothing.  And what is not finite stays in its row. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/formats.h"
#include "tests/kernels/run.h"

static int failures, kernels;

/* The guessed config for M rows of each template that takes the problem, on one target. */
static void check(const layer *l, tw_isa isa, runner how, const run_options *options) {
    tw_target target = target_of(isa);
    int takers = 0;
    for (int i = 0; tw_template_row(i); i++) {
        const tw_template *tmpl = tw_template_row(i);
        tw_problem bucket = l->problem;
        tw_config config;
        compiled c;
        if (tmpl->reject_problem(&target, &bucket)) continue;
        takers++;
        kernels++;
        bucket.M = tw_bucket_rows(tw_bucket_index(options->M));
        tmpl->guess(&target, &bucket, &config);
        tw_status status = compiled_init(&c, tmpl, &l->problem, &config, &target, how);
        if (status == TW_OK) status = run_layer(&c, l, l, options);
        if (status != TW_OK && failures++ < 20) run_report(&c, options->M);
        compiled_free(&c);
    }
    assert_true(takers > 0);
}

static void check_targets(const layer *l, bool native, const run_options *options) {
    for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
        check(l, (tw_isa)isa, RUN_MACHINE, options);
        if (native && tw_cpu_can_run((tw_isa)isa)) check(l, (tw_isa)isa, RUN_NATIVE, options);
    }
}

/* ---- sums of integers ---- */

static const char *const quants[] = {"none", "i8", "i8z", "i8full", "i8g64"};
static const char *const zero_modes[] = {"none", "code", "value"};

static void exact_problem(const char *weight, const char *zero, const char *quant, int K,
                          layer_data data, bool native) {
    char text[256];
    static const char *const reals[] = {"f32", "f16", "bf16"};
    const char *group = strstr(quant, "g") ? "32" : K % 64 ? "channel" : "64";
    snprintf(text, sizeof text,
             "M=3,N=37,K=%d,x=%s,w=%s,g=%s,s=f32,z=%s,a=%s,y=%s,bias=f16,fpmath=bf16", K,
             reals[K / 2 % 3], weight, group, zero, quant, reals[K % 3]);
    tw_problem p = problem_of(text);
    layer l;
    layer_init(&l, &p, data, 7);
    run_options options = {.M = 3, .exact = true};
    check_targets(&l, native, &options);
    layer_free(&l);
}

static void test_integer_sums(void **state) {
    (void)state;
    failures = kernels = 0;
    for (int i = 0; tw_dtype_row(i); i++) {
        const tw_dtype_info *d = tw_dtype_row(i);
        if (!tw_dtype_is_int(d->dtype)) continue;
        for (size_t z = 0; z < TW_COUNT(zero_modes); z++)
            for (size_t q = 0; q < TW_COUNT(quants); q++) {
                bool native = (z + q + (size_t)i) % 4 == 0;
                exact_problem(d->name, zero_modes[z], quants[q], 100, LAYER_EXACT, native);
                exact_problem(d->name, zero_modes[z], quants[q], 99 - (int)q, LAYER_EXACT, false);
                exact_problem(d->name, zero_modes[z], quants[q], 128, LAYER_EXTREME, native);
            }
    }
    fprintf(stderr, "%d kernels, %d not exact\n", kernels, failures);
    assert_int_equal(failures, 0);
}

/* ---- value zeros that cancel ---- */

/* f16i8's scales of 18 bits times codes of 8, where value zeros take off most of it: what the
 * weights' own rounding moves, no sum of codes can follow. */
static void test_products_that_round(void **state) {
    (void)state;
    failures = kernels = 0;
    tw_problem p = problem_of("M=60,N=60,K=512,w=u8,g=16,s=f16i8,z=value,a=i8g256");
    for (uint64_t seed = 0; seed < 8; seed++) {
        layer l;
        layer_init(&l, &p, LAYER_RANDOM, seed);
        run_options options = {.M = 60};
        check_targets(&l, false, &options);
        layer_free(&l);
    }
    assert_int_equal(failures, 0);
}

/* However much of q * s and z cancels, the error stays in proportion to what is left. */
static void test_cancelling_zeros(void **state) {
    (void)state;
    failures = kernels = 0;
    static const char *const weights[] = {"u4", "u8", "i5"}, *const scales[] = {"f32", "f16",
                                                                                "bf16", "f16i8"};
    static const struct {
        const char *group, *quant;
        int K;
    } forms[] = {{"16", "i8g32", 700},
                 {"32", "i8g32", 700},
                 {"32", "none", 700},
                 {"64", "i8", 700},
                 {"64", "i8z", 700},
                 {"128", "i8", 700},
                 {"256", "i8g256", 700},
                 {"channel", "i8", 700},
                 /* f16i8's factors come late. */
                 {"16", "i8g256", 768},
                 {"32", "i8g256", 768}};
    for (size_t w = 0; w < TW_COUNT(weights); w++)
        for (size_t s = 0; s < TW_COUNT(scales); s++)
            for (size_t f = 0; f < TW_COUNT(forms); f++) {
                char text[256];
                snprintf(text, sizeof text, "M=8,N=21,K=%d,w=%s,s=%s,z=value,g=%s,a=%s", forms[f].K,
                         weights[w], scales[s], forms[f].group, forms[f].quant);
                if (!strcmp(scales[s], "f16i8") && !strcmp(forms[f].group, "channel")) continue;
                tw_problem p = problem_of(text);
                layer l;
                layer_init(&l, &p, LAYER_CANCEL, 3 + f);
                run_options options = {.M = 8};
                check_targets(&l, (w + s + f) % 3 == 0, &options);
                layer_free(&l);
            }
    fprintf(stderr, "%d kernels, %d off\n", kernels, failures);
    assert_int_equal(failures, 0);
}

/* Of many outputs some cancel nearly all of a run of 256: whether its factors come late or not. */
static void test_runs_that_cancel(void **state) {
    (void)state;
    failures = kernels = 0;
    static const char *const texts[] = {
        "M=40,N=192,K=256,w=u8,g=32,s=f16i8,z=value,a=i8g256",
        "M=40,N=192,K=256,w=u5,g=32,s=f16i8,z=value,a=i8g256",
        "M=40,N=192,K=256,w=u4,g=64,s=f16i8,z=value,a=i8g256",
    };
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        tw_problem p = problem_of(texts[i]);
        layer l;
        layer_init(&l, &p, LAYER_RANDOM, 5 + i);
        run_options options = {.M = 40};
        check_targets(&l, true, &options);
        layer_free(&l);
    }
    assert_int_equal(failures, 0);
}

/* Scales of two levels whose only group is all of K, whole and short; weights that are bf16, and
 * products that are strict; a step of 16. */
static void test_bf16_products(void **state) {
    (void)state;
    failures = kernels = 0;
    static const char *const texts[] = {
        "M=40,N=65,K=32,w=u4,g=32,s=f16i8,z=value,fpmath=bf16",
        "M=40,N=65,K=256,w=i2,g=256,s=f16i8,fpmath=bf16",
        "M=40,N=65,K=33,w=u4,g=256,s=f16i8,fpmath=bf16",
        "M=40,N=65,K=128,x=bf16,w=bf16",
        "M=40,N=65,K=700,w=e4m3,fpmath=bf16",
        "M=40,N=65,K=1344,w=u4,g=48,s=f16,z=code,fpmath=bf16,act=silu",
    };
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        tw_problem p = problem_of(texts[i]);
        layer l;
        layer_init(&l, &p, LAYER_RANDOM, 6 + i);
        run_options options = {.M = 40};
        check_targets(&l, true, &options);
        layer_free(&l);
    }
    assert_int_equal(failures, 0);
}

/* Units of bf16 take a subnormal x for 0, in packing's vectors and in what is left of a row. */
static void test_subnormal_x(void **state) {
    (void)state;
    const tw_template *tmpl = tw_template_find("cpu.amx_bf16");
    tw_target target = target_of(TW_ISA_avx512amx);
    tw_problem p = problem_of("M=1,N=1,K=33,w=u8,s=f32,fpmath=bf16");
    tw_config config;
    compiled c;
    layer l;
    float y = NAN;
    run_options options = {.M = 1, .y = &y};
    layer_init(&l, &p, LAYER_EXACT, 6);
    *(float *)l.scales = 0x1p126f;
    for (int k = 0; k < 33; k++) ((uint8_t *)l.weight)[k] = 1, ((float *)l.x)[k] = 0x0.fffffep-126f;
    tmpl->guess(&target, &p, &config);
    assert_int_equal(compiled_init(&c, tmpl, &p, &config, &target, RUN_MACHINE), TW_OK);
    assert_int_equal(run_layer(&c, &l, &l, &options), TW_OK);
    assert_true(y == 0);
    compiled_free(&c);
    layer_free(&l);
}

/* ---- long sums ---- */

/* Past the length at which sums of all products would leave 32 bits. */
static void test_long_groups(void **state) {
    (void)state;
    failures = kernels = 0;
    static const char *const texts[] = {
        "M=2,N=2,K=140000,w=i8,g=channel,s=f32,a=i8",
        "M=2,N=2,K=45000,w=u8,g=tensor,s=f32,z=code,a=i8z",
        "M=2,N=2,K=40005,w=u8,g=20000,s=f16,z=code,a=i8",
        "M=2,N=2,K=1500,w=u8,g=channel,s=f16,z=value,a=i8",
        "M=2,N=2,K=14336,w=i8,g=channel,s=f32,z=none,a=i8",
        "M=2,N=2,K=140000,w=i8,g=channel,s=f32,a=i8full",
        /* The same of what a matrix unit would take, and groups too long for its strip. */
        "M=2,N=2,K=131136,w=i8,g=channel,s=f32,a=i8",
        "M=2,N=2,K=2048,w=u8,g=1024,s=f32,z=value,a=i8",
        "M=2,N=2,K=4096,w=i8,g=2048,s=f32,a=i8",
        "M=2,N=2,K=192,w=i8,g=96,s=f32,a=i8",
        "M=2,N=2,K=512,w=u4,g=32,s=f16i8,z=code,a=i8g256",
        "M=2,N=2,K=2560,w=u4,g=1280,fpmath=bf16",
        "M=2,N=2,K=3072,w=u4,g=1536,fpmath=bf16",
    };
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        tw_problem p = problem_of(texts[i]);
        layer l;
        layer_init(&l, &p, LAYER_EXTREME, 5);
        run_options options = {.M = 2};
        check_targets(&l, true, &options);
        layer_free(&l);
    }
    fprintf(stderr, "%d kernels, %d off\n", kernels, failures);
    assert_int_equal(failures, 0);
}

/* Products come four columns at a time: fewer with one scale are not for integer kernels, and a
 * group may be as long as it likes. */
static void test_group_lengths(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool taken;
    } cases[] = {
        {"M=5,N=100,K=64,w=u4,g=1,a=i8", false},    {"M=5,N=100,K=64,w=u4,g=2,a=i8", false},
        {"M=5,N=100,K=64,w=i8,g=2,a=i8g32", false}, {"M=5,N=100,K=64,w=u4,g=4,a=i8", true},
        {"M=5,N=100,K=2,w=u4,g=2,a=i8", true},      {"M=5,N=100,K=4000000,w=u8,a=i8z", true}};
    const tw_template *kernel = tw_template_find("cpu.int_gemm");
    tw_target target = target_of(TW_ISA_portable);
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_problem p = problem_of(cases[i].text);
        const char *why = kernel->reject_problem(&target, &p);
        if (cases[i].taken ? why != NULL : !why || !strstr(why, "multiples of 4"))
            fail_msg("%s: %s", cases[i].text, why ? why : "taken");
    }
}

/* ---- the unit matrix ---- */

static void test_unit_matrix(void **state) {
    (void)state;
    failures = kernels = 0;
    for (int i = 0; tw_dtype_row(i); i++) {
        const tw_dtype_info *d = tw_dtype_row(i);
        if (tw_dtype_is_scale_only(d->dtype)) continue;
        bool one_form = tw_dtype_is_real(d->dtype) || d->dtype == TW_LUT4;
        for (int z = 0; z < (one_form ? 1 : 2); z++) {
            char text[256];
            const char *scale = i % 3 ? i % 3 == 1 ? "f16" : "bf16" : "f32";
            if (tw_dtype_is_real(d->dtype))
                snprintf(text, sizeof text, "N=67,K=45,x=f32,w=%s,fpmath=bf16", d->name);
            else
                snprintf(text, sizeof text, "N=67,K=45,x=f32,w=%s,g=%d,s=%s,z=%s,fpmath=bf16",
                         d->name, z ? 16 : 32, scale,
                         zero_modes[tw_dtype_is_int(d->dtype) ? z : 2 * z]);
            tw_problem p = problem_of(text);
            layer l;
            layer_init(&l, &p, LAYER_IDENTITY, 11);
            run_options options = {.M = 45, .exact = true};
            check_targets(&l, i % 3 == 0, &options);
            layer_free(&l);
        }
    }
    fprintf(stderr, "%d kernels, %d not exact\n", kernels, failures);
    assert_int_equal(failures, 0);
}

/* Every code of every type that is no integer, not finite ones too: one a row of w, times 1. */
static void test_every_code(void **state) {
    (void)state;
    failures = kernels = 0;
    for (int i = 0; tw_dtype_row(i); i++) {
        const tw_dtype_info *d = tw_dtype_row(i);
        if (tw_dtype_is_int(d->dtype) || tw_dtype_is_real(d->dtype) ||
            tw_dtype_is_scale_only(d->dtype))
            continue;
        char text[256];
        snprintf(text, sizeof text, "M=1,N=%d,K=1,w=%s,g=channel,s=f32", 1 << d->bits, d->name);
        tw_problem p = problem_of(text);
        layer l;
        layer_init(&l, &p, LAYER_EXACT, 3);
        for (int code = 0; code < 1 << d->bits; code++)
            ((uint8_t *)l.weight)[code] = (uint8_t)code, ((float *)l.scales)[code] = 0.5f;
        *(float *)l.x = *l.x_f32 = 1;
        tw_canonical w = layer_canonical(&l);
        tw_reference_row(&p, &w, l.x_f32, 0, p.N, l.expected[0], l.magnitude[0]);
        float y[256];
        run_options options = {.M = 1, .y = y};
        for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
            check(&l, (tw_isa)isa, RUN_MACHINE, &options);
            if (tw_cpu_can_run((tw_isa)isa)) check(&l, (tw_isa)isa, RUN_NATIVE, &options);
            for (int code = 0; code < 1 << d->bits; code++) {
                double value =
                    d->dtype == TW_LUT4 ? (double)l.lut[code] : value_of(d, (uint32_t)code);
                /* Sums begin at 0, which takes the sign off another. */
                if (!same((double)y[code], value / 2 + 0.0))
                    fail_msg("%s: code %d is %g, expected %g", text, code, (double)y[code],
                             value / 2);
            }
        }
        layer_free(&l);
    }
    assert_int_equal(failures, 0);
}

/* ---- not finite ---- */

enum { BAD_ROWS = 5, NAN_ROW = 1, INFINITY_ROW = 3 };

static void check_bad_row(const layer *l, const float *y, int64_t m, const char *text) {
    bool bad = m == NAN_ROW || m == INFINITY_ROW;
    const double *expected = l->expected[0] + m * l->problem.N;
    for (int64_t n = 0; n < l->problem.N; n++) {
        float got = y[m * l->problem.N + n];
        bool right = m == NAN_ROW        ? isnan(got)
                     : m == INFINITY_ROW ? !isfinite(got) || (isfinite(expected[n]) && got == 0)
                                         : isfinite(got);
        if (!right)
            fail_msg("%s: y[%lld,%lld] is %g, row %s", text, (long long)m, (long long)n,
                     (double)got, bad ? "is not finite" : "is finite");
    }
}

static void test_not_finite(void **state) {
    (void)state;
    static const char *const texts[] = {
        "M=5,N=19,K=70,w=u4,g=32,s=f16,z=code,a=none,act=none",
        "M=5,N=19,K=70,w=u4,g=32,s=f16,z=value,a=none,act=relu",
        "M=5,N=19,K=70,w=f32,act=gelu",
        "M=5,N=19,K=70,x=bf16,w=bf16,act=silu",
        "M=5,N=19,K=70,w=i8,a=i8,act=none",
        "M=5,N=19,K=70,x=f16,w=u4,g=32,s=f16,z=code,a=i8,act=relu",
        "M=5,N=19,K=70,w=u4,g=16,s=f16,z=value,a=i8g32,act=gelu_tanh",
        "M=5,N=19,K=70,w=i5,g=32,s=f16,a=i8z,act=gelu,y=bf16",
        "M=5,N=19,K=70,x=bf16,w=u2,g=64,s=f16,a=i8g64,act=silu,y=f16",
        "M=5,N=19,K=70,x=f16,w=u4,g=32,s=f16,z=value,a=i8g32,fpmath=bf16,act=silu",
    };
    static const int64_t columns[] = {0, 33, 69};
    for (size_t i = 0; i < TW_COUNT(texts); i++)
        for (size_t k = 0; k < TW_COUNT(columns); k++) {
            tw_problem p = problem_of(texts[i]);
            layer l;
            layer_init(&l, &p, LAYER_RANDOM, 8);
            tw_float_set(l.x, p.x, NAN_ROW * p.K + columns[k], NAN);
            tw_float_set(l.x, p.x, INFINITY_ROW * p.K + columns[k], k % 2 ? -INFINITY : INFINITY);
            float y[BAD_ROWS * 19];
            run_options options = {.M = BAD_ROWS, .y = y};
            for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
                failures = 0;
                check(&l, (tw_isa)isa, tw_cpu_can_run((tw_isa)isa) && !k ? RUN_NATIVE : RUN_MACHINE,
                      &options);
                assert_int_equal(failures, 0);
                for (int64_t m = 0; m < BAD_ROWS; m++) check_bad_row(&l, y, m, texts[i]);
            }
            layer_free(&l);
        }
}

/* ---- activations ---- */

/* Over all that matters of their range: within a few 1e-6 of what they are, but where that is next
 * to nothing. */
static void test_activations(void **state) {
    (void)state;
    enum { MOST = 16, STEPS = 64, COUNT = 2 * MOST * STEPS + 1 };
    static float y[COUNT];
    for (int act = 0; tw_act_name((tw_act)act)[0] != '?'; act++) {
        char text[128];
        snprintf(text, sizeof text, "M=1,N=%d,K=1,w=f32,act=%s", COUNT, tw_act_name((tw_act)act));
        tw_problem p = problem_of(text);
        layer l;
        layer_init(&l, &p, LAYER_RANDOM, 3);
        ((float *)l.x)[0] = 1;
        for (int i = 0; i < COUNT; i++) ((float *)l.weight)[i] = (float)i / STEPS - MOST;
        run_options options = {.M = 1, .y = y};
        for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
            failures = 0;
            check(&l, (tw_isa)isa, tw_cpu_can_run((tw_isa)isa) ? RUN_NATIVE : RUN_MACHINE,
                  &options);
            assert_int_equal(failures, 0);
            for (int i = 0; i < COUNT; i++) {
                double v = (double)((float *)l.weight)[i], right = tw_act_apply((tw_act)act, v);
                double bound = 5e-6 * fabs(right) + 0x1p-35;
                if (!(fabs((double)y[i] - right) <= bound))
                    fail_msg("%s of %g: %.9g, expected %.9g", tw_act_name((tw_act)act), v,
                             (double)y[i], right);
            }
        }
        layer_free(&l);
    }
}

/* Of a bias alone, whose sums of products are all 0 and excuse nothing: as the oracle has it. */
static void test_activations_of_biases(void **state) {
    (void)state;
    enum { MOST = 8, STEPS = 128, COUNT = 2 * MOST * STEPS + 1 };
    failures = kernels = 0;
    for (int act = 0; tw_act_name((tw_act)act)[0] != '?'; act++) {
        char text[128];
        snprintf(text, sizeof text, "M=1,N=%d,K=1,w=f32,bias=f32,act=%s", COUNT,
                 tw_act_name((tw_act)act));
        tw_problem p = problem_of(text);
        layer l;
        layer_init(&l, &p, LAYER_RANDOM, 3);
        ((float *)l.x)[0] = 0;
        for (int i = 0; i < COUNT; i++) {
            l.bias_f32[i] = ((float *)l.bias)[i] = (float)i / STEPS - MOST;
            l.expected[0][i] = tw_act_apply((tw_act)act, (double)l.bias_f32[i]);
            l.magnitude[0][i] = 0;
        }
        run_options options = {.M = 1};
        check_targets(&l, true, &options);
        layer_free(&l);
    }
    assert_int_equal(failures, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_that_round),
        cmocka_unit_test(test_integer_sums),
        cmocka_unit_test(test_cancelling_zeros),
        cmocka_unit_test(test_runs_that_cancel),
        cmocka_unit_test(test_bf16_products),
        cmocka_unit_test(test_subnormal_x),
        cmocka_unit_test(test_long_groups),
        cmocka_unit_test(test_unit_matrix),
        cmocka_unit_test(test_group_lengths),
        cmocka_unit_test(test_every_code),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_activations_of_biases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
