/* Launching with functions in C for pack and matmul: every element of y once, with the rows and
 * columns that the calling convention promises, whatever the tiles, chunks and threads are. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "src/backend/backend.h"
#include "tests/base/cmocka_all.h"

enum { GUARD = 0x5a, GUARD_BYTES = 256, X_PAD = 24, Y_PAD = 16 };

/* What one launch did; args->w points at it. */
typedef struct record {
    tw_kernel kernel;
    const char *x; /* the whole x, to find out which chunk a call belongs to */
    int64_t M;
    atomic_int violations; /* of the calling convention */
    atomic_int_fast64_t packed, tiles, most_rows;
    atomic_int_fast64_t last_n; /* for a sequential host: columns never go back within a chunk */
    atomic_int went_back;
} record;

static void expect(record *r, bool kept) {
    if (!kept) atomic_fetch_add(&r->violations, 1);
}

/* x row m holds the number m + 1; packed it is doubled, with minus that as meta. */
static void fake_pack(const tw_kernel_args *a, int64_t m0, int64_t m1) {
    record *r = (record *)(uintptr_t)a->w;
    expect(r, (uintptr_t)a->xq % 64 == 0 && (uintptr_t)a->xmeta % 64 == 0);
    expect(r, m0 >= 0 && m0 < m1 && m1 <= a->M);
    for (int64_t m = m0; m < m1; m++) {
        int64_t id;
        memcpy(&id, (const char *)a->x + m * a->x_stride, sizeof id);
        char *xq = (char *)a->xq + m * r->kernel.xq_stride;
        char *xmeta = (char *)a->xmeta + m * r->kernel.xmeta_stride;
        memset(xq, GUARD, (size_t)r->kernel.xq_stride);
        memset(xmeta, GUARD, (size_t)r->kernel.xmeta_stride);
        memcpy(xq, &(int64_t){2 * id}, sizeof id);
        memcpy(xmeta, &(int64_t){-id}, sizeof id);
    }
    atomic_fetch_add(&r->packed, m1 - m0);
    atomic_store(&r->last_n, 0);
}

static void check_order(record *r, int64_t n0) {
    if (n0 < atomic_load(&r->last_n)) atomic_store(&r->went_back, 1);
    atomic_store(&r->last_n, n0);
}

/* Rows past M are computed with, so they are defined: zero. */
static void check_padding(record *r, const tw_kernel_args *a) {
    int64_t rows = tw_round_up(a->M, r->kernel.config.micro_m);
    for (int64_t m = a->M; m < rows; m++) {
        const char *xq = (const char *)a->xq + m * r->kernel.xq_stride;
        const char *xmeta = (const char *)a->xmeta + m * r->kernel.xmeta_stride;
        for (int64_t i = 0; i < r->kernel.xq_stride; i++) expect(r, !xq[i]);
        for (int64_t i = 0; i < r->kernel.xmeta_stride; i++) expect(r, !xmeta[i]);
    }
}

/* y[m][n] += id * 2^20 + n + 1: once each is then seen in the value. */
static void fake_matmul(const tw_kernel_args *a, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    record *r = (record *)(uintptr_t)a->w;
    const tw_config *c = &r->kernel.config;
    expect(r, m0 >= 0 && m0 < m1 && m1 <= a->M && n0 >= 0 && n0 < n1 && n1 <= r->kernel.N);
    int64_t tile = (int64_t)c->micro_n * tw_max(c->streams, 1);
    expect(r, m0 % c->micro_m == 0 && n0 % tile == 0);
    if (r->kernel.N % tile == 0) expect(r, n1 % tile == 0);
    expect(r,
           (const void *)a->bias == (const void *)r && a->M <= tw_launch_chunk(&r->kernel, r->M));
    if (c->block_m) expect(r, m1 - m0 <= tw_round_up(c->block_m, c->micro_m));
    if (c->block_n) expect(r, n1 - n0 <= tw_round_up(c->block_n, tile));
    check_padding(r, a);
    check_order(r, n0);
    atomic_fetch_add(&r->tiles, 1);
    if (a->M > atomic_load(&r->most_rows)) atomic_store(&r->most_rows, a->M);
    for (int64_t m = m0; m < m1; m++) {
        int64_t twice, minus;
        memcpy(&twice, (const char *)a->xq + m * r->kernel.xq_stride, sizeof twice);
        memcpy(&minus, (const char *)a->xmeta + m * r->kernel.xmeta_stride, sizeof minus);
        int64_t *y = (int64_t *)((char *)a->y + m * a->y_stride);
        for (int64_t n = n0; n < n1; n++) y[n] += (twice + minus) * (1 << 20) + n + 1;
    }
}

