/* The hot path: check, look up, take scratch, launch. */
#include <string.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/event.h"
#include "src/linear.h"

typedef struct rows {
    char *data;
    int64_t stride, bytes; /* from row to row; spanned by all */
} rows;

/* Whether x and y share an element. In one buffer of interleaved rows they may lie side by
 * side. */
static bool overlap(const rows *x, const rows *y, int64_t x_row, int64_t y_row) {
    uintptr_t x0 = (uintptr_t)x->data, y0 = (uintptr_t)y->data;
    if (x0 + (uintptr_t)x->bytes <= y0 || y0 + (uintptr_t)y->bytes <= x0) return false;
    if (x->stride != y->stride) return true;
    int64_t offset = (int64_t)(y0 - x0) % x->stride;
    if (offset < 0) offset += x->stride;
    return offset < x_row || offset + y_row > x->stride;
}

static tw_status check_io(const tw_linear *l, const tw_tensor *x, const tw_tensor *y, rows *x_rows,
                          rows *y_rows) {
    const tw_problem *p = &l->problem;
    TW_TRY(tw_check_rows("x", x, p->x, p->K, &x_rows->stride, &x_rows->bytes));
    TW_TRY(tw_check_rows("y", y, p->y, p->N, &y_rows->stride, &y_rows->bytes));
    if (y->shape[0] != x->shape[0])
        return tw_fail(TW_INVALID, "y: shape [%lld,%lld], expected [%lld,%lld] as x has %lld rows",
                       (long long)y->shape[0], (long long)p->N, (long long)x->shape[0],
                       (long long)p->N, (long long)x->shape[0]);
    x_rows->data = x->data;
    y_rows->data = y->data;
    if (!overlap(x_rows, y_rows, p->K * tw_dtype_bits(p->x) / 8, p->N * tw_dtype_bits(p->y) / 8))
        return TW_OK;
    return tw_fail(TW_INVALID, "y: %p, overlaps x at %p", y->data, x->data);
}

static tw_kernel_args arguments(const tw_linear *l, int64_t M, const rows *x, const rows *y) {
    return (tw_kernel_args){.x = x->data,
                            .x_stride = x->stride,
                            .w = l->packed,
                            .bias = l->bias_f32,
                            .lut = l->lut,
                            .y = y->data,
                            .y_stride = y->stride,
                            .M = M};
}

static tw_status run_kernel(tw_linear *l, const tw_plan *plan, int64_t M, const rows *x,
                            const rows *y) {
    tw_context *c = l->context;
    const tw_problem *p = &l->problem;
    tw_scratch_block *scratch, *rounded = NULL;
    size_t bytes = tw_launch_rounded_bytes(p, M);
    TW_TRY(tw_scratch_take(&c->scratch, plan->scratch_bytes, &scratch));
    tw_status status = bytes ? tw_scratch_take(&c->scratch, bytes, &rounded) : TW_OK;
    tw_kernel_args args = arguments(l, M, x, y);
    if (rounded)
        tw_launch_rounded(&plan->kernel, c->threads, p, l->act_scale, &args, rounded->memory,
                          scratch->memory);
    else if (status == TW_OK)
        tw_launch(&plan->kernel, c->threads, &args, scratch->memory);
    if (rounded) tw_scratch_give(rounded);
    tw_scratch_give(scratch);
    return status;
}

static tw_status run_reference(tw_linear *l, int64_t M, const rows *x, const rows *y) {
    const tw_tensors *tensors;
    tw_problem truth = tw_template_truth(NULL, &l->problem);
    const tw_problem *p = &truth;
    TW_TRY(tw_linear_canonical(l, &tensors));
    tw_canonical w = tw_linear_view(l, tensors);
    tw_reference_linear(p, &w, x->data, x->stride * 8 / tw_dtype_bits(p->x), y->data,
                        y->stride * 8 / tw_dtype_bits(p->y), M);
    return TW_OK;
}

static tw_tensor normalized(const tw_tensor *t, const rows *r) {
    tw_tensor out = *t;
    out.stride[0] = r->stride * 8 / tw_dtype_bits(t->dtype);
    out.stride[1] = 1;
    return out;
}

/* The host's code, between enter and leave. */
static tw_status run_impl(tw_linear *l, tw_impl *impl, const tw_tensor *x, const tw_tensor *y,
                          const rows *x_rows, const rows *y_rows) {
    const tw_tensors *tensors;
    TW_TRY(tw_linear_canonical(l, &tensors));
    tw_tensor dense_x = normalized(x, x_rows), dense_y = normalized(y, y_rows);
    tw_canonical w = tw_linear_view(l, tensors);
    return tw_impl_run(impl, &l->problem, &w, &dense_x, &dense_y);
}

