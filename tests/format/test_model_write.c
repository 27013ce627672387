/* Writers: what they write reads back in every bit, real files give their own bytes again, and what
 * a form cannot hold exactly is refused. */
#define _GNU_SOURCE
#include "src/format/model_write.h"

#include <jansson.h>

#include "src/core/dtype.h"
#include "tests/core/random.h"
#include "tests/format/format_test.h"

/* A file in memory. */
typedef struct memory {
    uint8_t *bytes;
    size_t size, room;
} memory;

static tw_status write_memory(void *user, const void *bytes, size_t size) {
    memory *m = user;
    if (m->size + size > m->room) {
        m->room = 2 * (m->size + size);
        uint8_t *grown = realloc(m->bytes, m->room);
        assert_non_null(grown);
        m->bytes = grown;
    }
    memcpy(m->bytes + m->size, bytes, size);
    m->size += size;
    return TW_OK;
}

static tw_model *reopened(const memory *m, tw_model_kind kind) {
    tw_model *model = NULL;
    if (tw_model_open_bytes(m->bytes, m->size, kind, "memory", &model))
        fail_msg("%s", tw_error_message());
    return model;
}

/* ---- tensors that are made up ---- */

static void fill_floats(void *data, tw_dtype dtype, size_t bytes, uint64_t *seed) {
    int64_t count = (int64_t)bytes * 8 / tw_dtype_bits(dtype);
    for (int64_t i = 0; i < count && dtype == TW_F16I8; i++) ((tw_pair *)data)[i].factor = 0x3400;
    for (int64_t i = 0; i < count; i++)
        tw_float_set(data, dtype, i, dtype == TW_E8M0 ? 0.5f : (float)(random_bits(seed) % 15) - 7);
}

static void *room(size_t bytes) {
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, bytes ? bytes : 1), 0);
    memset(p, 0, bytes);
    return p;
}

/* As tw_canonical_tensor_free() frees it. */
static tw_canonical_tensor made(const tw_planned_tensor *t, uint64_t seed) {
    tw_canonical_tensor c = {.scheme = t->scheme, .N = 1, .K = t->shape[t->ndim - 1]};
    const tw_scheme *s = &c.scheme;
    for (int32_t i = 0; i + 1 < t->ndim; i++) c.N *= t->shape[i];
    size_t row = tw_dtype_row_bytes(s->weight, c.K);
    c.weight_bytes = (size_t)c.N * row;
    c.weight = room(c.weight_bytes);
    if (tw_scheme_plain(s)) {
        fill_floats(c.weight, s->weight, c.weight_bytes, &seed);
        return c;
    }
    uint8_t *codes = room((size_t)c.K);
    for (int64_t n = 0; n < c.N; n++) {
        for (int64_t k = 0; k < c.K; k++)
            codes[k] = (uint8_t)(random_bits(&seed) & ((1u << tw_dtype_bits(s->weight)) - 1));
        tw_codes_set((char *)c.weight + (size_t)n * row, s->weight, 0, c.K, codes);
    }
    free(codes);
    size_t count = (size_t)(tw_scale_rows(s, c.N) * tw_groups(s, c.K));
    c.scale_bytes = count * (size_t)tw_dtype_bits(s->scale) / 8;
    c.scales = room(c.scale_bytes);
    fill_floats(c.scales, s->scale, c.scale_bytes, &seed);
    if (s->zero_mode) {
        c.zero_bytes = count * (size_t)tw_dtype_bits(tw_zero_dtype(s)) / 8;
        c.zeros = room(c.zero_bytes);
        uint8_t *zeros = c.zeros;
        if (s->zero_mode == TW_ZERO_VALUE)
            fill_floats(c.zeros, s->scale, c.zero_bytes, &seed);
        else
            for (size_t i = 0; i < count; i++)
                zeros[i] = (uint8_t)(random_bits(&seed) & ((1u << tw_dtype_bits(s->weight)) - 1));
    }
    if (s->weight == TW_LUT4) {
        assert_int_equal(tw_canonical_tensor_add_lut(&c), TW_OK);
        for (int i = 0; i < TW_LUT4_SIZE; i++) c.lut[i] = (float)i * 0.3f - 2;
    }
    if (t->ordered) {
        assert_int_equal(tw_canonical_tensor_add_order(&c), TW_OK);
        for (int64_t k = 0; k < c.K; k++) c.order[k] = (int32_t)(c.K - 1 - k);
    }
    return c;
}

