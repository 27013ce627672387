/* What follows from a problem alone: the form of packed x and its meta rows, how long sums are
 * exact, which factors come late. */
#include <assert.h>

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
    /* 2 * 255 * 127 saturates vpmaddubsw's i16; 2 * 127 * 128 does not.  (Magnitudes of i8 by x of
     * vpsignb fit, but are 5 % slower than words on Zen 3, and 3 % faster where unpacked ahead.) */
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
                p.run_units <= TW_INT_LATE_UNITS && problem->K % (p.run_units * p.unit_k) == 0;
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

/* Steps of four columns of K whose products, of pairs of columns, an i16 holds. */
static int64_t word_steps(const tw_problem *problem) {
    return 32767 / (2 * largest_weight(&problem->scheme) * tw_int_largest_x(problem));
}

bool tw_int_scales_words(const tw_target *target, const tw_problem *problem) {
    const tw_scheme *s = &problem->scheme;
    if (tw_target_isa(target)->dot != TW_DOT_MADDUBS || tw_int_shifts(target, problem) ||
        tw_int_form_of(target, problem) != TW_INT_BYTES || !tw_int_late_factors(problem) ||
        s->zero_mode == TW_ZERO_CODE)
        return false;
    /* Sums begin at what the constant zero adds to them, and only those of the whole group are sure
     * to be words then. */
    int64_t steps = word_steps(problem), whole = tw_group_k(s, problem->K) / 4;
    return steps &&
           (!tw_int_constant_zero(problem) || (whole <= steps && 4 * whole <= TW_PANEL_QUANTUM));
}

int tw_int_flush(const tw_target *target, const tw_problem *problem, int micro_m) {
    if (tw_int_scales_words(target, problem))
        return (int)tw_min(word_steps(problem),
                           tw_min(problem->scheme.group_k, TW_PANEL_QUANTUM) / 4);
    int largest = (1 << tw_dtype_bits(problem->scheme.weight)) - 1;
    int most = tw_min(tw_int_largest_x(problem), TW_INT_SHIFT); /* as it lies there */
    return (int)tw_min(micro_m <= 2 ? 4 : 8, 32767 / (2 * most * largest));
}

void tw_int_meta_init(const tw_problem *problem, tw_int_weights weights, tw_int_meta *out) {
    const tw_scheme *s = &problem->scheme;
    tw_panel panel;
    tw_panel_init(problem, &panel);
    *out = (tw_int_meta){.weights = weights,
                         .entries = tw_gemm_folds(&panel, tw_int_fold_k(problem)),
                         .sum = -1,
                         .fixed = -1,
                         .scale = -1,
                         .total = -1,
                         .half = -1,
                         .stride = 16};
    int64_t array = out->entries * 4;
    bool constant = weights == TW_INT_CODES && tw_int_constant_zero(problem) != 0;
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

void tw_int_geometry_of(const tw_problem *problem, tw_int_weights weights, tw_geometry *out) {
    tw_int_meta meta;
    tw_int_meta_init(problem, weights, &meta);
    *out = (tw_geometry){tw_int_xq_stride(problem), meta.stride};
}

int64_t tw_int_chain(const tw_problem *problem) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    /* What scale_sums adds to a run's sum, where it has factors to apply. */
    int late = tw_int_late_factors(problem) ? 4 : 0;
    return tw_gemm_folds(&panel, tw_int_fold_k(problem)) + 4 + late;
}

/* Units under one scale of x, where that are several and a power of two. */
static int64_t scaled_units(const tw_gemm *t) {
    int64_t group = tw_act_group(&t->problem->scheme, t->problem->K),
            units = group / t->panel.unit_k;
    bool shared =
        t->problem->scheme.act_group && t->panel.units > 1 && group % t->panel.unit_k == 0;
    return shared && units > 1 && !(units & (units - 1)) ? units : 0;
}

void tw_int_gemm_init(tw_int_gemm *self, tw_ir *g, const tw_problem *problem,
                      const tw_config *config, const tw_gemm_ops *ops, int64_t body_want,
                      tw_int_weights weights) {
    tw_gemm *t = &self->t;
    const tw_scheme *s = &problem->scheme;
    self->dot = tw_target_isa(g->target)->dot;
    self->form = tw_int_form_of(g->target, problem);
    self->shifts = tw_int_shifts(g->target, problem);
    tw_int_meta_init(problem, weights, &self->meta);
    tw_gemm_init(t, g, problem, config, ops, body_want, tw_int_fold_k(problem), self->shifts);
    tw_int_geometry_of(problem, weights, &t->geometry);
    t->scaled_units = scaled_units(t);
    t->late_factors = tw_int_late_factors(problem);
    assert(!t->late_factors || t->scaled_units == t->panel.run_units);
    t->word_pairs = tw_int_scales_words(g->target, problem);
    t->word_sums = t->word_pairs || tw_int_word_limit(g->target, problem) > 0;
    t->group_pairs = config->group_pairs;
    t->x_bytes = self->form == TW_INT_WORDS ? 2 : 1;
    t->strip_k = self->form == TW_INT_WORDS ? 2 : 4;
    self->scales_last = self->meta.entries == 1 && !s->act_group && s->zero_mode != TW_ZERO_VALUE;
    int64_t run = tw_min(t->panel.group_k, t->fold_k);
    int64_t largest_code = (1 << tw_dtype_bits(s->weight)) - 1;
    self->words_hold_sums = run * tw_int_largest_x(problem) <= 32767;
    self->byte_sums = (int)(255 / largest_code);
    self->words_hold_codes = run * largest_code <= 32767;
}
