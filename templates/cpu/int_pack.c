/* tw_pack_x of int_gemm: one row of x at a time becomes codes, scales and sums.
 * Activation quantization is src/core/reference.h's tw_quantize_token, operation for operation. */
#include <assert.h>
#include <stddef.h>

#include "src/core/dtype.h"
#include "src/core/kernel_args.h"
#include "templates/cpu/convert.h"
#include "templates/cpu/int_gemm.h"

typedef struct pack {
    tw_ir *g;
    const tw_problem *problem;
    bool asymmetric, full; /* a=i8z, a=i8full */
    bool shifts;           /* asymmetric, and codes lie there less TW_INT_SHIFT */
    bool word_pairs;       /* int_gemm.h's tw_int_scales_words */
    int32_t bias;          /* of what sums begin at */
    bool sums_last;        /* of groups: when the row's codes are stored, by dot products */
    tw_panel panel;
    tw_int_form form;
    tw_int_meta meta;
    int lanes;           /* of a vector: no wider than a group */
    int64_t size;        /* bytes of one x */
    tw_val x, xq, xmeta; /* the row */
    tw_val scratch;      /* a vector on the stack, for the last elements */
} pack;

/* Elements [k, k + count) of the row; lanes past count are zero, and memory past K is not touched.
 */
static tw_val load_x(pack *s, tw_val k, int count) {
    tw_ir *g = s->g;
    tw_val at = tw_offset(g, s->x, tw_mul(g, k, tw_k64(g, s->size)));
    if (count == s->lanes) return tw_load_f32(g, s->problem->x, at, s->lanes, (int)s->size);
    tw_store(g, tw_const_f32(g, s->lanes, 0), s->scratch, s->lanes * 4);
    for (int i = 0; i < count; i++) {
        /* One-lane vectors: conversions without scalar forms. */
        tw_val one = tw_load_f32(g, s->problem->x, tw_at(g, at, i * s->size), 1, (int)s->size);
        tw_store(g, one, tw_at(g, s->scratch, i * 4L), 4);
    }
    return tw_load(g, tw_f32(s->lanes), s->scratch, s->lanes * 4);
}

/* Runs body over the vectors of [from, from + length): a loop over whole ones, where more than two
 * are, the rest by themselves.  carried values go through body. */
typedef void vector_body(pack *s, void *arg, tw_val k, int count, tw_val *carried);
static void for_vectors(pack *s, tw_val from, int64_t length, tw_val *carried, int count,
                        vector_body *body, void *arg) {
    tw_ir *g = s->g;
    int64_t looped = length >= 3L * s->lanes ? length / s->lanes * s->lanes : 0;
    if (looped) {
        tw_loop loop;
        tw_loop_begin_nonempty(g, &loop, from, tw_add(g, from, tw_k64(g, looped)), s->lanes,
                               carried, count);
        for (int i = 0; i < count; i++) carried[i] = loop.carried[i];
        body(s, arg, loop.i, s->lanes, carried);
        tw_loop_end(g, &loop, carried);
        for (int i = 0; i < count; i++) carried[i] = loop.carried[i];
    }
    for (int64_t k = looped; k < length; k += s->lanes)
        body(s, arg, tw_add(g, from, tw_k64(g, k)), (int)tw_min(length - k, s->lanes), carried);
}

/* ---- scale of one activation group ---- */

typedef struct act_scale {
    tw_val scale;   /* in few lanes; not finite: NaN; too small to have an inverse: 0 */
    tw_val inverse; /* in the vector's lanes; 0 where the scale is NaN or 0 */
    tw_val zero;    /* i8z: the zero point, in the vector's i32 lanes */
} act_scale;

/* Of x, which the first of two walks reads from wherever it was written. */
enum { PREFETCH_BYTES = 2048 };

