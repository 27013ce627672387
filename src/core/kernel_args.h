/* The calling convention of generated CPU kernels: one struct, read at offsetof() constants.
 *
 * Every object exports two functions:
 *   void tw_pack_x(const tw_kernel_args *, int64_t m0, int64_t m1);
 *       rows [m0, m1) of x into `xq` (and `xmeta`): converted or quantized, zero-padded along K;
 *   void tw_matmul(const tw_kernel_args *, int64_t m0, int64_t m1, int64_t n0, int64_t n1);
 *       y[m0..m1, n0..n1) from xq; m0 is a multiple of micro_m, n0 of micro_n, and with streams n0
 *       and n1 of micro_n of each. */
#ifndef TW_CORE_KERNEL_ARGS_H
#define TW_CORE_KERNEL_ARGS_H

#include <stdint.h>

typedef struct tw_kernel_args {
    const void *x;
    int64_t x_stride; /* bytes between rows */
    void *xq;         /* packed x: rows of xq_stride bytes, a compile-time constant of the kernel */
    void *xmeta;      /* per row: scales, sums; rows of xmeta_stride bytes, likewise */
    const void *w;    /* packed weights */
    const float
        *bias; /* f32, round_up(N, 64) entries, whatever the caller's bias was; NULL without */
    void *y;
    int64_t y_stride; /* bytes between rows */
    const float *lut; /* TW_LUT4_SIZE values of w=lut4, else NULL */
    int64_t M;        /* rows that exist: a tile at the end computes more but stores only these */
} tw_kernel_args;

typedef void tw_pack_x_fn(const tw_kernel_args *args, int64_t m0, int64_t m1);
typedef void tw_matmul_fn(const tw_kernel_args *args, int64_t m0, int64_t m1, int64_t n0,
                          int64_t n1);

#endif
