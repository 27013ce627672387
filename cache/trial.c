/* Trials: every measurement, each its own transaction, so that a tuner that is killed loses none
 * but the one it was making. */
#include <string.h>

#include "cache/db.h"

static bool read_trial(sqlite3_stmt *row, tw_cache_trial *out) {
    char outcome[8];
    sqlite3_int64 version = sqlite3_column_int64(row, 1);
    if (!tw_db_text(row, 0, out->kernel, sizeof out->kernel) || version < 0 ||
        version > UINT32_MAX || !tw_db_text(row, 2, out->config, sizeof out->config) ||
        !tw_db_text(row, 3, outcome, sizeof outcome) ||
        !tw_db_text(row, 6, out->reason, sizeof out->reason))
        return false;
    out->kernel_version = (uint32_t)version;
    out->failed = strcmp(outcome, "ok") != 0;
    out->median_ns = sqlite3_column_double(row, 4);
    out->spread_ns = sqlite3_column_double(row, 5);
    return true;
}

size_t tw_cache_trials(tw_cache *cache, const tw_key *key,
                       void (*each)(void *user, const tw_cache_trial *trial), void *user) {
    if (!tw_db_enter(cache)) return 0;
    size_t count = 0;
    tw_cache_trial trial;
    sqlite3_stmt *get = tw_db_statement(cache, TW_SQL_GET_TRIALS);
    int rc = sqlite3_extended_errcode(cache->db);
    if (get) {
        tw_db_bind_text(get, 1, key->digest);
        while ((rc = sqlite3_step(get)) == SQLITE_ROW)
            if (read_trial(get, &trial)) {
                each(user, &trial);
                count++;
            } else
                tw_db_row_damaged(cache, "a trial is damaged", tw_str_text(&key->text));
        sqlite3_reset(get);
    }
    if (rc != SQLITE_DONE) tw_db_read_failed(cache, rc);
    tw_db_leave(cache);
    return count;
}

/* Adds the trial to the key's row; *added is false when there is no such row. */
static int insert(tw_cache *cache, const tw_key *key, const tw_cache_trial *trial, bool *added) {
    sqlite3_stmt *put = tw_db_statement(cache, TW_SQL_PUT_TRIAL);
    tw_db_bind_text(put, 1, key->digest);
    tw_db_bind_text(put, 2, tw_library_version);
    tw_db_bind_text(put, 3, trial->kernel);
    sqlite3_bind_int64(put, 4, trial->kernel_version);
    tw_db_bind_text(put, 5, trial->config);
    tw_db_bind_text(put, 6, trial->failed ? "failed" : "ok");
    sqlite3_bind_double(put, 7, trial->median_ns);
    sqlite3_bind_double(put, 8, trial->spread_ns);
    tw_db_bind_text(put, 9, trial->reason);
    int rc = tw_db_run(cache, put);
    *added = rc == SQLITE_OK && sqlite3_changes(cache->db) > 0;
    return rc;
}

static int insert_undecided(tw_cache *cache, const tw_key *key, const char *device) {
    int rc = tw_db_put_device(cache, device);
    if (rc != SQLITE_OK) return rc;
    sqlite3_stmt *put = tw_db_statement(cache, TW_SQL_PUT_UNDECIDED);
    tw_db_bind_key(put, key);
    tw_db_bind_text(put, 3, device);
    tw_db_bind_text(put, 4, tw_library_version);
    return tw_db_run(cache, put);
}

tw_status tw_cache_put_trial(tw_cache *cache, const tw_key *key, const char *device,
                             const tw_cache_trial *trial) {
    tw_status status;
    bool added;
    if (!tw_db_enter_write(cache, &status)) return status;
    int rc = insert(cache, key, trial, &added);
    if (rc == SQLITE_OK && !added) {
        rc = tw_db_exec(cache, TW_SQL_BEGIN);
        if (rc == SQLITE_OK) rc = insert_undecided(cache, key, device);
        if (rc == SQLITE_OK) rc = insert(cache, key, trial, &added);
        rc = tw_db_end(cache, rc);
    }
    status = tw_db_written(cache, "a measurement could not be stored", rc);
    tw_db_leave(cache);
    return status;
}
