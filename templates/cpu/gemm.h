/* templates/cpu: what the matmul templates over panel64 share: the walk over a tile's K, the store
 * of a tile, activations, conversions.  A template supplies the inner step and the end of a group.
 *
 *   for n in [n0, n1) by micro_n (of the first stream's part; the others go along)
 *     for m in [m0, m1) by micro_m
 *       for each unit of the panel (a group of K), for each fold of the unit
 *         acc = init(); for each body of the fold: acc = steps(acc); total = fold(acc, total)
 *       store(total)
 *
 * Where several units have one scale of x, total is their sum at first.  With `ahead`, units go in
 * stretches outside the loop over m: each is unpacked once, and totals wait in slots from one
 * stretch to the next. */
#ifndef TW_TEMPLATES_CPU_GEMM_H
#define TW_TEMPLATES_CPU_GEMM_H

#include "templates/layouts/panel64.h"
#include "templates/template.h"

enum { TW_TILE = 64, TW_STREAMS = 4 }; /* vectors of totals, and streams, at most */
enum { TW_ACCUMULATORS = 2 * TW_TILE };
enum { TW_HELD = 24 }; /* vectors of codes, at most */
enum { TW_WORD_BIAS = 0x8000 };
/* Of the stack that tw_linear_forward promises, for a stretch of unpacked codes; for those and what
 * stands beside them; and for all that with the totals of a task's column of tiles and, so many
 * times a tile, sums and what does not fit the registers. */
enum { TW_AHEAD_BYTES = 32 << 10, TW_STRIP_BYTES = 40 << 10, TW_FRAME_BYTES = 74 << 10 };
enum { TW_TILE_SPILLS = 4 };
/* What that leaves for the totals. */
static inline int64_t tw_gemm_totals_bytes(const tw_config *c, int64_t strip_bytes) {
    return TW_FRAME_BYTES - strip_bytes - (int64_t)TW_TILE_SPILLS * c->micro_m * c->micro_n * 4;
}

typedef struct tw_gemm tw_gemm;

/* Lines of 64 bytes, of rows that lie alike in each stream. */
typedef struct tw_lines {
    tw_val at[TW_STREAMS];
    int64_t row_bytes, in_row, in_stream, count;
    int64_t next; /* the first that is not prefetched yet */
} tw_lines;

/* Accumulators and totals are indexed [row * nv + vector]; of accumulators there may be one row
 * more. */
typedef struct tw_gemm_ops {
    /* At the function's start, and end; may be NULL. */
    void (*begin)(tw_gemm *t);
    void (*end)(tw_gemm *t);
    /* Rows [m0, t->m1) of the columns at hand, in place of the walk; NULL: the walk.  It calls the
     * other hooks itself, init and fold with t->rows of its tile's rows. */
    void (*column)(tw_gemm *t, tw_val m0);
    /* First values of the accumulators of one group (fold); t->x and t->bodies are the fold's. */
    void (*init)(tw_gemm *t, tw_val *acc);
    /* Adds the products of K columns [k0, k1) of the body at t->codes, t->x: static bounds within
     * it. */
    void (*steps)(tw_gemm *t, tw_val *acc, int64_t k0, int64_t k1);
    /* Unpacked codes of vector v, four consecutive k from k of the body a lane; NULL: never
     * unpacked ahead. */
    tw_val (*unpack)(tw_gemm *t, int v, int64_t k);
    /* Ahead: before a unit is unpacked, and what to do with four codes, whose place in the strip is
     * `at`.  NULL: nothing; to store them. */
    void (*begin_unpacking)(tw_gemm *t);
    void (*stash)(tw_gemm *t, int v, tw_val four, tw_val at);
    /* In place of unpack and stash: the body at hand to its place in the strip.  NULL: those. */
    void (*unpack_body)(tw_gemm *t, tw_val strip);
    /* With strip sums: sum with those codes added to it.  Else NULL. */
    tw_val (*add_codes)(tw_gemm *t, tw_val sum, tw_val codes);
    /* Scales the accumulators into the totals. */
    void (*fold)(tw_gemm *t, const tw_val *acc, tw_val *total);
    /* With group pairs, between their units: the first's accumulators become what the second's
     * begin at; of totals, too, where the first is scaled by itself. */
    void (*turn)(tw_gemm *t, tw_val *acc, tw_val *total);
    /* Where several units have one scale of x: before them; may be NULL. */
    void (*begin_run)(tw_gemm *t);
    /* There: scales what they sum up to, and adds it to the totals.  NULL: never. */
    void (*scale_sums)(tw_gemm *t, const tw_val *sum, tw_val *total);
    /* What is left to do to one row of totals before bias and activation; may be NULL. */
    void (*finish)(tw_gemm *t, tw_val row, tw_val *total);
} tw_gemm_ops;

