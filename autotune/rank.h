/* The order in which configs are worth measuring, before anything was measured. */
#ifndef TW_AUTOTUNE_RANK_H
#define TW_AUTOTUNE_RANK_H

#include "autotune/space.h"

/* Least estimated cost first; equal costs by how few tunables differ from the template's guess,
 * then in the order of rows and axes, so that runs agree.  Errors: MEMORY. */
tw_status tw_rank(tw_space *space, const tw_target *target, const tw_problem *problem);

/* Picks up to `room` points that are not `taken`, best first, into out; marks them taken; *picked:
 * how many.  As long as there is room each template gets its best, then each its second: costs of
 * different templates are harder to compare than those of one.  Points that share values with those
 * picked before them wait, unless they are clearly cheaper: a first look should be all over the
 * space, the neighbourhood of the best comes later.  Errors: MEMORY. */
tw_status tw_rank_pick(const tw_space *space, bool *taken, int room, int *out, int *picked);

#endif
