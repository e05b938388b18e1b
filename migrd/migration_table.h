/* SPDX-License-Identifier: ISC */
/*
 * migration_table: the hand-over of DESIGN.md section 4 as two total tables, state x event
 * -> (next state, one operation), and what to do after a restart. Pure: no clock, socket,
 * journal or hypervisor; migration*.c feeds events in and carries operations out. The
 * same tables drive the model test (tests/unit/test_migration_table.c) and are printed in
 * docs/handover.md. `logged`: the domain is protected, the cluster's log decides whose it is.
 */
#ifndef MIGRATION_TABLE_H
#define MIGRATION_TABLE_H

#include <stdbool.h>

/* Source: this host runs the guest and gives it away. e is its epoch, e+1 the target's. */
enum src_state {
    SRC_STARTING,   /* STARTED is being journalled */
    SRC_CONNECT,    /* worker runs, target has not accepted */
    SRC_PRECOPY,    /* accepted; guest runs */
    SRC_PREPARING,  /* PREPARED(e+1) is being journalled; guest runs */
    SRC_PREPARED,   /* guest paused or about to be; may still resume at e */
    SRC_COMMITTING, /* COMMITTED(e+1) is being journalled */
    SRC_COMMITTED,  /* GO may be out: guest stays paused */
    SRC_QUERYING,   /* no answer came: a worker asks the target */
    SRC_DOUBT,      /* target cannot be asked now: guest stays paused, timer runs */
    SRC_FINISHING,  /* target runs it: DONE is being journalled */
    SRC_CLEANING,   /* our copy is being destroyed */
    SRC_RESUMING,   /* failed before COMMITTED: guest is made to run at e */
    SRC_ABORTING,   /* ABORTED is being journalled */
    SRC_RECLAIMING, /* target will never run it: RECLAIMED(e+2) is being journalled */
    SRC_RETAKING,   /* guest is being resumed at e+2 */
    /* Of a protected domain only: the cluster's log is asked. */
    SRC_BEGINNING,   /* may it move there? */
    SRC_ASKING,      /* hand it over; or, after a restart, whose is it? guest stays paused */
    SRC_LOOKING,     /* committed, and the target is silent: whose is it now? */
    SRC_TAKING_BACK, /* target will never run it: is it ours again, at e+2? */
    SRC_ENDING,      /* failed before the hand-over, guest runs: the log is told */
    SRC_LOST,        /* the log gave it to somebody else: worker is being ended */
    SRC_LOSING,      /* and our copy destroyed */
    SRC_DONE,
    SRC_FAILED,
    SRC_STATE_MAX
};

enum src_event {
    SRC_EV_ACCEPTED,    /* worker: target accepted */
    SRC_EV_WANT_PAUSE,  /* worker */
    SRC_EV_WANT_COMMIT, /* worker: READY came */
    SRC_EV_END_OK,      /* worker ended: RUNNING came from the target */
    SRC_EV_END_RESUMED, /* worker ended: failed, guest runs here again */
    SRC_EV_END_FAILED,  /* worker ended or died otherwise */
    SRC_EV_CANCEL,
    SRC_EV_OP_OK, /* the operation of this state succeeded */
    SRC_EV_OP_FAILED,
    SRC_EV_ANS_RUNNING,  /* target: owner since e+1 */
    SRC_EV_ANS_PREPARED, /* target: holds it, could not start it yet */
    SRC_EV_ANS_NEVER,    /* target: durably given up, or never heard of it */
    SRC_EV_ANS_NONE,     /* no answer */
    SRC_EV_TIMER,
    SRC_EV_RESOLVE_RUN,     /* operator: run it here */
    SRC_EV_RESOLVE_DISCARD, /* operator: it runs there, drop our copy */
    SRC_EV_GUEST_GONE,      /* our copy ended or its process died */
    SRC_EV_LOG_OURS,        /* the log: it is ours, at e */
    SRC_EV_LOG_BACK,        /* ours again, at e+2 */
    SRC_EV_LOG_THEIRS,      /* the target's, at e+1 */
    SRC_EV_LOG_ELSE,        /* somebody else's, or of a later life */
    SRC_EV_LOG_NONE,        /* nothing is decided now */
    SRC_EVENT_MAX
};

/* Target: this host is filled and runs the guest after GO. */
enum tgt_state {
    TGT_WAIT,         /* worker has the socket, no offer yet */
    TGT_CHECKING,     /* the offer is being checked */
    TGT_STARTING,     /* the incoming domain is being made */
    TGT_PREPARING,    /* PREPARED(e+1) is being journalled */
    TGT_RECEIVING,    /* memory comes in */
    TGT_READYING,     /* READY is being noted */
    TGT_READY,        /* complete and verified; runs on GO only */
    TGT_RUN_JOURNAL,  /* RUNNING(e+1) is being journalled */
    TGT_RUN_GUEST,    /* guest is being resumed */
    TGT_RUNNING,      /* owner */
    TGT_DOUBT,        /* READY, but the source is gone: held paused */
    TGT_DROP_WAIT,    /* given up; worker is being ended */
    TGT_DROP_JOURNAL, /* DISCARDED is being journalled */
    TGT_DROP_GUEST,   /* the copy is being destroyed */
    TGT_DONE,
    TGT_REFUSED,
    TGT_DISCARDED,
    TGT_STATE_MAX
};

