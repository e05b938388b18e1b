/* SPDX-License-Identifier: ISC */
/* The log of a term: entries in, persisted, acknowledged, committed, applied. The story is in
 * core.c. */
#include <stdlib.h>
#include <xxhash.h>

#include "cluster/core_internal.h"
#include "cluster/mutant.h"

#define WRITTEN_MAX ((size_t)256 << 10) /* after so many bytes of entries all is written anew */

static void apply_first(struct ha_core *c);

/* It has adopted the term that it has promised. Before, it takes nothing and acknowledges nothing.
 */
static bool in_term(const struct ha_log *l)
{
    return (l->phase == PHASE(STATE) || l->phase == PHASE(ACTIVE)) && l->term == l->promise;
}

/* --- the disk --- */

uint64_t log_persist(struct ha_core *c, const Migrd__HaRecord *r, bool whole)
{
    struct ha_log *l = &c->log;
    struct ha_action *a = core_act(c, HA_ACT_PERSIST);
    uint8_t *bytes;

    a->len = migrd__ha_record__get_packed_size(r);
    a->bytes = bytes = arena_alloc(&c->arena, a->len);
    migrd__ha_record__pack(r, bytes);
    a->whole = whole;
    a->id = ++l->persist_id;
    if (whole)
        l->whole = a->len;
    l->written = whole ? 0 : l->written + a->len;
    return a->id;
}

Migrd__HaSnapshot *log_snapshot(struct ha_core *c)
{
    struct ha_log *l = &c->log;
    Migrd__HaSnapshot *s = arena_alloc(&c->arena, sizeof *s);
    Migrd__HaState *m = state_message(&c->state, &c->arena);

    migrd__ha_snapshot__init(s);
    s->state.len = migrd__ha_state__get_packed_size(m);
    s->state.data = arena_alloc(&c->arena, s->state.len);
    migrd__ha_state__pack(m, s->state.data);
    s->n_tail = l->n;
    s->tail = arena_alloc(&c->arena, l->n * sizeof *s->tail + 1);
    for (unsigned i = 0; i < l->n; i++)
        s->tail[i] = (ProtobufCBinaryData){ l->tail[l->head + i].len, l->tail[l->head + i].bytes };
    return s;
}

static void log_compact(struct ha_core *c)
{
    struct ha_log *l = &c->log;
    Migrd__HaRecord r = MIGRD__HA_RECORD__INIT;

    if (l->written < WRITTEN_MAX || l->written < 2 * l->whole)
        return;
    r.promise = l->promise;
    r.snapshot = log_snapshot(c);
    r.term = l->term;
    r.index = l->index;
    r.chain = l->chain;
    log_persist(c, &r, true);
}

/* --- the tail --- */

static void tail_clear(struct ha_log *l)
{
    for (unsigned i = 0; i < l->n; i++)
        free(l->tail[l->head + i].bytes);
    l->head = l->n = 0;
}

static void tail_room(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    if (l->head + l->n < l->cap)
        return;
    if (l->head > 0) {
        memmove(l->tail, l->tail + l->head, l->n * sizeof l->tail[0]);
        l->head = 0;
    }
    if (l->n < l->cap)
        return;
    l->tail = arena_keep(&c->arena, l->tail, (l->cap ? l->cap * 2 : 16) * sizeof l->tail[0]);
    l->cap = l->cap ? l->cap * 2 : 16;
}

void log_append(struct ha_core *c, const uint8_t *bytes, size_t len)
{
    struct ha_log *l = &c->log;
    struct ha_tail *t;

    tail_room(c);
    t = &l->tail[l->head + l->n];
    t->bytes = arena_keep(&c->arena, NULL, len);
    memcpy(t->bytes, bytes, len);
    t->len = len;
    t->index = ++l->index;
    t->chain = l->chain = XXH3_64bits_withSeed(bytes, len, l->chain);
    l->n++;
}

/* What is committed here already is not taken again: the donor may not know yet that it is. Gives
 * how many entries of the tail to skip; -1: they are not those that this node has. */
static int known_part(struct ha_core *c, struct ha_state *fresh, const Migrd__HaSnapshot *s)
{
    uint64_t chain = fresh->chain, n = 0;

    if (fresh->index >= c->state.index) {
        state_dispose(&c->state);
        c->state = *fresh;
        return 0;
    }
    for (; fresh->index + n < c->state.index && n < s->n_tail; n++)
        chain = XXH3_64bits_withSeed(s->tail[n].data, s->tail[n].len, chain);
    n = fresh->index + n == c->state.index && chain == c->state.chain ? n : UINT64_MAX;
    state_dispose(fresh);
    return (int)n;
}

