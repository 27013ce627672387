/* tools: the command line, `tilewright COMMAND ...`, linked statically, so it may see internals.
 * This file: what the commands share: options and their table, exit codes.
 *
 * A command is one row of main.c's table and one file, cmd_*.c.  Its options are rows too: the
 * parser and --help both read them, so that neither can know an option that the other does not. */
#ifndef TW_TOOLS_CLI_H
#define TW_TOOLS_CLI_H

#include "src/base/base.h"

/* Exit codes. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum { CLI_MAX_WORDS = 4, CLI_MAX_SIZES = 32 };

typedef struct cli_sizes {
    int64_t at[CLI_MAX_SIZES];
    int count; /* 0: not given */
} cli_sizes;

/* The values of every option that any command has; zero where one was not given. */
typedef struct cli_args {
    const char *words[CLI_MAX_WORDS]; /* what is no option, in order */
    int word_count;
    bool json, help;

    cli_sizes m;
    const char *scheme, *kernel, *config, *out, *tensor, *cache, *fixtures, *filter;
    double budget_s;
    int64_t threads, repeat, unused_days, max_mb;
    int weights; /* place in "cold|hot", from 1 */
    int form;    /* place in "tilewright|gguf|compressed-tensors", from 1 */
    bool source, ir, assembly, object, trace;
    bool again, exhaustive, full, force, warm, strict, dry_run;
    bool names, trials, binaries, devices;
} cli_args;

typedef enum cli_kind {
    CLI_FLAG,    /* bool, takes no value */
    CLI_TEXT,    /* const char * */
    CLI_NAME,    /* the same, of a file or a folder: not empty */
    CLI_COUNT,   /* int64_t, a positive integer */
    CLI_SECONDS, /* double: 30, 30s, 500ms, 2m */
    CLI_SIZES,   /* cli_sizes: 1,16,512 */
    CLI_CHOICE,  /* int: which of the words in `value`, from 1 */
} cli_kind;

typedef struct cli_option {
    const char *name; /* "--threads" */
    cli_kind kind;
    size_t offset;     /* in cli_args */
    const char *value; /* as help shows it: "N"; the words of a choice by bars: "cold|hot" */
    const char *help;
} cli_option;

/* A row's first fields, from the field of cli_args that it fills. */
#define CLI_ROW(name, kind, field, value, help)                                                    \
    {name, CLI_##kind, offsetof(cli_args, field), value, help}

/* Rows that several commands have. */
#define CLI_ROW_JSON CLI_ROW("--json", FLAG, json, "", "one JSON object per line")
#define CLI_ROW_HELP CLI_ROW("--help", FLAG, help, "", "this text")
#define CLI_ROW_M                                                                                  \
    CLI_ROW("--m", SIZES, m, "M,...", "rows of x where the problem names none (1,16,512)")
#define CLI_ROW_SCHEME                                                                             \
    CLI_ROW("--scheme", TEXT, scheme, "S",                                                         \
            "fields w, g, s, z, a, fpmath in place of the weights' own")
#define CLI_ROW_THREADS                                                                            \
    CLI_ROW("--threads", COUNT, threads, "N", "threads to use, at most one a CPU (all of them)")
#define CLI_ROW_PLAN_THREADS                                                                       \
    CLI_ROW("--threads", COUNT, threads, "N", "threads to plan for, up to 4096 (those of this CPU)")
#define CLI_ROW_KERNEL CLI_ROW("--kernel", TEXT, kernel, "K", "this kernel instead of the plan's")
#define CLI_ROW_CONFIG                                                                             \
    CLI_ROW("--config", TEXT, config, "C", "this config (\"mm4 mn64 ...\") instead of the plan's")

typedef struct cli_command {
    const char *name;
    const char *words; /* "DEV PROBLEM [OUT]": names of the arguments, optional ones in brackets */
    const char *summary;  /* one line of the command list */
    const char *about;    /* paragraphs of --help, may be "" */
    const char *examples; /* lines of --help */
    const cli_option *options;
    int option_count;
    int (*run)(const cli_args *args); /* gives the exit code */
} cli_command;

/* Fills `out` from what follows the command's name.  CLI_OK, or CLI_USAGE after an error that names
 * the argument.  With --help nothing else is required. */
int cli_parse(const cli_command *command, int count, char **text, cli_args *out);
void cli_help(const cli_command *command);

/* Prints this thread's error sentence; gives CLI_FAILED. */
int cli_failed(void);
/* The same for an argument that breaks its rule: `what` names it; gives CLI_USAGE. */
int cli_bad(const char *what);

#endif
