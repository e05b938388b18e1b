/* SPDX-License-Identifier: ISC */
/*
 * virtio-net: the network card of virtio 1.1, 5.1, on a tap. Queue 0 receives, queue 1
 * sends; each has one worker. The header before each packet (5.1.6, 12 bytes) is the one
 * that the tap wants, so checksums and segmentation left undone by either side are the
 * kernel's business: we only tell it what the guest takes.
 *
 * Receiving: the worker waits for the tap, reads one packet into `packet`, and lays it
 * into as many buffers as it needs (MRG_RXBUF) or one. If the guest has none, the packet
 * stays until it brings some. Packets in the card or in the tap when a domain is moved
 * are lost, as on any cable.
 *
 * Moving. The tap of an incoming domain is made, on its bridge and up in time for
 * errors, and for a bridge that takes its time until it forwards; what the bridge floods
 * into it before the first start is thrown away. virtio_net_announce then tells the
 * network where the guest is: RARP for switches, gratuitous ARP and neighbour advertisements of
 * the addresses that the guest has been seen to use (virtio_net_addr.c). The first round goes at
 * once, ANNOUNCE_ROUNDS in all, 50, 150, 250, 350 ms apart, as QEMU's are (announce-rounds,
 * announce-initial, announce-step). A pause ends that: the guest may be elsewhere next.
 *
 * State after the transport's: 6 bytes MAC; from version 2 on, the addresses.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/xvm/tap.h"
#include "hypervisor/xvm/virtio.h"
#include "hypervisor/xvm/virtio_net_addr.h"

#define STATE_WITH_ADDRESSES 2
#define MAC_LEN NET_MAC_LEN
#define HDR_LEN 12u
#define HDR_NUM_BUFFERS_AT 10u
#define PACKET_MAX (65536u + 64u)
#define ANNOUNCE_ROUNDS 5u
#define ANNOUNCE_FIRST_MS 50u
#define ANNOUNCE_STEP_MS 100u

/* Feature bits (5.1.3). */
#define FEATURE_CSUM (UINT64_C(1) << 0)
#define FEATURE_GUEST_CSUM (UINT64_C(1) << 1)
#define FEATURE_MTU (UINT64_C(1) << 3)
#define FEATURE_MAC (UINT64_C(1) << 5)
#define FEATURE_GUEST_TSO4 (UINT64_C(1) << 7)
#define FEATURE_GUEST_TSO6 (UINT64_C(1) << 8)
#define FEATURE_HOST_TSO4 (UINT64_C(1) << 11)
#define FEATURE_HOST_TSO6 (UINT64_C(1) << 12)
#define FEATURE_MRG_RXBUF (UINT64_C(1) << 15)
#define FEATURE_STATUS (UINT64_C(1) << 16)
#define OFFERED                                                                                    \
    (FEATURE_CSUM | FEATURE_GUEST_CSUM | FEATURE_MTU | FEATURE_MAC | FEATURE_GUEST_TSO4 |          \
        FEATURE_GUEST_TSO6 | FEATURE_HOST_TSO4 | FEATURE_HOST_TSO6 | FEATURE_MRG_RXBUF |           \
        FEATURE_STATUS)

#define STATUS_LINK_UP 1u

enum { QUEUE_RX, QUEUE_TX, QUEUES };

/* Config space (5.1.4). */
struct net_config {
    uint8_t mac[MAC_LEN];
    uint16_t status, max_virtqueue_pairs, mtu;
} __attribute__((packed));

_Static_assert(sizeof(struct net_config) == 12, "config space of virtio 1.1, 5.1.4");

struct net {
    struct virtio v;
    struct net_config config; /* read only after creation */
    struct tap tap;
    bool started;
    int wake; /* eventfd: ends the receiver's wait */
    /* See hv_vif_stats. */
    struct {
        _Atomic uint64_t rx_bytes, rx_packets, rx_drops, tx_bytes, tx_packets, tx_errors;
    } count;

    /* The receiver's own. */
    uint8_t packet[PACKET_MAX];
    size_t packet_len; /* 0 none waits */
    struct virtio_chain first, more;

    pthread_mutex_t lock; /* protects the addresses and their announcements */
    struct net_addrs addrs;
    pthread_cond_t changed;
    unsigned rounds_left;
    bool stop, announcer_runs;
    pthread_t announcer;
};

static struct net *net_of(struct virtio *v)
{
    return (struct net *)v;
}

/* ---- receive ---- */