/* Largest |x| as bits: integers order like magnitudes, and infinity and NaN come out above all. */
static void amax_body(pack *s, void *arg, tw_val k, int count, tw_val *carried) {
    (void)arg;
    tw_val x = tw_offset(s->g, s->x, tw_mul(s->g, k, tw_k64(s->g, s->size)));
    tw_prefetch(s->g, tw_at(s->g, x, PREFETCH_BYTES));
    tw_val bits = tw_bitcast(s->g, load_x(s, k, count), tw_i32(s->lanes));
    tw_val magnitude = tw_and(s->g, bits, tw_const_int(s->g, bits.ty, 0x7fffffff));
    carried[0] = tw_binary(s->g, TW_IR_SMAX, carried[0], magnitude);
}

/* As amax_body, and smallest and largest x beside it. */
static void range_body(pack *s, void *arg, tw_val k, int count, tw_val *carried) {
    tw_val x = load_x(s, k, count);
    amax_body(s, arg, k, count, carried);
    carried[1] = tw_binary(s->g, TW_IR_FMIN, carried[1], x);
    carried[2] = tw_binary(s->g, TW_IR_FMAX, carried[2], x);
}

/* 1.5 * 2^23 as bits: adding it to an f32 below 2^22 rounds that half to even and leaves the
 * integer in the low bits. */
enum { MAGIC = 0x4b400000 };

static tw_val round_to_bits(tw_ir *g, tw_val v) {
    tw_val magic = tw_const_f32(g, v.ty.lanes, 12582912.0f);
    return tw_bitcast(g, tw_fadd(g, v, magic), tw_i32(v.ty.lanes));
}

static tw_val round_to_int(tw_ir *g, tw_val v) {
    tw_val bits = round_to_bits(g, v);
    return tw_sub(g, bits, tw_const_int(g, bits.ty, MAGIC));
}

/* min(max(v, lo), hi); NaN becomes lo. */
static tw_val clamp_f32(tw_ir *g, tw_val v, float lo, float hi) {
    v = tw_binary(g, TW_IR_FMAX, v, tw_const_f32(g, v.ty.lanes, lo));
    return tw_binary(g, TW_IR_FMIN, v, tw_const_f32(g, v.ty.lanes, hi));
}

/* What torchao rounds to the dtype of x, where that is bf16. */
static tw_val rounded(pack *s, tw_val v) {
    return s->problem->x == TW_BF16 ? tw_round_to_bf16(s->g, v) : v;
}

static act_scale emit_scale(pack *s, tw_val from, int64_t length) {
    tw_ir *g = s->g;
    bool asymmetric = s->asymmetric;
    tw_val none = tw_const_f32(g, s->lanes, 0);
    tw_val carried[] = {tw_const_int(g, tw_i32(s->lanes), 0), none, none};
    for_vectors(s, from, length, carried, asymmetric ? 3 : 1, asymmetric ? range_body : amax_body,
                NULL);
    /* Divisions and choices in the few lanes that a reduction leaves. */
    tw_val amax = tw_reduce(g, TW_IR_SMAX, carried[0]);
    int lanes = amax.ty.lanes;
    tw_val zero = tw_const_f32(g, lanes, 0), one = tw_const_f32(g, lanes, 1);
    tw_val low = zero, range = tw_bitcast(g, amax, tw_f32(lanes));
    if (asymmetric) {
        low = tw_reduce(g, TW_IR_FMIN, carried[1]);
        range = rounded(s, tw_fsub(g, tw_reduce(g, TW_IR_FMAX, carried[2]), low));
    }
    float codes = asymmetric ? 255.0f : s->full ? 127.5f : 127.0f;
    tw_val scale = tw_binary(g, TW_IR_FDIV, range, tw_const_f32(g, lanes, codes));
    if (asymmetric || s->full) scale = rounded(s, scale);
    tw_val infinite = tw_bitcast(g, tw_const_int(g, amax.ty, 0x7f800000), tw_f32(lanes));
    tw_val nan = tw_bitcast(g, tw_const_int(g, amax.ty, 0x7fc00000), tw_f32(lanes));
    tw_val finite = tw_compare(g, TW_IR_SLT, amax, tw_const_int(g, amax.ty, 0x7f800000));
    if (asymmetric) finite = tw_and(g, finite, tw_compare(g, TW_IR_OLT, scale, infinite));
    tw_val inverse = tw_binary(g, TW_IR_FDIV, one, scale);
    if (asymmetric) inverse = rounded(s, inverse);
    tw_val usable = tw_compare(g, TW_IR_OLT, inverse, infinite);
    inverse = tw_select(g, tw_and(g, finite, usable), inverse, zero);
    act_scale result = {.scale = tw_select(g, finite, tw_select(g, usable, scale, zero), nan),
                        .inverse = tw_splat(g, tw_extract(g, inverse, 0), s->lanes)};
    if (asymmetric) {
        /* NaN where there is no scale: 0. */
        tw_val point = rounded(s, tw_binary(g, TW_IR_FDIV, tw_fsub(g, zero, low), scale));
        point = round_to_int(g, clamp_f32(g, point, 0.0f, 255.0f));
        point = tw_select(g, usable, point, tw_const_int(g, point.ty, 0));
        result.zero = tw_splat(g, tw_extract(g, point, 0), s->lanes);
    }
    return result;
}

