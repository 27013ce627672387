/* Text form: one row of `fields` for each field, in the order in which they are printed. */
#include "src/core/problem.h"

#include <string.h>

#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"

typedef struct word {
    const char *text;
    size_t size;
} word;

/* Text from outside, in a sentence: a value may be as long as a file. */
#define SHOWN(w) (int)tw_min((int64_t)(w).size, 60), (w).text

static bool word_is(word w, const char *text) {
    return strlen(text) == w.size && !memcmp(w.text, text, w.size);
}

/* The index of a name in a list, -1 for none. */
static int word_index(word w, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (word_is(w, names[i])) return i;
    return -1;
}

/* Digits alone, `least` to TW_MAX_DIM; -1 for anything else. */
static int64_t word_size(word w, int64_t least) {
    int64_t value = 0;
    if (!w.size) return -1;
    for (size_t i = 0; i < w.size; i++) {
        if (w.text[i] < '0' || w.text[i] > '9') return -1;
        value = value * 10 + (w.text[i] - '0');
        if (value > TW_MAX_DIM) return -1;
    }
    return value < least ? -1 : value;
}

static const char *const zero_modes[] = {"none", "code", "value"};
static const char *const fpmaths[TW_FPMATHS] = {"strict", "bf16"};
static const char *const acts[] = {"none", "relu", "gelu", "gelu_tanh", "silu"};

const char *tw_act_name(tw_act act) { return (size_t)act < TW_COUNT(acts) ? acts[act] : "?"; }

/* ---- one parser for each kind of value; false: the value breaks the field's rule ---- */

static bool parse_size(word w, tw_problem *p, size_t offset) {
    int64_t value = word_size(w, 1);
    if (value > 0) memcpy((char *)p + offset, &value, sizeof value);
    return value > 0;
}

static bool parse_real(word w, tw_problem *p, size_t offset) {
    tw_dtype dtype = tw_dtype_parse(w.text, w.size);
    memcpy((char *)p + offset, &dtype, sizeof dtype);
    return tw_dtype_is_real(dtype);
}

static bool parse_bias(word w, tw_problem *p, size_t offset) {
    return word_is(w, "none") || parse_real(w, p, offset);
}

static bool is_weight_dtype(tw_dtype d) {
    const tw_dtype_info *info = tw_dtype_get(d);
    return info && !tw_dtype_is_scale_only(d);
}

static bool parse_weight(word w, tw_problem *p, size_t offset) {
    (void)offset;
    p->scheme.weight = tw_dtype_parse(w.text, w.size);
    return is_weight_dtype(p->scheme.weight);
}

static bool is_scale_dtype(tw_dtype d) {
    return tw_dtype_is_real(d) || d == TW_E4M3 || tw_dtype_is_scale_only(d);
}

static bool parse_scale(word w, tw_problem *p, size_t offset) {
    (void)offset;
    p->scheme.scale = tw_dtype_parse(w.text, w.size);
    return is_scale_dtype(p->scheme.scale);
}

static bool parse_group(word w, tw_problem *p, size_t offset) {
    (void)offset;
    int64_t n = 1, k = 0;
    const char *cross = memchr(w.text, 'x', w.size);
    if (word_is(w, "tensor")) {
        n = 0;
    } else if (cross) {
        size_t before = (size_t)(cross - w.text);
        n = word_size((word){w.text, before}, 0);
        k = word_size((word){cross + 1, w.size - before - 1}, 0);
    } else if (!word_is(w, "channel")) {
        k = word_size(w, 1);
    }
    p->scheme.group_n = (int32_t)n;
    p->scheme.group_k = (int32_t)k;
    return n >= 0 && k >= 0;
}

static bool parse_zero(word w, tw_problem *p, size_t offset) {
    (void)offset;
    int i = word_index(w, zero_modes, (int)TW_COUNT(zero_modes));
    p->scheme.zero_mode = (tw_zero_mode)(i < 0 ? 0 : i);
    return i >= 0;
}

