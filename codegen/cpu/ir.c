/* Type checks over the operation table, and the control flow built from its blocks and phis. */
#include "codegen/cpu/ir.h"

#include <assert.h>
#include <string.h>

static bool same(tw_ty a, tw_ty b) { return a.kind == b.kind && a.lanes == b.lanes; }
static bool is_float(tw_ty ty) { return ty.kind >= TW_TY_F16 && ty.kind <= TW_TY_F64; }
static tw_val value(void *p, tw_ty ty) { return (tw_val){p, ty}; }

/* ---- values ---- */

tw_val tw_const_int(tw_ir *g, tw_ty ty, int64_t v) {
    return value(g->ops->constant(g, ty, &v, 1), ty);
}

tw_val tw_const_f32(tw_ir *g, int lanes, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    int64_t wide = bits;
    return value(g->ops->constant(g, tw_f32(lanes), &wide, 1), tw_f32(lanes));
}

tw_val tw_const_lanes(tw_ir *g, tw_ty ty, const int64_t *bits) {
    assert(ty.lanes);
    return value(g->ops->constant(g, ty, bits, ty.lanes), ty);
}

tw_val tw_binary(tw_ir *g, tw_binop op, tw_val a, tw_val b) {
    assert(same(a.ty, b.ty) && is_float(a.ty) == (op >= TW_IR_FADD));
    return value(g->ops->binary(g, op, a, b), a.ty);
}

tw_val tw_unary(tw_ir *g, tw_unop op, tw_val a) {
    assert(is_float(a.ty));
    return value(g->ops->unary(g, op, a), a.ty);
}

tw_val tw_cast(tw_ir *g, tw_castop op, tw_val a, tw_ty to) {
    assert(op == TW_IR_BITCAST ? tw_ty_bits(a.ty) == tw_ty_bits(to) : a.ty.lanes == to.lanes);
    if (same(a.ty, to)) return a;
    return value(g->ops->cast(g, op, a, to), to);
}

tw_val tw_compare(tw_ir *g, tw_cmpop op, tw_val a, tw_val b) {
    assert(same(a.ty, b.ty) && is_float(a.ty) == (op >= TW_IR_OLT));
    return value(g->ops->compare(g, op, a, b), tw_ty_of(TW_TY_I1, a.ty.lanes));
}

tw_val tw_select(tw_ir *g, tw_val condition, tw_val yes, tw_val no) {
    assert(same(yes.ty, no.ty) && condition.ty.kind == TW_TY_I1);
    return value(g->ops->select(g, condition, yes, no), yes.ty);
}

tw_val tw_fma(tw_ir *g, tw_val a, tw_val b, tw_val c) {
    assert(same(a.ty, b.ty) && same(b.ty, c.ty) && is_float(a.ty));
    /* Without the instruction LLVM would call fmaf, and objects may call nothing. */
    if (g->target->isa == TW_ISA_portable) return tw_fadd(g, tw_fmul(g, a, b), c);
    return value(g->ops->fma(g, a, b, c), a.ty);
}

tw_val tw_load(tw_ir *g, tw_ty ty, tw_val pointer, int align) {
    assert(pointer.ty.kind == TW_TY_PTR);
    return value(g->ops->load(g, ty, pointer, align), ty);
}

void tw_store(tw_ir *g, tw_val v, tw_val pointer, int align) {
    assert(pointer.ty.kind == TW_TY_PTR);
    g->ops->store(g, v, pointer, align);
}

tw_val tw_offset(tw_ir *g, tw_val pointer, tw_val bytes) {
    assert(pointer.ty.kind == TW_TY_PTR && bytes.ty.kind == TW_TY_I64);
    return value(g->ops->offset(g, pointer, bytes), tw_ptr());
}

tw_val tw_at(tw_ir *g, tw_val pointer, int64_t bytes) {
    return bytes ? tw_offset(g, pointer, tw_k64(g, bytes)) : pointer;
}

tw_val tw_splat(tw_ir *g, tw_val scalar, int lanes) {
    assert(!scalar.ty.lanes);
    return value(g->ops->splat(g, scalar, lanes), tw_ty_of(scalar.ty.kind, lanes));
}

tw_val tw_extract(tw_ir *g, tw_val vector, int lane) {
    assert(lane >= 0 && lane < vector.ty.lanes);
    return value(g->ops->extract(g, vector, lane), tw_ty_of(vector.ty.kind, 0));
}

tw_val tw_shuffle(tw_ir *g, tw_val a, tw_val b, const int *mask, int lanes) {
    assert(same(a.ty, b.ty) && a.ty.lanes);
    return value(g->ops->shuffle(g, a, b, mask, lanes), tw_ty_of(a.ty.kind, lanes));
}

tw_val tw_intrinsic(tw_ir *g, const char *name, tw_ty result, const tw_val *args, int count) {
    return value(g->ops->intrinsic(g, name, result, args, count), result);
}

