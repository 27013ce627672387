/* One set of attention_kernel.c; included once for each.
 *
 * SET(name)       the name of this set's function
 * SET_TARGET      its attributes
 * SET_WIDTH       floats in a vector
 * SET_VECTORS     vectors side by side that four rows of sums fit registers with
 * SET_MAX, SET_MIN  of two vectors
 * SET_SUM, SET_MOST  of a vector's numbers
 * SET_HALVES(at), SET_PUT_HALVES(at, v)  a vector of f16 in memory
 *
 * and of each four floats, in vectors that consist of such:
 * SET_LOW, SET_HIGH  the first two, or the last two, of a and of b in turns
 * SET_LOW_PAIRS, SET_HIGH_PAIRS  the first two, or the last two, of a, then of b
 * SET_FOURS(at), SET_PUT_FOURS(at, v)  in memory, four number i at at(i) */

#define FLOATS SET(floats)
#define INTS SET(ints)
#define PAIRS SET(pairs) /* of 16 bits each, wherever they lie */
typedef float FLOATS __attribute__((vector_size(SET_WIDTH * 4), aligned(4), may_alias));
typedef int32_t INTS __attribute__((vector_size(SET_WIDTH * 4), aligned(4), may_alias));
typedef int32_t PAIRS __attribute__((vector_size(SET_WIDTH * 4), aligned(2), may_alias));

enum { SET(BLOCK) = SET_VECTORS * SET_WIDTH, SET(ROWS) = 4 };

SET_TARGET static inline FLOATS SET(get)(const float *at) { return *(const FLOATS *)at; }
SET_TARGET static inline void SET(put)(float *at, FLOATS v) { *(FLOATS *)at = v; }

/* 2^x for x of [-126, 128], within 2^-21 of it; infinity for 128.  The polynomial is the best of
 * its degree for the relative error on [-1/2, 1/2], with 1 at 0. */
SET_TARGET static inline FLOATS SET(power)(FLOATS x) {
    const FLOATS zero = {0}, magic = zero + 0x1.8p23f;
    FLOATS whole = x + magic, f = x - (whole - magic), p = f * 0.00132647273f + 0.00967151299f;
    p = p * f + 0.0555073358f;
    p = p * f + 0.240222424f;
    p = p * f + 0.693147004f;
    return (FLOATS)((INTS)(p * f + 1) + ((INTS)whole << 23));
}

/* 2^x for x up to 0; 0 for x of -126 and below. */
SET_TARGET static inline FLOATS SET(exp2)(FLOATS x) {
    const FLOATS zero = {0}, least = zero - 126;
    INTS there = x > least;
    return (FLOATS)((INTS)SET(power)(SET_MAX(x, least)) & there);
}

/* Of a up to -88 e^-a is infinity, or nearly. */
SET_TARGET static void SET(swiglu)(const float *a, const float *b, int64_t count, float *y) {
    const FLOATS zero = {0};
    for (int64_t i = 0; i < count; i += SET_WIDTH) {
        FLOATS from = SET(get)(a + i), x = from * -1.44269504f,
               power = SET(power)(SET_MIN(SET_MAX(x, zero - 126), zero + 128));
        SET(put)(y + i, from / (1 + power) * SET(get)(b + i));
    }
}

/* c [rows][TWG_QUERIES] = c * factor [TWG_QUERIES], or 0 without one,
 *   + sum over depth of a[row * row_step + d * depth_step] * b [depth][TWG_QUERIES] */
SET_TARGET static void SET(gemm)(int64_t rows, int64_t depth, const float *a, int64_t row_step,
                                 int64_t depth_step, const float *b, const float *factor,
                                 float *c) {
    for (int64_t row = 0; row < rows; row += SET(ROWS))
        for (int64_t q = 0; q < TWG_QUERIES; q += SET(BLOCK)) {
            FLOATS sum[SET(ROWS)][SET_VECTORS] = {0};
            float *to = c + row * TWG_QUERIES + q;
            if (factor)
                EACH (r, SET(ROWS))
                    EACH (v, SET_VECTORS)
                        sum[r][v] = SET(get)(to + r * TWG_QUERIES + v * SET_WIDTH) *
                                    SET(get)(factor + q + v * SET_WIDTH);
            const float *from = a + row * row_step, *line = b + q;
            for (int64_t d = 0; d < depth; d++, from += depth_step, line += TWG_QUERIES) {
                FLOATS across[SET_VECTORS];
                EACH (v, SET_VECTORS) across[v] = SET(get)(line + v * SET_WIDTH);
                EACH (r, SET(ROWS))
                    EACH (v, SET_VECTORS) sum[r][v] += from[r * row_step] * across[v];
            }
            EACH (r, SET(ROWS))
                EACH (v, SET_VECTORS) SET(put)(to + r * TWG_QUERIES + v * SET_WIDTH, sum[r][v]);
        }
}

