/* Log lines: to the host's hook, or to stderr from TW_LOG_WARN up (TW_DEBUG raises that). */
#ifndef TW_BASE_LOG_H
#define TW_BASE_LOG_H

#include "src/base/base.h"

/* What a context hands down to whoever may have something to say; NULL means the default log. */
typedef struct tw_logger {
    tw_log hook; /* hook.write == NULL: stderr */
    int level;   /* lines above it are dropped */
} tw_logger;

void tw_logger_init(tw_logger *logger, const tw_log *hook);
bool tw_log_wants(const tw_logger *logger, tw_log_level level);
void tw_log_line(const tw_logger *logger, tw_log_level level, const char *format, ...)
    TW_PRINTF(3, 4);

#endif
