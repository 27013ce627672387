/* torchao's safetensors files (torchao/prototype/safetensors, since 0.14.1; transformers writes the
 * same): a weight MODULE.weight lies in MODULE._weight_qdata, MODULE._weight_scale and so on (in
 * 0.14.1 MODULE.weight:qdata), and __metadata__ says under the weight's own name which tensor class
 * it is, with the class's attributes, as JSON.  tensor_names lists the names.
 * The classes' layouts: torchao/quantization/quantize_/workflows, prototype/mx_formats. */
#include <math.h>
#include <stdio.h>
#include <strings.h>

#include "src/core/dtype.h"
#include "src/format/compose.h"
#include "src/format/json.h"

enum { WEIGHT, SCALES, ZEROS, GLOBAL };
/* Where the scale of row n and group g lies: [N,G]; [G,N], a matrix an expert; in tiles of 128 rows
 * and 4 groups, which are 32 lines of 4 quarters of 4 groups (cuBLAS's block scaling factors). */
enum { BY_ROW, BY_COLUMN, TILED };
enum { TILE_ROWS = 128, TILE_GROUPS = 4, TILE_LINES = 32, NAME = 1024 };

/* One weight on its way. */
typedef struct job {
    tw_compose *c;
    const tw_marker *marker;
    char name[NAME], between; /* the weight's; what stands before a part's name */
    const json_t *about, *data;
    int32_t ndim;
    int64_t shape[3]; /* the weight's */
    int64_t block[3]; /* weights under one scale */
    tw_composite made;
} job;

/* ---- reading ---- */

static bool is_packed(const tw_composite *self) {
    const tw_model_tensor *t = &self->part[WEIGHT].info;
    return t->shape[t->ndim - 1] != self->K;
}

/* Integers are stored with their sign: less the dtype's smallest they begin at 0. */
static void codes_of_row(const tw_composite *self, int64_t n, uint8_t *codes) {
    const uint8_t *data = self->part[WEIGHT].data;
    bool integer = tw_dtype_is_int(self->type.scheme.weight), packed = is_packed(self);
    int offset = integer ? 1 << (self->bits - 1) : 0;
    for (int64_t k = 0; k < self->K; k++) {
        int64_t at = n * self->K + k;
        codes[k] = packed ? (uint8_t)((data[at / 2] >> 4 * (at % 2) & 15) ^ offset)
                          : (uint8_t)(data[at] + offset);
    }
}

static int64_t place_of(const tw_composite *self, int64_t groups, int64_t n, int64_t g) {
    const tw_model_tensor *t = &self->part[SCALES].info;
    if (self->kind == TILED) {
        int64_t tile = n / TILE_ROWS * tw_ceil_div(groups, TILE_GROUPS) + g / TILE_GROUPS;
        int64_t line = n % TILE_LINES, quarter = n % TILE_ROWS / TILE_LINES;
        return ((tile * TILE_LINES + line) * TILE_ROWS / TILE_LINES + quarter) * TILE_GROUPS +
               g % TILE_GROUPS;
    }
    if (self->kind == BY_ROW) return n * groups + g;
    int64_t rows = t->shape[t->ndim - 1];
    return (n / rows * groups + g) * rows + n % rows;
}

/* Scales of scales, one of all or one an expert, are multiplied in f32 as torchao does. */
static void read_scales(const tw_composite *self, int64_t rows, int64_t groups,
                        tw_canonical_tensor *out) {
    const tw_tensor_entry *global = &self->part[GLOBAL], *t = &self->part[SCALES];
    int64_t experts = global->type ? (int64_t)global->info.bytes / (int64_t)sizeof(float) : 0;
    size_t width = (size_t)tw_dtype_bits(out->scheme.scale) / 8;
    for (int64_t i = 0; i < rows * groups; i++) {
        int64_t n = i / groups, from = place_of(self, groups, n, i % groups);
        if (experts)
            ((float *)out->scales)[i] = tw_float_get(global->data, TW_F32, n / (rows / experts)) *
                                        tw_float_get(t->data, TW_E4M3, from);
        else
            memcpy((char *)out->scales + (size_t)i * width, t->data + (size_t)from * width, width);
    }
}

