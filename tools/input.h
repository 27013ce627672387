/* What a command works on: DEV, and the problems of PROBLEM, MODEL or @FILE. */
#ifndef TW_TOOLS_INPUT_H
#define TW_TOOLS_INPUT_H

#include "src/core/problem.h"
#include "src/core/target.h"
#include "src/format/model.h"
#include "src/plan.h"
#include "tools/cli.h"

/* The M that a problem gets: as asked for, or rounded up to its bucket, which is what is tuned. */
typedef enum input_rows { INPUT_ROWS, INPUT_BUCKETS } input_rows;

typedef struct input_item {
    tw_problem problem; /* with its M */
    char *text;         /* of the problem; owned */
    const char *name;   /* the first tensor or line that asks for it, "" for a PROBLEM */
    int64_t count;      /* linears like it */
    int32_t tensor;     /* that holds the first one's weights as they are, or -1 */
} input_item;

typedef struct input {
    input_rows rows;
    input_item *items; /* no problem twice */
    int count;
    tw_model *model; /* NULL for a PROBLEM */
    tw_model_linears linears;
} input;

/* PROBLEM (what holds a '=' and is no file), MODEL, or @FILE; with --scheme and --m applied.
 * Linears whose element type cannot be read are left out with a note.  Gives an exit code, after an
 * error where it is not CLI_OK. */
int input_open(const char *word, const cli_args *args, input_rows rows, input *out);
/* Problems by their texts, each with its M: what is built in. */
int input_texts(const char *const *texts, int count, input_rows rows, input *out);
void input_close(input *in);

/* One PROBLEM alone.  need_m: an M must be given. */
int input_problem(const char *word, bool need_m, tw_problem *out);

/* DEV with --threads (else $TW_THREADS), which may not be more than this process has CPUs. */
int input_target(const char *word, const cli_args *args, tw_target *out);

/* A context for DEV with --threads.  Its logger, cache and counters are the library's own. */
int input_context(const char *word, const cli_args *args, tw_mode mode,
                  const tw_context_setup *setup, tw_context **out);

/* --kernel and --config into the request; config must outlive it.  A config needs its kernel. */
int input_forced(const cli_args *args, tw_plan_request *request, tw_config *config);

#endif
