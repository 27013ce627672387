/* Execution: one switch over the operations, lanes one after another, in C's own arithmetic. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/kernels/machine.h"

typedef uint64_t lane_values[MACHINE_LANES];

void machine_wrong(machine *m, const char *format, ...) {
    if (m->error[0]) return;
    va_list args;
    va_start(args, format);
    vsnprintf(m->error, sizeof m->error, format, args);
    va_end(args);
}

static int lanes_of(tw_ty ty) { return ty.lanes ? ty.lanes : 1; }
static int bits_of(tw_ty ty) { return tw_ty_bits((tw_ty){ty.kind, 0}); }

static uint64_t cut(uint64_t v, int bits) {
    return bits == 64 ? v : v & (((uint64_t)1 << bits) - 1);
}
static int64_t extended(uint64_t v, int bits) { return (int64_t)(v << (64 - bits)) >> (64 - bits); }

static float as_float(uint64_t bits) {
    uint32_t narrow = (uint32_t)bits;
    float f;
    memcpy(&f, &narrow, sizeof f);
    return f;
}
static uint64_t from_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static double as_double(uint64_t bits) {
    double f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static uint64_t from_double(double f) {
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* ---- memory ---- */

/* What `size` bytes at `at` belong to, all of them; NULL: nothing.  An address is a number until
 * it is known to be one of ours. */
static machine_region *region_at(machine *m, uintptr_t at, size_t size) {
    for (int i = 0; i < m->region_count; i++) {
        machine_region *r = &m->regions[i];
        size_t offset = (size_t)(at - (uintptr_t)r->base);
        if (offset <= r->size && size <= r->size - offset) return r;
    }
    return NULL;
}

static void check_written(machine *m, const machine_region *r, const char *at, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (!r->written[at - r->base + (ptrdiff_t)i] && at[i] == r->fill) {
            machine_wrong(m, "a load of %zu bytes reads what nobody wrote", size);
            return;
        }
}

bool machine_may_access(machine *m, uintptr_t address, size_t size, int64_t align, bool write) {
    const char *what = write ? "store" : "load";
    machine_region *r = region_at(m, address, size);
    const char *at = r ? (const char *)address : NULL;
    if (!r)
        machine_wrong(m, "a %s of %zu bytes lies outside what it may touch", what, size);
    else if (write ? !r->can_write : !r->can_read)
        machine_wrong(m, "a %s where there may be none", what);
    else if (address % (uintptr_t)align)
        machine_wrong(m, "a %s is not aligned to %lld bytes", what, (long long)align);
    else if (r->written && write)
        memset(r->written + (at - r->base), 1, size);
    else if (r->written)
        check_written(m, r, at, size);
    return !m->error[0];
}

static void tell(const machine *m, machine_access access, uintptr_t address) {
    if (m->watch && m->weights) m->watch(m->watch_arg, access, address);
}

static void load(machine *m, const machine_op *op, const uint64_t *pointer, uint64_t *d) {
    uintptr_t address = (uintptr_t)pointer[0] + (uintptr_t)op->skew;
    const char *at = (const char *)address;
    size_t each = (size_t)bits_of(op->ty) / 8, size = each * (size_t)lanes_of(op->ty);
    if (!machine_may_access(m, address, size, op->number, false)) return;
    tell(m, MACHINE_READS, address);
    for (int i = 0; i < lanes_of(op->ty); i++) {
        d[i] = 0;
        memcpy(&d[i], at + (size_t)i * each, each);
    }
}

static void store(machine *m, const machine_op *op, const uint64_t *v, const uint64_t *pointer) {
    char *at = (char *)(uintptr_t)pointer[0];
    size_t each = (size_t)bits_of(op->ty) / 8, size = each * (size_t)lanes_of(op->ty);
    if (!machine_may_access(m, (uintptr_t)at, size, op->number, true)) return;
    tell(m, MACHINE_WRITES, (uintptr_t)at);
    for (int i = 0; i < lanes_of(op->ty); i++) memcpy(at + (size_t)i * each, &v[i], each);
}

