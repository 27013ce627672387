/* What the tests of the public API share: a folder with a cache of its own, a log that counts, and
 * layers with known canonical tensors, whose results are compared with the oracle's. */
#ifndef TW_TESTS_CAPI_FIXTURE_H
#define TW_TESTS_CAPI_FIXTURE_H

#include <pthread.h>

#include "src/core/problem.h"
#include "src/core/reference.h"
#include "tests/base/cmocka_all.h"

enum { PATH_BYTES = 512 };

typedef struct fixture {
    char folder[PATH_BYTES], cache[PATH_BYTES]; /* cache: folder/cache.db */
    tw_options options; /* cache, a log that counts, two threads; change a copy or this */
    pthread_mutex_t lock;
    int lines[TW_LOG_TRACE + 1]; /* by level */
    char last[TW_LOG_TRACE + 1][1024];
} fixture;

/* cmocka set-up and tear-down; *state is a fixture. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
tw_context *open_context(fixture *f);
tw_stats stats_of(const tw_context *context);

/* A layer's tensors, filled deterministically. */
typedef struct layer {
    tw_problem problem; /* M 0 */
    tw_linear_desc desc;
    tw_tensor weight, scales, zeros, bias; /* dtype TW_NONE: the scheme has none */
} layer;

void layer_init(layer *l, const char *problem, uint32_t seed);
void layer_free(layer *l);
/* NULL for a tensor that the scheme does not have. */
const tw_tensor *given(const tw_tensor *t);
tw_status try_linear(const layer *l, tw_context *context, tw_linear **out);
tw_linear *make_linear(const layer *l, tw_context *context);
size_t tensor_bytes(const tw_tensor *t);

/* rows x columns of a float dtype, contiguous; free() its data. */
tw_tensor random_rows(tw_dtype dtype, int64_t rows, int64_t columns, uint32_t seed);
/* Fails the test unless y is what the oracle gives for x, within the tolerance of what ran. */
void check_result(const layer *l, tw_linear *linear, const tw_tensor *x, const tw_tensor *y);
/* forward on M random rows, checked. */
void check_forward(const layer *l, tw_linear *linear, int64_t M);

/* The plan's kernel and origin. */
void check_plan(tw_linear *linear, int64_t M, const char *kernel, const char *origin);

/* The call fails with this status and a sentence that holds `part`. */
#define check_fails(call, expected, part) check_failed((call), (expected), (part), #call, __LINE__)
void check_failed(tw_status status, tw_status expected, const char *part, const char *call,
                  int line);
#define check_ok(call) check_failed((call), TW_OK, "", #call, __LINE__)

#endif
