/* SPDX-License-Identifier: ISC */
/*
 * The source side: operations of the source table, messages of the source worker, and the
 * request that starts it all. Epochs: the guest runs here under epoch - 1, the target is
 * to run it under epoch, and should we take it back it runs under epoch + 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "migrd/define/define.h"
#include "migrd/migration_internal.h"

#define RESUME_TRIES 4
#define RESUME_WAIT_MS 250

/* 1, 2, 5, 10, then every 30 s. */
static const unsigned backoff_s[] = { 1, 2, 5, 10, 30 };

/* --- worker --- */

static void step_answer(struct migration *g, bool ok)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__StepOk s = MIGRD__STEP_OK__INIT;

    if (g->worker == NULL) {
        /* The log has answered after a restart, or after the worker's end. */
        if (!ok)
            mig_fail(g, g->op_error.code, "%s", g->op_error.text);
        mig_post(g, SRC_EV_END_FAILED);
        return;
    }
    s.ok = ok;
    s.code = (char *)(uintptr_t)(ok ? "" : err_code_name(g->op_error.code));
    s.text = ok ? (char *)(uintptr_t) "" : g->op_error.text;
    s.journal_us = g->journal_us;
    s.resume_us = g->resume_us;
    if (!ok)
        mig_fail(g, g->op_error.code, "%s", g->op_error.text);
    t.body_case = MIGRD__TO_WORKER__BODY_STEP;
    t.step = &s;
    worker_send(g->worker, &t, -1);
}

/* A host that answers where another one was asked for does not get the guest. */
static void accepted(struct migration *g, const char *name)
{
    mig_host_text(g->owner, sizeof g->owner, name);
    mig_post(g, SRC_EV_ACCEPTED);
    if (g->expected[0] == '\0' || strcmp(g->expected, g->owner) == 0)
        return;
    mig_fail(g, ERR_REFUSED, "host %s answers at %s port %u, where %s was to be", g->owner, g->peer,
        g->port, g->expected);
    mig_post(g, SRC_EV_CANCEL);
}

