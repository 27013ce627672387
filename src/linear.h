/* A layer: its weights in one packed layout, and what each M bucket of it runs. */
#ifndef TW_SRC_LINEAR_H
#define TW_SRC_LINEAR_H

#include "src/contest.h"
#include "src/core/reference.h"

/* What one bucket runs. Constant but for the generation, and kept until the linear goes: a
 * forward that has loaded it may still be using it. */
typedef struct tw_binding {
    struct tw_binding *next; /* in linear->all */
    int bucket;
    atomic_uint generation; /* of the registry, for which it is right */
    tw_impl *impl;          /* registered: goes before the plan */
    tw_plan *plan;          /* NULL with an impl that won without one */
    bool owns_plan;
    tw_contest *contest;  /* owned; NULL where no implementation of priority 0 takes the problem */
    const tw_impl *rival; /* whom the contest is with */
} tw_binding;

/* Canonical tensors in memory of their own; data NULL: the layer has none. */
typedef struct tw_tensors {
    tw_tensor weight, scales, zeros;
    void *memory;
    size_t bytes;
} tw_tensors;

struct tw_linear {
    tw_context *context;
    tw_problem problem;      /* M 0 */
    const tw_layout *layout; /* NULL: the canonical tensors are all there is */
    void *packed;
    size_t packed_bytes;
    float *lut;      /* TW_LUT4_SIZE; NULL without */
    int32_t *order;  /* K; NULL without */
    float act_scale; /* 0 without */
    void *bias;      /* as given; NULL without */
    size_t bias_bytes;
    float *bias_f32; /* what kernels read: round_up(N, 64) of them */
    size_t bias_f32_bytes;
    _Atomic(tw_tensors *) canonical; /* kept, or unpacked once when somebody needs it */
    _Atomic(tw_binding *) bindings[TW_BUCKETS];
    pthread_mutex_t lock; /* held to publish a binding or canonical tensors, not while planning */
    tw_binding *all;      /* newest first */
    atomic_bool warned;   /* that it runs the reference */
};

/* Rows [first, first + count) of canonical tensors, contiguous, into `into`, checked.  wide: with a
 * byte for each code. */
typedef tw_status tw_read_rows(const void *source, int64_t first, int64_t count, bool wide,
                               const tw_tensors *into);

/* What a layer is made of, all of it the caller's. */
typedef struct tw_layer {
    tw_problem problem;
    const float *lut;
    const int32_t *order;
    float act_scale;
    const tw_tensor *bias;
    const tw_canonical *weights; /* contiguous and checked; or: */
    tw_read_rows *read; /* rows as they are wanted, on any thread, where groups are of one row; */
    const void *source; /* or: */
    const tw_layout *layout; /* the layout that packed is in */
    const void *packed;
} tw_layer;

/* context and out as the caller gave them, and the caller's desc.  Errors: INVALID, MEMORY. */
tw_status tw_linear_begin(const tw_context *context, const tw_linear_desc *desc,
                          const tw_tensor *bias, tw_linear *const *out, tw_layer *from);
/* What canonical tensors must not hold.  Errors: INVALID. */
tw_status tw_check_canonical(const tw_problem *problem, const tw_canonical *w);
/* Errors: MEMORY, and read's. */
tw_status tw_linear_build(tw_context *context, const tw_layer *from, tw_linear **out);
/* Whether some kernel of the context's target takes the problem over the layout. */
bool tw_layout_serves(const tw_context *context, const tw_layout *layout, const tw_problem *p);
/* K numbers, each of 0..K-1 once; NULL is none.  Errors: INVALID, MEMORY. */
tw_status tw_check_order(const tw_context *context, const int32_t *order, int64_t K);
size_t tw_tensor_bytes(const tw_tensor *tensor);

/* Shapes of the canonical tensors of a problem, without data. */
void tw_tensors_describe(const tw_problem *problem, tw_tensors *out);
/* The canonical tensors, unpacked on first use.  Errors: MEMORY. */
tw_status tw_linear_canonical(tw_linear *linear, const tw_tensors **out);
tw_canonical tw_linear_view(const tw_linear *linear, const tw_tensors *tensors);

/* Bytes of x, with its columns in the weights' order, that a forward of the bucket copies at a
 * time; 0 without an order. */
size_t tw_linear_gather_bytes(const tw_linear *linear, int bucket);

/* Decides what a bucket runs and publishes it.  Errors: as tw_plan_make. */
tw_status tw_linear_bind(tw_linear *linear, int bucket, tw_mode mode, double budget_s,
                         tw_binding **out);
/* As forward() does where nothing was prepared: never tunes. */
tw_status tw_linear_bind_now(tw_linear *linear, int bucket, tw_binding **out);

/* The published binding, or NULL where there is none or the registry has changed since. */
static inline tw_binding *tw_linear_bound(tw_linear *linear, int bucket) {
    tw_binding *binding = atomic_load_explicit(&linear->bindings[bucket], memory_order_acquire);
    unsigned now =
        atomic_load_explicit(&linear->context->registry.generation, memory_order_relaxed);
    return binding && atomic_load_explicit(&binding->generation, memory_order_relaxed) == now
               ? binding
               : NULL;
}

#endif
