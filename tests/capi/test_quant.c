/* The public primitives, by values worked out here, and layers by every recipe's name.  That the
 * values are torchao's in every bit, `tilewright verify --fixtures` shows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/act.h"
#include "src/core/dtype.h"
#include "tests/capi/fixture.h"
#include "tilewright/quant.h"

/* Two rows of two groups of 4. */
static const float values[16] = {-4, -1, 0, 3.5f, 8, 1, 2, -8, 0, 0, 0, 0, 0.5f, 1, 2, 15};

static tw_affine_desc describe(tw_dtype code, tw_zero_mode zeros, tw_mapping mapping) {
    tw_affine_desc d = TW_AFFINE_DESC_INIT;
    d.N = 2, d.K = 8, d.group_n = 1, d.group_k = 4;
    d.code = code, d.zero_mode = zeros, d.mapping = mapping;
    return d;
}

static void test_symmetric(void **state) {
    (void)state;
    tw_affine_desc d = describe(TW_I4, TW_ZERO_NONE, TW_MAPPING_SYMMETRIC);
    float scales[4], x[16];
    uint8_t codes[8];
    check_ok(tw_choose_qparams(&d, values, scales, NULL));
    assert_true(scales[0] == 4 / 7.5f && scales[1] == 8 / 7.5f && scales[3] == 15 / 7.5f);
    assert_true(scales[2] == 0x1p-126f);
    check_ok(tw_quantize_affine(&d, values, scales, NULL, codes));
    /* -4 * (1 / s) is a little above -7.5 in f32, since s was rounded up; so is -8 * (1 / s) */
    assert_int_equal(tw_code_get(codes, TW_I4, 0), -7);
    assert_int_equal(tw_code_get(codes, TW_I4, 4), 7);
    assert_int_equal(tw_code_get(codes, TW_I4, 2), 0);
    check_ok(tw_dequantize_affine(&d, codes, scales, NULL, x));
    assert_true(x[0] == -7 * scales[0] && x[4] == 7 * scales[1] && x[8] == 0);
}

static void test_zeros(void **state) {
    (void)state;
    float scales[4], x[16], values_zero[4];
    int32_t zeros[4];
    uint8_t codes[8];
    tw_affine_desc d = describe(TW_U4, TW_ZERO_CODE, TW_MAPPING_ASYMMETRIC);
    check_ok(tw_choose_qparams(&d, values, scales, zeros));
    assert_true(scales[0] == 0.5f && scales[3] == 1);
    assert_int_equal(zeros[0], 8);
    assert_int_equal(zeros[3], 0); /* the least x is 0.5, but 0 has a code */
    check_ok(tw_quantize_affine(&d, values, scales, zeros, codes));
    check_ok(tw_dequantize_affine(&d, codes, scales, zeros, x));
    for (int i = 0; i < 4; i++) assert_true(x[i] == values[i]);
    d.keep_range = 1;
    check_ok(tw_choose_qparams(&d, values, scales, zeros));
    assert_true(scales[3] == 14.5f / 15);
    d = describe(TW_U4, TW_ZERO_VALUE, TW_MAPPING_SYMMETRIC);
    check_ok(tw_choose_qparams(&d, values, scales, values_zero));
    assert_true(scales[0] == 0.5f && values_zero[0] == 0); /* -4 + 0.5 * 8 */
    check_ok(tw_quantize_affine(&d, values, scales, values_zero, codes));
    check_ok(tw_dequantize_affine(&d, codes, scales, values_zero, x));
    for (int i = 0; i < 4; i++) assert_true(x[i] == values[i]);
}

static void test_fake_quantize(void **state) {
    (void)state;
    tw_affine_desc d = describe(TW_I8, TW_ZERO_NONE, TW_MAPPING_SYMMETRIC);
    const float scales[4] = {1, 1, 1, 1};
    float y[16], gradient[16], back[16];
    uint8_t mask[16];
    d.qmin = -7, d.qmax = 7;
    check_ok(tw_fake_quantize(&d, values, scales, NULL, y, mask));
    for (int i = 0; i < 16; i++) {
        float code = rintf(values[i]);
        assert_true(y[i] == fminf(fmaxf(code, -7), 7));
        assert_int_equal(mask[i], fabsf(code) <= 7);
        gradient[i] = (float)(i + 1);
    }
    check_ok(tw_fake_quantize_backward(&d, gradient, mask, back));
    for (int i = 0; i < 16; i++) assert_true(back[i] == (mask[i] ? gradient[i] : 0));
}

