/* Creating layers: canonical tensors are checked, then packed once. */
#include "src/linear.h"

#include <string.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "src/event.h"
#include "src/rows.h"

/* ---- canonical tensors ---- */

static tw_tensor matrix(tw_dtype dtype, int64_t rows, int64_t columns) {
    if (dtype == TW_NONE) return (tw_tensor){0};
    return (tw_tensor)TW_TENSOR_2D(NULL, dtype, rows, columns);
}

size_t tw_tensor_bytes(const tw_tensor *t) {
    if (t->dtype == TW_NONE) return 0;
    return (size_t)t->shape[0] * tw_dtype_row_bytes(t->dtype, t->shape[1]);
}

void tw_tensors_describe(const tw_problem *p, tw_tensors *out) {
    int64_t rows = tw_scale_rows(&p->scheme, p->N), groups = tw_groups(&p->scheme, p->K);
    *out = (tw_tensors){.weight = matrix(p->scheme.weight, p->N, p->K),
                        .scales = matrix(p->scheme.scale, rows, groups),
                        .zeros = matrix(tw_zero_dtype(&p->scheme), rows, groups)};
}

/* All three in one piece of memory, each at a multiple of 64 bytes; gives how many it takes.
 * wide: a byte for each code. */
static size_t place_tensors(const tw_problem *p, bool wide, void *memory, tw_tensors *t) {
    tw_tensors_describe(p, t);
    if (wide) t->weight.dtype = TW_U8;
    tw_tensor *parts[] = {&t->weight, &t->scales, &t->zeros};
    for (size_t i = 0; i < TW_COUNT(parts); i++) {
        if (memory && parts[i]->dtype != TW_NONE) parts[i]->data = (char *)memory + t->bytes;
        t->bytes += (size_t)tw_round_up((int64_t)tw_tensor_bytes(parts[i]), 64);
    }
    t->memory = memory;
    return t->bytes;
}

/* NULL: the error MEMORY. */
static tw_tensors *tensors_create(tw_context *c, const tw_problem *p) {
    tw_tensors t;
    tw_tensors *result = tw_alloc(&c->allocator, sizeof *result);
    size_t bytes = place_tensors(p, false, NULL, &t);
    void *memory = result ? tw_alloc(&c->allocator, bytes) : NULL;
    if (!memory) {
        tw_free(&c->allocator, result, sizeof *result);
        tw_fail(TW_MEMORY, "out of memory for %zu bytes of canonical weights", bytes);
        return NULL;
    }
    place_tensors(p, false, memory, result);
    return result;
}

static void tensors_destroy(tw_context *c, tw_tensors *t) {
    if (!t) return;
    tw_free(&c->allocator, t->memory, t->bytes);
    tw_free(&c->allocator, t, sizeof *t);
}

static void unpack(const tw_linear *l, tw_tensors *out) {
    l->layout->unpack(&l->problem, l->packed, out->weight.data, out->scales.data, out->zeros.data);
}

tw_status tw_linear_canonical(tw_linear *linear, const tw_tensors **out) {
    tw_tensors *t = atomic_load_explicit(&linear->canonical, memory_order_acquire);
    if (!t) {
        pthread_mutex_lock(&linear->lock);
        t = atomic_load(&linear->canonical);
        if (!t && (t = tensors_create(linear->context, &linear->problem))) {
            unpack(linear, t);
            atomic_store_explicit(&linear->canonical, t, memory_order_release);
        }
        pthread_mutex_unlock(&linear->lock);
    }
    *out = t;
    return t ? TW_OK : TW_MEMORY;
}

tw_canonical tw_linear_view(const tw_linear *linear, const tw_tensors *t) {
    return (tw_canonical){t->weight.data, t->scales.data, t->zeros.data,
                          linear->bias,   linear->lut,    linear->act_scale};
}

/* ---- what the caller describes ---- */

static tw_status check_lut(const tw_linear_desc *d) {
    if (d->scheme.weight == TW_LUT4 && d->lut)
        return tw_check_finite("desc: lut", d->lut, TW_F32, 1, TW_LUT4_SIZE);
    if (d->scheme.weight == TW_LUT4)
        return tw_fail(TW_INVALID, "desc: lut: NULL, w=lut4 needs its %d values", TW_LUT4_SIZE);
    return d->lut ? tw_fail(TW_INVALID, "desc: lut: given, but w is %s, not lut4",
                            tw_dtype_name(d->scheme.weight))
                  : TW_OK;
}

