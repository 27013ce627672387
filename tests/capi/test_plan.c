/* Where plans come from: guess, tuner, cache; CACHED_ONLY; rows of the cache that are of no use;
 * introspection. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codegen/cpu/compile.h"
#include "src/plan.h"
#include "tests/capi/fixture.h"

/* The last group is short: int_gemm alone takes it, on every target. */
static const char problem[] = "N=96,K=136,w=u4,g=32,s=f16,z=code,a=i8";

typedef struct world {
    fixture *f;
    tw_context *context;
    layer l;
    tw_linear *linear;
} world;

static void open_again(world *w, tw_mode mode) {
    w->f->options.mode = mode;
    w->f->options.tune_budget_s = 5;
    w->context = open_context(w->f);
    w->linear = make_linear(&w->l, w->context);
}

static world open_world(void **state, tw_mode mode) {
    world w = {.f = *state};
    layer_init(&w.l, problem, 31);
    open_again(&w, mode);
    return w;
}

static void close_context(world *w) {
    tw_linear_destroy(w->linear);
    tw_context_destroy(w->context);
}

static void close_world(world *w) {
    close_context(w);
    layer_free(&w->l);
}

static tw_status prepare(const world *w, int64_t M) {
    return tw_linear_prepare(w->linear, &M, 1, 1);
}

static tw_problem at(const world *w, int64_t M) {
    tw_problem p = w->l.problem;
    p.M = M;
    return p;
}

/* ---- guess, cache, CACHED_ONLY ---- */

/* A guess keeps its binary and is never stored as a choice. */
static void guesses(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    check_ok(prepare(&w, 16));
    check_plan(w.linear, 16, "cpu.int_gemm", "guess");
    tw_stats s = stats_of(w.context);
    assert_int_equal(s.guesses, 1);
    assert_int_equal(s.choice_misses, 1);
    assert_int_equal(s.compiles, 1);
    assert_int_equal(s.loads, 1);
    assert_int_equal(s.compiler_opened, 1);
    tw_cache_counts counts;
    check_ok(tw_cache_stats(w.context->cache, &counts));
    assert_int_equal(counts.choices, 0);
    assert_int_equal(counts.binaries, 1);
    close_context(&w);

    open_again(&w, TW_MODE_DEFAULT);
    check_forward(&w.l, w.linear, 16);
    check_plan(w.linear, 16, "cpu.int_gemm", "guess");
    s = stats_of(w.context);
    assert_int_equal(s.compiles, 0);
    assert_int_equal(s.binary_hits, 1);
    close_world(&w);
}

static void cached_only_miss(void **state) {
    world w = open_world(state, TW_MODE_CACHED_ONLY);
    check_fails(prepare(&w, 16), TW_MISS, "M<=16,N=96,K=136,x=f32,w=u4");
    tw_tensor x = random_rows(TW_F32, 16, 136, 1), y = random_rows(TW_F32, 16, 96, 1);
    check_fails(tw_linear_forward(w.linear, &x, &y), TW_MISS, "M<=16,N=96,K=136,x=f32,w=u4");
    assert_int_equal(stats_of(w.context).compiles, 0);
    free(x.data), free(y.data);
    close_world(&w);
}

/* What a default run built will do: the guess is the same and its code is there. */
static void cached_only_after_prepare(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    check_ok(prepare(&w, 16));
    close_context(&w);
    open_again(&w, TW_MODE_CACHED_ONLY);
    check_forward(&w.l, w.linear, 16);
    check_plan(w.linear, 16, "cpu.int_gemm", "guess");
    assert_int_equal(stats_of(w.context).compiles, 0);
    check_fails(tw_linear_dump(w.linear, 16, TW_DUMP_IR, NULL, 0, &(size_t){0}), TW_UNSUPPORTED,
                "CACHED_ONLY");
    size_t needed = 0;
    check_ok(tw_linear_dump(w.linear, 16, TW_DUMP_OBJECT, NULL, 0, &needed));
    assert_true(needed > 0);
    close_world(&w);
}

