/* Codes to floats in registers: see dequant.h. */
#include "templates/cpu/dequant.h"

#include "src/core/dtype.h"
#include "templates/cpu/convert.h"

static bool plain(const tw_problem *p) { return tw_scheme_plain(&p->scheme); }
static int32_t constant_zero(const tw_problem *p) { return -tw_dtype_min(p->scheme.weight); }
static bool has_values(const tw_problem *p) { return p->scheme.zero_mode == TW_ZERO_VALUE; }
static bool has_code_zeros(const tw_problem *p) { return p->scheme.zero_mode == TW_ZERO_CODE; }

/* Planes that have to be put together first meet at place 0. */
static int places_step(const tw_gemm *t) {
    return t->panel.planes == 1 ? t->panel.plane_bits[0] : TW_DEQUANT_HALF;
}

void tw_dequant_begin(tw_dequant *self, tw_gemm *t) {
    for (int v = 0; v < t->nv && has_values(t->problem); v++) {
        self->scale[v] = tw_local(t->g, tw_f32(t->lanes));
        self->zero[v] = tw_local(t->g, tw_f32(t->lanes));
    }
    if (tw_float_codes_serve(t->problem)) tw_float_codes_begin(&self->floats, t);
    if (plain(t->problem) || !has_code_zeros(t->problem)) return;
    for (int place = 0; place < TW_DEQUANT_HALF; place += places_step(t))
        for (int v = 0; v < t->nv; v++) self->offset[place][v] = tw_local(t->g, tw_f32(t->lanes));
}

void tw_dequant_group(tw_dequant *self, tw_gemm *t) {
    tw_ir *g = t->g;
    if (plain(t->problem)) return;
    for (int v = 0; v < t->nv; v++) {
        if (has_values(t->problem)) {
            tw_store(g, tw_gemm_scale(t, v), self->scale[v], t->lanes * 4);
            tw_store(g, tw_gemm_value_zero(t, v), self->zero[v], t->lanes * 4);
        }
        if (tw_float_codes_serve(t->problem)) continue;
        tw_val zero = {0};
        if (has_code_zeros(t->problem))
            zero = tw_cast(g, TW_IR_SITOFP, tw_gemm_code_zero(t, v), tw_f32(t->lanes));
        for (int place = 0; place < TW_DEQUANT_HALF; place += places_step(t)) {
            float magic = (float)(1 << (23 - place)) + (float)constant_zero(t->problem);
            tw_val offset = tw_const_f32(g, t->lanes, magic);
            if (zero.p)
                tw_store(g, tw_fadd(g, zero, offset), self->offset[place][v], t->lanes * 4);
            else
                self->offset[place][v] = offset;
        }
    }
}

static tw_val to_float(tw_dequant *self, tw_gemm *t, int v, tw_val bits, int place) {
    tw_ir *g = t->g;
    int64_t magic = (int64_t)(127 + 23 - place) << 23;
    tw_val f = tw_bitcast(g, tw_or(g, bits, tw_const_int(g, bits.ty, magic)), tw_f32(t->lanes));
    tw_val offset = self->offset[place][v];
    if (offset.ty.kind == TW_TY_PTR) offset = tw_load(g, f.ty, offset, t->lanes * 4);
    return tw_fsub(g, f, offset);
}

/* The codes at column k of the body as q - zero, where they are one plane. */
static tw_val column_of_plane(tw_dequant *self, tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    int bits = t->panel.plane_bits[0];
    /* The byte of k within its dword, and the step's place in that byte. */
    int from = (int)(k % 4) * 8 + (int)(k % t->panel.chunk_k / 4 % (8 / bits)) * bits;
    tw_val dword = tw_gemm_dwords(t, v, 0, k);
    if (tw_float_codes_serve(t->problem)) return tw_float_codes_get(&self->floats, t, dword, from);
    if (from >= TW_DEQUANT_HALF) dword = tw_lshr(g, dword, TW_DEQUANT_HALF);
    int place = from % TW_DEQUANT_HALF;
    return to_float(
        self, t, v,
        tw_and(g, dword, tw_const_int(g, dword.ty, (int64_t)((1 << bits) - 1) << place)), place);
}

