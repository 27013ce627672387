/* Compiling for the CPU or recording for the machine, launching between guards, comparing. */
#include "tests/kernels/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/compare.h"
#include "src/core/dtype.h"
#include "tests/kernels/guard.h"

enum { X_GAP = 5, Y_GAP = 3, SPARE_ROWS = 2, CANARY = 0x5a, UNWRITTEN = -1 };

tw_target target_of(tw_isa isa) {
    char device[64];
    tw_target target;
    snprintf(device, sizeof device, "cpu:%s", tw_isas[isa].name);
    if (tw_cpu_describe(device, 2, &target) == TW_OK) return target;
    fprintf(stderr, "%s: %s\n", device, tw_error_message());
    exit(2);
}

/* ---- compiling ---- */

/* The machine that this thread's launch runs on: kernels have no room for a pointer of ours. */
static _Thread_local machine *running;

static void pack_on_machine(const tw_kernel_args *args, int64_t m0, int64_t m1) {
    machine_pack_x(running, args, m0, m1);
}

static void matmul_on_machine(const tw_kernel_args *args, int64_t m0, int64_t m1, int64_t n0,
                              int64_t n1) {
    machine_matmul(running, args, m0, m1, n0, n1);
}

static tw_status link_kernel(compiled *c, const tw_str *object) {
    TW_TRY(tw_image_load(object->text, object->size, &c->image));
    void *pack_x = tw_image_symbol(c->image, "tw_pack_x");
    void *matmul = tw_image_symbol(c->image, "tw_matmul");
    if (!pack_x || !matmul) return tw_fail(TW_INTERNAL, "object: lacks tw_pack_x or tw_matmul");
    memcpy((void *)&c->kernel.pack_x, (void *)&pack_x, sizeof pack_x);
    memcpy((void *)&c->kernel.matmul, (void *)&matmul, sizeof matmul);
    return TW_OK;
}

static tw_status emit_template(tw_ir *g, const void *arg) {
    const compiled *c = arg;
    return c->tmpl->emit(g, &c->problem, &c->config);
}

static tw_status record_kernel(compiled *c) {
    c->machine = calloc(1, sizeof *c->machine);
    if (!c->machine) exit(2);
    TW_TRY(machine_record(c->machine, &c->target, emit_template, c));
    c->kernel.pack_x = pack_on_machine;
    c->kernel.matmul = matmul_on_machine;
    return TW_OK;
}

static tw_status compile(compiled *c, runner how) {
    const char *why = c->tmpl->reject_problem(&c->target, &c->problem);
    if (!why) why = c->tmpl->reject(&c->target, &c->problem, &c->config);
    if (why) return tw_fail(TW_UNSUPPORTED, "%s", why);
    tw_geometry geometry;
    c->tmpl->geometry(&c->problem, &geometry);
    c->kernel = (tw_kernel){.config = c->config,
                            .N = c->problem.N,
                            .K = c->problem.K,
                            .xq_stride = geometry.xq_stride,
                            .xmeta_stride = geometry.xmeta_stride};
    if (how == RUN_MACHINE) return record_kernel(c);
    tw_str object = {0};
    tw_status status =
        tw_template_compile(c->tmpl, &c->problem, &c->config, &c->target, TW_CODE_OBJECT, &object);
    if (status == TW_OK) status = link_kernel(c, &object);
    tw_str_free(&object);
    return status;
}

tw_status compiled_init(compiled *c, const tw_template *tmpl, const tw_problem *problem,
                        const tw_config *config, const tw_target *target, runner how) {
    *c = (compiled){.tmpl = tmpl, .problem = *problem, .target = *target, .config = *config};
    c->problem.M = 0;
    tw_status status = compile(c, how);
    if (status != TW_OK) compiled_free(c);
    return status;
}

void compiled_free(compiled *c) {
    tw_image_unload(c->image);
    if (c->machine) machine_free(c->machine);
    free(c->machine);
    c->image = NULL;
    c->machine = NULL;
}

