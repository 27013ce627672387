/* A host's own implementation replaces a built-in one and gives it back. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/capi/fixture.h"

static const char problem[] = "N=70,K=80,w=u4,g=32,s=f16,z=value,bias=f16,act=relu";

/* An implementation with what it saw; it computes by the oracle, from what the call holds. */
typedef struct mine {
    const layer *l;
    int accept;
    atomic_int asked, runs;
    tw_status result;
    char problem[256], target[32];
    tw_context *context; /* not NULL: run() unregisters itself */
} mine;

static int condition(void *user, const char *text, const char *target) {
    mine *m = user;
    m->asked++;
    strncpy(m->problem, text, sizeof m->problem - 1);
    strncpy(m->target, target, sizeof m->target - 1);
    return m->accept;
}

static tw_status run(void *user, const tw_linear_call *call) {
    mine *m = user;
    const layer *l = m->l;
    m->runs++;
    assert_int_equal(call->struct_size, sizeof *call);
    assert_int_equal(call->N, l->problem.N);
    assert_int_equal(call->K, l->problem.K);
    assert_int_equal(call->M, call->x->shape[0]);
    assert_memory_equal(call->scheme, &l->problem.scheme, sizeof *call->scheme);
    assert_int_equal(call->act, l->problem.act);
    assert_memory_equal(call->weight->data, l->weight.data, tensor_bytes(&l->weight));
    assert_memory_equal(call->scales->data, l->scales.data, tensor_bytes(&l->scales));
    assert_memory_equal(call->zeros->data, l->zeros.data, tensor_bytes(&l->zeros));
    assert_memory_equal(call->bias->data, l->bias.data, tensor_bytes(&l->bias));
    assert_int_equal(call->bias->dtype, l->bias.dtype);
    if (m->context)
        check_fails(tw_unregister_linear(m->context, "mine"), TW_BUSY, "name: mine, 1 calls");
    if (m->result != TW_OK) return m->result;
    tw_canonical w = {call->weight->data, call->scales->data, call->zeros->data,
                      call->bias->data,   call->lut,          call->act_scale};
    tw_reference_linear(&l->problem, &w, call->x->data, call->x->stride[0], call->y->data,
                        call->y->stride[0], call->M);
    return TW_OK;
}

typedef struct world {
    fixture *f;
    tw_context *context;
    layer l;
    tw_linear *linear;
    mine m;
} world;

static void open_world(world *w, void **state, const char *text) {
    memset(w, 0, sizeof *w);
    w->f = *state;
    w->context = open_context(w->f);
    layer_init(&w->l, text, 41);
    w->linear = make_linear(&w->l, w->context);
    w->m.l = &w->l;
    w->m.accept = 1;
}

static void close_world(world *w) {
    tw_linear_destroy(w->linear);
    tw_context_destroy(w->context);
    layer_free(&w->l);
}

static tw_linear_impl impl_of(mine *m, const char *name, int32_t priority) {
    return (tw_linear_impl){sizeof(tw_linear_impl), name, 1, priority, condition, run, m};
}

static void add(world *w, mine *m, const char *name, int32_t priority) {
    tw_linear_impl impl = impl_of(m, name, priority);
    check_ok(tw_register_linear(w->context, &impl));
}

static void replaces_and_gives_back(void **state) {
    world w;
    open_world(&w, state, problem);
    check_ok(tw_linear_prepare(w.linear, (int64_t[]){8}, 1, 1));
    check_plan(w.linear, 8, "cpu.dq_gemm", "guess");
    tw_stats before = stats_of(w.context);

    add(&w, &w.m, "mine", 10);
    check_forward(&w.l, w.linear, 8);
    check_plan(w.linear, 8, "mine", "registered");
    assert_int_equal(w.m.runs, 1);
    assert_string_equal(w.m.problem, "M=8,N=70,K=80,x=f32,w=u4,g=32,s=f16,z=value,a=none,y=f32,"
                                     "bias=f16,act=relu");
    tw_device_info device = TW_DEVICE_INFO_INIT;
    check_ok(tw_context_device(w.context, &device));
    assert_string_equal(w.m.target, device.target);
    /* Also for a linear made now, which never needed a kernel of ours. */
    tw_linear *later = make_linear(&w.l, w.context);
    check_ok(tw_linear_prepare(later, (int64_t[]){1}, 1, 1));
    check_forward(&w.l, later, 1);
    assert_int_equal(w.m.runs, 2);
    /* It is asked when a plan is made, not for each forward. */
    int asked = w.m.asked;
    check_forward(&w.l, w.linear, 7);
    check_forward(&w.l, w.linear, 8);
    assert_int_equal(w.m.asked, asked);

    check_ok(tw_unregister_linear(w.context, "mine"));
    int runs = w.m.runs;
    check_forward(&w.l, w.linear, 8);
    check_plan(w.linear, 8, "cpu.dq_gemm", "guess");
    assert_int_equal(w.m.runs, runs);
    assert_int_equal(w.m.asked, asked);
    /* The kernel was there all the time. */
    assert_int_equal(stats_of(w.context).compiles, before.compiles);
    assert_int_equal(stats_of(w.context).loads, before.loads);
    tw_linear_destroy(later);
    close_world(&w);
}

