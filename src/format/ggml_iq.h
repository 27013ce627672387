/* ggml's types whose codes are indices of a table: MXFP4, NVFP4, IQ4_NL, IQ4_XS, and the i-quants,
 * whose grids have so few values that a value and its sign are one code of four bits. */
#ifndef TW_FORMAT_GGML_IQ_H
#define TW_FORMAT_GGML_IQ_H

#include "src/format/model_impl.h"

/* Rows of eight values, two bits each (0x08, 0x19, 0x2b; of iq1 -1, 0, 1), or of four, four bits
 * each (of iq3_xxs 4, 12, 20, 28, 36, 44, 52, 62; of iq3_s 1, 3, .. 15); lowest first. */
extern const uint16_t tw_grid_iq2_xxs[256], tw_grid_iq2_xs[512], tw_grid_iq2_s[1024],
    tw_grid_iq3_xxs[256], tw_grid_iq3_s[512], tw_grid_iq1[2048];

extern const float tw_lut_mxfp4[TW_LUT4_SIZE], tw_lut_nvfp4[TW_LUT4_SIZE], tw_lut_iq4[TW_LUT4_SIZE],
    tw_lut_iq2[TW_LUT4_SIZE], tw_lut_iq3_xxs[TW_LUT4_SIZE], tw_lut_iq3_s[TW_LUT4_SIZE],
    tw_lut_iq1[TW_LUT4_SIZE];

/* As tw_source_type's decode. */
#define TW_DECODERS(X)                                                                             \
    X(mxfp4)                                                                                       \
    X(nvfp4)                                                                                       \
    X(iq4_nl)                                                                                      \
    X(iq4_xs)                                                                                      \
    X(iq2_xxs)                                                                                     \
    X(iq2_xs)                                                                                      \
    X(iq2_s)                                                                                       \
    X(iq3_xxs)                                                                                     \
    X(iq3_s)                                                                                       \
    X(iq1_s)                                                                                       \
    X(iq1_m)
#define TW_ROW(name)                                                                               \
    void tw_decode_##name(const uint8_t *block, uint8_t *codes, void *scales, void *zeros);
TW_DECODERS(TW_ROW)
#undef TW_ROW

#endif
