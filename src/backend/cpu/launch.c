/* One linear layer's forward on a CPU: x is packed chunk by chunk of rows, so that scratch is
 * bounded, then a grid of tiles of y is computed from it; or each thread does both by itself. */
#include <stdatomic.h>
#include <string.h>

#include "src/backend/backend.h"
#include "src/core/act.h"

/* Rows a chunk, or as many more as make whole blocks: weights are read once a chunk, and its packed
 * x stays in the second-level cache. */
enum { CHUNK_ROWS = 512, SCRATCH_ALIGN = 64 };
/* Waking a pool costs some microseconds; a core does this many multiply-adds in about five. */
static const double INLINE_MACS = 1 << 18;
/* Elements of x worth a packing task of its own, by the same measure. */
enum { PACK_ELEMENTS = 1 << 14 };
/* Rows that are one block, so that columns are all there is to share out. */
enum { FEW_ROWS = 64 };
/* Tasks of a thread's share of a group of products, if each has so many weights: a MiB or more. */
enum { SHARE_TASKS = 8, TASK_WEIGHTS = 1 << 21 };
/* Where weights are so few that a core's caches keep them, and rows so many that each thread has
 * BLOCKS blocks of them, it packs and multiplies a block at a time: nobody waits for anybody. */
enum { CACHED_WEIGHTS = 1 << 20, BLOCK_ROWS = 96, BLOCKS = 8 };
/* What starting a task costs, in multiply-adds. */
static const double TASK_MACS = 1 << 13;

/* Rows of one task: block_m in whole register tiles; without block_m, what there is. */
static int64_t unit_rows(const tw_config *c) {
    int64_t micro = tw_max(c->micro_m, 1);
    return c->block_m ? tw_round_up(c->block_m, micro) : tw_round_up(CHUNK_ROWS, micro);
}

/* What a task's columns are a multiple of: a register tile of each stream. */
static int64_t tile_columns(const tw_config *c) {
    return (int64_t)tw_max(c->micro_n, 1) * tw_max(c->streams, 1);
}

/* The most rows of a chunk, for any M. */
static int64_t chunk_limit(const tw_config *c) { return tw_round_up(CHUNK_ROWS, unit_rows(c)); }

/* Chunks of one launch are about equal: 520 rows are not 512 and then 8. */
int64_t tw_launch_chunk(const tw_kernel *kernel, int64_t M) {
    int64_t limit = chunk_limit(&kernel->config);
    if (M <= limit) return tw_max(M, 1);
    return tw_round_up(tw_ceil_div(M, tw_ceil_div(M, limit)), unit_rows(&kernel->config));
}

/* Rows of scratch that hold `rows` rows of x: the last register tile reads whole. */
static int64_t padded_rows(const tw_kernel *kernel, int64_t rows) {
    return tw_round_up(rows, tw_max(kernel->config.micro_m, 1));
}

static size_t xq_bytes(const tw_kernel *kernel, int64_t rows) {
    return (size_t)tw_round_up(padded_rows(kernel, rows) * kernel->xq_stride, SCRATCH_ALIGN);
}

static size_t xmeta_bytes(const tw_kernel *kernel, int64_t rows) {
    return (size_t)tw_round_up(padded_rows(kernel, rows) * kernel->xmeta_stride, SCRATCH_ALIGN);
}

size_t tw_launch_scratch(const tw_kernel *kernel, int64_t M) {
    int64_t rows = tw_min(tw_max(M, 1), chunk_limit(&kernel->config));
    return xq_bytes(kernel, rows) + xmeta_bytes(kernel, rows);
}

/* ---- packing ---- */

typedef struct pack_job {
    const tw_kernel *kernel;
    const tw_kernel_args *args;
    int64_t rows; /* of one task */
} pack_job;

static void pack_task(void *arg, size_t i) {
    const pack_job *job = arg;
    int64_t m0 = (int64_t)i * job->rows;
    job->kernel->pack_x(job->args, m0, tw_min(m0 + job->rows, job->args->M));
}

