#include "templates/cpu/real_pack.h"

#include <stddef.h>

#include "src/core/dtype.h"
#include "src/core/kernel_args.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/dequant.h"

void tw_real_geometry(const tw_problem *problem, tw_geometry *out) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* An odd number of cache lines, so that rows do not share a set of the L1 cache. */
    out->xq_stride = (tw_ceil_div(panel.padded_k * 4, 64) | 1) * 64;
    bool values = problem->scheme.zero_mode == TW_ZERO_VALUE;
    out->xmeta_stride = values ? tw_round_up(tw_gemm_folds(&panel, TW_DEQUANT_FOLD) * 4, 64) : 64;
}

typedef struct pack {
    tw_ir *g;
    const tw_problem *problem;
    tw_panel panel;
    tw_dtype form; /* of packed x */
    int64_t bytes; /* of one packed x */
    tw_val x, xq, xmeta;
} pack;

/* Copies `length` elements from column `from` as f32 and returns their sum in one lane. */
static tw_val copy_run(pack *s, tw_val from, int64_t length) {
    tw_ir *g = s->g;
    int lanes = tw_target_lanes(g->target);
    int64_t size = tw_dtype_bits(s->problem->x) / 8, whole = length / lanes * lanes;
    tw_val sum = tw_const_f32(g, lanes, 0);
    if (whole) {
        tw_loop loop;
        tw_loop_begin_nonempty(g, &loop, from, tw_add(g, from, tw_k64(g, whole)), lanes, &sum, 1);
        tw_val at = tw_offset(g, s->x, tw_mul(g, loop.i, tw_k64(g, size)));
        tw_val x = tw_load_f32(g, s->problem->x, at, lanes, (int)size);
        tw_store_f32(g, s->form, x, tw_offset(g, s->xq, tw_mul(g, loop.i, tw_k64(g, s->bytes))),
                     (int)s->bytes);
        tw_val next = tw_fadd(g, loop.carried[0], x);
        tw_loop_end(g, &loop, &next);
        sum = loop.carried[0];
    }
    const int first[] = {0};
    sum = tw_reduce(g, TW_IR_FADD, sum);
    sum = tw_shuffle(g, sum, sum, first, 1);
    for (int64_t i = whole; i < length; i++) {
        tw_val k = tw_add(g, from, tw_k64(g, i));
        tw_val x = tw_load_f32(g, s->problem->x, tw_offset(g, s->x, tw_mul(g, k, tw_k64(g, size))),
                               1, (int)size);
        tw_store_f32(g, s->form, x, tw_offset(g, s->xq, tw_mul(g, k, tw_k64(g, s->bytes))),
                     (int)s->bytes);
        sum = tw_fadd(g, sum, x);
    }
    return sum;
}

/* Runs of one fold each: whole groups cut into folds, then what is left. */
static void copy_folds(pack *s) {
    tw_ir *g = s->g;
    int64_t K = s->problem->K,
            fold = tw_min(TW_DEQUANT_FOLD,
                          s->panel.unit_groups > 1 ? s->panel.group_k : s->panel.unit_k),
            group = s->panel.groups > 1 ? s->panel.group_k : K;
    int64_t entry = 0;
    for (int64_t from = 0; from < K;) {
        /* Many equal folds in a row make a loop; a group's last fold may be shorter. */
        int64_t here = tw_min(fold, tw_min(group - from % group, K - from));
        int64_t repeat = here == fold && group % fold == 0 ? (K - from) / fold : 1;
        tw_loop loop;
        tw_val carried[] = {tw_k64(g, entry * 4)};
        tw_loop_begin_nonempty(g, &loop, tw_k64(g, from), tw_k64(g, from + repeat * here), here,
                               carried, 1);
        tw_val sum = copy_run(s, loop.i, here);
        tw_store(g, sum, tw_offset(g, s->xmeta, loop.carried[0]), 4);
        carried[0] = tw_add(g, loop.carried[0], tw_k64(g, 4));
        tw_loop_end(g, &loop, carried);
        from += repeat * here;
        entry += repeat;
    }
    for (; entry < tw_gemm_folds(&s->panel, TW_DEQUANT_FOLD); entry++)
        tw_store(g, tw_const_f32(g, 1, 0), tw_at(g, s->xmeta, entry * 4), 4);
}

void tw_real_emit_pack(tw_ir *g, const tw_problem *problem, tw_dtype form) {
    pack s = {.g = g, .problem = problem, .form = form, .bytes = tw_dtype_bits(form) / 8};
    tw_panel_init(problem, &s.panel);
    tw_geometry geo;
    tw_real_geometry(problem, &geo);
    static const tw_ty params[] = {{TW_TY_PTR, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}};
    tw_val a[3];
    tw_function_begin(g, "tw_pack_x", params, a, 3);
    tw_val x = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, x)), 8);
    tw_val x_stride = tw_load(g, tw_i64(), tw_at(g, a[0], offsetof(tw_kernel_args, x_stride)), 8);
    tw_val xq = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xq)), 8);
    tw_val xmeta = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xmeta)), 8);
    tw_loop rows;
    tw_loop_begin(g, &rows, a[1], a[2], 1, NULL, 0);
    s.x = tw_offset(g, x, tw_mul(g, rows.i, x_stride));
    s.xq = tw_offset(g, xq, tw_mul(g, rows.i, tw_k64(g, geo.xq_stride)));
    s.xmeta = tw_offset(g, xmeta, tw_mul(g, rows.i, tw_k64(g, geo.xmeta_stride)));
    if (problem->scheme.zero_mode == TW_ZERO_VALUE)
        copy_folds(&s);
    else
        copy_run(&s, tw_k64(g, 0), problem->K);
    for (int64_t k = problem->K; k < s.panel.padded_k; k++)
        tw_store_f32(g, form, tw_const_f32(g, 1, 0), tw_at(g, s.xq, k * s.bytes), (int)s.bytes);
    tw_loop_end(g, &rows, NULL);
    tw_function_end(g);
}
