/* SPDX-License-Identifier: ISC */
/*
 * Clients. A message is one Request; its handler answers at once or makes a `struct
 * request` and answers from a callback. A client whose socket has closed stays as long as
 * requests of its are under way; answers to it go nowhere.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "migrd/control_internal.h"
#include "migrd/ha.h"
#include "migrd/migration.h"
#include "migrd/peer.h"
#include "migrd/registry.h"

struct control {
    int fd;
    struct peer_rule rule;
    bool stopping;
    uv_poll_t poll;
    struct client *clients;
    unsigned n_clients;
};

/* --- clients --- */

static void client_free_if_done(struct client *c)
{
    if (!c->gone || c->handle_open || c->under_way > 0)
        return;
    free(c);
}

static void poll_closed(uv_handle_t *h)
{
    struct client *c = h->data;

    c->handle_open = false;
    client_free_if_done(c);
}

static void client_close(struct client *c)
{
    struct control *ctl = c->m->control;

    if (c->gone)
        return;
    c->gone = true;
    for (struct client **p = &ctl->clients; *p != NULL; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            ctl->n_clients--;
            break;
        }
    uv_close((uv_handle_t *)&c->poll, poll_closed);
    msgconn_free(&c->conn);
}

static void client_ready(uv_poll_t *h, int status, int events);

static void flush(struct client *c)
{
    struct err e;
    int more = msgconn_flush(c->conn, &e);

    if (more < 0) {
        client_close(c);
        return;
    }
    uv_poll_start(&c->poll, UV_READABLE | (more ? UV_WRITABLE : 0), client_ready);
}

void control_send(struct client *c, uint32_t serial, Migrd__Reply *r, bool last)
{
    struct err e;

    if (c->gone)
        return;
    r->serial = serial;
    r->last = last;
    if (msgconn_queue(c->conn, &r->base, -1, &e) < 0) {
        log_warn("control", "client of uid %u: %s; closed", c->uid, e.text);
        client_close(c);
        return;
    }
    flush(c);
}

void control_send_own(struct client *c, uint32_t serial, Migrd__Reply *r)
{
    if (r == NULL) {
        control_fail(c, serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
        return;
    }
    control_send(c, serial, r, true);
    migrd__reply__free_unpacked(r, NULL);
}

void control_ok(struct client *c, uint32_t serial, const char *text)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;

    r.text = (char *)(uintptr_t)text;
    control_send(c, serial, &r, true);
}

void control_fail(struct client *c, uint32_t serial, const struct err *e)
{
    Migrd__Reply r = MIGRD__REPLY__INIT;
    Migrd__Failure f = MIGRD__FAILURE__INIT;

    f.code = (char *)(uintptr_t)err_code_name(e->code);
    f.text = (char *)(uintptr_t)e->text;
    r.failure = &f;
    control_send(c, serial, &r, true);
}

struct request *request_new(struct client *c, const Migrd__Request *rq)
{
    struct request *r = NULL;

    if (c->under_way >= CONTROL_REQUESTS_MAX)
        control_fail(c, rq->serial,
            &(struct err){ ERR_RESOURCE, "too many requests of this client are under way" });
    else if ((r = calloc(1, sizeof *r)) == NULL)
        control_fail(c, rq->serial, &(struct err){ ERR_MEMORY, "migrd is out of memory" });
    if (r == NULL)
        return NULL;
    r->c = c;
    r->serial = rq->serial;
    c->under_way++;
    return r;
}

void request_end(struct request *r)
{
    struct client *c = r->c;

    c->under_way--;
    free(r);
    client_free_if_done(c);
}

void request_done(void *arg, const char *uuid, const struct err *e)
{
    struct request *r = arg;

    (void)uuid;
    if (e->code == ERR_NONE)
        control_ok(r->c, r->serial, "");
    else
        control_fail(r->c, r->serial, e);
    request_end(r);
}

struct domain *control_domain(struct client *c, uint32_t serial, const char *which)
{
    struct domain *d = registry_find(c->m->registry, which);
    char where[400];
    struct err e;

    if (d == NULL) {
        if (ha_elsewhere(c->m, which, where, sizeof where))
            err_set(&e, ERR_NOT_FOUND, "no domain %.64s on host %s: %s", which, c->m->host_name,
                where);
        else
            err_set(&e, ERR_NOT_FOUND, "no domain %.64s on host %s", which, c->m->host_name);
        control_fail(c, serial, &e);
    }
    return d;
}

void control_audit(const struct client *c, const char *what, const char *on)
{
    log_info("control", "uid %u pid %d: %s %s", c->uid, (int)c->pid, what, on);
}

/* --- requests --- */

