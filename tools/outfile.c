/* base/file.h between signals that end the process. */
#include "tools/outfile.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "src/base/status.h"

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

tw_status outfile_open(const char *path, tw_file_rule rule, tw_file *out) {
    sigset_t before;
    change_endings(SIG_DFL, on_ending);
    hold_endings(&before);
    tw_status status = tw_file_open(path, rule, out);
    if (!status) unfinished = out->temporary;
    release_endings(&before);
    if (status || !out->temporary) change_endings(on_ending, SIG_DFL);
    return status;
}

tw_status outfile_finish(tw_file *file) {
    sigset_t before;
    /* What takes long comes first. */
    tw_status status = tw_file_sync(file);
    if (status) {
        outfile_discard(file);
        return status;
    }
    hold_endings(&before);
    status = tw_file_finish(file);
    unfinished = NULL;
    release_endings(&before);
    change_endings(on_ending, SIG_DFL);
    return status;
}

void outfile_discard(tw_file *file) {
    sigset_t before;
    hold_endings(&before);
    tw_file_discard(file);
    unfinished = NULL;
    release_endings(&before);
    change_endings(on_ending, SIG_DFL);
}
