/* Environment variables, read through one table (options.def) and nowhere else. */
#ifndef TW_BASE_OPTIONS_H
#define TW_BASE_OPTIONS_H

#include "src/base/base.h"

typedef enum tw_option {
#define TW_OPTION(name, def, most, help) TW_OPT_##name,
#include "src/base/options.def"
#undef TW_OPTION
    TW_OPT_COUNT
} tw_option;

typedef struct tw_option_row {
    const char *name, *def, *help;
    int most; /* of a whole number; -1: any text */
} tw_option_row;

extern const tw_option_row tw_option_rows[TW_OPT_COUNT];

/* The variable's value, or its default when unset. */
const char *tw_option_text(tw_option option);
/* Of a row that is a whole number; what tw_options_check() refuses counts as the default. */
int tw_option_int(tw_option option);
/* Errors: INVALID names the first variable that should be a number in its range and is none. */
tw_status tw_options_check(void);

#endif
