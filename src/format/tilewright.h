/* Our own safetensors form, version 1 (docs/format.md): what writer and reader share. */
#ifndef TW_FORMAT_TILEWRIGHT_H
#define TW_FORMAT_TILEWRIGHT_H

/* Keys of __metadata__. */
#define TW_OWN_PREFIX "tilewright."
#define TW_OWN_VERSION "tilewright.version"
#define TW_OWN_TENSORS "tilewright.tensors"
#define TW_OWN_ARCHITECTURE "tilewright.architecture"
#define TW_OWN_NUMBER "1"

/* What a quantized tensor's parts are named, after its own name. */
#define TW_OWN_CODES ".codes"   /* U8 [N, bytes of a row] */
#define TW_OWN_SCALES ".scales" /* [rows, groups] */
#define TW_OWN_ZEROS ".zeros"   /* the same: U8 for z=code, else as the scales */
#define TW_OWN_LUT ".lut"       /* F32 [16] */
#define TW_OWN_ORDER ".order"   /* I32 [K] */

#endif
