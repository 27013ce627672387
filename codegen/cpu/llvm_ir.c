/* The vocabulary over llvm-c: each entry is one idea of LLVM's builder. */
#include "codegen/cpu/llvm_ir.h"

#include <string.h>

static LLVMTypeRef scalar_type(tw_llvm *l, tw_ty_kind kind) {
    switch (kind) {
    case TW_TY_VOID: return LLVMVoidTypeInContext(l->context);
    case TW_TY_I1: return LLVMInt1TypeInContext(l->context);
    case TW_TY_I8: return LLVMInt8TypeInContext(l->context);
    case TW_TY_I16: return LLVMInt16TypeInContext(l->context);
    case TW_TY_I32: return LLVMInt32TypeInContext(l->context);
    case TW_TY_I64: return LLVMInt64TypeInContext(l->context);
    case TW_TY_F16: return LLVMHalfTypeInContext(l->context);
    case TW_TY_BF16: return LLVMBFloatTypeInContext(l->context);
    case TW_TY_F32: return LLVMFloatTypeInContext(l->context);
    case TW_TY_F64: return LLVMDoubleTypeInContext(l->context);
    case TW_TY_PTR: return LLVMPointerTypeInContext(l->context, 0);
    }
    return NULL;
}

static tw_llvm *of(tw_ir *g) { return g->state; }

static LLVMTypeRef type(tw_llvm *l, tw_ty ty) {
    LLVMTypeRef t = scalar_type(l, (tw_ty_kind)ty.kind);
    return ty.lanes ? LLVMVectorType(t, ty.lanes) : t;
}

static LLVMValueRef lane_index(tw_llvm *l, int lane) {
    return LLVMConstInt(LLVMInt32TypeInContext(l->context), (unsigned long long)lane, 0);
}

static void *constant(tw_ir *g, tw_ty ty, const int64_t *bits, int count) {
    tw_llvm *l = of(g);
    int lanes = ty.lanes ? ty.lanes : 1;
    LLVMValueRef values[256];
    LLVMTypeRef element = scalar_type(l, (tw_ty_kind)ty.kind);
    LLVMTypeRef carrier =
        LLVMIntTypeInContext(l->context, (unsigned)tw_ty_bits((tw_ty){ty.kind, 0}));
    for (int i = 0; i < lanes; i++) {
        LLVMValueRef raw = LLVMConstInt(carrier, (unsigned long long)bits[count == 1 ? 0 : i], 0);
        values[i] = LLVMConstBitCast(raw, element);
    }
    return ty.lanes ? LLVMConstVector(values, (unsigned)lanes) : values[0];
}

/* A call of an intrinsic; arguments whose type differs from the declaration's are bitcast, since
 * LLVM versions disagree on the operand types of vpdpbusd and its like. */
static LLVMValueRef call(tw_llvm *l, const char *name, LLVMTypeRef overload, LLVMValueRef *args,
                         int count) {
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    if (!id) {
        l->unknown_intrinsic = name;
        return LLVMGetPoison(overload);
    }
    int overloads = LLVMIntrinsicIsOverloaded(id) ? 1 : 0;
    LLVMTypeRef declared = LLVMIntrinsicGetType(l->context, id, &overload, (size_t)overloads);
    LLVMValueRef function =
        LLVMGetIntrinsicDeclaration(l->module, id, &overload, (size_t)overloads);
    LLVMTypeRef params[8];
    LLVMGetParamTypes(declared, params);
    for (int i = 0; i < count; i++)
        if (LLVMTypeOf(args[i]) != params[i])
            args[i] = LLVMBuildBitCast(l->builder, args[i], params[i], "");
    LLVMValueRef result = LLVMBuildCall2(l->builder, declared, function, args, (unsigned)count, "");
    LLVMTypeRef given = LLVMTypeOf(result);
    if (given != overload && LLVMGetTypeKind(given) != LLVMVoidTypeKind)
        result = LLVMBuildBitCast(l->builder, result, overload, "");
    return result;
}

static void *binary(tw_ir *g, tw_binop op, tw_val a, tw_val b) {
    tw_llvm *l = of(g);
    static const LLVMOpcode opcodes[TW_BINOP_COUNT] = {
        [TW_IR_ADD] = LLVMAdd,   [TW_IR_SUB] = LLVMSub,   [TW_IR_MUL] = LLVMMul,
        [TW_IR_AND] = LLVMAnd,   [TW_IR_OR] = LLVMOr,     [TW_IR_XOR] = LLVMXor,
        [TW_IR_SHL] = LLVMShl,   [TW_IR_LSHR] = LLVMLShr, [TW_IR_ASHR] = LLVMAShr,
        [TW_IR_FADD] = LLVMFAdd, [TW_IR_FSUB] = LLVMFSub, [TW_IR_FMUL] = LLVMFMul,
        [TW_IR_FDIV] = LLVMFDiv};
    static const char *const intrinsics[TW_BINOP_COUNT] = {[TW_IR_SMIN] = "llvm.smin",
                                                           [TW_IR_SMAX] = "llvm.smax",
                                                           [TW_IR_UMIN] = "llvm.umin",
                                                           [TW_IR_UMAX] = "llvm.umax"};
    LLVMValueRef x = a.p, y = b.p;
    if (intrinsics[op]) return call(l, intrinsics[op], type(l, a.ty), (LLVMValueRef[]){x, y}, 2);
    /* The form that minps and maxps implement: the second operand where they do not compare. */
    if (op == TW_IR_FMIN || op == TW_IR_FMAX) {
        LLVMRealPredicate order = op == TW_IR_FMIN ? LLVMRealOLT : LLVMRealOGT;
        return LLVMBuildSelect(l->builder, LLVMBuildFCmp(l->builder, order, x, y, ""), x, y, "");
    }
    return LLVMBuildBinOp(l->builder, opcodes[op], x, y, "");
}

