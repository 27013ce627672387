/* Codes bit by bit, floats against the definitions of their formats. */
#define _DEFAULT_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "src/core/dtype.h"
#include "tests/base/cmocka_all.h"
#include "tests/core/formats.h"
#include "tests/core/random.h"

static void test_table(void **state) {
    (void)state;
    int count = 0;
    for (; tw_dtype_row(count); count++) {
        const tw_dtype_info *info = tw_dtype_row(count);
        assert_ptr_equal(tw_dtype_get(info->dtype), info);
        assert_int_equal(tw_dtype_parse(info->name, strlen(info->name)), info->dtype);
        assert_string_equal(tw_dtype_name(info->dtype), info->name);
        assert_int_equal(tw_dtype_bits(info->dtype), info->bits);
        assert_int_equal(tw_dtype_is_int(info->dtype),
                         info->kind == TW_KIND_INT || info->kind == TW_KIND_UINT);
        assert_int_equal(tw_dtype_is_signed(info->dtype), info->kind == TW_KIND_INT);
        int sign = info->kind == TW_KIND_FLOAT && info->dtype != TW_E8M0;
        if (info->kind == TW_KIND_FLOAT)
            assert_int_equal(info->bits, sign + info->exponent_bits + info->mantissa_bits);
    }
    assert_int_equal(count, 27);
    assert_null(tw_dtype_row(-1));
}

static void test_no_dtype(void **state) {
    (void)state;
    static const int values[] = {TW_NONE, 12, 16, 25, 32, 41, 1000, -1};
    for (size_t i = 0; i < TW_COUNT(values); i++) {
        assert_null(tw_dtype_get((tw_dtype)values[i]));
        assert_int_equal(tw_dtype_bits((tw_dtype)values[i]), 0);
        assert_string_equal(tw_dtype_name((tw_dtype)values[i]), values[i] ? "?" : "none");
    }
    static const char *const texts[] = {"", "i", "i88", "f3", "F32", "u9", "none", "i4 ", "bf1"};
    for (size_t i = 0; i < TW_COUNT(texts); i++)
        assert_int_equal(tw_dtype_parse(texts[i], strlen(texts[i])), TW_NONE);
    assert_int_equal(tw_dtype_parse("i88", 2), TW_I8);
}

static void test_integer_range(void **state) {
    (void)state;
    assert_int_equal(tw_dtype_min(TW_I8), -128);
    assert_int_equal(tw_dtype_max(TW_I8), 127);
    assert_int_equal(tw_dtype_min(TW_I1), -1);
    assert_int_equal(tw_dtype_max(TW_I1), 0);
    assert_int_equal(tw_dtype_min(TW_U3), 0);
    assert_int_equal(tw_dtype_max(TW_U3), 7);
    assert_int_equal(tw_dtype_max(TW_U8), 255);
    assert_int_equal(tw_dtype_row_bytes(TW_U3, 9), 4);
    assert_int_equal(tw_dtype_row_bytes(TW_U4, 9), 5);
    assert_int_equal(tw_dtype_row_bytes(TW_I1, 8), 1);
    assert_int_equal(tw_dtype_row_bytes(TW_F32, 3), 12);
    assert_int_equal(tw_dtype_row_bytes(TW_U8, (int64_t)1 << 40), (int64_t)1 << 40);
}

enum { COUNT = 83 };

/* A row that ends where memory ends: an access past it faults. */
static uint8_t *guarded_row(size_t size, void **whole) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(two, MAP_FAILED);
    assert_int_equal(mprotect(two + page, page, PROT_NONE), 0);
    *whole = two;
    return two + page - size;
}

