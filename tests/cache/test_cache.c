/* What goes in comes out: choices, binaries, trials; where the file lies and how it reads. */
#include "tests/cache/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void choices_come_back(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_false(get_choice(cache, 1));
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_int_equal(put_choice(cache, 2), TW_OK);
    assert_true(get_choice(cache, 1));
    assert_true(get_choice(cache, 2));
    assert_false(get_choice(cache, 3));
    tw_cache_close(cache);

    cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_true(get_choice(cache, 1));
    /* A later decision replaces the earlier one. */
    tw_key key = make_key("choice", 1);
    tw_choice other = {"cpu.dq_gemm", UINT32_MAX, "mm6 mn32", 7, 8, 9}, got;
    assert_int_equal(tw_cache_put_choice(cache, &key, test_device, &other), TW_OK);
    assert_true(tw_cache_get_choice(cache, &key, &got));
    assert_true(same_choice(&got, &other));
    tw_key_free(&key);
    assert_true(get_choice(cache, 2));
    assert_null(tw_cache_problem(cache));
    assert_string_equal(tw_cache_path(cache), f->path);
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 0);
}

static void binaries_come_back(void **state) {
    static const size_t sizes[] = {0, 1, 4000, 300001};
    fixture *f = *state;
    for (int again = 0; again < 2; again++) {
        tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
        for (int i = 0; i < (int)TW_COUNT(sizes); i++) {
            assert_int_equal(get_binary(cache, i, sizes[i]), again);
            assert_int_equal(put_binary(cache, i, sizes[i]), TW_OK);
            assert_true(get_binary(cache, i, sizes[i]));
        }
        /* Another build of the same key. */
        assert_int_equal(put_binary(cache, 2, 17), TW_OK);
        assert_true(get_binary(cache, 2, 17));
        assert_int_equal(put_binary(cache, 2, sizes[2]), TW_OK);
        tw_cache_close(cache);
    }
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM binary"), "4");
    assert_int_equal(f->warnings, 0);
}

static void trials_come_back_in_order(void **state) {
    fixture *f = *state;
    for (int round = 0; round < 3; round++) {
        tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
        assert_int_equal(count_trials(cache, 7), 5 * round);
        for (int i = 0; i < 5; i++) assert_int_equal(put_trial(cache, 7, 5 * round + i), TW_OK);
        assert_int_equal(put_trial(cache, 8 + round, 0), TW_OK);
        /* Measured is not decided. */
        assert_false(get_choice(cache, 7));
        tw_cache_close(cache);
    }
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 7), TW_OK);
    assert_true(get_choice(cache, 7));
    assert_int_equal(count_trials(cache, 7), 15);
    assert_int_equal(count_trials(cache, 8), 1);
    assert_int_equal(count_trials(cache, 99), 0);
    assert_int_equal(count_defects(cache), 0);
    tw_cache_close(cache);
}

/* Somebody with the sqlite3 shell sees what was decided, for what, by which version, when. */
static void file_is_readable(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 5), TW_OK);
    assert_int_equal(put_choice(cache, 6), TW_OK);
    assert_int_equal(put_trial(cache, 5, 2), TW_OK);
    assert_int_equal(put_binary(cache, 5, 100), TW_OK);
    tw_cache_close(cache);
    assert_string_equal(
        sql_text(f->path, "SELECT key || ' -> ' || kernel || '/' || kernel_version || ' ' || "
                          "config FROM choice WHERE key LIKE '%,N=5,%'"),
        "choice/1 | M<=16,N=5,K=4096,x=f32,w=u4,g=128 | cpu;isa=avx2;model=Test;l1=32768;"
        "l2=524288;l3=33554432;threads=2 -> cpu.int_gemm/3 mm4 mn64 bm5");
    assert_string_equal(sql_text(f->path, "SELECT group_concat(text) FROM device"), test_device);
    assert_string_equal(sql_text(f->path, "SELECT outcome || ': ' || reason FROM trial"),
                        "failed: verify: row 2");
    assert_string_equal(sql_text(f->path, "SELECT kernel || ' ' || length(blob) FROM binary"),
                        "cpu.int_gemm 100");
    static const char *const tables[] = {"choice", "trial", "binary"};
    for (size_t i = 0; i < TW_COUNT(tables); i++) {
        char query[160];
        snprintf(query, sizeof query,
                 "SELECT library || ' ' || (created GLOB '20[0-9][0-9]-[01][0-9]-[0-3][0-9]T"
                 "[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z') FROM %s",
                 tables[i]);
        assert_string_equal(sql_text(f->path, query), "0.1.0 1");
    }
    assert_string_equal(sql_text(f->path, "PRAGMA application_id"), "1415013224"); /* "TWch" */
    assert_string_equal(sql_text(f->path, "PRAGMA user_version"), "1");
    assert_string_equal(sql_text(f->path, "PRAGMA journal_mode"), "wal");
    assert_string_equal(sql_text(f->path, "PRAGMA integrity_check"), "ok");
}

