/* SPDX-License-Identifier: ISC */
/*
 * node_internal: what the parts of a node share. One struct cluster owns everything below it. All
 * of it is the loop's; the threads are inside of ring, nodelist, fence and store.
 */
#ifndef CLUSTER_NODE_INTERNAL_H
#define CLUSTER_NODE_INTERNAL_H

#include "cluster/beat.h"
#include "cluster/fence.h"
#include "cluster/node.h"
#include "cluster/nodelist.h"
#include "cluster/record.h"
#include "cluster/ring.h"
#include "cluster/store.h"
#include "cluster/watchdog.h"

#define NODE_PATH_LEN 512
#define CLUSTER_GROUP "migrd-ha" /* of CPG */
#define ACTION_BITS 48           /* an action's id for the host: which core << 48 | the core's id */
#define ACTION_MASK ((UINT64_C(1) << ACTION_BITS) - 1)
#define LIVES_MAX 256u /* cores of one daemon */

/* An event that has to wait until the step that is under way is over; with copies of what it
 * points to. */
struct input {
    struct input *next;
    struct ha_event event;
    void *copy; /* of bytes, text or command */
};

/* A node is being switched off. */
struct fencing {
    struct fencing *next;
    struct cluster *cluster;
    uint64_t id; /* of the action, for cluster_result */
};

struct ask {
    struct ask *next;
    uint64_t id;
    uint64_t until; /* ms; UINT64_MAX: none */
    cluster_answer *done;
    void *arg;
};

struct cluster {
    uv_loop_t *loop;
    struct cluster_host host;
    void *arg;
    char host_name[HA_NAME_LEN], boot_id[HA_UUID_LEN];
    char dir[NODE_PATH_LEN], flight_path[NODE_PATH_LEN];
    unsigned watchdog_ms, starts_at_once, moves_at_once;
    size_t flight_limit;
    uint64_t incarnation; /* of the first core of this daemon */
    unsigned lives;       /* cores so far */
    bool stopped;

    struct nodelist *nodelist;
    struct node_list nodes; /* the newest; n 0: none yet */
    struct corosync_ring *ring;
    struct beat *beat;
    struct store *store;
    struct flight *flight;
    struct fence *fence; /* NULL: none */
    struct fencing *fencings;
    struct watchdog *watchdog; /* NULL: none, or not armed yet */
    char watchdog_path[256];
    bool watchdog_failed;
    char why[500]; /* no core: why */

    /* The core, and NULL what the disk had; or NULL, and one that only reads. */
    struct ha_core *core, *shadow;
    struct ha_config config;     /* of the core; times as this node's token makes them */
    struct ha_times times;       /* in force: the log's, which are those of all nodes */
    struct ha_place place;       /* after the last step */
    uint64_t id_base, id_newest; /* a record's id on the disk is the core's + id_base */
    bool disk_broken;            /* nothing counts as written any more */
    uint64_t revive_at;          /* ms; a core is made then, in place of a dead one or of none */
    bool nodes_wait;             /* another list of nodes waits for the log to be disarmed */
    bool alarmed;                /* in this step */
    unsigned token_said;

    /* steps */
    bool stepping;
    struct input *first, *last;
    uint64_t wake; /* ms; what the core asked for */
    int timer_fd;
    uv_poll_t timer;
    bool timer_made;
    uv_async_t kick; /* something waits */
    uv_timer_t tick; /* deadlines, health */
    uint64_t late_last, late_max, late_said, slow_said, stuck_said;

    /* for a core that is made later */
    struct ha_event view, *domains, capacity;
    size_t n_domains, cap_domains;
    bool has_capacity, quorate;

    /* the log for readers */
    Migrd__HaState *state, *state_before; /* before: may still be read in this event */
    struct ha_place state_place;
    bool state_fresh; /* `local` as well */

    struct ask *asks;
    unsigned n_asks;
    uint64_t next_ask;

    uint64_t failovers;
};

/* --- node.c --- */

/* Now, or after the step that is under way. What it points to is copied where that is needed. */
void node_feed(struct cluster *c, const struct ha_event *event);
/* Always later. False: no memory. */
bool node_wait_feed(struct cluster *c, const struct ha_event *event);
void node_forget_waiting(struct cluster *c);
void node_note(struct cluster *c, bool alarm, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The core, or the one that only reads; NULL: no memory. */
const struct ha_core *node_reader(const struct cluster *c);

void node_on_view(void *arg, const uint32_t *members, unsigned n);
void node_on_quorum(void *arg, bool quorate);
void node_on_message(void *arg, uint32_t from, const uint8_t *bytes, size_t len);

/* --- node_act.c: actions --- */

void node_act(struct cluster *c, const struct ha_action *a);

/* --- node_power.c: fence agents, watchdog --- */

/* fence.conf; what is wrong with it is said. */
void node_open_fence(struct cluster *c, const char *file);
void node_fence(struct cluster *c, const struct ha_action *a);
/* May be petted until then. Armed by the first one after the log has admitted this node. */
void node_watchdog(struct cluster *c, uint64_t deadline);
void node_power_stop(struct cluster *c);
/* After the loop has run its close callbacks. */
void node_power_close(struct cluster *c);

/* --- node_life.c: a core begins --- */

/* A new list of nodes, or the log is disarmed, or a dead core is to be made anew. */
void node_consider(struct cluster *c);
/* Says them, where they are others than before. */
void node_look_at_times(struct cluster *c);
/* Of what the disk had, for reading only. */
int node_make_shadow(struct cluster *c, struct err *e);
/* Incarnation and boot id of this daemon. -1: none can be read. */
int node_identity(struct cluster *c, struct err *e);

/* --- node_ask.c --- */

void node_answered(struct cluster *c, uint64_t id, const Migrd__HaAnswer *answer);
/* Those whose time is up. */
void node_ask_time(struct cluster *c, uint64_t now);
/* The core that was asked is gone, or the node is closed. */
void node_ask_forget(struct cluster *c, bool closing);

/* --- node_read.c --- */

void node_read_event(struct cluster *c);
void node_read_free(struct cluster *c);

#endif
