/* forward(): right for every M, stride and dtype; every bad x and y is refused with a sentence. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/capi/fixture.h"

typedef struct world {
    fixture *f;
    tw_context *context;
    layer l;
    tw_linear *linear;
} world;

static world open_world(void **state, const char *problem) {
    world w = {.f = *state};
    w.context = open_context(w.f);
    layer_init(&w.l, problem, 23);
    w.linear = make_linear(&w.l, w.context);
    return w;
}

static void close_world(world *w) {
    tw_linear_destroy(w->linear);
    tw_context_destroy(w->context);
    layer_free(&w->l);
}

static void every_bucket(void **state) {
    world w = open_world(state, "N=80,K=96,w=u4,g=32,s=f16,z=code,a=i8,bias=f16,act=silu");
    static const int64_t rows[] = {1, 2, 3, 7, 16, 31, 33, 100, 257};
    for (size_t i = 0; i < TW_COUNT(rows); i++) check_forward(&w.l, w.linear, rows[i]);
    close_world(&w);
}

/* More than the largest bucket: chunks through the same kernel. */
static void many_rows(void **state) {
    world w = open_world(state, "N=8,K=32,w=i8,g=channel,s=f32,a=i8");
    check_forward(&w.l, w.linear, 2 * TW_MAX_BUCKET + 5);
    close_world(&w);
}

static void dtypes(void **state) {
    static const char *const problems[] = {
        "N=70,K=100,x=f16,w=i4,g=32,s=f16,y=bf16,bias=bf16,act=relu",
        "N=70,K=100,x=bf16,w=u5,g=16,s=bf16,z=value,y=f32,act=gelu_tanh",
        "N=70,K=100,x=f32,w=u8,g=channel,s=f32,z=code,a=i8z,y=f16,act=gelu",
        "N=70,K=100,x=bf16,w=f16,y=bf16",
    };
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        world w = open_world(state, problems[i]);
        check_forward(&w.l, w.linear, 1);
        check_forward(&w.l, w.linear, 19);
        close_world(&w);
    }
}

/* Rows of x that lie apart. */
static void check_strided_x(const world *w, int64_t M) {
    const tw_problem *p = &w->l.problem;
    tw_tensor x = random_rows(p->x, M, p->K + 7, 3), y = random_rows(p->y, M, p->N, 4);
    x.shape[1] = p->K;
    x.stride[0] = p->K + 7, x.stride[1] = 1;
    check_ok(tw_linear_forward(w->linear, &x, &y));
    check_result(&w->l, w->linear, &x, &y);
    free(x.data);
    free(y.data);
}

/* Column k of the weights meets column order[k] of x, whatever runs and however x lies. */
static void column_order(void **state) {
    static const char *const problems[] = {
        "N=70,K=100,x=f16,w=i4,g=32,s=f16,y=bf16,bias=bf16,act=relu",
        "N=70,K=100,x=f32,w=u8,g=channel,s=f32,z=code,a=i8",
        "N=9,K=100,x=bf16,w=lut4,g=20,s=f16",
    };
    int32_t order[100];
    for (int32_t k = 0; k < 100; k++) order[k] = k * 37 % 100;
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        world w = {.f = *state};
        w.context = open_context(w.f);
        layer_init(&w.l, problems[i], 5);
        w.l.desc.order = order;
        w.linear = make_linear(&w.l, w.context);
        assert_memory_equal(tw_linear_order(w.linear), order, sizeof order);
        check_forward(&w.l, w.linear, 1);
        check_ok(tw_linear_prepare(w.linear, (const int64_t[]){1, 33}, 2, 1));
        check_forward(&w.l, w.linear, 1);
        check_forward(&w.l, w.linear, 33);
        check_strided_x(&w, 33);
        close_world(&w);
    }
    assert_null(tw_linear_order(NULL));
}