struct tw_gemm {
    tw_ir *g;
    const tw_problem *problem;
    const tw_config *config;
    const tw_gemm_ops *ops;
    tw_panel panel;
    tw_geometry geometry;
    int lanes, rows; /* f32 lanes of a vector; micro_m */
    int acc_rows; /* of accumulators: rows, and one for sums of codes that are not in the strip */
    int streams;  /* panels side by side */
    int nv;       /* vectors in a row of the tile: those of the first stream, the next.. */
    int carried;  /* totals that loops carry in registers: all of them or none */
    bool holds;   /* a dword of codes stays in a register from its first step to its last */
    int held; /* vectors of a body's codes that are loaded before its first step; 0: as needed */
    int64_t x_bytes;        /* of packed x per k */
    int64_t body_k, fold_k; /* K per loop body; most K between two folds, a multiple of body_k */
    /* arguments */
    tw_val args, w, xq, xmeta, y, bias, y_stride;
    tw_val m1;
    tw_val tile; /* stack slots of the totals, [rows][nv] vectors; none where one row
                    has them in registers to the end */
    /* Units that have one scale of x, which `fold` leaves out: its totals are sums of so many, in
     * registers or in slots of their own.  0: fold does all. */
    int64_t scaled_units;
    tw_val sums;
    /* Those units are a run, whose factors scale_sums applies: until then scales are codes. */
    bool late_factors;
    tw_val run;   /* the run at hand, of the first stream */
    tw_val pairs; /* its zeros ready to use, [unit / 2][nv] vectors; none: in the panel */
    /* And groups' sums of products nearly always are words (i16), which `fold` multiplies by the
     * codes of their scales in one instruction: sums are i32, as bits of the f32 they are held as.
     * Or, word pairs, sums of pairs of products always are, which `steps` multiplies: `fold` adds.
     */
    bool word_sums, word_pairs;
    /* Of two units word sums become the words of a dword, the first's the high one, and are scaled
     * at once: sums begin TW_WORD_BIAS higher, so that no low one borrows from the other. */
    bool group_pairs;
    /* Unpacking ahead: units of a stretch, 0 without; stack slots of their codes, [k / strip_k][nv]
     * vectors a unit, and behind them its scales, zeros and sums of codes; those of the unit at
     * hand. */
    int64_t ahead_units;
    int64_t strip_bytes; /* where they are not those units' */
    int strip_k;         /* consecutive k in a lane of it: four codes, or fewer that are wider */
    bool strip_bare;     /* nothing is behind the codes */
    tw_val strip, unit_strip;
    bool unpacking;    /* into the strip: else values come from there */
    bool strip_sums;   /* sums of codes are among them, instead of an accumulator row's */
    bool strip_scaled; /* what is there are codes times the codes of their scales */
    /* where the walk is */
    tw_val m, n;   /* the tile's first row and column */
    tw_val unit;   /* of the panel, where there are several */
    tw_val column; /* within its panel */
    /* From the first stream to each: columns of y, bytes of w. */
    tw_val apart_n[TW_STREAMS], apart_w[TW_STREAMS];
    tw_val panel_w, tile_x, tile_meta; /* pointers: panel, first row of packed x, its meta row */
    tw_val header[TW_STREAMS];         /* scales of the group at hand, of each stream */
    tw_val factors[TW_STREAMS];        /* of the run at hand, where the panel has them */
    tw_val pair;                       /* with group pairs: the first unit of that at hand */
    int sub_group;                     /* which group of its unit that is */
    tw_val meta;                 /* byte offset of the fold's entry in the arrays of a meta row */
    tw_val codes[TW_STREAMS], x; /* pointers of the body at hand */
    tw_lines ahead_lines;        /* of its codes, to prefetch behind; none where nothing is */
    tw_val bodies;               /* of the fold at hand */
    /* Of each plane and vector the dword that was loaded last, by its offset in the body. */
    struct {
        int64_t offset; /* -1: none yet */
        tw_val value;
    } loaded[TW_PANEL_PLANES][TW_TILE];
    tw_val body[TW_HELD]; /* what is held, [row][nv] */
};

