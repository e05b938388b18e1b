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

/* --- names ------------------------------------------------------------------------------ */

/* A lookup in a thread of libc's, which a dead name server cannot make endless for us. */
struct lookup {
    char host[TR_NAME_LEN], port[8];
    struct addrinfo hints;
    struct gaicb request;
};

static int lookup_error(const char *host, int why, struct err *e)
{
    return err_set(e, ERR_NOT_FOUND, "host %s: %s; check the name or give an address", host,
        why == EAI_SYSTEM ? strerror(errno) : gai_strerror(why));
}

static int wait_lookup(struct lookup *l, uint64_t deadline_ns)
{
    const struct gaicb *const list[] = { &l->request };

    for (;;) {
        uint64_t now = clock_ns(), left = now < deadline_ns ? deadline_ns - now : 0;
        struct timespec ts = { (time_t)(left / NS_PER_S), (long)(left % NS_PER_S) };
        int r = gai_error(&l->request);

        if (r != EAI_INPROGRESS)
            return r;
        if (left == 0)
            return EAI_INPROGRESS;
        gai_suspend(list, 1, &ts);
    }
}

static struct addrinfo *resolve(
    const char *host, unsigned port, uint64_t deadline_ns, struct err *e)
{
    struct lookup *l = calloc(1, sizeof *l);
    struct gaicb *list[1];
    struct addrinfo *found;
    int r;

    if (l == NULL) {
        err_set(e, ERR_MEMORY, "host %s: out of memory", host);
        return NULL;
    }
    snprintf(l->host, sizeof l->host, "%s", host[0] == '[' ? host + 1 : host);
    l->host[strcspn(l->host, "]")] = '\0';
    snprintf(l->port, sizeof l->port, "%u", port);
    l->hints.ai_socktype = SOCK_STREAM;
    l->hints.ai_flags = AI_NUMERICSERV;
    l->request.ar_name = l->host;
    l->request.ar_service = l->port;
    l->request.ar_request = &l->hints;
    list[0] = &l->request;
    r = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
    if (r == 0)
        r = wait_lookup(l, deadline_ns);
    if (r == EAI_INPROGRESS) {
        err_set(e, ERR_TIMEOUT, "host %s: the name service does not answer in time", host);
        if (gai_cancel(&l->request) == EAI_CANCELED)
            free(l); /* else the lookup goes on and keeps its memory */
        return NULL;
    }
    found = l->request.ar_result;
    free(l);
    if (r != 0) {
        lookup_error(host, r, e);
        return NULL;
    }
    return found;
}

/* --- connecting ----------------------------------------------------------------------------- */

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

/* --- options ---------------------------------------------------------------------------------- */

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

/* --- lines --------------------------------------------------------------------------------------
 */

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
