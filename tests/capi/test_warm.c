/* A process that finds everything in the cache never opens LLVM.  Each step is a process of its
 * own, since an opened compiler stays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/capi/fixture.h"

static const char *const problems[] = {"N=96,K=128,w=u4,g=32,s=f16,z=code,a=i8",
                                       "N=64,K=80,w=i8,g=channel,s=f32,bias=f32,act=relu",
                                       "N=40,K=64,w=f16"};

/* Prepares all problems; what it took, in *stats. */
static int prepare_all(fixture *f, tw_stats *stats) {
    static const int64_t M[] = {1, 16};
    tw_context *context = NULL;
    *stats = (tw_stats)TW_STATS_INIT;
    int failed = tw_context_create(&f->options, &context) != TW_OK;
    for (size_t i = 0; i < TW_COUNT(problems) && !failed; i++) {
        layer l;
        tw_linear *linear = NULL;
        layer_init(&l, problems[i], 5);
        failed = try_linear(&l, context, &linear) != TW_OK ||
                 tw_linear_prepare(linear, M, TW_COUNT(M), 1) != TW_OK;
        tw_tensor x = random_rows(TW_F32, 9, l.problem.K, 1);
        tw_tensor y = random_rows(TW_F32, 9, l.problem.N, 1);
        failed = failed || tw_linear_forward(linear, &x, &y) != TW_OK;
        free(x.data), free(y.data);
        tw_linear_destroy(linear);
        layer_free(&l);
    }
    if (!failed) failed = tw_context_stats(context, stats) != TW_OK;
    if (failed) fprintf(stderr, "%s\n", tw_error_message());
    tw_context_destroy(context);
    return failed;
}

static int cold(fixture *f) {
    tw_stats s;
    return prepare_all(f, &s) || !s.compiles || !s.compiler_opened;
}

static int warm(fixture *f) {
    tw_stats s;
    /* Where it should lie is nothing: opening it would fail. */
    setenv("TW_MODULE", f->folder, 1);
    return prepare_all(f, &s) || s.compiles || s.compiler_opened || s.references || !s.loads;
}

/* No compiler and nothing in the cache: the reference, one warning a linear. */
static int without_compiler(fixture *f) {
    tw_stats s;
    setenv("TW_MODULE", f->folder, 1);
    return prepare_all(f, &s) || s.compiles || s.loads || s.references != 6 ||
           f->lines[TW_LOG_WARN] != (int)TW_COUNT(problems) ||
           !strstr(f->last[TW_LOG_WARN], "LLVM");
}

static int in_child(int (*step)(fixture *f), fixture *f) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) _exit(step(f));
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void second_process_is_warm(void **state) {
    fixture *f = *state;
    assert_int_equal(in_child(cold, f), 0);
    assert_int_equal(in_child(warm, f), 0);
    f->options.mode = TW_MODE_CACHED_ONLY;
    assert_int_equal(in_child(warm, f), 0);
}

static void tuned_is_warm(void **state) {
    fixture *f = *state;
    f->options.mode = TW_MODE_TUNE;
    f->options.tune_budget_s = 5;
    assert_int_equal(in_child(cold, f), 0);
    assert_int_equal(in_child(warm, f), 0);
    f->options.mode = TW_MODE_CACHED_ONLY;
    assert_int_equal(in_child(warm, f), 0);
}

static void nothing_can_be_compiled(void **state) {
    fixture *f = *state;
    assert_int_equal(in_child(without_compiler, f), 0);
    f->options.mode = TW_MODE_TUNE;
    assert_int_equal(in_child(without_compiler, f), 0);
    /* What could not be built was not remembered as a failure. */
    f->options.tune_budget_s = 5;
    assert_int_equal(in_child(cold, f), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(second_process_is_warm),
        TEST(tuned_is_warm),
        TEST(nothing_can_be_compiled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
