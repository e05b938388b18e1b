/* SPDX-License-Identifier: ISC */
/*
 * The target side: sessions, the checks of an offer, operations of the target table. The
 * worker speaks with the peer; nothing of what the peer says is believed here but the
 * identity in its certificate, and of its definition only what define_check passes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/events.h"
#include "migrd/facts_query.h"
#include "migrd/migration_internal.h"

#define RESUME_LOOKS 9 /* of HV_CALL_TIMEOUT_MS */

/* --- talking to the worker --- */

static void step_answer(struct migration *g, bool ok)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__StepOk s = MIGRD__STEP_OK__INIT;

    if (g->worker == NULL) {
        /* Started by a question with go: nobody else will end this migration. */
        if (ok && g->state == TGT_RUNNING)
            mig_post(g, TGT_EV_END_OK);
        if (!ok && g->state == TGT_DOUBT)
            mig_log_wait(g);
        return;
    }
    s.ok = ok;
    s.code = (char *)(uintptr_t)(ok ? "" : err_code_name(g->op_error.code));
    s.text = ok ? (char *)(uintptr_t) "" : g->op_error.text;
    s.journal_us = g->journal_us;
    s.resume_us = g->resume_us;
    t.body_case = MIGRD__TO_WORKER__BODY_STEP;
    t.step = &s;
    worker_send(g->worker, &t, -1);
}

void tgt_verdict(struct migration *g, bool ok)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__OfferVerdict v = MIGRD__OFFER_VERDICT__INIT;

    if (!ok)
        mig_fail(g, g->op_error.code, "%s", g->op_error.text);
    if (g->worker == NULL)
        return;
    v.ok = ok;
    v.code = (char *)(uintptr_t)(ok ? "" : err_code_name(g->failure.code));
    v.text = ok ? (char *)(uintptr_t) "" : g->failure.text;
    v.uuid = g->uuid;
    v.channels = TR_CHANNELS_MAX;
    v.report = g->checks;
    t.body_case = MIGRD__TO_WORKER__BODY_OFFER_VERDICT;
    t.offer_verdict = &v;
    worker_send(g->worker, &t, -1);
}

static void on_offer(struct migration *g, const Migrd__OfferSeen *o)
{
    size_t id_len = o->dry_run ? 0 : HV_UUID_LEN - 1;

    if (g->state != TGT_WAIT || g->offer != NULL || strlen(o->migration) != id_len) {
        log_error("migration", "session of %s: an offer at the wrong time", g->address);
        worker_kill(g->worker);
        return;
    }
    if (o->dry_run) {
        dry_offer(g, o);
        return;
    }
    snprintf(g->id, sizeof g->id, "%s", o->migration);
    mig_host_text(g->peer, sizeof g->peer, o->source_host);
    snprintf(g->cert, sizeof g->cert, "%s", o->peer_cert);
    g->epoch = o->epoch;
    g->offer = migrd__offer__unpack(NULL, o->offer.len, o->offer.data);
    g->logged = g->offer != NULL && g->offer->ha;
    g->flags = g->logged ? JF_PROTECTED : 0;
    g->def = o->domain != NULL ? define_copy(o->domain) : NULL;
    if (o->domain != NULL) {
        snprintf(g->uuid, sizeof g->uuid, "%s", o->domain->uuid);
        snprintf(g->name, sizeof g->name, "%s", o->domain->name);
    }
    mig_post(g, TGT_EV_OFFER);
}

static void on_message(void *arg, const Migrd__FromWorker *fw)
{
    struct migration *g = arg;

    switch (fw->body_case) {
    case MIGRD__FROM_WORKER__BODY_OFFER:
        on_offer(g, fw->offer);
        break;
    case MIGRD__FROM_WORKER__BODY_QUERY:
        query_seen(g, fw->query);
        break;
    case MIGRD__FROM_WORKER__BODY_FACTS:
        facts_seen(g, fw->facts);
        break;
    case MIGRD__FROM_WORKER__BODY_WANT_READY:
        mig_post(g, TGT_EV_WANT_READY);
        break;
    case MIGRD__FROM_WORKER__BODY_GO_RECEIVED:
        mig_post(g, TGT_EV_GO);
        break;
    case MIGRD__FROM_WORKER__BODY_PROGRESS:
        mig_take_progress(g, fw->progress);
        break;
    case MIGRD__FROM_WORKER__BODY_ACCEPTED:
    case MIGRD__FROM_WORKER__BODY_WANT_PAUSE:
    case MIGRD__FROM_WORKER__BODY_WANT_COMMIT:
    case MIGRD__FROM_WORKER__BODY_FINISHED:
    case MIGRD__FROM_WORKER__BODY__NOT_SET:
    default:
        log_error("migration", "%s: the target worker sends a message of kind %d", g->id,
            (int)fw->body_case);
        worker_kill(g->worker);
        break;
    }
}

