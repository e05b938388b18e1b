/* SPDX-License-Identifier: ISC */
/*
 * What is learnt from: ARP (RFC 826; the sender's address), and neighbour discovery (RFC
 * 4861): the source of solicitations, the target of advertisements that override, "router" in
 * advertisements. A host that speaks to its neighbours says these of itself. Sources of other
 * packets are not taken: a guest that routes sends those of other hosts from its own card,
 * and announcing them would draw their traffic here. So are frames with another source MAC
 * (a bridge's) and with a VLAN tag of the guest's own.
 *
 * What is announced: RARP of the card (RFC 903, as QEMU does: switches learn the port), an
 * ARP announcement of each IPv4 address (RFC 5227, 2.3: a request for one's own), an
 * unsolicited neighbour advertisement of each IPv6 address (RFC 4861, 7.2.6), with the router
 * flag as the guest sets it: hosts drop a default router that does not say it is one.
 */
#include "hypervisor/xvm/virtio_net_addr.h"

#include <string.h>

#define ETH_LEN 14u
#define ETH_MIN 60u
#define TYPE_ARP 0x0806u
#define TYPE_RARP 0x8035u
#define TYPE_IPV6 0x86ddu
#define ARP_LEN 28u
#define IPV6_LEN 40u
#define ICMPV6 58
#define HOPS 255 /* what neighbour discovery must have: it was not routed */
#define ND_ROUTER_SOLICIT 133
#define ND_ROUTER_ADVERT 134
#define ND_SOLICIT 135
#define ND_ADVERT 136
#define ND_FLAG_ROUTER 0x80
#define ND_FLAG_OVERRIDE 0x20
#define ND_OPTION_TARGET_MAC 2
#define ND_ADVERT_LEN 32u /* with the option */

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* ---- learning ---- */

static bool usable(const struct net_addr *a)
{
    static const uint8_t unspecified[15];

    if (!a->v6)
        return a->ip[0] != 0 && a->ip[0] != 127 && a->ip[0] < 224;
    /* ::, ::1, multicast */
    return a->ip[0] != 0xff && !(memcmp(a->ip, unspecified, 15) == 0 && a->ip[15] <= 1);
}

static struct net_addr *find(struct net_addrs *t, const struct net_addr *a)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->addr[i].v6 == a->v6 && memcmp(t->addr[i].ip, a->ip, sizeof a->ip) == 0)
            return &t->addr[i];
    return NULL;
}

static struct net_addr *oldest(struct net_addrs *t)
{
    struct net_addr *o = &t->addr[0];

    for (unsigned i = 1; i < t->n; i++)
        if (t->addr[i].seen < o->seen)
            o = &t->addr[i];
    return o;
}

static void add(struct net_addrs *t, bool v6, const uint8_t *ip)
{
    struct net_addr a = { .v6 = v6 }, *at;

    memcpy(a.ip, ip, v6 ? 16 : 4);
    if (!usable(&a))
        return;
    at = find(t, &a);
    if (at == NULL) {
        at = t->n < NET_ADDRS_MAX ? &t->addr[t->n++] : oldest(t);
        *at = a;
    }
    at->seen = ++t->clock;
}

static void learn_arp(struct net_addrs *t, const uint8_t *mac, const uint8_t *p, size_t len)
{
    static const uint8_t ethernet_ipv4[7] = { 0, 1, 8, 0, 6, 4, 0 };

    if (len < ARP_LEN || memcmp(p, ethernet_ipv4, sizeof ethernet_ipv4) != 0 ||
        (p[7] != 1 && p[7] != 2) || memcmp(p + 8, mac, NET_MAC_LEN) != 0)
        return;
    add(t, false, p + 14);
}

static void learn_nd(struct net_addrs *t, const uint8_t *p, size_t len)
{
    const uint8_t *icmp = p + IPV6_LEN;

    if (len < IPV6_LEN + 8 || p[0] >> 4 != 6 || p[6] != ICMPV6 || p[7] != HOPS)
        return;
    switch (icmp[0]) {
    case ND_ROUTER_ADVERT:
        t->router = true;
        add(t, true, p + 8);
        break;
    case ND_ROUTER_SOLICIT:
    case ND_SOLICIT:
        add(t, true, p + 8);
        break;
    case ND_ADVERT:
        if (len < IPV6_LEN + 24)
            return;
        t->router = (icmp[4] & ND_FLAG_ROUTER) != 0;
        if ((icmp[4] & ND_FLAG_OVERRIDE) != 0) /* else an anycast address, or somebody else's */
            add(t, true, icmp + 8);
        break;
    default:
        break;
    }
}

bool net_addrs_wants(const uint8_t head[14])
{
    unsigned type = get16(head + 12);

    return type == TYPE_ARP || type == TYPE_IPV6;
}

void net_addrs_learn(
    struct net_addrs *t, const uint8_t mac[NET_MAC_LEN], const uint8_t *frame, size_t len)
{
    if (len < ETH_LEN || memcmp(frame + 6, mac, NET_MAC_LEN) != 0)
        return;
    if (get16(frame + 12) == TYPE_ARP)
        learn_arp(t, mac, frame + ETH_LEN, len - ETH_LEN);
    else if (get16(frame + 12) == TYPE_IPV6)
        learn_nd(t, frame + ETH_LEN, len - ETH_LEN);
}

/* ---- announcing ---- */

