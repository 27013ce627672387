/* What a context does that takes time, told to its timeline (TW_TRACE). */
#ifndef TW_SRC_EVENT_H
#define TW_SRC_EVENT_H

#include "src/base/clock.h"
#include "src/context.h"
#include "src/core/config.h"
#include "src/core/problem.h"

typedef struct tw_event {
    const char *name;          /* "compile", "load", "tune", "pack", "forward" */
    int64_t start_ns;          /* of tw_event_begin() */
    int64_t end_ns;            /* 0: now */
    const tw_problem *problem; /* of this and what follows, NULL: left out */
    const char *kernel;
    const tw_config *config;
    tw_timeline_arg detail; /* one more */
    tw_status status;       /* a failure is part of the story */
} tw_event;

/* Now, or 0 where nothing is traced. */
static inline int64_t tw_event_begin(const tw_context *context) {
    return context->timeline ? tw_now_ns() : 0;
}
/* Adds the event to the context's timeline, if there is one.  This thread's error sentence stays
 * as it is. */
void tw_event_end(const tw_context *context, const tw_event *event);

#endif
