/* The compiler keeps its machines and passes between compiles: what a kernel compiles to must not
 * depend on what was compiled before it.  The first compile of a process is the measure. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/base/cmocka_all.h"
#include "tests/kernels/run.h"

static const char *const problems[] = {
    "M=1,N=4096,K=4096,w=u4,g=128,s=f16,z=code,a=i8",
    "M=64,N=576,K=576,w=u4,g=64,s=f16,z=code,a=i8g64",
    "M=512,N=576,K=1536,w=f32",
    "M=16,N=70,K=1530,x=bf16,w=i3,g=32,s=f16,z=none,a=none,act=silu",
};
static const tw_isa isas[] = {TW_ISA_portable, TW_ISA_avx2, TW_ISA_avx512vnni};
enum { CASES = TW_COUNT(problems) * TW_COUNT(isas) };

static tw_status compile(int number, tw_code_kind kind, tw_str *out) {
    tw_problem p = problem_of(problems[number % TW_COUNT(problems)]);
    tw_target target = target_of(isas[number / TW_COUNT(problems)]);
    int row = 0;
    while (tw_template_row(row)->reject_problem(&target, &p)) row++;
    tw_config config = {0};
    tw_template_row(row)->guess(&target, &p, &config);
    return tw_template_compile(tw_template_row(row), &p, &config, &target, kind, out);
}

/* What a process of its own compiles. */
static void compile_alone(int number, tw_str *out) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        tw_str object = {0};
        bool good = compile(number, TW_CODE_OBJECT, &object) == TW_OK;
        good = good && write(ends[1], object.text, object.size) == (ssize_t)object.size;
        _exit(!good);
    }
    close(ends[1]);
    char part[4096];
    for (ssize_t size; (size = read(ends[0], part, sizeof part)) > 0;)
        tw_str_add_bytes(out, part, (size_t)size);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(tw_str_ok(out), TW_OK);
    assert_true(out->size > 0);
}

static void assert_same(const tw_str *alone, int number) {
    tw_str here = {0};
    if (compile(number, TW_CODE_OBJECT, &here) != TW_OK) fail_msg("%s", tw_error_message());
    assert_int_equal(here.size, alone->size);
    assert_memory_equal(here.text, alone->text, here.size);
    tw_str_free(&here);
}

static void test_same_bytes_whatever_came_before(void **state) {
    (void)state;
    tw_str alone[CASES] = {0}, assembly = {0};
    /* All children first: they must find the compiler as closed as it is here. */
    for (int i = 0; i < CASES; i++) compile_alone(i, &alone[i]);
    for (int i = 0; i < CASES; i++) assert_same(&alone[i], i);
    assert_int_equal(compile(0, TW_CODE_ASM, &assembly), TW_OK);
    for (int i = CASES; i-- > 0;) assert_same(&alone[i], i);
    for (int i = 0; i < CASES; i++) tw_str_free(&alone[i]);
    tw_str_free(&assembly);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_whatever_came_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
