/* A host engine in one file: what one copies to run a model's layers through Tilewright.
 *
 *     y = down( silu(gate(x)) * up(x) )
 *
 * is the SwiGLU MLP of a Llama-like model.  Its three weight matrices come out of a GGUF file as
 * they are quantized there; memory, threads and log are the host's own; kernels come from the
 * cache, and only where that has none are they generated.  The result is checked against plain C.
 *
 *     host MODEL.gguf [LAYER [SCHEME]]      SCHEME: how x is quantized, "a=none" or "a=i8g32" */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <tilewright/model.h>
#include <time.h>

/* Every function here that can fail returns a tw_status and has said why: the library's sentence
 * lies in tw_error_message() until this thread's next failure, so it is printed at once. */
#define FAIL(status, ...) (fprintf(stderr, "host: " __VA_ARGS__), fputc('\n', stderr), (status))

#define TRY(call)                                                                                  \
    do {                                                                                           \
        tw_status status_ = (call);                                                                \
        if (status_ != TW_OK)                                                                      \
            return FAIL(status_, "%s: %s", tw_status_name(status_), tw_error_message());           \
    } while (0)

/* ---- the host's memory, log and threads ------------------------------------------------------ */

static atomic_llong bytes_alive; /* weights, plans and scratch: what a budget must know */

static void *host_alloc(void *user, size_t size, size_t align) {
    (void)user;
    void *p = NULL;
    if (posix_memalign(&p, align < sizeof p ? sizeof p : align, size)) return NULL;
    atomic_fetch_add(&bytes_alive, (long long)size);
    return p;
}

static void host_free(void *user, void *p, size_t size) {
    (void)user;
    if (p) atomic_fetch_sub(&bytes_alive, (long long)size);
    free(p);
}

/* Lines of every level come here, from any thread; the host decides what it wants to hear. */
static void host_log(void *user, tw_log_level level, const char *line) {
    if (level <= TW_LOG_WARN) fprintf((FILE *)user, "host: tilewright says: %s\n", line);
}

enum { HELPERS = 1 }; /* beside the calling thread */

typedef struct pool {
    pthread_t helpers[HELPERS];
    pthread_barrier_t gate; /* all meet here where work begins, and where it ends */
    pthread_mutex_t turn;   /* one run() at a time: several threads may call forward() */
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t count;       /* 0: the helpers go home */
    atomic_size_t next; /* the first index that nobody has taken */
} pool;

static void pool_drain(pool *p) {
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < p->count;) p->task(p->arg, i);
}

static void *pool_helper(void *user) {
    pool *p = user;
    while (pthread_barrier_wait(&p->gate), p->count) {
        pool_drain(p);
        pthread_barrier_wait(&p->gate);
    }
    return NULL;
}

/* The hook: task(arg, i) once for each i below count, on any threads; returns when all are done. */
static void pool_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    pool *p = user;
    if (!count) return;
    pthread_mutex_lock(&p->turn);
    p->task = task, p->arg = arg, p->count = count;
    atomic_store(&p->next, 0);
    pthread_barrier_wait(&p->gate);
    pool_drain(p);
    pthread_barrier_wait(&p->gate);
    pthread_mutex_unlock(&p->turn);
}

static int pool_start(pool *p) {
    int bad = pthread_barrier_init(&p->gate, NULL, HELPERS + 1);
    for (int i = 0; i < HELPERS && !bad; i++)
        bad = pthread_create(&p->helpers[i], NULL, pool_helper, p);
    return !bad;
}

static void pool_stop(pool *p) {
    p->count = 0;
    pthread_barrier_wait(&p->gate);
    for (int i = 0; i < HELPERS; i++) pthread_join(p->helpers[i], NULL);
}

/* ---- the host's file reader: GGUF, as far as one tensor needs it ----------------------------- */

/* A file in memory and a place in it; `bad` once something lay past the end. */
typedef struct gguf {
    const uint8_t *bytes;
    uint64_t size, at;
    int bad;
} gguf;

typedef struct tensor {
    uint32_t type;        /* enum ggml_type */
    int64_t N, K;         /* outputs and inputs of the layer */
    int64_t block, bytes; /* elements and bytes of a block of this type */
    const uint8_t *data;  /* N rows of K / block blocks, in the file */
} tensor;

static const uint8_t *take(gguf *g, uint64_t size) {
    if (g->bad || size > g->size - g->at) return g->bad = 1, NULL;
    g->at += size;
    return g->bytes + g->at - size;
}

