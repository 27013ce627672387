/* The one file that calls getenv. */
#include "src/base/options.h"

#include <stdlib.h>

#include "src/base/status.h"

const tw_option_row tw_option_rows[TW_OPT_COUNT] = {
#define TW_OPTION(name, def, most, help) {#name, def, help, most},
#include "src/base/options.def"
#undef TW_OPTION
};

const char *tw_option_text(tw_option option) {
    const tw_option_row *row = &tw_option_rows[option];
    const char *value = getenv(row->name);
    return value ? value : row->def;
}

/* -1 for text that is no number of the row's range; an empty one counts as unset. */
static int number(const tw_option_row *row, const char *text) {
    int value = 0;
    if (!*text) text = row->def;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9') return -1;
        value = 10 * value + (*c - '0');
        if (value > row->most) return -1;
    }
    return value;
}

int tw_option_int(tw_option option) {
    const tw_option_row *row = &tw_option_rows[option];
    int value = number(row, tw_option_text(option));
    return value < 0 ? number(row, row->def) : value;
}

tw_status tw_options_check(void) {
    for (int i = 0; i < TW_OPT_COUNT; i++) {
        const tw_option_row *row = &tw_option_rows[i];
        const char *text = tw_option_text((tw_option)i);
        if (row->most >= 0 && number(row, text) < 0)
            return tw_fail(TW_INVALID,
                           "environment variable %s: %s, must be a whole number from 0 to %d",
                           row->name, text, row->most);
    }
    return TW_OK;
}
