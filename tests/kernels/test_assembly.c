/* What guessed configs compile to: no access to the stack in the innermost loops that multiply,
 * where a spill would cost as much as the work.  Targets need not be able to run here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"

enum { MOST_LINES = 20000 };

typedef struct listing {
    char *text; /* owned; each line ends with a NUL */
    char *lines[MOST_LINES];
    int count;
} listing;

/* The lines of one function, from its label to the end of its code. */
static void cut_function(listing *l, const char *assembly, const char *name) {
    char label[64];
    snprintf(label, sizeof label, "\n%s:", name);
    const char *from = strstr(assembly, label);
    if (!from) fail_msg("no %s in the assembly", name);
    l->text = strdup(from + 1);
    assert_non_null(l->text);
    l->count = 0;
    for (char *line = strtok(l->text, "\n"); line && strncmp(line, ".Lfunc_end", 10) != 0;
         line = strtok(NULL, "\n")) {
        assert_true(l->count < MOST_LINES);
        l->lines[l->count++] = line;
    }
}

/* The line of the label that a jump goes back to, -1 for all other lines. */
static int loop_start(const listing *l, int line) {
    const char *at = l->lines[line];
    while (*at == '\t' || *at == ' ') at++;
    const char *target = strstr(at, ".LBB");
    if (*at != 'j' || !target) return -1;
    size_t size = strcspn(target, " \t#");
    for (int i = 0; i < line; i++)
        if (!strncmp(l->lines[i], target, size) && l->lines[i][size] == ':') return i;
    return -1;
}

static bool has_inner_loop(const listing *l, int from, int to) {
    for (int i = from; i < to; i++)
        if (loop_start(l, i) >= from) return true;
    return false;
}

static bool multiplies(const listing *l, int from, int to) {
    static const char *const words[] = {"dpbusd", "maddubsw", "maddwd", "fmadd", "dpbf16ps"};
    for (int i = from; i <= to; i++)
        for (size_t w = 0; w < TW_COUNT(words); w++)
            if (strstr(l->lines[i], words[w])) return true;
    return false;
}

/* %rbp is a base for the stack only where the function sets it up as one. */
static bool touches_stack(const listing *l, int line, bool has_frame) {
    return strstr(l->lines[line], "(%rsp") || (has_frame && strstr(l->lines[line], "(%rbp"));
}

/* dq_gemm keeps what it subtracts from a group's codes in stack slots on purpose: the subtraction
 * reads it as its memory operand, at no cost and without a register.  Anything else is a spill. */
static bool is_meant(const listing *l, int line) {
    const char *at = strstr(l->lines[line], "subps\t");
    return at && strchr(at, '(') && strchr(at, '(') < strchr(at, ',');
}

/* Innermost multiplying loops; *touching: accesses to the stack in them. */
static int check_loops(const listing *l, int *touching, const char **example) {
    bool has_frame = false;
    int loops = 0;
    for (int i = 0; i < l->count; i++) has_frame |= strstr(l->lines[i], "%rsp, %rbp") != NULL;
    for (int i = 0; i < l->count; i++) {
        int from = loop_start(l, i);
        if (from < 0 || has_inner_loop(l, from, i) || !multiplies(l, from, i)) continue;
        loops++;
        for (int k = from; k <= i; k++)
            if (touches_stack(l, k, has_frame) && !is_meant(l, k)) {
                (*touching)++;
                *example = l->lines[k];
            }
    }
    return loops;
}

/* Accesses that are meant, of a loop that multiplies; all others would be spills.
 *   - Where a group is one body, its end is in the loop: each total that lives in a slot is loaded
 *     and stored.
 *   - With 16 registers the i32 sums beside vpmaddubsw's i16 ones live in slots, loaded and stored
 *     once in 32 columns of K; and LLVM may keep a constant or two on the stack, not in .rodata. */
static int meant_accesses(const compiled *c) {
    const tw_isa_info *isa = tw_target_isa(&c->target);
    int vectors = c->config.micro_m * c->config.micro_n / tw_target_lanes(&c->target), meant = 0;
    bool few = isa->vector_registers == 16, integer = c->problem.scheme.act_quant != TW_ACTQ_NONE;
    if (integer && c->problem.scheme.group_k == 32) meant += 2 * vectors;
    if (integer && few && isa->dot == TW_DOT_MADDUBS) meant += 2 * vectors;
    return meant + (!integer && few ? 2 : 0);
}

