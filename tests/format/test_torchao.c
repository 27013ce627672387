/* torchao's safetensors files, made here byte by byte: values worked out by hand, and all that may
 * be wrong with them.  Files of its own writer are compared by tests/cli/test_fixtures.py. */
#include <math.h>

#include "tests/format/builder.h"

/* What __metadata__ says of a weight; NULL: nothing, but it is in the list. */
static void about(builder *b, const char *name, const char *text) {
    json_array_append_new(b->names, json_string(name));
    if (text) json_object_set_new(b->metadata, name, json_string(text));
}

/* The file; names: in place of the list, NULL for the list itself. */
static tw_status open_built(builder *b, const char *names, tw_model **out) {
    static uint8_t bytes[1 << 14];
    char *list = json_dumps(b->names, 0);
    json_object_set_new(b->metadata, "tensor_names", json_string(names ? names : list));
    free(list);
    size_t size = build(b, bytes, sizeof bytes);
    return tw_model_open_bytes(bytes, size, TW_MODEL_SAFETENSORS, "memory", out);
}

#define INT4(block)                                                                                \
    "{\"_type\":\"Int4Tensor\",\"_data\":{\"block_size\":" block ",\"shape\":[2,4]}}"
#define INTX(target, block)                                                                        \
    "{\"_type\":\"IntxUnpackedToInt8Tensor\",\"_data\":{\"target_dtype\":{\"_type\":"              \
    "\"torch.dtype\",\"_data\":\"" target "\"},\"block_size\":" block                              \
    ",\"activation_quantization\":null},\"_tensor_data_names\":[\"qdata\",\"scale\","              \
    "\"zero_point\"]}"

/* Scales and zeros are [G,N], and added. */
static void int4(void **state) {
    (void)state;
    static const uint8_t codes[] = {0x81, 0xf7, 0x20, 0x4d};
    static const float scales[] = {0.5f, 2, 0.25f, 1}, zeros[] = {1, 0, 0, -1};
    static const float expected[] = {1.5f, -3, 1.75f, -0.25f, 0, 4, -4, 3};
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "a._weight_qdata", "I8", "[2,2]", codes, sizeof codes);
    put(&b, "a._weight_scale", "F32", "[2,2]", scales, sizeof scales);
    put(&b, "a._weight_zero_point", "F32", "[2,2]", zeros, sizeof zeros);
    about(&b, "a.weight", INT4("[1,2]"));
    assert_int_equal(open_built(&b, NULL, &model), TW_OK);
    assert_int_equal(tw_model_tensor_count(model), 1);
    assert_values(model, "a.weight", TW_I4, 2, 4, expected);
    tw_model_close(model);
}

/* Zero points beyond the codes' own bits widen the codes; whole ones may be floats. */
static void zero_points(void **state) {
    (void)state;
    static const int8_t codes[] = {-2, 1}, zero = 5;
    static const float scale = 0.5f, minus_one = -1;
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "a._weight_qdata", "I8", "[1,2]", codes, sizeof codes);
    put(&b, "a._weight_scale", "F32", "[1,1]", &scale, sizeof scale);
    put(&b, "a._weight_zero_point", "I8", "[1,1]", &zero, sizeof zero);
    put(&b, "b._weight_qdata", "I8", "[1,2]", codes, sizeof codes);
    put(&b, "b._weight_scale", "F32", "[1,1]", &scale, sizeof scale);
    put(&b, "b._weight_zero_point", "F32", "[1,1]", &minus_one, sizeof minus_one);
    about(&b, "a.weight", INTX("int2", "[1,2]"));
    about(&b, "b.weight", INTX("int2", "[1,2]"));
    assert_int_equal(open_built(&b, NULL, &model), TW_OK);
    assert_values(model, "a.weight", TW_U8, 1, 2, (float[]){-3.5f, -2});
    assert_values(model, "b.weight", TW_U2, 1, 2, (float[]){-0.5f, 1});
    tw_model_close(model);
}