static void again_and_again(void **state) {
    world w;
    open_world(&w, state, problem);
    for (int i = 0; i < 20; i++) {
        add(&w, &w.m, "mine", 1);
        check_forward(&w.l, w.linear, 2);
        assert_int_equal(w.m.runs, i + 1);
        check_ok(tw_unregister_linear(w.context, "mine"));
        check_forward(&w.l, w.linear, 2);
        assert_int_equal(w.m.runs, i + 1);
    }
    assert_int_equal(stats_of(w.context).loads, 1);
    close_world(&w);
}

static void priorities(void **state) {
    world w;
    open_world(&w, state, problem);
    mine low = {.l = &w.l, .accept = 1}, same = low, never = low, zero = low;
    never.accept = 0;
    add(&w, &low, "low", 1);
    add(&w, &w.m, "high", 7);
    add(&w, &same, "same as high, later", 7);
    add(&w, &never, "declines", 100);
    add(&w, &zero, "at zero", 0);
    check_plan(w.linear, 4, "high", "registered");
    check_ok(tw_unregister_linear(w.context, "high"));
    check_plan(w.linear, 4, "same as high, later", "registered");
    check_ok(tw_unregister_linear(w.context, "same as high, later"));
    check_plan(w.linear, 4, "low", "registered");
    check_ok(tw_unregister_linear(w.context, "low"));
    /* At 0 the built-in kernels come first. */
    check_plan(w.linear, 4, "cpu.dq_gemm", "guess");
    assert_true(never.asked > 0);
    assert_int_equal(zero.runs, 0);
    close_world(&w);
}

/* At 0 and below: where there is no kernel of ours, before the reference. */
static void where_nothing_else_can(void **state) {
    world w;
    open_world(&w, state, "N=40,K=64,w=u4,g=3,s=f32,z=value,bias=f32");
    add(&w, &w.m, "mine", -3);
    check_forward(&w.l, w.linear, 4);
    check_plan(w.linear, 4, "mine", "registered");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    check_ok(tw_unregister_linear(w.context, "mine"));
    check_plan(w.linear, 4, "reference", "reference");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    add(&w, &w.m, "mine", -3);
    check_plan(w.linear, 4, "mine", "registered");
    close_world(&w);
}

/* CACHED_ONLY has nothing in its cache for what no kernel of ours takes: who is registered may. */
static void in_cached_only(void **state) {
    world w;
    ((fixture *)*state)->options.mode = TW_MODE_CACHED_ONLY;
    static const int32_t priorities[] = {-3, 0, 2};
    for (size_t i = 0; i < TW_COUNT(priorities); i++) {
        open_world(&w, state, "N=40,K=64,w=u4,g=3,s=f32,z=value,bias=f32");
        add(&w, &w.m, "mine", priorities[i]);
        check_ok(tw_linear_prepare(w.linear, (int64_t[]){4}, 1, 1));
        check_forward(&w.l, w.linear, 4);
        check_plan(w.linear, 4, "mine", "registered");
        check_ok(tw_unregister_linear(w.context, "mine"));
        check_fails(tw_linear_prepare(w.linear, (int64_t[]){4}, 1, 1), TW_UNSUPPORTED,
                    "CACHED_ONLY does not run the reference");
        close_world(&w);
    }
}

static void not_in_reference_mode(void **state) {
    world w;
    ((fixture *)*state)->options.mode = TW_MODE_REFERENCE;
    open_world(&w, state, problem);
    add(&w, &w.m, "mine", 10);
    check_forward(&w.l, w.linear, 4);
    check_plan(w.linear, 4, "reference", "reference");
    assert_int_equal(w.m.asked, 0);
    close_world(&w);
}

