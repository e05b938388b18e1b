/* SPDX-License-Identifier: ISC */
/*
 * The virtio network card on real taps and bridges of the kernel, in a network
 * namespace of this test's own: packets both ways, mergeable buffers, nothing from
 * before the start, announcements, and errors that name what is wrong. Skipped where
 * no namespace can be made.
 */
#define _GNU_SOURCE
#include "tests/unit/fake_machine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "hypervisor/xvm/tap.h"

#define RX UINT64_C(0x10000) /* descriptors; available ring + 0x4000, used ring + 0x8000 */
#define TX UINT64_C(0x20000)
#define BUFFERS UINT64_C(0x100000)
#define BUFFER_LEN 1600u
#define RX_BUFFERS 64u
#define PACKET UINT64_C(0x200000)
#define F_VERSION_1 (UINT64_C(1) << 32)
#define F_MRG_RXBUF (UINT64_C(1) << 15)
#define TYPE 0x88b5 /* for local experiments */

static const uint8_t guest_mac[6] = { 0x52, 0x54, 0x00, 0xaa, 0xbb, 0xcc };

struct guest {
    struct machine *m;
    struct device *d;
    uint16_t rx_avail, rx_used, tx_avail;
};

static void out32(struct guest *g, uint64_t reg, uint32_t v)
{
    g->d->ops->io_write(g->d, reg, &v, 4);
}

static uint32_t in32(struct guest *g, uint64_t reg)
{
    uint32_t v = 0;

    g->d->ops->io_read(g->d, reg, &v, 4);
    return v;
}

static uint16_t *field(struct guest *g, uint64_t gpa)
{
    return (uint16_t *)(void *)(g->m->ram + gpa);
}

static void set_desc(
    struct guest *g, uint64_t table, unsigned i, uint64_t gpa, uint32_t len, uint16_t flags)
{
    uint8_t *p = g->m->ram + table + (uint64_t)i * 16;

    memcpy(p, &gpa, 8);
    memcpy(p + 8, &len, 4);
    memcpy(p + 12, &flags, 2);
}

static void drive(struct guest *g, uint64_t features)
{
    static const uint64_t ring[2] = { RX, TX };

    out32(g, 0x70, 0);
    out32(g, 0x70, 3);
    out32(g, 0x24, 0);
    out32(g, 0x20, (uint32_t)features);
    out32(g, 0x24, 1);
    out32(g, 0x20, (uint32_t)(features >> 32));
    out32(g, 0x70, 11);
    for (uint32_t q = 0; q < 2; q++) {
        memset(g->m->ram + ring[q], 0, 0x10000);
        out32(g, 0x30, q);
        out32(g, 0x38, 64);
        out32(g, 0x80, (uint32_t)ring[q]);
        out32(g, 0x90, (uint32_t)ring[q] + 0x4000);
        out32(g, 0xa0, (uint32_t)ring[q] + 0x8000);
        out32(g, 0x44, 1);
    }
    out32(g, 0x70, 15);
    assert_int_equal(in32(g, 0x70), 15);
    g->rx_avail = g->rx_used = g->tx_avail = 0;
}

static void give_buffers(struct guest *g, unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned at = g->rx_avail % 64u;

        set_desc(g, RX, at, BUFFERS + at * (uint64_t)BUFFER_LEN, len, 2);
        *field(g, RX + 0x4000 + 4 + 2 * at) = (uint16_t)at;
        __atomic_store_n(field(g, RX + 0x4002), ++g->rx_avail, __ATOMIC_SEQ_CST);
    }
    out32(g, 0x50, 0);
}

/* IP multicast: bridges look for listeners by themselves. */
static bool from_bridge(struct guest *g, uint32_t id)
{
    static const uint8_t group[3] = { 0x01, 0x00, 0x5e };

    return memcmp(g->m->ram + BUFFERS + id * (uint64_t)BUFFER_LEN + 12, group, 3) == 0;
}

/* Waits for the next used receive buffer; its length and index. */
static bool received(struct guest *g, uint32_t *id, uint32_t *len, int ms)
{
    for (int i = 0; i <= ms * 10; i++) {
        if (__atomic_load_n(field(g, RX + 0x8002), __ATOMIC_SEQ_CST) != g->rx_used) {
            const uint8_t *e = g->m->ram + RX + 0x8004 + 8 * (g->rx_used++ % 64u);

            memcpy(id, e, 4);
            memcpy(len, e + 4, 4);
            if (from_bridge(g, *id))
                continue;
            return true;
        }
        usleep(100);
    }
    return false;
}

