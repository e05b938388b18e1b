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

static int ask(
    struct ctl *ctl, const void *job, const struct tr_tls *tls, Migrd__Session **out, struct err *e)
{
    const Migrd__FactsStart *start = job;
    const struct ask_host host = { start->host, start->port, start->dead_peer_ms, tls };
    Migrd__Session m = MIGRD__SESSION__INIT;
    Migrd__FactsQuery q = MIGRD__FACTS_QUERY__INIT;

    q.source_host = start->own_name;
    m.body_case = MIGRD__SESSION__BODY_FACTS_QUERY;
    m.facts_query = &q;
    return ask_host(ctl, &host, &m, MIGRD__SESSION__BODY_FACTS, out, e);
}

static void answer(const Migrd__Session *m, Migrd__Finished *f)
{
    f->facts = m->facts;
}

int facts_run(struct ctl *ctl, const Migrd__FactsStart *start)
{
    return ask_job(ctl, start->tls, ask, answer, start);
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
