/* Packing in the background: the layers of a mapped file are made while llama.cpp sets up the rest,
 * and while nobody computes.
 *
 * Tensors wait in a line.  Threads of our own, one fewer than kernels have, take them from it and
 * end when it is empty; who needs layers now works along.  The parallel loops of whoever packs a
 * tensor stand open to all who find the line empty, so that one large tensor is nobody's alone. */
#include <pthread.h>
#include <stdlib.h>

#include "hosts/ggml/backend.h"

/* A loop that others may join. */
typedef struct open_loop {
    struct open_loop *next;
    void (*task)(void *arg, size_t i);
    void *arg;
    size_t count;
    atomic_size_t at;
    int guests;
} open_loop;

static struct {
    pthread_mutex_t lock;   /* over what follows */
    pthread_cond_t changed; /* any of it */
    twg_weights *first;     /* that wait, in the order of the file */
    twg_weights **end;      /* where the next one is put; NULL: at `first` */
    open_loop *loops;
    int taken;   /* tensors that are being packed */
    int threads; /* of ours, alive */
    atomic_int pauses;
} packer = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static _Thread_local bool packing, in_background;

/* A graph that is computed without the layers has the machine to itself. */
static void stand_back(void) {
    if (!in_background || !atomic_load_explicit(&packer.pauses, memory_order_relaxed)) return;
    pthread_mutex_lock(&packer.lock);
    while (atomic_load(&packer.pauses)) pthread_cond_wait(&packer.changed, &packer.lock);
    pthread_mutex_unlock(&packer.lock);
}

static void work_off(open_loop *loop) {
    for (size_t i; (i = atomic_fetch_add(&loop->at, 1)) < loop->count; stand_back())
        loop->task(loop->arg, i);
}

bool twg_packer_run(void (*task)(void *arg, size_t i), void *arg, size_t count) {
    if (!packing) return false;
    open_loop loop = {.task = task, .arg = arg, .count = count};
    pthread_mutex_lock(&packer.lock);
    loop.next = packer.loops;
    packer.loops = &loop;
    pthread_cond_broadcast(&packer.changed);
    pthread_mutex_unlock(&packer.lock);
    work_off(&loop);
    pthread_mutex_lock(&packer.lock);
    open_loop **at = &packer.loops;
    while (*at != &loop) at = &(*at)->next;
    *at = loop.next;
    while (loop.guests) pthread_cond_wait(&packer.changed, &packer.lock);
    pthread_mutex_unlock(&packer.lock);
    return true;
}

/* ---- with the lock held ---- */

static void remove_from_line(twg_weights *w) {
    twg_weights **at = &packer.first;
    while (*at != w) at = &(*at)->waits_behind;
    *at = w->waits_behind;
    if (!*at) packer.end = at;
}

/* The lock is let go of during the work. */
static void pack(twg_weights *w) {
    remove_from_line(w);
    w->state = TWG_TAKEN;
    packer.taken++;
    pthread_mutex_unlock(&packer.lock);
    packing = true;
    twg_weights_fill(w, w->like.data);
    packing = false;
    pthread_mutex_lock(&packer.lock);
    packer.taken--;
    atomic_store_explicit(&w->state, TWG_DONE, memory_order_release);
    pthread_cond_broadcast(&packer.changed);
}

static void join(open_loop *loop) {
    loop->guests++;
    pthread_mutex_unlock(&packer.lock);
    packing = true; /* loops in loops are nobody's but the guest's, who works them off alone */
    work_off(loop);
    packing = false;
    pthread_mutex_lock(&packer.lock);
    loop->guests--;
    pthread_cond_broadcast(&packer.changed);
}

/* Joins a loop, or waits until there may be one or a tensor is done. */
static void help_others(void) {
    for (open_loop *loop = packer.loops; loop; loop = loop->next)
        if (atomic_load(&loop->at) < loop->count) {
            join(loop);
            return;
        }
    pthread_cond_wait(&packer.changed, &packer.lock);
}

/* Does something that there is to do, or waits until there may be. */
static void help(void) {
    if (packer.first)
        pack(packer.first);
    else
        help_others();
}

/* ---- the line ---- */

static void *background(void *unused) {
    (void)unused;
    in_background = true;
    pthread_mutex_lock(&packer.lock);
    while (packer.first || packer.taken)
        if (atomic_load(&packer.pauses))
            pthread_cond_wait(&packer.changed, &packer.lock);
        else
            help();
    packer.threads--;
    pthread_mutex_unlock(&packer.lock);
    return NULL;
}

/* A process that ends in the midst of it would take the library from under the threads. */
static void empty_line(void) {
    pthread_mutex_lock(&packer.lock);
    for (twg_weights *w; (w = packer.first); w->state = TWG_DONE) remove_from_line(w);
    while (packer.taken && !atomic_load(&packer.pauses)) help();
    pthread_mutex_unlock(&packer.lock);
}

static void start_thread(void) {
    static bool registered;
    pthread_t thread;
    if (!registered) registered = !atexit(empty_line);
    if (pthread_create(&thread, NULL, background, NULL)) return; /* who needs layers makes them */
    pthread_detach(thread);
    packer.threads++;
}

void twg_packer_add(twg_weights *w) {
    int most = twg_parallel_threads() - 1;
    pthread_mutex_lock(&packer.lock);
    w->state = TWG_WAITS;
    w->waits_behind = NULL;
    *(packer.first ? packer.end : &packer.first) = w;
    packer.end = &w->waits_behind;
    if (packer.threads < most) start_thread();
    pthread_cond_broadcast(&packer.changed);
    pthread_mutex_unlock(&packer.lock);
}

void twg_packer_finish(const twg_weights *w) {
    pthread_mutex_lock(&packer.lock);
    while (w->state != TWG_DONE) help();
    pthread_mutex_unlock(&packer.lock);
}

void twg_packer_forget(twg_weights *w) {
    pthread_mutex_lock(&packer.lock);
    if (w->state == TWG_WAITS) {
        remove_from_line(w);
        w->state = TWG_DONE;
    }
    while (w->state != TWG_DONE) help_others();
    pthread_mutex_unlock(&packer.lock);
}

void twg_packer_pause(void) { atomic_fetch_add(&packer.pauses, 1); }

void twg_packer_resume(void) {
    pthread_mutex_lock(&packer.lock);
    atomic_fetch_sub(&packer.pauses, 1);
    pthread_cond_broadcast(&packer.changed);
    pthread_mutex_unlock(&packer.lock);
}
