/* Contexts: options, hooks, what they tell, and what they survive. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/capi/fixture.h"

static const char problem[] = "N=96,K=128,w=u4,g=32,s=f16,z=code,a=i8";

static void names(void **state) {
    (void)state;
    assert_int_equal(tw_version(),
                     TW_VERSION_MAJOR << 16 | TW_VERSION_MINOR << 8 | TW_VERSION_PATCH);
#define TW_ROW(name, value, text) assert_string_equal(tw_status_name(TW_##name), #name);
    TW_STATUSES(TW_ROW)
#undef TW_ROW
    assert_string_equal(tw_status_name((tw_status)99), "?");
#define TW_ROW(name, value, text, bits, kind, exponent, mantissa)                                  \
    assert_string_equal(tw_dtype_name(TW_##name), text);                                           \
    assert_int_equal(tw_dtype_bits(TW_##name), bits);
    TW_DTYPES(TW_ROW)
#undef TW_ROW
    assert_string_equal(tw_dtype_name(TW_NONE), "none");
    assert_string_equal(tw_dtype_name((tw_dtype)99), "?");
    assert_int_equal(tw_dtype_bits((tw_dtype)99), 0);
}

static void defaults(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    tw_device_info info = TW_DEVICE_INFO_INIT;
    check_ok(tw_context_device(context, &info));
    assert_true(info.name[0] && info.target[0]);
    assert_int_equal(info.threads, 2);
    tw_stats stats = stats_of(context);
    assert_int_equal(stats.compiles + stats.loads + stats.guesses + stats.references, 0);
    tw_context_destroy(context);
    tw_context_destroy(NULL);
    tw_linear_destroy(NULL);
}

static void forced_target(void **state) {
    fixture *f = *state;
    f->options.device = "cpu:portable";
    tw_context *context = open_context(f);
    tw_device_info info = TW_DEVICE_INFO_INIT;
    check_ok(tw_context_device(context, &info));
    assert_string_equal(info.target, "portable");
    layer l;
    layer_init(&l, problem, 1);
    tw_linear *linear = make_linear(&l, context);
    check_forward(&l, linear, 5);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

static void bad_options(void **state) {
    fixture *f = *state;
    tw_context *context = NULL;
    tw_options o = f->options;
    check_fails(tw_context_create(&o, NULL), TW_INVALID, "out: NULL");
#define TRY(field, value, status, part)                                                            \
    o = f->options;                                                                                \
    o.field = value;                                                                               \
    check_fails(tw_context_create(&o, &context), status, part);
    TRY(mode, (tw_mode)77, TW_INVALID, "mode: 77")
    TRY(mode, (tw_mode)-1, TW_INVALID, "mode: -1")
    TRY(tune_budget_s, -1, TW_INVALID, "tune_budget_s: -1")
    TRY(tune_budget_s, 0.0 / 0.0 * 1, TW_INVALID, "tune_budget_s")
    TRY(tune_budget_s, 1e308 * 10, TW_INVALID, "tune_budget_s: inf")
    TRY(tune_budget_s, 3600001, TW_INVALID, "tune_budget_s: 3.6e+06, must be from 0 to 3600000")
    TRY(threads, -2, TW_INVALID, "threads: -2")
    TRY(parallel.threads, 3, TW_INVALID, "parallel: threads 3 without run()")
    TRY(allocator.alloc, (void *(*)(void *, size_t, size_t))abort, TW_INVALID, "free is missing")
    TRY(allocator.free, (void (*)(void *, void *, size_t))abort, TW_INVALID, "alloc is missing")
    TRY(device, "", TW_UNSUPPORTED, "device: \"\"")
    TRY(device, "gpu", TW_UNSUPPORTED, "gpu")
    TRY(device, "cpu:mmx", TW_INVALID, "device: cpu:mmx")
    TRY(struct_size, 3, TW_INVALID, "struct_size 3")
#undef TRY
    assert_null(context);
}

static void run_nothing(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    (void)user, (void)task, (void)arg, (void)count;
}

static void hook_without_threads(void **state) {
    fixture *f = *state;
    tw_context *context = NULL;
    f->options.parallel.run = run_nothing;
    check_fails(tw_context_create(&f->options, &context), TW_INVALID, "parallel: threads 0");
}

/* Callers that were compiled against another version of the header. */
static void struct_sizes(void **state) {
    fixture *f = *state;
    struct {
        tw_options known;
        int64_t newer;
    } later = {f->options, 0};
    tw_context *context = NULL;
    later.known.struct_size = sizeof later;
    check_ok(tw_context_create(&later.known, &context));
    tw_context_destroy(context);
    later.newer = 1;
    context = NULL;
    check_fails(tw_context_create(&later.known, &context), TW_INVALID, "beyond");
    /* An older caller knows nothing behind the mode: its threads are whatever lies there. */
    tw_options older = f->options;
    older.struct_size = offsetof(tw_options, tune_budget_s);
    older.threads = -5;
    check_ok(tw_context_create(&older, &context));

    tw_device_info info = {.struct_size = offsetof(tw_device_info, target), .target = "untouched"};
    check_ok(tw_context_device(context, &info));
    assert_true(info.name[0]);
    assert_string_equal(info.target, "untouched");
    assert_int_equal(info.struct_size, offsetof(tw_device_info, target));
    info.struct_size = 0;
    check_fails(tw_context_device(context, &info), TW_INVALID, "struct_size 0");
    check_fails(tw_context_device(context, NULL), TW_INVALID, "out: NULL");
    check_fails(tw_context_device(NULL, &info), TW_INVALID, "context: NULL");
    tw_stats stats = TW_STATS_INIT;
    check_fails(tw_context_stats(NULL, &stats), TW_INVALID, "context: NULL");
    check_fails(tw_context_stats(context, NULL), TW_INVALID, "out: NULL");
    tw_context_destroy(context);
}

