/* SPDX-License-Identifier: ISC */
/*
 * core_internal: what the parts of the decision core share. One struct ha_core owns everything
 * below it; nothing here has a life of its own. `struct ha_state` is the replicated half: it is
 * changed by applying entries of the log and by nothing else. The rest is what this node knows by
 * itself. Memory of a step (actions, messages that came in) is the arena's and ends with the next
 * step; an allocation that fails jumps out of the step, and the core does nothing any more.
 */
#ifndef CLUSTER_CORE_INTERNAL_H
#define CLUSTER_CORE_INTERNAL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cluster/core.h"

#define HA_VERSION 1u
#define HA_OLDEST 1u /* what a node must understand to take part in a comparison */
#define HA_LOG_TIMES 6
#define HA_WHY_LEN 240
#define HA_GROUP_LEN 32
#define HA_FAILED_MAX 8 /* nodes on which a domain failed, that are remembered */
#define HA_LOSSES_MAX 3 /* losses of a node within an hour, then it is quarantined */
#define HA_PREFERRED_MAX 8
#define HA_TAIL_MAX 2048u /* entries that are not committed */
#define HA_REQUESTS_MAX 128u
#define HA_DEFINITION_MAX (64u << 10)
#define HA_STATE_MAX (64u << 20) /* packed */
#define HA_NEVER UINT64_MAX

/* --- memory --- */

struct ha_block;
struct ha_arena {
    struct ha_block *block;
    jmp_buf *oom;
};

