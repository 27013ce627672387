/* The vocabulary written down, operation by operation: see trace.h. */
#include "codegen/cpu/trace.h"

#include <stdint.h>

typedef struct trace {
    tw_str *out;
    intptr_t values, blocks, current;
} trace;

static const char *const kinds[] = {"void", "i1",   "i8",  "i16", "i32", "i64",
                                    "f16",  "bf16", "f32", "f64", "ptr"};
#define TW_ROW(name, text) #text,
static const char *const binops[] = {TW_BINOPS(TW_ROW)};
static const char *const unops[] = {TW_UNOPS(TW_ROW)};
static const char *const casts[] = {TW_CASTS(TW_ROW)};
static const char *const cmps[] = {TW_CMPS(TW_ROW)};
#undef TW_ROW

static trace *of(tw_ir *g) { return g->state; }
static long id(tw_val v) { return (long)(intptr_t)v.p; }

static void add_ty(tw_str *out, tw_ty ty) {
    tw_str_add(out, ty.lanes ? "%sx%d" : "%s", kinds[ty.kind], ty.lanes);
}

/* Opens the line of a new value: "  %7 = ". */
static void *define(tw_ir *g) {
    intptr_t n = ++of(g)->values;
    tw_str_add(of(g)->out, "  %%%ld = ", (long)n);
    return (void *)n;
}

static void *constant(tw_ir *g, tw_ty ty, const int64_t *bits, int count) {
    void *v = define(g);
    tw_str_add(of(g)->out, "const ");
    add_ty(of(g)->out, ty);
    for (int i = 0; i < count; i++) tw_str_add(of(g)->out, " %lld", (long long)bits[i]);
    tw_str_add(of(g)->out, "\n");
    return v;
}

static void *binary(tw_ir *g, tw_binop op, tw_val a, tw_val b) {
    void *v = define(g);
    tw_str_add(of(g)->out, "%s %%%ld %%%ld\n", binops[op], id(a), id(b));
    return v;
}

static void *unary(tw_ir *g, tw_unop op, tw_val a) {
    void *v = define(g);
    tw_str_add(of(g)->out, "%s %%%ld\n", unops[op], id(a));
    return v;
}

static void *cast(tw_ir *g, tw_castop op, tw_val a, tw_ty to) {
    void *v = define(g);
    tw_str_add(of(g)->out, "%s %%%ld ", casts[op], id(a));
    add_ty(of(g)->out, to);
    tw_str_add(of(g)->out, "\n");
    return v;
}

static void *compare(tw_ir *g, tw_cmpop op, tw_val a, tw_val b) {
    void *v = define(g);
    tw_str_add(of(g)->out, "%s %%%ld %%%ld\n", cmps[op], id(a), id(b));
    return v;
}

static void *select_(tw_ir *g, tw_val condition, tw_val yes, tw_val no) {
    void *v = define(g);
    tw_str_add(of(g)->out, "select %%%ld %%%ld %%%ld\n", id(condition), id(yes), id(no));
    return v;
}

static void *fma_(tw_ir *g, tw_val a, tw_val b, tw_val c) {
    void *v = define(g);
    tw_str_add(of(g)->out, "fma %%%ld %%%ld %%%ld\n", id(a), id(b), id(c));
    return v;
}

static void *load(tw_ir *g, tw_ty ty, tw_val pointer, int align) {
    void *v = define(g);
    tw_str_add(of(g)->out, "load ");
    add_ty(of(g)->out, ty);
    tw_str_add(of(g)->out, " %%%ld align %d\n", id(pointer), align);
    return v;
}

static void store(tw_ir *g, tw_val v, tw_val pointer, int align) {
    tw_str_add(of(g)->out, "  store %%%ld to %%%ld align %d\n", id(v), id(pointer), align);
}

static void *offset(tw_ir *g, tw_val pointer, tw_val bytes) {
    void *v = define(g);
    tw_str_add(of(g)->out, "offset %%%ld %%%ld\n", id(pointer), id(bytes));
    return v;
}

static void *splat(tw_ir *g, tw_val scalar, int lanes) {
    void *v = define(g);
    tw_str_add(of(g)->out, "splat %%%ld x%d\n", id(scalar), lanes);
    return v;
}

