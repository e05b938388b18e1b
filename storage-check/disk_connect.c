/* SPDX-License-Identifier: ISC */
/*
 * The connection of a disk on the network, as a state machine of the disk's thread:
 *
 *   state        leaves to
 *   IDLE         RESOLVING: a request waits
 *   RESOLVING    CONNECTING: an address was found; WAITING: none, or too late
 *   CONNECTING   GATED or PREPARING: net_connected; WAITING: net_lost, net_foreign, or too late
 *   GATED        PREPARING: disk_admit(0)
 *   PREPARING    UP: net_ready
 *   UP           WAITING: net_lost
 *   WAITING      RESOLVING: it is time
 *   any          IDLE: disk_abort
 *
 * Opening is the first RESOLVING and CONNECTING; if it fails, there is no second attempt. Later
 * attempts come after 0, 50, 100, 200, ... 2000 ms; the count starts anew when a request was
 * done, not when a connection was made, so that a server which accepts and then fails is not
 * stormed. Each attempt ends after the disk's time limit. The protocol's library is given a new
 * context each time and a numeric address, so that nothing in this thread can block.
 *
 * Names are looked up in a short-lived thread of their own, because that may take as long as it
 * likes; if nothing is found after the first time, the last address is tried.
 */
#define _GNU_SOURCE
#include "storage-check/disk_loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define BACK_OFF_FIRST_MS 50u
#define BACK_OFF_MAX_MS 2000u

/* ---- names ---- */

struct net_lookup {
    pthread_mutex_t lock;
    unsigned refs;        /* the disk's and the thread's */
    struct net_disk *net; /* NULL: nobody waits any more */
    bool done;
    int error;      /* of getaddrinfo */
    unsigned which; /* of several addresses */
    char host[STORAGE_HOST_MAX + 1];
    char address[NET_ADDRESS_MAX];
};

static void lookup_unref(struct net_lookup *l)
{
    bool last;

    pthread_mutex_lock(&l->lock);
    last = --l->refs == 0;
    pthread_mutex_unlock(&l->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static bool print_address(const struct addrinfo *a, char out[NET_ADDRESS_MAX])
{
    return getnameinfo(a->ai_addr, a->ai_addrlen, out, NET_ADDRESS_MAX, NULL, 0, NI_NUMERICHOST) ==
           0;
}

/* One of the addresses in turn. */
static void choose(struct net_lookup *l, const struct addrinfo *all)
{
    unsigned n = 0, i = 0;

    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next)
        n++;
    for (const struct addrinfo *a = all; a != NULL; a = a->ai_next, i++)
        if (i == l->which % n && !print_address(a, l->address))
            l->error = EAI_NONAME;
}

static void *lookup_main(void *arg)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
    struct net_lookup *l = arg;
    struct addrinfo *all = NULL;

    l->error = getaddrinfo(l->host, NULL, &hints, &all);
    if (l->error == 0) {
        choose(l, all);
        freeaddrinfo(all);
    }
    pthread_mutex_lock(&l->lock);
    l->done = true;
    if (l->net != NULL)
        net_wake(l->net);
    pthread_mutex_unlock(&l->lock);
    lookup_unref(l);
    return NULL;
}

static void lookup_drop(struct net_disk *n)
{
    struct net_lookup *l = n->lookup;

    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->net = NULL;
    pthread_mutex_unlock(&l->lock);
    lookup_unref(l);
    n->lookup = NULL;
}

/* The thread inherits that all signals are blocked. */
static bool lookup_start(struct net_disk *n)
{
    struct net_lookup *l = calloc(1, sizeof *l);
    pthread_attr_t attr;
    pthread_t thread;
    bool started;

    if (l == NULL)
        return false;
    pthread_mutex_init(&l->lock, NULL);
    l->refs = 2;
    l->net = n;
    l->which = n->failures;
    strcpy(l->host, n->d.url.host);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    started = pthread_create(&thread, &attr, lookup_main, l) == 0;
    pthread_attr_destroy(&attr);
    if (started) {
        n->lookup = l;
        return true;
    }
    pthread_mutex_destroy(&l->lock);
    free(l);
    return false;
}

