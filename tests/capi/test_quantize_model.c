/* Whole models: which rule decides, what is kept and why, and the bits that are written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/quant/recipe.h"
#include "tests/capi/models.h"

/* ---- rules ----------------------------------------------------------------------------------- */

static void defaults(void **state) {
    (void)state;
    seen s = {0};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "intx_weight_only,w=i4,g=32");
    check_ok(tw_quantize_model(models_source, models_output, &o));
    assert_int_equal(s.count, MODELS_SMALL);
    models_expect(&s, "model.embed_tokens.weight", TW_OUTCOME_KEPT, "", "no linear layer");
    models_expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, "default", "");
    models_expect(&s, "model.layers.0.q_proj.bias", TW_OUTCOME_KEPT, "", "no linear layer");
    models_expect(&s, "lm_head.weight", TW_OUTCOME_QUANTIZED, "default", "");
    models_expect(&s, "position_ids", TW_OUTCOME_KEPT, "", "no linear layer");
    assert_string_equal(s.rows[3].to, "w=i4,g=32,s=bf16,z=none,a=none");
    assert_int_equal(s.rows[3].bytes, 16 * 32 + 16 * 2 * 2);
}

/* The order of torchao's FqnToConfig. */
static void precedence(void **state) {
    (void)state;
    static const tw_quantize_rule rules[] = {
        {"re:model\\.layers\\.\\d+\\.q_proj", "intx_weight_only,w=i2,g=32"},
        {"re:.*\\.q_proj\\.weight", "intx_weight_only,w=i3,g=32"},
        {"re:.*q_proj\\.weight", "intx_weight_only,w=i4,g=32"},
        {"model.layers.1.q_proj", "intx_weight_only,w=i5,g=32"},
        {"re:.*\\.k_proj", "intx_weight_only,w=i6,g=32"},
        {"re:model", "intx_weight_only,w=i7,g=32"},
        {"lm_head.weight", "none"},
        {"lm_head", "intx_weight_only,w=i8,g=32"},
        {"model.embed_tokens.weight", "int8_weight_only"},
    };
    seen s = {0};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "intx_weight_only,w=i1,g=32");
    o.rules = rules;
    o.rule_count = TW_COUNT(rules);
    check_ok(tw_quantize_model(models_source, models_output, &o));
    /* Expressions for tensors come before expressions for modules, exact names before both. */
    models_expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, rules[1].pattern, "");
    models_expect(&s, "model.layers.1.q_proj.weight", TW_OUTCOME_QUANTIZED, rules[3].pattern, "");
    models_expect(&s, "model.layers.0.k_proj.weight", TW_OUTCOME_QUANTIZED, rules[4].pattern, "");
    models_expect(&s, "lm_head.weight", TW_OUTCOME_KEPT, "lm_head.weight", "the rule says none");
    models_expect(&s, "model.embed_tokens.weight", TW_OUTCOME_QUANTIZED, rules[8].pattern, "");
    assert_string_equal(s.rows[1].recipe, "intx_weight_only,w=i3,g=32");
    /* An expression must match the whole name; and it may match vectors, which are no error. */
    static const tw_quantize_rule whole = {"re:.*proj.*", "int8_weight_only"};
    s = (seen){0};
    o.rules = &whole;
    o.rule_count = 1;
    o.overwrite = o.strict = 1;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    models_expect(&s, "model.layers.0.q_proj.bias", TW_OUTCOME_KEPT, "re:.*proj.*", "no matrix");
    models_expect(&s, "lm_head.weight", TW_OUTCOME_QUANTIZED, "default", "");
}

static void filters(void **state) {
    (void)state;
    seen s = {.filtered = "lm_head.weight"};
    models_make(models_small, MODELS_SMALL);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    o.filter = models_filter;
    o.strict = 1;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    models_expect(&s, "lm_head.weight", TW_OUTCOME_KEPT, "default", "the filter");
    models_expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, "default", "");
}

