/* stats, list, verify, prune. */
#include "tests/cache/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static tw_cache_counts stats(tw_cache *cache) {
    tw_cache_counts counts;
    assert_int_equal(tw_cache_stats(cache, &counts), TW_OK);
    return counts;
}

static void stats_count(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    tw_cache_counts c = stats(cache);
    assert_int_equal(c.devices + c.choices + c.undecided + c.trials + c.binaries, 0);
    assert_int_equal(c.schema, 1);
    assert_string_equal(c.oldest, "");
    assert_string_equal(c.newest, "");

    for (int i = 0; i < 3; i++) assert_int_equal(put_choice(cache, i), TW_OK);
    for (int i = 0; i < 6; i++) assert_int_equal(put_trial(cache, 5, i), TW_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(put_binary(cache, i, 100), TW_OK);
    sql(f->path, "UPDATE choice SET created = '2020-02-03T04:05:06Z' WHERE id = 2;"
                 "UPDATE binary SET created = '2999-12-31T23:59:59Z' WHERE id = 2;"
                 "UPDATE choice SET created = '1999-01-01T00:00:00Z' WHERE kernel IS NULL");
    c = stats(cache);
    assert_int_equal(c.devices, 1);
    assert_int_equal(c.choices, 3);
    assert_int_equal(c.undecided, 1);
    assert_int_equal(c.trials, 6);
    assert_int_equal(c.failed_trials, 2);
    assert_int_equal(c.binaries, 2);
    assert_int_equal(c.binary_bytes, 200);
    assert_string_equal(c.oldest, "2020-02-03T04:05:06Z");
    assert_string_equal(c.newest, "2999-12-31T23:59:59Z");
    assert_int_equal(c.free_bytes, 0);
    struct stat s, log;
    char name[PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s-wal", f->path);
    assert_int_equal(stat(f->path, &s), 0);
    assert_int_equal(stat(name, &log), 0);
    assert_int_equal(c.file_bytes, s.st_size + log.st_size);
    tw_cache_close(cache);
}

typedef struct seen {
    int count, stop_after;
    tw_cache_kind kind;
    char text[4096];
} seen;

static bool see(void *user, const tw_cache_row *row) {
    seen *s = user;
    size_t used = strlen(s->text);
    assert_int_equal(row->kind, s->kind);
    snprintf(s->text + used, sizeof s->text - used, "%.40s|%s|%s|%s|%s|%lld|%lld|%g|%g|%g\n",
             row->key, row->kernel, row->config, row->outcome, row->reason,
             (long long)row->kernel_version, (long long)row->bytes, row->median_ns, row->spread_ns,
             row->error);
    if (row->kind != TW_CACHE_DEVICES) {
        assert_int_equal(strlen(row->digest), 64);
        assert_string_equal(row->library, "0.1.0");
    }
    if (row->kind != TW_CACHE_BINARIES) assert_string_equal(row->device, test_device);
    assert_int_equal(strlen(row->created), 20);
    assert_int_equal(strlen(row->used),
                     row->kind == TW_CACHE_CHOICES || row->kind == TW_CACHE_BINARIES ? 10 : 0);
    return ++s->count != s->stop_after;
}

static void expect_rows(tw_cache *cache, tw_cache_kind kind, const char *text) {
    seen s = {.kind = kind};
    assert_int_equal(tw_cache_list(cache, kind, see, &s), TW_OK);
    assert_string_equal(s.text, text);
}

static void list_shows_rows(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 3; i > 0; i--) {
        assert_int_equal(put_choice(cache, i), TW_OK);
        assert_int_equal(put_trial(cache, 9, 3 - i), TW_OK);
        assert_int_equal(put_binary(cache, i, (size_t)i), TW_OK);
    }
    tw_cache_close(cache);
    cache = open_cache(f, TW_CACHE_READ, TW_OK);
    expect_rows(cache, TW_CACHE_DEVICES,
                "cpu;isa=avx2;model=Test;l1=32768;l2=5242|||||0|0|0|0|0\n");
    expect_rows(
        cache, TW_CACHE_CHOICES,
        "choice/1 | M<=16,N=1,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 bm1|||3|0|1001|0.5|1e-07\n"
        "choice/1 | M<=16,N=2,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 bm2|||3|0|1002|1|1e-07\n"
        "choice/1 | M<=16,N=3,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 "
        "bm3|||3|0|1003|1.5|1e-07\n");
    expect_rows(
        cache, TW_CACHE_TRIALS,
        "choice/1 | M<=16,N=9,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 bm0|ok||3|0|500|0|0\n"
        "choice/1 | M<=16,N=9,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 bm1|ok||3|0|501|1|0\n"
        "choice/1 | M<=16,N=9,K=4096,x=f32,w=u4,g|cpu.int_gemm|mm4 mn64 bm2|failed|"
        "verify: row 2|3|0|0|0|0\n");
    expect_rows(cache, TW_CACHE_BINARIES,
                "binary/1 | M<=16,N=1,K=4096,x=f32,w=u4,g|cpu.int_gemm||||3|1|0|0|0\n"
                "binary/1 | M<=16,N=2,K=4096,x=f32,w=u4,g|cpu.int_gemm||||3|2|0|0|0\n"
                "binary/1 | M<=16,N=3,K=4096,x=f32,w=u4,g|cpu.int_gemm||||3|3|0|0|0\n");
    seen s = {.kind = TW_CACHE_CHOICES, .stop_after = 2};
    assert_int_equal(tw_cache_list(cache, TW_CACHE_CHOICES, see, &s), TW_OK);
    assert_int_equal(s.count, 2);
    tw_cache_close(cache);
}

/* ---- verify ---- */

typedef struct defects {
    int64_t count;
    char text[4096];
} defects;

static void note(void *user, const char *sentence) {
    defects *d = user;
    size_t used = strlen(d->text);
    d->count++;
    snprintf(d->text + used, sizeof d->text - used, "%s\n", sentence);
}

static void good_file(fixture *f) {
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(put_choice(cache, i), TW_OK);
        assert_int_equal(put_binary(cache, i, 3000), TW_OK);
        assert_int_equal(put_trial(cache, i, 0), TW_OK);
    }
    tw_cache_close(cache);
}

