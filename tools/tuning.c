/* The run: shares of the budget, one problem after the other, and what each came to. */
#include "tools/tuning.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/workload.h"
#include "src/base/alloc.h"
#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/core/dtype.h"
#include "tools/out.h"
#include "tools/subject.h"

/* ---- Ctrl-C: the first one asks, the second one kills ---------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static void catch_interrupt(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void release_interrupt(void) {
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

/* ---- the budget ------------------------------------------------------------------------------ */

/* What a problem needs: its data made and packed, and samples.  Long ones are worth fewer of these,
 * or one large problem would take what all the small ones need. */
static double weight_of(const tw_context *context, const tw_problem *p) {
    const double base_s = 0.1, weight_s = 25e-9, samples = 4;
    const tw_template *tmpl;
    tw_config config;
    if (tw_guess(&context->target, p, NULL, &tmpl, &config, NULL) != TW_OK) return 0;
    double run_s = tmpl->cost(&context->target, p, &config) / 1e9 / context->target.threads;
    return base_s + weight_s * (double)p->N * (double)p->K + samples * run_s + sqrt(run_s);
}

static bool known_before(tuning *t, const tw_problem *problem) {
    tw_decision decision;
    tw_plan_request request = tw_plan_ask(t->context, problem);
    request.mode = TW_MODE_CACHED_ONLY;
    return tw_plan_decide(t->context, &request, &decision) == TW_OK &&
           decision.origin == TW_ORIGIN_CACHE;
}

static bool anew(const cli_args *args) { return args->again || args->exhaustive; }

/* What is known first, then the heaviest: what the large ones take beyond their share, the small
 * ones can still make up for. */
static int by_weight(const void *a, const void *b) {
    const tuning_row *x = *(tuning_row *const *)a, *y = *(tuning_row *const *)b;
    if (!x->weight != !y->weight) return x->weight ? 1 : -1;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x < y ? -1 : x > y; /* as given */
}

static void share_out(tuning *t) {
    for (int i = 0; i < t->in->count; i++) {
        tuning_row *row = &t->rows[i];
        row->item = &t->in->items[i];
        bool known = known_before(t, &row->item->problem);
        t->known += known;
        if (!known || anew(t->args)) row->weight = weight_of(t->context, &row->item->problem);
        t->weights += row->weight;
        t->order[i] = row;
    }
    t->all = t->weights;
    qsort(t->order, (size_t)t->in->count, sizeof *t->order, by_weight);
}

/* ---- progress -------------------------------------------------------------------------------- */

static int progress(void *user, int done, int total) {
    enum { EVERY_NS = 100000000 };
    static int64_t shown_ns;
    tuning *t = user;
    int64_t now = tw_now_ns();
    if (now - shown_ns >= EVERY_NS) {
        shown_ns = now;
        const tuning_row *row = t->order[t->at];
        double part = total > 0 ? (double)tw_min(done, total) / total : 0;
        double share = t->all > 0 ? (t->all - t->weights + row->weight * part) / t->all : 1;
        double spent = (double)(now - t->start_ns) / 1e9,
               most = (double)(t->deadline_ns - now) / 1e9;
        double left = share > 0.02 ? spent * (1 - share) / share : most;
        out_progress(share, left < most ? left : most > 0 ? most : 0, row->item->text);
    }
    return interrupted;
}

/* ---- what it is worth ------------------------------------------------------------------------ */

/* One thread on a few rows and columns, scaled up: the whole would take minutes. */
static double time_reference(const tw_problem *problem) {
    enum { ROWS = 8, COLUMNS = 64, RUNS = 3 };
    tw_problem p = *problem;
    tw_data data;
    p.M = tw_min(p.M, ROWS);
    p.N = tw_min(p.N, COLUMNS);
    int64_t x_bytes = tw_dtype_bits(p.x) / 8, y_bytes = tw_dtype_bits(p.y) / 8;
    if (tw_data_create(&p, &data) != TW_OK) return 0;
    char *x = calloc((size_t)(p.M * p.K), (size_t)x_bytes);
    char *y = calloc((size_t)(p.M * p.N), (size_t)y_bytes);
    float *row = calloc((size_t)p.K, sizeof *row);
    double best = 0;
    if (x && y && row) {
        for (int64_t m = 0; m < p.M; m++) {
            tw_data_plain(&p, m, row);
            for (int64_t k = 0; k < p.K; k++) tw_float_set(x, p.x, m * p.K + k, row[k]);
        }
        tw_canonical canonical = tw_data_canonical(&data);
        for (int i = 0; i < RUNS; i++) {
            int64_t start = tw_now_ns();
            tw_reference_linear(&p, &canonical, x, p.K, y, p.N, p.M);
            double ns = (double)(tw_now_ns() - start);
            if (!i || ns < best) best = ns;
        }
    }
    free(x);
    free(y);
    free(row);
    tw_data_free(&data);
    return best * (double)problem->M / (double)p.M * (double)problem->N / (double)p.N;
}