/* SmolLM2's width: no layer is left in float, and the short group is told. */
static void short_groups(void **state) {
    (void)state;
    static const tw_safetensors_tensor wide[] = {{"a.weight", "F32", 2, {8, 576}},
                                                 {"b.weight", "F32", 2, {8, 512}}};
    static const char *const recipes[] = {
        "int4_weight_only", "int4_weight_only_hqq", "intx_weight_only,w=i4,g=128",
        "int8_dynamic_activation_int4_weight,g=128", "nf4_weight_only,g=128"};
    models_make(wide, 2);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = models_options(&s, recipes[i]);
        o.overwrite = o.strict = 1;
        check_ok(tw_quantize_model(models_source, models_output, &o));
        models_expect(&s, "a.weight", TW_OUTCOME_SHORT_GROUP, "default", "has 64 of 128 columns");
        models_expect(&s, "b.weight", TW_OUTCOME_QUANTIZED, "default", "");
        /* One group that is short of columns is short as well. */
        s = (seen){0};
        static const tw_safetensors_tensor narrow = {"c.weight", "F32", 2, {8, 64}};
        models_make(&narrow, 1);
        check_ok(tw_quantize_model(models_source, models_output, &o));
        models_expect(&s, "c.weight", TW_OUTCOME_SHORT_GROUP, "default", "has 64 of 128 columns");
        models_make(wide, 2);
    }
}

/* Stacked experts are what a rule says; in strict they must be named. */
static void experts(void **state) {
    (void)state;
    static const tw_safetensors_tensor tensors[] = {{"a.experts.w1.weight", "F32", 3, {2, 4, 64}},
                                                    {"b.weight", "F32", 2, {8, 64}},
                                                    {"conv.weight", "F32", 3, {2, 4, 3}}};
    static const tw_quantize_rule rule = {"a.experts.w1", "int8_weight_only"};
    static const char words[] = "a stack of matrices, which only a rule quantizes";
    seen s = {0};
    models_make(tensors, 3);
    tw_quantize_options o = models_options(&s, "int8_weight_only");
    o.overwrite = 1;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    models_expect(&s, "a.experts.w1.weight", TW_OUTCOME_KEPT, "", words);
    o.strict = 1;
    check_fails(tw_quantize_model(models_source, models_output, &o), TW_INVALID,
                "'a.experts.w1.weight'");
    s = (seen){0};
    o.rules = &rule;
    o.rule_count = 1;
    check_ok(tw_quantize_model(models_source, models_output, &o));
    models_expect(&s, "a.experts.w1.weight", TW_OUTCOME_QUANTIZED, "a.experts.w1", "");
    models_expect(&s, "conv.weight", TW_OUTCOME_KEPT, "", words);
}

/* What a recipe or a form cannot do is kept with the reason; strict makes an error of it. */
static void obstacles(void **state) {
    (void)state;
    static const tw_safetensors_tensor odd[] = {{"a.weight", "F32", 2, {8, 48}},
                                                {"b.weight", "F32", 2, {8, 64}}};
    char gguf[96];
    snprintf(gguf, sizeof gguf, "%s/out.gguf", models_folder);
    static const struct {
        const char *recipe, *reason;
    } cases[] = {{"mx_weight_only", "K: 48, must be a multiple of 32"},
                 {"intx_weight_only,w=i4,g=32,s=f16", "blocks are of 32 columns"}};
    models_make(odd, 2);
    for (int i = 0; i < 2; i++) {
        const char *out = i ? gguf : models_output;
        seen s = {0};
        tw_quantize_options o = models_options(&s, cases[i].recipe);
        check_ok(tw_quantize_model(models_source, out, &o));
        models_expect(&s, "a.weight", TW_OUTCOME_KEPT, "default", cases[i].reason);
        models_expect(&s, "b.weight", TW_OUTCOME_QUANTIZED, "default", "");
        o.strict = o.overwrite = 1;
        check_fails(tw_quantize_model(models_source, out, &o), TW_INVALID, "'a.weight'");
        assert_non_null(strstr(tw_error_message(), cases[i].reason));
    }
    seen s = {0};
    tw_quantize_options o = models_options(&s, "hqq,g=32");
    o.overwrite = 1;
    check_fails(tw_quantize_model(models_source, gguf, &o), TW_INVALID,
                "nothing would be quantized");
    check_fails(tw_quantize_model(models_source, gguf, &o), TW_INVALID, "its scales are f16");
}

/* ---- bits ------------------------------------------------------------------------------------ */

static tw_canonical_tensor tensor_of(const tw_model *model, const char *name) {
    tw_canonical_tensor t;
    check_ok(tw_model_read(model, tw_model_find(model, name), &t));
    return t;
}