static void *unary(tw_ir *g, tw_unop op, tw_val a) {
    tw_llvm *l = of(g);
    static const char *const intrinsics[TW_UNOP_COUNT] = {
        [TW_IR_FABS] = "llvm.fabs", [TW_IR_ROUNDEVEN] = "llvm.roundeven"};
    LLVMValueRef x = a.p;
    if (intrinsics[op]) return call(l, intrinsics[op], type(l, a.ty), &x, 1);
    return LLVMBuildFNeg(l->builder, x, "");
}

static void *cast(tw_ir *g, tw_castop op, tw_val a, tw_ty to) {
    static const LLVMOpcode opcodes[TW_CAST_COUNT] = {
        [TW_IR_ZEXT] = LLVMZExt,       [TW_IR_SEXT] = LLVMSExt,      [TW_IR_TRUNC] = LLVMTrunc,
        [TW_IR_BITCAST] = LLVMBitCast, [TW_IR_SITOFP] = LLVMSIToFP,  [TW_IR_FPTOSI] = LLVMFPToSI,
        [TW_IR_FPEXT] = LLVMFPExt,     [TW_IR_FPTRUNC] = LLVMFPTrunc};
    return LLVMBuildCast(of(g)->builder, opcodes[op], a.p, type(of(g), to), "");
}

static void *compare(tw_ir *g, tw_cmpop op, tw_val a, tw_val b) {
    static const LLVMIntPredicate ints[] = {LLVMIntEQ,  LLVMIntNE,  LLVMIntSLT,
                                            LLVMIntSGT, LLVMIntULT, LLVMIntUGT};
    if (op == TW_IR_OLT || op == TW_IR_OGT)
        return LLVMBuildFCmp(of(g)->builder, op == TW_IR_OLT ? LLVMRealOLT : LLVMRealOGT, a.p, b.p,
                             "");
    return LLVMBuildICmp(of(g)->builder, ints[op], a.p, b.p, "");
}

static void *select_(tw_ir *g, tw_val condition, tw_val yes, tw_val no) {
    return LLVMBuildSelect(of(g)->builder, condition.p, yes.p, no.p, "");
}

static void *fma_(tw_ir *g, tw_val a, tw_val b, tw_val c) {
    return call(of(g), "llvm.fma", type(of(g), a.ty), (LLVMValueRef[]){a.p, b.p, c.p}, 3);
}

static void *load(tw_ir *g, tw_ty ty, tw_val pointer, int align) {
    LLVMValueRef v = LLVMBuildLoad2(of(g)->builder, type(of(g), ty), pointer.p, "");
    LLVMSetAlignment(v, (unsigned)align);
    return v;
}

static void store(tw_ir *g, tw_val v, tw_val pointer, int align) {
    LLVMSetAlignment(LLVMBuildStore(of(g)->builder, v.p, pointer.p), (unsigned)align);
}

static void *offset(tw_ir *g, tw_val pointer, tw_val bytes) {
    LLVMValueRef index = bytes.p;
    return LLVMBuildGEP2(of(g)->builder, LLVMInt8TypeInContext(of(g)->context), pointer.p, &index,
                         1, "");
}

static void *splat(tw_ir *g, tw_val scalar, int lanes) {
    tw_llvm *l = of(g);
    LLVMTypeRef t = type(l, (tw_ty){scalar.ty.kind, (uint16_t)lanes});
    LLVMValueRef one =
        LLVMBuildInsertElement(l->builder, LLVMGetPoison(t), scalar.p, lane_index(l, 0), "");
    LLVMTypeRef mask = LLVMVectorType(LLVMInt32TypeInContext(l->context), (unsigned)lanes);
    return LLVMBuildShuffleVector(l->builder, one, LLVMGetPoison(t), LLVMConstNull(mask), "");
}

static void *extract(tw_ir *g, tw_val vector, int lane) {
    return LLVMBuildExtractElement(of(g)->builder, vector.p, lane_index(of(g), lane), "");
}

