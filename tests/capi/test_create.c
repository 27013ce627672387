/* Creating layers: what is refused, with which sentence, and that weights come back bit for bit. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/capi/fixture.h"

static const char grouped[] = "N=70,K=80,w=u4,g=32,s=f16,z=value,bias=f32";

typedef struct world {
    fixture *f;
    tw_context *context;
    layer l;
} world;

static world open_world(void **state, const char *problem) {
    world w = {.f = *state};
    w.context = open_context(w.f);
    layer_init(&w.l, problem, 11);
    return w;
}

static void close_world(world *w) {
    layer_free(&w->l);
    tw_context_destroy(w->context);
}

/* Creation fails, and *out stays as it was. */
#define refuse(w, status, part)                                                                    \
    do {                                                                                           \
        tw_linear *made = NULL;                                                                    \
        check_fails(try_linear(&(w).l, (w).context, &made), status, part);                         \
        assert_null(made);                                                                         \
    } while (0)

/* ---- recovering the canonical tensors ---- */

static void check_same(const tw_tensor *got, const tw_tensor *put) {
    assert_int_equal(got->dtype, put->dtype);
    if (put->dtype == TW_NONE) return;
    assert_int_equal(got->ndim, 2);
    assert_memory_equal(got->shape, put->shape, sizeof put->shape);
    assert_memory_equal(got->data, put->data, tensor_bytes(put));
}

static void check_recovered(const layer *l, const tw_linear *linear) {
    tw_tensor w = {0}, s = {0}, z = {0};
    /* Without data it tells what to allocate. */
    check_ok(tw_linear_weights(linear, &w, &s, &z));
    tw_tensor *all[] = {&w, &s, &z};
    for (size_t i = 0; i < TW_COUNT(all); i++) all[i]->data = malloc(tensor_bytes(all[i]) + 1);
    check_ok(tw_linear_weights(linear, &w, &s, &z));
    check_same(&w, &l->weight);
    check_same(&s, &l->scales);
    check_same(&z, &l->zeros);
    for (size_t i = 0; i < TW_COUNT(all); i++) free(all[i]->data);
}

static void check_round_trip(fixture *f, const char *problem) {
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, problem, 17);
    tw_linear *linear = make_linear(&l, context);
    check_recovered(&l, linear);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

static void weights_come_back(void **state) {
    static const char *const problems[] = {
        "N=70,K=80,w=u4,g=32,s=f16,z=value",
        "N=65,K=77,w=u3,g=16,s=f32,z=code,a=i8",
        "N=1,K=1,w=i1,g=tensor,s=bf16",
        "N=130,K=200,w=i5,g=128,s=f16,a=i8",
        "N=64,K=256,w=i8,s=f32,a=i8z",
        "N=33,K=65,w=u7,g=64,s=bf16,z=value",
        "N=20,K=31,w=f16",
        "N=20,K=31,w=bf16,x=bf16",
        "N=96,K=96,w=i4,g=32x32,s=f32",
        "N=40,K=64,w=e4m3,g=channel,s=f32",
        "N=40,K=64,w=e2m1,g=32,s=e8m0",
        "N=70,K=600,w=u4,g=32,s=f16i8,z=value,a=i8g256",
        "N=70,K=600,w=i6,g=16,s=f16i8,a=i8g256",
        "N=9,K=100,w=u3,g=2x8,s=f16i8,z=value",
        "N=9,K=500,w=u3,g=256,s=f16i8,z=code",
        "N=5,K=7,w=f32",
    };
    fixture *f = *state;
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        f->options.mode = TW_MODE_DEFAULT;
        check_round_trip(f, problems[i]);
        f->options.mode = TW_MODE_REFERENCE;
        check_round_trip(f, problems[i]);
    }
}