static tw_status forward(tw_linear *linear, int bucket, const tw_tensor *x, const tw_tensor *y,
                         rows x_rows, rows y_rows) {
    int64_t M = x->shape[0];
    for (;;) {
        tw_binding *b = tw_linear_bound(linear, bucket);
        if (!b) TW_TRY(tw_linear_bind_now(linear, bucket, &b));
        if (!b->impl && b->plan->decision.tmpl)
            return run_kernel(linear, b->plan, M, &x_rows, &y_rows);
        if (!b->impl) return run_reference(linear, M, &x_rows, &y_rows);
        /* Unregistered since it was bound: there is another answer now. */
        if (!tw_impl_enter(b->impl)) {
            TW_TRY(tw_linear_bind_now(linear, bucket, &b));
            continue;
        }
        tw_status status = run_impl(linear, b->impl, x, y, &x_rows, &y_rows);
        tw_impl_leave(b->impl);
        return status;
    }
}

/* ---- columns in another order ---- */

static int64_t x_row_bytes(const tw_linear *l) {
    return l->problem.K * tw_dtype_bits(l->problem.x) / 8;
}

/* Rows that are gathered at a time: enough for a kernel to do well, and of bounded size. */
static int64_t gather_rows(const tw_linear *l, int bucket) {
    enum { MOST_BYTES = 4 << 20 };
    return tw_max(1, tw_min(tw_bucket_rows(bucket), MOST_BYTES / x_row_bytes(l)));
}

size_t tw_linear_gather_bytes(const tw_linear *l, int bucket) {
    return l->order ? (size_t)(gather_rows(l, bucket) * x_row_bytes(l)) : 0;
}

typedef struct gather_call {
    const tw_linear *linear;
    const char *from;
    int64_t stride; /* of from, in bytes; `to` is contiguous */
    char *to;
} gather_call;

static void gather_row(void *arg, size_t m) {
    const gather_call *c = arg;
    const int32_t *order = c->linear->order;
    int64_t K = c->linear->problem.K;
    const char *from = c->from + (int64_t)m * c->stride;
    char *to = c->to + (int64_t)m * x_row_bytes(c->linear);
    if (c->linear->problem.x == TW_F32)
        for (int64_t k = 0; k < K; k++) memcpy(to + k * 4, from + (int64_t)order[k] * 4, 4);
    else
        for (int64_t k = 0; k < K; k++) memcpy(to + k * 2, from + (int64_t)order[k] * 2, 2);
}

/* Kernels know no order: they get x as the weights have it. */
static tw_status forward_ordered(tw_linear *l, int bucket, const tw_tensor *x, const tw_tensor *y,
                                 const rows *x_rows, const rows *y_rows) {
    int64_t M = x->shape[0], most = gather_rows(l, bucket), row = x_row_bytes(l);
    tw_scratch_block *block;
    TW_TRY(tw_scratch_take(&l->context->scratch, tw_linear_gather_bytes(l, bucket), &block));
    tw_status status = TW_OK;
    for (int64_t m = 0, count; m < M && status == TW_OK; m += count) {
        count = tw_min(most, M - m);
        gather_call call = {l, x_rows->data + m * x_rows->stride, x_rows->stride, block->memory};
        tw_threads_run(l->context->threads, gather_row, &call, (size_t)count);
        rows from = {block->memory, row, count * row};
        rows to = {y_rows->data + m * y_rows->stride, y_rows->stride, 0};
        tw_tensor some_x = *x, some_y = *y;
        some_x.data = from.data;
        some_y.data = to.data;
        some_x.shape[0] = some_y.shape[0] = count;
        status = forward(l, bucket, &some_x, &some_y, from, to);
    }
    tw_scratch_give(block);
    return status;
}

static tw_status run(tw_linear *l, int bucket, const tw_tensor *x, const tw_tensor *y,
                     const rows *x_rows, const rows *y_rows) {
    if (l->order) return forward_ordered(l, bucket, x, y, x_rows, y_rows);
    return forward(l, bucket, x, y, *x_rows, *y_rows);
}

/* What ran is looked up afterwards: only then is it known where nothing was prepared.  Kept apart,
 * so that an untraced forward pays for one branch. */
__attribute__((noinline, cold)) static tw_status run_traced(tw_linear *l, int bucket,
                                                            const tw_tensor *x, const tw_tensor *y,
                                                            const rows *x_rows,
                                                            const rows *y_rows) {
    int64_t start = tw_event_begin(l->context);
    tw_problem problem = l->problem;
    problem.M = x->shape[0];
    tw_event event = {.name = "forward", .start_ns = start, .problem = &problem};
    event.status = run(l, bucket, x, y, x_rows, y_rows);
    event.end_ns = tw_event_begin(l->context);
    const tw_binding *b = tw_linear_bound(l, bucket);
    if (b) {
        const tw_decision *d = b->impl ? NULL : &b->plan->decision;
        event.kernel = b->impl ? b->impl->row.name : d->tmpl ? d->tmpl->name : "reference";
        event.config = d && d->tmpl ? &d->config : NULL;
        event.detail.name = "origin";
        event.detail.value = tw_origin_text(d ? d->origin : TW_ORIGIN_REGISTERED);
    }
    tw_event_end(l->context, &event);
    return event.status;
}