/* ---- arithmetic ---- */

static uint64_t float_binary(tw_binop op, float a, float b) {
    switch (op) {
    case TW_IR_FADD: return from_float(a + b);
    case TW_IR_FSUB: return from_float(a - b);
    case TW_IR_FMUL: return from_float(a * b);
    case TW_IR_FDIV: return from_float(a / b);
    /* minps and maxps: the second operand where the two do not compare */
    case TW_IR_FMIN: return from_float(a < b ? a : b);
    case TW_IR_FMAX: return from_float(a > b ? a : b);
    default: return 0;
    }
}

static uint64_t double_binary(machine *m, tw_binop op, double a, double b) {
    if (op == TW_IR_FADD) return from_double(a + b);
    if (op == TW_IR_FMUL) return from_double(a * b);
    machine_wrong(m, "this operation is not known here for f64");
    return 0;
}

static uint64_t int_binary(machine *m, tw_binop op, uint64_t a, uint64_t b, int bits) {
    int64_t sa = extended(a, bits), sb = extended(b, bits);
    if ((op == TW_IR_SHL || op == TW_IR_LSHR || op == TW_IR_ASHR) && b >= (uint64_t)bits) {
        machine_wrong(m, "a shift by %llu of %d bits", (unsigned long long)b, bits);
        return 0;
    }
    switch (op) {
    case TW_IR_ADD: return a + b;
    case TW_IR_SUB: return a - b;
    case TW_IR_MUL: return a * b;
    case TW_IR_AND: return a & b;
    case TW_IR_OR: return a | b;
    case TW_IR_XOR: return a ^ b;
    case TW_IR_SHL: return a << b;
    case TW_IR_LSHR: return a >> b;
    case TW_IR_ASHR: return (uint64_t)(sa >> b);
    case TW_IR_SMIN: return sa < sb ? a : b;
    case TW_IR_SMAX: return sa > sb ? a : b;
    case TW_IR_UMIN: return a < b ? a : b;
    case TW_IR_UMAX: return a > b ? a : b;
    default: return 0;
    }
}

static uint64_t one_binary(machine *m, const machine_op *op, uint64_t a, uint64_t b) {
    tw_binop sub = (tw_binop)op->sub;
    if (op->ty.kind == TW_TY_F32) return float_binary(sub, as_float(a), as_float(b));
    if (op->ty.kind == TW_TY_F64) return double_binary(m, sub, as_double(a), as_double(b));
    return cut(int_binary(m, sub, a, b, bits_of(op->ty)), bits_of(op->ty));
}

static uint64_t one_unary(const machine_op *op, uint64_t a) {
    float f = as_float(a);
    switch ((tw_unop)op->sub) {
    case TW_IR_FNEG: return from_float(-f);
    case TW_IR_FABS: return from_float(fabsf(f));
    case TW_IR_ROUNDEVEN: return from_float(rintf(f));
    case TW_UNOP_COUNT: break;
    }
    return 0;
}

static bool one_compare(const machine_op *op, uint64_t a, uint64_t b) {
    int bits = bits_of(op->from);
    switch ((tw_cmpop)op->sub) {
    case TW_IR_EQ: return a == b;
    case TW_IR_NE: return a != b;
    case TW_IR_SLT: return extended(a, bits) < extended(b, bits);
    case TW_IR_SGT: return extended(a, bits) > extended(b, bits);
    case TW_IR_ULT: return a < b;
    case TW_IR_UGT: return a > b;
    case TW_IR_OLT: return as_float(a) < as_float(b);
    case TW_IR_OGT: return as_float(a) > as_float(b);
    case TW_CMP_COUNT: break;
    }
    return false;
}

static tw_dtype dtype_of(tw_ty ty) {
    return ty.kind == TW_TY_F16 ? TW_F16 : ty.kind == TW_TY_BF16 ? TW_BF16 : TW_F32;
}

