/* The problem text: round trips, defaults, and the sentence of every rule. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "tests/base/cmocka_all.h"

/* Field by field: structs have padding. */
static bool same_scheme(const tw_scheme *a, const tw_scheme *b) {
    return a->weight == b->weight && a->scale == b->scale && a->zero_mode == b->zero_mode &&
           a->group_n == b->group_n && a->group_k == b->group_k && a->act_quant == b->act_quant &&
           a->act_group == b->act_group && a->fpmath == b->fpmath;
}

static bool same_problem(const tw_problem *a, const tw_problem *b) {
    return a->M == b->M && a->N == b->N && a->K == b->K && a->x == b->x && a->y == b->y &&
           a->bias == b->bias && a->act == b->act && same_scheme(&a->scheme, &b->scheme);
}

static void check_text(const tw_problem *problem, const char *expected) {
    tw_str text = {0};
    tw_problem back;
    tw_problem_text(problem, &text);
    if (expected) assert_string_equal(tw_str_text(&text), expected);
    if (tw_problem_parse(tw_str_text(&text), false, &back) != TW_OK)
        fail_msg("%s: %s", tw_str_text(&text), tw_error_message());
    if (!same_problem(problem, &back)) fail_msg("%s comes back as another", tw_str_text(&text));
    tw_str_free(&text);
}

static tw_problem parsed(const char *text) {
    tw_problem problem;
    if (tw_problem_parse(text, false, &problem) != TW_OK)
        fail_msg("%s: %s", text, tw_error_message());
    return problem;
}

static void test_example(void **state) {
    (void)state;
    const char *text =
        "M=16,N=4096,K=4096,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none";
    tw_problem expected = {16,
                           4096,
                           4096,
                           TW_F32,
                           TW_F32,
                           TW_NONE,
                           {TW_U4, TW_F16, TW_ZERO_VALUE, 1, 32, TW_ACTQ_I8, 32, TW_FPMATH_STRICT},
                           TW_ACT_NONE};
    tw_problem problem = parsed(text);
    assert_true(same_problem(&problem, &expected));
    check_text(&problem, text);
}

