/* The comparison of a row of y: where exactly it stops passing, for each of its rules. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/core/compare.h"
#include "src/core/dtype.h"
#include "tests/base/cmocka_all.h"

enum { COLUMNS = 4096, CHAIN = 16 };

typedef struct row {
    tw_problem p;
    double expected[COLUMNS], magnitude[COLUMNS];
    float y[COLUMNS]; /* of any dtype */
    int n;
    int64_t chain;
} row;

/* K = 1024, all elements `value`, magnitude eight times that; y as expected. */
static row *row_of(const char *more, int n, double value) {
    static row r;
    char text[256];
    memset(&r, 0, sizeof r);
    snprintf(text, sizeof text, "N=4096,K=1024,%s", more);
    if (tw_problem_parse(text, false, &r.p) != TW_OK) fail_msg("%s", tw_error_message());
    r.n = n;
    r.chain = CHAIN;
    for (int i = 0; i < n; i++) {
        r.expected[i] = value;
        r.magnitude[i] = 8 * fabs(value);
        tw_double_set(r.y, r.p.y, i, value);
    }
    return &r;
}

static tw_status compare(const row *r, double *nmse) {
    return tw_compare_row(&r->p, r->chain, r->expected, r->magnitude, r->y, r->n, nmse);
}

static void set(row *r, int i, double v) { tw_double_set(r->y, r->p.y, i, v); }

static void passes(const row *r) {
    if (compare(r, NULL) != TW_OK) fail_msg("%s", tw_error_message());
}

static void fails_at(const row *r, int column) {
    char word[64];
    double nmse = -1;
    assert_int_equal(compare(r, &nmse), TW_VERIFY);
    snprintf(word, sizeof word, "column %d: got", column);
    if (!strstr(tw_error_message(), word))
        fail_msg("\"%s\" does not begin with %s", tw_error_message(), word);
    assert_true(nmse > 0);
}

/* R for plain weights without bias and activation: the chain and the product. */
static const double R_PLAIN = CHAIN + 1;

static void test_element(void **state) {
    (void)state;
    /* u sqrt(37 R) of the magnitude, in a row that is right elsewhere */
    double limit = 0x1p-24 * sqrt(37 * R_PLAIN) * 8;
    row *r = row_of("w=f32", COLUMNS, 1);
    double nmse = -1;
    assert_int_equal(compare(r, &nmse), TW_OK);
    assert_true(nmse == 0);
    set(r, 17, 1 + 0.95 * limit);
    passes(r);
    set(r, 17, 1 - 1.05 * limit);
    fails_at(r, 17);
}

static void test_row(void **state) {
    (void)state;
    double limit = 0x1p-24 * sqrt(R_PLAIN * (1 + 36.0 / COLUMNS));
    row *r = row_of("w=f32", COLUMNS, -2);
    for (int i = 0; i < COLUMNS; i++) set(r, i, -2 * (1 + (i % 2 ? 0.9 : -0.9) * limit));
    passes(r);
    for (int i = 0; i < COLUMNS; i++) set(r, i, -2 * (1 + (i % 2 ? 1.1 : -1.1) * limit));
    assert_int_equal(compare(r, NULL), TW_VERIFY);
}

/* Scales, bias and an activation function are roundings too; relu is none. */
static void test_roundings(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int roundings;
    } rows[] = {{"w=f32", 1},         {"w=f32,act=relu", 1}, {"w=f32,bias=f32", 2},
                {"w=i8", 2},          {"w=i8,a=i8", 3},      {"w=i8,a=i8,bias=f16,act=silu", 20},
                {"w=i8,act=gelu", 66}};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        double limit = 0x1p-24 * sqrt(37.0 * rows[i].roundings) * 8;
        row *r = row_of(rows[i].text, COLUMNS, 7.9);
        r->chain = 0;
        set(r, 0, 7.9f * (1 + 0.85 * limit));
        passes(r);
        set(r, 0, 7.9f * (1 + 1.15 * limit));
        fails_at(r, 0);
    }
}

