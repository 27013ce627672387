/* Queries and keys rotated, keys and values stored: against the formulas in double. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hosts/ggml/tests/test.h"

enum { HEADS = 3, KEY_HEADS = 2, CELLS = 20, MOST_TOKENS = 7, MOST_D = 80 };

/* Where keys are rotated to, or what else is unusual: positions that the graph computes; values
 * computed in between; keys without the queries' factors; a row that is stored is of later tokens;
 * or a kind of rotation that is left to ggml. */
typedef enum how {
    USUAL,
    IN_PLACE,
    ON_QUERIES,
    ON_VALUES,
    COMPUTED,
    BEFORE_THE_VALUES,
    NO_FACTORS,
    LATER_TOKENS,
    EXTRAPOLATED
} how;

typedef struct shape {
    const char *what;
    int mode, d, dims, tokens;
    bool factors;
    how how;
} shape;

static const float base = 10000, scale = 0.5f, magnitude = 1.25f;

static double truth(const shape *s, const float *x, int heads, int token, int head, int i,
                    const int32_t *positions, const float *factors) {
    const float *row = x + (token * heads + head) * s->d;
    if (i >= s->dims) return (double)row[i];
    bool neox = s->mode == GGML_ROPE_TYPE_NEOX;
    int half = s->dims / 2, pair = neox ? i % half : i / 2;
    bool second = neox ? i >= half : i % 2;
    double angle = (double)positions[token] * pow((double)base, -2.0 * pair / s->dims) *
                   (double)scale / (s->factors ? (double)factors[pair] : 1);
    double a = (double)row[neox ? pair : 2 * pair],
           b = (double)row[neox ? pair + half : 2 * pair + 1];
    double longer = s->how == EXTRAPOLATED ? 1 + 0.1 * log(1 / (double)scale) : 1;
    return longer * (double)magnitude *
           (second ? a * sin(angle) + b * cos(angle) : a * cos(angle) - b * sin(angle));
}

static void add(double *error, double *signal, double right, double got) {
    *error += (got - right) * (got - right);
    *signal += right * right;
}

static void set(struct ggml_tensor *t, const void *data) {
    ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
}

static void case_of(const shape *s) {
    struct ggml_context *c = tensors();
    int T = s->tokens, width = s->d * KEY_HEADS,
        stored_width = s->how == LATER_TOKENS ? s->d : width;
    struct ggml_tensor *q = ggml_new_tensor_3d(c, GGML_TYPE_F32, s->d, HEADS, T),
                       *k = ggml_new_tensor_3d(c, GGML_TYPE_F32, s->d, KEY_HEADS, T),
                       *v = ggml_new_tensor_2d(c, GGML_TYPE_F32, width, T),
                       *given = ggml_new_tensor_1d(c, GGML_TYPE_I32, T),
                       *ids = ggml_new_tensor_1d(c, GGML_TYPE_I64, T),
                       *factors = ggml_new_tensor_1d(c, GGML_TYPE_F32, s->dims / 2),
                       *keys = ggml_new_tensor_2d(c, GGML_TYPE_F16, stored_width, CELLS),
                       *values = ggml_new_tensor_2d(c, GGML_TYPE_F16, width, CELLS);
    float extrapolation = s->how == EXTRAPOLATED ? 1e-30f : 0; /* counts nothing, but is there */
    struct ggml_tensor *positions = s->how == COMPUTED ? ggml_dup(c, given) : given,
                       *by = s->factors ? factors : NULL,
                       *rq = ggml_rope_ext(c, q, positions, by, s->dims, s->mode, 512, base, scale,
                                           extrapolation, magnitude, 32, 1),
                       *rk = ggml_rope_ext(c, k, positions, s->how == NO_FACTORS ? NULL : by,
                                           s->dims, s->mode, 512, base, scale, extrapolation,
                                           magnitude, 32, 1),
                       *made = s->how == LATER_TOKENS
                                   ? ggml_view_2d(c, rk, s->d, T, (size_t)s->d * sizeof(float),
                                                  (size_t)(s->d * T) * sizeof(float))
                                   : ggml_reshape_2d(c, rk, width, T),
                       *set_k = ggml_set_rows(c, keys, made, ids),
                       *moved = s->how == BEFORE_THE_VALUES || s->how == ON_VALUES
                                    ? ggml_scale(c, v, 1)
                                    : v,
                       *set_v = ggml_set_rows(c, values, moved, ids);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, rq);
    if (s->how == ON_VALUES) ggml_build_forward_expand(graph, moved);
    ggml_build_forward_expand(graph, set_k);
    ggml_build_forward_expand(graph, set_v);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    if (s->how == IN_PLACE) rk->data = k->data;
    /* One token's keys lie where another's queries were. */
    if (s->how == ON_QUERIES) rk->data = q->data;
    if (s->how == ON_VALUES) rk->data = v->data;
    if (s->how != LATER_TOKENS) made->data = rk->data;
    float *a = numbers((size_t)(s->d * HEADS * T)), *b = numbers((size_t)(width * T)),
          *w = numbers((size_t)(width * T)), f[MOST_D / 2];
    int32_t at[MOST_TOKENS];
    int64_t cells[MOST_TOKENS];
    for (int i = 0; i < s->dims / 2; i++) f[i] = 1 + (float)i / 8;
    for (int t = 0; t < T; t++) at[t] = 3 * t + 1, cells[t] = CELLS - T + t;
    set(q, a), set(k, b), set(v, w), set(given, at), set(ids, cells), set(factors, f);
    bool right = ggml_backend_graph_compute(backend, graph) == GGML_STATUS_SUCCESS &&
                 rq->op == GGML_OP_ROPE && rk->op == GGML_OP_ROPE &&
                 set_k->op == GGML_OP_SET_ROWS && set_v->op == GGML_OP_SET_ROWS &&
                 rk->op_params[1] == s->dims;
    float *got = numbers((size_t)(s->d * HEADS * T));
    ggml_fp16_t stored[2][CELLS * KEY_HEADS * MOST_D];
    ggml_backend_tensor_get(rq, got, 0, ggml_nbytes(rq));
    ggml_backend_tensor_get(keys, stored[0], 0, ggml_nbytes(keys));
    ggml_backend_tensor_get(values, stored[1], 0, ggml_nbytes(values));
    double error = 0, signal = 0, off = 0, of = 0;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < s->d * HEADS; i++)
            add(&error, &signal, truth(s, a, HEADS, t, i / s->d, i % s->d, at, f),
                (double)got[t * s->d * HEADS + i]);
    shape of_keys = *s;
    if (s->how == NO_FACTORS) of_keys.factors = false;
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < stored_width; i++) {
            int number = (s->how == LATER_TOKENS ? s->d * T : 0) + t * stored_width + i;
            int token = number / width, head = number % width / s->d;
            add(&off, &of, truth(&of_keys, b, KEY_HEADS, token, head, number % s->d, at, f),
                (double)ggml_fp16_to_fp32(stored[0][cells[t] * stored_width + i]));
        }
        for (int i = 0; i < width; i++)
            right = right && stored[1][cells[t] * width + i] == ggml_fp32_to_fp16(w[t * width + i]);
    }
    /* f16 rounds to 2^-11: what is stored is right to 2^-24 or so, squared. */
    check(s->what, right ? fmax(error / signal, off / of / 1000) : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
    free(a), free(b), free(w), free(got);
}

