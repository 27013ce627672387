/* The matrix unit's registers (AMX): up to 16 rows of 64 bytes, of shapes that a table gives. */
#ifndef TW_CODEGEN_CPU_TILES_H
#define TW_CODEGEN_CPU_TILES_H

#include "codegen/cpu/ir.h"

enum { TW_TILES = 8, TW_TILE_ROWS = 16, TW_TILE_BYTES = 64 };

typedef struct tw_tile_shape {
    uint8_t rows, bytes; /* bytes of a row: a multiple of 4 */
} tw_tile_shape;

/* Gives the registers these shapes, and forgets what is in them; the result is how the unit was
 * configured before, for tw_tiles_end.  A host may have done so once for all (ggml does), and the
 * empty table that it has otherwise gives the unit back, without which a thread costs more to
 * switch. */
tw_val tw_tiles_begin(tw_ir *g, const tw_tile_shape shapes[TW_TILES]);
void tw_tiles_end(tw_ir *g, tw_val before);

#endif
