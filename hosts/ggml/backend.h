/* hosts/ggml: Tilewright as a ggml backend that an unmodified llama.cpp loads by GGML_BACKEND_PATH.
 *
 *   registry.c  what ggml finds: registry, device, buffer type
 *   buffer.c    buffers: memory as usual, but weights that are set become layers
 *   weights.c   a weight tensor as Tilewright layers
 *   packer.c    making them in the background
 *   memory.c    where they lie
 *   graph.c     computing a graph: ggml's CPU backend runs what is planned
 *   plan.c      what runs in a graph's place
 *   product.c   one product, or several of the same x
 *   moves.c     results that stand elsewhere meanwhile
 *   attention.c, attention_few.c: attention of many tokens and of few, with attention_kernel.c's
 *               arithmetic
 *   norm.c      RMS norm with the product behind it, and the sum before it
 *   heads.c     ROPE and SET_ROWS before attention
 *   glu.c       SWIGLU between products
 *   chain.c     small ones of all these one after another
 *   rows.c      which rows of products and attentions anybody reads
 *   team.c      Tilewright's parallel-for on ggml's own threads
 *
 * A device accepts whole graphs.  ggml's CPU backend computes them, with custom operations, which
 * it calls from all of its threads, for each product by a weight of ours, attention and a few
 * others; everything else runs as ever.  So there is one set of threads, ggml's, and nothing moves
 * from backend to backend. */
#ifndef TILEWRIGHT_HOSTS_GGML_BACKEND_H
#define TILEWRIGHT_HOSTS_GGML_BACKEND_H

#include <ggml-backend-impl.h>
#include <ggml-backend.h>
#include <ggml-impl.h>
#include <ggml.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <tilewright/model.h>
#include <tilewright/tilewright.h>

/* A function for each set of instructions, of which the loader takes the machine's. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TWG_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TWG_CLONES
#endif

/* Whether the memory of two tensors meets. */
static inline bool twg_overlap(const struct ggml_tensor *a, const struct ggml_tensor *b) {
    const char *from = a->data, *other = b->data;
    return from < other + ggml_nbytes(b) && other < from + ggml_nbytes(a);
}

/* Whether rows of y may be written as soon as the same rows of x have been read. */
static inline bool twg_in_step(const struct ggml_tensor *x, const struct ggml_tensor *y) {
    return (x->data == y->data && !memcmp(x->nb, y->nb, sizeof x->nb)) || !twg_overlap(x, y);
}

static inline bool twg_plain_rows(const struct ggml_tensor *t) {
    return t->type == GGML_TYPE_F32 && t->nb[0] == sizeof(float);
}

/* Where thread ith of nth begins in some rows, and the one before it ends: a single row is thread
 * 0's, as in ggml's own operations. */
static inline int64_t twg_share(int64_t rows, int ith, int nth) {
    return (rows * ith + nth - 1) / nth;
}

/* ---- registry.c ---- */

/* Whether a variable of the environment is set, and not to 0. */
bool twg_is_set(const char *name);

/* ggml's CPU device and a function that it offers by name. */
ggml_backend_dev_t twg_cpu_device(void);
void *twg_cpu_function(const char *name);
/* The process's Tilewright context, which lives while somebody holds it, for twg_context_release.
 * NULL where it cannot be made, which is logged. */
tw_context *twg_context_hold(void);
void twg_context_release(void);
ggml_backend_buffer_type_t twg_buffer_type(void);
ggml_backend_t twg_backend_create(ggml_backend_dev_t device);
void twg_backend_set_n_threads(ggml_backend_t backend, int n_threads);
void twg_backend_set_abort_callback(ggml_backend_t backend, ggml_abort_callback callback,
                                    void *data);

/* ---- weights.c ---- */

/* How far the making of layers has come. */
typedef enum twg_state { TWG_WAITS, TWG_TAKEN, TWG_DONE } twg_state;

/* A tensor [K, N, ne2, ne3] of a GGUF type as ne2 * ne3 layers of [N, K]. */
typedef struct twg_weights {
    struct twg_weights *next; /* of its buffer's */
    struct ggml_tensor *tensor;
    struct ggml_tensor like;          /* as it was: who packs may outlast what describes it */
    struct twg_weights *waits_behind; /* the next one in packer.c's line */
    _Atomic twg_state state;          /* TWG_DONE: the rest can be read */
    atomic_bool fresh;                /* not multiplied by yet, and its blocks can be read */
    atomic_bool mapped;               /* its blocks' pages are there, and come again when needed */
    bool prepared;
    int64_t count;        /* of layers; 0: none could be made */
    tw_linear *linears[]; /* i3 * ne2 + i2 */
} twg_weights;