tw_status tw_check_order(const tw_context *c, const int32_t *order, int64_t K) {
    if (!order) return TW_OK;
    uint8_t *seen = tw_alloc(&c->allocator, (size_t)K);
    if (!seen)
        return tw_fail(TW_MEMORY, "out of memory for an order of %lld columns", (long long)K);
    tw_status status = tw_order_check(order, K, seen);
    tw_free(&c->allocator, seen, (size_t)K);
    return status;
}

static tw_status read_desc(const tw_context *c, const tw_linear_desc *given, const tw_tensor *bias,
                           tw_layer *out) {
    tw_linear_desc d;
    TW_TRY(tw_struct_read("desc", given, sizeof d, &d));
    tw_problem p = {.N = d.N, .K = d.K, .x = d.x, .y = d.y, .scheme = d.scheme, .act = d.act};
    if (p.x == TW_NONE) p.x = TW_F32;
    if (p.y == TW_NONE) p.y = p.x;
    if (bias) p.bias = bias->dtype;
    if (bias && !tw_dtype_is_real(bias->dtype))
        return tw_fail(TW_INVALID, "bias: dtype %s, expected f32, f16 or bf16",
                       tw_dtype_name(bias->dtype));
    TW_TRY(tw_problem_check(&p));
    if (bias) TW_TRY(tw_check_tensor("bias", bias, bias->dtype, 1, (int64_t[]){p.N}));
    TW_TRY(check_lut(&d));
    TW_TRY(tw_act_check_scale(&d.scheme, d.act_scale));
    TW_TRY(tw_check_order(c, d.order, d.K));
    *out = (tw_layer){
        .problem = p, .lut = d.lut, .order = d.order, .act_scale = d.act_scale, .bias = bias};
    return TW_OK;
}

/* A tensor that the scheme has or has not. */
static tw_status check_given(const char *name, const tw_tensor *given, const tw_tensor *expected) {
    if (expected->dtype != TW_NONE)
        return tw_check_tensor(name, given, expected->dtype, 2, expected->shape);
    return given ? tw_fail(TW_INVALID, "%s: given, but the scheme has none", name) : TW_OK;
}

/* Elements of whole bytes, one by one, into contiguous memory. */
static void gather(const tw_tensor *t, void *out) {
    int64_t columns = t->ndim > 1 ? t->shape[1] : 1, width = tw_dtype_bits(t->dtype) / 8;
    int64_t row = tw_tensor_stride(t, 0), column = t->ndim > 1 ? tw_tensor_stride(t, 1) : 0;
    char *to = out;
    for (int64_t n = 0; n < t->shape[0]; n++)
        for (int64_t k = 0; k < columns; k++, to += width)
            memcpy(to, (const char *)t->data + (n * row + k * column) * width, (size_t)width);
}

/* The data of a tensor as contiguous memory: the caller's own, or a copy in `to`. */
static const void *contiguous(const tw_tensor *t, void *to) {
    if (!t) return NULL;
    if (tw_tensor_contiguous(t)) return t->data;
    gather(t, to);
    return to;
}

static tw_status check_scales(const tw_problem *p, const char *name, const void *data) {
    const tw_scheme *s = &p->scheme;
    int64_t rows = tw_scale_rows(s, p->N), groups = tw_groups(s, p->K);
    if (s->scale == TW_F16I8)
        TW_TRY(tw_check_factors(name, data, rows, groups, TW_FACTOR_K / s->group_k));
    return tw_check_finite(name, data, s->scale, rows, groups);
}

tw_status tw_check_canonical(const tw_problem *p, const tw_canonical *w) {
    const tw_scheme *s = &p->scheme;
    TW_TRY(tw_check_padding("weight", w->weight, s->weight, p->N, p->K));
    if (tw_scheme_plain(s)) return TW_OK;
    TW_TRY(check_scales(p, "scales", w->scales));
    return s->zero_mode == TW_ZERO_VALUE ? check_scales(p, "zeros", w->zeros) : TW_OK;
}

/* ---- building ---- */

bool tw_layout_serves(const tw_context *c, const tw_layout *layout, const tw_problem *p) {
    const tw_template *tmpl;
    tw_problem kernel = tw_kernel_problem(p);
    if (layout->reject(&kernel)) return false;
    for (int i = 0; (tmpl = tw_template_row(i)); i++)
        if (tmpl->layout == layout && !tmpl->reject_problem(&c->target, &kernel)) return true;
    return false;
}

/* The first layout over which some kernel takes the problem; NULL: the reference's canonical
 * form. */