static void assert_same(const tw_canonical_tensor *a, const tw_canonical_tensor *b) {
    assert_int_equal(a->N, b->N);
    assert_int_equal(a->K, b->K);
    assert_int_equal(a->weight_bytes, b->weight_bytes);
    assert_int_equal(a->scale_bytes, b->scale_bytes);
    assert_int_equal(a->zero_bytes, b->zero_bytes);
    assert_memory_equal(a->weight, b->weight, a->weight_bytes);
    if (a->scale_bytes) assert_memory_equal(a->scales, b->scales, a->scale_bytes);
    if (a->zero_bytes) assert_memory_equal(a->zeros, b->zeros, a->zero_bytes);
    assert_int_equal(!a->lut, !b->lut);
    assert_int_equal(!a->order, !b->order);
    if (a->lut) assert_memory_equal(a->lut, b->lut, TW_LUT4_SIZE * sizeof *a->lut);
    if (a->order) assert_memory_equal(a->order, b->order, (size_t)a->K * sizeof *a->order);
}

static tw_planned_tensor planned(const char *name, const char *scheme, int64_t N, int64_t K) {
    tw_planned_tensor t = {.name = name, .ndim = 2, .shape = {N, K}, .linear = true};
    if (strncmp(scheme, "w=", 2) != 0)
        t.type = scheme;
    else if (tw_scheme_parse(scheme, &t.scheme))
        fail_msg("%s", tw_error_message());
    return t;
}

/* Writes the plan, made up or, for types that go through, of these bytes. */
static memory written(tw_form form, const tw_planned_tensor *plan, int32_t count,
                      const tw_model *source, const void *data, size_t size) {
    memory m = {0};
    const tw_sink sink = {write_memory, &m};
    tw_model_writer *w = NULL;
    if (tw_model_writer_create(form, &sink, plan, count, source, &w))
        fail_msg("%s", tw_error_message());
    for (int32_t i = 0; i < count; i++) {
        if (plan[i].type) {
            assert_int_equal(tw_model_writer_add_data(w, data, size), TW_OK);
            continue;
        }
        tw_canonical_tensor t = made(&plan[i], (uint64_t)i + 1);
        if (tw_model_writer_add(w, &t)) fail_msg("%s", tw_error_message());
        tw_canonical_tensor_free(&t);
    }
    if (tw_model_writer_finish(w)) fail_msg("%s", tw_error_message());
    return m;
}

/* Every scheme whose form keeps its layout of groups: reads back the same. */
static void assert_round_trip(tw_form form, const tw_planned_tensor *plan, int32_t count) {
    static const int64_t whole[] = {1, -2, INT64_MAX};
    memory m = written(form, plan, count, NULL, whole, sizeof whole);
    tw_model *model = reopened(&m, form == TW_FORM_GGUF ? TW_MODEL_GGUF : TW_MODEL_SAFETENSORS);
    assert_int_equal(tw_model_tensor_count(model), count);
    for (int32_t i = 0; i < count; i++) {
        int32_t at = tw_model_find(model, plan[i].name);
        const tw_model_tensor *t = tw_model_tensor_at(model, at);
        if (!t) fail_msg("%s: is lost", plan[i].name);
        assert_int_equal(t->ndim, plan[i].ndim);
        assert_memory_equal(t->shape, plan[i].shape, sizeof(int64_t) * (size_t)t->ndim);
        if (plan[i].type) {
            assert_string_equal(t->type, plan[i].type);
            assert_memory_equal(tw_model_data(model, at), whole, sizeof whole);
            continue;
        }
        assert_int_equal(t->is_linear, plan[i].linear);
        tw_canonical_tensor expected = made(&plan[i], (uint64_t)i + 1), got;
        if (tw_model_read(model, at, &got)) fail_msg("%s", tw_error_message());
        assert_same(&got, &expected);
        tw_canonical_tensor_free(&got);
        tw_canonical_tensor_free(&expected);
    }
    tw_model_close(model);
    free(m.bytes);
}

