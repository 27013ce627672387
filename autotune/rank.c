/* Sorting by the templates' cost models, and picking from the sorted space. */
#include "autotune/rank.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

#include "src/base/status.h"

typedef struct ranked {
    tw_point point;
    int distance, index;
} ranked;

static int by_cost(const void *left, const void *right) {
    const ranked *a = left, *b = right;
    /* A model that gives no number says nothing for its config. */
    double x = isnan(a->point.cost) ? INFINITY : a->point.cost;
    double y = isnan(b->point.cost) ? INFINITY : b->point.cost;
    if (x != y) return x < y ? -1 : 1;
    if (a->distance != b->distance) return a->distance < b->distance ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

/* Tunables in which a point differs from its template's guess. */
static int distance(const tw_point *point, const tw_target *target, const tw_problem *problem) {
    tw_config guess = {0}, config = point->config;
    point->tmpl->guess(target, problem, &guess);
    int count = 0;
    for (int i = 0; i < TW_TUNABLE_COUNT; i++)
        count += *tw_config_field(&guess, i) != *tw_config_field(&config, i);
    return count;
}

tw_status tw_rank(tw_space *space, const tw_target *target, const tw_problem *problem) {
    ranked *all = malloc((size_t)space->count * sizeof *all + 1);
    if (!all) return tw_fail(TW_MEMORY, "search space: %d configs do not fit memory", space->count);
    for (int i = 0; i < space->count; i++)
        all[i] = (ranked){space->points[i], distance(&space->points[i], target, problem), i};
    qsort(all, (size_t)space->count, sizeof *all, by_cost);
    for (int i = 0; i < space->count; i++) space->points[i] = all[i].point;
    free(all);
    return TW_OK;
}

/* What it costs a point to share one tunable's value with one that was picked, relative to its
 * cost. */
static const double SHARED = 0.003;
enum { OWN_SHARE = 2 };

/* Tunables in which two configs agree. */
static int agreement(tw_config a, tw_config b) {
    int count = 0;
    for (int i = 0; i < TW_TUNABLE_COUNT; i++)
        count += *tw_config_field(&a, i) == *tw_config_field(&b, i);
    return count;
}

/* The free point with the least dearness, of templates that have fewer than `share` picked; -1 when
 * there is none. */
static int least(const tw_space *space, const bool *taken, const double *dear, const int *picked,
                 int count, int share) {
    int best = -1;
    double best_score = INFINITY;
    for (int i = 0; i < space->count; i++) {
        const tw_point *p = &space->points[i];
        double score = isnan(p->cost) ? INFINITY : p->cost * dear[i];
        if (taken[i] || (best >= 0 && score >= best_score)) continue;
        int own = 0;
        for (int j = 0; j < count; j++) own += space->points[picked[j]].tmpl == p->tmpl;
        if (own >= share) continue;
        best = i;
        best_score = score;
    }
    return best;
}

tw_status tw_rank_pick(const tw_space *space, bool *taken, int room, int *out, int *picked) {
    double *dear = malloc((size_t)space->count * sizeof *dear + 1);
    if (!dear)
        return tw_fail(TW_MEMORY, "search space: %d configs do not fit memory", space->count);
    for (int i = 0; i < space->count; i++) dear[i] = 1;
    int count = 0;
    /* One of each template before a second of any: models are furthest off between templates, and
     * of slow kernels a wave may have time for few. */
    for (int share = 1; count < room;) {
        int id = least(space, taken, dear, out, count, share);
        if (id < 0 && share > OWN_SHARE) break;
        if (id < 0) {
            share = share < OWN_SHARE ? share + 1 : INT_MAX;
            continue;
        }
        taken[id] = true;
        out[count++] = id;
        const tw_point *p = &space->points[id];
        for (int i = 0; i < space->count; i++)
            if (space->points[i].tmpl == p->tmpl)
                dear[i] += SHARED * agreement(space->points[i].config, p->config);
    }
    free(dear);
    *picked = count;
    return TW_OK;
}