/* Scores of SET(BLOCK) queries from q on become 2^(score - largest); factor: of what came of
 * earlier keys. */
SET_TARGET static void SET(weigh)(const twg_attention_tile *t, int64_t q, float *factor) {
    FLOATS most[SET_VECTORS], sum[SET_VECTORS], wrong[SET_VECTORS] = {0};
    EACH (v, SET_VECTORS) most[v] = SET(get)(t->most + q + v * SET_WIDTH);
    for (int64_t key = 0; key < t->keys; key++)
        EACH (v, SET_VECTORS) {
            int64_t at = key * TWG_QUERIES + q + v * SET_WIDTH;
            FLOATS score = SET(get)(t->scores + at);
            wrong[v] += score * 0; /* 0, or NaN: maxima and exp2 would lose it */
            if (t->mask) score += SET(get)(t->mask + at), SET(put)(t->scores + at, score);
            most[v] = SET_MAX(score, most[v]);
        }
    EACH (v, SET_VECTORS) {
        int64_t at = q + v * SET_WIDTH;
        FLOATS rest = SET(exp2)(SET(get)(t->most + at) - most[v]);
        SET(put)(factor + at, rest);
        SET(put)(t->most + at, most[v]);
        sum[v] = SET(get)(t->sum + at) * rest + wrong[v];
    }
    for (int64_t key = 0; key < t->keys; key++)
        EACH (v, SET_VECTORS) {
            float *at = t->scores + key * TWG_QUERIES + q + v * SET_WIDTH;
            FLOATS weight = SET(exp2)(SET(get)(at) - most[v]);
            SET(put)(at, weight);
            sum[v] += weight;
        }
    EACH (v, SET_VECTORS) SET(put)(t->sum + q + v * SET_WIDTH, sum[v]);
}

SET_TARGET static void SET(step)(const twg_attention_tile *t) {
    float factor[TWG_QUERIES];
    int64_t rows = (t->keys + SET(ROWS) - 1) / SET(ROWS) * SET(ROWS);
    SET(gemm)(rows, t->dk, t->k, t->dk, 1, t->q, NULL, t->scores);
    for (int64_t q = 0; q < TWG_QUERIES; q += SET(BLOCK)) SET(weigh)(t, q, factor);
    SET(gemm)(t->dv, t->keys, t->v, 1, t->dv, t->scores, factor, t->out);
}

/* ---- few queries ---- */

/* Each key and value asks for the one that is a step ahead: more at once than there are places for
 * lines on their way would be forgotten. */
SET_TARGET static inline void SET(ask)(const char *row, size_t step, int64_t numbers) {
    for (int64_t d = 0; d < numbers; d += 64 / (int64_t)sizeof(uint16_t))
        __builtin_prefetch(row + TWG_FEW_KEYS * step + (size_t)d * sizeof(uint16_t));
}

/* Scores of n queries, a constant. */
SET_TARGET static inline __attribute__((always_inline)) void
SET(score_few)(const twg_attention_few *t, int n, float (*scores)[TWG_FEW_KEYS]) {
    const char *k = (const char *)t->k;
    for (int64_t key = 0; key < t->keys; key++, k += t->k_step) {
        FLOATS sum[TWG_FEW] = {0};
        SET(ask)(k, t->k_step, t->dk);
        for (int64_t d = 0; d < t->dk; d += SET_WIDTH) {
            FLOATS numbers = SET_HALVES((const uint16_t *)k + d);
            EACH (r, n) sum[r] += SET(get)(t->q + r * t->dk + d) * numbers;
        }
        EACH (r, n) scores[r][key] = SET_SUM(sum[r]);
    }
}

SET_TARGET static inline FLOATS SET(choose)(INTS condition, FLOATS yes, FLOATS no) {
    return (FLOATS)(((INTS)yes & condition) | ((INTS)no & ~condition));
}

/* Scores of a query become 2^(score - largest); what came of earlier keys is to be multiplied by
 * the result.  What the mask closes is not looked at. */