static const tw_layout *choose_layout(const tw_context *c, const tw_problem *p) {
    const tw_layout *layout;
    if (c->mode == TW_MODE_REFERENCE) return NULL;
    for (int i = 0; (layout = tw_layout_row(i)); i++)
        if (tw_layout_serves(c, layout, p)) return layout;
    return NULL;
}

static tw_status keep_bias(tw_linear *l, const tw_tensor *bias) {
    const tw_problem *p = &l->problem;
    if (!bias) return TW_OK;
    l->bias_bytes = (size_t)p->N * (size_t)tw_dtype_bits(p->bias) / 8;
    l->bias = tw_alloc(&l->context->allocator, l->bias_bytes);
    l->bias_f32_bytes = (size_t)tw_round_up(p->N, 64) * sizeof(float);
    l->bias_f32 = tw_alloc(&l->context->allocator, l->bias_f32_bytes);
    if (!l->bias || !l->bias_f32) return tw_fail(TW_MEMORY, "out of memory for the bias");
    gather(bias, l->bias);
    for (int64_t n = 0; n < p->N; n++) l->bias_f32[n] = tw_float_get(l->bias, p->bias, n);
    return TW_OK;
}

static tw_status keep_array(tw_linear *l, const void *from, size_t bytes, void **out) {
    if (!from) return TW_OK;
    *out = tw_alloc(&l->context->allocator, bytes);
    if (!*out) return tw_fail(TW_MEMORY, "out of memory for %zu bytes of a layer", bytes);
    memcpy(*out, from, bytes);
    return TW_OK;
}

static size_t order_bytes(const tw_linear *l) { return (size_t)l->problem.K * sizeof *l->order; }

static tw_status keep_arrays(tw_linear *l, const tw_layer *from) {
    void *lut = NULL, *order = NULL;
    tw_status status = keep_array(l, from->lut, TW_LUT4_SIZE * sizeof *l->lut, &lut);
    if (status == TW_OK) status = keep_array(l, from->order, order_bytes(l), &order);
    l->lut = lut;
    l->order = order;
    return status;
}

typedef struct packing {
    const tw_linear *linear;
    const tw_layer *from;
} packing;

static tw_status pack_rows(void *user, int64_t first, int64_t count) {
    const packing *p = user;
    const tw_linear *l = p->linear;
    const tw_layer *from = p->from;
    if (!from->read) {
        l->layout->pack(&l->problem, from->weights, false, first, first + count, l->packed);
        return TW_OK;
    }
    /* The rows as a matrix of their own, which the layout has where the rows before it end. */
    tw_problem part = l->problem, before = l->problem;
    part.N = count;
    before.N = first;
    bool wide = !tw_scheme_plain(&part.scheme);
    tw_tensors t;
    tw_scratch_block *block;
    size_t bytes = place_tensors(&part, wide, NULL, &t);
    TW_TRY(tw_scratch_take(&l->context->scratch, bytes, &block));
    place_tensors(&part, wide, block->memory, &t);
    tw_status status = from->read(from->source, first, count, wide, &t);
    tw_canonical w = tw_linear_view(l, &t);
    char *packed = (char *)l->packed + (first ? l->layout->bytes(&before) : 0);
    if (status == TW_OK) l->layout->pack(&part, &w, wide, 0, count, packed);
    tw_scratch_give(block);
    return status;
}

static tw_status keep_packed(tw_linear *l, const tw_layer *from) {
    l->packed_bytes = l->layout->bytes(&l->problem);
    l->packed = tw_alloc_untouched(&l->context->allocator, l->packed_bytes);
    if (!l->packed)
        return tw_fail(TW_MEMORY, "out of memory for %zu bytes of packed weights", l->packed_bytes);
    int64_t start = tw_event_begin(l->context);
    tw_status status = TW_OK;
    packing p = {l, from};
    if (from->packed)
        memcpy(l->packed, from->packed, l->packed_bytes);
    else
        status =
            tw_rows_run(l->context->threads, l->problem.N, TW_PACK_ROWS,
                        tw_dtype_row_bytes(l->problem.scheme.weight, l->problem.K), pack_rows, &p);
    tw_event_end(l->context, &(tw_event){.name = "pack",
                                         .start_ns = start,
                                         .problem = &l->problem,
                                         .detail = {"layout", l->layout->name},
                                         .status = status});
    return status;
}

