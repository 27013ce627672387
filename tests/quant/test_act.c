/* Activations are rounded as the primitives of src/quant, which are torchao's in every bit,
 * quantize and dequantize: the two are written apart, one for speed. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/str.h"
#include "src/core/dtype.h"
#include "src/quant/float8.h"
#include "src/quant/mx.h"
#include "src/quant/nvfp4.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/random.h"

enum { ROWS = 64, K = 96 };

static tw_scheme scheme_of(const char *a) {
    tw_scheme s;
    char text[64];
    snprintf(text, sizeof text, "w=u4,a=%s", a);
    if (tw_scheme_parse(text, &s) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    return s;
}

/* Rows of all sizes, with zeros, ties, powers of two and subnormal numbers in them. */
static void fill(tw_dtype dtype, uint64_t seed, void *x) {
    for (int m = 0; m < ROWS; m++) {
        int spread = dtype == TW_F16 ? m % 14 - 7 : m * 5 - 149;
        for (int k = 0; k < K; k++) {
            float v = random_unit(&seed);
            if (k % 7 == 3) v = 0;
            if (k % 11 == 5) v = ldexpf(k % 2 ? -1 : 1, -(k % 9));
            if (k % 13 == 6) v = (float)(int)(v * 64) / 32;
            if (m % 5 == 4 && k < 48) v = 0;
            if (spread > 120) v /= 2;
            tw_float_set(x, dtype, m * K + k, ldexpf(v, tw_min(spread, 126)));
        }
    }
}

static void check_same(const char *a, tw_dtype dtype, int m, int k, float is, float expected) {
    /* 0 of either sign is 0. */
    if (is == expected || (isnan(is) && isnan(expected))) return;
    fail_msg("a=%s, x=%s [%d,%d]: %.9g, expected %.9g", a, tw_dtype_name(dtype), m, k, (double)is,
             (double)expected);
}

static void round_row(const char *a, tw_dtype dtype, float given, const void *x, int m,
                      float out[K]) {
    tw_scheme s = scheme_of(a);
    const char *row = (const char *)x + (size_t)m * tw_dtype_row_bytes(dtype, K);
    tw_act_round(&s, dtype, K, given, row, out);
    /* By the piece, from f32, as the oracle asks for it. */
    float wide[K], piece[K];
    tw_act_token token;
    for (int k = 0; k < K; k++) wide[k] = tw_float_get(row, dtype, k);
    tw_act_begin(&token, &s, dtype, TW_F32, K, given, wide);
    for (int k = 0, step = 1; k < K; k += step, step = k % 23 + 1) {
        tw_act_span(&token, k, tw_min(K, k + step), piece);
        for (int i = k; i < tw_min(K, k + step); i++)
            check_same(a, dtype, m, i, piece[i - k], out[i]);
    }
    tw_act_begin(&token, &s, dtype, dtype, K, given, row);
    tw_act_span(&token, 0, K, piece);
    for (int k = 0; k < K; k++) check_same(a, dtype, m, k, piece[k], out[k]);
}

static const tw_dtype reals[] = {TW_F32, TW_BF16, TW_F16};

static void test_float8(void **state) {
    (void)state;
    static const struct {
        const char *a;
        int64_t group;
    } rows[] = {{"e4m3", K}, {"e4m3g32", 32}, {"e4m3g7", 7}, {"e4m3g1000", K}, {"e4m3g1", 1}};
    float x[ROWS * K], out[K], scales[ROWS * K];
    uint8_t codes[ROWS * K];
    for (size_t i = 0; i < TW_COUNT(rows) * TW_COUNT(reals); i++) {
        tw_dtype dtype = reals[i % 3];
        int64_t group = rows[i / 3].group, groups = tw_ceil_div(K, group);
        tw_float8 f = {ROWS, K, 1, group, dtype, TW_E4M3};
        fill(dtype, i, x);
        assert_int_equal(tw_float8_choose(&f, x, scales), TW_OK);
        assert_int_equal(tw_float8_quantize(&f, x, scales, codes), TW_OK);
        for (int m = 0; m < ROWS; m++) {
            round_row(rows[i / 3].a, dtype, 0, x, m, out);
            for (int k = 0; k < K; k++) {
                float scale = scales[m * groups + k / group];
                float code = tw_float_get(codes, TW_E4M3, m * K + k);
                check_same(rows[i / 3].a, dtype, m, k, out[k], scale == 0 ? 0 : code * scale);
            }
        }
    }
}

static void test_mx(void **state) {
    (void)state;
    static const char *const names[] = {"mxfp8", "mxfp8floor", "mxfp8ceil", "mxfp8even",
                                        "mxfp4", "mxfp4floor", "mxfp4ceil", "mxfp4even"};
    static const tw_mx_rule rules[] = {TW_MX_RCEIL, TW_MX_FLOOR, TW_MX_CEIL, TW_MX_EVEN};
    float x[ROWS * K], out[K];
    uint8_t codes[ROWS * K], scales[ROWS * K];
    for (size_t i = 0; i < TW_COUNT(names) * 2; i++) {
        tw_dtype dtype = reals[i % 2], code = i / 2 < 4 ? TW_E4M3 : TW_E2M1;
        fill(dtype, i, x);
        assert_int_equal(tw_mx_quantize(rules[i / 2 % 4], code, ROWS, K, dtype, x, scales, codes),
                         TW_OK);
        for (int m = 0; m < ROWS; m++) {
            const uint8_t *row = codes + (size_t)m * tw_dtype_row_bytes(code, K);
            round_row(names[i / 2], dtype, 0, x, m, out);
            for (int k = 0; k < K; k++)
                check_same(names[i / 2], dtype, m, k, out[k],
                           tw_float_get(row, code, k) *
                               tw_float_get(scales, TW_E8M0, m * (K / 32) + k / 32));
        }
    }
}

