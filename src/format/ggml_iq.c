/* Blocks of table types as codes and scales: see ggml_iq.h.  Block structs: ggml-common.h; what
 * they mean: dequantize_row_* of ggml-quants.c.  Scales are worked out in f32 as there. */
#include "src/format/ggml_iq.h"

#include "src/core/dtype.h"

enum { SUPER = 256, NEGATIVE = 8 };

/* Codes from 8 up are those below with the other sign.  MXFP4's values are twice e2m1's, beside
 * scales of half; 0 has no sign. */
const float tw_lut_mxfp4[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
const float tw_lut_nvfp4[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6};
const float tw_lut_iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                            1,    13,   25,  38,  53,  69,  89,  113};
const float tw_lut_iq2[] = {8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43, 0, 0, 0, 0, 0};
const float tw_lut_iq3_xxs[] = {4,  12,  20,  28,  36,  44,  52,  62,
                                -4, -12, -20, -28, -36, -44, -52, -62};
const float tw_lut_iq3_s[] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
/* Grid values -1, 0, 1 plus an eighth; from 8 up less an eighth. */
const float tw_lut_iq1[] = {-0.875f, 0.125f,  1.125f, 0, 0, 0, 0, 0,
                            -1.125f, -0.125f, 0.875f, 0, 0, 0, 0, 0};

static float load_f16(const void *p) { return tw_float_get(p, TW_F16, 0); }
static void put_f32(void *scales, size_t i, float value) { ((float *)scales)[i] = value; }

/* Nibbles of `half` bytes: the low ones first, then the high ones. */
static void nibbles(const uint8_t *packed, size_t half, uint8_t *codes) {
    for (size_t i = 0; i < half; i++) {
        codes[i] = packed[i] & 15;
        codes[i + half] = packed[i] >> 4;
    }
}

void tw_decode_mxfp4(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    /* 2^(e-128) in bf16, whose subnormals reach down to 2^-133; e 255 is a number like any. */
    uint16_t bits = block[0] < 2 ? (uint16_t)(0x20 << block[0]) : (uint16_t)((block[0] - 1) << 7);
    memcpy(scales, &bits, sizeof bits);
    nibbles(block + 1, 16, codes);
}

void tw_decode_nvfp4(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    for (size_t i = 0; i < 4; i++) {
        /* An unsigned e4m3, whose top bit says nothing: 0x7f is 0, but 0xff is 480. */
        uint8_t magnitude = block[i] & 0x7f;
        float scale = magnitude < 0x7f ? tw_float_get(&magnitude, TW_E4M3, 0) : 480;
        tw_float_set(scales, TW_BF16, i, block[i] == 0x7f ? 0 : scale);
        nibbles(block + 4 + 8 * i, 8, codes + 16 * i);
    }
}

void tw_decode_iq4_nl(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    memcpy(scales, block, 2);
    nibbles(block + 2, 16, codes);
}

void tw_decode_iq4_xs(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    unsigned high = tw_load_u16(block + 2);
    tw_pair *out = scales;
    for (size_t i = 0; i < 8; i++) {
        int low = block[4 + i / 2] >> 4 * (i % 2) & 15;
        int code = (low | (int)(high >> 2 * i & 3) << 4) - 32;
        out[i] = (tw_pair){tw_load_u16(block), (int8_t)code, 0};
        nibbles(block + 8 + 16 * i, 16, codes + 32 * i);
    }
}

/* ---- grids ---- */

/* Eight codes of two bits, of four codes of four; signs: a bit each. */
static void from_grid2(uint16_t row, unsigned signs, uint8_t *codes) {
    for (size_t i = 0; i < 8; i++)
        codes[i] = (uint8_t)((row >> 2 * i & 3) | (signs >> i & 1 ? NEGATIVE : 0));
}
static void from_grid3(uint16_t row, unsigned signs, uint8_t *codes) {
    for (size_t i = 0; i < 4; i++)
        codes[i] = (uint8_t)((row >> 4 * i & 7) | (signs >> i & 1 ? NEGATIVE : 0));
}

/* Seven stored signs; the eighth makes their number even (ksigns_iq2xs). */
static unsigned even_signs(unsigned seven) {
    return seven | (unsigned)(__builtin_popcount(seven) & 1) << 7;
}