static bool parse_act_quant(word w, tw_problem *p, size_t offset) {
    (void)offset;
    const tw_act_row *row;
    for (int i = 0; (row = tw_act_get((tw_act_quant)i)); i++) {
        size_t name = strlen(row->name);
        p->scheme.act_quant = (tw_act_quant)i;
        if (word_is(w, row->name)) return true;
        if (!row->grouped || w.size < name + 1 || memcmp(w.text, row->name, name) != 0 ||
            w.text[name] != 'g')
            continue;
        int64_t group = word_size((word){w.text + name + 1, w.size - name - 1}, 1);
        p->scheme.act_group = (int32_t)group;
        return group > 0;
    }
    return false;
}

static bool parse_fpmath(word w, tw_problem *p, size_t offset) {
    (void)offset;
    int i = word_index(w, fpmaths, (int)TW_COUNT(fpmaths));
    p->scheme.fpmath = (tw_fpmath)(i < 0 ? 0 : i);
    return i >= 0;
}

static bool parse_act(word w, tw_problem *p, size_t offset) {
    (void)offset;
    int i = word_index(w, acts, (int)TW_COUNT(acts));
    p->act = (tw_act)(i < 0 ? 0 : i);
    return i >= 0;
}

/* ---- the fields ---- */

enum {
    FIELD_M,
    FIELD_N,
    FIELD_K,
    FIELD_x,
    FIELD_w,
    FIELD_g,
    FIELD_s,
    FIELD_z,
    FIELD_a,
    FIELD_fpmath,
    FIELD_y,
    FIELD_bias,
    FIELD_act,
    FIELD_COUNT
};

typedef struct field {
    const char *name;
    bool (*parse)(word value, tw_problem *p, size_t offset);
    size_t offset;
    const char *rule;
} field;

#define SIZE_RULE "a positive integer up to 268435456"
_Static_assert(TW_MAX_DIM == 268435456, "SIZE_RULE says so");

static const field fields[FIELD_COUNT] = {
    {"M", parse_size, offsetof(tw_problem, M), SIZE_RULE},
    {"N", parse_size, offsetof(tw_problem, N), SIZE_RULE},
    {"K", parse_size, offsetof(tw_problem, K), SIZE_RULE},
    {"x", parse_real, offsetof(tw_problem, x), "f32, f16 or bf16"},
    {"w", parse_weight, 0, "i1..i8, u1..u8, e4m3, e5m2, e3m2, e2m3, e2m1, lut4, f32, f16 or bf16"},
    {"g", parse_group, 0, "a group of K (32), a block of N x K (128x128), channel or tensor"},
    {"s", parse_scale, 0, "f32, f16, bf16, e8m0, e4m3 or f16i8"},
    {"z", parse_zero, 0, "none, code or value"},
    {"a", parse_act_quant, 0,
     "none, i8, i8gG with G a group of K (i8g32), i8z, i8full, i8s, e4m3, e4m3gG, e4m3s, "
     "mxfp8 or mxfp4 (or with floor, ceil or even behind it), nvfp4, nvfp4t or nvfp4s"},
    {"fpmath", parse_fpmath, 0, "strict or bf16"},
    {"y", parse_real, offsetof(tw_problem, y), "f32, f16 or bf16"},
    {"bias", parse_bias, offsetof(tw_problem, bias), "none, f32, f16 or bf16"},
    {"act", parse_act, 0, "none, relu, gelu, gelu_tanh or silu"},
};

static bool in_scheme(int f) { return f >= FIELD_w && f <= FIELD_fpmath; }

