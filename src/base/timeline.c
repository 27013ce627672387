/* Writing TW_TRACE's file. */
#define _GNU_SOURCE
#include "src/base/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/options.h"
#include "src/base/status.h"
#include "src/base/str.h"

/* Some hundred events: a write is a matter of microseconds, and a crash loses that much. */
enum { BATCH_BYTES = 64 << 10 };

struct tw_timeline {
    const tw_allocator *allocator;
    const tw_logger *log;
    pthread_mutex_t lock; /* of all below */
    int fd;               /* -1: writing failed, so nothing is traced any more */
    tw_str waiting;       /* whole lines */
    tw_str path;
};

/* Why the file cannot be used, or NULL.  Whoever comes first opens the array; the lock on the file
 * is there for that alone. */
static const char *begin_file(int fd) {
    struct stat facts;
    char first = '[';
    const char *why = NULL;
    if (fstat(fd, &facts)) return strerror(errno);
    if (!S_ISREG(facts.st_mode)) return "is no regular file";
    flock(fd, LOCK_EX);
    if (fstat(fd, &facts) || (!facts.st_size && write(fd, "[\n", 2) != 2))
        why = strerror(errno);
    else if (facts.st_size && (pread(fd, &first, 1, 0) != 1 || first != '['))
        why = "is there and holds no trace";
    flock(fd, LOCK_UN);
    return why;
}

tw_status tw_timeline_open(const tw_allocator *allocator, const tw_logger *log, tw_timeline **out) {
    const char *path = tw_option_text(TW_OPT_TW_TRACE), *why;
    *out = NULL;
    if (!*path) return TW_OK;
    /* A FIFO without a reader would keep open() waiting. */
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    why = fd < 0 ? strerror(errno) : begin_file(fd);
    if (why) {
        tw_log_line(log, TW_LOG_WARN, "TW_TRACE: %s: %s; nothing is traced", path, why);
        if (fd >= 0) close(fd);
        return TW_OK;
    }
    tw_timeline *t = tw_alloc(allocator, sizeof *t);
    if (t) {
        *t = (tw_timeline){.allocator = allocator, .log = log, .fd = fd};
        tw_str_add(&t->path, "%s", path);
    }
    if (!t || tw_str_ok(&t->path) != TW_OK) {
        tw_free(allocator, t, sizeof *t);
        close(fd);
        return tw_fail(TW_MEMORY, "out of memory for TW_TRACE");
    }
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return TW_OK;
}

/* Under the lock.  Gives why it failed, or NULL. */
static const char *write_waiting(tw_timeline *t) {
    const char *why = NULL;
    tw_str *lines = &t->waiting;
    if (t->fd >= 0 && lines->failed) why = "out of memory";
    if (t->fd >= 0 && !why && lines->size) {
        /* One call: what others append comes before or behind it.  A part of it is an error too. */
        ssize_t written = write(t->fd, lines->text, lines->size);
        if (written < 0) why = strerror(errno);
        if (written >= 0 && (size_t)written < lines->size) why = "cannot be written whole";
    }
    if (why) {
        close(t->fd);
        t->fd = -1;
        tw_str_free(lines);
    }
    lines->size = 0;
    return why;
}

/* Not under the lock: the host's log may do as it likes. */
static void tell(const tw_timeline *t, const char *why) {
    if (why)
        tw_log_line(t->log, TW_LOG_WARN, "TW_TRACE: %s: %s; nothing more is traced",
                    tw_str_text(&t->path), why);
}

/* A JSON string. */
static void add_text(tw_str *out, const char *text) {
    size_t left = strlen(text);
    tw_str_add_bytes(out, "\"", 1);
    while (left) {
        /* Nearly always all of it. */
        size_t n = 0;
        while (n < left && text[n] >= ' ' && text[n] <= '~' && text[n] != '"' && text[n] != '\\')
            n++;
        tw_str_add_bytes(out, text, n);
        if (!n) {
            char shown[5];
            n = tw_printable(text, left, shown);
            if (*shown == '"' || *shown == '\\') tw_str_add_bytes(out, "\\", 1);
            tw_str_add(out, "%s", shown);
        }
        text += n;
        left -= n;
    }
    tw_str_add_bytes(out, "\"", 1);
}

/* A member in microseconds.  Whole numbers alone: printf's floats obey the host's locale. */
static void add_us(tw_str *out, const char *name, int64_t ns) {
    tw_str_add(out, ",\"%s\":%lld.%03d", name, (long long)(ns / 1000), (int)(ns % 1000));
}

void tw_timeline_add(tw_timeline *t, const char *name, int64_t start_ns, int64_t end_ns,
                     const tw_timeline_arg *args, size_t count) {
    const char *why = NULL, *comma = "";
    pthread_mutex_lock(&t->lock);
    if (t->fd >= 0) {
        tw_str *out = &t->waiting;
        tw_str_add(out, "{\"name\":");
        add_text(out, name);
        tw_str_add(out, ",\"cat\":\"tilewright\",\"ph\":\"X\"");
        add_us(out, "ts", start_ns);
        add_us(out, "dur", end_ns - start_ns);
        tw_str_add(out, ",\"pid\":%d,\"tid\":%d,\"args\":{", (int)getpid(), (int)gettid());
        for (size_t i = 0; i < count; i++) {
            if (!args[i].value) continue;
            tw_str_add(out, "%s", comma);
            add_text(out, args[i].name);
            tw_str_add(out, ":");
            add_text(out, args[i].value);
            comma = ",";
        }
        tw_str_add(out, "}},\n");
        if (out->size >= BATCH_BYTES || out->failed) why = write_waiting(t);
    }
    pthread_mutex_unlock(&t->lock);
    tell(t, why);
}

void tw_timeline_flush(tw_timeline *t) {
    if (!t) return;
    pthread_mutex_lock(&t->lock);
    const char *why = write_waiting(t);
    pthread_mutex_unlock(&t->lock);
    tell(t, why);
}

void tw_timeline_close(tw_timeline *t) {
    if (!t) return;
    tw_timeline_flush(t);
    if (t->fd >= 0) close(t->fd);
    pthread_mutex_destroy(&t->lock);
    tw_str_free(&t->waiting);
    tw_str_free(&t->path);
    tw_free(t->allocator, t, sizeof *t);
}
