#include "autotune/limits.h"

#include <stdlib.h>

#include "codegen/cpu/compile.h"
#include "src/base/alloc.h"
#include "src/base/clock.h"
#include "src/base/status.h"

/* ---- compute probes: void NAME(ptr operands, i64 rounds) ----------------------------------------------
 * Each keeps `chains` independent accumulators in registers, enough to cover the latency of its longest
 * dependency on every machine known (7 cycles at one block a cycle; 5 at two FMAs), and leaves four for
 * operands.  Every product depends on an accumulator: nothing is constant over the loop. */

enum { OPERANDS_BYTES = 64 * 64 };

typedef struct emitter {
    tw_ir *g;
    int bytes, lanes, chains; /* lanes: of 32 bits */
    tw_val a, b;              /* operands, read from memory: unknown to the compiler */
} emitter;

static tw_val as(const emitter *e, tw_val v, tw_ty ty) { return tw_bitcast(e->g, v, ty); }

static tw_val maddubs(const emitter *e, tw_val u, tw_val s) {
    const char *name =
        e->bytes == 64 ? "llvm.x86.avx512.pmaddubs.w.512" : "llvm.x86.avx2.pmadd.ub.sw";
    tw_val args[] = {as(e, u, tw_i8(e->bytes)), as(e, s, tw_i8(e->bytes))};
    return tw_intrinsic(e->g, name, tw_i16(e->bytes / 2), args, 2);
}

static tw_val maddwd(const emitter *e, tw_val a, tw_val b) {
    const char *name = e->bytes == 64 ? "llvm.x86.avx512.pmaddw.d.512" : "llvm.x86.avx2.pmadd.wd";
    tw_val args[] = {as(e, a, tw_i16(e->bytes / 2)), as(e, b, tw_i16(e->bytes / 2))};
    return tw_intrinsic(e->g, name, tw_i32(e->lanes), args, 2);
}

static tw_val emit_fma(const emitter *e, tw_val acc, int step) {
    (void)step;
    tw_ty ty = tw_f32(e->lanes);
    return as(e, tw_fma(e->g, as(e, acc, ty), as(e, e->a, ty), as(e, e->b, ty)), tw_i32(e->lanes));
}

static tw_val emit_bf16(const emitter *e, tw_val acc, int step) {
    (void)step;
    tw_ty pairs = tw_ty_of(TW_TY_BF16, e->lanes * 2);
    tw_val args[] = {as(e, acc, tw_f32(e->lanes)), as(e, e->a, pairs), as(e, e->b, pairs)};
    tw_val sum = tw_intrinsic(e->g, "llvm.x86.avx512bf16.dpbf16ps.512", tw_f32(e->lanes), args, 3);
    return as(e, sum, tw_i32(e->lanes));
}

static tw_val emit_dpbusd(const emitter *e, tw_val acc, int step) {
    (void)step;
    const char *name =
        e->bytes == 64 ? "llvm.x86.avx512.vpdpbusd.512" : "llvm.x86.avx512.vpdpbusd.256";
    tw_val args[] = {acc, e->a, e->b};
    return tw_intrinsic(e->g, name, tw_i32(e->lanes), args, 3);
}

/* One pmaddubsw of the `depth` that are summed in i16 before they are widened. */
static tw_val emit_maddubs(const emitter *e, tw_val sum, int step) {
    tw_val product = maddubs(e, sum, e->a);
    return as(e, step ? tw_add(e->g, as(e, sum, tw_i16(e->bytes / 2)), product) : product,
              tw_i32(e->lanes));
}

static tw_val widen(const emitter *e, tw_val sum, tw_val acc) {
    return tw_add(e->g, maddwd(e, sum, e->b), acc);
}

static tw_val emit_i16(const emitter *e, tw_val acc, int step) {
    (void)step;
    tw_ty ty = tw_i16(e->bytes / 2);
    tw_val product = tw_mul(e->g, as(e, acc, ty), as(e, e->a, ty));
    return as(e, tw_add(e->g, product, as(e, e->b, ty)), tw_i32(e->lanes));
}

