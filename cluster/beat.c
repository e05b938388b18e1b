/* SPDX-License-Identifier: ISC */
/*
 * One datagram socket, bound to the address of this node's first link, so that beats take the way
 * that corosync's own traffic takes, and their source is what the peers know. The address need not
 * be there yet, or just now: the socket is bound all the same.
 *
 * Who is told of a bad datagram: the log, once a minute for each node and reason. A node is found
 * by the address that it came from if the datagram itself can't be believed.
 */
#define _GNU_SOURCE
#include "cluster/beat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "cluster/beat_seal.h"

#define TURN_DATAGRAMS 256
#define RECEIVE_BYTES (1 << 20) /* what comes while the loop stands still is wanted */
#define PRIORITY 6              /* the highest that needs no privilege */
#define AGAIN_MS 1000
#define SAY_NS (60 * NS_PER_S)

enum reason { FORGED, OTHER_KEY, REPEATED, STRANGER, MALFORMED, UNSENT, REASON_MAX };

struct peer {
    uint32_t node;
    char address[NODE_ADDRESS_LEN];
    struct sockaddr_storage socket;
    socklen_t socket_len;
    uint32_t newest; /* tag of the newest key that it says to have; 0 not heard */
    struct beat_window window;
    uint64_t said[REASON_MAX]; /* ns; 0 never */
};

struct beat {
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_poll_t *poll; /* NULL: no socket */
    int fd;
    unsigned port;
    char key_file[256];
    beat_received *received;
    void *arg;
    struct beat_keys keys;
    uint64_t stream, number;
    uint32_t own;
    struct sockaddr_storage address; /* of our own */
    socklen_t address_len;
    struct peer peer[HA_NODES_MAX];
    unsigned n;
    struct peer nobody; /* for strangers */
    bool stopped;
    struct beat_figures f;
};

/* --- what is said --- */

static bool say_now(struct peer *p, enum reason why)
{
    uint64_t now = clock_ns();

    if (p->said[why] != 0 && now - p->said[why] < SAY_NS)
        return false;
    p->said[why] = now;
    return true;
}

static void say(
    struct beat *b, struct peer *p, enum reason why, const struct sockaddr_storage *from)
{
    char at[INET6_ADDRSTRLEN] = "?";

    if (!say_now(p, why))
        return;
    if (from->ss_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)from)->sin_addr, at, sizeof at);
    else if (from->ss_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)from)->sin6_addr, at, sizeof at);
    switch (why) {
    case OTHER_KEY:
        log_error("beat",
            "beats from node %u (%s) are signed with another key: copy %s of one node to all, "
            "then reload migrd there",
            p->node, at, b->key_file);
        break;
    case FORGED:
        log_warn("beat", "a beat from %s is damaged or forged; %llu so far", at,
            (unsigned long long)b->f.forged);
        break;
    case REPEATED:
        log_warn("beat", "a beat of node %u came again from %s; %llu so far", p->node, at,
            (unsigned long long)b->f.repeated);
        break;
    case STRANGER:
        log_warn("beat", "a beat from %s is of no node of this cluster, or not for this node", at);
        break;
    case MALFORMED:
        log_warn("beat", "%s sends what is no beat to port %u; %llu so far", at, b->port,
            (unsigned long long)b->f.malformed);
        break;
    case UNSENT:
    case REASON_MAX:
        break;
    }
}

/* --- receiving --- */

static struct peer *peer_of(struct beat *b, uint32_t node)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->peer[i].node == node)
            return &b->peer[i];
    return NULL;
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return false;
    if (a->ss_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
               &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
}

/* Whoever lives at that address; `nobody` for all others together. */
static struct peer *peer_at(struct beat *b, const struct sockaddr_storage *from)
{
    for (unsigned i = 0; i < b->n; i++)
        if (b->peer[i].socket_len && same_host(&b->peer[i].socket, from))
            return &b->peer[i];
    return &b->nobody;
}

static void drop(
    struct beat *b, struct peer *p, enum reason why, const struct sockaddr_storage *from)
{
    uint64_t *count[REASON_MAX] = { [FORGED] = &b->f.forged,
        [OTHER_KEY] = &b->f.forged,
        [REPEATED] = &b->f.repeated,
        [STRANGER] = &b->f.stranger,
        [MALFORMED] = &b->f.malformed,
        [UNSENT] = &b->f.unsent };

    ++*count[why];
    b->f.bad++;
    say(b, p, why, from);
}

static void take(
    struct beat *b, const uint8_t *datagram, size_t n, const struct sockaddr_storage *from)
{
    struct peer *at = peer_at(b, from), *p;
    struct beat_head h;
    const uint8_t *bytes;
    size_t len;

