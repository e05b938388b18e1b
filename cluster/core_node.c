/* SPDX-License-Identifier: ISC */
/*
 * A node as the log has it.
 *
 *   state    join     enters   leaves   expired  fenced
 *   UNKNOWN  ONLINE   -        -        -        -
 *   ONLINE   ONLINE   -        AWAY     EXPIRED  -        (who is here is not dead)
 *   AWAY     ONLINE   ONLINE   -        EXPIRED  FENCED
 *   EXPIRED  ONLINE   -        -        -        FENCED   (domains without a fuse wait for it)
 *   FENCED   ONLINE   -        -        -        -
 *
 * AWAY is not dead: its domains stay where they are. EXPIRED and FENCED are proofs; such a node
 * comes back by a new life only.
 */
#include "cluster/core_internal.h"

#define HOUR_MS (UINT64_C(3600) * 1000)
#define QUARANTINE_MS (2 * HOUR_MS)

#define STAY (-1)

static const int next_state[NS_MAX][NE_MAX] = {
    [NS(UNKNOWN)] = { [NE_JOIN] = NS(ONLINE),
        [NE_ENTER] = STAY,
        [NE_LEAVE] = STAY,
        [NE_EXPIRE] = STAY,
        [NE_FENCE] = STAY },
    [NS(ONLINE)] = { [NE_JOIN] = NS(ONLINE),
        [NE_ENTER] = STAY,
        [NE_LEAVE] = NS(AWAY),
        [NE_EXPIRE] = NS(EXPIRED),
        [NE_FENCE] = STAY },
    [NS(AWAY)] = { [NE_JOIN] = NS(ONLINE),
        [NE_ENTER] = NS(ONLINE),
        [NE_LEAVE] = STAY,
        [NE_EXPIRE] = NS(EXPIRED),
        [NE_FENCE] = NS(FENCED) },
    [NS(EXPIRED)] = { [NE_JOIN] = NS(ONLINE),
        [NE_ENTER] = STAY,
        [NE_LEAVE] = STAY,
        [NE_EXPIRE] = STAY,
        [NE_FENCE] = NS(FENCED) },
    [NS(FENCED)] = { [NE_JOIN] = NS(ONLINE),
        [NE_ENTER] = STAY,
        [NE_LEAVE] = STAY,
        [NE_EXPIRE] = STAY,
        [NE_FENCE] = STAY },
};

const char *node_state_name(ha_nstate s)
{
    static const char *const name[NS_MAX] = { [NS(UNKNOWN)] = "unknown",
        [NS(ONLINE)] = "online",
        [NS(AWAY)] = "offline without a proof",
        [NS(EXPIRED)] = "down",
        [NS(FENCED)] = "fenced" };

    return (unsigned)s < NS_MAX ? name[s] : "?";
}

/* --- a loss --- */

static void count_loss(struct ha_core *c, struct ha_node *n)
{
    const struct ha_state *s = &c->state;
    unsigned kept = 0;

    for (unsigned i = 0; i < n->n_losses; i++)
        if (s->time - n->losses[i] < HOUR_MS)
            n->losses[kept++] = n->losses[i];
    if (kept == HA_LOSSES_MAX) {
        memmove(n->losses, n->losses + 1, (kept - 1) * sizeof n->losses[0]);
        kept--;
    }
    n->losses[kept++] = s->time;
    n->n_losses = kept;
    if (kept == HA_LOSSES_MAX) {
        n->quarantined = s->time + QUARANTINE_MS;
        core_note(c, true, "node %u was lost %d times in an hour: no new domains for two hours",
            n->id, HA_LOSSES_MAX);
    }
}

/* What it owned is free, as far as the proof goes. */
static void lost(struct ha_core *c, struct ha_node *n, ha_proof proof)
{
    struct ha_domain_change change = { .proof = proof, .node = n->id, .text = n->why };
    unsigned freed = 0;

    if (proof == PROOF(LEASE))
        change.quiet = n->quiet;

    n->fencing = false;
    for (unsigned i = 0; i < c->state.n_domains; i++) {
        struct ha_domain *d = c->state.domain[i];

        if (d->owner == n->id && domain_occupies(d)) {
            if (proof == PROOF(LEASE) && !d->fused) {
                n->fencing = true;
                domain_why(d,
                    "node %u is %s, but the domain has no fuse: power-off must be confirmed", n->id,
                    node_state_name(n->state));
                continue;
            }
            freed += domain_event(c, d, DE_LOST, &change);
        }
        if (d->from == n->id)
            domain_event(c, d, DE_FROM_GONE, &change);
        if (d->to == n->id && d->state == DS(MIGRATING)) {
            d->cancel = true;
            apply_touch(c, d);
        }
    }
    if (freed > 0)
        count_loss(c, n);
}