static void put_head(uint8_t *out, uint8_t to, const uint8_t *mac, unsigned type)
{
    memset(out, 0, NET_ANNOUNCE_LEN);
    memset(out, to, NET_MAC_LEN);
    memcpy(out + 6, mac, NET_MAC_LEN);
    put16(out + 12, type);
}

/* ARP and RARP, padded to Ethernet's least. */
static size_t arp_frame(uint8_t *out, unsigned type, uint8_t operation, const uint8_t *mac)
{
    static const uint8_t fixed[7] = { 0, 1, 8, 0, 6, 4, 0 };
    uint8_t *p = out + ETH_LEN;

    put_head(out, 0xff, mac, type);
    memcpy(p, fixed, sizeof fixed);
    p[7] = operation;
    memcpy(p + 8, mac, NET_MAC_LEN);
    return ETH_MIN;
}

size_t net_rarp(const uint8_t mac[NET_MAC_LEN], uint8_t out[NET_ANNOUNCE_LEN])
{
    size_t len = arp_frame(out, TYPE_RARP, 3, mac);

    memcpy(out + ETH_LEN + 18, mac, NET_MAC_LEN);
    return len;
}

static size_t gratuitous_arp(uint8_t *out, const uint8_t *mac, const uint8_t *ip)
{
    size_t len = arp_frame(out, TYPE_ARP, 1, mac);

    memcpy(out + ETH_LEN + 14, ip, 4);
    memcpy(out + ETH_LEN + 24, ip, 4);
    return len;
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i + 1 < len; i += 2)
        sum += get16(p + i);
    return sum;
}

/* Of an ICMPv6 message behind its IPv6 header (RFC 8200, 8.1). */
static unsigned icmp_checksum(const uint8_t *ip, size_t icmp_len)
{
    uint32_t sum = sum16(0, ip + 8, 32) + (uint32_t)icmp_len + ICMPV6;

    sum = sum16(sum, ip + IPV6_LEN, icmp_len);
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static size_t neighbour_advert(uint8_t *out, const uint8_t *mac, const uint8_t *ip, bool router)
{
    static const uint8_t all_nodes[16] = { 0xff, 0x02, [15] = 1 };
    static const uint8_t all_nodes_mac[NET_MAC_LEN] = { 0x33, 0x33, 0, 0, 0, 1 };
    uint8_t *p = out + ETH_LEN, *icmp = p + IPV6_LEN;

    put_head(out, 0, mac, TYPE_IPV6);
    memcpy(out, all_nodes_mac, NET_MAC_LEN);
    p[0] = 0x60;
    put16(p + 4, ND_ADVERT_LEN);
    p[6] = ICMPV6;
    p[7] = HOPS;
    memcpy(p + 8, ip, 16);
    memcpy(p + 24, all_nodes, 16);
    icmp[0] = ND_ADVERT;
    icmp[4] = ND_FLAG_OVERRIDE | (router ? ND_FLAG_ROUTER : 0);
    memcpy(icmp + 8, ip, 16);
    icmp[24] = ND_OPTION_TARGET_MAC;
    icmp[25] = 1; /* of 8 bytes */
    memcpy(icmp + 26, mac, NET_MAC_LEN);
    put16(icmp + 2, icmp_checksum(p, ND_ADVERT_LEN));
    return ETH_LEN + IPV6_LEN + ND_ADVERT_LEN;
}

size_t net_addrs_announcement(const struct net_addrs *t, unsigned i, const uint8_t mac[NET_MAC_LEN],
    uint8_t out[NET_ANNOUNCE_LEN])
{
    const struct net_addr *a = &t->addr[i];

    return a->v6 ? neighbour_advert(out, mac, a->ip, t->router) : gratuitous_arp(out, mac, a->ip);
}

/* ---- state ---- */

void net_addrs_save(const struct net_addrs *t, struct state_writer *w)
{
    uint64_t after = 0;

    state_put_u32(w, t->router);
    state_put_u32(w, t->n);
    for (unsigned k = 0; k < t->n; k++) {
        const struct net_addr *next = NULL;
        uint8_t family;

        for (unsigned i = 0; i < t->n; i++)
            if (t->addr[i].seen > after && (next == NULL || t->addr[i].seen < next->seen))
                next = &t->addr[i];
        if (next == NULL)
            return; /* no two were seen at once */
        after = next->seen;
        family = next->v6 ? 6 : 4;
        state_put(w, &family, 1);
        state_put(w, next->ip, sizeof next->ip);
    }
}

int net_addrs_load(struct net_addrs *t, struct state_reader *r, struct err *e)
{
    uint32_t router, n;

    memset(t, 0, sizeof *t);
    if (state_get_u32(r, &router, e) < 0 || state_get_u32(r, &n, e) < 0)
        return -1;
    if (n > NET_ADDRS_MAX || router > 1)
        return err_set(e, ERR_PROTOCOL, "domain state: section %s: %u addresses, router %u",
            r->name, n, router);
    t->router = router == 1;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t family, ip[16];

        if (state_get(r, &family, 1, e) < 0 || state_get(r, ip, sizeof ip, e) < 0)
            return -1;
        if (family != 4 && family != 6)
            return err_set(e, ERR_PROTOCOL, "domain state: section %s: an address of family %u",
                r->name, family);
        add(t, family == 6, ip);
    }
    return 0;
}