static const char *too_old(const struct ha_core *c, unsigned version)
{
    return arena_text((struct ha_arena *)&c->arena,
        "the cluster has gone on to version %u of its protocol, this node speaks version %u and "
        "stays out: update migrd here",
        version, c->config.version);
}

int log_snapshot_read(
    struct ha_core *c, const Migrd__HaSnapshot *s, uint64_t index, uint64_t chain, struct err *e)
{
    struct ha_log *l = &c->log;
    struct ha_state fresh;
    int skip;

    state_init(&fresh);
    if (ha_state_parse(&fresh, &c->arena, s->state.data, s->state.len, e) < 0) {
        state_dispose(&fresh);
        return -1;
    }
    if (fresh.version > c->config.version) {
        unsigned version = fresh.version;

        state_dispose(&fresh);
        return err_set(e, ERR_UNSUPPORTED, "%s", too_old(c, version));
    }
    if (s->n_tail > 2 * HA_TAIL_MAX || fresh.index + s->n_tail != index) {
        state_dispose(&fresh);
        return err_set(e, ERR_PROTOCOL, "state of the cluster: ends at another entry than %llu",
            (unsigned long long)index);
    }
    skip = known_part(c, &fresh, s);
    tail_clear(l);
    l->index = c->state.index;
    l->chain = c->state.chain;
    for (size_t i = skip < 0 ? s->n_tail : (size_t)skip; i < s->n_tail; i++)
        log_append(c, s->tail[i].data, s->tail[i].len);
    if (skip < 0 || l->chain != chain)
        return err_set(
            e, ERR_INTEGRITY, "state of the cluster: its entries are not those of its sum");
    return 0;
}

/* --- what the disk had --- */

static int load_install(struct ha_core *c, const Migrd__HaInstall *m, struct err *e)
{
    struct ha_log *l = &c->log;
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaSnapshot *s = NULL;

    if (m->bytes.len > 0) {
        s = migrd__ha_snapshot__unpack(&pa, m->bytes.len, m->bytes.data);
        if (!s)
            return err_set(e, ERR_PROTOCOL, "a record of a new term is damaged");
        if (log_snapshot_read(c, s, m->base_index, m->base_chain, e) < 0)
            return -1;
    }
    if (l->index != m->base_index || l->chain != m->base_chain)
        return err_set(e, ERR_INTEGRITY, "the record of term %llu does not follow the one before",
            (unsigned long long)m->term);
    log_append(c, m->entry.data, m->entry.len);
    l->term = m->term;
    return 0;
}

static int load_record(struct ha_core *c, const struct ha_record *saved, struct err *e)
{
    struct ha_log *l = &c->log;
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaRecord *r = migrd__ha_record__unpack(&pa, saved->len, saved->bytes);

    if (!r)
        return err_set(e, ERR_PROTOCOL, "%zu bytes that are no record", saved->len);
    if (r->promise > l->promise)
        l->promise = r->promise;
    if (r->snapshot) {
        if (log_snapshot_read(c, r->snapshot, r->index, r->chain, e) < 0)
            return -1;
        l->term = r->term;
        l->whole = saved->len;
        l->written = 0;
    } else {
        l->written += saved->len;
    }
    if (r->install && load_install(c, r->install, e) < 0)
        return -1;
    if (r->entry.len > 0) {
        if (l->n >= 2 * HA_TAIL_MAX)
            return err_set(e, ERR_PROTOCOL, "more entries than were ever written");
        log_append(c, r->entry.data, r->entry.len);
    }
    while (l->n > 0 && l->tail[l->head].index <= r->commit && !c->dead)
        apply_first(c);
    return 0;
}

int log_load(struct ha_core *c, const struct ha_record *saved, size_t n, struct err *e)
{
    struct ha_log *l = &c->log;

    l->phase = PHASE(ALONE);
    ha_text(l->why, sizeof l->why, "not in the cluster's group yet");
    for (size_t i = 0; i < n; i++) {
        if (load_record(c, &saved[i], e) < 0)
            return err_prefix(e, "the cluster's saved state, record %zu of %zu", i + 1, n);
        arena_reset(&c->arena);
    }
    l->blank = l->term == 0;
    return 0;
}