static void *extract(tw_ir *g, tw_val vector, int lane) {
    void *v = define(g);
    tw_str_add(of(g)->out, "extract %%%ld %d\n", id(vector), lane);
    return v;
}

static void *shuffle(tw_ir *g, tw_val a, tw_val b, const int *mask, int lanes) {
    void *v = define(g);
    tw_str_add(of(g)->out, "shuffle %%%ld %%%ld", id(a), id(b));
    for (int i = 0; i < lanes; i++) tw_str_add(of(g)->out, " %d", mask[i]);
    tw_str_add(of(g)->out, "\n");
    return v;
}

static void *intrinsic(tw_ir *g, const char *name, tw_ty result, const tw_val *args, int count) {
    void *v = define(g);
    add_ty(of(g)->out, result);
    tw_str_add(of(g)->out, " %s", name);
    for (int i = 0; i < count; i++) tw_str_add(of(g)->out, " %%%ld", id(args[i]));
    tw_str_add(of(g)->out, "\n");
    return v;
}

static void prefetch(tw_ir *g, tw_val pointer, bool write) {
    tw_str_add(of(g)->out, "  prefetch%s %%%ld\n", write ? " to write" : "", id(pointer));
}

static void touch(tw_ir *g, tw_val pointer) {
    tw_str_add(of(g)->out, "  touch %%%ld\n", id(pointer));
}

static void *local(tw_ir *g, tw_ty ty) {
    void *v = define(g);
    tw_str_add(of(g)->out, "local ");
    add_ty(of(g)->out, ty);
    tw_str_add(of(g)->out, "\n");
    return v;
}

static tw_block block(tw_ir *g) { return (void *)++of(g)->blocks; }
static tw_block current(tw_ir *g) { return (void *)of(g)->current; }

static void enter(tw_ir *g, tw_block b) {
    of(g)->current = (intptr_t)b;
    tw_str_add(of(g)->out, "b%ld:\n", (long)(intptr_t)b);
}

static void function_begin(tw_ir *g, const char *name, const tw_ty *params, tw_val *values,
                           int count) {
    trace *t = of(g);
    t->values = t->blocks = 0;
    tw_str_add(t->out, "function %s", name);
    for (int i = 0; i < count; i++) {
        values[i] = (tw_val){(void *)++t->values, params[i]};
        tw_str_add(t->out, " %%%ld:", (long)t->values);
        add_ty(t->out, params[i]);
    }
    tw_str_add(t->out, "\n");
    enter(g, block(g));
}

static void function_end(tw_ir *g) { tw_str_add(of(g)->out, "  return\n\n"); }

static void jump(tw_ir *g, tw_block b) {
    tw_str_add(of(g)->out, "  jump b%ld\n", (long)(intptr_t)b);
}

static void branch(tw_ir *g, tw_val condition, tw_block yes, tw_block no) {
    tw_str_add(of(g)->out, "  branch %%%ld b%ld b%ld\n", id(condition), (long)(intptr_t)yes,
               (long)(intptr_t)no);
}

static void *phi(tw_ir *g, tw_ty ty) {
    void *v = define(g);
    tw_str_add(of(g)->out, "phi ");
    add_ty(of(g)->out, ty);
    tw_str_add(of(g)->out, "\n");
    return v;
}

static void phi_from(tw_ir *g, tw_val p, tw_val v, tw_block from) {
    tw_str_add(of(g)->out, "  from b%ld: %%%ld = %%%ld\n", (long)(intptr_t)from, id(p), id(v));
}

tw_status tw_trace(const tw_target *target, tw_emit_fn *emit, const void *arg, tw_str *out) {
    static const tw_ir_ops ops = {
        constant,     binary, unary,   cast,    compare,   select_,  fma_,  load,    store,
        offset,       splat,  extract, shuffle, intrinsic, prefetch, touch, local,   function_begin,
        function_end, block,  current, enter,   jump,      branch,   phi,   phi_from};
    trace t = {.out = out};
    tw_ir g = {&ops, target, &t};
    TW_TRY(emit(&g, arg));
    return tw_str_ok(out);
}
