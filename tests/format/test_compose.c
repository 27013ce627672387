/* Quantized checkpoints of other projects: what each form becomes, and that no part of one can be
 * missing, misshapen or of another type without an error that names it.  Their values are compared
 * by tests/cli/test_fixtures.py. */
#include <jansson.h>
#include <unistd.h>

#include "tests/format/format_test.h"

static void becomes(const char *folder, const char *const *linears) {
    tw_model *model = opened(folder);
    assert_linears(model, linears);
    tw_model_close(model);
}

static void schemes(void **state) {
    (void)state;
#define ONE(folder, text)                                                                          \
    becomes(DATA(folder), (const char *const[]){"1 x N=32,K=96,x=f32," text,                       \
                                                "1 x N=32,K=128,x=f32," text, NULL});
    ONE("gptq/v1_4bit_g32_sym", "w=i4,g=32,s=f16,z=none,a=none,y=f32,bias=none,act=none GPTQ")
    ONE("gptq/v1_4bit_g32_asym", "w=u4,g=32,s=f16,z=code,a=none,y=f32,bias=f16,act=none GPTQ")
    ONE("gptq/v1_3bit_g32_sym_desc_act",
        "w=i3,g=32,s=f16,z=none,a=none,y=f32,bias=none,act=none GPTQ")
    ONE("sharded/gptq_2_shards", "w=u4,g=32,s=f16,z=code,a=none,y=f32,bias=f16,act=none GPTQ")
    ONE("awq/gemm_g32", "w=u4,g=32,s=f16,z=code,a=none,y=f32,bias=none,act=none AWQ")
    ONE("awq/gemv_g32", "w=u4,g=32,s=f16,z=code,a=none,y=f32,bias=none,act=none AWQ")
    ONE("compressed_tensors/pack_int4_g32_asym_bf16",
        "w=u4,g=32,s=bf16,z=code,a=none,y=f32,bias=none,act=none CT-packed")
    ONE("compressed_tensors/old_pack_int3_g32_sym",
        "w=i3,g=32,s=bf16,z=none,a=none,y=f32,bias=none,act=none CT-packed")
    ONE("compressed_tensors/int8_channel_w8a8",
        "w=i8,g=channel,s=bf16,z=none,a=i8full,y=f32,bias=none,act=none CT-int")
    ONE("compressed_tensors/fp8_tensor",
        "w=e4m3,g=tensor,s=bf16,z=none,a=none,y=f32,bias=none,act=none F8_E4M3")
    ONE("compressed_tensors/nvfp4",
        "w=e2m1,g=16,s=f32,z=none,a=none,y=f32,bias=none,act=none NVFP4")
    ONE("compressed_tensors/mxfp4",
        "w=e2m1,g=32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none MXFP4")
    ONE("compressed_tensors/mxfp8",
        "w=e4m3,g=32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none MXFP8")
#undef ONE
    becomes(
        DATA("awq/gemv_fast_g128"),
        (const char *const[]){
            "1 x N=32,K=256,x=f32,w=u4,g=128,s=f16,z=value,a=none,y=f32,bias=none,act=none AWQ",
            "1 x N=32,K=128,x=f32,w=u4,g=channel,s=f16,z=value,a=none,y=f32,bias=none,act=none AWQ",
            NULL});
    becomes(DATA("hf_fp8/block_ue8m0_scale"),
            (const char *const[]){
                "1 x N=64,K=32,x=f32,w=e4m3,g=16x32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none "
                "F8_E4M3",
                "1 x N=32,K=64,x=f32,w=e4m3,g=16x32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none "
                "F8_E4M3",
                NULL});
    becomes(DATA("torchao_safetensors/sharded"),
            (const char *const[]){
                "1 x N=24,K=96,x=f32,w=e4m3,g=channel,s=f32,z=none,a=none,y=f32,bias=none,act=none "
                "F8_E4M3",
                "1 x N=24,K=96,x=f32,w=i4,g=32,s=bf16,z=none,a=none,y=f32,bias=bf16,act=none "
                "AO-intx",
                NULL});
    becomes(
        DATA("torchao_safetensors/int8"),
        (const char *const[]){
            "1 x N=24,K=96,x=f32,w=u8,g=32,s=f32,z=code,a=none,y=f32,bias=none,act=none AO-int8",
            "1 x N=24,K=96,x=f32,w=u8,g=channel,s=f32,z=code,a=none,y=f32,bias=none,act=none "
            "AO-int8",
            "1 x N=24,K=96,x=f32,w=i8,g=channel,s=f32,z=none,a=i8full,y=f32,bias=none,act=none "
            "AO-int8",
            "1 x N=24,K=96,x=f32,w=i8,g=channel,s=f32,z=none,a=none,y=f32,bias=bf16,act=none "
            "AO-int8",
            "1 x N=24,K=96,x=f32,w=i8,g=tensor,s=f32,z=none,a=none,y=f32,bias=none,act=none "
            "AO-int8",
            NULL});
    becomes(
        DATA("gpt_oss_mxfp4/experts"),
        (const char *const[]){
            "2 x N=8,K=64,x=f32,w=e2m1,g=32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none MXFP4",
            "2 x N=16,K=96,x=f32,w=e2m1,g=32,s=e8m0,z=none,a=none,y=f32,bias=none,act=none MXFP4",
            NULL});
}

