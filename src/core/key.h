/* Keys: readable text, then its SHA-256, of everything that a decision or a binary depends on. */
#ifndef TW_CORE_KEY_H
#define TW_CORE_KEY_H

#include "src/base/hash.h"
#include "src/core/config.h"
#include "src/core/problem.h"
#include "src/core/target.h"

typedef struct tw_key {
    tw_str text; /* owned */
    char digest[TW_DIGEST_TEXT];
} tw_key;

/* Bump when generated code or its calling convention changes for every kernel at once. */
enum { TW_KEY_VERSION = 1 };

/* A device, as keys name it: "cpu;isa=avx2;model=AMD
 * EPYC;l1=32768;l2=524288;l3=33554432;threads=2". */
void tw_device_text(const tw_target *target, tw_str *out);
/* A decision: problem by M bucket ("M<=512,N=..."), device. */
tw_status tw_choice_key(const tw_problem *problem, int bucket, const tw_target *target,
                        tw_key *out);
/* A decision between our kernel and a registered implementation: the one above, and the name and
 * version of the implementation. */
tw_status tw_impl_key(const tw_problem *problem, int bucket, const tw_target *target,
                      const char *name, uint32_t version, tw_key *out);
/* Machine code: problem without M, kernel and its version, config, instruction set, compiler.  Of
 * the target only the instruction set: an emitter may not read the device's other facts, so that
 * code moves between machines and thread counts (what depends on them is a guess's and a config's
 * matter). */
tw_status tw_binary_key(const tw_problem *problem, const char *kernel, uint32_t version,
                        const tw_config *config, const tw_target *target, const char *compiler,
                        tw_key *out);
void tw_key_free(tw_key *key);

#endif
