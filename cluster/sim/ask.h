/* SPDX-License-Identifier: ISC */
/*
 * ask: commands to the cores, of operators and of hand-overs, and whether what was acknowledged
 * holds.
 */
#ifndef CLUSTER_SIM_ASK_H
#define CLUSTER_SIM_ASK_H

#include "cluster/sim/world.h"

/* Sends it; returns its number, whose state tells the rest. ASK_LOST: nobody is there to ask. */
uint32_t ask(struct world *w, uint32_t via, const struct ask *question);
void ask_step(struct world *w, struct node *n, uint32_t number,
    void (*step)(struct world *, struct node *, const struct ha_event *));
void ask_answered(struct world *w, struct node *n, const struct ha_action *a);
void ask_daemon_died(struct world *w, struct node *n);

#endif