static const char *const every_kind[] = {
    "w=f32",
    "w=f16",
    "w=bf16",
    "w=u4,g=32,s=f16,z=value,a=i8g32",
    "w=i4,g=32,s=f32",
    "w=u4,g=32,s=f16i8,z=value",
    "w=u3,g=40,s=bf16,z=code",
    "w=i8,g=channel,s=f32,a=i8z",
    "w=i1,g=16,s=e8m0",
    "w=e4m3,g=16x32,s=f32",
    "w=e2m1,g=16,s=e4m3",
    "w=e3m2,g=tensor,s=f16",
    "w=u7,g=7,s=f32,z=value",
    "w=lut4,g=64,s=bf16",
    "w=e5m2,g=channel,s=f32,a=i8full",
    "w=u8,g=tensor,s=f32,z=code",
};

static void own_form(void **state) {
    (void)state;
    enum { KINDS = TW_COUNT(every_kind) };
    char names[KINDS][32];
    tw_planned_tensor plan[KINDS + 3];
    for (int i = 0; i < KINDS; i++) {
        snprintf(names[i], sizeof names[i], "layers.%d.weight", i);
        plan[i] = planned(names[i], every_kind[i], 19, 77);
        plan[i].ordered = i % 3 == 1 && i > 2;
    }
    /* Neither a linear, nor one by its name; experts; what goes through. */
    plan[1].linear = plan[4].linear = false;
    plan[KINDS] = planned("experts", every_kind[3], 0, 0);
    plan[KINDS].ndim = 3;
    memcpy(plan[KINDS].shape, (int64_t[]){2, 5, 96}, 3 * sizeof(int64_t));
    plan[KINDS + 1] = planned("position_ids", "I64", 1, 3);
    plan[KINDS + 2] = planned("a.codes", "w=f32", 2, 3);
    assert_round_trip(TW_FORM_TILEWRIGHT, plan, TW_COUNT(plan));
}

static void gguf_keeps(void **state) {
    (void)state;
    const tw_planned_tensor plan[] = {
        planned("blk.0.a.weight", "w=i4,g=32,s=f16,a=i8g32", 3, 96),
        planned("blk.0.b.weight", "w=u4,g=32,s=f16,z=value,a=i8g32", 3, 64),
        planned("blk.0.c.weight", "w=i5,g=32,s=f16,a=i8g32", 3, 32),
        planned("blk.0.d.weight", "w=u5,g=32,s=f16,z=value,a=i8g32", 3, 32),
        planned("blk.0.e.weight", "w=i8,g=32,s=f16,a=i8g32", 3, 32),
        planned("blk.0.f.weight", "w=f32", 3, 31),
        planned("blk.0.g.weight", "w=bf16", 3, 31),
        planned("ids", "I64", 1, 3),
    };
    assert_round_trip(TW_FORM_GGUF, plan, TW_COUNT(plan));
}

/* Narrower codes and wider groups mean the same in a wider type of narrower groups. */
static void gguf_widens(void **state) {
    (void)state;
    static const char *const schemes[] = {
        "w=i2,g=64,s=f16",         "w=u3,g=channel,s=f16",    "w=u4,g=32,s=f16",
        "w=i6,g=tensor,s=f16",     "w=u2,g=96,s=f16,z=value", "w=u7,g=4x32,s=f16",
        "w=u1,g=32,s=f16,z=value",
    };
    static const char *const types[] = {"Q4_0", "Q4_0", "Q5_0", "Q8_0", "Q4_1", "Q8_0", "Q4_1"};
    for (size_t i = 0; i < TW_COUNT(schemes); i++) {
        tw_planned_tensor t = planned("x.weight", schemes[i], 5, 96);
        memory m = written(TW_FORM_GGUF, &t, 1, NULL, NULL, 0);
        tw_model *model = reopened(&m, TW_MODEL_GGUF);
        tw_canonical_tensor source = made(&t, 1), read;
        assert_string_equal(tw_model_tensor_at(model, 0)->type, types[i]);
        assert_int_equal(tw_model_read(model, 0, &read), TW_OK);
        for (int64_t n = 0; n < 5; n++) {
            float a[96], b[96];
            tw_canonical_tensor_row(&source, n, a);
            tw_canonical_tensor_row(&read, n, b);
            for (int k = 0; k < 96; k++)
                if (a[k] != b[k]) fail_msg("%s: [%d,%d]", schemes[i], (int)n, k);
        }
        tw_canonical_tensor_free(&source);
        tw_canonical_tensor_free(&read);
        tw_model_close(model);
        free(m.bytes);
    }
}

