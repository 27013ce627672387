/* The rows, by where one meets them. */
#include "tools/schemes.h"

#include "src/base/base.h"

static const named_scheme rows[] = {
    {"q4_0", "w=i4,g=32,s=f16,z=none,a=i8g32,fpmath=bf16", "GGUF Q4_0"},
    {"q4_1", "w=u4,g=32,s=f16,z=value,a=i8g32,fpmath=bf16", "GGUF Q4_1"},
    {"q5_0", "w=i5,g=32,s=f16,z=none,a=i8g32,fpmath=bf16", "GGUF Q5_0"},
    {"q5_1", "w=u5,g=32,s=f16,z=value,a=i8g32,fpmath=bf16", "GGUF Q5_1"},
    {"q8_0", "w=i8,g=32,s=f16,z=none,a=i8g32,fpmath=bf16", "GGUF Q8_0"},
    {"q2_k", "w=u2,g=16,s=f16i8,z=value,a=i8g256,fpmath=bf16", "GGUF Q2_K"},
    {"q3_k", "w=i3,g=16,s=f16i8,z=none,a=i8g256,fpmath=bf16", "GGUF Q3_K"},
    {"q4_k", "w=u4,g=32,s=f16i8,z=value,a=i8g256,fpmath=bf16", "GGUF Q4_K"},
    {"q5_k", "w=u5,g=32,s=f16i8,z=value,a=i8g256,fpmath=bf16", "GGUF Q5_K"},
    {"q6_k", "w=i6,g=16,s=f16i8,z=none,a=i8g256,fpmath=bf16", "GGUF Q6_K"},
    {"tq1_0", "w=i2,g=256,s=f16,z=none,a=i8g256,fpmath=bf16", "GGUF TQ1_0: -1, 0, 1"},
    {"tq2_0", "w=u2,g=256,s=f16,z=code,a=i8g256,fpmath=bf16", "GGUF TQ2_0"},
    {"mxfp4", "w=lut4,g=32,s=bf16,z=none,a=none,fpmath=bf16", "GGUF MXFP4"},
    {"nvfp4", "w=lut4,g=16,s=bf16,z=none,a=none,fpmath=bf16", "GGUF NVFP4"},
    {"iq4_nl", "w=lut4,g=32,s=f16,z=none,a=none,fpmath=bf16", "GGUF IQ4_NL"},
    {"iq4_xs", "w=lut4,g=32,s=f16i8,z=none,a=none,fpmath=bf16", "GGUF IQ4_XS"},
    {"iq2_xs", "w=lut4,g=16,s=f32,z=none,a=none,fpmath=bf16", "GGUF IQ2_XS, IQ2_S, IQ1_M"},
    {"iq3_s", "w=lut4,g=32,s=f32,z=none,a=none,fpmath=bf16", "GGUF IQ3_S, IQ3_XXS, IQ2_XXS, IQ1_S"},
    {"gptq", "w=u4,g=128,s=f16,z=code,a=none", "GPTQ and AWQ checkpoints, W4A16"},
    {"hqq", "w=u4,g=64,s=bf16,z=value,a=none", "HQQ, zeros as values"},
    {"w4a8", "w=i4,g=128,s=f16,z=none,a=i8", "4-bit weights, per-token 8-bit activations"},
    {"w8a8", "w=i8,g=channel,s=f32,z=none,a=i8", "SmoothQuant's: per channel, per token"},
    {"w8a16", "w=i8,g=channel,s=f32,z=none,a=none", "8-bit weights alone"},
    {"f32", "w=f32", "plain weights"},
    {"f16", "w=f16", "plain weights"},
    {"bf16", "w=bf16", "plain weights"},
};

const named_scheme *named_scheme_row(int i) {
    return i >= 0 && (size_t)i < TW_COUNT(rows) ? &rows[i] : NULL;
}
