/* The one file of the library that writes to a stream. */
#include "src/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "src/base/options.h"

void tw_logger_init(tw_logger *logger, const tw_log *hook) {
    int debug = tw_option_int(TW_OPT_TW_DEBUG);
    *logger = (tw_logger){.level = debug > TW_LOG_WARN ? debug : TW_LOG_WARN};
    if (hook && hook->write) *logger = (tw_logger){*hook, TW_LOG_TRACE};
}

bool tw_log_wants(const tw_logger *logger, tw_log_level level) {
    return (int)level <= (logger ? logger->level : TW_LOG_WARN);
}

void tw_log_line(const tw_logger *logger, tw_log_level level, const char *format, ...) {
    if (!tw_log_wants(logger, level)) return;
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    /* A path or a name in it may hold newlines. */
    char *rest = line;
    for (char *one = strtok_r(rest, "\n", &rest); one; one = strtok_r(NULL, "\n", &rest)) {
        if (logger && logger->hook.write)
            logger->hook.write(logger->hook.user, level, one);
        else
            fprintf(stderr, "tilewright: %s%s\n", level == TW_LOG_WARN ? "warning: " : "", one);
    }
}
