/* Which problems the kernel suite tries: chosen deterministically so that every pair of values of
 * any two fields occurs together, or all of them. */
#ifndef TW_TESTS_KERNELS_SAMPLE_H
#define TW_TESTS_KERNELS_SAMPLE_H

#include "templates/template.h"

/* The fields that vary. */
typedef enum sample_field {
    FIELD_WEIGHT,
    FIELD_GROUP,
    FIELD_ZERO,
    FIELD_ACT_QUANT,
    FIELD_SCALE,
    FIELD_X,
    FIELD_Y,
    FIELD_BIAS,
    FIELD_ACT,
    FIELD_SHAPE,
    FIELD_FPMATH,
    FIELD_CONFIG,
    FIELD_TARGET,
    SAMPLE_FIELDS
} sample_field;

enum { SAMPLE_VALUES = 24 };

typedef struct sample {
    uint8_t at[SAMPLE_FIELDS]; /* which value of each field */
} sample;

typedef struct samples {
    sample *list; /* owned */
    int count;
    int targets; /* values of FIELD_TARGET: their meaning is the caller's */
    /* covered[f][g][i][j]: value i of f occurs together with value j of g */
    bool covered[SAMPLE_FIELDS][SAMPLE_FIELDS][SAMPLE_VALUES][SAMPLE_VALUES];
} samples;

/* Every weight dtype x granularity, quantized activations and not, once each with the other fields
 * chosen for new pairs.  all: the product of weight, granularity, zeros, activation quantization
 * and target instead. */
void samples_init(samples *s, int targets, bool all);
/* Draws more until `least` of all are taken, where any are: for what takes few problems. */
typedef bool sample_taken(const sample *s, const void *arg);
void samples_top_up(samples *s, int least, sample_taken *taken, const void *arg);
void samples_free(samples *s);

/* false for combinations that are no problem (the fields' own rules). */
bool sample_problem(const sample *s, tw_problem *out);
/* A legal config for a kernel of this sample: a guess for few or many rows, any of the space, or
 * any with streams, on targets whose registers allow them. */
bool sample_config(const sample *s, const tw_template *tmpl, const tw_target *target,
                   const tw_problem *problem, uint64_t seed, tw_config *out);
/* Pairs of values that are possible together and do not occur. */
int samples_missing(const samples *s);

#endif
