/* SPDX-License-Identifier: ISC */
/*
 * Clients of other machines: TCP with TLS (libvirt-tls...). A certificate of the authority is
 * needed, with a name that libvirt-tls-allow has; the client is told "\1" or "\0" as the
 * first byte inside TLS. Until then it can do nothing but wait for its end.
 *
 * These clients have libvirt-max-clients places of their own, of which one address gets a
 * quarter: whoever fills them does not lock out the unix sockets, nor all others.
 *
 * What fails at the start (an address that is not there yet, a certificate) is tried again
 * every RETRY_S and at each reload; a reload whose certificates are no good keeps the old
 * ones. Who is not allowed any more after a reload is hung up on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/libvirt/internal.h"
#include "migrd/listen.h"
#include "relocation-acl/relocation-acl.h"
#include "transport/tls_server.h"

#define RETRY_S 10
#define NAMES_MAX 64      /* of a certificate; further ones are not looked at */
#define REFUSALS_LOGGED 5 /* in a second */

struct lv_listener {
    struct lv_listener *next;
    struct migrd *m;
    int fd;
    uv_poll_t poll;
};

/* --- refusals --- */

void lv_refused(struct migrd *m, const char *fmt, ...)
{
    char text[500];
    va_list ap;

    if (m->libvirt->refusals++ >= REFUSALS_LOGGED)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_warn("libvirt", "%s", text);
}

static void count_refusals(struct libvirt *lv)
{
    if (lv->refusals > REFUSALS_LOGGED)
        log_warn("libvirt", "%u more clients were refused", lv->refusals - REFUSALS_LOGGED);
    lv->refusals = 0;
}

/* --- who may --- */

static bool is_listed(const char *list, const char *name)
{
    char word[CONFIG_VALUE_MAX];
    size_t n;

    for (const char *w = list; *w != '\0'; w += n) {
        w += strspn(w, " ");
        n = strcspn(w, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, w);
        if (n > 0 && fnmatch(word, name, FNM_CASEFOLD) == 0)
            return true;
    }
    return false;
}

bool lv_tls_admitted(struct lv_conn *c)
{
    char name[TR_NAME_LEN], first[TR_NAME_LEN] = "";

    for (unsigned i = 0; i < NAMES_MAX && tls_link_name(c->tls, i, name); i++) {
        if (i == 0)
            memcpy(first, name, sizeof first);
        if (name[0] == '\0' || !is_listed(c->m->config.libvirt_tls_allow, name))
            continue;
        snprintf(c->who, sizeof c->who, "%s at %s", name, c->address);
        return true;
    }
    snprintf(c->who, sizeof c->who, "%s at %s", first, c->address);
    return false;
}

/* --- connections --- */

static void accept_one(struct migrd *m, int fd, const char *address)
{
    struct libvirt *lv = m->libvirt;
    unsigned most = m->config.libvirt_max_clients, all = 0, same = 0;

    for (const struct lv_conn *c = lv->conns; c != NULL; c = c->next) {
        all += c->tls != NULL;
        same += c->tls != NULL && strcmp(c->address, address) == 0;
    }
    if (all >= most || same >= (most + 3) / 4) {
        lv_refused(m, "%s: %u clients of it and %u in all are connected (libvirt-max-clients)",
            address, same, all);
        close(fd);
        return;
    }
    lv_conn_add_tls(m, fd, tls_link_new(lv->tls, fd), address);
}

static void acceptable(uv_poll_t *h, int status, int events)
{
    struct lv_listener *l = h->data;
    struct sockaddr_storage sa;
    char address[64];

    (void)events;
    for (int i = 0; status == 0 && i < LV_ACCEPTS; i++) {
        socklen_t len = sizeof sa;
        int fd = accept4(l->fd, (struct sockaddr *)&sa, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            lv_accept_failed(h);
            return;
        }
        if (acl_address_text((struct sockaddr *)&sa, address, sizeof address) < 0)
            snprintf(address, sizeof address, "?");
        accept_one(l->m, fd, address);
    }
}

/* --- listening --- */

static void listener_closed(uv_handle_t *h)
{
    free(h->data);
}

static void close_listeners(struct libvirt *lv)
{
    while (lv->listeners != NULL) {
        struct lv_listener *l = lv->listeners;

        lv->listeners = l->next;
        uv_close((uv_handle_t *)&l->poll, listener_closed);
        io_close(&l->fd);
    }
}