/* A zero point, which is counted as the stored integers are. */
static float zero_point(const tw_composite *self, int64_t at) {
    const tw_tensor_entry *t = &self->part[ZEROS];
    if (!strcmp(t->info.type, "I8")) return (float)(int8_t)t->data[at];
    return tw_float_get(t->data, tw_compose_dtype(t), at);
}

static void read_zeros(const tw_composite *self, int64_t rows, int64_t groups,
                       tw_canonical_tensor *out) {
    const tw_tensor_entry *t = &self->part[ZEROS];
    size_t width = (size_t)tw_dtype_bits(tw_zero_dtype(&out->scheme)) / 8;
    for (int64_t i = 0; i < rows * groups; i++) {
        int64_t from = place_of(self, groups, i / groups, i % groups);
        if (out->scheme.zero_mode == TW_ZERO_CODE)
            ((uint8_t *)out->zeros)[i] =
                (uint8_t)((int)zero_point(self, from) + (1 << (self->bits - 1)));
        else
            memcpy((char *)out->zeros + (size_t)i * width, t->data + (size_t)from * width, width);
    }
}

/* Codes of fewer bits than the byte that each lies in. */
static tw_status check_codes(const tw_composite *self) {
    bool integer = tw_dtype_is_int(self->type.scheme.weight);
    int offset = integer ? 1 << (self->bits - 1) : 0;
    if (is_packed(self) || self->bits == 8) return TW_OK;
    for (int64_t i = 0; i < self->N * self->K; i++) {
        uint8_t byte = self->part[WEIGHT].data[i];
        if ((uint8_t)(byte + offset) < 1 << self->bits) continue;
        return tw_fail(TW_FORMAT, "tensor '%s': row %lld, column %lld: %d is no code of %s",
                       tw_show(self->name, strlen(self->name)).text, (long long)(i / self->K),
                       (long long)(i % self->K), integer ? (int8_t)byte : byte,
                       tw_dtype_name(self->type.scheme.weight));
    }
    return TW_OK;
}

static tw_status read(const tw_composite *self, tw_canonical_tensor *out) {
    int64_t rows = tw_scale_rows(&out->scheme, self->N), groups = tw_groups(&out->scheme, self->K);
    TW_TRY(check_codes(self));
    read_scales(self, rows, groups, out);
    if (out->zeros) read_zeros(self, rows, groups, out);
    return tw_compose_rows(self, codes_of_row, out);
}

/* ---- what __metadata__ says ---- */

static tw_status bad(const job *j, tw_status status, const char *why) {
    return tw_fail(status, "%s: tensor '%s': %s", j->c->label,
                   tw_show(j->name, strlen(j->name)).text, why);
}

/* A text, or the text within an object of a type ("int4" or {"_type": "torch.dtype", "_data":
 * "int4"}); "" for anything else. */
static const char *word_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (json_is_object(value)) value = json_object_get(value, "_data");
    return json_is_string(value) ? json_string_value(value) : "";
}

/* Whether the writer had this part; 0.14.1 does not say. */
static bool has_part(const job *j, const char *part) {
    const json_t *names = json_object_get(j->about, "_tensor_data_names"), *name;
    size_t i;
    json_array_foreach(names, i, name) {
        if (json_is_string(name) && !strcmp(json_string_value(name), part)) return true;
    }
    return false;
}

static tw_status take(job *j, const char *part, bool needed, tw_tensor_entry *out) {
    char suffix[64];
    snprintf(suffix, sizeof suffix, "%c%s", j->between, part);
    needed = needed || has_part(j, part);
    return (needed ? tw_compose_need : tw_compose_take)(j->c, j->marker, suffix, out);
}

/* block_size is a size for each dimension, or, of MX and NVFP4, along K alone. */
static tw_status read_block(job *j) {
    const json_t *block = json_object_get(j->data, "block_size");
    bool along_k = json_is_integer(block);
    if (!along_k && !json_array_size(block)) { /* one for all */
        memcpy(j->block, j->shape, sizeof j->block);
        return TW_OK;
    }
    if (!along_k && json_array_size(block) != (size_t)j->ndim)
        return bad(j, TW_FORMAT, "block_size: expected a size for each dimension");
    for (int32_t i = 0; i < j->ndim; i++) {
        bool last = i == j->ndim - 1;
        const json_t *size = along_k ? last ? block : NULL : json_array_get(block, (size_t)i);
        j->block[i] = along_k && !last ? 1 : (int64_t)json_integer_value(size);
        if (j->block[i] >= 1 && j->block[i] <= TW_MAX_DIM && j->shape[i] % j->block[i] == 0)
            continue;
        return tw_fail(TW_FORMAT,
                       "%s: tensor '%s': block_size: %lld of dimension %d, must divide its %lld",
                       j->c->label, tw_show(j->name, strlen(j->name)).text, (long long)j->block[i],
                       i, (long long)j->shape[i]);
    }
    return TW_OK;
}