/* ---- codes of one fold ---- */

static void store_codes(pack *s, tw_val codes, tw_val k) {
    tw_ir *g = s->g;
    if (s->form == TW_INT_BYTES) {
        tw_store(g, tw_cast(g, TW_IR_TRUNC, codes, tw_i8(s->lanes)), tw_offset(g, s->xq, k), 1);
        return;
    }
    /* Per four k: even ones, then odd ones, as the masked bytes of a dword of codes come out. */
    int order[64];
    for (int i = 0; i < s->lanes; i++) order[i] = i / 4 * 4 + (i % 4 % 2) * 2 + i % 4 / 2;
    tw_val words = tw_cast(g, TW_IR_TRUNC, codes, tw_i16(s->lanes));
    words = tw_shuffle(g, words, words, order, s->lanes);
    tw_store(g, words, tw_offset(g, s->xq, tw_mul(g, k, tw_k64(g, 2))), 2);
}

/* Codes with their zero point. */
static tw_val asymmetric_codes(pack *s, const act_scale *a, tw_val scaled) {
    tw_ir *g = s->g;
    /* Rounded before the zero is added; clamped as a code, whatever an x that is not finite gives.
     * Lanes past the row hold x = 0, whose code is the zero point: nothing. */
    tw_val offset = tw_sub(g, a->zero, tw_const_int(g, a->zero.ty, MAGIC));
    tw_val code = tw_add(g, round_to_bits(g, scaled), offset);
    code = tw_binary(g, TW_IR_SMAX, code, tw_const_int(g, code.ty, 0));
    return tw_binary(g, TW_IR_SMIN, code, tw_const_int(g, code.ty, 255));
}

/* Adds codes to the sum in carried[0]: symmetric ones with MAGIC in every lane, whose low half is
 * zero, so that only sums have to be rid of it. */
static void codes_body(pack *s, void *arg, tw_val k, int count, tw_val *carried) {
    tw_ir *g = s->g;
    const act_scale *a = arg;
    tw_val scaled = tw_fmul(g, load_x(s, k, count), a->inverse);
    /* i8 is within +-127 by itself: 1/s is off by less than 2^-21 where it is finite; i8full has
     * one bound to keep.  Where x is not finite, codes are anything, and the scale is NaN. */
    tw_val codes =
        s->asymmetric ? asymmetric_codes(s, a, rounded(s, scaled)) : round_to_bits(g, scaled);
    if (s->full) codes = tw_binary(g, TW_IR_SMIN, codes, tw_const_int(g, codes.ty, MAGIC + 127));
    tw_val stored = codes;
    if (s->shifts) stored = tw_sub(g, codes, tw_const_int(g, codes.ty, TW_INT_SHIFT));
    if (s->asymmetric) codes = tw_sub(g, codes, a->zero);
    if (!s->sums_last) carried[0] = tw_add(g, carried[0], codes);
    store_codes(s, s->shifts ? stored : codes, k);
}