static void compressed_keeps(void **state) {
    (void)state;
    const tw_planned_tensor plan[] = {
        planned("a.weight", "w=i4,g=32,s=f16", 9, 77),
        planned("b.weight", "w=u3,g=40,s=bf16,z=code", 9, 77),
        planned("c.weight", "w=u8,g=channel,s=f32,z=code", 3, 7),
        planned("d.weight", "w=bf16", 3, 7),
    };
    memory m = written(TW_FORM_COMPRESSED, plan, TW_COUNT(plan), NULL, NULL, 0);
    char *config = NULL;
    assert_int_equal(tw_compressed_config(plan, TW_COUNT(plan), &config), TW_OK);
    json_t *root = json_loads(config, 0, NULL);
    assert_int_equal(json_object_size(json_object_get(root, "config_groups")), 3);
    assert_int_equal(json_array_size(json_object_get(root, "ignore")), 1);
    json_decref(root);
    free(config);
    free(m.bytes);
}

/* ---- real files ---- */

static void assert_same_file(const tw_model *a, const tw_model *b) {
    for (int32_t i = 0; i < tw_model_tensor_count(a); i++) {
        const tw_model_tensor *t = tw_model_tensor_at(a, i);
        int32_t at = tw_model_find(b, t->name);
        const tw_model_tensor *u = tw_model_tensor_at(b, at);
        if (!u) fail_msg("%s: is lost", t->name);
        assert_string_equal(t->type, u->type);
        assert_int_equal(t->bytes, u->bytes);
        if (memcmp(tw_model_data(a, i), tw_model_data(b, at), t->bytes) != 0)
            fail_msg("%s: other bytes", t->name);
    }
    assert_int_equal(tw_model_tensor_count(a), tw_model_tensor_count(b));
}

/* Whether writing the type's scheme gives the type again. */
static bool comes_back(tw_form form, const char *type) {
    static const char *const blocks[] = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"};
    for (size_t i = 0; form == TW_FORM_GGUF && i < TW_COUNT(blocks); i++)
        if (!strcmp(type, blocks[i])) return true;
    return form != TW_FORM_GGUF || !strcmp(type, "F32") || !strcmp(type, "F16");
}

/* Each tensor by its scheme where the form holds that, else as the bytes it is. */
static memory rewritten(tw_form form, const tw_model *model, int32_t *by_scheme) {
    int32_t count = tw_model_tensor_count(model);
    tw_planned_tensor *plan = calloc((size_t)count + 1, sizeof *plan);
    memory m = {0};
    const tw_sink sink = {write_memory, &m};
    tw_model_writer *w = NULL;
    *by_scheme = 0;
    for (int32_t i = 0; i < count; i++) {
        const tw_model_tensor *t = tw_model_tensor_at(model, i);
        tw_canonical_tensor c;
        plan[i] = (tw_planned_tensor){.name = t->name, .ndim = t->ndim, .scheme = t->scheme};
        memcpy(plan[i].shape, t->shape, sizeof plan[i].shape);
        if (t->scheme.weight && !tw_model_read(model, i, &c)) {
            plan[i].ordered = c.order != NULL;
            tw_canonical_tensor_free(&c);
        }
        if (!comes_back(form, t->type) || !t->scheme.weight || tw_form_check(form, &plan[i]))
            plan[i].type = t->type;
        *by_scheme += !plan[i].type && !tw_scheme_plain(&t->scheme);
    }
    if (tw_model_writer_create(form, &sink, plan, count, model, &w))
        fail_msg("%s", tw_error_message());
    for (int32_t i = 0; i < count; i++) {
        tw_canonical_tensor c = {0};
        tw_status status = plan[i].type
                               ? tw_model_writer_add_data(w, tw_model_data(model, i),
                                                          tw_model_tensor_at(model, i)->bytes)
                               : tw_model_read(model, i, &c);
        if (!plan[i].type && !status) status = tw_model_writer_add(w, &c);
        if (status) fail_msg("%s", tw_error_message());
        tw_canonical_tensor_free(&c);
    }
    assert_int_equal(tw_model_writer_finish(w), TW_OK);
    free(plan);
    return m;
}

