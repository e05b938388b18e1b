/* SPDX-License-Identifier: ISC */
/*
 * The story. Each domain has one (owner, epoch) in a log that all nodes of the cluster keep. Who
 * runs it is decided by applying that log, in the same way on each node; there is no leader. Two
 * channels:
 *
 *   ordered  corosync's CPG. All members of a view get the same messages in the same order; it
 * stands still for 2.2 tokens whenever a member dies. beats    datagrams to each peer. One node's
 * death disturbs nobody else's.
 *
 * 1. The log (core_sync.c, core_log.c). A term has one donor of state and one order of entries.
 *
 *   ALONE   no majority of the configured nodes in the view: nothing is decided here
 *   SYNC    a view has begun. Each member promises a number that is newer than any it gave before,
 *           writes it to its disk, then sends SYNC(promise, newest term and index on its disk). Who
 * sees a higher promise than its own follows it. All members have sent the same promise, or a
 *           majority has and one of them asks to close: the member with the newest (term, index)
 *           is the donor and sends INSTALL(term = promise, what it has, who promised).
 *   STATE   INSTALL is taken only by whom it names, under the very promise, if it is not older than
 * what he has; written to disk, acknowledged. Its last entry begins the term: who is a member.
 *   ACTIVE  that entry is committed. Each PROPOSE of this term that is delivered gets the next
 * index, is written, acknowledged. Acknowledged by a majority of the configured nodes: committed,
 *           and applied in this order.
 *
 *   Why nothing committed is lost. A majority acknowledged an entry of term b, having written it. A
 * later term c has a majority of promises; one member k is in both. k promised c after it
 * acknowledged (having promised it would take nothing of b any more), so k's SYNC shows the entry,
 * and the donor's (term, index) is not less. A term between b and c has it by the same argument. A
 * promise is on the disk before it is sent, and grows with each view, so two rounds never share a
 * number; messages of a round that is over name another number and are ignored. So are a PROPOSE or
 * an ACK of another term, and all of them while a newer term's state is awaited. An ACK carries the
 * sum of all entries up to its index; one that differs does not count.
 *   - Delivered to a minority only: no majority acknowledges it. The next round keeps it if that
 *     minority's newest member is the donor, else its tail is replaced. Its proposer sends it
 * again, under the same request number; a number is applied once.
 *   - A crash between disk and acknowledgement: the entry is in the tail that SYNC shows.
 *   - A member joins, or restarts under the same id, in the middle: a view, or its SYNC of a new
 *     promise, begins the round anew for all.
 *   - A member hangs: the others close the round without it. When it wakes, it sees that it is not
 * named, and asks with a higher promise, which it has written before: the others only follow.
 *   - A node without a memory (new disk) may have acknowledged what it has forgotten: it counts for
 * a majority of promises only if all are without, or all nodes are here.
 *   - Times of its own in a node's configuration: the log's count, which the first JOIN brought;
 * they change while the cluster is disarmed. So the inequality of the timers is one of all nodes.
 *   - Versions: the state's is the oldest that any configured node has joined with, and never
 * falls; what an older one would apply otherwise is proposed above it only. A node that is older
 * than the state stays out, and people are told.
 *   - Other configured nodes in a member's configuration: it stays out, and people are told. To add
 * or remove a node, disarm, change one at a time everywhere, arm.
 *   - The donor may not know yet that an entry is committed: who has applied it keeps his state.
 *
 * 2. Entries (core_apply.c, core_node.c, core_domain.c, core_command.c), then decisions that follow
 *   from the state (core_decide.c, core_plan.c). Time in the log is what proposers say it is; it
 * never goes back. A member proposes TICK when the log waits for a time. An entry counts only if
 * its proposer's incarnation is the one that JOIN admitted: what a daemon proposed before it died
 *   can't come after the JOIN of the next one, because each term ignores the proposals of others.
 *
 * 3. Leases (core_lease.c, times.c). A node's protected guests have fuses. They burn at
 *     the sending of its newest beat that a majority, itself included, has acknowledged + lease.
 *   A peer acknowledges the beats of the life (incarnation, number) that its log has admitted, if
 * its own JOIN has been applied, and none of a life for whose end it has voted. A voter votes
 * EXPIRED after `proof` ms of its own clock without a beat that it could acknowledge. A majority of
 * the configured nodes, the node itself not counted, proves that no guest of it runs: that majority
 * and the one which acknowledged the last beat share a node other than it; that one saw the beat
 * not before it was sent, voted `proof` later, and acknowledges none afterwards. This holds
 * whatever the ordered channel did, and for whatever the voter knew of the log.
 *   - Beats of an old incarnation are not of the admitted life: neither seen nor acknowledged. An
 *     acknowledgement of another life of ours is not counted.
 *   - A voter that restarts forgets its vote, but acknowledges nothing before its own JOIN, and
 * then has the vote in its state if it was ever ordered.
 *   - A vote races with a JOIN: it names a life, the order of the log decides. A vote that stays
 * alone, or a lease that ended while the daemon lived, is healed by a new life of the same daemon;
 *     its silence counts from what the voter saw of any life.
 *   - The channel stops when one node has applied the JOIN of a daemon's next life, and another has
 * not: all lives since the last that expired in the log are acknowledged. What a vote proves counts
 *     from what its voter saw of any of them; votes of a life that is over can't complete.
 *   - A node that is in the group, and whose beats or their acknowledgements do not get through (a
 * firewall), expires once: by the others' votes, or, where they hear it, by its own word, after
 * which it never extends a fuse under that life. It asks for a new life when a majority has told it
 * by beats that it is heard, and not too often. Domains are given only to nodes of whose present
 * life a majority has acknowledged a beat (`holds`, by the node's own report); a term whose member
 * is a newer daemon than the one that was admitted takes that back.
 *   - Tilt: who stood still for longer than `tilt` has beats waiting in its sockets: it forgets
 *     what it did not see, and votes `proof` later at the earliest.
 *   - Members that have just compared logs are alive: where all were cut off from each other,
 * paused guests go on where they are. A vote that the channel did not take in its term is not sent
 * in the next: when that begins here, all entries that older terms leave have been applied, and
 * what was proposed in one can't become an entry any more. So a vote that is none by then never
 * counts; its voter may acknowledge again, and votes anew after `proof` of silence. What counts is
 * an entry, and such a voter acknowledges nothing until the life is over: the majority of above
 * still has one member that saw the beat, voted, and acknowledged no more. In a view that stands
 * still a vote is in vain: members are voted on half a token later than others, when such a view
 * has ended.
 *
 * 4. Proofs. Recovery is epoch + 2 and START, and only after: LEASE (above; only for copies known
 * to burn a fuse), SELF (the owner itself says that it is not there; or its host was booted),
 * FENCED (an agent confirmed), OPERATOR. No time limit starts anything. A copy that is being
 * started begins with a blown fuse, so one that nobody knows of never runs. Between EXPIRED and a
 * place the record names its old owner: if that is back first, with the paused copy, the guest goes
 * on there (WAITING, runs). Epoch + 2, since epoch + 1 is what the incoming copy of a move has: a
 * hand-over that asks who owns it never takes a recovery for its own success, and such a copy is
 * older than what is started, a stray wherever it is. START tells for how long the old copy has
 * not run for sure: the least of what the votes' silences have beyond the inequality's sum and of
 * how long it was the lost owner's (copies before that one may have run until then), and the time
 * since; by the starter's own clock, because the log's may leap.
 *
 * 5. Live migration is in the same log. MIGRATE_BEGIN weighs and reserves; HANDOVER(e -> e + 1) is
 * asked with the guest paused, before GO. It is answered when it is decided, and not before: the
 * source stays paused if it can't know. A failover of the source is e + 2 elsewhere: whichever is
 *   first in the log makes the other one fail. TAKE_BACK(e + 1 -> e + 2) needs the target's own
 * NEVER_RAN: that a target has expired does not prove that it never ran. A failover of the target
 *   is e + 3, so e + 2 is the source's own again or a failover of it, never both. The source's copy
 *   is no stray as long as the log may give it back; once the target says that it runs, it is.
 *
 * 6. This host (core_host.c): only copies that the log names get fuses; others are destroyed.
 * Actions are begun once; results that are lost are made good by sight or by time. A domain that
 * was placed here before a restart of this daemon is given back, never started a second time under
 * its epoch.
 *   A record names the nodes that may still have an older copy (`old`); each of them says when it
 * has none. Until then the record can't be removed: nothing else would keep that copy from running.
 *
 * Disarmed: fuses without a limit, and therefore no votes, and no LEASE proof for a copy until its
 * owner has said, after ARM, that it burns a fuse again. What people start by hand meanwhile has a
 * newer epoch than the record. At ADD and at ARM each node is asked for a copy that the log did not
 * order (`unsure`); only what it says after the question counts. A copy that is found is the
 * domain's if nobody else has it; else the record is blocked and people are told, and neither copy
 * is touched. Nothing is started while a node that may have such a copy has not answered: a node
 * that is here, and after ARM any node without a proof of its end, until the owner says that it
 * runs.
 */