/* The file has so many defects (-1: some), one of them with these words, and keeps them. */
static void expect_defects(fixture *f, int64_t count, const char *says) {
    defects d = {0};
    int64_t told = -1;
    char before[TW_DIGEST_TEXT], after[TW_DIGEST_TEXT];
    folder_digest(f->folder, before);
    tw_cache *cache = open_cache(f, TW_CACHE_READ, TW_OK);
    assert_int_equal(tw_cache_verify(cache, note, &d, &told), TW_OK);
    tw_cache_close(cache);
    folder_digest(f->folder, after);
    assert_string_equal(before, after);
    assert_int_equal(told, d.count);
    if (count < 0)
        assert_true(d.count > 0);
    else
        assert_int_equal(d.count, count);
    if (!strstr(d.text, says)) fail_msg("%s", d.text);
}

static void verify_finds_damage(void **state) {
    static const struct {
        const char *sql, *says;
        int64_t count;
    } damages[] = {
        {"UPDATE binary SET blob = zeroblob(3000) WHERE key LIKE '%N=7,%'",
         "the 3000 bytes do not match their digest", 1},
        {"UPDATE binary SET blob = zeroblob(9), sha256 = '' WHERE id IN (1, 2, 40)", "N=39,", 3},
        {"UPDATE binary SET key = replace(key, 'N=7,', 'N=8,') WHERE id = 8",
         "is not that of its key: binary/1 | M<=16,N=8,", 1},
        {"UPDATE choice SET key = key || ' ' WHERE id = 3", "is not that of its key: choice/1", 1},
        {"PRAGMA foreign_keys = OFF; DELETE FROM choice WHERE id = 4",
         "trial: row 4 refers to a missing row of choice", 1},
        {"PRAGMA foreign_keys = OFF; DELETE FROM device", "a missing row of device", 40},
        {"PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'trial_choice'",
         "database: ", -1},
    };
    fixture *f = *state;
    for (size_t i = 0; i < TW_COUNT(damages); i++) {
        snprintf(f->path, sizeof f->path, "%.300s/%zu.db", f->folder, i);
        good_file(f);
        expect_defects(f, 0, "");
        sql(f->path, damages[i].sql);
        expect_defects(f, damages[i].count, damages[i].says);
    }
}

