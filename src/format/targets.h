/* Which of several groups of settings a module falls under, by lists of names, class names and
 * regular expressions, as compressed-tensors has them (its utils/match.py). */
#ifndef TW_FORMAT_TARGETS_H
#define TW_FORMAT_TARGETS_H

#include <jansson.h>

#include "src/format/model_impl.h"

/* What config_groups' `targets` and `ignore` say, made ready for many look-ups. */
typedef struct tw_targets tw_targets;

/* *out borrows from the config.  Errors: FORMAT (a list of other than texts, a regular expression
 * that is none), MEMORY. */
tw_status tw_targets_make(const json_t *config, const char *label, tw_targets **out);
/* NULL is allowed. */
void tw_targets_free(tw_targets *targets);

/* The group of a module of this class; NULL where no target matches, or where `ignore` does, which
 * is then *ignored.  A target that is the module's name comes first, then regular expressions in
 * alphabetical order, which match from the name's begin, then class names.  Of two groups with one
 * target the last has it.  Errors: UNSUPPORTED (a regular expression that takes too long). */
tw_status tw_targets_find(const tw_targets *targets, const char *module, const char *class_name,
                          const json_t **group, bool *ignored);

#endif