static void test_defaults(void **state) {
    (void)state;
    static const struct {
        const char *text, *whole;
    } rows[] = {
        {"w=i8,K=3,N=2",
         "N=2,K=3,x=f32,w=i8,g=channel,s=f32,z=none,a=none,y=f32,bias=none,act=none"},
        {"act=silu,w=f16,x=bf16,K=3,N=2,M=1",
         "M=1,N=2,K=3,x=bf16,w=f16,a=none,y=bf16,bias=none,act=silu"},
        {"N=2,K=3,w=u4,y=f16",
         "N=2,K=3,x=f32,w=u4,g=channel,s=f32,z=none,a=none,y=f16,bias=none,act=none"},
        {"N=2,K=3,w=u4,g=1x128",
         "N=2,K=3,x=f32,w=u4,g=128,s=f32,z=none,a=none,y=f32,bias=none,act=none"},
        {"N=2,K=3,w=u4,g=1x0",
         "N=2,K=3,x=f32,w=u4,g=channel,s=f32,z=none,a=none,y=f32,bias=none,act=none"},
        {"N=2,K=3,w=u4,g=0x0",
         "N=2,K=3,x=f32,w=u4,g=tensor,s=f32,z=none,a=none,y=f32,bias=none,act=none"},
        {"N=2,K=3,w=e4m3,g=128x128,a=i8",
         "N=2,K=3,x=f32,w=e4m3,g=128x128,s=f32,z=none,a=i8,y=f32,bias=none,act=none"},
        {"N=268435456,K=268435456,w=bf16,a=none,bias=bf16",
         "N=268435456,K=268435456,x=f32,w=bf16,a=none,y=f32,bias=bf16,act=none"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_problem problem = parsed(rows[i].text);
        check_text(&problem, rows[i].whole);
    }
}

/* Every value of every field of a scheme that the rules allow, to text and back. */
static void test_all_schemes(void **state) {
    (void)state;
    static const int32_t groups[][2] = {{0, 0},  {1, 0}, {1, 32}, {128, 128},
                                        {0, 64}, {7, 0}, {2, 1}};
    static const int32_t act_groups[] = {0, 32, 64, 128, 256};
    enum { QUANTS = 18 };
    int good = 0, bad = 0;
    for (int w = 0; tw_dtype_row(w); w++)
        for (int s = -1; s < 0 || tw_dtype_row(s); s++)
            for (int rest = 0; rest < (int)TW_COUNT(groups) * 5 * QUANTS * 3; rest++) {
                const int32_t *g = groups[rest / (5 * QUANTS * 3)];
                tw_problem p = {5,
                                7,
                                300,
                                TW_F16,
                                TW_BF16,
                                TW_F32,
                                {tw_dtype_row(w)->dtype, s < 0 ? TW_NONE : tw_dtype_row(s)->dtype,
                                 (tw_zero_mode)(rest / (5 * QUANTS) % 3), g[0], g[1],
                                 (tw_act_quant)(rest / 5 % QUANTS), act_groups[rest % 5],
                                 (tw_fpmath)(rest % 2)},
                                TW_ACT_GELU};
                if (tw_problem_check(&p) == TW_OK) {
                    check_text(&p, NULL);
                    good++;
                } else
                    bad++;
            }
    /* Plain: 3 with a=none.  Scales: 5 dtypes; i1..u8: zero modes none, code, value, but no value
     * with e8m0 (14); 5 float dtypes: none, value (9); lut4: none (5).  For each: 7 groups with
     * all of QUANTS; i8 with 4 activation groups under K groups of 32 (4), 128 (2), 64 (3), 1 (4);
     * and e4m3 with 4 under each.  f16i8 with the groups that divide 256, and all zero modes. */
    assert_null(tw_act_get((tw_act_quant)QUANTS));
    int pairs = (16 * 3 + 5 * 2 + 1) * (4 * QUANTS + 4 + 2 + 3 + 4 + 4 * 4);
    assert_int_equal(good,
                     3 + (16 * 14 + 5 * 9 + 5) * (7 * QUANTS + 4 + 2 + 3 + 4 + 7 * 4) + pairs);
    assert_true(bad > good);
}

static void test_other_fields(void **state) {
    (void)state;
    static const tw_dtype reals[] = {TW_F32, TW_F16, TW_BF16, TW_NONE};
    for (int x = 0; x < 3; x++)
        for (int y = 0; y < 3; y++)
            for (int bias = 0; bias < 4; bias++)
                for (int act = TW_ACT_NONE; act <= TW_ACT_SILU; act++) {
                    tw_problem p = parsed("N=2,K=3,w=u4");
                    p.x = reals[x];
                    p.y = reals[y];
                    p.bias = reals[bias];
                    p.act = (tw_act)act;
                    check_text(&p, NULL);
                }
    assert_string_equal(tw_act_name(TW_ACT_GELU_TANH), "gelu_tanh");
    assert_string_equal(tw_act_name((tw_act)9), "?");
}

#define SIZE "a positive integer up to 268435456"
#define WEIGHTS "i1..i8, u1..u8, e4m3, e5m2, e3m2, e2m3, e2m1, lut4, f32, f16 or bf16"
#define GROUPS "a group of K (32), a block of N x K (128x128), channel or tensor"
#define ACTQS                                                                                      \
    "none, i8, i8gG with G a group of K (i8g32), i8z, i8full, i8s, e4m3, e4m3gG, e4m3s, mxfp8 or " \
    "mxfp4 (or with floor, ceil or even behind it), nvfp4, nvfp4t or nvfp4s"

typedef struct bad_text {
    const char *text, *sentence;
} bad_text;

/* Each one fails behind "N=2,K=3," as it does alone. */
static const bad_text bad_fields[] = {
    {"", "\"\": expected field=value"},
    {"w", "\"w\": expected field=value"},
    {"w=u4,", "\"\": expected field=value"},
    {"q=3", "\"q\": unknown field, the fields are M, N, K, x, w, g, s, z, a, fpmath, y, bias, act"},
    {" w=u4",
     "\" w\": unknown field, the fields are M, N, K, x, w, g, s, z, a, fpmath, y, bias, act"},
    {"W=u4",
     "\"W\": unknown field, the fields are M, N, K, x, w, g, s, z, a, fpmath, y, bias, act"},
    {"=u4", "\"\": unknown field, the fields are M, N, K, x, w, g, s, z, a, fpmath, y, bias, act"},
    {"M=", "M: \"\", expected " SIZE},
    {"M=0", "M: \"0\", expected " SIZE},
    {"M=-1", "M: \"-1\", expected " SIZE},
    {"M=+1", "M: \"+1\", expected " SIZE},
    {"M=1 ", "M: \"1 \", expected " SIZE},
    {"M=1e3", "M: \"1e3\", expected " SIZE},
    {"M=0x10", "M: \"0x10\", expected " SIZE},
    {"M==1", "M: \"=1\", expected " SIZE},
    {"M=268435457", "M: \"268435457\", expected " SIZE},
    {"M=18446744073709551617", "M: \"18446744073709551617\", expected " SIZE},
    {"x=u8", "x: \"u8\", expected f32, f16 or bf16"},
    {"x=none", "x: \"none\", expected f32, f16 or bf16"},
    {"y=e4m3", "y: \"e4m3\", expected f32, f16 or bf16"},
    {"bias=i8", "bias: \"i8\", expected none, f32, f16 or bf16"},
    {"act=tanh", "act: \"tanh\", expected none, relu, gelu, gelu_tanh or silu"},
    {"act=gel", "act: \"gel\", expected none, relu, gelu, gelu_tanh or silu"},
    {"w=u9", "w: \"u9\", expected " WEIGHTS},
    {"w=e8m0", "w: \"e8m0\", expected " WEIGHTS},
    {"w=", "w: \"\", expected " WEIGHTS},
    {"w=u4,w=u4", "w: \"u4\", the field is given twice"},
    {"g=0", "g: \"0\", expected " GROUPS},
    {"g=x", "g: \"x\", expected " GROUPS},
    {"g=128x", "g: \"128x\", expected " GROUPS},
    {"g=x128", "g: \"x128\", expected " GROUPS},
    {"g=1x2x3", "g: \"1x2x3\", expected " GROUPS},
    {"g=268435457", "g: \"268435457\", expected " GROUPS},
    {"g=4294967297x1", "g: \"4294967297x1\", expected " GROUPS},
    {"g=block", "g: \"block\", expected " GROUPS},
    {"s=u8", "s: \"u8\", expected f32, f16, bf16, e8m0, e4m3 or f16i8"},
    {"s=none", "s: \"none\", expected f32, f16, bf16, e8m0, e4m3 or f16i8"},
    {"s=e5m2", "s: \"e5m2\", expected f32, f16, bf16, e8m0, e4m3 or f16i8"},
    {"z=float", "z: \"float\", expected none, code or value"},
    {"a=i4", "a: \"i4\", expected " ACTQS},
    {"a=i8g", "a: \"i8g\", expected " ACTQS},
    {"a=i8g0", "a: \"i8g0\", expected " ACTQS},
    {"a=i8g-1", "a: \"i8g-1\", expected " ACTQS},
    {"a=i8zg32", "a: \"i8zg32\", expected " ACTQS},
    {"a=i8g99999999999", "a: \"i8g99999999999\", expected " ACTQS},
    {"a=", "a: \"\", expected " ACTQS},
    {"a=e4m3g", "a: \"e4m3g\", expected " ACTQS},
    {"a=e4m3sg32", "a: \"e4m3sg32\", expected " ACTQS},
    {"a=e5m2", "a: \"e5m2\", expected " ACTQS},
    {"a=mxfp8rceil", "a: \"mxfp8rceil\", expected " ACTQS},
    {"a=mxfp8g32", "a: \"mxfp8g32\", expected " ACTQS},
    {"a=nvfp4even", "a: \"nvfp4even\", expected " ACTQS},
};

static const bad_text bad_schemes[] = {
    {"w=f16,g=32", "g: given, but w=f16 is plain: it has no g, s, z and only a=none"},
    {"w=bf16,s=f32", "s: given, but w=bf16 is plain: it has no g, s, z and only a=none"},
    {"z=none,w=f32", "z: given, but w=f32 is plain: it has no g, s, z and only a=none"},
    {"w=f32,a=i8", "a: given, but w=f32 is plain: it has no g, s, z and only a=none"},
    {"w=e4m3,z=code", "z: code, needs integer weights, w is e4m3"},
    {"w=u4,s=f16i8", "s: f16i8 with group 0 along K, must divide the 256 of a factor"},
    {"w=u4,s=f16i8,g=48", "s: f16i8 with group 48 along K, must divide the 256 of a factor"},
    {"w=u4,z=value,s=e8m0",
     "z: value, zeros have the dtype of s, and e8m0 has neither 0 nor a sign"},
    {"w=u4,g=32,a=i8g48", "a: group 48, must be a multiple of the weights' group 32"},
    {"w=u4,g=64,a=i8g32", "a: group 32, must be a multiple of the weights' group 64"},
    {"w=u4,a=i8g32", "a: group 32, must be a multiple of the weights' group, which is all of K"},
};

static void check_bad(const char *text, const char *sentence, tw_status status) {
    tw_problem p = {.M = 77};
    if (tw_problem_parse(text, false, &p) != status) fail_msg("\"%s\" gives another status", text);
    assert_string_equal(tw_error_message(), sentence);
    assert_int_equal(p.M, 77);
}

static void test_bad_text(void **state) {
    (void)state;
    char text[256];
    for (size_t i = 0; i < TW_COUNT(bad_fields); i++) {
        snprintf(text, sizeof text, "N=2,K=3,%s", bad_fields[i].text);
        check_bad(text, bad_fields[i].sentence, TW_INVALID);
        check_bad(bad_fields[i].text, bad_fields[i].sentence, TW_INVALID);
    }
    for (size_t i = 0; i < TW_COUNT(bad_schemes); i++) {
        snprintf(text, sizeof text, "N=2,K=3,%s", bad_schemes[i].text);
        check_bad(text, bad_schemes[i].sentence, TW_INVALID);
    }
    check_bad("N=2,K=3,N=2", "N: \"2\", the field is given twice", TW_INVALID);
    check_bad("N=2,N=3", "N: \"3\", the field is given twice", TW_INVALID);
}

static void test_missing(void **state) {
    (void)state;
    tw_problem p = {.M = 77};
    check_bad("N=2,K=3", "w: missing, expected " WEIGHTS, TW_INVALID);
    check_bad("N=2,w=u4", "K: missing, expected " SIZE, TW_INVALID);
    check_bad("K=2,w=u4", "N: missing, expected " SIZE, TW_INVALID);
    assert_int_equal(tw_problem_parse("N=2,K=3,w=u4", true, &p), TW_INVALID);
    assert_string_equal(tw_error_message(), "M: missing, expected " SIZE);
    assert_int_equal(p.M, 77);
    assert_int_equal(tw_problem_parse("N=2,K=3,w=u4,M=4", true, &p), TW_OK);
    assert_int_equal(p.M, 4);
}

static void test_lut_zeros(void **state) {
    (void)state;
    check_bad("N=2,K=3,w=lut4,z=value",
              "z: value, w=lut4 has no zeros: its table says what codes are", TW_INVALID);
    check_bad("N=2,K=3,w=lut4,z=code",
              "z: code, w=lut4 has no zeros: its table says what codes are", TW_INVALID);
}

static void test_long_values_are_cut(void **state) {
    (void)state;
    char text[4000];
    memset(text, 'a', sizeof text);
    memcpy(text, "w=", 2);
    text[sizeof text - 1] = 0;
    tw_problem p;
    assert_int_equal(tw_problem_parse(text, false, &p), TW_INVALID);
    assert_int_equal(strlen(tw_error_message()), strlen("w: \"\", expected " WEIGHTS) + 60);
}

static void test_scheme_text(void **state) {
    (void)state;
    tw_scheme s = {.group_n = 77};
    assert_int_equal(tw_scheme_parse("s=f16,a=i8,g=128,w=u4,z=code", &s), TW_OK);
    tw_scheme expected = {TW_U4, TW_F16, TW_ZERO_CODE, 1, 128, TW_ACTQ_I8, 0, TW_FPMATH_STRICT};
    assert_true(same_scheme(&s, &expected));
    tw_str text = {0};
    tw_scheme_text(&s, &text);
    assert_string_equal(tw_str_text(&text), "w=u4,g=128,s=f16,z=code,a=i8");
    tw_str_free(&text);
    assert_int_equal(tw_scheme_parse("w=bf16", &s), TW_OK);
    expected = (tw_scheme){.weight = TW_BF16};
    assert_true(same_scheme(&s, &expected));

    assert_int_equal(tw_scheme_parse("w=i8,fpmath=bf16,a=i8full", &s), TW_OK);
    expected = (tw_scheme){TW_I8, TW_F32, TW_ZERO_NONE, 1, 0, TW_ACTQ_I8_FULL, 0, TW_FPMATH_BF16};
    assert_true(same_scheme(&s, &expected));
    tw_scheme_text(&s, &text);
    assert_string_equal(tw_str_text(&text), "w=i8,g=channel,s=f32,z=none,a=i8full,fpmath=bf16");
    tw_str_free(&text);
    expected = (tw_scheme){.weight = TW_BF16, .fpmath = (tw_fpmath)2};
    assert_int_equal(tw_scheme_check(&expected), TW_INVALID);
    assert_string_equal(tw_error_message(), "fpmath: 2, expected strict or bf16");

    static const bad_text rows[] = {
        {"w=i8,fpmath=f16", "fpmath: \"f16\", expected strict or bf16"},
        {"w=u4,N=3", "N: \"3\", not a field of a scheme, which has w, g, s, z, a, fpmath"},
        {"bias=f32", "bias: \"f32\", not a field of a scheme, which has w, g, s, z, a, fpmath"},
        {"v=u4", "\"v\": unknown field, the fields are w, g, s, z, a, fpmath"},
        {"g=32", "w: missing, expected " WEIGHTS},
    };
    s.group_n = 77;
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        assert_int_equal(tw_scheme_parse(rows[i].text, &s), TW_INVALID);
        assert_string_equal(tw_error_message(), rows[i].sentence);
    }
    for (size_t i = 0; i < TW_COUNT(bad_schemes); i++) {
        assert_int_equal(tw_scheme_parse(bad_schemes[i].text, &s), TW_INVALID);
        assert_string_equal(tw_error_message(), bad_schemes[i].sentence);
    }
    assert_int_equal(s.group_n, 77);
    assert_int_equal(tw_scheme_parse(NULL, &s), TW_INVALID);
    assert_int_equal(tw_scheme_parse("w=u4", NULL), TW_INVALID);
}

