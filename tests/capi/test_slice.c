/* Slices of canonical tensors equal what quantizing slices of the floats gives; other cuts are
 * refused. */
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "src/quant/quantize.h"
#include "tests/capi/fixture.h"

enum { N = 12, K = 100 };

/* Canonical tensors of a part of one matrix of floats. */
typedef struct part {
    tw_tensor weight, scales, zeros;
    char codes[N * K * 4], scale_data[N * K * 4], zero_data[N * K * 4];
} part;

static float matrix[N][K];

static void fill(void) {
    uint32_t state = 77;
    for (int n = 0; n < N; n++)
        for (int k = 0; k < K; k++) {
            state = state * 1664525 + 1013904223;
            matrix[n][k] = (float)(state >> 20) / 4096 + 0.01f;
        }
}

static void views(part *p, const tw_scheme *s, int64_t rows, int64_t columns) {
    tw_dtype zero = tw_zero_dtype(s);
    int64_t scale_rows = tw_scale_rows(s, rows), groups = tw_groups(s, columns);
    memset(p, 0, sizeof *p);
    p->weight = (tw_tensor)TW_TENSOR_2D(p->codes, s->weight, rows, columns);
    p->scales = (tw_tensor)TW_TENSOR_2D(p->scale_data, s->scale, scale_rows, groups);
    p->zeros = (tw_tensor)TW_TENSOR_2D(p->zero_data, zero, scale_rows, groups);
    if (tw_scheme_plain(s)) p->scales = (tw_tensor){0};
    if (!zero) p->zeros = (tw_tensor){0};
}

static tw_canonical_views of(part *p) {
    return (tw_canonical_views){&p->weight, p->scales.dtype ? &p->scales : NULL,
                                p->zeros.dtype ? &p->zeros : NULL};
}

static void quantize(part *p, const tw_scheme *s, int64_t n0, int64_t n1, int64_t k0, int64_t k1) {
    views(p, s, n1 - n0, k1 - k0);
    check_ok(tw_quantize_minmax(s, n1 - n0, k1 - k0, &matrix[n0][k0], K, p->codes, p->scale_data,
                                p->zero_data));
}

static void same(const tw_tensor *a, const tw_tensor *b) {
    assert_int_equal(a->dtype, b->dtype);
    if (!a->dtype) return;
    assert_int_equal(a->shape[0], b->shape[0]);
    assert_int_equal(a->shape[1], b->shape[1]);
    assert_memory_equal(a->data, b->data, tensor_bytes(a));
}

static void check_slice(const char *text, int64_t n0, int64_t n1, int64_t k0, int64_t k1) {
    static part whole, expected, got;
    tw_scheme s;
    check_ok(tw_scheme_parse(text, &s));
    quantize(&whole, &s, 0, N, 0, K);
    quantize(&expected, &s, n0, n1, k0, k1);
    tw_canonical_views in = of(&whole);
    memset(&got, 0xee, sizeof got);
    tw_tensor w = {0}, sc = {0}, z = {0};
    const tw_canonical_views out = {&w, &sc, &z};
    check_ok(tw_slice(&s, N, K, &in, n0, n1, k0, k1, &out));
    assert_null(w.data);
    assert_int_equal(w.shape[0], n1 - n0);
    w.data = got.codes, sc.data = got.scale_data, z.data = got.zero_data;
    check_ok(tw_slice(&s, N, K, &in, n0, n1, k0, k1, &out));
    same(&expected.weight, &w);
    same(&expected.scales, &sc);
    same(&expected.zeros, &z);
}

static void slices(void **state) {
    (void)state;
    static const char *const texts[] = {
        "w=i4,g=20,s=f16",         "w=u4,g=20,s=f16,z=value", "w=u3,g=20,s=f32,z=code",
        "w=u8,g=20,s=bf16,z=code", "w=i1,g=20,s=f32",         "w=u5,g=20,s=f16,z=value",
        "w=e2m1,g=20,s=e8m0",      "w=e3m2,g=20,s=f32",       "w=f16",
    };
    for (size_t i = 0; i < TW_COUNT(texts); i++) {
        check_slice(texts[i], 0, N, 0, K);
        check_slice(texts[i], 3, 8, 0, K);
        check_slice(texts[i], 11, 12, 20, 60);
        check_slice(texts[i], 0, 5, 60, K);
    }
    check_slice("w=i4,g=channel,s=f16", 2, 7, 0, K);
    check_slice("w=u4,g=tensor,s=f16,z=code", 0, N, 0, K);
    check_slice("w=u4,g=4x20,s=f16,z=code", 4, 12, 20, 80);
    check_slice("w=i6,g=32,s=f16", 1, 2, 96, K); /* the short last group */
    check_slice("w=i6,g=128,s=f16", 1, 2, 0, K);
}

