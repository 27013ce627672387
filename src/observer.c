/* Observers for callers: what src/quant/observer.h has, with memory of its own. */
#include "src/quant/observer.h"

#include <stdlib.h>

#include "src/base/status.h"
#include "src/check.h"
#include "src/core/dtype.h"
#include "src/core/problem.h"

/* What is checked by no batch. */
static tw_status read_desc(const tw_observer_desc *given, tw_observer *out) {
    tw_observer_desc d;
    TW_TRY(tw_struct_read("desc", given, sizeof d, &d));
    bool whole = !d.qmin && !d.qmax;
    if ((unsigned)d.kind > TW_OBSERVER_MSE)
        return tw_fail(TW_INVALID, "desc: kind: %d, expected 0 to 2", (int)d.kind);
    if ((unsigned)d.mapping > TW_MAPPING_ASYMMETRIC)
        return tw_fail(TW_INVALID, "desc: mapping: %d, expected 0 to 2", (int)d.mapping);
    if (!tw_dtype_is_int(d.code))
        return tw_fail(TW_INVALID, "desc: code: %s, expected an integer dtype",
                       tw_dtype_name(d.code));
    if (!(d.eps >= 0 && d.eps <= 1))
        return tw_fail(TW_INVALID, "desc: eps: %g, expected 0 to 1", d.eps);
    if (d.channels < 0 || d.channels > TW_MAX_DIM)
        return tw_fail(TW_INVALID, "desc: channels: %lld, expected 0 to %d", (long long)d.channels,
                       TW_MAX_DIM);
    if (!(d.rate >= 0 && d.rate <= 1))
        return tw_fail(TW_INVALID, "desc: rate: %g, expected 0 to 1", d.rate);
    if (d.steps < 0) return tw_fail(TW_INVALID, "desc: steps: %d, must be 0 or more", d.steps);
    *out = (tw_observer){.kind = d.kind,
                         .mapping = d.mapping,
                         .x = d.x ? d.x : TW_F32,
                         .code = d.code,
                         .qmin = whole ? tw_dtype_min(d.code) : d.qmin,
                         .qmax = whole ? tw_dtype_max(d.code) : d.qmax,
                         .eps = d.eps,
                         .channels = d.channels,
                         .rate = d.rate > 0 ? d.rate : 0.01,
                         .steps = d.steps ? d.steps : 100};
    if (d.mapping == TW_MAPPING_SYMMETRIC_NO_CLIP && (!out->qmin || !out->qmax))
        return tw_fail(TW_INVALID, "desc: qmin, qmax: %d to %d, without clipping neither may be 0",
                       out->qmin, out->qmax);
    const tw_affine a = {.N = 1,
                         .K = 1,
                         .group_n = 1,
                         .group_k = 1,
                         .x = out->x,
                         .scale = TW_F32,
                         .code = out->code,
                         .qmin = out->qmin,
                         .qmax = out->qmax};
    return tw_affine_check(&a);
}

tw_status tw_observer_create(const tw_observer_desc *desc, tw_observer **out) {
    tw_observer o;
    if (!out) return tw_fail(TW_INVALID, "out: NULL, must be given");
    TW_TRY(read_desc(desc, &o));
    size_t ranges = o.channels ? (size_t)o.channels : 1;
    tw_observer *made = malloc(sizeof *made);
    o.min = malloc(2 * ranges * sizeof *o.min);
    if (!made || !o.min) {
        free(made);
        free(o.min);
        return tw_fail(TW_MEMORY, "out of memory for %zu ranges", ranges);
    }
    o.max = o.min + ranges;
    *made = o;
    *out = made;
    return TW_OK;
}

void tw_observer_destroy(tw_observer *observer) {
    if (!observer) return;
    free(observer->min);
    free(observer);
}
