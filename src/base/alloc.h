/* Aligned memory through the host's hook. */
#ifndef TW_BASE_ALLOC_H
#define TW_BASE_ALLOC_H

#include "src/base/base.h"

/* The C library's allocator behind the hook's interface. */
extern const tw_allocator tw_allocator_default;

/* Zeroed memory aligned to 64 bytes (2 MiB and huge-page advice from 1 MiB up), or NULL.
 * size 0 gives a valid pointer. */
void *tw_alloc(const tw_allocator *allocator, size_t size);
/* The same, holding anything: nobody has touched it yet, so that several threads can share the work
 * of making the system find its pages. */
void *tw_alloc_untouched(const tw_allocator *allocator, size_t size);
/* `size` as it was given to either of these; NULL is allowed. */
void tw_free(const tw_allocator *allocator, void *p, size_t size);

#endif
