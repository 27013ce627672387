/* What the files of this folder share: the connection, its prepared statements, how errors end. */
#ifndef TW_CACHE_DB_H
#define TW_CACHE_DB_H

#include <pthread.h>
#include <sqlite3.h>

#include "cache/cache.h"

/* "This file is one of ours" (PRAGMA application_id): "TWch". */
enum { TW_APPLICATION_ID = 0x54576368, TW_SCHEMA_VERSION = 1 };

/* How long to wait for another process's write; ours take well under a millisecond each.  Who
 * exists to write; a layer, which has other things to do; the same once it waited in vain. */
enum { TW_BUSY_MS = 5000, TW_BUSY_USE_MS = 500, TW_BUSY_AGAIN_MS = 20 };

/* The tables, with comments that the sqlite3 shell's .schema shows. */
extern const char tw_schema_sql[];
/* "0.1.0": what rows name as their maker. */
extern const char tw_library_version[];

typedef enum tw_sql {
#define TW_SQL(name, text) TW_SQL_##name,
#include "cache/statements.def"
#undef TW_SQL
    TW_SQL_COUNT
} tw_sql;

struct tw_cache {
    pthread_mutex_t mutex;
    sqlite3 *db; /* NULL: no file, or bypassed since open */
    tw_cache_access access;
    bool writable;
    int busy_ms;                                   /* how long this one waits now */
    bool broken;                                   /* a read failed: bypassed from then on */
    bool warned_read, warned_write, warned_damage; /* each of these is said once */
    tw_logger log;
    tw_str path, problem;
    sqlite3_stmt *statements[TW_SQL_COUNT];
};

/* ---- path.c ---- */

/* The absolute path, free of symbolic links, of the file that `path` means; its folder exists,
 * made if need be and `create` says so.  *exists: the file does as well, and is a file. Errors:
 * CACHE; also when somebody else could have written the file. */
tw_status tw_cache_resolve(const char *path, bool create, tw_str *out, bool *exists);

/* ---- open.c ---- */

/* Opens cache->path and leaves db, writable set; on failure db is NULL.  existed: there was a
 * file. */
tw_status tw_db_open(tw_cache *cache, bool existed);
/* As it stands, for reading, without a lock and without a file made beside it. */
tw_status tw_db_open_fixed(tw_cache *cache);

/* A tw_cache without a file; NULL: the error MEMORY. */
tw_cache *tw_cache_create(tw_cache_access access, const tw_logger *log);
/* Notes what is wrong with the file, the latest error, and warns; the file is bypassed. */
tw_status tw_cache_bypass(tw_cache *cache);

/* ---- db.c: all of these with the mutex held ---- */

/* Locks; false, and unlocked again, when there is nothing to read. */
bool tw_db_enter(tw_cache *cache);
/* As enter, for writes; *status is what to return when false. */
bool tw_db_enter_write(tw_cache *cache, tw_status *status);
/* As enter, for administration, where a missing file is an error. */
tw_status tw_db_enter_admin(tw_cache *cache, bool write);
void tw_db_leave(tw_cache *cache);

/* The statement, ready to be bound; NULL when it cannot be prepared.  Binding is not checked: a
 * value that could not be bound is NULL, which no column takes and no look-up finds. */
sqlite3_stmt *tw_db_statement(tw_cache *cache, tw_sql sql);
void tw_db_bind_text(sqlite3_stmt *statement, int index, const char *text);
/* Arguments 1 and 2: the key's digest and text. */
void tw_db_bind_key(sqlite3_stmt *statement, const tw_key *key);
/* Runs a statement that gives no rows; NULL is allowed.  Returns an SQLite result code. */
int tw_db_run(tw_cache *cache, sqlite3_stmt *statement);
/* A statement without arguments. */
int tw_db_exec(tw_cache *cache, tw_sql sql);
/* The first column of the first row. */
int tw_db_int(tw_cache *cache, tw_sql sql, int64_t *out);
/* Makes sure that the device has a row. */
int tw_db_put_device(tw_cache *cache, const char *device);
/* COMMIT when rc is SQLITE_OK, else ROLLBACK; returns what went wrong first. */
int tw_db_end(tw_cache *cache, int rc);

/* Ends a look-up that could not be read: the log says so once, and unless the file was only busy it
 * is bypassed from now on. */
void tw_db_read_failed(tw_cache *cache, int rc);
/* A row that makes no sense: the log says so once. */
void tw_db_row_damaged(tw_cache *cache, const char *what, const char *key);
/* Ends a write: TW_OK for SQLITE_OK, else as the access says. */
tw_status tw_db_written(tw_cache *cache, const char *what, int rc);
/* Ends administration: TW_OK for SQLITE_OK, else TW_CACHE. */
tw_status tw_db_result(tw_cache *cache, const char *what, int rc);

/* Copies a column's text; false when it is NULL or does not fit. */
bool tw_db_text(sqlite3_stmt *statement, int column, char *out, size_t size);
/* The key's row was hit for the first time today: notes that, without ever waiting for others. */
void tw_db_touch(tw_cache *cache, tw_sql sql, const tw_key *key);

#endif
