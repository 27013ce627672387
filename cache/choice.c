/* Choices: one row a key. */
#include <string.h>

#include "cache/db.h"

/* Reads the row that the statement stands on; false when put could not have written it. */
static bool read_choice(sqlite3_stmt *row, tw_choice *out) {
    tw_choice choice = {0};
    sqlite3_int64 version = sqlite3_column_int64(row, 2);
    if (!tw_db_text(row, 1, choice.kernel, sizeof choice.kernel) || version < 0 ||
        version > UINT32_MAX || !tw_db_text(row, 3, choice.config, sizeof choice.config))
        return false;
    choice.kernel_version = (uint32_t)version;
    choice.median_ns = sqlite3_column_double(row, 4);
    choice.spread_ns = sqlite3_column_double(row, 5);
    choice.error = sqlite3_column_double(row, 6);
    *out = choice;
    return true;
}

bool tw_cache_get_choice(tw_cache *cache, const tw_key *key, tw_choice *out) {
    if (!tw_db_enter(cache)) return false;
    bool hit = false, first_today = false;
    sqlite3_stmt *get = tw_db_statement(cache, TW_SQL_GET_CHOICE);
    int rc = sqlite3_extended_errcode(cache->db);
    if (get) {
        tw_db_bind_text(get, 1, key->digest);
        rc = sqlite3_step(get);
        if (rc == SQLITE_ROW) {
            first_today = sqlite3_column_int(get, 0);
            hit = read_choice(get, out);
            if (!hit) tw_db_row_damaged(cache, "a choice is damaged", tw_str_text(&key->text));
        }
        sqlite3_reset(get);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) tw_db_read_failed(cache, rc);
    if (hit && first_today) tw_db_touch(cache, TW_SQL_TOUCH_CHOICE, key);
    tw_db_leave(cache);
    return hit;
}

tw_status tw_cache_put_choice(tw_cache *cache, const tw_key *key, const char *device,
                              const tw_choice *choice) {
    tw_status status;
    if (!tw_db_enter_write(cache, &status)) return status;
    int rc = tw_db_exec(cache, TW_SQL_BEGIN);
    if (rc == SQLITE_OK) rc = tw_db_put_device(cache, device);
    if (rc == SQLITE_OK) {
        sqlite3_stmt *put = tw_db_statement(cache, TW_SQL_PUT_CHOICE);
        tw_db_bind_key(put, key);
        tw_db_bind_text(put, 3, device);
        tw_db_bind_text(put, 4, tw_library_version);
        tw_db_bind_text(put, 5, choice->kernel);
        sqlite3_bind_int64(put, 6, choice->kernel_version);
        tw_db_bind_text(put, 7, choice->config);
        sqlite3_bind_double(put, 8, choice->median_ns);
        sqlite3_bind_double(put, 9, choice->spread_ns);
        sqlite3_bind_double(put, 10, choice->error);
        rc = tw_db_run(cache, put);
    }
    status = tw_db_written(cache, "a choice could not be stored", tw_db_end(cache, rc));
    tw_db_leave(cache);
    return status;
}
