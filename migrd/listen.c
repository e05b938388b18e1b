/* SPDX-License-Identifier: ISC */
#define _GNU_SOURCE
#include "migrd/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 256

struct place {
    struct sockaddr_storage sa;
    socklen_t len;
};

static bool add_v4(struct place *p, const char *text)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&p->sa;

    in->sin_family = AF_INET;
    p->len = sizeof *in;
    return inet_pton(AF_INET, text, &in->sin_addr) == 1;
}

static bool add_v6(struct place *p, const char *text)
{
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)&p->sa;
    char address[INET6_ADDRSTRLEN];
    const char *scope = strchr(text, '%');
    size_t n = scope != NULL ? (size_t)(scope - text) : strlen(text);

    if (n >= sizeof address)
        return false;
    memcpy(address, text, n);
    address[n] = '\0';
    in->sin6_family = AF_INET6;
    in->sin6_scope_id = scope != NULL ? if_nametoindex(scope + 1) : 0;
    p->len = sizeof *in;
    return inet_pton(AF_INET6, address, &in->sin6_addr) == 1;
}

static size_t interface_places(const char *name, struct place *out, size_t max)
{
    struct ifaddrs *list = NULL;
    size_t n = 0;

    if (getifaddrs(&list) < 0)
        return 0;
    for (const struct ifaddrs *i = list; i != NULL && n < max; i = i->ifa_next) {
        if (i->ifa_addr == NULL || strcmp(i->ifa_name, name) != 0)
            continue;
        if (i->ifa_addr->sa_family == AF_INET)
            out[n].len = sizeof(struct sockaddr_in);
        else if (i->ifa_addr->sa_family == AF_INET6)
            out[n].len = sizeof(struct sockaddr_in6);
        else
            continue;
        memcpy(&out[n].sa, i->ifa_addr, out[n].len);
        n++;
    }
    freeifaddrs(list);
    return n;
}

/* 0: nothing by that name. */
static size_t places_of(const char *address, struct place *out, size_t max)
{
    memset(out, 0, max * sizeof *out);
    if (address[0] == '\0')
        return add_v4(&out[0], "0.0.0.0") + (size_t)add_v6(&out[1], "::");
    if (strcmp(address, "localhost") == 0)
        return add_v4(&out[0], "127.0.0.1") + (size_t)add_v6(&out[1], "::1");
    if (add_v4(&out[0], address))
        return 1;
    memset(out, 0, sizeof *out);
    if (add_v6(&out[0], address))
        return 1;
    memset(out, 0, sizeof *out);
    return interface_places(address, out, max);
}

static int open_socket(const struct place *p, unsigned port)
{
    struct sockaddr_storage sa = p->sa;
    int one = 1, saved;
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (sa.ss_family == AF_INET) {
        ((struct sockaddr_in *)&sa)->sin_port = htons((uint16_t)port);
    } else {
        ((struct sockaddr_in6 *)&sa)->sin6_port = htons((uint16_t)port);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&sa, p->len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* IPv6 may be switched off: one of two loopbacks, or of two wildcards, is enough. */
static bool may_be_missing(const char *address, int error)
{
    return (address[0] == '\0' || strcmp(address, "localhost") == 0) &&
           (error == EAFNOSUPPORT || error == EADDRNOTAVAIL);
}

size_t listen_on(const char *address, unsigned port, int fd[LISTEN_MAX])
{
    struct place place[LISTEN_MAX];
    size_t n = places_of(address, place, LISTEN_MAX), opened = 0;
    int error = EADDRNOTAVAIL;

    for (size_t i = 0; i < n; i++) {
        fd[opened] = open_socket(&place[i], port);
        if (fd[opened] >= 0) {
            opened++;
            continue;
        }
        error = errno;
        if (may_be_missing(address, error))
            continue;
        while (opened > 0)
            close(fd[--opened]);
        break;
    }
    errno = error;
    return opened;
}

const char *listen_error(int error)
{
    return error == EADDRNOTAVAIL ? "no such address or interface" : strerror(error);
}

bool listen_is_address(const char *text)
{
    struct place p[2];

    memset(p, 0, sizeof p);
    return add_v4(&p[0], text) || add_v6(&p[1], text);
}