typedef enum operation { OP_FMA, OP_BF16, OP_DPBUSD, OP_MADDUBS, OP_I16 } operation;

static bool has_fma(const tw_target *t) { return t->isa < TW_ISA_COUNT; }
static bool has_bf16(const tw_target *t) { return t->isa == TW_ISA_avx512bf16; }
static bool has_dpbusd(const tw_target *t) { return tw_target_isa(t)->dot == TW_DOT_DPBUSD; }
static bool has_maddubs(const tw_target *t) { return tw_target_isa(t)->dot == TW_DOT_MADDUBS; }
static bool has_i16(const tw_target *t) { return tw_target_isa(t)->dot == TW_DOT_GENERIC; }

typedef struct probe {
    const char *name; /* of the function */
    const char *text; /* the instructions, for people */
    operation operation;
    int depth, bits; /* bits: the widest weight codes that it stands for */
    bool (*has)(const tw_target *target);
    /* One step of one accumulator. */
    tw_val (*emit)(const emitter *e, tw_val acc, int step);
    int products; /* per 32 bits of a vector and step */
} probe;

static const probe probes[] = {
    {"fma", "f32 multiply-add", OP_FMA, 1, 32, has_fma, emit_fma, 1},
    {"bf16", "bf16 dot", OP_BF16, 1, 16, has_bf16, emit_bf16, 2},
    {"dpbusd", "vpdpbusd", OP_DPBUSD, 1, 8, has_dpbusd, emit_dpbusd, 4},
    {"maddubs16", "16 pmaddubsw a pmaddwd", OP_MADDUBS, 16, 3, has_maddubs, emit_maddubs, 64},
    {"maddubs8", "8 pmaddubsw a pmaddwd", OP_MADDUBS, 8, 4, has_maddubs, emit_maddubs, 32},
    {"maddubs4", "4 pmaddubsw a pmaddwd", OP_MADDUBS, 4, 5, has_maddubs, emit_maddubs, 16},
    {"maddubs2", "2 pmaddubsw a pmaddwd", OP_MADDUBS, 2, 6, has_maddubs, emit_maddubs, 8},
    {"maddubs1", "pmaddubsw, pmaddwd, paddd", OP_MADDUBS, 1, 8, has_maddubs, emit_maddubs, 4},
    {"i16", "i16 multiply and add", OP_I16, 1, 8, has_i16, emit_i16, 2},
};

static void emit_probe(tw_ir *g, const probe *p) {
    const tw_isa_info *isa = tw_target_isa(g->target);
    emitter e = {.g = g,
                 .bytes = isa->vector_bytes,
                 .lanes = isa->vector_bytes / 4,
                 .chains = isa->vector_registers - 4};
    tw_ty params[] = {tw_ptr(), tw_i64()}, vector = tw_i32(e.lanes);
    tw_val args[2], acc[TW_MAX_CARRIED];
    tw_function_begin(g, p->name, params, args, 2);
    e.a = tw_load(g, vector, args[0], 64);
    e.b = tw_load(g, vector, tw_at(g, args[0], 64), 64);
    for (int i = 0; i < e.chains; i++)
        acc[i] = tw_load(g, vector, tw_at(g, args[0], 64 * (i + 2)), 64);
    tw_loop loop;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), args[1], 1, acc, e.chains);
    for (int i = 0; i < e.chains; i++) acc[i] = loop.carried[i];
    for (int step = 0; step < p->depth; step++) {
        /* Step by step over all chains: one after the other they would not overlap. */
        if (step) tw_cut(g);
        for (int i = 0; i < e.chains; i++) acc[i] = p->emit(&e, acc[i], step);
    }
    for (int i = 0; i < e.chains && p->operation == OP_MADDUBS; i++)
        acc[i] = widen(&e, acc[i], acc[i]);
    tw_loop_end(g, &loop, acc);
    for (int i = 0; i < e.chains; i++)
        tw_store(g, loop.carried[i], tw_at(g, args[0], 64 * (i + 2)), 64);
    tw_function_end(g);
}

