/* The parallel-for: every task once, on the host's threads or ours, from several callers. */
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/backend/backend.h"
#include "tests/base/cmocka_all.h"

enum { MOST_TASKS = 1000, CALLERS = 4, ROUNDS = 25 };

typedef struct counter {
    atomic_int times[MOST_TASKS];
} counter;

static void count_task(void *arg, size_t i) { atomic_fetch_add(&((counter *)arg)->times[i], 1); }

static bool ran_once(tw_threads *threads, size_t tasks) {
    counter *c = calloc(1, sizeof *c);
    if (!c) return false;
    tw_threads_run(threads, count_task, c, tasks);
    bool right = true;
    for (size_t i = 0; i < MOST_TASKS; i++) right &= c->times[i] == (i < tasks);
    free(c);
    return right;
}

static void check_counts(tw_threads *threads) {
    static const size_t counts[] = {0, 1, 2, 3, 7, 64, MOST_TASKS};
    for (size_t i = 0; i < TW_COUNT(counts); i++) assert_true(ran_once(threads, counts[i]));
}

static void test_pool(void **state) {
    (void)state;
    check_counts(NULL);
    assert_int_equal(tw_threads_count(NULL), 1);
    tw_threads_destroy(NULL);
    for (int32_t n = 1; n <= 5; n += 2) {
        tw_threads *threads;
        assert_int_equal(tw_threads_create(NULL, n, &threads), TW_OK);
        assert_int_equal(threads == NULL, n == 1);
        assert_int_equal(tw_threads_count(threads), n);
        check_counts(threads);
        tw_threads_destroy(threads);
    }
    tw_threads *none;
    assert_int_equal(tw_threads_create(NULL, 0, &none), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "threads: 0"));
}

/* Threads of this process: the entries of /proc/self/task. */
static int threads_here(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *e; (e = readdir(tasks));) count += e->d_name[0] != '.';
    closedir(tasks);
    return count;
}

/* A pool that nobody runs on costs no thread; a started one has them all, once. */
static void test_start(void **state) {
    (void)state;
    tw_threads *threads;
    int before = threads_here();
    assert_int_equal(tw_threads_start(NULL), TW_OK);
    assert_int_equal(tw_threads_create(NULL, 3, &threads), TW_OK);
    assert_true(ran_once(threads, 1));
    assert_int_equal(threads_here(), before);
    for (int i = 0; i < 2; i++) assert_int_equal(tw_threads_start(threads), TW_OK);
    assert_true(ran_once(threads, 9));
    assert_int_equal(threads_here(), before + 2);
    tw_threads_destroy(threads);
}

/* ---- the host's hook ---- */

static atomic_int hook_calls;

/* Backwards: the order is the host's. */
static void hook_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    assert_ptr_equal(user, &hook_calls);
    atomic_fetch_add(&hook_calls, 1);
    for (size_t i = count; i-- > 0;) task(arg, i);
}

static void test_hook(void **state) {
    (void)state;
    tw_parallel hook = {hook_run, &hook_calls, 6};
    tw_threads *threads;
    /* The hook's number of threads counts, not ours. */
    assert_int_equal(tw_threads_create(&hook, 2, &threads), TW_OK);
    assert_int_equal(tw_threads_count(threads), 6);
    hook_calls = 0;
    assert_true(ran_once(threads, 9));
    assert_int_equal(hook_calls, 1);
    /* One task needs no other thread. */
    assert_true(ran_once(threads, 1));
    assert_int_equal(hook_calls, 1);
    tw_threads_destroy(threads);

    hook.threads = 0;
    assert_int_equal(tw_threads_create(&hook, 2, &threads), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "parallel.threads"));
    hook.threads = 1;
    assert_int_equal(tw_threads_create(&hook, 2, &threads), TW_OK);
    assert_null(threads);
    /* A zeroed hook is none. */
    assert_int_equal(tw_threads_create(&(tw_parallel){NULL, NULL, 0}, 2, &threads), TW_OK);
    assert_int_equal(tw_threads_count(threads), 2);
    tw_threads_destroy(threads);
}

/* ---- several callers ---- */

static void *caller(void *threads) {
    for (int i = 0; i < ROUNDS; i++)
        if (!ran_once(threads, (size_t)(i % 40))) return threads;
    return NULL;
}

static void test_callers(void **state) {
    (void)state;
    tw_threads *threads;
    assert_int_equal(tw_threads_create(NULL, 3, &threads), TW_OK);
    pthread_t callers[CALLERS];
    for (int i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&callers[i], NULL, caller, threads), 0);
    for (int i = 0; i < CALLERS; i++) {
        void *failed;
        assert_int_equal(pthread_join(callers[i], &failed), 0);
        assert_null(failed);
    }
    tw_threads_destroy(threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_hook),
        cmocka_unit_test(test_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
