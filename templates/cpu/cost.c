/* Space, model of time, and guess of the kernels over panel64: see cost.h. */
#include "templates/cpu/cost.h"

#include "src/core/dtype.h"
#include "templates/cpu/gemm.h"
#include "templates/layouts/panel64.h"

enum { TILE_VECTORS = 64 };
/* Most columns of a task of one stream, and least of one whose streams should be far apart (a
 * launch still halves them where that keeps more threads busy). */
enum { MOST_BLOCK = 512, LEAST_APART = 512, FAR_BLOCK = 4096 };
/* Of so few rows the time is the weights', and so many bytes of them come from memory. */
enum { COLD_ROWS = 8, COLD_BYTES = 4 << 20 };
/* Of so few they are read in the time that the products take. */
enum { FEW_ROWS = 64 };

const tw_axis tw_gemm_space[TW_INT_AXES] = {
    {TW_TUNABLE_micro_m, {1, 2, 3, 4, 5, 6, 8, 10, 12, 24}, 10},
    {TW_TUNABLE_micro_n, {4, 8, 16, 32, 64}, 5},
    {TW_TUNABLE_block_m, {1, 2, 4, 8, 12, 16, 24, 32, 60, 64, 120, 128, 240, 256}, 14},
    {TW_TUNABLE_block_n, {64, 128, 256, 512, 1024, 2048, 4096}, 7},
    {TW_TUNABLE_streams, {0, 2, 4}, 3},
    {TW_TUNABLE_prefetch, {0, 8, 16, 32, 64, 128}, 6},
    {TW_TUNABLE_in_order, {0, 1}, 2},
    {TW_TUNABLE_bit_matrix, {0, 1}, 2},
    {TW_TUNABLE_ahead, {0, 256, 512, 1024}, 4},
    {TW_TUNABLE_group_pairs, {0, 1}, 2},
};

static double larger(double a, double b) { return a > b ? a : b; }

static bool wide_vectors(const tw_target *target) {
    return tw_target_isa(target)->vector_bytes == 64;
}

/* Whether codes are sums of several planes. */
static bool has_planes(const tw_problem *problem) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    return panel.planes > 1;
}

/* Vector instructions a cycle: wide units come in pairs, narrower ones in threes. */
static double vector_width(const tw_target *target) { return wide_vectors(target) ? 2 : 3; }

static double tile_cycles(const tw_target *target, const tw_problem *problem, const tw_config *c,
                          const tw_inner_loop *loop) {
    int nv = c->micro_n / tw_target_lanes(target),
        registers = tw_target_isa(target)->vector_registers;
    double accumulators = c->micro_m * nv, width = vector_width(target);
    /* A broadcast is a load, and on some cores half a vector instruction; a whole one where no
     * instruction takes it as an operand. */
    double broadcasts = c->micro_m * loop->x_loads, weight = wide_vectors(target) ? 0.5 : 1;
    double extra = loop->embeds && nv == 1 ? 0 : weight * broadcasts;
    double vectors = accumulators * loop->product + nv * loop->unpack + extra;
    double step = larger(accumulators * loop->multiply / 2, vectors / width);
    step = larger(step, (broadcasts + nv) / 2); /* two loads a cycle */
    step = larger(step, loop->latency);
    /* What does not fit is stored and loaded again in each step. */
    int live = c->micro_m > 1 ? nv : 1; /* vectors of weights: with one row each is used at once */
    double held = accumulators * (double)tw_max(1, c->streams);
    double missing = held + live + loop->temporaries - registers;
    if (missing > 0) step += missing;
    double fold = (accumulators * loop->fold + nv * loop->fold_load) / width;
    /* Totals in stack slots.  Wide vectors are stored one in two cycles, and totals that only just
     * fit push others out (groups of 16: a quarter on Zen 4). */
    double over = 2 * held + live + loop->temporaries - registers;
    if (wide_vectors(target))
        fold += 4 * larger(0, over < accumulators ? over : accumulators);
    else if (2 * held > registers)
        fold += accumulators;
    double k = (double)problem->K;
    double folds = k / (double)tw_min(loop->fold_k, tw_max(1, problem->K));
    return k / loop->step_k * step + folds * (fold + loop->latency * 3) + 8 * accumulators + 20;
}

double tw_gemm_cost(const tw_target *target, const tw_problem *problem, const tw_config *c,
                    const tw_inner_loop *loop) {
    int64_t rows = tw_max(1, problem->M);
    double tiles = (double)(tw_ceil_div(rows, c->micro_m) * tw_ceil_div(problem->N, c->micro_n));
    return tw_gemm_task_cost(target, problem, c,
                             tiles * tile_cycles(target, problem, c, loop) / 3); /* 3 GHz */
}

/* Parts of a panel's rows: the processor fetches what lies between them, too, or, AMD's, does not
 * know what comes next.  There it weighs most where rows are few: 16 by i4 in tiles of four by 64
 * columns take two thirds of the time of eight by 32 (Zen 4). */