static void make_frame(uint8_t *p, const uint8_t *to, const uint8_t *from, size_t len)
{
    for (size_t i = 14; i < len; i++)
        p[i] = (uint8_t)(i * 3);
    memcpy(p, to, 6);
    memcpy(p + 6, from, 6);
    p[12] = TYPE >> 8;
    p[13] = TYPE & 0xff;
}

/* Puts a frame into the sending queue and waits until it is gone. */
static void send_frame(struct guest *g, const uint8_t *frame, size_t len)
{
    unsigned at = g->tx_avail % 64u;

    memset(g->m->ram + PACKET, 0, 12);
    memcpy(g->m->ram + PACKET + 12, frame, len);
    set_desc(g, TX, at, PACKET, (uint32_t)len + 12, 0);
    *field(g, TX + 0x4000 + 4 + 2 * at) = (uint16_t)at;
    __atomic_store_n(field(g, TX + 0x4002), ++g->tx_avail, __ATOMIC_SEQ_CST);
    out32(g, 0x50, 1);
    for (int i = 0; i < 20000; i++) {
        if (__atomic_load_n(field(g, TX + 0x8002), __ATOMIC_SEQ_CST) == g->tx_avail)
            return;
        usleep(100);
    }
    fail_msg("not sent");
}

static void send_from_guest(struct guest *g, size_t len)
{
    static const uint8_t all[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    uint8_t frame[200];

    assert_true(len <= sizeof frame);
    make_frame(frame, all, guest_mac, len);
    send_frame(g, frame, len);
}

/* ---- the host's side ---- */

static void bridge_up(const char *name)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq r;

    assert_true(s >= 0);
    if (ioctl(s, SIOCBRADDBR, name) < 0 && errno != EEXIST)
        fail_msg("bridge %s: %s", name, strerror(errno));
    memset(&r, 0, sizeof r);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    r.ifr_flags = IFF_UP;
    assert_int_equal(ioctl(s, SIOCSIFFLAGS, &r), 0);
    close(s);
}

/* A socket that sees and sends our type (or RARP) on an interface. */
static int packet_socket(const char *ifname, uint16_t type)
{
    struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(type) };
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(type));

    assert_true(s >= 0);
    a.sll_ifindex = (int)if_nametoindex(ifname);
    assert_int_not_equal(a.sll_ifindex, 0);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    return s;
}

static ssize_t next_packet(int s, uint8_t *buf, size_t len, int ms)
{
    struct pollfd p = { .fd = s, .events = POLLIN };

    if (poll(&p, 1, ms) != 1)
        return 0;
    return recv(s, buf, len, 0);
}

static struct guest net_guest(const char *bridge, uint32_t mtu, struct err *e)
{
    struct guest g = { .m = fake_new() };
    Migrd__Vif vif = MIGRD__VIF__INIT;

    vif.mac = (char *)(uintptr_t) "52:54:00:aa:bb:cc";
    vif.bridge = (char *)(uintptr_t)bridge;
    vif.mtu = mtu;
    if (virtio_net_create(g.m, 2, &vif, 0, e) < 0)
        fail_msg("%s", e->text);
    g.d = g.m->dev[0];
    return g;
}

/* The made-up name: from the bridge's ports. */
static const char *tap_name(void)
{
    static char name[IFNAMSIZ];

    snprintf(name, sizeof name, "vif%u.0", (unsigned)getpid() % 10000000u);
    return name;
}

static void test_both_ways(void **state)
{
    static const uint8_t host_mac[6] = { 2, 0, 0, 0, 0, 1 };
    uint8_t frame[1514], buf[2000];
    uint32_t id = 0, len = 0;
    struct guest g;
    struct err e;
    int s;

    (void)state;
    bridge_up("br0");
    g = net_guest("br0", 0, &e);
    assert_int_equal(in32(&g, 0x100), 0xaa005452u);
    drive(&g, F_VERSION_1 | F_MRG_RXBUF);
    g.d->ops->start(g.d);
    s = packet_socket("br0", TYPE);
    send_from_guest(&g, 100);
    assert_int_equal(next_packet(s, buf, sizeof buf, 2000), 100);
    assert_memory_equal(buf, g.m->ram + PACKET + 12, 100);

    give_buffers(&g, RX_BUFFERS, BUFFER_LEN);
    make_frame(frame, guest_mac, host_mac, sizeof frame);
    for (unsigned i = 0; i < 200; i++) {
        size_t n = 60 + i * 7;

        assert_int_equal(send(s, frame, n, 0), n);
        assert_true(received(&g, &id, &len, 2000));
        assert_int_equal(len, n + 12);
        assert_memory_equal(g.m->ram + BUFFERS + id * BUFFER_LEN + 12, frame, n);
        assert_int_equal(g.m->ram[BUFFERS + id * BUFFER_LEN + 10], 1);
        give_buffers(&g, 1, BUFFER_LEN);
    }
    assert_true(fake_edges(g.m, 7) > 0);
    close(s);
    fake_free(&g.m);
    assert_int_equal(if_nametoindex(tap_name()), 0); /* it went with its descriptor */
}