static void test_codes(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (int r = 0; tw_dtype_row(r); r++) {
        tw_dtype dtype = tw_dtype_row(r)->dtype;
        int bits = tw_dtype_bits(dtype);
        if (bits > 8 || tw_dtype_row(r)->kind == TW_KIND_FLOAT) continue;
        bool is_int = tw_dtype_is_int(dtype);
        int least = is_int ? tw_dtype_min(dtype) : 0, most = is_int ? tw_dtype_max(dtype) : 15;
        assert_int_equal(most - least + 1, 1 << bits);
        void *whole;
        size_t size = tw_dtype_row_bytes(dtype, COUNT);
        uint8_t *row = guarded_row(size, &whole);
        int32_t codes[COUNT] = {0};
        /* Each write in a random place must leave all other elements as they were. */
        for (int step = 0; step < 4 * COUNT; step++) {
            int64_t i = random_int(&seed, 0, COUNT - 1);
            codes[i] = (int32_t)random_int(&seed, least, most);
            tw_code_set(row, dtype, i, codes[i]);
            for (int64_t j = 0; j < COUNT; j++) {
                assert_int_equal(tw_code_get(row, dtype, j), codes[j]);
                assert_int_equal(bits_at(row, bits, j), (uint32_t)codes[j] & ((1u << bits) - 1));
            }
        }
        for (int64_t b = (int64_t)COUNT * bits; b < (int64_t)size * 8; b++)
            assert_int_equal(row[b / 8] >> (b % 8) & 1, 0);
        munmap(whole, 2 * (size_t)sysconf(_SC_PAGESIZE));
    }
}

static void test_literal_codes(void **state) {
    (void)state;
    uint8_t row[3] = {0};
    tw_code_set(row, TW_U4, 0, 5);
    tw_code_set(row, TW_U4, 1, 12);
    assert_int_equal(row[0], 0xc5);
    tw_code_set(row, TW_I4, 2, -1);
    assert_int_equal(row[1], 0x0f);
    uint8_t three[3] = {0};
    tw_code_set(three, TW_U3, 2, 7); /* bits 6, 7, 8 */
    assert_int_equal(three[0], 0xc0);
    assert_int_equal(three[1], 0x01);
    /* Pad bits keep what they were. */
    uint8_t pad = 0xf0;
    tw_code_set(&pad, TW_U4, 0, 3);
    assert_int_equal(pad, 0xf3);
}

/* ---- floats ---- */

static void put_code(void *data, const tw_dtype_info *t, uint32_t code) {
    uint16_t half = (uint16_t)code;
    if (t->bits == 16)
        memcpy(data, &half, 2);
    else
        *(uint8_t *)data = (uint8_t)code;
}

static uint32_t take_code(const void *data, const tw_dtype_info *t) {
    uint16_t half;
    memcpy(&half, data, 2);
    return t->bits == 16 ? half : *(const uint8_t *)data;
}

static void test_every_code_decodes(void **state) {
    (void)state;
    for (int r = 0; tw_dtype_row(r); r++) {
        const tw_dtype_info *t = tw_dtype_row(r);
        if (t->kind != TW_KIND_FLOAT || t->bits == 32) continue;
        for (uint32_t code = 0; code < 1u << t->bits; code++) {
            uint8_t data[2] = {0};
            put_code(data, t, code);
            float value = tw_float_get(data, t->dtype, 0);
            if (!same((double)value, value_of(t, code)))
                fail_msg("%s 0x%x is read as %a, not %a", t->name, code, (double)value,
                         value_of(t, code));
            /* Back to the same code; where a NaN has several, to a NaN. */
            tw_float_set(data, t->dtype, 0, value);
            if (t->bits == 8 && isinf(value)) continue; /* saturates: test_saturation */
            if (isnan(value) ? !isnan(tw_float_get(data, t->dtype, 0)) : take_code(data, t) != code)
                fail_msg("%s 0x%x comes back as 0x%x", t->name, code, take_code(data, t));
        }
    }
}

