/* Enumeration of the axes, and steps along one of them. */
#include "autotune/space.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/status.h"

static tw_status add_point(tw_space *space, const tw_template *tmpl, const tw_target *target,
                           const tw_problem *problem, const tw_config *config) {
    if (space->count == space->capacity) {
        int capacity = space->capacity ? 2 * space->capacity : 256;
        tw_point *points = realloc(space->points, (size_t)capacity * sizeof *points);
        if (!points)
            return tw_fail(TW_MEMORY, "search space: %d configs do not fit memory", capacity);
        space->points = points;
        space->capacity = capacity;
    }
    space->points[space->count++] = (tw_point){tmpl, *config, tmpl->cost(target, problem, config)};
    return TW_OK;
}

/* The template's axis, and the guess's value where that is another one: so that there are steps
 * from the guess in every direction. */
typedef struct widened {
    int tunable, count, at;
    int32_t values[TW_SPACE_VALUES + 1];
} widened;

static widened widen(const tw_axis *axis, const tw_config *guess) {
    widened w = {axis->tunable, 0, 0, {0}};
    tw_config copy = *guess;
    int32_t wanted = *tw_config_field(&copy, axis->tunable);
    bool there = false;
    for (int i = 0; i < axis->count; i++) {
        w.values[w.count++] = axis->values[i];
        there = there || axis->values[i] == wanted;
    }
    if (!there) w.values[w.count++] = wanted;
    return w;
}

/* The next combination, like an odometer; false after the last one. */
static bool advance(widened *axes, int count, tw_config *config) {
    for (int i = 0; i < count; i++) {
        bool wraps = ++axes[i].at == axes[i].count;
        if (wraps) axes[i].at = 0;
        *tw_config_field(config, axes[i].tunable) = axes[i].values[axes[i].at];
        if (!wraps) return true;
    }
    return false;
}

tw_status tw_space_add(tw_space *space, const tw_template *tmpl, const tw_target *target,
                       const tw_problem *problem) {
    widened axes[TW_TUNABLE_COUNT];
    tw_config guess = {0}, config = {0};
    tmpl->guess(target, problem, &guess);
    for (int i = 0; i < tmpl->axes; i++) {
        axes[i] = widen(&tmpl->space[i], &guess);
        *tw_config_field(&config, axes[i].tunable) = axes[i].values[0];
    }
    do {
        if (!tmpl->reject(target, problem, &config))
            TW_TRY(add_point(space, tmpl, target, problem, &config));
    } while (advance(axes, tmpl->axes, &config));
    /* A guess may set a tunable that is no axis. */
    if (tw_space_find(space, tmpl, &guess) >= 0) return TW_OK;
    return add_point(space, tmpl, target, problem, &guess);
}

void tw_space_free(tw_space *space) {
    free(space->points);
    *space = (tw_space){0};
}

int tw_space_find(const tw_space *space, const tw_template *tmpl, const tw_config *config) {
    for (int i = 0; i < space->count; i++)
        if (space->points[i].tmpl == tmpl &&
            !memcmp(&space->points[i].config, config, sizeof *config))
            return i;
    return -1;
}

/* The tunable in which two configs differ; -1 when in none or in several. */
static int only_difference(tw_config a, tw_config b) {
    int found = -1;
    for (int i = 0; i < TW_TUNABLE_COUNT; i++) {
        if (*tw_config_field(&a, i) == *tw_config_field(&b, i)) continue;
        if (found >= 0) return -1;
        found = i;
    }
    return found;
}

int tw_space_neighbours(const tw_space *space, int i, int out[TW_MAX_NEIGHBOURS]) {
    /* nearest[t][0]: the next smaller value of tunable t, nearest[t][1]: the next larger one */
    int nearest[TW_TUNABLE_COUNT][2], count = 0;
    memset(nearest, -1, sizeof nearest);
    tw_config here = space->points[i].config;
    for (int j = 0; j < space->count; j++) {
        tw_config there = space->points[j].config;
        if (space->points[j].tmpl != space->points[i].tmpl) continue;
        int t = only_difference(here, there);
        if (t < 0) continue;
        int64_t step = (int64_t)*tw_config_field(&there, t) - *tw_config_field(&here, t);
        int *best = &nearest[t][step > 0];
        if (*best >= 0) {
            int32_t known = *tw_config_field(&space->points[*best].config, t);
            if (llabs((int64_t)known - *tw_config_field(&here, t)) <= llabs(step)) continue;
        }
        *best = j;
    }
    for (int t = 0; t < TW_TUNABLE_COUNT; t++)
        for (int side = 0; side < 2; side++)
            if (nearest[t][side] >= 0) out[count++] = nearest[t][side];
    return count;
}
