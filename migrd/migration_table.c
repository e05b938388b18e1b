/* SPDX-License-Identifier: ISC */
/*
 * The story, source | target:
 *
 *   STARTING -> CONNECT ............... | WAIT -> CHECKING -> STARTING -> PREPARING
 *   PRECOPY  (guest runs) ............. | RECEIVING
 *   PREPARING -> PREPARED (paused) .... | READYING -> READY
 *   COMMITTING -> COMMITTED, then GO .. | RUN_JOURNAL -> RUN_GUEST -> RUNNING
 *   FINISHING -> CLEANING -> DONE ..... | DONE
 *
 * Failure before COMMITTED: RESUMING -> ABORTING -> FAILED | DROP_* -> DISCARDED, or, once
 * READY, DOUBT: the target cannot know whether the source committed, so it holds the
 * paused copy until the source says go or abort, or an operator does.
 * Failure after COMMITTED: QUERYING, DOUBT and back by timer. The guest stays paused until
 * the target says that it runs (FINISHING) or never will (RECLAIMING -> RETAKING).
 *
 * Why two copies never run. The target runs only after GO or a query with go, both of
 * which the source sends only after COMMITTED is durable and while its own copy is
 * paused (MT_QUERY pauses it again if need be). From COMMITTED the source resumes only
 * through RECLAIMED, which needs the target's word that it never will run it, given after
 * DISCARDED is durable there, or an operator's. An operator's word at either side is weaker than a
 * lease: the disks are claimed before the record of it, and a living owner keeps them (leases.md).
 *
 * A protected domain (`logged`) has the cluster's log above both journals:
 *
 *   STARTING -> BEGINNING -> CONNECT      the log knows where it goes
 *   PREPARED -> ASKING -> COMMITTING      the log gives it away, e -> e+1; only then COMMITTED, GO
 *   QUERYING -> TAKING_BACK -> RECLAIMING the log gives it back, e+1 -> e+2
 *   RESUMING -> ENDING -> ABORTING        the log is told that it failed
 *   LOST -> LOSING -> ABORTING            the log gave it to somebody else: our copy goes
 *   COMMITTED or DOUBT -> LOOKING -> QUERYING   the log is asked before the target is
 *
 * In ASKING the guest stays paused until the log has answered, however long that takes. A target in
 * DOUBT asks it too, and runs or drops its copy by its word; operators have none. The log's record
 * makes up for one of COMMITTED that could not be written: a restart in PREPARED asks it.
 *
 * Rows whose operation has a result defer everything but the result: so a worker that dies
 * while a record is being written is seen only after the record's fate is known.
 */
#include "migrd/migration_table.h"

#include <string.h>

#define C(n, o)                                                                                    \
    {                                                                                              \
        (n), (o)                                                                                   \
    }
/* The state stays. */
#define DEFERS(s) C(s, MT_DEFER)

/* A worker's event where no worker can be, an answer where nobody asked. */
#define ROW_ANSWERS_BUG(s)                                                                         \
    [SRC_EV_ANS_RUNNING] = C(s, MT_BUG), [SRC_EV_ANS_PREPARED] = C(s, MT_BUG),                     \
    [SRC_EV_ANS_NEVER] = C(s, MT_BUG), [SRC_EV_ANS_NONE] = C(s, MT_BUG)
#define ROW_ANSWERS_LATE(s)                                                                        \
    [SRC_EV_ANS_RUNNING] = C(s, MT_NONE), [SRC_EV_ANS_PREPARED] = C(s, MT_NONE),                   \
    [SRC_EV_ANS_NEVER] = C(s, MT_NONE), [SRC_EV_ANS_NONE] = C(s, MT_NONE)
#define ROW_NOT_IN_DOUBT(s)                                                                        \
    [SRC_EV_TIMER] = C(s, MT_NONE), [SRC_EV_RESOLVE_RUN] = C(s, MT_REFUSE),                        \
    [SRC_EV_RESOLVE_DISCARD] = C(s, MT_REFUSE)
#define ROW_LOG_LATE(s)                                                                            \
    [SRC_EV_LOG_OURS] = C(s, MT_NONE), [SRC_EV_LOG_BACK] = C(s, MT_NONE),                          \
    [SRC_EV_LOG_THEIRS] = C(s, MT_NONE), [SRC_EV_LOG_ELSE] = C(s, MT_NONE),                        \
    [SRC_EV_LOG_NONE] = C(s, MT_NONE)
/* Answers to a question that has a result of its own. */
#define ROW_LOG_RESULT(s)                                                                          \
    [SRC_EV_LOG_OURS] = C(s, MT_BUG), [SRC_EV_LOG_BACK] = C(s, MT_BUG),                            \
    [SRC_EV_LOG_THEIRS] = C(s, MT_BUG), [SRC_EV_LOG_ELSE] = C(s, MT_BUG)
#define ROW_NO_OPERATOR(s)                                                                         \
    [SRC_EV_RESOLVE_RUN] = C(s, MT_REFUSE), [SRC_EV_RESOLVE_DISCARD] = C(s, MT_REFUSE)
#define ROW_NO_RESULT(s) [SRC_EV_OP_OK] = C(s, MT_BUG), [SRC_EV_OP_FAILED] = C(s, MT_BUG)
#define ROW_WORKER_DEFERS(s)                                                                       \
    [SRC_EV_ACCEPTED] = DEFERS(s), [SRC_EV_WANT_PAUSE] = DEFERS(s),                                \
    [SRC_EV_WANT_COMMIT] = DEFERS(s), [SRC_EV_END_OK] = DEFERS(s),                                 \
    [SRC_EV_END_RESUMED] = DEFERS(s), [SRC_EV_END_FAILED] = DEFERS(s),                             \
    [SRC_EV_CANCEL] = DEFERS(s), [SRC_EV_GUEST_GONE] = DEFERS(s)
/* The worker has ended or is of no account; its late words change nothing. */
#define ROW_WORKER_LATE(s)                                                                         \
    [SRC_EV_ACCEPTED] = C(s, MT_NONE), [SRC_EV_WANT_PAUSE] = C(s, MT_NONE),                        \
    [SRC_EV_WANT_COMMIT] = C(s, MT_NONE), [SRC_EV_END_OK] = C(s, MT_NONE),                         \
    [SRC_EV_END_RESUMED] = C(s, MT_NONE), [SRC_EV_END_FAILED] = C(s, MT_NONE),                     \
    [SRC_EV_CANCEL] = C(s, MT_REFUSE), [SRC_EV_GUEST_GONE] = C(s, MT_NONE)

