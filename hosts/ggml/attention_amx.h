/* Steps of attention by the matrix unit (AMX); included by attention_kernel.c behind its AVX-512
 * set, whose softmax they share.
 *
 * The unit multiplies bf16 and adds in f32.  Each number is split in two of bf16, high and low,
 * which hold 16 of its bits, and three of their four products are taken:
 *
 *   a b = a.low b.high + a.high b.high + a.high b.low     within 2^-16 of a b or so
 *
 * Numbers beyond 3.39e38, which bf16 rounds to infinity, give NaN, as infinities do.
 *
 * Its first factor has consecutive k in rows, its second pairs of k of each column side by side.
 * Both are made in the place of the f32 that they are of, each half of it, when those are new. */
#define AMX_TARGET                                                                                 \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c,amx-tile,amx-bf16")))

/* Compilers see the tiles' instructions, but not the memory that they read and write. */
#define AMX_MEMORY() __asm__ volatile("" ::: "memory")

enum { AMX_ROWS = 16, AMX_K = 32 };

/* A number of each lane, rounded to bf16 twice: high, and what is left. */
typedef struct amx_split {
    __m512 high, low;
} amx_split;

AMX_TARGET static inline __m512 amx_rounded(__m512 v) {
    __m256i half = (__m256i)_mm512_cvtneps_pbh(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

AMX_TARGET static inline amx_split amx_split_of(const float *at) {
    __m512 v = _mm512_loadu_ps(at), high = amx_rounded(v);
    return (amx_split){high, amx_rounded(_mm512_sub_ps(v, high))};
}

/* Of numbers that bf16 holds: those of a and b side by side in each lane. */
AMX_TARGET static inline __m512i amx_pair(__m512 a, __m512 b) {
    return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a), 16), _mm512_castps_si512(b));
}

/* Rows k of TWG_QUERIES numbers, an even count: two rows make a row of pairs, all high ones and
 * then all low ones.  The same memory. */
AMX_TARGET static void amx_pair_rows(float *rows, int64_t count) {
    for (int64_t k = 0; k < count; k += 2, rows += (ptrdiff_t)2 * TWG_QUERIES) {
        __m512i high[TWG_QUERIES / 16], low[TWG_QUERIES / 16];
        for (int i = 0; i < TWG_QUERIES / 16; i++) {
            amx_split even = amx_split_of(rows + 16 * i),
                      odd = amx_split_of(rows + TWG_QUERIES + 16 * i);
            high[i] = amx_pair(even.high, odd.high);
            low[i] = amx_pair(even.low, odd.low);
        }
        for (int i = 0; i < TWG_QUERIES / 16; i++) {
            _mm512_storeu_si512(rows + 16 * i, high[i]);
            _mm512_storeu_si512(rows + TWG_QUERIES + 16 * i, low[i]);
        }
    }
}