enum tgt_event {
    TGT_EV_OFFER,
    TGT_EV_WANT_READY,
    TGT_EV_GO,
    TGT_EV_END_OK, /* worker ended */
    TGT_EV_END_FAILED,
    TGT_EV_CANCEL,
    TGT_EV_OP_OK,
    TGT_EV_OP_FAILED,
    TGT_EV_OP_DENIED,   /* of MT_J_RUNNING: the storage keeps the disks from this host */
    TGT_EV_QUERY,       /* the source asks, no more */
    TGT_EV_QUERY_GO,    /* the source has COMMITTED */
    TGT_EV_QUERY_ABORT, /* the source runs it again and never committed */
    TGT_EV_RESOLVE_RUN,
    TGT_EV_RESOLVE_DISCARD,
    TGT_EV_GUEST_GONE,
    TGT_EV_LOG_OURS, /* the log: it is ours, at e+1 */
    TGT_EV_LOG_ELSE, /* never ours, or no longer */
    TGT_EV_LOG_NONE, /* the source's still, or nothing is decided now */
    TGT_EV_TIMER,
    TGT_EVENT_MAX
};

/* One operation per cell. Those marked (result) end in OP_OK or OP_FAILED, and while they run
 * the state's other cells are MT_DEFER. At the target MT_J_RUNNING may end in OP_DENIED. */
enum mt_op {
    MT_UNSET,     /* never in a table: a test looks for it */
    MT_NONE,      /* nothing to do, on purpose */
    MT_DEFER,     /* the event waits until the state changes */
    MT_REFUSE,    /* tell who asked that it cannot be done now */
    MT_VIOLATION, /* a worker breaks the order: it is killed, its end follows */
    MT_BUG,       /* cannot come here: logged, ignored */
    MT_SPAWN,     /* start the worker */
    MT_STEP_YES,
    MT_STEP_NO,
    MT_CANCEL, /* ask the worker to stop */
    MT_KILL,   /* kill the worker; END_FAILED follows, at once if there is none */
    MT_ARM,    /* start the back-off timer */
    MT_QUERY,  /* make sure that our copy is paused, then ask the target with go */
    MT_ANSWER, /* answer the query by state */
    MT_VERDICT_YES,
    MT_VERDICT_NO,
    MT_CLOSE, /* ended: final report */
    /* Questions to the cluster's log, which end in an event of the log; those marked (result), in
     * OP_OK, OP_FAILED or LOG_NONE. */
    MT_FIRST_LOG_,
    MT_L_BEGIN = MT_FIRST_LOG_, /* (result) HA_MIGRATE_BEGIN */
    MT_L_HANDOVER,
    MT_L_OWNER,
    MT_L_TAKE_BACK,
    MT_L_END,      /* (result) HA_MIGRATE_END */
    MT_L_WAIT,     /* ask again soon: TIMER */
    MT_FIRST_RESULT_,
    MT_J_STARTED = MT_FIRST_RESULT_, /* (result) MT_J_: a journal record */
    MT_J_PREPARED,
    MT_J_COMMITTED,
    MT_J_DONE,
    MT_J_ABORTED,
    MT_J_RECLAIMED,
    MT_J_READY,
    MT_J_RUNNING,
    MT_J_DISCARDED,
    MT_CHECK,      /* (result) */
    MT_START,      /* (result) hv start incoming */
    MT_RESUME,     /* (result) source: at e; target: at e+1 */
    MT_RESUME_NEW, /* (result) at e+2 */
    MT_DESTROY,    /* (result) */
    MT_OP_MAX
};

struct mt_cell {
    unsigned char next, op;
};

struct mt_cell mt_source(bool logged, enum src_state s, enum src_event ev);
struct mt_cell mt_target(bool logged, enum tgt_state s, enum tgt_event ev);

const char *mt_source_state_name(enum src_state s);
const char *mt_source_event_name(enum src_event ev);
const char *mt_target_state_name(enum tgt_state s);
const char *mt_target_event_name(enum tgt_event ev);
const char *mt_op_name(enum mt_op op);

/* It waits for an answer of the log. */
bool mt_source_asks(enum src_state s);
/* Nothing comes after these but late events. */
bool mt_source_final(enum src_state s);
bool mt_target_final(enum tgt_state s);
/* The guest must not be started, resumed or destroyed by anybody else. */
bool mt_source_committed(enum src_state s);

/* --- journal steps, and the restart tables --- */

enum mt_step {
    STEP_STARTED,
    STEP_PREPARED,
    STEP_COMMITTED,
    STEP_DONE,      /* source: the target runs it */
    STEP_ABORTED,   /* final */
    STEP_RECLAIMED, /* source: ours again at e+2 */
    STEP_READY,     /* target */
    STEP_RUNNING,   /* target */
    STEP_DISCARDED, /* target */
    STEP_CLOSED,    /* final: nothing is left to do */
    STEP_MAX
};

const char *mt_step_name(enum mt_step s);
int mt_step_parse(const char *word); /* -1: no such step */

/* The copy that a restarted migrd finds here. */
enum mt_copy { COPY_ABSENT, COPY_HELD /* paused, incoming, stopped */, COPY_RUNS, COPY_MAX };

/* State to enter and operation to begin with; SRC_DONE/SRC_FAILED and MT_CLOSE: nothing to do. */
struct mt_cell mt_source_restart(bool logged, enum mt_step last, enum mt_copy copy);
struct mt_cell mt_target_restart(bool logged, enum mt_step last, enum mt_copy copy);

#endif