SET_TARGET static float SET(weigh_few)(const twg_attention_few *t, int64_t query, float *scores) {
    enum { VECTORS = TWG_FEW_KEYS / SET_WIDTH };
    const float log2_e = 1.44269504f;
    const FLOATS none = {0}, closed = none - INFINITY;
    FLOATS score[VECTORS], most = none + t->most[query], wrong = none, sum = none;
    for (int64_t key = t->keys; key < TWG_FEW_KEYS; key++) scores[key] = -INFINITY;
    EACH (v, VECTORS) {
        score[v] = SET(get)(scores + v * SET_WIDTH);
        if (t->mask) {
            FLOATS mask = SET(get)(t->mask + query * TWG_FEW_KEYS + v * SET_WIDTH);
            /* Behind the last key the mask may be anything. */
            INTS shut = (mask == closed) | (score[v] == closed);
            score[v] = SET(choose)(shut, closed, score[v] + mask * log2_e);
        }
        /* 0, or NaN: the maximum and exp2 would lose it. */
        wrong += SET(choose)(score[v] == closed, none, score[v] * 0);
        most = SET_MAX(score[v], most);
    }
    float largest = SET_MOST(most);
    EACH (v, VECTORS) {
        FLOATS weight = SET(exp2)(score[v] - largest);
        SET(put)(scores + v * SET_WIDTH, weight);
        sum += weight;
    }
    float rest = SET(exp2)(none + (t->most[query] - largest))[0];
    t->sum[query] = t->sum[query] * rest + SET_SUM(sum + wrong);
    t->most[query] = largest;
    return rest;
}

/* Values' numbers [d, d + width vectors), n and width constants. */
SET_TARGET static inline __attribute__((always_inline)) void
SET(add_few)(const twg_attention_few *t, int n, int64_t d, int width, bool masked,
             const float (*weights)[TWG_FEW_KEYS], const float *factors) {
    FLOATS sum[TWG_FEW][SET_VECTORS];
    float *out = t->out + d;
    const char *v = (const char *)((const uint16_t *)t->v + d);
    EACH (r, n)
        EACH (w, width) sum[r][w] = SET(get)(out + r * t->dv + w * SET_WIDTH) * factors[r];
    for (int64_t key = 0; key < t->keys; key++, v += t->v_step) {
        SET(ask)(v, t->v_step, (int64_t)width * SET_WIDTH);
        EACH (w, width) {
            FLOATS numbers = SET_HALVES((const uint16_t *)v + w * SET_WIDTH);
            EACH (r, n) /* what the mask closes may be no numbers */
                if (!masked || weights[r][key] != 0) sum[r][w] += weights[r][key] * numbers;
        }
    }
    EACH (r, n)
        EACH (w, width) SET(put)(out + r * t->dv + w * SET_WIDTH, sum[r][w]);
}

SET_TARGET static inline __attribute__((always_inline)) void SET(few_of)(const twg_attention_few *t,
                                                                         int n, bool masked) {
    float scores[TWG_FEW][TWG_FEW_KEYS], factors[TWG_FEW];
    const float(*weights)[TWG_FEW_KEYS] = (const float(*)[TWG_FEW_KEYS])scores;
    int64_t d = 0;
    SET(score_few)(t, n, scores);
    EACH (r, n) factors[r] = SET(weigh_few)(t, r, scores[r]);
    for (; d + SET(BLOCK) <= t->dv; d += SET(BLOCK))
        SET(add_few)(t, n, d, SET_VECTORS, masked, weights, factors);
    for (; d < t->dv; d += SET_WIDTH) SET(add_few)(t, n, d, 1, masked, weights, factors);
}

SET_TARGET static void SET(few)(const twg_attention_few *t) {
    switch (2 * t->queries + (t->mask != NULL)) {
    case 2: SET(few_of)(t, 1, false); break;
    case 3: SET(few_of)(t, 1, true); break;
    case 4: SET(few_of)(t, 2, false); break;
    case 5: SET(few_of)(t, 2, true); break;
    case 6: SET(few_of)(t, 3, false); break;
    case 7: SET(few_of)(t, 3, true); break;
    case 8: SET(few_of)(t, 4, false); break;
    default: SET(few_of)(t, 4, true); break;
    }
}

SET_TARGET static void SET(convert)(const uint16_t *f16, float *f32, int64_t count) {
    int64_t i = 0;
    for (; i + SET_WIDTH <= count; i += SET_WIDTH) SET(put)(f32 + i, SET_HALVES(f16 + i));
    for (; i < count; i++) f32[i] = _cvtsh_ss(f16[i]);
}

