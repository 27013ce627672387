/* What is done with queries, keys and values between their products and attention: ROPE, and
 * SET_ROWS into the caches.
 *
 * Each concerns a token at a time, so one operation does them all, thread by thread some tokens: a
 * barrier instead of four.  The angles of ROPE are the same in each layer; their cosines and sines
 * are found once a graph. */
#include <math.h>
#include <stdlib.h>

#include "hosts/ggml/attention.h"
#include "hosts/ggml/backend.h"

/* MOST_ANGLES: numbers in a table, which is of a prompt's tokens, not of a cache's. */
enum { WIDTH = 16, MOST_ANGLES = 1 << 21 };
typedef float floats __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));

/* A parameter of a ROPE, where ggml has it. */
static float parameter(const struct ggml_tensor *rope, int i) {
    float value;
    memcpy(&value, rope->op_params + i, sizeof value);
    return value;
}

static twg_rotation rotation_of(const struct ggml_tensor *rope) {
    return (twg_rotation){.dims = rope->op_params[1],
                          .mode = rope->op_params[2],
                          .base = parameter(rope, 5),
                          .scale = parameter(rope, 6),
                          .magnitude = parameter(rope, 8)};
}

/* ---- what is taken ---- */

static bool is_leaf(const struct ggml_tensor *t) { return t->op == GGML_OP_NONE && !t->view_src; }

static bool takes_rope(const struct ggml_tensor *node) {
    const struct ggml_tensor *x = node->src[0], *positions = node->src[1], *factors = node->src[2];
    int32_t mode = rotation_of(node).mode, dims = rotation_of(node).dims;
    return twg_plain_rows(x) && twg_plain_rows(node) && node->ne[3] == 1 && twg_in_step(x, node) &&
           is_leaf(positions) && positions->type == GGML_TYPE_I32 &&
           ggml_is_contiguous(positions) &&
           (!factors || (is_leaf(factors) && factors->type == GGML_TYPE_F32 &&
                         ggml_is_contiguous(factors) && factors->ne[0] >= dims / 2)) &&
           dims % 2 == 0 && dims <= node->ne[0] && 2 * dims * node->ne[2] <= MOST_ANGLES &&
           (mode == GGML_ROPE_TYPE_NORMAL || mode == GGML_ROPE_TYPE_NEOX) &&
           parameter(node, 7) == 0 && /* nothing is extrapolated */
           node->op_params[15] == 0;  /* the first dimensions are those that are rotated */
}

static bool takes_rows(const struct ggml_tensor *node) {
    const struct ggml_tensor *x = node->src[0], *ids = node->src[1];
    return twg_plain_rows(x) && node->type == GGML_TYPE_F16 && node->nb[0] == sizeof(ggml_fp16_t) &&
           x->ne[2] * x->ne[3] == 1 && ids->type == GGML_TYPE_I64 && ggml_is_contiguous(ids) &&
           !twg_overlap(node, x);
}

bool twg_heads_take(const struct ggml_tensor *node) {
    if ((node->op != GGML_OP_ROPE && node->op != GGML_OP_SET_ROWS) ||
        !(node->flags & GGML_TENSOR_FLAG_COMPUTE) || ggml_is_empty(node) ||
        ggml_is_empty(node->src[0]) || !twg_attention_kernel_at(0))
        return false;
    return node->op == GGML_OP_ROPE ? takes_rope(node) : takes_rows(node);
}

static int64_t tokens_of(const struct ggml_tensor *node) {
    return node->op == GGML_OP_ROPE ? node->ne[2] : node->src[0]->ne[1];
}

/* Whether a step's source is the row of a token that the ROPE has just made of the same token. */
static bool follows(const struct ggml_tensor *rope, const struct ggml_tensor *x) {
    return rope->data == x->data && rope->nb[2] == x->nb[1] &&
           ggml_nbytes(rope) == ggml_nbytes(x) && (size_t)x->ne[0] * sizeof(float) <= x->nb[1];
}