/* ---- shapes ---- */

/* The codes, [N,K] or a stack [E,N,K] of types; `packed`: two in a byte. */
static tw_status take_codes(job *j, const char *types, bool packed) {
    tw_tensor_entry *t = &j->made.part[WEIGHT];
    const int64_t any[] = {-1, -1, -1};
    TW_TRY(take(j, "qdata", true, t));
    j->ndim = t->info.ndim == 3 ? 3 : 2;
    TW_TRY(tw_compose_check(j->c, t, types, j->ndim, any));
    memcpy(j->shape, t->info.shape, sizeof j->shape);
    j->shape[j->ndim - 1] *= packed ? 2 : 1;
    j->made.N = j->shape[0] * (j->ndim == 3 ? j->shape[1] : 1);
    j->made.K = j->shape[j->ndim - 1];
    return read_block(j);
}

/* Of classes whose scales are of a part of a row each. */
static tw_status one_row(const job *j) {
    for (int32_t i = 0; i + 1 < j->ndim; i++)
        if (j->block[i] != 1) return bad(j, TW_UNSUPPORTED, "block_size: blocks of several rows");
    return TW_OK;
}

/* Stacks fold into rows: blocks may not reach over their matrices, unless one is all there is. */
static tw_status set_groups(job *j) {
    tw_scheme *s = &j->made.type.scheme;
    int64_t n = j->block[j->ndim - 2], k = j->block[j->ndim - 1], stack = 1;
    if (j->ndim == 3) stack = j->block[0];
    bool whole = n * stack == j->made.N && k == j->made.K;
    if (j->ndim == 3 && stack != 1 && !whole)
        return bad(j, TW_UNSUPPORTED, "block_size: blocks over several matrices of a stack");
    s->group_n = whole && j->made.N > 1 ? 0 : (int32_t)n;
    s->group_k = k < j->made.K ? (int32_t)k : 0;
    return TW_OK;
}

/* Scales, or zero points, of types: [N,G], with a number for one of all; or [G,N]. */
static tw_status check_scales(const job *j, const tw_tensor_entry *t, const char *types) {
    int64_t shape[3] = {0};
    int32_t n = j->ndim - 2, k = j->ndim - 1;
    for (int32_t i = 0; i < n; i++) shape[i] = j->shape[i] / j->block[i];
    shape[j->made.kind == BY_COLUMN ? k : n] = j->shape[n] / j->block[n];
    shape[j->made.kind == BY_COLUMN ? n : k] = j->shape[k] / j->block[k];
    bool one = !j->made.type.scheme.group_n && !j->made.type.scheme.group_k;
    if (one && t->info.ndim < 2)
        return tw_compose_check(j->c, t, types, t->info.ndim, (int64_t[]){1});
    return tw_compose_check(j->c, t, types, j->ndim, shape);
}

/* Tiles are filled up to their last row and group. */
static tw_status check_tiles(const job *j) {
    const tw_tensor_entry *t = &j->made.part[SCALES];
    int64_t groups = tw_groups(&j->made.type.scheme, j->made.K);
    int64_t count = tw_ceil_div(j->made.N, TILE_ROWS) * TILE_ROWS *
                    tw_ceil_div(groups, TILE_GROUPS) * TILE_GROUPS;
    if ((int64_t)t->info.bytes == count) return TW_OK;
    return tw_fail(TW_FORMAT, "%s: tensor '%s': %llu swizzled scales, expected %lld", j->c->label,
                   tw_show(t->info.name, strlen(t->info.name)).text,
                   (unsigned long long)t->info.bytes, (long long)count);
}

