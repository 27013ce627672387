/* The search space of one problem: every legal config of every template that takes it. */
#ifndef TW_AUTOTUNE_SPACE_H
#define TW_AUTOTUNE_SPACE_H

#include "templates/template.h"

typedef struct tw_point {
    const tw_template *tmpl;
    tw_config config;
    double cost; /* tmpl->cost: only its order matters */
} tw_point;

typedef struct tw_space {
    tw_point *points; /* owned */
    int count, capacity;
} tw_space;

/* Adds each combination of the template's axes, and of its guess's values where they lie off the
 * axes, that its reject() lets pass.  The template must take the problem.  Errors: MEMORY. */
tw_status tw_space_add(tw_space *space, const tw_template *tmpl, const tw_target *target,
                       const tw_problem *problem);
void tw_space_free(tw_space *space);

/* Index of a point, -1 when it is not in the space. */
int tw_space_find(const tw_space *space, const tw_template *tmpl, const tw_config *config);

enum { TW_MAX_NEIGHBOURS = 2 * TW_TUNABLE_COUNT };
/* One step along each axis from point i: to the nearest legal value on either side, the other axes
 * as they are.  Returns how many there are. */
int tw_space_neighbours(const tw_space *space, int i, int out[TW_MAX_NEIGHBOURS]);

#endif
