/* Groups of a compressed-tensors checkpoint: which one a module falls under. */
#include "src/format/targets.h"

#include "tests/format/builder.h"

enum { MODULES = 6, IGNORED = -2, NONE = -1 };

static const char *const modules[MODULES] = {"model.embed_tokens",
                                             "model.layers.0.self_attn.q_proj",
                                             "model.layers.1.self_attn.q_proj",
                                             "model.layers.10.mlp.down_proj",
                                             "model.layers.1.mlp.experts.3.up_proj",
                                             "lm_head"};

/* {"0": {"targets": ...}, ...} and the list of what is ignored. */
static json_t *config_of(const char *targets, const char *ignore) {
    json_t *groups = json_object(), *lists = json_loads(targets, 0, NULL), *list;
    size_t i;
    assert_non_null(lists);
    json_array_foreach(lists, i, list) {
        char key[32];
        snprintf(key, sizeof key, "%zu", i);
        json_object_set_new(groups, key, json_pack("{s:O,s:i}", "targets", list, "index", (int)i));
    }
    json_decref(lists);
    return json_pack("{s:o,s:o?}", "config_groups", groups, "ignore",
                     json_loads(ignore, JSON_DECODE_ANY, NULL));
}

/* As match_named_modules() and match_targets() of compressed-tensors 0.20.1 answer. */
static void choices(void **state) {
    (void)state;
    static const struct {
        const char *targets, *ignore;
        int expected[MODULES];
    } rows[] = {
        {"[[\"Linear\"]]", "[\"lm_head\"]", {NONE, 0, 0, 0, 0, IGNORED}},
        {"[[\"re:.*q_proj\"],[\"Linear\"]]", "[]", {NONE, 0, 0, 1, 1, 1}},
        {"[[\"Linear\"],[\"re:.*q_proj\",\"lm_head\"]]", "null", {NONE, 1, 1, 0, 0, 1}},
        {"[[\"Linear\"],[\"re:.*self_attn.*\"],[\"model.layers.1.self_attn.q_proj\"]]",
         "[\"re:.*lm_head$\"]",
         {NONE, 1, 2, 0, 0, IGNORED}},
        {"[[\"re:.*proj$\"],[\"re:.*layers\\\\.1\\\\..*\"],"
         "[\"re:.*mlp\\\\.experts\\\\.\\\\d+\\\\.(up|gate)_proj\"]]",
         "[]",
         {NONE, 0, 1, 0, 1, NONE}},
        {"[[\"re:layers.0.*\"],[\"re:model\\\\.layers\\\\.(?!0\\\\.)\\\\d+\\\\.self_attn\"],"
         "[\"Module\"]]",
         "[\"Embedding\"]",
         {IGNORED, 2, 1, 2, 2, 2}},
        {"[[\"Linear\"],[\"Linear\"]]",
         "[\"re:model\\\\.layers\\\\.\\\\d\\\\.\"]",
         {NONE, IGNORED, IGNORED, 1, IGNORED, 1}},
        {"[[\"Embedding\"],[\"re:lm_hea\",\"re:^model\\\\.layers\\\\.1\\\\b\"]]",
         "[]",
         {0, NONE, 1, NONE, 1, 1}},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        json_t *config = config_of(rows[i].targets, rows[i].ignore);
        tw_targets *targets = NULL;
        if (tw_targets_make(config, "memory", &targets)) fail_msg("%s", tw_error_message());
        for (int m = 0; m < MODULES; m++) {
            const json_t *group;
            bool ignored;
            assert_int_equal(
                tw_targets_find(targets, modules[m], tw_module_class(modules[m]), &group, &ignored),
                TW_OK);
            int got = ignored ? IGNORED
                      : group ? (int)json_integer_value(json_object_get(group, "index"))
                              : NONE;
            if (got != rows[i].expected[m])
                fail_msg("%s: %s is of %d, expected %d", rows[i].targets, modules[m], got,
                         rows[i].expected[m]);
        }
        tw_targets_free(targets);
        json_decref(config);
    }
}

static void bad_lists(void **state) {
    (void)state;
    static const struct {
        const char *targets, *ignore, *words;
    } rows[] = {
        {"[\"Linear\"]", "[]", "targets: expected a list"},
        {"[[3]]", "[]", "targets: expected names"},
        {"[[\"Linear\"]]", "{}", "ignore: expected a list"},
        {"[[\"Linear\"]]", "[null]", "ignore: expected names"},
        {"[[\"re:a(\"]]", "[]", "\"a(\": missing closing parenthesis, at character 3"},
        {"[[\"re:a\"]]", "[\"re:*\"]", "\"*\": "},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        json_t *config = config_of(rows[i].targets, rows[i].ignore);
        tw_targets *targets = NULL;
        assert_int_equal(tw_targets_make(config, "memory", &targets), TW_FORMAT);
        if (!strstr(tw_error_message(), rows[i].words)) fail_msg("%s", tw_error_message());
        json_decref(config);
    }
}