static void weights_arguments(void **state) {
    world w = open_world(state, grouped);
    tw_linear *linear = make_linear(&w.l, w.context);
    char buffer[16];
    tw_tensor scales = {.data = buffer + 1};
    check_fails(tw_linear_weights(linear, NULL, &scales, NULL), TW_INVALID, "scales: data");
    assert_int_equal(scales.dtype, TW_NONE);
    check_fails(tw_linear_weights(NULL, NULL, NULL, NULL), TW_INVALID, "linear: NULL");
    check_ok(tw_linear_weights(linear, NULL, NULL, NULL));
    tw_linear_destroy(linear);
    close_world(&w);
}

/* ---- what is refused ---- */

static void null_arguments(void **state) {
    world w = open_world(state, grouped);
    tw_linear *linear = NULL;
    check_fails(try_linear(&w.l, NULL, &linear), TW_INVALID, "context: NULL");
    check_fails(try_linear(&w.l, w.context, NULL), TW_INVALID, "out: NULL");
    check_fails(tw_linear_create(w.context, NULL, &w.l.weight, NULL, NULL, NULL, &linear),
                TW_INVALID, "desc: NULL");
    check_fails(
        tw_linear_create(w.context, &w.l.desc, NULL, &w.l.scales, &w.l.zeros, NULL, &linear),
        TW_INVALID, "weight: NULL");
    check_fails(
        tw_linear_create(w.context, &w.l.desc, &w.l.weight, NULL, &w.l.zeros, NULL, &linear),
        TW_INVALID, "scales: NULL, expected [70,3] of f16");
    check_fails(
        tw_linear_create(w.context, &w.l.desc, &w.l.weight, &w.l.scales, NULL, NULL, &linear),
        TW_INVALID, "zeros: NULL");
    w.l.desc.scheme.zero_mode = TW_ZERO_NONE;
    refuse(w, TW_INVALID, "zeros: given");
    assert_null(linear);
    close_world(&w);
}

static void descriptions(void **state) {
    world w = open_world(state, grouped);
    const tw_linear_desc good = w.l.desc;
#define TRY(field, value, status, part)                                                            \
    w.l.desc = good;                                                                               \
    w.l.desc.field = value;                                                                        \
    refuse(w, status, part);
    TRY(struct_size, 0, TW_INVALID, "desc: struct_size 0")
    TRY(N, 0, TW_INVALID, "N: 0")
    TRY(K, -4, TW_INVALID, "K: -4")
    TRY(K, (int64_t)1 << 40, TW_INVALID, "K: 1099511627776")
    TRY(K, 81, TW_INVALID, "weight: 2 dimensions of shape [70,80], expected [70,81]")
    TRY(x, TW_U8, TW_INVALID, "x: u8")
    TRY(y, (tw_dtype)90, TW_INVALID, "y: ?")
    TRY(act, (tw_act)9, TW_INVALID, "act: 9")
    TRY(scheme.weight, TW_NONE, TW_INVALID, "w: none")
    TRY(scheme.weight, TW_LUT4, TW_INVALID, "z: value, w=lut4 has no zeros")
    TRY(lut, (const float[TW_LUT4_SIZE]){0}, TW_INVALID, "desc: lut: given, but w is")
    TRY(scheme.scale, TW_I4, TW_INVALID, "s: i4")
    TRY(scheme.scale, TW_F32, TW_INVALID, "scales: dtype f16, expected f32")
    TRY(scheme.zero_mode, (tw_zero_mode)5, TW_INVALID, "z: 5")
    TRY(scheme.zero_mode, TW_ZERO_CODE, TW_INVALID, "zeros: dtype f16, expected u8")
    TRY(scheme.group_k, -1, TW_INVALID, "g: -1")
    TRY(scheme.group_k, 16, TW_INVALID, "scales: 2 dimensions of shape [70,3], expected [70,5]")
    TRY(scheme.act_quant, (tw_act_quant)99, TW_INVALID, "a: 99")
    TRY(scheme.act_quant, TW_ACTQ_I8_STATIC, TW_INVALID, "act_scale: 0, a=i8s needs a positive")
    TRY(act_scale, 0.5f, TW_INVALID, "act_scale: 0.5, but a=none has no static scale; must be 0")
#undef TRY
    w.l.desc.scheme.act_quant = TW_ACTQ_E4M3_STATIC;
    w.l.desc.act_scale = -0.5f;
    refuse(w, TW_INVALID, "act_scale: -0.5, a=e4m3s needs a positive");
    /* A caller that was built before there were static scales. */
    w.l.desc.act_scale = 0.5f;
    w.l.desc.struct_size = offsetof(tw_linear_desc, act_scale);
    refuse(w, TW_INVALID, "act_scale: 0, a=e4m3s needs a positive");
    assert_true(tw_linear_act_scale(NULL) == 0);
    close_world(&w);
}

