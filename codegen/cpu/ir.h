/* codegen/cpu: a thin vocabulary over LLVM's IR builder, and what turns it into machine code.
 *
 * Templates write kernels with the functions below; C's own loops and ifs are the template
 * language. The functions go through a table (tw_ir_ops), so templates link without LLVM: the LLVM
 * module implements the table, and so does the trace that golden tests compare. */
#ifndef TW_CODEGEN_CPU_IR_H
#define TW_CODEGEN_CPU_IR_H

#include "src/base/base.h"
#include "src/core/target.h"

typedef enum tw_ty_kind {
    TW_TY_VOID,
    TW_TY_I1,
    TW_TY_I8,
    TW_TY_I16,
    TW_TY_I32,
    TW_TY_I64,
    TW_TY_F16,
    TW_TY_BF16,
    TW_TY_F32,
    TW_TY_F64,
    TW_TY_PTR
} tw_ty_kind;

/* lanes 0: a scalar. */
typedef struct tw_ty {
    uint16_t kind, lanes;
} tw_ty;

/* One SSA value; `p` belongs to the implementation of the table. */
typedef struct tw_val {
    void *p;
    tw_ty ty;
} tw_val;

typedef void *tw_block;

/* name in code, name in traces and LLVM */
#define TW_BINOPS(X)                                                                               \
    X(ADD, add)                                                                                    \
    X(SUB, sub)                                                                                    \
    X(MUL, mul)                                                                                    \
    X(AND, and)                                                                                    \
    X(OR, or)                                                                                      \
    X(XOR, xor)                                                                                    \
    X(SHL, shl)                                                                                    \
    X(LSHR, lshr)                                                                                  \
    X(ASHR, ashr)                                                                                  \
    X(SMIN, smin)                                                                                  \
    X(SMAX, smax)                                                                                  \
    X(UMIN, umin)                                                                                  \
    X(UMAX, umax)                                                                                  \
    X(FADD, fadd)                                                                                  \
    X(FSUB, fsub)                                                                                  \
    X(FMUL, fmul)                                                                                  \
    X(FDIV, fdiv)                                                                                  \
    X(FMIN, minnum)                                                                                \
    X(FMAX, maxnum)
#define TW_UNOPS(X)                                                                                \
    X(FNEG, fneg)                                                                                  \
    X(FABS, fabs)                                                                                  \
    X(ROUNDEVEN, roundeven)
#define TW_CASTS(X)                                                                                \
    X(ZEXT, zext)                                                                                  \
    X(SEXT, sext)                                                                                  \
    X(TRUNC, trunc)                                                                                \
    X(BITCAST, bitcast)                                                                            \
    X(SITOFP, sitofp)                                                                              \
    X(FPTOSI, fptosi)                                                                              \
    X(FPEXT, fpext)                                                                                \
    X(FPTRUNC, fptrunc)
#define TW_CMPS(X)                                                                                 \
    X(EQ, eq)                                                                                      \
    X(NE, ne)                                                                                      \
    X(SLT, slt)                                                                                    \
    X(SGT, sgt)                                                                                    \
    X(ULT, ult)                                                                                    \
    X(UGT, ugt)                                                                                    \
    X(OLT, olt)                                                                                    \
    X(OGT, ogt)

#define TW_ROW(name, text) TW_IR_##name,
typedef enum tw_binop { TW_BINOPS(TW_ROW) TW_BINOP_COUNT } tw_binop;
typedef enum tw_unop { TW_UNOPS(TW_ROW) TW_UNOP_COUNT } tw_unop;
typedef enum tw_castop { TW_CASTS(TW_ROW) TW_CAST_COUNT } tw_castop;
typedef enum tw_cmpop { TW_CMPS(TW_ROW) TW_CMP_COUNT } tw_cmpop;
#undef TW_ROW

typedef struct tw_ir tw_ir;

