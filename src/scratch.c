/* Whoever holds a block's flag may look at its memory; whoever holds flag and lock may replace
 * it. */
#include "src/scratch.h"

#include "src/base/status.h"

void tw_scratch_init(tw_scratch *scratch, const tw_allocator *allocator) {
    *scratch = (tw_scratch){.allocator = allocator};
    pthread_mutex_init(&scratch->lock, NULL);
}

void tw_scratch_free(tw_scratch *scratch) {
    tw_scratch_block *next, *block = atomic_load(&scratch->first);
    for (; block; block = next) {
        next = block->next;
        tw_free(scratch->allocator, block->memory, block->size);
        tw_free(scratch->allocator, block, sizeof *block);
    }
    pthread_mutex_destroy(&scratch->lock);
}

static bool hold(tw_scratch_block *block) {
    return !atomic_load_explicit(&block->busy, memory_order_relaxed) &&
           !atomic_exchange_explicit(&block->busy, true, memory_order_acquire);
}

static tw_scratch_block *take_free(tw_scratch *scratch, size_t bytes) {
    tw_scratch_block *block = atomic_load_explicit(&scratch->first, memory_order_acquire);
    for (; block; block = block->next) {
        if (!hold(block)) continue;
        if (block->size >= bytes) return block;
        tw_scratch_give(block);
    }
    return NULL;
}

/* A block that nobody holds and that is too small, to be replaced by a larger one; else a new
 * one. */
static tw_scratch_block *obtain_header(tw_scratch *scratch, size_t bytes) {
    tw_scratch_block *block = atomic_load(&scratch->first);
    for (; block; block = block->next)
        if (block->size < bytes && hold(block)) return block;
    block = tw_alloc(scratch->allocator, sizeof *block);
    if (!block) return NULL;
    atomic_init(&block->busy, true);
    block->next = atomic_load(&scratch->first);
    atomic_store_explicit(&scratch->first, block, memory_order_release);
    return block;
}

/* A held block of at least `bytes` that was not there before; the lock is held.  NULL: MEMORY. */
static tw_scratch_block *obtain(tw_scratch *scratch, size_t bytes) {
    tw_scratch_block *block = obtain_header(scratch, bytes);
    if (block) {
        tw_free(scratch->allocator, block->memory, block->size);
        block->memory = tw_alloc(scratch->allocator, bytes);
        block->size = block->memory ? bytes : 0;
        if (block->memory) return block;
        tw_scratch_give(block);
    }
    tw_fail(TW_MEMORY, "out of memory for %zu bytes of scratch", bytes);
    return NULL;
}

/* More blocks of `bytes` as long as there are fewer than `count`. */
static tw_status grow(tw_scratch *scratch, size_t bytes, int32_t count) {
    int32_t there = 0;
    for (tw_scratch_block *b = atomic_load(&scratch->first); b; b = b->next)
        there += b->size >= bytes;
    for (; there < count; there++) {
        tw_scratch_block *block = obtain(scratch, bytes);
        if (!block) return TW_MEMORY;
        tw_scratch_give(block);
    }
    return TW_OK;
}

tw_status tw_scratch_reserve(tw_scratch *scratch, size_t bytes, int32_t count) {
    pthread_mutex_lock(&scratch->lock);
    /* All as large as the largest: any `count` forwards at once then find theirs, whatever the
     * mix. */
    bytes = bytes > scratch->bytes ? bytes : scratch->bytes;
    count = count > scratch->count ? count : scratch->count;
    tw_status status = bytes ? grow(scratch, bytes, count) : TW_OK;
    if (status == TW_OK) {
        scratch->bytes = bytes;
        scratch->count = count;
    }
    pthread_mutex_unlock(&scratch->lock);
    return status;
}

tw_status tw_scratch_take(tw_scratch *scratch, size_t bytes, tw_scratch_block **out) {
    *out = take_free(scratch, bytes);
    if (*out) return TW_OK;
    pthread_mutex_lock(&scratch->lock);
    bytes = bytes > scratch->bytes ? bytes : scratch->bytes;
    *out = obtain(scratch, bytes);
    pthread_mutex_unlock(&scratch->lock);
    return *out ? TW_OK : TW_MEMORY;
}