static const struct mt_cell source[SRC_STATE_MAX][SRC_EVENT_MAX] = {
    [SRC_STARTING] = {
        ROW_LOG_LATE(SRC_STARTING),
        ROW_WORKER_DEFERS(SRC_STARTING),
        [SRC_EV_OP_OK] = C(SRC_CONNECT, MT_SPAWN),
        [SRC_EV_OP_FAILED] = C(SRC_FAILED, MT_CLOSE),
        ROW_ANSWERS_BUG(SRC_STARTING), ROW_NOT_IN_DOUBT(SRC_STARTING),
    },
    [SRC_CONNECT] = {
        ROW_LOG_LATE(SRC_CONNECT),
        [SRC_EV_ACCEPTED] = C(SRC_PRECOPY, MT_NONE),
        [SRC_EV_WANT_PAUSE] = C(SRC_CONNECT, MT_VIOLATION),
        [SRC_EV_WANT_COMMIT] = C(SRC_CONNECT, MT_VIOLATION),
        [SRC_EV_END_OK] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_RESUMED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_FAILED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_CANCEL] = C(SRC_CONNECT, MT_CANCEL),
        [SRC_EV_GUEST_GONE] = C(SRC_CONNECT, MT_CANCEL),
        ROW_NO_RESULT(SRC_CONNECT), ROW_ANSWERS_BUG(SRC_CONNECT), ROW_NOT_IN_DOUBT(SRC_CONNECT),
    },
    [SRC_PRECOPY] = {
        ROW_LOG_LATE(SRC_PRECOPY),
        [SRC_EV_ACCEPTED] = C(SRC_PRECOPY, MT_VIOLATION),
        [SRC_EV_WANT_PAUSE] = C(SRC_PREPARING, MT_J_PREPARED),
        [SRC_EV_WANT_COMMIT] = C(SRC_PRECOPY, MT_VIOLATION),
        [SRC_EV_END_OK] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_RESUMED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_FAILED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_CANCEL] = C(SRC_PRECOPY, MT_CANCEL),
        [SRC_EV_GUEST_GONE] = C(SRC_PRECOPY, MT_CANCEL),
        ROW_NO_RESULT(SRC_PRECOPY), ROW_ANSWERS_BUG(SRC_PRECOPY), ROW_NOT_IN_DOUBT(SRC_PRECOPY),
    },
    [SRC_PREPARING] = {
        ROW_LOG_LATE(SRC_PREPARING),
        ROW_WORKER_DEFERS(SRC_PREPARING),
        [SRC_EV_OP_OK] = C(SRC_PREPARED, MT_STEP_YES),
        [SRC_EV_OP_FAILED] = C(SRC_PRECOPY, MT_STEP_NO),
        ROW_ANSWERS_BUG(SRC_PREPARING), ROW_NOT_IN_DOUBT(SRC_PREPARING),
    },
    [SRC_PREPARED] = {
        ROW_LOG_LATE(SRC_PREPARED),
        [SRC_EV_ACCEPTED] = C(SRC_PREPARED, MT_VIOLATION),
        [SRC_EV_WANT_PAUSE] = C(SRC_PREPARED, MT_STEP_YES), /* went back to copying, comes again */
        [SRC_EV_WANT_COMMIT] = C(SRC_COMMITTING, MT_J_COMMITTED),
        [SRC_EV_END_OK] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_RESUMED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_END_FAILED] = C(SRC_RESUMING, MT_RESUME),
        [SRC_EV_CANCEL] = C(SRC_PREPARED, MT_CANCEL),
        [SRC_EV_GUEST_GONE] = C(SRC_PREPARED, MT_CANCEL),
        ROW_NO_RESULT(SRC_PREPARED), ROW_ANSWERS_BUG(SRC_PREPARED), ROW_NOT_IN_DOUBT(SRC_PREPARED),
    },
    [SRC_COMMITTING] = {
        ROW_LOG_LATE(SRC_COMMITTING),
        ROW_WORKER_DEFERS(SRC_COMMITTING),
        [SRC_EV_OP_OK] = C(SRC_COMMITTED, MT_STEP_YES),
        [SRC_EV_OP_FAILED] = C(SRC_PREPARED, MT_STEP_NO),
        ROW_ANSWERS_BUG(SRC_COMMITTING), ROW_NOT_IN_DOUBT(SRC_COMMITTING),
    },
    [SRC_COMMITTED] = {
        ROW_LOG_LATE(SRC_COMMITTED),
        [SRC_EV_ACCEPTED] = C(SRC_COMMITTED, MT_VIOLATION),
        [SRC_EV_WANT_PAUSE] = C(SRC_COMMITTED, MT_VIOLATION),
        [SRC_EV_WANT_COMMIT] = C(SRC_COMMITTED, MT_VIOLATION),
        [SRC_EV_END_OK] = C(SRC_FINISHING, MT_J_DONE),
        [SRC_EV_END_RESUMED] = C(SRC_QUERYING, MT_QUERY), /* it had no right to: paused again first */
        [SRC_EV_END_FAILED] = C(SRC_QUERYING, MT_QUERY),
        [SRC_EV_CANCEL] = C(SRC_COMMITTED, MT_REFUSE),
        [SRC_EV_GUEST_GONE] = C(SRC_COMMITTED, MT_NONE),
        ROW_NO_RESULT(SRC_COMMITTED), ROW_ANSWERS_BUG(SRC_COMMITTED),
        ROW_NOT_IN_DOUBT(SRC_COMMITTED),
    },
    [SRC_QUERYING] = {
        ROW_LOG_LATE(SRC_QUERYING),
        ROW_WORKER_LATE(SRC_QUERYING), ROW_NO_RESULT(SRC_QUERYING),
        [SRC_EV_ANS_RUNNING] = C(SRC_FINISHING, MT_J_DONE),
        [SRC_EV_ANS_PREPARED] = C(SRC_DOUBT, MT_ARM),
        [SRC_EV_ANS_NEVER] = C(SRC_RECLAIMING, MT_J_RECLAIMED),
        [SRC_EV_ANS_NONE] = C(SRC_DOUBT, MT_ARM),
        [SRC_EV_TIMER] = C(SRC_QUERYING, MT_NONE),
        [SRC_EV_RESOLVE_RUN] = DEFERS(SRC_QUERYING), /* a go may be on its way: its answer first */
        [SRC_EV_RESOLVE_DISCARD] = DEFERS(SRC_QUERYING),
    },
    [SRC_DOUBT] = {
        ROW_LOG_LATE(SRC_DOUBT),
        ROW_WORKER_LATE(SRC_DOUBT), ROW_NO_RESULT(SRC_DOUBT), ROW_ANSWERS_LATE(SRC_DOUBT),
        [SRC_EV_TIMER] = C(SRC_QUERYING, MT_QUERY),
        [SRC_EV_RESOLVE_RUN] = C(SRC_RECLAIMING, MT_J_RECLAIMED),
        [SRC_EV_RESOLVE_DISCARD] = C(SRC_FINISHING, MT_J_DONE),
    },
    /* Without DONE a restart asks the target again: our copy may go all the same. */
    [SRC_FINISHING] = {
        ROW_LOG_LATE(SRC_FINISHING),
        ROW_WORKER_LATE(SRC_FINISHING), ROW_ANSWERS_LATE(SRC_FINISHING),
        ROW_NOT_IN_DOUBT(SRC_FINISHING),
        [SRC_EV_OP_OK] = C(SRC_CLEANING, MT_DESTROY),
        [SRC_EV_OP_FAILED] = C(SRC_CLEANING, MT_DESTROY),
    },
    [SRC_CLEANING] = {
        ROW_LOG_LATE(SRC_CLEANING),
        ROW_WORKER_LATE(SRC_CLEANING), ROW_ANSWERS_LATE(SRC_CLEANING),
        ROW_NOT_IN_DOUBT(SRC_CLEANING),
        [SRC_EV_OP_OK] = C(SRC_DONE, MT_CLOSE),
        [SRC_EV_OP_FAILED] = C(SRC_DONE, MT_CLOSE),
    },
    [SRC_RESUMING] = {
        ROW_LOG_LATE(SRC_RESUMING),
        ROW_WORKER_LATE(SRC_RESUMING), ROW_ANSWERS_LATE(SRC_RESUMING),
        ROW_NOT_IN_DOUBT(SRC_RESUMING),
        [SRC_EV_OP_OK] = C(SRC_ABORTING, MT_J_ABORTED),
        [SRC_EV_OP_FAILED] = C(SRC_ABORTING, MT_J_ABORTED),
    },
    /* Without ABORTED a restart finds PREPARED and resumes: the same. */
    [SRC_ABORTING] = {
        ROW_LOG_LATE(SRC_ABORTING),
        ROW_WORKER_LATE(SRC_ABORTING), ROW_ANSWERS_LATE(SRC_ABORTING),
        ROW_NOT_IN_DOUBT(SRC_ABORTING),
        [SRC_EV_OP_OK] = C(SRC_FAILED, MT_CLOSE),
        [SRC_EV_OP_FAILED] = C(SRC_FAILED, MT_CLOSE),
    },
    [SRC_RECLAIMING] = {
        ROW_LOG_LATE(SRC_RECLAIMING),
        ROW_WORKER_LATE(SRC_RECLAIMING), ROW_ANSWERS_LATE(SRC_RECLAIMING),
        ROW_NOT_IN_DOUBT(SRC_RECLAIMING),
        [SRC_EV_OP_OK] = C(SRC_RETAKING, MT_RESUME_NEW),
        [SRC_EV_OP_FAILED] = C(SRC_DOUBT, MT_ARM),
    },
    [SRC_RETAKING] = {
        ROW_LOG_LATE(SRC_RETAKING),
        ROW_WORKER_LATE(SRC_RETAKING), ROW_ANSWERS_LATE(SRC_RETAKING),
        ROW_NOT_IN_DOUBT(SRC_RETAKING),
        [SRC_EV_OP_OK] = C(SRC_FAILED, MT_CLOSE),
        [SRC_EV_OP_FAILED] = C(SRC_FAILED, MT_CLOSE),
    },
    [SRC_DONE] = {
        ROW_LOG_LATE(SRC_DONE),
        ROW_WORKER_LATE(SRC_DONE), ROW_ANSWERS_LATE(SRC_DONE), ROW_NOT_IN_DOUBT(SRC_DONE),
        ROW_NO_RESULT(SRC_DONE),
    },
    [SRC_FAILED] = {
        ROW_LOG_LATE(SRC_FAILED),
        ROW_WORKER_LATE(SRC_FAILED), ROW_ANSWERS_LATE(SRC_FAILED), ROW_NOT_IN_DOUBT(SRC_FAILED),
        ROW_NO_RESULT(SRC_FAILED),
    },
    /* The log is asked. */
    [SRC_BEGINNING] = {
        ROW_WORKER_DEFERS(SRC_BEGINNING), ROW_ANSWERS_BUG(SRC_BEGINNING),
        ROW_LOG_RESULT(SRC_BEGINNING), ROW_NO_OPERATOR(SRC_BEGINNING),
        [SRC_EV_OP_OK] = C(SRC_CONNECT, MT_SPAWN),
        [SRC_EV_OP_FAILED] = C(SRC_ABORTING, MT_J_ABORTED),
        [SRC_EV_LOG_NONE] = C(SRC_ENDING, MT_L_END), /* it may still be decided */
        [SRC_EV_TIMER] = C(SRC_ENDING, MT_L_END),
    },
    [SRC_ASKING] = {
        [SRC_EV_ACCEPTED] = DEFERS(SRC_ASKING), [SRC_EV_WANT_PAUSE] = DEFERS(SRC_ASKING),
        [SRC_EV_WANT_COMMIT] = DEFERS(SRC_ASKING), [SRC_EV_END_OK] = DEFERS(SRC_ASKING),
        [SRC_EV_END_RESUMED] = DEFERS(SRC_ASKING), [SRC_EV_END_FAILED] = DEFERS(SRC_ASKING),
        [SRC_EV_CANCEL] = C(SRC_ASKING, MT_REFUSE), [SRC_EV_GUEST_GONE] = DEFERS(SRC_ASKING),
        ROW_NO_RESULT(SRC_ASKING), ROW_ANSWERS_BUG(SRC_ASKING), ROW_NO_OPERATOR(SRC_ASKING),
        [SRC_EV_LOG_OURS] = C(SRC_PREPARED, MT_STEP_NO),
        [SRC_EV_LOG_BACK] = C(SRC_RECLAIMING, MT_J_RECLAIMED),
        [SRC_EV_LOG_THEIRS] = C(SRC_COMMITTING, MT_J_COMMITTED),
        [SRC_EV_LOG_ELSE] = C(SRC_LOST, MT_KILL),
        [SRC_EV_LOG_NONE] = C(SRC_ASKING, MT_L_WAIT),
        [SRC_EV_TIMER] = C(SRC_ASKING, MT_L_OWNER),
    },
    [SRC_LOOKING] = {
        ROW_WORKER_LATE(SRC_LOOKING), ROW_ANSWERS_LATE(SRC_LOOKING), ROW_NO_RESULT(SRC_LOOKING),
        ROW_NO_OPERATOR(SRC_LOOKING),
        [SRC_EV_LOG_OURS] = C(SRC_QUERYING, MT_QUERY), /* it was committed: the target knows more */
        [SRC_EV_LOG_BACK] = C(SRC_RECLAIMING, MT_J_RECLAIMED),
        [SRC_EV_LOG_THEIRS] = C(SRC_QUERYING, MT_QUERY),
        [SRC_EV_LOG_ELSE] = C(SRC_LOSING, MT_DESTROY),
        [SRC_EV_LOG_NONE] = C(SRC_QUERYING, MT_QUERY),
        [SRC_EV_TIMER] = C(SRC_QUERYING, MT_QUERY),
    },
    [SRC_TAKING_BACK] = {
        ROW_WORKER_LATE(SRC_TAKING_BACK), ROW_ANSWERS_LATE(SRC_TAKING_BACK),
        ROW_NO_RESULT(SRC_TAKING_BACK), ROW_NO_OPERATOR(SRC_TAKING_BACK),
        [SRC_EV_LOG_OURS] = C(SRC_DOUBT, MT_ARM),
        [SRC_EV_LOG_BACK] = C(SRC_RECLAIMING, MT_J_RECLAIMED),
        [SRC_EV_LOG_THEIRS] = C(SRC_DOUBT, MT_ARM),
        [SRC_EV_LOG_ELSE] = C(SRC_LOSING, MT_DESTROY),
        [SRC_EV_LOG_NONE] = C(SRC_DOUBT, MT_ARM),
        [SRC_EV_TIMER] = C(SRC_TAKING_BACK, MT_NONE),
    },
    /* Until it has been told, it takes the domain for one that moves. */
    [SRC_ENDING] = {
        ROW_WORKER_LATE(SRC_ENDING), ROW_ANSWERS_LATE(SRC_ENDING), ROW_LOG_RESULT(SRC_ENDING),
        ROW_NO_OPERATOR(SRC_ENDING),
        [SRC_EV_OP_OK] = C(SRC_ABORTING, MT_J_ABORTED),
        [SRC_EV_OP_FAILED] = C(SRC_ENDING, MT_L_WAIT),
        [SRC_EV_LOG_NONE] = C(SRC_ENDING, MT_L_WAIT),
        [SRC_EV_TIMER] = C(SRC_ENDING, MT_L_END),
    },
    [SRC_LOST] = {
        ROW_LOG_LATE(SRC_LOST), ROW_ANSWERS_BUG(SRC_LOST), ROW_NO_RESULT(SRC_LOST),
        ROW_NOT_IN_DOUBT(SRC_LOST),
        [SRC_EV_ACCEPTED] = C(SRC_LOST, MT_NONE), [SRC_EV_WANT_PAUSE] = C(SRC_LOST, MT_NONE),
        [SRC_EV_WANT_COMMIT] = C(SRC_LOST, MT_NONE),
        [SRC_EV_END_OK] = C(SRC_LOSING, MT_DESTROY),
        [SRC_EV_END_RESUMED] = C(SRC_LOSING, MT_DESTROY),
        [SRC_EV_END_FAILED] = C(SRC_LOSING, MT_DESTROY),
        [SRC_EV_CANCEL] = C(SRC_LOST, MT_REFUSE), [SRC_EV_GUEST_GONE] = C(SRC_LOST, MT_NONE),
    },
    [SRC_LOSING] = {
        ROW_WORKER_LATE(SRC_LOSING), ROW_ANSWERS_LATE(SRC_LOSING), ROW_LOG_LATE(SRC_LOSING),
        ROW_NOT_IN_DOUBT(SRC_LOSING),
        [SRC_EV_OP_OK] = C(SRC_ABORTING, MT_J_ABORTED),
        [SRC_EV_OP_FAILED] = C(SRC_ABORTING, MT_J_ABORTED),
    },
};

