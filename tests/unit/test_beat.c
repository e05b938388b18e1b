/* SPDX-License-Identifier: ISC */
/* Beats: keys, format, repeated ones, and two nodes on loopback with somebody who sends rubbish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "cluster/beat.h"
#include "cluster/beat_seal.h"

static char folder[] = "/tmp/test_beat.XXXXXX";
static unsigned port;

static struct beat_keys keys_of(const char *secret)
{
    struct beat_keys k = { 0 };

    assert_int_equal(beat_keys_make(&k, (const uint8_t *)secret, strlen(secret), NULL), 0);
    return k;
}

/* --- format --- */

static void test_keys(void **state)
{
    struct beat_keys a = keys_of("one secret"), b = keys_of("one secret"), c = keys_of("another");

    (void)state;
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_not_equal(a.now.tag, 0);
    assert_int_not_equal(a.now.tag, c.now.tag);
    assert_memory_not_equal(a.now.mac, c.now.mac, sizeof a.now.mac);
    assert_int_equal(beat_keys_make(&a, (const uint8_t *)"another", 7, NULL), 0);
    assert_memory_equal(&a.now, &c.now, sizeof a.now);
    assert_memory_equal(&a.before, &b.now, sizeof a.now);
    assert_int_equal(beat_keys_make(&a, (const uint8_t *)"another", 7, NULL), 0);
    assert_memory_equal(&a.before, &b.now, sizeof a.now);
    beat_keys_clear(&a);
    assert_int_equal(a.now.tag | a.before.tag, 0);
}

static void test_key_file(void **state)
{
    struct beat_keys k = { 0 };
    char path[100];
    struct err e;

    (void)state;
    snprintf(path, sizeof path, "%s/none", folder);
    assert_int_equal(beat_keys_read(&k, path, &e), -1);
    assert_non_null(strstr(e.text, "corosync-keygen"));
    assert_non_null(strstr(e.text, path));
    snprintf(path, sizeof path, "%s/short", folder);
    assert_int_equal(io_replace_file(path, "0123456789012345678901234567890", 31, 0600, &e), 0);
    assert_int_equal(beat_keys_read(&k, path, &e), -1);
    assert_non_null(strstr(e.text, "31 bytes"));
    assert_int_equal(k.now.tag, 0);
    assert_int_equal(io_replace_file(path, "01234567890123456789012345678901", 32, 0600, &e), 0);
    assert_int_equal(beat_keys_read(&k, path, &e), 0);
}

static void test_format(void **state)
{
    struct beat_keys k = keys_of("one secret"), other = keys_of("another");
    const struct beat_head head = { k.now.tag, 7, 1, 2, UINT64_C(0x0102030405060708), 99 };
    uint8_t bytes[HA_BEAT_MAX + 1], out[BEAT_DATAGRAM_MAX + 1];
    struct beat_head h;
    const uint8_t *got;
    size_t n, len;

    (void)state;
    memset(bytes, 0x55, sizeof bytes);
    assert_int_equal(beat_seal(&k, &head, bytes, 0, out), 0);
    assert_int_equal(beat_seal(&k, &head, bytes, HA_BEAT_MAX + 1, out), 0);
    assert_int_equal(beat_seal(&other, &head, bytes, 1, out), 0);
    for (size_t want = 1; want <= HA_BEAT_MAX; want += 233) {
        n = beat_seal(&k, &head, bytes, want, out);
        assert_int_equal(n, BEAT_HEAD + want + BEAT_MAC);
        assert_int_equal(beat_unseal(&k, out, n, &h, &got, &len), BEAT_GOOD);
        assert_memory_equal(&h, &head, sizeof h);
        assert_int_equal(len, want);
        assert_memory_equal(got, bytes, want);
        assert_int_equal(beat_unseal(&other, out, n, &h, &got, &len), BEAT_UNKNOWN_KEY);
    }
}