static void cached_only_without_kernel(void **state) {
    fixture *f = *state;
    f->options.mode = TW_MODE_CACHED_ONLY;
    tw_context *context = open_context(f);
    layer l;
    layer_init(&l, "N=40,K=64,w=u4,g=3,s=f16", 1);
    tw_linear *linear = make_linear(&l, context);
    check_fails(tw_linear_prepare(linear, (int64_t[]){1}, 1, 1), TW_UNSUPPORTED,
                "no kernel takes it");
    check_fails(tw_linear_prepare(linear, (int64_t[]){1}, 1, 1), TW_UNSUPPORTED,
                "CACHED_ONLY does not run the reference");
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

/* ---- tuning ---- */

/* A host that asks for nothing is told to tune by the environment; one that asks gets what it asks
 * for. */
static void tunes_by_environment(void **state) {
    setenv("TW_TUNE", "1", 1);
    world w = open_world(state, TW_MODE_DEFAULT);
    unsetenv("TW_TUNE");
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "tuned");
    close_world(&w);
    setenv("TW_TUNE", "1", 1);
    w = open_world(state, TW_MODE_REFERENCE);
    unsetenv("TW_TUNE");
    check_ok(prepare(&w, 24));
    check_plan(w.linear, 24, "reference", "reference");
    close_world(&w);
}

static void tunes_once(void **state) {
    world w = open_world(state, TW_MODE_TUNE);
    /* forward() never tunes; prepare() then does, and the guess gives way. */
    check_forward(&w.l, w.linear, 12);
    check_plan(w.linear, 12, "cpu.int_gemm", "guess");
    assert_int_equal(stats_of(w.context).tunings, 0);
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "tuned");
    check_forward(&w.l, w.linear, 12);
    tw_plan_info tuned = TW_PLAN_INFO_INIT;
    check_ok(tw_linear_plan(w.linear, 12, &tuned));
    assert_true(tuned.median_ns > 0 && tuned.config[0]);
    assert_int_equal(stats_of(w.context).tunings, 1);
    check_ok(prepare(&w, 12));
    assert_int_equal(stats_of(w.context).tunings, 1);

    /* Another linear of the same shape shares plan and code. */
    int64_t loads = stats_of(w.context).loads;
    tw_linear *other = make_linear(&w.l, w.context);
    check_forward(&w.l, other, 12);
    check_plan(other, 12, "cpu.int_gemm", "tuned");
    assert_int_equal(stats_of(w.context).loads, loads);
    tw_linear_destroy(other);
    close_context(&w);

    static const tw_mode modes[] = {TW_MODE_CACHED_ONLY, TW_MODE_DEFAULT, TW_MODE_TUNE};
    for (size_t i = 0; i < TW_COUNT(modes); i++) {
        open_again(&w, modes[i]);
        check_ok(prepare(&w, 12));
        check_forward(&w.l, w.linear, 12);
        tw_plan_info again = TW_PLAN_INFO_INIT;
        check_ok(tw_linear_plan(w.linear, 12, &again));
        assert_string_equal(again.origin, "cache");
        assert_string_equal(again.config, tuned.config);
        assert_true(again.median_ns == tuned.median_ns);
        tw_stats s = stats_of(w.context);
        assert_int_equal(s.compiles + s.tunings + s.guesses, 0);
        assert_int_equal(s.choice_hits, 1);
        close_context(&w);
    }
    layer_free(&w.l);
}

/* Too little time to compare anything: the guess, said aloud, no choice for the next process. */
static void too_little_time_is_no_choice(void **state) {
    world w = open_world(state, TW_MODE_TUNE);
    close_context(&w);
    w.f->options.tune_budget_s = 1e-6;
    w.context = open_context(w.f);
    w.linear = make_linear(&w.l, w.context);
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "guess");
    check_forward(&w.l, w.linear, 12);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(w.f->last[TW_LOG_WARN], "s of the budget is too short, about "));
    assert_int_equal(stats_of(w.context).guesses, 1);
    close_context(&w);

    open_again(&w, TW_MODE_DEFAULT);
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "guess");
    close_context(&w);
    open_again(&w, TW_MODE_TUNE);
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "tuned");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    close_world(&w);
}

/* What was left open is not kept from a later prepare() that has the time, of this linear or of
 * another. */