/* What differs for a protected domain; a cell that is not set is as above. */
static const struct mt_cell source_logged[SRC_STATE_MAX][SRC_EVENT_MAX] = {
    [SRC_STARTING] = { [SRC_EV_OP_OK] = C(SRC_BEGINNING, MT_L_BEGIN) },
    [SRC_PREPARED] = { [SRC_EV_WANT_COMMIT] = C(SRC_ASKING, MT_L_HANDOVER) },
    [SRC_COMMITTING] = { [SRC_EV_OP_FAILED] = C(SRC_COMMITTED, MT_STEP_YES) },
    /* A target that is gone does not answer for long; the log may have started the guest here. */
    [SRC_COMMITTED] = { [SRC_EV_END_FAILED] = C(SRC_LOOKING, MT_L_OWNER) },
    [SRC_QUERYING] = { [SRC_EV_ANS_NEVER] = C(SRC_TAKING_BACK, MT_L_TAKE_BACK),
        [SRC_EV_GUEST_GONE] = C(SRC_QUERYING, MT_KILL),
        ROW_NO_OPERATOR(SRC_QUERYING) },
    [SRC_DOUBT] = { [SRC_EV_TIMER] = C(SRC_LOOKING, MT_L_OWNER),
        [SRC_EV_GUEST_GONE] = C(SRC_LOOKING, MT_L_OWNER),
        ROW_NO_OPERATOR(SRC_DOUBT) },
    [SRC_RESUMING] = { [SRC_EV_OP_OK] = C(SRC_ENDING, MT_L_END),
        [SRC_EV_OP_FAILED] = C(SRC_ENDING, MT_L_END) },
};

