/* Memory of layers, on huge pages also where one layer is smaller than such a page.
 *
 * Tilewright aligns what is a megabyte or larger to huge pages by itself.  A small model has
 * hundreds of layers below that: each fresh 4 KiB page of theirs costs a fault when they are packed
 * and a miss of the TLB whenever they are streamed.  They are laid one behind the other in chunks.
 * A chunk goes when all in it is freed. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "hosts/ggml/backend.h"

enum { SMALLEST = 16 << 10, LARGEST = (1 << 20) - 1, CHUNK = 16 << 20, LINE = 64 };

/* Lies at the beginning of its chunk, whose address is a multiple of its size. */
typedef struct chunk {
    size_t used, pieces; /* bytes from its start, and takings that have not been freed */
} chunk;

static struct {
    pthread_mutex_t lock;
    chunk *filled; /* the one that pieces are taken from */
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The size alone tells where a piece came from, and is told again when it is freed. */
static bool is_piece(size_t size) { return size >= SMALLEST && size <= LARGEST; }

static chunk *chunk_create(void) {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *wide = mmap(NULL, 2 * (size_t)CHUNK, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (wide == MAP_FAILED) return NULL;
    size_t before = -(uintptr_t)wide % CHUNK;
    chunk *c = (void *)(wide + before);
    if (before) munmap(wide, before);
    munmap((char *)c + CHUNK, CHUNK - before);
    madvise(c, CHUNK, MADV_HUGEPAGE);
    c->used = sizeof *c;
    return c;
}

static void *take(size_t size, size_t align) {
    chunk *c = memory.filled;
    size_t at = c ? (c->used + align - 1) / align * align : 0;
    if (!c || at + size > CHUNK) {
        if (!(c = chunk_create())) return NULL;
        if (memory.filled && !memory.filled->pieces) munmap(memory.filled, CHUNK);
        memory.filled = c;
        at = (c->used + align - 1) / align * align;
    }
    c->used = at + size;
    c->pieces++;
    return (char *)c + at;
}

void *twg_memory_alloc(void *user, size_t size, size_t align) {
    void *p = NULL;
    (void)user;
    if (!is_piece(size)) return posix_memalign(&p, align, size) ? NULL : p;
    pthread_mutex_lock(&memory.lock);
    p = take(size, align > LINE ? align : LINE);
    pthread_mutex_unlock(&memory.lock);
    return p;
}

void twg_memory_free(void *user, void *p, size_t size) {
    (void)user;
    if (!is_piece(size)) {
        free(p);
        return;
    }
    chunk *c = (void *)((uintptr_t)p / CHUNK * CHUNK);
    pthread_mutex_lock(&memory.lock);
    if (!--c->pieces) {
        if (c == memory.filled) memory.filled = NULL;
        munmap(c, CHUNK);
    }
    pthread_mutex_unlock(&memory.lock);
}
