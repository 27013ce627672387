/* Recipes: every row by its name, what may be chosen, and layers that come close to the weights.
 * That torchao's are its own in every bit, `tilewright verify --fixtures` shows. */
#include <math.h>
#include <string.h>

#include "src/base/status.h"
#include "src/base/str.h"
#include "src/core/dtype.h"
#include "src/core/reference.h"
#include "src/quant/recipe.h"
#include "tests/base/cmocka_all.h"

enum { N = 6, K = 256 };

static tw_recipe parsed(const char *text, tw_dtype x) {
    tw_recipe r;
    if (tw_recipe_parse(text, x, &r) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    return r;
}

static void check_scheme(const char *text, tw_dtype x, const char *expected) {
    tw_recipe r = parsed(text, x);
    tw_str scheme = {0};
    tw_scheme_text(&r.scheme, &scheme);
    assert_string_equal(tw_str_text(&scheme), expected);
    tw_str_free(&scheme);
}

static void test_schemes(void **state) {
    (void)state;
    check_scheme("intx_weight_only", TW_F32, "w=i8,g=channel,s=f32,z=none,a=none");
    check_scheme("intx_weight_only,w=i4,g=32,mapping=asymmetric", TW_BF16,
                 "w=u4,g=32,s=bf16,z=code,a=none");
    check_scheme("int8_dynamic_activation_intx_weight,w=i3", TW_F32,
                 "w=i3,g=32,s=f32,z=none,a=i8z");
    check_scheme("int8_dynamic_activation_int8_weight", TW_BF16,
                 "w=i8,g=channel,s=f32,z=none,a=i8full");
    check_scheme("int8_dynamic_activation_int8_weight,a=i8z", TW_F32,
                 "w=i8,g=channel,s=f32,z=none,a=i8z");
    check_scheme("int8_dynamic_activation_int4_weight,a=i8full", TW_F32,
                 "w=u4,g=32,s=f32,z=code,a=i8full");
    check_scheme("nf4_weight_only", TW_BF16, "w=lut4,g=64,s=bf16,z=none,a=none");
    check_scheme("codebook_weight_only", TW_BF16, "w=lut4,g=channel,s=bf16,z=none,a=none");
    check_scheme("bitnet_weight_only", TW_BF16, "w=i2,g=tensor,s=f32,z=none,a=none");
    check_scheme("int4_weight_only", TW_BF16, "w=i4,g=128,s=bf16,z=value,a=none");
    check_scheme("int4_weight_only,fpmath=bf16", TW_F32,
                 "w=i4,g=128,s=f32,z=value,a=none,fpmath=bf16");
    check_scheme("hqq,w=u2,s=f16", TW_F32, "w=i2,g=64,s=f16,z=value,a=none");
    check_scheme("float8_weight_only,g=128x128", TW_F32, "w=e4m3,g=128x128,s=f32,z=none,a=none");
    check_scheme("mx_weight_only,w=e2m1,rule=floor", TW_F32, "w=e2m1,g=32,s=e8m0,z=none,a=none");
    check_scheme("nvfp4_weight_only", TW_F32, "w=e2m1,g=16,s=f32,z=none,a=none");
    check_scheme("nvfp4_weight_only,levels=1", TW_F32, "w=e2m1,g=16,s=e4m3,z=none,a=none");
    check_scheme("int8_static_activation_int8_weight", TW_BF16,
                 "w=i8,g=channel,s=f32,z=none,a=i8s");
    check_scheme("int8_dynamic_activation_uintx_weight", TW_BF16, "w=i4,g=128,s=bf16,z=value,a=i8");
    check_scheme("float8_dynamic_activation_float8_weight", TW_BF16,
                 "w=e4m3,g=channel,s=f32,z=none,a=e4m3");
    check_scheme("float8_dynamic_activation_float8_weight,g=128x128,a=e4m3g128", TW_BF16,
                 "w=e4m3,g=128x128,s=f32,z=none,a=e4m3g128");
    check_scheme("float8_static_activation_float8_weight", TW_F32,
                 "w=e4m3,g=tensor,s=f32,z=none,a=e4m3s");
    check_scheme("float8_dynamic_activation_int4_weight", TW_BF16,
                 "w=i4,g=128,s=bf16,z=none,a=e4m3");
    check_scheme("mx_dynamic_activation_mx_weight", TW_BF16, "w=e4m3,g=32,s=e8m0,z=none,a=mxfp8");
    check_scheme("mx_dynamic_activation_mx_weight,w=e2m1,rule=even", TW_BF16,
                 "w=e2m1,g=32,s=e8m0,z=none,a=mxfp4even");
    check_scheme("nvfp4_dynamic_activation_nvfp4_weight", TW_BF16,
                 "w=e2m1,g=16,s=f32,z=none,a=nvfp4t");
    check_scheme("nvfp4_dynamic_activation_nvfp4_weight,levels=1", TW_BF16,
                 "w=e2m1,g=16,s=e4m3,z=none,a=nvfp4");
    check_scheme("nvfp4_static_activation_nvfp4_weight", TW_BF16,
                 "w=e2m1,g=16,s=f32,z=none,a=nvfp4s");
}

/* Every row, as it stands: the layer's weights are the float weights to some bits. */
static void test_every_row(void **state) {
    (void)state;
    float w[N * K], row[K], scales[N * K], zeros[N * K];
    float lut[TW_LUT4_SIZE];
    uint8_t codes[N * K];
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++)
            w[n * K + k] = n == 2 ? 0 : sinf((float)(n * K + k) * 1.7f) * (float)(1 + n);
    for (int i = 0; tw_recipe_at(i); i++) {
        const char *name = tw_recipe_at(i)->name;
        tw_recipe r = parsed(name, TW_F32);
        if (tw_recipe_quantize(&r, N, K, w, codes, scales, zeros, lut) != TW_OK)
            fail_msg("%s: %s", name, tw_error_message());
        tw_problem p = {.M = 1, .N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = r.scheme};
        tw_canonical layer = {codes, scales, r.scheme.zero_mode ? zeros : NULL, NULL, lut, 0};
        double errors = 0, energy = 0, kept = r.method == TW_METHOD_TERNARY ? 2 : 40;
        for (int n = 0; n < N; n++) {
            tw_dequantize_row(&p, &layer, n, row);
            for (int k = 0; k < K; k++) {
                double d = (double)row[k] - (double)w[n * K + k];
                errors += d * d;
                energy += (double)w[n * K + k] * (double)w[n * K + k];
            }
        }
        if (!(errors < energy / kept)) fail_msg("%s: %g of %g is lost", name, errors, energy);
    }
}