static void store_meta(pack *s, tw_val vector, int64_t array, tw_val entry) {
    tw_ir *g = s->g;
    if (array < 0) return;
    tw_val at = tw_offset(g, tw_at(g, s->xmeta, array), tw_mul(g, entry, tw_k64(g, 4)));
    tw_store(g, tw_extract(g, vector, 0), at, 4);
}

static int64_t group_entries(const pack *s) {
    return tw_ceil_div(s->panel.group_k, tw_int_fold_k(s->problem));
}

/* Emits for [from, from + length) in parts of `each`, of `entries` entries in a meta row. */
typedef void part_body(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry);
static void for_parts(pack *s, tw_val from, int64_t length, int64_t each, int64_t entries,
                      tw_val entry, part_body *body, const void *arg) {
    tw_ir *g = s->g;
    int64_t whole = length / each;
    if (whole == 1) {
        body(s, arg, from, each, entry);
    } else if (whole) {
        tw_loop loop;
        tw_val carried[] = {entry};
        tw_loop_begin_nonempty(g, &loop, from, tw_add(g, from, tw_k64(g, whole * each)), each,
                               carried, 1);
        body(s, arg, loop.i, each, loop.carried[0]);
        carried[0] = tw_add(g, loop.carried[0], tw_k64(g, entries));
        tw_loop_end(g, &loop, carried);
    }
    if (length % each)
        body(s, arg, tw_add(g, from, tw_k64(g, whole * each)), length % each,
             tw_add(g, entry, tw_k64(g, whole * entries)));
}

static bool has_sums(const pack *s) {
    const tw_int_meta *m = &s->meta;
    return m->sum >= 0 || m->fixed >= 0 || m->total >= 0 || m->half >= 0;
}

/* Of `count` entries from `entry`, their sums of codes in the first lanes. */
static void store_sums(pack *s, tw_val sums, int count, tw_val entry) {
    tw_ir *g = s->g;
    int first[64];
    for (int i = 0; i < count; i++) first[i] = i;
    sums = tw_shuffle(g, sums, sums, first, count);
    tw_val at = tw_offset(g, s->xmeta, tw_mul(g, entry, tw_k64(g, 4)));
    int64_t start = tw_int_starts(&s->meta);
    bool code = s->problem->scheme.zero_mode == TW_ZERO_CODE;
    int32_t factor = code ? -1 : -tw_int_constant_zero(s->problem);
    if (start >= 0 && !s->word_pairs) {
        tw_val starts = tw_mul(g, sums, tw_const_int(g, sums.ty, factor));
        if (s->bias) starts = tw_add(g, starts, tw_const_int(g, sums.ty, s->bias));
        tw_store(g, starts, tw_at(g, at, start), 4);
    }
    if (s->meta.half >= 0) {
        tw_val half =
            tw_offset(g, tw_at(g, s->xmeta, s->meta.half), tw_mul(g, entry, tw_k64(g, 2)));
        tw_store(g, tw_cast(g, TW_IR_TRUNC, sums, tw_i16(count)), half, 2);
    }
    if (s->meta.total >= 0)
        tw_store(g, tw_cast(g, TW_IR_SITOFP, sums, tw_f32(count)), tw_at(g, at, s->meta.total), 4);
}

/* Of a group's sums by column modulo the lanes, what word pairs begin at: the sums of columns 0 and
 * 1 of each four, and of 2 and 3, times the constant zero. */