/* [rows][n] = x [rows][k] times w [n][k] */
static float *product(const float *w, const float *x, int n, int k, int rows) {
    float *y = numbers((size_t)(n * rows));
    for (int i = 0; i < n * rows; i++) {
        double sum = 0;
        for (int j = 0; j < k; j++) sum += (double)w[i % n * k + j] * (double)x[i / n * k + j];
        y[i] = (float)sum;
    }
    return y;
}

/* Keys are a product that is done with that of values, which comes behind the queries' rotation. */
static void behind_products(void) {
    enum { D = 64, T = 7, WIDTH = D * KEY_HEADS, K = 32 };
    const shape s = {"", 0, D, D, T, false, USUAL};
    struct ggml_context *c = tensors(), *weights_context = tensors();
    struct ggml_tensor *wk = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, WIDTH),
                       *wv = ggml_new_tensor_2d(weights_context, GGML_TYPE_F32, K, WIDTH);
    ggml_backend_buffer_t weights = alloc_weights(weights_context);
    struct ggml_tensor *q = ggml_new_tensor_3d(c, GGML_TYPE_F32, D, HEADS, T),
                       *x = ggml_new_tensor_2d(c, GGML_TYPE_F32, K, T),
                       *positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, T),
                       *ids = ggml_new_tensor_1d(c, GGML_TYPE_I64, T),
                       *keys = ggml_new_tensor_2d(c, GGML_TYPE_F16, WIDTH, CELLS),
                       *rq = ggml_rope_ext(c, q, positions, NULL, D, 0, 512, base, scale, 0,
                                           magnitude, 32, 1),
                       *v = ggml_mul_mat(c, wv, x), *k = ggml_mul_mat(c, wk, x),
                       *rk = ggml_rope_ext(c, ggml_reshape_3d(c, k, D, KEY_HEADS, T), positions,
                                           NULL, D, 0, 512, base, scale, 0, magnitude, 32, 1);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, rq);
    ggml_build_forward_expand(graph, v);
    ggml_build_forward_expand(graph, ggml_set_rows(c, keys, ggml_reshape_2d(c, rk, WIDTH, T), ids));
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    float *a = numbers(WIDTH * K), *b = numbers(K * T), *some = numbers(D * HEADS * T),
          *made = product(a, b, WIDTH, K, T);
    int32_t at[T];
    int64_t cells[T];
    for (int t = 0; t < T; t++) at[t] = t + 2, cells[t] = t;
    set(wk, a), set(wv, a), set(x, b), set(q, some), set(positions, at), set(ids, cells);
    bool done = compute_twice(graph);
    ggml_fp16_t stored[CELLS * WIDTH];
    ggml_backend_tensor_get(keys, stored, 0, ggml_nbytes(keys));
    double off = 0, of = 0;
    for (int i = 0; i < WIDTH * T; i++)
        add(&off, &of, truth(&s, made, KEY_HEADS, i / WIDTH, i % WIDTH / D, i % D, at, NULL),
            (double)ggml_fp16_to_fp32(stored[i]));
    check("heads, keys of a product behind", done ? off / of / 1000 : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_backend_buffer_free(weights);
    ggml_free(c);
    ggml_free(weights_context);
    free(a), free(b), free(some), free(made);
}

