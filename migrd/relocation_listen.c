/* SPDX-License-Identifier: ISC */
/*
 * Where the relocation port listens: an address, "localhost" (both loopbacks, where there),
 * an interface's name (all of its addresses), or everything. As xend did, a bind that
 * fails because the address is in use is tried again for a while (a predecessor that is
 * still closing), as is an address that is not there yet.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/lookup.h"
#include "migrd/relocation_internal.h"

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

static void listener_closed(uv_handle_t *h)
{
    struct listener *l = h->data;

    free(l);
}

static void close_listeners(struct relocation *r)
{
    while (r->listeners != NULL) {
        struct listener *l = r->listeners;

        r->listeners = l->next;
        uv_close((uv_handle_t *)&l->poll, listener_closed);
        io_close(&l->fd);
    }
}

static int add_listener(struct relocation *r, int fd)
{
    struct listener *l = calloc(1, sizeof *l);

    if (l == NULL || uv_poll_init(r->m->loop, &l->poll, fd) < 0) {
        free(l);
        close(fd);
        return -1;
    }
    l->r = r;
    l->fd = fd;
    l->poll.data = l;
    l->next = r->listeners;
    r->listeners = l;
    relocation_watch(l);
    return 0;
}

/* IPv6 may be switched off: one of two loopbacks, or of two wildcards, is enough. */
static int open_all(struct relocation *r, const char **what, int *error)
{
    struct place place[RELOCATION_LISTENERS_MAX];
    const char *address = r->m->config.relocation_address;
    size_t n = places_of(address, place, RELOCATION_LISTENERS_MAX), opened = 0;
    bool both = address[0] == '\0' || strcmp(address, "localhost") == 0;

    *error = EADDRNOTAVAIL;
    *what = "no such address or interface";
    for (size_t i = 0; i < n; i++) {
        int fd = open_socket(&place[i], r->m->config.relocation_port);

        if (fd >= 0 && add_listener(r, fd) == 0) {
            opened++;
            continue;
        }
        *error = errno;
        *what = strerror(errno);
        if (!both || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL)) {
            close_listeners(r);
            return -1;
        }
    }
    return opened > 0 ? 0 : -1;
}

static void try_to_listen(struct relocation *r);

static void retry_due(uv_timer_t *t)
{
    try_to_listen(t->data);
}

static void try_to_listen(struct relocation *r)
{
    const struct config *c = &r->m->config;
    const char *where = c->relocation_address[0] ? c->relocation_address : "every address";
    const char *what;
    int error;

    if (open_all(r, &what, &error) == 0) {
        snprintf(r->text, sizeof r->text, "listening on %s port %u with %s", where,
            c->relocation_port,
            c->relocation_tls ? "TLS" : "plain TCP: no certificates are asked for");
        log_info("relocation", "%s", r->text);
        return;
    }
    snprintf(r->text, sizeof r->text, "not listening on %s port %u: %s", where, c->relocation_port,
        what);
    if ((error == EADDRINUSE || error == EADDRNOTAVAIL) && r->tries++ < RELOCATION_BIND_TRIES) {
        if (r->tries == 1)
            log_warn("relocation", "%s; tried again for %u s", r->text,
                RELOCATION_BIND_TRIES * RELOCATION_BIND_RETRY_MS / 1000);
        uv_timer_start(&r->retry, retry_due, RELOCATION_BIND_RETRY_MS, 0);
        return;
    }
    log_error("relocation", "%s; correct xend-relocation-address or -port and reload", r->text);
}

static void listen_as_configured(struct relocation *r)
{
    r->tries = 0;
    if (r->m->config.relocation_server) {
        try_to_listen(r);
        return;
    }
    snprintf(r->text, sizeof r->text, "off (xend-relocation-server = no)");
    log_info("relocation", "%s", r->text);
}

/* --- acl ------------------------------------------------------------------------------------- */

