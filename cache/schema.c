/* The tables.  Whatever changes here raises TW_SCHEMA_VERSION: a library meets files of every
 * age. */
#include "cache/db.h"

/* Two steps, so that the macro's argument is expanded first. */
#define TEXT_OF(x) #x
#define VERSION_TEXT(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char tw_library_version[] =
    VERSION_TEXT(TW_VERSION_MAJOR, TW_VERSION_MINOR, TW_VERSION_PATCH);

/* SQLite keeps this text, comments and all, for .schema to show.  Columns by which a row is found
 * come first and blobs last, where reading the others does not pass through them. */
const char tw_schema_sql[] =
    "CREATE TABLE device (\n"
    "    id      INTEGER PRIMARY KEY,\n"
    "    text    TEXT NOT NULL UNIQUE, -- model, instruction set, caches, threads, as in keys\n"
    "    created TEXT NOT NULL         -- UTC, like every time in this file\n"
    ") STRICT;\n"

    "CREATE TABLE choice (\n"
    "    id             INTEGER PRIMARY KEY,\n"
    "    digest         TEXT NOT NULL UNIQUE, -- SHA-256 of key\n"
    "    key            TEXT NOT NULL,        -- problem by M bucket, device\n"
    "    device         INTEGER NOT NULL REFERENCES device (id),\n"
    "    kernel         TEXT,                 -- NULL: undecided, its tuning was broken off\n"
    "    kernel_version INTEGER,\n"
    "    config         TEXT,\n"
    "    median_ns      REAL,\n"
    "    spread_ns      REAL,\n"
    "    error          REAL,                 -- as verification measured it\n"
    "    created        TEXT NOT NULL,\n"
    "    used           TEXT NOT NULL,        -- day of the last hit\n"
    "    library        TEXT NOT NULL         -- version of Tilewright that wrote the row\n"
    ") STRICT;\n"

    "CREATE TABLE trial ( -- every measurement, in the order of id\n"
    "    id             INTEGER PRIMARY KEY,\n"
    "    choice         INTEGER NOT NULL REFERENCES choice (id) ON DELETE CASCADE,\n"
    "    kernel         TEXT NOT NULL,\n"
    "    kernel_version INTEGER NOT NULL,\n"
    "    config         TEXT NOT NULL,\n"
    "    outcome        TEXT NOT NULL CHECK (outcome IN ('ok', 'failed')),\n"
    "    median_ns      REAL,\n"
    "    spread_ns      REAL,\n"
    "    reason         TEXT NOT NULL, -- why it failed\n"
    "    created        TEXT NOT NULL,\n"
    "    library        TEXT NOT NULL\n"
    ") STRICT;\n"
    "CREATE INDEX trial_choice ON trial (choice);\n"

    "CREATE TABLE binary (\n"
    "    id             INTEGER PRIMARY KEY,\n"
    "    digest         TEXT NOT NULL UNIQUE, -- SHA-256 of key\n"
    "    key            TEXT NOT NULL,        -- problem without M, kernel, config, target, "
    "compiler\n"
    "    kernel         TEXT NOT NULL,\n"
    "    kernel_version INTEGER NOT NULL,\n"
    "    created        TEXT NOT NULL,\n"
    "    used           TEXT NOT NULL,\n"
    "    library        TEXT NOT NULL,\n"
    "    sha256         TEXT NOT NULL,        -- of blob\n"
    "    blob           BLOB NOT NULL         -- object code\n"
    ") STRICT;\n";
