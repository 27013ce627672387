/* Guard pages by mmap and mprotect. */
#define _DEFAULT_SOURCE
#include "tests/kernels/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A test without its memory says nothing: no way on from here. */
static void require(bool done, const char *what) {
    if (done) return;
    perror(what);
    exit(2);
}

guard guard_new(size_t size, size_t align, bool at_end, int fill) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (size + page) / page * page;
    guard g = {.size = size, .map_size = inside + 2 * page};
    void *map = mmap(NULL, g.map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    require(map != MAP_FAILED, "mmap");
    g.map = map;
    require(!mprotect(g.map + page, inside, PROT_READ | PROT_WRITE), "mprotect");
    g.data = g.map + page + (at_end ? (inside - size) / align * align : 0);
    memset(g.map + page, fill, inside);
    return g;
}

void guard_read_only(guard *g) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    require(!mprotect(g->map + page, g->map_size - 2 * page, PROT_READ), "mprotect");
}

void guard_free(guard *g) {
    if (g->map) munmap(g->map, g->map_size);
    *g = (guard){0};
}
