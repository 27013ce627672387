/* Observers: ranges of what passes by, from which static scales are chosen, bit for bit torchao's
 * (0.18, torchao/quantization/observer.py); the average is torch's MovingAverageMinMaxObserver. */
#ifndef TW_QUANT_OBSERVER_H
#define TW_QUANT_OBSERVER_H

#include "src/quant/affine.h"

typedef enum tw_observer_kind {
    TW_OBSERVER_MIN_MAX, /* the least and the largest of all batches */
    TW_OBSERVER_AVERAGE, /* the first batch's, then moved by `rate` of the way to each other's */
    TW_OBSERVER_MSE,     /* of the last batch: that +-amax * i / steps, i = 1..steps, which the
                            codes of x lie nearest to, by mean square */
} tw_observer_kind;

/* Fields are set once, before the first batch; 0 where not said otherwise. */
typedef struct tw_observer {
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
} tw_observer;

/* Takes in a batch x [N,K], rows one after another; an empty one is no batch.  Not to be called at
 * once from two threads.
 * Errors: INVALID (a field of o; N not the channels; NaN or infinity in x), MEMORY; o is as it was.
 */
tw_status tw_observer_see(tw_observer *o, int64_t N, int64_t K, const void *x);
/* [channels] scales in f32, f16 or bf16, and zeros.  Errors: INVALID (a field; nothing seen). */
tw_status tw_observer_choose(const tw_observer *o, tw_dtype scale, void *scales, int32_t *zeros);

#endif
