/* A machine that runs the vocabulary of codegen/cpu/ir.h itself: kernels of every target run
 * wherever the tests do, AVX-512 without AVX-512, and every access is checked: bounds to the byte,
 * alignment as promised, no use of memory that nobody wrote.  LLVM's part it does not test. */
#ifndef TW_TESTS_KERNELS_MACHINE_H
#define TW_TESTS_KERNELS_MACHINE_H

#include "codegen/cpu/compile.h"
#include "src/core/kernel_args.h"

typedef enum machine_kind {
    OP_CONSTANT,
    OP_BINARY,
    OP_UNARY,
    OP_CAST,
    OP_COMPARE,
    OP_SELECT,
    OP_FMA,
    OP_LOAD,
    OP_STORE,
    OP_OFFSET,
    OP_SPLAT,
    OP_EXTRACT,
    OP_SHUFFLE,
    OP_INTRINSIC,
    OP_PREFETCH,
    OP_PREFETCH_TO_WRITE,
    OP_TOUCH,
    OP_LOCAL,
    OP_PHI,
    OP_JUMP,
    OP_BRANCH,
    OP_RETURN,
    MACHINE_KINDS
} machine_kind;

typedef enum machine_access {
    MACHINE_READS,
    MACHINE_WRITES,
    MACHINE_PREFETCHES,
    MACHINE_PREFETCHES_TO_WRITE
} machine_access;

enum { MACHINE_LANES = 64, MACHINE_ARGS = 4, MACHINE_NAME = 48 };

/* One operation.  A mutant is a program with one of them altered. */
typedef struct machine_op {
    uint8_t kind, sub;         /* machine_kind; which binop, castop, ... */
    tw_ty ty, from;            /* of the result; of the first operand (intrinsics: the last) */
    int32_t dst;               /* value it defines, -1: none */
    int32_t arg[MACHINE_ARGS]; /* values; jumps: blocks in arg[1], arg[2] */
    int64_t number;            /* alignment, lane, offset in the frame, first incoming of a phi */
    int32_t lanes_at; /* constants: index of the first lane in `lanes`; shuffles: of the mask */
    char name[MACHINE_NAME]; /* intrinsics */
    int64_t skew;            /* bytes that a load goes astray: 0, but in mutants */
    int64_t runs;            /* how often it was executed */
} machine_op;

typedef struct machine_function {
    int32_t first_op, op_count;
    int32_t params[8], param_count;
} machine_function;

/* A pair of (block, value) of one phi, in a list. */
typedef struct machine_incoming {
    int32_t block, value, next;
} machine_incoming;

typedef struct machine_region {
    char *base;
    size_t size;
    bool can_read, can_write;
    char *written; /* NULL: all of it is; else a flag a byte, owned */
    char fill;     /* what unwritten bytes hold: others were written by somebody else */
} machine_region;

/* Of the matrix unit: rows 0 where it has no shape; bytes of a row that has one. */
typedef struct machine_tile {
    int rows, columns;
    bool written;
    uint8_t bytes[16][64];
} machine_tile;

typedef struct machine {
    machine_op *ops; /* all owned */
    int64_t *lanes;
    int32_t *blocks; /* first op of each */
    machine_incoming *incoming;
    uint64_t (*values)[MACHINE_LANES];
    int32_t op_count, lane_count, block_count, incoming_count, value_count;
    machine_function functions[2]; /* tw_pack_x, tw_matmul */
    int32_t function_count, current_block;
    char *frame; /* stack slots, 64-byte aligned; owned */
    size_t frame_size;
    machine_region *regions; /* owned */
    int region_count;
    machine_tile tiles[8];
    uint8_t tile_table[64]; /* the table that they were configured by */
    /* Of tw_matmul: gets all that it reads, writes or prefetches; NULL: nobody. */
    void (*watch)(void *arg, machine_access access, uintptr_t address);
    void *watch_arg;
    const void *weights;       /* of the call at hand; NULL in tw_pack_x */
    int64_t steps, most_steps; /* of the last call; what loops for ever is stopped */
    char error[256];           /* the first thing that went wrong, or "" */
} machine;

/* Records what emit says.  Failures of emit come back as they are. */
tw_status machine_record(machine *m, const tw_target *target, tw_emit_fn *emit, const void *arg);
void machine_free(machine *m);

/* Memory that the program may use.  fill_of: NULL, or the byte that unwritten memory holds. */
void machine_allow(machine *m, const void *base, size_t size, bool can_read, bool can_write,
                   const char *fill_of);
void machine_forbid_all(machine *m);

/* Runs on this thread; errors are left in m->error, after which nothing runs any more. */
void machine_pack_x(machine *m, const tw_kernel_args *args, int64_t m0, int64_t m1);
void machine_matmul(machine *m, const tw_kernel_args *args, int64_t m0, int64_t m1, int64_t n0,
                    int64_t n1);

/* For machine_tiles.c.  The first error stays; whether an access is none. */
TW_PRINTF(2, 3) void machine_wrong(machine *m, const char *format, ...);
bool machine_may_access(machine *m, uintptr_t address, size_t size, int64_t align, bool write);
/* Runs an instruction of the matrix unit; false: it is none. */
bool machine_tiles(machine *m, const machine_op *op);
/* Around a function: the unit is configured as some host left it, and must be again. */
void machine_tiles_begin(machine *m);
void machine_tiles_end(machine *m);
/* machine_run.c: f as instructions of bf16 take and give it. */
float machine_flushed(float f);

#endif
