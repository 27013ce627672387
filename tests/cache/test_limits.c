/* A machine that does not let the cache write: full disk, read-only file, folder or home.  The disk
 * is full by RLIMIT_FSIZE; permissions bind because the tests give up root's rights first. */
#include "tests/cache/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROWS = 3, BLOB = 5000 };

/* From now on no file of this process may grow beyond `bytes`. */
static int limit_files(rlim_t bytes) {
    struct rlimit limit;
    /* Only the soft limit: it can be raised again. */
    if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || getrlimit(RLIMIT_FSIZE, &limit)) return 1;
    limit.rlim_cur = bytes;
    return setrlimit(RLIMIT_FSIZE, &limit);
}

static int open_child(fixture *f, tw_cache_access access, tw_cache **out) {
    *out = NULL;
    return (int)tw_cache_open(f->path, access, &f->log, out);
}

static int fill(fixture *f) {
    tw_cache *cache;
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK);
    for (int i = 0; i < ROWS; i++) {
        CHILD_CHECK(put_choice(cache, i) == TW_OK);
        CHILD_CHECK(put_binary(cache, i, BLOB) == TW_OK);
        CHILD_CHECK(put_trial(cache, 0, i) == TW_OK);
    }
    tw_cache_close(cache);
    return 0;
}

static int all_hit(tw_cache *cache) {
    for (int i = 0; i < ROWS; i++) CHILD_CHECK(get_choice(cache, i) && get_binary(cache, i, BLOB));
    CHILD_CHECK(count_trials(cache, 0) == ROWS);
    return 0;
}

/* One warning on opening, everything hits, nothing is kept; a writer gets an error. */
static int reads_only(fixture *f, const char *says) {
    tw_cache *cache;
    CHILD_CHECK(open_child(f, TW_CACHE_USE, &cache) == TW_OK);
    CHILD_CHECK(f->warnings == 1 && strstr(f->warning, says) && tw_cache_problem(cache));
    CHILD_CHECK(all_hit(cache) == 0);
    CHILD_CHECK(put_choice(cache, ROWS) == TW_OK && put_binary(cache, ROWS, 10) == TW_OK);
    CHILD_CHECK(!get_choice(cache, ROWS));
    CHILD_CHECK(f->warnings == 1);
    tw_cache_close(cache);
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), f->path));
    CHILD_CHECK(open_child(f, TW_CACHE_READ, &cache) == TW_OK && all_hit(cache) == 0);
    tw_cache_close(cache);
    CHILD_CHECK(f->warnings == 1);
    return 0;
}

/* One warning on opening and nothing but misses. */
static int misses_only(fixture *f, const char *says) {
    tw_cache *cache;
    CHILD_CHECK(open_child(f, TW_CACHE_USE, &cache) == TW_OK);
    CHILD_CHECK(f->warnings == 1 && strstr(f->warning, says) && tw_cache_problem(cache));
    CHILD_CHECK(put_choice(cache, 0) == TW_OK && put_trial(cache, 0, 0) == TW_OK);
    CHILD_CHECK(!get_choice(cache, 0) && f->warnings == 1);
    tw_cache_close(cache);
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), f->path));
    return 0;
}

/* The child's own folder, since the fixture's may be root's. */
static int own_folder(fixture *f, const char *name) {
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%.300s/%s", f->folder, name);
    CHILD_CHECK(mkdir(folder, 0700) == 0);
    fixture_init(f, folder);
    return 0;
}

/* ---- permissions ---- */

static int read_only_file(void *arg) {
    fixture *f = arg;
    tw_cache *cache;
    CHILD_CHECK(own_folder(f, "own") == 0 && fill(f) == 0);
    CHILD_CHECK(chmod(f->path, 0400) == 0);
    CHILD_CHECK(reads_only(f, "is read-only") == 0);
    /* And no trace of that stays once it may be written again. */
    CHILD_CHECK(chmod(f->path, 0600) == 0);
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK);
    CHILD_CHECK(put_choice(cache, ROWS) == TW_OK && get_choice(cache, ROWS));
    tw_cache_close(cache);
    return 0;
}

static int read_only_folder(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "own?x") == 0 && fill(f) == 0);
    CHILD_CHECK(chmod(f->folder, 0500) == 0);
    int failed = reads_only(f, "is read-only");
    return chmod(f->folder, 0700) || failed;
}

