/* SHA-256, by libsodium. */
#ifndef TW_BASE_HASH_H
#define TW_BASE_HASH_H

#include "src/base/base.h"

enum { TW_DIGEST_BYTES = 32, TW_DIGEST_TEXT = 65 };

void tw_sha256(const void *bytes, size_t size, uint8_t digest[TW_DIGEST_BYTES]);
/* Lower-case hexadecimal with a NUL. */
void tw_sha256_text(const void *bytes, size_t size, char text[TW_DIGEST_TEXT]);

#endif
