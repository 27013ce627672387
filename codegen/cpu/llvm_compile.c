/* The LLVM module's one entry: emitter in, object, IR or assembly out.
 * No IR passes and codegen level Less: vectors and loops are explicit, so LLVM has little left to
 * find and 2-4 ms a kernel are enough.  Own context a compile, so compiles run in parallel. */
#include <llvm-c/Analysis.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cpu/llvm_ir.h"
#include "codegen/cpu/llvm_passes.h"
#include "codegen/cpu/module.h"
#include "tw_build.h"

static void start_llvm(void) {
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
}

/* Machines between two compiles, with all that LLVM worked out of a target's features and the
 * passes to run for it: a fifth of a small kernel's compile.  A machine serves one compile at a
 * time; there are never more of a target than were in use at once, and they stay until the process
 * ends, as the module does. */
typedef struct machine {
    struct machine *next;
    const tw_isa_info *isa;
    LLVMTargetMachineRef machine;
    tw_llvm_passes *assembly, *object; /* made when first asked for */
} machine;

static struct {
    pthread_mutex_t lock;
    machine *first;
} idle = {.lock = PTHREAD_MUTEX_INITIALIZER};

static machine *create_machine(const tw_isa_info *isa, char *message, size_t size) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_llvm);
    char *triple = LLVMGetDefaultTargetTriple(), *error = NULL;
    LLVMTargetRef found;
    machine *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(message, size, "out of memory");
    } else if (LLVMGetTargetFromTriple(triple, &found, &error)) {
        snprintf(message, size, "%s", error);
        LLVMDisposeMessage(error);
    } else {
        m->isa = isa;
        m->machine =
            LLVMCreateTargetMachine(found, triple, isa->llvm_cpu, isa->llvm_features,
                                    LLVMCodeGenLevelLess, LLVMRelocPIC, LLVMCodeModelSmall);
        if (!m->machine)
            snprintf(message, size, "no target machine for %s, %s", triple, isa->llvm_cpu);
    }
    LLVMDisposeMessage(triple);
    if (m && m->machine) return m;
    free(m);
    return NULL;
}

static machine *take_machine(const tw_isa_info *isa, char *message, size_t size) {
    pthread_mutex_lock(&idle.lock);
    machine **at = &idle.first;
    while (*at && (*at)->isa != isa) at = &(*at)->next;
    machine *m = *at;
    if (m) *at = m->next;
    pthread_mutex_unlock(&idle.lock);
    return m ? m : create_machine(isa, message, size);
}

static void give_machine(machine *m) {
    pthread_mutex_lock(&idle.lock);
    m->next = idle.first;
    idle.first = m;
    pthread_mutex_unlock(&idle.lock);
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

static tw_status generate(tw_llvm *l, machine *m, tw_code_kind kind, tw_module_result *out) {
    char *error = NULL;
    /* What people look at, and in sanitizer builds all: it is 2 % of a compile. */
    if ((TW_SELF_CHECKS || kind != TW_CODE_OBJECT) &&
        LLVMVerifyModule(l->module, LLVMReturnStatusAction, &error)) {
        snprintf(out->message, sizeof out->message, "%s", error);
        LLVMDisposeMessage(error);
        return TW_COMPILE;
    }
    LLVMDisposeMessage(error);
    if (kind == TW_CODE_IR) return print_ir(l, out);
    tw_llvm_passes **passes = kind == TW_CODE_ASM ? &m->assembly : &m->object;
    if (!*passes)
        *passes = tw_llvm_passes_create(m->machine,
                                        kind == TW_CODE_ASM ? LLVMAssemblyFile : LLVMObjectFile);
    if (!*passes) {
        snprintf(out->message, sizeof out->message, "%s has no passes to a file", m->isa->llvm_cpu);
        return TW_COMPILE;
    }
    size_t size;
    const char *bytes = tw_llvm_passes_run(*passes, l->module, &size);
    return give(out, bytes, size);
}

static tw_status compile(const tw_target *target, const tw_isa_info *isa, tw_emit_fn *emit,
                         const void *arg, tw_code_kind kind, tw_module_result *out) {
    machine *m = take_machine(isa, out->message, sizeof out->message);
    if (!m) return TW_COMPILE;
    tw_llvm l = {.context = LLVMContextCreate()};
    l.module = LLVMModuleCreateWithNameInContext("tilewright", l.context);
    l.builder = LLVMCreateBuilderInContext(l.context);
    /* Before the first instruction: default alignments depend on both. */
    char *triple = LLVMGetTargetMachineTriple(m->machine);
    LLVMSetTarget(l.module, triple);
    LLVMDisposeMessage(triple);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(m->machine);
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
    if (status == TW_OK) status = generate(&l, m, kind, out);
    LLVMDisposeModule(l.module);
    LLVMContextDispose(l.context);
    give_machine(m);
    return status;
}

__attribute__((visibility("default"))) const tw_module *tw_llvm_module_v1(void);

const tw_module *tw_llvm_module_v1(void) {
    static const tw_module self = {TW_BUILD_VERSION, TW_MODULE_SHAPE, TW_COMPILER, compile};
    return &self;
}
