/* One way in for all JSON, with sentences that name file, member and rule. */
#include "src/format/json.h"

/* 100 MB: what safetensors allows a header; no index or config comes near. */
enum { MOST_JSON = 100000000 };

tw_status tw_json_object(const void *bytes, size_t size, const char *label, json_t **out) {
    json_error_t error;
    if (size > MOST_JSON)
        return tw_fail(TW_FORMAT, "%s: %zu bytes of JSON, at most %d", label, size, MOST_JSON);
    json_t *root = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return tw_fail(TW_FORMAT, "%s: line %d, column %d: %s", label, error.line, error.column,
                       tw_show(error.text, strlen(error.text)).text);
    if (!json_is_object(root)) {
        json_decref(root);
        return tw_fail(TW_FORMAT, "%s: JSON, but not an object", label);
    }
    *out = root;
    return TW_OK;
}

static const json_t *member(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

tw_status tw_json_int(const json_t *object, const char *key, int64_t least, int64_t most,
                      int64_t fallback, const char *label, int64_t *out) {
    const json_t *value = member(object, key);
    if (!value && fallback < 0) return tw_fail(TW_FORMAT, "%s: no %s", label, key);
    if (value && !json_is_integer(value))
        return tw_fail(TW_FORMAT, "%s: %s: expected an integer", label, key);
    int64_t number = value ? (int64_t)json_integer_value(value) : fallback;
    if (value && (number < least || number > most))
        return tw_fail(TW_FORMAT, "%s: %s: %lld, expected %lld..%lld", label, key,
                       (long long)number, (long long)least, (long long)most);
    *out = number;
    return TW_OK;
}

tw_status tw_json_bool(const json_t *object, const char *key, bool fallback, const char *label,
                       bool *out) {
    const json_t *value = member(object, key);
    if (value && !json_is_boolean(value))
        return tw_fail(TW_FORMAT, "%s: %s: expected true or false", label, key);
    *out = value ? json_is_true(value) : fallback;
    return TW_OK;
}

tw_status tw_json_text(const json_t *object, const char *key, const char *fallback,
                       const char *label, const char **out) {
    const json_t *value = member(object, key);
    if (value && !json_is_string(value))
        return tw_fail(TW_FORMAT, "%s: %s: expected a string", label, key);
    *out = value ? json_string_value(value) : fallback;
    return TW_OK;
}
