/* Errors: a code for programs, a thread-local sentence for people. */
#ifndef TW_BASE_STATUS_H
#define TW_BASE_STATUS_H

#include "src/base/base.h"

/* Sets this thread's sentence and returns `status`: return tw_fail(TW_INVALID, "N: %d, ...", n); */
tw_status tw_fail(tw_status status, const char *format, ...) TW_PRINTF(2, 3);

/* Puts "prefix: " in front of this thread's sentence, for context that only the caller knows. */
tw_status tw_fail_within(tw_status status, const char *format, ...) TW_PRINTF(2, 3);

#ifdef __clang_analyzer__
/* Lint sees one file at a time, so it is told here what the contract is: failing gives `status`. */
#define tw_fail(status, ...) ((void)(tw_fail)(status, __VA_ARGS__), (status))
#define tw_fail_within(status, ...) ((void)(tw_fail_within)(status, __VA_ARGS__), (status))
#endif

#endif
