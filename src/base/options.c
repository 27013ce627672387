/* The one file that calls getenv. */
#include "src/base/options.h"

#include <stdlib.h>

const tw_option_row tw_option_rows[TW_OPT_COUNT] = {
#define TW_OPTION(name, def, help) {#name, def, help},
#include "src/base/options.def"
#undef TW_OPTION
};

const char *tw_option_text(tw_option option) {
    const tw_option_row *row = &tw_option_rows[option];
    const char *value = getenv(row->name);
    return value ? value : row->def;
}

int64_t tw_option_int(tw_option option) {
    char *end;
    const char *text = tw_option_text(option);
    int64_t value = strtoll(text, &end, 10);
    return *end || end == text ? strtoll(tw_option_rows[option].def, NULL, 10) : value;
}