/* Pairs: one factor for 256 columns, finite, and nothing in the byte that is left. */
static void bad_pairs(void **state) {
    world w = open_world(state, "N=4,K=600,w=u4,g=32,s=f16i8,z=value");
    tw_pair *scales = w.l.scales.data, *zeros = w.l.zeros.data;
    scales[19 + 9].factor ^= 1;
    refuse(w, TW_INVALID, "at [1,9], expected 0x");
    scales[19 + 9].factor ^= 1;
    zeros[2 * 19 + 8].factor ^= 1; /* the first of a run: the next one is odd */
    refuse(w, TW_INVALID, "zeros: factor 0x");
    zeros[2 * 19 + 8].factor ^= 1;
    zeros[18].rest = 5;
    refuse(w, TW_INVALID, "zeros: top byte of [0,18] is 0x05, must be 0");
    zeros[18].rest = 0;
    for (int j = 16; j < 19; j++) scales[j].factor = 0x7c00;
    refuse(w, TW_INVALID, "scales: infinity at [0,16], must be finite");
    for (int j = 16; j < 19; j++) scales[j].factor = 0x7e00;
    refuse(w, TW_INVALID, "scales: NaN at [0,16], must be finite");
    close_world(&w);
}

/* The arrays of desc: what is missing, not finite, or no order. */
static void bad_arrays(void **state) {
    world w = open_world(state, "N=4,K=6,w=lut4,g=3,s=f32");
    const tw_linear_desc good = w.l.desc;
    float lut[TW_LUT4_SIZE] = {[9] = INFINITY};
    int32_t order[] = {5, 4, 3, 2, 1, 0};
    w.l.desc.lut = NULL;
    refuse(w, TW_INVALID, "desc: lut: NULL, w=lut4 needs its 16 values");
    w.l.desc.lut = lut;
    refuse(w, TW_INVALID, "desc: lut: infinity at [0,9], must be finite");
    w.l.desc = good;
    w.l.desc.order = order;
    order[2] = 6;
    refuse(w, TW_INVALID, "order[2]: 6, must be from 0 to 5");
    order[2] = -1;
    refuse(w, TW_INVALID, "order[2]: -1, must be from 0 to 5");
    order[2] = 4;
    refuse(w, TW_INVALID, "order[2]: 4, is there already");
    close_world(&w);
}

