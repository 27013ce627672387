/* Streams, tables and the progress bar. */
#define _GNU_SOURCE /* vasprintf */
#include "tools/out.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"

static bool lost; /* something meant for stdout could not even be formatted */
static bool bar;  /* a progress bar stands on the terminal's last line */

/* Formats; what must not reach a terminal becomes \x1b, but for the characters in `keep`. */
static void add(tw_str *out, const char *keep, const char *format, va_list args) {
    char *text = NULL;
    int size = vasprintf(&text, format, args);
    lost = lost || size < 0;
    if (size >= 0) {
        tw_str_add_printable(out, text, (size_t)size, keep);
        free(text);
    }
    lost = lost || out->failed;
}

static void print(FILE *stream, const char *keep, const char *format, va_list args) {
    tw_str text = {0};
    add(&text, keep, format, args);
    fputs(tw_str_text(&text), stream);
    fputc('\n', stream);
    tw_str_free(&text);
}

void out_line(const char *format, ...) {
    va_list args;
    out_progress_clear();
    va_start(args, format);
    print(stdout, "\n\t", format, args);
    va_end(args);
}

void out_bytes(const void *bytes, size_t size) {
    out_progress_clear();
    fwrite(bytes, 1, size, stdout);
}

void out_json(json_t *record) {
    char *text = record ? json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    lost = lost || !text;
    if (text) {
        out_bytes(text, strlen(text));
        out_bytes("\n", 1);
    }
    free(text);
    json_decref(record);
    fflush(stdout);
}

json_t *out_json_text(const char *text) {
    json_t *value = json_string(text);
    tw_str escaped = {0};
    if (value || !text) return value;
    for (const char *at = text; *at;) {
        /* The longest piece from here that is UTF-8: a character has at most four bytes. */
        int size = 4;
        while (size && !(value = json_stringn(at, strnlen(at, (size_t)size)))) size--;
        if (size)
            tw_str_add(&escaped, "%s", json_string_value(value));
        else
            tw_str_add(&escaped, "\\x%02x", (unsigned char)*at);
        at += size ? strlen(json_string_value(value)) : 1;
        json_decref(value);
    }
    value = json_string(tw_str_text(&escaped));
    tw_str_free(&escaped);
    return value;
}

void out_note(const char *format, ...) {
    va_list args;
    out_progress_clear();
    fflush(stdout);
    va_start(args, format);
    print(stderr, "", format, args);
    va_end(args);
}

void out_error(const char *format, ...) {
    va_list args;
    out_progress_clear();
    fflush(stdout);
    fputs("tilewright: ", stderr);
    va_start(args, format);
    print(stderr, "", format, args);
    va_end(args);
}

int out_finish(int code) {
    out_progress_clear();
    if (!fflush(stdout) && !ferror(stdout) && !lost) return code;
    out_error("standard output: %s", lost ? "out of memory" : strerror(errno));
    return CLI_FAILED;
}

/* ---- tables ---------------------------------------------------------------------------------- */

enum { MAX_COLUMNS = 16 };

void out_table_begin(out_table *table, const char *align, const char *titles) {
    *table = (out_table){.align = align};
    if (titles) out_table_row(table, "%s", titles);
}

void out_table_row(out_table *table, const char *format, ...) {
    va_list args;
    va_start(args, format);
    add(&table->cells, "\t", format, args);
    va_end(args);
    tw_str_add_bytes(&table->cells, "\n", 1);
}

/* Columns, not bytes: continuation bytes of UTF-8 take none. */
static int width_of(const char *text, size_t size) {
    int width = 0;
    for (size_t i = 0; i < size; i++) width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

void out_table_end(out_table *table) {
    int widths[MAX_COLUMNS] = {0}, columns = (int)strlen(table->align);
    const char *text = tw_str_text(&table->cells), *at = text;
    for (int c = 0; *at; c = *at == '\t' ? c + 1 : 0, at++) {
        size_t size = strcspn(at, "\t\n");
        int width = width_of(at, size);
        if (c < MAX_COLUMNS && widths[c] < width) widths[c] = width;
        at += size;
    }
    at = text;
    for (int c = 0; *at; c = *at == '\t' ? c + 1 : 0, at++) {
        size_t size = strcspn(at, "\t\n");
        bool right = c < columns && table->align[c] == 'r', last = at[size] == '\n';
        int pad = c < MAX_COLUMNS ? widths[c] - width_of(at, size) : 0;
        if (c) out_bytes("  ", 2);
        if (right) printf("%*s", pad, "");
        out_bytes(at, size);
        if (!right && !last) printf("%*s", pad, "");
        at += size;
        if (last) out_bytes("\n", 1);
    }
    lost = lost || table->cells.failed;
    tw_str_free(&table->cells);
}

/* ---- progress -------------------------------------------------------------------------------- */

void out_progress(double share, double left_s, const char *label) {
    enum { CELLS = 24 };
    char cells[CELLS + 1], left[32] = "";
    if (!isatty(STDERR_FILENO)) return;
    share = share < 0 ? 0 : share > 1 ? 1 : share;
    for (int i = 0; i < CELLS; i++) cells[i] = i < (int)(share * CELLS + 0.5) ? '#' : '.';
    cells[CELLS] = 0;
    if (left_s >= 0) snprintf(left, sizeof left, ", %.0f s left", left_s);
    fflush(stdout);
    /* At most 79 columns: a bar that wraps could not be overwritten. */
    fprintf(stderr, "\r\033[K[%s] %3.0f%%%s  %.30s", cells, share * 100, left,
            out_name(label).text);
    fflush(stderr);
    bar = true;
}

void out_progress_clear(void) {
    if (!bar) return;
    fputs("\r\033[K", stderr);
    bar = false;
}

out_shown out_name(const char *name) {
    tw_str text = {0};
    out_shown shown;
    tw_str_add_printable(&text, name, strlen(name), "");
    size_t most = sizeof shown.text - 1;
    bool fits = text.size <= most;
    snprintf(shown.text, sizeof shown.text, "%.*s%s", (int)(fits ? most : most - 3),
             tw_str_text(&text), fits ? "" : "...");
    tw_str_free(&text);
    return shown;
}

out_time out_ns(double ns) {
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "us"}, {1, "ns"}};
    out_time time;
    int i = 0;
    while (i < 3 && ns < units[i].unit) i++;
    double value = ns / units[i].unit;
    int digits = units[i].unit == 1 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(time.text, sizeof time.text, "%.*f %s", digits, value, units[i].name);
    return time;
}
