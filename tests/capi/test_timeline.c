/* TW_TRACE: each step of a layer's life is an event with the texts that every tool takes, inside of
 * the step that caused it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/capi/fixture.h"

#define PROBLEM "N=96,K=128,x=f32,w=u4,g=32,s=f16,z=code,a=i8,y=f32,bias=none,act=none"

static char trace[PATH_BYTES + 16];

static int setup(void **state) {
    if (fixture_setup(state)) return -1;
    snprintf(trace, sizeof trace, "%s/trace.json", ((fixture *)*state)->folder);
    return setenv("TW_TRACE", trace, 1);
}

static int teardown(void **state) {
    unsetenv("TW_TRACE");
    return fixture_teardown(state);
}

/* The file's events, once its array is closed as the viewers do; json_decref() them. */
static json_t *read_events(void) {
    enum { MOST = 1 << 20 };
    char *text = calloc(1, MOST);
    FILE *file = fopen(trace, "rb");
    assert_non_null(text);
    assert_non_null(file);
    size_t size = fread(text, 1, MOST - 8, file);
    fclose(file);
    assert_true(size >= 4 && size < MOST - 8 && !strcmp(text + size - 2, ",\n"));
    text[size - 2] = ']';
    json_error_t error;
    json_t *events = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!events) fail_msg("line %d: %s", error.line, error.text);
    free(text);
    return events;
}

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static const char *arg_of(const json_t *event, const char *name) {
    return text_of(json_object_get(event, "args"), name);
}

static double start_of(const json_t *event) {
    return json_number_value(json_object_get(event, "ts"));
}

static double end_of(const json_t *event) {
    return start_of(event) + json_number_value(json_object_get(event, "dur"));
}

static int count(const json_t *events, const char *name) {
    int found = 0;
    for (size_t i = 0; i < json_array_size(events); i++)
        found += !strcmp(text_of(json_array_get(events, i), "name"), name);
    return found;
}

/* The n-th event of a name, with what viewers need of every one. */
static const json_t *event(const json_t *events, const char *name, int n) {
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *e = json_array_get(events, i);
        if (strcmp(text_of(e, "name"), name) != 0 || n--) continue;
        assert_string_equal(text_of(e, "ph"), "X");
        assert_int_equal(json_integer_value(json_object_get(e, "pid")), getpid());
        assert_true(json_integer_value(json_object_get(e, "tid")) > 0);
        assert_true(start_of(e) > 0 && end_of(e) >= start_of(e));
        return e;
    }
    fail_msg("too few events %s", name);
    return NULL;
}

static void check_event(const json_t *e, const char *problem, const char *kernel,
                        const char *config, const char *detail, const char *value) {
    assert_string_equal(arg_of(e, "problem"), problem);
    assert_string_equal(arg_of(e, "kernel"), kernel);
    assert_int_equal(strncmp(arg_of(e, "config"), config, strlen(config)), 0);
    assert_string_equal(arg_of(e, detail), value);
    assert_string_equal(arg_of(e, "error"), "");
}

/* Within, but for the thousandths that are cut off. */
static void check_inside(const json_t *inner, const json_t *outer) {
    assert_true(start_of(inner) >= start_of(outer) - 0.002);
    assert_true(end_of(inner) <= end_of(outer) + 0.002);
}

/* One layer, prepared for one row and run with one and with three. */
static void live(fixture *f) {
    layer l;
    tw_context *context = open_context(f);
    layer_init(&l, PROBLEM, 3);
    tw_linear *linear = make_linear(&l, context);
    check_ok(tw_linear_prepare(linear, (int64_t[]){1}, 1, 1));
    check_forward(&l, linear, 1);
    check_forward(&l, linear, 3);
    tw_linear_destroy(linear);
    layer_free(&l);
    tw_context_destroy(context);
}

static void test_cold_and_warm(void **state) {
    fixture *f = *state;
    live(f);
    json_t *cold = read_events();
    size_t before = json_array_size(cold);
    assert_int_equal(count(cold, "pack"), 1);
    check_event(event(cold, "pack", 0), PROBLEM, "", "", "layout", "panel64");
    assert_int_equal(count(cold, "compile"), 2);
    assert_int_equal(count(cold, "load"), 2);
    assert_int_equal(count(cold, "forward"), 2);
    check_event(event(cold, "compile", 0), "M=1," PROBLEM, "cpu.int_gemm", "mm", "from", "");
    check_event(event(cold, "load", 0), "M=1," PROBLEM, "cpu.int_gemm", "mm", "from", "compiler");
    check_event(event(cold, "forward", 0), "M=1," PROBLEM, "cpu.int_gemm", "mm", "origin", "guess");
    /* Rows as they came; the kernel is that of the bucket. */
    check_event(event(cold, "compile", 1), "M=4," PROBLEM, "cpu.int_gemm", "mm", "from", "");
    check_event(event(cold, "forward", 1), "M=3," PROBLEM, "cpu.int_gemm", "mm", "origin", "guess");
    assert_true(end_of(event(cold, "compile", 0)) <= start_of(event(cold, "forward", 0)));
    check_inside(event(cold, "compile", 1), event(cold, "forward", 1));
    check_inside(event(cold, "load", 1), event(cold, "forward", 1));
    json_decref(cold);

    live(f);
    json_t *both = read_events();
    assert_int_equal(count(both, "compile"), 2);
    assert_int_equal(count(both, "load"), 4);
    assert_int_equal(json_array_size(both), before + before - 2);
    check_event(event(both, "load", 2), "M=1," PROBLEM, "cpu.int_gemm", "mm", "from", "cache");
    json_decref(both);
    assert_int_equal(f->lines[TW_LOG_WARN], 0);
}

