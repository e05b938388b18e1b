/* SPDX-License-Identifier: ISC */
/*
 * beat: small datagrams from each node to each other one, outside corosync's token: UDP between
 * the addresses of the nodes' first links, authenticated by a key that is made of corosync's
 * authkey (beat_seal.h has the format). Nothing waits: what cannot leave now is dropped, the next
 * one follows soon. Received ones are handed on from the loop; bytes are good during the call.
 */
#ifndef CLUSTER_BEAT_H
#define CLUSTER_BEAT_H

#include <uv.h>

#include "cluster/core.h"
#include "cluster/nodelist.h"

/* Authentic, not repeated, from a configured node. */
typedef void beat_received(void *arg, uint32_t from, const uint8_t *bytes, size_t len);

struct beat_figures {
    uint64_t in, out;
    uint64_t bad; /* all that were dropped: the sum of the following */
    uint64_t forged, repeated, stranger, malformed;
    uint64_t unsent; /* the kernel had no room or no way */
    char text[200];  /* why none can be sent or received; "" well */
};

struct beat;

/* -1: the key, with how to make one. */
int beat_open(uv_loop_t *loop, const char *key_file, unsigned port, beat_received *received,
    void *arg, struct beat **out, struct err *e);
/* Who takes part, and where this node is; at each change. The socket is made anew where the own
 * address is another one. -1: no socket; tried again each second. */
int beat_nodes(struct beat *b, const struct node_list *nodes, struct err *e);
/* At most HA_BEAT_MAX bytes. */
void beat_send(struct beat *b, uint32_t node, const uint8_t *bytes, size_t len);
/* Reads the key again; the one before stays good for nodes that have not read theirs yet. -1: the
 * old key stays in force. */
int beat_reload(struct beat *b, struct err *e);
void beat_figures(const struct beat *b, struct beat_figures *out);
/* No callback after it. */
void beat_stop(struct beat *b);
/* After the loop has run its close callbacks. */
void beat_close(struct beat **b);

#endif