/* Columns go where the model has them. */
static void activation_order(void **state) {
    (void)state;
    tw_model *model = opened(DATA("gptq/v2_4bit_g32_asym_desc_act"));
    int32_t at = tw_model_find(model, "model.layers.0.self_attn.q_proj.weight");
    tw_canonical_tensor t;
    assert_int_equal(tw_model_read(model, at, &t), TW_OK);
    assert_non_null(t.order);
    float row[128], stored[128];
    tw_problem problem = tw_canonical_problem(&t);
    tw_canonical view = tw_canonical_view(&t);
    tw_dequantize_row(&problem, &view, 5, stored);
    tw_canonical_tensor_row(&t, 5, row);
    bool moved = false;
    for (int k = 0; k < 128; k++) {
        assert_true(row[t.order[k]] == stored[k]);
        moved = moved || t.order[k] != k;
    }
    assert_true(moved);
    tw_canonical_tensor_free(&t);
    assert_null(tw_model_data(model, at));
    tw_model_close(model);
}

/* ---- what is wrong ---- */

typedef struct checkpoint {
    char folder[32];
    json_t *config, *header;
    char data[1 << 17];
    size_t data_size;
} checkpoint;

static void load_checkpoint(checkpoint *c, const char *folder) {
    static char bytes[1 << 18];
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    c->config = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    size_t size = load(path, bytes, sizeof bytes);
    uint64_t length;
    memcpy(&length, bytes, sizeof length);
    c->header = json_loadb(bytes + 8, length, 0, NULL);
    assert_true(c->config && c->header);
    c->data_size = size - 8 - length;
    assert_true(c->data_size <= sizeof c->data);
    memcpy(c->data, bytes + 8 + length, c->data_size);
    strcpy(c->folder, "format-compose-XXXXXX");
    assert_non_null(mkdtemp(c->folder));
}

static char *data_of(checkpoint *c, const char *name) {
    json_t *offsets = json_object_get(json_object_get(c->header, name), "data_offsets");
    assert_non_null(offsets);
    return c->data + json_integer_value(json_array_get(offsets, 0));
}

static void remove_checkpoint(checkpoint *c) {
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[160];
    for (size_t i = 0; i < TW_COUNT(names); i++) {
        snprintf(path, sizeof path, "%s/%s", c->folder, names[i]);
        unlink(path);
    }
    rmdir(c->folder);
    json_decref(c->config);
    json_decref(c->header);
}

static void save_checkpoint(const checkpoint *c) {
    static char bytes[1 << 18];
    char *config = json_dumps(c->config, 0), *header = json_dumps(c->header, 0);
    uint64_t length = strlen(header);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, c->data, c->data_size);
    save(c->folder, "config.json", config, strlen(config));
    save(c->folder, "model.safetensors", bytes, 8 + length + c->data_size);
    free(config);
    free(header);
}

