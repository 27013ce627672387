/* The vocabulary as text, a line an operation: what golden tests compare.  Needs no LLVM. */
#ifndef TW_CODEGEN_CPU_TRACE_H
#define TW_CODEGEN_CPU_TRACE_H

#include "codegen/cpu/compile.h"

tw_status tw_trace(const tw_target *target, tw_emit_fn *emit, const void *arg, tw_str *out);

#endif
