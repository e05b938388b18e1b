/* SPDX-License-Identifier: ISC */
/*
 * Where the relocation port listens: an address, "localhost" (both loopbacks, where there),
 * an interface's name (all of its addresses), or everything. As xend did, a bind that
 * fails because the address is in use is tried again for a while (a predecessor that is
 * still closing), as is an address that is not there yet.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/listen.h"
#include "migrd/lookup.h"
#include "migrd/relocation_internal.h"
#include "storage-check/allow.h"

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

static int open_all(struct relocation *r, const char **what, int *error)
{
    int fd[LISTEN_MAX];
    size_t n = listen_on(r->m->config.relocation_address, r->m->config.relocation_port, fd), ok = 0;

    *error = errno;
    *what = listen_error(errno);
    for (size_t i = 0; i < n; i++)
        ok += add_listener(r, fd[i]) == 0;
    return ok > 0 ? 0 : -1;
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

/* --- acl --- */

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
    if (storage_places_check(c->storage_places, e) < 0)
        return -1;
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
    bool address;

    if (who[0] == '\0' || strlen(who) >= ACL_NAME_LEN)
        return err_set(e, ERR_INVALID, "which host? a name or an address");
    address = listen_is_address(who);
    acl_check(m->relocation->acl, address ? "" : who, address ? who : "", &v);
    snprintf(out, len, "%s: %s: %s%s", who, v.allowed ? "admitted" : "refused", v.why,
        address || !v.allowed ? "" : " (if reverse and forward lookup confirm the name)");
    return 0;
}

/* --- start, reload, stop --- */

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