static double part_factor(const tw_target *target, int64_t rows, int micro_n) {
    if (micro_n == TW_PANEL_ROWS) return 1;
    if (rows <= COLD_ROWS) return micro_n < 32 ? 2.3 : 1.6;
    return rows <= FEW_ROWS && wide_vectors(target) && tw_target_is_amd(target) ? 3 : 1.1;
}

/* How much longer or shorter the weights come for how they are read.  Two streams are worth 3 to
 * 50 %; to AMD's cores order is, of several planes a fifth and more. */
static double reading_factor(const tw_target *target, const tw_problem *problem,
                             const tw_config *c) {
    double part = part_factor(target, tw_max(1, problem->M), c->micro_n);
    bool amd = tw_target_is_amd(target);
    if (c->streams) return amd ? part : 0.9 * part;
    if (c->in_order) return !amd ? 1.03 * part : has_planes(problem) ? 0.8 * part : part;
    return part;
}

double tw_gemm_task_cost(const tw_target *target, const tw_problem *problem, const tw_config *c,
                         double compute) {
    int64_t rows = tw_max(1, problem->M);
    /* Weights come once a block of rows: the first time at some 12 bytes a nanosecond, and again
     * from the L2 cache where a task's fit it; short runs of a panel's rows cost, longer blocks of
     * rows leave the L2 cache.  Prefetching is worth a quarter on some processors, and costs a
     * tenth on others: no word on it, so that the tuner tries all distances.  So of unpacking
     * ahead: a tenth, on some gained, on others lost. */
    double passes = (double)tw_ceil_div(rows, c->block_m);
    double bytes = (double)tw_problem_weight_bytes(problem);
    double share = bytes * (double)c->block_n / (double)problem->N;
    double stream =
        bytes / 12 + (passes - 1) * bytes / (2 * share <= (double)target->l2_bytes ? 40 : 12);
    stream *= reading_factor(target, problem, c);
    if (rows > FEW_ROWS && c->prefetch) compute *= 1.02;
    double block = (double)(c->block_m * problem->K) * 4;
    if (target->l2_bytes && block > (double)target->l2_bytes && c->block_m > c->micro_m)
        compute *= 1.03;
    /* Threads wait for the last task. */
    double tasks = passes * (double)tw_ceil_div(problem->N, c->block_n);
    double turns = (double)tw_ceil_div((int64_t)tasks, tw_max(1, target->threads));
    double balance = turns * tw_max(1, target->threads) / tasks;
    return (larger(compute, stream) + 0.1 * (compute < stream ? compute : stream)) * balance +
           tasks * 100;
}

/* Blocks: rows for the L2 cache, columns so that every thread has several tasks when there is work
 * enough. */
void tw_gemm_set_blocks(const tw_target *target, const tw_problem *problem, int64_t most_rows,
                        tw_config *c) {
    int64_t rows = tw_max(1, problem->M), threads = tw_max(1, target->threads);
    c->block_m = (int32_t)tw_round_up(tw_min(rows, most_rows), c->micro_m);
    int64_t row_blocks = tw_ceil_div(rows, c->block_m);
    /* Under some 50 us one task a thread; else four, so that a slow thread holds nobody up. */
    double work = 2.0 * (double)rows * (double)problem->N * (double)problem->K;
    int64_t wanted = tw_ceil_div(threads * (work > 1e7 ? 4 : 1), row_blocks);
    int64_t columns = tw_ceil_div(problem->N, wanted);
    c->block_n = (int32_t)tw_round_up(tw_min(columns, 256), c->micro_n);
}

/* How far ahead few rows prefetch: gains up to a half where weights come from memory, a tenth of
 * small layers, whose model is large, and costs nothing where they are in the cache.  A Xeon would
 * have 64 lines, of narrow vectors too (i6: 1.15x over 16).  Plain weights, nothing but one stream,
 * AMD's cores read ahead by themselves (a Xeon gains 1.15 to 1.3x of them by one thread and by
 * eight). */
static int32_t reading_ahead(const tw_target *target, const tw_problem *problem) {
    bool intel = tw_target_is_intel(target);
    if (tw_scheme_plain(&problem->scheme)) return intel && wide_vectors(target) ? 64 : 0;
    return intel ? 64 : wide_vectors(target) ? 32 : 16;
}

/* AMD's cores read ahead by themselves what they see in order, as far as their memory goes: i6 by
 * one thread 29 GB/s, with two streams 17 (Zen 4, whose loop that only reads has 30).  Prefetching
 * farther than 8 lines disturbs them.  Rows in several tiles read the weights again, from the
 * cache: there prefetching costs a tenth (u4), which codes of several planes are worth. */
static void set_reading_amd(const tw_problem *problem, tw_config *c) {
    c->in_order = c->micro_n == TW_PANEL_ROWS;
    c->prefetch = c->in_order ? 8 : 16;
    if (c->in_order && !has_planes(problem) && problem->M > c->micro_m)
        c->in_order = c->prefetch = 0;
}

/* How few rows read weights: AMD's cores codes and scales in order, others and plain weights large
 * layers in two streams, each a half of a thread's share (four gain more on some processors, but
 * take twice as long to compile). */
