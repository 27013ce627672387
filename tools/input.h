/* What a command works on: DEV, and the problems of PROBLEM, MODEL or @FILE. */
#ifndef TW_TOOLS_INPUT_H
#define TW_TOOLS_INPUT_H

#include "src/core/problem.h"
#include "src/core/target.h"
#include "src/format/model.h"
#include "tools/cli.h"

typedef struct input_item {
    tw_problem problem; /* with its M */
    char *text;         /* of the problem; owned */
    const char *name;   /* the first tensor or line that asks for it, "" for a PROBLEM */
    int64_t count;      /* linears like it */
} input_item;

typedef struct input {
    input_item *items; /* no problem twice */
    int count;
    tw_model *model; /* NULL for a PROBLEM */
    tw_model_linears linears;
} input;

/* PROBLEM (what holds a '=' and is no file), MODEL, or @FILE; with --scheme and --m applied.  Linears whose
 * element type cannot be read are left out with a note.  Gives an exit code, after an error where it is not
 * CLI_OK. */
int input_open(const char *word, const cli_args *args, input *out);
void input_close(input *in);

/* One PROBLEM alone.  need_m: an M must be given. */
int input_problem(const char *word, bool need_m, tw_problem *out);

/* DEV with --threads (else $TW_THREADS).  any: also a target that this CPU cannot run, for what only
 * generates. */
int input_target(const char *word, const cli_args *args, bool any, tw_target *out);

#endif
