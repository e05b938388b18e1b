/* SPDX-License-Identifier: ISC */
/*
 * world: what the parts of the simulator know of each other; not for others. One struct world
 * owns everything; each part works on its share of it. Time is the world's, in us; `ms` of a node's
 * clock are always named so.
 */
#ifndef CLUSTER_SIM_WORLD_H
#define CLUSTER_SIM_WORLD_H

#include "cluster/core.h"
#include "cluster/sim/rng.h"
#include "cluster/sim/sim.h"

#define MS UINT64_C(1000)
#define COPIES_MAX 8    /* of one domain, over all nodes */
#define INPUTS_MAX 4096 /* waiting for a daemon */
#define DISK_QUEUE_MAX 256
#define MOVES_MAX 32
#define NOBODY UINT32_MAX

struct world;

/* Bytes that several events share. */
struct blob {
    unsigned refs;
    size_t len;
    uint8_t bytes[];
};
struct blob *blob_make(struct world *w, const uint8_t *bytes, size_t len);
struct blob *blob_hold(struct blob *b);
void blob_drop(struct blob *b);

/* --- heap.c: events in the order of (time, seq) --- */

struct event {
    uint64_t at, seq;
    void (*fn)(struct world *w, const struct event *e);
    uint32_t a, b;
    uint64_t x, y;
    struct blob *blob; /* the event's own reference */
};

struct heap {
    struct event *event;
    size_t n, room;
    uint64_t seq;
};

bool heap_push(struct heap *h, const struct event *e);
bool heap_pop(struct heap *h, struct event *e);
void heap_free(struct heap *h);

/* --- ring.c: corosync --- */

enum plane { PLANE_RING = 1, PLANE_BEAT = 2, PLANE_MOVE = 4 };

enum coro_state { CORO_DOWN, CORO_UP, CORO_STOPPED };

struct entry {
    enum { ENTRY_MESSAGE, ENTRY_JOIN, ENTRY_LEAVE, ENTRY_VIEW } kind;
    uint32_t from;
    uint32_t group; /* VIEW */
    uint64_t life;  /* JOIN: of the daemon */
    struct blob *blob;
};

/* Nodes that share a token: one total order. */
struct ring {
    bool used, broken;
    bool torn;        /* some have gone on without the rest: it can't heal */
    bool held;        /* its rest is being delivered: not to be dropped */
    uint32_t members; /* a bit for each node */
    uint64_t id, broken_at, form_gen;
    struct entry *entry;
    size_t n, room;
};

struct corosync {
    enum coro_state state;
    unsigned stops;
    uint64_t starts;
    struct ring *ring;
    size_t delivered;      /* entries of the ring */
    uint64_t deliver_at;   /* of the newest delivery that is on its way */
    uint32_t group;        /* members of the process group, as delivered here */
    uint32_t shown;        /* to the daemon */
    bool in;               /* our daemon's JOIN has been delivered */
    struct entry *waiting; /* sent, not ordered */
    size_t n_waiting, waiting_room;
    bool ordering; /* an event is under way for the first one */
};

/* --- host.c: disk and hypervisor --- */

struct disk_write {
    struct blob *blob;
    uint64_t id;
    bool whole;
};

struct disk {
    struct blob **record; /* durable */
    size_t n, room;
    struct disk_write queue[DISK_QUEUE_MAX];
    unsigned head, n_queue;
    uint64_t stalled_until, gen;
    bool busy;
};

enum copy_state {
    COPY_GONE,
    COPY_STARTING,
    COPY_RUNNING,
    COPY_PAUSED,
    COPY_INCOMING,
    COPY_HELD,
    COPY_ENDED
};

/* A guest's process. STARTING and INCOMING have no guest yet; PAUSED by its fuse; HELD by the
 * hand-over. */
struct copy {
    enum copy_state state;
    uint32_t node, domain;
    uint64_t epoch;
    bool fuse;
    uint64_t fuse_ms;                  /* runs while the clock is before that */
    uint64_t knows;                    /* the domain's writes that are in its memory */
    bool boots;                        /* from its disk */
    bool by_guest;                     /* ENDED */
    bool fresh;                        /* has never run */
    bool paused;                       /* HELD by an operator */
    uint64_t next_epoch, next_fuse_ms; /* a fuse for the epoch that it is about to get */
    bool watched;                      /* an event waits for the fuse */
    uint64_t watch;                    /* which one */
    uint64_t gen;                      /* which events mean this copy */
    uint64_t since;
};

enum op { OP_START, OP_STOP, OP_MOVE, OPS };

/* --- the nodes --- */

struct input {
    struct ha_event event;       /* its pointers are made when it is taken */
    struct blob *blob;           /* MESSAGE, BEAT */
    uint32_t ask;                /* COMMAND */
    uint64_t sent_life, sent_ms; /* BEAT */
};

struct node {
    uint32_t id; /* from 1; index + 1 */
    bool up;     /* the host */
    unsigned pauses, stops;
    uint64_t life; /* of the daemon; 0: none runs */
    uint64_t lives, boots;
    uint64_t boot_at;
    int64_t ppm;
    uint64_t clock_base_ms;
    struct ha_core *core;
    struct ha_config config;
    struct corosync coro;
    struct disk disk;
    struct input *input;
    unsigned in_head, n_in;
    uint64_t busy_until, slow_until, slow_ms;
    bool pumping;
    uint64_t wake_gen;
    unsigned die_after; /* actions; 0 never */
    unsigned die_back_ms;
    unsigned op_fails[OPS], op_lost[OPS];
    uint64_t op_slow_until[OPS];
    unsigned fence_mode;
    uint64_t fence_until, fence_gen;
    uint64_t dog_ms;  /* until when its watchdog was petted; 0 it is not armed */
    uint64_t sick_at; /* when something was last wrong with it */
};

