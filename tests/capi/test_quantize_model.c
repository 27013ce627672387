/* Whole models: which rule decides, what is kept and why, the bits that are written, and that an
 * output is whole or not there. */
#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tilewright/model.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/format/model.h"
#include "src/format/model_write.h"
#include "src/format/safetensors_write.h"
#include "src/quant/recipe.h"
#include "tests/capi/fixture.h"
#include "tests/core/random.h"

static char folder[64], source[96], output[96];

static int setup(void **state) {
    strcpy(folder, "quantize-model-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(source, sizeof source, "%s/in.safetensors", folder);
    snprintf(output, sizeof output, "%s/out.safetensors", folder);
    (void)state;
    return 0;
}

/* Fails when anything but what the test made is left. */
static int teardown(void **state) {
    (void)state;
    char path[128];
    unlink(source);
    unlink(output);
    snprintf(path, sizeof path, "%s/out.gguf", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out/model.safetensors", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/out", folder);
    rmdir(path);
    return rmdir(folder);
}

/* ---- a source -------------------------------------------------------------------------------- */

static tw_status write_bytes(void *user, const void *bytes, size_t size) {
    assert_int_equal(fwrite(bytes, 1, size, user), size);
    return TW_OK;
}

static size_t values_of(const tw_safetensors_tensor *t) {
    size_t count = 1;
    for (int32_t i = 0; i < t->ndim; i++) count *= (size_t)t->shape[i];
    return count;
}

static void fill(const tw_safetensors_tensor *t, void *data, uint64_t seed) {
    tw_dtype dtype = !strcmp(t->type, "F16") ? TW_F16 : !strcmp(t->type, "BF16") ? TW_BF16 : TW_F32;
    for (size_t i = 0; i < values_of(t); i++)
        tw_float_set(data, dtype, (int64_t)i, random_unit(&seed));
}

static void make(const tw_safetensors_tensor *tensors, int32_t count) {
    FILE *file = fopen(source, "wb");
    const tw_sink sink = {write_bytes, file};
    tw_safetensors_writer *w = NULL;
    assert_non_null(file);
    check_ok(tw_safetensors_create(&sink, tensors, count, NULL, 0, &w));
    for (int32_t i = 0; i < count; i++) {
        uint64_t bytes = 0;
        assert_true(tw_safetensors_bytes(&tensors[i], &bytes));
        void *data = calloc(1, bytes + 1);
        if (*tensors[i].type != 'I') fill(&tensors[i], data, (uint64_t)i + 1);
        check_ok(tw_safetensors_append(w, data, bytes));
        free(data);
    }
    check_ok(tw_safetensors_finish(w));
    assert_int_equal(fclose(file), 0);
}

static const tw_safetensors_tensor small[] = {
    {"model.embed_tokens.weight", "BF16", 2, {40, 64}},
    {"model.layers.0.q_proj.weight", "F32", 2, {24, 64}},
    {"model.layers.0.q_proj.bias", "F32", 1, {24}},
    {"model.layers.0.k_proj.weight", "BF16", 2, {16, 64}},
    {"model.layers.1.q_proj.weight", "F16", 2, {24, 64}},
    {"model.norm.weight", "F32", 1, {64}},
    {"lm_head.weight", "F32", 2, {40, 64}},
    {"position_ids", "I64", 2, {1, 8}},
};

/* ---- what is reported ------------------------------------------------------------------------ */

enum { MOST = 16, WORDS = 200 };
typedef struct seen {
    struct {
        char name[64], rule[64], recipe[64], reason[WORDS], to[64];
        tw_quantize_outcome outcome;
        uint64_t bytes;
    } rows[MOST];
    int count, calls, stop_at;
    bool stop_at_end;
    const char *filtered; /* the filter keeps this one */
} seen;

static void on_row(void *user, const tw_quantize_row *row) {
    seen *s = user;
    assert_true(s->count < MOST);
    snprintf(s->rows[s->count].name, 64, "%s", row->tensor);
    snprintf(s->rows[s->count].rule, 64, "%s", row->rule ? row->rule : "");
    snprintf(s->rows[s->count].recipe, 64, "%s", row->recipe ? row->recipe : "");
    snprintf(s->rows[s->count].reason, WORDS, "%s", row->reason ? row->reason : "");
    snprintf(s->rows[s->count].to, 64, "%s", row->to);
    s->rows[s->count].bytes = row->bytes;
    s->rows[s->count++].outcome = row->outcome;
    assert_int_equal(row->struct_size, sizeof *row);
}

static int32_t on_progress(void *user, double share, const char *tensor) {
    seen *s = user;
    assert_true(share >= 0 && share <= 1);
    assert_non_null(tensor);
    return (s->stop_at && ++s->calls >= s->stop_at) || (s->stop_at_end && share >= 1);
}

static int32_t on_filter(void *user, const char *tensor, int64_t N, int64_t K) {
    const seen *s = user;
    assert_true(N > 0 && K == 64);
    return strcmp(tensor, s->filtered) != 0;
}

static tw_quantize_options options(seen *s, const char *recipe) {
    tw_quantize_options o = TW_QUANTIZE_OPTIONS_INIT;
    o.recipe = recipe;
    o.report = on_row;
    o.progress = on_progress;
    o.user = s;
    return o;
}

static void expect(const seen *s, const char *name, tw_quantize_outcome outcome, const char *rule,
                   const char *reason) {
    for (int i = 0; i < s->count; i++) {
        if (strcmp(s->rows[i].name, name) != 0) continue;
        assert_int_equal(s->rows[i].outcome, outcome);
        assert_string_equal(s->rows[i].rule, rule);
        if (!strstr(s->rows[i].reason, reason))
            fail_msg("%s: '%s', expected '%s'", name, s->rows[i].reason, reason);
        return;
    }
    fail_msg("%s: not reported", name);
}

/* ---- rules ----------------------------------------------------------------------------------- */

static void defaults(void **state) {
    (void)state;
    seen s = {0};
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "intx_weight_only,w=i4,g=32");
    check_ok(tw_quantize_model(source, output, &o));
    assert_int_equal(s.count, TW_COUNT(small));
    expect(&s, "model.embed_tokens.weight", TW_OUTCOME_KEPT, "", "no linear layer");
    expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, "default", "");
    expect(&s, "model.layers.0.q_proj.bias", TW_OUTCOME_KEPT, "", "no linear layer");
    expect(&s, "lm_head.weight", TW_OUTCOME_QUANTIZED, "default", "");
    expect(&s, "position_ids", TW_OUTCOME_KEPT, "", "no linear layer");
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
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "intx_weight_only,w=i1,g=32");
    o.rules = rules;
    o.rule_count = TW_COUNT(rules);
    check_ok(tw_quantize_model(source, output, &o));
    /* Expressions for tensors come before expressions for modules, exact names before both. */
    expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, rules[1].pattern, "");
    expect(&s, "model.layers.1.q_proj.weight", TW_OUTCOME_QUANTIZED, rules[3].pattern, "");
    expect(&s, "model.layers.0.k_proj.weight", TW_OUTCOME_QUANTIZED, rules[4].pattern, "");
    expect(&s, "lm_head.weight", TW_OUTCOME_KEPT, "lm_head.weight", "the rule says none");
    expect(&s, "model.embed_tokens.weight", TW_OUTCOME_QUANTIZED, rules[8].pattern, "");
    assert_string_equal(s.rows[1].recipe, "intx_weight_only,w=i3,g=32");
    /* An expression must match the whole name; and it may match vectors, which are no error. */
    static const tw_quantize_rule whole = {"re:.*proj.*", "int8_weight_only"};
    s = (seen){0};
    o.rules = &whole;
    o.rule_count = 1;
    o.overwrite = o.strict = 1;
    check_ok(tw_quantize_model(source, output, &o));
    expect(&s, "model.layers.0.q_proj.bias", TW_OUTCOME_KEPT, "re:.*proj.*", "no matrix");
    expect(&s, "lm_head.weight", TW_OUTCOME_QUANTIZED, "default", "");
}