SET_TARGET static void SET(convert_back)(const float *f32, uint16_t *f16, int64_t count) {
    int64_t i = 0;
    for (; i + SET_WIDTH <= count; i += SET_WIDTH) SET_PUT_HALVES(f16 + i, SET(get)(f32 + i));
    for (; i < count; i++) f16[i] = _cvtss_sh(f32[i], 0);
}

SET_TARGET static int64_t SET(visible)(const uint16_t *mask, size_t step, int64_t tokens,
                                       int64_t keys, bool *open) {
    enum { MANY = 2 * SET_WIDTH, CLOSED = 0xfc00, MAGNITUDE = 0x7fff }; /* CLOSED: -infinity */
    uint16_t opened[TWG_KEYS] = {0}, added[TWG_KEYS] = {0}, any = 0;
    const char *from = (const char *)mask;
    int64_t key = 0, seen = keys;
    for (; key + MANY <= keys; key += MANY) {
        INTS opens = {0}, adds = {0}, closed = opens + (int)0xfc00fc00;
        for (int64_t i = 0; i < tokens; i++) {
            INTS both = *(const PAIRS *)(from + (size_t)i * step + (size_t)key * sizeof *mask);
            opens |= both ^ closed;
            adds |= both;
        }
        *(PAIRS *)(opened + key) = opens;
        *(PAIRS *)(added + key) = adds;
    }
    for (; key < keys; key++)
        for (int64_t i = 0; i < tokens; i++) {
            uint16_t one = *(const uint16_t *)(from + (size_t)i * step + (size_t)key * sizeof one);
            opened[key] |= one ^ CLOSED;
            added[key] |= one;
        }
    while (seen && !opened[seen - 1]) seen--;
    for (key = 0; key < seen; key++) any |= added[key];
    *open = !(any & MAGNITUDE);
    return seen;
}

/* ---- rows side by side, and back ---- */

/* Four vectors of fours: the first of each four, the second ones, and so on. */
SET_TARGET static inline void SET(transpose)(FLOATS *v) {
    FLOATS a = SET_LOW(v[0], v[1]), b = SET_HIGH(v[0], v[1]), c = SET_LOW(v[2], v[3]),
           d = SET_HIGH(v[2], v[3]);
    v[0] = SET_LOW_PAIRS(a, c);
    v[1] = SET_HIGH_PAIRS(a, c);
    v[2] = SET_LOW_PAIRS(b, d);
    v[3] = SET_HIGH_PAIRS(b, d);
}

#define AT(four) (rows[query + i + 4 * (four)] + d)
SET_TARGET static void SET(turn)(const float *const *rows, int64_t queries, int64_t length,
                                 float factor, float *to) {
    int64_t query = 0;
    for (; query + SET_WIDTH <= queries; query += SET_WIDTH)
        for (int64_t d = 0; d < length; d += 4) {
            FLOATS v[4];
            EACH (i, 4) v[i] = SET_FOURS(AT) * factor;
            SET(transpose)(v);
            EACH (i, 4) SET(put)(to + (d + i) * TWG_QUERIES + query, v[i]);
        }
    turn_rest(rows, query, queries, length, factor, to);
}

SET_TARGET static void SET(turn_back)(const float *from, int64_t queries, int64_t length,
                                      const float *factors, float *const *rows) {
    int64_t query = 0;
    for (; query + SET_WIDTH <= queries; query += SET_WIDTH)
        for (int64_t d = 0; d < length; d += 4) {
            FLOATS v[4];
            EACH (i, 4)
                v[i] = SET(get)(from + (d + i) * TWG_QUERIES + query) * SET(get)(factors + query);
            SET(transpose)(v);
            EACH (i, 4) SET_PUT_FOURS(AT, v[i]);
        }
    turn_back_rest(from, query, queries, length, factors, rows);
}
#undef AT

#undef FLOATS
#undef INTS
#undef PAIRS
#undef SET
#undef SET_TARGET
#undef SET_WIDTH
#undef SET_VECTORS
#undef SET_MAX
#undef SET_MIN
#undef SET_SUM
#undef SET_MOST
#undef SET_HALVES
#undef SET_PUT_HALVES
#undef SET_LOW
#undef SET_HIGH
#undef SET_LOW_PAIRS
#undef SET_HIGH_PAIRS
#undef SET_FOURS
#undef SET_PUT_FOURS