static void store_word_start(pack *s, tw_val sums, tw_val entry) {
    tw_ir *g = s->g;
    int64_t start = tw_int_starts(&s->meta), first[64];
    if (start < 0) return;
    for (int i = 0; i < s->lanes; i++) first[i] = i % 4 < 2 ? -1 : 0;
    tw_val low = tw_reduce(g, TW_IR_ADD, tw_and(g, sums, tw_const_lanes(g, sums.ty, first)));
    tw_val high = tw_sub(g, tw_reduce(g, TW_IR_ADD, sums), low);
    tw_val factor = tw_const_int(g, low.ty, -tw_int_constant_zero(s->problem));
    low = tw_and(g, tw_mul(g, low, factor), tw_const_int(g, low.ty, 0xffff));
    store_meta(s, tw_or(g, low, tw_shl(g, tw_mul(g, high, factor), 16)), start, entry);
}

static void emit_fold(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry) {
    tw_ir *g = s->g;
    const act_scale *a = arg;
    /* The sums start without what MAGIC adds to them, modulo 2^32. */
    int64_t vectors = tw_ceil_div(length, s->lanes);
    int64_t surplus = s->asymmetric ? 0 : vectors * MAGIC;
    tw_val sum = tw_const_int(g, tw_i32(s->lanes), (int32_t)(uint32_t)-surplus);
    for_vectors(s, from, length, &sum, 1, codes_body, (void *)a);
    store_meta(s, a->scale, s->meta.scale, entry);
    if (has_sums(s)) store_sums(s, tw_reduce(g, TW_IR_ADD, sum), 1, entry);
    if (s->word_pairs) store_word_start(s, sum, entry);
}

/* One weight group: its folds. */
static void emit_group(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry) {
    int64_t fold_k = tw_min(tw_int_fold_k(s->problem), s->panel.group_k);
    for_parts(s, from, length, fold_k, 1, entry, emit_fold, arg);
}

/* Every lane of a group of `lanes` of them gets all of its sum. */
static tw_val sum_groups(pack *s, tw_val sum, int64_t lanes) {
    for (int apart = 1; apart < lanes; apart *= 2) {
        int other[64];
        for (int i = 0; i < sum.ty.lanes; i++) other[i] = i ^ apart;
        sum = tw_add(s->g, sum, tw_shuffle(s->g, sum, sum, other, sum.ty.lanes));
    }
    return sum;
}

/* Of the row, whose codes are stored, the sums of its groups, several of which a vector holds. */
static void emit_sums(pack *s) {
    tw_ir *g = s->g;
    int lanes = tw_target_lanes(g->target), group = (int)s->panel.group_k / 4, firsts[64];
    tw_ty dwords = tw_i32(lanes);
    tw_val none = tw_const_int(g, dwords, 0), ones = tw_const_int(g, dwords, 0x01010101);
    for (int i = 0; i < lanes / group; i++) firsts[i] = i * group;
    tw_val shift = none; /* of a whole group */
    if (s->shifts) {
        shift = tw_broadcast(g, dwords, tw_at(g, s->xmeta, TW_INT_SHIFT_AT));
        shift = tw_mul(g, shift, tw_const_int(g, dwords, s->panel.group_k));
    }
    tw_loop loop;
    tw_val end = tw_k64(g, s->problem->K), entry = tw_k64(g, 0);
    tw_loop_begin_nonempty(g, &loop, tw_k64(g, 0), end, 4L * lanes, &entry, 1);
    tw_val codes = tw_load(g, dwords, tw_offset(g, s->xq, loop.i), 1);
    tw_val sums = sum_groups(s, tw_int_dpbusd(g, none, ones, codes), group);
    if (s->shifts) sums = tw_add(g, sums, shift);
    sums = tw_shuffle(g, sums, sums, firsts, lanes / group);
    store_sums(s, sums, lanes / group, loop.carried[0]);
    entry = tw_add(g, loop.carried[0], tw_k64(g, lanes / group));
    tw_loop_end(g, &loop, &entry);
}

