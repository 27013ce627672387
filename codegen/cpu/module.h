/* What libtilewright and its LLVM module agree on.  The module is opened by dlopen and exports one
 * symbol. */
#ifndef TW_CODEGEN_CPU_MODULE_H
#define TW_CODEGEN_CPU_MODULE_H

#include "codegen/cpu/compile.h"

/* Two builds fit when the vocabulary has the same shape. */
#define TW_MODULE_SHAPE                                                                            \
    ((uint64_t)sizeof(tw_ir_ops) << 32 | (uint64_t)TW_BINOP_COUNT << 24 | TW_CAST_COUNT << 16 |    \
     TW_CMP_COUNT << 8 | TW_UNOP_COUNT << 4 | TW_TY_PTR)

/* The module's failures come back as text: the sentence of a thread belongs to libtilewright. */
typedef struct tw_module_result {
    char *bytes; /* malloc'ed; the caller frees it */
    size_t size;
    char message[512];
} tw_module_result;

typedef struct tw_module {
    const char *version; /* of the library it was built with */
    uint64_t shape;      /* TW_MODULE_SHAPE as the module saw it */
    const char *compiler;
    tw_status (*compile)(const tw_target *target, const tw_isa_info *isa, tw_emit_fn *emit,
                         const void *arg, tw_code_kind kind, tw_module_result *out);
} tw_module;

#define TW_MODULE_SYMBOL "tw_llvm_module_v1"
typedef const tw_module *tw_module_fn(void);

#endif