/* More bytes of x than are gathered at a time. */
static void column_order_of_many_rows(void **state) {
    enum { K = 1 << 14 };
    int32_t *order = malloc(K * sizeof *order);
    assert_non_null(order);
    for (int32_t k = 0; k < K; k++) order[k] = K - 1 - k;
    world w = {.f = *state};
    w.context = open_context(w.f);
    layer_init(&w.l, "N=2,K=16384,w=i8,g=channel,s=f32,a=i8", 5);
    w.l.desc.order = order;
    w.linear = make_linear(&w.l, w.context);
    check_forward(&w.l, w.linear, 150);
    close_world(&w);
    free(order);
}

/* Weights by a table, which no kernel takes yet or some do: the answer is the same. */
static void look_up_table(void **state) {
    static const char *const problems[] = {"N=70,K=96,x=f32,w=lut4,g=32,s=f16",
                                           "N=70,K=130,x=bf16,w=lut4,g=channel,s=f32,y=f32,a=i8",
                                           "N=3,K=2,x=f16,w=lut4,g=tensor,s=e8m0,bias=f32"};
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        world w = open_world(state, problems[i]);
        assert_memory_equal(tw_linear_lut(w.linear), w.l.desc.lut, TW_LUT4_SIZE * sizeof(float));
        check_forward(&w.l, w.linear, 1);
        check_forward(&w.l, w.linear, 19);
        close_world(&w);
    }
    assert_null(tw_linear_lut(NULL));
}

/* x that is rounded before a kernel sees it: its plan is that of plain f32 x. */
static void rounded_x(void **state) {
    static const char *const problems[] = {
        "N=70,K=100,w=e4m3,a=e4m3",
        "N=70,K=300,x=bf16,w=e4m3,g=128x128,a=e4m3g128,y=f32,bias=bf16,act=silu",
        "N=70,K=101,x=f16,w=u4,g=32,s=f16,z=value,a=e4m3g7",
        "N=70,K=100,x=bf16,w=e4m3,g=32,s=e8m0,a=mxfp8",
        "N=3,K=50,x=f16,w=e2m1,g=32,s=e8m0,a=mxfp4even",
        "N=70,K=100,x=f32,w=e2m1,g=16,s=f32,a=nvfp4t",
        "N=70,K=100,x=bf16,w=e2m1,g=16,s=e4m3,a=nvfp4s",
        "N=70,K=100,w=i8,a=i8s,bias=f32,act=relu",
        "N=70,K=100,x=f16,w=e4m3,g=tensor,a=e4m3s",
        "N=40,K=64,w=u4,g=3,s=f16,a=e4m3", /* no kernel takes it */
    };
    int32_t order[300];
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        world w = open_world(state, problems[i]);
        bool reference = strstr(problems[i], "g=3,") != NULL;
        check_plan(w.linear, 19, reference ? "reference" : "cpu.dq_gemm",
                   reference ? "reference" : "guess");
        tw_tensor none = TW_TENSOR_2D(NULL, w.l.problem.x, 0, w.l.problem.K);
        tw_tensor empty = TW_TENSOR_2D(NULL, w.l.problem.y, 0, w.l.problem.N);
        check_ok(tw_linear_forward(w.linear, &none, &empty));
        check_forward(&w.l, w.linear, 1);
        check_forward(&w.l, w.linear, 19);
        check_strided_x(&w, 33);
        tw_linear_destroy(w.linear);
        for (int32_t k = 0; k < w.l.problem.K; k++) order[k] = (int32_t)w.l.problem.K - 1 - k;
        w.l.desc.order = order;
        w.linear = make_linear(&w.l, w.context);
        check_ok(tw_linear_prepare(w.linear, (const int64_t[]){33}, 1, 2));
        check_strided_x(&w, 33);
        close_world(&w);
    }
}