/* Waits for the tap, then reads a packet. False: the machine wants silence, or the tap is gone. */
static bool wait_packet(struct net *n)
{
    while (n->packet_len == 0) {
        struct pollfd p[2] = { { .fd = n->tap.fd, .events = POLLIN },
            { .fd = n->wake, .events = POLLIN } };
        ssize_t got = read(n->tap.fd, n->packet, sizeof n->packet);

        if (got > (ssize_t)HDR_LEN)
            n->packet_len = (size_t)got;
        else if (got >= 0 || errno == EINTR)
            continue;
        else if (errno != EAGAIN || (poll(p, 2, -1) < 0 && errno != EINTR))
            return false;
        if (virtio_held(&n->v))
            return false;
    }
    return true;
}

/* Lays the packet into buffers. 1 done, 0 the guest has too few now. */
static int deliver(struct net *n)
{
    struct virtio *v = &n->v;
    uint16_t buffers = 0;
    size_t done = 0;

    while (done < n->packet_len) {
        struct virtio_chain *c = buffers == 0 ? &n->first : &n->more;
        size_t part;

        if (virtio_pop(v, QUEUE_RX, c) == 0) {
            virtio_unpop(v, QUEUE_RX, 0);
            return 0;
        }
        buffers++;
        part = virtio_chain_write(v, c, 0, n->packet + done, n->packet_len - done);
        if (part == 0 || c->out_n > 0 || (buffers == 1 && part < HDR_LEN)) {
            virtio_broken(v, "a receive buffer that is not one");
            return 0;
        }
        done += part;
        if (done < n->packet_len && !virtio_has(v, FEATURE_MRG_RXBUF)) {
            virtio_unpop(v, QUEUE_RX, 1); /* too long for this guest: lost */
            atomic_fetch_add(&n->count.rx_drops, 1);
            return 1;
        }
        virtio_stage(v, QUEUE_RX, c, (uint32_t)part);
    }
    virtio_chain_write(v, &n->first, HDR_NUM_BUFFERS_AT, &buffers, sizeof buffers);
    virtio_publish(v, QUEUE_RX);
    atomic_fetch_add(&n->count.rx_packets, 1);
    atomic_fetch_add(&n->count.rx_bytes, n->packet_len - HDR_LEN);
    return 1;
}

static void receive(struct net *n)
{
    uint64_t count;

    if (read(n->wake, &count, sizeof count) < 0 && errno != EAGAIN)
        log_debug("xvm", "%s: eventfd: %s", n->v.name, strerror(errno));
    /* After the read: a wish for silence from now on makes `wake` readable again. */
    if (virtio_held(&n->v))
        return;
    while (wait_packet(n)) {
        if (deliver(n) == 0)
            return;
        n->packet_len = 0;
        virtio_notify(&n->v, QUEUE_RX);
    }
}

/* ---- send ---- */

/* Most frames are over with their first bytes. */
static void learn(struct net *n, const struct virtio_chain *c)
{
    uint8_t frame[NET_LEARN_LEN];
    size_t len = virtio_chain_read(c, HDR_LEN, frame, 14);

    if (len < 14 || !net_addrs_wants(frame))
        return;
    len = virtio_chain_read(c, HDR_LEN, frame, sizeof frame);
    pthread_mutex_lock(&n->lock);
    net_addrs_learn(&n->addrs, n->config.mac, frame, len);
    pthread_mutex_unlock(&n->lock);
}

static void transmit(struct net *n)
{
    struct virtio *v = &n->v;
    struct virtio_chain c;

    while (virtio_pop(v, QUEUE_TX, &c) > 0) {
        if (c.in_n > 0 || c.out_len < HDR_LEN) {
            virtio_broken(v, "a packet without header");
            return;
        }
        learn(n, &c);
        /* A packet that the kernel does not take (wrong header, interface down) is lost. */
        if (c.out_len > PACKET_MAX) {
            atomic_fetch_add(&n->count.tx_errors, 1);
        } else if (writev(n->tap.fd, c.iov, (int)c.out_n) < 0) {
            atomic_fetch_add(&n->count.tx_errors, 1);
            log_debug("xvm", "%s: a packet is lost: %s", v->name, strerror(errno));
        } else {
            atomic_fetch_add(&n->count.tx_packets, 1);
            atomic_fetch_add(&n->count.tx_bytes, c.out_len - HDR_LEN);
        }
        virtio_push(v, QUEUE_TX, &c, 0);
        virtio_notify(v, QUEUE_TX);
    }
}

static void net_work(struct virtio *v, unsigned queue)
{
    if (queue == QUEUE_RX)
        receive(net_of(v));
    else
        transmit(net_of(v));
}

