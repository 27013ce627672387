/* Layers by the name of a recipe: the public face of src/quant/recipe.h. */
#include "src/quant/recipe.h"

#include <stdlib.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/context.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"
#include "src/core/reference.h"
#include "src/quant/table.h"
#include "src/rows.h"

const char *tw_recipe_name(int32_t i) {
    const tw_recipe_row *row = tw_recipe_at(i);
    return row ? row->name : NULL;
}

tw_status tw_recipe_scheme(const char *recipe, tw_dtype weight, tw_scheme *out) {
    tw_recipe r;
    if (!recipe) return tw_fail(TW_INVALID, "recipe: NULL, must be given");
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    TW_TRY(tw_recipe_parse(recipe, weight, &r));
    *out = r.scheme;
    return TW_OK;
}

static tw_status check_desc(const tw_linear_desc *d) {
    const tw_scheme *s = &d->scheme;
    if (s->weight || s->scale || s->zero_mode || s->group_n || s->group_k || s->act_quant ||
        s->act_group || s->fpmath)
        return tw_fail(TW_INVALID, "desc: scheme: given, but the recipe has one; must be zero");
    if (d->lut)
        return tw_fail(TW_INVALID, "desc: lut: given, the recipe decides on it; "
                                   "must be NULL");
    return TW_OK;
}

static tw_status check_weight(const tw_tensor *w, int64_t N, int64_t K) {
    TW_TRY(tw_check_tensor("weight", w, w->dtype, 2, (int64_t[]){N, K}));
    if (!tw_tensor_contiguous(w))
        return tw_fail(TW_INVALID, "weight: strides [%lld,%lld], must be contiguous",
                       (long long)w->stride[0], (long long)w->stride[1]);
    return TW_OK;
}

static tw_status check_given(const tw_context *context, const char *recipe,
                             const tw_tensor *weight) {
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    if (!recipe) return tw_fail(TW_INVALID, "recipe: NULL, must be given");
    return weight ? TW_OK : tw_fail(TW_INVALID, "weight: NULL, must be given");
}

/* What the recipe makes of N x K weights can be a layer. */
static tw_status check_problem(const tw_recipe *r, int64_t N, int64_t K) {
    tw_problem p = {.N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = r->scheme};
    return tw_problem_check(&p);
}

tw_status tw_quantize_weight(tw_context *context, const char *recipe, const tw_tensor *weight,
                             void *codes, void *scales, void *zeros, float *lut) {
    tw_recipe r;
    TW_TRY(check_given(context, recipe, weight));
    if (weight->ndim != 2)
        return tw_fail(TW_INVALID, "weight: %d dimensions, expected [N,K]", weight->ndim);
    int64_t N = weight->shape[0], K = weight->shape[1];
    TW_TRY(check_weight(weight, N, K));
    TW_TRY(tw_recipe_parse(recipe, weight->dtype, &r));
    TW_TRY(check_problem(&r, N, K));
    const struct {
        const char *name;
        const void *given;
        bool wanted;
    } outputs[] = {{"codes", codes, true},
                   {"scales", scales, true},
                   {"zeros", zeros, r.scheme.zero_mode != TW_ZERO_NONE},
                   {"lut", lut, r.scheme.weight == TW_LUT4}};
    for (size_t i = 0; i < TW_COUNT(outputs); i++)
        if (outputs[i].wanted != (outputs[i].given != NULL))
            return tw_fail(TW_INVALID, "%s: %s", outputs[i].name,
                           outputs[i].wanted ? "NULL, the recipe's scheme has them"
                                             : "given, but the recipe's scheme has none");
    return tw_rows_recipe(context->threads, &r, N, K, weight->data, codes, scales, zeros, lut);
}

