/* Temporary files, the way through symbolic links, and the signals. */
#define _GNU_SOURCE /* asprintf */
#include "tools/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/status.h"

static tw_status failed(const char *path, int error) {
    return tw_fail(TW_IO, "%s: %s", path, strerror(error));
}

/* ---- signals --------------------------------------------------------------------------------- */

/* What ends a process by default and is sent by people, terminals and systems. */
static const int endings[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU};

static const char *volatile unfinished; /* what a signal removes */

static void on_ending(int number) {
    int error = errno;
    if (unfinished) unlink(unfinished);
    /* SA_RESETHAND: this time it ends the process, as soon as the handler returns. */
    raise(number);
    errno = error;
}

/* A signal that the parent process has ignored, as nohup does, stays ignored. */
static void change_endings(void (*from)(int), void (*to)(int)) {
    struct sigaction now, next = {.sa_handler = to, .sa_flags = (int)SA_RESETHAND};
    sigfillset(&next.sa_mask);
    for (size_t i = 0; i < TW_COUNT(endings); i++)
        if (!sigaction(endings[i], NULL, &now) && now.sa_handler == from)
            sigaction(endings[i], &next, NULL);
}

/* Between a file's name and `unfinished` nothing may come. */
static void hold_endings(sigset_t *before) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < TW_COUNT(endings); i++) sigaddset(&set, endings[i]);
    sigprocmask(SIG_BLOCK, &set, before);
}

static void release_endings(const sigset_t *before) { sigprocmask(SIG_SETMASK, before, NULL); }

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
static tw_status look(const char *path, outfile_rule rule, bool *stream, mode_t *mode) {
    struct stat st;
    *stream = false;
    *mode = 0;
    if (stat(path, &st)) return errno == ENOENT ? TW_OK : failed(path, errno);
    *mode = st.st_mode;
    *stream = rule == OUTFILE_STREAM && (!S_ISREG(st.st_mode) || is_stdout(&st));
    if (S_ISDIR(st.st_mode) || (!S_ISREG(st.st_mode) && !*stream))
        return tw_fail(TW_IO, "%s: is %s, expected a regular file", path, kind_of(st.st_mode));
    return TW_OK;
}

tw_status outfile_check(const char *path, outfile_rule rule) {
    bool stream;
    mode_t mode;
    return look(path, rule, &stream, &mode);
}

/* ---- the file -------------------------------------------------------------------------------- */

/* Standard output's own descriptor, so that what it held before and gets later stays in order. */
static tw_status open_stream(outfile *file) {
    struct stat st;
    bool output = !stat(file->path, &st) && is_stdout(&st);
    fflush(stdout);
    file->fd = output ? dup(STDOUT_FILENO) : open(file->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return file->fd < 0 ? failed(file->path, errno) : TW_OK;
}

/* Beside the target, on the same file system. */
static tw_status open_temporary(outfile *file) {
    enum { TRIES = 100 };
    for (int i = 0; i < TRIES; i++) {
        sigset_t before;
        if (asprintf(&file->temporary, "%s.%ld-%d.part", file->target, (long)getpid(), i) < 0) {
            file->temporary = NULL;
            return failed(file->path, ENOMEM);
        }
        hold_endings(&before);
        file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        int error = errno;
        if (file->fd >= 0) unfinished = file->temporary;
        release_endings(&before);
        if (file->fd >= 0) return TW_OK;
        /* Whatever has that name is not ours to remove. */
        free(file->temporary);
        file->temporary = NULL;
        if (error != EEXIST) return failed(file->path, error);
    }
    return failed(file->path, EEXIST);
}

tw_status outfile_open(const char *path, outfile_rule rule, outfile *out) {
    bool stream;
    mode_t mode;
    *out = (outfile){.fd = -1, .path = path};
    TW_TRY(look(path, rule, &stream, &mode));
    if (stream) return open_stream(out);
    TW_TRY(resolve(path, &out->target));
    change_endings(SIG_DFL, on_ending);
    tw_status status = open_temporary(out);
    /* Who may read the old file may read the new one, and nobody else. */
    if (status == TW_OK && mode && fchmod(out->fd, mode & 0777)) status = failed(path, errno);
    if (status != TW_OK) outfile_discard(out);
    return status;
}

tw_status outfile_write(outfile *file, const void *bytes, size_t size) {
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

/* The name, and from there on nothing to remove. */
static int take_name(outfile *file) {
    sigset_t before;
    hold_endings(&before);
    int error = rename(file->temporary, file->target) ? errno : 0;
    if (!error) {
        unfinished = NULL;
        free(file->temporary);
        file->temporary = NULL;
    }
    release_endings(&before);
    return error;
}

tw_status outfile_finish(outfile *file) {
    int error = file->temporary && fsync(file->fd) ? errno : 0;
    if (close(file->fd) && !error) error = errno;
    file->fd = -1;
    if (!error && file->temporary) error = take_name(file);
    tw_status status = error ? failed(file->path, error) : TW_OK;
    outfile_discard(file);
    return status;
}

void outfile_discard(outfile *file) {
    sigset_t before;
    if (file->fd >= 0) close(file->fd);
    hold_endings(&before);
    if (file->temporary) unlink(file->temporary);
    unfinished = NULL;
    release_endings(&before);
    if (file->target) change_endings(on_ending, SIG_DFL);
    free(file->target);
    free(file->temporary);
    *file = (outfile){.fd = -1};
}
