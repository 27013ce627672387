/* Configs of int_gemm: which are possible, the guess among them, and the model of their time. */
#include "src/core/act.h"
#include "src/core/dtype.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/int_gemm.h"

static void inner_loop(const tw_target *target, const tw_problem *problem, tw_inner_loop *loop) {
    const tw_scheme *s = &problem->scheme;
    tw_dot dot = tw_target_isa(target)->dot;
    bool words = tw_int_form_of(target, problem) == TW_INT_WORDS;
    int bits = tw_dtype_bits(s->weight);
    bool single = !(bits & (bits - 1));
    *loop = (tw_inner_loop){.x_loads = 1,
                            .step_k = 4,
                            .unpack = bits == 8 ? 0
                                      : single  ? 1.5
                                                : 4,
                            .latency = 5,
                            .temporaries = 2,
                            .fold = 2 + (s->zero_mode == TW_ZERO_CODE) +
                                    (s->zero_mode == TW_ZERO_VALUE) + (s->act_group != 0),
                            .fold_load = 3,
                            .fold_k = tw_min(tw_int_fold_k(problem), tw_group_k(s, problem->K))};
    if (dot == TW_DOT_GENERIC)
        loop->product = 20, loop->multiply = 8, loop->temporaries = 6;
    else if (words)
        loop->product = 4, loop->multiply = 2, loop->x_loads = 2, loop->unpack += 3,
        loop->temporaries = 5;
    else if (dot == TW_DOT_DPBUSD)
        loop->product = 1, loop->multiply = 1;
    else {
        double widen = 1.0 / tw_int_flush(target, problem, 4);
        loop->product = 2 + 2 * widen;
        loop->multiply = 1 + widen;
        loop->latency = 2;
        loop->temporaries = 3;
    }
    if (tw_int_shifts(target, problem)) loop->unpack += 1.5, loop->fold += 2;
    /* AMD's cores have two more units for what is no product; small groups need them for folds. */
    if (single && loop->fold_k >= 32 && dot == TW_DOT_DPBUSD && tw_target_is_amd(target))
        loop->unpack /= 3, loop->fold_load = 2;
    if (tw_int_word_limit(target, problem) || tw_int_scales_words(target, problem))
        loop->fold = 1, loop->fold_load = 2;
    else if (tw_int_late_factors(problem))
        loop->fold = s->zero_mode == TW_ZERO_VALUE ? 3.5 : 2, loop->fold_load = 2;
}

double tw_int_cost(const tw_target *target, const tw_problem *problem, const tw_config *config) {
    tw_inner_loop loop;
    inner_loop(target, problem, &loop);
    return tw_gemm_cost(target, problem, config, &loop);
}

_Static_assert(TW_AHEAD_BYTES == 32768 && TW_STRIP_BYTES == 40960 && TW_FRAME_BYTES == 75776 &&
                   TW_TILE_SPILLS == 4,
               "as the sentences below say");

/* Of a code in the strip. */
static int code_bytes(const tw_target *target, const tw_problem *problem) {
    return tw_int_form_of(target, problem) == TW_INT_WORDS ? 2 : 1;
}

/* As loads.c lays the strip out, or a little more. */
static int64_t strip_bytes(const tw_target *target, const tw_problem *problem,
                           const tw_panel *panel, const tw_config *c) {
    bool late = tw_int_late_factors(problem);
    bool zeros = panel->zero == TW_U8 || (panel->zero != TW_NONE && !late);
    int values = (panel->scale != TW_NONE) + zeros + tw_int_shifts(target, problem);
    int64_t codes = panel->unit_k * code_bytes(target, problem);
    return c->ahead / panel->unit_k * (codes + 4L * values) * c->micro_n;
}

/* That a task's totals have. */
static int64_t totals_bytes(const tw_target *target, const tw_problem *problem,
                            const tw_panel *panel, const tw_config *c) {
    return tw_gemm_totals_bytes(c, strip_bytes(target, problem, panel, c));
}

