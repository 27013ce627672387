/* The read-only file below the user's: found, never touched; and where it is looked for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/options.h"
#include "tests/cache/fixture.h"

static tw_cache *open_system(fixture *f, const char *path, const tw_cache *user) {
    tw_cache *cache = NULL;
    assert_int_equal(tw_cache_open_system(path, user, &f->log, &cache), TW_OK);
    assert_non_null(cache);
    return cache;
}

static int read_all(void *arg) {
    fixture *f = arg;
    tw_cache *cache = NULL;
    CHILD_CHECK(tw_cache_open_system(f->path, NULL, &f->log, &cache) == TW_OK);
    CHILD_CHECK(!tw_cache_problem(cache));
    for (int i = 0; i < 3; i++) CHILD_CHECK(get_choice(cache, i) && get_binary(cache, i, 5000));
    CHILD_CHECK(!get_choice(cache, 3) && !get_binary(cache, 3, 10));
    tw_cache_close(cache);
    return f->warnings;
}

/* Bytes, times and the folder stay as they are, the days of the rows' last hits too. */
static void check_untouched(fixture *f, bool as_nobody) {
    char before[TW_DIGEST_TEXT], after[TW_DIGEST_TEXT];
    struct stat first, second;
    folder_digest(f->folder, before);
    assert_int_equal(stat(f->path, &first), 0);
    assert_int_equal(run_child(read_all, f, as_nobody), 0);
    assert_int_equal(stat(f->path, &second), 0);
    assert_memory_equal(&first.st_mtim, &second.st_mtim, sizeof first.st_mtim);
    folder_digest(f->folder, after);
    assert_string_equal(before, after);
}

static void reads_and_leaves_no_trace(void **state) {
    fixture *f = *state;
    fill_file(f, 3);
    sql(f->path, "UPDATE choice SET used = '2000-01-01'; UPDATE binary SET used = '2000-01-01'");
    check_untouched(f, false);
}

/* Installed by root: readable by everybody, in a folder that nobody else can write. */
static void from_a_read_only_folder(void **state) {
    fixture *f = *state;
    fill_file(f, 3);
    assert_int_equal(chmod(f->path, 0444), 0);
    assert_int_equal(chmod(f->folder, 0555), 0);
    check_untouched(f, true);
    assert_int_equal(chmod(f->folder, 0755), 0);
}

static void nothing_is_stored(void **state) {
    fixture *f = *state;
    fill_file(f, 1);
    tw_cache *cache = open_system(f, f->path, NULL);
    assert_int_equal(put_choice(cache, 1), TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "read-only"));
    assert_int_equal(put_binary(cache, 1, 10), TW_CACHE);
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM choice"), "1");
}

static void check_none(fixture *f, const char *path, const tw_cache *user) {
    tw_cache *cache = open_system(f, path, user);
    assert_string_equal(tw_cache_path(cache), "");
    assert_null(tw_cache_problem(cache));
    assert_false(get_choice(cache, 0));
    assert_int_equal(f->warnings, 0);
    tw_cache_close(cache);
}

static void where_it_is_looked_for(void **state) {
    fixture *f = *state;
    fill_file(f, 1);
    check_none(f, "", NULL);
    setenv("TW_CACHE_SYSTEM", "", 1);
    check_none(f, NULL, NULL);
    setenv("TW_CACHE_SYSTEM", f->path, 1);
    tw_cache *cache = open_system(f, NULL, NULL);
    assert_true(get_choice(cache, 0));
    assert_string_equal(tw_cache_path(cache), f->path);
    tw_cache_close(cache);
    unsetenv("TW_CACHE_SYSTEM");
    if (access(tw_option_text(TW_OPT_TW_CACHE_SYSTEM), F_OK)) check_none(f, NULL, NULL);
}

/* The default may be missing, what somebody named may not. */
static void named_and_missing(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_system(f, f->path, NULL);
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->warning, "no such file; going on without it"));
    assert_non_null(strstr(tw_cache_problem(cache), "no such file"));
    assert_string_equal(tw_cache_path(cache), f->path);
    tw_cache_close(cache);
    assert_int_equal(access(f->path, F_OK), -1);
}

/* Whoever makes the system file has it as the user's: the same file is not opened twice, nor
 * warned of twice. */
static void is_the_users_own(void **state) {
    fixture *f = *state;
    char link[PATH_BYTES];
    snprintf(link, sizeof link, "%.400s/link.db", f->folder);
    tw_cache *user = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(put_choice(user, 0), TW_OK);
    assert_int_equal(symlink(f->path, link), 0);
    check_none(f, f->path, user);
    check_none(f, link, user);
    tw_cache_close(user);
    assert_int_equal(chmod(f->path, 0666), 0);
    user = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(f->warnings, 1);
    f->warnings = 0;
    check_none(f, link, user);
    tw_cache_close(user);
}

/* An empty file is taken by a user's cache, but nobody makes one here. */
static void empty_file(void **state) {
    fixture *f = *state;
    struct stat s;
    write_file(f->path, "", 0);
    tw_cache *cache = open_system(f, f->path, NULL);
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->warning, "is empty"));
    tw_cache_close(cache);
    assert_int_equal(stat(f->path, &s), 0);
    assert_int_equal(s.st_size, 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(reads_and_leaves_no_trace),
        TEST(from_a_read_only_folder),
        TEST(nothing_is_stored),
        TEST(where_it_is_looked_for),
        TEST(named_and_missing),
        TEST(is_the_users_own),
        TEST(empty_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
