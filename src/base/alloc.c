/* Aligned memory through the host's hook, and the hook's default. */
#define _DEFAULT_SOURCE
#include "src/base/alloc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { SMALL_ALIGN = 64, HUGE_ALIGN = 2 << 20, HUGE_FROM = 1 << 20 };

static void *default_alloc(void *user, size_t size, size_t align) {
    (void)user;
    void *p;
    return posix_memalign(&p, align, size) ? NULL : p;
}

static void default_free(void *user, void *p, size_t size) {
    (void)user, (void)size;
    free(p);
}

const tw_allocator tw_allocator_default = {default_alloc, default_free, NULL};

void *tw_alloc_untouched(const tw_allocator *allocator, size_t size) {
    size_t align = size >= HUGE_FROM ? HUGE_ALIGN : SMALL_ALIGN;
    size_t whole = size ? size : 1;
    void *p = allocator->alloc(allocator->user, whole, align);
    if (!p) return NULL;
    /* Streaming weights through 4 KiB pages costs up to a quarter of the bandwidth. */
    if (align == HUGE_ALIGN) madvise(p, whole / HUGE_ALIGN * HUGE_ALIGN, MADV_HUGEPAGE);
    return p;
}

void *tw_alloc(const tw_allocator *allocator, size_t size) {
    void *p = tw_alloc_untouched(allocator, size);
    return p ? memset(p, 0, size ? size : 1) : NULL;
}

void tw_free(const tw_allocator *allocator, void *p, size_t size) {
    if (p) allocator->free(allocator->user, p, size ? size : 1);
}