void tw_decode_iq2_xxs(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    float d = load_f16(block);
    for (size_t i = 0; i < SUPER / 32; i++) {
        const uint8_t *q = block + 2 + 8 * i;
        uint32_t rest = tw_load_u32(q + 4);
        put_f32(scales, i, d * (0.5f + (float)(rest >> 28)) * 0.25f);
        for (size_t j = 0; j < 4; j++)
            from_grid2(tw_grid_iq2_xxs[q[j]], even_signs(rest >> 7 * j & 127),
                       codes + 32 * i + 8 * j);
    }
}

/* Scales of 16 columns each, two to a byte, as IQ2_XS and IQ2_S have them. */
static void iq2_scales(float d, const uint8_t *packed, void *scales) {
    for (size_t i = 0; i < SUPER / 16; i++)
        put_f32(scales, i, d * (0.5f + (float)(packed[i / 2] >> 4 * (i % 2) & 15)) * 0.25f);
}

void tw_decode_iq2_xs(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    iq2_scales(load_f16(block), block + 66, scales);
    for (size_t i = 0; i < SUPER / 8; i++) {
        unsigned q = tw_load_u16(block + 2 + 2 * i);
        from_grid2(tw_grid_iq2_xs[q & 511], even_signs(q >> 9), codes + 8 * i);
    }
}

void tw_decode_iq2_s(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    const uint8_t *low = block + 2, *signs = block + 34, *high = block + 66;
    iq2_scales(load_f16(block), block + 74, scales);
    for (size_t i = 0; i < SUPER / 8; i++) {
        unsigned q = low[i] | (high[i / 4] >> 2 * (i % 4) & 3u) << 8;
        from_grid2(tw_grid_iq2_s[q], signs[i], codes + 8 * i);
    }
}

void tw_decode_iq3_xxs(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    float d = load_f16(block);
    for (size_t i = 0; i < SUPER / 32; i++) {
        const uint8_t *q = block + 2 + 8 * i;
        uint32_t rest = tw_load_u32(block + 66 + 4 * i);
        put_f32(scales, i, d * (0.5f + (float)(rest >> 28)) * 0.5f);
        for (size_t j = 0; j < 8; j++)
            from_grid3(tw_grid_iq3_xxs[q[j]], even_signs(rest >> 7 * (j / 2) & 127) >> 4 * (j % 2),
                       codes + 32 * i + 4 * j);
    }
}

void tw_decode_iq3_s(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    const uint8_t *low = block + 2, *high = block + 66, *signs = block + 74, *sub = block + 106;
    float d = load_f16(block);
    for (size_t i = 0; i < SUPER / 32; i++)
        put_f32(scales, i, d * (float)(1 + 2 * (sub[i / 2] >> 4 * (i % 2) & 15)));
    for (size_t i = 0; i < SUPER / 4; i++) {
        unsigned q = low[i] | (high[i / 8] >> i % 8 & 1u) << 8;
        from_grid3(tw_grid_iq3_s[q], (unsigned)signs[i / 2] >> 4 * (i % 2), codes + 4 * i);
    }
}

void tw_decode_iq1_s(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    float d = load_f16(block);
    for (size_t i = 0; i < SUPER / 32; i++) {
        unsigned high = tw_load_u16(block + 34 + 2 * i);
        put_f32(scales, i, d * (float)(2 * (high >> 12 & 7) + 1));
        for (size_t j = 0; j < 4; j++) {
            unsigned q = block[2 + 4 * i + j] | (high >> 3 * j & 7) << 8;
            from_grid2(tw_grid_iq1[q], high & 0x8000 ? 255 : 0, codes + 32 * i + 8 * j);
        }
    }
}

void tw_decode_iq1_m(const uint8_t *block, uint8_t *codes, void *scales, void *zeros) {
    (void)zeros;
    const uint8_t *low = block, *high = block + 32, *sub = block + 48;
    /* The scale of all has four of its bits in each word of scales. */
    uint16_t d_bits = 0;
    for (size_t i = 0; i < 4; i++)
        d_bits = (uint16_t)(d_bits | (tw_load_u16(sub + 2 * i) >> 12) << 4 * i);
    float d = load_f16(&d_bits);
    for (size_t i = 0; i < SUPER / 16; i++) {
        unsigned scale = (unsigned)tw_load_u16(sub + i / 4 * 2) >> 3 * (i % 4) & 7;
        put_f32(scales, i, d * (float)(2 * scale + 1));
    }
    for (size_t i = 0; i < SUPER / 8; i++) {
        unsigned bits = (unsigned)high[i / 2] >> 4 * (i % 2);
        from_grid2(tw_grid_iq1[low[i] | (bits & 7) << 8], bits & 8 ? 255 : 0, codes + 8 * i);
    }
}
