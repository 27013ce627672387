/* The binary cache in front of the compiler, and the loader behind both. */
#include "src/build.h"

#include "codegen/cpu/compile.h"
#include "src/base/clock.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/event.h"

typedef struct build {
    tw_context *context;
    tw_mode mode;
    const tw_template *tmpl;
    tw_problem problem;
    const tw_config *config;
    tw_key key;
} build;

static tw_status build_key(build *b) {
    return tw_binary_key(&b->problem, b->tmpl->name, b->tmpl->version, b->config,
                         &b->context->target, tw_cpu_compiler(), &b->key);
}

/* The user's file wins. */
static bool get_binary(build *b, tw_str *out) {
    return tw_cache_get_binary(b->context->cache, &b->key, out) ||
           tw_cache_get_binary(b->context->system_cache, &b->key, out);
}

static bool object_from_cache(build *b, tw_str *out) {
    size_t before = out->size;
    if (!get_binary(b, out)) return false;
    tw_count(&b->context->counters.binary_hits);
    tw_log_line(&b->context->log, TW_LOG_DEBUG, "binary from the cache: %zu bytes, %s",
                out->size - before, tw_str_text(&b->key.text));
    return true;
}

static tw_status object_compile(build *b, tw_str *out) {
    tw_context *c = b->context;
    if (b->mode == TW_MODE_CACHED_ONLY)
        return tw_fail(TW_MISS, "the cache has no binary of %s", tw_str_text(&b->key.text));
    int64_t start = tw_now_ns();
    tw_status status =
        tw_template_compile(b->tmpl, &b->problem, b->config, &c->target, TW_CODE_OBJECT, out);
    tw_event_end(c, &(tw_event){.name = "compile",
                                .start_ns = start,
                                .problem = &b->problem,
                                .kernel = b->tmpl->name,
                                .config = b->config,
                                .status = status});
    if (status != TW_OK) return status;
    tw_count(&c->counters.compiles);
    tw_log_line(&c->log, TW_LOG_DEBUG, "compiled in %.2f ms: %zu bytes, %s",
                (double)(tw_now_ns() - start) / 1e6, out->size, tw_str_text(&b->key.text));
    tw_dump_build(c, &b->key, b->tmpl, &b->problem, b->config, out);
    return tw_cache_put_binary(c->cache, &b->key, b->tmpl->name, b->tmpl->version, out->text,
                               out->size);
}

tw_status tw_plan_object(tw_context *context, tw_mode mode, const tw_template *tmpl,
                         const tw_problem *problem, const tw_config *config, tw_str *out) {
    build b = {context, mode, tmpl, tw_kernel_problem(problem), config, {{0}, {0}}};
    TW_TRY(build_key(&b));
    tw_status status = object_from_cache(&b, out) ? tw_str_ok(out) : object_compile(&b, out);
    tw_key_free(&b.key);
    return status;
}

bool tw_object_cached(tw_context *context, const tw_template *tmpl, const tw_problem *problem,
                      const tw_config *config) {
    build b = {context, TW_MODE_CACHED_ONLY, tmpl, tw_kernel_problem(problem), config, {{0}, {0}}};
    tw_str object = {0};
    if (build_key(&b) != TW_OK) return false;
    bool hit = get_binary(&b, &object);
    tw_str_free(&object);
    tw_key_free(&b.key);
    return hit;
}

/* ---- loading ---- */

static tw_status map_object(build *b, const tw_str *object, tw_code *out) {
    int64_t start = tw_now_ns();
    TW_TRY(tw_image_load(object->text, object->size, &out->image));
    *(void **)&out->pack_x = tw_image_symbol(out->image, "tw_pack_x");
    *(void **)&out->matmul = tw_image_symbol(out->image, "tw_matmul");
    if (!out->pack_x || !out->matmul) {
        tw_image_unload(out->image);
        return tw_fail(TW_INTERNAL, "%s: the object does not define %s", b->tmpl->name,
                       out->pack_x ? "tw_matmul" : "tw_pack_x");
    }
    tw_count(&b->context->counters.loads);
    tw_log_line(&b->context->log, TW_LOG_DEBUG, "loaded in %.0f us: %s",
                (double)(tw_now_ns() - start) / 1e3, tw_str_text(&b->key.text));
    return TW_OK;
}

static tw_status load_object(build *b, const tw_str *object, int64_t start_ns, const char *from,
                             tw_code *out) {
    tw_status status = map_object(b, object, out);
    tw_event_end(b->context, &(tw_event){.name = "load",
                                         .start_ns = start_ns,
                                         .problem = &b->problem,
                                         .kernel = b->tmpl->name,
                                         .config = b->config,
                                         .detail = {"from", from},
                                         .status = status});
    return status;
}

static tw_status load_compiled(build *b, tw_str *object, tw_code *out) {
    TW_TRY(object_compile(b, object));
    return load_object(b, object, tw_event_begin(b->context), "compiler", out);
}

/* A binary that the cache has but that cannot be loaded is built afresh, once. */
static tw_status load(build *b, tw_code *out) {
    tw_str object = {0};
    int64_t start = tw_event_begin(b->context);
    bool cached = object_from_cache(b, &object);
    tw_status status = cached ? tw_str_ok(&object) : load_compiled(b, &object, out);
    if (cached && status == TW_OK) status = load_object(b, &object, start, "cache", out);
    if (status != TW_OK && status != TW_MEMORY && cached && b->mode != TW_MODE_CACHED_ONLY) {
        tw_log_line(&b->context->log, TW_LOG_WARN, "cached binary is not usable, building anew: %s",
                    tw_error_message());
        tw_str_free(&object);
        status = load_compiled(b, &object, out);
    }
    tw_str_free(&object);
    return status;
}

static tw_status make_code(void *arg, void **value) {
    build *b = arg;
    tw_code *code = tw_alloc(&b->context->allocator, sizeof *code);
    if (!code) return tw_fail(TW_MEMORY, "out of memory for a kernel");
    tw_status status = load(b, code);
    if (status == TW_OK)
        *value = code;
    else
        tw_free(&b->context->allocator, code, sizeof *code);
    return status;
}

tw_status tw_code_load(tw_context *context, tw_mode mode, const tw_template *tmpl,
                       const tw_problem *problem, const tw_config *config, tw_code **out) {
    build b = {context, mode, tmpl, tw_kernel_problem(problem), config, {{0}, {0}}};
    TW_TRY(build_key(&b));
    void *code = NULL;
    tw_status status =
        tw_flights_get(&context->kernels, b.key.digest, sizeof b.key.digest, make_code, &b, &code);
    tw_key_free(&b.key);
    if (status == TW_OK) *out = code;
    return status;
}

void tw_code_destroy(tw_context *context, tw_code *code) {
    tw_image_unload(code->image);
    tw_free(&context->allocator, code, sizeof *code);
}
