/* A file's cases, one row of `operations` for each op that they may have. */
#include "tools/fixtures.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/format/model.h"
#include "src/quant/affine.h"
#include "src/quant/float8.h"
#include "src/quant/floatx.h"
#include "src/quant/mx.h"
#include "src/quant/nvfp4.h"
#include "tools/cli.h"
#include "tools/out.h"

/* One case: what it says, and its tensors. */
typedef struct fixture {
    const tw_model *model;
    const json_t *spec;
    tw_str wrong; /* where the first difference is; empty while there is none */
} fixture;

typedef struct fixture_tensor {
    const char *type; /* "F32", "I8", ... */
    int64_t rows, columns;
    const void *data;
} fixture_tensor;

/* ---- reading a case -------------------------------------------------------------------------- */

static const char *text_of(const fixture *f, const char *key) {
    const json_t *value = json_object_get(f->spec, key);
    return json_is_string(value) ? json_string_value(value) : NULL;
}

static tw_status need_int(const fixture *f, const char *key, int64_t *out) {
    const json_t *value = json_object_get(f->spec, key);
    if (!json_is_integer(value)) return tw_fail(TW_FORMAT, "%s: expected an integer", key);
    *out = json_integer_value(value);
    return TW_OK;
}

/* Of a role that the case does not have, data is NULL. */
static tw_status get_tensor(const fixture *f, const char *side, const char *role,
                            fixture_tensor *out) {
    const json_t *name = json_object_get(json_object_get(f->spec, side), role);
    *out = (fixture_tensor){0};
    if (!name) return TW_OK;
    int32_t i = json_is_string(name) ? tw_model_find(f->model, json_string_value(name)) : -1;
    const tw_model_tensor *t = tw_model_tensor_at(f->model, i);
    if (!t || t->ndim < 1 || t->ndim > 2)
        return tw_fail(TW_FORMAT, "%s.%s: expected the name of a tensor of one or two dimensions",
                       side, role);
    /* A vector is one row. */
    *out = (fixture_tensor){t->type, t->ndim == 2 ? t->shape[0] : 1, t->shape[t->ndim - 1],
                            tw_model_data(f->model, i)};
    return TW_OK;
}

static tw_status need_tensor(const fixture *f, const char *side, const char *role,
                             fixture_tensor *out) {
    TW_TRY(get_tensor(f, side, role, out));
    return out->data ? TW_OK : tw_fail(TW_FORMAT, "%s.%s: missing", side, role);
}

