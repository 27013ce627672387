/* What becomes of each tensor of a model that is quantized: rules, recipes, and what the form of
 * the output can hold.  Decided before anything is written. */
#ifndef TW_SRC_QUANTIZE_PLAN_H
#define TW_SRC_QUANTIZE_PLAN_H

#include <tilewright/model.h>

#include "src/format/model_write.h"
#include "src/quant/recipe.h"

typedef enum tw_carriage {
    TW_CARRY_DATA,      /* its bytes as they are */
    TW_CARRY_CANONICAL, /* by its scheme */
    TW_CARRY_FLOATS,    /* its values in f32 */
    TW_CARRY_QUANTIZED, /* by the recipe */
} tw_carriage;

typedef struct tw_decision {
    tw_carriage carriage;
    tw_recipe recipe;
    const char *recipe_text, *rule; /* as in tw_quantize_row */
    char *reason, *to;              /* owned; reason may be NULL */
    bool short_group;
} tw_decision;

typedef struct tw_quantize_plan {
    tw_planned_tensor *tensors; /* one for each of the model's, in its order */
    tw_decision *decisions;
    int32_t count;
    uint64_t work; /* weights to quantize and bytes to copy, for the progress */
} tw_quantize_plan;

/* form: not BY_NAME.  The plan's texts point into model and options.  Errors: as
 * tw_quantize_model's INVALID and UNSUPPORTED. */
tw_status tw_quantize_plan_make(const tw_model *model, tw_form form,
                                const tw_quantize_options *options, tw_quantize_plan *out);
void tw_quantize_plan_free(tw_quantize_plan *plan);

/* Work of one tensor. */
uint64_t tw_quantize_work(const tw_quantize_plan *plan, int32_t index);

#endif
