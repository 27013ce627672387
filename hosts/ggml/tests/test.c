/* Products by the backend against straight loops: weights set whole, in pieces, anew and by memset,
 * or lying in a host's memory; experts; from several backends at once; aborted; attention; norms;
 * rotated heads; SWIGLU; results that move; plans that are kept; chains; and rows that nobody
 * reads.  GGML_BACKEND_PATH names the backend.
 *
 * usage: test     exits with how many cases are wrong */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-impl.h>
#include <ggml.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hosts/ggml/tests/test.h"

enum { K = 256, N = 70, M = 5, EXPERTS = 6, USED = 2 };

static ggml_backend_dev_t device;
ggml_backend_t backend;
static int wrong;

static float next(void) {
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (1 << 23) - 1;
}

float *numbers(size_t count) {
    float *v = malloc(count * sizeof *v);
    for (size_t i = 0; i < count; i++) v[i] = next();
    return v;
}

struct ggml_context *tensors(void) {
    return ggml_init((struct ggml_init_params){.mem_size = 1 << 20, .no_alloc = true});
}

/* Error over signal of y [rows, N] against x [rows, K] times w [N, K]. */
static double error_of(const float *w, const float *x, const float *y, int64_t rows) {
    double error = 0, signal = 0;
    for (int64_t m = 0; m < rows; m++)
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int k = 0; k < K; k++) sum += (double)w[n * K + k] * x[m * K + k];
            error += (sum - y[m * N + n]) * (sum - y[m * N + n]);
            signal += sum * sum;
        }
    return error / (signal > 0 ? signal : 1);
}

ggml_backend_buffer_t alloc_weights(struct ggml_context *context) {
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    return buffer;
}

bool compute_twice(struct ggml_cgraph *graph) {
    graph->uid = ggml_graph_next_uid();
    return ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS &&
           ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
}

void check(const char *what, double error) {
    bool right = error < 1e-9;
    printf("%-52s %s (%.1e)\n", what, right ? "ok" : "WRONG", error);
    wrong += !right;
}

void check_rounded(const char *what, double error, bool rounded) {
    check(what, rounded ? error / 1e5 : error);
}

/* ---- one matrix ---- */

typedef struct weights {
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *tensor;
} weights;

static weights weights_of(int64_t count, enum ggml_backend_buffer_usage usage) {
    weights w = {.context = tensors()};
    w.tensor = ggml_new_tensor_3d(w.context, GGML_TYPE_F32, K, N, count);
    w.buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(w.context, ggml_backend_dev_buffer_type(device));
    ggml_backend_buffer_set_usage(w.buffer, usage);
    return w;
}

static void release(weights *w) {
    ggml_backend_buffer_free(w->buffer);
    ggml_free(w->context);
}

static double product_of(int64_t rows, ggml_backend_t with, struct ggml_tensor *w,
                         const float *truth, const float *x_values) {
    struct ggml_context *context = tensors();
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, rows);
    struct ggml_tensor *y = ggml_mul_mat(context, w, x);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, with);
    ggml_backend_tensor_set(x, x_values, 0, sizeof(float) * (size_t)rows * K);
    float out[M * N];
    bool ran = ggml_backend_graph_compute(with, graph) == GGML_STATUS_SUCCESS;
    bool restored = y->op == GGML_OP_MUL_MAT;
    ggml_backend_tensor_get(y, out, 0, ggml_nbytes(y));
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    return ran && restored ? error_of(truth, x_values, out, rows) : INFINITY;
}

static double product(ggml_backend_t with, struct ggml_tensor *w, const float *truth,
                      const float *x_values) {
    return product_of(M, with, w, truth, x_values);
}

