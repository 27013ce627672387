/* Recorded cases of other projects' quantization, run through our own. */
#ifndef TW_TOOLS_FIXTURES_H
#define TW_TOOLS_FIXTURES_H

#include "src/base/base.h"

/* Every *.safetensors file in the folder (or the one file): its __metadata__ maps the name of a
 * case to a JSON object with the operation `op`, its parameters, and `in` and `out`: role ->
 * tensor. Prints for each file and operation how many cases agree in every bit, and of those that
 * do not the first with the element and both values.  Operations that are not known here are
 * counted apart. The exit code: CLI_FAILED when a case disagrees or a file cannot be read. */
int fixtures_verify(const char *path, bool json);

#endif
