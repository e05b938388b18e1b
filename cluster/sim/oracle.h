/* SPDX-License-Identifier: ISC */
/*
 * oracle: looks at everything after each event and says what must never be.
 */
#ifndef CLUSTER_SIM_ORACLE_H
#define CLUSTER_SIM_ORACLE_H

#include "cluster/sim/world.h"

bool oracle_init(struct world *w);
void oracle_free(struct world *w);

/* A guest begins to execute. */
void oracle_runs(struct world *w, const struct copy *c);
/* It is about to, with the memory that it has. */
void oracle_memory(struct world *w, const struct copy *c);
/* Its fuse has blown. */
void oracle_blown(struct world *w, const struct copy *c);
void oracle_start(struct world *w, struct node *n, uint32_t domain, const struct ha_action *a);
void oracle_fuse(struct world *w, struct node *n, const struct ha_action *a);
void oracle_message(struct world *w, struct node *n, const struct ha_action *a);
void oracle_watchdog(struct world *w, struct node *n, const struct ha_action *a);
/* A beat that `from` sent when its clock showed sent_ms has come to the core of n. */
void oracle_beat(struct world *w, struct node *n, uint32_t from, uint64_t life, uint64_t sent_ms);
void oracle_stepped(struct world *w, struct node *n, const struct ha_actions *out);
/* Something was wrong with the beats between them. */
void oracle_link(struct world *w, uint32_t from, uint32_t to);
/* Another group than `was` was shown to its daemon. */
void oracle_view(struct world *w, const struct node *n, uint32_t was);
/* What the core of the node has applied. */
void oracle_state(struct world *w, struct node *n);
/* An action ends or resumes it. */
void oracle_paused(struct world *w, const struct copy *c);
void oracle_fenced(struct world *w, struct node *target);
/* Somebody said wrongly that the node does not run. */
void oracle_lie(struct world *w, struct node *n);

/* What every core knows goes to the time line. */
void oracle_dump(struct world *w);

/* Nothing is left to be done; else *why, of at most `size`, has the first thing. */
bool oracle_quiet(struct world *w, char *why, size_t size);
/* The newest state that any core has applied; NULL: none. */
const Migrd__HaState *oracle_newest(const struct world *w);
/* All nodes are here and know that the cluster is disarmed. */
bool oracle_disarmed(const struct world *w);
/* The newest epoch that the log or a copy has. */
uint64_t oracle_epoch(const struct world *w, uint32_t domain);

#endif