static void on_message(void *arg, const Migrd__FromWorker *fw)
{
    struct migration *g = arg;

    switch (fw->body_case) {
    case MIGRD__FROM_WORKER__BODY_ACCEPTED:
        accepted(g, fw->accepted->target_host);
        break;
    case MIGRD__FROM_WORKER__BODY_WANT_PAUSE:
        mig_post(g, SRC_EV_WANT_PAUSE);
        break;
    case MIGRD__FROM_WORKER__BODY_WANT_COMMIT:
        mig_post(g, SRC_EV_WANT_COMMIT);
        break;
    case MIGRD__FROM_WORKER__BODY_PROGRESS:
        mig_take_progress(g, fw->progress);
        break;
    case MIGRD__FROM_WORKER__BODY_OFFER:
    case MIGRD__FROM_WORKER__BODY_QUERY:
    case MIGRD__FROM_WORKER__BODY_WANT_READY:
    case MIGRD__FROM_WORKER__BODY_GO_RECEIVED:
    case MIGRD__FROM_WORKER__BODY_FINISHED:
    case MIGRD__FROM_WORKER__BODY__NOT_SET:
    default:
        log_error("migration", "%s: the source worker sends a message of kind %d", g->id,
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
    dry_score(g);
    if (fin == NULL)
        mig_fail(g, ERR_INTERNAL, "%s", how);
    else if (!fin->ok)
        mig_fail(g, mig_code_of(fin->code), "%s", fin->text);
    if (fin != NULL && fin->ok)
        mig_post(g, SRC_EV_END_OK);
    else if (fin != NULL && fin->guest_resumed)
        mig_post(g, SRC_EV_END_RESUMED);
    else
        mig_post(g, SRC_EV_END_FAILED);
}

void src_fill_start(struct migration *g, struct src_start *out)
{
    Migrd__SourceStart *s = &out->s;
    struct migrd *m = g->m;

    migrd__source_start__init(s);
    mig_storage_request(m, &out->storage, out->secrets);
    s->storage = &out->storage;
    s->facts = g->facts;
    s->migration = g->id;
    s->hypervisor = (char *)(uintptr_t)m->hv_ops->name;
    s->run_dir = m->paths.hv;
    s->log_dir = m->paths.log;
    s->domain = g->def;
    s->home = g->home;
    s->ha = g->logged;
    s->epoch = g->epoch - 1;
    s->host = g->peer;
    s->port = g->port;
    s->own_name = m->host_name;
    s->params = &g->params;
    if ((g->flags & JF_TLS) != 0) {
        mig_worker_tls(m, &out->tls, out->path);
        s->tls = &out->tls;
    }
    if (dry_history(g, &out->history))
        s->history = &out->history;
}

static void spawn(struct migration *g)
{
    static const struct worker_calls calls = { on_message, on_ended };
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    struct src_start start;
    struct err e;

    if (worker_start(g->m, 0, &calls, g, &g->worker, &e) < 0) {
        mig_fail(g, e.code, "%s", e.text);
        mig_post(g, SRC_EV_END_FAILED);
        return;
    }
    src_fill_start(g, &start);
    t.body_case = MIGRD__TO_WORKER__BODY_SOURCE;
    t.source = &start.s;
    worker_send(g->worker, &t, -1);
}

/* --- hypervisor jobs --- */

static int resume_once(struct mig_job *mj, struct err *e)
{
    struct hv_info info;

    if (FAULT("migrd-resume"))
        return err_set(e, ERR_INTERNAL, "fault point migrd-resume");
    if (mj->ops->info(mj->hv, mj->uuid, &info, e) < 0)
        return -1;
    if (mj->leave_paused || info.state != HV_PAUSED)
        return 0;
    return mj->ops->resume(mj->hv, mj->uuid, mj->epoch, e);
}

/* The guest stands still for nothing: some tries. */
static void resume_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    for (unsigned i = 0; i < RESUME_TRIES; i++) {
        j->result = resume_once(mj, &j->err);
        if (j->result == 0 || j->err.code == ERR_NOT_FOUND || j->err.code == ERR_EPOCH)
            return;
        usleep(RESUME_WAIT_MS * 1000);
    }
}

/* What could not be made to run stays paused, and everybody hears of it. */
static void resumed(struct mig_job *mj)
{
    struct domain *d = mig_domain(mj->g);

    if (mj->job.result == 0 || d == NULL || mj->job.err.code == ERR_NOT_FOUND)
        return;
    log_error("migration", "%s: could not be resumed after a failed migration: %s; xm unpause %s",
        mj->g->name, mj->job.err.text, mj->g->name);
    registry_set_state(mj->g->m, d, HV_PAUSED);
    registry_publish(mj->g->m, d, "domain-left-paused", mj->job.err.text);
}

static void destroy_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    j->result = mj->ops->destroy(mj->hv, mj->uuid, mj->epoch, &j->err);
    if (j->result < 0 && j->err.code == ERR_NOT_FOUND)
        j->result = 0;
}

/* Before a question with go: our copy must stand still. */
static void hold_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    struct hv_info info;

    if (mj->ops->info(mj->hv, mj->uuid, &info, &j->err) < 0) {
        j->result = j->err.code == ERR_NOT_FOUND ? 0 : -1;
        return;
    }
    j->result = 0;
    if (info.state == HV_RUNNING || info.state == HV_BLOCKED || info.reason[0] != '\0')
        j->result = mj->ops->pause(mj->hv, mj->uuid, mj->epoch, &j->err);
}

static void held(struct mig_job *mj)
{
    if (mj->job.result == 0)
        query_start(mj->g);
    else
        mig_post(mj->g, SRC_EV_ANS_NONE);
}

static void reclaimed(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);

    if (mj->job.result == 0 && d != NULL)
        registry_set_owner(g->m, d, g->m->host_name, g->epoch + 1);
    g->reclaimed = mj->job.result == 0;
    if (!g->reclaimed)
        mig_not_decided(g);
    if (g->reclaimed)
        mig_fail(g, ERR_PEER, "the target never ran it: the guest goes on here");
}

