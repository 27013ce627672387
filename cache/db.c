/* Statements and errors: every call of SQLite that can fail ends in one of three places here, which
 * know whether this cache owes its user a warning or an error. */
#include "cache/db.h"

#include <stdio.h>
#include <string.h>

#include "src/base/status.h"

static const char *const sql_texts[TW_SQL_COUNT] = {
#define TW_SQL(name, text) text,
#include "cache/statements.def"
#undef TW_SQL
};

bool tw_db_enter(tw_cache *cache) {
    pthread_mutex_lock(&cache->mutex);
    if (cache->db && !cache->broken) return true;
    pthread_mutex_unlock(&cache->mutex);
    return false;
}

bool tw_db_enter_write(tw_cache *cache, tw_status *status) {
    *status = TW_OK;
    if (!*tw_str_text(&cache->path)) return false;
    bool entered = tw_db_enter(cache);
    if (entered && cache->writable) return true;
    if (entered) tw_db_leave(cache);
    /* With TW_CACHE_USE a warning has said it already. */
    if (cache->access != TW_CACHE_USE)
        *status = tw_fail(TW_CACHE, "cache: %s: %s, nothing can be stored",
                          tw_str_text(&cache->path), entered ? "read-only" : "could not be read");
    return false;
}

tw_status tw_db_enter_admin(tw_cache *cache, bool write) {
    if (!*tw_str_text(&cache->path)) return tw_fail(TW_CACHE, "cache: no file is in use");
    if (!tw_db_enter(cache))
        return tw_fail(TW_CACHE, "cache: %s: bypassed, it could not be read",
                       tw_str_text(&cache->path));
    if (!write || cache->writable) return TW_OK;
    tw_db_leave(cache);
    return tw_fail(TW_CACHE, "cache: %s: read-only, nothing in it can change",
                   tw_str_text(&cache->path));
}

void tw_db_leave(tw_cache *cache) { pthread_mutex_unlock(&cache->mutex); }

sqlite3_stmt *tw_db_statement(tw_cache *cache, tw_sql sql) {
    sqlite3_stmt **slot = &cache->statements[sql];
    /* Prepared on first use: opening must not pay for statements that never run. */
    if (!*slot &&
        sqlite3_prepare_v3(cache->db, sql_texts[sql], -1, SQLITE_PREPARE_PERSISTENT, slot, NULL))
        return NULL;
    sqlite3_reset(*slot);
    sqlite3_clear_bindings(*slot);
    return *slot;
}

