/* One run of the tuner, from the space to the result: what tune.c's phases and wave.c share. */
#ifndef TW_AUTOTUNE_SEARCH_H
#define TW_AUTOTUNE_SEARCH_H

#include "autotune/build.h"
#include "autotune/effort.h"
#include "autotune/series.h"

typedef enum tw_entry_state {
    TW_ENTRY_NEW,      /* nothing known */
    TW_ENTRY_TIMED,    /* here or in an earlier run */
    TW_ENTRY_VERIFIED, /* timed, and agrees with the oracle */
    TW_ENTRY_FAILED,
} tw_entry_state;

/* What is known of one point of the space; same index. */
typedef struct tw_entry {
    tw_candidate candidate; /* loaded while candidate.tmpl is set */
    tw_entry_state state;
    bool here;       /* timed in this run */
    double level_ns; /* what is compared: see tw_series_level */
    double median_ns, spread_ns, error;
} tw_entry;

enum { TW_MAX_WAVE = 64, TW_LEADERS = 3 };

typedef struct tw_search {
    const tw_tune_env *env;
    const tw_tune_request *request;
    const tw_tune_hooks *hooks;
    tw_space space;    /* ranked */
    tw_entry *entries; /* space.count */
    bool *taken;       /* known, measured, failed or about to be */
    tw_workload *workload;
    int guess; /* index */
    /* Best of the latest wave, best first, measured side by side; after the final the guess, too.
     */
    int leaders[TW_LEADERS + 1];
    int leader_count;
    int beside;               /* the most configs that were timed side by side */
    bool truths[TW_FPMATHS];  /* which kinds of products have their answers */
    int rows;                 /* different rows of x in a verification */
    int64_t start_ns, end_ns; /* the budget */
    bool ready;               /* data and answers are there */
    int64_t ready_ns;         /* since then */
    int64_t measure_until_ns; /* later there is only time to verify */
    tw_parts parts;           /* the set-up's */
    tw_effort effort;         /* launch and build are the guess's, once they were timed */
    bool launch_timed;
    double ahead_ns;   /* what follows the part of the set-up in work */
    int planned, done; /* configs, for progress */
    tw_tune_result result;
} tw_search;

/* setup.c */

/* The space, what is known of it, data, the oracle's answers and the guess's time.  *ready is false
 * when time is out, or the run was stopped.  Errors: as tw_tune. */
tw_status tw_search_set_up(tw_search *s, bool *ready);

/* wave.c */

/* Builds and times `count` entries against each other by successive halving until at most `keep`
 * are left, which become the leaders.  Every timing goes to the sink as it is final; what fails,
 * too.  Ends early, with what is known, when the progress hook asks for it or at the deadline.
 * Errors: MEMORY, as tw_search_load, what the sink fails with. */
tw_status tw_search_wave(tw_search *s, const int *ids, int count, int keep, int64_t deadline_ns);
/* Times entries until the answer is settled: the leaders and their times are then final. */
tw_status tw_search_final(tw_search *s, const int *ids, int count, int64_t deadline_ns);
/* Builds and loads the entries that are not; candidate.tmpl stays NULL where the config failed.
 * Errors: what a build fails with through no fault of its config; what the sink fails with. */
tw_status tw_search_load(tw_search *s, const int *ids, int count, int64_t deadline_ns);
/* Marks, counts, tells the sink and the log.  Errors: what the sink fails with. */
tw_status tw_search_fail(tw_search *s, int id, const char *stage, const char *why);
/* Asks the progress hook; true when the run shall end. */
bool tw_search_stop(tw_search *s);
bool tw_search_asked(void *search); /* the same, for those who carry a void * */

#endif