/* text: of the config; NULL: the guess. */
static int check_kernel(const tw_problem *p, tw_isa isa, const char *text) {
    tw_target target = target_of(isa);
    int i = 0;
    while (tw_template_row(i)->reject_problem(&target, p)) i++;
    const tw_template *tmpl = tw_template_row(i);
    compiled c = {.tmpl = tmpl, .problem = *p, .target = target};
    tmpl->guess(&target, p, &c.config);
    if (text) assert_int_equal(tw_config_parse(text, &c.config), TW_OK);
    assert_null(tmpl->reject(&target, p, &c.config));
    tw_str assembly = {0};
    if (tw_template_compile(tmpl, p, &c.config, &target, TW_CODE_ASM, &assembly) != TW_OK)
        fail_msg("%s", tw_error_message());
    listing l;
    int touching = 0;
    const char *example = "";
    cut_function(&l, tw_str_text(&assembly), "tw_matmul");
    int loops = check_loops(&l, &touching, &example);
    if (!loops) fail_msg("no loop that multiplies was found");
    bool spills = touching > meant_accesses(&c);
    if (spills) {
        tw_str problem = {0}, config = {0};
        tw_problem_text(p, &problem);
        tw_config_text(&c.config, &config);
        fprintf(stderr,
                "tilewright dump cpu:%s %s --kernel %s --config \"%s\" --asm\n"
                "    %d accesses to the stack in %d inner loops, such as %s\n",
                tw_target_isa(&target)->name, tw_str_text(&problem), tmpl->name,
                tw_str_text(&config), touching, loops, example);
        tw_str_free(&problem);
        tw_str_free(&config);
    }
    tw_str_free(&assembly);
    free(l.text);
    return spills;
}

static const char *const problems[] = {
    "M=1,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8",
    "M=64,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8",
    "M=512,N=4096,K=4096,w=u4,g=32,s=f16,z=code,a=i8",
    "M=512,N=4096,K=4096,w=i4,g=128,s=f16,z=none,a=i8",
    "M=512,N=4096,K=4096,w=u4,g=32,s=f16,z=value,a=i8g32",
    "M=512,N=4096,K=4096,w=i8,g=channel,s=f32,z=none,a=i8",
    "M=64,N=576,K=576,w=u4,g=64,s=f16,z=code,a=i8g64",
    "M=1,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=none",
    "M=512,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=none",
    "M=512,N=4096,K=4096,x=bf16,w=u4,g=128,s=f16,z=none,a=none,y=bf16",
    "M=1,N=4096,K=4096,w=lut4,g=64,s=f16",
    "M=512,N=4096,K=4096,w=lut4,g=64,s=f16",
    "M=512,N=4096,K=4096,w=e2m1,g=32,s=e8m0",
    "M=512,N=4096,K=4096,w=e4m3,g=channel,s=f32",
    "M=512,N=576,K=1536,w=f32",
    "M=16,N=576,K=1536,x=bf16,w=bf16",
};

static void test_inner_loops(void **state) {
    (void)state;
    static const tw_isa isas[] = {TW_ISA_avx2, TW_ISA_avxvnni, TW_ISA_avx512vnni};
    int touching = 0;
    for (size_t i = 0; i < TW_COUNT(problems); i++)
        for (size_t k = 0; k < TW_COUNT(isas); k++) {
            tw_problem p = problem_of(problems[i]);
            touching += check_kernel(&p, isas[k], NULL);
        }
    assert_int_equal(touching, 0);
}

/* No guess: whether it pays differs from processor to processor. */
static void test_unpacked_ahead(void **state) {
    (void)state;
    tw_problem p = problem_of("M=512,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8");
    assert_int_equal(check_kernel(&p, TW_ISA_avx2, "mm4 mn16 bm120 bn256 ua512"), 0);
    assert_int_equal(check_kernel(&p, TW_ISA_avxvnni, "mm6 mn16 bm120 bn256 ua512"), 0);
    assert_int_equal(check_kernel(&p, TW_ISA_avx512vnni, "mm12 mn32 bm120 bn256 ua512"), 0);
    p = problem_of("M=512,N=4096,K=4096,w=i8,g=128,s=f16,a=i8");
    assert_int_equal(check_kernel(&p, TW_ISA_avx2, "mm2 mn32 bm120 bn256 ua256"), 0);
}

