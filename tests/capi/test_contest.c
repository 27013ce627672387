/* A registered implementation of priority 0 and a kernel of ours: the tuning modes measure, the
 * others go by what was measured. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/core/dtype.h"
#include "src/plan.h"
#include "tests/capi/fixture.h"

/* Large enough for copying a row of y to be far quicker than computing it. */
enum { M = 64, N = 1536, K = 512, ROWS = 96 };
static const char problem[] = "N=1536,K=512,w=u4,g=32,s=f16,z=code";
static const char kernel[] = "cpu.dq_gemm";

/* Knows the answer to each row that it was asked before, for one weight matrix at a time. */
typedef struct memory {
    uint8_t weights[64]; /* the first bytes: which matrix it is */
    int rows;
    float x[ROWS][K], y[ROWS][N];
} memory;

/* An implementation; what it does, and how often it was asked for it. */
typedef struct mine {
    enum { REMEMBERS, SLEEPS, WRITES_ZEROS, FAILS } does;
    int declines;
    atomic_int asked, runs;
    memory *seen;
} mine;

static int condition(void *user, const char *text, const char *target) {
    mine *m = user;
    (void)target;
    m->asked++;
    assert_non_null(strstr(text, "N=1536"));
    return !m->declines;
}

static tw_problem problem_of(const tw_linear_call *call) {
    tw_problem p = {.M = 1, .N = call->N, .K = call->K, .x = call->x->dtype, .y = call->y->dtype};
    p.scheme = *call->scheme;
    return p;
}

/* The answer to one row, worked out by the oracle at most once. */
static const float *answer(memory *seen, const tw_linear_call *call, const float *x) {
    int i = 0;
    while (i < seen->rows && memcmp(seen->x[i], x, sizeof seen->x[i]) != 0) i++;
    if (i < seen->rows) return seen->y[i];
    assert_true(seen->rows < ROWS);
    tw_problem p = problem_of(call);
    tw_canonical w = {call->weight->data, call->scales->data, call->zeros->data, NULL, NULL, 0};
    memcpy(seen->x[i], x, sizeof seen->x[i]);
    tw_reference_linear(&p, &w, x, K, seen->y[i], N, 1);
    seen->rows++;
    return seen->y[i];
}

static void remember(memory *seen, const tw_linear_call *call) {
    if (memcmp(seen->weights, call->weight->data, sizeof seen->weights) != 0) {
        memcpy(seen->weights, call->weight->data, sizeof seen->weights);
        seen->rows = 0;
    }
    for (int64_t m = 0; m < call->M; m++) {
        const float *x = (const float *)call->x->data + m * call->x->stride[0];
        float *y = (float *)call->y->data + m * call->y->stride[0];
        memcpy(y, answer(seen, call, x), N * sizeof *y);
    }
}

static tw_status run(void *user, const tw_linear_call *call) {
    mine *m = user;
    m->runs++;
    switch (m->does) {
    /* Longer than a busy machine takes for the kernel. */
    case SLEEPS: nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL); break;
    case FAILS: return TW_DEVICE;
    case REMEMBERS: remember(m->seen, call); break;
    case WRITES_ZEROS: break;
    }
    if (m->does == REMEMBERS) return TW_OK;
    for (int64_t i = 0; i < call->M; i++)
        memset((float *)call->y->data + i * call->y->stride[0], 0, N * sizeof(float));
    return TW_OK;
}

typedef struct world {
    fixture *f;
    tw_context *context;
    layer l;
    tw_linear *linear;
    mine m;
} world;

static void add(world *w, uint32_t version, int32_t priority) {
    tw_linear_impl impl = {sizeof impl, "mine", version, priority, condition, run, &w->m};
    check_ok(tw_register_linear(w->context, &impl));
}

static void open_again(world *w, tw_mode mode) {
    w->f->options.mode = mode;
    /* Enough to decide, and for a median of one that sleeps that a busy machine does not turn. */
    w->f->options.tune_budget_s = w->m.does == SLEEPS ? 3 : 2;
    /* Kernels that are slow, where mine is to win: an instrumented build slows down mine alone. */
    w->f->options.device = "cpu:portable";
    w->context = open_context(w->f);
    /* How cold weights are is not what is tested: copies beyond the real cache take long. */
    w->context->target.l3_bytes = 1 << 20;
    w->linear = make_linear(&w->l, w->context);
}

static void close_context(world *w) {
    tw_linear_destroy(w->linear);
    tw_context_destroy(w->context);
}

static void open_world_of(world *w, void **state, const char *text, int does) {
    memset(w, 0, sizeof *w);
    w->f = *state;
    layer_init(&w->l, text, 17);
    memcpy(&w->m.does, &does, sizeof w->m.does);
    w->m.seen = calloc(1, sizeof *w->m.seen);
    assert_non_null(w->m.seen);
    open_again(w, TW_MODE_TUNE);
}

