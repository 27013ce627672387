/* Generated numbers that leave no defect of a kernel unseen: deterministic, the same on every
 * machine. */
#ifndef TW_AUTOTUNE_DATA_H
#define TW_AUTOTUNE_DATA_H

#include "src/core/problem.h"
#include "src/core/reference.h"

/* A layer's canonical tensors, contiguous and owned; scales, zeros and bias as the problem asks. */
typedef struct tw_data {
    void *weight, *scales, *zeros, *bias;
    float *lut;      /* within table */
    float act_scale; /* 0 unless the problem's is static */
    size_t weight_bytes, scale_bytes, zero_bytes, bias_bytes;
    struct tw_data_table *table; /* what long tensors are runs of */
} tw_data;

/* Every code of the dtype occurs; scales differ from group to group, some negative, one zero; zeros
 * lie off the middle; value zeros of some rows cancel nearly all their codes.  Sizes are such that
 * y fits f16.  Errors: MEMORY; nothing is left to free. */
tw_status tw_data_create(const tw_problem *problem, tw_data *out);
/* The same by the part, in any order, by any number of threads: memory and the short tensors, then
 * each of so many parts. */
tw_status tw_data_reserve(const tw_problem *problem, tw_data *out);
size_t tw_data_parts(const tw_problem *problem);
void tw_data_fill(const tw_problem *problem, const tw_data *data, size_t part);
void tw_data_free(tw_data *data);
static inline tw_canonical tw_data_canonical(const tw_data *data) {
    return (tw_canonical){data->weight, data->scales, data->zeros,
                          data->bias,   data->lut,    data->act_scale};
}

/* Row number `index` of x as problem->x holds it, K values: odd rows are made of edge values (zeros
 * of both signs, ties of rounding to codes, a large value a group, a group of zeros), even ones of
 * random ones with rare loud ones. */
void tw_data_probe(const tw_problem *problem, int64_t index, float *x);
/* Random values without edges, for timing. */
void tw_data_plain(const tw_problem *problem, int64_t index, float *x);

/* splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) as a
 * hash. */
uint64_t tw_data_mix(uint64_t value);

#endif