/* Memory of exactly `size` bytes that a sanitizer watches, 64-byte aligned as tw_launch asks. */
static char *scratch_new(size_t size) {
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, size + GUARD_BYTES), 0);
    memset(p, GUARD, size + GUARD_BYTES);
    return p;
}

static char *filled_rows(int64_t M, int64_t stride) {
    char *x = malloc((size_t)(M * stride) + 1);
    assert_non_null(x);
    memset(x, GUARD, (size_t)(M * stride));
    for (int64_t m = 0; m < M; m++) memcpy(x + m * stride, &(int64_t){m + 1}, sizeof(int64_t));
    return x;
}

static void check_y(const char *y, int64_t M, int64_t N, int64_t stride) {
    for (int64_t m = 0; m < M; m++) {
        const int64_t *row = (const int64_t *)(y + m * stride);
        for (int64_t n = 0; n < N; n++)
            if (row[n] != (m + 1) * (1 << 20) + n + 1)
                fail_msg("y[%lld,%lld] is %llx", (long long)m, (long long)n, (long long)row[n]);
        for (int64_t i = N * 8; i < stride; i++) assert_int_equal(y[m * stride + i], GUARD);
    }
}

/* One launch of M rows, checked; the record tells the rest. */
static void launch(record *r, tw_threads *threads, int64_t M) {
    r->kernel.pack_x = fake_pack;
    r->kernel.matmul = fake_matmul;
    r->M = M;
    r->violations = r->went_back = 0;
    r->packed = r->tiles = r->most_rows = r->last_n = 0;
    int64_t x_stride = 8 + X_PAD, y_stride = r->kernel.N * 8 + Y_PAD;
    char *x = filled_rows(M, x_stride), *y = malloc((size_t)(M * y_stride) + 1);
    assert_non_null(y);
    memset(y, GUARD, (size_t)(M * y_stride));
    for (int64_t m = 0; m < M; m++) memset(y + m * y_stride, 0, (size_t)r->kernel.N * 8);
    size_t size = tw_launch_scratch(&r->kernel, M);
    char *scratch = scratch_new(size);
    tw_kernel_args args = {.x = x,
                           .x_stride = x_stride,
                           .w = r,
                           .bias = (const float *)r,
                           .y = y,
                           .y_stride = y_stride,
                           .M = M};
    tw_launch(&r->kernel, threads, &args, scratch);
    assert_int_equal(r->violations, 0);
    assert_int_equal(r->packed, M);
    check_y(y, M, r->kernel.N, y_stride);
    for (size_t i = 0; i < GUARD_BYTES; i++) assert_int_equal(scratch[size + i], GUARD);
    free(x);
    free(y);
    free(scratch);
}

static record record_of(tw_config config, int64_t N, int64_t K) {
    return (record){
        .kernel = {.config = config, .N = N, .K = K, .xq_stride = 72, .xmeta_stride = 8}};
}

static const tw_config configs[] = {
    {.micro_m = 1, .micro_n = 8, .block_m = 1, .block_n = 8},
    {.micro_m = 4, .micro_n = 16, .block_m = 32, .block_n = 64},
    {.micro_m = 3, .micro_n = 64, .block_m = 96, .block_n = 192},
    {.micro_m = 6, .micro_n = 32, .block_m = 16, .block_n = 40}, /* blocks in whole tiles */
    {.micro_m = 8, .micro_n = 32, .block_m = 1024, .block_n = 4096},
    {.micro_m = 5, .micro_n = 16}, /* no blocks */
    {.micro_m = 1, .micro_n = 8, .block_m = 1, .block_n = 64, .streams = 4},
};
static const int64_t rows[] = {0, 1, 2, 3, 8, 17, 511, 512, 513, 520, 1024, 1300};
static const int64_t columns[] = {1, 51, 64, 101, 151, 192, 201, 320};

static void test_tiles(void **state) {
    (void)state;
    tw_threads *pool;
    assert_int_equal(tw_threads_create(NULL, 2, &pool), TW_OK);
    for (size_t c = 0; c < TW_COUNT(configs); c++)
        for (size_t m = 0; m < TW_COUNT(rows); m++)
            for (size_t n = 0; n < TW_COUNT(columns); n++) {
                record r = record_of(configs[c], columns[n], 1 << 12);
                launch(&r, rows[m] % 2 ? pool : NULL, rows[m]);
            }
    tw_threads_destroy(pool);
}

