/* Weights whose codes are no integers, as f32 vectors: narrow floats by their bits, codes of four
 * bits by a permutation of a table where the target has one. */
#ifndef TW_TEMPLATES_CPU_FLOAT_CODES_H
#define TW_TEMPLATES_CPU_FLOAT_CODES_H

#include "src/core/dtype.h"
#include "templates/cpu/gemm.h"

typedef struct tw_float_codes {
    tw_val table[2]; /* 16 values in one or two vectors; none where codes are taken apart */
    tw_val lut;      /* pointer to the values, where nothing permutes them; else none */
    tw_val slot;     /* of a vector, to put it together there */
} tw_float_codes;

/* Whether the problem's weights have such codes. */
static inline bool tw_float_codes_serve(const tw_problem *p) {
    return !tw_scheme_plain(&p->scheme) && !tw_dtype_is_int(p->scheme.weight);
}
/* At the function's start. */
void tw_float_codes_begin(tw_float_codes *self, tw_gemm *t);
/* What the codes at bits [place, place + bits) of each lane stand for; the other bits may be
 * anything. */
tw_val tw_float_codes_get(const tw_float_codes *self, tw_gemm *t, tw_val dwords, int place);

#endif
