/* The list only ever grows at its head, so readers walk it without a lock. */
#include "src/register.h"

#include <string.h>

#include "src/base/alloc.h"
#include "src/base/status.h"
#include "src/check.h"
#include "src/context.h"

void tw_registry_init(tw_registry *registry, const tw_allocator *allocator) {
    *registry = (tw_registry){.allocator = allocator};
    pthread_mutex_init(&registry->lock, NULL);
}

void tw_registry_free(tw_registry *registry) {
    tw_impl *next, *impl = atomic_load(&registry->first);
    for (; impl; impl = next) {
        next = impl->next;
        tw_free(registry->allocator, impl, impl->size);
    }
    pthread_mutex_destroy(&registry->lock);
}

bool tw_impl_enter(tw_impl *impl) {
    /* Who only looks in does not count as somebody inside. */
    if (atomic_load_explicit(&impl->users, memory_order_relaxed) < 0) return false;
    if (atomic_fetch_add_explicit(&impl->users, 1, memory_order_acquire) >= 0) return true;
    tw_impl_leave(impl);
    return false;
}

static bool accepts(tw_impl *impl, const char *problem, const char *target) {
    if (!tw_impl_enter(impl)) return false;
    bool yes = impl->row.condition(impl->row.user, problem, target) != 0;
    tw_impl_leave(impl);
    return yes;
}

tw_status tw_registry_choose(tw_registry *registry, const tw_problem *problem,
                             const tw_target *target, int32_t least, int32_t most, tw_impl **out) {
    tw_impl *best = NULL, *impl = atomic_load_explicit(&registry->first, memory_order_acquire);
    tw_str text = {0};
    tw_status status = TW_OK;
    if (impl) {
        tw_problem_text(problem, &text);
        status = tw_str_ok(&text);
    }
    /* Newest first: among equals the last one seen is the earliest. */
    for (; impl && status == TW_OK; impl = impl->next) {
        int32_t priority = impl->row.priority;
        if (priority < least || priority > most || (best && priority < best->row.priority))
            continue;
        if (accepts(impl, tw_str_text(&text), tw_target_isa(target)->name)) best = impl;
    }
    tw_str_free(&text);
    *out = best;
    return status;
}

static tw_impl *find(tw_registry *registry, const char *name) {
    tw_impl *impl = atomic_load(&registry->first);
    while (impl && (impl->gone || strcmp(impl->name, name) != 0)) impl = impl->next;
    return impl;
}

static tw_status append(tw_registry *registry, const tw_linear_impl *row) {
    size_t length = strlen(row->name);
    tw_impl *impl = tw_alloc(registry->allocator, sizeof *impl + length + 1);
    if (!impl) return tw_fail(TW_MEMORY, "out of memory for implementation %s", row->name);
    impl->size = sizeof *impl + length + 1;
    memcpy(impl->name, row->name, length + 1);
    impl->row = *row;
    impl->row.name = impl->name;
    atomic_init(&impl->users, 0);
    impl->next = atomic_load(&registry->first);
    atomic_store_explicit(&registry->first, impl, memory_order_release);
    atomic_fetch_add(&registry->generation, 1);
    return TW_OK;
}

enum { NAME_BYTES = 63 }; /* what tw_plan_info has room for */

tw_status tw_register_linear(tw_context *context, const tw_linear_impl *impl) {
    tw_linear_impl row;
    if (!context) return tw_fail(TW_INVALID, "context: NULL, must be given");
    TW_TRY(tw_struct_read("impl", impl, sizeof row, &row));
    if (!row.name || !*row.name) return tw_fail(TW_INVALID, "impl: name is missing");
    if (strlen(row.name) > NAME_BYTES)
        return tw_fail(TW_INVALID, "impl: name %.20s... has %zu bytes, at most %d", row.name,
                       strlen(row.name), NAME_BYTES);
    if (!row.condition || !row.run)
        return tw_fail(TW_INVALID, "impl: %s has no %s function", row.name,
                       row.run ? "condition" : "run");
    tw_registry *registry = &context->registry;
    pthread_mutex_lock(&registry->lock);
    tw_status status = find(registry, row.name)
                           ? tw_fail(TW_INVALID, "impl: %s is registered already", row.name)
                           : append(registry, &row);
    pthread_mutex_unlock(&registry->lock);
    if (status == TW_OK)
        tw_log_line(&context->log, TW_LOG_INFO, "registered %s, version %u, priority %d", row.name,
                    row.version, row.priority);
    return status;
}

/* Closed before it is idle, or under load it would never be. */
static tw_status take_out(tw_registry *registry, tw_impl *impl) {
    if (atomic_load(&impl->users) >= 0) {
        atomic_fetch_add(&impl->users, TW_IMPL_CLOSED);
        atomic_fetch_add(&registry->generation, 1);
    }
    int running = atomic_load_explicit(&impl->users, memory_order_acquire) - TW_IMPL_CLOSED;
    if (running) return tw_fail(TW_BUSY, "name: %s, %d calls run it", impl->name, running);
    impl->gone = true;
    return TW_OK;
}

tw_status tw_unregister_linear(tw_context *context, const char *name) {
    if (!context || !name)
        return tw_fail(TW_INVALID, "%s: NULL, must be given", context ? "name" : "context");
    tw_registry *registry = &context->registry;
    pthread_mutex_lock(&registry->lock);
    tw_impl *impl = find(registry, name);
    tw_status status =
        impl ? take_out(registry, impl)
             : tw_fail(TW_INVALID, "name: %s, no implementation of this name is registered", name);
    pthread_mutex_unlock(&registry->lock);
    if (status == TW_OK) tw_log_line(&context->log, TW_LOG_INFO, "unregistered %s", name);
    return status;
}
