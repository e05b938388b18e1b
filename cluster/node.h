/* SPDX-License-Identifier: ISC */
/*
 * node: this host's place in the cluster: the decision core with corosync (ring.h), beats (beat.h),
 * its disk (store.h) and its flight record, run in a libuv loop. What is to be done on the host
 * goes out through `struct cluster_host`; what happened comes in by the calls below, all in the
 * loop's thread, none of which blocks. The node is one allocation of cluster_open, its answers
 * belong to it and are good during the callback only; after cluster_close no callback comes.
 */
#ifndef CLUSTER_NODE_H
#define CLUSTER_NODE_H

#include <uv.h>

#include "cluster/core.h"

#define CLUSTER_ADDRESS_LEN 64

/* What the host does for the core. `action` and all it points to: during the call only. */
struct cluster_host {
    /* The copy of `epoch` may run until `deadline` ms of clock_boot_ms(); 0: it must stop at once;
     * UINT64_MAX: no limit. A store to memory; kept for a copy that is just being made. */
    void (*fuse)(void *host, const char *uuid, uint64_t epoch, uint64_t deadline);
    /* START, STOP, DESTROY, RESUME, MIGRATE, CANCEL: begun now, its end told by cluster_result. */
    void (*act)(void *host, const struct ha_action *action);
    /* A line for the log, and for people where `alarm`. */
    void (*note)(void *host, bool alarm, const char *text);
    /* The state of the log has changed: whoever shows it reads it again. */
    void (*changed)(void *host);
};

struct cluster_options {
    const char *host_name;  /* this migrd's; what other nodes call it */
    const char *state_dir;  /* log of the node and flight record: STATE/cluster/ */
    const char *key_file;   /* beats are signed with a key made of it: corosync's authkey */
    const char *fence_file; /* fence.conf: agents of each node; "" none */
    const char *watchdog;   /* "/dev/watchdog"; "" none */
    unsigned watchdog_ms;
    unsigned beat_port;
    unsigned starts_at_once, moves_at_once;
    size_t flight_limit; /* bytes; 0: no flight record */
};

struct cluster;

/* Reads what the disk has, then joins in the background and for ever: corosync that is not there
 * yet, or ends, is waited for. Blocks for the reading only. -1: the disk, or the options; *out is
 * to be closed where it is not NULL. What hinders it later (timers whose inequality does not hold,
 * a node that is not in corosync's list) is said by `note`. Not to be stopped from a callback. */
int cluster_open(uv_loop_t *loop, const struct cluster_options *o, const struct cluster_host *host,
    void *arg, struct cluster **out, struct err *e);
/* Reads the key of the beats again; the one before stays good for nodes that have it still. -1: it
 * stays the only one. */
int cluster_reload(struct cluster *c, struct err *e);
/* Says good-bye to the ring; fuses stay as they are: they blow by themselves. */
void cluster_stop(struct cluster *c);
/* After the loop has run its close callbacks. */
void cluster_close(struct cluster **c);

/* A copy on this host: at start all of them, then each change, then each 2 s (HA_EV_DOMAIN). */
void cluster_domain(struct cluster *c, const struct ha_event *domain);
/* Capacity of this host; the first one says that all copies were told (HA_EV_HOST). */
void cluster_capacity(struct cluster *c, uint64_t memory_kib, unsigned cpus, uint64_t others_kib);
/* The end of the action `id`. `text`: why not; copied. */
void cluster_result(struct cluster *c, uint64_t id, bool ok, const char *text);

#define DECIDED_LATER "not decided within the time given; it may still be"

/* NULL: the node is being closed, nothing was decided as far as is known here. */
typedef void cluster_answer(void *arg, const Migrd__HaAnswer *answer);
/* Asks the log; `command` is copied, its id is given by the node. The answer comes when it is
 * decided: that may be long where there is no majority; `within_ms` (0: for ever) bounds the wait
 * (an answer with ok false and DECIDED_LATER in `text`: it may still be decided). */
int cluster_ask(struct cluster *c, const Migrd__HaCommand *command, unsigned within_ms,
    cluster_answer *done, void *arg, struct err *e);

/* What the log has, for reading; the node's, good until the next event; NULL: no memory. */
const Migrd__HaState *cluster_state(struct cluster *c);
/* Of the state: by uuid, by node id; NULL: none. */
const Migrd__HaDomain *cluster_find(struct cluster *c, const char *uuid);
/* May be marked for it and not known here yet: only after the log was caught up is "no" final. */
bool cluster_is_protected(struct cluster *c, const char *uuid, bool *final);
uint32_t cluster_own_id(const struct cluster *c);
/* Name of a node and the address of its first link; "" unknown. */
const char *cluster_node_name(struct cluster *c, uint32_t id);
const char *cluster_node_address(struct cluster *c, uint32_t id);
uint32_t cluster_node_id(struct cluster *c, const char *name); /* or its number as text; 0 none */

/* The caller frees with migrd__ha_plan__free_unpacked; NULL: no memory. */
Migrd__HaPlan *cluster_what_if(struct cluster *c, const uint32_t *dead, unsigned n);
Migrd__HaPlan *cluster_explain(struct cluster *c, const char *uuid);
Migrd__HaPlan *cluster_certificate(struct cluster *c, unsigned k);

/* For status: times in force with the inequality, and what this node sees of corosync and beats. */
struct cluster_figures {
    struct ha_times times;
    bool ring_up, quorate; /* corosync answers; its own word on quorum */
    char ring_text[200];   /* why it is not up, or not well; beats as well. "" well */
    char votes[160];       /* as corosync counts: "3 of 3 votes, 2 needed"; "" not known */
    uint64_t messages_in, messages_out, beats_in, beats_out, beats_bad;
    uint64_t persist_last_us, persist_max_us; /* one synced write */
    uint64_t late_last_ms, late_max_ms;       /* a step after the time that the core asked for */
    uint64_t failovers;                       /* domains started here that ran elsewhere */
    bool watchdog;                            /* open and fed */
};
void cluster_figures(const struct cluster *c, struct cluster_figures *out);

#endif