/* More of it than is rounded at a time. */
static void rounded_x_of_many_rows(void **state) {
    world w = open_world(state, "N=3,K=30000,x=bf16,w=i8,g=channel,a=mxfp8floor");
    check_forward(&w.l, w.linear, 150);
    close_world(&w);
}

/* One compile and one choice for all that come to the same kernel, and every dump is of that. */
static void rounded_x_shares_kernels(void **state) {
    world w = open_world(state, "N=70,K=96,w=e4m3,a=e4m3"), plain;
    char text[4096] = "";
    size_t size;
    check_forward(&w.l, w.linear, 4);
    check_ok(tw_linear_dump(w.linear, 4, TW_DUMP_EXPLAIN, text, sizeof text, &size));
    assert_non_null(strstr(text, "first    x is rounded to e4m3, a scale a token, before it"));
    assert_non_null(strstr(text, "x=f32,w=e4m3,g=channel,s=f32,z=none,a=none,"));
    check_ok(tw_linear_dump(w.linear, 4, TW_DUMP_KEY, text, sizeof text, &size));
    assert_null(strstr(text, "a=e4m3"));
    check_ok(tw_linear_dump(w.linear, 4, TW_DUMP_TRACE, text, sizeof text, &size));
    check_ok(tw_linear_dump(w.linear, 4, TW_DUMP_OBJECT, text, sizeof text, &size));
    plain = w;
    layer_init(&plain.l, "N=70,K=96,x=f32,w=e4m3", 23);
    plain.linear = make_linear(&plain.l, w.context);
    check_forward(&plain.l, plain.linear, 4);
    assert_int_equal(stats_of(w.context).compiles, 1);
    assert_int_equal(stats_of(w.context).loads, 1);
    assert_int_equal(stats_of(w.context).guesses, 1);
    tw_linear_destroy(plain.linear);
    layer_free(&plain.l);
    close_world(&w);
}

/* A bad number spoils its row, and no other: as with codes. */
static void rounded_x_not_finite(void **state) {
    static const char *const problems[] = {"N=9,K=64,w=e4m3,a=e4m3", "N=9,K=64,w=e4m3,a=mxfp8",
                                           "N=9,K=64,w=i8,a=i8s", "N=9,K=64,w=i8,a=nvfp4t",
                                           "N=9,K=64,w=i8,a=i8"};
    for (size_t i = 0; i < TW_COUNT(problems) * 2; i++) {
        world w = open_world(state, problems[i / 2]);
        tw_tensor x = random_rows(TW_F32, 3, 64, 3), y = random_rows(TW_F32, 3, 9, 4);
        ((float *)x.data)[64 + 40] = i % 2 ? NAN : INFINITY;
        check_ok(tw_linear_forward(w.linear, &x, &y));
        for (int n = 0; n < 27; n++) assert_int_equal(isnan(((float *)y.data)[n]) != 0, n / 9 == 1);
        free(x.data);
        free(y.data);
        close_world(&w);
    }
}

static void no_rows(void **state) {
    world w = open_world(state, "N=8,K=32,w=i8,s=f32,a=i8");
    tw_tensor x = TW_TENSOR_2D(NULL, TW_F32, 0, 32), y = TW_TENSOR_2D(NULL, TW_F32, 0, 8);
    check_ok(tw_linear_forward(w.linear, &x, &y));
    assert_int_equal(stats_of(w.context).compiles, 0);
    /* Still a call like any other. */
    x.shape[1] = 31;
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_INVALID, "expected [M,32]");
    close_world(&w);
}

/* One value in, act of it out: the reference and each instruction set give the same kind of number,
 * and where it is infinite the same one. */
