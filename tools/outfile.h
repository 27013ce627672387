/* A file that a command writes, whole or not at all.
 *
 * The bytes go to a temporary file beside the target, which takes the target's name at the end.
 * Until then the old file is what it was, and a signal that ends the process removes the temporary
 * file; only SIGKILL leaves a NAME.PID-N.part behind.  A symbolic link stays one: what it points to
 * is written.  What is no regular file is never replaced. */
#ifndef TW_TOOLS_OUTFILE_H
#define TW_TOOLS_OUTFILE_H

#include "src/base/base.h"

/* What may stand at the path already.  STREAM: a device or a FIFO too, and standard output by its
 * name, which are written to as they are. */
typedef enum outfile_rule { OUTFILE_REGULAR, OUTFILE_STREAM } outfile_rule;

typedef struct outfile {
    int fd;
    const char *path; /* as the user gave it, for messages; must outlive the file */
    char *target;     /* behind all symbolic links; NULL for a stream */
    char *temporary;  /* NULL for a stream */
} outfile;

/* Whether the path may be written; nothing is created.  Errors: IO. */
tw_status outfile_check(const char *path, outfile_rule rule);
/* One at a time: the signals remove that of the last one.  Errors: IO. */
tw_status outfile_open(const char *path, outfile_rule rule, outfile *out);
tw_status outfile_write(outfile *file, const void *bytes, size_t size);
/* Puts everything on disk and gives the file its name.  Whatever happens, the outfile is gone. */
tw_status outfile_finish(outfile *file);
/* As if it had never been opened; a stream keeps what it was given. */
void outfile_discard(outfile *file);

#endif
