/* Fuzz target: safetensors files: header length, JSON header, places of the tensors. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_and_read(data, size, TW_MODEL_SAFETENSORS);
    return 0;
}