static void open_world(world *w, void **state, int does) { open_world_of(w, state, problem, does); }

static void close_world(world *w) {
    close_context(w);
    layer_free(&w->l);
    free(w->m.seen);
}

static void prepare(world *w) { check_ok(tw_linear_prepare(w->linear, (int64_t[]){M}, 1, 1)); }

static int64_t choices_of(const world *w) {
    tw_cache_counts counts;
    check_ok(tw_cache_stats(w->context->cache, &counts));
    return counts.choices;
}

static tw_plan_info plan_of(const world *w) {
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    check_ok(tw_linear_plan(w->linear, M, &plan));
    return plan;
}

/* ---- the faster one runs ---- */

static void faster_wins_and_is_remembered(void **state) {
    static const tw_mode modes[] = {TW_MODE_DEFAULT, TW_MODE_CACHED_ONLY, TW_MODE_TUNE};
    world w;
    open_world(&w, state, REMEMBERS);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    tw_plan_info tuned = plan_of(&w);
    assert_true(tuned.median_ns > 0);
    int runs = w.m.runs;
    check_forward(&w.l, w.linear, M);
    assert_int_equal(w.m.runs, runs + 1);
    assert_int_equal(choices_of(&w), 2);
    char text[512];
    size_t size;
    check_ok(tw_linear_dump(w.linear, M, TW_DUMP_EXPLAIN, text, sizeof text, &size));
    assert_non_null(strstr(text, "kernel   mine version 1, registered with priority 0\nmeasured "));
    assert_non_null(strstr(text, "faster than cpu.dq_gemm"));
    close_context(&w);

    for (size_t i = 0; i < TW_COUNT(modes); i++) {
        open_again(&w, modes[i]);
        add(&w, 1, 0);
        runs = w.m.runs;
        prepare(&w);
        assert_int_equal(w.m.runs, runs);
        check_plan(w.linear, M, "mine", "registered");
        assert_true(plan_of(&w).median_ns == tuned.median_ns);
        assert_int_equal(stats_of(w.context).tunings, 0);
        /* Without it the kernel is back, as it was tuned. */
        check_ok(tw_unregister_linear(w.context, "mine"));
        check_plan(w.linear, M, kernel, "cache");
        check_forward(&w.l, w.linear, M);
        assert_int_equal(w.m.runs, runs);
        close_context(&w);
    }
    open_again(&w, TW_MODE_CACHED_ONLY);
    prepare(&w);
    check_plan(w.linear, M, kernel, "cache");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    close_world(&w);
}

/* A guess is nothing to win against: only what was tuned is. */
static void a_guess_is_no_rival(void **state) {
    world w;
    open_world(&w, state, REMEMBERS);
    w.context->budget_s = 1e-6;
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, kernel, "guess");
    assert_int_equal(w.m.runs, 0);
    assert_int_equal(choices_of(&w), 0);
    w.context->budget_s = 2; /* more than an instrumented build takes */
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    close_world(&w);
}

static void slower_loses_and_is_remembered(void **state) {
    world w;
    open_world(&w, state, SLEEPS);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, kernel, "tuned");
    int runs = w.m.runs;
    assert_true(runs > 0);
    check_forward(&w.l, w.linear, M);
    /* A second layer of the shape asks nobody. */
    tw_linear *other = make_linear(&w.l, w.context);
    check_ok(tw_linear_prepare(other, (int64_t[]){M}, 1, 1));
    tw_linear_destroy(other);
    close_context(&w);

    open_again(&w, TW_MODE_TUNE);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, kernel, "cache");
    assert_int_equal(w.m.runs, runs);
    /* Another version may do better. */
    check_ok(tw_unregister_linear(w.context, "mine"));
    add(&w, 2, 0);
    w.m.does = REMEMBERS;
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    close_world(&w);
}

/* ---- what is wrong or fails never runs ---- */

static void check_never_wins(void **state, int does, const char *says) {
    world w;
    open_world(&w, state, does);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, kernel, "tuned");
    check_forward(&w.l, w.linear, M);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    if (!strstr(w.f->last[TW_LOG_WARN], "mine is not used") ||
        !strstr(w.f->last[TW_LOG_WARN], says))
        fail_msg("%s", w.f->last[TW_LOG_WARN]);
    int runs = w.m.runs;
    prepare(&w);
    assert_int_equal(w.m.runs, runs);
    assert_int_equal(choices_of(&w), 1);
    close_world(&w);
}

static void wrong_never_wins(void **state) { check_never_wins(state, WRITES_ZEROS, "y[0,0] is 0"); }
static void failing_never_wins(void **state) {
    check_never_wins(state, FAILS, "implementation mine: run() returned DEVICE");
}

/* ---- who measures, and when ---- */