/* One packet over many small buffers; and one that has to wait for buffers. */
static void test_mergeable(void **state)
{
    static const uint8_t host_mac[6] = { 2, 0, 0, 0, 0, 1 };
    uint8_t frame[1514];
    uint32_t id = 0, len = 0, sum = 0;
    struct guest g;
    struct err e;
    int s;

    (void)state;
    bridge_up("br0");
    g = net_guest("br0", 0, &e);
    drive(&g, F_VERSION_1 | F_MRG_RXBUF);
    g.d->ops->start(g.d);
    s = packet_socket("br0", TYPE);
    make_frame(frame, guest_mac, host_mac, sizeof frame);
    give_buffers(&g, 3, 100);
    assert_int_equal(send(s, frame, sizeof frame, 0), sizeof frame);
    assert_false(received(&g, &id, &len, 50));
    give_buffers(&g, 20, 100);
    for (unsigned i = 0; i < 16; i++) { /* 1526 bytes */
        assert_true(received(&g, &id, &len, 2000));
        assert_int_equal(len, i < 15 ? 100 : 26);
        if (i == 0)
            assert_int_equal(g.m->ram[BUFFERS + id * BUFFER_LEN + 10], 16);
        else
            assert_memory_equal(g.m->ram + BUFFERS + id * BUFFER_LEN, frame + i * 100 - 12, len);
        sum += len;
    }
    assert_int_equal(sum, sizeof frame + 12);
    assert_false(received(&g, &id, &len, 20));
    close(s);
    fake_free(&g.m);
}

/* Nothing comes in or goes out before the start, nor during a pause; the receiver waits for the
 * tap while it is made silent. */
static void test_silence(void **state)
{
    static const uint8_t host_mac[6] = { 2, 0, 0, 0, 0, 1 };
    uint8_t frame[60];
    uint32_t id = 0, len = 0;
    struct guest g;
    struct err e;
    int s;

    (void)state;
    bridge_up("br0");
    g = net_guest("br0", 0, &e);
    drive(&g, F_VERSION_1);
    give_buffers(&g, 8, BUFFER_LEN);
    s = packet_socket("br0", TYPE);
    make_frame(frame, guest_mac, host_mac, sizeof frame);
    for (int i = 0; i < 20; i++)
        assert_int_equal(send(s, frame, sizeof frame, 0), sizeof frame);
    g.d->ops->start(g.d);
    assert_false(received(&g, &id, &len, 100)); /* the early ones are not here */
    for (int i = 0; i < 20; i++) {
        g.d->ops->quiesce(g.d);
        assert_int_equal(send(s, frame, sizeof frame, 0), sizeof frame);
        assert_false(received(&g, &id, &len, 5));
        g.d->ops->start(g.d);
        assert_true(received(&g, &id, &len, 2000));
        give_buffers(&g, 1, BUFFER_LEN);
    }
    close(s);
    fake_free(&g.m);
}

static void say_arp(struct guest *g, const uint8_t ip[4])
{
    uint8_t f[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, (const uint8_t[10]){ 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1 }, 10);
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, ip, 4);
    send_frame(g, f, sizeof f);
}

static const uint8_t guest_ip6[16] = { 0xfd, 0x99, [15] = 5 };

/* An advertisement of guest_ip6, by a router. */
static void say_neighbour(struct guest *g)
{
    uint8_t f[78] = { 0x33, 0x33, 0, 0, 0, 1 };

    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, (const uint8_t[10]){ 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255 }, 10);
    memcpy(f + 22, guest_ip6, 16);
    f[38] = 0xff;
    f[54] = 136;
    f[58] = 0xa0;
    memcpy(f + 62, guest_ip6, 16);
    send_frame(g, f, sizeof f);
}

static void expect_arp(int s, const uint8_t ip[4])
{
    uint8_t buf[200];

    assert_int_equal(next_packet(s, buf, sizeof buf, 1000), 60);
    assert_int_equal(buf[0], 0xff);
    assert_memory_equal(buf + 6, guest_mac, 6);
    assert_memory_equal(buf + 12, ((const uint8_t[10]){ 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1 }), 10);
    assert_memory_equal(buf + 22, guest_mac, 6);
    assert_memory_equal(buf + 28, ip, 4);
    assert_memory_equal(buf + 38, ip, 4);
}

