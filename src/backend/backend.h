/* src/backend: devices: facts, loading machine code, launching, the threads of a CPU.  Knows
 * nothing of caches, templates or tuning. */
#ifndef TW_BACKEND_BACKEND_H
#define TW_BACKEND_BACKEND_H

#include "src/core/config.h"
#include "src/core/kernel_args.h"
#include "src/core/problem.h"
#include "src/core/target.h"

/* ---- facts ---- */

enum { TW_MAX_THREADS = 1 << 12 };

/* device: "cpu", or "cpu:TARGET" to force one (UNSUPPORTED when this CPU cannot run it).
 * threads: at most TW_MAX_THREADS; 0: every CPU this process may run on. */
tw_status tw_cpu_detect(const char *device, int32_t threads, tw_target *out);
/* Whether this CPU can run the target's instructions, and the system lets this process: asking for
 * a matrix unit's is how it is found out. */
bool tw_cpu_can_run(tw_isa isa);
/* Why instructions that this CPU has are not used, for people; NULL: all are. */
const char *tw_cpu_refused(void);
/* As tw_cpu_detect, but also for targets that this CPU cannot run: enough for plan and dump. */
tw_status tw_cpu_describe(const char *device, int32_t threads, tw_target *out);

/* ---- machine code ---- */

typedef struct tw_image tw_image; /* mapped, executable, read-only code [shared] */

/* Links the object by itself (no LLVM): the few relocations that generated objects have; others are
 * refused by name.  `object` may be freed on return.
 * Errors: FORMAT (damaged, or not codegen's), MEMORY, UNSUPPORTED (no executable memory). */
tw_status tw_image_load(const void *object, size_t size, tw_image **out);
/* NULL when there is no such function. */
void *tw_image_symbol(const tw_image *image, const char *name);
void tw_image_unload(tw_image *image);

/* ---- threads ---- */

/* The host's hook, or an own pool of `threads`; NULL for one thread.  [shared] */
typedef struct tw_threads tw_threads;
tw_status tw_threads_create(const tw_parallel *hook, int32_t threads, tw_threads **out);
void tw_threads_destroy(tw_threads *threads);
int32_t tw_threads_count(const tw_threads *threads);
/* Starts the pool's threads, once: creating it does not, since a process that only plans, or only
 * multiplies small matrices, needs none.  NULL and a hook have nothing to start.
 * Errors: MEMORY. */
tw_status tw_threads_start(tw_threads *threads);
/* threads NULL or count 1: on the calling thread.  Starts the pool where tw_threads_start has not;
 * what cannot be started then is run on the calling thread. */
void tw_threads_run(tw_threads *threads, void (*task)(void *arg, size_t i), void *arg,
                    size_t count);

/* ---- launch ---- */

/* A loaded kernel and what a launch needs to know of it. */
typedef struct tw_kernel {
    tw_pack_x_fn *pack_x;
    tw_matmul_fn *matmul;
    tw_config config;
    int64_t N, K;
    int64_t xq_stride, xmeta_stride;
} tw_kernel;

/* Rows that one launch packs and multiplies at a time: scratch is bounded by it. */
int64_t tw_launch_chunk(const tw_kernel *kernel, int64_t M);
/* Bytes of scratch for launches of up to M rows. */
size_t tw_launch_scratch(const tw_kernel *kernel, int64_t M);
/* args: x, x_stride, w, bias, y, y_stride, M filled in; scratch: tw_launch_scratch bytes, 64-byte
 * aligned.  Allocates nothing, takes no lock but the parallel-for's. */
void tw_launch(const tw_kernel *kernel, tw_threads *threads, const tw_kernel_args *args,
               void *scratch);

/* Launches of several kernels over the same x as one: x is packed once, and the products of all are
 * shared out together.  The kernels are of one template and of problems that differ in what x does
 * not depend on (N, bias, act, y), so that they pack it alike.
 * args: as tw_launch, `count` of them, with one M.  scratch: the most of their tw_launch_scratch
 * bytes. */
enum { TW_GROUP_MOST = 8 };
void tw_launch_group(const tw_kernel *const *kernels, tw_threads *threads,
                     const tw_kernel_args *args, int32_t count, void *scratch);

/* Of a problem that rounds x (src/core/act.h): bytes for launches of up to M rows; 0 of others. */
size_t tw_launch_rounded_bytes(const tw_problem *problem, int64_t M);
/* tw_launch of the kernel of tw_kernel_problem(problem): args has the problem's own x, whose rows
 * are rounded into `rounded`, so many of them at a time as it holds, before they are multiplied. */
void tw_launch_rounded(const tw_kernel *kernel, tw_threads *threads, const tw_problem *problem,
                       float act_scale, const tw_kernel_args *args, float *rounded, void *scratch);

#endif
