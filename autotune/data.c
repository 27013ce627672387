/* Weights as random bits, x value by value; what is long and slow to encode as runs of a table. */
#include "autotune/data.h"

#include <math.h>
#include <string.h>

#include "src/base/alloc.h"
#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"

uint64_t tw_data_mix(uint64_t value) {
    uint64_t z = value + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Streams of random numbers, one a tensor. */
enum {
    STREAM_WEIGHT = 1,
    STREAM_SCALE,
    STREAM_ZERO,
    STREAM_BIAS,
    STREAM_X,
    STREAM_PLAIN,
    STREAM_LUT
};

static uint64_t random_at(int stream, int64_t i) {
    return tw_data_mix(((uint64_t)stream << 56) ^ (uint64_t)i);
}
/* Uniform in [0, 1). */
static double uniform(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }
/* Mean 0, deviation 1, within +-3.5: the sum of four uniform 16-bit numbers. */
static double normal(uint64_t bits) {
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(bits >> (16 * i) & 0xffff) / 65536 - 0.5;
    return sum * 1.7320508075688772;
}

/* ---- weights ---- */

/* Bytes of 8-bit floats that are no numbers become numbers; narrower floats have none. */
static void keep_finite(tw_dtype dtype, uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        uint8_t magnitude = bytes[i] & 0x7f;
        if (dtype == TW_E4M3 && magnitude == 0x7f) bytes[i] ^= 1;
        if (dtype == TW_E5M2 && magnitude >= 0x7c) bytes[i] ^= 0x40;
    }
}

/* Rows n0 to n1.  Any bits are codes, but pad bits are 0. */
static void fill_codes(const tw_problem *p, uint8_t *weight, int64_t n0, int64_t n1) {
    tw_dtype dtype = p->scheme.weight;
    size_t row = tw_dtype_row_bytes(dtype, p->K);
    int used = (int)(p->K * tw_dtype_bits(dtype) % 8);
    for (int64_t n = n0; n < n1; n++) {
        uint8_t *to = weight + (size_t)n * row;
        uint64_t state = random_at(STREAM_WEIGHT, n);
        for (size_t at = 0; at < row; at += sizeof state) {
            uint64_t bits = state = tw_data_mix(state);
            memcpy(to + at, &bits, row - at < sizeof bits ? row - at : sizeof bits);
        }
        if (used) to[row - 1] &= (uint8_t)((1 << used) - 1);
        keep_finite(dtype, to, row);
    }
}

/* ---- tables: encoding is slow, so rows of plain weights, of scales and of zeros are different
 * runs of one table each ---- */

enum { TABLE = 4093 };
struct tw_data_table {
    float weights[TABLE], scales[TABLE], zeros[TABLE]; /* encoded: of up to 4 bytes each */
    float lut[TW_LUT4_SIZE];
};

/* Where the row begins; it goes on at the start. */
static int64_t run_of(int stream, int64_t row) {
    return (int64_t)(random_at(stream, row + TABLE) % TABLE);
}

static void copy_run(const void *table, size_t size, int64_t from, int64_t count, void *row) {
    for (int64_t i = 0, run; i < count; i += run, from = 0) {
        run = tw_min(count - i, TABLE - from);
        memcpy((char *)row + (size_t)i * size, (const char *)table + (size_t)from * size,
               (size_t)run * size);
    }
}

/* Half the range of the codes: scales of about 1 / (4 * half) make weights of 1/4 at most. */
static double half_range(tw_dtype dtype) {
    if (dtype == TW_LUT4) return 1;
    if (tw_dtype_is_int(dtype)) return ((double)tw_dtype_max(dtype) - tw_dtype_min(dtype) + 1) / 2;
    return (double)tw_float_max(dtype);
}

static void set_factors(tw_pair *pairs, int64_t count, double factor) {
    uint16_t bits = 0;
    tw_double_set(&bits, TW_F16, 0, factor);
    for (int64_t i = 0; i < count; i++) pairs[i].factor = bits;
}

