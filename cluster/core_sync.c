/* SPDX-License-Identifier: ISC */
/* How the members of a new view find the newest state among them and begin a term with it. The
 * story is in core.c. */
#include <stdlib.h>

#include "cluster/core_internal.h"

#define PART (HA_MESSAGE_MAX - (16u << 10))
#define WAIT_MAX 30000u

static unsigned first_wait(const struct ha_core *c)
{
    unsigned wait = c->config.times.token / 2;

    return wait < 200 ? 200 : wait;
}

static void arm(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    if (l->wait == 0)
        l->wait = first_wait(c);
    l->deadline = c->now + l->wait;
    l->closed = false;
}

/* Compare, under a promise that is newer than any given before. */
void sync_again(struct ha_core *c, uint64_t promise)
{
    struct ha_log *l = &c->log;
    Migrd__HaRecord r = MIGRD__HA_RECORD__INIT;

    l->phase = PHASE(SYNC);
    ha_text(l->why, sizeof l->why, "the members compare what they have");
    l->promise = promise;
    l->n_pending = 0;
    l->part = 0;
    r.promise = promise;
    l->promise_id = log_persist(c, &r, false);
    arm(c);
}

void sync_view(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    if (l->out)
        return;
    if (l->n_members < core_majority(c) || !ha_node_in(l->members, l->n_members, c->config.node)) {
        if (l->phase != PHASE(ALONE))
            core_note(c, true, "only %u of %u nodes are here: nothing is decided on this side",
                l->n_members, c->config.n_nodes);
        l->phase = PHASE(ALONE);
        ha_text(
            l->why, sizeof l->why, "only %u of %u nodes are here", l->n_members, c->config.n_nodes);
        l->n_pending = 0;
        return;
    }
    sync_again(c, l->promise + 1);
}

void sync_send(struct ha_core *c, bool close)
{
    struct ha_log *l = &c->log;
    Migrd__HaMessage m = MIGRD__HA_MESSAGE__INIT;
    Migrd__HaSync s = MIGRD__HA_SYNC__INIT;

    s.members = l->members;
    s.n_members = l->n_members;
    s.promise = l->promise;
    s.term = l->term;
    s.index = l->index;
    s.chain = l->chain;
    s.blank = l->blank;
    s.nodes = c->config.nodes;
    s.n_nodes = c->config.n_nodes;
    s.close = close;
    m.sync = &s;
    log_send(c, &m);
}

/* --- who is in --- */

/* It has promised what we have, and counts. */
static bool counts(const struct ha_core *c, unsigned slot)
{
    const struct ha_sync *s = &c->log.sync[slot];

    return s->have && s->same_nodes && s->promise == c->log.promise;
}

/* A node without a memory may have forgotten what it acknowledged: it counts for a majority only
 * where nobody can have anything, or everybody is here. */
static bool enough(const struct ha_core *c, unsigned *n)
{
    unsigned blank = 0;

    *n = 0;
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        if (!counts(c, i))
            continue;
        ++*n;
        blank += c->log.sync[i].blank;
    }
    if (*n == c->config.n_nodes || blank == *n)
        return *n >= core_majority(c);
    return *n - blank >= core_majority(c);
}

static bool all_said(const struct ha_core *c)
{
    const struct ha_log *l = &c->log;

    for (unsigned i = 0; i < l->n_members; i++) {
        unsigned slot = (unsigned)core_slot(c, l->members[i]);

        if (!counts(c, slot) && !(l->sync[slot].have && !l->sync[slot].same_nodes))
            return false;
    }
    return true;
}

static bool newer(const struct ha_sync *a, const struct ha_sync *b)
{
    return a->term != b->term ? a->term > b->term : a->index > b->index;
}

static unsigned donor(const struct ha_core *c, bool *alike)
{
    const struct ha_sync *s = c->log.sync;
    int best = -1;

    *alike = true;
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        if (!counts(c, i))
            continue;
        if (best >= 0 && (s[i].term != s[best].term || s[i].index != s[best].index ||
                             s[i].chain != s[best].chain))
            *alike = false;
        if (best < 0 || newer(&s[i], &s[best]))
            best = (int)i;
    }
    return (unsigned)best;
}

/* --- the donor --- */

static void basis(struct ha_core *c, Migrd__HaInstall *m)
{
    Migrd__HaBasis *b = arena_alloc(&c->arena, c->config.n_nodes * sizeof *b);

    m->basis = arena_alloc(&c->arena, c->config.n_nodes * sizeof *m->basis);
    for (unsigned i = 0; i < c->config.n_nodes; i++) {
        if (!counts(c, i))
            continue;
        migrd__ha_basis__init(&b[i]);
        b[i].node = c->config.nodes[i];
        b[i].incarnation = c->log.sync[i].incarnation;
        m->basis[m->n_basis++] = &b[i];
    }
}

