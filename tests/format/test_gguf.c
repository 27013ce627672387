/* GGUF: every value of every readable type, listings, and what must be refused. */
#include <unistd.h>

#include "tests/format/format_test.h"

/* Tensors of FILE.gguf whose values NAME.expected.safetensors has, compared bit by bit. */
static void check_values(const char *file, const char *name, int32_t readable) {
    char path[512];
    snprintf(path, sizeof path, "%s/gguf/%s.gguf", TW_TEST_DATA, file);
    tw_model *model = opened(path);
    snprintf(path, sizeof path, "%s/gguf/%s.expected.safetensors", TW_TEST_DATA, name);
    tw_model *expected = opened(path);
    int32_t compared = 0;
    for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
        const tw_model_tensor *t = tw_model_tensor_at(model, i);
        int32_t j = tw_model_find(expected, t->name);
        if (!t->scheme.weight) continue;
        if (j < 0) fail_msg("%s: no values for %s", path, t->name);
        size_t count, expected_count;
        float *values = dequantized(model, i, &count);
        float *wanted = dequantized(expected, j, &expected_count);
        assert_int_equal(count, expected_count);
        for (size_t k = 0; k < count; k++)
            if (memcmp(&values[k], &wanted[k], sizeof(float)))
                fail_msg("%s: %s[%zu]: %a, expected %a", name, t->name, k, (double)values[k],
                         (double)wanted[k]);
        free(values);
        free(wanted);
        compared++;
    }
    assert_int_equal(compared, readable);
    tw_model_close(expected);
    tw_model_close(model);
}

static void values_equal_ggmls(void **state) {
    (void)state;
    check_values("legacy", "legacy", 8);
    check_values("kquants", "kquants", 5);
    check_values("iq", "iq", 9);
    check_values("ternary_fp4_align64", "ternary_fp4_align64", 4);
    check_values("newer_types", "newer_types", 2);
    check_values("mxfp4_extreme", "mxfp4_extreme", 1);
    check_values("real_quant", "real_quant", 19);
    check_values("bigendian", "bigendian", 4);
    check_values("shapes", "shapes", 5);
    check_values("shapes_v2", "shapes_v2", 5);
    check_values("split-00001-of-00003", "split", 5);
    check_values("split-00002-of-00003", "split", 5);
    check_values("split-00003-of-00003", "split", 5);
}