/* Rows past M, which the last register tile computes with and does not store, are zero. */
static void clear_padding(const tw_kernel *kernel, const tw_kernel_args *args) {
    int64_t padding = padded_rows(kernel, args->M) - args->M;
    if (!padding) return;
    memset((char *)args->xq + args->M * kernel->xq_stride, 0,
           (size_t)(padding * kernel->xq_stride));
    memset((char *)args->xmeta + args->M * kernel->xmeta_stride, 0,
           (size_t)(padding * kernel->xmeta_stride));
}

static void pack(const tw_kernel *kernel, tw_threads *threads, const tw_kernel_args *args) {
    clear_padding(kernel, args);
    int64_t tasks = tw_min(tw_threads_count(threads), args->M * kernel->K / PACK_ELEMENTS);
    pack_job job = {kernel, args, tw_ceil_div(args->M, tw_max(tasks, 1))};
    tw_threads_run(threads, pack_task, &job, (size_t)tw_ceil_div(args->M, job.rows));
}

/* ---- the product ---- */

typedef struct matmul_job {
    const tw_kernel *kernel;
    const tw_kernel_args *args;
    int64_t rows, columns; /* of one task */
    int64_t tiles_m;
} matmul_job;

/* Consecutive tasks go down a column of tiles: a thread's run of them shares weights. */
static void matmul_task(void *arg, size_t i) {
    const matmul_job *job = arg;
    int64_t m0 = (int64_t)i % job->tiles_m * job->rows;
    int64_t n0 = (int64_t)i / job->tiles_m * job->columns;
    job->kernel->matmul(job->args, m0, tw_min(m0 + job->rows, job->args->M), n0,
                        tw_min(n0 + job->columns, job->kernel->N));
}

static int64_t grid(const matmul_job *job) {
    return job->tiles_m * tw_ceil_div(job->kernel->N, job->columns);
}

/* Halves block_n where that ends the slowest thread's share earlier: with few rows the columns are
 * all there is to split, and a last round that half of the threads sit out costs a full one. */
static void balance(matmul_job *job, int32_t threads) {
    int64_t tile = tile_columns(&job->kernel->config), best = job->columns;
    double least = 0;
    for (int64_t columns = best;; columns = tw_round_up(columns / 2, tile)) {
        job->columns = columns;
        int64_t rounds = tw_ceil_div(grid(job), threads);
        double macs = (double)columns * (double)job->rows * (double)job->kernel->K;
        double time = (double)rounds * (macs + TASK_MACS);
        if (least == 0 || time < least) {
            least = time;
            best = columns;
        }
        if (columns <= tile) break;
    }
    job->columns = best;
}

/* Tasks as the kernel's config has them. */
static matmul_job job_of(const tw_kernel *kernel, const tw_kernel_args *args) {
    const tw_config *c = &kernel->config;
    int64_t tile = tile_columns(c), whole = tw_round_up(kernel->N, tile);
    matmul_job job = {kernel, args, tw_min(unit_rows(c), args->M), whole, 0};
    if (c->block_n) job.columns = tw_min(tw_round_up(c->block_n, tile), whole);
    job.tiles_m = tw_ceil_div(args->M, job.rows);
    return job;
}

static void matmul(const tw_kernel *kernel, tw_threads *threads, const tw_kernel_args *args) {
    matmul_job job = job_of(kernel, args);
    if (threads) balance(&job, tw_threads_count(threads));
    tw_threads_run(threads, matmul_task, &job, (size_t)grid(&job));
}

/* ---- blocks of rows ---- */

typedef struct block_job {
    const tw_kernel *kernel;
    const tw_kernel_args *args; /* of all rows */
    char *scratch;
    size_t apart;  /* bytes of one task's scratch */
    int64_t rows;  /* of a block */
    int64_t count; /* of blocks */
    atomic_int_fast64_t next;
} block_job;

static tw_kernel_args rows_from(const tw_kernel_args *args, int64_t m, int64_t most) {
    tw_kernel_args part = *args;
    part.x = (const char *)args->x + m * args->x_stride;
    part.y = (char *)args->y + m * args->y_stride;
    part.M = tw_min(most, args->M - m);
    return part;
}