    switch (beat_unseal(&b->keys, datagram, n, &h, &bytes, &len)) {
    case BEAT_MALFORMED:
        drop(b, at, MALFORMED, from);
        return;
    case BEAT_UNKNOWN_KEY:
        drop(b, at, at == &b->nobody ? STRANGER : OTHER_KEY, from);
        return;
    case BEAT_FORGED:
        drop(b, at, FORGED, from);
        return;
    case BEAT_GOOD:
        break;
    }
    p = peer_of(b, h.from);
    if (p == NULL || h.to != b->own) {
        drop(b, at, STRANGER, from);
    } else if (!beat_window_take(&p->window, h.stream, h.number)) {
        drop(b, p, REPEATED, from);
    } else {
        p->newest = h.newest;
        b->f.in++;
        b->received(b->arg, h.from, bytes, len);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct beat *b = poll->data;
    uint8_t datagram[BEAT_DATAGRAM_MAX + 1]; /* one byte more shows what is longer */
    struct sockaddr_storage from;
    ssize_t n;

    (void)status, (void)events;
    for (unsigned i = 0; i < TURN_DATAGRAMS && b->poll == poll; i++) {
        socklen_t len = sizeof from;

        from.ss_family = AF_UNSPEC;
        n = recvfrom(
            b->fd, datagram, sizeof datagram, MSG_DONTWAIT, (struct sockaddr *)&from, &len);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n >= 0)
            take(b, datagram, (size_t)n, &from);
    }
}

/* --- the socket --- */

static void set_port(struct sockaddr_storage *a, unsigned port)
{
    if (a->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)a)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)a)->sin_port = htons((uint16_t)port);
}

/* What the kernel does not grant costs latency, not correctness. The class of service sets a
 * priority of its own, so ours comes after it. */
static void tune(int fd, bool six)
{
    const int on = 1, class = IPTOS_CLASS_CS6, bytes = RECEIVE_BYTES, priority = PRIORITY;

    setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);
    if (six) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
        setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
        setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &class, sizeof class);
    } else {
        setsockopt(fd, IPPROTO_IP, IP_TOS, &class, sizeof class);
    }
    setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

static void on_poll_closed(uv_handle_t *h)
{
    free(h);
}

static void close_socket(struct beat *b)
{
    if (b->poll)
        uv_close((uv_handle_t *)b->poll, on_poll_closed);
    b->poll = NULL;
    io_close(&b->fd);
}

static int watch(struct beat *b)
{
    int r;

    b->poll = calloc(1, sizeof *b->poll);
    if (b->poll == NULL)
        return UV_ENOMEM;
    r = uv_poll_init(b->loop, b->poll, b->fd);
    if (r != 0) {
        free(b->poll);
        b->poll = NULL;
        return r;
    }
    b->poll->data = b;
    return uv_poll_start(b->poll, UV_READABLE, on_readable);
}

static int open_socket(struct beat *b, struct err *e)
{
    int family = b->address.ss_family, r;

    b->fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (b->fd < 0)
        return err_sys(e, "a socket for beats");
    tune(b->fd, family == AF_INET6);
    if (bind(b->fd, (struct sockaddr *)&b->address, b->address_len) != 0) {
        err_sys(e,
            "beats: port %u of this node's first link (UDP): see who has it with ss -ulpn, or "
            "choose another one",
            b->port);
        close_socket(b);
        return -1;
    }
    r = watch(b);
    if (r != 0) {
        close_socket(b);
        return err_set(e, ERR_SYSTEM, "beats: %s", uv_strerror(r));
    }
    return 0;
}

static void on_timer(uv_timer_t *t);

static int make_socket(struct beat *b, struct err *e)
{
    struct err own;

    if (b->address_len == 0)
        err_set(&own, ERR_NOT_FOUND, "beats: the address of this node is not known");
    else if (open_socket(b, &own) == 0) {
        b->f.text[0] = '\0';
        return 0;
    }
    if (strncmp(b->f.text, own.text, sizeof b->f.text - 1) != 0)
        log_error("beat", "%s", own.text);
    snprintf(b->f.text, sizeof b->f.text, "%.*s", (int)sizeof b->f.text - 1, own.text);
    uv_timer_start(&b->timer, on_timer, AGAIN_MS, 0);
    if (e)
        *e = own;
    return -1;
}

static void on_timer(uv_timer_t *t)
{
    struct beat *b = t->data;

    if (b->poll == NULL)
        make_socket(b, NULL);
}

/* --- nodes --- */

