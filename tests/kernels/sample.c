/* Drawing problems for pairs of values that have not met yet. */
#include "tests/kernels/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/core/dtype.h"
#include "templates/cpu/int_gemm.h"
#include "tests/core/random.h"

static const tw_dtype weights[] = {TW_U1,   TW_U2,  TW_U3,   TW_U4,   TW_U5,   TW_U6,   TW_U7,
                                   TW_U8,   TW_I1,  TW_I2,   TW_I3,   TW_I4,   TW_I5,   TW_I6,
                                   TW_I7,   TW_I8,  TW_E4M3, TW_E5M2, TW_E3M2, TW_E2M3, TW_E2M1,
                                   TW_LUT4, TW_F32, TW_F16,  TW_BF16};
/* group_n, group_k as in tw_scheme */
static const int32_t groups[][2] = {{1, 16}, {1, 32}, {1, 64}, {1, 128}, {1, 256}, {1, 0},
                                    {0, 0},  {8, 32}, {0, 64}, {1, 8},   {1, 2}};
static const tw_zero_mode zeros[] = {TW_ZERO_NONE, TW_ZERO_CODE, TW_ZERO_VALUE};
/* Activation group: 0 per token, else so many weight groups, and at least 32 of K. */
static const struct {
    tw_act_quant quant;
    int32_t groups;
} act_quants[] = {{TW_ACTQ_NONE, 0}, {TW_ACTQ_I8, 0},  {TW_ACTQ_I8, 1},
                  {TW_ACTQ_I8, 2},   {TW_ACTQ_I8Z, 0}, {TW_ACTQ_I8_FULL, 0}};
static const tw_dtype scales[] = {TW_F32, TW_F16, TW_BF16, TW_E8M0, TW_E4M3, TW_F16I8};
static const tw_dtype reals[] = {TW_F32, TW_F16, TW_BF16};
static const tw_dtype biases[] = {TW_NONE, TW_F32, TW_F16, TW_BF16};
static const tw_act acts[] = {TW_ACT_NONE, TW_ACT_RELU, TW_ACT_GELU, TW_ACT_GELU_TANH, TW_ACT_SILU};
/* N, K: one, tails on either side of vectors, panels, groups and folds, and a K of many folds. */
static const int64_t shapes[][2] = {{1, 1},    {1, 64},    {64, 1},    {7, 31},    {8, 32},
                                    {63, 33},  {64, 64},   {65, 96},   {100, 100}, {130, 130},
                                    {31, 256}, {64, 257},  {200, 300}, {33, 520},  {5, 777},
                                    {3, 2100}, {128, 512}, {257, 40},  {1024, 33}};
/* Rows that the config is chosen for; 0: any config of the space; STREAMS: any with streams, where
 * the registers of the target allow one, of so many panels that they divide them; AHEAD: any that
 * unpacks ahead, one to three groups (with late factors: runs) in a stretch, where there are codes
 * to unpack; IN_ORDER: any that reads in order, where the template can. */
enum { IN_ORDER = -3, AHEAD = -2, STREAMS = -1, STREAMS_N = 256 };
static const int64_t config_rows[] = {1, 4, 64, 0, STREAMS, AHEAD, IN_ORDER};

static const int values[SAMPLE_FIELDS] = {
    [FIELD_WEIGHT] = TW_COUNT(weights), [FIELD_GROUP] = TW_COUNT(groups),
    [FIELD_ZERO] = TW_COUNT(zeros),     [FIELD_ACT_QUANT] = TW_COUNT(act_quants),
    [FIELD_SCALE] = TW_COUNT(scales),   [FIELD_X] = TW_COUNT(reals),
    [FIELD_Y] = TW_COUNT(reals),        [FIELD_BIAS] = TW_COUNT(biases),
    [FIELD_ACT] = TW_COUNT(acts),       [FIELD_SHAPE] = TW_COUNT(shapes),
    [FIELD_FPMATH] = TW_FPMATHS,        [FIELD_CONFIG] = TW_COUNT(config_rows)};