/* What only a filled-in struct can get wrong. */
static void test_check(void **state) {
    (void)state;
    const tw_problem good = parsed("N=2,K=3,w=u4,g=32,a=i8g32");
    static const tw_scheme plain = {.weight = TW_F16};
    tw_problem p;
#define BREAKS(change, sentence)                                                                   \
    p = good;                                                                                      \
    change;                                                                                        \
    assert_int_equal(tw_problem_check(&p), TW_INVALID);                                            \
    assert_string_equal(tw_error_message(), sentence)
    BREAKS(p.M = -1, "M: -1, must be from 0 to 268435456");
    BREAKS(p.N = 0, "N: 0, must be from 1 to 268435456");
    BREAKS(p.K = INT64_MAX, "K: 9223372036854775807, must be from 1 to 268435456");
    BREAKS(p.x = TW_NONE, "x: none, expected f32, f16 or bf16");
    BREAKS(p.y = TW_I8, "y: i8, expected f32, f16 or bf16");
    BREAKS(p.bias = TW_E8M0, "bias: e8m0, expected none, f32, f16 or bf16");
    BREAKS(p.act = (tw_act)5, "act: 5, is no activation");
    BREAKS(p.act = (tw_act)-1, "act: -1, is no activation");
    BREAKS(p.scheme.weight = TW_NONE, "w: none, expected " WEIGHTS);
    BREAKS(p.scheme.weight = (tw_dtype)99, "w: ?, expected " WEIGHTS);
    BREAKS(p.scheme.weight = TW_F16, "s: f32, but w=f16 is plain: it has no scales");
    BREAKS(p.scheme.scale = TW_NONE, "s: none, but w=u4 has codes, which need a scale dtype");
    BREAKS(p.scheme.scale = TW_U8, "s: u8, expected f32, f16, bf16, e8m0, e4m3 or f16i8");
    BREAKS(p.scheme.zero_mode = (tw_zero_mode)3, "z: 3, is no zero mode");
    BREAKS(p.scheme.group_n = -1, "g: -1, must be from 0 to 268435456");
    BREAKS(p.scheme.group_k = -32, "g: -32, must be from 0 to 268435456");
    BREAKS(p.scheme.act_quant = (tw_act_quant)99, "a: 99, is no activation quantization");
    BREAKS(p.scheme.act_group = -32, "a: -32, must be from 1 to 268435456");
    BREAKS(p.scheme.act_quant = TW_ACTQ_NONE, "a: group 32, only i8 and e4m3 have one");
    BREAKS(p.scheme.act_quant = TW_ACTQ_I8Z, "a: group 32, only i8 and e4m3 have one");
    BREAKS((p.scheme = plain, p.scheme.group_n = 1),
           "w: f16, plain weights have no zeros and no groups");
    BREAKS((p.scheme = plain, p.scheme.group_k = 1),
           "w: f16, plain weights have no zeros and no groups");
    BREAKS((p.scheme = plain, p.scheme.zero_mode = TW_ZERO_VALUE),
           "w: f16, plain weights have no zeros and no groups");
    BREAKS((p.scheme = plain, p.scheme.act_quant = TW_ACTQ_I8),
           "a: given, but w=f16 is plain, and plain weights need a=none");
#undef BREAKS
    p = good;
    assert_int_equal(tw_problem_check(&p), TW_OK);
}