/* What was seen of it stays. */
static void keep_peer(const struct beat *b, const struct peer *old, unsigned n, struct peer *p,
    const struct node_entry *e)
{
    for (unsigned i = 0; i < n; i++)
        if (old[i].node == e->id)
            *p = old[i];
    p->node = e->id;
    snprintf(p->address, sizeof p->address, "%s", e->address);
    p->socket = e->socket;
    p->socket_len = e->socket_len;
    if (p->socket_len)
        set_port(&p->socket, b->port);
}

static void own_address(struct beat *b, const struct node_entry *own, bool *changed)
{
    struct sockaddr_storage a;
    socklen_t len = own ? own->socket_len : 0;

    memset(&a, 0, sizeof a);
    if (len) {
        a = own->socket;
        set_port(&a, b->port);
    }
    *changed = len != b->address_len || memcmp(&a, &b->address, sizeof a) != 0;
    b->address = a;
    b->address_len = len;
}

int beat_nodes(struct beat *b, const struct node_list *nodes, struct err *e)
{
    struct peer old[HA_NODES_MAX];
    unsigned n_old = b->n;
    bool changed;

    memcpy(old, b->peer, sizeof old);
    memset(b->peer, 0, sizeof b->peer);
    b->own = nodes->own;
    b->n = 0;
    for (unsigned i = 0; i < nodes->n && b->n < HA_NODES_MAX; i++)
        if (nodes->node[i].id != nodes->own)
            keep_peer(b, old, n_old, &b->peer[b->n++], &nodes->node[i]);
    own_address(b, node_list_find(nodes, nodes->own), &changed);
    if (b->poll && !changed)
        return 0;
    close_socket(b);
    return make_socket(b, e);
}

/* --- sending --- */

/* A peer that has not read the new key yet is sent what it can check. */
static uint32_t signer_for(const struct beat *b, const struct peer *p)
{
    if (p->newest != 0 && p->newest == b->keys.before.tag)
        return b->keys.before.tag;
    return b->keys.now.tag;
}

static void unsent(struct beat *b, struct peer *p, int error)
{
    b->f.unsent++;
    if (say_now(p, UNSENT))
        log_warn("beat", "a beat for node %u (%s) could not be sent: %s", p->node, p->address,
            strerror(error));
}

void beat_send(struct beat *b, uint32_t node, const uint8_t *bytes, size_t len)
{
    uint8_t datagram[BEAT_DATAGRAM_MAX];
    struct peer *p = peer_of(b, node);
    struct beat_head h;
    size_t n;

    if (p == NULL || b->stopped)
        return;
    h = (struct beat_head){ signer_for(b, p), b->keys.now.tag, b->own, node, b->stream,
        ++b->number };
    n = beat_seal(&b->keys, &h, bytes, len, datagram);
    if (n == 0)
        return;
    if (b->poll == NULL || p->socket_len == 0)
        unsent(b, p, EADDRNOTAVAIL);
    else if (sendto(b->fd, datagram, n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&p->socket,
                 p->socket_len) < 0)
        unsent(b, p, errno);
    else
        b->f.out++;
}

/* --- begin and end --- */

int beat_open(uv_loop_t *loop, const char *key_file, unsigned port, beat_received *received,
    void *arg, struct beat **out, struct err *e)
{
    struct beat *b = calloc(1, sizeof *b);

    if (b == NULL)
        return err_set(e, ERR_MEMORY, "no memory for beats");
    b->fd = -1;
    b->loop = loop;
    b->port = port;
    b->received = received;
    b->arg = arg;
    snprintf(b->key_file, sizeof b->key_file, "%s", key_file);
    snprintf(b->f.text, sizeof b->f.text, "corosync has not told who the nodes are");
    if (beat_keys_read(&b->keys, key_file, e) < 0) {
        beat_close(&b);
        return -1;
    }
    if (getrandom(&b->stream, sizeof b->stream, 0) != (ssize_t)sizeof b->stream) {
        beat_close(&b);
        return err_sys(e, "beats: random number");
    }
    uv_timer_init(loop, &b->timer);
    b->timer.data = b;
    *out = b;
    return 0;
}

int beat_reload(struct beat *b, struct err *e)
{
    return beat_keys_read(&b->keys, b->key_file, e);
}

void beat_figures(const struct beat *b, struct beat_figures *out)
{
    *out = b->f;
}

void beat_stop(struct beat *b)
{
    if (b->stopped)
        return;
    b->stopped = true;
    close_socket(b);
    uv_close((uv_handle_t *)&b->timer, NULL);
}

void beat_close(struct beat **b)
{
    if (*b == NULL)
        return;
    beat_keys_clear(&(*b)->keys);
    free(*b);
    *b = NULL;
}