#include "cluster/core.h"

#include <stdlib.h>

#include "cluster/core_internal.h"

#define TICK_RANK 4 /* beats between the lowest member's turn to tick and the next one's */

/* --- actions --- */

struct ha_action *core_act(struct ha_core *c, enum ha_action_type type)
{
    struct ha_action *a;

    if (c->n_actions == c->cap_actions) {
        size_t cap = c->cap_actions ? c->cap_actions * 2 : 64;

        c->action = arena_keep(&c->arena, c->action, cap * sizeof *a);
        c->cap_actions = cap;
    }
    a = &c->action[c->n_actions++];
    memset(a, 0, sizeof *a);
    a->type = type;
    a->text = "";
    return a;
}

uint64_t core_id(struct ha_core *c)
{
    return ++c->next_id;
}

void core_note(struct ha_core *c, bool alarm, const char *fmt, ...)
{
    char text[500];
    struct ha_action *a;
    va_list ap;

    if (c->rehearsal)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    a = core_act(c, HA_ACT_NOTE);
    a->alarm = alarm;
    a->text = arena_text(&c->arena, "%s", text);
}

/* --- small questions --- */

int core_slot(const struct ha_core *c, uint32_t node)
{
    for (unsigned i = 0; i < c->config.n_nodes; i++)
        if (c->config.nodes[i] == node)
            return (int)i;
    return -1;
}

