/* SPDX-License-Identifier: ISC */
/*
 * core: decides where protected domains run. Pure: no clock, socket, file, random number or
 * hypervisor inside; what happened comes in as an event with the time, what is to be done comes
 * out as actions. Cores that were given the same log decide the same. The caller owns the core,
 * an event and all it points to; actions and all they point to belong to the core and are good
 * until its next step. The story of the protocol stands at the top of core.c.
 */
#ifndef CLUSTER_CORE_H
#define CLUSTER_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cluster/ha.pb-c.h"

#define HA_NODES_MAX 32
#define HA_DOMAINS_MAX 4096
#define HA_UUID_LEN 37
#define HA_NAME_LEN 64
#define HA_MESSAGE_MAX (900u << 10) /* of an ordered message; corosync takes 1,047,552 bytes */
#define HA_BEAT_MAX 1400            /* of a beat: one datagram */

struct ha_core;

/*
 * Times in ms, of a clock that counts while the host sleeps. All derive from token and watchdog;
 * the inequality is checked by ha_times_check(): proof >= lease + fuse_check + beat_slack + 1 % of
 * it lease: a node's guests run at most that long after the sending of the newest beat that a
 * majority has acknowledged. proof: how long a voter must not have seen a beat of a node.
 */
struct ha_times {
    unsigned token; /* corosync's */
    unsigned beat;  /* between two beats of a node */
    unsigned lease;
    unsigned fuse_check; /* how late a fuse may blow */
    unsigned slack;      /* rounding, timer latency of the voter */
    unsigned proof;
    unsigned tilt;     /* a step that comes later than that after the one that was asked for:
                          the core doubts itself, forgets what it did not see, and does not vote */
    unsigned ready;    /* a class waits at most that long for the class before */
    unsigned watchdog; /* of the hardware; 0 none */
};

void ha_times_derive(struct ha_times *t, unsigned token, unsigned watchdog);
/* -1: *e has the inequality with its figures and what to change. */
int ha_times_check(const struct ha_times *t, struct err *e);
/* "proof 1680 >= lease 1500 + fuse 50 + slack 100 + 1 % = 1667" and the budget of a failover. */
void ha_times_print(const struct ha_times *t, char *text, size_t size);

struct ha_config {
    uint32_t node; /* corosync's nodeid */
    char name[HA_NAME_LEN];
    uint64_t incarnation; /* differs at each start of the daemon */
    char boot_id[HA_UUID_LEN];
    uint32_t nodes[HA_NODES_MAX]; /* all configured ones: majorities are of these */
    unsigned n_nodes;
    unsigned starts_at_once; /* on one node */
    unsigned moves_at_once;  /* of a drain */
    struct ha_times times;   /* until the log has some: those count on all nodes alike */
    unsigned version;        /* of the protocol; 0: this build's, else a test of a mix */
};

/* --- what happened --- */

enum ha_event_type {
    HA_EV_VIEW,      /* ordered membership: who is in the group, in the order of the log */
    HA_EV_QUORUM,    /* corosync's word; advice only: majorities are counted by the core */
    HA_EV_MESSAGE,   /* an ordered message, own ones too */
    HA_EV_BEAT,      /* an unordered datagram of a node; authenticated */
    HA_EV_TIME,      /* the time that the last step asked for has come, or nothing else did */
    HA_EV_PERSISTED, /* the record `id` is on the disk */
    HA_EV_DOMAIN,    /* a domain on this host changed; level-triggered: repeated ones do no harm */
    HA_EV_HOST,      /* capacity of this host. The first one says as well that all domains that are
                        here have been told: what has not been told by then is not here. The core
                        joins only after it */
    HA_EV_RESULT,    /* of the action `id`: START, STOP, DESTROY, RESUME, MIGRATE, FENCE; a lost one
                        is made good by a DOMAIN, or by time; MIGRATE's by what the hand-over
                        itself tells the log: HANDOVER or MIGRATE_END */
    HA_EV_COMMAND,   /* an operator's, or the hand-over's question; one ANSWER each, at once or when
                        it is decided */
    HA_EV_MAX
};

enum ha_seen {
    HA_SEEN_GONE,
    HA_SEEN_RUNNING,
    HA_SEEN_PAUSED,
    HA_SEEN_INCOMING,
    HA_SEEN_SHUTDOWN,
    HA_SEEN_CRASHED,
    HA_SEEN_MAX
};