static void on_ended(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct migration *g = arg;

    g->worker = NULL;
    mig_take_report(g, fin);
    if (g->report != NULL && g->report->checks == NULL) {
        g->report->checks = g->checks;
        g->checks = NULL;
    }
    if (fin == NULL)
        mig_fail(g, ERR_INTERNAL, "%s", how);
    else if (!fin->ok)
        mig_fail(g, ERR_PEER, "%s", fin->text);
    mig_post(g, fin != NULL && fin->ok ? TGT_EV_END_OK : TGT_EV_END_FAILED);
}

/* --- sessions --- */

static unsigned sessions(const struct migrd *m, bool with_offer)
{
    unsigned n = 0;

    for (const struct migration *g = m->migrations->active; g != NULL; g = g->next)
        if (g->kind == MIG_IN && g->worker != NULL && !g->is_over)
            n += !with_offer || (g->uuid[0] != '\0' && !mt_target_final((enum tgt_state)g->state));
    return n;
}

bool migration_session_room(const struct migrd *m)
{
    return !m->migrations->stopping &&
           sessions(m, false) < m->config.relocation_max_sessions + MIGRATION_SPARE_SESSIONS;
}

static int make_session_name(char out[TR_SESSION_LEN])
{
    uint8_t r[16];

    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r)
        return -1;
    for (size_t i = 0; i < sizeof r; i++)
        snprintf(out + i * 2, 3, "%02x", r[i]);
    return 0;
}

static void send_start(struct migration *g, int fd)
{
    struct migrd *m = g->m;
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__TargetStart s = MIGRD__TARGET_START__INIT;
    Migrd__WorkerTls tls;
    char path[3][PATHS_LEN];

    s.hypervisor = (char *)(uintptr_t)m->hv_ops->name;
    s.run_dir = m->paths.hv;
    s.log_dir = m->paths.log;
    s.session = g->session;
    s.peer_address = g->address;
    s.peer_name = g->peer_name;
    s.check_peer_name = m->config.relocation_check_name;
    s.own_name = m->host_name;
    s.channels_max = TR_CHANNELS_MAX;
    s.dead_peer_ms = m->config.dead_peer_ms;
    if (m->config.relocation_tls) {
        mig_worker_tls(m, &tls, path);
        s.tls = &tls;
    }
    t.body_case = MIGRD__TO_WORKER__BODY_TARGET;
    t.target = &s;
    worker_send(g->worker, &t, fd);
}