/* ---- running ---- */

typedef struct buffers {
    guard x, w, bias, lut, y, scratch;
    int64_t x_stride, y_stride; /* bytes */
} buffers;

/* Rows lie apart, or one after another: every third number of them. */
static int64_t gap(const run_options *o, int64_t elements) { return o->M % 3 ? elements : 0; }

/* Rows of x with NaN between and, where there is room, after them. */
static void fill_x(buffers *b, const compiled *c, const layer *l, const run_options *o) {
    int64_t size = tw_dtype_bits(c->problem.x) / 8, columns = l->problem.K + gap(o, X_GAP);
    b->x_stride = columns * size;
    int64_t elements = o->M ? (o->M - 1) * columns + l->problem.K : 0;
    if (!o->at_end) elements += SPARE_ROWS * columns;
    b->x = guard_new((size_t)(elements * size), (size_t)size, o->at_end, CANARY);
    for (int64_t i = 0; i < elements; i++) tw_float_set(b->x.data, c->problem.x, i, NAN);
    for (int64_t m = 0; m < o->M; m++)
        memcpy(b->x.data + m * b->x_stride, (const char *)l->x + m * l->problem.K * size,
               (size_t)(l->problem.K * size));
    guard_read_only(&b->x);
}

static void buffers_init(buffers *b, const compiled *c, const layer *l, const run_options *o) {
    const tw_problem *p = &c->problem;
    int64_t y_size = tw_dtype_bits(p->y) / 8;
    fill_x(b, c, l, o);
    tw_canonical canonical = layer_canonical(l);
    b->w = guard_new(c->tmpl->layout->bytes(p), 64, o->at_end, CANARY);
    c->tmpl->layout->pack(p, &canonical, false, 0, p->N, b->w.data);
    guard_read_only(&b->w);
    size_t bias_bytes = (size_t)tw_round_up(p->N, 64) * sizeof(float);
    b->bias = guard_new(bias_bytes, 64, o->at_end, CANARY);
    memcpy(b->bias.data, l->bias_f32, bias_bytes);
    guard_read_only(&b->bias);
    b->lut = guard_new(sizeof l->lut, sizeof(float), o->at_end, CANARY);
    memcpy(b->lut.data, l->lut, sizeof l->lut);
    guard_read_only(&b->lut);
    b->y_stride = (p->N + gap(o, Y_GAP)) * y_size;
    int64_t y_bytes = o->M ? (o->M - 1) * b->y_stride + p->N * y_size : 0;
    b->y = guard_new((size_t)y_bytes, (size_t)y_size, o->at_end, CANARY);
    b->scratch = guard_new(tw_launch_scratch(&c->kernel, o->M), 64, o->at_end, UNWRITTEN);
}

static void buffers_free(buffers *b) {
    guard_free(&b->x);
    guard_free(&b->w);
    guard_free(&b->bias);
    guard_free(&b->lut);
    guard_free(&b->y);
    guard_free(&b->scratch);
}

/* expected is exact; y holds its rounding, half to even. */
static tw_status exact_row(const double *expected, const char *y_row, tw_dtype dtype, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float got = tw_float_get(y_row, dtype, i), rounded;
        tw_double_set(&rounded, dtype, 0, expected[i]);
        rounded = tw_float_get(&rounded, dtype, 0);
        if (got != rounded)
            return tw_fail(TW_VERIFY, "column %lld: got %.9g, expected exactly %.9g", (long long)i,
                           (double)got, (double)rounded);
    }
    return TW_OK;
}

