/* Generated data: the same everywhere, legal, and awkward enough. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/data.h"
#include "src/core/dtype.h"
#include "tests/autotune/fake.h"

static tw_data data_of(const tw_problem *p) {
    tw_data d;
    assert_int_equal(tw_data_create(p, &d), TW_OK);
    return d;
}

static void test_same_problem_same_data(void **state) {
    (void)state;
    tw_problem p = fake_problem("M=2,N=40,K=70,w=u3,g=16,s=f16,z=value,bias=f32");
    tw_data a = data_of(&p), b = data_of(&p);
    assert_memory_equal(a.weight, b.weight, a.weight_bytes);
    assert_memory_equal(a.scales, b.scales, a.scale_bytes);
    assert_memory_equal(a.zeros, b.zeros, a.zero_bytes);
    assert_memory_equal(a.bias, b.bias, a.bias_bytes);
    tw_data_free(&a);
    tw_data_free(&b);
    assert_null(a.weight);
}

/* Parts in any order, over memory that holds anything: what is created at once. */
static void test_parts_make_the_whole(void **state) {
    (void)state;
    static const char *const texts[] = {
        "M=1,N=700,K=5000,w=u4,g=32,s=f16,z=value,bias=f16", "M=1,N=700,K=5000,w=i8,g=tensor",
        "M=1,N=700,K=5000,w=u3,g=48x100,s=bf16,z=value", "M=1,N=300,K=9000,w=f16"};
    for (size_t t = 0; t < TW_COUNT(texts); t++) {
        tw_problem p = fake_problem(texts[t]);
        tw_data whole = data_of(&p), d;
        assert_int_equal(tw_data_reserve(&p, &d), TW_OK);
        memset(d.weight, 0xa5, d.weight_bytes);
        if (d.scales) memset(d.scales, 0xa5, d.scale_bytes);
        if (d.zeros) memset(d.zeros, 0xa5, d.zero_bytes);
        size_t parts = tw_data_parts(&p);
        assert_true(parts > 2);
        while (parts--) tw_data_fill(&p, &d, parts);
        assert_memory_equal(d.weight, whole.weight, d.weight_bytes);
        if (d.scales) assert_memory_equal(d.scales, whole.scales, d.scale_bytes);
        if (d.zeros) assert_memory_equal(d.zeros, whole.zeros, d.zero_bytes);
        if (d.bias) assert_memory_equal(d.bias, whole.bias, d.bias_bytes);
        tw_data_free(&d);
        tw_data_free(&whole);
    }
}

/* The mixing function's published first outputs from seed 0 are mix(0), mix(golden), ... */
static void test_mix_is_splitmix64(void **state) {
    (void)state;
    assert_true(tw_data_mix(0) == 0xe220a8397b1dcdafu);
    assert_true(tw_data_mix(0x9e3779b97f4a7c15u) == 0x6e789e6aa1b965f4u);
}

static void test_codes_use_their_range_and_leave_pad_bits_clear(void **state) {
    (void)state;
    for (tw_dtype dtype = TW_I1; dtype <= TW_U8; dtype++) {
        if (!tw_dtype_is_int(dtype)) continue;
        tw_problem p = fake_problem("M=1,N=64,K=61,w=u8,g=16");
        p.scheme.weight = dtype;
        tw_data d = data_of(&p);
        size_t row = tw_dtype_row_bytes(dtype, p.K);
        int32_t least = 1000, most = -1000;
        for (int64_t n = 0; n < p.N; n++) {
            const uint8_t *codes = (const uint8_t *)d.weight + (size_t)n * row;
            for (int64_t k = 0; k < p.K; k++) {
                int32_t code = tw_code_get(codes, dtype, k);
                least = code < least ? code : least;
                most = code > most ? code : most;
            }
            int used = (int)(p.K * tw_dtype_bits(dtype) % 8);
            if (used) assert_int_equal(codes[row - 1] >> used, 0);
        }
        assert_int_equal(least, tw_dtype_min(dtype));
        assert_int_equal(most, tw_dtype_max(dtype));
        tw_data_free(&d);
    }
}

static void test_every_weight_is_finite(void **state) {
    (void)state;
    static const char *const schemes[] = {"e4m3", "e5m2", "e3m2", "e2m3", "e2m1"};
    for (size_t i = 0; i < TW_COUNT(schemes); i++) {
        char text[64];
        snprintf(text, sizeof text, "M=1,N=50,K=100,g=32,s=e8m0,w=%s", schemes[i]);
        tw_problem p = fake_problem(text);
        tw_data d = data_of(&p);
        tw_canonical c = tw_data_canonical(&d);
        for (int64_t n = 0; n < p.N; n++)
            for (int64_t k = 0; k < p.K; k++)
                assert_true(isfinite(tw_dequantize_one(&p, &c, n, k)));
        tw_data_free(&d);
    }
}