/* ---- read probes: void NAME(ptr begin, i64 bytes, ptr sink) --------------------------------------------
 * A loop over `streams` equal parts, 64 bytes of each a step, prefetching so many bytes ahead. */

typedef struct reader {
    const char *name;
    int streams, ahead; /* ahead 0: the hardware's prefetcher alone */
} reader;

static const reader readers[] = {
    {"read1", 1, 0},       {"read1_1k", 1, 1024}, {"read1_2k", 1, 2048}, {"read1_4k", 1, 4096},
    {"read1_8k", 1, 8192}, {"read4", 4, 0},       {"read4_1k", 4, 1024}, {"read4_4k", 4, 4096},
};
/* A part is a multiple of this, so that every reader can divide it. */
enum { READ_STEP = 1024 };

static void emit_reader(tw_ir *g, const reader *r) {
    int bytes = tw_target_isa(g->target)->vector_bytes, lines = r->streams == 1 ? 4 : 1;
    tw_ty params[] = {tw_ptr(), tw_i64(), tw_ptr()}, vector = tw_i32(bytes / 4);
    tw_val args[3], acc[8];
    tw_function_begin(g, r->name, params, args, 3);
    int shift = r->streams == 4 ? 2 : 0, count = 4;
    tw_val part = tw_lshr(g, args[1], shift);
    for (int i = 0; i < count; i++) acc[i] = tw_const_int(g, vector, 0);
    tw_loop loop;
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), part, 64 * lines, acc, count);
    for (int i = 0; i < count; i++) acc[i] = loop.carried[i];
    tw_val at = tw_offset(g, args[0], loop.i);
    for (int s = 0, next = 0; s < r->streams; s++, at = tw_offset(g, at, part))
        for (int line = 0; line < lines; line++) {
            if (r->ahead) tw_prefetch(g, tw_at(g, at, r->ahead + 64 * line));
            for (int v = 0; v < 64; v += bytes, next = (next + 1) % count) {
                tw_val loaded = tw_load(g, vector, tw_at(g, at, 64 * line + v), bytes);
                acc[next] = tw_binary(g, TW_IR_XOR, acc[next], loaded);
            }
        }
    tw_loop_end(g, &loop, acc);
    for (int i = 0; i < count; i++) tw_store(g, loop.carried[i], tw_at(g, args[2], 64 * i), 64);
    tw_function_end(g);
}

static tw_status emit_all(tw_ir *g, const void *arg) {
    (void)arg;
    for (size_t i = 0; i < TW_COUNT(probes); i++)
        if (probes[i].has(g->target)) emit_probe(g, &probes[i]);
    for (size_t i = 0; i < TW_COUNT(readers); i++) emit_reader(g, &readers[i]);
    return TW_OK;
}

/* ---- running --------------------------------------------------------------------------------------------- */

typedef void compute_fn(void *operands, int64_t rounds);
typedef void read_fn(const void *begin, int64_t bytes, void *sink);

struct tw_limits {
    tw_target target;
    tw_threads *threads;
    int count; /* of threads */
    tw_image *image;
    char *operands; /* OPERANDS_BYTES for each thread */
    double *ns;     /* one for each thread */
    char *buffer;   /* that the readers read; grows */
    size_t buffer_bytes;
};

tw_status tw_limits_create(const tw_target *target, tw_threads *threads, tw_limits **out) {
    if (!tw_cpu_can_run(target->isa))
        return tw_fail(TW_UNSUPPORTED, "target: %s, this CPU cannot run it",
                       tw_target_isa(target)->name);
    tw_str object = {0};
    tw_limits *l = calloc(1, sizeof *l);
    if (!l) return tw_fail(TW_MEMORY, "limits: out of memory");
    l->target = *target;
    l->threads = threads;
    l->count = threads ? tw_threads_count(threads) : 1;
    l->operands = tw_alloc(&tw_allocator_default, (size_t)l->count * OPERANDS_BYTES);
    l->ns = calloc((size_t)l->count, sizeof *l->ns);
    tw_status status = l->operands && l->ns ? TW_OK : tw_fail(TW_MEMORY, "limits: out of memory");
    if (status == TW_OK)
        status = tw_cpu_compile(target, emit_all, NULL, "limits of the machine", TW_CODE_OBJECT,
                                &object);
    if (status == TW_OK) status = tw_image_load(object.text, object.size, &l->image);
    tw_str_free(&object);
    if (status != TW_OK) {
        tw_limits_destroy(l);
        return status;
    }
    *out = l;
    return TW_OK;
}

