/* Results that stand elsewhere for the time of a computation.
 *
 * A graph's allocator gives a result the memory of another that is dead by then.  Who computes it
 * earlier, beside a product that reads the same, finds the other alive: llama.cpp's values, which
 * get the place that queries had before they were rotated.  So a small result, its views with it,
 * gets memory of its own until the graph has been computed. */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

/* Bytes of one result, and of all; how many nodes behind it its readers are looked for among, and
 * how many views of it there may be. */
enum { MOST = 64 << 10, MOST_OF_ALL = 1 << 20, REACH = 24, MOST_VIEWS = 4 };

/* Node `index` and its views, if each has readers and all of them are nodes not far behind: how
 * many, or 0.  ggml counts the readers of a whole graph, of which this may be a part; whoever asked
 * for the part looks at its last node, and maybe at that one's sources. */
static int family_of(const struct ggml_cgraph *graph, int index, struct ggml_tensor **family) {
    struct ggml_tensor *root = graph->nodes[index];
    int count = 0, expected = 0, found = 0;
    for (int i = index; i < graph->n_nodes && i <= index + REACH; i++) {
        struct ggml_tensor *node = graph->nodes[i];
        for (int s = 0; s < GGML_MAX_SRC && i > index; s++)
            found += node->src[s] && (node->src[s] == root || node->src[s]->view_src == root);
        if (node == root || node->view_src == root) {
            int readers = ggml_node_get_use_count(graph, i);
            if (count > MOST_VIEWS || !readers || node->flags & GGML_TENSOR_FLAG_OUTPUT) return 0;
            family[count++] = node;
            expected += readers;
        }
        if (found == expected) return i + 1 < graph->n_nodes ? count : 0;
    }
    return 0;
}

/* Views that are no nodes, as ggml_view_tensor's, read what ggml does not count, and what its
 * allocator does not keep for another part of the graph either. */
static bool has_hidden_views(const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++)
        for (int s = 0; s < GGML_MAX_SRC; s++) {
            const struct ggml_tensor *from = graph->nodes[i]->src[s];
            if (from && from->view_src && from->op == GGML_OP_NONE) return true;
        }
    return false;
}

void twg_moves_begin(twg_moves *moves) {
    moves->count = moves->used = 0;
    moves->looked = false;
}

bool twg_move(twg_moves *moves, const struct ggml_cgraph *graph, int index) {
    struct ggml_tensor *root = graph->nodes[index], *family[MOST_VIEWS + 1];
    size_t size = ggml_nbytes(root), room = (size + 63) / 64 * 64;
    if (root->view_src || !ggml_is_contiguous(root) || size > MOST) return false;
    if (!moves->looked) moves->hidden = has_hidden_views(graph);
    moves->looked = true;
    if (!moves->room) moves->room = aligned_alloc(64, MOST_OF_ALL);
    int count = moves->hidden ? 0 : family_of(graph, index, family);
    if (!count || !moves->room || moves->used + room > MOST_OF_ALL ||
        moves->count + (size_t)count > TWG_MOST_MOVES)
        return false;
    char *from = root->data, *to = moves->room + moves->used;
    for (int i = 0; i < count; i++) {
        twg_moved moved = {family[i], family[i]->data, to + ((char *)family[i]->data - from)};
        moves->list[moves->count++] = moved;
        family[i]->data = moved.elsewhere;
    }
    moves->used += room;
    return true;
}

void twg_moves_undo(twg_moves *moves) {
    for (size_t i = 0; i < moves->count; i++) moves->list[i].tensor->data = moves->list[i].data;
}

void twg_moves_redo(twg_moves *moves) {
    for (size_t i = 0; i < moves->count; i++)
        moves->list[i].tensor->data = moves->list[i].elsewhere;
}

void twg_moves_free(twg_moves *moves) { free(moves->room); }