/* The output's tensor is what the recipe makes of the source's whole one. */
static void assert_recipe(const tw_model *in, const tw_model *out, const char *name,
                          const char *recipe) {
    tw_canonical_tensor from = tensor_of(in, name), got = tensor_of(out, name);
    tw_dtype x = tw_scheme_plain(&from.scheme) ? from.scheme.weight : TW_F32;
    float *floats = malloc((size_t)(from.N * from.K) * sizeof *floats);
    for (int64_t n = 0; n < from.N; n++) tw_canonical_tensor_row(&from, n, floats + n * from.K);
    tw_recipe r;
    check_ok(tw_recipe_parse(recipe, x, &r));
    void *codes = calloc(1, got.weight_bytes), *scales = calloc(1, got.scale_bytes + 1),
         *zeros = calloc(1, got.zero_bytes + 1);
    float lut[TW_LUT4_SIZE];
    check_ok(tw_recipe_quantize(&r, from.N, from.K, x == TW_F32 ? floats : from.weight, codes,
                                scales, zeros, lut));
    if (got.lut) assert_memory_equal(lut, got.lut, sizeof lut);
    assert_memory_equal(codes, got.weight, got.weight_bytes);
    assert_memory_equal(scales, got.scales, got.scale_bytes);
    if (got.zero_bytes) assert_memory_equal(zeros, got.zeros, got.zero_bytes);
    free(zeros);
    free(scales);
    free(codes);
    free(floats);
    tw_canonical_tensor_free(&from);
    tw_canonical_tensor_free(&got);
}

/* Larger than a block of rows, so that pieces must fit together; scales for one row, for several
 * and for all. */
static void blocks_of_rows(void **state) {
    (void)state;
    static const tw_safetensors_tensor large[] = {{"a.weight", "F32", 2, {801, 700}},
                                                  {"b.weight", "BF16", 2, {801, 701}}};
    static const char *const recipes[] = {
        "intx_weight_only,w=i4,g=32",
        "intx_weight_only,w=i3,g=32,mapping=asymmetric",
        "int4_weight_only",
        "float8_weight_only",
        "float8_weight_only,g=tensor",
        "intx_weight_only,w=i8,g=128x64",
        "bitnet_weight_only",
        "nf4_weight_only",
    };
    models_make(large, 2);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = models_options(&s, recipes[i]);
        o.overwrite = 1;
        tw_status status = tw_quantize_model(models_source, models_output, &o);
        if (status) fail_msg("%s: %s", recipes[i], tw_error_message());
        tw_model *in = models_open(models_source), *out = models_open(models_output);
        assert_recipe(in, out, "a.weight", recipes[i]);
        assert_recipe(in, out, "b.weight", recipes[i]);
        tw_model_close(in);
        tw_model_close(out);
    }
}

/* HQQ looks at the error of the whole tensor, two levels of NVFP4 at its largest value. */
static void whole_tensors(void **state) {
    (void)state;
    static const tw_safetensors_tensor tensors[] = {{"a.weight", "F32", 2, {130, 8192}}};
    static const char *const recipes[] = {"hqq", "nvfp4_weight_only", "codebook_weight_only"};
    models_make(tensors, 1);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = models_options(&s, recipes[i]);
        o.overwrite = 1;
        check_ok(tw_quantize_model(models_source, models_output, &o));
        tw_model *in = models_open(models_source), *out = models_open(models_output);
        assert_recipe(in, out, "a.weight", recipes[i]);
        tw_model_close(in);
        tw_model_close(out);
    }
}

/* Quantized tensors are dequantized first; what is kept keeps every bit, whatever it was. */
static void quantized_sources(void **state) {
    (void)state;
    static const struct {
        const char *path, *recipe;
    } cases[] = {{TW_TEST_DATA "/gguf/legacy.gguf", "intx_weight_only,w=i4,g=32"},
                 {TW_TEST_DATA "/gguf/bigendian.gguf", "none"},
                 {TW_TEST_DATA "/gguf/iq.gguf", "intx_weight_only,w=i4,g=32"},
                 {TW_TEST_DATA "/gptq/v1_4bit_g128_sym_desc_act_bias", "int8_weight_only"}};
    for (size_t i = 0; i < TW_COUNT(cases); i++)
        for (int keep = 0; keep < 2; keep++) {
            seen s = {0};
            tw_quantize_options o = models_options(&s, keep ? "none" : cases[i].recipe);
            o.report = NULL;
            o.overwrite = 1;
            check_ok(tw_quantize_model(cases[i].path, models_output, &o));
            tw_model *in = models_open(cases[i].path), *out = models_open(models_output);
            for (int32_t t = 0; t < tw_model_tensor_count(in); t++) {
                const tw_model_tensor *tensor = tw_model_tensor_at(in, t);
                int32_t at = tw_model_find(out, tensor->name);
                assert_true(at >= 0);
                assert_int_equal(tw_model_tensor_at(out, at)->is_linear, tensor->is_linear);
                if (!tensor->scheme.weight) continue;
                if (tensor->is_linear && !keep) {
                    assert_recipe(in, out, tensor->name, cases[i].recipe);
                    continue;
                }
                tw_canonical_tensor a = tensor_of(in, tensor->name),
                                    b = tensor_of(out, tensor->name);
                assert_int_equal(a.weight_bytes, b.weight_bytes);
                assert_memory_equal(a.weight, b.weight, a.weight_bytes);
                assert_int_equal(!a.order, !b.order);
                if (a.order) assert_memory_equal(a.order, b.order, (size_t)a.K * sizeof *a.order);
                tw_canonical_tensor_free(&a);
                tw_canonical_tensor_free(&b);
            }
            tw_model_close(in);
            tw_model_close(out);
        }
}