static void filters(void **state) {
    (void)state;
    seen s = {.filtered = "lm_head.weight"};
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "int8_weight_only");
    o.filter = on_filter;
    o.strict = 1;
    check_ok(tw_quantize_model(source, output, &o));
    expect(&s, "lm_head.weight", TW_OUTCOME_KEPT, "default", "the filter");
    expect(&s, "model.layers.0.q_proj.weight", TW_OUTCOME_QUANTIZED, "default", "");
}

/* SmolLM2's width: no layer is left in float, and the short group is told. */
static void short_groups(void **state) {
    (void)state;
    static const tw_safetensors_tensor wide[] = {{"a.weight", "F32", 2, {8, 576}},
                                                 {"b.weight", "F32", 2, {8, 512}}};
    static const char *const recipes[] = {
        "int4_weight_only", "int4_weight_only_hqq", "intx_weight_only,w=i4,g=128",
        "int8_dynamic_activation_int4_weight,g=128", "nf4_weight_only,g=128"};
    make(wide, 2);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = options(&s, recipes[i]);
        o.overwrite = o.strict = 1;
        check_ok(tw_quantize_model(source, output, &o));
        expect(&s, "a.weight", TW_OUTCOME_SHORT_GROUP, "default", "has 64 of 128 columns");
        expect(&s, "b.weight", TW_OUTCOME_QUANTIZED, "default", "");
        /* One group that is short of columns is short as well. */
        s = (seen){0};
        static const tw_safetensors_tensor narrow = {"c.weight", "F32", 2, {8, 64}};
        make(&narrow, 1);
        check_ok(tw_quantize_model(source, output, &o));
        expect(&s, "c.weight", TW_OUTCOME_SHORT_GROUP, "default", "has 64 of 128 columns");
        make(wide, 2);
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
    make(tensors, 3);
    tw_quantize_options o = options(&s, "int8_weight_only");
    o.overwrite = 1;
    check_ok(tw_quantize_model(source, output, &o));
    expect(&s, "a.experts.w1.weight", TW_OUTCOME_KEPT, "", words);
    o.strict = 1;
    check_fails(tw_quantize_model(source, output, &o), TW_INVALID, "'a.experts.w1.weight'");
    s = (seen){0};
    o.rules = &rule;
    o.rule_count = 1;
    check_ok(tw_quantize_model(source, output, &o));
    expect(&s, "a.experts.w1.weight", TW_OUTCOME_QUANTIZED, "a.experts.w1", "");
    expect(&s, "conv.weight", TW_OUTCOME_KEPT, "", words);
}

