/* SPDX-License-Identifier: ISC */
/*
 * ring: corosync as an ordered channel: one process group of CPG, and the word of its quorum, in a
 * libuv loop. Connects for ever; what can block (connecting, leaving, votes) is done in a thread
 * of its own, so that a corosync that hangs never stops the loop. Callbacks come from the loop, in
 * the order that all members of the group see; they may send, but not stop or close. What they
 * point to is good during the call. The functions are corosync_*, the simulator has ring_*.
 */
#ifndef CLUSTER_RING_H
#define CLUSTER_RING_H

#include <uv.h>

#include "cluster/core.h"

#define RING_QUEUE_MAX (8u << 20) /* bytes that wait for corosync; more is a loss of the ring */

struct corosync_callbacks {
    /* Node ids of the members, ascending; again where a process of a node was replaced between two
     * messages. n 0: the ring is lost, what was sent and not delivered may be lost as well. */
    void (*view)(void *arg, const uint32_t *members, unsigned n);
    void (*quorum)(void *arg, bool quorate);
    /* Own ones too. */
    void (*message)(void *arg, uint32_t from, const uint8_t *bytes, size_t len);
};

struct corosync_figures {
    bool up, quorate;
    char text[200]; /* why it is not up, or not well; and what to do. "" well */
    uint32_t own;   /* node id, 0 not known yet */
    uint64_t messages_in, messages_out, refused; /* refused: size, or of a second process */
    uint64_t connects, losses;
    uint64_t waiting_bytes;   /* for corosync to take them */
    uint64_t unseen_ms;       /* age of the oldest own message that has not come back; 0 none */
    uint64_t dispatch_max_us; /* the longest turn of the loop, with what the callbacks do */
    /* votequorum; expected 0: not known. A quorum device has votes as a node has. */
    unsigned votes, expected, needed, device_votes;
    bool device_casts; /* its votes, now */
    char device[64];   /* its name; "" none */
};

struct corosync_ring;

/* `group` is at most 127 bytes. -1: no memory, no thread. */
int corosync_open(uv_loop_t *loop, const char *group, const struct corosync_callbacks *cb,
    void *arg, struct corosync_ring **out, struct err *e);
/* Ordered with all others' messages; copied. False: not up, the message is gone; `view` with n 0
 * has been called, or comes in a turn of the loop of its own, never from here. Longer than
 * HA_MESSAGE_MAX or empty: false as well. */
bool corosync_send(struct corosync_ring *r, const uint8_t *bytes, size_t len);
/* What was delivered could not be taken, and nothing may be left out of an order: out, and in
 * again. `view` with n 0 comes in a turn of the loop of its own. */
void corosync_lose(struct corosync_ring *r, const char *why);
void corosync_figures(const struct corosync_ring *r, struct corosync_figures *out);
/* Leaves the group; no callback comes after it. The loop's handles go within half a second, also
 * where corosync hangs. */
void corosync_stop(struct corosync_ring *r);
/* After the loop has run its close callbacks. */
void corosync_close(struct corosync_ring **r);

#endif
