/* The bits of a narrow float, moved to where f32 has them, are its value but for a power of two,
 * subnormals too: one multiplication puts that right. */
#include "templates/cpu/float_codes.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "src/core/kernel_args.h"

static tw_val k32(tw_gemm *t, int64_t v) { return tw_const_int(t->g, tw_i32(t->lanes), v); }

static bool permutes(const tw_gemm *t) { return t->g->target->isa != TW_ISA_portable; }

/* Half or all of the table: the part of a vector. */
static tw_val load_table(tw_gemm *t, tw_val lut, int part) {
    tw_ir *g = t->g;
    if (lut.p) return tw_load(g, tw_f32(t->lanes), tw_at(g, lut, (int64_t)part * t->lanes * 4), 4);
    int64_t bits[TW_LUT4_SIZE];
    for (int i = 0; i < t->lanes; i++) {
        uint8_t code = (uint8_t)(part * t->lanes + i);
        float value = tw_float_get(&code, t->problem->scheme.weight, 0);
        uint32_t raw;
        memcpy(&raw, &value, sizeof raw);
        bits[i] = raw;
    }
    return tw_const_lanes(g, tw_f32(t->lanes), bits);
}

void tw_float_codes_begin(tw_float_codes *self, tw_gemm *t) {
    tw_ir *g = t->g;
    tw_dtype weight = t->problem->scheme.weight;
    tw_val lut = {0};
    if (weight == TW_LUT4)
        lut = tw_load(g, tw_ptr(), tw_at(g, t->args, offsetof(tw_kernel_args, lut)), 8);
    if (tw_dtype_bits(weight) == 4 && permutes(t)) {
        for (int part = 0; part < TW_LUT4_SIZE / t->lanes; part++)
            self->table[part] = load_table(t, lut, part);
    } else if (lut.p) {
        self->lut = lut;
        self->slot = tw_local(g, tw_f32(t->lanes));
    }
}

/* Permutations look at as many low bits of an index as their vector has lanes for. */
static tw_val permuted(tw_gemm *t, tw_val table, tw_val index) {
    const char *name = t->lanes == 16 ? "llvm.x86.avx512.permvar.sf.512" : "llvm.x86.avx2.permps";
    const tw_val args[] = {table, index};
    return tw_intrinsic(t->g, name, tw_f32(t->lanes), args, 2);
}

static tw_val looked_up(const tw_float_codes *self, tw_gemm *t, tw_val dwords, int place) {
    tw_ir *g = t->g;
    tw_val index = tw_lshr(g, dwords, place);
    tw_val low = permuted(t, self->table[0], index);
    if (t->lanes == TW_LUT4_SIZE) return low;
    /* Bit 3 of the index, as a sign. */
    tw_val upper = tw_compare(g, TW_IR_SLT, tw_shl(g, dwords, 32 - 4 - place), k32(t, 0));
    return tw_select(g, upper, permuted(t, self->table[1], index), low);
}

/* A lane at a time. */
static tw_val gathered(const tw_float_codes *self, tw_gemm *t, tw_val dwords, int place) {
    tw_ir *g = t->g;
    tw_val index = tw_and(g, tw_lshr(g, dwords, place), k32(t, TW_LUT4_SIZE - 1));
    for (int i = 0; i < t->lanes; i++) {
        tw_val at = tw_shl(g, tw_cast(g, TW_IR_ZEXT, tw_extract(g, index, i), tw_i64()), 2);
        tw_store(g, tw_load(g, tw_f32(0), tw_offset(g, self->lut, at), 4),
                 tw_at(g, self->slot, (int64_t)i * 4), 4);
    }
    return tw_load(g, tw_f32(t->lanes), self->slot, 4);
}

/* e5m2's largest exponent is infinity and NaN, as f32's is; e4m3 has one NaN of each sign. */
static tw_val with_specials(tw_gemm *t, tw_dtype dtype, tw_val bits, tw_val value) {
    tw_ir *g = t->g;
    const tw_dtype_info *f = tw_dtype_get(dtype);
    if (dtype != TW_E4M3 && dtype != TW_E5M2) return value;
    int64_t all = ((int64_t)1 << (f->bits - 1)) - 1; /* exponent and mantissa */
    int64_t first = dtype == TW_E4M3 ? all : all - ((1 << f->mantissa_bits) - 1);
    int64_t special = dtype == TW_E4M3 ? 0x7fc00000 : 0x7f800000;
    int up = 23 - f->mantissa_bits;
    tw_val magnitude = tw_and(g, bits, k32(t, all << up));
    tw_val is_special = tw_compare(g, TW_IR_SGT, magnitude, k32(t, (first << up) - 1));
    tw_val made = tw_or(g, tw_bitcast(g, value, bits.ty), k32(t, special));
    return tw_select(g, is_special, tw_bitcast(g, made, value.ty), value);
}

static tw_val taken_apart(tw_gemm *t, tw_val dwords, int place) {
    tw_ir *g = t->g;
    tw_dtype dtype = t->problem->scheme.weight;
    const tw_dtype_info *f = tw_dtype_get(dtype);
    int64_t all = ((int64_t)1 << (f->bits - 1)) - 1;
    int bias = (1 << (f->exponent_bits - 1)) - 1;
    /* The sign on top; exponent and mantissa where f32's meet. */
    tw_val top = tw_shl(g, dwords, 32 - f->bits - place);
    tw_val bits = tw_and(g, tw_ashr(g, top, 8 - f->exponent_bits),
                         k32(t, (int64_t)0x80000000 | all << (23 - f->mantissa_bits)));
    tw_val value = tw_fmul(g, tw_bitcast(g, bits, tw_f32(t->lanes)),
                           tw_const_f32(g, t->lanes, ldexpf(1, 127 - bias)));
    return with_specials(t, dtype, bits, value);
}

tw_val tw_float_codes_get(const tw_float_codes *self, tw_gemm *t, tw_val dwords, int place) {
    if (self->table[0].p) return looked_up(self, t, dwords, place);
    if (self->lut.p) return gathered(self, t, dwords, place);
    return taken_apart(t, dwords, place);
}
