/* SPDX-License-Identifier: ISC */
/*
 * The hand-over's tables: total, tidy, and safe. The model runs a source and a target over
 * the real tables, with workers that die, a link that loses messages, journals that refuse,
 * hypervisors that fail, and daemons that are killed and restarted, in random order; at no
 * moment do two copies run, and once faults stop exactly one does. Half of the worlds have a
 * cluster's log as the third party: it decides late or never hears, its answers are lost with the
 * daemon that asked, it refuses, and it gives the domain to a third host when it has proof that the
 * owner's copy stands still.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "migrd/migration_table.h"

#define SEEDS 20000
#define STEPS 400
#define QUEUE 64

/* --- the tables by themselves --- */

static bool source_waits(enum src_state s)
{
    return mt_source(false, s, SRC_EV_OP_OK).op != MT_BUG && !mt_source_final(s);
}

static bool target_waits(enum tgt_state s)
{
    return mt_target(false, s, TGT_EV_OP_OK).op != MT_BUG && !mt_target_final(s);
}

static void cells_are_set(bool logged)
{
    for (int s = 0; s < SRC_STATE_MAX; s++)
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source(logged, (enum src_state)s, (enum src_event)e);

            assert_true(c.op > MT_UNSET && c.op < MT_OP_MAX && c.next < SRC_STATE_MAX);
        }
    for (int s = 0; s < TGT_STATE_MAX; s++)
        for (int e = 0; e < TGT_EVENT_MAX; e++) {
            struct mt_cell c = mt_target(logged, (enum tgt_state)s, (enum tgt_event)e);

            assert_true(c.op > MT_UNSET && c.op < MT_OP_MAX && c.next < TGT_STATE_MAX);
        }
    for (int s = 0; s < STEP_MAX; s++)
        for (int k = 0; k < COPY_MAX; k++) {
            assert_true(mt_source_restart(logged, (enum mt_step)s, (enum mt_copy)k).op != MT_UNSET);
            assert_true(mt_target_restart(logged, (enum mt_step)s, (enum mt_copy)k).op != MT_UNSET);
        }
}

static void every_cell_is_set(void **state)
{
    (void)state;
    cells_are_set(false);
    cells_are_set(true);
}

/* An operation with a result leads into a state that waits for it, and only such states defer
 * their worker's events; a deferred event never moves. */
static void are_awaited(bool logged)
{
    for (int s = 0; s < SRC_STATE_MAX; s++)
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source(logged, (enum src_state)s, (enum src_event)e);

            if (c.op >= MT_FIRST_RESULT_ || c.op == MT_L_BEGIN || c.op == MT_L_END)
                assert_true(source_waits((enum src_state)c.next));
            if (c.op >= MT_FIRST_LOG_ && c.op < MT_FIRST_RESULT_)
                assert_true(mt_source_asks((enum src_state)c.next));
            if (!logged) /* nobody comes into those states */
                assert_true(mt_source_asks((enum src_state)s) ||
                            !mt_source_asks((enum src_state)c.next));
            if (c.op == MT_DEFER)
                assert_int_equal(c.next, s);
        }
    for (int s = 0; s < TGT_STATE_MAX; s++)
        for (int e = 0; e < TGT_EVENT_MAX; e++) {
            struct mt_cell c = mt_target(logged, (enum tgt_state)s, (enum tgt_event)e);

            if (c.op >= MT_FIRST_RESULT_)
                assert_true(target_waits((enum tgt_state)c.next));
            if (c.op == MT_DEFER)
                assert_int_equal(c.next, s);
        }
}

static void results_are_awaited(void **state)
{
    (void)state;
    are_awaited(false);
    are_awaited(true);
}

static void final_states_stay(void **state)
{
    (void)state;
    for (int e = 0; e < SRC_EVENT_MAX; e++) {
        assert_int_equal(mt_source(true, SRC_DONE, (enum src_event)e).next, SRC_DONE);
        assert_int_equal(mt_source(true, SRC_FAILED, (enum src_event)e).next, SRC_FAILED);
    }
    for (int e = 0; e < TGT_EVENT_MAX; e++) {
        assert_int_equal(mt_target(true, TGT_DONE, (enum tgt_event)e).next, TGT_DONE);
        assert_int_equal(mt_target(true, TGT_REFUSED, (enum tgt_event)e).next, TGT_REFUSED);
        assert_int_equal(mt_target(true, TGT_DISCARDED, (enum tgt_event)e).next, TGT_DISCARDED);
    }
}