int migration_session(struct migrd *m, int fd, const char *address, const char *name, struct err *e)
{
    static const struct worker_calls calls = { on_message, on_ended };
    struct migration *g;

    if (!migration_session_room(m))
        return err_set(e, ERR_RESOURCE, "%u sessions are under way", sessions(m, false));
    g = mig_new(m, MIG_IN);
    if (g == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for a session");
    g->state = TGT_WAIT;
    snprintf(g->address, sizeof g->address, "%s", address);
    snprintf(g->peer_name, sizeof g->peer_name, "%s", name);
    snprintf(g->peer, sizeof g->peer, "%s", name[0] != '\0' ? name : address);
    if (make_session_name(g->session) < 0 || worker_start(m, 0, &calls, g, &g->worker, e) < 0) {
        mig_fail(g, e->code, "%s", e->text);
        mig_post(g, TGT_EV_END_FAILED);
        return -1;
    }
    send_start(g, fd);
    return 0;
}

int migration_channel(struct migrd *m, const char *session, unsigned channel, int fd, struct err *e)
{
    struct migration *g = mig_by_session(m, session);
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__ChannelArrived c = MIGRD__CHANNEL_ARRIVED__INIT;

    if (g == NULL || g->worker == NULL || g->state != TGT_RECEIVING)
        return err_set(e, ERR_NOT_FOUND, "no such session");
    c.channel = channel;
    t.body_case = MIGRD__TO_WORKER__BODY_CHANNEL;
    t.channel = &c;
    worker_send(g->worker, &t, fd);
    return 0;
}

/* --- checks --- */

static int refuse_known(const struct migration *g, struct err *e)
{
    for (const struct ended_in *i = g->m->migrations->ended; i != NULL; i = i->next)
        if (strcmp(i->id, g->id) == 0)
            return err_set(e, ERR_STATE, "migration %s has ended here already", g->id);
    for (const struct migration *o = g->m->migrations->active; o != NULL; o = o->next)
        if (o != g && strcmp(o->id, g->id) == 0)
            return err_set(e, ERR_STATE, "migration %s is under way already", g->id);
    return 0;
}

int tgt_check_session(const struct migration *g, struct err *e)
{
    const struct migrd *m = g->m;
    bool counted = g->uuid[0] != '\0';

    if (sessions(m, true) + !counted > m->config.relocation_max_sessions)
        return err_set(e, ERR_RESOURCE,
            "host %s takes %u migrations at once (relocation-max-sessions) and has as many; try "
            "again later",
            m->host_name, m->config.relocation_max_sessions);
    return 0;
}

/* In the loop: what needs the registry. */
int tgt_check_offer(struct migration *g, struct err *e)
{
    struct migrd *m = g->m;
    struct domain *d;

    if (g->def == NULL || g->offer == NULL)
        return err_set(e, ERR_PROTOCOL, "the offer cannot be read");
    if (look_check_home(g, e) < 0 || refuse_known(g, e) < 0 || tgt_check_session(g, e) < 0 ||
        mig_log_may_come(g, e) < 0)
        return -1;
    d = registry_incoming(m, g->def, g, e);
    if (d == NULL)
        return -1;
    if (g->offer->stay_paused)
        g->flags |= JF_STAY_PAUSED;
    if (g->offer->change_home)
        g->flags |= JF_CHANGE_HOME;
    return registry_check_epoch(m, g->name, d->epoch, g->epoch, e);
}

/* In the loop, with fresh figures. Reserves the memory. */
int tgt_check_host(struct migration *g, struct mig_look *l, struct err *e)
{
    struct domain *d = mig_domain(g);

    if (d == NULL && g->taken.code == ERR_NONE)
        return err_set(e, ERR_INTERNAL, "domain %s has no entry", g->name);
    if (look_judge(g, l, &g->taken, e) < 0)
        return -1;
    return registry_reserve(d, g->def, e);
}

static void checked(struct mig_job *mj)
{
    if (mj->job.result == 0)
        mj->job.result = tgt_check_host(mj->g, mj->look, &mj->job.err);
    mj->g->op_error = mj->job.err;
}

/* --- jobs --- */

static void start_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    const struct hv_start how = {
        .epoch = mj->epoch, .domid = mj->domid, .incoming = true, .blown = mj->blown
    };

    j->result = mj->ops->start(mj->hv, mj->def, &how, &j->err);
}

static void incoming_started(struct mig_job *mj)
{
    struct domain *d = mig_domain(mj->g);

    if (mj->job.result < 0 || d == NULL)
        return;
    registry_incoming_started(mj->g->m, d, mj->g->def, mj->epoch, mj->domid);
    registry_publish(mj->g->m, d, "domain-incoming", mj->g->peer);
}

/* A resume whose answer is lost may have worked, or be at it still (leases, disks): the question
 * behind it is answered after it. A guest that ended, or waits for its disk, has run, too. */