static void refused(void **state) {
    world w;
    open_world(&w, state, problem);
    char long_name[80];
    memset(long_name, 'n', sizeof long_name);
    long_name[79] = 0;
    tw_linear_impl good = impl_of(&w.m, "mine", 1), impl = good;
    check_fails(tw_register_linear(NULL, &impl), TW_INVALID, "context: NULL");
    check_fails(tw_register_linear(w.context, NULL), TW_INVALID, "impl: NULL");
#define TRY(field, value, part)                                                                    \
    impl = good;                                                                                   \
    impl.field = value;                                                                            \
    check_fails(tw_register_linear(w.context, &impl), TW_INVALID, part);
    TRY(struct_size, 2, "impl: struct_size 2")
    TRY(name, NULL, "impl: name is missing")
    TRY(name, "", "impl: name is missing")
    TRY(name, long_name, "has 79 bytes, at most 63")
    TRY(condition, NULL, "impl: mine has no condition function")
    TRY(run, NULL, "impl: mine has no run function")
#undef TRY
    check_ok(tw_register_linear(w.context, &good));
    check_fails(tw_register_linear(w.context, &good), TW_INVALID, "mine is registered already");
    check_fails(tw_unregister_linear(w.context, "other"), TW_INVALID, "name: other");
    check_fails(tw_unregister_linear(w.context, NULL), TW_INVALID, "name: NULL");
    check_fails(tw_unregister_linear(NULL, "mine"), TW_INVALID, "context: NULL");
    check_ok(tw_unregister_linear(w.context, "mine"));
    check_fails(tw_unregister_linear(w.context, "mine"), TW_INVALID, "name: mine");
    close_world(&w);
}

static void busy_while_it_runs(void **state) {
    world w;
    open_world(&w, state, problem);
    add(&w, &w.m, "mine", 1);
    w.m.context = w.context;
    check_forward(&w.l, w.linear, 3);
    assert_int_equal(w.m.runs, 1);
    /* It was asked to go: no forward begins to run it, so that under load, too, it can. */
    check_forward(&w.l, w.linear, 3);
    check_plan(w.linear, 3, "cpu.dq_gemm", "guess");
    assert_int_equal(w.m.runs, 1);
    tw_linear_impl again = impl_of(&w.m, "mine", 1);
    check_fails(tw_register_linear(w.context, &again), TW_INVALID, "mine is registered already");
    check_ok(tw_unregister_linear(w.context, "mine"));
    check_fails(tw_unregister_linear(w.context, "mine"), TW_INVALID, "name: mine");
    add(&w, &w.m, "mine", 1);
    w.m.context = NULL;
    check_forward(&w.l, w.linear, 3);
    assert_int_equal(w.m.runs, 2);
    close_world(&w);
}

static void failures_are_passed_on(void **state) {
    world w;
    open_world(&w, state, problem);
    add(&w, &w.m, "mine", 1);
    w.m.result = TW_DEVICE;
    tw_tensor x = random_rows(TW_F32, 2, 80, 1), y = random_rows(TW_F32, 2, 70, 1);
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_DEVICE,
                "implementation mine: run() returned DEVICE");
    size_t size;
    check_fails(tw_linear_dump(w.linear, 2, TW_DUMP_IR, NULL, 0, &size), TW_UNSUPPORTED, "mine");
    char text[128];
    check_ok(tw_linear_dump(w.linear, 2, TW_DUMP_EXPLAIN, text, sizeof text, &size));
    assert_string_equal(text, "kernel   mine version 1, registered with priority 1\n");
    free(x.data), free(y.data);
    close_world(&w);
}

/* What quantizes x by itself gets it as it is, the scheme, and a static scale. */
static void gets_x_as_it_is(void **state) {
    static const char *const problems[] = {"N=70,K=80,w=i8,g=channel,z=code,a=i8s,bias=f32",
                                           "N=70,K=80,w=i8,g=channel,z=code,a=mxfp8,bias=f32"};
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        world w;
        open_world(&w, state, problems[i]);
        check_forward(&w.l, w.linear, 5);
        add(&w, &w.m, "mine", 10);
        check_forward(&w.l, w.linear, 5);
        check_plan(w.linear, 5, "mine", "registered");
        assert_non_null(strstr(w.m.problem, i ? ",a=mxfp8," : ",a=i8s,"));
        assert_int_equal(w.m.runs, 1);
        close_world(&w);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(replaces_and_gives_back),
        TEST(again_and_again),
        TEST(priorities),
        TEST(where_nothing_else_can),
        TEST(in_cached_only),
        TEST(not_in_reference_mode),
        TEST(refused),
        TEST(busy_while_it_runs),
        TEST(failures_are_passed_on),
        TEST(gets_x_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
