/* SPDX-License-Identifier: ISC */
/*
 * Is there a server at all? The libraries say "service failed" for a wrong name, a port that nobody
 * listens on and a dead network alike; a connection of our own, closed at once, knows better.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "storage-check/identity_internal.h"

#define PORT_LEN 8u

/* 0, or an errno. */
static int try_address(const struct addrinfo *a, uint64_t deadline)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code = 0;
    socklen_t len = sizeof code;

    if (fd < 0)
        return errno;
    if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
        code = errno;
        if (code == EINPROGRESS && io_wait(fd, POLLOUT, deadline, NULL) < 0)
            code = ETIMEDOUT;
        else if (code == EINPROGRESS && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
            code = errno;
    }
    close(fd);
    return code;
}

static void say_why(struct look *l, const char *host, unsigned port, const char *what, int code)
{
    const char *source = l->disk->source;

    if (code == ECONNREFUSED)
        look_fail(l, ERR_PEER,
            "%s: nothing serves %s at %s port %u (connection refused); start the server there, or "
            "correct the URL",
            source, what, host, port);
    else if (code == ETIMEDOUT)
        look_fail(l, ERR_TIMEOUT,
            "%s: %s does not answer on port %u; check that the %s server is up and reachable from "
            "this host, or raise storage-timeout",
            source, host, port, what);
    else
        look_fail(l, ERR_PEER, "%s: %s is not reachable from this host: %s; check the network",
            source, host, strerror(code));
}

bool look_reach(struct look *l, const char *host, unsigned port, const char *what)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV },
                    *list = NULL;
    uint64_t deadline = clock_ns() + (l->timeout_ms - l->timeout_ms / 5) * NS_PER_MS;
    char text[PORT_LEN];
    int code, r;

    look_step(l, "looking up %s", host);
    snprintf(text, sizeof text, "%u", port);
    r = getaddrinfo(host, text, &hints, &list);
    if (r != 0) {
        look_fail(l, ERR_NOT_FOUND,
            "%s: the name %s is not known here: %s; correct the URL, or this host's resolver",
            l->disk->source, host, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
        return false;
    }
    look_step(l, "connecting to the %s server %s port %u", what, host, port);
    code = ETIMEDOUT;
    for (const struct addrinfo *a = list; a != NULL && code != 0; a = a->ai_next)
        code = try_address(a, deadline);
    freeaddrinfo(list);
    if (code != 0)
        say_why(l, host, port, what, code);
    return code == 0;
}
