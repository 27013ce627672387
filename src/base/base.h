/* src/base: what every layer may use: errors, log, options, memory, strings, hashes, clock, dlopen.
 * Nothing here knows what a kernel is. */
#ifndef TW_BASE_BASE_H
#define TW_BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tilewright/tilewright.h"

#define TW_PRINTF(format_arg, first_arg) __attribute__((format(printf, format_arg, first_arg)))
#define TW_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Returns from the calling function when `call` fails; the sentence is already set. */
#define TW_TRY(call)                                                                               \
    do {                                                                                           \
        tw_status try_status_ = (call);                                                            \
        if (try_status_ != TW_OK) return try_status_;                                              \
    } while (0)

static inline int64_t tw_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t tw_max(int64_t a, int64_t b) { return a > b ? a : b; }
/* a >= 0, b > 0 */
static inline int64_t tw_ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }
static inline int64_t tw_round_up(int64_t a, int64_t b) { return tw_ceil_div(a, b) * b; }

#endif