static void what_fell_short_is_tuned_later(void **state) {
    world w = open_world(state, TW_MODE_TUNE);
    w.context->budget_s = 1e-6;
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "guess");
    tw_linear *other = make_linear(&w.l, w.context);
    w.context->budget_s = 5;
    check_ok(tw_linear_prepare(other, (int64_t[]){12}, 1, 1));
    check_plan(other, 12, "cpu.int_gemm", "tuned");
    check_ok(prepare(&w, 12));
    check_plan(w.linear, 12, "cpu.int_gemm", "tuned");
    assert_int_equal(stats_of(w.context).tunings, 2);
    check_forward(&w.l, w.linear, 12);
    tw_linear_destroy(other);
    close_world(&w);
}

/* ---- rows of the cache that must not be used ---- */

static void put_choice(const world *w, int64_t M, tw_choice choice) {
    tw_problem p = at(w, M);
    tw_key key;
    tw_str device = {0};
    check_ok(tw_choice_key(&p, tw_bucket_index(M), &w->context->target, &key));
    tw_device_text(&w->context->target, &device);
    check_ok(tw_cache_put_choice(w->context->cache, &key, tw_str_text(&device), &choice));
    tw_str_free(&device);
    tw_key_free(&key);
}

static void useless_choices(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    const tw_template *t = tw_template_find("cpu.int_gemm");
    assert_non_null(t);
    tw_config good = {0};
    tw_problem p = at(&w, 16);
    t->guess(&w.context->target, &p, &good);
    tw_str text = {0};
    tw_config_text(&good, &text);
    const struct {
        const char *kernel;
        uint32_t version;
        const char *config, *why;
    } rows[] = {
        {"cpu.gone", 1, tw_str_text(&text), "no such kernel"},
        {"cpu.int_gemm", t->version + 1, tw_str_text(&text), "another version"},
        {"cpu.int_gemm", t->version, "mm4 zz9", "zz9"},
        {"cpu.int_gemm", t->version, "mm4 mn63", "choice of"},
        {"cpu.dq_gemm", tw_template_find("cpu.dq_gemm")->version, tw_str_text(&text), "choice of"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_choice choice = {.kernel_version = rows[i].version, .median_ns = 1};
        snprintf(choice.kernel, sizeof choice.kernel, "%s", rows[i].kernel);
        snprintf(choice.config, sizeof choice.config, "%s", rows[i].config);
        put_choice(&w, 16, choice);
        tw_linear *linear = make_linear(&w.l, w.context);
        int64_t misses = stats_of(w.context).choice_misses;
        check_plan(linear, 16, "cpu.int_gemm", "guess");
        assert_int_equal(stats_of(w.context).choice_misses, misses + 1);
        tw_linear_destroy(linear);
    }
    tw_str_free(&text);
    close_world(&w);
}

/* A binary that is whole but that the loader refuses: built anew, with a warning. */
static void useless_binary(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    tw_problem p = at(&w, 16);
    tw_plan_request request = tw_plan_ask(w.context, &p);
    tw_decision d;
    tw_key key;
    check_ok(tw_plan_decide(w.context, &request, &d));
    check_ok(tw_binary_key(&p, d.tmpl->name, d.tmpl->version, &d.config, &w.context->target,
                           tw_cpu_compiler(), &key));
    check_ok(tw_cache_put_binary(w.context->cache, &key, d.tmpl->name, d.tmpl->version, "junk", 4));
    tw_key_free(&key);
    check_forward(&w.l, w.linear, 16);
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(w.f->last[TW_LOG_WARN], "building anew"));
    close_context(&w);
    open_again(&w, TW_MODE_DEFAULT);
    check_forward(&w.l, w.linear, 16);
    assert_int_equal(stats_of(w.context).compiles, 0);
    close_world(&w);
}

/* ---- introspection ---- */

/* free() it. */
static char *dump(tw_linear *linear, int64_t M, tw_dump what, size_t *size) {
    check_ok(tw_linear_dump(linear, M, what, NULL, 0, size));
    char *text = malloc(*size + 2);
    assert_non_null(text);
    text[*size + 1] = 'X';
    size_t again = 0;
    check_ok(tw_linear_dump(linear, M, what, text, *size + 1, &again));
    assert_int_equal(again, *size);
    assert_true(text[*size] == 0 && text[*size + 1] == 'X');
    return text;
}

