/* SPDX-License-Identifier: ISC */
/*
 * What follows from the state, after each entry: stops and starts that are wanted, places for what
 * waits, moves away from drained nodes and back. Level-triggered: looks at what is, not at what
 * happened; a reason that stays is looked at again after the next entry, and by a TICK at
 * state.wake. It uses the state alone, so each node decides the same.
 */
#include <stdlib.h>

#include "cluster/core_internal.h"

#define AWAITS_MS 10000u /* an owner that is back says so long whether its copy is still there */

static void wake_at(struct ha_state *s, uint64_t time)
{
    if (time > s->time && time < s->wake)
        s->wake = time;
}

/* --- disarm --- */

static bool mid_flight(const struct ha_domain *d)
{
    return domain_occupies(d) && d->state != DS(RUNNING) && !d->blocked;
}

static void disarm(struct ha_core *c)
{
    struct ha_state *s = &c->state;

    for (unsigned i = 0; i < s->n_domains; i++)
        if (mid_flight(s->domain[i]))
            return;
    s->armed = ARMED(DISARMED);
    for (unsigned i = 0; i < s->n_domains; i++) {
        s->domain[i]->fused = false;
        apply_touch(c, s->domain[i]);
    }
    core_note(
        c, true, "high availability is disarmed: nothing is recovered until it is armed again");
}

/* --- what is wanted --- */

struct look {
    unsigned waiting, moving, failing_back;
    bool drains, homesick;
};

static void want(struct ha_core *c, struct ha_domain *d)
{
    struct ha_domain_change x = { .text = "" };

    d->reread = d->reread && d->n_unsure > 0;
    if (d->blocked)
        return;
    if (d->state == DS(STOPPED) && d->want_run) {
        d->state = DS(WAITING);
        d->since = c->state.time;
        d->proof = PROOF(NONE);
    } else if (d->state == DS(WAITING) && !d->want_run && !d->reread) {
        d->state = DS(STOPPED);
        d->since = c->state.time;
        d->failures = d->n_failed = 0;
        apply_touch(c, d);
    } else if (!d->want_run && (d->state == DS(RUNNING) || d->state == DS(STARTING))) {
        domain_event(c, d, DE_STOP, &x);
    } else if (!d->want_run && d->state == DS(MIGRATING) && !d->cancel) {
        d->cancel = true;
        apply_touch(c, d);
    }
}

static struct look look(struct ha_core *c)
{
    struct ha_state *s = &c->state;
    struct look k = { 0 };

    for (unsigned i = 0; i < s->n_domains; i++) {
        struct ha_domain *d = s->domain[i];

        want(c, d);
        k.waiting += d->state == DS(WAITING);
        k.moving += d->state == DS(MIGRATING) && d->move != MOVE(NONE);
        k.failing_back += d->state == DS(MIGRATING) && d->move == MOVE(FAILBACK);
        k.homesick |= d->state == DS(RUNNING) && (d->origin || d->policy.failback_min);
    }
    for (unsigned i = 0; i < s->n_node; i++)
        k.drains |= s->node[i].drain;
    return k;
}

/* --- places for what waits --- */

/* A copy that people may have started by hand, where nobody has looked. A node that is away at an
 * ADD does not hold up a failover; one that was away when the cluster was armed does, until its
 * owner has said that it runs. */
static bool asked_for(const struct ha_state *s, struct ha_domain *d)
{
    for (unsigned i = 0; i < d->n_unsure; i++) {
        const struct ha_node *n = state_node(s, d->unsure[i]);

        if (!n || n->state == NS(UNKNOWN) || n->state == NS(FENCED) ||
            (!d->reread && n->state != NS(ONLINE)))
            continue;
        domain_why(d, "waits for node %u, which has not said whether it has a copy", n->id);
        return true;
    }
    return false;
}