static tw_val column_of_planes(tw_dequant *self, tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    tw_val q = {0};
    for (int i = 0; i < p->planes; i++) {
        int bits = p->plane_bits[i];
        int from = (int)(k % 4) * 8 + (int)(k % p->chunk_k / 4 % (8 / bits)) * bits,
            to = p->plane_shift[i];
        tw_val dword = tw_gemm_dwords(t, v, i, k);
        tw_val moved = from >= to ? tw_lshr(g, dword, from - to) : tw_shl(g, dword, to - from);
        moved = tw_and(g, moved, tw_const_int(g, moved.ty, (int64_t)((1 << bits) - 1) << to));
        q = i ? tw_or(g, q, moved) : moved;
    }
    return tw_float_codes_serve(t->problem) ? tw_float_codes_get(&self->floats, t, q, 0)
                                            : to_float(self, t, v, q, 0);
}

static tw_val column_of_floats(tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    const tw_panel *p = &t->panel;
    int64_t offset = k / p->chunk_k * p->chunk_bytes;
    switch (t->problem->scheme.weight) {
    case TW_BF16: {
        tw_val pair = tw_gemm_load_codes(t, v, tw_i32(t->lanes), offset);
        tw_val bits = k % 2 ? tw_and(g, pair, tw_const_int(g, pair.ty, (int64_t)0xffff0000))
                            : tw_shl(g, pair, 16);
        return tw_bitcast(g, bits, tw_f32(t->lanes));
    }
    case TW_F16:
        return tw_load_f32(g, TW_F16, tw_gemm_codes_ahead(t, v, (int64_t)t->lanes * 2, offset),
                           t->lanes, t->lanes * 2);
    default: return tw_gemm_load_codes(t, v, tw_f32(t->lanes), offset);
    }
}

/* Whether scales times codes need no rounding and are in f32's range: then a fused multiply-add is
 * as good. */
static bool products_are_exact(const tw_scheme *s) {
    const tw_dtype_info *scale = tw_dtype_get(s->scale);
    return tw_dtype_is_int(s->weight) && !tw_scheme_products_round(s) && scale->exponent_bits < 8;
}

tw_val tw_dequant_column(tw_dequant *self, tw_gemm *t, int v, int64_t k) {
    tw_ir *g = t->g;
    if (plain(t->problem)) return column_of_floats(t, v, k);
    tw_val q =
        t->panel.planes == 1 ? column_of_plane(self, t, v, k) : column_of_planes(self, t, v, k);
    if (!has_values(t->problem)) return q;
    tw_val scale = tw_load(g, q.ty, self->scale[v], t->lanes * 4);
    tw_val zero = tw_load(g, q.ty, self->zero[v], t->lanes * 4);
    if (products_are_exact(&t->problem->scheme)) return tw_fma(g, q, scale, zero);
    return tw_fadd(g, tw_fmul(g, q, scale), zero);
}

void tw_dequant_fold(tw_gemm *t, const tw_val *acc, tw_val *total) {
    tw_ir *g = t->g;
    bool sums_of_weights = plain(t->problem) || has_values(t->problem);
    for (int v = 0; v < t->nv; v++) {
        tw_val scale = {0};
        if (!sums_of_weights) scale = tw_gemm_scale(t, v);
        for (int row = 0; row < t->rows; row++) {
            int i = row * t->nv + v;
            total[i] =
                sums_of_weights ? tw_fadd(g, acc[i], total[i]) : tw_fma(g, acc[i], scale, total[i]);
        }
    }
}

int64_t tw_dequant_chain_of(const tw_problem *problem, int64_t fold_k, int64_t additions) {
    tw_panel p;
    tw_panel_init(problem, &p);
    int64_t run = tw_min(fold_k, p.unit_groups > 1 ? p.group_k : p.unit_k);
    return additions * run + tw_gemm_folds(&p, fold_k) + 2;
}

int64_t tw_dequant_chain(const tw_problem *problem) {
    return tw_dequant_chain_of(problem, TW_DEQUANT_FOLD, 1);
}