/* The scheme of each readable type, in the words of a problem. */
static void types_mean_schemes(void **state) {
    (void)state;
    static const char *const expected[][2] = {
        {"F32", "w=f32,a=none"},
        {"F16", "w=f16,a=none"},
        {"BF16", "w=bf16,a=none,fpmath=bf16"},
        {"Q4_0", "w=i4,g=32,s=f16,z=none,a=i8g32,fpmath=bf16"},
        {"Q4_1", "w=u4,g=32,s=f16,z=value,a=i8g32,fpmath=bf16"},
        {"Q5_0", "w=i5,g=32,s=f16,z=none,a=i8g32,fpmath=bf16"},
        {"Q5_1", "w=u5,g=32,s=f16,z=value,a=i8g32,fpmath=bf16"},
        {"Q8_0", "w=i8,g=32,s=f16,z=none,a=i8g32,fpmath=bf16"},
        {"Q4_K", "w=u4,g=32,s=f16i8,z=value,a=i8g256,fpmath=bf16"},
        {"Q5_K", "w=u5,g=32,s=f16i8,z=value,a=i8g256,fpmath=bf16"},
        {"Q6_K", "w=i6,g=16,s=f16i8,z=none,a=i8g256,fpmath=bf16"},
        {"Q2_K", "w=u2,g=16,s=f16i8,z=value,a=i8g256,fpmath=bf16"},
        {"Q3_K", "w=i3,g=16,s=f16i8,z=none,a=i8g256,fpmath=bf16"},
        {"TQ1_0", "w=i2,g=256,s=f16,z=none,a=i8g256,fpmath=bf16"},
        {"TQ2_0", "w=u2,g=256,s=f16,z=code,a=i8g256,fpmath=bf16"},
        {"Q1_0", "w=i2,g=128,s=f16,z=none,a=i8g128,fpmath=bf16"},
        {"Q2_0", "w=u2,g=64,s=f16,z=code,a=i8g64,fpmath=bf16"},
        {"MXFP4", "w=lut4,g=32,s=bf16,z=none,a=none,fpmath=bf16"},
        {"NVFP4", "w=lut4,g=16,s=bf16,z=none,a=none,fpmath=bf16"},
        {"IQ4_NL", "w=lut4,g=32,s=f16,z=none,a=none,fpmath=bf16"},
        {"IQ4_XS", "w=lut4,g=32,s=f16i8,z=none,a=none,fpmath=bf16"},
        {"IQ2_XXS", "w=lut4,g=32,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ2_XS", "w=lut4,g=16,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ2_S", "w=lut4,g=16,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ3_XXS", "w=lut4,g=32,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ3_S", "w=lut4,g=32,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ1_S", "w=lut4,g=32,s=f32,z=none,a=none,fpmath=bf16"},
        {"IQ1_M", "w=lut4,g=16,s=f32,z=none,a=none,fpmath=bf16"},
    };
    static const char *const files[] = {DATA("gguf/legacy.gguf"), DATA("gguf/kquants.gguf"),
                                        DATA("gguf/iq.gguf"), DATA("gguf/ternary_fp4_align64.gguf"),
                                        DATA("gguf/newer_types.gguf")};
    size_t seen = 0;
    for (size_t f = 0; f < TW_COUNT(files); f++) {
        tw_model *model = opened(files[f]);
        for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
            const tw_model_tensor *t = tw_model_tensor_at(model, i);
            tw_str text = {0};
            if (!t->scheme.weight) continue;
            assert_int_equal(tw_scheme_check(&t->scheme), TW_OK);
            tw_scheme_text(&t->scheme, &text);
            for (size_t k = 0; k < TW_COUNT(expected); k++)
                if (!strcmp(expected[k][0], t->type)) {
                    assert_string_equal(tw_str_text(&text), expected[k][1]);
                    seen++;
                }
            tw_str_free(&text);
        }
        tw_model_close(model);
    }
    assert_int_equal(seen, TW_COUNT(expected));
}

/* Sizes, alignment, and what is no tensor. */
static void canonical_form(void **state) {
    (void)state;
    tw_model *model = opened(DATA("gguf/legacy.gguf"));
    tw_canonical_tensor t;
    int32_t index = tw_model_find(model, "blk.5.q5_0.weight");
    assert_int_equal(tw_model_read(model, index, &t), TW_OK);
    assert_int_equal(t.N, 4);
    assert_int_equal(t.K, 512);
    assert_int_equal(t.weight_bytes, 4 * 512 * 5 / 8);
    assert_int_equal(t.scale_bytes, 4 * 512 / 32 * 2);
    assert_null(t.zeros);
    assert_int_equal((uintptr_t)t.weight % 64, 0);
    tw_canonical_tensor_free(&t);
    assert_null(t.weight);

    assert_int_equal(tw_model_read(model, -1, &t), TW_INVALID);
    assert_int_equal(tw_model_read(model, tw_model_tensor_count(model), &t), TW_INVALID);
    assert_null(tw_model_tensor_at(model, -1));
    assert_null(tw_model_tensor_at(model, tw_model_tensor_count(model)));
    assert_int_equal(tw_model_find(model, "blk.5.q5_0"), -1);
    tw_model_close(model);
    tw_model_close(NULL);
}

