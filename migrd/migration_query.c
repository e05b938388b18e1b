/* SPDX-License-Identifier: ISC */
/*
 * Questions between hosts about a migration whose end one of them missed. The source asks
 * with go (it has COMMITTED) or with abort (it runs the guest again and never
 * committed); the target answers from its table if the migration is under way here, else
 * from what it remembers, else from what runs here. Only the host whose certificate made
 * the offer may ask.
 *
 * A failed migration whose target may hold a complete copy leaves a teller: it says
 * abort, with patience, so that the target frees the memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrd/events.h"
#include "migrd/migration_internal.h"

#define QUESTION_LIMIT_MS 60000 /* a question's worker lives no longer */

/* --- asking --- */

struct question {
    const char *migration, *uuid, *host, *target;
    uint64_t epoch;
    unsigned port, flags;
    bool go, abort, logged;
};

static int ask(struct migrd *m, const struct question *q, const struct worker_calls *calls,
    void *arg, struct worker **w, struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__QueryStart s = MIGRD__QUERY_START__INIT;
    Migrd__WorkerTls tls;
    char path[3][PATHS_LEN];

    if (worker_start(m, QUESTION_LIMIT_MS, calls, arg, w, e) < 0)
        return -1;
    s.migration = (char *)(uintptr_t)q->migration;
    s.domain_uuid = (char *)(uintptr_t)q->uuid;
    s.epoch = q->epoch;
    s.go = q->go;
    s.abort = q->abort;
    s.ha = q->logged;
    s.host = (char *)(uintptr_t)q->host;
    s.target = (char *)(uintptr_t)q->target;
    s.port = q->port;
    s.dead_peer_ms = m->config.dead_peer_ms;
    s.own_name = m->host_name;
    if ((q->flags & JF_TLS) != 0) {
        mig_worker_tls(m, &tls, path);
        s.tls = &tls;
    }
    t.body_case = MIGRD__TO_WORKER__BODY_QUERY;
    t.query = &s;
    worker_send(*w, &t, -1);
    return 0;
}

static void answered(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct migration *g = arg;
    int event = SRC_EV_ANS_NONE;

    g->worker = NULL;
    if (fin == NULL || !fin->ok) {
        log_warn("migration", "%s: %s was asked about %s: no answer: %s", g->id, g->peer, g->name,
            fin != NULL ? fin->text : how);
    } else if (fin->outcome == MIGRD__OUTCOME__OUTCOME_RUNNING) {
        event = SRC_EV_ANS_RUNNING;
    } else if (fin->outcome == MIGRD__OUTCOME__OUTCOME_PREPARED) {
        event = SRC_EV_ANS_PREPARED;
    } else if (fin->outcome == MIGRD__OUTCOME__OUTCOME_DISCARDED ||
               fin->outcome == MIGRD__OUTCOME__OUTCOME_UNKNOWN) {
        event = SRC_EV_ANS_NEVER;
    }
    mig_post(g, event);
}

void query_start(struct migration *g)
{
    static const struct worker_calls calls = { NULL, answered };
    const struct question q = { g->id, g->uuid, g->peer, g->owner, g->epoch, g->port, g->flags,
        true, false, g->logged };
    struct err e;

    if (ask(g->m, &q, &calls, g, &g->worker, &e) == 0)
        return;
    log_error("migration", "%s: the target cannot be asked: %s", g->id, e.text);
    mig_post(g, SRC_EV_ANS_NONE);
}

/* --- telling --- */

struct teller {
    struct teller *next;
    struct migrd *m;
    struct worker *worker;
    uv_timer_t timer;
    unsigned tries;
    char id[HV_UUID_LEN], uuid[HV_UUID_LEN], name[HV_NAME_LEN], host[256], target[256];
    uint64_t epoch;
    unsigned port, flags;
};

static void teller_try(struct teller *t);

static void teller_closed(uv_handle_t *h)
{
    free(h->data);
}