#define TROW_LOG_LATE(s)                                                                           \
    [TGT_EV_LOG_OURS] = C(s, MT_NONE), [TGT_EV_LOG_ELSE] = C(s, MT_NONE),                          \
    [TGT_EV_LOG_NONE] = C(s, MT_NONE), [TGT_EV_TIMER] = C(s, MT_NONE)
#define TROW_DEFERS(s)                                                                             \
    [TGT_EV_OFFER] = DEFERS(s), [TGT_EV_WANT_READY] = DEFERS(s), [TGT_EV_GO] = DEFERS(s),          \
    [TGT_EV_END_OK] = DEFERS(s), [TGT_EV_END_FAILED] = DEFERS(s), [TGT_EV_CANCEL] = DEFERS(s),     \
    [TGT_EV_QUERY] = DEFERS(s), [TGT_EV_QUERY_GO] = DEFERS(s), [TGT_EV_QUERY_ABORT] = DEFERS(s),   \
    [TGT_EV_RESOLVE_RUN] = DEFERS(s), [TGT_EV_RESOLVE_DISCARD] = DEFERS(s),                        \
    [TGT_EV_GUEST_GONE] = DEFERS(s)
#define TROW_NOT_DENIED(s) [TGT_EV_OP_DENIED] = C(s, MT_BUG)
#define TROW_NO_RESULT(s)                                                                          \
    [TGT_EV_OP_OK] = C(s, MT_BUG), [TGT_EV_OP_FAILED] = C(s, MT_BUG), TROW_NOT_DENIED(s)