tw_status tw_linear_forward(tw_linear *linear, const tw_tensor *x, const tw_tensor *y) {
    rows x_rows, y_rows;
    if (!linear) return tw_fail(TW_INVALID, "linear: NULL, must be given");
    TW_TRY(check_io(linear, x, y, &x_rows, &y_rows));
    if (!x->shape[0]) return TW_OK;
    int bucket = tw_bucket_index(x->shape[0]);
    if (linear->context->timeline) return run_traced(linear, bucket, x, y, &x_rows, &y_rows);
    return run(linear, bucket, x, y, &x_rows, &y_rows);
}

/* ---- several layers of one x ---- */

/* The plan of a layer that launches a kernel over x as it is; NULL: its forward is its own. */
static const tw_plan *plain_plan(tw_linear *l, int bucket) {
    const tw_binding *b = tw_linear_bound(l, bucket);
    if (!b || b->impl || !b->plan->decision.tmpl || l->order) return NULL;
    return tw_launch_rounded_bytes(&l->problem, 1) ? NULL : b->plan;
}

/* Whether x is the same to both once it is packed. */
static bool packs_alike(const tw_plan *a, const tw_plan *b) {
    const tw_scheme *s = &a->problem.scheme, *t = &b->problem.scheme;
    return a->decision.tmpl == b->decision.tmpl && a->problem.x == b->problem.x &&
           !memcmp(s, t, sizeof *s) && a->kernel.xq_stride == b->kernel.xq_stride &&
           a->kernel.xmeta_stride == b->kernel.xmeta_stride;
}

typedef struct group {
    const tw_kernel *kernels[TW_GROUP_MOST];
    tw_kernel_args args[TW_GROUP_MOST];
    int32_t count;
    size_t scratch_bytes;
} group;

static void join(group *g, const tw_linear *l, const tw_plan *plan, const rows *x, const rows *y,
                 int64_t M) {
    g->kernels[g->count] = &plan->kernel;
    g->args[g->count++] = arguments(l, M, x, y);
    if (plan->scratch_bytes > g->scratch_bytes) g->scratch_bytes = plan->scratch_bytes;
}

static tw_status launch_group(tw_context *c, group *g) {
    tw_scratch_block *scratch;
    TW_TRY(tw_scratch_take(&c->scratch, g->scratch_bytes, &scratch));
    tw_launch_group(g->kernels, c->threads, g->args, g->count, scratch->memory);
    tw_scratch_give(scratch);
    return TW_OK;
}

/* Layers *at and those after it that can join it; `done` marks them all.  *at: which one failed. */
static tw_status run_together(tw_linear *const *linears, int32_t count, int32_t *at,
                              const tw_tensor *x, const tw_tensor *y, bool *done) {
    rows x_rows, y_rows;
    int32_t first = *at;
    int bucket = tw_bucket_index(x->shape[0]);
    const tw_plan *plan = plain_plan(linears[first], bucket), *other;
    done[first] = true;
    if (!plan || linears[first]->context->timeline)
        return tw_linear_forward(linears[first], x, &y[first]);
    group g = {.count = 0};
    for (int32_t i = first; i < count; i++) {
        if (i > first && done[i]) continue;
        other = plain_plan(linears[i], bucket);
        if (!other || !packs_alike(plan, other)) continue;
        *at = i;
        TW_TRY(check_io(linears[i], x, &y[i], &x_rows, &y_rows));
        join(&g, linears[i], other, &x_rows, &y_rows, x->shape[0]);
        done[i] = true;
    }
    return launch_group(linears[first]->context, &g);
}

static tw_status check_group(tw_linear *const *linears, int32_t count, const tw_tensor *x,
                             const tw_tensor *y) {
    if (!linears) return tw_fail(TW_INVALID, "linears: NULL, must be given");
    if (count < 1) return tw_fail(TW_INVALID, "count: %d, expected at least 1", count);
    if (!x || !y) return tw_fail(TW_INVALID, "%s: NULL, must be given", x ? "y" : "x");
    for (int32_t i = 0; i < count; i++) {
        if (!linears[i]) return tw_fail(TW_INVALID, "linears[%d]: NULL, must be given", i);
        if (linears[i]->context != linears[0]->context)
            return tw_fail(TW_INVALID, "linears[%d]: of another context than linears[0]", i);
    }
    return TW_OK;
}

tw_status tw_linear_forward_group(tw_linear *const *linears, int32_t count, const tw_tensor *x,
                                  const tw_tensor *y) {
    TW_TRY(check_group(linears, count, x, y));
    for (int32_t first = 0, some; first < count; first += some) {
        bool done[TW_GROUP_MOST] = {false};
        some = (int32_t)tw_min(TW_GROUP_MOST, count - first);
        bool together = x->ndim == 2 && x->shape[0] >= 1;
        for (int32_t i = 0; i < some; i++) {
            if (done[i]) continue;
            int32_t at = i;
            tw_status status = together
                                   ? run_together(linears + first, some, &at, x, y + first, done)
                                   : tw_linear_forward(linears[first + i], x, &y[first + i]);
            if (status) return tw_fail(status, "linears[%d]: %s", first + at, tw_error_message());
        }
    }
    return TW_OK;
}
