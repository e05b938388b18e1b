/* SPDX-License-Identifier: ISC */
/*
 * registry_internal: what registry.c (entries, definitions), registry_ops.c (operations
 * in the pool) and registry_poll.c (what the hypervisor tells, policies) share.
 */
#ifndef REGISTRY_INTERNAL_H
#define REGISTRY_INTERNAL_H

#include "migrd/registry.h"

/* What the journal says of a domain that has no entry. */
struct ownership {
    struct ownership *next;
    char uuid[HV_UUID_LEN];
    char owner[256];
    uint64_t epoch, proven_epoch;
    bool doubt;
};

struct waiter {
    struct waiter *next;
    uint64_t deadline_ns;
    registry_done *done;
    void *arg;
};

struct registry {
    struct domain *domains;
    unsigned n_domains;
    struct ownership *owners;
    int last_domid;
    uint64_t changes; /* grows with every change of a domain that is not a poll's */
    bool doubt_all;   /* a damaged journal line named nobody */
    bool polling, poll_again, stopping;
    uv_timer_t poll_timer;
    uv_poll_t event_poll;
    bool timer_open, events_open;
    uint64_t poll_failures;
};

struct domain *registry_add(struct migrd *m, const char *uuid, const char *name, struct err *e);
/* Frees the entry if nothing keeps it. */
void registry_drop_unused(struct migrd *m, struct domain *d);
void registry_set_live(struct migrd *m, struct domain *d, bool live);
/* What is known of it is newer than any poll under way. */
void registry_touch(struct migrd *m, struct domain *d);
struct ownership *registry_ownership(struct registry *r, const char *uuid);
/* The journal was damaged where it may have spoken of it, and nothing came behind that. */
bool registry_in_doubt(struct registry *r, const char *uuid);
/* registry_autostart.c: the marks of all entries, after their definitions; of one that is forgotten
 * (blocks). */
void registry_autostart_load(struct migrd *m);
void registry_autostart_forget(const struct migrd *m, const char *uuid);
/* Runs the policy of d->ended unless somebody holds the domain. */
void registry_policy(struct migrd *m, struct domain *d);
void registry_expire_waiters(struct migrd *m, struct domain *d, uint64_t now);

#endif
