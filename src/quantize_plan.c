/* See quantize_plan.h. */
#include "src/quantize_plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/pattern.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"

static const char weight[] = ".weight";

/* ---- rules ---- */

typedef struct rule {
    const char *pattern, *recipe;
    tw_pattern *expression; /* NULL: an exact name */
} rule;

typedef struct rules {
    rule *all; /* the default behind the last */
    int32_t count;
} rules;

static void free_rules(rules *r) {
    for (int32_t i = 0; r->all && i < r->count; i++) tw_pattern_free(r->all[i].expression);
    free(r->all);
}

/* A tensor's name without ".weight"; NULL for others.  size: of it. */
static bool module_of(const char *name, size_t *size) {
    size_t all = strlen(name), tail = sizeof weight - 1;
    *size = all - tail;
    return all > tail && !strcmp(name + all - tail, weight);
}

static bool is_exact(const rule *r, const char *name, bool module) {
    size_t size = strlen(name);
    if (module && !module_of(name, &size)) return false;
    return !r->expression && strlen(r->pattern) == size && !memcmp(r->pattern, name, size);
}

static tw_status is_matched(const rule *r, const char *name, bool module, bool *out) {
    size_t size = strlen(name);
    *out = false;
    if (!r->expression || (module && !module_of(name, &size))) return TW_OK;
    char *copy = strndup(name, size);
    if (!copy) return tw_fail(TW_MEMORY, "out of memory for a name");
    tw_status status = tw_pattern_match(r->expression, copy, true, out);
    free(copy);
    return status ? tw_fail_within(status, "rule '%s'", r->pattern) : TW_OK;
}

/* torchao's order of precedence; NULL: no rule is for this tensor. */
static tw_status find_rule(const rules *r, const char *name, bool is_linear, const rule **out) {
    for (int module = 0; module < 2; module++)
        for (int32_t i = 0; i < r->count; i++)
            if (is_exact(&r->all[i], name, module)) {
                *out = &r->all[i];
                return TW_OK;
            }
    for (int module = 0; module < 2; module++)
        for (int32_t i = 0; i < r->count; i++) {
            bool found;
            *out = &r->all[i];
            TW_TRY(is_matched(&r->all[i], name, module, &found));
            if (found) return TW_OK;
        }
    *out = is_linear ? &r->all[r->count] : NULL;
    return TW_OK;
}

static tw_status check_recipe(const char *pattern, const char *recipe) {
    tw_recipe parsed;
    if (!strcmp(recipe, "none")) return TW_OK;
    tw_status status = tw_recipe_parse(recipe, TW_F32, &parsed);
    return status ? tw_fail_within(status, "rule '%s'", pattern) : TW_OK;
}

/* An exact name that no tensor has is a slip of the pen, which would leave a layer as it is. */
static tw_status check_name(const tw_model *model, const rule *r) {
    for (int32_t i = 0; !r->expression && i < tw_model_tensor_count(model); i++) {
        const char *name = tw_model_tensor_at(model, i)->name;
        if (is_exact(r, name, false) || is_exact(r, name, true)) return TW_OK;
    }
    return r->expression ? TW_OK
                         : tw_fail(TW_INVALID, "rule '%s': no tensor and no module has this name",
                                   r->pattern);
}

static tw_status read_rule(const tw_model *model, const tw_quantize_rule *given, rule *out) {
    if (!given->pattern || !*given->pattern)
        return tw_fail(TW_INVALID, "rules: a pattern that is empty, must be given");
    *out = (rule){.pattern = given->pattern, .recipe = given->recipe ? given->recipe : "none"};
    if (!strncmp(out->pattern, "re:", 3)) {
        tw_status status = tw_pattern_compile(out->pattern + 3, &out->expression);
        if (status) return tw_fail_within(status, "rule '%s'", out->pattern);
    }
    TW_TRY(check_name(model, out));
    return check_recipe(out->pattern, out->recipe);
}

static tw_status read_rules(const tw_model *model, const tw_quantize_options *o, rules *out) {
    if (o->rule_count < 0 || (o->rule_count && !o->rules))
        return tw_fail(TW_INVALID, "options: rule_count: %d, without that many rules",
                       o->rule_count);
    out->all = calloc((size_t)o->rule_count + 1, sizeof *out->all);
    if (!out->all) return tw_fail(TW_MEMORY, "out of memory for %d rules", o->rule_count);
    out->count = o->rule_count;
    for (int32_t i = 0; i < o->rule_count; i++)
        TW_TRY(read_rule(model, &o->rules[i], &out->all[i]));
    out->all[o->rule_count] =
        (rule){.pattern = "default", .recipe = o->recipe ? o->recipe : "none"};
    return check_recipe("default", out->all[o->rule_count].recipe);
}

