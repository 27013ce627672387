/* FLASH_ATTN_EXT of many queries, on ggml's threads:
 *
 *   y[i3][t][h] = sum over keys of softmax(scale * q[i3][h][t] k[i3][h/r] + mask[i3][t]) v[i3][h/r]
 *
 * The r heads that share keys and values go together: head h of token t is query t * r + h % r of
 * h/r.  TWG_QUERIES of them make a tile.  A task is some tiles, against all keys, TWG_KEYS at a
 * time: those are converted once for all of its tiles, and left out where the mask says so. */
#include <stdlib.h>

#include "hosts/ggml/attention_node.h"

/* With fewer queries than that lanes would be idle: they are attention_few.c's.  A task has at most
 * so many tiles, and so many bytes of them, for the L2 cache. */
enum { LEAST_QUERIES = 32, MOST_TILES = 8, MOST_BYTES = 256 << 10 };
/* One operation as all threads see it. */
typedef struct plan {
    const struct ggml_tensor *y, *q, *k, *v, *mask, *sinks;
    const twg_attention_kernel *kernel;
    float scale;            /* into units of log2 */
    int64_t dk, dv, keys;   /* numbers of a key and a value; of keys */
    int64_t together;       /* heads that share keys */
    int64_t queries, tiles; /* of one key head */
    int64_t task_tiles, key_heads, tasks;
} plan;

static float parameter(const struct ggml_tensor *node, int i) {
    float value;
    memcpy(&value, node->op_params + i, sizeof value);
    return value;
}

static int64_t tile_floats(const plan *p) { return (p->dk + p->dv + 2) * TWG_QUERIES; }

/* The best that takes the node's keys and values; strict: and rounds nothing. */
static const twg_attention_kernel *kernel_for(const struct ggml_tensor *node, bool strict) {
    int64_t dk = node->src[1]->ne[0], dv = node->src[2]->ne[0];
    const twg_attention_kernel *kernel = twg_attention_kernel_at(0);
    for (int n = 1; dk % kernel->multiple || dv % kernel->multiple || (strict && kernel->rounds);)
        kernel = twg_attention_kernel_at(n++);
    return kernel;
}

static plan plan_of(const struct ggml_tensor *node, int nth) {
    plan p = {.y = node,
              .q = node->src[0],
              .k = node->src[1],
              .v = node->src[2],
              .mask = node->src[3],
              .sinks = node->src[4]};
    p.dk = p.k->ne[0];
    p.dv = p.v->ne[0];
    p.keys = p.k->ne[1];
    p.together = p.q->ne[2] / p.k->ne[2];
    p.queries = p.q->ne[1] * p.together;
    p.tiles = twg_ceil_div(p.queries, TWG_QUERIES);
    p.key_heads = p.k->ne[2] * p.q->ne[3];
    int64_t fit = MOST_BYTES / (tile_floats(&p) * (int64_t)sizeof(float));
    p.task_tiles = fit < 1 ? 1 : twg_min(fit, MOST_TILES);
    /* Several tasks a thread, so that a slow one holds nobody up. */
    while (p.task_tiles > 1 && p.key_heads * twg_ceil_div(p.tiles, p.task_tiles) < (int64_t)4 * nth)
        p.task_tiles--;
    p.tasks = p.key_heads * twg_ceil_div(p.tiles, p.task_tiles);
    return p;
}

/* ---- what is taken ---- */

static bool readable(const struct ggml_tensor *t) {
    return t->nb[0] == ggml_type_size(t->type) && t->ne[0] % 4 == 0 && t->ne[0] <= TWG_MOST_HEAD &&
           (t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float);
}

/* Of one token, however many heads share a key's: tiles of them would be few tasks. */
static bool is_few(const struct ggml_tensor *node) {
    const struct ggml_tensor *q = node->src[0], *k = node->src[1];
    return q->ne[1] == 1 || q->ne[1] * (q->ne[2] / k->ne[2]) < LEAST_QUERIES;
}

/* Slopes of the mask (ALiBi) and capped scores are left to ggml. */
bool twg_attention_takes(const struct ggml_tensor *node) {
    if (node->op != GGML_OP_FLASH_ATTN_EXT || !twg_attention_kernel_at(0)) return false;
    const struct ggml_tensor *q = node->src[0], *k = node->src[1], *v = node->src[2],
                             *mask = node->src[3];
    if (!(node->flags & GGML_TENSOR_FLAG_COMPUTE) || ggml_is_empty(node)) return false;
    return q->type == GGML_TYPE_F32 && readable(q) && readable(k) && readable(v) &&
           parameter(node, 1) == 0 && parameter(node, 2) == 0 && k->ne[2] == v->ne[2] &&
           k->ne[3] == v->ne[3] && q->ne[2] % k->ne[2] == 0 && q->ne[3] % k->ne[3] == 0 &&
           (!is_few(node) || twg_few_takes(node)) &&
           (!mask || (mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(ggml_fp16_t) &&
                      mask->ne[2] == 1));
}