static void test_scales_differ_and_zeros_avoid_the_middle(void **state) {
    (void)state;
    tw_problem p = fake_problem("M=1,N=32,K=256,w=u4,g=32,s=f16,z=code");
    tw_data d = data_of(&p);
    int64_t count = p.N * tw_groups(&p.scheme, p.K);
    int zero = 0, negative = 0, kinds[256] = {0};
    for (int64_t i = 0; i < count; i++) {
        float s = tw_float_get(d.scales, TW_F16, i);
        assert_true(isfinite(s));
        zero += s == 0;
        negative += s < 0;
        if (i) assert_true(s != tw_float_get(d.scales, TW_F16, i - 1));
        uint8_t z = ((uint8_t *)d.zeros)[i];
        assert_true(z < 16 && z != 8);
        kinds[z]++;
    }
    assert_int_equal(zero, 1);
    assert_true(negative > count / 16 && negative < count / 4);
    for (int z = 0; z < 16; z++) assert_true(z == 8 || kinds[z]);
    tw_data_free(&d);
}

/* Of value zeros an eighth of the rows: what is left of q * s and z is small beside them. */
static void test_value_zeros_cancel(void **state) {
    (void)state;
    tw_problem p = fake_problem("M=1,N=64,K=250,w=u4,g=32,s=f16,z=value");
    tw_data d = data_of(&p);
    tw_canonical c = tw_data_canonical(&d);
    int rows = 0;
    for (int64_t n = 0; n < p.N; n++) {
        int cancelled = 0, left = 0;
        for (int64_t k = 0; k < p.K; k++) {
            double zero = (double)tw_float_get(d.zeros, TW_F16, n * 8 + k / 32);
            double w = (double)tw_dequantize_one(&p, &c, n, k);
            cancelled += fabs(w) <= fabs(zero) / 1024;
            left += w != 0;
        }
        rows += cancelled > p.K / 2 && left;
    }
    assert_int_equal(rows, 8);
    tw_data_free(&d);
}

static void test_results_fit_f16(void **state) {
    (void)state;
    static const char *const texts[] = {"M=1,N=8,K=4096,w=u8,g=32,s=f16,z=value",
                                        "M=1,N=8,K=4096,w=i8,s=e4m3", "M=1,N=8,K=4096,w=f32",
                                        "M=1,N=8,K=4096,w=u4,z=code,g=128,s=bf16"};
    for (size_t t = 0; t < TW_COUNT(texts); t++) {
        tw_problem p = fake_problem(texts[t]);
        tw_data d = data_of(&p);
        tw_canonical c = tw_data_canonical(&d);
        float *x = malloc(4096 * sizeof *x);
        double y[8];
        for (int64_t i = 0; i < 4; i++) {
            tw_data_probe(&p, i, x);
            tw_reference_row(&p, &c, x, 0, p.N, y, NULL);
            for (int n = 0; n < 8; n++) assert_true(fabs(y[n]) < 65504);
        }
        free(x);
        tw_data_free(&d);
    }
}

static void test_edge_rows_hold_ties_zeros_and_a_silent_group(void **state) {
    (void)state;
    tw_problem p = fake_problem("M=1,N=8,K=256,x=f16,w=u4,g=32,z=code,a=i8g32");
    float x[256], other[256];
    tw_data_probe(&p, 1, x);
    int ties = 0, zeros = 0, negative_zeros = 0, silent = 0;
    for (int g = 0; g < 8; g++) {
        float most = 0;
        for (int k = 32 * g; k < 32 * g + 32; k++) {
            most = fmaxf(most, fabsf(x[k]));
            ties += fabsf(x[k]) - floorf(fabsf(x[k])) == 0.5f;
            zeros += x[k] == 0;
            negative_zeros += x[k] == 0 && signbit(x[k]);
        }
        assert_true(most == 127 || most == 0);
        silent += most == 0;
    }
    assert_true(ties > 20 && zeros > 20 && negative_zeros > 5);
    assert_int_equal(silent, 1);
    /* Rows differ, and hold what x's dtype can hold. */
    for (int64_t i = 0; i < 8; i++) {
        tw_data_probe(&p, i, x);
        tw_data_probe(&p, i + 2, other);
        assert_memory_not_equal(x, other, sizeof x);
        for (int k = 0; k < 256; k++) {
            uint16_t half;
            tw_float_set(&half, TW_F16, 0, x[k]);
            assert_true(tw_float_get(&half, TW_F16, 0) == x[k]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_problem_same_data),
        cmocka_unit_test(test_parts_make_the_whole),
        cmocka_unit_test(test_mix_is_splitmix64),
        cmocka_unit_test(test_codes_use_their_range_and_leave_pad_bits_clear),
        cmocka_unit_test(test_every_weight_is_finite),
        cmocka_unit_test(test_scales_differ_and_zeros_avoid_the_middle),
        cmocka_unit_test(test_value_zeros_cancel),
        cmocka_unit_test(test_results_fit_f16),
        cmocka_unit_test(test_edge_rows_hold_ties_zeros_and_a_silent_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
