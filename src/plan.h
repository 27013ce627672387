/* A plan: a problem, for one M bucket, resolved to something that runs, and where that came from.
 *
 *     choice in the cache? -> (may tune ? tune : guess) -> binary in the cache? -> compile -> load
 *
 * Linears and tools make plans here; nothing else asks cache, tuner or compiler.  Plans and the
 * code they run are shared by everybody in a context who asks for the same, and made once however
 * many threads ask at a time. */
#ifndef TW_SRC_PLAN_H
#define TW_SRC_PLAN_H

#include "autotune/tune.h"
#include "src/context.h"

/* name in code, text in tw_plan_info */
#define TW_ORIGINS(X)                                                                              \
    X(GUESS, "guess")                                                                              \
    X(TUNED, "tuned")                                                                              \
    X(CACHE, "cache")                                                                              \
    X(FORCED, "forced")                                                                            \
    X(REGISTERED, "registered")                                                                    \
    X(REFERENCE, "reference")

typedef enum tw_origin {
#define TW_ROW(name, text) TW_ORIGIN_##name,
    TW_ORIGINS(TW_ROW)
#undef TW_ROW
} tw_origin;
const char *tw_origin_text(tw_origin origin);

static inline bool tw_mode_tunes(tw_mode mode) {
    return mode == TW_MODE_TUNE || mode == TW_MODE_MAX_AUTOTUNE;
}

/* Which kernel, before anything is built. */
typedef struct tw_decision {
    const tw_template *tmpl; /* NULL: the reference */
    tw_config config;
    tw_origin origin;
    double median_ns, spread_ns, error; /* as tuned; 0 when never measured */
    bool open; /* tuning fell short or was stopped: asked again, it goes on */
} tw_decision;

typedef struct tw_plan_request {
    /* M >= 1 is rounded up to its bucket's size.  Where x is rounded before a kernel sees it
     * (src/core/act.h), everything below is of the problem that the kernel has then. */
    const tw_problem *problem;
    tw_mode mode;
    const tw_layout *layout; /* NULL: any; else only kernels over this one */
    /* Forces a kernel and a config; tmpl alone: its guess. Choices are neither asked nor
     * stored. */
    const tw_template *tmpl;
    const tw_config *config;
    /* The rest is for the tuning modes. */
    double budget_s; /* 0: the context's */
    bool again;      /* tune although the cache has a choice; measurements are still taken over */
    bool decide_anyway;                               /* as tw_tune_request */
    int (*progress)(void *user, int done, int total); /* as tw_tune_hooks; may be NULL */
    void *user;
    tw_tune_result *result; /* NULL, or what tuning did; all zero where nothing was tuned */
} tw_plan_request;

/* A request of the context's own mode and budget. */
tw_plan_request tw_plan_ask(const tw_context *context, const tw_problem *problem);

/* The decision alone: nothing is loaded, and nothing compiled unless to tune.
 * Errors: MISS (CACHED_ONLY) names the key; UNSUPPORTED: no kernel takes the problem, or the
 * forced one does not; whatever tw_tune fails with. */
tw_status tw_plan_decide(tw_context *context, const tw_plan_request *request, tw_decision *out);

/* Remembers a decision of this device under a key, in the user's cache.
 * Errors: as tw_cache_put_choice. */
tw_status tw_choice_store(tw_context *context, const tw_key *key, const tw_choice *choice);

/* Machine code of one config: from the binary cache, else compiled and stored there.
 * Errors: MISS (CACHED_ONLY), UNSUPPORTED (no compiler here, or the config is rejected),
 * COMPILE. */
tw_status tw_plan_object(tw_context *context, tw_mode mode, const tw_template *tmpl,
                         const tw_problem *problem, const tw_config *config, tw_str *out);

/* A few lines for people: the key, what was decided and why each other kernel declined. */
tw_status tw_plan_explain(tw_context *context, const tw_plan_request *request,
                          const tw_decision *decision, tw_str *out);

/* The same machine code, loaded once for everybody. */
typedef struct tw_code {
    tw_image *image;
    tw_pack_x_fn *pack_x;
    tw_matmul_fn *matmul;
} tw_code;

typedef struct tw_plan {
    tw_problem problem; /* the kernel's (tw_kernel_problem); M: the bucket's size */
    tw_decision decision;
    tw_kernel kernel;     /* what tw_launch takes; zero for the reference */
    size_t scratch_bytes; /* for any M up to the bucket's size */
    tw_code *code;        /* NULL for the reference */
    char reason[512];     /* why it is the reference though nobody asked for that; else "" */
} tw_plan;

/* Decides, builds and loads; the reference (with a reason) where nothing can be compiled. The
 * plan is shared and constant; release it when done.
 * Errors: as tw_plan_decide and tw_plan_object, except that UNSUPPORTED is left to CACHED_ONLY
 * and to forced kernels; MEMORY, INTERNAL. */
tw_status tw_plan_make(tw_context *context, const tw_plan_request *request, tw_plan **out);
/* NULL is allowed. */
void tw_plan_release(tw_context *context, tw_plan *plan);

/* For the tables of the context alone: the last user is gone. */
void tw_plan_destroy(tw_context *context, tw_plan *plan);
void tw_code_destroy(tw_context *context, tw_code *code);

#endif
