/* Limits are measured anew for each: they drift. */
#include "tools/rating.h"

#include <stdlib.h>
#include <string.h>

#include "autotune/workload.h"
#include "src/base/clock.h"
#include "src/core/act.h"
#include "src/core/dtype.h"

tw_status rater_init(const tw_context *context, rater *out) {
    *out = (rater){.context = context};
    return tw_limits_create(&context->target, context->threads, &out->limits);
}

void rater_free(rater *r) {
    tw_limits_destroy(r->limits);
    *r = (rater){0};
}

double rater_expects_ns(const rater *r) {
    const double first_ns = 3e8;
    return r->count ? (double)r->spent_ns / r->count : first_ns;
}

/* One thread on a few rows and columns, scaled up: the whole would take minutes. */
static double time_reference(const tw_problem *problem) {
    enum { ROWS = 8, COLUMNS = 64, RUNS = 3 };
    tw_problem p = tw_template_truth(NULL, problem); /* as a layer runs the reference */
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

static tw_status read_limit(rater *r, const tw_problem *problem, double *gbps) {
    const tw_target *target = &r->context->target;
    int64_t most = tw_cold_bytes(problem, target, TW_WEIGHTS_COLD);
    int64_t bytes = tw_min(tw_problem_weight_bytes(problem), most);
    if (!tw_cold_bytes(problem, target, TW_WEIGHTS_AUTO))
        return tw_limits_gbps(r->limits, NULL, (size_t)bytes, 1, gbps);
    /* From memory it is the same for every size: the best of the run counts. */
    double now;
    TW_TRY(tw_limits_gbps(r->limits, NULL, (size_t)most, 1, &now));
    r->cold_gbps = now > r->cold_gbps ? now : r->cold_gbps;
    *gbps = r->cold_gbps;
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
static double guess_before(const tw_context *context, const tw_problem *asked) {
    tw_problem kernel = tw_kernel_problem(asked);
    const tw_problem *problem = &kernel;
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

tw_status rater_rate(rater *r, const tw_problem *p, double median_ns, bool measure, rating *out) {
    int64_t start = tw_now_ns();
    if (median_ns > 0) out->gops = 2.0 * (double)p->M * (double)p->N * (double)p->K / median_ns;
    if (!(out->guess_ns > 0)) out->guess_ns = guess_before(r->context, p);
    if (!measure) return TW_OK;
    out->reference_ns = time_reference(p);
    TW_TRY(tw_limits_gops(r->limits, p, &out->limit_gops));
    TW_TRY(read_limit(r, p, &out->limit_gbps));
    r->count++;
    r->spent_ns += tw_now_ns() - start;
    if (median_ns > 0)
        out->share = tw_limits_floor_ns(p, out->limit_gops, out->limit_gbps) / median_ns;
    return TW_OK;
}