struct ha_event {
    enum ha_event_type type;
    union {
        struct {
            uint32_t members[HA_NODES_MAX];
            unsigned n;
        } view;
        bool quorate;
        struct { /* MESSAGE, BEAT */
            uint32_t from;
            const uint8_t *bytes;
            size_t len;
        } message;
        uint64_t id; /* PERSISTED */
        struct {
            char uuid[HA_UUID_LEN];
            uint64_t epoch; /* GONE: of the copy that ended; 0 unknown */
            enum ha_seen seen;
            bool fused;    /* its process obeys a fuse */
            bool by_guest; /* SHUTDOWN: the guest's own wish */
            bool blown;    /* PAUSED: by its fuse */
        } domain;
        struct {
            uint64_t memory_kib; /* for protected domains and all others */
            unsigned cpus;
            uint64_t others_kib; /* used by domains that are not protected */
        } host;
        struct {
            uint64_t id;
            bool ok;
            const char *text; /* why not */
        } result;
        const Migrd__HaCommand *command;
    } u;
};

/* --- what is to be done --- */

enum ha_action_type {
    HA_ACT_SEND,    /* `bytes` as an ordered message */
    HA_ACT_BEAT,    /* `bytes` to `node` */
    HA_ACT_PERSIST, /* `bytes` replaces (whole) or follows what is on the disk; then PERSISTED `id`.
                       In order: `id` says that all before are there too */
    HA_ACT_FUSE,  /* the domain's copy of `epoch` may run until `deadline`, kept for a copy that is
                     just being made; 0: it must stop at once; UINT64_MAX: no limit */
    HA_ACT_START, /* boot it under `epoch` from `bytes`, its definition; what held it before is
                     proved not to run. Its fuse begins as blown: it runs from the first FUSE */
    HA_ACT_STOP,  /* ask the guest, by `deadline` destroy */
    HA_ACT_DESTROY, /* the copy of `epoch`, which must not be; one that is not there is a success */
    HA_ACT_RESUME,  /* paused by its fuse, and still ours */
    HA_ACT_MIGRATE, /* live, to `node` */
    HA_ACT_CANCEL,  /* that migration */
    HA_ACT_FENCE,   /* power-off of `node`, by its agents */
    HA_ACT_ANSWER,  /* to the command `id` */
    HA_ACT_WATCHDOG, /* may be petted until `deadline` */
    HA_ACT_NOTE,     /* a line for the log; `alarm`: for people */
    HA_ACT_MAX
};

struct ha_action {
    enum ha_action_type type;
    uint64_t id;
    char uuid[HA_UUID_LEN];
    uint64_t epoch;
    uint32_t node;
    uint64_t deadline; /* of the same clock as `now` */
    uint64_t quiet_ms; /* START: so long, at least, no copy of it has run; 0 unknown */
    const uint8_t *bytes;
    size_t len;
    bool whole;                    /* PERSIST */
    bool ok;                       /* ANSWER */
    bool alarm;                    /* NOTE */
    const char *text;              /* why: inputs, rejected nodes, timers; never NULL */
    const Migrd__HaAnswer *answer; /* ANSWER */
};

/* They are done in their order; FUSE is a store to memory and done before the next. */
struct ha_actions {
    const struct ha_action *action;
    size_t n;
    uint64_t wake; /* the next step at the latest then */
};

/* --- the core --- */

/* `saved`: what the last PERSISTs left, in their order, each with its length; n 0: a new node. A
 * damaged tail is cut off and said by the caller's reader, never here: bytes that do not parse
 * are refused (NULL, *e). */
struct ha_record {
    const uint8_t *bytes;
    size_t len;
};
struct ha_core *ha_core_new(const struct ha_config *config, const struct ha_record *saved, size_t n,
    uint64_t now, struct err *e);
void ha_core_free(struct ha_core **c);

/* Never fails: what is wrong with an event becomes a NOTE and changes nothing. Out of memory is
 * answered by doing nothing more (`wake` now + beat), fuses then blow by themselves. */
void ha_step(struct ha_core *c, const struct ha_event *e, uint64_t now, struct ha_actions *out);

/* Where the log is, without a copy of it: a state is another one exactly if its place is. */
struct ha_place {
    uint64_t term, index, chain;
    Migrd__HaPhase phase;
    Migrd__HaArmed armed;
    bool joined;
    bool dead; /* out of memory, or a state that can't be: it does nothing more */
};
void ha_core_place(const struct ha_core *c, struct ha_place *out);

/* The following read only; the caller frees with free_unpacked of the type; NULL: no memory. */

/* The times in force; the core's. */
const struct ha_times *ha_core_times(const struct ha_core *c);
/* What the log says: for status, explain, tests. All but `local` is equal on each node that has
 * the same term and index. */
Migrd__HaState *ha_core_state(const struct ha_core *c);
/* The plan if these nodes died now, on the state that the log has. */
Migrd__HaPlan *ha_core_what_if(const struct ha_core *c, const uint32_t *dead, unsigned n);
/* Where this domain could run now, and why not elsewhere. */
Migrd__HaPlan *ha_core_explain(const struct ha_core *c, const char *uuid);
/* Can any k nodes be lost? The plan of the worst ones. */
Migrd__HaPlan *ha_core_certificate(const struct ha_core *c, unsigned k);

#endif