static tw_status take_scales(job *j, const char *types) {
    tw_tensor_entry *t = &j->made.part[SCALES];
    TW_TRY(take(j, "scale", true, t));
    TW_TRY(set_groups(j));
    if (j->made.kind != TILED) return check_scales(j, t, types);
    const int64_t any[] = {-1, -1, -1};
    TW_TRY(tw_compose_check(j->c, t, types, j->ndim, any));
    return check_tiles(j);
}

/* Inputs multiplied before the layer are no part of its weights: only by 1 is the same layer. */
static tw_status drop_inputs(job *j) {
    static const char *const unused[] = {"act_quant_scale", "act_quant_zero_point",
                                         "act_per_tensor_scale"};
    tw_tensor_entry t;
    for (size_t i = 0; i < TW_COUNT(unused); i++) TW_TRY(take(j, unused[i], false, &t));
    TW_TRY(take(j, "act_pre_scale", false, &t));
    if (!t.type) return TW_OK;
    tw_dtype d = tw_compose_dtype(&t);
    int64_t count = tw_dtype_is_real(d) ? (int64_t)t.info.bytes * 8 / tw_dtype_bits(d) : 0;
    for (int64_t i = 0; i < count; i++)
        if (tw_float_get(t.data, d, i) != 1) count = 0;
    if (count) return TW_OK;
    return bad(j, TW_UNSUPPORTED, "act_pre_scale: inputs scaled by other than 1 are not read");
}

/* ---- zero points ---- */

/* Zeros of integers: none if all are 0, else codes; where one lies outside of the codes' bits, of
 * eight bits. */
static tw_status take_code_zeros(job *j, bool needed) {
    tw_composite *made = &j->made;
    tw_tensor_entry *t = &made->part[ZEROS];
    bool all_zero = true, within = true;
    int half = 1 << (made->bits - 1);
    TW_TRY(take(j, "zero_point", needed, t));
    if (t->type) TW_TRY(check_scales(j, t, "I8 F16 BF16 F32"));
    int64_t rows = tw_scale_rows(&made->type.scheme, made->N);
    int64_t count = t->type ? rows * tw_groups(&made->type.scheme, made->K) : 0;
    for (int64_t i = 0; i < count; i++) {
        float zero = zero_point(made, i);
        if (!(zero >= -128 && zero <= 127) || zero != truncf(zero))
            return bad(j, TW_UNSUPPORTED, "zero_point: expected whole numbers of 8 bits");
        all_zero = all_zero && zero == 0;
        within = within && zero >= (float)-half && zero < (float)half;
    }
    if (!within) made->bits = 8;
    made->type.scheme.zero_mode = all_zero ? TW_ZERO_NONE : TW_ZERO_CODE;
    made->type.scheme.weight = (tw_dtype)((all_zero ? TW_I1 : TW_U1) + made->bits - 1);
    if (all_zero) t->type = NULL;
    return TW_OK;
}

/* Values that are added; none if all are 0. */
static tw_status take_value_zeros(job *j) {
    tw_tensor_entry *t = &j->made.part[ZEROS];
    bool all_zero = true;
    TW_TRY(take(j, "zero_point", true, t));
    TW_TRY(check_scales(j, t, j->made.part[SCALES].info.type));
    int64_t count = j->made.N * tw_groups(&j->made.type.scheme, j->made.K);
    for (int64_t i = 0; i < count && all_zero; i++) all_zero = zero_point(&j->made, i) == 0;
    j->made.type.scheme.zero_mode = all_zero ? TW_ZERO_NONE : TW_ZERO_VALUE;
    if (all_zero) t->type = NULL;
    return TW_OK;
}

/* ---- the classes ---- */

static tw_status float8(job *j) {
    TW_TRY(take_codes(j, "F8_E4M3 F8_E5M2", false));
    TW_TRY(take_scales(j, "F32 F16 BF16"));
    bool e4m3 = !strcmp(j->made.part[WEIGHT].info.type, "F8_E4M3");
    j->made.type.scheme.weight = e4m3 ? TW_E4M3 : TW_E5M2;
    j->made.type.name = j->made.part[WEIGHT].info.type;
    j->made.type.scheme.scale = tw_compose_dtype(&j->made.part[SCALES]);
    return TW_OK;
}

