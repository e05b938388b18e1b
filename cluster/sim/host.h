/* SPDX-License-Identifier: ISC */
/*
 * host: a node's disk and its hypervisor, which outlive the daemon. Guests end with their host.
 */
#ifndef CLUSTER_SIM_HOST_H
#define CLUSTER_SIM_HOST_H

#include "cluster/sim/world.h"

/* Disk: records in order; PERSISTED is fed when they are durable. */
void disk_put(struct world *w, struct node *n, const struct ha_action *a);
/* The writer died: of what it had under way a part is there, a part is not. */
void disk_tear(struct world *w, struct node *n);
void disk_stall(struct world *w, struct node *n, uint64_t until);
void disk_free(struct disk *d);

struct copy *copy_at(struct world *w, uint32_t domain, uint32_t node);
/* NULL: too many. A process of the domain must not be there. */
struct copy *copy_make(
    struct world *w, uint32_t domain, uint32_t node, uint64_t epoch, enum copy_state state);
/* Whether its guest executes. */
bool copy_runs(struct world *w, const struct copy *c);
/* Lets it run if its fuse allows; else PAUSED. */
void copy_run(struct world *w, struct copy *c);
/* A held one goes on under a newer epoch. */
void copy_renew(struct world *w, struct copy *c, uint64_t epoch);
/* By an operator. */
void copy_pause(struct world *w, struct copy *c, bool on);
void copy_hold(struct world *w, struct copy *c);
/* Why: HA_SEEN_GONE, SHUTDOWN or CRASHED is what the daemon sees. */
void copy_end(struct world *w, struct copy *c, enum ha_seen why, bool by_guest);
/* Its process goes with it, or waits to be destroyed. */
void guest_ends(struct world *w, struct copy *c, bool by_guest);
/* The daemon of its node is told how it is. */
void copy_tell(struct world *w, const struct copy *c);
void copies_tell(struct world *w, struct node *n);

/* Actions of a core. */
void host_start(struct world *w, struct node *n, const struct ha_action *a);
void host_stop(struct world *w, struct node *n, const struct ha_action *a);
void host_destroy(struct world *w, struct node *n, const struct ha_action *a);
void host_fuse(struct world *w, struct node *n, const struct ha_action *a);
void host_resume(struct world *w, struct node *n, const struct ha_action *a);
void host_fence(struct world *w, struct node *n, const struct ha_action *a);

/* The host stands still, or goes on: fuses that are over blow before any guest executes. */
/* Guests of the host stand still from here on. */
void host_stops(struct world *w, const struct node *n);
void host_woken(struct world *w, struct node *n);
void host_ended(struct world *w, struct node *n);

uint32_t domain_of(const struct world *w, const char *uuid);

/* Takes one of the failures that were ordered for this operation. */
bool op_takes(unsigned *left);

#endif