void log_dispose(struct ha_core *c)
{
    tail_clear(&c->log);
    free(c->log.tail);
    free(c->log.bytes);
}

/* --- acknowledgements --- */

void log_send(struct ha_core *c, Migrd__HaMessage *m)
{
    struct ha_action *a = core_act(c, HA_ACT_SEND);
    uint8_t *bytes;

    m->version = c->config.version;
    m->needs = HA_OLDEST;
    m->from = c->config.node;
    m->incarnation = c->config.incarnation;
    a->len = migrd__ha_message__get_packed_size(m);
    a->bytes = bytes = arena_alloc(&c->arena, a->len);
    migrd__ha_message__pack(m, bytes);
}

void log_ack_later(struct ha_core *c, uint64_t id)
{
    struct ha_log *l = &c->log;
    unsigned max = sizeof l->pending / sizeof l->pending[0];

    if (l->n_pending == max)
        l->n_pending--;
    l->pending[l->n_pending++] =
        (struct ha_pending_ack){ .id = id, .term = l->term, .index = l->index, .chain = l->chain };
}

static void ack_send(struct ha_core *c, const struct ha_pending_ack *p)
{
    Migrd__HaMessage m = MIGRD__HA_MESSAGE__INIT;
    Migrd__HaAck ack = MIGRD__HA_ACK__INIT;

    ack.term = p->term;
    ack.index = p->index;
    ack.chain = p->chain;
    m.ack = &ack;
    log_send(c, &m);
    c->log.acked_own = *p;
    c->log.ack_again = c->now + c->config.times.token;
}

void log_persisted(struct ha_core *c, uint64_t id)
{
    struct ha_log *l = &c->log;
    struct ha_pending_ack newest = { .id = 0 };
    unsigned done = 0;

    if (id > l->persist_id || id <= l->persisted)
        return;
    l->persisted = id;
    while (done < l->n_pending && l->pending[done].id <= id)
        newest = l->pending[done++];
    l->n_pending -= done;
    memmove(l->pending, l->pending + done, l->n_pending * sizeof l->pending[0]);
    if (newest.id && newest.term == l->term && in_term(l))
        ack_send(c, &newest);
    if (l->promise_id && id >= l->promise_id) {
        l->promise_id = 0;
        if (l->phase == PHASE(SYNC))
            sync_send(c, false);
    }
}

/* --- commit --- */

static void became_active(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    l->phase = PHASE(ACTIVE);
    l->wait = 0;
    l->why[0] = 0;
    c->all_dirty = true;
    core_note(c, false, "term %llu is active with %u of %u nodes", (unsigned long long)l->term,
        l->n_members, c->config.n_nodes);
    lease_term(c);
    request_resend(c);
}

static void apply_first(struct ha_core *c)
{
    struct ha_log *l = &c->log;
    struct ha_tail t = l->tail[l->head];
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaEntry *e = migrd__ha_entry__unpack(&pa, t.len, t.bytes);
    bool ours;

    l->head++;
    l->n--;
    free(t.bytes);
    c->state.index = t.index;
    c->state.chain = t.chain;
    if (!e) { /* appended only if it could be read */
        core_note(c, true, "entry %llu of the log can't be read", (unsigned long long)t.index);
        c->dead = true;
        return;
    }
    ours = e->node == c->config.node && e->incarnation == c->config.incarnation;
    c->ok = true;
    c->said[0] = 0;
    apply_entry(c, e);
    if (ours && !e->term)
        request_applied(c, e->request);
    if (e->term && e->term->term == l->term && in_term(l))
        became_active(c);
}