void tw_limits_destroy(tw_limits *l) {
    if (!l) return;
    if (l->image) tw_image_unload(l->image);
    tw_free(&tw_allocator_default, l->operands, (size_t)l->count * OPERANDS_BYTES);
    tw_free(&tw_allocator_default, l->buffer, l->buffer_bytes);
    free(l->ns);
    free(l);
}

static void *function_of(const tw_limits *l, const char *name) {
    return tw_image_symbol(l->image, name);
}

typedef struct compute_job {
    compute_fn *run;
    char *operands;
    int64_t rounds;
    double *ns; /* that each thread took, its waiting for a CPU left out */
} compute_job;

static void compute_task(void *arg, size_t i) {
    const compute_job *job = arg;
    int64_t start = tw_now_ns();
    job->run(job->operands + i * OPERANDS_BYTES, job->rounds);
    job->ns[i] = (double)tw_max(1, tw_now_ns() - start);
}

/* Rounds that take so long. */
static int64_t calibrate(const compute_job *job, double window_ns) {
    compute_job one = *job;
    double best = 0;
    one.rounds = 2000;
    for (int i = 0; i < 6; i++) {
        compute_task(&one, 0);
        if (!i || job->ns[0] < best) best = job->ns[0];
    }
    return (int64_t)((double)one.rounds * window_ns / best) + 1;
}

/* Operations a ns of one probe: the best of windows of about a third of a millisecond, until the last
 * few bring nothing better. */
static double compute_rate(tw_limits *l, const probe *p) {
    enum { LEAST = 12, MOST = 60, PATIENCE = 6, WINDOW_NS = 350000 };
    compute_job job = {.operands = l->operands, .ns = l->ns};
    *(void **)&job.run = function_of(l, p->name);
    const tw_isa_info *isa = tw_target_isa(&l->target);
    double each = 2.0 * p->products * (isa->vector_bytes / 4) * (isa->vector_registers - 4),
           best = 0;
    /* A small normal number in every f32 and bf16 lane: sums stay finite, and nothing is denormal. */
    for (int64_t i = 0; i < (int64_t)l->count * OPERANDS_BYTES / 4; i++)
        ((uint32_t *)(void *)l->operands)[i] = 0x3e003e00;
    job.rounds = calibrate(&job, WINDOW_NS);
    for (int i = 0, since = 0; i < LEAST || (i < MOST && since < PATIENCE); i++, since++) {
        double rate = 0;
        tw_threads_run(l->threads, compute_task, &job, (size_t)l->count);
        for (int t = 0; t < l->count; t++) rate += each * (double)job.rounds / l->ns[t];
        if (rate > 1.005 * best) since = 0;
        best = rate > best ? rate : best;
    }
    return best;
}

/* The probes that bound a problem: one operation, or the faster of two for bf16. */
static bool bounds(const tw_limits *l, const tw_problem *problem, const probe *p) {
    if (!p->has(&l->target)) return false;
    if (!problem->scheme.act_quant)
        return p->operation == OP_FMA || (p->operation == OP_BF16 && problem->x == TW_BF16);
    if (p->operation == OP_FMA || p->operation == OP_BF16) return false;
    return tw_dtype_bits(problem->scheme.weight) <= p->bits;
}

/* Of several depths only the deepest that cannot overflow counts: rows go from deep to shallow. */
static const probe *next_bound(const tw_limits *l, const tw_problem *problem, const probe *after) {
    for (const probe *p = after ? after + 1 : probes; p < probes + TW_COUNT(probes); p++)
        if (bounds(l, problem, p) && !(after && p->operation == after->operation)) return p;
    return NULL;
}

