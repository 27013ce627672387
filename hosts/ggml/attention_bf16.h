/* Steps of attention that round values, and what they are weighted with, to bf16: products of pairs
 * of them are added in f32, two for one of f32.  Included by attention_kernel.c behind its AVX-512
 * set, which does the rest; attention_amx.h shares the weights.
 *
 * Keys and queries stay f32.  Numbers beyond 3.39e38 bf16 rounds to infinity. */
#define BF16_TARGET                                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")))

enum { BF16_MULTIPLE = 16, BF16_VECTORS = TWG_QUERIES / 16, BF16_ROWS = 4 };

/* Two rows of 16 numbers, rounded to bf16, side by side in each lane. */
BF16_TARGET static inline __m512i bf16_pair(__m512 even, __m512 odd) {
    static const uint16_t turns[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    /* The conversion's order: its second operand first. */
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(turns), both);
}

/* 2^x, within 2^-13.5 of it; the polynomial is the best of its degree on [0, 1), with 1 at 0. */
BF16_TARGET static inline __m512 bf16_exp2(__m512 x) {
    __m512 f = _mm512_reduce_ps(x, 1 /* x - floor(x) */), p = _mm512_set1_ps(0.0770671592f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.227644861f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.695116818f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(1)), x);
}

/* Adds the mask to the scores.  Whether some are so much larger than earlier ones that all is to be
 * told from another largest one: then that is in t->most, t->sum is times factor, and t->out is to
 * be.  Else weights are up to 2^BF16_SLACK. */
BF16_TARGET static bool bf16_largest(const twg_attention_tile *t, float *factor) {
    enum { BF16_SLACK = 8 };
    __m512 most[BF16_VECTORS], sum[BF16_VECTORS];
    EACH (v, BF16_VECTORS) most[v] = _mm512_loadu_ps(t->most + 16 * v);
    EACH (v, BF16_VECTORS) sum[v] = _mm512_loadu_ps(t->sum + 16 * v);
    for (int64_t key = 0; key < t->keys; key++)
        EACH (v, BF16_VECTORS) {
            float *at = t->scores + key * TWG_QUERIES + 16 * v;
            __m512 score = _mm512_loadu_ps(at);
            sum[v] += score * 0; /* what is not finite, and that is not the mask's, is to show */
            if (t->mask) {
                score += _mm512_loadu_ps(t->mask + key * TWG_QUERIES + 16 * v);
                _mm512_storeu_ps(at, score);
            }
            most[v] = _mm512_max_ps(score, most[v]); /* the second, if one is NaN */
        }
    EACH (v, BF16_VECTORS) _mm512_storeu_ps(t->sum + 16 * v, sum[v]);
    __mmask16 grows = 0;
    EACH (v, BF16_VECTORS)
        grows |=
            _mm512_cmp_ps_mask(most[v], _mm512_loadu_ps(t->most + 16 * v) + BF16_SLACK, _CMP_GT_OQ);
    if (!grows) return false;
    EACH (v, BF16_VECTORS) {
        __m512 rest = bf16_exp2(_mm512_loadu_ps(t->most + 16 * v) - most[v]);
        _mm512_storeu_ps(factor + 16 * v, rest);
        _mm512_storeu_ps(t->most + 16 * v, most[v]);
        _mm512_storeu_ps(t->sum + 16 * v, _mm512_loadu_ps(t->sum + 16 * v) * rest);
    }
    return true;
}

/* Scores become rows of pairs of 2^(score - largest); behind the last key, to an even count, 0. */
BF16_TARGET static void bf16_weigh(const twg_attention_tile *t) {
    __m512 most[BF16_VECTORS], sum[BF16_VECTORS];
    float *to = t->scores;
    EACH (v, BF16_VECTORS) most[v] = _mm512_loadu_ps(t->most + 16 * v);
    EACH (v, BF16_VECTORS) sum[v] = _mm512_loadu_ps(t->sum + 16 * v);
    if (t->keys % 2)
        for (int64_t q = 0; q < TWG_QUERIES; q++) to[t->keys * TWG_QUERIES + q] = -INFINITY;
    for (int64_t key = 0; key < t->keys; key += 2, to += TWG_QUERIES)
        EACH (v, BF16_VECTORS) {
            const float *at = t->scores + key * TWG_QUERIES + 16 * v;
            __m512 even = bf16_exp2(_mm512_loadu_ps(at) - most[v]),
                   odd = bf16_exp2(_mm512_loadu_ps(at + TWG_QUERIES) - most[v]);
            sum[v] += even + odd;
            _mm512_storeu_si512(to + 16 * v, bf16_pair(even, odd));
        }
    EACH (v, BF16_VECTORS) _mm512_storeu_ps(t->sum + 16 * v, sum[v]);
}

/* Of values [TWG_KEYS][dv] pairs of a number of two keys, [TWG_KEYS / 2][dv]. */
BF16_TARGET static void bf16_keys(const twg_attention_tile *t) {
    const float *v = t->v;
    uint32_t *to = (uint32_t *)(void *)t->turned;
    /* What is behind the last key is multiplied by 0, so that it must be a number. */
    memset(t->v + t->keys * t->dv, 0, (size_t)(t->keys % 2 * t->dv) * sizeof(float));
    for (int64_t key = 0; key < t->keys; key += 2, v += 2 * t->dv, to += t->dv)
        for (int64_t d = 0; d < t->dv; d += 16)
            _mm512_storeu_si512(to + d,
                                bf16_pair(_mm512_loadu_ps(v + d), _mm512_loadu_ps(v + t->dv + d)));
}

/* out = out, times factor if it is given, + weighted values of `pairs` pairs of keys. */
BF16_TARGET static void bf16_add(const twg_attention_tile *t, int64_t pairs, const float *factor) {
    for (int64_t d = 0; d < t->dv; d += BF16_ROWS) {
        __m512 sum[BF16_ROWS][BF16_VECTORS];
        float *to = t->out + d * TWG_QUERIES;
        const uint32_t *from = (const uint32_t *)(const void *)t->turned + d;
        EACH (r, BF16_ROWS)
            EACH (v, BF16_VECTORS) sum[r][v] = _mm512_loadu_ps(to + r * TWG_QUERIES + 16 * v);
        if (factor)
            EACH (r, BF16_ROWS)
                EACH (v, BF16_VECTORS) sum[r][v] *= _mm512_loadu_ps(factor + 16 * v);
        for (int64_t pair = 0; pair < pairs; pair++, from += t->dv) {
            __m512bh weights[BF16_VECTORS];
            EACH (v, BF16_VECTORS)
                weights[v] = (__m512bh)_mm512_loadu_si512(t->scores + pair * TWG_QUERIES + 16 * v);
            EACH (r, BF16_ROWS) {
                __m512bh values = (__m512bh)_mm512_set1_epi32((int)from[r]);
                EACH (v, BF16_VECTORS) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], weights[v], values);
            }
        }
        EACH (r, BF16_ROWS)
            EACH (v, BF16_VECTORS) _mm512_storeu_ps(to + r * TWG_QUERIES + 16 * v, sum[r][v]);
    }
}

BF16_TARGET static void bf16_step(const twg_attention_tile *t) {
    float factor[TWG_QUERIES];
    int64_t rows = (t->keys + avx512_ROWS - 1) / avx512_ROWS * avx512_ROWS;
    avx512_gemm(rows, t->dk, t->k, t->dk, 1, t->q, NULL, t->scores);
    bool rescales = bf16_largest(t, factor);
    bf16_weigh(t);
    bf16_add(t, (t->keys + 1) / 2, rescales ? factor : NULL);
}