typedef struct tw_ir_ops {
    /* bits: the element's bit pattern; count 1 splats it, else one per lane */
    void *(*constant)(tw_ir *, tw_ty, const int64_t *bits, int count);
    void *(*binary)(tw_ir *, tw_binop, tw_val, tw_val);
    void *(*unary)(tw_ir *, tw_unop, tw_val);
    void *(*cast)(tw_ir *, tw_castop, tw_val, tw_ty);
    void *(*compare)(tw_ir *, tw_cmpop, tw_val, tw_val);
    void *(*select)(tw_ir *, tw_val condition, tw_val yes, tw_val no);
    void *(*fma)(tw_ir *, tw_val a, tw_val b, tw_val c);
    void *(*load)(tw_ir *, tw_ty, tw_val pointer, int align);
    void (*store)(tw_ir *, tw_val value, tw_val pointer, int align);
    void *(*offset)(tw_ir *, tw_val pointer, tw_val bytes);
    void *(*splat)(tw_ir *, tw_val scalar, int lanes);
    void *(*extract)(tw_ir *, tw_val vector, int lane);
    void *(*shuffle)(tw_ir *, tw_val a, tw_val b, const int *mask, int lanes);
    void *(*intrinsic)(tw_ir *, const char *name, tw_ty result, const tw_val *args, int count);
    void (*prefetch)(tw_ir *, tw_val pointer, bool write);
    void (*touch)(tw_ir *, tw_val pointer);
    void *(*local)(tw_ir *, tw_ty); /* a stack slot */
    void (*function_begin)(tw_ir *, const char *name, const tw_ty *params, tw_val *values,
                           int count);
    void (*function_end)(tw_ir *);
    tw_block (*block)(tw_ir *);
    tw_block (*current)(tw_ir *);
    void (*enter)(tw_ir *, tw_block);
    void (*jump)(tw_ir *, tw_block);
    void (*branch)(tw_ir *, tw_val condition, tw_block yes, tw_block no);
    void *(*phi)(tw_ir *, tw_ty);
    void (*phi_from)(tw_ir *, tw_val phi, tw_val value, tw_block from);
} tw_ir_ops;

struct tw_ir {
    const tw_ir_ops *ops;
    const tw_target *target;
    void *state;
};

/* ---- types ---- */
static inline tw_ty tw_ty_of(tw_ty_kind kind, int lanes) {
    return (tw_ty){(uint16_t)kind, (uint16_t)lanes};
}
static inline tw_ty tw_i8(int lanes) { return tw_ty_of(TW_TY_I8, lanes); }
static inline tw_ty tw_i16(int lanes) { return tw_ty_of(TW_TY_I16, lanes); }
static inline tw_ty tw_i32(int lanes) { return tw_ty_of(TW_TY_I32, lanes); }
static inline tw_ty tw_i64(void) { return tw_ty_of(TW_TY_I64, 0); }
static inline tw_ty tw_f32(int lanes) { return tw_ty_of(TW_TY_F32, lanes); }
static inline tw_ty tw_f64(int lanes) { return tw_ty_of(TW_TY_F64, lanes); }
static inline tw_ty tw_ptr(void) { return tw_ty_of(TW_TY_PTR, 0); }
static inline int tw_ty_bits(tw_ty ty) {
    static const uint8_t bits[] = {0, 1, 8, 16, 32, 64, 16, 16, 32, 64, 64};
    return bits[ty.kind] * (ty.lanes ? ty.lanes : 1);
}

/* ---- values; every function checks its operand types by assert() ---- */
tw_val tw_const_int(tw_ir *g, tw_ty ty, int64_t value);
tw_val tw_const_f32(tw_ir *g, int lanes, float value);
tw_val tw_const_lanes(tw_ir *g, tw_ty ty, const int64_t *bits);
static inline tw_val tw_k64(tw_ir *g, int64_t value) { return tw_const_int(g, tw_i64(), value); }

