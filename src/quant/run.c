/* See run.h. */
#include "src/quant/run.h"

#include <string.h>

#include "src/base/status.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

/* Independent minima, so that they fill vector registers; values quantized before packing. */
enum { LANES = 16, BLOCK = 256 };

bool tw_run_range(const float *x, int64_t count, float *min, float *max) {
    float least[LANES], most[LANES], nothing[LANES];
    for (int j = 0; j < LANES; j++) least[j] = *min, most[j] = *max, nothing[j] = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float v = x[i + j];
            least[j] = v < least[j] ? v : least[j];
            most[j] = v > most[j] ? v : most[j];
            nothing[j] += v * 0; /* NaN from an infinity or a NaN on */
        }
    for (; i < count; i++) {
        least[0] = x[i] < least[0] ? x[i] : least[0];
        most[0] = x[i] > most[0] ? x[i] : most[0];
        nothing[0] += x[i] * 0;
    }
    bool finite = true;
    for (int j = 0; j < LANES; j++) {
        *min = least[j] < *min ? least[j] : *min;
        *max = most[j] > *max ? most[j] : *max;
        finite = finite && nothing[j] == 0;
    }
    return finite;
}

/* Adding and subtracting 1.5 * 2^23 rounds to even what lies within 2^22; codes end far below the
 * bound that x * inverse is held to first. */
static int32_t round_block(const float *x, int64_t count, float inverse, int32_t zero, int32_t qmin,
                           int32_t qmax, uint8_t *out) {
    const float rounder = 0x1.8p23F, bound = 0x1p20F;
    float shift = (float)zero, least = (float)qmin, most = (float)qmax;
    int32_t nan = 0;
    for (int64_t i = 0; i < count; i++) {
        float v = x[i] * inverse;
        nan |= v != v;
        v = v > -bound ? v : -bound;
        v = v < bound ? v : bound;
        v = v + rounder - rounder + shift;
        v = v > least ? v : least;
        v = v < most ? v : most;
        out[i] = (uint8_t)(int32_t)v;
    }
    return nan;
}

bool tw_run_codes(const float *x, int64_t count, float inverse, int32_t zero, int32_t qmin,
                  int32_t qmax, tw_dtype dtype, uint8_t *codes) {
    int bits = tw_dtype_bits(dtype);
    if (bits != 4 && bits != 8) return false;
    for (int64_t i = 0; i < count; i += BLOCK) {
        uint8_t block[BLOCK + 1];
        int64_t n = tw_min(BLOCK, count - i);
        if (round_block(x + i, n, inverse, zero, qmin, qmax, block)) return false;
        if (bits == 8) {
            memcpy(codes + i, block, (size_t)n);
            continue;
        }
        block[n] = 0; /* pairs with an odd last code */
        for (int64_t j = 0; j < (n + 1) / 2; j++)
            codes[i / 2 + j] = (uint8_t)((block[2 * j] & 15) | block[2 * j + 1] << 4);
    }
    return true;
}
