/* Layouts: what was packed comes back bit for bit, and neither way touches memory outside. */
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "templates/template.h"
#include "tests/base/cmocka_all.h"
#include "tests/kernels/guard.h"
#include "tests/kernels/layer.h"
#include "tests/kernels/sample.h"

static void same_bytes(const tw_problem *p, const char *what, const void *a, const void *b,
                       size_t size) {
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) {
            tw_str text = {0};
            tw_problem_text(p, &text);
            fail_msg("%s: byte %zu of %zu of the %s is %02x, was %02x", tw_str_text(&text), i, size,
                     what, ((const uint8_t *)b)[i], ((const uint8_t *)a)[i]);
        }
}

typedef struct canonical_size {
    size_t weight, scales, zeros;
} canonical_size;

static canonical_size sizes_of(const layer *l) {
    const tw_problem *p = &l->problem;
    const tw_scheme *s = &p->scheme;
    canonical_size size = {tw_dtype_row_bytes(s->weight, p->K) * (size_t)p->N, 0, 0};
    if (tw_scheme_plain(s)) return size;
    size.scales = (size_t)layer_scales(l) * (size_t)tw_dtype_bits(s->scale) / 8;
    size.zeros = (size_t)layer_scales(l) * (size_t)tw_dtype_bits(tw_zero_dtype(s)) / 8;
    return size;
}

/* Packs and unpacks with the guard on one side. */
static void round_trip(const tw_layout *layout, const layer *l, bool at_end) {
    const tw_problem *p = &l->problem;
    tw_canonical canonical = layer_canonical(l);
    canonical_size size = sizes_of(l);
    guard packed = guard_new(layout->bytes(p), 64, at_end, 0xff);
    guard whole = guard_new(layout->bytes(p), 64, at_end, 0);
    /* Outputs start out full of ones: every byte has to be written. */
    guard weight = guard_new(size.weight, 1, at_end, 0xff);
    guard scales = guard_new(size.scales, 4, at_end, 0xff);
    guard zeros = guard_new(size.zeros, 4, at_end, 0xff);
    /* In parts, last part first, over whatever was there: the same as at once. */
    for (int64_t n1 = p->N, n0; n1 > 0; n1 = n0) {
        n0 = (n1 - 1) / TW_PACK_ROWS * TW_PACK_ROWS;
        layout->pack(p, &canonical, false, n0, n1, packed.data);
    }
    layout->pack(p, &canonical, false, 0, p->N, whole.data);
    same_bytes(p, "parts", whole.data, packed.data, layout->bytes(p));
    guard_free(&whole);
    guard_read_only(&packed);
    layout->unpack(p, packed.data, weight.data, size.scales ? scales.data : NULL,
                   size.zeros ? zeros.data : NULL);
    same_bytes(p, "weight", l->weight, weight.data, size.weight);
    same_bytes(p, "scales", l->scales, scales.data, size.scales);
    same_bytes(p, "zeros", l->zeros, zeros.data, size.zeros);
    /* Each output by itself. */
    memset(weight.data, 0xff, size.weight);
    layout->unpack(p, packed.data, NULL, NULL, NULL);
    layout->unpack(p, packed.data, weight.data, NULL, NULL);
    same_bytes(p, "weight", l->weight, weight.data, size.weight);
    if (size.scales) {
        memset(scales.data, 0xff, size.scales);
        layout->unpack(p, packed.data, NULL, scales.data, NULL);
        same_bytes(p, "scales", l->scales, scales.data, size.scales);
    }
    guard_free(&packed);
    guard_free(&weight);
    guard_free(&scales);
    guard_free(&zeros);
}

static int check_problem(const tw_problem *problem, uint64_t seed) {
    int holders = 0;
    layer l;
    tw_problem p = *problem;
    p.M = 0;
    layer_init(&l, &p, LAYER_RANDOM, seed);
    for (int i = 0; tw_layout_row(i); i++) {
        const tw_layout *layout = tw_layout_row(i);
        if (layout->reject(&p)) continue;
        holders++;
        round_trip(layout, &l, seed % 2);
    }
    layer_free(&l);
    return holders;
}

/* Every weight dtype with every granularity, zeros and scale dtypes. */
static void test_schemes(void **state) {
    (void)state;
    static samples s;
    samples_init(&s, 1, false);
    for (int i = 0; i < s.count; i++) {
        tw_problem p;
        assert_true(sample_problem(&s.list[i], &p));
        assert_true(check_problem(&p, (uint64_t)i) > 0);
    }
    samples_free(&s);
}

/* Every tail of N and of K, for each weight dtype. */
static void test_tails(void **state) {
    (void)state;
    for (int i = 0; tw_dtype_row(i); i++) {
        tw_dtype d = tw_dtype_row(i)->dtype;
        tw_problem p = {.N = 1, .K = 1, .x = TW_F32, .y = TW_F32};
        p.scheme.weight = d;
        if (tw_dtype_is_scale_only(d)) continue;
        if (!tw_dtype_is_real(d)) {
            p.scheme.scale = TW_F16;
            p.scheme.group_n = 1;
            p.scheme.group_k = 32;
            p.scheme.zero_mode = tw_dtype_is_int(d) ? TW_ZERO_CODE : TW_ZERO_NONE;
        }
        for (p.K = 1; p.K <= 100; p.K++) {
            p.N = 1 + p.K % 9;
            assert_true(check_problem(&p, (uint64_t)p.K) > 0);
        }
        for (p.N = 1, p.K = 7; p.N <= 130; p.N++) assert_true(check_problem(&p, (uint64_t)p.N) > 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_tails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
