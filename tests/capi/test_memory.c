/* The allocator hook: everything goes through it and comes back, whichever allocation fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/capi/fixture.h"

/* Counts what is alive, checks what comes back, and fails the n-th allocation. */
typedef struct heap {
    int64_t made, alive, bytes, fail_at; /* fail_at -1: never */
    int wrong;
    char sentence[256];
} heap;

typedef struct header {
    size_t size, align;
    void *start;
} header;

static void *heap_alloc(void *user, size_t size, size_t align) {
    heap *h = user;
    if (!size || !align || (align & (align - 1))) h->wrong++;
    if (h->made++ == h->fail_at) return NULL;
    char *start = malloc(size + align + sizeof(header));
    if (!start) return NULL;
    uintptr_t at = ((uintptr_t)start + sizeof(header) + align - 1) & ~(uintptr_t)(align - 1);
    header *head = (header *)at - 1;
    memset((void *)at, 0xcd, size); /* nobody may count on zeros */
    *head = (header){size, align, start};
    h->alive++;
    h->bytes += (int64_t)size;
    return (void *)at;
}

static void heap_free(void *user, void *p, size_t size) {
    heap *h = user;
    header *head = (header *)p - 1;
    if (head->size != size) h->wrong++;
    h->alive--;
    h->bytes -= (int64_t)size;
    free(head->start);
}

static const char problem[] = "N=70,K=80,w=u4,g=32,s=f16,z=value,bias=f16,act=relu";

static int accept(void *user, const char *text, const char *target) {
    (void)user, (void)text, (void)target;
    return 1;
}

static tw_status run(void *user, const tw_linear_call *call) {
    (void)user;
    memset(call->y->data, 0, (size_t)(call->M * call->N) * sizeof(float));
    return TW_OK;
}

/* Everything in a context's life, until something fails. */
static tw_status live(fixture *f, const layer *l, const tw_tensor *x, tw_tensor *y) {
    static const int64_t M[] = {1, 5};
    const tw_linear_impl impl = {sizeof impl, "mine", 1, 3, accept, run, NULL};
    tw_context *context = NULL;
    tw_linear *linear = NULL, *float_linear = NULL, *strided = NULL;
    tw_tensor w_float = random_rows(TW_F16, 70, 80, 2), transposed = l->scales;
    transposed.stride[0] = 1, transposed.stride[1] = 1; /* overlapping, but legal to read */
    tw_status status = tw_context_create(&f->options, &context);
    if (status == TW_OK) status = try_linear(l, context, &linear);
    if (status == TW_OK)
        status = tw_linear_create_from_float(context, &l->desc, &w_float, NULL, &float_linear);
    if (status == TW_OK)
        status =
            tw_linear_create(context, &l->desc, &l->weight, &transposed, &l->zeros, NULL, &strided);
    if (status == TW_OK) status = tw_linear_prepare(linear, M, 2, 3);
    if (status == TW_OK) status = tw_linear_forward(linear, x, y);
    if (status == TW_OK) status = tw_linear_forward(float_linear, x, y);
    if (status == TW_OK) status = tw_register_linear(context, &impl);
    if (status == TW_OK) status = tw_linear_forward(linear, x, y);
    if (status == TW_OK) status = tw_unregister_linear(context, "mine");
    if (status == TW_OK) status = tw_linear_forward(strided, x, y);
    /* Whatever failed, what there is still works once memory is back. */
    heap *h = f->options.allocator.user;
    if (status != TW_OK) snprintf(h->sentence, sizeof h->sentence, "%s", tw_error_message());
    if (status == TW_MEMORY && linear) {
        h->fail_at = -1;
        check_ok(tw_linear_forward(linear, x, y));
    }
    tw_linear_destroy(linear);
    tw_linear_destroy(float_linear);
    tw_linear_destroy(strided);
    tw_context_destroy(context);
    free(w_float.data);
    return status;
}

static void every_allocation_fails_once(void **state) {
    fixture *f = *state;
    heap h = {.fail_at = -1};
    layer l;
    layer_init(&l, problem, 3);
    tw_tensor x = random_rows(TW_F32, 5, 80, 1), y = random_rows(TW_F32, 5, 70, 1);
    f->options.allocator = (tw_allocator){heap_alloc, heap_free, &h};
    /* Once to fill the cache, so that the rounds below are short and alike. */
    check_ok(live(f, &l, &x, &y));
    h.made = 0;
    check_ok(live(f, &l, &x, &y));
    int64_t count = h.made;
    assert_true(count > 20);
    for (int64_t i = 0; i < count; i++) {
        h.made = 0;
        h.fail_at = i;
        assert_int_equal(live(f, &l, &x, &y), TW_MEMORY);
        assert_non_null(strstr(h.sentence, "out of memory"));
        assert_int_equal(h.alive, 0);
        assert_int_equal(h.bytes, 0);
        assert_int_equal(h.wrong, 0);
    }
    free(x.data), free(y.data);
    layer_free(&l);
}

/* After prepare(), forwards leave the allocator alone. */
static void check_allocates_nothing(fixture *f, const char *text) {
    heap h = {.fail_at = -1};
    static const int64_t M[] = {1, 64, 700};
    layer l;
    layer_init(&l, text, 3);
    int32_t order[80];
    for (int32_t k = 0; k < 80; k++) order[k] = 79 - k;
    if (l.problem.x == TW_BF16) l.desc.order = order;
    f->options.allocator = (tw_allocator){heap_alloc, heap_free, &h};
    tw_context *context = open_context(f);
    tw_linear *linear = make_linear(&l, context);
    check_ok(tw_linear_prepare(linear, M, 3, 1));
    int64_t made = h.made;
    for (int64_t i = 1; i <= 1000; i = i * 3 / 2 + 1)
        if (i == 1 || (i > 32 && i <= 64) || i > 512) check_forward(&l, linear, i);
    assert_int_equal(h.made, made);
    tw_linear_destroy(linear);
    tw_context_destroy(context);
    assert_int_equal(h.alive, 0);
    layer_free(&l);
}

static void forward_allocates_nothing(void **state) {
    check_allocates_nothing(*state, problem);
    check_allocates_nothing(*state, "N=70,K=80,w=e4m3,a=e4m3");
    /* With columns in another order as well. */
    check_allocates_nothing(*state, "N=70,K=80,x=bf16,w=e2m1,g=32,s=e8m0,a=mxfp4");
}

/* Thirty layers of one shape: thirty times the weights, one kernel. */
static void shared_kernels(void **state) {
    fixture *f = *state;
    tw_context *context = open_context(f);
    tw_linear *linears[30];
    layer l;
    layer_init(&l, problem, 3);
    for (size_t i = 0; i < TW_COUNT(linears); i++) {
        linears[i] = make_linear(&l, context);
        check_ok(tw_linear_prepare(linears[i], (int64_t[]){1}, 1, 1));
    }
    tw_stats s = stats_of(context);
    assert_int_equal(s.guesses, 1);
    assert_int_equal(s.compiles, 1);
    assert_int_equal(s.loads, 1);
    for (size_t i = 0; i < TW_COUNT(linears); i++) tw_linear_destroy(linears[i]);
    tw_context_destroy(context);
    layer_free(&l);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_allocation_fails_once),
        TEST(forward_allocates_nothing),
        TEST(shared_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
