/* Configs to text and back. */
#include <string.h>

#include "src/base/status.h"
#include "src/core/config.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/random.h"

static void check_text(const tw_config *config, const char *expected) {
    tw_str text = {0};
    tw_config back;
    tw_config_text(config, &text);
    if (expected) assert_string_equal(tw_str_text(&text), expected);
    assert_int_equal(tw_config_parse(tw_str_text(&text), &back), TW_OK);
    assert_memory_equal(&back, config, sizeof back);
    tw_str_free(&text);
}

static void test_text(void **state) {
    (void)state;
    check_text(&(tw_config){0}, "");
    check_text(&(tw_config){.micro_m = 4, .micro_n = 64, .block_m = 128, .block_n = 256},
               "mm4 mn64 bm128 bn256");
    check_text(&(tw_config){.block_n = INT32_MAX}, "bn2147483647");
}

static void test_table(void **state) {
    (void)state;
    for (int i = 0; i < TW_TUNABLE_COUNT; i++) {
        const tw_tunable *row = &tw_tunables[i];
        tw_config config = {0};
        assert_ptr_equal((char *)tw_config_field(&config, i), (char *)&config + row->offset);
        /* The digits that follow a tag must not be taken for part of it. */
        assert_int_equal(strcspn(row->tag, "0123456789 "), strlen(row->tag));
        assert_true(strlen(row->tag) > 0 && strlen(row->meaning) > 0);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(row->tag, tw_tunables[j].tag);
            assert_int_not_equal(row->offset, tw_tunables[j].offset);
        }
    }
    assert_string_equal(tw_tunables[TW_TUNABLE_micro_n].field, "micro_n");
}

static void test_round_trips(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int n = 0; n < 200; n++) {
        tw_config config = {0};
        for (int i = 0; i < TW_TUNABLE_COUNT; i++)
            *tw_config_field(&config, i) =
                random_int(&seed, 0, 1) ? 0 : (int32_t)random_int(&seed, 1, INT32_MAX);
        check_text(&config, NULL);
    }
}

static void test_any_order_and_gaps(void **state) {
    (void)state;
    tw_config config;
    assert_int_equal(tw_config_parse("  bn8   mm2 ", &config), TW_OK);
    assert_memory_equal(&config, (&(tw_config){.micro_m = 2, .block_n = 8}), sizeof config);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *sentence;
    } rows[] = {
        {"mm4 zz3", "config: \"zz3\", begins with no tunable's tag"},
        {"m4", "config: \"m4\", begins with no tunable's tag"},
        {"4", "config: \"4\", begins with no tunable's tag"},
        {"mm4,mn8", "config: \"mm4,mn8\", micro_m must be a positive integer up to 2147483647"},
        {"mm", "config: \"mm\", micro_m must be a positive integer up to 2147483647"},
        {"mm0", "config: \"mm0\", micro_m must be a positive integer up to 2147483647"},
        {"mm-4", "config: \"mm-4\", begins with no tunable's tag"},
        {"mn4x", "config: \"mn4x\", micro_n must be a positive integer up to 2147483647"},
        {"mn2147483648",
         "config: \"mn2147483648\", micro_n must be a positive integer up to 2147483647"},
        {"mn99999999999999999999999", "config: \"mn99999999999999999999999\", micro_n must be a "
                                      "positive integer up to 2147483647"},
        {"mm4 mn8 mm4", "config: \"mm4\", micro_m is given twice"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_config config = {.micro_m = 77};
        assert_int_equal(tw_config_parse(rows[i].text, &config), TW_INVALID);
        assert_string_equal(tw_error_message(), rows[i].sentence);
        assert_int_equal(config.micro_m, 77);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),        cmocka_unit_test(test_table),
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_any_order_and_gaps),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