/* Factors go along, and a cut between those of one is refused. */
static void pairs(void **state) {
    (void)state;
    enum { ROWS = 4, WIDTH = 600, GROUPS = 19 };
    static uint8_t codes[ROWS * WIDTH], out_codes[ROWS * WIDTH];
    tw_pair scales[ROWS][GROUPS], out_scales[ROWS][GROUPS];
    for (int n = 0; n < ROWS; n++)
        for (int j = 0; j < GROUPS; j++)
            scales[n][j] = (tw_pair){(uint16_t)(0x3000 + 16 * n + j / 8), (int8_t)(j - 9), 0};
    tw_scheme s;
    check_ok(tw_scheme_parse("w=u8,g=32,s=f16i8", &s));
    tw_tensor w = TW_TENSOR_2D(codes, TW_U8, ROWS, WIDTH),
              sc = TW_TENSOR_2D(scales, TW_F16I8, ROWS, GROUPS), part = {.data = out_codes},
              part_scales = {.data = out_scales};
    const tw_canonical_views in = {&w, &sc, NULL}, out = {&part, &part_scales, NULL};
    check_ok(tw_slice(&s, ROWS, WIDTH, &in, 1, 3, 256, 544, &out));
    assert_int_equal(part_scales.shape[1], 9);
    assert_memory_equal(part_scales.data, &scales[1][8], 9 * sizeof scales[0][0]);
    check_fails(tw_slice(&s, ROWS, WIDTH, &in, 1, 3, 128, 544, &out), TW_INVALID,
                "columns: [128,544), factors of f16i8 begin each 256");
}

static void refused(void **state) {
    (void)state;
    static part whole;
    tw_scheme s;
    tw_tensor w = {0}, sc = {0}, z = {0};
    const tw_canonical_views out = {&w, &sc, &z};
#define TRY(text, n0, n1, k0, k1, part_)                                                           \
    check_ok(tw_scheme_parse(text, &s));                                                           \
    quantize(&whole, &s, 0, N, 0, K);                                                              \
    {                                                                                              \
        tw_canonical_views in = of(&whole);                                                        \
        check_fails(tw_slice(&s, N, K, &in, n0, n1, k0, k1, &out), TW_INVALID, part_);             \
    }
    TRY("w=i4,g=20,s=f16", 0, 4, 10, 40,
        "columns: [10,40), scales belong to groups of columns of 20")
    TRY("w=i4,g=20,s=f16", 0, 4, 0, 90, "columns: [0,90), scales belong to groups")
    TRY("w=i4,g=channel,s=f16", 0, 4, 0, 50, "groups of columns of 100, which it cuts")
    TRY("w=i4,g=tensor,s=f16", 0, 4, 0, K, "rows: [0,4), scales belong to blocks of rows of 12")
    TRY("w=i4,g=4x20,s=f16", 2, 4, 0, K, "rows: [2,4), scales belong to blocks of rows of 4")
    TRY("w=i4,g=20,s=f16", 4, 4, 0, K, "rows: [4,4), must be within [0,12) and not empty")
    TRY("w=i4,g=20,s=f16", 0, 13, 0, K, "rows: [0,13), must be")
    TRY("w=i4,g=20,s=f16", -1, 4, 0, K, "rows: [-1,4), must be")
    TRY("w=i4,g=20,s=f16", 0, 4, 0, 101, "columns: [0,101), must be within [0,100)")
    tw_canonical_views in = of(&whole);
    check_fails(tw_slice(NULL, N, K, &in, 0, 1, 0, K, &out), TW_INVALID, "scheme: NULL");
    check_fails(tw_slice(&s, N, K, NULL, 0, 1, 0, K, &out), TW_INVALID, "in: NULL");
    check_fails(tw_slice(&s, N, K, &in, 0, 1, 0, K, NULL), TW_INVALID, "out: NULL");
    in.zeros = &z;
    check_fails(tw_slice(&s, N, K, &in, 0, 1, 0, K, &out), TW_INVALID, "zeros: given");
    in = of(&whole);
    in.scales = NULL;
    check_fails(tw_slice(&s, N, K, &in, 0, 1, 0, K, &out), TW_INVALID, "scales: NULL");
    in = of(&whole);
    whole.weight.dtype = TW_U4;
    check_fails(tw_slice(&s, N, K, &in, 0, 1, 0, K, &out), TW_INVALID, "weight: dtype u4");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(slices), cmocka_unit_test(pairs),
                                       cmocka_unit_test(refused)};
    fill();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
