/* templates/layouts: physical packings of one weight matrix, a row of layout.def and a file each.
 * Canonical bits can always be recovered; packed forms are never what a file stores. */
#ifndef TW_TEMPLATES_LAYOUTS_LAYOUT_H
#define TW_TEMPLATES_LAYOUTS_LAYOUT_H

#include "src/core/problem.h"
#include "src/core/reference.h"

enum { TW_PACK_ROWS = 64 };

typedef struct tw_layout {
    const char *name;
    uint32_t version;
    /* NULL: can hold this problem's weights; else why not, as a sentence. */
    const char *(*reject)(const tw_problem *problem);
    /* Rows are packed one after another: those from n on, a multiple of TW_PACK_ROWS, begin where a
     * matrix of the first n would end. */
    size_t (*bytes)(const tw_problem *problem);
    /* Rows n0 to n1 of the matrix, every byte of theirs, so that any number of threads can share
     * the work.  n0 and n1 are multiples of TW_PACK_ROWS, or n1 is N.  wide: canonical codes have a
     * byte each, in its low bits.  packed: the whole matrix's bytes(), 64-byte aligned. */
    void (*pack)(const tw_problem *problem, const tw_canonical *canonical, bool wide, int64_t n0,
                 int64_t n1, void *packed);
    /* Each output may be NULL; each is the contiguous canonical tensor. */
    void (*unpack)(const tw_problem *problem, const void *packed, void *weight, void *scales,
                   void *zeros);
} tw_layout;

/* NULL past the end. */
const tw_layout *tw_layout_row(int i);

#endif
