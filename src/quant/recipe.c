/* See recipe.h. */
#include "src/quant/recipe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/base/str.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/quant/check.h"
#include "src/quant/codebook.h"
#include "src/quant/float8.h"
#include "src/quant/floatx.h"
#include "src/quant/hqq.h"
#include "src/quant/nvfp4.h"
#include "src/quant/run.h"
#include "src/quant/table.h"

static const tw_recipe_row rows[] = {
#define TW_RECIPE(name, method, open, fixed, source)                                               \
    {name, TW_METHOD_##method, open, fixed, source},
#include "src/quant/recipe.def"
#undef TW_RECIPE
};

const tw_recipe_row *tw_recipe_at(int i) {
    return i >= 0 && (size_t)i < TW_COUNT(rows) ? &rows[i] : NULL;
}

/* ---- text ------------------------------------------------------------------------------------ */

enum { FIELDS = 9 };
typedef enum field_id { W, G, S, A, FPMATH, MAPPING, EPS, RULE, LEVELS } field_id;
static const char *const field_names[FIELDS] = {"w",       "g",   "s",    "a",     "fpmath",
                                                "mapping", "eps", "rule", "levels"};

typedef struct field {
    const char *value; /* NULL: the row has no such field */
    int size;
    bool open, given;
} field;

typedef struct fields {
    const char *recipe; /* for sentences */
    field of[FIELDS];
} fields;

/* Reads "w=i8,g=32".  The row's own: adds fields; a user's: overrides those that are open. */
static tw_status read_fields(const char *text, bool user, bool open, fields *out) {
    while (*text) {
        const char *end = text + strcspn(text, ","),
                   *equals = memchr(text, '=', (size_t)(end - text));
        int i = FIELDS, name = (int)((equals ? equals : end) - text);
        for (int f = 0; f < FIELDS; f++)
            if ((int)strlen(field_names[f]) == name && !memcmp(field_names[f], text, (size_t)name))
                i = f;
        if (!equals || i == FIELDS || !out->of[i].value == user)
            return tw_fail(TW_INVALID, "%s: \"%.*s\" is no field of it", out->recipe, name, text);
        field *f = &out->of[i];
        if (user && (!f->open || f->given))
            return tw_fail(TW_INVALID,
                           f->open ? "%s: \"%s\" is given twice" : "%s: \"%s\" is always %.*s",
                           out->recipe, field_names[i], f->size, f->value);
        *f = (field){equals + 1, (int)(end - equals - 1), open, user};
        text = *end ? end + 1 : end;
    }
    return TW_OK;
}

static bool is(const field *f, const char *text) {
    return (int)strlen(text) == f->size && !memcmp(text, f->value, (size_t)f->size);
}

/* The index of a field's value among names; the first where the row has no such field. */
static tw_status read_name(const fields *all, field_id id, const char *const *names, int count,
                           int *out) {
    const field *f = &all->of[id];
    tw_str known = {0};
    *out = 0;
    if (!f->value) return TW_OK;
    for (int i = 0; i < count; i++) {
        if (is(f, names[i])) *out = i;
        if (is(f, names[i])) return TW_OK;
    }
    for (int i = 0; i < count; i++) tw_str_add(&known, "%s%s", i ? ", " : "", names[i]);
    tw_status status = tw_fail(TW_INVALID, "%s: %s=%.*s, expected one of %s", all->recipe,
                               field_names[id], f->size, f->value, tw_str_text(&known));
    tw_str_free(&known);
    return status;
}

static const char *const mappings[] = {[TW_MAPPING_SYMMETRIC] = "symmetric",
                                       [TW_MAPPING_SYMMETRIC_NO_CLIP] = "symmetric_no_clipping_err",
                                       [TW_MAPPING_ASYMMETRIC] = "asymmetric"};
static const char *const rules[] = {
    [TW_MX_FLOOR] = "floor", [TW_MX_RCEIL] = "rceil", [TW_MX_CEIL] = "ceil", [TW_MX_EVEN] = "even"};
static const char *const levels[] = {"1", "2"};

static bool is_float8(tw_dtype d) { return d == TW_E4M3 || d == TW_E5M2; }
static bool is_float6(tw_dtype d) { return d == TW_E3M2 || d == TW_E2M3 || d == TW_E2M1; }

/* The codes that the method makes are of its kind. */
static tw_status check_code(const tw_recipe *r, const char *name) {
    bool fits = true, is_int = tw_dtype_is_int(r->code);
    switch (r->method) {
    case TW_METHOD_AFFINE: fits = is_int; break;
    case TW_METHOD_TINYGEMM:
    case TW_METHOD_HQQ: fits = is_int && !tw_dtype_is_signed(r->code); break;
    case TW_METHOD_FLOAT8: fits = is_float8(r->code); break;
    case TW_METHOD_FLOATX: fits = is_float6(r->code); break;
    case TW_METHOD_MX: fits = is_float8(r->code) || is_float6(r->code); break;
    case TW_METHOD_NVFP4: fits = r->code == TW_E2M1; break;
    case TW_METHOD_NF4:
    case TW_METHOD_CODEBOOK: fits = r->code == TW_LUT4; break;
    case TW_METHOD_TERNARY: fits = r->code == TW_I2; break;
    }
    if (!fits)
        return tw_fail(TW_INVALID, "%s: w=%s, not a dtype of its codes", name,
                       tw_dtype_name(r->code));
    if (r->method == TW_METHOD_HQQ && r->scheme.group_n != 1)
        return tw_fail(TW_INVALID, "%s: g, a scale is for a row or a group of one", name);
    bool chosen = r->method != TW_METHOD_MX && r->method != TW_METHOD_NVFP4;
    if (chosen && !tw_dtype_is_real(r->scheme.scale))
        return tw_fail(TW_INVALID, "%s: s=%s, expected f32, f16 or bf16", name,
                       tw_dtype_name(r->scheme.scale));
    if (r->method == TW_METHOD_AFFINE && r->mapping != TW_MAPPING_ASYMMETRIC &&
        !tw_dtype_is_signed(r->code))
        return tw_fail(TW_INVALID, "%s: w=%s, a symmetric mapping needs signed codes", name,
                       tw_dtype_name(r->code));
    if (r->method == TW_METHOD_AFFINE && r->mapping == TW_MAPPING_SYMMETRIC_NO_CLIP &&
        r->code == TW_I1)
        return tw_fail(TW_INVALID, "%s: w=i1, without clipping the largest code may not be 0",
                       name);
    return TW_OK;
}

/* What zeros the layer has, and what dtype its codes: those of zeros that are codes are unsigned;
 * those of zeros that are values are signed, since w = (q - middle) * s + zero. */
static void finish_scheme(tw_recipe *r) {
    tw_scheme *s = &r->scheme;
    int bits = tw_dtype_bits(r->code);
    s->weight = r->code;
    if (r->method == TW_METHOD_AFFINE && r->mapping == TW_MAPPING_ASYMMETRIC) {
        s->zero_mode = TW_ZERO_CODE;
        s->weight = (tw_dtype)(TW_U1 + bits - 1);
    } else if (r->method == TW_METHOD_TINYGEMM || r->method == TW_METHOD_HQQ) {
        s->zero_mode = TW_ZERO_VALUE;
        s->weight = (tw_dtype)(TW_I1 + bits - 1);
    }
}

/* Activations of a family follow from what the weights are: a=mx from w and the rule, a=nvfp4 from
 * the levels. */
static tw_status add_activations(const fields *all, const tw_recipe *r, tw_str *out) {
    const field *w = &all->of[W], *a = &all->of[A];
    if (is(a, "mx")) {
        const char *name = is(w, "e4m3") ? "mxfp8" : is(w, "e2m1") ? "mxfp4" : NULL;
        if (!name)
            return tw_fail(TW_INVALID, "%s: w=%.*s, but activations are e4m3 or e2m1", all->recipe,
                           w->size, w->value);
        tw_str_add(out, ",a=%s%s", name, r->rule == TW_MX_RCEIL ? "" : rules[r->rule]);
    } else if (is(a, "nvfp4")) {
        tw_str_add(out, ",a=%s", r->levels == 2 ? "nvfp4t" : "nvfp4");
    } else {
        tw_str_add(out, ",a=%.*s", a->size, a->value);
    }
    return TW_OK;
}

/* The fields w, g, s, a, fpmath, read as a problem's. */
static tw_status read_scheme(const fields *all, tw_recipe *r) {
    const field *s = &all->of[S], *w = &all->of[W], *g = &all->of[G], *math = &all->of[FPMATH];
    tw_str text = {0};
    tw_str_add(&text, "w=%.*s", w->size, w->value);
    tw_status status = add_activations(all, r, &text);
    tw_str_add(&text, ",fpmath=%.*s", math->size, math->value);
    if (g->value) tw_str_add(&text, ",g=%.*s", g->size, g->value);
    if (s->value && is(s, "x"))
        tw_str_add(&text, ",s=%s", tw_dtype_name(r->x));
    else if (s->value)
        tw_str_add(&text, ",s=%.*s", s->size, s->value);
    else if (r->method == TW_METHOD_NVFP4)
        tw_str_add(&text, ",s=%s", r->levels == 2 ? "f32" : "e4m3");
    if (status == TW_OK) status = tw_scheme_parse(tw_str_text(&text), &r->scheme);
    tw_str_free(&text);
    return status;
}

static tw_status read_row(const tw_recipe_row *row, const char *given, tw_dtype x, tw_recipe *r) {
    fields all = {.recipe = row->name};
    int mapping, rule, level;
    char eps[32] = "0";
    *r = (tw_recipe){.method = row->method, .x = x};
    TW_TRY(read_fields("fpmath=strict", false, true, &all)); /* of every recipe */
    TW_TRY(read_fields(row->open, false, true, &all));
    TW_TRY(read_fields(row->fixed, false, false, &all));
    TW_TRY(read_fields(given, true, true, &all));
    TW_TRY(read_name(&all, MAPPING, mappings, TW_COUNT(mappings), &mapping));
    TW_TRY(read_name(&all, RULE, rules, TW_COUNT(rules), &rule));
    TW_TRY(read_name(&all, LEVELS, levels, TW_COUNT(levels), &level));
    r->mapping = (tw_mapping)mapping;
    r->rule = (tw_mx_rule)rule;
    r->levels = level + 1;
    const field *e = &all.of[EPS];
    if (e->value) memcpy(eps, e->value, tw_min((size_t)e->size, sizeof eps - 1));
    r->eps = strtod(eps, NULL);
    TW_TRY(read_scheme(&all, r));
    r->code = r->scheme.weight;
    TW_TRY(check_code(r, row->name));
    finish_scheme(r);
    if (r->method == TW_METHOD_NF4) r->lut = tw_nf4_values;
    return tw_scheme_check(&r->scheme);
}

tw_status tw_recipe_parse(const char *text, tw_dtype x, tw_recipe *out) {
    size_t size = strcspn(text, ",");
    if (!tw_dtype_is_real(x))
        return tw_fail(TW_INVALID, "weight: dtype %s, expected f32, f16 or bf16", tw_dtype_name(x));
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        if (strlen(rows[i].name) == size && !memcmp(rows[i].name, text, size))
            return read_row(&rows[i], text + size + (text[size] == ','), x, out);
    return tw_fail(TW_INVALID, "recipe: \"%.*s\" is not known", (int)size, text);
}

/* ---- quantizing ------------------------------------------------------------------------------ */

typedef struct job {
    const tw_recipe *r;
    int64_t N, K, group_n, group_k;
    const void *w;
    void *codes, *scales, *zeros;
    float *lut;
} job;

static int64_t groups_of(const job *j) {
    return tw_ceil_div(j->N, j->group_n) * tw_ceil_div(j->K, j->group_k);
}

static tw_affine affine_of(const job *j) {
    tw_dtype code = j->r->code;
    return (tw_affine){.N = j->N,
                       .K = j->K,
                       .group_n = j->group_n,
                       .group_k = j->group_k,
                       .x = j->r->x,
                       .scale = j->r->scheme.scale,
                       .code = code,
                       .qmin = tw_dtype_min(code),
                       .qmax = tw_dtype_max(code)};
}

/* From the method's codes to the scheme's, both counted from their dtype's smallest. */
static tw_status shift_codes(const job *j) {
    tw_dtype from = j->r->code, to = j->r->scheme.weight;
    size_t row_bytes = tw_dtype_row_bytes(to, j->K);
    if (from == to) return TW_OK;
    uint8_t *bytes = malloc((size_t)j->K);
    if (!bytes) return tw_fail(TW_MEMORY, "out of memory for a row of %lld codes", (long long)j->K);
    for (int64_t n = 0; n < j->N; n++) {
        void *row = (char *)j->codes + (size_t)n * row_bytes;
        tw_codes_get(row, from, 0, j->K, bytes);
        memset(row, 0, row_bytes);
        tw_codes_set(row, to, 0, j->K, bytes);
    }
    free(bytes);
    return TW_OK;
}

static tw_status quantize_affine(const job *j) {
    tw_affine a = affine_of(j);
    size_t count = (size_t)groups_of(j);
    int32_t *zeros = malloc(count * sizeof *zeros);
    if (!zeros) return tw_fail(TW_MEMORY, "out of memory for %zu zeros", count);
    tw_status status =
        tw_affine_fit(&a, j->r->mapping, j->r->eps, j->w, j->scales, zeros, j->codes);
    if (status == TW_OK && j->zeros) {
        for (size_t i = 0; i < count; i++) ((uint8_t *)j->zeros)[i] = (uint8_t)(zeros[i] - a.qmin);
        status = shift_codes(j);
    }
    free(zeros);
    return status;
}

static tw_status quantize_tinygemm(const job *j) {
    tw_affine a = affine_of(j);
    TW_TRY(tw_affine_choose_values(&a, j->r->eps, j->w, j->scales, j->zeros));
    TW_TRY(tw_affine_quantize_values(&a, j->w, j->scales, j->zeros, j->codes));
    return shift_codes(j);
}

/* zero = (middle - zero) * s, as torchao hands them to tinygemm. */
static tw_status quantize_hqq(const job *j) {
    int bits = tw_dtype_bits(j->r->code);
    size_t count = (size_t)groups_of(j);
    float *scales = malloc(2 * count * sizeof *scales), *zeros = scales + count;
    if (!scales) return tw_fail(TW_MEMORY, "out of memory for %zu scales", count);
    tw_status status =
        tw_hqq_quantize(bits, j->N, j->K, j->group_k, j->r->x, j->w, scales, zeros, j->codes);
    for (size_t i = 0; i < count && status == TW_OK; i++) {
        float middle = (float)(1 << (bits - 1));
        tw_float_set(j->scales, j->r->scheme.scale, (int64_t)i, scales[i]);
        tw_float_set(j->zeros, j->r->scheme.scale, (int64_t)i, (middle - zeros[i]) * scales[i]);
    }
    free(scales);
    return status == TW_OK ? shift_codes(j) : status;
}

static tw_status quantize_float8(const job *j) {
    tw_float8 f8 = {j->N, j->K, j->group_n, j->group_k, j->r->x, j->r->code};
    int64_t groups_k = tw_ceil_div(j->K, j->group_k);
    const float *scales = j->scales;
    TW_TRY(tw_float8_choose(&f8, j->w, j->scales));
    TW_TRY(tw_float8_quantize(&f8, j->w, scales, j->codes));
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < j->K; k++)
            if (scales[n / j->group_n * groups_k + k / j->group_k] == 0 &&
                tw_float_get(j->w, j->r->x, n * j->K + k) == 0)
                ((uint8_t *)j->codes)[n * j->K + k] = 0;
    return TW_OK;
}

