/* SPDX-License-Identifier: ISC */
/*
 * A peer's way:
 *
 *   ACCEPTED -> address admitted? -> GREETED   220, then its line is read
 *            -> else its name is looked up (NAMING), then checked -> GREETED or 530, closed
 *   GREETED  -> RELOCATE 1: 220 go ahead, socket to a new worker (421 when there is no room)
 *            -> CHANNEL s n: 220 go ahead, socket to that session's worker
 *            -> anything else: 500, closed
 *
 * One deadline covers all of it, from accept on: a byte now and then does not extend it.
 * The greeting fits any socket buffer, so it is written with one send; a peer that
 * has not even room for that is closed. Nothing is read before the acl has spoken.
 */
#define _GNU_SOURCE
#include "migrd/relocation.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/events.h"
#include "migrd/lookup.h"
#include "migrd/migration.h"
#include "migrd/relocation_internal.h"
#include "relocation-acl/relocation-acl.h"
#include "transport/transport.h"

#define ACCEPT_BATCH 32 /* per turn of the loop */
#define ACCEPT_REST_MS 200
#define WASTE_READS 16 /* of a peer that is sent away */

static void count(struct relocation *r, const char *name, const char *help)
{
    ++*events_counter(r->m->events, name, help);
}

/* --- peers --- */

static void peer_freed(uv_handle_t *h)
{
    struct peer *p = h->data;

    if (--p->open_handles == 0)
        free(p);
}

/* Closes the descriptor unless it was handed on, and forgets the peer. */
static void peer_close(struct peer *p)
{
    struct relocation *r = p->r;

    if (p->closing)
        return;
    p->closing = true;
    if (p->prev != NULL)
        p->prev->next = p->next;
    else
        r->peers = p->next;
    if (p->next != NULL)
        p->next->prev = p->prev;
    else
        r->last_peer = p->prev;
    r->n_peers--;
    lookup_forget(r->lookup, p);
    if (p->poll_open)
        uv_close((uv_handle_t *)&p->poll, peer_freed);
    uv_close((uv_handle_t *)&p->timer, peer_freed);
    io_close(&p->fd);
}