/* A task for each thread, which takes blocks until there are none. */
static void block_task(void *arg, size_t i) {
    block_job *job = arg;
    const tw_kernel *kernel = job->kernel;
    int64_t block;
    while ((block = atomic_fetch_add(&job->next, 1)) < job->count) {
        tw_kernel_args part = rows_from(job->args, block * job->rows, job->rows);
        part.xq = job->scratch + i * job->apart;
        part.xmeta = (char *)part.xq + xq_bytes(kernel, job->rows);
        clear_padding(kernel, &part);
        kernel->pack_x(&part, 0, part.M);
        matmul_job tiles = job_of(kernel, &part);
        for (int64_t t = 0; t < grid(&tiles); t++) matmul_task(&tiles, (size_t)t);
    }
}

/* Rows of a block, if that is the way to go and their scratch is there; else 0.  Codes that are
 * unpacked once for a task's rows are so for no fewer than the config has. */
static int64_t block_rows(const tw_kernel *kernel, const tw_threads *threads, int64_t M) {
    const tw_config *c = &kernel->config;
    int64_t rows = tw_round_up(BLOCK_ROWS, tw_max(c->micro_m, 1)),
            count = tw_threads_count(threads);
    if (c->ahead) rows = tw_max(rows, unit_rows(c));
    size_t needed = (size_t)count * (xq_bytes(kernel, rows) + xmeta_bytes(kernel, rows));
    bool suits = threads && kernel->N * kernel->K <= CACHED_WEIGHTS && M >= count * BLOCKS * rows;
    return suits && needed <= tw_launch_scratch(kernel, M) ? rows : 0;
}

static void launch_blocks(const tw_kernel *kernel, tw_threads *threads, const tw_kernel_args *args,
                          void *scratch, int64_t rows) {
    block_job job = {.kernel = kernel,
                     .args = args,
                     .scratch = scratch,
                     .apart = xq_bytes(kernel, rows) + xmeta_bytes(kernel, rows),
                     .rows = rows,
                     .count = tw_ceil_div(args->M, rows)};
    tw_threads_run(threads, block_task, &job, (size_t)tw_threads_count(threads));
}

/* ---- a launch ---- */

void tw_launch(const tw_kernel *kernel, tw_threads *threads, const tw_kernel_args *args,
               void *scratch) {
    int64_t chunk = tw_launch_chunk(kernel, args->M), rows = block_rows(kernel, threads, args->M);
    if (rows) {
        launch_blocks(kernel, threads, args, scratch, rows);
        return;
    }
    if ((double)args->M * (double)kernel->N * (double)kernel->K < INLINE_MACS) threads = NULL;
    for (int64_t m = 0; m < args->M; m += chunk) {
        tw_kernel_args part = rows_from(args, m, chunk);
        part.xq = scratch;
        part.xmeta = (char *)scratch + xq_bytes(kernel, chunk);
        pack(kernel, threads, &part);
        matmul(kernel, threads, &part);
    }
}

/* ---- several products of one x ---- */

typedef struct group {
    matmul_job jobs[TW_GROUP_MOST];
    size_t ends[TW_GROUP_MOST]; /* tasks of this job and of those before it */
} group;

static void group_task(void *arg, size_t i) {
    const group *g = arg;
    int at = 0;
    while (i >= g->ends[at]) at++;
    matmul_task((void *)&g->jobs[at], at ? i - g->ends[at - 1] : i);
}

/* With few rows the most columns that a task has of one kernel's: a thread's share of all, or a
 * part of it where there is much to read, since threads seldom read equally fast. */
static int64_t columns_of_task(int64_t columns, int64_t K, int64_t M, tw_threads *threads) {
    int64_t share = tw_ceil_div(columns, tw_threads_count(threads));
    if (M > FEW_ROWS) return share;
    return tw_ceil_div(share, tw_max(tw_min(share * K / TASK_WEIGHTS, SHARE_TASKS), 1));
}

static void share_columns(matmul_job *job, int64_t most) {
    int64_t N = job->kernel->N, pieces = tw_ceil_div(N, most);
    job->columns = tw_round_up(tw_ceil_div(N, pieces), tile_columns(&job->kernel->config));
}