/* A layer of the file gives what the layer of the same recipe gives, in every bit. */
static void forwards(const char *path, const char *name, const char *recipe, tw_context *context) {
    tw_model *in = models_open(models_source), *out = models_open(path);
    tw_canonical_tensor from = tensor_of(in, name), t = tensor_of(out, name);
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    desc.N = t.N, desc.K = t.K;
    tw_linear *a = NULL, *b = NULL;
    tw_tensor floats = TW_TENSOR_2D(from.weight, from.scheme.weight, from.N, from.K);
    check_ok(tw_linear_create_from_recipe(context, &desc, recipe, &floats, NULL, &a));
    check_ok(tw_recipe_scheme(recipe, from.scheme.weight, &desc.scheme));
    desc.lut = t.lut;
    const tw_problem p = tw_canonical_problem(&t);
    int64_t rows = tw_scale_rows(&t.scheme, t.N), groups = tw_groups(&t.scheme, t.K);
    tw_tensor codes = TW_TENSOR_2D(t.weight, p.scheme.weight, t.N, t.K),
              scales = TW_TENSOR_2D(t.scales, p.scheme.scale, rows, groups),
              zeros = TW_TENSOR_2D(t.zeros, tw_zero_dtype(&p.scheme), rows, groups);
    check_ok(tw_linear_create(context, &desc, &codes, &scales, t.zeros ? &zeros : NULL, NULL, &b));
    enum { M = 5 };
    tw_tensor x = random_rows(TW_F32, M, t.K, 3), y = random_rows(TW_F32, M, t.N, 4),
              z = random_rows(TW_F32, M, t.N, 5);
    check_ok(tw_linear_forward(a, &x, &y));
    check_ok(tw_linear_forward(b, &x, &z));
    assert_memory_equal(y.data, z.data, (size_t)(M * t.N) * sizeof(float));
    free(x.data);
    free(y.data);
    free(z.data);
    tw_linear_destroy(a);
    tw_linear_destroy(b);
    tw_canonical_tensor_free(&from);
    tw_canonical_tensor_free(&t);
    tw_model_close(in);
    tw_model_close(out);
}

static void save_load_forward(void **state) {
    (void)state;
    static const struct {
        const char *name, *recipe;
        tw_form form;
    } cases[] = {
        {"out.safetensors", "int8_dynamic_activation_int4_weight", TW_FORM_BY_NAME},
        {"out.safetensors", "nf4_weight_only", TW_FORM_BY_NAME},
        {"out.safetensors", "float8_weight_only", TW_FORM_BY_NAME},
        {"out.gguf", "intx_weight_only,w=i8,g=32,s=f16", TW_FORM_BY_NAME},
        {"out.gguf", "intx_weight_only,w=i4,g=32,s=f16", TW_FORM_BY_NAME},
        {"out", "intx_weight_only,w=i4,g=32", TW_FORM_COMPRESSED},
    };
    fixture *f = NULL;
    assert_int_equal(fixture_setup((void **)&f), 0);
    tw_context *context = open_context(f);
    models_make(models_small, MODELS_SMALL);
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        char path[128];
        seen s = {0};
        tw_quantize_options o = models_options(&s, cases[i].recipe);
        o.form = cases[i].form;
        o.overwrite = 1;
        snprintf(path, sizeof path, "%s/%s", models_folder, cases[i].name);
        check_ok(tw_quantize_model(models_source, path, &o));
        forwards(path, "model.layers.0.q_proj.weight", cases[i].recipe, context);
        forwards(path, "model.layers.0.k_proj.weight", cases[i].recipe, context);
    }
    tw_context_destroy(context);
    fixture_teardown((void **)&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, models_setup, models_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(defaults),          TEST(precedence),        TEST(filters),        TEST(short_groups),
        TEST(experts),           TEST(obstacles),         TEST(blocks_of_rows), TEST(whole_tensors),
        TEST(quantized_sources), TEST(save_load_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