static void test_damage(void **state)
{
    struct beat_keys k = keys_of("one secret");
    const struct beat_head head = { k.now.tag, k.now.tag, 1, 2, 3, 4 };
    uint8_t out[BEAT_DATAGRAM_MAX + 1];
    struct beat_head h;
    const uint8_t *got;
    size_t len, n = beat_seal(&k, &head, (const uint8_t *)"beat", 4, out);

    (void)state;
    for (size_t i = 0; i < n * 8; i++) {
        out[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_not_equal(beat_unseal(&k, out, n, &h, &got, &len), BEAT_GOOD);
        out[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t i = 0; i < n; i++)
        assert_int_not_equal(beat_unseal(&k, out, i, &h, &got, &len), BEAT_GOOD);
    assert_int_not_equal(beat_unseal(&k, out, n + 1, &h, &got, &len), BEAT_GOOD);
    assert_int_equal(beat_unseal(&k, out, BEAT_DATAGRAM_MAX + 1, &h, &got, &len), BEAT_MALFORMED);
    assert_int_equal(beat_unseal(&k, out, n, &h, &got, &len), BEAT_GOOD);
}

static void test_window(void **state)
{
    struct beat_window w = { 0 };

    (void)state;
    assert_false(beat_window_take(&w, 1, 0));
    for (uint64_t i = 1; i <= 200; i++) {
        assert_true(beat_window_take(&w, 1, i));
        assert_false(beat_window_take(&w, 1, i));
    }
    assert_true(beat_window_take(&w, 1, 300)); /* 201 to 299 are late */
    assert_true(beat_window_take(&w, 1, 237));
    assert_false(beat_window_take(&w, 1, 237));
    assert_false(beat_window_take(&w, 1, 236)); /* too late */
    assert_true(beat_window_take(&w, 1, 299));
    assert_false(beat_window_take(&w, 1, 300));
    for (uint64_t s = 2; s < 1 + BEAT_STREAMS; s++)
        assert_true(beat_window_take(&w, s, 5));
    assert_false(beat_window_take(&w, 1, 300)); /* still known */
    assert_true(beat_window_take(&w, 1, UINT64_MAX));
    assert_false(beat_window_take(&w, 1, UINT64_MAX));
    assert_false(beat_window_take(&w, 2, 5));
}

/* --- two nodes on loopback --- */

struct side {
    struct beat *beat;
    char key[100];
    uint64_t got, sum;
    uint32_t from;
};

static uv_loop_t loop;
static struct side side[2];
static struct node_list nodes[2];
static int stranger = -1;

static void on_beat(void *arg, uint32_t from, const uint8_t *bytes, size_t len)
{
    struct side *s = arg;

    s->got++;
    s->from = from;
    for (size_t i = 0; i < len; i++)
        s->sum += bytes[i];
}

static void set_address(struct node_entry *n, const char *ip)
{
    struct sockaddr_in *a = (struct sockaddr_in *)&n->socket;

    memset(&n->socket, 0, sizeof n->socket);
    a->sin_family = AF_INET;
    inet_pton(AF_INET, ip, &a->sin_addr);
    n->socket_len = sizeof *a;
    snprintf(n->address, sizeof n->address, "%s", ip);
}

static void write_key(unsigned i, const char *secret)
{
    char bytes[64];

    snprintf(bytes, sizeof bytes, "%-63s", secret);
    assert_int_equal(io_replace_file(side[i].key, bytes, sizeof bytes, 0600, NULL), 0);
}

/* Until `n` beats have come to `i`, for a second at most. */
static void run_until(unsigned i, uint64_t n)
{
    for (unsigned tries = 0; tries < 1000 && side[i].got < n; tries++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(side[i].got, n);
}

static int pair_begin(void **state)
{
    struct err e;

    (void)state;
    uv_loop_init(&loop);
    memset(side, 0, sizeof side);
    memset(nodes, 0, sizeof nodes);
    port = 20000 + (unsigned)getpid() % 10000;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(side[i].key, sizeof side[i].key, "%s/key%u", folder, i);
        write_key(i, "first");
        if (beat_open(&loop, side[i].key, port, on_beat, &side[i], &side[i].beat, &e) < 0)
            fail_msg("%s", e.text);
        nodes[i] = (struct node_list){ .own = i + 1, .n = 2 };
        for (unsigned j = 0; j < 2; j++) {
            nodes[i].node[j].id = j + 1;
            set_address(&nodes[i].node[j], j ? "127.0.0.2" : "127.0.0.1");
        }
        if (beat_nodes(side[i].beat, &nodes[i], &e) < 0)
            fail_msg("%s", e.text);
    }
    stranger = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return 0;
}

static int pair_end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++)
        beat_stop(side[i].beat);
    beat_stop(side[0].beat);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (unsigned i = 0; i < 2; i++)
        beat_close(&side[i].beat);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(stranger);
    return 0;
}

