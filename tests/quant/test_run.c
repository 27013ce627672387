/* Vectorized runs against the formulas element by element: tails, roundings, what is refused. */
#include <math.h>
#include <string.h>

#include "src/core/dtype.h"
#include "src/quant/run.h"
#include "tests/base/cmocka_all.h"

enum { MOST = 600 };

/* Ties, both zeros, tiny, huge and infinite values among ordinary ones. */
static void fill(float *x) {
    static const float special[] = {0,         -0.0F,   0.5F,     -0.5F, 1.5F,   2.5F, -2.5F,
                                    0x1p-149F, 0x1p22F, -0x1p23F, 1e38F, -1e38F, 7.5F, 1048576.5F};
    uint32_t seed = 1;
    for (int i = 0; i < MOST; i++) {
        seed = seed * 1664525 + 1013904223;
        x[i] = i % 3 ? (float)(seed >> 8) / 0x1p20F - 8 : special[i / 3 % 14];
    }
}

static float rounded(const tw_run *r, float v) {
    return r->rounds ? tw_float_round(TW_BF16, v) : v;
}

/* The formula, element by element. */
static float steps(const tw_run *r, float x) {
    if (r->divide) return rintf(rounded(r, rounded(r, x - r->least) / r->scale));
    return rounded(r, rintf(rounded(r, x * r->scale)) + (float)r->zero);
}

static void check_codes(const tw_run *run, const float *x, int64_t count) {
    uint8_t codes[MOST + 1], expected[MOST + 1] = {0};
    uint16_t half[MOST] = {0};
    memset(codes, 0xA5, sizeof codes);
    for (int64_t k = 0; k < count; k++) tw_float_set(half, TW_BF16, k, x[k]);
    assert_true(tw_run_codes(run, run->x == TW_BF16 ? (const void *)half : x, count, codes));
    for (int64_t k = 0; k < count; k++) {
        float v = run->x == TW_BF16 ? tw_float_get(half, TW_BF16, k) : x[k];
        float code = fminf(fmaxf(steps(run, v), (float)run->qmin), (float)run->qmax);
        tw_code_set(expected, run->code, k, (int32_t)code);
    }
    size_t bytes = tw_dtype_row_bytes(run->code, count);
    assert_memory_equal(codes, expected, bytes);
    assert_int_equal(codes[bytes], 0xA5); /* nothing behind them is written */
}

static const char *const isas[] = {"plain", "avx2", "avx512"};

static void test_codes(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 15, 16, 17, 127, 128, 255, 256, 257, 513, MOST};
    static const tw_dtype dtypes[] = {TW_U4, TW_I4, TW_U8, TW_I8, TW_U1, TW_I2, TW_U3, TW_I7};
    static const float scales[] = {0, 1, 0.3F, 1e-30F, 0x1p126F};
    float x[MOST];
    fill(x);
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (size_t c = 0; c < TW_COUNT(counts); c++)
            for (size_t d = 0; d < TW_COUNT(dtypes); d++)
                for (size_t i = 0; i < TW_COUNT(scales); i++)
                    for (int kind = 0; kind < 6; kind++) {
                        int32_t least = tw_dtype_min(dtypes[d]), most = tw_dtype_max(dtypes[d]);
                        tw_run run = {.x = kind % 3 ? TW_BF16 : TW_F32,
                                      .rounds = kind % 3 == 2,
                                      .code = dtypes[d],
                                      .qmin = least,
                                      .qmax = most,
                                      .divide = kind >= 3,
                                      .scale = kind >= 3 && !i ? 2.0F : scales[i],
                                      .least = -3.3F,
                                      .zero = least + (most - least) / 3};
                        check_codes(&run, x, counts[c]);
                    }
    }
    tw_run_force(NULL);
}

/* What the caller knows to be bounded, where the fast way is another. */
static void test_bounded(void **state) {
    (void)state;
    float x[MOST];
    for (int i = 0; i < MOST; i++) x[i] = (float)(i * 7919 % 4001 - 2000) / 16;
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (int count = 1; count <= MOST; count += count < 70 ? 1 : 53)
            for (int zero = -3; zero <= 15; zero += 3) {
                tw_run run = {.x = TW_F32,
                              .code = zero < 0 ? TW_I4 : TW_U4,
                              .scale = 0.5F,
                              .zero = zero,
                              .bounded = true};
                run.qmin = tw_dtype_min(run.code), run.qmax = tw_dtype_max(run.code);
                check_codes(&run, x, count);
                run.code = zero < 0 ? TW_I8 : TW_U8, run.scale = 131.0F;
                run.qmin = tw_dtype_min(run.code), run.qmax = tw_dtype_max(run.code);
                check_codes(&run, x, count);
            }
    }
    tw_run_force(NULL);
}

static void test_range(void **state) {
    (void)state;
    float x[MOST];
    uint16_t half[MOST] = {0};
    fill(x);
    for (int i = 0; i < MOST; i++) tw_float_set(half, TW_BF16, i, x[i]);
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (int count = 1; count <= 100; count++)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                float min = INFINITY, max = -INFINITY, least = INFINITY, most = -INFINITY;
                assert_true(tw_run_range(bf16 ? (void *)half : x, bf16 ? TW_BF16 : TW_F32, count,
                                         &min, &max));
                for (int i = 0; i < count; i++) {
                    float v = bf16 ? tw_float_get(half, TW_BF16, i) : x[i];
                    least = fminf(least, v), most = fmaxf(most, v);
                }
                assert_true(min == least && max == most);
            }
    }
    tw_run_force(NULL);
}