/* Opens what was changed and reads all of it.  TW_OK, or why not. */
static tw_status try_checkpoint(const checkpoint *c) {
    save_checkpoint(c);
    tw_model *model = NULL;
    tw_status status = tw_model_open(c->folder, NULL, &model);
    for (int32_t i = 0; !status && i < tw_model_tensor_count(model); i++) {
        if (!tw_model_tensor_at(model, i)->scheme.weight) continue;
        size_t count;
        free(dequantized(model, i, &count));
    }
    tw_model_close(model);
    if (status) assert_null(strchr(tw_error_message(), '\n'));
    return status;
}

static const char *const folders[] = {
    DATA("gptq/v1_4bit_g32_asym"),
    DATA("gptq/v2_4bit_g32_asym_desc_act"),
    DATA("gptq/v1_3bit_g32_sym_desc_act"),
    DATA("awq/gemm_g32"),
    DATA("awq/gemv_g32"),
    DATA("awq/gemv_fast_g128"),
    DATA("compressed_tensors/pack_int4_g128_asym"),
    DATA("compressed_tensors/pack_int4_channel_asym_odd"),
    DATA("compressed_tensors/old_pack_int4_g32_actorder"),
    DATA("compressed_tensors/int8_channel_asym"),
    DATA("compressed_tensors/fp8_block"),
    DATA("compressed_tensors/nvfp4"),
    DATA("compressed_tensors/mxfp4"),
    DATA("hf_fp8/block_f32_scale"),
    DATA("gpt_oss_mxfp4/experts"),
    DATA("torchao_safetensors/float8"),
    DATA("torchao_safetensors/int8"),
    DATA("torchao_safetensors/intx"),
    DATA("torchao_safetensors/int4"),
    DATA("torchao_safetensors/mx"),
    DATA("torchao_safetensors/nvfp4"),
    DATA("torchao_safetensors/names_0_14"),
};

/* Types of as many bytes. */
static const char *other_type(const char *type) {
    static const char *const pairs[][2] = {{"I32", "F32"},    {"F32", "I32"},     {"F16", "I16"},
                                           {"BF16", "I16"},   {"I16", "F16"},     {"U8", "BOOL"},
                                           {"I8", "BOOL"},    {"F8_E4M3", "U8"},  {"I64", "F64"},
                                           {"F8_E5M2", "U8"}, {"F8_E8M0", "BOOL"}};
    for (size_t i = 0; i < TW_COUNT(pairs); i++)
        if (!strcmp(pairs[i][0], type)) return pairs[i][1];
    return type;
}

enum { RENAMED, RETYPED, TURNED, FLAT, CHANGES };

/* One tensor's record, changed. */
static void change(json_t *header, const char *name, int how) {
    json_t *record = json_object_get(header, name), *shape = json_object_get(record, "shape");
    size_t ndim = json_array_size(shape);
    json_int_t count = 1;
    char other[256];
    for (size_t i = 0; i < ndim; i++) count *= json_integer_value(json_array_get(shape, i));
    switch (how) {
    case RENAMED:
        snprintf(other, sizeof other, "%s_", name);
        json_object_set(header, other, record);
        json_object_del(header, name);
        break;
    case RETYPED:
        json_object_set_new(
            record, "dtype",
            json_string(other_type(json_string_value(json_object_get(record, "dtype")))));
        break;
    case TURNED: {
        json_t *turned = json_array();
        for (size_t i = ndim; i-- > 0;) json_array_append(turned, json_array_get(shape, i));
        json_object_set_new(record, "shape", turned);
        break;
    }
    default: json_object_set_new(record, "shape", json_pack("[I]", count));
    }
}

/* Biases, input scales and what is no linear stand for themselves. */
static bool may_be_missing(const char *name) {
    static const char *const ends[] = {".bias", ".input_scale", ".g_idx", ".weight_g_idx"};
    for (size_t i = 0; i < TW_COUNT(ends); i++)
        if (strstr(name, ends[i])) return true;
    return !strstr(name, "_proj");
}

