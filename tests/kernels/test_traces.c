/* Golden traces: what templates say in the vocabulary for a dozen small configs, as text.  A change
 * of a trace is a change of generated code: meant, or a mistake.
 *   test_kernels_traces FOLDER                    compares
 *   test_kernels_traces FOLDER --update-golden    writes what is now */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"

static const char *folder;
static bool update;

/* File name, target, problem, kernel, config: tiles of a vector or two keep a trace readable. */
static const struct {
    const char *name;
    tw_isa isa;
    const char *problem, *kernel, *config;
} rows[] = {
    {"int_u4_code_g32", TW_ISA_avx2, "N=64,K=64,w=u4,g=32,s=f16,z=code,a=i8", "cpu.int_gemm",
     "mm1 mn8 bm8 bn64"},
    {"int_u4_code_vnni", TW_ISA_avx512vnni, "N=64,K=128,w=u4,g=64,s=f16,z=code,a=i8",
     "cpu.int_gemm", "mm1 mn16 bm8 bn64"},
    {"int_i8_channel", TW_ISA_avxvnni, "N=64,K=64,w=i8,a=i8,s=f32", "cpu.int_gemm",
     "mm1 mn8 bm8 bn64"},
    {"int_u8_words", TW_ISA_avx2, "N=64,K=64,w=u8,a=i8,s=f32", "cpu.int_gemm", "mm1 mn8 bm8 bn64"},
    {"int_u4_value", TW_ISA_avx512, "N=64,K=64,w=u4,g=32,s=f16,z=value,a=i8g32", "cpu.int_gemm",
     "mm1 mn16 bm8 bn64"},
    {"int_u4_late_factors", TW_ISA_avx512vnni, "N=64,K=256,w=u4,g=64,s=f16i8,z=value,a=i8g256",
     "cpu.int_gemm", "mm1 mn16 bm8 bn64"},
    {"int_i6_word_pairs", TW_ISA_avx2, "N=64,K=256,w=i6,g=16,s=f16i8,a=i8g256", "cpu.int_gemm",
     "mm1 mn8 bm8 bn64"},
    {"int_i4_i8z_portable", TW_ISA_portable, "N=64,K=32,w=i4,a=i8z,s=f32", "cpu.int_gemm",
     "mm1 mn4 bm8 bn64"},
    {"int_u3_tails", TW_ISA_avx2, "N=13,K=45,w=u3,g=32,s=f16,z=code,a=i8,bias=f32", "cpu.int_gemm",
     "mm1 mn8 bm8 bn64"},
    {"int_two_rows", TW_ISA_avx512vnni, "N=64,K=64,w=u4,g=64,s=f16,a=i8", "cpu.int_gemm",
     "mm2 mn16 bm8 bn64"},
    {"int_two_streams", TW_ISA_avx512vnni, "N=128,K=32,w=u4,g=32,s=f16,a=i8", "cpu.int_gemm",
     "mm1 mn64 bm8 bn512 st2"},
    {"int_i6_in_order", TW_ISA_avx512vnni, "N=64,K=32,w=i6,g=16,s=f16,a=i8", "cpu.int_gemm",
     "mm1 mn64 bm1 bn64 pf8 io1"},
    {"int_i6_group_pairs", TW_ISA_avx512vnni, "N=64,K=256,w=i6,g=16,s=f16i8,a=i8g256",
     "cpu.int_gemm", "mm2 mn16 bm8 bn64 ua256 gp1"},
    {"int_unpacked_ahead", TW_ISA_avx512vnni, "N=64,K=96,w=u4,g=32,s=f16,a=i8", "cpu.int_gemm",
     "mm2 mn16 bm8 bn64 ua64"},
    {"int_i8_words_ahead", TW_ISA_avx2, "N=64,K=64,w=i8,g=32,s=f16,a=i8g32", "cpu.int_gemm",
     "mm2 mn8 bm8 bn64 ua32"},
    {"amx_i8_channel", TW_ISA_avx512amx, "N=64,K=128,w=i8,a=i8,s=f32", "cpu.amx_gemm",
     "mm16 mn16 bm16 bn64 ua64"},
    {"amx_i4_groups", TW_ISA_avx512amx, "N=64,K=64,w=i4,g=32,s=f16,a=i8g32", "cpu.amx_gemm",
     "mm16 mn16 bm16 bn64 ua32"},
    {"amx_i6_scaled", TW_ISA_avx512amx, "N=64,K=256,w=i6,g=64,s=f16i8,a=i8g256", "cpu.amx_gemm",
     "mm16 mn16 bm16 bn64 ua256"},
    {"amx_bf16_u4", TW_ISA_avx512amx, "N=64,K=64,w=u4,g=32,s=f16,fpmath=bf16", "cpu.amx_bf16",
     "mm16 mn16 bm16 bn64 ua64"},
    {"dq_u4_code", TW_ISA_avx2, "N=64,K=64,w=u4,g=32,s=f16,z=code", "cpu.dq_gemm",
     "mm1 mn8 bm8 bn64"},
    {"dq_i4_value_silu", TW_ISA_avx512, "N=64,K=64,w=i4,g=32,s=bf16,z=value,act=silu",
     "cpu.dq_gemm", "mm1 mn16 bm8 bn64"},
    {"dq_lut4", TW_ISA_avx512, "N=64,K=64,w=lut4,g=32,s=f16", "cpu.dq_gemm", "mm2 mn16 bm8 bn64"},
    {"dq_e4m3", TW_ISA_avx2, "N=64,K=64,w=e4m3,g=32,s=f32", "cpu.dq_gemm", "mm2 mn8 bm8 bn64"},
    {"dq_plain_bf16", TW_ISA_avx2, "N=64,K=64,x=bf16,w=bf16", "cpu.dq_gemm", "mm2 mn8 bm8 bn64"},
    {"dq_plain_f16_portable", TW_ISA_portable, "N=6,K=9,x=f16,w=f16,act=relu", "cpu.dq_gemm",
     "mm1 mn4 bm8 bn64"},
    {"bf16_u4_none", TW_ISA_avx512bf16, "N=64,K=64,x=bf16,w=u4,g=32,s=f16", "cpu.bf16_gemm",
     "mm1 mn16 bm8 bn64"},
};

