/* Several processes on one file, and processes that are killed while they write.  A process that
 * opens the file is started before this one has it open: SQLite must not be carried over fork(). */
#include "tests/cache/fixture.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 6, EACH = 40 };

typedef struct job {
    fixture *f;
    int number; /* of the child */
    int gate;   /* it waits to read from here, */
    int report; /* and says here what it has done */
    /* Ends of pipes that belong to the parent: with them closed the child ends when it does. */
    int others[2];
} job;

static pid_t start(job *j, int (*fn)(job *j)) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (size_t i = 0; i < TW_COUNT(j->others); i++)
            if (j->others[i] >= 0) close(j->others[i]);
        _exit(fn(j));
    }
    return child;
}

static void expect_end(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* Runs fn in CHILDREN processes that begin together. */
static void run_together(fixture *f, int (*fn)(job *j)) {
    int gate[2];
    pid_t children[CHILDREN];
    assert_int_equal(pipe(gate), 0);
    for (int i = 0; i < CHILDREN; i++) {
        job j = {f, i, gate[0], -1, {gate[1], -1}};
        children[i] = start(&j, fn);
    }
    close(gate[0]);
    close(gate[1]);
    for (int i = 0; i < CHILDREN; i++) expect_end(children[i]);
}

/* For run_together: until nobody is left who could still write into the pipe. */
static void wait_at_gate(const job *j) {
    char byte;
    while (read(j->gate, &byte, 1) > 0) continue;
}

/* Everybody finds no folder and no file, makes them, and stores a choice of its own. */
static int create_and_store(job *j) {
    tw_cache *cache = NULL;
    wait_at_gate(j);
    CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_WRITE, &j->f->log, &cache) == TW_OK);
    CHILD_CHECK(put_choice(cache, j->number) == TW_OK && get_choice(cache, j->number));
    tw_cache_close(cache);
    CHILD_CHECK(j->f->warnings == 0);
    return 0;
}

static void all_create_at_once(void **state) {
    fixture *f = *state;
    for (int round = 0; round < 8; round++) {
        snprintf(f->path, sizeof f->path, "%.300s/%d/new/cache.db", f->folder, round);
        run_together(f, create_and_store);
        tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
        for (int i = 0; i < CHILDREN; i++) assert_true(get_choice(cache, i));
        assert_int_equal(count_defects(cache), 0);
        tw_cache_close(cache);
        assert_string_equal(sql_text(f->path, "PRAGMA journal_mode"), "wal");
        assert_string_equal(sql_text(f->path, "PRAGMA auto_vacuum"), "2");
    }
}

/* All write trials of one key, each its own choice, and one binary that they share. */
static int write_a_lot(job *j) {
    tw_cache *cache = NULL;
    wait_at_gate(j);
    CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_WRITE, &j->f->log, &cache) == TW_OK);
    for (int i = 0; i < EACH; i++) {
        CHILD_CHECK(put_trial(cache, 1000, 0) == TW_OK);
        CHILD_CHECK(put_choice(cache, j->number * EACH + i) == TW_OK);
        CHILD_CHECK(get_choice(cache, j->number * EACH + i));
        CHILD_CHECK(put_binary(cache, 5, 3000) == TW_OK && get_binary(cache, 5, 3000));
    }
    tw_cache_close(cache);
    CHILD_CHECK(j->f->warnings == 0);
    return 0;
}

static void all_write_at_once(void **state) {
    fixture *f = *state;
    tw_cache_counts counts;
    run_together(f, write_a_lot);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(tw_cache_stats(cache, &counts), TW_OK);
    assert_int_equal(counts.choices, CHILDREN * EACH);
    assert_int_equal(counts.undecided, 1);
    assert_int_equal(counts.trials, CHILDREN * EACH);
    assert_int_equal(counts.binaries, 1);
    assert_int_equal(counts.devices, 1);
    assert_int_equal(count_defects(cache), 0);
    tw_cache_close(cache);
}

/* ---- kill -9 ---- */