tw_status tw_quantize_table(const tw_tensor *weight, const float *table, int64_t group,
                            tw_dtype scale, void *codes, void *scales) {
    if (!weight) return tw_fail(TW_INVALID, "weight: NULL, must be given");
    if (!table || !codes || !scales)
        return tw_fail(TW_INVALID, "%s: NULL, must be given",
                       !table   ? "table"
                       : !codes ? "codes"
                                : "scales");
    if (weight->ndim != 2)
        return tw_fail(TW_INVALID, "weight: %d dimensions, expected [N,K]", weight->ndim);
    if (!tw_dtype_is_real(scale))
        return tw_fail(TW_INVALID, "scale: %s, expected f32, f16 or bf16", tw_dtype_name(scale));
    if (group < 0 || group > TW_MAX_DIM)
        return tw_fail(TW_INVALID, "group: %lld, expected 0 to %d", (long long)group, TW_MAX_DIM);
    int64_t N = weight->shape[0], K = weight->shape[1];
    TW_TRY(check_weight(weight, N, K));
    const tw_blocks b = {N, K, 1, group ? group : K, weight->dtype, scale};
    TW_TRY(tw_table_quantize(&b, table, weight->data, scales, codes));
    return tw_check_finite("scales", scales, scale, N, tw_ceil_div(K, b.group_k));
}

tw_status tw_dequantize_weight(const tw_scheme *scheme, int64_t N, int64_t K, const void *codes,
                               const void *scales, const void *zeros, const float *lut,
                               float *out) {
    if (!scheme) return tw_fail(TW_INVALID, "scheme: NULL, must be given");
    tw_problem p = {.N = N, .K = K, .x = TW_F32, .y = TW_F32, .scheme = *scheme};
    TW_TRY(tw_problem_check(&p));
    const struct {
        const char *name;
        const void *given;
        bool wanted;
    } parts[] = {{"codes", codes, true},
                 {"scales", scales, !tw_scheme_plain(scheme)},
                 {"zeros", zeros, scheme->zero_mode != TW_ZERO_NONE},
                 {"lut", lut, scheme->weight == TW_LUT4},
                 {"out", out, true}};
    for (size_t i = 0; i < TW_COUNT(parts); i++)
        if (parts[i].wanted != (parts[i].given != NULL))
            return tw_fail(TW_INVALID, "%s: %s", parts[i].name,
                           parts[i].wanted ? "NULL, must be given"
                                           : "given, but the scheme has none");
    const tw_canonical w = {.weight = codes, .scales = scales, .zeros = zeros, .lut = lut};
    for (int64_t n = 0; n < N; n++) tw_dequantize_row(&p, &w, n, out + n * K);
    return TW_OK;
}

tw_status tw_linear_create_from_recipe(tw_context *context, const tw_linear_desc *desc,
                                       const char *recipe, const tw_tensor *weight,
                                       const tw_tensor *bias, tw_linear **out) {
    tw_linear_desc d;
    tw_recipe r;
    TW_TRY(check_given(context, recipe, weight));
    TW_TRY(tw_struct_read("desc", desc, sizeof d, &d));
    d.struct_size = sizeof d;
    TW_TRY(check_desc(&d));
    TW_TRY(check_weight(weight, d.N, d.K));
    TW_TRY(tw_recipe_parse(recipe, weight->dtype, &r));
    TW_TRY(check_problem(&r, d.N, d.K));
    d.scheme = r.scheme;
    float lut[TW_LUT4_SIZE];
    if (r.scheme.weight == TW_LUT4) d.lut = lut;
    int64_t rows = tw_scale_rows(&r.scheme, d.N), groups = tw_groups(&r.scheme, d.K);
    tw_dtype zero = tw_zero_dtype(&r.scheme);
    size_t code_bytes = (size_t)d.N * tw_dtype_row_bytes(r.scheme.weight, d.K);
    size_t count = (size_t)(rows * groups);
    tw_tensor codes = TW_TENSOR_2D(calloc(1, code_bytes), r.scheme.weight, d.N, d.K);
    tw_tensor scales = TW_TENSOR_2D(calloc(count, sizeof(float)), r.scheme.scale, rows, groups);
    tw_tensor zeros = TW_TENSOR_2D(calloc(count, sizeof(float)), zero, rows, groups);
    tw_status status = codes.data && scales.data && zeros.data
                           ? tw_rows_recipe(context->threads, &r, d.N, d.K, weight->data,
                                            codes.data, scales.data, zeros.data, lut)
                           : tw_fail(TW_MEMORY, "out of memory for the codes of %lld x %lld",
                                     (long long)d.N, (long long)d.K);
    if (status == TW_OK)
        status = tw_linear_create(context, &d, &codes, &scales, zero ? &zeros : NULL, bias, out);
    free(codes.data);
    free(scales.data);
    free(zeros.data);
    return status;
}
