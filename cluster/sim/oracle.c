/* SPDX-License-Identifier: ISC */
/*
 * oracle: what must never be, looked at when something changes that it depends on:
 *
 *   two-copies   two guests of one domain execute, each with write access
 *   false-proof  the log gives a domain a new epoch while a guest of an older one executes
 *   quiet        a guest has executed since the time for which the core says that none has
 *   epoch        a guest executes under an epoch that the log does not have
 *   stale-memory a guest goes on with a memory that is older than its disk
 *   fuse         a fuse lasts longer than a lease after a beat that a majority has got
 *   same-log     two logs differ at an index; or the same index has made two states
 *   capacity     more memory is planned on a node than it has
 *   hard-rule    a domain is started beside one that it must not be with
 *   no-reason    a domain waits and the log does not say what for
 *   disturbed    a healthy node's guest was paused though a healthy majority got its beats
 *   healthy-fenced  a node was powered off that nothing was wrong with
 *   forgotten    what an operator was told to be done is not so
 *   lost         a domain is to be stopped that nobody stopped
 *   watchdog     a healthy host is reset by its watchdog
 *   operator's pause  a guest that an operator paused is resumed or destroyed
 *   restless     a node begins one life after another
 *   busy         a core wants to be called again and again
 *
 * A domain about which an operator or a fence device told a lie that the log believed may run
 * twice.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cluster/sim/host.h"
#include "cluster/sim/oracle.h"

#define LOG_MAX (1u << 20)
#define STEPS_A_SECOND 20000
#define HEALTHY_LEASES 3     /* so long nothing may have been wrong */
#define PAUSE_KNOWN_MS 15000 /* so long a core may not have heard of it */
#define LIVES_FREE 6         /* of a daemon, and one more in so many proofs: */
#define LIFE_PROOFS 4
#define CALM_LOSS 50 /* of beats, in a thousand, that a healthy net may lose */

struct seen {
    uint64_t life, sent_ms; /* of the newest beat, by the sender's clock */
};

/* What an index of the log is, and the state that it makes in a term. */
struct known {
    uint64_t chain, term, digest;
    uint32_t by;
};

struct oracle {
    struct seen seen[SIM_NODES_MAX][SIM_NODES_MAX]; /* by, of */
    uint64_t link_sick[SIM_NODES_MAX][SIM_NODES_MAX];
    struct known *known;
    size_t n_known;
    Migrd__HaState *newest;
    uint64_t term[SIM_NODES_MAX], index[SIM_NODES_MAX]; /* that each was last looked at */
    uint64_t life[SIM_NODES_MAX];
    bool armed[SIM_NODES_MAX];
    unsigned lease[SIM_NODES_MAX]; /* that it knows */
    uint64_t second[SIM_NODES_MAX], steps[SIM_NODES_MAX];
};

bool oracle_init(struct world *w)
{
    w->oracle = calloc(1, sizeof *w->oracle);
    return w->oracle != NULL;
}

void oracle_free(struct world *w)
{
    if (w->oracle == NULL)
        return;
    if (w->oracle->newest != NULL)
        migrd__ha_state__free_unpacked(w->oracle->newest, NULL);
    free(w->oracle->known);
    free(w->oracle);
    w->oracle = NULL;
}

const Migrd__HaState *oracle_newest(const struct world *w)
{
    return w->oracle->newest;
}

static const Migrd__HaDomain *record_of(const struct world *w, uint32_t domain)
{
    const Migrd__HaState *s = w->oracle->newest;

    for (size_t i = 0; s != NULL && i < s->n_domain; i++)
        if (strcmp(s->domain[i]->uuid, w->domain[domain].uuid) == 0)
            return s->domain[i];
    return NULL;
}

/* --- guests --- */