/* Rows that are in the log alone cannot be had without writing; the file alone is out of date. */
static int read_only_folder_with_log(void *arg) {
    fixture *f = arg;
    char name[PATH_BYTES + 16], copy[PATH_BYTES + 16];
    CHILD_CHECK(own_folder(f, "own") == 0 && fill(f) == 0);
    /* The log of a connection that is open, put beside the file again after it was closed. */
    tw_cache *cache;
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK && put_choice(cache, 9) == TW_OK);
    snprintf(name, sizeof name, "%s-wal", f->path);
    snprintf(copy, sizeof copy, "%s-copy", f->path);
    CHILD_CHECK(link(name, copy) == 0);
    tw_cache_close(cache);
    CHILD_CHECK(rename(copy, name) == 0 && chmod(f->folder, 0500) == 0);
    int failed = misses_only(f, "cannot be recovered");
    return chmod(f->folder, 0700) || failed;
}

static int read_only_home(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "home") == 0 && chmod(f->folder, 0500) == 0);
    setenv("HOME", f->folder, 1);
    unsetenv("TW_CACHE");
    unsetenv("XDG_CACHE_HOME");
    tw_cache *cache = NULL;
    CHILD_CHECK(tw_cache_open(NULL, TW_CACHE_USE, &f->log, &cache) == TW_OK);
    CHILD_CHECK(f->warnings == 1 && strstr(f->warning, "cannot be made: Permission denied"));
    CHILD_CHECK(put_choice(cache, 0) == TW_OK && !get_choice(cache, 0) && f->warnings == 1);
    tw_cache_close(cache);
    CHILD_CHECK(tw_cache_open(NULL, TW_CACHE_WRITE, &f->log, &cache) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), ".cache"));
    return chmod(f->folder, 0700);
}

static int new_file_in_read_only_folder(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "own") == 0 && chmod(f->folder, 0500) == 0);
    int failed = misses_only(f, "cannot be opened");
    return chmod(f->folder, 0700) || failed;
}

static int unreadable_file(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "own") == 0 && fill(f) == 0);
    CHILD_CHECK(chmod(f->path, 0000) == 0);
    return misses_only(f, "Permission denied");
}

static int empty_read_only_file(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "own") == 0);
    FILE *file = fopen(f->path, "w");
    CHILD_CHECK(file && fclose(file) == 0 && chmod(f->path, 0400) == 0);
    return misses_only(f, "is empty and cannot be written");
}

static int folder_that_may_not_be_searched(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(own_folder(f, "own") == 0 && fill(f) == 0);
    CHILD_CHECK(chmod(f->folder, 0600) == 0);
    int failed = misses_only(f, "Permission denied");
    return chmod(f->folder, 0700) || failed;
}

/* What root installed for everybody: readable, and nobody else's to write. */
static int file_of_root(void *arg) { return reads_only(arg, "is read-only"); }

/* ---- full disk ---- */

/* Full from the start: not even the tables fit. */
static int full_before_creation(void *arg) {
    fixture *f = arg;
    tw_cache *cache;
    CHILD_CHECK(limit_files(0) == 0);
    CHILD_CHECK(misses_only(f, "cannot be used") == 0);
    /* Nothing half made is left in the way. */
    CHILD_CHECK(limit_files(RLIM_INFINITY) == 0);
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK);
    CHILD_CHECK(put_choice(cache, 0) == TW_OK && get_choice(cache, 0));
    tw_cache_close(cache);
    return 0;
}

/* At every size that a file may stop growing at, creation works or leaves the way free. */
static int full_during_creation(void *arg) {
    fixture *f = arg;
    for (int i = 0; i < 24; i++) {
        tw_cache *cache;
        snprintf(f->path, sizeof f->path, "%.300s/%d.db", f->folder, i);
        CHILD_CHECK(limit_files((rlim_t)i * 2048) == 0);
        CHILD_CHECK(open_child(f, TW_CACHE_USE, &cache) == TW_OK);
        put_binary(cache, 0, BLOB);
        tw_cache_close(cache);
        CHILD_CHECK(limit_files(RLIM_INFINITY) == 0);
        CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK);
        CHILD_CHECK(put_choice(cache, 0) == TW_OK && get_choice(cache, 0));
        CHILD_CHECK(count_defects(cache) == 0);
        tw_cache_close(cache);
    }
    return 0;
}

/* Full before a good file is opened: SQLite's index of the log does not fit, the rows are there. */
static int full_before_opening(void *arg) {
    fixture *f = arg;
    CHILD_CHECK(fill(f) == 0);
    CHILD_CHECK(limit_files(0) == 0);
    return reads_only(f, "is read-only");
}