static void make_scales(const tw_scheme *s, struct tw_data_table *t) {
    double half = half_range(s->weight);
    double smallest = ldexp(1, 2 - (1 << (tw_dtype_get(s->scale)->exponent_bits - 1)));
    double base = fmax(1 / (4 * half), smallest);
    bool has_sign = s->scale != TW_E8M0;
    if (s->scale == TW_F16I8) {
        set_factors((tw_pair *)t->scales, TABLE, 1.5 * base / 127);
        set_factors((tw_pair *)t->zeros, TABLE, 2 * half * base / 127);
    }
    for (int64_t i = 0; i < TABLE; i++) {
        uint64_t bits = random_at(STREAM_SCALE, i);
        double scale = base * (0.5 + uniform(bits));
        if (has_sign && (bits & 7) == 0) scale = -scale;
        tw_double_set(t->scales, s->scale, i, scale);
        if (s->zero_mode == TW_ZERO_CODE) {
            /* Anywhere in the range but its middle, where a wrong zero would be least wrong. */
            int codes = (int)(2 * half), zero = (int)(random_at(STREAM_ZERO, i) % (uint64_t)codes);
            ((uint8_t *)t->zeros)[i] = (uint8_t)(zero == codes / 2 ? zero - 1 : zero);
        } else if (s->zero_mode == TW_ZERO_VALUE) {
            double middle = tw_dtype_is_int(s->weight) && !tw_dtype_is_signed(s->weight) ? half : 0;
            double off = (uniform(random_at(STREAM_ZERO, i)) - 0.4) * half / 2;
            tw_double_set(t->zeros, s->scale, i, -scale * middle + base * off);
        }
    }
}

static void make_table(const tw_problem *p, struct tw_data_table *t) {
    for (int64_t i = 0; i < TW_LUT4_SIZE; i++)
        t->lut[i] = (float)(uniform(random_at(STREAM_LUT, i)) * 2 - 1);
    if (!tw_scheme_plain(&p->scheme)) {
        make_scales(&p->scheme, t);
        return;
    }
    for (int64_t i = 0; i < TABLE; i++)
        tw_double_set(t->weights, p->scheme.weight, i, normal(random_at(STREAM_WEIGHT, i)) / 8);
}

static void fill_floats(const tw_problem *p, const tw_data *d, int64_t n0, int64_t n1) {
    size_t size = (size_t)tw_dtype_bits(p->scheme.weight) / 8;
    for (int64_t n = n0; n < n1; n++)
        copy_run(d->table->weights, size, run_of(STREAM_WEIGHT, n), p->K,
                 (char *)d->weight + (size_t)(n * p->K) * size);
}

/* Rows begin anywhere in the table, whose factors are all the same: here each run of a row gets its
 * own, the same part of them for scales and zeros. */
static void vary_factors(const tw_problem *p, int64_t r, tw_pair *pairs) {
    int64_t groups = tw_groups(&p->scheme, p->K), some = TW_FACTOR_K / p->scheme.group_k;
    double factor = tw_float_get(&pairs->factor, TW_F16, 0);
    for (int64_t j = 0; j < groups; j += some) {
        double part = 0.5 + uniform(random_at(STREAM_SCALE, r * groups + j));
        set_factors(pairs + j, tw_min(some, groups - j), factor * part);
    }
}

/* Row r of scales and zeros.  One scale in all is 0. */
static void fill_scales(const tw_problem *p, const tw_data *d, int64_t r) {
    const tw_scheme *s = &p->scheme;
    int64_t groups = tw_groups(s, p->K), first = r * groups, from = run_of(STREAM_SCALE, r);
    int64_t count = tw_scale_rows(s, p->N) * groups, silent = count / 3 - first;
    size_t size = (size_t)tw_dtype_bits(s->scale) / 8;
    size_t zero_size = (size_t)tw_dtype_bits(tw_zero_dtype(s)) / 8;
    copy_run(d->table->scales, size, from, groups, (char *)d->scales + (size_t)first * size);
    if (s->zero_mode)
        copy_run(d->table->zeros, zero_size, from, groups,
                 (char *)d->zeros + (size_t)first * zero_size);
    if (s->scale == TW_F16I8) vary_factors(p, r, (tw_pair *)d->scales + first);
    if (s->scale == TW_F16I8 && s->zero_mode == TW_ZERO_VALUE)
        vary_factors(p, r, (tw_pair *)d->zeros + first);
    if (s->scale != TW_E8M0 && count > 4 && silent >= 0 && silent < groups)
        tw_double_set(d->scales, s->scale, first + silent, 0);
}

