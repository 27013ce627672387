/* What runs in a graph's place.
 *
 * ggml's CPU backend gets a graph of its own: of the host's nodes those that compute something, in
 * their order, but custom operations, which ggml calls from all of its threads, for what is ours.
 * That is each product by weights of ours: those of few rows of one x (q, k and v; gate and up) are
 * one operation, in the first one's place, if nothing in between minds, or if a small result can be
 * elsewhere meanwhile.  It is attention, ROPE with SET_ROWS, and an RMS norm with the sum before it
 * and the product by its weights.  Of products and attention, rows that nobody reads are left out.
 *
 * The host's graph stays as it is, but for the places of small results while it is computed.  So a
 * plan serves again for as long as the host computes the same graph, as llama.cpp does token by
 * token. */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

/* FEW_TOKENS: of what may be in a chain.  SMALL: numbers of what one thread does there. */
enum { REACH = 16, BRIEF_TOKENS = 4, FEW_TOKENS = 8, SMALL = 1 << 13 };

/* ggml numbers its graphs since some version that its API's version does not tell. */
extern uint64_t ggml_graph_next_uid(void) __attribute__((weak));

typedef struct product {
    twg_product operation;
    int index;   /* of the node in its graph */
    bool joined; /* done with another one */
} product;

/* A node of the host's graph. */
typedef struct standing {
    int place;     /* of the node that computes it, itself or another */
    bool left;     /* a product whose weights this graph writes, which is ggml's */
    twg_link link; /* what is done in its place; run NULL: its own operation */
} standing;

struct twg_plan {
    int threads;
    product *products;
    size_t capacity, count;
    twg_attention *attentions;
    size_t attention_capacity, attention_count;
    twg_heads *heads;
    size_t heads_capacity, heads_count;
    twg_angles_shared angles;
    twg_norm *norms;
    size_t norm_capacity, norm_count;
    twg_chain *chains;
    size_t chain_capacity, chain_count;
    twg_rows *read; /* of each node */
    size_t read_capacity;
    twg_takers takers;
    standing *standings; /* of each node */
    size_t standing_capacity;
    twg_moves moves;
    twg_products shared;
    char *attention_scratch; /* of all threads; and the size of one's */
    size_t attention_scratch_capacity, attention_scratch_size;
    bool leaves; /* products by weights of ours to ggml's kernels, this time */
    /* What runs: the host's nodes, and what stands for them. */
    struct ggml_cgraph graph;
    struct ggml_tensor **nodes, *stand_ins;
    size_t node_capacity, stand_in_capacity;
    /* For which graph it serves again, and as long as the layers are what they were; 0: for none */
    uint64_t uid;
    unsigned changes;
};

/* ---- the host's graph ---- */

/* `old`, or in its place as many elements of `size` bytes, aligned to cache lines, as are wanted;
 * what was in them is lost.  NULL: out of memory, or none are wanted. */
static void *room_for(void *old, size_t *capacity, size_t count, size_t size) {
    if (*capacity >= count) return old;
    free(old);
    void *elements = aligned_alloc(64, (count * size + 63) / 64 * 64);
    *capacity = elements ? count : 0;
    return elements;
}

static bool is_product(const struct ggml_tensor *node) {
    return (node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID) &&
           node->flags & GGML_TENSOR_FLAG_COMPUTE && !ggml_is_empty(node);
}

/* How many tokens a product is of. */
static int64_t tokens_of(const struct ggml_tensor *node) {
    return node->op == GGML_OP_MUL_MAT ? ggml_nrows(node->src[1]) : node->src[2]->ne[1];
}

static void look_through(twg_plan *p, const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor *node = graph->nodes[i];
        bool left = is_product(node) && twg_buffer_unsaid(node->src[0]) &&
                    twg_written_by(graph, node->src[0]);
        p->standings[i] = (standing){.place = i, .left = left};
    }
}

/* Layers of tensors that this graph writes would be stale in the midst of it. */
static void forget_written(const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->view_src && !ggml_op_is_empty(graph->nodes[i]->op))
            twg_buffer_changed(graph->nodes[i]);
}

/* Whether node i does nothing from `from` on: it is empty, or computed by an earlier one. */
static bool is_past(const twg_plan *p, const struct ggml_cgraph *graph, int i, int from) {
    int place = p->standings[i].place;
    return place == i ? ggml_op_is_empty(graph->nodes[i]->op) : place < from;
}

/* Whether nodes [from, to) leave what a node reads as it is. */
static bool keep_sources(const twg_plan *p, const struct ggml_cgraph *graph, int from, int to,
                         const struct ggml_tensor *node) {
    for (int i = from; i < to; i++) {
        if (is_past(p, graph, i, from)) continue;
        for (int s = 0; s < GGML_MAX_SRC; s++)
            if (node->src[s] && twg_overlap(graph->nodes[i], node->src[s])) return false;
    }
    return true;
}

