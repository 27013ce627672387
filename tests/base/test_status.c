/* Status names and the sentence of a thread. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "src/base/status.h"
#include "tests/base/cmocka_all.h"

enum { SENTENCE = 1024 };

static void test_names(void **state) {
    (void)state;
#define TW_ROW(name, value, text)                                                                  \
    assert_string_equal(tw_status_name(TW_##name), #name);                                         \
    assert_int_equal(TW_##name, value);
    TW_STATUSES(TW_ROW)
#undef TW_ROW
    assert_string_equal(tw_status_name((tw_status)-1), "?");
    assert_string_equal(tw_status_name((tw_status)14), "?");
}

static void test_sentence(void **state) {
    (void)state;
    assert_int_equal(tw_fail(TW_INVALID, "N: %d, must be %s", -3, "positive"), TW_INVALID);
    assert_string_equal(tw_error_message(), "N: -3, must be positive");
    /* The present sentence as an argument of the next one. */
    assert_int_equal(tw_fail(TW_IO, "reading: %s", tw_error_message()), TW_IO);
    assert_string_equal(tw_error_message(), "reading: N: -3, must be positive");
}

static void test_within(void **state) {
    (void)state;
    tw_fail(TW_FORMAT, "scales: missing");
    assert_int_equal(tw_fail_within(TW_FORMAT, "layer %d", 4), TW_FORMAT);
    assert_string_equal(tw_error_message(), "layer 4: scales: missing");
}

static tw_status fails_at(int where) {
    for (int i = 0; i < 3; i++) TW_TRY(i == where ? tw_fail(TW_BUSY, "step %d", i) : TW_OK);
    return TW_OK;
}

static void test_try(void **state) {
    (void)state;
    assert_int_equal(fails_at(3), TW_OK);
    assert_int_equal(fails_at(1), TW_BUSY);
    assert_string_equal(tw_error_message(), "step 1");
}

static void test_long_sentences_are_cut(void **state) {
    (void)state;
    char prefix[2 * SENTENCE];
    tw_fail(TW_IO, "%02000d", 0);
    assert_int_equal(strlen(tw_error_message()), SENTENCE - 1);
    /* Prefixes that leave no room, hardly any, or some for what was there. */
    for (int length = SENTENCE - 8; length < SENTENCE + 8; length++) {
        memset(prefix, 'p', sizeof prefix);
        prefix[length] = 0;
        tw_fail(TW_IO, "old");
        tw_fail_within(TW_IO, "%s", prefix);
        char expected[2 * SENTENCE + 8];
        snprintf(expected, sizeof expected, "%s: old", prefix);
        expected[SENTENCE - 1] = 0;
        assert_string_equal(tw_error_message(), expected);
    }
}

static void *other_thread(void *arg) {
    bool *clean = arg;
    *clean = !*tw_error_message();
    tw_fail(TW_IO, "of the other thread");
    return NULL;
}

static void test_each_thread_has_its_own(void **state) {
    (void)state;
    pthread_t thread;
    bool clean = false;
    tw_fail(TW_IO, "of this thread");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, &clean), 0);
    pthread_join(thread, NULL);
    assert_true(clean);
    assert_string_equal(tw_error_message(), "of this thread");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_sentence),
        cmocka_unit_test(test_within),
        cmocka_unit_test(test_try),
        cmocka_unit_test(test_long_sentences_are_cut),
        cmocka_unit_test(test_each_thread_has_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