static void net_wake(struct virtio *v)
{
    uint64_t one = 1;

    if (write(net_of(v)->wake, &one, sizeof one) < 0)
        log_debug("xvm", "%s: eventfd: %s", v->name, strerror(errno));
}

/* ---- announcements ---- */

static struct timespec after_ms(unsigned ms)
{
    uint64_t at = clock_ns() + ms * NS_PER_MS;

    return (struct timespec){ .tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S) };
}

/* The frame is behind the header that the tap wants. */
static void send_announcement(const struct net *n, const uint8_t *frame, size_t len)
{
    if (write(n->tap.fd, frame, HDR_LEN + len) < 0)
        log_debug("xvm", "%s: announcement: %s", n->v.name, strerror(errno));
}

/* Sends a round, then waits; a change of rounds_left ends the wait. `lock` is held. */
static void announce_round(struct net *n)
{
    uint8_t frame[HDR_LEN + NET_ANNOUNCE_LEN] = { 0 }, *at = frame + HDR_LEN;
    unsigned round = ANNOUNCE_ROUNDS - n->rounds_left, left = --n->rounds_left;
    struct timespec until = after_ms(ANNOUNCE_FIRST_MS + round * ANNOUNCE_STEP_MS);

    send_announcement(n, frame, net_rarp(n->config.mac, at));
    for (unsigned i = 0; i < n->addrs.n; i++)
        send_announcement(n, frame, net_addrs_announcement(&n->addrs, i, n->config.mac, at));
    while (!n->stop && n->rounds_left == left)
        if (pthread_cond_timedwait(&n->changed, &n->lock, &until) == ETIMEDOUT)
            return;
}

static void *announcer_main(void *arg)
{
    struct net *n = arg;

    pthread_mutex_lock(&n->lock);
    while (!n->stop) {
        if (n->rounds_left == 0)
            pthread_cond_wait(&n->changed, &n->lock);
        else
            announce_round(n);
    }
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

static void set_rounds(struct net *n, unsigned rounds)
{
    pthread_mutex_lock(&n->lock);
    n->rounds_left = rounds;
    pthread_cond_signal(&n->changed);
    pthread_mutex_unlock(&n->lock);
}

void virtio_net_announce(struct machine *m)
{
    for (struct virtio *v = virtio_find(m, VIRTIO_NET, NULL); v != NULL;
         v = virtio_find(m, VIRTIO_NET, v))
        set_rounds(net_of(v), ANNOUNCE_ROUNDS);
}

/* ---- life ---- */

static void net_config_read(struct virtio *v, unsigned offset, void *data, unsigned len)
{
    memcpy(data, (const uint8_t *)&net_of(v)->config + offset, len);
}

static void net_activate(struct virtio *v)
{
    struct err e;
    unsigned flags = 0;

    if (virtio_has(v, FEATURE_GUEST_CSUM)) {
        flags |= TUN_F_CSUM;
        flags |= virtio_has(v, FEATURE_GUEST_TSO4) ? TUN_F_TSO4 : 0;
        flags |= virtio_has(v, FEATURE_GUEST_TSO6) ? TUN_F_TSO6 : 0;
    }
    if (tap_offload(&net_of(v)->tap, flags, &e) < 0)
        log_warn("xvm", "%s: %s", v->name, e.text);
}

static void net_start(struct virtio *v)
{
    struct net *n = net_of(v);

    if (!n->started)
        tap_drain(&n->tap);
    n->started = true;
}

static void net_quiesced(struct virtio *v)
{
    set_rounds(net_of(v), 0);
}

/* The driver begins anew, perhaps another system with other addresses. */
static void net_reset(struct virtio *v)
{
    struct net *n = net_of(v);

    n->packet_len = 0;
    pthread_mutex_lock(&n->lock);
    memset(&n->addrs, 0, sizeof n->addrs);
    pthread_mutex_unlock(&n->lock);
}

static void net_save(struct virtio *v, struct state_writer *w)
{
    struct net *n = net_of(v);

    state_put(w, n->config.mac, MAC_LEN);
    pthread_mutex_lock(&n->lock);
    net_addrs_save(&n->addrs, w);
    pthread_mutex_unlock(&n->lock);
}

static int net_load(struct virtio *v, struct state_reader *r, struct err *e)
{
    uint8_t mac[MAC_LEN];
    int rc;

    if (state_get(r, mac, sizeof mac, e) < 0)
        return -1;
    if (memcmp(mac, net_of(v)->config.mac, sizeof mac) != 0)
        return err_set(
            e, ERR_INVALID, "%s: the guest's MAC differs from the definition's", v->name);
    if (r->version < STATE_WITH_ADDRESSES)
        return 0;
    pthread_mutex_lock(&net_of(v)->lock);
    rc = net_addrs_load(&net_of(v)->addrs, r, e);
    pthread_mutex_unlock(&net_of(v)->lock);
    return rc;
}

static void net_destroy(struct virtio *v)
{
    struct net *n = net_of(v);

    if (n->announcer_runs) {
        pthread_mutex_lock(&n->lock);
        n->stop = true;
        pthread_cond_signal(&n->changed);
        pthread_mutex_unlock(&n->lock);
        pthread_join(n->announcer, NULL);
    }
    tap_close(&n->tap);
    io_close(&n->wake);
    pthread_cond_destroy(&n->changed);
    pthread_mutex_destroy(&n->lock);
    free(n);
}

static const struct virtio_ops net_ops = {
    .type = VIRTIO_NET,
    .state_version = STATE_WITH_ADDRESSES,
    .queues = QUEUES,
    .workers = 1,
    .config_len = sizeof(struct net_config),
    .config_read = net_config_read,
    .config_write = virtio_no_config_write,
    .work = net_work,
    .wake = net_wake,
    .abandon = virtio_no_abandon,
    .activate = net_activate,
    .start = net_start,
    .quiesced = net_quiesced,
    .reset = net_reset,
    .save = net_save,
    .load = net_load,
    .destroy = net_destroy,
};

static int parse_mac(const char *text, uint8_t mac[MAC_LEN], struct err *e)
{
    char end;

    if (sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &mac[0], &mac[1], &mac[2], &mac[3],
            &mac[4], &mac[5], &end) != MAC_LEN ||
        (mac[0] & 1) != 0)
        return err_set(e, ERR_INVALID, "vif: mac %s: not the address of a card", text);
    return 0;
}

