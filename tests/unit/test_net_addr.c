/* SPDX-License-Identifier: ISC */
/* hypervisor/xvm/virtio_net_addr.c: what a guest's frames tell of its addresses, and what not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hypervisor/xvm/virtio_net_addr.h"

static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 10 };

struct frame {
    uint8_t b[86];
    size_t len;
};

static struct frame arp(uint8_t operation, const uint8_t ip[4])
{
    struct frame f = { .len = 60 };

    memset(f.b, 0xff, 6);
    memcpy(f.b + 6, mac, 6);
    memcpy(f.b + 12, (const uint8_t[10]){ 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation }, 10);
    memcpy(f.b + 22, mac, 6);
    memcpy(f.b + 28, ip, 4);
    return f;
}

static struct frame nd(uint8_t type, uint8_t flags, uint8_t source, uint8_t target)
{
    struct frame f = { .len = 78 };

    memset(f.b, 0xff, 6);
    memcpy(f.b + 6, mac, 6);
    memcpy(f.b + 12, (const uint8_t[10]){ 0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255 }, 10);
    if (source != 0) {
        f.b[22] = 0xfe;
        f.b[23] = 0x80;
        f.b[37] = source;
    }
    f.b[38] = 0xff;
    f.b[54] = type;
    f.b[58] = flags;
    f.b[62] = 0xfd;
    f.b[77] = target;
    return f;
}

static void learn(struct net_addrs *t, struct frame f)
{
    if (net_addrs_wants(f.b))
        net_addrs_learn(t, mac, f.b, f.len);
}

static void addresses(void **state)
{
    struct net_addrs t = { 0 };

    (void)state;
    learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, 1 }));
    learn(&t, arp(2, (const uint8_t[4]){ 10, 0, 0, 2 }));
    learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, 1 }));
    assert_int_equal(t.n, 2);
    assert_false(t.addr[0].v6);
    assert_int_equal(t.addr[1].ip[3], 2);
    learn(&t, nd(135, 0, 7, 1)); /* solicitation: its source */
    assert_int_equal(t.n, 3);
    assert_true(t.addr[2].v6);
    assert_int_equal(t.addr[2].ip[15], 7);
    learn(&t, nd(136, 0x20, 7, 8)); /* advertisement: its target */
    assert_int_equal(t.n, 4);
    assert_int_equal(t.addr[3].ip[0], 0xfd);
    assert_false(t.router);
    learn(&t, nd(134, 0, 7, 0));
    assert_true(t.router);
    learn(&t, nd(136, 0x20, 7, 8));
    assert_false(t.router);
    assert_int_equal(t.n, 4);
}

static void not_its_own(void **state)
{
    struct net_addrs t = { 0 };
    struct frame f;

    (void)state;
    learn(&t, arp(1, (const uint8_t[4]){ 0, 0, 0, 0 })); /* probe */
    learn(&t, arp(1, (const uint8_t[4]){ 127, 0, 0, 1 }));
    learn(&t, arp(1, (const uint8_t[4]){ 224, 0, 0, 1 }));
    learn(&t, arp(1, (const uint8_t[4]){ 255, 255, 255, 255 }));
    learn(&t, arp(3, (const uint8_t[4]){ 10, 0, 0, 1 })); /* RARP's operation */
    learn(&t, nd(135, 0, 0, 1));                          /* duplicate detection: no source yet */
    learn(&t, nd(136, 0, 7, 8));                          /* anycast, or for somebody else */
    learn(&t, nd(128, 0, 7, 8));                          /* echo */
    f = nd(135, 0, 7, 1);
    f.b[21] = 64; /* came through a router */
    learn(&t, f);
    f = arp(1, (const uint8_t[4]){ 10, 0, 0, 1 });
    f.b[11]++; /* of a card behind the guest's bridge */
    learn(&t, f);
    f = arp(1, (const uint8_t[4]){ 10, 0, 0, 1 });
    f.b[27]++;
    learn(&t, f);
    f = arp(1, (const uint8_t[4]){ 10, 0, 0, 1 });
    f.b[12] = 0x81; /* in a VLAN */
    learn(&t, f);
    assert_int_equal(t.n, 0);
}

