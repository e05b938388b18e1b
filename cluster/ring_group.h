/* SPDX-License-Identifier: ISC */
/*
 * ring_group: which process speaks for each node of a process group. CPG knows processes; a node
 * is the first of its processes that was seen. A plain value, nothing needs freeing.
 */
#ifndef CLUSTER_RING_GROUP_H
#define CLUSTER_RING_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cluster/core.h"

struct ring_process {
    uint32_t node, pid;
};

struct ring_group {
    struct ring_process member[HA_NODES_MAX]; /* by node */
    unsigned n;
    bool overflow; /* more nodes than we take */
};

/* The membership has changed. True: to be told, that is another process speaks for a node, one has
 * come or gone, or one of them was there twice with the same number (`gone`, `come`). */
bool ring_group_change(struct ring_group *g, const struct ring_process *now, size_t n,
    const struct ring_process *gone, size_t n_gone, const struct ring_process *come, size_t n_come);
bool ring_group_speaks(const struct ring_group *g, uint32_t node, uint32_t pid);

#endif