/* $TW_THREADS is for contexts that name no number. */
static void threads_variable(void **state) {
    fixture *f = *state;
    static const int32_t rows[][2] = {{0, 3}, {2, 2}}; /* asked for, expected */
    setenv("TW_THREADS", "3", 1);
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        f->options.threads = rows[i][0];
        tw_context *context = open_context(f);
        tw_device_info info = TW_DEVICE_INFO_INIT;
        check_ok(tw_context_device(context, &info));
        assert_int_equal(info.threads, rows[i][1]);
        tw_context_destroy(context);
    }
    unsetenv("TW_THREADS");
}

/* ---- hooks ---- */

typedef struct parallel_log {
    atomic_int calls, tasks;
} parallel_log;

/* Backwards: nobody may depend on the order. */
static void run_backwards(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    parallel_log *log = user;
    log->calls++;
    for (size_t i = count; i-- > 0;) {
        log->tasks++;
        task(arg, i);
    }
}

static void parallel_hook(void **state) {
    fixture *f = *state;
    parallel_log log = {0};
    f->options.parallel = (tw_parallel){run_backwards, &log, 4};
    tw_context *context = open_context(f);
    tw_device_info info = TW_DEVICE_INFO_INIT;
    check_ok(tw_context_device(context, &info));
    assert_int_equal(info.threads, 4);
    layer l;
    layer_init(&l, "N=300,K=256,w=i8,s=f32,a=i8", 2);
    tw_linear *linear = make_linear(&l, context);
    check_forward(&l, linear, 100);
    assert_true(log.calls >= 1 && log.tasks > log.calls);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

static atomic_int teams;

/* A team of two by real threads, as libgomp starts it. */
static void *team_mate(void *arg) {
    void **both = arg;
    void (*function)(void *data);
    memcpy(&function, both, sizeof function);
    function(both[1]);
    return NULL;
}

static void fake_gomp(void (*function)(void *data), void *data, unsigned threads, unsigned flags) {
    void *both[2] = {NULL, data};
    pthread_t mate;
    assert_true(threads == 0 && flags == 0);
    memcpy(both, &function, sizeof function);
    assert_int_equal(pthread_create(&mate, NULL, team_mate, both), 0);
    function(data);
    pthread_join(mate, NULL);
    teams++;
}

static void openmp_hook(void **state) {
    fixture *f = *state;
    tw_parallel untouched = {0};
    check_fails(tw_parallel_openmp(NULL, 2, &untouched), TW_INVALID, "gomp_parallel: NULL");
    check_fails(tw_parallel_openmp(fake_gomp, 0, &untouched), TW_INVALID, "threads: 0");
    check_fails(tw_parallel_openmp(fake_gomp, 2, NULL), TW_INVALID, "out: NULL");
    assert_true(!untouched.run && !untouched.user && !untouched.threads);
    teams = 0;
    check_ok(tw_parallel_openmp(fake_gomp, 3, &f->options.parallel));
    tw_context *context = open_context(f);
    tw_device_info info = TW_DEVICE_INFO_INIT;
    check_ok(tw_context_device(context, &info));
    assert_int_equal(info.threads, 3);
    layer l;
    layer_init(&l, "N=300,K=256,w=i8,s=f32,a=i8", 2);
    tw_linear *linear = make_linear(&l, context);
    check_forward(&l, linear, 100);
    assert_true(teams >= 1);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

static void log_hook(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, problem, 3);
    tw_linear *linear = make_linear(&l, context);
    int before = f->lines[TW_LOG_INFO];
    check_ok(tw_linear_prepare(linear, (int64_t[]){1}, 1, 1));
    assert_int_equal(f->lines[TW_LOG_INFO], before + 1);
    assert_non_null(strstr(f->last[TW_LOG_INFO], "plan: M=1,N=96,K=128"));
    assert_non_null(strstr(f->last[TW_LOG_INFO], "(guess)"));
    assert_true(f->lines[TW_LOG_DEBUG] > 0);
    assert_int_equal(f->lines[TW_LOG_WARN] + f->lines[TW_LOG_ERROR], 0);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

/* A context that is destroyed under its linears stays, and says so. */
static void destroyed_early(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, problem, 4);
    tw_linear *linear = make_linear(&l, context);
    tw_context_destroy(context);
    assert_int_equal(f->lines[TW_LOG_ERROR], 1);
    assert_non_null(strstr(f->last[TW_LOG_ERROR], "1 linears"));
    check_forward(&l, linear, 2);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

/* ---- a cache that cannot be used: one warning, and the layer runs ---- */

static void check_runs_with_one_warning(fixture *f) {
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, problem, 5);
    tw_linear *linear = make_linear(&l, context);
    check_forward(&l, linear, 3);
    assert_int_equal(f->lines[TW_LOG_WARN], 1);
    assert_int_equal(f->lines[TW_LOG_ERROR], 0);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

static void cache_is_a_folder(void **state) {
    fixture *f = *state;
    f->options.cache_path = f->folder;
    check_runs_with_one_warning(f);
}

static void cache_is_foreign(void **state) {
    fixture *f = *state;
    FILE *file = fopen(f->cache, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) assert_true(fputs("not a database\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    check_runs_with_one_warning(f);
}

static void no_cache(void **state) {
    fixture *f = *state;
    f->options.cache_path = "";
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, problem, 6);
    tw_linear *linear = make_linear(&l, context);
    check_forward(&l, linear, 3);
    assert_int_equal(f->lines[TW_LOG_WARN], 0);
    struct stat s;
    assert_int_equal(stat(f->cache, &s), -1);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(names),
        TEST(defaults),
        TEST(forced_target),
        TEST(bad_options),
        TEST(struct_sizes),
        TEST(parallel_hook),
        TEST(openmp_hook),
        TEST(log_hook),
        TEST(destroyed_early),
        TEST(cache_is_a_folder),
        TEST(cache_is_foreign),
        TEST(no_cache),
        TEST(hook_without_threads),
        TEST(threads_variable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
