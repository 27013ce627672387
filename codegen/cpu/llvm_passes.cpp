/* What LLVM's C interface cannot do: keep the passes of a machine and run them again, since setting
 * them up is a tenth of a small kernel's compile, and leave passes out.  That passes may be run
 * again is LLVM's own promise: llc's -compile-twice holds the second output against the first. */
#include "codegen/cpu/llvm_passes.h"

#include <llvm/ADT/STLExtras.h>
#include <llvm/ADT/SmallVector.h>
#include <llvm/ADT/StringRef.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/Pass.h>
#include <llvm/PassInfo.h>
#include <llvm/Support/CBindingWrapping.h>
#include <llvm/Support/ErrorHandling.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>

#include <iterator>

namespace {

/* Passes left out, a third of the time together, by the names that LLVM's -debug-pass=Arguments
 * prints; a name that a version of LLVM does not have means nothing. */
const llvm::StringRef left_out[] = {
    /* cannot improve code that its emitter has put in order; the machine scheduler even hoists
     * broadcasts and spills them */
    "branch-folder", "break-false-deps", "canon-freeze", "codegenprepare", "consthoist",
    "dead-mi-elimination", "early-ifcvt", "early-machinelicm", "early-tailduplication",
    "interleaved-access", "loop-reduce", "lrshrink", "machine-combiner", "machine-cp",
    "machine-cse", "machine-latecleanup", "machine-scheduler", "machine-sink", "machinelicm",
    "opt-phis", "post-RA-sched", "postra-machine-sink", "rename-independent-subregs", "shrink-wrap",
    "stack-coloring", "stack-slot-coloring", "tailduplication", "x86-avoid-SFB",
    "x86-cmov-conversion", "x86-domain-reassignment", "x86-execution-domain-fix",
    "x86-fixup-bw-insts", "x86-fixup-setcc", "x86-optimize-LEAs", "x86-partial-reduction",
    /* serve what kernels do not have: calls, exceptions, wide divisions, atomics, instrumentation,
     * debug information, hardening, x87 */
    "atomic-expand", "callbrprepare", "cfi-instr-inserter", "dwarf-eh-prepare",
    "expand-large-div-rem", "expand-large-fp-convert", "expand-memcmp", "expand-reductions",
    "fentry-insert", "fixup-statepoint-caller-saved", "funclet-layout", "gc-analysis",
    "gc-lowering", "indirectbr-expand", "kcfi", "livedebugvalues", "machine-sanmd", "mergeicmps",
    "partially-inline-libcalls", "patchable-function", "post-inline-ee-instrument",
    "pseudo-probe-inserter", "regallocscoringpass", "removeredundantdebugvalues",
    "replace-with-veclib", "safe-stack", "shadow-stack-gc-lowering", "stack-frame-layout",
    "stack-protector", "stackmap-liveness", "tlshoist", "unreachableblockelim", "x86-cf-opt",
    "x86-codegen", "x86-lvi-load", "x86-lvi-ret", "x86-return-thunks", "x86-seses", "x86-slh",
    "xray-instrumentation"};

class needed_passes : public llvm::legacy::PassManager {
  public:
    void add(llvm::Pass *pass) override {
        const llvm::PassInfo *info = llvm::Pass::lookupPassInfo(pass->getPassID());
        const auto *name =
            info ? llvm::find(left_out, info->getPassArgument()) : std::end(left_out);
        if (name == std::end(left_out)) {
            llvm::legacy::PassManager::add(pass);
            return;
        }
        met[name - left_out] = true;
        delete pass;
    }
    /* A name in the list by which nothing was left out; NULL when each was met. */
    const char *unmet() const {
        for (size_t i = 0; i < std::size(left_out); i++)
            if (!met[i]) return left_out[i].data();
        return nullptr;
    }

  private:
    bool met[std::size(left_out)] = {};
};

} // namespace

struct tw_llvm_passes {
    llvm::SmallVector<char, 0> bytes;
    llvm::raw_svector_ostream out{bytes};
    needed_passes manager;
};

tw_llvm_passes *tw_llvm_passes_create(LLVMTargetMachineRef machine, LLVMCodeGenFileType file) {
    auto *target = reinterpret_cast<llvm::TargetMachine *>(machine);
    auto kind = file == LLVMAssemblyFile ? llvm::CodeGenFileType::AssemblyFile
                                         : llvm::CodeGenFileType::ObjectFile;
    auto *passes = new tw_llvm_passes;
    bool failed = target->addPassesToEmitFile(passes->manager, passes->out, nullptr, kind);
    if (TW_SELF_CHECKS && !failed && passes->manager.unmet())
        llvm::report_fatal_error(llvm::Twine("no such pass: ") + passes->manager.unmet());
    if (!failed) return passes;
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