/* On the target's word the resume takes the disks; on an operator's they must be free before the
 * record says that the guest is ours. A copy that is gone has nothing to claim. */
static void reclaimed_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;

    if (mj->decided && mig_claim(mj, &j->err) < 0 && j->err.code != ERR_NOT_FOUND) {
        j->result = -1;
        return;
    }
    mig_journal_work(j);
}

/* The worker's report says that it got no answer; the target's word is newer. */
static void amend_report(struct migration *g)
{
    Migrd__Finished *f = g->report;
    char *text;

    err_clear(&g->failure);
    if (f == NULL || f->ok)
        return;
    text = strdup("its answer was lost; asked, the target said that it runs the guest");
    if (text == NULL)
        return;
    if (f->text != protobuf_c_empty_string)
        free(f->text);
    f->text = text;
    f->ok = true;
}

static void given_away(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);

    g->given_away = mj->job.result == 0;
    if (g->failure.code != ERR_NONE)
        mig_say_given_away(g);
    amend_report(g);

    if (d != NULL)
        registry_set_owner(g->m, d, g->owner[0] ? g->owner : g->peer, g->epoch);
}

/* --- journal --- */

void src_keep_facts(struct migration *g, struct mig_look *l)
{
    struct registry_promises promised;

    if (l == NULL || l->facts == NULL)
        return;
    mig_own_facts(g->m, mig_domain(g), l->since, l->facts, &promised);
    g->facts = l->facts;
    l->facts = NULL;
}

static void keep_facts(struct mig_job *mj)
{
    src_keep_facts(mj->g, mj->look);
}

/* The record, and facts of this host for the offer: without them the target compares less. */
static void started_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    struct err e = { 0 };

    mig_journal_work(j);
    if (j->result == 0 && mj->look != NULL && look_work(mj->look, mj->ops, mj->hv, &e) < 0)
        log_warn("migration", "facts of this host for %s: %s", mj->uuid, e.text);
}

static void put_done(const struct migration *g, struct mig_job *mj)
{
    mig_record(g, STEP_DONE, &mj->rec[mj->n_rec++]);
    mig_owner_record(g, g->owner[0] ? g->owner : g->peer, g->epoch, &mj->rec[mj->n_rec++]);
}

/* CLOSED says that nothing is left to be known: it must not hide that the new owner could not be
 * written. That is tried once more; where it fails again a restart asks the target. */
static void note_given_away(struct migration *g)
{
    struct mig_job *mj;

    if (g->given_away) {
        mig_note_step(g, STEP_CLOSED);
        return;
    }
    mj = mig_job_new(g, MT_J_DONE);
    if (mj == NULL)
        return;
    put_done(g, mj);
    mj->quiet = true;
    mig_job_run(mj, mig_journal_work);
}

/* Whoever the log gave it to owns it here, too. */
static void lost(struct mig_job *mj)
{
    struct migration *g = mj->g;
    struct domain *d = mig_domain(g);

    if (d != NULL)
        registry_set_owner(g->m, d, g->lost_to, g->lost_epoch);
}

static void journal(struct migration *g, enum mt_step step)
{
    enum mt_op op = step == STEP_STARTED     ? MT_J_STARTED
                    : step == STEP_PREPARED  ? MT_J_PREPARED
                    : step == STEP_COMMITTED ? MT_J_COMMITTED
                    : step == STEP_DONE      ? MT_J_DONE
                    : step == STEP_RECLAIMED ? MT_J_RECLAIMED
                                             : MT_J_ABORTED;
    struct mig_job *mj = mig_job_new(g, op);

    if (mj == NULL) {
        err_set(&g->op_error, ERR_MEMORY, "out of memory for a journal record");
        mig_post(g, SRC_EV_OP_FAILED);
        return;
    }
    if (step == STEP_DONE) {
        put_done(g, mj);
        mj->then = given_away;
    } else {
        mig_record(g, step, &mj->rec[mj->n_rec++]);
    }
    if (step == STEP_ABORTED && g->lost_epoch != 0) {
        mig_owner_record(g, g->lost_to, g->lost_epoch, &mj->rec[mj->n_rec++]);
        mj->then = lost;
    }
    if (step == STEP_RECLAIMED) {
        mig_owner_record(g, ".", g->epoch + 1, &mj->rec[mj->n_rec++]);
        mj->then = reclaimed;
        mj->epoch = g->epoch + 1;
        mj->decided = (g->flags & JF_FORCED) != 0;
    }
    if (step == STEP_STARTED) {
        mj->look = look_new(g, false);
        mj->then = keep_facts;
    }
    mig_job_run(mj, step == STEP_STARTED     ? started_work
                    : step == STEP_RECLAIMED ? reclaimed_work
                                             : mig_journal_work);
}

