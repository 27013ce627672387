/* What amx_gemm.c (the matmul) and amx_config.c (which problems and configs it takes) agree on. */
#ifndef TW_TEMPLATES_CPU_AMX_GEMM_H
#define TW_TEMPLATES_CPU_AMX_GEMM_H

#include "templates/cpu/amx_unit.h"
#include "templates/cpu/cost.h"
#include "templates/cpu/int_gemm.h"

/* What ends products. */
typedef enum tw_amx_form {
    TW_AMX_NONE,    /* not taken */
    TW_AMX_CHANNEL, /* one group along K: products stay integers until the end */
    TW_AMX_GROUPS,  /* each group's are scaled, by int_gemm's fold */
    /* Codes of scales (f16i8) are multiplied into those of the weights as they are unpacked, which
     * makes 16 bits: two planes of bytes, two products, and the factors of 256 columns of K for the
     * sum of both. */
    TW_AMX_SCALED
} tw_amx_form;

tw_amx_form tw_amx_form_of(const tw_problem *problem);

/* amx_config.c: as in templates/template.h. */
enum { TW_AMX_AXES = 7 };
extern const tw_axis tw_amx_space[TW_AMX_AXES];
const char *tw_amx_reject_problem(const tw_target *target, const tw_problem *problem);
const char *tw_amx_reject(const tw_target *target, const tw_problem *problem, const tw_config *c);
void tw_amx_guess(const tw_target *target, const tw_problem *problem, tw_config *config);
double tw_amx_cost(const tw_target *target, const tw_problem *problem, const tw_config *config);

#endif
