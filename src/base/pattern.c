/* PCRE2 in its 8-bit form, UTF-8, with bounds that hostile texts cannot leave. */
#include "src/base/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

#include "src/base/status.h"

enum { MOST_PATTERN = 4096, MOST_STEPS = 100000, MOST_KIB = 1024 };

struct tw_pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

/* NULL: *error and *at say why. */
static pcre2_code *compile(const char *text, int *error, PCRE2_SIZE *at) {
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C;
    pcre2_compile_context *how = pcre2_compile_context_create(NULL);
    *error = PCRE2_ERROR_NOMEMORY;
    *at = 0;
    if (!how) return NULL;
    pcre2_set_max_pattern_length(how, MOST_PATTERN);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options, error, at, how);
    pcre2_compile_context_free(how);
    return code;
}

tw_status tw_pattern_compile(const char *text, tw_pattern **out) {
    int error = PCRE2_ERROR_NOMEMORY;
    PCRE2_SIZE at = 0;
    tw_pattern *p = calloc(1, sizeof *p);
    if (!p) return tw_fail(TW_MEMORY, "out of memory for a pattern");
    p->code = compile(text, &error, &at);
    p->match = p->code ? pcre2_match_data_create(1, NULL) : NULL;
    p->limits = p->code ? pcre2_match_context_create(NULL) : NULL;
    if (p->match && p->limits) {
        pcre2_set_match_limit(p->limits, MOST_STEPS);
        pcre2_set_heap_limit(p->limits, MOST_KIB);
        *out = p;
        return TW_OK;
    }
    PCRE2_UCHAR why[128] = "out of memory";
    if (!p->code) pcre2_get_error_message(error, why, sizeof why);
    tw_pattern_free(p);
    return tw_fail(TW_INVALID, "\"%.64s\": %s, at character %zu", text, (const char *)why,
                   (size_t)at + 1);
}

tw_status tw_pattern_match(const tw_pattern *pattern, const char *name, bool whole, bool *out) {
    int found = pcre2_match(pattern->code, (PCRE2_SPTR)name, PCRE2_ZERO_TERMINATED, 0,
                            whole ? PCRE2_ENDANCHORED : 0, pattern->match, pattern->limits);
    *out = found >= 0;
    if (found >= PCRE2_ERROR_NOMATCH) return TW_OK;
    PCRE2_UCHAR why[128];
    pcre2_get_error_message(found, why, sizeof why);
    return tw_fail(TW_INVALID, "takes too long for \"%.64s\": %s", name, (const char *)why);
}

void tw_pattern_free(tw_pattern *pattern) {
    if (!pattern) return;
    pcre2_match_context_free(pattern->limits);
    pcre2_match_data_free(pattern->match);
    pcre2_code_free(pattern->code);
    free(pattern);
}