/* Scratch is bounded, grows with M, and one that was reserved for more rows fits fewer. */
static void test_scratch(void **state) {
    (void)state;
    for (size_t c = 0; c < TW_COUNT(configs); c++) {
        record r = record_of(configs[c], 64, 64);
        size_t before = 0;
        for (int64_t M = 0; M < 3000; M++) {
            size_t size = tw_launch_scratch(&r.kernel, M);
            assert_true(size >= before && size % 64 == 0);
            int64_t chunk = tw_launch_chunk(&r.kernel, M);
            assert_true(chunk >= 1 && chunk <= 1024);
            assert_true(M <= chunk || chunk % configs[c].micro_m == 0);
            /* An even split: the last chunk lacks less than a block a chunk. */
            int64_t parts = tw_ceil_div(M, chunk), most = tw_launch_chunk(&r.kernel, 1 << 20);
            assert_int_equal(parts, tw_ceil_div(M, tw_max(most, chunk)));
            assert_true(parts <= 1 || M > 512); /* a prompt of the usual length */
            before = size;
        }
        assert_int_equal(before, tw_launch_scratch(&r.kernel, 1 << 28));
    }
}

/* ---- when and how work is split ---- */

enum { HOST_THREADS = 4, MOST_SHARES = 4096 };

typedef struct host {
    int calls;
    size_t count;
} host;

/* In order, on the calling thread. */
static void host_run(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    host *h = user;
    h->calls++;
    h->count = count;
    for (size_t i = 0; i < count; i++) task(arg, i);
}

static void test_inline(void **state) {
    (void)state;
    host h = {0};
    tw_threads *threads;
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, HOST_THREADS}, 0, &threads),
                     TW_OK);
    record r =
        record_of((tw_config){.micro_m = 4, .micro_n = 16, .block_m = 16, .block_n = 64}, 64, 64);
    launch(&r, threads, 1);
    launch(&r, threads, 32);
    assert_int_equal(h.calls, 0);
    r.kernel.K = 1 << 16;
    launch(&r, threads, 1);
    assert_int_equal(h.calls, 1); /* one row is packed where it is */
    launch(&r, threads, 256);
    assert_int_equal(h.calls, 3);
    tw_threads_destroy(threads);
}

/* From the last to the first. */
static void host_run_back(void *user, void (*task)(void *arg, size_t i), void *arg, size_t count) {
    (void)user;
    while (count--) task(arg, count);
}

/* Many rows by few weights: each thread packs and multiplies for itself, in one parallel-for. */
static void test_blocks(void **state) {
    (void)state;
    host h = {0};
    tw_threads *threads, *pair, *crowd, *pool;
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, HOST_THREADS}, 0, &threads),
                     TW_OK);
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run_back, NULL, 6}, 0, &crowd), TW_OK);
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, 2}, 0, &pair), TW_OK);
    assert_int_equal(tw_threads_create(NULL, 3, &pool), TW_OK);
    for (size_t c = 0; c < TW_COUNT(configs); c++) {
        record r = record_of(configs[c], 200, 1 << 12);
        for (int64_t M = 3200; M < 3203; M++) {
            h.calls = 0;
            launch(&r, threads, M);
            assert_int_equal(h.calls, 1);
            assert_in_range(r.most_rows, 96, 100);
            launch(&r, pool, M);
        }
        /* Few rows; more threads than there is scratch for; weights that no cache keeps. */
        launch(&r, threads, 1300);
        launch(&r, crowd, 4800);
        r.kernel.K = 1 << 14;
        launch(&r, threads, 3200);
        assert_in_range(r.most_rows, 200, 1024);
    }
    /* Codes unpacked for 200 rows, of which there is scratch for two threads. */
    tw_config unpacked = {.micro_m = 1, .micro_n = 64, .block_m = 200, .block_n = 64, .ahead = 64};
    record r = record_of(unpacked, 200, 1 << 12);
    launch(&r, pair, 3200);
    assert_int_equal(r.most_rows, 200);
    launch(&r, threads, 6400);
    assert_in_range(r.most_rows, 201, 600);
    tw_threads_destroy(pair);
    tw_threads_destroy(pool);
    tw_threads_destroy(crowd);
    tw_threads_destroy(threads);
}

/* The columns of one task, seen by a kernel of one row. */
static int64_t share[MOST_SHARES];
static atomic_int shares;

static void share_matmul(const tw_kernel_args *a, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    fake_matmul(a, m0, m1, n0, n1);
    share[atomic_fetch_add(&shares, 1) % MOST_SHARES] = n1 - n0;
}