static uint64_t committed(const struct ha_core *c)
{
    uint64_t sorted[HA_NODES_MAX];
    unsigned n = c->config.n_nodes;

    if (mutant(MUTANT_COMMIT))
        return c->log.acked[c->me];
    for (unsigned i = 0; i < n; i++) {
        unsigned j = i;

        for (; j > 0 && sorted[j - 1] < c->log.acked[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = c->log.acked[i];
    }
    return sorted[core_majority(c) - 1];
}

static void commit(struct ha_core *c)
{
    struct ha_log *l = &c->log;
    uint64_t upto = committed(c);

    /* What an older term left is committed by an entry of this one only. */
    while (l->n > 0 && l->tail[l->head].index <= upto && !c->dead)
        apply_first(c);
    log_compact(c);
}

static void ack_message(struct ha_core *c, unsigned slot, const Migrd__HaAck *m)
{
    struct ha_log *l = &c->log;
    const struct ha_tail *t;

    if (m->term != l->term || !in_term(l))
        return;
    if (l->n == 0 || m->index < l->tail[l->head].index || m->index > l->index)
        return;
    t = &l->tail[l->head + (m->index - l->tail[l->head].index)];
    if (t->chain != m->chain) {
        core_note(c, true,
            "node %u has another entry %llu of term %llu than this node: its acknowledgement does "
            "not count",
            c->config.nodes[slot], (unsigned long long)m->index, (unsigned long long)m->term);
        return;
    }
    if (m->index > l->acked[slot]) {
        l->acked[slot] = m->index;
        commit(c);
    }
}

/* --- proposals --- */

/* All members decide alike: what is refused here gets no index anywhere. */
static bool entry_ok(
    struct ha_core *c, uint32_t from, uint64_t incarnation, const Migrd__HaPropose *m)
{
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaEntry *e = migrd__ha_entry__unpack(&pa, m->entry.len, m->entry.data);

    return e && e->node == from && e->incarnation == incarnation && !e->term &&
           (e->join || e->report || e->expired || e->fenced || e->command || e->tick);
}

static void propose_message(
    struct ha_core *c, unsigned slot, uint64_t incarnation, const Migrd__HaPropose *m)
{
    struct ha_log *l = &c->log;
    Migrd__HaRecord r = MIGRD__HA_RECORD__INIT;

    if (m->term != l->term || !in_term(l))
        return;
    if (l->n >= HA_TAIL_MAX)
        return;
    if (!entry_ok(c, c->config.nodes[slot], incarnation, m)) {
        core_note(c, true, "node %u proposed what is no entry", c->config.nodes[slot]);
        return;
    }
    log_append(c, m->entry.data, m->entry.len);
    r.promise = l->promise;
    r.entry = m->entry;
    r.commit = c->state.index;
    log_ack_later(c, log_persist(c, &r, false));
}

/* --- messages --- */

void log_out(struct ha_core *c, const char *text)
{
    struct ha_log *l = &c->log;

    if (!l->out)
        core_note(c, true, "%s", text);
    l->out = true;
    l->phase = PHASE(ALONE);
    ha_copy(l->why, sizeof l->why, text);
}

void log_message(struct ha_core *c, uint32_t from, const uint8_t *bytes, size_t len)
{
    ProtobufCAllocator pa = arena_protobuf(&c->arena);
    Migrd__HaMessage *m = len <= HA_MESSAGE_MAX ? migrd__ha_message__unpack(&pa, len, bytes) : NULL;
    int slot = core_slot(c, from);

    if (c->log.out || slot < 0 || !ha_node_in(c->log.members, c->log.n_members, from))
        return;
    if (!m || m->from != from) {
        core_note(c, true, "node %u sent %zu bytes that are no message of the cluster", from, len);
        return;
    }
    if (m->needs > c->config.version) {
        log_out(c, too_old(c, m->needs));
        return;
    }
    if (m->sync)
        sync_message(c, (unsigned)slot, m->incarnation, m->sync);
    else if (m->install)
        sync_install(c, from, m->install);
    else if (m->propose)
        propose_message(c, (unsigned)slot, m->incarnation, m->propose);
    else if (m->ack)
        ack_message(c, (unsigned)slot, m->ack);
}

void log_view(struct ha_core *c, const uint32_t *members, unsigned n)
{
    struct ha_log *l = &c->log;

    if (n > HA_NODES_MAX)
        n = HA_NODES_MAX;
    l->n_members = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned j = l->n_members;

        if (core_slot(c, members[i]) < 0 || ha_node_in(l->members, l->n_members, members[i]))
            continue;
        for (; j > 0 && l->members[j - 1] > members[i]; j--)
            l->members[j] = l->members[j - 1];
        l->members[j] = members[i];
        l->n_members++;
    }
    memset(l->sync, 0, sizeof l->sync);
    l->wait = 0;
    sync_view(c);
}

void log_time(struct ha_core *c)
{
    struct ha_log *l = &c->log;

    sync_time(c);
    if (in_term(l) && l->n > 0 && l->acked_own.term == l->term && c->now >= l->ack_again)
        ack_send(c, &l->acked_own);
}

uint64_t log_wake(const struct ha_core *c)
{
    return c->log.phase == PHASE(SYNC) || c->log.phase == PHASE(STATE) ? c->log.deadline : HA_NEVER;
}
