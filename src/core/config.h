/* A config: how to compute a problem.  Fields, text form and parser all derive from config.def. */
#ifndef TW_CORE_CONFIG_H
#define TW_CORE_CONFIG_H

#include "src/base/base.h"
#include "src/base/str.h"

typedef struct tw_config {
#define TW_TUNABLE(field, tag, part, meaning) int32_t field;
#include "src/core/config.def"
#undef TW_TUNABLE
} tw_config;

typedef enum tw_tunable_part { TW_TUNES_CODE, TW_TUNES_LAUNCH } tw_tunable_part;

typedef struct tw_tunable {
    tw_tunable_part part;
    const char *field, *tag, *meaning;
    size_t offset;
} tw_tunable;

enum {
#define TW_TUNABLE(field, tag, part, meaning) TW_TUNABLE_##field,
#include "src/core/config.def"
#undef TW_TUNABLE
    TW_TUNABLE_COUNT
};
extern const tw_tunable tw_tunables[TW_TUNABLE_COUNT];

int32_t *tw_config_field(tw_config *config, int tunable);
/* The fields that generated code depends on; the others 0. */
tw_config tw_config_code(const tw_config *config);
/* "mm4 mn64 bm128 bn256": fields that are 0 are left out. */
void tw_config_text(const tw_config *config, tw_str *out);
/* Fails with a sentence that points at the word. */
tw_status tw_config_parse(const char *text, tw_config *out);

#endif