/* What a kernel gets where x is rounded before it, and what people are told. */
static void test_kernel_problem(void **state) {
    (void)state;
    static const struct {
        const char *a, *kernel, *told;
    } rows[] = {
        {"none", "x=bf16,w=u4,g=32,s=f32,z=none,a=none,", ""},
        {"i8g64", "x=bf16,w=u4,g=32,s=f32,z=none,a=i8g64,", ""},
        {"e4m3", "x=f32,w=u4,g=32,s=f32,z=none,a=none,", "to e4m3, a scale a token, "},
        {"e4m3g48", "x=f32,w=u4,g=32,s=f32,z=none,a=none,", "to e4m3, a scale each 48 of K, "},
        {"e4m3s", "x=f32,w=u4,g=32,s=f32,z=none,a=none,", "to e4m3, a scale that is given, "},
        {"i8s", "x=f32,w=u4,g=32,s=f32,z=none,a=none,", "to i8, a scale that is given, "},
        {"mxfp4even", "x=f32,w=u4,g=32,s=f32,z=none,a=none,", "to e2m1, a scale each 32 of K, "},
        {"nvfp4t", "x=f32,w=u4,g=32,s=f32,z=none,a=none,",
         "to e2m1, a scale each 16 of K and one a token, "},
        {"nvfp4s", "x=f32,w=u4,g=32,s=f32,z=none,a=none,",
         "to e2m1, a scale each 16 of K and one that is given, "},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char text[100];
        tw_str told = {0}, kernel = {0};
        snprintf(text, sizeof text, "M=3,N=2,K=100,x=bf16,y=f16,w=u4,g=32,a=%s", rows[i].a);
        tw_problem p = parsed(text), seen = tw_kernel_problem(&p);
        tw_act_explain(&p.scheme, &told);
        tw_problem_text(&seen, &kernel);
        assert_non_null(strstr(tw_str_text(&kernel), rows[i].kernel));
        assert_non_null(strstr(tw_str_text(&kernel), "y=f16,"));
        assert_int_equal(tw_act_rounds(&p.scheme), *rows[i].told != 0);
        assert_int_equal(told.size != 0, *rows[i].told != 0);
        if (!strstr(tw_str_text(&told), rows[i].told)) fail_msg("%s", tw_str_text(&told));
        tw_str_free(&told);
        tw_str_free(&kernel);
    }
}

