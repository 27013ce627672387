/* See fixture.h. */
#define _GNU_SOURCE
#include "tests/capi/fixture.h"

#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/act.h"
#include "src/core/compare.h"
#include "src/core/dtype.h"
#include "templates/template.h"

static void count_line(void *user, tw_log_level level, const char *line) {
    fixture *f = user;
    /* Depends on what else runs on the machine, and on nothing that is tested. */
    if (strstr(line, "other work disturbed the measurements")) return;
    pthread_mutex_lock(&f->lock);
    f->lines[level]++;
    snprintf(f->last[level], sizeof f->last[level], "%s", line);
    pthread_mutex_unlock(&f->lock);
}

int fixture_setup(void **state) {
    char name[PATH_BYTES], real[PATH_MAX];
    const char *base = getenv("TMPDIR");
    snprintf(name, sizeof name, "%.300s/tw_capi_XXXXXX", base && *base ? base : P_tmpdir);
    if (!mkdtemp(name) || !realpath(name, real) || strlen(real) > 300) return -1;
    fixture *f = calloc(1, sizeof *f);
    if (!f) return -1;
    snprintf(f->folder, sizeof f->folder, "%s", real);
    snprintf(f->cache, sizeof f->cache, "%.400s/cache.db", real);
    pthread_mutex_init(&f->lock, NULL);
    f->options = (tw_options)TW_OPTIONS_INIT;
    f->options.cache_path = f->cache;
    f->options.cache_system_path = ""; /* nothing of this machine's */
    f->options.threads = 2;
    f->options.log = (tw_log){count_line, f};
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *at) {
    (void)s, (void)flag, (void)at;
    return remove(path);
}

int fixture_teardown(void **state) {
    fixture *f = *state;
    int failed = nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return failed;
}

void check_failed(tw_status status, tw_status expected, const char *part, const char *call,
                  int line) {
    const char *sentence = status == TW_OK ? "" : tw_error_message();
    if (status == expected && strstr(sentence, part)) return;
    print_error("line %d: %s\n  gave %s: %s\n  expected %s and \"%s\"\n", line, call,
                tw_status_name(status), sentence, tw_status_name(expected), part);
    fail();
}

tw_context *open_context(fixture *f) {
    tw_context *context = NULL;
    check_ok(tw_context_create(&f->options, &context));
    return context;
}

tw_stats stats_of(const tw_context *context) {
    tw_stats stats = TW_STATS_INIT;
    check_ok(tw_context_stats(context, &stats));
    return stats;
}

/* ---- data ---- */