/* The first of the nearest, by the distances themselves. */
static void test_table_codes(void **state) {
    (void)state;
    static const float table[16] = {-8, -4, -4, -2, -1, -0.5F, 0, 0.25F, 0.5F, 1, 2, 3, 4, 6, 7, 8};
    float x[MOST];
    uint16_t half[MOST] = {0};
    for (int i = 0; i < MOST; i++) {
        x[i] = (float)(i * 37 % 401 - 200) / 16;
        tw_float_set(half, TW_BF16, i, x[i]);
    }
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (int count = 1; count <= MOST; count += count < 40 ? 1 : 97)
            for (int bf16 = 0; bf16 < 2; bf16++) {
                uint8_t codes[MOST + 1];
                memset(codes, 0xA5, sizeof codes);
                assert_true(tw_run_table(bf16 ? (void *)half : x, bf16 ? TW_BF16 : TW_F32, count,
                                         1.25F, table, codes));
                for (int i = 0; i < count; i++) {
                    float v = (bf16 ? tw_float_get(half, TW_BF16, i) : x[i]) / 1.25F;
                    int best = 0;
                    for (int j = 1; j < 16; j++)
                        if (fabsf(table[j] - v) < fabsf(table[best] - v)) best = j;
                    assert_int_equal(codes[i], best);
                }
                assert_int_equal(codes[count], 0xA5);
            }
        uint8_t code;
        assert_false(tw_run_table(&(float){0}, TW_F32, 1, 0, table, &code));
    }
    tw_run_force(NULL);
}

/* Every narrow float dtype: what storing one by one gives. */
static void test_cast(void **state) {
    (void)state;
    static const tw_dtype dtypes[] = {TW_E4M3, TW_E5M2, TW_E3M2, TW_E2M3, TW_E2M1};
    static const int counts[] = {1, 3, 4, 7, 8, 15, 16, 17, 33, MOST};
    float x[MOST];
    uint16_t half[MOST] = {0};
    uint32_t seed = 3;
    for (int i = 0; i < MOST; i++) {
        /* Any exponent, and few bits of mantissa, so that there are ties. */
        seed = seed * 1664525 + 1013904223;
        uint32_t bits = (seed & 0x807fffff) | (100 + seed % 47) << 23;
        if (i % 2) bits &= 0xfff80000;
        memcpy(&x[i], &bits, sizeof x[i]);
        if (i % 50 == 7) x[i] = i % 100 == 7 ? INFINITY : 0;
        tw_float_set(half, TW_BF16, i, x[i]);
    }
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (size_t d = 0; d < TW_COUNT(dtypes); d++)
            for (size_t c = 0; c < TW_COUNT(counts); c++)
                for (int kind = 0; kind < 4; kind++) {
                    bool bf16 = kind & 1, divide = kind & 2;
                    uint8_t codes[MOST + 1];
                    memset(codes, 0xA5, sizeof codes);
                    assert_true(tw_run_cast(bf16 ? (const void *)half : x, bf16 ? TW_BF16 : TW_F32,
                                            counts[c], 0.7F, divide, dtypes[d], codes));
                    for (int i = 0; i < counts[c]; i++) {
                        float v = bf16 ? tw_float_get(half, TW_BF16, i) : x[i];
                        uint8_t expected = 0;
                        tw_double_set(&expected, dtypes[d], 0,
                                      (double)(divide ? v / 0.7F : v * 0.7F));
                        if (codes[i] != expected)
                            fail_msg("%s of %a: %x, expected %x", tw_dtype_name(dtypes[d]),
                                     (double)v, codes[i], expected);
                    }
                    assert_int_equal(codes[counts[c]], 0xA5);
                    x[0] = isa ? NAN : 0;
                    bool good = tw_run_cast(x, TW_F32, counts[c], 0, true, dtypes[d], codes);
                    assert_false(good);
                    x[0] = tw_float_get(half, TW_BF16, 0);
                }
    }
    tw_run_force(NULL);
}

/* Wherever it stands. */
static void test_refuses(void **state) {
    (void)state;
    uint8_t codes[MOST];
    const tw_run run = {.x = TW_F32, .code = TW_U4, .qmax = 15, .scale = 1};
    for (size_t isa = 0; isa < TW_COUNT(isas); isa++) {
        if (!tw_run_force(isas[isa])) continue;
        for (int at = 0; at < 40; at++) {
            float x[40] = {0}, min = INFINITY, max = -INFINITY;
            x[at] = NAN;
            assert_false(tw_run_codes(&run, x, 40, codes));
            assert_false(tw_run_range(x, TW_F32, 40, &min, &max));
            x[at] = -INFINITY, min = INFINITY, max = -INFINITY;
            assert_false(tw_run_range(x, TW_F32, 40, &min, &max));
        }
    }
    assert_true(tw_run_force(NULL));
    assert_false(tw_run_force("sse9"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes),       cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_range),       cmocka_unit_test(test_cast),
        cmocka_unit_test(test_table_codes), cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
