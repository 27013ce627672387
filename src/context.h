/* src/ itself: the public objects, and the only place that knows cache and tuner both. It
 * validates, decides and delegates; what computes lies in the folders below. This file: the
 * context. */
#ifndef TW_SRC_CONTEXT_H
#define TW_SRC_CONTEXT_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache/cache.h"
#include "src/backend/backend.h"
#include "src/base/alloc.h"
#include "src/base/log.h"
#include "src/base/timeline.h"
#include "src/flight.h"
#include "src/register.h"
#include "src/scratch.h"

/* What happened since the context was created; the names are tw_stats's. */
#define TW_COUNTERS(X)                                                                             \
    X(guesses)                                                                                     \
    X(tunings)                                                                                     \
    X(choice_hits)                                                                                 \
    X(choice_misses)                                                                               \
    X(binary_hits)                                                                                 \
    X(compiles)                                                                                    \
    X(loads)                                                                                       \
    X(references)

typedef struct tw_counters {
#define TW_ROW(name) atomic_int_fast64_t name;
    TW_COUNTERS(TW_ROW)
#undef TW_ROW
} tw_counters;

enum { TW_MAX_BUDGET_S = 3600000 };

struct tw_context {
    tw_allocator allocator;
    tw_logger log;
    tw_timeline *timeline; /* NULL: nothing is traced */
    tw_target target;
    bool foreign; /* the target may not run here: plans are built, never loaded */
    tw_mode mode;
    double budget_s;           /* of one prepare() */
    tw_threads *threads;       /* NULL: the calling thread alone */
    tw_cache *cache;           /* the user's: asked first, and the only one that is written */
    tw_cache *system_cache;    /* read-only: asked where the user's has nothing of use */
    tw_flights plans, kernels; /* by problem; by binary key */
    tw_flights contests;       /* by key, and whether it may measure */
    tw_registry registry;
    tw_scratch scratch;
    tw_counters counters;
    atomic_uint asked_again; /* plans that are to be tuned anew are shared with nobody */
    atomic_int linears;      /* alive: destroying the context under them is a caller's defect */
    atomic_bool dump_warned; /* TW_DUMP could not be written */
};

/* What tools ask of a context beyond tw_options. */
typedef struct tw_context_setup {
    tw_cache_access access; /* TW_CACHE_WRITE: an unusable cache fails the creation */
    bool foreign; /* allow targets that this CPU cannot run: decide, build and dump only */
} tw_context_setup;

/* As tw_context_create.  options may be NULL. */
tw_status tw_context_open(const tw_options *options, const tw_context_setup *setup,
                          tw_context **out);

static inline void tw_count(atomic_int_fast64_t *counter) {
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif
