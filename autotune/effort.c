/* Nanoseconds of one thread for a weight, a byte, an element. */
#include "autotune/effort.h"

#include <math.h>

#include "autotune/guess.h"
#include "autotune/tune.h"
#include "autotune/workload.h"

static const double DATA_NS = 0.5, PACK_NS = 2.2, ORACLE_NS = 3.5; /* a weight; of both probes */
static const double TOUCH_NS = 0.1;                                /* a byte of fresh memory */
static const double COMPARE_NS = 15;                               /* an element of y */
static const double BUILD_NS = 5e6;
/* Of what the templates' models say, which are for an older machine. */
static const double LAUNCH = 0.5;
/* What is timed beside the guess is slower, as a rule. */
static const double OTHERS = 1.25;
/* What the samples of a short launch take at least. */
static const double LEAST_LOOK_NS = 3e5;

tw_effort tw_effort_of(const tw_target *target, const tw_problem *p, const tw_point *point,
                       int truths) {
    double weights = (double)p->N * (double)p->K, elements = (double)p->M * (double)p->N;
    double rows_bytes = 4 * ((double)p->M * (double)p->K + elements);
    double weight_bytes = (double)tw_problem_weight_bytes(p);
    double copies = fmax((double)tw_cold_bytes(p, target, TW_WEIGHTS_AUTO) / 4, weight_bytes);
    int threads = target->threads;
    return (tw_effort){
        .data_ns = (DATA_NS * weights + TOUCH_NS * (weight_bytes + rows_bytes)) / threads,
        .pack_ns = (PACK_NS * weights + TOUCH_NS * copies) / threads,
        .oracle_ns = ORACLE_NS * weights * truths / threads,
        .build_ns = BUILD_NS,
        .launch_ns = LAUNCH * point->cost / threads,
        .check_ns = COMPARE_NS * fmin(elements, 4 << 20) / threads + 2 * TOUCH_NS * rows_bytes,
        .launches = tw_verify_launches(p, TW_LEAST_ROWS),
        .threads = threads,
    };
}

double tw_effort_verify(const tw_effort *e) { return e->launches * e->launch_ns + e->check_ns; }

double tw_effort_search(const tw_effort *e, int timed) {
    double look = fmin(TW_LOOK_NS, fmax(LEAST_LOOK_NS, TW_MOST_LOOKS * e->launch_ns));
    double sample = OTHERS * (e->launch_ns >= TW_LONG_NS ? e->launch_ns : fmax(look, e->launch_ns));
    int left = timed < TW_LEAST_WAVE ? TW_LEAST_WAVE - timed : 0;
    return left * (e->build_ns / e->threads + sample) + tw_effort_verify(e);
}

double tw_effort_all(const tw_effort *e) {
    return e->data_ns + e->pack_ns + e->oracle_ns + tw_effort_search(e, 0);
}

double tw_tune_least_s(const tw_target *target, const tw_problem *problem) {
    tw_point guess;
    if (tw_guess_in(&tw_tune_env_real, target, problem, NULL, &guess, NULL) != TW_OK) return 0;
    bool needed[TW_FPMATHS];
    int truths = tw_truths_needed(&tw_tune_env_real, target, problem, NULL, needed);
    tw_effort e = tw_effort_of(target, problem, &guess, truths);
    return tw_effort_all(&e) / 1e9;
}