static void names_are_there(void **state)
{
    (void)state;
    for (int s = 0; s < SRC_STATE_MAX; s++)
        assert_string_not_equal(mt_source_state_name((enum src_state)s), "");
    for (int s = 0; s < TGT_STATE_MAX; s++)
        assert_string_not_equal(mt_target_state_name((enum tgt_state)s), "");
    for (int e = 0; e < SRC_EVENT_MAX; e++)
        assert_string_not_equal(mt_source_event_name((enum src_event)e), "");
    for (int e = 0; e < TGT_EVENT_MAX; e++)
        assert_string_not_equal(mt_target_event_name((enum tgt_event)e), "");
    for (int o = 0; o < MT_OP_MAX; o++)
        assert_string_not_equal(mt_op_name((enum mt_op)o), "");
    for (int s = 0; s < STEP_MAX; s++)
        assert_int_equal(mt_step_parse(mt_step_name((enum mt_step)s)), s);
    assert_int_equal(mt_step_parse("COMMITED"), -1);
}

/* Once committed, the guest comes back only by an answer or an operator's word. */
static void no_resume_by_itself(bool logged)
{
    for (int s = 0; s < SRC_STATE_MAX; s++) {
        if (!mt_source_committed((enum src_state)s) || s == SRC_COMMITTING || s == SRC_ASKING)
            continue;
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source(logged, (enum src_state)s, (enum src_event)e);

            assert_true(c.op != MT_RESUME && c.op != MT_RESUME_NEW && c.op != MT_CANCEL);
            if (c.op == MT_J_RECLAIMED && logged)
                assert_int_equal(e, SRC_EV_LOG_BACK);
            else if (c.op == MT_J_RECLAIMED)
                assert_true(e == SRC_EV_ANS_NEVER || e == SRC_EV_RESOLVE_RUN ||
                            e == SRC_EV_LOG_BACK);
        }
    }
}

static void committed_never_resumes_by_itself(void **state)
{
    (void)state;
    no_resume_by_itself(false);
    no_resume_by_itself(true);
}

/* A protected guest that was paused goes on, or is given away, by the log's word alone. */
static void the_log_decides(void **state)
{
    (void)state;
    for (int e = 0; e < SRC_EVENT_MAX; e++) {
        struct mt_cell c = mt_source(true, SRC_ASKING, (enum src_event)e);

        assert_true(c.next == SRC_ASKING || (e >= SRC_EV_LOG_OURS && e < SRC_EV_LOG_NONE));
        assert_int_equal(c.next == SRC_PREPARED, e == SRC_EV_LOG_OURS);
    }
    for (int s = 0; s < SRC_STATE_MAX; s++)
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source(true, (enum src_state)s, (enum src_event)e);

            if (c.op == MT_J_COMMITTED)
                assert_true(s == SRC_ASKING && e == SRC_EV_LOG_THEIRS);
            if (e == SRC_EV_RESOLVE_RUN || e == SRC_EV_RESOLVE_DISCARD)
                assert_int_equal(c.next, s);
        }
}

/* --- the model --- */

enum worker { W_NONE, W_IDLE, W_ASKED, W_READY_SENT, W_PAUSED };

struct side {
    int state;
    int queue[QUEUE];
    unsigned n;
    enum mt_op job; /* with a result, in the pool; MT_NONE */
    bool alive;     /* migrd runs */
    int journal;    /* last durable step, -1 none */
    bool exists, runs, complete;
    enum worker worker;
    bool asker; /* target: a question waits for its answer */
    /* The cluster's log. */
    enum mt_op ask; /* the question that is open; MT_NONE */
    bool decided;   /* and the answer is on its way: */
    int word;
    bool blown;  /* its fuse has burnt, for good */
    bool timer;
    bool renewed; /* source: its copy has epoch e+2 */
};

enum log_state { LOG_RUNNING, LOG_MIGRATING, LOG_HANDED, LOG_RETURNED, LOG_LOST };
enum log_owner { LOG_S, LOG_T, LOG_X };

struct log {
    enum log_owner owner;
    unsigned plus; /* epoch - e */
    enum log_state state;
};

