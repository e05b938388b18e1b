/* SPDX-License-Identifier: ISC */
/*
 * The hand-over's tables: total, tidy, and safe. The model runs a source and a target over
 * the real tables, with workers that die, a link that loses messages, journals that refuse,
 * hypervisors that fail, and daemons that are killed and restarted, in random order; at no
 * moment do two copies run, and once faults stop exactly one does.
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

/* --- the tables by themselves ------------------------------------------------------------- */

static bool source_waits(enum src_state s)
{
    return mt_source(s, SRC_EV_OP_OK).op != MT_BUG && !mt_source_final(s);
}

static bool target_waits(enum tgt_state s)
{
    return mt_target(s, TGT_EV_OP_OK).op != MT_BUG && !mt_target_final(s);
}

static void every_cell_is_set(void **state)
{
    (void)state;
    for (int s = 0; s < SRC_STATE_MAX; s++)
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source((enum src_state)s, (enum src_event)e);

            assert_true(c.op > MT_UNSET && c.op < MT_OP_MAX && c.next < SRC_STATE_MAX);
        }
    for (int s = 0; s < TGT_STATE_MAX; s++)
        for (int e = 0; e < TGT_EVENT_MAX; e++) {
            struct mt_cell c = mt_target((enum tgt_state)s, (enum tgt_event)e);

            assert_true(c.op > MT_UNSET && c.op < MT_OP_MAX && c.next < TGT_STATE_MAX);
        }
    for (int s = 0; s < STEP_MAX; s++)
        for (int k = 0; k < COPY_MAX; k++) {
            assert_true(mt_source_restart((enum mt_step)s, (enum mt_copy)k).op != MT_UNSET);
            assert_true(mt_target_restart((enum mt_step)s, (enum mt_copy)k).op != MT_UNSET);
        }
}

/* An operation with a result leads into a state that waits for it, and only such states defer
 * their worker's events; a deferred event never moves. */
static void results_are_awaited(void **state)
{
    (void)state;
    for (int s = 0; s < SRC_STATE_MAX; s++)
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source((enum src_state)s, (enum src_event)e);

            if (c.op >= MT_FIRST_RESULT_)
                assert_true(source_waits((enum src_state)c.next));
            if (c.op == MT_DEFER)
                assert_int_equal(c.next, s);
        }
    for (int s = 0; s < TGT_STATE_MAX; s++)
        for (int e = 0; e < TGT_EVENT_MAX; e++) {
            struct mt_cell c = mt_target((enum tgt_state)s, (enum tgt_event)e);

            if (c.op >= MT_FIRST_RESULT_)
                assert_true(target_waits((enum tgt_state)c.next));
            if (c.op == MT_DEFER)
                assert_int_equal(c.next, s);
        }
}