static void test_specified_values(void **state) {
    (void)state;
    /* OCP Microscaling Formats v1.0, section 5.3, and OCP OFP8 v1.0, table 1. */
    static const struct {
        tw_dtype dtype;
        uint32_t code;
        double value;
    } rows[] = {
        {TW_E4M3, 0x7e, 448},
        {TW_E4M3, 0x08, 0x1p-6},
        {TW_E4M3, 0x07, 0x1.cp-7},
        {TW_E4M3, 0x01, 0x1p-9},
        {TW_E4M3, 0x38, 1},
        {TW_E4M3, 0xb8, -1},
        {TW_E5M2, 0x7b, 57344},
        {TW_E5M2, 0x04, 0x1p-14},
        {TW_E5M2, 0x01, 0x1p-16},
        {TW_E5M2, 0x7c, (double)INFINITY},
        {TW_E5M2, 0xfc, (double)-INFINITY},
        {TW_E3M2, 0x1f, 28},
        {TW_E3M2, 0x04, 0.25},
        {TW_E3M2, 0x01, 0.0625},
        {TW_E3M2, 0x3f, -28},
        {TW_E2M3, 0x1f, 7.5},
        {TW_E2M3, 0x08, 1},
        {TW_E2M3, 0x01, 0.125},
        {TW_E2M1, 0x1, 0.5},
        {TW_E2M1, 0x2, 1},
        {TW_E2M1, 0x3, 1.5},
        {TW_E2M1, 0x4, 2},
        {TW_E2M1, 0x5, 3},
        {TW_E2M1, 0x6, 4},
        {TW_E2M1, 0x7, 6},
        {TW_E2M1, 0xf, -6},
        {TW_E8M0, 0, 0x1p-127},
        {TW_E8M0, 127, 1},
        {TW_E8M0, 254, 0x1p127},
        {TW_F16, 0x7bff, 65504},
        {TW_F16, 0x0001, 0x1p-24},
        {TW_F16, 0x3555, 0x1.554p-2},
        {TW_BF16, 0x7f7f, 0x1.fep127},
        {TW_BF16, 0x0001, 0x1p-133},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        uint8_t data[2] = {0};
        put_code(data, tw_dtype_get(rows[i].dtype), rows[i].code);
        if (!same((double)tw_float_get(data, rows[i].dtype, 0), rows[i].value))
            fail_msg("%s 0x%x", tw_dtype_name(rows[i].dtype), rows[i].code);
    }
    static const struct {
        tw_dtype dtype;
        float most;
    } most[] = {{TW_F32, 0x1.fffffep127f}, {TW_F16, 65504},
                {TW_BF16, 0x1.fep127f},    {TW_E4M3, 448},
                {TW_E5M2, 57344},          {TW_E3M2, 28},
                {TW_E2M3, 7.5f},           {TW_E2M1, 6},
                {TW_E8M0, 0x1p127f},       {TW_F16I8, 65504 * 127.0f}};
    for (size_t i = 0; i < TW_COUNT(most); i++)
        assert_true(tw_float_max(most[i].dtype) == most[i].most);
}

static uint32_t encoded(const tw_dtype_info *t, double value) {
    uint8_t data[2] = {0};
    tw_double_set(data, t->dtype, 0, value);
    return take_code(data, t);
}

/* Between any two neighbouring codes: the middle goes to the even one, anything beside it to the
 * nearer one, however little beside it is. */
static void test_rounding_between_neighbours(void **state) {
    (void)state;
    for (int r = 0; tw_dtype_row(r); r++) {
        const tw_dtype_info *t = tw_dtype_row(r);
        if (t->kind != TW_KIND_FLOAT || t->bits == 32 || t->dtype == TW_E8M0) continue;
        uint32_t sign = 1u << (t->bits - 1);
        for (uint32_t low = 0; low + 1 < sign; low++) {
            double a = value_of(t, low), b = value_of(t, low + 1);
            if (!isfinite(b)) break;
            double middle = (a + b) / 2, above = nextafter(middle, b), below = nextafter(middle, a);
            uint32_t even = low + (low & 1);
            if (encoded(t, middle) != even || encoded(t, below) != low ||
                encoded(t, above) != low + 1 || encoded(t, -middle) != (even | sign) ||
                encoded(t, -below) != (low | sign) || encoded(t, -above) != ((low + 1) | sign))
                fail_msg("%s between 0x%x and 0x%x", t->name, low, low + 1);
        }
    }
}