/* Rows of `length` numbers, a multiple of 32: all high ones, then all low ones. */
AMX_TARGET static void amx_split_rows(float *rows, int64_t count, int64_t length) {
    uint32_t low[TWG_MOST_HEAD / 2];
    for (int64_t row = 0; row < count; row++, rows += length) {
        uint32_t *high = (uint32_t *)(void *)rows;
        for (int64_t d = 0; d < length; d += 32) {
            /* The conversion's order: its second operand first. */
            amx_split a = amx_split_of(rows + d), b = amx_split_of(rows + d + 16);
            _mm512_storeu_si512(high + d / 2, (__m512i)_mm512_cvtne2ps_pbh(b.high, a.high));
            _mm512_storeu_si512(low + d / 2, (__m512i)_mm512_cvtne2ps_pbh(b.low, a.low));
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

/* Of values [TWG_KEYS][dv] the transpose [dv][TWG_KEYS], each row all high ones and then all low
 * ones. */
AMX_TARGET static void amx_turn_values(const float *v, int64_t dv, uint32_t *to) {
    enum { PAIRS = TWG_KEYS / 2 };
    uint32_t high[PAIRS][16], low[PAIRS][16];
    for (int64_t d = 0; d < dv; d += 16) {
        for (int64_t j = 0; j < PAIRS; j++) {
            amx_split even = amx_split_of(v + 2 * j * dv + d),
                      odd = amx_split_of(v + (2 * j + 1) * dv + d);
            _mm512_storeu_si512(high[j], amx_pair(even.high, odd.high));
            _mm512_storeu_si512(low[j], amx_pair(even.low, odd.low));
        }
        for (int64_t j = 0; j < PAIRS; j += 16) {
            uint32_t *at = to + d * TWG_KEYS + j;
            amx_transpose(high[j], 16, at, TWG_KEYS);
            amx_transpose(low[j], 16, at + PAIRS, TWG_KEYS);
        }
    }
}

/* c [rows][TWG_QUERIES] = c, or 0, + a b.
 *   a  rows of `length` high numbers, then as many low ones, of which `depth` are multiplied
 *   b  [depth / 2] rows of pairs, high ones and then low ones */
AMX_TARGET static void amx_multiply(int64_t rows, int64_t depth, const float *a, int64_t length,
                                    const float *b, bool adds, float *c) {
    const int64_t line = TWG_QUERIES * (int64_t)sizeof(float), a_step = length * 4,
                  b_step = 2 * line;
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
                 d += AMX_K, from += AMX_K * 2L, across += AMX_K / 2 * b_step) {
                _tile_loadd(4, from + length * 2, a_step);
                _tile_loadd(5, from + length * 2 + AMX_ROWS * a_step, a_step);
                _tile_loadd(6, across, b_step);
                _tile_loadd(7, across + AMX_ROWS * 4L, b_step);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
                _tile_loadd(4, from, a_step);
                _tile_loadd(5, from + AMX_ROWS * a_step, a_step);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
                _tile_loadd(6, across + line, b_step);
                _tile_loadd(7, across + line + AMX_ROWS * 4L, b_step);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
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

AMX_TARGET static void amx_queries(const twg_attention_tile *t) {
    amx_pair_rows((float *)t->q, t->dk);
}

AMX_TARGET static void amx_keys(const twg_attention_tile *t) {
    float *k = (float *)t->k, *v = (float *)t->v;
    /* What is behind the last key is multiplied by 0, so that it must be a number. */
    memset(k + t->keys * t->dk, 0, (size_t)((TWG_KEYS - t->keys) * t->dk) * sizeof(float));
    memset(v + t->keys * t->dv, 0, (size_t)((TWG_KEYS - t->keys) * t->dv) * sizeof(float));
    amx_split_rows(k, TWG_KEYS, t->dk);
    amx_turn_values(v, t->dv, (uint32_t *)(void *)t->turned);
}

AMX_TARGET static void amx_step(const twg_attention_tile *t) {
    float factor[TWG_QUERIES];
    uint8_t host[64] __attribute__((aligned(64))); /* ggml configures the unit once for all */
    int64_t keys = (t->keys + AMX_K - 1) / AMX_K * AMX_K;
    AMX_MEMORY();
    _tile_storeconfig(host);
    _tile_loadconfig(amx_shapes);
    amx_multiply(keys, t->dk, t->k, t->dk, t->q, false, t->scores);
    AMX_MEMORY();
    for (int64_t q = 0; q < TWG_QUERIES; q += avx512_BLOCK) avx512_weigh(t, q, factor);
    memset(t->scores + t->keys * TWG_QUERIES, 0,
           (size_t)((keys - t->keys) * TWG_QUERIES) * sizeof(float));
    amx_pair_rows(t->scores, keys);
    for (int64_t d = 0; d < t->dv; d++)
        for (int64_t q = 0; q < TWG_QUERIES; q += 16) {
            float *at = t->out + d * TWG_QUERIES + q;
            _mm512_storeu_ps(at, _mm512_loadu_ps(at) * _mm512_loadu_ps(factor + q));
        }
    AMX_MEMORY();
    amx_multiply(t->dv, keys, t->turned, TWG_KEYS, t->scores, true, t->out);
    AMX_MEMORY();
    _tile_loadconfig(host);
    AMX_MEMORY();
}
