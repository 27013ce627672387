/* Files that are no good cache: each costs a layer one warning and a writer a clear error, and is
 * left exactly as it was. */
#include "tests/cache/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/db.h"

static void make_directory(fixture *f) { assert_int_equal(mkdir(f->path, 0700), 0); }

static void make_text(fixture *f) {
    char text[4096];
    memset(text, 'x', sizeof text);
    write_file(f->path, text, sizeof text);
}

static void make_short(fixture *f) { write_file(f->path, "SQLite format 3", 16); }

static void make_foreign(fixture *f) {
    sql(f->path, "CREATE TABLE photo (name TEXT); INSERT INTO photo VALUES ('me.jpg')");
    assert_int_equal(chmod(f->path, 0600), 0);
}

static int crash_with_journal(void *arg) {
    const fixture *f = arg;
    sqlite3 *db;
    /* Killed with the journal on disk and pages of the transaction already in the file. */
    if (sqlite3_open(f->path, &db)) return 1;
    if (sqlite3_exec(db,
                     "PRAGMA cache_size = 2; CREATE TABLE photo (bytes BLOB); BEGIN;"
                     "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) "
                     "INSERT INTO photo SELECT randomblob(3000) FROM n",
                     NULL, NULL, NULL))
        return 1;
    return 0;
}

/* A stranger's database that SQLite would repair if it were let. */
static void make_foreign_with_journal(fixture *f) {
    char journal[PATH_BYTES + 16];
    assert_int_equal(run_child(crash_with_journal, f, false), 0);
    snprintf(journal, sizeof journal, "%s-journal", f->path);
    assert_int_equal(chmod(f->path, 0600), 0);
    assert_int_equal(chmod(journal, 0600), 0);
}

static int crash_with_wal(void *arg) {
    const fixture *f = arg;
    sqlite3 *db;
    if (sqlite3_open(f->path, &db)) return 1;
    return sqlite3_exec(db,
                        "PRAGMA journal_mode = WAL; CREATE TABLE photo (name TEXT);"
                        "INSERT INTO photo VALUES ('me.jpg')",
                        NULL, NULL, NULL)
               ? 1
               : 0;
}

/* Likewise: its latest rows are still in the log, where SQLite would move them from. */
static void make_foreign_with_wal(fixture *f) {
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char name[PATH_BYTES + 16];
    assert_int_equal(run_child(crash_with_wal, f, false), 0);
    for (size_t i = 0; i < TW_COUNT(suffixes); i++) {
        snprintf(name, sizeof name, "%s%s", f->path, suffixes[i]);
        assert_int_equal(chmod(name, 0600), 0);
    }
}

static void make_newer(fixture *f) {
    fill_file(f, 1);
    sql(f->path, "PRAGMA user_version = 2");
}

static void make_schema_0(fixture *f) {
    fill_file(f, 1);
    sql(f->path, "PRAGMA user_version = 0");
}

static void make_bad_magic(fixture *f) {
    fill_file(f, 1);
    overwrite(f->path, 0, "sqlite", 6);
}

/* The header is good, the schema behind it is not. */
static void make_bad_first_page(fixture *f) {
    char junk[3000];
    memset(junk, 0xa5, sizeof junk);
    fill_file(f, 1);
    overwrite(f->path, 100, junk, sizeof junk);
}

static void make_cut_off(fixture *f) {
    fill_file(f, 30);
    assert_int_equal(truncate(f->path, 4096), 0);
}

static void make_fifo(fixture *f) { assert_int_equal(mkfifo(f->path, 0600), 0); }

static void make_device(fixture *f) { assert_int_equal(symlink("/dev/full", f->path), 0); }

static void make_loop(fixture *f) { assert_int_equal(symlink("cache.db", f->path), 0); }

static void make_dangling(fixture *f) { assert_int_equal(symlink("nowhere", f->path), 0); }

static void make_folder_a_file(fixture *f) {
    make_text(f);
    size_t length = strlen(f->path);
    snprintf(f->path + length, sizeof f->path - length, "/cache.db");
}

static void make_folder_only(fixture *f) { f->path[strlen(f->folder) + 1] = 0; }

static void make_folder_of_proc(fixture *f) {
    snprintf(f->path, sizeof f->path, "/proc/tilewright/cache.db");
}

static void make_group_writable(fixture *f) {
    fill_file(f, 1);
    assert_int_equal(chmod(f->path, 0620), 0);
}

static void make_folder_writable(fixture *f) {
    fill_file(f, 1);
    assert_int_equal(chmod(f->folder, 01777), 0);
}

static void make_log_writable(fixture *f) {
    char name[PATH_BYTES + 16];
    fill_file(f, 1);
    snprintf(name, sizeof name, "%s-wal", f->path);
    write_file(name, "", 0);
    assert_int_equal(chmod(name, 0602), 0);
}

