/* What is prefetched: each line of the weights as far ahead as the config says, in the order of
 * their addresses, once where a tile has whole panels; and, by kernels of the matrix unit, lines of
 * y.  And with in_order, that lines are first read in that order. */
#include <stdio.h>
#include <stdlib.h>

#include "templates/layouts/panel64.h"
#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"

enum { LINE = 64 };

typedef struct seen {
    const machine *m;
    int *times;    /* of each line of the weights */
    int64_t lines; /* of the weights */
    int64_t ahead; /* bytes */
    int64_t last;  /* offset */
    int64_t outside, backwards;
    char *read; /* of each line, whether it was */
    int64_t last_read, read_backwards;
} seen;

static void note_read(seen *s, int64_t offset) {
    int64_t line = offset / LINE;
    if (offset < 0 || line >= s->lines || s->read[line]) return; /* of x, of the arguments.. */
    s->read[line] = 1;
    s->read_backwards += line < s->last_read;
    s->last_read = line;
}

static int64_t from_weights(const machine *m, uintptr_t address) {
    return (int64_t)(address - (uintptr_t)m->weights);
}

static void note(void *arg, machine_access access, uintptr_t address) {
    seen *s = arg;
    int64_t offset = from_weights(s->m, address), line = (offset - s->ahead) / LINE;
    if (access == MACHINE_READS) note_read(s, offset);
    if (access != MACHINE_PREFETCHES) return;
    s->backwards += offset <= s->last;
    s->last = offset;
    if (offset < s->ahead || line >= s->lines)
        s->outside++;
    else
        s->times[line]++;
}

/* What one call of the kernel reads, writes and prefetches goes to `body`; *m: the machine. */
typedef void watch_body(void *arg, machine_access access, uintptr_t address);
static void run_watched(const char *problem, const char *kernel, tw_isa isa, const char *text,
                        watch_body *body, void *arg, const machine **m) {
    tw_problem p = problem_of(problem);
    tw_target target = target_of(isa);
    tw_config config;
    compiled c;
    layer l;
    run_options options = {.M = p.M};
    assert_int_equal(tw_config_parse(text, &config), TW_OK);
    assert_int_equal(compiled_init(&c, tw_template_find(kernel), &p, &config, &target, RUN_MACHINE),
                     TW_OK);
    layer_init(&l, &p, LAYER_RANDOM, 7);
    *m = c.machine;
    c.machine->watch = body;
    c.machine->watch_arg = arg;
    assert_int_equal(run_layer(&c, &l, &l, &options), TW_OK);
    layer_free(&l);
    compiled_free(&c);
}

static int64_t panel_lines(const char *problem, int64_t *panels) {
    tw_problem p = problem_of(problem);
    tw_panel panel;
    tw_panel_init(&p, &panel);
    *panels = panel.panels;
    return panel.panel_stride / LINE;
}

static seen watch(const char *problem, const char *kernel, tw_isa isa, const char *config) {
    tw_config parsed;
    int64_t panels, lines = panel_lines(problem, &panels);
    assert_int_equal(tw_config_parse(config, &parsed), TW_OK);
    seen s = {.lines = panels * lines, .ahead = (int64_t)parsed.prefetch * LINE, .last = -1};
    s.times = calloc((size_t)s.lines, sizeof *s.times);
    s.read = calloc((size_t)s.lines, 1);
    assert_non_null(s.times);
    assert_non_null(s.read);
    run_watched(problem, kernel, isa, config, note, &s, &s.m);
    return s;
}

static void seen_free(seen *s) {
    free(s->times);
    free(s->read);
}

static void expect(const char *problem, const char *kernel, tw_isa isa, const char *config,
                   bool once, bool ordered) {
    seen s = watch(problem, kernel, isa, config);
    int64_t wrong = 0;
    for (int64_t i = 0; i < s.lines; i++) wrong += once ? s.times[i] != 1 : s.times[i] < 1;
    if (wrong || s.outside || (ordered && s.backwards))
        fail_msg("%s, %s: %lld of %lld lines wrong, %lld outside, %lld backwards", problem, config,
                 (long long)wrong, (long long)s.lines, (long long)s.outside,
                 (long long)s.backwards);
    seen_free(&s);
}