static void keep_warning(void *arg, const char *text)
{
    struct relocation *r = arg;
    size_t n = strlen(r->warnings);

    log_warn("acl", "%s", text);
    snprintf(r->warnings + n, sizeof r->warnings - n, "%s%s", n > 0 ? "\n" : "", text);
}

static int compile_acl(struct relocation *r, struct err *e)
{
    struct acl *fresh;
    const struct config *c = &r->m->config;

    r->warnings[0] = '\0';
    if (acl_compile(c->relocation_hosts_allow, c->relocation_hosts_allow_set, keep_warning, r,
            &fresh, e) < 0)
        return -1;
    acl_free(&r->acl);
    r->acl = fresh;
    return 0;
}

int relocation_acl_test(struct migrd *m, const char *who, char *out, size_t len, struct err *e)
{
    struct acl_verdict v;
    struct place p[1];
    bool address;

    if (who[0] == '\0' || strlen(who) >= ACL_NAME_LEN)
        return err_set(e, ERR_INVALID, "which host? a name or an address");
    memset(p, 0, sizeof p);
    address = add_v4(&p[0], who);
    if (!address) {
        memset(p, 0, sizeof p);
        address = add_v6(&p[0], who);
    }
    acl_check(m->relocation->acl, address ? "" : who, address ? who : "", &v);
    snprintf(out, len, "%s: %s: %s%s", who, v.allowed ? "admitted" : "refused", v.why,
        address || !v.allowed ? "" : " (if reverse and forward lookup confirm the name)");
    return 0;
}

/* --- start, reload, stop
 * -------------------------------------------------------------------------- */

int relocation_start(struct migrd *m, struct err *e)
{
    struct relocation *r = calloc(1, sizeof *r);

    if (r == NULL || (r->lookup = lookup_new(m->loop)) == NULL) {
        free(r);
        return err_set(e, ERR_MEMORY, "relocation: out of memory");
    }
    r->m = m;
    m->relocation = r;
    uv_timer_init(m->loop, &r->retry);
    r->retry.data = r;
    uv_timer_init(m->loop, &r->rest);
    r->rest.data = r;
    if (compile_acl(r, e) < 0)
        return -1;
    listen_as_configured(r);
    return 0;
}

static bool same_place(const struct config *a, const struct config *b)
{
    return a->relocation_server == b->relocation_server &&
           a->relocation_port == b->relocation_port && a->relocation_tls == b->relocation_tls &&
           strcmp(a->relocation_address, b->relocation_address) == 0;
}

int relocation_reload(
    struct migrd *m, const struct config *before, char *changed, size_t len, struct err *e)
{
    struct relocation *r = m->relocation;

    if (compile_acl(r, e) < 0)
        return -1;
    if (same_place(before, &m->config) && (r->listeners != NULL || !m->config.relocation_server)) {
        if (changed != NULL)
            snprintf(changed, len, "hosts-allow read again, sockets unchanged");
        return 0;
    }
    uv_timer_stop(&r->retry);
    close_listeners(r);
    listen_as_configured(r);
    if (changed != NULL)
        snprintf(changed, len, "%s", r->text);
    return 0;
}

const char *relocation_text(const struct migrd *m)
{
    return m->relocation != NULL ? m->relocation->text : "not started";
}

const char *relocation_warnings(const struct migrd *m)
{
    return m->relocation != NULL ? m->relocation->warnings : "";
}

void relocation_stop(struct migrd *m)
{
    struct relocation *r = m->relocation;

    if (r == NULL || r->stopped)
        return;
    r->stopped = true;
    close_listeners(r);
    relocation_close_peers(r);
    uv_close((uv_handle_t *)&r->retry, NULL);
    uv_close((uv_handle_t *)&r->rest, NULL);
}

void relocation_close(struct migrd *m)
{
    struct relocation *r = m->relocation;

    if (r == NULL)
        return;
    m->relocation = NULL;
    lookup_free(&r->lookup);
    acl_free(&r->acl);
    free(r);
}
