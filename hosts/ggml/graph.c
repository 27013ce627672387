/* Computing a graph: ggml's CPU backend runs it; matrix products, attention and norms are ours.
 *
 * For the time of the computation each product by weights of ours stands in the graph as a custom
 * operation, which ggml calls from all its threads.  Its sources, shape and place stay as they are.
 * Products of few rows of one x (q, k and v; gate and up) are one operation, in the first one's
 * place, if nothing in between minds, or if a small result can be elsewhere meanwhile.  Replaced
 * likewise are attention, ROPE with SET_ROWS, and an RMS norm with the sum before it and the
 * product by its weights.  Of products and attention, rows that nobody reads are left out. */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

enum { REACH = 16, BRIEF_TOKENS = 4 };

/* A node that is a custom operation for the time of the computation, and what it is else. */
typedef struct stand_in {
    struct ggml_tensor *node;
    enum ggml_op op;
    int32_t op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t)];
} stand_in;

typedef struct product {
    twg_product operation;
    stand_in own;
    int index;   /* of the node in its graph */
    bool joined; /* done with another one */
} product;

typedef struct attention {
    twg_attention operation;
    stand_in own;
} attention;

typedef struct heads {
    twg_heads operation;
    stand_in own[TWG_MOST_STEPS];
} heads;

/* A node while its graph is looked through. */
typedef struct standing {
    int place; /* of the node that computes it: its own index, or that of an earlier one */
    bool left; /* a product whose weights this graph writes, which is ggml's */
} standing;

typedef struct norm {
    twg_norm operation;
    stand_in own, mul, add; /* add: if the operation has one */
} norm;

typedef struct backend {
    ggml_backend_t cpu; /* runs the graphs, for us alone */
    ggml_backend_set_n_threads_t set_n_threads;
    ggml_threadpool_t threads; /* of the most that was asked for; NULL: ggml makes one each time */
    int most_threads;
    ggml_backend_set_abort_callback_t set_abort_callback;
    int n_threads;
    product *products;
    size_t capacity, count;
    attention *attentions;
    size_t attention_capacity, attention_count;
    heads *heads;
    size_t heads_capacity, heads_count;
    twg_angles_shared angles;
    norm *norms;
    size_t norm_capacity, norm_count;
    twg_rows *read; /* of each node */
    size_t read_capacity;
    standing *standings; /* of each node */
    size_t standing_capacity;
    twg_moves moves;
    twg_products shared;
    char *attention_scratch; /* of all threads; and the size of one's */
    size_t attention_scratch_capacity, attention_scratch_size;
} backend;

/* ---- the graph ---- */

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

/* What is known of nodes before any of them is replaced. */
static void look_through(backend *b, const struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++) {
        const struct ggml_tensor *node = graph->nodes[i];
        bool left = is_product(node) && twg_buffer_unsaid(node->src[0]) &&
                    twg_written_by(graph, node->src[0]);
        b->standings[i] = (standing){.place = i, .left = left};
    }
}

/* Layers of tensors that this graph writes would be stale in the midst of it. */
static void forget_written(struct ggml_cgraph *graph) {
    for (int i = 0; i < graph->n_nodes; i++)
        if (graph->nodes[i]->view_src && !ggml_op_is_empty(graph->nodes[i]->op))
            twg_buffer_changed(graph->nodes[i]);
}

static stand_in replace(struct ggml_tensor *node, ggml_custom_op_t run, void *operation) {
    const struct ggml_custom_op_params custom = {
        .fun = run, .n_tasks = GGML_N_TASKS_MAX, .userdata = operation};
    stand_in own = {.node = node, .op = node->op};
    memcpy(own.op_params, node->op_params, sizeof own.op_params);
    memcpy(node->op_params, &custom, sizeof custom);
    node->op = GGML_OP_CUSTOM;
    return own;
}

/* Another operation does it, too.  RESHAPE is empty as NONE is, but its result is no leaf. */
static stand_in leave_out(struct ggml_tensor *node) {
    stand_in own = replace(node, NULL, NULL);
    node->op = GGML_OP_RESHAPE;
    return own;
}

static void put_back(const stand_in *own) {
    own->node->op = own->op;
    memcpy(own->node->op_params, own->op_params, sizeof own->op_params);
}

