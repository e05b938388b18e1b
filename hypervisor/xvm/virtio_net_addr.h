/* SPDX-License-Identifier: ISC */
/*
 * virtio_net_addr: the addresses that a guest's network card is known by, learnt from the
 * frames that the guest sends, and the frames that announce them after a move. A plain
 * value of bounded size without a lock: the card has one. Pure; no frame is trusted.
 */
#ifndef XVM_VIRTIO_NET_ADDR_H
#define XVM_VIRTIO_NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/xvm/state.h"

#define NET_MAC_LEN 6
#define NET_ADDRS_MAX 16
#define NET_LEARN_LEN 86    /* bytes of a frame that are looked at */
#define NET_ANNOUNCE_LEN 86 /* the longest announcement */

struct net_addr {
    bool v6;
    uint8_t ip[16]; /* the first 4 of IPv4 */
    uint64_t seen;  /* a counter: the smallest goes when there is no room */
};

struct net_addrs {
    unsigned n;
    bool router; /* of IPv6: says so of itself */
    uint64_t clock;
    struct net_addr addr[NET_ADDRS_MAX];
};

/* Can a frame with these first 14 bytes (Ethernet's header) tell an address? */
bool net_addrs_wants(const uint8_t head[14]);
/* A frame from its Ethernet header on, or its first bytes. */
void net_addrs_learn(
    struct net_addrs *t, const uint8_t mac[NET_MAC_LEN], const uint8_t *frame, size_t len);

/* Announcement i < n, and that of the card itself, which tells switches the way; returns the
 * length. */
size_t net_addrs_announcement(const struct net_addrs *t, unsigned i, const uint8_t mac[NET_MAC_LEN],
    uint8_t out[NET_ANNOUNCE_LEN]);
size_t net_rarp(const uint8_t mac[NET_MAC_LEN], uint8_t out[NET_ANNOUNCE_LEN]);

/* u32 1 if a router, u32 n, n times: u8 4 or 6, 16 bytes of address; least recently seen first. */
void net_addrs_save(const struct net_addrs *t, struct state_writer *w);
int net_addrs_load(struct net_addrs *t, struct state_reader *r, struct err *e);

#endif
