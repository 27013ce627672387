/* A product by weights of ours, on the thread that leads it.
 *
 *   MUL_MAT     y[i3][i2][m][n] = sum over k of w[i3/r3][i2/r2][n][k] * x[i3][i2][m][k]
 *   MUL_MAT_ID  y[t][u][n] = sum over k of w[ids[t][u]][n][k] * x[t][u % ne11][k] */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

/* At least this much; NULL where there is not, which is noted.  Taken anew by each product. */
static void *scratch(twg_products *shared, size_t size) {
    if (shared->scratch_size < size) {
        free(shared->scratch);
        shared->scratch = malloc(size);
        shared->scratch_size = shared->scratch ? size : 0;
    }
    if (!shared->scratch) {
        GGML_LOG_ERROR("Tilewright: out of memory for %zu bytes of scratch\n", size);
        shared->status = TW_MEMORY;
    }
    return shared->scratch;
}

void twg_products_free(twg_products *shared) { free(shared->scratch); }

static void note(twg_products *shared, tw_status status) {
    if (!status || shared->status) return;
    shared->status = status;
    GGML_LOG_ERROR("Tilewright: %s\n", tw_error_message());
}

static void forward(const twg_product *p, tw_linear *linear, tw_tensor x, tw_tensor y) {
    note(p->shared, tw_linear_forward(linear, &x, &y));
}

static tw_tensor rows_of(void *data, int64_t rows, int64_t columns, size_t stride) {
    tw_tensor t = TW_TENSOR_2D(data, TW_F32, rows, columns);
    t.stride[0] = rows > 1 ? (int64_t)(stride / sizeof(float)) : columns;
    t.stride[1] = 1;
    return t;
}

/* Rows that a layer reads where they are. */
static bool direct(const struct ggml_tensor *x) {
    return x->type == GGML_TYPE_F32 && x->nb[0] == sizeof(float) && x->nb[1] % sizeof(float) == 0 &&
           (x->ne[1] == 1 || x->nb[1] >= (size_t)x->ne[0] * sizeof(float));
}

/* One row of any type and stride as f32. */
static void load_row(const struct ggml_tensor *x, const char *from, float *to) {
    size_t size = ggml_type_size(x->type);
    const struct ggml_type_traits *traits = ggml_get_type_traits(x->type);
    if (x->nb[0] == size && x->type == GGML_TYPE_F32) {
        memcpy(to, from, (size_t)x->ne[0] * size);
        return;
    }
    if (x->nb[0] == size) {
        traits->to_float(from, to, x->ne[0]);
        return;
    }
    for (int64_t k = 0; k < x->ne[0]; k++) {
        const char *at = from + (size_t)k * x->nb[0];
        if (x->type == GGML_TYPE_F32)
            memcpy(to + k, at, sizeof(float));
        else
            traits->to_float(at, to + k, 1);
    }
}

static const char *plane(const struct ggml_tensor *t, int64_t i2, int64_t i3) {
    return (const char *)t->data + (size_t)i2 * t->nb[2] + (size_t)i3 * t->nb[3];
}

/* Matrices one after another, as one of more rows. */
static bool in_a_row(const struct ggml_tensor *t) {
    return (t->ne[2] == 1 || t->nb[2] == (size_t)t->ne[1] * t->nb[1]) &&
           (t->ne[3] == 1 || t->nb[3] == (size_t)t->ne[2] * t->nb[2]);
}

/* One matrix of weights, and x and y as a layer takes them. */
static bool is_plain(const struct ggml_tensor *y) {
    const struct ggml_tensor *w = y->src[0], *x = y->src[1];
    return w->ne[2] * w->ne[3] == 1 && direct(x) && in_a_row(x) && in_a_row(y);
}

/* The rows of a plain product's x or y that are done. */
static tw_tensor part_of(const struct ggml_tensor *t, const twg_product *p) {
    return rows_of((char *)t->data + (size_t)p->first * t->nb[1], p->rows, t->ne[0], t->nb[1]);
}

/* A plain product and those that are done with it. */
static void multiply_together(twg_product *p) {
    tw_linear *linears[TWG_TOGETHER] = {p->weights->linears[0]};
    tw_tensor in = part_of(p->node->src[1], p), out[TWG_TOGETHER] = {part_of(p->node, p)};
    for (int i = 0; i < p->with_count; i++) {
        linears[i + 1] = p->with[i]->weights->linears[0];
        out[i + 1] = part_of(p->with[i]->node, p);
    }
    note(p->shared, tw_linear_forward_group(linears, p->with_count + 1, &in, out));
}

