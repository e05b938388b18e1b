/* SPDX-License-Identifier: ISC */
/*
 * The terms of a failover. A node that leaves the view was last heard at some time (its last beat
 * that this host saw); then come the view without it, the proof, the decision and the new owner's
 * word that the domain runs. Each is stamped with this host's clock when its look finds it:
 *
 *   last beat --detection--> AWAY --proof--> EXPIRED, FENCED --decision--> STARTING --start-->
 * RUNNING
 *
 * A step that was in the same look as the one before took 0 ms. Without a node that went away
 * (a restart, a start after a drain) only the start has a length. A hand-over of a migration is no
 * failover: its domain goes through HANDED.
 */
#define _GNU_SOURCE
#include "migrd/ha_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/core.h"

#define LATEST 600000 /* ms; a node that has been away for longer explains nothing */

struct node_seen {
    uint32_t id;
    Migrd__HaNodeState state;
    bool drain, member;
    uint64_t heard, away, proved; /* 0: not */
};

struct domain_seen {
    char uuid[HA_UUID_LEN];
    Migrd__HaDomainState state;
    uint32_t owner;
    uint64_t epoch;
    bool blocked, want_run;
    uint64_t starting; /* when */
};

struct failover {
    Migrd__HaFailover f;
    char uuid[HA_UUID_LEN], name[HA_NAME_LEN];
};

struct ha_watch {
    bool looked;
    uint64_t index, log_time, log_at; /* of the newest entry, and when a look found it */
    Migrd__HaPhase phase;
    Migrd__HaArmed armed;
    struct node_seen node[HA_NODES_MAX];
    unsigned n_nodes;
    struct domain_seen *domain; /* in the order of the state: by uuid */
    size_t n_domains;
    struct failover kept[HA_WATCH_KEPT];
    unsigned n_kept, next; /* `next`: the place of the next one */
};

struct look {
    struct ha_watch *w;
    const Migrd__HaState *s;
    uint64_t now_ms, wall_ns;
    ha_watch_fn *fn;
    void *arg;
};

struct ha_watch *ha_watch_new(void)
{
    return calloc(1, sizeof(struct ha_watch));
}

void ha_watch_free(struct ha_watch **w)
{
    if (*w != NULL)
        free((*w)->domain);
    free(*w);
    *w = NULL;
}

const Migrd__HaFailover *ha_watch_failover(const struct ha_watch *w, unsigned i)
{
    if (i >= w->n_kept)
        return NULL;
    return &w->kept[(w->next + HA_WATCH_KEPT - 1 - i) % HA_WATCH_KEPT].f;
}

uint64_t ha_watch_log_now(const struct ha_watch *w, uint64_t now_ms)
{
    return w->log_time + (now_ms > w->log_at ? now_ms - w->log_at : 0);
}

static void tell(const struct look *l, struct ha_news news)
{
    news.state = l->s;
    if (l->w->looked)
        l->fn(l->arg, &news);
}

/* --- nodes --- */

static uint64_t last_beat(const Migrd__HaState *s, uint32_t node)
{
    for (size_t i = 0; s->local != NULL && i < s->local->n_peer; i++)
        if (s->local->peer[i]->node == node)
            return s->local->peer[i]->seen;
    return 0;
}

static bool is_proved(Migrd__HaNodeState s)
{
    return s == MIGRD__HA_NODE_STATE__NODE_EXPIRED || s == MIGRD__HA_NODE_STATE__NODE_FENCED;
}

static void stamp_node(const struct look *l, struct node_seen *n, const Migrd__HaNode *x)
{
    if (x->state == MIGRD__HA_NODE_STATE__NODE_ONLINE) {
        n->heard = n->away = n->proved = 0;
        return;
    }
    if (n->away == 0) {
        n->away = l->now_ms;
        n->heard = last_beat(l->s, x->id);
    }
    if (is_proved(x->state) && n->proved == 0)
        n->proved = l->now_ms;
}

static struct node_seen *node_seen(struct ha_watch *w, uint32_t id)
{
    for (unsigned i = 0; i < w->n_nodes; i++)
        if (w->node[i].id == id)
            return &w->node[i];
    if (w->n_nodes == HA_NODES_MAX)
        return NULL;
    w->node[w->n_nodes] = (struct node_seen){ .id = id };
    return &w->node[w->n_nodes++];
}

static void look_at_node(const struct look *l, const Migrd__HaNode *x)
{
    struct node_seen *n = node_seen(l->w, x->id);
    bool news;

    if (n == NULL)
        return;
    news = n->state != x->state || n->drain != x->drain || n->member != x->member;
    stamp_node(l, n, x);
    n->state = x->state;
    n->drain = x->drain;
    n->member = x->member;
    if (news)
        tell(l, (struct ha_news){ .type = HA_NEWS_NODE, .node = x });
}

/* --- failovers --- */

static uint32_t between(uint64_t from, uint64_t to)
{
    return from != 0 && to > from && to - from < LATEST ? (uint32_t)(to - from) : 0;
}

