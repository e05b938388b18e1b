/* SPDX-License-Identifier: ISC */
/*
 * The facts session: what is another host? One connection, one question, one answer; no
 * guest is touched. A target that does not know the question refuses it.
 *
 *   source worker   FactsStart -> connect, FactsQuery, HostFacts -> Finished.facts
 *   target worker   FactsQuery -> FactsSeen -> FactsVerdict of migrd -> HostFacts, or Refuse
 */
#include "base/clock.h"
#include "precopy/worker_internal.h"

static int connect_and_ask(struct ctl *ctl, const Migrd__FactsStart *start,
    const struct tr_tls *tls, Migrd__Session **out, struct err *e)
{
    const struct ask_host host = { start->host, start->port, start->dead_peer_ms, tls };
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__FactsQuery q = MIGRD__FACTS_QUERY__INIT;

    q.source_host = start->own_name;
    m.body_case = MIGRD__SESSION__BODY_FACTS_QUERY;
    m.facts_query = &q;
    return ask_host(ctl, &host, &m, MIGRD__SESSION__BODY_FACTS, out, e);
}

int facts_run(struct ctl *ctl, const Migrd__FactsStart *start)
{
    Migrd__Finished f = MIGRD__FINISHED__INIT;
    Migrd__Session *m = NULL;
    struct tr_tls *tls = NULL;
    struct err e = { 0 };
    uint64_t began = clock_ns();
    int r = worker_tls(start->tls, &tls, &e);

    if (r == 0)
        r = connect_and_ask(ctl, start, tls, &m, &e);
    f.phase = r == 0 ? MIGRD__PHASE__PHASE_DONE : MIGRD__PHASE__PHASE_CONNECT;
    f.total_us = (clock_ns() - began) / NS_PER_US;
    if (r == 0)
        f.facts = m->facts;
    send_finished(ctl, &f, r < 0 ? &e : NULL);
    if (m != NULL)
        migrd__session__free_unpacked(m, NULL);
    tr_tls_free(&tls);
    return r;
}

static int ask_own_migrd(struct ctl *ctl, const char *cert, const Migrd__FactsQuery *q,
    Migrd__ToWorker **out, struct err *e)
{
    Migrd__FromWorker m = MIGRD__FROM_WORKER__INIT;
    Migrd__FactsSeen seen = MIGRD__FACTS_SEEN__INIT;

    seen.source_host = q->source_host;
    seen.peer_cert = (char *)(uintptr_t)cert;
    m.body_case = MIGRD__FROM_WORKER__BODY_FACTS;
    m.facts = &seen;
    if (ctl_send(ctl, &m, e) < 0)
        return -1;
    return ctl_wait(ctl, MIGRD__TO_WORKER__BODY_FACTS_VERDICT, clock_ns() + VERDICT_MS * NS_PER_MS,
        out, NULL, e);
}

int facts_answer(struct ctl *ctl, struct tr_conn *c, const Migrd__FactsQuery *q, struct err *e)
{
    Migrd__Session m = MIGRD__SESSION__INIT;
    const Migrd__FactsVerdict *v;
    Migrd__ToWorker *w;
    int r;

    if (ask_own_migrd(ctl, tr_peer_name(c), q, &w, e) < 0)
        return -1;
    v = w->facts_verdict;
    if (!v->ok || v->facts == NULL) {
        r = migrd_said(v->code, v->text, e);
    } else {
        m.body_case = MIGRD__SESSION__BODY_FACTS;
        m.facts = v->facts;
        r = tr_send(c, &m, e);
    }
    migrd__to_worker__free_unpacked(w, NULL);
    return r;
}