/* The second level of a token is that of a tensor of one row. */
static void test_nvfp4(void **state) {
    (void)state;
    static const char *const names[] = {"nvfp4", "nvfp4t", "nvfp4s"};
    float x[ROWS * K], out[K];
    uint8_t codes[K], scales[K / 16];
    for (size_t i = 0; i < TW_COUNT(names) * 2; i++) {
        tw_dtype dtype = reals[i % 2];
        fill(dtype, i, x);
        for (int m = 0; m < ROWS; m++) {
            const char *row = (const char *)x + (size_t)m * tw_dtype_row_bytes(dtype, K);
            float second = 0;
            if (i / 2 == 1) assert_int_equal(tw_nvfp4_tensor_scale(K, dtype, row, &second), TW_OK);
            if (i / 2 == 2) second = 0.015625f;
            /* Its reciprocal would be infinite: rows so quiet are 0. */
            if (second > 0 && isinf(1 / second)) continue;
            assert_int_equal(tw_nvfp4_quantize(1, K, dtype, row, second, scales, codes), TW_OK);
            round_row(names[i / 2], dtype, i / 2 == 2 ? second : 0, x, m, out);
            for (int k = 0; k < K; k++) {
                float scale = tw_float_get(scales, TW_E4M3, k / 16);
                if (second > 0) scale *= second;
                check_same(names[i / 2], dtype, m, k, out[k],
                           tw_float_get(codes, TW_E2M1, k) * scale);
            }
        }
    }
}

/* Every number between codes, and beyond them: by the generic rounding of a float dtype. */
static void test_every_step(void **state) {
    (void)state;
    tw_scheme e4m3 = scheme_of("e4m3s"), i8 = scheme_of("i8s"), mx = scheme_of("mxfp4");
    for (uint32_t high = 0; high < 1 << 16; high++)
        for (uint32_t low = 0; low < 4; low++) {
            static const uint32_t tails[] = {0, 1, 0x8000, 0xffff};
            uint32_t bits = high << 16 | tails[low];
            float x[2] = {0, 6}, out[2];
            memcpy(x, &bits, sizeof bits);
            if (!isfinite(x[0])) continue;
            tw_act_round(&e4m3, TW_F32, 1, 1, x, out);
            check_same("e4m3s", TW_F32, 0, 0, out[0], tw_float_round(TW_E4M3, x[0]));
            tw_act_round(&i8, TW_F32, 1, 1, x, out);
            check_same("i8s", TW_F32, 0, 0, out[0], fminf(fmaxf(rintf(x[0]), -128), 127));
            if (fabsf(x[0]) > 6) continue;
            tw_act_round(&mx, TW_F32, 2, 0, x, out);
            check_same("mxfp4", TW_F32, 0, 0, out[0], tw_float_round(TW_E2M1, x[0]));
        }
}

static void test_static(void **state) {
    (void)state;
    float x[ROWS * K], out[K], given = 0.03f;
    for (size_t i = 0; i < TW_COUNT(reals); i++) {
        fill(reals[i], i, x);
        for (int m = 0; m < ROWS; m++) {
            const char *row = (const char *)x + (size_t)m * tw_dtype_row_bytes(reals[i], K);
            round_row("i8s", reals[i], given, x, m, out);
            for (int k = 0; k < K; k++) {
                float code = rintf(tw_float_get(row, reals[i], k) * (1 / given));
                check_same("i8s", reals[i], m, k, out[k], fminf(fmaxf(code, -128), 127) * given);
            }
            round_row("e4m3s", reals[i], given, x, m, out);
            for (int k = 0; k < K; k++) {
                float code = tw_float_round(TW_E4M3, tw_float_get(row, reals[i], k) / given);
                check_same("e4m3s", reals[i], m, k, out[k], code * given);
            }
        }
    }
}

/* What shares a scale with a number that is not finite is no number; every a= makes 0 of zeros. */
static void test_not_finite(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    float x[K], out[K];
    for (int i = 0; tw_act_get((tw_act_quant)i); i++) {
        const tw_act_row *row = tw_act_get((tw_act_quant)i);
        if (row->kind <= TW_ACT_KIND_CODES) continue;
        tw_scheme s = scheme_of(row->name);
        float given = row->given ? 0.5f : 0;
        for (size_t b = 0; b < TW_COUNT(bad); b++) {
            for (int k = 0; k < K; k++) x[k] = (float)k;
            x[40] = bad[b];
            tw_act_round(&s, TW_F32, K, given, x, out);
            assert_true(isnan(out[40]));
            bool whole = !row->group || row->token;
            assert_int_equal(isnan(out[0]) != 0, whole);
        }
        memset(x, 0, sizeof x);
        tw_act_round(&s, TW_F32, K, given, x, out);
        for (int k = 0; k < K; k++) assert_true(out[k] == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float8), cmocka_unit_test(test_mx),
        cmocka_unit_test(test_nvfp4),  cmocka_unit_test(test_every_step),
        cmocka_unit_test(test_static), cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