static tw_status real_dtype(const fixture_tensor *t, tw_dtype *out) {
    *out = !strcmp(t->type, "F32")    ? TW_F32
           : !strcmp(t->type, "F16")  ? TW_F16
           : !strcmp(t->type, "BF16") ? TW_BF16
                                      : TW_NONE;
    return *out ? TW_OK : tw_fail(TW_FORMAT, "tensor: %s, expected F32, F16 or BF16", t->type);
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* Remembers the first element that differs. */
static void differ(fixture *f, const char *role, int64_t row, int64_t column, double ours,
                   double theirs) {
    if (f->wrong.size) return;
    tw_str_add(&f->wrong, "%s[%lld,%lld] is %.9g, expected %.9g", role, (long long)row,
               (long long)column, ours, theirs);
}

/* Bit for bit; NaN equals NaN of the same bits only. */
static void compare_reals(fixture *f, const char *role, tw_dtype dtype, const void *ours,
                          const fixture_tensor *theirs) {
    size_t bytes = (size_t)tw_dtype_bits(dtype) / 8;
    for (int64_t i = 0; i < theirs->rows * theirs->columns; i++) {
        size_t at = (size_t)i * bytes;
        if (memcmp((const char *)ours + at, (const char *)theirs->data + at, bytes) != 0)
            differ(f, role, i / theirs->columns, i % theirs->columns,
                   (double)tw_float_get(ours, dtype, i),
                   (double)tw_float_get(theirs->data, dtype, i));
    }
}

/* One byte a code in the file, canonical rows of ours. */
static void compare_codes(fixture *f, const char *role, tw_dtype dtype, const void *ours,
                          const fixture_tensor *theirs) {
    size_t row_bytes = tw_dtype_row_bytes(dtype, theirs->columns);
    for (int64_t n = 0; n < theirs->rows; n++)
        for (int64_t k = 0; k < theirs->columns; k++) {
            const uint8_t *byte = (const uint8_t *)theirs->data + n * theirs->columns + k;
            int32_t expected = tw_dtype_is_signed(dtype) ? (int8_t)*byte : *byte;
            int32_t code = tw_code_get((const char *)ours + (size_t)n * row_bytes, dtype, k);
            if (code != expected) differ(f, role, n, k, code, expected);
        }
}

static void compare_zeros(fixture *f, const int32_t *ours, const fixture_tensor *theirs) {
    for (int64_t i = 0; i < theirs->rows * theirs->columns; i++) {
        int32_t expected;
        memcpy(&expected, (const char *)theirs->data + 4 * i, sizeof expected);
        if (ours[i] != expected)
            differ(f, "zero", i / theirs->columns, i % theirs->columns, ours[i], expected);
    }
}

/* ---- operations ------------------------------------------------------------------------------ */

/* What every case says, and room for what we make of it. */
typedef struct affine_case {
    tw_affine affine;
    double eps;
    fixture_tensor x;
    void *scales, *codes, *values; /* for N x K elements of any dtype */
    int32_t *zeros;
} affine_case;

static tw_status read_mapping(const fixture *f, tw_mapping *out) {
    static const char *const names[] = {[TW_MAPPING_SYMMETRIC] = "symmetric",
                                        [TW_MAPPING_SYMMETRIC_NO_CLIP] =
                                            "symmetric_no_clipping_err",
                                        [TW_MAPPING_ASYMMETRIC] = "asymmetric"};
    const char *text = text_of(f, "mapping");
    for (size_t i = 0; text && i < TW_COUNT(names); i++)
        if (!strcmp(names[i], text)) {
            *out = (tw_mapping)i;
            return TW_OK;
        }
    return tw_fail(TW_FORMAT, "mapping: %s, not known", text ? text : "missing");
}

static tw_status read_case(const fixture *f, affine_case *c) {
    tw_affine *a = &c->affine;
    const char *code = text_of(f, "code");
    TW_TRY(need_tensor(f, "in", "x", &c->x));
    TW_TRY(real_dtype(&c->x, &a->x));
    /* Where a case names no group, a row is one. */
    a->group_n = 1;
    a->group_k = c->x.columns;
    if (json_object_get(f->spec, "group_n")) TW_TRY(need_int(f, "group_n", &a->group_n));
    if (json_object_get(f->spec, "group_k")) TW_TRY(need_int(f, "group_k", &a->group_k));
    if (a->group_n < 1 || a->group_k < 1)
        return tw_fail(TW_FORMAT, "group_n, group_k: both must be at least 1");
    a->N = c->x.rows;
    a->K = c->x.columns;
    a->code = code ? tw_dtype_parse(code, strlen(code)) : TW_NONE;
    c->eps = json_number_value(json_object_get(f->spec, "eps"));
    size_t count = (size_t)(a->N * a->K) + 1;
    c->scales = calloc(count, sizeof(float));
    c->codes = calloc(count, sizeof(float));
    c->values = calloc(count, sizeof(float));
    c->zeros = calloc(count, sizeof *c->zeros);
    bool made = c->scales && c->codes && c->values && c->zeros;
    return made ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a case");
}

static tw_status read_range(const fixture *f, tw_affine *a) {
    int64_t qmin = 0, qmax = 0;
    TW_TRY(need_int(f, "qmin", &qmin));
    TW_TRY(need_int(f, "qmax", &qmax));
    a->qmin = (int32_t)qmin;
    a->qmax = (int32_t)qmax;
    return TW_OK;
}

static void free_case(affine_case *c) {
    free(c->scales);
    free(c->codes);
    free(c->values);
    free(c->zeros);
}

/* A tensor with one element for each of x, or for each group. */
static tw_status like_x(const affine_case *c, const char *side, const char *role, const fixture *f,
                        fixture_tensor *out) {
    TW_TRY(need_tensor(f, side, role, out));
    if (out->rows == c->affine.N && out->columns == c->affine.K) return TW_OK;
    return tw_fail(TW_FORMAT, "%s.%s: [%lld,%lld], expected x's shape", side, role,
                   (long long)out->rows, (long long)out->columns);
}

static tw_status like_groups(const affine_case *c, const char *side, const char *role,
                             const fixture *f, fixture_tensor *out) {
    const tw_affine *a = &c->affine;
    TW_TRY(need_tensor(f, side, role, out));
    if (out->rows == tw_ceil_div(a->N, a->group_n) && out->columns == tw_ceil_div(a->K, a->group_k))
        return TW_OK;
    return tw_fail(TW_FORMAT, "%s.%s: [%lld,%lld], expected one for each group", side, role,
                   (long long)out->rows, (long long)out->columns);
}

static tw_status of_type(const fixture_tensor *t, const char *type) {
    if (!strcmp(t->type, type)) return TW_OK;
    return tw_fail(TW_FORMAT, "tensor: %s, expected %s", t->type, type);
}

/* Dequantized in the dtype of theirs, where the case has it. */
static tw_status check_values(fixture *f, affine_case *c, const fixture_tensor *zero) {
    tw_affine a = c->affine;
    fixture_tensor dq;
    if (!json_object_get(json_object_get(f->spec, "out"), "dq")) return TW_OK;
    TW_TRY(like_x(c, "out", "dq", f, &dq));
    TW_TRY(real_dtype(&dq, &a.x));
    if (zero)
        TW_TRY(tw_affine_dequantize_values(&a, c->codes, c->scales, zero->data, c->values));
    else
        TW_TRY(tw_affine_dequantize(&a, c->codes, c->scales, c->zeros, c->values));
    compare_reals(f, "dq", a.x, c->values, &dq);
    return TW_OK;
}

static tw_status run_affine(fixture *f, affine_case *c) {
    fixture_tensor scale, zero, q;
    tw_mapping mapping;
    TW_TRY(read_range(f, &c->affine));
    TW_TRY(read_mapping(f, &mapping));
    TW_TRY(like_groups(c, "out", "scale", f, &scale));
    TW_TRY(like_groups(c, "out", "zero", f, &zero));
    TW_TRY(like_x(c, "out", "q", f, &q));
    TW_TRY(of_type(&zero, "I32"));
    TW_TRY(real_dtype(&scale, &c->affine.scale));
    TW_TRY(tw_affine_choose(&c->affine, mapping, true, c->eps, c->x.data, c->scales, c->zeros));
    TW_TRY(tw_affine_quantize(&c->affine, c->x.data, c->scales, c->zeros, c->codes));
    compare_reals(f, "scale", c->affine.scale, c->scales, &scale);
    compare_zeros(f, c->zeros, &zero);
    compare_codes(f, "q", c->affine.code, c->codes, &q);
    return check_values(f, c, NULL);
}

/* Their zeros are f32. */
static tw_status run_choose_no_preserve_zero(fixture *f, affine_case *c) {
    fixture_tensor scale, zero;
    tw_mapping mapping;
    TW_TRY(read_range(f, &c->affine));
    TW_TRY(read_mapping(f, &mapping));
    TW_TRY(like_groups(c, "out", "scale", f, &scale));
    TW_TRY(like_groups(c, "out", "zero", f, &zero));
    TW_TRY(of_type(&zero, "F32"));
    TW_TRY(real_dtype(&scale, &c->affine.scale));
    TW_TRY(tw_affine_choose(&c->affine, mapping, false, c->eps, c->x.data, c->scales, c->zeros));
    for (int64_t i = 0; i < zero.rows * zero.columns; i++)
        tw_float_set(c->values, TW_F32, i, (float)c->zeros[i]);
    compare_reals(f, "scale", c->affine.scale, c->scales, &scale);
    compare_reals(f, "zero", TW_F32, c->values, &zero);
    return TW_OK;
}

static tw_status run_affine_float_zero(fixture *f, affine_case *c) {
    fixture_tensor scale, zero, q;
    tw_affine *a = &c->affine;
    TW_TRY(read_range(f, &c->affine));
    TW_TRY(like_groups(c, "out", "scale", f, &scale));
    TW_TRY(like_groups(c, "out", "zero", f, &zero));
    TW_TRY(like_x(c, "out", "q", f, &q));
    TW_TRY(of_type(&zero, scale.type));
    TW_TRY(real_dtype(&scale, &a->scale));
    TW_TRY(tw_affine_choose_values(a, c->eps, c->x.data, c->scales, c->zeros));
    compare_reals(f, "scale", a->scale, c->scales, &scale);
    compare_reals(f, "zero", a->scale, c->zeros, &zero);
    TW_TRY(tw_affine_quantize_values(a, c->x.data, c->scales, c->zeros, c->codes));
    compare_codes(f, "q", a->code, c->codes, &q);
    return check_values(f, c, &zero);
}

/* torchao looks at codes that are clamped already, so its mask is 1 everywhere (docs/numerics.md):
 * theirs may be 1 where ours is 0, nothing else. */
static void compare_masks(fixture *f, const uint8_t *ours, const fixture_tensor *theirs) {
    const uint8_t *expected = theirs->data;
    for (int64_t i = 0; i < theirs->rows * theirs->columns; i++)
        if (expected[i] > 1 || expected[i] < ours[i])
            differ(f, "mask", i / theirs->columns, i % theirs->columns, ours[i], expected[i]);
}

static tw_status run_fake_quantize(fixture *f, affine_case *c) {
    fixture_tensor scale, zero, y, mask;
    TW_TRY(read_range(f, &c->affine));
    TW_TRY(like_groups(c, "in", "scale", f, &scale));
    TW_TRY(like_groups(c, "in", "zero", f, &zero));
    TW_TRY(like_x(c, "out", "y", f, &y));
    TW_TRY(like_x(c, "out", "mask", f, &mask));
    TW_TRY(of_type(&zero, "I32"));
    TW_TRY(of_type(&mask, "U8"));
    TW_TRY(of_type(&y, c->x.type));
    TW_TRY(real_dtype(&scale, &c->affine.scale));
    memcpy(c->zeros, zero.data, (size_t)(zero.rows * zero.columns) * sizeof *c->zeros);
    TW_TRY(
        tw_affine_fake_quantize(&c->affine, c->x.data, scale.data, c->zeros, c->values, c->codes));
    compare_reals(f, "y", c->affine.x, c->values, &y);
    compare_masks(f, c->codes, &mask);
    return TW_OK;
}

static tw_status run_float8(fixture *f, affine_case *c) {
    const tw_affine *a = &c->affine;
    tw_float8 f8 = {a->N, a->K, a->group_n, a->group_k, a->x, a->code};
    fixture_tensor scale, q;
    TW_TRY(like_groups(c, "out", "scale", f, &scale));
    TW_TRY(like_x(c, "out", "q", f, &q));
    TW_TRY(of_type(&scale, "F32"));
    TW_TRY(of_type(&q, "U8"));
    TW_TRY(tw_float8_choose(&f8, c->x.data, c->scales));
    TW_TRY(tw_float8_quantize(&f8, c->x.data, c->scales, c->codes));
    compare_reals(f, "scale", TW_F32, c->scales, &scale);
    compare_codes(f, "q", TW_U8, c->codes, &q);
    return TW_OK;
}

/* Code k of a canonical row of any dtype of at most 8 bits. */
static int bits_at(const void *row, tw_dtype dtype, int64_t k) {
    int bits = tw_dtype_bits(dtype), value = 0;
    for (int i = 0; i < bits; i++) {
        int64_t at = k * bits + i;
        value |= (((const uint8_t *)row)[at / 8] >> at % 8 & 1) << i;
    }
    return value;
}

/* Theirs: one code a byte, or for e2m1 two of them, the first one low, as ours are. */
static void compare_float_codes(fixture *f, const char *role, tw_dtype dtype, int64_t K,
                                const void *ours, const fixture_tensor *theirs) {
    size_t row_bytes = tw_dtype_row_bytes(dtype, K);
    bool packed = theirs->columns != K;
    for (int64_t n = 0; n < theirs->rows; n++)
        for (int64_t k = 0; k < K; k++) {
            const uint8_t *row = (const uint8_t *)theirs->data + n * theirs->columns;
            int expected = packed ? bits_at(row, dtype, k) : row[k];
            int code = bits_at((const char *)ours + (size_t)n * row_bytes, dtype, k);
            if (code != expected) differ(f, role, n, k, code, expected);
        }
}

/* Of floatx cases: scales a row in the dtype of x, where the case has any; one code a byte. */
static tw_status run_floatx(fixture *f, affine_case *c) {
    const tw_affine *a = &c->affine;
    int64_t ebits = 0, mbits = 0;
    fixture_tensor scale, q;
    TW_TRY(need_int(f, "ebits", &ebits));
    TW_TRY(need_int(f, "mbits", &mbits));
    TW_TRY(get_tensor(f, "out", "scale", &scale));
    TW_TRY(like_x(c, "out", "q", f, &q));
    TW_TRY(of_type(&q, "U8"));
    tw_floatx format = {(int)ebits, (int)mbits};
    if (ebits < 1 || ebits > 4 || mbits < 1 || mbits > 3)
        return tw_fail(TW_FORMAT, "ebits, mbits: expected 1 to 4 and 1 to 3");
    if (scale.data) {
        if (scale.rows * scale.columns != a->N)
            return tw_fail(TW_FORMAT, "out.scale: expected one for each row");
        TW_TRY(of_type(&scale, c->x.type));
        TW_TRY(tw_floatx_choose(format, a->N, a->K, a->x, c->x.data, c->scales));
        compare_reals(f, "scale", a->x, c->scales, &scale);
    }
    TW_TRY(tw_floatx_quantize(format, a->N, a->K, a->x, c->x.data, scale.data ? c->scales : NULL,
                              c->codes));
    compare_codes(f, "q", TW_U8, c->codes, &q);
    return TW_OK;
}

static tw_status run_mx(fixture *f, affine_case *c) {
    static const char *const rules[] = {[TW_MX_FLOOR] = "floor",
                                        [TW_MX_RCEIL] = "rceil",
                                        [TW_MX_CEIL] = "ceil",
                                        [TW_MX_EVEN] = "even"};
    const tw_affine *a = &c->affine;
    const char *text = text_of(f, "scale_mode");
    fixture_tensor scale, q;
    size_t rule = 0;
    while (rule < TW_COUNT(rules) && (!text || strcmp(rules[rule], text) != 0)) rule++;
    if (rule == TW_COUNT(rules))
        return tw_fail(TW_FORMAT, "scale_mode: %s, not known", text ? text : "missing");
    TW_TRY(like_groups(c, "out", "scale_e8m0", f, &scale));
    TW_TRY(need_tensor(f, "out", "q", &q));
    TW_TRY(of_type(&scale, "U8"));
    TW_TRY(of_type(&q, "U8"));
    bool packed = a->code == TW_E2M1 && q.columns == a->K / 2;
    if (a->group_k != TW_MX_GROUP || q.rows != a->N || (q.columns != a->K && !packed))
        return tw_fail(TW_FORMAT, "group_k, out.q: expected 32, and a code for each of x");
    TW_TRY(tw_mx_quantize((tw_mx_rule)rule, a->code, a->N, a->K, a->x, c->x.data, c->scales,
                          c->codes));
    compare_codes(f, "scale_e8m0", TW_U8, c->scales, &scale);
    compare_float_codes(f, "q", a->code, a->K, c->codes, &q);
    return TW_OK;
}

static tw_status run_nvfp4(fixture *f, affine_case *c) {
    const tw_affine *a = &c->affine;
    fixture_tensor scale, q, whole;
    float tensor_scale = 0;
    int64_t two_level = 0;
    TW_TRY(need_int(f, "two_level", &two_level));
    TW_TRY(like_groups(c, "out", "scale_e4m3", f, &scale));
    TW_TRY(need_tensor(f, "out", "q", &q));
    TW_TRY(of_type(&scale, "U8"));
    TW_TRY(of_type(&q, "U8"));
    if (a->group_k != TW_NVFP4_GROUP || q.rows != a->N || q.columns != a->K / 2)
        return tw_fail(TW_FORMAT, "group_k, out.q: expected 16, and two codes a byte");
    if (two_level) {
        TW_TRY(need_tensor(f, "out", "tensor_scale", &whole));
        TW_TRY(of_type(&whole, "F32"));
        if (whole.rows * whole.columns != 1)
            return tw_fail(TW_FORMAT, "out.tensor_scale: expected one element");
        TW_TRY(tw_nvfp4_tensor_scale(a->N * a->K, a->x, c->x.data, &tensor_scale));
        compare_reals(f, "tensor_scale", TW_F32, &tensor_scale, &whole);
    }
    TW_TRY(tw_nvfp4_quantize(a->N, a->K, a->x, c->x.data, tensor_scale, c->scales, c->codes));
    compare_codes(f, "scale_e4m3", TW_U8, c->scales, &scale);
    compare_float_codes(f, "q", TW_E2M1, a->K, c->codes, &q);
    return TW_OK;
}

static const struct {
    const char *name;
    tw_status (*run)(fixture *f, affine_case *c);
} operations[] = {
    {"affine", run_affine},
    {"choose_no_preserve_zero", run_choose_no_preserve_zero},
    {"affine_float_zero", run_affine_float_zero},
    {"fake_quantize", run_fake_quantize},
    {"float8", run_float8},
    {"floatx", run_floatx},
    {"floatx_cast", run_floatx},
    {"mx", run_mx},
    {"nvfp4", run_nvfp4},
};

/* ---- files ----------------------------------------------------------------------------------- */

enum { OPERATIONS = TW_COUNT(operations) };

typedef struct tally {
    bool json;
    int failures, unknown; /* over all files */
    struct {
        int cases, wrong;
        tw_str first; /* the first case that is wrong, and why */
    } by_operation[OPERATIONS];
} tally;

static void run_case(tally *t, const tw_model *model, const tw_model_text *text) {
    json_t *spec = json_loads(text->value, 0, NULL);
    fixture f = {.model = model, .spec = spec};
    const char *op = text_of(&f, "op");
    size_t i = 0;
    while (i < OPERATIONS && (!op || strcmp(op, operations[i].name) != 0)) i++;
    if (i == OPERATIONS) {
        t->unknown += op != NULL;
    } else {
        t->by_operation[i].cases++;
        affine_case c = {0};
        tw_status status = read_case(&f, &c);
        if (status == TW_OK) status = operations[i].run(&f, &c);
        free_case(&c);
        if (status != TW_OK) tw_str_add(&f.wrong, "%s", tw_error_message());
        if (f.wrong.size) {
            tw_str *first = &t->by_operation[i].first;
            if (!t->by_operation[i].wrong++)
                tw_str_add(first, "%s: %s", text->key, tw_str_text(&f.wrong));
        }
    }
    tw_str_free(&f.wrong);
    json_decref(spec);
}

static void report(tally *t, const char *path) {
    for (size_t i = 0; i < OPERATIONS; i++) {
        int cases = t->by_operation[i].cases, wrong = t->by_operation[i].wrong;
        const char *first = wrong ? tw_str_text(&t->by_operation[i].first) : NULL;
        if (cases && t->json)
            out_json(json_pack("{s:s,s:s,s:i,s:i,s:s?}", "file", path, "op", operations[i].name,
                               "cases", cases, "wrong", wrong, "first", first));
        else if (cases)
            out_line("%-7s %s: %s: %d of %d cases agree in every bit%s%s", wrong ? "FAILED" : "ok",
                     path, operations[i].name, cases - wrong, cases, first ? "\n        " : "",
                     first ? first : "");
        t->failures += wrong;
        tw_str_free(&t->by_operation[i].first);
        t->by_operation[i].cases = t->by_operation[i].wrong = 0;
    }
}

static void run_file(tally *t, const char *path) {
    tw_model *model;
    if (tw_model_open(path, NULL, &model) != TW_OK) {
        out_error("%s", tw_error_message());
        t->failures++;
        return;
    }
    for (int32_t i = 0; i < tw_model_metadata_count(model); i++)
        run_case(t, model, tw_model_metadata_at(model, i));
    report(t, path);
    tw_model_close(model);
}

static int is_fixture(const struct dirent *entry) {
    static const char suffix[] = ".safetensors";
    size_t size = strlen(entry->d_name), end = sizeof suffix - 1;
    return size > end && !strcmp(entry->d_name + size - end, suffix);
}

static int run_folder(tally *t, const char *path) {
    struct dirent **entries;
    int count = scandir(path, &entries, is_fixture, alphasort);
    for (int i = 0; i < count; i++) {
        tw_str file = {0};
        tw_str_add(&file, "%s/%s", path, entries[i]->d_name);
        run_file(t, tw_str_text(&file));
        tw_str_free(&file);
        free(entries[i]);
    }
    if (count >= 0) free(entries);
    return count;
}

int fixtures_verify(const char *path, bool json) {
    tally t = {.json = json};
    struct stat info;
    if (stat(path, &info)) {
        out_error("%s: %s", path, strerror(errno));
        return CLI_FAILED;
    }
    if (!S_ISDIR(info.st_mode)) {
        run_file(&t, path);
    } else if (run_folder(&t, path) < 1) {
        out_error("%s: no .safetensors file in it", path);
        return CLI_FAILED;
    }
    if (t.unknown)
        out_note("%d cases of operations that are not known here were left out", t.unknown);
    return t.failures ? CLI_FAILED : CLI_OK;
}
