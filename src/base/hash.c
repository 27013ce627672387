/* Digests, in the form that keys and file checks want. */
#include "src/base/hash.h"

#include <sodium.h>

_Static_assert(TW_DIGEST_BYTES == crypto_hash_sha256_BYTES, "a digest is a SHA-256");

void tw_sha256(const void *bytes, size_t size, uint8_t digest[TW_DIGEST_BYTES]) {
    crypto_hash_sha256(digest, bytes, size);
}

void tw_sha256_text(const void *bytes, size_t size, char text[TW_DIGEST_TEXT]) {
    uint8_t digest[TW_DIGEST_BYTES];
    tw_sha256(bytes, size, digest);
    sodium_bin2hex(text, TW_DIGEST_TEXT, digest, sizeof digest);
}
