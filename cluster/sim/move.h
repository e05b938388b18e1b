/* SPDX-License-Identifier: ISC */
/*
 * move: live migrations, as the hand-over of two migrds does them.
 */
#ifndef CLUSTER_SIM_MOVE_H
#define CLUSTER_SIM_MOVE_H

#include "cluster/sim/world.h"

/* An action of the core of node n. */
void move_begin(struct world *w, struct node *n, const struct ha_action *a);
void move_cancel(struct world *w, struct node *n, const struct ha_action *a);
/* By hand, with no command to the cluster before it. */
void move_by_hand(struct world *w, uint32_t domain, uint32_t to);
/* None is on its way; else *why, of at most `size`, has one. */
bool moves_over(const struct world *w, char *why, size_t size);

#endif
