/* A growing string; running out of memory is remembered and reported once, by tw_str_ok(). */
#ifndef TW_BASE_STR_H
#define TW_BASE_STR_H

#include "src/base/base.h"

typedef struct tw_str {
    char *text; /* NUL-terminated once anything was added, else NULL; owned */
    size_t size, capacity;
    bool failed;
} tw_str;

void tw_str_add(tw_str *s, const char *format, ...) TW_PRINTF(2, 3);
void tw_str_add_bytes(tw_str *s, const void *bytes, size_t size);
/* Adds a text from outside as a terminal may get it: control characters, but for those in `keep`,
 * and bytes that are no UTF-8 as \x1b. */
void tw_str_add_printable(tw_str *s, const char *text, size_t size, const char *keep);
/* The first character of such a text, size at least 1, as it is shown.  Gives its bytes. */
size_t tw_printable(const char *text, size_t size, char shown[5]);
/* The text so far, never NULL. */
const char *tw_str_text(const tw_str *s);
/* TW_OK, or TW_MEMORY with its sentence. */
tw_status tw_str_ok(const tw_str *s);
void tw_str_free(tw_str *s);

#endif