#define TROW_ANSWERS(s)                                                                            \
    [TGT_EV_QUERY] = C(s, MT_ANSWER), [TGT_EV_QUERY_GO] = C(s, MT_ANSWER),                         \
    [TGT_EV_QUERY_ABORT] = C(s, MT_ANSWER)
#define TROW_NO_RESOLVE(s)                                                                         \
    [TGT_EV_RESOLVE_RUN] = C(s, MT_REFUSE), [TGT_EV_RESOLVE_DISCARD] = C(s, MT_REFUSE)
#define TROW_LATE(s)                                                                               \
    [TGT_EV_OFFER] = C(s, MT_NONE), [TGT_EV_WANT_READY] = C(s, MT_NONE),                           \
    [TGT_EV_GO] = C(s, MT_NONE), [TGT_EV_END_OK] = C(s, MT_NONE),                                  \
    [TGT_EV_END_FAILED] = C(s, MT_NONE), [TGT_EV_CANCEL] = C(s, MT_REFUSE),                        \
    [TGT_EV_GUEST_GONE] = C(s, MT_NONE), TROW_NO_RESULT(s), TROW_ANSWERS(s), TROW_NO_RESOLVE(s)

static const struct mt_cell target[TGT_STATE_MAX][TGT_EVENT_MAX] = {
    [TGT_WAIT] = {
        TROW_LOG_LATE(TGT_WAIT),
        [TGT_EV_OFFER] = C(TGT_CHECKING, MT_CHECK),
        [TGT_EV_WANT_READY] = C(TGT_WAIT, MT_VIOLATION),
        [TGT_EV_GO] = C(TGT_WAIT, MT_VIOLATION),
        [TGT_EV_END_OK] = C(TGT_REFUSED, MT_CLOSE),
        [TGT_EV_END_FAILED] = C(TGT_REFUSED, MT_CLOSE),
        [TGT_EV_CANCEL] = C(TGT_WAIT, MT_KILL),
        [TGT_EV_QUERY] = C(TGT_WAIT, MT_BUG), [TGT_EV_QUERY_GO] = C(TGT_WAIT, MT_BUG),
        [TGT_EV_QUERY_ABORT] = C(TGT_WAIT, MT_BUG),
        [TGT_EV_GUEST_GONE] = C(TGT_WAIT, MT_BUG),
        TROW_NO_RESULT(TGT_WAIT), TROW_NO_RESOLVE(TGT_WAIT),
    },
    [TGT_CHECKING] = {
        TROW_LOG_LATE(TGT_CHECKING),
        TROW_DEFERS(TGT_CHECKING), TROW_NOT_DENIED(TGT_CHECKING),
        [TGT_EV_OP_OK] = C(TGT_STARTING, MT_START),
        [TGT_EV_OP_FAILED] = C(TGT_REFUSED, MT_VERDICT_NO),
    },
    [TGT_STARTING] = {
        TROW_LOG_LATE(TGT_STARTING),
        TROW_DEFERS(TGT_STARTING), TROW_NOT_DENIED(TGT_STARTING),
        [TGT_EV_OP_OK] = C(TGT_PREPARING, MT_J_PREPARED),
        [TGT_EV_OP_FAILED] = C(TGT_REFUSED, MT_VERDICT_NO),
    },
    /* PREPARED could not be written: the worker is ended, the copy dropped. */
    [TGT_PREPARING] = {
        TROW_LOG_LATE(TGT_PREPARING),
        TROW_DEFERS(TGT_PREPARING), TROW_NOT_DENIED(TGT_PREPARING),
        [TGT_EV_OP_OK] = C(TGT_RECEIVING, MT_VERDICT_YES),
        [TGT_EV_OP_FAILED] = C(TGT_DROP_WAIT, MT_VERDICT_NO),
    },
    [TGT_RECEIVING] = {
        TROW_LOG_LATE(TGT_RECEIVING),
        [TGT_EV_OFFER] = C(TGT_RECEIVING, MT_VIOLATION),
        [TGT_EV_WANT_READY] = C(TGT_READYING, MT_J_READY),
        [TGT_EV_GO] = C(TGT_RECEIVING, MT_VIOLATION),
        [TGT_EV_END_OK] = C(TGT_DROP_JOURNAL, MT_J_DISCARDED),
        [TGT_EV_END_FAILED] = C(TGT_DROP_JOURNAL, MT_J_DISCARDED),
        [TGT_EV_CANCEL] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_QUERY] = DEFERS(TGT_RECEIVING),
        [TGT_EV_QUERY_GO] = C(TGT_DROP_WAIT, MT_KILL), /* incomplete: never */
        [TGT_EV_QUERY_ABORT] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_GUEST_GONE] = C(TGT_DROP_WAIT, MT_KILL),
        TROW_NO_RESULT(TGT_RECEIVING), TROW_NO_RESOLVE(TGT_RECEIVING),
    },
    [TGT_READYING] = {
        TROW_LOG_LATE(TGT_READYING),
        TROW_DEFERS(TGT_READYING), TROW_NOT_DENIED(TGT_READYING),
        [TGT_EV_OP_OK] = C(TGT_READY, MT_STEP_YES),
        [TGT_EV_OP_FAILED] = C(TGT_RECEIVING, MT_STEP_NO),
    },
    [TGT_READY] = {
        TROW_LOG_LATE(TGT_READY),
        [TGT_EV_OFFER] = C(TGT_READY, MT_VIOLATION),
        [TGT_EV_WANT_READY] = C(TGT_READY, MT_VIOLATION),
        [TGT_EV_GO] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_END_OK] = C(TGT_DOUBT, MT_NONE),
        [TGT_EV_END_FAILED] = C(TGT_DOUBT, MT_NONE),
        [TGT_EV_CANCEL] = C(TGT_READY, MT_REFUSE), /* the source decides now */
        [TGT_EV_QUERY] = C(TGT_READY, MT_ANSWER),
        [TGT_EV_QUERY_GO] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_QUERY_ABORT] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_GUEST_GONE] = C(TGT_DROP_WAIT, MT_KILL),
        TROW_NO_RESULT(TGT_READY), TROW_NO_RESOLVE(TGT_READY),
    },
    [TGT_RUN_JOURNAL] = {
        TROW_LOG_LATE(TGT_RUN_JOURNAL),
        TROW_DEFERS(TGT_RUN_JOURNAL),
        [TGT_EV_OP_OK] = C(TGT_RUN_GUEST, MT_RESUME),
        [TGT_EV_OP_FAILED] = C(TGT_DOUBT, MT_STEP_NO),
        /* Nothing was written here, and nothing ran: the source may have it back. */
        [TGT_EV_OP_DENIED] = C(TGT_DROP_WAIT, MT_KILL),
    },
    [TGT_RUN_GUEST] = {
        TROW_LOG_LATE(TGT_RUN_GUEST),
        TROW_DEFERS(TGT_RUN_GUEST), TROW_NOT_DENIED(TGT_RUN_GUEST),
        [TGT_EV_OP_OK] = C(TGT_RUNNING, MT_STEP_YES),
        [TGT_EV_OP_FAILED] = C(TGT_DOUBT, MT_STEP_NO),
    },
    [TGT_RUNNING] = {
        TROW_LOG_LATE(TGT_RUNNING),
        [TGT_EV_OFFER] = C(TGT_RUNNING, MT_VIOLATION),
        [TGT_EV_WANT_READY] = C(TGT_RUNNING, MT_VIOLATION),
        [TGT_EV_GO] = C(TGT_RUNNING, MT_STEP_YES), /* a query with go was faster */
        [TGT_EV_END_OK] = C(TGT_DONE, MT_CLOSE),
        [TGT_EV_END_FAILED] = C(TGT_DONE, MT_CLOSE),
        [TGT_EV_CANCEL] = C(TGT_RUNNING, MT_REFUSE),
        [TGT_EV_GUEST_GONE] = C(TGT_RUNNING, MT_NONE),
        TROW_NO_RESULT(TGT_RUNNING), TROW_ANSWERS(TGT_RUNNING), TROW_NO_RESOLVE(TGT_RUNNING),
    },
    [TGT_DOUBT] = {
        [TGT_EV_LOG_OURS] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_LOG_ELSE] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_LOG_NONE] = C(TGT_DOUBT, MT_L_WAIT), [TGT_EV_TIMER] = C(TGT_DOUBT, MT_L_OWNER),
        [TGT_EV_OFFER] = C(TGT_DOUBT, MT_VIOLATION),
        [TGT_EV_WANT_READY] = C(TGT_DOUBT, MT_VIOLATION),
        [TGT_EV_GO] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_END_OK] = C(TGT_DOUBT, MT_NONE),
        [TGT_EV_END_FAILED] = C(TGT_DOUBT, MT_NONE),
        [TGT_EV_CANCEL] = C(TGT_DOUBT, MT_REFUSE),
        [TGT_EV_QUERY] = C(TGT_DOUBT, MT_ANSWER),
        [TGT_EV_QUERY_GO] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_QUERY_ABORT] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_RESOLVE_RUN] = C(TGT_RUN_JOURNAL, MT_J_RUNNING),
        [TGT_EV_RESOLVE_DISCARD] = C(TGT_DROP_WAIT, MT_KILL),
        [TGT_EV_GUEST_GONE] = C(TGT_DROP_WAIT, MT_KILL),
        TROW_NO_RESULT(TGT_DOUBT),
    },
    [TGT_DROP_WAIT] = {
        TROW_LOG_LATE(TGT_DROP_WAIT),
        [TGT_EV_OFFER] = C(TGT_DROP_WAIT, MT_NONE),
        [TGT_EV_WANT_READY] = C(TGT_DROP_WAIT, MT_STEP_NO),
        [TGT_EV_GO] = C(TGT_DROP_WAIT, MT_STEP_NO),
        [TGT_EV_END_OK] = C(TGT_DROP_JOURNAL, MT_J_DISCARDED),
        [TGT_EV_END_FAILED] = C(TGT_DROP_JOURNAL, MT_J_DISCARDED),
        [TGT_EV_CANCEL] = C(TGT_DROP_WAIT, MT_NONE),
        [TGT_EV_QUERY] = DEFERS(TGT_DROP_WAIT), [TGT_EV_QUERY_GO] = DEFERS(TGT_DROP_WAIT),
        [TGT_EV_QUERY_ABORT] = DEFERS(TGT_DROP_WAIT),
        [TGT_EV_GUEST_GONE] = C(TGT_DROP_WAIT, MT_NONE),
        TROW_NO_RESULT(TGT_DROP_WAIT), TROW_NO_RESOLVE(TGT_DROP_WAIT),
    },
    /* A copy that is destroyed cannot run either: go on if the record could not be written. */
    [TGT_DROP_JOURNAL] = {
        TROW_LOG_LATE(TGT_DROP_JOURNAL),
        TROW_DEFERS(TGT_DROP_JOURNAL), TROW_NOT_DENIED(TGT_DROP_JOURNAL),
        [TGT_EV_OP_OK] = C(TGT_DROP_GUEST, MT_DESTROY),
        [TGT_EV_OP_FAILED] = C(TGT_DROP_GUEST, MT_DESTROY),
    },
    [TGT_DROP_GUEST] = {
        TROW_LOG_LATE(TGT_DROP_GUEST),
        TROW_DEFERS(TGT_DROP_GUEST), TROW_NOT_DENIED(TGT_DROP_GUEST),
        [TGT_EV_OP_OK] = C(TGT_DISCARDED, MT_CLOSE),
        [TGT_EV_OP_FAILED] = C(TGT_DISCARDED, MT_CLOSE),
    },
    [TGT_DONE] = { TROW_LATE(TGT_DONE), TROW_LOG_LATE(TGT_DONE) },
    [TGT_REFUSED] = { TROW_LATE(TGT_REFUSED), TROW_LOG_LATE(TGT_REFUSED) },
    [TGT_DISCARDED] = { TROW_LATE(TGT_DISCARDED), TROW_LOG_LATE(TGT_DISCARDED) },
};