static void final_states_stay(void **state)
{
    (void)state;
    for (int e = 0; e < SRC_EVENT_MAX; e++) {
        assert_int_equal(mt_source(SRC_DONE, (enum src_event)e).next, SRC_DONE);
        assert_int_equal(mt_source(SRC_FAILED, (enum src_event)e).next, SRC_FAILED);
    }
    for (int e = 0; e < TGT_EVENT_MAX; e++) {
        assert_int_equal(mt_target(TGT_DONE, (enum tgt_event)e).next, TGT_DONE);
        assert_int_equal(mt_target(TGT_REFUSED, (enum tgt_event)e).next, TGT_REFUSED);
        assert_int_equal(mt_target(TGT_DISCARDED, (enum tgt_event)e).next, TGT_DISCARDED);
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
static void committed_never_resumes_by_itself(void **state)
{
    (void)state;
    for (int s = 0; s < SRC_STATE_MAX; s++) {
        if (!mt_source_committed((enum src_state)s) || s == SRC_COMMITTING)
            continue;
        for (int e = 0; e < SRC_EVENT_MAX; e++) {
            struct mt_cell c = mt_source((enum src_state)s, (enum src_event)e);

            assert_true(c.op != MT_RESUME && c.op != MT_RESUME_NEW && c.op != MT_CANCEL);
            if (c.op == MT_J_RECLAIMED)
                assert_true(e == SRC_EV_ANS_NEVER || e == SRC_EV_RESOLVE_RUN);
        }
    }
}

/* --- the model ---------------------------------------------------------------------------------
 */

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
};

/* The link carries at most one message of each kind. */
struct world {
    struct side s, t;
    bool offer, ready, go, running; /* on their way */
    bool asked_go, asked_abort;     /* questions on their way */
    int answer;                     /* on its way: SRC_EV_ANS_*, -1 none */
    bool question;                  /* the source's query worker is alive */
    bool teller;                    /* the source has to say abort */
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

static void check(const struct world *w)
{
    if (w->s.runs && w->t.runs)
        fail_msg("two copies run: source %s, target %s", mt_source_state_name(w->s.state),
            mt_target_state_name(w->t.state));
    if (w->t.runs)
        assert_true(w->t.complete);
}

static void src_op(struct world *w, enum mt_op op)
{
    struct side *s = &w->s;

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
        struct mt_cell c = mt_source((enum src_state)s->state, (enum src_event)s->queue[i]);

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
        struct mt_cell c = mt_target((enum tgt_state)t->state, (enum tgt_event)ev);

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
    else if (op == MT_RESUME || op == MT_RESUME_NEW)
        s->runs = ok = s->exists;
    else if (op == MT_DESTROY)
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

/* Killed and started again: memory is gone, journal and hypervisor are not. Workers give up. */
static void crash_source(struct world *w)
{
    struct side *s = &w->s;
    struct mt_cell c;

    if (s->worker == W_PAUSED && s->journal < (int)STEP_COMMITTED && rnd(w, 2) == 0)
        s->runs = s->exists; /* it noticed, and undid its pause */
    if (!(s->worker == W_PAUSED && s->state == SRC_COMMITTED))
        s->worker = W_NONE;
    s->worker = W_NONE;
    s->n = 0;
    s->job = MT_NONE;
    w->question = false;
    w->answer = -1;
    w->teller = false;
    if (s->journal < 0) {
        s->state = SRC_FAILED;
        return;
    }
    c = mt_source_restart((enum mt_step)s->journal, copy_of(s));
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
    t->asker = false;
    if (t->journal < 0) {
        t->exists = false; /* strays are destroyed */
        t->state = TGT_REFUSED;
        return;
    }
    c = mt_target_restart((enum mt_step)t->journal, copy_of(t));
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
        bool undo = s->state != SRC_COMMITTED && s->state != SRC_COMMITTING && rnd(w, 2) == 0;

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
    switch (rnd(w, 8)) {
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

static void run_world(uint64_t seed, unsigned *done, unsigned *kept)
{
    struct world w = { .answer = -1,
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
         i < 4000 && !(mt_source_final((enum src_state)w.s.state) && w.s.n == 0 &&
                         w.s.job == MT_NONE && w.t.job == MT_NONE && !w.teller && w.t.n == 0);
         i++) {
        turn(&w);
        if (w.s.worker != W_NONE && w.t.worker == W_NONE && rnd(&w, 20) == 0) {
            /* The source's worker notices a dead peer. */
            w.s.worker = W_NONE;
            if (w.s.state != SRC_COMMITTED && w.s.state != SRC_COMMITTING)
                w.s.runs = w.s.exists;
            push(&w.s, w.s.state == SRC_COMMITTED || w.s.state == SRC_COMMITTING
                           ? SRC_EV_END_FAILED
                           : SRC_EV_END_RESUMED);
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
    if (!mt_source_final((enum src_state)w.s.state))
        fail_msg("seed %llu: no end: source %s (worker %d, job %s), target %s (worker %d)",
            (unsigned long long)seed, mt_source_state_name(w.s.state), w.s.worker,
            mt_op_name(w.s.job), mt_target_state_name(w.t.state), w.t.worker);
    if (!w.s.runs && !w.t.runs)
        fail_msg("seed %llu: nobody runs: source %s, target %s", (unsigned long long)seed,
            mt_source_state_name(w.s.state), mt_target_state_name(w.t.state));
    *done += w.t.runs;
    *kept += w.s.runs;
}

static void never_two_runners(void **state)
{
    unsigned done = 0, kept = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run_world(seed, &done, &kept);
    /* The model is of use only if both ends are reached often. */
    assert_true(done > SEEDS / 10);
    assert_true(kept > SEEDS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_is_set),
        cmocka_unit_test(results_are_awaited),
        cmocka_unit_test(final_states_stay),
        cmocka_unit_test(names_are_there),
        cmocka_unit_test(committed_never_resumes_by_itself),
        cmocka_unit_test(never_two_runners),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
