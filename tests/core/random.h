/* Deterministic test data (splitmix64, Steele, Lea and Flood 2014). */
#ifndef TW_TESTS_RANDOM_H
#define TW_TESTS_RANDOM_H

#include <stdint.h>

static inline uint64_t random_bits(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* From least to most, both included. */
static inline int64_t random_int(uint64_t *state, int64_t least, int64_t most) {
    return least + (int64_t)(random_bits(state) % (uint64_t)(most - least + 1));
}

/* A multiple of 2^-20 in [-1, 1). */
static inline float random_unit(uint64_t *state) {
    return (float)(random_int(state, -(1 << 20), (1 << 20) - 1)) / (1 << 20);
}

#endif