/* Copies that the tuner rotates over for such a problem, by asking it: a workload of one weight. */
static int64_t cold_bytes(const tw_context *context, const tw_problem *problem) {
    tw_workload *workload;
    tw_problem one = *problem;
    one.N = one.K = 1;
    if (tw_workload_create(&one, NULL, &context->target, TW_WEIGHTS_AUTO, &workload) != TW_OK)
        return 0;
    int64_t bytes = workload->cold_bytes;
    tw_workload_destroy(workload);
    return bytes;
}

static tw_status read_limit(tuning *t, const tw_problem *problem, double *gbps) {
    int64_t cold = cold_bytes(t->context, problem), bytes = tw_problem_weight_bytes(problem);
    if (!cold) return tw_limits_gbps(t->limits, NULL, (size_t)bytes, 1, gbps);
    /* From memory it is the same for every size: the best of the run counts. */
    double now;
    TW_TRY(tw_limits_gbps(t->limits, NULL, (size_t)tw_max(cold, bytes), 1, &now));
    t->cold_gbps = now > t->cold_gbps ? now : t->cold_gbps;
    *gbps = t->cold_gbps;
    return TW_OK;
}

typedef struct guess_search {
    const tw_template *tmpl;
    const char *config;
    double median_ns;
} guess_search;

static void find_guess(void *user, const tw_cache_trial *trial) {
    guess_search *s = user;
    if (!trial->failed && trial->kernel_version == s->tmpl->version &&
        !strcmp(trial->kernel, s->tmpl->name) && !strcmp(trial->config, s->config))
        s->median_ns = trial->median_ns;
}

/* The guess as an earlier run measured it; 0 when none did. */
static double guess_before(const tw_context *context, const tw_problem *problem) {
    guess_search search = {0};
    tw_config config;
    tw_str text = {0};
    tw_key key;
    if (tw_guess(&context->target, problem, NULL, &search.tmpl, &config, NULL) != TW_OK ||
        tw_choice_key(problem, tw_bucket_index(problem->M), &context->target, &key) != TW_OK)
        return 0;
    tw_config_text(&config, &text);
    search.config = tw_str_text(&text);
    tw_cache_trials(context->cache, &key, find_guess, &search);
    tw_key_free(&key);
    tw_str_free(&text);
    return search.median_ns;
}

static tw_status rate(tuning *t, tuning_row *row) {
    const tw_problem *p = &row->item->problem;
    double ns = row->decision.median_ns;
    int64_t start = tw_now_ns();
    row->guess_ns = row->result.guess_ns > 0 ? row->result.guess_ns : guess_before(t->context, p);
    row->reference_ns = time_reference(p);
    if (!t->limits) TW_TRY(tw_limits_create(&t->context->target, t->context->threads, &t->limits));
    TW_TRY(tw_limits_gops(t->limits, p, &row->limit_gops));
    TW_TRY(read_limit(t, p, &row->limit_gbps));
    t->rated++;
    t->rating_ns += tw_now_ns() - start;
    if (!(ns > 0)) return TW_OK;
    row->gops = 2.0 * (double)p->M * (double)p->N * (double)p->K / ns;
    row->share = tw_limits_floor_ns(p, row->limit_gops, row->limit_gbps) / ns;
    return TW_OK;
}

/* Seconds that are left for tuning: less what rating the rows that are left will take. */
static double left_s(const tuning *t) {
    const double first_guess_ns = 2e7;
    double each = t->rated ? (double)t->rating_ns / t->rated : first_guess_ns;
    return ((double)(t->deadline_ns - tw_now_ns()) - each * (t->in->count - t->at)) / 1e9;
}

/* ---- the run --------------------------------------------------------------------------------- */

static void print_row(const tuning *t, const tuning_row *row) {
    const tw_decision *d = &row->decision;
    tw_str config = {0};
    tw_config_text(&d->config, &config);
    if (t->args->json)
        out_json(json_pack(
            "{s:s,s:I,s:s,s:s,s:s,s:s,s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,"
            "s:i,s:i}",
            "problem", row->item->text, "count", row->item->count, "target",
            tw_target_isa(&t->context->target)->name, "kernel", d->tmpl->name, "config",
            tw_str_text(&config), "origin", tw_origin_text(d->origin), "decided", row->decided,
            "median_ns", d->median_ns, "spread_ns", d->spread_ns, "nmse", d->error, "guess_ns",
            row->guess_ns, "reference_ns", row->reference_ns, "gops", row->gops, "limit_gops",
            row->limit_gops, "limit_gbps", row->limit_gbps, "fraction_of_limit", row->share,
            "measured", row->result.measured, "known", row->result.known, "failed",
            row->result.failed, "legal", row->result.legal));
    else if (d->origin == TW_ORIGIN_CACHE)
        out_note("[%d/%d] %s: known, %s %s, %s", t->at + 1, t->in->count, row->item->text,
                 d->tmpl->name, tw_str_text(&config), out_ns(d->median_ns).text);
    else
        out_note("[%d/%d] %s: %s %s, %s (%d configs measured, %d known, %d failed, of %d)%s",
                 t->at + 1, t->in->count, row->item->text, d->tmpl->name, tw_str_text(&config),
                 out_ns(d->median_ns).text, row->result.measured, row->result.known,
                 row->result.failed, row->result.legal, row->decided ? "" : " - broken off");
    tw_str_free(&config);
}

