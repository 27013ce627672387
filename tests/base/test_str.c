/* The growing string. */
#include <stdio.h>
#include <string.h>

#include "src/base/status.h"
#include "src/base/str.h"
#include "tests/base/cmocka_all.h"

static void test_empty(void **state) {
    (void)state;
    tw_str s = {0};
    assert_string_equal(tw_str_text(&s), "");
    assert_int_equal(tw_str_ok(&s), TW_OK);
    tw_str_add_bytes(&s, NULL, 0);
    assert_string_equal(tw_str_text(&s), "");
    tw_str_free(&s);
    tw_str_free(&s);
}

static void test_grows(void **state) {
    (void)state;
    tw_str s = {0};
    char expected[8000] = "";
    size_t size = 0;
    for (int i = 0; i < 1000; i++) {
        tw_str_add(&s, "%d,", i);
        size += (size_t)snprintf(expected + size, sizeof expected - size, "%d,", i);
        assert_int_equal(s.size, size);
        assert_int_equal(s.text[s.size], 0);
    }
    assert_string_equal(tw_str_text(&s), expected);
    tw_str_free(&s);
    assert_null(s.text);
}

static void test_bytes(void **state) {
    (void)state;
    tw_str s = {0};
    tw_str_add_bytes(&s, "a\0b", 3);
    tw_str_add(&s, "%s", "c");
    assert_int_equal(s.size, 4);
    assert_memory_equal(s.text, "a\0bc", 5);
    tw_str_free(&s);
}

static void test_one_long_piece(void **state) {
    (void)state;
    tw_str s = {0};
    tw_str_add(&s, "%0100000d", 0);
    assert_int_equal(s.size, 100000);
    assert_int_equal(strlen(s.text), 100000);
    tw_str_free(&s);
}

static void test_failure_is_remembered(void **state) {
    (void)state;
    tw_str s = {0};
    tw_str_add(&s, "begun");
    s.failed = true;
    tw_str_add(&s, " and more");
    assert_string_equal(tw_str_text(&s), "");
    assert_int_equal(tw_str_ok(&s), TW_MEMORY);
    assert_string_equal(tw_error_message(), "out of memory while formatting text");
    tw_str_free(&s);
    assert_int_equal(tw_str_ok(&s), TW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_one_long_piece),
        cmocka_unit_test(test_failure_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