/* Whether they neither read nor write a result's memory, which a graph's allocator keeps for its
 * own place only. */
static bool leave_alone(const twg_plan *p, const struct ggml_cgraph *graph, int from, int to,
                        const struct ggml_tensor *y) {
    for (int i = from; i < to; i++) {
        const struct ggml_tensor *operation = graph->nodes[i];
        if (is_past(p, graph, i, from)) continue;
        if (twg_overlap(operation, y)) return false;
        for (int s = 0; s < GGML_MAX_SRC; s++)
            if (operation->src[s] && twg_overlap(operation->src[s], y)) return false;
    }
    return true;
}

/* ---- what is ours ---- */

static void replace(twg_plan *p, int index, twg_manner manner, ggml_custom_op_t run,
                    void *operation) {
    p->standings[index].link = (twg_link){manner, run, operation};
}

static void take_product(twg_plan *p, struct ggml_tensor *node, int index, twg_weights *weights) {
    product *made = &p->products[p->count++];
    made->index = index;
    made->joined = false;
    twg_product_plan(&made->operation, node, p->read[index], weights, &p->shared);
    twg_manner manner = made->operation.rows <= FEW_TOKENS ? TWG_LED : TWG_APART;
    replace(p, index, manner, twg_product_run, &made->operation);
}

/* Whether the results of products that are done together are apart from one more. */
static bool are_apart(const twg_product *first, const struct ggml_tensor *y) {
    bool apart = !twg_overlap(first->node, y);
    for (int i = 0; i < first->with_count; i++)
        apart = apart && !twg_overlap(first->with[i]->node, y);
    return apart;
}

/* Joins the product that was taken last to an earlier one of the same x. */
static void join(twg_plan *p, const struct ggml_cgraph *graph) {
    product *last = &p->products[p->count - 1];
    struct ggml_tensor *y = last->operation.node, *x = y->src[1];
    for (size_t at = p->count - 1; at-- && last->index - p->products[at].index <= REACH;) {
        product *first = &p->products[at];
        int between = first->index + 1;
        if (first->joined || !twg_products_alike(&first->operation, &last->operation) ||
            twg_overlap(first->operation.node, x) ||
            !keep_sources(p, graph, between, last->index, y))
            continue;
        bool alone =
            are_apart(&first->operation, y) && leave_alone(p, graph, between, last->index, y);
        if (!alone && !twg_move(&p->moves, graph, last->index)) continue;
        first->operation.with[first->operation.with_count++] = &last->operation;
        last->joined = true;
        p->standings[last->index].place = first->index;
        return;
    }
}

/* Room for the attentions of a graph; false: out of memory, and ggml's kernel does them. */
static bool room_for_attention(twg_plan *p, const struct ggml_cgraph *graph) {
    size_t count = 0, size = 0;
    if (p->threads < 1) return false; /* as many as the pool has */
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!twg_attention_takes(graph->nodes[i])) continue;
        twg_attention_part part;
        const struct ggml_tensor *node = graph->nodes[i];
        if (p->read[i].dimension) { /* of all of it no copy is needed to ask */
            twg_attention_part_of(node, p->read[i], &part);
            node = &part.y;
        }
        size_t needed = twg_attention_scratch(node);
        if (needed > size) size = needed;
        count++;
    }
    p->attention_scratch_size = size;
    p->attention_scratch = room_for(p->attention_scratch, &p->attention_scratch_capacity,
                                    size * (size_t)p->threads, 1);
    p->attentions = room_for(p->attentions, &p->attention_capacity, count, sizeof *p->attentions);
    return p->attention_scratch && p->attentions;
}

static void take_attention(twg_plan *p, struct ggml_tensor *node, int index) {
    twg_attention *a = &p->attentions[p->attention_count++];
    twg_attention_part_of(node, p->read[index], &a->part);
    memcpy(&a->scale, node->op_params, sizeof a->scale);
    a->strict = twg_is_set("TW_GGML_STRICT");
    a->threads = p->threads;
    a->scratch = p->attention_scratch;
    a->scratch_size = p->attention_scratch_size;
    replace(p, index, twg_attention_is_few(a) ? TWG_BY_ALL : TWG_APART, twg_attention_run, a);
}

