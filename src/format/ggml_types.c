/* Blocks of ggml's quantized types as codes, scales and zeros, so that code * scale + zero in f32
 * gives the bits of ggml's own dequantize_row_*.  Layouts: the block structs of ggml-common.h.
 *
 * Types with a stored minimum keep unsigned codes; the others centre theirs at a constant, which
 * two's complement takes in by flipping the top bit: (q - 8) mod 16 == q ^ 8. */
#include <string.h>

#include "src/core/dtype.h"
#include "src/format/blocks.h"
#include "src/format/ggml_iq.h"
#include "src/format/model_impl.h"

enum { BLOCK = 32, SUPER = 256 };

/* ggml subtracts minimums: adding what has the negative factor gives the same bits. */
enum { F16_SIGN = 0x8000 };

/* 32 nibbles: the low ones are the first half of the block, the high ones the second. */
static void halves(const uint8_t *packed, uint8_t *codes) {
    for (int i = 0; i < BLOCK / 2; i++) {
        codes[i] = packed[i] & 15;
        codes[i + BLOCK / 2] = packed[i] >> 4;
    }
}

/* Bit i of the word is the fifth bit of code i.  Eight at a time: each byte of a word keeps its own
 * bit of eight copies, and any bit carries into the byte's top. */
static void fifth_bits(const uint8_t *word, uint8_t *codes) {
    for (int i = 0; i < BLOCK / 8; i++, codes += 8) {
        uint64_t bits = word[i] * 0x0101010101010101u & 0x8040201008040201u, eight;
        bits = (bits + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
        memcpy(&eight, codes, sizeof eight);
        eight |= bits << 4;
        memcpy(codes, &eight, sizeof eight);
    }
}

static void flip(uint8_t *codes, int count, uint8_t top) {
    for (int i = 0; i < count; i++) codes[i] ^= top;
}

static void decode_q4_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block, 2);
    halves(block + 2, codes);
    flip(codes, BLOCK, 8);
}

static void decode_q4_1(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    memcpy(scales, block, 2);
    memcpy(zeros, block + 2, 2);
    halves(block + 4, codes);
}

static void decode_q5_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block, 2);
    halves(block + 6, codes);
    fifth_bits(block + 2, codes);
    flip(codes, BLOCK, 16);
}

static void decode_q5_1(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    memcpy(scales, block, 2);
    memcpy(zeros, block + 2, 2);
    halves(block + 8, codes);
    fifth_bits(block + 4, codes);
}

static void decode_q8_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block, 2);
    memcpy(codes, block + 2, BLOCK);
}

/* The eight 6-bit scales and minimums of Q4_K and Q5_K, in 12 bytes: the first four of each have a
 * byte of their own, whose top bits hold the high bits of the last four. */
static void k_scales(const uint8_t *block, tw_pair *scales, tw_pair *zeros) {
    const uint8_t *packed = block + 4;
    uint16_t d = tw_load_u16(block), d_min = tw_load_u16(block + 2) ^ F16_SIGN;
    for (int i = 0; i < 8; i++) {
        int scale, minimum;
        if (i < 4) {
            scale = packed[i] & 63;
            minimum = packed[i + 4] & 63;
        } else {
            scale = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
            minimum = packed[i + 4] >> 4 | (packed[i] >> 6) << 4;
        }
        scales[i] = (tw_pair){d, (int8_t)scale, 0};
        zeros[i] = (tw_pair){d_min, (int8_t)minimum, 0};
    }
}

/* Pairs of bits: of each 32 bytes the lowest ones first, and so on. */
static void k_pairs(const uint8_t *packed, uint8_t *codes) {
    for (int half = 0; half < SUPER / 128; half++, packed += 32)
        for (int shift = 0; shift < 8; shift += 2, codes += 32)
            for (int i = 0; i < 32; i++) codes[i] = packed[i] >> shift & 3;
}

static void decode_q2_k(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    uint16_t d = tw_load_u16(block + 80), d_min = tw_load_u16(block + 82) ^ F16_SIGN;
    tw_pair *scale = scales, *zero = zeros;
    for (int i = 0; i < SUPER / 16; i++) {
        scale[i] = (tw_pair){d, (int8_t)(block[i] & 15), 0};
        zero[i] = (tw_pair){d_min, (int8_t)(block[i] >> 4), 0};
    }
    k_pairs(block + 16, codes);
}

/* Six bits a scale: four of them in the first eight bytes, which hold two each, two in the last
 * four. */