void oracle_runs(struct world *w, const struct copy *c)
{
    const Migrd__HaDomain *r = record_of(w, c->domain);

    if (w->domain[c->domain].tainted || !copy_runs(w, c))
        return;
    for (unsigned i = 0; i < COPIES_MAX; i++) {
        const struct copy *o = &w->domain[c->domain].copy[i];

        if (o != c && copy_runs(w, o))
            broken(w, "two-copies",
                "domain %u runs on node %u under epoch %" PRIu64 " and on node %u under %" PRIu64,
                c->domain + 1, o->node, o->epoch, c->node, c->epoch);
    }
    if (r != NULL && r->epoch != c->epoch &&
        !(c->epoch == w->domain[c->domain].by_hand && c->epoch > r->epoch))
        broken(w, "epoch",
            "domain %u runs on node %u under epoch %" PRIu64 ", the log has %" PRIu64,
            c->domain + 1, c->node, c->epoch, r->epoch);
}

void oracle_memory(struct world *w, const struct copy *c)
{
    const struct domain *d = &w->domain[c->domain];

    if (c->knows != d->writes && !d->tainted)
        broken(w, "stale-memory",
            "domain %u goes on on node %u under epoch %" PRIu64
            ", but has run elsewhere since its memory was made",
            c->domain + 1, c->node, c->epoch);
}

/* Clocks may go wrong by 1 %. */
static void quiet_for(struct world *w, uint32_t domain, uint64_t ms)
{
    const struct domain *d = &w->domain[domain];

    if (ms > 0 && !d->tainted && d->ran_at + ms * MS * 99 / 100 > w->now)
        broken(w, "quiet",
            "domain %u executed %" PRIu64 " us ago; the core says that none has for %" PRIu64 " ms",
            domain + 1, w->now - d->ran_at, ms);
    for (unsigned i = 0; ms > 0 && !d->tainted && i < COPIES_MAX; i++)
        if (copy_runs(w, &d->copy[i]))
            broken(w, "quiet", "domain %u runs on node %u", domain + 1, d->copy[i].node);
}

void oracle_start(struct world *w, struct node *n, uint32_t domain, const struct ha_action *a)
{
    const Migrd__HaDomain *r = record_of(w, domain);

    if (r == NULL || a->epoch > r->epoch || (a->epoch == r->epoch && r->owner != n->id))
        broken(w, "epoch",
            "node %u starts domain %u under epoch %" PRIu64 "; the log has %" PRIu64 " on node %u",
            n->id, domain + 1, a->epoch, r != NULL ? r->epoch : 0, r != NULL ? r->owner : 0);
    quiet_for(w, domain, a->quiet_ms);
}

void oracle_lie(struct world *w, struct node *n)
{
    for (uint32_t d = 0; d < w->plan->domains; d++)
        if (copy_at(w, d, n->id) != NULL)
            w->domain[d].tainted = true;
}

/* --- leases --- */

void oracle_beat(struct world *w, struct node *n, uint32_t from, uint64_t life, uint64_t sent_ms)
{
    struct seen *s = &w->oracle->seen[n->id - 1][from - 1];

    if (life > s->life || (life == s->life && sent_ms > s->sent_ms))
        *s = (struct seen){ life, sent_ms };
}

/* Until when guests of a node may run, by what its beats have reached; 0 not at all. */
static uint64_t entitled_until(struct world *w, const struct node *n)
{
    uint64_t sent[SIM_NODES_MAX];
    unsigned k = 0, need = w->nodes / 2 + 1;

    for (uint32_t id = 1; id <= w->nodes; id++) {
        const struct seen *s = &w->oracle->seen[id - 1][n->id - 1];

        if (id == n->id)
            sent[k++] = clock_ms(w, n);
        else if (s->life == n->life)
            sent[k++] = s->sent_ms;
    }
    if (k < need)
        return 0;
    for (unsigned i = 0; i < need; i++) /* the newest `need` ones to the front */
        for (unsigned j = i + 1; j < k; j++)
            if (sent[j] > sent[i]) {
                uint64_t t = sent[i];

                sent[i] = sent[j];
                sent[j] = t;
            }
    return sent[need - 1] + w->oracle->lease[n->id - 1];
}

