/* Data that wrong kernels stumble over: every draw is deterministic. */
#include "tests/kernels/layer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "tests/core/random.h"

enum { ROW_KINDS = 8 };

static void *zeroed(size_t size) {
    void *p = calloc(size + 1, 1);
    if (!p) exit(2);
    return p;
}

tw_problem problem_of(const char *text) {
    tw_problem p;
    if (tw_problem_parse(text, false, &p) == TW_OK && tw_problem_check(&p) == TW_OK) return p;
    fprintf(stderr, "%s: %s\n", text, tw_error_message());
    exit(2);
}

static size_t real_bytes(tw_dtype dtype, int64_t count) {
    return (size_t)count * (size_t)tw_dtype_bits(dtype) / 8;
}

static bool one_in(uint64_t *state, int n) { return random_int(state, 1, n) == 1; }

/* ---- weights ---- */

static int32_t draw_code(tw_dtype d, layer_data data, int64_t n, uint64_t *state) {
    int32_t least = tw_dtype_min(d), most = tw_dtype_max(d);
    if (data == LAYER_EXTREME) return n % 4 == 3 || one_in(state, 8) ? least : most;
    if (one_in(state, 6)) return one_in(state, 2) ? least : most;
    return (int32_t)random_int(state, least, most);
}

/* Where sums have to be exact: numbers that each has, and whose products with x stay short. */
static bool has_few_bits(float v) { return fabsf(v) <= 4 && v == rintf(v); }

/* A code of a narrow float or a table that is a number. */
static int32_t draw_float_code(tw_dtype d, layer_data data, uint64_t *state) {
    for (;;) {
        uint8_t code = (uint8_t)random_int(state, 0, tw_dtype_max(d));
        if (d == TW_LUT4) return code;
        float v = tw_float_get(&code, d, 0);
        bool exact = data == LAYER_EXACT || data == LAYER_EXTREME;
        if (isfinite(v) && (!exact || has_few_bits(v))) return code;
    }
}

static void fill_weight(layer *l, layer_data data, uint64_t *state) {
    const tw_problem *p = &l->problem;
    tw_dtype d = p->scheme.weight;
    size_t row_bytes = tw_dtype_row_bytes(d, p->K);
    l->weight = zeroed(row_bytes * (size_t)p->N);
    for (int64_t n = 0; n < p->N; n++) {
        char *row = (char *)l->weight + (size_t)n * row_bytes;
        for (int64_t k = 0; k < p->K; k++) {
            if (tw_dtype_is_int(d))
                tw_code_set(row, d, k, draw_code(d, data, n, state));
            else if (!tw_dtype_is_real(d))
                tw_code_set(row, d, k, draw_float_code(d, data, state));
            else if (data == LAYER_EXACT || data == LAYER_EXTREME)
                tw_float_set(row, d, k, (float)random_int(state, -128, 127));
            else
                tw_float_set(row, d, k, random_unit(state));
        }
    }
}

static float range_of(tw_dtype weight) {
    return tw_dtype_is_int(weight) ? (float)(1 << tw_dtype_bits(weight))
           : weight == TW_LUT4     ? 16
                                   : 2 * tw_float_max(weight);
}

/* Of each run of 256 columns another one; `most` is the largest value that must fit. */
static void draw_factors(const tw_problem *p, layer_data data, float most, void *data_of,
                         uint64_t *state) {
    int64_t groups = tw_groups(&p->scheme, p->K), some = TW_FACTOR_K / p->scheme.group_k;
    bool exact = data == LAYER_EXACT || data == LAYER_EXTREME;
    tw_pair *pairs = data_of;
    for (int64_t r = 0; r < tw_scale_rows(&p->scheme, p->N); r++, pairs += groups)
        for (int64_t j = 0; j < groups; j++) {
            float factor = exact ? ldexpf(1, -(int)random_int(state, 1, 3))
                                 : most / 127 * (1.25f + random_unit(state) / 4);
            if (j % some)
                pairs[j].factor = pairs[j - 1].factor;
            else
                tw_float_set(&pairs[j].factor, TW_F16, 0, factor);
        }
}