/* Work that grows as a power of the name's length is given up. */
static void endless_patterns(void **state) {
    (void)state;
    json_t *config = config_of("[[\"re:(a|aa)+$\"]]", "[]");
    tw_targets *targets = NULL;
    const json_t *group;
    bool ignored;
    assert_int_equal(tw_targets_make(config, "memory", &targets), TW_OK);
    assert_int_equal(tw_targets_find(targets, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", "Linear",
                                     &group, &ignored),
                     TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "takes too long"));
    tw_targets_free(targets);
    json_decref(config);
}

/* ---- a whole checkpoint ---- */

static tw_status open_with(const char *groups, const char *ignore, tw_model **out) {
    static uint8_t bytes[1 << 14];
    static const int8_t codes[] = {-128, 1, 2, 127};
    static const uint32_t packed = 0xfedcba98; /* 0..7, and 8 more */
    static const float scales[] = {0.5f, 2};
    static const int64_t shape[] = {1, 8};
    char config[2048];
    builder b = begin();
    put(&b, "a.q_proj.weight", "I8", "[1,4]", codes, sizeof codes);
    put(&b, "a.q_proj.weight_scale", "F32", "[1,1]", scales, 4);
    put(&b, "a.up_proj.weight_packed", "I32", "[1,1]", &packed, sizeof packed);
    put(&b, "a.up_proj.weight_scale", "F32", "[1,2]", scales, 8);
    put(&b, "a.up_proj.weight_shape", "I64", "[2]", shape, sizeof shape);
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":"
             "\"compressed-tensors\",\"config_groups\":{%s},\"ignore\":%s}}",
             groups, ignore);
    size_t size = build(&b, bytes, sizeof bytes);
    return tw_model_open_bytes_with_config(bytes, size, config, strlen(config), "memory", out);
}

#define BYTES(targets)                                                                             \
    "\"a\":{\"targets\":" targets ",\"weights\":{\"num_bits\":8,\"strategy\":\"channel\"}}"
#define NIBBLES(targets)                                                                           \
    "\"b\":{\"targets\":" targets                                                                  \
    ",\"weights\":{\"num_bits\":4,\"strategy\":\"group\",\"group_size\":4}}"

static void two_groups(void **state) {
    (void)state;
    static const char *const configs[] = {
        BYTES("[\"re:.*q_proj\"]") "," NIBBLES("[\"Linear\"]"),
        NIBBLES("[\"Linear\"]") "," BYTES("[\"re:.*q_proj\"]"),
        BYTES("[\"Linear\"]") "," NIBBLES("[\"re:a\\\\.(up|down)_proj$\"]"),
        NIBBLES("[\"a.up_proj\"]") "," BYTES("[\"a.q_proj\"]"),
    };
    for (size_t i = 0; i < TW_COUNT(configs); i++) {
        tw_model *model = NULL;
        if (open_with(configs[i], "[]", &model)) fail_msg("%s", tw_error_message());
        assert_values(model, "a.q_proj.weight", TW_I8, 1, 4, (float[]){-64, 0.5f, 1, 63.5f});
        assert_values(model, "a.up_proj.weight", TW_I4, 1, 8,
                      (float[]){0, 0.5f, 1, 1.5f, 8, 10, 12, 14});
        tw_model_close(model);
    }
}

/* What is ignored is listed as it lies there. */
static void ignored_and_unmatched(void **state) {
    (void)state;
    tw_model *model = NULL;
    if (open_with(BYTES("[\"Linear\"]"), "[\"re:.*up_proj\"]", &model))
        fail_msg("%s", tw_error_message());
    assert_true(tw_model_find(model, "a.up_proj.weight_packed") >= 0);
    assert_true(tw_model_find(model, "a.up_proj.weight") < 0);
    assert_values(model, "a.q_proj.weight", TW_I8, 1, 4, (float[]){-64, 0.5f, 1, 63.5f});
    tw_model_close(model);
    assert_int_equal(open_with(BYTES("[\"a.q_proj\"]") "," NIBBLES("[\"re:b\"]"), "[]", &model),
                     TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "none has a target that matches 'a.up_proj', of "
                                               "class Linear"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices),
        cmocka_unit_test(bad_lists),
        cmocka_unit_test(endless_patterns),
        cmocka_unit_test(two_groups),
        cmocka_unit_test(ignored_and_unmatched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
