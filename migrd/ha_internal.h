/* SPDX-License-Identifier: ISC */
/*
 * ha_internal: what ha.c (opening, notes, questions), ha_tell.c (what the log is told of this
 * host), ha_do.c (what the log wants done here), ha_wish.c (what operators want) and ha_look.c (a
 * copy in the core's words) share. Rows and tasks are the ha's, in lists, and go by ha_close at the
 * latest.
 */
#ifndef HA_INTERNAL_H
#define HA_INTERNAL_H

#include "migrd/ha.h"
#include "migrd/migration.h"

#define HA_TICK_MS 100    /* while something waits */
#define HA_SCAN_MS 2000   /* all copies are told again */
#define HA_ASK_MS 10000   /* an operator waits so long for a decision */
#define HA_START_MS 40000 /* and so long for his domain to run */

/* What there is to know of one domain's copy on this host; ha_look.c. */
struct ha_look {
    bool live;                   /* exists in the hypervisor */
    bool starting;               /* not yet, but is being started, and not by the log */
    bool stopping;               /* the log's STOP is under way: its own power-off is our doing */
    bool rebooting;              /* it waits for its restart, or is being restarted */
    const struct hv_info *info;  /* valid while live */
    uint64_t epoch;              /* as the journal has it, where the hypervisor does not say */
    enum hv_event_type last_end; /* how its guest ended; HV_EV_MAX not */
    bool moving;                 /* a hand-over holds it */
    bool owned;                  /* the journal says it is this host's */
};
/* False: there is no copy here. Fills all of e->u.domain but the uuid. */
bool ha_look_event(const struct ha_look *l, struct ha_event *e);

/* A domain of which a copy is here, or was when the log was told last. */
struct ha_row {
    struct ha_row *next;
    char uuid[HV_UUID_LEN];
    bool here; /* as it was told */
    bool seen; /* in the round that is going on */
    uint64_t epoch;
    bool left;                          /* people know that its fuse has stopped it for good */
    uint64_t fuse_epoch, fuse_deadline; /* the log's last word; epoch 0 none */
};

/* An action of the log that has begun or waits for its turn; `wish`: whose end is told to an
 * operator instead. */
struct ha_task {
    struct ha_task *next;
    struct ha *h;
    enum ha_action_type type;
    uint64_t id, epoch, deadline;
    char uuid[HV_UUID_LEN];
    char name[HA_NAME_LEN];
    Migrd__Domain *def;                                  /* START */
    char host[CLUSTER_ADDRESS_LEN], target[HA_NAME_LEN]; /* MIGRATE */
    struct migration *mig;
    bool begun;         /* an operation of the registry is under way for it, or the migration */
    bool asked, asking; /* STOP: the guest */
    bool over;          /* freed at the next round */
    struct ha_wish *wish;
};

struct ha_wish;

struct ha {
    struct migrd *m;
    struct cluster *cluster;
    struct ha_row *rows;
    struct ha_task *tasks;
    struct ha_wish *wishes;
    uv_timer_t tick, scan;
    uv_idle_t soon; /* active: something has changed and is told in the loop's next round */
    bool stopping;
    bool caught_up; /* the log was known here once */
    bool log_changed;
    bool ticking;
    uint64_t memory_kib, others_kib; /* as told */
};

/* --- ha.c */
/* In the loop's next round: tell, do, look. */
void ha_soon(struct ha *h);
const char *ha_node_text(const struct ha *h, uint32_t id);
struct ha_row *ha_row(struct ha *h, const char *uuid, bool make);

/* --- ha_tell.c */
/* The epoch of the copy that is live. */
uint64_t ha_copy_epoch(const struct domain *d);
/* All copies, and those that have gone. */
void ha_tell(struct ha *h);
/* This one, at once. */
void ha_tell_one(struct ha *h, const struct domain *d);
/* Memory and CPUs, if they are new. */
void ha_tell_host(struct ha *h);
/* Owners that the log has changed, into the journal of domains that are defined here: it is what
 * counts when a domain is protected no more. */
void ha_note_owners(struct ha *h);

/* --- ha_do.c */
void ha_do_fuse(void *host, const char *uuid, uint64_t epoch, uint64_t deadline);
void ha_do_act(void *host, const struct ha_action *action);
/* Goes on with what waits; true while something does. */
bool ha_do_more(struct ha *h);
const struct ha_task *ha_task_of(const struct ha *h, const char *uuid, enum ha_action_type type);
/* Destroys the copy that is here now, for an operator. */
void ha_do_destroy_for(struct ha *h, const struct domain *d, struct ha_wish *w);
void ha_do_close(struct ha *h);

/* --- ha_wish.c */
bool ha_wishes_more(struct ha *h);
void ha_wish_end(struct ha_wish *w, const struct err *e);
void ha_wishes_stop(struct ha *h);
void ha_wishes_free(struct ha *h);

#endif
