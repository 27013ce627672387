/* Every row of templates.def over weights, granularities, zeros, activation quantization, dtypes,
 * epilogues and awkward shapes: as LLVM's code on each target that this CPU runs, and as operations
 * of the vocabulary on every target.  --all: the whole product of what decides a kernel's form,
 * instead of a sample with all pairs. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "templates/cpu/amx_gemm.h"
#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"
#include "tests/kernels/sample.h"

extern const tw_template tw_template_amx_gemm;

static bool all;

enum {
    ROWS = 17,
    MANY_ROWS = 70,
    MOST_REPORTS = 20,
    WORKERS = 2,
    MOST_TEMPLATES = 64,
    LEAST_KERNELS = 48
};
static const int64_t row_counts[] = {0, 1, 3, ROWS, MANY_ROWS};

typedef struct sweep {
    runner how;
    samples samples;
    tw_isa isas[TW_ISA_COUNT]; /* what the values of FIELD_TARGET mean */
    int isa_count;
    pthread_mutex_t lock; /* of the following, and of stderr */
    int kernels, failures, per_template[MOST_TEMPLATES];
} sweep;

/* A host's parallel-for that takes the tasks backwards: they depend on no order. */
static void backwards(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    (void)user;
    while (count-- > 0) task(arg, count);
}

static void failed(sweep *s, const compiled *c, int64_t M) {
    pthread_mutex_lock(&s->lock);
    if (s->failures++ < MOST_REPORTS) run_report(c, M);
    pthread_mutex_unlock(&s->lock);
}

static void check_kernel(sweep *s, const compiled *c, const layer *l) {
    tw_threads *threads = NULL;
    if (tw_threads_create(&(tw_parallel){backwards, NULL, 3}, 0, &threads) != TW_OK) return;
    tw_status status = TW_OK;
    for (size_t i = 0; i < TW_COUNT(row_counts) && status == TW_OK; i++) {
        /* Both sides of the guard pages in turn. */
        run_options o = {.M = row_counts[i], .at_end = i % 2, .threads = threads};
        if (o.M <= l->problem.M) status = run_layer(c, l, l, &o);
        if (status != TW_OK) failed(s, c, o.M);
    }
    tw_threads_destroy(threads);
}

/* One problem by one template that takes it. */
static void check_template(sweep *s, int index, int template, const layer *l,
                           const tw_target *target) {
    const tw_template *tmpl = tw_template_row(template);
    compiled c = {.tmpl = tmpl, .problem = l->problem, .target = *target};
    tw_config config;
    pthread_mutex_lock(&s->lock);
    s->kernels++;
    s->per_template[template]++;
    pthread_mutex_unlock(&s->lock);
    if (!sample_config(&s->samples.list[index], tmpl, target, &l->problem, (uint64_t)index,
                       &config)) {
        failed(s, &c, 0);
        return;
    }
    if (compiled_init(&c, tmpl, &l->problem, &config, target, s->how) != TW_OK) {
        failed(s, &c, 0);
        return;
    }
    if (s->how != RUN_NOTHING) check_kernel(s, &c, l);
    compiled_free(&c);
}

static void check_sample(void *arg, size_t i) {
    sweep *s = arg;
    const sample *at = &s->samples.list[i];
    tw_target target = target_of(s->isas[at->at[FIELD_TARGET]]);
    tw_problem p;
    layer l;
    if (!sample_problem(at, &p)) return;
    p.M = i % 8 == 0 && p.N * p.K < 10000 ? MANY_ROWS : ROWS;
    layer_init(&l, &p, LAYER_RANDOM, i);
    int takers = 0;
    for (int t = 0; tw_template_row(t); t++) {
        if (tw_template_row(t)->reject_problem(&target, &l.problem)) continue;
        takers++;
        check_template(s, (int)i, t, &l, &target);
    }
    if (!takers) {
        tw_str text = {0};
        tw_problem_text(&p, &text);
        pthread_mutex_lock(&s->lock);
        fprintf(stderr, "no template takes %s\n", tw_str_text(&text));
        s->failures++;
        pthread_mutex_unlock(&s->lock);
        tw_str_free(&text);
    }
    layer_free(&l);
}

/* Samples of a template; form: of amx_gemm, which of its forms. */
typedef struct taker {
    const tw_template *tmpl;
    const sweep *s;
    tw_amx_form form;
} taker;

static bool takes_sample(const sample *at, const void *arg) {
    const taker *t = arg;
    tw_target target = target_of(t->s->isas[at->at[FIELD_TARGET]]);
    tw_problem p;
    if (!sample_problem(at, &p) || t->tmpl->reject_problem(&target, &p)) return false;
    return t->form == TW_AMX_NONE || tw_amx_form_of(&p) == t->form;
}

/* takes(isa): whether the sweep includes the target. */
static void run_sweep(runner how, bool (*takes)(tw_isa isa), bool whole, const char *name) {
    static sweep s;
    memset(&s, 0, sizeof s);
    s.how = how;
    pthread_mutex_init(&s.lock, NULL);
    for (int isa = 0; isa < TW_ISA_COUNT; isa++)
        if (takes((tw_isa)isa)) s.isas[s.isa_count++] = (tw_isa)isa;
    if (!s.isa_count) skip();
    samples_init(&s.samples, s.isa_count, whole);
    assert_int_equal(samples_missing(&s.samples), 0);
    for (int i = 0; tw_template_row(i); i++) {
        const taker t = {tw_template_row(i), &s, TW_AMX_NONE};
        samples_top_up(&s.samples, LEAST_KERNELS, takes_sample, &t);
    }
    for (int form = TW_AMX_CHANNEL; form <= TW_AMX_SCALED; form++) {
        const taker t = {&tw_template_amx_gemm, &s, (tw_amx_form)form};
        samples_top_up(&s.samples, LEAST_KERNELS / 3, takes_sample, &t);
    }
    tw_threads *workers;
    assert_int_equal(tw_threads_create(NULL, WORKERS, &workers), TW_OK);
    tw_threads_run(workers, check_sample, &s, (size_t)s.samples.count);
    tw_threads_destroy(workers);
    samples_free(&s.samples);
    pthread_mutex_destroy(&s.lock);
    fprintf(stderr, "%s: %d kernels on %d targets, %d wrong\n", name, s.kernels, s.isa_count,
            s.failures);
    assert_int_equal(s.failures, 0);
    for (int i = 0; tw_template_row(i); i++)
        if (!s.per_template[i] && s.isa_count == TW_ISA_COUNT)
            fail_msg("%s was never tried", tw_template_row(i)->name);
}

static bool every_target(tw_isa isa) { return isa < TW_ISA_COUNT; }
static bool other_target(tw_isa isa) { return !tw_cpu_can_run(isa); }

static void test_native(void **state) {
    (void)state;
    run_sweep(RUN_NATIVE, tw_cpu_can_run, all, "native");
}

static void test_machine(void **state) {
    (void)state;
    run_sweep(RUN_MACHINE, every_target, all, "machine");
}

/* What this CPU cannot run it can still compile and load. */
static void test_other_targets(void **state) {
    (void)state;
    if (!all) skip();
    run_sweep(RUN_NOTHING, other_target, false, "compiled only");
}

int main(int count, char **arguments) {
    all = count > 1 && !strcmp(arguments[1], "--all");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_native),
        cmocka_unit_test(test_other_targets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