static const struct mt_cell target_logged[TGT_STATE_MAX][TGT_EVENT_MAX] = {
    [TGT_READY] = { [TGT_EV_END_OK] = C(TGT_DOUBT, MT_L_OWNER),
        [TGT_EV_END_FAILED] = C(TGT_DOUBT, MT_L_OWNER) },
    [TGT_DOUBT] = { [TGT_EV_END_OK] = C(TGT_DOUBT, MT_L_WAIT),
        [TGT_EV_END_FAILED] = C(TGT_DOUBT, MT_L_WAIT), TROW_NO_RESOLVE(TGT_DOUBT) },
};

/*
 * After a restart: the last journalled step and the copy that is found here. A source that
 * wrote COMMITTED and finds its guest running had taken its failure path after the record
 * could not be made durable: GO was never sent.
 */
static const struct mt_cell source_restart[STEP_MAX][COPY_MAX] = {
    [STEP_STARTED] = { C(SRC_ABORTING, MT_J_ABORTED), C(SRC_ABORTING, MT_J_ABORTED),
        C(SRC_ABORTING, MT_J_ABORTED) },
    [STEP_PREPARED] = { C(SRC_ABORTING, MT_J_ABORTED), C(SRC_RESUMING, MT_RESUME),
        C(SRC_ABORTING, MT_J_ABORTED) },
    [STEP_COMMITTED] = { C(SRC_QUERYING, MT_QUERY), C(SRC_QUERYING, MT_QUERY),
        C(SRC_ABORTING, MT_J_ABORTED) },
    [STEP_DONE] = { C(SRC_DONE, MT_CLOSE), C(SRC_CLEANING, MT_DESTROY),
        C(SRC_CLEANING, MT_DESTROY) },
    [STEP_ABORTED] = { C(SRC_FAILED, MT_CLOSE), C(SRC_FAILED, MT_CLOSE), C(SRC_FAILED, MT_CLOSE) },
    [STEP_RECLAIMED] = { C(SRC_FAILED, MT_CLOSE), C(SRC_RETAKING, MT_RESUME_NEW),
        C(SRC_FAILED, MT_CLOSE) },
    [STEP_READY] = { C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG) },
    [STEP_RUNNING] = { C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG) },
    [STEP_DISCARDED] = { C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG), C(SRC_FAILED, MT_BUG) },
    [STEP_CLOSED] = { C(SRC_DONE, MT_CLOSE), C(SRC_DONE, MT_CLOSE), C(SRC_DONE, MT_CLOSE) },
};

