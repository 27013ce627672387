/* FLASH_ATTN_EXT of few queries, as of single tokens: vectors lie along keys and values as they are
 * in memory.
 *
 * Behind many tokens the time is that of reading their keys and values, of which all heads' lie
 * side by side: each thread reads some tokens, and who is done last puts together what came of
 * them.  Behind few tokens, or of several sequences, a task is some of the queries that share a key
 * head, against all keys. */
#include "hosts/ggml/attention_node.h"

/* Keys that are worth a thread's part. */
enum { PART_KEYS = 64 };

/* One operation as all threads see it. */
typedef struct plan {
    const struct ggml_tensor *y, *q, *k, *v, *mask, *sinks;
    const twg_attention_kernel *kernel;
    float scale;       /* into units of log2 */
    int64_t together;  /* heads that share keys: head h of token t is query t * together + h */
    int64_t queries;   /* of one key head */
    int64_t key_heads; /* of all sequences */
    int64_t units;     /* of one key head */
    int64_t keys;      /* up to the last that anybody sees */
    int64_t parts;     /* of keys, for which there is a task each; 0: a task for each unit */
} plan;

/* Some of the queries that share a key head. */
typedef struct unit {
    int64_t i3, key_head;
    int64_t first, count; /* queries */
} unit;

/* What has come of a unit's keys so far. */
typedef struct state {
    float most[TWG_FEW], sum[TWG_FEW];
    float numbers[]; /* scaled queries, and what comes of values */
} state;

/* ---- the plan ---- */

static int64_t last_key(const plan *p) {
    int64_t key = (p->k->ne[1] - 1) / TWG_FEW_KEYS * TWG_FEW_KEYS;
    for (; p->mask && key >= 0; key -= TWG_FEW_KEYS)
        for (int64_t i3 = 0; i3 < p->mask->ne[3]; i3++) {
            bool open;
            int64_t seen = twg_visible(p->kernel, p->mask, 0, p->q->ne[1] - 1, i3, key,
                                       twg_min(p->k->ne[1] - key, TWG_FEW_KEYS), &open);
            if (seen) return p->mask->ne[3] > 1 ? p->k->ne[1] : key + seen;
        }
    return p->mask ? 0 : p->k->ne[1];
}

/* Queries of a unit, at most, where each is a task: those that end the slowest thread's share
 * soonest.  Loading keys is worth LOAD queries. */
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
    p.keys = last_key(&p);
    p.parts = p.q->ne[3] == 1 && p.keys >= (int64_t)PART_KEYS * nth ? nth : 0;
    p.units = twg_ceil_div(p.queries, p.parts ? TWG_FEW : queries_each(&p, nth));
    return p;
}

static bool halves(const struct ggml_tensor *t) {
    return t->type == GGML_TYPE_F16 && t->nb[0] == sizeof(ggml_fp16_t) &&
           t->ne[0] % TWG_FEW_MULTIPLE == 0;
}

bool twg_few_takes(const struct ggml_tensor *node) {
    return halves(node->src[1]) && halves(node->src[2]);
}

static size_t state_size(const struct ggml_tensor *node) {
    int64_t numbers = TWG_FEW * (node->src[1]->ne[0] + node->src[2]->ne[0]);
    return (sizeof(state) + (size_t)numbers * sizeof(float) + 63) / 64 * 64;
}

/* The states of one part's units. */
size_t twg_few_scratch(const struct ggml_tensor *node) {
    const struct ggml_tensor *q = node->src[0], *k = node->src[1];
    int64_t units = k->ne[2] * twg_ceil_div(q->ne[1] * (q->ne[2] / k->ne[2]), TWG_FEW);
    return state_size(node) * (size_t)(q->ne[3] == 1 ? units : 1);
}

/* ---- units ---- */

/* Units of a key head differ by one query at most. */
static unit unit_of(const plan *p, int64_t key_head, int64_t i) {
    int64_t first = i * p->queries / p->units, end = (i + 1) * p->queries / p->units;
    return (unit){key_head / p->k->ne[2], key_head % p->k->ne[2], first, end - first};
}

static int64_t head_of(const plan *p, const unit *u, int64_t i) {
    return u->key_head * p->together + (u->first + i) % p->together;
}

static void begin(const plan *p, const unit *u, state *s) {
    int64_t dk = p->k->ne[0];
    memset(s->sum, 0, sizeof s->sum);
    memset(s->numbers + TWG_FEW * dk, 0, (size_t)(u->count * p->v->ne[0]) * sizeof(float));
    for (int64_t i = 0; i < u->count; i++) {
        const float *row = twg_query(p->q, (u->first + i) / p->together, head_of(p, u, i), u->i3);
        for (int64_t d = 0; d < dk; d++) s->numbers[i * dk + d] = row[d] * p->scale;
        s->most[i] = TWG_NOTHING;
    }
}