/* The link carries at most one message of each kind. */
struct world {
    struct side s, t;
    bool offer, ready, go, running; /* on their way */
    bool asked_go, asked_abort;     /* questions on their way */
    int answer;                     /* on its way: SRC_EV_ANS_*, -1 none */
    bool question;                  /* the source's query worker is alive */
    bool teller;                    /* the source has to say abort */
    bool logged, fused; /* the latter: copies have fuses */
    struct log log;
    bool third; /* a third host runs it */
    bool never; /* the target's word waits for the log */
    bool faults;
    unsigned rarity; /* of faults; differs per seed */
    uint64_t seed;
};

static unsigned rnd(struct world *w, unsigned n)
{
    w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((w->seed >> 33) % n);
}

static bool luck(struct world *w, unsigned one_in)
{
    return w->faults && rnd(w, one_in * w->rarity) == 0;
}

static void push(struct side *x, int ev)
{
    assert_true(x->n < QUEUE);
    x->queue[x->n++] = ev;
}

/* A copy with a burnt fuse stands still, whatever it was told; one that begins blown needs the
 * log's word. */
static bool source_runs(const struct world *w)
{
    return w->s.runs && !w->s.blown;
}

static bool target_runs(const struct world *w)
{
    bool lit = !w->fused || (w->log.owner == LOG_T && w->log.plus == 1);

    return w->t.runs && !w->t.blown && lit;
}

static void check(const struct world *w)
{
    if (source_runs(w) + target_runs(w) + w->third > 1)
        fail_msg("seed %llu: two copies run: source %s%s, target %s%s%s",
            (unsigned long long)w->seed, mt_source_state_name(w->s.state),
            source_runs(w) ? " runs" : "", mt_target_state_name(w->t.state),
            target_runs(w) ? " runs" : "", w->third ? ", third host runs" : "");
    if (w->t.runs)
        assert_true(w->t.complete);
}

/* Posts a question, or the timer of the next one. False: it is none of the log's. */
static bool log_op(struct side *x, enum mt_op op)
{
    if (op < MT_FIRST_LOG_ || op >= MT_FIRST_RESULT_)
        return false;
    x->timer = op == MT_L_WAIT;
    if (op != MT_L_WAIT) {
        x->ask = op;
        x->decided = false;
    }
    return true;
}

static void src_op(struct world *w, enum mt_op op)
{
    struct side *s = &w->s;

    if (log_op(s, op))
        return;
    if (op >= MT_FIRST_RESULT_) {
        assert_int_equal(s->job, MT_NONE);
        s->job = op;
        return;
    }
    if (op == MT_SPAWN) {
        s->worker = W_IDLE;
        w->offer = true;
    } else if (op == MT_STEP_YES && s->worker != W_NONE && s->state == SRC_PREPARED) {
        s->runs = false; /* the worker pauses the guest and sends the rest */
        s->worker = W_PAUSED;
    } else if (op == MT_STEP_YES && s->worker != W_NONE && s->state == SRC_COMMITTED) {
        w->go = true;
    } else if ((op == MT_STEP_YES || op == MT_STEP_NO) && s->worker == W_NONE) {
        push(s, SRC_EV_END_FAILED);
    } else if (op == MT_KILL && s->worker == W_NONE) {
        push(s, SRC_EV_END_FAILED);
    } else if ((op == MT_STEP_NO || op == MT_CANCEL) && s->worker != W_NONE) {
        s->worker = W_NONE;
        s->runs = s->exists;
        push(s, SRC_EV_END_RESUMED);
    } else if ((op == MT_VIOLATION || op == MT_KILL) && s->worker != W_NONE) {
        s->worker = W_NONE;
        push(s, SRC_EV_END_FAILED);
    } else if (op == MT_QUERY) {
        s->runs = false; /* made sure of first */
        w->question = w->asked_go = true;
    } else if (op == MT_CLOSE && s->state == SRC_FAILED) {
        w->teller = true;
    }
}

static void tgt_op(struct world *w, enum mt_op op)
{
    struct side *t = &w->t;

    if (log_op(t, op))
        return;
    if (op >= MT_FIRST_RESULT_) {
        assert_int_equal(t->job, MT_NONE);
        t->job = op;
        return;
    }
    if (op == MT_STEP_YES && t->state == TGT_READY && t->worker != W_NONE) {
        w->ready = true;
        t->worker = W_READY_SENT;
    } else if (op == MT_STEP_YES && t->state == TGT_RUNNING) {
        if (t->worker != W_NONE)
            w->running = true;
        t->worker = W_NONE;
        push(t, TGT_EV_END_OK);
    } else if (op == MT_VERDICT_YES && t->worker != W_NONE) {
        t->worker = W_ASKED; /* fills memory */
        if (w->s.worker == W_IDLE)
            push(&w->s, SRC_EV_ACCEPTED);
    } else if ((op == MT_STEP_NO || op == MT_VERDICT_NO || op == MT_VIOLATION) &&
               t->worker != W_NONE) {
        t->worker = W_NONE;
        push(t, TGT_EV_END_FAILED);
    } else if (op == MT_KILL) {
        t->worker = W_NONE;
        push(t, TGT_EV_END_FAILED);
    } else if (op == MT_STEP_NO && w->logged && t->state == TGT_DOUBT) {
        t->timer = true;
    }
}

