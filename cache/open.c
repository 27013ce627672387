/* Opening: quick for a good file (no schema work), careful with any other (looked at before SQLite
 * may touch it, since SQLite would recover and checkpoint a stranger's file too). */
#include "cache/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "src/base/clock.h"
#include "src/base/status.h"

/* https://www.sqlite.org/fileformat.html, section 1.3 */
enum { HEADER_BYTES = 100, WRITE_VERSION = 18, USER_VERSION = 60, APPLICATION_ID = 68, WAL = 2 };
enum { FILE_MODE = 0600 };

static tw_status refuse(tw_cache *cache, const char *why) {
    return tw_fail(TW_CACHE, "cache: %s: %s", tw_str_text(&cache->path), why);
}

static uint32_t big_endian(const uint8_t *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Reads the header through SQLite's own handle: closing a second descriptor of the file would drop
 * the locks of every connection that this process has to it (POSIX). */
static tw_status look(tw_cache *cache, bool *empty, bool *wal) {
    uint8_t header[HEADER_BYTES];
    sqlite3_file *file = NULL;
    sqlite3_int64 size = 0;
    *empty = *wal = false;
    int rc = sqlite3_file_control(cache->db, "main", SQLITE_FCNTL_FILE_POINTER, (void *)&file);
    if (rc == SQLITE_OK) rc = file->pMethods->xFileSize(file, &size);
    if (rc != SQLITE_OK) return tw_db_result(cache, "cannot be read", rc);
    if (size == 0) {
        *empty = true;
        return TW_OK;
    }
    if (size < HEADER_BYTES) return refuse(cache, "is not an SQLite file");
    rc = file->pMethods->xRead(file, header, sizeof header, 0);
    if (rc != SQLITE_OK) return tw_db_result(cache, "cannot be read", rc);
    if (memcmp(header, "SQLite format 3", 16) != 0) return refuse(cache, "is not an SQLite file");
    if (big_endian(header + APPLICATION_ID) != TW_APPLICATION_ID)
        return refuse(cache, "is an SQLite file, but no cache of Tilewright's");
    uint32_t version = big_endian(header + USER_VERSION);
    if (version > TW_SCHEMA_VERSION)
        return tw_fail(TW_CACHE,
                       "cache: %s: schema %u, but Tilewright %s knows up to %d: written by a newer "
                       "version",
                       tw_str_text(&cache->path), version, tw_library_version, TW_SCHEMA_VERSION);
    if (version == 0) return refuse(cache, "is damaged: schema 0");
    *wal = header[WRITE_VERSION] == WAL;
    return TW_OK;
}

/* Makes the tables, unless another process was faster: all in one transaction, since whatever is
 * killed here must leave a file that is empty or good.  Not in WAL mode yet, so that the header
 * that look() trusts is in the file itself from the first commit on. */
static int create(tw_cache *cache) {
    char setup[96];
    int64_t version = 0;
    /* auto_vacuum lets prune give pages back without a second copy of the file.  It has to come
     * before the first page, which BEGIN IMMEDIATE would make; as a write it locks all the same. */
    int rc = sqlite3_exec(cache->db, "BEGIN; PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
    if (rc == SQLITE_OK) rc = tw_db_int(cache, TW_SQL_SCHEMA_VERSION, &version);
    if (rc == SQLITE_OK && version == 0) {
        snprintf(setup, sizeof setup, "PRAGMA application_id = %d; PRAGMA user_version = %d;",
                 TW_APPLICATION_ID, TW_SCHEMA_VERSION);
        rc = sqlite3_exec(cache->db, tw_schema_sql, NULL, NULL, NULL);
        if (rc == SQLITE_OK) rc = sqlite3_exec(cache->db, setup, NULL, NULL, NULL);
    }
    return tw_db_end(cache, rc);
}

/* Switching needs the file to itself for a moment, and SQLite reports busy without waiting. */
static int switch_to_wal(tw_cache *cache) {
    int64_t deadline = tw_now_ns() + TW_BUSY_MS * INT64_C(1000000);
    for (;;) {
        /* A file system that cannot do WAL keeps its rollback journal: slower, just as safe. */
        int rc = sqlite3_exec(cache->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
        if ((rc & 0xff) != SQLITE_BUSY || tw_now_ns() > deadline) return rc;
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

static void close_db(tw_cache *cache) {
    for (int i = 0; i < TW_SQL_COUNT; i++) sqlite3_finalize(cache->statements[i]);
    memset((void *)cache->statements, 0, sizeof cache->statements);
    sqlite3_close(cache->db);
    cache->db = NULL;
}

/* A connection and nothing else: SQLite reads nothing before the first statement. */
static tw_status connect(tw_cache *cache, const char *name, int flags) {
    flags |= SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
    int rc = sqlite3_open_v2(name, &cache->db, flags, NULL);
    if (!cache->db) return tw_fail(TW_MEMORY, "out of memory while opening the cache");
    if (rc != SQLITE_OK) {
        tw_status status = tw_db_result(cache, "cannot be opened", rc);
        close_db(cache);
        return status;
    }
    sqlite3_extended_result_codes(cache->db, 1);
    cache->busy_ms = cache->access == TW_CACHE_USE ? TW_BUSY_USE_MS : TW_BUSY_MS;
    sqlite3_busy_timeout(cache->db, cache->busy_ms);
    sqlite3_db_config(cache->db, SQLITE_DBCONFIG_ENABLE_FKEY, 1, NULL);
    cache->writable = cache->access != TW_CACHE_READ && !sqlite3_db_readonly(cache->db, "main");
    return TW_OK;
}

/* The first statement opens the WAL and its index: where a file fails that cannot be used. */
static tw_status start(tw_cache *cache, bool empty, bool wal, int *rc) {
    int64_t version = 0;
    *rc = SQLITE_OK;
    /* 0 for a file whose creation was cut off: SQLite has just taken back what there was of it. */
    if (!empty) *rc = tw_db_int(cache, TW_SQL_SCHEMA_VERSION, &version);
    if (*rc == SQLITE_OK && version == 0) {
        if (cache->access == TW_CACHE_READ)
            return refuse(cache, "is empty: nothing was stored yet");
        if (!cache->writable) return refuse(cache, "is empty and cannot be written");
        *rc = create(cache);
    }
    if (*rc == SQLITE_OK && !wal && cache->writable) *rc = switch_to_wal(cache);
    /* Enough for WAL: a power cut may lose the latest rows, never the file. */
    if (*rc == SQLITE_OK && cache->writable)
        *rc = sqlite3_exec(cache->db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
    return tw_db_result(cache, "cannot be used", *rc);
}

/* Size of the write-ahead log, -1 when there is none. */
static int64_t log_bytes(const tw_cache *cache) {
    tw_str name = {0};
    struct stat s;
    tw_str_add(&name, "%s-wal", tw_str_text(&cache->path));
    int64_t bytes = stat(tw_str_text(&name), &s) == 0 ? s.st_size : -1;
    tw_str_free(&name);
    return bytes;
}

/* For a good file that cannot have a WAL: read as it stands, unlocked. */
static tw_status open_immutable(tw_cache *cache) {
    tw_str name = {0};
    if (log_bytes(cache) > 0) return refuse(cache, "has a log that cannot be recovered here");
    tw_str_add(&name, "file:");
    for (const char *p = tw_str_text(&cache->path); *p; p++)
        tw_str_add(&name, strchr("%?#", *p) ? "%%%02X" : "%c", (unsigned char)*p);
    tw_str_add(&name, "?immutable=1");
    tw_status status = tw_str_ok(&name);
    if (status == TW_OK) status = connect(cache, name.text, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
    tw_str_free(&name);
    return status;
}

/* Whether an error may be one of the file's surroundings rather than of the file. */
static bool surroundings(int rc) {
    int primary = rc & 0xff;
    return primary == SQLITE_CANTOPEN || primary == SQLITE_READONLY || primary == SQLITE_IOERR ||
           primary == SQLITE_FULL;
}

tw_status tw_db_open(tw_cache *cache, bool existed) {
    bool empty, wal;
    int rc = SQLITE_OK;
    const char *path = tw_str_text(&cache->path);
    /* For TW_CACHE_READ as well: a connection that may only read leaves -wal and -shm behind. */
    int create_flag = cache->access == TW_CACHE_READ ? 0 : SQLITE_OPEN_CREATE;
    TW_TRY(connect(cache, path, SQLITE_OPEN_READWRITE | create_flag));
    /* SQLite made it 0644; what it makes beside it later follows the file's mode. */
    if (!existed && chmod(path, FILE_MODE))
        return close_db(cache), refuse(cache, "its mode cannot be set");
    tw_status status = look(cache, &empty, &wal);
    /* A read-only file would get a read-only -wal, which stays, and stays in the way for ever. */
    bool fixed = !empty && sqlite3_db_readonly(cache->db, "main") && log_bytes(cache) < 0;
    if (status == TW_OK && !fixed) status = start(cache, empty, wal, &rc);
    if (!empty && cache->access != TW_CACHE_WRITE && (status == TW_OK ? fixed : surroundings(rc))) {
        close_db(cache);
        status = open_immutable(cache);
        if (status == TW_OK) status = start(cache, false, true, &rc);
    }
    if (status != TW_OK) close_db(cache);
    return status;
}

tw_status tw_db_open_fixed(tw_cache *cache) {
    bool empty, wal;
    int rc;
    TW_TRY(open_immutable(cache));
    tw_status status = look(cache, &empty, &wal);
    if (status == TW_OK)
        status = empty ? refuse(cache, "is empty") : start(cache, false, true, &rc);
    if (status != TW_OK) close_db(cache);
    return status;
}

tw_status tw_cache_bypass(tw_cache *cache) {
    tw_str_add(&cache->problem, "%s", tw_error_message());
    tw_log_line(&cache->log, TW_LOG_WARN, "%s; going on without it", tw_str_text(&cache->problem));
    return tw_str_ok(&cache->problem);
}

/* A missing or unusable file is settled here for good: one warning, or the error. */
static tw_status settle(tw_cache *cache, tw_status status) {
    if (status == TW_MEMORY) return status;
    if (status != TW_OK) return cache->access == TW_CACHE_USE ? tw_cache_bypass(cache) : status;
    if (cache->writable || cache->access == TW_CACHE_READ || !cache->db) return TW_OK;
    if (cache->access == TW_CACHE_WRITE) return refuse(cache, "is read-only");
    tw_str_add(&cache->problem, "cache: %s: is read-only", tw_str_text(&cache->path));
    tw_log_line(&cache->log, TW_LOG_WARN, "%s; nothing new will be kept",
                tw_str_text(&cache->problem));
    return tw_str_ok(&cache->problem);
}

tw_cache *tw_cache_create(tw_cache_access access, const tw_logger *log) {
    tw_cache *cache = calloc(1, sizeof *cache);
    if (!cache || pthread_mutex_init(&cache->mutex, NULL)) {
        free(cache);
        tw_fail(TW_MEMORY, "out of memory while opening the cache");
        return NULL;
    }
    cache->access = access;
    if (log)
        cache->log = *log;
    else
        tw_logger_init(&cache->log, NULL);
    return cache;
}

tw_status tw_cache_open(const char *path, tw_cache_access access, const tw_logger *log,
                        tw_cache **out) {
    tw_cache *cache = tw_cache_create(access, log);
    if (!cache) return TW_MEMORY;
    bool existed = false;
    tw_status status = TW_OK;
    if (!path || *path) {
        status = tw_cache_resolve(path, access != TW_CACHE_READ, &cache->path, &existed);
        if (status == TW_OK) status = tw_db_open(cache, existed);
        status = settle(cache, status);
    }
    if (status == TW_OK)
        *out = cache;
    else
        tw_cache_close(cache);
    return status;
}

void tw_cache_close(tw_cache *cache) {
    if (!cache) return;
    close_db(cache);
    pthread_mutex_destroy(&cache->mutex);
    tw_str_free(&cache->path);
    tw_str_free(&cache->problem);
    free(cache);
}

const char *tw_cache_path(const tw_cache *cache) { return tw_str_text(&cache->path); }

const char *tw_cache_problem(const tw_cache *cache) {
    return cache->problem.size ? tw_str_text(&cache->problem) : NULL;
}
