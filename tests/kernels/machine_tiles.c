/* The matrix unit: eight registers of at most 16 rows of 64 bytes, whose shapes a table gives.
 * What the processor refuses (Intel's manual, volume 2, the exceptions of class AMX-E1 to E6) is an
 * error here, and so is a register that is used before it is written. */
#include <string.h>

#include "tests/kernels/machine.h"

enum {
    TILES = 8,
    TILE_ROWS = 16,
    TILE_BYTES = 64,
    TABLE_BYTES = 64,
    COLUMNS_AT = 16,
    ROWS_AT = 48
};

static machine_tile *tile_of(machine *m, const machine_op *op, int arg) {
    uint64_t number = m->values[op->arg[arg]][0];
    if (number >= TILES || !m->tiles[number].rows) {
        machine_wrong(m, "tile %d has no shape", (int)number);
        return NULL;
    }
    return &m->tiles[number];
}

static const uint8_t hosts_table[TABLE_BYTES] = {1, [COLUMNS_AT] = 32, [ROWS_AT] = 3};

static void configure(machine *m, const uint8_t *table) {
    bool legal = table[0] == 1;
    for (int i = 1; i < TABLE_BYTES; i++) {
        bool columns = i >= COLUMNS_AT && i < COLUMNS_AT + 2 * TILES;
        legal &= columns || (i >= ROWS_AT && i < ROWS_AT + TILES) || !table[i];
    }
    memset(m->tiles, 0, sizeof m->tiles);
    for (int i = 0; i < TILES; i++) {
        machine_tile *t = &m->tiles[i];
        uint16_t columns;
        memcpy(&columns, table + COLUMNS_AT + 2L * i, sizeof columns);
        t->columns = columns;
        t->rows = table[ROWS_AT + i];
        legal &= t->columns <= TILE_BYTES && t->rows >= 0 && t->rows <= TILE_ROWS &&
                 !t->rows == !t->columns;
    }
    memcpy(m->tile_table, table, TABLE_BYTES);
    if (!legal) machine_wrong(m, "ldtilecfg's table is not legal");
}

void machine_tiles_begin(machine *m) { configure(m, hosts_table); }

void machine_tiles_end(machine *m) {
    if (memcmp(m->tile_table, hosts_table, TABLE_BYTES) != 0)
        machine_wrong(m, "the host's configuration of the matrix unit is lost");
}

static void move(machine *m, machine_tile *t, uint64_t at, uint64_t stride, bool store) {
    if (store && !t->written) machine_wrong(m, "tilestored of a tile that nobody wrote");
    for (int row = 0; row < t->rows && !m->error[0]; row++) {
        uintptr_t address = (uintptr_t)(at + (uint64_t)row * stride);
        if (!machine_may_access(m, address, (size_t)t->columns, 1, store)) return;
        char *memory = (char *)address;
        if (store) memcpy(memory, t->bytes[row], (size_t)t->columns);
        if (!store) memset(t->bytes[row], 0, TILE_BYTES);
        if (!store) memcpy(t->bytes[row], memory, (size_t)t->columns);
    }
    t->written = true;
}

static void check_dot(machine *m, const machine_tile *c, const machine_tile *a,
                      const machine_tile *b) {
    if (!c->written || !a->written || !b->written)
        machine_wrong(m, "a dot product of a tile that nobody wrote");
    if (a->columns != 4 * b->rows || c->columns != b->columns || c->rows != a->rows)
        machine_wrong(m, "a dot product of tiles whose shapes differ");
}

/* c[m][n] += four bytes of a[m] times four of b, whose row k has those of all n. */
static void dot(machine *m, machine_tile *c, const machine_tile *a, const machine_tile *b,
                bool b_signed) {
    check_dot(m, c, a, b);
    for (int i = 0; i < c->rows; i++)
        for (int n = 0; n < c->columns / 4; n++) {
            uint32_t sum;
            memcpy(&sum, &c->bytes[i][4L * n], 4);
            for (int k = 0; k < a->columns; k++) {
                uint8_t w = b->bytes[k / 4][4 * n + k % 4];
                int product = (int8_t)a->bytes[i][k] * (b_signed ? (int8_t)w : (int)w);
                sum += (uint32_t)product;
            }
            memcpy(&c->bytes[i][4L * n], &sum, 4);
        }
}

/* c[m][n] += pairs of bf16 of a[m] times those of b: one sum of the first of each pair and one of
 * the second, both then added. */
static void dot_pairs(machine *m, machine_tile *c, const machine_tile *a, const machine_tile *b) {
    check_dot(m, c, a, b);
    for (int i = 0; i < c->rows; i++)
        for (int n = 0; n < c->columns / 4; n++) {
            float sums[2] = {0, 0}, total;
            for (int k = 0; k < a->columns / 2; k++) {
                uint32_t x = 0, w = 0;
                float fx, fw;
                memcpy((char *)&x + 2, &a->bytes[i][2L * k], 2);
                memcpy((char *)&w + 2, &b->bytes[k / 2][4L * n + k % 2 * 2L], 2);
                memcpy(&fx, &x, 4);
                memcpy(&fw, &w, 4);
                float sum = sums[k % 2] + machine_flushed(fx) * machine_flushed(fw);
                sums[k % 2] = machine_flushed(sum);
            }
            memcpy(&total, &c->bytes[i][4L * n], 4);
            total = machine_flushed(machine_flushed(total) + machine_flushed(sums[0] + sums[1]));
            memcpy(&c->bytes[i][4L * n], &total, 4);
        }
}

bool machine_tiles(machine *m, const machine_op *op) {
    const char *name = op->name + strlen("llvm.x86.");
    if (!strcmp(name, "ldtilecfg")) {
        uintptr_t at = (uintptr_t)m->values[op->arg[0]][0];
        if (machine_may_access(m, at, TABLE_BYTES, 1, false)) configure(m, (const uint8_t *)at);
        return true;
    }
    if (!strcmp(name, "sttilecfg")) {
        uintptr_t at = (uintptr_t)m->values[op->arg[0]][0];
        if (machine_may_access(m, at, TABLE_BYTES, 1, true))
            memcpy((void *)at, m->tile_table, TABLE_BYTES);
        return true;
    }
    bool load = !strcmp(name, "tileloadd64") || !strcmp(name, "tileloaddt164"),
         store = !strcmp(name, "tilestored64");
    bool unsigned_w = !strcmp(name, "tdpbsud"), signed_w = !strcmp(name, "tdpbssd");
    bool zero = !strcmp(name, "tilezero"), pairs = !strcmp(name, "tdpbf16ps");
    if (!load && !store && !unsigned_w && !signed_w && !zero && !pairs) return false;
    machine_tile *t = tile_of(m, op, 0);
    if (!t) return true;
    if (zero) {
        memset(t->bytes, 0, sizeof t->bytes);
        t->written = true;
    } else if (load || store) {
        move(m, t, m->values[op->arg[1]][0], m->values[op->arg[2]][0], store);
    } else {
        const machine_tile *a = tile_of(m, op, 1), *b = tile_of(m, op, 2);
        if (a && b && pairs) dot_pairs(m, t, a, b);
        if (a && b && !pairs) dot(m, t, a, b, signed_w);
    }
    return true;
}
