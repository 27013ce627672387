/* Steps of attention by the matrix unit (AMX); included by attention_kernel.c after
 * attention_bf16.h, whose weights they share.
 *
 * Queries are rounded as well, as x and weights of products are where the unit multiplies those.  A
 * key is the sum of two, high and low, which hold the 11 bits of f16 and more: models with biases
 * have numbers in their keys that are large and much the same in all, whose rounding would be what
 * tells keys apart.
 *
 * The unit's first factor has consecutive k in rows, its second pairs of k of each column side by
 * side.  Both are made in the place of the f32 that they are of when those are new. */
#define AMX_TARGET                                                                                 \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c,amx-tile,amx-bf16")))

/* Compilers see the tiles' instructions, but not the memory that they read and write. */
#define AMX_MEMORY() __asm__ volatile("" ::: "memory")

enum { AMX_ROWS = 16, AMX_K = 32 };

/* Rows k of TWG_QUERIES numbers, an even count: two rows make a row of pairs.  The same memory. */
AMX_TARGET static void amx_pair_rows(float *rows, int64_t count) {
    float *to = rows;
    for (int64_t k = 0; k < count; k += 2, rows += (ptrdiff_t)2 * TWG_QUERIES, to += TWG_QUERIES)
        for (int i = 0; i < TWG_QUERIES; i += 16)
            _mm512_storeu_si512(to + i, bf16_pair(_mm512_loadu_ps(rows + i),
                                                  _mm512_loadu_ps(rows + TWG_QUERIES + i)));
}