static uint32_t next(uint32_t *state) {
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Within [-1, 1), with 16 bits. */
static float next_float(uint32_t *state) {
    return (float)(int32_t)(next(state) & 0xffff) / 32768.0f - 1.0f;
}

size_t tensor_bytes(const tw_tensor *t) {
    if (t->dtype == TW_NONE) return 0;
    int64_t columns = t->ndim > 1 ? t->shape[1] : 1;
    return (size_t)t->shape[0] * tw_dtype_row_bytes(t->dtype, columns);
}

static tw_tensor allocate(tw_dtype dtype, int ndim, int64_t rows, int64_t columns) {
    tw_tensor t = {NULL, dtype, ndim, {rows, ndim > 1 ? columns : 0, 0, 0}, {0, 0, 0, 0}};
    if (dtype == TW_NONE) return (tw_tensor){0};
    t.data = calloc(tensor_bytes(&t) + 1, 1);
    assert_non_null(t.data);
    return t;
}

tw_tensor random_rows(tw_dtype dtype, int64_t rows, int64_t columns, uint32_t seed) {
    tw_tensor t = allocate(dtype, 2, rows, columns);
    for (int64_t i = 0; i < rows * columns; i++) tw_float_set(t.data, dtype, i, next_float(&seed));
    return t;
}

static const float lut_values[TW_LUT4_SIZE] = {-1,    0.5f, 0.125f, -0.75f, 0.9f,   -0.1f,
                                               0,     0.3f, -0.3f,  1,      -0.55f, 0.7f,
                                               -0.2f, 0.2f, -0.9f,  0.05f};

static void fill_codes(const tw_tensor *t, uint32_t *seed) {
    size_t row_bytes = tw_dtype_row_bytes(t->dtype, t->shape[1]);
    for (int64_t n = 0; n < t->shape[0]; n++) {
        char *row = (char *)t->data + (size_t)n * row_bytes;
        for (int64_t k = 0; k < t->shape[1]; k++) {
            int32_t least = tw_dtype_min(t->dtype), most = tw_dtype_max(t->dtype);
            int32_t code = least + (int32_t)(next(seed) % (uint32_t)(most - least + 1));
            tw_code_set(row, t->dtype, k, code);
        }
    }
}

static void fill_floats(const tw_tensor *t, float base, float spread, uint32_t *seed) {
    int64_t count = t->shape[0] * (t->ndim > 1 ? t->shape[1] : 1);
    for (int64_t i = 0; i < count; i++)
        tw_float_set(t->data, t->dtype, i, base + spread * next_float(seed));
}

/* Of f16i8, another one for each 256 columns of a row. */
static void fill_factors(tw_tensor *t, int64_t group_k, float factor) {
    if (t->dtype != TW_F16I8) return;
    int64_t some = TW_FACTOR_K / group_k, columns = t->shape[1];
    for (int64_t i = 0; i < t->shape[0] * columns; i++) {
        int64_t run = i / columns * 3 + i % columns / some;
        tw_float_set(&((tw_pair *)t->data)[i].factor, TW_F16, 0, factor / (float)(1 + run % 7));
    }
}

void layer_init(layer *l, const char *problem, uint32_t seed) {
    check_ok(tw_problem_parse(problem, false, &l->problem));
    const tw_problem *p = &l->problem;
    const tw_scheme *s = &p->scheme;
    int64_t rows = tw_scale_rows(s, p->N), groups = tw_groups(s, p->K);
    l->desc = (tw_linear_desc)TW_LINEAR_DESC_INIT;
    l->desc.N = p->N, l->desc.K = p->K, l->desc.x = p->x, l->desc.y = p->y;
    l->desc.scheme = *s, l->desc.act = p->act;
    l->weight = allocate(s->weight, 2, p->N, p->K);
    l->scales = allocate(s->scale, 2, rows, groups);
    l->zeros = allocate(tw_zero_dtype(s), 2, rows, groups);
    l->bias = allocate(p->bias, 1, p->N, 1);
    if (s->weight == TW_LUT4) l->desc.lut = lut_values;
    if (tw_act_given(s)) l->desc.act_scale = 0.0075f;
    if (tw_dtype_is_int(s->weight) || s->weight == TW_LUT4)
        fill_codes(&l->weight, &seed);
    else
        fill_floats(&l->weight, 0, 1, &seed);
    fill_factors(&l->scales, s->group_k, 0.001f);
    fill_factors(&l->zeros, s->group_k, 0.003f);
    fill_floats(&l->scales, 0.02f, 0.01f, &seed);
    if (s->zero_mode == TW_ZERO_VALUE) fill_floats(&l->zeros, -0.1f, 0.1f, &seed);
    if (s->zero_mode == TW_ZERO_CODE)
        for (int64_t i = 0; i < rows * groups; i++)
            ((uint8_t *)l->zeros.data)[i] =
                (uint8_t)(next(&seed) % ((uint32_t)tw_dtype_max(s->weight) + 1));
    fill_floats(&l->bias, 0, 0.5f, &seed);
}

void layer_free(layer *l) {
    free(l->weight.data);
    free(l->scales.data);
    free(l->zeros.data);
    free(l->bias.data);
}

const tw_tensor *given(const tw_tensor *t) { return t->dtype == TW_NONE ? NULL : t; }

tw_status try_linear(const layer *l, tw_context *context, tw_linear **out) {
    return tw_linear_create(context, &l->desc, &l->weight, given(&l->scales), given(&l->zeros),
                            given(&l->bias), out);
}

tw_linear *make_linear(const layer *l, tw_context *context) {
    tw_linear *linear = NULL;
    check_ok(try_linear(l, context, &linear));
    return linear;
}

/* ---- results ---- */

static int64_t stride_of(const tw_tensor *t) { return t->stride[0] ? t->stride[0] : t->shape[1]; }

void check_result(const layer *l, tw_linear *linear, const tw_tensor *x, const tw_tensor *y) {
    const tw_problem *p = &l->problem;
    tw_canonical w = {l->weight.data, l->scales.data, l->zeros.data,
                      l->bias.data,   l->desc.lut,    l->desc.act_scale};
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    check_ok(tw_linear_plan(linear, x->shape[0], &plan));
    const tw_template *tmpl = tw_template_find(plan.kernel);
    int64_t chain = tmpl ? tmpl->chain(p) : 1;
    float *row = malloc((size_t)p->K * sizeof *row);
    double *expected = malloc((size_t)p->N * sizeof *expected);
    double *magnitude = malloc((size_t)p->N * sizeof *magnitude);
    assert_true(row && expected && magnitude);
    for (int64_t m = 0; m < x->shape[0]; m++) {
        for (int64_t k = 0; k < p->K; k++)
            row[k] = tw_float_get(x->data, p->x,
                                  m * stride_of(x) + (l->desc.order ? l->desc.order[k] : k));
        tw_reference_row(p, &w, row, 0, p->N, expected, magnitude);
        const char *y_row = (const char *)y->data + m * stride_of(y) * tw_dtype_bits(p->y) / 8;
        tw_status status = tw_compare_row(p, chain, expected, magnitude, y_row, p->N, NULL);
        if (status != TW_OK) fail_msg("row %lld: %s", (long long)m, tw_error_message());
    }
    free(row);
    free(expected);
    free(magnitude);
}

void check_forward(const layer *l, tw_linear *linear, int64_t M) {
    const tw_problem *p = &l->problem;
    tw_tensor x = random_rows(p->x, M, p->K, (uint32_t)M + 7), y = allocate(p->y, 2, M, p->N);
    memset(y.data, 0xff, tensor_bytes(&y)); /* NaN, unless written */
    check_ok(tw_linear_forward(linear, &x, &y));
    check_result(l, linear, &x, &y);
    free(x.data);
    free(y.data);
}

void check_plan(tw_linear *linear, int64_t M, const char *kernel, const char *origin) {
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    check_ok(tw_linear_plan(linear, M, &plan));
    assert_string_equal(plan.kernel, kernel);
    assert_string_equal(plan.origin, origin);
}