static void answer(struct world *w)
{
    struct side *t = &w->t;

    if (!t->asker)
        return;
    if (t->state == TGT_READY || t->state == TGT_DOUBT)
        w->answer = SRC_EV_ANS_PREPARED;
    else if (t->state == TGT_RUNNING || t->state == TGT_DONE)
        w->answer = SRC_EV_ANS_RUNNING;
    else if ((t->state == TGT_REFUSED || t->state == TGT_DISCARDED) && w->logged)
        w->never = true; /* the log first */
    else if (t->state == TGT_REFUSED || t->state == TGT_DISCARDED)
        w->answer = SRC_EV_ANS_NEVER;
    else
        return;
    t->asker = false;
}

static void drain_source(struct world *w)
{
    struct side *s = &w->s;

    for (unsigned i = 0; i < s->n;) {
        struct mt_cell c = mt_source(w->logged, (enum src_state)s->state, (enum src_event)s->queue[i]);

        if (c.op == MT_DEFER) {
            i++;
            continue;
        }
        memmove(&s->queue[i], &s->queue[i + 1], (--s->n - i) * sizeof s->queue[0]);
        s->state = c.next;
        src_op(w, (enum mt_op)c.op);
        check(w);
        i = 0;
    }
}

static void drain_target(struct world *w)
{
    struct side *t = &w->t;

    for (unsigned i = 0; i < t->n;) {
        int ev = t->queue[i];
        struct mt_cell c = mt_target(w->logged, (enum tgt_state)t->state, (enum tgt_event)ev);

        if (c.op == MT_DEFER) {
            i++;
            continue;
        }
        memmove(&t->queue[i], &t->queue[i + 1], (--t->n - i) * sizeof t->queue[0]);
        if (ev == TGT_EV_QUERY_GO || ev == TGT_EV_QUERY_ABORT)
            t->asker = true;
        t->state = c.next;
        tgt_op(w, (enum mt_op)c.op);
        check(w);
        answer(w);
        i = 0;
    }
    answer(w);
}

/* A journal write may fail cleanly; the step is then not in the file. */
static bool journal_ok(struct world *w, struct side *x, enum mt_step step)
{
    if (luck(w, 8))
        return false;
    x->journal = (int)step;
    return true;
}

static void finish_source_job(struct world *w)
{
    struct side *s = &w->s;
    enum mt_op op = s->job;
    bool ok = true;

    s->job = MT_NONE;
    if (op == MT_J_STARTED)
        ok = journal_ok(w, s, STEP_STARTED);
    else if (op == MT_J_PREPARED)
        ok = journal_ok(w, s, STEP_PREPARED);
    else if (op == MT_J_COMMITTED)
        ok = journal_ok(w, s, STEP_COMMITTED);
    else if (op == MT_J_DONE)
        ok = journal_ok(w, s, STEP_DONE);
    else if (op == MT_J_ABORTED)
        ok = journal_ok(w, s, STEP_ABORTED);
    else if (op == MT_J_RECLAIMED)
        ok = journal_ok(w, s, STEP_RECLAIMED);
    else if (op == MT_RESUME || op == MT_RESUME_NEW) {
        s->runs = ok = s->exists;
        s->renewed |= op == MT_RESUME_NEW && s->exists;
    } else if (op == MT_DESTROY)
        s->exists = s->runs = false;
    push(s, ok ? SRC_EV_OP_OK : SRC_EV_OP_FAILED);
}

