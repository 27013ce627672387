/* Environment variables, read through one table (options.def) and nowhere else. */
#ifndef TW_BASE_OPTIONS_H
#define TW_BASE_OPTIONS_H

#include "src/base/base.h"

typedef enum tw_option {
#define TW_OPTION(name, def, help) TW_OPT_##name,
#include "src/base/options.def"
#undef TW_OPTION
    TW_OPT_COUNT
} tw_option;

typedef struct tw_option_row {
    const char *name, *def, *help;
} tw_option_row;

extern const tw_option_row tw_option_rows[TW_OPT_COUNT];

/* The variable's value, or its default when unset. */
const char *tw_option_text(tw_option option);
/* As an integer; text that is none counts as the default. */
int64_t tw_option_int(tw_option option);

#endif