/* ROPE and SET_ROWS: with those just before it, or by itself. */
static void take_heads(twg_plan *p, const struct ggml_cgraph *graph, int index) {
    struct ggml_tensor *node = graph->nodes[index];
    if (!twg_heads_take(node)) return;
    for (size_t at = p->heads_count; at-- && index - p->heads[at].place <= REACH;) {
        twg_heads *heads = &p->heads[at];
        int between = heads->place + 1;
        if (!keep_sources(p, graph, between, index, node) ||
            !leave_alone(p, graph, between, index, node) ||
            !twg_heads_add(heads, graph, node, &p->angles))
            continue;
        p->standings[index].place = heads->place;
        return;
    }
    twg_heads *heads = &p->heads[p->heads_count];
    heads->count = 0;
    heads->place = index;
    if (!twg_heads_add(heads, graph, node, &p->angles)) return;
    replace(p, index, heads->tokens <= FEW_TOKENS ? TWG_ALONE : TWG_APART, twg_heads_run, heads);
    p->heads_count++;
}

/* Done last: others ask what happens between earlier nodes and theirs. */
static void take_norms(twg_plan *p, const struct ggml_cgraph *graph) {
    size_t count = 0;
    for (int i = 0; i < graph->n_nodes; i++) count += twg_norm_takes(graph, i);
    p->norms = room_for(p->norms, &p->norm_capacity, count, sizeof *p->norms);
    for (int i = 0; p->norms && i < graph->n_nodes; i++) {
        if (!twg_norm_takes(graph, i)) continue;
        twg_norm *norm = &p->norms[p->norm_count++];
        *norm = twg_norm_of(graph, i);
        if (norm->add) p->standings[i - 1].place = i;
        p->standings[i + 1].place = i;
        bool small = ggml_nelements(norm->x) <= SMALL;
        replace(p, i, small ? TWG_ALONE : TWG_APART, twg_norm_run, norm);
    }
}

static void take_glu(twg_plan *p, struct ggml_tensor *node, int index) {
    int64_t numbers = ggml_nelements(node);
    twg_manner manner = numbers > FEW_TOKENS * SMALL ? TWG_APART
                        : numbers > SMALL            ? TWG_BY_ALL
                                                     : TWG_ALONE;
    replace(p, index, manner, twg_glu_run, node);
}

/* ---- layers that are not made yet ---- */

/* Whether it is a graph of so few tokens that ggml's own kernels are through with it before layers
 * of a model that has just been mapped are made. */
static bool is_brief(const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor *node = graph->nodes[i];
        if (is_product(node) && twg_buffer_fresh(node->src[0]) && tokens_of(node) > BRIEF_TOKENS)
            return false;
    }
    return true;
}

/* A product whose weights were mapped and never multiplied by is left to ggml's kernels, which read
 * the blocks, if its graph is brief.  It is so whether the layers are made already or not: what a
 * model computes must not be a matter of time. */
static bool leaves(const struct ggml_tensor *node, bool brief) {
    return brief && twg_buffer_fresh(node->src[0]) &&
           ggml_backend_dev_supports_op(twg_cpu_device(), node);
}

/* None of its weights is fresh from now on, for whatever graph begins before this one ends. */
static void settle(const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        twg_weights *w =
            is_product(graph->nodes[i]) ? twg_buffer_fresh(graph->nodes[i]->src[0]) : NULL;
        if (w) atomic_store_explicit(&w->fresh, false, memory_order_relaxed);
    }
}

/* ---- the plan ---- */

/* Room for what is known of each node. */
static bool room_for_nodes(twg_plan *p, size_t nodes) {
    p->products = room_for(p->products, &p->capacity, nodes, sizeof *p->products);
    p->read = room_for(p->read, &p->read_capacity, nodes, sizeof *p->read);
    p->heads = room_for(p->heads, &p->heads_capacity, nodes, sizeof *p->heads);
    p->standings = room_for(p->standings, &p->standing_capacity, nodes, sizeof *p->standings);
    p->nodes = room_for(p->nodes, &p->node_capacity, nodes, sizeof(struct ggml_tensor *));
    return !nodes || (p->products && p->read && p->heads && p->standings && p->nodes);
}

/* What stands for a node in what runs. */
static struct ggml_tensor *stand_in_of(const struct ggml_tensor *node, ggml_custom_op_t run,
                                       void *operation, struct ggml_tensor *made) {
    const struct ggml_custom_op_params custom = {
        .fun = run, .n_tasks = GGML_N_TASKS_MAX, .userdata = operation};
    *made = *node;
    made->op = GGML_OP_CUSTOM;
    memcpy(made->op_params, &custom, sizeof custom);
    return made;
}