/* Measures for ever and reports each trial once it is stored. */
static int tune_for_ever(job *j) {
    tw_cache *cache = NULL;
    CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_WRITE, &j->f->log, &cache) == TW_OK);
    for (int i = count_trials(cache, 1);; i++) {
        CHILD_CHECK(put_trial(cache, 1, i) == TW_OK);
        CHILD_CHECK(write(j->report, "", 1) == 1);
        CHILD_CHECK(put_binary(cache, i, 3000) == TW_OK);
    }
}

/* Starts a tuner, lets it make `trials`, kills it; returns how many it reported in the end. */
static int tune_and_kill(fixture *f, int trials) {
    int report[2], status, made = 0;
    char byte;
    assert_int_equal(pipe(report), 0);
    job j = {f, 0, -1, report[1], {report[0], -1}};
    pid_t child = start(&j, tune_for_ever);
    close(report[1]);
    while (made < trials && read(report[0], &byte, 1) == 1) made++;
    assert_int_equal(kill(child, SIGKILL), 0);
    while (read(report[0], &byte, 1) == 1) made++;
    close(report[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return made;
}

/* Killed at whatever moment, the next one finds every trial that was reported, in order and whole,
 * and at most the one that was in flight besides. */
static void killed_tuner_goes_on(void **state) {
    fixture *f = *state;
    int kept = 0;
    for (int round = 0; round < 24; round++) {
        int made = tune_and_kill(f, round % 7);
        tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
        int now = count_trials(cache, 1);
        assert_in_range(now, kept + made, kept + made + 1);
        assert_int_equal(count_defects(cache), 0);
        tw_cache_close(cache);
        kept = now;
    }
    assert_int_equal(f->warnings, 0);
}

/* ---- a helper process that takes orders ---- */

typedef struct helper {
    pid_t process;
    int order, answer;
} helper;

static helper start_helper(fixture *f, int (*fn)(job *j)) {
    int order[2], answer[2];
    assert_int_equal(pipe(order), 0);
    assert_int_equal(pipe(answer), 0);
    job j = {f, 0, order[0], answer[1], {order[1], answer[0]}};
    helper h = {start(&j, fn), order[1], answer[0]};
    close(order[0]);
    close(answer[1]);
    return h;
}

/* Sends a number; false when the helper does not answer. */
static bool ask(const helper *h, char number) {
    char answer;
    return write(h->order, &number, 1) == 1 && read(h->answer, &answer, 1) == 1;
}

/* 'q' ends a helper. */
static void end_helper(const helper *h) {
    assert_int_equal(write(h->order, "q", 1), 1);
    expect_end(h->process);
    close(h->order);
    close(h->answer);
}

/* Keeps the file open and uses it once for each order. */
static int use_on_order(job *j) {
    char number;
    tw_cache *cache = NULL;
    CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_USE, &j->f->log, &cache) == TW_OK);
    CHILD_CHECK(put_choice(cache, 200) == TW_OK);
    while (read(j->gate, &number, 1) == 1 && number != 'q') {
        CHILD_CHECK(get_choice(cache, 200) && put_choice(cache, number) == TW_OK);
        CHILD_CHECK(count_trials(cache, 1) >= 3 * number);
        CHILD_CHECK(write(j->report, "", 1) == 1);
    }
    tw_cache_close(cache);
    CHILD_CHECK(j->f->warnings == 0);
    return 0;
}

/* Who uses the file goes on undisturbed while others are killed. */
static void killed_beside_others(void **state) {
    fixture *f = *state;
    helper user = start_helper(f, use_on_order);
    for (char round = 1; round < 7; round++) {
        tune_and_kill(f, 3);
        assert_true(ask(&user, round));
    }
    end_helper(&user);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int round = 1; round < 7; round++) assert_true(get_choice(cache, round));
    assert_int_equal(count_defects(cache), 0);
    tw_cache_close(cache);
}

