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

/* Bytes of the UTF-8 that text begins with; 0: of none.  Table 3-7 of the Unicode standard: the
 * second byte's range rules out overlong forms, surrogates and what lies past U+10FFFF; here also
 * U+0080 to U+009F, a terminal's control characters. */
static size_t utf8_bytes(const uint8_t *text, size_t size) {
    static const struct {
        uint8_t first, last, least, most, bytes;
    } rows[] = {
        {0xc2, 0xc2, 0xa0, 0xbf, 2}, {0xc3, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        if (*text < rows[i].first || *text > rows[i].last) continue;
        bool good = size >= rows[i].bytes && text[1] >= rows[i].least && text[1] <= rows[i].most;
        for (size_t k = 2; good && k < rows[i].bytes; k++) good = (text[k] & 0xc0) == 0x80;
        return good ? rows[i].bytes : 0;
    }
    return 0;
}

size_t tw_printable(const char *text, size_t size, char shown[5]) {
    uint8_t first = (uint8_t)*text;
    bool ascii = first >= ' ' && first < 0x7f;
    size_t bytes = ascii ? 1 : utf8_bytes((const uint8_t *)text, size);
    memcpy(shown, text, bytes);
    shown[bytes] = 0;
    if (!bytes) snprintf(shown, 5, "\\x%02x", first);
    return bytes ? bytes : 1;
}

void tw_str_add_printable(tw_str *s, const char *text, size_t size, const char *keep) {
    for (size_t i = 0, bytes; i < size; i += bytes) {
        char shown[5];
        bytes = tw_printable(text + i, size - i, shown);
        if (text[i] && strchr(keep, text[i]))
            tw_str_add_bytes(s, text + i, 1);
        else
            tw_str_add_bytes(s, shown, strlen(shown));
    }
}

const char *tw_str_text(const tw_str *s) { return s->text && !s->failed ? s->text : ""; }

tw_status tw_str_ok(const tw_str *s) {
    return s->failed ? tw_fail(TW_MEMORY, "out of memory while formatting text") : TW_OK;
}

void tw_str_free(tw_str *s) {
    free(s->text);
    *s = (tw_str){0};
}