static tw_status quantize_floatx(const job *j) {
    const tw_dtype_info *t = tw_dtype_get(j->r->code);
    tw_floatx format = {t->exponent_bits, t->mantissa_bits};
    size_t row_bytes = tw_dtype_row_bytes(t->dtype, j->K);
    uint8_t *bytes = malloc((size_t)(j->N * j->K));
    if (!bytes) return tw_fail(TW_MEMORY, "out of memory for %lld codes", (long long)(j->N * j->K));
    tw_status status = tw_floatx_choose(format, j->N, j->K, j->r->x, j->w, j->scales);
    if (status == TW_OK)
        status = tw_floatx_quantize(format, j->N, j->K, j->r->x, j->w, j->scales, bytes);
    for (int64_t n = 0; n < j->N && status == TW_OK; n++) {
        void *row = (char *)j->codes + (size_t)n * row_bytes;
        memset(row, 0, row_bytes);
        tw_codes_set(row, t->dtype, 0, j->K, bytes + n * j->K);
    }
    free(bytes);
    return status;
}

/* Of two levels the layer has one scale, their product. */
static tw_status quantize_nvfp4(const job *j) {
    float whole = 0;
    if (j->r->levels == 1)
        return tw_nvfp4_quantize(j->N, j->K, j->r->x, j->w, 0, j->scales, j->codes);
    size_t count = (size_t)groups_of(j);
    uint8_t *scales = malloc(count);
    if (!scales) return tw_fail(TW_MEMORY, "out of memory for %zu scales", count);
    tw_status status = tw_nvfp4_tensor_scale(j->N * j->K, j->r->x, j->w, &whole);
    if (status == TW_OK)
        status = tw_nvfp4_quantize(j->N, j->K, j->r->x, j->w, whole, scales, j->codes);
    for (size_t i = 0; i < count && status == TW_OK; i++)
        ((float *)j->scales)[i] = whole * tw_float_get(scales, TW_E4M3, (int64_t)i);
    free(scales);
    return status;
}

