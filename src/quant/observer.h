/* What is behind tw_observer: ranges of what passes by, from which static scales are chosen, bit
 * for bit torchao's (0.18, torchao/quantization/observer.py); the average is torch's
 * MovingAverageMinMaxObserver. */
#ifndef TW_QUANT_OBSERVER_H
#define TW_QUANT_OBSERVER_H

#include "src/quant/affine.h"

/* Fields are set once, before the first batch; 0 where not said otherwise. */
struct tw_observer {
    tw_observer_kind kind;
    tw_mapping mapping;
    tw_dtype x;    /* of all batches: f32, f16 or bf16 */
    tw_dtype code; /* i1..i8, u1..u8 */
    int32_t qmin, qmax;
    double eps;       /* least scale; 0: the smallest normal number of x's dtype */
    int64_t channels; /* one range for each row of x, of which there are so many; 0: one for all */
    double rate;      /* AVERAGE: above 0, at most 1; torch's is 0.01 */
    int steps;        /* MSE: at least 1; torchao's is 100 */
    float *min, *max; /* [channels], or of one element; the caller's, written by see */
    int64_t seen;     /* batches so far */
};

#endif
