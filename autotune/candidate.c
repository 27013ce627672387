/* From object bytes to something that can be launched. */
#include "autotune/measure.h"
#include "src/base/status.h"
#include "src/core/act.h"

/* ISO C has no conversion between object and function pointers; POSIX gives it this meaning. */
static void symbol(const tw_image *image, const char *name, void *function) {
    void *address = tw_image_symbol(image, name);
    __builtin_memcpy(function, &address, sizeof address);
}

tw_status tw_candidate_load(const tw_template *tmpl, const tw_problem *problem,
                            const tw_config *config, const void *object, size_t size,
                            tw_candidate *out) {
    tw_candidate c = {
        .tmpl = tmpl,
        .kernel = {.config = *config, .N = problem->N, .K = problem->K},
    };
    tw_geometry geometry = {0};
    tw_problem seen = tw_kernel_problem(problem);
    tmpl->geometry(&seen, &geometry);
    c.kernel.xq_stride = geometry.xq_stride;
    c.kernel.xmeta_stride = geometry.xmeta_stride;
    TW_TRY(tw_image_load(object, size, &c.image));
    symbol(c.image, "tw_pack_x", &c.kernel.pack_x);
    symbol(c.image, "tw_matmul", &c.kernel.matmul);
    if (!c.kernel.pack_x || !c.kernel.matmul) {
        tw_image_unload(c.image);
        return tw_fail(TW_FORMAT, "object: %s, has no function %s", tmpl->name,
                       c.kernel.pack_x ? "tw_matmul" : "tw_pack_x");
    }
    *out = c;
    return TW_OK;
}

void tw_candidate_unload(tw_candidate *candidate) {
    if (candidate->image) tw_image_unload(candidate->image);
    *candidate = (tw_candidate){0};
}