/* One "field=value"; seen: a bit for each field. */
static tw_status parse_field(word item, bool scheme_only, unsigned *seen, tw_problem *p) {
    const char *equals = memchr(item.text, '=', item.size);
    if (!equals) return tw_fail(TW_INVALID, "\"%.*s\": expected field=value", SHOWN(item));
    word name = {item.text, (size_t)(equals - item.text)};
    word value = {equals + 1, item.size - name.size - 1};
    int f = 0;
    while (f < FIELD_COUNT && !word_is(name, fields[f].name)) f++;
    if (f == FIELD_COUNT)
        return tw_fail(TW_INVALID, "\"%.*s\": unknown field, the fields are %s", SHOWN(name),
                       scheme_only ? "w, g, s, z, a, fpmath"
                                   : "M, N, K, x, w, g, s, z, a, fpmath, y, bias, act");
    if (scheme_only && !in_scheme(f))
        return tw_fail(TW_INVALID,
                       "%s: \"%.*s\", not a field of a scheme, which has w, g, s, z, a, fpmath",
                       fields[f].name, SHOWN(value));
    if (*seen & 1u << f)
        return tw_fail(TW_INVALID, "%s: \"%.*s\", the field is given twice", fields[f].name,
                       SHOWN(value));
    *seen |= 1u << f;
    if (!fields[f].parse(value, p, fields[f].offset))
        return tw_fail(TW_INVALID, "%s: \"%.*s\", expected %s", fields[f].name, SHOWN(value),
                       fields[f].rule);
    return TW_OK;
}

/* All fields of `text`, the defaults for those it leaves out. */
static tw_status parse(const char *text, bool scheme_only, unsigned required, tw_problem *p) {
    unsigned seen = 0;
    *p = (tw_problem){.x = TW_F32};
    for (bool more = true; more;) {
        size_t size = strcspn(text, ",");
        TW_TRY(parse_field((word){text, size}, scheme_only, &seen, p));
        more = text[size];
        text += size + more;
    }
    for (int f = 0; f < FIELD_COUNT; f++)
        if (required & ~seen & 1u << f)
            return tw_fail(TW_INVALID, "%s: missing, expected %s", fields[f].name, fields[f].rule);
    if (!(seen & 1u << FIELD_y)) p->y = p->x;

    if (tw_dtype_is_real(p->scheme.weight)) {
        for (int f = FIELD_g; f <= FIELD_a; f++)
            if (seen & 1u << f && (f != FIELD_a || p->scheme.act_quant))
                return tw_fail(TW_INVALID,
                               "%s: given, but w=%s is plain: it has no g, s, z and only a=none",
                               fields[f].name, tw_dtype_name(p->scheme.weight));
        return TW_OK;
    }
    if (!(seen & 1u << FIELD_g)) p->scheme.group_n = 1;
    if (!(seen & 1u << FIELD_s)) p->scheme.scale = TW_F32;
    return TW_OK;
}

tw_status tw_problem_parse(const char *text, bool need_M, tw_problem *out) {
    tw_problem p;
    unsigned required =
        1u << FIELD_N | 1u << FIELD_K | 1u << FIELD_w | (need_M ? 1u << FIELD_M : 0);
    TW_TRY(parse(text, false, required, &p));
    TW_TRY(tw_problem_check(&p));
    *out = p;
    return TW_OK;
}

tw_status tw_scheme_parse(const char *text, tw_scheme *out) {
    tw_problem p;
    if (!text || !out) return tw_fail(TW_INVALID, "%s: NULL, must be given", text ? "out" : "text");
    TW_TRY(parse(text, true, 1u << FIELD_w, &p));
    TW_TRY(tw_scheme_check(&p.scheme));
    *out = p.scheme;
    return TW_OK;
}

/* ---- printing ---- */

void tw_scheme_text(const tw_scheme *s, tw_str *out) {
    tw_str_add(out, "w=%s", tw_dtype_name(s->weight));
    if (!tw_scheme_plain(s)) {
        if (s->group_n == 1 && s->group_k)
            tw_str_add(out, ",g=%d", s->group_k);
        else if (s->group_k || s->group_n > 1)
            tw_str_add(out, ",g=%dx%d", s->group_n, s->group_k);
        else
            tw_str_add(out, ",g=%s", s->group_n ? "channel" : "tensor");
        tw_str_add(out, ",s=%s,z=%s", tw_dtype_name(s->scale), zero_modes[s->zero_mode]);
    }
    tw_str_add(out, ",a=%s", tw_act_get(s->act_quant)->name);
    if (s->act_group) tw_str_add(out, "g%d", s->act_group);
    /* Left out where it changes nothing, so that keys of caches stay as they were before it. */
    if (s->fpmath) tw_str_add(out, ",fpmath=%s", fpmaths[s->fpmath]);
}

