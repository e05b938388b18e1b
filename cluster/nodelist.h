/* SPDX-License-Identifier: ISC */
/*
 * nodelist: the configured nodes, as corosync has them in its cmap: read by a thread, since each
 * question can block, and again whenever corosync's configuration changes. A list that was read
 * stays when corosync ends. The list belongs to nodelist and is good until the next callback.
 */
#ifndef CLUSTER_NODELIST_H
#define CLUSTER_NODELIST_H

#include <sys/socket.h>
#include <uv.h>

#include "cluster/core.h"

#define NODE_ADDRESS_LEN 256 /* as corosync.conf has it: may be a host's name */

struct node_entry {
    uint32_t id;
    char name[HA_NAME_LEN];         /* "" none given */
    char address[NODE_ADDRESS_LEN]; /* of its first link, as written */
    struct sockaddr_storage socket; /* the same, looked up; without a port */
    socklen_t socket_len;           /* 0: the name is not known */
};

struct node_list {
    char cluster[HA_NAME_LEN];
    uint32_t own;   /* this node's id */
    unsigned token; /* ms, in force */
    unsigned n;
    struct node_entry node[HA_NODES_MAX]; /* by id */
};

typedef void nodelist_changed(void *arg, const struct node_list *list);

struct nodelist;

/* The first list comes by the callback, from the loop, as soon as corosync answers. */
int nodelist_open(
    uv_loop_t *loop, nodelist_changed *changed, void *arg, struct nodelist **out, struct err *e);
/* NULL: none yet; nodelist_text says why. */
const struct node_list *nodelist_get(const struct nodelist *l);
/* Why there is none, or none that is new; what to do. "" well. */
const char *nodelist_text(const struct nodelist *l);
const struct node_entry *node_list_find(const struct node_list *list, uint32_t id);
/* No callback after it. */
void nodelist_stop(struct nodelist *l);
/* After the loop has run its close callbacks. */
void nodelist_close(struct nodelist **l);

#endif