/* The largest frames that configs may ask for are within what tw_linear_forward promises. */
static void test_frames(void **state) {
    (void)state;
    enum { PROMISED = 80 << 10, BESIDE = 1 << 10 }; /* return address, saved registers */
    static const struct {
        tw_isa isa;
        const char *problem, *kernel, *config;
    } rows[] = {
        {TW_ISA_avx2, "N=64,K=4096,w=u4,g=32,s=f16,z=value,a=i8g32", "cpu.int_gemm",
         "mm4 mn32 bm256 bn64 ua1024"},
        {TW_ISA_avx512vnni, "N=64,K=4096,w=u4,g=32,s=f16,z=value,a=i8g32", "cpu.int_gemm",
         "mm4 mn32 bm256 bn64 ua1024"},
        {TW_ISA_avx2, "N=64,K=4096,w=i8,g=32,s=f16,z=value,a=i8g32", "cpu.int_gemm",
         "mm4 mn32 bm384 bn64 pf64 ua256"},
        {TW_ISA_avx2, "N=64,K=4096,w=u8,g=32,s=f16i8,z=code,a=i8g256", "cpu.int_gemm",
         "mm2 mn64 bm136 bn64 pf64 ua256"},
        {TW_ISA_avx512vnni, "N=64,K=4096,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.int_gemm",
         "mm8 mn64 bm192 bn64 pf64 ua256 gp1"},
        {TW_ISA_avx512vnni, "N=64,K=4096,w=u2,g=16,s=f16i8,z=value,a=i8g256", "cpu.int_gemm",
         "mm8 mn64 bm96 bn64 pf64 ua512 gp1"},
        {TW_ISA_avx512amx, "N=64,K=4096,w=u4,g=64,s=f16,z=value,a=i8z", "cpu.amx_gemm",
         "mm16 mn32 bm256 bn64 ua448"},
        {TW_ISA_avx512amx, "N=64,K=4096,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.amx_gemm",
         "mm32 mn32 bm256 bn64 ua256"},
        {TW_ISA_avx512amx, "N=64,K=4096,w=i8,s=f32,a=i8", "cpu.amx_gemm",
         "mm32 mn32 bm256 bn64 ua1024"},
        {TW_ISA_avx512amx, "N=64,K=4096,w=u4,g=32,s=f16,z=code,fpmath=bf16", "cpu.amx_bf16",
         "mm32 mn32 bm256 bn64 ua640"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        tw_problem p = problem_of(rows[i].problem);
        tw_target target = target_of(rows[i].isa);
        tw_config config;
        tw_str assembly = {0};
        assert_int_equal(tw_config_parse(rows[i].config, &config), TW_OK);
        assert_int_equal(tw_template_compile(tw_template_find(rows[i].kernel), &p, &config, &target,
                                             TW_CODE_ASM, &assembly),
                         TW_OK);
        long frame = 0;
        const char *at = strstr(tw_str_text(&assembly), "\ntw_matmul:");
        assert_non_null(at);
        while ((at = strstr(at, "subq\t$"))) {
            char *end;
            long bytes = strtol(at += 6, &end, 10);
            if (!strncmp(end, ", %rsp", 6) && bytes > frame) frame = bytes;
        }
        assert_in_range(frame, 32 << 10, PROMISED - BESIDE);
        tw_str_free(&assembly);
    }
}

/* The search itself: it finds a spill where there is one, and only in the innermost loop. */
static void test_search(void **state) {
    (void)state;
    static const char assembly[] = "\ntw_matmul:\n"
                                   "\tmovq\t%rsp, %rbp\n"
                                   ".LBB0_1:\n"
                                   "\tmovq\t8(%rsp), %rax\n"
                                   "\tvfmadd231ps\t%ymm0, %ymm1, %ymm2\n"
                                   ".LBB0_2:\n"
                                   "\tvfmadd231ps\t(%rax), %ymm1, %ymm2\n"
                                   "\tvmovaps\t%ymm2, SPILL\n"
                                   "\tjl\t.LBB0_2\n"
                                   "\tjl\t.LBB0_1\n"
                                   "\tjmp\t.LBB0_3\n"
                                   ".LBB0_3:\n"
                                   ".Lfunc_end0:\n";
    static const char *const places[] = {"32(%rsp)", "-8(%rbp)", "32(%rdx)"};
    for (size_t i = 0; i < TW_COUNT(places); i++) {
        char text[512];
        const char *at = strstr(assembly, "SPILL");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - assembly), assembly, places[i], at + 5);
        listing l;
        int touching = 0;
        const char *example = NULL;
        cut_function(&l, text, "tw_matmul");
        assert_int_equal(check_loops(&l, &touching, &example), 1);
        assert_int_equal(touching, i < 2);
        free(l.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search),
        cmocka_unit_test(test_inner_loops),
        cmocka_unit_test(test_unpacked_ahead),
        cmocka_unit_test(test_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
