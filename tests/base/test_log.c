/* Log lines: which level reaches whom. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/log.h"
#include "tests/base/cmocka_all.h"

typedef struct heard {
    int lines;
    tw_log_level level;
    char last[4096];
} heard;

static void hear(void *user, tw_log_level level, const char *line) {
    heard *h = user;
    h->lines++;
    h->level = level;
    snprintf(h->last, sizeof h->last, "%s", line);
}

/* What the five levels write to stderr through `logger`. */
static void say_all(const tw_logger *logger, char *out, size_t size) {
    FILE *file = tmpfile();
    if (!file) {
        fail();
        return;
    }
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    for (int level = TW_LOG_ERROR; level <= TW_LOG_TRACE; level++)
        tw_log_line(logger, (tw_log_level)level, "line %d", level);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    assert_int_equal(fseek(file, 0, SEEK_SET), 0);
    out[fread(out, 1, size - 1, file)] = 0;
    fclose(file);
}

static void test_hook_hears_everything(void **state) {
    (void)state;
    heard h = {0};
    tw_log hook = {hear, &h};
    tw_logger logger;
    unsetenv("TW_DEBUG");
    tw_logger_init(&logger, &hook);
    for (int level = TW_LOG_ERROR; level <= TW_LOG_TRACE; level++) {
        assert_true(tw_log_wants(&logger, (tw_log_level)level));
        tw_log_line(&logger, (tw_log_level)level, "%s %d", "level", level);
        assert_int_equal(h.lines, level);
        assert_int_equal(h.level, level);
    }
    assert_string_equal(h.last, "level 5");
}

static void test_long_line_is_cut(void **state) {
    (void)state;
    heard h = {0};
    tw_log hook = {hear, &h};
    tw_logger logger;
    tw_logger_init(&logger, &hook);
    tw_log_line(&logger, TW_LOG_INFO, "%05000d", 7);
    assert_int_equal(strlen(h.last), 2047);
    assert_int_equal(strspn(h.last, "0"), 2047);
}

/* Whatever holds newlines - a path may - is several lines. */
static void test_each_line_by_itself(void **state) {
    (void)state;
    heard h = {0};
    tw_log hook = {hear, &h};
    tw_logger logger;
    tw_logger_init(&logger, &hook);
    tw_log_line(&logger, TW_LOG_INFO, "one\n\ntwo\n");
    assert_int_equal(h.lines, 2);
    assert_string_equal(h.last, "two");
}

static void test_stderr(void **state) {
    (void)state;
    static const struct {
        const char *debug, *text;
    } rows[] = {
        {"", "tilewright: line 1\ntilewright: warning: line 2\n"},
        /* It raises the level, it never silences a warning. */
        {"1", "tilewright: line 1\ntilewright: warning: line 2\n"},
        {"3", "tilewright: line 1\ntilewright: warning: line 2\ntilewright: line 3\n"},
        {"5", "tilewright: line 1\ntilewright: warning: line 2\ntilewright: line 3\n"
              "tilewright: line 4\ntilewright: line 5\n"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char text[512];
        tw_logger logger;
        tw_log none = {NULL, NULL};
        setenv("TW_DEBUG", rows[i].debug, 1);
        tw_logger_init(&logger, i % 2 ? &none : NULL);
        say_all(&logger, text, sizeof text);
        assert_string_equal(text, rows[i].text);
    }
    unsetenv("TW_DEBUG");
}

static void test_no_logger(void **state) {
    (void)state;
    char text[512];
    say_all(NULL, text, sizeof text);
    assert_string_equal(text, "tilewright: line 1\ntilewright: warning: line 2\n");
    assert_true(tw_log_wants(NULL, TW_LOG_WARN));
    assert_false(tw_log_wants(NULL, TW_LOG_INFO));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hook_hears_everything),
        cmocka_unit_test(test_long_line_is_cut),
        cmocka_unit_test(test_each_line_by_itself),
        cmocka_unit_test(test_stderr),
        cmocka_unit_test(test_no_logger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