void tw_problem_text(const tw_problem *p, tw_str *out) {
    if (p->M) tw_str_add(out, "M=%lld,", (long long)p->M);
    tw_str_add(out, "N=%lld,K=%lld,x=%s,", (long long)p->N, (long long)p->K, tw_dtype_name(p->x));
    tw_scheme_text(&p->scheme, out);
    tw_str_add(out, ",y=%s,bias=%s,act=%s", tw_dtype_name(p->y), tw_dtype_name(p->bias),
               tw_act_name(p->act));
}

/* ---- rules ---- */

static tw_status check_range(const char *name, int64_t value, int64_t least) {
    if (value >= least && value <= TW_MAX_DIM) return TW_OK;
    return tw_fail(TW_INVALID, "%s: %lld, must be from %lld to %d", name, (long long)value,
                   (long long)least, TW_MAX_DIM);
}

static tw_status check_plain(const tw_scheme *s) {
    if (!tw_dtype_is_real(s->weight))
        return tw_fail(TW_INVALID, "s: none, but w=%s has codes, which need a scale dtype",
                       tw_dtype_name(s->weight));
    if (s->zero_mode || s->group_n || s->group_k)
        return tw_fail(TW_INVALID, "w: %s, plain weights have no zeros and no groups",
                       tw_dtype_name(s->weight));
    if (s->act_quant || s->act_group)
        return tw_fail(TW_INVALID, "a: given, but w=%s is plain, and plain weights need a=none",
                       tw_dtype_name(s->weight));
    return TW_OK;
}

static tw_status check_act_quant(const tw_scheme *s) {
    const tw_act_row *row = tw_act_get(s->act_quant);
    if (!row) return tw_fail(TW_INVALID, "a: %d, is no activation quantization", (int)s->act_quant);
    if (!s->act_group) return TW_OK;
    TW_TRY(check_range("a", s->act_group, 1));
    if (!row->grouped)
        return tw_fail(TW_INVALID, "a: group %d, only i8 and e4m3 have one", s->act_group);
    /* Only sums of codes end where a scale of the weights does. */
    if (tw_act_rounds(s)) return TW_OK;
    if (!s->group_k)
        return tw_fail(TW_INVALID,
                       "a: group %d, must be a multiple of the weights' group, which is all of K",
                       s->act_group);
    if (s->act_group % s->group_k)
        return tw_fail(TW_INVALID, "a: group %d, must be a multiple of the weights' group %d",
                       s->act_group, s->group_k);
    return TW_OK;
}

static tw_status check_fpmath(const tw_scheme *s) {
    if ((size_t)s->fpmath >= TW_COUNT(fpmaths))
        return tw_fail(TW_INVALID, "fpmath: %d, expected %s", (int)s->fpmath,
                       fields[FIELD_fpmath].rule);
    return TW_OK;
}

