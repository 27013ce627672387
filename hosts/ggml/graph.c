/* Computing a graph: ggml's CPU backend runs it; matrix products, attention and norms are ours.
 *
 * For the time of the computation each product by weights of ours stands in the graph as a custom
 * operation, which ggml calls from all its threads.  Its sources, shape and place stay as they are.
 * Products of few rows of one x (q, k and v; gate and up) are one operation, in the first one's
 * place, if nothing in between minds.  Attention is replaced likewise, and so is an RMS norm with
 * the product by its weights.  Of products and attention, rows that nobody reads are left out.
 *
 *   MUL_MAT     y[i3][i2][m][n] = sum over k of w[i3/r3][i2/r2][n][k] * x[i3][i2][m][k]
 *   MUL_MAT_ID  y[t][u][n] = sum over k of w[ids[t][u]][n][k] * x[t][u % ne11][k] */
#include <stdlib.h>

#include "hosts/ggml/backend.h"

enum { MOST_TOGETHER = 4, TOGETHER_REACH = 16, BRIEF_TOKENS = 4 };

/* A node that is a custom operation for the time of the computation, and what it is else. */
typedef struct stand_in {
    struct ggml_tensor *node;
    enum ggml_op op;
    int32_t op_params[GGML_MAX_OP_PARAMS / sizeof(int32_t)];
} stand_in;

typedef struct product {
    twg_operation operation;
    stand_in own;
    int index;           /* of the node in its graph */
    int64_t first, rows; /* of x and y: those that are done, if the product is plain */
    twg_weights *weights;
    struct product *with[MOST_TOGETHER - 1]; /* products that are done with this one */
    int with_count;
    bool joined; /* done with another one */
    struct backend *backend;
} product;

typedef struct attention {
    twg_attention operation;
    stand_in own;
} attention;

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
    norm *norms;
    size_t norm_capacity, norm_count;
    twg_rows *read; /* of each node */
    size_t read_capacity;
    twg_moves moves;
    char *scratch; /* rows of x as f32, and of y */
    size_t scratch_size;
    char *attention_scratch; /* of all threads; and the size of one's */
    size_t attention_scratch_capacity, attention_scratch_size;
    tw_status status; /* the first that a layer gave */
} backend;

/* ---- one product, on the thread that leads it ---- */

/* At least this much; NULL where there is not, which is noted.  Taken anew by each product. */
static void *scratch(backend *b, size_t size) {
    if (b->scratch_size < size) {
        free(b->scratch);
        b->scratch = malloc(size);
        b->scratch_size = b->scratch ? size : 0;
    }
    if (!b->scratch) {
        GGML_LOG_ERROR("Tilewright: out of memory for %zu bytes of scratch\n", size);
        b->status = TW_MEMORY;
    }
    return b->scratch;
}

static void note(backend *b, tw_status status) {
    if (!status || b->status) return;
    b->status = status;
    GGML_LOG_ERROR("Tilewright: %s\n", tw_error_message());
}

static void forward(backend *b, tw_linear *linear, tw_tensor x, tw_tensor y) {
    note(b, tw_linear_forward(linear, &x, &y));
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
static tw_tensor part_of(const struct ggml_tensor *t, const product *p) {
    return rows_of((char *)t->data + (size_t)p->first * t->nb[1], p->rows, t->ne[0], t->nb[1]);
}

/* A plain product and those that are done with it. */
static void multiply_together(product *p) {
    tw_linear *linears[MOST_TOGETHER] = {p->weights->linears[0]};
    tw_tensor in = part_of(p->own.node->src[1], p), out[MOST_TOGETHER] = {part_of(p->own.node, p)};
    for (int i = 0; i < p->with_count; i++) {
        linears[i + 1] = p->with[i]->weights->linears[0];
        out[i + 1] = part_of(p->with[i]->own.node, p);
    }
    note(p->backend, tw_linear_forward_group(linears, p->with_count + 1, &in, out));
}

static void multiply(product *p) {
    struct ggml_tensor *y = p->own.node, *w = y->src[0], *x = y->src[1];
    backend *b = p->backend;
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
                float *f32 = scratch(b, (size_t)(rows * x->ne[0]) * sizeof(float));
                if (!f32) return;
                for (int64_t m = 0; m < rows; m++)
                    load_row(x, from + (size_t)m * x->nb[1], f32 + m * x->ne[0]);
                in = rows_of(f32, rows, x->ne[0], (size_t)x->ne[0] * sizeof(float));
            }
            forward(b, p->weights->linears[i3 / r3 * w->ne[2] + i2 / r2], in,
                    rows_of((void *)plane(y, i2, i3), rows, y->ne[0], y->nb[1]));
        }
}

