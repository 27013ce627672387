/* Regular expressions as Python's re has them, by PCRE2. */
#ifndef TW_BASE_PATTERN_H
#define TW_BASE_PATTERN_H

#include "src/base/base.h"

typedef struct tw_pattern tw_pattern; /* [owned] */

/* Errors: INVALID (says what is wrong with the text, and where), MEMORY. */
tw_status tw_pattern_compile(const char *text, tw_pattern **out);
/* Whether the whole name matches, as re.fullmatch().  False, too, for names that are not UTF-8 and
 * where matching would take without end. */
bool tw_pattern_full(const tw_pattern *pattern, const char *name);
/* NULL is allowed. */
void tw_pattern_free(tw_pattern *pattern);

#endif