static void test_whole_panels(void **state) {
    (void)state;
    static const struct {
        const char *problem, *kernel;
        tw_isa isa;
    } rows[] = {
        {"M=1,N=128,K=512,w=i6,g=16,s=f16i8,a=i8g256", "cpu.int_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"M=1,N=128,K=512,w=u4,g=32,s=f16i8,z=value,a=i8", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"M=1,N=128,K=496,w=i5,g=32,s=f16,a=i8g32", "cpu.int_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=256,w=u4,g=128,s=f16,z=code,a=i8", "cpu.int_gemm", TW_ISA_avx512},
        {"M=1,N=128,K=256,w=i8,s=f32,a=i8", "cpu.int_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=96,w=i3,g=16,s=f16,a=i8", "cpu.int_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=512,w=u4,g=32,s=f16i8,z=value", "cpu.dq_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=100,x=f16,w=f16", "cpu.dq_gemm", TW_ISA_avx2},
        {"M=1,N=128,K=100,w=f32", "cpu.dq_gemm", TW_ISA_avx512},
        {"M=1,N=128,K=96,w=e4m3,g=32,s=f32", "cpu.dq_gemm", TW_ISA_avx512},
        {"M=1,N=128,K=96,x=bf16,w=u4,g=32,s=f16", "cpu.bf16_gemm", TW_ISA_avx512bf16},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        expect(rows[i].problem, rows[i].kernel, rows[i].isa, "mm1 mn64 bm1 bn64 pf16", true, true);
}

/* Two streams take turns; codes that are unpacked ahead are read once a task, of narrower tiles
 * some lines by two of them, and prefetched twice. */
static void test_other_walks(void **state) {
    (void)state;
    expect("M=1,N=512,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni,
           "mm1 mn64 bm1 bn512 st2 pf64", true, false);
    expect("M=8,N=64,K=512,w=i6,g=16,s=f16i8,a=i8g256", "cpu.int_gemm", TW_ISA_avx2,
           "mm2 mn32 bm8 bn64 ua256 pf64", false, false);
    expect("M=1,N=64,K=512,w=u4,g=32,s=f16i8,z=value", "cpu.dq_gemm", TW_ISA_avx2,
           "mm1 mn16 bm1 bn64 pf16", false, false);
    expect("M=16,N=64,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.amx_gemm", TW_ISA_avx512amx,
           "mm16 mn16 bm16 bn64 ua256 pf16", false, false);
    expect("M=16,N=64,K=96,w=u4,g=32,s=f16,fpmath=bf16", "cpu.amx_bf16", TW_ISA_avx512amx,
           "mm16 mn32 bm16 bn64 ua96 pf16", false, false);
}

static void test_none(void **state) {
    (void)state;
    seen s = watch("M=1,N=64,K=64,w=u4,g=32,s=f16,a=i8g32", "cpu.int_gemm", TW_ISA_avx2,
                   "mm1 mn64 bm1 bn64");
    for (int64_t i = 0; i < s.lines; i++) assert_int_equal(s.times[i], 0);
    seen_free(&s);
}

/* Codes of planes in registers, or touched; groups of a chunk; factors, zeros; two rows a tile. */
static void test_lines_are_read_in_order(void **state) {
    (void)state;
    static const char *const configs[] = {"mm1 mn64 bm1 bn64 pf8 io1", "mm2 mn64 bm2 bn64 pf8 io1"};
    static const struct {
        const char *problem, *kernel;
        tw_isa isa;
    } rows[] = {
        {"N=128,K=512,w=i6,g=16,s=f16i8,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"N=128,K=512,w=i6,g=16,s=f16i8,a=i8g256", "cpu.int_gemm", TW_ISA_avx2},
        {"N=128,K=512,w=u5,g=32,s=f16i8,z=value,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"N=128,K=512,w=u7,g=32,s=f16i8,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"N=128,K=496,w=i5,g=32,s=f16,a=i8g32", "cpu.int_gemm", TW_ISA_avx512},
        {"N=128,K=512,w=u4,g=32,s=f16i8,z=value,a=i8g256", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"N=128,K=256,w=u4,g=128,s=f16,z=code,a=i8", "cpu.int_gemm", TW_ISA_avx512},
        {"N=128,K=96,w=i3,g=16,s=f16,a=i8", "cpu.int_gemm", TW_ISA_avx512vnni},
        {"N=128,K=256,w=i8,g=32,s=f16,a=i8g32", "cpu.int_gemm", TW_ISA_avx2},
        {"N=130,K=64,w=i1,g=128,s=f16i8,a=i8z", "cpu.int_gemm", TW_ISA_avx2},
        {"N=128,K=512,w=i6,g=16,s=f16i8", "cpu.dq_gemm", TW_ISA_avx512},
        {"N=128,K=96,x=bf16,w=u5,g=32,s=f16", "cpu.bf16_gemm", TW_ISA_avx512bf16},
    };
    for (size_t i = 0; i < TW_COUNT(configs) * TW_COUNT(rows); i++) {
        size_t row = i / TW_COUNT(configs), M = i % TW_COUNT(configs) + 1;
        char problem[128];
        snprintf(problem, sizeof problem, "M=%zu,%s", M, rows[row].problem);
        seen s = watch(problem, rows[row].kernel, rows[row].isa, configs[M - 1]);
        int64_t unread = 0;
        for (int64_t line = 0; line < s.lines; line++) unread += !s.read[line];
        if (s.read_backwards || unread)
            fail_msg("%s, %s: %lld times backwards, %lld of %lld lines unread", problem,
                     configs[M - 1], (long long)s.read_backwards, (long long)unread,
                     (long long)s.lines);
        seen_free(&s);
    }
    /* Without it they are not. */
    seen s = watch("M=1,N=128,K=512,w=i6,g=16,s=f16i8,a=i8g256", rows[0].kernel, rows[0].isa,
                   "mm1 mn64 bm1 bn64 pf8");
    assert_true(s.read_backwards > 0);
    seen_free(&s);
}

/* ---- stretches that are unpacked ahead ---- */

enum { STRETCHES = 3, STRETCH_ROWS = 128 };

typedef struct stretches {
    const machine *m;
    int64_t lines; /* of one; the panel has all of them */
    char prefetched[1024];
    int64_t missing; /* in stretches after the first, when their first line was read */
    int read;        /* of those */
} stretches;

static void note_stretch(void *arg, machine_access access, uintptr_t address) {
    stretches *s = arg;
    int64_t offset = from_weights(s->m, address), line = offset / LINE;
    bool prefetched = access == MACHINE_PREFETCHES;
    if (!prefetched && access != MACHINE_READS) return;
    if (offset < 0 || line >= STRETCHES * s->lines) return;
    if (prefetched) s->prefetched[line] = 1;
    if (prefetched || offset != (s->read + 1) * s->lines * LINE) return;
    s->read++;
    for (int64_t i = line; i < line + s->lines; i++) s->missing += !s->prefetched[i];
}

static int64_t missing_lines(const char *problem, const char *config) {
    char full[128];
    int64_t panels;
    snprintf(full, sizeof full, "M=%d,N=64,%s", STRETCH_ROWS, problem);
    stretches s = {.lines = panel_lines(full, &panels) / STRETCHES};
    assert_in_range(STRETCHES * s.lines, 1, sizeof s.prefetched);
    run_watched(full, "cpu.int_gemm", TW_ISA_avx512vnni, config, note_stretch, &s, &s.m);
    assert_int_equal(s.read, STRETCHES - 1);
    return s.missing;
}

/* All of a stretch is prefetched while the tiles of the one before are computed. */
static void test_the_next_stretch(void **state) {
    (void)state;
    static const char *const factors = "K=768,w=i6,g=16,s=f16i8,a=i8g256";
    static const char *const none = "K=768,w=u4,g=32,s=f16,a=i8";
    assert_int_equal(missing_lines(factors, "mm4 mn64 bm128 bn64 ua256 pf8"), 0);
    assert_int_equal(missing_lines(factors, "mm4 mn64 bm128 bn64 ua256 pf8 gp1"), 0);
    assert_int_equal(missing_lines(none, "mm4 mn64 bm128 bn64 ua256 pf8"), 0);
    assert_true(missing_lines(none, "mm4 mn64 bm128 bn64 ua256") > 0);
}

/* ---- y, of the matrix unit ---- */

enum { UNIT_ROWS = 40, UNIT_COLUMNS = 64 };

typedef struct y_lines {
    const machine *m;
    uintptr_t prefetched[4096]; /* addresses over LINE */
    int64_t count, missing, written;
} y_lines;

/* What is written beside the stack is y: by the lines of what is stored first in them. */
static void note_y(void *arg, machine_access access, uintptr_t address) {
    y_lines *s = arg;
    uintptr_t line = address / LINE, frame = (uintptr_t)s->m->frame;
    if (access == MACHINE_PREFETCHES_TO_WRITE) {
        assert_in_range(s->count, 0, TW_COUNT(s->prefetched) - 1);
        s->prefetched[s->count++] = line;
    }
    if (access != MACHINE_WRITES || (address >= frame && address < frame + s->m->frame_size))
        return;
    bool found = false;
    for (int64_t i = 0; i < s->count; i++) found |= s->prefetched[i] == line;
    s->written++;
    s->missing += !found;
}

/* Lines of y are prefetched while the tile that they are of is multiplied. */
static void test_lines_of_y(void **state) {
    (void)state;
    static const struct {
        const char *problem, *kernel, *config;
    } rows[] = {
        {"K=96,w=u4,g=32,s=f16,fpmath=bf16", "cpu.amx_bf16", "mm32 mn32 bm64 bn64 ua96"},
        {"K=96,w=u4,g=32,s=f16,fpmath=bf16", "cpu.amx_bf16", "mm16 mn16 bm64 bn64 ua96"},
        {"K=512,w=i8,s=f32,a=i8", "cpu.amx_gemm", "mm32 mn32 bm64 bn64 ua512"},
        {"K=512,w=i8,s=f32,a=i8,bias=f32", "cpu.amx_gemm", "mm16 mn32 bm64 bn64 ua512"},
    };
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        char problem[128];
        snprintf(problem, sizeof problem, "M=%d,N=%d,%s", UNIT_ROWS, UNIT_COLUMNS, rows[i].problem);
        y_lines s = {0};
        run_watched(problem, rows[i].kernel, TW_ISA_avx512amx, rows[i].config, note_y, &s, &s.m);
        assert_true(s.written > 0);
        if (s.missing)
            fail_msg("%s: %lld of %lld stores wait for a line", problem, (long long)s.missing,
                     (long long)s.written);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_panels),
        cmocka_unit_test(test_other_walks),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_lines_are_read_in_order),
        cmocka_unit_test(test_the_next_stretch),
        cmocka_unit_test(test_lines_of_y),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