static unsigned mode_of(const char *path) {
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return s.st_mode & 07777;
}

/* Whatever the umask, nobody else may write; and nobody else needs to read. */
static void files_are_private(void **state) {
    fixture *f = *state;
    char name[PATH_BYTES + 32];
    mode_t before = umask(0);
    snprintf(f->path, sizeof f->path, "%.300s/a/b/cache.db", f->folder);
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    umask(before);
    assert_int_equal(mode_of(f->path), 0600);
    snprintf(name, sizeof name, "%s-wal", f->path);
    assert_int_equal(mode_of(name), 0600);
    snprintf(name, sizeof name, "%s/a/b", f->folder);
    assert_int_equal(mode_of(name), 0700);
    snprintf(name, sizeof name, "%s/a", f->folder);
    assert_int_equal(mode_of(name), 0700);
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 0);
}

static void expect_path(fixture *f, const char *expected) {
    tw_cache *cache = NULL;
    assert_int_equal(tw_cache_open(NULL, TW_CACHE_WRITE, &f->log, &cache), TW_OK);
    char whole[2 * PATH_BYTES];
    snprintf(whole, sizeof whole, "%s/%s", f->folder, expected);
    assert_string_equal(tw_cache_path(cache), whole);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_int_equal(access(whole, F_OK), 0);
    tw_cache_close(cache);
}

static void default_path_follows_the_environment(void **state) {
    fixture *f = *state;
    char value[PATH_BYTES + 32];
    unsetenv("TW_CACHE");
    unsetenv("XDG_CACHE_HOME");
    snprintf(value, sizeof value, "%s/home", f->folder);
    setenv("HOME", value, 1);
    expect_path(f, "home/.cache/tilewright/cache.db");
    setenv("XDG_CACHE_HOME", "relative/counts/as/none", 1);
    expect_path(f, "home/.cache/tilewright/cache.db");
    snprintf(value, sizeof value, "%s/xdg", f->folder);
    setenv("XDG_CACHE_HOME", value, 1);
    expect_path(f, "xdg/tilewright/cache.db");
    snprintf(value, sizeof value, "%s/own/my.db", f->folder);
    setenv("TW_CACHE", value, 1);
    expect_path(f, "own/my.db");

    unsetenv("TW_CACHE");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("HOME");
    tw_cache *cache = NULL;
    assert_int_equal(tw_cache_open(NULL, TW_CACHE_WRITE, &f->log, &cache), TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "HOME"));
    assert_int_equal(tw_cache_open(NULL, TW_CACHE_USE, &f->log, &cache), TW_OK);
    assert_int_equal(f->warnings, 1);
    assert_false(get_choice(cache, 1));
    tw_cache_close(cache);
}

static void no_file_misses(void **state) {
    fixture *f = *state;
    for (int access = TW_CACHE_USE; access <= TW_CACHE_READ; access++) {
        f->path[0] = 0;
        tw_cache *cache = open_cache(f, (tw_cache_access)access, TW_OK);
        tw_cache_counts counts;
        assert_int_equal(put_choice(cache, 1), TW_OK);
        assert_int_equal(put_binary(cache, 1, 10), TW_OK);
        assert_int_equal(put_trial(cache, 1, 0), TW_OK);
        assert_false(get_choice(cache, 1));
        assert_false(get_binary(cache, 1, 10));
        assert_int_equal(count_trials(cache, 1), 0);
        assert_string_equal(tw_cache_path(cache), "");
        assert_null(tw_cache_problem(cache));
        assert_int_equal(tw_cache_stats(cache, &counts), TW_CACHE);
        tw_cache_close(cache);
    }
    tw_cache_close(NULL);
    assert_int_equal(f->warnings, 0);
}