/* A stack of matrices with a scale of scales each. */
static void nvfp4_stack(void **state) {
    (void)state;
    uint8_t codes[16];
    static const uint8_t scales[] = {0x38, 0x40}; /* 1, 2 */
    static const float globals[] = {0.5f, 3};
    float expected[32];
    builder b = begin();
    tw_model *model = NULL;
    memset(codes, 0x21, sizeof codes); /* 0.5, 1 */
    for (int i = 0; i < 32; i++) expected[i] = (i % 2 ? 1.0f : 0.5f) * (i < 16 ? 0.5f : 6.0f);
    put(&b, "e._up_qdata", "U8", "[2,1,8]", codes, sizeof codes);
    put(&b, "e._up_scale", "F8_E4M3", "[2,1,1]", scales, sizeof scales);
    put(&b, "e._up_per_tensor_scale", "F32", "[2,1,1]", globals, sizeof globals);
    about(&b, "e.up", "{\"_type\":\"NVFP4Tensor\",\"_data\":{\"block_size\":16}}");
    assert_int_equal(open_built(&b, NULL, &model), TW_OK);
    assert_values(model, "e.up", TW_E2M1, 2, 16, expected);
    tw_model_linears linears = linears_of(model);
    assert_int_equal(linears.count, 1);
    assert_int_equal(linears.items[0].count, 2);
    tw_model_linears_free(&linears);
    tw_model_close(model);
}

/* One scale of all may be a number; without a block size it is one of all. */
static void one_scale(void **state) {
    (void)state;
    static const char *const said[] = {
        "{\"_type\":\"Float8Tensor\",\"_data\":{\"block_size\":[2,2]}}",
        "{\"_type\":\"Float8Tensor\",\"_data\":{\"block_size\":[]}}",
        "{\"_type\":\"Float8Tensor\",\"_data\":{\"block_size\":null}}"};
    static const char *const shapes[] = {"[]", "[1]", "[1,1]"};
    static const uint8_t codes[] = {0x38, 0xb8, 0x40, 0x00}; /* 1, -1, 2, 0 */
    static const float scale = 3;
    for (size_t i = 0; i < TW_COUNT(said) * TW_COUNT(shapes); i++) {
        builder b = begin();
        tw_model *model = NULL;
        put(&b, "a._weight_qdata", "F8_E4M3", "[2,2]", codes, sizeof codes);
        put(&b, "a._weight_scale", "F32", shapes[i / 3], &scale, sizeof scale);
        about(&b, "a.weight", said[i % 3]);
        if (open_built(&b, NULL, &model)) fail_msg("%s", tw_error_message());
        assert_values(model, "a.weight", TW_E4M3, 2, 2, (float[]){3, -3, 6, 0});
        tw_model_close(model);
    }
}

/* A quantized embedding is looked up all the same; a plain tensor may be named like a part. */
static void what_is_no_linear(void **state) {
    (void)state;
    static const int8_t codes[] = {-2, 1};
    static const float scale = 0.5f;
    static const char text[] = "{\"_type\":\"Int8Tensor\",\"_data\":{\"block_size\":[1,2]}}";
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "model.embed_tokens._weight_qdata", "I8", "[1,2]", codes, sizeof codes);
    put(&b, "model.embed_tokens._weight_scale", "F32", "[1,1]", &scale, sizeof scale);
    put(&b, "lm_head._weight_qdata", "I8", "[1,2]", codes, sizeof codes);
    put(&b, "lm_head._weight_scale", "F32", "[1,1]", &scale, sizeof scale);
    put(&b, "logit_scale", "F32", "[]", &scale, sizeof scale);
    put(&b, "plain._of_scale", "F32", "[]", &scale, sizeof scale);
    about(&b, "model.embed_tokens.weight", text);
    about(&b, "lm_head.weight", text);
    about(&b, "logit_scale", "{\"_type\":\"Tensor\"}");
    about(&b, "plain._of_scale", "{\"_type\":\"Tensor\"}");
    assert_int_equal(open_built(&b, NULL, &model), TW_OK);
    assert_int_equal(tw_model_tensor_count(model), 4);
    tw_model_linears linears = linears_of(model);
    assert_int_equal(linears.count, 1);
    assert_string_equal(linears.items[0].names[0], "lm_head.weight");
    tw_model_linears_free(&linears);
    tw_model_close(model);
}

