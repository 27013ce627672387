/* Environment variables through their table. */
#include <stdlib.h>
#include <string.h>

#include "src/base/options.h"
#include "tests/base/cmocka_all.h"

static void test_rows(void **state) {
    (void)state;
    for (int i = 0; i < TW_OPT_COUNT; i++) {
        const tw_option_row *row = &tw_option_rows[i];
        assert_true(strlen(row->name) > 0 && strlen(row->help) > 0);
        assert_non_null(row->def);
        for (int j = 0; j < i; j++) assert_string_not_equal(row->name, tw_option_rows[j].name);
        unsetenv(row->name);
        assert_string_equal(tw_option_text((tw_option)i), row->def);
        setenv(row->name, "some text", 1);
        assert_string_equal(tw_option_text((tw_option)i), "some text");
        setenv(row->name, "", 1);
        assert_string_equal(tw_option_text((tw_option)i), "");
        unsetenv(row->name);
    }
}

static void test_int(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } rows[] = {
        {"3", 3}, {"-2", 0},  {"0", 0},    {"", 0},    {"3x", 0},
        {"x", 0}, {"12 ", 0}, {"0x10", 0}, {"4.5", 0},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        setenv("TW_DEBUG", rows[i].text, 1);
        if (tw_option_int(TW_OPT_TW_DEBUG) != rows[i].value)
            fail_msg("\"%s\" is read as %lld", rows[i].text,
                     (long long)tw_option_int(TW_OPT_TW_DEBUG));
    }
    unsetenv("TW_DEBUG");
    assert_int_equal(tw_option_int(TW_OPT_TW_DEBUG), 0);
}

static void test_check(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *message;
    } rows[] = {
        {"TW_THREADS", "abc", "TW_THREADS: abc, must be a whole number from 0 to 4096"},
        {"TW_THREADS", "1.5", "TW_THREADS: 1.5, must be a whole number from 0 to 4096"},
        {"TW_THREADS", "-3", "TW_THREADS: -3, must be a whole number from 0 to 4096"},
        {"TW_THREADS", "5000", "TW_THREADS: 5000, must be a whole number from 0 to 4096"},
        {"TW_THREADS", "99999999999999999999", "TW_THREADS: 99999999999999999999, must be"},
        {"TW_DEBUG", "verbose", "TW_DEBUG: verbose, must be a whole number from 0 to 5"},
        {"TW_DEBUG", "6", "TW_DEBUG: 6, must be a whole number from 0 to 5"},
        {"TW_THREADS", "4096", NULL},
        {"TW_THREADS", "", NULL},
        {"TW_DEBUG", "5", NULL},
        {"TW_DUMP", "any text", NULL},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        setenv(rows[i].name, rows[i].text, 1);
        tw_status status = tw_options_check();
        if (status != (rows[i].message ? TW_INVALID : TW_OK) ||
            (rows[i].message && !strstr(tw_error_message(), rows[i].message)))
            fail_msg("%s=%s: %d, %s", rows[i].name, rows[i].text, (int)status, tw_error_message());
        unsetenv(rows[i].name);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_int),
                                       cmocka_unit_test(test_check)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