/* Of a protected domain: what the log was asked, and maybe has decided, is known after OWNER. */
static const struct mt_cell source_restart_logged[STEP_MAX][COPY_MAX] = {
    [STEP_STARTED] = { C(SRC_ENDING, MT_L_END), C(SRC_ENDING, MT_L_END), C(SRC_ENDING, MT_L_END) },
    [STEP_PREPARED] = { C(SRC_ASKING, MT_L_OWNER), C(SRC_ASKING, MT_L_OWNER),
        C(SRC_ASKING, MT_L_OWNER) },
    [STEP_COMMITTED] = { C(SRC_LOOKING, MT_L_OWNER), C(SRC_LOOKING, MT_L_OWNER),
        C(SRC_LOOKING, MT_L_OWNER) },
    [STEP_RECLAIMED] = { [COPY_HELD] = C(SRC_LOOKING, MT_L_OWNER) },
};

static const struct mt_cell target_restart[STEP_MAX][COPY_MAX] = {
    [STEP_STARTED] = { C(TGT_DISCARDED, MT_BUG), C(TGT_DISCARDED, MT_BUG),
        C(TGT_DISCARDED, MT_BUG) },
    [STEP_PREPARED] = { C(TGT_DROP_JOURNAL, MT_J_DISCARDED), C(TGT_DROP_JOURNAL, MT_J_DISCARDED),
        C(TGT_RUN_JOURNAL, MT_J_RUNNING) },
    [STEP_COMMITTED] = { C(TGT_DISCARDED, MT_BUG), C(TGT_DISCARDED, MT_BUG),
        C(TGT_DISCARDED, MT_BUG) },
    [STEP_DONE] = { C(TGT_DONE, MT_CLOSE), C(TGT_DONE, MT_CLOSE), C(TGT_DONE, MT_CLOSE) },
    [STEP_ABORTED] = { C(TGT_DISCARDED, MT_BUG), C(TGT_DISCARDED, MT_BUG),
        C(TGT_DISCARDED, MT_BUG) },
    [STEP_RECLAIMED] = { C(TGT_DISCARDED, MT_BUG), C(TGT_DISCARDED, MT_BUG),
        C(TGT_DISCARDED, MT_BUG) },
    [STEP_READY] = { C(TGT_DROP_JOURNAL, MT_J_DISCARDED), C(TGT_DOUBT, MT_NONE),
        C(TGT_RUN_JOURNAL, MT_J_RUNNING) },
    [STEP_RUNNING] = { C(TGT_DONE, MT_CLOSE), C(TGT_RUN_GUEST, MT_RESUME), C(TGT_DONE, MT_CLOSE) },
    [STEP_DISCARDED] = { C(TGT_DISCARDED, MT_CLOSE), C(TGT_DROP_GUEST, MT_DESTROY),
        C(TGT_DISCARDED, MT_CLOSE) },
    [STEP_CLOSED] = { C(TGT_DONE, MT_CLOSE), C(TGT_DONE, MT_CLOSE), C(TGT_DONE, MT_CLOSE) },
};