/* The rows of one expert: gathered, multiplied, put where they belong. */
static void multiply_expert(product *p, int64_t expert, const int64_t (*routed)[2], int64_t count) {
    struct ggml_tensor *y = p->own.node, *x = y->src[1];
    int64_t K = x->ne[0], N = y->ne[0];
    float *in = scratch(p->backend, (size_t)(count * (K + N)) * sizeof(float)), *out;
    if (!in) return;
    out = in + count * K;
    for (int64_t i = 0; i < count; i++)
        load_row(x, plane(x, routed[i][1], 0) + (size_t)(routed[i][0] % x->ne[1]) * x->nb[1],
                 in + i * K);
    forward(p->backend, p->weights->linears[expert],
            rows_of(in, count, K, (size_t)K * sizeof(float)),
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
static void multiply_by_id(product *p) {
    struct ggml_tensor *ids = p->own.node->src[2];
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
        GGML_LOG_ERROR("Tilewright: %s: %s\n", p->own.node->name,
                       routed && ends ? "an id is no expert's" : "out of memory");
        p->backend->status = routed && ends ? TW_INVALID : TW_MEMORY;
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

static void lead(void *arg) {
    product *p = arg;
    if (p->own.op == GGML_OP_MUL_MAT)
        multiply(p);
    else
        multiply_by_id(p);
}

static void run_product(struct ggml_tensor *node, int ith, int nth, void *user) {
    product *p = user;
    (void)node, (void)ith;
    twg_team_run(&p->operation, nth, lead, p);
}

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

/* Another operation does it, too. */
static stand_in leave_out(struct ggml_tensor *node) {
    stand_in own = replace(node, NULL, NULL);
    node->op = GGML_OP_NONE;
    return own;
}

static void put_back(const stand_in *own) {
    own->node->op = own->op;
    memcpy(own->node->op_params, own->op_params, sizeof own->op_params);
}

static void take_over(backend *b, struct ggml_tensor *node, int index, twg_weights *weights) {
    product *p = &b->products[b->count++];
    twg_rows read = b->read[index];
    twg_operation_begin(&p->operation);
    p->index = index;
    p->first = read.first;
    p->rows = read.dimension ? read.count : ggml_nrows(node);
    p->weights = weights;
    p->with_count = 0;
    p->joined = false;
    p->backend = b;
    p->own = replace(node, run_product, p);
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

/* Whether the operations between two nodes leave a product's x as it is. */
static bool keep_source(const struct ggml_cgraph *graph, int from, int to,
                        const struct ggml_tensor *x) {
    for (int i = from; i < to; i++)
        if (!ggml_op_is_empty(graph->nodes[i]->op) && twg_overlap(graph->nodes[i], x)) return false;
    return true;
}

/* Whether they neither read nor write its memory, which a graph's allocator keeps for its own place
 * only. */
static bool leave_alone(const struct ggml_cgraph *graph, int from, int to,
                        const struct ggml_tensor *y) {
    for (int i = from; i < to; i++) {
        const struct ggml_tensor *operation = graph->nodes[i];
        if (ggml_op_is_empty(operation->op)) continue;
        if (twg_overlap(operation, y)) return false;
        for (int s = 0; s < GGML_MAX_SRC; s++)
            if (operation->src[s] && twg_overlap(operation->src[s], y)) return false;
    }
    return true;
}

/* Joins the product that was taken over last to an earlier one of the same x.  What lies between is
 * asked, the earlier one and those that joined it as well; they are CUSTOM, or NONE by now. */
static void join(backend *b, const struct ggml_cgraph *graph) {
    product *p = &b->products[b->count - 1];
    struct ggml_tensor *y = p->own.node, *x = y->src[1];
    if (p->own.op != GGML_OP_MUL_MAT || !is_plain(y)) return;
    for (size_t at = b->count - 1; at-- && p->index - b->products[at].index <= TOGETHER_REACH;) {
        product *first = &b->products[at];
        bool alike = !first->joined && first->own.op == GGML_OP_MUL_MAT &&
                     first->own.node->src[1] == x && first->with_count < MOST_TOGETHER - 1 &&
                     first->first == p->first && first->rows == p->rows &&
                     is_plain(first->own.node);
        if (!alike || !keep_source(graph, first->index, p->index, x)) continue;
        if (!leave_alone(graph, first->index, p->index, y) && !twg_move(&b->moves, graph, p->index))
            continue;
        first->with[first->with_count++] = p;
        p->joined = true;
        y->op = GGML_OP_NONE;
        return;
    }
}

static void give_back(backend *b) {
    twg_moves_undo(&b->moves);
    for (size_t i = 0; i < b->count; i++) put_back(&b->products[i].own);
    for (size_t i = 0; i < b->attention_count; i++) put_back(&b->attentions[i].own);
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
    b->count = b->attention_count = b->norm_count = 0;
    twg_moves_begin(&b->moves);
    b->status = TW_OK;
    size_t nodes = (size_t)graph->n_nodes;
    b->products = room_for(b->products, &b->capacity, nodes, sizeof *b->products);
    b->read = room_for(b->read, &b->read_capacity, nodes, sizeof *b->read);
    if (nodes && (!b->products || !b->read)) return GGML_STATUS_ALLOC_FAILED;
    forget_written(graph);
    twg_rows_read(graph, b->read);
    bool brief = is_brief(graph), left = false, attends = room_for_attention(b, graph);
    for (int i = 0; i < graph->n_nodes; i++) {
        struct ggml_tensor *node = graph->nodes[i];
        if (attends && twg_attention_takes(node)) take_attention(b, node, b->read[i]);
        if (!is_product(node) ||
            (twg_buffer_unsaid(node->src[0]) && twg_written_by(graph, node->src[0])))
            continue;
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
    return status == GGML_STATUS_SUCCESS && b->status ? GGML_STATUS_FAILED : status;
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
    free(b->norms);
    free(b->read);
    free(b->scratch);
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