/* Of vector v of a row: its stream; and its bytes from the stream's first column, for elements of
 * `size` bytes. */
static inline int tw_gemm_stream(const tw_gemm *t, int v) { return v / (t->nv / t->streams); }
static inline int64_t tw_gemm_vector_at(const tw_gemm *t, int v, int64_t size) {
    return (int64_t)(v % (t->nv / t->streams)) * t->lanes * size;
}

/* Fills everything that does not depend on emitted values; body_want is rounded to what the layout
 * allows.  sums: there is a row of accumulators for sums of codes, or the strip has them. */
void tw_gemm_init(tw_gemm *t, tw_ir *g, const tw_problem *problem, const tw_config *config,
                  const tw_gemm_ops *ops, int64_t body_want, int64_t fold_k, bool sums);
/* Number of folds along K: entries of the per-fold arrays in a meta row. */
int64_t tw_gemm_folds(const tw_panel *panel, int64_t fold_k);
/* Emits tw_matmul. */
void tw_gemm_emit(tw_gemm *t);

/* loads.c.  Scales and zeros of vector v of the group at hand, as f32. */
tw_val tw_gemm_scale(tw_gemm *t, int v);
/* With strip sums, of its codes. */
tw_val tw_gemm_code_sum(tw_gemm *t, int v);
/* With word sums, codes of the scales: in the low half of each lane, 0 in the high one; with word
 * pairs in both; with group pairs that of the first unit in the high one, of the second in the low
 * one. */
tw_val tw_gemm_scale_words(tw_gemm *t, int v);
/* Where there is one group along K: its scales, anywhere in the tile. */
tw_val tw_gemm_only_scale(tw_gemm *t, int v);
tw_val tw_gemm_value_zero(tw_gemm *t, int v);
/* Of the run at hand, the factor of vector v's scales (base 0) or zeros (TW_PANEL_FACTORS), as f32;
 * and codes of its zeros, of unit u in the low half of each lane and of u + 1 in the high one. */
tw_val tw_gemm_factor(tw_gemm *t, int v, int64_t base);
tw_val tw_gemm_zero_pairs(tw_gemm *t, int v, int64_t u);
int64_t tw_gemm_pair_at(const tw_gemm *t, int v, int64_t u); /* in t->pairs */
/* u8 zeros in i32 lanes. */
tw_val tw_gemm_code_zero(tw_gemm *t, int v);
/* Address of vector v of a row of weights, of `bytes` bytes: offset within the body. */
tw_val tw_gemm_codes_at(tw_gemm *t, int v, int64_t bytes, int64_t offset);
/* The same; and what comes next of the body's lines is prefetched. */
tw_val tw_gemm_codes_ahead(tw_gemm *t, int v, int64_t bytes, int64_t offset);
/* Loads it, prefetching ahead. */
tw_val tw_gemm_load_codes(tw_gemm *t, int v, tw_ty ty, int64_t offset);
/* The dwords that hold the codes of 4 consecutive k from k, relative to the body, in a plane:
 * loaded again for each of their steps where registers are short. */
