/* SPDX-License-Identifier: ISC */
/*
 * ring: corosync of all nodes.
 */
#ifndef CLUSTER_SIM_RING_H
#define CLUSTER_SIM_RING_H

#include "cluster/sim/world.h"

void ring_start(struct world *w, uint32_t node);
void ring_stop(struct world *w, uint32_t node);
/* Stopped and going on, as often as it was stopped. */
void ring_pause(struct world *w, uint32_t node, bool on);
void ring_join(struct world *w, uint32_t node);  /* our daemon */
void ring_leave(struct world *w, uint32_t node); /* it died */
void ring_send(struct world *w, uint32_t node, const uint8_t *bytes, size_t len);
/* After a change of links or of who is alive. */
void ring_look(struct world *w);
void ring_free(struct world *w);

#endif