tw_status tw_scheme_check(const tw_scheme *s) {
    TW_TRY(check_fpmath(s));
    if (!is_weight_dtype(s->weight))
        return tw_fail(TW_INVALID, "w: %s, expected %s", tw_dtype_name(s->weight),
                       fields[FIELD_w].rule);
    if (tw_scheme_plain(s)) return check_plain(s);
    if (tw_dtype_is_real(s->weight))
        return tw_fail(TW_INVALID, "s: %s, but w=%s is plain: it has no scales",
                       tw_dtype_name(s->scale), tw_dtype_name(s->weight));
    if (!is_scale_dtype(s->scale))
        return tw_fail(TW_INVALID, "s: %s, expected %s", tw_dtype_name(s->scale),
                       fields[FIELD_s].rule);
    if ((unsigned)s->zero_mode > TW_ZERO_VALUE)
        return tw_fail(TW_INVALID, "z: %d, is no zero mode", (int)s->zero_mode);
    if (s->zero_mode && s->weight == TW_LUT4)
        return tw_fail(TW_INVALID, "z: %s, w=lut4 has no zeros: its table says what codes are",
                       s->zero_mode == TW_ZERO_CODE ? "code" : "value");
    if (s->zero_mode == TW_ZERO_CODE && !tw_dtype_is_int(s->weight))
        return tw_fail(TW_INVALID, "z: code, needs integer weights, w is %s",
                       tw_dtype_name(s->weight));
    if (s->zero_mode == TW_ZERO_VALUE && s->scale == TW_E8M0)
        return tw_fail(TW_INVALID,
                       "z: value, zeros have the dtype of s, and e8m0 has neither 0 nor a sign");
    TW_TRY(check_range("g", s->group_n, 0));
    TW_TRY(check_range("g", s->group_k, 0));
    if (s->scale == TW_F16I8 && (!s->group_k || TW_FACTOR_K % s->group_k))
        return tw_fail(TW_INVALID, "s: f16i8 with group %d along K, must divide the %d of a factor",
                       s->group_k, TW_FACTOR_K);
    return check_act_quant(s);
}

static tw_status check_real(int f, tw_dtype dtype) {
    if (tw_dtype_is_real(dtype)) return TW_OK;
    return tw_fail(TW_INVALID, "%s: %s, expected %s", fields[f].name, tw_dtype_name(dtype),
                   fields[f].rule);
}

tw_status tw_problem_check(const tw_problem *p) {
    TW_TRY(check_range("M", p->M, 0));
    TW_TRY(check_range("N", p->N, 1));
    TW_TRY(check_range("K", p->K, 1));
    TW_TRY(check_real(FIELD_x, p->x));
    TW_TRY(check_real(FIELD_y, p->y));
    if (p->bias != TW_NONE && !tw_dtype_is_real(p->bias)) return check_real(FIELD_bias, p->bias);
    if ((size_t)p->act >= TW_COUNT(acts))
        return tw_fail(TW_INVALID, "act: %d, is no activation", (int)p->act);
    return tw_scheme_check(&p->scheme);
}

/* ---- sizes ---- */

int64_t tw_problem_weight_bytes(const tw_problem *p) {
    const tw_scheme *s = &p->scheme;
    int64_t bytes = p->N * (int64_t)tw_dtype_row_bytes(s->weight, p->K);
    if (tw_scheme_plain(s)) return bytes;
    bool factors = s->scale == TW_F16I8, values = s->zero_mode == TW_ZERO_VALUE;
    int64_t scale = factors ? 1 : tw_dtype_bits(s->scale) / 8;
    int64_t zero = values ? scale : tw_dtype_bits(tw_zero_dtype(s)) / 8;
    int64_t row = tw_groups(s, p->K) * (scale + zero);
    if (factors) row += tw_ceil_div(p->K, TW_FACTOR_K) * (values ? 4 : 2);
    return bytes + tw_scale_rows(s, p->N) * row;
}

tw_status tw_order_check(const int32_t *order, int64_t K, uint8_t *seen) {
    for (int64_t k = 0; k < K; k++) {
        int32_t at = order[k];
        if (at < 0 || at >= K)
            return tw_fail(TW_INVALID, "order[%lld]: %d, must be from 0 to %lld", (long long)k, at,
                           (long long)K - 1);
        if (seen[at])
            return tw_fail(TW_INVALID, "order[%lld]: %d, is there already", (long long)k, at);
        seen[at] = 1;
    }
    return TW_OK;
}

bool tw_scheme_products_round(const tw_scheme *s) {
    enum { F32_BITS = 24 };
    bool is_signed = tw_dtype_min(s->weight) < 0; /* -2^n has one bit, like 2^n */
    int code = tw_dtype_bits(s->weight) - is_signed;
    return tw_dtype_get(s->scale)->mantissa_bits + 1 + code > F32_BITS;
}

int tw_bucket_index(int64_t M) {
    int index = 0;
    while (index < TW_BUCKETS - 1 && tw_bucket_rows(index) < M) index++;
    return index;
}