static void gguf_again(void **state) {
    (void)state;
    static const struct {
        const char *path;
        bool types;
    } files[] = {{DATA("gguf/legacy.gguf"), true},
                 {DATA("gguf/real_quant.gguf"), false},
                 {DATA("gguf/iq.gguf"), false}};
    for (size_t i = 0; i < TW_COUNT(files); i++) {
        tw_model *model = opened(files[i].path);
        int32_t by_scheme;
        memory m = rewritten(TW_FORM_GGUF, model, &by_scheme);
        tw_model *again = reopened(&m, TW_MODEL_GGUF);
        assert_same_file(model, again);
        if (files[i].types) assert_true(by_scheme >= 5);
        assert_string_equal(tw_model_architecture(model), tw_model_architecture(again));
        /* All keys went along: a second copy is the first. */
        memory twice = rewritten(TW_FORM_GGUF, again, &by_scheme);
        assert_int_equal(twice.size, m.size);
        assert_memory_equal(twice.bytes, m.bytes, m.size);
        tw_model_close(again);
        tw_model_close(model);
        free(twice.bytes);
        free(m.bytes);
    }
}

/* The writers' own files, tensor by tensor in every bit. */
static void compressed_again(void **state) {
    (void)state;
    static const char *const cases[] = {
        "pack_int3_g32_sym",   "pack_int4_channel_asym_odd", "pack_int4_channel_odd",
        "pack_int4_g128_asym", "pack_int4_g32_asym_bf16",    "pack_int4_g32_sym",
        "pack_int8_g32_sym",   "old_pack_int4_g32_actorder",
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        char path[200];
        int32_t by_scheme;
        snprintf(path, sizeof path, DATA("compressed_tensors/%s"), cases[i]);
        tw_model *model = opened(path);
        memory m = rewritten(TW_FORM_COMPRESSED, model, &by_scheme);
        assert_int_equal(by_scheme, 2);
        tw_model *again = reopened(&m, TW_MODEL_SAFETENSORS);
        /* Without a config.json both list the parts. */
        snprintf(path, sizeof path, DATA("compressed_tensors/%s/model.safetensors"), cases[i]);
        static uint8_t file[1 << 20];
        size_t size = load(path, file, sizeof file);
        memory whole = {file, size, size};
        tw_model *parts = reopened(&whole, TW_MODEL_SAFETENSORS);
        assert_same_file(parts, again);
        tw_model_close(parts);
        tw_model_close(again);
        tw_model_close(model);
        free(m.bytes);
    }
}

/* ---- version 1 for ever ---- */

static const tw_planned_tensor *version1(int32_t *count) {
    static tw_planned_tensor plan[6];
    *count = TW_COUNT(plan);
    plan[0] = planned("a.weight", "w=u4,g=32,s=f16,z=value,a=i8g32", 3, 77);
    plan[1] = planned("b.weight", "w=u3,g=40,s=bf16,z=code", 5, 77);
    plan[1].ordered = true;
    plan[2] = planned("c.weight", "w=lut4,g=64,s=f32", 2, 70);
    plan[3] = planned("d.weight", "w=e4m3,g=2x16,s=f32", 4, 33);
    plan[4] = planned("norm.weight", "w=bf16", 1, 9);
    plan[4].linear = false;
    plan[5] = planned("ids", "I64", 1, 3);
    plan[5].linear = false;
    return plan;
}

static void fixture(void **state) {
    (void)state;
    static const int64_t whole[] = {1, -2, INT64_MAX};
    static const char path[] = DATA("tilewright/version1.safetensors");
    static uint8_t file[1 << 16];
    int32_t count;
    const tw_planned_tensor *plan = version1(&count);
    memory m = written(TW_FORM_TILEWRIGHT, plan, count, NULL, whole, sizeof whole);
    if (getenv("TW_UPDATE_FIXTURE")) {
        FILE *out = open_file(path, "wb");
        assert_int_equal(fwrite(m.bytes, 1, m.size, out), m.size);
        assert_int_equal(fclose(out), 0);
    }
    size_t size = load(path, file, sizeof file);
    assert_int_equal(size, m.size);
    assert_memory_equal(file, m.bytes, size);
    free(m.bytes);
    assert_round_trip(TW_FORM_TILEWRIGHT, plan, count);
}