static void setting(void) {
    const size_t whole = sizeof(float) * N * K, half = whole / 2;
    float *a = numbers(N * K), *b = numbers(N * K), *x = numbers(M * K);
    const enum ggml_backend_buffer_usage said = GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    weights w = weights_of(1, said);
    ggml_backend_tensor_set(w.tensor, a, 0, whole);
    check("weights set as a whole", product(backend, w.tensor, a, x));
    ggml_backend_tensor_set(w.tensor, b, 0, whole);
    check("and set anew", product(backend, w.tensor, b, x));
    ggml_backend_tensor_memset(w.tensor, 0, 0, whole);
    ggml_backend_tensor_set(w.tensor, (char *)a + half, half, half);
    ggml_backend_tensor_set(w.tensor, a, 0, half);
    check("in pieces, the last one first", product(backend, w.tensor, a, x));
    release(&w);
    w = weights_of(1, said);
    ggml_backend_tensor_set(w.tensor, b, 0, half);
    ggml_backend_tensor_set(w.tensor, a, 0, half);
    ggml_backend_tensor_set(w.tensor, (char *)a + half, half, half);
    check("in pieces, one of them twice", product(backend, w.tensor, a, x));
    release(&w);
    w = weights_of(1, GGML_BACKEND_BUFFER_USAGE_ANY);
    ggml_backend_tensor_set(w.tensor, a, 0, whole);
    check("in a buffer for anything", product(backend, w.tensor, a, x));
    ggml_backend_tensor_set(w.tensor, (char *)b + half, half, half);
    memcpy((char *)a + half, (char *)b + half, half);
    check("of which a part changes", product(backend, w.tensor, a, x));
    float back[N * K];
    ggml_backend_tensor_get(w.tensor, back, 0, whole);
    check("and is read back", memcmp(back, a, whole) ? INFINITY : 0);
    release(&w);
    free(a), free(b), free(x);
}

/* ---- a host's memory ---- */

enum { MATRICES = 24 };
static const size_t matrix_bytes = sizeof(float) * N * K;

typedef struct host {
    char *memory;
    size_t bytes;
    float *values; /* what is in it */
    struct ggml_context *context;
    ggml_backend_buffer_t buffer;
    struct ggml_tensor *tensors[MATRICES];
} host;

/* Matrices of random numbers, in a file or, without one, in memory of nobody's. */
static host host_of(FILE *file, int protection, int flags) {
    host h = {.bytes = MATRICES * matrix_bytes, .values = numbers((size_t)MATRICES * N * K)};
    if (file) GGML_ASSERT(fwrite(h.values, h.bytes, 1, file) == 1 && !fflush(file));
    h.memory = mmap(NULL, h.bytes, protection, flags, file ? fileno(file) : -1, 0);
    GGML_ASSERT(h.memory != MAP_FAILED);
    if (protection & PROT_WRITE) {
        for (int i = 0; i < N * K; i++) h.values[i] += 1; /* what no file has */
        memcpy(h.memory, h.values, h.bytes);
    }
    return h;
}