static control_handler *const handlers[] = {
    [MIGRD__REQUEST__BODY_LIST] = control_list,
    [MIGRD__REQUEST__BODY_GET] = control_get,
    [MIGRD__REQUEST__BODY_CREATE] = control_create,
    [MIGRD__REQUEST__BODY_START] = control_start_domain,
    [MIGRD__REQUEST__BODY_UNDEFINE] = control_undefine,
    [MIGRD__REQUEST__BODY_ACT] = control_act,
    [MIGRD__REQUEST__BODY_SET_MEMORY] = control_set_memory,
    [MIGRD__REQUEST__BODY_TUNE_DOMAIN] = control_tune_domain,
    [MIGRD__REQUEST__BODY_GET_VCPUS] = control_get_vcpus,
    [MIGRD__REQUEST__BODY_SAVE] = control_save,
    [MIGRD__REQUEST__BODY_DUMP_CORE] = control_dump_core,
    [MIGRD__REQUEST__BODY_RESTORE] = control_restore,
    [MIGRD__REQUEST__BODY_DUMP] = control_dump,
    [MIGRD__REQUEST__BODY_MIGRATE] = control_migrate,
    [MIGRD__REQUEST__BODY_CANCEL] = control_cancel,
    [MIGRD__REQUEST__BODY_TUNE] = control_tune,
    [MIGRD__REQUEST__BODY_MIGRATIONS] = control_migrations,
    [MIGRD__REQUEST__BODY_WATCH] = control_watch,
    [MIGRD__REQUEST__BODY_RESOLVE] = control_resolve,
    [MIGRD__REQUEST__BODY_ACL_TEST] = control_acl_test,
    [MIGRD__REQUEST__BODY_JOURNAL] = control_journal,
    [MIGRD__REQUEST__BODY_LOG] = control_log,
    [MIGRD__REQUEST__BODY_HOST] = control_host,
    [MIGRD__REQUEST__BODY_RELOAD] = control_reload,
    [MIGRD__REQUEST__BODY_DRY_RUN] = control_dry_run,
    [MIGRD__REQUEST__BODY_GET_FACTS] = control_facts,
    [MIGRD__REQUEST__BODY_DMESG] = control_dmesg,
    [MIGRD__REQUEST__BODY_HA] = control_ha,
    [MIGRD__REQUEST__BODY_GET_HA] = control_get_ha,
};

static void dispatch(struct client *c, const Migrd__Request *rq)
{
    size_t i = (size_t)rq->body_case;

    if (i < sizeof handlers / sizeof handlers[0] && handlers[i] != NULL)
        handlers[i](c, rq);
    else
        control_fail(c, rq->serial,
            &(struct err){
                ERR_UNSUPPORTED, "this migrd does not know the request; is the tool newer?" });
}

static void take_requests(struct client *c)
{
    ProtobufCMessage *msg;
    struct err e;
    int r = 1;

    while (!c->gone && (r = msgconn_next(c->conn, &msg, NULL, &e)) == 1) {
        dispatch(c, (Migrd__Request *)msg);
        protobuf_c_message_free_unpacked(msg, NULL);
    }
    if (!c->gone && r < 0) {
        log_warn("control", "client of uid %u: %s; closed", c->uid, e.text);
        client_close(c);
    }
}

static void client_ready(uv_poll_t *h, int status, int events)
{
    struct client *c = h->data;
    struct err e;
    bool ended = status < 0;

    if (!ended && (events & UV_READABLE) != 0)
        ended = msgconn_fill(c->conn, &e) < 0;
    take_requests(c);
    if (c->gone)
        return;
    if (ended)
        client_close(c);
    else
        flush(c);
}

/* --- accept --- */

static void add_client(struct migrd *m, int fd, const struct ucred *who)
{
    struct control *ctl = m->control;
    struct client *c = calloc(1, sizeof *c);

    if (c == NULL ||
        (c->conn = msgconn_new(fd, &migrd__request__descriptor, CONTROL_MESSAGE_MAX)) == NULL) {
        if (c == NULL)
            close(fd);
        free(c);
        return;
    }
    c->m = m;
    c->uid = who->uid;
    c->pid = who->pid;
    uv_poll_init(m->loop, &c->poll, fd);
    c->poll.data = c;
    c->handle_open = true;
    c->next = ctl->clients;
    ctl->clients = c;
    ctl->n_clients++;
    uv_poll_start(&c->poll, UV_READABLE, client_ready);
}

static void acceptable(uv_poll_t *h, int status, int events)
{
    struct migrd *m = h->data;
    struct control *ctl = m->control;
    struct ucred who = { 0 };
    int fd;

    (void)events;
    while (status == 0 && (fd = accept4(ctl->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        if (!peer_admitted(&ctl->rule, fd, &who)) {
            log_warn("control", "uid %u pid %d is neither root nor of group %s: refused", who.uid,
                (int)who.pid, m->config.control_group);
            close(fd);
        } else if (ctl->n_clients >= CONTROL_CLIENTS_MAX) {
            log_warn("control", "%u clients are connected: one more is refused", ctl->n_clients);
            close(fd);
        } else {
            add_client(m, fd, &who);
        }
    }
}

int control_start(struct migrd *m, struct err *e)
{
    struct control *ctl = calloc(1, sizeof *ctl);

    if (ctl == NULL)
        return err_set(e, ERR_MEMORY, "control socket: out of memory");
    ctl->fd = io_unix_listen(m->paths.control, 0660, e);
    if (ctl->fd < 0) {
        free(ctl);
        return -1;
    }
    m->control = ctl;
    peer_rule_for(&ctl->rule, m->paths.control, m->config.control_group);
    uv_poll_init(m->loop, &ctl->poll, ctl->fd);
    ctl->poll.data = m;
    uv_poll_start(&ctl->poll, UV_READABLE, acceptable);
    return 0;
}

void control_stop(struct migrd *m)
{
    struct control *ctl = m->control;

    if (ctl == NULL || ctl->stopping)
        return;
    ctl->stopping = true;
    uv_close((uv_handle_t *)&ctl->poll, NULL);
    io_close(&ctl->fd);
    unlink(m->paths.control);
    while (ctl->clients != NULL)
        client_close(ctl->clients);
}

void control_close(struct migrd *m)
{
    free(m->control);
    m->control = NULL;
}
