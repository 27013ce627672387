/* Implementations that the host registered. An entry is never freed before the context, so that
 * a forward may look at one without a lock; unregistering closes it, which nobody enters again. */
#ifndef TW_SRC_REGISTER_H
#define TW_SRC_REGISTER_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "src/core/problem.h"
#include "src/core/target.h"

/* Added to the `users` of an entry that is to go: nobody enters it any more. */
enum { TW_IMPL_CLOSED = INT_MIN / 2 };

typedef struct tw_impl {
    struct tw_impl *next; /* the one registered before; never changes */
    tw_linear_impl row;   /* name points into this entry */
    atomic_int users;     /* calls of condition and run in flight; negative once closed */
    bool gone;            /* nothing calls it, and nothing will; under the registry's lock */
    size_t size;
    char name[];
} tw_impl;

typedef struct tw_registry {
    const tw_allocator *allocator;
    pthread_mutex_t lock; /* held to change the list, never while host code runs */
    _Atomic(tw_impl *) first;
    atomic_uint generation; /* counts changes: who remembers another one decides again */
} tw_registry;

void tw_registry_init(tw_registry *registry, const tw_allocator *allocator);
void tw_registry_free(tw_registry *registry);

/* False when it was unregistered; else it stays until tw_impl_leave. */
bool tw_impl_enter(tw_impl *impl);
static inline void tw_impl_leave(tw_impl *impl) {
    atomic_fetch_sub_explicit(&impl->users, 1, memory_order_release);
}

/* *out: the highest priority within [least, most] whose condition accepts, the earlier among
 * equals; NULL for none. Errors: MEMORY. */
tw_status tw_registry_choose(tw_registry *registry, const tw_problem *problem,
                             const tw_target *target, int32_t least, int32_t most, tw_impl **out);

#endif
