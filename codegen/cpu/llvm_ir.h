/* One kernel under construction in LLVM.  llvm-c appears in the llvm_* files of this folder alone.
 */
#ifndef TW_CODEGEN_CPU_LLVM_IR_H
#define TW_CODEGEN_CPU_LLVM_IR_H

#include <llvm-c/Core.h>

#include "codegen/cpu/ir.h"

typedef struct tw_llvm {
    LLVMContextRef context;
    LLVMModuleRef module;
    LLVMBuilderRef builder;
    LLVMValueRef function;
    const char *unknown_intrinsic; /* asked for, but this LLVM has none of the name */
} tw_llvm;

extern const tw_ir_ops tw_llvm_ops;

#endif
