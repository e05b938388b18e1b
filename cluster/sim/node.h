/* SPDX-License-Identifier: ISC */
/*
 * node: hosts and their daemons: what reaches a core, and what it wants done.
 */
#ifndef CLUSTER_SIM_NODE_H
#define CLUSTER_SIM_NODE_H

#include "cluster/sim/world.h"

#define ACTION_BITS 48 /* an action's id for the host: which daemon << 48 | the core's id */
#define ACTION_MASK ((UINT64_C(1) << ACTION_BITS) - 1)

void node_init(struct world *w, uint32_t id);
void node_free(struct world *w, struct node *n);

void host_boot(struct world *w, struct node *n);
void host_crash(struct world *w, struct node *n);
void host_pause(struct world *w, struct node *n, bool on);
void daemon_start(struct world *w, struct node *n);
void daemon_kill(struct world *w, struct node *n);
void daemon_stop(struct world *w, struct node *n, bool on);
/* After `ms`; what is there already stays. */
void host_boot_in(struct world *w, struct node *n, uint64_t ms);
void daemon_start_in(struct world *w, struct node *n, uint64_t ms);
void coro_start_in(struct world *w, struct node *n, uint64_t ms);

/* What happens to a core; nothing where no daemon runs. */
void node_view(struct world *w, struct node *n, uint32_t group);
void node_message(struct world *w, struct node *n, uint32_t from, struct blob *b);
void node_persisted(struct world *w, struct node *n, uint64_t id);
void node_domain(struct world *w, struct node *n, uint32_t domain, uint64_t epoch,
    enum ha_seen seen, bool fused, bool by_guest, bool blown);
void node_capacity(struct world *w, struct node *n);
void node_result(struct world *w, struct node *n, uint64_t id, bool ok);
void node_command(struct world *w, struct node *n, uint32_t ask);

/* Goes on with what waits. */
void node_pump(struct world *w, struct node *n);

#endif