static void not_finite(void **state) {
    static const char *const problems[] = {"N=1,K=1,w=f32,act=relu", "N=1,K=1,w=f32,act=gelu",
                                           "N=1,K=1,w=f32,act=gelu_tanh", "N=1,K=1,w=f32,act=silu"};
    static const char *const devices[] = {"cpu", "cpu:portable"};
    float values[] = {-INFINITY, INFINITY, NAN}, one = 1, y_data[2][TW_COUNT(values)];
    fixture *f = *state;
    tw_tensor x = TW_TENSOR_2D(values, TW_F32, TW_COUNT(values), 1);
    for (size_t i = 0; i < TW_COUNT(problems) * TW_COUNT(devices); i++) {
        layer l;
        layer_init(&l, problems[i / 2], 1);
        memcpy(l.weight.data, &one, sizeof one);
        f->options.device = devices[i % 2];
        for (int mode = TW_MODE_DEFAULT; mode <= TW_MODE_REFERENCE; mode++) {
            f->options.mode = (tw_mode)mode;
            tw_tensor y = TW_TENSOR_2D(y_data[mode], TW_F32, TW_COUNT(values), 1);
            tw_context *context = open_context(f);
            tw_linear *linear = make_linear(&l, context);
            check_ok(tw_linear_forward(linear, &x, &y));
            tw_linear_destroy(linear);
            tw_context_destroy(context);
        }
        for (size_t k = 0; k < TW_COUNT(values); k++) {
            float kernel = y_data[TW_MODE_DEFAULT][k], reference = y_data[TW_MODE_REFERENCE][k];
            if (kernel != reference && !(isnan(kernel) && isnan(reference)))
                fail_msg("%s of %g on %s: kernel %g, reference %g", problems[i / 2],
                         (double)values[k], devices[i % 2], (double)kernel, (double)reference);
        }
        layer_free(&l);
    }
}

/* ---- strides ---- */

/* Rows apart by `stride`, with NaN in between that must neither be read nor written. */
static void row_strided(void **state) {
    world w = open_world(state, "N=70,K=50,w=u4,g=32,s=f16,z=value");
    enum { M = 9, X = 61, Y = 77 };
    static float x_data[M * X], y_data[M * Y];
    tw_tensor dense = random_rows(TW_F32, M, 50, 3);
    for (size_t i = 0; i < TW_COUNT(x_data); i++) x_data[i] = NAN;
    for (size_t i = 0; i < TW_COUNT(y_data); i++) y_data[i] = 12345;
    for (size_t m = 0; m < M; m++)
        memcpy(x_data + m * X, (float *)dense.data + m * 50, 50 * sizeof(float));
    tw_tensor x = {x_data, TW_F32, 2, {M, 50}, {X, 1}}, y = {y_data, TW_F32, 2, {M, 70}, {Y, 1}};
    check_ok(tw_linear_forward(w.linear, &x, &y));
    check_result(&w.l, w.linear, &x, &y);
    for (size_t m = 0; m < M; m++)
        for (size_t n = 70; n < Y; n++) assert_true(y_data[m * Y + n] == 12345);
    free(dense.data);
    close_world(&w);
}

/* x and y as columns of one buffer, as engines lay out fused projections. */
static void side_by_side(void **state) {
    world w = open_world(state, "N=70,K=50,w=u4,g=32,s=f16,z=value");
    enum { M = 5, STRIDE = 130 };
    static float buffer[M * STRIDE];
    tw_tensor dense = random_rows(TW_F32, M, 50, 3);
    for (size_t m = 0; m < M; m++)
        memcpy(buffer + m * STRIDE, (float *)dense.data + m * 50, 50 * sizeof(float));
    tw_tensor x = {buffer, TW_F32, 2, {M, 50}, {STRIDE, 1}};
    tw_tensor y = {buffer + 60, TW_F32, 2, {M, 70}, {STRIDE, 1}};
    check_ok(tw_linear_forward(w.linear, &x, &y));
    check_result(&w.l, w.linear, &x, &y);
    /* One column too far to the left, or out of the row into the next one's x. */
    y.data = buffer + 49;
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_INVALID, "overlaps x");
    y.data = buffer + 61;
    y.shape[0] = x.shape[0] = M - 1;
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_INVALID, "overlaps x");
    free(dense.data);
    close_world(&w);
}

