/* SPDX-License-Identifier: ISC */
/*
 * This host's facts are a job: the hypervisor's figures and what /sys has block. Asking
 * another host is a worker of its own, as every connection is. A session that asks here may
 * end before the job does: it is found again by its name.
 *
 * What another host says of itself goes to people's terminals: characters that cannot be part
 * of a name or model become '?'.
 */
#include "migrd/facts_query.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/pbjson.h"
#include "migrd/compat/facts.h"
#include "migrd/migration_internal.h"

#define ASK_LIMIT_MS 60000 /* a question's worker lives no longer */

/* ---- this host ---- */

struct gather {
    struct job job; /* first */
    struct migrd *m;
    facts_done *done;
    void *arg;
    char host[256];
    Migrd__HostFacts *facts;
};

static void gather_work(struct job *j)
{
    struct gather *g = (struct gather *)j;
    const struct hv_ops *ops = g->m->hv_ops;
    struct hv_caps caps;

    memset(&caps, 0, sizeof caps);
    j->result = ops->capabilities(g->m->hv, &caps, &j->err);
    if (j->result < 0)
        return;
    g->facts = facts_gather(g->host, ops->name, &caps, NULL);
    if (g->facts == NULL)
        j->result = err_set(&j->err, ERR_MEMORY, "out of memory for the facts of this host");
}

static void gather_done(struct job *j)
{
    struct gather *g = (struct gather *)j;
    uint64_t committed = 0;

    if (g->facts != NULL) {
        registry_memory(g->m->registry, NULL, &committed, &g->facts->memory_promised_kib);
        g->facts->memory_reserve_kib = registry_kept(g->m);
        g->facts->overcommit = g->m->config.memory_overcommit;
    }
    g->done(g->arg, g->facts, &j->err);
    if (g->facts != NULL)
        migrd__host_facts__free_unpacked(g->facts, NULL);
    free(g);
}

static int gather_start(struct migrd *m, facts_done *done, void *arg, struct err *e)
{
    struct gather *g = calloc(1, sizeof *g);

    if (g == NULL)
        return err_set(e, ERR_MEMORY, "out of memory for the facts of this host");
    g->job.work = gather_work;
    g->job.done = gather_done;
    g->m = m;
    g->done = done;
    g->arg = arg;
    snprintf(g->host, sizeof g->host, "%s", m->host_name);
    job_run(m->loop, &g->job);
    return 0;
}

/* ---- another host ---- */

struct facts_ask {
    struct facts_ask *next;
    struct migrd *m;
    struct worker *worker;
    facts_done *done;
    void *arg;
    char host[256];
};

static void unlink_ask(struct facts_ask *a)
{
    for (struct facts_ask **p = &a->m->migrations->asks; *p != NULL; p = &(*p)->next)
        if (*p == a) {
            *p = a->next;
            return;
        }
}

static void clean(char *s)
{
    for (; s != NULL && *s != '\0'; s++)
        if (*s < ' ' || *s > '~')
            *s = '?';
}

static Migrd__HostFacts *clean_copy(const Migrd__HostFacts *theirs)
{
    Migrd__HostFacts *f = pb_copy(&theirs->base);

    if (f == NULL)
        return NULL;
    clean(f->host);
    clean(f->hypervisor);
    clean(f->hypervisor_release);
    clean(f->release);
    if (f->cpu != NULL) {
        clean(f->cpu->vendor);
        clean(f->cpu->model);
    }
    return f;
}

static void ask_ended(void *arg, const Migrd__Finished *fin, const char *how)
{
    struct facts_ask *a = arg;
    Migrd__HostFacts *f = NULL;
    struct err e;

    err_clear(&e);
    if (fin == NULL || !fin->ok)
        err_set(&e, fin != NULL ? mig_code_of(fin->code) : ERR_INTERNAL,
            "host %s cannot be asked: %s", a->host, fin != NULL ? fin->text : how);
    else if (fin->facts == NULL || fin->facts->cpu == NULL)
        err_set(&e, ERR_PROTOCOL, "host %s does not say what it is", a->host);
    else if ((f = clean_copy(fin->facts)) == NULL)
        err_set(&e, ERR_MEMORY, "out of memory for the facts of host %s", a->host);
    unlink_ask(a);
    a->done(a->arg, f, &e);
    if (f != NULL)
        migrd__host_facts__free_unpacked(f, NULL);
    free(a);
}