static void teller_end(struct teller *t)
{
    for (struct teller **p = &t->m->migrations->tellers; *p != NULL; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    uv_close((uv_handle_t *)&t->timer, teller_closed);
}

static void teller_due(uv_timer_t *h)
{
    teller_try(h->data);
}

static void teller_again(struct teller *t, const char *why)
{
    if (++t->tries >= MIGRATION_TELL_TRIES) {
        log_error("migration",
            "%s: %s could not be told that %s stays here (%s); if it holds a paused "
            "copy: migctl resolve %s --discard there",
            t->id, t->host, t->name, why, t->name);
        teller_end(t);
        return;
    }
    uv_timer_start(&t->timer, teller_due, t->tries < 5 ? t->tries * 2000 : 30000, 0);
}

static void told(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct teller *t = arg;

    t->worker = NULL;
    if (t->m->migrations->stopping)
        return;
    if (fin == NULL || !fin->ok) {
        teller_again(t, fin != NULL ? fin->text : how);
        return;
    }
    if (fin->outcome == MIGRD__OUTCOME__OUTCOME_RUNNING)
        log_error("migration",
            "%s: %s says that it RUNS %s, which was taken back here: two copies may "
            "run! stop one of them now",
            t->id, t->host, t->name);
    else
        log_info("migration", "%s: %s knows that %s stays here", t->id, t->host, t->name);
    teller_end(t);
}

static void teller_try(struct teller *t)
{
    static const struct worker_calls calls = { NULL, told };
    const struct question q = { t->id, t->uuid, t->host, t->target, t->epoch, t->port, t->flags,
        false, true, false };
    struct err e;

    if (ask(t->m, &q, &calls, t, &t->worker, &e) < 0)
        teller_again(t, e.text);
}

void query_tell_abort(struct migrd *m, const struct migration *g)
{
    struct teller *t;

    if (m->migrations->stopping || (t = calloc(1, sizeof *t)) == NULL)
        return;
    t->m = m;
    memcpy(t->id, g->id, sizeof t->id);
    memcpy(t->uuid, g->uuid, sizeof t->uuid);
    memcpy(t->name, g->name, sizeof t->name);
    memcpy(t->host, g->peer, sizeof t->host);
    memcpy(t->target, g->owner, sizeof t->target);
    t->epoch = g->epoch;
    t->port = g->port;
    t->flags = g->flags;
    uv_timer_init(m->loop, &t->timer);
    t->timer.data = t;
    t->next = m->migrations->tellers;
    m->migrations->tellers = t;
    teller_try(t);
}

void query_stop_all(struct migrd *m)
{
    while (m->migrations->tellers != NULL) {
        struct teller *t = m->migrations->tellers;

        if (t->worker != NULL)
            worker_forget(t->worker);
        teller_end(t);
    }
}

/* --- answering --- */

void query_reply(
    struct migration *session, Migrd__Outcome outcome, uint64_t epoch, const char *text)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__QueryVerdict v = MIGRD__QUERY_VERDICT__INIT;

    if (session->worker == NULL)
        return;
    v.outcome = (uint32_t)outcome;
    v.epoch = epoch;
    v.text = (char *)(uintptr_t)text;
    t.body_case = MIGRD__TO_WORKER__BODY_QUERY_VERDICT;
    t.query_verdict = &v;
    worker_send(session->worker, &t, -1);
    log_info("migration", "%s: %s asked: %s", session->peer, session->reason, text);
}

void query_answer(struct migration *session, const char *uuid, Migrd__Outcome outcome,
    uint64_t epoch, const char *text)
{
    bool never = outcome == MIGRD__OUTCOME__OUTCOME_DISCARDED ||
                 outcome == MIGRD__OUTCOME__OUTCOME_UNKNOWN;

    if (never && session->asks_go)
        mig_log_never(session, uuid, epoch, outcome, text);
    else
        query_reply(session, outcome, epoch, text);
}

void query_remember(struct migrd *m, const struct migration *g, Migrd__Outcome outcome)
{
    struct ended_in *i = calloc(1, sizeof *i), **p;
    unsigned n = 0;

    if (i == NULL)
        return;
    memcpy(i->id, g->id, sizeof i->id);
    memcpy(i->uuid, g->uuid, sizeof i->uuid);
    memcpy(i->cert, g->cert, sizeof i->cert);
    i->outcome = outcome;
    i->epoch = g->epoch;
    i->next = m->migrations->ended;
    m->migrations->ended = i;
    for (p = &i->next; *p != NULL && n < JOURNAL_INCOMING_KEPT; n++)
        p = &(*p)->next;
    while (*p != NULL) {
        struct ended_in *old = *p;

        *p = old->next;
        free(old);
    }
}