/* Whether layers can be made of such a tensor, wherever it lies. */
bool twg_weights_possible(const struct ggml_tensor *tensor);
/* Room for a tensor's layers.  NULL: out of memory. */
twg_weights *twg_weights_create(struct ggml_tensor *tensor);
/* Makes them of the tensor's blocks.  false: failed, which is logged. */
bool twg_weights_fill(twg_weights *weights, const void *blocks);
/* Has kernels for a token and for a batch, compiled if the cache has none: never on a thread of
 * ours, under which a process that ends would take the compiler away.  false: failed, which is
 * logged, and there are no layers. */
bool twg_weights_prepare(twg_weights *weights);
void twg_weights_destroy(twg_weights *weights);

/* ---- buffer.c ---- */

ggml_backend_buffer_t twg_buffer_create(ggml_backend_buffer_type_t type, size_t size);
/* Over memory that is the host's and stays so. */
ggml_backend_buffer_t twg_buffer_of_host(ggml_backend_buffer_type_t type, void *memory,
                                         size_t size);
bool twg_buffer_is_ours(ggml_backend_buffer_t buffer);
/* Whether the source of an operation is weights that are packed, which only products can read:
 * those of buffers that are said to hold weights, and what llama.cpp asks about in empty buffers
 * before it loads a model.  (It has empty caches, too, when it measures only: they are written by
 * SET_ROWS and read through views.) */
bool twg_buffer_packs(const struct ggml_tensor *source, enum ggml_op op);
/* Whether the blocks of such a source can be read nevertheless. */
bool twg_buffer_keeps(const struct ggml_tensor *source);
/* The layers of a tensor in a buffer of ours: those made when it was set or mapped, waited for if
 * need be or, where nobody has said what the buffer is for, made now.  NULL: none. */
twg_weights *twg_buffer_weights(struct ggml_tensor *tensor);
/* What is known of weights that ggml's own kernels may be the first to multiply by; NULL: they are
 * not such. */
twg_weights *twg_buffer_fresh(const struct ggml_tensor *tensor);
/* Whether nobody has said what its buffer is for: then a graph may write it. */
bool twg_buffer_unsaid(const struct ggml_tensor *tensor);
/* The tensor, or a view's, is written. */
void twg_buffer_changed(struct ggml_tensor *tensor);
/* How often that has changed for any tensor. */
unsigned twg_buffer_changes(void);

/* ---- packer.c ---- */

/* Puts mapped weights at the line's end, to be filled from like.data by some thread. */
void twg_packer_add(twg_weights *weights);
/* Works along until they are TWG_DONE. */
void twg_packer_finish(const twg_weights *weights);
/* They are about to be destroyed. */
void twg_packer_forget(twg_weights *weights);
/* Threads in the background rest from one to the other; each call of the one needs the other. */
void twg_packer_pause(void);
void twg_packer_resume(void);
/* A parallel-for of a thread that packs; false: this one does not, and nothing was done. */
bool twg_packer_run(void (*task)(void *arg, size_t i), void *arg, size_t count);

/* ---- memory.c ---- */

/* Tilewright's hook. */
void *twg_memory_alloc(void *user, size_t size, size_t align);
void twg_memory_free(void *user, void *p, size_t size);

/* ---- rows.c ---- */

/* Of a node what has indices [first, first + count) in one of its own dimensions: tokens, which of
 * a product are in dimension 1, and of attention in 2.  Dimension 0: all of it. */
typedef struct twg_rows {
    int dimension;
    int64_t first, count; /* count may be 0 */
} twg_rows;

enum { TWG_MOST_TAKERS = 4 };

typedef struct twg_taker {
    const struct ggml_tensor *node; /* a GET_ROWS of a result, with the host's indices */
    twg_rows rows;                  /* that it takes */
} twg_taker;

/* Those by which it is so. */
typedef struct twg_takers {
    twg_taker all[TWG_MOST_TAKERS];
    int count;
} twg_takers;

/* What somebody reads of each of the graph's nodes.  Memory is there, and so are the values of
 * leaves that no node writes.  Of products of several matrices, and attention of several sequences:
 * all. */
void twg_rows_read(const struct ggml_cgraph *graph, twg_rows *rows, twg_takers *takers);
/* Whether the values of those leaves still say the same. */
bool twg_rows_stay(const twg_takers *takers);
/* Whether a node writes into a tensor that is none of its own. */
bool twg_written_by(const struct ggml_cgraph *graph, const struct ggml_tensor *tensor);

/* ---- team.c ---- */

/* One custom operation of a graph, that all threads run together: one leads, the others work off
 * what its Tilewright calls give them.  To begin before each run; the rest is team.c's. */