static int value_count(const samples *s, int field) {
    return field == FIELD_TARGET ? s->targets : values[field];
}

bool sample_problem(const sample *s, tw_problem *out) {
    const uint8_t *at = s->at;
    tw_problem p = {.N = shapes[at[FIELD_SHAPE]][0],
                    .K = shapes[at[FIELD_SHAPE]][1],
                    .x = reals[at[FIELD_X]],
                    .y = reals[at[FIELD_Y]],
                    .bias = biases[at[FIELD_BIAS]],
                    .act = acts[at[FIELD_ACT]]};
    if (config_rows[at[FIELD_CONFIG]] == STREAMS) p.N = tw_round_up(p.N, STREAMS_N);
    p.scheme.weight = weights[at[FIELD_WEIGHT]];
    p.scheme.fpmath = (tw_fpmath)at[FIELD_FPMATH];
    if (!tw_dtype_is_real(p.scheme.weight)) {
        const int32_t *group = groups[at[FIELD_GROUP]];
        p.scheme.group_n = group[0];
        p.scheme.group_k = group[1];
        p.scheme.zero_mode = zeros[at[FIELD_ZERO]];
        p.scheme.scale = scales[at[FIELD_SCALE]];
        p.scheme.act_quant = act_quants[at[FIELD_ACT_QUANT]].quant;
        int32_t wide = act_quants[at[FIELD_ACT_QUANT]].groups;
        if (wide && !group[1]) return false;
        /* Other codes are multiplied as floats. */
        if (!tw_dtype_is_int(p.scheme.weight) && p.scheme.act_quant) return false;
        /* Integer products take four columns of K at once. */
        if (p.scheme.act_quant && group[1] && group[1] < 4) return false;
        if (wide)
            p.scheme.act_group =
                (int32_t)tw_round_up((int64_t)wide * tw_max(group[1], 32), group[1]);
        /* As K-quants have it: factors come late where K is whole. */
        if (wide && p.scheme.scale == TW_F16I8 && TW_FACTOR_K % group[1] == 0)
            p.scheme.act_group = TW_FACTOR_K;
    } else if (at[FIELD_GROUP] || at[FIELD_ZERO] || at[FIELD_SCALE] || at[FIELD_ACT_QUANT]) {
        return false;
    }
    *out = p;
    return tw_problem_check(&p) == TW_OK;
}

/* ---- configs ---- */

static void draw_config(const tw_template *tmpl, uint64_t *state, tw_config *out) {
    *out = (tw_config){0};
    for (int i = 0; i < tmpl->axes; i++) {
        const tw_axis *axis = &tmpl->space[i];
        *tw_config_field(out, axis->tunable) = axis->values[random_int(state, 0, axis->count - 1)];
    }
}

static bool has_axis(const tw_template *tmpl, int tunable) {
    bool found = false;
    for (int i = 0; i < tmpl->axes; i++) found |= tmpl->space[i].tunable == tunable;
    return found;
}

static void set_ahead(const tw_template *tmpl, const tw_problem *problem, uint64_t *state,
                      tw_config *out) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    out->streams = 0;
    int64_t step = tw_int_late_factors(problem) ? TW_FACTOR_K : panel.unit_k;
    if (tmpl->fpmath == TW_FPMATH_BF16 && panel.units > 1) step = tw_round_up(step, 32);
    if (tmpl->fpmath == TW_FPMATH_BF16 && panel.units == 1) step = 32;
    out->ahead = (int32_t)(step * random_int(state, 1, 3));
}

