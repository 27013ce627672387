/* Where a writer's bytes go, front to back, and the buffer before it. */
#ifndef TW_FORMAT_SINK_H
#define TW_FORMAT_SINK_H

#include "src/base/base.h"

typedef struct tw_sink {
    tw_status (*write)(void *user, const void *bytes, size_t size);
    void *user;
} tw_sink;

typedef struct tw_output {
    tw_sink sink;
    uint8_t *buffer;
    size_t filled;
    uint64_t count; /* bytes put so far */
} tw_output;

/* Errors: MEMORY. */
tw_status tw_output_open(const tw_sink *sink, tw_output *out);
/* Errors: the sink's; then only close() makes sense. */
tw_status tw_output_put(tw_output *out, const void *bytes, size_t size);
/* Zeros up to the next multiple of `alignment`. */
tw_status tw_output_align(tw_output *out, uint64_t alignment);
/* Gives the sink what is left. */
tw_status tw_output_flush(tw_output *out);
/* Frees the buffer; what was not flushed is lost. */
void tw_output_close(tw_output *out);

#endif