static uint64_t one_cast(machine *m, const machine_op *op, uint64_t a) {
    int from = bits_of(op->from), to = bits_of(op->ty);
    float f;
    uint64_t out = 0;
    switch ((tw_castop)op->sub) {
    case TW_IR_ZEXT: return a;
    case TW_IR_SEXT: return cut((uint64_t)extended(a, from), to);
    case TW_IR_TRUNC: return cut(a, to);
    case TW_IR_SITOFP:
        return op->ty.kind == TW_TY_F64 ? from_double((double)extended(a, from))
                                        : from_float((float)extended(a, from));
    case TW_IR_FPTOSI:
        f = as_float(a);
        if (!(fabsf(f) < 0x1p31f))
            machine_wrong(m, "%g does not fit an integer", (double)f);
        else
            out = cut((uint64_t)(int64_t)f, to);
        return out;
    case TW_IR_FPEXT:
        f = tw_float_get(&a, dtype_of(op->from), 0);
        return op->ty.kind == TW_TY_F64 ? from_double((double)f) : from_float(f);
    case TW_IR_FPTRUNC:
        if (op->from.kind == TW_TY_F64) return from_float((float)as_double(a));
        tw_float_set(&out, dtype_of(op->ty), 0, as_float(a));
        return out;
    case TW_IR_BITCAST:
    case TW_CAST_COUNT: break;
    }
    return 0;
}

/* The same bytes as other lanes. */
static void bitcast(tw_ty from, tw_ty to, const uint64_t *a, uint64_t *d) {
    char bytes[MACHINE_LANES * 8] = {0};
    size_t narrow = (size_t)bits_of(from) / 8, wide = (size_t)bits_of(to) / 8;
    for (int i = 0; i < lanes_of(from); i++) memcpy(bytes + (size_t)i * narrow, &a[i], narrow);
    for (int i = 0; i < lanes_of(to); i++) {
        d[i] = 0;
        memcpy(&d[i], bytes + (size_t)i * wide, wide);
    }
}

/* ---- instructions (Intel's manual, volume 2) ---- */

static int64_t saturated(int64_t v) { return v < -32768 ? -32768 : v > 32767 ? 32767 : v; }

/* The instruction takes an i32 lane's four bytes, two words or two bf16 at a time. */
static void dot_bytes(const uint64_t *acc, const uint64_t *u, const uint64_t *s, uint64_t *d,
                      size_t lanes) {
    for (size_t i = 0; i < lanes; i++) {
        int64_t sum = extended(acc[i], 32);
        for (size_t k = 4 * i; k < 4 * i + 4; k++) sum += (int64_t)u[k] * extended(s[k], 8);
        d[i] = cut((uint64_t)sum, 32);
    }
}

static void pair_words(const uint64_t *a, const uint64_t *b, uint64_t *d, size_t lanes) {
    for (size_t i = 0; i < lanes; i++) {
        int64_t even = extended(a[2 * i], 16) * extended(b[2 * i], 16);
        d[i] = cut((uint64_t)(even + extended(a[2 * i + 1], 16) * extended(b[2 * i + 1], 16)), 32);
    }
}

static void dot_words(const uint64_t *acc, const uint64_t *a, const uint64_t *b, uint64_t *d,
                      size_t lanes) {
    pair_words(a, b, d, lanes);
    for (size_t i = 0; i < lanes; i++) d[i] = cut(acc[i] + d[i], 32);
}

static void pair_bytes(const uint64_t *u, const uint64_t *s, uint64_t *d, size_t lanes) {
    for (size_t i = 0; i < lanes; i++) {
        int64_t even = (int64_t)u[2 * i] * extended(s[2 * i], 8);
        d[i] =
            cut((uint64_t)saturated(even + (int64_t)u[2 * i + 1] * extended(s[2 * i + 1], 8)), 16);
    }
}

static void look_up(const uint64_t *table, const uint64_t *index, uint64_t *d, size_t lanes) {
    for (size_t i = 0; i < lanes; i++) d[i] = table[index[i] % lanes];
}

/* vgf2p8affineqb without a constant: bit i of a byte is the parity of what byte 7 - i of its eight
 * bytes' matrix chooses of it. */
