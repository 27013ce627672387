/* What the tests of quantizing models share: a folder, a small checkpoint in it, options whose
 * callbacks remember what they saw. */
#ifndef TW_TESTS_CAPI_MODELS_H
#define TW_TESTS_CAPI_MODELS_H

#include <tilewright/model.h>

#include "src/format/model.h"
#include "src/format/safetensors_write.h"
#include "tests/capi/fixture.h"

/* In the test's own folder: models_folder, in.safetensors, out.safetensors. */
extern char models_folder[64], models_source[96], models_output[96];
int models_setup(void **state);
/* Fails when anything but what the test made is left. */
int models_teardown(void **state);
/* Files in the folder. */
int models_files(void);

/* The source: random values, or, of whole numbers, zeros. */
void models_make(const tw_safetensors_tensor *tensors, int32_t count);
enum { MODELS_SMALL = 8 };
extern const tw_safetensors_tensor models_small[MODELS_SMALL];
tw_model *models_open(const char *path);
/* A sink into the FILE that is its user. */
tw_status models_write(void *user, const void *bytes, size_t size);

enum { MODELS_ROWS = 16, MODELS_WORDS = 200 };
typedef struct seen {
    struct {
        char name[64], rule[64], recipe[64], reason[MODELS_WORDS], to[64];
        tw_quantize_outcome outcome;
        uint64_t bytes;
    } rows[MODELS_ROWS];
    int count, calls, stop_at; /* stop_at: cancels at this call of progress */
    bool stop_at_end;
    const char *filtered; /* the filter keeps this one */
} seen;

tw_quantize_options models_options(seen *s, const char *recipe);
/* For options.filter. */
int32_t models_filter(void *user, const char *tensor, int64_t N, int64_t K);
void models_expect(const seen *s, const char *name, tw_quantize_outcome outcome, const char *rule,
                   const char *reason);

#endif
