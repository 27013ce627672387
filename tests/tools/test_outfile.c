/* Files that appear whole or not at all, and what a signal leaves behind: nothing. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/status.h"
#include "tests/base/cmocka_all.h"
#include "tools/outfile.h"

static char folder[64], target[128];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "tools-outfile-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    snprintf(target, sizeof target, "%s/out", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(target);
    return rmdir(folder);
}

/* Number of files in the folder. */
static int files(void) {
    DIR *dir = opendir(folder);
    int count = 0;
    assert_non_null(dir);
    while (readdir(dir)) count++;
    closedir(dir);
    return count - 2;
}

static void assert_content(const char *expected) {
    char text[64] = "";
    FILE *file = fopen(target, "r");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    assert_int_equal(size, strlen(expected));
    assert_string_equal(text, expected);
}

static tw_file opened(void) {
    tw_file file;
    if (outfile_open(target, TW_FILE_REGULAR, &file)) fail_msg("%s", tw_error_message());
    return file;
}

static void save(const char *text) {
    tw_file file = opened();
    assert_int_equal(tw_file_write(&file, text, strlen(text)), TW_OK);
    assert_int_equal(outfile_finish(&file), TW_OK);
}

static void nothing_before_the_end(void **state) {
    (void)state;
    tw_file file = opened();
    assert_int_equal(tw_file_write(&file, "new", 3), TW_OK);
    assert_int_equal(access(target, F_OK), -1);
    assert_int_equal(files(), 1);
    assert_int_equal(outfile_finish(&file), TW_OK);
    assert_int_equal(files(), 1);
    assert_content("new");
}

static void discarded(void **state) {
    (void)state;
    save("old");
    tw_file file = opened();
    assert_int_equal(tw_file_write(&file, "new", 3), TW_OK);
    assert_int_equal(files(), 2);
    outfile_discard(&file);
    assert_int_equal(files(), 1);
    assert_content("old");
}

/* A file of such a name that is not ours is neither written nor removed. */
static void taken_names(void **state) {
    (void)state;
    char taken[160];
    snprintf(taken, sizeof taken, "%s.%ld-0.part", target, (long)getpid());
    FILE *other = fopen(taken, "w");
    assert_non_null(other);
    fclose(other);
    save("new");
    assert_content("new");
    assert_int_equal(files(), 2);
    assert_int_equal(unlink(taken), 0);
}

static void bad_paths(void **state) {
    (void)state;
    tw_file file;
    assert_int_equal(outfile_open(folder, TW_FILE_STREAM, &file), TW_IO);
    assert_non_null(strstr(tw_error_message(), "is a folder, expected a regular file"));
    assert_int_equal(outfile_open("no/such/folder/x", TW_FILE_REGULAR, &file), TW_IO);
    assert_string_equal(tw_error_message(), "no/such/folder/x: No such file or directory");
    assert_int_equal(tw_file_check("no/such/folder/x", TW_FILE_REGULAR), TW_OK);
    assert_int_equal(tw_file_check(folder, TW_FILE_REGULAR), TW_IO);
}

/* A file-size limit stands for a full disk: write() fails half way. */
static void full_disk(void **state) {
    (void)state;
    static const char bytes[4096];
    struct rlimit old;
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    tw_file file = opened();
    struct rlimit limit = {sizeof bytes + 1, old.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(tw_file_write(&file, bytes, sizeof bytes), TW_OK);
    tw_status status = tw_file_write(&file, bytes, sizeof bytes);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(status, TW_IO);
    assert_non_null(strstr(tw_error_message(), "out: File too large"));
    outfile_discard(&file);
    assert_int_equal(files(), 0);
}

/* In a child: opens the file, writes, and sends itself the signal; gives how the child ended. */
static int killed_by(int number, void (*disposition)(int)) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        const struct rlimit no_core = {0, 0};
        tw_file file;
        setrlimit(RLIMIT_CORE, &no_core);
        signal(number, disposition);
        if (outfile_open(target, TW_FILE_REGULAR, &file)) _exit(100);
        if (tw_file_write(&file, "new", 3)) _exit(101);
        raise(number);
        _exit(outfile_finish(&file) ? 102 : 0);
    }
    int ended = 0;
    assert_int_equal(waitpid(child, &ended, 0), child);
    return ended;
}

static void signals(void **state) {
    (void)state;
    static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU};
    save("old");
    for (size_t i = 0; i < TW_COUNT(numbers); i++) {
        int ended = killed_by(numbers[i], SIG_DFL);
        assert_true(WIFSIGNALED(ended));
        assert_int_equal(WTERMSIG(ended), numbers[i]);
        assert_int_equal(files(), 1);
        assert_content("old");
    }
}

static void ignored_signals_stay_ignored(void **state) {
    (void)state;
    assert_int_equal(killed_by(SIGHUP, SIG_IGN), 0);
    assert_content("new");
}

/* Once the file is there, signals are as they were. */
static void signals_are_given_back(void **state) {
    (void)state;
    struct sigaction action;
    tw_file file = opened();
    sigaction(SIGTERM, NULL, &action);
    assert_true(action.sa_handler != SIG_DFL);
    outfile_discard(&file);
    sigaction(SIGTERM, NULL, &action);
    assert_true(action.sa_handler == SIG_DFL);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(nothing_before_the_end),
        IN_FOLDER(discarded),
        IN_FOLDER(taken_names),
        IN_FOLDER(bad_paths),
        IN_FOLDER(full_disk),
        IN_FOLDER(signals),
        IN_FOLDER(ignored_signals_stay_ignored),
        IN_FOLDER(signals_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