/* Group `j` of row `r` of scales: a code that its zero takes away, as far as the scale's dtype can
 * tell, for all but one in 64 columns. */
static void cancel_group(const tw_problem *p, int64_t r, int64_t j, const tw_data *d) {
    const tw_scheme *s = &p->scheme;
    int64_t i = r * tw_groups(s, p->K) + j, group_n = tw_group_n(s, p->N);
    int64_t group_k = tw_group_k(s, p->K), k1 = tw_min(p->K, (j + 1) * group_k);
    uint64_t bits = random_at(STREAM_ZERO, i);
    int32_t least = tw_dtype_min(s->weight), most = tw_dtype_max(s->weight);
    int32_t code = least + (int32_t)(bits % (uint64_t)(most - least + 1));
    tw_double_set(d->zeros, s->scale, i, -code * (double)tw_float_get(d->scales, s->scale, i));
    for (int64_t n = r * group_n; n < tw_min(p->N, (r + 1) * group_n); n++) {
        char *row = (char *)d->weight + (size_t)n * tw_dtype_row_bytes(s->weight, p->K);
        for (int64_t k = j * group_k; k < k1; k++)
            if (tw_data_mix(bits + (uint64_t)(n * p->K + k)) % 64)
                tw_code_set(row, s->weight, k, code);
    }
}

/* Where q * s and z cancel, whoever adds them up late must do it exactly: some rows are nearly all
 * such codes.  Among the first ones, since columns are alike. */
static void cancel_row(const tw_problem *p, int64_t r, const tw_data *d) {
    const tw_scheme *s = &p->scheme;
    if (s->zero_mode != TW_ZERO_VALUE || !tw_dtype_is_int(s->weight) || r >= 512 || r % 8 != 5)
        return;
    for (int64_t j = 0; j < tw_groups(s, p->K); j++) cancel_group(p, r, j, d);
}

/* ---- all of it ---- */

static tw_status reserve(size_t size, void **p, size_t *bytes) {
    *bytes = size;
    *p = tw_alloc_untouched(&tw_allocator_default, size);
    return *p ? TW_OK : tw_fail(TW_MEMORY, "generated data: %zu bytes, out of memory", size);
}

static tw_status reserve_all(const tw_problem *p, tw_data *d) {
    const tw_scheme *s = &p->scheme;
    int64_t scales = tw_scale_rows(s, p->N) * tw_groups(s, p->K);
    size_t row = tw_dtype_row_bytes(s->weight, p->K), unused;
    TW_TRY(reserve(sizeof *d->table, (void **)&d->table, &unused));
    TW_TRY(reserve((size_t)p->N * row, &d->weight, &d->weight_bytes));
    if (!tw_scheme_plain(s))
        TW_TRY(reserve(tw_dtype_row_bytes(s->scale, scales), &d->scales, &d->scale_bytes));
    if (s->zero_mode)
        TW_TRY(reserve(tw_dtype_row_bytes(tw_zero_dtype(s), scales), &d->zeros, &d->zero_bytes));
    return p->bias ? reserve(tw_dtype_row_bytes(p->bias, p->N), &d->bias, &d->bias_bytes) : TW_OK;
}

tw_status tw_data_reserve(const tw_problem *problem, tw_data *out) {
    tw_data d = {0};
    tw_status status = reserve_all(problem, &d);
    if (status != TW_OK) {
        tw_data_free(&d);
        return status;
    }
    make_table(problem, d.table);
    if (problem->scheme.weight == TW_LUT4) d.lut = d.table->lut;
    /* The loudest values are beyond the largest code, 127 times this at most. */
    if (tw_act_given(&problem->scheme)) d.act_scale = 0x1p-4f;
    for (int64_t n = 0; problem->bias && n < problem->N; n++)
        tw_double_set(d.bias, problem->bias, n, normal(random_at(STREAM_BIAS, n)) / 2);
    *out = d;
    return TW_OK;
}