static float draw_scale(const tw_scheme *s, layer_data data, int64_t i, uint64_t *state) {
    if (data == LAYER_EXTREME) return 1;
    if (data == LAYER_EXACT) return ldexpf(1, (int)(i % 3) - 1);
    bool sign = s->scale != TW_E8M0;
    if (sign && one_in(state, 16)) return one_in(state, 2) ? 0.0f : -0.0f;
    float size = (1.5f + random_unit(state)) / range_of(s->weight);
    return sign && one_in(state, 8) ? -size : size;
}

/* About -(the middle code) * scale, so that terms cancel as they do in real layers. */
static float draw_value(const tw_problem *p, float scale, uint64_t *state) {
    tw_dtype d = p->scheme.weight;
    if (!tw_dtype_is_int(d)) return random_unit(state) / 4;
    float middle = (float)(tw_dtype_min(d) + tw_dtype_max(d)) / 2;
    float spread = (float)(tw_dtype_max(d) - tw_dtype_min(d)) / 8;
    if (scale == 0) return random_unit(state) / 8;
    return -scale * (middle + spread * random_unit(state));
}

/* Any u8 is legal; where it lies far outside the codes, the sums of groups drown each other, which
 * only exact sums can stand. */
static uint8_t draw_zero(tw_dtype d, layer_data data, int64_t i, uint64_t *state) {
    if (data == LAYER_EXTREME) return i % 2 ? 255 : 0;
    if (data == LAYER_EXACT && one_in(state, 2)) return (uint8_t)random_int(state, 200, 255);
    return (uint8_t)random_int(state, 0, tw_dtype_max(d) - tw_dtype_min(d));
}

/* Zero i, and the codes of its group, of which most cancel with it. */
static void cancel_group(layer *l, int64_t i, float scale, uint64_t *state) {
    const tw_problem *p = &l->problem;
    const tw_scheme *s = &p->scheme;
    int64_t groups = tw_groups(s, p->K), group_k = tw_group_k(s, p->K);
    int64_t group_n = tw_group_n(s, p->N), n0 = i / groups * group_n, k0 = i % groups * group_k;
    int32_t least = tw_dtype_min(s->weight), most = tw_dtype_max(s->weight);
    int32_t code = (int32_t)random_int(state, least, most);
    tw_float_set(l->zeros, s->scale, i, -(float)code * scale);
    if (s->scale == TW_F16I8) {
        /* Zeros of small codes by the scales' factor are exact. */
        tw_pair *zero = (tw_pair *)l->zeros + i, *factor = (tw_pair *)l->scales + i;
        code = (int32_t)random_int(state, tw_max(least, -15), tw_min(most, 15));
        factor->code %= 9;
        *zero = (tw_pair){factor->factor, (int8_t)(-code * factor->code), 0};
    }
    for (int64_t n = n0; n < tw_min(p->N, n0 + group_n); n++) {
        char *row = (char *)l->weight + (size_t)n * tw_dtype_row_bytes(s->weight, p->K);
        for (int64_t k = k0; k < tw_min(p->K, k0 + group_k); k++) {
            int32_t other = code < most ? code + 1 : code - 1;
            tw_code_set(row, s->weight, k, one_in(state, 8) ? other : code);
        }
    }
}

static void fill_scales(layer *l, layer_data data, uint64_t *state) {
    const tw_scheme *s = &l->problem.scheme;
    int64_t count = layer_scales(l);
    bool exact = data == LAYER_EXACT || data == LAYER_EXTREME;
    l->scales = zeroed(real_bytes(s->scale, count));
    if (s->zero_mode) l->zeros = zeroed(real_bytes(tw_zero_dtype(s), count));
    if (s->scale == TW_F16I8) {
        draw_factors(&l->problem, data, 2.5f / range_of(s->weight), l->scales, state);
        if (s->zero_mode == TW_ZERO_VALUE) draw_factors(&l->problem, data, 2, l->zeros, state);
    }
    for (int64_t i = 0; i < count; i++) {
        tw_float_set(l->scales, s->scale, i, draw_scale(s, data, i, state));
        float scale = tw_float_get(l->scales, s->scale, i);
        if (data == LAYER_CANCEL) {
            cancel_group(l, i, scale, state);
            continue;
        }
        if (s->zero_mode == TW_ZERO_CODE)
            ((uint8_t *)l->zeros)[i] = draw_zero(s->weight, data, i, state);
        if (s->zero_mode == TW_ZERO_VALUE)
            tw_float_set(l->zeros, s->scale, i,
                         exact ? (float)random_int(state, -3, 3)
                               : draw_value(&l->problem, scale, state));
    }
}

