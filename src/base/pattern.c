/* PCRE2 in its 8-bit form, UTF-8. */
#include "src/base/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#include "src/base/status.h"

struct tw_pattern {
    pcre2_code *code;
    pcre2_match_data *match;
};

tw_status tw_pattern_compile(const char *text, tw_pattern **out) {
    int error;
    PCRE2_SIZE at;
    tw_pattern *p = calloc(1, sizeof *p);
    if (!p) return tw_fail(TW_MEMORY, "out of memory for a pattern");
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &error, &at, NULL);
    p->match = p->code ? pcre2_match_data_create_from_pattern(p->code, NULL) : NULL;
    if (p->match) {
        *out = p;
        return TW_OK;
    }
    PCRE2_UCHAR why[128] = "out of memory";
    if (!p->code) pcre2_get_error_message(error, why, sizeof why);
    tw_fail(TW_INVALID, "\"%s\": %s, at character %zu", text, (const char *)why, (size_t)at + 1);
    tw_pattern_free(p);
    return TW_INVALID;
}

bool tw_pattern_full(const tw_pattern *pattern, const char *name) {
    return pcre2_match(pattern->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0, 0, pattern->match,
                       NULL) >= 0;
}

void tw_pattern_free(tw_pattern *pattern) {
    if (!pattern) return;
    pcre2_match_data_free(pattern->match);
    pcre2_code_free(pattern->code);
    free(pattern);
}