bool sample_config(const sample *s, const tw_template *tmpl, const tw_target *target,
                   const tw_problem *problem, uint64_t seed, tw_config *out) {
    tw_problem p = *problem;
    p.M = config_rows[s->at[FIELD_CONFIG]];
    bool streams = p.M == STREAMS, ahead = p.M == AHEAD, in_order = p.M == IN_ORDER;
    if (p.M > 0) {
        tmpl->guess(target, &p, out);
        return !tmpl->reject(target, &p, out);
    }
    /* Large tiles take long to compile: one in eight. */
    p.M = in_order ? 8 : 256;
    int64_t least = (int64_t)tmpl->space[0].values[0] * tmpl->space[1].values[0];
    int64_t most = seed % 8 && least <= 12L * tw_target_lanes(target) ? 12 : 64;
    streams = streams && has_axis(tmpl, TW_TUNABLE_streams) &&
              tw_target_isa(target)->vector_registers == 32;
    in_order =
        in_order && has_axis(tmpl, TW_TUNABLE_in_order) && !tw_scheme_plain(&problem->scheme);
    if (in_order) most = 64;
    for (int tries = 0; tries < 20000; tries++) {
        draw_config(tmpl, &seed, out);
        out->in_order = in_order;
        if (in_order) out->streams = out->ahead = 0, out->micro_n = TW_PANEL_ROWS;
        if (!ahead || !tw_int_word_limit(target, problem)) out->group_pairs = 0;
        /* The axis has none for small K. */
        if (ahead ? tries < 2000 : tries >= 10000 && !streams && !in_order)
            set_ahead(tmpl, &p, &seed, out);
        if (streams && !out->streams) continue;
        if ((int64_t)out->micro_m * out->micro_n > most * tw_target_lanes(target)) continue;
        if (!tmpl->reject(target, &p, out)) return true;
    }
    return false;
}

/* ---- choosing ---- */

/* Pairs that the sample would add. */
static int new_pairs(const samples *s, const sample *c) {
    int count = 0;
    for (int f = 0; f < SAMPLE_FIELDS; f++)
        for (int g = f + 1; g < SAMPLE_FIELDS; g++) count += !s->covered[f][g][c->at[f]][c->at[g]];
    return count;
}

static void add(samples *s, const sample *c) {
    /* Capacity doubles at each power of two. */
    if (!(s->count & (s->count - 1))) {
        size_t capacity = s->count ? 2 * (size_t)s->count : 1;
        sample *larger = realloc(s->list, capacity * sizeof *s->list);
        if (!larger) exit(2);
        s->list = larger;
    }
    s->list[s->count++] = *c;
    for (int f = 0; f < SAMPLE_FIELDS; f++)
        for (int g = f + 1; g < SAMPLE_FIELDS; g++) s->covered[f][g][c->at[f]][c->at[g]] = true;
}

static bool is_plain(int weight) { return tw_dtype_is_real(weights[weight]); }

/* Fills the fields that are open (255).  Plain weights leave four of them no choice. */
static void draw(const samples *s, sample *c, uint64_t *state) {
    static const sample_field of_codes[] = {FIELD_GROUP, FIELD_ZERO, FIELD_SCALE, FIELD_ACT_QUANT};
    for (int f = 0; f < SAMPLE_FIELDS; f++) {
        if (c->at[f] == 255) c->at[f] = (uint8_t)random_int(state, 0, value_count(s, f) - 1);
        for (size_t i = 0; f == FIELD_WEIGHT && is_plain(c->at[f]) && i < TW_COUNT(of_codes); i++)
            if (c->at[of_codes[i]] == 255) c->at[of_codes[i]] = 0;
    }
}

/* Draws the fields that `fixed` leaves open, several times, and adds the draw with most new
 * pairs; with none possible nothing. */
static void add_best(samples *s, const sample *fixed, int draws, uint64_t *state) {
    sample best = {0};
    int most = -1;
    for (int i = 0; i < draws; i++) {
        sample c = *fixed;
        tw_problem p;
        draw(s, &c, state);
        if (!sample_problem(&c, &p)) continue;
        int count = new_pairs(s, &c);
        if (count > most) {
            most = count;
            best = c;
        }
    }
    if (most >= 0) add(s, &best);
}

static sample open_sample(int weight) {
    sample c;
    memset(c.at, 255, sizeof c.at);
    c.at[FIELD_WEIGHT] = (uint8_t)weight;
    return c;
}

