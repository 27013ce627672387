/* cache: what was decided, measured and built, kept in one SQLite file from run to run.  It stores
 * text, digests and blobs and knows nothing of kernels; nothing outside this folder sees sqlite3.h.
 * This file: the whole interface.
 *
 * Two layers: a file of the user's, which is read and written, and below it perhaps a system file,
 * which is only read.  A tw_cache is one file; src/ asks one after the other.
 *
 * Four tables, meant to be read in the sqlite3 shell (schema.c): device, choice, trial, binary.
 *
 * Trust    A binary is machine code, so a file that another user could have written is refused:
 *          it, what SQLite keeps beside it and its folder belong to this user or root, who alone
 *          may write.
 * Safety   A file found to be damaged, no cache of ours or of a newer schema is not written to,
 *          moved or deleted.  kill -9 at any moment loses at most the write in flight.
 * Sharing  Any number of processes may use one file.  A tw_cache is [shared]: a mutex serialises
 *          its users.  While one is open, a child of fork() may use neither it nor another one of
 *          that file until it calls exec() (https://www.sqlite.org/howtocorrupt.html, 2.6). */
#ifndef TW_CACHE_CACHE_H
#define TW_CACHE_CACHE_H

#include "src/base/log.h"
#include "src/core/key.h"

typedef struct tw_cache tw_cache;

typedef enum tw_cache_access {
    TW_CACHE_USE,   /* for layers: a problem costs one warning; reads miss, writes are dropped */
    TW_CACHE_WRITE, /* for what exists to write: a problem is the error TW_CACHE */
    TW_CACHE_READ,  /* for a look inside: no row changes, a problem is the error TW_CACHE */
} tw_cache_access;

/* path NULL: $TW_CACHE, else $XDG_CACHE_HOME/tilewright/cache.db, else the same under $HOME/.cache;
 * "": no file, every look-up misses and every write is dropped, whatever the access.
 * Missing folders and the file are created (0700, 0600), but not by TW_CACHE_READ.  log is copied;
 * NULL is the default log.  With TW_CACHE_USE a file that can only be read still hits, after the
 * warning.  Errors: MEMORY; and CACHE, except with TW_CACHE_USE. */
tw_status tw_cache_open(const char *path, tw_cache_access access, const tw_logger *log,
                        tw_cache **out);
/* The read-only file below the user's, for look-ups that miss there: a tw_cache of its own.  It
 * writes, makes and locks nothing, so that it works from a read-only folder and leaves nothing
 * beside the file; hence who changes the file replaces it as a whole (rename).  path NULL:
 * $TW_CACHE_SYSTEM, whose default may be missing; "", or the very file that `user` is (may be
 * NULL): no file.  The rule of trust is the same.  A problem costs one warning.  Errors: MEMORY. */
tw_status tw_cache_open_system(const char *path, const tw_cache *user, const tw_logger *log,
                               tw_cache **out);
/* NULL is allowed. */
void tw_cache_close(tw_cache *cache);

/* The file in use or bypassed, "" for none; valid until close. */
const char *tw_cache_path(const tw_cache *cache);
/* Why open() bypassed the file or can only read it, as one sentence; NULL when it did neither. */
const char *tw_cache_problem(const tw_cache *cache);

/* ---- choices: the kernel and config that a key was decided for ------------------------------- */

typedef struct tw_choice {
    char kernel[64];
    uint32_t kernel_version;
    char config[128]; /* config text */
    double median_ns, spread_ns;
    double error; /* as verification measured it */
} tw_choice;

/* True for a hit.  Rows that cannot be read are misses, which the log says once.  Whether the
 * kernel still exists in that version is for the caller to judge. */
bool tw_cache_get_choice(tw_cache *cache, const tw_key *key, tw_choice *out);
/* Replaces what the key had.  device: its tw_device_text().
 * Errors (never with TW_CACHE_USE): CACHE when it could not be stored. */
tw_status tw_cache_put_choice(tw_cache *cache, const tw_key *key, const char *device,
                              const tw_choice *choice);

/* ---- binaries: machine code ------------------------------------------------------------------ */

/* True for a hit: the blob, whole and as it was stored, is appended to *out, which otherwise
 * stays as it is.  A blob that does not match its SHA-256 is a miss with a warning, and its row
 * is dropped where the file can be written. */