static bool due(struct ha_state *s, struct ha_domain *d)
{
    const struct ha_node *owner = state_node(s, d->owner);

    if (d->state != DS(WAITING) || !d->want_run || d->blocked || asked_for(s, d))
        return false;
    if (d->not_before > s->time) {
        wake_at(s, d->not_before);
        return false;
    }
    if (d->awaits && owner && owner->state == NS(ONLINE) && s->time < owner->since + AWAITS_MS) {
        wake_at(s, owner->since + AWAITS_MS);
        return false;
    }
    return true;
}

static uint64_t ready_limit(const struct ha_state *s)
{
    unsigned most = 0;

    for (unsigned i = 0; i < s->n_node; i++)
        if (s->node[i].member && s->node[i].ready > most)
            most = s->node[i].ready;
    return most;
}

/* The lowest class that is on its way: those above it wait, but not for ever. */
static unsigned gate(struct ha_state *s, uint64_t limit)
{
    unsigned lowest = UINT32_MAX;

    for (unsigned i = 0; i < s->n_domains; i++) {
        const struct ha_domain *d = s->domain[i];
        uint64_t until = d->since;

        if (d->state == DS(STARTING))
            until += limit;
        else if (d->state == DS(RUNNING) && d->policy.ready_s)
            until += d->policy.ready_s * UINT64_C(1000) < limit ? d->policy.ready_s * UINT64_C(1000)
                                                                : limit;
        if (until <= s->time)
            continue;
        wake_at(s, until);
        if (d->policy.class < lowest)
            lowest = d->policy.class;
    }
    return lowest;
}

/* Failures that grow old, and quarantines that end, may make a place. */
static void wake_for(struct ha_state *s, const struct ha_domain *d)
{
    uint64_t window = (d->policy.window_s ? d->policy.window_s : 600u) * UINT64_C(1000);

    for (unsigned i = 0; i < d->n_failed; i++)
        wake_at(s, d->failed[i].since + window);
}

static void place(
    struct ha_core *c, struct ha_plan *p, unsigned i, unsigned *lowest, uint64_t limit)
{
    struct ha_state *s = &c->state;
    struct ha_domain *d = s->domain[i];
    struct ha_domain_change x = { .proof = d->proof };
    char text[HA_WHY_LEN];
    bool busy;

    if (d->policy.class > *lowest) {
        domain_why(d, "waits until class %u is ready", *lowest);
        return;
    }
    x.node = plan_pick(p, d, 0, &busy, text, NULL);
    x.text = text;
    if (x.node) {
        domain_event(c, d, DE_PLACE, &x);
        plan_put(p, i, x.node);
    } else {
        domain_why(d, "%s", text);
        wake_for(s, d);
        if (!busy || s->time >= d->since + limit)
            return;
        wake_at(s, d->since + limit);
    }
    if (d->policy.class < *lowest)
        *lowest = d->policy.class;
}

static void place_waiting(struct ha_core *c)
{
    struct ha_state *s = &c->state;
    unsigned *list = arena_alloc(&c->arena, s->n_domains * sizeof *list), n = 0, lowest;
    uint64_t limit = ready_limit(s);
    struct ha_plan p;

    for (unsigned i = 0; i < s->n_domains; i++) {
        unsigned j = n;

        if (!due(s, s->domain[i]))
            continue;
        for (; j > 0 && s->domain[list[j - 1]]->policy.class > s->domain[i]->policy.class; j--)
            list[j] = list[j - 1];
        list[j] = i;
        n++;
    }
    if (n == 0)
        return;
    lowest = gate(s, limit);
    plan_init(&p, s, &c->arena);
    for (unsigned k = 0; k < n; k++)
        place(c, &p, list[k], &lowest, limit);
}

/* --- moves --- */

static unsigned moves_of(const struct ha_state *s, uint32_t node)
{
    unsigned n = 0;

    for (unsigned i = 0; i < s->n_domains; i++) {
        const struct ha_domain *d = s->domain[i];

        n += (d->state == DS(MIGRATING) && (d->owner == node || d->to == node)) ||
             (d->state == DS(HANDED) && (d->from == node || d->owner == node));
    }
    return n;
}