static void dumps(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    static const struct {
        tw_dump what;
        const char *part;
    } rows[] = {{TW_DUMP_KEY, "binary/1 | N=96,K=136"},
                {TW_DUMP_KEY, "M<=32,N=96,K=136"},
                {TW_DUMP_IR, "define"},
                {TW_DUMP_IR, "tw_matmul"},
                {TW_DUMP_ASM, "tw_matmul:"},
                {TW_DUMP_TRACE, "tw_matmul"},
                {TW_DUMP_EXPLAIN, "cpu.dq_gemm:"},
                {TW_DUMP_EXPLAIN, "origin   guess"}};
    size_t size;
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char *text = dump(w.linear, 20, rows[i].what, &size);
        assert_int_equal(strlen(text), size);
        if (!strstr(text, rows[i].part)) fail_msg("no \"%s\" in: %s", rows[i].part, text);
        free(text);
    }
    char *object = dump(w.linear, 20, TW_DUMP_OBJECT, &size);
    assert_memory_equal(object, "\177ELF", 4);
    free(object);

    char small[8] = "1234567";
    check_ok(tw_linear_dump(w.linear, 20, TW_DUMP_KEY, small, 6, &size));
    assert_memory_equal(small, "choice7", 7);
    check_fails(tw_linear_dump(w.linear, 20, (tw_dump)0, NULL, 0, &size), TW_INVALID, "what: 0");
    check_fails(tw_linear_dump(w.linear, 20, (tw_dump)7, NULL, 0, &size), TW_INVALID, "what: 7");
    check_fails(tw_linear_dump(w.linear, 0, TW_DUMP_KEY, NULL, 0, &size), TW_INVALID, "M: 0");
    check_fails(tw_linear_dump(w.linear, 1, TW_DUMP_KEY, NULL, 0, NULL), TW_INVALID, "needed");
    check_fails(tw_linear_dump(w.linear, 1, TW_DUMP_KEY, NULL, 3, &size), TW_INVALID, "buf");
    check_fails(tw_linear_dump(NULL, 1, TW_DUMP_KEY, NULL, 0, &size), TW_INVALID, "linear");
    tw_plan_info info = {.struct_size = 1};
    check_fails(tw_linear_plan(w.linear, 1, &info), TW_INVALID, "struct_size 1");
    check_fails(tw_linear_plan(w.linear, 1, NULL), TW_INVALID, "out: NULL");
    check_fails(tw_linear_plan(w.linear, -1, &info), TW_INVALID, "M: -1");
    check_fails(tw_linear_plan(NULL, 1, &info), TW_INVALID, "linear: NULL");
    close_world(&w);
}

static void dumps_of_the_reference(void **state) {
    world w = open_world(state, TW_MODE_REFERENCE);
    size_t size;
    free(dump(w.linear, 1, TW_DUMP_KEY, &size));
    char *text = dump(w.linear, 1, TW_DUMP_EXPLAIN, &size);
    assert_non_null(strstr(text, "origin   reference"));
    free(text);
    check_fails(tw_linear_dump(w.linear, 1, TW_DUMP_ASM, NULL, 0, &size), TW_UNSUPPORTED,
                "the reference has no generated code");
    close_world(&w);
}

static void check_file(const char *folder, const char *name) {
    char path[2 * PATH_BYTES];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(stat(path, &s), 0);
    assert_true(s.st_size > 0);
}

static void dump_folder(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    char root[PATH_BYTES + 8], folder[PATH_BYTES + 300] = "";
    snprintf(root, sizeof root, "%s/dump", w.f->folder);
    setenv("TW_DUMP", root, 1);
    check_ok(prepare(&w, 1));
    unsetenv("TW_DUMP");
    DIR *dir = opendir(root);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.') snprintf(folder, sizeof folder, "%.519s/%.256s", root, e->d_name);
    closedir(dir);
    assert_non_null(strstr(folder, "cpu.int_gemm-"));
    check_file(folder, "key.txt");
    check_file(folder, "kernel.ll");
    check_file(folder, "kernel.s");
    check_file(folder, "kernel.o");
    close_world(&w);
}