static void take_over(backend *b, struct ggml_tensor *node, int index, twg_weights *weights) {
    product *p = &b->products[b->count++];
    p->index = index;
    p->joined = false;
    twg_product_begin(&p->operation, node, b->read[index], weights, &b->shared);
    p->own = replace(node, twg_product_run, &p->operation);
}

/* Room for the attentions of a graph; false: out of memory, and ggml's kernel does them. */
static bool room_for_attention(backend *b, const struct ggml_cgraph *graph) {
    size_t count = 0, size = 0;
    if (b->n_threads < 1) return false; /* as many as the pool has */
    for (int i = 0; i < graph->n_nodes; i++) {
        if (!twg_attention_takes(graph->nodes[i])) continue;
        twg_attention_part part;
        const struct ggml_tensor *node = graph->nodes[i];
        if (b->read[i].dimension) { /* of all of it no copy is needed to ask */
            twg_attention_part_of(node, b->read[i], &part);
            node = &part.y;
        }
        size_t needed = twg_attention_scratch(node);
        if (needed > size) size = needed;
        count++;
    }
    b->attention_scratch_size = size;
    b->attention_scratch = room_for(b->attention_scratch, &b->attention_scratch_capacity,
                                    size * (size_t)b->n_threads, 1);
    b->attentions = room_for(b->attentions, &b->attention_capacity, count, sizeof *b->attentions);
    return b->attention_scratch && b->attentions;
}

static void take_attention(backend *b, struct ggml_tensor *node, twg_rows read) {
    attention *a = &b->attentions[b->attention_count++];
    atomic_init(&a->operation.next, 0);
    twg_attention_part_of(node, read, &a->operation.part);
    memcpy(&a->operation.scale, node->op_params, sizeof a->operation.scale);
    a->operation.threads = b->n_threads;
    a->operation.scratch = b->attention_scratch;
    a->operation.scratch_size = b->attention_scratch_size;
    a->own = replace(node, twg_attention_run, &a->operation);
}

/* Done last: products are joined by what the graph's own operations mind. */
static void take_norms(backend *b, const struct ggml_cgraph *graph) {
    size_t count = 0;
    for (int i = 0; i < graph->n_nodes; i++) count += twg_norm_takes(graph, i);
    b->norms = room_for(b->norms, &b->norm_capacity, count, sizeof *b->norms);
    for (int i = 0; b->norms && i < graph->n_nodes; i++) {
        if (!twg_norm_takes(graph, i)) continue;
        struct ggml_tensor *node = graph->nodes[i], *mul = graph->nodes[i + 1];
        norm *n = &b->norms[b->norm_count++];
        n->operation = twg_norm_of(graph, i);
        if (n->operation.add) n->add = leave_out(graph->nodes[i - 1]);
        n->mul = leave_out(mul);
        n->own = replace(node, twg_norm_run, &n->operation);
    }
}

/* Whether node i does nothing from `from` on: it is empty, or computed by an earlier one. */
static bool is_past(const backend *b, const struct ggml_cgraph *graph, int i, int from) {
    int place = b->standings[i].place;
    return place == i ? ggml_op_is_empty(graph->nodes[i]->op) : place < from;
}

/* Whether nodes [from, to) leave what a node reads as it is. */
static bool keep_sources(const backend *b, const struct ggml_cgraph *graph, int from, int to,
                         const struct ggml_tensor *node) {
    for (int i = from; i < to; i++) {
        if (is_past(b, graph, i, from)) continue;
        for (int s = 0; s < GGML_MAX_SRC; s++)
            if (node->src[s] && twg_overlap(graph->nodes[i], node->src[s])) return false;
    }
    return true;
}

/* Whether they neither read nor write a result's memory, which a graph's allocator keeps for its
 * own place only. */
static bool leave_alone(const backend *b, const struct ggml_cgraph *graph, int from, int to,
                        const struct ggml_tensor *y) {
    for (int i = from; i < to; i++) {
        const struct ggml_tensor *operation = graph->nodes[i];
        if (is_past(b, graph, i, from)) continue;
        if (twg_overlap(operation, y)) return false;
        for (int s = 0; s < GGML_MAX_SRC; s++)
            if (operation->src[s] && twg_overlap(operation->src[s], y)) return false;
    }
    return true;
}

