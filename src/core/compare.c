/* See compare.h for the rule and where it comes from. */
#include "src/core/compare.h"

#include <math.h>

#include "src/base/status.h"
#include "src/core/act.h"
#include "src/core/dtype.h"

static const double UNIT = 0x1p-24; /* rounding error of f32, relative */
enum { FEW_COLUMNS = 64 };
/* What kernels' gelus are off by below -5, where they are 1e-6 and less (templates/cpu/act.c). */
static const double GELU_BELOW = 0x1p-35;

static bool is_gelu(tw_act act) { return act == TW_ACT_GELU || act == TW_ACT_GELU_TANH; }

/* Codes of x against codes of weights, in integers. */
static bool multiplies_codes(const tw_problem *p) {
    const tw_scheme *s = &p->scheme;
    return s->act_quant && s->fpmath == TW_FPMATH_STRICT && !tw_act_rounds(s);
}

/* Whether value zeros cancel against sums of codes; else they are part of the weights. */
static bool zeros_cancel(const tw_problem *p) {
    return p->scheme.zero_mode == TW_ZERO_VALUE && multiplies_codes(p);
}

/* f32 roundings of one element outside the chain of additions. */
static int64_t roundings(const tw_problem *p) {
    /* silu goes through an exponential: about 16 operations, none on more than its value.  A gelu's
     * lower tail is a power of two, down to 2^-22, from where on GELU_BELOW counts; four roundings
     * of the exponent count 22 ln 2 times each. */
    int64_t act = p->act == TW_ACT_NONE || p->act == TW_ACT_RELU ? 0 : is_gelu(p->act) ? 64 : 16;
    int64_t scales = !tw_scheme_plain(&p->scheme) + multiplies_codes(p);
    return act + scales + (p->bias != TW_NONE) + 1; /* the product's own */
}

/* 2^e, the first power of two that the dtype cannot hold: what overflows counts as this. */
static double overflow_limit(tw_dtype dtype) { return dtype == TW_F16 ? 0x1p16 : 0x1p128; }

/* Half a unit in the last place of a narrow dtype at v; f32's own rounding is part of R. */
static double half_unit(tw_dtype dtype, double v) {
    if (dtype == TW_F32) return 0;
    int exponent, least = dtype == TW_F16 ? -13 : -125; /* frexp's, of the least normal number */
    frexp(v, &exponent);
    if (v == 0 || exponent < least) exponent = least;
    return ldexp(0.5, exponent - 1 - tw_dtype_get(dtype)->mantissa_bits);
}

typedef struct element {
    double got, expected, residual;
    double least, most; /* e^2 of compare.h: of many columns, of few */
} element;

static element element_at(const tw_problem *p, int64_t r, double expected, double magnitude,
                          const void *y_row, int64_t j) {
    double limit = overflow_limit(p->y);
    element e = {(double)tw_float_get(y_row, p->y, j), expected, 0, 0, 0};
    double got = fmax(-limit, fmin(limit, e.got)), want = fmax(-limit, fmin(limit, expected));
    /* An overflow rounds like the largest numbers do. */
    double at = fmin(fmax(fabs(got), fabs(want)), limit * (1 - 0x1p-12));
    double slack = half_unit(p->y, at) + (double)r * 0x1p-150;
    if (is_gelu(p->act)) slack += GELU_BELOW;
    e.residual = fmax(0, fabs(got - want) - slack);
    e.most = fmax(want * want, magnitude * magnitude);
    e.least = fmax(want * want, magnitude * magnitude / (double)p->K);
    if (isnan(e.got) || isnan(expected)) e.residual = NAN;
    return e;
}

/* The largest residual that the element may have. */
static double element_limit(const tw_problem *p, int64_t r, const element *e, double magnitude) {
    if (!zeros_cancel(p)) return UNIT * sqrt((double)r * 37 * e->most);
    double sums = UNIT * sqrt((double)r * 37 * e->least);
    return fmax(sums, UNIT * (4 * magnitude + (double)roundings(p) * fabs(e->expected)));
}

tw_status tw_compare_row(const tw_problem *p, int64_t chain, const double *expected,
                         const double *magnitude, const void *y_row, int64_t n, double *nmse) {
    int64_t r = chain + roundings(p), worst = -1;
    double errors = 0, energy = 0, worst_excess = 1, largest = -1;
    int64_t at_largest = 0;
    for (int64_t j = 0; j < n; j++) {
        element e = element_at(p, r, expected[j], magnitude[j], y_row, j);
        double limit = element_limit(p, r, &e, magnitude[j]);
        /* NaN fails this comparison, and 0 within 0 passes. */
        if (!(e.residual <= limit)) {
            double excess = isnan(e.residual) ? INFINITY : e.residual / limit;
            if (excess >= worst_excess) {
                worst = j;
                worst_excess = excess;
            }
        }
        errors += e.residual * e.residual;
        energy += n < FEW_COLUMNS ? e.most : e.least;
        if (e.residual > largest) {
            largest = e.residual;
            at_largest = j;
        }
    }
    double ratio = errors == 0 ? 0 : errors / energy;
    if (nmse) *nmse = isnan(ratio) ? INFINITY : ratio;
    double bound = UNIT * UNIT * (double)r * (1 + 36 / (double)n);
    bool row_wrong = p->scheme.zero_mode != TW_ZERO_VALUE && !(ratio <= bound);
    if (worst < 0 && !row_wrong) return TW_OK;
    int64_t column = worst >= 0 ? worst : at_largest;
    return tw_fail(TW_VERIFY,
                   "column %lld: got %.9g, expected %.9g; nmse of the row %.3g, at most %.3g",
                   (long long)column, (double)tw_float_get(y_row, p->y, column), expected[column],
                   ratio, bound);
}