/* Every rule of a tensor, on each of the four. */
static void tensors(void **state) {
    world w = open_world(state, grouped);
    struct {
        const char *name;
        tw_tensor *t;
        bool sub_byte;
    } all[] = {{"weight", &w.l.weight, true},
               {"scales", &w.l.scales, false},
               {"zeros", &w.l.zeros, false},
               {"bias", &w.l.bias, false}};
    for (size_t i = 0; i < TW_COUNT(all); i++) {
        tw_tensor *t = all[i].t;
        const tw_tensor good = *t;
        t->dtype = TW_E5M2;
        refuse(w, TW_INVALID, all[i].name);
        *t = good, t->data = NULL;
        refuse(w, TW_INVALID, "data is NULL");
        *t = good, t->ndim = 3;
        refuse(w, TW_INVALID, "3 dimensions");
        *t = good, t->ndim = -1;
        refuse(w, TW_INVALID, "-1 dimensions");
        *t = good, t->shape[0]++;
        refuse(w, TW_INVALID, "expected [");
        *t = good, t->stride[0] = -1, t->stride[1] = 1;
        refuse(w, TW_INVALID, "stride");
        *t = good, t->stride[0] = INT64_MAX / 2, t->stride[1] = 1;
        refuse(w, TW_INVALID, "stride");
        *t = good, t->data = (char *)good.data + 1;
        if (!all[i].sub_byte) refuse(w, TW_INVALID, "must be aligned");
        *t = good;
    }
    w.l.weight.stride[0] = 96, w.l.weight.stride[1] = 1;
    refuse(w, TW_INVALID, "weight: strides [96,1], u4 must be contiguous");
    close_world(&w);
}

static void not_finite(void **state) {
    world w = open_world(state, grouped);
    tw_float_set(w.l.scales.data, TW_F16, 4, NAN);
    refuse(w, TW_INVALID, "scales: NaN at [1,1], must be finite");
    tw_float_set(w.l.scales.data, TW_F16, 4, -INFINITY);
    refuse(w, TW_INVALID, "scales: infinity at [1,1], must be finite");
    tw_float_set(w.l.scales.data, TW_F16, 4, 0);
    tw_float_set(w.l.zeros.data, TW_F16, 209, NAN);
    refuse(w, TW_INVALID, "zeros: NaN at [69,2], must be finite");
    tw_float_set(w.l.zeros.data, TW_F16, 209, 0);
    /* Zero scales are legal. */
    tw_linear *linear = make_linear(&w.l, w.context);
    check_forward(&w.l, linear, 3);
    tw_linear_destroy(linear);
    close_world(&w);
}

static void pad_bits(void **state) {
    world w = open_world(state, "N=4,K=3,w=u4,g=channel,s=f32");
    ((uint8_t *)w.l.weight.data)[5] |= 0x10;
    refuse(w, TW_INVALID, "weight: last byte of row 2 is 0x1");
    close_world(&w);
}

/* ---- strided tensors are gathered ---- */

/* The same elements, apart by the given strides; free() its data. */
static tw_tensor spread(const tw_tensor *t, int64_t row, int64_t column) {
    tw_tensor out = *t;
    int64_t width = tw_dtype_bits(t->dtype) / 8, columns = t->ndim > 1 ? t->shape[1] : 1;
    char *to = malloc((size_t)((t->shape[0] * row + columns * column) * width));
    assert_non_null(to);
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t k = 0; k < columns; k++)
            memcpy(to + (n * row + k * column) * width, (char *)t->data + (n * columns + k) * width,
                   (size_t)width);
    out.data = to;
    out.stride[0] = row;
    if (t->ndim > 1) out.stride[1] = column;
    return out;
}

static void strided(void **state) {
    world w = open_world(state, "N=70,K=80,w=i8,g=16,s=f16,z=value,bias=bf16");
    /* Transposed, padded rows, every other column, every third element. */
    tw_tensor weight = spread(&w.l.weight, 1, 70), scales = spread(&w.l.scales, 9, 1);
    tw_tensor zeros = spread(&w.l.zeros, 12, 2), bias = spread(&w.l.bias, 3, 0);
    tw_linear *linear = NULL;
    check_ok(tw_linear_create(w.context, &w.l.desc, &weight, &scales, &zeros, &bias, &linear));
    /* Everything was copied. */
    free(weight.data), free(scales.data), free(zeros.data), free(bias.data);
    check_recovered(&w.l, linear);
    check_forward(&w.l, linear, 6);
    tw_linear_destroy(linear);
    close_world(&w);
}

/* ---- from float ---- */