/* What a recipe or a form cannot do is kept with the reason; strict makes an error of it. */
static void obstacles(void **state) {
    (void)state;
    static const tw_safetensors_tensor odd[] = {{"a.weight", "F32", 2, {8, 48}},
                                                {"b.weight", "F32", 2, {8, 64}}};
    char gguf[96];
    snprintf(gguf, sizeof gguf, "%s/out.gguf", folder);
    static const struct {
        const char *recipe, *reason;
    } cases[] = {{"mx_weight_only", "K: 48, must be a multiple of 32"},
                 {"intx_weight_only,w=i4,g=32,s=f16", "blocks are of 32 columns"}};
    make(odd, 2);
    for (int i = 0; i < 2; i++) {
        const char *out = i ? gguf : output;
        seen s = {0};
        tw_quantize_options o = options(&s, cases[i].recipe);
        check_ok(tw_quantize_model(source, out, &o));
        expect(&s, "a.weight", TW_OUTCOME_KEPT, "default", cases[i].reason);
        expect(&s, "b.weight", TW_OUTCOME_QUANTIZED, "default", "");
        o.strict = o.overwrite = 1;
        check_fails(tw_quantize_model(source, out, &o), TW_INVALID, "'a.weight'");
        assert_non_null(strstr(tw_error_message(), cases[i].reason));
    }
    seen s = {0};
    tw_quantize_options o = options(&s, "hqq,g=32");
    o.overwrite = 1;
    check_fails(tw_quantize_model(source, gguf, &o), TW_INVALID, "nothing would be quantized");
    check_fails(tw_quantize_model(source, gguf, &o), TW_INVALID, "its scales are f16");
}

