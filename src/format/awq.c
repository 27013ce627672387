/* AWQ: four-bit codes in words of eight, in the orders that its kernels want them.
 * w = (q - zero) * scale.  Layouts: WQLinear_GEMM, WQLinear_GEMV and WQLinear_GEMVFast of AutoAWQ;
 * the last stores -(zero * scale) in f16, which is a value zero. */
#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"

enum { WEIGHT, ZEROS, SCALES };
enum { GEMM, GEMV, GEMV_FAST };
enum { BITS = 4, PER_WORD = 8 };

/* Column i of eight is the nibble of this number. */
static const int nibble_of[PER_WORD] = {0, 4, 1, 5, 2, 6, 3, 7};

static uint8_t gemm_code(const tw_tensor_entry *t, int64_t row, int64_t column) {
    int64_t words = t->info.shape[1];
    uint32_t word = tw_load_u32(t->data + (row * words + column / PER_WORD) * 4);
    return word >> BITS * nibble_of[column % PER_WORD] & 15;
}

static uint8_t gemv_code(const tw_tensor_entry *t, int64_t row, int64_t column) {
    return (uint8_t)tw_stream_get(t->data + row * t->info.shape[1] * 4, 4, column, BITS);
}

/* Rows go by four, columns by 64: 32 columns are dealt out in pairs to four eights, each eight with
 * its even columns first; then four rows of 64 are written one after another, four to a word. */
static uint8_t fast_code(const tw_tensor_entry *t, int64_t row, int64_t column) {
    int64_t in = column % 32, pair = in % 8 / 2 * 8 + in / 8 * 2 + in % 2;
    int64_t at = pair / 8 * 8 + pair % 2 * 4 + pair % 8 / 2;
    int64_t flat = row % 4 * 64 + column % 64 / 32 * 32 + at;
    int64_t word = row / 4 * t->info.shape[1] + column / 64 * 64 + flat / 4;
    return tw_load_u16(t->data + word * 2) >> BITS * (flat % 4) & 15;
}

static void codes_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    const tw_tensor_entry *t = &self->part[WEIGHT];
    for (int64_t k = 0; k < self->K; k++)
        codes[k] = self->kind == GEMM   ? gemm_code(t, k, n)
                   : self->kind == GEMV ? gemv_code(t, n, k)
                                        : fast_code(t, n, k);
}

static void read_zeros(const tw_composite *self, int64_t groups, tw_canonical_tensor *out) {
    const tw_tensor_entry *t = &self->part[ZEROS];
    for (int64_t n = 0; n < self->N; n++)
        for (int64_t g = 0; g < groups; g++) {
            int64_t at = n * groups + g;
            if (self->kind == GEMV_FAST)
                memcpy((char *)out->zeros + at * 2, t->data + (g * self->N + n) * 2, 2);
            else
                ((uint8_t *)out->zeros)[at] =
                    self->kind == GEMM ? gemm_code(t, g, n) : gemv_code(t, n, g);
        }
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    bool transposed = self->kind != GEMV;
    tw_compose_scales(self, &self->part[SCALES], transposed, self->part[SCALES].info.shape[1], out);
    read_zeros(self, tw_groups(&out->scheme, self->K), out);
    return tw_compose_rows(self, codes_of_row, out);
}

static tw_status read_kind(const tw_compose *c, int *out) {
    static const char *const versions[] = {"gemm", "gemv", "gemv_fast"};
    const char *version;
    int64_t bits;
    bool zero_point;
    TW_TRY(tw_json_int(c->config, "bits", BITS, BITS, -1, c->label, &bits));
    TW_TRY(tw_json_text(c->config, "version", "gemm", c->label, &version));
    TW_TRY(tw_json_bool(c->config, "zero_point", true, c->label, &zero_point));
    *out = 0;
    while (*out < (int)TW_COUNT(versions) && strcmp(versions[*out], version) != 0) ++*out;
    if (*out < (int)TW_COUNT(versions) && zero_point) return TW_OK;
    return tw_fail(TW_UNSUPPORTED,
                   "%s: quantization_config: version '%s'%s, expected gemm, gemv or gemv_fast with "
                   "zero points",
                   c->label, tw_show(version, strlen(version)).text,
                   zero_point ? "" : " without zero points");
}

