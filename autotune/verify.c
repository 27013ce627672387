/* Whether a candidate computes what the oracle says.
 *
 * x is filled with copies of a few probe rows, so that the oracle, which is slow, answers once per
 * probe and workload, while every row of y can be compared.  y is poisoned with NaN, and so are the
 * gaps between the rows of x and y and the scratch memory: what is not written, and what is read
 * from where nothing is, shows. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "autotune/workload.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/compare.h"
#include "src/core/dtype.h"

/* Elements of y compared per launch, unless everything is: some 20 ms. */
enum { COMPARED = 4 << 20, IDENTITY_COMPARED = 1 << 20, IDENTITY_ROWS = 32, POISON = 0xff };

typedef struct check {
    tw_workload *w;
    tw_threads *threads;
    const tw_candidate *candidate;
    tw_packed *packed;
    int64_t probes; /* different rows of x */
    int64_t first;  /* probe of row 0 in this pass */
    int64_t rows;   /* of this launch */
    bool all;
    tw_problem truth; /* what the candidate is held to */
    double *nmse;     /* per row */
    atomic_llong bad; /* the first row that failed so far; rows when none did */
} check;

static int64_t x_stride(const check *c) { return c->w->problem.K + TW_ROW_GAP; }
static int64_t y_stride(const check *c) { return c->w->problem.N + TW_ROW_GAP; }
static char *y_row(const check *c, int64_t m) {
    return c->w->y + m * y_stride(c) * tw_y_size(c->w);
}

/* ---- x ---- */

/* The probe that row m holds: neighbours differ, and in no regular way. */
static int64_t probe_of(const check *c, int64_t m) {
    int64_t M = c->w->problem.M;
    if (M <= c->probes) return c->first + m;
    if (m == 0 || m == M - 1) return m ? tw_min(1, c->probes - 1) : 0;
    return (int64_t)(tw_data_mix((uint64_t)m) % (uint64_t)c->probes);
}

static void put_row(const check *c, int64_t m, const float *x) {
    const tw_workload *w = c->w;
    char *to = w->x + m * x_stride(c) * tw_x_size(w);
    for (int64_t k = 0; k < w->problem.K; k++) tw_float_set(to, w->problem.x, k, x[k]);
}

/* Rows repeat, so that encoding them once each is enough. */
static tw_status fill_probes(check *c) {
    tw_workload *w = c->w;
    int64_t first_row[TW_PROBES];
    float *row = malloc((size_t)w->problem.K * sizeof *row);
    if (!row) return tw_fail(TW_MEMORY, "verify: a row of x, out of memory");
    memset(first_row, -1, sizeof first_row);
    memset(w->x, POISON, w->x_bytes);
    w->timing = false;
    size_t bytes = (size_t)(w->problem.K * tw_x_size(w));
    for (int64_t m = 0; m < w->problem.M; m++) {
        int64_t probe = probe_of(c, m);
        if (probe < TW_PROBES && first_row[probe] >= 0) {
            memcpy(w->x + m * x_stride(c) * tw_x_size(w),
                   w->x + first_row[probe] * x_stride(c) * tw_x_size(w), bytes);
            continue;
        }
        tw_data_probe(&w->problem, probe, row);
        put_row(c, m, row);
        if (probe < TW_PROBES) first_row[probe] = m;
    }
    free(row);
    return TW_OK;
}

/* ---- y ---- */

static void launch(check *c) {
    tw_workload *w = c->w;
    memset(w->y, POISON, (size_t)((c->rows + 1) * y_stride(c) * tw_y_size(w)));
    if (w->scratch) memset(w->scratch, POISON, w->scratch_bytes);
    if (w->rounded) memset(w->rounded, POISON, w->rounded_bytes);
    tw_workload_launch(w, c->threads, c->candidate, c->packed, c->rows, x_stride(c), y_stride(c));
}

static bool poisoned(const char *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++)
        if ((uint8_t)from[i] != POISON) return false;
    return true;
}

/* Nothing beside or below y was written. */
static tw_status check_gaps(const check *c) {
    const tw_workload *w = c->w;
    int64_t N = w->problem.N, size = tw_y_size(w);
    for (int64_t m = 0; m < c->rows; m++)
        if (!poisoned(y_row(c, m) + N * size, TW_ROW_GAP * size))
            return tw_fail(TW_VERIFY, "y[%lld]: written past column %lld", (long long)m,
                           (long long)N);
    if (!poisoned(y_row(c, c->rows), y_stride(c) * size))
        return tw_fail(TW_VERIFY, "y: written past row %lld", (long long)c->rows);
    return TW_OK;
}

