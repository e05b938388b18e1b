/* SPDX-License-Identifier: ISC */
/* Beats, their acknowledgements, the lease that they make, the votes that end another's, and the
 * doubt about oneself. Why it is safe stands in core.c. */
#include "cluster/core_internal.h"
#include "cluster/mutant.h"

#define REJOIN_PAUSE 4 /* proofs between two lives of one daemon for the sake of a lonely vote */
#define PAUSE_FIRST 2  /* proofs between two lives that did not last, then doubled */
#define PAUSE_MAX 32   /* proofs */
#define LASTED 60      /* proofs: a life was a good one */
#define MEMBER_WAIT 2  /* of a token: a member's vote comes so much later than any other's */
#define NEVER_HELD 10  /* proofs: a lease that has never held may take longer to begin */

void lease_init(struct ha_core *c)
{
    struct ha_lease *l = &c->lease;

    l->life = 1;
    l->next_beat = c->now;
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        l->peer[i].node = c->config.nodes[i];
        l->peer[i].seen = c->now;
    }
}

bool lease_valid(const struct ha_core *c)
{
    return c->lease.until > c->now;
}

void lease_times(const struct ha_times *t, uint32_t *list)
{
    const uint32_t times[HA_LOG_TIMES] = { t->token, t->beat, t->lease, t->slack, t->proof,
        t->tilt };

    memcpy(list, times, sizeof times);
}

/* The log's times, as soon as it has some. What was granted by others does not count. */
static void times_in_force(struct ha_core *c)
{
    const uint32_t *x = c->state.times;
    struct ha_times *t = &c->config.times;
    uint32_t own[HA_LOG_TIMES];
    struct err e;

    lease_times(t, own);
    if (x[0] == 0 || memcmp(own, x, sizeof own) == 0)
        return;
    t->token = x[0];
    t->beat = x[1];
    t->lease = x[2];
    t->slack = x[3];
    t->proof = x[4];
    t->tilt = x[5];
    c->lease.until = 0;
    if (ha_times_check(t, &e) < 0)
        log_out(c, e.text);
}

/* Whose beats this node acknowledges: the life that its log has admitted, unless a vote of its own,
 * given or on its way, says that it has ended. */
static bool admitted(const struct ha_node *n)
{
    return n && n->incarnation && (n->state == NS(ONLINE) || n->state == NS(AWAY));
}

static bool voted(const struct ha_core *c, const struct ha_peer *p, const struct ha_node *n)
{
    return (p->voted_incarnation == n->incarnation && p->voted_life == n->life) ||
           ha_node_in(n->votes, n->n_votes, c->config.node);
}

/* It has told the log that its own lease is over: under this life it never extends it again. */
static bool gave_up(const struct ha_core *c, const struct ha_node *own)
{
    const struct ha_peer *p = &c->lease.peer[c->me];

    return p->voted_incarnation == own->incarnation && p->voted_life == own->life;
}

void lease_begins(struct ha_core *c, uint64_t life)
{
    c->joined = true;
    c->lease.life = life;
    c->lease.began = c->now;
    c->lease.rejoin = false;
}

/* --- beats of others --- */

/* When we sent the newest beat that a majority, ourselves included, has seen. */
static bool majority_acked(const struct ha_core *c, uint64_t *sent)
{
    uint64_t sorted[HA_NODES_MAX];
    unsigned n = 0, need = core_majority(c) - 1;

    if (need == 0 || mutant(MUTANT_FUSE)) {
        *sent = c->now;
        return true;
    }
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        unsigned j = n;

        if (i == c->me || c->lease.peer[i].acked_seq == 0)
            continue;
        for (; j > 0 && sorted[j - 1] < c->lease.peer[i].acked_at; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = c->lease.peer[i].acked_at;
        n++;
    }
    if (n < need)
        return false;
    *sent = sorted[need - 1];
    return true;
}

static void extend(struct ha_core *c)
{
    const struct ha_node *own = state_node(&c->state, c->config.node);
    struct ha_lease *l = &c->lease;
    uint64_t sent;

    if (!majority_acked(c, &sent) || sent + c->config.times.lease <= l->until ||
        (own && gave_up(c, own)))
        return;
    l->until = sent + c->config.times.lease;
    if (lease_valid(c))
        host_fuses(c);
}

bool lease_news(const struct ha_core *c)
{
    const struct ha_node *own = state_node(&c->state, c->config.node);
    uint64_t sent;

    return c->joined && admitted(own) && own->life == c->lease.life && !own->holds &&
           majority_acked(c, &sent) && sent >= c->lease.began;
}