static void term_entry(struct ha_core *c, Migrd__HaInstall *m)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaTerm t = MIGRD__HA_TERM__INIT;

    t.term = m->term;
    t.members = arena_alloc(&c->arena, m->n_basis * sizeof *t.members);
    t.incarnations = arena_alloc(&c->arena, m->n_basis * sizeof *t.incarnations);
    for (size_t i = 0; i < m->n_basis; i++) {
        t.members[t.n_members++] = m->basis[i]->node;
        t.incarnations[t.n_incarnations++] = m->basis[i]->incarnation;
    }
    t.nodes = c->config.nodes;
    t.n_nodes = c->config.n_nodes;
    e.node = c->config.node;
    e.incarnation = c->config.incarnation;
    e.time = core_log_time(c);
    e.term = &t;
    m->entry.len = migrd__ha_entry__get_packed_size(&e);
    m->entry.data = arena_alloc(&c->arena, m->entry.len);
    migrd__ha_entry__pack(&e, m->entry.data);
}

static void send_parts(struct ha_core *c, Migrd__HaInstall *m)
{
    Migrd__HaSnapshot *s = log_snapshot(c);
    size_t len = migrd__ha_snapshot__get_packed_size(s);
    uint8_t *all = arena_alloc(&c->arena, len);
    Migrd__HaMessage message = MIGRD__HA_MESSAGE__INIT;

    migrd__ha_snapshot__pack(s, all);
    m->parts = (uint32_t)((len + PART - 1) / PART);
    for (m->part = 0; m->part < m->parts; m->part++) {
        size_t at = (size_t)m->part * PART;

        m->bytes.data = all + at;
        m->bytes.len = len - at < PART ? len - at : PART;
        message.install = m;
        log_send(c, &message);
    }
}

static void donate(struct ha_core *c, bool alike)
{
    struct ha_log *l = &c->log;
    Migrd__HaMessage message = MIGRD__HA_MESSAGE__INIT;
    Migrd__HaInstall m = MIGRD__HA_INSTALL__INIT;

    m.term = l->promise;
    m.base_term = l->term;
    m.base_index = l->index;
    m.base_chain = l->chain;
    basis(c, &m);
    term_entry(c, &m);
    if (!alike) {
        send_parts(c, &m);
        return;
    }
    message.install = &m;
    log_send(c, &message);
}

static void check(struct ha_core *c, bool close)
{
    struct ha_log *l = &c->log;
    unsigned n, from;
    bool alike;

    if (!close && !all_said(c))
        return;
    if (!enough(c, &n)) {
        ha_text(l->why, sizeof l->why,
            "%u of %u nodes compared what they have, which is no majority that remembers", n,
            c->config.n_nodes);
        return;
    }
    from = donor(c, &alike);
    l->phase = PHASE(STATE);
    l->donor = c->config.nodes[from];
    l->part = 0;
    arm(c);
    ha_text(l->why, sizeof l->why, "node %u has the newest state", l->donor);
    if (l->donor == c->config.node)
        donate(c, alike);
}

/* --- messages --- */

static bool same_numbers(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
    return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof *a) == 0);
}

static void keep(struct ha_core *c, unsigned slot, uint64_t incarnation, const Migrd__HaSync *m)
{
    struct ha_sync *s = &c->log.sync[slot];

    s->same_nodes = same_numbers(m->nodes, m->n_nodes, c->config.nodes, c->config.n_nodes);
    if (!s->same_nodes && !s->have)
        core_note(c, true,
            "node %u has other nodes in its configuration than this node: make them equal",
            c->config.nodes[slot]);
    s->have = true;
    s->blank = m->blank;
    s->incarnation = incarnation;
    s->promise = m->promise;
    s->term = m->term;
    s->index = m->index;
    s->chain = m->chain;
}

void sync_message(struct ha_core *c, unsigned slot, uint64_t incarnation, const Migrd__HaSync *m)
{
    struct ha_log *l = &c->log;
    bool again, started = l->phase == PHASE(STATE) || l->phase == PHASE(ACTIVE);

    if (l->phase == PHASE(ALONE) ||
        !same_numbers(m->members, m->n_members, l->members, l->n_members))
        return;
    again = l->sync[slot].have && l->sync[slot].incarnation == incarnation &&
            m->promise <= l->sync[slot].promise;
    if (!again)
        keep(c, slot, incarnation, m);
    if (started) {
        /* Known already, or of no account; all others begin anew with it. */
        if (again || !l->sync[slot].same_nodes)
            return;
        sync_again(c, m->promise > l->promise ? m->promise : l->promise + 1);
        return;
    }
    if (m->promise > l->promise && l->sync[slot].same_nodes)
        sync_again(c, m->promise);
    else
        check(c, m->close && m->promise == l->promise);
}

