/* What this machine can do at most, right now: a share of a limit says more than an absolute
 * figure, and limits drift (frequency, neighbours), so they are measured where they are used, by
 * generated probes. */
#ifndef TW_AUTOTUNE_LIMITS_H
#define TW_AUTOTUNE_LIMITS_H

#include "src/backend/backend.h"
#include "src/core/problem.h"
#include "src/core/target.h"

/* The probes of one target, each compiled when it is first needed.  [owned] */
typedef struct tw_limits tw_limits;

/* threads as the kernels to be compared use them; both must outlive the limits.
 * Errors: UNSUPPORTED (a target that this CPU cannot run), MEMORY. */
tw_status tw_limits_create(const tw_target *target, tw_threads *threads, tw_limits **out);
/* NULL is allowed. */
void tw_limits_destroy(tw_limits *limits);

/* The best rate of the problem's class of operation, 10^9 operations (a product and an addition are
 * two) a second over all threads, from register-only loops:
 *   activations quantized   vpdpbusd; on MADDUBS targets pmaddubsw, pmaddwd and paddd, with as
 *                           many pmaddubsw results summed in i16 as cannot overflow for the
 *                           weights' bits (16 up to 3 bits, 8 for 4, 4 for 5, 2 for 6);
 *                           elsewhere i16 multiply and add
 *   x=bf16                  bf16 dot or f32 FMA, the faster
 *   else                    f32 FMA
 * About 5 ms.  Errors: UNSUPPORTED (no LLVM module), COMPILE. */
tw_status tw_limits_gops(tw_limits *limits, const tw_problem *problem, double *gops);
/* "vpdpbusd", ...: the instructions behind it. */
const char *tw_limits_class(const tw_limits *limits, const tw_problem *problem);

/* The rate at which the threads together read `copies` pieces of `bytes` one after another, 10^9
 * bytes a second: the best of plain loads and several prefetch distances and numbers of streams,
 * each in its median.  copies 1 is hot.  The pieces, one after the other from a multiple of 64
 * bytes, are those that the kernel reads, since the place in memory alone makes a tenth; NULL: any
 * memory.  Errors: MEMORY, UNSUPPORTED, COMPILE. */
tw_status tw_limits_gbps(tw_limits *limits, const void *pieces, size_t bytes, int64_t copies,
                         double *gbps);

/* The shortest time that the limits allow, in ns: of operations and of weight bytes, whichever is
 * longer. */
double tw_limits_floor_ns(const tw_problem *problem, double gops, double gbps);

#endif
