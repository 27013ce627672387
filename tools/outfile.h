/* base/file.h for commands: a signal that ends the process removes the temporary file; only SIGKILL
 * leaves it behind. */
#ifndef TW_TOOLS_OUTFILE_H
#define TW_TOOLS_OUTFILE_H

#include "src/base/file.h"

/* tw_file_open(), _finish() and _discard().  One at a time: the signals remove that of the last
 * one. */
tw_status outfile_open(const char *path, tw_file_rule rule, tw_file *out);
tw_status outfile_finish(tw_file *file);
void outfile_discard(tw_file *file);

#endif