/* N, K from the weight's shape; what the others must have of it. */
static tw_status check_parts(const tw_compose *c, int64_t group_size, tw_composite *out) {
    const tw_tensor_entry *part = out->part;
    const int64_t *shape = part[WEIGHT].info.shape, any[] = {-1, -1};
    bool fast = out->kind == GEMV_FAST;
    TW_TRY(tw_compose_check(c, &part[WEIGHT], fast ? "I16" : "I32", 2, any));
    out->K = out->kind == GEMM ? shape[0] : fast ? shape[1] : shape[1] * PER_WORD;
    out->N = out->kind == GEMM ? shape[1] * PER_WORD : fast ? shape[0] * 4 : shape[0];
    int64_t group = group_size ? group_size : out->K;
    if (out->K % group || (fast && out->K % 64))
        return tw_fail(TW_FORMAT, "%s: tensor '%s': K %lld, must be a multiple of %lld", c->label,
                       tw_show(part[WEIGHT].info.name, strlen(part[WEIGHT].info.name)).text,
                       (long long)out->K, (long long)(fast ? 64 : group));
    int64_t groups = out->K / group;
    const int64_t gemm[] = {groups, out->N}, gemm_zeros[] = {groups, out->N / PER_WORD};
    if (out->kind == GEMM) {
        TW_TRY(tw_compose_check(c, &part[ZEROS], "I32", 2, gemm_zeros));
        return tw_compose_check(c, &part[SCALES], "F16 BF16 F32", 2, gemm);
    }
    /* Groups are padded: to whole words, and more. */
    const int64_t gemv[] = {out->N, -1}, fast_shape[] = {-1, out->N};
    TW_TRY(tw_compose_check(c, &part[ZEROS], fast ? "F16" : "I32", 2, fast ? fast_shape : gemv));
    TW_TRY(tw_compose_check(c, &part[SCALES], "F16", 2, fast ? fast_shape : gemv));
    const int64_t *zeros = part[ZEROS].info.shape, *scales = part[SCALES].info.shape;
    int64_t have = fast ? tw_min(zeros[0], scales[0]) : tw_min(zeros[1] * PER_WORD, scales[1]);
    if (have >= groups) return TW_OK;
    return tw_fail(TW_FORMAT, "%s: tensor '%s': scales and zeros of %lld groups, expected %lld",
                   c->label, tw_show(part[SCALES].info.name, strlen(part[SCALES].info.name)).text,
                   (long long)have, (long long)groups);
}

tw_status tw_compose_awq(tw_compose *c, const tw_marker *m) {
    tw_composite made = {.read = read, .bits = BITS, .type = {.name = "AWQ", .block = 1}};
    tw_scheme *s = &made.type.scheme;
    int64_t group;
    TW_TRY(read_kind(c, &made.kind));
    TW_TRY(tw_compose_group(c, c->config, &group));
    TW_TRY(tw_compose_need(c, m, ".qweight", &made.part[WEIGHT]));
    TW_TRY(tw_compose_need(c, m, ".qzeros", &made.part[ZEROS]));
    TW_TRY(tw_compose_need(c, m, ".scales", &made.part[SCALES]));
    TW_TRY(check_parts(c, group, &made));
    s->weight = TW_U4;
    s->scale = tw_compose_dtype(&made.part[SCALES]);
    s->zero_mode = made.kind == GEMV_FAST ? TW_ZERO_VALUE : TW_ZERO_CODE;
    s->group_n = 1;
    s->group_k = group < made.K ? (int32_t)group : 0;
    return tw_compose_add(c, m, ".weight", 2, (int64_t[]){made.N, made.K}, &made);
}