/* Whether the results of products that are done together are apart from one more. */
static bool are_apart(const twg_product *first, const struct ggml_tensor *y) {
    bool apart = !twg_overlap(first->node, y);
    for (int i = 0; i < first->with_count; i++)
        apart = apart && !twg_overlap(first->with[i]->node, y);
    return apart;
}

/* Joins the product that was taken over last to an earlier one of the same x. */
static void join(backend *b, const struct ggml_cgraph *graph) {
    product *p = &b->products[b->count - 1];
    struct ggml_tensor *y = p->own.node, *x = y->src[1];
    for (size_t at = b->count - 1; at-- && p->index - b->products[at].index <= REACH;) {
        product *first = &b->products[at];
        int between = first->index + 1;
        if (first->joined || !twg_products_alike(&first->operation, &p->operation) ||
            twg_overlap(first->own.node, x) || !keep_sources(b, graph, between, p->index, y))
            continue;
        bool alone = are_apart(&first->operation, y) && leave_alone(b, graph, between, p->index, y);
        if (!alone && !twg_move(&b->moves, graph, p->index)) continue;
        first->operation.with[first->operation.with_count++] = &p->operation;
        p->joined = true;
        b->standings[p->index].place = first->index;
        y->op = GGML_OP_RESHAPE; /* as leave_out's */
        return;
    }
}

/* ROPE and SET_ROWS: with those just before it, or by itself. */
static void take_heads(backend *b, const struct ggml_cgraph *graph, int index) {
    struct ggml_tensor *node = graph->nodes[index];
    if (!twg_heads_take(node)) return;
    for (size_t at = b->heads_count; at-- && index - b->heads[at].operation.place <= REACH;) {
        heads *h = &b->heads[at];
        int between = h->operation.place + 1;
        if (!keep_sources(b, graph, between, index, node) ||
            !leave_alone(b, graph, between, index, node) ||
            !twg_heads_add(&h->operation, graph, node, &b->angles))
            continue;
        h->own[h->operation.count - 1] = leave_out(node);
        b->standings[index].place = h->operation.place;
        return;
    }
    heads *h = &b->heads[b->heads_count];
    h->operation.count = 0;
    h->operation.place = index;
    if (!twg_heads_add(&h->operation, graph, node, &b->angles)) return;
    h->own[0] = replace(node, twg_heads_run, &h->operation);
    b->heads_count++;
}

static void give_back(backend *b) {
    twg_moves_undo(&b->moves);
    for (size_t i = 0; i < b->count; i++) put_back(&b->products[i].own);
    for (size_t i = 0; i < b->attention_count; i++) put_back(&b->attentions[i].own);
    for (size_t i = 0; i < b->heads_count; i++)
        for (int k = 0; k < b->heads[i].operation.count; k++) put_back(&b->heads[i].own[k]);
    for (size_t i = 0; i < b->norm_count; i++) {
        put_back(&b->norms[i].own);
        put_back(&b->norms[i].mul);
        if (b->norms[i].operation.add) put_back(&b->norms[i].add);
    }
}

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

static enum ggml_status graph_compute(ggml_backend_t backend_, struct ggml_cgraph *graph) {
    backend *b = backend_->context;
    b->count = b->attention_count = b->norm_count = b->heads_count = 0;
    b->angles.count = 0;
    twg_moves_begin(&b->moves);
    b->shared.status = TW_OK;
    size_t nodes = (size_t)graph->n_nodes;
    b->products = room_for(b->products, &b->capacity, nodes, sizeof *b->products);
    b->read = room_for(b->read, &b->read_capacity, nodes, sizeof *b->read);
    b->heads = room_for(b->heads, &b->heads_capacity, nodes, sizeof *b->heads);
    b->standings = room_for(b->standings, &b->standing_capacity, nodes, sizeof *b->standings);
    if (nodes && (!b->products || !b->read || !b->heads || !b->standings))
        return GGML_STATUS_ALLOC_FAILED;
    look_through(b, graph);
    forget_written(graph);
    twg_rows_read(graph, b->read);
    bool brief = is_brief(graph), left = false, attends = room_for_attention(b, graph);
    for (int i = 0; i < graph->n_nodes; i++) {
        struct ggml_tensor *node = graph->nodes[i];
        if (attends && twg_attention_takes(node)) take_attention(b, node, b->read[i]);
        take_heads(b, graph, i);
        if (!is_product(node) || b->standings[i].left) continue;
        if (leaves(node, brief)) {
            left = true;
            continue;
        }
        twg_weights *weights = twg_buffer_weights(node->src[0]);
        if (!weights) continue;
        take_over(b, node, i, weights);
        join(b, graph);
    }
    take_norms(b, graph);
    settle(graph);
    if (left) twg_packer_pause();
    enum ggml_status status = ggml_backend_graph_compute(b->cpu, graph);
    if (left) twg_packer_resume();
    give_back(b);
    return status == GGML_STATUS_SUCCESS && b->shared.status ? GGML_STATUS_FAILED : status;
}