static void changed_tensors(void **state) {
    (void)state;
    int tried = 0, refused_count = 0;
    for (size_t i = 0; i < TW_COUNT(folders); i++) {
        checkpoint c;
        load_checkpoint(&c, folders[i]);
        assert_int_equal(try_checkpoint(&c), TW_OK);
        json_t *good = json_deep_copy(c.header), *value;
        const char *name;
        json_object_foreach(good, name, value) {
            for (int how = 0; how < CHANGES && strcmp(name, "__metadata__") != 0; how++) {
                json_decref(c.header);
                c.header = json_deep_copy(good);
                change(c.header, name, how);
                tried++;
                tw_status status = try_checkpoint(&c);
                refused_count += status != TW_OK;
                bool must = how == RETYPED || how == RENAMED;
                /* Without its marker a weight's other parts are tensors like any. */
                bool marker = strstr(name, ".qweight") || strstr(name, "weight_scale") ||
                              strstr(name, "_blocks");
                if (must && !may_be_missing(name) && !(how == RENAMED && marker) && !status)
                    fail_msg("%s: %s, change %d: opens", folders[i], name, how);
            }
        }
        json_decref(good);
        remove_checkpoint(&c);
    }
    assert_true(tried > 300 && refused_count > tried / 2);
}

/* An order that the configuration speaks of, but nobody knows. */
static void missing_order(void **state) {
    (void)state;
    static const struct {
        const char *folder, *name;
    } rows[] = {{DATA("gptq/v2_4bit_g32_asym_desc_act"), "model.layers.0.self_attn.q_proj.g_idx"},
                {DATA("compressed_tensors/old_pack_int4_g32_actorder"),
                 "model.layers.0.self_attn.q_proj.weight_g_idx"}};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        checkpoint c;
        load_checkpoint(&c, rows[i].folder);
        change(c.header, rows[i].name, RENAMED);
        assert_int_equal(try_checkpoint(&c), TW_FORMAT);
        assert_non_null(strstr(tw_error_message(), "g_idx': missing"));
        remove_checkpoint(&c);
    }
}

/* g_idx beyond the groups. */
static void bad_order(void **state) {
    (void)state;
    static const char name[] = "model.layers.0.self_attn.q_proj.g_idx";
    checkpoint c;
    load_checkpoint(&c, DATA("gptq/v2_4bit_g32_asym_desc_act"));
    char *at = data_of(&c, name);
    int32_t values[] = {4, -1, INT32_MAX};
    for (size_t i = 0; i < TW_COUNT(values); i++) {
        memcpy(at, &values[i], 4);
        assert_int_equal(try_checkpoint(&c), TW_FORMAT);
        assert_non_null(strstr(tw_error_message(), "column 0 is of group"));
    }
    remove_checkpoint(&c);
}

enum { WIDTH = 128, VALUES = 32 * WIDTH };

/* q_proj's weight in the model's order of columns; its dtype. */
static tw_dtype read_q_proj(const checkpoint *c, float *values) {
    save_checkpoint(c);
    tw_model *model = opened(c->folder);
    tw_canonical_tensor t;
    int32_t at = tw_model_find(model, "model.layers.0.self_attn.q_proj.weight");
    assert_int_equal(tw_model_read(model, at, &t), TW_OK);
    assert_int_equal(t.N * t.K, VALUES);
    for (int64_t n = 0; n < t.N; n++) tw_canonical_tensor_row(&t, n, values + n * t.K);
    tw_dtype weight = t.scheme.weight;
    tw_canonical_tensor_free(&t);
    tw_model_close(model);
    return weight;
}