/* ---- what is wrong ---- */

enum { QDATA, SCALE, ZERO, PRE, PARTS };

typedef struct part {
    const char *suffix, *dtype, *shape;
    float values[8];
    size_t size;
} part;

/* [2,4] of int4 in groups of 2, and a factor of the inputs; one part may be another. */
static tw_status try_parts(const char *said, const char *names, int which, const part *other,
                           tw_model **out) {
    static const part good[PARTS] = {{"_qdata", "I8", "[2,4]", {0}, 8},
                                     {"_scale", "F32", "[2,2]", {1, 1, 1, 1}, 16},
                                     {"_zero_point", "F32", "[2,2]", {0}, 16},
                                     {"_act_pre_scale", "F32", "[1]", {1}, 4}};
    builder b = begin();
    for (int i = 0; i < PARTS; i++) {
        const part *p = i == which ? other : &good[i];
        char name[64];
        snprintf(name, sizeof name, "a._weight%s", p->suffix);
        if (*p->suffix) put(&b, name, p->dtype, p->shape, p->values, p->size);
    }
    about(&b, "a.weight", said);
    return open_built(&b, names, out);
}

static void expect(const char *what, tw_status status, tw_status expected, const char *words) {
    if (status != expected || !strstr(tw_error_message(), words))
        fail_msg("%s: %s '%s', expected %s and '%s'", what, tw_status_name(status),
                 status ? tw_error_message() : "", tw_status_name(expected), words);
    assert_null(strchr(tw_error_message(), '\n'));
}

#define GOOD INTX("int4", "[1,2]")

static void bad_parts(void **state) {
    (void)state;
    static const struct {
        int which;
        part other;
        tw_status status;
        const char *words;
    } rows[] = {
        {QDATA, {.suffix = ""}, TW_FORMAT, "'a._weight_qdata': missing"},
        {SCALE, {.suffix = ""}, TW_FORMAT, "'a._weight_scale': missing"},
        {ZERO, {.suffix = ""}, TW_FORMAT, "'a._weight_zero_point': missing"},
        {QDATA, {"_qdata", "U8", "[2,4]", {0}, 8}, TW_FORMAT, "U8 [2,4], expected I8"},
        {QDATA, {"_qdata", "I8", "[8]", {0}, 8}, TW_FORMAT, "I8 [8], expected I8 [*,*]"},
        {QDATA, {"_qdata", "I8", "[0,4]", {0}, 0}, TW_FORMAT, "I8 [0,4]"},
        {QDATA, {"_qdata", "I8", "[2,3]", {0}, 6}, TW_FORMAT, "block_size: 2 of dimension 1"},
        {SCALE, {"_scale", "F32", "[4,1]", {0}, 16}, TW_FORMAT, "F32 [4,1], expected"},
        {SCALE, {"_scale", "F32", "[2,1]", {0}, 8}, TW_FORMAT, "expected F32 F16 BF16 [2,2]"},
        {SCALE, {"_scale", "I32", "[2,2]", {0}, 16}, TW_FORMAT, "I32 [2,2], expected F32"},
        {ZERO, {"_zero_point", "I8", "[2,1]", {0}, 2}, TW_FORMAT, "I8 [2,1], expected"},
        {ZERO, {"_zero_point", "I32", "[2,2]", {0}, 16}, TW_FORMAT, "I32 [2,2], expected"},
        {ZERO, {"_zero_point", "F32", "[2,2]", {0, 0.5f}, 16}, TW_UNSUPPORTED, "whole numbers"},
        {ZERO, {"_zero_point", "F32", "[2,2]", {0, 128}, 16}, TW_UNSUPPORTED, "whole numbers"},
        {ZERO, {"_zero_point", "F32", "[2,2]", {0, NAN}, 16}, TW_UNSUPPORTED, "whole numbers"},
        {PRE, {"_act_pre_scale", "F32", "[2]", {1, 2}, 8}, TW_UNSUPPORTED, "act_pre_scale"},
        {PRE, {"_act_pre_scale", "I32", "[1]", {1}, 4}, TW_UNSUPPORTED, "act_pre_scale"},
    };
    tw_model *model = NULL;
    assert_int_equal(try_parts(GOOD, NULL, -1, NULL, &model), TW_OK);
    tw_model_close(model);
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        expect(rows[i].words, try_parts(GOOD, NULL, rows[i].which, &rows[i].other, &model),
               rows[i].status, rows[i].words);
}