tw_val tw_gemm_dwords(tw_gemm *t, int v, int plane, int64_t k);

/* What `unpack` gave for the body at hand. */
tw_val tw_gemm_unpacked(tw_gemm *t, int v, int64_t k);

/* For the walk.  A place in the first stream's weights, and the same in the others; the tile's
 * first column in a row of the panel with `size` bytes a column. */
void tw_gemm_in_streams(tw_gemm *t, tw_val first, tw_val *each);
tw_val tw_gemm_at_column(tw_gemm *t, tw_val row, int64_t size);
/* Within a unit of the strip: vector v of the codes of column k; from one unit to the next. */
int64_t tw_gemm_strip_at(const tw_gemm *t, int v, int64_t k);
int64_t tw_gemm_strip_stride(const tw_gemm *t);
/* Scales and zeros of the group at hand, and sums of its codes, into its unit of the strip. */
void tw_gemm_fill_strip(tw_gemm *t, tw_val strip, const tw_val *sums);
/* For a column of its own.  Of unit i: its codes, from its place in the panel; its place in the
 * strip, counted from the stretch's first; the first of its entries in a meta row; its run. */
tw_val tw_gemm_unit_codes(tw_gemm *t, tw_val unit);
tw_val tw_gemm_strip_unit(tw_gemm *t, tw_val i);
tw_val tw_gemm_unit_meta(tw_gemm *t, tw_val i);
void tw_gemm_enter_run(tw_gemm *t, tw_val i);
/* Row m is the tile's first. */
void tw_gemm_enter_tile(tw_gemm *t, tw_val m);
/* Units [first, end) into the strip; bodies [first, end) of the one that begins at `codes`, to
 * where its strip would begin, and with strip sums those of its codes added to sums. */
void tw_gemm_unpack_units(tw_gemm *t, tw_val first, tw_val end);
void tw_gemm_unpack_bodies(tw_gemm *t, tw_val codes, tw_val strip, tw_val first, tw_val end,
                           tw_val *sums);
/* A tile's worth of vectors in memory, [rows][nv]. */
void tw_gemm_load_slots(tw_gemm *t, tw_val slots, tw_val *out);
void tw_gemm_store_slots(tw_gemm *t, tw_val slots, const tw_val *values);
/* Called before a unit's scales and zeros are read, the factors of a run with its first unit, and
 * the codes of the body at hand; they do nothing where codes come from the strip.
 *
 * With `prefetch`, what lies its distance behind is prefetched, of a body one line for each that is
 * loaded.  All in the order of addresses: a processor reads ahead by itself what it sees in order,
 * and loses its way where two planes and the scales are prefetched as they are used (one row of i6
 * with AVX2, from memory: 1.6x on Zen 3).  Intel's cores would have them apart, not all at once
 * (planes: 5 to 12 %).
 *
 * With `in_order`, all is read in that order, too: scales are touched before the codes, codes of
 * several planes are loaded before the first step, or touched where registers are too few (one row
 * from memory on Zen 4: i6 2.3x by one thread and 1.5x by two, u5 2.5x and 1.7x; a Xeon does not
 * care, and pays for the touches).  It goes with `prefetch`, past which LLVM moves no load. */
void tw_gemm_begin_header(tw_gemm *t, tw_val unit);
void tw_gemm_begin_factors(tw_gemm *t, tw_val inside);
void tw_gemm_begin_body(tw_gemm *t);
void tw_gemm_end_body(tw_gemm *t);

/* store.c: totals through finish, bias, activation into y: of a tile of one row, or of the tile's
 * stack slots, row by row in a loop, so that the code is as long for twelve rows as for one. */
void tw_gemm_store_row(tw_gemm *t, tw_val *total);
void tw_gemm_store_tile(tw_gemm *t);
/* act.c */
tw_val tw_emit_act(tw_ir *g, tw_act act, tw_val v);

#endif