/* What the float weights became is the scheme's nearest; forward then follows the oracle. */
static void check_from_float(world *w, const tw_tensor *weight, double tolerance) {
    tw_linear *linear = NULL;
    const tw_problem *p = &w->l.problem;
    check_ok(
        tw_linear_create_from_float(w->context, &w->l.desc, weight, given(&w->l.bias), &linear));
    check_ok(tw_linear_weights(linear, &w->l.weight, &w->l.scales, &w->l.zeros));
    tw_canonical c = {w->l.weight.data, w->l.scales.data, w->l.zeros.data, NULL, NULL, 0};
    int64_t stride = weight->stride[0] ? weight->stride[0] : p->K;
    for (int64_t n = 0; n < p->N; n++)
        for (int64_t k = 0; k < p->K; k++) {
            float was = tw_float_get(weight->data, weight->dtype, n * stride + k);
            float is = tw_dequantize_one(p, &c, n, k);
            if (!(fabs((double)is - was) <= tolerance))
                fail_msg("[%d,%d]: %g is %g", (int)n, (int)k, was, is);
        }
    check_forward(&w->l, linear, 4);
    tw_linear_destroy(linear);
}

static void from_float(void **state) {
    /* Weights within [-1, 1): half a step of the widest group, and what f16 scales round. */
    static const struct {
        const char *problem;
        double tolerance;
    } rows[] = {{"N=70,K=80,w=i8,g=32,s=f32,a=i8", 1 / 254.0 + 1e-6},
                {"N=70,K=80,w=u4,g=32,s=f16,z=value,bias=f16", 2 / 30.0 + 2e-3},
                {"N=70,K=80,w=u4,g=16,s=f32,z=code,a=i8", 2 / 30.0 + 2e-3},
                {"N=70,K=80,w=f16", 1.0 / 4096}};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        world w = open_world(state, rows[i].problem);
        for (tw_dtype dtype = TW_F32; dtype <= TW_BF16; dtype = (tw_dtype)(dtype + 1)) {
            tw_tensor weight = random_rows(dtype, 70, 80, 5), apart = spread(&weight, 91, 1);
            check_from_float(&w, &weight, rows[i].tolerance);
            check_from_float(&w, &apart, rows[i].tolerance);
            free(weight.data), free(apart.data);
        }
        close_world(&w);
    }
}

static void from_float_refuses(void **state) {
    world w = open_world(state, "N=4,K=8,w=i4,g=channel,s=f16");
    tw_linear *linear = NULL;
    tw_tensor weight = random_rows(TW_F32, 4, 8, 5);
    const tw_linear_desc *d = &w.l.desc;
#define TRY(context_, d_, weight_, bias_, out_, status, part)                                      \
    check_fails(tw_linear_create_from_float(context_, d_, weight_, bias_, out_), status, part)
    TRY(NULL, d, &weight, NULL, &linear, TW_INVALID, "context: NULL");
    TRY(w.context, NULL, &weight, NULL, &linear, TW_INVALID, "desc: NULL");
    TRY(w.context, d, NULL, NULL, &linear, TW_INVALID, "weight: NULL");
    TRY(w.context, d, &weight, NULL, NULL, TW_INVALID, "out: NULL");
    TRY(w.context, d, &w.l.weight, NULL, &linear, TW_INVALID, "weight: dtype i4");
    TRY(w.context, d, &weight, &weight, &linear, TW_INVALID, "bias: 2 dimensions");
    ((float *)weight.data)[9] = NAN;
    TRY(w.context, d, &weight, NULL, &linear, TW_INVALID, "[1,1]");
#undef TRY
    assert_null(linear);
    free(weight.data);
    close_world(&w);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(weights_come_back), TEST(weights_arguments), TEST(null_arguments),
        TEST(descriptions),      TEST(tensors),           TEST(not_finite),
        TEST(pad_bits),          TEST(strided),           TEST(bad_pairs),
        TEST(bad_arrays),        TEST(from_float),        TEST(from_float_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