/* ---- telling ---- */

static void tell(struct net_disk *n, enum disk_event ev, const char *text)
{
    if (n->d.options.event != NULL)
        n->d.options.event(n->d.options.event_arg, ev, text);
}

static void tell_lost(struct net_disk *n, bool foreign)
{
    char text[sizeof n->why.text + 64];

    if (n->lost_told && !foreign)
        return;
    n->lost_told = true;
    snprintf(text, sizeof text, "%s%s", n->why.text,
        foreign ? "; requests fail until the right one is back" : "; requests wait for it");
    tell(n, DISK_LOST, text);
}

/* Texts of libraries may end in newlines, and servers may have a say in them. */
static void tidy(char *s)
{
    size_t n = strlen(s);

    while (n > 0 && strchr(" .\n", s[n - 1]) != NULL)
        s[--n] = '\0';
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            *s = ' ';
}

static void note(struct net_disk *n, enum err_code code, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));

static void note(struct net_disk *n, enum err_code code, const char *fmt, va_list ap)
{
    char text[400];

    if (n->broken || n->dying)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    tidy(text);
    err_set(&n->why, code, "disk %.200s: %s", n->d.source, text);
    n->broken = true;
}

void net_lost(struct net_disk *n, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    note(n, code, fmt, ap);
    va_end(ap);
}

void net_foreign(struct net_disk *n, const char *fmt, ...)
{
    bool first = !n->broken && !n->dying;
    va_list ap;

    va_start(ap, fmt);
    note(n, ERR_INTEGRITY, fmt, ap);
    va_end(ap);
    if (first)
        n->foreign = true;
}

/* ---- states ---- */

static void opened(struct net_disk *n, const struct err *why)
{
    pthread_mutex_lock(&n->lock);
    n->open_done = true;
    if (why != NULL)
        n->open_error = *why;
    pthread_cond_broadcast(&n->cond);
    pthread_mutex_unlock(&n->lock);
}

static void begin_connecting(struct net_disk *n)
{
    struct err e;

    n->state = NET_CONNECTING;
    err_clear(&e);
    if (n->ops->connect(n, n->address, &e) < 0)
        net_lost(n, e.code, "%s", e.text);
}

static void begin_attempt(struct net_disk *n, uint64_t now)
{
    unsigned char ignored[sizeof(struct in6_addr)];
    const char *host = n->d.url.host;

    n->wanted = false;
    n->deadline_ns = now + n->d.options.timeout_ms * NS_PER_MS;
    n->state = NET_RESOLVING;
    if (n->d.url.ipv6 || inet_pton(AF_INET, host, ignored) == 1) {
        snprintf(n->address, sizeof n->address, "%.60s", host);
        begin_connecting(n);
    } else if (!lookup_start(n)) {
        net_lost(n, ERR_MEMORY, "no thread to look %.100s up", host);
    }
}

static void look_at_lookup(struct net_disk *n)
{
    struct net_lookup *l = n->lookup;
    bool done;
    int error;

    pthread_mutex_lock(&l->lock);
    done = l->done;
    error = done ? l->error : 0;
    if (done && error == 0)
        memcpy(n->address, l->address, sizeof n->address);
    pthread_mutex_unlock(&l->lock);
    if (!done)
        return;
    lookup_drop(n);
    if (error == 0 || n->address[0] != '\0')
        begin_connecting(n);
    else
        net_lost(n, ERR_NOT_FOUND, "the server %.100s is not known: %s", n->d.url.host,
            gai_strerror(error));
}

static void too_late(struct net_disk *n)
{
    net_lost(n, ERR_TIMEOUT, "%s %.100s does not answer within %u ms",
        n->state == NET_RESOLVING ? "the name service asked for" : "the server", n->d.url.host,
        n->d.options.timeout_ms);
}