/* One chunk of rows. */
static void launch_chunk(const tw_kernel *const *kernels, tw_threads *threads, tw_kernel_args *args,
                         int32_t count, void *scratch) {
    group g;
    int64_t columns = 0, M = args->M;
    int32_t widest = 0; /* the kernel that reads most rows past M */
    for (int32_t i = 0; i < count; i++) {
        columns += kernels[i]->N;
        if (padded_rows(kernels[i], M) > padded_rows(kernels[widest], M)) widest = i;
    }
    if ((double)M * (double)columns * (double)kernels[0]->K < INLINE_MACS) threads = NULL;
    char *xmeta = (char *)scratch + xq_bytes(kernels[widest], M);
    int64_t most = columns_of_task(columns, kernels[0]->K, M, threads);
    size_t tasks = 0;
    for (int32_t i = 0; i < count; i++) {
        args[i].xq = scratch;
        args[i].xmeta = xmeta;
        g.jobs[i] = job_of(kernels[i], &args[i]);
        if (M <= FEW_ROWS || !kernels[i]->config.block_n) share_columns(&g.jobs[i], most);
        g.ends[i] = tasks += (size_t)grid(&g.jobs[i]);
    }
    pack(kernels[widest], threads, &args[widest]);
    tw_threads_run(threads, group_task, &g, tasks);
}

void tw_launch_group(const tw_kernel *const *kernels, tw_threads *threads,
                     const tw_kernel_args *args, int32_t count, void *scratch) {
    tw_kernel_args part[TW_GROUP_MOST] = {{0}};
    int64_t M = args->M, chunk = tw_max(M, 1);
    for (int32_t i = 0; i < count; i++) chunk = tw_min(chunk, tw_launch_chunk(kernels[i], M));
    for (int64_t m = 0; m < M; m += chunk) {
        for (int32_t i = 0; i < count; i++) part[i] = rows_from(&args[i], m, chunk);
        launch_chunk(kernels, threads, part, count, scratch);
    }
}

/* ---- x rounded beforehand ---- */

/* Rows that are rounded at a time: enough for a kernel to do well, and of bounded size. */
static int64_t rounded_rows(int64_t M, int64_t K) {
    enum { MOST_BYTES = 8 << 20 };
    return tw_max(1, tw_min(M, MOST_BYTES / (K * (int64_t)sizeof(float))));
}

size_t tw_launch_rounded_bytes(const tw_problem *p, int64_t M) {
    if (!tw_act_rounds(&p->scheme)) return 0;
    return (size_t)(rounded_rows(M, p->K) * p->K) * sizeof(float);
}

typedef struct round_job {
    const tw_problem *problem;
    float act_scale;
    const tw_kernel_args *args;
    float *rounded;
} round_job;

static void round_row(void *arg, size_t m) {
    const round_job *job = arg;
    const tw_problem *p = job->problem;
    tw_act_round(&p->scheme, p->x, p->K, job->act_scale,
                 (const char *)job->args->x + (int64_t)m * job->args->x_stride,
                 job->rounded + (int64_t)m * p->K);
}

void tw_launch_rounded(const tw_kernel *kernel, tw_threads *threads, const tw_problem *problem,
                       float act_scale, const tw_kernel_args *args, float *rounded, void *scratch) {
    tw_kernel_args from = *args, part = *args;
    int64_t K = problem->K, most = rounded_rows(args->M, K);
    part.x = rounded;
    part.x_stride = K * (int64_t)sizeof(float);
    for (int64_t m = 0; m < args->M; m += most) {
        from.x = (const char *)args->x + m * args->x_stride;
        part.y = (char *)args->y + m * args->y_stride;
        part.M = tw_min(most, args->M - m);
        round_job job = {problem, act_scale, &from, rounded};
        bool few = part.M * K < PACK_ELEMENTS;
        tw_threads_run(few ? NULL : threads, round_row, &job, (size_t)part.M);
        tw_launch(kernel, threads, &part, scratch);
    }
}