static bool say(struct peer *p, const char *line, size_t len)
{
    return send(p->fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

/* Says why and closes in a way that lets the peer read it: what it has sent is read first, for
 * a close with unread input would reset the connection and drop our line. A peer that sends
 * faster than we read must not hold the loop. */
static void dismiss(struct peer *p, const char *line, size_t len)
{
    char waste[4096];

    say(p, line, len);
    shutdown(p->fd, SHUT_WR);
    for (int i = 0; i < WASTE_READS; i++)
        if (recv(p->fd, waste, sizeof waste, MSG_DONTWAIT) <= 0)
            break;
    peer_close(p);
}

static void deadline_passed(uv_timer_t *t)
{
    struct peer *p = t->data;

    count(p->r, "migrd_relocation_preamble_timeouts_total",
        "Peers that did not send their line in time");
    log_debug("relocation", "%s: no request in time", p->address);
    peer_close(p);
}

/* --- the line --- */

static void refuse_line(struct peer *p, const char *why)
{
    char line[TR_LINE_MAX];

    count(p->r, "migrd_relocation_malformed_total", "Preambles that are none");
    log_info("relocation", "%s: malformed request: %s", p->address, why);
    dismiss(p, line, tr_bad_request(line, why));
}

static void refuse_busy(struct peer *p, const char *why)
{
    char line[TR_LINE_MAX];

    count(p->r, "migrd_relocation_busy_total", "Sessions turned away for lack of room");
    log_warn("relocation", "%s: turned away: %s", p->address, why);
    dismiss(p, line, tr_busy(line, why));
}

/* The worker does blocking I/O of its own. */
static void hand_over(struct peer *p, const struct tr_preamble *pre)
{
    struct migrd *m = p->r->m;
    char line[TR_LINE_MAX];
    struct err e;
    int r;

    if (pre->request == TR_REQ_RELOCATE && !migration_session_room(m)) {
        refuse_busy(p, "too many sessions are under way");
        return;
    }
    if (!say(p, line, tr_go_ahead(line))) {
        peer_close(p);
        return;
    }
    io_set_nonblock(p->fd, false, NULL);
    if (pre->request == TR_REQ_RELOCATE)
        r = migration_session(m, p->fd, p->address, p->name, &e);
    else
        r = migration_channel(m, pre->session, pre->channel, p->fd, &e);
    if (r < 0) {
        count(p->r, "migrd_relocation_malformed_total", "Preambles that are none");
        log_warn("relocation", "%s: %s", p->address, e.text);
    } else {
        count(p->r, "migrd_relocation_sessions_total", "Sessions and channels given to workers");
    }
    peer_close(p);
}

static void take_line(struct peer *p, size_t len)
{
    struct tr_preamble pre;
    struct err e;

    if (len > 0 && p->line[len - 1] == '\r')
        len--;
    if (tr_preamble_parse(p->line, len, &pre, &e) < 0)
        refuse_line(p, e.text);
    else
        hand_over(p, &pre);
}

/* Never past the line's end: what follows it is TLS and the worker's. */
static void readable(uv_poll_t *h, int status, int events)
{
    struct peer *p = h->data;
    ssize_t n;
    char *nl;

    (void)events;
    if (status < 0) {
        peer_close(p);
        return;
    }
    n = recv(p->fd, p->line + p->len, sizeof p->line - p->len, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        peer_close(p);
        return;
    }
    nl = memchr(p->line + p->len, '\n', (size_t)n);
    if (nl != NULL)
        n = nl + 1 - (p->line + p->len);
    if (recv(p->fd, p->line + p->len, (size_t)n, MSG_DONTWAIT) != n) {
        peer_close(p);
        return;
    }
    p->len += (size_t)n;
    if (nl != NULL)
        take_line(p, p->len - 1);
    else if (p->len == sizeof p->line)
        refuse_line(p, "line too long");
}

static void greet(struct peer *p)
{
    char line[TR_LINE_MAX];

    if (!say(p, line, tr_greeting(line, p->r->m->host_name)) ||
        uv_poll_init(p->r->m->loop, &p->poll, p->fd) < 0) {
        peer_close(p);
        return;
    }
    p->poll.data = p;
    p->poll_open = true;
    p->open_handles++;
    uv_poll_start(&p->poll, UV_READABLE, readable);
}

/* --- acl --- */

static void refuse(struct peer *p, const struct acl_verdict *v)
{
    char line[TR_LINE_MAX];
    const char *who = p->name[0] != '\0' ? p->name : p->address;
    char json[900];
    struct event ev = {
        .type = "acl-refused", .uuid = "", .name = "", .migration = "", .json = json
    };

    count(p->r, "migrd_acl_refused_total", "Peers refused by xend-relocation-hosts-allow");
    log_warn(
        "relocation", "%s (%s) refused: %s", p->address, p->name[0] ? p->name : "no name", v->why);
    snprintf(json, sizeof json, "{\"address\":\"%s\"}", p->address);
    events_publish(p->r->m->events, &ev);
    dismiss(p, line, tr_refusal(line, who));
}

static void judge(struct peer *p)
{
    struct acl_verdict v;

    acl_check(p->r->acl, p->name, p->address, &v);
    if (!v.allowed) {
        refuse(p, &v);
        return;
    }
    log_debug("relocation", "%s (%s) admitted: %s", p->address, p->name, v.why);
    greet(p);
}

static void named(void *arg, const char *name, const char *why)
{
    struct peer *p = arg;

    snprintf(p->name, sizeof p->name, "%s", name);
    if (name[0] == '\0')
        log_debug("relocation", "%s: no confirmed name: %s", p->address, why);
    judge(p);
}

/* --- accept --- */

static unsigned peers_of(const struct relocation *r, const char *address)
{
    unsigned n = 0;

    for (const struct peer *p = r->peers; p != NULL; p = p->next)
        n += strcmp(p->address, address) == 0;
    return n;
}

/* The oldest of an address that has more than its share; if all keep to it, the oldest. Nobody is
 * sent away while there is room: a real source may share its address with a crowd. */
static void evict(struct relocation *r)
{
    struct peer *victim = r->peers;

    for (struct peer *p = r->peers; p != NULL; p = p->next)
        if (peers_of(r, p->address) > RELOCATION_PER_ADDRESS) {
            victim = p;
            break;
        }
    if (victim == NULL)
        return;
    count(r, "migrd_relocation_evicted_total", "Waiting peers closed to make room");
    peer_close(victim);
}

static void welcome(struct relocation *r, int fd, const struct sockaddr_storage *sa, socklen_t len)
{
    struct peer *p = calloc(1, sizeof *p);
    int one = 1;

    if (p == NULL ||
        acl_address_text((const struct sockaddr *)sa, p->address, sizeof p->address) < 0) {
        free(p);
        close(fd);
        return;
    }
    if (r->n_peers >= r->m->config.relocation_max_waiting)
        evict(r);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    p->r = r;
    p->fd = fd;
    uv_timer_init(r->m->loop, &p->timer);
    p->timer.data = p;
    p->open_handles = 1;
    uv_timer_start(&p->timer, deadline_passed, r->m->config.relocation_preamble_ms, 0);
    p->prev = r->last_peer;
    if (r->last_peer != NULL)
        r->last_peer->next = p;
    else
        r->peers = p;
    r->last_peer = p;
    r->n_peers++;
    count(r, "migrd_relocation_connections_total", "Connections to the relocation port");
    /* The name also goes to the worker, to be compared with the certificate. */
    if (acl_admits_address(r->acl, p->address) && !r->m->config.relocation_check_name)
        judge(p);
    else if (lookup_name(r->lookup, (const struct sockaddr *)sa, len, p->address, named, p) < 0)
        refuse_busy(p, "too many name lookups wait");
}

static void rested(uv_timer_t *t)
{
    struct relocation *r = t->data;

    for (struct listener *l = r->listeners; l != NULL; l = l->next)
        relocation_watch(l);
}

/* Room is made among those who wait. Without any, the connection that cannot be taken would wake
 * the loop again at once. */
static void no_room(struct relocation *r, int why)
{
    if (r->peers != NULL) {
        evict(r);
        return;
    }
    log_error("relocation", "cannot take connections now: %s", strerror(why));
    for (struct listener *l = r->listeners; l != NULL; l = l->next)
        uv_poll_stop(&l->poll);
    uv_timer_start(&r->rest, rested, ACCEPT_REST_MS, 0);
}

static void acceptable(uv_poll_t *h, int status, int events)
{
    struct listener *l = h->data;

    (void)events;
    for (int i = 0; status == 0 && i < ACCEPT_BATCH; i++) {
        struct sockaddr_storage sa;
        socklen_t len = sizeof sa;
        int fd = accept4(l->fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                no_room(l->r, errno);
            return;
        }
        welcome(l->r, fd, &sa, len);
    }
}

void relocation_watch(struct listener *l)
{
    uv_poll_start(&l->poll, UV_READABLE, acceptable);
}

void relocation_close_peers(struct relocation *r)
{
    while (r->peers != NULL)
        peer_close(r->peers);
}
