/* SPDX-License-Identifier: ISC */
/* Sockets before there is a connection: names to addresses, connecting with time limits, options,
 * and the lines of the preamble. */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "transport/internal.h"

#define PROBES 3
#define NEAR_RTT_US 2000 /* a round trip below this is a local network */

/* --- names --- */

/*
 * A lookup in a thread of its own, which a dead name server cannot make endless for us. The thread
 * and the one that waits hold a reference each; the last one frees.
 */
struct lookup {
    char host[TR_NAME_LEN], port[8];
    pthread_mutex_t lock;
    pthread_cond_t ended;
    /* the lock protects: */
    int refs;
    bool done;
    int why; /* of getaddrinfo */
    struct addrinfo *found;
};

static void lookup_put(struct lookup *l)
{
    bool last;

    pthread_mutex_lock(&l->lock);
    last = --l->refs == 0;
    pthread_mutex_unlock(&l->lock);
    if (!last)
        return;
    if (l->found != NULL)
        freeaddrinfo(l->found);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->ended);
    free(l);
}

static int look_up(const struct lookup *l, int flags, struct addrinfo **found)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags };

    *found = NULL;
    return getaddrinfo(l->host, l->port, &hints, found);
}

static void *lookup_main(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo *found;
    int why = look_up(l, 0, &found);

    pthread_mutex_lock(&l->lock);
    l->why = why;
    l->found = found;
    l->done = true;
    pthread_cond_signal(&l->ended);
    pthread_mutex_unlock(&l->lock);
    lookup_put(l);
    return NULL;
}

static struct lookup *lookup_new(const char *host, unsigned port)
{
    struct lookup *l = calloc(1, sizeof *l);
    pthread_condattr_t attr;

    if (l == NULL)
        return NULL;
    snprintf(l->host, sizeof l->host, "%s", host[0] == '[' ? host + 1 : host);
    l->host[strcspn(l->host, "]")] = '\0';
    snprintf(l->port, sizeof l->port, "%u", port);
    l->refs = 1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->ended, &attr);
    pthread_condattr_destroy(&attr);
    return l;
}

static int lookup_start(struct lookup *l)
{
    pthread_attr_t attr;
    pthread_t t;
    int r;

    l->refs = 2;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&t, &attr, lookup_main, l);
    pthread_attr_destroy(&attr);
    if (r != 0)
        l->refs = 1;
    return r;
}

/* False when time is up; else *why and *found are the answer. */
static bool lookup_wait(struct lookup *l, uint64_t deadline_ns, int *why, struct addrinfo **found)
{
    struct timespec ts = { (time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S) };
    bool done;

    pthread_mutex_lock(&l->lock);
    while (!l->done && pthread_cond_timedwait(&l->ended, &l->lock, &ts) == 0)
        ;
    done = l->done;
    *why = l->why;
    *found = l->found;
    l->found = NULL;
    pthread_mutex_unlock(&l->lock);
    return done;
}

static struct addrinfo *resolve(
    const char *host, unsigned port, uint64_t deadline_ns, struct err *e)
{
    struct lookup *l = lookup_new(host, port);
    struct addrinfo *found = NULL;
    int why;

    if (l == NULL) {
        err_set(e, ERR_MEMORY, "host %s: out of memory", host);
        return NULL;
    }
    why = look_up(l, AI_NUMERICHOST, &found); /* an address needs no name service */
    if (why != 0 && lookup_start(l) != 0)
        why = look_up(l, 0, &found);
    else if (why != 0 && !lookup_wait(l, deadline_ns, &why, &found))
        why = EAI_INPROGRESS;
    lookup_put(l);
    if (why == EAI_INPROGRESS)
        err_set(e, ERR_TIMEOUT, "host %s: the name service does not answer in time", host);
    else if (why != 0)
        err_set(e, ERR_NOT_FOUND, "host %s: %s; check the name or give an address", host,
            gai_strerror(why));
    return found;
}

/* --- connecting --- */

static void address_text(const struct sockaddr *sa, socklen_t len, char out[TR_NAME_LEN])
{
    char host[NI_MAXHOST];

    if (getnameinfo(sa, len, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(out, TR_NAME_LEN, "peer");
    else
        snprintf(out, TR_NAME_LEN, sa->sa_family == AF_INET6 ? "[%.200s]" : "%.200s", host);
}

void sock_peer_text(int fd, char out[TR_NAME_LEN])
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;

    if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0)
        snprintf(out, TR_NAME_LEN, "peer");
    else
        address_text((struct sockaddr *)&ss, len, out);
}