bool node_event(struct ha_core *c, struct ha_node *n, enum ha_node_event e, ha_proof proof)
{
    int next = next_state[n->state][e];

    if (next == STAY)
        return false;
    if (n->state != (ha_nstate)next || e == NE_JOIN)
        n->since = c->state.time;
    n->state = (ha_nstate)next;
    if (e == NE_JOIN || e == NE_EXPIRE || e == NE_FENCE)
        n->holds = false;
    if (e == NE_EXPIRE || e == NE_FENCE)
        lost(c, n, proof);
    return true;
}

/* --- entries --- */

void node_host(struct ha_node *n, const Migrd__HaJoin *j)
{
    n->memory_kib = j->memory_kib;
    n->cpus = j->cpus;
    n->others_kib = j->others_kib;
    n->starts_at_once = j->starts_at_once ? j->starts_at_once : 1;
    n->moves_at_once = j->moves_at_once ? j->moves_at_once : 1;
    n->ready = j->ready;
}

void node_holds(struct ha_node *n)
{
    n->holds = n->state == NS(ONLINE) || n->state == NS(AWAY);
}

/* A host that booted runs nothing of before; a daemon that restarted finds what is there. */
static void domains_of_before(struct ha_core *c, struct ha_node *n, bool booted)
{
    struct ha_domain_change change = { .proof = PROOF(SELF),
        .node = n->id,
        .text = booted ? "the host has been booted" : "its daemon was started anew" };

    for (unsigned i = 0; i < c->state.n_domains; i++) {
        struct ha_domain *d = c->state.domain[i];

        if (d->owner == n->id && d->state == DS(MIGRATING))
            domain_event(c, d, DE_MIGRATE_END, &change);
        if (booted && d->owner == n->id && domain_occupies(d))
            domain_event(c, d, DE_LOST, &change);
        if (booted && d->from == n->id)
            domain_event(c, d, DE_FROM_GONE, &change);
        if (d->owner == n->id && d->state == DS(WAITING))
            d->awaits = !booted;
        if (booted)
            domain_clean(d, n->id);
    }
}

/* What all configured nodes understand, each of which has been here: one that is away comes back as
 * it was. */
static void oldest_version(struct ha_state *s)
{
    unsigned oldest = UINT32_MAX;

    for (unsigned i = 0; i < s->n_nodes; i++) {
        const struct ha_node *n = state_node(s, s->nodes[i]);

        if (!n || !n->incarnation)
            return;
        oldest = n->version < oldest ? n->version : oldest;
    }
    if (oldest != UINT32_MAX && oldest > s->version)
        s->version = oldest;
}

/* The inequality of the timers is one of all nodes: the log's times are everybody's. They change
 * while nothing depends on them. */
static void join_times(struct ha_core *c, const Migrd__HaEntry *e)
{
    const Migrd__HaJoin *j = e->join;
    struct ha_state *s = &c->state;

    if (j->n_times != HA_LOG_TIMES || memcmp(s->times, j->times, sizeof s->times) == 0)
        return;
    if (s->times[0] == 0 || s->armed == ARMED(DISARMED)) {
        memcpy(s->times, j->times, sizeof s->times);
        return;
    }
    if (j->life > 1)
        return; /* it was said */
    core_note(c, e->node == c->config.node,
        "node %u has a token of %u ms, the cluster's log one of %u: the log's times count on all "
        "nodes; to change them disarm, restart the daemons, arm",
        e->node, j->times[0], s->times[0]);
}

static void life_begins(struct ha_core *c, const struct ha_node *n)
{
    lease_admitted(c, n->id);
    c->all_dirty = true;
    if (n->id != c->config.node || n->incarnation != c->config.incarnation)
        return;
    lease_begins(c, n->life);
    core_note(c, false, "the cluster's log has admitted this node, life %llu",
        (unsigned long long)n->life);
}

void node_join(struct ha_core *c, const Migrd__HaEntry *e)
{
    struct ha_node *n = state_node_add(&c->state, e->node);
    const Migrd__HaJoin *j = e->join;
    bool anew, booted;

    if (!n || j->life == 0)
        return;
    anew = n->incarnation != e->incarnation;
    if (!anew && j->life <= n->life)
        return;
    if (j->version < c->state.version) {
        core_note(c, true,
            "node %u speaks version %u of the cluster's protocol, all others %u: it stays out; "
            "update it",
            e->node, j->version, c->state.version);
        return;
    }
    join_times(c, e);
    booted = n->incarnation != 0 && strcmp(n->boot_id, j->boot_id) != 0;
    n->incarnation = e->incarnation;
    if (anew || (n->state != NS(ONLINE) && n->state != NS(AWAY)))
        n->floor = j->life;
    n->life = j->life;
    n->version = j->version;
    ha_copy(n->boot_id, sizeof n->boot_id, j->boot_id);
    ha_copy(n->name, sizeof n->name, j->name);
    node_host(n, j);
    n->n_votes = 0;
    n->fencing = false;
    n->why[0] = 0;
    node_event(c, n, NE_JOIN, PROOF(NONE));
    oldest_version(&c->state);
    if (anew || booted)
        domains_of_before(c, n, booted);
    else
        for (unsigned i = 0; i < c->state.n_domains; i++)
            if (c->state.domain[i]->owner == n->id && c->state.domain[i]->state == DS(WAITING))
                c->state.domain[i]->awaits = true;
    life_begins(c, n);
}

