/* Dropping what is unused, of kernels that are gone, or too much; then the file shrinks. */
#include <sys/stat.h>

#include "cache/db.h"
#include "src/base/status.h"

typedef struct rows {
    int64_t choices, trials, binaries;
} rows;

static int count_rows(tw_cache *cache, rows *out) {
    sqlite3_stmt *statement = tw_db_statement(cache, TW_SQL_ROW_COUNTS);
    int rc = statement ? sqlite3_step(statement) : sqlite3_extended_errcode(cache->db);
    if (rc == SQLITE_ROW) {
        *out = (rows){sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
                      sqlite3_column_int64(statement, 2)};
        rc = SQLITE_OK;
    }
    sqlite3_reset(statement);
    return rc;
}

/* current(kernel, version) within SQL. */
static void call_current(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count;
    const tw_cache_prune_spec *spec = sqlite3_user_data(context);
    const char *kernel = (const char *)sqlite3_value_text(values[0]);
    sqlite3_int64 version = sqlite3_value_int64(values[1]);
    bool known = kernel && version >= 0 && version <= UINT32_MAX;
    sqlite3_result_int(context, known && spec->current(spec->user, kernel, (uint32_t)version));
}

static int drop_stale(tw_cache *cache, const tw_cache_prune_spec *spec) {
    static const tw_sql steps[] = {TW_SQL_PRUNE_STALE_BINARIES, TW_SQL_PRUNE_STALE_TRIALS,
                                   TW_SQL_PRUNE_STALE_CHOICES};
    int rc = sqlite3_create_function(cache->db, "current", 2, SQLITE_UTF8, (void *)spec,
                                     call_current, NULL, NULL);
    for (size_t i = 0; i < TW_COUNT(steps) && rc == SQLITE_OK; i++)
        rc = tw_db_exec(cache, steps[i]);
    return rc;
}

static int drop_unused(tw_cache *cache, int64_t days) {
    static const tw_sql steps[] = {TW_SQL_PRUNE_OLD_BINARIES, TW_SQL_PRUNE_OLD_CHOICES};
    int rc = SQLITE_OK;
    for (size_t i = 0; i < TW_COUNT(steps) && rc == SQLITE_OK; i++) {
        sqlite3_stmt *statement = tw_db_statement(cache, steps[i]);
        sqlite3_bind_int64(statement, 1, days);
        rc = tw_db_run(cache, statement);
    }
    return rc;
}

/* Runs `drop` on the ids that `oldest` lists, one by one, until the rows fit. */
static int drop_oldest(tw_cache *cache, int64_t max_bytes, tw_sql oldest, tw_sql drop) {
    int64_t bytes;
    int rc = tw_db_int(cache, TW_SQL_USED_BYTES, &bytes);
    if (rc != SQLITE_OK || bytes <= max_bytes) return rc;
    sqlite3_stmt *list = tw_db_statement(cache, oldest);
    if (!list) return sqlite3_extended_errcode(cache->db);
    while (bytes > max_bytes && (rc = sqlite3_step(list)) == SQLITE_ROW) {
        sqlite3_stmt *statement = tw_db_statement(cache, drop);
        sqlite3_bind_int64(statement, 1, sqlite3_column_int64(list, 0));
        rc = tw_db_run(cache, statement);
        if (rc == SQLITE_OK) rc = tw_db_int(cache, TW_SQL_USED_BYTES, &bytes);
        if (rc != SQLITE_OK) break;
    }
    sqlite3_reset(list);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* A binary costs milliseconds to make again, a trial a measurement, a choice a whole tuning. */
static int drop_to_size(tw_cache *cache, int64_t max_bytes) {
    static const struct {
        tw_sql oldest, drop;
    } steps[] = {{TW_SQL_OLDEST_BINARIES, TW_SQL_DROP_BINARY_ID},
                 {TW_SQL_OLDEST_CHOICES, TW_SQL_DROP_TRIALS_OF},
                 {TW_SQL_OLDEST_CHOICES, TW_SQL_DROP_CHOICE_ID}};
    int rc = SQLITE_OK;
    for (size_t i = 0; i < TW_COUNT(steps) && rc == SQLITE_OK; i++)
        rc = drop_oldest(cache, max_bytes, steps[i].oldest, steps[i].drop);
    return rc;
}

static int drop_all(tw_cache *cache, const tw_cache_prune_spec *spec) {
    int rc = SQLITE_OK;
    if (spec->current) rc = drop_stale(cache, spec);
    if (rc == SQLITE_OK && spec->unused_days > 0) rc = drop_unused(cache, spec->unused_days);
    if (rc == SQLITE_OK && spec->max_bytes > 0) rc = drop_to_size(cache, spec->max_bytes);
    /* What the steps left without a purpose. */
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_PRUNE_EMPTY_CHOICES);
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_PRUNE_DEVICES);
    return rc;
}

static int64_t file_bytes(const tw_cache *cache) {
    struct stat s;
    return stat(tw_str_text(&cache->path), &s) == 0 ? s.st_size : 0;
}

tw_status tw_cache_prune(tw_cache *cache, const tw_cache_prune_spec *spec, tw_cache_pruned *out) {
    rows before = {0}, after = {0};
    if (spec->unused_days < 0 || spec->max_bytes < 0)
        return tw_fail(TW_INVALID, "%s: %lld, must not be negative",
                       spec->unused_days < 0 ? "unused_days" : "max_bytes",
                       (long long)(spec->unused_days < 0 ? spec->unused_days : spec->max_bytes));
    TW_TRY(tw_db_enter_admin(cache, true));
    /* All that is in the WAL goes into the file, whose size is then what will shrink. */
    int rc = tw_db_exec(cache, TW_SQL_CHECKPOINT);
    int64_t bytes = file_bytes(cache);
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_BEGIN);
    if (rc == SQLITE_OK) rc = count_rows(cache, &before);
    if (rc == SQLITE_OK) rc = drop_all(cache, spec);
    if (rc == SQLITE_OK) rc = count_rows(cache, &after);
    rc = tw_db_end(cache, rc);
    /* spec is gone when this function returns. */
    if (spec->current)
        sqlite3_create_function(cache->db, "current", 2, SQLITE_UTF8, NULL, NULL, NULL, NULL);
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_RELEASE_PAGES);
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_CHECKPOINT);
    tw_status status = tw_db_result(cache, "could not be pruned", rc);
    if (status == TW_OK)
        *out = (tw_cache_pruned){before.choices - after.choices, before.trials - after.trials,
                                 before.binaries - after.binaries,
                                 tw_max(bytes - file_bytes(cache), 0)};
    tw_db_leave(cache);
    return status;
}