static void multiply_bits(const uint64_t *x, const uint64_t *matrix, uint64_t *d, size_t lanes) {
    for (size_t k = 0; k < lanes; k++) {
        d[k] = 0;
        for (size_t i = 0; i < 8; i++) {
            uint64_t chosen = x[k] & matrix[k / 8 * 8 + 7 - i];
            d[k] |= (uint64_t)(__builtin_popcountll(chosen) & 1) << i;
        }
    }
}

/* Instructions of bf16 take subnormal numbers for zero, and give zero for them. */
float machine_flushed(float f) { return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f; }

/* Rounded half to even. */
static uint64_t to_bf16(uint64_t bits) {
    float f = machine_flushed(as_float(bits));
    uint16_t half;
    tw_float_set(&half, TW_BF16, 0, f);
    return half;
}

static void dot_bf16(const uint64_t *acc, const uint64_t *a, const uint64_t *b, uint64_t *d,
                     size_t lanes) {
    for (size_t i = 0; i < lanes; i++) {
        float sum = machine_flushed(as_float(acc[i]));
        for (size_t k = 2; k-- > 0;) { /* the odd product comes first */
            float x = machine_flushed(as_float(a[2 * i + k] << 16));
            sum = machine_flushed(sum + x * machine_flushed(as_float(b[2 * i + k] << 16)));
        }
        d[i] = from_float(sum);
    }
}

/* A row an instruction: name, bits of the operands' lanes, how many operands. */
static const struct {
    const char *name;
    tw_ty_kind kind;
    int operands;
} instructions[] = {
    {"llvm.x86.avx2.pmadd.wd", TW_TY_I16, 2},
    {"llvm.x86.avx512.pmaddw.d.512", TW_TY_I16, 2},
    {"llvm.x86.avx2.pmadd.ub.sw", TW_TY_I8, 2},
    {"llvm.x86.avx512.pmaddubs.w.512", TW_TY_I8, 2},
    {"llvm.x86.avx512.vpdpbusd.256", TW_TY_I8, 3},
    {"llvm.x86.avx512.vpdpbusd.512", TW_TY_I8, 3},
    {"llvm.x86.avx512.vpdpwssd.256", TW_TY_I16, 3},
    {"llvm.x86.avx512.vpdpwssd.512", TW_TY_I16, 3},
    {"llvm.x86.avx512bf16.dpbf16ps.256", TW_TY_BF16, 3},
    {"llvm.x86.avx512bf16.dpbf16ps.512", TW_TY_BF16, 3},
    {"llvm.x86.avx512.permvar.hi.512", TW_TY_I16, 2},
    {"llvm.x86.avx512.permvar.sf.512", TW_TY_I32, 2},
    {"llvm.x86.avx2.permps", TW_TY_I32, 2},
};

static bool instruction(const machine_op *op, lane_values *v, uint64_t *d) {
    size_t at = 0, lanes = op->ty.lanes;
    if (!strcmp(op->name, "llvm.x86.vgf2p8affineqb.512")) {
        multiply_bits(v[op->arg[0]], v[op->arg[1]], d, lanes);
        return true;
    }
    if (!strcmp(op->name, "llvm.x86.avx512bf16.cvtneps2bf16.512")) {
        for (size_t i = 0; i < lanes; i++) d[i] = to_bf16(v[op->arg[0]][i]);
        return true;
    }
    if (!strcmp(op->name,
                "llvm.x86.avx512bf16.cvtne2ps2bf16.512")) { /* the second one comes first */
        for (size_t i = 0; i < lanes; i++)
            d[i] = to_bf16(v[op->arg[i < lanes / 2]][i % (lanes / 2)]);
        return true;
    }
    while (at < TW_COUNT(instructions) && strcmp(instructions[at].name, op->name) != 0) at++;
    if (at == TW_COUNT(instructions) || op->sub != instructions[at].operands) return false;
    /* The last two operands as the lanes that the instruction sees, whatever they are here. */
    lane_values a, b;
    tw_ty ty = {(uint16_t)instructions[at].kind, 0};
    ty.lanes = (uint16_t)(tw_ty_bits(op->from) / tw_ty_bits(ty));
    bitcast(op->from, ty, v[op->arg[op->sub - 2]], a);
    bitcast(op->from, ty, v[op->arg[op->sub - 1]], b);
    if (op->sub == 3 && ty.kind == TW_TY_I8)
        dot_bytes(v[op->arg[0]], a, b, d, lanes);
    else if (op->sub == 3 && ty.kind == TW_TY_I16)
        dot_words(v[op->arg[0]], a, b, d, lanes);
    else if (op->sub == 3)
        dot_bf16(v[op->arg[0]], a, b, d, lanes);
    else if (strstr(op->name, ".perm"))
        look_up(a, b, d, lanes);
    else if (ty.kind == TW_TY_I16)
        pair_words(a, b, d, lanes);
    else
        pair_bytes(a, b, d, lanes);
    return true;
}

