/* See fake.h. */
#include "tests/autotune/fake.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/reference.h"

fake the_fake;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- kernels: C functions have no state of their own, so each loaded config gets a pair of its
 * own ---- */

enum { SLOTS = 512 };
typedef struct slot {
    const tw_template *tmpl;
    tw_config config;
    tw_problem problem;
} slot;
static slot slots[SLOTS];
static int slot_count;

static float *packed_row(const tw_problem *p, const tw_kernel_args *a, int64_t m) {
    return (float *)((char *)a->xq + m * (p->K + 1) * 4);
}

static fake_defect defect_of(const slot *s) {
    return the_fake.defect ? the_fake.defect(s->tmpl, &s->config) : FAKE_CORRECT;
}

static void fake_pack_x(int number, const tw_kernel_args *a, int64_t m0, int64_t m1) {
    const slot *s = &slots[number];
    const tw_problem *p = &s->problem;
    int64_t stride = a->x_stride;
    if (defect_of(s) == FAKE_X_STRIDE) stride = p->K * tw_dtype_bits(p->x) / 8;
    /* One sentinel element behind each packed row is never written. */
    for (int64_t m = m0; m < m1; m++)
        for (int64_t k = 0; k < p->K; k++)
            packed_row(p, a, m)[k] = tw_float_get((const char *)a->x + m * stride, p->x, k);
    if (m0) return;
    int i = the_fake.launches++;
    if (i < (int)TW_COUNT(the_fake.slots)) {
        the_fake.weights[i] = a->w;
        the_fake.slots[i] = number;
    }
    double noise = (double)(tw_data_mix(the_fake.seed + (uint64_t)i) >> 40) / (1 << 24) - 0.5;
    double time = the_fake.time_ns ? the_fake.time_ns(s->tmpl, &s->config) : 1000;
    time *= 1 + 2 * the_fake.noise * noise;
    uint64_t luck = tw_data_mix(~(the_fake.seed + (uint64_t)i));
    if ((double)(luck >> 40) / (1 << 24) < the_fake.busy) time *= 2 + (double)(luck & 7);
    the_fake.now += (int64_t)time;
}

/* Where the canonical tensors lie in packed weights. */
static tw_canonical unpack(const tw_problem *p, const char *w) {
    size_t weight = (size_t)p->N * tw_dtype_row_bytes(p->scheme.weight, p->K);
    int64_t count = tw_scale_rows(&p->scheme, p->N) * tw_groups(&p->scheme, p->K);
    size_t scales = tw_dtype_row_bytes(p->scheme.scale, count);
    bool plain = tw_scheme_plain(&p->scheme);
    return (tw_canonical){
        w, plain ? NULL : w + weight, p->scheme.zero_mode ? w + weight + scales : NULL, NULL, NULL,
        0};
}

/* Changes to x and to the weights that a defective kernel amounts to. */
static void spoil_x(const tw_problem *p, fake_defect defect, float *x) {
    if (defect == FAKE_LAST_K) x[p->K - 1] = 0;
    if (defect == FAKE_ONE_K) x[p->K / 2] = 0;
    for (int64_t k = 0; defect == FAKE_SWAPPED_CODES && k + 1 < p->K; k += 2) {
        float swap = x[k];
        x[k] = x[k + 1];
        x[k + 1] = swap;
    }
    int64_t group = tw_act_group(&p->scheme, p->K);
    for (int64_t k0 = 0; defect == FAKE_ROUNDING && k0 < p->K; k0 += group) {
        float most = 0;
        int64_t k1 = tw_min(p->K, k0 + group);
        for (int64_t k = k0; k < k1; k++) most = fmaxf(most, fabsf(x[k]));
        float scale = most / 127;
        for (int64_t k = k0; k < k1 && most > 0; k++) x[k] = roundf(x[k] / scale) * scale;
    }
}

static void spoil_weights(const tw_problem *p, fake_defect defect, tw_canonical *w, char *scales,
                          uint8_t *zeros) {
    int64_t groups = tw_groups(&p->scheme, p->K), bits = tw_dtype_bits(p->scheme.scale);
    size_t one = (size_t)bits / 8, row = one * (size_t)groups;
    int64_t count = tw_scale_rows(&p->scheme, p->N) * groups;
    if (defect == FAKE_ONE_SCALE || defect == FAKE_SCALE_ROW) {
        memcpy(scales, w->scales, one * (size_t)count);
        if (defect == FAKE_ONE_SCALE) memcpy(scales + one, scales, one);
        if (defect == FAKE_SCALE_ROW) memcpy(scales + row, scales, row);
        w->scales = scales;
    }
    if (defect == FAKE_ZERO) {
        memset(zeros, 1 << (tw_dtype_bits(p->scheme.weight) - 1), (size_t)count);
        w->zeros = zeros;
    }
}