/* Of one activation group, whose codes are stored: a bit for each weight group in which magnitudes
 * sum up to more than the products' words allow. */
static void emit_wide(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry) {
    (void)arg;
    tw_ir *g = s->g;
    int lanes = tw_target_lanes(g->target);
    tw_ty bytes = tw_i8(4 * lanes), dwords = tw_i32(lanes);
    tw_val none = tw_const_int(g, dwords, 0), ones = tw_const_int(g, dwords, 0x01010101);
    tw_val limit = tw_const_int(g, dwords, tw_int_word_limit(g->target, s->problem));
    tw_val mask = none;
    int64_t vector = 4L * lanes, group = s->panel.group_k, span = tw_max(group, vector);
    assert(length % span == 0);
    for (int64_t k = 0; k < length; k += span) {
        tw_val sum = none;
        for (int64_t at = k; at < k + span; at += vector) {
            tw_val codes = tw_load(g, bytes, tw_at(g, tw_offset(g, s->xq, from), at), 1);
            tw_val negated = tw_sub(g, tw_const_int(g, bytes, 0), codes);
            tw_val magnitude = tw_bitcast(g, tw_binary(g, TW_IR_SMAX, codes, negated), dwords);
            sum = tw_int_dpbusd(g, sum, magnitude, ones);
        }
        sum = sum_groups(s, sum, tw_min(group, vector) / 4);
        int64_t bits[64];
        for (int i = 0; i < lanes; i++) bits[i] = INT64_C(1) << (k + 4L * i) / group;
        tw_val wide = tw_compare(g, TW_IR_SGT, sum, limit);
        mask = tw_or(g, mask, tw_select(g, wide, tw_const_lanes(g, dwords, bits), none));
    }
    store_meta(s, tw_reduce(g, TW_IR_OR, mask), s->meta.scale + TW_INT_WIDE_AT, entry);
}

static void emit_scale_entry(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry) {
    (void)from, (void)length;
    store_meta(s, ((const act_scale *)arg)->scale, s->meta.scale, entry);
}

/* One activation group: its scale, then the weight groups in it. */
static void emit_act_group(pack *s, const void *arg, tw_val from, int64_t length, tw_val entry) {
    (void)arg;
    act_scale a = emit_scale(s, from, length);
    if (!s->problem->scheme.act_group) tw_store(s->g, tw_extract(s->g, a.scale, 0), s->xmeta, 4);
    if (s->shifts) {
        tw_val shift = tw_sub(s->g, tw_const_int(s->g, a.zero.ty, TW_INT_SHIFT), a.zero);
        tw_store(s->g, tw_extract(s->g, shift, 0), tw_at(s->g, s->xmeta, TW_INT_SHIFT_AT), 4);
    }
    if (s->sums_last) {
        for_vectors(s, from, length, NULL, 0, codes_body, &a);
        /* Late factors: of a run the first. */
        int64_t each = tw_int_late_factors(s->problem) ? length : s->panel.group_k;
        if (s->meta.scale >= 0) for_parts(s, from, length, each, 1, entry, emit_scale_entry, &a);
    } else {
        for_parts(s, from, length, s->panel.group_k, group_entries(s), entry, emit_group, &a);
    }
}

/* Zeros after the last vector, as far as the matmul's bodies read. */
static void emit_padding(pack *s) {
    tw_ir *g = s->g;
    int64_t unit = s->form == TW_INT_WORDS ? 2 : 1,
            from = tw_round_up(s->problem->K, s->lanes) * unit;
    for (int64_t end = s->panel.padded_k * unit; from < end; from += 4)
        tw_store(g, tw_const_int(g, tw_i32(0), 0), tw_at(g, s->xq, from), 4);
    /* Groups that exist only because their chunk does. */
    const int64_t arrays[] = {s->meta.sum, s->meta.fixed, s->meta.scale, s->meta.total};
    int64_t first = s->panel.unit_groups > 1 ? s->panel.groups : s->meta.entries;
    for (int64_t entry = first; entry < s->meta.entries; entry++)
        for (size_t i = 0; i < TW_COUNT(arrays); i++)
            store_meta(s, tw_const_int(g, tw_i32(1), 0), arrays[i], tw_k64(g, entry));
}