/* Keys [key, key + keys), at most TWG_FEW_KEYS. */
static void step(const plan *p, const unit *u, int64_t key, int64_t keys, state *s) {
    float mask[TWG_FEW * TWG_FEW_KEYS];
    bool open;
    twg_attention_few few = {.queries = u->count,
                             .dk = p->k->ne[0],
                             .dv = p->v->ne[0],
                             .k_step = p->k->nb[1],
                             .v_step = p->v->nb[1],
                             .q = s->numbers,
                             .most = s->most,
                             .sum = s->sum,
                             .out = s->numbers + TWG_FEW * p->k->ne[0]};
    few.keys = twg_visible(p->kernel, p->mask, u->first / p->together,
                           (u->first + u->count - 1) / p->together, u->i3, key, keys, &open);
    if (!few.keys) return;
    few.k = (const uint16_t *)twg_keys(p->k, key, u->key_head, u->i3, p->q->ne[3]);
    few.v = (const uint16_t *)twg_keys(p->v, key, u->key_head, u->i3, p->q->ne[3]);
    few.mask = open ? NULL : mask;
    for (int64_t i = 0; i < u->count && !open; i++)
        p->kernel->halves(twg_mask(p->mask, (u->first + i) / p->together, key, u->i3),
                          mask + i * TWG_FEW_KEYS, few.keys);
    p->kernel->few(&few);
}

/* The result of a unit from its states of all parts, `size` bytes from one to the next. */
static void finish(const plan *p, const unit *u, const char *states, size_t size, int64_t parts) {
    int64_t dv = p->v->ne[0];
    for (int64_t i = 0; i < u->count; i++) {
        float most = TWG_NOTHING, sum = 0,
              *row = twg_result(p->y, (u->first + i) / p->together, head_of(p, u, i), u->i3);
        for (int64_t part = 0; part < parts; part++) {
            const state *s = (const state *)(states + (size_t)part * size);
            if (s->most[i] > most) most = s->most[i];
        }
        for (int64_t d = 0; d < dv; d++) row[d] = 0;
        for (int64_t part = 0; part < parts; part++) {
            const state *s = (const state *)(states + (size_t)part * size);
            const float *out = s->numbers + TWG_FEW * p->k->ne[0] + i * dv;
            float factor = exp2f(s->most[i] - most);
            sum += s->sum[i] * factor;
            for (int64_t d = 0; d < dv; d++) row[d] += out[d] * factor;
        }
        float factor = twg_last_factor(p->sinks, head_of(p, u, i), most, sum);
        for (int64_t d = 0; d < dv; d++) row[d] *= factor;
    }
}

/* ---- tasks ---- */

static void run_unit(const plan *p, const unit *u, state *s) {
    begin(p, u, s);
    for (int64_t key = 0; key < p->keys; key += TWG_FEW_KEYS)
        step(p, u, key, twg_min(p->keys - key, TWG_FEW_KEYS), s);
    finish(p, u, (const char *)s, 0, 1);
}

static void run_part(const plan *p, int64_t part, char *states, size_t size) {
    enum { ALIGN = 8 };
    int64_t each = (twg_ceil_div(p->keys, p->parts) + ALIGN - 1) / ALIGN * ALIGN,
            first = part * each, end = twg_min(first + each, p->keys);
    for (int64_t i = 0; i < p->key_heads * p->units; i++) {
        unit u = unit_of(p, i / p->units, i % p->units);
        begin(p, &u, (state *)(states + (size_t)i * size));
    }
    for (int64_t key = first; key < end; key += TWG_FEW_KEYS)
        for (int64_t i = 0; i < p->key_heads * p->units; i++) {
            unit u = unit_of(p, i / p->units, i % p->units);
            step(p, &u, key, twg_min(end - key, TWG_FEW_KEYS),
                 (state *)(states + (size_t)i * size));
        }
}

void twg_few_run(const struct ggml_tensor *node, int ith, int nth, twg_attention *operation) {
    plan p = plan_of(node, nth < operation->threads ? nth : operation->threads);
    size_t size = state_size(node), apart = operation->scratch_size;
    int64_t i, units = p.key_heads * p.units, tasks = p.parts ? p.parts : units;
    p.scale = operation->scale * TWG_LOG2_E;
    while ((i = (int64_t)atomic_fetch_add(&operation->next, 1)) < tasks) {
        if (!p.parts) {
            unit u = unit_of(&p, i % p.key_heads, i / p.key_heads);
            run_unit(&p, &u, (state *)(operation->scratch + (size_t)ith * apart));
            continue;
        }
        run_part(&p, i, operation->scratch + (size_t)i * apart, size);
        if (atomic_fetch_add(&operation->done, 1) + 1 < (size_t)p.parts) continue;
        for (int64_t j = 0; j < units; j++) {
            unit u = unit_of(&p, j / p.units, j % p.units);
            finish(&p, &u, operation->scratch + (size_t)j * size, apart, p.parts);
        }
    }
}