static void fill_bias(layer *l, layer_data data, uint64_t *state) {
    const tw_problem *p = &l->problem;
    int64_t padded = tw_round_up(p->N, 64);
    l->bias_f32 = zeroed((size_t)padded * sizeof(float));
    /* What lies past N belongs to no column. */
    for (int64_t n = p->N; n < padded; n++) l->bias_f32[n] = NAN;
    if (!p->bias) return;
    l->bias = zeroed(real_bytes(p->bias, p->N));
    for (int64_t n = 0; n < p->N; n++) {
        bool random = data == LAYER_RANDOM || data == LAYER_PEAKS;
        float v = random ? random_unit(state) : (float)random_int(state, -9, 9);
        tw_float_set(l->bias, p->bias, n, v);
        l->bias_f32[n] = tw_float_get(l->bias, p->bias, n);
    }
}

/* ---- x ---- */

static float draw_x(const tw_problem *p, int64_t kind, int64_t k, int64_t loud, uint64_t *state) {
    float v = random_unit(state);
    /* Below f16's and f32's normal numbers; amax / 127 is 0 or has no finite inverse.  bf16 as it
     * is may be multiplied by vdpbf16ps, which takes subnormals for zero: small, but normal. */
    bool as_bf16 = p->x == TW_BF16 && !p->scheme.act_quant;
    float tiny = p->x == TW_F16 ? 0x1p-22f : as_bf16 ? 0x1p-90f : 0x1p-130f;
    switch (kind) {
    case 1: return 0;
    case 2: return k == loud ? 300 : v;
    case 3: return v * tiny;
    case 4: return -fabsf(v);
    case 5: return 0.7f + v / 64; /* not one number: its roundings would all go one way */
    case 6: return k % 2 ? -0.5f : 0.25f + v / 64;
    case 7: return v * 40;
    default: return v;
    }
}

/* Integers whose largest magnitude in each activation group is 127, or that span -100 to 155; for
 * i8full beside one of 127.5, whose code is 127. */
static float draw_exact(const tw_problem *p, layer_data data, int64_t k, uint64_t *state) {
    int64_t group = tw_act_group(&p->scheme, p->K), in_group = k % group;
    if (p->scheme.act_quant == TW_ACTQ_I8Z) {
        if (in_group == 0) return -100;
        if (in_group == 1 || data == LAYER_EXTREME) return 155;
        return (float)random_int(state, -100, 155);
    }
    if (p->scheme.act_quant == TW_ACTQ_I8_FULL) {
        if (data == LAYER_EXTREME) return -127.5f; /* -128 */
        if (in_group == 0) return 127.5f;
    }
    if (in_group == 0 || data == LAYER_EXTREME) return 127;
    return (float)random_int(state, -127, 127);
}