/* Whole pages overwritten: verify says so instead of failing. */
static void verify_survives_bad_pages(void **state) {
    fixture *f = *state;
    good_file(f);
    overwrite_root(f->path, "name = 'binary'");
    expect_defects(f, -1, "binary: cannot be read: database disk image is malformed");
}

/* ---- prune ---- */

static tw_cache_pruned prune(tw_cache *cache, const tw_cache_prune_spec *spec) {
    tw_cache_pruned pruned;
    assert_int_equal(tw_cache_prune(cache, spec, &pruned), TW_OK);
    assert_int_equal(count_defects(cache), 0);
    return pruned;
}

static void expect_pruned(tw_cache_pruned p, int64_t choices, int64_t trials, int64_t binaries) {
    assert_int_equal(p.choices, choices);
    assert_int_equal(p.trials, trials);
    assert_int_equal(p.binaries, binaries);
}

static void prune_drops_the_unused(void **state) {
    fixture *f = *state;
    good_file(f);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    expect_pruned(prune(cache, &(tw_cache_prune_spec){0}), 0, 0, 0);
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.unused_days = 1}), 0, 0, 0);
    sql(f->path, "UPDATE choice SET used = date('now', '-10 days') WHERE id <= 5;"
                 "UPDATE choice SET used = date('now', '-30 days') WHERE id <= 2;"
                 "UPDATE binary SET used = date('now', '-20 days') WHERE id > 30");
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.unused_days = 40}), 0, 0, 0);
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.unused_days = 15}), 2, 2, 10);
    assert_false(get_choice(cache, 1));
    assert_false(get_binary(cache, 30, 3000));
    assert_true(get_binary(cache, 29, 3000));
    /* A hit saves a row. */
    assert_true(get_choice(cache, 2));
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.unused_days = 5}), 2, 2, 0);
    assert_true(get_choice(cache, 2));
    assert_int_equal(count_trials(cache, 2), 1);
    assert_false(get_choice(cache, 3));
    assert_int_equal(count_trials(cache, 3), 0);
    assert_true(get_choice(cache, 39));
    tw_cache_close(cache);
}

/* What the user pointer of prune names is the only kernel that there is. */
static bool is_current(void *user, const char *kernel, uint32_t version) {
    return strcmp(kernel, user) == 0 && version == 3;
}

static void prune_drops_other_kernels(void **state) {
    fixture *f = *state;
    char kernel[] = "cpu.int_gemm", gone[] = "cpu.gone";
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(put_choice(cache, i), TW_OK);
        assert_int_equal(put_trial(cache, i, 0), TW_OK);
        assert_int_equal(put_binary(cache, i, 100), TW_OK);
    }
    sql(f->path, "UPDATE choice SET kernel_version = 2 WHERE id = 1;"
                 "UPDATE choice SET kernel = 'cpu.other' WHERE id = 2;"
                 "UPDATE trial SET kernel_version = 4 WHERE id IN (2, 3);"
                 "UPDATE binary SET kernel_version = 4294967295 WHERE id = 4");
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.current = is_current, .user = kernel}), 2, 2,
                  1);
    /* 0 is undecided, with a measurement that still holds; 1 has nothing left; 2 lost one. */
    assert_false(get_choice(cache, 0));
    assert_int_equal(count_trials(cache, 0), 1);
    assert_int_equal(count_trials(cache, 1), 0);
    assert_true(get_choice(cache, 2));
    assert_int_equal(count_trials(cache, 2), 0);
    assert_true(get_choice(cache, 3));
    assert_int_equal(stats(cache).undecided, 1);
    assert_false(get_binary(cache, 3, 100));
    assert_int_equal(put_choice(cache, 0), TW_OK);
    assert_true(get_choice(cache, 0));

    expect_pruned(prune(cache, &(tw_cache_prune_spec){.current = is_current, .user = gone}), 3, 2,
                  3);
    tw_cache_counts c = stats(cache);
    assert_int_equal(c.devices + c.choices + c.undecided + c.trials + c.binaries, 0);
    tw_cache_close(cache);
}