static void failover_terms(const struct look *l, Migrd__HaFailover *f, uint32_t from)
{
    const struct node_seen *n = node_seen(l->w, from);

    if (n == NULL || n->away == 0 || n->proved == 0)
        return;
    f->detection_ms = between(n->heard, n->away);
    f->proof_ms = between(n->away, n->proved);
    f->decision_ms = between(n->proved, l->now_ms);
}

static void failover_began(const struct look *l, uint32_t from, const Migrd__HaDomain *d)
{
    struct ha_watch *w = l->w;
    struct failover *k = &w->kept[w->next];

    memset(k, 0, sizeof *k);
    migrd__ha_failover__init(&k->f);
    snprintf(k->uuid, sizeof k->uuid, "%s", d->uuid);
    snprintf(k->name, sizeof k->name, "%s", d->name);
    k->f.uuid = k->uuid;
    k->f.name = k->name;
    k->f.from = from;
    k->f.to = d->owner;
    k->f.epoch = d->epoch;
    k->f.proof = d->proof;
    k->f.wall_ns = l->wall_ns;
    failover_terms(l, &k->f, from);
    w->next = (w->next + 1) % HA_WATCH_KEPT;
    w->n_kept += w->n_kept < HA_WATCH_KEPT;
}

static void failover_runs(const struct look *l, const struct domain_seen *seen)
{
    for (unsigned i = 0; i < l->w->n_kept; i++) {
        Migrd__HaFailover *f = &l->w->kept[i].f;

        if (f->epoch != seen->epoch || strcmp(f->uuid, seen->uuid) != 0)
            continue;
        f->running = true;
        f->start_ms = between(seen->starting, l->now_ms);
    }
}

/* --- domains --- */

static bool starts(const Migrd__HaDomain *d)
{
    return d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING;
}

static bool domain_news(const struct domain_seen *a, const Migrd__HaDomain *d)
{
    return a->state != d->state || a->owner != d->owner || a->epoch != d->epoch ||
           a->blocked != d->blocked || a->want_run != d->want_run;
}

/* `before`: NULL, it is new. */
static void look_at_domain(const struct look *l, const struct domain_seen *before,
    const Migrd__HaDomain *d, struct domain_seen *out)
{
    *out = (struct domain_seen){ .state = d->state,
        .owner = d->owner,
        .epoch = d->epoch,
        .blocked = d->blocked,
        .want_run = d->want_run };
    snprintf(out->uuid, sizeof out->uuid, "%s", d->uuid);
    if (before != NULL && before->epoch == d->epoch)
        out->starting = before->starting;
    if (starts(d) && out->starting == 0) {
        out->starting = l->now_ms;
        if (before != NULL && before->owner != 0 &&
            before->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED)
            failover_began(l, before->owner, d);
    }
    if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING && out->starting != 0) {
        failover_runs(l, out);
        out->starting = 0;
    }
    if (before == NULL || domain_news(before, d))
        tell(l, (struct ha_news){ .type = HA_NEWS_DOMAIN, .domain = d, .uuid = d->uuid });
}

/* Both lists are sorted by uuid. */
static void look_at_domains(const struct look *l)
{
    struct ha_watch *w = l->w;
    struct domain_seen *list = calloc(l->s->n_domain + 1, sizeof *list);
    size_t old = 0;

    if (list == NULL)
        return;
    for (size_t i = 0; i < l->s->n_domain; i++) {
        const Migrd__HaDomain *d = l->s->domain[i];
        int order = 1;

        while (old < w->n_domains && (order = strcmp(w->domain[old].uuid, d->uuid)) < 0)
            tell(l, (struct ha_news){
                        .type = HA_NEWS_DOMAIN, .gone = true, .uuid = w->domain[old++].uuid });
        look_at_domain(l, old < w->n_domains && order == 0 ? &w->domain[old++] : NULL, d, &list[i]);
    }
    for (; old < w->n_domains; old++)
        tell(l,
            (struct ha_news){ .type = HA_NEWS_DOMAIN, .gone = true, .uuid = w->domain[old].uuid });
    free(w->domain);
    w->domain = list;
    w->n_domains = l->s->n_domain;
}

void ha_watch_look(struct ha_watch *w, const Migrd__HaState *s, uint64_t now_ms, uint64_t wall_ns,
    ha_watch_fn *fn, void *arg)
{
    struct look l = { w, s, now_ms, wall_ns, fn, arg };
    Migrd__HaPhase phase = s->local != NULL ? s->local->phase : MIGRD__HA_PHASE__PHASE_ALONE;

    if (s->index != w->index || !w->looked) {
        w->index = s->index;
        w->log_time = s->time;
        w->log_at = now_ms;
    }
    if (phase != w->phase) {
        w->phase = phase;
        tell(&l, (struct ha_news){ .type = HA_NEWS_PHASE });
    }
    if (s->armed != w->armed) {
        w->armed = s->armed;
        tell(&l, (struct ha_news){ .type = HA_NEWS_ARMED });
    }
    for (size_t i = 0; i < s->n_node; i++)
        look_at_node(&l, s->node[i]);
    look_at_domains(&l);
    w->looked = true;
}