void tw_db_bind_text(sqlite3_stmt *statement, int index, const char *text) {
    sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

void tw_db_bind_key(sqlite3_stmt *statement, const tw_key *key) {
    tw_db_bind_text(statement, 1, key->digest);
    tw_db_bind_text(statement, 2, tw_str_text(&key->text));
}

int tw_db_run(tw_cache *cache, sqlite3_stmt *statement) {
    if (!statement) return sqlite3_extended_errcode(cache->db);
    int rc;
    do rc = sqlite3_step(statement);
    while (rc == SQLITE_ROW);
    sqlite3_reset(statement);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int tw_db_exec(tw_cache *cache, tw_sql sql) {
    return tw_db_run(cache, tw_db_statement(cache, sql));
}

int tw_db_int(tw_cache *cache, tw_sql sql, int64_t *out) {
    sqlite3_stmt *statement = tw_db_statement(cache, sql);
    if (!statement) return sqlite3_extended_errcode(cache->db);
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW) *out = sqlite3_column_int64(statement, 0);
    sqlite3_reset(statement);
    if (rc == SQLITE_DONE) return SQLITE_CORRUPT; /* all of these give a row */
    return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

int tw_db_put_device(tw_cache *cache, const char *device) {
    sqlite3_stmt *statement = tw_db_statement(cache, TW_SQL_PUT_DEVICE);
    tw_db_bind_text(statement, 1, device);
    return tw_db_run(cache, statement);
}

int tw_db_end(tw_cache *cache, int rc) {
    if (rc == SQLITE_OK) rc = tw_db_exec(cache, TW_SQL_COMMIT);
    /* SQLite itself rolls back after some errors, a full disk among them. */
    if (rc != SQLITE_OK && !sqlite3_get_autocommit(cache->db)) tw_db_exec(cache, TW_SQL_ROLLBACK);
    return rc;
}

/* "disk I/O error (File too large)": SQLite's words, and the system's where it had any. */
static void describe(tw_cache *cache, int rc, char *out, size_t size) {
    int primary = rc & 0xff;
    int system = primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN || primary == SQLITE_FULL
                     ? sqlite3_system_errno(cache->db)
                     : 0;
    snprintf(out, size, "%s%s%s%s", sqlite3_errstr(rc), system ? " (" : "",
             system ? strerror(system) : "", system ? ")" : "");
}

void tw_db_read_failed(tw_cache *cache, int rc) {
    char why[256];
    int primary = rc & 0xff;
    bool passing = primary == SQLITE_BUSY || primary == SQLITE_LOCKED || primary == SQLITE_NOMEM;
    const char *hence = passing                           ? "counts as a miss"
                        : cache->access == TW_CACHE_WRITE ? "nothing can be stored"
                                                          : "going on without it";
    describe(cache, rc, why, sizeof why);
    if (!cache->warned_read)
        tw_log_line(&cache->log, TW_LOG_WARN, "cache: %s: read failed: %s; %s",
                    tw_str_text(&cache->path), why, hence);
    cache->warned_read = true;
    cache->broken = cache->broken || !passing;
}

void tw_db_row_damaged(tw_cache *cache, const char *what, const char *key) {
    if (!cache->warned_damage)
        tw_log_line(&cache->log, TW_LOG_WARN,
                    "cache: %s: %s, counts as a miss (`tilewright cache verify` lists all): %s",
                    tw_str_text(&cache->path), what, key);
    cache->warned_damage = true;
}

/* Once somebody holds the file for long, each write would wait as long again. */
static void set_patience(tw_cache *cache, int rc) {
    bool busy = (rc & 0xff) == SQLITE_BUSY;
    if (!cache->db || cache->access != TW_CACHE_USE || (rc != SQLITE_OK && !busy)) return;
    cache->busy_ms = busy ? TW_BUSY_AGAIN_MS : TW_BUSY_USE_MS;
    sqlite3_busy_timeout(cache->db, cache->busy_ms);
}

tw_status tw_db_written(tw_cache *cache, const char *what, int rc) {
    set_patience(cache, rc);
    if (rc == SQLITE_OK) return TW_OK;
    /* A file that is known to be damaged is left as it is. */
    cache->broken = (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
    if (cache->access != TW_CACHE_USE) return tw_db_result(cache, what, rc);
    char why[256];
    describe(cache, rc, why, sizeof why);
    if (!cache->warned_write)
        tw_log_line(&cache->log, TW_LOG_WARN, "cache: %s: %s: %s; going on without",
                    tw_str_text(&cache->path), what, why);
    cache->warned_write = true;
    return TW_OK;
}

tw_status tw_db_result(tw_cache *cache, const char *what, int rc) {
    if (rc == SQLITE_OK) return TW_OK;
    char why[256];
    describe(cache, rc, why, sizeof why);
    return tw_fail(TW_CACHE, "cache: %s: %s: %s", tw_str_text(&cache->path), what, why);
}

bool tw_db_text(sqlite3_stmt *statement, int column, char *out, size_t size) {
    const unsigned char *text = sqlite3_column_text(statement, column);
    size_t length = (size_t)sqlite3_column_bytes(statement, column);
    if (!text || length >= size) return false;
    memcpy(out, text, length + 1);
    return true;
}

void tw_db_touch(tw_cache *cache, tw_sql sql, const tw_key *key) {
    sqlite3_stmt *statement = cache->writable ? tw_db_statement(cache, sql) : NULL;
    if (!statement) return;
    tw_db_bind_text(statement, 1, key->digest);
    /* Only the order in which prune works depends on it: not worth waiting or a warning. */
    sqlite3_busy_timeout(cache->db, 0);
    tw_db_run(cache, statement);
    sqlite3_busy_timeout(cache->db, cache->busy_ms);
}