static void multiply(twg_product *p) {
    struct ggml_tensor *y = p->node, *w = y->src[0], *x = y->src[1];
    int64_t rows = x->ne[1], r2 = x->ne[2] / w->ne[2], r3 = x->ne[3] / w->ne[3];
    if (is_plain(y)) {
        multiply_together(p);
        return;
    }
    for (int64_t i3 = 0; i3 < x->ne[3]; i3++)
        for (int64_t i2 = 0; i2 < x->ne[2]; i2++) {
            const char *from = plane(x, i2, i3);
            tw_tensor in = rows_of((void *)from, rows, x->ne[0], x->nb[1]);
            if (!direct(x)) {
                float *f32 = scratch(p->shared, (size_t)(rows * x->ne[0]) * sizeof(float));
                if (!f32) return;
                for (int64_t m = 0; m < rows; m++)
                    load_row(x, from + (size_t)m * x->nb[1], f32 + m * x->ne[0]);
                in = rows_of(f32, rows, x->ne[0], (size_t)x->ne[0] * sizeof(float));
            }
            forward(p, p->weights->linears[i3 / r3 * w->ne[2] + i2 / r2], in,
                    rows_of((void *)plane(y, i2, i3), rows, y->ne[0], y->nb[1]));
        }
}

/* The rows of one expert: gathered, multiplied, put where they belong. */
static void multiply_expert(twg_product *p, int64_t expert, const int64_t (*routed)[2],
                            int64_t count) {
    struct ggml_tensor *y = p->node, *x = y->src[1];
    int64_t K = x->ne[0], N = y->ne[0];
    float *in = scratch(p->shared, (size_t)(count * (K + N)) * sizeof(float)), *out;
    if (!in) return;
    out = in + count * K;
    for (int64_t i = 0; i < count; i++)
        load_row(x, plane(x, routed[i][1], 0) + (size_t)(routed[i][0] % x->ne[1]) * x->nb[1],
                 in + i * K);
    forward(p, p->weights->linears[expert], rows_of(in, count, K, (size_t)K * sizeof(float)),
            rows_of(out, count, N, (size_t)N * sizeof(float)));
    for (int64_t i = 0; i < count; i++)
        memcpy((char *)plane(y, routed[i][1], 0) + (size_t)routed[i][0] * y->nb[1], out + i * N,
               (size_t)N * sizeof(float));
}

static int32_t id_at(const struct ggml_tensor *ids, int64_t u, int64_t t) {
    int32_t id;
    memcpy(&id, (const char *)ids->data + (size_t)u * ids->nb[0] + (size_t)t * ids->nb[1],
           sizeof id);
    return id;
}

/* Rows by their expert: counted, then put behind one another. */
static void multiply_by_id(twg_product *p) {
    struct ggml_tensor *ids = p->node->src[2];
    int64_t experts = p->weights->count, total = ids->ne[0] * ids->ne[1];
    int64_t(*routed)[2] = malloc((size_t)total * sizeof *routed + 1);
    int64_t *ends = calloc((size_t)experts + 1, sizeof *ends);
    bool right = routed && ends;
    for (int64_t t = 0; right && t < ids->ne[1]; t++)
        for (int64_t u = 0; right && u < ids->ne[0]; u++) {
            int32_t id = id_at(ids, u, t);
            right = id >= 0 && id < experts;
            if (right) ends[id + 1]++;
        }
    if (!right) {
        GGML_LOG_ERROR("Tilewright: %s: %s\n", p->node->name,
                       routed && ends ? "an id is no expert's" : "out of memory");
        p->shared->status = routed && ends ? TW_INVALID : TW_MEMORY;
    } else {
        for (int64_t e = 0; e < experts; e++) ends[e + 1] += ends[e];
        for (int64_t t = 0; t < ids->ne[1]; t++)
            for (int64_t u = 0; u < ids->ne[0]; u++) {
                int64_t *at = routed[ends[id_at(ids, u, t)]++];
                at[0] = u;
                at[1] = t;
            }
        for (int64_t e = 0, first = 0; e < experts; first = ends[e++])
            if (ends[e] > first)
                multiply_expert(p, e, (const int64_t(*)[2])(routed + first), ends[e] - first);
    }
    free(routed);
    free(ends);
}

void twg_product_lead(void *product) {
    twg_product *p = product;
    if (p->op == GGML_OP_MUL_MAT)
        multiply(p);
    else
        multiply_by_id(p);
}

void twg_product_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    twg_product *p = user;
    (void)node, (void)ith;
    twg_team_run(&p->operation, nth, twg_product_lead, p);
}

void twg_product_plan(twg_product *p, struct ggml_tensor *node, twg_rows read, twg_weights *weights,
                      twg_products *shared) {
    p->node = node;
    p->op = node->op;
    p->first = read.first;
    p->rows = read.dimension ? read.count : ggml_nrows(node);
    p->weights = weights;
    p->with_count = 0;
    p->shared = shared;
}

bool twg_products_alike(const twg_product *first, const twg_product *p) {
    return first->op == GGML_OP_MUL_MAT && p->op == GGML_OP_MUL_MAT &&
           first->node->src[1] == p->node->src[1] && first->with_count < TWG_TOGETHER - 1 &&
           first->first == p->first && first->rows == p->rows && is_plain(first->node) &&
           is_plain(p->node);
}
