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
/* The log decides what becomes of it when its guest has ended; so it is while that is not known. */
bool ha_decides(const struct migrd *m, const char *uuid);
/* The log may not be known here yet: what starts with the host waits. registry_autostart_boot is
 * called again when it is. */
bool ha_waits(const struct migrd *m);

/*
 * An operator (xm, migctl, virsh) wants this done to d. 0: it is done here, as ever. 1: the log has
 * been asked; `done` is called when it has come about: a start once it runs, wherever that is; a
 * destroy once it is gone; a shutdown once the guest is asked. -1: refused, with the way out. The
 * log's own actions do not ask.
 */
int ha_operator(struct migrd *m, const struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, void *arg, struct err *e);
/* The same for a definition, which is what the log starts from; copied. `run`: and starts it. */
int ha_define(struct migrd *m, const Migrd__Domain *def, bool run, registry_done *done, void *arg,
    struct err *e);
/* Name or uuid: "domain web runs on host b" if the log has it on another host; false: not. */
bool ha_elsewhere(const struct migrd *m, const char *which, char *text, size_t size);
/* Refused where the log decides: `what` is "undefine", "save", "restore". */
int ha_refuses(
    const struct migrd *m, const char *uuid, const char *name, const char *what, struct err *e);

/* The registry: something about d has changed here, or it has gone. */
void ha_domain_changed(struct migrd *m, const struct domain *d);
/* It is about to be started: the log must not take it for one that is not here. */
void ha_domain_starts(struct migrd *m, const struct domain *d);

/* A process is about to be made for it: does it begin with a blown fuse? */
bool ha_begins_blown(const struct migrd *m, const char *uuid);
/* It has been made: the log's last word on its fuse, if there is one, which may have come before.
 */
void ha_made(struct migrd *m, const char *uuid);

/* The hand-over's questions (HA_MIGRATE_BEGIN ... HA_OWNER) about a protected domain; the answer
 * comes when the log has decided. */
int ha_ask(struct migrd *m, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e);

#endif