/* Every length: nothing is read beyond it (the sanitizers watch). */
static void cut_frames(void **state)
{
    const struct frame whole[] = { arp(1, (const uint8_t[4]){ 10, 0, 0, 1 }), nd(135, 0, 7, 1),
        nd(136, 0x20, 7, 8) };

    (void)state;
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        for (size_t n = 0; n <= whole[i].len; n++) {
            struct net_addrs t = { 0 };
            uint8_t *copy = malloc(n + 1);

            assert_non_null(copy);
            memcpy(copy, whole[i].b, n);
            net_addrs_learn(&t, mac, copy, n);
            assert_true(t.n == (n >= (i == 0 ? 42 : i == 1 ? 62 : 78)));
            free(copy);
        }
}

static void bounded(void **state)
{
    struct net_addrs t = { 0 };

    (void)state;
    for (unsigned i = 1; i <= 100; i++) {
        learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, (uint8_t)i }));
        learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, 1 })); /* seen all the time */
    }
    assert_int_equal(t.n, NET_ADDRS_MAX);
    for (unsigned i = 0, ones = 0; i < t.n; i++) {
        assert_true(t.addr[i].ip[3] == 1 || t.addr[i].ip[3] > 100 - NET_ADDRS_MAX);
        ones += t.addr[i].ip[3] == 1;
        assert_true(i + 1 < t.n || ones == 1);
    }
}

/* The order of use survives: the one that was seen least recently goes first there, too. */
static void moved(void **state)
{
    struct net_addrs t = { 0 }, there;
    struct state_writer w;
    struct state_blob *b;
    struct state_reader r;
    uint8_t *blob;
    struct err e;
    size_t len;

    (void)state;
    for (unsigned i = 1; i <= NET_ADDRS_MAX; i++)
        learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, (uint8_t)i }));
    learn(&t, arp(1, (const uint8_t[4]){ 10, 0, 0, 1 }));
    state_writer_init(&w);
    state_section_begin(&w, "a", 2);
    net_addrs_save(&t, &w);
    state_section_end(&w);
    assert_int_equal(state_finish(&w, &blob, &len, &e), 0);
    assert_int_equal(state_parse(blob, len, &b, &e), 0);
    assert_int_equal(state_open(b, "a", &r, &e), 0);
    assert_int_equal(net_addrs_load(&there, &r, &e), 0);
    assert_int_equal(there.n, NET_ADDRS_MAX);
    learn(&there, arp(1, (const uint8_t[4]){ 10, 0, 1, 1 }));
    for (unsigned i = 0; i < there.n; i++)
        assert_false(there.addr[i].ip[2] == 0 && there.addr[i].ip[3] == 2);
    blob[len - 17] = 5; /* neither 4 nor 6 */
    assert_int_equal(state_open(b, "a", &r, &e), 0);
    assert_int_equal(net_addrs_load(&there, &r, &e), -1);
    assert_string_equal(e.text, "domain state: section a: an address of family 5");
    state_blob_free(&b);
    free(blob);
}

static void hostile_state(void **state)
{
    const uint8_t many[] = { 0, 0, 0, 0, 17, 0, 0, 0 }, cut[] = { 0, 0, 0, 0, 1, 0, 0, 0, 4 };
    struct state_reader r = { "virtio-net0", 2, many, many + sizeof many };
    struct net_addrs t;
    struct err e;

    (void)state;
    assert_int_equal(net_addrs_load(&t, &r, &e), -1);
    assert_string_equal(e.text, "domain state: section virtio-net0: 17 addresses, router 0");
    r = (struct state_reader){ "virtio-net0", 2, cut, cut + sizeof cut };
    assert_int_equal(net_addrs_load(&t, &r, &e), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(not_its_own),
        cmocka_unit_test(cut_frames),
        cmocka_unit_test(bounded),
        cmocka_unit_test(moved),
        cmocka_unit_test(hostile_state),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