static struct beat_figures figures(unsigned i)
{
    struct beat_figures f;

    beat_figures(side[i].beat, &f);
    assert_int_equal(f.bad, f.forged + f.repeated + f.stranger + f.malformed);
    return f;
}

/* To node 1, from an address that is none of the nodes'. */
static void throw_at_first(const uint8_t *bytes, size_t len)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    assert_int_equal(
        sendto(stranger, bytes, len, 0, (struct sockaddr *)&a, sizeof a), (ssize_t)len);
}

static void throw_sealed(const char *secret, struct beat_head head)
{
    uint8_t out[BEAT_DATAGRAM_MAX];
    char bytes[64];
    struct beat_keys k = { 0 };
    size_t n;

    snprintf(bytes, sizeof bytes, "%-63s", secret);
    assert_int_equal(beat_keys_make(&k, (const uint8_t *)bytes, sizeof bytes, NULL), 0);
    head.signer = head.newest = k.now.tag;
    n = beat_seal(&k, &head, (const uint8_t *)"x", 1, out);
    throw_at_first(out, n);
}

static void test_to_and_fro(void **state)
{
    uint8_t big[HA_BEAT_MAX] = { 1, 2, 3 };

    (void)state;
    assert_string_equal(figures(0).text, "");
    beat_send(side[0].beat, 2, (const uint8_t *)"abc", 3);
    run_until(1, 1);
    assert_int_equal(side[1].from, 1);
    assert_int_equal(side[1].sum, 'a' + 'b' + 'c');
    beat_send(side[1].beat, 1, big, sizeof big);
    run_until(0, 1);
    assert_int_equal(side[0].sum, 6);
    beat_send(side[0].beat, 3, big, 1); /* nobody */
    beat_send(side[0].beat, 1, big, 1);
    for (unsigned i = 0; i < 600; i++)
        beat_send(side[0].beat, 2, big, 100);
    run_until(1, 601);
    assert_int_equal(figures(0).out, 601);
    assert_int_equal(figures(1).in, 601);
    assert_int_equal(figures(1).bad, 0);
}

static void test_rubbish(void **state)
{
    uint8_t big[2000] = { 'M', 'G', 'B', '1' };
    const struct beat_head good = { 0, 0, 2, 1, 77, 1 };
    struct beat_head h = good;

    (void)state;
    throw_at_first(big, 0);
    throw_at_first((const uint8_t *)"rubbish", 7);
    throw_at_first(big, sizeof big);
    throw_at_first(big, BEAT_HEAD + BEAT_MAC + 1); /* tag 0 */
    throw_sealed("other", good);
    h.to = 2;
    throw_sealed("first", h);
    h = good;
    h.from = 9;
    throw_sealed("first", h);
    h.from = 1; /* it is node 1 itself */
    throw_sealed("first", h);
    throw_sealed("first", good);
    throw_sealed("first", good);
    h = good;
    h.number = 0;
    throw_sealed("first", h);
    h.number = 2;
    throw_sealed("first", h);
    run_until(0, 2);
    assert_int_equal(figures(0).malformed, 3);
    assert_int_equal(figures(0).stranger, 5);
    assert_int_equal(figures(0).repeated, 2);
    assert_int_equal(side[0].from, 2);
}

/* One node after the other, and beats all the time. */
static void test_new_key(void **state)
{
    uint64_t n = 0;
    struct err e;

    (void)state;
    for (unsigned step = 0; step < 6; step++) {
        if (step == 1 || step == 3) {
            write_key(step == 3, "second");
            assert_int_equal(beat_reload(side[step == 3].beat, &e), 0);
        }
        for (unsigned i = 0; i < 3; i++) {
            n++;
            beat_send(side[0].beat, 2, (const uint8_t *)"x", 1);
            run_until(1, n);
            beat_send(side[1].beat, 1, (const uint8_t *)"x", 1);
            run_until(0, n);
        }
    }
    assert_int_equal(figures(0).bad + figures(1).bad, 0);
    unlink(side[0].key);
    assert_int_equal(beat_reload(side[0].beat, &e), -1);
    beat_send(side[0].beat, 2, (const uint8_t *)"x", 1);
    run_until(1, n + 1);
}

