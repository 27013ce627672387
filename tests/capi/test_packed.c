/* Packed layers as blobs: they come back in every bit, and whatever is wrong with one is said. */
#include <stdlib.h>
#include <string.h>

#include "src/base/hash.h"
#include "src/core/dtype.h"
#include "tests/capi/fixture.h"

typedef struct blob {
    char *bytes;
    size_t size;
} blob;

static blob blob_of(const tw_linear *linear) {
    blob b = {0};
    check_ok(tw_linear_pack(linear, NULL, &b.size));
    b.bytes = malloc(b.size);
    assert_non_null(b.bytes);
    check_ok(tw_linear_pack(linear, b.bytes, &b.size));
    return b;
}

static void same_tensor(const tw_tensor *a, const tw_tensor *b) {
    assert_int_equal(a->dtype, b->dtype);
    if (a->dtype != TW_NONE) assert_memory_equal(a->data, b->data, tensor_bytes(a));
}

/* y of both in every bit, and the canonical tensors. */
static void same_layer(const layer *l, tw_linear *a, tw_linear *b) {
    enum { M = 5 };
    tw_tensor x = random_rows(l->problem.x, M, l->problem.K, 9);
    tw_tensor y = random_rows(l->problem.y, M, l->problem.N, 1);
    tw_tensor z = random_rows(l->problem.y, M, l->problem.N, 2);
    check_ok(tw_linear_forward(a, &x, &y));
    check_ok(tw_linear_forward(b, &x, &z));
    same_tensor(&y, &z);
    tw_tensor t[3] = {l->weight, l->scales, l->zeros};
    for (int i = 0; i < 3; i++) t[i].data = t[i].dtype ? calloc(tensor_bytes(&t[i]) + 1, 1) : NULL;
    check_ok(tw_linear_weights(b, &t[0], &t[1], &t[2]));
    same_tensor(&l->weight, &t[0]);
    same_tensor(&l->scales, &t[1]);
    same_tensor(&l->zeros, &t[2]);
    assert_true(tw_linear_act_scale(a) == tw_linear_act_scale(b));
    assert_true(tw_linear_act_scale(a) == l->desc.act_scale);
    for (int i = 0; i < 3; i++) free(t[i].data);
    free(x.data);
    free(y.data);
    free(z.data);
}

static const char *const problems[] = {
    "N=70,K=100,x=f16,w=i4,g=32,s=f16,y=bf16,bias=bf16,act=relu",
    "N=70,K=96,w=u4,g=32,s=f16,z=value,a=i8g32,bias=f32",
    "N=64,K=64,w=u8,g=channel,s=f32,z=code,a=i8",
    "N=9,K=100,x=bf16,w=lut4,g=20,s=f16",
    "N=40,K=64,w=e4m3,g=channel,s=e8m0",
    "N=33,K=50,w=bf16",
    "N=70,K=600,w=u4,g=32,s=f16i8,z=value,a=i8g256",
    "N=40,K=64,w=u4,g=3,s=f16,z=code,bias=f16", /* runs the reference */
    "N=40,K=100,x=bf16,w=e4m3,a=e4m3g32",
    "N=40,K=64,w=i8,a=i8s",
    "N=40,K=64,w=e2m1,g=16,s=e4m3,a=nvfp4s",
    "N=40,K=64,w=u4,g=3,s=f16,a=e4m3s", /* runs the reference */
};

static void round_trip(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    int32_t order[100];
    for (int32_t k = 0; k < 100; k++) order[k] = 99 - k;
    for (size_t i = 0; i < TW_COUNT(problems); i++) {
        layer l;
        layer_init(&l, problems[i], 3);
        if (l.problem.K == 100) l.desc.order = order;
        tw_linear *made = make_linear(&l, context), *got = NULL;
        blob b = blob_of(made), other = {0};
        check_ok(tw_linear_create_packed(context, b.bytes, b.size, &got));
        same_layer(&l, made, got);
        /* What was read packs to the same bytes; and an address need not be aligned. */
        other = blob_of(got);
        assert_int_equal(b.size, other.size);
        assert_memory_equal(b.bytes, other.bytes, b.size);
        tw_linear_destroy(got);
        char *odd = malloc(b.size + 1);
        assert_non_null(odd);
        memcpy(odd + 1, b.bytes, b.size);
        check_ok(tw_linear_create_packed(context, odd + 1, b.size, &got));
        same_layer(&l, made, got);
        tw_linear_destroy(got);
        tw_linear_destroy(made);
        free(odd);
        free(b.bytes);
        free(other.bytes);
        layer_free(&l);
    }
    tw_context_destroy(context);
}

