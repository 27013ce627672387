/* Tilewright's parallel-for on ggml's own threads.
 *
 * ggml calls a custom operation from each of its threads, which wait for one another by spinning.
 * So do these: the first to come leads, as others wait for what it does before it has a job.  It
 * publishes a job by counting `epoch` up, they take tasks of it until there are none, and say so.
 */
#define _GNU_SOURCE /* sched_getaffinity */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "hosts/ggml/backend.h"

/* What this thread leads at the moment. */
static _Thread_local twg_operation *leading;

/* `spins` counts the waiter's turns: who has waited for long is keeping others from the CPU. */
static void relax(unsigned *spins) {
    enum { SOME = 1 << 12 };
    if (++*spins % SOME == 0) sched_yield();
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work_off(twg_operation *o) {
    size_t i;
    while ((i = atomic_fetch_add_explicit(&o->next, 1, memory_order_relaxed)) < o->count)
        o->task(o->arg, i);
}

static void publish(twg_operation *o, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    o->task = task;
    o->arg = arg;
    o->count = count;
    atomic_store_explicit(&o->next, 0, memory_order_relaxed);
    atomic_store_explicit(&o->working, o->nth - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&o->epoch, 1, memory_order_release);
}

/* A job is worked off by all before the next is published, so that none can be missed. */
static void follow(twg_operation *o) {
    unsigned seen = 0, epoch;
    for (;;) {
        unsigned spins = 0;
        while ((epoch = atomic_load_explicit(&o->epoch, memory_order_acquire)) == seen)
            relax(&spins);
        seen = epoch;
        if (!o->task) return;
        work_off(o);
        atomic_fetch_sub_explicit(&o->working, 1, memory_order_release);
    }
}

void twg_team_run(twg_operation *operation, int nth, void (*lead)(void *arg), void *arg) {
    if (atomic_exchange_explicit(&operation->led, true, memory_order_relaxed)) {
        follow(operation);
        return;
    }
    operation->nth = nth;
    leading = operation;
    lead(arg);
    leading = NULL;
    publish(operation, NULL, NULL, 0);
}

/* ---- outside of a graph's operations: loading a model, tuning ---- */

typedef struct loose_job {
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t count;
    atomic_size_t next;
} loose_job;

static void loose_operation(struct ggml_tensor *dst, int ith, int nth, void *user) {
    loose_job *job = *(loose_job **)user;
    size_t i;
    (void)dst, (void)ith, (void)nth;
    while ((i = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->count)
        job->task(job->arg, i);
}

/* A graph of one custom operation on a CPU backend of its own; kept for the process. */
static struct {
    pthread_mutex_t lock;
    ggml_backend_t backend;
    struct ggml_cgraph *graph;
    loose_job *job;
} loose = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool loose_start(void) {
    if (loose.graph) return true;
    struct ggml_init_params params = {.mem_size = ggml_tensor_overhead() + ggml_graph_overhead(),
                                      .no_alloc = true};
    struct ggml_context *context = ggml_init(params);
    loose.backend = ggml_backend_dev_init(twg_cpu_device(), NULL);
    ggml_backend_set_n_threads_t set =
        (ggml_backend_set_n_threads_t)twg_cpu_function("ggml_backend_set_n_threads");
    if (!context || !loose.backend || !set) return false;
    set(loose.backend, twg_parallel_threads());
    struct ggml_tensor *node = ggml_custom_4d(context, GGML_TYPE_F32, 1, 1, 1, 1, NULL, 0,
                                              loose_operation, GGML_N_TASKS_MAX, &loose.job);
    loose.graph = ggml_new_graph(context);
    ggml_build_forward_expand(loose.graph, node);
    return true;
}

static void run_loose(void (*task)(void *arg, size_t i), void *arg, size_t count) {
    loose_job job = {.task = task, .arg = arg, .count = count};
    pthread_mutex_lock(&loose.lock);
    loose.job = &job;
    bool ran = loose_start() &&
               ggml_backend_graph_compute(loose.backend, loose.graph) == GGML_STATUS_SUCCESS;
    pthread_mutex_unlock(&loose.lock);
    /* What is left, which is all where ggml could not run it. */
    if (!ran) loose_operation(NULL, 0, 1, &(loose_job *){&job});
}

void twg_parallel_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    twg_operation *o = leading;
    (void)user;
    if (!o) {
        if (!twg_packer_run(task, arg, count)) run_loose(task, arg, count);
        return;
    }
    if (o->nth == 1) {
        for (size_t i = 0; i < count; i++) task(arg, i);
        return;
    }
    publish(o, task, arg, count);
    work_off(o);
    unsigned spins = 0;
    while (atomic_load_explicit(&o->working, memory_order_acquire)) relax(&spins);
}

int32_t twg_parallel_threads(void) {
    const char *text = getenv("TW_THREADS");
    long count = text ? strtol(text, NULL, 10) : 0;
    if (count < 1) {
        cpu_set_t set;
        count = sched_getaffinity(0, sizeof set, &set) ? sysconf(_SC_NPROCESSORS_ONLN)
                                                       : CPU_COUNT(&set);
    }
    return count < 1 ? 1 : count > GGML_MAX_N_THREADS ? GGML_MAX_N_THREADS : (int32_t)count;
}