static void finish_target_job(struct world *w)
{
    struct side *t = &w->t;
    enum mt_op op = t->job;
    bool ok = true;

    t->job = MT_NONE;
    if (op == MT_CHECK)
        ok = !luck(w, 20);
    else if (op == MT_START)
        t->exists = ok = !luck(w, 20);
    else if (op == MT_J_PREPARED)
        ok = journal_ok(w, t, STEP_PREPARED);
    else if (op == MT_J_READY)
        ok = journal_ok(w, t, STEP_READY);
    else if (op == MT_J_RUNNING && luck(w, 8)) {
        push(t, TGT_EV_OP_DENIED);
        return;
    } else if (op == MT_J_RUNNING)
        ok = journal_ok(w, t, STEP_RUNNING);
    else if (op == MT_J_DISCARDED)
        ok = journal_ok(w, t, STEP_DISCARDED);
    else if (op == MT_RESUME)
        t->runs = ok = t->exists && !luck(w, 8);
    else if (op == MT_DESTROY)
        t->exists = t->runs = false;
    push(t, ok ? TGT_EV_OP_OK : TGT_EV_OP_FAILED);
}

static enum mt_copy copy_of(const struct side *x)
{
    return !x->exists ? COPY_ABSENT : x->runs ? COPY_RUNS : COPY_HELD;
}

/* --- the log: each question is decided at some moment, and answered at a later one --- */

static int word_of_record(const struct world *w, const struct side *x)
{
    const struct log *l = &w->log;

    if (x == &w->t)
        return l->plus == 0 ? TGT_EV_LOG_NONE
               : l->plus == 1 && l->owner == LOG_T && l->state != LOG_RETURNED
                   ? (int)TGT_EV_LOG_OURS
                   : (int)TGT_EV_LOG_ELSE;
    if (l->owner == LOG_S && l->plus == 0)
        return SRC_EV_LOG_OURS;
    if (l->owner == LOG_S && l->plus == 2)
        return SRC_EV_LOG_BACK;
    return l->owner == LOG_T && l->plus == 1 ? SRC_EV_LOG_THEIRS : SRC_EV_LOG_ELSE;
}

static int decide_handover(struct world *w)
{
    struct log *l = &w->log;

    if (l->owner != LOG_S || l->plus != 0 || luck(w, 6))
        return word_of_record(w, &w->s);
    *l = (struct log){ LOG_T, 1, LOG_HANDED };
    return SRC_EV_LOG_THEIRS;
}

static int decide_take_back(struct world *w)
{
    struct log *l = &w->log;

    if (l->owner == LOG_T && l->plus == 1 && l->state == LOG_RETURNED)
        *l = (struct log){ LOG_S, 2, LOG_RUNNING };
    return word_of_record(w, &w->s);
}

static int decide(struct world *w, struct side *x)
{
    struct log *l = &w->log;
    bool ours = l->owner == LOG_S && l->plus == 0;

    switch (x->ask) {
    case MT_L_BEGIN:
        if (!ours || l->state != LOG_RUNNING || luck(w, 6))
            return SRC_EV_OP_FAILED;
        l->state = LOG_MIGRATING;
        return SRC_EV_OP_OK;
    case MT_L_END:
        if (ours)
            l->state = LOG_RUNNING;
        return SRC_EV_OP_OK;
    case MT_L_HANDOVER:
        return decide_handover(w);
    case MT_L_TAKE_BACK:
        return decide_take_back(w);
    default:
        return word_of_record(w, x);
    }
}

/* A daemon that dies leaves a question that was decided, or never will be: what it asks after its
 * restart is behind it in the order of the log. */
static void forget_question(struct world *w, struct side *x)
{
    if (x->ask != MT_NONE && !x->decided && rnd(w, 2) == 0)
        decide(w, x);
    x->ask = MT_NONE;
    x->timer = false;
}

static bool waits_for_log(const struct world *w, const struct side *x)
{
    return x == &w->s ? mt_source_asks((enum src_state)x->state) : x->state == TGT_DOUBT;
}

static void turn_question(struct world *w, struct side *x)
{
    int none = x == &w->s ? (int)SRC_EV_LOG_NONE : (int)TGT_EV_LOG_NONE;
    int timer = x == &w->s ? (int)SRC_EV_TIMER : (int)TGT_EV_TIMER;

    if (x->timer && rnd(w, 3) == 0) {
        x->timer = false;
        push(x, timer);
    } else if (x->ask == MT_NONE) {
        return;
    } else if (!x->decided && luck(w, 6)) { /* no majority: nothing was proposed */
        x->word = x->ask == MT_L_HANDOVER || x->ask == MT_L_TAKE_BACK ? word_of_record(w, x)
                  : x->ask == MT_L_BEGIN                              ? (int)SRC_EV_OP_FAILED
                                                                      : none;
        x->decided = true;
    } else if (!x->decided) {
        x->word = decide(w, x);
        x->decided = true;
    } else if ((x->state == SRC_BEGINNING || x->state == SRC_LOOKING) && x == &w->s && luck(w, 4)) {
        push(x, timer); /* patience is over */
    } else {
        x->ask = MT_NONE;
        if (waits_for_log(w, x))
            push(x, x->word);
    }
}

