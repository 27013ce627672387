/* What the tests of the cache share: a folder of their own, a log that counts, keys, raw SQLite. */
#ifndef TW_TESTS_CACHE_FIXTURE_H
#define TW_TESTS_CACHE_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the above and this first. */
#include <setjmp.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "cache/cache.h"

enum { PATH_BYTES = 512, NOBODY = 65534 };

typedef struct fixture {
    char folder[PATH_BYTES], path[PATH_BYTES]; /* path: folder/cache.db */
    tw_logger log;
    int warnings;
    char warning[2048]; /* the latest one */
} fixture;

/* cmocka set-up and tear-down; *state is a fixture. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* For code that runs in a child process, where cmocka's asserts cannot. */
void fixture_init(fixture *f, const char *folder);

/* Opens f->path; the test fails when the result is not `expected`. */
tw_cache *open_cache(fixture *f, tw_cache_access access, tw_status expected);

/* Key number i of a kind ("choice", "binary"); free with tw_key_free. */
tw_key make_key(const char *kind, int i);
extern const char test_device[];
/* Choice number i, and whether a choice is that one. */
tw_choice make_choice(int i);
bool same_choice(const tw_choice *a, const tw_choice *b);
tw_cache_trial make_trial(int i);

/* Put and get by number; the get functions compare with what put stored. */
tw_status put_choice(tw_cache *cache, int i);
bool get_choice(tw_cache *cache, int i);
tw_status put_binary(tw_cache *cache, int i, size_t size);
bool get_binary(tw_cache *cache, int i, size_t size);
tw_status put_trial(tw_cache *cache, int number, int i);
/* Fills a good cache at f->path: a choice, a binary of 5000 bytes and a trial for each number. */
void fill_file(fixture *f, int rows);
/* Trials of choice number `number`, -1 unless the i-th of them is make_trial(i) for every i. */
int count_trials(tw_cache *cache, int number);
int64_t count_defects(tw_cache *cache); /* -1 when verify fails */

/* Runs statements through a connection of its own. */
void sql(const char *path, const char *text);
/* First column of the first row as text, "" without a row; valid until the next call. */
const char *sql_text(const char *path, const char *query);

/* SHA-256 over names and bytes of everything below the folder. */
void folder_digest(const char *folder, char digest[TW_DIGEST_TEXT]);
/* Overwrites bytes of a file, or the root page of a table or index named by a condition. */
void overwrite(const char *path, long offset, const void *bytes, size_t size);
void overwrite_root(const char *path, const char *condition);
/* Writes a file. */
void write_file(const char *path, const void *bytes, size_t size);

/* Runs fn in a child process and returns what it returns; as_nobody: without root's rights. */
int run_child(int (*fn)(void *arg), void *arg, bool as_nobody);
/* Ends a child early with code 1, naming the line, when the condition does not hold. */
#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

#endif