/* Names that mean something in an SQLite URI, in a shell, or not in ASCII; links; relative ones. */
static void any_name_works(void **state) {
    static const char *const names[] = {"a b/c d.db", "q?x=1#y%41.db", "\xc3\xa4/\xe2\x82\xac.db"};
    fixture *f = *state;
    char real[PATH_BYTES + 32], link[PATH_BYTES + 32];
    for (size_t i = 0; i < TW_COUNT(names); i++) {
        snprintf(f->path, sizeof f->path, "%.300s/%s", f->folder, names[i]);
        tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
        assert_int_equal(put_choice(cache, 1), TW_OK);
        assert_string_equal(tw_cache_path(cache), f->path);
        tw_cache_close(cache);
        assert_int_equal(access(f->path, F_OK), 0);
    }
    snprintf(real, sizeof real, "%s", f->path);
    snprintf(link, sizeof link, "%s/link.db", f->folder);
    assert_int_equal(symlink(real, link), 0);
    snprintf(f->path, sizeof f->path, "%.300s/link.db", f->folder);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_string_equal(tw_cache_path(cache), real);
    assert_true(get_choice(cache, 1));
    tw_cache_close(cache);

    assert_int_equal(chdir(f->folder), 0);
    snprintf(f->path, sizeof f->path, "relative.db");
    cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    tw_cache_close(cache);
    assert_int_equal(access("relative.db", F_OK), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(f->warnings, 0);
}

/* READ is for a look: what is not there is an error, and what is there stays as it is. */
static void reading_changes_nothing(void **state) {
    fixture *f = *state;
    char before[TW_DIGEST_TEXT], after[TW_DIGEST_TEXT];
    folder_digest(f->folder, before);
    open_cache(f, TW_CACHE_READ, TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "no such file"));
    folder_digest(f->folder, after);
    assert_string_equal(before, after);

    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_int_equal(put_binary(cache, 1, 100), TW_OK);
    tw_cache_close(cache);
    sql(f->path, "UPDATE choice SET used = '2020-01-01'; UPDATE binary SET blob = x'00'");
    cache = open_cache(f, TW_CACHE_READ, TW_OK);
    assert_true(get_choice(cache, 1));
    assert_false(get_binary(cache, 1, 100));
    assert_int_equal(put_choice(cache, 2), TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "read-only"));
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "SELECT used FROM choice"), "2020-01-01");
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM binary"), "1");
}

/* A blob that is not what was stored is never handed out, nor kept. */
static void damaged_blobs_are_dropped(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(put_binary(cache, i, 1000), TW_OK);
    sql(f->path, "UPDATE binary SET blob = zeroblob(1000) WHERE key LIKE '%N=1,%';"
                 "UPDATE binary SET blob = substr(blob, 1, 999) WHERE key LIKE '%N=2,%';"
                 "UPDATE binary SET sha256 = replace(sha256, 'a', 'b') || 'c' "
                 "WHERE key LIKE '%N=3,%'");
    assert_true(get_binary(cache, 0, 1000));
    assert_int_equal(f->warnings, 0);
    for (int i = 1; i < 4; i++) assert_false(get_binary(cache, i, 1000));
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->warning, "digest"));
    /* The next build takes the place. */
    assert_int_equal(put_binary(cache, 1, 1000), TW_OK);
    assert_true(get_binary(cache, 1, 1000));
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM binary WHERE key LIKE '%N=2,%'"),
                        "0");
}

static void damaged_rows_are_misses(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(put_choice(cache, i), TW_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(put_trial(cache, 0, i), TW_OK);
    sql(f->path, "UPDATE choice SET kernel = printf('%.64c', 'x') WHERE key LIKE '%N=1,%';"
                 "UPDATE choice SET kernel_version = -1 WHERE key LIKE '%N=2,%';"
                 "UPDATE choice SET config = NULL WHERE key LIKE '%N=3,%';"
                 "UPDATE trial SET kernel_version = 1 << 40 WHERE id = 2");
    assert_true(get_choice(cache, 0));
    for (int i = 1; i < 4; i++) assert_false(get_choice(cache, i));
    assert_int_equal(count_trials(cache, 0), 1);
    assert_int_equal(f->warnings, 1);
    tw_cache_close(cache);
}

/* prune drops what is not used, so a hit has to leave a mark; once a day is enough. */
static void hits_note_the_day(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(put_choice(cache, i), TW_OK);
        assert_int_equal(put_binary(cache, i, 10), TW_OK);
    }
    sql(f->path, "UPDATE choice SET used = '2020-01-01'; UPDATE binary SET used = '2020-01-01'");
    assert_true(get_choice(cache, 1));
    assert_true(get_binary(cache, 1, 10));
    static const char query[] = "SELECT count(*) FROM (SELECT key, used FROM choice UNION ALL "
                                "SELECT key, used FROM binary) WHERE ";
    char text[256];
    snprintf(text, sizeof text, "%sused > '2020-01-01' AND key LIKE '%%N=1,%%'", query);
    assert_string_equal(sql_text(f->path, text), "2");
    snprintf(text, sizeof text, "%sused = '2020-01-01' AND key LIKE '%%N=0,%%'", query);
    assert_string_equal(sql_text(f->path, text), "2");
    tw_cache_close(cache);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(choices_come_back),
        TEST(binaries_come_back),
        TEST(trials_come_back_in_order),
        TEST(file_is_readable),
        TEST(files_are_private),
        TEST(default_path_follows_the_environment),
        TEST(no_file_misses),
        TEST(any_name_works),
        TEST(reading_changes_nothing),
        TEST(damaged_blobs_are_dropped),
        TEST(damaged_rows_are_misses),
        TEST(hits_note_the_day),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
