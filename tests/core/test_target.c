/* The table of instruction sets. */
#include <string.h>

#include "src/core/target.h"
#include "tests/base/cmocka_all.h"

static void test_rows(void **state) {
    (void)state;
    for (int i = 0; i < TW_ISA_COUNT; i++) {
        const tw_isa_info *isa = &tw_isas[i];
        tw_target target = {.isa = (tw_isa)i};
        assert_int_equal(tw_isa_parse(isa->name), i);
        assert_ptr_equal(tw_target_isa(&target), isa);
        assert_int_equal(tw_target_lanes(&target) * 4, isa->vector_bytes);
        assert_int_equal(isa->vector_bytes & (isa->vector_bytes - 1), 0);
        assert_true(isa->vector_registers >= 16 && strlen(isa->llvm_cpu) > 0);
    }
    assert_string_equal(tw_isas[TW_ISA_avx512vnni].name, "avx512vnni");
    assert_int_equal(tw_isas[TW_ISA_avx512vnni].dot, TW_DOT_DPBUSD);
    assert_int_equal(tw_isas[TW_ISA_portable].dot, TW_DOT_GENERIC);
    tw_target bf16 = {.isa = TW_ISA_avx512bf16}, gfni = {.isa = TW_ISA_avx512gfni};
    assert_true(tw_target_has(&bf16, TW_EXTRA_BF16) && tw_target_has(&gfni, TW_EXTRA_BF16));
    assert_true(!tw_target_has(&bf16, TW_EXTRA_GFNI) && tw_target_has(&gfni, TW_EXTRA_GFNI));
    tw_target amx = {.isa = TW_ISA_avx512amx};
    assert_true(tw_target_has(&amx, TW_EXTRA_AMX) && !tw_target_has(&gfni, TW_EXTRA_AMX));
}

static void test_unknown(void **state) {
    (void)state;
    static const char *const names[] = {"", "avx", "avx22", "AVX2", "avx2 ", "cpu:avx2"};
    for (size_t i = 0; i < TW_COUNT(names); i++)
        assert_int_equal(tw_isa_parse(names[i]), TW_ISA_COUNT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_unknown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