static void hv_job(struct migration *g, enum mt_op op)
{
    struct mig_job *mj = mig_job_new(g, op);

    if (mj == NULL) {
        err_set(&g->op_error, ERR_MEMORY, "out of memory");
        mig_post(g, op == MT_QUERY ? SRC_EV_ANS_NONE : SRC_EV_OP_FAILED);
        return;
    }
    mj->leave_paused = (g->flags & JF_WAS_PAUSED) != 0;
    mj->epoch = op == MT_RESUME_NEW ? g->epoch + 1 : g->epoch - 1;
    if (op == MT_QUERY) {
        mj->quiet = true;
        mj->then = held;
        mig_job_run(mj, hold_work);
    } else if (op == MT_DESTROY) {
        mig_job_run(mj, destroy_work);
    } else {
        mj->then = resumed;
        mig_job_run(mj, resume_work);
    }
}

/* --- operations --- */

static void timer_due(uv_timer_t *t)
{
    mig_post(t->data, SRC_EV_TIMER);
}

/* Our copy stands still, and whether the target runs its own nobody knows: an operator there may
 * decide, and must not find a lease that looks like that of a guest that runs. */
static void yield_work(struct job *j)
{
    struct mig_job *mj = (struct mig_job *)j;
    struct err e = { 0 };

    if (mj->ops->yield(mj->hv, mj->uuid, mj->epoch, &e) < 0 && e.code != ERR_NOT_FOUND &&
        e.code != ERR_UNSUPPORTED)
        log_warn("migration", "%s: its disks do not say yet that an operator may decide: %s",
            mj->uuid, e.text);
}

static void yield(struct migration *g)
{
    struct mig_job *mj = g->m->hv_ops->yield != NULL ? mig_job_new(g, MT_NONE) : NULL;

    if (mj == NULL)
        return;
    mj->epoch = g->epoch - 1;
    mj->quiet = true;
    mig_job_run(mj, yield_work);
}

static void arm(struct migration *g)
{
    const unsigned n = sizeof backoff_s / sizeof backoff_s[0];
    unsigned wait = backoff_s[g->tries < n ? g->tries : n - 1];

    g->tries++;
    mig_say_doubt(g, wait);
    yield(g);
    uv_timer_start(&g->timer, timer_due, wait * 1000, 0);
}

static void close_out(struct migration *g)
{
    struct domain *d = mig_domain(g);

    if (g->state == SRC_DONE && g->op_error.code == ERR_NONE) {
        if (d != NULL && d->live && d->info.epoch < g->epoch) /* not one that came back since */
            registry_gone(g->m, d);
        note_given_away(g);
    } else if (g->state == SRC_DONE) {
        log_error("migration",
            "%s: our copy of %s could not be destroyed: %s; it stays paused and "
            "must not run: xm destroy %s",
            g->id, g->name, g->op_error.text, g->name);
    } else if (g->op_error.code == ERR_NONE && g->reclaimed) {
        mig_note_step(g, STEP_ABORTED); /* a restart need not resume it again */
    }
    /* Where the log gave it to somebody else, a target that holds a copy asks the log. */
    if (g->state == SRC_FAILED && g->prepared && g->lost_epoch == 0)
        query_tell_abort(g->m, g);
    if (g->state == SRC_DONE && d != NULL && d->def != NULL && (g->flags & JF_UNDEFINE) == 0 &&
        (g->flags & JF_CHANGE_HOME) != 0)
        log_info("migration", "%s: its home is %s now; its definition here may be undefined",
            g->name, g->owner);
}