static int connect_error(const char *where, unsigned port, int why, struct err *e)
{
    switch (why) {
    case ECONNREFUSED:
        return err_set(e, ERR_PEER,
            "%s port %u: connection refused; does migrd run there, with xend-relocation-server on "
            "and an xend-relocation-address that other hosts can reach?",
            where, port);
    case ETIMEDOUT:
        return err_set(e, ERR_TIMEOUT,
            "%s port %u: no answer; is the host up, and does a firewall "
            "let the port through?",
            where, port);
    }
    return err_set(e, ERR_PEER, "%s port %u: %s", where, port, strerror(why));
}

static int finish_connect(int fd, uint64_t deadline_ns)
{
    int why = 0;
    socklen_t len = sizeof why;

    if (io_wait(fd, POLLOUT, deadline_ns, NULL) < 0)
        return ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) < 0)
        return errno;
    return why;
}

static int connect_one(
    const struct addrinfo *ai, unsigned port, uint64_t deadline_ns, struct err *e)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char where[TR_NAME_LEN];
    int why = 0;

    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0)
        why = errno == EINPROGRESS ? finish_connect(fd, deadline_ns) : errno;
    if (why == 0)
        return fd;
    close(fd);
    address_text(ai->ai_addr, ai->ai_addrlen, where);
    return connect_error(where, port, why, e);
}

int sock_connect(const char *host, unsigned port, uint64_t deadline_ns, struct err *e)
{
    struct addrinfo *list = resolve(host, port, deadline_ns, e);
    unsigned left = 0;
    int fd = -1;

    for (struct addrinfo *ai = list; ai != NULL; ai = ai->ai_next)
        left++;
    /* Each address gets its share of what time is left, so that a dead one cannot eat it all. */
    for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next, left--) {
        uint64_t now = clock_ns(), rest = now < deadline_ns ? deadline_ns - now : 0;

        fd = connect_one(ai, port, now + rest / left, e);
    }
    if (list != NULL)
        freeaddrinfo(list);
    return fd;
}

/* --- options --- */

static void set_int(int fd, int level, int name, int value)
{
    /* An option that this kernel or socket lacks costs comfort, not correctness: the time limits
     * of reads and writes hold without it. */
    (void)setsockopt(fd, level, name, &value, sizeof value);
}

void sock_tune(int fd, unsigned dead_peer_ms)
{
    int step = (int)(dead_peer_ms / 1000 / (PROBES + 1));

    if (step < 1)
        step = 1;
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)dead_peer_ms);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, step);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, step);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/*
 * bbr paces, which costs: over loopback of a quiet machine cubic moves 4.2 to 5.2 GB/s where bbr
 * moves 2.9. On a long or shared path the administrator's choice stands.
 */
void sock_tune_congestion(int fd)
{
    struct tcp_info info = { .tcpi_rtt = 0 };
    socklen_t len = sizeof info;
    char name[16] = "";
    socklen_t name_len = sizeof name - 1;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || info.tcpi_rtt > NEAR_RTT_US)
        return;
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_len) < 0 ||
        strncmp(name, "bbr", 3) != 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", strlen("cubic"));
}

/* --- lines --- */

/* Takes what has come up to and with a line end; sets *end then. */
static ssize_t take_line_part(int fd, char *buf, size_t room, bool *end)
{
    ssize_t n = recv(fd, buf, room, MSG_PEEK | MSG_DONTWAIT);
    char *nl;

    if (n <= 0)
        return n;
    nl = memchr(buf, '\n', (size_t)n);
    *end = nl != NULL;
    return recv(fd, buf, nl != NULL ? (size_t)(nl - buf) + 1 : (size_t)n, MSG_DONTWAIT);
}

int sock_read_line(int fd, char line[TR_LINE_MAX], uint64_t deadline_ns, struct err *e)
{
    size_t len = 0;
    bool end = false;

    while (!end) {
        ssize_t n;

        if (len == TR_LINE_MAX)
            return err_set(e, ERR_PROTOCOL, "line is longer than %d bytes", TR_LINE_MAX);
        if (io_wait(fd, POLLIN, deadline_ns, e) < 0)
            return -1;
        n = take_line_part(fd, line + len, TR_LINE_MAX - len, &end);
        if (n > 0)
            len += (size_t)n;
        else if (n == 0)
            return err_set(e, ERR_PEER, "closed the connection before its line was complete");
        else if (errno != EAGAIN && errno != EINTR)
            return err_set(e, ERR_PEER, "%s", strerror(errno));
    }
    len--;
    if (len > 0 && line[len - 1] == '\r')
        len--;
    line[len] = '\0';
    return 0;
}
