/* The oracle against a second one: the same definitions, written down as plainly as they read, and
 * equal in every bit. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/reference.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/formats.h"
#include "tests/core/random.h"

/* ---- random layers ---- */

typedef struct layer {
    tw_problem p;
    tw_canonical c;
    uint8_t *weight, *scales, *zeros, *bias;
} layer;

static uint8_t *random_floats(uint64_t *seed, tw_dtype dtype, int64_t count) {
    uint8_t *data = calloc((size_t)count + 1, 4);
    assert_non_null(data);
    for (int64_t i = 0; i < count; i++) {
        tw_float_set(data, dtype, i, random_unit(seed));
        /* Some scales and zeros are 0. */
        if (random_int(seed, 0, 15) == 0) tw_float_set(data, dtype, i, 0);
    }
    return data;
}

static layer make_layer(const char *text, uint64_t seed) {
    layer l = {0};
    if (tw_problem_parse(text, true, &l.p) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    const tw_scheme *s = &l.p.scheme;
    int64_t count = tw_scale_rows(s, l.p.N) * tw_groups(s, l.p.K);
    size_t row = tw_dtype_row_bytes(s->weight, l.p.K);
    l.weight = calloc((size_t)l.p.N, row);
    assert_non_null(l.weight);
    for (int64_t n = 0; n < l.p.N; n++)
        for (int64_t k = 0; k < l.p.K; k++) {
            void *at = l.weight + n * (int64_t)row;
            do {
                if (tw_dtype_bits(s->weight) > 8)
                    tw_float_set(at, s->weight, k, random_unit(&seed));
                else
                    tw_code_set(at, s->weight, k, (int32_t)random_int(&seed, 0, 255));
            } while (!isfinite(value_at(at, s->weight, k)));
        }
    if (s->scale) l.scales = random_floats(&seed, s->scale, count);
    if (s->zero_mode == TW_ZERO_VALUE) l.zeros = random_floats(&seed, s->scale, count);
    if (s->zero_mode == TW_ZERO_CODE) {
        l.zeros = calloc((size_t)count, 1);
        for (int64_t i = 0; i < count; i++) l.zeros[i] = (uint8_t)random_int(&seed, 0, 255);
    }
    if (l.p.bias) l.bias = random_floats(&seed, l.p.bias, l.p.N);
    l.c = (tw_canonical){l.weight, l.scales, l.zeros, l.bias, NULL, 0};
    if (tw_act_given(&l.p.scheme)) l.c.act_scale = 0.05f;
    return l;
}

static void free_layer(layer *l) {
    free(l->weight);
    free(l->scales);
    free(l->zeros);
    free(l->bias);
}

/* ---- the second oracle; volatile keeps every f32 operation by itself ---- */

/* w[n,k], or q * scale without what a value zero adds. */
static float plain_term(const layer *l, int64_t n, int64_t k, bool whole) {
    const tw_scheme *s = &l->p.scheme;
    size_t row = (size_t)(l->p.K * tw_dtype_bits(s->weight) + 7) / 8;
    float q = (float)value_at(l->weight + n * (int64_t)row, s->weight, k);
    if (s->scale == TW_NONE) return q;
    int64_t rows = s->group_n ? s->group_n : l->p.N, columns = s->group_k ? s->group_k : l->p.K;
    int64_t at = n / rows * ((l->p.K + columns - 1) / columns) + k / columns;
    volatile float scale = (float)value_at(l->scales, s->scale, at), product;
    if (s->zero_mode == TW_ZERO_CODE) q -= l->zeros[at];
    product = q * scale;
    if (whole && s->zero_mode == TW_ZERO_VALUE)
        product = product + (float)value_at(l->zeros, s->scale, at);
    return product;
}

static float plain_weight(const layer *l, int64_t n, int64_t k) {
    return plain_term(l, n, k, true);
}

/* |w|, and half of |q * scale| where sums of codes cannot round that as w does. */
static double plain_size(const layer *l, int64_t n, int64_t k) {
    const tw_scheme *s = &l->p.scheme;
    double size = fabs((double)plain_weight(l, n, k));
    bool rounds =
        s->zero_mode == TW_ZERO_VALUE && s->scale == TW_F32 && s->act_quant && !tw_act_rounds(s);
    return rounds ? size + fabs((double)plain_term(l, n, k, false)) / 2 : size;
}

static double plain_half_even(double v) {
    double low = floor(v), over = v - low;
    if (over > 0.5 || (over == 0.5 && fmod(low, 2) != 0)) low += 1;
    return low;
}

static double plain_clamp(double v, double least, double most) {
    return v < least ? least : v > most ? most : v;
}

/* x[k] as the layer sees it. */
static double plain_x(const layer *l, const float *x, int64_t k) {
    const tw_scheme *s = &l->p.scheme;
    int64_t K = l->p.K;
    if (tw_act_rounds(s)) { /* which tests/quant/test_act.c is about */
        float out[300];
        tw_act_token token;
        assert_true(K <= 300);
        tw_act_begin(&token, s, l->p.x, TW_F32, K, l->c.act_scale, x);
        tw_act_span(&token, 0, K, out);
        return (double)out[k];
    }
    int64_t group = s->act_group ? s->act_group : K, k0 = k / group * group;
    volatile float low = 0, high = 0, scale, inverse, product;
    if (!s->act_quant) return (double)x[k];
    for (int64_t i = k0; i < K && i < k0 + group; i++) {
        if (!isfinite(x[i])) return NAN;
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    if (s->act_quant == TW_ACTQ_I8) {
        scale = (-low > high ? -low : high) / 127.0f;
        inverse = 1.0f / scale;
        if (isinf(inverse)) return 0;
        product = x[k] * inverse;
        return plain_clamp(plain_half_even((double)product), -127, 127) * (double)scale;
    }
    scale = (high - low) / 255.0f;
    if (isinf(scale)) return NAN;
    inverse = 1.0f / scale;
    if (isinf(inverse)) return 0;
    product = -low * inverse;
    double zero = plain_clamp(plain_half_even((double)product), 0, 255);
    product = x[k] * inverse;
    double code = plain_clamp(plain_half_even((double)product) + zero, 0, 255);
    return (code - zero) * (double)scale;
}

static double plain_y(const layer *l, const float *x, int64_t n, double *magnitude) {
    volatile double sum = 0;
    *magnitude = 0;
    for (int64_t k = 0; k < l->p.K; k++) {
        volatile double product = plain_x(l, x, k) * (double)plain_weight(l, n, k);
        sum = sum + product;
        *magnitude += fabs(plain_x(l, x, k)) * plain_size(l, n, k);
    }
    if (l->p.bias) sum = sum + value_at(l->bias, l->p.bias, n);
    return tw_act_apply(l->p.act, sum);
}

/* ---- whole layers ---- */

static void fill_x(const layer *l, uint64_t seed, void *x, int64_t stride) {
    for (int64_t m = 0; m < l->p.M; m++)
        for (int64_t k = 0; k < l->p.K; k++) {
            float v = random_unit(&seed) * (float)(1 << (m % 5));
            if (m == 1) v = 0;                  /* a token of zeros */
            if (m == 2) v = fabsf(v) + 1;       /* one that does not reach 0 */
            if (m == 3 && k % 17 == 0) v *= 64; /* one with outliers */
            tw_float_set(x, l->p.x, m * stride + k, v);
        }
}

static void check_row(const layer *l, const char *text, const float *row, const uint8_t *y,
                      int64_t m, int64_t y_stride) {
    int64_t N = l->p.N;
    double *out = calloc((size_t)N, sizeof *out), *size = calloc((size_t)N, sizeof *size);
    /* In two pieces, as a verifier may ask for them. */
    int64_t cut = N / 3;
    tw_reference_row(&l->p, &l->c, row, 0, cut, out, size);
    tw_reference_row(&l->p, &l->c, row, cut, N, out + cut, NULL);
    for (int64_t n = 0; n < N; n++) {
        double magnitude, expected = plain_y(l, row, n, &magnitude);
        uint8_t bytes[4];
        if (!same(out[n], expected))
            fail_msg("%s: y[%d,%d] is %a, not %a", text, (int)m, (int)n, out[n], expected);
        if (n < cut && size[n] != magnitude)
            fail_msg("%s: |y|[%d,%d] is %a, not %a", text, (int)m, (int)n, size[n], magnitude);
        tw_double_set(bytes, l->p.y, 0, expected);
        int each = tw_dtype_bits(l->p.y) / 8;
        if (memcmp(bytes, y + (m * y_stride + n) * each, (size_t)each))
            fail_msg("%s: y[%d,%d] as stored", text, (int)m, (int)n);
    }
    free(out);
    free(size);
}

static void check_layer(const char *text) {
    layer l = make_layer(text, strlen(text));
    int64_t M = l.p.M, N = l.p.N, K = l.p.K, x_stride = K + 3, y_stride = N + 5;
    uint8_t *x = malloc((size_t)(M * x_stride) * 4), *y = malloc((size_t)(M * y_stride) * 4);
    float *row = calloc((size_t)K, sizeof *row);
    memset(x, 0xff, (size_t)(M * x_stride) * 4); /* NaN between the rows */
    memset(y, 0xee, (size_t)(M * y_stride) * 4);
    fill_x(&l, 5, x, x_stride);
    tw_reference_linear(&l.p, &l.c, x, x_stride, y, y_stride, M);
    int each = tw_dtype_bits(l.p.y) / 8;
    for (int64_t m = 0; m < M; m++) {
        for (int64_t k = 0; k < K; k++) row[k] = (float)value_at(x, l.p.x, m * x_stride + k);
        check_row(&l, text, row, y, m, y_stride);
        for (int64_t b = (m * y_stride + N) * each; b < (m + 1) * y_stride * each; b++)
            if (y[b] != 0xee) fail_msg("%s: written between the rows of y", text);
    }
    float *weights = malloc((size_t)K * sizeof *weights);
    for (int64_t n = 0; n < N; n++) {
        tw_dequantize_row(&l.p, &l.c, n, weights);
        for (int64_t k = 0; k < K; k++) {
            float expected = plain_weight(&l, n, k), one = tw_dequantize_one(&l.p, &l.c, n, k);
            if (!same((double)expected, (double)weights[k]) || !same((double)expected, (double)one))
                fail_msg("%s: w[%d,%d] is %a, not %a", text, (int)n, (int)k, (double)weights[k],
                         (double)expected);
        }
    }
    free(weights);
    free(row);
    free(x);
    free(y);
    free_layer(&l);
}

static void test_layers(void **state) {
    (void)state;
    static const char *const texts[] = {
        "M=9,N=70,K=300,w=u4,g=32,s=f16,z=value,a=i8g32",
        "M=9,N=70,K=300,w=u4,g=128,s=f16,z=code,a=i8",
        "M=17,N=3,K=37,w=i8,a=i8",
        "M=4,N=65,K=257,w=i4,g=64,s=bf16,a=i8z,y=bf16,bias=f32",
        "M=5,N=7,K=129,w=u8,g=tensor,z=value,a=i8z,act=relu",
        "M=2,N=130,K=100,w=u4,g=48x64,s=f32,z=code,y=f16,x=f16",
        "M=4,N=5,K=100,w=i3,g=2x0,s=e4m3,z=value,x=bf16",
        "M=4,N=5,K=100,w=u2,g=0x16,s=e8m0,z=code,a=i8g48,x=bf16",
        "M=1,N=1,K=1,w=u1,s=f32",
        "M=1,N=2,K=7,w=i1,g=3,z=code,bias=bf16,act=silu",
        "M=4,N=9,K=50,w=u3,g=16,s=f16,z=value,a=i8g16,act=gelu",
        "M=4,N=9,K=50,w=i5,g=16,s=f16,z=code,act=gelu_tanh,y=f16",
        "M=4,N=9,K=50,w=u6,g=16,s=f16,z=none,a=i8g64",
        "M=4,N=9,K=50,w=i6,g=1,s=f16,z=none,a=i8g7",
        "M=4,N=9,K=50,w=u7,g=64,s=f16,z=code,a=i8z",
        "M=4,N=9,K=50,w=i2,g=50,s=f16,z=value,a=i8g100",
        "M=4,N=9,K=50,w=u5,g=7,s=bf16,z=value",
        "M=4,N=9,K=50,w=i7,g=1000000,s=bf16,z=value",
        "M=4,N=9,K=50,w=e4m3,g=4x16,s=f32",
        "M=4,N=9,K=50,w=e5m2,g=tensor,s=f32,a=i8",
        "M=4,N=9,K=50,w=e3m2,g=32,s=e8m0",
        "M=4,N=9,K=50,w=e2m3,g=32,s=e8m0,a=i8g32",
        "M=4,N=9,K=50,w=e2m1,g=16,s=e4m3,x=bf16,y=bf16",
        "M=4,N=9,K=50,w=e2m1,g=32,s=f16,z=value,x=bf16",
        "M=4,N=9,K=257,w=e4m3,g=channel,s=f32,a=e4m3",
        "M=9,N=9,K=150,w=e4m3,g=128x128,a=e4m3g128,x=bf16,bias=f32",
        "M=4,N=3,K=50,w=u4,g=32,s=f32,z=value,a=e4m3g7,x=f16",
        "M=4,N=9,K=150,w=i8,a=i8s,act=silu",
        "M=4,N=9,K=150,w=e5m2,g=tensor,a=e4m3s,x=f16",
        "M=4,N=9,K=170,w=e4m3,g=32,s=e8m0,a=mxfp8,x=bf16",
        "M=4,N=9,K=50,w=e2m1,g=32,s=e8m0,a=mxfp4floor,x=bf16",
        "M=4,N=9,K=150,w=e2m1,g=16,s=e4m3,a=nvfp4,x=bf16",
        "M=4,N=9,K=150,w=e2m1,g=16,s=f32,a=nvfp4t",
        "M=4,N=9,K=19,w=u2,g=16,s=f32,a=nvfp4s",
        "M=9,N=66,K=140,w=f32,x=f32,bias=f16",
        "M=9,N=66,K=140,w=f16,x=f16",
        "M=9,N=66,K=140,w=bf16,x=bf16,y=f32,act=silu",
    };
    for (size_t i = 0; i < TW_COUNT(texts); i++) check_layer(texts[i]);
}

/* Many rows at once are the same as one by one, bit by bit. */
static void test_rows_at_once(void **state) {
    (void)state;
    enum { M = 11, N = 70, K = 300, N0 = 3 };
    static float x[M][K];
    static double one[2][N], out[M][N], magnitude[M][N];
    const float *xs[M];
    double *outs[M], *magnitudes[M];
    layer l = make_layer("M=11,N=70,K=300,w=u4,g=32,s=f16,z=value,a=i8g64,bias=f32,act=silu", 7);
    fill_x(&l, 3, x, K);
    for (int m = 0; m < M; m++) xs[m] = x[m], outs[m] = out[m], magnitudes[m] = magnitude[m];
    for (int with = 0; with < 2; with++) {
        tw_reference_rows(&l.p, &l.c, M, xs, N0, N, outs, with ? magnitudes : NULL);
        for (int m = 0; m < M; m++) {
            tw_reference_row(&l.p, &l.c, x[m], N0, N, one[0], one[1]);
            assert_memory_equal(one[0], out[m], (N - N0) * sizeof(double));
            if (with) assert_memory_equal(one[1], magnitude[m], (N - N0) * sizeof(double));
        }
    }
    free_layer(&l);
}

static void test_no_rows(void **state) {
    (void)state;
    layer l = make_layer("M=1,N=3,K=5,w=u4", 1);
    float y = 7;
    tw_reference_linear(&l.p, &l.c, NULL, 5, &y, 3, 0);
    assert_true(y == 7);
    free_layer(&l);
}

/* Numbers that can be followed by hand. */
static void test_by_hand(void **state) {
    (void)state;
    tw_problem p;
    assert_int_equal(tw_problem_parse("N=2,K=4,w=u4,g=2,z=code,bias=f32,act=relu", false, &p),
                     TW_OK);
    const uint8_t weight[] = {0x21, 0x43, 0x65, 0x87}; /* 1 2 3 4, 5 6 7 8 */
    const float scales[] = {0.5f, 2, 1, 0}, bias[] = {0.25f, -100};
    const uint8_t zeros[] = {1, 4, 8, 3};
    tw_canonical c = {weight, scales, zeros, bias, NULL, 0};
    const float w[2][4] = {{0, 0.5f, -2, 0}, {-3, -2, 0, 0}}, x[] = {1, 2, 3, 4};
    for (int n = 0; n < 2; n++)
        for (int k = 0; k < 4; k++) assert_true(tw_dequantize_one(&p, &c, n, k) == w[n][k]);
    double y[2], magnitude[2];
    p.act = TW_ACT_NONE;
    tw_reference_row(&p, &c, x, 0, 2, y, magnitude);
    assert_true(y[0] == 1 - 6 + 0.25 && y[1] == -3 - 4 - 100);
    assert_true(magnitude[0] == 7 && magnitude[1] == 7);
    p.act = TW_ACT_RELU;
    tw_reference_row(&p, &c, x, 0, 2, y, NULL);
    assert_true(y[0] == 0 && y[1] == 0);
}

/* Codes are indices; the table's values take the scale as any code does. */
static void test_lut_by_hand(void **state) {
    (void)state;
    tw_problem p;
    assert_int_equal(tw_problem_parse("N=2,K=3,w=lut4,g=2,s=f16", false, &p), TW_OK);
    const uint8_t weight[] = {0xf0, 0x01, 0x87, 0x0f};     /* 0 15 1, 7 8 15 */
    const uint16_t scales[] = {0x3c00, 0x4000, 0xb800, 0}; /* 1 2, -0.5 0 */
    const float lut[TW_LUT4_SIZE] = {-1, 0.25f, [7] = 8, [8] = -3, [15] = 100};
    tw_canonical c = {weight, scales, NULL, NULL, lut, 0};
    const float w[2][3] = {{-1, 100, 0.5f}, {-4, 1.5f, 0}};
    float row[3];
    for (int n = 0; n < 2; n++) {
        tw_dequantize_row(&p, &c, n, row);
        for (int k = 0; k < 3; k++) {
            assert_true(tw_dequantize_one(&p, &c, n, k) == w[n][k]);
            assert_true(row[k] == w[n][k]);
        }
    }
}

/* 1.125 * (1 + 2^-23) - 1.125 in f32: the product is rounded to 1.125 + 2^-23 first; contracted,
 * the difference would be 1.125 * 2^-23. */
static void test_not_contracted(void **state) {
    (void)state;
    tw_problem p;
    assert_int_equal(tw_problem_parse("N=1,K=1,w=e2m3,z=value", false, &p), TW_OK);
    const uint8_t weight = 0x09; /* 1.125 */
    const float scale = 1 + 0x1p-23f, zero = -1.125f;
    tw_canonical c = {&weight, &scale, &zero, NULL, NULL, 0};
    volatile float product = 1.125f * scale;
    volatile float expected = product + zero;
    assert_true(tw_dequantize_one(&p, &c, 0, 0) == expected);
    assert_true(fmaf(1.125f, scale, zero) != expected);
}

/* y is rounded from double once: by way of f32 this tie would go the other way. */
static void test_y_rounds_once(void **state) {
    (void)state;
    tw_problem p;
    assert_int_equal(tw_problem_parse("N=1,K=3,w=f32,y=f16", false, &p), TW_OK);
    const float weight[] = {1, 0x1p-11f, 0x1p-40f}, x[] = {1, 1, 1};
    tw_canonical c = {weight, NULL, NULL, NULL, NULL, 0};
    uint16_t y[2] = {0, 0xeeee};
    tw_reference_linear(&p, &c, x, 3, y, 1, 1);
    assert_int_equal(y[0], 0x3c01);
    assert_int_equal(y[1], 0xeeee);
}

/* ---- activations ---- */

static tw_scheme scheme_of(const char *text) {
    tw_scheme s;
    if (tw_scheme_parse(text, &s) != TW_OK) fail_msg("%s: %s", text, tw_error_message());
    return s;
}

static void test_token_i8(void **state) {
    (void)state;
    tw_scheme s = scheme_of("w=u4,a=i8");
    const float x[] = {127, -127, 62.5f, 63.5f, -0.5f, 0.5f, 1.5f, -2.5f, 0, 126.6f};
    const int16_t expected[] = {127, -127, 62, 64, 0, 0, 2, -2, 0, 127};
    int16_t codes[10];
    float scale;
    int32_t zero = 5;
    tw_quantize_token(&s, TW_F32, 10, x, codes, &scale, &zero);
    assert_true(scale == 1);
    assert_int_equal(zero, 0);
    for (int k = 0; k < 10; k++) assert_int_equal(codes[k], expected[k]);
}

static void test_token_i8_groups(void **state) {
    (void)state;
    tw_scheme s = scheme_of("w=u4,g=2,a=i8g4");
    const float x[] = {1, 2, -254, 3, 0, 0, 0, 0, 508, 4};
    const int16_t expected[] = {0, 1, -127, 2, 0, 0, 0, 0, 127, 1};
    int16_t codes[10];
    float scales[4] = {9, 9, 9, 9};
    int32_t zeros[3] = {9, 9, 9};
    tw_quantize_token(&s, TW_F32, 10, x, codes, scales, zeros);
    /* 0.5 goes to 0, 1.5 to 2. */
    for (int k = 0; k < 10; k++) assert_int_equal(codes[k], expected[k]);
    assert_true(scales[0] == 2 && scales[1] == 0 && scales[2] == 4 && scales[3] == 9);
    for (int g = 0; g < 3; g++) assert_int_equal(zeros[g], 0);
}

static void test_token_i8z(void **state) {
    (void)state;
    tw_scheme s = scheme_of("w=u4,a=i8z");
    static const struct {
        float x[4], scale;
        int16_t codes[4];
        int32_t zero;
    } rows[] = {
        {{-100, 155, 0, 0.5f}, 1, {0, 255, 100, 100}, 100},
        {{255, 10, 20, 2.5f}, 1, {255, 10, 20, 2}, 0},          /* min is 0, not 2.5 */
        {{-255, -1, -1.5f, -2.5f}, 1, {0, 254, 253, 253}, 255}, /* max is 0 */
        {{0, 0, 0, 0}, 0, {0, 0, 0, 0}, 0},
        {{-0.5f, 254.5f, 0, 1}, 1, {0, 254, 0, 1}, 0}, /* -0.5 and 254.5 go to the even ones */
        {{-1.5f, 253.5f, 0, 1}, 1, {0, 255, 2, 3}, 2}, /* 254 + 2 is clamped */
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        int16_t codes[4];
        float scale;
        int32_t zero;
        tw_quantize_token(&s, TW_F32, 4, rows[i].x, codes, &scale, &zero);
        assert_true(scale == rows[i].scale);
        assert_int_equal(zero, rows[i].zero);
        for (int k = 0; k < 4; k++) assert_int_equal(codes[k], rows[i].codes[k]);
    }
}

static void test_token_i8full(void **state) {
    (void)state;
    tw_scheme s = scheme_of("w=u4,a=i8full");
    const float x[] = {127.5f, -127.5f, 62.5f, 63.5f, -0.5f, 126.6f};
    const int16_t expected[] = {127, -128, 62, 64, 0, 127};
    int16_t codes[6];
    float scale;
    int32_t zero = 5;
    tw_quantize_token(&s, TW_F32, 6, x, codes, &scale, &zero);
    assert_true(scale == 1);
    assert_int_equal(zero, 0);
    for (int k = 0; k < 6; k++) assert_int_equal(codes[k], expected[k]);
}

/* torchao's values for bf16 x, by hand: the scale, and for i8z 1 / s and each product, in bf16. */
static void test_token_bf16(void **state) {
    (void)state;
    const float x[] = {1, 0.4453125f, -0.3515625f};
    int16_t codes[3];
    float scale;
    int32_t zero;
    tw_scheme full = scheme_of("w=u4,a=i8full"), asymmetric = scheme_of("w=u4,a=i8z");
    tw_quantize_token(&full, TW_BF16, 3, x, codes, &scale, &zero);
    assert_true(scale == 0x1.02p-7f); /* 1 / 127.5 = 0x1.0101p-7 */
    assert_true(codes[0] == 127 && codes[1] == 57 && codes[2] == -45);
    tw_quantize_token(&full, TW_F32, 3, x, codes, &scale, &zero);
    assert_true(scale == 1 / 127.5f);
    /* 1.3515625 / 255 = 0x1.5b5p-8 to 0x1.5cp-8; 1 / s = 188.3 to 188; 1 * 188, 83.7 to 83.5 to
     * 84, -66.1 to -66; zero 0.3515625 / s = 66.2. */
    tw_quantize_token(&asymmetric, TW_BF16, 3, x, codes, &scale, &zero);
    assert_true(scale == 0x1.5cp-8f);
    assert_int_equal(zero, 66);
    assert_int_equal(codes[0], 66 + 188);
    assert_int_equal(codes[1], 66 + 84);
    assert_int_equal(codes[2], 0);
}

/* The reciprocal decides, not the quotient: where the two disagree, and they do. */
static void test_token_multiplies(void **state) {
    (void)state;
    tw_scheme s = scheme_of("w=u4,a=i8");
    uint64_t seed = 11;
    int differs = 0;
    for (int i = 0; i < 200000; i++) {
        float x[2] = {1 + random_unit(&seed) / 4, 0};
        volatile float scale = x[0] / 127.0f, inverse = 1.0f / scale, product, quotient;
        /* Beside a tie, where one rounding more or less shows. */
        x[1] = ((float)random_int(&seed, 0, 125) + 0.5f) * scale;
        product = x[1] * inverse;
        quotient = x[1] / scale;
        int16_t codes[2];
        float got;
        int32_t zero;
        tw_quantize_token(&s, TW_F32, 2, x, codes, &got, &zero);
        assert_true(got == scale && codes[1] == (int16_t)plain_half_even((double)product));
        differs += plain_half_even((double)product) != plain_half_even((double)quotient);
    }
    assert_true(differs > 100);
}

static void test_token_edges(void **state) {
    (void)state;
    static const char *const schemes[] = {"w=u4,a=i8", "w=u4,a=i8z", "w=u4,a=i8full"};
    const float tiny = 0x1p-149f;
    for (size_t i = 0; i < TW_COUNT(schemes); i++) {
        tw_scheme s = scheme_of(schemes[i]);
        int16_t codes[3];
        float scale;
        int32_t zero;
        static const float broken[][3] = {
            {1, NAN, 2}, {NAN, 1, 2}, {1, 2, INFINITY}, {-INFINITY, 0, 0}};
        for (size_t j = 0; j < TW_COUNT(broken); j++) {
            memset(codes, 1, sizeof codes);
            tw_quantize_token(&s, TW_F32, 3, broken[j], codes, &scale, &zero);
            assert_true(isnan(scale));
            assert_true(!codes[0] && !codes[1] && !codes[2] && !zero);
        }
        /* Too small for 1 / s. */
        const float small[][3] = {{tiny, 0, -tiny}, {0, 0, -0.0f}, {0x1p-122f, 0, 0}};
        for (size_t j = 0; j < TW_COUNT(small); j++) {
            memset(codes, 1, sizeof codes);
            tw_quantize_token(&s, TW_F32, 3, small[j], codes, &scale, &zero);
            assert_true(scale == 0);
            assert_true(!codes[0] && !codes[1] && !codes[2] && !zero);
        }
        const float large[] = {FLT_MAX, 0, -FLT_MAX / 2};
        tw_quantize_token(&s, TW_F32, 3, large, codes, &scale, &zero);
        assert_true(s.act_quant != TW_ACTQ_I8Z ? isfinite(scale) && codes[0] == 127 : isnan(scale));
    }
}

/* One bad x spoils its row, and no other. */
static void test_nan_stays_in_its_row(void **state) {
    (void)state;
    static const char *const texts[] = {"M=3,N=4,K=64,w=u4,g=32,a=i8",
                                        "M=3,N=4,K=64,w=u4,g=32,a=i8g32",
                                        "M=3,N=4,K=64,w=u4,g=32,a=i8z,act=relu",
                                        "M=3,N=4,K=64,w=f32",
                                        "M=3,N=4,K=64,w=u4,a=e4m3",
                                        "M=3,N=4,K=64,w=u4,a=e4m3g16",
                                        "M=3,N=4,K=64,w=u4,a=i8s",
                                        "M=3,N=4,K=64,w=u4,a=mxfp8",
                                        "M=3,N=4,K=64,w=u4,a=nvfp4t",
                                        "M=3,N=4,K=64,w=u4,a=e4m3s"};
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        layer l = make_layer(texts[i], 9);
        float x[3 * 64], y[12];
        fill_x(&l, 1, x, 64);
        x[64 + 40] = i % 2 ? NAN : INFINITY;
        if (i == 3) x[64 + 40] = NAN;
        tw_reference_linear(&l.p, &l.c, x, 64, y, 4, 3);
        for (int n = 0; n < 4; n++) {
            assert_true(isfinite(y[n]) && isfinite(y[8 + n]));
            assert_true(isnan(y[4 + n]));
        }
        free_layer(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_rows_at_once),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_lut_by_hand),
        cmocka_unit_test(test_not_contracted),
        cmocka_unit_test(test_y_rounds_once),
        cmocka_unit_test(test_token_i8),
        cmocka_unit_test(test_token_i8_groups),
        cmocka_unit_test(test_token_i8full),
        cmocka_unit_test(test_token_bf16),
        cmocka_unit_test(test_token_i8z),
        cmocka_unit_test(test_token_multiplies),
        cmocka_unit_test(test_token_edges),
        cmocka_unit_test(test_nan_stays_in_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