/* An f16 times an i8; setting it keeps the factor. */
static void test_pairs(void **state) {
    (void)state;
    static const struct {
        tw_pair pair;
        double value;
    } rows[] = {
        {{0x3c00, 3, 0}, 3},
        {{0x3c00, -128, 0}, -128},
        {{0xb555, 127, 0}, -0x1.554p-2 * 127},
        {{0x0001, 127, 0}, 0x7fp-24},
        {{0x7bff, -127, 0}, -65504. * 127},
        {{0x8000, 5, 0}, -0.0},
        {{0x3800, 0, 0}, 0},
        {{0xb800, 0, 0}, -0.0},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        if (!same((double)tw_float_get(&rows[i].pair, TW_F16I8, 0), rows[i].value))
            fail_msg("row %zu", i);
    tw_pair pairs[2] = {{0x3400, 1, 0}, {0x3800, 7, 9}}; /* 1/4, 1/2 */
    tw_float_set(pairs, TW_F16I8, 1, -3.3f);
    assert_true(pairs[1].factor == 0x3800 && pairs[1].code == -7 && pairs[1].rest == 0);
    tw_double_set(pairs, TW_F16I8, 0, 0.625); /* half to even */
    assert_true(pairs[0].factor == 0x3400 && pairs[0].code == 2);
    tw_float_set(pairs, TW_F16I8, 0, 1e9f);
    assert_int_equal(pairs[0].code, 127);
    tw_float_set(pairs, TW_F16I8, 0, -1e9f);
    assert_int_equal(pairs[0].code, -127);
    tw_float_set(pairs, TW_F16I8, 0, NAN);
    assert_int_equal(pairs[0].code, 0);
    pairs[0].factor = 0;
    tw_float_set(pairs, TW_F16I8, 0, 1);
    assert_true(tw_float_get(pairs, TW_F16I8, 0) == 0);
}

static void test_e8m0_encode(void **state) {
    (void)state;
    const tw_dtype_info *t = tw_dtype_get(TW_E8M0);
    assert_int_equal(encoded(t, 1), 127);
    assert_int_equal(encoded(t, nextafter(1.5, 1)), 127);
    assert_int_equal(encoded(t, 1.5), 128);
    assert_int_equal(encoded(t, 0.75), 127);
    assert_int_equal(encoded(t, 0x1p-127), 0);
    assert_int_equal(encoded(t, 0x1p-140), 0);
    assert_int_equal(encoded(t, 0), 0);
    assert_int_equal(encoded(t, -4), 0);
    assert_int_equal(encoded(t, 0x1p127), 254);
    assert_int_equal(encoded(t, 0x1p300), 254);
    assert_int_equal(encoded(t, (double)INFINITY), 254);
    assert_int_equal(encoded(t, (double)NAN), 255);
}

static void test_overflow_and_nan(void **state) {
    (void)state;
    static const struct {
        double last; /* the largest value that still rounds to the largest finite code */
        tw_dtype dtype;
        uint32_t most, over, nan;
    } rows[] = {
        {65519.999, TW_F16, 0x7bff, 0x7c00, 0x7e00},
        {0x1.fefffffp127, TW_BF16, 0x7f7f, 0x7f80, 0x7fc0},
        {463.9, TW_E4M3, 0x7e, 0x7e, 0x7f},
        {61439.9, TW_E5M2, 0x7b, 0x7b, 0x7e},
        {29.9, TW_E3M2, 0x1f, 0x1f, 0},
        {7.74, TW_E2M3, 0x1f, 0x1f, 0},
        {6.99, TW_E2M1, 0x7, 0x7, 0},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        const tw_dtype_info *t = tw_dtype_get(rows[i].dtype);
        uint32_t sign = 1u << (t->bits - 1);
        double first = 2 * value_of(t, rows[i].most) - value_of(t, rows[i].most - 1);
        first = (first + value_of(t, rows[i].most)) / 2; /* a tie with what would come next */
        const double beyond[] = {first, 2 * first, 0x1p200, 0x1p1000, (double)INFINITY};
        assert_int_equal(encoded(t, rows[i].last), rows[i].most);
        for (size_t j = 0; j < TW_COUNT(beyond); j++) {
            assert_int_equal(encoded(t, beyond[j]), rows[i].over);
            assert_int_equal(encoded(t, -beyond[j]), rows[i].over | sign);
        }
        assert_int_equal(encoded(t, (double)NAN), rows[i].nan);
        const double small[] = {0, 0x1p-200, 0x1p-1060, 5e-324, value_of(t, 1) / 2};
        for (size_t j = 0; j < TW_COUNT(small); j++) {
            assert_int_equal(encoded(t, small[j]), 0);
            assert_int_equal(encoded(t, -small[j]), sign);
        }
    }
}

static void test_rounds_once(void **state) {
    (void)state;
    /* By way of f32 these would become ties and go down to 1. */
    assert_int_equal(encoded(tw_dtype_get(TW_F16), 1 + 0x1p-11 + 0x1p-40), 0x3c01);
    assert_int_equal(encoded(tw_dtype_get(TW_BF16), 1 + 0x1p-8 + 0x1p-40), 0x3f81);
    float value;
    tw_double_set(&value, TW_F32, 0, 1 + 0x1p-24 + 0x1p-50);
    assert_true(value == 1 + 0x1p-23f);
}

/* Setting an f32 is setting it as a double: all over, and at each tie and beside it. */
static void test_f32_as_double(void **state) {
    (void)state;
    for (int r = 0; tw_dtype_row(r); r++) {
        const tw_dtype_info *t = tw_dtype_row(r);
        if (t->kind != TW_KIND_FLOAT) continue;
        for (uint64_t i = 0; i < 1u << 19; i++) {
            /* Even ones: any f32.  Odd ones: few bits of mantissa, or one ulp off. */
            uint32_t bits = (uint32_t)(i * 2654435761u), a = 0, b = 0;
            if (i % 2) bits = (bits & 0xfff80000) + (uint32_t)(i / 2 % 3) - 1;
            float value;
            memcpy(&value, &bits, sizeof value);
            tw_float_set(&a, t->dtype, 0, value);
            tw_double_set(&b, t->dtype, 0, (double)value);
            if (a != b && !(isnan(value) && t->dtype == TW_F32))
                fail_msg("%s: %a gives %x, expected %x", t->name, (double)value, a, b);
        }
    }
}

static void test_f32_is_kept(void **state) {
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < 10000; i++) {
        uint32_t bits = (uint32_t)random_bits(&seed), back[2] = {0, 0xdeadbeef};
        float value;
        memcpy(&value, &bits, 4);
        if (isnan(value)) continue;
        tw_float_set(back, TW_F32, 0, value);
        assert_int_equal(back[0], bits);
        assert_int_equal(back[1], 0xdeadbeef);
        assert_true(tw_float_get(back, TW_F32, 0) == value);
    }
}