static uint64_t take_number(gguf *g, uint64_t size) {
    uint64_t value = 0;
    const uint8_t *p = take(g, size);
    if (p) memcpy(&value, p, size); /* the file is little-endian, and so is x86-64 */
    return value;
}

/* Whether the text that stands here is `name`. */
static int take_text(gguf *g, const char *name) {
    uint64_t size = take_number(g, 8);
    const uint8_t *text = take(g, size);
    return text && size == strlen(name) && !memcmp(text, name, size);
}

/* A value of the header, of which the number alone matters here. */
static uint64_t take_value(gguf *g, uint64_t type) {
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    enum { TEXT = 8, ARRAY = 9 };
    if (type == TEXT) return (uint64_t)take_text(g, "");
    if (type != ARRAY) return take_number(g, type < sizeof sizes ? sizes[type] : UINT64_MAX);
    uint64_t element = take_number(g, 4), count = take_number(g, 8);
    if (element == ARRAY) g->bad = 1; /* how deep would that go? */
    for (; count && !g->bad; count--) take_value(g, element);
    return 0;
}

static tw_status find_tensor(gguf file, const char *name, tensor *out) {
    gguf *g = &file;
    uint64_t offset = 0, align = 32;
    int found = 0, is_gguf = take_number(g, 4) == 0x46554747; /* "GGUF" */
    uint64_t version = take_number(g, 4), tensors = take_number(g, 8), values = take_number(g, 8);
    if (g->bad || !is_gguf || version < 2 || version > 3)
        return FAIL(TW_FORMAT, "the file is no GGUF of version 2 or 3");
    for (; values && !g->bad; values--) {
        int is_alignment = take_text(g, "general.alignment");
        uint64_t value = take_value(g, take_number(g, 4));
        if (is_alignment) align = value;
    }
    for (; tensors && !g->bad; tensors--) {
        int64_t shape[4] = {1, 1, 1, 1}; /* the innermost dimension stands first */
        int this_one = take_text(g, name);
        uint64_t dims = take_number(g, 4);
        for (uint64_t d = 0; d < dims && !g->bad; d++) shape[d % 4] = (int64_t)take_number(g, 8);
        uint32_t type = (uint32_t)take_number(g, 4);
        uint64_t begin = take_number(g, 8);
        if (!this_one) continue;
        found = dims == 2, offset = begin;
        *out = (tensor){type, shape[1], shape[0], 0, 0, NULL};
    }
    if (g->bad || !align || align & (align - 1)) return FAIL(TW_FORMAT, "the header is broken");
    if (!found) return FAIL(TW_FORMAT, "there is no matrix %s", name);
    tw_scheme scheme;
    TRY(tw_gguf_type(out->type, &scheme, &out->block, &out->bytes));
    uint64_t N = (uint64_t)out->N, K = (uint64_t)out->K, blocks = K / (uint64_t)out->block;
    if (N > 1 << 28 || K > 1 << 28 || out->K % out->block)
        return FAIL(TW_FORMAT, "%s: shape", name);
    take(g, -g->at % align); /* the data begins at a multiple of it */
    take(g, offset);
    out->data = take(g, N * blocks * (uint64_t)out->bytes);
    return out->data ? TW_OK : FAIL(TW_FORMAT, "%s: cut short", name);
}

/* ---- a layer from the file ------------------------------------------------------------------- */

enum { GATE, UP, DOWN };
typedef struct mlp {
    tw_context *context;
    tensor weights[3];
    tw_linear *layers[3];
} mlp;

/* Of a matrix as the file has it: the library reads ggml's blocks, once, and packs them its own
 * way, so the file may be unmapped afterwards.  x is quantized as the user asks, not as ggml
 * would. */
static tw_status layer_from_tensor(tw_context *context, const tensor *t, const char *x_scheme,
                                   tw_act act, tw_linear **out) {
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    tw_scheme asked;
    char text[80];
    snprintf(text, sizeof text, "w=i8,g=32,s=f16,%s", x_scheme); /* for its last fields alone */
    TRY(tw_scheme_parse(text, &asked));
    TRY(tw_gguf_type(t->type, &desc.scheme, NULL, NULL));
    desc.scheme.act_quant = asked.act_quant, desc.scheme.act_group = asked.act_group;
    desc.scheme.fpmath = asked.fpmath;
    desc.N = t->N, desc.K = t->K, desc.act = act;
    TRY(tw_linear_create_gguf(context, &desc, t->type, t->data, 0, NULL, out));
    return TW_OK;
}