void tw_prefetch(tw_ir *g, tw_val pointer) { g->ops->prefetch(g, pointer, false); }
void tw_prefetch_to_write(tw_ir *g, tw_val pointer) { g->ops->prefetch(g, pointer, true); }
void tw_touch(tw_ir *g, tw_val pointer) { g->ops->touch(g, pointer); }
tw_val tw_local(tw_ir *g, tw_ty ty) { return value(g->ops->local(g, ty), tw_ptr()); }

tw_val tw_shl(tw_ir *g, tw_val a, int bits) {
    return bits ? tw_binary(g, TW_IR_SHL, a, tw_const_int(g, a.ty, bits)) : a;
}
tw_val tw_lshr(tw_ir *g, tw_val a, int bits) {
    return bits ? tw_binary(g, TW_IR_LSHR, a, tw_const_int(g, a.ty, bits)) : a;
}
tw_val tw_ashr(tw_ir *g, tw_val a, int bits) {
    return bits ? tw_binary(g, TW_IR_ASHR, a, tw_const_int(g, a.ty, bits)) : a;
}

/* ---- functions, loops, ifs ---- */

void tw_function_begin(tw_ir *g, const char *name, const tw_ty *params, tw_val *values, int count) {
    g->ops->function_begin(g, name, params, values, count);
}
void tw_function_end(tw_ir *g) { g->ops->function_end(g); }

static void loop_open(tw_ir *g, tw_loop *l, tw_val lo, tw_val hi, int64_t step,
                      const tw_val *carried, int count, bool runs) {
    assert(count <= TW_MAX_CARRIED);
    l->runs = runs;
    l->count = count;
    l->hi = hi;
    l->step = tw_k64(g, step);
    l->before = g->ops->current(g);
    l->head = g->ops->block(g);
    l->exit = g->ops->block(g);
    g->ops->jump(g, l->head);
    g->ops->enter(g, l->head);
    l->i = value(g->ops->phi(g, tw_i64()), tw_i64());
    g->ops->phi_from(g, l->i, lo, l->before);
    for (int c = 0; c < count; c++) {
        l->carried[c] = value(g->ops->phi(g, carried[c].ty), carried[c].ty);
        g->ops->phi_from(g, l->carried[c], carried[c], l->before);
    }
    if (runs) return;
    l->body = g->ops->block(g);
    g->ops->branch(g, tw_compare(g, TW_IR_SLT, l->i, hi), l->body, l->exit);
    g->ops->enter(g, l->body);
}

void tw_loop_begin(tw_ir *g, tw_loop *l, tw_val lo, tw_val hi, int64_t step, const tw_val *carried,
                   int count) {
    loop_open(g, l, lo, hi, step, carried, count, false);
}

void tw_loop_begin_nonempty(tw_ir *g, tw_loop *l, tw_val lo, tw_val hi, int64_t step,
                            const tw_val *carried, int count) {
    loop_open(g, l, lo, hi, step, carried, count, true);
}

void tw_loop_end(tw_ir *g, tw_loop *l, const tw_val *next) {
    tw_val i = tw_add(g, l->i, l->step);
    tw_block latch = g->ops->current(g);
    if (l->runs)
        g->ops->branch(g, tw_compare(g, TW_IR_SLT, i, l->hi), l->head, l->exit);
    else
        g->ops->jump(g, l->head);
    g->ops->phi_from(g, l->i, i, latch);
    for (int c = 0; c < l->count; c++) {
        g->ops->phi_from(g, l->carried[c], next[c], latch);
        /* Tested at the end, the last round's results are what leaves; tested before, the phis are.
         */
        if (l->runs) l->carried[c] = next[c];
    }
    g->ops->enter(g, l->exit);
}

void tw_cut(tw_ir *g) {
    tw_block next = g->ops->block(g);
    g->ops->jump(g, next);
    g->ops->enter(g, next);
}

void tw_if_begin(tw_ir *g, tw_if *branch, tw_val condition) {
    tw_block yes = g->ops->block(g);
    branch->otherwise = g->ops->block(g);
    branch->end = NULL;
    g->ops->branch(g, condition, yes, branch->otherwise);
    g->ops->enter(g, yes);
}

void tw_if_else(tw_ir *g, tw_if *branch) {
    branch->end = g->ops->block(g);
    branch->yes = g->ops->current(g);
    g->ops->jump(g, branch->end);
    g->ops->enter(g, branch->otherwise);
}

void tw_if_end(tw_ir *g, tw_if *branch) {
    tw_block end = branch->end ? branch->end : branch->otherwise;
    g->ops->jump(g, end);
    g->ops->enter(g, end);
}

void tw_if_merge(tw_ir *g, tw_if *branch, const tw_val *yes, tw_val *values, int count) {
    tw_block no = g->ops->current(g);
    assert(branch->end);
    tw_if_end(g, branch);
    for (int i = 0; i < count; i++) {
        tw_val merged = value(g->ops->phi(g, values[i].ty), values[i].ty);
        g->ops->phi_from(g, merged, yes[i], branch->yes);
        g->ops->phi_from(g, merged, values[i], no);
        values[i] = merged;
    }
}