static bool may_ask(struct migration *session, const char *cert, const char *asker)
{
    if (cert[0] == '\0' || strcmp(cert, asker) == 0)
        return true;
    log_error("migration", "%s (certificate %s) asks about a migration of %s: not answered",
        session->address, asker, cert);
    worker_kill(session->worker);
    return false;
}

/* Unknown here: it never will run here. Says so only when that is durable. */

static void never_written(struct mig_job *mj)
{
    if (mj->job.result < 0) {
        if (mj->g->worker != NULL)
            worker_kill(mj->g->worker);
        return;
    }
    if (mj->g->asks_go)
        mig_log_never(mj->g, mj->rec[0].uuid, mj->rec[0].epoch, MIGRD__OUTCOME__OUTCOME_UNKNOWN,
            "never seen here, never will run here");
    else
        query_reply(
            mj->g, MIGRD__OUTCOME__OUTCOME_UNKNOWN, 0, "never seen here, never will run here");
}

static void answer_unknown(struct migration *session, const Migrd__QuerySeen *q)
{
    struct domain *d = registry_by_uuid(session->m->registry, q->domain_uuid);
    struct mig_job *mj;
    struct migration shadow;

    if (d != NULL && d->live && registry_owned(session->m, d) && d->epoch >= q->epoch) {
        if (d->owner[0] != '\0') {
            query_reply(session, MIGRD__OUTCOME__OUTCOME_RUNNING, d->epoch, "runs here");
            return;
        }
        /* A copy that no record gives to anybody: neither "runs" nor "never" would be true. */
        log_error("migration", "%s is asked about, but its record is lost: not answered", d->name);
        worker_kill(session->worker);
        return;
    }
    mj = mig_job_new(session, MT_J_DISCARDED);
    if (mj == NULL) {
        worker_kill(session->worker);
        return;
    }
    memset(&shadow, 0, sizeof shadow);
    shadow.kind = MIG_IN;
    snprintf(shadow.id, sizeof shadow.id, "%s", q->migration);
    snprintf(shadow.uuid, sizeof shadow.uuid, "%s", q->domain_uuid);
    snprintf(shadow.cert, sizeof shadow.cert, "%s", q->peer_cert);
    shadow.epoch = q->epoch;
    mig_record(&shadow, STEP_DISCARDED, &mj->rec[0]);
    mj->n_rec = 1;
    mj->quiet = true;
    mj->then = never_written;
    query_remember(session->m, &shadow, MIGRD__OUTCOME__OUTCOME_DISCARDED);
    mig_job_run(mj, mig_journal_work);
}

void query_seen(struct migration *session, const Migrd__QuerySeen *q)
{
    struct migrd *m = session->m;
    int event = q->go ? TGT_EV_QUERY_GO : q->abort ? TGT_EV_QUERY_ABORT : TGT_EV_QUERY;

    session->is_query = true;
    session->asks_go = q->go && q->ha;
    snprintf(session->reason, sizeof session->reason, "what became of migration %.36s (%s)",
        q->migration,
        q->go      ? "go"
        : q->abort ? "abort"
                   : "only asking");
    for (struct migration *g = m->migrations->active; g != NULL; g = g->next) {
        if (g == session || g->kind != MIG_IN || g->is_over || strcmp(g->id, q->migration) != 0)
            continue;
        if (may_ask(session, g->cert, q->peer_cert))
            mig_post_from(g, event, session->session);
        return;
    }
    for (const struct ended_in *i = m->migrations->ended; i != NULL; i = i->next) {
        if (strcmp(i->id, q->migration) != 0)
            continue;
        if (may_ask(session, i->cert, q->peer_cert))
            query_answer(session, i->uuid, i->outcome, i->epoch,
                i->outcome == MIGRD__OUTCOME__OUTCOME_RUNNING ? "runs here, or ran here and ended"
                                                              : "discarded");
        return;
    }
    answer_unknown(session, q);
}