/* The cache is nobody else's, but anybody may put another folder in its folder's place. */
static void make_ancestor_writable(fixture *f) {
    snprintf(f->path, sizeof f->path, "%.300s/a/b/c/cache.db", f->folder);
    fill_file(f, 1);
    char name[PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s/a", f->folder);
    assert_int_equal(chmod(name, 0777), 0);
}

static void make_other_owner(fixture *f) {
    if (geteuid() != 0) skip(); /* only root can give a file away */
    fill_file(f, 1);
    assert_int_equal(chown(f->path, NOBODY, NOBODY), 0);
}

static void make_folder_of_other_owner(fixture *f) {
    if (geteuid() != 0) skip();
    fill_file(f, 1);
    assert_int_equal(chown(f->folder, NOBODY, NOBODY), 0);
}

static const struct bad_file {
    const char *name;
    void (*make)(fixture *f);
    const char *says;
} bad_files[] = {
    {"directory", make_directory, "is a directory, expected a file"},
    {"text", make_text, "is not an SQLite file"},
    {"short", make_short, "is not an SQLite file"},
    {"foreign", make_foreign, "no cache of Tilewright's"},
    {"foreign with a journal", make_foreign_with_journal, "no cache of Tilewright's"},
    {"foreign with a log", make_foreign_with_wal, "no cache of Tilewright's"},
    {"newer schema", make_newer, "schema 2, but Tilewright 0.1.0 knows up to 1"},
    {"schema 0", make_schema_0, "is damaged"},
    {"magic overwritten", make_bad_magic, "is not an SQLite file"},
    {"first page overwritten", make_bad_first_page, "malformed"},
    {"cut off", make_cut_off, "malformed"},
    {"pipe", make_fifo, "is not a regular file"},
    {"device", make_device, "is not a regular file"},
    {"link to itself", make_loop, "symbolic links"},
    {"link to nothing", make_dangling, "cannot be opened"},
    {"folder is a file", make_folder_a_file, "Not a directory"},
    {"names a folder", make_folder_only, "names a folder, expected a file"},
    {"folder cannot be made", make_folder_of_proc, "cannot be made"},
    {"file writable by the group", make_group_writable, "mode 0620"},
    {"folder writable by all", make_folder_writable, "mode 1777"},
    {"log writable by all", make_log_writable, "mode 0602"},
    {"ancestor writable by all", make_ancestor_writable, "mode 0777"},
    {"file of another user", make_other_owner, "belongs to user 65534"},
    {"folder of another user", make_folder_of_other_owner, "belongs to user 65534"},
};

/* Row of bad_files for the test that runs, counted up by the set-up. */
static size_t current = (size_t)-1;

static int setup(void **state) {
    current++;
    return fixture_setup(state);
}

static void use(fixture *f, const struct bad_file *bad) {
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_false(get_choice(cache, 0));
    assert_false(get_binary(cache, 0, 5000));
    assert_int_equal(count_trials(cache, 0), 0);
    assert_int_equal(put_choice(cache, 0), TW_OK);
    assert_int_equal(put_binary(cache, 0, 10), TW_OK);
    assert_int_equal(put_trial(cache, 0, 0), TW_OK);
    assert_int_equal(f->warnings, 1);
    if (!strstr(f->warning, bad->says)) fail_msg("%s: %s", bad->name, f->warning);
    tw_cache_close(cache);
}

/* As the system file, which nothing is made for and whose log nobody may take in. */
static void use_below(fixture *f, const struct bad_file *bad) {
    static const char *const other[] = {"no such file", "a log that cannot be recovered"};
    tw_cache *cache = NULL;
    f->warnings = 0;
    assert_int_equal(tw_cache_open_system(f->path, NULL, &f->log, &cache), TW_OK);
    assert_false(get_choice(cache, 0));
    assert_false(get_binary(cache, 0, 5000));
    assert_int_equal(f->warnings, 1);
    if (!strstr(f->warning, bad->says) && !strstr(f->warning, other[0]) &&
        !strstr(f->warning, other[1]))
        fail_msg("%s: %s", bad->name, f->warning);
    tw_cache_close(cache);
}

/* Some damage shows on opening, some not before a row is wanted. */
static void write_or_read(fixture *f, const struct bad_file *bad, tw_cache_access access) {
    tw_cache *cache = NULL;
    tw_status status = tw_cache_open(f->path, access, &f->log, &cache);
    if (status == TW_OK) {
        tw_cache_counts counts;
        status = access == TW_CACHE_READ ? tw_cache_stats(cache, &counts) : put_choice(cache, 0);
    }
    assert_int_equal(status, TW_CACHE);
    /* Reading never makes a folder, so there it is only missing. */
    const char *says = bad->says, *message = tw_error_message();
    if (!strstr(message, says) && !(access == TW_CACHE_READ && strstr(message, "no such file")))
        fail_msg("%s: %s", bad->name, message);
    tw_cache_close(cache);
}

static void bad_file(void **state) {
    fixture *f = *state;
    const struct bad_file *bad = &bad_files[current];
    char before[TW_DIGEST_TEXT], after[TW_DIGEST_TEXT];
    bad->make(f);
    folder_digest(f->folder, before);
    use(f, bad);
    use_below(f, bad);
    folder_digest(f->folder, after);
    assert_string_equal(before, after);
    write_or_read(f, bad, TW_CACHE_WRITE);
    write_or_read(f, bad, TW_CACHE_READ);
    folder_digest(f->folder, after);
    assert_string_equal(before, after);
    /* To use it was one warning; errors are not logged as well. */
    assert_int_equal(f->warnings, 1);
}

/* Damage that shows while reading: from then on nothing is read or written. */
static void damage_met_on_the_way(void **state) {
    fixture *f = *state;
    char before[TW_DIGEST_TEXT], after[TW_DIGEST_TEXT];
    fill_file(f, 400);
    overwrite_root(f->path, "tbl_name = 'binary' AND type = 'index'");
    folder_digest(f->folder, before);

    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_true(get_choice(cache, 0));
    assert_int_equal(f->warnings, 0);
    assert_false(get_binary(cache, 0, 5000));
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->warning, "malformed"));
    assert_false(get_choice(cache, 0));
    assert_int_equal(put_choice(cache, 500), TW_OK);
    assert_int_equal(put_trial(cache, 0, 1), TW_OK);
    tw_cache_close(cache);

    cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_binary(cache, 500, 10), TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "malformed"));
    assert_int_equal(put_choice(cache, 500), TW_CACHE);
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 1);
    /* A writer that finds out by reading is not told that it can do without. */
    cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_false(get_binary(cache, 0, 5000));
    assert_int_equal(f->warnings, 2);
    assert_non_null(strstr(f->warning, "malformed; nothing can be stored"));
    assert_int_equal(put_choice(cache, 500), TW_CACHE);
    tw_cache_close(cache);
    folder_digest(f->folder, after);
    assert_string_equal(before, after);
    assert_int_equal(f->warnings, 2);
}

