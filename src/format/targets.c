/* See targets.h.  Regular expressions are Python's, which PCRE2 reads alike. */
#include "src/format/targets.h"

#include <stdlib.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "src/format/json.h"

/* Names are short: what takes longer was made to. */
enum { MOST_PATTERN = 4096, MOST_STEPS = 100000, MOST_KIB = 1024 };

typedef struct pattern {
    const char *text; /* with its re: */
    pcre2_code *code;
} pattern;

/* One list, or several in one. */
typedef struct rules {
    json_t *names; /* target: its group, or true */
    pattern *patterns;
    size_t count;
} rules;

struct tw_targets {
    rules groups, ignored;
    pcre2_compile_context *how;
    pcre2_match_context *limits;
    pcre2_match_data *match;
    const char *label;
};

/* ---- making ---- */

static tw_status out_of_memory(const tw_targets *t) {
    return tw_fail(TW_MEMORY, "%s: out of memory for its targets", t->label);
}

static bool is_pattern(const char *text) { return !strncmp(text, "re:", 3); }

static tw_status compile(const tw_targets *t, const char *text, pcre2_code **out) {
    int error;
    PCRE2_SIZE at;
    char why[128];
    *out = pcre2_compile((PCRE2_SPTR)text + 3, PCRE2_ZERO_TERMINATED,
                         PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error,
                         &at, t->how);
    if (*out) return TW_OK;
    pcre2_get_error_message(error, (PCRE2_UCHAR *)why, sizeof why);
    return tw_fail(TW_FORMAT, "%s: quantization_config: '%s': at %zu: %s", t->label,
                   tw_show(text, strlen(text)).text, (size_t)at, why);
}

static tw_status add(const tw_targets *t, rules *to, const char *key, json_t *target,
                     json_t *what) {
    const char *text = json_string_value(target);
    if (!text)
        return tw_fail(TW_FORMAT, "%s: quantization_config: %s: expected names", t->label, key);
    bool known = json_object_get(to->names, text);
    if (json_object_set(to->names, text, what)) return out_of_memory(t);
    if (known || !is_pattern(text)) return TW_OK;
    pattern *grown = reallocarray(to->patterns, to->count + 1, sizeof *grown);
    if (!grown) return out_of_memory(t);
    to->patterns = grown;
    grown[to->count] = (pattern){text, NULL};
    TW_TRY(compile(t, text, &grown[to->count].code));
    to->count++;
    return TW_OK;
}

static tw_status add_list(const tw_targets *t, rules *to, const char *key, json_t *list,
                          json_t *what) {
    json_t *target;
    size_t i;
    if (list && !json_is_null(list) && !json_is_array(list))
        return tw_fail(TW_FORMAT, "%s: quantization_config: %s: expected a list", t->label, key);
    json_array_foreach(list, i, target) TW_TRY(add(t, to, key, target, what));
    return TW_OK;
}

static int compare(const void *a, const void *b) {
    const pattern *x = a, *y = b;
    return strcmp(x->text, y->text);
}

static tw_status fill(tw_targets *t, const json_t *config) {
    json_t *groups = json_object_get(config, "config_groups"), *group;
    const char *key;
    t->groups.names = json_object();
    t->ignored.names = json_object();
    t->how = pcre2_compile_context_create(NULL);
    t->limits = pcre2_match_context_create(NULL);
    t->match = pcre2_match_data_create(1, NULL);
    if (!t->groups.names || !t->ignored.names || !t->how || !t->limits || !t->match)
        return out_of_memory(t);
    pcre2_set_max_pattern_length(t->how, MOST_PATTERN);
    pcre2_set_match_limit(t->limits, MOST_STEPS);
    pcre2_set_heap_limit(t->limits, MOST_KIB);
    json_object_foreach(groups, key, group)
        TW_TRY(add_list(t, &t->groups, "targets", json_object_get(group, "targets"), group));
    TW_TRY(add_list(t, &t->ignored, "ignore", json_object_get(config, "ignore"), json_true()));
    if (t->groups.count)
        qsort(t->groups.patterns, t->groups.count, sizeof *t->groups.patterns, compare);
    return TW_OK;
}

tw_status tw_targets_make(const json_t *config, const char *label, tw_targets **out) {
    tw_targets *t = calloc(1, sizeof *t);
    if (!t) return tw_fail(TW_MEMORY, "%s: out of memory for its targets", label);
    t->label = label;
    tw_status status = fill(t, config);
    if (status)
        tw_targets_free(t);
    else
        *out = t;
    return status;
}

static void free_rules(rules *r) {
    for (size_t i = 0; i < r->count; i++) pcre2_code_free(r->patterns[i].code);
    free(r->patterns);
    json_decref(r->names);
}

void tw_targets_free(tw_targets *t) {
    if (!t) return;
    free_rules(&t->groups);
    free_rules(&t->ignored);
    pcre2_compile_context_free(t->how);
    pcre2_match_context_free(t->limits);
    pcre2_match_data_free(t->match);
    free(t);
}

/* ---- looking ---- */

static tw_status matches(const tw_targets *t, const pattern *p, const char *module, bool *out) {
    int found =
        pcre2_match(p->code, (PCRE2_SPTR)module, PCRE2_ZERO_TERMINATED, 0, 0, t->match, t->limits);
    *out = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH) return TW_OK;
    return tw_fail(TW_UNSUPPORTED, "%s: quantization_config: '%s': takes too long for '%s'",
                   t->label, tw_show(p->text, strlen(p->text)).text,
                   tw_show(module, strlen(module)).text);
}

/* What the most specific rule stands for; NULL where none matches. */
static tw_status find(const tw_targets *t, const rules *r, const char *module,
                      const char *class_name, const json_t **out) {
    bool found = false;
    *out = is_pattern(module) ? NULL : json_object_get(r->names, module);
    for (size_t i = 0; i < r->count && !*out; i++) {
        TW_TRY(matches(t, &r->patterns[i], module, &found));
        if (found) *out = json_object_get(r->names, r->patterns[i].text);
    }
    /* Every class is a Module, too. */
    if (!*out) *out = json_object_get(r->names, class_name);
    if (!*out) *out = json_object_get(r->names, "Module");
    return TW_OK;
}

tw_status tw_targets_find(const tw_targets *t, const char *module, const char *class_name,
                          const json_t **group, bool *ignored) {
    const json_t *hit;
    TW_TRY(find(t, &t->ignored, module, class_name, &hit));
    *ignored = hit;
    *group = NULL;
    return hit ? TW_OK : find(t, &t->groups, module, class_name, group);
}
