/* Memory between two pages that nobody may touch: an access one byte outside ends the process. */
#ifndef TW_TESTS_KERNELS_GUARD_H
#define TW_TESTS_KERNELS_GUARD_H

#include <stdbool.h>
#include <stddef.h>

typedef struct guard {
    char *data; /* `size` bytes */
    size_t size;
    char *map; /* the pages, the two forbidden ones included */
    size_t map_size;
} guard;

/* at_end: data ends at the page after it, as far as `align` lets it; else it starts after the page
 * before it.  Filled with `fill`. */
guard guard_new(size_t size, size_t align, bool at_end, int fill);
/* From here on a write ends the process as well. */
void guard_read_only(guard *g);
void guard_free(guard *g);

#endif
