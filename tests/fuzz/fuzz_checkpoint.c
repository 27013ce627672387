/* Fuzz target: quantized checkpoints: four bytes of length, a config.json of so many (none: there
 * is none), and the rest a safetensors file. */
#include "tests/fuzz/fuzz.h"

/* The input's parts, which lie one after another behind their lengths. */
enum { CONFIG, HEADER, DATA, PARTS };
typedef struct parts {
    const uint8_t *bytes[PARTS];
    size_t size[PARTS];
} parts;

static size_t within(uint64_t length, size_t room) { return length < room ? (size_t)length : room; }

/* Lengths that lead too far lead to the end. */
static parts split(const uint8_t *data, size_t size) {
    uint32_t config = 0;
    uint64_t header = 0;
    parts p;
    memcpy(&config, data, within(sizeof config, size));
    data += within(sizeof config, size);
    size -= within(sizeof config, size);
    p.bytes[CONFIG] = data;
    p.size[CONFIG] = within(config, size);
    data += p.size[CONFIG];
    size -= p.size[CONFIG];
    memcpy(&header, data, within(sizeof header, size));
    data += within(sizeof header, size);
    size -= within(sizeof header, size);
    p.bytes[HEADER] = data;
    p.size[HEADER] = within(header, size);
    p.bytes[DATA] = data + p.size[HEADER];
    p.size[DATA] = size - p.size[HEADER];
    return p;
}

static size_t join(const parts *p, uint8_t *out) {
    uint32_t config = (uint32_t)p->size[CONFIG];
    uint64_t header = p->size[HEADER];
    uint8_t *at = out;
    memcpy(at, &config, sizeof config);
    memcpy(at += sizeof config, p->bytes[CONFIG], p->size[CONFIG]);
    memcpy(at += p->size[CONFIG], &header, sizeof header);
    memcpy(at += sizeof header, p->bytes[HEADER], p->size[HEADER]);
    memcpy(at += p->size[HEADER], p->bytes[DATA], p->size[DATA]);
    return (size_t)(at + p->size[DATA] - out);
}

/* libFuzzer's; weak, since the plain test has none. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most) __attribute__((weak));
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed);

/* Changes one part, and its length with it: lengths that do not fit are what the other targets are
 * for.  Now and then it changes anything. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned int seed) {
    enum { LENGTHS = 12 };
    int which = (int)(seed % 8);
    if (which == 7 || most < size + LENGTHS) return LLVMFuzzerMutate(data, size, most);
    which = which < 3 ? CONFIG : which < 6 ? HEADER : DATA;
    parts p = split(data, size);
    size_t room = most - LENGTHS - p.size[CONFIG] - p.size[HEADER] - p.size[DATA] + p.size[which];
    uint8_t *changed = malloc(room + 1), *joined = malloc(most);
    MUST(changed && joined);
    memcpy(changed, p.bytes[which], p.size[which]);
    p.size[which] = LLVMFuzzerMutate(changed, p.size[which], room);
    p.bytes[which] = changed;
    size = join(&p, joined);
    memcpy(data, joined, size);
    free(changed);
    free(joined);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint32_t length;
    if (size < sizeof length) return 0;
    memcpy(&length, data, sizeof length);
    data += sizeof length;
    size -= sizeof length;
    if (length > size) return 0;
    if (!length) {
        open_and_read(data, size, TW_MODEL_SAFETENSORS);
        return 0;
    }
    tw_model *model;
    tw_status status =
        tw_model_open_bytes_with_config(data + length, size - length, data, length, "fuzz", &model);
    if (status)
        must_explain(status);
    else
        read_model(model, size);
    return 0;
}