int mig_resume(struct mig_job *mj, bool *gone, struct err *e)
{
    struct hv_info info;
    struct err why;

    *gone = false;
    if (mj->ops->resume(mj->hv, mj->uuid, mj->epoch, e) == 0)
        return 0;
    if (e->code == ERR_NOT_FOUND) /* there was nobody to be told */
        return -1;
    for (unsigned i = 0; i < RESUME_LOOKS; i++) {
        err_clear(&why);
        if (mj->ops->info(mj->hv, mj->uuid, &info, &why) == 0)
            return info.state == HV_INCOMING || hv_is_paused(&info) ? -1 : 0;
        *gone = why.code == ERR_NOT_FOUND;
        if (why.code != ERR_TIMEOUT && why.code != ERR_PEER)
            break;
    }
    return -1;
}

void mig_leave_paused(struct mig_job *mj)
{
    struct err e;

    if (mj->ops->pause(mj->hv, mj->uuid, mj->epoch, &e) < 0)
        log_warn("migration", "%s: must be unpaused before it can move on: %s", mj->uuid, e.text);
}

/* If the process is gone meanwhile, it counts as one that worked: what the guest did in its last
 * moment must not be done again elsewhere. */
static void run_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    bool gone;

    if (mj->leave_paused) {
        mig_leave_paused(mj);
        return;
    }
    j->result = mig_resume(mj, &gone, &j->err);
    if (gone)
        j->result = 0;
}

/* Before the record: where this host cannot have the disks, it must not say that the guest runs
 * here. A process of an older release does it in the resume. */
int mig_claim(struct mig_job *mj, struct err *e)
{
    if (mj->ops->claim == NULL || mj->ops->claim(mj->hv, mj->uuid, mj->epoch, mj->decided, e) == 0)
        return 0;
    return e->code == ERR_UNSUPPORTED ? 0 : -1;
}

/* The source gave the guest to us, and the storage does not give us its disks: nothing has run
 * here, so that it may have it back at once. Not so on an operator's word, who hears of it and may
 * say something else, nor where the storage only does not answer. */
static bool is_denied(const struct mig_job *mj, const struct err *e)
{
    return !mj->decided && (e->code == ERR_EPOCH || e->code == ERR_REFUSED);
}

/* The record and the resume after it in one job: a paused guest waits for both. What the resume
 * came to is told when the table asks for it. */
static void journal_and_run_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    char point[64];
    uint64_t began;

    j->result = mig_claim(mj, &j->err);
    mj->denied = j->result < 0 && is_denied(mj, &j->err);
    if (j->result < 0)
        return;
    mig_journal_work(j);
    if (j->result < 0)
        return;
    snprintf(point, sizeof point, "migrd-in-%s", mt_target_state_name(TGT_RUN_GUEST));
    if (FAULT(point))
        log_warn("fault", "point %s has no failure of its own", point);
    began = clock_ns();
    run_work(j);
    mj->resume_us = (clock_ns() - began) / NS_PER_US;
    mj->ran_result = j->result;
    mj->ran_err = j->err;
    j->result = 0; /* the record is written: that is what this job was for */
}

static void recorded(struct mig_job *mj)
{
    struct migration *g = mj->g;

    if (mj->denied)
        mig_fail(g, mj->job.err.code, "%s", mj->job.err.text);
    if (mj->job.result < 0) {
        mig_not_decided(g);
        return;
    }
    g->ran = true;
    g->ran_result = mj->ran_result;
    g->ran_err = mj->ran_err;
}

static void runs(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);

    if (mj->job.result < 0 || d == NULL)
        return;
    registry_set_state(g->m, d, mj->leave_paused ? HV_PAUSED : HV_RUNNING);
    registry_set_owner(g->m, d, g->m->host_name, g->epoch);
    registry_publish(g->m, d, "domain-arrived", g->peer);
}

static void drop_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    j->result = mj->ops->destroy(mj->hv, mj->uuid, mj->epoch, &j->err);
    if (j->result < 0 && j->err.code == ERR_NOT_FOUND)
        j->result = 0;
}

static void dropped(struct mig_job *mj)
{
    struct domain *d = mig_domain(mj->g);

    if (mj->job.result < 0 || d == NULL || !d->live)
        return;
    registry_gone(mj->g->m, d);
    registry_publish(mj->g->m, d, "domain-discarded", mj->g->peer);
}

static bool has_result(enum mt_op op)
{
    return op >= MT_FIRST_RESULT_;
}