static void send_start(struct facts_ask *a, unsigned port, bool use_tls)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__FactsStart s = MIGRD__FACTS_START__INIT;
    Migrd__WorkerTls tls;
    char path[3][PATHS_LEN];

    s.host = a->host;
    s.port = port;
    s.dead_peer_ms = a->m->config.dead_peer_ms;
    s.own_name = a->m->host_name;
    if (use_tls) {
        mig_worker_tls(a->m, &tls, path);
        s.tls = &tls;
    }
    t.body_case = MIGRD__TO_WORKER__BODY_FACTS;
    t.facts = &s;
    worker_send(a->worker, &t, -1);
}

static int check_request(const struct migrd *m, const Migrd__GetFacts *rq, struct err *e)
{
    unsigned n = 0;

    for (const struct facts_ask *a = m->migrations->asks; a != NULL; a = a->next)
        n++;
    if (n >= FACTS_ASKS_MAX)
        return err_set(e, ERR_RESOURCE, "%u hosts are being asked already", n);
    if (strlen(rq->host) >= sizeof((struct facts_ask *)NULL)->host)
        return err_set(e, ERR_INVALID, "host %.40s...: the name is too long", rq->host);
    if (rq->port > 65535)
        return err_set(e, ERR_INVALID, "port %u is not between 1 and 65535", rq->port);
    return 0;
}

static int ask_start(
    struct migrd *m, const Migrd__GetFacts *rq, facts_done *done, void *arg, struct err *e)
{
    static const struct worker_calls calls = { NULL, ask_ended };
    bool tls =
        strcmp(rq->tls, "yes") == 0 || (m->config.relocation_tls && strcmp(rq->tls, "no") != 0);
    struct facts_ask *a;

    if (check_request(m, rq, e) < 0)
        return -1;
    a = calloc(1, sizeof *a);
    if (a == NULL)
        return err_set(e, ERR_MEMORY, "out of memory");
    *a = (struct facts_ask){ .m = m, .done = done, .arg = arg };
    mig_host_text(a->host, sizeof a->host, rq->host);
    if (worker_start(m, ASK_LIMIT_MS, &calls, a, &a->worker, e) < 0) {
        free(a);
        return -1;
    }
    a->next = m->migrations->asks;
    m->migrations->asks = a;
    send_start(a, rq->port != 0 ? rq->port : m->config.relocation_port, tls);
    return 0;
}

int facts_of(struct migrd *m, const Migrd__GetFacts *rq, facts_done *done, void *arg, struct err *e)
{
    return rq->host[0] == '\0' ? gather_start(m, done, arg, e) : ask_start(m, rq, done, arg, e);
}

void facts_stop_all(struct migrd *m)
{
    for (struct facts_ask *a = m->migrations->asks; a != NULL; a = a->next)
        worker_kill(a->worker);
}

/* ---- others ask ---- */

struct asker {
    struct migrd *m;
    char session[TR_SESSION_LEN];
};

static void answer(struct migration *s, const Migrd__HostFacts *f, const struct err *e)
{
    Migrd__ToWorker t = MIGRD__TO_WORKER__INIT;
    Migrd__FactsVerdict v = MIGRD__FACTS_VERDICT__INIT;

    v.ok = f != NULL;
    if (f == NULL) {
        v.code = (char *)(uintptr_t)err_code_name(e->code);
        v.text = (char *)(uintptr_t)e->text;
    }
    v.facts = (Migrd__HostFacts *)(uintptr_t)f;
    t.body_case = MIGRD__TO_WORKER__BODY_FACTS_VERDICT;
    t.facts_verdict = &v;
    if (s->worker != NULL)
        worker_send(s->worker, &t, -1);
}

static void gathered(void *arg, const Migrd__HostFacts *f, const struct err *e)
{
    struct asker *a = arg;
    struct migration *s = mig_by_session(a->m, a->session);

    if (s != NULL)
        answer(s, f, e);
    free(a);
}

void facts_seen(struct migration *session, const Migrd__FactsSeen *q)
{
    struct asker *a = calloc(1, sizeof *a);
    struct err e;

    session->is_query = true;
    mig_host_text(session->peer, sizeof session->peer, q->source_host);
    log_info("migration", "%s (%s) asks what this host is", session->peer, session->address);
    err_set(&e, ERR_MEMORY, "out of memory");
    if (a != NULL) {
        a->m = session->m;
        snprintf(a->session, sizeof a->session, "%s", session->session);
        if (gather_start(session->m, gathered, a, &e) == 0)
            return;
        free(a);
    }
    answer(session, NULL, &e);
}
