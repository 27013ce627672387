/* A file that is written whole or not at all.
 *
 * The bytes go to a temporary file beside the target, which takes the target's name at the end.
 * Until then the old file is what it was; a process that is killed leaves NAME.PID-N.part behind. A
 * symbolic link stays one: what it points to is written.  What is no regular file is never
 * replaced. */
#ifndef TW_BASE_FILE_H
#define TW_BASE_FILE_H

#include "src/base/base.h"

/* What may stand at the path already.  STREAM: a device or a FIFO too, and standard output by its
 * name, which are written to as they are. */
typedef enum tw_file_rule { TW_FILE_REGULAR, TW_FILE_STREAM } tw_file_rule;

typedef struct tw_file {
    int fd;
    const char *path; /* as the user gave it, for messages; must outlive the file */
    char *target;     /* behind all symbolic links; NULL for a stream */
    char *temporary;  /* NULL for a stream */
} tw_file;

/* Whether the path may be written; nothing is created.  Errors: IO. */
tw_status tw_file_check(const char *path, tw_file_rule rule);
/* Errors: IO. */
tw_status tw_file_open(const char *path, tw_file_rule rule, tw_file *out);
tw_status tw_file_write(tw_file *file, const void *bytes, size_t size);
/* Puts on disk what was written. */
tw_status tw_file_sync(tw_file *file);
/* The same, and gives the file its name.  Whatever happens, the tw_file is gone. */
tw_status tw_file_finish(tw_file *file);
/* As if it had never been opened; a stream keeps what it was given. */
void tw_file_discard(tw_file *file);

#endif