/* With very many elements: the first row, the last, and others all over. */
static bool compared(const check *c, int64_t m) {
    int64_t N = c->w->problem.N, rows = tw_max(COMPARED / N, TW_PROBES);
    if (c->all || c->rows <= rows || m == 0 || m == c->rows - 1) return true;
    return (int64_t)(tw_data_mix(~(uint64_t)m) % (uint64_t)c->rows) < rows;
}

static const tw_oracle *oracle_of(const check *c, int64_t m) {
    return &c->w->oracle[c->truth.scheme.fpmath][probe_of(c, m)];
}

static tw_status compare(const check *c, int64_t m, const tw_oracle *oracle) {
    const tw_problem *p = &c->truth;
    return tw_compare_row(p, tw_candidate_chain(c->candidate, p), oracle->expected,
                          oracle->magnitude, y_row(c, m), p->N, &c->nmse[m]);
}

static void compare_task(void *arg, size_t i) {
    check *c = arg;
    int64_t m = (int64_t)i;
    c->nmse[m] = 0;
    if (!compared(c, m) || compare(c, m, oracle_of(c, m)) == TW_OK) return;
    long long bad = atomic_load(&c->bad);
    while (m < bad && !atomic_compare_exchange_weak(&c->bad, &bad, m)) {
    }
}

/* Every row against an answer that is worked out for it alone. */
static tw_status compare_unkept(check *c) {
    tw_oracle oracle, *one = &oracle;
    tw_parts parts = tw_parts_all(c->w->env, c->threads);
    TW_TRY(tw_oracle_create(&c->w->problem, &oracle));
    tw_status status = TW_OK;
    for (int64_t m = 0; m < c->rows && status == TW_OK; m++) {
        tw_data_probe(&c->w->problem, probe_of(c, m), oracle.x);
        tw_oracle_solve(c->w, &parts, &c->truth, &one, 1);
        status = compare(c, m, &oracle);
        if (status != TW_OK) c->bad = m;
    }
    tw_oracle_free(&oracle);
    return status;
}

static tw_status compare_all(check *c) {
    c->bad = c->rows;
    tw_status status = TW_OK;
    if (c->probes > TW_PROBES) {
        status = compare_unkept(c);
    } else {
        tw_threads_run(c->threads, compare_task, c, (size_t)c->rows);
        /* Once more on this thread, whose sentence the caller reads. */
        int64_t bad = c->bad;
        if (bad < c->rows) status = compare(c, bad, oracle_of(c, bad));
    }
    if (status != TW_OK)
        return tw_fail_within(status, "row %lld of %lld", (long long)c->bad, (long long)c->rows);
    return check_gaps(c);
}

static tw_status check_rows(check *c, int64_t rows, double *error) {
    c->rows = rows;
    launch(c);
    TW_TRY(compare_all(c));
    for (int64_t m = 0; m < rows; m++)
        if (c->nmse[m] > *error) *error = c->nmse[m];
    return TW_OK;
}

/* Fewer rows than the kernel was made for: prime, so that no tile of rows divides it. */
static int64_t odd_rows(int64_t M) {
    static const int64_t primes[] = {37, 13, 7, 3, 1};
    for (size_t i = 0; i < TW_COUNT(primes); i++)
        if (primes[i] < M) return primes[i];
    return 0;
}

static tw_status check_probes(check *c, double *error) {
    int64_t M = c->w->problem.M, probes = c->probes;
    tw_parts parts = tw_parts_all(c->w->env, c->threads);
    bool made;
    if (probes <= TW_PROBES) TW_TRY(tw_workload_ask(c->w, &parts, &c->truth, (int)probes, &made));
    for (c->first = 0; c->first == 0 || (M <= probes && c->first + M <= probes); c->first += M) {
        TW_TRY(fill_probes(c));
        TW_TRY(check_rows(c, M, error));
        if (c->first == 0 && odd_rows(M)) TW_TRY(check_rows(c, odd_rows(M), error));
        if (M > probes) break;
    }
    return TW_OK;
}

/* ---- identity ---- */

/* Rows of the identity matrix, times a power of two, give exactly the dequantized weights where
 * nothing else is added: 0 or one product is rounded, once. */
