/* The rows of templates.def and layout.def, and what turns one config into code. */
#include <string.h>

#include "src/base/status.h"
#include "src/core/key.h"
#include "templates/template.h"

#define TW_TEMPLATE(name) extern const tw_template tw_template_##name;
#include "templates/templates.def"
#undef TW_TEMPLATE
#define TW_LAYOUT(name) extern const tw_layout tw_layout_##name;
#include "src/core/layout.def"
#undef TW_LAYOUT

static const tw_template *const templates[] = {
#define TW_TEMPLATE(name) &tw_template_##name,
#include "templates/templates.def"
#undef TW_TEMPLATE
};
static const tw_layout *const layouts[] = {
#define TW_LAYOUT(name) &tw_layout_##name,
#include "src/core/layout.def"
#undef TW_LAYOUT
};

const tw_template *tw_template_row(int i) {
    return i >= 0 && (size_t)i < TW_COUNT(templates) ? templates[i] : NULL;
}
const tw_layout *tw_layout_row(int i) {
    return i >= 0 && (size_t)i < TW_COUNT(layouts) ? layouts[i] : NULL;
}

const tw_template *tw_template_find(const char *name) {
    for (size_t i = 0; i < TW_COUNT(templates); i++)
        if (!strcmp(templates[i]->name, name)) return templates[i];
    return NULL;
}

tw_problem tw_template_truth(const tw_template *tmpl, const tw_problem *problem) {
    tw_problem truth = *problem;
    if (!tmpl || tmpl->fpmath == TW_FPMATH_STRICT) truth.scheme.fpmath = TW_FPMATH_STRICT;
    return truth;
}

typedef struct emit_call {
    const tw_template *tmpl;
    const tw_problem *problem;
    const tw_config *config;
} emit_call;

static tw_status emit_template(tw_ir *g, const void *arg) {
    const emit_call *call = arg;
    return call->tmpl->emit(g, call->problem, call->config);
}

tw_status tw_template_compile(const tw_template *tmpl, const tw_problem *problem,
                              const tw_config *config, const tw_target *target, tw_code_kind kind,
                              tw_str *out) {
    /* Configs are of buckets: that of 4 rows also serves 3. */
    tw_problem bucket = *problem;
    if (bucket.M) bucket.M = tw_bucket_rows(tw_bucket_index(bucket.M));
    const char *why = tmpl->reject_problem(target, &bucket);
    if (!why) why = tmpl->reject(target, &bucket, config);
    tw_str text = {0}, banner = {0};
    tw_problem any_m = *problem;
    any_m.M = 0;
    tw_problem_text(&any_m, &text);
    tw_str_add(&text, "  %s  ", tmpl->name);
    tw_config_text(config, &text);
    tw_status status = tw_str_ok(&text);
    if (status == TW_OK && why)
        status = tw_fail(TW_UNSUPPORTED, "config: %s: %s", tw_str_text(&text), why);
    if (status == TW_OK && kind != TW_CODE_OBJECT) {
        tw_str config_text = {0}, problem_text = {0};
        tw_config_text(config, &config_text);
        tw_problem_text(&any_m, &problem_text);
        static const char *const flags[] = {
            [TW_CODE_IR] = "ir", [TW_CODE_ASM] = "asm", [TW_CODE_TRACE] = "trace"};
        tw_str_add(&banner, "%s\nkernel %s version %u, %s, tilewright %d.%d.%d, %s\n",
                   tw_str_text(&problem_text), tmpl->name, tmpl->version, tw_str_text(&config_text),
                   TW_VERSION_MAJOR, TW_VERSION_MINOR, TW_VERSION_PATCH, tw_cpu_compiler());
        tw_str_add(&banner, "tilewright dump cpu:%s %s --kernel %s --config \"%s\" --%s\n\n",
                   tw_target_isa(target)->name, tw_str_text(&problem_text), tmpl->name,
                   tw_str_text(&config_text), flags[kind]);
        tw_str_free(&config_text);
        tw_str_free(&problem_text);
        status = tw_str_ok(&banner);
    }
    emit_call call = {tmpl, &any_m, config};
    if (status == TW_OK)
        status = tw_cpu_compile(target, emit_template, &call, tw_str_text(&banner), kind, out);
    tw_str_free(&text);
    tw_str_free(&banner);
    return status;
}
