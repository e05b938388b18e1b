/* SPDX-License-Identifier: ISC */
/*
 * The query session: migrd asks another host what became of a migration. One
 * connection, one question, one answer; nothing of a guest is touched.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "precopy/worker_internal.h"

#define ASK_MS 30000
#define NAME_COMPARED 127 /* a restarted migrd knows no more of it */

/* A name may lead to another host than it did when the migration began. That one has never heard
 * of the migration, which must not be taken for the target's word. */
static int check_host(const Migrd__QueryStart *start, const Migrd__QueryReply *r, struct err *e)
{
    if (start->target[0] == '\0' || strncmp(start->target, r->host, NAME_COMPARED) == 0)
        return 0;
    return err_set(e, ERR_PEER,
        "%s leads to host \"%.128s\" now, but host %s was to run the domain: its answer counts",
        start->host, r->host, start->target);
}

int ask_host(struct ctl *ctl, const struct ask_host *a, const Migrd__Session *question,
    Migrd__Session__BodyCase want, Migrd__Session **out, struct err *e)
{
    struct tr_options opt = { .tls = a->tls, .dead_peer_ms = a->dead_peer_ms };
    struct tr_conn *c = NULL;
    char line[32];
    int r;

    snprintf(line, sizeof line, "RELOCATE %d", PROTOCOL);
    if (tr_connect(a->host, a->port, line, &opt, &c, e) < 0)
        return -1;
    ctl_watch(ctl, c);
    r = tr_send(c, question, e) < 0 ? -1 : expect(c, want, ASK_MS, out, e);
    ctl_unwatch(ctl, c);
    tr_close(&c);
    return r;
}

int ask_job(struct ctl *ctl, const Migrd__WorkerTls *paths, ask_question *ask, ask_answer *answer,
    const void *start)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    Migrd__Session *m = NULL;
    struct tr_tls *tls = NULL;
    struct err e = { 0 };
    uint64_t began = clock_ns();
    int r = worker_tls(paths, &tls, &e);

    if (r == 0)
        r = ask(ctl, start, tls, &m, &e);
    f.phase = r == 0 ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_CONNECT;
    f.total_us = (clock_ns() - began) / NS_PER_US;
    if (r == 0)
        answer(m, &f);
    send_finished(ctl, &f, r < 0 ? &e : NULL);
    if (m != NULL)
        migrd__session__free_unpacked(m, NULL);
    tr_tls_free(&tls);
    return r;
}

static int ask(
    struct ctl *ctl, const void *job, const struct tr_tls *tls, Migrd__Session **out, struct err *e)
{
    const Migrd__QueryStart *start = job;
    const struct ask_host host = { start->host, start->port, start->dead_peer_ms, tls };
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__Query q = MIGRD__QUERY__INIT;

    q.migration = start->migration;
    q.domain_uuid = start->domain_uuid;
    q.epoch = start->epoch;
    q.go = start->go;
    q.abort = start->abort;
    q.ha = start->ha;
    m.body_case = MIGRD__SESSION__BODY_QUERY;
    m.query = &q;
    if (ask_host(ctl, &host, &m, MIGRD__SESSION__BODY_QUERY_REPLY, out, e) < 0)
        return -1;
    return check_host(start, (*out)->query_reply, e);
}

static void answer(const Migrd__Session *m, Migrd__Finished *f)
{
    f->outcome = (uint32_t)m->query_reply->outcome;
    f->outcome_epoch = m->query_reply->epoch;
    f->text = m->query_reply->text;
}

int query_run(struct ctl *ctl, const Migrd__QueryStart *start)
{
    return ask_job(ctl, start->tls, ask, answer, start);
}