/* Rows of `length` numbers, a multiple of 32: all high ones, then all low ones. */
AMX_TARGET static void amx_split_rows(float *rows, int64_t count, int64_t length) {
    uint32_t low[TWG_MOST_HEAD / 2];
    for (int64_t row = 0; row < count; row++, rows += length) {
        uint32_t *high = (uint32_t *)(void *)rows;
        for (int64_t d = 0; d < length; d += 32) {
            __m512 a = _mm512_loadu_ps(rows + d), b = _mm512_loadu_ps(rows + d + 16);
            /* The conversion's order: its second operand first. */
            __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
            a -= (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16);
            b -= (__m512)_mm512_slli_epi32(
                _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16);
            _mm512_storeu_si512(high + d / 2, both);
            _mm512_storeu_si512(low + d / 2, (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
        memcpy(high + length / 2, low, (size_t)length / 2 * sizeof *low);
    }
}

/* 16 x 16 dwords: rows of `from` become columns of `to`, strides in dwords. */
AMX_TARGET static void amx_transpose(const uint32_t *from, int64_t from_step, uint32_t *to,
                                     int64_t to_step) {
    __m512i r[16], s[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_si512(from + i * from_step);
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        s[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        s[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        s[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        s[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * to_step, r[i]);
}

/* Of values [TWG_KEYS][dv] the transpose [dv][TWG_KEYS], in the first halves of rows. */
AMX_TARGET static void amx_turn_values(const float *v, int64_t dv, uint32_t *to) {
    enum { PAIRS = TWG_KEYS / 2 };
    uint32_t pairs[PAIRS][16];
    for (int64_t d = 0; d < dv; d += 16) {
        for (int64_t j = 0; j < PAIRS; j++) {
            const float *even = v + 2 * j * dv + d;
            _mm512_storeu_si512(pairs[j],
                                bf16_pair(_mm512_loadu_ps(even), _mm512_loadu_ps(even + dv)));
        }
        for (int64_t j = 0; j < PAIRS; j += 16)
            amx_transpose(pairs[j], 16, to + d * TWG_KEYS + j, TWG_KEYS);
    }
}

/* Adds a b to tiles 0 to 3, for AMX_K of k: a's 2 AMX_ROWS rows, and b's two blocks of columns,
 * which are in tiles 6 and 7 already. */
#define AMX_ADD(a, a_step)                                                                         \
    do {                                                                                           \
        _tile_loadd(4, a, a_step);                                                                 \
        _tile_loadd(5, (a) + AMX_ROWS * (a_step), a_step);                                         \
        _tile_dpbf16ps(0, 4, 6);                                                                   \
        _tile_dpbf16ps(1, 4, 7);                                                                   \
        _tile_dpbf16ps(2, 5, 6);                                                                   \
        _tile_dpbf16ps(3, 5, 7);                                                                   \
    } while (0)

/* c [rows][TWG_QUERIES] = c, or 0, + a b.
 *   a  rows of `length` high numbers, of which `depth` are multiplied, then, if split, as many low
 *      ones, whose products are added; else of nothing
 *   b  [depth / 2] rows of pairs */
AMX_TARGET static inline __attribute__((always_inline)) void
amx_multiply(int64_t rows, int64_t depth, const float *a, int64_t length, bool split,
             const float *b, bool adds, float *c) {
    const int64_t line = TWG_QUERIES * (int64_t)sizeof(float), a_step = length * 4;
    for (int64_t row = 0; row < rows; row += 2L * AMX_ROWS)
        for (int64_t q = 0; q < TWG_QUERIES; q += 2L * AMX_ROWS) {
            const char *from = (const char *)(a + row * length), *across = (const char *)(b + q);
            float *to = c + row * TWG_QUERIES + q, *below = to + (ptrdiff_t)AMX_ROWS * TWG_QUERIES;
            if (adds) {
                _tile_loadd(0, to, line);
                _tile_loadd(1, to + AMX_ROWS, line);
                _tile_loadd(2, below, line);
                _tile_loadd(3, below + AMX_ROWS, line);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (int64_t d = 0; d < depth;
                 d += AMX_K, from += AMX_K * 2L, across += AMX_K / 2 * line) {
                _tile_loadd(6, across, line);
                _tile_loadd(7, across + AMX_ROWS * 4L, line);
                if (split) AMX_ADD(from + length * 2, a_step);
                AMX_ADD(from, a_step);
            }
            _tile_stored(0, to, line);
            _tile_stored(1, to + AMX_ROWS, line);
            _tile_stored(2, below, line);
            _tile_stored(3, below + AMX_ROWS, line);
        }
}

/* The unit's shapes: 16 rows of 64 bytes. */
static const uint8_t amx_shapes[64] = {
    [0] = 1,   [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64,
    [26] = 64, [28] = 64, [30] = 64, [48] = 16, [49] = 16, [50] = 16,
    [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};

AMX_TARGET static void amx_queries(const twg_attention_tile *t) { amx_pair_rows(t->q, t->dk); }

AMX_TARGET static void amx_keys(const twg_attention_tile *t) {
    /* What is behind the last key is multiplied by 0, so that it must be a number. */
    memset(t->k + t->keys * t->dk, 0, (size_t)((TWG_KEYS - t->keys) * t->dk) * sizeof(float));
    memset(t->v + t->keys * t->dv, 0, (size_t)((TWG_KEYS - t->keys) * t->dv) * sizeof(float));
    amx_split_rows(t->k, TWG_KEYS, t->dk);
    amx_turn_values(t->v, t->dv, (uint32_t *)(void *)t->turned);
}

AMX_TARGET static void amx_step(const twg_attention_tile *t) {
    float factor[TWG_QUERIES];
    /* ggml configures the unit once a thread, for all times.  A thread that it has not been on yet
     * keeps these shapes, which other steps want as well. */
    uint8_t host[64] __attribute__((aligned(64)));
    int64_t keys = (t->keys + AMX_K - 1) / AMX_K * AMX_K;
    AMX_MEMORY();
    _tile_storeconfig(host);
    AMX_MEMORY();
    bool other = memcmp(host, amx_shapes, sizeof host) != 0;
    if (other) _tile_loadconfig(amx_shapes);
    amx_multiply(keys, t->dk, t->k, t->dk, true, t->q, false, t->scores);
    AMX_MEMORY();
    bool rescales = bf16_largest(t, factor);
    bf16_weigh(t);
    memset(t->scores + (t->keys + 1) / 2 * TWG_QUERIES, 0,
           (size_t)((keys - t->keys) / 2 * TWG_QUERIES) * sizeof(float));
    for (int64_t i = 0; rescales && i < t->dv * TWG_QUERIES; i += 16)
        _mm512_storeu_ps(t->out + i,
                         _mm512_loadu_ps(t->out + i) * _mm512_loadu_ps(factor + i % TWG_QUERIES));
    AMX_MEMORY();
    amx_multiply(t->dv, keys, t->turned, TWG_KEYS, false, t->scores, true, t->out);
    AMX_MEMORY();
    if (other && host[0]) _tile_loadconfig(host);
    AMX_MEMORY();
}