static int64_t file_size(const fixture *f) {
    struct stat s;
    assert_int_equal(stat(f->path, &s), 0);
    return s.st_size;
}

static void prune_fits_a_size(void **state) {
    fixture *f = *state;
    good_file(f);
    sql(f->path, "UPDATE binary SET used = date('now', '-2 days') WHERE id <> 3");
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    int64_t whole = file_size(f);
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.max_bytes = whole}), 0, 0, 0);
    /* Binaries go first, the one of today last; the file shrinks to what was asked for. */
    tw_cache_pruned p = prune(cache, &(tw_cache_prune_spec){.max_bytes = whole / 2});
    assert_int_equal(p.choices + p.trials, 0);
    assert_in_range(p.binaries, 10, 38);
    assert_true(file_size(f) <= whole / 2);
    assert_int_equal(p.bytes, whole - file_size(f));
    assert_int_equal(stats(cache).free_bytes, 0);
    assert_true(get_binary(cache, 2, 3000));
    assert_true(get_binary(cache, 39, 3000));
    assert_false(get_binary(cache, 0, 3000));
    /* Less than the tables themselves take: nothing is left. */
    int64_t left = 40 - p.binaries;
    expect_pruned(prune(cache, &(tw_cache_prune_spec){.max_bytes = 1}), 40, 40, left);
    tw_cache_counts c = stats(cache);
    assert_int_equal(c.devices + c.choices + c.undecided + c.trials + c.binaries, 0);
    assert_true(file_size(f) < 64 << 10);
    assert_int_equal(put_choice(cache, 1), TW_OK);
    assert_true(get_choice(cache, 1));
    tw_cache_close(cache);
}

/* Trials go before choices: they are needed only while tuning. */
static void prune_keeps_choices_longest(void **state) {
    fixture *f = *state;
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(put_choice(cache, 0), TW_OK);
    for (int i = 0; i < 400; i++) assert_int_equal(put_trial(cache, 0, i), TW_OK);
    tw_cache_pruned p = prune(cache, &(tw_cache_prune_spec){.max_bytes = 60 << 10});
    expect_pruned(p, 0, 400, 0);
    assert_true(get_choice(cache, 0));
    tw_cache_close(cache);
}

static void prune_refuses(void **state) {
    fixture *f = *state;
    tw_cache_pruned p;
    good_file(f);
    tw_cache *cache = open_cache(f, TW_CACHE_WRITE, TW_OK);
    assert_int_equal(tw_cache_prune(cache, &(tw_cache_prune_spec){.unused_days = -1}, &p),
                     TW_INVALID);
    assert_int_equal(tw_cache_prune(cache, &(tw_cache_prune_spec){.max_bytes = -1}, &p),
                     TW_INVALID);
    tw_cache_close(cache);
    cache = open_cache(f, TW_CACHE_READ, TW_OK);
    assert_int_equal(tw_cache_prune(cache, &(tw_cache_prune_spec){.max_bytes = 1}, &p), TW_CACHE);
    assert_non_null(strstr(tw_error_message(), "read-only"));
    tw_cache_close(cache);
    assert_string_equal(sql_text(f->path, "SELECT count(*) FROM binary"), "40");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(stats_count),
        TEST(list_shows_rows),
        TEST(verify_finds_damage),
        TEST(verify_survives_bad_pages),
        TEST(prune_drops_the_unused),
        TEST(prune_drops_other_kernels),
        TEST(prune_fits_a_size),
        TEST(prune_keeps_choices_longest),
        TEST(prune_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