unsigned core_majority(const struct ha_core *c)
{
    return c->config.n_nodes / 2 + 1;
}

uint64_t core_log_time(const struct ha_core *c)
{
    return c->state.time + (c->now - c->applied_at);
}

bool core_active(const struct ha_core *c)
{
    return c->log.phase == PHASE(ACTIVE);
}

/* --- time --- */

/* When the log's next time is ours to tell: the lowest member's at once, the others' later. */
static uint64_t tick_at(const struct ha_core *c)
{
    const struct ha_state *s = &c->state;
    uint64_t rank = 0;

    if (!core_active(c) || !c->joined || c->ticking || s->wake == HA_NEVER)
        return HA_NEVER;
    while (rank < c->log.n_members && c->log.members[rank] != c->config.node)
        rank++;
    return c->applied_at + (s->wake > s->time ? s->wake - s->time : 0) +
           rank * TICK_RANK * c->config.times.beat;
}

static void tick(struct ha_core *c)
{
    Migrd__HaEntry e = MIGRD__HA_ENTRY__INIT;
    Migrd__HaTick t = MIGRD__HA_TICK__INIT;

    if (c->now < tick_at(c) || !request_room(c))
        return;
    e.tick = &t;
    request_send(c, &e, NULL, &c->ticking);
}

