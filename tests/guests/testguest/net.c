/* SPDX-License-Identifier: ISC */
/*
 * net: the guest on the network, as much as a test needs: it says which address it has (an ARP
 * announcement at boot), answers ARP requests for it and pings, and sends UDP to port 7 back to
 * where it came from (RFC 862). IPv4 without options or fragments, one virtio network card, polled.
 * Replies are made in place of the request, from the card's own address, so checksums hardly
 * change: swapping two addresses or ports leaves a sum as it was.
 */
#include "virtio.h"

#define RX 0
#define TX 1
#define RX_BUFFERS 64u
#define TX_BUFFERS 32u
#define HDR 12u /* virtio_net_hdr, all zero: nothing is left to the device */
#define FRAME_MAX 1514u
#define FRAME_MIN 60u
#define FEATURE_MAC (UINT64_C(1) << 5)
#define TYPE_ARP 0x0806u
#define TYPE_IPV4 0x0800u
#define ETH 14u
#define IP 20u
#define ICMP 1
#define UDP 17
#define ECHO_PORT 7u

static struct virtq queue[2];
static uint8_t rx[RX_BUFFERS][2048], tx[TX_BUFFERS][2048];
static bool tx_busy[TX_BUFFERS];
static bool up;
static uint8_t mac[6];
static uint64_t echoed, pings, arps;

static unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static bool same(const uint8_t *a, const uint8_t *b, size_t n)
{
    while (n && *a == *b)
        a++, b++, n--;
    return n == 0;
}

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
    for (; n; a++, b++, n--) {
        uint8_t t = *a;
        *a = *b;
        *b = t;
    }
}

/* --- buffers --- */

static void give(unsigned i)
{
    queue[RX].desc[i] = (struct virtq_desc){
        .addr = (uint64_t)rx[i], .len = sizeof(rx[i]), .flags = VIRTQ_DESC_WRITE
    };
    virtq_put(&queue[RX], (uint16_t)i);
}

/* A frame that finds no room is lost, as on any network. */
static void send(const uint8_t *frame, uint32_t len)
{
    unsigned i = 0;
    while (i < TX_BUFFERS && tx_busy[i])
        i++;
    if (i == TX_BUFFERS)
        return;
    tx_busy[i] = true;
    memset(tx[i], 0, HDR + FRAME_MIN);
    memcpy(tx[i] + HDR, frame, len);
    if (len < FRAME_MIN)
        len = FRAME_MIN;
    queue[TX].desc[i] = (struct virtq_desc){ .addr = (uint64_t)tx[i], .len = HDR + len };
    virtq_put(&queue[TX], (uint16_t)i);
}

/* --- protocols --- */

static void announce(void)
{
    static const uint8_t fixed[8] = { 0, 1, 8, 0, 6, 4, 0, 1 };
    uint8_t f[FRAME_MIN] = { 0 };
    memset(f, 0xff, 6);
    memcpy(f + 6, mac, 6);
    put16(f + 12, TYPE_ARP);
    memcpy(f + ETH, fixed, sizeof(fixed));
    memcpy(f + ETH + 8, mac, 6);
    memcpy(f + ETH + 14, opt.ip, 4);
    memcpy(f + ETH + 24, opt.ip, 4);
    send(f, sizeof(f));
}

static void on_arp(uint8_t *f, uint32_t len)
{
    uint8_t *p = f + ETH;
    if (len < ETH + 28 || get16(p + 6) != 1 || !same(p + 24, opt.ip, 4))
        return;
    put16(p + 6, 2);
    swap(p + 8, p + 18, 10); /* both pairs of addresses */
    memcpy(p + 8, mac, 6);
    memcpy(f, f + 6, 6);
    memcpy(f + 6, mac, 6);
    send(f, len);
    arps++;
}

static bool make_ping_reply(uint8_t *icmp, uint32_t len)
{
    if (len < 8 || icmp[0] != 8)
        return false;
    icmp[0] = 0;
    unsigned sum = get16(icmp + 2) + 0x0800; /* the type's part of it, RFC 1624 */
    put16(icmp + 2, (sum & 0xffff) + (sum >> 16));
    pings++;
    return true;
}

static bool make_echo(uint8_t *udp, uint32_t len)
{
    if (len < 8 || get16(udp + 2) != ECHO_PORT || get16(udp) == ECHO_PORT)
        return false;
    swap(udp, udp + 2, 2);
    echoed++;
    return true;
}

static void on_ip(uint8_t *f, uint32_t len)
{
    uint8_t *p = f + ETH;
    bool reply = false;
    if (len < ETH + IP || p[0] != 0x45 || (get16(p + 6) & 0x3fff) || !same(p + 16, opt.ip, 4) ||
        get16(p + 2) < IP || get16(p + 2) > len - ETH)
        return;
    uint32_t body = get16(p + 2) - IP;
    if (p[9] == ICMP)
        reply = make_ping_reply(p + IP, body);
    else if (p[9] == UDP)
        reply = make_echo(p + IP, body);
    if (!reply)
        return;
    swap(p + 12, p + 16, 4);
    swap(f, f + 6, 6);
    send(f, len);
}

static void on_frame(uint8_t *f, uint32_t len)
{
    if (len < ETH || len > FRAME_MAX)
        return;
    if (get16(f + 12) == TYPE_ARP)
        on_arp(f, len);
    else if (get16(f + 12) == TYPE_IPV4 && same(f, mac, 6))
        on_ip(f, len);
}

/* --- life --- */

void net_init(void)
{
    static const uint8_t none[4];
    uint64_t device, agreed;
    if (same(opt.ip, none, 4))
        return;
    device = virtio_find(VIRTIO_NET);
    if (!device || !virtio_agree(device, FEATURE_MAC, &agreed) ||
        !virtq_start(&queue[RX], device, RX) || !virtq_start(&queue[TX], device, TX)) {
        put("net: no network card\n");
        return;
    }
    virtio_driver_ok(device);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)(virtio_config(device, i & 4) >> (8 * (i & 3)));
    for (unsigned i = 0; i < RX_BUFFERS; i++)
        give(i);
    virtq_kick(&queue[RX]);
    up = true;
    announce();
    virtq_kick(&queue[TX]);
}

bool net_step(void)
{
    uint32_t id, len;
    bool busy = false;
    if (!up)
        return false;
    while (virtq_take(&queue[TX], &id, &len))
        if (id < TX_BUFFERS)
            tx_busy[id] = false;
    while (virtq_take(&queue[RX], &id, &len)) {
        if (id >= RX_BUFFERS || len > sizeof(rx[0]))
            panic("the network card used a buffer that it was not given");
        if (len > HDR)
            on_frame(rx[id] + HDR, len - HDR);
        give(id);
        busy = true;
    }
    virtq_kick(&queue[RX]);
    virtq_kick(&queue[TX]);
    return busy;
}

bool net_is_used(void)
{
    return up;
}

void net_put_counts(void)
{
    put_kv("echoed", echoed, "");
    put_kv("pings", pings, "");
    put_kv("arps", arps, "");
}