/* What the cores do by themselves. */
static void turn_cores(struct world *w)
{
    struct log *l = &w->log;

    if (w->never && rnd(w, 2) == 0) {
        w->never = false;
        if (l->owner == LOG_T && l->plus == 1 && l->state == LOG_HANDED)
            l->state = LOG_RETURNED;
        if (l->state != LOG_RUNNING || l->owner != LOG_T)
            w->answer = SRC_EV_ANS_NEVER;
    }
    if (l->owner == LOG_T && l->state == LOG_HANDED && target_runs(w) && rnd(w, 3) == 0)
        l->state = LOG_RUNNING; /* reported */
    if (l->owner == LOG_T && l->state != LOG_RETURNED && !w->t.exists && rnd(w, 200) == 0)
        *l = (struct log){ LOG_X, 3, LOG_LOST }; /* it is gone there, by the target's own word */
    if (l->owner == LOG_S && !w->s.exists && rnd(w, 200) == 0)
        *l = (struct log){ LOG_X, l->plus + 2, LOG_LOST };
    if (!w->fused)
        return; /* no lease proves anything */
    if (l->owner == LOG_S && l->state != LOG_LOST && luck(w, 150)) {
        w->s.blown = true; /* proved by its lease */
        *l = (struct log){ LOG_X, l->plus + 2, LOG_LOST };
    } else if (l->owner == LOG_T && l->state != LOG_RETURNED && luck(w, 150)) {
        w->t.blown = true;
        *l = (struct log){ LOG_X, 3, LOG_LOST };
    }
}

/* Strays: what the log gave to somebody else. */
static void turn_strays(struct world *w)
{
    const struct log *l = &w->log;
    bool back = l->owner == LOG_T && (l->state == LOG_HANDED || l->state == LOG_RETURNED);

    if (w->s.exists && l->owner != LOG_S && !back && w->s.job == MT_NONE && rnd(w, 30) == 0) {
        w->s.exists = w->s.runs = false;
        push(&w->s, SRC_EV_GUEST_GONE);
    }
    if (w->t.exists && l->owner != LOG_T && l->plus >= 2 && w->t.job == MT_NONE &&
        rnd(w, 30) == 0) {
        w->t.exists = w->t.runs = false;
        push(&w->t, TGT_EV_GUEST_GONE);
    }
}

static void turn_log(struct world *w)
{
    if (!w->logged)
        return;
    turn_question(w, &w->s);
    turn_question(w, &w->t);
    turn_cores(w);
    w->third |= w->log.state == LOG_LOST && rnd(w, 3) == 0;
    turn_strays(w);
}

/* Killed and started again: memory is gone, journal and hypervisor are not. Workers give up. */
static void crash_source(struct world *w)
{
    struct side *s = &w->s;
    struct mt_cell c;
    bool wanted = s->state == SRC_ASKING || s->state == SRC_COMMITTING ||
                  s->state == SRC_COMMITTED; /* it has asked to commit, and waits for migrd */

    if (s->worker == W_PAUSED && s->journal < (int)STEP_COMMITTED && !wanted && rnd(w, 2) == 0)
        s->runs = s->exists; /* it noticed, and undid its pause */
    if (!(s->worker == W_PAUSED && s->state == SRC_COMMITTED))
        s->worker = W_NONE;
    s->worker = W_NONE;
    s->n = 0;
    s->job = MT_NONE;
    forget_question(w, s);
    w->question = false;
    w->answer = -1;
    w->teller = false;
    if (s->journal < 0) {
        s->state = SRC_FAILED;
        return;
    }
    c = mt_source_restart(w->logged, (enum mt_step)s->journal, copy_of(s));
    assert_int_not_equal(c.op, MT_BUG);
    s->state = c.next;
    src_op(w, (enum mt_op)c.op);
}