static tw_status keep_weights(tw_linear *l, const tw_layer *from) {
    tw_context *c = l->context;
    const tw_canonical *w = from->weights;
    l->layout = from->packed ? from->layout : choose_layout(c, &l->problem);
    if (l->layout) return keep_packed(l, from);
    tw_tensors *t = tensors_create(c, &l->problem);
    if (!t) return TW_MEMORY;
    atomic_store(&l->canonical, t);
    if (from->read) return from->read(from->source, 0, l->problem.N, false, t);
    memcpy(t->weight.data, w->weight, tw_tensor_bytes(&t->weight));
    if (w->scales) memcpy(t->scales.data, w->scales, tw_tensor_bytes(&t->scales));
    if (w->zeros) memcpy(t->zeros.data, w->zeros, tw_tensor_bytes(&t->zeros));
    return TW_OK;
}

static void linear_free(tw_linear *l) {
    tw_context *c = l->context;
    for (tw_binding *next, *b = l->all; b; b = next) {
        next = b->next;
        if (b->owns_plan) tw_plan_release(c, b->plan);
        tw_contest_release(c, b->contest);
        tw_free(&c->allocator, b, sizeof *b);
    }
    tensors_destroy(c, atomic_load(&l->canonical));
    tw_free(&c->allocator, l->packed, l->packed_bytes);
    tw_free(&c->allocator, l->lut, TW_LUT4_SIZE * sizeof *l->lut);
    tw_free(&c->allocator, l->order, order_bytes(l));
    tw_free(&c->allocator, l->bias, l->bias_bytes);
    tw_free(&c->allocator, l->bias_f32, l->bias_f32_bytes);
    pthread_mutex_destroy(&l->lock);
    tw_free(&c->allocator, l, sizeof *l);
}

tw_status tw_linear_build(tw_context *c, const tw_layer *from, tw_linear **out) {
    tw_linear *l = tw_alloc(&c->allocator, sizeof *l);
    if (!l) return tw_fail(TW_MEMORY, "out of memory for a linear");
    l->context = c;
    l->problem = from->problem;
    l->act_scale = from->act_scale;
    pthread_mutex_init(&l->lock, NULL);
    tw_status status = keep_bias(l, from->bias);
    if (status == TW_OK) status = keep_arrays(l, from);
    if (status == TW_OK) status = keep_weights(l, from);
    if (status != TW_OK) {
        linear_free(l);
        return status;
    }
    atomic_fetch_add(&c->linears, 1);
    *out = l;
    return TW_OK;
}

void tw_linear_destroy(tw_linear *linear) {
    if (!linear) return;
    tw_context *c = linear->context;
    linear_free(linear);
    atomic_fetch_sub(&c->linears, 1);
}

tw_status tw_linear_begin(const tw_context *context, const tw_linear_desc *desc,
                          const tw_tensor *bias, tw_linear *const *out, tw_layer *from) {
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    return read_desc(context, desc, bias, from);
}

tw_status tw_linear_create(tw_context *context, const tw_linear_desc *desc, const tw_tensor *weight,
                           const tw_tensor *scales, const tw_tensor *zeros, const tw_tensor *bias,
                           tw_linear **out) {
    tw_layer from;
    tw_tensors shape, *copies = NULL;
    TW_TRY(tw_linear_begin(context, desc, bias, out, &from));
    const tw_problem *p = &from.problem;
    tw_tensors_describe(p, &shape);
    TW_TRY(check_given("weight", weight, &shape.weight));
    TW_TRY(check_given("scales", scales, &shape.scales));
    TW_TRY(check_given("zeros", zeros, &shape.zeros));
    bool dense = tw_tensor_contiguous(weight) && (!scales || tw_tensor_contiguous(scales)) &&
                 (!zeros || tw_tensor_contiguous(zeros));
    if (!dense && !(copies = tensors_create(context, p))) return TW_MEMORY;
    const tw_tensors *to = dense ? &shape : copies;
    tw_canonical w = {.weight = contiguous(weight, to->weight.data),
                      .scales = contiguous(scales, to->scales.data),
                      .zeros = contiguous(zeros, to->zeros.data)};
    tw_status status = tw_check_canonical(p, &w);
    from.weights = &w;
    if (status == TW_OK) status = tw_linear_build(context, &from, out);
    tensors_destroy(context, copies);
    return status;
}

/* ---- from float ---- */