double tw_limits_gops(tw_limits *l, const tw_problem *problem) {
    double best = 0;
    for (const probe *p = next_bound(l, problem, NULL); p; p = next_bound(l, problem, p)) {
        double rate = compute_rate(l, p);
        best = rate > best ? rate : best;
    }
    return best;
}

const char *tw_limits_class(const tw_limits *l, const tw_problem *problem) {
    const probe *first = next_bound(l, problem, NULL);
    const probe *second = first ? next_bound(l, problem, first) : NULL;
    return second ? "bf16 dot or f32 multiply-add" : first ? first->text : "";
}

typedef struct read_job {
    read_fn *run;
    const char *buffer;
    char *operands;
    double *ns;
    int64_t bytes, copies; /* bytes: of one thread's part of one copy */
    size_t stride;         /* from copy to copy */
} read_job;

static void read_task(void *arg, size_t i) {
    const read_job *job = arg;
    const char *begin = job->buffer + i * (size_t)job->bytes;
    int64_t start = tw_now_ns();
    for (int64_t c = 0; c < job->copies; c++)
        job->run(begin + (size_t)c * job->stride, job->bytes, job->operands + i * OPERANDS_BYTES);
    job->ns[i] = (double)tw_max(1, tw_now_ns() - start);
}

/* The best of a few passes of one reader. */
static double read_rate(tw_limits *l, const read_job *job, int passes) {
    double best = 0;
    for (int pass = 0; pass < passes; pass++) {
        double rate = 0;
        tw_threads_run(l->threads, read_task, (void *)job, (size_t)l->count);
        for (int t = 0; t < l->count; t++)
            rate += (double)job->bytes * (double)job->copies / l->ns[t];
        best = rate > best ? rate : best;
    }
    return best;
}

static tw_status reserve(tw_limits *l, size_t bytes) {
    if (l->buffer_bytes >= bytes) return TW_OK;
    tw_free(&tw_allocator_default, l->buffer, l->buffer_bytes);
    l->buffer_bytes = 0;
    l->buffer = tw_alloc(&tw_allocator_default, bytes);
    if (!l->buffer) return tw_fail(TW_MEMORY, "limits: %zu bytes to read, out of memory", bytes);
    l->buffer_bytes = bytes;
    /* Every page its own: untouched ones are all the same page of zeros. */
    for (size_t i = 0; i < bytes; i += 4096) l->buffer[i] = (char)(i >> 12);
    return TW_OK;
}

tw_status tw_limits_gbps(tw_limits *l, size_t bytes, int64_t copies, double *gbps) {
    enum { FEW = 2, MANY = 5, LONG_BYTES = 8 << 20, WINDOW_BYTES = 4 << 20 };
    int64_t part = tw_round_up(tw_ceil_div((int64_t)bytes, l->count), READ_STEP);
    size_t whole = (size_t)part * (size_t)l->count;
    TW_TRY(reserve(l, whole * (size_t)copies));
    read_job job = {.buffer = l->buffer,
                    .operands = l->operands,
                    .ns = l->ns,
                    .bytes = part,
                    .copies = copies,
                    .stride = whole};
    /* Hot: the same again and again, until the clock can tell. */
    if (copies == 1) job.stride = 0;
    if (copies == 1) job.copies = tw_ceil_div(WINDOW_BYTES, part);
    double best = 0;
    for (size_t r = 0; r < TW_COUNT(readers); r++) {
        *(void **)&job.run = function_of(l, readers[r].name);
        double rate = read_rate(l, &job, part * job.copies > LONG_BYTES ? FEW : MANY);
        best = rate > best ? rate : best;
    }
    *gbps = best;
    return TW_OK;
}

double tw_limits_floor_ns(const tw_problem *problem, double gops, double gbps) {
    double ops = 2.0 * (double)problem->M * (double)problem->N * (double)problem->K;
    double compute = ops / gops, memory = (double)tw_problem_weight_bytes(problem) / gbps;
    return compute > memory ? compute : memory;
}
