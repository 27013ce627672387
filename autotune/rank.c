/* Sorting by the templates' cost models, and picking from the sorted space. */
#include "autotune/rank.h"

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

enum { OWN_SHARE = 2 };

/* How a point relates to those picked before it. */
typedef struct kin {
    int own;    /* of its template */
    bool equal; /* one costs the same */
} kin;

static kin kin_of(const tw_space *space, const int *picked, int count, int i) {
    const tw_point *p = &space->points[i];
    kin k = {0};
    for (int j = 0; j < count; j++) {
        const tw_point *other = &space->points[picked[j]];
        if (other->tmpl != p->tmpl) continue;
        k.own++;
        k.equal = k.equal || other->cost == p->cost;
    }
    return k;
}

int tw_rank_pick(const tw_space *space, bool *taken, int room, int *out) {
    enum { SHARES, DISTINCT, ANY, PASSES };
    int count = 0;
    for (int pass = 0; pass < PASSES; pass++)
        for (int i = 0; i < space->count && count < room; i++) {
            if (taken[i]) continue;
            kin k = kin_of(space, out, count, i);
            if ((pass <= DISTINCT && k.equal) || (pass == SHARES && k.own == OWN_SHARE)) continue;
            taken[i] = true;
            out[count++] = i;
        }
    return count;
}