/* Groups of other sizes are read as f32: all columns but the one that changed its group stay. */
static void uneven_groups(void **state) {
    (void)state;
    static const struct {
        const char *folder, *g_idx;
        tw_dtype weight;
    } rows[] = {
        {DATA("gptq/v2_4bit_g32_asym_desc_act"), "model.layers.0.self_attn.q_proj.g_idx", TW_U4},
        {DATA("compressed_tensors/old_pack_int4_g32_actorder"),
         "model.layers.0.self_attn.q_proj.weight_g_idx", TW_I4}};
    static float before[VALUES], after[VALUES];
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        checkpoint c;
        load_checkpoint(&c, rows[i].folder);
        char *first = data_of(&c, rows[i].g_idx);
        assert_int_equal(read_q_proj(&c, before), rows[i].weight);
        int32_t group;
        memcpy(&group, first, sizeof group);
        group = (group + 1) % 4;
        memcpy(first, &group, sizeof group);
        assert_int_equal(read_q_proj(&c, after), TW_F32);
        int changed = 0;
        for (int v = 0; v < VALUES; v++) {
            changed += before[v] != after[v];
            assert_true(before[v] == after[v] || v % WIDTH == 0);
        }
        assert_true(changed > 16);
        remove_checkpoint(&c);
    }
}

/* A NaN of every type of scale, and of a value zero. */
static void scales_not_finite(void **state) {
    (void)state;
    static const struct {
        const char *folder, *name;
    } rows[] = {
        {DATA("gptq/v1_4bit_g32_asym"), "model.layers.0.self_attn.q_proj.scales"},
        {DATA("awq/gemv_fast_g128"), "model.layers.0.self_attn.q_proj.qzeros"},
        {DATA("compressed_tensors/nvfp4"), "model.layers.0.self_attn.q_proj.weight_scale"},
        {DATA("compressed_tensors/mxfp4"), "model.layers.0.self_attn.q_proj.weight_scale"},
        {DATA("compressed_tensors/fp8_block"), "model.layers.0.self_attn.q_proj.weight_scale"}};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        checkpoint c;
        load_checkpoint(&c, rows[i].folder);
        memset(data_of(&c, rows[i].name), 0xff, 4);
        save_checkpoint(&c);
        tw_model *model = opened(c.folder);
        tw_canonical_tensor t;
        int32_t at = tw_model_find(model, "model.layers.0.self_attn.q_proj.weight");
        assert_int_equal(tw_model_read(model, at, &t), TW_FORMAT);
        assert_non_null(strstr(tw_error_message(), "q_proj.weight': "));
        assert_non_null(strstr(tw_error_message(), "row 0, group 0: must be finite"));
        tw_model_close(model);
        remove_checkpoint(&c);
    }
}

/* No bytes, but dimensions whose products leave 64 bits. */
static void empty_parts(void **state) {
    (void)state;
    const json_int_t huge = (json_int_t)1 << 61;
    for (size_t i = 0; i < TW_COUNT(folders); i++) {
        checkpoint c;
        load_checkpoint(&c, folders[i]);
        json_t *good = json_deep_copy(c.header), *value;
        const char *name;
        json_object_foreach(good, name, value) {
            size_t ndim = json_array_size(json_object_get(value, "shape"));
            if (!strstr(name, "_proj") || ndim < 2) continue;
            for (size_t zero = 0; zero < ndim; zero++) {
                json_decref(c.header);
                c.header = json_deep_copy(good);
                json_t *record = json_object_get(c.header, name), *shape = json_array();
                for (size_t d = 0; d < ndim; d++)
                    json_array_append_new(shape, json_integer(d == zero ? 0 : huge));
                json_object_set_new(record, "shape", shape);
                json_t *offsets = json_incref(json_object_get(record, "data_offsets"));
                json_t *begin = json_array_get(offsets, 0);
                json_int_t size =
                    json_integer_value(json_array_get(offsets, 1)) - json_integer_value(begin);
                json_object_set_new(record, "data_offsets", json_pack("[OO]", begin, begin));
                json_object_set_new(c.header, "its_data",
                                    json_pack("{s:s,s:[I],s:o}", "dtype", "U8", "shape", size,
                                              "data_offsets", offsets));
                assert_int_equal(try_checkpoint(&c), TW_FORMAT);
            }
        }
        json_decref(good);
        remove_checkpoint(&c);
    }
}

