/* SPDX-License-Identifier: ISC */
/*
 * registry: the domains of this host: those defined here (state/domains/UUID.xml, kept
 * across everything) and those that exist in the hypervisor (found again at start).
 * All calls in the loop's thread; what blocks goes through the pool, one operation per
 * domain at a time. While a migration holds a domain (`mig` set) only the migration acts
 * on it. A `struct domain` lives until it is neither defined nor running nor held; keep
 * uuids across callbacks, not pointers.
 */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "migrd/migrd.h"

#define REGISTRY_POLL_MS 2000
/* A domain that ends this often in this time is not restarted any more. */
#define RESTART_LIMIT 3
#define RESTART_WINDOW_S 60
#define REGISTRY_DOMAINS_MAX 4096

struct migration;

/* Where a request says nothing; 0 (bandwidth: not set): as configured. */
struct migration_wishes {
    uint64_t bandwidth; /* bytes per second; 0 no limit */
    uint32_t pause_budget_ms;
    bool set_bandwidth;
};

struct domain {
    struct domain *next;
    char uuid[HV_UUID_LEN];
    char name[HV_NAME_LEN];
    Migrd__Domain *def;      /* persistent definition, NULL: transient */
    Migrd__Domain *live_def; /* what it was started with, NULL: does not exist here */
    bool autostart;          /* starts with the host */
    bool live;               /* exists in the hypervisor */
    struct hv_info info;     /* last known, valid while live */
    char owner[256];         /* host that may run it */
    uint64_t epoch;
    bool doubt; /* the journal does not say whether it may run here */
    uint64_t start_wall_ns;
    uint64_t changed;                 /* registry's counter at the last change */
    uint64_t appeared;                /* and when it came to exist in the hypervisor */
    const char *busy;                 /* operation in the pool: "start"; NULL none */
    struct migration *mig;            /* hand-over or save under way, not owned */
    enum hv_event_type ended;         /* end that waits for its policy; HV_EV_MAX none */
    enum hv_event_type last_end;      /* of its last run, if it ended by itself; HV_EV_MAX not */
    uint64_t restarts[RESTART_LIMIT]; /* clock_ns of the last ones */
    uint64_t job_read_ns; /* end of the last job whose statistics a client of libvirt/ took */
    struct waiter *waiters;           /* shutdown --wait */
    struct migration_wishes wish;     /* for its migrations, until migrd ends */
};

enum registry_op {
    REG_START,
    REG_PAUSE,
    REG_UNPAUSE,
    REG_SHUTDOWN,
    REG_REBOOT,
    REG_DESTROY,
    REG_RESTART, /* destroy and start anew */
    REG_SET_MEMORY,
    REG_PIN,
    REG_SET_VCPUS,
    REG_SCHED,
    REG_OP_MAX
};

struct registry_args {
    bool paused;         /* REG_START */
    uint64_t memory_kib; /* REG_SET_MEMORY */
    unsigned vcpu;       /* REG_PIN, with cpus; all bits: any CPU */
    struct hv_cpus cpus;
    unsigned vcpus;        /* REG_SET_VCPUS */
    struct hv_sched sched; /* REG_SCHED */
    /* The cluster's log has decided it (ha.h): nobody else is asked. REG_START, REG_RESTART: under
     * that epoch, with a blown fuse. REG_DESTROY: also where a migration holds the domain. */
    bool decided;
    uint64_t epoch;
};

/* Called once, in the loop. e->code ERR_NONE: done. */
typedef void registry_done(void *arg, const char *uuid, const struct err *e);

/* Makes m->registry, empty: the journal's owners are noted before registry_open. */
int registry_make(struct migrd *m, struct err *e);
/* Loads definitions and finds running domains; blocks (before the loop runs). */
int registry_open(struct migrd *m, struct err *e);
/* Starts polling and events. */
int registry_start(struct migrd *m, struct err *e);
void registry_stop(struct migrd *m);
void registry_close(struct migrd *m);

/* By name, uuid or id; NULL: none. */
struct domain *registry_find(struct registry *r, const char *which);
struct domain *registry_by_uuid(struct registry *r, const char *uuid);
struct domain *registry_first(struct registry *r);

/* "running", "shut off", "migrating", "in doubt", ... */
const char *registry_state(const struct domain *d);
/* What runs, else what is defined; NULL never. */
const Migrd__Domain *registry_definition(const struct domain *d);
bool registry_owned(const struct migrd *m, const struct domain *d);

/* Adds a definition, or replaces that of the same uuid, durably. Takes *def. ERR_EXISTS if name or
 * uuid is taken. `done` may be NULL. */
int registry_define(
    struct migrd *m, Migrd__Domain **def, registry_done *done, void *arg, struct err *e);
/* Makes a transient domain and starts it. Takes *def. */
int registry_create(struct migrd *m, Migrd__Domain **def, bool paused, registry_done *done,
    void *arg, struct err *e);
/* The same without asking the cluster's log: a definition that comes with a migration. */
int registry_define_here(
    struct migrd *m, Migrd__Domain **def, registry_done *done, void *arg, struct err *e);