static void *shuffle(tw_ir *g, tw_val a, tw_val b, const int *mask, int lanes) {
    LLVMValueRef indices[256];
    for (int i = 0; i < lanes; i++) indices[i] = lane_index(of(g), mask[i]);
    return LLVMBuildShuffleVector(of(g)->builder, a.p, b.p,
                                  LLVMConstVector(indices, (unsigned)lanes), "");
}

static void *intrinsic(tw_ir *g, const char *name, tw_ty result, const tw_val *args, int count) {
    LLVMValueRef values[8];
    for (int i = 0; i < count; i++) values[i] = args[i].p;
    return call(of(g), name, type(of(g), result), values, count);
}

static void prefetch(tw_ir *g, tw_val pointer, bool write) {
    tw_llvm *l = of(g);
    /* whether to write; what is read into the second level: the first has too few lines on their
     * way to it for a memory's latency (of K-quants 1.5 times as much a second on Zen 4); data */
    LLVMValueRef args[] = {pointer.p, lane_index(l, write), lane_index(l, write ? 3 : 2),
                           lane_index(l, 1)};
    call(l, "llvm.prefetch", scalar_type(l, TW_TY_PTR), args, 4);
}

static void touch(tw_ir *g, tw_val pointer) {
    /* Not one byte: that would be put into a register whose other bytes stay. */
    LLVMTypeRef dword = scalar_type(of(g), TW_TY_I32);
    LLVMValueRef read = LLVMBuildLoad2(of(g)->builder, dword, pointer.p, "");
    LLVMSetAlignment(read, 4);
    LLVMSetVolatile(read, 1);
}

static void *local(tw_ir *g, tw_ty ty) {
    tw_llvm *l = of(g);
    LLVMBasicBlockRef here = LLVMGetInsertBlock(l->builder);
    LLVMBasicBlockRef entry = LLVMGetEntryBasicBlock(l->function);
    LLVMValueRef first = LLVMGetFirstInstruction(entry);
    if (first) LLVMPositionBuilderBefore(l->builder, first);
    /* As an array: a vector would be rounded up to a power of two. */
    LLVMTypeRef element = scalar_type(l, (tw_ty_kind)ty.kind);
    LLVMTypeRef room = ty.lanes ? LLVMArrayType2(element, ty.lanes) : element;
    LLVMValueRef slot = LLVMBuildAlloca(l->builder, room, "");
    int bytes = tw_ty_bits(ty) / 8;
    LLVMSetAlignment(slot, bytes % 64 ? (unsigned)(bytes & -bytes) : 64);
    LLVMPositionBuilderAtEnd(l->builder, here);
    return slot;
}

static tw_block block(tw_ir *g) {
    return LLVMAppendBasicBlockInContext(of(g)->context, of(g)->function, "");
}
static tw_block current(tw_ir *g) { return LLVMGetInsertBlock(of(g)->builder); }
static void enter(tw_ir *g, tw_block b) { LLVMPositionBuilderAtEnd(of(g)->builder, b); }

static void function_begin(tw_ir *g, const char *name, const tw_ty *params, tw_val *values,
                           int count) {
    tw_llvm *l = of(g);
    LLVMTypeRef types[8];
    for (int i = 0; i < count; i++) types[i] = type(l, params[i]);
    LLVMTypeRef signature =
        LLVMFunctionType(LLVMVoidTypeInContext(l->context), types, (unsigned)count, 0);
    l->function = LLVMAddFunction(l->module, name, signature);
    /* nounwind: no .eh_frame, so objects stay .text and .rodata. */
    unsigned kind = LLVMGetEnumAttributeKindForName("nounwind", 8);
    LLVMAddAttributeAtIndex(l->function, LLVMAttributeFunctionIndex,
                            LLVMCreateEnumAttribute(l->context, kind, 0));
    LLVMPositionBuilderAtEnd(l->builder, block(g));
    for (int i = 0; i < count; i++)
        values[i] = (tw_val){LLVMGetParam(l->function, (unsigned)i), params[i]};
}

static void function_end(tw_ir *g) { LLVMBuildRetVoid(of(g)->builder); }
static void jump(tw_ir *g, tw_block b) { LLVMBuildBr(of(g)->builder, b); }

static void branch(tw_ir *g, tw_val condition, tw_block yes, tw_block no) {
    LLVMBuildCondBr(of(g)->builder, condition.p, yes, no);
}

static void *phi(tw_ir *g, tw_ty ty) { return LLVMBuildPhi(of(g)->builder, type(of(g), ty), ""); }

static void phi_from(tw_ir *g, tw_val p, tw_val v, tw_block from) {
    (void)g;
    LLVMValueRef incoming = v.p;
    LLVMBasicBlockRef source = from;
    LLVMAddIncoming(p.p, &incoming, &source, 1);
}

const tw_ir_ops tw_llvm_ops = {
    constant,     binary, unary,   cast,    compare,   select_,  fma_,  load,    store,
    offset,       splat,  extract, shuffle, intrinsic, prefetch, touch, local,   function_begin,
    function_end, block,  current, enter,   jump,      branch,   phi,   phi_from};