static void test_tune(void **state) {
    fixture *f = *state;
    f->options.mode = TW_MODE_TUNE;
    f->options.tune_budget_s = 20;
    live(f);
    json_t *events = read_events();
    assert_int_equal(count(events, "tune"), 1);
    check_event(event(events, "tune", 0), "M=1," PROBLEM, "cpu.int_gemm", "mm", "from", "");
    check_inside(event(events, "compile", 0), event(events, "tune", 0));
    assert_string_equal(arg_of(event(events, "forward", 0), "origin"), "tuned");
    json_decref(events);
}

static void test_reference_and_failures(void **state) {
    fixture *f = *state;
    layer l;
    layer_init(&l, PROBLEM, 3);
    tw_tensor x = random_rows(TW_F32, 2, 128, 1), y = random_rows(TW_F32, 2, 96, 1);
    f->options.mode = TW_MODE_REFERENCE;
    tw_context *context = open_context(f);
    tw_linear *linear = make_linear(&l, context);
    check_ok(tw_linear_forward(linear, &x, &y));
    tw_linear_destroy(linear);
    tw_context_destroy(context);

    f->options.mode = TW_MODE_CACHED_ONLY;
    context = open_context(f);
    linear = make_linear(&l, context);
    check_fails(tw_linear_forward(linear, &x, &y), TW_MISS, "no kernel for choice/1");
    /* A caller's mistake is no work. */
    check_fails(tw_linear_forward(linear, &y, &x), TW_INVALID, "x: 2 dimensions");
    /* A context that a leak keeps alive has told all it knows. */
    tw_context_destroy(context);
    assert_int_equal(f->lines[TW_LOG_ERROR], 1);
    json_t *events = read_events();
    assert_int_equal(count(events, "forward"), 2);
    check_event(event(events, "forward", 0), "M=2," PROBLEM, "reference", "", "origin",
                "reference");
    assert_string_equal(arg_of(event(events, "forward", 1), "error"), "MISS");
    assert_string_equal(arg_of(event(events, "forward", 1), "problem"), "M=2," PROBLEM);
    json_decref(events);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    free(x.data), free(y.data);
    layer_free(&l);
}

static int takes_all(void *user, const char *problem, const char *target) {
    (void)user, (void)problem, (void)target;
    return 1;
}

static tw_status run_nothing(void *user, const tw_linear_call *call) {
    (void)user, (void)call;
    return TW_OK;
}

static void test_registered(void **state) {
    fixture *f = *state;
    layer l;
    layer_init(&l, PROBLEM, 3);
    tw_context *context = open_context(f);
    tw_linear *linear = make_linear(&l, context);
    tw_linear_impl impl = {.struct_size = sizeof impl, .name = "the \"host's\"", .priority = 1};
    impl.condition = takes_all, impl.run = run_nothing;
    check_ok(tw_register_linear(context, &impl));
    tw_tensor x = random_rows(TW_F32, 2, 128, 1), y = random_rows(TW_F32, 2, 96, 1);
    check_ok(tw_linear_forward(linear, &x, &y));
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    json_t *events = read_events();
    check_event(event(events, "forward", 0), "M=2," PROBLEM, "the \"host's\"", "", "origin",
                "registered");
    json_decref(events);
    free(x.data), free(y.data);
    layer_free(&l);
}

static void test_file_that_cannot_be_used(void **state) {
    fixture *f = *state;
    setenv("TW_TRACE", f->folder, 1);
    live(f);
    assert_int_equal(f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(f->last[TW_LOG_WARN], "nothing is traced"));
    unsetenv("TW_TRACE");
    live(f);
    assert_int_equal(f->lines[TW_LOG_WARN], 1);
    assert_int_not_equal(access(trace, F_OK), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cold_and_warm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tune, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reference_and_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_registered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_that_cannot_be_used, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