/* ---- the MLP: prepared at start, then only run ----------------------------------------------- */

enum { PROMPT = 16 }; /* rows of x: one while generating, more at a time while reading a prompt */

static void mlp_close(mlp *m) {
    for (int i = 0; i < 3; i++) tw_linear_destroy(m->layers[i]);
    tw_context_destroy(m->context); /* last: the layers belong to it */
    memset(m->layers, 0, sizeof m->layers);
    m->context = NULL;
}

static tw_status mlp_open(mlp *m, pool *threads, tw_mode mode, const char *x_scheme) {
    tw_options options = TW_OPTIONS_INIT;
    options.mode = mode;
    options.allocator = (tw_allocator){host_alloc, host_free, NULL};
    options.log = (tw_log){host_log, stderr};
    options.parallel = (tw_parallel){pool_run, threads, HELPERS + 1};
    TRY(tw_context_create(&options, &m->context));
    /* Whatever takes time happens here: from now on a forward() compiles and allocates nothing. */
    for (int i = 0; i < 3; i++) {
        const int64_t rows[] = {1, PROMPT};
        tw_act act = i == GATE ? TW_ACT_SILU : TW_ACT_NONE;
        tw_status status =
            layer_from_tensor(m->context, &m->weights[i], x_scheme, act, &m->layers[i]);
        if (status) return status;
        TRY(tw_linear_prepare(m->layers[i], rows, 2, 1));
    }
    return TW_OK;
}

/* y [M,N of down] from x [M,K of gate]; g and u [M,N of gate] are the host's scratch. */
static tw_status mlp_forward(mlp *m, int64_t M, float *x, float *g, float *u, float *y) {
    int64_t outer = m->weights[GATE].K, inner = m->weights[GATE].N;
    tw_tensor tx = TW_TENSOR_2D(x, TW_F32, M, outer), ty = TW_TENSOR_2D(y, TW_F32, M, outer);
    tw_tensor tg = TW_TENSOR_2D(g, TW_F32, M, inner), tu = TW_TENSOR_2D(u, TW_F32, M, inner);
    TRY(tw_linear_forward(m->layers[GATE], &tx, &tg)); /* with silu */
    TRY(tw_linear_forward(m->layers[UP], &tx, &tu));
    for (int64_t i = 0; i < M * inner; i++) g[i] *= u[i];
    TRY(tw_linear_forward(m->layers[DOWN], &tg, &ty));
    return TW_OK;
}

/* ---- the same in plain C, from the file's own bytes ------------------------------------------ */

static float half_to_float(const uint8_t *p) {
    int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    float f = ldexpf((float)(exponent ? fraction | 1024 : fraction * 2), exponent - 25);
    return bits >> 15 ? -f : f;
}

/* The types that this check knows; the library knows nearly all of ggml's. */
enum { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };

/* Weight i of a block of 32, as ggml defines it. */
static float block_value(uint32_t type, const uint8_t *block, int64_t i) {
    float d = half_to_float(block);
    if (type == Q8_0) return d * (float)(int8_t)block[2 + i];
    int q = block[(type == Q4_1 ? 4 : 2) + i % 16] >> (i < 16 ? 0 : 4) & 15;
    return type == Q4_1 ? d * (float)q + half_to_float(block + 2) : d * (float)(q - 8);
}

static void plain_linear(const tensor *t, const float *x, float *y) {
    for (int64_t n = 0; n < t->N; n++) {
        const uint8_t *row = t->data + n * (t->K / 32) * t->bytes;
        double sum = 0;
        for (int64_t k = 0; k < t->K; k++)
            sum += (double)x[k] * block_value(t->type, row + k / 32 * t->bytes, k % 32);
        y[n] = (float)sum;
    }
}

static void plain_mlp(const mlp *m, const float *x, float *g, float *u, float *y) {
    plain_linear(&m->weights[GATE], x, g);
    plain_linear(&m->weights[UP], x, u);
    for (int64_t i = 0; i < m->weights[GATE].N; i++) g[i] = g[i] / (1 + expf(-g[i])) * u[i];
    plain_linear(&m->weights[DOWN], g, y);
}

