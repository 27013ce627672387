/* Codes and float formats from their definitions, a bit at a time: what the tests hold
 * src/core/dtype.c and what reads through it against. */
#ifndef TW_TESTS_FORMATS_H
#define TW_TESTS_FORMATS_H

#include <math.h>

#include "src/core/dtype.h"

/* Element i of a row in DLPack's packing. */
static inline uint32_t bits_at(const void *row, int bits, int64_t i) {
    uint32_t code = 0;
    for (int b = 0; b < bits; b++) {
        int64_t at = i * bits + b;
        code |= (uint32_t)(((const uint8_t *)row)[at / 8] >> (at % 8) & 1) << b;
    }
    return code;
}

/* A float code's value by the formula of its format. */
static inline double value_of(const tw_dtype_info *t, uint32_t code) {
    if (t->dtype == TW_E8M0) return code == 255 ? NAN : ldexp(1, (int)code - 127);
    int e = t->exponent_bits, m = t->mantissa_bits, bias = (1 << (e - 1)) - 1;
    int exponent = (int)(code >> m & ((1u << e) - 1));
    double mantissa = (double)(code & ((1u << m) - 1)), sign = code >> (e + m) ? -1 : 1;
    bool ieee = t->bits >= 16 || t->dtype == TW_E5M2;
    if (ieee && exponent == (1 << e) - 1) return mantissa != 0 ? NAN : sign * (double)INFINITY;
    if (t->dtype == TW_E4M3 && (code & 0x7f) == 0x7f) return NAN;
    if (!exponent) return sign * ldexp(mantissa, 1 - bias - m);
    return sign * ldexp(1 + ldexp(mantissa, -m), exponent - bias);
}

/* Element i of a row of any dtype but lut4: an integer's value, or a float's. */
static inline double value_at(const void *row, tw_dtype dtype, int64_t i) {
    const tw_dtype_info *t = tw_dtype_get(dtype);
    uint32_t code = bits_at(row, t->bits, i);
    if (t->kind == TW_KIND_FLOAT) return value_of(t, code);
    return t->kind == TW_KIND_INT && code >> (t->bits - 1) ? (double)code - (1 << t->bits)
                                                           : (double)code;
}

/* In every bit, save that one NaN is as good as another. */
static inline bool same(double a, double b) {
    return isnan(a) ? isnan(b) : a == b && !signbit(a) == !signbit(b);
}

#endif