void connect_turn(struct net_disk *n, uint64_t now)
{
    switch (n->state) {
    case NET_IDLE:
        if (!n->opened || n->wanted || n->pending.first != NULL)
            begin_attempt(n, now);
        break;
    case NET_RESOLVING:
        look_at_lookup(n);
        if (n->state == NET_RESOLVING && now >= n->deadline_ns)
            too_late(n);
        break;
    case NET_CONNECTING:
        if (now >= n->deadline_ns)
            too_late(n);
        break;
    case NET_WAITING:
        if (now >= n->deadline_ns)
            begin_attempt(n, now);
        break;
    case NET_GATED:
    case NET_PREPARING:
    case NET_UP:
    case NET_STATE_MAX:
        break;
    }
}

uint64_t connect_due(const struct net_disk *n)
{
    switch (n->state) {
    case NET_RESOLVING:
    case NET_CONNECTING:
    case NET_WAITING:
        return n->deadline_ns;
    case NET_IDLE:
        return n->wanted ? 0 : UINT64_MAX;
    case NET_GATED:
    case NET_PREPARING:
    case NET_UP:
    case NET_STATE_MAX:
        break;
    }
    return UINT64_MAX;
}

static void begin_preparing(struct net_disk *n)
{
    n->state = NET_PREPARING;
    n->ops->prepare(n);
}

void net_connected(struct net_disk *n)
{
    void (*gate)(void *arg, unsigned connection);
    unsigned connection;
    void *gate_arg;

    net_heard(n);
    disk_drop_unsent(n->ops->fd(n)); /* also when this process is killed */
    pthread_mutex_lock(&n->lock);
    gate = n->gate;
    gate_arg = n->gate_arg;
    connection = ++n->connections;
    n->admitted = false;
    pthread_mutex_unlock(&n->lock);
    n->verdict = 0;
    n->state = NET_GATED;
    if (!n->opened) {
        n->opened = true;
        opened(n, NULL);
    }
    if (n->lost_told) {
        n->lost_told = false;
        tell(n, DISK_BACK, "the disk's server answers again");
    }
    if (gate != NULL)
        gate(gate_arg, connection);
    else
        begin_preparing(n);
}

void connect_admit(struct net_disk *n, int verdict)
{
    n->verdict = verdict;
    if (verdict == 0 && n->state == NET_GATED)
        begin_preparing(n);
}

void net_ready(struct net_disk *n)
{
    net_heard(n);
    n->state = NET_UP;
}

/* ---- the end of a connection ---- */

static void disconnect(struct net_disk *n)
{
    lookup_drop(n);
    disk_drop_unsent(n->ops->fd(n));
    n->dying = true;
    n->ops->disconnect(n);
    n->dying = false;
    n->broken = false;
    n->foreign = false;
    n->probing = false;
    n->busy_ns = 0;
    net_requeue(n);
}

static uint64_t back_off_ns(const struct net_disk *n)
{
    uint64_t ms = BACK_OFF_FIRST_MS;

    if (n->failures == 0)
        return 0;
    for (unsigned i = 1; i < n->failures && ms < BACK_OFF_MAX_MS; i++)
        ms *= 2;
    return (ms > BACK_OFF_MAX_MS ? BACK_OFF_MAX_MS : ms) * NS_PER_MS;
}

void connect_broken(struct net_disk *n, uint64_t now)
{
    bool foreign = n->foreign, news = foreign && n->verdict != ESTALE;

    disconnect(n);
    n->state = NET_WAITING;
    if (!n->opened) {
        n->deadline_ns = UINT64_MAX;
        opened(n, &n->why);
        return;
    }
    n->deadline_ns = now + (foreign ? BACK_OFF_MAX_MS * NS_PER_MS : back_off_ns(n));
    n->failures++;
    if (foreign)
        n->verdict = ESTALE;
    log_debug("storage", "%s (attempt %u)", n->why.text, n->failures);
    if (!foreign || news)
        tell_lost(n, news);
}

void connect_drop(struct net_disk *n)
{
    disconnect(n);
    n->verdict = 0;
    n->state = n->opened ? NET_IDLE : NET_WAITING;
}