/* What is wrong with the description. */
static void bad_metadata(void **state) {
    (void)state;
#define FLOAT8 "{\"_type\":\"Float8Tensor\",\"_data\":{\"block_size\":"
#define MX(rest) "{\"_type\":\"MXTensor\",\"_data\":{\"block_size\":2" rest "}}"
    static const struct {
        const char *said, *names;
        tw_status status;
        const char *words;
    } rows[] = {
        {"{", NULL, TW_FORMAT, "__metadata__: 'a.weight': line 1"},
        {"[]", NULL, TW_FORMAT, "not an object"},
        {"{}", NULL, TW_FORMAT, "'a.weight': _type: expected a string"},
        {"{\"_type\":3}", NULL, TW_FORMAT, "_type"},
        {"{\"_type\":\"IntxUnpackedToInt8Tensor\"}", NULL, TW_FORMAT, "_data: expected an object"},
        {NULL, NULL, TW_FORMAT, "'a.weight': __metadata__: not described"},
        {GOOD, "a.weight", TW_FORMAT, "tensor_names: expected a JSON list"},
        {GOOD, "{}", TW_FORMAT, "tensor_names: expected a JSON list"},
        {GOOD, "[\"a.weight\",1]", TW_FORMAT, "tensor_names: expected a JSON list"},
        {GOOD, "[\"b.weight\"]", TW_FORMAT, "'a.weight': __metadata__: not described"},
        {"{\"_type\":\"Int4TilePackedTo4dTensor\",\"_data\":{}}", NULL, TW_UNSUPPORTED,
         "Int4TilePackedTo4dTensor is not read (its codes may lie as one device's kernel wants "
         "them); read are Float8Tensor, Int8Tensor"},
        {"{\"_type\":\"Int4PlainInt32Tensor\",\"_data\":{}}", NULL, TW_UNSUPPORTED,
         "Int4PlainInt32Tensor"},
        {"{\"_type\":\"Nonsense\\n\",\"_data\":{}}", NULL, TW_UNSUPPORTED, "class Nonsense\\x0a"},
        {INTX("int9", "[1,2]"), NULL, TW_FORMAT, "target_dtype: expected int1 to int8"},
        {INTX("uint4", "[1,2]"), NULL, TW_FORMAT, "target_dtype"},
        {INTX("int4", "[1,3]"), NULL, TW_FORMAT, "block_size: 3 of dimension 1, must divide its 4"},
        {INTX("int4", "[3,2]"), NULL, TW_FORMAT, "block_size: 3 of dimension 0, must divide its 2"},
        {INTX("int4", "[1,0]"), NULL, TW_FORMAT, "block_size: 0"},
        {INTX("int4", "[1,-2]"), NULL, TW_FORMAT, "block_size: -2"},
        {INTX("int4", "[1]"), NULL, TW_FORMAT, "block_size: expected a size for each dimension"},
        {INTX("int4", "[1,\"2\"]"), NULL, TW_FORMAT, "block_size: 0"},
        {INTX("int4", "\"x\""), NULL, TW_FORMAT, "F32 [2,2], expected"},
        {INT4("[2,2]"), NULL, TW_UNSUPPORTED, "blocks of several rows"},
        {FLOAT8 "[1,2]}}", NULL, TW_FORMAT, "I8 [2,4], expected F8_E4M3 F8_E5M2"},
        {MX(""), NULL, TW_UNSUPPORTED, "elem_dtype"},
        {MX(",\"elem_dtype\":\"fp6_e3m2\""), NULL, TW_FORMAT, "expected U8"},
        {MX(",\"elem_dtype\":\"fp6_e3m2\",\"is_swizzled_scales\":1"), NULL, TW_FORMAT,
         "is_swizzled_scales: expected true or false"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_model *model = NULL;
        expect(rows[i].said ? rows[i].said : "none",
               try_parts(rows[i].said, rows[i].names, -1, NULL, &model), rows[i].status,
               rows[i].words);
    }
}

/* Swizzled scales fill whole tiles of 128 rows and 4 groups. */
static void bad_tiles(void **state) {
    (void)state;
    static const uint8_t bytes[508] = {0};
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "a._weight_qdata", "U8", "[2,2]", bytes, 4);
    put(&b, "a._weight_scale", "F8_E8M0", "[127,4]", bytes, 508);
    about(&b, "a.weight", MX(",\"elem_dtype\":\"fp6_e3m2\",\"is_swizzled_scales\":true"));
    expect("tiles", open_built(&b, NULL, &model), TW_FORMAT, "508 swizzled scales, expected 512");
}

