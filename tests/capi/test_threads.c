/* Many threads at once: forwards on the same and on different linears, first uses, preparing and
 * registering in between.  Also run under ThreadSanitizer. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/core/dtype.h"
#include "tests/capi/fixture.h"

enum { THREADS = 6, ROUNDS = 40, LINEARS = 3, SIZES = 4, KERNELS = LINEARS * SIZES };

static const int64_t sizes[SIZES] = {1, 3, 16, 40};
static const char *const problems[LINEARS] = {
    "N=70,K=96,w=u4,g=32,s=f16,z=code,a=i8",
    "N=64,K=80,w=i8,g=channel,s=f32,bias=f32,act=relu",
    "N=33,K=64,w=u3,g=16,s=f32,z=value",
};

/* One problem with inputs and what forward() gives for them, for every size. */
typedef struct task {
    layer l;
    tw_linear *linear;
    tw_tensor x[SIZES], y[SIZES];
} task;

typedef struct world {
    fixture *f;
    tw_context *context;
    task tasks[LINEARS];
    int rounds;
    atomic_int failures, running;
} world;

static void open_world(world *w, void **state) {
    memset(w, 0, sizeof *w);
    w->f = *state;
    w->context = open_context(w->f);
    for (int i = 0; i < LINEARS; i++) {
        task *t = &w->tasks[i];
        layer_init(&t->l, problems[i], (uint32_t)i + 1);
        t->linear = make_linear(&t->l, w->context);
        for (int s = 0; s < SIZES; s++)
            t->x[s] = random_rows(t->l.problem.x, sizes[s], t->l.problem.K, 9);
    }
}

static void close_world(world *w) {
    for (int i = 0; i < LINEARS; i++) {
        task *t = &w->tasks[i];
        tw_linear_destroy(t->linear);
        layer_free(&t->l);
        for (int s = 0; s < SIZES; s++) free(t->x[s].data), free(t->y[s].data);
    }
    tw_context_destroy(w->context);
}

/* What one thread alone computes; the same kernels must give the same bits to all. */
static void expect(world *w) {
    for (int i = 0; i < LINEARS; i++)
        for (int s = 0; s < SIZES; s++) {
            task *t = &w->tasks[i];
            t->y[s] = random_rows(t->l.problem.y, sizes[s], t->l.problem.N, 1);
            check_ok(tw_linear_forward(t->linear, &t->x[s], &t->y[s]));
            check_result(&t->l, t->linear, &t->x[s], &t->y[s]);
        }
}

/* cmocka's asserts belong to the main thread: others count. */
static void forward_once(world *w, int i, int s) {
    task *t = &w->tasks[i];
    size_t bytes = tensor_bytes(&t->y[s]);
    tw_tensor y = t->y[s];
    y.data = malloc(bytes);
    if (!y.data || tw_linear_forward(t->linear, &t->x[s], &y) != TW_OK ||
        memcmp(y.data, t->y[s].data, bytes) != 0)
        w->failures++;
    free(y.data);
}

typedef struct worker {
    world *w;
    int index, same;
    pthread_t thread;
} worker;

static void *forwards(void *arg) {
    worker *k = arg;
    for (int r = 0; r < ROUNDS; r++)
        forward_once(k->w, k->same >= 0 ? k->same : (k->index + r) % LINEARS,
                     (k->index + r / 2) % SIZES);
    k->w->running--;
    return NULL;
}

static void start(world *w, worker *workers, void *(*body)(void *), int same) {
    w->running = THREADS;
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.w = w, .index = i, .same = same};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, body, &workers[i]), 0);
    }
}

static void finish(world *w, worker *workers) {
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
    assert_int_equal(w->failures, 0);
}

static void prepared(void **state) {
    world w;
    worker workers[THREADS];
    open_world(&w, state);
    for (int i = 0; i < LINEARS; i++)
        check_ok(tw_linear_prepare(w.tasks[i].linear, sizes, SIZES, THREADS));
    expect(&w);
    tw_stats before = stats_of(w.context);
    start(&w, workers, forwards, 0); /* all on one linear */
    finish(&w, workers);
    start(&w, workers, forwards, -1); /* on all of them */
    finish(&w, workers);
    tw_stats after = stats_of(w.context);
    assert_memory_equal(&before, &after, sizeof before);
    close_world(&w);
}