/* Who does not answer does not stop the others for ever. */
void sync_time(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    if ((l->phase != PHASE(SYNC) && l->phase != PHASE(STATE)) || c->now < l->deadline)
        return;
    l->wait = l->wait * 2 < WAIT_MAX ? l->wait * 2 : WAIT_MAX;
    if (l->phase == PHASE(SYNC) && l->promise_id) { /* our disk is slow */
        l->deadline = c->now + l->wait;
    } else if (l->phase == PHASE(SYNC) && !l->closed) {
        l->deadline = c->now + l->wait;
        l->closed = true;
        sync_send(c, true);
    } else {
        sync_again(c, l->promise + 1);
    }
}

/* --- the state comes in --- */

static bool in_basis(const struct ha_core *c, const Migrd__HaInstall *m)
{
    for (size_t i = 0; i < m->n_basis; i++)
        if (m->basis[i]->node == c->config.node)
            return m->basis[i]->incarnation == c->config.incarnation;
    return false;
}

/* Its entry is executed by all members: it must be what it should be. */
static bool entry_is_term(struct ha_core *c, const Migrd__HaInstall *m)
{
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaEntry *e = migrd__ha_entry__unpack(&pa, m->entry.len, m->entry.data);

    return e && e->term && e->term->term == m->term &&
           same_numbers(e->term->nodes, e->term->n_nodes, c->config.nodes, c->config.n_nodes);
}

static bool acceptable(struct ha_core *c, uint32_t from, const Migrd__HaInstall *m)
{
    struct ha_log *l = &c->log;

    if ((l->phase != PHASE(SYNC) && l->phase != PHASE(STATE)) || m->term != l->promise)
        return false;
    if (!in_basis(c, m)) { /* it went on without us: ask to be let in, and be ready by then */
        if (m->part == 0)
            sync_again(c, l->promise + 1);
        return false;
    }
    if (m->term <= l->term || m->base_term < l->term ||
        (m->base_term == l->term && m->base_index < l->index)) {
        core_note(c, true, "node %u offers an older state than this node has: refused", from);
        return false;
    }
    if (m->parts == 0 &&
        (m->base_term != l->term || m->base_index != l->index || m->base_chain != l->chain)) {
        core_note(c, true, "node %u thinks that this node has its state, which it does not", from);
        return false;
    }
    return entry_is_term(c, m);
}

/* True: the last part is there. */
static bool assemble(struct ha_core *c, const Migrd__HaInstall *m)
{
    struct ha_log *l = &c->log;

    if (m->part == 0) {
        l->len = 0;
        l->part = 0;
    }
    if (m->part != l->part || m->part >= m->parts || l->len + m->bytes.len > HA_STATE_MAX) {
        l->part = UINT32_MAX;
        return false;
    }
    if (m->bytes.len > 0) {
        l->bytes = arena_keep(&c->arena, l->bytes, l->len + m->bytes.len);
        memcpy(l->bytes + l->len, m->bytes.data, m->bytes.len);
        l->len += m->bytes.len;
    }
    l->part++;
    arm(c);
    return l->part == m->parts;
}

static bool take_state(struct ha_core *c, const Migrd__HaInstall *m)
{
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaSnapshot *s = migrd__ha_snapshot__unpack(&pa, c->log.len, c->log.bytes);
    struct err e;

    if (!s) {
        core_note(c, true, "node %u sent a state that can't be read", c->log.donor);
        return false;
    }
    if (log_snapshot_read(c, s, m->base_index, m->base_chain, &e) < 0) {
        if (e.code == ERR_UNSUPPORTED)
            log_out(c, e.text);
        else
            core_note(c, true, "node %u: %s", c->log.donor, e.text);
        c->dead = e.code == ERR_INTEGRITY; /* ours is gone */
        return false;
    }
    c->all_dirty = true;
    return true;
}

/* The promise is on the disk: our SYNC, which made the basis, went out after it. */
static void adopt(struct ha_core *c, const Migrd__HaInstall *m)
{
    struct ha_log *l = &c->log;
    Migrd__HaRecord r = MIGRD__HA_RECORD__INIT;
    Migrd__HaInstall whole = *m;

    whole.part = 0;
    whole.bytes = (ProtobufCBinaryData){ m->parts ? l->len : 0, l->bytes };
    log_append(c, m->entry.data, m->entry.len);
    l->term = m->term;
    l->blank = false;
    l->phase = PHASE(STATE);
    memset(l->acked, 0, sizeof l->acked);
    r.promise = l->promise;
    r.install = &whole;
    log_ack_later(c, log_persist(c, &r, false));
    arm(c);
    if (m->parts)
        request_settle(c);
    ha_text(l->why, sizeof l->why, "a majority must have the state of term %llu on its disks",
        (unsigned long long)l->term);
}

void sync_install(struct ha_core *c, uint32_t from, const Migrd__HaInstall *m)
{
    struct ha_log *l = &c->log;

    if (!acceptable(c, from, m))
        return;
    l->donor = from;
    if (m->parts > 0 && (!assemble(c, m) || !take_state(c, m)))
        return;
    adopt(c, m);
    free(l->bytes);
    l->bytes = NULL;
    l->len = 0;
}