/* 1-D to 4-D, outermost first; leading dimensions fold into rows. */
static void shapes(void **state) {
    (void)state;
    tw_model *model = opened(DATA("gguf/shapes.gguf"));
    tw_canonical_tensor t;
    const tw_model_tensor *info = tw_model_tensor_at(model, tw_model_find(model, "t4d"));
    assert_int_equal(info->ndim, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(info->shape[i], i + 2);
    assert_int_equal(tw_model_read(model, tw_model_find(model, "t4d"), &t), TW_OK);
    assert_int_equal(t.N, 24);
    assert_int_equal(t.K, 5);
    tw_canonical_tensor_free(&t);
    assert_int_equal(tw_model_read(model, tw_model_find(model, "v1d"), &t), TW_OK);
    assert_int_equal(t.N, 1);
    assert_int_equal(t.K, 7);
    tw_canonical_tensor_free(&t);
    tw_model_close(model);
}

/* Whole numbers and doubles are no weights: listed, but not read. */
static void other_types_are_listed(void **state) {
    (void)state;
    tw_model *model = opened(DATA("gguf/shapes.gguf"));
    int others = 0;
    for (int32_t i = 0; i < tw_model_tensor_count(model); i++) {
        tw_canonical_tensor t;
        const tw_model_tensor *info = tw_model_tensor_at(model, i);
        if (info->scheme.weight) continue;
        others++;
        assert_int_equal(tw_model_read(model, i, &t), TW_UNSUPPORTED);
        assert_non_null(strstr(tw_error_message(), info->name));
        assert_non_null(strstr(tw_error_message(), info->type));
    }
    assert_int_equal(others, 5);
    tw_model_close(model);
}

static void facts(void **state) {
    (void)state;
    tw_model *model = opened(DATA("gguf/no_tensors.gguf"));
    assert_int_equal(tw_model_tensor_count(model), 0);
    assert_int_equal(tw_model_kind_of(model), TW_MODEL_GGUF);
    assert_string_equal(tw_model_architecture(model), "llama");
    assert_int_equal(tw_model_find(model, "x"), -1);
    assert_linears(model, (const char *const[]){NULL});
    tw_model_close(model);
    /* Only the first part of a split model says what it is. */
    model = opened(DATA("gguf/split-00003-of-00003.gguf"));
    assert_string_equal(tw_model_architecture(model), "llama");
    tw_model_close(model);
}

static void refusals(void **state) {
    (void)state;
    assert_int_equal(refused(DATA("gguf/no_such_file.gguf")), TW_IO);
    assert_int_equal(refused(DATA("gguf/broken")), TW_IO);
    assert_int_equal(refused("/dev/null"), TW_IO);
    int count = each_of_manifest(DATA("gguf/broken/manifest.json"), check_opening);
    assert_int_equal(count, 74);
}

/* The reason counts, too: a length that wraps around must not be met by luck further on. */
static void reasons(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {DATA("gguf/broken/kv_strlen_max.gguf"), "18446744073709551615 bytes at 64"},
        {DATA("gguf/broken/kv_strlen_2p63.gguf"), "9223372036854775808 bytes at 64"},
        {DATA("gguf/broken/tensor_namelen_2p63.gguf"), "9223372036854775808 bytes at 77"},
        {DATA("gguf/broken/kv_count_huge.gguf"), "9223372036854775807 keys in a file of 288"},
        {DATA("gguf/broken/dims_overflow_to_small.gguf"), "overflows 64 bits"},
        {DATA("gguf/broken/offset_wraps.gguf"), "offset 18446744073709551584, expected 64"},
        {DATA("gguf/broken/version_99.gguf"), "GGUF version 99, supported are 2 and 3"},
        {DATA("gguf/broken/magic_ggml.gguf"), "magic 'lmgg', expected 'GGUF'"},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        refused(cases[i][0]);
        if (!strstr(tw_error_message(), cases[i][1]))
            fail_msg("'%s' lacks '%s'", tw_error_message(), cases[i][1]);
    }
}