/* A single row has no next one: its stride says nothing. */
static void one_row(void **state) {
    world w = open_world(state, "N=70,K=50,w=u4,g=32,s=f16,z=value");
    static float y_data[70];
    tw_tensor x = random_rows(TW_F32, 1, 50, 3), y = TW_TENSOR_2D(y_data, TW_F32, 1, 70);
    x.stride[0] = 1, x.stride[1] = 1;
    check_ok(tw_linear_forward(w.linear, &x, &y));
    x.stride[0] = 50;
    check_result(&w.l, w.linear, &x, &y);
    free(x.data);
    close_world(&w);
}

/* ---- what is refused ---- */

static void bad_rows(void **state) {
    world w = open_world(state, "N=70,K=50,w=u4,g=32,s=f16,z=value");
    tw_tensor x = random_rows(TW_F32, 4, 50, 3), y = random_rows(TW_F32, 4, 70, 4);
    const tw_tensor good_x = x, good_y = y;
    check_fails(tw_linear_forward(NULL, &x, &y), TW_INVALID, "linear: NULL");
    check_fails(tw_linear_forward(w.linear, NULL, &y), TW_INVALID, "x: NULL");
    check_fails(tw_linear_forward(w.linear, &x, NULL), TW_INVALID, "y: NULL");
#define TRY(change, part)                                                                          \
    x = good_x, y = good_y;                                                                        \
    change;                                                                                        \
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_INVALID, part);
    TRY(x.dtype = TW_F16, "x: dtype f16, expected f32")
    TRY(y.dtype = TW_BF16, "y: dtype bf16, expected f32")
    TRY(x.ndim = 1, "x: 1 dimensions")
    TRY(x.shape[1] = 51, "x: 2 dimensions of shape [4,51], expected [M,50]")
    TRY(y.shape[1] = 69, "y: 2 dimensions of shape [4,69], expected [M,70]")
    TRY(x.shape[0] = -1, "x: 2 dimensions of shape [-1,50]")
    TRY(y.shape[0] = 5, "y: shape [5,70], expected [4,70]")
    TRY(x.data = NULL, "x: data is NULL")
    TRY(y.data = NULL, "y: data is NULL")
    TRY(x.data = (char *)x.data + 2, "x: data")
    TRY(y.data = (char *)y.data + 1, "must be aligned to 4 bytes for f32")
    TRY((x.stride[0] = 50, x.stride[1] = 2), "x: stride[1] 2, must be 1")
    TRY(x.stride[0] = 50, "x: stride[1] 0, must be 1")
    TRY((x.stride[0] = 49, x.stride[1] = 1), "x: stride[0] 49, must be at least the 50 columns")
    TRY((y.stride[0] = 69, y.stride[1] = 1), "y: stride[0] 69, must be at least the 70 columns")
    TRY((y.stride[0] = -70, y.stride[1] = 1), "y: stride[0] -70")
    TRY((x.stride[0] = INT64_MAX / 2, x.stride[1] = 1), "more than memory holds")
    TRY(x.shape[0] = INT64_MAX / 100, "more than memory holds")
    TRY(y.data = x.data, "overlaps x")
    TRY(y.data = (float *)x.data + 199, "overlaps x")
#undef TRY
    free(good_x.data), free(good_y.data);
    close_world(&w);
}

