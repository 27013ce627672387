/* SHA-256 against the examples of FIPS 180-2, appendix B. */
#include <string.h>

#include "src/base/hash.h"
#include "tests/base/cmocka_all.h"

static void test_known(void **state) {
    (void)state;
    static const struct {
        const char *text, *digest;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char text[TW_DIGEST_TEXT];
        uint8_t digest[TW_DIGEST_BYTES];
        tw_sha256_text(rows[i].text, strlen(rows[i].text), text);
        assert_string_equal(text, rows[i].digest);
        tw_sha256(rows[i].text, strlen(rows[i].text), digest);
        for (size_t b = 0; b < TW_DIGEST_BYTES; b++) {
            const char *digits = "0123456789abcdef";
            assert_int_equal(text[2 * b], digits[digest[b] >> 4]);
            assert_int_equal(text[2 * b + 1], digits[digest[b] & 15]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_known)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
