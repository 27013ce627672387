/* Configs to text and back. */
#include "src/core/config.h"

#include <string.h>

#include "src/base/status.h"

const tw_tunable tw_tunables[TW_TUNABLE_COUNT] = {
#define TW_TUNABLE(field, tag, part, meaning)                                                      \
    {TW_TUNES_##part, #field, tag, meaning, offsetof(tw_config, field)},
#include "src/core/config.def"
#undef TW_TUNABLE
};

int32_t *tw_config_field(tw_config *config, int tunable) {
    return (int32_t *)((char *)config + tw_tunables[tunable].offset);
}

tw_config tw_config_code(const tw_config *config) {
    tw_config code = *config;
    for (int i = 0; i < TW_TUNABLE_COUNT; i++)
        if (tw_tunables[i].part == TW_TUNES_LAUNCH) *tw_config_field(&code, i) = 0;
    return code;
}

void tw_config_text(const tw_config *config, tw_str *out) {
    tw_config copy = *config;
    const char *gap = "";
    for (int i = 0; i < TW_TUNABLE_COUNT; i++) {
        int32_t value = *tw_config_field(&copy, i);
        if (!value) continue;
        tw_str_add(out, "%s%s%d", gap, tw_tunables[i].tag, value);
        gap = " ";
    }
}

/* A word is a tag's letters, then digits; so one tag may be the beginning of another. */
static tw_status parse_word(const char *word, int size, tw_config *config) {
    int letters = 0, tunable = 0;
    while (letters < size && (word[letters] < '0' || word[letters] > '9')) letters++;
    for (; tunable < TW_TUNABLE_COUNT; tunable++) {
        const char *tag = tw_tunables[tunable].tag;
        if ((int)strlen(tag) == letters && !memcmp(tag, word, (size_t)letters)) break;
    }
    if (tunable == TW_TUNABLE_COUNT)
        return tw_fail(TW_INVALID, "config: \"%.*s\", begins with no tunable's tag",
                       (int)tw_min(size, 60), word);

    int64_t value = 0;
    for (int i = letters; i < size && value <= INT32_MAX; i++) {
        if (word[i] < '0' || word[i] > '9') value = INT64_MAX / 16;
        value = value * 10 + (word[i] - '0');
    }
    if (value < 1 || value > INT32_MAX)
        return tw_fail(TW_INVALID, "config: \"%.*s\", %s must be a positive integer up to %d",
                       (int)tw_min(size, 60), word, tw_tunables[tunable].field, INT32_MAX);
    int32_t *field = tw_config_field(config, tunable);
    if (*field)
        return tw_fail(TW_INVALID, "config: \"%.*s\", %s is given twice", (int)tw_min(size, 60),
                       word, tw_tunables[tunable].field);
    *field = (int32_t)value;
    return TW_OK;
}

tw_status tw_config_parse(const char *text, tw_config *out) {
    tw_config config = {0};
    for (text += strspn(text, " "); *text; text += strspn(text, " ")) {
        size_t size = strcspn(text, " ");
        TW_TRY(parse_word(text, (int)tw_min((int64_t)size, INT32_MAX), &config));
        text += size;
    }
    *out = config;
    return TW_OK;
}