static const struct mt_cell target_restart_logged[STEP_MAX][COPY_MAX] = {
    [STEP_READY] = { [COPY_HELD] = C(TGT_DOUBT, MT_L_OWNER) },
};

static struct mt_cell pick(bool logged, const struct mt_cell *ours, const struct mt_cell *base)
{
    return logged && ours->op != MT_UNSET ? *ours : *base;
}

struct mt_cell mt_source(bool logged, enum src_state s, enum src_event ev)
{
    return pick(logged, &source_logged[s][ev], &source[s][ev]);
}

struct mt_cell mt_target(bool logged, enum tgt_state s, enum tgt_event ev)
{
    return pick(logged, &target_logged[s][ev], &target[s][ev]);
}

struct mt_cell mt_source_restart(bool logged, enum mt_step last, enum mt_copy copy)
{
    return pick(logged, &source_restart_logged[last][copy], &source_restart[last][copy]);
}

struct mt_cell mt_target_restart(bool logged, enum mt_step last, enum mt_copy copy)
{
    return pick(logged, &target_restart_logged[last][copy], &target_restart[last][copy]);
}

bool mt_source_asks(enum src_state s)
{
    return s >= SRC_BEGINNING && s <= SRC_ENDING;
}

bool mt_source_final(enum src_state s)
{
    return s == SRC_DONE || s == SRC_FAILED;
}

bool mt_target_final(enum tgt_state s)
{
    return s == TGT_DONE || s == TGT_REFUSED || s == TGT_DISCARDED;
}

bool mt_source_committed(enum src_state s)
{
    switch (s) {
    case SRC_COMMITTING:
    case SRC_COMMITTED:
    case SRC_QUERYING:
    case SRC_DOUBT:
    case SRC_FINISHING:
    case SRC_CLEANING:
    case SRC_ASKING:
    case SRC_LOOKING:
    case SRC_TAKING_BACK:
    case SRC_LOST:
    case SRC_LOSING:
        return true;
    case SRC_STARTING:
    case SRC_CONNECT:
    case SRC_PRECOPY:
    case SRC_PREPARING:
    case SRC_PREPARED:
    case SRC_RESUMING:
    case SRC_ABORTING:
    case SRC_RECLAIMING:
    case SRC_RETAKING:
    case SRC_BEGINNING:
    case SRC_ENDING:
    case SRC_DONE:
    case SRC_FAILED:
    case SRC_STATE_MAX:
        break;
    }
    return false;
}

/* --- names --- */

static const char *const source_states[SRC_STATE_MAX] = { "starting", "connecting", "precopy",
    "preparing", "prepared", "committing", "committed", "querying", "in doubt", "finishing",
    "cleaning", "resuming", "aborting", "reclaiming", "retaking", "beginning", "asking",
    "looking", "taking-back", "ending", "lost", "losing", "done", "failed" };
static const char *const source_events[SRC_EVENT_MAX] = { "accepted", "want-pause", "want-commit",
    "end-ok", "end-resumed", "end-failed", "cancel", "op-ok", "op-failed", "answer-running",
    "answer-prepared", "answer-never", "no-answer", "timer", "resolve-run", "resolve-discard",
    "guest-gone", "log-ours", "log-back", "log-theirs", "log-else", "log-none" };
static const char *const target_states[TGT_STATE_MAX] = { "waiting", "checking", "starting",
    "preparing", "receiving", "readying", "ready", "running-journal", "running-guest", "running",
    "in doubt", "dropping", "drop-journal", "drop-guest", "done", "refused", "discarded" };
static const char *const target_events[TGT_EVENT_MAX] = { "offer", "want-ready", "go", "end-ok",
    "end-failed", "cancel", "op-ok", "op-failed", "op-denied", "query", "query-go", "query-abort", "resolve-run",
    "resolve-discard", "guest-gone", "log-ours", "log-else", "log-none", "timer" };
static const char *const ops[MT_OP_MAX] = { "unset", "-", "defer", "refuse", "violation", "bug",
    "spawn", "step-yes", "step-no", "cancel", "kill", "arm", "query", "answer", "verdict-yes",
    "verdict-no", "close", "log:begin", "log:handover", "log:owner", "log:take-back", "log:end",
    "log:wait", "J:STARTED", "J:PREPARED", "J:COMMITTED", "J:DONE", "J:ABORTED",
    "J:RECLAIMED", "J:READY", "J:RUNNING", "J:DISCARDED", "check", "start", "resume", "resume-new",
    "destroy" };
static const char *const steps[STEP_MAX] = { "STARTED", "PREPARED", "COMMITTED", "DONE", "ABORTED",
    "RECLAIMED", "READY", "RUNNING", "DISCARDED", "CLOSED" };

const char *mt_source_state_name(enum src_state s)
{
    return (unsigned)s < SRC_STATE_MAX ? source_states[s] : "unknown";
}

const char *mt_source_event_name(enum src_event ev)
{
    return (unsigned)ev < SRC_EVENT_MAX ? source_events[ev] : "unknown";
}

const char *mt_target_state_name(enum tgt_state s)
{
    return (unsigned)s < TGT_STATE_MAX ? target_states[s] : "unknown";
}

const char *mt_target_event_name(enum tgt_event ev)
{
    return (unsigned)ev < TGT_EVENT_MAX ? target_events[ev] : "unknown";
}

const char *mt_op_name(enum mt_op op)
{
    return (unsigned)op < MT_OP_MAX ? ops[op] : "unknown";
}

const char *mt_step_name(enum mt_step s)
{
    return (unsigned)s < STEP_MAX ? steps[s] : "unknown";
}

int mt_step_parse(const char *word)
{
    for (int i = 0; i < STEP_MAX; i++)
        if (strcmp(steps[i], word) == 0)
            return i;
    return -1;
}