static void acknowledged(struct ha_core *c, struct ha_peer *p, uint64_t seq)
{
    struct ha_lease *l = &c->lease;

    if (seq == 0) {
        l->rejoin = true;
        return;
    }
    if (seq <= p->acked_seq || seq > l->seq || l->seq - seq >= HA_BEATS_KEPT)
        return;
    p->acked_seq = seq;
    p->acked_at = l->sent[seq % HA_BEATS_KEPT];
    extend(c);
}

static void acks_of(struct ha_core *c, struct ha_peer *p, const Migrd__HaBeat *m)
{
    for (size_t i = 0; i < m->n_ack_node; i++) {
        if (m->ack_node[i] != c->config.node || m->ack_incarnation[i] != c->config.incarnation)
            continue;
        p->echo = c->now;
        if (m->ack_life[i] == c->lease.life)
            acknowledged(c, p, m->ack_seq[i]);
    }
}

static void seen(struct ha_core *c, struct ha_peer *p, const Migrd__HaBeat *m)
{
    const struct ha_node *n = state_node(&c->state, p->node);

    /* One of us may not know its new life yet: the old one holds as well, if it has not expired. */
    if (!n || n->incarnation != m->incarnation || m->life < n->floor)
        return;
    if (n->state == NS(FENCED)) {
        if (!p->lied)
            core_note(c, true, "node %u lives, though it counts as %s: what it ran may run twice",
                p->node, n->why);
        p->lied = true;
    }
    if (p->incarnation != m->incarnation)
        p->seq = 0;
    else if (m->seq <= p->seq)
        return; /* late or repeated */
    p->heard = c->now;
    if (!admitted(n) || !c->joined || (voted(c, p, n) && !mutant(MUTANT_ACK)))
        return;
    p->incarnation = m->incarnation;
    p->life = m->life;
    p->seq = m->seq;
    p->seen = c->now;
}

void lease_beat(struct ha_core *c, uint32_t from, const uint8_t *bytes, size_t len)
{
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaBeat *m = len <= HA_BEAT_MAX ? migrd__ha_beat__unpack(&pa, len, bytes) : NULL;
    int slot = core_slot(c, from);

    if (!m || m->from != from || slot < 0 || (unsigned)slot == c->me || m->seq == 0)
        return;
    if (m->n_ack_node != m->n_ack_incarnation || m->n_ack_node != m->n_ack_life ||
        m->n_ack_node != m->n_ack_seq || m->n_ack_node > HA_NODES_MAX)
        return;
    seen(c, &c->lease.peer[slot], m);
    acks_of(c, &c->lease.peer[slot], m);
}

/* --- our beats --- */

/* Who is heard though its life counts as ended is told so, with number 0. */
static void ack_list(struct ha_core *c, Migrd__HaBeat *m)
{
    unsigned n = c->config.n_nodes;

    m->ack_node = arena_alloc(&c->arena, n * sizeof *m->ack_node);
    m->ack_incarnation = arena_alloc(&c->arena, n * sizeof *m->ack_incarnation);
    m->ack_life = arena_alloc(&c->arena, n * sizeof *m->ack_life);
    m->ack_seq = arena_alloc(&c->arena, n * sizeof *m->ack_seq);
    for (unsigned i = 0; i < n; i++) {
        const struct ha_peer *p = &c->lease.peer[i];
        const struct ha_node *node = state_node(&c->state, p->node);
        bool ended;

        if (i == c->me || !node || !p->heard)
            continue;
        ended = !admitted(node) || (voted(c, p, node) && !mutant(MUTANT_ACK));
        if (ended ? c->now - p->heard > 4 * (uint64_t)c->config.times.beat
                  : p->incarnation != node->incarnation || p->life < node->floor)
            continue;
        m->ack_node[m->n_ack_node++] = p->node;
        m->ack_incarnation[m->n_ack_incarnation++] = node->incarnation;
        m->ack_life[m->n_ack_life++] = ended ? node->life : p->life;
        m->ack_seq[m->n_ack_seq++] = ended ? 0 : p->seq;
    }
}

static void beat(struct ha_core *c)
{
    struct ha_lease *l = &c->lease;
    Migrd__HaBeat m = MIGRD__HA_BEAT__INIT;
    uint8_t *bytes;
    size_t len;

    m.version = c->config.version;
    m.from = c->config.node;
    m.incarnation = c->config.incarnation;
    m.life = l->life;
    m.seq = ++l->seq;
    l->sent[l->seq % HA_BEATS_KEPT] = c->now;
    ack_list(c, &m);
    len = migrd__ha_beat__get_packed_size(&m);
    bytes = arena_alloc(&c->arena, len);
    migrd__ha_beat__pack(&m, bytes);
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        struct ha_action *a;

        if (i == c->me)
            continue;
        a = core_act(c, HA_ACT_BEAT);
        a->node = c->config.nodes[i];
        a->bytes = bytes;
        a->len = len;
    }
    l->next_beat = c->now + c->config.times.beat;
}

