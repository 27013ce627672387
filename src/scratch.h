/* Memory for running forwards: blocks that are taken and given back by one atomic flag each.
 * Blocks are never unlinked, so taking one needs no lock; what was reserved is never allocated
 * again. */
#ifndef TW_SRC_SCRATCH_H
#define TW_SRC_SCRATCH_H

#include <pthread.h>
#include <stdatomic.h>

#include "src/base/alloc.h"

typedef struct tw_scratch_block {
    struct tw_scratch_block *next;
    atomic_bool busy;
    void *memory; /* with size: its holder's alone */
    size_t size;
} tw_scratch_block;

typedef struct tw_scratch {
    const tw_allocator *allocator;
    _Atomic(tw_scratch_block *) first;
    pthread_mutex_t lock; /* held to grow */
    size_t bytes;         /* the most that was reserved, */
    int32_t count;        /* and for how many at once */
} tw_scratch;

void tw_scratch_init(tw_scratch *scratch, const tw_allocator *allocator);
void tw_scratch_free(tw_scratch *scratch);

/* From now on `count` holders at once find a block of `bytes` each, whatever others reserved. */
tw_status tw_scratch_reserve(tw_scratch *scratch, size_t bytes, int32_t count);
/* A block of at least `bytes`. No lock and no allocation while no more blocks are held than
 * reserved.
 * Errors: MEMORY. */
tw_status tw_scratch_take(tw_scratch *scratch, size_t bytes, tw_scratch_block **out);

static inline void tw_scratch_give(tw_scratch_block *block) {
    atomic_store_explicit(&block->busy, false, memory_order_release);
}

#endif