/* With one row only columns can be split: no thread of a contiguous, equal split of tasks may have
 * more than its part and one register tile. */
static void test_balance(void **state) {
    (void)state;
    host h = {0};
    tw_threads *threads;
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, HOST_THREADS}, 0, &threads),
                     TW_OK);
    static const int64_t widths[] = {64, 256, 576, 1000, 1536, 4096, 8192};
    for (size_t i = 0; i < TW_COUNT(widths); i++) {
        int64_t N = widths[i];
        tw_config config = {.micro_m = 1, .micro_n = 64, .block_m = 64, .block_n = 512};
        record r = record_of(config, N, 1 << 14);
        r.kernel.pack_x = fake_pack;
        r.kernel.matmul = share_matmul;
        r.M = 1;
        char x[32] = {1}, *scratch = scratch_new(tw_launch_scratch(&r.kernel, 1));
        int64_t *y = calloc((size_t)N, sizeof *y);
        assert_non_null(y);
        shares = 0;
        tw_launch(&r.kernel, threads,
                  &(tw_kernel_args){.x = x, .w = &r, .bias = (const float *)&r, .y = y, .M = 1},
                  scratch);
        assert_int_equal(r.violations, 0);
        int64_t most = 0, tasks = shares, each = tw_ceil_div(tasks, HOST_THREADS);
        for (int64_t t = 0; t < tasks; t += each) {
            int64_t sum = 0;
            for (int64_t k = t; k < tw_min(t + each, tasks); k++) sum += share[k];
            most = tw_max(most, sum);
        }
        assert_true(most <= tw_ceil_div(N, HOST_THREADS) + 64);
        free(scratch);
        free(y);
    }
    tw_threads_destroy(threads);
}

/* Two products of one row and as many columns, by tasks of at most so many. */
static void check_group(tw_threads *threads, int64_t N, int64_t K, int64_t most) {
    tw_config config = {.micro_m = 1, .micro_n = 64, .block_m = 64};
    record r[2] = {record_of(config, N, K), record_of(config, N, K)};
    const tw_kernel *kernels[2] = {&r[0].kernel, &r[1].kernel};
    tw_kernel_args args[2];
    char x[32] = {1}, *scratch = scratch_new(tw_launch_scratch(&r[0].kernel, 1));
    for (int i = 0; i < 2; i++) {
        r[i].kernel.pack_x = fake_pack;
        r[i].kernel.matmul = share_matmul;
        r[i].M = 1;
        args[i] = (tw_kernel_args){.x = x,
                                   .w = &r[i],
                                   .bias = (const float *)&r[i],
                                   .y = calloc((size_t)N, sizeof(int64_t)),
                                   .M = 1};
        assert_non_null(args[i].y);
    }
    shares = 0;
    tw_launch_group(kernels, threads, args, 2, scratch);
    int64_t largest = 0;
    for (int t = 0; t < shares; t++) largest = tw_max(largest, share[t]);
    assert_int_equal(largest, most);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(r[i].violations, 0);
        check_y(args[i].y, 1, N, N * (int64_t)sizeof(int64_t));
        free(args[i].y);
    }
    free(scratch);
}

/* A thread's share is one task, but of what is large several. */
static void test_group(void **state) {
    (void)state;
    host h = {0};
    tw_threads *threads;
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, HOST_THREADS}, 0, &threads),
                     TW_OK);
    check_group(threads, 1536, 576, 768);
    check_group(threads, 8192, 576, 4096);
    check_group(threads, 8192, 2048, 1024);
    check_group(threads, 8192, 4096, 512);
    check_group(threads, 8192, 16384, 512);
    tw_threads_destroy(threads);
}

/* Many rows: neighbours among the tasks read the same weights. */
static void test_order(void **state) {
    (void)state;
    host h = {0};
    tw_threads *threads;
    assert_int_equal(tw_threads_create(&(tw_parallel){host_run, &h, HOST_THREADS}, 0, &threads),
                     TW_OK);
    record r = record_of(configs[1], 200, 1 << 12);
    launch(&r, threads, 512);
    assert_int_equal(r.went_back, 0);
    assert_true(r.tiles >= (int64_t)16 * 4);
    assert_int_equal(r.most_rows, 512);
    /* Chunks are even. */
    launch(&r, threads, 520);
    assert_in_range(r.most_rows, 260, 288);
    tw_threads_destroy(threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles),   cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_inline),  cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_balance), cmocka_unit_test(test_group),
        cmocka_unit_test(test_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
