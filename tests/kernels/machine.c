/* Recording: the vocabulary's table, each entry an operation appended to a list. */
#include "tests/kernels/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static machine *of(tw_ir *g) { return g->state; }

/* Room for one more element, doubling at powers of two. */
static void *grown(void *list, int32_t count, size_t element) {
    if (count & (count - 1)) return list;
    void *larger = realloc(list, (count ? 2 * (size_t)count : 1) * element);
    if (!larger) exit(2);
    return larger;
}

/* Values are numbered from 1, so that none is a NULL pointer. */
static int32_t id(tw_val v) { return (int32_t)(intptr_t)v.p; }
static int32_t block_of(tw_block b) { return (int32_t)(intptr_t)b; }

static int32_t new_value(machine *m) {
    if (!m->value_count) m->value_count = 1;
    return m->value_count++;
}

static machine_op *append(tw_ir *g, machine_kind kind, tw_ty ty) {
    machine *m = of(g);
    m->ops = grown(m->ops, m->op_count, sizeof *m->ops);
    machine_op *op = &m->ops[m->op_count++];
    memset(op, 0, sizeof *op);
    op->kind = (uint8_t)kind;
    op->ty = ty;
    op->dst = -1;
    return op;
}

static void *define(tw_ir *g, machine_op *op) {
    op->dst = new_value(of(g));
    return (void *)(intptr_t)op->dst;
}

static int32_t add_lane(machine *m, int64_t lane) {
    m->lanes = grown(m->lanes, m->lane_count, sizeof *m->lanes);
    m->lanes[m->lane_count] = lane;
    return m->lane_count++;
}

static void *constant(tw_ir *g, tw_ty ty, const int64_t *bits, int count) {
    machine_op *op = append(g, OP_CONSTANT, ty);
    op->lanes_at = of(g)->lane_count;
    int lanes = ty.lanes ? ty.lanes : 1;
    for (int i = 0; i < lanes; i++) add_lane(of(g), bits[count == 1 ? 0 : i]);
    return define(g, op);
}

static void *operation(tw_ir *g, machine_kind kind, int sub, tw_ty ty, const tw_val *args,
                       int count) {
    machine_op *op = append(g, kind, ty);
    op->sub = (uint8_t)sub;
    op->from = args[0].ty;
    for (int i = 0; i < count; i++) op->arg[i] = id(args[i]);
    return define(g, op);
}

static void *binary(tw_ir *g, tw_binop sub, tw_val a, tw_val b) {
    return operation(g, OP_BINARY, sub, a.ty, (tw_val[]){a, b}, 2);
}

static void *unary(tw_ir *g, tw_unop sub, tw_val a) {
    return operation(g, OP_UNARY, sub, a.ty, &a, 1);
}

static void *cast(tw_ir *g, tw_castop sub, tw_val a, tw_ty to) {
    return operation(g, OP_CAST, sub, to, &a, 1);
}

static void *compare(tw_ir *g, tw_cmpop sub, tw_val a, tw_val b) {
    tw_ty ty = tw_ty_of(TW_TY_I1, a.ty.lanes);
    return operation(g, OP_COMPARE, sub, ty, (tw_val[]){a, b}, 2);
}

static void *select_(tw_ir *g, tw_val condition, tw_val yes, tw_val no) {
    return operation(g, OP_SELECT, 0, yes.ty, (tw_val[]){condition, yes, no}, 3);
}

static void *fma_(tw_ir *g, tw_val a, tw_val b, tw_val c) {
    return operation(g, OP_FMA, 0, a.ty, (tw_val[]){a, b, c}, 3);
}

static void *load(tw_ir *g, tw_ty ty, tw_val pointer, int align) {
    void *v = operation(g, OP_LOAD, 0, ty, &pointer, 1);
    of(g)->ops[of(g)->op_count - 1].number = align;
    return v;
}

static void store(tw_ir *g, tw_val v, tw_val pointer, int align) {
    machine_op *op = append(g, OP_STORE, v.ty);
    op->arg[0] = id(v);
    op->arg[1] = id(pointer);
    op->number = align;
}

static void *offset(tw_ir *g, tw_val pointer, tw_val bytes) {
    return operation(g, OP_OFFSET, 0, tw_ptr(), (tw_val[]){pointer, bytes}, 2);
}

static void *splat(tw_ir *g, tw_val scalar, int lanes) {
    return operation(g, OP_SPLAT, 0, tw_ty_of(scalar.ty.kind, lanes), &scalar, 1);
}

static void *extract(tw_ir *g, tw_val vector, int lane) {
    void *v = operation(g, OP_EXTRACT, 0, tw_ty_of(vector.ty.kind, 0), &vector, 1);
    of(g)->ops[of(g)->op_count - 1].number = lane;
    return v;
}

static void *shuffle(tw_ir *g, tw_val a, tw_val b, const int *mask, int lanes) {
    machine *m = of(g);
    void *v = operation(g, OP_SHUFFLE, 0, tw_ty_of(a.ty.kind, lanes), (tw_val[]){a, b}, 2);
    m->ops[m->op_count - 1].lanes_at = m->lane_count;
    for (int i = 0; i < lanes; i++) add_lane(m, mask[i]);
    return v;
}