void src_undefine(struct migration *g)
{
    struct domain *d = registry_by_uuid(g->m->registry, g->uuid);
    struct err e;

    if (g->state != SRC_DONE || (g->flags & JF_UNDEFINE) == 0 || d == NULL || d->live ||
        d->def == NULL)
        return;
    if (registry_undefine(g->m, d, NULL, NULL, &e) < 0)
        log_error("migration", "%s: its definition stays here: %s", g->name, e.text);
}

/* A domain that the cluster was given meanwhile: it does not know of this move. */
static void commit(struct migration *g)
{
    if (!g->logged && ha_protected(g->m, g->uuid, NULL)) {
        err_set(&g->op_error, ERR_STATE,
            "domain %s has been protected by HA since its migration began: migrate it again",
            g->name);
        mig_post(g, SRC_EV_OP_FAILED);
        return;
    }
    journal(g, STEP_COMMITTED);
}

void src_run(struct migration *g, enum mt_op op)
{
    switch (op) {
    case MT_SPAWN:
        spawn(g);
        break;
    case MT_STEP_YES:
        step_answer(g, true);
        break;
    case MT_STEP_NO:
        step_answer(g, false);
        break;
    case MT_CANCEL:
        if (g->worker != NULL)
            worker_cancel(g->worker, g->failure.text);
        break;
    case MT_KILL:
        if (g->worker != NULL)
            worker_kill(g->worker);
        else
            mig_post(g, SRC_EV_END_FAILED);
        break;
    case MT_VIOLATION:
        log_error("migration", "%s: the source worker breaks the order of steps", g->id);
        if (g->worker != NULL)
            worker_kill(g->worker);
        break;
    case MT_ARM:
        arm(g);
        break;
    case MT_QUERY:
        hv_job(g, MT_QUERY);
        break;
    case MT_CLOSE:
        close_out(g);
        break;
    case MT_J_STARTED:
        journal(g, STEP_STARTED);
        break;
    case MT_J_PREPARED:
        g->prepared = true;
        journal(g, STEP_PREPARED);
        break;
    case MT_J_COMMITTED:
        commit(g);
        break;
    case MT_J_DONE:
        journal(g, STEP_DONE);
        break;
    case MT_J_ABORTED:
        journal(g, STEP_ABORTED);
        break;
    case MT_J_RECLAIMED:
        g->prepared = true;
        journal(g, STEP_RECLAIMED);
        break;
    case MT_RESUME:
    case MT_RESUME_NEW:
    case MT_DESTROY:
        hv_job(g, op);
        break;
    case MT_L_BEGIN:
    case MT_L_HANDOVER:
    case MT_L_OWNER:
    case MT_L_TAKE_BACK:
    case MT_L_END:
        mig_log_ask(g, op);
        break;
    case MT_L_WAIT:
        mig_log_wait(g);
        break;
    case MT_UNSET:
    case MT_NONE:
    case MT_DEFER:
    case MT_REFUSE:
    case MT_BUG:
    case MT_ANSWER:
    case MT_VERDICT_YES:
    case MT_VERDICT_NO:
    case MT_J_READY:
    case MT_J_RUNNING:
    case MT_J_DISCARDED:
    case MT_CHECK:
    case MT_START:
    case MT_OP_MAX:
        break;
    }
}

/* --- the request --- */

static unsigned outgoing(const struct migrd *m)
{
    unsigned n = 0;

    for (const struct migration *g = m->migrations->active; g != NULL; g = g->next)
        n += g->kind == MIG_OUT && !g->is_over && !migration_in_doubt(g);
    return n;
}

bool migration_has_room(const struct migrd *m)
{
    return outgoing(m) < m->config.max_outgoing;
}

