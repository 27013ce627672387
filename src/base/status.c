/* The only mutable state outside contexts: one sentence a thread. */
#include "src/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What the header tells lint in place of the two functions. */
#undef tw_fail
#undef tw_fail_within

static _Thread_local char sentence[1024];

const char *tw_error_message(void) { return sentence; }

const char *tw_status_name(tw_status status) {
    switch (status) {
#define TW_ROW(name, value, text)                                                                  \
    case TW_##name: return #name;
        TW_STATUSES(TW_ROW)
#undef TW_ROW
    }
    return "?";
}

tw_status tw_fail(tw_status status, const char *format, ...) {
    /* Formatted aside first: an argument may be the current sentence itself. */
    char text[sizeof sentence];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(sentence, text, sizeof text);
    return status;
}

tw_status tw_fail_within(tw_status status, const char *format, ...) {
    char text[sizeof sentence];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %.*s", (int)(sizeof text - (size_t)n - 3),
                 sentence);
    memcpy(sentence, text, sizeof text);
    return status;
}