static void fill_x(layer *l, layer_data data, uint64_t seed, uint64_t *state) {
    const tw_problem *p = &l->problem;
    l->x = zeroed(real_bytes(p->x, p->M * p->K));
    l->x_f32 = zeroed((size_t)(p->M * p->K) * sizeof(float));
    bool peaks = data == LAYER_PEAKS;
    bool random = data == LAYER_RANDOM || data == LAYER_CANCEL || peaks;
    for (int64_t m = 0; m < p->M; m++) {
        int64_t kind = (m + (int64_t)(seed % ROW_KINDS)) % ROW_KINDS;
        int64_t loud = random_int(state, 0, p->K - 1);
        /* The loudest element is among a row's last ones, each in turn: codes depend on it. */
        int64_t loudest = kind % 2 ? -1 : p->K - 1 - (m + (int64_t)seed) / 2 % tw_min(8, p->K);
        for (int64_t k = 0; k < p->K; k++) {
            int64_t i = m * p->K + k;
            float v = data == LAYER_IDENTITY ? (float)(m == k)
                      : peaks                ? random_unit(state) / (k % 16 < 2 ? 1 : 8)
                      : random               ? draw_x(p, kind, k, loud, state)
                                             : draw_exact(p, data, k, state);
            if (random && k == loudest) v = v < 0 ? 1.5f * v - 1 : 1.5f * v + 1;
            tw_float_set(l->x, p->x, i, v);
            l->x_f32[i] = tw_float_get(l->x, p->x, i);
        }
    }
}

/* ---- the whole ---- */

static void ask_oracle(layer *l) {
    tw_problem p = l->problem;
    size_t bytes = (size_t)(p.M * p.N) * sizeof(double);
    tw_canonical canonical = layer_canonical(l);
    int maths = p.scheme.fpmath + 1;
    for (int math = 0; math < maths; math++) {
        p.scheme.fpmath = (tw_fpmath)math;
        l->expected[math] = zeroed(bytes);
        l->magnitude[math] = zeroed(bytes);
        for (int64_t m = 0; m < p.M; m++)
            tw_reference_row(&p, &canonical, l->x_f32 + m * p.K, 0, p.N,
                             l->expected[math] + m * p.N, l->magnitude[math] + m * p.N);
    }
}

/* Integers, so that sums of them are exact; in no order, of no symmetry, one twice. */
static const float lut_values[TW_LUT4_SIZE] = {3, -7, 0, 5,  -1, 6, -2, 1,
                                               7, -4, 2, -6, 4,  1, -5, -3};

void layer_init(layer *l, const tw_problem *problem, layer_data data, uint64_t seed) {
    uint64_t state = seed;
    *l = (layer){.problem = *problem};
    if (data == LAYER_IDENTITY) l->problem.M = problem->K;
    for (int i = 0; i < TW_LUT4_SIZE; i++) l->lut[i] = lut_values[i];
    fill_weight(l, data, &state);
    if (!tw_scheme_plain(&problem->scheme)) fill_scales(l, data, &state);
    fill_bias(l, data, &state);
    fill_x(l, data, seed, &state);
    ask_oracle(l);
}

static void *copied(const void *from, size_t size) {
    return from ? memcpy(zeroed(size), from, size) : NULL;
}

void layer_copy(layer *to, const layer *from) {
    const tw_problem *p = &from->problem;
    const tw_scheme *s = &p->scheme;
    int64_t scales = tw_scheme_plain(s) ? 0 : layer_scales(from);
    *to = (layer){.problem = *p};
    memcpy(to->lut, from->lut, sizeof to->lut);
    to->weight = copied(from->weight, tw_dtype_row_bytes(s->weight, p->K) * (size_t)p->N);
    to->scales = copied(from->scales, real_bytes(s->scale, scales));
    to->zeros = copied(from->zeros, real_bytes(tw_zero_dtype(s), scales));
    to->bias = copied(from->bias, real_bytes(p->bias, p->N));
    to->x = copied(from->x, real_bytes(p->x, p->M * p->K));
    to->bias_f32 = copied(from->bias_f32, (size_t)tw_round_up(p->N, 64) * sizeof(float));
    to->x_f32 = copied(from->x_f32, (size_t)(p->M * p->K) * sizeof(float));
}

void layer_free(layer *l) {
    free(l->weight);
    free(l->scales);
    free(l->zeros);
    free(l->bias);
    free(l->x);
    free(l->bias_f32);
    free(l->x_f32);
    for (int math = 0; math < TW_FPMATHS; math++) {
        free(l->expected[math]);
        free(l->magnitude[math]);
    }
    *l = (layer){0};
}
