/* Narrow floats as Hugging Face's transformers stores them: e4m3 in blocks with
 * NAME.weight_scale_inv, by which values are multiplied (Fp8Quantize; DeepSeek-V3); and gpt-oss's
 * experts in MXFP4, NAME_blocks of nibbles with NAME_scales (Mxfp4 of the same). */
#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"

enum { WEIGHT, SCALES };
enum { MX_GROUP = 32, MX_BYTES = 16 };

static void bytes_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    memcpy(codes, self->part[WEIGHT].data + n * self->K, (size_t)self->K);
}

static void nibbles_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    const uint8_t *row = self->part[WEIGHT].data + n * self->K / 2;
    for (int64_t k = 0; k < self->K; k++) codes[k] = row[k / 2] >> 4 * (k % 2) & 15;
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    tw_compose_scales(self, &self->part[SCALES], false, tw_groups(&out->scheme, self->K), out);
    return tw_compose_rows(self, self->bits == 8 ? bytes_of_row : nibbles_of_row, out);
}

/* weight_block_size: [rows, columns]; absent: one scale in all. */
static tw_status read_block(const tw_compose *c, tw_scheme *s) {
    const json_t *block = json_object_get(c->config, "weight_block_size");
    if (!block || json_is_null(block)) return TW_OK;
    int64_t n = json_integer_value(json_array_get(block, 0));
    int64_t k = json_integer_value(json_array_get(block, 1));
    if (n < 1 || k < 1 || n > TW_MAX_DIM || k > TW_MAX_DIM)
        return tw_fail(TW_FORMAT, "%s: quantization_config: weight_block_size: expected two sizes",
                       c->label);
    s->group_n = (int32_t)n;
    s->group_k = (int32_t)k;
    return TW_OK;
}

tw_status tw_compose_fp8(tw_compose *c, const tw_marker *m) {
    tw_composite made = {.read = read, .bits = 8, .type = {.name = "F8_E4M3", .block = 1}};
    tw_scheme *s = &made.type.scheme;
    tw_tensor_entry unused, *w = &made.part[WEIGHT], *scales = &made.part[SCALES];
    TW_TRY(tw_compose_need(c, m, ".weight", w));
    TW_TRY(tw_compose_need(c, m, ".weight_scale_inv", scales));
    TW_TRY(tw_compose_take(c, m, ".activation_scale", &unused));
    TW_TRY(tw_compose_check(c, w, "F8_E4M3", 2, (int64_t[]){-1, -1}));
    made.N = w->info.shape[0];
    made.K = w->info.shape[1];
    s->weight = TW_E4M3;
    s->scale = tw_compose_dtype(scales);
    TW_TRY(read_block(c, s));
    int64_t rows = tw_scale_rows(s, made.N), groups = tw_groups(s, made.K);
    bool number = rows * groups == 1 && scales->info.ndim < 2;
    TW_TRY(tw_compose_check(c, scales, "F32 BF16 F16 F8_E8M0", number ? scales->info.ndim : 2,
                            number ? (int64_t[]){1} : (int64_t[]){rows, groups}));
    return tw_compose_add(c, m, ".weight", 2, (int64_t[]){made.N, made.K}, &made);
}

/* Experts [E, N, K / 32, 16] of bytes: a stack of [N,K], under the name of the parameter itself. */
tw_status tw_compose_mxfp4(tw_compose *c, const tw_marker *m) {
    tw_composite made = {
        .read = read,
        .bits = 4,
        .type = {
            .name = "MXFP4",
            .block = 1,
            .scheme = {.weight = TW_E2M1, .scale = TW_E8M0, .group_n = 1, .group_k = MX_GROUP}}};
    tw_tensor_entry *w = &made.part[WEIGHT];
    TW_TRY(tw_compose_need(c, m, "_blocks", w));
    TW_TRY(tw_compose_need(c, m, "_scales", &made.part[SCALES]));
    TW_TRY(tw_compose_check(c, w, "U8", 4, (int64_t[]){-1, -1, -1, MX_BYTES}));
    const int64_t *shape = w->info.shape;
    TW_TRY(tw_compose_check(c, &made.part[SCALES], "U8", 3, shape));
    made.N = shape[0] * shape[1];
    made.K = shape[2] * MX_GROUP;
    return tw_compose_add(c, m, "", 3, (int64_t[]){shape[0], shape[1], made.K}, &made);
}
