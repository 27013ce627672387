/* Text is formatted straight into the buffer, which doubles as it grows. */
#include "src/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"

static bool reserve(tw_str *s, size_t more) {
    if (s->failed) return false;
    size_t want = s->size + more + 1;
    if (want <= s->capacity) return true;
    size_t capacity = s->capacity ? s->capacity : 128;
    while (capacity < want) capacity *= 2;
    char *text = realloc(s->text, capacity);
    if (!text) {
        s->failed = true;
        return false;
    }
    s->text = text;
    s->capacity = capacity;
    return true;
}

void tw_str_add_bytes(tw_str *s, const void *bytes, size_t size) {
    if (!reserve(s, size)) return;
    if (size) memcpy(s->text + s->size, bytes, size);
    s->size += size;
    s->text[s->size] = 0;
}

void tw_str_add(tw_str *s, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n >= 0 && reserve(s, (size_t)n)) {
        vsnprintf(s->text + s->size, (size_t)n + 1, format, again);
        s->size += (size_t)n;
    }
    va_end(again);
}

const char *tw_str_text(const tw_str *s) { return s->text && !s->failed ? s->text : ""; }

tw_status tw_str_ok(const tw_str *s) {
    return s->failed ? tw_fail(TW_MEMORY, "out of memory while formatting text") : TW_OK;
}

void tw_str_free(tw_str *s) {
    free(s->text);
    *s = (tw_str){0};
}
