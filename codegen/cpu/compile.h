/* From an emitter to bytes: object, IR or assembly, by the LLVM module, which is opened on first
 * use; or the trace of the vocabulary, which needs no LLVM. */
#ifndef TW_CODEGEN_CPU_COMPILE_H
#define TW_CODEGEN_CPU_COMPILE_H

#include "codegen/cpu/ir.h"
#include "src/base/log.h"
#include "src/base/str.h"

/* Writes functions with the vocabulary; returns a failure with its sentence set, or TW_OK. */
typedef tw_status tw_emit_fn(tw_ir *g, const void *arg);

typedef enum tw_code_kind { TW_CODE_OBJECT, TW_CODE_IR, TW_CODE_ASM, TW_CODE_TRACE } tw_code_kind;

/* banner: comment that opens textual output (key, kernel, config, how to regenerate).
 * Deterministic: same arguments, same bytes.  Thread rule: any thread, compiles run in parallel.
 * Errors: COMPILE, UNSUPPORTED when the LLVM module is not there. */
tw_status tw_cpu_compile(const tw_target *target, tw_emit_fn *emit, const void *arg,
                         const char *banner, tw_code_kind kind, tw_str *out);

/* "llvm 19.1.7", part of binary keys: known without opening LLVM. */
const char *tw_cpu_compiler(void);
/* Whether this process has opened LLVM, and whether it could. */
bool tw_cpu_compiler_opened(void);
tw_status tw_cpu_compiler_open(void);

#endif
