/* A text of problems: one a line, # begins a comment. */
#include <stdio.h>

#include "src/format/model_impl.h"

enum { MOST_LINE = 1024 };

static tw_status read_line(tw_model *model, const char *label, int32_t number, const char *line,
                           size_t size) {
    const char *comment = memchr(line, '#', size);
    char text[MOST_LINE], name[MOST_LINE];
    if (comment) size = (size_t)(comment - line);
    while (size && strchr(" \t\r", line[size - 1]) && line[size - 1]) size--;
    while (size && (*line == ' ' || *line == '\t')) line++, size--;
    if (!size) return TW_OK;
    if (size >= MOST_LINE || memchr(line, 0, size))
        return tw_fail(TW_FORMAT, "%s:%d: expected a problem text", label, number);
    memcpy(text, line, size);
    text[size] = 0;
    tw_linear_entry entry = {.count = 1, .tensor = -1};
    tw_status status = tw_problem_parse(text, false, &entry.problem);
    if (status) return tw_fail_within(status, "%s:%d", label, number);
    /* A long path keeps its end, where the file's name is. */
    size_t skip = strlen(label) > MOST_LINE / 2 ? strlen(label) - MOST_LINE / 2 : 0;
    int n = snprintf(name, sizeof name, "%s:%d", label + skip, number);
    TW_TRY(tw_model_keep(model, name, (size_t)n, &entry.name));
    entry.type = tw_dtype_name(entry.problem.scheme.weight);
    return tw_model_add_linear(model, &entry);
}

tw_status tw_problems_read(tw_model *model, int32_t file) {
    const char *label = model->files[file].label, *at = (const char *)model->files[file].bytes;
    const char *end = at + model->files[file].size;
    for (int32_t number = 1; at < end; number++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        TW_TRY(read_line(model, label, number, at, (size_t)(stop - at)));
        at = stop < end ? stop + 1 : end;
    }
    if (!model->linear_count) return tw_fail(TW_FORMAT, "%s: no problem in it", label);
    return TW_OK;
}
