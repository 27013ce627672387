/* Temporary files, and the way through symbolic links. */
#define _GNU_SOURCE /* asprintf */
#include "src/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/status.h"

static tw_status failed(const char *path, int error) {
    return tw_fail(TW_IO, "%s: %s", path, strerror(error));
}

/* ---- the target ------------------------------------------------------------------------------ */

/* What the link says, from the folder that the link lies in; NULL: see errno. */
static char *follow(const char *link) {
    char to[PATH_MAX], *joined;
    ssize_t size = readlink(link, to, sizeof to);
    if (size < 0) return NULL;
    const char *slash = strrchr(link, '/');
    int folder = *to == '/' || !slash ? 0 : (int)(slash - link) + 1;
    return asprintf(&joined, "%.*s%.*s", folder, link, (int)size, to) < 0 ? NULL : joined;
}

/* The path behind its last component's symbolic links, whether something is there or not; that they
 * are no circle stat() has found out. */
static tw_status resolve(const char *path, char **out) {
    struct stat st;
    char *at = strdup(path);
    while (at && !lstat(at, &st) && S_ISLNK(st.st_mode)) {
        char *next = follow(at);
        free(at);
        at = next;
    }
    *out = at;
    return at ? TW_OK : failed(path, errno);
}

static const char *kind_of(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFDIR: return "a folder";
    case S_IFIFO: return "a FIFO";
    case S_IFSOCK: return "a socket";
    default: return "a device";
    }
}

static bool is_stdout(const struct stat *st) {
    struct stat output;
    return !fstat(STDOUT_FILENO, &output) && output.st_dev == st->st_dev &&
           output.st_ino == st->st_ino;
}

/* *stream: whether it is written to as it stands; *mode: of a file that is there, else 0. */
static tw_status look(const char *path, tw_file_rule rule, bool *stream, mode_t *mode) {
    struct stat st;
    *stream = false;
    *mode = 0;
    if (stat(path, &st)) return errno == ENOENT ? TW_OK : failed(path, errno);
    *mode = st.st_mode;
    *stream = rule == TW_FILE_STREAM && (!S_ISREG(st.st_mode) || is_stdout(&st));
    if (S_ISDIR(st.st_mode) || (!S_ISREG(st.st_mode) && !*stream))
        return tw_fail(TW_IO, "%s: is %s, expected a regular file", path, kind_of(st.st_mode));
    return TW_OK;
}

tw_status tw_file_check(const char *path, tw_file_rule rule) {
    bool stream;
    mode_t mode;
    return look(path, rule, &stream, &mode);
}

/* ---- the file -------------------------------------------------------------------------------- */

/* Standard output's own descriptor, so that what it held before and gets later stays in order. */
static tw_status open_stream(tw_file *file) {
    struct stat st;
    bool output = !stat(file->path, &st) && is_stdout(&st);
    fflush(stdout);
    file->fd = output ? dup(STDOUT_FILENO) : open(file->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return file->fd < 0 ? failed(file->path, errno) : TW_OK;
}

/* Beside the target, on the same file system. */
static tw_status open_temporary(tw_file *file) {
    enum { TRIES = 100 };
    for (int i = 0; i < TRIES; i++) {
        if (asprintf(&file->temporary, "%s.%ld-%d.part", file->target, (long)getpid(), i) < 0) {
            file->temporary = NULL;
            return failed(file->path, ENOMEM);
        }
        file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->fd >= 0) return TW_OK;
        int error = errno;
        /* Whatever has that name is not ours to remove. */
        free(file->temporary);
        file->temporary = NULL;
        if (error != EEXIST) return failed(file->path, error);
    }
    return failed(file->path, EEXIST);
}

tw_status tw_file_open(const char *path, tw_file_rule rule, tw_file *out) {
    bool stream;
    mode_t mode;
    *out = (tw_file){.fd = -1, .path = path};
    TW_TRY(look(path, rule, &stream, &mode));
    if (stream) return open_stream(out);
    TW_TRY(resolve(path, &out->target));
    tw_status status = open_temporary(out);
    /* Who may read the old file may read the new one, and nobody else. */
    if (status == TW_OK && mode && fchmod(out->fd, mode & 0777)) status = failed(path, errno);
    if (status != TW_OK) tw_file_discard(out);
    return status;
}

tw_status tw_file_write(tw_file *file, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size) {
        ssize_t n = write(file->fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return failed(file->path, errno);
        at += n;
        size -= (size_t)n;
    }
    return TW_OK;
}

tw_status tw_file_sync(tw_file *file) {
    if (file->temporary && fsync(file->fd)) return failed(file->path, errno);
    return TW_OK;
}

tw_status tw_file_finish(tw_file *file) {
    tw_status status = tw_file_sync(file);
    int error = close(file->fd) ? errno : 0;
    file->fd = -1;
    if (!status && !error && file->temporary) {
        error = rename(file->temporary, file->target) ? errno : 0;
        /* From here on there is nothing to remove. */
        if (!error) {
            free(file->temporary);
            file->temporary = NULL;
        }
    }
    if (!status && error) status = failed(file->path, error);
    tw_file_discard(file);
    return status;
}

void tw_file_discard(tw_file *file) {
    if (file->fd >= 0) close(file->fd);
    if (file->temporary) unlink(file->temporary);
    free(file->target);
    free(file->temporary);
    *file = (tw_file){.fd = -1};
}