void oracle_fuse(struct world *w, struct node *n, const struct ha_action *a)
{
    uint64_t until = entitled_until(w, n);
    uint32_t domain = domain_of(w, a->uuid);
    const struct copy *c = domain != NOBODY ? copy_at(w, domain, n->id) : NULL;

    if (a->deadline == 0 || a->deadline <= until)
        return;
    if (c != NULL && c->epoch == a->epoch && c->fuse_ms == a->deadline)
        return; /* changes nothing */
    if (a->deadline == UINT64_MAX &&
        (!w->oracle->armed[n->id - 1] || domain == NOBODY || !w->domain[domain].in_log))
        return;
    broken(w, "fuse",
        "node %u lets domain %u run until %" PRIu64 ", its clock is %" PRIu64
        ", its lease ends %" PRIu64,
        n->id, domain + 1, a->deadline, clock_ms(w, n), until);
}

static bool well(const struct world *w, uint32_t id)
{
    const struct node *n = &w->node[id - 1];
    uint64_t since = n->sick_at + (uint64_t)HEALTHY_LEASES * w->times.lease * MS;

    return n->up && n->life != 0 && n->pauses == 0 && n->stops == 0 && n->coro.state == CORO_UP &&
           n->coro.stops == 0 && w->now >= since;
}

static bool calm(const struct world *w)
{
    const unsigned *noise = w->plan->noise;

    return noise[SIM_BEAT_LOSS] <= CALM_LOSS && noise[SIM_BEAT_LATE] <= CALM_LOSS;
}

/* A core that works pets it in time, and not for longer than its time. */
void oracle_watchdog(struct world *w, struct node *n, const struct ha_action *a)
{
    if (w->plan->watchdog == 0 || a->deadline > clock_ms(w, n) + w->plan->watchdog)
        broken(w, "watchdog", "node %u pets until %" PRIu64 ", its clock is %" PRIu64, n->id,
            a->deadline, clock_ms(w, n));
    n->dog_ms = a->deadline;
}

static void check_watchdog(struct world *w, const struct node *n)
{
    if (n->dog_ms != 0 && clock_ms(w, n) > n->dog_ms && well(w, n->id))
        broken(w, "watchdog", "the watchdog of node %u bites, nothing is wrong with it", n->id);
}

/* What an operator has paused stays so, where it belongs. */
void oracle_paused(struct world *w, const struct copy *c)
{
    const Migrd__HaDomain *r = record_of(w, c->domain);

    if (c->state == COPY_HELD && c->paused && w->now > c->since + PAUSE_KNOWN_MS * MS &&
        r != NULL && r->owner == c->node && r->epoch == c->epoch && r->want_run &&
        !w->domain[c->domain].tainted)
        broken(w, "operator's pause",
            "domain %u was paused on node %u by an operator, the core "
            "does not leave it so",
            c->domain + 1, c->node);
}

void oracle_link(struct world *w, uint32_t from, uint32_t to)
{
    w->oracle->link_sick[from - 1][to - 1] = w->now;
    w->oracle->link_sick[to - 1][from - 1] = w->now;
}

/* Who is not in its group can't take part in the log, and acknowledges nothing. */
void oracle_view(struct world *w, const struct node *n, uint32_t was)
{
    uint32_t differ = was ^ n->coro.shown;

    for (uint32_t id = 1; id <= w->nodes; id++)
        if (id != n->id && (differ >> (id - 1) & 1) != 0)
            oracle_link(w, n->id, id);
}

static bool together(const struct world *w, uint32_t a, uint32_t b)
{
    return (w->node[a - 1].coro.shown >> (b - 1) & 1) != 0 &&
           (w->node[b - 1].coro.shown >> (a - 1) & 1) != 0;
}