int migration_may_leave(const struct migrd *m, const struct domain *d, struct err *e)
{
    if (d->mig != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: migration in progress", d->name);
    if (d->busy != NULL)
        return err_set(e, ERR_STATE, "domain %s is busy: %s", d->name, d->busy);
    if (!d->live ||
        (d->info.state != HV_RUNNING && d->info.state != HV_BLOCKED && d->info.state != HV_PAUSED))
        return err_set(e, ERR_STATE,
            "domain %s is %s: only a running or paused one can be migrated", d->name,
            registry_state(d));
    if (!registry_owned(m, d) || d->live_def == NULL)
        return err_set(e, ERR_STATE, "domain %s belongs to host %s", d->name, d->owner);
    return 0;
}

int src_check_request(
    const struct migrd *m, const struct domain *d, const Migrd__Migrate *rq, struct err *e)
{
    uint32_t node;

    if (migration_may_leave(m, d, e) < 0)
        return -1;
    if (rq->host[0] == '\0' || strlen(rq->host) >= 256)
        return err_set(e, ERR_INVALID, "to which host?");
    if (rq->port > 65535)
        return err_set(e, ERR_INVALID, "port %u is not between 1 and 65535", rq->port);
    if (mig_log_may_leave(m, d, rq->target[0] != '\0' ? rq->target : rq->host, &node, e) < 0)
        return -1;
    if (!migration_has_room(m))
        return err_set(e, ERR_RESOURCE,
            "%u migrations leave this host already (migration-max-outgoing); wait for one to end",
            m->config.max_outgoing);
    return 0;
}

static Migrd__Compression compression_of(const char *word)
{
    return strcmp(word, "none") == 0   ? MIGRD__COMPRESSION__COMPRESSION_NONE
           : strcmp(word, "lz4") == 0  ? MIGRD__COMPRESSION__COMPRESSION_LZ4
           : strcmp(word, "zstd") == 0 ? MIGRD__COMPRESSION__COMPRESSION_ZSTD
                                       : MIGRD__COMPRESSION__COMPRESSION_AUTO;
}

unsigned mig_auto_channels(bool tls, unsigned cpus)
{
    unsigned most = tls ? AUTO_CHANNELS_TLS : AUTO_CHANNELS_PLAIN;

    return cpus < 4 ? 1 : cpus / 2 < most ? cpus / 2 : most;
}

static unsigned cpus_here(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return n > 0 ? (unsigned)n : 1;
}

static void take_params(
    struct migration *g, const struct migration_wishes *w, const Migrd__Migrate *rq)
{
    const struct config *c = &g->m->config;
    Migrd__PrecopyParams *p = &g->params;

    if (rq->params != NULL) {
        const Migrd__PrecopyParams *q = rq->params;

        p->pause_budget_ms = q->pause_budget_ms;
        p->bandwidth = q->bandwidth;
        p->channels = q->channels;
        p->time_limit_s = q->time_limit_s;
        p->throttle_max = q->throttle_max;
        p->verify = q->verify;
        p->live = q->live;
        p->allow_paused = q->allow_paused;
        p->stay_paused = q->stay_paused;
        p->change_home = q->change_home;
        p->dead_peer_ms = q->dead_peer_ms;
        p->max_rounds = q->max_rounds;
        p->compression = q->compression;
        p->delta_cache = q->delta_cache;
        p->undefine_source = q->undefine_source;
    }
    p->pause_budget_ms = p->pause_budget_ms ? p->pause_budget_ms : w->pause_budget_ms;
    p->bandwidth = p->bandwidth ? p->bandwidth : w->bandwidth;
    p->channels = p->channels ? p->channels : c->channels;
    if (p->channels == 0)
        p->channels = mig_auto_channels((g->flags & JF_TLS) != 0, cpus_here());
    p->time_limit_s = p->time_limit_s ? p->time_limit_s : c->time_limit_s;
    p->throttle_max = p->throttle_max ? p->throttle_max : c->throttle_max;
    p->dead_peer_ms = p->dead_peer_ms ? p->dead_peer_ms : c->dead_peer_ms;
    p->max_rounds = p->max_rounds ? p->max_rounds : c->max_rounds;
    if (p->compression == MIGRD__COMPRESSION__COMPRESSION_DEFAULT)
        p->compression = compression_of(c->compression);
    p->delta_cache = p->delta_cache ? p->delta_cache : c->delta_cache;
    if (!rq->params_set_verify && !p->verify)
        p->verify = c->verify;
}

static unsigned flags_of(const struct migrd *m, const struct domain *d, const Migrd__Migrate *rq)
{
    unsigned flags = hv_is_paused(&d->info) ? JF_WAS_PAUSED : 0;
    bool tls = m->config.relocation_tls;

    if (rq->no_tls || strcmp(rq->tls, "no") == 0)
        tls = false;
    else if (strcmp(rq->tls, "yes") == 0)
        tls = true;
    if (rq->params != NULL && rq->params->stay_paused)
        flags |= JF_STAY_PAUSED;
    if (rq->params != NULL && rq->params->change_home)
        flags |= JF_CHANGE_HOME;
    if (rq->params != NULL && rq->params->undefine_source)
        flags |= JF_UNDEFINE;
    return flags | (tls ? JF_TLS : 0);
}

/* Protected: the host that answers must be the node that the log is asked about. */
static void take_node(struct migration *g, const Migrd__Migrate *rq)
{
    struct migrd *m = g->m;

    g->logged = ha_protected(m, g->uuid, NULL);
    if (!g->logged)
        return;
    g->flags |= JF_PROTECTED;
    g->node = mig_log_node(m, rq->target[0] != '\0' ? rq->target : rq->host);
    if (g->expected[0] == '\0')
        mig_host_text(
            g->expected, sizeof g->expected, cluster_node_name(ha_cluster(m), g->node));
}

int src_take_request(struct migration *g, struct domain *d, const Migrd__Migrate *rq, struct err *e)
{
    struct migrd *m = g->m;
    struct migration_wishes wishes = migration_wishes(m, d);

    g->def = define_copy(d->live_def);
    snprintf(g->uuid, sizeof g->uuid, "%s", d->uuid);
    snprintf(g->name, sizeof g->name, "%s", d->name);
    mig_host_text(g->peer, sizeof g->peer, rq->host);
    mig_host_text(g->expected, sizeof g->expected, rq->target);
    g->port = rq->port != 0 ? rq->port : m->config.relocation_port;
    g->epoch = d->epoch + 1;
    g->flags = flags_of(m, d, rq);
    take_node(g, rq);
    take_params(g, &wishes, rq);
    /* A paused guest stays so on the target: nobody asked for it to run. */
    if ((g->flags & JF_WAS_PAUSED) != 0)
        g->params.stay_paused = true;
    if (g->def != NULL && d->info.memory_kib > 0)
        g->def->memory_kib = d->info.memory_kib;
    d->mig = g;
    if ((g->flags & JF_CHANGE_HOME) != 0 && d->def != NULL && (g->home = define_copy(d->def)) == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    return g->def != NULL ? 0 : err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
}

int migration_start(struct migrd *m, struct domain *d, const Migrd__Migrate *rq,
    struct migration **out, struct err *e)
{
    struct migration *g;

    if (src_check_request(m, d, rq, e) < 0)
        return -1;
    g = mig_new(m, MIG_OUT);
    if (g == NULL)
        return err_set(e, ERR_MEMORY, "domain %s: out of memory", d->name);
    g->state = SRC_STARTING;
    if (src_take_request(g, d, rq, e) < 0) {
        mig_fail(g, e->code, "%s", e->text);
        mig_close(g);
        return -1;
    }
    log_info("migration", "%s: %s to %s port %u, epoch %llu, %s", g->id, g->name, g->peer, g->port,
        (unsigned long long)g->epoch, (g->flags & JF_TLS) ? "TLS" : "plain TCP");
    *out = g;
    src_run(g, MT_J_STARTED);
    return 0;
}