/* ---- one tensor ---- */

typedef struct maker {
    const tw_model *model;
    tw_form form;
    const tw_quantize_options *o;
    rules rules;
    tw_quantize_plan *plan;
    int32_t quantized;
    char *obstacle; /* what kept the first tensor that a rule would have quantized */
} maker;

static void set_text(char **text, const char *to) {
    free(*text);
    *text = strdup(to);
}

static void set_reason(tw_decision *d, const char *format, ...) TW_PRINTF(2, 3);
static void set_reason(tw_decision *d, const char *format, ...) {
    va_list args;
    char text[600];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    set_text(&d->reason, text);
}

/* How the values that are kept reach the output. */
static tw_status carry(const maker *m, const tw_model_tensor *t, int32_t index,
                       tw_planned_tensor *p, tw_decision *d) {
    bool gguf = tw_model_kind_of(m->model) == TW_MODEL_GGUF;
    p->scheme = t->scheme;
    p->ordered = t->ordered;
    p->type = t->type;
    d->carriage = TW_CARRY_DATA;
    if (tw_model_data(m->model, index) && gguf == (m->form == TW_FORM_GGUF) &&
        !tw_form_check(m->form, p)) {
        set_text(&d->to, t->type);
        return TW_OK;
    }
    p->type = NULL;
    if (t->scheme.weight == TW_NONE) {
        /* Whole numbers have the same names in all formats. */
        p->type = t->type;
        set_text(&d->to, t->type);
        tw_status status = tw_model_data(m->model, index) ? tw_form_check(m->form, p)
                                                          : tw_fail(TW_UNSUPPORTED, "no data");
        return status
                   ? tw_fail_within(status, "%s: data of type %s cannot be read", t->name, t->type)
                   : TW_OK;
    }
    d->carriage = TW_CARRY_CANONICAL;
    if (tw_form_check(m->form, p)) {
        set_reason(d, "%s%sas f32: %s", d->reason ? d->reason : "", d->reason ? "; " : "",
                   tw_error_message());
        d->carriage = TW_CARRY_FLOATS;
        p->scheme = (tw_scheme){.weight = TW_F32};
        p->ordered = false;
        TW_TRY(tw_form_check(m->form, p));
    }
    tw_str text = {0};
    tw_scheme_text(&p->scheme, &text);
    set_text(&d->to, tw_str_text(&text));
    tw_str_free(&text);
    return TW_OK;
}

/* Why the tensor, a rule wants it or not, is no matrix that a recipe takes; NULL: it is one. */
static const char *not_a_matrix(const tw_model_tensor *t) {
    if (t->scheme.weight == TW_NONE) return "its element type cannot be read";
    if (t->ndim != 2 && t->ndim != 3) return "no matrix";
    for (int32_t i = 0; i < t->ndim; i++)
        if (!t->shape[i]) return "empty";
    return NULL;
}

/* Sets recipe and planned scheme; on failure the error says what is in the way. */
static tw_status apply(const maker *m, const tw_model_tensor *t, const rule *r,
                       tw_planned_tensor *p, tw_decision *d) {
    int64_t N, K;
    tw_dtype x = tw_scheme_plain(&t->scheme) ? t->scheme.weight : TW_F32;
    tw_planned_fold(p, &N, &K);
    TW_TRY(tw_recipe_parse(r->recipe, x, &d->recipe));
    if (tw_recipe_check(&d->recipe, N, K) && x != TW_F32) {
        /* What does not take f16 or bf16 takes their values in f32. */
        TW_TRY(tw_recipe_parse(r->recipe, TW_F32, &d->recipe));
        TW_TRY(tw_recipe_check(&d->recipe, N, K));
    } else {
        TW_TRY(tw_recipe_check(&d->recipe, N, K));
    }
    p->scheme = d->recipe.scheme;
    if (tw_act_given(&p->scheme))
        return tw_fail(TW_UNSUPPORTED, "its activations want a scale, which no file here holds");
    if (t->ndim == 3 && (!p->scheme.group_n || t->shape[1] % p->scheme.group_n))
        return tw_fail(TW_UNSUPPORTED, "a scale would span several of the %lld stacked matrices",
                       (long long)t->shape[0]);
    p->ordered = false;
    p->type = NULL;
    return tw_form_check(m->form, p);
}

static tw_status keep(maker *m, const tw_model_tensor *t, int32_t index, const rule *r,
                      const char *why, bool wanted) {
    tw_decision *d = &m->plan->decisions[index];
    char reason[600];
    snprintf(reason, sizeof reason, "%s", why);
    if (wanted && m->o->strict)
        return tw_fail(TW_INVALID, "tensor '%s': %s; strict allows no exception but by rule",
                       t->name, reason);
    if (wanted && !m->obstacle) m->obstacle = strdup(reason);
    d->rule = r ? r->pattern : NULL;
    set_text(&d->reason, reason);
    return carry(m, t, index, &m->plan->tensors[index], d);
}