static bool link_well(const struct world *w, uint32_t a, uint32_t b)
{
    uint64_t since =
        w->oracle->link_sick[a - 1][b - 1] + (uint64_t)HEALTHY_LEASES * w->times.lease * MS;

    return linked(w, PLANE_BEAT, a, b) && linked(w, PLANE_BEAT, b, a) &&
           linked(w, PLANE_RING, a, b) && linked(w, PLANE_RING, b, a) && together(w, a, b) &&
           w->now >= since;
}

void oracle_blown(struct world *w, const struct copy *c)
{
    const Migrd__HaDomain *r = record_of(w, c->domain);
    unsigned n = 0;

    for (uint32_t id = 1; id <= w->nodes; id++)
        n += id == c->node || (well(w, id) && link_well(w, c->node, id));
    if (calm(w) && well(w, c->node) && 2 * n > w->nodes && r != NULL && r->owner == c->node &&
        r->epoch == c->epoch && r->want_run &&
        r->state != MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPING && !w->domain[c->domain].tainted)
        broken(w, "disturbed", "domain %u was paused on node %u, which is as healthy as %u others",
            c->domain + 1, c->node, n - 1);
}

void oracle_fenced(struct world *w, struct node *target)
{
    unsigned n = 0;

    for (uint32_t id = 1; id <= w->nodes; id++)
        n += id == target->id ||
             (well(w, id) && link_well(w, target->id, id) &&
                 linked(w, PLANE_RING, id, target->id) && linked(w, PLANE_RING, target->id, id));
    if (calm(w) && well(w, target->id) && target->coro.state == CORO_UP && n == w->nodes)
        broken(
            w, "healthy-fenced", "node %u was powered off; nothing was wrong with it", target->id);
}

/* --- the log --- */

static struct known *known_at(struct world *w, uint64_t index)
{
    struct oracle *o = w->oracle;

    if (index >= LOG_MAX) {
        broken(w, "busy", "the log has %" PRIu64 " entries", index);
        return NULL;
    }
    if (index >= o->n_known) {
        size_t n = index + 256;
        struct known *more = realloc(o->known, n * sizeof *more);

        if (more == NULL) {
            w->no_memory = true;
            return NULL;
        }
        memset(more + o->n_known, 0, (n - o->n_known) * sizeof *more);
        o->known = more;
        o->n_known = n;
    }
    return &o->known[index];
}

static uint64_t digest_of(struct world *w, const Migrd__HaState *s)
{
    static uint8_t buffer[1u << 18];
    size_t len = migrd__ha_state__get_packed_size(s);

    if (len > sizeof buffer) {
        broken(w, "busy", "a state of %zu bytes", len);
        return 0;
    }
    migrd__ha_state__pack(s, buffer);
    return XXH3_64bits(buffer, len);
}

static void check_same_log(struct world *w, const struct node *n, const Migrd__HaState *s)
{
    struct known *k = known_at(w, s->index);
    uint64_t digest;

    if (k == NULL)
        return;
    digest = digest_of(w, s);
    if (k->by != 0 && k->chain != s->chain)
        broken(w, "same-log",
            "at index %" PRIu64 " node %u and node %u have applied different logs", s->index, n->id,
            k->by);
    else if (k->by != 0 && k->term == s->term && k->digest != digest)
        broken(w, "same-log",
            "index %" PRIu64 " of term %" PRIu64
            " has made different states on node %u and node %u",
            s->index, s->term, n->id, k->by);
    if (k->by == 0 || s->term >= k->term)
        *k = (struct known){ s->chain, s->term, digest, n->id };
}

static bool occupies(const Migrd__HaDomain *d)
{
    switch (d->state) {
    case MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING:
    case MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING:
    case MIGRD__HA_DOMAIN_STATE__DOMAIN_MIGRATING:
    case MIGRD__HA_DOMAIN_STATE__DOMAIN_HANDED:
        return true;
    default:
        return false;
    }
}