static void refusals(void **state) {
    (void)state;
    static const struct {
        tw_quantize_rule rule;
        const char *words;
    } cases[] = {
        {{"lm_haed", "none"}, "rule 'lm_haed': no tensor and no module"},
        {{"re:(", "none"}, "rule 're:('"},
        {{"lm_head", "int5_magic"}, "rule 'lm_head'"},
        {{"", "none"}, "pattern that is empty"},
        {{NULL, "none"}, "pattern that is empty"},
    };
    seen s = {0};
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "int8_weight_only");
    o.rule_count = 1;
    check_fails(tw_quantize_model(source, output, &o), TW_INVALID, "rule_count: 1");
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        o.rules = &cases[i].rule;
        check_fails(tw_quantize_model(source, output, &o), TW_INVALID, cases[i].words);
    }
    o = options(&s, "int5_magic");
    check_fails(tw_quantize_model(source, output, &o), TW_INVALID, "\"int5_magic\" is not known");
    o.recipe = "int8_weight_only";
    check_fails(tw_quantize_model(NULL, output, &o), TW_INVALID, "in: NULL");
    check_fails(tw_quantize_model(source, NULL, &o), TW_INVALID, "out: NULL");
    check_fails(tw_quantize_model(source, output, NULL), TW_INVALID, "options: NULL");
    check_fails(tw_quantize_model(source, "x.bin", &o), TW_INVALID, "expected NAME.gguf");
    o.form = (tw_form)17;
    check_fails(tw_quantize_model(source, output, &o), TW_INVALID, "form: 17");
    o.form = TW_FORM_BY_NAME;
    o.overwrite = 1;
    check_fails(tw_quantize_model(source, source, &o), TW_INVALID, "is what is read");
    check_fails(tw_quantize_model("no.safetensors", output, &o), TW_IO, "no.safetensors");
    check_fails(tw_quantize_model(source, "no/folder/x.safetensors", &o), TW_IO, "no/folder/x");
    o.overwrite = 0;
    check_ok(tw_quantize_model(source, output, &o));
    check_fails(tw_quantize_model(source, output, &o), TW_IO, "is there already");
    o.form = TW_FORM_COMPRESSED;
    check_fails(tw_quantize_model(source, folder, &o), TW_IO, "is there already");
}

/* ---- bits ------------------------------------------------------------------------------------ */

static tw_model *opened(const char *path) {
    tw_model *model = NULL;
    check_ok(tw_model_open(path, NULL, &model));
    return model;
}

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
    make(large, 2);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = options(&s, recipes[i]);
        o.overwrite = 1;
        tw_status status = tw_quantize_model(source, output, &o);
        if (status) fail_msg("%s: %s", recipes[i], tw_error_message());
        tw_model *in = opened(source), *out = opened(output);
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
    make(tensors, 1);
    for (size_t i = 0; i < TW_COUNT(recipes); i++) {
        seen s = {0};
        tw_quantize_options o = options(&s, recipes[i]);
        o.overwrite = 1;
        check_ok(tw_quantize_model(source, output, &o));
        tw_model *in = opened(source), *out = opened(output);
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
            tw_quantize_options o = options(&s, keep ? "none" : cases[i].recipe);
            o.report = NULL;
            o.overwrite = 1;
            check_ok(tw_quantize_model(cases[i].path, output, &o));
            tw_model *in = opened(cases[i].path), *out = opened(output);
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
    tw_model *in = opened(source), *out = opened(path);
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
    make(small, TW_COUNT(small));
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        char path[128];
        seen s = {0};
        tw_quantize_options o = options(&s, cases[i].recipe);
        o.form = cases[i].form;
        o.overwrite = 1;
        snprintf(path, sizeof path, "%s/%s", folder, cases[i].name);
        check_ok(tw_quantize_model(source, path, &o));
        forwards(path, "model.layers.0.q_proj.weight", cases[i].recipe, context);
        forwards(path, "model.layers.0.k_proj.weight", cases[i].recipe, context);
    }
    tw_context_destroy(context);
    fixture_teardown((void **)&f);
}

/* ---- whole or not at all --------------------------------------------------------------------- */

static int files(void) {
    DIR *dir = opendir(folder);
    int count = 0;
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

static void cancelled(void **state) {
    (void)state;
    make(small, TW_COUNT(small));
    for (tw_form form = TW_FORM_TILEWRIGHT; form <= TW_FORM_COMPRESSED; form++)
        for (int stop = 1; stop < 9; stop += 3) {
            seen s = {.stop_at = stop};
            tw_quantize_options o = options(&s, "intx_weight_only,w=i4,g=32,s=f16");
            o.form = form;
            check_fails(tw_quantize_model(source, output, &o), TW_CANCELLED, "cancelled at tensor");
            assert_int_equal(files(), 1);
        }
}

/* A signal that comes while the last piece is worked on. */
static void cancelled_at_the_end(void **state) {
    (void)state;
    seen s = {.stop_at_end = true};
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "int8_weight_only");
    check_fails(tw_quantize_model(source, output, &o), TW_CANCELLED, "nothing was written");
    assert_int_equal(files(), 1);
}