/* A folder that cannot be: one warning, and everything goes on. */
static void dump_folder_is_a_file(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    setenv("TW_DUMP", w.f->cache, 1);
    check_forward(&w.l, w.linear, 1);
    check_forward(&w.l, w.linear, 64);
    unsetenv("TW_DUMP");
    assert_int_equal(w.f->lines[TW_LOG_WARN], 1);
    assert_non_null(strstr(w.f->last[TW_LOG_WARN], "TW_DUMP"));
    close_world(&w);
}

/* ---- plans without a linear, as the tools make them ---- */

static void plans_alone(void **state) {
    world w = open_world(state, TW_MODE_DEFAULT);
    tw_problem p = at(&w, 100);
    tw_plan_request request = tw_plan_ask(w.context, &p);
    tw_plan *first, *second, *forced;
    check_ok(tw_plan_make(w.context, &request, &first));
    check_ok(tw_plan_make(w.context, &request, &second));
    assert_ptr_equal(first, second);
    assert_int_equal(first->problem.M, 128);
    request.tmpl = first->decision.tmpl;
    check_ok(tw_plan_make(w.context, &request, &forced));
    assert_int_equal(forced->decision.origin, TW_ORIGIN_FORCED);
    assert_ptr_equal(forced->code, first->code);
    assert_int_equal(stats_of(w.context).loads, 1);
    tw_plan_release(w.context, first);
    tw_plan_release(w.context, second);
    tw_plan_release(w.context, forced);
    tw_plan_release(w.context, NULL);
    /* Nobody used them any more: the code was unloaded. */
    check_ok(tw_plan_make(w.context, &request, &forced));
    assert_int_equal(stats_of(w.context).loads, 2);
    tw_plan_release(w.context, forced);

    request.tmpl = tw_template_find("cpu.dq_gemm");
    check_fails(tw_plan_make(w.context, &request, &forced), TW_UNSUPPORTED, "cpu.dq_gemm: ");
    request.tmpl = tw_template_find("cpu.int_gemm");
    request.config = &(tw_config){.micro_m = 1000};
    check_fails(tw_plan_make(w.context, &request, &forced), TW_UNSUPPORTED, "cpu.int_gemm: ");
    close_world(&w);
}

/* A target that this CPU cannot run is decided and built, never loaded or tuned. */
static void foreign_target(void **state) {
    fixture *f = *state;
    tw_context *c = NULL;
    f->options.device = "cpu:avx512vnni";
    tw_context_setup setup = {.access = TW_CACHE_WRITE, .foreign = true};
    check_ok(tw_context_open(&f->options, &setup, &c));
    tw_problem p;
    check_ok(tw_problem_parse("M=16,N=96,K=136,w=u4,g=32,s=f16,z=code,a=i8", true, &p));
    tw_plan_request request = tw_plan_ask(c, &p);
    tw_decision d;
    check_ok(tw_plan_decide(c, &request, &d));
    assert_string_equal(d.tmpl->name, "cpu.int_gemm");
    tw_str object = {0}, text = {0};
    check_ok(tw_plan_object(c, TW_MODE_DEFAULT, d.tmpl, &p, &d.config, &object));
    assert_memory_equal(object.text, "\177ELF", 4);
    check_ok(tw_plan_explain(c, &request, &d, &text));
    assert_non_null(strstr(tw_str_text(&text), "isa=avx512vnni"));
    request.mode = TW_MODE_TUNE;
    check_fails(tw_plan_decide(c, &request, &d), TW_UNSUPPORTED, "may not run on this CPU");
    tw_str_free(&object);
    tw_str_free(&text);
    tw_context_destroy(c);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(guesses),
        TEST(cached_only_miss),
        TEST(cached_only_after_prepare),
        TEST(cached_only_without_kernel),
        TEST(tunes_by_environment),
        TEST(tunes_once),
        TEST(too_little_time_is_no_choice),
        TEST(what_fell_short_is_tuned_later),
        TEST(useless_choices),
        TEST(useless_binary),
        TEST(dumps),
        TEST(dumps_of_the_reference),
        TEST(dump_folder),
        TEST(dump_folder_is_a_file),
        TEST(plans_alone),
        TEST(foreign_target),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