/* An empty file is nobody's: mktemp makes one, and so does a process that dies while creating. */
static void empty_file_is_taken(void **state) {
    fixture *f = *state;
    write_file(f->path, "", 0);
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_true(get_choice(cache, 1));
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 0);
}

/* Killed in the middle of the commit that creates the tables: the file is there, and beside it the
 * journal that takes it back to nothing (https://www.sqlite.org/fileformat.html, section 3). */
static void creation_cut_off(void **state) {
    static const uint8_t header[512] = {
        0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, /* magic */
        0,    0,    0,    0,    1,    2,    3,    4,
        0,    0,    0,    0,                         /* records, nonce, pages before */
        0,    0,    2,    0,    0,    0,    0x10, 0, /* sector and page size */
    };
    fixture *f = *state;
    char name[PATH_BYTES + 16];
    fill_file(f, 3);
    sql(f->path, "PRAGMA journal_mode = DELETE");
    snprintf(name, sizeof name, "%s-journal", f->path);
    write_file(name, header, sizeof header);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_false(get_choice(cache, 1));
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_true(get_choice(cache, 1));
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM choice"), "1");
}

/* A table that somebody dropped: an error each time, and no transaction is left open. */
static void missing_table(void **state) {
    fixture *f = *state;
    fill_file(f, 3);
    sql(f->path, "DROP TABLE trial; DROP TABLE choice");
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(put_choice(cache, 1), TW_CACHE);
        assert_int_equal(put_trial(cache, 1, 0), TW_CACHE);
    }
    sql(f->path, "DELETE FROM binary WHERE id = 1");
    assert_int_equal(put_binary(cache, 5, 10), TW_OK);
    assert_true(get_binary(cache, 5, 10));
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 0);
}

/* Another process sits on the file: a layer waits once, then hardly, and stores when it can. */
static void held_by_another(void **state) {
    fixture *f = *state;
    sqlite3 *other;
    tw_cache *cache = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    int patience = cache->busy_ms;
    assert_int_equal(sqlite3_open(f->path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(put_choice(cache, 2), TW_OK);
    assert_int_equal(f->warnings, 1);
    assert_non_null(strstr(f->warning, "locked"));
    assert_int_equal(cache->busy_ms, TW_BUSY_AGAIN_MS);
    assert_int_equal(put_choice(cache, 3), TW_OK);
    assert_int_equal(f->warnings, 1);
    sqlite3_close(other);
    assert_int_equal(put_choice(cache, 4), TW_OK);
    assert_int_equal(cache->busy_ms, patience);
    assert_true(get_choice(cache, 1) && get_choice(cache, 4));
    assert_false(get_choice(cache, 2) || get_choice(cache, 3));
    tw_cache_close(cache);
}

/* The default log and no log at all: nothing to crash on. */
static void default_log(void **state) {
    fixture *f = *state;
    tw_cache *cache = NULL;
    assert_int_equal(tw_cache_open(f->path, TW_CACHE_USE, NULL, &cache), TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    tw_cache_close(cache);
}

int main(void) {
    enum { ROWS = TW_COUNT(bad_files) };
    struct CMUnitTest rows[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        rows[i] = (struct CMUnitTest){bad_files[i].name, bad_file, setup, fixture_teardown, NULL};
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(damage_met_on_the_way), TEST(empty_file_is_taken), TEST(creation_cut_off),
        TEST(missing_table),         TEST(held_by_another),     TEST(default_log),
    };
    int failed = cmocka_run_group_tests_name("bad files", rows, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL) + failed;
}