/* A place was given out on that node. What an operator adds where it runs already is no plan. */
static void check_capacity(struct world *w, const Migrd__HaState *s, uint32_t node)
{
    uint64_t used = 0, has = (uint64_t)w->plan->memory_mib << 10;

    for (size_t i = 0; i < s->n_domain; i++)
        if (occupies(s->domain[i]) && s->domain[i]->owner == node)
            used += s->domain[i]->memory_kib;
    if (used > has)
        broken(w, "capacity", "node %u has %" PRIu64 " KiB, the plan puts %" PRIu64 " there", node,
            has, used);
}

static const Migrd__HaDomain *find(const Migrd__HaState *s, const char *uuid)
{
    for (size_t i = 0; s != NULL && i < s->n_domain; i++)
        if (strcmp(s->domain[i]->uuid, uuid) == 0)
            return s->domain[i];
    return NULL;
}

/* `d` was just given to its owner. */
static void check_rules(struct world *w, const Migrd__HaState *s, const Migrd__HaDomain *d)
{
    for (size_t i = 0; i < s->n_domain; i++) {
        const Migrd__HaDomain *o = s->domain[i];

        if (o != d && occupies(o) && o->owner == d->owner && d->policy != NULL &&
            o->policy != NULL && d->policy->apart_hard && o->policy->apart_hard &&
            d->policy->apart[0] != '\0' && strcmp(d->policy->apart, o->policy->apart) == 0)
            broken(
                w, "hard-rule", "%s is started on node %u beside %s", d->name, d->owner, o->name);
    }
}

static bool lied_about(const struct world *w, uint32_t node)
{
    for (uint32_t i = 0; i < w->asks; i++)
        if (w->ask[i].lie && w->ask[i].node == node &&
            (w->ask[i].state == ASK_OPEN || w->ask[i].state == ASK_LOST))
            return true;
    return false;
}

static bool is_fenced(const Migrd__HaState *s, uint32_t node)
{
    for (size_t i = 0; s != NULL && i < s->n_node; i++)
        if (s->node[i]->id == node)
            return s->node[i]->state == MIGRD__HA_NODE_STATE__NODE_FENCED;
    return false;
}

/* The log believes an operator who was wrong: all that the node has by then, or is about to start.
 */
static void check_lies(struct world *w, const Migrd__HaState *s)
{
    const Migrd__HaState *before = w->oracle->newest;

    for (size_t i = 0; i < s->n_node; i++) {
        uint32_t node = s->node[i]->id;

        if (!is_fenced(s, node) || is_fenced(before, node) || !lied_about(w, node))
            continue;
        oracle_lie(w, node_of(w, node));
        for (uint32_t d = 0; d < w->plan->domains; d++) {
            const Migrd__HaDomain *r = find(before, w->domain[d].uuid);

            if (r != NULL && r->owner == node)
                w->domain[d].tainted = true;
        }
    }
}

static void check_domain(struct world *w, const Migrd__HaState *s, const Migrd__HaDomain *d)
{
    const Migrd__HaDomain *before = find(w->oracle->newest, d->uuid);
    uint32_t domain = domain_of(w, d->uuid);

    if (domain == NOBODY)
        return;
    for (unsigned i = 0; i < COPIES_MAX; i++) {
        const struct copy *c = &w->domain[domain].copy[i];

        if (copy_runs(w, c) && c->epoch < d->epoch && !w->domain[domain].tainted)
            broken(w, "false-proof",
                "the log gives domain %u to node %u under epoch %" PRIu64
                " (proof %d) while it runs on node %u under %" PRIu64 ": %s",
                domain + 1, d->owner, d->epoch, (int)d->proof, c->node, c->epoch, d->why);
    }
    if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_STARTING &&
        (before == NULL || before->epoch != d->epoch)) {
        check_rules(w, s, d);
        check_capacity(w, s, d->owner);
    }
    if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING && d->why[0] == '\0')
        broken(w, "no-reason", "domain %u waits, and the log does not say what for", domain + 1);
    if (!d->want_run && !w->domain[domain].may_stop)
        broken(w, "lost", "domain %u is to be stopped; nobody wanted that: %s", domain + 1, d->why);
    if (before != NULL && before->epoch < d->epoch && d->proof != before->proof &&
        d->proof != MIGRD__HA_PROOF__PROOF_NONE)
        w->out->failovers++;
}

