/* Computing a graph: ggml's CPU backend runs what plan.c puts in its place, on one set of threads
 * that lives as long as the backend. */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

typedef struct backend {
    ggml_backend_t cpu; /* runs the graphs, for us alone */
    ggml_backend_set_n_threads_t set_n_threads;
    ggml_threadpool_t threads; /* of the most that was asked for; NULL: ggml makes one each time */
    int most_threads;
    ggml_backend_set_abort_callback_t set_abort_callback;
    int n_threads;
    twg_plan *plan;
} backend;

static enum ggml_status graph_compute(ggml_backend_t backend_, struct ggml_cgraph *graph) {
    backend *b = backend_->context;
    struct ggml_cgraph *planned = twg_plan_begin(b->plan, graph, b->n_threads);
    if (!planned) return GGML_STATUS_ALLOC_FAILED;
    enum ggml_status status = ggml_backend_graph_compute(b->cpu, planned);
    bool right = twg_plan_end(b->plan);
    return status == GGML_STATUS_SUCCESS && !right ? GGML_STATUS_FAILED : status;
}

/* What ggml's CPU backend offers by name. */
typedef ggml_threadpool_t threadpool_new(struct ggml_threadpool_params *params);
typedef void threadpool_free(ggml_threadpool_t threadpool);
typedef void set_threadpool(ggml_backend_t backend, ggml_threadpool_t threadpool);

static const char *get_name(ggml_backend_t backend_) {
    (void)backend_;
    return "Tilewright";
}

static void free_backend(ggml_backend_t backend_) {
    backend *b = backend_->context;
    threadpool_free *destroy = (threadpool_free *)twg_cpu_function("ggml_threadpool_free");
    ggml_backend_free(b->cpu);
    if (b->threads && destroy) destroy(b->threads);
    twg_context_release();
    twg_plan_destroy(b->plan);
    free(b);
    free(backend_);
}

static const struct ggml_backend_i backend_interface = {
    .get_name = get_name,
    .free = free_backend,
    .graph_compute = graph_compute,
};

static ggml_guid *guid(void) {
    static ggml_guid id = {0x74, 0x69, 0x6c, 0x65, 0x77, 0x72, 0x69, 0x67,
                           0x68, 0x74, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x01};
    return &id;
}

ggml_backend_t twg_backend_create(ggml_backend_dev_t device) {
    backend *b = calloc(1, sizeof *b);
    ggml_backend_t made = calloc(1, sizeof *made);
    ggml_backend_t cpu = ggml_backend_dev_init(twg_cpu_device(), NULL);
    twg_plan *plan = twg_plan_create();
    if (!b || !made || !cpu || !plan || !twg_context_hold()) {
        if (plan) twg_plan_destroy(plan);
        free(b);
        free(made);
        if (cpu) ggml_backend_free(cpu);
        return NULL;
    }
    b->cpu = cpu;
    b->plan = plan;
    b->n_threads = GGML_DEFAULT_N_THREADS;
    b->set_n_threads = (ggml_backend_set_n_threads_t)twg_cpu_function("ggml_backend_set_n_threads");
    b->set_abort_callback =
        (ggml_backend_set_abort_callback_t)twg_cpu_function("ggml_backend_set_abort_callback");
    *made = (struct ggml_backend){guid(), backend_interface, device, b};
    return made;
}

/* Without OpenMP ggml would start and end its threads with each graph. */
static void set_pool(backend *b, int n_threads) {
    threadpool_new *create = (threadpool_new *)twg_cpu_function("ggml_threadpool_new");
    threadpool_free *destroy = (threadpool_free *)twg_cpu_function("ggml_threadpool_free");
    set_threadpool *set = (set_threadpool *)twg_cpu_function("ggml_backend_cpu_set_threadpool");
    if (!create || !destroy || !set || n_threads <= b->most_threads) return;
    struct ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
    set(b->cpu, NULL);
    if (b->threads) destroy(b->threads);
    b->threads = n_threads ? create(&params) : NULL;
    b->most_threads = b->threads ? n_threads : 0;
    set(b->cpu, b->threads);
}

void twg_backend_set_n_threads(ggml_backend_t backend_, int n_threads) {
    backend *b = backend_->context;
    b->n_threads = n_threads;
    set_pool(b, n_threads);
    if (b->set_n_threads) b->set_n_threads(b->cpu, n_threads);
}

void twg_backend_set_abort_callback(ggml_backend_t backend_, ggml_abort_callback callback,
                                    void *data) {
    const backend *b = backend_->context;
    if (b->set_abort_callback) b->set_abort_callback(b->cpu, callback, data);
}