static tw_status check_row(const buffers *b, const compiled *c, const layer *truth,
                           const run_options *o, int64_t m) {
    const tw_problem held_to = tw_template_truth(c->tmpl, &c->problem), *p = &held_to;
    const char *row = b->y.data + m * b->y_stride;
    const double *expected = truth->expected[p->scheme.fpmath] + m * p->N;
    const double *magnitude = truth->magnitude[p->scheme.fpmath] + m * p->N;
    for (int64_t n = 0; o->y && n < p->N; n++) o->y[m * p->N + n] = tw_float_get(row, p->y, n);
    int64_t row_bytes = p->N * tw_dtype_bits(p->y) / 8;
    for (int64_t i = row_bytes; i < b->y_stride && m + 1 < o->M; i++)
        if (row[i] != CANARY)
            return tw_fail(TW_VERIFY, "byte %lld after the last column was written",
                           (long long)(i - row_bytes));
    if (o->y) return TW_OK;
    if (o->exact) return exact_row(expected, row, p->y, p->N);
    return tw_compare_row(p, c->tmpl->chain(p), expected, magnitude, row, p->N, NULL);
}

/* The machine may touch what the calling convention gives a kernel, to the byte. */
static void allow_buffers(const buffers *b, const compiled *c, const run_options *o) {
    machine *m = c->machine;
    int64_t x_bytes = c->problem.K * tw_dtype_bits(c->problem.x) / 8,
            y_bytes = c->problem.N * tw_dtype_bits(c->problem.y) / 8;
    const char unwritten = UNWRITTEN;
    machine_forbid_all(m);
    m->error[0] = 0;
    machine_allow(m, b->scratch.data, b->scratch.size, true, true, &unwritten);
    machine_allow(m, b->w.data, b->w.size, true, false, NULL);
    if (c->problem.bias) machine_allow(m, b->bias.data, b->bias.size, true, false, NULL);
    machine_allow(m, b->lut.data, b->lut.size, true, false, NULL);
    for (int64_t i = 0; i < o->M; i++) {
        machine_allow(m, b->x.data + i * b->x_stride, (size_t)x_bytes, true, false, NULL);
        machine_allow(m, b->y.data + i * b->y_stride, (size_t)y_bytes, false, true, NULL);
    }
}

/* As tw_launch, or short of some rows and columns. */
static tw_status call(const compiled *c, const run_options *o, const buffers *b) {
    tw_kernel kernel = c->kernel;
    kernel.N -= o->lost_columns;
    tw_kernel_args args = {.x = b->x.data,
                           .x_stride = b->x_stride,
                           .w = b->w.data,
                           .bias = (const float *)b->bias.data,
                           .lut = (const float *)b->lut.data,
                           .y = b->y.data,
                           .y_stride = b->y_stride,
                           .M = o->M - o->lost_rows};
    if (!c->problem.bias) args.bias = NULL;
    if (c->machine) allow_buffers(b, c, o);
    running = c->machine;
    tw_launch(&kernel, c->machine ? NULL : o->threads, &args, b->scratch.data);
    running = NULL;
    if (c->machine && c->machine->error[0]) return tw_fail(TW_VERIFY, "%s", c->machine->error);
    return TW_OK;
}

tw_status run_layer(const compiled *c, const layer *truth, const layer *fed,
                    const run_options *options) {
    buffers b;
    buffers_init(&b, c, fed, options);
    tw_status status = call(c, options, &b);
    for (int64_t m = 0; m < options->M && status == TW_OK; m++) {
        status = check_row(&b, c, truth, options, m);
        if (status != TW_OK) tw_fail_within(status, "row %lld", (long long)m);
    }
    buffers_free(&b);
    return status;
}

void run_report(const compiled *c, int64_t M) {
    tw_str problem = {0}, config = {0};
    tw_problem p = c->problem;
    p.M = M;
    tw_problem_text(&p, &problem);
    tw_config_text(&c->config, &config);
    fprintf(stderr, "tilewright verify cpu:%s %s --kernel %s --config \"%s\"\n    %s\n",
            tw_target_isa(&c->target)->name, tw_str_text(&problem), c->tmpl->name,
            tw_str_text(&config), tw_error_message());
    tw_str_free(&problem);
    tw_str_free(&config);
}