tw_val tw_binary(tw_ir *g, tw_binop op, tw_val a, tw_val b);
tw_val tw_unary(tw_ir *g, tw_unop op, tw_val a);
tw_val tw_cast(tw_ir *g, tw_castop op, tw_val a, tw_ty to);
tw_val tw_compare(tw_ir *g, tw_cmpop op, tw_val a, tw_val b);
tw_val tw_select(tw_ir *g, tw_val condition, tw_val yes, tw_val no);
/* One rounding where the target has FMA; on portable targets a multiply, then an add. */
tw_val tw_fma(tw_ir *g, tw_val a, tw_val b, tw_val c);
tw_val tw_load(tw_ir *g, tw_ty ty, tw_val pointer, int align);
void tw_store(tw_ir *g, tw_val value, tw_val pointer, int align);
tw_val tw_offset(tw_ir *g, tw_val pointer, tw_val bytes);
tw_val tw_at(tw_ir *g, tw_val pointer, int64_t bytes);
tw_val tw_splat(tw_ir *g, tw_val scalar, int lanes);
tw_val tw_extract(tw_ir *g, tw_val vector, int lane);
tw_val tw_shuffle(tw_ir *g, tw_val a, tw_val b, const int *mask, int lanes);
tw_val tw_intrinsic(tw_ir *g, const char *name, tw_ty result, const tw_val *args, int count);
void tw_prefetch(tw_ir *g, tw_val pointer);
/* Of a line that is going to be stored to. */
void tw_prefetch_to_write(tw_ir *g, tw_val pointer);
/* Reads the four bytes there, for what the processor learns from that. */
void tw_touch(tw_ir *g, tw_val pointer);
tw_val tw_local(tw_ir *g, tw_ty ty);

#define TW_BIN(fn, OP)                                                                             \
    static inline tw_val fn(tw_ir *g, tw_val a, tw_val b) { return tw_binary(g, TW_IR_##OP, a, b); }
TW_BIN(tw_add, ADD)
TW_BIN(tw_sub, SUB)
TW_BIN(tw_mul, MUL)
TW_BIN(tw_and, AND)
TW_BIN(tw_or, OR)
TW_BIN(tw_fadd, FADD)
TW_BIN(tw_fsub, FSUB)
TW_BIN(tw_fmul, FMUL)
#undef TW_BIN
/* Shifts by a constant. */
tw_val tw_shl(tw_ir *g, tw_val a, int bits);
tw_val tw_lshr(tw_ir *g, tw_val a, int bits);
tw_val tw_ashr(tw_ir *g, tw_val a, int bits);
static inline tw_val tw_bitcast(tw_ir *g, tw_val a, tw_ty to) {
    return tw_cast(g, TW_IR_BITCAST, a, to);
}

/* ---- functions, loops, ifs ---- */
void tw_function_begin(tw_ir *g, const char *name, const tw_ty *params, tw_val *values, int count);
void tw_function_end(tw_ir *g);

enum { TW_MAX_CARRIED = 96 };
/* for (i = lo; i < hi; i += step) with values carried from one round to the next. */
typedef struct tw_loop {
    tw_val i; /* the counter, inside the body */
    tw_val
        carried[TW_MAX_CARRIED]; /* inside: this round's values; after tw_loop_end: the last ones */
    int count;
    bool runs; /* at least one round is certain: tested at the end only */
    tw_val step, hi;
    tw_block head, body, exit, before;
} tw_loop;

/* tw_loop_begin tests before each round; tw_loop_begin_nonempty only after it (the caller knows lo
 * < hi). */
void tw_loop_begin(tw_ir *g, tw_loop *loop, tw_val lo, tw_val hi, int64_t step,
                   const tw_val *carried, int count);
void tw_loop_begin_nonempty(tw_ir *g, tw_loop *loop, tw_val lo, tw_val hi, int64_t step,
                            const tw_val *carried, int count);
/* next: the values that the following round starts with. */
void tw_loop_end(tw_ir *g, tw_loop *loop, const tw_val *next);

/* Starts a new basic block.  Instruction selection looks at one block at a time and at what it
 * could know of long chains of sums in it, which costs more than everything else together: cut
 * between steps. */
void tw_cut(tw_ir *g);

typedef struct tw_if {
    tw_block yes, otherwise, end; /* yes: where that side ends */
} tw_if;
void tw_if_begin(tw_ir *g, tw_if *branch, tw_val condition);
void tw_if_else(tw_ir *g, tw_if *branch);
void tw_if_end(tw_ir *g, tw_if *branch);
/* The end of one with an else: values, as computed there, become `yes` where the condition held. */
void tw_if_merge(tw_ir *g, tw_if *branch, const tw_val *yes, tw_val *values, int count);

#endif
