/* FLASH_ATTN_EXT of few queries, as of single tokens: vectors lie along keys and values as they are
 * in memory.  A task is some of the queries that share a key head, against all keys. */
#include "hosts/ggml/attention_node.h"

/* One operation as all threads see it. */
typedef struct plan {
    const struct ggml_tensor *y, *q, *k, *v, *mask, *sinks;
    const twg_attention_kernel *kernel;
    float scale;        /* into units of log2 */
    int64_t together;   /* heads that share keys: head h of token t is query t * together + h */
    int64_t queries;    /* of one key head */
    int64_t each;       /* of one task, at most */
    int64_t key_heads;  /* of all sequences */
    int64_t head_tasks; /* of one key head */
} plan;

/* Of a task: those that end the slowest thread's share soonest.  Loading keys is worth LOAD
 * queries. */
static int64_t queries_each(const plan *p, int nth) {
    const double LOAD = 1.1;
    int64_t best = 1;
    double least = 0;
    for (int64_t each = 1; each <= twg_min(p->queries, TWG_FEW); each++) {
        int64_t tasks = p->key_heads * twg_ceil_div(p->queries, each);
        double time = (double)twg_ceil_div(tasks, nth) * (LOAD + (double)each);
        if (least == 0 || time < least) {
            least = time;
            best = each;
        }
    }
    return best;
}

static plan plan_of(const struct ggml_tensor *node, int nth) {
    plan p = {.y = node,
              .q = node->src[0],
              .k = node->src[1],
              .v = node->src[2],
              .mask = node->src[3],
              .sinks = node->src[4],
              .kernel = twg_attention_kernel_at(0)};
    p.together = p.q->ne[2] / p.k->ne[2];
    p.queries = p.q->ne[1] * p.together;
    p.key_heads = p.k->ne[2] * p.q->ne[3];
    p.each = queries_each(&p, nth);
    p.head_tasks = twg_ceil_div(p.queries, p.each);
    return p;
}

static bool halves(const struct ggml_tensor *t) {
    return t->type == GGML_TYPE_F16 && t->nb[0] == sizeof(ggml_fp16_t) &&
           t->ne[0] % TWG_FEW_MULTIPLE == 0;
}

bool twg_few_takes(const struct ggml_tensor *node) {
    return halves(node->src[1]) && halves(node->src[2]);
}

/* q, what comes of values, and the mask. */
static int64_t scratch_floats(const struct ggml_tensor *node) {
    return TWG_FEW * (node->src[1]->ne[0] + node->src[2]->ne[0] + TWG_FEW_KEYS);
}

size_t twg_few_scratch(const struct ggml_tensor *node) {
    return ((size_t)scratch_floats(node) * sizeof(float) + 63) / 64 * 64;
}

/* Keys of a task that are looked at together. */
typedef struct block {
    int64_t key, keys; /* from `key` on so many; 0: there are no more */
    bool open;         /* all queries see all of them as they are */
    const char *k, *v; /* rows of those keys and values */
} block;

/* Some of the queries that share a key head. */
typedef struct task {
    const plan *p;
    int64_t i3, key_head;
    int64_t first, count; /* queries */
} task;

/* Since the last token a whole model has gone through the caches, so that these come from memory:
 * all of them are asked for at once. */
static void fetch(const char *row, size_t step, int64_t rows, size_t bytes) {
    for (int64_t i = 0; i < rows; i++, row += step)
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at);
}

/* The first keys from `key` on that anybody sees, on their way from memory. */
static block block_from(const task *t, int64_t key) {
    const plan *p = t->p;
    block b = {.key = key};
    for (; b.key < p->k->ne[1]; b.key += TWG_FEW_KEYS) {
        b.keys = twg_visible(p->kernel, p->mask, t->first / p->together,
                             (t->first + t->count - 1) / p->together, t->i3, b.key,
                             twg_min(p->k->ne[1] - b.key, TWG_FEW_KEYS), &b.open);
        if (b.keys) break;
    }
    b.k = twg_keys(p->k, b.key, t->key_head, t->i3, p->q->ne[3]);
    b.v = twg_keys(p->v, b.key, t->key_head, t->i3, p->q->ne[3]);
    fetch(b.k, p->k->nb[1], b.keys, (size_t)p->k->ne[0] * sizeof(ggml_fp16_t));
    fetch(b.v, p->v->nb[1], b.keys, (size_t)p->v->ne[0] * sizeof(ggml_fp16_t));
    return b;
}

static void run_task(const task *t, float *scratch) {
    const plan *p = t->p;
    float most[TWG_FEW], sum[TWG_FEW] = {0};
    int64_t dk = p->k->ne[0], dv = p->v->ne[0];
    float *q = scratch, *out = q + TWG_FEW * dk, *mask = out + TWG_FEW * dv;
    twg_attention_few few = {.queries = t->count,
                             .dk = dk,
                             .dv = dv,
                             .k_step = p->k->nb[1],
                             .v_step = p->v->nb[1],
                             .q = q,
                             .most = most,
                             .sum = sum,
                             .out = out};
    block at = block_from(t, 0), next;
    memset(out, 0, (size_t)(t->count * dv) * sizeof *out);
    for (int64_t i = 0; i < t->count; i++) {
        int64_t query = t->first + i, head = t->key_head * p->together + query % p->together;
        const float *row = twg_query(p->q, query / p->together, head, t->i3);
        for (int64_t d = 0; d < dk; d++) q[i * dk + d] = row[d] * p->scale;
        most[i] = TWG_NOTHING;
    }
    for (; at.keys; at = next) {
        next = block_from(t, at.key + TWG_FEW_KEYS);
        few.keys = at.keys;
        few.k = (const uint16_t *)at.k;
        few.v = (const uint16_t *)at.v;
        few.mask = at.open ? NULL : mask;
        for (int64_t i = 0; i < t->count && !at.open; i++)
            p->kernel->halves(twg_mask(p->mask, (t->first + i) / p->together, at.key, t->i3),
                              mask + i * TWG_FEW_KEYS, at.keys);
        p->kernel->few(&few);
    }
    for (int64_t i = 0; i < t->count; i++) {
        int64_t query = t->first + i, head = t->key_head * p->together + query % p->together;
        float factor = twg_last_factor(p->sinks, head, most[i], sum[i]),
              *row = twg_result(p->y, query / p->together, head, t->i3);
        for (int64_t d = 0; d < dv; d++) row[d] = out[i * dv + d] * factor;
    }
}

void twg_few_run(const struct ggml_tensor *node, int ith, int nth, twg_attention *operation) {
    plan p = plan_of(node, nth);
    p.scale = operation->scale * TWG_LOG2_E;
    float *scratch = (float *)(operation->scratch + (size_t)ith * operation->scratch_size);
    int64_t i, tasks = p.key_heads * p.head_tasks;
    while ((i = (int64_t)atomic_fetch_add(&operation->next, 1)) < tasks) {
        /* Shares of a key head that differ by one at most. */
        int64_t key_head = i % p.key_heads, part = i / p.key_heads;
        int64_t first = part * p.queries / p.head_tasks;
        int64_t end = (part + 1) * p.queries / p.head_tasks;
        const task t = {&p, key_head / p.k->ne[2], key_head % p.k->ne[2], first, end - first};
        run_task(&t, scratch);
    }
}