/* ---- the backend ---- */

/* What ggml's CPU backend offers by name. */
typedef ggml_threadpool_t threadpool_new(struct ggml_threadpool_params *params);
typedef void threadpool_free(ggml_threadpool_t threadpool);
typedef void set_threadpool(ggml_backend_t backend, ggml_threadpool_t threadpool);

static const char *get_name(ggml_backend_t backend_) {
    (void)backend_;
    return "Tilewright";
}

static void free_backend(ggml_backend_t backend_) {
    backend *b = backend_->context;
    threadpool_free *destroy = (threadpool_free *)twg_cpu_function("ggml_threadpool_free");
    ggml_backend_free(b->cpu);
    if (b->threads && destroy) destroy(b->threads);
    twg_context_release();
    free(b->products);
    free(b->attentions);
    free(b->attention_scratch);
    twg_moves_free(&b->moves);
    twg_angles_free(&b->angles);
    free(b->heads);
    free(b->standings);
    free(b->norms);
    free(b->read);
    twg_products_free(&b->shared);
    free(b);
    free(backend_);
}

static const struct ggml_backend_i backend_interface = {
    .get_name = get_name,
    .free = free_backend,
    .graph_compute = graph_compute,
};

static ggml_guid *guid(void) {
    static ggml_guid id = {0x74, 0x69, 0x6c, 0x65, 0x77, 0x72, 0x69, 0x67,
                           0x68, 0x74, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x01};
    return &id;
}

ggml_backend_t twg_backend_create(ggml_backend_dev_t device) {
    backend *b = calloc(1, sizeof *b);
    ggml_backend_t made = calloc(1, sizeof *made);
    ggml_backend_t cpu = ggml_backend_dev_init(twg_cpu_device(), NULL);
    if (!b || !made || !cpu || !twg_context_hold()) {
        free(b);
        free(made);
        if (cpu) ggml_backend_free(cpu);
        return NULL;
    }
    b->cpu = cpu;
    b->n_threads = GGML_DEFAULT_N_THREADS;
    b->set_n_threads = (ggml_backend_set_n_threads_t)twg_cpu_function("ggml_backend_set_n_threads");
    b->set_abort_callback =
        (ggml_backend_set_abort_callback_t)twg_cpu_function("ggml_backend_set_abort_callback");
    *made = (struct ggml_backend){guid(), backend_interface, device, b};
    return made;
}

/* Without OpenMP ggml would start and end its threads with each graph. */
static void set_pool(backend *b, int n_threads) {
    threadpool_new *create = (threadpool_new *)twg_cpu_function("ggml_threadpool_new");
    threadpool_free *destroy = (threadpool_free *)twg_cpu_function("ggml_threadpool_free");
    set_threadpool *set = (set_threadpool *)twg_cpu_function("ggml_backend_cpu_set_threadpool");
    if (!create || !destroy || !set || n_threads <= b->most_threads) return;
    struct ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
    set(b->cpu, NULL);
    if (b->threads) destroy(b->threads);
    b->threads = n_threads ? create(&params) : NULL;
    b->most_threads = b->threads ? n_threads : 0;
    set(b->cpu, b->threads);
}

void twg_backend_set_n_threads(ggml_backend_t backend_, int n_threads) {
    backend *b = backend_->context;
    b->n_threads = n_threads;
    set_pool(b, n_threads);
    if (b->set_n_threads) b->set_n_threads(b->cpu, n_threads);
}

void twg_backend_set_abort_callback(ggml_backend_t backend_, ggml_abort_callback callback,
                                    void *data) {
    const backend *b = backend_->context;
    if (b->set_abort_callback) b->set_abort_callback(b->cpu, callback, data);
}