/* Inputs quantized as they come, a token at a time; what else there may be is left to floats. */
static tw_act_quant act_quant_of(const json_t *kwargs) {
    const json_t *data = json_object_get(kwargs, "_data");
    const json_t *granularity = json_object_get(data, "granularity");
    const char *type = json_string_value(json_object_get(granularity, "_type"));
    if (!type || strcmp(type, "PerRow") != 0 || json_is_true(json_object_get(data, "reduce_range")))
        return TW_ACTQ_NONE;
    return strcmp(word_of(data, "mapping_type"), "ASYMMETRIC") ? TW_ACTQ_I8_FULL : TW_ACTQ_I8Z;
}

static tw_status int8(job *j) {
    j->made.bits = 8;
    j->made.type.name = "AO-int8";
    TW_TRY(take_codes(j, "I8", false));
    TW_TRY(take_scales(j, "F32 F16 BF16"));
    j->made.type.scheme.scale = tw_compose_dtype(&j->made.part[SCALES]);
    if (!has_part(j, "act_quant_scale"))
        j->made.type.scheme.act_quant = act_quant_of(json_object_get(j->data, "act_quant_kwargs"));
    return take_code_zeros(j, false);
}

static tw_status intx(job *j) {
    const char *target = word_of(j->data, "target_dtype");
    if (strncmp(target, "int", 3) || target[3] < '1' || target[3] > '8' || target[4])
        return bad(j, TW_FORMAT, "target_dtype: expected int1 to int8");
    j->made.bits = target[3] - '0';
    j->made.type.name = "AO-intx";
    TW_TRY(take_codes(j, "I8", false));
    TW_TRY(take_scales(j, "F32 F16 BF16"));
    j->made.type.scheme.scale = tw_compose_dtype(&j->made.part[SCALES]);
    if (!strcasecmp(word_of(j->data, "activation_quantization"), "int8_asym_per_token"))
        j->made.type.scheme.act_quant = TW_ACTQ_I8Z;
    return take_code_zeros(j, true);
}

/* Two signed codes a byte, the first lowest; w = code * scale + zero_point. */
static tw_status int4(job *j) {
    j->made.bits = 4;
    j->made.kind = BY_COLUMN;
    j->made.type.name = "AO-int4";
    j->made.type.scheme.weight = TW_I4;
    TW_TRY(take_codes(j, "I8 U8", true));
    TW_TRY(one_row(j));
    TW_TRY(take_scales(j, "F32 F16 BF16"));
    j->made.type.scheme.scale = tw_compose_dtype(&j->made.part[SCALES]);
    return take_value_zeros(j);
}

static tw_status read_tiled(job *j) {
    bool tiled;
    TW_TRY(tw_json_bool(j->data, "is_swizzled_scales", false, j->c->label, &tiled));
    j->made.kind = tiled ? TILED : BY_ROW;
    return TW_OK;
}

/* Codes of 6 bits lie in a byte each. */
static tw_status mx(job *j) {
    static const struct {
        const char *element, *types, *name;
        tw_dtype dtype;
    } rows[] = {{"float8_e4m3fn", "F8_E4M3", "MXFP8", TW_E4M3},
                {"float8_e5m2", "F8_E5M2", "MXFP8", TW_E5M2},
                {"fp6_e3m2", "U8", "MXFP6", TW_E3M2},
                {"fp6_e2m3", "U8", "MXFP6", TW_E2M3},
                {"float4_e2m1fn_x2", "U8", "MXFP4", TW_E2M1}};
    const char *element = word_of(j->data, "elem_dtype");
    size_t i = 0;
    while (i < TW_COUNT(rows) && strcmp(rows[i].element, element) != 0) i++;
    if (i == TW_COUNT(rows)) return bad(j, TW_UNSUPPORTED, "elem_dtype: no element of MX");
    j->made.bits = tw_dtype_bits(rows[i].dtype);
    j->made.type.name = rows[i].name;
    j->made.type.scheme.weight = rows[i].dtype;
    j->made.type.scheme.scale = TW_E8M0;
    TW_TRY(read_tiled(j));
    TW_TRY(take_codes(j, rows[i].types, j->made.bits == 4));
    TW_TRY(one_row(j));
    return take_scales(j, "F8_E8M0 U8");
}