static void place(host *h) {
    h->context = tensors();
    h->buffer = ggml_backend_dev_buffer_from_host_ptr(device, h->memory, h->bytes, matrix_bytes);
    ggml_backend_buffer_set_usage(h->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (size_t i = 0; i < MATRICES; i++) {
        h->tensors[i] = ggml_new_tensor_2d(h->context, GGML_TYPE_F32, K, N);
        ggml_backend_tensor_alloc(h->buffer, h->tensors[i], h->memory + i * matrix_bytes);
    }
}

static void take_away(host *h) {
    ggml_backend_buffer_free(h->buffer);
    ggml_free(h->context);
}

static double product_of_all(const host *h, int64_t rows, const float *x) {
    double worst = 0;
    for (size_t i = 0; i < MATRICES; i++)
        worst = fmax(worst, product_of(rows, backend, h->tensors[i], h->values + i * N * K, x));
    return worst;
}

/* In the buffer while there is one, and in the memory afterwards. */
static double same(const host *h, bool placed) {
    float back[N * K];
    for (size_t i = 0; placed && i < MATRICES; i++) {
        ggml_backend_tensor_get(h->tensors[i], back, 0, sizeof back);
        if (memcmp(back, h->values + i * N * K, sizeof back) != 0) return INFINITY;
    }
    return memcmp(h->memory, h->values, h->bytes) ? INFINITY : 0;
}

/* Which only ggml's own kernels can read. */
static double product_of_view(const host *h, const float *x) {
    struct ggml_tensor *w = h->tensors[0];
    struct ggml_tensor *view = ggml_view_2d(h->context, w, K, N, w->nb[1], 0);
    struct ggml_tensor *in = ggml_new_tensor_2d(h->context, GGML_TYPE_F32, K, M);
    ggml_backend_view_init(view);
    bool taken = ggml_backend_dev_supports_op(device, ggml_mul_mat(h->context, view, in));
    return taken ? product(backend, view, h->values, x) : INFINITY;
}

static void host_memory(const char *what, host h) {
    float *x = numbers(M * K);
    printf("%s:\n", what);
    place(&h);
    check("  a token", product_of_all(&h, 1, x));
    check("  another one", product_of_all(&h, 1, x));
    check("  some rows", product_of_all(&h, M, x));
    check("  a view", product_of_view(&h, x));
    check("  read back", same(&h, true));
    take_away(&h);
    place(&h);
    check("  anew, with rows first", product_of_all(&h, M, x));
    check("  and a token", product_of_all(&h, 1, x));
    take_away(&h);
    for (int i = 0; i < 20; i++) { /* in the midst of packing */
        place(&h);
        take_away(&h);
    }
    check("  untouched when the buffer is gone", same(&h, false));
    munmap(h.memory, h.bytes);
    free(h.values), free(x);
}

static void written_by_host(void) {
    host h = host_of(NULL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    float *x = numbers(M * K);
    const size_t half = matrix_bytes / 2;
    place(&h);
    product(backend, h.tensors[0], h.values, x);
    memcpy((char *)h.values + half, h.values + N * K, half);
    ggml_backend_tensor_set(h.tensors[0], h.values + N * K, half, half);
    check("  a part is set", product(backend, h.tensors[0], h.values, x));
    ggml_backend_tensor_set(h.tensors[1], h.values, 0, matrix_bytes);
    memcpy(h.values + N * K, h.values, matrix_bytes);
    check("  and a whole", product(backend, h.tensors[1], h.values, x));
    check("  in the host's memory", same(&h, true));
    take_away(&h);
    munmap(h.memory, h.bytes);
    free(h.values), free(x);
}

/* Once they were multiplied by, layers are what counts. */
static void written_file(FILE *file) {
    host h = host_of(file, PROT_READ, MAP_SHARED);
    float *x = numbers(M * K), *other = calloc(1, h.bytes);
    place(&h);
    product_of_all(&h, M, x);
    rewind(file);
    GGML_ASSERT(fwrite(other, h.bytes, 1, file) == 1 && !fflush(file));
    check("  a token behind rows", product_of_all(&h, 1, x));
    take_away(&h);
    munmap(h.memory, h.bytes);
    free(h.values), free(x), free(other);
}

static void host_memories(void) {
    FILE *file = tmpfile();
    host_memory("a file, mapped for reading", host_of(file, PROT_READ, MAP_SHARED));
    rewind(file);
    written_file(file);
    rewind(file);
    host_memory("a private mapping", host_of(file, PROT_READ | PROT_WRITE, MAP_PRIVATE));
    fclose(file);
    host_memory("memory of no file",
                host_of(NULL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS));
    written_by_host();
}

/* A process that ends while layers are made of what it has mapped. */
static int leave_early(long microseconds) {
    host h = host_of(tmpfile(), PROT_READ, MAP_SHARED);
    for (int i = 0; i < 20; i++) place(&h);
    usleep((useconds_t)microseconds);
    return 0;
}

/* ---- experts ---- */

static void experts(void) {
    float *a = numbers((size_t)EXPERTS * N * K), *values = numbers((size_t)M * K);
    weights w = weights_of(EXPERTS, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(w.tensor, a, 0, sizeof(float) * EXPERTS * N * K);
    struct ggml_context *context = tensors();
    struct ggml_tensor *x = ggml_new_tensor_3d(context, GGML_TYPE_F32, K, 1, M);
    struct ggml_tensor *ids = ggml_new_tensor_2d(context, GGML_TYPE_I32, USED, M);
    struct ggml_tensor *y = ggml_mul_mat_id(context, w.tensor, x, ids);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    int32_t routes[M * USED];
    for (int i = 0; i < M * USED; i++) routes[i] = i * 5 % EXPERTS;
    ggml_backend_tensor_set(x, values, 0, sizeof(float) * M * K);
    ggml_backend_tensor_set(ids, routes, 0, sizeof routes);
    float out[M * USED * N];
    double worst = 0;
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) worst = INFINITY;
    ggml_backend_tensor_get(y, out, 0, sizeof out);
    for (int i = 0; i < M * USED; i++)
        worst = fmax(worst, error_of(a + (size_t)routes[i] * N * K, values + (size_t)(i / USED) * K,
                                     out + (size_t)i * N, 1));
    check("experts", worst);
    routes[3] = EXPERTS;
    ggml_backend_tensor_set(ids, routes, 0, sizeof routes);
    check("an expert that is not there is an error",
          ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS ? INFINITY : 0);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    release(&w);
    free(a), free(values);
}

/* ---- several backends over one tensor that nobody has packed yet ---- */

static struct {
    weights w;
    float *a, *x;
    double worst[2];
} shared;

static void *compute(void *arg) {
    double *worst = arg;
    ggml_backend_t own = ggml_backend_dev_init(device, NULL);
    for (int i = 0; i < 20; i++)
        *worst = fmax(*worst, product(own, shared.w.tensor, shared.a, shared.x));
    ggml_backend_free(own);
    return NULL;
}

static void at_once(void) {
    pthread_t threads[2];
    shared.a = numbers(N * K);
    shared.x = numbers(M * K);
    for (int round = 0; round < 10; round++) {
        shared.w = weights_of(1, GGML_BACKEND_BUFFER_USAGE_ANY);
        ggml_backend_tensor_set(shared.w.tensor, shared.a, 0, sizeof(float) * N * K);
        for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, compute, &shared.worst[i]);
        for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
        release(&shared.w);
    }
    check("two backends at once", fmax(shared.worst[0], shared.worst[1]));
    free(shared.a), free(shared.x);
}

/* ---- ggml's abort callback ---- */

static bool stop_after(void *calls) { return --*(int *)calls < 0; }

static void aborting(void) {
    enum { NODES = 8, CALLS = 3 };
    ggml_backend_set_abort_callback_t set =
        (ggml_backend_set_abort_callback_t)ggml_backend_reg_get_proc_address(
            ggml_backend_dev_backend_reg(device), "ggml_backend_set_abort_callback");
    float *a = numbers(N * K), *values = numbers(K), out[N], untouched[N] = {0};
    weights w = weights_of(1, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(w.tensor, a, 0, sizeof(float) * N * K);
    struct ggml_context *context = tensors();
    struct ggml_tensor *x = ggml_new_tensor_2d(context, GGML_TYPE_F32, K, 1);
    struct ggml_tensor *y = ggml_mul_mat(context, w.tensor, x);
    for (int i = 1; i < NODES; i++) y = ggml_scale(context, y, -1);
    struct ggml_cgraph *graph = ggml_new_graph(context);
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    ggml_backend_tensor_set(x, values, 0, sizeof(float) * K);
    ggml_backend_tensor_set(y, untouched, 0, sizeof untouched);
    int calls = CALLS;
    set(backend, stop_after, &calls);
    bool aborted = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_ABORTED;
    ggml_backend_tensor_get(y, out, 0, sizeof out);
    check("a graph that is aborted",
          aborted && calls < 0 && !memcmp(out, untouched, sizeof out) ? 0 : INFINITY);
    set(backend, NULL, NULL);
    bool ran = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS;
    ggml_backend_tensor_get(y, out, 0, sizeof out);
    for (int n = 0; n < N; n++) out[n] *= NODES % 2 ? 1 : -1;
    check("and the same again, to its end", ran ? error_of(a, values, out, 1) : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(context);
    release(&w);
    free(a), free(values);
}

int main(int argc, char **argv) {
    ggml_backend_load_all();
    device = ggml_backend_dev_by_name("Tilewright");
    if (!device) {
        fprintf(stderr, "test: no device Tilewright; GGML_BACKEND_PATH names the backend\n");
        return 1;
    }
    if (argc > 2 && !strcmp(argv[1], "leave")) return leave_early(atol(argv[2]));
    backend = ggml_backend_dev_init(device, NULL);
    setting();
    host_memories();
    experts();
    at_once();
    aborting();
    attentions();
    norms();
    heads();
    glus();
    moves();
    plans();
    chains();
    rows_read();
    ggml_backend_free(backend);
    return wrong;
}
