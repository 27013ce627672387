/* See fixture.h. */
#define _GNU_SOURCE
#include "tests/cache/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char test_device[] = "cpu;isa=avx2;model=Test;l1=32768;l2=524288;l3=33554432;threads=2";

static void count_line(void *user, tw_log_level level, const char *line) {
    fixture *f = user;
    if (level > TW_LOG_WARN) return;
    f->warnings++;
    snprintf(f->warning, sizeof f->warning, "%s", line);
}

void fixture_init(fixture *f, const char *folder) {
    memset(f, 0, sizeof *f);
    snprintf(f->folder, sizeof f->folder, "%s", folder);
    snprintf(f->path, sizeof f->path, "%.400s/cache.db", folder);
    f->log = (tw_logger){{count_line, f}, TW_LOG_TRACE};
}

int fixture_setup(void **state) {
    char name[PATH_BYTES], real[PATH_MAX];
    const char *base = getenv("TMPDIR");
    snprintf(name, sizeof name, "%.400s/tw_cache_XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(name) || !realpath(name, real) || strlen(real) > 300) return -1;
    /* A child that gave up root's rights must get through. */
    if (chmod(real, 0755)) return -1;
    fixture *f = malloc(sizeof *f);
    if (!f) return -1;
    fixture_init(f, real);
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *at) {
    (void)s, (void)flag, (void)at;
    return remove(path);
}

int fixture_teardown(void **state) {
    fixture *f = *state;
    int failed = nftw(f->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    free(f);
    return failed;
}

tw_cache *open_cache(fixture *f, tw_cache_access access, tw_status expected) {
    tw_cache *cache = NULL;
    tw_status status = tw_cache_open(f->path, access, &f->log, &cache);
    if (status != expected) print_error("%s: %s\n", f->path, tw_error_message());
    assert_int_equal(status, expected);
    assert_int_equal(cache != NULL, expected == TW_OK);
    return cache;
}

tw_key make_key(const char *kind, int i) {
    tw_key key = {0};
    tw_str_add(&key.text, "%s/1 | M<=16,N=%d,K=4096,x=f32,w=u4,g=128 | %s", kind, i, test_device);
    tw_sha256_text(key.text.text, key.text.size, key.digest);
    return key;
}

tw_choice make_choice(int i) {
    tw_choice choice = {"cpu.int_gemm", 3, "", 1000.0 + i, 0.5 * i, 1e-7};
    snprintf(choice.config, sizeof choice.config, "mm4 mn64 bm%d", i);
    return choice;
}

bool same_choice(const tw_choice *a, const tw_choice *b) {
    return strcmp(a->kernel, b->kernel) == 0 && a->kernel_version == b->kernel_version &&
           strcmp(a->config, b->config) == 0 && a->median_ns == b->median_ns &&
           a->spread_ns == b->spread_ns && a->error == b->error;
}

/* Every third one failed. */
tw_cache_trial make_trial(int i) {
    tw_cache_trial trial = {"cpu.int_gemm", 3, "", i % 3 == 2, 0, 0, ""};
    snprintf(trial.config, sizeof trial.config, "mm4 mn64 bm%d", i);
    if (trial.failed)
        snprintf(trial.reason, sizeof trial.reason, "verify: row %d", i);
    else
        trial.median_ns = 500.0 + i, trial.spread_ns = i;
    return trial;
}

tw_status put_choice(tw_cache *cache, int i) {
    tw_key key = make_key("choice", i);
    tw_choice choice = make_choice(i);
    tw_status status = tw_cache_put_choice(cache, &key, test_device, &choice);
    tw_key_free(&key);
    return status;
}

bool get_choice(tw_cache *cache, int i) {
    tw_key key = make_key("choice", i);
    tw_choice choice, expected = make_choice(i);
    bool hit = tw_cache_get_choice(cache, &key, &choice);
    tw_key_free(&key);
    return hit && same_choice(&choice, &expected);
}

static uint8_t *make_bytes(int i, size_t size) {
    uint8_t *bytes = malloc(size ? size : 1);
    uint32_t x = (uint32_t)i + 1;
    for (size_t j = 0; bytes && j < size; j++)
        bytes[j] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    return bytes;
}

tw_status put_binary(tw_cache *cache, int i, size_t size) {
    tw_key key = make_key("binary", i);
    uint8_t *bytes = make_bytes(i, size);
    tw_status status =
        bytes ? tw_cache_put_binary(cache, &key, "cpu.int_gemm", 3, bytes, size) : TW_MEMORY;
    free(bytes);
    tw_key_free(&key);
    return status;
}

bool get_binary(tw_cache *cache, int i, size_t size) {
    tw_key key = make_key("binary", i);
    uint8_t *bytes = make_bytes(i, size);
    tw_str out = {0};
    tw_str_add(&out, "before");
    bool hit = tw_cache_get_binary(cache, &key, &out);
    /* A miss leaves what was there alone, a hit appends. */
    bool right = hit ? bytes && out.size == 6 + size && memcmp(out.text + 6, bytes, size) == 0
                     : out.size == 6;
    tw_key_free(&key);
    tw_str_free(&out);
    free(bytes);
    if (!right) print_error("binary %d: not what was stored\n", i);
    return hit && right;
}

tw_status put_trial(tw_cache *cache, int number, int i) {
    tw_key key = make_key("choice", number);
    tw_cache_trial trial = make_trial(i);
    tw_status status = tw_cache_put_trial(cache, &key, test_device, &trial);
    tw_key_free(&key);
    return status;
}

void fill_file(fixture *f, int rows) {
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < rows; i++) {
        assert_int_equal(put_choice(cache, i), TW_OK);
        assert_int_equal(put_binary(cache, i, 5000), TW_OK);
        assert_int_equal(put_trial(cache, i, 0), TW_OK);
    }
    tw_cache_close(cache);
}

typedef struct trial_count {
    int count;
    bool wrong;
} trial_count;

static void check_trial(void *user, const tw_cache_trial *trial) {
    trial_count *c = user;
    tw_cache_trial expected = make_trial(c->count++);
    if (strcmp(trial->kernel, expected.kernel) != 0 ||
        strcmp(trial->config, expected.config) != 0 ||
        strcmp(trial->reason, expected.reason) != 0 || trial->failed != expected.failed ||
        trial->kernel_version != expected.kernel_version ||
        trial->median_ns != expected.median_ns || trial->spread_ns != expected.spread_ns)
        c->wrong = true;
}

int count_trials(tw_cache *cache, int number) {
    tw_key key = make_key("choice", number);
    trial_count c = {0};
    size_t count = tw_cache_trials(cache, &key, check_trial, &c);
    tw_key_free(&key);
    return c.wrong || count != (size_t)c.count ? -1 : c.count;
}

static void print_defect(void *user, const char *sentence) {
    (void)user;
    print_message("defect: %s\n", sentence);
}

int64_t count_defects(tw_cache *cache) {
    int64_t defects = -1;
    return tw_cache_verify(cache, print_defect, NULL, &defects) == TW_OK ? defects : -1;
}

void sql(const char *path, const char *text) {
    sqlite3 *db;
    char *message = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, &message)) fail_msg("%s: %s", text, message);
    sqlite3_close(db);
}