static tw_status nvfp4(job *j) {
    tw_tensor_entry *global = &j->made.part[GLOBAL];
    j->made.bits = 4;
    j->made.type.name = "NVFP4";
    j->made.type.scheme.weight = TW_E2M1;
    j->made.type.scheme.scale = TW_E4M3;
    TW_TRY(read_tiled(j));
    TW_TRY(take_codes(j, "U8", true));
    TW_TRY(one_row(j));
    TW_TRY(take_scales(j, "F8_E4M3"));
    TW_TRY(take(j, "per_tensor_scale", false, global));
    if (!global->type) return TW_OK;
    j->made.type.scheme.scale = TW_F32;
    const int64_t all[] = {1}, each[] = {j->shape[0], 1, 1};
    if (j->ndim == 3 && global->info.ndim == 3)
        return tw_compose_check(j->c, global, "F32", 3, each);
    return tw_compose_check(j->c, global, "F32", global->info.ndim ? 1 : 0, all);
}

static const struct {
    const char *name;
    tw_status (*describe)(job *j);
} classes[] = {{"Float8Tensor", float8}, {"Int8Tensor", int8}, {"IntxUnpackedToInt8Tensor", intx},
               {"Int4Tensor", int4},     {"MXTensor", mx},     {"NVFP4Tensor", nvfp4}};

/* The order of codes of others (Int4TilePackedTo4dTensor, Int4PlainInt32Tensor) is that of the
 * device's kernel that they were packed on, which the file does not name. */