/* Terms that cancel: in few columns the error counts relative to the magnitude. */
static void test_cancellation(void **state) {
    (void)state;
    row *r = row_of("w=f32", 1, 0);
    double limit = 0x1p-24 * sqrt(37 * R_PLAIN) * 320;
    r->magnitude[0] = 320;
    set(r, 0, 0.95 * limit);
    passes(r);
    set(r, 0, 1.05 * limit);
    fails_at(r, 0);
    /* Many columns: relative to magnitude / sqrt K. */
    r = row_of("w=f32", COLUMNS, 0);
    limit = 0x1p-24 * sqrt(R_PLAIN * (1 + 36.0 / COLUMNS)) * 10;
    for (int i = 0; i < COLUMNS; i++) {
        r->magnitude[i] = 320;
        set(r, i, 0.95 * limit);
    }
    passes(r);
    for (int i = 0; i < COLUMNS; i++) set(r, i, 1.05 * limit);
    assert_int_equal(compare(r, NULL), TW_VERIFY);
}

static void test_value_zeros(void **state) {
    (void)state;
    row *r = row_of("w=u4,g=32,z=value,a=i8g32", COLUMNS, 1);
    double limit = 0x1p-22 * 8 + 3 * 0x1p-24;
    for (int i = 0; i < COLUMNS; i++) set(r, i, 1 + 0.95 * limit);
    passes(r);
    set(r, 5, 1 + 1.05 * limit);
    fails_at(r, 5);
}

/* Narrow dtypes: half a unit in the last place is free, and nothing beyond it. */
static void test_narrow(void **state) {
    (void)state;
    row *r = row_of("w=f32,y=f16", COLUMNS, 1 + 0x1p-11); /* between two neighbours */
    set(r, 1, 1);
    set(r, 2, 1 + 0x1p-10);
    passes(r);
    set(r, 3, 1 + 0x1p-9);
    fails_at(r, 3);
    r = row_of("w=f32,y=bf16", COLUMNS, 1 + 0x1p-8);
    set(r, 1, 1);
    set(r, 2, 1 + 0x1p-7);
    passes(r);
    set(r, 4, 1 - 0x1p-8);
    fails_at(r, 4);
    /* Subnormal f16: the unit is 2^-24. */
    r = row_of("w=f32,y=f16", COLUMNS, 0x1.8p-24);
    set(r, 1, 0x1p-24);
    set(r, 2, 0x1p-23);
    passes(r);
    set(r, 6, 0x1.8p-23);
    fails_at(r, 6);
}

static void test_not_finite(void **state) {
    (void)state;
    row *r = row_of("w=f32", 8, 1);
    set(r, 2, NAN);
    fails_at(r, 2);
    set(r, 2, INFINITY);
    fails_at(r, 2);
    r = row_of("w=f32", 8, 1);
    r->expected[3] = NAN;
    fails_at(r, 3);
    r = row_of("w=f32", 8, NAN);
    fails_at(r, 7);

    /* f16 ends at 65504; what rounds beyond is infinite. */
    r = row_of("w=f32,y=f16", 8, 65520 * (1 - 0x1p-24));
    assert_true((double)tw_float_get(r->y, TW_F16, 0) == 65504);
    passes(r);
    set(r, 1, INFINITY);
    passes(r); /* an error of f32 away */
    r = row_of("w=f32,y=f16", 8, 1e6);
    assert_true(isinf(tw_float_get(r->y, TW_F16, 0)));
    passes(r);
    set(r, 1, 65504);
    fails_at(r, 1);
    set(r, 1, -INFINITY);
    fails_at(r, 1);
    r = row_of("w=f32,y=f16", 8, 60000);
    set(r, 1, INFINITY);
    fails_at(r, 1);
}

/* Nothing expected, nothing allowed. */
static void test_zero(void **state) {
    (void)state;
    row *r = row_of("w=f32", 8, 0);
    passes(r);
    set(r, 4, FLT_MIN);
    double nmse = 0;
    assert_int_equal(compare(r, &nmse), TW_VERIFY);
    assert_true(isinf(nmse));
    set(r, 4, 0x1p-149); /* underflow */
    passes(r);
    r->n = 0;
    passes(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_element),     cmocka_unit_test(test_row),
        cmocka_unit_test(test_roundings),   cmocka_unit_test(test_cancellation),
        cmocka_unit_test(test_value_zeros), cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