static void set_reading(const tw_target *target, const tw_problem *problem, tw_config *c) {
    if (problem->M > COLD_ROWS) return;
    if (tw_target_is_amd(target) && !tw_scheme_plain(&problem->scheme)) {
        set_reading_amd(problem, c);
        return;
    }
    c->prefetch = reading_ahead(target, problem);
    if (tw_problem_weight_bytes(problem) < COLD_BYTES) return;
    /* As many tasks for each thread. */
    int64_t share = tw_ceil_div(problem->N, tw_max(1, target->threads));
    int64_t part = tw_ceil_div(share, tw_ceil_div(share, FAR_BLOCK));
    tw_config wide = *c;
    wide.streams = 2;
    wide.block_n = (int32_t)tw_round_up(part, (int64_t)2 * TW_PANEL_ROWS);
    if (c->prefetch) wide.prefetch = 64;
    if (!tw_gemm_reject(target, problem, &wide)) *c = wide;
}

void tw_gemm_guess(const tw_target *target, const tw_problem *problem, const tw_inner_loop *loop,
                   tw_config *config) {
    enum { BLOCK_ROWS = 120 };
    double best = 0;
    for (int i = 0; i < tw_gemm_space[0].count; i++)
        for (int j = 0; j < tw_gemm_space[1].count; j++) {
            tw_config c = {.micro_m = tw_gemm_space[0].values[i],
                           .micro_n = tw_gemm_space[1].values[j]};
            tw_gemm_set_blocks(target, problem, BLOCK_ROWS, &c);
            set_reading(target, problem, &c);
            if (tw_gemm_reject(target, problem, &c)) continue;
            double cost = tw_gemm_cost(target, problem, &c, loop);
            if (best > 0 && cost >= best) continue;
            best = cost;
            *config = c;
        }
}

static const char *reject_streams(const tw_target *target, const tw_problem *problem,
                                  const tw_config *c) {
    if (c->streams != 2 && c->streams != TW_STREAMS) return "streams must be 2 or 4.";
    if (c->micro_n != TW_PANEL_ROWS) return "streams are of whole panels: micro_n must be 64.";
    if (problem->N % ((int64_t)c->streams * TW_PANEL_ROWS))
        return "streams must divide the panels of N.";
    if (c->block_n < LEAST_APART || c->block_n % (c->streams * TW_PANEL_ROWS))
        return "block_n must be at least 512, and streams divide its panels.";
    if (c->block_n >= 2 * tw_max(problem->N, LEAST_APART))
        return "block_n exceeds the columns there are.";
    int vectors = c->micro_m * c->micro_n / tw_target_lanes(target) * c->streams;
    if (4 * vectors > 3 * tw_target_isa(target)->vector_registers)
        return "the accumulators of all streams take more than three quarters of the registers.";
    return NULL;
}

_Static_assert(COLD_ROWS == 8, "as the last sentence below says");

static const char *reject_in_order(const tw_problem *problem, const tw_config *c) {
    if (!c->prefetch) return "in_order is of weights that are prefetched.";
    if (c->streams) return "in_order is of one stream.";
    if (c->micro_n != TW_PANEL_ROWS) return "in_order is of whole panels: micro_n must be 64.";
    if (tw_scheme_plain(&problem->scheme))
        return "in_order is of codes and scales: plain weights are in order.";
    if (problem->M > COLD_ROWS)
        return "in_order is for at most 8 rows, whose time is the memory's.";
    return NULL;
}

const char *tw_gemm_reject(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    int lanes = tw_target_lanes(target);
    if (c->micro_m < 1) return "micro_m must be at least 1.";
    if (c->micro_n < lanes || c->micro_n % lanes)
        return "micro_n must be a multiple of the target's f32 lanes.";
    if (TW_PANEL_ROWS % c->micro_n) return "micro_n must divide panel64's 64 rows.";
    if (c->micro_m * c->micro_n / lanes > TILE_VECTORS) return "the tile has more than 64 vectors.";
    if (problem->M && c->micro_m > problem->M) return "micro_m exceeds the rows there are.";
    if (c->block_m < c->micro_m || c->block_m % c->micro_m)
        return "block_m must be a multiple of micro_m.";
    if (problem->M && c->block_m >= 2 * tw_max(problem->M, c->micro_m))
        return "block_m exceeds the rows there are.";
    if (c->block_n < c->micro_n || c->block_n % c->micro_n)
        return "block_n must be a multiple of micro_n.";
    if (c->block_n > MOST_BLOCK && !c->streams) return "block_n above 512 is for streams.";
    const char *why = c->streams ? reject_streams(target, problem, c) : NULL;
    if (why) return why;
    if (c->prefetch < 0) return "prefetch must not be negative.";
    if (c->in_order < 0 || c->in_order > 1) return "in_order must be 0 or 1.";
    why = c->in_order ? reject_in_order(problem, c) : NULL;
    if (why) return why;
    if (c->bit_matrix) return "bit_matrix unpacks codes for integer products only.";
    if (c->ahead) return "ahead unpacks codes for integer products only.";
    if (c->group_pairs) return "group_pairs scales sums of integer products only.";
    return NULL;
}
