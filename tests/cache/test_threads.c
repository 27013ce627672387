/* One cache, several threads.  Built with -fsanitize=thread it also shows that nothing races. */
#include "tests/cache/fixture.h"

#include <pthread.h>
#include <stdio.h>

enum { THREADS = 4, EACH = 60 };

typedef struct worker {
    pthread_t thread;
    tw_cache *cache;  /* shared */
    const char *path; /* or opened by the thread itself */
    int number, failures;
} worker;

/* Stores and finds its own, looks for the others', and reads what the file holds in between. */
static void *work(void *arg) {
    worker *w = arg;
    for (int i = 0; i < EACH; i++) {
        int own = w->number * EACH + i;
        w->failures += put_choice(w->cache, own) != TW_OK;
        w->failures += !get_choice(w->cache, own);
        w->failures += put_trial(w->cache, 10000 + w->number, i) != TW_OK;
        w->failures += count_trials(w->cache, 10000 + w->number) != i + 1;
        w->failures += put_binary(w->cache, i, 500) != TW_OK;
        w->failures += !get_binary(w->cache, i, 500);
        get_choice(w->cache, (w->number + 1) % THREADS * EACH + i);
        tw_cache_counts counts;
        w->failures += i % 16 == 0 && tw_cache_stats(w->cache, &counts) != TW_OK;
    }
    return NULL;
}

static void threads_share_a_cache(void **state) {
    fixture *f = *state;
    worker workers[THREADS];
    tw_cache_counts counts;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.cache = cache, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].failures, 0);
    }
    assert_int_equal(tw_cache_stats(cache, &counts), TW_OK);
    assert_int_equal(counts.choices, THREADS * EACH);
    assert_int_equal(counts.trials, THREADS * EACH);
    assert_int_equal(counts.binaries, EACH);
    assert_int_equal(count_defects(cache), 0);
    tw_cache_close(cache);
    assert_int_equal(f->warnings, 0);
}

/* Each thread its own cache, opened while the others create the file, as hosts with a context a
 * thread do. */
static void *open_and_work(void *arg) {
    worker *w = arg;
    tw_cache *cache = NULL;
    if (tw_cache_open(w->path, TW_CACHE_WRITE, NULL, &cache) != TW_OK) {
        w->failures = 1;
        return NULL;
    }
    for (int i = 0; i < 10; i++) {
        w->failures += put_choice(cache, w->number * 10 + i) != TW_OK;
        w->failures += !get_choice(cache, w->number * 10 + i);
    }
    tw_cache_close(cache);
    return NULL;
}

static void threads_open_the_same_file(void **state) {
    fixture *f = *state;
    worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.path = f->path, .number = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, open_and_work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        assert_int_equal(workers[i].failures, 0);
    }
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < THREADS * 10; i++) assert_true(get_choice(cache, i));
    assert_int_equal(count_defects(cache), 0);
    tw_cache_close(cache);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(threads_share_a_cache),
        TEST(threads_open_the_same_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
