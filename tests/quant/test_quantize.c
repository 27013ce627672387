/* Quantization by minimum and maximum: numbers that can be followed by hand, then what must hold
 * for every scheme: scales by the formula, and codes that no other code beats. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/reference.h"
#include "src/quant/quantize.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/formats.h"
#include "tests/core/random.h"

enum { N = 6, K = 40, STRIDE = 43 };

/* Buffers for [N,K] of any scheme, with a byte of 0xee behind what may be written. */
typedef struct result {
    tw_scheme scheme;
    tw_problem p; /* for tw_dequantize_one */
    uint8_t codes[N * K * 4 + 1], scales[N * K * 4 + 1], zeros[N * K * 4 + 1];
    int64_t code_bytes, scale_bytes, zero_bytes;
} result;

static tw_scheme scheme_of(const char *text) {
    tw_scheme s;
    if (tw_scheme_parse(text, &s) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    return s;
}

static tw_status quantize(result *r, tw_scheme scheme, int64_t n, int64_t k, const float *w,
                          int64_t stride) {
    memset(r, 0xee, sizeof *r);
    r->scheme = scheme;
    r->p = (tw_problem){1, n, k, TW_F32, TW_F32, TW_NONE, scheme, TW_ACT_NONE};
    int64_t count = scheme.scale ? tw_scale_rows(&scheme, n) * tw_groups(&scheme, k) : 0;
    r->code_bytes = n * (int64_t)tw_dtype_row_bytes(scheme.weight, k);
    r->scale_bytes = count * tw_dtype_bits(scheme.scale) / 8;
    r->zero_bytes = count * tw_dtype_bits(tw_zero_dtype(&scheme)) / 8;
    return tw_quantize_minmax(&scheme, n, k, w, stride, r->codes, r->scales, r->zeros);
}

static void quantize_ok(result *r, const char *text, int64_t n, int64_t k, const float *w,
                        int64_t stride) {
    if (quantize(r, scheme_of(text), n, k, w, stride) != TW_OK)
        fail_msg("%s: %s", text, tw_error_message());
    assert_int_equal(r->codes[r->code_bytes], 0xee);
    assert_int_equal(r->scales[r->scale_bytes], 0xee);
    assert_int_equal(r->zeros[r->zero_bytes], 0xee);
}

static void check_codes(const result *r, int64_t n, const int *expected, int count) {
    const uint8_t *row = r->codes + n * (int64_t)tw_dtype_row_bytes(r->scheme.weight, r->p.K);
    for (int k = 0; k < count; k++) assert_true(value_at(row, r->scheme.weight, k) == expected[k]);
}

static double scale_at(const result *r, int64_t i) {
    return value_at(r->scales, r->scheme.scale, i);
}

static void test_symmetric(void **state) {
    (void)state;
    result r;
    /* amax 7.5 over 15 / 2: s = 1; 7.5 goes to 8 and is clamped, halves go to the even code. */
    const float w[] = {7.5f, -7.5f, 2.5f, 3.5f, -0.5f, 0.5f, 1.25f};
    quantize_ok(&r, "w=i4", 1, 7, w, 7);
    assert_true(scale_at(&r, 0) == 1);
    check_codes(&r, 0, (const int[]){7, -8, 2, 4, 0, 0, 1}, 7);
    assert_int_equal(r.codes[3] >> 4, 0); /* the pad bits */
    /* Groups of 4 with a short last one, and the scales that belong to them. */
    quantize_ok(&r, "w=i8,g=4,s=f16", 1, 7, (const float[]){127.5f, 1, -127.5f, 64, 0, 0, 255}, 7);
    assert_true(scale_at(&r, 0) == 1 && scale_at(&r, 1) == 2);
    check_codes(&r, 0, (const int[]){127, 1, -128, 64, 0, 0, 127}, 7);
}

static void test_unsigned_without_zero(void **state) {
    (void)state;
    result r;
    quantize_ok(&r, "w=u4", 1, 4, (const float[]){30, 0, 3, 5}, 4);
    assert_true(scale_at(&r, 0) == 2);
    check_codes(&r, 0, (const int[]){15, 0, 2, 2}, 4);
    const float w[] = {1, 2, 3, 4, -0.5f, 5};
    assert_int_equal(quantize(&r, scheme_of("w=u4"), 2, 3, w, 3), TW_INVALID);
    assert_string_equal(tw_error_message(),
                        "weight: -0.5 at [1,1], must not be negative for w=u4,z=none");
}

static void test_code_zero(void **state) {
    (void)state;
    result r;
    /* (10 - -5) / 15: s = 1, zero 5; in the second row min is 0, in the third max. */
    const float w[] = {-5, 10, 0, 2.5f, 15, 30, 22, 28, -15, -1, -7.5f, -3};
    quantize_ok(&r, "w=u4,z=code", 3, 4, w, 4);
    assert_true(scale_at(&r, 0) == 1 && scale_at(&r, 1) == 2 && scale_at(&r, 2) == 1);
    assert_int_equal(r.zeros[0], 5);
    assert_int_equal(r.zeros[1], 0);
    assert_int_equal(r.zeros[2], 15);
    check_codes(&r, 0, (const int[]){0, 15, 5, 7}, 4);
    check_codes(&r, 1, (const int[]){8, 15, 11, 14}, 4);
    check_codes(&r, 2, (const int[]){0, 14, 7, 12}, 4);
}

static void test_value_zero(void **state) {
    (void)state;
    result r;
    const float w[] = {100, 115, 107.5f, 108.5f, -3, 27, 0, 4};
    quantize_ok(&r, "w=u4,z=value,s=f32", 2, 4, w, 4);
    assert_true(scale_at(&r, 0) == 1 && scale_at(&r, 1) == 2);
    assert_true(value_at(r.zeros, TW_F32, 0) == 100 && value_at(r.zeros, TW_F32, 1) == -3);
    check_codes(&r, 0, (const int[]){0, 15, 8, 8}, 4);
    check_codes(&r, 1, (const int[]){0, 15, 2, 4}, 4);
    /* Signed codes: the zero is what code 0 stands for. */
    quantize_ok(&r, "w=i4,z=value,s=f16", 1, 4, w, 4);
    assert_true(value_at(r.zeros, TW_F16, 0) == 108);
    check_codes(&r, 0, (const int[]){-8, 7, 0, 0}, 4);
}

static void test_blocks(void **state) {
    (void)state;
    result r;
    /* Blocks of 2 x 2 over 3 x 3: the largest of each is its own. */
    const float w[] = {1, -2, 30, 3, 15, 4, 150, 7, 300};
    quantize_ok(&r, "w=i4,g=2x2", 3, 3, w, 3);
    static const double largest[] = {15, 30, 150, 300};
    for (int i = 0; i < 4; i++) assert_true(scale_at(&r, i) == largest[i] / 7.5);
    check_codes(&r, 0, (const int[]){0, -1, 7}, 3);
    check_codes(&r, 1, (const int[]){2, 7, 1}, 3);
    check_codes(&r, 2, (const int[]){7, 0, 7}, 3);
}

static void test_float_codes(void **state) {
    (void)state;
    result r;
    const float w[] = {12, -12, 3, 0.4f, 5, 7};
    quantize_ok(&r, "w=e2m1", 1, 6, w, 6);
    assert_true(scale_at(&r, 0) == 2);
    static const double values[] = {6, -6, 1.5, 0, 2, 4}; /* 2.5 and 3.5 go to the even codes */
    for (int k = 0; k < 6; k++) assert_true(value_at(r.codes, TW_E2M1, k) == values[k]);
    quantize_ok(&r, "w=e4m3,s=bf16", 1, 2, (const float[]){896, 1}, 2);
    assert_true(scale_at(&r, 0) == 2 && value_at(r.codes, TW_E4M3, 0) == 448);
}

static void test_plain(void **state) {
    (void)state;
    result r;
    const float w[] = {1, -2, 0x1.004p0f, 0.1f};
    quantize_ok(&r, "w=f32", 2, 2, w, 2);
    assert_memory_equal(r.codes, w, sizeof w);
    quantize_ok(&r, "w=f16", 1, 4, w, 4);
    assert_memory_equal(r.codes, ((const uint16_t[]){0x3c00, 0xc000, 0x3c01, 0x2e66}), 8);
    quantize_ok(&r, "w=bf16", 1, 4, w, 4);
    assert_memory_equal(r.codes, ((const uint16_t[]){0x3f80, 0xc000, 0x3f80, 0x3dcd}), 8);
    const float large[] = {1, 2, 3, 65520};
    assert_int_equal(quantize(&r, scheme_of("w=f16"), 2, 2, large, 2), TW_INVALID);
    assert_string_equal(tw_error_message(), "weight: 65520 at [1,1], must be finite in f16");
}

/* ---- for every scheme ---- */

static void fill(float *w, uint64_t seed, bool negative) {
    for (int n = 0; n < N; n++)
        for (int k = 0; k < STRIDE; k++) {
            float v = random_unit(&seed) * (float)(1 << n) + (n == 2 ? 3 : 0);
            if (n == 1 && k % 7 == 0) v *= 20;
            if (n == 3) v = k < 20 ? 0 : 0.75f; /* groups of one value */
            w[n * STRIDE + k] = k >= K ? NAN : negative ? v : fabsf(v);
        }
}

/* The scale that the formula asks for, over the group of (n, k). */
static float wanted_scale(const tw_scheme *s, const float *w, int64_t n, int64_t k) {
    int64_t group_n = tw_group_n(s, N), group_k = tw_group_k(s, K), n0 = n / group_n * group_n;
    int64_t k0 = k / group_k * group_k;
    volatile float low = INFINITY, high = -INFINITY, scale;
    for (int64_t i = n0; i < N && i < n0 + group_n; i++)
        for (int64_t j = k0; j < K && j < k0 + group_k; j++) {
            low = fminf(low, w[i * STRIDE + j]);
            high = fmaxf(high, w[i * STRIDE + j]);
        }
    float amax = fmaxf(-low, high), codes = (float)((1 << tw_dtype_bits(s->weight)) - 1);
    if (!tw_dtype_is_int(s->weight)) codes = 2 * tw_float_max(s->weight);
    if (s->zero_mode == TW_ZERO_CODE) {
        low = fminf(low, 0);
        high = fmaxf(high, 0);
    }
    scale = high - low;
    scale = scale / codes;
    if (s->zero_mode == TW_ZERO_NONE)
        scale = tw_dtype_is_int(s->weight) && !tw_dtype_is_signed(s->weight) ? amax / codes
                                                                             : amax / (codes / 2);
    return scale < FLT_MIN ? FLT_MIN : scale;
}

/* The weight that code number c of the dtype would give in place of element (n, k). */
static double with_code(const result *r, int64_t n, int64_t k, uint32_t c) {
    const tw_scheme *s = &r->scheme;
    uint8_t code = (uint8_t)c;
    int64_t at = n / tw_group_n(s, N) * tw_groups(s, K) + k / tw_group_k(s, K);
    double q = value_at(&code, s->weight, 0), zero = 0;
    if (s->zero_mode == TW_ZERO_CODE) q -= r->zeros[at];
    if (s->zero_mode == TW_ZERO_VALUE) zero = value_at(r->zeros, s->scale, at);
    return q * scale_at(r, at) + zero;
}

static void check_scheme(const char *text, tw_scheme s, const float *w) {
    result r;
    if (quantize(&r, s, N, K, w, STRIDE) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    tw_canonical c = {r.codes, r.scales, r.zeros, NULL, NULL, 0};
    for (int64_t n = 0; n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            int64_t at = n / tw_group_n(&s, N) * tw_groups(&s, K) + k / tw_group_k(&s, K);
            uint8_t stored[4] = {0};
            tw_float_set(stored, s.scale, 0, wanted_scale(&s, w, n, k));
            double scale = scale_at(&r, at), v = (double)w[n * STRIDE + k];
            if (scale != value_at(stored, s.scale, 0))
                fail_msg("%s: scale of [%d,%d] is %a", text, (int)n, (int)k, scale);
            double error = fabs((double)tw_dequantize_one(&r.p, &c, n, k) - v);
            if (scale == 0) continue;
            /* A tie within f32's rounding may go either way. */
            double slack = 0x1p-20 * (scale * 16 + fabs(v));
            const uint8_t *row = r.codes + n * (int64_t)tw_dtype_row_bytes(s.weight, K);
            uint32_t mask = (1u << tw_dtype_bits(s.weight)) - 1,
                     taken = bits_at(row, tw_dtype_bits(s.weight), k);
            for (uint32_t code = 0; code <= mask; code++) {
                /* The error of integers is convex: the neighbours speak for the rest. */
                uint32_t beyond = (code - taken) & mask;
                if (tw_dtype_is_int(s.weight) && beyond != 1 && beyond != mask) continue;
                double other = fabs(with_code(&r, n, k, code) - v);
                if (other + slack < error)
                    fail_msg("%s: [%d,%d] = %g is off by %g, code %u only by %g", text, (int)n,
                             (int)k, v, error, code, other);
            }
        }
}

static void test_every_scheme(void **state) {
    (void)state;
    static const int32_t groups[][2] = {{0, 0}, {1, 0}, {1, 16}, {4, 16}, {0, 32}, {1, 1}};
    float w[N * STRIDE];
    char text[64];
    int checked = 0;
    for (int t = 0; tw_dtype_row(t); t++)
        for (int d = 0; tw_dtype_row(d); d++)
            for (int rest = 0; rest < 3 * (int)TW_COUNT(groups); rest++) {
                tw_scheme s = {tw_dtype_row(t)->dtype,
                               tw_dtype_row(d)->dtype,
                               (tw_zero_mode)(rest % 3),
                               groups[rest / 3][0],
                               groups[rest / 3][1],
                               TW_ACTQ_NONE,
                               0,
                               TW_FPMATH_STRICT};
                bool is_signed = tw_dtype_is_signed(s.weight), is_int = tw_dtype_is_int(s.weight);
                if (tw_scheme_check(&s) != TW_OK || (s.zero_mode == TW_ZERO_CODE && is_signed))
                    continue;
                if ((s.zero_mode && !is_int) || s.weight == TW_LUT4 || s.scale == TW_F16I8)
                    continue;
                snprintf(text, sizeof text, "w=%s,g=%dx%d,s=%s,z=%d", tw_dtype_name(s.weight),
                         s.group_n, s.group_k, tw_dtype_name(s.scale), (int)s.zero_mode);
                fill(w, (uint64_t)checked, s.zero_mode || is_signed || !is_int);
                check_scheme(text, s, w);
                checked++;
            }
    /* Scales: 5 dtypes, value zeros in 4; i: none, value; u: all three; 5 float dtypes: none. */
    assert_int_equal(checked, 6 * (8 * (5 + 4) + 8 * (5 + 5 + 4) + 5 * 5));
}

/* ---- edges and errors ---- */

static void test_all_equal(void **state) {
    (void)state;
    static const char *const texts[] = {
        "w=i4,s=f16",         "w=u4,s=f16",        "w=u4,s=f16,z=code", "w=u4,s=f16,z=value",
        "w=i4,s=f32,z=value", "w=u8,s=f32,z=code", "w=e4m3,s=bf16"};
    const float zeros[4] = {0}, halves[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        result r;
        tw_canonical c = {r.codes, r.scales, r.zeros, NULL, NULL, 0};
        quantize_ok(&r, texts[i], 1, 4, zeros, 4);
        for (int k = 0; k < 4; k++) assert_true(tw_dequantize_one(&r.p, &c, 0, k) == 0);
        for (int64_t b = 0; b < r.code_bytes && scale_at(&r, 0) == 0; b++)
            assert_int_equal(r.codes[b], 0);
        assert_true(scale_at(&r, 0) == (r.scheme.scale == TW_F16 ? 0 : (double)FLT_MIN));
        quantize_ok(&r, texts[i], 1, 4, halves, 4);
        bool exact = r.scheme.zero_mode == TW_ZERO_VALUE;
        for (int k = 0; k < 4; k++)
            assert_true(fabs((double)tw_dequantize_one(&r.p, &c, 0, k) - 0.5) <=
                        (exact ? 0 : 0.034));
    }
}

static void test_not_finite(void **state) {
    (void)state;
    static const char *const texts[] = {"w=i4,g=2", "w=u8,z=code,g=2", "w=u4,z=value", "w=e2m1",
                                        "w=i8,g=tensor"};
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        result r;
        float w[] = {1, 2, 3, 4, 5, NAN};
        assert_int_equal(quantize(&r, scheme_of(texts[i]), 2, 3, w, 3), TW_INVALID);
        assert_non_null(strstr(tw_error_message(), "nan at [1,2], must be finite"));
        w[5] = 6;
        w[1] = -INFINITY;
        assert_int_equal(quantize(&r, scheme_of(texts[i]), 2, 3, w, 3), TW_INVALID);
        assert_string_equal(tw_error_message(), "weight: -inf at [0,1], must be finite");
    }
    result r;
    assert_int_equal(quantize(&r, scheme_of("w=bf16"), 1, 2, (const float[]){1, INFINITY}, 2),
                     TW_INVALID);
    assert_string_equal(tw_error_message(), "weight: inf at [0,1], must be finite in bf16");
}

static void test_overflow(void **state) {
    (void)state;
    result r;
    const float w[] = {1, 2, 3, 4, 1e6f, -1e6f};
    assert_int_equal(quantize(&r, scheme_of("w=i4,g=2,s=f16"), 1, 6, w, 6), TW_INVALID);
    assert_string_equal(
        tw_error_message(),
        "weight: the group of [0,4] has scale 133333, above f16's largest value 65504");
    assert_int_equal(quantize(&r, scheme_of("w=i8,s=e4m3"), 3, 2, w, 2), TW_INVALID);
    assert_string_equal(
        tw_error_message(),
        "weight: the group of [2,0] has scale 7843.14, above e4m3's largest value 448");
    const float far[] = {1e6f, 1e6f + 8};
    assert_int_equal(quantize(&r, scheme_of("w=u4,s=f16,z=value"), 1, 2, far, 2), TW_INVALID);
    assert_string_equal(
        tw_error_message(),
        "weight: the group of [0,0] has zero 1e+06, above f16's largest value 65504");
    const float whole[] = {FLT_MAX, -FLT_MAX};
    assert_int_equal(quantize(&r, scheme_of("w=u4,z=code"), 1, 2, whole, 2), TW_INVALID);
    assert_int_equal(quantize(&r, scheme_of("w=i4"), 1, 2, whole, 2), TW_OK);
}

static void test_refused(void **state) {
    (void)state;
    result r;
    const float w[4] = {1, 2, 3, 4};
    assert_int_equal(quantize(&r, scheme_of("w=i4,z=code"), 2, 2, w, 2), TW_UNSUPPORTED);
    assert_string_equal(tw_error_message(),
                        "z: code, zeros are u8 codes and cannot centre w=i4; use unsigned weights");
    assert_int_equal(quantize(&r, scheme_of("w=u4,s=f16i8,g=2"), 2, 2, w, 2), TW_UNSUPPORTED);
    assert_non_null(strstr(tw_error_message(), "s: f16i8"));
    assert_int_equal(quantize(&r, scheme_of("w=lut4"), 2, 2, w, 2), TW_UNSUPPORTED);
    assert_string_equal(tw_error_message(), "w: lut4, a range of weights chooses no table");
    assert_int_equal(quantize(&r, scheme_of("w=e4m3,z=value"), 2, 2, w, 2), TW_UNSUPPORTED);
    assert_string_equal(tw_error_message(), "z: value, w=e4m3 is quantized with z=none only");
    assert_int_equal(quantize(&r, scheme_of("w=i4"), 2, 2, w, 1), TW_INVALID);
    assert_string_equal(tw_error_message(), "weight: row stride 1, must be at least K=2");
    tw_scheme s = {.weight = TW_U4};
    assert_int_equal(tw_quantize_minmax(&s, 2, 2, w, 2, r.codes, NULL, NULL), TW_INVALID);
    s = scheme_of("w=i4");
    assert_int_equal(tw_quantize_minmax(&s, 0, 2, w, 2, r.codes, r.scales, NULL), TW_INVALID);
    assert_string_equal(tw_error_message(),
                        "weight: shape [0,2], both must be from 1 to 268435456");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symmetric), cmocka_unit_test(test_unsigned_without_zero),
        cmocka_unit_test(test_code_zero), cmocka_unit_test(test_value_zero),
        cmocka_unit_test(test_blocks),    cmocka_unit_test(test_float_codes),
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_every_scheme),
        cmocka_unit_test(test_all_equal), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_overflow),  cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