static const char *reject_ahead(const tw_target *target, const tw_problem *problem,
                                const tw_config *c) {
    tw_panel panel;
    tw_panel_init(problem, &panel);
    if (tw_dtype_bits(problem->scheme.weight) == 8 && code_bytes(target, problem) == 1)
        return "ahead unpacks codes, and those of 8 bits are not packed.";
    if (panel.unit_groups > 1) return "ahead needs groups along K that fill a chunk of panel64.";
    if (c->ahead < 0 || c->ahead % panel.unit_k)
        return "ahead must be a multiple of the group along K.";
    if (tw_int_late_factors(problem) && c->ahead % TW_FACTOR_K)
        return "ahead must be a multiple of the 256 columns of K that share factors.";
    if (c->ahead >= problem->K + panel.unit_k) return "ahead exceeds the columns of K there are.";
    if (c->streams) return "ahead unpacks one stream.";
    if (c->in_order) return "ahead reads codes before they are used: in_order is of those at hand.";
    if (c->block_m <= c->micro_m) return "ahead needs several tiles in block_m, which share it.";
    if ((int64_t)c->ahead * c->micro_n * code_bytes(target, problem) > TW_AHEAD_BYTES)
        return "ahead times micro_n codes must take at most 32768 bytes.";
    if (strip_bytes(target, problem, &panel, c) > TW_STRIP_BYTES)
        return "ahead's codes, scales and zeros must take at most 40960 bytes.";
    if (c->micro_m * c->micro_n > tw_target_isa(target)->vector_registers * tw_target_lanes(target))
        return "with ahead, the tile's accumulators must fit the registers.";
    if ((int64_t)c->block_m * c->micro_n * 4 > totals_bytes(target, problem, &panel, c))
        return "with ahead, block_m times micro_n totals, its codes, scales and zeros, and four "
               "tiles must take at most 75776 bytes.";
    return NULL;
}

static const char *reject_group_pairs(const tw_target *target, const tw_problem *problem,
                                      const tw_config *c) {
    if (c->group_pairs != 1) return "group_pairs must be 0 or 1.";
    if (!c->ahead) return "group_pairs is of codes that are unpacked ahead.";
    if (!tw_int_word_limit(target, problem))
        return "group_pairs is of sums of vpdpbusd that are words, scaled by codes (s=f16i8).";
    return NULL;
}

const char *tw_int_reject(const tw_target *target, const tw_problem *problem, const tw_config *c) {
    tw_config rest = *c;
    rest.bit_matrix = rest.ahead = rest.group_pairs = 0;
    const char *why = c->ahead ? reject_ahead(target, problem, c) : NULL;
    if (!why && c->group_pairs) why = reject_group_pairs(target, problem, c);
    if (why) return why;
    if (c->bit_matrix < 0 || c->bit_matrix > 1) return "bit_matrix must be 0 or 1.";
    if (c->bit_matrix && !tw_target_has(target, TW_EXTRA_GFNI))
        return "bit_matrix needs the target's GFNI.";
    if (c->bit_matrix && tw_dtype_bits(problem->scheme.weight) == 8)
        return "bit_matrix unpacks codes, and those of 8 bits are not packed.";
    return tw_gemm_reject(target, problem, &rest);
}

/* Codes of several planes take as many instructions to unpack as two products: once for all rows of
 * a task (a quarter more on a Xeon with VNNI, 1.4x with AVX2).  So do all codes where unpacking has
 * the products' ports, on Intel's cores, from four tiles on (u4: 5 to 20 %, with AVX2 10 to 18 %);
 * AMD's have others for it (i4 on Zen 5: 5 to 12 % slower), but for word pairs, whose scales take
 * as much again (u4 on Zen 3: 10 %).  Words of 8-bit codes take two on any core, which eight tiles
 * are worth (an eighth).  0: never. */