/* Arrays of every width, from an odd address for the wider ones. */
static void test_arrays(void **state) {
    (void)state;
    for (int r = 0; tw_dtype_row(r); r++) {
        const tw_dtype_info *t = tw_dtype_row(r);
        if (t->kind != TW_KIND_FLOAT) continue;
        uint8_t data[64] = {0};
        static const float values[] = {1, 2, 4, 2, 1, 4, 4, 1, 2};
        for (int i = 0; i < 9; i++) tw_float_set(data + 1, t->dtype, i, values[i]);
        for (int i = 0; i < 9; i++) assert_true(tw_float_get(data + 1, t->dtype, i) == values[i]);
        assert_int_equal(data[0], 0);
        assert_int_equal(data[1 + tw_dtype_row_bytes(t->dtype, 9)], 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_no_dtype),
        cmocka_unit_test(test_integer_range),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_literal_codes),
        cmocka_unit_test(test_every_code_decodes),
        cmocka_unit_test(test_specified_values),
        cmocka_unit_test(test_rounding_between_neighbours),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_e8m0_encode),
        cmocka_unit_test(test_overflow_and_nan),
        cmocka_unit_test(test_rounds_once),
        cmocka_unit_test(test_f32_as_double),
        cmocka_unit_test(test_f32_is_kept),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
