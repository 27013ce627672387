/* From one config to running code: binary cache, compiler, TW_DUMP, loader. */
#ifndef TW_SRC_BUILD_H
#define TW_SRC_BUILD_H

#include "src/plan.h"

/* The loaded code of one config, shared by everybody who asks for the same: tw_flights_release it
 * from context->kernels.  Errors: as tw_plan_object; whatever tw_image_load fails with. */
tw_status tw_code_load(tw_context *context, tw_mode mode, const tw_template *tmpl,
                       const tw_problem *problem, const tw_config *config, tw_code **out);

/* Whether one of the caches has the machine code of a config. */
bool tw_object_cached(tw_context *context, const tw_template *tmpl, const tw_problem *problem,
                      const tw_config *config);

/* Writes key, IR, assembly and object of what was just compiled below $TW_DUMP, when that is
 * set. */
void tw_dump_build(tw_context *context, const tw_key *key, const tw_template *tmpl,
                   const tw_problem *problem, const tw_config *config, const tw_str *object);

#endif
