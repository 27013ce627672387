/* JSON from files that nobody vouches for, by jansson. */
#ifndef TW_FORMAT_JSON_H
#define TW_FORMAT_JSON_H

#include <jansson.h>

#include "src/format/model_impl.h"

/* One object and nothing after it but white space; repeated keys are refused.  *out is the caller's
 * to json_decref().  label stands for the file in the sentence. */
tw_status tw_json_object(const void *bytes, size_t size, const char *label, json_t **out);

/* Members of an object.  A member that is null counts as absent; the wrong type is an error. */

/* An integer in [least, most]; fallback where absent; required when fallback is below 0. */
tw_status tw_json_int(const json_t *object, const char *key, int64_t least, int64_t most,
                      int64_t fallback, const char *label, int64_t *out);
tw_status tw_json_bool(const json_t *object, const char *key, bool fallback, const char *label,
                       bool *out);
/* fallback may be NULL.  The text lives as long as the object. */
tw_status tw_json_text(const json_t *object, const char *key, const char *fallback,
                       const char *label, const char **out);

#endif