/* A part as gguf-split writes it, without tensors. */
static void save_part(const char *folder, const char *name, uint16_t number, uint16_t count,
                      int32_t tensors) {
    static const char *const keys[] = {"split.no", "split.count", "split.tensors.count"};
    static const uint32_t types[] = {2, 2, 5};
    const void *values[] = {&number, &count, &tensors};
    uint64_t counts[2] = {0, 3};
    tw_str part = {0};
    tw_str_add_bytes(&part, "GGUF\3\0\0", 8);
    tw_str_add_bytes(&part, counts, sizeof counts);
    for (int i = 0; i < 3; i++) {
        uint64_t size = strlen(keys[i]);
        tw_str_add_bytes(&part, &size, sizeof size);
        tw_str_add_bytes(&part, keys[i], size);
        tw_str_add_bytes(&part, &types[i], sizeof types[i]);
        tw_str_add_bytes(&part, values[i], i < 2 ? sizeof number : sizeof tensors);
    }
    save(folder, name, part.text, part.size);
    tw_str_free(&part);
}

static void expect_split(const char *folder, const char *name, const char *words) {
    char path[64];
    tw_model *model;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    tw_status status = tw_model_open(path, NULL, &model);
    if (!words) {
        assert_int_equal(status, TW_OK);
        tw_model_close(model);
    } else if (!status || !strstr(tw_error_message(), words)) {
        fail_msg("'%s' lacks '%s'", status ? tw_error_message() : "", words);
    }
}

static void split_parts(void **state) {
    (void)state;
    char folder[] = "format-split-XXXXXX";
    static const char *const names[] = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf",
                                        "other.gguf"};
    assert_non_null(mkdtemp(folder));
    save_part(folder, names[0], 0, 2, 0);
    expect_split(folder, names[0], "m-00002-of-00002.gguf: No such file");
    save_part(folder, names[1], 1, 2, 0);
    expect_split(folder, names[0], NULL);
    save_part(folder, names[1], 0, 2, 0);
    expect_split(folder, names[0], "says to be part 1 of 2");
    save_part(folder, names[1], 1, 3, 0);
    expect_split(folder, names[0], "says to be part 2 of 3");
    save_part(folder, names[1], 1, 2, 0);
    save_part(folder, names[0], 0, 1, 0);
    expect_split(folder, names[1], "m-00001-of-00002.gguf: says to be part 1 of 1");
    save_part(folder, names[1], 2, 2, 0);
    expect_split(folder, names[1], "says to be part 3 of 2");
    save_part(folder, names[1], 1, 2, 0);
    save_part(folder, names[0], 0, 2, 7);
    expect_split(folder, names[0], "split.tensors.count: 7, but the parts hold 0");
    save_part(folder, names[2], 0, 2, 0);
    char path[64];
    for (size_t i = TW_COUNT(names); i-- > 0;) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (i == 2) {
            refused(path);
            assert_non_null(strstr(tw_error_message(), "must be named PREFIX-00001-of-00002.gguf"));
        }
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* Cut anywhere, a file is refused or, from the last tensor's end on, whole. */
static void every_truncation(void **state) {
    (void)state;
    static char bytes[8192];
    size_t size = load(DATA("gguf/shapes.gguf"), bytes, sizeof bytes), opened_at = size;
    for (size_t cut = 0; cut <= size; cut++) {
        /* An allocation of its own, so that the address sanitizer sees one byte too many. */
        char *copy = malloc(cut + !cut);
        tw_model *model;
        memcpy(copy, bytes, cut);
        if (!tw_model_open_bytes(copy, cut, TW_MODEL_GGUF, "memory", &model)) {
            if (cut < opened_at) opened_at = cut;
            tw_model_close(model);
        }
        free(copy);
    }
    /* Only padding may be missing. */
    assert_in_range(opened_at, size - 31, size);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_equal_ggmls),
        cmocka_unit_test(types_mean_schemes),
        cmocka_unit_test(canonical_form),
        cmocka_unit_test(shapes),
        cmocka_unit_test(other_types_are_listed),
        cmocka_unit_test(facts),
        cmocka_unit_test(refusals),
        cmocka_unit_test(reasons),
        cmocka_unit_test(split_parts),
        cmocka_unit_test(every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
