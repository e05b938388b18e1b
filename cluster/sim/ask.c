/* SPDX-License-Identifier: ISC */
/*
 * ask: a command goes to the core of one node and is answered once, unless its daemon dies first.
 * Of what operators were told to be done the world keeps a promise for each object (a domain in the
 * log, a drained node, armed): while a command about it is open, and a while after one was lost,
 * either way is right.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/sim/ask.h"
#include "cluster/sim/host.h"
#include "cluster/sim/node.h"

#define ASKS_ROOM 64
#define DOUBT_MS 20000 /* a proposal of a daemon that died may still be decided */

#define KIND(name) MIGRD__HA_COMMAND_KIND__HA_##name

/* --- promises --- */

static struct promise *promise_of(struct world *w, const struct ask *q)
{
    switch (q->kind) {
    case KIND(ADD):
    case KIND(REMOVE):
        return &w->domain[q->domain].added;
    case KIND(DRAIN):
    case KIND(UNDRAIN):
        return &w->drained[q->node - 1];
    case KIND(ARM):
    case KIND(DISARM):
        return &w->armed;
    default:
        return NULL;
    }
}

static void promise_open(struct world *w, const struct ask *q)
{
    struct promise *p = promise_of(w, q);

    if (p != NULL)
        p->open++;
}

static void promise_close(struct world *w, const struct ask *q)
{
    struct promise *p = promise_of(w, q);
    bool yes = q->kind == KIND(ADD) || q->kind == KIND(DRAIN) || q->kind == KIND(ARM);

    if (p == NULL)
        return;
    p->open--;
    if (q->state == ASK_LOST)
        p->doubt_until = w->now + DOUBT_MS * MS;
    /* The order of answers is not that of the log. */
    if (q->state != ASK_YES || p->open > 0 || q->asked_at <= p->closed_at ||
        w->now < p->doubt_until)
        p->is = PROMISE_UNKNOWN;
    else
        p->is = yes ? PROMISE_YES : PROMISE_NO;
    p->closed_at = w->now;
}

/* --- a command --- */

uint32_t ask(struct world *w, uint32_t via, const struct ask *question)
{
    struct node *n = node_of(w, via);
    struct ask *q;

    if (w->asks == w->asks_room) {
        struct ask *more = realloc(w->ask, (w->asks_room + ASKS_ROOM) * sizeof *more);

        if (more == NULL) {
            w->no_memory = true;
            return 0;
        }
        w->ask = more;
        w->asks_room += ASKS_ROOM;
    }
    q = &w->ask[w->asks++];
    *q = *question;
    q->via = via;
    q->life = n->life;
    q->asked_at = w->now;
    q->state = ASK_OPEN;
    promise_open(w, q);
    if (n->life == 0) {
        q->state = ASK_LOST;
        promise_close(w, q);
    } else {
        node_command(w, n, w->asks - 1);
    }
    return (uint32_t)(q - w->ask);
}

static void fill_policy(Migrd__HaPolicy *policy, const struct ask *q, const struct sim_domain *d)
{
    policy->class_ = q->value;
    if (d->group != 0) {
        policy->apart = (char *)"apart";
        policy->apart_hard = d->hard;
    }
    policy->restart_on_shutdown = q->policy & 1;
    policy->failback_min = q->policy & 2 ? 1 : 0;
    policy->max_restarts = q->policy & 4 ? 1 : 0;
}

static void fill_domain(struct world *w, Migrd__HaDomain *m, const struct ask *q)
{
    const struct sim_domain *d = &w->plan->domain[q->domain];
    static char name[16];

    snprintf(name, sizeof name, "guest%u", q->domain + 1);
    m->uuid = w->domain[q->domain].uuid;
    m->name = name;
    m->memory_kib = (uint64_t)d->memory_mib << 10;
    m->vcpus = 1;
    m->want_run = !q->wants || q->value != 0;
    m->obeys_fuse = d->fuse;
    m->owner = q->node;
    m->epoch = q->epoch;
    m->definition.data = (uint8_t *)name;
    m->definition.len = strlen(name);
}

void ask_step(struct world *w, struct node *n, uint32_t number,
    void (*step)(struct world *, struct node *, const struct ha_event *))
{
    const struct ask *q = &w->ask[number];
    Migrd__HaCommand command = MIGRD__HA_COMMAND__INIT;
    Migrd__HaDomain domain = MIGRD__HA_DOMAIN__INIT;
    Migrd__HaPolicy policy = MIGRD__HA_POLICY__INIT;
    struct ha_event event = { .type = HA_EV_COMMAND, .u.command = &command };
    char *set[] = { (char *)(q->wants ? "want_run" : "policy") };

    command.id = number + 1;
    command.kind = (Migrd__HaCommandKind)q->kind;
    command.node = q->node;
    command.epoch = q->epoch;
    command.who = (char *)"operator";
    command.text = (char *)"simulated";
    command.return_home = q->policy & 1;
    command.force = q->by_operator && q->kind != KIND(REMOVE);
    if (q->domain < w->plan->domains)
        command.uuid = w->domain[q->domain].uuid;
    if (q->kind == KIND(ADD) || q->kind == KIND(SET)) {
        fill_policy(&policy, q, &w->plan->domain[q->domain]);
        fill_domain(w, &domain, q);
        domain.policy = &policy;
        command.domain = &domain;
        command.set = set;
        command.n_set = q->kind == KIND(SET);
    }
    say(w, "node %u is asked command %u kind %d domain %u node %u epoch %llu", n->id, number + 1,
        q->kind, q->domain + 1, q->node, (unsigned long long)q->epoch);
    step(w, n, &event);
}

void ask_answered(struct world *w, struct node *n, const struct ha_action *a)
{
    struct ask *q = a->id >= 1 && a->id <= w->asks ? &w->ask[a->id - 1] : NULL;

    if (q == NULL || q->via != n->id || q->life != n->life || q->state != ASK_OPEN) {
        broken(w, "answers", "node %u answers command %llu, which is not open there", n->id,
            (unsigned long long)a->id);
        return;
    }
    q->state = a->ok ? ASK_YES : ASK_NO;
    if (a->answer != NULL) {
        q->owner = a->answer->owner;
        q->owner_epoch = a->answer->epoch;
        q->moving = a->answer->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_MIGRATING;
    }
    promise_close(w, q);
}

void ask_daemon_died(struct world *w, struct node *n)
{
    for (uint32_t i = 0; i < w->asks; i++)
        if (w->ask[i].via == n->id && w->ask[i].state == ASK_OPEN) {
            w->ask[i].state = ASK_LOST;
            promise_close(w, &w->ask[i]);
        }
}
