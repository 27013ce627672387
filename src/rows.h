/* Quantizing matrices in blocks of rows that stay in a core's cache, on several threads. */
#ifndef TW_SRC_ROWS_H
#define TW_SRC_ROWS_H

#include "src/backend/backend.h"
#include "src/quant/recipe.h"

/* Rows [first, first + count), on any thread. */
typedef tw_status tw_rows_task(void *user, int64_t first, int64_t count);

/* All of N rows in blocks of multiples of `apart`; row_bytes: what one reads.  Where a block fails,
 * it is done once more, by the calling thread, which then has the sentence.
 * threads NULL: the calling thread alone. */
tw_status tw_rows_run(tw_threads *threads, int64_t N, int64_t apart, size_t row_bytes,
                      tw_rows_task *task, void *user);

/* tw_recipe_quantize() and tw_quantize_minmax() (plain weights apart) of contiguous w. */
tw_status tw_rows_recipe(tw_threads *threads, const tw_recipe *recipe, int64_t N, int64_t K,
                         const void *w, void *codes, void *scales, void *zeros, float *lut);
tw_status tw_rows_minmax(tw_threads *threads, const tw_scheme *scheme, int64_t N, int64_t K,
                         const float *w, int64_t w_stride, void *codes, void *scales, void *zeros);

/* Bytes of a canonical tensor's rows before row n: of codes, of scales, of zeros. */
typedef struct tw_row_offsets {
    size_t codes, scales, zeros;
} tw_row_offsets;
tw_row_offsets tw_rows_before(const tw_scheme *scheme, int64_t N, int64_t K, int64_t n);

#endif