void twg_attention_part_of(const struct ggml_tensor *node, twg_rows read,
                           twg_attention_part *part) {
    struct ggml_tensor *y = &part->y, *q = &part->q, *mask = &part->mask;
    *y = *node;
    *q = *node->src[0];
    y->src[0] = q;
    if (node->src[3]) {
        *mask = *node->src[3];
        y->src[3] = mask;
    }
    if (!read.dimension) return;
    y->ne[2] = q->ne[1] = read.count;
    y->data = (char *)y->data + (size_t)read.first * y->nb[2];
    q->data = (char *)q->data + (size_t)read.first * q->nb[1];
    if (node->src[3]) {
        mask->ne[1] = read.count;
        mask->data = (char *)mask->data + (size_t)read.first * mask->nb[1];
    }
    if (read.count && !twg_attention_takes(y)) twg_attention_part_of(node, (twg_rows){0}, part);
}

size_t twg_attention_scratch(const struct ggml_tensor *node) {
    if (is_few(node)) return twg_few_scratch(node);
    plan p = plan_of(node, 1);
    int64_t keys = (p.dk + 2 * p.dv + 2 * (int64_t)TWG_QUERIES) * TWG_KEYS;
    size_t bytes = (size_t)(keys + p.task_tiles * tile_floats(&p)) * sizeof(float);
    return (bytes + 63) / 64 * 64;
}

/* ---- the mask ---- */

int64_t twg_visible(const twg_attention_kernel *kernel, const struct ggml_tensor *mask,
                    int64_t first_token, int64_t last_token, int64_t i3, int64_t key, int64_t keys,
                    bool *open) {
    *open = true;
    if (!mask) return keys;
    return kernel->visible(twg_mask(mask, first_token, key, i3), mask->nb[1],
                           last_token + 1 - first_token, keys, open);
}

/* ---- one task ---- */

typedef struct task {
    const plan *p;
    int64_t i3, head;     /* of the keys */
    int64_t first, tiles; /* of its key head's */
    float *k, *v, *turned, *scores, *mask, *tile;
} task;

/* Query i of the key head: its token and its head. */
static int64_t token_of(const task *t, int64_t i) { return i / t->p->together; }
static int64_t head_of(const task *t, int64_t i) {
    return t->head * t->p->together + i % t->p->together;
}

/* The task's tile number i; k, v and mask are the caller's to set. */
static twg_attention_tile tile_at(const task *t, int64_t i) {
    const plan *p = t->p;
    float *q = t->tile + i * tile_floats(p), *out = q + p->dk * TWG_QUERIES,
          *most = out + p->dv * TWG_QUERIES;
    return (twg_attention_tile){.dk = p->dk,
                                .dv = p->dv,
                                .k = t->k,
                                .v = t->v,
                                .turned = t->turned,
                                .q = q,
                                .scores = t->scores,
                                .most = most,
                                .sum = most + TWG_QUERIES,
                                .out = out};
}

/* Of the task's tile i: its first query, and how many it has. */
static int64_t first_query(const task *t, int64_t i) { return (t->first + i) * TWG_QUERIES; }
static int64_t queries_of(const task *t, int64_t i) {
    return twg_min(t->p->queries - first_query(t, i), TWG_QUERIES);
}

static void begin_tile(const task *t, int64_t i) {
    const plan *p = t->p;
    const float *rows[TWG_QUERIES];
    twg_attention_tile tile = tile_at(t, i);
    float *to = t->tile + i * tile_floats(p);
    memset(to, 0, (size_t)tile_floats(p) * sizeof(float));
    for (int64_t lane = 0; lane < queries_of(t, i); lane++) {
        int64_t at = first_query(t, i) + lane;
        rows[lane] = twg_query(p->q, token_of(t, at), head_of(t, at), t->i3);
    }
    p->kernel->turn(rows, queries_of(t, i), p->dk, p->scale, to);
    if (p->kernel->queries) p->kernel->queries(&tile);
    for (int lane = 0; lane < TWG_QUERIES; lane++) tile.most[lane] = TWG_NOTHING;
}

static void end_tile(const task *t, int64_t i) {
    const plan *p = t->p;
    float factors[TWG_QUERIES], *rows[TWG_QUERIES];
    twg_attention_tile tile = tile_at(t, i);
    for (int64_t lane = 0; lane < queries_of(t, i); lane++) {
        int64_t at = first_query(t, i) + lane, head = head_of(t, at);
        factors[lane] = twg_last_factor(p->sinks, head, tile.most[lane], tile.sum[lane]);
        rows[lane] = twg_result(p->y, token_of(t, at), head, t->i3);
    }
    p->kernel->turn_back(tile.out, queries_of(t, i), p->dv, factors, rows);
}