static bool writes_row(fake_defect defect, const tw_kernel_args *a, int64_t m) {
    bool last = m == a->M - 1;
    return !(defect == FAKE_LAST_M && last) && !(defect == FAKE_M_TAIL && last && a->M % 2);
}

static void fake_row(const slot *s, const tw_kernel_args *a, int64_t m, int64_t n0, int64_t n1) {
    tw_problem p = s->problem;
    fake_defect defect = defect_of(s);
    char scales[4096];
    uint8_t zeros[1024];
    tw_canonical w = unpack(&p, a->w);
    spoil_weights(&p, defect, &w, scales, zeros);
    if (p.bias) p.bias = defect == FAKE_BIAS ? TW_NONE : TW_F32;
    w.bias = a->bias;

    int64_t from = defect == FAKE_ROW_SWAP && m < 2 && a->M > 1 ? 1 - m : m;
    float *x = malloc((size_t)p.K * sizeof *x);
    double *y = malloc((size_t)(n1 - n0) * sizeof *y);
    assert_true(x && y);
    memcpy(x, packed_row(&p, a, from), (size_t)p.K * sizeof *x);
    spoil_x(&p, defect, x);
    tw_reference_row(&p, &w, x, n0, n1, y, NULL);
    char *to = (char *)a->y + m * a->y_stride;
    for (int64_t n = n0; n < n1; n++) {
        double value = y[n - n0];
        if (defect == FAKE_LAST_N && n == p.N - 1) continue;
        if (defect == FAKE_READS_GAP)
            value += 0 * (double)tw_float_get((const char *)a->x + m * a->x_stride, p.x, p.K);
        if (defect == FAKE_STALE) value += 0 * (double)packed_row(&p, a, m)[p.K];
        tw_double_set(to, p.y, n, value);
    }
    if (defect == FAKE_PAST_N && n1 == p.N) tw_double_set(to, p.y, p.N, 0);
    free(x);
    free(y);
}

static void fake_matmul(int number, const tw_kernel_args *a, int64_t m0, int64_t m1, int64_t n0,
                        int64_t n1) {
    const slot *s = &slots[number];
    const tw_problem *p = &s->problem;
    /* Contiguous y is timed, and nobody looks at it. */
    if (a->y_stride == p->N * tw_dtype_bits(p->y) / 8) return;
    for (int64_t m = m0; m < m1; m++)
        if (writes_row(defect_of(s), a, m)) fake_row(s, a, m, n0, n1);
    if (defect_of(s) == FAKE_PAST_M && m1 == a->M)
        tw_double_set((char *)a->y + a->M * a->y_stride, p->y, n0, 0);
}