static void crash_target(struct world *w)
{
    struct side *t = &w->t;
    struct mt_cell c;

    t->worker = W_NONE;
    t->n = 0;
    t->job = MT_NONE;
    t->asker = w->never = false;
    forget_question(w, t);
    if (t->journal < 0) {
        t->exists = false; /* strays are destroyed */
        t->state = TGT_REFUSED;
        return;
    }
    c = mt_target_restart(w->logged, (enum mt_step)t->journal, copy_of(t));
    assert_int_not_equal(c.op, MT_BUG);
    t->state = c.next;
    tgt_op(w, (enum mt_op)c.op);
}

/* The source's worker, as far as it may go. */
static void turn_source_worker(struct world *w)
{
    struct side *s = &w->s;

    if (s->worker == W_NONE)
        return;
    if (luck(w, 30)) { /* killed, or it lost the link: past its commit it only reports */
        bool undo = s->state != SRC_COMMITTED && s->state != SRC_COMMITTING &&
                    s->state != SRC_ASKING && rnd(w, 2) == 0;

        s->worker = W_NONE;
        if (undo)
            s->runs = s->exists;
        push(s, undo ? SRC_EV_END_RESUMED : SRC_EV_END_FAILED);
    } else if (s->state == SRC_PRECOPY && s->n == 0) {
        push(s, SRC_EV_WANT_PAUSE);
    } else if (w->ready && s->state == SRC_PREPARED && s->n == 0) {
        w->ready = false;
        push(s, SRC_EV_WANT_COMMIT);
    } else if (w->running && s->state == SRC_COMMITTED) {
        w->running = false;
        s->worker = W_NONE;
        push(s, SRC_EV_END_OK);
    }
}

static void turn_target_worker(struct world *w)
{
    struct side *t = &w->t;

    if (t->worker == W_NONE)
        return;
    if (luck(w, 30)) {
        t->worker = W_NONE;
        push(t, TGT_EV_END_FAILED);
    } else if (w->offer && t->state == TGT_WAIT) {
        w->offer = false;
        push(t, TGT_EV_OFFER);
    } else if (t->state == TGT_RECEIVING && w->s.worker == W_PAUSED && t->n == 0) {
        t->complete = true; /* all memory and the state are here */
        push(t, TGT_EV_WANT_READY);
    } else if (w->go && t->state == TGT_READY && t->n == 0) {
        w->go = false;
        push(t, TGT_EV_GO);
    } else if (w->s.worker == W_NONE && !w->go && rnd(w, 4) == 0) {
        t->worker = W_NONE; /* sees that its peer is gone */
        push(t, TGT_EV_END_FAILED);
    }
}

static void turn_questions(struct world *w)
{
    if (w->asked_go && rnd(w, 2) == 0) {
        w->asked_go = false;
        if (!luck(w, 4))
            push(&w->t, TGT_EV_QUERY_GO);
    }
    if (w->teller && rnd(w, 3) == 0) {
        w->teller = luck(w, 2);
        push(&w->t, TGT_EV_QUERY_ABORT);
    }
    if (w->answer >= 0 && w->question) {
        push(&w->s, luck(w, 4) ? (int)SRC_EV_ANS_NONE : w->answer);
        w->question = false;
        w->answer = -1;
    } else if (w->question && !w->asked_go && !w->t.asker && w->t.n == 0 && w->answer < 0) {
        push(&w->s, SRC_EV_ANS_NONE); /* the question was lost */
        w->question = false;
    }
    if (w->s.state == SRC_DOUBT && rnd(w, 3) == 0)
        push(&w->s, SRC_EV_TIMER);
}

static void turn(struct world *w)
{
    switch (rnd(w, 9)) {
    case 0:
        if (w->s.job != MT_NONE)
            finish_source_job(w);
        break;
    case 1:
        if (w->t.job != MT_NONE)
            finish_target_job(w);
        break;
    case 2:
        turn_source_worker(w);
        break;
    case 3:
        turn_target_worker(w);
        break;
    case 4:
        turn_questions(w);
        break;
    case 5:
        if (luck(w, 30))
            push(&w->s, SRC_EV_CANCEL);
        if (luck(w, 60))
            push(&w->t, TGT_EV_CANCEL);
        break;
    case 6:
        if (luck(w, 40))
            crash_source(w);
        else if (luck(w, 40))
            crash_target(w);
        break;
    case 7:
        turn_log(w);
        break;
    default:
        /* The link loses what is on it. */
        if (luck(w, 40))
            w->go = w->running = w->ready = false;
        break;
    }
    check(w);
    drain_source(w);
    drain_target(w);
    check(w);
}

