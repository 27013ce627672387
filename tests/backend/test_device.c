/* CPU facts, held against what the kernel says of the same CPU. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "src/backend/backend.h"
#include "tests/base/cmocka_all.h"

/* The flags that Linux lists for a CPU feature set, per row of target.def. */
static const char *const needed_flags[TW_ISA_COUNT][12] = {
    [TW_ISA_portable] = {NULL},
    [TW_ISA_avx2] = {"avx2", "fma", "f16c"},
    [TW_ISA_avxvnni] = {"avx2", "fma", "f16c", "avx_vnni"},
    [TW_ISA_avx512] = {"fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"},
    [TW_ISA_avx512vnni] = {"fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd",
                           "avx512_vnni"},
    [TW_ISA_avx512bf16] = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512_vnni",
                           "avx512_bf16"},
    [TW_ISA_avx512gfni] = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512_vnni",
                           "avx512_bf16", "gfni"},
    [TW_ISA_avx512amx] = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd", "avx512_vnni",
                          "avx512_bf16", "gfni", "amx_tile", "amx_int8"},
};

/* The first "flags" line of /proc/cpuinfo; false where there is none. */
static bool read_flags(char *line, size_t size) {
    FILE *file = fopen("/proc/cpuinfo", "r");
    bool found = false;
    while (file && !found && fgets(line, (int)size, file)) found = !strncmp(line, "flags", 5);
    if (file) fclose(file);
    return found;
}

static bool has_flag(const char *line, const char *flag) {
    size_t size = strlen(flag);
    for (const char *at = strstr(line, flag); at; at = strstr(at + 1, flag))
        if (at[-1] == ' ' && (at[size] == ' ' || at[size] == '\n')) return true;
    return false;
}

static void test_can_run(void **state) {
    (void)state;
    static char line[1 << 16];
    assert_true(tw_cpu_can_run(TW_ISA_portable));
    assert_false(tw_cpu_can_run(TW_ISA_COUNT));
    if (!read_flags(line, sizeof line)) skip();
    for (int i = 0; i < TW_ISA_COUNT; i++) {
        bool expected = true;
        for (int k = 0; needed_flags[i][k]; k++) expected &= has_flag(line, needed_flags[i][k]);
        if (i == TW_ISA_avx512amx && tw_cpu_refused()) expected = false;
        if (tw_cpu_can_run((tw_isa)i) != expected)
            fail_msg("%s: %d, the kernel says %d", tw_isas[i].name, !expected, expected);
    }
}

static void test_detect(void **state) {
    (void)state;
    tw_target best, same, forced, described;
    assert_int_equal(tw_cpu_detect("cpu", 3, &best), TW_OK);
    assert_int_equal(tw_cpu_detect(NULL, 3, &same), TW_OK);
    assert_memory_equal(&best, &same, sizeof best);
    assert_int_equal(best.threads, 3);
    assert_true(best.model[0] && !strchr(best.model, ';'));
    assert_true(best.l1_bytes >= 0 && best.l1_bytes <= 1 << 20);
    assert_true(best.l1_bytes == 0 || best.l2_bytes == 0 || best.l2_bytes > best.l1_bytes);
    for (int i = 0; i < TW_ISA_COUNT; i++) {
        char device[64];
        snprintf(device, sizeof device, "cpu:%s", tw_isas[i].name);
        bool can = tw_cpu_can_run((tw_isa)i);
        if (can) assert_true((int)best.isa >= i);
        /* On failure the output is untouched. */
        memset(&forced, 0x5a, sizeof forced);
        assert_int_equal(tw_cpu_detect(device, 3, &forced), can ? TW_OK : TW_UNSUPPORTED);
        if (can)
            assert_int_equal(forced.isa, i);
        else
            assert_int_equal(forced.threads, 0x5a5a5a5a);
        if (!can) assert_non_null(strstr(tw_error_message(), tw_isas[i].name));
        assert_int_equal(tw_cpu_describe(device, 3, &described), TW_OK);
        assert_int_equal(described.isa, i);
        assert_string_equal(described.model, best.model);
    }
}

static void test_refused(void **state) {
    (void)state;
    tw_target t;
    assert_int_equal(tw_cpu_detect("cpu:sse2", 0, &t), TW_INVALID);
    for (int i = 0; i < TW_ISA_COUNT; i++)
        assert_non_null(strstr(tw_error_message(), tw_isas[i].name));
    static const char *const others[] = {"cuda:0", "metal", "", "cpux", "CPU"};
    for (size_t i = 0; i < TW_COUNT(others); i++)
        assert_int_equal(tw_cpu_detect(others[i], 0, &t), TW_UNSUPPORTED);
    assert_int_equal(tw_cpu_detect("cpu:", 0, &t), TW_INVALID);
    assert_int_equal(tw_cpu_describe("cpu", -1, &t), TW_INVALID);
    assert_non_null(strstr(tw_error_message(), "threads"));
    assert_int_equal(tw_cpu_describe("cpu", 1 << 20, &t), TW_INVALID);
}

/* 0 threads: those of the affinity mask, which a container or taskset narrows. */
static void test_affinity(void **state) {
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    tw_target t;
    assert_int_equal(tw_cpu_detect("cpu", 0, &t), TW_OK);
    assert_int_equal(t.threads, CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tw_cpu_detect("cpu", 0, &t), TW_OK);
    assert_int_equal(t.threads, 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_can_run),
        cmocka_unit_test(test_detect),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_affinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
