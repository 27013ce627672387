/* Binaries: machine code, which nobody gets to see unless its digest is right. */
#include <string.h>

#include "cache/db.h"

typedef enum found { FOUND_NONE, FOUND_GOOD, FOUND_DAMAGED } found;

/* Reads the row that the statement stands on; digest: what the row says of its blob. */
static found read_binary(sqlite3_stmt *row, tw_str *out, char digest[TW_DIGEST_TEXT]) {
    char actual[TW_DIGEST_TEXT];
    const void *blob = sqlite3_column_blob(row, 2);
    size_t size = (size_t)sqlite3_column_bytes(row, 2);
    if (!tw_db_text(row, 1, digest, TW_DIGEST_TEXT)) return FOUND_DAMAGED;
    /* An empty blob has no address. */
    tw_sha256_text(blob ? blob : "", size, actual);
    if (strcmp(digest, actual) != 0) return FOUND_DAMAGED;
    tw_str_add_bytes(out, blob, size);
    return FOUND_GOOD;
}

static void drop(tw_cache *cache, const tw_key *key, const char *digest) {
    sqlite3_stmt *statement = cache->writable ? tw_db_statement(cache, TW_SQL_DROP_BINARY) : NULL;
    if (!statement) return;
    tw_db_bind_text(statement, 1, key->digest);
    tw_db_bind_text(statement, 2, digest);
    tw_db_run(cache, statement);
}

bool tw_cache_get_binary(tw_cache *cache, const tw_key *key, tw_str *out) {
    if (!tw_db_enter(cache)) return false;
    found found = FOUND_NONE;
    bool first_today = false;
    char digest[TW_DIGEST_TEXT] = "";
    sqlite3_stmt *get = tw_db_statement(cache, TW_SQL_GET_BINARY);
    int rc = sqlite3_extended_errcode(cache->db);
    if (get) {
        tw_db_bind_text(get, 1, key->digest);
        rc = sqlite3_step(get);
        if (rc == SQLITE_ROW) {
            first_today = sqlite3_column_int(get, 0);
            found = read_binary(get, out, digest);
        }
        sqlite3_reset(get);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) tw_db_read_failed(cache, rc);
    if (found == FOUND_GOOD && first_today) tw_db_touch(cache, TW_SQL_TOUCH_BINARY, key);
    if (found == FOUND_DAMAGED) {
        tw_db_row_damaged(cache, "a binary does not match its digest", tw_str_text(&key->text));
        drop(cache, key, digest);
    }
    tw_db_leave(cache);
    return found == FOUND_GOOD && !out->failed;
}

tw_status tw_cache_put_binary(tw_cache *cache, const tw_key *key, const char *kernel,
                              uint32_t kernel_version, const void *data, size_t size) {
    tw_status status;
    char digest[TW_DIGEST_TEXT];
    if (!tw_db_enter_write(cache, &status)) return status;
    tw_sha256_text(data, size, digest);
    sqlite3_stmt *put = tw_db_statement(cache, TW_SQL_PUT_BINARY);
    tw_db_bind_key(put, key);
    tw_db_bind_text(put, 3, tw_library_version);
    tw_db_bind_text(put, 4, kernel);
    sqlite3_bind_int64(put, 5, kernel_version);
    tw_db_bind_text(put, 6, digest);
    sqlite3_bind_blob64(put, 7, data, size, SQLITE_STATIC);
    status = tw_db_written(cache, "a binary could not be stored", tw_db_run(cache, put));
    tw_db_leave(cache);
    return status;
}