/* Puts together what runs; false: out of memory. */
static bool assemble(twg_plan *p, const struct ggml_cgraph *graph) {
    size_t most = 0;
    for (int i = 0; i < graph->n_nodes; i++) most += p->standings[i].link.run != NULL;
    p->stand_ins = room_for(p->stand_ins, &p->stand_in_capacity, most, sizeof(struct ggml_tensor));
    p->chains = room_for(p->chains, &p->chain_capacity, most, sizeof *p->chains);
    if (most && (!p->stand_ins || !p->chains)) return false;
    struct ggml_tensor *next = p->stand_ins;
    twg_chain *chain = NULL; /* to which the node before belongs */
    p->chain_count = 0;
    p->graph =
        (struct ggml_cgraph){.size = graph->n_nodes, .nodes = p->nodes, .order = graph->order};
    for (int i = 0; i < graph->n_nodes; i++) {
        struct ggml_tensor *node = graph->nodes[i];
        const standing *s = &p->standings[i];
        if (s->place != i || ggml_op_is_empty(node->op) || ggml_is_empty(node) ||
            !(node->flags & GGML_TENSOR_FLAG_COMPUTE))
            continue;
        if (s->link.manner != TWG_APART && chain && chain->count < TWG_MOST_LINKS) {
            chain->links[chain->count++] = s->link;
            continue;
        }
        if (s->link.manner != TWG_APART) {
            chain = &p->chains[p->chain_count++];
            chain->links[0] = s->link;
            chain->count = 1;
            node = stand_in_of(node, twg_chain_run, chain, next++);
        } else {
            chain = NULL;
            if (s->link.run) node = stand_in_of(node, s->link.run, s->link.operation, next++);
        }
        p->nodes[p->graph.n_nodes++] = node;
    }
    return true;
}

static bool make(twg_plan *p, const struct ggml_cgraph *graph) {
    p->count = p->attention_count = p->norm_count = p->heads_count = 0;
    p->angles.count = 0;
    p->leaves = false;
    twg_moves_begin(&p->moves);
    if (!room_for_nodes(p, (size_t)graph->n_nodes)) return false;
    look_through(p, graph);
    forget_written(graph);
    p->changes = twg_buffer_changes();
    twg_rows_read(graph, p->read, &p->takers);
    bool brief = is_brief(graph), attends = room_for_attention(p, graph);
    for (int i = 0; i < graph->n_nodes; i++) {
        struct ggml_tensor *node = graph->nodes[i];
        if (attends && twg_attention_takes(node)) take_attention(p, node, i);
        if (twg_glu_takes(node)) take_glu(p, node, i);
        take_heads(p, graph, i);
        if (!is_product(node) || p->standings[i].left) continue;
        if (leaves(node, brief)) {
            p->leaves = true;
            continue;
        }
        twg_weights *weights = twg_buffer_weights(node->src[0]);
        if (!weights) continue;
        take_product(p, node, i, weights);
        join(p, graph);
    }
    take_norms(p, graph);
    settle(graph);
    if (!assemble(p, graph)) return false;
    if (ggml_graph_next_uid && !p->leaves) p->uid = graph->uid;
    return true;
}

twg_plan *twg_plan_create(void) { return calloc(1, sizeof(twg_plan)); }

void twg_plan_destroy(twg_plan *p) {
    free(p->products);
    free(p->attentions);
    free(p->attention_scratch);
    twg_moves_free(&p->moves);
    twg_angles_free(&p->angles);
    free(p->heads);
    free(p->standings);
    free(p->norms);
    free(p->chains);
    free(p->read);
    free(p->nodes);
    free(p->stand_ins);
    twg_products_free(&p->shared);
    free(p);
}

struct ggml_cgraph *twg_plan_begin(twg_plan *p, const struct ggml_cgraph *graph, int threads) {
    p->shared.status = TW_OK;
    if (p->uid && p->uid == graph->uid && p->threads == threads &&
        p->changes == twg_buffer_changes() && twg_rows_stay(&p->takers)) {
        twg_moves_redo(&p->moves);
    } else {
        p->uid = 0;
        p->threads = threads;
        if (!make(p, graph)) {
            twg_moves_undo(&p->moves);
            return NULL;
        }
    }
    p->graph.use_counts = graph->use_counts;
    p->graph.visited_hash_set = graph->visited_hash_set;
    for (size_t i = 0; i < p->count; i++)
        if (!p->products[i].joined) twg_operation_begin(&p->products[i].operation.operation);
    for (size_t i = 0; i < p->chain_count; i++) twg_operation_begin(&p->chains[i].operation);
    for (size_t i = 0; i < p->attention_count; i++) {
        atomic_init(&p->attentions[i].next, 0);
        atomic_init(&p->attentions[i].done, 0);
    }
    if (p->leaves) twg_packer_pause();
    return &p->graph;
}

bool twg_plan_end(twg_plan *p) {
    if (p->leaves) twg_packer_resume();
    twg_moves_undo(&p->moves);
    return p->shared.status == TW_OK;
}
