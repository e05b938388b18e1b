/* SPDX-License-Identifier: ISC */
/*
 * control_internal: what control.c (clients, dispatch), control_domain.c,
 * control_migration.c and control_host.c share.
 */
#ifndef CONTROL_INTERNAL_H
#define CONTROL_INTERNAL_H

#include <sys/types.h>

#include "base/msgconn.h"
#include "migrd/control.h"
#include "migrd/control.pb-c.h"

struct client {
    struct client *next;
    struct migrd *m;
    struct msgconn *conn;
    uv_poll_t poll;
    bool gone; /* socket closed; the struct waits for its requests and its handle */
    bool handle_open;
    unsigned under_way;
    uid_t uid;
    pid_t pid;
};

/* A request whose answer comes later. */
struct request {
    struct client *c;
    uint32_t serial;
    bool progress;  /* wants MigrationInfo replies */
    bool wait_gone; /* answer when the domain has ended */
    uint32_t wait_s;
    char uuid[HV_UUID_LEN];
};

typedef void control_handler(struct client *c, const Migrd__Request *rq);

/* Answers: the reply is packed at once, the caller keeps it. */
void control_send(struct client *c, uint32_t serial, Migrd__Reply *r, bool last);
/* Sends as last and frees; NULL: out of memory. */
void control_send_own(struct client *c, uint32_t serial, Migrd__Reply *r);
void control_ok(struct client *c, uint32_t serial, const char *text);
void control_fail(struct client *c, uint32_t serial, const struct err *e);

/* Keeps the client until request_end, which frees. NULL: answered already with a failure. */
struct request *request_new(struct client *c, const Migrd__Request *rq);
void request_end(struct request *r);
/* A registry_done that answers. */
void request_done(void *arg, const char *uuid, const struct err *e);

/* The domain, or NULL and answered. */
struct domain *control_domain(struct client *c, uint32_t serial, const char *which);
/* Logs who does what. */
void control_audit(const struct client *c, const char *what, const char *on);

control_handler control_list, control_get, control_create, control_start_domain, control_undefine,
    control_act, control_dump;
control_handler control_set_memory, control_tune_domain, control_get_vcpus;
control_handler control_save, control_restore, control_dump_core, control_migrate, control_dry_run, control_cancel, control_tune,
    control_migrations, control_watch, control_resolve;
control_handler control_acl_test, control_journal, control_log, control_host, control_reload,
    control_facts, control_dmesg;
control_handler control_ha, control_get_ha;

#endif