/* Neither a folder's own file nor a part of a split model is replaced by what is made of it. */
static void onto_its_source(void **state) {
    (void)state;
    char model[128];
    seen s = {0};
    make(small, TW_COUNT(small));
    snprintf(model, sizeof model, "%s/model.safetensors", folder);
    assert_int_equal(rename(source, model), 0);
    tw_quantize_options o = options(&s, "int8_weight_only");
    o.overwrite = 1;
    check_fails(tw_quantize_model(folder, model, &o), TW_INVALID, "is what is read");
    assert_int_equal(rename(model, source), 0);
    o.report = NULL;
    check_fails(tw_quantize_model(TW_TEST_DATA "/gguf/split-00001-of-00003.gguf",
                                  TW_TEST_DATA "/gguf/split-00002-of-00003.gguf", &o),
                TW_INVALID, "is what is read");
}

/* Quantized, but without an element: what is written reads back. */
static void empty_tensors(void **state) {
    (void)state;
    const tw_planned_tensor plan[] = {
        {.name = "a.weight", .ndim = 2, .shape = {0, 64}, .type = "Q8_0"},
        {.name = "b.weight", .ndim = 2, .shape = {1, 32}, .type = "F32"}};
    const float zeros[32] = {0};
    FILE *file = fopen(source, "wb");
    const tw_sink sink = {write_bytes, file};
    tw_model_writer *w = NULL;
    seen s = {0};
    assert_non_null(file);
    check_ok(tw_model_writer_create(TW_FORM_GGUF, &sink, plan, 2, NULL, &w));
    check_ok(tw_model_writer_add_data(w, zeros, 0));
    check_ok(tw_model_writer_add_data(w, zeros, sizeof zeros));
    check_ok(tw_model_writer_finish(w));
    fclose(file);
    tw_quantize_options o = options(&s, "int8_weight_only");
    check_ok(tw_quantize_model(source, output, &o));
    tw_model_close(opened(output));
}

static void full_disk(void **state) {
    (void)state;
    struct rlimit before, limit;
    make(small, TW_COUNT(small));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (tw_form form = TW_FORM_TILEWRIGHT; form <= TW_FORM_COMPRESSED; form++) {
        seen s = {0};
        tw_quantize_options o = options(&s, "intx_weight_only,w=i4,g=32,s=f16");
        o.form = form;
        check_fails(tw_quantize_model(source, output, &o), TW_IO, "large");
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(files(), 1);
}

static void bad_values(void **state) {
    (void)state;
    static const tw_safetensors_tensor tensors[] = {{"a.weight", "F32", 2, {3, 64}}};
    seen s = {0};
    make(tensors, 1);
    FILE *file = fopen(source, "r+b");
    const float nan_value = NAN;
    assert_non_null(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0);
    assert_int_equal(fwrite(&nan_value, 4, 1, file), 1);
    fclose(file);
    tw_quantize_options o = options(&s, "int8_weight_only");
    check_fails(tw_quantize_model(source, output, &o), TW_INVALID, "tensor 'a.weight'");
    assert_non_null(strstr(tw_error_message(), "nan at [2,63]"));
    assert_int_equal(files(), 1);
}

static void dry_run(void **state) {
    (void)state;
    seen s = {0};
    make(small, TW_COUNT(small));
    tw_quantize_options o = options(&s, "int8_weight_only");
    o.dry_run = 1;
    check_ok(tw_quantize_model(source, output, &o));
    assert_int_equal(s.count, TW_COUNT(small));
    assert_int_equal(files(), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(defaults),          TEST(precedence),    TEST(filters),
        TEST(short_groups),      TEST(obstacles),     TEST(refusals),
        TEST(blocks_of_rows),    TEST(whole_tensors), TEST(quantized_sources),
        TEST(save_load_forward), TEST(cancelled),     TEST(cancelled_at_the_end),
        TEST(onto_its_source),   TEST(empty_tensors), TEST(experts),
        TEST(full_disk),         TEST(bad_values),    TEST(dry_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
