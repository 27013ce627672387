/* tw_pack_x for x that stays a float: see real_pack.h. */
#include "templates/cpu/real_pack.h"

#include <stddef.h>

#include "src/core/dtype.h"
#include "src/core/kernel_args.h"
#include "templates/cpu/convert.h"

void tw_real_geometry(const tw_problem *problem, tw_geometry *out) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* An odd number of cache lines, so that rows do not share a set of the L1 cache. */
    out->xq_stride = (tw_ceil_div(panel.padded_k * 4, 64) | 1) * 64;
    out->xmeta_stride = 64; /* no use for it */
}

typedef struct pack {
    tw_ir *g;
    const tw_problem *problem;
    tw_panel panel;
    tw_dtype form; /* of packed x */
    int64_t bytes; /* of one packed x */
    const int *order;
    tw_val x, xq;
} pack;

/* Where column k goes. */
static int64_t place(const pack *s, int64_t k) {
    return s->order ? k / 4 * 4 + s->order[k % 4] : k;
}

static tw_val ordered(const pack *s, tw_val vector) {
    int mask[64], lanes = vector.ty.lanes;
    if (!s->order || lanes < 4) return vector;
    for (int i = 0; i < lanes; i++) mask[i] = (int)place(s, i);
    return tw_shuffle(s->g, vector, vector, mask, lanes);
}

/* As the conversion by instruction has it: they are 0. */
static tw_val without_subnormals(tw_ir *g, tw_val value) {
    tw_ty bits = tw_i32(value.ty.lanes);
    tw_val exponent = tw_and(g, tw_bitcast(g, value, bits), tw_const_int(g, bits, 0x7f800000));
    tw_val is_zero = tw_compare(g, TW_IR_EQ, exponent, tw_const_int(g, bits, 0));
    return tw_select(g, is_zero, tw_const_f32(g, value.ty.lanes, 0), value);
}

/* As many elements from one place to the other, converted where they have to be. */
static void copy(pack *s, tw_val from, tw_val to, int count) {
    tw_ir *g = s->g;
    tw_dtype x = s->problem->x;
    int size = tw_dtype_bits(x) / 8;
    if (x == s->form) {
        tw_ty ty = size == 4 ? tw_i32(count) : tw_i16(count);
        tw_store(g, ordered(s, tw_load(g, ty, from, size)), to, size);
        return;
    }
    if (s->form == TW_BF16 && count == 16 && tw_target_has(g->target, TW_EXTRA_BF16)) {
        tw_val f32 = ordered(s, tw_load_f32(g, x, from, count, size));
        tw_ty bf16 = tw_ty_of(TW_TY_BF16, count);
        tw_store(g, tw_intrinsic(g, "llvm.x86.avx512bf16.cvtneps2bf16.512", bf16, &f32, 1), to,
                 (int)s->bytes);
        return;
    }
    tw_val value = ordered(s, tw_load_f32(g, x, from, count, size));
    if (s->form == TW_BF16) value = without_subnormals(g, value);
    tw_store_f32(g, s->form, value, to, (int)s->bytes);
}

static void copy_row(pack *s) {
    tw_ir *g = s->g;
    int lanes = tw_target_lanes(g->target);
    int64_t K = s->problem->K, size = tw_dtype_bits(s->problem->x) / 8, whole = K / lanes * lanes;
    if (whole) {
        tw_loop loop;
        tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), tw_k64(g, whole), lanes, NULL, 0);
        copy(s, tw_offset(g, s->x, tw_mul(g, loop.i, tw_k64(g, size))),
             tw_offset(g, s->xq, tw_mul(g, loop.i, tw_k64(g, s->bytes))), lanes);
        tw_loop_end(g, &loop, NULL);
    }
    /* The rest one by one: nothing past K is read. */
    for (int64_t k = whole; k < K; k++)
        copy(s, tw_at(g, s->x, k * size), tw_at(g, s->xq, place(s, k) * s->bytes), 1);
    tw_ty zero = s->bytes == 4 ? tw_i32(1) : tw_i16(1);
    for (int64_t k = K; k < s->panel.padded_k; k++)
        tw_store(g, tw_const_int(g, zero, 0), tw_at(g, s->xq, place(s, k) * s->bytes),
                 (int)s->bytes);
}

void tw_real_emit_pack(tw_ir *g, const tw_problem *problem, tw_dtype form, int64_t xq_stride,
                       const int order[4]) {
    pack s = {
        .g = g, .problem = problem, .form = form, .bytes = tw_dtype_bits(form) / 8, .order = order};
    tw_panel_init(problem, &s.panel);
    static const tw_ty params[] = {{TW_TY_PTR, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}};
    tw_val a[3];
    tw_function_begin(g, "tw_pack_x", params, a, 3);
    tw_val x = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, x)), 8);
    tw_val x_stride = tw_load(g, tw_i64(), tw_at(g, a[0], offsetof(tw_kernel_args, x_stride)), 8);
    tw_val xq = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xq)), 8);
    tw_loop rows;
    tw_loop_begin(g, &rows, a[1], a[2], 1, NULL, 0);
    s.x = tw_offset(g, x, tw_mul(g, rows.i, x_stride));
    s.xq = tw_offset(g, xq, tw_mul(g, rows.i, tw_k64(g, xq_stride)));
    copy_row(&s);
    tw_loop_end(g, &rows, NULL);
    tw_function_end(g);
}