static void test_refuses(void **state) {
    (void)state;
    float scales[4], x[16];
    int32_t zeros[4] = {0, 0, 0, 16};
    uint8_t codes[16], mask[16];
    tw_affine_desc d = describe(TW_U4, TW_ZERO_NONE, TW_MAPPING_SYMMETRIC);
    check_fails(tw_choose_qparams(NULL, values, scales, NULL), TW_INVALID, "desc: NULL");
    check_fails(tw_choose_qparams(&d, values, scales, NULL), TW_INVALID, "centred on 8");
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "zeros: given");
    d.mapping = TW_MAPPING_ASYMMETRIC;
    check_fails(tw_choose_qparams(&d, values, scales, NULL), TW_INVALID, "needs zeros");
    d.zero_mode = TW_ZERO_CODE;
    check_fails(tw_choose_qparams(&d, values, scales, NULL), TW_INVALID, "zeros: NULL");
    check_fails(tw_choose_qparams(&d, NULL, scales, zeros), TW_INVALID, "x: NULL");
    check_fails(tw_quantize_affine(&d, values, scales, zeros, codes), TW_INVALID, "zeros[3]: 16");
    d.zero_mode = TW_ZERO_VALUE;
    check_fails(tw_fake_quantize(&d, values, scales, zeros, x, mask), TW_UNSUPPORTED, "value");
    d.zero_mode = (tw_zero_mode)7;
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "zero_mode: 7");
    d = describe(TW_U4, TW_ZERO_CODE, TW_MAPPING_ASYMMETRIC);
    d.qmax = 16;
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "qmin, qmax: 0 to 16");
    d.qmax = 0, d.group_k = -1;
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "group");
    d.N = 0, d.group_n = 0;
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "shape [0,8]");
    d.code = TW_E4M3;
    check_fails(tw_choose_qparams(&d, values, scales, zeros), TW_INVALID, "code: e4m3");
}

/* ---- recipes ---- */

enum { M = 3, N = 5, K = 256 };

static tw_tensor rows_of(float *data, int rows, int columns) {
    for (int i = 0; i < rows * columns; i++) data[i] = sinf((float)i * 1.3f + 1) * (float)(rows);
    return (tw_tensor)TW_TENSOR_2D(data, TW_F32, rows, columns);
}

/* Every recipe's layer, by a context of the given mode: the linear fixture's check of its forward
 * against the oracle, which multiplies by the dequantized weights. */
static void check_recipe(tw_context *context, const char *name, tw_tensor *weight) {
    layer l = {.desc = TW_LINEAR_DESC_INIT};
    tw_linear *linear;
    uint8_t codes[N * K * 4];
    float scales[N * K], zeros[N * K];
    l.desc.N = N, l.desc.K = K;
    tw_scheme scheme;
    check_ok(tw_recipe_scheme(name, TW_F32, &scheme));
    if (tw_act_given(&scheme)) {
        check_fails(tw_linear_create_from_recipe(context, &l.desc, name, weight, NULL, &linear),
                    TW_INVALID, "act_scale: 0, a=");
        l.desc.act_scale = 0.0075f;
    }
    check_ok(tw_linear_create_from_recipe(context, &l.desc, name, weight, NULL, &linear));
    l.desc.scheme = scheme;
    l.desc.lut = tw_linear_lut(linear);
    l.problem = (tw_problem){.N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = l.desc.scheme};
    l.weight.data = codes, l.scales.data = scales, l.zeros.data = zeros;
    check_ok(tw_linear_weights(linear, &l.weight, &l.scales, &l.zeros));
    check_forward(&l, linear, M);
    tw_linear_destroy(linear);
}

static void test_every_recipe(void **state) {
    fixture *f = *state;
    float data[N * K];
    tw_tensor weight = rows_of(data, N, K);
    tw_context *context = open_context(f);
    for (int i = 0; tw_recipe_name(i); i++) check_recipe(context, tw_recipe_name(i), &weight);
    check_recipe(context, "intx_weight_only,w=i3,g=32,mapping=asymmetric", &weight);
    tw_context_destroy(context);
}