typedef struct twg_operation {
    _Alignas(64) atomic_uint epoch; /* jobs published so far */
    atomic_bool led;                /* somebody leads */
    int nth;
    void (*task)(void *arg, size_t i); /* NULL: the operation is over */
    void *arg;
    size_t count;
    _Alignas(64) atomic_size_t next; /* task to be taken */
    atomic_int working;              /* threads that have not finished the job */
} twg_operation;

static inline void twg_operation_begin(twg_operation *operation) {
    atomic_init(&operation->epoch, 0);
    atomic_init(&operation->led, false);
}
/* Called by each of nth threads once.  The first runs lead(arg), in which Tilewright's parallel-for
 * uses all of them. */
void twg_team_run(twg_operation *operation, int nth, void (*lead)(void *arg), void *arg);
/* Tilewright's hook; outside of operations it makes one, on ggml's threads as well. */
void twg_parallel_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count);
/* How many threads the hook has outside of operations: $TW_THREADS, else the machine's. */
int32_t twg_parallel_threads(void);

/* ---- product.c ---- */

/* What products of a backend share, which are done one at a time.  All zero at first. */
typedef struct twg_products {
    char *scratch; /* rows of x as f32, and of y */
    size_t scratch_size;
    tw_status status; /* the first that a layer gave */
} twg_products;

enum { TWG_TOGETHER = 4 };

typedef struct twg_product {
    twg_operation operation;
    struct ggml_tensor *node;
    enum ggml_op op;     /* of the node: MUL_MAT or MUL_MAT_ID */
    int64_t first, rows; /* of x and y: those that are done, if the product is plain */
    twg_weights *weights;
    struct twg_product *with[TWG_TOGETHER - 1]; /* products that are done with this one */
    int with_count;
    twg_products *shared;
} twg_product;

/* read: what is read of the node. */
void twg_product_plan(twg_product *product, struct ggml_tensor *node, twg_rows read,
                      twg_weights *weights, twg_products *shared);
/* Whether a product can be one of those that are done with the first. */
bool twg_products_alike(const twg_product *first, const twg_product *product);
/* A custom operation of ggml's in the node's place; user: its twg_product. */
void twg_product_run(struct ggml_tensor *node, int ith, int nth, void *user);
/* What twg_team_run's leader does of it. */
void twg_product_lead(void *product);
void twg_products_free(twg_products *shared);

/* ---- moves.c ---- */

enum { TWG_MOST_MOVES = 1024 };

typedef struct twg_moved {
    struct ggml_tensor *tensor;
    void *data, *elsewhere; /* its place in the graph's memory, and the other */
} twg_moved;

/* Of one graph.  All zero at first; twg_moves_free in the end. */
typedef struct twg_moves {
    twg_moved list[TWG_MOST_MOVES];
    size_t count;
    char *room;
    size_t used;
    bool looked, hidden; /* whether it has views that are no nodes, once that is asked */
} twg_moves;

void twg_moves_begin(twg_moves *moves);
/* Gives a node's result, and its views, memory of their own until they are put back; false: it
 * stays where it is, for it is large, or others than nodes close behind it may read it. */
bool twg_move(twg_moves *moves, const struct ggml_cgraph *graph, int index);
void twg_moves_undo(twg_moves *moves);
void twg_moves_redo(twg_moves *moves);
void twg_moves_free(twg_moves *moves);

/* ---- attention.c ---- */

/* Some tokens of a node that is attention, as a node of its own, y.  It points into itself. */
typedef struct twg_attention_part {
    struct ggml_tensor y, q, mask;
} twg_attention_part;

/* Those that are read; or all, where this can do those and not the fewer.  read: of the node. */
void twg_attention_part_of(const struct ggml_tensor *node, twg_rows read, twg_attention_part *part);

/* A node that all threads run together: what a custom operation has no room for, and what is to be
 * taken next, and is done.  Zero both before each run. */
typedef struct twg_attention {
    _Alignas(64) atomic_size_t next, done;
    twg_attention_part part;
    float scale;         /* of scores: the node's first parameter */
    bool strict;         /* nothing is rounded, whatever it takes */
    int threads;         /* that scratch is for; others do nothing */
    char *scratch;       /* aligned to 64 bytes */
    size_t scratch_size; /* a thread's: at least what twg_attention_scratch asks for */
} twg_attention;