/* Runs M rows both ways; the error may be `limit` of y, by root mean square, and never NaN. */
static tw_status check(mlp *m, int64_t M, double limit) {
    size_t outer = (size_t)m->weights[GATE].K, inner = (size_t)m->weights[GATE].N, rows = (size_t)M;
    float *x = malloc((3 * outer + 2 * inner) * rows * sizeof(float));
    if (!x) return FAIL(TW_MEMORY, "no room for x");
    float *y = x + outer * rows, *plain = y + outer * rows, *g = plain + outer * rows;
    float *u = g + inner * rows;
    for (size_t i = 0; i < outer * rows; i++) x[i] = (float)((i * 7919 + i / 64) % 257) / 128 - 1;
    for (size_t r = 0; r < rows; r++) plain_mlp(m, x + r * outer, g, u, plain + r * outer);
    tw_status status = TW_OK;
    double best = INFINITY, worst = 0, errors = 0, squares = 0;
    for (int i = 0; i < 20 && !status; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        status = mlp_forward(m, M, x, g, u, y);
        clock_gettime(CLOCK_MONOTONIC, &b);
        best =
            fmin(best, difftime(b.tv_sec, a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3);
    }
    for (size_t i = 0; i < outer * rows; i++) {
        double error = (double)y[i] - plain[i];
        worst = fmax(worst, fabs(error));
        errors += error * error, squares += (double)plain[i] * plain[i];
    }
    free(x);
    if (status) return status;
    double share = sqrt(errors / squares);
    printf("M=%-3lld %9.1f us   error: %.2e at most, %.2e of y (limit %.0e)\n", (long long)M, best,
           worst, share, limit);
    return share <= limit ? TW_OK : FAIL(TW_VERIFY, "this is not what plain C computes");
}

static tw_status run(gguf file, const char *layer, const char *x_scheme, pool *threads) {
    mlp m = {0};
    const char *const words[] = {"gate", "up", "down"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%.20s.ffn_%s.weight", layer, words[i]);
        if (find_tensor(file, name, &m.weights[i])) return TW_FORMAT;
        uint32_t type = m.weights[i].type;
        if (type != Q4_0 && type != Q4_1 && type != Q8_0)
            return FAIL(TW_UNSUPPORTED, "%s: type %u, which plain C here does not know", name,
                        type);
    }
    const tensor *gate = &m.weights[GATE], *up = &m.weights[UP], *down = &m.weights[DOWN];
    if (up->N != gate->N || up->K != gate->K || down->N != gate->K || down->K != gate->N)
        return FAIL(TW_FORMAT, "gate, up and down do not fit together");
    /* Deployments want nothing but the cache: no compiler, no surprise.  What it lacks is a reason
     * to tell somebody (who runs `tilewright tune`), and here to go on with untuned kernels. */
    tw_mode mode = TW_MODE_CACHED_ONLY;
    tw_status status = mlp_open(&m, threads, mode, x_scheme);
    if (status == TW_MISS || status == TW_UNSUPPORTED) {
        fprintf(stderr, "host: going on without a tuned cache\n");
        mlp_close(&m);
        status = mlp_open(&m, threads, mode = TW_MODE_DEFAULT, x_scheme);
    }
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    if (!status) status = tw_linear_plan(m.layers[GATE], 1, &plan);
    if (!status)
        printf("%s: %s %s (%s), %lld bytes\n", mode == TW_MODE_DEFAULT ? "default" : "cached only",
               plan.kernel, plan.config, plan.origin, (long long)bytes_alive);
    /* x in 8 bits costs about half a percent a layer; unquantized, f32 adds in another order. */
    double limit = strcmp(x_scheme, "a=none") ? 3e-2 : 1e-5;
    if (!status) status = check(&m, 1, limit);
    if (!status) status = check(&m, PROMPT, limit);
    mlp_close(&m);
    return status;
}

int main(int argc, char **argv) {
    static pool threads = {.turn = PTHREAD_MUTEX_INITIALIZER};
    struct stat facts;
    int fd = argc > 1 ? open(argv[1], O_RDONLY) : -1;
    void *bytes = MAP_FAILED;
    if (fd >= 0 && !fstat(fd, &facts))
        bytes = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED || !pool_start(&threads)) {
        fprintf(stderr, "usage: host MODEL.gguf [LAYER [SCHEME]]\n");
        return 2;
    }
    gguf file = {bytes, (uint64_t)facts.st_size, 0, 0};
    const char *layer = argc > 2 ? argv[2] : "0";
    tw_status status = run(file, layer, argc > 3 ? argv[3] : "a=i8g32", &threads);
    pool_stop(&threads);
    if (!status && bytes_alive) return FAIL(TW_INTERNAL, "%lld bytes leaked", bytes_alive);
    return status != TW_OK;
}