static void watchdog(struct ha_core *c)
{
    if (c->config.times.watchdog == 0 || c->now < c->pet_at || host_rebels(c))
        return;
    core_act(c, HA_ACT_WATCHDOG)->deadline = c->now + c->config.times.watchdog;
    c->pet_at = c->now + c->config.times.watchdog / 4;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* --- the step --- */

static void dispatch(struct ha_core *c, const struct ha_event *e)
{
    switch (e->type) {
    case HA_EV_VIEW:
        log_view(c, e->u.view.members, e->u.view.n);
        break;
    case HA_EV_QUORUM:
        c->quorate = e->u.quorate;
        break;
    case HA_EV_MESSAGE:
        log_message(c, e->u.message.from, e->u.message.bytes, e->u.message.len);
        break;
    case HA_EV_BEAT:
        lease_beat(c, e->u.message.from, e->u.message.bytes, e->u.message.len);
        break;
    case HA_EV_PERSISTED:
        log_persisted(c, e->u.id);
        break;
    case HA_EV_DOMAIN:
        host_event_domain(c, e);
        break;
    case HA_EV_HOST:
        host_event_host(c, e);
        break;
    case HA_EV_RESULT:
        host_event_result(c, e);
        break;
    case HA_EV_COMMAND:
        command_event(c, e->u.command);
        break;
    case HA_EV_TIME:
    case HA_EV_MAX:
        break;
    }
}

static void step(struct ha_core *c, const struct ha_event *e)
{
    lease_tilt(c);
    dispatch(c, e);
    log_time(c);
    lease_time(c);
    request_time(c);
    host_time(c);
    tick(c);
    watchdog(c);
    host_reconcile(c);
    c->expected = earlier(earlier(lease_wake(c), log_wake(c)), tick_at(c));
    c->stepped = true;
}

void ha_step(struct ha_core *c, const struct ha_event *e, uint64_t now, struct ha_actions *out)
{
    *out = (struct ha_actions){ .wake = now + c->config.times.beat };
    if (c->dead)
        return;
    if (now > c->now)
        c->now = now;
    c->n_actions = 0;
    arena_reset(&c->arena);
    if (setjmp(c->oom) != 0) {
        c->dead = true;
        return;
    }
    step(c, e);
    if (c->expected < c->now)
        c->expected = c->now;
    *out = (struct ha_actions){ c->action, c->n_actions, c->expected };
}

/* --- birth and death --- */

static int config_check(const struct ha_config *config, struct err *e)
{
    bool here = false;

    if (config->n_nodes == 0 || config->n_nodes > HA_NODES_MAX)
        return err_set(
            e, ERR_INVALID, "a cluster has 1 to %u nodes, not %u", HA_NODES_MAX, config->n_nodes);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        here |= config->nodes[i] == config->node;
        if (config->nodes[i] == 0 || ha_node_in(config->nodes, i, config->nodes[i]))
            return err_set(e, ERR_INVALID, "node id %u is 0 or there twice", config->nodes[i]);
    }
    if (!here || config->incarnation == 0)
        return err_set(e, ERR_INVALID,
            "node %u is not one of the configured nodes, or has no incarnation", config->node);
    return ha_times_check(&config->times, e);
}

static void sort_nodes(struct ha_config *config)
{
    for (unsigned i = 1; i < config->n_nodes; i++)
        for (unsigned j = i; j > 0 && config->nodes[j - 1] > config->nodes[j]; j--) {
            uint32_t swap = config->nodes[j];

            config->nodes[j] = config->nodes[j - 1];
            config->nodes[j - 1] = swap;
        }
}