static void arguments(void **state) {
    tw_context *context = open_context(*state);
    layer l;
    layer_init(&l, problems[0], 3);
    tw_linear *linear = make_linear(&l, context), *got = NULL;
    blob b = blob_of(linear);
    size_t less = b.size - 1;
    check_fails(tw_linear_pack(NULL, NULL, &less), TW_INVALID, "linear: NULL");
    check_fails(tw_linear_pack(linear, NULL, NULL), TW_INVALID, "size: NULL");
    check_fails(tw_linear_pack(linear, b.bytes, &less), TW_INVALID, "the layer takes");
    assert_int_equal(less, b.size - 1);
    check_fails(tw_linear_create_packed(NULL, b.bytes, b.size, &got), TW_INVALID, "context: NULL");
    check_fails(tw_linear_create_packed(context, NULL, b.size, &got), TW_INVALID, "blob: NULL");
    check_fails(tw_linear_create_packed(context, b.bytes, b.size, NULL), TW_INVALID, "out: NULL");
    assert_null(got);
    free(b.bytes);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

/* Any byte that differs is noticed, and so is any length. */
static void damage(void **state) {
    tw_context *context = open_context(*state);
    layer l;
    layer_init(&l, "N=3,K=8,w=i4,g=8,s=f16", 3);
    tw_linear *linear = make_linear(&l, context), *got = NULL;
    blob b = blob_of(linear);
    for (size_t i = 0; i < b.size; i++) {
        b.bytes[i] ^= 4;
        assert_true(tw_linear_create_packed(context, b.bytes, b.size, &got) != TW_OK);
        b.bytes[i] ^= 4;
    }
    for (size_t size = 0; size < b.size; size += 1 + size / 3)
        check_fails(tw_linear_create_packed(context, b.bytes, size, &got), TW_FORMAT, "blob: ");
    check_fails(tw_linear_create_packed(context, b.bytes, 8, &got), TW_FORMAT, "no packed layer");
    b.bytes[b.size - 1] ^= 1;
    check_fails(tw_linear_create_packed(context, b.bytes, b.size, &got), TW_FORMAT,
                "its content has another digest");
    assert_null(got);
    free(b.bytes);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

/* The header's fields, by their places in version 1. */
enum {
    LAYOUT_VERSION = 12,
    BYTES = 16,
    LAYOUT = 24,
    TARGET = 56,
    PROBLEM = 88,
    HAS_LUT = 344,
    DIGEST = 384
};

/* As whoever writes blobs by hand: with a digest that is right. */
static tw_status create_changed(tw_context *context, const blob *from, size_t at, const void *bytes,
                                size_t size) {
    char *changed = malloc(from->size);
    tw_linear *got = NULL;
    assert_non_null(changed);
    memcpy(changed, from->bytes, from->size);
    memcpy(changed + at, bytes, size);
    memset(changed + DIGEST, 0, TW_DIGEST_BYTES);
    uint8_t digest[TW_DIGEST_BYTES];
    tw_sha256(changed, 448, digest);
    memcpy(changed + DIGEST, digest, sizeof digest);
    tw_status status = tw_linear_create_packed(context, changed, from->size, &got);
    tw_linear_destroy(got);
    free(changed);
    return status;
}

static void another_kind(void **state) {
    tw_context *context = open_context(*state);
    layer l;
    layer_init(&l, "N=3,K=8,w=i4,g=8,s=f16", 3);
    tw_linear *linear = make_linear(&l, context);
    blob b = blob_of(linear);
#define TRY(at, text, code, part)                                                                  \
    check_fails(create_changed(context, &b, at, text, sizeof(text)), code, part)
    TRY(TARGET, "z80", TW_UNSUPPORTED, "blob: packed for z80, the context's target is ");
    TRY(LAYOUT, "rows", TW_UNSUPPORTED, "blob: layout rows, this library has none of the name");
    TRY(LAYOUT_VERSION, "\7\0\0", TW_UNSUPPORTED, "blob: version 7 of layout panel64");
    TRY(PROBLEM, "N=300,K=8,w=i4,g=8,s=f16", TW_FORMAT, "N=300,K=8,w=i4,g=8,s=f16 takes ");
    TRY(PROBLEM, "N=3,K=8,w=i4,g=0", TW_INVALID, "g: ");
    TRY(PROBLEM, "N=3,K=8,w=lut4,g=8,s=f16", TW_FORMAT, "w=lut4 without a table");
    TRY(PROBLEM, "N=3,K=8,w=u4,g=3,s=f16", TW_UNSUPPORTED, "no kernel takes");
    TRY(HAS_LUT, "\1\0\0", TW_FORMAT, "w=i4 with a table");
#undef TRY
    b.bytes[8] = 2;
    tw_linear *got = NULL;
    check_fails(tw_linear_create_packed(context, b.bytes, b.size, &got), TW_UNSUPPORTED,
                "blob: version 2, this library reads version 1");
    free(b.bytes);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    layer_free(&l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(round_trip), TEST(arguments), TEST(damage),
                                       TEST(another_kind)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