static tw_status quantize(const tw_context *c, const tw_problem *p, const tw_tensor *weight,
                          float *f32, tw_tensors *out) {
    const float *w = weight->data;
    int64_t stride = tw_tensor_stride(weight, 0);
    if (f32) {
        for (int64_t n = 0; n < p->N; n++)
            for (int64_t k = 0; k < p->K; k++)
                f32[n * p->K + k] =
                    tw_float_get(weight->data, weight->dtype,
                                 n * tw_tensor_stride(weight, 0) + k * tw_tensor_stride(weight, 1));
        w = f32;
        stride = p->K;
    }
    return tw_rows_minmax(c->threads, &p->scheme, p->N, p->K, w, stride, out->weight.data,
                          out->scales.data, out->zeros.data);
}

tw_status tw_linear_create_from_float(tw_context *context, const tw_linear_desc *desc,
                                      const tw_tensor *weight, const tw_tensor *bias,
                                      tw_linear **out) {
    tw_layer from;
    TW_TRY(tw_linear_begin(context, desc, bias, out, &from));
    const tw_problem *p = &from.problem;
    if (!weight) return tw_fail(TW_INVALID, "weight: NULL, must be given");
    if (!tw_dtype_is_real(weight->dtype))
        return tw_fail(TW_INVALID, "weight: dtype %s, expected f32, f16 or bf16",
                       tw_dtype_name(weight->dtype));
    TW_TRY(tw_check_tensor("weight", weight, weight->dtype, 2, (int64_t[]){p->N, p->K}));
    if (from.order)
        return tw_fail(TW_INVALID,
                       "desc: order: given, but float weights are quantized in x's order");

    /* The quantizer reads f32 with adjacent columns; anything else is converted first. */
    bool direct = weight->dtype == TW_F32 && tw_tensor_stride(weight, 1) == 1;
    size_t bytes = direct ? 0 : (size_t)p->N * (size_t)p->K * sizeof(float);
    float *f32 = direct ? NULL : tw_alloc(&context->allocator, bytes);
    if (!direct && !f32)
        return tw_fail(TW_MEMORY, "out of memory for %zu bytes of float weights", bytes);
    tw_tensors *t = tensors_create(context, p);
    tw_status status = t ? quantize(context, p, weight, f32, t) : TW_MEMORY;
    tw_free(&context->allocator, f32, bytes);
    if (t && status == TW_OK) {
        tw_canonical w = {t->weight.data, t->scales.data, t->zeros.data, NULL, NULL, 0};
        from.weights = &w;
        status = tw_linear_build(context, &from, out);
    }
    tensors_destroy(context, t);
    return status;
}

/* ---- canonical tensors back ---- */

/* Where to write one of them: NULL when nobody asks for it or the layer has none. */
static tw_status destination(const char *name, const tw_tensor *like, const tw_tensor *asked,
                             void **out) {
    *out = asked && like->dtype != TW_NONE ? asked->data : NULL;
    tw_tensor t = *like;
    t.data = *out;
    return *out ? tw_check_tensor(name, &t, like->dtype, 2, like->shape) : TW_OK;
}

/* Fills in dtype and shape; data stays the caller's. */
static void describe(tw_tensor *t, const tw_tensor *like) {
    if (!t) return;
    void *data = t->data;
    *t = *like;
    t->data = data;
}

static void copy_out(const tw_tensor *from, void *to) {
    if (to) memcpy(to, from->data, tw_tensor_bytes(from));
}

tw_status tw_linear_weights(const tw_linear *linear, tw_tensor *weight, tw_tensor *scales,
                            tw_tensor *zeros) {
    if (!linear) return tw_fail(TW_INVALID, "linear: NULL, must be given");
    tw_tensors shape;
    void *w, *s, *z;
    tw_tensors_describe(&linear->problem, &shape);
    TW_TRY(destination("weight", &shape.weight, weight, &w));
    TW_TRY(destination("scales", &shape.scales, scales, &s));
    TW_TRY(destination("zeros", &shape.zeros, zeros, &z));
    describe(weight, &shape.weight);
    describe(scales, &shape.scales);
    describe(zeros, &shape.zeros);
    tw_tensors *kept = atomic_load_explicit(&linear->canonical, memory_order_acquire);
    if (!kept) {
        linear->layout->unpack(&linear->problem, linear->packed, w, s, z);
        return TW_OK;
    }
    copy_out(&kept->weight, w);
    copy_out(&kept->scales, s);
    copy_out(&kept->zeros, z);
    return TW_OK;
}

const float *tw_linear_lut(const tw_linear *linear) { return linear ? linear->lut : NULL; }

const int32_t *tw_linear_order(const tw_linear *linear) { return linear ? linear->order : NULL; }

float tw_linear_act_scale(const tw_linear *linear) { return linear ? linear->act_scale : 0; }
