/* What the `cache` commands show: counts, rows, defects. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/db.h"
#include "src/base/status.h"

static int64_t file_bytes(const tw_cache *cache) {
    static const char *const parts[] = {"", "-wal"};
    int64_t bytes = 0;
    for (size_t i = 0; i < TW_COUNT(parts); i++) {
        tw_str name = {0};
        struct stat s;
        tw_str_add(&name, "%s%s", tw_str_text(&cache->path), parts[i]);
        if (stat(tw_str_text(&name), &s) == 0) bytes += s.st_size;
        tw_str_free(&name);
    }
    return bytes;
}

static void read_counts(sqlite3_stmt *row, tw_cache_counts *out) {
    int64_t *const numbers[] = {&out->devices,      &out->choices,       &out->undecided,
                                &out->trials,       &out->failed_trials, &out->binaries,
                                &out->binary_bytes, &out->free_bytes};
    int column = 0;
    for (; column < (int)TW_COUNT(numbers); column++)
        *numbers[column] = sqlite3_column_int64(row, column);
    out->schema = sqlite3_column_int(row, column);
    tw_db_text(row, column + 1, out->oldest, sizeof out->oldest);
    tw_db_text(row, column + 2, out->newest, sizeof out->newest);
}

tw_status tw_cache_stats(tw_cache *cache, tw_cache_counts *out) {
    TW_TRY(tw_db_enter_admin(cache, false));
    tw_cache_counts counts = {0};
    sqlite3_stmt *statement = tw_db_statement(cache, TW_SQL_STATS);
    int rc = statement ? sqlite3_step(statement) : sqlite3_extended_errcode(cache->db);
    if (rc == SQLITE_ROW) {
        read_counts(statement, &counts);
        rc = SQLITE_OK;
    }
    sqlite3_reset(statement);
    tw_status status = tw_db_result(cache, "cannot be read", rc);
    counts.file_bytes = file_bytes(cache);
    if (status == TW_OK) *out = counts;
    tw_db_leave(cache);
    return status;
}

/* The columns of every LIST statement, see statements.def. */
static bool read_row(sqlite3_stmt *row, tw_cache_row *out) {
    const char **const texts[] = {&out->key,    &out->digest,  &out->device, &out->kernel,
                                  &out->config, &out->outcome, &out->reason, &out->created,
                                  &out->used,   &out->library};
    int column = 0;
    for (; column < (int)TW_COUNT(texts); column++) {
        *texts[column] = (const char *)sqlite3_column_text(row, column);
        if (!*texts[column]) return false;
    }
    out->kernel_version = sqlite3_column_int64(row, column);
    out->bytes = sqlite3_column_int64(row, column + 1);
    out->median_ns = sqlite3_column_double(row, column + 2);
    out->spread_ns = sqlite3_column_double(row, column + 3);
    out->error = sqlite3_column_double(row, column + 4);
    return true;
}

tw_status tw_cache_list(tw_cache *cache, tw_cache_kind kind,
                        bool (*each)(void *user, const tw_cache_row *row), void *user) {
    static const tw_sql lists[] = {
        [TW_CACHE_DEVICES] = TW_SQL_LIST_DEVICES,
        [TW_CACHE_CHOICES] = TW_SQL_LIST_CHOICES,
        [TW_CACHE_TRIALS] = TW_SQL_LIST_TRIALS,
        [TW_CACHE_BINARIES] = TW_SQL_LIST_BINARIES,
    };
    TW_TRY(tw_db_enter_admin(cache, false));
    tw_cache_row row = {.kind = kind};
    sqlite3_stmt *statement = tw_db_statement(cache, lists[kind]);
    int rc = statement ? SQLITE_OK : sqlite3_extended_errcode(cache->db);
    bool more = statement != NULL;
    while (more && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        rc = read_row(statement, &row) ? SQLITE_OK : SQLITE_CORRUPT;
        more = rc == SQLITE_OK && each(user, &row);
    }
    sqlite3_reset(statement);
    tw_status status = tw_db_result(cache, "cannot be read", rc == SQLITE_DONE ? SQLITE_OK : rc);
    tw_db_leave(cache);
    return status;
}