static bool movable(struct ha_state *s, const struct ha_domain *d)
{
    if (d->state != DS(RUNNING) || d->blocked || !d->want_run)
        return false;
    wake_at(s, d->not_before);
    return d->not_before <= s->time;
}

static void move(
    struct ha_core *c, struct ha_domain *d, uint32_t to, Migrd__HaMove why, const char *text)
{
    struct ha_domain_change x = { .node = to, .text = text };

    if (!domain_event(c, d, DE_MIGRATE, &x))
        return;
    d->move = why;
    domain_why(d, "%s", text);
}

static void drain(struct ha_core *c, struct ha_node *n)
{
    struct ha_state *s = &c->state;
    unsigned moves = moves_of(s, n->id), left = 0;

    for (unsigned i = 0; i < s->n_domains; i++) {
        struct ha_domain *d = s->domain[i];
        char text[HA_WHY_LEN];
        struct ha_plan p;
        uint32_t to;
        bool busy;

        left += d->owner == n->id && domain_occupies(d);
        if (d->owner != n->id || moves >= n->moves_at_once || !movable(s, d))
            continue;
        plan_init(&p, s, &c->arena);
        to = plan_pick(&p, d, n->id, &busy, text, NULL);
        if (to) {
            move(c, d, to, MOVE(DRAIN), text);
            moves++;
        } else {
            domain_why(d, "node %u is being drained, but: %s", n->id, text);
        }
    }
    ha_text(n->why, sizeof n->why, left ? "being drained, %u domains left" : "drained", left);
}

/* Is there a reason to have it there rather than where it is? */
static bool goes_home(struct ha_state *s, const struct ha_domain *d, const struct ha_node *n,
    bool failing_back, Migrd__HaMove *why)
{
    uint64_t healthy = n->since + d->policy.failback_min * UINT64_C(60000);

    if (n->id == d->owner || n->state != NS(ONLINE) || n->drain)
        return false;
    if (d->origin == n->id) {
        *why = MOVE(RETURN);
        return true;
    }
    if (!d->policy.failback_min || failing_back ||
        plan_rank(&d->policy, n->id) >= plan_rank(&d->policy, d->owner))
        return false;
    wake_at(s, healthy);
    *why = MOVE(FAILBACK);
    return s->time >= healthy && n->quarantined <= s->time;
}

static void homewards(struct ha_core *c, bool failing_back)
{
    struct ha_state *s = &c->state;

    for (unsigned i = 0; i < s->n_domains; i++) {
        struct ha_domain *d = s->domain[i];

        if ((!d->origin && !d->policy.failback_min) || !movable(s, d))
            continue;
        for (unsigned k = 0; k < s->n_node; k++) {
            const struct ha_node *n = &s->node[k];
            char text[HA_WHY_LEN];
            Migrd__HaMove why;

            if (!goes_home(s, d, n, failing_back, &why) || moves_of(s, n->id) >= n->moves_at_once ||
                !plan_move(s, &c->arena, d, n->id, text))
                continue;
            move(c, d, n->id, why,
                why == MOVE(RETURN) ? "back home after a drain" : "back to a better node");
            failing_back |= why == MOVE(FAILBACK);
            break;
        }
    }
}

void decide(struct ha_core *c)
{
    struct ha_state *s = &c->state;
    struct look k;

    s->wake = HA_NEVER;
    if (s->armed == ARMED(DISARMING))
        disarm(c);
    if (s->armed != ARMED(ARMED))
        return;
    k = look(c);
    if (k.waiting)
        place_waiting(c);
    for (unsigned i = 0; k.drains && i < s->n_node; i++)
        if (s->node[i].drain)
            drain(c, &s->node[i]);
    if (k.homesick)
        homewards(c, k.failing_back > 0);
}
