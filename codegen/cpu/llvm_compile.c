/* The LLVM module's one entry: emitter in, object, IR or assembly out.
 * No IR passes and codegen level Less: vectors and loops are explicit, so LLVM has little left to
 * find and 2-4 ms a kernel are enough.  Own context a compile, so compiles run in parallel. */
#include <llvm-c/Analysis.h>
#include <llvm-c/Support.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/llvm_ir.h"
#include "codegen/cpu/module.h"
#include "tw_build.h"

/* These passes cost a third of the time and cannot improve code that is scheduled by its emitter:
 * the machine scheduler even hoists broadcasts and spills them. */
static void start_llvm(void) {
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    static const char *const arguments[] = {"tilewright",
                                            "-disable-lsr",
                                            "-enable-misched=0",
                                            "-disable-cgp",
                                            "-disable-machine-licm",
                                            "-disable-post-ra",
                                            "-x86-machine-combiner=0"};
    LLVMParseCommandLineOptions((int)TW_COUNT(arguments), arguments, "");
}

static LLVMTargetMachineRef machine_for(const tw_isa_info *isa, char *message, size_t size) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_llvm);
    char *triple = LLVMGetDefaultTargetTriple(), *error = NULL;
    LLVMTargetRef found;
    LLVMTargetMachineRef machine = NULL;
    if (LLVMGetTargetFromTriple(triple, &found, &error)) {
        snprintf(message, size, "%s", error);
        LLVMDisposeMessage(error);
    } else {
        machine = LLVMCreateTargetMachine(found, triple, isa->llvm_cpu, isa->llvm_features,
                                          LLVMCodeGenLevelLess, LLVMRelocPIC, LLVMCodeModelSmall);
        if (!machine)
            snprintf(message, size, "no target machine for %s, %s", triple, isa->llvm_cpu);
    }
    LLVMDisposeMessage(triple);
    return machine;
}

/* Copies to the C library's heap: LLVM's buffers may not outlive the module's own allocator. */
static tw_status give(tw_module_result *out, const char *bytes, size_t size) {
    out->bytes = malloc(size ? size : 1);
    if (!out->bytes) return TW_MEMORY;
    memcpy(out->bytes, bytes, size);
    out->size = size;
    return TW_OK;
}

static tw_status print_ir(tw_llvm *l, tw_module_result *out) {
    char *text = LLVMPrintModuleToString(l->module);
    tw_status status = give(out, text, strlen(text));
    LLVMDisposeMessage(text);
    return status;
}

static tw_status generate(tw_llvm *l, LLVMTargetMachineRef machine, tw_code_kind kind,
                          tw_module_result *out) {
    char *error = NULL;
    if (LLVMVerifyModule(l->module, LLVMReturnStatusAction, &error)) {
        snprintf(out->message, sizeof out->message, "%s", error);
        LLVMDisposeMessage(error);
        return TW_COMPILE;
    }
    LLVMDisposeMessage(error);
    if (kind == TW_CODE_IR) return print_ir(l, out);
    LLVMCodeGenFileType file = kind == TW_CODE_ASM ? LLVMAssemblyFile : LLVMObjectFile;
    LLVMMemoryBufferRef buffer;
    if (LLVMTargetMachineEmitToMemoryBuffer(machine, l->module, file, &error, &buffer)) {
        snprintf(out->message, sizeof out->message, "%s", error);
        LLVMDisposeMessage(error);
        return TW_COMPILE;
    }
    tw_status status = give(out, LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer));
    LLVMDisposeMemoryBuffer(buffer);
    return status;
}

static tw_status compile(const tw_target *target, const tw_isa_info *isa, tw_emit_fn *emit,
                         const void *arg, tw_code_kind kind, tw_module_result *out) {
    LLVMTargetMachineRef machine = machine_for(isa, out->message, sizeof out->message);
    if (!machine) return TW_COMPILE;
    tw_llvm l = {.context = LLVMContextCreate()};
    l.module = LLVMModuleCreateWithNameInContext("tilewright", l.context);
    l.builder = LLVMCreateBuilderInContext(l.context);
    /* Before the first instruction: default alignments depend on both. */
    char *triple = LLVMGetTargetMachineTriple(machine);
    LLVMSetTarget(l.module, triple);
    LLVMDisposeMessage(triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
    LLVMSetModuleDataLayout(l.module, layout);
    LLVMDisposeTargetData(layout);

    tw_ir g = {&tw_llvm_ops, target, &l};
    tw_status status = emit(&g, arg);
    LLVMDisposeBuilder(l.builder);
    if (status == TW_OK && l.unknown_intrinsic) {
        snprintf(out->message, sizeof out->message, "this LLVM has no intrinsic %s",
                 l.unknown_intrinsic);
        status = TW_COMPILE;
    }
    if (status == TW_OK) status = generate(&l, machine, kind, out);
    LLVMDisposeModule(l.module);
    LLVMContextDispose(l.context);
    LLVMDisposeTargetMachine(machine);
    return status;
}

__attribute__((visibility("default"))) const tw_module *tw_llvm_module_v1(void);

const tw_module *tw_llvm_module_v1(void) {
    static const tw_module self = {TW_BUILD_VERSION, TW_MODULE_SHAPE, TW_COMPILER, compile};
    return &self;
}