void arena_init(struct ha_arena *a, jmp_buf *oom);
/* Keeps one block of an ordinary size. */
void arena_reset(struct ha_arena *a);
void arena_free(struct ha_arena *a);
/* Zeroed; never NULL. */
void *arena_alloc(struct ha_arena *a, size_t n);
char *arena_text(struct ha_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For protobuf-c's unpack: no free needed. */
ProtobufCAllocator arena_protobuf(struct ha_arena *a);
/* realloc that never returns NULL. */
void *arena_keep(struct ha_arena *a, void *old, size_t n);

/* snprintf that cuts; returns buf. */
char *ha_text(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* --- the replicated state --- */

struct ha_policy {
    unsigned class;
    unsigned max_restarts, window_s;
    unsigned failback_min;
    bool restart_on_shutdown;
    unsigned ready_s;
    uint32_t preferred[HA_PREFERRED_MAX], only[HA_NODES_MAX];
    unsigned n_preferred, n_only;
    char together[HA_GROUP_LEN], apart[HA_GROUP_LEN];
    bool together_hard, apart_hard;
    unsigned stop_s, start_s;
};

struct ha_failure {
    uint32_t node;
    unsigned count;
    uint64_t since;
};

typedef Migrd__HaDomainState ha_dstate;
#define DS(x) MIGRD__HA_DOMAIN_STATE__DOMAIN_##x
#define DS_MAX 9
typedef Migrd__HaNodeState ha_nstate;
#define NS(x) MIGRD__HA_NODE_STATE__NODE_##x
#define NS_MAX 5
typedef Migrd__HaSeen ha_seen_t;
#define SEEN(x) MIGRD__HA_SEEN__SEEN_##x
typedef Migrd__HaProof ha_proof;
#define PROOF(x) MIGRD__HA_PROOF__PROOF_##x
#define ARMED(x) MIGRD__HA_ARMED__##x
#define MOVE(x) MIGRD__HA_MOVE__MOVE_##x
#define KIND(x) MIGRD__HA_COMMAND_KIND__HA_##x
#define PHASE(x) MIGRD__HA_PHASE__PHASE_##x

struct ha_domain { /* fields as in ha.proto */
    char uuid[HA_UUID_LEN], name[HA_NAME_LEN];
    uint64_t epoch;
    uint32_t owner;
    ha_dstate state;
    bool want_run;
    struct ha_policy policy;
    uint64_t memory_kib;
    unsigned vcpus;
    uint8_t *definition;
    size_t definition_len;
    ha_seen_t seen;
    bool obeys_fuse, fused;
    ha_proof proof;
    uint32_t to, from;
    Migrd__HaMove move;
    bool cancel;
    uint32_t origin;
    unsigned failures;
    struct ha_failure failed[HA_FAILED_MAX];
    unsigned n_failed;
    uint64_t since, not_before;
    char why[HA_WHY_LEN];
    bool blocked, awaits;
    uint32_t old[HA_NODES_MAX], unsure[HA_NODES_MAX];
    unsigned n_old, n_unsure;
    bool reread;
    uint64_t asked;
    bool from_fused;
    uint64_t quiet;
    uint64_t given_at; /* not replicated: when this core applied `epoch`; 0 it came with a state */
};

struct ha_node {
    uint32_t id;
    char name[HA_NAME_LEN];
    ha_nstate state;
    bool member;
    uint64_t incarnation, life, floor;
    char boot_id[HA_UUID_LEN];
    unsigned version;
    uint64_t request;
    uint64_t memory_kib;
    unsigned cpus;
    uint64_t others_kib;
    unsigned starts_at_once, moves_at_once, ready;
    uint32_t votes[HA_NODES_MAX];
    unsigned n_votes;
    bool drain, fencing, holds;
    uint64_t losses[HA_LOSSES_MAX];
    unsigned n_losses;
    uint64_t quarantined, since, quiet;
    char why[HA_WHY_LEN];
};

struct ha_state {
    unsigned version;
    uint64_t term, index, chain, time;
    uint32_t nodes[HA_NODES_MAX]; /* configured, sorted */
    unsigned n_nodes;
    Migrd__HaArmed armed;
    uint32_t times[HA_LOG_TIMES];      /* [0] 0: none yet */
    struct ha_node node[HA_NODES_MAX]; /* sorted by id */
    unsigned n_node;
    struct ha_domain **domain; /* sorted by uuid */
    unsigned n_domains, cap;
    size_t definitions; /* bytes of all */
    uint64_t wake;      /* derived: log time at which something changes by itself; HA_NEVER none */
};

void state_init(struct ha_state *s);
void state_dispose(struct ha_state *s);
struct ha_node *state_node(const struct ha_state *s, uint32_t id);
/* Makes it; NULL if there are too many. */
struct ha_node *state_node_add(struct ha_state *s, uint32_t id);
struct ha_domain *state_domain(const struct ha_state *s, const char *uuid);
struct ha_domain *state_domain_add(struct ha_state *s, struct ha_arena *a, const char *uuid);
void state_domain_remove(struct ha_state *s, struct ha_domain *d);
void state_define(struct ha_state *s, struct ha_domain *d, struct ha_arena *a,
    const ProtobufCBinaryData *definition);
/* As a message, in the arena, strings shared with the state. */
Migrd__HaState *state_message(const struct ha_state *s, struct ha_arena *a);
Migrd__HaDomain *domain_message(const struct ha_domain *d, struct ha_arena *a);
/* Into an initialised empty state; -1: it breaks a limit, *e. */
int ha_state_parse(
    struct ha_state *s, struct ha_arena *a, const uint8_t *bytes, size_t len, struct err *e);
void policy_read(struct ha_policy *p, const Migrd__HaPolicy *m);
bool state_majority(const struct ha_state *s, unsigned n);
/* Copies text, cut to size. */
void ha_copy(char *to, size_t size, const char *from);
bool ha_uuid_ok(const char *uuid);
/* Where a uuid is, or would be, in a sorted list of pointers to what begins with one. */
unsigned ha_uuid_place(const void *list, unsigned n, const char *uuid, bool *found);
bool ha_node_in(const uint32_t *list, unsigned n, uint32_t id);

/* --- what this node knows of a domain --- */

enum ha_op { OP_NONE, OP_START, OP_STOP, OP_DESTROY, OP_RESUME };

struct ha_local {
    char uuid[HA_UUID_LEN];
    /* observed */
    bool here;
    enum ha_seen seen;
    uint64_t epoch;
    bool fused, by_guest, blown;
    uint64_t gone_at;    /* ms; when it ended */
    uint64_t gone_epoch; /* the copy that ended last; 0 unknown */
    uint64_t ran_epoch;  /* the newest under which it was seen to run */
    /* on its way */
    enum ha_op op;
    uint64_t op_id, op_epoch, op_at;
    uint64_t retry_at;            /* not before: an action that failed, or has been done */
    uint64_t move_id, move_epoch; /* move_id: 0 its result is there */
    uint64_t move_since;          /* of the record: a result may be lost, and the next one alike */
    uint32_t move_to;
    bool moved, ending; /* the result has come; the log is being told */
    bool cancelled;
    /* the log told this incarnation to start that epoch, which has not been begun */
    uint64_t told_epoch, told_at, told_quiet;
    uint64_t begun_epoch;     /* no epoch is started twice */
    uint64_t failed_epoch;    /* its start failed: `text` */
    uint64_t unstopped_epoch; /* its guest did not shut down when it was asked */
    uint64_t stuck_epoch;     /* its end failed */
    char text[160];
    bool left; /* it ran before this daemon was admitted: one before may have lit its fuse */
    uint64_t fuse_epoch, fuse_deadline; /* the newest that went out; 0: none by this daemon */
    uint64_t noted_epoch;               /* a stray copy that was said already */
    bool dirty, tell;
};

/* --- leases --- */

#define HA_BEATS_KEPT 128u

struct ha_peer {
    uint32_t node;
    /* its beats */
    uint64_t heard; /* last one of its newest incarnation, acknowledged or not */
    uint64_t seen;  /* last one that we acknowledge; or its admission, or our doubt */
    uint64_t seq, incarnation, life; /* that we acknowledge; 0 none */
    uint64_t voted_incarnation, voted_life;
    uint64_t known_incarnation, known_life; /* the newest that the log has admitted */
    /* its acknowledgements of ours */
    uint64_t acked_seq, acked_at; /* acked_at: when we sent it */
    uint64_t echo;                /* it said that it hears us, whatever our life counts for */
    bool lied;                    /* alarm was given */
};

struct ha_lease {
    struct ha_peer peer[HA_NODES_MAX]; /* slot as in the configuration */
    uint64_t life, seq;
    uint64_t sent[HA_BEATS_KEPT];
    uint64_t next_beat;
    uint64_t until;
    bool valid;        /* as of the last step */
    bool rejoin;       /* somebody hears us whose vote stands in the way */
    uint64_t asked_at; /* for this life */
    uint64_t began;    /* this life */
    uint64_t pause;    /* between lives that did not last */
    uint64_t again_at; /* not before, where a life has ended */
    bool asked;        /* by this daemon, for a life */
    uint64_t tilt_until;
    uint64_t warned;
};

/* --- the log --- */

struct ha_tail {
    uint64_t index, chain;
    uint8_t *bytes;
    size_t len;
};

struct ha_sync {
    bool have, same_nodes, blank;
    uint64_t incarnation, promise, term, index, chain;
};

struct ha_pending_ack {
    uint64_t id, term, index, chain;
};

struct ha_log {
    Migrd__HaPhase phase;
    uint64_t promise, promise_id; /* promise_id: SYNC goes out when that is on the disk; 0 none */
    uint64_t term, index, chain;  /* newest accepted */
    bool blank;
    struct ha_tail *tail; /* accepted, not applied: [head, head + n) */
    unsigned head, n, cap;
    uint32_t members[HA_NODES_MAX];
    unsigned n_members;
    struct ha_sync sync[HA_NODES_MAX]; /* by slot, newest since the view */
    uint64_t acked[HA_NODES_MAX];      /* by slot, in this term */
    uint64_t deadline, wait;           /* of the comparison */
    bool closed;                       /* our close was sent */
    /* an install that comes in */
    uint32_t donor;
    unsigned part;
    uint8_t *bytes;
    size_t len;
    /* the disk */
    uint64_t persist_id, persisted;
    struct ha_pending_ack pending[64];
    unsigned n_pending;
    struct ha_pending_ack acked_own; /* the newest that was sent */
    uint64_t ack_again;
    size_t written, whole; /* bytes since the last whole record, and of that */
    bool out;              /* the cluster speaks a newer version than this node: `why` */
    char why[HA_WHY_LEN];
};

struct ha_request {
    uint64_t request, command_id, sent_at, tried_at; /* tried_at: being the first of them */
    Migrd__HaCommandKind kind;
    char uuid[HA_UUID_LEN];
    uint64_t epoch;
    uint32_t node;
    bool answer;
    uint32_t vote; /* on this node; 0: something else */
    bool *busy;    /* NULL, or false again when it is decided */
    char warning[HA_WHY_LEN];
    uint8_t *bytes;
    size_t len;
};

struct ha_fence {
    uint32_t node;
    uint64_t id, incarnation, life, retry_at;
};

struct ha_core {
    struct ha_config config; /* its times: those in force */
    struct ha_times own_times;
    unsigned me; /* slot */
    struct ha_arena arena;
    jmp_buf oom;
    bool dead;
    uint64_t now, expected; /* expected: the next step at the latest, as was asked for */
    bool stepped;
    bool quorate;

    struct ha_action *action;
    size_t n_actions, cap_actions;
    uint64_t next_id;

    struct ha_state state;
    uint64_t applied_at; /* `now` when state.time was current */
    struct ha_log log;
    struct ha_lease lease;

    struct ha_request *request; /* in their order */
    unsigned n_requests;
    uint64_t last_request;
    bool reporting, ticking, joining;
    bool joined; /* the log has admitted this life */

    bool host_known;
    uint64_t memory_kib, others_kib;
    unsigned cpus;
    bool host_changed;
    struct ha_local **local; /* sorted by uuid */
    unsigned n_local, cap_local;
    bool all_dirty, any_dirty, telling;
    uint64_t look_again; /* at all of them, whatever came or did not */
    uint64_t pet_at;
    struct ha_fence fence[HA_NODES_MAX];

    /* the outcome of the entry that is being applied, for whoever asked */
    bool ok;
    char said[400];
    bool rehearsal; /* state is a copy: nothing is told to anybody */
};

/* --- core.c --- */

struct ha_action *core_act(struct ha_core *c, enum ha_action_type type);
uint64_t core_id(struct ha_core *c);
void core_note(struct ha_core *c, bool alarm, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* -1: not configured. */
int core_slot(const struct ha_core *c, uint32_t node);
unsigned core_majority(const struct ha_core *c);
uint64_t core_log_time(const struct ha_core *c);
bool core_active(const struct ha_core *c);

/* --- core_log.c --- */

int log_load(struct ha_core *c, const struct ha_record *saved, size_t n, struct err *e);
void log_dispose(struct ha_core *c);
void log_view(struct ha_core *c, const uint32_t *members, unsigned n);
void log_message(struct ha_core *c, uint32_t from, const uint8_t *bytes, size_t len);
void log_persisted(struct ha_core *c, uint64_t id);
void log_time(struct ha_core *c);
uint64_t log_wake(const struct ha_core *c);
/* This node is too old for what the others have: it stays out. */
void log_out(struct ha_core *c, const char *text);
void log_send(struct ha_core *c, Migrd__HaMessage *m);

/* --- core_sync.c: members compare what they have --- */

void sync_view(struct ha_core *c);
void sync_send(struct ha_core *c, bool close);
void sync_message(struct ha_core *c, unsigned slot, uint64_t incarnation, const Migrd__HaSync *m);
void sync_time(struct ha_core *c);
void sync_again(struct ha_core *c, uint64_t promise);
void sync_install(struct ha_core *c, uint32_t from, const Migrd__HaInstall *m);

/* used by both */
void log_append(struct ha_core *c, const uint8_t *bytes, size_t len);
uint64_t log_persist(struct ha_core *c, const Migrd__HaRecord *r, bool whole);
void log_ack_later(struct ha_core *c, uint64_t id);
int log_snapshot_read(
    struct ha_core *c, const Migrd__HaSnapshot *s, uint64_t index, uint64_t chain, struct err *e);
Migrd__HaSnapshot *log_snapshot(struct ha_core *c);

/* --- core_request.c: own proposals --- */

bool request_room(const struct ha_core *c);
/* Room was asked for. `command`: gets the answer; `busy`: NULL, or true until it is decided. */
void request_send(
    struct ha_core *c, Migrd__HaEntry *e, const Migrd__HaCommand *command, bool *busy);
void request_resend(struct ha_core *c);
void request_applied(struct ha_core *c, uint64_t request);
void request_settle(struct ha_core *c);
/* A term has begun. */
void request_forget_votes(struct ha_core *c, void (*forgotten)(struct ha_core *c, uint32_t node));
void request_time(struct ha_core *c);
void request_dispose(struct ha_core *c);
void request_answer(struct ha_core *c, uint64_t id, const char *uuid, bool ok, const char *text,
    const char *warning, Migrd__HaPlan *plan);

/* --- core_lease.c --- */

void lease_init(struct ha_core *c);
void lease_beat(struct ha_core *c, uint32_t from, const uint8_t *bytes, size_t len);
void lease_tilt(struct ha_core *c);
void lease_time(struct ha_core *c);
uint64_t lease_wake(const struct ha_core *c);
void lease_admitted(struct ha_core *c, uint32_t node);
/* This node takes part in a new term. */
void lease_term(struct ha_core *c);
bool lease_valid(const struct ha_core *c);
/* As a JOIN and the state have them. */
void lease_times(const struct ha_times *t, uint32_t *list);
/* The log has admitted this node, under that life. */
void lease_begins(struct ha_core *c, uint64_t life);
/* A majority has acknowledged this life, and the log does not know it yet. */
bool lease_news(const struct ha_core *c);

/* --- core_apply.c --- */

void apply_entry(struct ha_core *c, const Migrd__HaEntry *e);
/* A domain's record changed: the owner looks at it at the end of the step. */
void apply_touch(struct ha_core *c, const struct ha_domain *d);

/* --- core_node.c --- */

enum ha_node_event { NE_JOIN, NE_ENTER, NE_LEAVE, NE_EXPIRE, NE_FENCE, NE_MAX };
/* False: the event changes nothing in this state. */
bool node_event(struct ha_core *c, struct ha_node *n, enum ha_node_event e, ha_proof proof);
void node_join(struct ha_core *c, const Migrd__HaEntry *e);
void node_term(struct ha_core *c, const Migrd__HaTerm *t);
void node_expired(struct ha_core *c, const Migrd__HaEntry *e);
void node_fenced(struct ha_core *c, uint32_t id, uint64_t incarnation, uint64_t life,
    ha_proof proof, const char *text);
void node_host(struct ha_node *n, const Migrd__HaJoin *j);
void node_holds(struct ha_node *n);
const char *node_state_name(ha_nstate s);

/* --- core_domain.c --- */

enum ha_domain_event {
    DE_RUNS,     /* the owner has it, running or paused */
    DE_GONE,     /* the owner does not have it */
    DE_SHUTDOWN, /* the guest ended by its own wish */
    DE_CRASHED,  /* it ended otherwise, its remains are there */
    DE_FAILED,   /* it could not be started, nothing is there */
    DE_STUCK,    /* it could not be stopped */
    DE_NEVER_RAN,
    DE_LOST,      /* a proof says that the owner does not run it */
    DE_FROM_GONE, /* who handed it over cannot take it back */
    DE_MIGRATE,   /* from here on: what is decided about it */
    DE_MIGRATE_END,
    DE_HANDOVER,
    DE_TAKE_BACK,
    DE_PLACE,
    DE_STOP, /* it is to end */
    DE_MAX
};

struct ha_domain_change { /* what an event brings along */
    uint32_t node;
    ha_proof proof;
    uint64_t quiet; /* of a lease */
    const char *text;
    bool fused;
    ha_seen_t seen;
};

/* False: refused in this state, nothing is changed. */
bool domain_event(struct ha_core *c, struct ha_domain *d, enum ha_domain_event e,
    const struct ha_domain_change *change);
void domain_report(
    struct ha_core *c, const struct ha_node *n, const Migrd__HaObservation *o, uint64_t applied);
const char *domain_state_name(ha_dstate s);
const char *proof_name(ha_proof p);
bool domain_occupies(const struct ha_domain *d); /* its owner's memory */
/* That node has no copy but one that the record orders. */
void domain_clean(struct ha_domain *d, uint32_t node);
/* All must say whether they have one. */
void domain_ask(const struct ha_state *s, struct ha_domain *d);
/* It may have to do with a copy of it: owner, source of a hand-over, or an older owner. */
bool domain_concerns(const struct ha_domain *d, uint32_t node);
void domain_why(struct ha_domain *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- core_command.c --- */

void command_event(struct ha_core *c, const Migrd__HaCommand *m);
void command_apply(struct ha_core *c, struct ha_node *by, const Migrd__HaCommand *m);
/* The outcome of a request whose entry was applied elsewhere, by what the state says. */
bool command_outcome(struct ha_core *c, const struct ha_request *r, char *text, size_t size);

/* --- core_decide.c --- */

void decide(struct ha_core *c);

/* --- core_plan.c --- */

#define HA_BUSY (-1) /* a place is there, but it has enough to do */
struct ha_plan {
    const struct ha_state *s;
    struct ha_arena *arena;
    uint32_t *at;                /* by domain: the node that holds it; 0 none */
    uint64_t used[HA_NODES_MAX]; /* KiB, by position in s->node */
    unsigned starting[HA_NODES_MAX];
    bool down[HA_NODES_MAX];
    bool ignore_busy;
};

void plan_init(struct ha_plan *p, const struct ha_state *s, struct ha_arena *a);
/* The best node's id, 0 none. *busy: there is one, later. `text` has why, HA_WHY_LEN; `step`: NULL
 * or gets each rejected node. `not_here`: a move: the place must be better than or other than the
 * owner. */
uint32_t plan_pick(struct ha_plan *p, const struct ha_domain *d, uint32_t not_here, bool *busy,
    char *text, Migrd__HaPlanStep *step);
/* May it be moved there? What failed there of late is no reason. False: text, HA_WHY_LEN, has why
 * not, to be read after "node 3". */
bool plan_move(const struct ha_state *s, struct ha_arena *a, const struct ha_domain *d,
    uint32_t node, char *text);
/* Takes it there. */
void plan_put(struct ha_plan *p, unsigned i, uint32_t node);
Migrd__HaPlan *plan_certificate(const struct ha_state *s, struct ha_arena *a, unsigned k);
unsigned plan_rank(const struct ha_policy *p, uint32_t node);

/* --- core_host.c: this node's domains --- */

struct ha_local *host_local(struct ha_core *c, const char *uuid, bool make);
void host_event_domain(struct ha_core *c, const struct ha_event *e);
void host_event_host(struct ha_core *c, const struct ha_event *e);
void host_event_result(struct ha_core *c, const struct ha_event *e);
/* Fuses after the lease went on. */
void host_fuses(struct ha_core *c);
void host_reconcile(struct ha_core *c);
void host_time(struct ha_core *c);
bool host_rebels(const struct ha_core *c); /* a copy runs whose fuse has burnt */
void host_dispose(struct ha_core *c);

#endif
