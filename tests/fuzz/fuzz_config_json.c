/* Fuzz target: Hugging Face's config.json. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_and_read(data, size, TW_MODEL_CONFIG);
    return 0;
}