/* --- doubt --- */

/* Comes first in a step: whoever stood still has not seen what waits in its sockets. */
void lease_tilt(struct ha_core *c)
{
    struct ha_lease *l = &c->lease;

    if (!c->stepped || c->now <= c->expected + c->config.times.tilt)
        return;
    core_note(c, true,
        "this node stood still for %llu ms, longer than %u: it believes nothing of before",
        (unsigned long long)(c->now - c->expected), c->config.times.tilt);
    l->tilt_until = c->now + c->config.times.proof;
    for (unsigned i = 0; i < c->config.n_nodes; i++)
        l->peer[i].seen = c->now;
}

/* That vote is no entry and never will be: what came in since was not too late. */
static void vote_forgotten(struct ha_core *c, uint32_t node)
{
    struct ha_peer *p = &c->lease.peer[core_slot(c, node)];

    p->voted_incarnation = p->voted_life = 0;
    if (p->seen < p->heard)
        p->seen = p->heard;
}

/* Who has just compared its log with ours lives, whatever kept its beats away. Where all were cut
 * off from each other, guests go on where they are instead of being started elsewhere. */
void lease_term(struct ha_core *c)
{
    request_forget_votes(c, vote_forgotten);
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        struct ha_peer *p = &c->lease.peer[i];
        const struct ha_node *n = state_node(&c->state, p->node);

        if (n && n->member)
            p->seen = c->now;
    }
}

/* The log admitted a life: its silence counts from here. */
void lease_admitted(struct ha_core *c, uint32_t node)
{
    int slot = core_slot(c, node);

    if (slot >= 0) {
        if (c->lease.peer[slot].seen < c->now)
            c->lease.peer[slot].seen = c->now;
        c->lease.peer[slot].lied = false;
    }
}

/* --- votes --- */

static bool may_vote(const struct ha_core *c)
{
    return core_active(c) && c->joined && c->now >= c->lease.tilt_until &&
           c->state.armed != ARMED(DISARMED);
}

/* A node whose lease is over for long, though it takes part in the log, says so itself: its fuses
 * have burnt, so what it has may go on elsewhere. */
static uint64_t own_end(const struct ha_core *c, const struct ha_peer *p, const struct ha_node *n)
{
    const struct ha_times *t = &c->config.times;
    uint64_t over = c->lease.until + t->fuse_check + t->slack;

    return (over > p->seen ? over : p->seen) + (n->holds ? 1 : NEVER_HELD) * (uint64_t)t->proof;
}

static bool votes_on(const struct ha_core *c, unsigned slot, uint64_t *when)
{
    const struct ha_peer *p = &c->lease.peer[slot];
    const struct ha_node *n = state_node(&c->state, p->node);

    if (!admitted(n) || voted(c, p, n))
        return false;
    if (slot == c->me) {
        *when = own_end(c, p, n);
        return true;
    }
    *when = p->seen + (mutant(MUTANT_VOTE) ? 3 * c->config.times.beat : c->config.times.proof);
    if (n->member) /* where the channel stands still, the end of the view comes first */
        *when += c->config.times.token / MEMBER_WAIT;
    return true;
}

/* For how long nothing there has run for sure: what the silence has beyond what a proof needs. Who
 * speaks of itself knows when its own fuses burnt; one of a daemon before may have been lit until
 * this life was admitted. */
static uint64_t quiet(const struct ha_core *c, const struct ha_peer *p)
{
    const struct ha_times *t = &c->config.times;
    uint64_t lit = p->seen + t->lease, since;

    if (p->node == c->config.node && c->lease.until > lit)
        lit = c->lease.until;
    since = lit + t->fuse_check + t->slack;
    since += (c->now - p->seen) / 100 + 1;
    return c->now > since ? c->now - since : 0;
}

static void vote(struct ha_core *c, struct ha_peer *p)
{
    const struct ha_node *n = state_node(&c->state, p->node);
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaExpired x = MIGRD__HA_EXPIRED__INIT;

    x.node = p->node;
    x.incarnation = p->voted_incarnation = n->incarnation;
    x.life = p->voted_life = n->life;
    x.silent = c->now - (p->node == c->config.node ? c->lease.until : p->seen);
    x.quiet = quiet(c, p);
    e.expired = &x;
    request_send(c, &e, NULL, NULL);
}

static void vote_all(struct ha_core *c)
{
    uint64_t when;

    if (!may_vote(c))
        return;
    for (unsigned i = 0; i < c->config.n_nodes && request_room(c); i++)
        if (votes_on(c, i, &when) && c->now >= when)
            vote(c, &c->lease.peer[i]);
}

/* --- admission --- */