static void other_modes_measure_nothing(void **state) {
    world w;
    open_world(&w, state, REMEMBERS);
    close_context(&w);
    open_again(&w, TW_MODE_DEFAULT);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, kernel, "guess");
    check_forward(&w.l, w.linear, M);
    assert_int_equal(w.m.runs, 0);
    char text[512];
    size_t size;
    check_ok(tw_linear_dump(w.linear, M, TW_DUMP_EXPLAIN, text, sizeof text, &size));
    assert_non_null(strstr(text, "beside   mine version 1: not measured yet\n"));
    close_world(&w);
}

/* Tuned before it came: the next prepare() measures it, forward() does not, and nothing else is
 * tuned again. */
static void joins_later(void **state) {
    world w;
    open_world(&w, state, REMEMBERS);
    prepare(&w);
    check_plan(w.linear, M, kernel, "tuned");
    add(&w, 1, 0);
    check_forward(&w.l, w.linear, M);
    check_plan(w.linear, M, kernel, "tuned");
    assert_int_equal(w.m.runs, 0);
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    assert_int_equal(stats_of(w.context).tunings, 1);
    close_world(&w);
}

static void below_zero_or_declining_is_left_out(void **state) {
    world w;
    open_world(&w, state, REMEMBERS);
    add(&w, 1, -1);
    prepare(&w);
    assert_int_equal(w.m.asked, 0);
    check_ok(tw_unregister_linear(w.context, "mine"));
    add(&w, 1, 0);
    w.m.declines = 1;
    prepare(&w);
    assert_true(w.m.asked > 0);
    assert_int_equal(w.m.runs, 0);
    check_plan(w.linear, M, kernel, "tuned");
    close_world(&w);
}

/* Where x is rounded before the kernel, both are timed with it and held to the same answer: the
 * kernel's own choice is that of plain x, the contest's is of the layer's problem. */
static void rounded_x(void **state) {
    world w;
    open_world_of(&w, state, "N=1536,K=512,w=u4,g=32,s=f16,z=code,a=mxfp8", REMEMBERS);
    w.context->budget_s = 5; /* the oracle rounds, too, and slowly where it is instrumented */
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    check_forward(&w.l, w.linear, M);
    assert_int_equal(choices_of(&w), 2);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    check_ok(tw_unregister_linear(w.context, "mine"));
    check_plan(w.linear, M, kernel, "tuned");
    check_forward(&w.l, w.linear, M);
    close_context(&w);

    open_again(&w, TW_MODE_CACHED_ONLY);
    prepare(&w);
    check_plan(w.linear, M, kernel, "cache");
    check_forward(&w.l, w.linear, M);
    close_world(&w);
}

/* Without a file it is remembered as long as a layer of the context needs it. */
static void without_a_cache(void **state) {
    world w;
    ((fixture *)*state)->options.cache_path = "";
    open_world(&w, state, REMEMBERS);
    add(&w, 1, 0);
    prepare(&w);
    check_plan(w.linear, M, "mine", "registered");
    int runs = w.m.runs;
    tw_linear *other = make_linear(&w.l, w.context);
    check_plan(other, M, "mine", "registered");
    check_ok(tw_linear_prepare(other, (int64_t[]){M}, 1, 1));
    assert_int_equal(w.m.runs, runs);
    tw_linear_destroy(other);
    close_world(&w);
}

typedef struct preparing {
    tw_linear *linear;
    tw_status status;
} preparing;

static void *prepare_one(void *arg) {
    preparing *p = arg;
    p->status = tw_linear_prepare(p->linear, (int64_t[]){M}, 1, 1);
    return NULL;
}

/* Layers of one shape that are prepared at the same time hold one contest. */
static void at_the_same_time(void **state) {
    enum { THREADS = 4 };
    world w;
    pthread_t threads[THREADS];
    preparing p[THREADS];
    open_world(&w, state, REMEMBERS);
    add(&w, 1, 0);
    for (int i = 0; i < THREADS; i++) p[i] = (preparing){.linear = make_linear(&w.l, w.context)};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, prepare_one, &p[i]), 0);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    int runs = w.m.runs;
    for (int i = 0; i < THREADS; i++) {
        check_ok(p[i].status);
        check_plan(p[i].linear, M, "mine", "registered");
    }
    prepare(&w);
    assert_int_equal(w.m.runs, runs);
    assert_int_equal(stats_of(w.context).tunings, 1);
    for (int i = 0; i < THREADS; i++) tw_linear_destroy(p[i].linear);
    close_world(&w);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(faster_wins_and_is_remembered),
        TEST(a_guess_is_no_rival),
        TEST(slower_loses_and_is_remembered),
        TEST(wrong_never_wins),
        TEST(failing_never_wins),
        TEST(other_modes_measure_nothing),
        TEST(joins_later),
        TEST(below_zero_or_declining_is_left_out),
        TEST(without_a_cache),
        TEST(at_the_same_time),
        TEST(rounded_x),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