static void test_recipe_refuses(void **state) {
    fixture *f = *state;
    float data[N * K];
    tw_tensor weight = rows_of(data, N, K);
    tw_context *context = open_context(f);
    tw_linear_desc d = TW_LINEAR_DESC_INIT;
    tw_linear *linear;
    tw_scheme scheme;
    const char *int8 = "int8_weight_only";
    d.N = N, d.K = K;
#define create(name, w) tw_linear_create_from_recipe(context, &d, name, w, NULL, &linear)
    check_fails(create("int5", &weight), TW_INVALID, "\"int5\" is not known");
    check_fails(create(NULL, &weight), TW_INVALID, "recipe: NULL");
    check_fails(create(int8, NULL), TW_INVALID, "weight: NULL");
    d.N = 4;
    check_fails(create(int8, &weight), TW_INVALID, "expected [4,256]");
    d.N = N, d.scheme.weight = TW_I8;
    check_fails(create(int8, &weight), TW_INVALID, "scheme: given");
    d.scheme.weight = TW_NONE, d.lut = data;
    check_fails(create(int8, &weight), TW_INVALID, "lut: given");
    d.lut = NULL;
    weight.stride[0] = 1, weight.stride[1] = N;
    check_fails(create(int8, &weight), TW_INVALID, "must be contiguous");
    check_fails(tw_recipe_scheme(NULL, TW_F32, &scheme), TW_INVALID, "recipe: NULL");
    check_fails(tw_recipe_scheme(int8, TW_F32, NULL), TW_INVALID, "out: NULL");
    check_fails(tw_recipe_scheme(int8, TW_U4, &scheme), TW_INVALID, "dtype u4");
    tw_context_destroy(context);
}

static void test_observers(void **state) {
    (void)state;
    tw_observer_desc d = TW_OBSERVER_DESC_INIT;
    tw_observer *o = NULL;
    float scale[2], min[2], max[2];
    int32_t zero[2];
    check_ok(tw_observer_create(&d, &o));
    check_fails(tw_observer_choose(o, TW_F32, scale, zero), TW_INVALID, "no batch seen");
    check_ok(tw_observer_see(o, 2, 8, values));
    check_ok(tw_observer_see(o, 0, 8, NULL));
    check_ok(tw_observer_choose(o, TW_F32, scale, zero));
    check_ok(tw_observer_range(o, min, max));
    assert_true(min[0] == -8 && max[0] == 15 && scale[0] == 15 / 127.5f && zero[0] == 0);
    tw_observer_destroy(o);
    d.channels = 2, d.mapping = TW_MAPPING_ASYMMETRIC, d.code = TW_U8;
    check_ok(tw_observer_create(&d, &o));
    check_fails(tw_observer_see(o, 1, 8, values), TW_INVALID, "expected 2 rows");
    check_fails(tw_observer_see(o, 2, 8, NULL), TW_INVALID, "x: NULL");
    check_ok(tw_observer_see(o, 2, 8, values));
    check_ok(tw_observer_choose(o, TW_F32, scale, zero));
    assert_true(scale[0] == 16.0f / 255 && scale[1] == 15.0f / 255);
    assert_int_equal(zero[0], (int32_t)rintf(8 / scale[0]));
    assert_int_equal(zero[1], 0);
    tw_observer_destroy(o);
    tw_observer_destroy(NULL);
    d.kind = (tw_observer_kind)3;
    check_fails(tw_observer_create(&d, &o), TW_INVALID, "kind: 3");
    d.kind = TW_OBSERVER_AVERAGE, d.rate = 1.5;
    check_fails(tw_observer_create(&d, &o), TW_INVALID, "rate: 1.5");
    d.rate = 0, d.code = TW_E4M3;
    check_fails(tw_observer_create(&d, &o), TW_INVALID, "code: e4m3");
    d.code = TW_I4, d.qmin = -9, d.qmax = 7;
    check_fails(tw_observer_create(&d, &o), TW_INVALID, "qmin, qmax: -9");
    d.code = TW_U8, d.qmin = d.qmax = 0, d.mapping = TW_MAPPING_SYMMETRIC_NO_CLIP;
    check_fails(tw_observer_create(&d, &o), TW_INVALID, "without clipping neither may be 0");
    d.mapping = TW_MAPPING_SYMMETRIC;
    check_ok(tw_observer_create(&d, &o));
    check_fails(tw_observer_see(o, 2, INT64_C(1) << 40, values), TW_INVALID, "both must be from 0");
    tw_observer_destroy(o);
    check_fails(tw_observer_create(NULL, &o), TW_INVALID, "desc: NULL");
    check_fails(tw_observer_range(NULL, min, max), TW_INVALID, "observer: NULL");
}