/* The cluster's log wants it started here, of *def, which is taken, under that epoch; what is
 * defined here stays as it is. */
int registry_start_decided(struct migrd *m, Migrd__Domain **def, uint64_t epoch,
    registry_done *done, void *arg, struct err *e);
int registry_undefine(
    struct migrd *m, struct domain *d, registry_done *done, void *arg, struct err *e);
/* Durably. ERR_STATE if it is not defined here. */
int registry_set_autostart(
    struct migrd *m, struct domain *d, bool on, registry_done *done, void *arg, struct err *e);
/* The first migrd after a boot of the host starts what is marked; after registry_start. */
void registry_autostart_boot(struct migrd *m);
/* -1: refused at once, `done` is not called. What the cluster protects goes through its log. */
int registry_act(struct migrd *m, struct domain *d, enum registry_op op,
    const struct registry_args *args, registry_done *done, void *arg, struct err *e);
const char *registry_op_name(enum registry_op op);

/* Keeps others from acting on it for a while, with `why` (static) as the reason; not across a
 * restart. ERR_STATE if somebody acts on it already. */
int registry_hold(struct domain *d, const char *why, struct err *e);
/* Ends that hold; nothing happens if there is none. */
void registry_unhold(struct migrd *m, const char *uuid, const char *why);

/* `done` when the domain does not exist here any more, or after wait_ms (ERR_TIMEOUT). */
int registry_wait_gone(struct migrd *m, struct domain *d, uint64_t wait_ms, registry_done *done,
    void *arg, struct err *e);

/* --- for migrations --- */

/* ERR_EXISTS if another domain has the name or this one exists here; makes or takes the entry, held
 * by `mig`. */
struct domain *registry_incoming(
    struct migrd *m, const Migrd__Domain *def, struct migration *mig, struct err *e);
/* The same question without an entry: could it come, under that epoch? */
int registry_may_come(
    const struct migrd *m, const Migrd__Domain *def, uint64_t epoch, struct err *e);
/* ERR_EPOCH if what is known here is as new as what is offered. */
int registry_check_epoch(
    const struct migrd *m, const char *name, uint64_t known, uint64_t offered, struct err *e);
/* From now on its memory counts as promised. */
int registry_reserve(struct domain *d, const Migrd__Domain *def, struct err *e);
/* The incoming domain exists now under that id. */
void registry_incoming_started(
    struct migrd *m, struct domain *d, const Migrd__Domain *def, uint64_t epoch, int domid);
/* Owner and epoch as the journal has them now. */
void registry_set_owner(struct migrd *m, struct domain *d, const char *owner, uint64_t epoch);
/* What an operation has made of it: a poll that began before does not know and does not count. */
void registry_set_state(struct migrd *m, struct domain *d, enum hv_state state);
/* It exists no longer in the hypervisor. */
void registry_gone(struct migrd *m, struct domain *d);
/* Ends the hold; runs a policy that waited; may free d. */
void registry_release(struct migrd *m, struct domain *d);
/* Reads the domain's figures again soon. */
void registry_refresh(struct migrd *m);
int registry_next_domid(struct migrd *m);
/* Largest number given so far and owners, from the journal. */
void registry_note_record(
    struct migrd *m, const char *uuid, const char *owner, uint64_t epoch, int domid, bool doubt);
/* Grows with every change: what is read of the host is older than changes with a larger one. */
uint64_t registry_changes(const struct registry *r);
/* What was given away and does not show in figures of the host that were read at `since`. */
struct registry_promises {
    uint64_t committed_kib;          /* memory_kib of all that exists or comes */
    uint64_t memory_kib, huge_kib;   /* of those that are not built yet, or came since; of huge pages */
};
void registry_promised(const struct registry *r, const struct domain *without, uint64_t since,
    struct registry_promises *out);
/* Definitions of all that exists or comes, without that of `uuid`: at most `max`, how many there are. */
size_t registry_others(
    const struct registry *r, const char *uuid, const Migrd__Domain **out, size_t max);
/* An operator says that no other host runs it, in the record of that epoch: counts for a start from
 * there. */
void registry_note_proven(struct migrd *m, const char *uuid, uint64_t epoch);
/* memory_kib of all that exists here, and what incoming ones will still fill; huge pages are not
 * counted. */
void registry_memory(const struct registry *r, const struct domain *without,
    uint64_t *committed_kib, uint64_t *incoming_kib);
/* ERR_MEMORY unless that much more, for `self`, fits beside the reserve. `free_kib`, `total_kib`:
 * the host's. */
/* Of the memory that domains could have, what is kept back: memory-reserve, as far as the host
 * does not have it already as a domain of its own. */
uint64_t registry_kept(const struct migrd *m);
int registry_fits(const struct migrd *m, const struct domain *self, uint64_t free_kib,
    uint64_t total_kib, uint64_t need_kib, struct err *e);

/* Publishes "domain-..." and logs. */
void registry_publish(
    struct migrd *m, const struct domain *d, const char *type, const char *detail);

#endif