static tw_status refuse_class(const job *j, const char *name) {
    char list[200];
    size_t at = 0;
    for (size_t i = 0; i < TW_COUNT(classes); i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", classes[i].name);
    return tw_fail(TW_UNSUPPORTED,
                   "%s: tensor '%s': torchao's class %s is not read (its codes may lie as one "
                   "device's kernel wants them); read are %s",
                   j->c->label, tw_show(j->name, strlen(j->name)).text,
                   tw_show(name, strlen(name)).text, list);
}

/* ---- the weights of a file ---- */

/* MODULE._weight, or MODULE.weight of 0.14.1, into the weight's name and what is said of it. */
static bool find_name(job *j) {
    const char *stem = j->marker->stem, *dot = strrchr(stem, '.');
    j->between = j->c->model->tensors[j->marker->index].info.name[strlen(stem)];
    bool old = j->between == ':';
    if (strlen(stem) >= NAME || (!old && (!dot || dot[1] != '_'))) return false;
    strcpy(j->name, stem);
    if (!old) memmove(j->name + (dot - stem) + 1, dot + 2, strlen(dot + 2) + 1);
    j->about = json_object_get(j->c->config, j->name);
    j->data = json_object_get(j->about, "_data");
    return true;
}

tw_status tw_compose_torchao(tw_compose *c, const tw_marker *marker) {
    job j = {.c = c, .marker = marker, .made = {.read = read, .bits = 8, .type.block = 1}};
    const tw_marker named = {j.name, marker->index};
    if (!find_name(&j)) return TW_OK;
    const char *name = json_string_value(json_object_get(j.about, "_type"));
    if (!name) return bad(&j, TW_FORMAT, "__metadata__: not described, but its codes are there");
    size_t i = 0;
    while (i < TW_COUNT(classes) && strcmp(classes[i].name, name) != 0) i++;
    if (i == TW_COUNT(classes)) return refuse_class(&j, name);
    if (!json_is_object(j.data))
        return bad(&j, TW_FORMAT, "__metadata__: _data: expected an object");
    TW_TRY(classes[i].describe(&j));
    TW_TRY(drop_inputs(&j));
    TW_TRY(tw_scheme_check(&j.made.type.scheme));
    return tw_compose_add(c, &named, "", j.ndim, j.shape, &j.made);
}

tw_status tw_compose_torchao_rest(tw_compose *c, const tw_marker *marker) {
    job j = {.c = c, .marker = marker};
    tw_tensor_entry t;
    if (!find_name(&j) || !json_is_object(j.data)) return TW_OK;
    return take(&j, "qdata", true, &t);
}

static const char *metadata_of(const tw_model *model, const char *key) {
    for (int32_t i = 0; i < model->metadata_count; i++)
        if (!strcmp(model->metadata[i].key, key)) return model->metadata[i].value;
    return NULL;
}

/* Whether a tensor is named as a part of a weight is. */
static bool has_parts(const tw_model *model) {
    static const char *const ends[] = {"_qdata", ":qdata", "_scale", ":scale"};
    for (int32_t i = 0; i < model->tensor_count; i++) {
        const char *name = model->tensors[i].info.name, *dot = strrchr(name, '.');
        for (size_t e = 0; e < TW_COUNT(ends); e++)
            if (tw_ends_with(name, ends[e]) && (*ends[e] == ':' || (dot && dot[1] == '_')))
                return true;
    }
    return false;
}

bool tw_torchao_told(const tw_model *model) {
    return metadata_of(model, "tensor_names") && has_parts(model);
}

/* The list of one shard, as the members of `out`, which are still nothing. */
static tw_status add_names(const char *text, const char *label, json_t *out) {
    json_t *names = json_loads(text, 0, NULL), *name;
    size_t i, count = json_array_size(names);
    tw_status status = json_is_array(names) ? TW_OK : TW_FORMAT;
    for (i = 0; i < count && status == TW_OK; i++) {
        name = json_array_get(names, i);
        const char *word = json_string_value(name);
        if (!word) status = TW_FORMAT;
        if (word && !json_object_get(out, word) && json_object_set_new(out, word, json_null()))
            status = TW_MEMORY;
    }
    json_decref(names);
    if (status == TW_MEMORY) return tw_fail(TW_MEMORY, "%s: out of memory for its names", label);
    if (status == TW_OK) return TW_OK;
    return tw_fail(TW_FORMAT, "%s: __metadata__: tensor_names: expected a JSON list of names",
                   label);
}

/* Every shard may describe all; the first that does is heard. */
static tw_status add_descriptions(const tw_model *model, const char *label, json_t *out) {
    for (int32_t i = 0; i < model->metadata_count; i++) {
        const tw_model_text *text = &model->metadata[i];
        if (!json_is_null(json_object_get(out, text->key))) continue;
        char where[200];
        snprintf(where, sizeof where, "%s: __metadata__: '%s'", label,
                 tw_show(text->key, strlen(text->key)).text);
        json_t *about;
        TW_TRY(tw_json_object(text->value, strlen(text->value), where, &about));
        bool typed = json_is_string(json_object_get(about, "_type"));
        if (!typed) json_decref(about);
        if (!typed) return tw_fail(TW_FORMAT, "%s: _type: expected a string", where);
        if (json_object_set_new(out, text->key, about))
            return tw_fail(TW_MEMORY, "%s: out of memory", where);
    }
    return TW_OK;
}

/* 0.14.1 writes plain tensors as NAME:_data. */
static tw_status rename_plain(tw_model *model, const char *label) {
    static const char suffix[] = ":_data";
    for (int32_t i = 0; i < model->tensor_count; i++) {
        const char **name = &model->tensors[i].info.name;
        if (tw_ends_with(*name, suffix))
            TW_TRY(tw_model_keep(model, *name, strlen(*name) - strlen(suffix), name));
    }
    return tw_model_index(model, label);
}

static tw_status describe(const tw_model *model, const char *label, json_t *out) {
    bool any = false;
    for (int32_t i = 0; i < model->metadata_count; i++) {
        if (strcmp(model->metadata[i].key, "tensor_names") != 0) continue;
        TW_TRY(add_names(model->metadata[i].value, label, out));
        any = true;
    }
    if (any) return add_descriptions(model, label, out);
    /* Plain floats beside such a config. */
    if (!has_parts(model)) return TW_OK;
    return tw_fail(TW_UNSUPPORTED,
                   "%s: quant_method 'torchao', but __metadata__ has no tensor_names, which "
                   "torchao's safetensors writer makes",
                   label);
}

tw_status tw_torchao_begin(tw_model *model, const char *label, json_t **out) {
    json_t *about = json_object();
    if (!about) return tw_fail(TW_MEMORY, "%s: out of memory for its names", label);
    tw_status status = describe(model, label, about);
    if (status == TW_OK) status = rename_plain(model, label);
    *out = about;
    if (status == TW_OK) return TW_OK;
    json_decref(about);
    return status;
}