static void check_lives(struct world *w, const Migrd__HaState *s)
{
    uint64_t most = LIVES_FREE + w->now / MS / (LIFE_PROOFS * w->times.proof);

    for (size_t i = 0; i < s->n_node; i++)
        if (s->node[i]->life > most)
            broken(
                w, "restless", "node %u has begun life %" PRIu64, s->node[i]->id, s->node[i]->life);
}

/* What the log has counts, whatever a node's configuration says. The ring's token is corosync's. */
static void times_of(struct world *w, const Migrd__HaState *s)
{
    unsigned token = w->times.token;

    if (s->n_times == 0)
        return;
    ha_times_derive(&w->times, s->times[0], 0);
    w->times.token = token;
}

static void advance(struct world *w, Migrd__HaState *s)
{
    check_lives(w, s);
    times_of(w, s);
    for (uint32_t d = 0; d < w->plan->domains; d++)
        w->domain[d].in_log = find(s, w->domain[d].uuid) != NULL;
    check_lies(w, s);
    for (size_t i = 0; i < s->n_domain; i++)
        check_domain(w, s, s->domain[i]);
    w->out->entries = (unsigned)s->index;
    if (w->oracle->newest != NULL)
        migrd__ha_state__free_unpacked(w->oracle->newest, NULL);
    w->oracle->newest = s;
}

void oracle_state(struct world *w, struct node *n)
{
    struct oracle *o = w->oracle;
    unsigned i = n->id - 1;
    Migrd__HaState *s = ha_core_state(n->core);

    if (s == NULL) {
        w->no_memory = true;
        return;
    }
    if (s->local != NULL)
        migrd__ha_local__free_unpacked(s->local, NULL);
    s->local = NULL;
    o->armed[i] = s->armed != MIGRD__HA_ARMED__DISARMED;
    o->lease[i] = s->n_times > 0 ? s->times[2] : n->config.times.lease;
    if (o->life[i] == n->life && s->index < o->index[i])
        broken(w, "same-log", "node %u went back from index %" PRIu64 " to %" PRIu64, n->id,
            o->index[i], s->index);
    if (o->life[i] == n->life && o->term[i] == s->term && o->index[i] == s->index) {
        migrd__ha_state__free_unpacked(s, NULL);
        return;
    }
    o->life[i] = n->life;
    o->term[i] = s->term;
    o->index[i] = s->index;
    check_same_log(w, n, s);
    if (o->newest == NULL || s->index > o->newest->index ||
        (s->index == o->newest->index && s->term > o->newest->term))
        advance(w, s);
    else
        migrd__ha_state__free_unpacked(s, NULL);
}

/* All nodes are here, know the same, and nobody is about to change it. */
bool oracle_disarmed(const struct world *w)
{
    const struct oracle *o = w->oracle;

    if (o->newest == NULL || o->newest->armed != MIGRD__HA_ARMED__DISARMED || w->armed.open > 0)
        return false;
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (w->node[id - 1].life == 0 || w->node[id - 1].pauses > 0 || w->node[id - 1].stops > 0 ||
            o->life[id - 1] != w->node[id - 1].life || o->index[id - 1] != o->newest->index)
            return false;
    return true;
}

uint64_t oracle_epoch(const struct world *w, uint32_t domain)
{
    const Migrd__HaDomain *r = record_of(w, domain);
    uint64_t top = w->domain[domain].top_epoch;

    return r != NULL && r->epoch > top ? r->epoch : top;
}

void oracle_message(struct world *w, struct node *n, const struct ha_action *a)
{
    if (a->len > HA_MESSAGE_MAX)
        broken(w, "nonsense", "node %u sends a message of %zu bytes", n->id, a->len);
}