static void emit_row(pack *s) {
    const tw_problem *p = s->problem;
    int64_t act_group = tw_act_group(&p->scheme, p->K);
    int64_t entries = act_group / s->panel.group_k * group_entries(s);
    tw_val zero = tw_k64(s->g, 0);
    for_parts(s, zero, p->K, act_group, entries, zero, emit_act_group, NULL);
    /* Codes are read again when they have left the store buffer. */
    if (s->sums_last) emit_sums(s);
    bool words = s->meta.weights == TW_INT_CODES; /* in which sums of products are kept */
    if (words && tw_int_may_be_wide(s->g->target, p))
        for_parts(s, zero, p->K, act_group, entries, zero, emit_wide, NULL);
    emit_padding(s);
}

/* Where a dot product sums bytes: whole vectors of several whole groups. */
static bool sums_last(const pack *s) {
    const tw_target *target = s->g->target;
    int64_t vector = 4L * tw_target_lanes(target), group = s->panel.group_k;
    bool bytes = s->form == TW_INT_BYTES && tw_target_isa(target)->dot == TW_DOT_DPBUSD;
    return bytes && has_sums(s) && s->problem->K % vector == 0 && group >= 4 && group <= vector &&
           vector % group == 0 && !(group & (group - 1));
}

void tw_int_emit_pack(tw_ir *g, const tw_problem *problem, tw_int_weights weights, int32_t bias) {
    pack s = {.g = g, .problem = problem, .bias = bias, .form = tw_int_form_of(g->target, problem)};
    tw_panel_init(problem, &s.panel);
    tw_int_meta_init(problem, weights, &s.meta);
    s.asymmetric = problem->scheme.act_quant == TW_ACTQ_I8Z;
    s.shifts = tw_int_shifts(g->target, problem);
    s.word_pairs = tw_int_scales_words(g->target, problem);
    s.full = problem->scheme.act_quant == TW_ACTQ_I8_FULL;
    s.size = tw_dtype_bits(problem->x) / 8;
    s.sums_last = sums_last(&s);
    /* A vector must not straddle two groups. */
    s.lanes = tw_target_lanes(g->target);
    while (s.panel.groups > 1 && s.panel.group_k % s.lanes) s.lanes /= 2;
    static const tw_ty params[] = {{TW_TY_PTR, 0}, {TW_TY_I64, 0}, {TW_TY_I64, 0}};
    tw_val a[3];
    tw_function_begin(g, "tw_pack_x", params, a, 3);
    s.scratch = tw_local(g, tw_f32(s.lanes));
    tw_val x = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, x)), 8);
    tw_val x_stride = tw_load(g, tw_i64(), tw_at(g, a[0], offsetof(tw_kernel_args, x_stride)), 8);
    tw_val xq = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xq)), 8);
    tw_val xmeta = tw_load(g, tw_ptr(), tw_at(g, a[0], offsetof(tw_kernel_args, xmeta)), 8);
    tw_loop rows;
    tw_loop_begin(g, &rows, a[1], a[2], 1, NULL, 0);
    s.x = tw_offset(g, x, tw_mul(g, rows.i, x_stride));
    s.xq = tw_offset(g, xq, tw_mul(g, rows.i, tw_k64(g, tw_int_xq_stride(problem))));
    s.xmeta = tw_offset(g, xmeta, tw_mul(g, rows.i, tw_k64(g, s.meta.stride)));
    emit_row(&s);
    tw_loop_end(g, &rows, NULL);
    tw_function_end(g);
}