static void prepare_arguments(void **state) {
    world w = open_world(state, "N=8,K=32,w=i8,s=f32,a=i8");
    static const int64_t M[] = {1, 16, 0};
    check_fails(tw_linear_prepare(NULL, M, 1, 1), TW_INVALID, "linear: NULL");
    check_fails(tw_linear_prepare(w.linear, NULL, 1, 1), TW_INVALID,
                "M: NULL, must hold the 1 values");
    check_fails(tw_linear_prepare(w.linear, M, -1, 1), TW_INVALID, "count: -1, must be 0 or more");
    check_fails(tw_linear_prepare(w.linear, M, 3, 1), TW_INVALID, "M[2]: 0, must be positive");
    check_fails(tw_linear_prepare(w.linear, M, 2, -1), TW_INVALID, "max_concurrent: -1");
    check_fails(tw_linear_prepare(w.linear, M, 2, 1025), TW_INVALID, "from 0 to 1024");
    check_ok(tw_linear_prepare(w.linear, NULL, 0, 0));
    check_ok(tw_linear_prepare(w.linear, M, 2, 0));
    check_ok(tw_linear_prepare(w.linear, (int64_t[]){1 << 20}, 1, 2));
    close_world(&w);
}

/* Where no kernel takes a problem, the reference does, with one warning a linear. */
static void reference_fallback(void **state) {
    world w = open_world(state, "N=40,K=64,w=u4,g=3,s=f16");
    check_forward(&w.l, w.linear, 1);
    check_forward(&w.l, w.linear, 20);
    check_plan(w.linear, 20, "reference", "reference");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(w.f->last[TW_LOG_WARN], "no kernel takes it"));
    assert_null(strchr(w.f->last[TW_LOG_WARN], '\n'));
    assert_int_equal(stats_of(w.context).references, 2);
    close_world(&w);
}

static void reference_mode(void **state) {
    ((fixture *)*state)->options.mode = TW_MODE_REFERENCE;
    world w = open_world(state, "N=70,K=50,w=u4,g=32,s=f16,z=value,bias=f32,act=gelu");
    check_forward(&w.l, w.linear, 4);
    check_plan(w.linear, 4, "reference", "reference");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    tw_stats stats = stats_of(w.context);
    assert_int_equal(stats.compiles + stats.loads + stats.choice_misses, 0);
    close_world(&w);
}

/* ---- several layers of one x ---- */

enum { MOST_LAYERS = 11 };

static void check_together(fixture *f, const char *const *problems, int32_t count, int64_t M,
                           int32_t threads, bool prepared) {
    layer l[MOST_LAYERS];
    tw_linear *linears[MOST_LAYERS];
    tw_tensor y[MOST_LAYERS];
    tw_options options = f->options;
    options.threads = threads;
    tw_context *context;
    check_ok(tw_context_create(&options, &context));
    for (int32_t i = 0; i < count; i++) {
        layer_init(&l[i], problems[i], 40 + (uint32_t)i);
        linears[i] = make_linear(&l[i], context);
        if (prepared) check_ok(tw_linear_prepare(linears[i], &M, 1, 1));
        y[i] = random_rows(l[i].problem.y, M, l[i].problem.N, 3);
    }
    tw_tensor x = random_rows(l[0].problem.x, M, l[0].problem.K, 8);
    check_ok(tw_linear_forward_group(linears, count, &x, y));
    for (int32_t i = 0; i < count; i++) {
        tw_tensor alone = random_rows(l[i].problem.y, M, l[i].problem.N, 4);
        check_ok(tw_linear_forward(linears[i], &x, &alone));
        assert_memory_equal(y[i].data, alone.data, tensor_bytes(&alone));
        if (M) check_result(&l[i], linears[i], &x, &y[i]);
        free(alone.data);
        free(y[i].data);
        tw_linear_destroy(linears[i]);
        layer_free(&l[i]);
    }
    free(x.data);
    tw_context_destroy(context);
}

