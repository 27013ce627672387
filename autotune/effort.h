/* How long tuning takes: what can be known of it before anything was timed, by sizes alone, for a
 * machine of today.  Off by a factor on others; what is timed takes its place. */
#ifndef TW_AUTOTUNE_EFFORT_H
#define TW_AUTOTUNE_EFFORT_H

#include "autotune/space.h"

enum {
    TW_LEAST_WAVE = 4, /* configs that are timed side by side before one of them is a choice */
    TW_LEAST_ROWS = 2, /* probes: a random one and one of edge values */
};

/* What a first look at one config may take, as long as it is so many samples. */
#define TW_LOOK_NS 2e6
enum { TW_LEAST_LOOKS = 3, TW_MOST_LOOKS = 9 };

/* A launch so long is a sum of many moments: one sample says as much as several of a short one. */
#define TW_LONG_NS 5e6

typedef struct tw_effort {
    double data_ns, pack_ns, oracle_ns; /* set-up, in this order */
    double build_ns, launch_ns;         /* of one config */
    double check_ns;                    /* of a verification, beside its launches */
    double launches;                    /* of a verification */
    int threads;
} tw_effort;

/* For a config of about the point's cost, and so many exact results (tw_truths_needed). */
tw_effort tw_effort_of(const tw_target *target, const tw_problem *problem, const tw_point *point,
                       int truths);
double tw_effort_verify(const tw_effort *e);
/* What it takes at least to choose among TW_LEAST_WAVE configs once the set-up is done; `timed` of
 * them were timed already. */
double tw_effort_search(const tw_effort *e, int timed);
/* All of it. */
double tw_effort_all(const tw_effort *e);

#endif