/* Full while running: one warning, what is there still hits, and with room again writing works. */
static int full_while_used(void *arg) {
    fixture *f = arg;
    tw_cache *cache;
    CHILD_CHECK(fill(f) == 0);
    CHILD_CHECK(open_child(f, TW_CACHE_USE, &cache) == TW_OK && put_choice(cache, 0) == TW_OK);
    CHILD_CHECK(limit_files(40 << 10) == 0);
    for (int i = 0; i < 3; i++) {
        CHILD_CHECK(put_binary(cache, ROWS, 100000) == TW_OK);
        CHILD_CHECK(!get_binary(cache, ROWS, 100000));
    }
    CHILD_CHECK(f->warnings == 1 && strstr(f->warning, "a binary could not be stored"));
    CHILD_CHECK(all_hit(cache) == 0);
    CHILD_CHECK(limit_files(RLIM_INFINITY) == 0);
    CHILD_CHECK(put_binary(cache, ROWS, 100000) == TW_OK && get_binary(cache, ROWS, 100000));
    CHILD_CHECK(count_defects(cache) == 0);
    tw_cache_close(cache);
    CHILD_CHECK(f->warnings == 1);
    return 0;
}

/* The same for what exists to write: each write that fails says so. */
static int full_while_written(void *arg) {
    fixture *f = arg;
    tw_cache *cache;
    CHILD_CHECK(fill(f) == 0);
    CHILD_CHECK(open_child(f, TW_CACHE_WRITE, &cache) == TW_OK && put_choice(cache, 0) == TW_OK);
    CHILD_CHECK(limit_files(0) == 0);
    CHILD_CHECK(put_binary(cache, ROWS, 10) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), "a binary could not be stored"));
    CHILD_CHECK(put_choice(cache, ROWS) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), "a choice could not be stored"));
    CHILD_CHECK(put_trial(cache, 0, ROWS) == TW_CACHE);
    CHILD_CHECK(put_trial(cache, ROWS, 0) == TW_CACHE);
    CHILD_CHECK(strstr(tw_error_message(), "a measurement could not be stored"));
    CHILD_CHECK(all_hit(cache) == 0);
    CHILD_CHECK(limit_files(RLIM_INFINITY) == 0);
    CHILD_CHECK(put_trial(cache, 0, ROWS) == TW_OK && count_trials(cache, 0) == ROWS + 1);
    CHILD_CHECK(count_defects(cache) == 0);
    tw_cache_close(cache);
    CHILD_CHECK(f->warnings == 0);
    return 0;
}

/* ---- tests ---- */

static void as_nobody(void **state, int (*fn)(void *arg)) {
    fixture *f = *state;
    if (geteuid() == 0) assert_int_equal(chown(f->folder, NOBODY, NOBODY), 0);
    assert_int_equal(run_child(fn, f, true), 0);
}

static void a_read_only_file(void **state) { as_nobody(state, read_only_file); }
static void a_read_only_folder(void **state) { as_nobody(state, read_only_folder); }
static void a_read_only_folder_with_log(void **state) {
    as_nobody(state, read_only_folder_with_log);
}
static void a_read_only_home(void **state) { as_nobody(state, read_only_home); }
static void a_new_file_in_a_read_only_folder(void **state) {
    as_nobody(state, new_file_in_read_only_folder);
}
static void an_unreadable_file(void **state) { as_nobody(state, unreadable_file); }
static void an_empty_read_only_file(void **state) { as_nobody(state, empty_read_only_file); }
static void a_folder_closed_to_us(void **state) {
    as_nobody(state, folder_that_may_not_be_searched);
}

static void a_file_of_roots(void **state) {
    fixture *f = *state;
    if (geteuid() != 0) skip(); /* only root makes files of root's */
    assert_int_equal(fill(f), 0);
    assert_int_equal(chmod(f->path, 0644), 0);
    assert_int_equal(run_child(file_of_root, f, true), 0);
}

static void a_full_disk(void **state, int (*fn)(void *arg)) {
    assert_int_equal(run_child(fn, *state, false), 0);
}

static void a_full_disk_before_creation(void **state) { a_full_disk(state, full_before_creation); }
static void a_full_disk_during_creation(void **state) { a_full_disk(state, full_during_creation); }
static void a_full_disk_before_opening(void **state) { a_full_disk(state, full_before_opening); }
static void a_full_disk_while_used(void **state) { a_full_disk(state, full_while_used); }
static void a_full_disk_while_written(void **state) { a_full_disk(state, full_while_written); }

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_read_only_file),
        TEST(a_read_only_folder),
        TEST(a_read_only_folder_with_log),
        TEST(a_read_only_home),
        TEST(a_new_file_in_a_read_only_folder),
        TEST(an_unreadable_file),
        TEST(an_empty_read_only_file),
        TEST(a_folder_closed_to_us),
        TEST(a_file_of_roots),
        TEST(a_full_disk_before_creation),
        TEST(a_full_disk_during_creation),
        TEST(a_full_disk_before_opening),
        TEST(a_full_disk_while_used),
        TEST(a_full_disk_while_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