static bool is_exact(const tw_problem *p) {
    const tw_scheme *s = &p->scheme;
    bool bf16 = s->fpmath == TW_FPMATH_BF16; /* of weights that are there before the product */
    if (p->bias || p->act || tw_act_rounds(s)) return false;
    return bf16 || (!s->act_quant && s->zero_mode != TW_ZERO_VALUE);
}

/* The column of the i-th row: ends of the matrix and of its groups first. */
static int64_t identity_column(const tw_problem *p, int64_t i) {
    int64_t K = p->K, group = tw_group_k(&p->scheme, K), last = (K - 1) / group * group;
    const int64_t edges[] = {0, K - 1, group - 1, tw_min(group, K - 1), last, tw_max(last - 1, 0)};
    if (i < (int64_t)TW_COUNT(edges)) return edges[i];
    return (int64_t)(tw_data_mix((uint64_t)i + 1000) % (uint64_t)K);
}

static float identity_value(int64_t i) {
    static const float values[] = {1, -1, 2, 0.5f};
    return values[i % (int64_t)TW_COUNT(values)];
}

static tw_status identity_row(const check *c, int64_t m, int64_t i) {
    const tw_problem *p = &c->truth;
    tw_canonical canonical = tw_data_canonical(&c->w->data);
    int64_t k = identity_column(p, i);
    for (int64_t n = 0; n < p->N; n++) {
        float factor = tw_factor(p->scheme.fpmath, tw_dequantize_one(p, &canonical, n, k));
        float expected, weight = factor * identity_value(i);
        tw_float_set(&expected, p->y, 0, weight);
        float want = tw_float_get(&expected, p->y, 0), is = tw_float_get(y_row(c, m), p->y, n);
        if (is == want) continue;
        return tw_fail(TW_VERIFY,
                       "identity: y[%lld,%lld] is %.9g, expected %.9g exactly: %g * w[%lld,%lld]",
                       (long long)m, (long long)n, (double)is, (double)want,
                       (double)identity_value(i), (long long)n, (long long)k);
    }
    return TW_OK;
}

static int64_t identity_rows(const tw_problem *p) {
    if (!is_exact(p)) return 0;
    int64_t most = tw_min(tw_max(IDENTITY_COMPARED / p->N, TW_PROBES), IDENTITY_ROWS);
    return tw_min(tw_max(p->M, TW_PROBES), most);
}

double tw_verify_launches(const tw_problem *p, int64_t rows) {
    return (double)(tw_ceil_div(identity_rows(p), p->M) + tw_ceil_div(rows, p->M)) +
           (double)odd_rows(p->M) / (double)p->M;
}

static tw_status check_identity(check *c) {
    tw_workload *w = c->w;
    const tw_problem *p = &c->truth;
    int64_t total = identity_rows(p);
    memset(w->x, POISON, w->x_bytes);
    w->timing = false;
    for (int64_t first = 0; first < total; first += c->rows) {
        c->rows = tw_min(p->M, total - first);
        for (int64_t m = 0; m < c->rows; m++) {
            char *row = w->x + m * x_stride(c) * tw_x_size(w);
            memset(row, 0, (size_t)(p->K * tw_x_size(w)));
            tw_float_set(row, p->x, identity_column(p, first + m), identity_value(first + m));
        }
        launch(c);
        for (int64_t m = 0; m < c->rows; m++) TW_TRY(identity_row(c, m, first + m));
        TW_TRY(check_gaps(c));
    }
    return TW_OK;
}

tw_status tw_verify(tw_workload *w, tw_threads *threads, const tw_candidate *candidate, int rows,
                    double *error) {
    int64_t M = w->problem.M;
    bool all = rows <= 0;
    check c = {
        .w = w,
        .threads = threads,
        .candidate = candidate,
        .probes = all ? tw_max(M, TW_PROBES) : tw_min(rows, TW_PROBES),
        .all = all,
        .truth = tw_candidate_truth(candidate, &w->problem),
    };
    TW_TRY(tw_workload_pack(w, tw_candidate_layout(candidate), &c.packed));
    TW_TRY(tw_workload_reserve(w, candidate));
    c.nmse = malloc((size_t)M * sizeof *c.nmse);
    if (!c.nmse) return tw_fail(TW_MEMORY, "verify: %lld rows, out of memory", (long long)M);
    double largest = 0;
    tw_status status = check_identity(&c);
    if (status == TW_OK) status = check_probes(&c, &largest);
    free(c.nmse);
    *error = largest;
    return status;
}
