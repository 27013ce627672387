/* What is right passes, what is wrong in any way does not, and says where. */
#include <stdio.h>
#include <string.h>

#include "tests/autotune/fake.h"

static fake_defect current;
static fake_defect current_defect(const tw_template *tmpl, const tw_config *c) {
    (void)tmpl, (void)c;
    return current;
}

/* Status of verifying a kernel with the defect. */
static tw_status verify(const char *text, fake_defect defect, int rows, double *error) {
    fake_reset();
    the_fake.defect = current_defect;
    current = defect;
    tw_problem p = fake_problem(text);
    tw_target target = fake_target();
    tw_workload *w;
    assert_int_equal(tw_workload_create_in(&fake_env, &p, NULL, &target, TW_WEIGHTS_HOT, &w),
                     TW_OK);
    tw_candidate c = fake_candidate(&fake_a, &p, "mm1 mn8");
    tw_status status = tw_verify(w, NULL, &c, rows, error);
    tw_workload_destroy(w);
    return status;
}

static const char *const problems[] = {
    "M=1,N=24,K=96,w=u4,g=32,s=f16,z=value,a=i8g32",
    "M=16,N=24,K=100,w=u4,g=32,s=f16,z=value",
    "M=16,N=24,K=100,w=u4,g=32,s=f16,z=code,bias=f16,act=gelu",
    "M=2,N=24,K=64,w=i4,g=32,z=none",
    "M=64,N=24,K=64,x=bf16,y=bf16,w=u3,g=16,z=code",
    "M=8,N=9,K=33,x=f16,w=i8,a=i8z",
    "M=4,N=24,K=64,w=u6,g=tensor,z=code",
    "M=3,N=5,K=7,w=f16",
    "M=1,N=1,K=1,w=u1,z=code,g=tensor",
    "M=5,N=16,K=64,w=u4,g=32,z=value,act=silu,y=f16",
};

static void test_right_kernels_pass(void **state) {
    (void)state;
    for (size_t i = 0; i < TW_COUNT(problems); i++)
        for (int rows = 0; rows <= 8; rows++) {
            double error = -1;
            if (verify(problems[i], FAKE_CORRECT, rows, &error) != TW_OK)
                fail_msg("%s, %d rows: %s", problems[i], rows, tw_error_message());
            assert_true(error >= 0 && error < 1e-5);
        }
}

/* Where each defect shows at all. */
static bool applies(const tw_problem *p, fake_defect defect) {
    const tw_scheme *s = &p->scheme;
    switch (defect) {
    case FAKE_ONE_SCALE: return !tw_scheme_plain(s) && tw_groups(s, p->K) > 1;
    case FAKE_SCALE_ROW: return !tw_scheme_plain(s) && tw_scale_rows(s, p->N) > 1;
    case FAKE_ZERO: return s->zero_mode == TW_ZERO_CODE && tw_dtype_bits(s->weight) > 1;
    case FAKE_SWAPPED_CODES: return p->K > 1;
    case FAKE_M_TAIL:
    case FAKE_ROW_SWAP:
    case FAKE_X_STRIDE: return p->M > 1;
    case FAKE_ROUNDING: return s->act_quant == TW_ACTQ_I8;
    case FAKE_BIAS: return p->bias != TW_NONE;
    default: return true;
    }
}

static void test_every_defect_is_found(void **state) {
    (void)state;
    int found[FAKE_DEFECTS] = {0};
    for (size_t i = 0; i < TW_COUNT(problems); i++)
        for (fake_defect d = FAKE_CORRECT + 1; d < FAKE_DEFECTS; d++) {
            tw_problem p = fake_problem(problems[i]);
            if (!applies(&p, d)) continue;
            for (int rows = 2; rows <= 8; rows += 2) {
                double error;
                tw_status status = verify(problems[i], d, rows, &error);
                if (status != TW_VERIFY)
                    fail_msg("%s, %d rows: defect %d passes", problems[i], rows, (int)d);
            }
            found[d]++;
        }
    for (int d = FAKE_CORRECT + 1; d < FAKE_DEFECTS; d++) assert_true(found[d] > 0);
}

static void test_the_whole_layer_finds_them_too(void **state) {
    (void)state;
    double error;
    const char *text = "M=16,N=24,K=100,w=u4,g=32,s=f16,z=value";
    assert_int_equal(verify(text, FAKE_ONE_K, 0, &error), TW_VERIFY);
    assert_int_equal(verify(text, FAKE_LAST_M, 0, &error), TW_VERIFY);
    assert_int_equal(verify(text, FAKE_PAST_M, 0, &error), TW_VERIFY);
}

static void test_the_sentence_says_where(void **state) {
    (void)state;
    double error;
    verify("M=16,N=24,K=100,w=u4,g=32,s=f16,z=value", FAKE_LAST_N, 4, &error);
    assert_non_null(strstr(tw_error_message(), "row 0 of 16"));
    assert_non_null(strstr(tw_error_message(), "23"));
    verify("M=16,N=24,K=100,w=u4,g=32,s=f16,z=value", FAKE_PAST_N, 4, &error);
    assert_non_null(strstr(tw_error_message(), "past column 24"));
    verify("M=16,N=24,K=100,w=u4,g=32,s=f16,z=value", FAKE_PAST_M, 4, &error);
    assert_non_null(strstr(tw_error_message(), "past row 16"));
    verify("M=16,N=24,K=100,w=u4,g=32,s=f16,z=value", FAKE_M_TAIL, 4, &error);
    assert_non_null(strstr(tw_error_message(), "row 12 of 13"));
    /* Exactness: columns 0 and K - 1 come first. */
    verify("M=2,N=24,K=64,w=i4,g=32,z=none", FAKE_LAST_K, 4, &error);
    assert_non_null(strstr(tw_error_message(), "identity"));
    assert_non_null(strstr(tw_error_message(), "w[0,63]"));
}

/* The oracle answers once per probe and workload, however many candidates ask. */
static void test_oracle_is_asked_once(void **state) {
    (void)state;
    fake_reset();
    tw_problem p = fake_problem("M=16,N=24,K=100,w=u4,g=32,s=f16,z=value");
    tw_target target = fake_target();
    tw_workload *w;
    assert_int_equal(
        tw_workload_create_in(&fake_env, &p, &fake_layout, &target, TW_WEIGHTS_HOT, &w), TW_OK);
    bool made;
    tw_parts parts = tw_parts_all(&fake_env, NULL);
    assert_int_equal(tw_workload_ask(w, &parts, &w->problem, 2, &made), TW_OK);
    assert_true(made && w->oracle[0][1].known && !w->oracle[0][2].known);
    w->oracle[0][1].expected[3] += 1;
    const double *kept = w->oracle[0][1].expected;
    assert_int_equal(tw_workload_ask(w, &parts, &w->problem, 4, &made), TW_OK);
    assert_ptr_equal(w->oracle[0][1].expected, kept);
    /* So the kept answer, now a wrong one, is what kernels are held against. */
    tw_candidate c = fake_candidate(&fake_a, &p, "mm1 mn8");
    double error;
    assert_int_equal(tw_verify(w, NULL, &c, 2, &error), TW_VERIFY);
    assert_int_equal(tw_verify(w, NULL, &c, 1, &error), TW_OK);
    tw_workload_destroy(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_kernels_pass),
        cmocka_unit_test(test_every_defect_is_found),
        cmocka_unit_test(test_the_whole_layer_finds_them_too),
        cmocka_unit_test(test_the_sentence_says_where),
        cmocka_unit_test(test_oracle_is_asked_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