/* Opens, stores and closes for each order. */
static int visit_on_order(job *j) {
    char number;
    while (read(j->gate, &number, 1) == 1 && number != 'q') {
        tw_cache *cache = NULL;
        CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_WRITE, &j->f->log, &cache) == TW_OK);
        CHILD_CHECK(put_choice(cache, number) == TW_OK && get_choice(cache, number));
        tw_cache_close(cache);
        CHILD_CHECK(write(j->report, "", 1) == 1);
    }
    return 0;
}

/* Two contexts of one process on one file: neither's closing takes the other's locks.  With those
 * gone the visitor would believe to be the last one out, and delete the log. */
static void two_in_one_process(void **state) {
    fixture *f = *state;
    char log[PATH_BYTES + 16];
    helper visitor = start_helper(f, visit_on_order);
    tw_cache *a = open_cache(f, TW_CACHE_USE, TW_OK);
    assert_int_equal(put_choice(a, 0), TW_OK);
    snprintf(log, sizeof log, "%s-wal", tw_cache_path(a));
    for (char i = 1; i < 5; i++) {
        tw_cache *b = open_cache(f, TW_CACHE_WRITE, TW_OK);
        assert_int_equal(put_choice(b, 10 + i), TW_OK);
        assert_true(get_choice(a, 10 + i));
        tw_cache_close(b);
        assert_true(ask(&visitor, i));
        assert_int_equal(access(log, F_OK), 0);
        assert_true(get_choice(a, i));
        assert_int_equal(put_choice(a, 20 + i), TW_OK);
    }
    assert_int_equal(count_defects(a), 0);
    tw_cache_close(a);
    end_helper(&visitor);
    assert_int_equal(f->warnings, 0);
}

/* Reads and writes once, on order, while the file is locked. */
static int put_while_locked(job *j) {
    char number;
    CHILD_CHECK(read(j->gate, &number, 1) == 1);
    tw_cache *cache = NULL;
    CHILD_CHECK(tw_cache_open(j->f->path, TW_CACHE_USE, &j->f->log, &cache) == TW_OK);
    CHILD_CHECK(get_choice(cache, 1)); /* readers never wait */
    CHILD_CHECK(write(j->report, "", 1) == 1);
    CHILD_CHECK(put_choice(cache, 2) == TW_OK);
    CHILD_CHECK(get_choice(cache, 2) && j->f->warnings == 0);
    tw_cache_close(cache);
    CHILD_CHECK(read(j->gate, &number, 1) == 1);
    return 0;
}

/* A write waits for another process's transaction. */
static void writer_waits_for_writer(void **state) {
    fixture *f = *state;
    int status;
    sqlite3 *db;
    helper writer = start_helper(f, put_while_locked);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    tw_cache_close(cache);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_true(ask(&writer, 0));
    poll(NULL, 0, 50);
    assert_int_equal(waitpid(writer.process, &status, WNOHANG), 0);
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    end_helper(&writer);
    sqlite3_close(db);
}

/* A file that is not in WAL mode yet, and a writer in it: SQLite gives up at once, we wait. */
static int write_on_order(job *j) {
    char number;
    sqlite3 *db;
    CHILD_CHECK(sqlite3_open(j->f->path, &db) == SQLITE_OK);
    CHILD_CHECK(read(j->gate, &number, 1) == 1);
    CHILD_CHECK(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    CHILD_CHECK(write(j->report, "", 1) == 1);
    poll(NULL, 0, 50);
    CHILD_CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(db);
    CHILD_CHECK(read(j->gate, &number, 1) == 1);
    return 0;
}

static void switch_waits_for_writer(void **state) {
    fixture *f = *state;
    helper writer = start_helper(f, write_on_order);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    tw_cache_close(cache);
    sql(f->path, "PRAGMA journal_mode = DELETE");
    assert_true(ask(&writer, 0));
    cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_true(get_choice(cache, 1));
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "PRAGMA journal_mode"), "wal");
    end_helper(&writer);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_create_at_once),      TEST(all_write_at_once),  TEST(killed_tuner_goes_on),
        TEST(killed_beside_others),    TEST(two_in_one_process), TEST(writer_waits_for_writer),
        TEST(switch_waits_for_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