/* The trace without its banner, which names versions. */
static char *trace_of(size_t row) {
    const tw_template *tmpl = tw_template_find(rows[row].kernel);
    if (!tmpl) fail_msg("%s: no such kernel", rows[row].kernel);
    tw_problem p = problem_of(rows[row].problem);
    tw_target target = target_of(rows[row].isa);
    tw_config config;
    tw_str out = {0};
    if (tw_config_parse(rows[row].config, &config) != TW_OK ||
        tw_template_compile(tmpl, &p, &config, &target, TW_CODE_TRACE, &out) != TW_OK)
        fail_msg("%s: %s", rows[row].name, tw_error_message());
    const char *from = tw_str_text(&out);
    while (*from == '#') from = strchr(from, '\n') + 1;
    char *text = strdup(from);
    assert_non_null(text);
    tw_str_free(&out);
    return text;
}

static void golden_path(size_t row, char path[4096]) {
    snprintf(path, 4096, "%s/%s.trace", folder, rows[row].name);
}

static char *read_golden(size_t row) {
    static char text[1 << 20];
    char path[4096];
    golden_path(row, path);
    FILE *file = fopen(path, "rb");
    size_t size = 0;
    if (file) {
        size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[size] = 0;
    return text;
}

static void write_golden(size_t row, const char *text) {
    char path[4096];
    golden_path(row, path);
    FILE *file = fopen(path, "wb");
    bool written = file && fputs(text, file) >= 0;
    if (file) written &= !fclose(file);
    if (!written) fail_msg("%s cannot be written", path);
}

/* Points at the first line that differs. */
static void report_difference(size_t row, const char *golden, const char *now) {
    int line = 1;
    size_t start = 0;
    for (size_t i = 0; golden[i] && golden[i] == now[i]; i++)
        if (golden[i] == '\n') {
            line++;
            start = i + 1;
        }
    fprintf(stderr, "%s.trace:%d: %s\n    was \"%.*s\"\n    is  \"%.*s\"\n", rows[row].name, line,
            *golden ? "the code is another" : "there is no golden trace",
            (int)strcspn(golden + start, "\n"), golden + start, (int)strcspn(now + start, "\n"),
            now + start);
}

static void test_traces(void **state) {
    (void)state;
    int differences = 0;
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char *now = trace_of(i);
        if (update) write_golden(i, now);
        const char *golden = read_golden(i);
        if (strcmp(golden, now) != 0) {
            report_difference(i, golden, now);
            differences++;
        }
        free(now);
    }
    if (differences)
        fprintf(stderr, "if that is meant: test_kernels_traces FOLDER --update-golden\n");
    assert_int_equal(differences, 0);
}

/* The trace depends on what was asked for and on nothing else. */
static void test_deterministic(void **state) {
    (void)state;
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char *first = trace_of(i), *second = trace_of(i);
        assert_string_equal(first, second);
        free(first);
        free(second);
    }
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    folder = arguments[1];
    update = count > 2 && !strcmp(arguments[2], "--update-golden");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_deterministic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
