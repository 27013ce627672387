/* Everything that the CLI prints goes through here: results to stdout, notes and errors to stderr.
 * Control characters of a terminal, which a file or an argument may bring in, are shown as \x1b;
 * bytes and JSON are left as they are. */
#ifndef TW_TOOLS_OUT_H
#define TW_TOOLS_OUT_H

#include <jansson.h>

#include "src/base/base.h"
#include "src/base/str.h"

/* Results: lines, or bytes as they are. */
void out_line(const char *format, ...) TW_PRINTF(1, 2);
void out_bytes(const void *bytes, size_t size);
/* One object on one line; takes over the reference. */
void out_json(json_t *record);
/* A text from outside (a path, a name in a file), which JSON may hold only as UTF-8: bytes that are
 * none become \\xff.  For json_pack's "o". */
json_t *out_json_text(const char *text);

/* Notes: about how things go, never part of a result. */
void out_note(const char *format, ...) TW_PRINTF(1, 2);
/* "tilewright: ...". */
void out_error(const char *format, ...) TW_PRINTF(1, 2);

/* Flushes stdout.  The exit code to end with: `code`, or CLI_FAILED with an error when something
 * that was printed could not be written. */
int out_finish(int code);

/* A table whose columns are as wide as they must be; printed when it is complete. */
typedef struct out_table {
    const char *align; /* a letter for each column: 'l' or 'r' */
    tw_str cells;      /* cells end with '\t', rows with '\n' */
} out_table;

/* titles (NULL: none) and rows: cells by '\t', as many as `align` has letters. */
void out_table_begin(out_table *table, const char *align, const char *titles);
void out_table_row(out_table *table, const char *format, ...) TW_PRINTF(2, 3);
void out_table_end(out_table *table);

/* How far a long job is: on a terminal a bar that overwrites itself, with the time left; otherwise
 * nothing (the job's own lines tell).  share: 0..1; left_s < 0: not known. */
void out_progress(double share, double left_s, const char *label);
/* Removes the bar, so that a line can follow. */
void out_progress_clear(void);

/* A name from a file, for lines and tables: there a tab or a newline of its own would pass for
 * theirs.  A very long one is cut. */
typedef struct out_shown {
    char text[512];
} out_shown;
out_shown out_name(const char *name);

/* Nanoseconds for people: "840 ns", "12.3 us", "4.56 ms", "1.23 s". */
typedef struct out_time {
    char text[24];
} out_time;
out_time out_ns(double ns);

#endif
