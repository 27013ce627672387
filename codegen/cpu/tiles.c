/* See tiles.h.  The table that ldtilecfg reads: Intel's manual, volume 2, LDTILECFG. */
#include "codegen/cpu/tiles.h"

#include <string.h>

enum { TABLE = 64, BYTES_AT = 16, ROWS_AT = 48 };

static const tw_ty nothing = {TW_TY_VOID, 0};

tw_val tw_tiles_begin(tw_ir *g, const tw_tile_shape shapes[TW_TILES]) {
    uint8_t table[TABLE] = {1};
    for (int i = 0; i < TW_TILES; i++) {
        table[BYTES_AT + 2 * i] = shapes[i].bytes;
        table[ROWS_AT + i] = shapes[i].rows;
    }
    tw_val config = tw_local(g, tw_i8(TABLE));
    for (size_t at = 0; at < TABLE; at += 8) {
        int64_t eight;
        memcpy(&eight, table + at, 8);
        tw_store(g, tw_const_int(g, tw_i64(), eight), tw_at(g, config, (int64_t)at), 8);
    }
    tw_val before = tw_local(g, tw_i8(TABLE));
    tw_intrinsic(g, "llvm.x86.sttilecfg", nothing, &before, 1);
    tw_intrinsic(g, "llvm.x86.ldtilecfg", nothing, &config, 1);
    return before;
}

void tw_tiles_end(tw_ir *g, tw_val before) {
    tw_intrinsic(g, "llvm.x86.ldtilecfg", nothing, &before, 1);
}