/* ---- what is wrong ---- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        tw_form form;
        const char *scheme;
        int64_t K;
        bool ordered;
        const char *words;
    } cases[] = {
        {TW_FORM_GGUF, "w=u4,g=32,s=f32,z=value", 64, false, "its scales are f16"},
        {TW_FORM_GGUF, "w=u4,g=32,s=f16,z=code", 64, false, "zeros that are codes"},
        {TW_FORM_GGUF, "w=i4,g=32,s=f16,z=value", 64, false, "none of its types"},
        {TW_FORM_GGUF, "w=u8,g=32,s=f16", 64, false, "none of its types"},
        {TW_FORM_GGUF, "w=u6,g=32,s=f16,z=value", 64, false, "none of its types"},
        {TW_FORM_GGUF, "w=i4,g=48,s=f16", 96, false, "32 columns"},
        {TW_FORM_GGUF, "w=i4,g=32,s=f16", 65, false, "32 columns"},
        {TW_FORM_GGUF, "w=i4,g=32,s=f16", 64, true, "order of columns"},
        {TW_FORM_GGUF, "w=i4,g=32,s=f16,a=i8z", 64, false, "quantize by i8g32"},
        {TW_FORM_GGUF, "w=e4m3,g=32,s=f16", 64, false, "integers"},
        {TW_FORM_GGUF, "U8", 64, false, "no element type U8"},
        {TW_FORM_COMPRESSED, "w=i4,g=32,s=f16,a=i8", 64, false, "a=i8full and a=i8z"},
        {TW_FORM_COMPRESSED, "w=u4,g=32,s=f16", 64, false, "signed codes"},
        {TW_FORM_COMPRESSED, "w=i1,g=32,s=f16", 64, false, "2 to 8 bits"},
        {TW_FORM_COMPRESSED, "w=u4,g=32,s=f16,z=value", 64, false, "zeros are codes"},
        {TW_FORM_COMPRESSED, "w=i4,g=tensor,s=f16", 64, false, "a channel or a group"},
        {TW_FORM_COMPRESSED, "w=i4,g=channel,s=f16", 64, true, "orders columns"},
        {TW_FORM_COMPRESSED, "w=i4,g=32,s=e8m0", 64, false, "scales are"},
        {TW_FORM_COMPRESSED, "w=lut4,g=32,s=f16", 64, false, "integers"},
        {TW_FORM_COMPRESSED, "Q4_0", 64, false, "no element type Q4_0"},
        {TW_FORM_TILEWRIGHT, "Q4_0", 64, false, "no element type Q4_0"},
    };
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        tw_planned_tensor t = planned("some.weight", cases[i].scheme, 3, cases[i].K);
        t.ordered = cases[i].ordered;
        assert_int_equal(tw_form_check(cases[i].form, &t), TW_UNSUPPORTED);
        if (!strstr(tw_error_message(), cases[i].words) ||
            !strstr(tw_error_message(), "'some.weight'"))
            fail_msg("%s: %s", cases[i].scheme, tw_error_message());
    }
    tw_planned_tensor t = planned("a", "w=i4,g=32,s=f16", 3, 64);
    assert_int_equal(tw_form_check(TW_FORM_COMPRESSED, &t), TW_UNSUPPORTED);
    t.shape[0] = INT64_MAX / 2;
    assert_int_equal(tw_form_check(TW_FORM_TILEWRIGHT, &t), TW_INVALID);
    assert_int_equal(tw_form_check((tw_form)9, &t), TW_INVALID);
    assert_null(tw_form_name((tw_form)9));
    assert_null(tw_form_name(TW_FORM_BY_NAME));
}

/* Neither another tensor than planned, nor one too few or too many. */
static void unlike_the_plan(void **state) {
    (void)state;
    for (tw_form form = TW_FORM_TILEWRIGHT; tw_form_name(form); form++) {
        const tw_planned_tensor plan[] = {planned("a.weight", "w=i4,g=32,s=f16", 3, 64)};
        const tw_planned_tensor other = planned("a.weight", "w=i8,g=32,s=f16", 3, 64),
                                longer = planned("a.weight", "w=i4,g=32,s=f16", 3, 96);
        memory m = {0};
        const tw_sink sink = {write_memory, &m};
        tw_model_writer *w = NULL;
        tw_canonical_tensor a = made(&plan[0], 1), b = made(&other, 1), c = made(&longer, 1);
        assert_int_equal(tw_model_writer_create(form, &sink, plan, 1, NULL, &w), TW_OK);
        assert_int_equal(tw_model_writer_add(w, &b), TW_INVALID);
        assert_int_equal(tw_model_writer_add(w, &c), TW_INVALID);
        assert_int_equal(tw_model_writer_add_data(w, "", 1), TW_INVALID);
        assert_int_equal(tw_model_writer_add(w, &a), TW_OK);
        assert_int_equal(tw_model_writer_add(w, &a), TW_INVALID);
        assert_int_equal(tw_model_writer_finish(w), TW_OK);
        assert_int_equal(tw_model_writer_create(form, &sink, plan, 1, NULL, &w), TW_OK);
        assert_int_equal(tw_model_writer_finish(w), TW_INVALID);
        assert_true(strstr(tw_error_message(), "a.weight") != NULL);
        const tw_planned_tensor twice[] = {plan[0], plan[0]};
        assert_int_equal(tw_model_writer_create(form, &sink, twice, 2, NULL, &w), TW_INVALID);
        tw_model_writer_discard(NULL);
        tw_canonical_tensor_free(&a);
        tw_canonical_tensor_free(&b);
        tw_canonical_tensor_free(&c);
        free(m.bytes);
    }
}