static void test_act_scale(void **state) {
    (void)state;
    const tw_scheme given = parsed("N=2,K=3,w=u4,a=i8s").scheme,
                    other = parsed("N=2,K=3,w=u4,a=i8").scheme;
    static const float bad[] = {0, -1, NAN, INFINITY, 0x1p-130f};
    assert_int_equal(tw_act_check_scale(&given, 0x1p-126f), TW_OK);
    assert_int_equal(tw_act_check_scale(&other, 0), TW_OK);
    for (size_t i = 0; i < TW_COUNT(bad); i++)
        assert_int_equal(tw_act_check_scale(&given, bad[i]), TW_INVALID);
    assert_int_equal(tw_act_check_scale(&given, 0), TW_INVALID);
    assert_string_equal(tw_error_message(), "act_scale: 0, a=i8s needs a positive finite scale, "
                                            "and a finite reciprocal");
    assert_int_equal(tw_act_check_scale(&other, 0.5f), TW_INVALID);
    assert_string_equal(tw_error_message(),
                        "act_scale: 0.5, but a=i8 has no static scale; must be 0");
}

static void test_granularity(void **state) {
    (void)state;
    static const struct {
        const char *g;
        int64_t group_n, group_k, rows, groups;
    } rows[] = {
        {"tensor", 10, 100, 1, 1}, {"channel", 1, 100, 10, 1}, {"32", 1, 32, 10, 4},
        {"4x64", 4, 64, 3, 2},     {"128", 1, 100, 10, 1},     {"16x128", 10, 100, 1, 1},
        {"0x50", 10, 50, 1, 2},    {"3x0", 3, 100, 4, 1},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char text[64];
        snprintf(text, sizeof text, "N=10,K=100,w=u3,s=f16,z=code,g=%s", rows[i].g);
        tw_problem p = parsed(text);
        assert_int_equal(tw_group_n(&p.scheme, p.N), rows[i].group_n);
        assert_int_equal(tw_group_k(&p.scheme, p.K), rows[i].group_k);
        assert_int_equal(tw_scale_rows(&p.scheme, p.N), rows[i].rows);
        assert_int_equal(tw_groups(&p.scheme, p.K), rows[i].groups);
        /* 100 codes of 3 bits: 38 bytes; a scale and a zero: 3. */
        assert_int_equal(tw_problem_weight_bytes(&p),
                         (int64_t)10 * 38 + rows[i].rows * rows[i].groups * 3);
    }
}