static bool reads(const struct ggml_tensor *node, const struct ggml_tensor *written) {
    for (int i = 0; i < 3; i++)
        if (node->src[i] && twg_overlap(node->src[i], written)) return true;
    return false;
}

/* Whether two steps may go through the tokens side by side, if those of `first` are done before. */
static bool agree(const twg_step *first, const struct ggml_tensor *node) {
    const struct ggml_tensor *before = first->node;
    if (twg_overlap(before, node) || reads(before, node)) return false;
    return !reads(node, before) ||
           (first->angles && node->op == GGML_OP_SET_ROWS && follows(before, node->src[0]));
}

/* ---- angles ---- */

static bool same_rotation(const twg_rotation *a, const twg_rotation *b) {
    return a->dims == b->dims && a->mode == b->mode && a->base == b->base && a->scale == b->scale &&
           a->magnitude == b->magnitude;
}

/* Those of a ROPE in some place, for all tokens; NULL: there is no room, or they are found later.
 * *makes: nobody finds them yet. */
static twg_angles *angles_of(twg_angles_shared *shared, const struct ggml_cgraph *graph,
                             const struct ggml_tensor *rope, int place, bool *makes) {
    twg_rotation rotation = rotation_of(rope);
    *makes = false;
    for (int i = 0; i < shared->count; i++) {
        twg_angles *a = &shared->all[i];
        if (a->positions == rope->src[1] && a->factors == rope->src[2] &&
            same_rotation(&a->rotation, &rotation))
            return a->place <= place ? a : NULL;
    }
    if (shared->count == TWG_MOST_ANGLES || twg_written_by(graph, rope->src[1]) ||
        (rope->src[2] && twg_written_by(graph, rope->src[2])))
        return NULL;
    twg_angles *angles = &shared->all[shared->count];
    size_t needed = (size_t)(2 * rotation.dims * rope->ne[2]);
    if (angles->capacity < needed) {
        free(angles->table);
        angles->table = malloc(needed * sizeof *angles->table);
        angles->capacity = angles->table ? needed : 0;
        if (!angles->table) return NULL;
    }
    shared->count++;
    angles->positions = rope->src[1];
    angles->factors = rope->src[2];
    angles->rotation = rotation;
    angles->place = place;
    *makes = true;
    return angles;
}

void twg_angles_free(twg_angles_shared *shared) {
    for (int i = 0; i < TWG_MOST_ANGLES; i++) free(shared->all[i].table);
}

static float *row_of_angles(const twg_angles *angles, int64_t token) {
    return angles->table + 2 * angles->rotation.dims * token;
}

/* Cosines, then sines: of pairs that are neighbours one for each number, as it is multiplied by. */
static void find_angles(const twg_angles *angles, int64_t token) {
    const twg_rotation *r = &angles->rotation;
    const float *factors = angles->factors ? angles->factors->data : NULL;
    const float step = powf(r->base, -2.0f / (float)r->dims);
    float theta = (float)((const int32_t *)angles->positions->data)[token];
    float *to = row_of_angles(angles, token);
    int n = r->dims;
    for (int i = 0; i < n / 2; i++, theta *= step) {
        float angle = r->scale * (theta / (factors ? factors[i] : 1));
        float cosine = cosf(angle) * r->magnitude, sine = sinf(angle) * r->magnitude;
        if (r->mode == GGML_ROPE_TYPE_NEOX) {
            to[i] = cosine;
            to[n / 2 + i] = sine;
        } else {
            to[2 * i] = to[2 * i + 1] = cosine;
            to[n + 2 * i] = -sine;
            to[n + 2 * i + 1] = sine;
        }
    }
}

/* ---- rows ---- */