/* A majority hears us, and we hear that it does. */
static bool echoed(const struct ha_core *c)
{
    unsigned n = 1;

    for (unsigned i = 0; i < c->config.n_nodes; i++)
        n += i != c->me && c->lease.peer[i].echo &&
             c->now - c->lease.peer[i].echo < c->config.times.lease;
    return n >= core_majority(c);
}

static bool wants_join(const struct ha_core *c, const struct ha_node *n)
{
    if (n->incarnation != c->config.incarnation)
        return c->now >= c->lease.again_at;
    if (!admitted(n) || gave_up(c, n))
        return c->now >= c->lease.again_at && echoed(c);
    /* by the times that hold, which the log may have changed since */
    return c->lease.rejoin &&
           c->now >= c->lease.asked_at + REJOIN_PAUSE * (uint64_t)c->config.times.proof;
}

/* Lives that do not last, or are not admitted, are asked for less and less often. */
static void pause_after(struct ha_core *c)
{
    struct ha_lease *l = &c->lease;
    uint64_t proof = c->config.times.proof;

    if (!l->asked || (l->began && c->now - l->began >= LASTED * proof))
        l->pause = 0;
    else
        l->pause = l->pause ? 2 * l->pause : PAUSE_FIRST * proof;
    if (l->pause > PAUSE_MAX * proof)
        l->pause = PAUSE_MAX * proof;
    l->again_at = c->now + l->pause;
    l->asked = true;
}

static void join(struct ha_core *c)
{
    const struct ha_node *n = state_node(&c->state, c->config.node);
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaJoin j = MIGRD__HA_JOIN__INIT;
    uint32_t times[HA_LOG_TIMES];

    if (!core_active(c) || !c->host_known || c->joining || !n || !wants_join(c, n) ||
        !request_room(c))
        return;
    j.life = n->incarnation == c->config.incarnation ? n->life + 1 : 1;
    j.name = c->config.name;
    j.boot_id = c->config.boot_id;
    j.version = c->config.version;
    j.memory_kib = c->memory_kib;
    j.cpus = c->cpus;
    j.others_kib = c->others_kib;
    j.starts_at_once = c->config.starts_at_once;
    j.moves_at_once = c->config.moves_at_once;
    j.ready = c->config.times.ready;
    lease_times(&c->own_times, times);
    j.times = times;
    j.n_times = HA_LOG_TIMES;
    e.join = &j;
    pause_after(c);
    c->lease.rejoin = false;
    c->lease.asked_at = c->now;
    request_send(c, &e, NULL, &c->joining);
}

/* By the state: a life that came in with a snapshot was admitted elsewhere. */
static void admissions(struct ha_core *c)
{
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        struct ha_peer *p = &c->lease.peer[i];
        const struct ha_node *n = state_node(&c->state, p->node);

        if (!n || (p->known_incarnation == n->incarnation && p->known_life == n->life))
            continue;
        p->known_incarnation = n->incarnation;
        p->known_life = n->life;
        lease_admitted(c, p->node);
        if (i == c->me && n->incarnation == c->config.incarnation) {
            lease_begins(c, n->life);
            c->all_dirty = true;
        }
        for (unsigned k = 0; i == c->me && k < c->config.n_nodes; k++)
            c->lease.peer[k].seen = c->now; /* what we heard before was not acknowledged */
    }
}

/* --- time --- */

static void warn(struct ha_core *c)
{
    struct ha_lease *l = &c->lease;
    unsigned fifth = c->config.times.lease / 5;

    if (l->valid && !lease_valid(c))
        core_note(c, true,
            "no majority has acknowledged a beat of this node for %u ms: its protected domains are "
            "paused until one does",
            c->config.times.lease);
    else if (lease_valid(c) && l->until - c->now < fifth && c->now >= l->warned) {
        core_note(c, true, "the lease of this node ends in %llu of %u ms",
            (unsigned long long)(l->until - c->now), c->config.times.lease);
        l->warned = c->now + 10 * (uint64_t)c->config.times.lease;
    }
    if (!l->valid && lease_valid(c))
        c->all_dirty = true;
    l->valid = lease_valid(c);
}

void lease_time(struct ha_core *c)
{
    times_in_force(c);
    admissions(c);
    if (c->now >= c->lease.next_beat)
        beat(c);
    if (core_majority(c) == 1 || mutant(MUTANT_FUSE))
        extend(c);
    warn(c);
    vote_all(c);
    join(c);
}

uint64_t lease_wake(const struct ha_core *c)
{
    uint64_t wake = c->lease.next_beat, when;

    if (!may_vote(c))
        return wake;
    for (unsigned i = 0; i < c->config.n_nodes; i++)
        if (votes_on(c, i, &when) && when < wake)
            wake = when;
    return wake;
}
