/* Memory through the host's hook: alignment, zeroing, the sizes that the hook sees. */
#include <string.h>

#include "src/base/alloc.h"
#include "tests/base/cmocka_all.h"

typedef struct ledger {
    int allocs, frees;
    size_t size, align, freed;
    bool refuse;
} ledger;

static void *ledger_alloc(void *user, size_t size, size_t align) {
    ledger *l = user;
    l->allocs++;
    l->size = size;
    l->align = align;
    if (l->refuse) return NULL;
    void *p = tw_allocator_default.alloc(NULL, size, align);
    if (p) memset(p, 0xa5, size);
    return p;
}

static void ledger_free(void *user, void *p, size_t size) {
    ledger *l = user;
    l->frees++;
    l->freed = size;
    tw_allocator_default.free(NULL, p, size);
}

static void test_aligned_and_zeroed(void **state) {
    (void)state;
    const size_t sizes[] = {1, 63, 64, 65, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20};
    for (size_t i = 0; i < TW_COUNT(sizes); i++) {
        ledger l = {0};
        tw_allocator hook = {ledger_alloc, ledger_free, &l};
        unsigned char *p = tw_alloc(&hook, sizes[i]);
        assert_non_null(p);
        size_t align = sizes[i] >= 1 << 20 ? 2 << 20 : 64;
        assert_int_equal((uintptr_t)p % align, 0);
        assert_int_equal(l.align, align);
        assert_int_equal(l.size, sizes[i]);
        for (size_t b = 0; b < sizes[i]; b++)
            if (p[b]) fail_msg("byte %zu of %zu is not 0", b, sizes[i]);
        tw_free(&hook, p, sizes[i]);
        assert_int_equal(l.frees, 1);
        assert_int_equal(l.freed, l.size);
    }
}

static void test_untouched(void **state) {
    (void)state;
    const size_t sizes[] = {1, 65, 1 << 20, 5 << 20};
    for (size_t i = 0; i < TW_COUNT(sizes); i++) {
        ledger l = {0};
        tw_allocator hook = {ledger_alloc, ledger_free, &l};
        unsigned char *p = tw_alloc_untouched(&hook, sizes[i]);
        assert_non_null(p);
        assert_int_equal(l.align, sizes[i] >= 1 << 20 ? 2 << 20 : 64);
        for (size_t b = 0; b < sizes[i]; b++) assert_int_equal(p[b], 0xa5);
        tw_free(&hook, p, sizes[i]);
        assert_int_equal(l.freed, l.size);
    }
}

static void test_size_0(void **state) {
    (void)state;
    ledger l = {0};
    tw_allocator hook = {ledger_alloc, ledger_free, &l};
    void *p = tw_alloc(&hook, 0);
    assert_non_null(p);
    tw_free(&hook, p, 0);
    assert_int_equal(l.freed, l.size);
}

static void test_refused(void **state) {
    (void)state;
    ledger l = {.refuse = true};
    tw_allocator hook = {ledger_alloc, ledger_free, &l};
    assert_null(tw_alloc(&hook, 100));
    assert_null(tw_alloc(&hook, 3 << 20));
    assert_int_equal(l.allocs, 2);
    tw_free(&hook, NULL, 100);
    assert_int_equal(l.frees, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_and_zeroed),
        cmocka_unit_test(test_untouched),
        cmocka_unit_test(test_size_0),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
