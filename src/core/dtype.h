/* src/core: what a problem is, as pure data: dtypes, schemes, problems, configs, keys, the oracle.
 * No I/O, no threads, no device.  This file: facts about one code type, from TW_DTYPES's rows. */
#ifndef TW_CORE_DTYPE_H
#define TW_CORE_DTYPE_H

#include "src/base/base.h"

typedef enum tw_dtype_kind {
    TW_KIND_NONE = 0,
    TW_KIND_FLOAT,
    TW_KIND_INT,
    TW_KIND_UINT,
    TW_KIND_LUT,
    TW_KIND_PAIR
} tw_dtype_kind;

typedef struct tw_dtype_info {
    tw_dtype dtype;
    const char *name;
    int bits;
    tw_dtype_kind kind;
    int exponent_bits, mantissa_bits;
} tw_dtype_info;

/* NULL for TW_NONE and values that are no dtype. */
const tw_dtype_info *tw_dtype_get(tw_dtype dtype);
/* TW_NONE for a text that names none. */
tw_dtype tw_dtype_parse(const char *text, size_t size);
/* The i-th row, NULL past the end: for listings and tests. */
const tw_dtype_info *tw_dtype_row(int i);

static inline bool tw_dtype_is_int(tw_dtype d) {
    return (d >= TW_I1 && d <= TW_I8) || (d >= TW_U1 && d <= TW_U8);
}
static inline bool tw_dtype_is_signed(tw_dtype d) { return d >= TW_I1 && d <= TW_I8; }
/* The float types that x, y, bias and plain weights may have. */
static inline bool tw_dtype_is_real(tw_dtype d) {
    return d == TW_F32 || d == TW_F16 || d == TW_BF16;
}
/* Those that only scales have. */
static inline bool tw_dtype_is_scale_only(tw_dtype d) { return d == TW_E8M0 || d == TW_F16I8; }
/* Smallest and largest code of an integer dtype. */
int32_t tw_dtype_min(tw_dtype dtype);
int32_t tw_dtype_max(tw_dtype dtype);

/* Bytes of one canonical row of `count` elements: rows start at a byte. */
static inline size_t tw_dtype_row_bytes(tw_dtype dtype, int64_t count) {
    return ((size_t)count * (size_t)tw_dtype_bits(dtype) + 7) / 8;
}

/* Element i of a canonical row, as its code (integers) with sign. */
int32_t tw_code_get(const void *row, tw_dtype dtype, int64_t i);
/* Pad bits keep what they were: clear the row first. */
void tw_code_set(void *row, tw_dtype dtype, int64_t i, int32_t code);

/* Codes [first, first + count) of a canonical row as bytes, counted from the dtype's smallest code.
 */
void tw_codes_get(const void *row, tw_dtype dtype, int64_t first, int64_t count, uint8_t *out);
/* The way back; the row's bits must be 0 before. */
void tw_codes_set(void *row, tw_dtype dtype, int64_t first, int64_t count, const uint8_t *codes);
/* As tw_codes_get() of codes that have a byte each, in their low bits. */
void tw_codes_widened(const uint8_t *codes, tw_dtype dtype, int64_t count, uint8_t *restrict out);
/* `count` codes, a multiple of eight, of one byte each into `bits` each: their low ones. */
void tw_bits_pack(const uint8_t *codes, int64_t count, int bits, void *out);

/* An element of f16i8: factor * code, the factor being an f16's bits. */
typedef struct tw_pair {
    uint16_t factor;
    int8_t code;
    uint8_t rest; /* 0 */
} tw_pair;
/* Columns of K that begin at a multiple of as many have one factor. */
enum { TW_FACTOR_K = 256 };

/* Element i of a canonical row of any float dtype, or of f16i8, as f32, exactly; NaN with its bits,
 * made quiet.
 * e4m3 is OCP's: no infinities, 0x7f and 0xff are NaN; e5m2 follows IEEE 754; the 6- and 4-bit
 * types have neither; e8m0 is 2^(code - 127). */
float tw_float_get(const void *data, tw_dtype dtype, int64_t i);
/* What each code of a float dtype of up to 8 bits, but for e8m0, stands for. */
const float *tw_float_table(tw_dtype dtype);
/* Rounds half to even, once.  f32, f16 and bf16 overflow to infinity, narrower types saturate and
 * take NaN where they have one (else 0).  e8m0 takes the nearest power of two, a tie upwards.
 * f16i8 keeps the factor that is there and takes the code that comes nearest, within +-127. */
void tw_double_set(void *data, tw_dtype dtype, int64_t i, double value);
/* The same of an f32, faster. */
void tw_float_set(void *data, tw_dtype dtype, int64_t i, float value);
/* The number of the dtype that is nearest to value: what an operation with that result gives. */
static inline float tw_float_round(tw_dtype dtype, float value) {
    uint32_t bits = 0;
    if (dtype == TW_F32) return value;
    tw_float_set(&bits, dtype, 0, value);
    return tw_float_get(&bits, dtype, 0);
}
/* Largest finite value of a float dtype. */
float tw_float_max(tw_dtype dtype);

#endif
