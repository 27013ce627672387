/* A tuning run over many problems: the budget shared out, progress, Ctrl-C, and what came of it. */
#ifndef TW_TOOLS_TUNING_H
#define TW_TOOLS_TUNING_H

#include "autotune/limits.h"
#include "src/plan.h"
#include "tools/input.h"

typedef struct tuning_row {
    const input_item *item;
    double weight; /* share of the budget; 0: the cache had decided it before */
    tw_decision decision;
    tw_tune_result result;
    bool decided;                  /* stored, now or before */
    double guess_ns, reference_ns; /* 0 where not known */
    double gops, limit_gops, limit_gbps, share;
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
    tuning_row **order; /* in which they are tuned; owned */
    tw_limits *limits;
    double cold_gbps; /* the best so far */
    int64_t start_ns, deadline_ns;
    int known, decided, failed;
    int rated; /* rows, and what that took: limits, reference */
    int64_t rating_ns;
    int at;         /* the row in work */
    bool stopped;   /* Ctrl-C */
    bool overrun;   /* no time was left for a problem */
    double weights; /* of the rows that are left */
    double all;     /* of all rows */
} tuning;

/* Tunes every item within budget_s seconds.  `again`, exhaustive and json as in args.  A record
 * (JSON) or a note is printed as each problem is done.  Gives an exit code: CLI_OK when every
 * problem is decided. */
int tuning_run(tw_context *context, const input *in, const cli_args *args, double budget_s,
               tuning_end end, tuning *out);
/* The table at the end, and how to go on where something is left. */
void tuning_table(const tuning *t);
void tuning_free(tuning *t);

#endif
