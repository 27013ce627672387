/* Two layers of cache: a read-only system file below the user's, who wins. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/plan.h"
#include "tests/capi/fixture.h"

static const char problem[] = "N=96,K=128,w=u4,g=32,s=f16,z=code,a=i8";
enum { M = 16 };

typedef struct world {
    fixture *f;
    char folder[PATH_BYTES], system[PATH_BYTES]; /* system: folder/cache.db */
    tw_context *context;
    layer l;
    tw_linear *linear;
} world;

static void open_again(world *w, tw_mode mode) {
    w->f->options.mode = mode;
    w->context = open_context(w->f);
    w->linear = make_linear(&w->l, w->context);
}

static void close_context(world *w) {
    tw_linear_destroy(w->linear);
    tw_context_destroy(w->context);
}

static tw_status prepare(world *w) { return tw_linear_prepare(w->linear, (int64_t[]){M}, 1, 1); }

/* A tuned system file in a folder of its own, and no user's file yet. */
static void open_world(world *w, void **state) {
    memset(w, 0, sizeof *w);
    w->f = *state;
    snprintf(w->folder, sizeof w->folder, "%.300s/system", w->f->folder);
    snprintf(w->system, sizeof w->system, "%.400s/cache.db", w->folder);
    assert_int_equal(mkdir(w->folder, 0755), 0);
    layer_init(&w->l, problem, 31);
    w->f->options.tune_budget_s = 5;
    w->f->options.cache_path = w->system;
    open_again(w, TW_MODE_TUNE);
    check_ok(prepare(w));
    check_plan(w->linear, M, "cpu.int_gemm", "tuned");
    close_context(w);
    w->f->options.cache_path = w->f->cache;
    w->f->options.cache_system_path = w->system;
}

static int count_files(const char *folder) {
    int count = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static int64_t choices_of(tw_cache *cache) {
    tw_cache_counts counts;
    check_ok(tw_cache_stats(cache, &counts));
    return counts.choices;
}

/* Choice and machine code come from the system file, which stays as it is. */
static void found_below(void **state) {
    static const tw_mode modes[] = {TW_MODE_CACHED_ONLY, TW_MODE_DEFAULT, TW_MODE_TUNE};
    world w;
    struct stat before, after;
    open_world(&w, state);
    assert_int_equal(chmod(w.system, 0444), 0);
    assert_int_equal(chmod(w.folder, 0555), 0);
    assert_int_equal(stat(w.system, &before), 0);
    for (size_t i = 0; i < TW_COUNT(modes); i++) {
        open_again(&w, modes[i]);
        check_ok(prepare(&w));
        check_plan(w.linear, M, "cpu.int_gemm", "cache");
        check_forward(&w.l, w.linear, M);
        tw_stats s = stats_of(w.context);
        assert_int_equal(s.choice_hits, 1);
        assert_int_equal(s.compiles + s.tunings + s.choice_misses, 0);
        assert_int_equal(count_files(w.folder), 1);
        assert_int_equal(choices_of(w.context->cache), 0);
        close_context(&w);
    }
    assert_int_equal(stat(w.system, &after), 0);
    assert_memory_equal(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(count_files(w.folder), 1);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    assert_int_equal(chmod(w.folder, 0755), 0);
    layer_free(&w.l);
}

/* Gives the problem's choice another median, by which it is known. */
static void put_choice(world *w, tw_cache *cache, double median_ns, int version) {
    tw_problem p = w->l.problem;
    tw_choice choice;
    tw_key key;
    tw_str device = {0};
    p.M = M;
    check_ok(tw_choice_key(&p, tw_bucket_index(M), &w->context->target, &key));
    assert_true(tw_cache_get_choice(w->context->system_cache, &key, &choice));
    choice.median_ns = median_ns;
    choice.kernel_version += (uint32_t)version;
    tw_device_text(&w->context->target, &device);
    check_ok(tw_cache_put_choice(cache, &key, tw_str_text(&device), &choice));
    tw_str_free(&device);
    tw_key_free(&key);
}

static double planned_ns(world *w) {
    tw_plan_info plan = TW_PLAN_INFO_INIT;
    check_ok(tw_linear_plan(w->linear, M, &plan));
    assert_string_equal(plan.origin, "cache");
    return plan.median_ns;
}

/* The user's row wins, unless it is of no use any more. */
static void user_wins(void **state) {
    world w;
    open_world(&w, state);
    open_again(&w, TW_MODE_DEFAULT);
    double below = planned_ns(&w);
    put_choice(&w, w.context->cache, 123456, 0);
    close_context(&w);
    open_again(&w, TW_MODE_DEFAULT);
    assert_true(planned_ns(&w) == 123456);
    put_choice(&w, w.context->cache, 123456, 1);
    close_context(&w);
    open_again(&w, TW_MODE_DEFAULT);
    assert_true(planned_ns(&w) == below);
    close_context(&w);
    layer_free(&w.l);
}

/* What the system file has not is tuned and stored as ever. */
static void writes_go_to_the_user(void **state) {
    world w;
    open_world(&w, state);
    open_again(&w, TW_MODE_TUNE);
    check_ok(tw_linear_prepare(w.linear, (int64_t[]){M, 1}, 2, 1));
    check_plan(w.linear, M, "cpu.int_gemm", "cache");
    check_plan(w.linear, 1, "cpu.int_gemm", "tuned");
    assert_int_equal(choices_of(w.context->cache), 1);
    assert_int_equal(choices_of(w.context->system_cache), 1);
    close_context(&w);
    open_again(&w, TW_MODE_CACHED_ONLY);
    check_ok(tw_linear_prepare(w.linear, (int64_t[]){M, 1}, 2, 1));
    close_context(&w);
    layer_free(&w.l);
}

static void check_bypassed(world *w, const char *says) {
    w->f->lines[TW_LOG_WARN] = 0;
    open_again(w, TW_MODE_DEFAULT);
    check_forward(&w->l, w->linear, M);
    assert_int_equal(w->f->lines[TW_LOG_WARN], 1);
    if (!strstr(w->f->last[TW_LOG_WARN], says)) fail_msg("%s", w->f->last[TW_LOG_WARN]);
    close_context(w);
}

/* One warning, and the layer runs. */
static void of_no_use(void **state) {
    world w;
    open_world(&w, state);
    assert_int_equal(chmod(w.system, 0666), 0);
    check_bypassed(&w, "mode 0666");
    assert_int_equal(chmod(w.system, 0644), 0);
    assert_int_equal(truncate(w.system, 4096), 0);
    check_bypassed(&w, "malformed");
    FILE *file = fopen(w.system, "w");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) assert_true(fputs("not a database\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    check_bypassed(&w, "is not an SQLite file");
    assert_int_equal(unlink(w.system), 0);
    check_bypassed(&w, "no such file");
    layer_free(&w.l);
}

/* Nobody has to say that there is none. */
static void none_by_default(void **state) {
    world w;
    open_world(&w, state);
    unsetenv("TW_CACHE_SYSTEM");
    w.f->options.cache_system_path = NULL;
    open_again(&w, TW_MODE_DEFAULT);
    check_forward(&w.l, w.linear, M);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 0);
    close_context(&w);
    setenv("TW_CACHE_SYSTEM", w.system, 1);
    open_again(&w, TW_MODE_DEFAULT);
    check_plan(w.linear, M, "cpu.int_gemm", "cache");
    close_context(&w);
    unsetenv("TW_CACHE_SYSTEM");
    layer_free(&w.l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(found_below),           TEST(user_wins), TEST(none_by_default),
        TEST(writes_go_to_the_user), TEST(of_no_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