/* Pairs of neighbours; y may be x. */
TWG_CLONES static void rotate_neighbours(const float *x, const float *cosines, int n, float *y) {
    const float *sines = cosines + n;
    int i = 0;
    for (; i + WIDTH <= n; i += WIDTH) {
        floats v = *(const floats *)(x + i),
               turned = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12,
                                                15, 14);
        *(floats *)(y + i) =
            v * *(const floats *)(cosines + i) + turned * *(const floats *)(sines + i);
    }
    for (; i < n; i += 2) {
        float a = x[i], b = x[i + 1];
        y[i] = a * cosines[i] + b * sines[i];
        y[i + 1] = b * cosines[i + 1] + a * sines[i + 1];
    }
}

/* Pairs that are half of n apart; y may be x. */
TWG_CLONES static void rotate_halves(const float *x, const float *cosines, int n, float *y) {
    const int half = n / 2;
    const float *sines = cosines + half;
    int i = 0;
    for (; i + WIDTH <= half; i += WIDTH) {
        floats a = *(const floats *)(x + i), b = *(const floats *)(x + half + i),
               cosine = *(const floats *)(cosines + i), sine = *(const floats *)(sines + i);
        *(floats *)(y + i) = a * cosine - b * sine;
        *(floats *)(y + half + i) = a * sine + b * cosine;
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        y[i] = a * cosines[i] - b * sines[i];
        y[half + i] = a * sines[i] + b * cosines[i];
    }
}

static void rotate(const twg_step *step, int64_t token) {
    const struct ggml_tensor *y = step->node, *x = y->src[0];
    const int n = step->angles->rotation.dims;
    if (step->makes) find_angles(step->angles, token);
    const float *angles = row_of_angles(step->angles, token);
    for (int64_t head = 0; head < y->ne[1]; head++) {
        const float *from =
            (const float *)(const void *)((const char *)x->data + (size_t)head * x->nb[1] +
                                          (size_t)token * x->nb[2]);
        float *to =
            (float *)(void *)((char *)y->data + (size_t)head * y->nb[1] + (size_t)token * y->nb[2]);
        if (step->angles->rotation.mode == GGML_ROPE_TYPE_NEOX)
            rotate_halves(from, angles, n, to);
        else
            rotate_neighbours(from, angles, n, to);
        if (to != from) memcpy(to + n, from + n, (size_t)(y->ne[0] - n) * sizeof *to);
    }
}

static void store(const twg_step *step, int64_t token) {
    const struct ggml_tensor *y = step->node, *x = y->src[0];
    int64_t row = ((const int64_t *)y->src[1]->data)[token];
    GGML_ASSERT(row >= 0 && row < y->ne[1]);
    twg_attention_kernel_at(0)->to_halves(
        (const float *)(const void *)((const char *)x->data + (size_t)token * x->nb[1]),
        (uint16_t *)(void *)((char *)y->data + (size_t)row * y->nb[1]), x->ne[0]);
}

/* ---- the operation ---- */

bool twg_heads_add(twg_heads *heads, const struct ggml_cgraph *graph,
                   const struct ggml_tensor *node, twg_angles_shared *shared) {
    twg_step step = {.node = node};
    if (heads->count == TWG_MOST_STEPS || (heads->count && tokens_of(node) != heads->tokens))
        return false;
    for (int i = 0; i < heads->count; i++)
        if (!agree(&heads->steps[i], node)) return false;
    if (node->op == GGML_OP_ROPE &&
        !(step.angles = angles_of(shared, graph, node, heads->place, &step.makes)))
        return false;
    heads->tokens = tokens_of(node);
    heads->steps[heads->count++] = step;
    return true;
}

void twg_heads_run(struct ggml_tensor *node, int ith, int nth, void *user) {
    const twg_heads *heads = user;
    int64_t end = twg_share(heads->tokens, ith + 1, nth);
    (void)node;
    for (int64_t token = twg_share(heads->tokens, ith, nth); token < end; token++)
        for (int i = 0; i < heads->count; i++)
            if (heads->steps[i].angles)
                rotate(&heads->steps[i], token);
            else
                store(&heads->steps[i], token);
}
