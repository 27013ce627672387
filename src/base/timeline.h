/* TW_TRACE: what took time and when, in a file that chrome://tracing and ui.perfetto.dev open.
 *
 * The file is a JSON array of complete events, one a line.  Contexts and processes that trace into
 * the same file append whole lines to it, each batch by one write, so that none breaks another's;
 * therefore nobody closes the array, which both viewers allow, and the last line ends with a comma.
 * A file that is there already goes on, unless it is no such array.
 * Source: Trace Event Format, JSON Array Format (Google, of Chromium's trace viewer).
 *
 * Times are those of the monotonic clock, which all processes of a machine share.  Several threads
 * may use a timeline at once. */
#ifndef TW_BASE_TIMELINE_H
#define TW_BASE_TIMELINE_H

#include "src/base/alloc.h"
#include "src/base/log.h"

typedef struct tw_timeline tw_timeline;

/* What an event is about; value NULL: left out. */
typedef struct tw_timeline_arg {
    const char *name, *value;
} tw_timeline_arg;

/* *out is NULL where $TW_TRACE is not set, and after a warning where it names no file that can be
 * used.  allocator and log must outlive the timeline.  Errors: MEMORY. */
tw_status tw_timeline_open(const tw_allocator *allocator, const tw_logger *log, tw_timeline **out);

/* Adds [start_ns, end_ns) of tw_now_ns() on this thread; written later, with others.  Where writing
 * fails one warning says so, and nothing is written from then on. */
void tw_timeline_add(tw_timeline *timeline, const char *name, int64_t start_ns, int64_t end_ns,
                     const tw_timeline_arg *args, size_t count);
/* Writes what is waiting.  NULL is allowed. */
void tw_timeline_flush(tw_timeline *timeline);
/* The same, and frees it.  NULL is allowed. */
void tw_timeline_close(tw_timeline *timeline);

#endif
