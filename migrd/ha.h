/* SPDX-License-Identifier: ISC */
/*
 * ha: protected domains of this host, between the cluster's log (cluster/node.h) and the registry:
 * carries out what the log decides, tells it what the hypervisor has, and answers "may this be done
 * here?" to everybody who acts on domains. With `cluster = no` nothing of it exists: m->ha is NULL,
 * each question below is answered "yes, as ever". All in the loop's thread.
 */
#ifndef HA_H
#define HA_H

#include "cluster/node.h"
#include "migrd/registry.h"

struct ha;

/* After the registry and the migrations, before the sockets. */
int ha_open(struct migrd *m, struct err *e);
void ha_stop(struct migrd *m);
void ha_close(struct migrd *m);

/* NULL: not a cluster. */
struct cluster *ha_cluster(const struct migrd *m);

/* The log has it. *unsure (may be NULL): the log is not caught up here, so "no" is not
 * final. */
bool ha_protected(const struct migrd *m, const char *uuid, bool *unsure);

/* Whoever asks (xm, migctl, virsh, autostart) wants this done to d here: refused with the way out
 * where the log decides (ERR_STATE): start, destroy, undefine. The log's own actions do not ask. */
int ha_may_act(const struct migrd *m, const struct domain *d, enum registry_op op, struct err *e);

/* The registry: something about d has changed here, or it has gone. */
void ha_domain_changed(struct migrd *m, const struct domain *d);

/* A process is about to be made for it: does it begin with a blown fuse? */
bool ha_begins_blown(const struct migrd *m, const char *uuid);

/* The hand-over's questions (HA_MIGRATE_BEGIN ... HA_OWNER) about a protected domain; the answer
 * comes when the log has decided. */
int ha_ask(struct migrd *m, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e);

#endif
