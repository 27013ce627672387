/* Regular expressions as Python's re has them, by PCRE2. */
#ifndef TW_BASE_PATTERN_H
#define TW_BASE_PATTERN_H

#include "src/base/base.h"

typedef struct tw_pattern tw_pattern; /* [owned] */

/* Errors: INVALID (says what is wrong with the text, and where), MEMORY. */
tw_status tw_pattern_compile(const char *text, tw_pattern **out);
/* Whether the name matches: from its begin, as re.match(), or `whole`, as re.fullmatch().  One
 * thread at a time.  Errors: INVALID (takes too long: names are short, so it was made to). */
tw_status tw_pattern_match(const tw_pattern *pattern, const char *name, bool whole, bool *out);
/* NULL is allowed. */
void tw_pattern_free(tw_pattern *pattern);

#endif