/* By the caller's name for them. */
static tw_status check_weights(const job *j) {
    float least = 0, most = 0;
    if (j->r->x != TW_F16 && tw_run_range(j->w, j->r->x, j->N * j->K, &least, &most)) return TW_OK;
    for (int64_t n = 0; n < j->N; n++)
        for (int64_t k = 0; k < j->K; k++) {
            float v = tw_float_get(j->w, j->r->x, n * j->K + k);
            if (!isfinite(v))
                return tw_fail(TW_INVALID, "weight: %g at [%lld,%lld], must be finite", (double)v,
                               (long long)n, (long long)k);
        }
    return TW_OK;
}

/* Scales and value zeros that overflowed when they were stored would refuse the layer. */
static tw_status check_stored(const job *j, const char *what, const void *values) {
    for (int64_t i = 0; i < groups_of(j); i++) {
        float v = tw_float_get(values, j->r->scheme.scale, i);
        if (!isfinite(v))
            return tw_fail(TW_INVALID, "weight: %s %lld is %g, too large for %s", what,
                           (long long)i, (double)v, tw_dtype_name(j->r->scheme.scale));
    }
    return TW_OK;
}

static tw_status run_method(const job *j) {
    tw_blocks of = {j->N, j->K, j->group_n, j->group_k, j->r->x, j->r->scheme.scale};
    switch (j->r->method) {
    case TW_METHOD_AFFINE: return quantize_affine(j);
    case TW_METHOD_TINYGEMM: return quantize_tinygemm(j);
    case TW_METHOD_HQQ: return quantize_hqq(j);
    case TW_METHOD_FLOAT8: return quantize_float8(j);
    case TW_METHOD_FLOATX: return quantize_floatx(j);
    case TW_METHOD_MX:
        return tw_mx_quantize(j->r->rule, j->r->code, j->N, j->K, j->r->x, j->w, j->scales,
                              j->codes);
    case TW_METHOD_NF4: return tw_table_quantize(&of, tw_nf4_values, j->w, j->scales, j->codes);
    case TW_METHOD_TERNARY: return tw_ternary_quantize(&of, j->w, j->scales, j->codes);
    case TW_METHOD_CODEBOOK: return tw_codebook_quantize(&of, j->w, j->scales, j->codes, j->lut);
    default: return quantize_nvfp4(j);
    }
}