static void init_lock(struct net *n)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&n->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&n->lock, NULL);
}

static int net_open(struct net *n, const Migrd__Vif *vif, unsigned index, struct err *e)
{
    struct tap_config cfg = { .ifname = vif->ifname,
        .bridge = vif->bridge,
        .mac = n->config.mac,
        .mtu = vif->mtu,
        .index = index };

    n->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (n->wake < 0)
        return err_sys(e, "%s: eventfd", n->v.name);
    if (parse_mac(vif->mac, n->config.mac, e) < 0 || tap_open(&n->tap, &cfg, e) < 0)
        return -1;
    n->config.status = STATUS_LINK_UP;
    n->config.max_virtqueue_pairs = 1;
    n->config.mtu = (uint16_t)n->tap.mtu;
    if (pthread_create(&n->announcer, NULL, announcer_main, n) != 0)
        return err_set(e, ERR_RESOURCE, "%s: no thread", n->v.name);
    n->announcer_runs = true;
    return 0;
}

int virtio_net_create(
    struct machine *m, unsigned slot, const Migrd__Vif *vif, unsigned index, struct err *e)
{
    struct net *n = calloc(1, sizeof *n);

    if (n == NULL)
        return err_set(e, ERR_MEMORY, "vif %u: out of memory", index);
    virtio_init(&n->v, &net_ops, m, slot, "net", index, OFFERED);
    init_lock(n);
    n->tap.fd = n->wake = -1;
    if (net_open(n, vif, index, e) < 0) {
        virtio_dispose(&n->v);
        return -1;
    }
    return virtio_add(&n->v, e);
}

static void take_stats(struct net *n, struct hv_vif_stats *s)
{
    const uint8_t *m = n->config.mac;

    memset(s, 0, sizeof *s);
    snprintf(s->ifname, sizeof s->ifname, "%s", n->tap.name);
    snprintf(
        s->mac, sizeof s->mac, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
    s->rx_bytes = atomic_load(&n->count.rx_bytes);
    s->rx_packets = atomic_load(&n->count.rx_packets);
    s->rx_drops = atomic_load(&n->count.rx_drops);
    s->tx_bytes = atomic_load(&n->count.tx_bytes);
    s->tx_packets = atomic_load(&n->count.tx_packets);
    s->tx_errors = atomic_load(&n->count.tx_errors);
}

unsigned virtio_net_stats(const struct machine *m, struct hv_vif_stats *out, unsigned max)
{
    unsigned n = virtio_count(m, VIRTIO_NET), at = n;

    for (struct virtio *v = virtio_find(m, VIRTIO_NET, NULL); v != NULL && at > 0;
         v = virtio_find(m, VIRTIO_NET, v))
        if (--at < max)
            take_stats(net_of(v), &out[at]);
    return n < max ? n : max;
}