static void add_pairs(samples *s, uint64_t *state) {
    for (int w = 0; w < values[FIELD_WEIGHT]; w++)
        for (int g = 0; g < (is_plain(w) ? 1 : values[FIELD_GROUP]); g++)
            for (int quantized = 0; quantized < (is_plain(w) ? 1 : 2); quantized++) {
                sample c = open_sample(w);
                c.at[FIELD_GROUP] = (uint8_t)g;
                c.at[FIELD_ACT_QUANT] = 0;
                if (quantized) /* the first of them goes with every granularity */
                    c.at[FIELD_ACT_QUANT] =
                        (uint8_t)(groups[g][1] ? 1 + (w + g) % 4 : 1 + w % 2 * 3);
                add_best(s, &c, 24, state);
            }
    /* Pairs that are left, one by one. */
    for (int f = 0; f < SAMPLE_FIELDS; f++)
        for (int g = f + 1; g < SAMPLE_FIELDS; g++)
            for (int i = 0; i < value_count(s, f); i++)
                for (int j = 0; j < value_count(s, g); j++) {
                    if (s->covered[f][g][i][j]) continue;
                    sample c;
                    memset(c.at, 255, sizeof c.at);
                    c.at[f] = (uint8_t)i;
                    c.at[g] = (uint8_t)j;
                    add_best(s, &c, 200, state);
                }
}

static void add_product(samples *s, uint64_t *state) {
    for (int w = 0; w < values[FIELD_WEIGHT]; w++) {
        int many = is_plain(w) ? 1 : SAMPLE_VALUES;
        for (int g = 0; g < tw_min(many, values[FIELD_GROUP]); g++)
            for (int z = 0; z < tw_min(many, values[FIELD_ZERO]); z++)
                for (int a = 0; a < tw_min(many, values[FIELD_ACT_QUANT]); a++)
                    for (int target = 0; target < s->targets; target++) {
                        sample c = open_sample(w);
                        c.at[FIELD_GROUP] = (uint8_t)g;
                        c.at[FIELD_ZERO] = (uint8_t)z;
                        c.at[FIELD_ACT_QUANT] = (uint8_t)a;
                        c.at[FIELD_TARGET] = (uint8_t)target;
                        add_best(s, &c, 8, state);
                    }
    }
}

void samples_init(samples *s, int targets, bool all) {
    uint64_t state = 20;
    memset(s, 0, sizeof *s);
    s->targets = targets;
    if (all) add_product(s, &state);
    add_pairs(s, &state);
}

void samples_top_up(samples *s, int least, sample_taken *taken, const void *arg) {
    enum { MOST_DRAWS = 40000 };
    uint64_t state = 21;
    int count = 0;
    for (int i = 0; i < s->count; i++) count += taken(&s->list[i], arg);
    for (int i = 0; i < MOST_DRAWS && count < least; i++) {
        sample c;
        tw_problem p;
        memset(c.at, 255, sizeof c.at);
        draw(s, &c, &state);
        if (!sample_problem(&c, &p) || !taken(&c, arg)) continue;
        add(s, &c);
        count++;
    }
}

void samples_free(samples *s) {
    free(s->list);
    s->list = NULL;
}

/* Whether any problem has both values: some fields exclude each other by their rules. */
static bool possible(const samples *s, int f, int i, int g, int j) {
    uint64_t state = 1;
    for (int tries = 0; tries < 200; tries++) {
        sample c;
        tw_problem p;
        memset(c.at, 255, sizeof c.at);
        c.at[f] = (uint8_t)i;
        c.at[g] = (uint8_t)j;
        draw(s, &c, &state);
        if (sample_problem(&c, &p)) return true;
    }
    return false;
}

int samples_missing(const samples *s) {
    int missing = 0;
    for (int f = 0; f < SAMPLE_FIELDS; f++)
        for (int g = f + 1; g < SAMPLE_FIELDS; g++)
            for (int i = 0; i < value_count(s, f); i++)
                for (int j = 0; j < value_count(s, g); j++)
                    missing += !s->covered[f][g][i][j] && possible(s, f, i, g, j);
    return missing;
}
