/* SPDX-License-Identifier: ISC */
/*
 * The two sockets, who may connect, and the clock that finds clients that hang. More
 * clients than libvirt-max-clients are hung up on at once: a virsh says so to its user.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "migrd/libvirt/internal.h"

#define TICK_MS 1000

static const char *const socket_names[2] = { "libvirt-sock", "libvirt-sock-ro" };

void lv_socket_path(const struct migrd *m, bool read_only, char out[PATHS_LEN + 32])
{
    snprintf(out, PATHS_LEN + 32, "%s/%s", m->paths.run, socket_names[read_only]);
}

static unsigned local_clients(const struct libvirt *lv)
{
    unsigned n = 0;

    for (const struct lv_conn *c = lv->conns; c != NULL; c = c->next)
        n += c->tls == NULL;
    return n;
}

static void accept_one(struct migrd *m, int fd, bool read_only)
{
    struct libvirt *lv = m->libvirt;
    struct ucred who = { 0 };
    unsigned n;

    if (!peer_admitted(&lv->rule, fd, &who)) {
        lv_refused(m, "uid %u pid %d is neither root nor of group %s: refused", who.uid,
            (int)who.pid, m->config.control_group);
        close(fd);
    } else if ((n = local_clients(lv)) >= m->config.libvirt_max_clients) {
        lv_refused(m, "%u clients are connected (libvirt-max-clients): one more is refused", n);
        close(fd);
    } else {
        lv_conn_add(m, fd, &who, read_only);
    }
}

void lv_accept_failed(uv_poll_t *h)
{
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        uv_poll_stop(h);
}

static void acceptable(uv_poll_t *h, int status, int events)
{
    struct migrd *m = h->data;
    int i = h == &m->libvirt->poll[1];

    (void)events;
    for (int k = 0; status == 0 && k < LV_ACCEPTS; k++) {
        int fd = accept4(m->libvirt->fd[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            lv_accept_failed(h);
            return;
        }
        accept_one(m, fd, i == 1);
    }
}

static void tick(uv_timer_t *t)
{
    struct migrd *m = t->data;
    uint64_t now = clock_ns();
    struct lv_conn *next;

    for (struct lv_conn *c = m->libvirt->conns; c != NULL; c = next) {
        next = c->next;
        lv_conn_tick(c, now);
    }
    lv_moves_tick(m, now);
    lv_places_look(m);
    lv_tls_tick(m, now);
    for (int i = 0; i < 2; i++)
        if (m->libvirt->fd[i] >= 0 && !uv_is_active((uv_handle_t *)&m->libvirt->poll[i]))
            uv_poll_start(&m->libvirt->poll[i], UV_READABLE, acceptable);
}

static int listen_on(struct migrd *m, int i, struct err *e)
{
    struct libvirt *lv = m->libvirt;
    char path[PATHS_LEN + 32];

    lv_socket_path(m, i, path);
    lv->fd[i] = io_unix_listen(path, 0660, e);
    if (lv->fd[i] < 0)
        return -1;
    peer_rule_for(&lv->rule, path, m->config.control_group);
    uv_poll_init(m->loop, &lv->poll[i], lv->fd[i]);
    lv->poll[i].data = m;
    uv_poll_start(&lv->poll[i], UV_READABLE, acceptable);
    return 0;
}

int libvirt_start(struct migrd *m, struct err *e)
{
    struct libvirt *lv = calloc(1, sizeof *lv);

    if (lv == NULL)
        return err_set(e, ERR_MEMORY, "libvirt sockets: out of memory");
    lv->fd[0] = lv->fd[1] = lv->subscription = -1;
    m->libvirt = lv;
    uv_timer_init(m->loop, &lv->tick);
    lv->tick.data = m;
    uv_timer_start(&lv->tick, tick, TICK_MS, TICK_MS);
    if (lv_events_start(m, e) < 0 || listen_on(m, 0, e) < 0 || listen_on(m, 1, e) < 0)
        return err_prefix(e, "libvirt sockets");
    lv_places_start(m);
    lv_tls_start(m);
    return 0;
}

void libvirt_reload(struct migrd *m, const struct config *before)
{
    if (strcmp(before->libvirt_sockets, m->config.libvirt_sockets) != 0)
        lv_places_stop(m, before->libvirt_sockets);
    lv_tls_reload(m, before);
    memset(m->libvirt->places, 0, sizeof m->libvirt->places);
    lv_places_start(m);
}

void libvirt_stop(struct migrd *m)
{
    struct libvirt *lv = m->libvirt;
    struct lv_conn *c;
    char path[PATHS_LEN + 32];

    if (lv == NULL || lv->stopping)
        return;
    lv->stopping = true;
    lv_events_stop(m);
    lv_places_stop(m, m->config.libvirt_sockets);
    lv_tls_stop(m);
    uv_close((uv_handle_t *)&lv->tick, NULL);
    for (int i = 0; i < 2; i++) {
        if (lv->fd[i] < 0)
            continue;
        uv_close((uv_handle_t *)&lv->poll[i], NULL);
        io_close(&lv->fd[i]);
        lv_socket_path(m, i, path);
        unlink(path);
    }
    while ((c = lv->conns) != NULL) {
        lv_tell_close(c);
        lv_conn_close(c);
    }
}

void libvirt_close(struct migrd *m)
{
    free(m->libvirt);
    m->libvirt = NULL;
}
