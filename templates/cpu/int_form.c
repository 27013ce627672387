/* What follows from a problem alone: the form of packed x and its meta rows, how long sums are
 * exact, which factors come late. */
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "templates/cpu/int_gemm.h"

/* What the sum of such a run may be in units of its factor, where value zeros cancel: 2^3 over what
 * f32 holds exactly, which codes of five bits reach. */
enum { LATE_SUM = 1 << 27 };

int32_t tw_int_constant_zero(const tw_problem *problem) {
    return -tw_dtype_min(problem->scheme.weight);
}

tw_int_form tw_int_form_of(const tw_target *target, const tw_problem *problem) {
    /* 2 * 255 * 127 saturates vpmaddubsw's i16; 2 * 127 * 128 does not. */
    bool saturates =
        tw_target_isa(target)->dot == TW_DOT_MADDUBS && tw_dtype_bits(problem->scheme.weight) == 8;
    return saturates ? TW_INT_WORDS : TW_INT_BYTES;
}

bool tw_int_shifts(const tw_target *target, const tw_problem *problem) {
    return problem->scheme.act_quant == TW_ACTQ_I8Z &&
           tw_int_form_of(target, problem) == TW_INT_BYTES;
}

int tw_int_largest_x(const tw_problem *problem) {
    tw_act_quant quant = problem->scheme.act_quant;
    return quant == TW_ACTQ_I8Z ? 255 : quant == TW_ACTQ_I8_FULL ? 128 : 127;
}

/* Largest magnitude of a stored weight's value, code zeros included. */
static int64_t largest_weight(const tw_scheme *s) {
    int64_t least = tw_dtype_min(s->weight), most = tw_dtype_max(s->weight);
    if (s->zero_mode == TW_ZERO_CODE) least -= 255;
    return tw_max(-least, most);
}

int64_t tw_int_fold_k(const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    int64_t product = largest_weight(s) * tw_int_largest_x(problem);
    int64_t limit = s->zero_mode == TW_ZERO_VALUE ? 1 << 24 : INT32_MAX, fold_k = 256;
    while (2 * fold_k * product <= limit) fold_k *= 2;
    return fold_k;
}

bool tw_int_late_factors(const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    tw_panel p;
    tw_panel_init(problem, &p);
    int64_t largest_x = tw_int_largest_x(problem);
    bool runs = tw_panel_has_factors(&p) && p.unit_groups == 1 && p.run_units > 1 &&
                p.run_units <= TW_INT_LATE_UNITS && p.units % p.run_units == 0;
    /* Scale codes times sums add up in f32, and value zeros cancel against all of it at the end:
     * wider codes would lose too much. */
    bool narrow = s->zero_mode != TW_ZERO_VALUE ||
                  TW_FACTOR_K * largest_weight(s) * largest_x * 128 <= LATE_SUM;
    /* A group's sum of x fits i16, so that two are multiplied at once. */
    return runs && narrow && s->act_group &&
           tw_act_group(s, problem->K) == p.run_units * p.unit_k &&
           p.unit_k <= tw_int_fold_k(problem) && p.unit_k * largest_x <= 32767;
}

/* Of a group whose mean magnitude reaches this, half of the largest: what normally distributed x
 * does in one group of ten thousand or fewer. */
enum { WIDE_MEAN = 60 };

int64_t tw_int_word_limit(const tw_target *target, const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    if (tw_target_isa(target)->dot != TW_DOT_DPBUSD || !tw_int_late_factors(problem) ||
        s->zero_mode == TW_ZERO_CODE)
        return 0;
    int64_t limit = 32767 / largest_weight(s);
    return limit >= (int64_t)WIDE_MEAN * s->group_k ? limit : 0;
}

bool tw_int_may_be_wide(const tw_target *target, const tw_problem *problem) {
    int64_t limit = tw_int_word_limit(target, problem), group = problem->scheme.group_k;
    return limit && group * tw_int_largest_x(problem) > limit;
}

void tw_int_meta_init(const tw_problem *problem, tw_int_meta *out) {
    const tw_scheme *s = &problem->scheme;
    tw_panel panel;
    tw_panel_init(problem, &panel);
    *out = (tw_int_meta){tw_gemm_folds(&panel, tw_int_fold_k(problem)), -1, -1, -1, -1, -1, 16};
    int64_t array = out->entries * 4;
    bool constant = tw_int_constant_zero(problem) != 0;
    if (s->zero_mode == TW_ZERO_CODE || (constant && s->zero_mode == TW_ZERO_NONE))
        out->sum = out->stride, out->stride += array;
    if (constant && s->zero_mode == TW_ZERO_VALUE) out->fixed = out->stride, out->stride += array;
    if (s->act_group) out->scale = out->stride, out->stride += array;
    if (s->zero_mode == TW_ZERO_VALUE && tw_int_late_factors(problem))
        out->half = out->stride, out->stride += array / 2;
    else if (s->zero_mode == TW_ZERO_VALUE)
        out->total = out->stride, out->stride += array;
    out->stride = tw_round_up(out->stride, 64);
}

int64_t tw_int_xq_stride(const tw_problem *problem) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* An odd number of cache lines: rows a power of two apart would share a set of the L1 cache.
     * The stride is that of the wider form for every target, so that it depends on the problem
     * alone. */
    int64_t lines = tw_ceil_div(panel.padded_k * 2, 64);
    return (lines | 1) * 64;
}
