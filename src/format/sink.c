/* One buffer, so that the sink sees large pieces. */
#include "src/format/sink.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"

enum { BUFFER = 1 << 20 };

tw_status tw_output_open(const tw_sink *sink, tw_output *out) {
    *out = (tw_output){.sink = *sink, .buffer = malloc(BUFFER)};
    return out->buffer ? TW_OK : tw_fail(TW_MEMORY, "out of memory for a buffer");
}

tw_status tw_output_put(tw_output *out, const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    out->count += size;
    while (size) {
        size_t n = BUFFER - out->filled < size ? BUFFER - out->filled : size;
        memcpy(out->buffer + out->filled, at, n);
        out->filled += n;
        at += n;
        size -= n;
        if (out->filled == BUFFER) TW_TRY(tw_output_flush(out));
    }
    return TW_OK;
}

tw_status tw_output_align(tw_output *out, uint64_t alignment) {
    static const uint8_t zeros[64];
    uint64_t missing = (alignment - out->count % alignment) % alignment;
    while (missing) {
        uint64_t n = missing < sizeof zeros ? missing : sizeof zeros;
        TW_TRY(tw_output_put(out, zeros, n));
        missing -= n;
    }
    return TW_OK;
}

tw_status tw_output_flush(tw_output *out) {
    size_t filled = out->filled;
    out->filled = 0;
    return filled ? out->sink.write(out->sink.user, out->buffer, filled) : TW_OK;
}

void tw_output_close(tw_output *out) {
    free(out->buffer);
    *out = (tw_output){0};
}