static tw_status decide(maker *m, int32_t index) {
    const tw_model_tensor *t = tw_model_tensor_at(m->model, index);
    tw_planned_tensor *p = &m->plan->tensors[index];
    tw_decision *d = &m->plan->decisions[index];
    const rule *r;
    TW_TRY(find_rule(&m->rules, t->name, t->is_linear, &r));
    *p = (tw_planned_tensor){.name = t->name, .ndim = t->ndim, .linear = t->is_linear};
    memcpy(p->shape, t->shape, sizeof p->shape);
    /* Convolutions have three dimensions, too: only what says that it is experts is missed. */
    if (!r && t->ndim == 3 && !not_a_matrix(t))
        return keep(m, t, index, NULL, "a stack of matrices, which only a rule quantizes",
                    strstr(t->name, "expert") && m->o->recipe && strcmp(m->o->recipe, "none") != 0);
    if (!r) return keep(m, t, index, NULL, "no linear layer", false);
    if (!strcmp(r->recipe, "none")) return keep(m, t, index, r, "the rule says none", false);
    const char *why = not_a_matrix(t);
    /* An expression may match vectors beside the matrices that it is for. */
    if (why) return keep(m, t, index, r, why, t->is_linear || !r->expression);
    int64_t N, K;
    tw_planned_fold(p, &N, &K);
    if (m->o->filter && !m->o->filter(m->o->user, t->name, N, K))
        return keep(m, t, index, r, "the filter", false);
    if (apply(m, t, r, p, d)) return keep(m, t, index, r, tw_error_message(), true);
    tw_str text = {0};
    tw_scheme_text(&p->scheme, &text);
    set_text(&d->to, tw_str_text(&text));
    tw_str_free(&text);
    d->carriage = TW_CARRY_QUANTIZED;
    d->rule = r->pattern;
    d->recipe_text = r->recipe;
    int64_t group = p->scheme.group_k ? p->scheme.group_k : K;
    d->short_group = K % group != 0;
    if (d->short_group)
        set_reason(d, "the last group has %lld of %lld columns", (long long)(K % group),
                   (long long)group);
    m->quantized++;
    return TW_OK;
}

uint64_t tw_quantize_work(const tw_quantize_plan *plan, int32_t index) {
    const tw_planned_tensor *p = &plan->tensors[index];
    int64_t N, K;
    tw_planned_fold(p, &N, &K);
    /* Quantizing takes longer than copying. */
    return 1 + (uint64_t)(N * K) * (plan->decisions[index].carriage == TW_CARRY_QUANTIZED ? 8 : 1);
}

static bool has_any_recipe(const rules *r) {
    for (int32_t i = 0; i <= r->count; i++)
        if (strcmp(r->all[i].recipe, "none") != 0) return true;
    return false;
}

static tw_status decide_all(maker *m) {
    int32_t count = tw_model_tensor_count(m->model);
    TW_TRY(read_rules(m->model, m->o, &m->rules));
    if (!count) return tw_fail(TW_INVALID, "in: holds no tensors");
    m->plan->tensors = calloc((size_t)count, sizeof *m->plan->tensors);
    m->plan->decisions = calloc((size_t)count, sizeof *m->plan->decisions);
    if (!m->plan->tensors || !m->plan->decisions)
        return tw_fail(TW_MEMORY, "out of memory for %d tensors", count);
    m->plan->count = count;
    for (int32_t i = 0; i < count; i++) {
        TW_TRY(decide(m, i));
        m->plan->work += tw_quantize_work(m->plan, i);
    }
    /* Without any recipe the model only changes its form. */
    if (m->quantized || !has_any_recipe(&m->rules)) return TW_OK;
    return tw_fail(TW_INVALID, "nothing would be quantized: %s",
                   m->obstacle ? m->obstacle : "no tensor is a linear layer or named by a rule");
}

tw_status tw_quantize_plan_make(const tw_model *model, tw_form form,
                                const tw_quantize_options *options, tw_quantize_plan *out) {
    maker m = {.model = model, .form = form, .o = options, .plan = out};
    *out = (tw_quantize_plan){0};
    tw_status status = decide_all(&m);
    free_rules(&m.rules);
    free(m.obstacle);
    if (status) tw_quantize_plan_free(out);
    return status;
}

void tw_quantize_plan_free(tw_quantize_plan *plan) {
    for (int32_t i = 0; i < plan->count; i++) {
        free(plan->decisions[i].reason);
        free(plan->decisions[i].to);
    }
    free(plan->tensors);
    free(plan->decisions);
    *plan = (tw_quantize_plan){0};
}
