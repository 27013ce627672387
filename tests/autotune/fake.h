/* A world for the tuner without a compiler and without a real clock: templates whose kernels are C
 * functions that take a time which the test chose, and compute what the oracle computes or, where
 * the test wants it, something slightly else. */
#ifndef TW_TESTS_AUTOTUNE_FAKE_H
#define TW_TESTS_AUTOTUNE_FAKE_H

#include "autotune/env.h"
#include "autotune/series.h"
#include "tests/base/cmocka_all.h"

/* What is wrong with a kernel. */
typedef enum fake_defect {
    FAKE_CORRECT,
    FAKE_LAST_K,        /* leaves the last column of x out */
    FAKE_ONE_K,         /* leaves out one column in the middle */
    FAKE_SWAPPED_CODES, /* swaps weights 2k and 2k + 1 */
    FAKE_ONE_SCALE,     /* takes the first group's scale for the second group */
    FAKE_SCALE_ROW,     /* takes the scales of row 0 for row 1 */
    FAKE_ZERO,          /* takes the middle of the codes for zeros */
    FAKE_LAST_N,        /* does not write the last column */
    FAKE_LAST_M,        /* does not write the last row */
    FAKE_M_TAIL,        /* does not write the last row where M is odd */
    FAKE_ROW_SWAP,      /* swaps rows 0 and 1 */
    FAKE_PAST_N,        /* writes a column too many */
    FAKE_PAST_M,        /* writes a row too many */
    FAKE_READS_GAP,     /* adds 0 times what lies behind the row of x */
    FAKE_STALE,         /* adds 0 times what scratch memory held before */
    FAKE_X_STRIDE,      /* takes rows of x to be contiguous */
    FAKE_ROUNDING,      /* quantizes x with halves away from zero */
    FAKE_BIAS,          /* leaves the bias out */
    FAKE_DEFECTS
} fake_defect;

typedef struct fake {
    /* chosen by the test */
    double (*time_ns)(const tw_template *tmpl, const tw_config *config); /* of one launch */
    double (*cost)(const tw_template *tmpl, const tw_config *config);    /* NULL: all cost 1 */
    const char *declines_a, *declines_b; /* NULL: takes every problem */
    fake_defect (*defect)(const tw_template *tmpl, const tw_config *config); /* NULL: correct */
    const char *(*build_failure)(const tw_template *tmpl, const tw_config *config); /* NULL: none */
    tw_status build_status; /* of a build that fails; TW_OK: COMPILE */
    int sink_room; /* trials after which the sink fails with CACHE; 0: it takes any number */
    const tw_template *const *templates; /* NULL ends it */
    double busy;     /* share of launches that a busy machine makes several times as long */
    double noise;    /* relative, deterministic */
    double build_ns; /* of one build */
    double pack_ns;  /* of one part of the weights */
    uint64_t seed;
    int stop_after;             /* calls of the progress hook; 0: never */
    const tw_tune_trial *known; /* what the source has */
    int known_count;
    /* seen */
    int64_t now;
    int launches, builds;
    const void *weights[4096];  /* of each launch */
    int slots[4096];            /* whose launch it was: the same number is the same kernel */
    tw_tune_trial trials[8192]; /* what the sink got; failure points into failures */
    char failures[64][128];
    int trial_count, failure_count;
    int progress_calls, last_done, last_total;
    char log[4096];
} fake;

/* One at a time. */
extern fake the_fake;
void fake_reset(void);
extern const tw_tune_env fake_env;
extern const tw_tune_hooks fake_hooks;
extern const tw_logger fake_log;

/* A target of one thread. */
tw_target fake_target(void);
tw_problem fake_problem(const char *text);

/* Packs nothing: canonical tensors one after another. */
extern const tw_layout fake_layout, fake_other_layout;
/* "fake.a" over fake_layout: micro_m 1 2 3 4 6 8, micro_n 8 16 32 64, block_m 0 16 32 64; micro_m *
 * micro_n at most 256, and the guess mm4 mn16 bm48 lies off the axes.  "fake.b" over
 * fake_other_layout: micro_m 1 2, guess mm1. */
extern const tw_template fake_a, fake_b;

/* A kernel without going through the tuner. */
tw_candidate fake_candidate(const tw_template *tmpl, const tw_problem *problem, const char *text);
tw_config fake_config(const char *text);
/* Trials that the sink got for a config; the last one's time. */
int fake_trials_of(const tw_template *tmpl, const char *text, double *median_ns);

#endif