tw_status tw_recipe_check(const tw_recipe *recipe, int64_t N, int64_t K) {
    bool blocks = recipe->method == TW_METHOD_MX || recipe->method == TW_METHOD_NVFP4;
    int32_t group = recipe->scheme.group_k;
    TW_TRY(tw_check_x(N, K, recipe->x));
    if (blocks && recipe->x == TW_F16)
        return tw_fail(TW_INVALID, "weight: dtype f16, expected f32 or bf16");
    if (blocks && K % group)
        return tw_fail(TW_INVALID, "K: %lld, must be a multiple of %d", (long long)K, group);
    return TW_OK;
}

int64_t tw_recipe_rows(const tw_recipe *recipe, int64_t N) {
    bool whole = recipe->method == TW_METHOD_HQQ || /* stops by the error of all */
                 recipe->method == TW_METHOD_CODEBOOK ||
                 (recipe->method == TW_METHOD_NVFP4 && recipe->levels == 2);
    return whole ? N : tw_group_n(&recipe->scheme, N);
}

tw_status tw_recipe_quantize(const tw_recipe *recipe, int64_t N, int64_t K, const void *w,
                             void *codes, void *scales, void *zeros, float *lut) {
    TW_TRY(tw_check_x(N, K, recipe->x));
    const tw_scheme *s = &recipe->scheme;
    job j = {recipe,
             N,
             K,
             tw_group_n(s, N),
             tw_group_k(s, K),
             w,
             codes,
             scales,
             s->zero_mode ? zeros : NULL,
             lut};
    tw_status status = run_method(&j);
    /* MX has codes for what is not finite, a layer has not. */
    if (status == TW_INVALID || recipe->method == TW_METHOD_MX) TW_TRY(check_weights(&j));
    if (status) return status;
    if (recipe->lut) memcpy(lut, recipe->lut, TW_LUT4_SIZE * sizeof *lut);
    TW_TRY(check_stored(&j, "scale", scales));
    return s->zero_mode == TW_ZERO_VALUE ? check_stored(&j, "zero", zeros) : TW_OK;
}