/* Whether a node is attention that this does, faster than ggml's own kernel. */
bool twg_attention_takes(const struct ggml_tensor *node);
/* Whether it is one of few queries, which threads can take from one another at little cost. */
bool twg_attention_is_few(const twg_attention *attention);
/* Bytes for each thread; a multiple of 64. */
size_t twg_attention_scratch(const struct ggml_tensor *node);
/* A custom operation of ggml's in the node's place; user: its twg_attention, whose part is run. */
void twg_attention_run(struct ggml_tensor *node, int ith, int nth, void *user);

/* ---- heads.c ---- */

enum { TWG_MOST_STEPS = 4, TWG_MOST_ANGLES = 4 };

/* What a ROPE does, but for positions and factors of frequencies: its node does not say it while a
 * custom operation is in its place. */
typedef struct twg_rotation {
    int32_t dims, mode;
    float base, scale, magnitude;
} twg_rotation;

/* Cosines and sines of a graph's positions, which are the same for several ROPEs. */
typedef struct twg_angles {
    const struct ggml_tensor *positions, *factors;
    twg_rotation rotation;
    int place; /* of the node that finds them */
    float *table;
    size_t capacity;
} twg_angles;

/* Of one graph: count is 0 when it is looked through.  All zero at first. */
typedef struct twg_angles_shared {
    twg_angles all[TWG_MOST_ANGLES];
    int count;
} twg_angles_shared;

typedef struct twg_step {
    const struct ggml_tensor *node;
    const twg_angles *angles; /* of a ROPE; NULL: it is a SET_ROWS */
    bool makes;               /* finds the angles, too */
} twg_step;

/* Steps through the same tokens, one after another. */
typedef struct twg_heads {
    int place; /* of the first step's node in its graph */
    twg_step steps[TWG_MOST_STEPS];
    int count; /* 0 at first */
    int64_t tokens;
} twg_heads;

/* Whether a node can be such a step. */
bool twg_heads_take(const struct ggml_tensor *node);
/* Adds it; false: it cannot be done with those before it, or there is no room. */
bool twg_heads_add(twg_heads *heads, const struct ggml_cgraph *graph,
                   const struct ggml_tensor *node, twg_angles_shared *shared);
/* A custom operation of ggml's in the first one's place, by all threads; user: its twg_heads. */
void twg_heads_run(struct ggml_tensor *node, int ith, int nth, void *user);
void twg_angles_free(twg_angles_shared *shared);

/* ---- norm.c ---- */

/* A node RMS_NORM, the MUL of its result by weights and, if it is there, the ADD that makes its
 * source. */
typedef struct twg_norm {
    const struct ggml_tensor *weights, *x, *y; /* y: the MUL */
    const struct ggml_tensor *add;             /* x, too; NULL: x is there already */
    float eps;
} twg_norm;

/* Whether node i of a graph is such a one, with the MUL next to it. */
bool twg_norm_takes(const struct ggml_cgraph *graph, int i);
twg_norm twg_norm_of(const struct ggml_cgraph *graph, int i);
/* A custom operation of ggml's in the RMS_NORM's place, by all threads; user: its twg_norm. */
void twg_norm_run(struct ggml_tensor *node, int ith, int nth, void *user);

/* ---- glu.c ---- */

bool twg_glu_takes(const struct ggml_tensor *node);
/* A custom operation of ggml's in the node's place, by all threads; user: the node. */
void twg_glu_run(struct ggml_tensor *stand_in, int ith, int nth, void *user);

/* ---- chain.c ---- */

/* By whom an operation is run in a chain: it is in none; who leads; all threads, as ggml would have
 * it; who leads, with a parallel-for over all. */
typedef enum twg_manner { TWG_APART, TWG_ALONE, TWG_BY_ALL, TWG_LED } twg_manner;

/* LED: of a product. */
typedef struct twg_link {
    twg_manner manner;
    ggml_custom_op_t run;
    void *operation;
} twg_link;

/* Few enough that an abort callback is asked soon enough: of a token a layer or two. */
enum { TWG_MOST_LINKS = 16 };

typedef struct twg_chain {
    twg_operation operation;
    twg_link links[TWG_MOST_LINKS];
    int count;
} twg_chain;

/* A custom operation of ggml's in the first one's place; user: its twg_chain. */
void twg_chain_run(struct ggml_tensor *node, int ith, int nth, void *user);

/* ---- plan.c ---- */

typedef struct twg_plan twg_plan;

/* NULL: out of memory. */
twg_plan *twg_plan_create(void);
void twg_plan_destroy(twg_plan *plan);
/* What is to run on so many threads in a graph's place, until the end is said.  NULL: out of
 * memory, and there is no end. */
struct ggml_cgraph *twg_plan_begin(twg_plan *plan, const struct ggml_cgraph *graph, int threads);
/* false: a product failed, which is logged. */
bool twg_plan_end(twg_plan *plan);

#endif