/* ---- verify ---- */

typedef struct verifier {
    tw_cache *cache;
    void (*problem)(void *user, const char *sentence);
    void *user;
    int64_t defects;
} verifier;

static void TW_PRINTF(2, 3) defect(verifier *v, const char *format, ...) {
    char sentence[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    v->defects++;
    v->problem(v->user, sentence);
}

/* Both tables begin with digest and key; `blob`: sha256 and blob follow. */
static void check_row(verifier *v, sqlite3_stmt *row, const char *table, bool blob) {
    char actual[TW_DIGEST_TEXT];
    const char *digest = (const char *)sqlite3_column_text(row, 0);
    const char *key = (const char *)sqlite3_column_text(row, 1);
    if (!digest || !key) {
        defect(v, "%s: a row without its key", table);
        return;
    }
    tw_sha256_text(key, strlen(key), actual);
    if (strcmp(actual, digest) != 0)
        defect(v, "%s: the digest %s is not that of its key: %s", table, digest, key);
    if (!blob) return;
    const char *sha256 = (const char *)sqlite3_column_text(row, 2);
    const void *bytes = sqlite3_column_blob(row, 3);
    size_t size = (size_t)sqlite3_column_bytes(row, 3);
    tw_sha256_text(bytes ? bytes : "", size, actual);
    if (!sha256 || strcmp(actual, sha256) != 0)
        defect(v, "%s: the %zu bytes do not match their digest %s: %s", table, size,
               sha256 ? sha256 : "", key);
}

static void check_table(verifier *v, tw_sql sql, const char *table, bool blob) {
    sqlite3_stmt *statement = tw_db_statement(v->cache, sql);
    int rc = statement ? SQLITE_OK : sqlite3_extended_errcode(v->cache->db);
    while (statement && (rc = sqlite3_step(statement)) == SQLITE_ROW)
        check_row(v, statement, table, blob);
    sqlite3_reset(statement);
    if (rc != SQLITE_DONE) defect(v, "%s: cannot be read: %s", table, sqlite3_errstr(rc));
}

/* A row of integrity_check is a sentence, "ok" when all is well. */
static void check_integrity(verifier *v) {
    sqlite3_stmt *statement = tw_db_statement(v->cache, TW_SQL_INTEGRITY);
    int rc = statement ? SQLITE_OK : sqlite3_extended_errcode(v->cache->db);
    while (statement && (rc = sqlite3_step(statement)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(statement, 0);
        if (!text || strcmp(text, "ok") != 0) defect(v, "database: %s", text ? text : "");
    }
    sqlite3_reset(statement);
    if (rc != SQLITE_DONE) defect(v, "database: cannot be read: %s", sqlite3_errstr(rc));
}

static void check_references(verifier *v) {
    sqlite3_stmt *statement = tw_db_statement(v->cache, TW_SQL_REFERENCES);
    int rc = statement ? SQLITE_OK : sqlite3_extended_errcode(v->cache->db);
    while (statement && (rc = sqlite3_step(statement)) == SQLITE_ROW)
        defect(v, "%s: row %lld refers to a missing row of %s", sqlite3_column_text(statement, 0),
               (long long)sqlite3_column_int64(statement, 1), sqlite3_column_text(statement, 2));
    sqlite3_reset(statement);
    if (rc != SQLITE_DONE) defect(v, "database: cannot be read: %s", sqlite3_errstr(rc));
}

tw_status tw_cache_verify(tw_cache *cache, void (*problem)(void *user, const char *sentence),
                          void *user, int64_t *defects) {
    verifier v = {cache, problem, user, 0};
    TW_TRY(tw_db_enter_admin(cache, false));
    check_table(&v, TW_SQL_VERIFY_CHOICES, "choice", false);
    check_table(&v, TW_SQL_VERIFY_BINARIES, "binary", true);
    check_integrity(&v);
    check_references(&v);
    tw_db_leave(cache);
    *defects = v.defects;
    return TW_OK;
}