/* ---- one operation ---- */

static void shuffle(machine *m, const machine_op *op, const uint64_t *a, const uint64_t *b,
                    uint64_t *d) {
    lane_values copy;
    int64_t width = lanes_of(op->from);
    for (int i = 0; i < op->ty.lanes; i++) {
        int64_t from = m->lanes[op->lanes_at + i];
        if (from < 0 || from >= 2 * width)
            machine_wrong(m, "a shuffle of lane %lld", (long long)from);
        else
            copy[i] = from < width ? a[from] : b[from - width];
    }
    if (!m->error[0]) memcpy(d, copy, (size_t)op->ty.lanes * sizeof *d);
}

static void select_lanes(const machine_op *op, lane_values *v, uint64_t *d) {
    for (int i = 0; i < lanes_of(op->ty); i++) {
        uint64_t condition = v[op->arg[0]][op->from.lanes ? i : 0];
        d[i] = condition ? v[op->arg[1]][i] : v[op->arg[2]][i];
    }
}

static void lanewise(machine *m, const machine_op *op, uint64_t *d) {
    const uint64_t *a = m->values[op->arg[0]], *b = m->values[op->arg[1]],
                   *c = m->values[op->arg[2]];
    for (int i = 0; i < lanes_of(op->ty); i++) {
        if (op->kind == OP_BINARY)
            d[i] = one_binary(m, op, a[i], b[i]);
        else if (op->kind == OP_UNARY)
            d[i] = one_unary(op, a[i]);
        else if (op->kind == OP_CAST)
            d[i] = one_cast(m, op, a[i]);
        else if (op->kind == OP_COMPARE)
            d[i] = one_compare(op, a[i], b[i]);
        else
            d[i] = from_float(fmaf(as_float(a[i]), as_float(b[i]), as_float(c[i])));
    }
}

static void execute(machine *m, const machine_op *op) {
    lane_values *v = m->values;
    uint64_t *d = v[op->dst < 0 ? 0 : op->dst];
    const uint64_t *a = v[op->arg[0]];
    switch ((machine_kind)op->kind) {
    case OP_CONSTANT:
        for (int i = 0; i < lanes_of(op->ty); i++)
            d[i] = cut((uint64_t)m->lanes[op->lanes_at + i], bits_of(op->ty));
        break;
    case OP_SELECT: select_lanes(op, v, d); break;
    case OP_LOAD: load(m, op, a, d); break;
    case OP_STORE: store(m, op, a, v[op->arg[1]]); break;
    case OP_OFFSET: d[0] = a[0] + v[op->arg[1]][0]; break;
    case OP_SPLAT:
        for (int i = op->ty.lanes - 1; i >= 0; i--) d[i] = a[0];
        break;
    case OP_EXTRACT: d[0] = a[op->number]; break;
    case OP_SHUFFLE: shuffle(m, op, a, v[op->arg[1]], d); break;
    case OP_INTRINSIC:
        if (!instruction(op, v, d) && !machine_tiles(m, op))
            machine_wrong(m, "intrinsic %s is not known here", op->name);
        break;
    case OP_LOCAL: d[0] = (uint64_t)(uintptr_t)(m->frame + op->number); break;
    case OP_PREFETCH: tell(m, MACHINE_PREFETCHES, (uintptr_t)a[0]); break;
    case OP_PREFETCH_TO_WRITE: tell(m, MACHINE_PREFETCHES_TO_WRITE, (uintptr_t)a[0]); break;
    case OP_TOUCH:
        if (machine_may_access(m, (uintptr_t)a[0], 4, 4, false))
            tell(m, MACHINE_READS, (uintptr_t)a[0]);
        break;
    case OP_CAST:
        if (op->sub == TW_IR_BITCAST) {
            bitcast(op->from, op->ty, a, d);
            break;
        }
        lanewise(m, op, d);
        break;
    default: lanewise(m, op, d);
    }
}