/* Values of quantization_config that do not fit the tensors, or are not known. */
static void changed_configs(void **state) {
    (void)state;
    static const struct {
        const char *folder, *key, *value; /* JSON */
        tw_status status;
        const char *words;
    } rows[] = {
        {DATA("gptq/v1_4bit_g32_asym"), "bits", "3", TW_FORMAT, "expected I32"},
        {DATA("gptq/v1_4bit_g32_asym"), "bits", "5", TW_UNSUPPORTED, "bits: 5"},
        {DATA("gptq/v1_4bit_g32_asym"), "bits", "\"4\"", TW_FORMAT, "bits"},
        {DATA("gptq/v1_4bit_g32_asym"), "group_size", "48", TW_FORMAT, "expected I32"},
        {DATA("gptq/v1_4bit_g32_asym"), "group_size", "0", TW_FORMAT, "group_size"},
        {DATA("gptq/v1_4bit_g32_asym"), "checkpoint_format", "\"marlin\"", TW_UNSUPPORTED,
         "marlin"},
        {DATA("gptq/v1_4bit_g32_asym"), "dynamic", "{\"a\":1}", TW_UNSUPPORTED, "dynamic"},
        {DATA("awq/gemm_g32"), "version", "\"exllama\"", TW_UNSUPPORTED, "version 'exllama'"},
        {DATA("awq/gemm_g32"), "version", "\"gemv\"", TW_FORMAT, "expected"},
        {DATA("awq/gemm_g32"), "zero_point", "false", TW_UNSUPPORTED, "without zero points"},
        {DATA("awq/gemm_g32"), "bits", "8", TW_FORMAT, "bits"},
        {DATA("awq/gemm_g32"), "group_size", "36", TW_FORMAT, "must be a multiple of 36"},
        {DATA("hf_fp8/block_f32_scale"), "weight_block_size", "[0,3]", TW_FORMAT, "two sizes"},
        {DATA("hf_fp8/block_f32_scale"), "weight_block_size", "[16,16]", TW_FORMAT, "expected"},
        {DATA("compressed_tensors/mxfp4"), "config_groups",
         "{\"a\":{\"weights\":{\"num_bits\":4,\"type\":\"posit\"}}}", TW_UNSUPPORTED,
         "type: 'posit'"},
        {DATA("compressed_tensors/mxfp4"), "config_groups", "{}", TW_UNSUPPORTED, "config_groups"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        checkpoint c;
        load_checkpoint(&c, rows[i].folder);
        json_t *q = json_object_get(c.config, "quantization_config");
        json_object_set_new(q, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        tw_status status = try_checkpoint(&c);
        if (status != rows[i].status || !strstr(tw_error_message(), rows[i].words))
            fail_msg("%s: %s %s: %s '%s'", rows[i].folder, rows[i].key, rows[i].value,
                     tw_status_name(status), status ? tw_error_message() : "");
        remove_checkpoint(&c);
    }
}

/* Listed, but nobody knows what its tensors mean. */
static void unknown_method(void **state) {
    (void)state;
    checkpoint c;
    tw_model_linears linears;
    load_checkpoint(&c, DATA("awq/gemm_g32"));
    json_t *q = json_object_get(c.config, "quantization_config");
    json_object_set_new(q, "quant_method", json_string("quip"));
    assert_int_equal(try_checkpoint(&c), TW_OK);
    tw_model *model = opened(c.folder);
    assert_int_equal(tw_model_linears_get(model, &linears), TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "quant_method 'quip'"));
    tw_model_close(model);
    remove_checkpoint(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemes),           cmocka_unit_test(activation_order),
        cmocka_unit_test(changed_tensors),   cmocka_unit_test(bad_order),
        cmocka_unit_test(missing_order),     cmocka_unit_test(changed_configs),
        cmocka_unit_test(unknown_method),    cmocka_unit_test(uneven_groups),
        cmocka_unit_test(scales_not_finite), cmocka_unit_test(empty_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
