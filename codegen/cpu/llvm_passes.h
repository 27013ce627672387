/* LLVM's code generator for one target, set up once and run over many modules. */
#ifndef TW_CODEGEN_CPU_LLVM_PASSES_H
#define TW_CODEGEN_CPU_LLVM_PASSES_H

#include <llvm-c/TargetMachine.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tw_llvm_passes tw_llvm_passes;

/* Passes that turn a module into a file of this kind; NULL where the target has none.  They use the
 * machine until they are destroyed, and like it serve one compile at a time. */
tw_llvm_passes *tw_llvm_passes_create(LLVMTargetMachineRef machine, LLVMCodeGenFileType file);
void tw_llvm_passes_destroy(tw_llvm_passes *passes);
/* Consumes what the module holds.  The bytes are the passes' own, valid until they run again. */
const char *tw_llvm_passes_run(tw_llvm_passes *passes, LLVMModuleRef module, size_t *size);

#ifdef __cplusplus
}
#endif

#endif
