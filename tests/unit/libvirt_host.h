/* SPDX-License-Identifier: ISC */
/*
 * libvirt_host: a host with one defined domain, web1, and one client of libvirt's
 * protocol on a socket pair, without a hypervisor: for tests and harnesses of the
 * protocol. host_up, client_open, then bytes go through client_write and client_read.
 */
#ifndef LIBVIRT_HOST_H
#define LIBVIRT_HOST_H

#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migrd/define/define.h"
#include "migrd/events.h"
#include "migrd/libvirt/internal.h"
#include "migrd/migration_internal.h"
#include "migrd/registry_internal.h"

#define HOST_UUID "4a8c73f3-d0fd-433f-b0c2-3a7fc2bd2a1a"
#define HOST_XML                                                                                   \
    "<domain type='xvm'><name>web1</name><uuid>" HOST_UUID "</uuid><memory unit='MiB'>64</memory>" \
    "<vcpu>1</vcpu><os><type arch='x86_64'>linux</type><kernel>/k</kernel></os></domain>"

struct host {
    struct migrd m;
    uv_loop_t loop;
    struct libvirt lv;
    struct migrations migrations; /* none */
    int client;                   /* the client's end */
};

static inline void host_up(struct host *h)
{
    struct domain *d;
    struct err e;

    memset(h, 0, sizeof *h);
    h->client = -1;
    uv_loop_init(&h->loop);
    h->m.loop = &h->loop;
    h->m.libvirt = &h->lv;
    h->m.migrations = &h->migrations;
    config_defaults(&h->m.config);
    strcpy(h->m.host_name, "host1");
    strcpy(h->m.caps.release, "1");
    h->m.caps.host_cpus = 2;
    h->m.hv_ops = hv_driver("xvm");
    h->m.events = events_new();
    if (h->m.events == NULL || registry_make(&h->m, &e) < 0 || lv_events_start(&h->m, &e) < 0 ||
        (d = registry_add(&h->m, HOST_UUID, "web1", &e)) == NULL)
        abort();
    d->def = define_parse(HOST_XML, strlen(HOST_XML), DEFINE_XML, "web1", NULL, 0, &e);
    if (d->def == NULL)
        abort();
}

static inline void host_turn(struct host *h)
{
    for (int i = 0; i < 4; i++)
        uv_run(&h->loop, UV_RUN_NOWAIT);
}

static inline void client_open(struct host *h, bool read_only)
{
    struct ucred who = { .pid = 1 };
    int fd[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd) < 0)
        abort();
    h->client = fd[0];
    lv_conn_add(&h->m, fd[1], &who, read_only);
}

static inline void client_close(struct host *h)
{
    close(h->client);
    h->client = -1;
    while (h->lv.conns != NULL)
        lv_conn_close(h->lv.conns);
    host_turn(h);
}

static inline void client_write(struct host *h, const void *data, size_t len)
{
    if (send(h->client, data, len, MSG_NOSIGNAL) < 0) {
    } /* the host may have hung up */
    host_turn(h);
}

/* What has come by now; 0: nothing, -1: hung up. */
static inline ssize_t client_read(struct host *h, void *data, size_t len)
{
    ssize_t n = recv(h->client, data, len, 0);

    return n > 0 ? n : n == 0 ? -1 : 0;
}

static inline void host_down(struct host *h)
{
    if (h->client >= 0)
        client_close(h);
    lv_events_stop(&h->m);
    registry_close(&h->m);
    events_free(&h->m.events);
    host_turn(h);
    uv_loop_close(&h->loop);
}

#endif