/* ---- first use by everybody at once: each kernel is still made once ---- */

static void *first_use(void *arg) {
    worker *k = arg;
    for (int i = 0; i < LINEARS; i++)
        for (int s = 0; s < SIZES; s++) {
            task *t = &k->w->tasks[i];
            tw_plan_info plan = TW_PLAN_INFO_INIT;
            tw_tensor y = random_rows(t->l.problem.y, sizes[s], t->l.problem.N, 1);
            if (tw_linear_forward(t->linear, &t->x[s], &y) != TW_OK ||
                tw_linear_plan(t->linear, sizes[s], &plan) != TW_OK)
                k->w->failures++;
            free(y.data);
        }
    return NULL;
}

static void unprepared(void **state) {
    world w;
    worker workers[THREADS];
    open_world(&w, state);
    start(&w, workers, first_use, -1);
    finish(&w, workers);
    tw_stats s = stats_of(w.context);
    assert_int_equal(s.guesses, KERNELS);
    assert_true(s.compiles <= KERNELS);
    assert_int_equal(s.compiles, s.loads);
    int64_t loads = s.loads;
    expect(&w);
    assert_int_equal(stats_of(w.context).loads, loads);
    close_world(&w);
}

/* ---- while others prepare, create, destroy and register ---- */

static int accept(void *user, const char *problem, const char *target) {
    (void)user, (void)target;
    return strstr(problem, "N=33,") != NULL;
}

/* Gives the bits that the built-in kernel gives, so that nobody can tell who ran. */
static tw_status replay(void *user, const tw_linear_call *call) {
    const task *t = user;
    for (int s = 0; s < SIZES; s++)
        if (sizes[s] == call->M) {
            memcpy(call->y->data, t->y[s].data, tensor_bytes(&t->y[s]));
            return TW_OK;
        }
    return TW_INTERNAL;
}

static void *disturb(void *arg) {
    world *w = arg;
    task *t = &w->tasks[LINEARS - 1];
    tw_linear_impl impl = {sizeof impl, "replay", 1, 5, accept, replay, t};
    /* Leaves it unregistered. */
    for (int i = 0; w->running > 0 || i % 2; i++) {
        tw_linear *made = NULL;
        tw_status status = i % 2 ? tw_unregister_linear(w->context, "replay")
                                 : tw_register_linear(w->context, &impl);
        if (status == TW_BUSY)
            i--;
        else if (status != TW_OK)
            w->failures++;
        if (try_linear(&w->tasks[0].l, w->context, &made) != TW_OK ||
            tw_linear_prepare(made, sizes, SIZES, i % THREADS) != TW_OK)
            w->failures++;
        tw_linear_destroy(made);
    }
    return NULL;
}

static void disturbed(void **state) {
    world w;
    worker workers[THREADS];
    pthread_t other;
    open_world(&w, state);
    expect(&w);
    start(&w, workers, forwards, -1);
    assert_int_equal(pthread_create(&other, NULL, disturb, &w), 0);
    finish(&w, workers);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_int_equal(w.failures, 0);
    check_plan(w.tasks[LINEARS - 1].linear, 1, "cpu.dq_gemm", "guess");
    close_world(&w);
}

/* ---- gone although somebody is always running it ---- */

static tw_status replay_slowly(void *user, const tw_linear_call *call) {
    nanosleep(&(struct timespec){.tv_nsec = 300000}, NULL);
    return replay(user, call);
}

static void *forwards_on(void *arg) {
    worker *k = arg;
    while (k->w->running) forward_once(k->w, k->same, k->index % SIZES);
    return NULL;
}