/* Exactly one copy, where the log says. */
static void check_end(const struct world *w, uint64_t seed)
{
    if (!mt_source_final((enum src_state)w->s.state))
        fail_msg("seed %llu: no end: source %s (worker %d, job %s), target %s (worker %d)",
            (unsigned long long)seed, mt_source_state_name(w->s.state), w->s.worker,
            mt_op_name(w->s.job), mt_target_state_name(w->t.state), w->t.worker);
    if (source_runs(w) + target_runs(w) + w->third != 1)
        fail_msg("seed %llu: not one runs: source %s, target %s, log %d +%u %d",
            (unsigned long long)seed, mt_source_state_name(w->s.state),
            mt_target_state_name(w->t.state), w->log.owner, w->log.plus, w->log.state);
    if (w->logged && source_runs(w))
        assert_true(w->log.owner == LOG_S && w->log.plus == (w->s.renewed ? 2u : 0u));
    if (w->logged && w->log.owner == LOG_S)
        assert_int_equal(w->log.state, LOG_RUNNING); /* nobody waits for its move to end */
}

static bool is_quiet(const struct world *w)
{
    return mt_source_final((enum src_state)w->s.state) && w->s.n == 0 && w->s.job == MT_NONE &&
           w->t.job == MT_NONE && !w->teller && w->t.n == 0 && w->s.ask == MT_NONE &&
           w->t.ask == MT_NONE &&
           (!w->logged || source_runs(w) + target_runs(w) + w->third == 1);
}

static void run_world(uint64_t seed, bool logged, unsigned *done, unsigned *kept)
{
    struct world w = { .answer = -1,
        .logged = logged,
        .fused = logged && seed % 3 != 0,
        .faults = true,
        .rarity = (unsigned)(1 + seed % 25),
        .seed = seed * 2654435761u + 1 };
    unsigned i;

    w.s = (struct side){ .state = SRC_STARTING,
        .job = MT_J_STARTED,
        .alive = true,
        .journal = -1,
        .exists = true,
        .runs = true };
    w.t = (struct side){
        .state = TGT_WAIT, .job = MT_NONE, .alive = true, .journal = -1, .worker = W_IDLE
    };
    for (i = 0; i < STEPS; i++)
        turn(&w);
    /* Quiet: the hand-over comes to its end. */
    w.faults = false;
    for (i = 0;
         i < 8000 && !is_quiet(&w); i++) {
        turn(&w);
        if (w.s.worker != W_NONE && w.t.worker == W_NONE && rnd(&w, 20) == 0) {
            /* The source's worker notices a dead peer. */
            w.s.worker = W_NONE;
            bool stays = w.s.state == SRC_COMMITTED || w.s.state == SRC_COMMITTING ||
                         w.s.state == SRC_ASKING;

            if (!stays)
                w.s.runs = w.s.exists;
            push(&w.s, stays ? SRC_EV_END_FAILED : SRC_EV_END_RESUMED);
        } else if (w.s.worker != W_NONE && w.s.state == SRC_COMMITTED && !w.go && !w.running &&
                   rnd(&w, 20) == 0) {
            w.s.worker = W_NONE; /* its message was lost with the link */
            push(&w.s, SRC_EV_END_FAILED);
        } else if (w.s.worker != W_NONE && w.s.state == SRC_PREPARED && !w.ready &&
                   w.t.state != TGT_RECEIVING && rnd(&w, 50) == 0) {
            w.s.worker = W_NONE;
            w.s.runs = w.s.exists;
            push(&w.s, SRC_EV_END_RESUMED);
        }
    }
    check_end(&w, seed);
    *done += target_runs(&w);
    *kept += source_runs(&w);
}

static void never_two(bool logged)
{
    unsigned done = 0, kept = 0;

    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run_world(seed, logged, &done, &kept);
    /* The model is of use only if both ends are reached often. */
    assert_true(done > SEEDS / 10);
    assert_true(kept > SEEDS / 10);
}

static void never_two_runners(void **state)
{
    (void)state;
    never_two(false);
}

static void never_two_runners_with_a_log(void **state)
{
    (void)state;
    never_two(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_set),
        cmocka_unit_test(results_are_awaited),
        cmocka_unit_test(final_states_stay),
        cmocka_unit_test(names_are_there),
        cmocka_unit_test(committed_never_resumes_by_itself),
        cmocka_unit_test(the_log_decides),
        cmocka_unit_test(never_two_runners),
        cmocka_unit_test(never_two_runners_with_a_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