static void decode_q3_k(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    const uint8_t *high = block, *packed = block + 96;
    uint16_t d = tw_load_u16(block + 108);
    tw_pair *out = scales;
    for (int i = 0; i < SUPER / 16; i++) {
        int low = packed[i % 8] >> (i < 8 ? 0 : 4) & 15;
        int code = (low | (packed[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32;
        out[i] = (tw_pair){d, (int8_t)code, 0};
    }
    k_pairs(block + 32, codes);
    /* Byte j has the third bits of column j of all eight groups of 32: 1 takes nothing off. */
    for (int group = 0; group < SUPER / 32; group++, codes += 32)
        for (int i = 0; i < 32; i++)
            codes[i] ^= (uint8_t)((~high[i] >> group & 1) << 2); /* less 4, in three bits */
}

/* 256 nibbles: of each 32 bytes the low ones first, then the high ones. */
static void k_nibbles(const uint8_t *packed, uint8_t *codes) {
    for (int chunk = 0; chunk < SUPER / 64; chunk++, packed += 32, codes += 64)
        for (int i = 0; i < 32; i++) {
            codes[i] = packed[i] & 15;
            codes[i + 32] = packed[i] >> 4;
        }
}

static void decode_q4_k(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    k_scales(block, scales, zeros);
    k_nibbles(block + 16, codes);
}

static void decode_q5_k(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    const uint8_t *high = block + 16;
    k_scales(block, scales, zeros);
    k_nibbles(block + 48, codes);
    /* Byte j holds the fifth bits of column j of all eight groups. */
    for (int group = 0; group < SUPER / 32; group++, codes += 32)
        for (int i = 0; i < 32; i++) codes[i] |= (uint8_t)((high[i] >> group & 1) << 4);
}

static void decode_q6_k(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    const uint8_t *low = block, *high = block + 128;
    const int8_t *sub = (const int8_t *)block + 192;
    uint16_t d = tw_load_u16(block + 208);
    tw_pair *out = scales;
    for (int i = 0; i < SUPER / 16; i++) out[i] = (tw_pair){d, sub[i], 0};
    /* Each half of 128: four quarters of 32 share 64 bytes of nibbles and 32 of bit pairs. */
    for (int half = 0; half < SUPER / 128; half++, low += 64, high += 32)
        for (int quarter = 0; quarter < 4; quarter++, codes += 32) {
            const uint8_t *nibbles = low + quarter % 2 * (ptrdiff_t)32;
            int down = quarter / 2 * 4;
            for (int i = 0; i < 32; i++)
                codes[i] =
                    (uint8_t)(((nibbles[i] >> down & 15) | (high[i] >> 2 * quarter & 3) << 4) ^ 32);
        }
}

/* ---- ternary ---- */

/* Code i of five in a byte: a fraction of 256 in base 3, most significant digit first. */
static uint8_t digit(uint8_t byte, int i) {
    static const uint8_t powers[] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * powers[i]);
    return (uint8_t)((rest * 3 >> 8) - 1);
}

/* 160 codes in 32 bytes, 80 in 16, 16 in four: digit by digit. */
static void decode_tq1_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block + 52, 2);
    for (int i = 0; i < 160; i++) codes[i] = digit(block[i % 32], i / 32);
    for (int i = 0; i < 80; i++) codes[160 + i] = digit(block[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) codes[240 + i] = digit(block[48 + i % 4], i / 4);
}

/* Pairs of bits that stand for -1 to 2. */
static void decode_tq2_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    memcpy(scales, block + 64, 2);
    *(uint8_t *)zeros = 1;
    k_pairs(block, codes);
}

static void decode_q2_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    memcpy(scales, block, 2);
    *(uint8_t *)zeros = 1;
    for (int i = 0; i < 64; i++) codes[i] = block[2 + i / 4] >> 2 * (i % 4) & 3;
}

/* One bit: minus or plus the scale. */
static void decode_q1_0(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block, 2);
    for (int i = 0; i < 128; i++) codes[i] = block[2 + i / 8] >> i % 8 & 1 ? 1 : 3;
}

typedef struct ggml_row {
    uint32_t id;
    tw_source_type type;
} ggml_row;

/* Quantized types bring ggml's activation quantization along: i8 codes per act_group of K.  But for
 * f32 and f16 ggml has at most 8 bits of each x, so products may be of bf16. */
#define TW_ROUNDED(w) ((w) != TW_NONE && (w) != TW_F32 && (w) != TW_F16)
#define TW_ROW(id, name, block, bytes, w, s, z, group, act_group, decode, lut)                     \
    {id,                                                                                           \
     {#name,                                                                                       \
      block,                                                                                       \
      bytes,                                                                                       \
      {w, s, z, (group) != 0, group, (act_group) ? TW_ACTQ_I8 : TW_ACTQ_NONE, act_group,           \
       TW_ROUNDED(w) ? TW_FPMATH_BF16 : TW_FPMATH_STRICT},                                         \
      decode,                                                                                      \
      lut}},
/* One more expansion: TW_PLAIN and TW_LATER stand for several arguments. */
#define TW_GGML_TYPE(...) TW_ROW(__VA_ARGS__)
static const ggml_row rows[] = {
#include "src/format/ggml_types.def"
};

const tw_source_type *tw_ggml_type(uint32_t id) {
    for (size_t i = 0; i < TW_COUNT(rows); i++)
        if (rows[i].id == id) return &rows[i].type;
    return NULL;
}

const tw_source_type *tw_ggml_type_named(const char *name, uint32_t *id) {
    for (size_t i = 0; i < TW_COUNT(rows); i++) {
        if (strcmp(rows[i].type.name, name) != 0) continue;
        *id = rows[i].id;
        return &rows[i].type;
    }
    return NULL;
}
