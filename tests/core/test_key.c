/* Keys: the same for the same, different as soon as anything differs that matters. */
#include <string.h>

#include "src/base/status.h"
#include "src/core/key.h"
#include "tests/base/cmocka_all.h"

static const tw_target machine = {TW_ISA_avx2, "AMD EPYC 7B13", 32768, 524288, 33554432, 2};
static const tw_config config = {.micro_m = 4, .micro_n = 64};
static const char problem_text[] =
    "M=16,N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none";

static tw_problem parsed(const char *text) {
    tw_problem problem;
    if (tw_problem_parse(text, false, &problem) != TW_OK) fail_msg("%s", tw_error_message());
    return problem;
}

/* Digests that must all differ. */
typedef struct seen {
    int count;
    char digests[128][TW_DIGEST_TEXT];
} seen;

/* Takes the key over. */
static void add_new(seen *s, tw_key *key) {
    char digest[TW_DIGEST_TEXT];
    tw_sha256_text(key->text.text, key->text.size, digest);
    assert_string_equal(digest, key->digest);
    assert_null(strchr(key->text.text, '\n'));
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->digests[i], key->digest)) fail_msg("seen before: %s", key->text.text);
    assert_true(s->count < (int)TW_COUNT(s->digests));
    memcpy(s->digests[s->count++], key->digest, TW_DIGEST_TEXT);
    tw_key_free(key);
}

static const char *const other_problems[] = {
    "N=4097,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1025,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f16,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=i4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=16,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32x32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=0x32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=bf16,z=value,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=code,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=none,a=i8g32,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g64,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8z,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=none,y=f32,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f16,bias=none,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=f32,act=none",
    "N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,act=silu",
};

static void test_choice_text(void **state) {
    (void)state;
    tw_problem problem = parsed(problem_text);
    tw_key key;
    assert_int_equal(tw_choice_key(&problem, 9, &machine, &key), TW_OK);
    assert_string_equal(
        key.text.text,
        "choice/1 | M<=512,N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,"
        "bias=none,act=none | cpu;isa=avx2;model=AMD EPYC 7B13;l1=32768;l2=524288;"
        "l3=33554432;threads=2");
    /* Recorded by sha256sum: keys of one version never change. */
    assert_string_equal(key.digest,
                        "5b8d5e8635415875c214ce07fb426cfdf3308b21bcb300c8e3bdc04a14bd397a");
    tw_key_free(&key);
    assert_null(key.text.text);
}

static void test_binary_text(void **state) {
    (void)state;
    tw_problem problem = parsed(problem_text);
    tw_key key;
    assert_int_equal(
        tw_binary_key(&problem, "cpu.int_gemm", 3, &config, &machine, "llvm 19.1.7", &key), TW_OK);
    assert_string_equal(
        key.text.text,
        "binary/1 | N=4096,K=1024,x=f32,w=u4,g=32,s=f16,z=value,a=i8g32,y=f32,bias=none,"
        "act=none | cpu.int_gemm/3 | mm4 mn64 | cpu;isa=avx2;llvm=haswell | llvm 19.1.7");
    assert_string_equal(key.digest,
                        "880feafc118d927949f38bf29c10b9640851e8e836337ef3c6675c2e26918421");
    tw_key_free(&key);
}

/* Free text cannot pass for a part of the key. */
static void test_escapes(void **state) {
    (void)state;
    tw_target odd = {.isa = TW_ISA_portable, .model = "a;b=c|d%e\n\xe9 f", .threads = 1};
    tw_str text = {0};
    tw_device_text(&odd, &text);
    assert_string_equal(tw_str_text(&text),
                        "cpu;isa=portable;model=a%3Bb%3Dc%7Cd%25e%0A%E9 f;l1=0;l2=0;"
                        "l3=0;threads=1");
    tw_str_free(&text);
    tw_problem problem = parsed("N=1,K=2,w=f32");
    tw_key key;
    assert_int_equal(tw_binary_key(&problem, "k | m", 1, &(tw_config){0}, &odd, "c | c", &key),
                     TW_OK);
    assert_string_equal(
        key.text.text,
        "binary/1 | N=1,K=2,x=f32,w=f32,a=none,y=f32,bias=none,act=none | k %7C m/1 |  | "
        "cpu;isa=portable;llvm=x86-64 | c %7C c");
    tw_key_free(&key);
}

static void test_choices_differ(void **state) {
    (void)state;
    seen s = {0};
    tw_key key;
    tw_problem problem = parsed(problem_text);
    for (int bucket = 0; bucket < TW_BUCKETS; bucket++) {
        assert_int_equal(tw_choice_key(&problem, bucket, &machine, &key), TW_OK);
        add_new(&s, &key);
    }
    for (size_t i = 0; i < TW_COUNT(other_problems); i++) {
        tw_problem other = parsed(other_problems[i]);
        assert_int_equal(tw_choice_key(&other, 9, &machine, &key), TW_OK);
        add_new(&s, &key);
    }
    tw_target targets[] = {machine, machine, machine, machine, machine, machine, machine, machine};
    targets[0].isa = TW_ISA_avxvnni;
    targets[1].l1_bytes++;
    targets[2].l2_bytes++;
    targets[3].l3_bytes++;
    targets[4].threads++;
    strcpy(targets[5].model, "AMD EPYC 7B12");
    /* A model that looks like the fields after it. */
    strcpy(targets[6].model, "AMD EPYC 7B13;l1=32768");
    strcpy(targets[7].model, "AMD EPYC 7B13%3Bl1%3D32768");
    for (size_t i = 0; i < TW_COUNT(targets); i++) {
        assert_int_equal(tw_choice_key(&problem, 9, &targets[i], &key), TW_OK);
        add_new(&s, &key);
    }
}

