/* The table of instruction sets. */
#include "src/core/target.h"

#include <string.h>

const tw_isa_info tw_isas[TW_ISA_COUNT] = {
#define TW_TARGET(name, bytes, registers, dot, extras, cpu, features)                              \
    {#name, bytes, registers, TW_DOT_##dot, extras, cpu, features},
#include "src/core/target.def"
#undef TW_TARGET
};

tw_isa tw_isa_parse(const char *name) {
    int isa = 0;
    while (isa < TW_ISA_COUNT && strcmp(tw_isas[isa].name, name)) isa++;
    return (tw_isa)isa;
}
