/* Which rows of a graph's nodes anybody reads.
 *
 * A language model's last layer ends with GET_ROWS, which takes the tokens whose logits are wanted:
 * of a prompt's 512 the last one.  What comes before it as a row for each token, back to the
 * product that gives queries, is worth computing for those only; keys and values are not, since all
 * queries read them.  So rows are followed from GET_ROWS backwards through nodes that have no other
 * reader and give each row from the same row of their source.
 *
 * What is read is said as a range, from the first row to the last.  It is what may be left out, not
 * what must be: in rows that nobody reads any number may stand. */
#include "hosts/ggml/backend.h"

/* The dimension of a tensor along which it consists of `count` slices in consecutive pieces of
 * `stride` bytes; 0: none. */
static int dimension_of(const struct ggml_tensor *t, size_t stride, int64_t count) {
    for (int d = 1; d < GGML_MAX_DIMS; d++) {
        if (t->nb[d] != stride || t->ne[d] != count) continue;
        size_t slice = ggml_type_size(t->type) * (size_t)(t->ne[0] / ggml_blck_size(t->type));
        for (int other = 1; other < GGML_MAX_DIMS; other++)
            if (other != d) slice += (size_t)(t->ne[other] - 1) * t->nb[other];
        if (slice <= stride) return d;
    }
    return 0;
}

/* What of a node's source number *source such rows of the node are made of; dimension 0: all. */
static twg_rows of_source(const struct ggml_tensor *node, twg_rows rows, int *source) {
    const struct ggml_tensor *from = node->src[0];
    *source = 0;
    switch (node->op) {
    case GGML_OP_RESHAPE:
    case GGML_OP_VIEW:
    case GGML_OP_PERMUTE: {
        int64_t count = node->ne[rows.dimension];
        size_t stride = node->nb[rows.dimension];
        rows.dimension = node->data == from->data && dimension_of(node, stride, count)
                             ? dimension_of(from, stride, count)
                             : 0;
        break;
    }
    case GGML_OP_ROPE:
    case GGML_OP_RMS_NORM:
    case GGML_OP_ADD:
    case GGML_OP_MUL:
        if (!ggml_are_same_shape(node, from)) rows.dimension = 0;
        break;
    case GGML_OP_MUL_MAT: /* its rows are tokens, and so are x's */
        *source = 1;
        if (rows.dimension != 1 || node->ne[2] * node->ne[3] != 1) rows.dimension = 0;
        break;
    case GGML_OP_FLASH_ATTN_EXT: /* [numbers, heads, tokens]; of queries [numbers, tokens, heads] */
        rows.dimension = rows.dimension == 2 && node->ne[3] == 1 ? 1 : 0;
        break;
    default: rows.dimension = 0;
    }
    return rows;
}

bool twg_written_by(const struct ggml_cgraph *graph, const struct ggml_tensor *tensor) {
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->view_src == tensor && !ggml_op_is_empty(graph->nodes[i]->op))
            return true;
    return false;
}

/* Whether the graph has no say in which rows a GET_ROWS takes, of a matrix. */
static bool is_known(const struct ggml_cgraph *graph, const struct ggml_tensor *node) {
    const struct ggml_tensor *from = node->src[0], *ids = node->src[1];
    return ids->op == GGML_OP_NONE && !ids->view_src && ids->type == GGML_TYPE_I32 &&
           ggml_is_contiguous(ids) && !twg_written_by(graph, ids) && from->ne[2] * from->ne[3] == 1;
}

/* Those rows, by what the ids are now. */
static twg_rows taken_by(const struct ggml_tensor *node) {
    const struct ggml_tensor *from = node->src[0], *ids = node->src[1];
    int64_t first = from->ne[1], end = 0;
    for (int64_t i = 0; i < ggml_nelements(ids); i++) {
        int32_t id = ((const int32_t *)ids->data)[i];
        if (id < 0 || id >= from->ne[1]) return (twg_rows){0}; /* ggml's to complain about */
        if (id < first) first = id;
        if (id >= end) end = id + 1;
    }
    if (end - first == from->ne[1]) return (twg_rows){0};
    if (end == 0) first = 0;
    return (twg_rows){.dimension = 1, .first = first, .count = end - first};
}

/* Whether something reads a tensor's memory by a view that does not have it as its source, as
 * ggml_view_tensor's, which ggml does not count among its uses. */
static bool has_other_views(const struct ggml_cgraph *graph, const struct ggml_tensor *tensor) {
    for (int i = 0; i < graph->n_nodes; i++)
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor *from = graph->nodes[i]->src[s];
            if (from && from->view_src == tensor && from->op == GGML_OP_NONE) return true;
        }
    return false;
}

/* Where in the graph a tensor is computed that nobody reads but node `reader`; -1: nowhere. */
static int computed_for(const struct ggml_cgraph *graph, const struct ggml_tensor *tensor,
                        int reader) {
    int i = reader - 1;
    while (i >= 0 && graph->nodes[i] != tensor) i--;
    bool only = i >= 0 && ggml_node_get_use_count(graph, i) == 1 &&
                !(tensor->flags & GGML_TENSOR_FLAG_OUTPUT) && !has_other_views(graph, tensor);
    return only ? i : -1;
}

void twg_rows_read(const struct ggml_cgraph *graph, twg_rows *rows, twg_takers *takers) {
    takers->count = 0;
    for (int i = 0; i < graph->n_nodes; i++) rows[i] = (twg_rows){0};
    for (int i = graph->n_nodes; i--;) {
        const struct ggml_tensor *node = graph->nodes[i];
        twg_rows read = {0};
        int source = 0;
        if (rows[i].dimension) {
            read = of_source(node, rows[i], &source);
            /* Of a product of several matrices, say, it is no range of tokens. */
            if (!read.dimension) rows[i] = (twg_rows){0};
        } else if (node->op == GGML_OP_GET_ROWS && node->src[0]->op != GGML_OP_NONE &&
                   node->src[0]->ne[1] > 1 && takers->count < TWG_MOST_TAKERS &&
                   is_known(graph, node)) {
            read = taken_by(node);
            takers->all[takers->count++] = (twg_taker){node, read};
        }
        int from = read.dimension ? computed_for(graph, node->src[source], i) : -1;
        if (from >= 0) rows[from] = read;
    }
}

bool twg_rows_stay(const twg_takers *takers) {
    for (int i = 0; i < takers->count; i++) {
        twg_rows was = takers->all[i].rows, is = taken_by(takers->all[i].node);
        if (is.dimension != was.dimension || is.first != was.first || is.count != was.count)
            return false;
    }
    return true;
}
