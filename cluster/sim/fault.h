/* SPDX-License-Identifier: ISC */
/*
 * fault: what a plan says is done to the world, and undone in the end.
 */
#ifndef CLUSTER_SIM_FAULT_H
#define CLUSTER_SIM_FAULT_H

#include "cluster/sim/world.h"

/* Makes the events of the plan's faults, counted from now. */
void faults_schedule(struct world *w);
/* Everything works again: hosts are up, nets whole, devices honest. */
void faults_heal(struct world *w);
/* For `ms`: no link of the node works; its daemon stands still. */
void isolate(struct world *w, uint32_t node, uint64_t ms);
void stop_daemon(struct world *w, struct node *n, uint64_t ms);
/* An operator asks for protection of a domain, where it runs if it does. */
void ask_add(struct world *w, uint32_t domain, uint32_t via);

#endif