/* Rows of one part: some milliseconds of them.  Those of a group belong together, unless it has
 * them all. */
static int64_t part_rows(const tw_problem *p) {
    enum { WEIGHTS = 1 << 20 };
    int64_t rows = tw_ceil_div(WEIGHTS, p->K), group_n = tw_group_n(&p->scheme, p->N);
    return group_n < p->N ? tw_round_up(rows, group_n) : rows;
}

size_t tw_data_parts(const tw_problem *problem) {
    return (size_t)tw_ceil_div(problem->N, part_rows(problem));
}

void tw_data_fill(const tw_problem *problem, const tw_data *data, size_t part) {
    int64_t rows = part_rows(problem), n0 = (int64_t)part * rows,
            n1 = tw_min(problem->N, n0 + rows);
    if (tw_scheme_plain(&problem->scheme)) {
        fill_floats(problem, data, n0, n1);
        return;
    }
    fill_codes(problem, data->weight, n0, n1);
    int64_t group_n = tw_group_n(&problem->scheme, problem->N);
    for (int64_t r = tw_ceil_div(n0, group_n); r < tw_ceil_div(n1, group_n); r++) {
        fill_scales(problem, data, r);
        cancel_row(problem, r, data);
    }
}

tw_status tw_data_create(const tw_problem *problem, tw_data *out) {
    TW_TRY(tw_data_reserve(problem, out));
    for (size_t i = 0; i < tw_data_parts(problem); i++) tw_data_fill(problem, out, i);
    return TW_OK;
}

void tw_data_free(tw_data *data) {
    tw_free(&tw_allocator_default, data->weight, data->weight_bytes);
    tw_free(&tw_allocator_default, data->scales, data->scale_bytes);
    tw_free(&tw_allocator_default, data->zeros, data->zero_bytes);
    tw_free(&tw_allocator_default, data->bias, data->bias_bytes);
    if (data->table) tw_free(&tw_allocator_default, data->table, sizeof *data->table);
    *data = (tw_data){0};
}

/* ---- activations ---- */

/* With 127 as the loudest value the i8 scale is 1, and halves are ties of rounding. */
static const float edges[] = {127,   0.5f,   -1.5f,     0, 2.5f,  -127,
                              -0.0f, 126.5f, -0x1p-14f, 1, -3.5f, -100};

static double edge_at(int64_t group, int64_t k) {
    int64_t g = k / group;
    bool silent = g % 5 == 3; /* amax 0 */
    if (silent) return 0;
    /* Each group begins with the loudest; further on the order differs by group. */
    int64_t within = k % group;
    return within ? (double)edges[(within * 7 + g) % (int64_t)TW_COUNT(edges)] : 127.0;
}

void tw_data_probe(const tw_problem *problem, int64_t index, float *x) {
    const tw_scheme *s = &problem->scheme;
    int64_t group = s->act_group ? tw_act_group(s, problem->K) : tw_group_k(s, problem->K);
    uint64_t seed = random_at(STREAM_X, index);
    for (int64_t k = 0; k < problem->K; k++) {
        uint64_t bits = tw_data_mix(seed + (uint64_t)k);
        double value = normal(bits);
        if (index % 2)
            value = edge_at(group, k) * ((index / 2 % 2) ? -1 : 1);
        else if (bits % 61 == 0)
            value *= 8;
        float rounded;
        tw_double_set(&rounded, problem->x, 0, value);
        x[k] = tw_float_get(&rounded, problem->x, 0);
    }
}

void tw_data_plain(const tw_problem *problem, int64_t index, float *x) {
    uint64_t seed = random_at(STREAM_PLAIN, index);
    for (int64_t k = 0; k < problem->K; k++) x[k] = (float)normal(tw_data_mix(seed + (uint64_t)k));
}