static void together(void **state) {
    fixture *f = *state;
    static const char *const alike[] = {
        "N=576,K=576,w=u4,g=32,s=f16,z=value,a=i8g32",
        "N=192,K=576,w=u4,g=32,s=f16,z=value,a=i8g32",
        "N=190,K=576,w=u4,g=32,s=f16,z=value,a=i8g32,bias=f32,act=silu"};
    static const char *const mixed[] = {"N=256,K=256,w=i5,g=32,s=f16,a=i8g32",
                                        "N=70,K=256,w=i8,g=32,s=f16,a=i8g32",
                                        "N=300,K=256,w=i5,g=32,s=f16,a=i8g32",
                                        "N=64,K=256,w=f16",
                                        "N=64,K=256,w=u4,g=3,s=f16,z=code",
                                        "N=9,K=256,w=e4m3,g=channel,s=f32,a=e4m3",
                                        "N=128,K=256,w=i8,g=channel,s=f32,a=i8z",
                                        "N=128,K=256,w=i5,g=32,s=f16,a=i8g64",
                                        "N=64,K=256,w=i5,g=32,s=f16,a=i8g32,y=f16",
                                        "N=130,K=256,w=f16",
                                        "N=66,K=256,w=f16,bias=bf16"};
    static const int64_t rows[] = {1, 5, 64, 65, 130};
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        for (int32_t threads = 1; threads <= 3; threads++)
            check_together(f, alike, TW_COUNT(alike), rows[i], threads, threads != 2);
    /* More rows than scratch holds. */
    static const char *const small[] = {"N=70,K=64,w=u4,g=32,s=f16,z=value,a=i8g32",
                                        "N=20,K=64,w=u4,g=32,s=f16,z=value,a=i8g32"};
    check_together(f, small, TW_COUNT(small), 1100, 2, true);
    check_together(f, mixed, TW_COUNT(mixed), 1, 2, true);
    check_together(f, mixed, TW_COUNT(mixed), 12, 3, true);
    check_together(f, mixed, TW_COUNT(mixed), 0, 2, false);
}

static void together_refused(void **state) {
    world w = open_world(state, "N=64,K=96,w=u4,g=32,s=f16,z=code,a=i8");
    tw_tensor x = random_rows(TW_F32, 2, 96, 1),
              y[2] = {random_rows(TW_F32, 2, 64, 1), random_rows(TW_F32, 2, 60, 1)};
    tw_linear *two[2] = {w.linear, w.linear}, *none[1] = {NULL};
    tw_context *other = open_context(w.f);
    check_fails(tw_linear_forward_group(NULL, 1, &x, y), TW_INVALID, "linears: NULL");
    check_fails(tw_linear_forward_group(two, 0, &x, y), TW_INVALID, "count: 0");
    check_fails(tw_linear_forward_group(two, 1, NULL, y), TW_INVALID, "x: NULL");
    check_fails(tw_linear_forward_group(two, 1, &x, NULL), TW_INVALID, "y: NULL");
    check_fails(tw_linear_forward_group(none, 1, &x, y), TW_INVALID, "linears[0]: NULL");
    check_ok(tw_linear_forward_group(two, 1, &x, y));
    check_fails(tw_linear_forward_group(two, 2, &x, y), TW_INVALID,
                "linears[1]: y: 2 dimensions of shape [2,60]");
    two[1] = make_linear(&w.l, other);
    check_fails(tw_linear_forward_group(two, 2, &x, y), TW_INVALID, "linears[1]: of another");
    tw_linear_destroy(two[1]);
    tw_context_destroy(other);
    free(x.data), free(y[0].data), free(y[1].data);
    close_world(&w);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_bucket),
        TEST(together),
        TEST(together_refused),
        TEST(many_rows),
        TEST(dtypes),
        TEST(column_order),
        TEST(column_order_of_many_rows),
        TEST(look_up_table),
        TEST(rounded_x),
        TEST(rounded_x_of_many_rows),
        TEST(rounded_x_shares_kernels),
        TEST(rounded_x_not_finite),
        TEST(no_rows),
        TEST(not_finite),
        TEST(row_strided),
        TEST(side_by_side),
        TEST(one_row),
        TEST(bad_rows),
        TEST(prepare_arguments),
        TEST(reference_fallback),
        TEST(reference_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
