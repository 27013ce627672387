/* Creating and destroying contexts, and what they tell about themselves. */
#include "src/context.h"

#include <math.h>
#include <string.h>

#include "codegen/cpu/compile.h"
#include "src/base/options.h"
#include "src/base/status.h"
#include "src/check.h"
#include "src/contest.h"

uint32_t tw_version(void) {
    return TW_VERSION_MAJOR << 16 | TW_VERSION_MINOR << 8 | TW_VERSION_PATCH;
}

static tw_status check_options(const tw_options *o) {
    if ((unsigned)o->mode > TW_MODE_CACHED_ONLY)
        return tw_fail(TW_INVALID, "mode: %d, is no mode", (int)o->mode);
    if (!(o->tune_budget_s >= 0 && o->tune_budget_s <= TW_MAX_BUDGET_S))
        return tw_fail(TW_INVALID, "tune_budget_s: %g, must be from 0 to %d seconds",
                       o->tune_budget_s, TW_MAX_BUDGET_S);
    if (o->threads < 0) return tw_fail(TW_INVALID, "threads: %d, must be 0 or more", o->threads);
    if (o->parallel.run && o->parallel.threads < 1)
        return tw_fail(TW_INVALID, "parallel: threads %d, must be how many run() uses",
                       o->parallel.threads);
    if (!o->parallel.run && o->parallel.threads)
        return tw_fail(TW_INVALID, "parallel: threads %d without run()", o->parallel.threads);
    if (!o->allocator.alloc != !o->allocator.free)
        return tw_fail(TW_INVALID, "allocator: %s is missing, both or neither must be given",
                       o->allocator.alloc ? "free" : "alloc");
    return TW_OK;
}

static void destroy_plan(void *user, void *value) { tw_plan_destroy(user, value); }
static void destroy_contest(void *user, void *value) { tw_contest_destroy(user, value); }
static void destroy_code(void *user, void *value) { tw_code_destroy(user, value); }

/* Hosts that ask for nothing can be told to tune. */
static tw_mode mode_of(const tw_options *o) {
    static const tw_mode by_environment[] = {TW_MODE_DEFAULT, TW_MODE_TUNE, TW_MODE_MAX_AUTOTUNE};
    return o->mode ? o->mode : by_environment[tw_option_int(TW_OPT_TW_TUNE)];
}

/* The parts that can fail, in an order in which tw_context_destroy can take back any beginning. */
static tw_status open_parts(tw_context *c, const tw_options *o, const tw_context_setup *setup) {
    TW_TRY(tw_timeline_open(&c->allocator, &c->log, &c->timeline));
    int32_t threads = o->parallel.run ? o->parallel.threads : o->threads;
    if (!threads) threads = tw_option_int(TW_OPT_TW_THREADS);
    const char *device = o->device ? o->device : "cpu";
    TW_TRY(setup->foreign ? tw_cpu_describe(device, threads, &c->target)
                          : tw_cpu_detect(device, threads, &c->target));
    const char *refused = strcmp(device, "cpu") != 0 ? NULL : tw_cpu_refused();
    if (refused) tw_log_line(&c->log, TW_LOG_WARN, "device: %s", refused);
    TW_TRY(tw_threads_create(&o->parallel, c->target.threads, &c->threads));
    TW_TRY(tw_cache_open(o->cache_path, setup->access, &c->log, &c->cache));
    return tw_cache_open_system(o->cache_system_path, c->cache, &c->log, &c->system_cache);
}

static void context_free(tw_context *c) {
    tw_cache_close(c->cache);
    tw_cache_close(c->system_cache);
    tw_threads_destroy(c->threads);
    tw_flights_free(&c->plans);
    tw_flights_free(&c->kernels);
    tw_flights_free(&c->contests);
    tw_registry_free(&c->registry);
    tw_scratch_free(&c->scratch);
    tw_timeline_close(c->timeline);
    tw_allocator allocator = c->allocator;
    tw_free(&allocator, c, sizeof *c);
}

static void add_cache(const tw_cache *cache, const char *word, tw_str *out) {
    const char *path = tw_cache_path(cache);
    tw_str_add(out, ", %s %s%s", word, *path ? path : "none",
               tw_cache_problem(cache) ? " (not in use)" : "");
}

static void log_context(const tw_context *c) {
    if (!tw_log_wants(&c->log, TW_LOG_INFO)) return;
    tw_str text = {0};
    tw_device_text(&c->target, &text);
    add_cache(c->cache, "cache", &text);
    if (*tw_cache_path(c->system_cache)) add_cache(c->system_cache, "system cache", &text);
    tw_log_line(&c->log, TW_LOG_INFO, "context: %s", tw_str_text(&text));
    tw_str_free(&text);
}

tw_status tw_context_open(const tw_options *options, const tw_context_setup *setup,
                          tw_context **out) {
    tw_options o = TW_OPTIONS_INIT;
    if (options) TW_TRY(tw_struct_read("options", options, sizeof o, &o));
    TW_TRY(check_options(&o));
    TW_TRY(tw_options_check());
    tw_allocator allocator = o.allocator.alloc ? o.allocator : tw_allocator_default;
    tw_context *c = tw_alloc(&allocator, sizeof *c);
    if (!c) return tw_fail(TW_MEMORY, "out of memory for a context");
    c->allocator = allocator;
    c->mode = mode_of(&o);
    c->budget_s = o.tune_budget_s > 0 ? o.tune_budget_s : 10;
    c->foreign = setup->foreign;
    tw_logger_init(&c->log, &o.log);
    tw_flights_init(&c->plans, &c->allocator, destroy_plan, c);
    tw_flights_init(&c->kernels, &c->allocator, destroy_code, c);
    tw_flights_init(&c->contests, &c->allocator, destroy_contest, c);
    tw_registry_init(&c->registry, &c->allocator);
    tw_scratch_init(&c->scratch, &c->allocator);
    tw_status status = open_parts(c, &o, setup);
    if (status != TW_OK) {
        context_free(c);
        return status;
    }
    log_context(c);
    *out = c;
    return TW_OK;
}

tw_status tw_context_create(const tw_options *options, tw_context **out) {
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    return tw_context_open(options, &(tw_context_setup){.access = TW_CACHE_USE}, out);
}

void tw_context_destroy(tw_context *context) {
    if (!context) return;
    int linears = atomic_load(&context->linears);
    if (linears) {
        /* They point into it: a leak is the lesser evil. */
        tw_timeline_flush(context->timeline);
        tw_log_line(&context->log, TW_LOG_ERROR,
                    "tw_context_destroy: %d linears are alive, so the context is kept", linears);
        return;
    }
    context_free(context);
}

tw_status tw_context_device(const tw_context *context, tw_device_info *out) {
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    const tw_target *t = &context->target;
    tw_device_info info = {.threads = t->threads,
                           .l1_bytes = t->l1_bytes,
                           .l2_bytes = t->l2_bytes,
                           .l3_bytes = t->l3_bytes};
    _Static_assert(sizeof info.name == sizeof t->model, "a model's name fits");
    memcpy(info.name, t->model, sizeof info.name);
    memcpy(info.target, tw_target_isa(t)->name, strlen(tw_target_isa(t)->name));
    return tw_struct_write("out", &info, sizeof info, out);
}

tw_status tw_context_stats(const tw_context *context, tw_stats *out) {
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    tw_stats stats = {.compiler_opened = tw_cpu_compiler_opened()};
#define TW_ROW(name) stats.name = atomic_load(&context->counters.name);
    TW_COUNTERS(TW_ROW)
#undef TW_ROW
    return tw_struct_write("out", &stats, sizeof stats, out);
}