static void test_other_key(void **state)
{
    struct err e;

    (void)state;
    for (unsigned i = 0; i < 2; i++) { /* twice: the first key is forgotten */
        write_key(1, i ? "third" : "second");
        assert_int_equal(beat_reload(side[1].beat, &e), 0);
    }
    beat_send(side[1].beat, 1, (const uint8_t *)"x", 1);
    for (unsigned tries = 0; tries < 1000 && figures(0).bad == 0; tries++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    assert_int_equal(figures(0).forged, 1);
    assert_int_equal(side[0].got, 0);
}

static void test_other_address(void **state)
{
    struct beat_figures f;
    struct err e;

    (void)state;
    set_address(&nodes[1].node[1], "127.0.0.1"); /* taken by the other one */
    assert_int_equal(beat_nodes(side[1].beat, &nodes[1], &e), -1);
    assert_non_null(strstr(e.text, "ss -ulpn"));
    f = figures(1);
    assert_string_equal(f.text, e.text);
    beat_send(side[1].beat, 1, (const uint8_t *)"x", 1);
    assert_int_equal(figures(1).unsent, 1);
    nodes[1].node[1].socket_len = 0;
    assert_int_equal(beat_nodes(side[1].beat, &nodes[1], &e), -1);
    for (unsigned i = 0; i < 2; i++) {
        set_address(&nodes[i].node[1], "127.0.0.3");
        assert_int_equal(beat_nodes(side[i].beat, &nodes[i], &e), 0);
        assert_int_equal(beat_nodes(side[i].beat, &nodes[i], &e), 0);
    }
    beat_send(side[0].beat, 2, (const uint8_t *)"x", 1);
    run_until(1, 1);
    beat_send(side[1].beat, 1, (const uint8_t *)"x", 1);
    run_until(0, 1);
}

/* Both nodes on one address: what is sent comes back, and is not for this node. */
static void test_ipv6(void **state)
{
    struct sockaddr_in6 *a;
    struct err e;

    (void)state;
    for (unsigned j = 0; j < 2; j++) {
        a = (struct sockaddr_in6 *)&nodes[0].node[j].socket;
        memset(a, 0, sizeof nodes[0].node[j].socket);
        a->sin6_family = AF_INET6;
        a->sin6_addr = in6addr_loopback;
        nodes[0].node[j].socket_len = sizeof *a;
    }
    if (access("/proc/net/if_inet6", F_OK) != 0)
        skip();
    assert_int_equal(beat_nodes(side[0].beat, &nodes[0], &e), 0);
    beat_send(side[0].beat, 2, (const uint8_t *)"x", 1);
    assert_int_equal(figures(0).out, 1);
    for (unsigned tries = 0; tries < 1000 && figures(0).bad == 0; tries++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(1000);
    }
    assert_int_equal(figures(0).stranger, 1);
    assert_int_equal(side[0].got, 0);
}

static int all_begin(void **state)
{
    (void)state;
    log_set_level(LOG_LV_ERROR);
    return mkdtemp(folder) ? 0 : -1;
}

static int all_end(void **state)
{
    static const char *const names[] = { "short", "key0", "key1" };
    char path[100];

    (void)state;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_key_file),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_window),
        cmocka_unit_test_setup_teardown(test_to_and_fro, pair_begin, pair_end),
        cmocka_unit_test_setup_teardown(test_rubbish, pair_begin, pair_end),
        cmocka_unit_test_setup_teardown(test_new_key, pair_begin, pair_end),
        cmocka_unit_test_setup_teardown(test_other_key, pair_begin, pair_end),
        cmocka_unit_test_setup_teardown(test_other_address, pair_begin, pair_end),
        cmocka_unit_test_setup_teardown(test_ipv6, pair_begin, pair_end),
    };

    return cmocka_run_group_tests(tests, all_begin, all_end);
}