static void gone_under_load(void **state) {
    world w;
    worker workers[THREADS];
    open_world(&w, state);
    expect(&w);
    tw_linear_impl impl = {sizeof impl,          "replay", 1, 5, accept, replay_slowly,
                           &w.tasks[LINEARS - 1]};
    check_ok(tw_register_linear(w.context, &impl));
    start(&w, workers, forwards_on, LINEARS - 1);
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    tw_status status = TW_BUSY;
    for (int tries = 0; status == TW_BUSY && tries < 500; tries++) {
        status = tw_unregister_linear(w.context, "replay");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    w.running = 0;
    finish(&w, workers);
    assert_int_equal(status, TW_OK);
    close_world(&w);
}

/* ---- one linear prepared by everybody, while what it runs comes and goes ---- */

static int decline(void *user, const char *problem, const char *target) {
    (void)user, (void)problem, (void)target;
    return 0;
}

/* Every thread brings an implementation of its own and takes it away again. */
static void *prepares(void *arg) {
    worker *k = arg;
    world *w = k->w;
    int64_t M[TW_BUCKETS];
    char name[] = "mine 0";
    name[5] = (char)(name[5] + k->index);
    tw_linear_impl impl = {sizeof impl, name, 1, 5, decline, replay, NULL};
    for (int i = 0; i < TW_BUCKETS; i++) M[i] = tw_bucket_rows(i);
    for (int r = 0; r < w->rounds; r++) {
        tw_status status =
            r % 2 ? tw_unregister_linear(w->context, name) : tw_register_linear(w->context, &impl);
        if (status == TW_BUSY) /* somebody asks it this moment */
            r--;
        else if (status != TW_OK)
            w->failures++;
        if (tw_linear_prepare(w->tasks[0].linear, M, TW_BUCKETS, 1) != TW_OK) w->failures++;
    }
    return NULL;
}

static void check_prepared_by_all(void **state, tw_mode mode, int rounds) {
    world w;
    worker workers[THREADS];
    ((fixture *)*state)->options.mode = mode;
    open_world(&w, state);
    w.rounds = rounds;
    start(&w, workers, prepares, 0);
    finish(&w, workers);
    expect(&w);
    close_world(&w);
}

static void prepared_by_all(void **state) { check_prepared_by_all(state, TW_MODE_DEFAULT, 40); }
/* Where deciding takes no time, somebody always decides between two looks of somebody else. */
static void prepared_by_all_at_once(void **state) {
    check_prepared_by_all(state, TW_MODE_REFERENCE, 1500);
}

/* The canonical tensors are unpacked once, by whoever needs them first. */
static void *recover(void *arg) {
    worker *k = arg;
    const layer *l = &k->w->tasks[0].l;
    tw_tensor weight = {.data = malloc(tensor_bytes(&l->weight))};
    if (tw_linear_weights(k->w->tasks[0].linear, &weight, NULL, NULL) != TW_OK ||
        memcmp(weight.data, l->weight.data, tensor_bytes(&l->weight)) != 0)
        k->w->failures++;
    free(weight.data);
    return first_use(arg);
}

static int accept_all(void *user, const char *problem, const char *target) {
    (void)user, (void)problem, (void)target;
    return 1;
}

static tw_status check_canonical(void *user, const tw_linear_call *call) {
    const world *w = user;
    for (int i = 0; i < LINEARS; i++) {
        const layer *l = &w->tasks[i].l;
        if (l->problem.N == call->N)
            return memcmp(call->weight->data, l->weight.data, tensor_bytes(&l->weight)) == 0
                       ? TW_OK
                       : TW_VERIFY;
    }
    return TW_INTERNAL;
}

static void canonical(void **state) {
    world w;
    worker workers[THREADS];
    open_world(&w, state);
    tw_linear_impl impl = {sizeof impl, "checks", 1, 5, accept_all, check_canonical, &w};
    check_ok(tw_register_linear(w.context, &impl));
    start(&w, workers, recover, -1);
    finish(&w, workers);
    check_ok(tw_unregister_linear(w.context, "checks"));
    close_world(&w);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(prepared),        TEST(unprepared),      TEST(disturbed),
        TEST(gone_under_load), TEST(prepared_by_all), TEST(prepared_by_all_at_once),
        TEST(canonical),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