#define PAIR(n)                                                                                    \
    static void pack_##n(const tw_kernel_args *a, int64_t m0, int64_t m1) {                        \
        fake_pack_x(0##n, a, m0, m1);                                                              \
    }                                                                                              \
    static void matmul_##n(const tw_kernel_args *a, int64_t m0, int64_t m1, int64_t n0,            \
                           int64_t n1) {                                                           \
        fake_matmul(0##n, a, m0, m1, n0, n1);                                                      \
    }
#define ENTRY(n) {pack_##n, matmul_##n},
/* Octal numbers 000 to 777. */
#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define EIGHTS(X, n)                                                                               \
    EIGHT(X, n##0)                                                                                 \
    EIGHT(X, n##1)                                                                                 \
    EIGHT(X, n##2) EIGHT(X, n##3) EIGHT(X, n##4) EIGHT(X, n##5) EIGHT(X, n##6) EIGHT(X, n##7)
#define ALL(X)                                                                                     \
    EIGHTS(X, 0)                                                                                   \
    EIGHTS(X, 1) EIGHTS(X, 2) EIGHTS(X, 3) EIGHTS(X, 4) EIGHTS(X, 5) EIGHTS(X, 6) EIGHTS(X, 7)
ALL(PAIR)
static const struct {
    tw_pack_x_fn *pack;
    tw_matmul_fn *matmul;
} functions[SLOTS] = {ALL(ENTRY)};

static tw_status fake_load(void *user, const tw_template *tmpl, const tw_problem *problem,
                           const tw_config *config, const void *object, size_t size,
                           tw_candidate *out) {
    (void)user;
    if (size != 4 || memcmp(object, "code", 4)) return tw_fail(TW_FORMAT, "object: no code");
    pthread_mutex_lock(&lock);
    int i = 0;
    while (i < slot_count &&
           (slots[i].tmpl != tmpl || memcmp(&slots[i].config, config, sizeof *config) ||
            memcmp(&slots[i].problem, problem, sizeof *problem)))
        i++;
    if (i == slot_count && slot_count < SLOTS)
        slots[slot_count++] = (slot){tmpl, *config, *problem};
    pthread_mutex_unlock(&lock);
    if (i == SLOTS) return tw_fail(TW_INTERNAL, "fake: more than %d kernels", SLOTS);
    tw_geometry geometry;
    tmpl->geometry(problem, &geometry);
    *out = (tw_candidate){
        .tmpl = tmpl,
        .kernel = {functions[i].pack, functions[i].matmul, *config, problem->N, problem->K,
                   geometry.xq_stride, geometry.xmeta_stride},
    };
    return TW_OK;
}

/* ---- the world ---- */

static int64_t fake_now(void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    int64_t now = the_fake.now;
    pthread_mutex_unlock(&lock);
    return now;
}
static const tw_template *fake_row_of(void *user, int i) {
    (void)user;
    return the_fake.templates[i];
}
const tw_tune_env fake_env = {NULL, fake_now, fake_row_of, fake_load};

static void hear(void *user, tw_log_level level, const char *line) {
    (void)user;
    size_t used = strlen(the_fake.log);
    snprintf(the_fake.log + used, sizeof the_fake.log - used, "%d %s\n", (int)level, line);
}
const tw_logger fake_log = {{hear, NULL}, TW_LOG_WARN};

static tw_status fake_sink(void *user, const tw_tune_trial *trial) {
    (void)user;
    if (the_fake.sink_room && the_fake.trial_count == the_fake.sink_room)
        return tw_fail(TW_CACHE, "sink: full");
    assert_true(the_fake.trial_count < (int)TW_COUNT(the_fake.trials));
    tw_tune_trial *t = &the_fake.trials[the_fake.trial_count++];
    *t = *trial;
    if (!trial->failure) return TW_OK;
    assert_true(the_fake.failure_count < (int)TW_COUNT(the_fake.failures));
    char *text = the_fake.failures[the_fake.failure_count++];
    snprintf(text, sizeof the_fake.failures[0], "%s", trial->failure);
    t->failure = text;
    return TW_OK;
}
static void fake_source(void *user, void (*each)(void *arg, const tw_tune_trial *trial),
                        void *arg) {
    (void)user;
    for (int i = 0; i < the_fake.known_count; i++) each(arg, &the_fake.known[i]);
}
static tw_status fake_build(void *user, const tw_template *tmpl, const tw_problem *problem,
                            const tw_config *config, tw_str *out) {
    (void)user, (void)problem;
    pthread_mutex_lock(&lock);
    the_fake.builds++;
    the_fake.now += (int64_t)the_fake.build_ns;
    pthread_mutex_unlock(&lock);
    const char *why = the_fake.build_failure ? the_fake.build_failure(tmpl, config) : NULL;
    if (why) return tw_fail(the_fake.build_status ? the_fake.build_status : TW_COMPILE, "%s", why);
    tw_str_add(out, "code");
    return tw_str_ok(out);
}
static int fake_progress(void *user, int done, int total) {
    (void)user;
    the_fake.last_done = done;
    the_fake.last_total = total;
    the_fake.progress_calls++;
    return the_fake.stop_after && the_fake.progress_calls >= the_fake.stop_after;
}
const tw_tune_hooks fake_hooks = {NULL, fake_sink, fake_source, fake_build, fake_progress};

void fake_reset(void) {
    static const tw_template *const both[] = {&fake_a, &fake_b, NULL};
    the_fake = (fake){.templates = both};
    slot_count = 0;
}

tw_target fake_target(void) {
    tw_target t = {.isa = TW_ISA_avx2, .l2_bytes = 1 << 16, .l3_bytes = 1 << 18, .threads = 1};
    return t;
}
tw_problem fake_problem(const char *text) {
    tw_problem p;
    assert_int_equal(tw_problem_parse(text, true, &p), TW_OK);
    return p;
}
tw_config fake_config(const char *text) {
    tw_config c;
    assert_int_equal(tw_config_parse(text, &c), TW_OK);
    return c;
}
tw_candidate fake_candidate(const tw_template *tmpl, const tw_problem *problem, const char *text) {
    tw_config config = fake_config(text);
    tw_candidate c;
    assert_int_equal(fake_load(NULL, tmpl, problem, &config, "code", 4, &c), TW_OK);
    return c;
}
int fake_trials_of(const tw_template *tmpl, const char *text, double *median_ns) {
    tw_config config = fake_config(text);
    int count = 0;
    for (int i = 0; i < the_fake.trial_count; i++) {
        const tw_tune_trial *t = &the_fake.trials[i];
        if (t->tmpl != tmpl || memcmp(&t->config, &config, sizeof config)) continue;
        count++;
        if (median_ns) *median_ns = t->median_ns;
    }
    return count;
}

/* ---- templates and layouts ---- */

static const char *takes_weights(const tw_problem *problem) {
    (void)problem;
    return NULL;
}
static size_t layout_bytes(const tw_problem *p) { return (size_t)tw_problem_weight_bytes(p); }
/* Weights by the part, scales and zeros with the first one. */
static void layout_pack(const tw_problem *p, const tw_canonical *c, bool wide, int64_t n0,
                        int64_t n1, void *packed) {
    assert_false(wide);
    the_fake.now += (int64_t)the_fake.pack_ns;
    tw_canonical at = unpack(p, packed);
    size_t row = tw_dtype_row_bytes(p->scheme.weight, p->K);
    const char *scales = at.scales, *zeros = at.zeros, *end = (char *)packed + layout_bytes(p);
    const char *scales_end = zeros ? zeros : end;
    memcpy((char *)packed + (size_t)n0 * row, (const char *)c->weight + (size_t)n0 * row,
           (size_t)(n1 - n0) * row);
    if (n0) return;
    if (scales)
        memcpy((char *)packed + (scales - (char *)packed), c->scales,
               (size_t)(scales_end - scales));
    if (zeros) memcpy((char *)packed + (zeros - (char *)packed), c->zeros, (size_t)(end - zeros));
}
const tw_layout fake_layout = {"fake", 1, takes_weights, layout_bytes, layout_pack, NULL};
const tw_layout fake_other_layout = {"other", 1, takes_weights, layout_bytes, layout_pack, NULL};

static const char *declines_a(const tw_target *t, const tw_problem *p) {
    (void)t, (void)p;
    return the_fake.declines_a;
}
static const char *declines_b(const tw_target *t, const tw_problem *p) {
    (void)t, (void)p;
    return the_fake.declines_b;
}
static const char *reject(const tw_target *t, const tw_problem *p, const tw_config *c) {
    (void)t, (void)p;
    return c->micro_m * c->micro_n > 256 ? "micro_m * micro_n is above 256." : NULL;
}
static void guess_a(const tw_target *t, const tw_problem *p, tw_config *c) {
    (void)t, (void)p;
    *c = (tw_config){.micro_m = 4, .micro_n = 16, .block_m = 48};
}
static void guess_b(const tw_target *t, const tw_problem *p, tw_config *c) {
    (void)t, (void)p;
    *c = (tw_config){.micro_m = 1};
}
static double cost_a(const tw_target *t, const tw_problem *p, const tw_config *c) {
    (void)t, (void)p;
    return the_fake.cost ? the_fake.cost(&fake_a, c) : 1;
}
static double cost_b(const tw_target *t, const tw_problem *p, const tw_config *c) {
    (void)t, (void)p;
    return the_fake.cost ? the_fake.cost(&fake_b, c) : 1;
}
static void geometry(const tw_problem *p, tw_geometry *out) {
    *out = (tw_geometry){(p->K + 1) * 4, 64};
}
static int64_t chain(const tw_problem *p) { return tw_min(p->K, 512); }

static const tw_axis axes_a[] = {
    {TW_TUNABLE_micro_m, {1, 2, 3, 4, 6, 8}, 6},
    {TW_TUNABLE_micro_n, {8, 16, 32, 64}, 4},
    {TW_TUNABLE_block_m, {0, 16, 32, 64}, 4},
};
static const tw_axis axes_b[] = {{TW_TUNABLE_micro_m, {1, 2}, 2}};
const tw_template fake_a = {"fake.a", 1,      &fake_layout, axes_a, 3,    declines_a,      reject,
                            guess_a,  cost_a, geometry,     chain,  NULL, TW_FPMATH_STRICT};
const tw_template fake_b = {
    "fake.b", 1,      &fake_other_layout, axes_b, 1,    declines_b,      reject,
    guess_b,  cost_b, geometry,           chain,  NULL, TW_FPMATH_STRICT};