/* Keys or values from `first` on as f32. */
static void load_rows(const task *t, const struct ggml_tensor *of, int64_t first, int64_t count,
                      float *to) {
    const char *from = twg_keys(of, first, t->head, t->i3, t->p->q->ne[3]);
    for (int64_t i = 0; i < count; i++, from += of->nb[1], to += of->ne[0])
        if (of->type == GGML_TYPE_F16)
            t->p->kernel->halves((const uint16_t *)from, to, of->ne[0]);
        else if (of->type == GGML_TYPE_F32)
            memcpy(to, from, (size_t)of->ne[0] * sizeof(float));
        else
            ggml_get_type_traits(of->type)->to_float(from, to, of->ne[0]);
}

/* The mask of tile i with queries side by side, in units of log2. */
static void load_mask(const task *t, int64_t i, int64_t key, int64_t keys) {
    float f32[TWG_QUERIES][TWG_KEYS]; /* of each token */
    const float *rows[TWG_QUERIES];
    int64_t first = token_of(t, first_query(t, i)), tokens = 0;
    for (int64_t lane = 0; lane < queries_of(t, i); lane++) {
        int64_t row = token_of(t, first_query(t, i) + lane) - first;
        for (; tokens <= row; tokens++)
            t->p->kernel->halves(twg_mask(t->p->mask, first + tokens, key, t->i3), f32[tokens],
                                 keys);
        rows[lane] = f32[row];
    }
    /* Of a few keys too many, which are not used. */
    t->p->kernel->turn(rows, queries_of(t, i), (keys + 3) / 4 * 4, TWG_LOG2_E, t->mask);
}

static void run_task(const task *t) {
    const plan *p = t->p;
    for (int64_t i = 0; i < t->tiles; i++) begin_tile(t, i);
    for (int64_t key = 0; key < p->keys; key += TWG_KEYS) {
        int64_t keys = twg_min(p->keys - key, TWG_KEYS);
        bool loaded = false;
        for (int64_t i = 0; i < t->tiles; i++) {
            bool open;
            int64_t last = first_query(t, i) + queries_of(t, i) - 1;
            int64_t visible = twg_visible(p->kernel, p->mask, token_of(t, first_query(t, i)),
                                          token_of(t, last), t->i3, key, keys, &open);
            if (!visible) continue;
            twg_attention_tile tile = tile_at(t, i);
            tile.keys = keys;
            if (!loaded) {
                load_rows(t, p->k, key, keys, t->k);
                load_rows(t, p->v, key, keys, t->v);
                if (p->kernel->keys) p->kernel->keys(&tile);
                loaded = true;
            }
            tile.keys = visible;
            if (!open) load_mask(t, i, key, visible);
            tile.mask = open ? NULL : t->mask;
            p->kernel->step(&tile);
        }
    }
    for (int64_t i = 0; i < t->tiles; i++) end_tile(t, i);
}

bool twg_attention_is_few(const twg_attention *attention) { return is_few(&attention->part.y); }

void twg_attention_run(struct ggml_tensor *stand_in, int ith, int nth, void *user) {
    twg_attention *operation = user;
    const struct ggml_tensor *node = &operation->part.y;
    (void)stand_in;
    if (ith >= operation->threads || ggml_is_empty(node)) return;
    if (is_few(node)) {
        twg_few_run(node, ith, nth, operation);
        return;
    }
    plan p = plan_of(node, nth);
    p.kernel = kernel_for(node, operation->strict);
    p.scale = operation->scale * TWG_LOG2_E;
    task t = {.p = &p};
    t.k = (float *)(operation->scratch + (size_t)ith * operation->scratch_size);
    t.v = t.k + TWG_KEYS * p.dk;
    t.turned = t.v + TWG_KEYS * p.dv;
    t.scores = t.turned + TWG_KEYS * p.dv;
    t.mask = t.scores + TWG_KEYS * TWG_QUERIES;
    t.tile = t.mask + TWG_KEYS * TWG_QUERIES;
    /* Keys past the last are multiplied, too, if not used. */
    memset(t.k, 0, (size_t)(TWG_KEYS * p.dk) * sizeof(float));
    int64_t i;
    /* The last queries first: they see the most keys. */
    while ((i = p.tasks - 1 - (int64_t)atomic_fetch_add(&operation->next, 1)) >= 0) {
        int64_t key_head = i % p.key_heads;
        t.i3 = key_head / p.k->ne[2];
        t.head = key_head % p.k->ne[2];
        t.first = i / p.key_heads * p.task_tiles;
        t.tiles = twg_min(p.tiles - t.first, p.task_tiles);
        run_task(&t);
    }
}
