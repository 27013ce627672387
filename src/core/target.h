/* A target: the instruction set that CPU kernels are generated for, and the facts that decide
 * tiles. */
#ifndef TW_CORE_TARGET_H
#define TW_CORE_TARGET_H

#include <string.h>

#include "src/base/base.h"

typedef enum tw_isa {
#define TW_TARGET(name, bytes, registers, dot, extras, cpu, features) TW_ISA_##name,
#include "src/core/target.def"
#undef TW_TARGET
    TW_ISA_COUNT
} tw_isa;

/* How four u8 x i8 products reach an i32 lane. */
typedef enum tw_dot { TW_DOT_GENERIC, TW_DOT_MADDUBS, TW_DOT_DPBUSD } tw_dot;

/* Instructions beside those: a dot product of bf16 pairs; a bit matrix for every byte; a matrix
 * unit for bytes. */
enum { TW_EXTRA_BF16 = 1, TW_EXTRA_GFNI = 2, TW_EXTRA_AMX = 4 };

typedef struct tw_isa_info {
    const char *name;
    int vector_bytes, vector_registers;
    tw_dot dot;
    unsigned extras;
    const char *llvm_cpu, *llvm_features;
} tw_isa_info;

extern const tw_isa_info tw_isas[TW_ISA_COUNT];
/* TW_ISA_COUNT for a name that is none. */
tw_isa tw_isa_parse(const char *name);

/* What a template may know of the device.  Everything a decision depends on is in here, and so in
 * keys. */
typedef struct tw_target {
    tw_isa isa;
    char model[64];
    int64_t l1_bytes, l2_bytes, l3_bytes; /* 0 where unknown */
    int32_t threads;
} tw_target;

static inline const tw_isa_info *tw_target_isa(const tw_target *t) { return &tw_isas[t->isa]; }
static inline bool tw_target_has(const tw_target *t, unsigned extra) {
    return (tw_isas[t->isa].extras & extra) != 0;
}
/* Of whose cores the model is: they differ in ports and in what they prefetch by themselves. */
static inline bool tw_target_is_intel(const tw_target *t) { return !strncmp(t->model, "Intel", 5); }
static inline bool tw_target_is_amd(const tw_target *t) { return !strncmp(t->model, "AMD", 3); }
/* f32 lanes of one vector. */
static inline int tw_target_lanes(const tw_target *t) { return tw_isas[t->isa].vector_bytes / 4; }

#endif