static int load(struct ha_core *c, const struct ha_record *saved, size_t n, struct err *e)
{
    if (setjmp(c->oom) != 0)
        return err_set(e, ERR_MEMORY, "no memory for the cluster's saved state");
    c->request = arena_keep(&c->arena, NULL, HA_REQUESTS_MAX * sizeof *c->request);
    state_init(&c->state);
    c->me = (unsigned)core_slot(c, c->config.node);
    if (log_load(c, saved, n, e) < 0)
        return -1;
    c->applied_at = c->now;
    lease_init(c);
    return 0;
}

struct ha_core *ha_core_new(const struct ha_config *config, const struct ha_record *saved, size_t n,
    uint64_t now, struct err *e)
{
    struct ha_core *c;

    if (config_check(config, e) < 0)
        return NULL;
    c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, ERR_MEMORY, "no memory for the cluster's decision core");
        return NULL;
    }
    c->config = *config;
    c->own_times = config->times;
    if (c->config.version == 0)
        c->config.version = HA_VERSION;
    c->now = now;
    sort_nodes(&c->config);
    arena_init(&c->arena, &c->oom);
    if (load(c, saved, n, e) < 0)
        ha_core_free(&c);
    return c;
}

void ha_core_free(struct ha_core **cp)
{
    struct ha_core *c = *cp;

    if (!c)
        return;
    request_dispose(c);
    log_dispose(c);
    host_dispose(c);
    state_dispose(&c->state);
    arena_free(&c->arena);
    free(c->action);
    free(c);
    *cp = NULL;
}

/* --- for people --- */

void ha_core_place(const struct ha_core *c, struct ha_place *out)
{
    *out = (struct ha_place){ .term = c->state.term,
        .index = c->state.index,
        .chain = c->state.chain,
        .phase = c->log.phase,
        .armed = c->state.armed,
        .joined = c->joined,
        .dead = c->dead };
}

const struct ha_times *ha_core_times(const struct ha_core *c)
{
    return &c->config.times;
}

static void local_message(const struct ha_core *c, struct ha_arena *a, Migrd__HaState *m)
{
    Migrd__HaLocal *l = arena_alloc(a, sizeof *l);
    unsigned n = c->config.n_nodes;

    migrd__ha_local__init(l);
    l->phase = c->log.phase;
    l->promise = c->log.promise;
    l->last_term = c->log.term;
    l->last_index = c->log.index;
    l->members = (uint32_t *)c->log.members;
    l->n_members = c->log.n_members;
    l->joined = c->joined;
    l->lease_until = c->lease.until;
    l->tilt_until = c->lease.tilt_until;
    l->why = (char *)c->log.why;
    l->waiting = c->n_requests;
    l->quorate = c->quorate;
    l->peer = arena_alloc(a, n * sizeof *l->peer);
    for (unsigned i = 0; i < n; i++) {
        const struct ha_peer *p = &c->lease.peer[i];
        Migrd__HaPeer *x = l->peer[i] = arena_alloc(a, sizeof *x);

        migrd__ha_peer__init(x);
        x->node = p->node;
        x->seen = p->heard;
        x->voted = p->voted_incarnation != 0;
        x->acked = p->acked_at;
    }
    l->n_peer = n;
    m->local = l;
}

Migrd__HaState *ha_core_state(const struct ha_core *c)
{
    struct ha_arena a;
    jmp_buf oom;
    Migrd__HaState *volatile result = NULL;

    arena_init(&a, &oom);
    if (setjmp(oom) == 0) {
        Migrd__HaState *m = state_message(&c->state, &a);
        uint8_t *bytes;
        size_t len;

        local_message(c, &a, m);
        len = migrd__ha_state__get_packed_size(m);
        bytes = arena_alloc(&a, len);
        migrd__ha_state__pack(m, bytes);
        result = migrd__ha_state__unpack(NULL, len, bytes);
    }
    arena_free(&a);
    return result;
}