static void start_job(struct migration *g, enum mt_op op)
{
    struct mig_job *mj = mig_job_new(g, op);

    if (mj == NULL || (op == MT_CHECK && (mj->look = look_new(g, true)) == NULL) ||
        (op == MT_START && (mj->def = define_copy(g->def)) == NULL)) {
        free(mj);
        err_set(&g->op_error, ERR_MEMORY, "out of memory");
        mig_post(g, TGT_EV_OP_FAILED);
        return;
    }
    mj->leave_paused = (g->flags & JF_STAY_PAUSED) != 0;
    switch (op) {
    case MT_CHECK:
        mj->then = checked;
        mig_look_run(mj);
        break;
    case MT_START:
        g->domid = mj->domid = registry_next_domid(g->m);
        mj->blown = ha_begins_blown(g->m, g->uuid);
        mj->then = incoming_started;
        mig_job_run(mj, start_work);
        break;
    case MT_RESUME:
        mj->then = runs;
        if (g->ran) {
            mj->job.result = g->ran_result;
            mj->job.err = g->ran_err;
            mj->journal_us = g->journal_us;
            mj->resume_us = g->resume_us;
            g->ran = false;
            mig_job_end(mj);
        } else {
            mig_job_run(mj, run_work);
        }
        break;
    default:
        mj->then = dropped;
        mig_job_run(mj, drop_work);
        break;
    }
}

static void journal(struct migration *g, enum mt_step step, enum mt_op op)
{
    struct mig_job *mj = mig_job_new(g, op);

    if (mj == NULL) {
        err_set(&g->op_error, ERR_MEMORY, "out of memory for a journal record");
        mig_post(g, TGT_EV_OP_FAILED);
        return;
    }
    mig_record(g, step, &mj->rec[mj->n_rec++]);
    /* A crash of the host takes the copy along: READY need only survive migrd. */
    mj->sync = step != STEP_READY;
    if (step == STEP_RUNNING)
        mig_owner_record(g, ".", g->epoch, &mj->rec[mj->n_rec++]);
    if (step == STEP_RUNNING) {
        mj->decided = (g->flags & JF_FORCED) != 0;
        mj->leave_paused = (g->flags & JF_STAY_PAUSED) != 0;
        mj->then = recorded;
        mig_job_run(mj, journal_and_run_work);
    } else {
        mig_job_run(mj, mig_journal_work);
    }
}

/* --- operations --- */

/* What is wrong with the domain's entry here is one line of the report; a hold that ends soon is
 * not: the source asks again. */
bool tgt_goes_on(const struct err *e)
{
    return e->code == ERR_EXISTS || e->code == ERR_EPOCH;
}

static void check(struct migration *g)
{
    struct err e = { 0 };

    if (tgt_check_offer(g, &e) < 0 && tgt_goes_on(&e)) {
        g->taken = e;
    } else if (e.code != ERR_NONE) {
        g->op_error = e;
        mig_post(g, TGT_EV_OP_FAILED);
        return;
    }
    log_info("migration", "%s: %s offers %s: %llu MiB, %u vCPUs, epoch %llu", g->id, g->peer,
        g->name, (unsigned long long)g->def->memory_kib / 1024, g->def->vcpus,
        (unsigned long long)g->epoch);
    start_job(g, MT_CHECK);
}

static void kill_worker(struct migration *g)
{
    if (g->worker != NULL)
        worker_kill(g->worker);
    else
        mig_post(g, TGT_EV_END_FAILED);
}

static void home_defined(void *arg, const char *uuid, const struct err *e)
{
    (void)arg;
    if (e->code != ERR_NONE)
        log_error("migration", "%s: its definition could not be kept here: %s", uuid, e->text);
}