/* What was stored, or rotated, is multiplied by as if it were weights. */
static void as_weights(bool rotated) {
    enum { D = 64, T = 6 };
    const shape s = {"", 0, D, D, T, false, USUAL};
    struct ggml_context *c = tensors();
    struct ggml_tensor *k = ggml_new_tensor_3d(c, GGML_TYPE_F32, D, T, 1),
                       *x = ggml_new_tensor_2d(c, GGML_TYPE_F32, D, 3),
                       *positions = ggml_new_tensor_1d(c, GGML_TYPE_I32, 1),
                       *ids = ggml_new_tensor_1d(c, GGML_TYPE_I64, T),
                       *first = ggml_new_tensor_2d(c, GGML_TYPE_F16, D, T),
                       *cells = ggml_new_tensor_2d(c, GGML_TYPE_F16, D, T),
                       *flat = ggml_reshape_2d(c, k, D, T), *rq = ggml_rope(c, k, positions, D, 0),
                       *rk = ggml_rope_ext(c, k, positions, NULL, D, 0, 512, base, scale, 0,
                                           magnitude, 32, 1),
                       *y = ggml_mul_mat(c, rotated ? rk : cells, x);
    struct ggml_cgraph *graph = ggml_new_graph(c);
    ggml_build_forward_expand(graph, rotated ? rq : ggml_set_rows(c, first, flat, ids));
    if (!rotated) ggml_build_forward_expand(graph, ggml_set_rows(c, cells, flat, ids));
    ggml_build_forward_expand(graph, y);
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(c, backend);
    float *a = numbers(D * T), *b = numbers(D * 3), w[D * T], got[T * 3];
    const int32_t at = 5;
    int64_t order[T];
    for (int t = 0; t < T; t++) order[t] = t;
    for (int i = 0; i < D * T; i++)
        w[i] = rotated ? (float)truth(&s, a, T, 0, i / D, i % D, &at, NULL)
                       : ggml_fp16_to_fp32(ggml_fp32_to_fp16(a[i]));
    set(k, a), set(x, b), set(positions, &at), set(ids, order);
    float *right = product(w, b, T, D, 3);
    double off = 0, of = 0;
    bool done = compute_twice(graph);
    ggml_backend_tensor_get(y, got, 0, sizeof got);
    for (int i = 0; i < T * 3; i++) add(&off, &of, (double)right[i], (double)got[i]);
    check(rotated ? "heads, rotated ones as weights" : "heads, stored ones as weights",
          done ? off / of / 1000 : INFINITY);
    ggml_backend_buffer_free(buffer);
    ggml_free(c);
    free(a), free(b), free(right);
}

void heads(void) {
    enum { NORMAL = 0, NEOX = GGML_ROPE_TYPE_NEOX };
    static const shape shapes[] = {
        {"heads, a token", NORMAL, 64, 64, 1, false, USUAL},
        {"heads, a token, halves", NEOX, 64, 64, 1, false, USUAL},
        {"heads, some tokens, factors", NORMAL, 64, 64, 7, true, USUAL},
        {"heads, some tokens, factors, halves", NEOX, 80, 80, 7, true, USUAL},
        {"heads, a part is rotated, rest of a vector", NORMAL, 80, 42, 5, false, USUAL},
        {"heads, a part is rotated, halves", NEOX, 80, 42, 5, true, USUAL},
        {"heads, keys in their place", NORMAL, 80, 42, 7, false, IN_PLACE},
        {"heads, keys in their place, halves", NEOX, 80, 80, 7, false, IN_PLACE},
        {"heads, keys in the queries' place", NORMAL, 64, 64, 7, false, ON_QUERIES},
        {"heads, keys in the place of values", NORMAL, 64, 64, 7, false, ON_VALUES},
        {"heads, keys without factors", NORMAL, 64, 64, 7, true, NO_FACTORS},
        {"heads, later tokens are stored", NORMAL, 64, 64, 6, false, LATER_TOKENS},
        {"heads, positions are computed", NORMAL, 64, 64, 7, false, COMPUTED},
        {"heads, values come later", NORMAL, 64, 64, 7, false, BEFORE_THE_VALUES},
        {"heads, extrapolated", NORMAL, 64, 64, 7, false, EXTRAPOLATED},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) case_of(&shapes[i]);
    behind_products();
    as_weights(false);
    as_weights(true);
}