static int least_tiles(const tw_target *target, const tw_problem *problem) {
    int bits = tw_dtype_bits(problem->scheme.weight);
    bool planes = bits & (bits - 1);
    bool shares = tw_target_is_intel(target) || tw_int_scales_words(target, problem);
    bool words = tw_int_form_of(target, problem) == TW_INT_WORDS;
    if (words) return 8;
    return planes ? 1 : bits < 8 && shares ? 4 : 0;
}

/* Blocks of rows as large as there is place for their totals, and alike: each unpacks again.  Of
 * columns a panel, which shares nothing with the next, so that threads end together.  On AMD's
 * cores, that is, and where threads have several tasks each (i6: 2 % and 1 % on Zen 4, with AVX2 a
 * sixth); a Xeon by eight threads loses a twentieth. */
static void set_ahead_blocks(const tw_target *target, const tw_problem *problem,
                             const tw_panel *panel, tw_config *config) {
    int64_t most = totals_bytes(target, problem, panel, config) / (4L * config->micro_n);
    int64_t rows = tw_max(1, problem->M), block;
    most = most / config->micro_m * config->micro_m;
    if (most <= 0 || !tw_target_is_amd(target)) return;
    /* Rows are launched some at a time, which may be one block. */
    if (problem->N < (int64_t)4 * TW_PANEL_ROWS * target->threads) return;
    block = tw_ceil_div(rows, tw_ceil_div(rows, most));
    config->block_m = (int32_t)tw_round_up(block, config->micro_m);
    config->block_n = TW_PANEL_ROWS;
}

static bool guess_ahead(const tw_target *target, const tw_problem *problem, tw_config *config) {
    enum { COLUMNS = 256 };
    tw_panel panel;
    tw_inner_loop loop;
    int tiles = least_tiles(target, problem);
    if (!tiles) return false;
    tw_panel_init(problem, &panel);
    inner_loop(target, problem, &loop);
    /* What is unpacked is stored once and read by every tile.  Narrow tiles of few columns read x
     * again for each, from the L2 cache: two rows by four vectors are 3 to 12 % faster than four by
     * two (Zen 3), though both are as many loads; on AMD's cores so are three wide rows by four
     * over six by two (Zen 4: 1 to 7 %, of 16 rows a quarter). */
    bool narrow = tw_target_isa(target)->vector_bytes < 64;
    bool columns_are_dear = narrow || tw_target_is_amd(target);
    bool words = tw_int_form_of(target, problem) == TW_INT_WORDS;
    loop.unpack = words ? 1 : columns_are_dear ? 0.5 : 1.5;
    if (words) loop.temporaries = 3; /* loaded one by one */
    if (columns_are_dear) loop.fold_load = 1;
    tw_gemm_guess(target, problem, &loop, config);
    /* Few rows of wide tiles are done sooner where codes come in order (i6 on Zen 4: a seventh). */
    if (config->in_order && !narrow) return false;
    config->ahead = (int32_t)(COLUMNS / panel.unit_k * panel.unit_k);
    config->prefetch = 64;
    config->in_order = 0;
    set_ahead_blocks(target, problem, &panel, config);
    config->group_pairs =
        !narrow && tw_target_is_amd(target) && tw_int_word_limit(target, problem) > 0;
    return config->ahead && config->block_m >= tiles * config->micro_m &&
           !tw_int_reject(target, problem, config);
}

void tw_int_guess(const tw_target *target, const tw_problem *problem, tw_config *config) {
    tw_inner_loop loop;
    if (guess_ahead(target, problem, config)) return;
    inner_loop(target, problem, &loop);
    tw_gemm_guess(target, problem, &loop, config);
    /* One row is bound by memory, not by the units: then the shorter code, sooner compiled. */
    config->bit_matrix = config->micro_m == 1 && tw_dtype_bits(problem->scheme.weight) < 8 &&
                         tw_target_has(target, TW_EXTRA_GFNI);
}
