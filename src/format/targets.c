/* See targets.h. */
#include "src/format/targets.h"

#include <stdlib.h>

#include "src/base/pattern.h"
#include "src/format/json.h"

typedef struct pattern {
    const char *text; /* with its re: */
    tw_pattern *compiled;
} pattern;

/* One list, or several in one. */
typedef struct rules {
    json_t *names; /* target: its group, or true */
    pattern *patterns;
    size_t count;
} rules;

struct tw_targets {
    rules groups, ignored;
    const char *label;
};

/* ---- making ---- */

static tw_status out_of_memory(const tw_targets *t) {
    return tw_fail(TW_MEMORY, "%s: out of memory for its targets", t->label);
}

static bool is_pattern(const char *text) { return !strncmp(text, "re:", 3); }

static tw_status compile(const tw_targets *t, const char *text, tw_pattern **out) {
    tw_status status = tw_pattern_compile(text + 3, out);
    return status ? tw_fail_within(TW_FORMAT, "%s: quantization_config", t->label) : TW_OK;
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
    TW_TRY(compile(t, text, &grown[to->count].compiled));
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
    if (!t->groups.names || !t->ignored.names) return out_of_memory(t);
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
    for (size_t i = 0; i < r->count; i++) tw_pattern_free(r->patterns[i].compiled);
    free(r->patterns);
    json_decref(r->names);
}

void tw_targets_free(tw_targets *t) {
    if (!t) return;
    free_rules(&t->groups);
    free_rules(&t->ignored);
    free(t);
}

/* ---- looking ---- */

static tw_status matches(const tw_targets *t, const pattern *p, const char *module, bool *out) {
    tw_status status = tw_pattern_match(p->compiled, module, false, out);
    return status ? tw_fail_within(TW_UNSUPPORTED, "%s: quantization_config: '%s'", t->label,
                                   tw_show(p->text, strlen(p->text)).text)
                  : TW_OK;
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