/* The kernel's own checksum rule: the sum over pseudo header and message is all ones. */
static uint16_t icmp6_sum(const uint8_t *ip)
{
    uint32_t sum = 32 + 58;

    for (size_t i = 8; i < 40 + 32; i += 2)
        sum += (uint32_t)ip[i] << 8 | ip[i + 1];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void expect_neighbour(int s)
{
    uint8_t buf[200];

    assert_int_equal(next_packet(s, buf, sizeof buf, 1000), 86);
    assert_memory_equal(buf, ((const uint8_t[6]){ 0x33, 0x33, 0, 0, 0, 1 }), 6);
    assert_memory_equal(buf + 22, guest_ip6, 16);
    assert_int_equal(buf[54], 136);
    assert_int_equal(buf[58], 0xa0); /* router, override, unsolicited */
    assert_memory_equal(buf + 62, guest_ip6, 16);
    assert_memory_equal(buf + 80, guest_mac, 6);
    assert_int_equal(icmp6_sum(buf + 14), 0xffff);
}

/* What the guest has said of itself moves with it and is announced where it goes on. */
static void test_addresses(void **state)
{
    static const uint8_t ip[4] = { 10, 0, 0, 5 }, other[4] = { 10, 0, 0, 6 };
    struct guest a, b;
    struct err e;
    int arp, nd;

    (void)state;
    bridge_up("br0");
    a = net_guest("br0", 0, &e);
    b = net_guest("br0", 0, &e);
    drive(&a, F_VERSION_1 | F_MRG_RXBUF);
    a.d->ops->start(a.d);
    say_arp(&a, other);
    say_arp(&a, ip);
    say_arp(&a, (const uint8_t[4]){ 0, 0, 0, 0 }); /* a probe: not its own yet */
    say_neighbour(&a);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    fake_free(&a.m);
    arp = packet_socket("br0", 0x0806);
    nd = packet_socket("br0", 0x86dd);
    b.d->ops->start(b.d);
    virtio_net_announce(b.m);
    for (unsigned i = 0; i < 5; i++) {
        expect_arp(arp, other);
        expect_arp(arp, ip);
        expect_neighbour(nd);
    }
    assert_int_equal(next_packet(arp, (uint8_t[200]){ 0 }, 200, 500), 0);
    b.d->ops->reset(b.d); /* another system boots: it may have other addresses */
    virtio_net_announce(b.m);
    assert_int_equal(next_packet(arp, (uint8_t[200]){ 0 }, 200, 300), 0);
    close(arp);
    close(nd);
    fake_free(&b.m);
}

/* A state of the release before has no addresses. */
static void test_older_state(void **state)
{
    struct guest a, b;
    struct state_writer w;
    struct state_blob *blob;
    struct state_reader r;
    uint8_t *bytes;
    struct err e;
    size_t len;

    (void)state;
    bridge_up("br0");
    a = net_guest("br0", 0, &e);
    b = net_guest("br0", 0, &e);
    state_writer_init(&w);
    assert_int_equal(a.d->ops->save(a.d, &w, &e), 0);
    assert_int_equal(state_finish(&w, &bytes, &len, &e), 0);
    assert_int_equal(state_parse(bytes, len, &blob, &e), 0);
    assert_int_equal(state_open(blob, b.d->ops->name, &r, &e), 0);
    assert_int_equal(r.version, 2);
    r.version = 3;
    assert_int_equal(b.d->ops->load(b.d, &r, &e), -1);
    assert_string_equal(e.text, "virtio-net0: state version 3, this release reads 1 to 2");
    r.version = 1;
    r.end -= 8;
    assert_int_equal(b.d->ops->load(b.d, &r, &e), 0);
    state_blob_free(&blob);
    free(bytes);
    fake_free(&a.m);
    fake_free(&b.m);
}

static void test_announce(void **state)
{
    uint8_t buf[200];
    struct guest g;
    struct err e;
    int s;

    (void)state;
    bridge_up("br0");
    g = net_guest("br0", 0, &e);
    g.d->ops->start(g.d);
    s = packet_socket("br0", 0x8035);
    virtio_net_announce(g.m);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(next_packet(s, buf, sizeof buf, 1000), 60);
        assert_memory_equal(buf + 6, guest_mac, 6);
        assert_memory_equal(buf + 22, guest_mac, 6);
        assert_int_equal(buf[0], 0xff);
    }
    assert_int_equal(next_packet(s, buf, sizeof buf, 700), 0);
    virtio_net_announce(g.m);
    assert_int_equal(next_packet(s, buf, sizeof buf, 1000), 60);
    g.d->ops->quiesce(g.d); /* paused: it may be another host's by now */
    while (next_packet(s, buf, sizeof buf, 0) > 0)
        continue;
    assert_int_equal(next_packet(s, buf, sizeof buf, 300), 0);
    close(s);
    fake_free(&g.m);
}