static void add_listener(struct migrd *m, int fd)
{
    struct lv_listener *l = calloc(1, sizeof *l);

    if (l == NULL || uv_poll_init(m->loop, &l->poll, fd) < 0) {
        free(l);
        close(fd);
        return;
    }
    l->m = m;
    l->fd = fd;
    l->poll.data = l;
    l->next = m->libvirt->listeners;
    m->libvirt->listeners = l;
    uv_poll_start(&l->poll, UV_READABLE, acceptable);
}

static int read_certificates(struct migrd *m, struct err *e)
{
    char path[3][CONFIG_PATH_LEN];
    const struct tr_tls_files files = { path[0], path[1], path[2] };
    struct tls_server *fresh;

    config_libvirt_tls_files(&m->config, m->paths.pki, path);
    if (tls_server_open(&files, &fresh, e) < 0)
        return -1;
    tls_server_free(&m->libvirt->tls);
    m->libvirt->tls = fresh;
    return 0;
}

static int listen_now(struct migrd *m, struct err *e)
{
    const struct config *c = &m->config;
    int fd[LISTEN_MAX];
    size_t n = listen_on(c->libvirt_tls_address, c->libvirt_tls_port, fd);

    if (n == 0)
        return err_set(e, ERR_SYSTEM, "port %u of %s (libvirt-tls-address, -port): %s",
            c->libvirt_tls_port,
            c->libvirt_tls_address[0] ? c->libvirt_tls_address : "all addresses",
            listen_error(errno));
    for (size_t i = 0; i < n; i++)
        add_listener(m, fd[i]);
    log_info("libvirt", "virsh is served with TLS on %s port %u, for %s",
        c->libvirt_tls_address[0] ? c->libvirt_tls_address : "every address", c->libvirt_tls_port,
        c->libvirt_tls_allow);
    return 0;
}

/* Says why not, once. */
static void try_to_listen(struct migrd *m)
{
    struct libvirt *lv = m->libvirt;
    struct err e;

    lv->tried_ns = clock_ns();
    if ((lv->tls != NULL || read_certificates(m, &e) == 0) && listen_now(m, &e) == 0) {
        lv->tls_failed = false;
        return;
    }
    if (!lv->tls_failed)
        log_error(
            "libvirt", "virsh is not served with TLS: %s; tried again every %d s", e.text, RETRY_S);
    lv->tls_failed = true;
}

void lv_tls_tick(struct migrd *m, uint64_t now)
{
    struct libvirt *lv = m->libvirt;

    count_refusals(lv);
    for (struct lv_listener *l = lv->listeners; l != NULL; l = l->next)
        if (!uv_is_active((uv_handle_t *)&l->poll))
            uv_poll_start(&l->poll, UV_READABLE, acceptable);
    if (m->config.libvirt_tls && lv->listeners == NULL && now - lv->tried_ns >= RETRY_S * NS_PER_S)
        try_to_listen(m);
}

void lv_tls_start(struct migrd *m)
{
    if (m->config.libvirt_tls)
        try_to_listen(m);
}

static void drop_who_may_not(struct migrd *m)
{
    struct lv_conn *next;

    for (struct lv_conn *c = m->libvirt->conns; c != NULL; c = next) {
        next = c->next;
        if (c->tls == NULL || (c->shaking && m->config.libvirt_tls))
            continue;
        if (m->config.libvirt_tls && lv_tls_admitted(c))
            continue;
        log_warn("libvirt", "%s is not allowed any more: hung up", c->who);
        lv_conn_close(c);
    }
}

void lv_tls_reload(struct migrd *m, const struct config *before)
{
    const struct config *c = &m->config;
    struct libvirt *lv = m->libvirt;
    struct err e;

    drop_who_may_not(m);
    if (!c->libvirt_tls || before->libvirt_tls_port != c->libvirt_tls_port ||
        strcmp(before->libvirt_tls_address, c->libvirt_tls_address) != 0)
        close_listeners(lv);
    if (c->libvirt_tls && lv->tls != NULL && read_certificates(m, &e) < 0)
        log_error("libvirt", "the certificates in use stay: %s", e.text);
    lv->tls_failed = false;
    if (c->libvirt_tls && lv->listeners == NULL)
        try_to_listen(m);
}

void lv_tls_stop(struct migrd *m)
{
    close_listeners(m->libvirt);
    tls_server_free(&m->libvirt->tls);
}
