/* The one part that LLVM's C interface cannot do: it builds the passes anew for each module, which
 * is a tenth of a small kernel's compile.  That passes may be run again is LLVM's own promise:
 * llc's -compile-twice holds the second output against the first. */
#include "codegen/cpu/llvm_passes.h"

#include <llvm/ADT/SmallVector.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/Support/CBindingWrapping.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>

struct tw_llvm_passes {
    llvm::SmallVector<char, 0> bytes;
    llvm::raw_svector_ostream out{bytes};
    llvm::legacy::PassManager manager;
};

tw_llvm_passes *tw_llvm_passes_create(LLVMTargetMachineRef machine, LLVMCodeGenFileType file) {
    auto *target = reinterpret_cast<llvm::TargetMachine *>(machine);
    auto kind = file == LLVMAssemblyFile ? llvm::CodeGenFileType::AssemblyFile
                                         : llvm::CodeGenFileType::ObjectFile;
    auto *passes = new tw_llvm_passes;
    if (!target->addPassesToEmitFile(passes->manager, passes->out, nullptr, kind)) return passes;
    delete passes;
    return nullptr;
}

void tw_llvm_passes_destroy(tw_llvm_passes *passes) { delete passes; }

const char *tw_llvm_passes_run(tw_llvm_passes *passes, LLVMModuleRef module, size_t *size) {
    passes->bytes.clear();
    passes->manager.run(*llvm::unwrap(module));
    *size = passes->bytes.size();
    return passes->bytes.data();
}
