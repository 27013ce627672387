/* TW_TRACE's file: what its lines are, who may write to it at once, and what happens when it cannot
 * be written. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/timeline.h"
#include "tests/base/cmocka_all.h"

typedef struct fixture {
    char folder[256], file[300];
    tw_logger log;
    int warnings;
    char last[2048];
} fixture;

static void hear(void *user, tw_log_level level, const char *line) {
    fixture *f = user;
    f->warnings += level == TW_LOG_WARN;
    snprintf(f->last, sizeof f->last, "%s", line);
}

static int setup(void **state) {
    const char *base = getenv("TMPDIR");
    fixture *f = calloc(1, sizeof *f);
    if (!f) return -1;
    snprintf(f->folder, sizeof f->folder, "%.200s/tw_timeline_XXXXXX", base ? base : P_tmpdir);
    if (!mkdtemp(f->folder)) return -1;
    snprintf(f->file, sizeof f->file, "%s/trace.json", f->folder);
    tw_logger_init(&f->log, &(tw_log){hear, f});
    setenv("TW_TRACE", f->file, 1);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    unsetenv("TW_TRACE");
    unlink(f->file);
    int failed = rmdir(f->folder);
    free(f);
    return failed;
}

static tw_timeline *open_timeline(fixture *f) {
    tw_timeline *t = NULL;
    assert_int_equal(tw_timeline_open(&tw_allocator_default, &f->log, &t), TW_OK);
    return t;
}

/* The whole file, NUL-terminated; free() it. */
static char *read_file(const char *path, size_t *size) {
    struct stat facts;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &facts), 0);
    *size = (size_t)facts.st_size;
    char *text = calloc(1, *size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, *size, file), *size);
    fclose(file);
    return text;
}

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void check_file(const fixture *f, const char *expected) {
    size_t size;
    char *text = read_file(f->file, &size);
    assert_string_equal(text, expected);
    free(text);
}

/* Lines that are events; everything else but the opening is a failure. */
static int count_events(const char *path) {
    size_t size;
    char *text = read_file(path, &size), *rest = text;
    int events = 0;
    assert_string_equal(strtok_r(rest, "\n", &rest), "[");
    for (char *line; (line = strtok_r(NULL, "\n", &rest)); events++) {
        size_t n = strlen(line);
        if (strncmp(line, "{\"name\":\"", 9) != 0 || strcmp(line + n - 3, "}},") != 0 ||
            strstr(line + 1, "{\"name\""))
            fail_msg("no event: %s", line);
    }
    free(text);
    return events;
}

static void test_nothing_without_a_name(void **state) {
    fixture *f = *state;
    setenv("TW_TRACE", "", 1);
    assert_null(open_timeline(f));
    unsetenv("TW_TRACE");
    assert_null(open_timeline(f));
    tw_timeline_flush(NULL);
    tw_timeline_close(NULL);
    assert_int_not_equal(access(f->file, F_OK), 0);
    assert_int_equal(f->warnings, 0);
}

static void test_lines(void **state) {
    fixture *f = *state;
    char expected[1024];
    tw_timeline *t = open_timeline(f);
    tw_timeline_arg args[] = {
        {"kernel", "cpu.x"}, {"config", NULL}, {"note", "a \"b\"\\\n\xff\xc3\xa9"}};
    tw_timeline_add(t, "compile", 1234567, 1234567 + 5009, args, 3);
    tw_timeline_add(t, "forward", 2000000, 2000000, NULL, 0);
    check_file(f, "[\n");
    tw_timeline_flush(t);
    /* What a terminal may not get is spelt out; UTF-8 stays. */
    snprintf(expected, sizeof expected,
             "[\n{\"name\":\"compile\",\"cat\":\"tilewright\",\"ph\":\"X\",\"ts\":1234.567,"
             "\"dur\":5.009,\"pid\":%d,\"tid\":%d,\"args\":{\"kernel\":\"cpu.x\","
             "\"note\":\"a \\\"b\\\"\\\\\\\\x0a\\\\xff\xc3\xa9\"}},\n"
             "{\"name\":\"forward\",\"cat\":\"tilewright\",\"ph\":\"X\",\"ts\":2000.000,"
             "\"dur\":0.000,\"pid\":%d,\"tid\":%d,\"args\":{}},\n",
             (int)getpid(), (int)gettid(), (int)getpid(), (int)gettid());
    check_file(f, expected);
    tw_timeline_close(t);
    check_file(f, expected);
    /* A later process goes on. */
    t = open_timeline(f);
    tw_timeline_add(t, "load", 1, 2, NULL, 0);
    tw_timeline_close(t);
    assert_int_equal(count_events(f->file), 3);
    assert_int_equal(f->warnings, 0);
}

enum { THREADS = 4, TIMELINES = 2, EVENTS = 600 };

static void *add_many(void *arg) {
    for (int i = 0; i < EVENTS; i++) {
        char text[300];
        snprintf(text, sizeof text, "%*d", i % 280, i);
        tw_timeline_add(arg, "forward", i, i + 1, &(tw_timeline_arg){"problem", text}, 1);
    }
    return NULL;
}

/* Threads of one timeline, timelines of one file, and another process beside them: enough events
 * for several batches of each. */
static void test_many_writers(void **state) {
    fixture *f = *state;
    tw_timeline *timelines[TIMELINES];
    pthread_t threads[THREADS];
    fflush(NULL);
    pid_t child = fork();
    for (int i = 0; i < TIMELINES; i++) timelines[i] = open_timeline(f);
    if (child == 0) {
        for (int i = 0; i < TIMELINES; i++) add_many(timelines[i]);
    } else {
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, add_many, timelines[i % TIMELINES]),
                             0);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < TIMELINES; i++) tw_timeline_close(timelines[i]);
    if (child == 0) _exit(0);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(count_events(f->file), (THREADS + TIMELINES) * EVENTS);
    assert_int_equal(f->warnings, 0);
}

/* One warning, no timeline, and whatever lies there is left alone. */
static void check_refused(fixture *f, const char *path, const char *why) {
    int before = f->warnings;
    setenv("TW_TRACE", path, 1);
    assert_null(open_timeline(f));
    assert_int_equal(f->warnings, before + 1);
    if (!strstr(f->last, path) || !strstr(f->last, why))
        fail_msg("\"%s\" does not name \"%s\"", f->last, why);
}

static void test_files_that_cannot_be_used(void **state) {
    fixture *f = *state;
    char path[400];
    snprintf(path, sizeof path, "%s/no/trace.json", f->folder);
    check_refused(f, path, "No such file");
    check_refused(f, f->folder, "directory");
    check_refused(f, "/dev/null", "no regular file");
    assert_int_equal(mkfifo(f->file, 0600), 0);
    check_refused(f, f->file, "no regular file");
    assert_int_equal(unlink(f->file), 0);
    write_file(f->file, "a letter\n");
    check_refused(f, f->file, "holds no trace");
    check_file(f, "a letter\n");
}

/* A limit on the size of files stands for a full disk. */
static void test_write_failure_is_said_once(void **state) {
    fixture *f = *state;
    struct rlimit old, low;
    tw_timeline *t = open_timeline(f);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 10;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    for (int i = 0; i < 3; i++) {
        tw_timeline_add(t, "forward", 1, 2, NULL, 0);
        tw_timeline_flush(t);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    tw_timeline_add(t, "forward", 1, 2, NULL, 0);
    tw_timeline_close(t);
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->last, "nothing more is traced"));
    size_t size;
    free(read_file(f->file, &size));
    assert_int_equal(size, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_without_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_writers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files_that_cannot_be_used, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_failure_is_said_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
