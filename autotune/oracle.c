/* The oracle's answers for one problem: slow, so asked once for each probe row, for several at a
 * time. */
#include <stdlib.h>

#include "autotune/workload.h"
#include "src/base/status.h"

tw_status tw_oracle_create(const tw_problem *problem, tw_oracle *out) {
    tw_oracle o = {
        malloc((size_t)problem->K * sizeof *o.x),
        malloc((size_t)problem->N * sizeof *o.expected),
        malloc((size_t)problem->N * sizeof *o.magnitude),
        false,
    };
    if (!o.x || !o.expected || !o.magnitude) {
        tw_oracle_free(&o);
        return tw_fail(TW_MEMORY, "oracle: a row of K=%lld, N=%lld, out of memory",
                       (long long)problem->K, (long long)problem->N);
    }
    *out = o;
    return TW_OK;
}

void tw_oracle_free(tw_oracle *oracle) {
    free(oracle->x);
    free(oracle->expected);
    free(oracle->magnitude);
    *oracle = (tw_oracle){0};
}

/* Columns of one task. */
enum { COLUMNS = 128 };

typedef struct oracle_job {
    const tw_problem *problem;
    tw_canonical canonical;
    tw_oracle *const *oracles;
    int count;
} oracle_job;

static void oracle_task(void *arg, size_t i) {
    const oracle_job *job = arg;
    int64_t n0 = (int64_t)i * COLUMNS, n1 = tw_min(n0 + COLUMNS, job->problem->N);
    const float *x[TW_PROBES];
    double *expected[TW_PROBES], *magnitude[TW_PROBES];
    for (int j = 0; j < job->count; j++) {
        x[j] = job->oracles[j]->x;
        expected[j] = job->oracles[j]->expected + n0;
        magnitude[j] = job->oracles[j]->magnitude + n0;
    }
    tw_reference_rows(job->problem, &job->canonical, job->count, x, n0, n1, expected, magnitude);
}

bool tw_oracle_solve(const tw_workload *w, tw_parts *parts, const tw_problem *truth,
                     tw_oracle *const *oracles, int count) {
    oracle_job job = {truth, tw_data_canonical(&w->data), oracles, count};
    if (!tw_parts_run(parts, oracle_task, &job, (size_t)tw_ceil_div(w->problem.N, COLUMNS)))
        return false;
    for (int i = 0; i < count; i++) oracles[i]->known = true;
    return true;
}

tw_status tw_workload_ask(tw_workload *w, tw_parts *parts, const tw_problem *truth, int count,
                          bool *made) {
    tw_oracle *unknown[TW_PROBES];
    int unknowns = 0;
    for (int i = 0; i < count; i++) {
        tw_oracle *o = &w->oracle[truth->scheme.fpmath][i];
        if (!o->x) TW_TRY(tw_oracle_create(&w->problem, o));
        if (o->known) continue;
        tw_data_probe(&w->problem, i, o->x);
        unknown[unknowns++] = o;
    }
    *made = !unknowns || tw_oracle_solve(w, parts, truth, unknown, unknowns);
    return TW_OK;
}