static void *intrinsic(tw_ir *g, const char *name, tw_ty result, const tw_val *args, int count) {
    void *v = operation(g, OP_INTRINSIC, count, result, args, count);
    machine_op *op = &of(g)->ops[of(g)->op_count - 1];
    snprintf(op->name, sizeof op->name, "%s", name);
    op->from = args[count - 1].ty;
    return v;
}

static void prefetch(tw_ir *g, tw_val pointer, bool write) {
    append(g, write ? OP_PREFETCH_TO_WRITE : OP_PREFETCH, tw_ptr())->arg[0] = id(pointer);
}

static void touch(tw_ir *g, tw_val pointer) { append(g, OP_TOUCH, tw_ptr())->arg[0] = id(pointer); }

static void *local(tw_ir *g, tw_ty ty) {
    machine *m = of(g);
    machine_op *op = append(g, OP_LOCAL, tw_ptr());
    op->number = (int64_t)m->frame_size;
    m->frame_size += (size_t)tw_round_up(tw_ty_bits(ty) / 8, 64);
    return define(g, op);
}

static tw_block block(tw_ir *g) {
    machine *m = of(g);
    m->blocks = grown(m->blocks, m->block_count, sizeof *m->blocks);
    m->blocks[m->block_count] = -1;
    return (void *)(intptr_t)++m->block_count;
}

static tw_block current(tw_ir *g) { return (void *)(intptr_t)of(g)->current_block; }

static void enter(tw_ir *g, tw_block b) {
    of(g)->current_block = block_of(b);
    of(g)->blocks[block_of(b) - 1] = of(g)->op_count;
}

static void function_begin(tw_ir *g, const char *name, const tw_ty *params, tw_val *values,
                           int count) {
    machine *m = of(g);
    bool matmul = !strcmp(name, "tw_matmul");
    machine_function *f = &m->functions[matmul];
    f->first_op = m->op_count;
    f->param_count = count;
    m->function_count++;
    for (int i = 0; i < count; i++) {
        f->params[i] = new_value(m);
        values[i] = (tw_val){(void *)(intptr_t)f->params[i], params[i]};
    }
    enter(g, block(g));
}

static void function_end(tw_ir *g) {
    machine *m = of(g);
    append(g, OP_RETURN, (tw_ty){0});
    for (int i = 0; i < 2; i++)
        if (m->functions[i].param_count && !m->functions[i].op_count)
            m->functions[i].op_count = m->op_count - m->functions[i].first_op;
}

static void jump(tw_ir *g, tw_block b) { append(g, OP_JUMP, (tw_ty){0})->arg[1] = block_of(b); }

static void branch(tw_ir *g, tw_val condition, tw_block yes, tw_block no) {
    machine_op *op = append(g, OP_BRANCH, (tw_ty){0});
    op->arg[0] = id(condition);
    op->arg[1] = block_of(yes);
    op->arg[2] = block_of(no);
}

static void *phi(tw_ir *g, tw_ty ty) {
    machine_op *op = append(g, OP_PHI, ty);
    op->number = -1;
    return define(g, op);
}

static void phi_from(tw_ir *g, tw_val p, tw_val v, tw_block from) {
    machine *m = of(g);
    int32_t at = m->op_count - 1;
    while (m->ops[at].dst != id(p)) at--;
    m->incoming = grown(m->incoming, m->incoming_count, sizeof *m->incoming);
    m->incoming[m->incoming_count] =
        (machine_incoming){block_of(from), id(v), (int32_t)m->ops[at].number};
    m->ops[at].number = m->incoming_count++;
}

tw_status machine_record(machine *m, const tw_target *target, tw_emit_fn *emit, const void *arg) {
    static const tw_ir_ops ops = {
        constant,     binary, unary,   cast,    compare,   select_,  fma_,  load,    store,
        offset,       splat,  extract, shuffle, intrinsic, prefetch, touch, local,   function_begin,
        function_end, block,  current, enter,   jump,      branch,   phi,   phi_from};
    memset(m, 0, sizeof *m);
    m->most_steps = 100000000;
    tw_ir g = {&ops, target, m};
    TW_TRY(emit(&g, arg));
    m->values = calloc((size_t)m->value_count + 1, sizeof *m->values);
    m->frame = aligned_alloc(64, m->frame_size + 64);
    if (!m->values || !m->frame) exit(2);
    return TW_OK;
}

void machine_free(machine *m) {
    machine_forbid_all(m);
    free(m->ops);
    free(m->lanes);
    free(m->blocks);
    free(m->incoming);
    free(m->values);
    free(m->frame);
    free(m->regions);
    memset(m, 0, sizeof *m);
}

void machine_allow(machine *m, const void *base, size_t size, bool can_read, bool can_write,
                   const char *fill_of) {
    m->regions = grown(m->regions, m->region_count, sizeof *m->regions);
    machine_region *r = &m->regions[m->region_count++];
    *r = (machine_region){(char *)(uintptr_t)base, size, can_read, can_write, NULL, 0};
    if (!fill_of) return;
    r->written = calloc(size + 1, 1);
    if (!r->written) exit(2);
    r->fill = *fill_of;
}

void machine_forbid_all(machine *m) {
    for (int i = 0; i < m->region_count; i++) free(m->regions[i].written);
    m->region_count = 0;
}