static void test_mtu(void **state)
{
    struct guest g;
    struct err e;

    (void)state;
    bridge_up("br0");
    g = net_guest("br0", 9000, &e);
    assert_int_equal(in32(&g, 0x108) >> 16, 9000);
    fake_free(&g.m);
}

static void expect_error(const char *mac, const char *bridge, const char *ifname, const char *text)
{
    struct machine *m = fake_new();
    Migrd__Vif vif = MIGRD__VIF__INIT;
    struct err e;

    vif.mac = (char *)(uintptr_t)mac;
    vif.bridge = (char *)(uintptr_t)bridge;
    vif.ifname = (char *)(uintptr_t)ifname;
    assert_int_equal(virtio_net_create(m, 0, &vif, 0, &e), -1);
    if (strstr(e.text, text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.text, text);
    fake_free(&m);
}

static void test_errors(void **state)
{
    const uint8_t mac[6] = { 2, 0, 0, 0, 0, 2 };
    struct tap_config cfg = { .ifname = "taken0", .bridge = "", .mac = mac };
    struct tap t;
    struct err e;

    (void)state;
    bridge_up("br0");
    expect_error("52:54:00:aa:bb:cc", "br-missing", "", "br-missing: no such interface");
    expect_error("52:54:00:aa:bb:cc", "lo", "", "bridge lo");
    expect_error("52:54:00:aa:bb:cc", "br0", "lo", "tap lo");
    expect_error("52:54:00:aa:bb:cc", "br0", "a-name-that-is-too-long", "not a name");
    expect_error("52:54:00:aa:bb", "br0", "", "mac 52:54:00:aa:bb");
    expect_error("53:54:00:aa:bb:cc", "br0", "", "mac 53:");
    assert_int_equal(tap_open(&t, &cfg, &e), 0);
    expect_error("52:54:00:aa:bb:cc", "br0", "taken0", "taken0: in use");
    tap_close(&t);
}

/* Another process of the same number has the made-up name. */
static void test_made_up_name(void **state)
{
    const uint8_t mac[6] = { 2, 0, 0, 0, 0, 2 };
    struct tap_config cfg = { .ifname = "", .bridge = "", .mac = mac };
    struct tap a, b;
    struct err e;

    (void)state;
    assert_int_equal(tap_open(&a, &cfg, &e), 0);
    assert_int_equal(tap_open(&b, &cfg, &e), 0);
    assert_string_equal(a.name, tap_name());
    assert_string_not_equal(a.name, b.name);
    tap_close(&a);
    tap_close(&b);
}

static void test_move(void **state)
{
    struct guest a, b;
    struct err e;

    (void)state;
    bridge_up("br0");
    a = net_guest("br0", 0, &e);
    b = net_guest("br0", 0, &e);
    drive(&a, F_VERSION_1 | F_MRG_RXBUF | 0x83); /* checksums and TSO4, too */
    a.d->ops->start(a.d);
    send_from_guest(&a, 200);
    assert_int_equal(fake_move(a.m, b.m, &e), 0);
    fake_free(&a.m);
    b.rx_avail = b.rx_used = 0;
    b.tx_avail = 1;
    b.d->ops->start(b.d);
    send_from_guest(&b, 200);
    assert_int_equal(in32(&b, 0x70), 15);
    fake_free(&b.m);
}

/* The bridge's own multicast would come in between. */
static void no_ipv6(void)
{
    static const char *const files[] = { "/proc/sys/net/ipv6/conf/all/disable_ipv6",
        "/proc/sys/net/ipv6/conf/default/disable_ipv6" };

    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        FILE *f = fopen(files[i], "we");

        if (f != NULL) {
            fputs("1", f);
            fclose(f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_mergeable),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_older_state),
        cmocka_unit_test(test_announce),
        cmocka_unit_test(test_mtu),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_made_up_name),
        cmocka_unit_test(test_move),
    };

    if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0) {
        printf("1..0 # SKIP no network namespace or no /dev/net/tun here: %s\n", strerror(errno));
        return 0;
    }
    no_ipv6();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