static void test_weight_bytes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t bytes;
    } rows[] = {
        {"N=3,K=5,w=bf16", 30},
        {"N=3,K=5,w=i8", 15 + 12},
        {"N=4096,K=4096,w=u4,g=32,s=f16,z=value", 4096 * 2048 + 4096 * 128 * 4},
        {"N=64,K=64,w=e2m1,g=32,s=e8m0", 64 * 32 + 64 * 2},
        {"N=4,K=300,w=u4,g=32,s=f16i8,z=value", (int64_t)4 * (150 + 2 * 10 + 2 * 4)},
        {"N=4,K=512,w=i6,g=16,s=f16i8", (int64_t)4 * (384 + 32 + 2 * 2)},
        {"N=4,K=512,w=u6,g=16,s=f16i8,z=code", (int64_t)4 * (384 + 64 + 2 * 2)},
        {"N=268435456,K=268435456,w=u8,g=1,s=f32,z=value", ((int64_t)9) << 56},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_problem p = parsed(rows[i].text);
        assert_int_equal(tw_problem_weight_bytes(&p), rows[i].bytes);
    }
    tw_problem p = parsed("N=1,K=100,w=u4,g=32,s=f16,z=value,a=i8g64");
    assert_int_equal(tw_zero_dtype(&p.scheme), TW_F16);
    assert_int_equal(tw_act_group(&p.scheme, 100), 64);
    assert_int_equal(tw_act_group(&p.scheme, 50), 50);
    p = parsed("N=1,K=100,w=u4,g=32,z=code,a=i8");
    assert_int_equal(tw_zero_dtype(&p.scheme), TW_U8);
    assert_int_equal(tw_act_group(&p.scheme, 100), 100);
    p = parsed("N=1,K=100,w=u4");
    assert_int_equal(tw_zero_dtype(&p.scheme), TW_NONE);
}

static void test_buckets(void **state) {
    (void)state;
    for (int64_t M = 1; M <= 20000; M++) {
        int i = tw_bucket_index(M);
        assert_true(i >= 0 && i < TW_BUCKETS);
        assert_true(M <= tw_bucket_rows(i) || i == TW_BUCKETS - 1);
        assert_true(i == 0 || tw_bucket_rows(i - 1) < M);
    }
    assert_int_equal(tw_bucket_rows(TW_BUCKETS - 1), TW_MAX_BUCKET);
    assert_int_equal(tw_bucket_index(0), 0);
    assert_int_equal(tw_bucket_index(INT64_MAX), TW_BUCKETS - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_schemes),    cmocka_unit_test(test_other_fields),
        cmocka_unit_test(test_bad_text),       cmocka_unit_test(test_missing),
        cmocka_unit_test(test_lut_zeros),      cmocka_unit_test(test_long_values_are_cut),
        cmocka_unit_test(test_scheme_text),    cmocka_unit_test(test_check),
        cmocka_unit_test(test_kernel_problem), cmocka_unit_test(test_act_scale),
        cmocka_unit_test(test_granularity),    cmocka_unit_test(test_weight_bytes),
        cmocka_unit_test(test_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
