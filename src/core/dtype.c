/* The table of dtypes, and the bits of one element of each. */
#include "src/core/dtype.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

/* Indexed by the enum's value; the gaps have bits 0. */
static const tw_dtype_info by_value[] = {
#define TW_ROW(name, value, text, bits, kind, exponent, mantissa)                                  \
    [value] = {TW_##name, text, bits, TW_KIND_##kind, exponent, mantissa},
    TW_DTYPES(TW_ROW)
#undef TW_ROW
};

static const tw_dtype in_order[] = {
#define TW_ROW(name, value, text, bits, kind, exponent, mantissa) TW_##name,
    TW_DTYPES(TW_ROW)
#undef TW_ROW
};

const tw_dtype_info *tw_dtype_get(tw_dtype dtype) {
    size_t i = (size_t)dtype;
    return i < TW_COUNT(by_value) && by_value[i].bits ? &by_value[i] : NULL;
}

const tw_dtype_info *tw_dtype_row(int i) {
    return i >= 0 && (size_t)i < TW_COUNT(in_order) ? &by_value[in_order[i]] : NULL;
}

const char *tw_dtype_name(tw_dtype dtype) {
    const tw_dtype_info *info = tw_dtype_get(dtype);
    return info ? info->name : dtype == TW_NONE ? "none" : "?";
}

int32_t tw_dtype_bits(tw_dtype dtype) {
    const tw_dtype_info *info = tw_dtype_get(dtype);
    return info ? info->bits : 0;
}

tw_dtype tw_dtype_parse(const char *text, size_t size) {
    for (size_t i = 0; i < TW_COUNT(in_order); i++) {
        const tw_dtype_info *info = &by_value[in_order[i]];
        if (strlen(info->name) == size && !memcmp(info->name, text, size)) return info->dtype;
    }
    return TW_NONE;
}

int32_t tw_dtype_min(tw_dtype dtype) {
    return tw_dtype_is_signed(dtype) ? -(1 << (tw_dtype_bits(dtype) - 1)) : 0;
}

int32_t tw_dtype_max(tw_dtype dtype) {
    return (1 << (tw_dtype_bits(dtype) - tw_dtype_is_signed(dtype))) - 1;
}

/* ---- codes: at most 8 bits, so an element lies in one byte or in two neighbours ---- */

static uint32_t bits_get(const void *row, int bits, int64_t i) {
    const uint8_t *byte = (const uint8_t *)row + i * bits / 8;
    int shift = (int)(i * bits % 8);
    uint32_t raw = byte[0];
    /* The second byte is touched only when the element reaches it: it may lie past the row. */
    if (shift + bits > 8) raw |= (uint32_t)byte[1] << 8;
    return (raw >> shift) & ((1u << bits) - 1);
}

static void bits_set(void *row, int bits, int64_t i, uint32_t code) {
    uint8_t *byte = (uint8_t *)row + i * bits / 8;
    int shift = (int)(i * bits % 8);
    uint32_t mask = ((1u << bits) - 1) << shift, raw = code << shift & mask;
    byte[0] = (uint8_t)((byte[0] & ~mask) | raw);
    if (shift + bits > 8) byte[1] = (uint8_t)((byte[1] & ~(mask >> 8)) | raw >> 8);
}

int32_t tw_code_get(const void *row, tw_dtype dtype, int64_t i) {
    int bits = tw_dtype_bits(dtype);
    uint32_t raw = bits_get(row, bits, i);
    if (!tw_dtype_is_signed(dtype)) return (int32_t)raw;
    return (int32_t)raw - (int32_t)((raw >> (bits - 1)) << bits);
}

void tw_code_set(void *row, tw_dtype dtype, int64_t i, int32_t code) {
    bits_set(row, tw_dtype_bits(dtype), i, (uint32_t)code);
}

/* Two's complement counts from the middle: smallest code to 0 is a flip of the sign bit. */
static uint8_t sign_flip(tw_dtype dtype, int bits) {
    return tw_dtype_is_signed(dtype) ? (uint8_t)(1u << (bits - 1)) : 0;
}

/* Eight codes of `bits` each, lowest first, to a byte each and back: halves of what is together
 * move apart, three times. */
static inline uint64_t spread(uint64_t eight, int bits) {
    uint64_t four = (1ull << 4 * bits) - 1, two = ((1ull << 2 * bits) - 1) * 0x0000000100000001u,
             one = ((1ull << bits) - 1) * 0x0001000100010001u;
    eight = (eight & four) | (eight >> 4 * bits & four) << 32;
    eight = (eight & two) | (eight >> 2 * bits & two) << 16;
    return (eight & one) | (eight >> bits & one) << 8;
}

static inline uint64_t gather(uint64_t eight, int bits) {
    const uint64_t one = 0x00ff00ff00ff00ffu, two = 0x0000ffff0000ffffu, four = 0xffffffffu;
    eight &= ((1ull << bits) - 1) * 0x0101010101010101u;
    eight = (eight & one) | (eight >> 8 & one) << bits;
    eight = (eight & two) | (eight >> 16 & two) << 2 * bits;
    return (eight & four) | eight >> 32 << 4 * bits;
}

/* `count` codes of fewer than eight bits that begin at a byte, of which eight fill `bits` bytes.
 * Gives how many were taken: the last ones are left where they do not fill bytes.  Whole words move
 * as long as they stay within the codes. */
static inline int64_t get_eights(const uint8_t *bytes, int bits, int64_t count, uint8_t flip,
                                 uint8_t *out) {
    int64_t i = 0, whole = count - (63 + bits) / bits;
    uint64_t flips = flip * 0x0101010101010101u;
    for (; i + 8 <= count; i += 8, bytes += bits) {
        uint64_t eight = 0;
        memcpy(&eight, bytes, i <= whole ? sizeof eight : (size_t)bits);
        eight = spread(eight, bits) ^ flips;
        memcpy(out + i, &eight, sizeof eight);
    }
    return i;
}

static inline int64_t set_eights(uint8_t *bytes, int bits, int64_t count, uint8_t flip,
                                 const uint8_t *codes) {
    int64_t i = 0, whole = count - (63 + bits) / bits;
    uint64_t flips = flip * 0x0101010101010101u;
    for (; i + 8 <= count; i += 8, bytes += bits) {
        uint64_t eight;
        memcpy(&eight, codes + i, sizeof eight);
        eight = gather(eight ^ flips, bits);
        memcpy(bytes, &eight, i <= whole ? sizeof eight : (size_t)bits);
    }
    return i;
}

/* The width as a constant, which the loops are made for. */
#define EACH_WIDTH(call)                                                                           \
    switch (bits) {                                                                                \
    case 1: return call(bytes, 1, count, flip, codes);                                             \
    case 2: return call(bytes, 2, count, flip, codes);                                             \
    case 3: return call(bytes, 3, count, flip, codes);                                             \
    case 4: return call(bytes, 4, count, flip, codes);                                             \
    case 5: return call(bytes, 5, count, flip, codes);                                             \
    case 6: return call(bytes, 6, count, flip, codes);                                             \
    default: return call(bytes, 7, count, flip, codes);                                            \
    }
static int64_t eights_get(const uint8_t *bytes, int bits, int64_t count, uint8_t flip,
                          uint8_t *codes) {
    EACH_WIDTH(get_eights)
}
static int64_t eights_set(uint8_t *bytes, int bits, int64_t count, uint8_t flip,
                          const uint8_t *codes) {
    EACH_WIDTH(set_eights)
}
#undef EACH_WIDTH

void tw_codes_get(const void *row, tw_dtype dtype, int64_t first, int64_t count, uint8_t *out) {
    int bits = tw_dtype_bits(dtype);
    uint8_t flip = sign_flip(dtype, bits);
    const uint8_t *bytes = (const uint8_t *)row + first * bits / 8;
    int64_t i = 0;
    if (bits == 8)
        for (; i < count; i++) out[i] = bytes[i] ^ flip;
    else if (first * bits % 8 == 0)
        i = eights_get(bytes, bits, count, flip, out);
    for (; i < count; i++) out[i] = (uint8_t)(bits_get(row, bits, first + i) ^ flip);
}

void tw_bits_pack(const uint8_t *codes, int64_t count, int bits, void *out) {
    uint8_t *bytes = out;
    if (bits == 8)
        memcpy(bytes, codes, (size_t)count);
    else
        eights_set(bytes, bits, count, 0, codes);
}

void tw_codes_widened(const uint8_t *codes, tw_dtype dtype, int64_t count, uint8_t *restrict out) {
    int bits = tw_dtype_bits(dtype);
    uint8_t flip = sign_flip(dtype, bits), mask = (uint8_t)((1u << bits) - 1);
    for (int64_t i = 0; i < count; i++) out[i] = (codes[i] & mask) ^ flip;
}

void tw_codes_set(void *row, tw_dtype dtype, int64_t first, int64_t count, const uint8_t *codes) {
    int bits = tw_dtype_bits(dtype);
    uint8_t flip = sign_flip(dtype, bits);
    uint8_t *bytes = (uint8_t *)row + first * bits / 8;
    int64_t i = 0;
    if (bits == 8)
        for (; i < count; i++) bytes[i] = codes[i] ^ flip;
    else if (first * bits % 8 == 0)
        i = eights_set(bytes, bits, count, flip, codes);
    for (; i < count; i++) bits_set(row, bits, first + i, (uint32_t)codes[i] ^ flip);
}

/* ---- floats: sign, exponent, mantissa of any width, as the dtype's row says ---- */

static float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Do the codes with all exponent bits set mean infinity and NaN? */
static bool is_ieee(tw_dtype dtype) {
    return dtype == TW_F32 || dtype == TW_F16 || dtype == TW_BF16 || dtype == TW_E5M2;
}

static float decode(const tw_dtype_info *t, uint32_t code) {
    int e = t->exponent_bits, m = t->mantissa_bits, bias = (1 << (e - 1)) - 1;
    uint32_t sign = code >> (e + m) << 31, exponent = (code >> m) & ((1u << e) - 1);
    uint32_t mantissa = code & ((1u << m) - 1);
    bool top = exponent == (1u << e) - 1;
    if ((is_ieee(t->dtype) && top) || (t->dtype == TW_E4M3 && (code & 0x7f) == 0x7f)) {
        /* NaN keeps its bits and becomes quiet, as the hardware's conversions make it. */
        uint32_t quiet = mantissa ? 1u << 22 : 0;
        return float_of_bits(sign | 0x7f800000 | mantissa << (23 - m) | quiet);
    }
    if (exponent)
        return float_of_bits(sign | (exponent + 127 - (uint32_t)bias) << 23 | mantissa << (23 - m));
    /* Subnormal: mantissa units of 2^(1 - bias - m), all of them normal f32. */
    float unit = float_of_bits((uint32_t)(1 - bias - m + 127) << 23);
    return float_of_bits(sign | 0x3f800000) * ((float)mantissa * unit);
}

/* Values of the codes of up to 8 bits. */
static float narrow[TW_COUNT(by_value)][256];
static pthread_once_t narrow_once = PTHREAD_ONCE_INIT;

static void fill_narrow(void) {
    for (size_t i = 0; i < TW_COUNT(by_value); i++) {
        const tw_dtype_info *t = &by_value[i];
        if (t->kind != TW_KIND_FLOAT || t->bits > 8 || t->dtype == TW_E8M0) continue;
        for (uint32_t code = 0; code < 1u << t->bits; code++) narrow[i][code] = decode(t, code);
    }
}

const float *tw_float_table(tw_dtype dtype) {
    pthread_once(&narrow_once, fill_narrow);
    return narrow[dtype];
}

float tw_float_get(const void *data, tw_dtype dtype, int64_t i) {
    uint16_t half;
    float whole;
    switch (dtype) {
    case TW_F32: memcpy(&whole, (const char *)data + i * 4, 4); return whole;
    case TW_F16:
        memcpy(&half, (const char *)data + i * 2, 2);
        return decode(&by_value[TW_F16], half);
    case TW_BF16:
        memcpy(&half, (const char *)data + i * 2, 2);
        return float_of_bits((uint32_t)half << 16);
    case TW_E8M0: {
        uint32_t code = ((const uint8_t *)data)[i];
        if (code == 255) return float_of_bits(0x7f800001);  /* the NaN that torch makes of it */
        return float_of_bits(code ? code << 23 : 1u << 22); /* 2^-127 is subnormal in f32 */
    }
    case TW_F16I8: {
        const tw_pair *pair = (const tw_pair *)data + i;
        return decode(&by_value[TW_F16], pair->factor) * (float)pair->code;
    }
    default: return decode(&by_value[dtype], bits_get(data, by_value[dtype].bits, i));
    }
}

float tw_float_max(tw_dtype dtype) {
    const tw_dtype_info *t = &by_value[dtype];
    if (dtype == TW_F32) return float_of_bits(0x7f7fffff);
    if (dtype == TW_BF16) return float_of_bits(0x7f7f0000);
    if (dtype == TW_E8M0) return float_of_bits(254u << 23);
    if (dtype == TW_E4M3) return 448;
    if (dtype == TW_F16I8) return 65504.0f * 127;
    uint32_t top = 1u << (t->exponent_bits + t->mantissa_bits); /* the sign bit */
    return decode(t, is_ieee(dtype) ? top - 1 - (1u << t->mantissa_bits) : top - 1);
}

/* Code of a double in a sign-exponent-mantissa type, rounding half to even exactly once. */
static uint32_t encode(const tw_dtype_info *t, double value) {
    int e = t->exponent_bits, m = t->mantissa_bits, bias = (1 << (e - 1)) - 1;
    bool ieee = is_ieee(t->dtype);
    uint64_t raw;
    memcpy(&raw, &value, sizeof raw);
    uint32_t sign = (uint32_t)(raw >> 63) << (e + m), exponents = ((1u << e) - 1) << m;
    /* The first magnitude past the finite ones: infinity, e4m3's NaN, or none at all. */
    uint32_t over = ieee ? exponents : t->dtype == TW_E4M3 ? 0x7f : 1u << (e + m);
    uint32_t overflow = sign | (t->bits == 16 ? over : over - 1);
    if (isnan(value))
        return ieee ? sign | exponents | 1u << (m - 1) : t->dtype == TW_E4M3 ? sign | 0x7f : 0;
    int exponent = (int)(raw >> 52 & 0x7ff) - 1023 + bias;
    if (exponent >= 1 << e) return overflow;
    uint64_t mantissa = (raw & 0xfffffffffffffull) | 1ull << 52;
    int shift = 52 - m + (exponent < 1 ? 1 - exponent : 0);
    /* Below half the smallest subnormal; a double's own subnormals are far below it. */
    if (shift > 53) return sign;
    uint64_t rest = mantissa & ((1ull << shift) - 1), half = 1ull << (shift - 1);
    uint64_t code = mantissa >> shift;
    code += rest > half || (rest == half && (code & 1));
    /* The mantissa's leading 1 adds one to the exponent field, and so does a carry out of it. */
    if (exponent > 1) code += (uint64_t)(exponent - 1) << m;
    return code >= over ? overflow : sign | (uint32_t)code;
}

static uint8_t encode_e8m0(double value) {
    int exponent;
    if (isnan(value)) return 255;
    if (!(value > 0)) return 0;
    if (isinf(value)) return 254;
    double fraction =
        frexp(value, &exponent); /* value = fraction * 2^exponent, fraction in [0.5, 1) */
    int code = exponent - 1 + 127 + (fraction >= 0.75);
    return (uint8_t)(code < 0 ? 0 : code > 254 ? 254 : code);
}

static void set_code(tw_pair *pair, double value) {
    double factor = (double)tw_float_get(&pair->factor, TW_F16, 0), code = rint(value / factor);
    pair->code = (int8_t)(!(fabs(code) <= 127) ? (code > 0 ? 127 : code < 0 ? -127 : 0) : code);
    pair->rest = 0;
}

void tw_double_set(void *data, tw_dtype dtype, int64_t i, double value) {
    if (dtype == TW_F16I8) {
        set_code((tw_pair *)data + i, value);
    } else if (dtype == TW_F32) {
        float whole = (float)value;
        memcpy((char *)data + i * 4, &whole, 4);
    } else if (dtype == TW_E8M0) {
        ((uint8_t *)data)[i] = encode_e8m0(value);
    } else if (by_value[dtype].bits == 16) {
        uint16_t half = (uint16_t)encode(&by_value[dtype], value);
        memcpy((char *)data + i * 2, &half, 2);
    } else {
        bits_set(data, by_value[dtype].bits, i, encode(&by_value[dtype], value));
    }
}

/* encode() of an f32, which needs no rounding twice: in integers where the result is normal, by an
 * addition that leaves no more bits than subnormals have where it is not. */
static uint32_t encode_f32(const tw_dtype_info *t, float value) {
    int m = t->mantissa_bits, bias = (1 << (t->exponent_bits - 1)) - 1, shift = 23 - m;
    uint32_t raw, code;
    memcpy(&raw, &value, sizeof raw);
    uint32_t magnitude = raw & 0x7fffffff, sign = raw >> 31 << (t->bits - 1);
    if (magnitude > 0x7f800000) return encode(t, (double)value); /* NaN */
    if (magnitude >> 23 >= (uint32_t)(128 - bias) || bias == 127) {
        code = magnitude + (1u << (shift - 1)) - 1 + (magnitude >> shift & 1);
        code = (code >> shift) - ((uint32_t)(127 - bias) << m);
    } else {
        float whole =
            float_of_bits(magnitude) * float_of_bits((uint32_t)(bias - 1 + m + 127) << 23);
        whole += 0x1p23F;
        memcpy(&code, &whole, sizeof code);
        code -= 0x4b000000;
    }
    /* As in encode(). */
    uint32_t exponents = ((1u << t->exponent_bits) - 1) << m;
    uint32_t over = is_ieee(t->dtype)     ? exponents
                    : t->dtype == TW_E4M3 ? 0x7f
                                          : 1u << (t->bits - 1);
    if (code >= over) code = t->bits == 16 ? over : over - 1;
    return sign | code;
}

void tw_float_set(void *data, tw_dtype dtype, int64_t i, float value) {
    const tw_dtype_info *t = &by_value[dtype];
    if (dtype == TW_F32) {
        memcpy((char *)data + i * 4, &value, sizeof value);
    } else if (dtype == TW_E8M0) {
        ((uint8_t *)data)[i] = encode_e8m0((double)value);
    } else if (dtype == TW_F16I8) {
        set_code((tw_pair *)data + i, (double)value);
    } else if (t->bits == 16) {
        uint16_t half = (uint16_t)encode_f32(t, value);
        memcpy((char *)data + i * 2, &half, sizeof half);
    } else {
        bits_set(data, t->bits, i, encode_f32(t, value));
    }
}