void oracle_stepped(struct world *w, struct node *n, const struct ha_actions *out)
{
    struct oracle *o = w->oracle;
    uint64_t second = w->now / (1000 * MS);
    unsigned i = n->id - 1;

    if (o->second[i] != second) {
        o->second[i] = second;
        o->steps[i] = 0;
    }
    if (++o->steps[i] > STEPS_A_SECOND)
        broken(w, "busy", "node %u makes more than %u steps a second", n->id, STEPS_A_SECOND);
    check_watchdog(w, n);
    if (out->wake == 0)
        broken(w, "nonsense", "node %u does not say when it wants to be called again", n->id);
}

/* --- for people --- */

static void dump_core(struct world *w, const struct node *n)
{
    Migrd__HaState *s = ha_core_state(n->core);
    const Migrd__HaLocal *l = s != NULL ? s->local : NULL;

    if (l == NULL)
        return;
    say(w,
        "node %u: clock %" PRIu64 ", phase %d, joined %d, term %" PRIu64 " index %" PRIu64
        ", lease until %" PRIu64 ", tilt until %" PRIu64 ", %u proposals wait; %s",
        n->id, clock_ms(w, n), (int)l->phase, l->joined, s->term, s->index, l->lease_until,
        l->tilt_until, l->waiting, l->why);
    for (size_t i = 0; i < l->n_peer; i++)
        say(w, "    node %u seen at %" PRIu64 ", has acknowledged what we sent at %" PRIu64 "%s",
            l->peer[i]->node, l->peer[i]->seen, l->peer[i]->acked,
            l->peer[i]->voted ? ", voted" : "");
    for (size_t i = 0; i < s->n_node; i++)
        say(w, "    log: node %u state %d member %d incarnation %" PRIx64 " life %" PRIu64 " %s",
            s->node[i]->id, (int)s->node[i]->state, s->node[i]->member, s->node[i]->incarnation,
            s->node[i]->life, s->node[i]->why);
    migrd__ha_state__free_unpacked(s, NULL);
}

void oracle_dump(struct world *w)
{
    const Migrd__HaState *s = w->oracle->newest;

    if (w->log == NULL)
        return;
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (w->node[id - 1].core != NULL)
            dump_core(w, &w->node[id - 1]);
    for (size_t i = 0; s != NULL && i < s->n_domain; i++)
        say(w,
            "log: domain %u node %u epoch %" PRIu64
            " state %d want_run %d fused %d to %u from %u, %zu old, %zu unsure: %s",
            domain_of(w, s->domain[i]->uuid) + 1, s->domain[i]->owner, s->domain[i]->epoch,
            (int)s->domain[i]->state, s->domain[i]->want_run, s->domain[i]->fused, s->domain[i]->to,
            s->domain[i]->from, s->domain[i]->n_old, s->domain[i]->n_unsure, s->domain[i]->why);
}

/* --- in the end --- */

static bool promise_kept(const struct promise *p, bool is)
{
    return p->is == PROMISE_UNKNOWN || p->open > 0 || (p->is == PROMISE_YES) == is;
}

static void check_promises(struct world *w, const Migrd__HaState *s)
{
    for (uint32_t d = 0; d < w->plan->domains; d++)
        if (!promise_kept(&w->domain[d].added, w->domain[d].in_log))
            broken(w, "forgotten", "domain %u is %s the log", d + 1,
                w->domain[d].in_log ? "still in" : "not in");
    for (size_t i = 0; i < s->n_node; i++)
        if (s->node[i]->id <= w->nodes &&
            !promise_kept(&w->drained[s->node[i]->id - 1], s->node[i]->drain))
            broken(w, "forgotten", "node %u is %s drained", s->node[i]->id,
                s->node[i]->drain ? "still" : "not");
    if (!promise_kept(&w->armed, s->armed == MIGRD__HA_ARMED__ARMED))
        broken(w, "forgotten", "the cluster is %sarmed",
            s->armed == MIGRD__HA_ARMED__ARMED ? "" : "not ");
}