/* A command, and what became of it. */
struct ask {
    enum ask_state { ASK_OPEN, ASK_YES, ASK_NO, ASK_LOST } state;
    bool by_operator, wants; /* SET: want_run */
    bool lie;                /* CONFIRM_DEAD of a node that lives */
    uint32_t via;
    uint64_t life; /* of the daemon that was asked */
    int kind;      /* Migrd__HaCommandKind */
    uint32_t domain, node;
    uint64_t epoch;
    unsigned value, policy;
    uint64_t asked_at;
    uint32_t owner; /* of the answer */
    uint64_t owner_epoch;
    bool moving; /* so says the log */
};

/* What an acknowledged command makes of an object: a domain in the log, a node that is drained. */
struct promise {
    enum { PROMISE_UNKNOWN, PROMISE_NO, PROMISE_YES } is;
    unsigned open;
    uint64_t doubt_until, closed_at;
};

/* The source's step, and what the target knows. Both are in journals: a daemon's death loses
 * neither. */
enum move_step {
    MOVE_BEGIN,
    MOVE_CONNECT,
    MOVE_COPY,
    MOVE_HELD,
    MOVE_ASKED,
    MOVE_GO,
    MOVE_RUNS,
    MOVE_BACK,
    MOVE_ENDING,
    MOVE_DONE,
    MOVE_STEPS
};
enum move_end { END_NONE, END_RECEIVING, END_READY, END_RUNS, END_DISCARDED, END_NEVER };

struct move {
    bool used, by_core, cancelled;
    enum move_step step;
    enum move_end end;
    uint32_t domain, from, to;
    uint64_t epoch;       /* at the source */
    uint64_t action;      /* of the core */
    uint64_t source_life; /* that began it */
    uint64_t target_life, target_gen;
    uint32_t source_ask, target_ask; /* open question, + 1 */
    uint64_t until, target_until;    /* the next step of each */
    bool go;                         /* has reached the target */
};

struct domain {
    char uuid[HA_UUID_LEN];
    struct copy copy[COPIES_MAX];
    bool tainted; /* two copies may run: an operator or a fence device lied */
    bool in_log;
    uint64_t ran_at;    /* when a copy of it last executed, as far as it has stopped */
    uint64_t writes;    /* to its disks: counts the times that a guest began to execute */
    uint64_t top_epoch; /* of any copy */
    uint64_t by_hand;   /* epoch that an operator started it under, beside the log */
    bool may_stop;      /* its guest shut down, or an operator wanted it */
    struct promise added;
};

struct world {
    const struct sim_plan *plan;
    struct sim_outcome *out;
    FILE *log;
    const struct sim_options *opt;
    struct flight *flight;
    uint64_t now;
    bool failed, no_memory, healed;
    struct heap heap;
    struct ha_times times;
    struct node node[SIM_NODES_MAX];
    unsigned nodes;
    struct ring ring[3 * SIM_NODES_MAX];
    uint64_t rings, copies; /* how many there have been */
    bool merging;
    unsigned cut[3][SIM_NODES_MAX][SIM_NODES_MAX]; /* plane, from, to: how many cuts */
    struct domain domain[SIM_DOMAINS_MAX];
    struct move move[MOVES_MAX];
    struct {
        unsigned step, who, back;
        bool on;
    } die[8];
    struct ask *ask;
    uint32_t asks, asks_room;
    struct promise drained[SIM_NODES_MAX], armed;
    struct oracle *oracle;
};

/* --- world.c --- */

enum purpose {
    P_PLAN,
    P_ORDER,
    P_DELIVER,
    P_HIDDEN,
    P_TAIL,
    P_CLIQUE,
    P_FORM,
    P_MERGE,
    P_BEAT,
    P_BEAT_LOSS,
    P_BEAT_TWICE,
    P_BEAT_LATE,
    P_TIMER,
    P_DISK,
    P_DISK_LOST,
    P_BLOW,
    P_START,
    P_STOP,
    P_FENCE,
    P_MOVE,
    P_CLOCK,
    P_BOOT,
    P_LIE,
    P_ID
};

uint64_t draw(struct world *w, unsigned purpose, uint64_t key, uint64_t max);
bool chance_of(struct world *w, unsigned purpose, uint64_t key, unsigned per_thousand);
void at(struct world *w, uint64_t when, void (*fn)(struct world *, const struct event *),
    uint32_t a, uint32_t b, uint64_t x, uint64_t y, struct blob *blob);
void say(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The run ends: an oracle is broken. */
void broken(struct world *w, const char *oracle, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct node *node_of(struct world *w, uint32_t id);
uint64_t clock_ms(const struct world *w, const struct node *n);
/* The first instant at which the node's clock shows ms. */
uint64_t when_ms(const struct world *w, const struct node *n, uint64_t ms);
bool linked(const struct world *w, enum plane plane, uint32_t from, uint32_t to);

#endif