const char *sql_text(const char *path, const char *query) {
    static char text[2048];
    sqlite3 *db;
    sqlite3_stmt *statement = NULL;
    text[0] = 0;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, query, -1, &statement, NULL), SQLITE_OK);
    if (sqlite3_step(statement) == SQLITE_ROW)
        snprintf(text, sizeof text, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return text;
}

static void add_file(tw_str *all, const char *path) {
    char block[4096];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    while (fd >= 0 && (n = read(fd, block, sizeof block)) > 0)
        tw_str_add_bytes(all, block, (size_t)n);
    if (fd >= 0) close(fd);
}

static void add_folder(tw_str *all, const char *folder) {
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat s;
        const char *name = entries[i]->d_name;
        snprintf(path, sizeof path, "%.1024s/%s", folder, name);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && lstat(path, &s) == 0) {
            tw_str_add(all, "%s %o\n", path, (unsigned)s.st_mode);
            if (S_ISDIR(s.st_mode)) add_folder(all, path);
            if (S_ISREG(s.st_mode)) add_file(all, path);
        }
        free(entries[i]);
    }
    free((void *)entries);
}

void folder_digest(const char *folder, char digest[TW_DIGEST_TEXT]) {
    tw_str all = {0};
    add_folder(&all, folder);
    assert_int_equal(tw_str_ok(&all), TW_OK);
    tw_sha256_text(tw_str_text(&all), all.size, digest);
    tw_str_free(&all);
}

void write_file(const char *path, const void *bytes, size_t size) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    assert_int_equal(close(fd), 0);
}

void overwrite(const char *path, long offset, const void *bytes, size_t size) {
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, offset), (ssize_t)size);
    assert_int_equal(close(fd), 0);
}

void overwrite_root(const char *path, const char *condition) {
    char junk[4096], query[256];
    snprintf(query, sizeof query, "SELECT rootpage FROM sqlite_schema WHERE %s", condition);
    long root = strtol(sql_text(path, query), NULL, 10);
    assert_true(root > 1);
    memset(junk, 0x5a, sizeof junk);
    overwrite(path, (root - 1) * (long)sizeof junk, junk, sizeof junk);
}

int run_child(int (*fn)(void *arg), void *arg, bool as_nobody) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (as_nobody && geteuid() == 0 && (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY)))
            _exit(2);
        _exit(fn(arg));
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