/* TW_OK, or what makes going on pointless: a problem's own failure is counted and passed over. */
static tw_status tune_row(tuning *t, tuning_row *row) {
    tw_plan_request request = tw_plan_ask(t->context, &row->item->problem);
    double left = left_s(t);
    request.mode = t->args->exhaustive ? TW_MODE_MAX_AUTOTUNE : TW_MODE_TUNE;
    request.again = anew(t->args);
    request.progress = progress;
    request.user = t;
    request.result = &row->result;
    if (row->weight > 0 && left <= 0) t->overrun = true;
    if (t->overrun && t->end == TUNING_IN_TIME) return TW_OK;
    /* Too little for anything but the least there is to do. */
    const double least_s = 1e-3;
    if (row->weight > 0) request.budget_s = left > 0 ? left * row->weight / t->weights : least_s;
    tw_status status = tw_plan_decide(t->context, &request, &row->decision);
    t->weights -= row->weight;
    if (status == TW_UNSUPPORTED || status == TW_VERIFY) {
        out_error("%s: %s", row->item->text, tw_error_message());
        t->failed++;
        return TW_OK;
    }
    TW_TRY(status);
    row->decided = !row->result.stopped;
    t->decided += row->decided;
    if (row->decided) TW_TRY(rate(t, row));
    if (row->decision.tmpl) print_row(t, row);
    return TW_OK;
}

static void begin(const tuning *t) {
    if (t->args->json) return;
    if (t->known && !anew(t->args))
        out_note("%d of %d problems are known from earlier runs", t->known, t->in->count);
}

int tuning_run(tw_context *context, const input *in, const cli_args *args, double budget_s,
               tuning_end end, tuning *out) {
    tuning *t = out;
    *t = (tuning){.context = context, .args = args, .in = in, .end = end, .start_ns = tw_now_ns()};
    t->deadline_ns = t->start_ns + (int64_t)(budget_s * 1e9);
    t->rows = calloc((size_t)in->count, sizeof *t->rows);
    t->order = (tuning_row **)calloc((size_t)in->count, sizeof *t->order);
    if (!t->rows || !t->order) {
        tw_fail(TW_MEMORY, "problems: out of memory for %d", in->count);
        return cli_failed();
    }
    tw_status status = tw_limits_create(&context->target, context->threads, &t->limits);
    if (status != TW_OK) return cli_failed();
    share_out(t);
    begin(t);
    catch_interrupt();
    for (t->at = 0; t->at < in->count && status == TW_OK && !interrupted; t->at++)
        status = tune_row(t, t->order[t->at]);
    t->stopped = interrupted;
    release_interrupt();
    out_progress_clear();
    if (status != TW_OK) return cli_failed();
    return t->decided == in->count ? CLI_OK : CLI_FAILED;
}

static void add_times(tw_str *out, double slower, double ns) {
    if (slower > 0 && ns > 0)
        tw_str_add(out, slower / ns >= 100 ? "%.0fx" : "%.2fx", slower / ns);
    else
        tw_str_add(out, "-");
}

void tuning_table(const tuning *t) {
    out_table table;
    if (t->args->json) return;
    out_table_begin(&table, "llrrrrr",
                    "problem\tkernel and config\ttime\tGOPS\tof limit\tof guess\tof reference");
    for (int i = 0; i < t->in->count; i++) {
        const tuning_row *row = &t->rows[i];
        if (!row->decided) continue;
        tw_str text = {0}, config = {0}, guess = {0}, reference = {0};
        subject_text(&row->item->problem, &text);
        tw_config_text(&row->decision.config, &config);
        add_times(&guess, row->guess_ns, row->decision.median_ns);
        add_times(&reference, row->reference_ns, row->decision.median_ns);
        out_table_row(&table, "%s\t%s %s\t%s\t%.4g\t%.0f %%\t%s\t%s", tw_str_text(&text),
                      row->decision.tmpl->name, tw_str_text(&config),
                      out_ns(row->decision.median_ns).text, row->gops, row->share * 100,
                      tw_str_text(&guess), tw_str_text(&reference));
        tw_str_free(&text);
        tw_str_free(&config);
        tw_str_free(&guess);
        tw_str_free(&reference);
    }
    out_table_end(&table);
    out_line(
        "%d of %d problems decided in %.1f s, %d of them known before.  of limit: against the "
        "machine's own,\nmeasured in this run on %d thread%s; of guess, of reference: times "
        "faster than the untuned guess and than the\nreference (timed on 8 rows and 64 columns "
        "by one thread and scaled).",
        t->decided, t->in->count, (double)(tw_now_ns() - t->start_ns) / 1e9, t->known,
        t->context->target.threads, t->context->target.threads == 1 ? "" : "s");
}

void tuning_free(tuning *t) {
    tw_limits_destroy(t->limits);
    free(t->rows);
    free((void *)t->order);
    *t = (tuning){0};
}