/* Weights by a recipe into the caller's memory and back: what the layer of that recipe has. */
static void test_weights(void **state) {
    (void)state;
    enum { N = 37, K = 100 };
    fixture *f = *state;
    tw_context *context = open_context(f);
    tw_tensor w = random_rows(TW_F32, N, K, 7);
    for (int32_t i = 0; tw_recipe_name(i); i++) {
        static uint8_t codes[N * K], codes2[N * K];
        static float scales[N * K], scales2[N * K], zeros[N * K], zeros2[N * K], back[N * K];
        float lut[16], error = 0, size = 0;
        const char *name = tw_recipe_name(i);
        tw_scheme s;
        check_ok(tw_recipe_scheme(name, TW_F32, &s));
        bool has_zeros = s.zero_mode, has_lut = s.weight == TW_LUT4;
        tw_status status =
            tw_quantize_weight(context, name, &w, codes, scales, has_zeros ? (void *)zeros : NULL,
                               has_lut ? lut : NULL);
        if (status == TW_INVALID && strstr(tw_error_message(), "K: 100, must be a multiple"))
            continue;
        if (status) fail_msg("%s: %s", name, tw_error_message());
        check_ok(tw_dequantize_weight(&s, N, K, codes, scales, has_zeros ? zeros : NULL,
                                      has_lut ? lut : NULL, back));
        for (int j = 0; j < N * K; j++) {
            float v = ((const float *)w.data)[j];
            error += (back[j] - v) * (back[j] - v);
            size += v * v;
        }
        /* Ternary codes keep the least. */
        if (!(error < 0.5F * size)) fail_msg("%s: %g of %g", name, (double)error, (double)size);
        tw_linear_desc desc = TW_LINEAR_DESC_INIT;
        desc.N = N, desc.K = K;
        if (strstr(name, "static")) desc.act_scale = 1;
        tw_linear *l = NULL;
        check_ok(tw_linear_create_from_recipe(context, &desc, name, &w, NULL, &l));
        tw_tensor a = {.data = codes2}, b = {.data = scales2}, c = {.data = zeros2};
        check_ok(tw_linear_weights(l, &a, &b, has_zeros ? &c : NULL));
        assert_memory_equal(codes, codes2, tensor_bytes(&a));
        assert_memory_equal(scales, scales2, tensor_bytes(&b));
        if (has_zeros) assert_memory_equal(zeros, zeros2, tensor_bytes(&c));
        tw_linear_destroy(l);
    }
    float scale[N];
    uint8_t codes[N * K];
    check_fails(tw_quantize_weight(NULL, "int8_weight_only", &w, codes, scale, NULL, NULL),
                TW_INVALID, "context: NULL");
    check_fails(tw_quantize_weight(context, "int8_weight_only", &w, codes, scale, scale, NULL),
                TW_INVALID, "zeros: given");
    check_fails(tw_quantize_weight(context, "int8_weight_only", &w, NULL, scale, NULL, NULL),
                TW_INVALID, "codes: NULL");
    ((float *)w.data)[36 * K + 99] = NAN;
    check_fails(tw_quantize_weight(context, "int8_weight_only", &w, codes, scale, NULL, NULL),
                TW_INVALID, "nan at [36,99]");
    free(w.data);
    tw_context_destroy(context);
}

static void test_tables(void **state) {
    (void)state;
    static const float table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
    float w[2][20], scales[4], back[2][20];
    uint8_t codes[2][10];
    for (int k = 0; k < 20; k++) {
        w[0][k] = 0.5F * table[k % 16]; /* the group's amax is the table's, so these come back */
        w[1][k] = 0;
    }
    tw_tensor weight = TW_TENSOR_2D(w, TW_F32, 2, 20);
    check_ok(tw_quantize_table(&weight, table, 16, TW_F32, codes, scales));
    tw_scheme s = {.weight = TW_LUT4, .scale = TW_F32, .group_n = 1, .group_k = 16};
    check_ok(tw_dequantize_weight(&s, 2, 20, codes, scales, NULL, table, back[0]));
    assert_true(scales[0] == 0.5F && scales[2] == 0);
    assert_memory_equal(back[0], w[0], 16 * sizeof(float));
    for (int k = 0; k < 20; k++) assert_true(back[1][k] == 0);
    static const float none[16] = {0};
    check_fails(tw_quantize_table(&weight, none, 16, TW_F32, codes, scales), TW_INVALID,
                "table: all 0");
    check_fails(tw_quantize_table(&weight, NULL, 16, TW_F32, codes, scales), TW_INVALID,
                "table: NULL");
    check_fails(tw_quantize_table(&weight, table, -1, TW_F32, codes, scales), TW_INVALID,
                "group: -1");
    check_fails(tw_quantize_table(&weight, table, 16, TW_E8M0, codes, scales), TW_INVALID,
                "scale: e8m0");
    w[0][3] = 1e30F;
    check_fails(tw_quantize_table(&weight, table, 16, TW_F16, codes, scales), TW_INVALID, "scales");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symmetric),
        cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_fake_quantize),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_observers),
        cmocka_unit_test(test_tables),
        cmocka_unit_test_setup_teardown(test_weights, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_every_recipe, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_recipe_refuses, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
