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

static void check_printable(const char *text, size_t size, const char *keep, const char *expected) {
    tw_str s = {0};
    tw_str_add_printable(&s, text, size, keep);
    assert_string_equal(tw_str_text(&s), expected);
    tw_str_free(&s);
}

static void test_printable(void **state) {
    (void)state;
    static const struct {
        const char *text, *keep, *expected;
    } cases[] = {
        {"", "", ""},
        {"plain ~", "", "plain ~"},
        {"\x1b[31m\a\x7f", "", "\\x1b[31m\\x07\\x7f"},
        {"a\tb\nc", "", "a\\x09b\\x0ac"},
        {"a\tb\nc\r", "\n\t", "a\tb\nc\\x0d"},
        /* UTF-8 of two, three and four bytes. */
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        /* U+0080 to U+009F: what ESC and a letter say in one character; U+00A0 is a space. */
        {"\xc2\x80\xc2\x9b\xc2\xa0", "", "\\xc2\\x80\\xc2\\x9b\xc2\xa0"},
        /* No UTF-8: alone, cut off, overlong, a surrogate, past the end. */
        {"\x9b"
         "0m",
         "", "\\x9b0m"},
        {"\xe2\x82", "", "\\xe2\\x82"},
        {"\xc3(", "", "\\xc3("},
        {"\xc0\x9b", "", "\\xc0\\x9b"},
        {"\xe0\x80\x9b", "", "\\xe0\\x80\\x9b"},
        {"\xf0\x80\x80\x9b", "", "\\xf0\\x80\\x80\\x9b"},
        {"\xed\xa0\x80", "", "\\xed\\xa0\\x80"},
        {"\xf4\x90\x80\x80\xff", "", "\\xf4\\x90\\x80\\x80\\xff"},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++)
        check_printable(cases[i].text, strlen(cases[i].text), cases[i].keep, cases[i].expected);
    check_printable("a\0b", 3, "", "a\\x00b");
    check_printable("\xc3\xa9", 1, "", "\\xc3");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_one_long_piece),
        cmocka_unit_test(test_failure_is_remembered),
        cmocka_unit_test(test_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