/* Blocks of rows have no place in classes whose scales are of a row each. */
static void bad_blocks(void **state) {
    (void)state;
    static const uint8_t codes[16], scale[] = {0x38};
    static const float globals[] = {1, 2};
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "e._up_qdata", "U8", "[2,1,8]", codes, sizeof codes);
    put(&b, "e._up_scale", "F8_E4M3", "[1,1,1]", scale, sizeof scale);
    put(&b, "e._up_per_tensor_scale", "F32", "[2,1,1]", globals, sizeof globals);
    about(&b, "e.up", "{\"_type\":\"NVFP4Tensor\",\"_data\":{\"block_size\":[2,1,16]}}");
    expect("blocks", open_built(&b, NULL, &model), TW_UNSUPPORTED, "blocks of several rows");
}

/* Found when it is read: no file is read through to be opened. */
static void code_out_of_range(void **state) {
    (void)state;
    static const part wide = {"_qdata", "I8", "[2,4]", {0, 1e-38f}, 8};
    tw_model *model = NULL;
    tw_canonical_tensor t;
    assert_int_equal(try_parts(GOOD, NULL, QDATA, &wide, &model), TW_OK);
    expect("code", tw_model_read(model, tw_model_find(model, "a.weight"), &t), TW_FORMAT,
           "tensor 'a.weight': row 1, column 0:");
    assert_non_null(strstr(tw_error_message(), "is no code of i4"));
    tw_model_close(model);
}

/* Somebody else's list of names is none of ours. */
static void without_metadata(void **state) {
    (void)state;
    static const float value = 1;
    builder b = begin();
    tw_model *model = NULL;
    put(&b, "a.weight", "F32", "[1,1]", &value, sizeof value);
    assert_int_equal(open_built(&b, "no JSON", &model), TW_OK);
    assert_int_equal(tw_model_tensor_count(model), 1);
    tw_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int4),
        cmocka_unit_test(zero_points),
        cmocka_unit_test(nvfp4_stack),
        cmocka_unit_test(what_is_no_linear),
        cmocka_unit_test(bad_parts),
        cmocka_unit_test(bad_metadata),
        cmocka_unit_test(bad_tiles),
        cmocka_unit_test(bad_blocks),
        cmocka_unit_test(one_scale),
        cmocka_unit_test(code_out_of_range),
        cmocka_unit_test(without_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