/* ---- control flow ---- */

/* The phis at the head of a block, all at once: one may be another's source. */
static int32_t enter_block(machine *m, int32_t from, int32_t to) {
    enum { MOST_PHIS = 128 };
    static _Thread_local lane_values taken[MOST_PHIS];
    int32_t first = m->blocks[to - 1], count = 0;
    if (first < 0) {
        machine_wrong(m, "a jump to a block that has no code");
        return 0;
    }
    for (; m->ops[first + count].kind == OP_PHI && count < MOST_PHIS; count++) {
        int64_t at = m->ops[first + count].number;
        while (at >= 0 && m->incoming[at].block != from) at = m->incoming[at].next;
        if (at < 0) {
            machine_wrong(m, "a phi has no value for the block it is entered from");
            return 0;
        }
        memcpy(taken[count], m->values[m->incoming[at].value], sizeof taken[count]);
    }
    for (int32_t i = 0; i < count; i++)
        memcpy(m->values[m->ops[first + i].dst], taken[i], sizeof taken[i]);
    return first + count;
}

static void run(machine *m, const machine_function *f) {
    int32_t at = f->first_op, block = 1;
    /* The entry block's number: the one that starts where the function does. */
    while (m->blocks[block - 1] != f->first_op) block++;
    m->steps = 0;
    while (!m->error[0]) {
        machine_op *op = &m->ops[at];
        op->runs++;
        if (m->steps++ > m->most_steps) machine_wrong(m, "it does not end");
        if (op->kind == OP_RETURN) return;
        if (op->kind != OP_JUMP && op->kind != OP_BRANCH) {
            execute(m, op);
            at++;
            continue;
        }
        bool yes = op->kind == OP_JUMP || m->values[op->arg[0]][0];
        int32_t to = yes ? op->arg[1] : op->arg[2];
        at = enter_block(m, block, to);
        block = to;
    }
}

static void call(machine *m, int which, const tw_kernel_args *args, const int64_t *numbers,
                 int count) {
    if (m->error[0]) return;
    const machine_function *f = &m->functions[which];
    int regions = m->region_count;
    char fresh = 0x5a;
    machine_allow(m, args, sizeof *args, true, false, NULL);
    memset(m->frame, fresh, m->frame_size);
    machine_allow(m, m->frame, m->frame_size, true, true, &fresh);
    m->values[f->params[0]][0] = (uint64_t)(uintptr_t)args;
    for (int i = 0; i < count; i++) m->values[f->params[i + 1]][0] = (uint64_t)numbers[i];
    machine_tiles_begin(m);
    run(m, f);
    machine_tiles_end(m);
    while (m->region_count > regions) free(m->regions[--m->region_count].written);
}

void machine_pack_x(machine *m, const tw_kernel_args *args, int64_t m0, int64_t m1) {
    call(m, 0, args, (int64_t[]){m0, m1}, 2);
}

void machine_matmul(machine *m, const tw_kernel_args *args, int64_t m0, int64_t m1, int64_t n0,
                    int64_t n1) {
    m->weights = args->w;
    call(m, 1, args, (int64_t[]){m0, m1, n0, n1}, 4);
    m->weights = NULL;
}
