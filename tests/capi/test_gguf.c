/* Layers of GGUF's blocks: the same in every bit as those of the canonical tensors that the readers
 * make of them, whatever the type; and what is refused. */
#include <stdlib.h>
#include <string.h>
#include <tilewright/model.h>

#include "src/base/str.h"
#include "src/core/dtype.h"
#include "src/format/blocks.h"
#include "tests/capi/fixture.h"

enum { N = 150, MOST_TYPES = 64 }; /* more than two panels, the last one short */

typedef struct blocks {
    const tw_source_type *type;
    uint32_t id;
    int64_t K;
    size_t row, stride; /* bytes of a row, from row to row */
    uint8_t *bytes;
} blocks;

/* Random codes; what may be a scale anywhere is a small number, whichever float type it is. */
static blocks make(uint32_t id, size_t gap) {
    blocks b = {.type = tw_ggml_type(id), .id = id};
    b.K = (int64_t)b.type->block * (b.type->block < 256 ? 6 : 2);
    b.row = (size_t)b.K / b.type->block * b.type->bytes;
    b.stride = b.row + gap;
    b.bytes = malloc(N * b.stride + 1);
    assert_non_null(b.bytes);
    /* No byte has the exponent bits of a float's infinity: 0x7c of f16, 0x7f80 of bf16. */
    uint32_t state = id + 1;
    for (size_t i = 0; i < N * b.stride; i++) {
        state = state * 1664525u + 1013904223u;
        b.bytes[i] = (uint8_t)(state >> 24 & 0xbb);
    }
    return b;
}

/* As the readers have it. */
static layer canonical(const blocks *b) {
    layer l;
    tw_str text = {0};
    tw_scheme s;
    check_ok(tw_gguf_type(b->id, &s, NULL, NULL));
    tw_problem p = {.N = N, .K = b->K, .x = TW_F32, .y = TW_F32, .scheme = s};
    tw_problem_text(&p, &text);
    layer_init(&l, tw_str_text(&text), 1);
    tw_str_free(&text);
    size_t rows[3] = {tensor_bytes(&l.weight) / N, tensor_bytes(&l.scales) / N,
                      tensor_bytes(&l.zeros) / N};
    for (size_t n = 0; n < N; n++)
        tw_blocks_decode(b->type, b->bytes + n * b->stride, (uint64_t)b->K / b->type->block, false,
                         (char *)l.weight.data + n * rows[0],
                         rows[1] ? (char *)l.scales.data + n * rows[1] : NULL,
                         rows[2] ? (char *)l.zeros.data + n * rows[2] : NULL);
    if (b->type->lut) l.desc.lut = b->type->lut;
    return l;
}

static void check_type(tw_context *context, uint32_t id, size_t gap) {
    blocks b = make(id, gap);
    layer l = canonical(&b);
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    desc.N = N;
    desc.K = b.K;
    tw_linear *made = NULL, *expected = make_linear(&l, context);
    check_ok(tw_linear_create_gguf(context, &desc, id, b.bytes, gap ? b.stride : 0, NULL, &made));
    tw_tensor x = random_rows(TW_F32, 3, b.K, 5), y = random_rows(TW_F32, 3, N, 6),
              z = random_rows(TW_F32, 3, N, 7);
    check_ok(tw_linear_forward(made, &x, &y));
    check_ok(tw_linear_forward(expected, &x, &z));
    assert_memory_equal(y.data, z.data, tensor_bytes(&y));
    tw_tensor *const parts[] = {&l.weight, &l.scales, &l.zeros};
    tw_tensor got[3] = {{0}};
    for (int i = 0; i < 3; i++) got[i].data = calloc(1, tensor_bytes(parts[i]) + 1);
    check_ok(tw_linear_weights(made, &got[0], &got[1], &got[2]));
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(got[i].data, parts[i]->dtype ? parts[i]->data : got[i].data,
                            tensor_bytes(parts[i]));
        free(got[i].data);
    }
    tw_linear_destroy(made);
    tw_linear_destroy(expected);
    free(x.data), free(y.data), free(z.data), free(b.bytes);
    l.desc.lut = NULL;
    layer_free(&l);
}

static void every_type(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    int seen = 0;
    for (uint32_t id = 0; id < MOST_TYPES; id++) {
        const tw_source_type *type = tw_ggml_type(id);
        if (!type || !type->scheme.weight) continue;
        seen++;
        check_type(context, id, 0);
        check_type(context, id, 3); /* rows anywhere */
    }
    assert_int_equal(seen, 28);
    tw_context_destroy(context);
}

/* Where no kernel runs, canonical tensors are all there is. */
static void reference(void **state) {
    fixture *f = *state;
    f->options.mode = TW_MODE_REFERENCE;
    tw_context *context = open_context(f);
    check_type(context, 14, 0);
    tw_context_destroy(context);
    f->options.mode = TW_MODE_DEFAULT;
}

static void refused(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    tw_linear_desc desc = TW_LINEAR_DESC_INIT;
    tw_linear *l = NULL;
    blocks b = make(2, 0);
    tw_scheme scheme;
    int64_t block, bytes;
    check_ok(tw_gguf_type(2, &scheme, &block, &bytes));
    assert_int_equal(block, 32);
    assert_int_equal(bytes, 18);
    check_fails(tw_gguf_type(2, NULL, NULL, NULL), TW_INVALID, "scheme: NULL");
    check_fails(tw_gguf_type(4, &scheme, NULL, NULL), TW_INVALID, "type: 4");
    check_fails(tw_gguf_type(26, &scheme, NULL, NULL), TW_UNSUPPORTED, "type: I32");
    desc.N = N;
    desc.K = b.K;
    check_fails(tw_linear_create_gguf(NULL, &desc, 2, b.bytes, 0, NULL, &l), TW_INVALID, "context");
    check_fails(tw_linear_create_gguf(context, &desc, 2, NULL, 0, NULL, &l), TW_INVALID, "blocks");
    check_fails(tw_linear_create_gguf(context, &desc, 4, b.bytes, 0, NULL, &l), TW_INVALID, "type");
    check_fails(tw_linear_create_gguf(context, &desc, 2, b.bytes, b.row - 1, NULL, &l), TW_INVALID,
                "row_bytes: 107");
    desc.K = b.K - 1;
    check_fails(tw_linear_create_gguf(context, &desc, 2, b.bytes, 0, NULL, &l), TW_INVALID,
                "K: 191, must be a multiple of the 32");
    desc.K = b.K;
    desc.scheme = scheme;
    desc.scheme.group_k = 64;
    check_fails(tw_linear_create_gguf(context, &desc, 2, b.bytes, 0, NULL, &l), TW_INVALID,
                "not that of Q4_0");
    desc.scheme = scheme;
    desc.scheme.act_quant = TW_ACTQ_NONE;
    desc.scheme.act_group = 0;
    check_ok(tw_linear_create_gguf(context, &desc, 2, b.bytes, 0, NULL, &l));
    tw_linear_destroy(l);
    /* An infinite scale, in the third panel. */
    memcpy(b.bytes + 140 * b.stride + 18, "\x00\x7c", 2);
    check_fails(tw_linear_create_gguf(context, &desc, 2, b.bytes, 0, NULL, &l), TW_INVALID,
                "blocks: row 140: scales: infinity at [0,1]");
    free(b.bytes);
    tw_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_type, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(reference, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(refused, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