/* One text of the file's header replaced by another of the same length. */
static void own_form_damaged(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *words;
    } cases[] = {
        {"version\":\"1\"", "version\":\"2\"", "this version reads 1"},
        {"tilewright.tensors", "tilewright.tensorz", "no tilewright.tensors"},
        {"b.weight.codes", "b.weight.kodes", "'b.weight': there is no such tensor"},
        {"b.weight.scales", "b.weight.skales", "'b.weight.scales': missing"},
        {"b.weight.zeros", "b.weight.zeroz", "'b.weight.zeros': missing"},
        {"c.weight.lut", "c.weight.lud", "'c.weight.lut': missing"},
        {"z=code", "z=cede", "'b.weight': scheme: z"},
        {"w=u3,g=40", "w=u3,g=10", "'b.weight.scales'"},
        {"[5,77]", "[9,77]", "'b.weight.codes'"},
        {"[5,77]", "[0,77]", "shape: expected sizes"},
        {"\\\"linear\\\":true", "\\\"linear\\\":1111", "linear"},
    };
    static uint8_t file[1 << 16];
    for (size_t i = 0; i < TW_COUNT(cases); i++) {
        size_t size = load(DATA("tilewright/version1.safetensors"), file, sizeof file);
        assert_int_equal(strlen(cases[i].from), strlen(cases[i].to));
        uint8_t *at = memmem(file, size, cases[i].from, strlen(cases[i].from));
        if (!at) fail_msg("%s: not in the file", cases[i].from);
        memcpy(at, cases[i].to, strlen(cases[i].to));
        tw_model *model = NULL;
        if (!tw_model_open_bytes(file, size, TW_MODEL_ANY, "memory", &model) ||
            !strstr(tw_error_message(), cases[i].words))
            fail_msg("%s: %s, expected %s", cases[i].to, model ? "opened" : tw_error_message(),
                     cases[i].words);
    }
    /* An order that is none. */
    size_t size = load(DATA("tilewright/version1.safetensors"), file, sizeof file);
    const int32_t first[] = {76, 75, 74}, wrong[] = {76, 76, 74};
    uint8_t *at = memmem(file, size, first, sizeof first);
    assert_non_null(at);
    memcpy(at, wrong, sizeof wrong);
    tw_model *model = NULL;
    assert_int_equal(tw_model_open_bytes(file, size, TW_MODEL_ANY, "memory", &model), TW_FORMAT);
    assert_true(strstr(tw_error_message(), "order[1]: 76, is there already") != NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_form),        cmocka_unit_test(gguf_keeps),
        cmocka_unit_test(gguf_widens),     cmocka_unit_test(compressed_keeps),
        cmocka_unit_test(gguf_again),      cmocka_unit_test(compressed_again),
        cmocka_unit_test(fixture),         cmocka_unit_test(refusals),
        cmocka_unit_test(unlike_the_plan), cmocka_unit_test(own_form_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
