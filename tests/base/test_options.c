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
        {"3", 3}, {"-2", -2}, {"0", 0},    {"", 0},    {"3x", 0},
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_int)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