static void test_binaries_differ(void **state) {
    (void)state;
    seen s = {0};
    tw_key key;
    tw_problem problem = parsed(problem_text);
    assert_int_equal(tw_binary_key(&problem, "k", 1, &config, &machine, "c", &key), TW_OK);
    add_new(&s, &key);
    for (size_t i = 0; i < TW_COUNT(other_problems); i++) {
        tw_problem other = parsed(other_problems[i]);
        assert_int_equal(tw_binary_key(&other, "k", 1, &config, &machine, "c", &key), TW_OK);
        add_new(&s, &key);
    }
    for (int i = 0; i < TW_TUNABLE_COUNT; i++) {
        tw_config other = config;
        *tw_config_field(&other, i) += 3;
        /* How a kernel is called is no part of its code. */
        if (tw_tunables[i].part == TW_TUNES_LAUNCH) continue;
        assert_int_equal(tw_binary_key(&problem, "k", 1, &other, &machine, "c", &key), TW_OK);
        add_new(&s, &key);
    }
    for (int isa = 0; isa < TW_ISA_COUNT; isa++) {
        tw_target other = machine;
        other.isa = (tw_isa)isa;
        if (isa == (int)machine.isa) continue;
        assert_int_equal(tw_binary_key(&problem, "k", 1, &config, &other, "c", &key), TW_OK);
        add_new(&s, &key);
    }
    static const struct {
        const char *kernel;
        uint32_t version;
        const char *compiler;
    } rows[] = {{"k2", 1, "c"}, {"k", 2, "c"}, {"k", 1, "c2"}, {"k/1", 1, "c"}, {"k | x", 1, "c"}};
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        assert_int_equal(tw_binary_key(&problem, rows[i].kernel, rows[i].version, &config, &machine,
                                       rows[i].compiler, &key),
                         TW_OK);
        add_new(&s, &key);
    }
}

/* What code does not depend on is not in its key: M, and where it was compiled. */
static void test_binaries_move(void **state) {
    (void)state;
    tw_problem a = parsed(problem_text), b = a;
    tw_target other = {TW_ISA_avx2, "another", 1, 2, 3, 64};
    tw_key first, second;
    b.M = 4096;
    assert_int_equal(tw_binary_key(&a, "k", 1, &config, &machine, "c", &first), TW_OK);
    assert_int_equal(tw_binary_key(&b, "k", 1, &config, &other, "c", &second), TW_OK);
    assert_string_equal(first.text.text, second.text.text);
    assert_string_equal(first.digest, second.digest);
    tw_key_free(&first);
    tw_key_free(&second);
    /* A choice asks for a bucket, whatever M the problem names. */
    assert_int_equal(tw_choice_key(&a, 5, &machine, &first), TW_OK);
    assert_int_equal(tw_choice_key(&b, 5, &machine, &second), TW_OK);
    assert_string_equal(first.text.text, second.text.text);
    tw_key_free(&first);
    tw_key_free(&second);
}

/* Name and version set a decision about an implementation apart from others, and from the
 * choice. */
static void test_implementations(void **state) {
    (void)state;
    tw_problem p = parsed(problem_text);
    tw_key choice, one, other;
    assert_int_equal(tw_choice_key(&p, 4, &machine, &choice), TW_OK);
    assert_int_equal(tw_impl_key(&p, 4, &machine, "my|own", 7, &one), TW_OK);
    size_t length = strlen(choice.text.text);
    assert_memory_equal(one.text.text, choice.text.text, length);
    assert_string_equal(one.text.text + length, " | impl=my%7Cown/7");
    assert_int_equal(tw_impl_key(&p, 4, &machine, "my|own", 8, &other), TW_OK);
    assert_string_not_equal(one.digest, other.digest);
    tw_key_free(&choice);
    tw_key_free(&one);
    tw_key_free(&other);
    assert_int_equal(tw_impl_key(&p, TW_BUCKETS, &machine, "m", 1, &other), TW_INTERNAL);
}

static void test_no_such_bucket(void **state) {
    (void)state;
    tw_problem problem = parsed(problem_text);
    tw_key key = {.digest = "kept"};
    assert_int_equal(tw_choice_key(&problem, TW_BUCKETS, &machine, &key), TW_INTERNAL);
    assert_int_equal(tw_choice_key(&problem, -1, &machine, &key), TW_INTERNAL);
    assert_string_equal(key.digest, "kept");
}

static void test_launch_fields_share_code(void **state) {
    (void)state;
    tw_key one, two;
    tw_problem problem = parsed("N=64,K=64,w=u4,g=32,s=f16");
    tw_config other = config;
    other.block_m = 128;
    other.block_n = 256;
    assert_int_equal(tw_binary_key(&problem, "k", 1, &config, &machine, "c", &one), TW_OK);
    assert_int_equal(tw_binary_key(&problem, "k", 1, &other, &machine, "c", &two), TW_OK);
    assert_string_equal(one.digest, two.digest);
    tw_key_free(&one);
    tw_key_free(&two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice_text),     cmocka_unit_test(test_binary_text),
        cmocka_unit_test(test_escapes),         cmocka_unit_test(test_choices_differ),
        cmocka_unit_test(test_binaries_differ), cmocka_unit_test(test_launch_fields_share_code),
        cmocka_unit_test(test_binaries_move),   cmocka_unit_test(test_implementations),
        cmocka_unit_test(test_no_such_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