/* A daemon that has begun since the one that was admitted: no lease of that one's life holds for
 * it, and nothing is given to it before its own JOIN. */
static void newer_daemons(struct ha_state *s, const Migrd__HaTerm *t)
{
    for (size_t i = 0; i < t->n_members && i < t->n_incarnations; i++) {
        struct ha_node *n = state_node(s, t->members[i]);

        if (n && n->incarnation != t->incarnations[i])
            n->holds = false;
    }
}

void node_term(struct ha_core *c, const Migrd__HaTerm *t)
{
    struct ha_state *s = &c->state;

    s->term = t->term;
    s->n_nodes = 0;
    for (size_t i = 0; i < t->n_nodes && i < HA_NODES_MAX; i++) {
        s->nodes[s->n_nodes++] = t->nodes[i];
        state_node_add(s, t->nodes[i]);
    }
    for (unsigned i = 0; i < s->n_node; i++) {
        struct ha_node *n = &s->node[i];

        n->member = ha_node_in(t->members, (unsigned)t->n_members, n->id);
        node_event(c, n, n->member ? NE_ENTER : NE_LEAVE, PROOF(NONE));
    }
    newer_daemons(s, t);
}

/* A node that is in the group and not heard is a matter for people. */
static void expired_why(
    struct ha_core *c, struct ha_node *n, const Migrd__HaExpired *x, bool by_itself)
{
    char text[120];

    if (by_itself)
        ha_text(text, sizeof text,
            "it says that no majority has acknowledged its beats for %llu ms",
            (unsigned long long)x->silent);
    else
        ha_text(text, sizeof text,
            "%u of %u nodes have not heard it for longer than its fuses burn, the last vote after "
            "%llu ms",
            n->n_votes, c->state.n_nodes, (unsigned long long)x->silent);
    ha_text(n->why, sizeof n->why, "%s%s", text,
        n->member ? "; it is in the group: its daemon hangs, or the UDP port of the beats must be "
                    "opened between the nodes"
                  : "");
}

void node_expired(struct ha_core *c, const Migrd__HaEntry *e)
{
    const Migrd__HaExpired *x = e->expired;
    struct ha_state *s = &c->state;
    struct ha_node *n = state_node(s, x->node);

    if (!n || n->incarnation != x->incarnation || n->life != x->life ||
        s->armed == ARMED(DISARMED) || !ha_node_in(s->nodes, s->n_nodes, e->node) ||
        ha_node_in(n->votes, n->n_votes, e->node) || n->n_votes == HA_NODES_MAX)
        return;
    if (n->state != NS(ONLINE) && n->state != NS(AWAY))
        return;
    if (n->id == e->node || n->n_votes == 0 || x->quiet < n->quiet)
        n->quiet = x->quiet;
    if (n->id != e->node)
        n->votes[n->n_votes++] = e->node;
    if (n->id != e->node && !state_majority(s, n->n_votes))
        return;
    expired_why(c, n, x, n->id == e->node);
    core_note(c, true, "node %u has expired: %s", n->id, n->why);
    node_event(c, n, NE_EXPIRE, PROOF(LEASE));
}

void node_fenced(struct ha_core *c, uint32_t id, uint64_t incarnation, uint64_t life,
    ha_proof proof, const char *text)
{
    struct ha_node *n = state_node(&c->state, id);

    if (!n || n->incarnation != incarnation || n->life != life) {
        c->ok = false;
        ha_text(c->said, sizeof c->said, "node %u has begun another life meanwhile", id);
        return;
    }
    if (next_state[n->state][NE_FENCE] == STAY) {
        c->ok = false;
        ha_text(c->said, sizeof c->said, "node %u is %s", id, node_state_name(n->state));
        return;
    }
    ha_text(n->why, sizeof n->why, "%s: %s", proof_name(proof), text);
    core_note(c, true, "node %u counts as dead, %s", id, n->why);
    node_event(c, n, NE_FENCE, proof);
}