bool tw_cache_get_binary(tw_cache *cache, const tw_key *key, tw_str *out);
/* Replaces what the key had; kernel and version are for listing and pruning.  Errors as
 * put_choice. */
tw_status tw_cache_put_binary(tw_cache *cache, const tw_key *key, const char *kernel,
                              uint32_t kernel_version, const void *data, size_t size);

/* ---- trials: every measurement, so that a tuner that was killed goes on ---------------------- */

typedef struct tw_cache_trial {
    char kernel[64];
    uint32_t kernel_version;
    char config[128];
    bool failed;
    double median_ns, spread_ns; /* 0 when failed */
    char reason[256];            /* why it failed, "" otherwise */
} tw_cache_trial;

/* Appends one measurement under a choice's key, which need not have a choice yet.
 * Errors as put_choice. */
tw_status tw_cache_put_trial(tw_cache *cache, const tw_key *key, const char *device,
                             const tw_cache_trial *trial);
/* Calls each() for every trial of the key in the order they were made; each() may not call the
 * cache. Returns how many there were; 0 as well when they cannot be read. */
size_t tw_cache_trials(tw_cache *cache, const tw_key *key,
                       void (*each)(void *user, const tw_cache_trial *trial), void *user);

/* ---- administration: errors are CACHE with every access -------------------------------------- */

typedef struct tw_cache_counts {
    int64_t devices;
    int64_t choices;   /* decided */
    int64_t undecided; /* keys with trials only: their tuning was broken off */
    int64_t trials, failed_trials;
    int64_t binaries, binary_bytes;
    int64_t file_bytes;          /* database and write-ahead log */
    int64_t free_bytes;          /* of the database, to be used again */
    char oldest[24], newest[24]; /* "2026-01-31T12:00:00Z" over choices and binaries, "" if none */
    int32_t schema;
} tw_cache_counts;

tw_status tw_cache_stats(tw_cache *cache, tw_cache_counts *out);

typedef enum tw_cache_kind {
    TW_CACHE_DEVICES,
    TW_CACHE_CHOICES, /* the decided ones */
    TW_CACHE_TRIALS,
    TW_CACHE_BINARIES,
} tw_cache_kind;

/* One row; what its kind does not have is "" or 0.  Texts live as long as the call. */
typedef struct tw_cache_row {
    tw_cache_kind kind;
    const char *key, *digest; /* key text and its SHA-256; a device's key is its text */
    const char *device, *kernel, *config;
    const char *outcome, *reason;         /* "ok" or "failed", and why */
    const char *created, *used, *library; /* used: the day of the last hit */
    int64_t kernel_version, bytes;
    double median_ns, spread_ns, error;
} tw_cache_row;

/* Every row of one kind: choices and binaries by key, the others in the order they were made.
 * each() returns whether to go on and may not call the cache. */
tw_status tw_cache_list(tw_cache *cache, tw_cache_kind kind,
                        bool (*each)(void *user, const tw_cache_row *row), void *user);

/* Checks every key and every blob against its digest, then SQLite's own integrity and the
 * references between rows.  Calls problem() with a sentence for each defect; *defects counts
 * them.  Changes nothing; problem() may not call the cache. */
tw_status tw_cache_verify(tw_cache *cache, void (*problem)(void *user, const char *sentence),
                          void *user, int64_t *defects);

/* What to drop; a field that is 0 or NULL asks for nothing. */
typedef struct tw_cache_prune_spec {
    /* Choices, with their trials, and binaries that had no hit for more than so many days. */
    int64_t unused_days;
    /* Then, until the rows fit: binaries, then trials, then choices, longest unused first. */
    int64_t max_bytes;
    /* What is of a kernel for which this is false: gone, or not the current version.  A choice
     * whose other trials are still good keeps those and is undecided.  May not call the cache. */
    bool (*current)(void *user, const char *kernel, uint32_t kernel_version);
    void *user;
} tw_cache_prune_spec;

typedef struct tw_cache_pruned {
    int64_t choices, trials, binaries; /* rows dropped; choices that became undecided count */
    int64_t bytes;                     /* by which the file shrank */
} tw_cache_pruned;

/* All or nothing. */
tw_status tw_cache_prune(tw_cache *cache, const tw_cache_prune_spec *spec, tw_cache_pruned *out);

#endif