static void check_fails(const char *text, tw_status status, const char *sentence) {
    tw_recipe r;
    assert_int_equal(tw_recipe_parse(text, TW_F32, &r), status);
    if (!strstr(tw_error_message(), sentence)) fail_msg("%s: %s", text, tw_error_message());
}

static void test_refuses(void **state) {
    (void)state;
    check_fails("int5", TW_INVALID, "recipe: \"int5\" is not known");
    check_fails("", TW_INVALID, "recipe: \"\" is not known");
    check_fails("int8_weight_only,w=i4", TW_INVALID, "int8_weight_only: \"w\" is always i8");
    check_fails("int8_weight_only,rule=floor", TW_INVALID, "\"rule\" is no field of it");
    check_fails("intx_weight_only,w", TW_INVALID, "\"w\" is no field of it");
    check_fails("intx_weight_only,w=i4,w=i4", TW_INVALID, "\"w\" is given twice");
    check_fails("intx_weight_only,mapping=odd", TW_INVALID, "expected one of symmetric, ");
    check_fails("intx_weight_only,w=u4", TW_INVALID, "a symmetric mapping needs signed codes");
    check_fails("intx_weight_only,w=e4m3", TW_INVALID, "w=e4m3, not a dtype of its codes");
    check_fails("intx_weight_only,w=i1,mapping=symmetric_no_clipping_err", TW_INVALID, "w=i1");
    check_fails("int8_dynamic_activation_int8_weight,a=i9", TW_INVALID, "a: \"i9\"");
    check_fails("intx_weight_only,g=0", TW_INVALID, "g: \"0\"");
    check_fails("hqq,g=tensor", TW_INVALID, "hqq: g, a scale is for a row");
    check_fails("int4_weight_only,fpmath=f16", TW_INVALID, "fpmath: \"f16\", expected strict or");
    check_fails("int4_weight_only_hqq,g=2x32", TW_INVALID, "g, a scale is for a row");
    check_fails("intx_weight_only,s=e8m0", TW_INVALID, "s=e8m0, expected f32");
    check_fails("codebook_weight_only,s=e4m3", TW_INVALID, "s=e4m3, expected f32");
    check_fails("mx_dynamic_activation_mx_weight,w=e5m2", TW_INVALID,
                "w=e5m2, but activations are e4m3 or e2m1");
    check_fails("float8_static_activation_float8_weight,a=e4m3", TW_INVALID, "is always e4m3s");
    tw_recipe r;
    assert_int_equal(tw_recipe_parse("hqq", TW_U8, &r), TW_INVALID);
    float w[32] = {0}, scales[32];
    uint8_t codes[32];
    w[3] = NAN;
    r = parsed("intx_weight_only", TW_F32);
    assert_int_equal(tw_recipe_quantize(&r, 1, 32, w, codes, scales, NULL, NULL), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "weight: nan at [0,3]"));
    w[3] = INFINITY;
    static const char *const mx[] = {"mx_weight_only", "mx_weight_only,rule=floor",
                                     "mx_weight_only,rule=even", "nvfp4_weight_only"};
    for (size_t i = 0; i < TW_COUNT(mx); i++) {
        r = parsed(mx[i], TW_F32);
        assert_int_equal(tw_recipe_quantize(&r, 1, 32, w, codes, scales, NULL, NULL), TW_INVALID);
        assert_non_null(strstr(tw_error_message(), "weight: inf at [0,3]"));
    }
    w[3] = 3e38f;
    w[4] = -3e38f;
    r = parsed("intx_weight_only,s=f16", TW_F32);
    assert_int_equal(tw_recipe_quantize(&r, 1, 32, w, codes, scales, NULL, NULL), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "too large for f16"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_every_row),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