static bool same_group(const Migrd__HaDomain *a, const Migrd__HaDomain *b)
{
    return a->policy != NULL && b->policy != NULL && a->policy->apart[0] != '\0' &&
           strcmp(a->policy->apart, b->policy->apart) == 0;
}

/* A group is hard if one of its members that has a place, or d, says so. */
static bool group_hard(const Migrd__HaState *s, const Migrd__HaDomain *d)
{
    bool hard = d->policy != NULL && d->policy->apart_hard;

    for (size_t i = 0; i < s->n_domain; i++)
        hard = hard || (occupies(s->domain[i]) && same_group(s->domain[i], d) &&
                           s->domain[i]->policy->apart_hard);
    return hard;
}

static bool has_place(
    struct world *w, const Migrd__HaState *s, const Migrd__HaDomain *d, uint32_t node)
{
    uint64_t used = d->memory_kib;

    for (size_t i = 0; i < s->n_node; i++)
        if (s->node[i]->id == node && s->node[i]->drain)
            return false;
    for (size_t i = 0; i < s->n_domain; i++) {
        const Migrd__HaDomain *o = s->domain[i];

        if (o == d || !occupies(o) || o->owner != node)
            continue;
        if (same_group(o, d) && group_hard(s, d))
            return false;
        used += o->memory_kib;
    }
    for (uint32_t o = 0; o < w->plan->domains; o++)
        if (!w->domain[o].in_log && copy_at(w, o, node) != NULL)
            used += (uint64_t)w->plan->domain[o].memory_mib << 10;
    return used <= (uint64_t)w->plan->memory_mib << 10;
}

/* A waiting domain has a reason that is true: no node has room for it, or a rule forbids them all.
 */
static bool may_wait(struct world *w, const Migrd__HaState *s, const Migrd__HaDomain *d)
{
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (has_place(w, s, d, id))
            return false;
    return true;
}

static bool domain_quiet(
    struct world *w, const Migrd__HaState *s, uint32_t domain, char *why, size_t size)
{
    const Migrd__HaDomain *d = find(s, w->domain[domain].uuid);
    unsigned running = 0, copies = 0;

    for (unsigned i = 0; i < COPIES_MAX; i++) {
        const struct copy *c = &w->domain[domain].copy[i];

        copies += c->state != COPY_GONE;
        running += copy_runs(w, c) && (d == NULL || (c->epoch == d->epoch && c->node == d->owner));
    }
    if (d == NULL)
        return true; /* not protected: nobody's business */
    snprintf(why, size,
        "domain %u: %u copies, %u run; log: node %u epoch %" PRIu64 " state %d want_run %d: %s",
        domain + 1, copies, running, d->owner, d->epoch, (int)d->state, d->want_run, d->why);
    if (!d->want_run)
        return copies == 0 && d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_STOPPED;
    if (d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_WAITING)
        return copies == 0 && may_wait(w, s, d);
    return d->state == MIGRD__HA_DOMAIN_STATE__DOMAIN_RUNNING && copies == 1 && running == 1;
}

bool oracle_quiet(struct world *w, char *why, size_t size)
{
    const Migrd__HaState *s = w->oracle->newest;

    if (s == NULL) {
        snprintf(why, size, "no core has a log");
        return false;
    }
    for (uint32_t id = 1; id <= w->nodes; id++)
        if (w->oracle->index[id - 1] != s->index ||
            w->oracle->life[id - 1] != w->node[id - 1].life) {
            snprintf(why, size, "node %u has applied %" PRIu64 " of %" PRIu64 " entries", id,
                w->oracle->index[id - 1], s->index);
            return false;
        }
    for (uint32_t d = 0; d < w->plan->domains; d++)
        if (!domain_quiet(w, s, d, why, size))
            return false;
    for (uint32_t i = 0; i < w->asks; i++)
        if (w->ask[i].state == ASK_OPEN) {
            snprintf(why, size, "command %u is not answered", i + 1);
            return false;
        }
    check_promises(w, s);
    return true;
}
