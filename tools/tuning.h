/* A tuning run over many problems: the budget shared out, progress, Ctrl-C, and what came of it. */
#ifndef TW_TOOLS_TUNING_H
#define TW_TOOLS_TUNING_H

#include "src/plan.h"
#include "tools/input.h"
#include "tools/rating.h"

typedef struct tuning_row {
    const input_item *item;
    double weight;  /* share of the budget; 0: nothing is to be tuned */
    double least_s; /* below which there is no decision; estimated, then as the tuner says */
    bool tried;     /* in vain */
    bool over;      /* decided, failed, or found in the cache */
    bool decided;   /* stored, now or before */
    tw_decision decision;
    tw_tune_result result;
    rating rating;
} tuning_row;

/* What happens where the budget was too small: problems are left for another run, or each still
 * gets the least that decides it. */
typedef enum tuning_end { TUNING_IN_TIME, TUNING_ALL } tuning_end;

typedef struct tuning {
    tuning_end end;
    tw_context *context;
    const cli_args *args;
    const input *in;
    tuning_row *rows;   /* one an item; owned */
    tuning_row **order; /* by weight: nothing first, then the heaviest; owned */
    tuning_row *row;    /* in work */
    rater rater;
    double budget_s;
    int64_t start_ns, deadline_ns;
    int known, decided, failed;
    int disturbed;    /* decided while other work ran on the machine */
    double done, all; /* weights, for progress */
    bool stopped;     /* Ctrl-C */
    bool overrun;     /* no time was left for a problem */
    bool progress;    /* something is known now that was not before */
} tuning;

/* Tunes every item within budget_s seconds.  `again`, exhaustive and json as in args.  A record
 * (JSON) or a note is printed as each problem is done.  Gives an exit code: CLI_OK when every
 * problem is decided. */
int tuning_run(tw_context *context, const input *in, const cli_args *args, double budget_s,
               tuning_end end, tuning *out);
/* The table at the end, and how to go on where something is left. */
void tuning_table(const tuning *t);
/* Of what the budget was too short for, the problem that takes the least, and what the budget has
 * to be; NULL when the same budget once more is enough for that. */
const tuning_row *tuning_too_short(const tuning *t, double *least_s);
void tuning_free(tuning *t);

#endif
