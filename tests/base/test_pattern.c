/* Regular expressions: Python's syntax, whole names and beginnings, and what is refused. */
#include <string.h>

#include "src/base/pattern.h"
#include "src/base/status.h"
#include "tests/base/cmocka_all.h"

static bool matches(const char *text, const char *name, bool whole) {
    tw_pattern *p = NULL;
    bool found = false;
    if (tw_pattern_compile(text, &p)) fail_msg("%s", tw_error_message());
    assert_int_equal(tw_pattern_match(p, name, whole, &found), TW_OK);
    tw_pattern_free(p);
    return found;
}

static void test_match(void **state) {
    (void)state;
    assert_true(matches("layers\\.\\d+\\.q", "layers.10.q", true));
    assert_false(matches("layers\\.\\d+\\.q", "layers.10.q_proj", true));
    assert_true(matches("layers\\.\\d+\\.q", "layers.10.q_proj", false));
    assert_false(matches("q_proj", "layers.q_proj", false)); /* from the begin */
    assert_true(matches("a|ab", "ab", true));                /* tries on until all matches */
    assert_true(matches("(?!lm_head).*", "layers.0", true));
    assert_false(matches("(?!lm_head).*", "lm_head", true));
    assert_true(matches("caf\xc3\xa9.", "caf\xc3\xa9s", true));
    assert_true(matches("", "", true));
}

static void test_refuses(void **state) {
    (void)state;
    static const char *const bad[] = {"(", "[a", "a{2,1}", "\\", "\\C", "*a"};
    static char large[5000];
    tw_pattern *p = NULL;
    for (size_t i = 0; i < TW_COUNT(bad); i++) {
        assert_int_equal(tw_pattern_compile(bad[i], &p), TW_INVALID);
        assert_true(strstr(tw_error_message(), "at character") != NULL);
    }
    memset(large, 'a', sizeof large - 1);
    assert_int_equal(tw_pattern_compile(large, &p), TW_INVALID);
    tw_pattern_free(NULL);
}

static void test_takes_no_end(void **state) {
    (void)state;
    tw_pattern *p = NULL;
    bool found = true;
    assert_int_equal(tw_pattern_compile("(a|aa)+$", &p), TW_OK);
    assert_int_equal(tw_pattern_match(p, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", true, &found),
                     TW_INVALID);
    assert_false(found);
    assert_true(strstr(tw_error_message(), "takes too long") != NULL);
    tw_pattern_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_takes_no_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
