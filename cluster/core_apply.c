/* SPDX-License-Identifier: ISC */
/* Entries that are committed change the state here, in their order, the same way on each node. */
#include "cluster/core_internal.h"

void apply_touch(struct ha_core *c, const struct ha_domain *d)
{
    struct ha_local *l;

    l = host_local(c, d->uuid, domain_concerns(d, c->config.node));
    if (l) {
        l->dirty = true;
        c->any_dirty = true;
    }
}

static void apply_report(struct ha_core *c, struct ha_node *n, const Migrd__HaReport *r)
{
    if (r->host)
        node_host(n, r->host);
    if (r->holds == n->life && r->holds)
        node_holds(n);
    for (size_t i = 0; i < r->n_domain; i++)
        domain_report(c, n, r->domain[i], r->applied);
}

static void apply_fenced(struct ha_core *c, const Migrd__HaFenced *f)
{
    struct ha_node *n = state_node(&c->state, f->node);

    if (!f->failed)
        node_fenced(c, f->node, f->incarnation, f->life, f->proof, f->text);
    else if (n && n->fencing && n->incarnation == f->incarnation && n->life == f->life)
        ha_text(n->why, sizeof n->why, "its fence agents failed: %s", f->text);
}

/* Only an incarnation that was admitted speaks, and each of its requests counts once. */
static bool speaks(struct ha_core *c, const struct ha_node *n, const Migrd__HaEntry *e)
{
    if (e->join && (!n || n->incarnation != e->incarnation))
        return true;
    if (n && n->incarnation == e->incarnation && e->request > n->request)
        return true;
    c->ok = false;
    ha_text(c->said, sizeof c->said, "this host has been admitted anew meanwhile: ask again");
    return false;
}

static void apply_kind(struct ha_core *c, struct ha_node *n, const Migrd__HaEntry *e)
{
    if (e->report)
        apply_report(c, n, e->report);
    else if (e->expired)
        node_expired(c, e);
    else if (e->fenced)
        apply_fenced(c, e->fenced);
    else if (e->command)
        command_apply(c, n, e->command);
}

void apply_entry(struct ha_core *c, const Migrd__HaEntry *e)
{
    struct ha_state *s = &c->state;
    struct ha_node *n = state_node(s, e->node);

    if (e->time > s->time)
        s->time = e->time;
    c->applied_at = c->now;
    if (e->term) {
        node_term(c, e->term);
    } else if (speaks(c, n, e)) {
        if (e->join)
            node_join(c, e);
        else
            apply_kind(c, n, e);
        n = state_node(s, e->node);
        if (n && n->incarnation == e->incarnation)
            n->request = e->request;
    }
    decide(c);
}