static void close_in(struct migration *g)
{
    struct domain *d = mig_domain(g);
    Migrd__Domain *copy;
    struct err e;

    if (g->state == TGT_REFUSED)
        return;
    if (g->state == TGT_DISCARDED && g->op_error.code != ERR_NONE && d != NULL && d->live &&
        d->info.epoch <= g->epoch) {
        /* Its source was or will be told that it never runs here: no unpause, no restart. */
        snprintf(d->owner, sizeof d->owner, "%s", g->peer);
        log_error("migration",
            "%s: the discarded copy of %s could not be destroyed: %s; it must not run: xm destroy "
            "%s",
            g->id, g->name, g->op_error.text, g->name);
    }
    query_remember(g->m, g,
        g->state == TGT_DONE ? MIGRD__OUTCOME__OUTCOME_RUNNING : MIGRD__OUTCOME__OUTCOME_DISCARDED);
    if (g->state != TGT_DONE)
        return;
    mig_note_step(g, STEP_CLOSED);
    if ((g->flags & JF_CHANGE_HOME) == 0 || d == NULL || d->live_def == NULL)
        return;
    /* After a restart of this migrd the offer is not known any more. */
    copy = define_copy(look_home(g) != NULL ? look_home(g) : d->live_def);
    if (copy != NULL && registry_define_here(g->m, &copy, home_defined, NULL, &e) < 0) {
        log_error("migration", "%s: its definition could not be kept here: %s", g->name, e.text);
        migrd__domain__free_unpacked(copy, NULL);
    }
}

void tgt_run(struct migration *g, enum mt_op op)
{
    if (g->state == TGT_DOUBT && (op == MT_NONE || (op == MT_L_OWNER && g->tries++ == 0)))
        mig_say_doubt(g, 0);
    if (has_result(op) && op >= MT_START) {
        start_job(g, op);
        return;
    }
    switch (op) {
    case MT_CHECK:
        check(g);
        break;
    case MT_STEP_YES:
        step_answer(g, true);
        break;
    case MT_STEP_NO:
        step_answer(g, false);
        break;
    case MT_VIOLATION:
        log_error("migration", "%s: the target worker breaks the order of steps", g->id);
        kill_worker(g);
        break;
    case MT_KILL:
        kill_worker(g);
        break;
    case MT_VERDICT_YES:
        tgt_verdict(g, true);
        break;
    case MT_VERDICT_NO:
        tgt_verdict(g, false);
        break;
    case MT_CLOSE:
        close_in(g);
        break;
    case MT_J_PREPARED:
        journal(g, STEP_PREPARED, op);
        break;
    case MT_J_READY:
        journal(g, STEP_READY, op);
        break;
    case MT_J_RUNNING:
        journal(g, STEP_RUNNING, op);
        break;
    case MT_J_DISCARDED:
        journal(g, STEP_DISCARDED, op);
        break;
    case MT_L_OWNER:
        if (g->logged)
            mig_log_ask(g, op);
        break;
    case MT_L_WAIT:
        mig_log_wait(g);
        break;
    default: /* the source's operations are not in this table */
        break;
    }
}

/* --- answers --- */

void tgt_answer(struct migration *g)
{
    Migrd__Outcome outcome;
    char askers[ASKERS_MAX][TR_SESSION_LEN];
    unsigned n = g->n_askers;

    switch ((enum tgt_state)g->state) {
    case TGT_READY:
    case TGT_DOUBT:
        outcome = MIGRD__OUTCOME__OUTCOME_PREPARED;
        break;
    case TGT_RUNNING:
    case TGT_DONE:
        outcome = MIGRD__OUTCOME__OUTCOME_RUNNING;
        break;
    case TGT_REFUSED:
    case TGT_DISCARDED:
        outcome = MIGRD__OUTCOME__OUTCOME_DISCARDED;
        break;
    case TGT_WAIT:
    case TGT_CHECKING:
    case TGT_STARTING:
    case TGT_PREPARING:
    case TGT_RECEIVING:
    case TGT_READYING:
    case TGT_RUN_JOURNAL:
    case TGT_RUN_GUEST:
    case TGT_DROP_WAIT:
    case TGT_DROP_JOURNAL:
    case TGT_DROP_GUEST:
    case TGT_STATE_MAX:
    default:
        return;
    }
    memcpy(askers, g->askers, sizeof askers);
    g->n_askers = 0;
    for (unsigned i = 0; i < n; i++) {
        struct migration *s = mig_by_session(g->m, askers[i]);

        if (s != NULL)
            query_answer(s, g->uuid, outcome, g->epoch,
                mt_target_state_name((enum tgt_state)g->state));
    }
}
