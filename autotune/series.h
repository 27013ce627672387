/* Time samples of one candidate, and what they say. */
#ifndef TW_AUTOTUNE_SERIES_H
#define TW_AUTOTUNE_SERIES_H

#include "autotune/workload.h"

enum { TW_MAX_SAMPLES = 256 };

typedef struct tw_series {
    const tw_candidate *candidate;
    tw_packed *packed;
    int calls; /* launches per sample; 0 before the first */
    int count;
    double ns[TW_MAX_SAMPLES]; /* per launch */
} tw_series;

/* Packs, reserves and fills whatever the candidate needs.  Errors: MEMORY. */
tw_status tw_series_start(tw_workload *w, const tw_candidate *candidate, tw_series *out);
/* Takes one sample.  The first one of a short kernel follows a launch that only warms up and tells
 * how many launches a sample must have. */
void tw_series_sample(tw_workload *w, tw_threads *threads, tw_series *series);
tw_timing tw_series_timing(const tw_series *series);
/* What candidates are ordered by, of at least one sample: the lower quartile, since whatever
 * disturbs a sample makes it longer.  On a quiet machine the order is that of the medians. */
double tw_series_level(const tw_series *series);
/* Half width of the median's 95 % confidence interval: 1.58 interquartile ranges over root n
 * (McGill, Tukey, Larsen: Variations of Box Plots, 1978).  Infinite below 5 samples. */
double tw_timing_interval(const tw_timing *timing);
/* Whether more samples would change nothing: the least median is known to 1 %, and every other one
 * lies either apart from it, or within 1 % as surely. */
bool tw_timing_settled(const tw_timing *timings, int count);

#endif
